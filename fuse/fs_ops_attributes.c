// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fuse/fs_ops.h"
#include "platform/crash_point.h"

void
fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi UNUSED)
{
    struct volume_attributes attributes;
    crash_point("fuse.getattr_received");
    int rc = volume_get_attributes(fs_of(req)->volume, object_of(ino), &attributes);
    if (rc == 0)
        fs_reply_attributes(req, &attributes);
    else
        fs_reply_result(req, rc);
}

static struct timestamp
timestamp_of(const struct timespec *t)
{
    return (struct timestamp){.seconds = t->tv_sec, .nanoseconds = (uint32_t)t->tv_nsec};
}

static const struct {
    int theirs;
    unsigned ours;
} set_bits[] = {
    {FUSE_SET_ATTR_MODE, VOLUME_SET_MODE},
    {FUSE_SET_ATTR_UID, VOLUME_SET_UID},
    {FUSE_SET_ATTR_GID, VOLUME_SET_GID},
    {FUSE_SET_ATTR_SIZE, VOLUME_SET_SIZE},
    {FUSE_SET_ATTR_ATIME, VOLUME_SET_ATIME},
    {FUSE_SET_ATTR_MTIME, VOLUME_SET_MTIME},
    {FUSE_SET_ATTR_CTIME, VOLUME_SET_CTIME},
    {FUSE_SET_ATTR_ATIME_NOW, VOLUME_SET_ATIME_NOW},
    {FUSE_SET_ATTR_MTIME_NOW, VOLUME_SET_MTIME_NOW},
    {FUSE_SET_ATTR_KILL_SUID, VOLUME_SET_KILL_SUIDGID},
};

static unsigned
translate_set(int to_set)
{
    unsigned set = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(set_bits); i++)
        if (to_set & set_bits[i].theirs)
            set |= set_bits[i].ours;
    // The kernel sets both bits for "now".
    if (set & VOLUME_SET_ATIME_NOW)
        set &= ~(unsigned)VOLUME_SET_ATIME;
    if (set & VOLUME_SET_MTIME_NOW)
        set &= ~(unsigned)VOLUME_SET_MTIME;
    return set;
}

void
fs_setattr(
    fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi UNUSED)
{
    struct volume_set_attributes change = {
        .set = translate_set(to_set),
        .mode = st->st_mode,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .size = (uint64_t)st->st_size,
        .atime = timestamp_of(&st->st_atim),
        .mtime = timestamp_of(&st->st_mtim),
        .ctime = timestamp_of(&st->st_ctim),
    };
    struct volume_attributes attributes;
    int rc;
    if ((change.set & VOLUME_SET_SIZE) && st->st_size < 0)
        rc = -EINVAL;
    else if (change.set == 0)
        rc = volume_get_attributes(fs_of(req)->volume, object_of(ino), &attributes);
    else
        rc = volume_set_attributes(fs_of(req)->volume, object_of(ino), &change, &attributes);
    if (rc == 0)
        fs_reply_attributes(req, &attributes);
    else
        fs_reply_result(req, rc);
}

void
fs_statfs(fuse_req_t req, fuse_ino_t ino UNUSED)
{
    struct volume_space space;
    int rc = volume_space(fs_of(req)->volume, &space);
    if (rc != 0) {
        fs_reply_result(req, rc);
        return;
    }
    struct statvfs st = {
        .f_bsize = space.block_bytes,
        .f_frsize = space.block_bytes,
        .f_blocks = space.blocks,
        .f_bfree = space.blocks_free,
        .f_bavail = space.blocks_free,
        .f_files = space.files,
        .f_ffree = space.files_free,
        .f_favail = space.files_free,
        .f_namemax = NAME_BYTES_MAX,
    };
    fuse_reply_statfs(req, &st);
}

// ---- extended attributes ------------------------------------------------------------------------

// Access lists would be kept but not enforced (the kernel checks permissions by mode), so they are
// refused.
static bool
is_supported(const char *name)
{
    return strncmp(name, "system.posix_acl_", strlen("system.posix_acl_")) != 0;
}

void
fs_setxattr(
    fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
    if (is_supported(name))
        fs_reply_result(
            req, volume_set_xattr(fs_of(req)->volume, object_of(ino), name, value, size, flags));
    else
        fs_reply_result(req, -EOPNOTSUPP);
}

// The value, or its size when the caller asks for that with `size` 0.
static void
reply_value(fuse_req_t req, int rc, const struct buffer *value, size_t size)
{
    if (rc != 0)
        fs_reply_result(req, rc);
    else if (size == 0)
        fuse_reply_xattr(req, value->length);
    else if (value->length > size)
        fs_reply_result(req, -ERANGE);
    else
        fuse_reply_buf(req, (const char *)value->data, value->length);
}

void
fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    BUFFER_AUTO value = {0};
    int rc = -EOPNOTSUPP;
    if (is_supported(name))
        rc = volume_get_xattr(fs_of(req)->volume, object_of(ino), name, &value);
    reply_value(req, rc, &value, size);
}

void
fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    BUFFER_AUTO names = {0};
    int rc = volume_list_xattrs(fs_of(req)->volume, object_of(ino), &names);
    reply_value(req, rc, &names, size);
}

void
fs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    if (is_supported(name))
        fs_reply_result(req, volume_remove_xattr(fs_of(req)->volume, object_of(ino), name));
    else
        fs_reply_result(req, -EOPNOTSUPP);
}
