// SPDX-License-Identifier: Apache-2.0
// The volume while the store cannot be reached, and afterwards.
#include "volume_world.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/thread.h"

// A world whose store obeys volume_world_set_faults.
static void
world_new(struct volume_world *w)
{
    volume_world_new(w);
    volume_world_script_faults(w);
    w->config.read_deadline_ms = 300;
}

static uint64_t
disk_bytes(const struct volume_world *w, const char *name)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", w->root, name);
    return volume_world_disk_bytes(path);
}

// ---- writing ------------------------------------------------------------------------------------

#define FILES      40u
#define FILE_BYTES (256u << 10)

struct churn {
    struct volume_world w;
    struct object_id files[FILES];
    uint64_t seeds[FILES][FILE_BYTES / PAGE_BYTES];
    uint64_t random;
};

static void
churn_new(struct churn *c, const char *what)
{
    *c = (struct churn){.random = test_seed(what) * 2 + 1};
    world_new(&c->w);
    volume_world_open(&c->w);
    for (unsigned i = 0; i < FILES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%u", i);
        c->files[i] = volume_world_make_file(c->w.v, name);
        for (unsigned p = 0; p < FILE_BYTES / PAGE_BYTES; p++)
            volume_world_fill(c->w.v, c->files[i], p * PAGE_BYTES, PAGE_BYTES, 0);
    }
}

static void
churn_page(struct churn *c)
{
    uint64_t seed = test_random(&c->random);
    unsigned file = (unsigned)(seed % FILES);
    unsigned page = (unsigned)(seed / FILES % (FILE_BYTES / PAGE_BYTES));
    volume_world_fill(c->w.v, c->files[file], page * PAGE_BYTES, PAGE_BYTES, seed);
    c->seeds[file][page] = seed;
}

static void
churn_expect(struct churn *c)
{
    for (unsigned i = 0; i < FILES; i++)
        for (unsigned p = 0; p < FILE_BYTES / PAGE_BYTES; p++)
            volume_world_expect(c->w.v, c->files[i], p * PAGE_BYTES, PAGE_BYTES, c->seeds[i][p]);
}

// ThreadSanitizer makes every access dear; what it looks for needs no more rounds.
#ifdef __SANITIZE_THREAD__
#define CHURN_PAGES 6000u
#else
#define CHURN_PAGES 20000u
#endif

// Writes many times the footprint and the log while `script` rules the store; folds often. The most
// that hot_cache took on the way.
static uint64_t
churn_under(struct churn *c, const char *script)
{
    struct volume_status status;
    uint64_t most = 0;
    volume_world_set_faults(&c->w, script);
    for (unsigned i = 0; i < CHURN_PAGES; i++) {
        churn_page(c);
        if (i % 100 != 0)
            continue;
        volume_world_fold(c->w.v);
        uint64_t bytes = disk_bytes(&c->w, "hot_cache");
        most = bytes > most ? bytes : most;
        volume_status(c->w.v, &status);
        ck_assert_uint_le(status.metrics.wal_bytes, 3u * (4u << 20));
    }
    ck_assert_int_eq(volume_world_sync(c->w.v), 0);
    return most;
}

static void
churn_end(struct churn *c)
{
    volume_world_set_faults(&c->w, "");
    volume_world_publish(c->w.v);
    churn_expect(c);
    volume_world_close(&c->w);
    volume_world_check(&c->w);
    volume_world_lose_root(&c->w);
    volume_world_open(&c->w);
    churn_expect(c);
    volume_world_free(&c->w);
}

#define FOOTPRINT (FILES * (uint64_t)FILE_BYTES)

START_TEST(an_outage_costs_space_by_what_changed_and_nothing_else)
{
    struct churn c;
    churn_new(&c, "outage");
    volume_world_publish(c.w.v);
    uint64_t most = churn_under(&c, "outage\n");
    struct volume_status status;
    volume_status(c.w.v, &status);
    printf("outage: hot_cache %" PRIu64 " KiB at most for %" PRIu64 " KiB of data\n", most >> 10,
        FOOTPRINT >> 10);
    // The published state, twice what changed (half of a pack may be dead), and what is being made.
    ck_assert_uint_le(most, 4 * FOOTPRINT);
    churn_end(&c);
}
END_TEST

START_TEST(publishing_all_the_time_does_not_fill_the_disk)
{
    struct churn c;
    churn_new(&c, "publishing");
    c.w.config.checkpoint_interval_ms = 100;
    volume_world_close(&c.w);
    volume_world_open(&c.w);
    uint64_t most = churn_under(&c, "");
    printf("publishing: hot_cache %" PRIu64 " KiB at most for %" PRIu64 " KiB of data\n",
        most >> 10, FOOTPRINT >> 10);
    ck_assert_uint_le(most, 6 * FOOTPRINT);
    churn_end(&c);
}
END_TEST

START_TEST(a_slow_store_costs_space_by_what_changed_and_nothing_else)
{
    struct churn c;
    churn_new(&c, "slow");
    c.w.config.checkpoint_interval_ms = 100;
    volume_world_close(&c.w);
    volume_world_open(&c.w);
    uint64_t most = churn_under(&c, "slow 2000\n");
    printf("slow: hot_cache %" PRIu64 " KiB at most for %" PRIu64 " KiB of data\n", most >> 10,
        FOOTPRINT >> 10);
    ck_assert_uint_le(most, 6 * FOOTPRINT);
    churn_end(&c);
}
END_TEST

// ---- opening and closing ------------------------------------------------------------------------

START_TEST(a_root_opens_without_the_store_and_publishes_when_it_is_back)
{
    struct volume_world w;
    world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_fill(w.v, a, 0, 100000, 1);
    volume_world_close(&w);
    volume_world_set_faults(&w, "outage\n");
    w.config.checkpoint_interval_ms = 50;
    w.config.unmount_timeout_ms = 200;
    uint64_t begin = clock_monotonic_ms();
    volume_world_open(&w);
    volume_world_expect(w.v, a, 0, 100000, 1);
    volume_world_fill(w.v, a, 50000, 100000, 2);
    ck_assert_int_eq(volume_world_sync(w.v), 0);
    struct volume_status status;
    volume_status(w.v, &status);
    ck_assert(!status.metrics.store_reachable && !status.metrics.read_only);
    // It can also be closed, soon, and loses nothing.
    ck_assert_int_lt(volume_world_try_close(&w), 0);
    volume_world_open(&w);
    volume_world_expect(w.v, a, 50000, 100000, 2);
    ck_assert_uint_lt(clock_monotonic_ms() - begin, 20000);
    volume_world_set_faults(&w, "");
    volume_world_wait_until_published(&w);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    volume_world_expect(w.v, a, 0, 50000, 1);
    volume_world_expect(w.v, a, 50000, 100000, 2);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_root_without_the_volume_does_not_open_without_the_store)
{
    struct volume_world w;
    world_new(&w);
    volume_world_open(&w);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_set_faults(&w, "outage\n");
    volume_world_open_fails(&w, -ETIMEDOUT);
    volume_world_set_faults(&w, "");
    volume_world_open(&w);
    volume_world_free(&w);
}
END_TEST

// ---- reading ------------------------------------------------------------------------------------

struct reader {
    struct volume *v;
    struct object_id object;
    int64_t result;
    uint64_t ms;
    struct thread thread;
};

static void
read_a_page(void *argument)
{
    struct reader *x = argument;
    uint8_t page[PAGE_BYTES];
    uint64_t begin = clock_monotonic_ms();
    x->result = volume_read(x->v, x->object, 0, sizeof(page), page, NULL);
    x->ms = clock_monotonic_ms() - begin;
}

START_TEST(readers_of_one_page_all_give_up_at_the_deadline)
{
    struct volume_world w;
    world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_fill(w.v, a, 0, 100000, 1);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    w.config.read_deadline_ms = 500;
    volume_world_open(&w);
    volume_world_set_faults(&w, "outage\n");
    struct reader readers[8];
    for (int i = 0; i < 8; i++) {
        readers[i] = (struct reader){.v = w.v, .object = a};
        ck_assert_int_eq(thread_start(&readers[i].thread, "reader", read_a_page, &readers[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        thread_join(&readers[i].thread);
        ck_assert_int_eq(readers[i].result, -EIO);
        ck_assert_uint_lt(readers[i].ms, 1900);
    }
    volume_world_set_faults(&w, "");
    volume_world_expect(w.v, a, 0, 100000, 1);
    volume_world_free(&w);
}
END_TEST

// Flips a bit in the middle of every whole blob of hot_cache.
static unsigned
damage_blobs(const struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/hot_cache/1", w->root);
    DIR *dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    unsigned count = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (!strstr(e->d_name, ".blob"))
            continue;
        CLEANUP(memory_free_auto) char *name = memory_printf("%s/%s", path, e->d_name);
        CLEANUP(file_close_auto) int fd = open(name, O_RDWR);
        struct stat st;
        uint8_t byte;
        ck_assert_int_eq(fstat(fd, &st), 0);
        ck_assert_int_eq(pread(fd, &byte, 1, st.st_size / 2), 1);
        byte ^= 1;
        ck_assert_int_eq(pwrite(fd, &byte, 1, st.st_size / 2), 1);
        count++;
    }
    closedir(dir);
    return count;
}

START_TEST(a_damaged_local_copy_is_repaired_from_the_store)
{
    struct volume_world w;
    world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_fill(w.v, a, 0, 6u << 20, 1);
    volume_world_fold(w.v);
    // The chunk is looked at before its blob is in the store.
    volume_world_expect(w.v, a, 0, 6u << 20, 1);
    volume_world_publish(w.v);
    ck_assert_uint_ge(damage_blobs(&w), 1);
    volume_world_expect(w.v, a, 0, 6u << 20, 1);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_outage");
#define ADD(test) unit_add(s, #test, test, 240)
    ADD(an_outage_costs_space_by_what_changed_and_nothing_else);
    ADD(publishing_all_the_time_does_not_fill_the_disk);
    ADD(a_slow_store_costs_space_by_what_changed_and_nothing_else);
    ADD(a_root_opens_without_the_store_and_publishes_when_it_is_back);
    ADD(a_root_without_the_volume_does_not_open_without_the_store);
    ADD(readers_of_one_page_all_give_up_at_the_deadline);
    ADD(a_damaged_local_copy_is_repaired_from_the_store);
#undef ADD
    return unit_run(s);
}
