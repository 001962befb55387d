// SPDX-License-Identifier: Apache-2.0
// Operations below "shared", where the threads meet: in stripes, records and names of their own.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/model/model_execute.h"

#define SHARED_FILES 3
#define SHARED_BYTES (2 << 20)
#define STRIPE       1500 // not a divisor of a page: threads share pages

static int
open_shared(const struct side *side, int64_t file, int flags)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/shared/f%d", side->directory, (int)(file % SHARED_FILES));
    return open(path, flags | O_CLOEXEC);
}

// The thread's bytes at its own offset `at`: their place in the file, and how many follow there.
static size_t
stripe(int thread, int64_t at, int64_t left, off_t *offset_out)
{
    int64_t inside = at % STRIPE;
    *offset_out = (at / STRIPE * THREADS_MAX + thread) * STRIPE + inside;
    return (size_t)(left < STRIPE - inside ? left : STRIPE - inside);
}

static int64_t
do_stripes(struct side *side, const struct item *item, struct result *r)
{
    bool write = item->kind == OP_SWRITE;
    uint8_t *bytes = side->buffers[item->thread];
    int64_t length = item->a[2] % IO_BYTES_MAX, result = 0;
    int fd = open_shared(side, item->a[0], write ? O_RDWR : O_RDONLY);
    if (fd < 0)
        return -errno;
    fill_bytes(bytes, (size_t)length, write ? (uint64_t)item->a[3] : 0);
    for (int64_t done = 0; done < length && result >= 0;) {
        off_t offset;
        size_t n = stripe(item->thread, item->a[1] + done, length - done, &offset);
        if (write)
            result = write_fully(fd, bytes + done, n, offset);
        else
            result = negative_errno(pread(fd, bytes + done, n, offset));
        done += (int64_t)n;
    }
    if (!write)
        r->hash = hash_bytes(1, bytes, (size_t)length);
    close(fd);
    return result < 0 ? result : length;
}

static int64_t
do_append(struct side *side, const struct item *item)
{
    char path[PATH_MAX], record[SHARED_RECORD_BYTES + 1];
    snprintf(path, sizeof(path), "%s/shared/log", side->directory);
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (int64_t i = 0; i < item->a[0]; i++) {
        uint64_t n = side->appended[item->thread]++;
        int used =
            snprintf(record, sizeof(record), "t%d %08llu ", item->thread, (unsigned long long)n);
        memset(record + used, 'a' + (int)(n % 26), sizeof(record) - 2 - (size_t)used);
        record[SHARED_RECORD_BYTES - 1] = '\n';
        ssize_t written = write(fd, record, SHARED_RECORD_BYTES);
        if (written != SHARED_RECORD_BYTES) {
            int error = written < 0 ? errno : EPROTO;
            close(fd);
            return -error;
        }
    }
    close(fd);
    return item->a[0];
}

static void
shared_name(const struct side *side, int thread, int64_t name, char *out)
{
    snprintf(
        out, PATH_MAX, "%s/shared/d%d/x%d-%d", side->directory, (int)(name % 2), thread, (int)name);
}

static int64_t
do_name(struct side *side, const struct item *item)
{
    char a[PATH_MAX], b[PATH_MAX];
    int fd;
    shared_name(side, item->thread, item->a[1], a);
    shared_name(side, item->thread, item->a[2], b);
    switch (item->a[0]) {
    case 0:
        fd = open(a, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
        if (fd < 0)
            return -errno;
        close(fd);
        return 0;
    case 1:
        return negative_errno(unlink(a));
    case 2:
        return negative_errno(rename(a, b));
    case 3:
        return negative_errno(link(a, b));
    default:
        return negative_errno(mkdir(a, 0750));
    }
}

static int64_t
do_readdir(struct side *side, const struct item *item, struct result *r)
{
    char path[PATH_MAX], prefix[32];
    snprintf(path, sizeof(path), "%s/shared/d%d", side->directory, (int)(item->a[0] % 2));
    snprintf(prefix, sizeof(prefix), "x%d-", item->thread);
    return list_names(path, prefix, r);
}

// A checkpoint while other threads are at work. What it answers is seen by the events.
static int64_t
do_checkpoint(struct side *side)
{
    extern char **environ;
    char *arguments[] = {(char *)"ckptctl", (char *)"checkpoint", (char *)side->directory, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    if (!side->is_mount || !side->ckptctl)
        return 0;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    int rc = posix_spawn(&pid, side->ckptctl, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    int status = 0;
    if (rc == 0)
        waitpid(pid, &status, 0);
    return 0;
}

int64_t
execute_shared(struct side *side, const struct item *item, struct result *r)
{
    switch (item->kind) {
    case OP_SWRITE:
    case OP_SREAD:
        return do_stripes(side, item, r);
    case OP_SAPPEND:
        return do_append(side, item);
    case OP_SNAME:
        return do_name(side, item);
    case OP_SREADDIR:
        return do_readdir(side, item, r);
    default:
        return do_checkpoint(side);
    }
}

static int
make_file(const char *directory, const char *name, off_t size)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    int rc = ftruncate(fd, size) == 0 ? 0 : -errno;
    close(fd);
    return rc;
}

int
side_prepare(struct side *side, int threads)
{
    static const char *const shared[] = {"shared", "shared/d0", "shared/d1"};
    static const char *const own[] = {"", "/a0", "/a1", "/a0/b0", "/a1/b0"};
    char path[PATH_MAX];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", side->directory, shared[i]);
        if (mkdir(path, 0755) != 0)
            return -errno;
    }
    for (int t = 0; t < threads; t++)
        for (size_t i = 0; i < 5; i++) {
            snprintf(path, sizeof(path), "%s/t%d%s", side->directory, t, own[i]);
            if (mkdir(path, 0755) != 0)
                return -errno;
        }
    int rc = make_file(side->directory, "shared/log", 0);
    for (int i = 0; i < SHARED_FILES && rc == 0; i++) {
        snprintf(path, sizeof(path), "shared/f%d", i);
        rc = make_file(side->directory, path, SHARED_BYTES);
    }
    return rc;
}
