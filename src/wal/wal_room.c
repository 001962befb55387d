// SPDX-License-Identifier: Apache-2.0
// Threads get room in the ring and in the segments in the order in which they asked for it, so that
// a large record does not wait while small ones pass it.
#include <assert.h>
#include <errno.h>

#include "wal/wal_internal.h"

// The part of the LSN space that a change of segment can waste. Reserved records can change
// segments twice at most, because the ring is not larger than two of them.
#define GAP_MAX (WAL_RECORD_MAX + WAL_SEGMENT_HEADER_BYTES)

#define SPARES_FOR_STREAM  2u
#define SPARES_AFTER_STALL 4u

// A waiting thread; on its stack.
struct reserver {
    struct list_node node; // in w->reservers
    uint64_t turn;
    uint64_t bytes;
};

struct wal_segment *
wal_newest_locked(const struct wal *w)
{
    if (list_is_empty(&w->live))
        return NULL;
    return CONTAINER_OF(w->live.previous, struct wal_segment, node);
}

uint32_t
wal_spares_locked(const struct wal *w)
{
    uint32_t count = 0;
    for (const struct list_node *n = w->spares.next; n != &w->spares; n = n->next)
        count++;
    return count;
}

static bool
has_segment_room_locked(const struct wal *w, uint64_t bytes, enum quota_need need)
{
    uint64_t usable = 0;
    struct wal_segment *current = wal_newest_locked(w);
    if (current && w->append.v + WAL_RECORD_MAX < current->start.v + current->bytes)
        usable = current->start.v + current->bytes - w->append.v - WAL_RECORD_MAX;
    if (w->reserved + bytes <= usable)
        return true;
    // The records of a segment need room in a checkpoint.
    if (!storage_quota_may_fill(w->quota, need))
        return false;
    for (struct list_node *n = w->spares.next; n != &w->spares; n = n->next)
        usable += CONTAINER_OF(n, struct wal_segment, node)->bytes - GAP_MAX;
    return w->reserved + bytes <= usable;
}

static bool
has_room_locked(const struct wal *w, uint64_t bytes, enum quota_need need)
{
    return w->append.v - w->flushed.v + w->reserved + bytes + 2 * GAP_MAX <= w->ring_bytes &&
           has_segment_room_locked(w, bytes, need);
}

static bool
may_go_locked(const struct wal *w, const struct reserver *x)
{
    return w->reservers.next == &x->node && has_room_locked(w, x->bytes, QUOTA_GROW);
}

bool
wal_is_starved_locked(const struct wal *w)
{
    if (list_is_empty(&w->reservers) || (w->segment_count < w->segments_max && w->spare_error == 0))
        return false;
    const struct reserver *first = CONTAINER_OF(w->reservers.next, struct reserver, node);
    return !has_segment_room_locked(w, first->bytes, QUOTA_GROW);
}

// In order of turns: a thread that waits again takes its old place.
static void
queue_locked(struct wal *w, struct reserver *x)
{
    struct list_node *at = &w->reservers;
    while (at->previous != &w->reservers &&
           CONTAINER_OF(at->previous, struct reserver, node)->turn > x->turn)
        at = at->previous;
    list_append(at, &x->node);
}

// A thread that waits writes a stream, and will need more than the one segment that is always
// ready. Making a segment costs the disk as much as writing its records.
static void
want_spares_locked(struct wal *w, const struct reserver *x)
{
    uint32_t wanted = SPARES_FOR_STREAM;
    if (!has_segment_room_locked(w, x->bytes, QUOTA_GROW)) {
        uint32_t more = wal_spares_locked(w) + 1;
        wanted = more > SPARES_AFTER_STALL ? more : SPARES_AFTER_STALL;
    }
    if (wanted > w->spares_wanted)
        w->spares_wanted = wanted;
    condition_signal(&w->prepare);
}

static int
wait_locked(struct wal *w, struct reserver *x, uint64_t deadline_ms)
{
    int rc = 0;
    queue_locked(w, x);
    while (rc == 0 && w->failed == 0 && !may_go_locked(w, x)) {
        want_spares_locked(w, x);
        condition_signal(&w->work);
        w->reserving++;
        flush_pace_begin_waiting(w->pace);
        bool in_time = condition_wait_until(&w->room, &w->lock, deadline_ms);
        flush_pace_end_waiting(w->pace);
        w->reserving--;
        if (!in_time && !may_go_locked(w, x))
            rc = -ENOSPC;
    }
    list_remove(&x->node);
    condition_broadcast(&w->room); // the next one's turn
    return rc;
}

int
wal_reserve_in_turn(struct wal *w, uint32_t bytes, uint64_t deadline_ms, uint64_t *turn)
{
    assert(bytes <= WAL_RECORD_MAX);
    lock_take(&w->lock);
    int rc = 0;
    if (w->failed == 0 &&
        !(list_is_empty(&w->reservers) && has_room_locked(w, bytes, QUOTA_GROW))) {
        if (*turn == 0)
            *turn = ++w->turns;
        struct reserver x = {.turn = *turn, .bytes = bytes};
        rc = wait_locked(w, &x, deadline_ms);
    }
    if (w->failed != 0)
        rc = -EROFS;
    if (rc == 0)
        w->reserved += bytes;
    lock_release(&w->lock);
    return rc;
}

int
wal_reserve(struct wal *w, uint32_t bytes, uint64_t deadline_ms)
{
    uint64_t turn = 0;
    return wal_reserve_in_turn(w, bytes, deadline_ms, &turn);
}

int
wal_reserve_past_quota(struct wal *w, uint32_t bytes)
{
    assert(bytes <= WAL_RECORD_MAX);
    lock_take(&w->lock);
    int rc = w->failed != 0 ? -EROFS : has_room_locked(w, bytes, QUOTA_CHECKPOINT) ? 0 : -ENOSPC;
    if (rc == 0)
        w->reserved += bytes;
    lock_release(&w->lock);
    return rc;
}

void
wal_unreserve(struct wal *w, uint32_t bytes)
{
    lock_take(&w->lock);
    assert(w->reserved >= bytes);
    w->reserved -= bytes;
    condition_broadcast(&w->room);
    lock_release(&w->lock);
}
