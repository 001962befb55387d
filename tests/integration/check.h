// SPDX-License-Identifier: Apache-2.0
// What the programs that try out a file system share: checks that report and go on, in groups that
// are run by name, and actions of other users.
#ifndef CKPTFS_TESTS_CHECK_H
#define CKPTFS_TESTS_CHECK_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *current;
static int failures;

static inline void __attribute__((format(printf, 3, 4)))
expect(bool holds, int line, const char *format, ...)
{
    if (holds)
        return;
    int error = errno;
    va_list args;
    va_start(args, format);
    printf("not ok: %s (line %d): ", current, line);
    vprintf(format, args);
    va_end(args);
    printf(" [errno %d: %s]\n", error, strerror(error));
    fflush(stdout);
    failures++;
}

#define CHECK(condition) expect((condition), __LINE__, "%s", #condition)
// The call must fail with this errno.
#define REFUSED(call, error)                                                                       \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long result_ = (long)(call);                                                               \
        expect(result_ == -1 && errno == (error), __LINE__, "%s: %ld, expected " #error, #call,    \
            result_);                                                                              \
    } while (0)

static inline struct stat
stat_at(const char *path, int line)
{
    struct stat st = {0};
    expect(lstat(path, &st) == 0, line, "lstat %s", path);
    return st;
}
#define stat_of(path) stat_at((path), __LINE__)

static inline void
make_file(const char *path, const char *content)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    expect(fd >= 0, __LINE__, "make %s", path);
    CHECK(write(fd, content, strlen(content)) == (ssize_t)strlen(content));
    CHECK(close(fd) == 0);
}

static inline bool
has_content(const char *path, const char *content)
{
    char text[256] = "";
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    return n == (ssize_t)strlen(content) && memcmp(text, content, (size_t)n) == 0;
}

struct check_group {
    const char *name;
    void (*run)(void);
};

// Runs all groups in the present directory; the exit status.
static inline int
run_groups(const struct check_group *groups, size_t count)
{
    umask(022);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < count; i++) {
        int before = failures;
        current = groups[i].name;
        groups[i].run();
        if (failures == before)
            printf("ok: %s\n", current);
    }
    return failures ? 1 : 0;
}

#endif
