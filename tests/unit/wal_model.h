// SPDX-License-Identifier: Apache-2.0
// Records for tests of the log: made from a number, so that they can be made again and compared;
// and a journal of what was appended, in order, and what was acknowledged. Include unit.h first.
#ifndef CKPTFS_TESTS_WAL_MODEL_H
#define CKPTFS_TESTS_WAL_MODEL_H

#include <string.h>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/hash_table.h"
#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "wal/wal.h"

#define MODEL_VOLUME ((struct uuid){{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}})
#define MIB          (1u << 20)
// Longer than any test may wait.
#define MODEL_PATIENCE_MS 60000u

static inline uint64_t
model_random(uint64_t *seed)
{
    return hash_u64((*seed)++);
}

struct model_record {
    uint64_t id;
    uint32_t changes_length;
    uint32_t page_offset;
    uint32_t payload_length;
    uint8_t *changes;
    uint8_t *payload;
    uint32_t crcs[WAL_PAYLOAD_MAX / PAGE_BYTES + 1];
};

static inline void
model_record_free(struct model_record *r)
{
    free(r->changes);
    free(r->payload);
}

static inline void
model_sizes(struct model_record *r, uint64_t *seed, uint32_t largest)
{
    uint32_t a = (uint32_t)model_random(seed);
    uint32_t b = (uint32_t)model_random(seed);
    r->changes_length = 8 + a % 200;
    switch (model_random(seed) % 8) {
    case 0:
    case 1:
    case 2:
        return;
    case 3:
    case 4:
        r->payload_length = PAGE_BYTES;
        return;
    case 5:
        r->payload_length = 1 + b % (5 * PAGE_BYTES);
        r->page_offset = a % PAGE_BYTES;
        break;
    case 6:
        r->changes_length = 8 + a % (largest < 2 * WAL_CHANGES_MAX ? largest / 2 : WAL_CHANGES_MAX);
        return;
    default:
        r->payload_length = largest - b % (largest / 4);
        r->page_offset = a % 3 ? 0 : a % PAGE_BYTES;
    }
    if (r->payload_length > largest)
        r->payload_length = largest;
}

// Record number `id`; payloads have at most `largest` bytes.
static inline void
model_record_make(struct model_record *r, uint64_t id, uint32_t largest)
{
    memset(r, 0, sizeof(*r));
    uint64_t seed = hash_u64(id);
    r->id = id;
    model_sizes(r, &seed, largest);
    r->changes = memory_alloc(r->changes_length);
    for (uint32_t i = 0; i < r->changes_length; i++)
        r->changes[i] = (uint8_t)(id + i);
    put_le64(r->changes, id);
    r->payload = memory_alloc(r->payload_length + 8);
    for (uint32_t i = 0; i < r->payload_length; i += 8)
        put_le64(r->payload + i, hash_u64(seed + i));
    uint32_t in_page = r->page_offset;
    for (uint32_t done = 0, i = 0; done < r->payload_length; i++) {
        uint32_t n = PAGE_BYTES - in_page;
        if (n > r->payload_length - done)
            n = r->payload_length - done;
        r->crcs[i] = crc32c(0, r->payload + done, n);
        done += n;
        in_page = 0;
    }
}

static inline uint32_t
model_record_length(const struct model_record *r)
{
    return wal_record_length(r->page_offset, r->changes_length, r->payload_length);
}

static inline void
model_record_fill(struct wal *w, struct wal_slot *slot, const struct model_record *r)
{
    wal_fill(w, slot, r->page_offset, r->changes, r->changes_length, r->payload, r->payload_length,
        r->crcs);
}

// The number of a replayed record; its bytes must be those of that number.
static inline uint64_t
model_check_replayed(const struct wal_replayed *x, uint32_t largest)
{
    ck_assert_uint_ge(x->changes_length, 8);
    struct model_record r;
    model_record_make(&r, get_le64(x->changes), largest);
    ck_assert_uint_eq(x->changes_length, r.changes_length);
    ck_assert_uint_eq(x->payload_length, r.payload_length);
    ck_assert_uint_eq(x->payload_page_offset, r.page_offset);
    ck_assert_mem_eq(x->changes, r.changes, r.changes_length);
    ck_assert(r.payload_length == 0 || memcmp(x->payload, r.payload, r.payload_length) == 0);
    uint32_t pieces = wal_payload_pieces(r.page_offset, r.payload_length);
    for (uint32_t i = 0; i < pieces; i++)
        ck_assert_uint_eq(get_le32(x->piece_crcs + 4 * (size_t)i), r.crcs[i]);
    ck_assert_uint_eq(x->end.v - x->lsn.v, model_record_length(&r));
    uint64_t id = r.id;
    model_record_free(&r);
    return id;
}

// ---- the journal --------------------------------------------------------------------------------

struct journal_entry {
    uint64_t id;
    struct lsn lsn;
    struct lsn end;
};

struct journal {
    struct lock lock; // "journal": order of records, and everything below
    struct journal_entry *entries;
    size_t count;
    size_t capacity;
    size_t acknowledged; // entries below are
    size_t first;        // the first that lies at or behind the cut
    struct lsn released; // the highest cut that was ever given
    size_t next;         // while it replays: which comes next
    uint64_t next_id;
    uint32_t largest;
};

static inline void
journal_init(struct journal *j, uint32_t largest)
{
    memset(j, 0, sizeof(*j));
    lock_init(&j->lock, "journal", LOCK_RANK_VOLUME);
    j->largest = largest;
    j->next_id = 1;
}

static inline void
journal_destroy(struct journal *j)
{
    lock_destroy(&j->lock);
    free(j->entries);
}

// Appends record `id` after all that the journal has. The error of wal_reserve, or 0 with the
// record's number in the journal; `slot_out` is good for wal_spill.
static inline int
journal_append_slot(struct journal *j, struct wal *w, uint64_t id, uint64_t patience_ms,
    size_t *index_out, struct wal_slot *slot_out)
{
    struct model_record r;
    model_record_make(&r, id, j->largest);
    uint32_t length = model_record_length(&r);
    uint32_t reserved = length + (uint32_t)(id % 3) * 1000;
    int rc = wal_reserve(w, reserved, clock_monotonic_ms() + patience_ms);
    if (rc == 0) {
        struct wal_slot slot;
        lock_take(&j->lock);
        wal_begin(w, reserved, length, &slot);
        if (j->count == j->capacity) {
            j->capacity = j->capacity * 2 + 64;
            j->entries = memory_realloc(j->entries, j->capacity * sizeof(*j->entries));
        }
        ck_assert(j->count == 0 || j->entries[j->count - 1].end.v <= slot.lsn.v);
        j->entries[j->count] =
            (struct journal_entry){id, slot.lsn, (struct lsn){slot.lsn.v + length}};
        *index_out = j->count++;
        lock_release(&j->lock);
        model_record_fill(w, &slot, &r);
        *slot_out = slot;
    }
    model_record_free(&r);
    return rc;
}

static inline int
journal_append(
    struct journal *j, struct wal *w, uint64_t id, uint64_t patience_ms, size_t *index_out)
{
    struct wal_slot slot;
    return journal_append_slot(j, w, id, patience_ms, index_out, &slot);
}

// Syncs; what was acknowledged is noted.
static inline int
journal_sync(struct journal *j, struct wal *w)
{
    lock_take(&j->lock);
    size_t before = j->count;
    lock_release(&j->lock);
    int rc = wal_sync_wait(w);
    lock_take(&j->lock);
    if (rc == 0 && before > j->acknowledged)
        j->acknowledged = before;
    lock_release(&j->lock);
    return rc;
}

static inline int
journal_replay(void *argument, const struct wal_replayed *x)
{
    struct journal *j = argument;
    uint64_t id = model_check_replayed(x, j->largest);
    ck_assert_uint_lt(j->next, j->count);
    const struct journal_entry *e = &j->entries[j->next++];
    ck_assert_uint_eq(id, e->id);
    ck_assert_uint_eq(x->lsn.v, e->lsn.v);
    ck_assert_uint_eq(x->end.v, e->end.v);
    // What was replayed can be read back at once.
    size_t earlier = j->first + (j->next - 1 - j->first) / 2;
    uint8_t p[WAL_RECORD_HEADER];
    ck_assert_int_eq(wal_read(x->wal, j->entries[earlier].lsn, p, sizeof(p)), 0);
    ck_assert_uint_eq(get_le64(p + 8), j->entries[earlier].lsn.v);
    return 0;
}

// The promises hold whoever flushes: suites are built a second time with this as true.
#ifndef MODEL_CALLERS_FLUSH
#define MODEL_CALLERS_FLUSH false
#endif

static inline struct wal_options
model_options(const char *directory, const struct file_ops *ops, uint64_t limit_bytes)
{
    return (struct wal_options){.ops = ops,
        .directory = directory,
        .volume = MODEL_VOLUME,
        .limit_bytes = limit_bytes,
        .callers_flush = MODEL_CALLERS_FLUSH};
}

// The cut that belongs to j->first; never below what was released.
static inline struct lsn
journal_cut(const struct journal *j)
{
    struct lsn cut = {0};
    if (j->first < j->count)
        cut = j->entries[j->first].lsn;
    else if (j->count > 0)
        cut = j->entries[j->count - 1].end;
    return cut.v > j->released.v ? cut : j->released;
}

// Opens the log and checks that it holds a prefix of the journal with all that was acknowledged.
// What it does not hold leaves the journal.
static inline struct wal *
journal_open(struct journal *j, const struct wal_options *options)
{
    BUFFER_AUTO error = {0};
    struct wal *w;
    j->next = j->first;
    j->released = journal_cut(j); // a cut never goes back
    int rc = wal_open(options, j->released, journal_replay, j, &w, &error);
    ck_assert_msg(rc == 0, "wal_open: %d %s", rc, buffer_string(&error));
    ck_assert_uint_ge(j->next, j->acknowledged);
    j->count = j->acknowledged = j->next;
    struct wal_numbers n;
    wal_numbers(w, &n);
    ck_assert(j->count == 0 || n.append.v >= j->entries[j->count - 1].end.v);
    return w;
}

// Opens with the error expected, and a text with it.
static inline void
journal_open_fails(struct journal *j, const struct wal_options *options, int expected)
{
    BUFFER_AUTO error = {0};
    struct wal *w;
    j->next = j->first;
    ck_assert_int_eq(wal_open(options, journal_cut(j), journal_replay, j, &w, &error), expected);
    ck_assert_ptr_null(w);
    ck_assert_uint_gt(error.length, 20);
}

// Lets go of all entries below `index`.
static inline void
journal_release(struct journal *j, struct wal *w, size_t index)
{
    lock_take(&j->lock);
    if (index > j->first)
        j->first = index;
    struct lsn cut = j->released = journal_cut(j);
    lock_release(&j->lock);
    wal_release(w, cut);
}

static inline void
journal_append_many(struct journal *j, struct wal *w, size_t records)
{
    size_t index;
    for (size_t i = 0; i < records; i++)
        ck_assert_int_eq(journal_append(j, w, j->next_id++, MODEL_PATIENCE_MS, &index), 0);
}

#endif
