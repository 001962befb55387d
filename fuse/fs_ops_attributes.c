// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "format/access_list.h"
#include "fuse/device.h"
#include "fuse/fs_ops.h"
#include "fuse/snapshot_ops.h"
#include "platform/crash_point.h"

void
fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi UNUSED)
{
    if (UNLIKELY(snapshot_node_is(ino))) {
        snapshot_ops_getattr(req, ino);
        return;
    }
    struct volume_attributes attributes;
    crash_point("fuse.getattr_received");
    int rc = volume_get_attributes(fs_of(req)->volume, object_of(ino), &attributes);
    if (rc == 0)
        fs_reply_attributes(req, &attributes, true);
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

// Nothing to set: the kernel takes suid bits away from a file that is about to change in a way that
// has no place for it in its request (fallocate), and leaves the bits to us. Not for root: then it
// is about capabilities, which the kernel has removed.
static int
set_nothing(fuse_req_t req, fuse_ino_t ino, struct volume_attributes *attributes_out)
{
    struct fs *fs = fs_of(req);
    struct volume_set_attributes kill = {.set = VOLUME_SET_KILL_SUIDGID};
    int rc = volume_get_attributes(fs->volume, object_of(ino), attributes_out);
    if (rc == 0 && fs->told_to_kill_suid && fuse_req_ctx(req)->uid != 0 &&
        S_ISREG(attributes_out->inode.mode) && (attributes_out->inode.mode & (S_ISUID | S_ISGID)))
        rc = volume_set_attributes(fs->volume, object_of(ino), &kill, attributes_out);
    return rc;
}

void
fs_setattr(
    fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi UNUSED)
{
    if (snapshot_ops_refuse(req, ino))
        return;
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
        rc = set_nothing(req, ino, &attributes);
    else
        rc = volume_set_attributes(fs_of(req)->volume, object_of(ino), &change, &attributes);
    if (rc == 0)
        fs_reply_attributes(req, &attributes, false);
    else
        fs_reply_result(req, rc);
}

void
fs_statfs(fuse_req_t req, fuse_ino_t ino UNUSED)
{
    struct volume_space space = {0};
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

static bool
is_access_list(const char *name)
{
    return strcmp(name, XATTR_ACCESS_LIST) == 0 || strcmp(name, XATTR_DEFAULT_ACCESS_LIST) == 0;
}

// The daemon refuses access lists when the kernel would not enforce them. The kernel decides which
// user may use the other namespaces, but sends on names that it does not know.
int
fs_check_xattr_name(const struct fs *fs, const char *name)
{
    static const char *const namespaces[] = {"user.", "trusted.", "security."};
    for (size_t i = 0; i < ARRAY_LENGTH(namespaces); i++)
        if (strncmp(name, namespaces[i], strlen(namespaces[i])) == 0)
            return name[strlen(namespaces[i])] != '\0' ? 0 : -EINVAL;
    return is_access_list(name) && fs->has_access_lists ? 0 : -EOPNOTSUPP;
}

void
fs_setxattr(
    fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
    if (snapshot_ops_refuse(req, ino))
        return;
    struct fs *fs = fs_of(req);
    int rc = fs_check_xattr_name(fs, name);
    if (rc == 0 && is_access_list(name))
        rc = volume_set_access_list(
            fs->volume, object_of(ino), name, value, size, device_request_clears_sgid());
    else if (rc == 0)
        rc = volume_set_xattr(fs->volume, object_of(ino), name, value, size, flags);
    fs_reply_result(req, rc);
}

void
fs_reply_value(fuse_req_t req, int rc, const struct buffer *value, size_t size)
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
    if (UNLIKELY(snapshot_node_is(ino))) {
        snapshot_ops_getxattr(req, ino, name, size);
        return;
    }
    BUFFER_AUTO value = {0};
    int rc = fs_check_xattr_name(fs_of(req), name);
    if (rc == 0)
        rc = volume_get_xattr(fs_of(req)->volume, object_of(ino), name, &value);
    fs_reply_value(req, rc, &value, size);
}

void
fs_remove_trusted(struct buffer *names)
{
    BUFFER_AUTO all = {0};
    buffer_append(&all, names->data, names->length);
    buffer_clear(names);
    for (size_t at = 0; at < all.length; at += strlen((char *)all.data + at) + 1) {
        const char *name = (char *)all.data + at;
        if (strncmp(name, "trusted.", strlen("trusted.")) != 0)
            buffer_append(names, name, strlen(name) + 1);
    }
}

void
fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    if (UNLIKELY(snapshot_node_is(ino))) {
        snapshot_ops_listxattr(req, ino, size);
        return;
    }
    BUFFER_AUTO names = {0};
    int rc = volume_list_xattrs(fs_of(req)->volume, object_of(ino), &names);
    if (rc == 0 && fuse_req_ctx(req)->uid != 0)
        fs_remove_trusted(&names);
    fs_reply_value(req, rc, &names, size);
}

void
fs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    if (snapshot_ops_refuse(req, ino))
        return;
    int rc = fs_check_xattr_name(fs_of(req), name);
    if (rc == 0)
        rc = volume_remove_xattr(fs_of(req)->volume, object_of(ino), name);
    fs_reply_result(req, rc);
}
