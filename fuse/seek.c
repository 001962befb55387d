// SPDX-License-Identifier: Apache-2.0
#include "fuse/seek.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/fs_ops.h"
#include "fuse/mount.h"
#include "platform/memory.h"

struct writer {
    struct hash_node node;
    struct object_id object;
    uint64_t opens;
};

struct seek_request {
    struct list_node node;
    fuse_req_t req;
    struct object_id object;
    uint64_t offset;
    int whence;
};

void
seeker_init(struct seeker *s, struct volume *volume)
{
    memset(s, 0, sizeof(*s));
    s->volume = volume;
    lock_init(&s->lock, "seeker", LOCK_RANK_FUSE);
    condition_init(&s->changed);
    list_init(&s->queue);
}

void
seeker_destroy(struct seeker *s)
{
    // The kernel does not close what is open when the connection breaks.
    HASH_TABLE_FOR_EACH(&s->writers, node)
    free(CONTAINER_OF(node, struct writer, node));
    hash_table_free(&s->writers);
    condition_destroy(&s->changed);
    lock_destroy(&s->lock);
}

// ---- who writes ---------------------------------------------------------------------------------

static struct writer *
find_writer_locked(struct seeker *s, struct object_id object)
{
    struct hash_node *node = hash_table_first(&s->writers, hash_u64(object.v));
    for (; node; node = hash_table_next_same(node)) {
        struct writer *w = CONTAINER_OF(node, struct writer, node);
        if (w->object.v == object.v)
            return w;
    }
    return NULL;
}

void
seeker_note_writer(struct seeker *s, struct object_id object)
{
    lock_take(&s->lock);
    struct writer *w = find_writer_locked(s, object);
    if (!w) {
        w = memory_alloc_zero(sizeof(*w));
        w->object = object;
        hash_table_insert(&s->writers, &w->node, hash_u64(object.v));
    }
    w->opens++;
    lock_release(&s->lock);
}

void
seeker_forget_writer(struct seeker *s, struct object_id object)
{
    lock_take(&s->lock);
    struct writer *w = find_writer_locked(s, object);
    if (w && --w->opens == 0) {
        hash_table_remove(&s->writers, &w->node);
        free(w);
    }
    lock_release(&s->lock);
}

// ---- requests -----------------------------------------------------------------------------------

static void
reply(fuse_req_t req, int64_t found)
{
    if (found < 0)
        fs_reply_result(req, (int)found);
    else
        fuse_reply_lseek(req, found);
}

// A mount that cannot be entered (another one lies over it) leaves the notification that the file
// has changed: the kernel writes back its dirty pages from the offset on, and drops them. It is not
// the first choice: a thread that waits for that within the connection keeps the process from
// ending when it is killed. -ENOENT: the kernel caches nothing of the file.
static int
flush(struct seeker *s, const struct seek_request *r)
{
    if (mount_sync_kernel(s->mount) == 0)
        return 0;
    int rc = fuse_lowlevel_notify_inval_inode(s->session, r->object.v, (off_t)r->offset, 0);
    return rc == -ENOENT ? 0 : rc;
}

static void
flush_and_seek(struct seeker *s, struct seek_request *r)
{
    struct fs *fs = fs_of(r->req);
    int64_t found = flush(s, r);
    if (found == 0)
        found = volume_seek(s->volume, r->object, r->offset, r->whence);
    reply(r->req, found);
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
seeker_start(struct seeker *s, struct fuse_session *session, struct mount *mount)
{
    s->session = session;
    s->mount = mount;
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
    fs_begin_deferred(fs);
    lock_take(&s->lock);
    bool flush = find_writer_locked(s, object) != NULL;
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
    reply(req, flush ? -ENOTCONN : volume_seek(s->volume, object, offset, whence));
    fs_end_deferred(fs);
}
