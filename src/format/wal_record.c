// SPDX-License-Identifier: Apache-2.0
#include "format/wal_record.h"

#include <errno.h>

#include "base/checksum.h"

// Segment header:
//     0  magic "CKPTWALS"     8  version u16, 10 reserved u16, 12 epoch u32
//    16  volume uuid         32  segment bytes u64   40 start u64   48 prior end u64
//    56  incompatible features u32 (none known)      60 CRC-32C of bytes 0 .. 59
//    64  writer uuid         80  writer epoch u64    88 CRC-32C of bytes 64 .. 87
//    92  zeros, not looked at
// Older programs wrote zeros from 64 on, and do not look there.
#define SEGMENT_MAGIC        "CKPTWALS"
#define SEGMENT_VERSION_BARE 1u // there was no mark
#define SEGMENT_VERSION      2u

void
wal_segment_header_encode(const struct wal_segment_header *h, uint8_t out[WAL_SEGMENT_HEADER_BYTES])
{
    memset(out, 0, WAL_SEGMENT_HEADER_BYTES);
    memcpy(out, SEGMENT_MAGIC, 8);
    put_le16(out + 8, h->has_mark ? SEGMENT_VERSION : SEGMENT_VERSION_BARE);
    put_le32(out + 12, h->epoch);
    memcpy(out + 16, h->volume.b, 16);
    put_le64(out + 32, h->segment_bytes);
    put_le64(out + 40, h->start.v);
    put_le64(out + 48, h->prior_end.v);
    put_le32(out + 60, crc32c(0, out, 60));
    if (!h->has_writer)
        return;
    memcpy(out + 64, h->writer.b, 16);
    put_le64(out + 80, h->writer_epoch);
    put_le32(out + 88, crc32c(0, out + 64, 24));
}

// Whether the bounds of a segment can be those of one.
static bool
is_segment_range(uint64_t start, uint64_t bytes)
{
    return bytes > WAL_SEGMENT_HEADER_BYTES && bytes % WAL_SEGMENT_HEADER_BYTES == 0 &&
           bytes <= (uint64_t)INT64_MAX / 2 && start % WAL_SEGMENT_HEADER_BYTES == 0 &&
           start <= (uint64_t)INT64_MAX / 2;
}

int
wal_segment_header_decode(
    const uint8_t p[WAL_SEGMENT_HEADER_BYTES], struct wal_segment_header *h_out)
{
    *h_out = (struct wal_segment_header){0};
    if (memcmp(p, SEGMENT_MAGIC, 8) != 0 || get_le32(p + 60) != crc32c(0, p, 60))
        return -EBADMSG;
    uint16_t version = get_le16(p + 8);
    if (version > SEGMENT_VERSION || get_le32(p + 56) != 0)
        return -ENOTSUP;
    if (version < SEGMENT_VERSION_BARE || get_le16(p + 10) != 0)
        return -EBADMSG;
    h_out->has_mark = version == SEGMENT_VERSION;
    h_out->epoch = get_le32(p + 12);
    memcpy(h_out->volume.b, p + 16, 16);
    h_out->segment_bytes = get_le64(p + 32);
    h_out->start.v = get_le64(p + 40);
    h_out->prior_end.v = get_le64(p + 48);
    if (!is_segment_range(h_out->start.v, h_out->segment_bytes) ||
        h_out->prior_end.v > h_out->start.v)
        return -EBADMSG;
    // Recovery does not depend on it: a copy that does not verify counts as missing.
    h_out->has_writer = get_le32(p + 88) == crc32c(0, p + 64, 24) && get_le32(p + 88) != 0;
    if (h_out->has_writer) {
        memcpy(h_out->writer.b, p + 64, 16);
        h_out->writer_epoch = get_le64(p + 80);
    }
    return 0;
}

// Spare header:
//     0  magic "CKPTWALF"     8  version u16, 10 reserved u16, 12 CRC-32C of bytes 0 .. 11
//    16  zeros, not looked at
// One of another version is no spare header: then the file is searched for records.
#define SPARE_MAGIC   "CKPTWALF"
#define SPARE_VERSION 1u

void
wal_spare_header_encode(uint8_t out[WAL_SEGMENT_HEADER_BYTES])
{
    memset(out, 0, WAL_SEGMENT_HEADER_BYTES);
    memcpy(out, SPARE_MAGIC, 8);
    put_le16(out + 8, SPARE_VERSION);
    put_le32(out + 12, crc32c(0, out, 12));
}

bool
wal_is_spare_header(const uint8_t p[WAL_SEGMENT_HEADER_BYTES])
{
    uint8_t spare[WAL_SEGMENT_HEADER_BYTES];
    wal_spare_header_encode(spare);
    return memcmp(p, spare, 16) == 0;
}

// Mark slot:
//     0  magic "CKPTWALM"     8  version u16, 10 reserved u16, 12 epoch u32
//    16  volume uuid         32  sequence u64         40 start u64   48 segment bytes u64
//    56  end u64             64  file number u32      68 incompatible features u32 (none known)
//    72  CRC-32C of bytes 0 .. 71                     76 zeros, not looked at
#define MARK_MAGIC   "CKPTWALM"
#define MARK_VERSION 1u

void
wal_mark_encode(const struct wal_mark *m, uint8_t out[WAL_MARK_SLOT_BYTES])
{
    memset(out, 0, WAL_MARK_SLOT_BYTES);
    memcpy(out, MARK_MAGIC, 8);
    put_le16(out + 8, MARK_VERSION);
    put_le32(out + 12, m->epoch);
    memcpy(out + 16, m->volume.b, 16);
    put_le64(out + 32, m->sequence);
    put_le64(out + 40, m->start.v);
    put_le64(out + 48, m->segment_bytes);
    put_le64(out + 56, m->end.v);
    put_le32(out + 64, m->file_number);
    put_le32(out + 72, crc32c(0, out, 72));
}

static bool
mark_holds_together(const struct wal_mark *m)
{
    if (m->segment_bytes == 0)
        return m->start.v == 0 && m->end.v == 0 && m->epoch == 0 && m->file_number == 0;
    return is_segment_range(m->start.v, m->segment_bytes) &&
           m->end.v >= m->start.v + WAL_SEGMENT_HEADER_BYTES &&
           m->end.v <= m->start.v + m->segment_bytes;
}

int
wal_mark_decode(const uint8_t p[WAL_MARK_SLOT_BYTES], struct wal_mark *m_out)
{
    *m_out = (struct wal_mark){0};
    if (memcmp(p, MARK_MAGIC, 8) != 0 || get_le32(p + 72) != crc32c(0, p, 72))
        return -EBADMSG;
    if (get_le16(p + 8) != MARK_VERSION || get_le32(p + 68) != 0)
        return -ENOTSUP;
    struct wal_mark m = {
        .sequence = get_le64(p + 32),
        .epoch = get_le32(p + 12),
        .file_number = get_le32(p + 64),
        .segment_bytes = get_le64(p + 48),
        .start = {get_le64(p + 40)},
        .end = {get_le64(p + 56)},
    };
    memcpy(m.volume.b, p + 16, 16);
    if (get_le16(p + 10) != 0 || !mark_holds_together(&m))
        return -EBADMSG;
    *m_out = m;
    return 0;
}

// Record header:
//     0  CRC-32C of bytes 4 .. end of the changes     4  length u32
//     8  LSN u64                                      16 durable LSN u64
//    24  epoch u32            28 changes length u32   32 payload length u32
//    36  page offset u16      38 reserved             (26 bytes, zero)
void
wal_record_encode(const struct wal_record_header *h, const uint32_t *piece_crcs,
    const void *changes, uint8_t *out)
{
    uint32_t pieces = wal_payload_pieces(h->payload_page_offset, h->payload_length);
    uint32_t changes_at = wal_record_changes_offset(pieces);
    uint32_t payload_at = wal_record_payload_offset(pieces, h->changes_length);
    memset(out, 0, WAL_RECORD_HEADER);
    put_le32(out + 4, h->length);
    put_le64(out + 8, h->lsn.v);
    put_le64(out + 16, h->durable.v);
    put_le32(out + 24, h->epoch);
    put_le32(out + 28, h->changes_length);
    put_le32(out + 32, h->payload_length);
    put_le16(out + 36, h->payload_page_offset);
    for (uint32_t i = 0; i < pieces; i++)
        put_le32(out + WAL_RECORD_HEADER + 4 * i, piece_crcs[i]);
    if (h->changes_length > 0)
        memcpy(out + changes_at, changes, h->changes_length);
    memset(out + changes_at + h->changes_length, 0, payload_at - changes_at - h->changes_length);
    put_le32(out, crc32c(0, out + 4, changes_at + h->changes_length - 4));
}

static bool
header_holds_together(const struct wal_record_header *h, const uint8_t *p)
{
    static const uint8_t reserved[WAL_RECORD_HEADER - 38];
    return memcmp(p + 38, reserved, sizeof(reserved)) == 0 && h->durable.v <= h->lsn.v &&
           h->payload_length <= WAL_PAYLOAD_MAX && h->changes_length <= WAL_CHANGES_MAX &&
           h->payload_page_offset < PAGE_BYTES &&
           h->length ==
               wal_record_length(h->payload_page_offset, h->changes_length, h->payload_length);
}

static bool
pieces_are_intact(const struct wal_record_header *h, const uint8_t *p)
{
    uint32_t pieces = wal_payload_pieces(h->payload_page_offset, h->payload_length);
    const uint8_t *payload = p + wal_record_payload_offset(pieces, h->changes_length);
    uint32_t done = 0;
    uint32_t in_page = h->payload_page_offset;
    for (uint32_t i = 0; i < pieces; i++) {
        uint32_t n = PAGE_BYTES - in_page;
        if (n > h->payload_length - done)
            n = h->payload_length - done;
        if (crc32c(0, payload + done, n) != get_le32(p + WAL_RECORD_HEADER + 4 * i))
            return false;
        done += n;
        in_page = 0;
    }
    return true;
}

int
wal_record_decode(const uint8_t *p, size_t n, struct lsn expected, uint32_t epoch,
    struct wal_record_header *h_out)
{
    *h_out = (struct wal_record_header){0};
    if (n < WAL_RECORD_HEADER || get_le64(p + 8) != expected.v)
        return -ENODATA;
    struct wal_record_header h = {
        .lsn = {get_le64(p + 8)},
        .durable = {get_le64(p + 16)},
        .epoch = get_le32(p + 24),
        .length = get_le32(p + 4),
        .changes_length = get_le32(p + 28),
        .payload_length = get_le32(p + 32),
        .payload_page_offset = get_le16(p + 36),
    };
    if ((epoch != 0 && h.epoch != epoch) || !header_holds_together(&h, p) || h.length > n)
        return -ENODATA;
    uint32_t pieces = wal_payload_pieces(h.payload_page_offset, h.payload_length);
    uint32_t covered = wal_record_changes_offset(pieces) + h.changes_length;
    if (get_le32(p) != crc32c(0, p + 4, covered - 4) || !pieces_are_intact(&h, p))
        return -ENODATA;
    *h_out = h;
    return 0;
}
