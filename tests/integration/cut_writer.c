// SPDX-License-Identifier: Apache-2.0
// Changes several files and names in a known order, so that any state of the directory shows
// whether it is a cut: a moment at which everything before had happened and nothing after.
//
//     cut_writer write DIR sync|plain     until SIGTERM; "sync": fdatasync after every step, for a
//                                         mount whose kernel caches writes
//     cut_writer check DIR                0 and a line of text when DIR shows a cut
//
// Round n does, in this order:
//     1  counter-0 = n
//     2  counter-1 = n, on a page far into the file
//     3  name new-n is made with content n, then renamed to name-n
//     4  name-(n - KEPT) is removed
//     5  counter-2 = n
//     6  8 bytes with n are appended to journal
//     7  file "sized" is truncated to size_of(n)
//     8  a file with content n is renamed over "current"
//     9  hard link link-(n & 1) to "current" is made anew, after it was removed
//     10 counter-3 = n
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNTERS 4
#define KEPT     20

static volatile sig_atomic_t must_stop;

static void
on_signal(int signal_number)
{
    (void)signal_number;
    must_stop = 1;
}

static _Noreturn void __attribute__((format(printf, 1, 2))) die(const char *format, ...)
{
    int error = errno;
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, ": %s\n", strerror(error));
    exit(3);
}

static bool sync_steps;

static void
step_done(int fd, const char *what)
{
    if (sync_steps && fdatasync(fd) != 0)
        die("fdatasync %s", what);
}

static int
open_file(const char *name, int flags)
{
    int fd = open(name, flags | O_CREAT, 0644);
    if (fd < 0)
        die("open %s", name);
    return fd;
}

// Each counter has its own place, none across a page boundary: there the kernel may split a write.
static off_t
counter_offset(int i)
{
    static const off_t offsets[COUNTERS] = {0, (off_t)900 << 10, 4088, (off_t)70 << 20};
    return offsets[i];
}

static void
set_counter(const int *fds, int i, uint64_t n)
{
    if (pwrite(fds[i], &n, sizeof(n), counter_offset(i)) != (ssize_t)sizeof(n))
        die("write counter-%d", i);
    step_done(fds[i], "counter");
}

static off_t
size_of(uint64_t n)
{
    return (off_t)(n % 97 * 1000 + n % 7);
}

static void
write_file(const char *name, uint64_t n)
{
    int fd = open_file(name, O_WRONLY | O_EXCL);
    if (write(fd, &n, sizeof(n)) != (ssize_t)sizeof(n))
        die("write %s", name);
    step_done(fd, name);
    if (close(fd) != 0)
        die("close %s", name);
}

static void
do_round(const int *counters, int journal, int sized, uint64_t n)
{
    char name[64], made[64];
    set_counter(counters, 0, n);
    set_counter(counters, 1, n);
    snprintf(made, sizeof(made), "new-%" PRIu64, n);
    snprintf(name, sizeof(name), "name-%" PRIu64, n);
    write_file(made, n);
    if (rename(made, name) != 0)
        die("rename %s", made);
    if (n > KEPT) {
        snprintf(name, sizeof(name), "name-%" PRIu64, n - KEPT);
        if (unlink(name) != 0)
            die("unlink %s", name);
    }
    set_counter(counters, 2, n);
    if (write(journal, &n, sizeof(n)) != (ssize_t)sizeof(n))
        die("append to journal");
    step_done(journal, "journal");
    if (ftruncate(sized, size_of(n)) != 0)
        die("truncate sized");
    write_file("current.new", n);
    if (rename("current.new", "current") != 0)
        die("rename current.new");
    snprintf(name, sizeof(name), "link-%d", (int)(n & 1));
    if (unlink(name) != 0 && errno != ENOENT)
        die("unlink %s", name);
    if (link("current", name) != 0)
        die("link %s", name);
    set_counter(counters, 3, n);
}

static void
run_write(const char *directory)
{
    int counters[COUNTERS];
    if (chdir(directory) != 0)
        die("chdir %s", directory);
    for (int i = 0; i < COUNTERS; i++) {
        char name[32];
        snprintf(name, sizeof(name), "counter-%d", i);
        counters[i] = open_file(name, O_RDWR);
    }
    int journal = open_file("journal", O_WRONLY | O_APPEND);
    int sized = open_file("sized", O_RDWR);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    uint64_t n = 0;
    while (!must_stop)
        do_round(counters, journal, sized, ++n);
    printf("%" PRIu64 " rounds\n", n);
}

// ---- check --------------------------------------------------------------------------------------

static int violations;

// Records that `later` has happened without `earlier`, or the like.
static void __attribute__((format(printf, 2, 3))) expect(bool holds, const char *format, ...)
{
    if (holds)
        return;
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    violations++;
}

// The number in a file at an offset; 0 when the file is too short or not there.
static uint64_t
read_number(const char *name, off_t offset)
{
    uint64_t n = 0;
    int fd = open(name, O_RDONLY);
    if (fd < 0) {
        if (errno == ENOENT)
            return 0;
        die("open %s", name);
    }
    ssize_t got = pread(fd, &n, sizeof(n), offset);
    if (got < 0)
        die("read %s", name);
    close(fd);
    return got == (ssize_t)sizeof(n) ? n : 0;
}

static off_t
file_size(const char *name)
{
    struct stat st;
    if (lstat(name, &st) != 0) {
        if (errno == ENOENT)
            return 0;
        die("stat %s", name);
    }
    return st.st_size;
}

struct names {
    uint64_t lowest, highest, count, fresh;
};

static struct names
read_names(void)
{
    struct names names = {.lowest = UINT64_MAX};
    DIR *directory = opendir(".");
    if (!directory)
        die("opendir");
    struct dirent *entry;
    while (errno = 0, (entry = readdir(directory))) {
        uint64_t n;
        if (sscanf(entry->d_name, "name-%" SCNu64, &n) == 1) {
            names.count++;
            names.lowest = n < names.lowest ? n : names.lowest;
            names.highest = n > names.highest ? n : names.highest;
            expect(read_number(entry->d_name, 0) == n, "%s holds %" PRIu64, entry->d_name,
                read_number(entry->d_name, 0));
        } else if (sscanf(entry->d_name, "new-%" SCNu64, &n) == 1) {
            expect(names.fresh == 0, "there are two new- files");
            names.fresh = n;
        }
    }
    if (errno)
        die("readdir");
    closedir(directory);
    return names;
}

static void
expect_order(const char *first, uint64_t a, const char *second, uint64_t b)
{
    expect(a == b || a == b + 1, "%s is at %" PRIu64 " while the later %s is at %" PRIu64, first, a,
        second, b);
}

static void
check_names(const struct names *names, uint64_t before)
{
    if (names->count > 0) {
        expect(names->count == names->highest - names->lowest + 1,
            "names %" PRIu64 " to %" PRIu64 " are only %" PRIu64, names->lowest, names->highest,
            names->count);
        expect(names->count <= KEPT + 1 && (names->lowest == 1 || names->count >= KEPT),
            "%" PRIu64 " names from %" PRIu64 " on", names->count, names->lowest);
    }
    expect(names->fresh == 0 || names->fresh == names->highest + 1,
        "new-%" PRIu64 " beside name-%" PRIu64, names->fresh, names->highest);
    expect(names->fresh == 0 || names->fresh == before,
        "new-%" PRIu64 " while counter-1 is at %" PRIu64, names->fresh, before);
}

static void
check_journal(uint64_t before, uint64_t *count_out)
{
    off_t size = file_size("journal");
    expect(size % 8 == 0, "journal has %jd bytes", (intmax_t)size);
    uint64_t count = (uint64_t)size / 8;
    for (uint64_t i = count > 200 ? count - 200 : 0; i < count; i++)
        expect(read_number("journal", (off_t)(i * 8)) == i + 1,
            "journal entry %" PRIu64 " is %" PRIu64, i + 1, read_number("journal", (off_t)(i * 8)));
    expect_order("counter-2", before, "journal", count);
    *count_out = count;
}

static void
run_check(const char *directory)
{
    uint64_t c[COUNTERS];
    if (chdir(directory) != 0)
        die("chdir %s", directory);
    for (int i = 0; i < COUNTERS; i++) {
        char name[32];
        snprintf(name, sizeof(name), "counter-%d", i);
        c[i] = read_number(name, counter_offset(i));
    }
    struct names names = read_names();
    uint64_t journal;
    expect_order("counter-0", c[0], "counter-1", c[1]);
    expect_order("counter-1", c[1], "names", names.highest);
    check_names(&names, c[1]);
    expect_order("names", names.highest, "counter-2", c[2]);
    check_journal(c[2], &journal);
    off_t size = file_size("sized");
    expect(size == size_of(journal) || (journal > 0 && size == size_of(journal - 1)),
        "sized has %jd bytes at round %" PRIu64, (intmax_t)size, journal);
    uint64_t current = read_number("current", 0);
    expect_order("journal", journal, "current", current);
    if (size != size_of(journal))
        expect(current + 1 == journal, "current is at %" PRIu64 " before sized", current);
    expect_order("current", current, "counter-3", c[3]);
    expect_order("counter-0", c[0], "counter-3", c[3]);
    // The link of round current or, while it is being replaced, that of the round before.
    uint64_t newest_link = read_number(current & 1 ? "link-1" : "link-0", 0);
    expect(c[3] < current || newest_link == current, "the link of round %" PRIu64 " is %" PRIu64,
        current, newest_link);
    uint64_t other_link = read_number(current & 1 ? "link-0" : "link-1", 0);
    expect(current < 2 || other_link == current - 1, "the link of round %" PRIu64 " is %" PRIu64,
        current - 1, other_link);
    printf("round %" PRIu64 ": %s\n", c[0], violations ? "NOT a cut" : "a cut");
}

int
main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "write") == 0) {
        sync_steps = strcmp(argv[3], "sync") == 0;
        run_write(argv[2]);
    } else if (argc == 3 && strcmp(argv[1], "check") == 0) {
        run_check(argv[2]);
    } else {
        fprintf(stderr, "usage: see the head of cut_writer.c\n");
        return 2;
    }
    return violations ? 1 : 0;
}
