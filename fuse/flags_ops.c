// SPDX-License-Identifier: Apache-2.0
// The flags of files that chattr(1) and lsattr(1) show and change: FS_IOC_GETFLAGS and SETFLAGS,
// and the younger FSGETXATTR and FSSETXATTR. The kernel knows the flags of a FUSE file only from
// here, so the volume, not the kernel, refuses forbidden changes.
#include <errno.h>

#include "fuse/ioctl_table.h"
#include "fuse/mount.h"

static_assert(INODE_IMMUTABLE == FS_IMMUTABLE_FL && INODE_APPEND_ONLY == FS_APPEND_FL, "flags");
static_assert(INODE_NO_DUMP == FS_NODUMP_FL && INODE_NO_ATIME == FS_NOATIME_FL, "flags");

static const struct {
    uint32_t flag;
    uint32_t xflag;
} names[] = {
    {INODE_IMMUTABLE, FS_XFLAG_IMMUTABLE},
    {INODE_APPEND_ONLY, FS_XFLAG_APPEND},
    {INODE_NO_DUMP, FS_XFLAG_NODUMP},
    {INODE_NO_ATIME, FS_XFLAG_NOATIME},
};

static uint32_t
to_xflags(uint32_t flags)
{
    uint32_t xflags = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        if (flags & names[i].flag)
            xflags |= names[i].xflag;
    return xflags;
}

// False when there is one without a counterpart.
static bool
from_xflags(uint32_t xflags, uint32_t *flags_out)
{
    *flags_out = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        if (xflags & names[i].xflag)
            *flags_out |= names[i].flag;
        xflags &= ~names[i].xflag;
    }
    return xflags == 0;
}

// The owner and root may set flags; flags that forbid changes, root only. Newer kernels have
// checked that before (the capabilities too), older ones pass the ioctl on as it is.
static int
check_change(fuse_req_t req, const struct inode_record *inode, uint32_t flags)
{
    uid_t uid = fuse_req_ctx(req)->uid;
    if (uid == 0)
        return 0;
    if (uid != inode->uid || ((flags ^ inode->flags) & (INODE_IMMUTABLE | INODE_APPEND_ONLY)))
        return -EPERM;
    return 0;
}

static int
set_flags(const struct ioctl_request *r, uint32_t flags)
{
    struct volume *v = fs_of(r->req)->volume;
    struct volume_attributes a;
    struct volume_set_attributes change = {.set = VOLUME_SET_FLAGS, .flags = flags};
    int rc = volume_get_attributes(v, object_of(r->ino), &a);
    if (rc == 0)
        rc = check_change(r->req, &a.inode, flags);
    if (rc == 0 && flags != a.inode.flags)
        rc = volume_set_attributes(v, object_of(r->ino), &change, &a);
    return rc;
}

int
ioctl_set_file_flags(struct ioctl_request *r)
{
    return set_flags(r, r->io.word);
}

int
ioctl_set_extended_flags(struct ioctl_request *r)
{
    const struct fsxattr *x = &r->io.fsxattr;
    uint32_t flags;
    if (!from_xflags(x->fsx_xflags, &flags) || x->fsx_projid != 0 || x->fsx_extsize != 0 ||
        x->fsx_cowextsize != 0)
        return -EOPNOTSUPP;
    return set_flags(r, flags);
}

void
fs_reply_flags(fuse_req_t req, unsigned command, uint32_t flags)
{
    struct fsxattr x = {.fsx_xflags = to_xflags(flags)};
    if (command == FS_IOC_FSGETXATTR)
        fuse_reply_ioctl(req, 0, &x, sizeof(x));
    else
        fuse_reply_ioctl(req, 0, &flags, sizeof(flags));
}

static int
get_flags(const struct ioctl_request *r, uint32_t *flags_out)
{
    struct volume_attributes a;
    int rc = volume_get_attributes(fs_of(r->req)->volume, object_of(r->ino), &a);
    if (rc == 0)
        *flags_out = a.inode.flags;
    return rc;
}

int
ioctl_get_file_flags(struct ioctl_request *r)
{
    return get_flags(r, &r->io.word);
}

int
ioctl_get_extended_flags(struct ioctl_request *r)
{
    uint32_t flags = 0;
    int rc = get_flags(r, &flags);
    r->io.fsxattr = (struct fsxattr){.fsx_xflags = to_xflags(flags)};
    return rc;
}

int
ioctl_get_node_generation(struct ioctl_request *r)
{
    r->io.word = MOUNT_NODE_GENERATION;
    return 0;
}
