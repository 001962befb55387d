// SPDX-License-Identifier: Apache-2.0
// Listing a file store in the byte order of whole keys. A walk that sorts each directory yields
// that order when the name of a directory is compared with the slash that follows it: then two
// children of one directory differ at a byte that every key below them has.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/memory.h"
#include "store/file_store_internal.h"
#include "store/store_internal.h"

#define KEY_MAX_BYTES 1024

struct walk {
    struct file_store *fs;
    const char *prefix;
    const char *after; // "" when all are wanted: no key is empty
    size_t limit;
    struct remote_listing *listing;
    const struct remote_call *call;
    struct buffer key; // of the directory being walked, with a slash at its end, or empty
};

// The children of one directory that may matter: keys relative to it, directories with a slash.
struct children {
    char **names;
    size_t count;
    size_t capacity;
};

static void
children_free(struct children *c)
{
    for (size_t i = 0; i < c->count; i++)
        free(c->names[i]);
    free(c->names);
}

static void
children_append(struct children *c, const char *name)
{
    if (c->count == c->capacity) {
        c->capacity = c->capacity ? c->capacity * 2 : 64;
        c->names = memory_realloc(c->names, c->capacity * sizeof(c->names[0]));
    }
    c->names[c->count++] = memory_string(name);
}

static int
compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool
begins_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

// Whether `key`, or for a directory a key below it, can be part of the listing.
static bool
is_wanted(const struct walk *w, const char *key, bool is_directory)
{
    if (!is_directory)
        return begins_with(key, w->prefix) && strcmp(key, w->after) > 0;
    if (strlen(key) > KEY_MAX_BYTES)
        return false;
    return (begins_with(key, w->prefix) || begins_with(w->prefix, key)) &&
           (strcmp(key, w->after) > 0 || begins_with(w->after, key));
}

static int
entry_type(int directory_fd, const struct dirent *e)
{
    if (e->d_type != DT_UNKNOWN)
        return e->d_type;
    struct stat st;
    if (fstatat(directory_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return DT_UNKNOWN;
    return S_ISDIR(st.st_mode) ? DT_DIR : S_ISREG(st.st_mode) ? DT_REG : DT_UNKNOWN;
}

static int
read_children(struct walk *w, DIR *d, struct children *out)
{
    size_t base = w->key.length;
    errno = 0;
    for (struct dirent *e; (e = readdir(d)); errno = 0) {
        int type = entry_type(dirfd(d), e);
        if (e->d_name[0] == '.' || (type != DT_REG && type != DT_DIR))
            continue;
        if (file_store_decode_component(e->d_name, &w->key)) {
            if (type == DT_DIR)
                buffer_append_u8(&w->key, '/');
            if (is_wanted(w, buffer_string(&w->key), type == DT_DIR))
                children_append(out, (char *)w->key.data + base);
        }
        w->key.length = base;
    }
    return -errno;
}

// 1 when the listing is full.
static int
add_object(struct walk *w, int directory_fd)
{
    const char *key = buffer_string(&w->key);
    if (w->listing->count == w->limit) {
        w->listing->more = true;
        return 1;
    }
    BUFFER_AUTO name = {0};
    const char *slash = strrchr(key, '/');
    const char *component = slash ? slash + 1 : key;
    file_store_append_component(&name, component, strlen(component));
    struct stat st;
    if (fstatat(directory_fd, buffer_string(&name), &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno == ENOENT)
            return 0; // deleted meanwhile
        return file_store_fail(w->fs, -errno, "list", key);
    }
    store_listing_append(w->listing, key, w->key.length, (uint64_t)st.st_size);
    return 0;
}

// Walks the directory of w->key; 1 when the listing is full.
static int
walk_directory(struct walk *w)
{
    int rc = store_check_call(w->call, "list", w->prefix);
    if (rc < 0)
        return rc;
    BUFFER_AUTO path = {0};
    file_store_append_path(&path, w->fs, buffer_string(&w->key));
    struct safe_place place;
    buffer_append_string(&path, "/.");
    int error = file_store_enter(w->fs, buffer_string(&path), &place);
    DIR *d = error == 0 ? opendir(place.path) : NULL;
    if (error == 0 && !d)
        error = -errno;
    safe_place_leave(&place);
    if (!d) {
        if (error == -ENOENT && w->key.length > 0)
            return 0; // removed meanwhile
        return file_store_fail(w->fs, error, "list", w->prefix);
    }
    struct children children = {0};
    rc = read_children(w, d, &children);
    if (rc < 0)
        rc = file_store_fail(w->fs, rc, "list", w->prefix);
    if (children.count > 1)
        qsort(children.names, children.count, sizeof(children.names[0]), compare_names);
    size_t base = w->key.length;
    for (size_t i = 0; rc == 0 && i < children.count; i++) {
        buffer_append_string(&w->key, children.names[i]);
        rc = w->key.data[w->key.length - 1] == '/' ? walk_directory(w) : add_object(w, dirfd(d));
        w->key.length = base;
    }
    children_free(&children);
    closedir(d);
    return rc;
}

int
file_store_list(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *listing_out, const struct remote_call *call)
{
    struct walk w = {
        .fs = CONTAINER_OF(s, struct file_store, base),
        .prefix = prefix,
        .after = after ? after : "",
        .limit = limit,
        .listing = listing_out,
        .call = call,
    };
    STORE_COUNT(s, list_requests, 1);
    int rc = walk_directory(&w);
    buffer_free(&w.key);
    return store_count_result(s, rc < 0 ? rc : 0);
}
