// SPDX-License-Identifier: Apache-2.0
// Replies, and helpers for answering.
#include "fuse/fs.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/mount.h"
#include "platform/memory.h"

// ---- requests that are answered later -----------------------------------------------------------

void
fs_begin_deferred(struct fs *fs)
{
    lock_take(&fs->lock);
    fs->deferred++;
    lock_release(&fs->lock);
}

void
fs_end_deferred(struct fs *fs)
{
    lock_take(&fs->lock);
    if (--fs->deferred == 0)
        condition_broadcast(&fs->idle);
    lock_release(&fs->lock);
}

// ---- replies ------------------------------------------------------------------------------------

void
fs_reply_result(fuse_req_t req, int result)
{
    // A reply fails only when the connection is gone; then no process waits for it. Damage is an
    // input/output error to the application; the log tells more.
    fuse_reply_err(req, result == -EBADMSG ? EIO : -result);
}

void
fs_reply_seek(fuse_req_t req, int64_t found)
{
    if (found < 0)
        fs_reply_result(req, (int)found);
    else
        fuse_reply_lseek(req, found);
}

static struct timespec
timespec_of(const struct timestamp *t)
{
    return (struct timespec){.tv_sec = t->seconds, .tv_nsec = t->nanoseconds};
}

// Of an object that is open for writing the blocks are counted anew: see kernel_cache_begin_claim.
static uint64_t
blocks_of(struct fs *fs, const struct volume_attributes *a, bool is_asked)
{
    struct kernel_cache_claim claim;
    struct volume_attributes now;
    if (!S_ISREG(a->inode.mode) || !kernel_cache_begin_claim(fs->kernel_cache, a->object, &claim))
        return a->blocks;
    if (volume_get_attributes(fs->volume, a->object, &now) != 0)
        now = *a;
    return kernel_cache_end_claim(fs->kernel_cache, a->object, &claim, now.blocks,
        pages_of_bytes(now.inode.size) * (PAGE_BYTES / 512), is_asked);
}

static void
fill_stat(struct fs *fs, const struct volume_attributes *a, bool is_asked, struct stat *st)
{
    memset(st, 0, sizeof(*st));
    st->st_ino = a->object.v;
    st->st_mode = a->inode.mode;
    st->st_nlink = a->inode.nlink;
    st->st_uid = a->inode.uid;
    st->st_gid = a->inode.gid;
    st->st_rdev = a->inode.rdev;
    st->st_size = (off_t)a->inode.size;
    st->st_blksize = PAGE_BYTES;
    st->st_blocks = (blkcnt_t)blocks_of(fs, a, is_asked);
    st->st_atim = timespec_of(&a->inode.atime);
    st->st_mtim = timespec_of(&a->inode.mtime);
    st->st_ctim = timespec_of(&a->inode.ctime);
}

void
fs_fill_entry(
    struct fs *fs, const struct volume_attributes *attributes, struct fuse_entry_param *entry_out)
{
    memset(entry_out, 0, sizeof(*entry_out));
    entry_out->ino = attributes->object.v;
    entry_out->generation = MOUNT_NODE_GENERATION;
    entry_out->attr_timeout = FS_CACHE_SECONDS;
    entry_out->entry_timeout = FS_CACHE_SECONDS;
    fill_stat(fs, attributes, false, &entry_out->attr);
}

void
fs_reply_attributes(fuse_req_t req, const struct volume_attributes *attributes, bool is_asked)
{
    struct stat st;
    fill_stat(fs_of(req), attributes, is_asked, &st);
    fuse_reply_attr(req, &st, FS_CACHE_SECONDS);
}

void
fs_reply_entry(fuse_req_t req, const struct volume_attributes *attributes)
{
    struct fs *fs = fs_of(req);
    struct fuse_entry_param entry;
    fs_fill_entry(fs, attributes, &entry);
    // The kernel does not know the object when the reply did not reach it.
    if (fuse_reply_entry(req, &entry) == -ENOENT)
        volume_object_forgotten(fs->volume, attributes->object);
}

struct sync_request {
    struct fs *fs;
    fuse_req_t req;
    int64_t written;
};

static void
synced(void *argument, int result)
{
    struct sync_request *s = argument;
    struct fs *fs = s->fs;
    if (result != 0 || s->written < 0)
        fs_reply_result(s->req, result);
    else
        fuse_reply_write(s->req, (size_t)s->written);
    free(s);
    fs_end_deferred(fs);
}

void
fs_reply_after_sync(fuse_req_t req, int64_t written)
{
    struct fs *fs = fs_of(req);
    struct sync_request *s = memory_alloc(sizeof(*s));
    *s = (struct sync_request){.fs = fs, .req = req, .written = written};
    fs_begin_deferred(fs);
    volume_sync(fs->volume, synced, s);
}

// ---- memory of a thread -------------------------------------------------------------------------

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static __thread uint8_t *scratch;
static __thread size_t scratch_bytes;

static void
make_scratch_key(void)
{
    if (pthread_key_create(&scratch_key, free) != 0)
        abort();
}

uint8_t *
fs_scratch(size_t n)
{
    if (n <= scratch_bytes)
        return scratch;
    pthread_once(&scratch_once, make_scratch_key);
    free(scratch);
    scratch = memory_alloc(n);
    scratch_bytes = n;
    // The key frees it when the thread ends.
    if (pthread_setspecific(scratch_key, scratch) != 0)
        abort();
    return scratch;
}
