// SPDX-License-Identifier: Apache-2.0
#include "fuse/seek.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/cold_requests.h"
#include "fuse/fs.h"
#include "fuse/kernel_cache.h"
#include "platform/memory.h"

struct seek_request {
    struct list_node node;
    fuse_req_t req;
    struct object_id object;
    uint64_t offset;
    int whence;
};

void
seeker_init(struct seeker *s, struct volume *volume, struct kernel_cache *kernel_cache)
{
    memset(s, 0, sizeof(*s));
    s->volume = volume;
    s->kernel_cache = kernel_cache;
    lock_init(&s->lock, "seeker", LOCK_RANK_FUSE);
    condition_init(&s->changed);
    list_init(&s->queue);
}

void
seeker_destroy(struct seeker *s)
{
    condition_destroy(&s->changed);
    lock_destroy(&s->lock);
}

// ---- requests -----------------------------------------------------------------------------------

static void
seek_and_reply(
    struct seeker *s, fuse_req_t req, struct object_id object, uint64_t offset, int whence)
{
    static const struct remote_call local_only = {.local_only = true};
    int64_t found = volume_seek(s->volume, object, offset, whence, &local_only);
    if (found == -EREMOTE)
        cold_requests_seek(req, object, offset, whence);
    else
        fs_reply_seek(req, found);
}

static void
flush_and_seek(struct seeker *s, struct seek_request *r)
{
    struct fs *fs = fs_of(r->req);
    int rc = kernel_cache_flush_object(s->kernel_cache, r->object);
    if (rc == 0)
        seek_and_reply(s, r->req, r->object, r->offset, r->whence);
    else
        fs_reply_result(r->req, rc);
    fs_end_deferred(fs);
    free(r);
}

static void
run(void *argument)
{
    struct seeker *s = argument;
    lock_take(&s->lock);
    for (;;) {
        struct list_node *node = list_take_first(&s->queue);
        if (node) {
            lock_release(&s->lock);
            flush_and_seek(s, CONTAINER_OF(node, struct seek_request, node));
            lock_take(&s->lock);
        } else if (s->running) {
            condition_wait(&s->changed, &s->lock);
        } else {
            break;
        }
    }
    lock_release(&s->lock);
}

int
seeker_start(struct seeker *s)
{
    s->running = s->started = true;
    int rc = thread_start(&s->thread, "seek", run, s);
    if (rc != 0)
        s->running = s->started = false;
    return rc;
}

void
seeker_stop(struct seeker *s)
{
    lock_take(&s->lock);
    bool join = s->started;
    s->running = false;
    s->started = false;
    condition_broadcast(&s->changed);
    lock_release(&s->lock);
    if (join)
        thread_join(&s->thread);
}

void
seeker_seek(
    struct seeker *s, struct fuse_req *req, struct object_id object, uint64_t offset, int whence)
{
    struct fs *fs = fs_of(req);
    bool flush = kernel_cache_has_writer(s->kernel_cache, object);
    fs_begin_deferred(fs);
    lock_take(&s->lock);
    bool queue = flush && s->running;
    if (queue) {
        struct seek_request *r = memory_alloc(sizeof(*r));
        *r =
            (struct seek_request){.req = req, .object = object, .offset = offset, .whence = whence};
        list_append(&s->queue, &r->node);
        condition_signal(&s->changed);
    }
    lock_release(&s->lock);
    if (queue)
        return;
    if (flush)
        fs_reply_result(req, -ENOTCONN);
    else
        seek_and_reply(s, req, object, offset, whence);
    fs_end_deferred(fs);
}
