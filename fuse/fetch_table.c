// SPDX-License-Identifier: Apache-2.0
#include "fuse/fetch_table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/kernel_cache.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "store/pin_set.h"
#include "volume/volume.h"

struct fetch_drop {
    struct list_node node;
    struct object_id object;
    uint64_t offset;
    uint64_t length; // 0: to the end
};

void
fetch_table_init(struct fetch_table *t, struct volume *volume, struct kernel_cache *kernel_cache)
{
    memset(t, 0, sizeof(*t));
    t->volume = volume;
    t->kernel_cache = kernel_cache;
    lock_init(&t->lock, "fetch_table", LOCK_RANK_FUSE);
    condition_init(&t->changed);
    list_init(&t->drops);
    t->running = true;
}

// ---- dropping pages of the kernel ---------------------------------------------------------------

static void
run(void *argument)
{
    struct fetch_table *t = argument;
    lock_take(&t->lock);
    while (t->running) {
        struct list_node *node = list_take_first(&t->drops);
        if (!node) {
            condition_wait(&t->changed, &t->lock);
            continue;
        }
        lock_release(&t->lock);
        struct fetch_drop *d = CONTAINER_OF(node, struct fetch_drop, node);
        kernel_cache_drop(t->kernel_cache, d->object, d->offset, d->length);
        free(d);
        lock_take(&t->lock);
    }
    lock_release(&t->lock);
}

static void
drop_locked(struct fetch_table *t, struct object_id object, uint64_t offset, uint64_t length)
{
    if (!t->running)
        return;
    if (!t->started) {
        int rc = thread_start(&t->thread, "scan-drop", run, t);
        if (rc < 0) {
            log_warning("fuse.no_thread", "cannot start a thread to drop pages: %s", strerror(-rc));
            return;
        }
        t->started = true;
    }
    struct fetch_drop *d = memory_alloc_zero(sizeof(*d));
    *d = (struct fetch_drop){.object = object, .offset = offset, .length = length};
    list_append(&t->drops, &d->node);
    condition_signal(&t->changed);
}

void
fetch_table_note_cached(struct fetch_table *t, struct fetch_entry *e, uint64_t offset)
{
    lock_take(&t->lock);
    e->cached = true;
    if (offset >= e->dropped + 2 * (uint64_t)FETCH_LAG_BYTES) {
        uint64_t end = offset - FETCH_LAG_BYTES;
        drop_locked(t, e->object, e->dropped, end - e->dropped);
        e->dropped = end;
    }
    lock_release(&t->lock);
}

void
fetch_table_stop(struct fetch_table *t)
{
    lock_take(&t->lock);
    bool join = t->started;
    t->running = false;
    t->started = false;
    condition_broadcast(&t->changed);
    lock_release(&t->lock);
    if (join)
        thread_join(&t->thread);
}

// ---- entries ------------------------------------------------------------------------------------

uint64_t
fetch_table_new_handle(struct fetch_table *t)
{
    return atomic_fetch_add_explicit(&t->last_handle, 1, memory_order_relaxed) + 1;
}

static struct fetch_entry *
find_locked(struct fetch_table *t, uint64_t handle)
{
    struct hash_node *n = hash_table_first(&t->entries, hash_u64(handle));
    return n ? CONTAINER_OF(n, struct fetch_entry, node) : NULL;
}

// `hash_u64` is one to one, so a hash has one entry.
static struct fetch_entry *
take_out_locked(struct fetch_table *t, uint64_t handle)
{
    struct fetch_entry *e = find_locked(t, handle);
    if (!e)
        return NULL;
    hash_table_remove(&t->entries, &e->node);
    atomic_fetch_sub(&t->count, 1);
    return e;
}

void
fetch_table_put(struct fetch_table *t UNUSED, struct fetch_entry *e)
{
    if (!e || atomic_fetch_sub(&e->references, 1) != 1)
        return;
    volume_scan_end(e->scan);
    pin_end(e->options.pin_in_cache);
    free(e);
}

void
fetch_table_set(struct fetch_table *t, uint64_t handle, struct object_id object,
    const struct fetch_options *options, bool past_kernel)
{
    struct fetch_entry *e = memory_alloc_zero(sizeof(*e));
    *e = (struct fetch_entry){
        .handle = handle, .object = object, .options = *options, .past_kernel = past_kernel};
    e->scan = options->bypass_cache ? volume_scan_begin(t->volume) : NULL;
    atomic_init(&e->references, 1);
    lock_take(&t->lock);
    struct fetch_entry *old = take_out_locked(t, handle);
    if (old) {
        e->past_kernel = old->past_kernel;
        e->cached = old->cached;
        e->dropped = old->dropped;
    }
    hash_table_insert(&t->entries, &e->node, hash_u64(handle));
    atomic_fetch_add(&t->count, 1);
    lock_release(&t->lock);
    fetch_table_put(t, old);
}

struct fetch_entry *
fetch_table_get(struct fetch_table *t, uint64_t handle)
{
    if (LIKELY(atomic_load_explicit(&t->count, memory_order_acquire) == 0))
        return NULL;
    lock_take(&t->lock);
    struct fetch_entry *e = find_locked(t, handle);
    if (e)
        atomic_fetch_add(&e->references, 1);
    lock_release(&t->lock);
    return e;
}

void
fetch_table_close(struct fetch_table *t, uint64_t handle)
{
    if (LIKELY(atomic_load_explicit(&t->count, memory_order_acquire) == 0))
        return;
    lock_take(&t->lock);
    struct fetch_entry *e = take_out_locked(t, handle);
    if (e && e->cached)
        drop_locked(t, e->object, 0, 0);
    lock_release(&t->lock);
    fetch_table_put(t, e);
}

void
fetch_table_clear(struct fetch_table *t)
{
    HASH_TABLE_FOR_EACH(&t->entries, node)
    fetch_table_put(t, CONTAINER_OF(node, struct fetch_entry, node));
    hash_table_free(&t->entries);
    t->entries = (struct hash_table){0};
    atomic_store(&t->count, 0);
}

void
fetch_table_destroy(struct fetch_table *t)
{
    assert(t->entries.count == 0);
    hash_table_free(&t->entries);
    for (struct list_node *node; (node = list_take_first(&t->drops));)
        free(CONTAINER_OF(node, struct fetch_drop, node));
    condition_destroy(&t->changed);
    lock_destroy(&t->lock);
}
