// SPDX-License-Identifier: Apache-2.0
// Filling a new place in a store from a storage root whose bucket is lost: the state in the root's
// manifest, and the blobs of which the root has copies. For tools: the volume is not mounted from
// the root.
#ifndef CKPTFS_RETENTION_PUSH_H
#define CKPTFS_RETENTION_PUSH_H

#include "retention/verify.h"

struct push {
    // Of the caller.
    const struct remote_place *place; // of the new volume
    struct manifest *root;
    struct db_id from;     // of the root
    const char *hot_cache; // ROOT/hot_cache
    // Is called now and then; anything but 0 ends the run and is its result. May be NULL.
    int (*progress)(void *argument, const char *what, uint64_t done, uint64_t total);
    void *argument;
    // The results of push_upload.
    struct db_record db;       // of the root
    struct buffer state;       // history_export
    uint64_t blobs, bytes;     // in the new place
    uint64_t uploaded;         // of them, by this run
    struct verify_result lost; // blobs that the root has no copy of, and the files that need them
};
void push_free(struct push *p);

// Uploads the blobs of the root's local generation. Blobs that are there already, with the right
// size, are left as they are. 0, also when blobs are lost.
MUST_CHECK int push_upload(struct push *p);

// Folds the root's state into the empty db `to` of `m`, as the root's local generation. Chunks that
// need lost blobs have all of their pages noted as lost: reading those fails until they are written
// anew.
MUST_CHECK int push_fold(struct push *p, struct manifest *m, struct db_id to);

#endif
