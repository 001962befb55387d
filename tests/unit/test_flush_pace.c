// SPDX-License-Identifier: Apache-2.0
// flush_pace: who goes when, and that nobody is kept for good.
#include "unit.h"

#include <sched.h>

#include "platform/clock.h"
#include "platform/flush_pace.h"
#include "platform/thread.h"

// ---- the rule -----------------------------------------------------------------------------------

// Commits come, and the last turn was a moment ago.
static struct flush_pace_sight
busy(void)
{
    return (struct flush_pace_sight){
        .now_ms = 1000, .commits = 3, .committed_ms = 999, .turn_ms = 990};
}

START_TEST(waits_while_commits_come)
{
    struct flush_pace_sight s = busy();
    ck_assert_uint_gt(flush_pace_left_ms(&s), 0);
    s.commits = FLUSH_PACE_COMMITS - 1;
    ck_assert_uint_gt(flush_pace_left_ms(&s), 0);
    s.committed_ms = s.now_ms + 1; // noted after the time was taken
    ck_assert_uint_gt(flush_pace_left_ms(&s), 0);
}
END_TEST

START_TEST(goes_after_enough_commits)
{
    struct flush_pace_sight s = busy();
    s.commits = FLUSH_PACE_COMMITS;
    ck_assert_uint_eq(flush_pace_left_ms(&s), 0);
}
END_TEST

START_TEST(goes_after_the_longest_wait)
{
    struct flush_pace_sight s = busy();
    s.turn_ms = s.now_ms - FLUSH_PACE_MAX_MS + 1;
    ck_assert_uint_eq(flush_pace_left_ms(&s), 1);
    s.turn_ms = s.now_ms - FLUSH_PACE_MAX_MS;
    ck_assert_uint_eq(flush_pace_left_ms(&s), 0);
}
END_TEST

START_TEST(goes_when_no_commits_come)
{
    struct flush_pace_sight s = busy();
    s.committed_ms = s.now_ms - FLUSH_PACE_QUIET_MS;
    ck_assert_uint_eq(flush_pace_left_ms(&s), 0);
    s = (struct flush_pace_sight){.now_ms = 1000}; // nothing was ever committed
    ck_assert_uint_eq(flush_pace_left_ms(&s), 0);
}
END_TEST

START_TEST(goes_when_somebody_waits_for_it)
{
    struct flush_pace_sight s = busy();
    s.awaited = true;
    ck_assert_uint_eq(flush_pace_left_ms(&s), 0);
}
END_TEST

// ---- threads ------------------------------------------------------------------------------------

#define FLUSHES 20u

struct background {
    struct flush_pace pace;
    bool bound;
    atomic_bool ended;
    atomic_bool close; // two turns were
    struct thread thread;
};

static void
run_background(void *argument)
{
    struct background *b = argument;
    uint64_t commits = 0, ms = 0;
    if (b->bound)
        flush_pace_bind(&b->pace);
    for (unsigned i = 0; i < FLUSHES; i++) {
        flush_pace_wait();
        if (i > 0 && b->pace.turn_commits - commits < FLUSH_PACE_COMMITS &&
            b->pace.turn_ms - ms < FLUSH_PACE_MAX_MS)
            atomic_store(&b->close, true);
        commits = b->pace.turn_commits;
        ms = b->pace.turn_ms;
    }
    flush_pace_bind(NULL);
    atomic_store(&b->ended, true);
}

static void
begin(struct background *b, bool bound)
{
    flush_pace_init(&b->pace);
    b->bound = bound;
    atomic_init(&b->ended, false);
    atomic_init(&b->close, false);
    flush_pace_committed(&b->pace);
    ck_assert_int_eq(thread_start(&b->thread, "background", run_background, b), 0);
}

static void
end(struct background *b)
{
    thread_join(&b->thread);
    flush_pace_destroy(&b->pace);
}

// Commits until the background has ended; the longest time between two of them.
static uint64_t
commit_until_ended(struct background *b)
{
    uint64_t longest = 0, before = clock_monotonic_ms();
    for (bool ended = false; !ended;) {
        // Looked at first: the time in which the background ended while this thread slept counts.
        ended = atomic_load(&b->ended);
        flush_pace_committed(&b->pace);
        uint64_t now = clock_monotonic_ms();
        longest = now - before > longest ? now - before : longest;
        before = now;
        sched_yield();
    }
    return longest;
}

// A busy machine may keep this thread from committing for so long that it is quiet: then once more.
START_TEST(turns_are_apart)
{
    for (bool quiet = true; quiet;) {
        struct background b;
        begin(&b, true);
        quiet = commit_until_ended(&b) >= FLUSH_PACE_QUIET_MS / 2;
        ck_assert(quiet || !atomic_load(&b.close));
        end(&b);
    }
}
END_TEST

START_TEST(a_thread_that_is_not_bound_never_waits)
{
    struct background b;
    begin(&b, false);
    while (!atomic_load(&b.ended))
        flush_pace_committed(&b.pace);
    ck_assert_uint_eq(b.pace.turns, 0);
    end(&b);
}
END_TEST

START_TEST(who_waits_lets_it_go)
{
    struct background b;
    flush_pace_begin_waiting(NULL);
    flush_pace_end_waiting(NULL);
    flush_pace_committed(NULL);
    begin(&b, true);
    flush_pace_begin_waiting(&b.pace);
    flush_pace_begin_waiting(&b.pace);
    flush_pace_end_waiting(&b.pace);
    thread_join(&b.thread);
    ck_assert_uint_eq(b.pace.turns, FLUSHES);
    ck_assert_uint_eq(b.pace.waiters, 1);
    flush_pace_end_waiting(&b.pace);
    ck_assert_uint_eq(b.pace.waiters, 0);
    flush_pace_destroy(&b.pace);
}
END_TEST

START_TEST(who_sees_room_get_scarce_lets_it_go)
{
    struct background b;
    flush_pace_hurry(NULL, true);
    begin(&b, true);
    flush_pace_hurry(&b.pace, true);
    while (!atomic_load(&b.ended))
        flush_pace_committed(&b.pace);
    flush_pace_hurry(&b.pace, false);
    ck_assert(atomic_load(&b.close));
    end(&b);
}
END_TEST

#define THREADS 8u

struct in_line {
    struct flush_pace *pace;
    uint64_t turn;
    struct thread thread;
};

static void
wait_in_line(void *argument)
{
    struct in_line *x = argument;
    flush_pace_bind(x->pace);
    x->turn = flush_pace_wait();
    flush_pace_bind(NULL);
}

static uint64_t
tickets_of(struct flush_pace *p)
{
    lock_take(&p->lock);
    uint64_t n = p->tickets;
    lock_release(&p->lock);
    return n;
}

START_TEST(turns_come_in_order)
{
    struct flush_pace pace;
    flush_pace_init(&pace);
    struct in_line line[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        line[i] = (struct in_line){.pace = &pace};
        ck_assert_int_eq(thread_start(&line[i].thread, "in-line", wait_in_line, &line[i]), 0);
        while (tickets_of(&pace) <= i)
            flush_pace_committed(&pace);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        thread_join(&line[i].thread);
        ck_assert_uint_eq(line[i].turn, i + 1);
    }
    ck_assert_uint_eq(flush_pace_wait(), 0); // not bound
    flush_pace_destroy(&pace);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("flush_pace");
    unit_add(s, "waits_while_commits_come", waits_while_commits_come, 10);
    unit_add(s, "goes_after_enough_commits", goes_after_enough_commits, 10);
    unit_add(s, "goes_after_the_longest_wait", goes_after_the_longest_wait, 10);
    unit_add(s, "goes_when_no_commits_come", goes_when_no_commits_come, 10);
    unit_add(s, "goes_when_somebody_waits_for_it", goes_when_somebody_waits_for_it, 10);
    unit_add(s, "turns_are_apart", turns_are_apart, 60);
    unit_add(
        s, "a_thread_that_is_not_bound_never_waits", a_thread_that_is_not_bound_never_waits, 60);
    unit_add(s, "who_waits_lets_it_go", who_waits_lets_it_go, 60);
    unit_add(s, "who_sees_room_get_scarce_lets_it_go", who_sees_room_get_scarce_lets_it_go, 60);
    unit_add(s, "turns_come_in_order", turns_come_in_order, 60);
    return unit_run(s);
}
