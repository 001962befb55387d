// SPDX-License-Identifier: Apache-2.0
// Checks what goes wrong easily between the kernel's caches and the daemon, in the directory given:
// seeks over data that the kernel has not handed over yet, suid bits, appends by several writers,
// mappings, directories that change while they are read.
// Usage: kernel_cache_check DIRECTORY
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STRANGER 12345
#define ENTRIES  10000

static int failures;

static void
check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(
        stderr, "kernel_cache_check: failed: %s (errno %d, %s)\n", what, errno, strerror(errno));
    failures++;
}

static int
make(const char *name)
{
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0666);
    check(fd >= 0, name);
    return fd;
}

// ---- seeks --------------------------------------------------------------------------------------

static void
check_seeks(void)
{
    const off_t at = 4 << 20;
    int fd = make("sparse");
    check(ftruncate(fd, 16 << 20) == 0, "truncate");
    check(lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO, "an empty file has no data");
    check(pwrite(fd, "data", 4, at) == 4, "write");
    check(lseek(fd, 0, SEEK_DATA) == at, "data that was just written is found");
    check(lseek(fd, at, SEEK_HOLE) == at + 4096, "and the hole behind it");
    check(lseek(fd, at + 4096, SEEK_DATA) < 0 && errno == ENXIO, "which goes to the end");
    char *map = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(map != MAP_FAILED, "mmap");
    map[2 * at] = 'm';
    check(lseek(fd, at + 4096, SEEK_DATA) == 2 * at, "data written through a mapping is found");
    map[2 * at + 1] = 'n';
    char back[2];
    check(pread(fd, back, 2, 2 * at) == 2 && memcmp(back, "mn", 2) == 0, "mappings go on");
    munmap(map, 16 << 20);
    close(fd);
    fd = open("sparse", O_RDONLY);
    check(lseek(fd, 0, SEEK_DATA) == at, "a file that nobody writes answers as well");
    check(lseek(fd, 16 << 20, SEEK_DATA) < 0 && errno == ENXIO, "beyond the end is ENXIO");
    close(fd);
}

// ---- blocks -------------------------------------------------------------------------------------

static off_t
bytes_shown(int fd)
{
    struct stat st;
    check(fstat(fd, &st) == 0, "stat");
    return (off_t)st.st_blocks * 512;
}

// A file that stays open while it grows shows at least what the kernel has handed over.
static void
check_blocks(void)
{
    static char data[100000];
    off_t size = 0;
    int fd = make("grows");
    memset(data, 'g', sizeof(data));
    check(bytes_shown(fd) > 0, "a file that is open for writing may have data");
    for (size_t n = 1; size < 20 << 20; n = n < sizeof(data) ? n * 2 + 1 : sizeof(data)) {
        check(pwrite(fd, data, n < sizeof(data) ? n : sizeof(data), size) > 0, "write");
        size += (off_t)(n < sizeof(data) ? n : sizeof(data));
        check(fdatasync(fd) == 0, "fdatasync");
        if (bytes_shown(fd) < size)
            check(false, "blocks of a file that grows");
        check(bytes_shown(fd) <= 2 * size + (140 << 10), "and not many more");
    }
    close(fd);
    fd = make("grows in holes");
    check(ftruncate(fd, 64 << 20) == 0, "truncate");
    for (off_t at = 0; at < 32 << 20; at += 1 << 20) {
        check(pwrite(fd, data, sizeof(data), at) == sizeof(data), "write into a hole");
        check(fdatasync(fd) == 0, "fdatasync");
        if (bytes_shown(fd) < (at / (1 << 20) + 1) * (off_t)sizeof(data))
            check(false, "blocks of a file with holes");
        check(bytes_shown(fd) < 64 << 20, "it still has holes");
    }
    check(fallocate(fd, FALLOC_FL_KEEP_SIZE, 64 << 20, 1 << 20) == 0, "fallocate");
    check(bytes_shown(fd) > 1 << 20, "what is allocated behind the end has blocks");
    close(fd);
    fd = make("allocated");
    check(posix_fallocate(fd, 0, 3 << 20) == 0, "posix_fallocate");
    check(bytes_shown(fd) >= 3 << 20, "what is allocated has blocks");
    close(fd);
}

// ---- suid ---------------------------------------------------------------------------------------

enum writing { WRITE, APPEND, SYNCHRONOUS, DIRECT, TRUNCATE_AT_OPEN, TRUNCATE, WRITINGS };

static void
write_suid_file(enum writing how)
{
    static const int flags[WRITINGS] = {[WRITE] = 0,
        [APPEND] = O_APPEND,
        [SYNCHRONOUS] = O_DSYNC,
        [DIRECT] = O_DIRECT,
        [TRUNCATE_AT_OPEN] = O_TRUNC,
        [TRUNCATE] = 0};
    static char block[4096] __attribute__((aligned(4096)));
    int fd = open("suid", O_WRONLY | flags[how]);
    if (fd < 0)
        exit(1);
    if (how == TRUNCATE && ftruncate(fd, 5) < 0)
        exit(2);
    if (how < TRUNCATE_AT_OPEN && write(fd, block, sizeof(block)) != (ssize_t)sizeof(block))
        exit(3);
    close(fd);
}

// Root gives up its rights in the child; who is not root has none to give up.
static void
write_as_stranger(enum writing how)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 &&
            (setgroups(0, NULL) < 0 || setgid(STRANGER) < 0 || setuid(STRANGER) < 0))
            exit(4);
        write_suid_file(how);
        exit(0);
    }
    check(waitpid(child, &status, 0) == child && status == 0, "write as a stranger");
}

static mode_t
mode_of(const char *name)
{
    struct stat st = {0};
    check(stat(name, &st) == 0, "stat");
    return st.st_mode & 07777;
}

static void
check_suid(void)
{
    static const char *const names[WRITINGS] = {"a write clears suid", "an append clears suid",
        "a synchronous write clears suid", "a direct write clears suid",
        "truncating at open clears suid", "truncating clears suid"};
    for (int how = 0; how < WRITINGS; how++) {
        int fd = make("suid");
        check(write(fd, names[0], 10) == 10, "write");
        close(fd);
        check(chmod("suid", 06777) == 0 && mode_of("suid") == 06777, "chmod");
        write_as_stranger((enum writing)how);
        check(mode_of("suid") == 0777, names[how]);
    }
    if (geteuid() != 0)
        return;
    check(chmod("suid", 06777) == 0, "chmod");
    write_suid_file(WRITE);
    write_suid_file(TRUNCATE_AT_OPEN);
    check(mode_of("suid") == 06777, "root's writing keeps suid");
    check(chown("suid", STRANGER, STRANGER) == 0 && mode_of("suid") == 0777, "chown clears suid");
}

// ---- several writers ----------------------------------------------------------------------------

#define APPENDERS 4
#define APPENDS   500

static void
check_appends(void)
{
    close(make("appended"));
    for (int i = 0; i < APPENDERS; i++)
        if (fork() == 0) {
            char record[16];
            memset(record, 'a' + i, sizeof(record));
            int fd = open("appended", O_WRONLY | O_APPEND);
            for (int n = 0; n < APPENDS; n++)
                if (write(fd, record, sizeof(record)) != (ssize_t)sizeof(record))
                    exit(1);
            exit(0);
        }
    for (int i = 0; i < APPENDERS; i++) {
        int status = -1;
        check(wait(&status) > 0 && status == 0, "append");
    }
    int fd = open("appended", O_RDONLY);
    char record[16];
    int whole = 0;
    while (read(fd, record, sizeof(record)) == (ssize_t)sizeof(record)) {
        bool same = true;
        for (size_t i = 1; i < sizeof(record); i++)
            same = same && record[i] == record[0];
        whole += same;
    }
    check(whole == APPENDERS * APPENDS, "appends of several writers are all there, in one piece");
    close(fd);
}

// ---- directories --------------------------------------------------------------------------------

// Reads the directory with a small buffer; how many entries there are besides "." and "..".
static int
count_entries(int fd)
{
    char buffer[400];
    int count = 0;
    lseek(fd, 0, SEEK_SET);
    for (;;) {
        long n = syscall(SYS_getdents64, fd, buffer, sizeof(buffer));
        check(n >= 0, "getdents64");
        if (n <= 0)
            return count - 2;
        for (long at = 0; at < n; count++) {
            unsigned short length;
            memcpy(&length, buffer + at + 16, sizeof(length));
            at += length;
        }
    }
}

static void
check_directory(void)
{
    char name[64];
    check(mkdir("large", 0777) == 0, "mkdir");
    for (int i = 0; i < ENTRIES; i++) {
        snprintf(name, sizeof(name), "large/entry-%05d-%.*s", i, i % 40,
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
        close(make(name));
    }
    int fd = open("large", O_RDONLY | O_DIRECTORY);
    check(count_entries(fd) == ENTRIES, "a large directory is read as a whole");
    check(count_entries(fd) == ENTRIES, "and again, from the cache");
    check(unlink("large/entry-00000-") == 0, "unlink");
    check(count_entries(fd) == ENTRIES - 1, "what is gone is not listed");
    check(access("large/new", F_OK) < 0 && errno == ENOENT, "what is not there is not found");
    close(make("large/new"));
    check(access("large/new", F_OK) == 0, "until it is made");
    check(count_entries(fd) == ENTRIES, "what is new is listed");
    close(fd);
    DIR *directory = opendir("large");
    struct dirent *entry;
    while ((entry = readdir(directory)))
        if (entry->d_name[0] != '.')
            check(unlinkat(dirfd(directory), entry->d_name, 0) == 0, "unlink while reading");
    closedir(directory);
    check(rmdir("large") == 0, "rmdir");
}

int
main(int argc, char *argv[])
{
    umask(0);
    if (argc != 2 || chdir(argv[1]) < 0) {
        fprintf(stderr, "Usage: kernel_cache_check DIRECTORY\n");
        return 1;
    }
    check_seeks();
    check_blocks();
    check_suid();
    check_appends();
    check_directory();
    return failures ? 1 : 0;
}
