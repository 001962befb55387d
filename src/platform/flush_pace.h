// SPDX-License-Identifier: Apache-2.0
// Spreads background flushes of the disk out while commits come. A disk has one queue of flushes: a
// commit that meets one of a checkpoint takes as long as two. With one such flush for so and so
// many of commits, the 99th percentile of commits is that of a volume without checkpoints.
//
//     commits   report each flush of theirs: flush_pace_committed
//     threads   that work in the background are bound to a pace: each fsync and fdatasync of
//               theirs (file_ops_system), and each commit of the manifest, waits for its turn.
//               Other threads are never held up
//     waiters   for the background's work (room in the log) report that, as does a thread that sees
//               that room gets scarce: then no thread waits for turns
//
// A turn comes after FLUSH_PACE_COMMITS flushes for commits or FLUSH_PACE_MAX_MS, and at once when
// no commits have come for FLUSH_PACE_QUIET_MS. Threads get turns in the order in which they came,
// so none waits for more turns than there are threads.
#ifndef CKPTFS_PLATFORM_FLUSH_PACE_H
#define CKPTFS_PLATFORM_FLUSH_PACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "platform/lock.h"

#define FLUSH_PACE_COMMITS  128u
#define FLUSH_PACE_MAX_MS   50u
#define FLUSH_PACE_QUIET_MS 10u

struct flush_pace {
    atomic_uint_fast64_t commits;      // flushes that a program waited for
    atomic_uint_fast64_t committed_ms; // the last of them; monotonic
    atomic_bool hurried;
    struct lock lock; // "flush_pace": protects all below
    struct condition turn;
    unsigned waiters;      // for the background's work
    uint64_t tickets;      // drawn so far: a thread's place in line
    uint64_t turns;        // given so far
    uint64_t turn_commits; // `commits` at the last turn
    uint64_t turn_ms;
};

void flush_pace_init(struct flush_pace *p);
void flush_pace_destroy(struct flush_pace *p);

// A pace may be NULL in the calls below: then they do nothing, and wait for nothing.

// One flush has made commits durable.
void flush_pace_committed(struct flush_pace *p);
// Around a wait for the background's work. The caller may hold any locks.
void flush_pace_begin_waiting(struct flush_pace *p);
void flush_pace_end_waiting(struct flush_pace *p);
// Reports that room which the background makes gets scarce, so that threads may soon have to wait;
// or that it is not scarce any more.
void flush_pace_hurry(struct flush_pace *p, bool hurried);

// Binds the calling thread to the pace, as a background thread; NULL: unbinds it.
void flush_pace_bind(struct flush_pace *p);
// The calling thread is about to flush: waits for its turn, if it is bound. The turn's number, from
// 1; 0 when it is not bound.
uint64_t flush_pace_wait(void);

// The time that a flush still has to wait: 0 when it may go. Pure.
struct flush_pace_sight {
    uint64_t now_ms;
    uint64_t commits; // since the last turn
    uint64_t committed_ms;
    uint64_t turn_ms;
    bool awaited;
};
uint64_t flush_pace_left_ms(const struct flush_pace_sight *sight);

#endif
