// SPDX-License-Identifier: Apache-2.0
#ifndef CKPTFS_WAL_WAL_INTERNAL_H
#define CKPTFS_WAL_WAL_INTERNAL_H

#include "platform/lock.h"
#include "platform/thread.h"
#include "wal/wal.h"

// Segment states: PREPARING (the preparer zero-fills it) -> SPARE (ready) -> LIVE (holds records;
// the one with the highest start is being appended to) -> SPARE again after release, or removed
// when its size is not the present one or there are more than the limit allows.
struct wal_segment {
    struct list_node node; // in w->live, in order of start, or in w->spares
    int fd;
    uint32_t file_number;
    uint64_t bytes;
    uint32_t epoch; // in its header and its records
    struct lsn start;
    struct lsn prior_end;
    struct lsn end;      // of its last record, once the next segment has begun
    struct lsn spilled;  // handed to the kernel below this, without a flush
    bool header_written; // flusher
    unsigned readers;    // wal_read in progress: must not be recycled
};

struct wal_waiter {
    struct list_node node;
    struct lsn target;
    wal_synced *done;
    void *argument;
};

struct wal {
    const struct file_ops *ops;
    char *directory;
    struct uuid volume;
    struct uuid writer;
    _Atomic uint64_t writer_epoch;
    uint32_t epoch; // of the segments that are begun from now on
    uint64_t limit_bytes;
    uint64_t segment_bytes;
    uint32_t segments_max;
    int mark_fd;
    struct lsn reached;   // options->reached
    struct wal_mark mark; // as written last; belongs to the writing thread
    bool callers_flush;
    struct flush_pace *pace;
    struct storage_quota *quota;

    struct lock lock;         // "wal": protects everything below
    struct condition work;    // flusher: something to write, or stop
    struct condition prepare; // preparer: a spare is wanted, or stop
    struct condition room;    // reservers: ring or segment space appeared, or the log died

    uint8_t *ring;
    uint64_t ring_bytes;
    struct lsn append;
    struct lsn flushed;
    struct lsn started; // above flushed: in its segment, on its way to the disk below this
    bool flushing;      // a thread writes a batch; after it, that thread looks for waiters
    struct lsn released;
    struct lsn last_end;        // of the newest record, for the next segment's prior_end
    struct list_node slots;     // begun, not filled, in order of LSN
    struct list_node waiters;   // in order of target
    uint64_t reserved;          // bytes promised by wal_reserve
    unsigned reserving;         // threads that wait for room
    struct list_node reservers; // the same, in order of their turns
    uint64_t turns;             // given out
    uint32_t spares_wanted;     // the preparer keeps this many ready while the limit allows
    uint64_t prepare_at;        // it makes the first one when the log has reached this
    int spare_error;            // of the last new segment; 0: it was made

    struct list_node live;
    struct list_node spares;
    uint32_t segment_count; // files that exist or are being made
    uint32_t next_file_number;

    uint64_t syncs;
    uint64_t flushes;
    int failed;
    bool stopping;
    bool preparer_stopping;

    struct thread flusher;
    struct thread preparer;
};

// wal_segment.c
struct wal_segment *wal_segment_new(int fd, uint32_t file_number, uint64_t bytes);
void wal_segment_free(struct wal_segment *s);
char *wal_segment_path(const struct wal *w, uint32_t file_number);
// Makes a zero-filled file of w->segment_bytes and makes its name durable. `least`: the log cannot
// do without it. -EDQUOT, not logged, when the quota has no room.
MUST_CHECK int wal_segment_create(
    struct wal *w, uint32_t file_number, bool least, struct wal_segment **out);
void wal_segment_remove(struct wal *w, struct wal_segment *s);

// wal_mark.c
enum wal_mark_state {
    WAL_MARK_MISSING, // or it is another volume's
    WAL_MARK_FOUND,   // and put into w->mark
    WAL_MARK_WAIVED,  // an operator wants the segments taken as they are
};
char *wal_mark_path(const struct wal *w);
// -EBADMSG when it is damaged, -ENOTSUP when it is of a newer version. Changes nothing.
MUST_CHECK int wal_mark_load(struct wal *w, enum wal_mark_state *state_out);
// Replaces the file by a durable mark without a segment.
MUST_CHECK int wal_mark_create(struct wal *w);
// Notes durably that segment `s`, the newest, has been begun, and that the log reaches `end`.
MUST_CHECK int wal_mark_advance(struct wal *w, const struct wal_segment *s, struct lsn end);

// wal_room.c
// The segment that is being appended to, or NULL.
struct wal_segment *wal_newest_locked(const struct wal *w);
uint32_t wal_spares_locked(const struct wal *w);
// Whether threads wait for room that only a release can make: no further segment is allowed.
bool wal_is_starved_locked(const struct wal *w);

// wal_check.c
void wal_check_locked(const struct wal *w);

// wal.c: turns unneeded segments into spares; collects surplus ones, which wal_remove_segments
// removes without the lock. A segment that the flusher still uses stays, even when it is released:
// it goes after the flush.
void wal_recycle_locked(struct wal *w, struct list_node *removed);
void wal_remove_segments(struct wal *w, struct list_node *removed);

// wal_recover.c: fills live and spares, replays, sets append and flushed to the place where the log
// goes on, and the epoch and the mark.
MUST_CHECK int wal_recover(
    struct wal *w, struct lsn cut, wal_replay *replay, void *argument, struct buffer *error);

// wal_recover.c: checks the log as wal_recover does, and changes nothing.
MUST_CHECK int wal_look(struct wal *w, struct lsn cut, struct lsn *end_out, struct buffer *error);

// wal_group_commit.c
// Everything below this has been filled.
struct lsn wal_filled_locked(const struct wal *w);
void wal_flusher_run(void *argument);

#endif
