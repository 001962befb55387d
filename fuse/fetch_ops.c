// SPDX-License-Identifier: Apache-2.0
// The ioctls about reading from the store.
#include <errno.h>
#include <string.h>

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

// ---- dispatch -----------------------------------------------------------------------------------

bool
fs_fetch_ioctl(fuse_req_t req, unsigned command, const void *in, size_t in_size, size_t out_size)
{
    struct ckptfs_limits io;
    if (command != CKPTFS_IOC_LIMITS)
        return false;
    int rc = -EINVAL;
    if (in_size == sizeof(io) && out_size >= sizeof(io)) {
        memcpy(&io, in, sizeof(io));
        if (io.version == CKPTFS_ABI_VERSION)
            rc = limits(req, &io);
    }
    if (rc != 0)
        fs_reply_result(req, rc);
    else
        fuse_reply_ioctl(req, 0, &io, sizeof(io));
    return true;
}
