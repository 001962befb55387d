// SPDX-License-Identifier: Apache-2.0
// The mounted file system, and functions that answer requests: shared by all code that serves
// requests. fs_ops.h builds it.
#ifndef CKPTFS_FUSE_FS_H
#define CKPTFS_FUSE_FS_H

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fuse/ckptfs_ioctl.h"
#include "fuse/cold_pool.h"
#include "fuse/fetch_table.h"
#include "fuse/kernel_cache.h"
#include "fuse/snapshot_tree.h"
#include "fuse/ticket.h"
#include "platform/lock.h"
#include "volume/volume.h"

// The longest WRITE that the kernel may send.
#define FS_WRITE_BYTES_MAX (1u << 20)

struct direct_writes;
struct seeker;

// The daemon itself opens files of the mount by their numbers: a look-up in the root directory of
// the door's name with the number right behind it finds the file. The name is a secret of the
// process.
#define FS_DOOR_BYTES 48u

struct fs_settings {
    char door[FS_DOOR_BYTES];
    bool writeback;               // the kernel's write-back cache
    bool sync_writes;             // mounted with -o sync: every write is one with O_SYNC
    uint64_t max_read;            // bytes; 0: the kernel's default
    uint64_t max_readahead;       // bytes; 0: the kernel's default
    uint64_t max_background;      // requests; 0: 1024
    uint64_t time_granularity_ms; // 0: nanoseconds
    uint64_t read_deadline_ms;    // longest wait of a request for the store
};

struct fs {
    struct fs_settings settings;
    struct volume *volume;
    bool kernel_opens_directories; // it does not need OPENDIR and RELEASEDIR
    bool told_to_kill_suid;        // the kernel says when to clear suid bits; see device.h
    bool long_setxattr;            // SETXATTR requests come in their extended form
    bool has_access_lists;         // the kernel checks permissions by POSIX access lists
    struct tickets tickets;
    struct kernel_cache *kernel_cache;
    struct seeker *seeker;
    struct cold_pool cold;  // see cold_requests.h
    struct cold_pool scans; // likewise, for cold scans: others do not stand behind them
    struct fetch_table fetches;
    struct snapshot_tree snapshots;
    struct cold_pool snapshot_pool; // see snapshot_ops.h
    struct direct_writes *direct_writes;
    struct lock lock;      // protects `deferred`
    struct condition idle; // `deferred` has become 0
    uint64_t deferred;     // requests that are answered after their handler has returned
    // Requests of the kernel by opcode (index 0: unknown ones); for ckptctl status --fuse.
    _Atomic uint64_t requests[CKPTFS_FUSE_OPCODES];
};

// The userdata of the session is a struct fs.
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

// Without expiry; a year, because some kernels do not take more seconds than fit in 32 bits.
#define FS_CACHE_SECONDS (365.0 * 86400.0)

void fs_reply_result(fuse_req_t req, int result);  // 0 or -errno
void fs_reply_seek(fuse_req_t req, int64_t found); // an offset or -errno
// `is_asked`: as of kernel_cache_end_claim.
void fs_reply_attributes(fuse_req_t req, const struct volume_attributes *attributes, bool is_asked);
void fs_reply_entry(fuse_req_t req, const struct volume_attributes *attributes);
void fs_fill_entry(
    struct fs *fs, const struct volume_attributes *attributes, struct fuse_entry_param *entry_out);
// Whether the daemon keeps extended attributes of this name: 0, -EOPNOTSUPP or -EINVAL.
int fs_check_xattr_name(const struct fs *fs, const char *name);
// Replies with the value, or with its size when the caller asks for that with `size` 0.
void fs_reply_value(fuse_req_t req, int rc, const struct buffer *value, size_t size);
// The names in the trusted namespace are for root.
void fs_remove_trusted(struct buffer *names);
// Answers FS_IOC_GETFLAGS or FS_IOC_FSGETXATTR.
void fs_reply_flags(fuse_req_t req, unsigned command, uint32_t flags);
// Memory of the calling thread, good until its next call; at least `n` bytes.
uint8_t *fs_scratch(size_t n);

// A listing in the making. Both return false when an entry does not fit any more. The offsets of
// entries are above FS_OFFSET_DOT_DOT.
#define FS_OFFSET_DOT     1
#define FS_OFFSET_DOT_DOT 2
struct fs_listing {
    fuse_req_t req;
    uint8_t *out;
    size_t size;
    size_t used;
    bool plus;
};
bool fs_list_entry(
    struct fs_listing *l, const char *name, struct fuse_entry_param *entry, uint64_t offset);
// "." and "..", unless the listing goes on behind them.
bool fs_list_dots(struct fs_listing *l, fuse_ino_t ino, fuse_ino_t parent, uint64_t offset);

// Around a reply that comes after the handler has returned: begin before another thread can see the
// request, end when the reply is out.
void fs_begin_deferred(struct fs *fs);
void fs_end_deferred(struct fs *fs);
// Replies when everything so far is on stable storage: `written` bytes (fuse_reply_write) or,
// when it is negative, plain success.
void fs_reply_after_sync(fuse_req_t req, int64_t written);

#endif
