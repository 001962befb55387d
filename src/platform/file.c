// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "platform/file.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/types.h"
#include "platform/flush_pace.h"
#include "platform/path.h"
#include "platform/random.h"

static ssize_t
system_pread(int fd, void *p, size_t n, off_t offset)
{
    ssize_t got = pread(fd, p, n, offset);
    return got < 0 ? -errno : got;
}

static ssize_t
system_preadv(int fd, const struct iovec *iov, int count, off_t offset, bool cached)
{
    ssize_t got = preadv2(fd, iov, count, offset, cached ? RWF_NOWAIT : 0);
    return got < 0 ? -errno : got;
}

static ssize_t
system_pwritev(int fd, const struct iovec *iov, int count, off_t offset, bool durable)
{
    ssize_t put = pwritev2(fd, iov, count, offset, durable ? RWF_DSYNC : 0);
    return put < 0 ? -errno : put;
}

static int
system_fdatasync(int fd)
{
    flush_pace_wait();
    return fdatasync(fd) < 0 ? -errno : 0;
}

static int
system_fsync(int fd)
{
    flush_pace_wait();
    return fsync(fd) < 0 ? -errno : 0;
}

static int
system_fallocate(int fd, off_t offset, off_t length)
{
    return fallocate(fd, 0, offset, length) < 0 ? -errno : 0;
}

static int
system_sync_range(int fd, off_t offset, off_t length, unsigned flags)
{
    return sync_file_range(fd, offset, length, flags) < 0 ? -errno : 0;
}

const struct file_ops file_ops_system = {
    .open = path_open,
    .pread = system_pread,
    .preadv = system_preadv,
    .pwritev = system_pwritev,
    .fdatasync = system_fdatasync,
    .fsync = system_fsync,
    .fallocate = system_fallocate,
    .sync_range = system_sync_range,
    .rename = path_rename,
    .unlink = path_unlink,
    .link = path_link,
};

bool
file_error_is_shortage(int error)
{
    switch (-error) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
        return true;
    default:
        return false;
    }
}

int
file_open(const struct file_ops *ops, const char *path, int flags, mode_t mode)
{
    int fd;
    do {
        fd = ops->open(path, flags, mode);
    } while (fd == -EINTR);
    return fd;
}

void
file_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

void
file_close_auto(int *fd)
{
    file_close(*fd);
}

ssize_t
file_read_at(const struct file_ops *ops, int fd, void *p, size_t n, uint64_t offset)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = ops->pread(fd, (char *)p + done, n - done, (off_t)(offset + done));
        if (got == -EINTR)
            continue;
        if (got < 0)
            return got;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

size_t
file_readv_cached_at(
    const struct file_ops *ops, int fd, const struct iovec *iov, int count, uint64_t offset)
{
    ssize_t got = ops->preadv ? ops->preadv(fd, iov, count, (off_t)offset, true) : 0;
    return got > 0 ? (size_t)got : 0;
}

int
file_read_exact_at(const struct file_ops *ops, int fd, void *p, size_t n, uint64_t offset)
{
    ssize_t got = file_read_at(ops, fd, p, n, offset);
    if (got < 0)
        return (int)got;
    return (size_t)got == n ? 0 : -ENODATA;
}

int
file_readv_exact_at(const struct file_ops *ops, int fd, const struct iovec *iov, int count,
    uint64_t offset, size_t had)
{
    int first = 0;
    size_t before = 0; // bytes of the pieces before that one
    while (first < count && had >= before + iov[first].iov_len)
        before += iov[first++].iov_len;
    if (first < count && ops->preadv) {
        ssize_t got = ops->preadv(fd, iov + first, count - first, (off_t)(offset + before), false);
        if (got > 0)
            had = before + (size_t)got;
    }
    // What a short or failed call left.
    int rc = 0;
    for (int i = 0; rc == 0 && i < count; i++) {
        size_t n = iov[i].iov_len;
        size_t skip = had < n ? had : n;
        if (skip < n)
            rc = file_read_exact_at(
                ops, fd, (uint8_t *)iov[i].iov_base + skip, n - skip, offset + skip);
        had -= skip;
        offset += n;
    }
    return rc;
}

static int
write_vector(
    const struct file_ops *ops, int fd, struct iovec *iov, int count, uint64_t offset, bool durable)
{
    while (count > 0) {
        int batch = count < IOV_MAX ? count : IOV_MAX;
        ssize_t put = ops->pwritev(fd, iov, batch, (off_t)offset, durable);
        if (put == -EINTR)
            continue;
        if (put < 0)
            return (int)put;
        if (put == 0)
            return -EIO;
        offset += (uint64_t)put;
        size_t left = (size_t)put;
        while (count > 0 && left >= iov->iov_len) {
            left -= iov->iov_len;
            iov++;
            count--;
        }
        if (left > 0) {
            iov->iov_base = (char *)iov->iov_base + left;
            iov->iov_len -= left;
        }
    }
    return 0;
}

int
file_write_at(const struct file_ops *ops, int fd, const void *p, size_t n, uint64_t offset)
{
    struct iovec iov = {(void *)p, n};
    return write_vector(ops, fd, &iov, n > 0, offset, false);
}

int
file_write_durable_at(const struct file_ops *ops, int fd, const void *p, size_t n, uint64_t offset)
{
    struct iovec iov = {(void *)p, n};
    return write_vector(ops, fd, &iov, n > 0, offset, true);
}

int
file_writev_at(
    const struct file_ops *ops, int fd, struct iovec *iov, int count, uint64_t offset, bool durable)
{
    return write_vector(ops, fd, iov, count, offset, durable);
}

int
file_size(int fd, uint64_t *size_out)
{
    struct stat st;
    *size_out = 0;
    if (fstat(fd, &st) < 0)
        return -errno;
    *size_out = (uint64_t)st.st_size;
    return 0;
}

int
file_set_direct(int fd, bool direct)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    flags = direct ? flags | O_DIRECT : flags & ~O_DIRECT;
    return fcntl(fd, F_SETFL, flags) < 0 ? -errno : 0;
}

int
file_punch_at(int fd, uint64_t offset, uint64_t n)
{
    int rc;
    do
        rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)n);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : 0;
}

static int
sync_range(const struct file_ops *ops, int fd, uint64_t offset, uint64_t n, unsigned flags)
{
    int rc = 0;
    while (n > 0 && (rc = ops->sync_range(fd, (off_t)offset, (off_t)n, flags)) == -EINTR)
        ;
    // Only a hint, and fsync does without it.
    return rc == -ENOSYS || rc == -ESPIPE ? 0 : rc;
}

int
file_start_writing(const struct file_ops *ops, int fd, uint64_t offset, uint64_t n)
{
    return sync_range(ops, fd, offset, n, SYNC_FILE_RANGE_WRITE);
}

int
file_wait_written(const struct file_ops *ops, int fd, uint64_t offset, uint64_t n)
{
    return sync_range(ops, fd, offset, n, SYNC_FILE_RANGE_WAIT_BEFORE);
}

int
file_write_direct_at(
    const struct file_ops *ops, int fd, const void *p, size_t n, uint64_t offset, bool *direct)
{
    if (*direct && n % FILE_DIRECT_ALIGNMENT == 0) {
        int rc = file_write_at(ops, fd, p, n, offset);
        if (rc != -EINVAL)
            return rc;
    }
    int rc = *direct ? file_set_direct(fd, false) : 0;
    *direct = false;
    if (rc == 0)
        rc = file_write_at(ops, fd, p, n, offset);
    return rc < 0 ? rc : file_start_writing(ops, fd, offset, n);
}

int
file_sync_directory(const struct file_ops *ops, const char *path)
{
    CLEANUP(file_close_auto) int fd = file_open(ops, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    return ops->fsync(fd);
}

void
path_directory(const char *path, struct buffer *out)
{
    buffer_clear(out);
    const char *slash = strrchr(path, '/');
    if (!slash)
        buffer_append_string(out, ".");
    else if (slash == path)
        buffer_append_string(out, "/");
    else
        buffer_append(out, path, (size_t)(slash - path));
    buffer_string(out);
}

int
path_make_directory(const char *path, mode_t mode)
{
    struct stat st;
    int rc = path_mkdir(path, mode);
    if (rc == 0)
        return 1;
    if (rc != -EEXIST)
        return rc;
    rc = path_stat(path, &st);
    return rc < 0 || S_ISDIR(st.st_mode) ? rc : -ENOTDIR;
}

static int
make_durable_directory(const char *path, mode_t mode)
{
    BUFFER_AUTO parent = {0};
    int rc = path_make_directory(path, mode);
    if (rc <= 0)
        return rc;
    path_directory(path, &parent);
    return file_sync_directory(&file_ops_system, buffer_string(&parent));
}

int
path_make_directories(const char *path, mode_t mode)
{
    char prefix[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof(prefix))
        return n == 0 ? -ENOENT : -ENAMETOOLONG;
    // A held directory is there.
    for (size_t i = path_held_length(path) + 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        memcpy(prefix, path, i);
        prefix[i] = 0;
        int rc = make_durable_directory(prefix, mode);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int
open_to_read(const char *path)
{
    if (path_held_length(path) > 0)
        return path_open(path, O_RDONLY, 0);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int
file_read_whole(const char *path, size_t limit, struct buffer *out)
{
    buffer_clear(out);
    CLEANUP(file_close_auto) int fd = open_to_read(path);
    if (fd < 0)
        return fd;
    for (uint64_t offset = 0;;) {
        uint8_t *p = buffer_reserve(out, 4096);
        ssize_t got = read(fd, p, 4096);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return 0;
        out->length += (size_t)got;
        offset += (uint64_t)got;
        if (offset > limit)
            return -EFBIG;
    }
}

int
file_replace_whole(
    const struct file_ops *ops, const char *path, const void *p, size_t n, mode_t mode)
{
    BUFFER_AUTO temporary = {0};
    BUFFER_AUTO directory = {0};
    char id[37];
    struct uuid uuid = random_uuid();
    uuid_to_string(&uuid, id);
    // Another process may be writing the same file.
    buffer_printf(&temporary, "%s.%s.tmp", path, id);
    path_directory(path, &directory);
    int fd = file_open(ops, buffer_string(&temporary), O_WRONLY | O_CREAT | O_EXCL, mode);
    if (fd < 0)
        return fd;
    int rc = file_write_at(ops, fd, p, n, 0);
    if (rc == 0)
        rc = ops->fsync(fd);
    file_close(fd);
    if (rc == 0)
        rc = ops->rename(buffer_string(&temporary), path);
    if (rc == 0)
        return file_sync_directory(ops, buffer_string(&directory));
    ops->unlink(buffer_string(&temporary));
    return rc;
}
