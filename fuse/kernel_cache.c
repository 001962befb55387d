// SPDX-License-Identifier: Apache-2.0
#define FUSE_USE_VERSION 312
#include "fuse/kernel_cache.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/mount.h"
#include "platform/log.h"
#include "platform/memory.h"

// After so many writes past the kernel's cache without a request through it, all of the object is
// dropped from it, so that the writes that follow cost nothing more.
#define DIRECT_WRITES_UNTIL_ALL 256u

struct writer {
    struct hash_node node;
    struct object_id object;
    uint64_t opens;
    bool has_pages;         // in the kernel's cache, perhaps
    bool dropping;          // all of them, just now
    uint64_t used;          // number of the last use of the kernel's cache
    bool claimed;           // blocks that it does not have
    unsigned direct_writes; // since the kernel was last known to use its cache
};

void
kernel_cache_init(struct kernel_cache *k, struct mount *mount)
{
    memset(k, 0, sizeof(*k));
    k->mount = mount;
    lock_init(&k->lock, "kernel_cache", LOCK_RANK_FUSE);
}

void
kernel_cache_destroy(struct kernel_cache *k)
{
    // The kernel does not close what is open when the connection breaks.
    HASH_TABLE_FOR_EACH(&k->writers, node)
    free(CONTAINER_OF(node, struct writer, node));
    hash_table_free(&k->writers);
    lock_destroy(&k->lock);
}

// ---- who writes ---------------------------------------------------------------------------------

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

void
kernel_cache_note_writer(struct kernel_cache *k, struct object_id object, bool is_new)
{
    lock_take(&k->lock);
    struct writer *w = find_writer_locked(k, object);
    if (!w) {
        w = memory_alloc_zero(sizeof(*w));
        w->object = object;
        w->has_pages = !is_new;
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
        claimed = w->claimed;
        hash_table_remove(&k->writers, &w->node);
        free(w);
    }
    lock_release(&k->lock);
    if (claimed)
        kernel_cache_drop_attributes(k, object);
}

uint64_t
kernel_cache_claim_blocks(struct kernel_cache *k, struct object_id object, uint64_t blocks)
{
    lock_take(&k->lock);
    struct writer *w = find_writer_locked(k, object);
    if (w)
        w->claimed = blocks == 0;
    lock_release(&k->lock);
    return w && blocks == 0 ? PAGE_BYTES / 512 : blocks;
}

// The negative offset leaves the pages alone, so this waits for nobody.
void
kernel_cache_drop_attributes(struct kernel_cache *k, struct object_id object)
{
    int rc = fuse_lowlevel_notify_inval_inode(k->session, object.v, -1, 0);
    if (rc != 0 && rc != -ENOENT && rc != -ENODEV)
        log_warning("fuse.drop_failed", "attributes of object %llu: %s",
            (unsigned long long)object.v, strerror(-rc));
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
    if (w) {
        w->has_pages = true;
        w->used = ++k->uses;
        w->direct_writes = 0;
    }
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
// connection keeps the process from ending when it is killed, and what is dropped is read again.
static int
drop(struct kernel_cache *k, uint64_t object)
{
    int rc = fuse_lowlevel_notify_inval_inode(k->session, object, 0, 0);
    // Not cached; or written to again meanwhile, after what was there had been handed over.
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
    // An error with nothing refused meanwhile is an old one, which has been told now.
    if (rc < 0 && atomic_load(&k->refusals) == before)
        rc = flush_all(k);
    return rc;
}
