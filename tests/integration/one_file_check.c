// SPDX-License-Identifier: Apache-2.0
// One file, changed at random in every way there is, against an image of it in memory: reads and
// writes, also direct and appending ones, mappings, truncation, holes, zeros, allocation, copies of
// ranges, reopening, dropped caches.
//     one_file_check FILE SEED OPERATIONS          runs them; the file must not exist
//     one_file_check FILE SEED OPERATIONS verify   only compares: the file as the same run left it
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FUSE_MAGIC 0x65735546
#define MOST_BYTES (384u << 10)
#define PAGE       4096u
#define LOG_LINES  30u

struct run {
    const char *path;
    bool for_real; // else only the image changes
    bool any_alignment;
    int fd, direct, append;
    uint8_t *image;   // MOST_BYTES
    uint8_t *scratch; // MOST_BYTES and a page, aligned
    uint32_t size;
    uint64_t random;
    unsigned step;
    char log[LOG_LINES][100];
};

static uint32_t
draw(struct run *r, uint32_t below)
{
    r->random = r->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((r->random >> 33) % below);
}

static void __attribute__((format(printf, 2, 3))) note(struct run *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->log[r->step % LOG_LINES], sizeof(r->log[0]), format, args);
    va_end(args);
}

static _Noreturn void __attribute__((format(printf, 2, 3)))
give_up(struct run *r, const char *format, ...)
{
    va_list args;
    int error = errno;
    va_start(args, format);
    for (unsigned i = r->step >= LOG_LINES ? r->step - LOG_LINES + 1 : 0; i <= r->step; i++)
        printf("%6u %s\n", i, r->log[i % LOG_LINES]);
    printf("FAILED in step %u: ", r->step);
    vprintf(format, args);
    printf(" [%s]\n", strerror(error));
    va_end(args);
    exit(1);
}

#define MUST(condition)                                                                            \
    do {                                                                                           \
        errno = 0;                                                                                 \
        if (!(condition))                                                                          \
            give_up(r, "%s", #condition);                                                          \
    } while (0)

static void
open_all(struct run *r, int flags)
{
    MUST((r->fd = open(r->path, O_RDWR | flags, 0644)) >= 0);
    MUST((r->direct = open(r->path, O_RDWR | O_DIRECT)) >= 0);
    MUST((r->append = open(r->path, O_WRONLY | O_APPEND)) >= 0);
}

static void
close_all(struct run *r)
{
    MUST(close(r->fd) == 0 && close(r->direct) == 0 && close(r->append) == 0);
}

static void
compare(struct run *r, const uint8_t *got, uint32_t offset, uint32_t length)
{
    if (memcmp(got, r->image + offset, length) == 0)
        return;
    for (uint32_t i = 0; i < length; i++)
        if (got[i] != r->image[offset + i])
            give_up(r, "byte %u is %#x, not %#x", offset + i, got[i], r->image[offset + i]);
}

// A range within `limit`; now and then a whole number of pages.
static void
draw_range(struct run *r, uint32_t limit, uint32_t *offset, uint32_t *length)
{
    *offset = draw(r, limit);
    *length = 1 + draw(r, draw(r, 4) ? 3 * PAGE : MOST_BYTES / 4);
    if (draw(r, 3) == 0) {
        *offset &= ~(PAGE - 1);
        *length = (*length + PAGE - 1) & ~(PAGE - 1);
    }
    if (*length > limit - *offset)
        *length = limit - *offset;
}

static void
fill(struct run *r, uint8_t *out, uint32_t length)
{
    uint8_t byte = (uint8_t)(1 + draw(r, 255));
    for (uint32_t i = 0; i < length; i++)
        out[i] = (uint8_t)(byte + i % 13);
}

static void
grow(struct run *r, uint32_t size)
{
    if (size > r->size)
        r->size = size;
}

// ---- operations ---------------------------------------------------------------------------------

static void
read_some(struct run *r)
{
    uint32_t offset, length;
    draw_range(r, r->size + 1, &offset, &length);
    note(r, "read %u+%u", offset, length);
    uint32_t there = offset + length > r->size ? r->size - offset : length;
    if (!r->for_real)
        return;
    MUST(pread(r->fd, r->scratch, length, offset) == (ssize_t)there);
    compare(r, r->scratch, offset, there);
}

static void
read_direct(struct run *r)
{
    uint32_t offset, length;
    draw_range(r, r->size + 1, &offset, &length);
    uint32_t misplaced = draw(r, 64);
    if (!r->any_alignment) {
        offset &= ~(PAGE - 1);
        length = (length + PAGE - 1) & ~(PAGE - 1);
        misplaced = 0;
    }
    note(r, "direct read %u+%u", offset, length);
    if (offset > r->size || !r->for_real)
        return;
    uint32_t there = length > r->size - offset ? r->size - offset : length;
    MUST(pread(r->direct, r->scratch + misplaced, length, offset) == (ssize_t)there);
    compare(r, r->scratch + misplaced, offset, there);
}

static void
write_some(struct run *r)
{
    uint32_t offset, length;
    draw_range(r, MOST_BYTES, &offset, &length);
    note(r, "write %u+%u", offset, length);
    fill(r, r->image + offset, length);
    grow(r, offset + length);
    if (r->for_real)
        MUST(pwrite(r->fd, r->image + offset, length, offset) == (ssize_t)length);
}

static void
write_direct(struct run *r)
{
    uint32_t offset, length;
    draw_range(r, MOST_BYTES, &offset, &length);
    uint32_t misplaced = draw(r, 64);
    if (!r->any_alignment) {
        offset &= ~(PAGE - 1);
        length = (length + PAGE - 1) & ~(PAGE - 1);
        misplaced = 0;
    }
    note(r, "direct write %u+%u", offset, length);
    fill(r, r->image + offset, length);
    grow(r, offset + length);
    memcpy(r->scratch + misplaced, r->image + offset, length);
    if (r->for_real)
        MUST(pwrite(r->direct, r->scratch + misplaced, length, offset) == (ssize_t)length);
}

static void
append_some(struct run *r)
{
    uint32_t length = 1 + draw(r, 5000);
    note(r, "append %u", length);
    if (length > MOST_BYTES - r->size)
        return;
    uint8_t *at = r->image + r->size;
    fill(r, at, length);
    r->size += length;
    if (r->for_real)
        MUST(write(r->append, at, length) == (ssize_t)length);
}

static void
map_some(struct run *r, bool store)
{
    uint32_t offset, length;
    if (r->size == 0)
        return note(r, "nothing to map");
    draw_range(r, r->size, &offset, &length);
    note(r, "%s mapping %u+%u", store ? "store through" : "read through", offset, length);
    if (store)
        fill(r, r->image + offset, length);
    bool sync = draw(r, 2);
    if (!r->for_real)
        return;
    uint32_t from = offset & ~(PAGE - 1);
    uint8_t *p = mmap(NULL, offset + length - from, PROT_READ | (store ? PROT_WRITE : 0),
        MAP_SHARED, r->fd, from);
    MUST(p != MAP_FAILED);
    if (store)
        memcpy(p + (offset - from), r->image + offset, length);
    else
        compare(r, p + (offset - from), offset, length);
    if (store && sync)
        MUST(msync(p, offset + length - from, MS_SYNC) == 0);
    MUST(munmap(p, offset + length - from) == 0);
}

static void
read_mapped(struct run *r)
{
    map_some(r, false);
}

static void
write_mapped(struct run *r)
{
    map_some(r, true);
}

static void
set_length(struct run *r)
{
    uint32_t size = draw(r, 3) ? draw(r, MOST_BYTES) : draw(r, r->size + 1);
    note(r, "truncate %u -> %u", r->size, size);
    if (size < r->size)
        memset(r->image + size, 0, r->size - size);
    r->size = size;
    if (r->for_real)
        MUST(ftruncate(r->fd, size) == 0);
}

static void
zero_range(struct run *r, int mode)
{
    uint32_t offset, length;
    draw_range(r, MOST_BYTES, &offset, &length);
    note(r, "fallocate %#x %u+%u", (unsigned)mode, offset, length);
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
        memset(r->image + offset, 0, length);
    if (!(mode & FALLOC_FL_KEEP_SIZE))
        grow(r, offset + length);
    if (r->for_real)
        MUST(fallocate(r->fd, mode, offset, length) == 0);
}

static void
allocate(struct run *r)
{
    static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
        FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE};
    zero_range(r, modes[draw(r, sizeof(modes) / sizeof(modes[0]))]);
}

static void
copy_range(struct run *r)
{
    uint32_t from, length, to = draw(r, MOST_BYTES);
    draw_range(r, r->size + 1, &from, &length);
    if (length > MOST_BYTES - to)
        length = MOST_BYTES - to;
    if (from + length > r->size)
        length = r->size - from;
    note(r, "copy %u+%u to %u", from, length, to);
    bool overlap = from < to + length && to < from + length;
    if (overlap || length == 0)
        return;
    memcpy(r->image + to, r->image + from, length);
    grow(r, to + length);
    off_t in = from, out = to;
    for (uint32_t done = 0; r->for_real && done < length;) {
        ssize_t n = copy_file_range(r->fd, &in, r->fd, &out, length - done, 0);
        MUST(n > 0);
        done += (uint32_t)n;
    }
}

static void
sync_or_reopen(struct run *r)
{
    uint32_t what = draw(r, 5);
    note(r, "sync, drop, reopen or size: %u", what);
    struct stat st;
    if (!r->for_real)
        return;
    MUST(fstat(r->fd, &st) == 0 && st.st_size == (off_t)r->size);
    if (what == 0)
        MUST(fsync(r->fd) == 0);
    if (what == 1)
        MUST(fdatasync(r->fd) == 0 && posix_fadvise(r->fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    if (what == 2) {
        close_all(r);
        open_all(r, 0);
    }
}

// What is said to be a hole reads as zeros.
static void
seek_holes(struct run *r)
{
    note(r, "seek");
    for (off_t at = 0; r->for_real && at < (off_t)r->size;) {
        off_t data = lseek(r->fd, at, SEEK_DATA);
        bool none = data < 0 && errno == ENXIO;
        MUST(data >= at || none);
        off_t end = data < 0 ? (off_t)r->size : data;
        for (off_t i = at; i < end; i++)
            if (r->image[i])
                give_up(r, "byte %jd is in a hole from %jd", (intmax_t)i, (intmax_t)at);
        if (data < 0)
            return;
        MUST((at = lseek(r->fd, data, SEEK_HOLE)) > data);
    }
}

static const struct {
    void (*run)(struct run *r);
    unsigned weight;
} operations[] = {
    {read_some, 12},
    {read_direct, 4},
    {write_some, 14},
    {write_direct, 5},
    {append_some, 3},
    {read_mapped, 6},
    {write_mapped, 8},
    {set_length, 5},
    {allocate, 9},
    {copy_range, 5},
    {sync_or_reopen, 5},
    {seek_holes, 2},
};

static void
one_step(struct run *r)
{
    unsigned total = 0, n = sizeof(operations) / sizeof(operations[0]), i = 0;
    for (unsigned k = 0; k < n; k++)
        total += operations[k].weight;
    unsigned at = draw(r, total);
    while (at >= operations[i].weight)
        at -= operations[i++].weight;
    operations[i].run(r);
}

static void
compare_whole(struct run *r)
{
    struct stat st;
    note(r, "the whole file");
    MUST(fstat(r->fd, &st) == 0);
    if (st.st_size != (off_t)r->size)
        give_up(r, "the size is %jd, not %u", (intmax_t)st.st_size, r->size);
    MUST(pread(r->fd, r->scratch, MOST_BYTES, 0) == (ssize_t)r->size);
    compare(r, r->scratch, 0, r->size);
}

int
main(int argc, char **argv)
{
    bool verify = argc == 5 && strcmp(argv[4], "verify") == 0;
    if (argc != 4 && !verify) {
        fprintf(stderr, "usage: one_file_check FILE SEED OPERATIONS [verify]\n");
        return 2;
    }
    struct run run = {.path = argv[1], .for_real = !verify, .random = strtoull(argv[2], NULL, 0)};
    struct run *r = &run;
    struct statfs st;
    r->image = calloc(1, MOST_BYTES);
    r->scratch = aligned_alloc(PAGE, MOST_BYTES + PAGE);
    MUST(r->image && r->scratch);
    open_all(r, verify ? 0 : O_CREAT | O_EXCL);
    MUST(fstatfs(r->fd, &st) == 0);
    r->any_alignment = st.f_type == FUSE_MAGIC;
    unsigned steps = (unsigned)strtoul(argv[3], NULL, 0);
    for (; r->step < steps; r->step++)
        one_step(r);
    compare_whole(r);
    MUST(fsync(r->fd) == 0);
    close_all(r);
    free(r->image);
    free(r->scratch);
    return 0;
}
