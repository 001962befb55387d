// SPDX-License-Identifier: Apache-2.0
#include "wal/wal.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "wal/wal_internal.h"

#define SEGMENT_MIN  (4u << 20)
#define SEGMENT_STEP (8u << 20) // the ring is twice that
#define SEGMENT_MAX  (64u << 20)
#define RING_DEFAULT (16u << 20)
#define RING_MIN     (2u * SEGMENT_MIN)
// The next segment is made when this part of the newest one has been used.
#define PREPARE_AT 4
// With one full segment and one to go on with, checkpoints can always make room.
#define LEAST_SEGMENTS 2u
// Reserved records can need so many spare segments (see wal_room.c).
#define SPARES_MIN 2u
// After a segment could not be made.
#define PREPARE_RETRY_MS 1000u
// The same when the quota is full and threads wait: evictions and publications make room.
#define PREPARE_QUOTA_RETRY_MS 50u

// ---- segments: spare ones are made ahead of need ------------------------------------------------

static void
preparer_run(void *argument)
{
    struct wal *w = argument;
    uint64_t failed_ms = 0;
    flush_pace_bind(w->pace);
    lock_take(&w->lock);
    while (!w->preparer_stopping) {
        // A log that is hardly used does with the segment it has.
        bool wanted = wal_spares_locked(w) < w->spares_wanted &&
                      (w->spares_wanted > 1 || w->append.v >= w->prepare_at) &&
                      w->segment_count < w->segments_max && w->failed == 0;
        if (!wanted) {
            condition_wait(&w->prepare, &w->lock);
            continue;
        }
        bool hurry = w->spare_error == -EDQUOT && w->reserving > 0;
        uint64_t again_ms = failed_ms + (hurry ? PREPARE_QUOTA_RETRY_MS : PREPARE_RETRY_MS);
        if (failed_ms > 0 && clock_monotonic_ms() < again_ms) {
            condition_wait_until(&w->prepare, &w->lock, again_ms);
            continue;
        }
        uint32_t number = w->next_file_number++;
        bool least = ++w->segment_count <= LEAST_SEGMENTS;
        lock_release(&w->lock);
        struct wal_segment *s = NULL;
        int rc = wal_segment_create(w, number, least, &s);
        lock_take(&w->lock);
        w->spare_error = rc;
        failed_ms = rc < 0 ? clock_monotonic_ms() : 0;
        if (rc == 0) {
            list_append(&w->spares, &s->node);
            condition_broadcast(&w->room);
            continue;
        }
        // No space, most likely: a release may free a segment meanwhile; try again in a while.
        w->segment_count--;
    }
    lock_release(&w->lock);
}

// Where the records of a segment end, or may end.
static uint64_t
segment_end(const struct wal_segment *s)
{
    return s->end.v ? s->end.v : s->start.v + s->bytes;
}

void
wal_recycle_locked(struct wal *w, struct list_node *removed)
{
    while (!list_is_empty(&w->live)) {
        struct wal_segment *s = CONTAINER_OF(w->live.next, struct wal_segment, node);
        bool current = s == wal_newest_locked(w);
        if (s->start.v + s->bytes > w->released.v || segment_end(s) > w->flushed.v ||
            s->readers > 0 || (current && w->append.v < s->start.v + s->bytes))
            return;
        list_remove(&s->node);
        if (s->bytes != w->segment_bytes || w->segment_count > w->segments_max) {
            w->segment_count--;
            list_append(removed, &s->node);
        } else {
            s->header_written = false;
            list_append(&w->spares, &s->node);
        }
        condition_broadcast(&w->room);
        condition_signal(&w->prepare);
    }
}

void
wal_remove_segments(struct wal *w, struct list_node *removed)
{
    for (struct list_node *n; (n = list_take_first(removed));)
        wal_segment_remove(w, CONTAINER_OF(n, struct wal_segment, node));
}

// ---- appending ----------------------------------------------------------------------------------

static void
begin_segment_locked(struct wal *w)
{
    struct wal_segment *old = wal_newest_locked(w);
    struct list_node *n = list_take_first(&w->spares);
    assert(n); // has_room_locked counted it
    struct wal_segment *s = CONTAINER_OF(n, struct wal_segment, node);
    uint64_t start = w->append.v;
    if (old && start < old->start.v + old->bytes)
        start = old->start.v + old->bytes;
    if (old)
        old->end = w->last_end;
    s->epoch = w->epoch;
    s->start.v = start;
    s->prior_end = w->last_end;
    s->end.v = 0;
    s->spilled.v = 0;
    s->header_written = false;
    list_append(&w->live, &s->node);
    w->append.v = start + WAL_SEGMENT_HEADER_BYTES;
    w->prepare_at = start + s->bytes / PREPARE_AT;
    if (w->spares_wanted > 1)
        condition_signal(&w->prepare);
}

void
wal_begin(struct wal *w, uint32_t reserved, uint32_t length, struct wal_slot *slot_out)
{
    assert(length <= reserved && length % WAL_RECORD_ALIGN == 0);
    lock_take(&w->lock);
    struct wal_segment *current = wal_newest_locked(w);
    if (!current || w->append.v + length > current->start.v + current->bytes) {
        begin_segment_locked(w);
        current = wal_newest_locked(w);
    }
    slot_out->lsn = w->append;
    slot_out->epoch = current->epoch;
    slot_out->durable = w->flushed;
    slot_out->length = length;
    slot_out->filled = false;
    if (w->append.v < w->prepare_at && w->append.v + length >= w->prepare_at)
        condition_signal(&w->prepare);
    w->append.v += length;
    w->last_end = w->append;
    list_append(&w->slots, &slot_out->node);
    assert(w->reserved >= reserved);
    w->reserved -= reserved;
    if (w->reserving > 0)
        condition_broadcast(&w->room);
    lock_release(&w->lock);
}

struct lsn
wal_payload_lsn(const struct wal_slot *slot, uint32_t payload_page_offset, uint32_t changes_length,
    uint32_t payload_length)
{
    uint32_t pieces = wal_payload_pieces(payload_page_offset, payload_length);
    return (struct lsn){slot->lsn.v + wal_record_payload_offset(pieces, changes_length)};
}

// Copies into the ring at `lsn`, around its end if need be.
static void
copy_to_ring(struct wal *w, uint64_t lsn, const void *p, size_t n)
{
    size_t at = lsn % w->ring_bytes;
    size_t first = w->ring_bytes - at < n ? w->ring_bytes - at : n;
    memcpy(w->ring + at, p, first);
    memcpy(w->ring, (const uint8_t *)p + first, n - first);
}

void
wal_fill(struct wal *w, struct wal_slot *slot, uint32_t payload_page_offset, const void *changes,
    uint32_t changes_length, const uint8_t *payload, uint32_t payload_length,
    const uint32_t *piece_crcs)
{
    struct wal_record_header h = {
        .lsn = slot->lsn,
        .durable = slot->durable,
        .epoch = slot->epoch,
        .length = slot->length,
        .changes_length = changes_length,
        .payload_length = payload_length,
        .payload_page_offset = (uint16_t)payload_page_offset,
    };
    static const uint8_t zeros[WAL_RECORD_ALIGN];
    uint32_t pieces = wal_payload_pieces(payload_page_offset, payload_length);
    uint32_t payload_at = wal_record_payload_offset(pieces, changes_length);
    assert(slot->length == wal_align(payload_at + payload_length));
    uint8_t small[4096];
    uint8_t *head = payload_at <= sizeof(small) ? small : memory_alloc(payload_at);
    wal_record_encode(&h, piece_crcs, changes, head);
    copy_to_ring(w, slot->lsn.v, head, payload_at);
    if (payload_length > 0)
        copy_to_ring(w, slot->lsn.v + payload_at, payload, payload_length);
    uint32_t end = payload_at + payload_length;
    copy_to_ring(w, slot->lsn.v + end, zeros, slot->length - end);
    if (head != small)
        free(head);
    lock_take(&w->lock);
    slot->filled = true;
    bool was_first = w->slots.next == &slot->node;
    list_remove(&slot->node);
    if (was_first && !w->flushing &&
        (!list_is_empty(&w->waiters) || w->reserving > 0 ||
            w->append.v - w->flushed.v > w->ring_bytes / 4))
        condition_signal(&w->work);
    lock_release(&w->lock);
}

// ---- reading back and releasing -----------------------------------------------------------------

static void
copy_from_ring(const struct wal *w, uint64_t lsn, void *p, size_t n)
{
    size_t at = lsn % w->ring_bytes;
    size_t first = w->ring_bytes - at < n ? w->ring_bytes - at : n;
    memcpy(p, w->ring + at, first);
    memcpy((uint8_t *)p + first, w->ring, n - first);
}

static struct wal_segment *
find_segment_locked(struct wal *w, uint64_t lsn)
{
    for (struct list_node *n = w->live.previous; n != &w->live; n = n->previous) {
        struct wal_segment *s = CONTAINER_OF(n, struct wal_segment, node);
        if (lsn >= s->start.v)
            return lsn < s->start.v + s->bytes ? s : NULL;
    }
    return NULL;
}

// Other threads are copying the unfilled records below `end` into the ring, and do nothing else.
static void
wait_until_filled_locked(struct wal *w, uint64_t end)
{
    while (wal_filled_locked(w).v < end) {
        lock_release(&w->lock);
        sched_yield();
        lock_take(&w->lock);
    }
}

// More than this is flushed instead.
#define SPILL_MAX (128u << 10)

// The part of the log that a spill has to write, when it can: it lies in one segment whose header
// is on disk. (The header of a new segment must not get there before the end of the one before it.)
static struct wal_segment *
find_spill_locked(struct wal *w, uint64_t end, uint64_t *from_out)
{
    struct wal_segment *s = wal_newest_locked(w);
    if (!s || !s->header_written || w->flushed.v < s->start.v)
        return NULL;
    *from_out = w->flushed.v > s->spilled.v ? w->flushed.v : s->spilled.v;
    return *from_out >= end || end - *from_out <= SPILL_MAX ? s : NULL;
}

int
wal_spill(struct wal *w, const struct wal_slot *slot)
{
    uint64_t end = slot->lsn.v + slot->length;
    uint64_t from = 0;
    lock_take(&w->lock);
    wait_until_filled_locked(w, end);
    if (w->failed != 0 || w->flushed.v >= end) {
        int rc = w->failed != 0 ? -EIO : 0;
        lock_release(&w->lock);
        return rc;
    }
    struct wal_segment *s = find_spill_locked(w, end, &from);
    if (!s || from >= end) {
        lock_release(&w->lock);
        return s ? 0 : wal_sync_wait(w);
    }
    // A copy: the ring may come round while the kernel takes the bytes.
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc(end - from);
    copy_from_ring(w, from, bytes, end - from);
    s->readers++;
    lock_release(&w->lock);
    int rc = file_write_at(w->ops, s->fd, bytes, end - from, from - s->start.v);
    lock_take(&w->lock);
    s->readers--;
    if (rc == 0 && s->spilled.v < end)
        s->spilled.v = end;
    struct list_node removed;
    list_init(&removed);
    wal_recycle_locked(w, &removed);
    lock_release(&w->lock);
    wal_remove_segments(w, &removed);
    return rc < 0 ? wal_sync_wait(w) : 0;
}

int
wal_read(struct wal *w, struct lsn at, void *p, uint32_t n)
{
    struct list_node removed;
    list_init(&removed);
    lock_take(&w->lock);
    if (at.v + n > w->append.v) {
        lock_release(&w->lock);
        return -ESTALE;
    }
    wait_until_filled_locked(w, at.v + n);
    // Unflushed bytes are in the ring only, flushed ones in the segment only.
    uint32_t flushed = 0;
    if (at.v < w->flushed.v)
        flushed = w->flushed.v - at.v < n ? (uint32_t)(w->flushed.v - at.v) : n;
    copy_from_ring(w, at.v + flushed, (uint8_t *)p + flushed, n - flushed);
    struct wal_segment *s = flushed > 0 ? find_segment_locked(w, at.v) : NULL;
    if (!s || at.v + n > s->start.v + s->bytes) {
        lock_release(&w->lock);
        return flushed > 0 ? -ESTALE : 0;
    }
    s->readers++;
    lock_release(&w->lock);
    int rc = file_read_exact_at(w->ops, s->fd, p, flushed, at.v - s->start.v);
    lock_take(&w->lock);
    s->readers--;
    wal_recycle_locked(w, &removed);
    lock_release(&w->lock);
    wal_remove_segments(w, &removed);
    return rc;
}

int
wal_read_verified(struct wal *w, struct lsn at, uint32_t crc, void *p, uint32_t n)
{
    int rc = wal_read(w, at, p, n);
    return rc == 0 && crc32c(0, p, n) != crc ? -EIO : rc;
}

void
wal_release(struct wal *w, struct lsn cut)
{
    struct list_node removed;
    list_init(&removed);
    lock_take(&w->lock);
    if (cut.v > w->released.v)
        w->released = cut;
    wal_recycle_locked(w, &removed);
#ifdef CKPTFS_DEBUG
    wal_check_locked(w);
#endif
    lock_release(&w->lock);
    wal_remove_segments(w, &removed);
}

bool
wal_is_removed(struct wal *w)
{
    struct stat st;
    lock_take(&w->lock);
    const struct wal_segment *newest = wal_newest_locked(w);
    bool removed = newest && fstat(newest->fd, &st) == 0 && st.st_nlink == 0;
    lock_release(&w->lock);
    return removed;
}

static uint64_t
disk_bytes_locked(const struct wal *w)
{
    uint64_t bytes = 0;
    uint32_t listed = 0;
    const struct list_node *lists[] = {&w->live, &w->spares};
    for (size_t i = 0; i < ARRAY_LENGTH(lists); i++)
        for (struct list_node *n = lists[i]->next; n != lists[i]; n = n->next, listed++)
            bytes += CONTAINER_OF(n, struct wal_segment, node)->bytes;
    return bytes + (w->segment_count - listed) * w->segment_bytes; // one may be in the making
}

void
wal_numbers(struct wal *w, struct wal_numbers *numbers_out)
{
    lock_take(&w->lock);
    *numbers_out = (struct wal_numbers){
        .append = w->append,
        .flushed = w->flushed,
        .released = w->released,
        .retained_bytes = w->append.v > w->released.v ? w->append.v - w->released.v : 0,
        .limit_bytes = w->limit_bytes,
        .disk_bytes = disk_bytes_locked(w),
        .segment_bytes = w->segment_bytes,
        .syncs = w->syncs,
        .flushes = w->flushes,
        .failed = w->failed,
        .waiting = w->reserving,
        .starved = wal_is_starved_locked(w),
        .spare_error = w->spare_error,
        .quota_full = !storage_quota_may_fill(w->quota, QUOTA_GROW),
    };
    lock_release(&w->lock);
}

// ---- life ---------------------------------------------------------------------------------------

static uint64_t
clamp(uint64_t v, uint64_t low, uint64_t high)
{
    return v < low ? low : v > high ? high : v;
}

static uint32_t
segments_max_of(const struct wal *w, uint64_t limit_bytes)
{
    return (uint32_t)clamp(limit_bytes / w->segment_bytes, 3, 1u << 20);
}

void
wal_set_limit(struct wal *w, uint64_t limit_bytes)
{
    struct list_node removed;
    list_init(&removed);
    lock_take(&w->lock);
    if (w->limit_bytes != limit_bytes) {
        w->limit_bytes = limit_bytes;
        w->segments_max = segments_max_of(w, limit_bytes);
        // One spare stays: reserved records may need it.
        while (w->segment_count > w->segments_max && wal_spares_locked(w) > SPARES_MIN) {
            list_append(&removed, list_take_first(&w->spares));
            w->segment_count--;
        }
        condition_signal(&w->prepare);
    }
    lock_release(&w->lock);
    wal_remove_segments(w, &removed);
}

static void
free_segments(struct list_node *list)
{
    for (struct list_node *n; (n = list_take_first(list));)
        wal_segment_free(CONTAINER_OF(n, struct wal_segment, node));
}

static void
wal_free(struct wal *w)
{
    free_segments(&w->live);
    free_segments(&w->spares);
    file_close(w->mark_fd);
    condition_destroy(&w->work);
    condition_destroy(&w->prepare);
    condition_destroy(&w->room);
    lock_destroy(&w->lock);
    free(w->directory);
    free(w->ring);
    free(w);
}

static uint64_t
segment_bytes_of(uint64_t limit_bytes)
{
    return clamp(limit_bytes / 64, clamp(limit_bytes / 8, SEGMENT_MIN, SEGMENT_STEP), SEGMENT_MAX);
}

uint64_t
wal_segments_of(uint64_t limit_bytes)
{
    return clamp(limit_bytes / segment_bytes_of(limit_bytes), 3, 1u << 20);
}

static struct wal *
wal_new(const struct wal_options *options)
{
    struct wal *w = memory_alloc_zero(sizeof(*w));
    w->ops = options->ops ? options->ops : &file_ops_system;
    w->directory = memory_string(options->directory);
    w->mark_fd = -1;
    w->volume = options->volume;
    w->writer = options->writer;
    atomic_init(&w->writer_epoch, options->writer_epoch);
    w->callers_flush = options->callers_flush;
    w->pace = options->pace;
    w->reached = options->reached;
    w->quota = options->quota;
    w->spares_wanted = 1;
    w->limit_bytes = options->limit_bytes;
    w->segment_bytes =
        options->segment_bytes ? options->segment_bytes : segment_bytes_of(options->limit_bytes);
    w->segment_bytes = clamp(w->segment_bytes, SEGMENT_MIN, INT64_MAX);
    w->segment_bytes -= w->segment_bytes % WAL_SEGMENT_HEADER_BYTES;
    w->segments_max = segments_max_of(w, options->limit_bytes);
    w->ring_bytes = options->ring_bytes ? options->ring_bytes
                                        : clamp(options->limit_bytes / 4, RING_MIN, RING_DEFAULT);
    w->ring_bytes = clamp(w->ring_bytes, RING_MIN, 2 * w->segment_bytes);
    w->ring = memory_alloc(w->ring_bytes);
    lock_init(&w->lock, "wal", LOCK_RANK_WAL);
    condition_init(&w->work);
    condition_init(&w->prepare);
    condition_init(&w->room);
    list_init(&w->slots);
    list_init(&w->waiters);
    list_init(&w->reservers);
    list_init(&w->live);
    list_init(&w->spares);
    return w;
}

static int
start_threads(struct wal *w)
{
    int rc = thread_start(&w->flusher, "wal-flush", wal_flusher_run, w);
    if (rc < 0)
        return rc;
    rc = thread_start(&w->preparer, "wal-prepare", preparer_run, w);
    if (rc == 0)
        return 0;
    lock_take(&w->lock);
    w->stopping = true;
    condition_broadcast(&w->work);
    lock_release(&w->lock);
    thread_join(&w->flusher);
    return rc;
}

// An open log has a file, so that a log without one is a log that was lost.
static int
make_first_segment(struct wal *w)
{
    struct wal_segment *s;
    int rc = wal_segment_create(w, w->next_file_number++, true, &s);
    if (rc < 0)
        return rc;
    w->segment_count++;
    list_append(&w->spares, &s->node);
    return 0;
}

int
wal_open(const struct wal_options *options, struct lsn cut, wal_replay *replay, void *argument,
    struct wal **wal_out, struct buffer *error)
{
    *wal_out = NULL;
    struct wal *w = wal_new(options);
    int rc = wal_recover(w, cut, replay, argument, error);
    if (rc == 0 && w->segment_count == 0)
        rc = make_first_segment(w);
    const struct wal_segment *newest = wal_newest_locked(w);
    w->prepare_at = newest ? newest->start.v + newest->bytes / PREPARE_AT : UINT64_MAX;
    if (rc == 0)
        rc = start_threads(w);
    if (rc < 0) {
        wal_free(w);
        return rc;
    }
    *wal_out = w;
    return 0;
}

int
wal_verify(
    const struct wal_options *options, struct lsn cut, struct lsn *end_out, struct buffer *error)
{
    struct wal *w = wal_new(options);
    int rc = wal_look(w, cut, end_out, error);
    wal_free(w);
    return rc;
}

void
wal_set_writer_epoch(struct wal *w, uint64_t epoch)
{
    atomic_store(&w->writer_epoch, epoch);
}

// The last batch of a closed log is vouched for as well.
static void
mark_end(struct wal *w)
{
    const struct wal_segment *newest = wal_newest_locked(w);
    int rc = newest ? wal_mark_advance(w, newest, w->last_end) : 0;
    if (rc < 0)
        log_warning("wal.mark_failed", "cannot write the mark of the log in %s: %s", w->directory,
            strerror(-rc));
}

int
wal_close(struct wal *w)
{
    if (!w)
        return 0;
    int rc = wal_sync_wait(w); // its failure is the log's
    lock_take(&w->lock);
    w->stopping = w->preparer_stopping = true;
    condition_broadcast(&w->work);
    condition_broadcast(&w->prepare);
    lock_release(&w->lock);
    thread_join(&w->flusher);
    thread_join(&w->preparer);
    if (w->failed != 0)
        rc = w->failed;
    else
        mark_end(w);
    wal_free(w);
    return rc;
}
