// SPDX-License-Identifier: Apache-2.0
// What programs expect of a file system, tried out in an empty directory. Leaves a tree behind
// whose state can be compared after a remount.
//     posix_check DIR
#define _GNU_SOURCE
#include <dirent.h>
#include <limits.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "check.h"

static void
files_and_errors(void)
{
    make_file("plain", "hello");
    CHECK(has_content("plain", "hello"));
    REFUSED(open("plain", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
    REFUSED(open("missing", O_RDONLY), ENOENT);
    REFUSED(open("plain/below", O_RDONLY), ENOTDIR);
    REFUSED(open(".", O_WRONLY), EISDIR);
    char name[NAME_MAX + 2];
    memset(name, 'n', sizeof(name) - 1);
    name[NAME_MAX + 1] = '\0';
    REFUSED(open(name, O_CREAT | O_WRONLY, 0644), ENAMETOOLONG);
    name[NAME_MAX] = '\0';
    make_file(name, "a name of 255 bytes");
    CHECK(has_content(name, "a name of 255 bytes"));
    make_file("bytes \x01\xff\xfe in a name", "x");
    int fd = open("plain", O_RDWR | O_TRUNC);
    CHECK(fd >= 0 && stat_of("plain").st_size == 0);
    CHECK(pwrite(fd, "again", 5, 3) == 5 && stat_of("plain").st_size == 8);
    char got[8];
    CHECK(pread(fd, got, 8, 0) == 8 && memcmp(got, "\0\0\0again", 8) == 0);
    CHECK(pread(fd, got, 8, 100) == 0);
    close(fd);
}

static void
directories(void)
{
    CHECK(mkdir("dir", 0755) == 0);
    REFUSED(mkdir("dir", 0755), EEXIST);
    CHECK(mkdir("dir/below", 0700) == 0);
    REFUSED(rmdir("dir"), ENOTEMPTY);
    REFUSED(unlink("dir"), EISDIR);
    CHECK(S_ISDIR(stat_of("dir/below").st_mode) && (stat_of("dir/below").st_mode & 07777) == 0700);
    CHECK(stat_of("dir").st_nlink >= 1);
    CHECK(mkdir("gone", 0755) == 0 && rmdir("gone") == 0);
    REFUSED(rmdir("gone"), ENOENT);
    make_file("dir/below/file", "deep");
    REFUSED(rename("dir", "dir/below/dir"), EINVAL);
    CHECK(rename("dir/below", "moved-dir") == 0 && has_content("moved-dir/file", "deep"));
    CHECK(rename("moved-dir", "dir/below") == 0);
    int fd = open("dir", O_RDONLY | O_DIRECTORY);
    CHECK(fd >= 0 && fsync(fd) == 0);
    close(fd);
}

static void
links(void)
{
    make_file("original", "shared");
    CHECK(link("original", "second") == 0 && link("original", "dir/third") == 0);
    CHECK(stat_of("original").st_nlink == 3);
    CHECK(stat_of("original").st_ino == stat_of("dir/third").st_ino);
    REFUSED(link("original", "second"), EEXIST);
    REFUSED(link("dir", "dir-link"), EPERM);
    CHECK(unlink("original") == 0 && has_content("second", "shared"));
    CHECK(stat_of("second").st_nlink == 2);
    CHECK(symlink("../second", "dir/symbolic") == 0 && has_content("dir/symbolic", "shared"));
    CHECK(symlink("nowhere", "dangling") == 0);
    char target[64];
    CHECK(readlink("dangling", target, sizeof(target)) == 7 && memcmp(target, "nowhere", 7) == 0);
    CHECK(stat_of("dangling").st_size == 7);
    char long_target[1025];
    memset(long_target, 't', 1024);
    long_target[1024] = '\0';
    CHECK(symlink(long_target, "long-target") == 0 && stat_of("long-target").st_size == 1024);
    CHECK(mkfifo("fifo", 0640) == 0 && S_ISFIFO(stat_of("fifo").st_mode));
}

static void
renames(void)
{
    make_file("from", "new content");
    make_file("to", "old content");
    int old = open("to", O_RDONLY);
    CHECK(rename("from", "to") == 0 && has_content("to", "new content"));
    char text[16];
    CHECK(pread(old, text, 11, 0) == 11 && memcmp(text, "old content", 11) == 0);
    close(old);
    REFUSED(rename("from", "to"), ENOENT);
    make_file("exchange-1", "one");
    make_file("exchange-2", "two");
    CHECK(renameat2(AT_FDCWD, "exchange-1", AT_FDCWD, "exchange-2", RENAME_EXCHANGE) == 0);
    CHECK(has_content("exchange-1", "two") && has_content("exchange-2", "one"));
    REFUSED(renameat2(AT_FDCWD, "exchange-1", AT_FDCWD, "exchange-2", RENAME_NOREPLACE), EEXIST);
    if (geteuid() == 0) {
        struct stat st;
        make_file("covered", "below");
        REFUSED(renameat2(
                    AT_FDCWD, "covered", AT_FDCWD, "exchange-1", RENAME_WHITEOUT | RENAME_EXCHANGE),
            EINVAL);
        CHECK(renameat2(AT_FDCWD, "covered", AT_FDCWD, "uncovered", RENAME_WHITEOUT) == 0);
        CHECK(has_content("uncovered", "below"));
        CHECK(lstat("covered", &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == 0);
        CHECK(st.st_uid == geteuid() && st.st_nlink == 1);
        CHECK(unlink("covered") == 0);
    }
    REFUSED(rename("to", "dir"), EISDIR);
    REFUSED(rename("dir", "to"), ENOTDIR);
    CHECK(mkdir("empty", 0755) == 0 && mkdir("mover", 0755) == 0);
    make_file("mover/file", "in the mover");
    CHECK(rename("mover", "empty") == 0 && has_content("empty/file", "in the mover"));
    REFUSED(rename("empty", "dir"), ENOTEMPTY);
    CHECK(link("to", "same") == 0 && rename("to", "same") == 0);
    CHECK(has_content("to", "new content") && has_content("same", "new content"));
}

static void
unlink_while_open(void)
{
    int fd = open("orphan", O_RDWR | O_CREAT, 0600);
    CHECK(write(fd, "alive", 5) == 5 && unlink("orphan") == 0);
    REFUSED(open("orphan", O_RDONLY), ENOENT);
    char text[8];
    struct stat st;
    CHECK(pread(fd, text, 5, 0) == 5 && memcmp(text, "alive", 5) == 0);
    CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0 && st.st_size == 5);
    CHECK(pwrite(fd, "still", 5, 8192) == 5 && ftruncate(fd, 4096) == 0 && fsync(fd) == 0);
    CHECK(pread(fd, text, 5, 0) == 5 && memcmp(text, "alive", 5) == 0);
    CHECK(close(fd) == 0);
    fd = open(".", O_TMPFILE | O_RDWR, 0600);
    if (fd >= 0) {
        CHECK(write(fd, "x", 1) == 1);
        close(fd);
    } else {
        CHECK(errno == EOPNOTSUPP || errno == ENOSYS || errno == EISDIR);
    }
}

static void
truncates_and_holes(void)
{
    int fd = open("holes", O_RDWR | O_CREAT, 0644);
    char block[8192], got[8192];
    memset(block, 'b', sizeof(block));
    CHECK(pwrite(fd, block, sizeof(block), 0) == (ssize_t)sizeof(block));
    CHECK(ftruncate(fd, 5000) == 0 && ftruncate(fd, 8192) == 0);
    CHECK(pread(fd, got, 8192, 0) == 8192 && got[4999] == 'b');
    for (int i = 5000; i < 8192; i++)
        if (got[i] != 0) {
            CHECK(!"what a truncation cut off must not come back");
            break;
        }
    off_t far = (off_t)200 << 20;
    CHECK(pwrite(fd, "far", 3, far) == 3 && stat_of("holes").st_size == far + 3);
    CHECK(fsync(fd) == 0);
    CHECK(stat_of("holes").st_blocks * 512 < ((off_t)64 << 20));
    CHECK(lseek(fd, 1 << 20, SEEK_DATA) <= far && lseek(fd, 0, SEEK_HOLE) >= 5000);
    REFUSED(lseek(fd, far + 100, SEEK_DATA), ENXIO);
    CHECK(lseek(fd, 0, SEEK_HOLE) < far);
    CHECK(fallocate(fd, 0, far, 100000) == 0 && stat_of("holes").st_size == far + 100000);
    CHECK(fallocate(fd, FALLOC_FL_KEEP_SIZE, far, 500000) == 0 &&
          stat_of("holes").st_size == far + 100000);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 4000) == 0);
    CHECK(pread(fd, got, 8192, 0) == 8192 && got[99] == 'b' && got[100] == 0 && got[4099] == 0 &&
          got[4100] == 'b');
    REFUSED(ftruncate(fd, -1), EINVAL);
    CHECK(truncate("holes", 6000) == 0 && stat_of("holes").st_size == 6000);
    CHECK(ftruncate(fd, far) == 0 && fsync(fd) == 0 && close(fd) == 0);
}

static void
attributes(void)
{
    make_file("attributes", "x");
    CHECK(chmod("attributes", 04750) == 0 && (stat_of("attributes").st_mode & 07777) == 04750);
    struct timespec times[2] = {
        {.tv_sec = 1000000007, .tv_nsec = 123456789}, {.tv_sec = -86400, .tv_nsec = 987654321}};
    struct timespec before = stat_of("attributes").st_ctim;
    CHECK(utimensat(AT_FDCWD, "attributes", times, 0) == 0);
    struct stat st = stat_of("attributes");
    CHECK(st.st_atim.tv_sec == 1000000007 && st.st_atim.tv_nsec == 123456789);
    CHECK(st.st_mtim.tv_sec == -86400 && st.st_mtim.tv_nsec == 987654321);
    CHECK(st.st_ctim.tv_sec >= before.tv_sec);
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_nsec = UTIME_NOW;
    CHECK(utimensat(AT_FDCWD, "attributes", times, 0) == 0);
    st = stat_of("attributes");
    CHECK(st.st_atim.tv_sec == 1000000007 && st.st_mtim.tv_sec > 1600000000);
    if (geteuid() == 0) {
        CHECK(chown("attributes", 1234, 70000) == 0);
        st = stat_of("attributes");
        CHECK(st.st_uid == 1234 && st.st_gid == 70000 && (st.st_mode & S_ISUID) == 0);
        CHECK(mknod("device", S_IFCHR | 0600, 0x102) == 0 && stat_of("device").st_rdev == 0x102);
    }
    umask(027);
    int fd = open("masked", O_WRONLY | O_CREAT, 0777);
    umask(022);
    CHECK(fd >= 0 && (stat_of("masked").st_mode & 0777) == 0750);
    close(fd);
    CHECK(mkdir("setgid", 0755) == 0 && chmod("setgid", 02775) == 0);
    CHECK(mkdir("setgid/below", 0755) == 0 && (stat_of("setgid/below").st_mode & S_ISGID) != 0);
    st = stat_of("dir");
    make_file("dir/changes-mtime", "");
    struct stat after = stat_of("dir");
    CHECK(
        after.st_mtim.tv_sec > st.st_mtim.tv_sec ||
        (after.st_mtim.tv_sec == st.st_mtim.tv_sec && after.st_mtim.tv_nsec >= st.st_mtim.tv_nsec));
}

static void
permissions(void)
{
    if (geteuid() != 0)
        return;
    make_file("secret", "s");
    CHECK(chmod("secret", 0600) == 0);
    CHECK(mkdir("closed", 0700) == 0);
    make_file("closed/file", "x");
    pid_t child = fork();
    if (child == 0) {
        int wrong = setgid(65534) != 0 || setuid(65534) != 0;
        wrong |= open("secret", O_RDONLY) >= 0 || errno != EACCES;
        wrong |= open("closed/file", O_RDONLY) >= 0 || errno != EACCES;
        wrong |= open("new-of-nobody", O_CREAT | O_WRONLY, 0644) >= 0 || errno != EACCES;
        wrong |= chmod("plain", 0777) == 0 || errno != EPERM;
        wrong |= access("plain", R_OK) != 0;
        _exit(wrong);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void
extended_attributes(void)
{
    char value[70000], list[4096];
    make_file("xattrs", "x");
    CHECK(setxattr("xattrs", "user.one", "1", 1, 0) == 0);
    CHECK(setxattr("xattrs", "user.empty", "", 0, XATTR_CREATE) == 0);
    REFUSED(setxattr("xattrs", "user.one", "2", 1, XATTR_CREATE), EEXIST);
    REFUSED(setxattr("xattrs", "user.two", "2", 1, XATTR_REPLACE), ENODATA);
    memset(value, 'v', sizeof(value));
    CHECK(setxattr("xattrs", "user.big", value, 4000, 0) == 0);
    CHECK(getxattr("xattrs", "user.big", NULL, 0) == 4000);
    REFUSED(getxattr("xattrs", "user.big", value, 10), ERANGE);
    CHECK(getxattr("xattrs", "user.one", value, sizeof(value)) == 1 && value[0] == '1');
    REFUSED(getxattr("xattrs", "user.none", value, sizeof(value)), ENODATA);
    CHECK(
        setxattr("xattrs", "user.gone", "x", 1, 0) == 0 && removexattr("xattrs", "user.gone") == 0);
    REFUSED(removexattr("xattrs", "user.gone"), ENODATA);
    ssize_t n = listxattr("xattrs", list, sizeof(list));
    CHECK(n == (ssize_t)(sizeof("user.one") + sizeof("user.empty") + sizeof("user.big")));
    CHECK(setxattr("dir", "user.of-a-directory", "d", 1, 0) == 0);
}

static void
shared_mappings(void)
{
    int fd = open("mapped", O_RDWR | O_CREAT, 0644);
    CHECK(fd >= 0 && ftruncate(fd, 3 * 4096) == 0);
    char *a = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *b = mmap(NULL, 3 * 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(a != MAP_FAILED && b != MAP_FAILED);
    if (a == MAP_FAILED || b == MAP_FAILED)
        return;
    memcpy(a + 4090, "across a page", 13);
    CHECK(memcmp(b + 4090, "across a page", 13) == 0);
    char got[16] = "";
    CHECK(pread(fd, got, 13, 4090) == 13 && memcmp(got, "across a page", 13) == 0);
    CHECK(pwrite(fd, "by pwrite", 9, 100) == 9 && memcmp(b + 100, "by pwrite", 9) == 0);
    pid_t child = fork();
    if (child == 0) {
        a[8192] = 'c';
        _exit(msync(a, 3 * 4096, MS_SYNC) != 0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0 && b[8192] == 'c');
    CHECK(munmap(a, 3 * 4096) == 0 && munmap(b, 3 * 4096) == 0 && close(fd) == 0);
    fd = open("mapped", O_RDONLY);
    CHECK(pread(fd, got, 1, 8192) == 1 && got[0] == 'c');
    close(fd);
}

// Runs `try_lock` in another process; true when it got the lock.
static bool
child_gets(int (*try_lock)(int fd))
{
    pid_t child = fork();
    if (child == 0) {
        int fd = open("locked", O_RDWR);
        _exit(fd < 0 ? 2 : try_lock(fd) == 0 ? 0 : errno == EAGAIN || errno == EACCES ? 1 : 3);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) < 2);
    return status == 0;
}

static int
lock_range(int fd, int command, short type, off_t start, off_t length)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return fcntl(fd, command, &lock);
}

static int
try_posix_lock(int fd)
{
    return lock_range(fd, F_SETLK, F_WRLCK, 10, 5);
}

static int
try_ofd_lock(int fd)
{
    return lock_range(fd, F_OFD_SETLK, F_WRLCK, 10, 5);
}

static int
try_posix_read_lock(int fd)
{
    return lock_range(fd, F_SETLK, F_RDLCK, 10, 5);
}

static int
try_flock(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB);
}

static void
locks(void)
{
    make_file("locked", "0123456789012345678901234567890");
    int fd = open("locked", O_RDWR);
    CHECK(lock_range(fd, F_SETLK, F_WRLCK, 0, 12) == 0);
    CHECK(!child_gets(try_posix_lock) && !child_gets(try_ofd_lock));
    CHECK(lock_range(fd, F_SETLK, F_UNLCK, 10, 2) == 0 && child_gets(try_posix_lock));
    CHECK(lock_range(fd, F_SETLK, F_RDLCK, 0, 20) == 0);
    CHECK(child_gets(try_posix_read_lock) && !child_gets(try_posix_lock));
    CHECK(lock_range(fd, F_SETLK, F_UNLCK, 0, 0) == 0);
    CHECK(lock_range(fd, F_OFD_SETLK, F_WRLCK, 0, 0) == 0 && !child_gets(try_posix_lock));
    CHECK(close(fd) == 0 && child_gets(try_posix_lock));
    fd = open("locked", O_RDWR);
    CHECK(flock(fd, LOCK_EX) == 0 && !child_gets(try_flock));
    CHECK(flock(fd, LOCK_UN) == 0 && child_gets(try_flock));
    close(fd);
}

static void
appends(void)
{
    enum { WRITERS = 4, LINES = 200 };
    int fd = open("appended", O_WRONLY | O_CREAT | O_APPEND, 0644);
    pid_t children[WRITERS];
    for (int w = 0; w < WRITERS; w++) {
        children[w] = fork();
        if (children[w] == 0) {
            int mine = open("appended", O_WRONLY | O_APPEND);
            char line[17];
            for (int i = 0; i < LINES; i++) {
                snprintf(line, sizeof(line), "writer %d: %05d\n", w, i);
                if (write(mine, line, 16) != 16)
                    _exit(1);
            }
            _exit(0);
        }
    }
    for (int w = 0; w < WRITERS; w++) {
        int status = -1;
        CHECK(waitpid(children[w], &status, 0) == children[w] && status == 0);
    }
    CHECK(pwrite(fd, "writer 9: 00000\n", 16, 0) == 16);
    CHECK(stat_of("appended").st_size == 16 * (WRITERS * LINES + 1));
    close(fd);
    FILE *f = fopen("appended", "r");
    char line[64];
    int next[WRITERS] = {0}, w, i;
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "writer %d: %d", &w, &i) == 2 && w < WRITERS)
            CHECK(next[w]++ == i);
    for (w = 0; w < WRITERS; w++)
        CHECK(next[w] == LINES);
    if (f)
        fclose(f);
}

// A directory that shrinks while it is read: every entry is seen once.
static void
big_directory(void)
{
    enum { ENTRIES = 3000 };
    static char seen[ENTRIES];
    char path[64];
    CHECK(mkdir("big", 0755) == 0);
    for (int i = 0; i < ENTRIES; i++) {
        snprintf(path, sizeof(path), "big/entry-%d", i);
        make_file(path, "");
    }
    DIR *directory = opendir("big");
    struct dirent *entry;
    int count = 0;
    while ((entry = readdir(directory))) {
        int i;
        if (sscanf(entry->d_name, "entry-%d", &i) != 1)
            continue;
        expect(i >= 0 && i < ENTRIES && !seen[i], __LINE__, "%s comes twice", entry->d_name);
        if (i >= 0 && i < ENTRIES)
            seen[i] = 1;
        count++;
        if (i % 3 == 0)
            continue;
        snprintf(path, sizeof(path), "big/entry-%d", i);
        CHECK(unlink(path) == 0);
    }
    expect(count == ENTRIES, __LINE__, "%d entries seen of %d", count, ENTRIES);
    rewinddir(directory);
    for (count = 0; (entry = readdir(directory));)
        count += strncmp(entry->d_name, "entry-", 6) == 0;
    expect(count == ENTRIES / 3, __LINE__, "%d entries left of %d", count, ENTRIES / 3);
    rewinddir(directory);
    long at = -1;
    for (int i = 0; i < 500 && (entry = readdir(directory)); i++)
        at = telldir(directory);
    entry = readdir(directory);
    char name[256] = "";
    if (entry)
        snprintf(name, sizeof(name), "%s", entry->d_name);
    seekdir(directory, at);
    entry = readdir(directory);
    CHECK(entry && strcmp(entry->d_name, name) == 0);
    closedir(directory);
}

static void
space(void)
{
    struct statvfs st;
    CHECK(statvfs(".", &st) == 0 && st.f_blocks > 0 && st.f_bfree <= st.f_blocks);
    CHECK(st.f_bsize >= 512 && st.f_namemax == NAME_MAX && st.f_bavail > 0);
}

static const struct check_group groups[] = {
    {"files and errors", files_and_errors},
    {"directories", directories},
    {"links", links},
    {"renames", renames},
    {"unlink while open", unlink_while_open},
    {"truncation and holes", truncates_and_holes},
    {"attributes", attributes},
    {"permissions", permissions},
    {"extended attributes", extended_attributes},
    {"shared mappings", shared_mappings},
    {"locks between processes", locks},
    {"appends", appends},
    {"a directory read while it shrinks", big_directory},
    {"statfs", space},
};

int
main(int argc, char **argv)
{
    if (argc != 2 || chdir(argv[1]) != 0) {
        fprintf(stderr, "usage: posix_check DIR\n");
        return 2;
    }
    return run_groups(groups, sizeof(groups) / sizeof(groups[0]));
}
