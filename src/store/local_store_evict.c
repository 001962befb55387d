// SPDX-License-Identifier: Apache-2.0
// Eviction from hot_cache, in parts. Parts that a part_sieve knows go in its order: a whole copy
// becomes a partial one by another name, and the part is punched out of it. That is safe at any
// moment, because a hole passes no checksum (doc/decisions/0004): a reader of it goes to the store.
// Blobs of which no use is known go before that, whole file by whole file.
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "store/local_store_internal.h"

// ---- parts in use -------------------------------------------------------------------------------

// Without a limit nothing is evicted, and recency costs nothing.
static bool
is_limited(struct local_store *s)
{
    bool limited = s->quota && storage_quota_is_limited(s->quota);
    if (!limited)
        s->all_known = false;
    return limited;
}

static void
enter_all_locked(struct local_store *s, const struct sha256 *hash, uint64_t bytes)
{
    for (uint64_t part = 0; part * PART_BYTES < bytes; part++)
        part_sieve_enter(s->parts, hash, (uint32_t)part);
}

// A blob that becomes known is known with all its parts.
static void
meet_locked(struct local_store *s, const struct open_file *f)
{
    struct stat st;
    if (!part_sieve_has(s->parts, &f->hash) && fstat(f->fd, &st) == 0)
        enter_all_locked(s, &f->hash, (uint64_t)st.st_size);
}

void
local_store_note_use_locked(
    struct local_store *s, const struct open_file *f, uint64_t offset, size_t n)
{
    if (f->doomed || !is_limited(s))
        return;
    meet_locked(s, f);
    for (uint64_t part = offset / PART_BYTES; part * PART_BYTES < offset + n; part++)
        part_sieve_use(s->parts, &f->hash, (uint32_t)part);
}

void
local_store_note_kept(struct local_store *s, const struct open_file *f, uint64_t offset, size_t n)
{
    lock_take(&s->lock);
    if (!f->doomed && is_limited(s)) {
        meet_locked(s, f);
        for (uint64_t part = offset / PART_BYTES; part * PART_BYTES < offset + n; part++)
            part_sieve_enter(s->parts, &f->hash, (uint32_t)part);
    }
    lock_release(&s->lock);
}

void
local_store_note_adopted(struct local_store *s, const struct sha256 *hash, const char *path)
{
    struct stat st;
    lock_take(&s->lock);
    if (is_limited(s) && path_stat(path, &st) == 0)
        enter_all_locked(s, hash, (uint64_t)st.st_size);
    lock_release(&s->lock);
}

void
local_store_note_removed(struct local_store *s, const struct sha256 *hash)
{
    lock_take(&s->lock);
    if (s->parts)
        part_sieve_drop_blob(s->parts, hash);
    lock_release(&s->lock);
}

// ---- whole files --------------------------------------------------------------------------------

// One file of hot_cache.
struct candidate {
    struct sha256 hash;
    uint64_t bytes;  // in blocks
    uint64_t length; // to its end
};

static bool
look_at(struct local_store *s, const char *name, struct candidate *x)
{
    struct stat st;
    bool whole;
    if (!local_store_parse_name(name, &x->hash, &whole))
        return false;
    CLEANUP(memory_free_auto) char *path = local_store_path(s, &x->hash, whole);
    if (path_stat(path, &st) < 0)
        return false;
    x->bytes = (uint64_t)st.st_blocks * 512;
    x->length = (uint64_t)st.st_size;
    return true;
}

// The caller's decision, which also depends on whether the copy is whole. It is asked for once the
// removal has been announced: a thread that makes the blob anew pins it first.
struct judge {
    local_store_may_go *may_go;
    void *argument;
};

static bool
may_go(struct local_store *s, const struct judge *judge, const struct sha256 *hash)
{
    return judge->may_go(judge->argument, hash, local_store_has(s, hash));
}

static bool
try_remove(struct local_store *s, const struct judge *judge, const struct sha256 *hash)
{
    struct pin_removal removal;
    if (!pin_set_begin_removal(s->pins, hash, &removal))
        return false;
    bool goes = may_go(s, judge, hash);
    if (goes)
        local_store_remove_announced(s, hash);
    pin_set_end_removal(s->pins, &removal);
    return goes;
}

int64_t
local_store_evict(struct local_store *s, local_store_may_go *decide, void *argument, uint64_t want)
{
    const struct judge judge = {decide, argument};
    DIR *dir = path_open_directory(s->hot_cache);
    struct candidate x;
    uint64_t freed = 0;
    if (!dir)
        return -errno;
    for (struct dirent *e; freed < want && (e = readdir(dir));)
        if (look_at(s, e->d_name, &x) && try_remove(s, &judge, &x.hash))
            freed += x.bytes;
    closedir(dir);
    return (int64_t)freed;
}

int
local_store_visit(struct local_store *s, local_store_visit_copy *visit, void *argument)
{
    DIR *dir = path_open_directory(s->hot_cache);
    struct sha256 hash;
    bool whole;
    if (!dir)
        return -errno;
    for (struct dirent *e; (e = readdir(dir));)
        if (local_store_parse_name(e->d_name, &hash, &whole))
            visit(argument, &hash);
    closedir(dir);
    return 0;
}

uint64_t
local_store_bytes(const struct local_store *s, const struct sha256 *hash)
{
    uint64_t bytes = 0;
    for (int whole = 0; whole < 2; whole++) {
        CLEANUP(memory_free_auto) char *path = local_store_path(s, hash, whole);
        bytes += storage_quota_path_bytes(path);
    }
    return bytes;
}

bool
local_store_evict_blob(
    struct local_store *s, const struct sha256 *hash, local_store_may_go *decide, void *argument)
{
    return try_remove(s, &(const struct judge){decide, argument}, hash);
}

static bool
is_known(struct local_store *s, const struct sha256 *hash)
{
    lock_take(&s->lock);
    bool known = part_sieve_has(s->parts, hash);
    lock_release(&s->lock);
    return known;
}

// Removes blobs of which no use is known; blobs that must stay become known.
static int64_t
evict_unknown(struct local_store *s, const struct judge *judge, uint64_t want)
{
    DIR *dir = path_open_directory(s->hot_cache);
    struct candidate x;
    uint64_t freed = 0;
    if (!dir)
        return -errno;
    for (struct dirent *e; freed < want && (e = readdir(dir));) {
        if (!look_at(s, e->d_name, &x) || is_known(s, &x.hash))
            continue;
        if (try_remove(s, judge, &x.hash)) {
            freed += x.bytes;
            continue;
        }
        lock_take(&s->lock);
        enter_all_locked(s, &x.hash, x.length);
        lock_release(&s->lock);
    }
    closedir(dir);
    lock_take(&s->lock);
    s->all_known = freed < want; // all have been looked at
    lock_release(&s->lock);
    return (int64_t)freed;
}

// ---- parts --------------------------------------------------------------------------------------

// A whole copy becomes a partial one: it will have a hole. There may be a partial one already: a
// process that is killed while it adopts a whole one leaves it.
static int
make_partial(struct local_store *s, const struct sha256 *hash)
{
    CLEANUP(memory_free_auto) char *whole = local_store_path(s, hash, true);
    CLEANUP(memory_free_auto) char *partial = local_store_path(s, hash, false);
    const struct unlinked gone = {.partial = storage_quota_path_bytes(partial)};
    int rc = s->ops->rename(whole, partial);
    if (rc == 0)
        local_store_forget_file(s, hash, &gone);
    return rc;
}

// Under the removal of the blob. Returns the bytes, or -errno.
static int64_t
punch(struct local_store *s, const struct sha256 *hash, uint32_t part, bool whole)
{
    struct open_file *f;
    int rc = whole ? make_partial(s, hash) : 0;
    if (rc == 0)
        rc = local_store_get_file(s, hash, false, &f);
    if (rc < 0)
        return rc;
    uint64_t before = storage_quota_file_bytes(f->fd);
    rc = f->whole ? -EBUSY : file_punch_at(f->fd, (uint64_t)part * PART_BYTES, PART_BYTES);
    uint64_t after = storage_quota_file_bytes(f->fd);
    if (rc == 0)
        local_store_count_growth(s, f, 0);
    local_store_put_file(s, f);
    return rc < 0 ? rc : before > after ? (int64_t)(before - after) : 0;
}

// False: it must stay.
static bool
evict_part(struct local_store *s, const struct judge *judge, const struct sha256 *hash,
    uint32_t part, uint64_t *freed)
{
    struct pin_removal removal;
    if (!pin_set_begin_removal(s->pins, hash, &removal))
        return false;
    bool whole = local_store_has(s, hash);
    bool goes = may_go(s, judge, hash);
    if (goes) {
        CLEANUP(memory_free_auto) char *path = local_store_path(s, hash, whole);
        uint64_t all = storage_quota_path_bytes(path);
        int64_t bytes = punch(s, hash, part, whole);
        lock_take(&s->lock);
        uint32_t left = part_sieve_drop(s->parts, hash, part);
        lock_release(&s->lock);
        // A file system without holes loses the whole file.
        if (left == 0 || bytes < 0)
            local_store_remove_announced(s, hash);
        *freed += left == 0 || bytes < 0 ? all : (uint64_t)bytes;
    }
    pin_set_end_removal(s->pins, &removal);
    return goes;
}

static bool
next_part(struct local_store *s, struct sha256 *hash, uint32_t *part)
{
    lock_take(&s->lock);
    bool found = part_sieve_next(s->parts, hash, part);
    lock_release(&s->lock);
    return found;
}

static uint64_t
evict_parts(struct local_store *s, const struct judge *judge, uint64_t want)
{
    struct sha256 hash;
    struct sha256 stays = {0};
    uint32_t part;
    uint64_t freed = 0;
    lock_take(&s->lock);
    size_t turns = 2 * part_sieve_count(s->parts);
    lock_release(&s->lock);
    for (; freed < want && turns > 0 && next_part(s, &hash, &part); turns--)
        if (!sha256_equal(&hash, &stays) && !evict_part(s, judge, &hash, part, &freed))
            stays = hash;
    return freed;
}

int64_t
local_store_make_room(
    struct local_store *s, local_store_may_go *decide, void *argument, uint64_t want)
{
    const struct judge judge = {decide, argument};
    lock_take(&s->lock);
    bool all_known = s->all_known;
    lock_release(&s->lock);
    int64_t freed = all_known ? 0 : evict_unknown(s, &judge, want);
    if (freed < 0 || (uint64_t)freed >= want)
        return freed;
    return freed + (int64_t)evict_parts(s, &judge, want - (uint64_t)freed);
}
