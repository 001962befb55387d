// SPDX-License-Identifier: Apache-2.0
// A volume whose storage quota is full: checkpoints go on, and nothing is lost.
#include "volume_quota_world.h"

#include <glob.h>
#include <signal.h>
#include <sys/stat.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "quota/quota_file.h"
#include "volume/volume_fetch.h"
#include "volume/volume_internal.h"

START_TEST(a_log_without_room_for_its_checkpoint_goes_to_the_store_in_parts)
{
    struct volume_world w;
    world_new(&w);
    volume_world_open(&w);
    write_files(w.v, 7);
    fill_quota(w.v);
    uint64_t before = numbers_of(w.v).blobs;
    volume_world_fold(w.v);
    // Images are in the store only. For others the log gives back room while the fold goes on.
    ck_assert_uint_lt(numbers_of(w.v).blobs, before + FILES * FILE_BYTES * 3 / 4);
    storage_quota_set_limit(w.v->quota, 0);
    expect_files(w.v, 7);
    // What dies before it is published is told and buried as other blobs are.
    write_files_again(w.v, 70);
    volume_world_fold(w.v);
    volume_world_publish(w.v);
    expect_rewritten(w.v);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    expect_rewritten(w.v);
    volume_world_free(&w);
}
END_TEST

// Larger than a part, and than all that the quota has room for.
START_TEST(an_image_larger_than_a_part_goes_to_the_store_by_itself)
{
    const size_t bytes = 24u << 20;
    struct volume_world w;
    world_new(&w);
    volume_world_open(&w);
    volume_world_fill(w.v, volume_world_make_file(w.v, "large"), 0, bytes, 3);
    ck_assert_int_eq(volume_world_sync(w.v), 0);
    fill_quota(w.v);
    uint64_t before = numbers_of(w.v).blobs;
    volume_world_fold(w.v);
    ck_assert_uint_lt(numbers_of(w.v).blobs, before + MIB);
    ck_assert_uint_le(numbers_of(w.v).used, numbers_of(w.v).limit);
    volume_world_publish(w.v);
    storage_quota_set_limit(w.v->quota, 0);
    volume_world_expect(w.v, volume_world_find(w.v, "large"), 0, bytes, 3);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    volume_world_expect(w.v, volume_world_find(w.v, "large"), 0, bytes, 3);
    volume_world_free(&w);
}
END_TEST

// ---- writers that wait --------------------------------------------------------------------------

static atomic_uint asked;

static bool
is_to_end(void)
{
    return atomic_fetch_add(&asked, 1) >= 2;
}

START_TEST(a_writer_that_waits_for_room_ends_when_its_program_is_to_end)
{
    struct volume_world w;
    struct volume_attributes a;
    struct volume_caller caller = {0};
    static uint8_t bytes[1 << 16];
    world_new(&w);
    volume_world_script_faults(&w);
    volume_world_open(&w);
    struct object_id object = volume_world_make_file(w.v, "f");
    volume_world_fill(w.v, object, 0, FILE_BYTES, 1);
    ck_assert_int_eq(volume_world_sync(w.v), 0);
    // Publications do not end, so that nothing makes room, and nothing says that they never will.
    volume_world_set_faults(&w, "slow 100000");
    fill_quota(w.v);
    thread_set_interrupt_hook(is_to_end);
    uint64_t began_ms = clock_monotonic_ms();
    int rc = 0;
    for (uint64_t at = 0; rc == 0 && at < 100 * MIB; at += sizeof(bytes))
        rc = volume_write(w.v, object, at, bytes, sizeof(bytes), 0);
    thread_set_interrupt_hook(NULL);
    ck_assert_int_eq(rc, -EINTR);
    ck_assert_uint_ge(asked, 3);
    ck_assert_uint_lt(clock_monotonic_ms() - began_ms, 50000);
    // Nothing of it was decided, and others write on when there is room.
    volume_world_set_faults(&w, "");
    storage_quota_set_limit(w.v->quota, 0);
    volume_watch_quota(w.v);
    ck_assert_int_eq(
        volume_make(w.v, OBJECT_ROOT_DIRECTORY, "more", S_IFREG | 0644, 0, NULL, &caller, &a), 0);
    volume_world_fill(w.v, object, 0, FILE_BYTES, 2);
    volume_world_expect(w.v, object, 0, FILE_BYTES, 2);
    volume_world_free(&w);
}
END_TEST

static struct volume_world *dying;

static bool
has_part(void)
{
    CLEANUP(memory_free_auto)
    char *pattern = memory_printf("%s/store/checkpoints/acme/1/*/pack-*.blob", dying->directory);
    glob_t found;
    bool has = glob(pattern, 0, NULL, &found) == 0;
    globfree(&found);
    return has;
}

static void
ignore(void *argument UNUSED, int result UNUSED, struct generation generation UNUSED)
{
}

// Dies while the second part waits for the store.
static void
die_in_parts(struct volume *v)
{
    write_files(v, 7);
    fill_quota(v);
    volume_world_set_faults(dying, "slow 60");
    checkpoint_request(v->checkpoint, CHECKPOINT_REQUEST_PUBLISH, ignore, NULL);
    while (!has_part())
        clock_sleep_ms(5);
    raise(SIGKILL);
}

START_TEST(a_death_between_two_parts_loses_nothing)
{
    struct volume_world w;
    world_new(&w);
    volume_world_script_faults(&w);
    dying = &w;
    volume_world_die_after(&w, die_in_parts);
    volume_world_set_faults(&w, "");
    volume_world_open(&w);
    expect_files(w.v, 7);
    expect_exact_account(&w);
    volume_world_publish(w.v);
    expect_files(w.v, 7);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

// ---- the manifest -------------------------------------------------------------------------------

static struct volume_world *growing;
static uint64_t manifest_before;
static uint64_t most_counted;

static uint64_t
manifest_bytes(const struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/manifest/data.mdb", w->root);
    return storage_quota_path_bytes(path);
}

// Sees the account when there is no room, before the file has grown.
static bool
watch_account(void *argument UNUSED, const struct quota_wanted *wanted UNUSED)
{
    struct storage_quota_numbers n = numbers_of(growing->v);
    if (manifest_bytes(growing) == manifest_before && n.root_used - n.used > most_counted)
        most_counted = n.root_used - n.used;
    return false;
}

START_TEST(the_growth_of_the_manifest_is_counted_before_it_happens)
{
    struct volume_world w;
    struct volume_attributes a;
    struct volume_caller caller = {0};
    world_new(&w);
    volume_world_open(&w);
    volume_world_fold(w.v);
    for (unsigned i = 0; i < 4000; i++) {
        char name[40];
        snprintf(name, sizeof(name), "a file with a name of its own %u", i);
        ck_assert_int_eq(
            volume_make(w.v, OBJECT_ROOT_DIRECTORY, name, S_IFREG | 0644, 0, NULL, &caller, &a), 0);
    }
    ck_assert_int_eq(volume_world_sync(w.v), 0);
    growing = &w;
    manifest_before = manifest_bytes(&w);
    storage_quota_set_host(w.v->quota, watch_account, NULL);
    storage_quota_set_root_limit(w.v->quota, numbers_of(w.v).root_used);
    volume_world_fold(w.v);
    struct storage_quota_numbers n = numbers_of(w.v);
    ck_assert_uint_gt(manifest_bytes(&w), manifest_before + MIB / 2);
    ck_assert_uint_ge(most_counted, n.root_used - n.used);
    storage_quota_set_root_limit(w.v->quota, 0);
    volume_world_free(&w);
}
END_TEST

// ---- fetching and keeping -----------------------------------------------------------------------

START_TEST(a_job_at_the_end_of_its_budget_ends_and_readers_go_on)
{
    struct volume_world w;
    struct volume_fetched fetched;
    const struct volume_fetch all = {0};
    world_with_files(&w);
    evict(w.v, "");
    storage_quota_set_limit(w.v->quota, 400 * MIB);
    storage_quota_set_job_share(w.v->quota, 2);
    ck_assert_int_eq(volume_fetch(w.v, &all, &fetched), -EDQUOT);
    ck_assert(fetched.budget_is_used_up);
    ck_assert_uint_gt(fetched.done_bytes, 0);
    ck_assert_uint_le(numbers_of(w.v).blobs, 8 * MIB);
    ck_assert_uint_eq(numbers_of(w.v).jobs, 0);
    // As large as two files.
    ck_assert_int_eq(fetch(w.v, volume_world_find(w.v, "f1").v), 0);
    expect_files(w.v, 7);
    ck_assert_uint_gt(numbers_of(w.v).blobs, FILES * FILE_BYTES);
    ck_assert_uint_ge(numbers_of(w.v).job_refusals, 1);
    expect_exact_account(&w);
    evict(w.v, "");
    storage_quota_set_job_share(w.v->quota, 75);
    ck_assert_int_eq(fetch(w.v, 0), 0);
    ck_assert_uint_eq(numbers_of(w.v).jobs, 0);
    volume_world_free(&w);
}
END_TEST

// Dies while a job has bytes of its budget.
static void
die_in_a_job(struct volume *v)
{
    uint64_t job;
    write_files(v, 7);
    volume_world_publish(v);
    evict(v, "");
    storage_quota_set_limit(v->quota, 400 * MIB);
    volume_world_set_faults(dying, "slow 60");
    int rc = volume_hydrate(v, (struct object_id){0}, false, &job);
    while (rc == 0 && numbers_of(v).jobs == 0)
        clock_sleep_ms(1);
    raise(SIGKILL);
}

START_TEST(a_death_in_a_job_leaves_nothing_of_its_budget)
{
    struct volume_world w;
    struct storage_quota_numbers n;
    struct quota_file file;
    world_new(&w);
    volume_world_script_faults(&w);
    dying = &w;
    volume_world_die_after(&w, die_in_a_job);
    quota_file_open(w.root, "db/1", &file);
    ck_assert_uint_gt(file.slot->jobs, 0);
    quota_file_close(&file);
    struct storage_quota *q = storage_quota_open(w.root, "db/1");
    storage_quota_numbers(q, &n);
    ck_assert_uint_eq(n.jobs, 0);
    storage_quota_close(q);
    // The job goes on from what is here.
    volume_world_set_faults(&w, "");
    volume_world_open(&w);
    expect_files(w.v, 7);
    expect_exact_account(&w);
    volume_world_free(&w);
}
END_TEST

// ---- what is left behind ------------------------------------------------------------------------

static void
die_with_a_full_quota(struct volume *v)
{
    write_files(v, 7);
    volume_world_fold(v);
    write_files_again(v, 70);
    fill_quota(v);
    raise(SIGKILL);
}

START_TEST(a_root_that_a_kill_left_with_the_quota_exactly_full_is_taken_over)
{
    struct volume_world w;
    world_new(&w);
    volume_world_die_after(&w, die_with_a_full_quota);
    uint64_t log;
    uint64_t blobs;
    quota_count_place(w.root, "db/1", &log, &blobs);
    w.config.quota_bytes = log + blobs;
    volume_world_open(&w);
    ck_assert_uint_eq(numbers_of(w.v).limit, log + blobs);
    expect_exact_account(&w);
    expect_rewritten(w.v);
    volume_world_publish(w.v);
    ck_assert_uint_le(numbers_of(w.v).used, log + blobs);
    // There is room again.
    volume_world_fill(w.v, volume_world_make_file(w.v, "more"), 0, FILE_BYTES, 5);
    ck_assert_int_eq(volume_world_sync(w.v), 0);
    expect_rewritten(w.v);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

static char *
make_junk(const char *directory, const char *name, uint64_t age_s)
{
    char *path = memory_printf("%s/%s", directory, name);
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc_zero(MIB);
    const struct timespec now = {.tv_sec = (time_t)(clock_wall_ms() / 1000 - age_s)};
    const struct timespec times[2] = {now, now};
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, bytes, MIB, 0600), 0);
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
    ck_assert_int_eq(utimensat(AT_FDCWD, directory, times, 0), 0);
    return path;
}

static bool
exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

START_TEST(the_janitor_removes_what_nothing_needs_and_sets_the_account_right)
{
    const uint64_t day_s = (uint64_t)24 * 3600;
    struct volume_world w;
    world_with_files(&w);
    const char *scratch = local_store_scratch(w.v->local);
    CLEANUP(memory_free_auto) char *job = memory_printf("%s/job", scratch);
    CLEANUP(memory_free_auto) char *young_job = memory_printf("%s/young", scratch);
    CLEANUP(memory_free_auto) char *cache = memory_printf("%s/hot_cache/1", w.root);
    char hex[65];
    const struct sha256 hash = {{1, 2, 3}};
    sha256_to_hex(&hash, hex);
    CLEANUP(memory_free_auto) char *blob_name = memory_printf("%s.blob", hex);
    ck_assert_int_eq(mkdir(job, 0700), 0);
    ck_assert_int_eq(mkdir(young_job, 0700), 0);
    CLEANUP(memory_free_auto) char *staged = make_junk(job, "blob-0", 2 * day_s);
    CLEANUP(memory_free_auto) char *young = make_junk(young_job, "blob-0", 1);
    CLEANUP(memory_free_auto) char *record = make_junk(scratch, "manifest-1.tmp", 2 * day_s);
    CLEANUP(memory_free_auto) char *waits = make_junk(scratch, "manifest-2.tmp", 3600);
    CLEANUP(memory_free_auto) char *blob = make_junk(cache, blob_name, 1);
    volume_clean(w.v);
    ck_assert(!exists(staged) && !exists(job) && !exists(record) && !exists(blob));
    ck_assert(exists(young) && exists(waits));
    expect_exact_account(&w);
    expect_files(w.v, 7);
    ck_assert_uint_gt(numbers_of(w.v).blobs, FILES * FILE_BYTES);
    volume_world_free(&w);
}
END_TEST

// At the mount all of the scratch directory goes, of any age; later what is old, when it is due.
START_TEST(the_janitor_runs_at_the_mount_and_when_it_is_due)
{
    const uint64_t day_s = (uint64_t)24 * 3600;
    struct volume_world w;
    world_with_files(&w);
    CLEANUP(memory_free_auto) char *scratch = memory_string(local_store_scratch(w.v->local));
    CLEANUP(memory_free_auto) char *old = make_junk(scratch, "manifest-1.tmp", 2 * day_s);
    // The housekeeping thread does the same each second.
    volume_clean_when_due(w.v);
    ck_assert(exists(old));
    volume_stop_housekeeping(w.v);
    w.v->housekeeping.next_janitor_ms = 0;
    volume_clean_when_due(w.v);
    ck_assert(!exists(old));
    ck_assert_uint_gt(w.v->housekeeping.next_janitor_ms, clock_monotonic_ms() + 500000);
    expect_exact_account(&w);
    volume_world_close(&w);
    CLEANUP(memory_free_auto) char *young = make_junk(scratch, "manifest-2.tmp", 1);
    CLEANUP(memory_free_auto) char *job = memory_printf("%s/job", scratch);
    ck_assert_int_eq(mkdir(job, 0700), 0);
    CLEANUP(memory_free_auto) char *staged = make_junk(job, "blob-0", 1);
    volume_world_open(&w);
    ck_assert(!exists(young) && !exists(staged) && !exists(job));
    expect_exact_account(&w);
    expect_files(w.v, 7);
    volume_world_free(&w);
}
END_TEST

static atomic_bool cleaning;

static void
clean_all_the_time(void *argument)
{
    while (atomic_load(&cleaning))
        volume_clean(argument);
}

START_TEST(the_janitor_takes_nothing_from_a_checkpoint)
{
    struct volume_world w;
    struct thread thread;
    volume_world_new(&w);
    volume_world_open(&w);
    // The volume's own janitor comes after ten minutes.
    atomic_store(&cleaning, true);
    ck_assert_int_eq(thread_start(&thread, "janitor", clean_all_the_time, w.v), 0);
    struct object_id object = volume_world_make_file(w.v, "f");
    for (unsigned i = 0; i < 40; i++) {
        volume_world_fill(w.v, object, i % 8 * (uint64_t)100000, 300000, i);
        volume_world_fold(w.v);
        volume_world_expect(w.v, object, i % 8 * (uint64_t)100000, 300000, i);
    }
    volume_world_publish(w.v);
    atomic_store(&cleaning, false);
    thread_join(&thread);
    expect_exact_account(&w);
    volume_world_expect(w.v, object, 7 * (uint64_t)100000, 300000, 39);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_quota");
    unit_add(s, "a_log_without_room_for_its_checkpoint_goes_to_the_store_in_parts",
        a_log_without_room_for_its_checkpoint_goes_to_the_store_in_parts, 60);
    unit_add(s, "an_image_larger_than_a_part_goes_to_the_store_by_itself",
        an_image_larger_than_a_part_goes_to_the_store_by_itself, 60);
    unit_add(s, "a_writer_that_waits_for_room_ends_when_its_program_is_to_end",
        a_writer_that_waits_for_room_ends_when_its_program_is_to_end, 60);
    unit_add(
        s, "a_death_between_two_parts_loses_nothing", a_death_between_two_parts_loses_nothing, 60);
    unit_add(s, "the_growth_of_the_manifest_is_counted_before_it_happens",
        the_growth_of_the_manifest_is_counted_before_it_happens, 60);
    unit_add(s, "a_job_at_the_end_of_its_budget_ends_and_readers_go_on",
        a_job_at_the_end_of_its_budget_ends_and_readers_go_on, 60);
    unit_add(s, "a_death_in_a_job_leaves_nothing_of_its_budget",
        a_death_in_a_job_leaves_nothing_of_its_budget, 60);
    unit_add(s, "a_root_that_a_kill_left_with_the_quota_exactly_full_is_taken_over",
        a_root_that_a_kill_left_with_the_quota_exactly_full_is_taken_over, 60);
    unit_add(s, "the_janitor_removes_what_nothing_needs_and_sets_the_account_right",
        the_janitor_removes_what_nothing_needs_and_sets_the_account_right, 60);
    unit_add(s, "the_janitor_runs_at_the_mount_and_when_it_is_due",
        the_janitor_runs_at_the_mount_and_when_it_is_due, 60);
    unit_add(s, "the_janitor_takes_nothing_from_a_checkpoint",
        the_janitor_takes_nothing_from_a_checkpoint, 60);
    return unit_run(s);
}
