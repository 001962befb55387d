// SPDX-License-Identifier: Apache-2.0
#define FUSE_USE_VERSION 312
#include "fuse/kernel_cache.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/mount.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"

// After so many writes past the kernel's cache without a request through it, all of the object is
// dropped from it, so that the writes that follow cost nothing more.
#define DIRECT_WRITES_UNTIL_ALL 256u

// An object that is open for writing is said to have more blocks than it has: so many bytes more,
// or half of the bytes written since it was opened. The kernel asks again in the next write(2),
// which then waits for an answer among the requests of its own stream: that costs a stream some
// milliseconds, so there are few of them.
#define CLAIM_BYTES_MIN ((uint64_t)128 << 10)
#define CLAIM_BYTES_MAX ((uint64_t)1 << 30)
#define CLAIM_DIVISOR   2u
// While requests come without a pause, an object is behind for so long.
#define CATCH_UP_MS 1000u

#define BLOCK_BYTES 512u
#define PAGE_BLOCKS (PAGE_BYTES / BLOCK_BYTES)

struct writer {
    struct hash_node node;
    struct list_node behind; // in k->behind when is_behind
    struct object_id object;
    uint64_t opens;
    bool is_behind;         // it may have more blocks than the kernel knows
    bool has_pages;         // in the kernel's cache, perhaps
    bool dropping;          // all of them, just now
    uint64_t used;          // number of the last use of the kernel's cache
    bool claimed;           // blocks that it does not have
    uint64_t full_to;       // up to here there were no holes when the kernel asked
    uint64_t given;         // bytes by way of the kernel's cache, where there may have been holes
    uint64_t enough;        // the kernel knows the blocks of bytes given up to here
    unsigned direct_writes; // since the kernel was last known to use its cache
};

void
kernel_cache_init(struct kernel_cache *k, struct mount *mount)
{
    memset(k, 0, sizeof(*k));
    k->mount = mount;
    list_init(&k->behind);
    lock_init(&k->lock, "kernel_cache", LOCK_RANK_FUSE);
}

void
kernel_cache_destroy(struct kernel_cache *k)
{
    // The kernel does not close open files when the connection breaks.
    HASH_TABLE_FOR_EACH(&k->writers, node)
    free(CONTAINER_OF(node, struct writer, node));
    hash_table_free(&k->writers);
    lock_destroy(&k->lock);
}

// ---- writers ------------------------------------------------------------------------------------

static void
set_behind_locked(struct kernel_cache *k, struct writer *w, bool is_behind)
{
    if (w->is_behind == is_behind)
        return;
    w->is_behind = is_behind;
    if (is_behind && list_is_empty(&k->behind))
        k->behind_since_ms = clock_monotonic_ms();
    if (is_behind)
        list_append(&k->behind, &w->behind);
    else
        list_remove(&w->behind);
    atomic_fetch_add(&k->behind_count, is_behind ? 1 : -1);
}

static struct writer *
find_writer_locked(struct kernel_cache *k, struct object_id object)
{
    struct hash_node *node = hash_table_first(&k->writers, hash_u64(object.v));
    for (; node; node = hash_table_next_same(node)) {
        struct writer *w = CONTAINER_OF(node, struct writer, node);
        if (w->object.v == object.v)
            return w;
    }
    return NULL;
}

static void
note_pages_locked(struct kernel_cache *k, struct writer *w)
{
    w->has_pages = true;
    w->used = ++k->uses;
    w->direct_writes = 0;
}

void
kernel_cache_note_writer(struct kernel_cache *k, struct object_id object, bool is_new)
{
    lock_take(&k->lock);
    struct writer *w = find_writer_locked(k, object);
    if (!w) {
        w = memory_alloc_zero(sizeof(*w));
        w->object = object;
        w->has_pages = !is_new;
        w->enough = is_new ? UINT64_MAX : 0; // of a new object the kernel knows nothing yet
        w->used = ++k->uses;
        w->direct_writes = DIRECT_WRITES_UNTIL_ALL;
        hash_table_insert(&k->writers, &w->node, hash_u64(object.v));
    }
    w->opens++;
    lock_release(&k->lock);
}

void
kernel_cache_forget_writer(struct kernel_cache *k, struct object_id object)
{
    bool claimed = false;
    lock_take(&k->lock);
    struct writer *w = find_writer_locked(k, object);
    if (w && --w->opens == 0) {
        claimed = w->claimed || w->is_behind;
        set_behind_locked(k, w, false);
        hash_table_remove(&k->writers, &w->node);
        free(w);
    }
    lock_release(&k->lock);
    if (claimed)
        kernel_cache_drop_attributes(k, object);
}

// ---- blocks -------------------------------------------------------------------------------------

bool
kernel_cache_begin_claim(
    struct kernel_cache *k, struct object_id object, struct kernel_cache_claim *claim_out)
{
    lock_take(&k->lock);
    struct writer *w = find_writer_locked(k, object);
    if (w) {
        claim_out->given = w->given;
        atomic_fetch_add(&k->claims, 1);
    }
    lock_release(&k->lock);
    return w != NULL;
}

static uint64_t
blocks_to_claim(uint64_t given, uint64_t blocks, uint64_t size_blocks)
{
    uint64_t more = given / CLAIM_DIVISOR;
    if (more < CLAIM_BYTES_MIN)
        more = CLAIM_BYTES_MIN;
    if (more > CLAIM_BYTES_MAX)
        more = CLAIM_BYTES_MAX;
    uint64_t claimed = blocks + more / BLOCK_BYTES;
    if (blocks < size_blocks && claimed >= size_blocks)
        claimed = size_blocks - PAGE_BLOCKS;
    return claimed > 0 ? claimed : PAGE_BLOCKS;
}

uint64_t
kernel_cache_end_claim(struct kernel_cache *k, struct object_id object,
    const struct kernel_cache_claim *claim, uint64_t blocks, uint64_t size_blocks, bool is_asked)
{
    uint64_t claimed = blocks;
    lock_take(&k->lock);
    struct writer *w = find_writer_locked(k, object);
    if (w) {
        claimed = blocks_to_claim(claim->given, blocks, size_blocks);
        uint64_t enough = claim->given + (claimed - blocks) * BLOCK_BYTES;
        w->claimed = w->claimed || claimed > blocks;
        uint64_t full_to = blocks < size_blocks ? 0 : size_blocks * BLOCK_BYTES;
        if (is_asked || enough < w->enough)
            w->enough = enough;
        if (is_asked || full_to < w->full_to)
            w->full_to = full_to;
    }
    lock_release(&k->lock);
    return claimed;
}

uint64_t
kernel_cache_begin_write(
    struct kernel_cache *k, struct object_id object, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    lock_take(&k->lock);
    uint64_t ticket = atomic_load_explicit(&k->claims, memory_order_relaxed);
    struct writer *w = find_writer_locked(k, object);
    if (w) {
        note_pages_locked(k, w);
        if (end > w->full_to)
            w->given += end - (offset > w->full_to ? offset : w->full_to);
        if (w->given > w->enough)
            ticket--; // which is no later number of claims
    }
    lock_release(&k->lock);
    return ticket;
}

// The negative offset leaves the pages alone, so this waits for no other thread.
void
kernel_cache_drop_attributes(struct kernel_cache *k, struct object_id object)
{
    int rc = fuse_lowlevel_notify_inval_inode(k->session, object.v, -1, 0);
    if (rc != 0 && rc != -ENOENT && rc != -ENODEV)
        log_warning("fuse.drop_failed", "attributes of object %llu: %s",
            (unsigned long long)object.v, strerror(-rc));
}

// When no thread counts meanwhile the kernel knows nothing and will ask; until then writes need not
// tell it again. The kernel throws an answer away that is on its way.
static void
drop_stale(struct kernel_cache *k, struct object_id object)
{
    uint64_t claims = atomic_load(&k->claims);
    kernel_cache_drop_attributes(k, object);
    lock_take(&k->lock);
    struct writer *w = find_writer_locked(k, object);
    if (w && claims == atomic_load(&k->claims))
        w->enough = UINT64_MAX;
    lock_release(&k->lock);
}

void
kernel_cache_note_behind(struct kernel_cache *k, struct object_id object)
{
    lock_take(&k->lock);
    struct writer *w = find_writer_locked(k, object);
    if (w)
        set_behind_locked(k, w, true);
    lock_release(&k->lock);
}

void
kernel_cache_catch_up(struct kernel_cache *k, struct object_id object)
{
    lock_take(&k->lock);
    struct writer *w = find_writer_locked(k, object);
    bool was_behind = w && w->is_behind;
    if (was_behind)
        set_behind_locked(k, w, false);
    lock_release(&k->lock);
    if (was_behind)
        drop_stale(k, object);
}

static bool
take_behind(struct kernel_cache *k, struct object_id *object_out)
{
    lock_take(&k->lock);
    bool found = !list_is_empty(&k->behind);
    if (found) {
        struct writer *w = CONTAINER_OF(k->behind.next, struct writer, behind);
        *object_out = w->object;
        set_behind_locked(k, w, false);
    }
    lock_release(&k->lock);
    return found;
}

void
kernel_cache_catch_up_all(struct kernel_cache *k, bool quiet)
{
    lock_take(&k->lock);
    bool due = quiet || clock_monotonic_ms() - k->behind_since_ms >= CATCH_UP_MS;
    unsigned count = due ? atomic_load(&k->behind_count) : 0;
    lock_release(&k->lock);
    // Objects that fall behind meanwhile wait for the next call.
    struct object_id object;
    while (count-- > 0 && take_behind(k, &object))
        drop_stale(k, object);
}

bool
kernel_cache_has_writer(struct kernel_cache *k, struct object_id object)
{
    lock_take(&k->lock);
    bool has = find_writer_locked(k, object) != NULL;
    lock_release(&k->lock);
    return has;
}

void
kernel_cache_note_pages(struct kernel_cache *k, struct object_id object)
{
    lock_take(&k->lock);
    struct writer *w = find_writer_locked(k, object);
    if (w)
        note_pages_locked(k, w);
    lock_release(&k->lock);
}

enum kernel_cache_stale
kernel_cache_note_direct_write(struct kernel_cache *k, struct object_id object, uint64_t *token_out)
{
    enum kernel_cache_stale stale = KERNEL_CACHE_STALE_RANGE;
    *token_out = 0;
    lock_take(&k->lock);
    struct writer *w = find_writer_locked(k, object);
    if (w && !w->has_pages) {
        stale = KERNEL_CACHE_STALE_NOTHING;
    } else if (w && w->direct_writes++ >= DIRECT_WRITES_UNTIL_ALL && !w->dropping) {
        w->dropping = true;
        *token_out = w->used;
        stale = KERNEL_CACHE_STALE_ALL;
    }
    lock_release(&k->lock);
    return stale;
}

void
kernel_cache_note_dropped(struct kernel_cache *k, struct object_id object, uint64_t token)
{
    lock_take(&k->lock);
    struct writer *w = find_writer_locked(k, object);
    if (w && w->dropping) {
        w->dropping = false;
        if (w->used == token)
            w->has_pages = false;
    }
    lock_release(&k->lock);
}

void
kernel_cache_drop(struct kernel_cache *k, struct object_id object, uint64_t offset, uint64_t length)
{
    int rc = fuse_lowlevel_notify_inval_inode(k->session, object.v, (off_t)offset, (off_t)length);
    // Not cached; written to meanwhile; no connection any more.
    if (rc != 0 && rc != -ENOENT && rc != -EBUSY && rc != -ENODEV)
        log_warning(
            "fuse.drop_failed", "object %llu: %s", (unsigned long long)object.v, strerror(-rc));
}

static uint64_t *
list_writers(struct kernel_cache *k, size_t *count_out)
{
    lock_take(&k->lock);
    uint64_t *objects = memory_alloc((k->writers.count + 1) * sizeof(*objects));
    *count_out = 0;
    HASH_TABLE_FOR_EACH(&k->writers, node)
    objects[(*count_out)++] = CONTAINER_OF(node, struct writer, node)->object.v;
    lock_release(&k->lock);
    return objects;
}

// ---- flushing -----------------------------------------------------------------------------------

// The notification that a file has changed makes the kernel write back its dirty pages and drop
// all. For a mount that cannot be entered (another one lies over it), and for files that cannot be
// opened by their number. It is not the first choice: a thread that waits for that within the
// connection keeps the process from ending when it is killed, and dropped pages must be read again.
static int
drop(struct kernel_cache *k, uint64_t object)
{
    int rc = fuse_lowlevel_notify_inval_inode(k->session, object, 0, 0);
    // Not cached; or written to again meanwhile, after the kernel had handed over the earlier
    // pages.
    return rc == -ENOENT || rc == -EBUSY ? 0 : rc;
}

int
kernel_cache_flush_object(struct kernel_cache *k, struct object_id object)
{
    size_t left;
    int rc = mount_flush(k->mount, false, &object.v, 1, &left);
    return left > 0 ? drop(k, object.v) : rc;
}

void
kernel_cache_note_refusal(struct kernel_cache *k)
{
    atomic_fetch_add(&k->refusals, 1);
}

static int
flush_all(struct kernel_cache *k)
{
    size_t count;
    size_t left;
    CLEANUP(memory_free_auto) uint64_t *objects = list_writers(k, &count);
    int rc = mount_flush(k->mount, true, objects, count, &left);
    if (rc == -ESTALE) // it cannot be entered, so all are left
        rc = 0;
    for (size_t i = 0; rc == 0 && i < left; i++)
        rc = drop(k, objects[i]);
    return rc;
}

int
kernel_cache_flush(void *kernel_cache)
{
    struct kernel_cache *k = kernel_cache;
    uint64_t before = atomic_load(&k->refusals);
    int rc = flush_all(k);
    // An error with nothing refused meanwhile is an old one, which the kernel has told now.
    if (rc < 0 && atomic_load(&k->refusals) == before)
        rc = flush_all(k);
    return rc;
}
