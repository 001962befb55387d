// SPDX-License-Identifier: Apache-2.0
// The write-ahead log: the only point of acknowledgement. Records get their LSN in the order of
// wal_begin. wal_fill copies them into a ring in memory. One thread at a time writes them (the
// flusher, or the first thread that asks for durability): it makes a whole batch durable with one
// write into preallocated, zero-filled, recycled segments and then answers all that waited (group
// commit). Layout in format/wal_record.h.
//
// Life of a record, and the function that moves it on:
//
//     reserved  wal_reserve: any thread, may wait. Room in ring and segments is kept for it
//     begun     wal_begin: under the caller's ordering lock. It has an LSN
//     filled    wal_fill. Its bytes are in the ring
//     flushed   the writing thread. It is on stable storage; waiters get their answer
//     released  wal_release. A local generation holds it; its segment may be recycled
//
// Invariants
//     release <= flushed <= filled <= append; ring holds [flushed, append)
//     a segment is durable up to its last record before the next segment's header is written, and
//     the header is durable before the mark names the segment, and that before its first record is
//     written
//     the LSN of a record that was acknowledged or recovered is never used again
// After a failed write or flush the log is dead: it accepts and acknowledges nothing more.
#ifndef CKPTFS_WAL_WAL_H
#define CKPTFS_WAL_WAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/list.h"
#include "base/types.h"
#include "format/wal_record.h"
#include "platform/file.h"
#include "platform/flush_pace.h"
#include "quota/storage_quota.h"

struct wal;

struct wal_options {
    const struct file_ops *ops;
    const char *directory; // exists
    struct uuid volume;
    struct uuid writer;     // manifest_root_id()
    uint64_t writer_epoch;  // of this root now or last; 0: none
    uint64_t limit_bytes;   // of all segments together
    uint64_t segment_bytes; // 0: limit / 64, but limit / 8 up to 8 MiB; 4 to 64 MiB
    uint64_t ring_bytes;    // 0: a quarter of the limit; 8 MiB to two segments
    // wal_sync may flush in the calling thread when no other thread does: that saves waking the
    // flusher. For callers that have other threads for further work.
    bool callers_flush;
    struct flush_pace *pace; // learns of commits; new segments wait for their turn there. Or NULL
    // Up to here the log was durable when the cut was recorded (wal_reach). 0: not known.
    struct lsn reached;
    struct storage_quota *quota; // of segments; or NULL
};

// A replayed record. `payload` holds the bytes of the CHANGE_WRITE among the changes and begins at
// `payload_lsn` in the log. Its pieces have been compared with `piece_crcs` (one le32 for each).
struct wal_replayed {
    struct wal *wal; // for wal_read of earlier records while replaying
    struct lsn lsn;
    struct lsn end;
    const uint8_t *changes;
    uint32_t changes_length;
    const uint8_t *payload;
    uint32_t payload_length;
    struct lsn payload_lsn;
    uint32_t payload_page_offset;
    const uint8_t *piece_crcs;
};
typedef int wal_replay(void *argument, const struct wal_replayed *record);

// Opens the log, replays every record from `cut` on through `replay` (one thread, before this
// returns), and starts its threads. -EBADMSG when acknowledged records are damaged, or when the log
// ends below options->reached: `error` gets the text, and the disk is unchanged. A replay's error
// ends the open, which returns it.
MUST_CHECK int wal_open(const struct wal_options *options, struct lsn cut, wal_replay *replay,
    void *argument, struct wal **wal_out, struct buffer *error);
// The epoch that segments begun from now on carry. Any thread.
void wal_set_writer_epoch(struct wal *w, uint64_t epoch);
// Flushes, stops the threads, frees `w`. 0 or the errno the log died of.
int wal_close(struct wal *w);

// The most segment files, each of them open, of a log with this limit.
uint64_t wal_segments_of(uint64_t limit_bytes);

// A lower bound of the end of the log in `directory`, by its mark, without opening it: 0, -ENOENT
// when there is none, -EBADMSG when the mark is damaged or another volume's, or an error of
// reading.
MUST_CHECK int wal_peek(const char *directory, const struct uuid *volume, struct lsn *end_out);

// A summary of the segments' headers in a directory, without opening the log.
struct wal_survey {
    unsigned segments; // files
    bool has_volume;   // some header is valid; then from the newest one:
    struct uuid volume;
    bool has_writer; // false for segments of old programs
    struct uuid writer;
    struct lsn oldest; // of that volume's segments: where the oldest begins
    struct lsn newest; // and where the newest one begins
};
// A directory that is missing has no segments.
MUST_CHECK int wal_survey(const char *directory, struct wal_survey *survey_out);
// Checks that wal_open would find every record from the cut on in order, and that the log reaches
// back to the cut; changes nothing. 0 and the end of the last record (the cut when there is none),
// or -EBADMSG and a text, or an error of reading.
MUST_CHECK int wal_verify(
    const struct wal_options *options, struct lsn cut, struct lsn *end_out, struct buffer *error);

// ---- appending ----------------------------------------------------------------------------------

// Keeps room for one record of up to `bytes`. Waits for flushes and releases until `deadline_ms`
// (monotonic), in the order of the calls. 0; -ENOSPC when there was no room until then; -EROFS when
// the log is dead. Hold no locks.
MUST_CHECK int wal_reserve(struct wal *w, uint32_t bytes, uint64_t deadline_ms);
// The same for a caller that tries again after -ENOSPC: `turn`, 0 at first, keeps its place in the
// order.
MUST_CHECK int wal_reserve_in_turn(
    struct wal *w, uint32_t bytes, uint64_t deadline_ms, uint64_t *turn);
// The same for a record without data, which may make room in the end, when the quota has no room
// for data: waits for nothing, and passes threads that wait for that. 0, -ENOSPC or -EROFS.
MUST_CHECK int wal_reserve_past_quota(struct wal *w, uint32_t bytes);
// Gives back a reservation that was not used.
void wal_unreserve(struct wal *w, uint32_t bytes);

// A record between begin and fill; lives on the caller's stack.
struct wal_slot {
    struct list_node node;
    struct lsn lsn;
    struct lsn durable;
    uint32_t epoch;
    uint32_t length;
    bool filled;
};

// Assigns the next LSN to a record of exactly `length` bytes (wal_record_length()), using up a
// reservation of `reserved` >= length. Never waits, never fails.
void wal_begin(struct wal *w, uint32_t reserved, uint32_t length, struct wal_slot *slot_out);
// Copies the record into the ring. Every begun slot must be filled, soon: the flusher waits for it.
void wal_fill(struct wal *w, struct wal_slot *slot, uint32_t payload_page_offset,
    const void *changes, uint32_t changes_length, const uint8_t *payload, uint32_t payload_length,
    const uint32_t *piece_crcs);
// The LSN of a begun record's payload.
struct lsn wal_payload_lsn(const struct wal_slot *slot, uint32_t payload_page_offset,
    uint32_t changes_length, uint32_t payload_length);

// ---- durability ---------------------------------------------------------------------------------

// Whether the newest segment has lost its name: writes to it would be lost.
bool wal_is_removed(struct wal *w);

typedef void wal_synced(void *argument, int result);
// Calls `done` once everything begun so far is durable: at once if it is, else from the flusher
// thread or (`callers_flush`) from a thread that is in wal_sync, which may be this one and which
// then goes on writing as long as other threads wait. `result` is 0 or -EIO. Hold no locks.
void wal_sync(struct wal *w, wal_synced *done, void *argument);
// The same, waiting.
MUST_CHECK int wal_sync_wait(struct wal *w);
// Waits until all records below `cut`, which is not above the append position, are durable, and
// tells where the last of them ends. If the caller records that end with the cut, wal_open can
// later tell that a log which ends before it has lost its end. -EIO: the log died before.
MUST_CHECK int wal_reach(struct wal *w, struct lsn cut, struct lsn *end_out);

// Sets the disk to work on this (filled) record without making it durable, when it has at least
// WAL_START_BYTES and all before it is durable: then a sync is likely to follow, as it did before,
// and has less to wait for. An error makes the log dead, as in a flush. Hold no locks.
#define WAL_START_BYTES (256u << 10)
void wal_start_writing(struct wal *w, const struct wal_slot *slot);

// Hands everything up to the end of this (filled) record to the kernel, without waiting for the
// disk: it then outlives this process, though not the machine. Meant for changes that programs take
// for commit points without syncing them (unlink, rename, truncate). -EIO when the log is dead.
MUST_CHECK int wal_spill(struct wal *w, const struct wal_slot *slot);

// ---- reading back and releasing -----------------------------------------------------------------

// Reads the bytes [at, at + n) of the log from ring or segment; waits for begun records to be
// filled. The caller verifies them. -ESTALE when they have been released.
MUST_CHECK int wal_read(struct wal *w, struct lsn at, void *p, uint32_t n);

// Reads `n` bytes and checks them against their CRC-32C. -EIO when they do not match.
MUST_CHECK int wal_read_verified(struct wal *w, struct lsn at, uint32_t crc, void *p, uint32_t n);

// A local generation has everything below `cut`: segments below it may be recycled.
void wal_release(struct wal *w, struct lsn cut);

// Another limit for the segments together, but not for their size; three there may always be. Those
// that are in use stay until they are released.
void wal_set_limit(struct wal *w, uint64_t limit_bytes);

struct wal_numbers {
    struct lsn append;  // where the next record goes
    struct lsn flushed; // durable below this
    struct lsn released;
    uint64_t retained_bytes; // append - released
    uint64_t limit_bytes;
    uint64_t disk_bytes; // of all segment files
    uint64_t segment_bytes;
    uint64_t syncs;   // answered
    uint64_t flushes; // durable writes
    int failed;       // 0 or the errno the log died of
    unsigned waiting; // threads that wait for room
    bool starved;     // they do, and only a release can make room
    int spare_error;  // 0, or the error of the last new segment; the preparer tries again
    bool quota_full;  // the log must be in a checkpoint before more segments are used
};
void wal_numbers(struct wal *w, struct wal_numbers *numbers_out);

// Asserts the invariants of segments, slots and waiters. Any thread.
void wal_check(struct wal *w);

#endif
