// SPDX-License-Identifier: Apache-2.0
// CheckpointGC: expires generations that the policy does not keep, and deletes the blobs that only
// they needed, in two phases (doc/retention.md). One run does all steps that are due now; it keeps
// its state in the manifest and the bucket only. For the owner of a volume; one run at a time a db,
// in a thread that may wait for the store.
#ifndef CKPTFS_RETENTION_COLLECT_H
#define CKPTFS_RETENTION_COLLECT_H

#include "remote/remote_retention.h"
#include "retention/retention_policy.h"

// A run takes a reader that has not renewed its pin for this long for dead.
#define READER_PIN_MS ((uint64_t)3600 * 1000)
// Records that keep stalled writers away stay this long.
#define FENCE_MS ((uint64_t)30 * 24 * 3600 * 1000)
// Nothing in the bucket is an orphan before it is this old.
#define ORPHAN_MS ((uint64_t)24 * 3600 * 1000)

enum collect_flags {
    COLLECT_PRUNE = 1 << 0,   // also records, catalogs and leases
    COLLECT_SWEEP = 1 << 1,   // also orphaned objects, and pins of what was never finished
    COLLECT_DRY_RUN = 1 << 2, // tells and deletes nothing
};

enum collect_event_kind {
    COLLECT_EXPIRE,     // the policy does not keep the generation
    COLLECT_BRING_BACK, // it had expired, and a pin from before is there
    COLLECT_FREE,       // the generation's grace is over: the blobs of it alone go
    COLLECT_BLOB,       // a blob goes; generation: the last one that needed it
};

struct collect_event {
    enum collect_event_kind kind;
    const struct generation_record *generation; // NULL: no generation ever needed the blob
    const struct blob_record *blob;             // COLLECT_BLOB
};

struct collect_options {
    const struct remote_place *place;
    struct manifest *manifest;
    struct db_id db;
    unsigned flags;
    uint64_t now_ms; // by the server's clock; 0: ask the server
    // Calls remote_manifest_tell between publications; NULL: the process never publishes.
    int (*tell)(void *argument, const struct change *changes, size_t count, uint64_t lowest);
    // Gets each step of the run; may be NULL.
    void (*event)(void *argument, const struct collect_event *event);
    void *argument;
    struct generation scanned; // result of the run before: no dead blob up to here is unneeded
    bool unsure;               // result of the run before in this process
};

struct collect_result {
    uint64_t retained, expired; // generations, after the run
    uint64_t expired_now, brought_back, freed;
    uint64_t pins;
    uint64_t blobs, blob_bytes; // deleted
    struct remote_pruned pruned;
    struct remote_orphans orphans;
    uint64_t unfinished; // pins of snapshots and forks that were never finished, deleted
    struct generation scanned;
    bool unsure;          // whether the run's record was created is not known
    uint64_t now_ms;      // by the server's clock, when the run began
    uint64_t next_due_ms; // when a run has more to do, because a grace is over; 0: never
};

// The policy of a volume. A volume of an old program has none: then the result keeps everything.
MUST_CHECK int collect_policy(
    struct manifest_reader *r, struct db_id db, struct retention_policy *policy_out);

// 0; -ESTALE when another host has taken the volume; -ECANCELED by place->call; or the store's
// error, with its cause in remote_store_error(). After a failed run the next one goes on with the
// rest.
MUST_CHECK int collect_run(
    const struct collect_options *options, struct collect_result *result_out);

#endif
