// SPDX-License-Identifier: Apache-2.0
// The rules of POSIX and Linux call by call: which error when a path cannot be walked, when what
// stands at its end is of the wrong kind, when the caller may not; and which times of which objects
// a call changes, also that a call that fails changes none.
//     posix_rules_check DIR [same-length]
// same-length: setting a length to what it is need not change times (the kernel's write-back cache
// for FUSE keeps the times of files, and does not change them then).
#define _GNU_SOURCE
#include <grp.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <time.h>

#include "check.h"

enum { USER = 61005 };

static bool free_same_length;

// ---- calls, each with one path ------------------------------------------------------------------

static int
closed(int fd)
{
    return fd >= 0 ? close(fd) : -1;
}

static int
call_create(const char *p)
{
    return closed(open(p, O_CREAT | O_EXCL | O_WRONLY, 0644));
}
static int
call_mkdir(const char *p)
{
    return mkdir(p, 0755);
}
static int
call_mkfifo(const char *p)
{
    return mkfifo(p, 0644);
}
static int
call_symlink(const char *p)
{
    return symlink("target", p);
}
static int
call_link_to(const char *p)
{
    return link("existing", p);
}
static int
call_link_from(const char *p)
{
    return link(p, "never-made");
}
static int
call_rename_from(const char *p)
{
    return rename(p, "never-made");
}
static int
call_rename_to(const char *p)
{
    return rename("existing", p);
}
static int
call_unlink(const char *p)
{
    return unlink(p);
}
static int
call_rmdir(const char *p)
{
    return rmdir(p);
}
static int
call_open(const char *p)
{
    return closed(open(p, O_RDONLY));
}
static int
call_open_directory(const char *p)
{
    return closed(open(p, O_RDONLY | O_DIRECTORY));
}
static int
call_chmod(const char *p)
{
    return chmod(p, 0644);
}
static int
call_chown(const char *p)
{
    return chown(p, getuid(), getgid());
}
static int
call_lchown(const char *p)
{
    return lchown(p, getuid(), getgid());
}
static int
call_truncate(const char *p)
{
    return truncate(p, 3);
}
static int
call_utimens(const char *p)
{
    return utimensat(AT_FDCWD, p, NULL, 0);
}
static int
call_stat(const char *p)
{
    struct stat st;
    return stat(p, &st);
}
static int
call_lstat(const char *p)
{
    struct stat st;
    return lstat(p, &st);
}
static int
call_readlink(const char *p)
{
    char target[8];
    return readlink(p, target, sizeof(target)) < 0 ? -1 : 0;
}
static int
call_access(const char *p)
{
    return access(p, F_OK);
}
static int
call_setxattr(const char *p)
{
    return setxattr(p, "user.rule", "v", 1, 0);
}

enum { MAKES = 1, TAKES = 2, FOLLOWS = 4 };

static const struct call {
    const char *name;
    int (*run)(const char *path);
    unsigned is; // makes the name, takes it away, follows a symbolic link at the end
} calls[] = {
    {"create", call_create, MAKES},
    {"mkdir", call_mkdir, MAKES},
    {"mkfifo", call_mkfifo, MAKES},
    {"symlink", call_symlink, MAKES},
    {"link to", call_link_to, MAKES},
    {"rename to", call_rename_to, 0},
    {"link from", call_link_from, 0},
    {"rename from", call_rename_from, TAKES},
    {"unlink", call_unlink, TAKES},
    {"rmdir", call_rmdir, TAKES},
    {"open", call_open, FOLLOWS},
    {"open directory", call_open_directory, FOLLOWS},
    {"chmod", call_chmod, FOLLOWS},
    {"chown", call_chown, FOLLOWS},
    {"lchown", call_lchown, 0},
    {"truncate", call_truncate, FOLLOWS},
    {"utimensat", call_utimens, FOLLOWS},
    {"stat", call_stat, FOLLOWS},
    {"lstat", call_lstat, 0},
    {"readlink", call_readlink, 0},
    {"access", call_access, FOLLOWS},
    {"setxattr", call_setxattr, FOLLOWS},
};
#define CALLS (sizeof(calls) / sizeof(calls[0]))

// Every call of the given kinds (0: all) fails with this error.
static void
all_fail(const char *path, unsigned kinds, int error, int line)
{
    for (size_t i = 0; i < CALLS; i++) {
        if (kinds && !(calls[i].is & kinds))
            continue;
        errno = 0;
        int rc = calls[i].run(path);
        expect(rc == -1 && errno == error, line, "%s %.60s: %d, expected error %d", calls[i].name,
            path, rc, error);
    }
}
#define ALL_FAIL(path, kinds, error) all_fail((path), (kinds), (error), __LINE__)

static void
paths(void)
{
    char name[PATH_MAX + 10];
    make_file("file", "content");
    make_file("existing", "content");
    CHECK(symlink("loop-2", "loop-1") == 0 && symlink("loop-1", "loop-2") == 0);
    ALL_FAIL("file/below", 0, ENOTDIR);
    ALL_FAIL("file/below/deeper", 0, ENOTDIR);
    ALL_FAIL("missing/below", 0, ENOENT);
    ALL_FAIL("loop-1/below", 0, ELOOP);
    ALL_FAIL("loop-1", FOLLOWS, ELOOP);
    ALL_FAIL("loop-1", MAKES, EEXIST);
    memset(name, 'n', sizeof(name));
    name[NAME_MAX + 1] = '\0';
    ALL_FAIL(name, 0, ENAMETOOLONG);
    strcpy(name + NAME_MAX + 1, "/below");
    ALL_FAIL(name, 0, ENAMETOOLONG);
    name[NAME_MAX] = '\0';
    ALL_FAIL(name, TAKES | FOLLOWS, ENOENT);
    strcpy(name + NAME_MAX, "/below");
    ALL_FAIL(name, 0, ENOENT);
    // The whole path: PATH_MAX counts the NUL.
    for (size_t i = 0; i < sizeof(name) - 1; i += 2)
        memcpy(name + i, "./", 2);
    name[PATH_MAX] = '\0';
    ALL_FAIL(name, 0, ENAMETOOLONG);
    memcpy(name + PATH_MAX - 6, "file", 5);
    CHECK(call_stat(name) == 0);
    ALL_FAIL("", FOLLOWS | TAKES | MAKES, ENOENT);
    // As many links as the kernel follows, and one more.
    CHECK(symlink("file", "chain-0") == 0);
    for (int i = 1; i <= 40; i++) {
        char from[20], to[20];
        snprintf(from, sizeof(from), "chain-%d", i);
        snprintf(to, sizeof(to), "chain-%d", i - 1);
        CHECK(symlink(to, from) == 0);
    }
    CHECK(call_stat("chain-39") == 0);
    REFUSED(call_stat("chain-40"), ELOOP);
}

// ---- kinds --------------------------------------------------------------------------------------

static void
kinds(void)
{
    static const char *const all[] = {"k-file", "k-dir", "k-full", "k-fifo", "k-link", "k-socket"};
    int top = open(".", O_RDONLY | O_DIRECTORY);
    make_file("k-file", "x");
    CHECK(mkdir("k-dir", 0755) == 0 && mkdir("k-full", 0755) == 0);
    make_file("k-full/file", "x");
    CHECK(mkfifo("k-fifo", 0644) == 0 && symlink("nowhere", "k-link") == 0);
    CHECK(mknod("k-socket", S_IFSOCK | 0644, 0) == 0);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        ALL_FAIL(all[i], MAKES, EEXIST);
        bool directory = S_ISDIR(stat_of(all[i]).st_mode);
        if (!directory)
            REFUSED(rmdir(all[i]), ENOTDIR);
        else
            REFUSED(unlink(all[i]), EISDIR);
        if (!S_ISLNK(stat_of(all[i]).st_mode))
            REFUSED(call_readlink(all[i]), EINVAL);
        if (!directory)
            REFUSED(open(all[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW), ENOTDIR);
    }
    REFUSED(rmdir("k-full"), ENOTEMPTY);
    REFUSED(rmdir("k-dir/."), EINVAL);
    REFUSED(rmdir("k-full/.."), ENOTEMPTY);
    REFUSED(link("k-dir", "k-new"), EPERM);
    REFUSED(open("k-dir", O_WRONLY), EISDIR);
    REFUSED(open("k-dir", O_RDWR | O_CREAT, 0644), EISDIR);
    REFUSED(truncate("k-dir", 0), EISDIR);
    REFUSED(truncate("k-fifo", 0), EINVAL);
    REFUSED(truncate("k-file", -1), EINVAL);
    REFUSED(open("k-fifo", O_WRONLY | O_NONBLOCK), ENXIO);
    REFUSED(open("k-socket", O_RDONLY), ENXIO);
    REFUSED(open("k-link", O_RDONLY), ENOENT);
    REFUSED(open("k-link", O_RDONLY | O_NOFOLLOW), ELOOP);
    REFUSED(open("k-link", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
    REFUSED(unlink("k-file/"), ENOTDIR);
    REFUSED(open("k-new/", O_CREAT | O_WRONLY, 0644), EISDIR);
    REFUSED(rename("k-dir", "k-dir/below"), EINVAL);
    REFUSED(rename("k-dir/..", "k-new"), EBUSY);
    REFUSED(link("k-link", "k-full/file"), EEXIST);
    CHECK(linkat(AT_FDCWD, "k-link", AT_FDCWD, "k-link-2", 0) == 0);
    CHECK(S_ISLNK(stat_of("k-link-2").st_mode) && stat_of("k-link").st_nlink == 2);
    CHECK(mkdir("k-slash/", 0755) == 0 && rmdir("k-slash/") == 0);
    CHECK(closed(open("k-link", O_CREAT | O_WRONLY, 0644)) == 0 && unlink("nowhere") == 0);
    // A running program.
    CHECK(closed(open("k-program", O_CREAT | O_WRONLY, 0755)) == 0);
    CHECK(mkdir("k-deep", 0755) == 0 && chdir("k-deep") == 0 && rmdir("../k-deep") == 0);
    REFUSED(call_create("in-removed"), ENOENT);
    REFUSED(call_mkdir("in-removed"), ENOENT);
    REFUSED(link("../k-file", "in-removed"), ENOENT);
    REFUSED(rename("../k-file", "in-removed"), ENOENT);
    CHECK(fchdir(top) == 0 && close(top) == 0);
}

// ---- permissions --------------------------------------------------------------------------------

static void
as_user(void (*run)(void))
{
    gid_t none = USER;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        failures = 0;
        if (setgroups(1, &none) != 0 || setresgid(USER, USER, USER) != 0 ||
            setresuid(USER, USER, USER) != 0)
            _exit(99);
        run();
        fflush(stdout);
        _exit(failures > 90 ? 90 : failures);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) < 99);
    failures += WEXITSTATUS(status);
}

static void
user_in_foreign_directories(void)
{
    ALL_FAIL("no-search/file", FOLLOWS | MAKES | TAKES, EACCES);
    ALL_FAIL("no-search/missing", FOLLOWS | MAKES | TAKES, EACCES);
    ALL_FAIL("no-write/new", MAKES, EACCES);
    REFUSED(unlink("no-write/file"), EACCES);
    REFUSED(rmdir("no-write/directory"), EACCES);
    REFUSED(rename("no-write/file", "no-write/file-2"), EACCES);
    REFUSED(rename("no-write/missing", "no-write/file"), ENOENT);
    ALL_FAIL("no-write/file", MAKES, EEXIST);
    CHECK(call_stat("no-write/file") == 0 && closed(open("no-write", O_RDONLY)) == 0);
    REFUSED(closed(open("no-search", O_RDONLY)), EACCES);
    REFUSED(chmod("no-write/file", 0600), EPERM);
    REFUSED(chown("no-write/file", USER, USER), EPERM);
    REFUSED(truncate("no-write/file", 0), EACCES);
    // A directory of another owner does not move to another parent: its ".." would change.
    REFUSED(rename("all-write/foreign", "all-write-2/foreign"), EACCES);
    CHECK(rename("all-write/foreign", "all-write/foreign-2") == 0);
    CHECK(rename("all-write/file", "all-write-2/file") == 0);
}

static void
permissions(void)
{
    static const char *const made[] = {"no-search", "no-write", "all-write", "all-write-2"};
    static const mode_t modes[] = {0700, 0755, 0777, 0777};
    for (int i = 0; i < 4; i++) {
        char path[64];
        CHECK(mkdir(made[i], 0755) == 0);
        snprintf(path, sizeof(path), "%s/file", made[i]);
        if (i < 3)
            make_file(path, "x");
        CHECK(chmod(made[i], modes[i]) == 0);
    }
    CHECK(chown("existing", USER, USER) == 0); // else it may not be linked
    CHECK(mkdir("no-write/directory", 0777) == 0 && mkdir("all-write/foreign", 0755) == 0);
    as_user(user_in_foreign_directories);
}

// ---- times --------------------------------------------------------------------------------------

enum { FILE_M = 1, FILE_C = 2, PARENT_M = 4, PARENT_C = 8, OTHER_M = 16, OTHER_C = 32 };
#define FILE_MC   (FILE_M | FILE_C)
#define PARENT_MC (PARENT_M | PARENT_C)
#define OTHER_MC  (OTHER_M | OTHER_C)

// The objects whose times are looked at: t/file (also t/second), t, and u.
static int
on_write(void)
{
    int fd = open("t/file", O_WRONLY);
    return write(fd, "x", 1) == 1 ? closed(fd) : -1;
}
static int
on_empty_write(void)
{
    int fd = open("t/file", O_WRONLY);
    return write(fd, "x", 0) == 0 ? closed(fd) : -1;
}
static int
on_read(void)
{
    char byte;
    int fd = open("t/file", O_RDONLY);
    return read(fd, &byte, 1) == 1 ? closed(fd) : -1;
}
static int
on_chmod(void)
{
    return chmod("t/file", 0640);
}
static int
on_chown(void)
{
    return chown("t/file", 1, 1);
}
static int
on_utimens(void)
{
    struct timespec t[2] = {{1, 1}, {0, UTIME_OMIT}};
    return utimensat(AT_FDCWD, "t/file", t, 0);
}
static int
on_setxattr(void)
{
    return setxattr("t/file", "user.x", "v", 1, 0);
}
static int
on_removexattr(void)
{
    return removexattr("t/file", "user.x");
}
static int
on_longer(void)
{
    return truncate("t/file", 10000);
}
static int
on_same_length(void)
{
    return truncate("t/file", 10000);
}
static int
on_shorter(void)
{
    return truncate("t/file", 100);
}
static int
on_open_truncate(void)
{
    return closed(open("t/file", O_WRONLY | O_TRUNC));
}
static int
on_open_existing(void)
{
    return closed(open("t/file", O_WRONLY | O_CREAT, 0644));
}
static int
on_fallocate(void)
{
    int fd = open("t/file", O_WRONLY);
    return fallocate(fd, 0, 0, 20000) == 0 ? closed(fd) : -1;
}
static int
on_link(void)
{
    return link("t/file", "t/second");
}
static int
on_unlink(void)
{
    return unlink("t/second");
}
static int
on_rename(void)
{
    return rename("t/file", "t/file-2") == 0 ? rename("t/file-2", "t/file") : -1;
}
static int
on_rename_away(void)
{
    return rename("t/file", "u/file") == 0 ? rename("u/file", "t/file") : -1;
}
static int
on_exchange(void)
{
    make_file("outside", "x");
    return renameat2(AT_FDCWD, "t/file", AT_FDCWD, "outside", RENAME_EXCHANGE) == 0 &&
                   renameat2(AT_FDCWD, "t/file", AT_FDCWD, "outside", RENAME_EXCHANGE) == 0
               ? unlink("outside")
               : -1;
}
// "t/file" keeps one name, in u, when it is replaced.
static int
on_replaced(void)
{
    make_file("replacer", "x");
    return rename("replacer", "t/second");
}
static int
on_create(void)
{
    return call_create("t/new-file");
}
static int
on_mkdir(void)
{
    return call_mkdir("t/new-directory");
}
static int
on_rmdir(void)
{
    return rmdir("t/new-directory");
}
static int
on_mkfifo(void)
{
    return call_mkfifo("t/new-fifo");
}
static int
on_symlink(void)
{
    return call_symlink("t/new-link");
}
static int
on_failing(void)
{
    REFUSED(mkdir("t/file", 0755), EEXIST);
    REFUSED(link("t/file", "t/new-file"), EEXIST);
    REFUSED(rmdir("t/file"), ENOTDIR);
    REFUSED(rename("t/file", "t/missing/x"), ENOENT);
    REFUSED(renameat2(AT_FDCWD, "t/file", AT_FDCWD, "t/new-file", RENAME_NOREPLACE), EEXIST);
    REFUSED(rename("t/file", "u"), EISDIR);
    REFUSED(truncate("t/file", -1), EINVAL);
    REFUSED(removexattr("t/file", "user.none"), ENODATA);
    return 0;
}
static void
by_user(void)
{
    REFUSED(chmod("t/file", 0777), EPERM);
    REFUSED(chown("t/file", USER, USER), EPERM);
    REFUSED(unlink("t/file"), EACCES);
    REFUSED(truncate("t/file", 0), EACCES);
    REFUSED(mkdir("t/more", 0755), EACCES);
}
static int
on_forbidden(void)
{
    as_user(by_user);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
    unsigned changes;
} times_of[] = {
    {"write", on_write, FILE_MC},
    {"write of nothing", on_empty_write, 0},
    {"read", on_read, 0},
    {"chmod", on_chmod, FILE_C},
    {"chown", on_chown, FILE_C},
    {"utimensat", on_utimens, FILE_C},
    {"setxattr", on_setxattr, FILE_C},
    {"removexattr", on_removexattr, FILE_C},
    {"truncate, longer", on_longer, FILE_MC},
    {"truncate, same length", on_same_length, FILE_MC},
    {"truncate, shorter", on_shorter, FILE_MC},
    {"open existing", on_open_existing, 0},
    {"open and truncate", on_open_truncate, FILE_MC},
    {"fallocate", on_fallocate, FILE_MC},
    {"link", on_link, FILE_C | PARENT_MC},
    {"unlink", on_unlink, FILE_C | PARENT_MC},
    {"rename", on_rename, FILE_C | PARENT_MC},
    {"rename away", on_rename_away, FILE_C | PARENT_MC | OTHER_MC},
    {"exchange", on_exchange, FILE_C | PARENT_MC},
    {"link again", on_link, FILE_C | PARENT_MC},
    {"rename over", on_replaced, FILE_C | PARENT_MC},
    {"create", on_create, PARENT_MC},
    {"mkdir", on_mkdir, PARENT_MC},
    {"rmdir", on_rmdir, PARENT_MC},
    {"mkfifo", on_mkfifo, PARENT_MC},
    {"symlink", on_symlink, PARENT_MC},
    {"failing calls", on_failing, 0},
    {"forbidden calls", on_forbidden, 0},
};

static bool
later(struct timespec a, struct timespec b)
{
    return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

static bool
differ(struct timespec a, struct timespec b)
{
    return a.tv_sec != b.tv_sec || a.tv_nsec != b.tv_nsec;
}

static void
next_tick(void)
{
    struct timespec from, now;
    // Kernels may stamp with the precise time, too, when it has been asked for.
    clock_gettime(CLOCK_REALTIME, &from);
    do
        clock_gettime(CLOCK_REALTIME_COARSE, &now);
    while (!later(now, from));
}

static unsigned
changed(const struct stat before[3], const struct stat after[3])
{
    unsigned bits = 0;
    for (int i = 0; i < 3; i++) {
        if (differ(after[i].st_mtim, before[i].st_mtim))
            bits |= 1u << (2 * i);
        if (differ(after[i].st_ctim, before[i].st_ctim))
            bits |= 2u << (2 * i);
        CHECK(!later(before[i].st_mtim, after[i].st_mtim));
        CHECK(!later(before[i].st_ctim, after[i].st_ctim));
    }
    return bits;
}

static void
times(void)
{
    CHECK(mkdir("t", 0755) == 0 && mkdir("u", 0755) == 0);
    make_file("t/file", "content");
    for (size_t i = 0; i < sizeof(times_of) / sizeof(times_of[0]); i++) {
        struct stat before[3] = {stat_of("t/file"), stat_of("t"), stat_of("u")};
        next_tick();
        int rc = times_of[i].run();
        expect(rc == 0, __LINE__, "%s fails", times_of[i].name);
        struct stat after[3] = {stat_of("t/file"), stat_of("t"), stat_of("u")};
        unsigned got = changed(before, after);
        if (free_same_length && times_of[i].run == on_same_length)
            continue;
        expect(got == times_of[i].changes, __LINE__, "%s changes times %#x, expected %#x",
            times_of[i].name, got, times_of[i].changes);
    }
}

static void
times_of_the_new(void)
{
    struct stat before = stat_of("t/file");
    next_tick();
    for (int i = 0; i < 4; i++) {
        static int (*const make[])(const char *) = {
            call_create, call_mkdir, call_mkfifo, call_symlink};
        CHECK(make[i]("newborn") == 0);
        struct stat st = stat_of("newborn");
        CHECK(later(st.st_mtim, before.st_mtim) && !differ(st.st_mtim, st.st_ctim) &&
              !differ(st.st_atim, st.st_mtim));
        CHECK(remove("newborn") == 0);
    }
}

static const struct check_group groups[] = {
    {"paths", paths},
    {"permissions", permissions},
    {"times", times},
    {"times of the new", times_of_the_new},
    {"kinds", kinds},
};

int
main(int argc, char **argv)
{
    free_same_length = argc == 3 && strcmp(argv[2], "same-length") == 0;
    if ((argc != 2 && !free_same_length) || geteuid() != 0 || chdir(argv[1]) != 0) {
        fprintf(stderr, "usage, as root: posix_rules_check DIR [same-length]\n");
        return 2;
    }
    return run_groups(groups, sizeof(groups) / sizeof(groups[0]));
}
