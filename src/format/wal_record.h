// SPDX-License-Identifier: Apache-2.0
// The bytes of the WAL: segment headers, records and the mark. Pure. Little-endian; prose in
// doc/format.md.
//
// A segment is a preallocated file. Its first 4 KiB are the segment header, which has the LSN of
// the file's first byte; the byte at LSN p of the segment lies at p - start_lsn in the file.
// Records follow each other from 4 KiB on, each at a multiple of 8, and never cross into the next
// segment; the next segment's header has the end of the last one (`prior_end`).
//
//     record  header (WAL_RECORD_HEADER bytes)
//             u32 CRC-32C of each payload piece
//             changes (format/change.h), padded with zeros to a multiple of 8
//             payload, padded with zeros to a multiple of 8
//
// The payload (the bytes of a CHANGE_WRITE) has pieces, cut at the page boundaries of the object,
// so that a reader can read back and verify each page by itself. The record's CRC covers header,
// piece checksums and changes; the pieces have their own.
//
// A record carries its own LSN and the segment's epoch, so that bytes of a recycled segment never
// pass for a record; and `durable`: the LSN up to which everything was on stable storage when the
// record was written. So recovery can tell a damaged record from a torn tail: if a valid record
// lies behind the damage and says that the damaged place had been durable, acknowledged data is
// lost, and recovery must refuse the log.
#ifndef CKPTFS_FORMAT_WAL_RECORD_H
#define CKPTFS_FORMAT_WAL_RECORD_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/types.h"

#define WAL_SEGMENT_HEADER_BYTES 4096u
#define WAL_RECORD_HEADER        64u
#define WAL_RECORD_ALIGN         8u
#define WAL_PAYLOAD_MAX          (1u << 20)
#define WAL_CHANGES_MAX          (256u << 10)
// The longest record.
#define WAL_RECORD_MAX                                                                             \
    (WAL_RECORD_HEADER + 4u * (WAL_PAYLOAD_MAX / PAGE_BYTES + 1) + WAL_CHANGES_MAX +               \
        WAL_PAYLOAD_MAX + 2u * WAL_RECORD_ALIGN + 8u)

struct wal_segment_header {
    struct uuid volume;
    bool has_mark;  // the log had a mark when it was written (version 2)
    uint32_t epoch; // above that of all segments that were there at the open
    uint64_t segment_bytes;
    struct lsn start;
    struct lsn prior_end; // end of the records of the segment before it
    // The storage root that began the segment, and its writer epoch then, 0 before it held one.
    // Segments of old programs do not have them.
    bool has_writer;
    struct uuid writer;
    uint64_t writer_epoch;
};

void wal_segment_header_encode(
    const struct wal_segment_header *h, uint8_t out[WAL_SEGMENT_HEADER_BYTES]);
// -EBADMSG, or -ENOTSUP for a newer version.
MUST_CHECK int wal_segment_header_decode(
    const uint8_t p[WAL_SEGMENT_HEADER_BYTES], struct wal_segment_header *h_out);

// The first block of a segment file that has never held a record. The writer overwrites it,
// durably, before it writes the first one; so recovery need not look for records behind it.
void wal_spare_header_encode(uint8_t out[WAL_SEGMENT_HEADER_BYTES]);
bool wal_is_spare_header(const uint8_t p[WAL_SEGMENT_HEADER_BYTES]);

// A lower bound of the log's end, in a file beside the segments, by which recovery notices that the
// newest segment is gone, or damage at the end of a closed log. Two slots, written in turn; each
// one is complete by itself, and none becomes false later.
#define WAL_MARK_SLOT_BYTES 4096u
#define WAL_MARK_SLOTS      2u
#define WAL_MARK_BYTES      (WAL_MARK_SLOT_BYTES * WAL_MARK_SLOTS)

struct wal_mark {
    struct uuid volume;
    uint64_t sequence;
    // Of the newest segment that has been begun; all 0 when there has been none.
    uint32_t epoch;
    uint32_t file_number;
    uint64_t segment_bytes;
    struct lsn start;
    struct lsn end; // all below it was on stable storage
};

void wal_mark_encode(const struct wal_mark *m, uint8_t out[WAL_MARK_SLOT_BYTES]);
// -EBADMSG, or -ENOTSUP for a newer version.
MUST_CHECK int wal_mark_decode(const uint8_t p[WAL_MARK_SLOT_BYTES], struct wal_mark *m_out);

struct wal_record_header {
    struct lsn lsn;
    struct lsn durable;
    uint32_t epoch;
    uint32_t length; // of the whole record, a multiple of WAL_RECORD_ALIGN
    uint32_t changes_length;
    uint32_t payload_length;
    uint16_t payload_page_offset; // where in its page the payload begins
};

// The number of pieces of a payload.
static inline uint32_t
wal_payload_pieces(uint32_t page_offset, uint32_t length)
{
    return length == 0 ? 0 : (page_offset + length + PAGE_BYTES - 1) / PAGE_BYTES;
}

// Offsets inside a record.
static inline uint32_t
wal_record_changes_offset(uint32_t pieces)
{
    return WAL_RECORD_HEADER + 4 * pieces;
}

static inline uint32_t
wal_align(uint32_t n)
{
    return (n + WAL_RECORD_ALIGN - 1) & ~(WAL_RECORD_ALIGN - 1);
}

static inline uint32_t
wal_record_payload_offset(uint32_t pieces, uint32_t changes_length)
{
    return wal_align(wal_record_changes_offset(pieces) + changes_length);
}

static inline uint32_t
wal_record_length(uint32_t page_offset, uint32_t changes_length, uint32_t payload_length)
{
    uint32_t pieces = wal_payload_pieces(page_offset, payload_length);
    return wal_align(wal_record_payload_offset(pieces, changes_length) + payload_length);
}

// Writes everything before the payload (header, piece checksums, changes, padding) to `out`, which
// has room for wal_record_payload_offset() bytes.
void wal_record_encode(const struct wal_record_header *h, const uint32_t *piece_crcs,
    const void *changes, uint8_t *out);

// Checks the record in the `n` bytes at `p`, payload pieces included, against the expected LSN and
// epoch (epoch 0: any). 0; -ENODATA when it is not a whole valid record (torn, stale, damaged,
// zeros).
MUST_CHECK int wal_record_decode(const uint8_t *p, size_t n, struct lsn expected, uint32_t epoch,
    struct wal_record_header *h_out);

#endif
