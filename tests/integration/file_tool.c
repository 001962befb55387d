// SPDX-License-Identifier: Apache-2.0
// Small jobs on files that a shell does too slowly or not at all. See the table at the end.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define BLOCK_BYTES (1u << 20)

static _Noreturn void __attribute__((format(printf, 1, 2))) die(const char *format, ...)
{
    int error = errno;
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, ": %s\n", strerror(error));
    exit(1);
}

static uint64_t
number(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 0);
    if (end == text || *end) {
        fprintf(stderr, "not a number: %s\n", text);
        exit(2);
    }
    return n;
}

static uint64_t
mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// FNV-1a over words; for comparing trees, not for security.
static uint64_t
hash_bytes(uint64_t hash, const uint8_t *p, size_t n)
{
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        hash = mix(hash ^ word);
    }
    for (; n > 0; p++, n--)
        hash = mix(hash ^ *p);
    return hash;
}

static void
write_all(int fd, const uint8_t *p, size_t n, uint64_t offset, const char *path)
{
    while (n > 0) {
        ssize_t written = pwrite(fd, p, n, (off_t)offset);
        if (written < 0)
            die("write %s", path);
        p += written;
        n -= (size_t)written;
        offset += (uint64_t)written;
    }
}

static uint8_t *
allocate(size_t n)
{
    uint8_t *p = malloc(n);
    if (!p)
        die("malloc");
    return p;
}

// ---- digest -------------------------------------------------------------------------------------

static uint64_t
hash_content(const char *path)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW);
    if (fd < 0)
        die("open %s", path);
    uint8_t *block = allocate(BLOCK_BYTES);
    uint64_t hash = 0xcbf29ce484222325u;
    ssize_t got;
    while ((got = read(fd, block, BLOCK_BYTES)) > 0)
        hash = hash_bytes(hash, block, (size_t)got);
    if (got < 0)
        die("read %s", path);
    free(block);
    close(fd);
    return hash;
}

static int
compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Sorted names of a directory; *count_out of them.
static char **
list_directory(const char *path, size_t *count_out)
{
    DIR *directory = opendir(path);
    if (!directory)
        die("opendir %s", path);
    char **names = NULL;
    size_t count = 0, capacity = 0;
    struct dirent *entry;
    while (errno = 0, (entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (count == capacity) {
            capacity = capacity ? capacity * 2 : 64;
            names = realloc(names, capacity * sizeof(*names));
            if (!names)
                die("realloc");
        }
        names[count++] = strdup(entry->d_name);
    }
    if (errno)
        die("readdir %s", path);
    closedir(directory);
    if (count)
        qsort(names, count, sizeof(*names), compare_names);
    *count_out = count;
    return names;
}

static void
free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static void
print_xattrs(const char *path)
{
    char list[65536], value[65536];
    ssize_t length = llistxattr(path, list, sizeof(list));
    if (length < 0 && errno != EOPNOTSUPP)
        die("listxattr %s", path);
    char *names[1024];
    size_t count = 0;
    for (ssize_t at = 0; at < length && count < 1024; at += (ssize_t)strlen(list + at) + 1)
        names[count++] = list + at;
    if (count)
        qsort(names, count, sizeof(*names), compare_names);
    for (size_t i = 0; i < count; i++) {
        ssize_t size = lgetxattr(path, names[i], value, sizeof(value));
        if (size < 0)
            die("getxattr %s of %s", names[i], path);
        printf(" %s=%zd/%016" PRIx64, names[i], size,
            hash_bytes(1, (const uint8_t *)value, (size_t)size));
    }
}

// What chattr sets. Devices and fifos have none, and opening them is not harmless.
static int
flags_of(const char *path, const struct stat *st)
{
    int flags = 0;
    if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode))
        return 0;
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        die("open %s", path);
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0)
        flags = 0;
    close(fd);
    return flags & (FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL);
}

// The kernel's write-back cache for FUSE does not know that setting flags changes the ctime: it
// shows when the kernel asks anew.
static void
print_flags_or_ctime(const char *path, const struct stat *st)
{
    int flags = flags_of(path, st);
    if (flags)
        printf(" flags=%#x", (unsigned)flags);
    else
        printf(" ctime=%lld.%09ld", (long long)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
}

// Directories are shown without their size, link count of 1 or more and atime: these are free.
static void
digest(const char *path, const char *shown)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        die("lstat %s", path);
    printf("%s %06o %u:%u mtime=%lld.%09ld ino=%llu", shown, st.st_mode, st.st_uid, st.st_gid,
        (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (unsigned long long)st.st_ino);
    print_flags_or_ctime(path, &st);
    if (!S_ISDIR(st.st_mode))
        printf(" links=%ju size=%jd", (uintmax_t)st.st_nlink, (intmax_t)st.st_size);
    if (S_ISREG(st.st_mode))
        printf(" content=%016" PRIx64, hash_content(path));
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
        printf(" rdev=%jx", (uintmax_t)st.st_rdev);
    if (S_ISLNK(st.st_mode)) {
        char target[4097];
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        if (n < 0)
            die("readlink %s", path);
        printf(" -> %.*s", (int)n, target);
    }
    print_xattrs(path);
    putchar('\n');
    if (!S_ISDIR(st.st_mode))
        return;
    size_t count;
    char **names = list_directory(path, &count);
    for (size_t i = 0; i < count; i++) {
        char *below, *shown_below;
        if (asprintf(&below, "%s/%s", path, names[i]) < 0 ||
            asprintf(&shown_below, "%s/%s", shown, names[i]) < 0)
            die("asprintf");
        digest(below, shown_below);
        free(below);
        free(shown_below);
    }
    free_names(names, count);
}

static void
run_digest(char **argv)
{
    digest(argv[0], ".");
}

// ---- many files ---------------------------------------------------------------------------------

#define FILES_IN_DIRECTORY 5000

static size_t
many_content(uint64_t i, char *out, size_t size)
{
    return (size_t)snprintf(out, size, "file %" PRIu64 " %016" PRIx64 "\n", i, mix(i));
}

static void
run_make_many(char **argv)
{
    uint64_t count = number(argv[1]);
    char path[4096], text[64];
    for (uint64_t i = 0; i < count; i++) {
        uint64_t d = i / FILES_IN_DIRECTORY;
        if (i % FILES_IN_DIRECTORY == 0) {
            snprintf(path, sizeof(path), "%s/d%" PRIu64, argv[0], d);
            if (mkdir(path, 0755) != 0)
                die("mkdir %s", path);
        }
        snprintf(path, sizeof(path), "%s/d%" PRIu64 "/file-%" PRIu64, argv[0], d, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
        if (fd < 0)
            die("create %s", path);
        size_t n = many_content(i, text, sizeof(text));
        write_all(fd, (const uint8_t *)text, n, 0, path);
        if (close(fd) != 0)
            die("close %s", path);
    }
}

// Lists and stats everything, and reads every STRIDE-th file.
static void
run_check_many(char **argv)
{
    uint64_t count = number(argv[1]), stride = number(argv[2]), seen = 0;
    for (uint64_t d = 0; d * FILES_IN_DIRECTORY < count; d++) {
        char path[4096], expected[64], text[64];
        snprintf(path, sizeof(path), "%s/d%" PRIu64, argv[0], d);
        size_t entries;
        char **names = list_directory(path, &entries);
        for (size_t i = 0; i < entries; i++, seen++) {
            struct stat st;
            snprintf(path, sizeof(path), "%s/d%" PRIu64 "/%s", argv[0], d, names[i]);
            if (stat(path, &st) != 0)
                die("stat %s", path);
            uint64_t n = number(names[i] + strlen("file-"));
            size_t length = many_content(n, expected, sizeof(expected));
            if (n / FILES_IN_DIRECTORY != d || (uint64_t)st.st_size != length) {
                fprintf(stderr, "%s: wrong place or size %jd\n", path, (intmax_t)st.st_size);
                exit(1);
            }
            if (n % stride != 0)
                continue;
            int fd = open(path, O_RDONLY);
            ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text));
            if (got < 0)
                die("read %s", path);
            close(fd);
            if ((size_t)got != length || memcmp(text, expected, length) != 0) {
                fprintf(stderr, "%s: wrong content\n", path);
                exit(1);
            }
        }
        free_names(names, entries);
    }
    if (seen != count) {
        fprintf(stderr, "%" PRIu64 " files, expected %" PRIu64 "\n", seen, count);
        exit(1);
    }
}

// ---- large files --------------------------------------------------------------------------------

// Compresses to about half: of each 64 bytes, 32 are random.
static void
large_block(uint64_t index, uint8_t *out)
{
    memset(out, 'x', BLOCK_BYTES);
    for (size_t i = 0; i < BLOCK_BYTES; i += 64)
        for (size_t j = 0; j < 32; j += 8) {
            uint64_t word = mix(index * BLOCK_BYTES + i + j + 1);
            memcpy(out + i + j, &word, 8);
        }
}

static void
run_write_large(char **argv)
{
    uint64_t blocks = number(argv[1]);
    uint8_t *block = allocate(BLOCK_BYTES);
    int fd = open(argv[0], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        die("create %s", argv[0]);
    for (uint64_t i = 0; i < blocks; i++) {
        large_block(i, block);
        write_all(fd, block, BLOCK_BYTES, i * BLOCK_BYTES, argv[0]);
    }
    if (fsync(fd) != 0 || close(fd) != 0)
        die("fsync %s", argv[0]);
    free(block);
}

static void
run_check_large(char **argv)
{
    uint64_t blocks = number(argv[1]);
    uint8_t *block = allocate(BLOCK_BYTES), *right = allocate(BLOCK_BYTES);
    int fd = open(argv[0], O_RDONLY);
    if (fd < 0)
        die("open %s", argv[0]);
    for (uint64_t i = 0; i <= blocks; i++) {
        size_t got = 0;
        ssize_t n;
        while (got < BLOCK_BYTES && (n = read(fd, block + got, BLOCK_BYTES - got)) > 0)
            got += (size_t)n;
        large_block(i, right);
        if (got != (i < blocks ? BLOCK_BYTES : 0) || memcmp(block, right, got) != 0) {
            fprintf(stderr, "%s: MiB %" PRIu64 " is wrong (%zu bytes)\n", argv[0], i, got);
            exit(1);
        }
    }
    free(block);
    free(right);
    close(fd);
}

#define SPARSE_PAGES 300u
#define SPARSE_PAGE  4096u

// Where page i of the sparse file stands: all over the size, some of them neighbours.
static uint64_t
sparse_offset(uint64_t i, uint64_t size)
{
    uint64_t pages = size / SPARSE_PAGE;
    return (mix(i / 3 + 77) % (pages - 3) + i % 3) * SPARSE_PAGE;
}

static void
sparse_page(uint64_t offset, uint8_t *out)
{
    for (size_t i = 0; i < SPARSE_PAGE; i += 8) {
        uint64_t word = mix(offset + i);
        memcpy(out + i, &word, 8);
    }
}

static void
run_write_sparse(char **argv)
{
    uint64_t size = number(argv[1]);
    uint8_t page[SPARSE_PAGE];
    int fd = open(argv[0], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        die("create %s", argv[0]);
    if (ftruncate(fd, (off_t)size) != 0)
        die("ftruncate %s", argv[0]);
    for (uint64_t i = 0; i < SPARSE_PAGES; i++) {
        uint64_t offset = sparse_offset(i, size);
        sparse_page(offset, page);
        write_all(fd, page, sizeof(page), offset, argv[0]);
    }
    if (fsync(fd) != 0 || close(fd) != 0)
        die("fsync %s", argv[0]);
}

static void
run_check_sparse(char **argv)
{
    uint64_t size = number(argv[1]);
    uint8_t page[SPARSE_PAGE], right[SPARSE_PAGE];
    int fd = open(argv[0], O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        die("open %s", argv[0]);
    if ((uint64_t)st.st_size != size) {
        fprintf(stderr, "%s: size %jd\n", argv[0], (intmax_t)st.st_size);
        exit(1);
    }
    if ((uint64_t)st.st_blocks * 512 > (uint64_t)SPARSE_PAGES * SPARSE_PAGE * 64) {
        fprintf(stderr, "%s: %jd blocks: not sparse any more\n", argv[0], (intmax_t)st.st_blocks);
        exit(1);
    }
    for (uint64_t i = 0; i < SPARSE_PAGES; i++) {
        uint64_t offset = sparse_offset(i, size);
        sparse_page(offset, right);
        if (pread(fd, page, sizeof(page), (off_t)offset) != (ssize_t)sizeof(page))
            die("read %s", argv[0]);
        if (memcmp(page, right, sizeof(page)) != 0) {
            fprintf(stderr, "%s: the page at %" PRIu64 " is wrong\n", argv[0], offset);
            exit(1);
        }
    }
    // Holes read as zeros: between every two of the pages' groups there is one almost surely.
    for (uint64_t i = 0; i < 200; i++) {
        uint64_t offset = mix(i + 123456) % (size / SPARSE_PAGE) * SPARSE_PAGE;
        bool written = false;
        for (uint64_t j = 0; j < SPARSE_PAGES && !written; j++)
            written = sparse_offset(j, size) == offset;
        if (written)
            continue;
        memset(right, 0, sizeof(right));
        if (pread(fd, page, sizeof(page), (off_t)offset) != (ssize_t)sizeof(page))
            die("read %s", argv[0]);
        if (memcmp(page, right, sizeof(page)) != 0) {
            fprintf(stderr, "%s: the hole at %" PRIu64 " is not zero\n", argv[0], offset);
            exit(1);
        }
    }
    close(fd);
}

// ---- damage and probes --------------------------------------------------------------------------

// Overwrites bytes with others that differ in every byte.
static void
run_garble(char **argv)
{
    uint64_t offset = number(argv[1]), length = number(argv[2]);
    int fd = open(argv[0], O_RDWR);
    if (fd < 0)
        die("open %s", argv[0]);
    for (uint64_t at = offset; at < offset + length; at++) {
        uint8_t byte;
        ssize_t got = pread(fd, &byte, 1, (off_t)at);
        if (got < 0)
            die("read %s", argv[0]);
        if (got == 0)
            break;
        byte ^= (uint8_t)(1 + mix(at) % 255);
        write_all(fd, &byte, 1, at, argv[0]);
    }
    close(fd);
}

// Prints the offset behind the last byte that is not zero.
static void
run_data_end(char **argv)
{
    uint8_t *block = allocate(BLOCK_BYTES);
    uint64_t offset = 0, end = 0;
    ssize_t got;
    int fd = open(argv[0], O_RDONLY);
    if (fd < 0)
        die("open %s", argv[0]);
    for (; (got = read(fd, block, BLOCK_BYTES)) > 0; offset += (uint64_t)got)
        for (ssize_t i = 0; i < got; i++)
            if (block[i])
                end = offset + (uint64_t)i + 1;
    if (got < 0)
        die("read %s", argv[0]);
    printf("%" PRIu64 "\n", end);
    free(block);
    close(fd);
}

static void
run_write_sync(char **argv)
{
    int fd = open(argv[0], O_WRONLY | O_CREAT, 0644);
    if (fd < 0)
        die("open %s", argv[0]);
    if (write(fd, "probe\n", 6) != 6)
        die("write %s", argv[0]);
    if (fsync(fd) != 0)
        die("fsync %s", argv[0]);
    if (close(fd) != 0)
        die("close %s", argv[0]);
}

static void
run_seek_data(char **argv)
{
    int fd = open(argv[0], O_RDWR);
    if (fd < 0)
        die("open %s", argv[0]);
    if (lseek(fd, 0, SEEK_DATA) < 0)
        die("seek %s", argv[0]);
}

// What is looked for has just been written, and the file system does not have it yet. Until
// something fails.
static void
run_seek_written(char **argv)
{
    int fd = open(argv[0], O_RDWR | O_CREAT, 0644);
    if (fd < 0)
        die("open %s", argv[0]);
    static char bytes[1 << 20];
    memset(bytes, 'x', sizeof(bytes));
    for (;;) {
        for (off_t i = 0; i < 24; i++)
            if (pwrite(fd, bytes, sizeof(bytes), i * (off_t)sizeof(bytes)) !=
                (ssize_t)sizeof(bytes))
                die("write %s", argv[0]);
        if (lseek(fd, 0, SEEK_HOLE) != 24 * (off_t)sizeof(bytes))
            die("seek %s", argv[0]);
    }
}

static const struct {
    const char *name;
    int arguments;
    void (*run)(char **argv);
    const char *help;
} commands[] = {
    {"digest", 1, run_digest, "DIR: everything one can see of a tree, one line an object"},
    {"make-many", 2, run_make_many, "DIR N: N small files"},
    {"check-many", 3, run_check_many, "DIR N STRIDE: lists N files, reads every STRIDE-th"},
    {"write-large", 2, run_write_large, "FILE MIB: content that compresses to about half"},
    {"check-large", 2, run_check_large, "FILE MIB"},
    {"write-sparse", 2, run_write_sparse, "FILE SIZE: pages all over a hole"},
    {"check-sparse", 2, run_check_sparse, "FILE SIZE"},
    {"garble", 3, run_garble, "FILE OFFSET LENGTH: changes every byte of the range"},
    {"data-end", 1, run_data_end, "FILE: the offset behind its last byte that is not zero"},
    {"seek-data", 1, run_seek_data, "FILE: opens it for reading and writing and looks for data"},
    {"seek-written", 1, run_seek_written, "FILE: writes and looks for data until that fails"},
    {"write-sync", 1, run_write_sync, "FILE: writes a few bytes and waits for them"},
};

int
main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (argc >= 2 && strcmp(argv[1], commands[i].name) == 0 &&
            argc == 2 + commands[i].arguments) {
            commands[i].run(argv + 2);
            if (fflush(stdout) != 0)
                die("stdout");
            return 0;
        }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        fprintf(stderr, "file_tool %s %s\n", commands[i].name, commands[i].help);
    return 2;
}
