// SPDX-License-Identifier: Apache-2.0
// The session's parameters, the table of operations, and the beginning and end of it all.
#include "fuse/fs_ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/cold_requests.h"
#include "fuse/device.h"
#include "fuse/direct_writes.h"
#include "fuse/seek.h"
#include "fuse/snapshot_ops.h"
#include "platform/log.h"
#include "platform/memory.h"

// The kernel's requests for read-ahead and write-back are background requests. Each that waits for
// the store takes one of these, and without a free one the kernel writes nothing back any more. The
// kernel's share of dirty memory limits the write-back at one time.
#define BACKGROUND_DEFAULT 1024u

static void
apply_settings(const struct fs_settings *settings, struct fuse_conn_info *conn)
{
    conn->max_write = FS_WRITE_BYTES_MAX;
    if (settings->max_read > 0)
        conn->max_read = (unsigned)settings->max_read;
    if (settings->max_readahead > 0)
        conn->max_readahead = (unsigned)settings->max_readahead;
    conn->max_background =
        settings->max_background > 0 ? (unsigned)settings->max_background : BACKGROUND_DEFAULT;
    conn->congestion_threshold = conn->max_background * 3 / 4;
    // With the write-back cache the kernel keeps the times of files, and hands a changed one over
    // before an FSYNC: a SETATTR for each commit that comes later than a clock tick after the one
    // before it. Times that change less often cost less.
    conn->time_gran =
        settings->time_granularity_ms > 0 ? (unsigned)settings->time_granularity_ms * 1000000u : 1;
    // Everything that is not named stays off. EXPLICIT_INVAL_DATA: no other host changes files, so
    // a new mtime is no reason to drop cached pages. No POSIX_LOCKS and FLOCK_LOCKS: one host has
    // the volume, the kernel's own locks are enough. No HANDLE_KILLPRIV: it makes the daemon clear
    // suid bits on every write without being told which user writes; device.h has its second
    // version. EXPORT_SUPPORT: the kernel asks by number for an object that it has forgotten
    // (fs_lookup). DONT_MASK: a default access list takes the place of the umask.
    unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_IOCTL_DIR |
                    FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO |
                    FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS |
                    FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_DONT_MASK | FUSE_CAP_POSIX_ACL |
                    FUSE_CAP_EXPORT_SUPPORT;
    if (settings->writeback)
        want |= FUSE_CAP_WRITEBACK_CACHE;
#ifdef DEVICE_LIBFUSE_NEGOTIATES
    want |= FUSE_CAP_HANDLE_KILLPRIV_V2 | FUSE_CAP_SETXATTR_EXT;
#endif
    conn->want = want & conn->capable;
}

static void
init(void *userdata, struct fuse_conn_info *conn)
{
    struct fs *fs = userdata;
    apply_settings(&fs->settings, conn);
    fs->has_access_lists = (conn->want & FUSE_CAP_POSIX_ACL) != 0;
#ifdef DEVICE_LIBFUSE_NEGOTIATES
    fs->told_to_kill_suid = (conn->want & FUSE_CAP_HANDLE_KILLPRIV_V2) != 0;
    fs->long_setxattr = (conn->want & FUSE_CAP_SETXATTR_EXT) != 0;
#endif
    if (fs->settings.writeback && !(conn->want & FUSE_CAP_WRITEBACK_CACHE)) {
        log_warning("fuse.no_writeback", "the kernel has no write-back cache for FUSE");
        fs->settings.writeback = false;
    }
    fs->kernel_opens_directories = (conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
    struct log_event e;
    log_begin(&e, LOG_LEVEL_INFO, "fuse.connected");
    log_u64(&e, "protocol_major", conn->proto_major);
    log_u64(&e, "protocol_minor", conn->proto_minor);
    log_u64(&e, "max_write_bytes", conn->max_write);
    log_bool(&e, "writeback", fs->settings.writeback);
    log_end(&e);
}

// flush, access, getlk, setlk, flock and copy_file_range are left out on purpose: the kernel asks
// for them once and does the work itself from then on. Files without names (O_TMPFILE) come as
// `create`; see device.h.
const struct fuse_lowlevel_ops fs_operations = {
    .init = init,
    .lookup = fs_lookup,
    .forget = fs_forget,
    .forget_multi = fs_forget_multi,
    .getattr = fs_getattr,
    .setattr = fs_setattr,
    .readlink = fs_readlink,
    .mknod = fs_mknod,
    .mkdir = fs_mkdir,
    .unlink = fs_unlink,
    .rmdir = fs_rmdir,
    .symlink = fs_symlink,
    .rename = fs_rename,
    .link = fs_link,
    .open = fs_open,
    .read = fs_read,
    .write = fs_write,
    .release = fs_release,
    .fsync = fs_fsync,
    .opendir = fs_opendir,
    .readdir = fs_readdir,
    .releasedir = fs_releasedir,
    .fsyncdir = fs_fsync,
    .statfs = fs_statfs,
    .setxattr = fs_setxattr,
    .getxattr = fs_getxattr,
    .listxattr = fs_listxattr,
    .removexattr = fs_removexattr,
    .create = fs_create,
    .ioctl = fs_ioctl,
    .fallocate = fs_fallocate,
    .readdirplus = fs_readdirplus,
    .lseek = fs_lseek,
};

void
fs_init(struct fs *fs, const struct fs_settings *settings, struct volume *volume,
    struct kernel_cache *kernel_cache)
{
    memset(fs, 0, sizeof(*fs));
    fs->settings = *settings;
    fs->volume = volume;
    tickets_init(&fs->tickets);
    fs->kernel_cache = kernel_cache;
    fs->seeker = memory_alloc_zero(sizeof(*fs->seeker));
    seeker_init(fs->seeker, volume, kernel_cache);
    cold_pool_init(&fs->cold, &cold_requests_ops, COLD_THREADS_MAX, settings->read_deadline_ms);
    cold_pool_init(&fs->scans, &cold_requests_ops, SCAN_THREADS_MAX, settings->read_deadline_ms);
    fetch_table_init(&fs->fetches, volume, kernel_cache);
    snapshot_tree_init(&fs->snapshots, volume);
    cold_pool_init(
        &fs->snapshot_pool, &snapshot_ops_pool, SNAPSHOT_THREADS_MAX, settings->read_deadline_ms);
    fs->direct_writes = memory_alloc_zero(sizeof(*fs->direct_writes));
    direct_writes_init(fs->direct_writes, kernel_cache);
    lock_init(&fs->lock, "fs", LOCK_RANK_FUSE);
    condition_init(&fs->idle);
}

void
fs_destroy(struct fs *fs)
{
    condition_destroy(&fs->idle);
    lock_destroy(&fs->lock);
    fetch_table_destroy(&fs->fetches);
    cold_pool_destroy(&fs->scans);
    cold_pool_destroy(&fs->cold);
    cold_pool_destroy(&fs->snapshot_pool);
    snapshot_tree_destroy(&fs->snapshots);
    seeker_destroy(fs->seeker);
    free(fs->seeker);
    direct_writes_destroy(fs->direct_writes);
    free(fs->direct_writes);
    tickets_destroy(&fs->tickets);
}

void
fs_drain(struct fs *fs)
{
    fuse_req_t req;
    seeker_stop(fs->seeker);
    fetch_table_stop(&fs->fetches);
    cold_pool_stop(&fs->cold);
    cold_pool_stop(&fs->scans);
    cold_pool_stop(&fs->snapshot_pool);
    direct_writes_stop(fs->direct_writes);
    // The checkpoints themselves go on; volume_close waits for them.
    while ((req = ticket_take_any_request(&fs->tickets))) {
        fuse_reply_err(req, ENOTCONN);
        fs_end_deferred(fs);
    }
    lock_take(&fs->lock);
    while (fs->deferred > 0)
        condition_wait(&fs->idle, &fs->lock);
    lock_release(&fs->lock);
    fetch_table_clear(&fs->fetches);
    snapshot_tree_stop(&fs->snapshots);
}
