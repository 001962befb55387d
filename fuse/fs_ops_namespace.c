// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuse/fs_ops.h"
#include "fuse/snapshot_ops.h"

static struct volume_caller
caller_of(fuse_req_t req)
{
    const struct fuse_ctx *c = fuse_req_ctx(req);
    return (struct volume_caller){.uid = c->uid, .gid = c->gid, .umask = c->umask};
}

// For a file handle: the kernel has forgotten the object and knows its number. Object ids are never
// used again, so the handle of something deleted finds nothing. Above a directory the kernel asks
// for each parent up to one that it knows, and reads the parent to find the directory's name.
static void
lookup_by_number(fuse_req_t req, fuse_ino_t ino, bool parent)
{
    struct volume_attributes attributes;
    struct volume *v = fs_of(req)->volume;
    int rc = snapshot_node_is(ino) ? -ESTALE
             : parent              ? volume_lookup_parent(v, object_of(ino), &attributes)
                                   : volume_get_attributes(v, object_of(ino), &attributes);
    if (rc == 0 && attributes.inode.nlink > 0)
        fs_reply_entry(req, &attributes);
    else
        fs_reply_result(req, rc == 0 || rc == -ENOENT ? -ESTALE : rc);
}

// By the daemon itself (mount_truncate). The kernel does not cache the name, so that no process
// finds it without knowing it.
static bool
lookup_through_door(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_of(req);
    struct volume_attributes attributes;
    struct fuse_entry_param entry;
    size_t n = strlen(fs->settings.door);
    char *end;
    if (parent != FUSE_ROOT_ID || strncmp(name, fs->settings.door, n) != 0)
        return false;
    uint64_t object = strtoull(name + n, &end, 10);
    int rc = *end == 0 ? volume_get_attributes(fs->volume, (struct object_id){object}, &attributes)
                       : -ENOENT;
    if (rc == 0 && !S_ISREG(attributes.inode.mode))
        rc = -ENOENT;
    if (rc < 0) {
        fs_reply_result(req, rc);
        return true;
    }
    fs_fill_entry(fs, &attributes, &entry);
    entry.entry_timeout = 0;
    fuse_reply_entry(req, &entry);
    return true;
}

void
fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct volume_attributes attributes;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        lookup_by_number(req, parent, name[1] == '.');
        return;
    }
    if (UNLIKELY(snapshot_node_is(parent))) {
        snapshot_ops_lookup(req, parent, name);
        return;
    }
    if (lookup_through_door(req, parent, name))
        return;
    int rc = volume_lookup(fs_of(req)->volume, object_of(parent), name, &attributes);
    if (rc == 0) {
        fs_reply_entry(req, &attributes);
        return;
    }
    if (rc != -ENOENT) {
        fs_reply_result(req, rc);
        return;
    }
    if (snapshot_ops_is_top(parent, name)) {
        snapshot_ops_lookup_top(req);
        return;
    }
    // Node 0 is a negative entry: the kernel remembers that there is nothing.
    struct fuse_entry_param entry;
    struct volume_attributes nothing = {0};
    fs_fill_entry(fs_of(req), &nothing, &entry);
    fuse_reply_entry(req, &entry);
}

// The volume does not count lookups: the kernel forgets an object as a whole. The tree of snapshots
// does, since many nodes are in one place of it.
static void
forget(struct fs *fs, fuse_ino_t ino, uint64_t count)
{
    if (LIKELY(!snapshot_node_is(ino)))
        volume_object_forgotten(fs->volume, object_of(ino));
    else
        snapshot_tree_forget(&fs->snapshots, snapshot_node_number(ino), count);
}

void
fs_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    forget(fs_of(req), ino, count);
    fuse_reply_none(req);
}

void
fs_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        forget(fs_of(req), forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

static void
make(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev,
    const char *target)
{
    if (snapshot_ops_refuse(req, parent) || snapshot_ops_refuse_name(req, parent, name, -EEXIST))
        return;
    struct volume_attributes attributes;
    struct volume_caller caller = caller_of(req);
    // The protocol has 32 bits for a device number, in the kernel's encoding.
    int rc = volume_make(fs_of(req)->volume, object_of(parent), name, mode, (uint32_t)rdev, target,
        &caller, &attributes);
    if (rc == 0)
        fs_reply_entry(req, &attributes);
    else
        fs_reply_result(req, rc);
}

void
fs_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    make(req, parent, name, mode, rdev, NULL);
}

void
fs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    make(req, parent, name, (mode & ~(mode_t)S_IFMT) | S_IFDIR, 0, NULL);
}

void
fs_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    make(req, parent, name, S_IFLNK | 0777, 0, target);
}

void
fs_readlink(fuse_req_t req, fuse_ino_t ino)
{
    if (UNLIKELY(snapshot_node_is(ino))) {
        snapshot_ops_readlink(req, ino);
        return;
    }
    BUFFER_AUTO target = {0};
    int rc = volume_read_link(fs_of(req)->volume, object_of(ino), &target);
    if (rc == 0)
        fuse_reply_readlink(req, buffer_string(&target));
    else
        fs_reply_result(req, rc);
}

void
fs_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    if (snapshot_ops_refuse(req, parent) || snapshot_ops_refuse_name(req, parent, name, -EEXIST))
        return;
    struct volume_attributes attributes;
    int rc = snapshot_node_is(ino) ? -EXDEV
                                   : volume_link(fs_of(req)->volume, object_of(ino),
                                         object_of(parent), name, &attributes);
    if (rc == 0)
        fs_reply_entry(req, &attributes);
    else
        fs_reply_result(req, rc);
}

void
fs_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    if (!snapshot_ops_refuse(req, parent))
        fs_reply_result(req, volume_unlink(fs_of(req)->volume, object_of(parent), name));
}

void
fs_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    if (snapshot_ops_refuse(req, parent))
        return;
    int rc = volume_rmdir(fs_of(req)->volume, object_of(parent), name);
    fs_reply_result(req, rc == -ENOENT && snapshot_ops_is_top(parent, name) ? -EROFS : rc);
}

void
fs_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
    const char *new_name, unsigned flags)
{
    if (snapshot_ops_refuse(req, parent) || snapshot_ops_refuse(req, new_parent) ||
        snapshot_ops_refuse_name(req, parent, name, -EROFS) ||
        snapshot_ops_refuse_name(req, new_parent, new_name, -EPERM))
        return;
    const struct fuse_ctx *c = fuse_req_ctx(req);
    struct volume_caller caller = {.uid = c->uid, .gid = c->gid, .umask = c->umask};
    fs_reply_result(req, volume_rename(fs_of(req)->volume, object_of(parent), name,
                             object_of(new_parent), new_name, flags, &caller));
}
