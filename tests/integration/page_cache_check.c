// SPDX-License-Identifier: Apache-2.0
// Changes a file in every way there is - through the page cache, past it, by mapping, by
// asynchronous writes - while other processes read it through the page cache, and after each change
// compares what a buffered read, a mapping and an O_DIRECT read show with what must be there.
// Usage: page_cache_check FILE SECONDS SEED. Exit status 1 when something differs.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE    4096u
#define SIZE    (640u << 10)
#define READERS 2

static const char *path;
static char *source_path;
static uint8_t *expected; // SIZE bytes
static uint8_t *block;    // SIZE bytes, aligned
static uint64_t random_state;

static void
die(const char *what)
{
    perror(what);
    exit(2);
}

static uint32_t
random_below(uint32_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 11) % n;
}

struct range {
    size_t offset, length;
};

static struct range
random_range(size_t unit)
{
    size_t units = SIZE / unit;
    size_t first = random_below((uint32_t)units);
    size_t count = 1 + random_below((uint32_t)(units - first));
    return (struct range){first * unit, count * unit};
}

// New bytes for a range, in `block` and in `expected`.
static void
new_bytes(struct range r)
{
    uint8_t value = (uint8_t)(1 + random_below(255));
    for (size_t i = 0; i < r.length; i++)
        block[i] = (uint8_t)(value + i / 512);
    memcpy(expected + r.offset, block, r.length);
}

static int
open_file(int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        die(path);
    return fd;
}

// ---- ways to change it --------------------------------------------------------------------------

static void
write_aio(void)
{
    static aio_context_t context;
    if (!context && syscall(SYS_io_setup, 4, &context) < 0)
        die("io_setup");
    struct range r = random_range(PAGE);
    new_bytes(r);
    int fd = open_file(O_RDWR | O_DIRECT);
    struct iocb one = {.aio_lio_opcode = IOCB_CMD_PWRITE,
        .aio_fildes = (uint32_t)fd,
        .aio_buf = (uintptr_t)block,
        .aio_nbytes = r.length,
        .aio_offset = (int64_t)r.offset};
    struct iocb *list[] = {&one};
    struct io_event event;
    if (syscall(SYS_io_submit, context, 1, list) != 1 ||
        syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1 ||
        event.res != (int64_t)r.length)
        die("asynchronous write");
    close(fd);
}

struct ring {
    int fd;
    uint8_t *sq, *cq;
    struct io_uring_sqe *entries;
    struct io_uring_params p;
};

// False where the kernel has no io_uring for us.
static bool
open_ring(struct ring *ring)
{
    ring->fd = (int)syscall(SYS_io_uring_setup, 4, &ring->p);
    if (ring->fd < 0)
        return false;
    size_t sq = ring->p.sq_off.array + ring->p.sq_entries * sizeof(uint32_t);
    size_t cq = ring->p.cq_off.cqes + ring->p.cq_entries * sizeof(struct io_uring_cqe);
    const int how = PROT_READ | PROT_WRITE;
    ring->sq = mmap(NULL, sq, how, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
    ring->cq = mmap(NULL, cq, how, MAP_SHARED, ring->fd, IORING_OFF_CQ_RING);
    ring->entries = mmap(NULL, ring->p.sq_entries * sizeof(struct io_uring_sqe), how, MAP_SHARED,
        ring->fd, IORING_OFF_SQES);
    if (ring->sq == MAP_FAILED || ring->cq == MAP_FAILED || ring->entries == MAP_FAILED)
        die("io_uring");
    return true;
}

static _Atomic uint32_t *
word(uint8_t *base, uint32_t offset)
{
    return (_Atomic uint32_t *)(void *)(base + offset);
}

static void
write_uring(void)
{
    static struct ring ring;
    static int state; // 0: not tried, 1: there, -1: not there
    if (state == 0)
        state = open_ring(&ring) ? 1 : -1;
    if (state < 0) {
        write_aio();
        return;
    }
    struct range r = random_range(PAGE);
    new_bytes(r);
    int fd = open_file(O_RDWR | O_DIRECT);
    uint32_t tail = *word(ring.sq, ring.p.sq_off.tail);
    uint32_t slot = tail & *word(ring.sq, ring.p.sq_off.ring_mask);
    ring.entries[slot] = (struct io_uring_sqe){.opcode = IORING_OP_WRITE,
        .fd = fd,
        .addr = (uintptr_t)block,
        .len = (uint32_t)r.length,
        .off = r.offset};
    word(ring.sq, ring.p.sq_off.array)[slot] = slot;
    atomic_store(word(ring.sq, ring.p.sq_off.tail), tail + 1);
    if (syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
        die("io_uring_enter");
    uint32_t head = *word(ring.cq, ring.p.cq_off.head);
    struct io_uring_cqe *done = (struct io_uring_cqe *)(void *)(ring.cq + ring.p.cq_off.cqes) +
                                (head & *word(ring.cq, ring.p.cq_off.ring_mask));
    if (done->res != (int32_t)r.length)
        die("write by io_uring");
    atomic_store(word(ring.cq, ring.p.cq_off.head), head + 1);
    close(fd);
}

static void
write_direct(void)
{
    struct range r = random_range(PAGE);
    new_bytes(r);
    int fd = open_file(O_RDWR | O_DIRECT);
    if (pwrite(fd, block, r.length, (off_t)r.offset) != (ssize_t)r.length)
        die("O_DIRECT write");
    close(fd);
}

static void
write_buffered(void)
{
    struct range r = random_range(1);
    new_bytes(r);
    int fd = open_file(O_RDWR);
    if (pwrite(fd, block, r.length, (off_t)r.offset) != (ssize_t)r.length)
        die("write");
    if (random_below(2) && fsync(fd) < 0)
        die("fsync");
    close(fd);
}

static void
make_hole(void)
{
    struct range r = random_range(1 + random_below(PAGE));
    int mode = random_below(2) ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    int fd = open_file(O_RDWR);
    if (fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)r.offset, (off_t)r.length) < 0)
        die("fallocate");
    memset(expected + r.offset, 0, r.length);
    close(fd);
}

static void
copy_range(void)
{
    struct range r = random_range(1);
    new_bytes(r);
    int from = open(source_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int to = open_file(O_RDWR);
    if (from < 0 || pwrite(from, block, r.length, 0) != (ssize_t)r.length)
        die(source_path);
    loff_t in = 0;
    loff_t out = (loff_t)r.offset;
    while ((size_t)in < r.length)
        if (copy_file_range(from, &in, to, &out, r.length - (size_t)in, 0) <= 0)
            die("copy_file_range");
    close(from);
    close(to);
}

static void
splice_in(void)
{
    struct range r = random_range(1);
    r.length = r.length > 65536 ? 65536 : r.length;
    new_bytes(r);
    int ends[2];
    int fd = open_file(O_RDWR);
    if (pipe(ends) < 0 || write(ends[1], block, r.length) != (ssize_t)r.length)
        die("pipe");
    loff_t out = (loff_t)r.offset;
    size_t left = r.length;
    while (left > 0) {
        ssize_t n = splice(ends[0], NULL, fd, &out, left, 0);
        if (n <= 0)
            die("splice");
        left -= (size_t)n;
    }
    close(ends[0]);
    close(ends[1]);
    close(fd);
}

static void
truncate_and_grow(void)
{
    size_t size = random_below(SIZE);
    int fd = open_file(O_RDWR);
    if (ftruncate(fd, (off_t)size) < 0 || ftruncate(fd, SIZE) < 0)
        die("ftruncate");
    memset(expected + size, 0, SIZE - size);
    close(fd);
}

static void
store_mapped(void)
{
    struct range r = random_range(1);
    new_bytes(r);
    int fd = open_file(O_RDWR);
    uint8_t *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        die("mmap");
    memcpy(map + r.offset, block, r.length);
    if (random_below(2) && msync(map, SIZE, MS_SYNC) < 0)
        die("msync");
    munmap(map, SIZE);
    close(fd);
}

static const struct {
    const char *name;
    void (*run)(void);
} ways[] = {
    {"io_submit with O_DIRECT", write_aio},
    {"io_uring with O_DIRECT", write_uring},
    {"pwrite with O_DIRECT", write_direct},
    {"pwrite", write_buffered},
    {"fallocate", make_hole},
    {"copy_file_range", copy_range},
    {"splice", splice_in},
    {"ftruncate", truncate_and_grow},
    {"a mapping", store_mapped},
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

// ---- readers and comparison ---------------------------------------------------------------------

static pid_t
start_reader(unsigned number)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        int fd = open_file(O_RDONLY);
        ssize_t ignored = pread(fd, block, SIZE, 0);
        (void)ignored;
        // The file is never shorter for long, but a mapping of what is gone would be a signal.
        if (number == 0)
            (void)posix_fadvise(fd, 0, SIZE, POSIX_FADV_WILLNEED);
        close(fd);
    }
}

static bool
same(const char *how, const char *way, unsigned long round, int flags)
{
    int fd = open_file(O_RDONLY | flags);
    memset(block, 0xee, SIZE);
    if (pread(fd, block, SIZE, 0) != (ssize_t)SIZE)
        die(how);
    close(fd);
    if (memcmp(block, expected, SIZE) == 0)
        return true;
    size_t at = 0;
    while (block[at] == expected[at])
        at++;
    printf("round %lu: after %s, %s shows %02x at %zu, not %02x\n", round, way, how, block[at], at,
        expected[at]);
    return false;
}

int
main(int argc, char *argv[])
{
    if (argc != 4)
        return 2;
    path = argv[1];
    random_state = strtoull(argv[3], NULL, 10) * 2 + 1;
    if (asprintf(&source_path, "%s.source", path) < 0 ||
        posix_memalign((void **)&block, PAGE, SIZE) != 0)
        die("memory");
    expected = calloc(1, SIZE);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (!expected || fd < 0 || ftruncate(fd, SIZE) < 0)
        die(path);
    close(fd);
    pid_t readers[READERS];
    for (unsigned i = 0; i < READERS; i++)
        readers[i] = start_reader(i);
    const time_t end = time(NULL) + strtol(argv[2], NULL, 10);
    unsigned long rounds = 0;
    bool good = true;
    while (good && time(NULL) < end) {
        // The asynchronous ones are half of all.
        unsigned way = random_below(2) ? random_below(2) : random_below(WAYS);
        ways[way].run();
        rounds++;
        good = same("a buffered read", ways[way].name, rounds, 0) &&
               same("an O_DIRECT read", ways[way].name, rounds, O_DIRECT) &&
               same("a second buffered read", ways[way].name, rounds, 0);
    }
    for (unsigned i = 0; i < READERS; i++) {
        kill(readers[i], SIGKILL);
        waitpid(readers[i], NULL, 0);
    }
    printf("%lu changes\n", rounds);
    return good ? 0 : 1;
}
