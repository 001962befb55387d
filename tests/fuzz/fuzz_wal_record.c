// SPDX-License-Identifier: Apache-2.0
// Hostile segments and marks. The first byte of an input chooses what the others are:
//     0  a record as it is
//     1  a record whose checksums are made right
//     2  the same, and its length is made to fit
//     3  a segment header as it is
//     4  a segment header whose checksum is made right
//     5  a slot of the mark as it is
//     6  a slot of the mark whose checksum is made right
// What decodes lies inside its bytes and is the only way to write what it says.
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/hash_table.h"
#include "format/wal_record.h"
#include "platform/memory.h"

enum mode {
    MODE_PLAIN,
    MODE_SEALED,
    MODE_FITTED,
    MODE_HEADER,
    MODE_SEALED_HEADER,
    MODE_MARK,
    MODE_SEALED_MARK,
    MODES
};

// Not an assert: it must hold in builds without them.
#define MUST_HOLD(condition)                                                                       \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

#define SEED_EPOCH 3u
#define SEED_LSN   (UINT64_C(1) << 33)

// Makes the checksums right, as far as the header's lengths point into the record.
static void
seal_record(uint8_t *p, size_t n, bool fit)
{
    if (n < WAL_RECORD_HEADER)
        return;
    uint64_t changes = get_le32(p + 28);
    uint64_t payload = get_le32(p + 32);
    uint32_t offset = get_le16(p + 36);
    if (changes > WAL_CHANGES_MAX || payload > WAL_PAYLOAD_MAX || offset >= PAGE_BYTES)
        return;
    uint32_t length = wal_record_length(offset, (uint32_t)changes, (uint32_t)payload);
    if (fit)
        put_le32(p + 4, length);
    if (length > n)
        return;
    uint32_t pieces = wal_payload_pieces(offset, (uint32_t)payload);
    uint32_t at = wal_record_payload_offset(pieces, (uint32_t)changes);
    for (uint32_t i = 0, done = 0; i < pieces; i++, offset = 0) {
        uint32_t piece = PAGE_BYTES - offset;
        if (piece > payload - done)
            piece = (uint32_t)payload - done;
        put_le32(p + WAL_RECORD_HEADER + 4 * i, crc32c(0, p + at + done, piece));
        done += piece;
    }
    put_le32(p, crc32c(0, p + 4, wal_record_changes_offset(pieces) + changes - 4));
}

static void
try_record(const uint8_t *p, size_t n)
{
    struct wal_record_header h;
    struct lsn lsn = {n >= 16 ? get_le64(p + 8) : 0};
    int rc = wal_record_decode(p, n, lsn, 0, &h);
    MUST_HOLD(rc == 0 || (rc == -ENODATA && h.length == 0));
    if (rc < 0)
        return;
    MUST_HOLD(h.lsn.v == lsn.v && h.length <= n && h.length <= WAL_RECORD_MAX);
    MUST_HOLD(h.length % WAL_RECORD_ALIGN == 0 && h.durable.v <= h.lsn.v);
    uint32_t pieces = wal_payload_pieces(h.payload_page_offset, h.payload_length);
    uint32_t covered = wal_record_changes_offset(pieces) + h.changes_length;
    uint32_t crcs[WAL_PAYLOAD_MAX / PAGE_BYTES + 1];
    for (uint32_t i = 0; i < pieces; i++)
        crcs[i] = get_le32(p + WAL_RECORD_HEADER + 4 * i);
    uint8_t *again = memory_alloc(wal_record_payload_offset(pieces, h.changes_length));
    wal_record_encode(&h, crcs, p + wal_record_changes_offset(pieces), again);
    MUST_HOLD(memcmp(again, p, covered) == 0);
    free(again);
    struct wal_record_header other;
    MUST_HOLD(wal_record_decode(p, h.length - 1, lsn, 0, &other) == -ENODATA);
    MUST_HOLD(wal_record_decode(p, n, (struct lsn){lsn.v ^ 8}, 0, &other) == -ENODATA);
    MUST_HOLD(
        h.epoch == UINT32_MAX || wal_record_decode(p, n, lsn, h.epoch + 1, &other) == -ENODATA);
}

static void
try_segment_header(const uint8_t *p, size_t n, bool seal)
{
    uint8_t header[WAL_SEGMENT_HEADER_BYTES] = {0};
    uint8_t again[WAL_SEGMENT_HEADER_BYTES];
    memcpy(header, p, n < sizeof(header) ? n : sizeof(header));
    if (seal) {
        put_le32(header + 60, crc32c(0, header, 60));
        put_le32(header + 88, crc32c(0, header + 64, 24));
    }
    struct wal_segment_header h;
    int rc = wal_segment_header_decode(header, &h);
    MUST_HOLD(rc == 0 || rc == -EBADMSG || rc == -ENOTSUP);
    MUST_HOLD(rc == -EBADMSG || !wal_is_spare_header(header));
    if (rc < 0)
        return;
    MUST_HOLD(h.start.v + h.segment_bytes <= INT64_MAX && h.prior_end.v <= h.start.v);
    wal_segment_header_encode(&h, again);
    MUST_HOLD(memcmp(again, header, h.has_writer ? 92 : 64) == 0);
}

static void
try_mark(const uint8_t *p, size_t n, bool seal)
{
    uint8_t slot[WAL_MARK_SLOT_BYTES] = {0};
    uint8_t again[WAL_MARK_SLOT_BYTES];
    memcpy(slot, p, n < sizeof(slot) ? n : sizeof(slot));
    if (seal)
        put_le32(slot + 72, crc32c(0, slot, 72));
    struct wal_mark m;
    int rc = wal_mark_decode(slot, &m);
    MUST_HOLD(rc == 0 || rc == -EBADMSG || rc == -ENOTSUP);
    if (rc < 0)
        return;
    MUST_HOLD(m.start.v + m.segment_bytes <= INT64_MAX && m.end.v <= m.start.v + m.segment_bytes);
    wal_mark_encode(&m, again);
    MUST_HOLD(memcmp(again, slot, 76) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    enum mode mode = (enum mode)(data[0] % MODES);
    // A copy of exactly the size, to be changed.
    size_t length = n - 1;
    uint8_t *p = memory_alloc(length ? length : 1);
    memcpy(p, data + 1, length);
    if (mode >= MODE_MARK) {
        try_mark(p, length, mode == MODE_SEALED_MARK);
    } else if (mode >= MODE_HEADER) {
        try_segment_header(p, length, mode == MODE_SEALED_HEADER);
    } else {
        if (mode != MODE_PLAIN)
            seal_record(p, length, mode == MODE_FITTED);
        try_record(p, length);
    }
    free(p);
    return 0;
}

// ---- seeds --------------------------------------------------------------------------------------

static void
seed_record(uint32_t changes, uint32_t payload, uint16_t offset, struct buffer *input_out)
{
    struct wal_record_header h = {
        .lsn = {SEED_LSN},
        .durable = {SEED_LSN - 4096},
        .epoch = SEED_EPOCH,
        .length = wal_record_length(offset, changes, payload),
        .changes_length = changes,
        .payload_length = payload,
        .payload_page_offset = offset,
    };
    uint32_t crcs[WAL_PAYLOAD_MAX / PAGE_BYTES + 1] = {0};
    uint8_t *bytes = memory_alloc(changes + 1);
    memset(bytes, 0x61, changes + 1);
    uint8_t *p = buffer_extend(input_out, h.length);
    memset(p, 0x62, h.length);
    wal_record_encode(&h, crcs, bytes, p);
    seal_record(p, h.length, false);
    free(bytes);
}

static void
seed_header(struct buffer *input_out)
{
    struct wal_segment_header h = {
        .volume = {{1, 2, 3}},
        .epoch = SEED_EPOCH,
        .has_mark = true,
        .segment_bytes = 4u << 20,
        .start = {SEED_LSN},
        .prior_end = {SEED_LSN - 64},
    };
    uint8_t header[WAL_SEGMENT_HEADER_BYTES];
    wal_segment_header_encode(&h, header);
    buffer_append(input_out, header, 64);
}

static void
seed_mark(struct buffer *input_out)
{
    struct wal_mark m = {
        .volume = {{1, 2, 3}},
        .sequence = 5,
        .epoch = SEED_EPOCH,
        .file_number = 7,
        .segment_bytes = 4u << 20,
        .start = {SEED_LSN},
        .end = {SEED_LSN + 8192},
    };
    uint8_t slot[WAL_MARK_SLOT_BYTES];
    wal_mark_encode(&m, slot);
    buffer_append(input_out, slot, 80);
}

bool
fuzz_seed(unsigned which, struct buffer *input_out)
{
    static const struct {
        enum mode mode;
        uint32_t changes;
        uint32_t payload;
        uint16_t offset;
    } seeds[] = {
        {MODE_PLAIN, 40, 0, 0},
        {MODE_PLAIN, 33, 4096, 0},
        {MODE_SEALED, 24, 5000, 4000},
        {MODE_SEALED, 300, 1, 4095},
        {MODE_FITTED, 16, 12288, 1},
        {MODE_FITTED, 0, 700, 512},
        {MODE_HEADER, 0, 0, 0},
        {MODE_SEALED_HEADER, 0, 0, 0},
        {MODE_MARK, 0, 0, 0},
        {MODE_SEALED_MARK, 0, 0, 0},
    };
    if (which >= ARRAY_LENGTH(seeds))
        return false;
    buffer_append_u8(input_out, (uint8_t)seeds[which].mode);
    if (seeds[which].mode >= MODE_MARK)
        seed_mark(input_out);
    else if (seeds[which].mode >= MODE_HEADER)
        seed_header(input_out);
    else
        seed_record(seeds[which].changes, seeds[which].payload, seeds[which].offset, input_out);
    return true;
}
