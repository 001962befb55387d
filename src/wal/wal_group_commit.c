// SPDX-License-Identifier: Apache-2.0
// One thread at a time writes the filled records and answers the waiters. While it writes one
// batch, the next one gathers behind it; that is the whole of group commit. The thread is the
// flusher, or, where callers may, the first caller while no thread writes. A caller answers itself
// first and goes on until no waiter is left; the flusher writes the rest.
#include <errno.h>
#include <stdlib.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "wal/wal_internal.h"

// The flusher flushes records without a waiter after this long, so that an idle volume is clean.
#define IDLE_FLUSH_MS 1000u

struct lsn
wal_filled_locked(const struct wal *w)
{
    if (list_is_empty(&w->slots))
        return w->append;
    return CONTAINER_OF(w->slots.next, struct wal_slot, node)->lsn;
}

// The segment in which the flush goes on. Steps over the unused end of a finished segment.
static struct wal_segment *
flush_segment_locked(struct wal *w)
{
    LIST_FOR_EACH(&w->live, n)
    {
        struct wal_segment *s = CONTAINER_OF(n, struct wal_segment, node);
        uint64_t end = s->end.v ? s->end.v : s->start.v + s->bytes;
        if (w->flushed.v >= end)
            continue;
        if (w->flushed.v < s->start.v + WAL_SEGMENT_HEADER_BYTES)
            w->flushed.v = s->start.v + WAL_SEGMENT_HEADER_BYTES;
        return s;
    }
    return NULL;
}

// The header is durable before any record of the segment is written. Else a power loss in the first
// write could leave records without it, and the next process, which would know neither their epoch
// nor their LSNs, might give both out again.
static int
write_header(struct wal *w, struct wal_segment *s)
{
    uint8_t header[WAL_SEGMENT_HEADER_BYTES];
    struct wal_segment_header h = {
        .volume = w->volume,
        .has_mark = true,
        .epoch = s->epoch,
        .segment_bytes = s->bytes,
        .start = s->start,
        .prior_end = s->prior_end,
        .has_writer = true,
        .writer = w->writer,
        .writer_epoch = atomic_load(&w->writer_epoch),
    };
    wal_segment_header_encode(&h, header);
    return file_write_durable_at(w->ops, s->fd, header, sizeof(header), 0);
}

// A part of one segment: ring bytes [from, to), which are not with the kernel yet.
struct batch {
    struct wal_segment *segment;
    uint64_t from;
    uint64_t to;
};

// False: nothing is to be made durable, or another thread writes.
static bool
next_batch_locked(struct wal *w, struct batch *out)
{
    struct lsn filled = wal_filled_locked(w);
    if (w->failed != 0 || w->flushing || filled.v <= w->flushed.v)
        return false;
    struct wal_segment *s = flush_segment_locked(w);
    *out = (struct batch){.segment = s,
        .from = w->started.v > w->flushed.v ? w->started.v : w->flushed.v,
        .to = s->end.v && s->end.v < filled.v ? s->end.v : filled.v};
    return out->to > w->flushed.v;
}

static int
write_ring(struct wal *w, const struct batch *b, bool durable)
{
    struct iovec iov[2];
    int count = 0;
    size_t at = b->from % w->ring_bytes;
    size_t n = b->to - b->from;
    size_t first = w->ring_bytes - at < n ? w->ring_bytes - at : n;
    iov[count++] = (struct iovec){w->ring + at, first};
    if (n > first)
        iov[count++] = (struct iovec){w->ring, n - first};
    return file_writev_at(
        w->ops, b->segment->fd, iov, count, b->from - b->segment->start.v, durable);
}

// Makes the segment durable up to the end of the batch, after its header and the mark when that is
// not there yet. `started`: the kernel has a part of it already, which a durable write of the rest
// would not wait for.
static int
write_batch(struct wal *w, const struct batch *b, bool started)
{
    struct wal_segment *s = b->segment;
    int rc = 0;
    if (!s->header_written) {
        assert(b->from == s->start.v + WAL_SEGMENT_HEADER_BYTES);
        rc = write_header(w, s);
        if (rc == 0)
            rc = wal_mark_advance(w, s, (struct lsn){b->from});
    }
    if (rc == 0 && b->to > b->from)
        rc = write_ring(w, b, !started);
    if (rc == 0 && started)
        rc = w->ops->fdatasync(s->fd);
    return rc;
}

static void
fail_locked(struct wal *w, struct wal_segment *s, int rc)
{
    CLEANUP(memory_free_auto) char *path = wal_segment_path(w, s->file_number);
    log_error("wal.failed", "cannot write %s: %s; the volume is read-only from now on", path,
        strerror(-rc));
    w->failed = rc;
    condition_broadcast(&w->room);
}

// Takes the waiters whose target is reached (all of them when the log is dead) and answers them
// without the lock.
static void
answer_waiters_locked(struct wal *w)
{
    struct list_node ready;
    list_init(&ready);
    while (!list_is_empty(&w->waiters)) {
        struct wal_waiter *x = CONTAINER_OF(w->waiters.next, struct wal_waiter, node);
        if (w->failed == 0 && x->target.v > w->flushed.v)
            break;
        list_remove(&x->node);
        list_append(&ready, &x->node);
        w->syncs++;
    }
    if (list_is_empty(&ready))
        return;
    int failed = w->failed;
    lock_release(&w->lock);
    flush_pace_committed(w->pace);
    for (struct list_node *n; (n = list_take_first(&ready));) {
        struct wal_waiter *x = CONTAINER_OF(n, struct wal_waiter, node);
        x->done(x->argument, failed == 0 ? 0 : -EIO);
        free(x);
    }
    lock_take(&w->lock);
}

// Recycles segments that were released before they were flushed.
static void
recycle_locked(struct wal *w)
{
    struct list_node removed;
    list_init(&removed);
    wal_recycle_locked(w, &removed);
    if (list_is_empty(&removed))
        return;
    lock_release(&w->lock);
    wal_remove_segments(w, &removed);
    lock_take(&w->lock);
}

// One batch. False when there was nothing to write, or another thread writes.
static bool
flush_once_locked(struct wal *w)
{
    struct batch b;
    if (!next_batch_locked(w, &b))
        return false;
    bool started = w->started.v > w->flushed.v;
    w->flushing = true;
    lock_release(&w->lock);
    int rc = write_batch(w, &b, started);
    lock_take(&w->lock);
    w->flushing = false;
    w->flushes++;
    if (rc < 0) {
        fail_locked(w, b.segment, rc);
        return true;
    }
    b.segment->header_written = true;
    w->flushed.v = b.to;
    recycle_locked(w);
    if (w->reserving > 0)
        condition_broadcast(&w->room);
    return true;
}

static bool
is_urgent_locked(const struct wal *w)
{
    return w->stopping || w->reserving > 0 || !list_is_empty(&w->waiters) ||
           w->append.v - w->flushed.v > w->ring_bytes / 4;
}

void
wal_flusher_run(void *argument)
{
    struct wal *w = argument;
    lock_take(&w->lock);
    for (;;) {
        bool timed_out = false;
        if (!is_urgent_locked(w)) {
            timed_out =
                !condition_wait_until(&w->work, &w->lock, clock_monotonic_ms() + IDLE_FLUSH_MS);
            if (!timed_out && !is_urgent_locked(w))
                continue;
        }
        bool wrote = flush_once_locked(w);
        answer_waiters_locked(w);
        if (wrote || timed_out)
            continue;
        if (w->stopping && !w->flushing)
            break;
        if (is_urgent_locked(w)) // the record is not filled yet, or there is no room
            condition_wait_until(&w->work, &w->lock, clock_monotonic_ms() + IDLE_FLUSH_MS);
    }
    lock_release(&w->lock);
}

void
wal_start_writing(struct wal *w, const struct wal_slot *slot)
{
    struct batch b;
    if (slot->length < WAL_START_BYTES)
        return;
    lock_take(&w->lock);
    // The header of a segment goes first, and durably: that is for a flush.
    if (!next_batch_locked(w, &b) || !b.segment->header_written || b.from != slot->lsn.v ||
        b.from != w->flushed.v) {
        lock_release(&w->lock);
        return;
    }
    w->flushing = true;
    lock_release(&w->lock);
    int rc = write_ring(w, &b, false);
    if (rc == 0)
        rc = file_start_writing(w->ops, b.segment->fd, b.from - b.segment->start.v, b.to - b.from);
    lock_take(&w->lock);
    w->flushing = false;
    if (rc < 0)
        fail_locked(w, b.segment, rc);
    else
        w->started.v = b.to;
    // Threads that came meanwhile relied on this thread.
    if (rc < 0 || is_urgent_locked(w))
        condition_signal(&w->work);
    lock_release(&w->lock);
}

// A waiting caller flushes in its own thread.
static void
flush_for_waiters_locked(struct wal *w)
{
    while (!list_is_empty(&w->waiters) && flush_once_locked(w))
        answer_waiters_locked(w);
    if (!w->flushing && is_urgent_locked(w))
        condition_signal(&w->work);
}

void
wal_sync(struct wal *w, wal_synced *done, void *argument)
{
    lock_take(&w->lock);
    if (w->last_end.v <= w->flushed.v || w->failed != 0) {
        int result = w->failed == 0 ? 0 : -EIO;
        w->syncs++;
        lock_release(&w->lock);
        done(argument, result);
        return;
    }
    struct wal_waiter *x = memory_alloc(sizeof(*x));
    x->target = w->last_end;
    x->done = done;
    x->argument = argument;
    list_append(&w->waiters, &x->node);
    // The writing thread looks for waiters when it is done.
    if (!w->flushing && w->callers_flush)
        flush_for_waiters_locked(w);
    else if (!w->flushing)
        condition_signal(&w->work);
    lock_release(&w->lock);
}

struct sync_wait {
    struct lock lock;
    struct condition condition;
    bool done;
    int result;
};

static void
wake_sync_wait(void *argument, int result)
{
    struct sync_wait *x = argument;
    lock_take(&x->lock);
    x->result = result;
    x->done = true;
    condition_signal(&x->condition);
    lock_release(&x->lock);
}

int
wal_sync_wait(struct wal *w)
{
    struct sync_wait x = {.done = false};
    lock_init(&x.lock, "wal sync", LOCK_RANK_PLATFORM);
    condition_init(&x.condition);
    wal_sync(w, wake_sync_wait, &x);
    lock_take(&x.lock);
    while (!x.done)
        condition_wait(&x.condition, &x.lock);
    lock_release(&x.lock);
    condition_destroy(&x.condition);
    lock_destroy(&x.lock);
    return x.result;
}

int
wal_reach(struct wal *w, struct lsn cut, struct lsn *end_out)
{
    lock_take(&w->lock);
    *end_out = w->last_end.v < cut.v ? w->last_end : cut;
    bool is_durable = w->flushed.v >= end_out->v;
    lock_release(&w->lock);
    return is_durable ? 0 : wal_sync_wait(w);
}
