// SPDX-License-Identifier: Apache-2.0
// The ioctls about reading from the store.
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fuse/fs_ops.h"

#define LIMITS_ALL                                                                                 \
    (CKPTFS_LIMIT_READ_BYTES | CKPTFS_LIMIT_READ_REQUESTS | CKPTFS_LIMIT_UPLOAD_BYTES)

// ---- limits -------------------------------------------------------------------------------------

static int
limits(fuse_req_t req, struct ckptfs_limits *io)
{
    struct volume *v = fs_of(req)->volume;
    struct remote_limits now;
    if ((io->change & ~LIMITS_ALL) || !fs_is_zero(io->reserved, sizeof(io->reserved)))
        return -EINVAL;
    int rc = fs_check_control(req);
    if (rc != 0)
        return rc;
    volume_get_limits(v, &now);
    if (io->change & CKPTFS_LIMIT_READ_BYTES)
        now.reads.bytes = io->read_bytes;
    if (io->change & CKPTFS_LIMIT_READ_REQUESTS)
        now.reads.requests = io->read_requests;
    if (io->change & CKPTFS_LIMIT_UPLOAD_BYTES)
        now.uploads.bytes = io->upload_bytes;
    if (io->change != 0)
        rc = volume_set_limits(v, &now);
    io->read_bytes = now.reads.bytes;
    io->read_requests = now.reads.requests;
    io->upload_bytes = now.uploads.bytes;
    return rc;
}

// ---- how an open file is read -------------------------------------------------------------------

#define FETCH_ALL (CKPTFS_FETCH_SET | CKPTFS_FETCH_BYPASS_CACHE | CKPTFS_FETCH_PIN_IN_CACHE)

_Static_assert((int)CKPTFS_PREFETCH_NONE == (int)PREFETCH_NONE &&
                   (int)CKPTFS_PREFETCH_BOTH == (int)PREFETCH_BOTH,
    "ABI");

static int
check_file(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi, bool owner)
{
    struct volume_attributes a;
    int rc = volume_get_attributes(fs_of(req)->volume, object_of(ino), &a);
    if (rc != 0)
        return rc;
    if (!S_ISREG(a.inode.mode))
        return S_ISDIR(a.inode.mode) ? -EISDIR : -EBADF;
    if (!fi || fi->fh == 0)
        return -EBADF;
    if (!owner || a.inode.uid == fuse_req_ctx(req)->uid)
        return 0;
    return fs_check_control(req);
}

static void
tell_fetch(struct fs *fs, const struct fuse_file_info *fi, struct ckptfs_fetch *io)
{
    struct fetch_entry *e = fetch_table_get(&fs->fetches, fi->fh);
    if (e) {
        io->flags = (e->options.bypass_cache ? CKPTFS_FETCH_BYPASS_CACHE : 0) |
                    (e->options.pin_in_cache ? CKPTFS_FETCH_PIN_IN_CACHE : 0);
        io->prefetch_hint = e->options.prefetch_hint;
    }
    fetch_table_put(&fs->fetches, e);
}

static int
fetch(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi, struct ckptfs_fetch *io)
{
    struct fs *fs = fs_of(req);
    bool set = io->flags & CKPTFS_FETCH_SET;
    bool bypass = io->flags & CKPTFS_FETCH_BYPASS_CACHE;
    bool pin = io->flags & CKPTFS_FETCH_PIN_IN_CACHE;
    if ((io->flags & ~FETCH_ALL) || io->reserved0 != 0 ||
        !fs_is_zero(io->reserved, sizeof(io->reserved)) ||
        io->prefetch_hint > CKPTFS_PREFETCH_BOTH || (bypass && pin) ||
        (!set && (io->flags != 0 || io->prefetch_hint != 0)))
        return -EINVAL;
    int rc = check_file(req, ino, fi, pin);
    if (rc == 0 && bypass && !volume_may_scan(fs->volume))
        rc = -EOPNOTSUPP;
    if (rc != 0)
        return rc;
    if (!set) {
        tell_fetch(fs, fi, io);
        return 0;
    }
    struct fetch_options options = {
        .bypass_cache = bypass, .prefetch_hint = (enum prefetch_hint)io->prefetch_hint};
    if (pin)
        options.pin_in_cache = volume_begin_pin(fs->volume);
    fetch_table_set(&fs->fetches, fi->fh, object_of(ino), &options, false);
    return 0;
}

// ---- dispatch -----------------------------------------------------------------------------------

static size_t
size_of(unsigned command)
{
    return command == CKPTFS_IOC_LIMITS  ? sizeof(struct ckptfs_limits)
           : command == CKPTFS_IOC_FETCH ? sizeof(struct ckptfs_fetch)
                                         : 0;
}

bool
fs_fetch_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, const struct fuse_file_info *fi,
    const void *in, size_t in_size, size_t out_size)
{
    union {
        __u32 version;
        struct ckptfs_limits limits;
        struct ckptfs_fetch fetch;
    } u;
    size_t size = size_of(command);
    if (size == 0)
        return false;
    int rc = -EINVAL;
    if (in_size == size && out_size >= size) {
        memcpy(&u, in, size);
        if (u.version != CKPTFS_ABI_VERSION)
            rc = -EINVAL;
        else if (command == CKPTFS_IOC_LIMITS)
            rc = limits(req, &u.limits);
        else
            rc = fetch(req, ino, fi, &u.fetch);
    }
    if (rc != 0)
        fs_reply_result(req, rc);
    else
        fuse_reply_ioctl(req, 0, &u, size);
    return true;
}
