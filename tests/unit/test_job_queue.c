// SPDX-License-Identifier: Apache-2.0
// The queue of jobs and its worker, with handlers that tests let go on step by step.
#include "unit.h"

#include "jobs/job_queue.h"
#include "manifest_fixture.h"
#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/memory.h"

#define EVENTS_MAX 256

struct world {
    struct fixture f;
    struct job_queue *queue;
    bool with_lanes;
    uint64_t patience_ms;
    struct lock lock;
    struct condition changed;
    // What has run, in order: the object or generation of each run.
    uint64_t events[EVENTS_MAX];
    unsigned event_count;
    bool held;                    // runs wait until they are interrupted or let go
    int result;                   // of runs that are let go
    unsigned failing;             // so many runs fail first
    unsigned parking;             // so many runs park first
    uint64_t pause_ms;            // for as long
    uint64_t markers[EVENTS_MAX]; // the marker each run began with
    unsigned told_failed;         // how often, and of which job last
    uint64_t failed_number;
};

static uint64_t
number_of(const struct job_record *job)
{
    union {
        struct job_generation generation;
        struct job_truncation truncation;
    } u;
    ck_assert_int_eq(job_read_parameters(job, &u), 0);
    return job->kind == JOB_TRUNCATE_APPEND_ONLY ? u.truncation.object.v
                                                 : u.generation.generation.v;
}

static int
handle(void *argument, struct job_run *run)
{
    struct world *w = argument;
    uint64_t number = number_of(run->job);
    uint64_t marker = 0;
    lock_take(&w->lock);
    ck_assert_uint_lt(w->event_count, EVENTS_MAX);
    memcpy(&marker, run->job->marker, run->job->marker_length);
    w->markers[w->event_count] = marker;
    w->events[w->event_count++] = number;
    condition_broadcast(&w->changed);
    bool fails = w->failing > 0;
    w->failing -= fails;
    bool parks = w->parking > 0;
    w->parking -= parks;
    uint64_t pause_ms = w->pause_ms;
    while (w->held && !job_is_interrupted(run))
        condition_wait_until(&w->changed, &w->lock, clock_monotonic_ms() + 5);
    int rc = fails ? -EAGAIN : w->result;
    lock_release(&w->lock);
    job_progress(run, "half", 1, 2);
    marker++;
    ck_assert_int_eq(job_mark(run, &marker, sizeof(marker)), 0);
    if (parks) {
        buffer_printf(run->text, "parked");
        return job_park(run, "waiting", pause_ms);
    }
    if (job_is_interrupted(run))
        return -ECANCELED;
    buffer_printf(run->text, rc < 0 ? "it is %d\nand more" : "done %d", rc);
    return rc;
}

static bool
is_passing(int error)
{
    return error == -EAGAIN;
}

static void
hear_failed(void *argument, const struct job_record *job)
{
    struct world *w = argument;
    lock_take(&w->lock);
    w->told_failed++;
    w->failed_number = number_of(job);
    lock_release(&w->lock);
}

static const struct job_handler_entry handlers[] = {
    {JOB_TRUNCATE_APPEND_ONLY, JOB_LANE_SHORT, handle, is_passing, 3, hear_failed},
    {JOB_DOWNLOAD_CHECKPOINT, JOB_LANE_SHORT, handle, is_passing, 0, hear_failed},
};

static const struct job_handler_entry handlers_of_lanes[] = {
    {JOB_TRUNCATE_APPEND_ONLY, JOB_LANE_SHORT, handle, is_passing, 3, NULL},
    {JOB_DOWNLOAD_CHECKPOINT, JOB_LANE_LONG, handle, is_passing, 0, NULL},
};

static void
open_queue(struct world *w)
{
    const struct job_queue_options options = {
        .manifest = w->f.manifest,
        .db = w->f.db,
        .handlers = w->with_lanes ? handlers_of_lanes : handlers,
        .handler_count = ARRAY_LENGTH(handlers),
        .argument = w,
        .retry_ms = 1,
        .patience_ms = w->patience_ms,
        .kept = 5,
    };
    ck_assert_int_eq(job_queue_open(&options, &w->queue), 0);
}

static struct world *
world_new(void)
{
    struct world *w = memory_alloc_zero(sizeof(*w));
    w->f = fixture_new(0);
    lock_init(&w->lock, "world", LOCK_RANK_PLATFORM);
    condition_init(&w->changed);
    return w;
}

static void
world_free(struct world *w)
{
    job_queue_close(w->queue);
    fixture_free(&w->f);
    condition_destroy(&w->changed);
    lock_destroy(&w->lock);
    free(w);
}

static void
let_go(struct world *w, bool held)
{
    lock_take(&w->lock);
    w->held = held;
    condition_broadcast(&w->changed);
    lock_release(&w->lock);
}

static void
await_events(struct world *w, unsigned count)
{
    lock_take(&w->lock);
    while (w->event_count < count)
        ck_assert(condition_wait_until(&w->changed, &w->lock, clock_monotonic_ms() + 60000));
    lock_release(&w->lock);
}

static uint64_t
submit(struct world *w, enum job_kind kind, uint64_t number, enum job_priority priority)
{
    uint64_t id = 0;
    const struct job_generation generation = {{number}};
    const struct job_truncation truncation = {.object = {number}};
    const void *parameters =
        kind == JOB_TRUNCATE_APPEND_ONLY ? (const void *)&truncation : (const void *)&generation;
    ck_assert_int_eq(job_queue_submit(w->queue, kind, parameters, priority, NULL, &id), 0);
    ck_assert_uint_ne(id, 0);
    return id;
}

static struct job_record
await_end(struct world *w, uint64_t id)
{
    struct job_record job;
    do {
        ck_assert_int_eq(job_queue_look(w->queue, id, false, &job, NULL), 0);
        clock_sleep_ms(1);
    } while (job.state == JOB_PENDING || job.state == JOB_IN_FLIGHT);
    return job;
}

static struct job_record
await_pause(struct world *w, uint64_t id)
{
    struct job_record job;
    do {
        ck_assert_int_eq(job_queue_look(w->queue, id, false, &job, NULL), 0);
        clock_sleep_ms(1);
    } while (job.state != JOB_PENDING || job.not_before_ms == 0);
    return job;
}

START_TEST(the_most_urgent_job_goes_first)
{
    struct world *w = world_new();
    w->held = true;
    open_queue(w);
    submit(w, JOB_DOWNLOAD_CHECKPOINT, 1, JOB_PRIORITY_ASKED);
    await_events(w, 1);
    submit(w, JOB_DOWNLOAD_CHECKPOINT, 2, JOB_PRIORITY_SWEEP);
    submit(w, JOB_DOWNLOAD_CHECKPOINT, 3, JOB_PRIORITY_NORMAL);
    uint64_t last = submit(w, JOB_DOWNLOAD_CHECKPOINT, 4, JOB_PRIORITY_SWEEP);
    submit(w, JOB_DOWNLOAD_CHECKPOINT, 5, JOB_PRIORITY_ASKED);
    ck_assert_uint_eq(job_queue_depth(w->queue), 5);
    let_go(w, false);
    await_end(w, last);
    const uint64_t order[] = {1, 5, 3, 2, 4};
    ck_assert_uint_eq(w->event_count, 5);
    for (unsigned i = 0; i < 5; i++)
        ck_assert_uint_eq(w->events[i], order[i]);
    world_free(w);
}
END_TEST

START_TEST(a_more_urgent_job_interrupts_and_the_other_goes_on_from_its_marker)
{
    struct world *w = world_new();
    w->held = true;
    open_queue(w);
    uint64_t sweep = submit(w, JOB_DOWNLOAD_CHECKPOINT, 1, JOB_PRIORITY_SWEEP);
    await_events(w, 1);
    uint64_t urgent = submit(w, JOB_TRUNCATE_APPEND_ONLY, 2, JOB_PRIORITY_URGENT);
    await_events(w, 2);
    let_go(w, false);
    ck_assert_int_eq(await_end(w, urgent).state, JOB_COMPLETED);
    struct job_record job = await_end(w, sweep);
    ck_assert_int_eq(job.state, JOB_COMPLETED);
    ck_assert_uint_eq(job.tries, 1); // an interruption is no try
    ck_assert_uint_eq(w->event_count, 3);
    ck_assert_uint_eq(w->events[2], 1);
    ck_assert_uint_eq(w->markers[2], 1);
    world_free(w);
}
END_TEST

START_TEST(jobs_of_different_lanes_run_side_by_side)
{
    struct world *w = world_new();
    struct job_record job;
    w->held = true;
    w->with_lanes = true;
    open_queue(w);
    uint64_t takes_long = submit(w, JOB_DOWNLOAD_CHECKPOINT, 1, JOB_PRIORITY_SWEEP);
    await_events(w, 1);
    uint64_t same_lane = submit(w, JOB_DOWNLOAD_CHECKPOINT, 2, JOB_PRIORITY_SWEEP);
    uint64_t urgent = submit(w, JOB_TRUNCATE_APPEND_ONLY, 3, JOB_PRIORITY_URGENT);
    await_events(w, 2);
    ck_assert_uint_eq(w->events[1], 3);
    ck_assert_int_eq(job_queue_look(w->queue, takes_long, false, &job, NULL), 0);
    ck_assert_int_eq(job.state, JOB_IN_FLIGHT);
    ck_assert_int_eq(job_queue_look(w->queue, same_lane, false, &job, NULL), 0);
    ck_assert_int_eq(job.state, JOB_PENDING);
    // The end of one ends no other.
    ck_assert_int_eq(job_queue_cancel(w->queue, urgent), 0);
    ck_assert_int_eq(await_end(w, urgent).error, -ECANCELED);
    ck_assert_int_eq(job_queue_look(w->queue, takes_long, false, &job, NULL), 0);
    ck_assert_int_eq(job.state, JOB_IN_FLIGHT);
    let_go(w, false);
    ck_assert_uint_eq(await_end(w, takes_long).tries, 1);
    ck_assert_int_eq(await_end(w, same_lane).state, JOB_COMPLETED);
    ck_assert_uint_eq(w->event_count, 3);
    world_free(w);
}
END_TEST

#define MANY 40u

// Workers of two lanes beside a thread that asks, cancels and wakes; for TSan above all.
START_TEST(lanes_bear_submissions_cancellations_and_looks)
{
    struct world *w = world_new();
    uint64_t ids[MANY];
    w->with_lanes = true;
    w->failing = 5;
    open_queue(w);
    for (unsigned i = 0; i < MANY; i++) {
        bool truncates = i % 2;
        ids[i] = submit(w, truncates ? JOB_TRUNCATE_APPEND_ONLY : JOB_DOWNLOAD_CHECKPOINT, i + 1,
            i % 3 ? JOB_PRIORITY_SWEEP : JOB_PRIORITY_URGENT);
        if (i % 7 == 0)
            (void)!job_queue_cancel(w->queue, ids[i]);
        if (i % 5 == 0)
            (void)!job_queue_wake(w->queue, ids[i / 2], JOB_PRIORITY_ASKED);
    }
    while (job_queue_depth(w->queue) > 0)
        clock_sleep_ms(1);
    world_free(w);
}
END_TEST

START_TEST(a_job_that_others_pass_over_goes_next_and_is_not_interrupted_at_once)
{
    struct world *w = world_new();
    w->held = true;
    w->patience_ms = 50;
    open_queue(w);
    submit(w, JOB_DOWNLOAD_CHECKPOINT, 1, JOB_PRIORITY_ASKED);
    await_events(w, 1);
    uint64_t patient = submit(w, JOB_DOWNLOAD_CHECKPOINT, 2, JOB_PRIORITY_SWEEP);
    clock_sleep_ms(60); // so long it has been passed over
    uint64_t urgent = submit(w, JOB_TRUNCATE_APPEND_ONLY, 3, JOB_PRIORITY_URGENT);
    await_events(w, 2);
    ck_assert_uint_eq(w->events[1], 2);
    // After that time it gives way.
    await_events(w, 3);
    ck_assert_uint_ne(w->events[2], 2);
    let_go(w, false);
    ck_assert_int_eq(await_end(w, urgent).state, JOB_COMPLETED);
    ck_assert_int_eq(await_end(w, patient).state, JOB_COMPLETED);
    world_free(w);
}
END_TEST

// The pause of a more urgent job ends while another one runs.
START_TEST(a_job_that_becomes_ready_interrupts_a_less_urgent_one)
{
    struct world *w = world_new();
    w->parking = 1;
    w->pause_ms = 100;
    open_queue(w);
    uint64_t parks = submit(w, JOB_TRUNCATE_APPEND_ONLY, 1, JOB_PRIORITY_URGENT);
    await_pause(w, parks);
    let_go(w, true);
    uint64_t idle = submit(w, JOB_DOWNLOAD_CHECKPOINT, 2, JOB_PRIORITY_IDLE);
    await_events(w, 3);
    ck_assert_uint_eq(w->events[1], 2);
    ck_assert_uint_eq(w->events[2], 1);
    let_go(w, false);
    ck_assert_int_eq(await_end(w, parks).state, JOB_COMPLETED);
    ck_assert_int_eq(await_end(w, idle).state, JOB_COMPLETED);
    world_free(w);
}
END_TEST

START_TEST(submitting_twice_is_submitting_once)
{
    struct world *w = world_new();
    w->held = true;
    open_queue(w);
    struct uuid token = sample_uuid(9);
    uint64_t number = 7, id, again;
    ck_assert_int_eq(job_queue_submit(w->queue, JOB_DOWNLOAD_CHECKPOINT, &number,
                         JOB_PRIORITY_NORMAL, &token, &id),
        0);
    // The same token finds it, the same key names it.
    ck_assert_int_eq(job_queue_submit(w->queue, JOB_DOWNLOAD_CHECKPOINT, &number,
                         JOB_PRIORITY_NORMAL, &token, &again),
        0);
    ck_assert_uint_eq(again, id);
    again = 0;
    ck_assert_int_eq(job_queue_submit(w->queue, JOB_DOWNLOAD_CHECKPOINT, &number,
                         JOB_PRIORITY_NORMAL, NULL, &again),
        -EEXIST);
    ck_assert_uint_eq(again, id);
    let_go(w, false);
    await_end(w, id);
    // Also when it has ended, and in another process.
    job_queue_close(w->queue);
    open_queue(w);
    ck_assert_int_eq(job_queue_submit(w->queue, JOB_DOWNLOAD_CHECKPOINT, &number,
                         JOB_PRIORITY_NORMAL, &token, &again),
        0);
    ck_assert_uint_eq(again, id);
    ck_assert_uint_eq(w->event_count, 1);
    uint64_t fresh = submit(w, JOB_DOWNLOAD_CHECKPOINT, 7, JOB_PRIORITY_NORMAL);
    ck_assert_uint_ne(fresh, id);
    await_end(w, fresh);
    world_free(w);
}
END_TEST

START_TEST(a_passing_failure_is_repeated_and_the_cause_is_kept)
{
    struct world *w = world_new();
    w->failing = 2;
    open_queue(w);
    uint64_t id = submit(w, JOB_TRUNCATE_APPEND_ONLY, 1, JOB_PRIORITY_NORMAL);
    struct job_record job = await_end(w, id);
    ck_assert_int_eq(job.state, JOB_COMPLETED);
    ck_assert_uint_eq(job.tries, 3);
    ck_assert_str_eq(job.cause, "done 0"); // a report when it has ended well
    // Three tries are what this kind gets.
    w->failing = 3;
    id = submit(w, JOB_TRUNCATE_APPEND_ONLY, 2, JOB_PRIORITY_NORMAL);
    job = await_end(w, id);
    ck_assert_int_eq(job.state, JOB_FAILED);
    ck_assert_int_eq(job.error, -EAGAIN);
    ck_assert(job.retryable);
    ck_assert_str_eq(job.cause, "it is -11");
    // And what does not pass is not tried again.
    w->result = -EIO;
    id = submit(w, JOB_DOWNLOAD_CHECKPOINT, 3, JOB_PRIORITY_NORMAL);
    job = await_end(w, id);
    ck_assert_int_eq(job.state, JOB_FAILED);
    ck_assert_uint_eq(job.tries, 1);
    ck_assert(!job.retryable);
    world_free(w);
}
END_TEST

static void
expect_told(struct world *w, unsigned times, uint64_t number)
{
    lock_take(&w->lock);
    ck_assert_uint_eq(w->told_failed, times);
    ck_assert_uint_eq(w->failed_number, number);
    lock_release(&w->lock);
}

// What its runs keep for the next one goes when there is none.
START_TEST(a_handler_is_told_once_that_its_job_has_failed_and_not_before)
{
    struct world *w = world_new();
    open_queue(w);
    w->failing = 2;
    await_end(w, submit(w, JOB_TRUNCATE_APPEND_ONLY, 1, JOB_PRIORITY_NORMAL));
    expect_told(w, 0, 0);
    w->failing = 3;
    await_end(w, submit(w, JOB_TRUNCATE_APPEND_ONLY, 2, JOB_PRIORITY_NORMAL));
    expect_told(w, 1, 2);
    // One that runs is interrupted, and cancelled while it waits; then one that runs is cancelled.
    let_go(w, true);
    unsigned events = w->event_count;
    uint64_t waits = submit(w, JOB_DOWNLOAD_CHECKPOINT, 3, JOB_PRIORITY_SWEEP);
    await_events(w, events + 1);
    uint64_t runs = submit(w, JOB_DOWNLOAD_CHECKPOINT, 4, JOB_PRIORITY_URGENT);
    await_events(w, events + 2);
    expect_told(w, 1, 2);
    ck_assert_int_eq(job_queue_cancel(w->queue, waits), 0);
    expect_told(w, 2, 3);
    ck_assert_int_eq(job_queue_cancel(w->queue, runs), 0);
    await_end(w, runs);
    expect_told(w, 3, 4);
    // The end of the queue is not the end of the job.
    uint64_t stays = submit(w, JOB_DOWNLOAD_CHECKPOINT, 5, JOB_PRIORITY_NORMAL);
    await_events(w, events + 3);
    job_queue_close(w->queue);
    expect_told(w, 3, 4);
    let_go(w, false);
    open_queue(w);
    ck_assert_int_eq(await_end(w, stays).state, JOB_COMPLETED);
    expect_told(w, 3, 4);
    world_free(w);
}
END_TEST

START_TEST(a_job_that_parks_leaves_the_worker_and_goes_on_later)
{
    struct world *w = world_new();
    w->parking = 1;
    w->pause_ms = 3600 * 1000;
    open_queue(w);
    uint64_t parks = submit(w, JOB_DOWNLOAD_CHECKPOINT, 1, JOB_PRIORITY_SWEEP);
    struct job_record job = await_pause(w, parks);
    ck_assert_uint_eq(job.tries, 0);
    ck_assert_str_eq(job.stage, "waiting");
    ck_assert_str_eq(job.cause, "parked");
    ck_assert_uint_gt(job.not_before_ms, clock_wall_ms() + 3500 * 1000);
    // Others run, and the same is not submitted twice.
    uint64_t other = submit(w, JOB_DOWNLOAD_CHECKPOINT, 2, JOB_PRIORITY_SWEEP);
    ck_assert_int_eq(await_end(w, other).state, JOB_COMPLETED);
    // Also in the next process, for what is left of the pause.
    job_queue_close(w->queue);
    w->parking = 1;
    open_queue(w);
    job = await_pause(w, parks);
    ck_assert_uint_gt(job.not_before_ms, clock_wall_ms() + 3500 * 1000);
    unsigned events = w->event_count;
    ck_assert_int_eq(job_queue_wake(w->queue, parks, JOB_PRIORITY_ASKED), 0);
    await_events(w, events + 1);
    // It parks again, with its own priority, and ends when nothing holds it up.
    await_pause(w, parks);
    ck_assert_int_eq(job_queue_wake(w->queue, parks, JOB_PRIORITY_SWEEP), 0);
    job = await_end(w, parks);
    ck_assert_int_eq(job.state, JOB_COMPLETED);
    ck_assert_uint_eq(job.priority, JOB_PRIORITY_SWEEP);
    ck_assert_str_eq(job.cause, "done 0");
    ck_assert_int_eq(job_queue_wake(w->queue, parks, JOB_PRIORITY_SWEEP), -ENOENT);
    world_free(w);
}
END_TEST

START_TEST(a_pause_ends_by_itself_and_by_cancelling)
{
    struct world *w = world_new();
    w->parking = 1;
    w->pause_ms = 20;
    open_queue(w);
    uint64_t id = submit(w, JOB_DOWNLOAD_CHECKPOINT, 1, JOB_PRIORITY_SWEEP);
    ck_assert_int_eq(await_end(w, id).state, JOB_COMPLETED);
    ck_assert_uint_eq(w->event_count, 2);
    w->parking = 1;
    w->pause_ms = 3600 * 1000;
    id = submit(w, JOB_DOWNLOAD_CHECKPOINT, 2, JOB_PRIORITY_SWEEP);
    await_pause(w, id);
    ck_assert_int_eq(job_queue_cancel(w->queue, id), 0);
    ck_assert_int_eq(await_end(w, id).error, -ECANCELED);
    ck_assert_uint_eq(w->event_count, 3);
    world_free(w);
}
END_TEST

// A record from a time that lies ahead holds a job up for no longer than its pause was.
START_TEST(a_clock_that_was_set_back_prolongs_no_pause)
{
    struct world *w = world_new();
    BUFFER_AUTO payload = {0};
    uint64_t number = 1;
    struct job_record parked = {.state = JOB_PENDING};
    job_set_kind(&parked, JOB_DOWNLOAD_CHECKPOINT, &number, &payload);
    parked.not_before_ms = clock_wall_ms() + (uint64_t)365 * 86400 * 1000;
    parked.updated_ms = parked.not_before_ms - 30;
    struct manifest_batch *b = manifest_batch_new(w->f.db);
    manifest_batch_put_job(b, &parked);
    ck_assert_int_eq(manifest_submit(w->f.manifest, b, NULL), 0);
    open_queue(w);
    ck_assert_int_eq(await_end(w, parked.id).state, JOB_COMPLETED);
    world_free(w);
}
END_TEST

START_TEST(jobs_are_cancelled_while_they_wait_and_while_they_run)
{
    struct world *w = world_new();
    w->held = true;
    open_queue(w);
    uint64_t runs = submit(w, JOB_DOWNLOAD_CHECKPOINT, 1, JOB_PRIORITY_NORMAL);
    await_events(w, 1);
    uint64_t waits = submit(w, JOB_DOWNLOAD_CHECKPOINT, 2, JOB_PRIORITY_NORMAL);
    ck_assert_int_eq(job_queue_cancel(w->queue, waits), 0);
    ck_assert_int_eq(job_queue_cancel(w->queue, waits), -EALREADY);
    ck_assert_int_eq(job_queue_cancel(w->queue, waits + 100), -ENOENT);
    ck_assert_int_eq(job_queue_cancel(w->queue, runs), 0);
    struct job_record job = await_end(w, runs);
    ck_assert_int_eq(job.state, JOB_FAILED);
    ck_assert_int_eq(job.error, -ECANCELED);
    job = await_end(w, waits);
    ck_assert_int_eq(job.error, -ECANCELED);
    ck_assert_uint_eq(w->event_count, 1);
    // A kind that somebody else carries out.
    struct job_record other = {.state = JOB_PENDING};
    job_set_kind(&other, JOB_CREATE_CHECKPOINT, NULL, NULL);
    struct manifest_batch *b = manifest_batch_new(w->f.db);
    manifest_batch_put_job(b, &other);
    ck_assert_int_eq(manifest_submit(w->f.manifest, b, NULL), 0);
    ck_assert_int_eq(job_queue_cancel(w->queue, other.id), -EBUSY);
    world_free(w);
}
END_TEST

START_TEST(the_next_queue_goes_on_with_what_was_left)
{
    struct world *w = world_new();
    w->held = true;
    open_queue(w);
    uint64_t first = submit(w, JOB_DOWNLOAD_CHECKPOINT, 1, JOB_PRIORITY_NORMAL);
    uint64_t second = submit(w, JOB_DOWNLOAD_CHECKPOINT, 2, JOB_PRIORITY_NORMAL);
    await_events(w, 1);
    job_queue_close(w->queue);
    ck_assert_uint_eq(w->event_count, 1);
    // As if the process had been killed in the middle of it.
    BUFFER_AUTO payload = {0};
    uint64_t number = 1;
    struct job_record dead = {.id = first, .state = JOB_IN_FLIGHT, .tries = 1, .priority = 20};
    job_set_kind(&dead, JOB_DOWNLOAD_CHECKPOINT, &number, &payload);
    dead.lease_expires_ms = clock_wall_ms() + 3600000;
    struct manifest_batch *b = manifest_batch_new(w->f.db);
    manifest_batch_put_job(b, &dead);
    ck_assert_int_eq(manifest_submit(w->f.manifest, b, NULL), 0);
    w->held = false;
    open_queue(w);
    ck_assert_int_eq(await_end(w, first).state, JOB_COMPLETED);
    ck_assert_int_eq(await_end(w, second).state, JOB_COMPLETED);
    ck_assert_uint_eq(w->event_count, 3);
    world_free(w);
}
END_TEST

START_TEST(a_cancelled_job_does_not_run_in_the_next_queue)
{
    struct world *w = world_new();
    BUFFER_AUTO payload = {0};
    uint64_t number = 1;
    struct job_record dead = {.state = JOB_IN_FLIGHT, .tries = 1, .cancel_wanted = true};
    job_set_kind(&dead, JOB_DOWNLOAD_CHECKPOINT, &number, &payload);
    struct manifest_batch *b = manifest_batch_new(w->f.db);
    manifest_batch_put_job(b, &dead);
    ck_assert_int_eq(manifest_submit(w->f.manifest, b, NULL), 0);
    w->held = true;
    open_queue(w);
    struct job_record job = await_end(w, dead.id);
    ck_assert_int_eq(job.state, JOB_FAILED);
    ck_assert_int_eq(job.error, -ECANCELED);
    ck_assert_uint_eq(w->event_count, 0);
    world_free(w);
}
END_TEST

START_TEST(the_newest_that_have_ended_are_kept)
{
    struct world *w = world_new();
    open_queue(w);
    uint64_t ids[12];
    for (unsigned i = 0; i < 12; i++) {
        ids[i] = submit(w, JOB_DOWNLOAD_CHECKPOINT, i + 1, JOB_PRIORITY_NORMAL);
        await_end(w, ids[i]);
    }
    struct job_record job;
    unsigned count = 0;
    for (uint64_t id = 0; job_queue_look(w->queue, id, true, &job, NULL) == 0; id = job.id)
        count++;
    ck_assert_uint_eq(count, 5);
    BUFFER_AUTO text = {0};
    ck_assert_int_eq(job_queue_look(w->queue, ids[6], false, &job, NULL), -ENOENT);
    ck_assert_int_eq(job_queue_look(w->queue, ids[11], false, &job, &text), 0);
    ck_assert_str_eq(buffer_string(&text), "done 0");
    ck_assert_str_eq(job.stage, "half");
    ck_assert_uint_eq(job.done, 1);
    ck_assert_uint_eq(job.total, 2);
    world_free(w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("job queue");
#define ADD(test) unit_add(s, #test, test, 60)
    ADD(the_most_urgent_job_goes_first);
    ADD(a_more_urgent_job_interrupts_and_the_other_goes_on_from_its_marker);
    ADD(jobs_of_different_lanes_run_side_by_side);
    ADD(lanes_bear_submissions_cancellations_and_looks);
    ADD(a_job_that_others_pass_over_goes_next_and_is_not_interrupted_at_once);
    ADD(a_job_that_becomes_ready_interrupts_a_less_urgent_one);
    ADD(submitting_twice_is_submitting_once);
    ADD(a_passing_failure_is_repeated_and_the_cause_is_kept);
    ADD(a_handler_is_told_once_that_its_job_has_failed_and_not_before);
    ADD(a_job_that_parks_leaves_the_worker_and_goes_on_later);
    ADD(a_pause_ends_by_itself_and_by_cancelling);
    ADD(a_clock_that_was_set_back_prolongs_no_pause);
    ADD(jobs_are_cancelled_while_they_wait_and_while_they_run);
    ADD(the_next_queue_goes_on_with_what_was_left);
    ADD(a_cancelled_job_does_not_run_in_the_next_queue);
    ADD(the_newest_that_have_ended_are_kept);
    return unit_run(s);
}
