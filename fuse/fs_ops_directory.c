// SPDX-License-Identifier: Apache-2.0
// Directories: "." and ".." stand at offsets 1 and 2, the volume's entries at their own above.
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fuse/fs_ops.h"
#include "fuse/snapshot_ops.h"

// The daemon keeps nothing for an open directory: listings go on from an offset, and a removed
// directory stays until the kernel forgets it, which it does not before the last close. So the
// kernel need not tell: after one ENOSYS it sends neither OPENDIR nor RELEASEDIR any more, and
// caches listings by itself. Databases open a directory for each fsync of it.
void
fs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    if (fs->kernel_opens_directories) {
        fs_reply_result(req, -ENOSYS);
        return;
    }
    if (snapshot_node_is(ino)) {
        fuse_reply_open(req, fi);
        return;
    }
    int rc = volume_object_opened(fs->volume, object_of(ino));
    if (rc != 0) {
        fs_reply_result(req, rc);
        return;
    }
    fi->keep_cache = 1;
    fi->cache_readdir = 1;
    if (fuse_reply_open(req, fi) == -ENOENT)
        volume_object_closed(fs->volume, object_of(ino));
}

void
fs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi UNUSED)
{
    if (!snapshot_node_is(ino))
        volume_object_closed(fs_of(req)->volume, object_of(ino));
    fs_reply_result(req, 0);
}

bool
fs_list_entry(
    struct fs_listing *l, const char *name, struct fuse_entry_param *entry, uint64_t offset)
{
    char *p = (char *)l->out + l->used;
    size_t left = l->size - l->used;
    size_t needed = l->plus ? fuse_add_direntry_plus(l->req, p, left, name, entry, (off_t)offset)
                            : fuse_add_direntry(l->req, p, left, name, &entry->attr, (off_t)offset);
    if (needed > left)
        return false;
    l->used += needed;
    return true;
}

static bool
add_dot(struct fs_listing *l, const char *name, fuse_ino_t ino, uint64_t offset)
{
    // Node 0: the kernel takes no reference to "." and "..".
    struct fuse_entry_param entry = {0};
    entry.attr.st_ino = ino;
    entry.attr.st_mode = S_IFDIR;
    return fs_list_entry(l, name, &entry, offset);
}

bool
fs_list_dots(struct fs_listing *l, fuse_ino_t ino, fuse_ino_t parent, uint64_t offset)
{
    if (offset < FS_OFFSET_DOT && !add_dot(l, ".", ino, FS_OFFSET_DOT))
        return false;
    return offset >= FS_OFFSET_DOT_DOT || add_dot(l, "..", parent, FS_OFFSET_DOT_DOT);
}

static int
visit(void *argument, const char *name, size_t name_length, uint64_t offset,
    const struct volume_attributes *attributes)
{
    struct fs_listing *l = argument;
    char text[NAME_BYTES_MAX + 1];
    struct fuse_entry_param entry;
    if (name_length > NAME_BYTES_MAX)
        return 1;
    memcpy(text, name, name_length);
    text[name_length] = '\0';
    fs_fill_entry(fs_of(l->req), attributes, &entry);
    return fs_list_entry(l, text, &entry, offset) ? 0 : 1;
}

static void
list(fuse_req_t req, fuse_ino_t ino, size_t size, uint64_t offset, bool plus)
{
    if (UNLIKELY(snapshot_node_is(ino))) {
        snapshot_ops_readdir(req, ino, size, offset, plus);
        return;
    }
    if (offset == 0)
        volume_directory_accessed(fs_of(req)->volume, object_of(ino));
    struct fs_listing l = {.req = req, .out = fs_scratch(size), .size = size, .plus = plus};
    int rc = 0;
    if (fs_list_dots(&l, ino, FUSE_ROOT_ID, offset))
        rc = volume_read_directory(fs_of(req)->volume, object_of(ino),
            offset <= FS_OFFSET_DOT_DOT ? 0 : offset, plus, visit, &l);
    // Entries listed before a failure are good; the failure comes with the next call.
    if (rc != 0 && l.used == 0)
        fs_reply_result(req, rc);
    else
        fuse_reply_buf(req, (const char *)l.out, l.used);
}

void
fs_readdir(
    fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi UNUSED)
{
    list(req, ino, size, (uint64_t)offset, false);
}

void
fs_readdirplus(
    fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi UNUSED)
{
    list(req, ino, size, (uint64_t)offset, true);
}
