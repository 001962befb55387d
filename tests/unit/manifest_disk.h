// SPDX-License-Identifier: Apache-2.0
// A disk below the manifest's data file that fails flushes and writes of meta pages, and that can
// lose power. What is written is in the kernel's cache; a flush that works brings it to the disk; a
// flush that fails makes the cache forget that it is not there, so that no later flush brings it
// either, unless it is written again. For one test program: LMDB calls these functions instead of
// the C library's.
#ifndef CKPTFS_TESTS_MANIFEST_DISK_H
#define CKPTFS_TESTS_MANIFEST_DISK_H

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/hash_table.h"

#define DISK_PAGE  4096u
#define DISK_PAGES 4096u

enum { DISK_ALWAYS = 1 << 30 };

static struct {
    pthread_mutex_t mutex;
    int flush_failures; // so many flushes to come fail
    int meta_failures;  // so many writes of the meta page
    bool meta_arrives;  // they fail, and the page is on the disk nevertheless
    int error;
    unsigned failed; // how many did
    bool track;
    uint64_t random;
    uint8_t *durable;
    bool dirty[DISK_PAGES];
    uint8_t *lost; // what the disk has after a loss of power
    uint64_t lost_size;
} disk = {.mutex = PTHREAD_MUTEX_INITIALIZER, .error = EIO};

static inline bool
disk_is_manifest(int fd)
{
    static const char name[] = "/manifest/data.mdb";
    char link[64];
    char path[512];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof(path));
    size_t length = sizeof(name) - 1;
    return n > (ssize_t)length && memcmp(path + n - length, name, length) == 0;
}

static inline uint64_t
disk_chance(uint64_t below)
{
    return hash_u64(disk.random++) % below;
}

static inline void
disk_load(int fd, uint8_t *to, size_t page)
{
    // LMDB's descriptor for meta pages cannot be read.
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    int readable = open(link, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(
        pread(readable, to + page * DISK_PAGE, DISK_PAGE, (off_t)(page * DISK_PAGE)), 0);
    close(readable);
}

// The power goes now and then, at any write: the disk has what was flushed, and any of the rest.
static inline void
disk_maybe_lose_power(int fd)
{
    if (disk.lost || disk_chance(6) != 0)
        return;
    disk.lost = calloc(DISK_PAGES, DISK_PAGE);
    memcpy(disk.lost, disk.durable, (size_t)DISK_PAGES * DISK_PAGE);
    uint64_t keep = disk_chance(5);
    for (size_t i = 0; i < DISK_PAGES; i++)
        if (disk.dirty[i] && disk_chance(4) < keep)
            disk_load(fd, disk.lost, i);
    disk.lost_size = (uint64_t)lseek(fd, 0, SEEK_END);
}

static inline void
disk_written(int fd, uint64_t offset, uint64_t n)
{
    if (!disk.track || n == 0)
        return;
    ck_assert_uint_le(offset + n, (uint64_t)DISK_PAGES * DISK_PAGE);
    for (uint64_t i = offset / DISK_PAGE; i * DISK_PAGE < offset + n; i++)
        disk.dirty[i] = true;
    disk_maybe_lose_power(fd);
}

// All dirty pages reach the disk or are forgotten.
static inline void
disk_flush(int fd, size_t from, size_t to, bool works)
{
    for (size_t i = from; disk.track && i < to; i++) {
        if (disk.dirty[i] && works)
            disk_load(fd, disk.durable, i);
        disk.dirty[i] = false;
    }
}

static inline bool
disk_fails(int *failures)
{
    if (*failures == 0)
        return false;
    *failures -= *failures < DISK_ALWAYS;
    disk.failed++;
    errno = disk.error;
    return true;
}

int
fdatasync(int fd)
{
    if (!disk_is_manifest(fd))
        return (int)syscall(SYS_fdatasync, fd);
    pthread_mutex_lock(&disk.mutex);
    int rc = disk_fails(&disk.flush_failures) ? -1 : 0;
    int error = errno;
    disk_flush(fd, 0, DISK_PAGES, rc == 0);
    pthread_mutex_unlock(&disk.mutex);
    errno = error;
    return rc;
}

ssize_t
pwrite(int fd, const void *p, size_t n, off_t offset)
{
    if (!disk_is_manifest(fd))
        return syscall(SYS_pwrite64, fd, p, n, offset);
    pthread_mutex_lock(&disk.mutex);
    ssize_t put = syscall(SYS_pwrite64, fd, p, n, offset);
    disk_written(fd, (uint64_t)offset, (uint64_t)n);
    if (fcntl(fd, F_GETFL) & O_DSYNC) {
        size_t page = (size_t)offset / DISK_PAGE;
        bool fails = disk_fails(&disk.meta_failures);
        disk_flush(fd, page, page + 1, !fails || disk.meta_arrives);
        put = fails ? -1 : put;
    }
    int error = disk.error;
    pthread_mutex_unlock(&disk.mutex);
    errno = error;
    return put;
}

ssize_t
writev(int fd, const struct iovec *iov, int count)
{
    if (!disk_is_manifest(fd))
        return syscall(SYS_writev, fd, iov, count);
    pthread_mutex_lock(&disk.mutex);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t put = syscall(SYS_writev, fd, iov, count);
    off_t end = offset + (put > 0 ? put : 0);
    disk_written(fd, (uint64_t)offset, (uint64_t)(end - offset));
    pthread_mutex_unlock(&disk.mutex);
    return put;
}

ssize_t
pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    if (!disk_is_manifest(fd))
        return syscall(SYS_pwritev2, fd, iov, count, offset, 0L, flags);
    ck_assert_int_eq(count, 1);
    return pwrite(fd, iov->iov_base, iov->iov_len, offset);
}

static inline void
disk_fail(int flushes, int metas, bool arrives, int error)
{
    pthread_mutex_lock(&disk.mutex);
    disk.flush_failures = flushes;
    disk.meta_failures = metas;
    disk.meta_arrives = arrives;
    disk.error = error;
    disk.failed = 0;
    pthread_mutex_unlock(&disk.mutex);
}

static inline unsigned
disk_failed(void)
{
    pthread_mutex_lock(&disk.mutex);
    unsigned failed = disk.failed;
    pthread_mutex_unlock(&disk.mutex);
    return failed;
}

#endif
