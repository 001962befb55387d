// SPDX-License-Identifier: Apache-2.0
// The file system as the kernel sees it: libfuse's low-level operations on an open volume. Object
// ids are node ids and inode numbers. The daemon is the only one who changes anything, so entries,
// attributes and data are given to the kernel without expiry; only the kernel's own requests
// invalidate them.
#ifndef CKPTFS_FUSE_FS_OPS_H
#define CKPTFS_FUSE_FS_OPS_H

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fuse/ckptfs_ioctl.h"
#include "fuse/cold_pool.h"
#include "fuse/direct_writes.h"
#include "fuse/kernel_cache.h"
#include "fuse/seek.h"
#include "fuse/ticket.h"
#include "platform/lock.h"
#include "volume/volume.h"

// The longest WRITE that the kernel may send.
#define FS_WRITE_BYTES_MAX (1u << 20)

struct fs_settings {
    bool writeback;               // the kernel's write-back cache
    bool sync_writes;             // mounted with -o sync: every write is one with O_SYNC
    uint64_t max_read;            // bytes; 0: what the kernel likes
    uint64_t max_readahead;       // bytes; 0: what the kernel likes
    uint64_t max_background;      // requests; 0: 1024
    uint64_t time_granularity_ms; // 0: nanoseconds
    uint64_t read_deadline_ms;    // how long a request waits for the store
};

struct fs {
    struct fs_settings settings;
    struct volume *volume;
    bool kernel_opens_directories; // it does not need OPENDIR and RELEASEDIR
    bool told_to_kill_suid;        // the kernel says when suid bits are to be cleared; see device.h
    bool long_setxattr;            // SETXATTR requests come in their extended form
    bool has_access_lists;         // the kernel checks permissions by POSIX access lists
    struct tickets tickets;
    struct kernel_cache *kernel_cache;
    struct seeker seeker;
    struct cold_pool cold; // see cold_requests.h
    struct direct_writes direct_writes;
    struct lock lock;      // protects `deferred`
    struct condition idle; // `deferred` has become 0
    uint64_t deferred;     // requests that are answered after their handler has returned
    // What the kernel has sent, by opcode (index 0: unknown ones); for ckptctl status --fuse.
    _Atomic uint64_t requests[CKPTFS_FUSE_OPCODES];
};

// The userdata of the session is a struct fs.
extern const struct fuse_lowlevel_ops fs_operations;

void fs_init(struct fs *fs, const struct fs_settings *settings, struct volume *volume,
    struct kernel_cache *kernel_cache);
void fs_destroy(struct fs *fs);
// Answers every request that is still open, or waits for its answer. Called when no worker runs any
// more and before the session goes.
void fs_drain(struct fs *fs);

// ---- for the files fs_ops_*.c and ioctl_ops.c ---------------------------------------------------

static inline struct fs *
fs_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static inline struct object_id
object_of(fuse_ino_t ino)
{
    return (struct object_id){ino};
}

void fs_reply_result(fuse_req_t req, int result);  // 0 or -errno
void fs_reply_seek(fuse_req_t req, int64_t found); // an offset or -errno
void fs_reply_attributes(fuse_req_t req, const struct volume_attributes *attributes);
void fs_reply_entry(fuse_req_t req, const struct volume_attributes *attributes);
void fs_fill_entry(
    struct fs *fs, const struct volume_attributes *attributes, struct fuse_entry_param *entry_out);
// Memory of the calling thread, good until its next call; at least `n` bytes.
uint8_t *fs_scratch(size_t n);
// Around a reply that comes after the handler has returned: begin before anybody else can see the
// request, end when the reply is out.
void fs_begin_deferred(struct fs *fs);
void fs_end_deferred(struct fs *fs);
// Replies when everything so far is on stable storage: `written` bytes (fuse_reply_write) or,
// when it is negative, plain success.
void fs_reply_after_sync(fuse_req_t req, int64_t written);

void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void fs_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void fs_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void fs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void fs_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void fs_readlink(fuse_req_t req, fuse_ino_t ino);
void fs_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void fs_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
    const char *new_name, unsigned flags);

void fs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_readdir(
    fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void fs_readdirplus(
    fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);

void fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_setattr(
    fuse_req_t req, fuse_ino_t ino, struct stat *attributes, int to_set, struct fuse_file_info *fi);
void fs_statfs(fuse_req_t req, fuse_ino_t ino);
void fs_setxattr(
    fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void fs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

void fs_create(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void fs_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
    struct fuse_file_info *fi);
void fs_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);
void fs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
    struct fuse_file_info *fi);
void fs_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi);

// The ioctls of chattr and lsattr. False when the command is another one.
bool fs_flags_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, const void *in,
    size_t in_size, size_t out_size);
void fs_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void *argument,
    struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size, size_t out_size);

#endif
