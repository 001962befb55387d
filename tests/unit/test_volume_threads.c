// SPDX-License-Identifier: Apache-2.0
// Everything at once: writers, readers, names, checkpoints and whoever asks how it goes. Made for
// the sanitizers; each thread also checks what must hold whatever the others do.
#include "volume_world.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/thread.h"

#define FILES      4u
#define FILE_PAGES 600u

struct shared {
    struct volume_world w;
    struct object_id files[FILES];
    atomic_bool stop;
    uint64_t seed;
};

struct worker {
    struct shared *shared;
    unsigned number;
    uint64_t random;
    uint64_t rounds;
    struct thread thread;
};

static bool
goes_on(struct worker *x)
{
    x->rounds++;
    return !atomic_load(&x->shared->stop);
}

// A failure in any thread ends the test's process.
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

// ---- data: every page holds one stamp, repeated -------------------------------------------------

static void
stamp_pages(uint8_t *pages, size_t count, uint64_t stamp)
{
    for (size_t i = 0; i < count * PAGE_BYTES; i += 8)
        memcpy(pages + i, &stamp, 8);
}

static void
write_pages(void *argument)
{
    struct worker *x = argument;
    uint8_t *pages = memory_alloc(16 * PAGE_BYTES);
    while (goes_on(x)) {
        uint64_t r = test_random(&x->random);
        struct object_id file = x->shared->files[r % FILES];
        size_t count = 1 + r / FILES % 16;
        uint64_t first = r / 64 % (FILE_PAGES - count);
        stamp_pages(pages, count, r | 1);
        MUST(volume_write(x->shared->w.v, file, first * PAGE_BYTES, pages, count * PAGE_BYTES, 0) ==
             0);
    }
    free(pages);
}

// Each page is of one write, or a hole.
static void
read_pages(void *argument)
{
    struct worker *x = argument;
    uint8_t *pages = memory_alloc(32 * PAGE_BYTES);
    while (goes_on(x)) {
        uint64_t r = test_random(&x->random);
        struct object_id file = x->shared->files[r % FILES];
        size_t count = 1 + r / FILES % 32;
        uint64_t first = r / 128 % FILE_PAGES;
        int64_t got =
            volume_read(x->shared->w.v, file, first * PAGE_BYTES, count * PAGE_BYTES, pages, NULL);
        if (got < 0 || got % PAGE_BYTES != 0)
            fprintf(stderr, "a read of %zu pages from %" PRIu64 " on gave %" PRId64 "\n", count,
                first, got);
        MUST(got >= 0 && got % PAGE_BYTES == 0);
        for (int64_t at = 0; at < got; at += PAGE_BYTES)
            MUST(memcmp(pages + at, pages + at + 8, PAGE_BYTES - 8) == 0);
    }
    free(pages);
}

static void
punch_and_cut(void *argument)
{
    struct worker *x = argument;
    struct volume *v = x->shared->w.v;
    while (goes_on(x)) {
        uint64_t r = test_random(&x->random);
        struct object_id file = x->shared->files[r % FILES];
        uint64_t first = r / 64 % FILE_PAGES;
        MUST(volume_allocate(v, file, 3, first * PAGE_BYTES, (1 + r % 100) * PAGE_BYTES) ==
             0); // punch
        if (r % 16 == 0) {
            struct volume_set_attributes set = {.set = VOLUME_SET_SIZE, .size = first * PAGE_BYTES};
            struct volume_attributes a;
            MUST(volume_set_attributes(v, file, &set, &a) == 0);
        }
        int64_t data =
            volume_seek(v, file, first * PAGE_BYTES, r % 2 ? SEEK_DATA : SEEK_HOLE, NULL);
        MUST(data >= (int64_t)(first * PAGE_BYTES) || data == -ENXIO);
        clock_sleep_ms(1);
    }
}

// Small writes that overlap pages, in a file of their own: patches and merging.
static void
write_bytes(void *argument)
{
    struct worker *x = argument;
    struct volume *v = x->shared->w.v;
    char name[16];
    snprintf(name, sizeof(name), "own-%u", x->number);
    struct object_id file = volume_world_make_file(v, name);
    uint8_t *mine = memory_alloc_zero(64 * PAGE_BYTES);
    uint8_t *got = memory_alloc(64 * PAGE_BYTES);
    uint64_t size = 0;
    while (goes_on(x)) {
        uint64_t r = test_random(&x->random);
        size_t n = 1 + r % 3000;
        uint64_t offset = r / 4096 % (64 * PAGE_BYTES - n);
        memset(mine + offset, (int)(r >> 40), n);
        MUST(volume_write(v, file, offset, mine + offset, n, 0) == 0);
        size = offset + n > size ? offset + n : size;
        if (r % 8 != 0)
            continue;
        MUST(volume_read(v, file, 0, 64 * PAGE_BYTES, got, NULL) == (int64_t)size);
        MUST(memcmp(got, mine, size) == 0);
    }
    free(mine);
    free(got);
}

// ---- names --------------------------------------------------------------------------------------

static void
juggle_names(void *argument)
{
    struct worker *x = argument;
    struct volume *v = x->shared->w.v;
    struct volume_caller caller = {0};
    struct volume_attributes directory, a;
    char name[32];
    snprintf(name, sizeof(name), "dir-%u", x->number);
    MUST(volume_make(
             v, OBJECT_ROOT_DIRECTORY, name, S_IFDIR | 0755, 0, NULL, &caller, &directory) == 0);
    while (goes_on(x)) {
        uint64_t r = test_random(&x->random);
        MUST(volume_make(v, directory.object, "a", S_IFREG | 0600, 0, NULL, &caller, &a) == 0);
        MUST(volume_object_opened(v, a.object) == 0);
        MUST(volume_write(v, a.object, r % 10000, (const uint8_t *)"x", 1, 0) == 0);
        MUST(volume_set_xattr(v, a.object, "user.x", &r, sizeof(r), 0) == 0);
        MUST(volume_rename(v, directory.object, "a", directory.object, "b", 0, NULL) == 0);
        MUST(volume_lookup(v, directory.object, "a", &a) == -ENOENT);
        MUST(volume_lookup(v, directory.object, "b", &a) == 0);
        MUST(a.inode.size == r % 10000 + 1);
        MUST(volume_unlink(v, directory.object, "b") == 0);
        MUST(volume_get_attributes(v, a.object, &a) == 0);
        volume_object_closed(v, a.object);
        volume_object_forgotten(v, a.object);
        MUST(volume_get_attributes(v, a.object, &a) == -ENOENT);
    }
}

static int
count_entry(void *argument, const char *name UNUSED, size_t name_length UNUSED,
    uint64_t offset UNUSED, const struct volume_attributes *attributes UNUSED)
{
    ++*(unsigned *)argument;
    return 0;
}

static void
look_around(void *argument)
{
    struct worker *x = argument;
    struct volume *v = x->shared->w.v;
    struct volume_status status;
    while (goes_on(x)) {
        unsigned count = 0;
        MUST(volume_read_directory(v, OBJECT_ROOT_DIRECTORY, 0, true, count_entry, &count) == 0);
        MUST(count >= FILES);
        volume_status(v, &status);
        MUST(!status.metrics.read_only &&
             status.metrics.local_generation >= status.metrics.published_generation);
        MUST(volume_world_sync(v) == 0);
        clock_sleep_ms(2);
    }
}

static void
checkpoint(void *argument)
{
    struct worker *x = argument;
    struct generation before = {0}, now;
    while (goes_on(x)) {
        unsigned flags = test_random(&x->random) % 3 == 0 ? VOLUME_CHECKPOINT_PUBLISH : 0;
        MUST(volume_world_checkpoint(x->shared->w.v, flags, &now) == 0);
        MUST(flags || now.v >= before.v);
        before = now;
        clock_sleep_ms(test_random(&x->random) % 20);
    }
}

// ---- the test -----------------------------------------------------------------------------------

static void
run_for(struct shared *s, uint64_t ms)
{
    static void (*const roles[])(void *) = {write_pages, write_pages, read_pages, read_pages,
        punch_and_cut, write_bytes, write_bytes, juggle_names, juggle_names, look_around,
        checkpoint, checkpoint};
    struct worker workers[ARRAY_LENGTH(roles)];
    atomic_store(&s->stop, false);
    for (unsigned i = 0; i < ARRAY_LENGTH(roles); i++) {
        workers[i] = (struct worker){.shared = s, .number = i, .random = s->seed + i * 77 + 1};
        ck_assert_int_eq(thread_start(&workers[i].thread, "worker", roles[i], &workers[i]), 0);
    }
    clock_sleep_ms(ms);
    atomic_store(&s->stop, true);
    for (unsigned i = 0; i < ARRAY_LENGTH(roles); i++) {
        thread_join(&workers[i].thread);
        ck_assert_uint_gt(workers[i].rounds, 1);
        printf("%s%" PRIu64, i ? " " : "rounds: ", workers[i].rounds);
    }
    printf("\n");
}

START_TEST(threads_do_not_get_in_each_others_way)
{
    struct shared s = {.seed = test_seed("threads")};
    volume_world_new(&s.w);
    s.w.config.checkpoint_interval_ms = 70;
    volume_world_open(&s.w);
    for (unsigned i = 0; i < FILES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%u", i);
        s.files[i] = volume_world_make_file(s.w.v, name);
    }
    run_for(&s, 6000);
    volume_world_close(&s.w);
    volume_world_check(&s.w);
    volume_world_lose_root(&s.w);
    volume_world_open(&s.w);
    struct worker reader = {.shared = &s, .random = 5};
    atomic_store(&s.stop, true);
    read_pages(&reader);
    volume_world_free(&s.w);
}
END_TEST

struct streamer {
    struct thread thread;
    struct volume *v;
    struct object_id object;
    uint64_t seed;
};

#define PIECE        (1u << 20)
#define STREAM_BYTES (24 * PIECE)

static void
stream_run(void *argument)
{
    struct streamer *x = argument;
    for (uint64_t at = 0; at < STREAM_BYTES; at += PIECE)
        volume_world_fill(x->v, x->object, at, PIECE, x->seed + at);
}

// Writers that are faster than the disk wait for the log's flushes. A checkpoint would not help
// them, and would stage again and again what they go on with.
START_TEST(streams_wait_for_the_disk_without_checkpoints)
{
    struct volume_world w;
    volume_world_new(&w);
    w.config.wal_limit_bytes = 512u << 20;
    w.config.page_cache_bytes = 64u << 20;
    volume_world_open(&w);
    struct streamer x[4];
    for (unsigned i = 0; i < ARRAY_LENGTH(x); i++) {
        char name[] = {'a', (char)('0' + i), 0};
        x[i] = (struct streamer){
            .v = w.v, .object = volume_world_make_file(w.v, name), .seed = 100 * i};
        ck_assert_int_eq(thread_start(&x[i].thread, "stream", stream_run, &x[i]), 0);
    }
    for (unsigned i = 0; i < ARRAY_LENGTH(x); i++)
        thread_join(&x[i].thread);
    struct volume_status status;
    volume_status(w.v, &status);
    ck_assert_uint_eq(status.metrics.checkpoints, 0);
    for (unsigned i = 0; i < ARRAY_LENGTH(x); i++)
        for (uint64_t at = 0; at < STREAM_BYTES; at += PIECE)
            volume_world_expect(w.v, x[i].object, at, PIECE, x[i].seed + at);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_threads");
#define ADD(test) unit_add(s, #test, test, 300)
    ADD(threads_do_not_get_in_each_others_way);
    ADD(streams_wait_for_the_disk_without_checkpoints);
#undef ADD
    return unit_run(s);
}
