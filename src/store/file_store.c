// SPDX-License-Identifier: Apache-2.0
// A directory that behaves like a bucket. An object appears under its name only when all its bytes
// and the names of its directories are on stable storage.
#include "store/file_store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "store/remote_store_backends.h"
#include "store/store_internal.h"

#define TEMPORARY_DIRECTORY  ".tmp"
#define TEMPORARY_MAX_AGE_MS (24ull * 3600 * 1000)
#define COPY_BYTES           (1024u * 1024)
#define DIRECT_BYTES_MIN     (1024u * 1024)
#define DIRECTORY_MODE       0700
#define OBJECT_MODE          0600

static struct file_store *
file_store_of(struct remote_store *s)
{
    return CONTAINER_OF(s, struct file_store, base);
}

// ---- names --------------------------------------------------------------------------------------

static bool
is_plain(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

void
file_store_append_component(struct buffer *out, const char *component, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)component[i];
        if (is_plain(c) && !(i == 0 && c == '.'))
            buffer_append_u8(out, c);
        else
            buffer_printf(out, "%%%02X", c);
    }
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool
file_store_decode_component(const char *name, struct buffer *out)
{
    size_t begin = out->length;
    for (const char *p = name; *p; p++) {
        if (*p != '%') {
            buffer_append_u8(out, (uint8_t)*p);
            continue;
        }
        int high = hex_digit(p[1]);
        int low = high < 0 ? -1 : hex_digit(p[2]);
        if (low < 0)
            return false;
        buffer_append_u8(out, (uint8_t)(high * 16 + low));
        p += 2;
    }
    // Only the one spelling that this store writes is an object.
    BUFFER_AUTO again = {0};
    file_store_append_component(&again, (char *)out->data + begin, out->length - begin);
    return again.length > 0 && strcmp(buffer_string(&again), name) == 0;
}

void
file_store_append_path(struct buffer *out, const struct file_store *fs, const char *key)
{
    buffer_append_string(out, fs->directory);
    while (*key) {
        size_t n = strcspn(key, "/");
        buffer_append_u8(out, '/');
        file_store_append_component(out, key, n);
        key += n;
        key += *key == '/';
    }
    buffer_string(out);
}

// The store is not held: its disk may go and come back while a volume is mounted. But links on the
// way to it count once only. Whoever owns a directory above it could lead it elsewhere later.
static int
enter(struct file_store *fs, const char *relative, struct safe_place *place_out)
{
    char *place = atomic_load(&fs->place);
    if (!place && (place = realpath(fs->directory, NULL))) {
        char *other = NULL;
        if (!atomic_compare_exchange_strong(&fs->place, &other, place)) {
            free(place);
            place = other;
        }
    }
    place_out->parent = -1;
    return place ? safe_place_enter(place, relative, place_out) : -errno;
}

int
file_store_enter(struct file_store *fs, const char *path, struct safe_place *place_out)
{
    return enter(fs, path + strlen(fs->directory) + 1, place_out);
}

// ---- errors -------------------------------------------------------------------------------------

static bool
directory_is_missing(const struct file_store *fs)
{
    struct stat st;
    return stat(fs->directory, &st) < 0 && (errno == ENOENT || errno == ENOTDIR);
}

int
file_store_fail(const struct file_store *fs, int error, const char *what, const char *key)
{
    int class = -EIO;
    switch (-error) {
    case ENOSPC:
    case EDQUOT:
        class = -ENOSPC;
        break;
    case EACCES:
    case EPERM:
    case EROFS:
        class = -EACCES;
        break;
    case EAGAIN:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ESTALE:
    case ETIMEDOUT:
        class = -EAGAIN;
        break;
    case ENOENT:
        if (directory_is_missing(fs))
            return store_fail(-ENXIO,
                "%s %s: the store's directory %s does not exist; make it, or "
                "mount the disk that holds it",
                what, key, fs->directory);
        return store_fail(-ENOENT, "%s %s: no such object in %s", what, key, fs->directory);
    }
    return store_fail(class, "%s %s in %s: %s", what, key, fs->directory, strerror(-error));
}

// ---- directories --------------------------------------------------------------------------------

static uint64_t
known_hash(const struct file_store *fs, const char *path)
{
    return siphash24(&fs->hash_key, path, strlen(path)) | 1;
}

// Where the hash stands; FILE_STORE_KNOWN_DIRECTORIES when it is not there.
static unsigned
find_known_locked(const struct file_store *fs, uint64_t hash)
{
    unsigned at = 0;
    while (at < FILE_STORE_KNOWN_DIRECTORIES && fs->known[at] != hash)
        at++;
    return at;
}

// Puts the hash before the others; the one that was used longest ago gives way to a new one.
static void
use_known_locked(struct file_store *fs, uint64_t hash)
{
    unsigned at = find_known_locked(fs, hash);
    if (at == FILE_STORE_KNOWN_DIRECTORIES)
        at--;
    memmove(fs->known + 1, fs->known, at * sizeof(*fs->known));
    fs->known[0] = hash;
}

static bool
directory_is_known(struct file_store *fs, const char *path)
{
    uint64_t hash = known_hash(fs, path);
    lock_take(&fs->lock);
    bool known = find_known_locked(fs, hash) < FILE_STORE_KNOWN_DIRECTORIES;
    if (known)
        use_known_locked(fs, hash);
    lock_release(&fs->lock);
    return known;
}

static void
directory_set_known(struct file_store *fs, const char *path, bool known)
{
    uint64_t hash = known_hash(fs, path);
    lock_take(&fs->lock);
    unsigned at = find_known_locked(fs, hash);
    if (known)
        use_known_locked(fs, hash);
    else if (at < FILE_STORE_KNOWN_DIRECTORIES)
        fs->known[at] = 0;
    lock_release(&fs->lock);
}

// Makes the names of the directory that holds a place durable.
static int
sync_place(const struct file_store *fs, const struct safe_place *place)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d/.", place->parent);
    return file_sync_directory(fs->ops, path);
}

// Makes the directories of an object and their names durable. That a directory exists does not
// prove that its name is on disk: another process may have made it a moment ago.
static int
make_parents(struct file_store *fs, const char *path)
{
    BUFFER_AUTO directory = {0};
    for (const char *slash = strchr(path + strlen(fs->directory) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        buffer_clear(&directory);
        buffer_append(&directory, path, (size_t)(slash - path));
        const char *name = buffer_string(&directory);
        if (directory_is_known(fs, name))
            continue;
        struct safe_place place;
        int rc = file_store_enter(fs, name, &place);
        if (rc < 0)
            return rc;
        rc = path_make_directory(place.path, DIRECTORY_MODE);
        if (rc >= 0)
            rc = sync_place(fs, &place);
        safe_place_leave(&place);
        if (rc < 0)
            return rc;
        directory_set_known(fs, name, true);
    }
    return 0;
}

static void
forget_parents(struct file_store *fs, const char *path)
{
    BUFFER_AUTO directory = {0};
    for (const char *slash = strchr(path + strlen(fs->directory) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        buffer_clear(&directory);
        buffer_append(&directory, path, (size_t)(slash - path));
        directory_set_known(fs, buffer_string(&directory), false);
    }
}

// After a use of a known directory has failed with -ENOENT: another process removed one.
static int
remake_parents(struct file_store *fs, const char *path)
{
    forget_parents(fs, path);
    return make_parents(fs, path);
}

static int
sync_parent(struct file_store *fs, const char *path)
{
    struct safe_place place;
    int rc = file_store_enter(fs, path, &place);
    if (rc == 0)
        rc = sync_place(fs, &place);
    safe_place_leave(&place);
    return rc;
}

// ---- put ----------------------------------------------------------------------------------------

// In a directory that is not durable: its files are of no worth after a crash. The caller leaves
// `place_out` in every case.
static int
open_temporary(struct file_store *fs, struct safe_place *place_out)
{
    char id[37];
    char relative[64];
    struct uuid uuid = random_uuid();
    uuid_to_string(&uuid, id);
    snprintf(relative, sizeof(relative), TEMPORARY_DIRECTORY "/%s", id);
    int rc = enter(fs, relative, place_out);
    if (rc == -ENOENT && !directory_is_missing(fs)) {
        struct safe_place directory;
        rc = enter(fs, TEMPORARY_DIRECTORY, &directory);
        if (rc == 0)
            rc = path_make_directory(directory.path, DIRECTORY_MODE);
        safe_place_leave(&directory);
        if (rc >= 0)
            rc = enter(fs, relative, place_out);
    }
    if (rc < 0)
        return rc;
    return file_open(fs->ops, place_out->path, O_WRONLY | O_CREAT | O_EXCL, OBJECT_MODE);
}

// Copies the source to `fd` and makes it durable; the bytes must be those that were meant.
static int
write_source(struct file_store *fs, int fd, const char *key, const struct remote_source *source,
    const struct remote_call *call)
{
    CLEANUP(memory_free_auto)
    uint8_t *block = memory_alloc_aligned(FILE_DIRECT_ALIGNMENT, COPY_BYTES);
    // Direct, because no thread here reads a large object soon; that saves a copy of every byte.
    bool direct = source->length >= DIRECT_BYTES_MIN && file_set_direct(fd, true) == 0;
    struct store_check check;
    store_check_begin(&check, source);
    int rc = 0;
    for (uint64_t done = 0; rc == 0 && done < source->length;) {
        size_t n =
            source->length - done < COPY_BYTES ? (size_t)(source->length - done) : COPY_BYTES;
        rc = store_check_call(call, "put", key);
        if (rc == 0)
            rc = store_source_read(source, done, block, n);
        if (rc < 0)
            break;
        store_check_update(&check, block, n);
        rc = file_write_direct_at(fs->ops, fd, block, n, done, &direct);
        if (rc < 0)
            rc = file_store_fail(fs, rc, "put", key);
        done += n;
    }
    if (rc == 0)
        rc = store_check_finish(&check, key);
    store_check_free(&check);
    if (rc < 0)
        return rc;
    STORE_COUNT(&fs->base, bytes_written, source->length);
    rc = fs->ops->fsync(fd);
    return rc < 0 ? file_store_fail(fs, rc, "put", key) : 0;
}

static int
stat_object(struct file_store *fs, const char *path, struct stat *st_out)
{
    struct safe_place place;
    int rc = file_store_enter(fs, path, &place);
    if (rc == 0 && lstat(place.path, st_out) < 0)
        rc = -errno;
    safe_place_leave(&place);
    return rc;
}

static int
answer_exists(struct file_store *fs, const char *key, const char *path)
{
    struct stat st;
    int rc = stat_object(fs, path, &st);
    if (file_error_is_shortage(rc))
        return file_store_fail(fs, rc, "put", key);
    if (rc < 0 || !S_ISREG(st.st_mode))
        return store_fail(-EIO,
            "put %s in %s: other objects' keys begin with this one and a slash; "
            "a file store cannot hold both",
            key, fs->directory);
    // The process that made it may not have got to this yet, and our caller takes it for stored.
    rc = sync_parent(fs, path);
    if (rc < 0)
        return file_store_fail(fs, rc, "put", key);
    return store_fail(-EEXIST, "put %s: the object exists in %s", key, fs->directory);
}

static int
give_name(struct file_store *fs, const char *temporary, const char *path, enum remote_put_mode mode)
{
    struct safe_place place;
    int rc = file_store_enter(fs, path, &place);
    if (rc == 0)
        rc = mode == REMOTE_PUT_CREATE ? fs->ops->link(temporary, place.path)
                                       : fs->ops->rename(temporary, place.path);
    safe_place_leave(&place);
    return rc;
}

static int
put_in_place(struct file_store *fs, const char *key, const char *temporary, const char *path,
    enum remote_put_mode mode)
{
    int rc = make_parents(fs, path);
    if (rc == -ENOENT)
        rc = remake_parents(fs, path);
    if (rc < 0)
        return file_store_fail(fs, rc, "put", key);
    rc = give_name(fs, temporary, path, mode);
    if (rc == -ENOENT) {
        rc = remake_parents(fs, path);
        if (rc == 0)
            rc = give_name(fs, temporary, path, mode);
    }
    if (rc == -EEXIST || rc == -EISDIR || rc == -ENOTEMPTY)
        return answer_exists(fs, key, path);
    if (mode == REMOTE_PUT_CREATE && (rc == -EPERM || rc == -EOPNOTSUPP))
        return store_fail(-EOPNOTSUPP,
            "put %s: the file system of %s has no hard links, which "
            "create an object only if it is absent",
            key, fs->directory);
    if (rc == 0)
        rc = sync_parent(fs, path);
    return rc < 0 ? file_store_fail(fs, rc, "put", key) : 0;
}

static int
file_store_put(struct remote_store *s, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    struct file_store *fs = file_store_of(s);
    STORE_COUNT(s, put_requests, 1);
    BUFFER_AUTO path = {0};
    struct safe_place temporary;
    file_store_append_path(&path, fs, key);
    const char *name = buffer_string(&path);
    // Saves the copy; link() decides.
    struct stat st;
    if (mode == REMOTE_PUT_CREATE && stat_object(fs, name, &st) == 0 && S_ISREG(st.st_mode))
        return store_count_result(s, answer_exists(fs, key, name));
    int fd = open_temporary(fs, &temporary);
    if (fd < 0) {
        safe_place_leave(&temporary);
        return store_count_result(s, file_store_fail(fs, fd, "put", key));
    }
    int rc = write_source(fs, fd, key, source, call);
    file_close(fd);
    if (rc == 0)
        rc = put_in_place(fs, key, temporary.path, name, mode);
    if (rc < 0 || mode == REMOTE_PUT_CREATE)
        (void)fs->ops->unlink(temporary.path);
    safe_place_leave(&temporary);
    return store_count_result(s, rc);
}

// ---- the other calls ----------------------------------------------------------------------------

static int
read_object(struct file_store *fs, const char *key, const char *path, uint64_t offset,
    uint64_t length, struct buffer *out, const struct remote_call *call)
{
    struct safe_place place;
    struct stat st;
    int rc = file_store_enter(fs, path, &place);
    CLEANUP(file_close_auto) int fd = rc < 0 ? rc : file_open(fs->ops, place.path, O_RDONLY, 0);
    safe_place_leave(&place);
    rc = fd;
    if (fd >= 0)
        rc = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -ENOENT;
    if (rc == -ENOTDIR || rc == -ELOOP)
        rc = -ENOENT;
    if (rc < 0)
        return file_store_fail(fs, rc, "get", key);
    uint64_t size = (uint64_t)st.st_size;
    if (offset > 0 && offset >= size)
        return store_fail(-EIO, "get %s: the range begins at %llu, the object has %llu bytes", key,
            (unsigned long long)offset, (unsigned long long)size);
    if (length > size - offset)
        length = size - offset;
    if (length > REMOTE_GET_MAX_BYTES)
        return store_fail(
            -EIO, "get %s: %llu bytes are too many for one call", key, (unsigned long long)length);
    buffer_reserve(out, length);
    for (uint64_t done = 0; done < length;) {
        size_t n = length - done < 2 * COPY_BYTES ? (size_t)(length - done) : 2 * COPY_BYTES;
        rc = store_check_call(call, "get", key);
        if (rc < 0)
            return rc;
        rc = file_read_exact_at(fs->ops, fd, buffer_extend(out, n), n, offset + done);
        if (rc < 0)
            return file_store_fail(fs, rc, "get", key);
        done += n;
    }
    STORE_COUNT(&fs->base, bytes_read, length);
    return 0;
}

static int
file_store_get(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    struct file_store *fs = file_store_of(s);
    STORE_COUNT(s, get_requests, 1);
    BUFFER_AUTO path = {0};
    file_store_append_path(&path, fs, key);
    return store_count_result(
        s, read_object(fs, key, buffer_string(&path), offset, length, out, call));
}

static int
file_store_head(struct remote_store *s, const char *key, struct remote_head *head_out,
    const struct remote_call *call UNUSED)
{
    struct file_store *fs = file_store_of(s);
    STORE_COUNT(s, head_requests, 1);
    BUFFER_AUTO path = {0};
    file_store_append_path(&path, fs, key);
    struct stat st;
    int rc = stat_object(fs, buffer_string(&path), &st);
    if (rc == -ENOTDIR || (rc == 0 && !S_ISREG(st.st_mode)))
        rc = -ENOENT;
    if (rc < 0)
        return store_count_result(s, file_store_fail(fs, rc, "head", key));
    head_out->size = (uint64_t)st.st_size;
    head_out->modified_ms =
        (uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000;
    return 0;
}

static int
delete_one(struct file_store *fs, const char *path)
{
    struct safe_place place;
    int rc = file_store_enter(fs, path, &place);
    if (rc == 0)
        rc = fs->ops->unlink(place.path);
    safe_place_leave(&place);
    bool absent = rc == -ENOTDIR || rc == -EISDIR || (rc == -ENOENT && !directory_is_missing(fs));
    return absent ? 0 : rc;
}

// Makes the deletions beside `path` durable; a directory that does not exist had none.
static int
sync_deletions(struct file_store *fs, struct buffer *path)
{
    if (path->length == 0)
        return 0;
    int rc = sync_parent(fs, buffer_string(path));
    return rc == -ENOENT || rc == -ENOTDIR ? 0 : rc;
}

static int
file_store_delete(
    struct remote_store *s, const char *const *keys, size_t count, const struct remote_call *call)
{
    struct file_store *fs = file_store_of(s);
    STORE_COUNT(s, delete_requests, 1);
    BUFFER_AUTO path = {0};
    BUFFER_AUTO directory = {0};
    BUFFER_AUTO last = {0};      // where deletions are not durable yet
    BUFFER_AUTO last_path = {0}; // of one of them
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = store_check_call(call, "delete", keys[i]);
        if (rc < 0)
            return store_count_result(s, rc);
        buffer_clear(&path);
        file_store_append_path(&path, fs, keys[i]);
        path_directory(buffer_string(&path), &directory);
        if (strcmp(buffer_string(&last), buffer_string(&directory)) != 0) {
            rc = sync_deletions(fs, &last_path);
            buffer_clear(&last);
            buffer_append(&last, directory.data, directory.length);
            buffer_clear(&last_path);
            buffer_append(&last_path, path.data, path.length);
        }
        if (rc == 0)
            rc = delete_one(fs, buffer_string(&path));
    }
    if (rc == 0)
        rc = sync_deletions(fs, &last_path);
    if (rc < 0)
        rc = file_store_fail(fs, rc, "delete", count == 1 ? keys[0] : "objects");
    return store_count_result(s, rc);
}

static int
file_store_probe(struct remote_store *s, const struct remote_call *call)
{
    return store_probe_by_create(s, call);
}

static void
file_store_close(struct remote_store *s)
{
    struct file_store *fs = file_store_of(s);
    lock_destroy(&fs->lock);
    free(fs->directory);
    free(atomic_load(&fs->place));
    free(fs);
}

// ---- opening ------------------------------------------------------------------------------------

// Removes files in .tmp of processes that died; how many. Younger files may be a put under way.
static uint64_t
sweep_temporaries(struct file_store *fs, uint64_t age_ms, bool dry_run)
{
    struct safe_place place;
    uint64_t count = 0;
    if (enter(fs, TEMPORARY_DIRECTORY "/.", &place) < 0)
        return 0;
    BUFFER_AUTO path = {0};
    DIR *d = opendir(place.path);
    buffer_append_string(&path, place.path);
    size_t length = path.length - 1; // without the dot
    uint64_t now = clock_wall_ms();
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        path.length = length;
        buffer_append_string(&path, e->d_name);
        if (lstat(buffer_string(&path), &st) < 0 || !S_ISREG(st.st_mode))
            continue;
        if ((uint64_t)st.st_mtim.tv_sec * 1000 + age_ms >= now)
            continue;
        count++;
        if (!dry_run)
            (void)fs->ops->unlink(buffer_string(&path));
    }
    if (d)
        closedir(d);
    safe_place_leave(&place);
    return count;
}

static int
file_store_sweep_uploads(struct remote_store *s, const char *prefix UNUSED, uint64_t age_ms,
    bool dry_run, uint64_t *count_out, const struct remote_call *call UNUSED)
{
    // Other volumes may have a longer grace.
    if (age_ms < TEMPORARY_MAX_AGE_MS)
        age_ms = TEMPORARY_MAX_AGE_MS;
    *count_out = sweep_temporaries(file_store_of(s), age_ms, dry_run);
    return 0;
}

static const struct remote_store_ops file_store_ops = {
    .put_blob = file_store_put,
    .get_blob = file_store_get,
    .head_blob = file_store_head,
    .list_blobs = file_store_list,
    .delete_blobs = file_store_delete,
    .sweep_uploads = file_store_sweep_uploads,
    .probe = file_store_probe,
    .close = file_store_close,
};

int
file_store_open(
    const char *directory, bool create, const struct file_ops *ops, struct remote_store **store_out)
{
    *store_out = NULL;
    int rc = create ? path_make_directories(directory, DIRECTORY_MODE) : 0;
    if (rc < 0)
        return store_fail(
            -EIO, "cannot make the store's directory %s: %s", directory, strerror(-rc));
    struct file_store *fs = memory_alloc_zero(sizeof(*fs));
    fs->base.ops = &file_store_ops;
    fs->base.list_page = FILE_LIST_PAGE;
    fs->directory = memory_string(directory);
    fs->ops = ops;
    random_bytes(&fs->hash_key, sizeof(fs->hash_key));
    lock_init(&fs->lock, "file_store", LOCK_RANK_STORE);
    (void)sweep_temporaries(fs, TEMPORARY_MAX_AGE_MS, false);
    *store_out = &fs->base;
    return 0;
}
