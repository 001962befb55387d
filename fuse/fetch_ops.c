// SPDX-License-Identifier: Apache-2.0
// The ioctls about reading from the store.
#include <errno.h>

#include "fuse/ioctl_table.h"

#define LIMITS_ALL                                                                                 \
    (CKPTFS_LIMIT_READ_BYTES | CKPTFS_LIMIT_READ_REQUESTS | CKPTFS_LIMIT_UPLOAD_BYTES |            \
        CKPTFS_LIMIT_TENANT_READ_BYTES | CKPTFS_LIMIT_TENANT_READ_REQUESTS)

// ---- limits -------------------------------------------------------------------------------------

int
ioctl_limits(struct ioctl_request *r)
{
    struct ckptfs_limits *io = &r->io.limits;
    struct volume *v = fs_of(r->req)->volume;
    struct remote_limits now;
    if ((io->change & ~LIMITS_ALL) || !ioctl_is_zero(io->reserved, sizeof(io->reserved)))
        return -EINVAL;
    int rc = 0;
    volume_get_limits(v, &now);
    if (io->change & CKPTFS_LIMIT_READ_BYTES)
        now.reads.bytes = io->read_bytes;
    if (io->change & CKPTFS_LIMIT_READ_REQUESTS)
        now.reads.requests = io->read_requests;
    if (io->change & CKPTFS_LIMIT_UPLOAD_BYTES)
        now.uploads.bytes = io->upload_bytes;
    if (io->change & CKPTFS_LIMIT_TENANT_READ_BYTES)
        now.tenant_reads.bytes = io->tenant_read_bytes;
    if (io->change & CKPTFS_LIMIT_TENANT_READ_REQUESTS)
        now.tenant_reads.requests = io->tenant_read_requests;
    if (io->change != 0)
        rc = volume_set_limits(v, &now);
    io->read_bytes = now.reads.bytes;
    io->read_requests = now.reads.requests;
    io->upload_bytes = now.uploads.bytes;
    io->tenant_read_bytes = now.tenant_reads.bytes;
    io->tenant_read_requests = now.tenant_reads.requests;
    return rc;
}

// ---- how an open file is read -------------------------------------------------------------------

#define FETCH_ALL (CKPTFS_FETCH_SET | CKPTFS_FETCH_BYPASS_CACHE | CKPTFS_FETCH_PIN_IN_CACHE)

_Static_assert((int)CKPTFS_PREFETCH_NONE == (int)PREFETCH_NONE &&
                   (int)CKPTFS_PREFETCH_BOTH == (int)PREFETCH_BOTH,
    "ABI");

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

int
ioctl_fetch(struct ioctl_request *r)
{
    struct ckptfs_fetch *io = &r->io.fetch;
    struct fs *fs = fs_of(r->req);
    bool set = io->flags & CKPTFS_FETCH_SET;
    bool bypass = io->flags & CKPTFS_FETCH_BYPASS_CACHE;
    bool pin = io->flags & CKPTFS_FETCH_PIN_IN_CACHE;
    if ((io->flags & ~FETCH_ALL) || io->reserved0 != 0 ||
        !ioctl_is_zero(io->reserved, sizeof(io->reserved)) ||
        io->prefetch_hint > CKPTFS_PREFETCH_BOTH || (bypass && pin) ||
        (!set && (io->flags != 0 || io->prefetch_hint != 0)))
        return -EINVAL;
    int rc = pin ? ioctl_check_owner(r) : 0;
    if (rc == 0 && bypass && !volume_may_scan(fs->volume))
        rc = -EOPNOTSUPP;
    if (rc != 0)
        return rc;
    if (!set) {
        tell_fetch(fs, r->fi, io);
        return 0;
    }
    struct fetch_options options = {
        .bypass_cache = bypass, .prefetch_hint = (enum prefetch_hint)io->prefetch_hint};
    if (pin)
        options.pin_in_cache = volume_begin_pin(fs->volume);
    fetch_table_set(&fs->fetches, r->fi->fh, object_of(r->ino), &options, false);
    return 0;
}
