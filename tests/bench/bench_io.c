// SPDX-License-Identifier: Apache-2.0
// Operations on files that a shell cannot time.
//     bench_io create DIR SECONDS         create a file, write 4 KiB, fsync, close, unlink
//     bench_io names DIR COUNT            makes that many empty files
//     bench_io stat DIR COUNT SECONDS     stat of the first COUNT of them, over and over
//     bench_io readdir DIR                reads all names of a new opened directory, once
//     bench_io chunks DIR COUNT           a page in each of COUNT chunks of 64 MiB, in sparse files
//     bench_io spread PATH COUNT [SEED]   reads of 4 KiB at COUNT random places of a file
//     bench_io point PATH MIB SECONDS     reads of 4 KiB at random in the first MIB, O_DIRECT
//     bench_io times DIR WHAT COUNT       COUNT times, untimed: write (4 KiB at random and
//                                         fdatasync), create, stat, read (4 KiB at random)
//     bench_io cpu PATH                   CPU of LZ4 and SHA-256 over a file, frame by frame
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "bench_common.h"
#include "format/compress.h"

#define FRAME       65536u
#define FILE_CHUNKS 16384u

static void
create(const char *directory, uint64_t seconds)
{
    char path[4096], data[4096];
    struct bench_series s = {0};
    uint64_t end = bench_now_ns() + seconds * 1000000000u;
    memset(data, 'c', sizeof(data));
    for (uint64_t i = 0, now; (now = bench_now_ns()) < end; i++) {
        snprintf(path, sizeof(path), "%s/created-%" PRIu64, directory, i % 1000);
        int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0 || write(fd, data, sizeof(data)) != (ssize_t)sizeof(data) || fsync(fd) != 0 ||
            close(fd) != 0 || unlink(path) != 0)
            bench_fail("create", path);
        bench_add(&s, now, bench_now_ns());
    }
    bench_report(&s);
}

static void
name_path(char *path, size_t size, const char *directory, uint64_t i)
{
    snprintf(path, size, "%s/name-%06" PRIu64, directory, i);
}

static void
names(const char *directory, uint64_t count)
{
    char path[4096];
    struct bench_series s = {0};
    for (uint64_t i = 0; i < count; i++) {
        uint64_t now = bench_now_ns();
        name_path(path, sizeof(path), directory, i);
        int fd = open(path, O_CREAT | O_WRONLY, 0644);
        if (fd < 0 || close(fd) != 0)
            bench_fail("create", path);
        bench_add(&s, now, bench_now_ns());
    }
    bench_report(&s);
}

static void
stat_names(const char *directory, uint64_t count, uint64_t seconds)
{
    char path[4096];
    struct stat st;
    struct bench_series s = {0};
    uint64_t end = bench_now_ns() + seconds * 1000000000u;
    for (uint64_t now; (now = bench_now_ns()) < end;) {
        for (uint64_t i = 0; i < count; i++) {
            name_path(path, sizeof(path), directory, i);
            if (stat(path, &st) != 0)
                bench_fail("stat", path);
        }
        bench_add(&s, now, bench_now_ns());
    }
    double seconds_taken = (double)(s.ended_ns - s.began_ns) / 1e9;
    printf("{\"per_second\": %.3f}\n", (double)(s.count * count) / seconds_taken);
    free(s.took_ns);
}

static void
read_directory(const char *directory)
{
    uint64_t began = bench_now_ns(), count = 0;
    DIR *d = opendir(directory);
    if (!d)
        bench_fail("opendir", directory);
    while (errno = 0, readdir(d))
        count++;
    if (errno != 0)
        bench_fail("readdir", directory);
    closedir(d);
    double seconds = (double)(bench_now_ns() - began) / 1e9;
    printf("{\"count\": %" PRIu64 ", \"seconds\": %.6f, \"per_second\": %.3f}\n", count, seconds,
        (double)count / seconds);
}

static void
chunks(const char *directory, uint64_t count)
{
    char path[4096];
    uint8_t page[4096];
    uint64_t random = 77;
    int fd = -1;
    for (uint64_t i = 0; i < count; i++) {
        if (i % FILE_CHUNKS == 0) {
            if (fd >= 0 && close(fd) != 0)
                bench_fail("close", path);
            snprintf(path, sizeof(path), "%s/sparse-%" PRIu64, directory, i / FILE_CHUNKS);
            fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
            if (fd < 0)
                bench_fail("create", path);
        }
        for (size_t k = 0; k < sizeof(page); k += 8)
            memcpy(page + k, &(uint64_t){bench_random(&random)}, 8);
        if (pwrite(fd, page, sizeof(page), (off_t)(i % FILE_CHUNKS * CHUNK_BYTES)) != sizeof(page))
            bench_fail("write", path);
    }
    if (fd >= 0 && (fsync(fd) != 0 || close(fd) != 0))
        bench_fail("fsync", path);
    printf("{}\n");
}

static void
spread(const char *path, uint64_t count, uint64_t seed)
{
    struct stat st;
    uint8_t page[4096];
    struct bench_series s = {0};
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size < (off_t)sizeof(page))
        bench_fail("open", path);
    if (posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM) != 0)
        bench_fail("fadvise", path);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t page_no = bench_random(&seed) % ((uint64_t)st.st_size / sizeof(page));
        uint64_t now = bench_now_ns();
        if (pread(fd, page, sizeof(page), (off_t)(page_no * sizeof(page))) != (ssize_t)sizeof(page))
            bench_fail("read", path);
        bench_add(&s, now, bench_now_ns());
    }
    close(fd);
    bench_report(&s);
}

static void
point(const char *path, uint64_t mib, uint64_t seconds)
{
    struct bench_series s = {0};
    uint64_t seed = 4711, end = bench_now_ns() + seconds * 1000000000u;
    void *page;
    int fd = open(path, O_RDONLY | O_DIRECT);
    if (fd < 0 || posix_memalign(&page, 4096, 4096) != 0)
        bench_fail("open", path);
    for (uint64_t now; (now = bench_now_ns()) < end;) {
        if (pread(fd, page, 4096, (off_t)(bench_random(&seed) % (mib * 256) * 4096)) != 4096)
            bench_fail("read", path);
        bench_add(&s, now, bench_now_ns());
    }
    free(page);
    close(fd);
    bench_report(&s);
}

#define TIMES_PAGES 256u

static void
do_once(int fd, const char *path, const char *what, uint64_t random)
{
    char data[4096] = {0};
    struct stat st;
    off_t at = (off_t)(random % TIMES_PAGES * sizeof(data));
    bool ok;
    if (strcmp(what, "write") == 0) {
        ok = pwrite(fd, data, sizeof(data), at) == sizeof(data) && fdatasync(fd) == 0;
    } else if (strcmp(what, "read") == 0) {
        ok = pread(fd, data, sizeof(data), at) == sizeof(data);
    } else if (strcmp(what, "stat") == 0) {
        ok = stat(path, &st) == 0;
    } else {
        char made[4200];
        snprintf(made, sizeof(made), "%s.made", path);
        int new_fd = open(made, O_CREAT | O_EXCL | O_WRONLY, 0644);
        ok = new_fd >= 0 && write(new_fd, data, sizeof(data)) == sizeof(data) &&
             fsync(new_fd) == 0 && close(new_fd) == 0 && unlink(made) == 0;
    }
    if (!ok)
        bench_fail(what, path);
}

static void
times(const char *directory, const char *what, uint64_t count)
{
    char path[4096], data[4096] = {0};
    uint64_t random = 4711;
    snprintf(path, sizeof(path), "%s/times", directory);
    int fd = open(path, O_CREAT | O_RDWR, 0644);
    if (fd < 0)
        bench_fail("create", path);
    for (uint64_t i = 0; i < TIMES_PAGES; i++)
        if (write(fd, data, sizeof(data)) != sizeof(data))
            bench_fail("write", path);
    if (fsync(fd) != 0)
        bench_fail("fsync", path);
    for (uint64_t i = 0; i < count; i++)
        do_once(fd, path, what, bench_random(&random));
    close(fd);
    printf("{}\n");
}

static void
cpu(const char *path)
{
    static uint8_t in[FRAME], out[FRAME];
    struct timespec began, ended;
    struct sha256 hash;
    struct sha256_stream *stream = sha256_stream_new();
    uint64_t bytes = 0;
    ssize_t n;
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        bench_fail("open", path);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &began);
    for (; (n = read(fd, in, sizeof(in))) > 0; bytes += (uint64_t)n) {
        size_t packed = compress_block(in, (size_t)n, out, (size_t)n - 1);
        sha256_stream_update(stream, packed ? out : in, packed ? packed : (size_t)n);
    }
    if (n < 0)
        bench_fail("read", path);
    sha256_stream_finish(stream, &hash);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ended);
    sha256_stream_free(stream);
    close(fd);
    printf("{\"bytes\": %" PRIu64 ", \"cpu_seconds\": %.6f}\n", bytes,
        (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9);
}

int
main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    if (strcmp(what, "create") == 0 && argc == 4)
        create(argv[2], bench_number(argv[3]));
    else if (strcmp(what, "names") == 0 && argc == 4)
        names(argv[2], bench_number(argv[3]));
    else if (strcmp(what, "stat") == 0 && argc == 5)
        stat_names(argv[2], bench_number(argv[3]), bench_number(argv[4]));
    else if (strcmp(what, "readdir") == 0 && argc == 3)
        read_directory(argv[2]);
    else if (strcmp(what, "chunks") == 0 && argc == 4)
        chunks(argv[2], bench_number(argv[3]));
    else if (strcmp(what, "spread") == 0 && (argc == 4 || argc == 5))
        spread(argv[2], bench_number(argv[3]), argc == 5 ? bench_number(argv[4]) : 4711);
    else if (strcmp(what, "point") == 0 && argc == 5)
        point(argv[2], bench_number(argv[3]), bench_number(argv[4]));
    else if (strcmp(what, "times") == 0 && argc == 5)
        times(argv[2], argv[3], bench_number(argv[4]));
    else if (strcmp(what, "cpu") == 0 && argc == 3)
        cpu(argv[2]);
    else {
        fprintf(stderr,
            "usage: bench_io create|names|stat|readdir|chunks|spread|point|times|cpu PATH ...\n");
        return 2;
    }
    return 0;
}
