// SPDX-License-Identifier: Apache-2.0
// More of what programs expect of a file system, in an empty directory; as posix_check leaves a
// tree behind to be compared after a remount. Runs on other file systems too, where what only some
// can do is left out.
//     posix_more_check DIR
#define _GNU_SOURCE
#include <dirent.h>
#include <limits.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>

#include "check.h"

#define FUSE_MAGIC 0x65735546

static bool is_fuse;

static bool
later(struct timespec a, struct timespec b)
{
    return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

static bool
same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

// Until files get other times than before.
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

// ---- renames ------------------------------------------------------------------------------------

enum kind { MISSING, PLAIN, LINK, FIFO, EMPTY_DIRECTORY, FULL_DIRECTORY, KINDS };

static void
make_kind(const char *path, enum kind kind)
{
    char below[256];
    if (kind == PLAIN)
        make_file(path, path);
    else if (kind == LINK)
        CHECK(symlink("target", path) == 0);
    else if (kind == FIFO)
        CHECK(mkfifo(path, 0644) == 0);
    else if (kind != MISSING)
        CHECK(mkdir(path, 0755) == 0);
    if (kind != FULL_DIRECTORY)
        return;
    snprintf(below, sizeof(below), "%s/file", path);
    make_file(below, "x");
}

static void
remove_kind(const char *path)
{
    char below[256];
    snprintf(below, sizeof(below), "%s/file", path);
    unlink(below);
    if (unlink(path) != 0)
        rmdir(path);
}

static int
expected_of_rename(enum kind from, enum kind to, unsigned flags)
{
    bool from_is_directory = from >= EMPTY_DIRECTORY, to_is_directory = to >= EMPTY_DIRECTORY;
    if (flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return EINVAL;
    if (from == MISSING)
        return ENOENT;
    if (flags == RENAME_NOREPLACE)
        return to == MISSING ? 0 : EEXIST;
    if (flags == RENAME_EXCHANGE)
        return to == MISSING ? ENOENT : 0;
    if (to == MISSING)
        return 0;
    if (from_is_directory != to_is_directory)
        return from_is_directory ? ENOTDIR : EISDIR;
    return to == FULL_DIRECTORY ? ENOTEMPTY : 0;
}

static ino_t
inode_at(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_ino : 0;
}

// The link count of a directory tells how many directories are in it.
static void
check_links(const char *path, const char *label)
{
    DIR *d = opendir(path);
    unsigned below = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        below += e->d_type == DT_DIR;
    closedir(d);
    expect(stat_of(path).st_nlink == below, __LINE__, "%s: %ju links of %s, %u directories", label,
        (uintmax_t)stat_of(path).st_nlink, path, below);
}

static void
rename_one(enum kind from, enum kind to, unsigned flags, const char *source, const char *target)
{
    char label[100];
    snprintf(label, sizeof(label), "rename %s (%d) to %s (%d), flags %u", source, from, target, to,
        flags);
    make_kind(source, from);
    make_kind(target, to);
    ino_t source_ino = inode_at(source), target_ino = inode_at(target);
    int expected = expected_of_rename(from, to, flags);
    int result = renameat2(AT_FDCWD, source, AT_FDCWD, target, flags) == 0 ? 0 : errno;
    expect(result == expected, __LINE__, "%s: %d, expected %d", label, result, expected);
    bool done = result == 0, exchange = done && flags == RENAME_EXCHANGE;
    expect(inode_at(target) == (done ? source_ino : target_ino), __LINE__, "%s: target", label);
    expect(inode_at(source) == (exchange  ? target_ino
                                   : done ? 0
                                          : source_ino),
        __LINE__, "%s: source", label);
    check_links("left", label);
    check_links("right", label);
    remove_kind(source);
    remove_kind(target);
}

static void
all_renames(void)
{
    static const unsigned flags[] = {
        0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_NOREPLACE | RENAME_EXCHANGE};
    CHECK(mkdir("left", 0755) == 0 && mkdir("right", 0755) == 0);
    for (int from = MISSING; from < KINDS; from++)
        for (int to = MISSING; to < KINDS; to++)
            for (size_t f = 0; f < sizeof(flags) / sizeof(flags[0]); f++) {
                rename_one((enum kind)from, (enum kind)to, flags[f], "left/a", "left/b");
                rename_one((enum kind)from, (enum kind)to, flags[f], "left/a", "right/b");
            }
    CHECK(mkdir("left/inner", 0755) == 0);
    make_file("left/one", "one");
    CHECK(link("left/one", "right/one") == 0);
    CHECK(rename("left/one", "left/one") == 0 && rename("left/inner", "left/inner") == 0);
    CHECK(rename("left/one", "right/one") == 0 && inode_at("left/one") == inode_at("right/one"));
    REFUSED(renameat2(AT_FDCWD, "left/one", AT_FDCWD, "right/one", RENAME_NOREPLACE), EEXIST);
    CHECK(renameat2(AT_FDCWD, "left/one", AT_FDCWD, "right/one", RENAME_EXCHANGE) == 0);
    REFUSED(rename("left", "left/inner/below"), EINVAL);
    REFUSED(renameat2(AT_FDCWD, "left", AT_FDCWD, "left/inner", RENAME_EXCHANGE), EINVAL);
    REFUSED(rename("left/inner", "left"), ENOTEMPTY);
    REFUSED(rename("left/.", "other"), EBUSY);
    REFUSED(rename("left/one", "left/missing/name"), ENOENT);
    REFUSED(rename("left/one", "right/one/below"), ENOTDIR);
    REFUSED(rename("left/one", "/dev/ckptfs-posix-check"), EXDEV);
    REFUSED(link("left/one", "/dev/ckptfs-posix-check"), EXDEV);
    // Exchanged across directories: a directory against a file.
    CHECK(renameat2(AT_FDCWD, "left/inner", AT_FDCWD, "right/one", RENAME_EXCHANGE) == 0);
    check_links("left", "exchange");
    check_links("right", "exchange");
    CHECK(stat_of("left/inner").st_nlink == 2 && S_ISDIR(stat_of("right/one").st_mode));
}

// ---- names, links and nodes ---------------------------------------------------------------------

static bool
is_listed(const char *directory, const char *name)
{
    DIR *d = opendir(directory);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));)
        found = strcmp(e->d_name, name) == 0;
    closedir(d);
    return found;
}

static void
names_and_targets(void)
{
    char path[300] = "names/", target[PATH_MAX], got[PATH_MAX + 1];
    size_t n = strlen(path);
    CHECK(mkdir("names", 0755) == 0);
    for (int c = 1; c < 256; c++)
        if (c != '/')
            path[n++] = (char)c;
    path[n] = '\0';
    make_file(path, "every byte");
    CHECK(has_content(path, "every byte") && is_listed("names", path + strlen("names/")));
    for (int c = 0xe0; c < 0xe8; c++) {
        memset(path + strlen("names/"), c, NAME_MAX);
        path[strlen("names/") + NAME_MAX] = '\0';
        make_file(path, "255 bytes");
        CHECK(is_listed("names", path + strlen("names/")));
    }
    make_file("names/...", "dots");
    make_file("names/ ", "blank");
    CHECK(mkdir("names/-rf", 0755) == 0);
    memset(target, 'x', sizeof(target));
    static const size_t lengths[] = {1, 2, 59, 60, 255, 1023, 4094, 4095};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        snprintf(path, sizeof(path), "names/to-%zu", lengths[i]);
        target[lengths[i]] = '\0';
        CHECK(symlink(target, path) == 0);
        target[lengths[i]] = 'x';
        CHECK(readlink(path, got, sizeof(got)) == (ssize_t)lengths[i] &&
              memcmp(got, target, lengths[i]) == 0);
        CHECK(stat_of(path).st_size == (off_t)lengths[i]);
    }
    REFUSED(symlink("", "names/empty"), ENOENT);
    CHECK(symlink("loop", "names/loop") == 0);
    REFUSED(open("names/loop", O_RDONLY), ELOOP);
    REFUSED(open("names/loop", O_RDONLY | O_NOFOLLOW), ELOOP);
}

static void
special_nodes(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int s = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(bind(s, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(s, 1) == 0);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(S_ISSOCK(stat_of("socket").st_mode));
    close(client);
    close(s);
    CHECK(mkfifo("fifo", 0640) == 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = open("fifo", O_WRONLY);
        _exit(write(fd, "through", 7) != 7);
    }
    CHECK(has_content("fifo", "through"));
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(mknod("plain-node", S_IFREG | 0600, 0) == 0 && S_ISREG(stat_of("plain-node").st_mode));
    if (geteuid() != 0)
        return;
    dev_t big = makedev(4095, 1048575);
    struct statvfs st;
    CHECK(mknod("null", S_IFCHR | 0666, makedev(1, 3)) == 0 && statvfs(".", &st) == 0);
    if (st.f_flag & ST_NODEV)
        REFUSED(open("null", O_RDONLY), EACCES);
    else
        CHECK(has_content("null", ""));
    CHECK(mknod("block", S_IFBLK | 0600, big) == 0 && stat_of("block").st_rdev == big);
    CHECK(S_ISBLK(stat_of("block").st_mode));
}

// ---- times --------------------------------------------------------------------------------------

static void
times(void)
{
    struct timespec t[2] = {{1000000000, 1}, {4000000000, 999999999}};
    make_file("timed", "x");
    CHECK(symlink("timed", "timed-link") == 0);
    CHECK(utimensat(AT_FDCWD, "timed", t, 0) == 0);
    struct stat st = stat_of("timed");
    CHECK(same_time(st.st_atim, t[0]) && same_time(st.st_mtim, t[1]));
    t[0] = t[1] = (struct timespec){0, UTIME_OMIT};
    next_tick();
    CHECK(utimensat(AT_FDCWD, "timed", t, 0) == 0);
    CHECK(same_time(stat_of("timed").st_ctim, st.st_ctim));
    t[0] = (struct timespec){-1, 5};
    CHECK(utimensat(AT_FDCWD, "timed", t, 0) == 0);
    struct stat after = stat_of("timed");
    CHECK(same_time(after.st_atim, t[0]) && same_time(after.st_mtim, st.st_mtim));
    CHECK(later(after.st_ctim, st.st_ctim));
    t[0].tv_nsec = UTIME_OMIT;
    t[1].tv_nsec = UTIME_NOW;
    CHECK(utimensat(AT_FDCWD, "timed", t, 0) == 0);
    CHECK(later(stat_of("timed").st_mtim, (struct timespec){1600000000, 0}) &&
          stat_of("timed").st_atim.tv_sec == -1);
    t[0] = t[1] = (struct timespec){77, 77};
    CHECK(utimensat(AT_FDCWD, "timed-link", t, AT_SYMLINK_NOFOLLOW) == 0);
    CHECK(stat_of("timed-link").st_mtim.tv_sec == 77 && stat_of("timed").st_mtim.tv_sec != 77);
    t[0].tv_nsec = 1000000000;
    REFUSED(utimensat(AT_FDCWD, "timed", t, 0), EINVAL);
}

static struct timespec
atime_after_read(const char *path, int flags)
{
    char byte;
    int fd = open(path, O_RDWR | flags);
    CHECK(fd >= 0 && fsync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    CHECK(read(fd, &byte, 1) == 1);
    struct stat st;
    CHECK(fstat(fd, &st) == 0 && close(fd) == 0);
    CHECK(same_time(stat_of(path).st_atim, st.st_atim));
    return st.st_atim;
}

// As with relatime. The kernel must not have the page: it does not tell of reads from its cache.
static void
times_of_access(void)
{
    struct timespec old[2] = {{1000, 0}, {0, UTIME_OMIT}};
    make_file("read", "content");
    CHECK(utimensat(AT_FDCWD, "read", old, 0) == 0);
    CHECK(atime_after_read("read", O_NOATIME).tv_sec == 1000);
    next_tick();
    struct timespec first = atime_after_read("read", 0);
    CHECK(later(first, stat_of("read").st_mtim));
    next_tick();
    CHECK(same_time(atime_after_read("read", 0), first)); // later than the last change, and recent
    CHECK(utimensat(AT_FDCWD, "read", old, 0) == 0 && stat_of("read").st_atim.tv_sec == 1000);
    next_tick();
    CHECK(later(atime_after_read("read", 0), first));
    CHECK(mkdir("listed", 0755) == 0 && utimensat(AT_FDCWD, "listed", old, 0) == 0);
    next_tick();
    CHECK(!is_listed("listed", "nothing") && stat_of("listed").st_atim.tv_sec != 1000);
}

// ---- files without names, sizes -----------------------------------------------------------------

static void
files_without_names(void)
{
    char path[64], text[8] = "";
    struct stat st;
    int fd = open(".", O_TMPFILE | O_RDWR, 0640);
    if (fd < 0 && errno == EOPNOTSUPP) // kernels before 6.1
        return;
    CHECK(fd >= 0 && write(fd, "nameless", 8) == 8 && pread(fd, text, 8, 0) == 8);
    CHECK(memcmp(text, "nameless", 8) == 0 && fsync(fd) == 0);
    CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0 && (st.st_mode & 07777) == 0640);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    CHECK(linkat(AT_FDCWD, path, AT_FDCWD, "named-later", AT_SYMLINK_FOLLOW) == 0);
    REFUSED(linkat(AT_FDCWD, path, AT_FDCWD, "named-later", AT_SYMLINK_FOLLOW), EEXIST);
    CHECK(fstat(fd, &st) == 0 && st.st_nlink == 1 && stat_of("named-later").st_ino == st.st_ino);
    CHECK(close(fd) == 0 && has_content("named-later", "nameless"));
    fd = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    CHECK(fd >= 0);
    REFUSED(linkat(AT_FDCWD, path, AT_FDCWD, "never", AT_SYMLINK_FOLLOW), ENOENT);
    CHECK(write(fd, "gone", 4) == 4 && close(fd) == 0);
    REFUSED(open(".", O_TMPFILE | O_RDONLY, 0600), EINVAL);
    REFUSED(open("named-later", O_TMPFILE | O_RDWR, 0600), ENOTDIR);
    // A name that was taken off makes no file that may be linked again.
    fd = open("named-later", O_RDONLY);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    CHECK(link("named-later", "named-again") == 0);
    CHECK(unlink("named-later") == 0 && unlink("named-again") == 0);
    REFUSED(linkat(AT_FDCWD, path, AT_FDCWD, "again", AT_SYMLINK_FOLLOW), ENOENT);
    close(fd);
}

static void
sizes(void)
{
    char byte = 0;
    int fd = open("huge", O_RDWR | O_CREAT, 0644);
    if (ftruncate(fd, INT64_MAX) != 0) {
        CHECK(errno == EFBIG && !is_fuse);
        close(fd);
        return;
    }
    // While it is open for writing a file without data is said to have some.
    CHECK(stat_of("huge").st_size == INT64_MAX && stat_of("huge").st_blocks <= 256);
    CHECK(pread(fd, &byte, 1, INT64_MAX - 1) == 1 && byte == 0);
    CHECK(pread(fd, &byte, 1, INT64_MAX) == 0 || errno == EINVAL);
    CHECK(pwrite(fd, "end", 1, INT64_MAX - 1) == 1 && fsync(fd) == 0);
    CHECK(pread(fd, &byte, 1, INT64_MAX - 1) == 1 && byte == 'e');
    CHECK(pwrite(fd, "middle", 6, (off_t)1 << 62) == 6 && fsync(fd) == 0);
    CHECK(lseek(fd, 0, SEEK_DATA) == (off_t)1 << 62);
    CHECK(lseek(fd, ((off_t)1 << 62) + 4096, SEEK_DATA) == (INT64_MAX & ~(off_t)4095));
    CHECK(lseek(fd, INT64_MAX - 1, SEEK_HOLE) == INT64_MAX);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, INT64_MAX - 4096) == 0);
    REFUSED(lseek(fd, 0, SEEK_DATA), ENXIO);
    REFUSED(fallocate(fd, 0, INT64_MAX - 1, 2), EFBIG);
    CHECK(ftruncate(fd, 10) == 0 && stat_of("huge").st_size == 10);
    struct rlimit limit, small = {1000, 1000};
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    small.rlim_max = limit.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    REFUSED(pwrite(fd, "x", 1, 1000), EFBIG);
    REFUSED(ftruncate(fd, 1001), EFBIG);
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0 && close(fd) == 0);
}

// ---- space, holes, copies -----------------------------------------------------------------------

static void
allocation(void)
{
    char block[16384], got[16384];
    memset(block, 'd', sizeof(block));
    int fd = open("allocated", O_RDWR | O_CREAT, 0644);
    CHECK(pwrite(fd, block, sizeof(block), 0) == (ssize_t)sizeof(block));
    CHECK(fallocate(fd, 0, 0, 20000) == 0 && stat_of("allocated").st_size == 20000);
    CHECK(
        fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 40000) == 0 && stat_of("allocated").st_size == 20000);
    CHECK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 1, 4999) == 0);
    CHECK(pread(fd, got, sizeof(got), 0) == (ssize_t)sizeof(got));
    CHECK(got[0] == 'd' && got[1] == 0 && got[4999] == 0 && got[5000] == 'd');
    CHECK(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 16000, 10000) == 0 &&
          stat_of("allocated").st_size == 20000);
    CHECK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 19000, 2000) == 0 &&
          stat_of("allocated").st_size == 21000);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 6000, 50000) == 0 &&
          stat_of("allocated").st_size == 21000);
    CHECK(pread(fd, got, sizeof(got), 0) == (ssize_t)sizeof(got) && got[5999] == 'd' &&
          got[6000] == 0 && got[16000] == 0);
    REFUSED(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096), EOPNOTSUPP);
    REFUSED(fallocate(fd, 0, -1, 10), EINVAL);
    REFUSED(fallocate(fd, 0, 0, 0), EINVAL);
    int errors = fallocate(fd, 0, 0, (off_t)1 << 60) == 0 ? 0 : errno;
    CHECK(errors == ENOSPC || errors == EFBIG);
    CHECK(stat_of("allocated").st_size == 21000);
    if (is_fuse) {
        REFUSED(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), EOPNOTSUPP);
        REFUSED(fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 4096), EOPNOTSUPP);
        REFUSED(fallocate(fd, FALLOC_FL_UNSHARE_RANGE, 0, 4096), EOPNOTSUPP);
    }
    CHECK(close(fd) == 0);
    fd = open("allocated", O_RDONLY);
    REFUSED(fallocate(fd, 0, 0, 10), EBADF);
    close(fd);
}

static void
data_and_holes(void)
{
    enum { PAGE = 4096 };
    char page[PAGE];
    memset(page, 'p', sizeof(page));
    int fd = open("sought", O_RDWR | O_CREAT, 0644);
    CHECK(ftruncate(fd, 40 * PAGE) == 0);
    CHECK(pwrite(fd, page, PAGE, 10 * PAGE) == PAGE && pwrite(fd, page, PAGE, 20 * PAGE) == PAGE);
    CHECK(lseek(fd, 0, SEEK_HOLE) == 0 && lseek(fd, 0, SEEK_DATA) == 10 * PAGE);
    CHECK(lseek(fd, 10 * PAGE + 7, SEEK_DATA) == 10 * PAGE + 7);
    CHECK(lseek(fd, 10 * PAGE, SEEK_HOLE) == 11 * PAGE);
    CHECK(lseek(fd, 11 * PAGE + 5, SEEK_HOLE) == 11 * PAGE + 5);
    CHECK(lseek(fd, 11 * PAGE, SEEK_DATA) == 20 * PAGE);
    REFUSED(lseek(fd, 21 * PAGE, SEEK_DATA), ENXIO);
    REFUSED(lseek(fd, 40 * PAGE, SEEK_HOLE), ENXIO);
    REFUSED(lseek(fd, -1, SEEK_DATA), ENXIO);
    CHECK(lseek(fd, 40 * PAGE - 1, SEEK_HOLE) == 40 * PAGE - 1);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10 * PAGE, PAGE) == 0);
    CHECK(lseek(fd, 0, SEEK_DATA) == 20 * PAGE && close(fd) == 0);
}

static void
copies(void)
{
    char text[32] = "";
    off_t from = 3, to = 8192;
    make_file("copy-from", "0123456789");
    int in = open("copy-from", O_RDWR), out = open("copy-to", O_RDWR | O_CREAT, 0644);
    CHECK(copy_file_range(in, &from, out, &to, 100, 0) == 7 && from == 10 && to == 8199);
    CHECK(pread(out, text, sizeof(text), 8190) == 9 && memcmp(text, "\0\0003456789", 9) == 0);
    CHECK(copy_file_range(in, &from, out, &to, 100, 0) == 0);
    from = 0, to = 6;
    CHECK(copy_file_range(in, &from, in, &to, 4, 0) == 4 && has_content("copy-from", "0123450123"));
    from = 0, to = 2;
    REFUSED(copy_file_range(in, &from, in, &to, 4, 0), EINVAL);
    from = to = 0;
    REFUSED(copy_file_range(in, &from, out, &to, 4, 1), EINVAL);
    close(out);
    out = open("copy-to", O_WRONLY | O_APPEND);
    REFUSED(copy_file_range(in, &from, out, NULL, 4, 0), EBADF);
    close(out);
    close(in);
}

// ---- directories that change --------------------------------------------------------------------

enum { KEPT = 800, COMING = 1500 };

static atomic_bool churning;

static void *
churn(void *unused)
{
    char path[64];
    for (unsigned i = 0; atomic_load(&churning); i++) {
        snprintf(path, sizeof(path), "churn/coming-%u", i % COMING);
        if (unlink(path) != 0)
            close(open(path, O_WRONLY | O_CREAT, 0644));
        snprintf(path, sizeof(path), "churn/moving-%u", i);
        rename("churn/moving", path);
        rename(path, "churn/moving");
    }
    return unused;
}

// What stays is seen exactly once.
static void
list_while_churning(DIR *d, unsigned round)
{
    static unsigned seen[KEPT];
    unsigned n, count = 0;
    memset(seen, 0, sizeof(seen));
    rewinddir(d);
    errno = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (sscanf(e->d_name, "kept-%u", &n) != 1)
            continue;
        seen[n]++;
        expect(seen[n] == 1, __LINE__, "round %u: %s comes %u times", round, e->d_name, seen[n]);
        count++;
    }
    expect(errno == 0 && count == KEPT, __LINE__, "round %u: %u entries of %d", round, count, KEPT);
}

static void
directories_that_change(void)
{
    char path[64];
    pthread_t thread;
    CHECK(mkdir("churn", 0755) == 0);
    for (int i = 0; i < KEPT; i++) {
        snprintf(path, sizeof(path), "churn/kept-%d", i);
        make_file(path, "");
    }
    make_file("churn/moving", "");
    DIR *d = opendir("churn");
    atomic_store(&churning, true);
    CHECK(pthread_create(&thread, NULL, churn, NULL) == 0);
    for (unsigned round = 0; round < 20; round++)
        list_while_churning(d, round);
    atomic_store(&churning, false);
    pthread_join(thread, NULL);
    // Every position leads back to its entry, whatever has gone meanwhile.
    static long at[KEPT + COMING + 10];
    static char name[KEPT + COMING + 10][NAME_MAX + 1];
    unsigned count = 0;
    rewinddir(d);
    at[0] = telldir(d);
    for (struct dirent *e; (e = readdir(d)) && count < KEPT + COMING; at[++count] = telldir(d))
        snprintf(name[count], sizeof(name[0]), "%s", e->d_name);
    for (unsigned i = 0; i < count; i += 2)
        if (strncmp(name[i], "coming", 6) == 0) {
            snprintf(path, sizeof(path), "churn/%.50s", name[i]);
            CHECK(unlink(path) == 0);
            name[i][0] = '\0';
        }
    for (unsigned i = count; i-- > 0;) {
        seekdir(d, at[i]);
        struct dirent *e = readdir(d);
        if (name[i][0])
            expect(e && strcmp(e->d_name, name[i]) == 0, __LINE__, "%s at its position", name[i]);
    }
    closedir(d);
    CHECK(mkdir("removed", 0755) == 0);
    int fd = open("removed", O_RDONLY | O_DIRECTORY);
    CHECK(rmdir("removed") == 0 && stat_of("churn").st_nlink == 2);
    struct stat st;
    CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0);
    REFUSED(openat(fd, "new", O_CREAT | O_WRONLY, 0644), ENOENT);
    REFUSED(mkdirat(fd, "new", 0755), ENOENT);
    close(fd);
}

// ---- extended attributes ------------------------------------------------------------------------

static void
more_extended_attributes(void)
{
    static char value[65537], list[4096];
    char name[258] = "user.";
    make_file("attributed", "x");
    memset(name + 5, 'n', 250);
    CHECK(setxattr("attributed", name, "v", 1, 0) == 0);
    strcat(name, "n");
    REFUSED(setxattr("attributed", name, "v", 1, 0), ERANGE);
    REFUSED(setxattr("attributed", "unknown.name", "v", 1, 0), EOPNOTSUPP);
    REFUSED(setxattr("attributed", "nodot", "v", 1, 0), EOPNOTSUPP);
    REFUSED(setxattr("attributed", "system.unknown", "v", 1, 0), EOPNOTSUPP);
    REFUSED(setxattr("attributed", "user.", "v", 1, 0), EINVAL);
    memset(value, 'v', sizeof(value));
    REFUSED(setxattr("attributed", "user.large", value, 65537, 0), E2BIG);
    if (is_fuse) {
        CHECK(setxattr("attributed", "user.large", value, 65536, 0) == 0);
        CHECK(getxattr("attributed", "user.large", value, sizeof(value)) == 65536);
        CHECK(getxattr("attributed", "user.large", NULL, 0) == 65536);
    }
    if (geteuid() == 0) {
        CHECK(setxattr("attributed", "security.ckptfs", "s", 1, 0) == 0);
        CHECK(setxattr("attributed", "trusted.ckptfs", "t", 1, 0) == 0);
        ssize_t n = listxattr("attributed", list, sizeof(list));
        CHECK(n > 0 && memmem(list, (size_t)n, "trusted.ckptfs", 15));
    }
    REFUSED(listxattr("attributed", list, 5), ERANGE);
    CHECK(symlink("attributed", "attributed-link") == 0);
    REFUSED(lsetxattr("attributed-link", "user.x", "v", 1, 0), EPERM);
    if (geteuid() == 0)
        CHECK(lsetxattr("attributed-link", "trusted.x", "v", 1, 0) == 0);
    CHECK(setxattr("attributed-link", "user.followed", "v", 1, 0) == 0);
    CHECK(getxattr("attributed", "user.followed", value, 10) == 1);
    struct timespec before = stat_of("attributed").st_ctim;
    next_tick();
    CHECK(setxattr("attributed", "user.followed", "w", 1, XATTR_REPLACE) == 0);
    CHECK(later(stat_of("attributed").st_ctim, before));
}

// ---- synchronous, direct and mapped -------------------------------------------------------------

static void
synchronous_writes(void)
{
    static const int flags[] = {O_SYNC, O_DSYNC, O_SYNC | O_APPEND, O_DSYNC | O_DIRECT};
    static char page[4096] __attribute__((aligned(4096)));
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        int fd = open("synchronous", O_RDWR | O_CREAT | flags[i], 0644);
        CHECK(fd >= 0 && pwrite(fd, page, sizeof(page), (off_t)i * 4096) == 4096);
        CHECK(fdatasync(fd) == 0 && sync_file_range(fd, 0, 0,
                                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                            SYNC_FILE_RANGE_WAIT_AFTER) == 0);
        REFUSED(sync_file_range(fd, 0, 0, 0x80), EINVAL);
        CHECK(syncfs(fd) == 0 && close(fd) == 0);
    }
    CHECK(stat_of("synchronous").st_size == 4 * 4096);
}

// Whatever length and offset the kernel lets through, seen through every other way to read.
static void
direct_io(void)
{
    enum { BYTES = 1 << 16 };
    static char memory[BYTES + 4096] __attribute__((aligned(4096)));
    static char image[BYTES], got[BYTES];
    static const size_t cases[][3] = {{0, 4096, 0}, {4096, 8192, 0}, {512, 512, 0}, {1, 1, 1},
        {4095, 2, 3}, {511, 5000, 7}, {9000, 30000, 100}, {60000, 5536, 9}, {12288, 4096, 0}};
    int direct = open("direct", O_RDWR | O_CREAT | O_DIRECT, 0644);
    int cached = open("direct", O_RDWR);
    CHECK(direct >= 0 && ftruncate(cached, BYTES) == 0);
    char *mapped = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, cached, 0);
    CHECK(mapped != MAP_FAILED);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t offset = cases[i][0], length = cases[i][1];
        char *from = memory + cases[i][2];
        if (!is_fuse && (offset % 4096 || length % 4096 || cases[i][2]))
            continue;
        memset(from, 'A' + (int)i, length);
        memset(image + offset, 'A' + (int)i, length);
        CHECK(pwrite(direct, from, length, (off_t)offset) == (ssize_t)length);
        CHECK(memcmp(mapped, image, BYTES) == 0);
        CHECK(pread(cached, got, BYTES, 0) == BYTES && memcmp(got, image, BYTES) == 0);
        // A store through the mapping and a write through the cache, read directly.
        mapped[(i * 7777) % BYTES] = image[(i * 7777) % BYTES] = (char)('a' + i);
        image[(i * 5555 + 1) % BYTES] = (char)('n' + i);
        CHECK(pwrite(cached, &image[(i * 5555 + 1) % BYTES], 1, (off_t)((i * 5555 + 1) % BYTES)) ==
              1);
        CHECK(pread(direct, memory, BYTES, 0) == BYTES && memcmp(memory, image, BYTES) == 0);
        if (is_fuse)
            CHECK(pread(direct, memory + 1, length, (off_t)offset) == (ssize_t)length &&
                  memcmp(memory + 1, image + offset, length) == 0);
    }
    CHECK(munmap(mapped, BYTES) == 0 && fsync(cached) == 0);
    CHECK(close(direct) == 0 && close(cached) == 0);
}

static void
mappings(void)
{
    enum { PAGE = 4096 };
    char got[PAGE];
    int fd = open("mapped", O_RDWR | O_CREAT, 0644);
    CHECK(ftruncate(fd, PAGE + 100) == 0);
    char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    struct timespec before = stat_of("mapped").st_mtim;
    next_tick();
    memset(p, 'm', 2 * PAGE); // the bytes behind the end of the file are nobody's
    CHECK(msync(p, 2 * PAGE, MS_SYNC) == 0 && later(stat_of("mapped").st_mtim, before));
    CHECK(msync(p, PAGE, MS_ASYNC) == 0 && msync(p, PAGE, MS_SYNC | MS_INVALIDATE) == 0);
    REFUSED(msync(p, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
    CHECK(ftruncate(fd, 2 * PAGE) == 0 && pread(fd, got, PAGE, PAGE) == PAGE);
    CHECK(got[99] == 'm' && got[100] == 0 && got[PAGE - 1] == 0 && p[PAGE + 100] == 0);
    CHECK(ftruncate(fd, 50) == 0 && ftruncate(fd, 2 * PAGE) == 0 && p[49] == 'm' && p[50] == 0);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10, 20) == 0 && p[9] == 'm' &&
          p[10] == 0 && p[29] == 0 && p[30] == 'm');
    pid_t child = fork();
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGBUS, SIG_DFL);                         // a sanitizer may have taken it
        _exit(ftruncate(fd, PAGE) != 0 || p[PAGE] == 0); // SIGBUS behind the end
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    p[PAGE - 1] = 'z';
    char *private = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    private[0] = 'P';
    CHECK(munmap(private, PAGE) == 0 && munmap(p, 2 * PAGE) == 0 && fsync(fd) == 0);
    CHECK(pread(fd, got, PAGE, 0) == PAGE && got[0] == 'm' && got[PAGE - 1] == 'z');
    CHECK(close(fd) == 0);
}

static const struct check_group groups[] = {
    {"all renames", all_renames},
    {"names and targets", names_and_targets},
    {"special nodes", special_nodes},
    {"times", times},
    {"times of access", times_of_access},
    {"files without names", files_without_names},
    {"sizes", sizes},
    {"allocation", allocation},
    {"data and holes", data_and_holes},
    {"copies", copies},
    {"directories that change", directories_that_change},
    {"more extended attributes", more_extended_attributes},
    {"synchronous writes", synchronous_writes},
    {"direct reads and writes", direct_io},
    {"mappings", mappings},
};

int
main(int argc, char **argv)
{
    struct statfs st;
    if (argc != 2 || chdir(argv[1]) != 0 || statfs(".", &st) != 0) {
        fprintf(stderr, "usage: posix_more_check DIR\n");
        return 2;
    }
    is_fuse = st.f_type == FUSE_MAGIC;
    return run_groups(groups, sizeof(groups) / sizeof(groups[0]));
}
