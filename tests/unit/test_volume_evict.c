// SPDX-License-Identifier: Apache-2.0
// Fetching files, keeping them and evicting them: on demand, and when there is no room.
#include "volume_quota_world.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/checksum.h"
#include "checkpoint/checkpoint_internal.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "volume/volume_fetch.h"

// ---- fetching and keeping -----------------------------------------------------------------------

static bool
is_pinned(struct volume *v, uint64_t inode)
{
    lock_take(&v->evicting);
    bool found = inode == 0 && v->kept.all;
    for (size_t i = 0; i < v->kept.inode_count; i++)
        found |= inode != 0 && v->kept.inodes[i] == inode;
    lock_release(&v->evicting);
    return found;
}

static void
keep(struct volume *v, uint64_t inode, bool expected)
{
    ck_assert_int_eq(is_pinned(v, inode), expected);
    ck_assert_int_eq(volume_keep(v, inode, 0), 0);
    ck_assert(is_pinned(v, inode));
}

START_TEST(fetched_data_is_read_without_the_store)
{
    struct volume_world w;
    world_new(&w);
    volume_world_script_faults(&w);
    volume_world_open(&w);
    write_files(w.v, 7);
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    uint64_t f1 = volume_world_find(w.v, "f1").v;
    ck_assert_int_eq(fetch(w.v, f1), 0);
    uint64_t once = remote_bytes(w.v);
    ck_assert_uint_ge(once, FILE_BYTES);
    ck_assert_uint_lt(once, 2 * FILE_BYTES);
    volume_world_expect(w.v, (struct object_id){f1}, 0, FILE_BYTES, 8);
    ck_assert_uint_eq(remote_bytes(w.v), once);
    ck_assert_int_eq(fetch(w.v, f1), 0); // a look at the files
    ck_assert_uint_eq(remote_bytes(w.v), once);
    ck_assert_int_eq(fetch(w.v, 0), 0);
    volume_world_set_faults(&w, "outage");
    expect_files(w.v, 7);
    volume_world_set_faults(&w, "");
    volume_world_free(&w);
}
END_TEST

static bool
always(void *argument UNUSED)
{
    return true;
}

START_TEST(fetching_ends_when_it_is_cancelled_or_there_is_no_room)
{
    struct volume_world w;
    world_with_files(&w);
    evict(w.v, "");
    const struct volume_fetch canceled = {.is_canceled = always};
    struct volume_fetched fetched;
    ck_assert_int_eq(volume_fetch(w.v, &canceled, &fetched), -ECANCELED);
    ck_assert_uint_eq(fetched.done_bytes, 0);
    ck_assert_uint_ge(fetched.total_bytes, FILES * FILE_BYTES);
    // One file would push itself out, and all have no room.
    expect_exact_account(&w);
    fill_quota(w.v);
    ck_assert_int_eq(fetch(w.v, 0), -EDQUOT);
    storage_quota_set_limit(w.v->quota, FILE_BYTES);
    ck_assert_int_eq(fetch(w.v, volume_world_find(w.v, "f1").v), -EDQUOT);
    storage_quota_set_limit(w.v->quota, 0);
    ck_assert_int_eq(fetch(w.v, 0), 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(kept_files_stay_also_after_they_have_changed)
{
    struct volume_world w;
    world_with_files(&w);
    struct object_id f2 = volume_world_find(w.v, "f2");
    keep(w.v, f2.v, false);
    keep(w.v, f2.v, true);
    uint64_t before = remote_bytes(w.v);
    volume_world_expect(w.v, f2, 0, FILE_BYTES, 9);
    volume_world_fill(w.v, f2, 0, MIB, 33);
    volume_world_publish(w.v);
    storage_quota_set_limit(w.v->quota, FILE_BYTES);
    volume_relieve(w.v); // evicts all that may go
    storage_quota_set_limit(w.v->quota, 0);
    volume_world_expect(w.v, f2, 0, MIB, 33);
    volume_world_expect(w.v, f2, MIB, FILE_BYTES - MIB, 9);
    ck_assert_uint_eq(remote_bytes(w.v), before);
    CLEANUP(memory_free_auto) char *what = memory_printf("inode %llu", (unsigned long long)f2.v);
    evict(w.v, what); // keeps it no more
    volume_world_expect(w.v, f2, 0, MIB, 33);
    ck_assert_uint_gt(remote_bytes(w.v), before);
    volume_world_free(&w);
}
END_TEST

static void
describe_parts(struct volume *v, struct buffer *out)
{
    struct part_list *parts = part_list_new();
    uint32_t hand = local_store_list_parts(v->local, parts);
    ck_assert_uint_ge(part_list_count(parts), FILE_BYTES / MIB);
    part_list_encode(parts, hand, out);
    part_list_free(parts);
}

static bool
is_kept(struct volume *v, const struct sha256 *hash)
{
    lock_take(&v->evicting);
    volume_refresh_kept_locked(v);
    bool kept = volume_is_kept_locked(v, hash);
    lock_release(&v->evicting);
    return kept;
}

static void
expect_kept(void *argument, const struct blob_location *where)
{
    ck_assert(is_kept(argument, &where->blob));
}

// A thread that cannot read which blobs a pinned file has takes none for free.
START_TEST(pins_hold_while_the_manifest_cannot_be_read)
{
    struct volume_world w;
    const struct sha256 other = {{1}};
    world_with_files(&w);
    uint64_t f2 = volume_world_find(w.v, "f2").v;
    keep(w.v, f2, false);
    ck_assert_int_eq(volume_visit_images(w.v, f2, expect_kept, w.v), 0);
    ck_assert(!is_kept(w.v, &other));
    const struct db_id db = w.v->db;
    w.v->db.v = 999;
    ck_assert(is_kept(w.v, &other));
    w.v->db = db;
    ck_assert(!is_kept(w.v, &other));
    ck_assert_int_eq(volume_visit_images(w.v, f2, expect_kept, w.v), 0);
    volume_world_fill(w.v, (struct object_id){f2}, 0, FILE_BYTES, 33);
    volume_world_fold(w.v);
    ck_assert_int_eq(volume_visit_images(w.v, f2, expect_kept, w.v), 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(bad_arguments_evict_nothing_and_end_no_pin)
{
    static const char *const bad[] = {"inode 0", "inode -1", "inode +1", "inode  1", "inode",
        "inode ", "inode 1x", "inode 18446744073709551616", "inode 36893488147419103233", "all"};
    struct volume_world w;
    BUFFER_AUTO text = {0};
    world_with_files(&w);
    uint64_t f1 = volume_world_find(w.v, "f1").v;
    keep(w.v, f1, false);
    uint64_t before = numbers_of(w.v).blobs;
    for (unsigned i = 0; i < ARRAY_LENGTH(bad); i++) {
        ck_assert_int_eq(try_evict(w.v, bad[i], NULL, &text), -EINVAL);
        ck_assert_ptr_nonnull(strstr(buffer_string(&text), "is not right"));
    }
    ck_assert_uint_eq(numbers_of(w.v).blobs, before);
    keep(w.v, f1, true);
    ck_assert_int_eq(
        volume_world_operate(w.v, VOLUME_OPERATION_SNAPSHOT_CREATE, 0, "s -1", &text), -EINVAL);
    ck_assert_int_eq(
        volume_world_operate(w.v, VOLUME_OPERATION_JOB_REPORT, 0, "+1", &text), -EINVAL);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_hydration_that_fails_leaves_no_pin)
{
    struct volume_world w;
    uint64_t id;
    struct job_record job;
    world_with_files(&w);
    evict(w.v, "");
    struct object_id f1 = volume_world_find(w.v, "f1");
    for (unsigned round = 0; round < 3; round++) {
        // In the last round the file was pinned before.
        if (round == 2)
            keep(w.v, f1.v, false);
        struct object_id object = round == 0 ? (struct object_id){0} : f1;
        expect_exact_account(&w);
        if (round == 0)
            fill_quota(w.v);
        else
            storage_quota_set_limit(w.v->quota, FILE_BYTES);
        ck_assert_int_eq(volume_hydrate(w.v, object, true, &id), 0);
        do {
            clock_sleep_ms(2);
            ck_assert_int_eq(volume_job_look(w.v, id, false, &job), 0);
        } while (job.state != JOB_FAILED && job.state != JOB_COMPLETED);
        ck_assert_int_eq(job.state, JOB_FAILED);
        ck_assert_int_eq(job.error, -EDQUOT);
        ck_assert_uint_eq(w.v->kept.inode_count, round == 2);
        ck_assert(!w.v->kept.all);
        storage_quota_set_limit(w.v->quota, 0);
    }
    volume_world_free(&w);
}
END_TEST

// ---- pins of jobs that do not run ---------------------------------------------------------------

static struct job_record
look_at_job(struct volume *v, uint64_t id)
{
    struct job_record job;
    ck_assert_int_eq(volume_job_look(v, id, false, &job), 0);
    return job;
}

static struct job_record
await_state(struct volume *v, uint64_t id, enum job_state state)
{
    struct job_record job;
    while ((job = look_at_job(v, id)).state != state)
        clock_sleep_ms(1);
    return job;
}

// The job that is to pin f1 is in the middle of its work when a more urgent one comes and stays.
// The id of the first one.
static uint64_t
interrupt_hydration(struct volume *v, const struct volume_world *w)
{
    uint64_t id, urgent, bytes = 0;
    struct object_id f1 = volume_world_find(v, "f1");
    const struct job_hydration order = {.object = volume_world_find(v, "f2")};
    const struct remote_call call = {.class = REMOTE_JOB};
    while (job_queue_depth(v->jobs) > 0)
        clock_sleep_ms(1);
    evict(v, "");
    // A part of it is here.
    ck_assert_int_eq(chunk_reader_fetch_pages(
                         v->reader, f1, (struct page_no){0}, MIB / PAGE_BYTES, &call, &bytes),
        0);
    ck_assert_uint_ge(bytes, MIB / 2);
    volume_world_set_faults(w, "slow 3600000 checkpoints/");
    ck_assert_int_eq(volume_hydrate(v, f1, true, &id), 0);
    while (!is_pinned(v, f1.v))
        clock_sleep_ms(1);
    ck_assert_int_eq(
        job_queue_submit(v->jobs, JOB_HYDRATE_FILES, &order, JOB_PRIORITY_URGENT, NULL, &urgent),
        0);
    await_state(v, urgent, JOB_IN_FLIGHT);
    ck_assert_int_eq(look_at_job(v, id).state, JOB_PENDING);
    return id;
}

static void
expect_pinned_part(const struct volume_world *w)
{
    struct object_id f1 = volume_world_find(w->v, "f1");
    ck_assert(is_pinned(w->v, f1.v));
    uint64_t before = remote_bytes(w->v);
    storage_quota_set_limit(w->v->quota, FILE_BYTES);
    volume_relieve(w->v); // evicts all that may go
    storage_quota_set_limit(w->v->quota, 0);
    volume_world_expect(w->v, f1, 0, MIB, 8);
    ck_assert_uint_eq(remote_bytes(w->v), before);
}

static void
world_with_slow_store(struct volume_world *w)
{
    world_new(w);
    volume_world_script_faults(w);
    volume_world_open(w);
    write_files(w->v, 7);
    volume_world_publish(w->v);
}

START_TEST(a_pin_stays_while_its_job_is_interrupted)
{
    struct volume_world w;
    world_with_slow_store(&w);
    uint64_t id = interrupt_hydration(w.v, &w);
    uint64_t f1 = volume_world_find(w.v, "f1").v;
    expect_pinned_part(&w);
    // The job is cancelled while it waits: its pin ends.
    ck_assert_int_eq(volume_job_cancel(w.v, id), 0);
    ck_assert(!is_pinned(w.v, f1));
    volume_world_set_faults(&w, "");
    // A job that goes on and ends well leaves the pin.
    id = interrupt_hydration(w.v, &w);
    volume_world_set_faults(&w, "");
    await_state(w.v, id, JOB_COMPLETED);
    expect_pinned_part(&w);
    // Then it is nobody's: the failure of another job does not end it.
    id = 0;
    volume_end_keep(w.v, f1, 12345, false);
    ck_assert(is_pinned(w.v, f1));
    ck_assert_int_eq(volume_hydrate(w.v, (struct object_id){f1}, true, &id), 0);
    await_state(w.v, id, JOB_COMPLETED);
    ck_assert(is_pinned(w.v, f1));
    volume_world_free(&w);
}
END_TEST

static const struct volume_world *dying;

static void
die_interrupted(struct volume *v)
{
    interrupt_hydration(v, dying);
}

START_TEST(a_pin_is_there_at_the_mount_after_a_death)
{
    struct volume_world w;
    uint64_t id = 0;
    struct job_record job;
    world_with_slow_store(&w);
    volume_world_close(&w);
    dying = &w;
    volume_world_die_after(&w, die_interrupted);
    volume_world_open(&w);
    // The urgent job is still before it.
    struct object_id f1 = volume_world_find(w.v, "f1");
    expect_pinned_part(&w);
    while (volume_job_look(w.v, id, true, &job) == 0 && (id = job.id) != 0)
        if (job.kind == JOB_HYDRATE_FILES && job.priority == JOB_PRIORITY_ASKED)
            break;
    ck_assert_int_eq(job.kind, JOB_HYDRATE_FILES);
    ck_assert_int_eq(job.state, JOB_PENDING);
    // A job that goes on keeps it for good, one that is cancelled does not.
    volume_world_set_faults(&w, "");
    await_state(w.v, id, JOB_COMPLETED);
    ck_assert(is_pinned(w.v, f1.v));
    volume_world_close(&w);
    volume_world_die_after(&w, die_interrupted);
    volume_world_open(&w);
    ck_assert(is_pinned(w.v, f1.v));
    for (id = 0; volume_job_look(w.v, id, true, &job) == 0; id = job.id)
        if (job.state == JOB_PENDING)
            ck_assert_int_eq(volume_job_cancel(w.v, job.id), 0);
    ck_assert(!is_pinned(w.v, f1.v));
    volume_world_set_faults(&w, "");
    volume_world_free(&w);
}
END_TEST

// ---- evicting on demand -------------------------------------------------------------------------

struct watched {
    struct volume *v;
    uint64_t done, total;
    unsigned calls;
    unsigned stop_after; // calls; 0: never
};

// A thread that needs room gets the lock between two copies.
static void
note_progress(void *argument, uint64_t done_bytes, uint64_t total_bytes)
{
    struct watched *x = argument;
    lock_take(&x->v->evicting);
    lock_release(&x->v->evicting);
    ck_assert_uint_ge(done_bytes, x->done);
    ck_assert_uint_le(done_bytes, total_bytes);
    x->done = done_bytes;
    x->total = total_bytes;
    x->calls++;
}

static bool
is_stopped(void *argument)
{
    const struct watched *x = argument;
    return x->stop_after > 0 && x->calls >= x->stop_after;
}

START_TEST(evicting_tells_its_progress_holds_nobody_up_and_can_be_stopped)
{
    struct volume_world w;
    BUFFER_AUTO text = {0};
    world_with_files(&w);
    write_files_again(w.v, 70);
    volume_world_publish(w.v);
    expect_rewritten(w.v);
    uint64_t before = numbers_of(w.v).blobs;
    struct watched x = {.v = w.v, .stop_after = 1};
    const struct volume_command by = {is_stopped, note_progress, &x};
    ck_assert_int_eq(try_evict(w.v, "", &by, &text), -ECANCELED);
    ck_assert_ptr_nonnull(strstr(buffer_string(&text), "stopped"));
    ck_assert_uint_eq(x.calls, 1);
    ck_assert_uint_lt(numbers_of(w.v).blobs, before);
    ck_assert_uint_gt(numbers_of(w.v).blobs, 0);
    expect_exact_account(&w);
    x = (struct watched){.v = w.v};
    buffer_clear(&text);
    ck_assert_int_eq(volume_evict_operation(w.v, "", true, &by, &text), 0);
    ck_assert_ptr_nonnull(strstr(buffer_string(&text), "\"blob_bytes\":0,\"canceled\":false"));
    ck_assert_uint_eq(x.done, x.total);
    ck_assert_uint_eq(numbers_of(w.v).blobs, 0);
    expect_rewritten(w.v);
    volume_world_free(&w);
}
END_TEST

static struct volume_operation_report
report_of(struct volume *v, uint64_t ticket)
{
    struct volume_operation_report report;
    char text[200];
    ck_assert_int_eq(volume_operation_report(v, ticket, 0, text, sizeof(text), &report), 0);
    return report;
}

static void
wait_for_state(struct volume *v, uint64_t ticket, unsigned state)
{
    while (report_of(v, ticket).state != state)
        clock_sleep_ms(1);
}

static int
cancel(struct volume *v, const char *ticket)
{
    uint64_t none;
    int rc = volume_operation_start(v, VOLUME_OPERATION_CANCEL, 0, ticket, &none);
    ck_assert_uint_eq(none, 0);
    return rc;
}

static atomic_bool holding;

static void
hold_evicting(void *argument)
{
    struct volume *v = argument;
    lock_take(&v->evicting);
    atomic_store(&holding, true);
    while (atomic_load(&holding))
        clock_sleep_ms(1);
    lock_release(&v->evicting);
}

START_TEST(a_command_can_be_stopped_while_it_runs_or_waits)
{
    struct volume_world w;
    struct thread holder;
    uint64_t tickets[2];
    world_with_files(&w);
    uint64_t before = numbers_of(w.v).blobs;
    // The first cannot go on.
    ck_assert_int_eq(thread_start(&holder, "holder", hold_evicting, w.v), 0);
    while (!atomic_load(&holding))
        clock_sleep_ms(1);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(
            volume_operation_start(w.v, VOLUME_OPERATION_EVICT, 0, "", &tickets[i]), 0);
    wait_for_state(w.v, tickets[0], VOLUME_OPERATION_RUNS);
    CLEANUP(memory_free_auto)
    char *first = memory_printf("%llu", (unsigned long long)tickets[0]);
    CLEANUP(memory_free_auto)
    char *second = memory_printf("%llu", (unsigned long long)tickets[1]);
    ck_assert_int_eq(cancel(w.v, second), 0);
    ck_assert_uint_eq(report_of(w.v, tickets[1]).state, VOLUME_OPERATION_DONE);
    ck_assert_int_eq(report_of(w.v, tickets[1]).result, -ECANCELED);
    ck_assert_int_eq(cancel(w.v, first), 0);
    atomic_store(&holding, false);
    thread_join(&holder);
    wait_for_state(w.v, tickets[0], VOLUME_OPERATION_DONE);
    ck_assert_int_eq(report_of(w.v, tickets[0]).result, -ECANCELED);
    ck_assert_uint_eq(numbers_of(w.v).blobs, before);
    ck_assert_int_eq(cancel(w.v, first), -EALREADY);
    ck_assert_int_eq(cancel(w.v, "999"), -ENOENT);
    ck_assert_int_eq(cancel(w.v, "-1"), -EINVAL);
    ck_assert_int_eq(cancel(w.v, "0"), -EINVAL);
    volume_world_free(&w);
}
END_TEST

START_TEST(recency_survives_a_clean_restart)
{
    struct volume_world w;
    BUFFER_AUTO before = {0};
    BUFFER_AUTO after = {0};
    world_new(&w);
    w.config.quota_bytes = 96 * MIB;
    volume_world_open(&w);
    write_files(w.v, 7);
    volume_world_publish(w.v);
    evict(w.v, "");
    volume_world_expect(w.v, volume_world_find(w.v, "f2"), 0, FILE_BYTES, 9);
    volume_world_expect(w.v, volume_world_find(w.v, "f0"), 0, FILE_BYTES, 7);
    describe_parts(w.v, &before);
    volume_world_close(&w);
    volume_world_open(&w);
    describe_parts(w.v, &after);
    ck_assert_uint_eq(before.length, after.length);
    ck_assert_mem_eq(before.data, after.data, before.length);
    expect_exact_account(&w);
    volume_world_free(&w);
}
END_TEST

// ---- room ---------------------------------------------------------------------------------------

#define THREADS 6u

static atomic_uint ready;

static void
reserve_at_once(void *argument)
{
    struct volume *v = argument;
    atomic_fetch_add(&ready, 1);
    ck_assert_int_eq(storage_quota_reserve(v->quota, QUOTA_BLOBS, QUOTA_CACHE, MIB / 4), 0);
}

// The thread that gets the lock first makes room for all.
START_TEST(threads_that_need_room_at_once_evict_once)
{
    struct volume_world w;
    struct thread threads[THREADS];
    world_new(&w);
    w.config.quota_bytes = 96 * MIB;
    volume_world_open(&w);
    write_files(w.v, 7);
    volume_world_publish(w.v);
    expect_files(w.v, 7);
    uint64_t blobs = numbers_of(w.v).blobs;
    uint64_t rest = numbers_of(w.v).room;
    ck_assert_uint_gt(blobs, 16 * MIB);
    ck_assert_int_eq(storage_quota_reserve(w.v->quota, QUOTA_LOG, QUOTA_CACHE, rest), 0);
    lock_take(&w.v->evicting);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(thread_start(&threads[i], "reserve", reserve_at_once, w.v), 0);
    while (atomic_load(&ready) < THREADS)
        clock_sleep_ms(1);
    clock_sleep_ms(20); // most are at the lock by now; the result must not depend on it
    lock_release(&w.v->evicting);
    for (unsigned i = 0; i < THREADS; i++)
        thread_join(&threads[i]);
    // A sixteenth of the limit in advance, and a part or two.
    ck_assert_uint_ge(numbers_of(w.v).blobs, blobs - (96 / 16 + 3) * MIB);
    storage_quota_give_back(w.v->quota, QUOTA_BLOBS, THREADS * MIB / 4);
    storage_quota_give_back(w.v->quota, QUOTA_LOG, rest);
    expect_exact_account(&w);
    volume_world_free(&w);
}
END_TEST

// A little that was evicted is not the room that was missing.
START_TEST(a_checkpoint_is_asked_for_when_eviction_makes_too_little_room)
{
    struct volume_world w;
    struct checkpoint_numbers n;
    world_new(&w);
    volume_world_open(&w);
    volume_world_fill(w.v, volume_world_make_file(w.v, "small"), 0, MIB, 1);
    volume_world_publish(w.v);
    write_files(w.v, 7);
    uint64_t blobs = numbers_of(w.v).blobs;
    checkpoint_numbers(w.v->checkpoint, &n);
    uint64_t publications = n.publications;
    ck_assert_uint_gt(blobs, 0);
    fill_quota(w.v);
    volume_relieve(w.v);
    bool asked = atomic_load(&w.v->relieving);
    ck_assert_uint_lt(numbers_of(w.v).blobs, blobs);
    checkpoint_numbers(w.v->checkpoint, &n);
    ck_assert(asked || n.publications > publications);
    storage_quota_set_limit(w.v->quota, 0);
    volume_world_free(&w);
}
END_TEST

static void
set_result(void *argument, int result, struct generation generation UNUSED)
{
    atomic_store((_Atomic int *)argument, result);
}

static void
begin_fold_without_room(struct volume_world *w, _Atomic int *result)
{
    uint64_t log, blobs, used;
    atomic_store(result, 1);
    // The log has no segment in work.
    do {
        clock_sleep_ms(2);
        used = numbers_of(w->v).used;
        quota_count_place(w->root, "db/1", &log, &blobs);
    } while (numbers_of(w->v).log != log);
    storage_quota_set_limit(w->v->quota, used + used / 16); // a record can be published
    checkpoint_request(w->v->checkpoint, 0, set_result, result);
    while (checkpoint_fold_error(w->v->checkpoint) != -EDQUOT) {
        clock_sleep_ms(1);
        ck_assert_int_eq(atomic_load(result), 1);
    }
}

static void
expect_fold(_Atomic int *result)
{
    uint64_t end_ms = clock_monotonic_ms() + 20000;
    while (atomic_load(result) == 1 && clock_monotonic_ms() < end_ms)
        clock_sleep_ms(2);
    ck_assert_int_eq(atomic_load(result), 0);
}

// A pause of an hour ends when a publication has made room.
START_TEST(a_fold_without_room_goes_on_as_soon_as_there_is_some)
{
    struct volume_world w;
    _Atomic int result;
    world_new(&w);
    volume_world_script_faults(&w);
    volume_world_open(&w);
    w.v->checkpoint->options.fold_retry_ms = 3600000;
    write_files(w.v, 7);
    volume_world_set_faults(&w, "outage");
    volume_world_fold(w.v);
    write_files_again(w.v, 70);
    begin_fold_without_room(&w, &result);
    volume_world_set_faults(&w, "");
    expect_fold(&result);
    storage_quota_set_limit(w.v->quota, 0);
    expect_rewritten(w.v);
    volume_world_publish(w.v);
    expect_exact_account(&w);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_evict");
    unit_add(
        s, "fetched_data_is_read_without_the_store", fetched_data_is_read_without_the_store, 60);
    unit_add(s, "fetching_ends_when_it_is_cancelled_or_there_is_no_room",
        fetching_ends_when_it_is_cancelled_or_there_is_no_room, 60);
    unit_add(s, "kept_files_stay_also_after_they_have_changed",
        kept_files_stay_also_after_they_have_changed, 60);
    unit_add(s, "pins_hold_while_the_manifest_cannot_be_read",
        pins_hold_while_the_manifest_cannot_be_read, 60);
    unit_add(s, "bad_arguments_evict_nothing_and_end_no_pin",
        bad_arguments_evict_nothing_and_end_no_pin, 60);
    unit_add(s, "a_hydration_that_fails_leaves_no_pin", a_hydration_that_fails_leaves_no_pin, 60);
    unit_add(s, "a_pin_stays_while_its_job_is_interrupted",
        a_pin_stays_while_its_job_is_interrupted, 60);
    unit_add(s, "a_pin_is_there_at_the_mount_after_a_death",
        a_pin_is_there_at_the_mount_after_a_death, 60);
    unit_add(s, "evicting_tells_its_progress_holds_nobody_up_and_can_be_stopped",
        evicting_tells_its_progress_holds_nobody_up_and_can_be_stopped, 60);
    unit_add(s, "a_command_can_be_stopped_while_it_runs_or_waits",
        a_command_can_be_stopped_while_it_runs_or_waits, 60);
    unit_add(s, "threads_that_need_room_at_once_evict_once",
        threads_that_need_room_at_once_evict_once, 60);
    unit_add(s, "a_checkpoint_is_asked_for_when_eviction_makes_too_little_room",
        a_checkpoint_is_asked_for_when_eviction_makes_too_little_room, 60);
    unit_add(s, "a_fold_without_room_goes_on_as_soon_as_there_is_some",
        a_fold_without_room_goes_on_as_soon_as_there_is_some, 120);
    unit_add(s, "recency_survives_a_clean_restart", recency_survives_a_clean_restart, 60);
    return unit_run(s);
}
