// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include <errno.h>

#include "fuse/cold_pool.h"
#include "platform/clock.h"
#include "platform/random.h"

#define JOBS       200u
#define THREADS    4u
#define PATIENT_MS 60000u

// What a job does: it ends when the gate opens, when it is canceled or when its time has passed.
struct job {
    struct cold_job job;
    struct world *world;
    uint64_t work_ms;
    bool deaf; // ends only when the gate opens
    bool canceled;
    int result; // of give_up; 1: it ran
    unsigned ends;
};

struct world {
    struct cold_pool pool;
    struct lock lock; // protects what follows, and results of jobs
    struct condition changed;
    bool open;
    unsigned running;
    unsigned running_most;
    unsigned ended;
    struct job jobs[JOBS];
};

static void
end_locked(struct job *j, int result)
{
    j->result = result;
    j->ends++;
    j->world->ended++;
    condition_broadcast(&j->world->changed);
}

static bool
goes_on_locked(struct job *j, uint64_t began)
{
    if (j->work_ms > 0)
        return clock_monotonic_ms() < began + j->work_ms;
    j->canceled = cold_job_is_canceled(&j->job);
    if (j->world->open)
        return false;
    return j->deaf || (!j->canceled && clock_monotonic_ms() < j->job.deadline_ms);
}

static bool
run(struct cold_job *job)
{
    struct job *j = CONTAINER_OF(job, struct job, job);
    struct world *w = j->world;
    uint64_t began = clock_monotonic_ms();
    lock_take(&w->lock);
    if (++w->running > w->running_most)
        w->running_most = w->running;
    condition_broadcast(&w->changed);
    while (goes_on_locked(j, began))
        condition_wait_until(&w->changed, &w->lock, clock_monotonic_ms() + 5);
    w->running--;
    bool success = !j->canceled && clock_monotonic_ms() < job->deadline_ms;
    end_locked(j, 1);
    lock_release(&w->lock);
    return success;
}

static void
give_up(struct cold_job *job, int result)
{
    struct job *j = CONTAINER_OF(job, struct job, job);
    lock_take(&j->world->lock);
    end_locked(j, result);
    lock_release(&j->world->lock);
}

static const struct cold_pool_ops ops = {.run = run, .give_up = give_up};

static void
world_init(struct world *w, unsigned threads, uint64_t patience_ms)
{
    memset(w, 0, sizeof(*w));
    cold_pool_init(&w->pool, &ops, threads, patience_ms);
    lock_init(&w->lock, "world", LOCK_RANK_PLATFORM);
    condition_init(&w->changed);
    for (unsigned i = 0; i < JOBS; i++)
        w->jobs[i].world = w;
}

static void
world_destroy(struct world *w)
{
    cold_pool_stop(&w->pool);
    cold_pool_destroy(&w->pool);
    condition_destroy(&w->changed);
    lock_destroy(&w->lock);
}

static void
put(struct world *w, unsigned i)
{
    cold_pool_put(&w->pool, &w->jobs[i].job);
}

// Until so many jobs run, or have ended.
static void
await(struct world *w, const unsigned *number, unsigned at_least)
{
    lock_take(&w->lock);
    while (*number < at_least)
        condition_wait(&w->changed, &w->lock);
    lock_release(&w->lock);
}

static void
open_gate(struct world *w)
{
    lock_take(&w->lock);
    w->open = true;
    condition_broadcast(&w->changed);
    lock_release(&w->lock);
}

START_TEST(what_is_beyond_the_threads_waits_without_one)
{
    static struct world w;
    world_init(&w, THREADS, PATIENT_MS);
    for (unsigned i = 0; i < JOBS; i++)
        put(&w, i);
    await(&w, &w.running, THREADS);
    ck_assert_uint_eq(w.ended, 0);
    ck_assert_uint_eq(w.pool.thread_count, THREADS);
    open_gate(&w);
    await(&w, &w.ended, JOBS);
    ck_assert_uint_eq(w.running_most, THREADS);
    for (unsigned i = 0; i < JOBS; i++)
        ck_assert(w.jobs[i].ends == 1 && w.jobs[i].result == 1);
    world_destroy(&w);
}
END_TEST

START_TEST(threads_are_started_for_work_only)
{
    static struct world w;
    world_init(&w, THREADS, PATIENT_MS);
    ck_assert_uint_eq(w.pool.thread_count, 0);
    put(&w, 0);
    await(&w, &w.running, 1);
    ck_assert_uint_eq(w.pool.thread_count, 1);
    world_destroy(&w);
    ck_assert(w.jobs[0].canceled);
}
END_TEST

START_TEST(an_interrupt_ends_a_queued_job_at_once)
{
    static struct world w;
    world_init(&w, 1, PATIENT_MS);
    w.jobs[0].deaf = true;
    for (unsigned i = 0; i < 3; i++)
        put(&w, i);
    await(&w, &w.running, 1);
    cold_pool_interrupt(&w.pool, &w.jobs[1].job);
    ck_assert(w.jobs[1].ends == 1 && w.jobs[1].result == -EINTR);
    cold_pool_interrupt(&w.pool, &w.jobs[0].job); // cancels it
    ck_assert(cold_job_is_canceled(&w.jobs[0].job) && w.jobs[0].ends == 0);
    open_gate(&w);
    await(&w, &w.ended, 3);
    ck_assert(w.jobs[0].canceled && w.jobs[0].result == 1);
    ck_assert(!w.jobs[2].canceled && w.jobs[2].result == 1);
    world_destroy(&w);
}
END_TEST

START_TEST(an_interrupt_that_comes_first_is_not_lost)
{
    static struct world w;
    world_init(&w, 1, PATIENT_MS);
    cold_pool_interrupt(&w.pool, &w.jobs[0].job);
    ck_assert_uint_eq(w.ended, 0);
    put(&w, 0);
    ck_assert(w.jobs[0].ends == 1 && w.jobs[0].result == -EINTR);
    world_destroy(&w);
}
END_TEST

START_TEST(queued_jobs_end_when_their_time_has_passed)
{
    static struct world w;
    world_init(&w, 1, 30);
    w.jobs[0].deaf = true;
    for (unsigned i = 0; i < 50; i++)
        put(&w, i);
    await(&w, &w.ended, 49);
    for (unsigned i = 1; i < 50; i++)
        ck_assert(w.jobs[i].ends == 1 && w.jobs[i].result == -ETIMEDOUT);
    open_gate(&w);
    await(&w, &w.ended, 50);
    world_destroy(&w);
}
END_TEST

// One job takes a tenth of the time that each of them has.
START_TEST(jobs_wait_for_their_turn_as_long_as_the_store_answers)
{
    static struct world w;
    world_init(&w, 1, 500);
    for (unsigned i = 0; i < 25; i++) {
        w.jobs[i].work_ms = 50;
        put(&w, i);
    }
    await(&w, &w.ended, 25);
    for (unsigned i = 0; i < 25; i++)
        ck_assert_int_eq(w.jobs[i].result, 1);
    world_destroy(&w);
}
END_TEST

START_TEST(stopping_gives_up_what_waits)
{
    static struct world w;
    world_init(&w, 2, PATIENT_MS);
    for (unsigned i = 0; i < JOBS - 1; i++)
        put(&w, i);
    await(&w, &w.running, 2);
    cold_pool_stop(&w.pool);
    ck_assert_uint_eq(w.ended, JOBS - 1);
    unsigned ran = 0;
    for (unsigned i = 0; i < JOBS - 1; i++) {
        ran += w.jobs[i].result == 1;
        ck_assert(w.jobs[i].result == 1 ? w.jobs[i].canceled : w.jobs[i].result == -ENOTCONN);
    }
    ck_assert_uint_eq(ran, 2);
    put(&w, JOBS - 1);
    ck_assert_int_eq(w.jobs[JOBS - 1].result, -ENOTCONN);
    world_destroy(&w);
}
END_TEST

static void
interrupt_all(void *argument)
{
    struct world *w = argument;
    for (unsigned i = 0; i < JOBS; i++)
        cold_pool_interrupt(&w->pool, &w->jobs[i].job);
}

START_TEST(racing_interrupts_end_each_job_once)
{
    static struct world w;
    for (unsigned round = 0; round < 50; round++) {
        world_init(&w, THREADS, round % 2 ? PATIENT_MS : 1);
        struct thread thread;
        ck_assert_int_eq(thread_start(&thread, "interrupt", interrupt_all, &w), 0);
        for (unsigned i = 0; i < JOBS; i++) {
            w.jobs[i].work_ms = random_u64() % 2;
            put(&w, i);
        }
        if (round % 3 == 0)
            cold_pool_stop(&w.pool);
        open_gate(&w);
        await(&w, &w.ended, JOBS);
        thread_join(&thread);
        for (unsigned i = 0; i < JOBS; i++)
            ck_assert_uint_eq(w.jobs[i].ends, 1);
        world_destroy(&w);
    }
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("cold_pool");
#define ADD(name) unit_add(s, #name, name, 60)
    ADD(what_is_beyond_the_threads_waits_without_one);
    ADD(threads_are_started_for_work_only);
    ADD(an_interrupt_ends_a_queued_job_at_once);
    ADD(an_interrupt_that_comes_first_is_not_lost);
    ADD(queued_jobs_end_when_their_time_has_passed);
    ADD(jobs_wait_for_their_turn_as_long_as_the_store_answers);
    ADD(stopping_gives_up_what_waits);
    ADD(racing_interrupts_end_each_job_once);
    return unit_run(s);
}
