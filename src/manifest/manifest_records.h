// SPDX-License-Identifier: Apache-2.0
// The records that only a storage root has, as structs; format/records.h has those that are in the
// bucket, too. manifest/manifest_schema.h has their layout in the tables.
#ifndef CKPTFS_MANIFEST_MANIFEST_RECORDS_H
#define CKPTFS_MANIFEST_MANIFEST_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/types.h"
#include "format/records.h"

enum db_state {
    DB_STATE_IMPORTING = 1, // being filled from the bucket; worthless until ready
    DB_STATE_READY = 2,
};

// The record of a db (`db`, `wal_state` and `generation_watermarks` tables).
struct db_record {
    struct db_id id;
    enum db_state state;
    char place[1024]; // store_url_place(), NUL-terminated
    char tenant[65];
    uint32_t volume_number; // {db} in the bucket: 1 is the tenant's first volume, forks count on
    struct uuid volume;
    struct uuid name_key;
    struct db_counters counters; // as of the local generation
    struct generation local;     // folded out of the WAL; the tables show this state
    struct generation published; // in the bucket
    struct generation next;      // the next generation number to give out
    struct lsn cut;              // the WAL is needed from here on
    struct lsn log_end;     // up to here it was durable when the cut was recorded; 0: not known
    uint64_t local_time_ms; // wall clock of the local cut
    struct uuid local_checkpoint; // the id that the local generation is published under; zero when
                                  // it has none yet
    uint64_t published_time_ms;   // wall clock of the published generation's cut
    uint64_t epoch;               // writer epoch this root holds or held; 0: never
    uint64_t remote_sequence;     // newest record of the chain this root has seen and applied
    struct sha256 remote_hash;    // its SHA-256
    uint64_t catalog_sequence;    // newest catalog this root knows of
    uint64_t catalog_bytes;       // and its size
    uint64_t bytes_since_catalog; // records after it
    uint64_t lowest_sequence;     // records below it may be missing in the bucket; 0: none may
    bool fenced;                  // another writer took the volume
};

// A blob whose death the chain has told, and whose object may still be in the store. `blob` has
// neither residency nor references.
struct dead_blob {
    struct blob_record blob;
    uint64_t told; // sequence of the record that told the death
};

// Features that an operator can turn off and on for a db while it is mounted.
enum db_flag {
    DB_FLAG_APPEND_ONLY_TRUNCATION = 1u << 0, // enable_append_only_truncation
    DB_FLAG_COLD_SCAN = 1u << 1,              // enable_cold_scan
    DB_FLAG_COLD_SCAN_ALL = 1u << 2,          // cold_scan_all: every file is read so
    DB_FLAG_CHECKPOINTS = 1u << 3,            // enable_checkpoints: by the timer
    DB_FLAG_CHUNK_DELTAS = 1u << 4,           // enable_chunk_deltas
};
#define DB_FLAGS_ALL     31u
#define DB_FLAGS_DEFAULT (DB_FLAGS_ALL & ~(unsigned)DB_FLAG_COLD_SCAN_ALL) // of a new db

// Numbers of entries of a db, and bytes of its blobs.
struct db_totals {
    uint64_t inodes, chunks, deltas, blobs, blob_bytes, unpublished_blobs, unpublished_bytes;
};

// Jobs (`job_queue`). Fixed text fields are NUL-terminated.
enum job_kind {
    JOB_CREATE_CHECKPOINT = 1,
    JOB_VERIFY_MANIFEST = 2,
    JOB_DOWNLOAD_CHECKPOINT = 3,
    JOB_PRUNE_CHECKPOINT = 4,
    JOB_TRUNCATE_APPEND_ONLY = 5,
    JOB_SWEEP_ORPHANS = 6,
    JOB_DETACH_FORK = 7,
    JOB_MERGE_CHUNKS = 8,
    JOB_HYDRATE_FILES = 9,
};

#define JOB_KEY_BYTES_MAX       32u
#define JOB_PAYLOAD_BYTES_MAX   65536u
#define JOB_MARKER_BYTES_MAX    256u
#define JOB_EXTENSION_BYTES_MAX 1024u

enum job_state { JOB_PENDING = 1, JOB_IN_FLIGHT = 2, JOB_COMPLETED = 3, JOB_FAILED = 4 };

struct job_record {
    uint64_t id; // given by manifest_batch_put_job when 0
    enum job_kind kind;
    enum job_state state;
    struct uuid token; // idempotency
    struct uuid checkpoint_id;
    struct generation generation;
    struct lsn cut;
    uint64_t created_ms, updated_ms;
    uint64_t lease_expires_ms;
    uint64_t done, total; // progress: blobs uploaded of blobs to upload
    int32_t error;        // of a failed job, negative errno
    bool retryable;
    char stage[24];
    char cause[160]; // with an error its reason; else what the last run has done
    // Parts of the kind (jobs/job_kinds.h): a key that at most one unfinished job may have, and
    // parameters with their version. `payload` of a job that was read points into the map.
    uint8_t key_length;
    uint8_t key[JOB_KEY_BYTES_MAX];
    uint16_t payload_version;
    uint32_t payload_length;
    const uint8_t *payload;
    uint32_t tries;         // runs that were begun
    uint64_t not_before_ms; // wall clock: a failed try is repeated from then on; 0: at once
    uint8_t priority;       // the highest goes first
    bool cancel_wanted;     // a user asked to cancel it: it does not run again
    // Of the kind's own: how far it has come, for a run that goes on with it.
    uint16_t marker_length;
    uint8_t marker[JOB_MARKER_BYTES_MAX];
    // Items of later programs about a job (format/extension.h). `extension` of a job that was read
    // lies in the map.
    uint16_t extension_length;
    const uint8_t *extension;
};

// A subscriber of the change log: it has seen all records up to `sequence`.
#define CHANGE_CURSOR_NAME_BYTES 48u
struct change_cursor {
    char name[CHANGE_CURSOR_NAME_BYTES]; // NUL-terminated, not empty
    uint64_t sequence;
    uint64_t updated_ms; // wall clock
};

// Why a checkpoint in flight was given up (CancelCheckpoint).
enum cancel_reason {
    CANCEL_TRUNCATION_CONFLICT = 1, // a truncation waited for the checkpoint's chunks
    CANCEL_USER_REQUESTED = 2,
    CANCEL_TIMEOUT = 3, // its leases on chunks ran out
};

// The note of a batch for subscribers, beside the counts of its operations.
enum manifest_note_kind {
    MANIFEST_NOTE_NONE = 0,
    MANIFEST_NOTE_CANCEL_CHECKPOINT = 1, // compensates the job's PutJob
    MANIFEST_NOTE_TRUNCATE = 2,          // the batch removes the chunks outside the new window
};
struct manifest_note {
    enum manifest_note_kind kind;
    enum cancel_reason reason;         // CANCEL_CHECKPOINT
    uint64_t job;                      // the job that was cancelled, or that truncated
    struct object_id object;           // TRUNCATE
    uint64_t window_begin, window_end; // TRUNCATE: bytes of the object that may have data
};

// ManifestChangeRecord: a summary of one batch. Only publications name blobs, so that a reader of
// the feed finds them in the store.
struct manifest_change_record {
    uint64_t sequence; // ChangeSequence
    struct db_id db;
    uint64_t wall_ms;
    struct generation local, published;               // after the batch
    uint32_t inodes, dirents, xattrs, chunks, deltas; // how many operations of each
    uint32_t blob_count;
    const uint8_t *blobs; // blob_count SHA-256s, in the map
    struct manifest_note note;
};

#endif
