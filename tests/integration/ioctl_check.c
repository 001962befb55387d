// SPDX-License-Identifier: Apache-2.0
// Checks the control ABI on a mount, as a program outside of the project would use it.
// Usage: ioctl_check owner|stranger|foreign PATH
//   owner     the caller may control the mount
//   stranger  the caller may not
//   foreign   PATH is not on a ckptfs
//   storm     several processes ask for checkpoints and are interrupted at any moment
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/ckptfs_ioctl.h"

static int failures;

static void
check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "ioctl_check: failed: %s (errno %d, %s)\n", what, errno, strerror(errno));
    failures++;
}

// Whether the call fails with `expected`.
static bool
fails(int fd, unsigned long command, void *argument, int expected)
{
    errno = 0;
    return ioctl(fd, command, argument) < 0 && errno == expected;
}

static struct ckptfs_status
get_status(int fd)
{
    struct ckptfs_status s = {.version = CKPTFS_ABI_VERSION};
    check(ioctl(fd, CKPTFS_IOC_STATUS, &s) == 0, "status");
    return s;
}

static int
request(int fd, uint32_t flags, struct ckptfs_checkpoint *c)
{
    *c = (struct ckptfs_checkpoint){.version = CKPTFS_ABI_VERSION, .flags = flags};
    return ioctl(fd, CKPTFS_IOC_CHECKPOINT, c);
}

static bool
is_text(const char *text, size_t size)
{
    size_t n = strnlen(text, size);
    for (size_t i = n; i < size; i++)
        if (text[i] != '\0')
            return false;
    return n < size;
}

// ---- what is refused ----------------------------------------------------------------------------

static void
check_unknown_commands(int fd)
{
    char bytes[8192] = {0};
    check(fails(fd, _IO('K', 0x01), NULL, ENOTTY), "a checkpoint without its struct is ENOTTY");
    check(fails(fd, _IOWR('K', 0x01, char[56]), bytes, ENOTTY), "a shorter struct is ENOTTY");
    check(fails(fd, _IOWR('K', 0x01, char[72]), bytes, ENOTTY), "a longer struct is ENOTTY");
    check(fails(fd, _IOR('K', 0x01, struct ckptfs_checkpoint), bytes, ENOTTY),
        "another direction is ENOTTY");
    check(fails(fd, _IOWR('K', 0x03, struct ckptfs_checkpoint), bytes, ENOTTY),
        "an unknown number is ENOTTY");
    check(fails(fd, _IOWR('L', 0x01, struct ckptfs_checkpoint), bytes, ENOTTY),
        "an unknown type is ENOTTY");
    check(fails(fd, CKPTFS_IOC_STATUS, NULL, EFAULT), "no memory is EFAULT");
}

static void
check_bad_checkpoints(int fd)
{
    struct ckptfs_checkpoint c = {.version = 0};
    check(fails(fd, CKPTFS_IOC_CHECKPOINT, &c, EINVAL), "version 0 is EINVAL");
    c.version = CKPTFS_ABI_VERSION + 1;
    check(fails(fd, CKPTFS_IOC_CHECKPOINT, &c, EINVAL), "a newer version is EINVAL");
    for (unsigned bit = 2; bit < 32; bit++) {
        c = (struct ckptfs_checkpoint){.version = CKPTFS_ABI_VERSION, .flags = 1u << bit};
        check(fails(fd, CKPTFS_IOC_CHECKPOINT, &c, EINVAL), "an unknown flag is EINVAL");
    }
    for (size_t i = 0; i < sizeof(c.reserved); i++) {
        c = (struct ckptfs_checkpoint){.version = CKPTFS_ABI_VERSION};
        ((char *)c.reserved)[i] = 1;
        check(fails(fd, CKPTFS_IOC_CHECKPOINT, &c, EINVAL), "a reserved byte is EINVAL");
    }
}

static void
check_bad_status(int fd)
{
    struct ckptfs_status s = {.version = 2};
    check(fails(fd, CKPTFS_IOC_STATUS, &s, EINVAL), "status: a newer version is EINVAL");
    s = (struct ckptfs_status){.version = CKPTFS_ABI_VERSION, .reserved0 = 1};
    check(fails(fd, CKPTFS_IOC_STATUS, &s, EINVAL), "status: a reserved word is EINVAL");
    for (size_t i = 0; i < sizeof(s.reserved); i++) {
        s = (struct ckptfs_status){.version = CKPTFS_ABI_VERSION};
        ((char *)s.reserved)[i] = 1;
        check(fails(fd, CKPTFS_IOC_STATUS, &s, EINVAL), "status: a reserved byte is EINVAL");
    }
}

static void
check_lost(int fd)
{
    struct ckptfs_lost l = {.version = CKPTFS_ABI_VERSION};
    check(ioctl(fd, CKPTFS_IOC_LOST, &l) == 0 && l.ranges == 0 && l.count == 0, "nothing is lost");
    l = (struct ckptfs_lost){.version = CKPTFS_ABI_VERSION + 1};
    check(fails(fd, CKPTFS_IOC_LOST, &l, EINVAL), "lost: a newer version is EINVAL");
    l = (struct ckptfs_lost){.version = CKPTFS_ABI_VERSION};
    l.reserved[4] = 1;
    check(fails(fd, CKPTFS_IOC_LOST, &l, EINVAL), "lost: a reserved byte is EINVAL");
}

static void
check_manifest_check(int fd)
{
    struct ckptfs_check c = {.version = CKPTFS_ABI_VERSION};
    check(ioctl(fd, CKPTFS_IOC_CHECK, &c) == 0 && c.ticket > 1, "a check of the manifest");
    c = (struct ckptfs_check){.version = CKPTFS_ABI_VERSION + 1};
    check(fails(fd, CKPTFS_IOC_CHECK, &c, EINVAL), "check: a newer version is EINVAL");
    c = (struct ckptfs_check){.version = CKPTFS_ABI_VERSION, .flags = 1};
    check(fails(fd, CKPTFS_IOC_CHECK, &c, EINVAL), "check: a flag is EINVAL");
    for (size_t i = 0; i < sizeof(c.reserved); i++) {
        c = (struct ckptfs_check){.version = CKPTFS_ABI_VERSION};
        ((char *)c.reserved)[i] = 1;
        check(fails(fd, CKPTFS_IOC_CHECK, &c, EINVAL), "check: a reserved byte is EINVAL");
    }
}

static void
check_fuse_requests(int fd)
{
    struct ckptfs_fuse_requests r = {.version = CKPTFS_ABI_VERSION};
    check(ioctl(fd, CKPTFS_IOC_FUSE, &r) == 0, "requests by opcode");
    check(r.version == CKPTFS_ABI_VERSION && r.requests[FUSE_IOCTL] > 0, "ioctls are counted");
    uint64_t before = r.requests[FUSE_IOCTL];
    (void)get_status(fd);
    r = (struct ckptfs_fuse_requests){.version = CKPTFS_ABI_VERSION};
    check(ioctl(fd, CKPTFS_IOC_FUSE, &r) == 0, "requests by opcode once more");
    check(r.requests[FUSE_IOCTL] >= before + 2, "each ioctl is counted");
    r = (struct ckptfs_fuse_requests){.version = CKPTFS_ABI_VERSION + 1};
    check(fails(fd, CKPTFS_IOC_FUSE, &r, EINVAL), "requests: a newer version is EINVAL");
    r = (struct ckptfs_fuse_requests){.version = CKPTFS_ABI_VERSION, .reserved0 = 1};
    check(fails(fd, CKPTFS_IOC_FUSE, &r, EINVAL), "requests: a reserved word is EINVAL");
    for (size_t i = 0; i < sizeof(r.reserved); i++) {
        r = (struct ckptfs_fuse_requests){.version = CKPTFS_ABI_VERSION};
        ((char *)r.reserved)[i] = 1;
        check(fails(fd, CKPTFS_IOC_FUSE, &r, EINVAL), "requests: a reserved byte is EINVAL");
    }
}

// ---- metrics ------------------------------------------------------------------------------------

static void
check_metrics(int fd)
{
    static struct ckptfs_metrics m;
    m.version = CKPTFS_ABI_VERSION;
    check(ioctl(fd, CKPTFS_IOC_METRICS, &m) == 0, "metrics");
    check(m.count > 30 && m.count <= CKPTFS_METRICS_MAX && m.pid > 0, "their number, the daemon");
    uint64_t epoch = 0;
    for (size_t i = 0; i < m.count; i++) {
        const struct ckptfs_metric *x = &m.metrics[i];
        check(x->name[0] != '\0' && is_text(x->name, sizeof(x->name)), "a name");
        check(x->kind >= CKPTFS_METRIC_GAUGE && x->kind <= CKPTFS_METRIC_COUNTER, "a kind");
        check(x->unit >= CKPTFS_UNIT_NUMBER && x->unit <= CKPTFS_UNIT_TIME_MS, "a unit");
        check(x->unit != CKPTFS_UNIT_FLAG || x->value <= 1, "a flag is 0 or 1");
        check(x->reserved == 0, "reserved words are zero");
        for (size_t j = 0; j < i; j++)
            check(strcmp(x->name, m.metrics[j].name) != 0, "each name once");
        if (strcmp(x->name, "epoch") == 0)
            epoch = x->value;
    }
    check(epoch == get_status(fd).epoch, "metrics and status agree");
    m = (struct ckptfs_metrics){.version = CKPTFS_ABI_VERSION + 1};
    check(fails(fd, CKPTFS_IOC_METRICS, &m, EINVAL), "metrics: a newer version is EINVAL");
    m = (struct ckptfs_metrics){.version = CKPTFS_ABI_VERSION, .count = 1};
    check(fails(fd, CKPTFS_IOC_METRICS, &m, EINVAL), "metrics: a count is EINVAL");
    m = (struct ckptfs_metrics){.version = CKPTFS_ABI_VERSION, .reserved = {0, 1}};
    check(fails(fd, CKPTFS_IOC_METRICS, &m, EINVAL), "metrics: a reserved word is EINVAL");
}

// ---- what works ---------------------------------------------------------------------------------

static void
check_status_text(const struct ckptfs_status *s)
{
    check(s->version == CKPTFS_ABI_VERSION, "the version is told");
    check((s->flags & ~7u) == 0, "only known flags are told");
    check(s->source[0] != '\0' && is_text(s->source, sizeof(s->source)), "source");
    check(s->tenant[0] != '\0' && is_text(s->tenant, sizeof(s->tenant)), "tenant");
    check(s->root[0] == '/' && is_text(s->root, sizeof(s->root)), "root");
    check(is_text(s->read_only_reason, sizeof(s->read_only_reason)), "read_only_reason");
    check(is_text(s->last_error, sizeof(s->last_error)), "last_error");
    check(s->reserved0 == 0, "reserved0 is zero");
    for (size_t i = 0; i < sizeof(s->reserved) / sizeof(s->reserved[0]); i++)
        check(s->reserved[i] == 0, "reserved words are zero");
}

static void
check_checkpoints(int fd)
{
    struct ckptfs_checkpoint first;
    struct ckptfs_checkpoint c;
    check(request(fd, CKPTFS_CHECKPOINT_WAIT, &first) == 0, "a checkpoint that is waited for");
    check(first.generation > 0 && first.ticket > 0, "it tells generation and ticket");
    struct ckptfs_status s = get_status(fd);
    check(s.published_generation >= first.generation, "its generation is published");
    check(s.completed_ticket >= first.ticket && s.completed_result == 0, "its ticket has ended");

    // What is refused has no ticket.
    check_bad_checkpoints(fd);
    check(request(fd, CKPTFS_CHECKPOINT_WAIT | CKPTFS_CHECKPOINT_LOCAL_ONLY, &c) == 0,
        "a local checkpoint");
    check(c.ticket == first.ticket + 1, "nothing is done for a refused request");
    check(c.generation >= first.generation, "generations do not go back");
    check(get_status(fd).local_generation >= c.generation, "its generation is there");

    check(request(fd, 0, &c) == 0, "a checkpoint that is not waited for");
    check(c.ticket == first.ticket + 2 && c.generation == 0, "it tells its ticket only");
    while (get_status(fd).completed_ticket < c.ticket)
        usleep(1000);
    check(get_status(fd).completed_result == 0, "it ends well");
}

static void
check_owner(int fd)
{
    struct ckptfs_status s = get_status(fd);
    check_status_text(&s);
    check_unknown_commands(fd);
    check_bad_status(fd);
    check_manifest_check(fd);
    check_lost(fd);
    check_fuse_requests(fd);
    check_metrics(fd);
    check_checkpoints(fd);
}

static void
check_stranger(int fd)
{
    struct ckptfs_fuse_requests r = {.version = CKPTFS_ABI_VERSION};
    check(fails(fd, CKPTFS_IOC_FUSE, &r, EPERM), "requests by opcode are EPERM");
    static struct ckptfs_metrics m;
    m.version = CKPTFS_ABI_VERSION;
    check(fails(fd, CKPTFS_IOC_METRICS, &m, EPERM), "metrics are EPERM");
    struct ckptfs_lost l = {.version = CKPTFS_ABI_VERSION};
    check(fails(fd, CKPTFS_IOC_LOST, &l, EPERM), "lost bytes are EPERM");
    struct ckptfs_status s = {.version = CKPTFS_ABI_VERSION};
    struct ckptfs_checkpoint c = {.version = CKPTFS_ABI_VERSION};
    check(fails(fd, CKPTFS_IOC_STATUS, &s, EPERM), "status is EPERM");
    check(fails(fd, CKPTFS_IOC_CHECKPOINT, &c, EPERM), "a checkpoint is EPERM");
}

static void
check_foreign(int fd)
{
    struct ckptfs_status s = {.version = CKPTFS_ABI_VERSION};
    check(fails(fd, CKPTFS_IOC_STATUS, &s, ENOTTY), "status is ENOTTY elsewhere");
}

// ---- interrupts ---------------------------------------------------------------------------------

#define STORM_PROCESSES 4
#define STORM_ROUNDS    150

static void
on_alarm(int number)
{
    (void)number;
}

// Each request ends with a generation or with EINTR, exactly once, whenever the signal comes.
static int
run_storm(const char *path, int process)
{
    char name[4096];
    struct sigaction interrupt = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &interrupt, NULL);
    snprintf(name, sizeof(name), "%s/storm-%d", path, process);
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        return 1;
    int interrupted = 0;
    for (int i = 0; i < STORM_ROUNDS; i++) {
        struct ckptfs_checkpoint c;
        struct itimerval timer = {.it_value.tv_usec = 1 + (i * 977) % 40000};
        struct itimerval none = {0};
        if (pwrite(fd, name, strlen(name), i * 4096) < 0)
            return 1;
        setitimer(ITIMER_REAL, &timer, NULL);
        int rc =
            request(fd, CKPTFS_CHECKPOINT_WAIT | (i % 2 ? CKPTFS_CHECKPOINT_LOCAL_ONLY : 0), &c);
        int error = errno;
        setitimer(ITIMER_REAL, &none, NULL);
        if ((rc == 0 && c.generation == 0) || (rc < 0 && error != EINTR)) {
            fprintf(stderr, "ioctl_check: storm: %d, %s\n", rc, strerror(error));
            return 1;
        }
        interrupted += rc < 0;
    }
    printf("storm: %d of %d requests interrupted\n", interrupted, STORM_ROUNDS);
    return 0;
}

static void
check_storm(int fd, const char *path)
{
    fflush(stdout);
    for (int i = 0; i < STORM_PROCESSES; i++)
        if (fork() == 0)
            exit(run_storm(path, i));
    for (int i = 0; i < STORM_PROCESSES; i++) {
        int status = -1;
        check(wait(&status) > 0 && status == 0, "storm");
    }
    // All tickets end.
    struct ckptfs_checkpoint c;
    check(request(fd, CKPTFS_CHECKPOINT_WAIT, &c) == 0, "a checkpoint after the storm");
    while (get_status(fd).completed_ticket < c.ticket)
        usleep(1000);
}

int
main(int argc, char *argv[])
{
    if (argc != 3) {
        fprintf(stderr, "Usage: ioctl_check owner|stranger|foreign|storm PATH\n");
        return 1;
    }
    int fd = open(argv[2], O_RDONLY | O_CLOEXEC);
    check(fd >= 0, "open");
    if (strcmp(argv[1], "owner") == 0)
        check_owner(fd);
    else if (strcmp(argv[1], "stranger") == 0)
        check_stranger(fd);
    else if (strcmp(argv[1], "foreign") == 0)
        check_foreign(fd);
    else if (strcmp(argv[1], "storm") == 0)
        check_storm(fd, argv[2]);
    else
        check(false, "unknown mode");
    close(fd);
    return failures ? 1 : 0;
}
