// SPDX-License-Identifier: Apache-2.0
// Keeps flushes of the disk that nobody waits for apart, while commits come. A disk has one queue
// of flushes: a commit that meets one of a checkpoint takes as long as two. With one such flush for
// so and so many of commits, the 99th percentile of commits is that of a volume without
// checkpoints.
//
//     commits   say that they have been made durable: flush_pace_committed
//     threads   that work in the background are bound to a pace: each fsync and fdatasync of
//               theirs (file_ops_system), and each commit of the manifest, waits for its turn.
//               Other threads are never held up
//     waiters   for what the background does (room in the log) say so, as does who sees that it
//               gets scarce: then nobody waits for turns
//
// A turn comes after FLUSH_PACE_COMMITS flushes for commits or FLUSH_PACE_MAX_MS, and at once when
// no commits have come for FLUSH_PACE_QUIET_MS. Turns are given in the order in which threads came,
// so none waits for more of them than there are threads.
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
    atomic_uint_fast64_t commits;      // flushes that somebody waited for
    atomic_uint_fast64_t committed_ms; // the last of them; monotonic
    atomic_bool hurried;
    struct lock lock; // "flush_pace": protects what follows
    struct condition turn;
    unsigned waiters;      // for what the background does
    uint64_t tickets;      // drawn so far: a thread's place in line
    uint64_t turns;        // given so far
    uint64_t turn_commits; // `commits` at the last turn
    uint64_t turn_ms;
};

void flush_pace_init(struct flush_pace *p);
void flush_pace_destroy(struct flush_pace *p);

// A pace may be NULL in the calls below: then nothing happens, or nothing is waited for.

// One flush has made commits durable.
void flush_pace_committed(struct flush_pace *p);
// While somebody waits for what the background does. Any locks may be held.
void flush_pace_begin_waiting(struct flush_pace *p);
void flush_pace_end_waiting(struct flush_pace *p);
// Whether what the background makes room for gets scarce, so that somebody may soon have to wait.
void flush_pace_hurry(struct flush_pace *p, bool hurried);

// The calling thread works in the background from now on; NULL: not any more.
void flush_pace_bind(struct flush_pace *p);
// The calling thread is about to flush: waits for its turn, if it is bound. The turn's number, from
// 1; 0 when it is not bound.
uint64_t flush_pace_wait(void);

// How long a flush has to wait yet: 0 when it may go. Pure.
struct flush_pace_sight {
    uint64_t now_ms;
    uint64_t commits; // since the last turn
    uint64_t committed_ms;
    uint64_t turn_ms;
    bool awaited;
};
uint64_t flush_pace_left_ms(const struct flush_pace_sight *sight);

#endif
