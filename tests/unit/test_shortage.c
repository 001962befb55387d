// SPDX-License-Identifier: Apache-2.0
// A process that may open no more files: whatever fails for that fails, and nothing is taken for
// damaged, missing or given up. Each file and directory that is opened is refused once.
#define _GNU_SOURCE
#include "volume_world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/memory.h"
#include "platform/path.h"

#define BYTES 200000u

// ---- opening ------------------------------------------------------------------------------------

static atomic_long opens;          // so far
static atomic_long refused;        // the number of the one that fails; 0: none
static atomic_bool refuses_others; // all that follow fail, too

// Whether the path leads below the storage root, which these tests are about.
static bool
is_in_root(int directory, const char *path)
{
    char link[64];
    char target[PATH_MAX];
    if (sscanf(path, "/proc/self/fd/%d", &directory) != 1 && path[0] == '/')
        return strstr(path, "/root/") != NULL;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
    ssize_t n = readlink(link, target, sizeof(target) - 2);
    if (n < 0)
        return false;
    strcpy(target + n, "/");
    return strstr(target, "/root/") != NULL;
}

static bool
is_refused(int directory, const char *path)
{
    if (!is_in_root(directory, path))
        return false;
    long number = atomic_fetch_add(&opens, 1) + 1;
    long which = atomic_load(&refused);
    bool fails = which > 0 && (number == which || (number > which && atomic_load(&refuses_others)));
    if (fails)
        errno = EMFILE;
    return fails;
}

static int
open_or_refuse(int directory, const char *path, int flags, va_list more)
{
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    if (is_refused(directory, path))
        return -1;
    return (int)syscall(SYS_openat, directory, path, flags, mode);
}

// The program calls these instead of the C library's.
#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        int fd = open_or_refuse(AT_FDCWD, path, flags, more);                                      \
        va_end(more);                                                                              \
        return fd;                                                                                 \
    }
#define OPENAT(name)                                                                               \
    int name(int directory, const char *path, int flags, ...)                                      \
    {                                                                                              \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        int fd = open_or_refuse(directory, path, flags, more);                                     \
        va_end(more);                                                                              \
        return fd;                                                                                 \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

DIR *
opendir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? NULL : fdopendir(fd);
}

static void
begin_refusing(long which, bool others)
{
    atomic_store(&opens, 0);
    atomic_store(&refuses_others, others);
    atomic_store(&refused, which);
}

// How many were opened, or refused, meanwhile.
static long
end_refusing(void)
{
    atomic_store(&refused, 0);
    return atomic_load(&opens);
}

// ---- volumes ------------------------------------------------------------------------------------

// One file is published, another one is in the log only.
static void
publish_and_go_on(struct volume *v)
{
    volume_world_fill(v, volume_world_make_file(v, "published"), 0, BYTES, 1);
    volume_world_publish(v);
    volume_world_fill(v, volume_world_make_file(v, "logged"), 0, BYTES, 2);
    ck_assert_int_eq(volume_world_sync(v), 0);
}

static void
expect_all(struct volume *v)
{
    volume_world_expect(v, volume_world_find(v, "published"), 0, BYTES, 1);
    volume_world_expect(v, volume_world_find(v, "logged"), 0, BYTES, 2);
}

static void
forget_manifest(const struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/manifest", w->root);
    ck_assert_int_eq(path_remove_tree(path), 0);
}

static void
damage_manifest(const struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/manifest/data.mdb", w->root);
    static uint8_t zeros[8192];
    int fd = open(path, O_RDWR);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, zeros, sizeof(zeros), 0), (ssize_t)sizeof(zeros));
    close(fd);
}

static void
leave_alone(const struct volume_world *w UNUSED)
{
}

static void
make(struct volume_world *w, void (*harm)(const struct volume_world *w))
{
    volume_world_new(w);
    volume_world_open(w);
    volume_world_close(w);
    volume_world_die_after(w, publish_and_go_on);
    harm(w);
}

// Opens the volume with one refusal after the other. An open that fails changes nothing that
// counts: the next one goes on from there. One that goes well has everything.
static void
open_with_refusals(void (*harm)(const struct volume_world *w), bool others)
{
    struct volume_world w;
    make(&w, harm);
    bool reached = true;
    for (long which = 1; reached; which++) {
        BUFFER_AUTO error = {0};
        begin_refusing(which, others);
        int rc = volume_open(&w.config, NULL, &w.v, &error);
        reached = end_refusing() >= which;
        ck_assert_msg(rc != -EBADMSG && rc != -EIO, "%ld: %s", which, buffer_string(&error));
        ck_assert_msg(rc == 0 || error.length > 0, "no text for error %d", rc);
        if (rc < 0)
            continue;
        expect_all(w.v);
        volume_world_free(&w);
        make(&w, harm);
    }
    volume_world_open(&w);
    expect_all(w.v);
    volume_world_free(&w);
}

START_TEST(a_mount_that_may_open_no_file_loses_nothing)
{
    open_with_refusals(leave_alone, false);
}
END_TEST

START_TEST(a_rebuild_that_may_open_no_file_gives_nothing_up)
{
    open_with_refusals(damage_manifest, false);
}
END_TEST

START_TEST(a_log_that_may_not_be_listed_is_not_overlooked)
{
    open_with_refusals(forget_manifest, false);
}
END_TEST

START_TEST(a_publication_that_may_open_no_file_calls_nothing_damaged)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    bool reached = true;
    for (long which = 1; reached; which++) {
        struct volume_lost lost;
        struct generation g;
        volume_world_fill(w.v, a, 0, BYTES, (uint64_t)which);
        begin_refusing(which, which % 2);
        int rc = volume_world_checkpoint(w.v, VOLUME_CHECKPOINT_PUBLISH, &g);
        reached = end_refusing() >= which;
        ck_assert_int_ne(rc, -EBADMSG);
        volume_world_publish(w.v);
        volume_world_expect(w.v, a, 0, BYTES, (uint64_t)which);
        ck_assert_int_eq(volume_lost(w.v, &lost), 0);
        ck_assert_uint_eq(lost.bytes, 0);
    }
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("shortage");
    unit_add(suite, "mount", a_mount_that_may_open_no_file_loses_nothing, 60);
    unit_add(suite, "rebuild", a_rebuild_that_may_open_no_file_gives_nothing_up, 60);
    unit_add(suite, "listing", a_log_that_may_not_be_listed_is_not_overlooked, 60);
    unit_add(suite, "publication", a_publication_that_may_open_no_file_calls_nothing_damaged, 60);
    return unit_run(suite);
}
