// SPDX-License-Identifier: Apache-2.0
// Detaching a fork: the blobs that still lie in its parent's part of the store are copied into its
// own, and a generation names the copies. For tools that hold the volume's state in a manifest of
// their own and have claimed the volume.
#ifndef CKPTFS_RETENTION_DETACH_H
#define CKPTFS_RETENTION_DETACH_H

#include "remote/remote_retention.h"

struct detach_counts {
    uint64_t blobs, bytes;         // that the newest generation has in other volumes' places
    uint64_t copied, copied_bytes; // by this run; an earlier one has copied the others
};

struct detach_options {
    const struct remote_place *place;
    struct manifest *manifest;
    struct db_id db;
    struct sha256 from; // an earlier run has copied the blobs with lower hashes; zero: none
    // Is called when all blobs with lower hashes than `next` have a copy; its error ends the run.
    // May be NULL.
    int (*mark)(void *argument, const struct sha256 *next);
    // Is called now and then; anything but 0 ends the run and is its result. May be NULL.
    int (*progress)(void *argument, const struct detach_counts *counts);
    void *argument;
};

// Copies all blobs of the newest generation that lie in another volume's place. Blobs that are in
// the own place already, with the right size, are left as they are. -EBADMSG: a blob of the parent
// is damaged or missing (remote_store_error() names it).
MUST_CHECK int detach_copy(const struct detach_options *options, struct detach_counts *counts_out);

// Numbers of the blobs that detach_copy would look at, and their bytes.
MUST_CHECK int detach_count(
    struct manifest *m, struct db_id db, uint64_t *blobs_out, uint64_t *bytes_out);

// Finds the oldest generation below `newest` that is kept, or expired and not yet deleted, and
// needs another volume's place; {0}: none does. Imports generations into `scratch`, a manifest in
// which nothing else happens meanwhile, and removes them again.
MUST_CHECK int detach_find_need(const struct remote_place *place, struct manifest *scratch,
    struct generation newest, struct generation *needed_out);

// Whether anything in the db lies in another volume's place: 1 or 0.
MUST_CHECK int detach_is_needed(struct manifest *m, struct db_id db);

#endif
