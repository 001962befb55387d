// SPDX-License-Identifier: Apache-2.0
// Trees read into memory, without the contents of files, and compared.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/model/model_execute.h"

#define COMPARE_BYTES (1u << 20)
// Times before this were set by utimensat, times after it by the clock.
#define EXPLICIT_BEFORE 1500000000

struct entry {
    char *path; // below the directory
    struct stat st;
    char *target;
    uint64_t xattrs;
    size_t first; // the first entry that is the same object
};

struct tree {
    char *directory;
    struct entry *entries;
    size_t count;
};

static void
explain(char *why, const char *path, const char *what, int64_t mount, int64_t reference)
{
    snprintf(why, TEXT_BYTES_MAX,
        "%s: %s is %lld (octal %llo) in the mount, %lld (octal %llo) "
        "is right",
        path, what, (long long)mount, (unsigned long long)mount, (long long)reference,
        (unsigned long long)reference);
}

// ---- reading ------------------------------------------------------------------------------------

static int
read_xattrs(const char *path, uint64_t *hash_out)
{
    char names[4096], value[4096];
    ssize_t length = llistxattr(path, names, sizeof(names));
    if (length < 0)
        return -errno;
    for (ssize_t at = 0; at < length; at += (ssize_t)strlen(names + at) + 1) {
        const char *name = names + at;
        if (strncmp(name, "user.", 5) != 0 && strncmp(name, "trusted.", 8) != 0)
            continue; // security labels differ from file system to file system
        ssize_t n = lgetxattr(path, name, value, sizeof(value));
        if (n < 0)
            return -errno;
        *hash_out += hash_bytes(hash_bytes(1, name, strlen(name) + 1), value, (size_t)n);
    }
    return 0;
}

static int
read_entry(const char *path, struct entry *e)
{
    if (lstat(path, &e->st) != 0)
        return -errno;
    if (S_ISLNK(e->st.st_mode)) {
        char target[PATH_MAX];
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        if (n < 0)
            return -errno;
        target[n] = '\0';
        e->target = strdup(target);
    }
    return read_xattrs(path, &e->xattrs);
}

static int
read_below(struct tree *tree, const char *path)
{
    char full[PATH_MAX], below[PATH_MAX];
    snprintf(full, sizeof(full), "%s%s", tree->directory, path);
    if ((tree->count & (tree->count - 1)) == 0) {
        size_t capacity = tree->count ? 2 * tree->count : 1;
        tree->entries = realloc(tree->entries, capacity * sizeof(*tree->entries));
        if (!tree->entries)
            abort();
    }
    struct entry *e = &tree->entries[tree->count++];
    *e = (struct entry){.path = strdup(path)};
    int rc = read_entry(full, e);
    if (rc < 0 || !S_ISDIR(e->st.st_mode))
        return rc;
    DIR *directory = opendir(full);
    if (!directory)
        return -errno;
    struct dirent *d;
    while (rc == 0 && (errno = 0, d = readdir(directory))) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        snprintf(below, sizeof(below), "%s/%s", path, d->d_name);
        rc = read_below(tree, below);
    }
    if (rc == 0)
        rc = -errno;
    closedir(directory);
    return rc;
}

static int
by_path(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->path, ((const struct entry *)b)->path);
}

static void
find_first(struct tree *tree, size_t i)
{
    struct entry *e = &tree->entries[i];
    e->first = i;
    for (size_t j = 0; j < i && e->st.st_nlink > 1; j++)
        if (tree->entries[j].st.st_ino == e->st.st_ino) {
            e->first = j;
            return;
        }
}

struct tree *
tree_read(const char *directory, char *why)
{
    struct tree *tree = calloc(1, sizeof(*tree));
    if (!tree)
        abort();
    tree->directory = strdup(directory);
    int rc = read_below(tree, "");
    if (rc < 0) {
        snprintf(why, TEXT_BYTES_MAX, "%s%s cannot be read: %s", directory,
            tree->count ? tree->entries[tree->count - 1].path : "", strerror(-rc));
        tree_free(tree);
        return NULL;
    }
    qsort(tree->entries, tree->count, sizeof(*tree->entries), by_path);
    for (size_t i = 0; i < tree->count; i++)
        find_first(tree, i);
    return tree;
}

void
tree_free(struct tree *tree)
{
    if (!tree)
        return;
    for (size_t i = 0; i < tree->count; i++) {
        free(tree->entries[i].path);
        free(tree->entries[i].target);
    }
    free(tree->entries);
    free(tree->directory);
    free(tree);
}

// ---- comparing ----------------------------------------------------------------------------------

static bool
same_paths(const struct tree *a, const struct tree *b, char *why)
{
    for (size_t i = 0; i < a->count || i < b->count; i++) {
        int order = i == a->count   ? 1
                    : i == b->count ? -1
                                    : strcmp(a->entries[i].path, b->entries[i].path);
        if (order == 0)
            continue;
        snprintf(why, TEXT_BYTES_MAX, order < 0 ? "%s is there and must not be" : "%s is missing",
            order < 0 ? a->entries[i].path : b->entries[i].path);
        return false;
    }
    return true;
}

static bool
is_explicit(const struct timespec *t)
{
    return t->tv_sec < EXPLICIT_BEFORE;
}

static bool
same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool
same_explicit_times(const struct entry *m, const struct entry *r, char *why)
{
    const struct timespec *a = &m->st.st_mtim, *b = &r->st.st_mtim;
    if ((is_explicit(a) || is_explicit(b)) && !same_time(a, b)) {
        explain(why, m->path, "mtime", a->tv_sec, b->tv_sec);
        return false;
    }
    // A read may give it a new atime; when and whether is not the same on all file systems.
    a = &m->st.st_atim;
    b = &r->st.st_atim;
    if (is_explicit(b) && is_explicit(a) && !same_time(a, b)) {
        explain(why, m->path, "atime", a->tv_sec, b->tv_sec);
        return false;
    }
    return true;
}

static bool
same_attributes(const struct entry *m, const struct entry *r, char *why)
{
    const struct {
        const char *what;
        int64_t mount, reference;
    } pairs[] = {
        {"the mode", m->st.st_mode, r->st.st_mode},
        {"the owner", m->st.st_uid, r->st.st_uid},
        {"the group", m->st.st_gid, r->st.st_gid},
        {"the link count", (int64_t)m->st.st_nlink, (int64_t)r->st.st_nlink},
        {"the size", S_ISDIR(m->st.st_mode) ? 0 : m->st.st_size,
            S_ISDIR(r->st.st_mode) ? 0 : r->st.st_size},
        {"the first name of this object", (int64_t)m->first, (int64_t)r->first},
        {"the hash of extended attributes", (int64_t)m->xattrs, (int64_t)r->xattrs},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (pairs[i].mount != pairs[i].reference) {
            explain(why, m->path, pairs[i].what, pairs[i].mount, pairs[i].reference);
            return false;
        }
    if (m->target && strcmp(m->target, r->target) != 0) {
        snprintf(why, TEXT_BYTES_MAX, "%s: another target", m->path);
        return false;
    }
    return true;
}

static ssize_t
read_block(int fd, uint8_t *out)
{
    size_t done = 0;
    while (done < COMPARE_BYTES) {
        ssize_t n = read(fd, out + done, COMPARE_BYTES - done);
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static int
by_record(const void *a, const void *b)
{
    return memcmp(a, b, SHARED_RECORD_BYTES);
}

// Records of several threads: in any order, but those of one thread in theirs.
static bool
order_records(uint8_t *block, size_t n)
{
    size_t count = n / SHARED_RECORD_BYTES;
    for (size_t i = 0; i < count; i++)
        for (size_t j = i; j-- > 0;) {
            uint8_t *a = block + j * SHARED_RECORD_BYTES, *b = block + i * SHARED_RECORD_BYTES;
            if (a[1] != b[1])
                continue;
            if (memcmp(a, b, SHARED_RECORD_BYTES) >= 0)
                return false;
            break;
        }
    qsort(block, count, SHARED_RECORD_BYTES, by_record);
    return true;
}

static bool
same_blocks(const char *path, uint8_t *a, uint8_t *b, ssize_t n, off_t offset, char *why)
{
    if (strcmp(path, "/shared/log") == 0 &&
        (!order_records(a, (size_t)n) || !order_records(b, (size_t)n))) {
        snprintf(why, TEXT_BYTES_MAX, "%s: the records of a thread are out of order", path);
        return false;
    }
    if (memcmp(a, b, (size_t)n) == 0)
        return true;
    ssize_t first = 0, last = n - 1;
    while (a[first] == b[first])
        first++;
    while (a[last] == b[last])
        last--;
    snprintf(why, TEXT_BYTES_MAX,
        "%s: the content differs from byte %lld (%d in the mount, %d is right) to byte %lld", path,
        (long long)(offset + first), a[first], b[first], (long long)(offset + last));
    return false;
}

static bool
same_content(const struct tree *mount, const struct tree *reference, const char *path, char *why)
{
    char a_path[PATH_MAX], b_path[PATH_MAX];
    snprintf(a_path, sizeof(a_path), "%s%s", mount->directory, path);
    snprintf(b_path, sizeof(b_path), "%s%s", reference->directory, path);
    int a = open(a_path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int b = open(b_path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    uint8_t *blocks = malloc(2 * COMPARE_BYTES);
    bool same = a >= 0 && b >= 0 && blocks;
    if (!same)
        snprintf(why, TEXT_BYTES_MAX, "%s: cannot be opened: %s", path, strerror(errno));
    off_t offset = 0;
    ssize_t n = same ? 1 : 0;
    while (same && n > 0) {
        n = read_block(a, blocks);
        ssize_t right = read_block(b, blocks + COMPARE_BYTES);
        same = n == right && n >= 0;
        if (!same)
            snprintf(why, TEXT_BYTES_MAX, "%s: read at %lld: %zd in the mount, %zd is right", path,
                (long long)offset, n, right);
        same = same && same_blocks(path, blocks, blocks + COMPARE_BYTES, n, offset, why);
        offset += n;
    }
    free(blocks);
    if (a >= 0)
        close(a);
    if (b >= 0)
        close(b);
    return same;
}

bool
tree_same(const struct tree *mount, const struct tree *reference, enum tree_times times, char *why)
{
    if (!same_paths(mount, reference, why))
        return false;
    for (size_t i = 0; i < mount->count; i++) {
        if (!same_attributes(&mount->entries[i], &reference->entries[i], why))
            return false;
        if (times == TREE_TIMES_EXPLICIT && i > 0 &&
            !same_explicit_times(&mount->entries[i], &reference->entries[i], why))
            return false;
    }
    for (size_t i = 0; i < mount->count; i++)
        if (S_ISREG(mount->entries[i].st.st_mode) && mount->entries[i].first == i &&
            !same_content(mount, reference, mount->entries[i].path, why))
            return false;
    return true;
}

bool
tree_unchanged(const struct tree *before, const struct tree *after, char *why)
{
    if (!same_paths(after, before, why))
        return false;
    for (size_t i = 0; i < before->count; i++) {
        const struct entry *b = &before->entries[i], *a = &after->entries[i];
        if (!same_attributes(a, b, why))
            return false;
        if (a->st.st_ino != b->st.st_ino) {
            explain(why, a->path, "the inode number", (int64_t)a->st.st_ino, (int64_t)b->st.st_ino);
            return false;
        }
        if (!same_time(&a->st.st_mtim, &b->st.st_mtim) ||
            !same_time(&a->st.st_ctim, &b->st.st_ctim)) {
            bool mtime = !same_time(&a->st.st_mtim, &b->st.st_mtim);
            const struct timespec *x = mtime ? &a->st.st_mtim : &a->st.st_ctim;
            const struct timespec *y = mtime ? &b->st.st_mtim : &b->st.st_ctim;
            snprintf(why, TEXT_BYTES_MAX, "%s: %s was %lld.%09ld and is now %lld.%09ld", a->path,
                mtime ? "mtime" : "ctime", (long long)y->tv_sec, y->tv_nsec, (long long)x->tv_sec,
                x->tv_nsec);
            return false;
        }
    }
    return true;
}

void
tree_set_times(const char *directory)
{
    char why[TEXT_BYTES_MAX], path[PATH_MAX];
    struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    struct tree *tree = tree_read(directory, why);
    for (size_t i = 0; tree && i < tree->count; i++) {
        snprintf(path, sizeof(path), "%s%s", directory, tree->entries[i].path);
        utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
    }
    tree_free(tree);
}
