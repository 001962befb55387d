// SPDX-License-Identifier: Apache-2.0
#include "platform/flush_pace.h"

#include "platform/clock.h"

// Commits do not wake a thread that waits for its turn: it looks again after so long.
#define LOOK_MS 2u

static __thread struct flush_pace *bound;

void
flush_pace_init(struct flush_pace *p)
{
    atomic_init(&p->commits, 0);
    atomic_init(&p->committed_ms, 0);
    atomic_init(&p->hurried, false);
    lock_init(&p->lock, "flush_pace", LOCK_RANK_PLATFORM);
    condition_init(&p->turn);
    p->waiters = 0;
    p->tickets = p->turns = p->turn_commits = p->turn_ms = 0;
}

void
flush_pace_destroy(struct flush_pace *p)
{
    condition_destroy(&p->turn);
    lock_destroy(&p->lock);
}

void
flush_pace_committed(struct flush_pace *p)
{
    if (!p)
        return;
    atomic_fetch_add_explicit(&p->commits, 1, memory_order_relaxed);
    atomic_store_explicit(&p->committed_ms, clock_monotonic_ms(), memory_order_relaxed);
}

void
flush_pace_begin_waiting(struct flush_pace *p)
{
    if (!p)
        return;
    lock_take(&p->lock);
    if (p->waiters++ == 0)
        condition_broadcast(&p->turn);
    lock_release(&p->lock);
}

void
flush_pace_end_waiting(struct flush_pace *p)
{
    if (!p)
        return;
    lock_take(&p->lock);
    p->waiters--;
    lock_release(&p->lock);
}

void
flush_pace_hurry(struct flush_pace *p, bool hurried)
{
    if (p && atomic_load_explicit(&p->hurried, memory_order_relaxed) != hurried)
        atomic_store_explicit(&p->hurried, hurried, memory_order_relaxed);
}

void
flush_pace_bind(struct flush_pace *p)
{
    bound = p;
}

uint64_t
flush_pace_left_ms(const struct flush_pace_sight *s)
{
    uint64_t since_turn = s->now_ms - s->turn_ms;
    uint64_t quiet = s->now_ms - s->committed_ms;
    // Another thread may have noted a commit after the time was taken.
    if (s->committed_ms > s->now_ms)
        quiet = 0;
    if (s->awaited || s->commits >= FLUSH_PACE_COMMITS || since_turn >= FLUSH_PACE_MAX_MS ||
        quiet >= FLUSH_PACE_QUIET_MS)
        return 0;
    uint64_t left = FLUSH_PACE_MAX_MS - since_turn;
    return left < LOOK_MS ? left : LOOK_MS;
}

static uint64_t
left_ms_locked(struct flush_pace *p, uint64_t now_ms, uint64_t commits)
{
    struct flush_pace_sight sight = {
        .now_ms = now_ms,
        .commits = commits - p->turn_commits,
        .committed_ms = atomic_load_explicit(&p->committed_ms, memory_order_relaxed),
        .turn_ms = p->turn_ms,
        .awaited = p->waiters > 0 || atomic_load_explicit(&p->hurried, memory_order_relaxed),
    };
    return flush_pace_left_ms(&sight);
}

uint64_t
flush_pace_wait(void)
{
    struct flush_pace *p = bound;
    if (!p)
        return 0;
    lock_take(&p->lock);
    uint64_t ticket = p->tickets++;
    while (p->turns != ticket)
        condition_wait(&p->turn, &p->lock);
    for (;;) {
        uint64_t commits = atomic_load_explicit(&p->commits, memory_order_relaxed);
        uint64_t now = clock_monotonic_ms();
        uint64_t left = left_ms_locked(p, now, commits);
        if (left == 0) {
            p->turn_commits = commits;
            p->turn_ms = now;
            break;
        }
        condition_wait_until(&p->turn, &p->lock, now + left);
    }
    p->turns++;
    condition_broadcast(&p->turn);
    lock_release(&p->lock);
    return ticket + 1;
}
