// SPDX-License-Identifier: Apache-2.0
// Times of access, by the rule of the mount option relatime: a read changes the time when it is not
// later than the last change of the object, or a day old. The kernel leaves them to the file system
// and asks for them again after each read that it did not answer from its cache.
//
// A file that is read and written all the time would get a change for each read. So the new time
// stays with the open object, in memory, and goes along with the inode's next change, or is written
// at the last close. A crash loses it.
#include <errno.h>
#include <sys/stat.h>

#include "volume/volume_internal.h"

#define DAY_SECONDS 86400

static bool
is_later(const struct timestamp *a, const struct timestamp *b)
{
    return a->seconds != b->seconds ? a->seconds > b->seconds : a->nanoseconds > b->nanoseconds;
}

static bool
is_due(const struct volume *v, const struct inode_record *inode, const struct timestamp *now)
{
    if (v->from_bucket || v->host.no_atime || (inode->flags & INODE_NO_ATIME))
        return false;
    if (S_ISDIR(inode->mode) && v->host.no_directory_atime)
        return false;
    return !is_later(&inode->atime, &inode->mtime) || !is_later(&inode->atime, &inode->ctime) ||
           now->seconds - inode->atime.seconds >= DAY_SECONDS;
}

void
volume_merge_atime_locked(
    const struct volume *v, struct object_id object, struct inode_record *inode)
{
    const struct live_object *o = volume_see_live_locked(v, object);
    if (o && o->accessed)
        inode->atime = o->atime;
}

struct keep {
    struct object_id object;
    struct timestamp atime;
};

static int
decide_keep(struct view *view, struct operation *op)
{
    const struct keep *x = op->argument;
    struct inode_record inode;
    int rc = view_recorded_inode(view, x->object, &inode);
    if (rc < 0)
        return rc;
    if (!is_later(&x->atime, &inode.atime))
        return 0;
    inode.atime = x->atime;
    op->changes[op->count++] = change_put_inode(x->object, &inode);
    return 0;
}

void
volume_keep_atime(struct volume *v, struct object_id object, struct timestamp atime)
{
    struct keep x = {object, atime};
    struct operation op = {.decide = decide_keep, .argument = &x, .optional = true};
    // A time of access is nothing to fail for, or to wait for.
    int ignored UNUSED = volume_operate(v, &op);
}

void
volume_accessed(struct volume *v, struct object_id object, const struct inode_record *inode)
{
    struct timestamp now = volume_now();
    if (!is_due(v, inode, &now))
        return;
    lock_take(&v->lock);
    bool read_only = v->own.read_only;
    struct live_object *o = volume_find_live_locked(v, object);
    if (o && !read_only) {
        o->accessed = true;
        o->atime = now;
    }
    lock_release(&v->lock);
    if (!o && !read_only)
        volume_keep_atime(v, object, now);
}

void
volume_directory_accessed(struct volume *v, struct object_id directory)
{
    struct volume_attributes a;
    if (!v->from_bucket && volume_get_attributes(v, directory, &a) == 0)
        volume_accessed(v, directory, &a.inode);
}
