// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "store/local_store_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/thread.h"

#define OPEN_FILES_MAX 128u

char *
local_store_path(const struct local_store *s, const struct sha256 *hash, bool whole)
{
    char hex[65];
    sha256_to_hex(hash, hex);
    return memory_printf("%s/%s.%s", s->hot_cache, hex, whole ? "blob" : "part");
}

int
local_store_make_directories(struct local_store *s)
{
    int rc = path_make_directories(s->hot_cache, 0700);
    return rc == 0 ? path_make_directories(s->scratch, 0700) : rc;
}

int
local_store_open(
    const struct file_ops *ops, const char *root, struct db_id db, struct local_store **store_out)
{
    *store_out = NULL;
    struct local_store *s = memory_alloc_zero(sizeof(*s));
    s->ops = ops ? ops : &file_ops_system;
    s->hot_cache = memory_printf("%s/hot_cache/%u", root, db.v);
    s->scratch = memory_printf("%s/checkpoint_scratch/%u", root, db.v);
    lock_init(&s->lock, "local_store", LOCK_RANK_STORE);
    list_init(&s->idle);
    s->pins = pin_set_new();
    int rc = local_store_make_directories(s);
    if (rc < 0) {
        log_error("local_store.failed", "cannot make %s: %s", s->hot_cache, strerror(-rc));
        local_store_close(s);
        return rc;
    }
    *store_out = s;
    return 0;
}

void
local_store_set_quota(struct local_store *s, struct storage_quota *quota)
{
    s->quota = quota;
    if (quota && !s->parts)
        s->parts = part_sieve_new();
}

struct pin_set *
local_store_pins(const struct local_store *s)
{
    return s->pins;
}

struct storage_quota *
local_store_quota(const struct local_store *s)
{
    return s->quota;
}

static void
close_file_locked(struct local_store *s, struct open_file *f)
{
    if (f->owed)
        storage_quota_give_back(
            s->quota, QUOTA_BLOBS, f->whole ? storage_quota_file_bytes(f->fd) : f->counted);
    if (!f->doomed)
        hash_table_remove(&s->files, &f->node);
    if (f->idle.next)
        list_remove(&f->idle);
    file_close(f->fd);
    free(f);
}

void
local_store_close(struct local_store *s)
{
    if (!s)
        return;
    LIST_FOR_EACH(&s->idle, n)
    close_file_locked(s, CONTAINER_OF(n, struct open_file, idle));
    hash_table_free(&s->files);
    pin_set_free(s->pins);
    part_sieve_free(s->parts);
    lock_destroy(&s->lock);
    free(s->hot_cache);
    free(s->scratch);
    free(s);
}

const char *
local_store_scratch(const struct local_store *s)
{
    return s->scratch;
}

static struct open_file *
find_locked(struct local_store *s, const struct sha256 *hash)
{
    struct hash_node *n = hash_table_first(&s->files, sha256_key(hash));
    for (; n; n = hash_table_next_same(n)) {
        struct open_file *f = CONTAINER_OF(n, struct open_file, node);
        if (sha256_equal(&f->hash, hash))
            return f;
    }
    return NULL;
}

static void
use_locked(struct open_file *f)
{
    if (f->users++ == 0 && f->idle.next)
        list_remove(&f->idle);
}

static void
put_file_locked(struct local_store *s, struct open_file *f)
{
    if (--f->users == 0) {
        if (f->doomed)
            close_file_locked(s, f);
        else
            list_append(&s->idle, &f->idle);
        if (s->files.count > OPEN_FILES_MAX && !list_is_empty(&s->idle))
            close_file_locked(s, CONTAINER_OF(s->idle.next, struct open_file, idle));
    }
}

void
local_store_put_file(struct local_store *s, struct open_file *f)
{
    lock_take(&s->lock);
    put_file_locked(s, f);
    lock_release(&s->lock);
}

static int
open_path(struct local_store *s, const struct sha256 *hash, bool whole, int flags)
{
    CLEANUP(memory_free_auto) char *path = local_store_path(s, hash, whole);
    return file_open(s->ops, path, flags, 0600);
}

static struct open_file *
take_open_file(struct local_store *s, const struct sha256 *hash, uint64_t *forgotten_out)
{
    lock_take(&s->lock);
    struct open_file *f = find_locked(s, hash);
    if (f)
        use_locked(f);
    *forgotten_out = s->forgotten;
    lock_release(&s->lock);
    return f;
}

// Makes an open file known, unless another thread was faster; the result counts one user more.
// NULL: names changed since `forgotten`, so the open file may be the wrong one.
static struct open_file *
enter_file(struct local_store *s, struct open_file *made, uint64_t forgotten)
{
    lock_take(&s->lock);
    struct open_file *f = find_locked(s, &made->hash);
    bool enter = !f && s->forgotten == forgotten;
    if (enter) {
        f = made;
        hash_table_insert(&s->files, &f->node, sha256_key(&made->hash));
    }
    if (f)
        use_locked(f);
    lock_release(&s->lock);
    if (!enter) {
        file_close(made->fd);
        free(made);
    }
    return f;
}

// The file of a blob, whole if there is one; `make` makes the partial one when there is neither.
int
local_store_get_file(
    struct local_store *s, const struct sha256 *hash, bool make, struct open_file **out)
{
    uint64_t forgotten;
    while (!(*out = take_open_file(s, hash, &forgotten))) {
        bool whole = true;
        thread_will_wait();
        int fd = open_path(s, hash, true, O_RDONLY);
        if (fd == -ENOENT) {
            whole = false;
            fd = open_path(s, hash, false, O_RDWR | (make ? O_CREAT : 0));
        }
        if (fd < 0)
            return fd;
        struct open_file *made = memory_alloc_zero(sizeof(*made));
        *made = (struct open_file){.hash = *hash, .fd = fd, .whole = whole};
        if (!whole && s->quota)
            made->counted = storage_quota_file_bytes(fd);
        *out = enter_file(s, made, forgotten);
        if (*out)
            break;
    }
    return 0;
}

void
local_store_forget_file(
    struct local_store *s, const struct sha256 *hash, const struct unlinked *gone)
{
    uint64_t bytes = gone->partial + gone->whole;
    lock_take(&s->lock);
    s->forgotten++;
    struct open_file *f = find_locked(s, hash);
    if (f) {
        bytes -= f->whole ? gone->whole : gone->partial;
        hash_table_remove(&s->files, &f->node);
        f->doomed = true;
        f->owed = (f->whole ? gone->whole : gone->partial) > 0 || f->counted > 0;
        if (f->users == 0)
            close_file_locked(s, f);
    }
    lock_release(&s->lock);
    storage_quota_give_back(s->quota, QUOTA_BLOBS, bytes);
}

int
local_store_adopt(struct local_store *s, const char *path, const struct sha256 *hash)
{
    CLEANUP(memory_free_auto) char *to = local_store_path(s, hash, true);
    CLEANUP(memory_free_auto) char *partial = local_store_path(s, hash, false);
    struct unlinked gone = {0};
    gone.whole = s->quota ? storage_quota_path_bytes(to) : 0;
    int rc = s->ops->rename(path, to);
    if (rc < 0) {
        log_error("local_store.failed", "cannot rename %s to %s: %s", path, to, strerror(-rc));
        return rc;
    }
    gone.partial = s->quota ? storage_quota_path_bytes(partial) : 0;
    rc = s->ops->unlink(partial);
    if (rc < 0)
        gone.partial = 0;
    local_store_forget_file(s, hash, &gone);
    local_store_note_adopted(s, hash, to);
    return 0;
}

int
local_store_sync(struct local_store *s)
{
    return file_sync_directory(s->ops, s->hot_cache);
}

// The first byte in [offset, end) that is in no block of the file; `end` when all are.
static uint64_t
find_hole(const struct open_file *f, uint64_t offset, uint64_t end)
{
    off_t hole = f->whole ? (off_t)end : lseek(f->fd, (off_t)offset, SEEK_HOLE);
    if (hole < 0)
        return offset; // behind the end
    return (uint64_t)hole < end ? (uint64_t)hole : end;
}

int
local_store_readv(struct local_store *s, const struct sha256 *hash, uint64_t offset,
    const struct iovec *iov, int count, bool is_use)
{
    struct open_file *f;
    size_t n = 0;
    for (int i = 0; i < count; i++)
        n += iov[i].iov_len;
    int rc = local_store_get_file(s, hash, false, &f);
    if (rc < 0)
        return rc;
    if (find_hole(f, offset, offset + n) < offset + n) {
        local_store_put_file(s, f);
        return -ENODATA;
    }
    size_t cached = file_readv_cached_at(s->ops, f->fd, iov, count, offset);
    if (cached < n) {
        thread_will_wait();
        rc = file_readv_exact_at(s->ops, f->fd, iov, count, offset, cached);
    }
    lock_take(&s->lock);
    if (is_use)
        local_store_note_use_locked(s, f, offset, n);
    put_file_locked(s, f);
    lock_release(&s->lock);
    return rc;
}

int
local_store_read(
    struct local_store *s, const struct sha256 *hash, uint64_t offset, void *p, size_t n)
{
    return local_store_readv(s, hash, offset, &(const struct iovec){p, n}, 1, true);
}

int
local_store_peek(
    struct local_store *s, const struct sha256 *hash, uint64_t offset, void *p, size_t n)
{
    return local_store_readv(s, hash, offset, &(const struct iovec){p, n}, 1, false);
}

// A partial file has grown by the reserved bytes, or by less. Other threads may be writing to it,
// too: their bytes are counted twice until they come here.
void
local_store_count_growth(struct local_store *s, struct open_file *f, uint64_t reserved)
{
    if (!s->quota)
        return;
    lock_take(&s->lock);
    uint64_t now = storage_quota_file_bytes(f->fd);
    storage_quota_settle(s->quota, QUOTA_BLOBS, reserved + f->counted, now);
    f->counted = now;
    // It was removed before it had any.
    f->owed |= f->doomed && now > 0;
    lock_release(&s->lock);
}

int
local_store_keep(
    struct local_store *s, const struct sha256 *hash, uint64_t offset, const void *p, size_t n)
{
    struct open_file *f;
    uint64_t reserved = storage_quota_blocks_for(n);
    int rc = storage_quota_reserve(s->quota, QUOTA_BLOBS, QUOTA_CACHE, reserved);
    if (rc < 0)
        return rc;
    rc = local_store_get_file(s, hash, true, &f);
    if (rc < 0 || f->whole) {
        storage_quota_give_back(s->quota, QUOTA_BLOBS, reserved);
    } else {
        rc = file_write_at(s->ops, f->fd, p, n, offset);
        local_store_count_growth(s, f, reserved);
        local_store_note_kept(s, f, offset, n);
    }
    if (f)
        local_store_put_file(s, f);
    return rc;
}

uint64_t
local_store_find_hole(
    struct local_store *s, const struct sha256 *hash, uint64_t offset, uint64_t end)
{
    struct open_file *f;
    if (local_store_get_file(s, hash, false, &f) < 0)
        return offset;
    uint64_t hole = find_hole(f, offset, end);
    local_store_put_file(s, f);
    return hole;
}

bool
local_store_has(struct local_store *s, const struct sha256 *hash)
{
    CLEANUP(memory_free_auto) char *path = local_store_path(s, hash, true);
    struct stat st;
    return path_stat(path, &st) == 0;
}

int
local_store_open_blob(struct local_store *s, const struct sha256 *hash, int *fd_out)
{
    int fd = open_path(s, hash, true, O_RDONLY);
    *fd_out = fd;
    return fd < 0 ? fd : 0;
}

void
local_store_remove_announced(struct local_store *s, const struct sha256 *hash)
{
    struct unlinked gone = {0};
    for (int whole = 0; whole < 2; whole++) {
        CLEANUP(memory_free_auto) char *path = local_store_path(s, hash, whole);
        uint64_t bytes = s->quota ? storage_quota_path_bytes(path) : 0;
        int rc = s->ops->unlink(path);
        if (rc < 0 && rc != -ENOENT)
            log_warning("local_store.failed", "cannot remove %s: %s", path, strerror(-rc));
        if (rc == 0)
            *(whole ? &gone.whole : &gone.partial) = bytes;
    }
    local_store_forget_file(s, hash, &gone);
    local_store_note_removed(s, hash);
}

int
local_store_remove(struct local_store *s, const struct sha256 *hash)
{
    struct pin_removal removal;
    if (!pin_set_begin_removal(s->pins, hash, &removal))
        return -EBUSY;
    local_store_remove_announced(s, hash);
    pin_set_end_removal(s->pins, &removal);
    return 0;
}

bool
local_store_parse_name(const char *name, struct sha256 *hash_out, bool *whole_out)
{
    if (sha256_from_hex(name, hash_out) < 0)
        return false;
    *whole_out = strcmp(name + 64, ".blob") == 0;
    return *whole_out || strcmp(name + 64, ".part") == 0;
}

int
local_store_sweep(struct local_store *s, local_store_is_needed *is_needed, void *argument)
{
    DIR *dir = path_open_directory(s->hot_cache);
    if (!dir)
        return -errno;
    int removed = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        struct sha256 hash;
        bool whole;
        if (!local_store_parse_name(e->d_name, &hash, &whole) || is_needed(argument, &hash))
            continue;
        removed += local_store_remove(s, &hash) == 0;
    }
    closedir(dir);
    return removed;
}
