// SPDX-License-Identifier: Apache-2.0
#include "fuse/direct_writes.h"

#include <stdlib.h>
#include <string.h>

#include "fuse/fs.h"
#include "fuse/kernel_cache.h"
#include "platform/memory.h"

struct direct_write {
    struct list_node node;
    fuse_req_t req;
    struct object_id object;
    uint64_t drop_offset;
    uint64_t drop_length;
    bool drops_all;
    uint64_t token; // with that
    uint64_t size;
    bool sync;
};

void
direct_writes_init(struct direct_writes *d, struct kernel_cache *kernel_cache)
{
    memset(d, 0, sizeof(*d));
    d->kernel_cache = kernel_cache;
    lock_init(&d->lock, "direct_writes", LOCK_RANK_FUSE);
    condition_init(&d->changed);
    list_init(&d->queue);
}

void
direct_writes_destroy(struct direct_writes *d)
{
    condition_destroy(&d->changed);
    lock_destroy(&d->lock);
}

// The kernel names the owner of the locks with requests that go past its page cache, and only with
// those. The open flags say less: a write that does not fit O_DIRECT goes through the cache, with
// its pages locked, and dropping those would wait for the answer to that very write.
bool
direct_writes_is_direct(const struct fuse_file_info *fi)
{
    return !fi->writepage && fi->lock_owner != 0;
}

static void
answer(fuse_req_t req, uint64_t size, bool sync)
{
    if (sync)
        fs_reply_after_sync(req, (int64_t)size);
    else
        fuse_reply_write(req, size);
}

static void
drop_and_answer(struct direct_writes *d, struct direct_write *w)
{
    struct fs *fs = fs_of(w->req);
    // Pages that could not be dropped were written to meanwhile, after this write: they are newer.
    kernel_cache_drop(d->kernel_cache, w->object, w->drop_offset, w->drop_length);
    if (w->drops_all)
        kernel_cache_note_dropped(d->kernel_cache, w->object, w->token);
    answer(w->req, w->size, w->sync);
    fs_end_deferred(fs);
    free(w);
}

static void
run(void *argument)
{
    struct direct_writes *d = argument;
    lock_take(&d->lock);
    for (;;) {
        struct list_node *node = list_take_first(&d->queue);
        if (node) {
            lock_release(&d->lock);
            drop_and_answer(d, CONTAINER_OF(node, struct direct_write, node));
            lock_take(&d->lock);
        } else if (d->running) {
            d->idle++;
            condition_wait(&d->changed, &d->lock);
            d->idle--;
        } else {
            break;
        }
    }
    lock_release(&d->lock);
}

// One more thread, if there may be one. A failure is no harm while there is another.
static int
add_thread_locked(struct direct_writes *d)
{
    if (d->started == DIRECT_WRITES_THREADS)
        return 0;
    int rc = thread_start(&d->threads[d->started], "direct-write", run, d);
    if (rc == 0)
        d->started++;
    return rc;
}

int
direct_writes_start(struct direct_writes *d)
{
    lock_take(&d->lock);
    d->running = true;
    int rc = add_thread_locked(d);
    if (rc != 0)
        d->running = false;
    lock_release(&d->lock);
    return rc;
}

void
direct_writes_stop(struct direct_writes *d)
{
    lock_take(&d->lock);
    d->running = false;
    unsigned started = d->started;
    d->started = 0;
    condition_broadcast(&d->changed);
    lock_release(&d->lock);
    for (unsigned i = 0; i < started; i++)
        thread_join(&d->threads[i]);
}

void
direct_writes_answer(struct direct_writes *d, struct fuse_req *req, struct object_id object,
    uint64_t offset, uint64_t size, bool sync)
{
    struct fs *fs = fs_of(req);
    uint64_t token;
    enum kernel_cache_stale stale = kernel_cache_note_direct_write(d->kernel_cache, object, &token);
    if (stale == KERNEL_CACHE_STALE_NOTHING || size == 0) {
        answer(req, size, sync);
        return;
    }
    bool all = stale == KERNEL_CACHE_STALE_ALL;
    struct direct_write *w = memory_alloc(sizeof(*w));
    *w = (struct direct_write){.req = req,
        .object = object,
        .drop_offset = all ? 0 : offset,
        .drop_length = all ? 0 : size,
        .drops_all = all,
        .token = token,
        .size = size,
        .sync = sync};
    fs_begin_deferred(fs);
    lock_take(&d->lock);
    bool queue = d->running;
    if (queue) {
        list_append(&d->queue, &w->node);
        if (d->idle == 0)
            (void)add_thread_locked(d);
        condition_signal(&d->changed);
    }
    lock_release(&d->lock);
    if (queue)
        return;
    // The session ends: the kernel's cache does, too.
    answer(req, size, sync);
    fs_end_deferred(fs);
    free(w);
}
