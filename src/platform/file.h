// SPDX-License-Identifier: Apache-2.0
// Files: every system call on them that decides about durability goes through `struct file_ops`, so
// that a test can put its own table there and fail or tear any step. All functions return 0 or a
// byte count, or a negative errno; they handle short transfers and EINTR. Any thread.
#ifndef CKPTFS_PLATFORM_FILE_H
#define CKPTFS_PLATFORM_FILE_H

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/buffer.h"
#include "base/compiler.h"

// The calls a test may replace. Each behaves as the system call of its name but returns -errno.
struct file_ops {
    int (*open)(const char *path, int flags, mode_t mode);
    ssize_t (*pread)(int fd, void *p, size_t n, off_t offset);
    // preadv2; `cached` is RWF_NOWAIT: bytes that need no wait for the disk; -EAGAIN: none. NULL:
    // pread is called instead.
    ssize_t (*preadv)(int fd, const struct iovec *iov, int count, off_t offset, bool cached);
    ssize_t (*pwritev)(int fd, const struct iovec *iov, int count, off_t offset, bool durable);
    int (*fdatasync)(int fd);
    int (*fsync)(int fd);
    int (*fallocate)(int fd, off_t offset, off_t length);
    int (*sync_range)(int fd, off_t offset, off_t length, unsigned flags); // sync_file_range
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*link)(const char *from, const char *to);
};

// The system's own. `open` follows no symbolic link in the last component. `pwritev` with `durable`
// is pwritev2(RWF_DSYNC).
extern const struct file_ops file_ops_system;

// Whether a call failed for want of descriptors or memory, which may be free again soon. That says
// nothing about the content of a file: no caller may take it for damage.
bool file_error_is_shortage(int error);

// Opens with O_CLOEXEC; returns the descriptor.
MUST_CHECK int file_open(const struct file_ops *ops, const char *path, int flags, mode_t mode);
void file_close(int fd);
// For CLEANUP(file_close_auto) int fd = -1;
void file_close_auto(int *fd);
// Reads until `n` bytes or the end of the file; returns the bytes read.
MUST_CHECK ssize_t file_read_at(
    const struct file_ops *ops, int fd, void *p, size_t n, uint64_t offset);
// Reads the first bytes, into several pieces of memory, as far as they need no wait for the disk;
// returns their number.
size_t file_readv_cached_at(
    const struct file_ops *ops, int fd, const struct iovec *iov, int count, uint64_t offset);
// Reads exactly `n` bytes; -ENODATA when the file ends before.
MUST_CHECK int file_read_exact_at(
    const struct file_ops *ops, int fd, void *p, size_t n, uint64_t offset);
// The same for several pieces of memory, of which the first `had` bytes are there already.
MUST_CHECK int file_readv_exact_at(const struct file_ops *ops, int fd, const struct iovec *iov,
    int count, uint64_t offset, size_t had);
MUST_CHECK int file_write_at(
    const struct file_ops *ops, int fd, const void *p, size_t n, uint64_t offset);
// The same, and on stable storage when it returns 0.
MUST_CHECK int file_write_durable_at(
    const struct file_ops *ops, int fd, const void *p, size_t n, uint64_t offset);
// Of several pieces of memory, durably or not. Changes `iov`.
MUST_CHECK int file_writev_at(const struct file_ops *ops, int fd, struct iovec *iov, int count,
    uint64_t offset, bool durable);
// Makes writes to an open file bypass the kernel's cache (O_DIRECT), or use it again. Memory,
// offset and length of direct writes must be multiples of FILE_DIRECT_ALIGNMENT. -errno from file
// systems that cannot; some fail (-EINVAL) only at a write. Durability still takes an fsync.
#define FILE_DIRECT_ALIGNMENT 4096u
MUST_CHECK int file_set_direct(int fd, bool direct);
// Writes, bypassing the cache while `*direct`. Clears `*direct` at the first piece that is not
// whole blocks, or when the file system refuses; from then on it only starts the write-back. `p`
// and `offset` must be aligned while `*direct`.
MUST_CHECK int file_write_direct_at(
    const struct file_ops *ops, int fd, const void *p, size_t n, uint64_t offset, bool *direct);
// Makes a hole of a range; the size stays. -EOPNOTSUPP: not on this file system.
MUST_CHECK int file_punch_at(int fd, uint64_t offset, uint64_t n);
MUST_CHECK int file_size(int fd, uint64_t *size_out);
// file_start_writing begins the write-back of dirty pages of the range; file_wait_written waits
// until pages under write-back are on the disk. Neither makes anything durable. The wait takes a
// write-back error away from a later fsync of this descriptor, so its caller must not ignore its
// result.
MUST_CHECK int file_start_writing(const struct file_ops *ops, int fd, uint64_t offset, uint64_t n);
MUST_CHECK int file_wait_written(const struct file_ops *ops, int fd, uint64_t offset, uint64_t n);
// Makes the names in the directory `path` durable.
MUST_CHECK int file_sync_directory(const struct file_ops *ops, const char *path);
// The directory part of `path` ("." when there is none), in `out`.
void path_directory(const char *path, struct buffer *out);
// Makes one directory: 1 when it is new, its name not durable yet; 0 when it exists. A symbolic
// link is -ENOTDIR, wherever it leads.
MUST_CHECK int path_make_directory(const char *path, mode_t mode);
// mkdir -p; existing directories are fine, symbolic links are not (-ENOTDIR). Makes the names of
// new directories durable.
MUST_CHECK int path_make_directories(const char *path, mode_t mode);
// Whole small file into `out` (cleared first); -EFBIG above `limit`. Follows links, but not below a
// held directory.
MUST_CHECK int file_read_whole(const char *path, size_t limit, struct buffer *out);
// Writes a file so that after a crash there is the old one or the new one: a temporary name, fsync,
// rename, fsync of the directory. Several processes may do so at once: one of their files stays. A
// process that dies on the way leaves PATH.{uuid}.tmp.
MUST_CHECK int file_replace_whole(
    const struct file_ops *ops, const char *path, const void *p, size_t n, mode_t mode);

#endif
