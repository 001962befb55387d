// SPDX-License-Identifier: Apache-2.0
// Writers that know what must be there afterwards, whatever happens to the file system below them.
//     quota_load write DIRECTORY JOURNAL WRITERS MIB SECONDS
//     quota_load check DIRECTORY JOURNAL
//     quota_load report JOURNAL        numbers of all runs, as name=value lines
//     quota_load watch ROOT FILE       the most bytes of blocks that ROOT has had, until FILE goes
//
// `write`: each writer has a file of MIB / WRITERS MiB, writes it once from its beginning, then at
// random places, and calls fdatasync after each BATCH blocks: a commit. With SECONDS 0 it ends
// after the first pass. SIGTERM ends it at once, with a last commit and status 0. The journal is a
// file outside of the mount, mapped by the process: it has, for each block, the version whose
// commit was answered, and the newest version that was written. So it survives the writer, and
// another `write` goes on where the last one stopped.
//
// The first pass skips blocks that have an answered commit. A writer that gets ENOSPC counts it,
// waits PAUSE_MS, and goes on. Any other error ends the program with status 3: the caller may have
// killed the daemon, and knows whether it has.
//
// `check`: every page of every block has a version between the two. A page says which block and
// page it is, so that a page at a wrong place is found, too.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES  4096u
#define PAGE_WORDS  (PAGE_BYTES / 8)
#define BLOCK_PAGES 16u
#define BLOCK_BYTES (BLOCK_PAGES * PAGE_BYTES)
#define BATCH       4u // blocks a commit
#define WRITERS_MAX 16u
#define PAUSE_MS    100
#define BUCKETS     256u // eight for each doubling of the microseconds

struct journal {
    uint32_t writers, blocks; // blocks of a writer
    _Atomic uint64_t commits, bytes, refused, longest_us;
    _Atomic uint64_t buckets[BUCKETS];
    struct versions {
        _Atomic uint32_t answered, written;
    } of[];
};

static const char *directory;
static struct journal *journal;
static uint64_t end_ms; // 0: one pass
static atomic_int first_error;
static atomic_bool told_to_end;

static _Noreturn void
die(const char *what)
{
    fprintf(stderr, "quota_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t
now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void
open_journal(const char *path, unsigned writers, uint64_t mib)
{
    uint64_t blocks = writers > 0 ? mib * (1 << 20) / BLOCK_BYTES / writers : 0;
    int fd = open(path, O_RDWR | (writers > 0 ? O_CREAT : 0), 0644);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        die(path);
    if (st.st_size == 0) {
        st.st_size = (off_t)(sizeof(struct journal) + blocks * writers * sizeof(struct versions));
        if (ftruncate(fd, st.st_size) < 0)
            die(path);
    }
    journal = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (journal == MAP_FAILED)
        die(path);
    close(fd);
    if (journal->writers == 0) {
        journal->writers = writers;
        journal->blocks = (uint32_t)blocks;
    }
}

static struct versions *
versions_of(unsigned writer, uint32_t block)
{
    return &journal->of[(uint64_t)writer * journal->blocks + block];
}

// ---- pages --------------------------------------------------------------------------------------

static uint64_t
mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// Three quarters of a page do not compress.
static void
fill_page(uint64_t *p, unsigned writer, uint32_t block, unsigned page, uint32_t version)
{
    p[0] = (uint64_t)version << 32 | writer;
    p[1] = (uint64_t)block << 32 | page;
    uint64_t seed = mix(mix(p[0]) + p[1]);
    for (unsigned i = 2; i < PAGE_WORDS; i++)
        p[i] = i % 4 == 0 ? 0 : mix(seed + i);
}

static void
fill_block(uint64_t *p, unsigned writer, uint32_t block, uint32_t version)
{
    for (unsigned page = 0; page < BLOCK_PAGES; page++)
        fill_page(p + page * PAGE_WORDS, writer, block, page, version);
}

static int
open_file(unsigned writer, int flags)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/data.%u", directory, writer);
    return open(path, flags, 0644);
}

// ---- writing ------------------------------------------------------------------------------------

static unsigned
bucket_of(uint64_t us)
{
    us = us < 8 ? 8 : us;
    unsigned doublings = 63 - (unsigned)__builtin_clzll(us);
    unsigned bucket = (doublings - 3) * 8 + (unsigned)(us >> (doublings - 3)) - 8;
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static uint64_t
bucket_end_us(unsigned bucket)
{
    return (uint64_t)(bucket % 8 + 9) << (bucket / 8);
}

static void
note_commit(uint64_t us)
{
    journal->commits++;
    journal->buckets[bucket_of(us)]++;
    uint64_t longest = journal->longest_us;
    while (us > longest && !atomic_compare_exchange_weak(&journal->longest_us, &longest, us))
        ;
}

struct batch {
    unsigned writer;
    int fd;
    unsigned count;
    uint32_t blocks[BATCH];
    uint64_t began_us;
};

static int
write_block(struct batch *b, uint32_t block)
{
    static _Thread_local uint64_t data[BLOCK_BYTES / 8];
    struct versions *v = versions_of(b->writer, block);
    uint32_t version = v->written + 1;
    fill_block(data, b->writer, block, version);
    v->written = version;
    const char *p = (const char *)data;
    off_t offset = (off_t)block * BLOCK_BYTES;
    for (size_t done = 0; done < BLOCK_BYTES;) {
        ssize_t n = pwrite(b->fd, p + done, BLOCK_BYTES - done, offset + (off_t)done);
        if (n < 0)
            return -errno;
        done += (size_t)n;
    }
    b->blocks[b->count++] = block;
    journal->bytes += BLOCK_BYTES;
    return 0;
}

static int
commit(struct batch *b)
{
    if (fdatasync(b->fd) < 0)
        return -errno;
    note_commit(now_us() - b->began_us);
    for (unsigned i = 0; i < b->count; i++) {
        struct versions *v = versions_of(b->writer, b->blocks[i]);
        v->answered = v->written;
    }
    b->count = 0;
    return 0;
}

// One block, and the commit when the batch is full; waits while there is no space.
static int
write_one(struct batch *b, uint32_t block)
{
    if (b->count == 0)
        b->began_us = now_us();
    int rc = write_block(b, block);
    if (rc == 0 && b->count == BATCH)
        rc = commit(b);
    if (rc == -ENOSPC) {
        journal->refused++;
        b->count = 0; // nothing of it has been answered
        usleep(PAUSE_MS * 1000);
    }
    return rc;
}

static bool
is_over(void)
{
    return atomic_load(&first_error) != 0 || atomic_load(&told_to_end) ||
           (end_ms > 0 && now_us() / 1000 >= end_ms);
}

// Writes the blocks that have no answered commit. Returns how many there were, or -errno.
static int64_t
write_pass(struct batch *b)
{
    int64_t unanswered = 0;
    int rc = 0;
    for (uint32_t i = 0; i < journal->blocks && !is_over(); i++) {
        if (versions_of(b->writer, i)->answered > 0)
            continue;
        unanswered++;
        rc = write_one(b, i);
        if (rc < 0 && rc != -ENOSPC)
            return rc;
    }
    rc = b->count > 0 ? commit(b) : 0;
    return rc < 0 && rc != -ENOSPC ? rc : unanswered;
}

static int
write_file(struct batch *b)
{
    int64_t rc = 0;
    while (!is_over() && (rc = write_pass(b)) > 0)
        ;
    uint64_t random = now_us() + b->writer;
    while (end_ms > 0 && (rc >= 0 || rc == -ENOSPC) && !is_over()) {
        random = mix(random + 0x9e3779b97f4a7c15u);
        rc = write_one(b, (uint32_t)(random % journal->blocks));
    }
    return rc < 0 ? (int)rc : 0;
}

static void *
write_run(void *argument)
{
    struct batch b = {.writer = (unsigned)(uintptr_t)argument, .began_us = now_us()};
    b.fd = open_file(b.writer, O_WRONLY | O_CREAT);
    int rc = b.fd < 0 ? -errno : write_file(&b);
    int none = 0;
    if (rc < 0 && rc != -ENOSPC && atomic_compare_exchange_strong(&first_error, &none, rc))
        fprintf(stderr, "quota_load: writer %u: %s\n", b.writer, strerror(-rc));
    if (b.fd >= 0)
        close(b.fd);
    return NULL;
}

static void
end_soon(int signal)
{
    (void)signal;
    atomic_store(&told_to_end, true);
}

static int
run_write(unsigned seconds)
{
    signal(SIGTERM, end_soon);
    pthread_t threads[WRITERS_MAX];
    end_ms = seconds > 0 ? now_us() / 1000 + seconds * 1000u : 0;
    for (unsigned i = 0; i < journal->writers; i++)
        if (pthread_create(&threads[i], NULL, write_run, (void *)(uintptr_t)i) != 0)
            die("pthread_create");
    for (unsigned i = 0; i < journal->writers; i++)
        pthread_join(threads[i], NULL);
    return atomic_load(&first_error) == 0 ? 0 : 3;
}

// ---- checking -----------------------------------------------------------------------------------

static bool
page_is_right(const uint64_t *p, unsigned writer, uint32_t block, unsigned page)
{
    static const uint64_t zeros[PAGE_WORDS];
    uint64_t wanted[PAGE_WORDS];
    const struct versions *v = versions_of(writer, block);
    uint32_t version = (uint32_t)(p[0] >> 32);
    if (v->answered == 0 && memcmp(p, zeros, PAGE_BYTES) == 0)
        return true;
    fill_page(wanted, writer, block, page, version);
    if (version >= v->answered && version <= v->written && memcmp(p, wanted, PAGE_BYTES) == 0)
        return true;
    fprintf(stderr,
        "quota_load: file %u, block %" PRIu32 ", page %u: version %" PRIu32 " of %" PRIu32
        " to %" PRIu32 "%s\n",
        writer, block, page, version, v->answered, v->written,
        memcmp(p, wanted, PAGE_BYTES) == 0 ? "" : ", wrong bytes");
    return false;
}

static unsigned
check_block(int fd, unsigned writer, uint32_t block)
{
    static uint64_t data[BLOCK_BYTES / 8];
    unsigned wrong = 0;
    memset(data, 0, sizeof(data));
    if (pread(fd, data, BLOCK_BYTES, (off_t)block * BLOCK_BYTES) < 0)
        die("read");
    for (unsigned page = 0; page < BLOCK_PAGES; page++)
        wrong += !page_is_right(data + page * PAGE_WORDS, writer, block, page);
    return wrong;
}

static int
run_check(void)
{
    uint64_t wrong = 0, answered = 0;
    for (unsigned writer = 0; writer < journal->writers; writer++) {
        int fd = open_file(writer, O_RDONLY);
        if (fd < 0)
            die("open");
        for (uint32_t block = 0; block < journal->blocks && wrong < 20; block++) {
            answered += versions_of(writer, block)->answered > 0;
            wrong += check_block(fd, writer, block);
        }
        close(fd);
    }
    printf("%" PRIu64 " MiB of acknowledged blocks looked at\n", answered * BLOCK_BYTES >> 20);
    return wrong == 0 ? 0 : 1;
}

static uint64_t
percentile_us(unsigned thousandths)
{
    uint64_t below = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        below += journal->buckets[i];
        if (below > 0 && below * 1000 >= journal->commits * thousandths)
            return bucket_end_us(i);
    }
    return 0;
}

static int
run_report(void)
{
    uint64_t answered = 0;
    for (uint64_t i = 0; i < (uint64_t)journal->writers * journal->blocks; i++)
        answered += journal->of[i].answered > 0;
    printf("commits=%" PRIu64 "\nmib=%" PRIu64 "\nanswered_mib=%" PRIu64 "\nrefused=%" PRIu64
           "\np50_us=%" PRIu64 "\np99_us=%" PRIu64 "\nmost_us=%" PRIu64 "\n",
        journal->commits, journal->bytes >> 20, answered * BLOCK_BYTES >> 20, journal->refused,
        percentile_us(500), percentile_us(990), journal->longest_us);
    return 0;
}

// ---- watching -----------------------------------------------------------------------------------

static uint64_t sum;

static int
add_blocks(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)path;
    (void)at;
    if (type == FTW_F || type == FTW_D)
        sum += (uint64_t)st->st_blocks * 512;
    return 0;
}

// Writes "MOST SAMPLES" beside FILE when it ends.
static int
run_watch(const char *root, const char *flag)
{
    uint64_t most = 0, samples = 0;
    char path[4096];
    snprintf(path, sizeof(path), "%s.most", flag);
    while (access(flag, F_OK) == 0) {
        sum = 0;
        nftw(root, add_blocks, 32, FTW_PHYS);
        most = sum > most ? sum : most;
        samples++;
        usleep(2000);
    }
    FILE *f = fopen(path, "w");
    if (!f || fprintf(f, "%" PRIu64 " %" PRIu64 "\n", most, samples) < 0 || fclose(f) != 0)
        die(path);
    return 0;
}

int
main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "write") == 0 && argc == 7) {
        directory = argv[2];
        unsigned writers = (unsigned)strtoul(argv[4], NULL, 10);
        if (writers == 0 || writers > WRITERS_MAX)
            return 2;
        open_journal(argv[3], writers, strtoull(argv[5], NULL, 10));
        return run_write((unsigned)strtoul(argv[6], NULL, 10));
    }
    if (strcmp(what, "check") == 0 && argc == 4) {
        directory = argv[2];
        open_journal(argv[3], 0, 0);
        return run_check();
    }
    if (strcmp(what, "report") == 0 && argc == 3) {
        open_journal(argv[2], 0, 0);
        return run_report();
    }
    if (strcmp(what, "watch") == 0 && argc == 4)
        return run_watch(argv[2], argv[3]);
    fprintf(stderr, "usage: see the head of quota_load.c\n");
    return 2;
}
