// SPDX-License-Identifier: Apache-2.0
// The flags of files that chattr(1) and lsattr(1) show and change: FS_IOC_GETFLAGS and SETFLAGS,
// and the younger FSGETXATTR and FSSETXATTR. The kernel knows the flags of a FUSE file only from
// here, so the volume, not the kernel, refuses forbidden changes.
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "fuse/fs_ops.h"
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

static void
set_flags(fuse_req_t req, fuse_ino_t ino, uint32_t flags)
{
    struct fs *fs = fs_of(req);
    struct volume_attributes a;
    struct volume_set_attributes change = {.set = VOLUME_SET_FLAGS, .flags = flags};
    int rc = volume_get_attributes(fs->volume, object_of(ino), &a);
    if (rc == 0)
        rc = check_change(req, &a.inode, flags);
    if (rc == 0 && flags != a.inode.flags)
        rc = volume_set_attributes(fs->volume, object_of(ino), &change, &a);
    if (rc != 0)
        fs_reply_result(req, rc);
    else
        fuse_reply_ioctl(req, 0, NULL, 0);
}

static void
set_xflags(fuse_req_t req, fuse_ino_t ino, const void *in)
{
    struct fsxattr x;
    uint32_t flags;
    memcpy(&x, in, sizeof(x));
    if (!from_xflags(x.fsx_xflags, &flags) || x.fsx_projid != 0 || x.fsx_extsize != 0 ||
        x.fsx_cowextsize != 0)
        fs_reply_result(req, -EOPNOTSUPP);
    else
        set_flags(req, ino, flags);
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

static void
get_flags(fuse_req_t req, fuse_ino_t ino, unsigned command)
{
    struct volume_attributes a;
    int rc = volume_get_attributes(fs_of(req)->volume, object_of(ino), &a);
    if (rc != 0)
        fs_reply_result(req, rc);
    else
        fs_reply_flags(req, command, a.inode.flags);
}

// The command numbers of flags and generations say "long", but programs pass an int. The kernel
// copies in as many bytes as the number says, and out as many as the reply has: never more than an
// int.
bool
fs_flags_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, const void *in, size_t in_size,
    size_t out_size)
{
    uint32_t flags = 0;
    const uint32_t generation = MOUNT_NODE_GENERATION;
    bool get = command == FS_IOC_GETFLAGS || command == FS_IOC_FSGETXATTR;
    size_t needed = command == FS_IOC_FSGETXATTR || command == FS_IOC_FSSETXATTR
                        ? sizeof(struct fsxattr)
                        : sizeof(flags);
    if (command == FS_IOC_GETVERSION) {
        if (out_size < sizeof(generation))
            fs_reply_result(req, -EINVAL);
        else
            fuse_reply_ioctl(req, 0, &generation, sizeof(generation));
        return true;
    }
    if (!get && command != FS_IOC_SETFLAGS && command != FS_IOC_FSSETXATTR)
        return false;
    if ((get ? out_size : in_size) < needed) {
        fs_reply_result(req, -EINVAL);
    } else if (get) {
        get_flags(req, ino, command);
    } else if (command == FS_IOC_FSSETXATTR) {
        set_xflags(req, ino, in);
    } else {
        memcpy(&flags, in, sizeof(flags));
        set_flags(req, ino, flags);
    }
    return true;
}
