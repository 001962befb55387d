// SPDX-License-Identifier: Apache-2.0
// Checkpoints of a volume when something is in their way.
#include "volume_world.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/checkpoint_internal.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "volume/volume_internal.h"

// ---- folds that fail ----------------------------------------------------------------------------

// A file where the directory for staging should be: folds fail.
static void
block_scratch(struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *scratch = memory_printf("%s/checkpoint_scratch", w->root);
    CLEANUP(memory_free_auto) char *aside = memory_printf("%s/aside", w->root);
    ck_assert_int_eq(rename(scratch, aside), 0);
    int fd = open(scratch, O_CREAT | O_WRONLY, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void
unblock_scratch(struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *scratch = memory_printf("%s/checkpoint_scratch", w->root);
    CLEANUP(memory_free_auto) char *aside = memory_printf("%s/aside", w->root);
    ck_assert_int_eq(unlink(scratch), 0);
    ck_assert_int_eq(rename(aside, scratch), 0);
}

START_TEST(a_checkpoint_after_a_failed_one_holds_what_came_between)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_fill(w.v, a, 0, 100000, 1);
    block_scratch(&w);
    struct generation generation;
    ck_assert_int_lt(volume_world_checkpoint(w.v, 0, &generation), 0);
    struct object_id b = volume_world_make_file(w.v, "b");
    volume_world_fill(w.v, b, 0, 100000, 2);
    unblock_scratch(&w);
    generation = volume_world_publish(w.v);
    struct volume_world past = w;
    past.config.at = memory_printf("%" PRIu64, generation.v);
    past.config.read_only = true;
    volume_world_open(&past);
    volume_world_expect(past.v, a, 0, 100000, 1);
    volume_world_expect(past.v, volume_world_find(past.v, "b"), 0, 100000, 2);
    ck_assert_int_eq(volume_world_try_close(&past), 0);
    free(past.config.at);
    volume_world_free(&w);
}
END_TEST

START_TEST(attempts_that_fail_use_up_no_generations)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    struct generation generation;
    uint64_t before = volume_world_publish(w.v).v;
    for (uint64_t round = 1; round <= 2; round++) {
        volume_world_fill(w.v, a, 0, 100000, round);
        block_scratch(&w);
        for (int i = 0; i < 5; i++)
            ck_assert_int_lt(volume_world_checkpoint(w.v, 0, &generation), 0);
        unblock_scratch(&w);
        ck_assert_uint_eq(volume_world_publish(w.v).v, before + round);
    }
    volume_world_expect(w.v, a, 0, 100000, 2);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

struct writer {
    struct volume *v;
    struct object_id object;
    atomic_int result;
    atomic_bool done;
};

// Many times the log.
static void
write_much(void *argument)
{
    struct writer *x = argument;
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc_zero(1u << 20);
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < 40; i++)
        rc = volume_write(x->v, x->object, i % 3 << 20, bytes, 1u << 20, 0);
    atomic_store(&x->result, rc);
    atomic_store(&x->done, true);
}

START_TEST(writers_wait_while_folds_fail_and_go_on_when_they_do_not)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct writer x = {.v = w.v, .object = volume_world_make_file(w.v, "a")};
    block_scratch(&w);
    struct thread t;
    ck_assert_int_eq(thread_start(&t, "writer", write_much, &x), 0);
    struct volume_status status;
    do {
        clock_sleep_ms(10);
        volume_status(w.v, &status);
    } while (status.metrics.checkpoint_failures < 2);
    ck_assert(!atomic_load(&x.done));
    ck_assert_uint_gt(strlen(status.last_error), 0);
    unblock_scratch(&w);
    thread_join(&t);
    ck_assert_int_eq(atomic_load(&x.result), 0);
    volume_world_free(&w);
}
END_TEST

// ---- the kernel's cache -------------------------------------------------------------------------

// Stands for the kernel, which has many times the log to hand over when it is asked for all of it.
static int
hand_over_much(void *argument)
{
    struct writer *x = argument;
    write_much(x);
    return atomic_load(&x->result);
}

START_TEST(the_kernel_can_hand_over_more_than_the_log_holds)
{
    struct volume_world w;
    volume_world_new(&w);
    struct writer x = {0};
    struct volume_host host = {.argument = &x, .sync_kernel = hand_over_much};
    BUFFER_AUTO error = {0};
    ck_assert_int_eq(volume_create(&w.config, &error), 0);
    ck_assert_int_eq(volume_open(&w.config, &host, &w.v, &error), 0);
    x.v = w.v;
    x.object = volume_world_make_file(w.v, "a");
    struct generation generation;
    unsigned flags = VOLUME_CHECKPOINT_PUBLISH | VOLUME_CHECKPOINT_SYNC_KERNEL;
    ck_assert_int_eq(volume_world_checkpoint(w.v, flags, &generation), 0);
    ck_assert(atomic_load(&x.done));
    struct volume_status status;
    volume_status(w.v, &status);
    ck_assert_uint_eq(status.metrics.checkpoint_failures, 0);
    ck_assert_uint_eq(status.metrics.published_generation, generation.v);
    // What was handed over is in the generation.
    struct volume_world past = w;
    past.config.at = memory_printf("%" PRIu64, generation.v);
    past.config.read_only = true;
    volume_world_open(&past);
    struct volume_attributes a;
    ck_assert_int_eq(volume_get_attributes(past.v, volume_world_find(past.v, "a"), &a), 0);
    ck_assert_uint_eq(a.inode.size, 3u << 20);
    ck_assert_int_eq(volume_world_try_close(&past), 0);
    free(past.config.at);
    volume_world_free(&w);
}
END_TEST

// ---- chains -------------------------------------------------------------------------------------

// A page here and there of one large chunk, each published.
static void
publish_pages(struct volume_world *w, struct object_id object, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        volume_world_fill(w->v, object, i * 7 % 2000 * PAGE_BYTES, PAGE_BYTES, i + 100);
        volume_world_publish(w->v);
    }
}

static void
expect_pages(struct volume_world *w, struct object_id object, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        volume_world_expect(w->v, object, i * 7 % 2000 * PAGE_BYTES, PAGE_BYTES, i + 100);
    volume_world_expect(w->v, object, 2000 * PAGE_BYTES, 100 * PAGE_BYTES, 1);
}

// No file may grow beyond this many bytes: a disk that is full for large blobs.
static void
limit_files(rlim_t bytes)
{
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

START_TEST(what_did_not_fit_and_was_removed_is_not_tried_again)
{
    enum { LOG = 32 << 20, LIMIT = LOG / 8 + PAGE_BYTES, LARGE = 2 * LIMIT };
    struct volume_world w;
    volume_world_new(&w);
    w.config.wal_limit_bytes = LOG;
    w.config.checkpoint_interval_ms = 0;
    volume_world_open(&w);
    signal(SIGXFSZ, SIG_IGN);
    struct object_id kept = volume_world_make_file(w.v, "kept");
    struct object_id cut = volume_world_make_file(w.v, "cut");
    struct object_id removed = volume_world_make_file(w.v, "removed");
    limit_files(LIMIT);
    volume_world_fill(w.v, removed, 0, LARGE, 1);
    volume_world_fill(w.v, kept, 0, 10000, 2);
    struct generation generation;
    ck_assert_int_eq(volume_world_checkpoint(w.v, 0, &generation), -EFBIG);
    ck_assert_int_eq(volume_unlink(w.v, OBJECT_ROOT_DIRECTORY, "removed"), 0);
    volume_object_forgotten(w.v, removed);
    volume_world_fill(w.v, kept, 5000, 10000, 3);
    ck_assert_int_eq(volume_world_checkpoint(w.v, 0, &generation), 0);
    // The same with the end of a file that stays.
    volume_world_fill(w.v, cut, 0, LARGE, 4);
    ck_assert_int_eq(volume_world_checkpoint(w.v, 0, &generation), -EFBIG);
    struct volume_set_attributes set = {.set = VOLUME_SET_SIZE, .size = 10000};
    struct volume_attributes attributes;
    ck_assert_int_eq(volume_set_attributes(w.v, cut, &set, &attributes), 0);
    volume_world_publish(w.v);
    limit_files(RLIM_INFINITY);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    volume_world_expect(w.v, volume_world_find(w.v, "kept"), 0, 5000, 2);
    volume_world_expect(w.v, volume_world_find(w.v, "kept"), 5000, 10000, 3);
    volume_world_expect(w.v, volume_world_find(w.v, "cut"), 0, 10000, 4);
    volume_world_free(&w);
}
END_TEST

// Changes one byte of every blob that is as young as that.
static void
spoil_unpublished(struct volume_world *w, time_t since)
{
    CLEANUP(memory_free_auto) char *pattern = memory_printf("%s/hot_cache/*/*.blob", w->root);
    glob_t blobs;
    ck_assert_int_eq(glob(pattern, 0, NULL, &blobs), 0);
    unsigned spoiled = 0;
    for (size_t i = 0; i < blobs.gl_pathc; i++) {
        struct stat st;
        ck_assert_int_eq(stat(blobs.gl_pathv[i], &st), 0);
        if (st.st_mtime < since)
            continue;
        int fd = open(blobs.gl_pathv[i], O_RDWR);
        uint8_t byte;
        ck_assert_int_eq(pread(fd, &byte, 1, 5000), 1);
        byte ^= 1;
        ck_assert_int_eq(pwrite(fd, &byte, 1, 5000), 1);
        close(fd);
        spoiled++;
    }
    globfree(&blobs);
    ck_assert_uint_gt(spoiled, 0);
}

START_TEST(a_damaged_image_keeps_nobody_elses_changes_from_being_folded)
{
    enum { FILES = 7, BYTES = 300 * PAGE_BYTES };
    struct volume_world w;
    volume_world_new(&w);
    w.config.checkpoint_interval_ms = 0;
    volume_world_open(&w);
    struct object_id files[FILES];
    for (unsigned i = 0; i < FILES; i++) {
        char name[8] = {(char)('a' + i), 0};
        files[i] = volume_world_make_file(w.v, name);
        volume_world_fill(w.v, files[i], 0, BYTES, i);
    }
    volume_world_publish(w.v);
    volume_world_age_blobs(&w);
    // The next fold would merge each of these deltas.
    for (unsigned i = 0; i < FILES; i++) {
        volume_world_fill(w.v, files[i], 10 * PAGE_BYTES, 3 * PAGE_BYTES, 50);
        volume_world_fold(w.v);
    }
    spoil_unpublished(&w, 2000);
    struct object_id other = volume_world_make_file(w.v, "other");
    volume_world_fill(w.v, other, 0, 10000, 60);
    for (unsigned i = 0; i < FILES; i++)
        volume_world_fill(w.v, files[i], 50 * PAGE_BYTES, PAGE_BYTES, 70);
    volume_world_fold(w.v);
    for (unsigned i = 0; i < FILES; i++)
        volume_world_fill(w.v, files[i], 51 * PAGE_BYTES, PAGE_BYTES, 71);
    volume_world_fold(w.v);
    for (unsigned i = 0; i < FILES; i++) {
        volume_world_expect(w.v, files[i], 50 * PAGE_BYTES, PAGE_BYTES, 70);
        volume_world_expect(w.v, files[i], 51 * PAGE_BYTES, PAGE_BYTES, 71);
        volume_world_expect(w.v, files[i], 0, 10 * PAGE_BYTES, i);
    }
    // Whoever overwrites what is damaged, or removes the file, is rid of the damage.
    for (unsigned i = 0; i < FILES; i += 2)
        volume_world_fill(w.v, files[i], 10 * PAGE_BYTES, 3 * PAGE_BYTES, 80);
    for (unsigned i = 1; i < FILES; i += 2) {
        char name[8] = {(char)('a' + i), 0};
        ck_assert_int_eq(volume_unlink(w.v, OBJECT_ROOT_DIRECTORY, name), 0);
        volume_object_forgotten(w.v, files[i]);
    }
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    volume_world_expect(w.v, volume_world_find(w.v, "other"), 0, 10000, 60);
    for (unsigned i = 0; i < FILES; i += 2) {
        volume_world_expect(w.v, files[i], 0, 10 * PAGE_BYTES, i);
        volume_world_expect(w.v, files[i], 10 * PAGE_BYTES, 3 * PAGE_BYTES, 80);
        volume_world_expect(w.v, files[i], 50 * PAGE_BYTES, PAGE_BYTES, 70);
    }
    volume_world_free(&w);
}
END_TEST

START_TEST(chains_of_deltas_stay_short_also_when_the_base_is_not_on_this_host)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_fill(w.v, a, 0, 2100 * PAGE_BYTES, 1);
    volume_world_publish(w.v);
    struct volume_status status;
    publish_pages(&w, a, 40);
    volume_status(w.v, &status);
    ck_assert_uint_le(status.metrics.deltas, 8);
    expect_pages(&w, a, 40);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    publish_pages(&w, a, 80);
    volume_status(w.v, &status);
    ck_assert_uint_le(status.metrics.deltas, 16);
    expect_pages(&w, a, 80);
    volume_world_free(&w);
}
END_TEST

static void
set_size(struct volume *v, struct object_id object, uint64_t size)
{
    struct volume_set_attributes set = {.set = VOLUME_SET_SIZE, .size = size};
    struct volume_attributes a;
    ck_assert_int_eq(volume_set_attributes(v, object, &set, &a), 0);
}

static void
expect_zeros(struct volume *v, struct object_id object, uint64_t offset, size_t n)
{
    CLEANUP(memory_free_auto) uint8_t *got = memory_alloc(n);
    memset(got, 1, n);
    ck_assert_int_eq(volume_read(v, object, offset, n, got, NULL), (int64_t)n);
    for (size_t i = 0; i < n; i++)
        if (got[i] != 0)
            ck_abort_msg("byte %zu is not zero", i);
}

START_TEST(the_last_error_stays_with_its_time_when_it_is_over)
{
    struct volume_world w;
    struct volume_status failed;
    struct volume_status after;
    struct generation generation;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_fill(w.v, a, 0, 100000, 1);
    volume_status(w.v, &failed);
    ck_assert(!failed.metrics.failing);
    ck_assert_uint_eq(failed.metrics.last_error_time_ms, 0);
    uint64_t before_ms = clock_wall_ms();
    block_scratch(&w);
    ck_assert_int_lt(volume_world_checkpoint(w.v, 0, &generation), 0);
    unblock_scratch(&w);
    volume_status(w.v, &failed);
    ck_assert_uint_ge(failed.metrics.last_error_time_ms, before_ms);
    ck_assert_uint_le(failed.metrics.last_error_time_ms, clock_wall_ms());
    volume_world_publish(w.v);
    volume_status(w.v, &after);
    ck_assert(!after.metrics.failing);
    ck_assert_str_eq(after.last_error, failed.last_error);
    ck_assert_uint_ge(after.metrics.last_error_time_ms, failed.metrics.last_error_time_ms);
    volume_world_close(&w);
    volume_world_free(&w);
}
END_TEST

// ---- flags --------------------------------------------------------------------------------------

#define INTERVAL_MS 20u

START_TEST(without_enable_checkpoints_the_timer_makes_none)
{
    struct volume_world w;
    struct volume_status status;
    volume_world_new(&w);
    w.config.checkpoint_interval_ms = INTERVAL_MS;
    volume_world_open(&w);
    ck_assert_int_eq(volume_set_flags(w.v, DB_FLAGS_DEFAULT & ~DB_FLAG_CHECKPOINTS), 0);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_fill(w.v, a, 0, 10 * PAGE_BYTES, 1);
    // Asked for, they are made. The flag outlives the mount.
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_open(&w);
    volume_status(w.v, &status);
    ck_assert(!status.metrics.enable_checkpoints);
    uint64_t before = status.metrics.checkpoints;
    volume_world_fill(w.v, a, 0, 10 * PAGE_BYTES, 2);
    clock_sleep_ms(10 * INTERVAL_MS);
    volume_status(w.v, &status);
    ck_assert_uint_eq(status.metrics.checkpoints, before);
    ck_assert_uint_gt(status.metrics.dirty_bytes, 0);
    ck_assert_int_eq(volume_set_flags(w.v, DB_FLAGS_DEFAULT), 0);
    for (uint64_t deadline = clock_monotonic_ms() + 20000; status.metrics.publications == 0;) {
        ck_assert_uint_lt(clock_monotonic_ms(), deadline);
        clock_sleep_ms(5);
        volume_status(w.v, &status);
    }
    ck_assert(status.metrics.enable_checkpoints);
    volume_world_expect(w.v, a, 0, 10 * PAGE_BYTES, 2);
    volume_world_close(&w);
    volume_world_free(&w);
}
END_TEST

START_TEST(without_enable_chunk_deltas_changed_chunks_become_bases)
{
    struct volume_world w;
    struct volume_status status;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_fill(w.v, a, 0, 100 * PAGE_BYTES, 1);
    volume_world_publish(w.v);
    ck_assert_int_eq(volume_set_flags(w.v, DB_FLAGS_DEFAULT & ~DB_FLAG_CHUNK_DELTAS), 0);
    volume_world_fill(w.v, a, 3 * PAGE_BYTES, PAGE_BYTES, 2);
    volume_world_publish(w.v);
    volume_status(w.v, &status);
    ck_assert(!status.metrics.enable_chunk_deltas);
    ck_assert_uint_eq(status.metrics.deltas, 0);
    ck_assert_int_eq(volume_set_flags(w.v, DB_FLAGS_DEFAULT), 0);
    volume_world_fill(w.v, a, 5 * PAGE_BYTES, PAGE_BYTES, 3);
    volume_world_publish(w.v);
    volume_status(w.v, &status);
    ck_assert_uint_eq(status.metrics.deltas, 1);
    volume_world_expect(w.v, a, 0, 3 * PAGE_BYTES, 1);
    volume_world_expect(w.v, a, 3 * PAGE_BYTES, PAGE_BYTES, 2);
    volume_world_expect(w.v, a, 5 * PAGE_BYTES, PAGE_BYTES, 3);
    volume_world_close(&w);
    volume_world_free(&w);
}
END_TEST

// ---- bases --------------------------------------------------------------------------------------

START_TEST(a_chunk_that_is_written_whole_asks_for_nothing_of_the_old_one)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_fill(w.v, a, 0, 300 * PAGE_BYTES, 1);
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    a = volume_world_find(w.v, "a");
    struct volume_status before;
    struct volume_status after;
    volume_status(w.v, &before);
    volume_world_fill(w.v, a, 0, 300 * PAGE_BYTES, 2);
    volume_world_fold(w.v);
    volume_status(w.v, &after);
    ck_assert_uint_eq(after.metrics.get_requests, before.metrics.get_requests);
    ck_assert_uint_eq(after.metrics.checkpoint_failures, 0);
    ck_assert_uint_eq(after.metrics.deltas, 0);
    volume_world_expect(w.v, a, 0, 300 * PAGE_BYTES, 2);
    volume_world_free(&w);
}
END_TEST

#define SPARSE_STEP 100u

static void
fill_sparse(struct volume_world *w, struct object_id object, uint64_t step, uint64_t seed)
{
    for (uint64_t page = 0; page < CHUNK_PAGES; page += step * SPARSE_STEP)
        volume_world_fill(w->v, object, page * PAGE_BYTES, PAGE_BYTES, seed + page);
}

// Every other one of the pages was written again since.
static void
expect_sparse(struct volume_world *w, struct object_id object)
{
    for (uint64_t page = 0; page < CHUNK_PAGES; page += SPARSE_STEP) {
        uint64_t seed = page % (2 * SPARSE_STEP) == 0 ? 200000 : 100000;
        volume_world_expect(w->v, object, page * PAGE_BYTES, PAGE_BYTES, seed + page);
        if (page + SPARSE_STEP < CHUNK_PAGES)
            expect_zeros(w->v, object, (page + 1) * PAGE_BYTES, (SPARSE_STEP - 1) * PAGE_BYTES);
    }
}

START_TEST(a_base_of_a_sparse_chunk_holds_old_and_new_pages)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    fill_sparse(&w, a, 1, 100000);
    volume_world_fold(w.v);
    fill_sparse(&w, a, 2, 200000);
    volume_world_fold(w.v);
    struct volume_status status;
    volume_status(w.v, &status);
    ck_assert_uint_eq(status.metrics.deltas, 1);
    // By now half of the base is out of date: it is made anew.
    volume_world_fill(w.v, a, 0, PAGE_BYTES, 200000);
    volume_world_publish(w.v);
    volume_status(w.v, &status);
    ck_assert_uint_eq(status.metrics.deltas, 0);
    expect_sparse(&w, a);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    expect_sparse(&w, volume_world_find(w.v, "a"));
    volume_world_free(&w);
}
END_TEST

// ---- holes --------------------------------------------------------------------------------------

START_TEST(what_was_cut_off_is_zero_when_the_file_grows_again)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    for (int round = 0; round < 2; round++) {
        volume_world_fill(w.v, a, 0, 40 * PAGE_BYTES, 1);
        volume_world_fold(w.v);
        set_size(w.v, a, 10 * PAGE_BYTES);
        if (round == 0)
            volume_world_fold(w.v);
        set_size(w.v, a, 60 * PAGE_BYTES);
        expect_zeros(w.v, a, 10 * PAGE_BYTES, 50 * PAGE_BYTES);
        volume_world_fold(w.v);
        expect_zeros(w.v, a, 10 * PAGE_BYTES, 50 * PAGE_BYTES);
        volume_world_close(&w);
        volume_world_open(&w);
        expect_zeros(w.v, a, 10 * PAGE_BYTES, 50 * PAGE_BYTES);
        volume_world_expect(w.v, a, 0, 10 * PAGE_BYTES, 1);
    }
    volume_world_free(&w);
}
END_TEST

START_TEST(seeking_in_a_file_of_exabytes_ends)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    uint64_t far = (uint64_t)1 << 61;
    volume_world_fill(w.v, a, far, 100, 1);
    set_size(w.v, a, OBJECT_MAX_BYTES);
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(volume_seek(w.v, a, 5, SEEK_DATA, NULL), (int64_t)far);
        ck_assert_int_eq(volume_seek(w.v, a, far, SEEK_HOLE, NULL), (int64_t)far + PAGE_BYTES);
        ck_assert_int_eq(volume_seek(w.v, a, far + PAGE_BYTES, SEEK_DATA, NULL), -ENXIO);
        volume_world_fold(w.v);
    }
    // The same with a hole that was made.
    set_size(w.v, a, 0);
    set_size(w.v, a, OBJECT_MAX_BYTES);
    ck_assert_int_eq(volume_seek(w.v, a, 0, SEEK_DATA, NULL), -ENXIO);
    volume_world_free(&w);
}
END_TEST

START_TEST(pages_that_are_only_in_the_log_are_folded_and_each_is_verified)
{
    enum { PIECE = 128 * 1024 };
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_fold(w.v);
    // Large writes, off the borders of pages, one with another inside it, so that runs in the log
    // begin, end and are interrupted; more than memory holds.
    for (uint64_t i = 0; i < 18; i++) {
        volume_world_fill(w.v, a, 100 + i * PIECE, PIECE, i);
        ck_assert_int_eq(volume_world_sync(w.v), 0);
    }
    volume_world_fill(w.v, a, 100 + 3 * PIECE, 40000, 77);
    ck_assert_int_eq(volume_world_sync(w.v), 0);
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    for (uint64_t i = 0; i < 18; i++)
        if (i != 3)
            volume_world_expect(w.v, a, 100 + i * PIECE, PIECE, i);
    volume_world_expect(w.v, a, 100 + 3 * PIECE, 40000, 77);
    // One byte in the middle of a run, and its page is lost; the others are not.
    uint8_t *data = memory_alloc(PIECE);
    uint64_t state = 5;
    for (int round = 0; round < 18; round++) {
        for (size_t i = 0; i < PIECE; i++)
            data[i] = (uint8_t)(test_random(&state) >> 8);
        if (round == 0)
            memcpy(data + 70000, "a byte in the middle", 20);
        volume_world_write(w.v, a, (uint64_t)round * PIECE, data, PIECE);
        // Only what is durable in the log may leave memory.
        ck_assert_int_eq(volume_world_sync(w.v), 0);
    }
    ck_assert(volume_world_spoil_log(&w, "a byte in the middle", 20));
    volume_world_fold(w.v);
    for (uint64_t page = 0; page < 18 * PIECE / PAGE_BYTES; page++)
        ck_assert_int_eq(
            volume_read(w.v, a, page * PAGE_BYTES, PAGE_BYTES, data, NULL) == PAGE_BYTES,
            page != 70000 / PAGE_BYTES);
    free(data);
    volume_world_free(&w);
}
END_TEST

// ---- a disk that refuses what is staged ---------------------------------------------------------

enum refusal { REFUSE_NOTHING, REFUSE_WRITE, REFUSE_START, REFUSE_WAIT, REFUSE_SYNC, REFUSALS };

static atomic_int refusal;
static atomic_uint refused;

static int
refuse(enum refusal what, int error)
{
    if (atomic_load(&refusal) != (int)what)
        return 0;
    atomic_fetch_add(&refused, 1);
    return error;
}

static ssize_t
refusing_pwritev(int fd, const struct iovec *iov, int count, off_t offset, bool durable)
{
    int rc = offset > 0 ? refuse(REFUSE_WRITE, -ENOSPC) : 0;
    return rc < 0 ? rc : file_ops_system.pwritev(fd, iov, count, offset, durable);
}

static int
refusing_sync_range(int fd, off_t offset, off_t length, unsigned flags)
{
    int rc = refuse(flags == SYNC_FILE_RANGE_WRITE ? REFUSE_START : REFUSE_WAIT, -EIO);
    return rc < 0 ? rc : file_ops_system.sync_range(fd, offset, length, flags);
}

static int
refusing_fdatasync(int fd)
{
    int rc = refuse(REFUSE_SYNC, -EIO);
    return rc < 0 ? rc : file_ops_system.fdatasync(fd);
}

// Neither does a checkpoint hold what may not be on the disk, nor is it lost.
START_TEST(what_the_disk_refuses_of_a_staged_blob_fails_the_checkpoint)
{
    enum { BYTES = 7 << 20 }; // more than may be on its way to the disk
    struct file_ops ops = file_ops_system;
    ops.pwritev = refusing_pwritev;
    ops.sync_range = refusing_sync_range;
    ops.fdatasync = refusing_fdatasync;
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_publish(w.v);
    w.v->checkpoint->options.ops = &ops;
    for (int what = REFUSE_NOTHING + 1; what < REFUSALS; what++) {
        volume_world_fill(w.v, a, 0, BYTES, (uint64_t)what);
        atomic_store(&refused, 0);
        atomic_store(&refusal, what);
        struct generation none;
        ck_assert_int_eq(
            volume_world_checkpoint(w.v, 0, &none), what == REFUSE_WRITE ? -ENOSPC : -EIO);
        ck_assert_uint_ge(atomic_load(&refused), 1);
        atomic_store(&refusal, REFUSE_NOTHING);
        volume_world_expect(w.v, a, 0, BYTES, (uint64_t)what);
        volume_world_publish(w.v);
        volume_world_close(&w);
        volume_world_lose_root(&w);
        volume_world_open(&w);
        volume_world_expect(w.v, a, 0, BYTES, (uint64_t)what);
        w.v->checkpoint->options.ops = &ops;
    }
    volume_world_free(&w);
}
END_TEST

// No waiting mends that; a minute of it would look like a hang.
START_TEST(a_full_log_and_a_disk_that_fails_are_told_within_seconds)
{
    struct file_ops ops = file_ops_system;
    ops.fdatasync = refusing_fdatasync;
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_publish(w.v);
    w.v->checkpoint->options.ops = &ops;
    atomic_store(&refusal, REFUSE_SYNC);
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc_zero(1u << 20);
    uint64_t began = clock_monotonic_ms();
    uint64_t written = 0;
    int rc;
    while ((rc = volume_write(w.v, a, written << 20, bytes, 1u << 20, 0)) == 0)
        written++;
    ck_assert_int_eq(rc, -EIO);
    ck_assert_uint_lt(clock_monotonic_ms() - began, 30000); // far below the minute
    atomic_store(&refusal, REFUSE_NOTHING);
    volume_world_publish(w.v);
    ck_assert_int_eq(volume_write(w.v, a, written << 20, bytes, 1u << 20, 0), 0);
    volume_world_free(&w);
}
END_TEST

// ---- flushes ------------------------------------------------------------------------------------

static uint64_t
turns_of(struct volume *v)
{
    lock_take(&v->pace.lock);
    uint64_t turns = v->pace.turns;
    lock_release(&v->pace.lock);
    return turns;
}

// Each is one that a commit can meet, so there shall not be more of them without a reason: the job,
// the blob and its name, the generation; object, directory and name in the store; the record and
// its name; the publication.
START_TEST(a_small_checkpoint_takes_ten_turns_at_flushing)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_fill(w.v, a, 0, 100000, 1);
    volume_world_publish(w.v);
    volume_world_publish(w.v);    // the one before may still be cleaning up
    uint64_t fewest = UINT64_MAX; // a segment of the log that is made meanwhile takes two
    for (uint64_t round = 2; round <= 6; round++) {
        uint64_t before = turns_of(w.v);
        volume_world_fill(w.v, a, 4096 * round, 5000, round);
        volume_world_publish(w.v);
        uint64_t turns = turns_of(w.v) - before;
        fewest = turns < fewest ? turns : fewest;
    }
    ck_assert_uint_eq(fewest, 10);
    volume_world_free(&w);
}
END_TEST

// A fold that takes its time meanwhile would end when writers wait already.
START_TEST(a_log_that_is_nearly_full_makes_flushes_wait_no_more)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_publish(w.v);
    block_scratch(&w);
    for (;;) {
        struct wal_numbers n;
        wal_numbers(w.v->wal, &n);
        ck_assert_uint_lt(n.retained_bytes, n.limit_bytes);
        bool scarce = n.retained_bytes > n.limit_bytes / 4 * 3;
        ck_assert(atomic_load(&w.v->pace.hurried) == scarce);
        if (scarce)
            break;
        volume_world_fill(w.v, a, 0, 100000, 1);
    }
    unblock_scratch(&w);
    volume_world_publish(w.v);
    volume_world_fill(w.v, a, 0, 100000, 2);
    ck_assert(!atomic_load(&w.v->pace.hurried));
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_checkpoint");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(a_checkpoint_after_a_failed_one_holds_what_came_between);
    ADD(what_did_not_fit_and_was_removed_is_not_tried_again);
    ADD(a_damaged_image_keeps_nobody_elses_changes_from_being_folded);
    ADD(chains_of_deltas_stay_short_also_when_the_base_is_not_on_this_host);
    ADD(a_chunk_that_is_written_whole_asks_for_nothing_of_the_old_one);
    ADD(a_base_of_a_sparse_chunk_holds_old_and_new_pages);
    ADD(what_was_cut_off_is_zero_when_the_file_grows_again);
    ADD(seeking_in_a_file_of_exabytes_ends);
    ADD(attempts_that_fail_use_up_no_generations);
    ADD(the_last_error_stays_with_its_time_when_it_is_over);
    ADD(without_enable_checkpoints_the_timer_makes_none);
    ADD(without_enable_chunk_deltas_changed_chunks_become_bases);
    ADD(writers_wait_while_folds_fail_and_go_on_when_they_do_not);
    ADD(the_kernel_can_hand_over_more_than_the_log_holds);
    ADD(pages_that_are_only_in_the_log_are_folded_and_each_is_verified);
    ADD(what_the_disk_refuses_of_a_staged_blob_fails_the_checkpoint);
    ADD(a_full_log_and_a_disk_that_fails_are_told_within_seconds);
    ADD(a_log_that_is_nearly_full_makes_flushes_wait_no_more);
    ADD(a_small_checkpoint_takes_ten_turns_at_flushing);
#undef ADD
    return unit_run(s);
}
