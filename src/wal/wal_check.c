// SPDX-License-Identifier: Apache-2.0
// Invariants of the log's bookkeeping between operations.
#include <assert.h>

#include "wal/wal_internal.h"

// Segments follow each other, and each says where the one before it ended.
static uint32_t
check_live_locked(const struct wal *w)
{
    uint32_t count = 0;
    const struct wal_segment *last = NULL;
    for (struct list_node *n = w->live.next; n != &w->live; n = n->next, count++) {
        const struct wal_segment *s = CONTAINER_OF(n, struct wal_segment, node);
        assert(s->bytes > WAL_SEGMENT_HEADER_BYTES);
        assert(s->spilled.v <= s->start.v + s->bytes);
        if (last) {
            assert(last->start.v + last->bytes <= s->start.v);
            assert(last->end.v > last->start.v);
            // Recovery passed over damage below the cut.
            assert(last->end.v == s->prior_end.v || s->prior_end.v <= w->released.v);
            assert(last->epoch <= s->epoch);
        }
        last = s;
    }
    assert(
        !last || (last == wal_newest_locked(w) && last->end.v == 0) || w->append.v >= last->end.v);
    return count;
}

static void
check_slots_locked(const struct wal *w)
{
    uint64_t end = w->flushed.v;
    for (struct list_node *n = w->slots.next; n != &w->slots; n = n->next) {
        const struct wal_slot *slot = CONTAINER_OF(n, struct wal_slot, node);
        assert(!slot->filled && slot->lsn.v >= end);
        end = slot->lsn.v + slot->length;
    }
    assert(end <= w->append.v);
}

static void
check_waiters_locked(const struct wal *w)
{
    uint64_t target = 0;
    for (struct list_node *n = w->waiters.next; n != &w->waiters; n = n->next) {
        const struct wal_waiter *x = CONTAINER_OF(n, struct wal_waiter, node);
        assert(x->target.v >= target && x->target.v <= w->append.v);
        target = x->target.v;
    }
}

void
wal_check_locked(const struct wal *w)
{
    assert(lock_is_mine(&w->lock));
    assert(w->flushed.v <= w->append.v && w->last_end.v <= w->append.v);
    assert(w->released.v <= w->append.v);
    uint32_t spares = 0;
    for (struct list_node *n = w->spares.next; n != &w->spares; n = n->next, spares++)
        assert(CONTAINER_OF(n, struct wal_segment, node)->readers == 0);
    assert(check_live_locked(w) + spares <= w->segment_count);
    check_slots_locked(w);
    check_waiters_locked(w);
}

void
wal_check(struct wal *w)
{
    lock_take(&w->lock);
    wal_check_locked(w);
    lock_release(&w->lock);
}
