// SPDX-License-Identifier: Apache-2.0
// Destroying a volume: everything that the volume has in the bucket goes, and nothing else. The
// first step is the mark, a record of the kind DESTROY at the end of the chain: from then on no
// host mounts the volume, forks it or publishes to it. The mark goes last, so that the same call
// finishes the work of a process that died (doc/retention.md, Destroying).
//
// A fork, a reader's pin or a lease keeps the volume from being destroyed.
#ifndef CKPTFS_REMOTE_REMOTE_DESTROY_H
#define CKPTFS_REMOTE_REMOTE_DESTROY_H

#include "remote/remote_retention.h"

enum remote_destroy_stage {
    DESTROY_BLOBS,
    DESTROY_SNAPSHOTS,
    DESTROY_PINS,
    DESTROY_CATALOGS,
    DESTROY_LEASES,
    DESTROY_HINTS,
    DESTROY_RECORDS,
    DESTROY_STAGES,
};
const char *remote_destroy_stage_name(enum remote_destroy_stage stage);

struct remote_destroyed {
    uint64_t objects[DESTROY_STAGES]; // deleted by this run
    uint64_t bytes;                   // of them
    bool marked;                      // the volume has its mark, of this or an earlier run
};

// Is called after each batch; anything but 0 ends the run and is its result.
typedef int remote_destroy_progress(
    void *argument, enum remote_destroy_stage stage, const struct remote_destroyed *done);

struct remote_destroy_options {
    uint64_t reader_pin_ms; // an older pin of a reader is one that was left behind
    uint64_t fork_pin_ms;   // so is an older pin of a fork that does not exist
    bool takeover;          // leases do not count
    // Not NULL: only if the volume has this id and never had a generation, and has been like that
    // for `unfinished_ms`, else -EEXIST. The pins in the parent stay, for the caller to delete.
    const struct uuid *unfinished;
    uint64_t unfinished_ms;
    remote_destroy_progress *progress; // or NULL
    void *argument;
};

// Looks for forks, readers and leases, marks the volume, looks again, and deletes.
//
// -EBUSY: something needs it, and nothing is deleted. `holders_out` has a line for each fork, for
// each reader's pin that was not left behind, and for each lease that is not released and has not
// run out. Once the volume is marked, only those pins count that are not younger than the mark.
// -ENOENT: there is no volume; -ESTALE: another host wrote to the chain meanwhile: begin again.
// After any other error the same call goes on.
MUST_CHECK int remote_manifest_destroy(const struct remote_place *place,
    const struct remote_destroy_options *options, struct buffer *holders_out,
    struct remote_destroyed *destroyed_out);

#endif
