// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse/cold_requests.h"
#include "fuse/device.h"
#include "fuse/direct_writes.h"
#include "fuse/fs_ops.h"
#include "fuse/seek.h"
#include "fuse/snapshot_ops.h"
#include "platform/memory.h"

#define XATTR_CAPABILITY "security.capability"

// ---- open and close -----------------------------------------------------------------------------

// With FUSE_CAP_ATOMIC_O_TRUNC the open itself truncates. A kernel that does not say when to clear
// suid bits cannot clear them then by itself; the callers that may keep them are root.
static bool
open_kills_suid(fuse_req_t req)
{
    if (fs_of(req)->told_to_kill_suid)
        return device_request_kills_suid();
    return fuse_req_ctx(req)->uid != 0;
}

// Clears suid as told, and the capabilities of a program, which the kernel leaves to the daemon
// here (elsewhere it removes the attribute itself).
static int
truncate_at_open(fuse_req_t req, struct object_id object)
{
    int rc = volume_remove_xattr(fs_of(req)->volume, object, XATTR_CAPABILITY);
    if (rc < 0 && rc != -ENODATA)
        return rc;
    struct volume_set_attributes change = {.set = VOLUME_SET_SIZE, .size = 0};
    struct volume_attributes attributes;
    if (open_kills_suid(req))
        change.set |= VOLUME_SET_KILL_SUIDGID;
    return volume_set_attributes(fs_of(req)->volume, object, &change, &attributes);
}

static bool
is_writer(const struct fuse_file_info *fi)
{
    return (fi->flags & O_ACCMODE) != O_RDONLY;
}

static void
close_object(struct fs *fs, struct object_id object, const struct fuse_file_info *fi)
{
    if (is_writer(fi))
        kernel_cache_forget_writer(fs->kernel_cache, object);
    fetch_table_close(&fs->fetches, fi->fh);
    volume_object_closed(fs->volume, object);
}

// The kernel may remember that the object has no blocks, and does not ask again while it fills it.
static void
claim_blocks(struct fs *fs, struct object_id object)
{
    struct volume_attributes attributes;
    if (volume_get_attributes(fs->volume, object, &attributes) == 0 && attributes.blocks == 0)
        kernel_cache_drop_attributes(fs->kernel_cache, object);
}

// A file that is marked for cold scans is read past the kernel's cache, too, when it is opened for
// reading only.
static void
begin_scan(struct fs *fs, struct object_id object, struct fuse_file_info *fi)
{
    static const struct fetch_options scan = {.bypass_cache = true};
    if (is_writer(fi) || !volume_is_scanned(fs->volume, object))
        return;
    fi->direct_io = 1;
    fetch_table_set(&fs->fetches, fi->fh, object, &scan, true);
}

static int
open_object(
    fuse_req_t req, struct object_id object, bool is_new, bool truncate, struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    int rc = 0;
    if (is_writer(fi) || truncate)
        rc = volume_check_writable(fs->volume, object, (fi->flags & O_APPEND) != 0, truncate);
    if (rc == 0)
        rc = volume_object_opened(fs->volume, object);
    if (rc != 0)
        return rc;
    if (is_writer(fi))
        kernel_cache_note_writer(fs->kernel_cache, object, is_new);
    if (truncate)
        rc = truncate_at_open(req, object);
    else if (is_writer(fi) && !is_new)
        claim_blocks(fs, object);
    if (rc != 0) {
        close_object(fs, object, fi);
        return rc;
    }
    fi->keep_cache = 1;
    fi->noflush = 1;
    fi->fh = fetch_table_new_handle(&fs->fetches);
    if (!is_new)
        begin_scan(fs, object, fi);
    return 0;
}

void
fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (UNLIKELY(snapshot_node_is(ino))) {
        snapshot_ops_open(req, ino, fi);
        return;
    }
    struct fs *fs = fs_of(req);
    int rc = open_object(req, object_of(ino), false, (fi->flags & O_TRUNC) != 0, fi);
    if (rc != 0)
        fs_reply_result(req, rc);
    else if (fuse_reply_open(req, fi) == -ENOENT)
        close_object(fs, object_of(ino), fi);
}

// Another process made a file of that name while this request was on its way.
static int
find_file(struct fs *fs, struct object_id parent, const char *name,
    struct volume_attributes *attributes_out)
{
    int rc = volume_lookup(fs->volume, parent, name, attributes_out);
    return rc == 0 && !S_ISREG(attributes_out->inode.mode) ? -EEXIST : rc;
}

// A file without a name; one that exists already, without O_EXCL; a new one.
static int
create_object(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
    struct fuse_file_info *fi, struct volume_attributes *attributes_out)
{
    struct fs *fs = fs_of(req);
    const struct fuse_ctx *c = fuse_req_ctx(req);
    struct volume_caller caller = {.uid = c->uid, .gid = c->gid, .umask = c->umask};
    bool nameless = device_request_is_nameless();
    int rc = volume_make(fs->volume, object_of(parent), nameless ? NULL : name,
        (mode & ~(mode_t)S_IFMT) | S_IFREG, 0, NULL, &caller, attributes_out);
    // A new file is empty already, and may be written however it was made.
    bool exists = rc == -EEXIST;
    if (exists && !(fi->flags & O_EXCL))
        rc = find_file(fs, object_of(parent), name, attributes_out);
    bool truncate = exists && (fi->flags & O_TRUNC);
    if (rc == 0)
        rc = open_object(req, attributes_out->object, !exists, truncate, fi);
    if (rc == 0 && truncate)
        attributes_out->inode.size = 0;
    return rc;
}

void
fs_create(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    if (snapshot_ops_refuse(req, parent) || snapshot_ops_refuse_name(req, parent, name, -EEXIST))
        return;
    struct fs *fs = fs_of(req);
    struct volume_attributes attributes;
    struct fuse_entry_param entry;
    int rc = create_object(req, parent, name, mode, fi, &attributes);
    if (rc != 0) {
        fs_reply_result(req, rc);
        return;
    }
    fs_fill_entry(fs, &attributes, &entry);
    if (fuse_reply_create(req, &entry, fi) == -ENOENT) {
        close_object(fs, attributes.object, fi);
        volume_object_forgotten(fs->volume, attributes.object);
    }
}

void
fs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (UNLIKELY(snapshot_node_is(ino))) {
        snapshot_ops_release(req, ino);
        return;
    }
    close_object(fs_of(req), object_of(ino), fi);
    fs_reply_result(req, 0);
}

// ---- data ---------------------------------------------------------------------------------------

// Reads an open file that has options.
static void
read_with_options(fuse_req_t req, fuse_ino_t ino, size_t size, uint64_t offset,
    const struct fuse_file_info *fi, struct fetch_entry *entry)
{
    struct fs *fs = fs_of(req);
    struct volume_read_context context = {.call = {.local_only = true, .fetch = entry->options},
        .keep_atime = (fi->flags & O_NOATIME) != 0,
        .scan = entry->scan};
    uint8_t *data = fs_scratch(size);
    if (!direct_writes_is_direct(fi)) {
        kernel_cache_note_pages(fs->kernel_cache, object_of(ino));
        if (entry->scan)
            fetch_table_note_cached(&fs->fetches, entry, offset);
    }
    bool flush = entry->past_kernel && kernel_cache_has_writer(fs->kernel_cache, object_of(ino));
    int64_t n =
        flush ? -EREMOTE : volume_read(fs->volume, object_of(ino), offset, size, data, &context);
    if (n == -EREMOTE) {
        cold_requests_read(req, object_of(ino), offset, size, entry);
        return;
    }
    if (n < 0)
        fs_reply_result(req, (int)n);
    else
        fuse_reply_buf(req, (const char *)data, (size_t)n);
    fetch_table_put(&fs->fetches, entry);
}

void
fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    if (UNLIKELY(snapshot_node_is(ino))) {
        snapshot_ops_read(req, ino, size, offset);
        return;
    }
    struct fetch_entry *entry = fetch_table_get(&fs_of(req)->fetches, fi->fh);
    if (UNLIKELY(entry && offset >= 0)) {
        read_with_options(req, ino, size, (uint64_t)offset, fi, entry);
        return;
    }
    fetch_table_put(&fs_of(req)->fetches, entry);
    struct volume_read_context context = {
        .call = {.local_only = true}, .keep_atime = (fi->flags & O_NOATIME) != 0};
    uint8_t *data = fs_scratch(size);
    if (!direct_writes_is_direct(fi))
        kernel_cache_note_pages(fs_of(req)->kernel_cache, object_of(ino));
    int64_t n = offset < 0 ? -EINVAL
                           : volume_read(fs_of(req)->volume, object_of(ino), (uint64_t)offset, size,
                                 data, &context);
    if (UNLIKELY(n == -EREMOTE))
        cold_requests_read(req, object_of(ino), (uint64_t)offset, size, NULL);
    else if (n < 0)
        fs_reply_result(req, (int)n);
    else
        fuse_reply_buf(req, (const char *)data, (size_t)n);
}

// With its write-back cache the kernel keeps the times itself, those of direct writes too, and
// sends them with SETATTR. Without it, stores through mappings change them when they arrive here.
// A write-back of the kernel comes later and with the open flags of any opener: it is never an
// append, never O_SYNC (the kernel sends FSYNC), never the moment to clear suid.
static unsigned
write_flags(fuse_req_t req, const struct fuse_file_info *fi)
{
    bool writeback = fs_of(req)->settings.writeback;
    unsigned flags = writeback ? VOLUME_WRITE_KEEP_TIMES : 0;
    if (fi->writepage)
        return flags;
    if (device_request_kills_suid())
        flags |= VOLUME_WRITE_KILL_SUIDGID;
    if ((fi->flags & O_APPEND) && !writeback)
        flags |= VOLUME_WRITE_APPEND;
    return flags;
}

void
fs_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
    struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    bool direct = direct_writes_is_direct(fi);
    uint64_t ticket = 0;
    if (!direct && offset >= 0)
        ticket = kernel_cache_begin_write(fs->kernel_cache, object_of(ino), (uint64_t)offset, size);
    int rc = offset < 0 ? -EINVAL
                        : volume_write(fs->volume, object_of(ino), (uint64_t)offset,
                              (const uint8_t *)data, size, write_flags(req, fi));
    if (!direct && offset >= 0 && UNLIKELY(kernel_cache_end_write(fs->kernel_cache, ticket)))
        kernel_cache_note_behind(fs->kernel_cache, object_of(ino));
    if (rc != 0 && fi->writepage)
        kernel_cache_note_refusal(fs->kernel_cache);
    bool sync = !fi->writepage && (fs->settings.sync_writes || (fi->flags & (O_SYNC | O_DSYNC)));
    if (rc != 0)
        fs_reply_result(req, rc);
    else if (direct)
        direct_writes_answer(fs->direct_writes, req, object_of(ino), (uint64_t)offset, size, sync);
    else if (sync)
        fs_reply_after_sync(req, (int64_t)size);
    else
        fuse_reply_write(req, size);
}

void
fs_fsync(fuse_req_t req, fuse_ino_t ino, int data_only UNUSED, struct fuse_file_info *fi UNUSED)
{
    if (UNLIKELY(kernel_cache_is_behind(fs_of(req)->kernel_cache)))
        kernel_cache_catch_up(fs_of(req)->kernel_cache, object_of(ino));
    fs_reply_after_sync(req, -1);
}

void
fs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
    struct fuse_file_info *fi UNUSED)
{
    if (snapshot_ops_refuse(req, ino))
        return;
    int rc = -EINVAL;
    if (offset >= 0 && length > 0)
        rc = volume_allocate(
            fs_of(req)->volume, object_of(ino), mode, (uint64_t)offset, (uint64_t)length);
    fs_reply_result(req, rc);
}

void
fs_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi UNUSED)
{
    if (offset < 0)
        fs_reply_result(req, -ENXIO);
    else if (whence != SEEK_DATA && whence != SEEK_HOLE)
        fs_reply_result(req, -EINVAL);
    else if (UNLIKELY(snapshot_node_is(ino)))
        snapshot_ops_lseek(req, ino, (uint64_t)offset, whence);
    else
        seeker_seek(fs_of(req)->seeker, req, object_of(ino), (uint64_t)offset, whence);
}
