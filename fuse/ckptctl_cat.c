// SPDX-License-Identifier: Apache-2.0
// ckptctl cat --cold: reads a file past all caches. Threads read blocks of it ahead, so that
// several requests to the store are under way; the main thread writes the blocks in order.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse/ckptctl.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/lock.h"
#include "platform/thread.h"

#define CAT_THREADS 4u
#define CAT_BLOCK   (1u << 20) // one request of the kernel
#define PROGRESS_MS 500u

struct cat;

// Reads each CAT_THREADS-th block.
struct cat_reader {
    struct cat *cat;
    struct thread thread;
    uint64_t block;
    void *bytes;
    size_t length; // of the block that waits for being written; less than CAT_BLOCK at the end
    int error;
    bool full;
    bool started;
};

struct cat {
    int fd;
    uint64_t size;    // when it was opened, for the progress
    struct lock lock; // "cat": protects all below, and `full` of the readers
    struct condition changed;
    bool stopping;
    struct cat_reader readers[CAT_THREADS];
};

// ---- reading ------------------------------------------------------------------------------------

static void
read_block(struct cat_reader *r)
{
    r->length = 0;
    r->error = 0;
    while (r->length < CAT_BLOCK) {
        ssize_t n = pread(r->cat->fd, (char *)r->bytes + r->length, CAT_BLOCK - r->length,
            (off_t)(r->block * CAT_BLOCK + r->length));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            r->error = -errno;
        if (n <= 0)
            return;
        r->length += (size_t)n;
    }
}

static void
run_reader(void *argument)
{
    struct cat_reader *r = argument;
    struct cat *c = r->cat;
    for (bool more = true; more;) {
        read_block(r);
        lock_take(&c->lock);
        r->full = true;
        condition_broadcast(&c->changed);
        while (r->full && !c->stopping)
            condition_wait(&c->changed, &c->lock);
        more = !c->stopping;
        lock_release(&c->lock);
        r->block += CAT_THREADS;
    }
}

static int
start_readers(struct cat *c)
{
    for (unsigned i = 0; i < CAT_THREADS; i++) {
        struct cat_reader *r = &c->readers[i];
        r->cat = c;
        r->block = i;
        if (posix_memalign(&r->bytes, 4096, CAT_BLOCK) != 0)
            return -ENOMEM;
        int rc = thread_start(&r->thread, "cat", run_reader, r);
        if (rc < 0)
            return rc;
        r->started = true;
    }
    return 0;
}

static void
stop_readers(struct cat *c)
{
    lock_take(&c->lock);
    c->stopping = true;
    condition_broadcast(&c->changed);
    lock_release(&c->lock);
    for (unsigned i = 0; i < CAT_THREADS; i++) {
        if (c->readers[i].started)
            thread_join(&c->readers[i].thread);
        free(c->readers[i].bytes);
    }
}

// ---- writing ------------------------------------------------------------------------------------

static int
write_all(const char *p, size_t n)
{
    while (n > 0) {
        ssize_t written = write(STDOUT_FILENO, p, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        p += written;
        n -= (size_t)written;
    }
    return 0;
}

static void
show_progress(uint64_t done, uint64_t size)
{
    char done_text[32], size_text[32];
    BUFFER_AUTO line = {0};
    print_size(done, done_text);
    print_size(size, size_text);
    buffer_printf(&line, "%s of %s", done_text, size_text);
    print_progress(&line);
}

// The exit status.
static int
copy_out(struct cat *c, const char *path, bool progress)
{
    uint64_t shown_ms = clock_monotonic_ms();
    for (uint64_t block = 0;; block++) {
        struct cat_reader *r = &c->readers[block % CAT_THREADS];
        lock_take(&c->lock);
        while (!r->full)
            condition_wait(&c->changed, &c->lock);
        lock_release(&c->lock);
        int rc = write_all(r->bytes, r->length);
        if (rc < 0) {
            print_error("standard output: %s", strerror(-rc));
            return EXIT_STATUS_ERROR;
        }
        if (r->error != 0)
            return control_failed("read", path, r->error);
        if (r->length < CAT_BLOCK)
            return EXIT_SUCCESS;
        lock_take(&c->lock);
        r->full = false;
        condition_broadcast(&c->changed);
        lock_release(&c->lock);
        if (progress && clock_monotonic_ms() >= shown_ms + PROGRESS_MS) {
            shown_ms = clock_monotonic_ms();
            show_progress((block + 1) * CAT_BLOCK, c->size);
        }
    }
}

// ---- the command --------------------------------------------------------------------------------

// O_DIRECT keeps the kernel's cache out of it.
static int
open_cold(const char *path, struct cat *c)
{
    struct ckptfs_fetch io = {
        .version = CKPTFS_ABI_VERSION, .flags = CKPTFS_FETCH_SET | CKPTFS_FETCH_BYPASS_CACHE};
    struct stat st;
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0) {
        int rc = -errno;
        file_close(fd);
        return rc;
    }
    c->fd = fd;
    c->size = (uint64_t)st.st_size;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    return ioctl(fd, CKPTFS_IOC_FETCH, &io) < 0 ? -errno : 0;
}

int
cat_file(const char *path, bool quiet)
{
    struct cat c = {.fd = -1};
    bool progress = !quiet && isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO);
    int rc = open_cold(path, &c);
    if (rc < 0) {
        file_close(c.fd);
        if (rc == -EOPNOTSUPP)
            print_error("cat %s: cold scans are turned off: ckptctl flags", path);
        else
            (void)control_failed("cat", path, rc);
        return EXIT_STATUS_ERROR;
    }
    lock_init(&c.lock, "cat", LOCK_RANK_FUSE);
    condition_init(&c.changed);
    rc = start_readers(&c);
    int status = rc < 0 ? control_failed("cat", path, rc) : copy_out(&c, path, progress);
    stop_readers(&c);
    if (progress)
        fputs("\r\033[K", stderr);
    condition_destroy(&c.changed);
    lock_destroy(&c.lock);
    file_close(c.fd);
    return status;
}
