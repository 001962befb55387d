// SPDX-License-Identifier: Apache-2.0
// Making a generation out of another one: rolling a volume back, and forking a new volume off. No
// data moves, only entries of catalogs. For tools that have imported the volume into a manifest of
// their own, and have claimed the volume that gets the new generation. One thread a manifest.
#ifndef CKPTFS_RETENTION_HISTORY_H
#define CKPTFS_RETENTION_HISTORY_H

#include "remote/remote_retention.h"

// Folds the difference between `to` and `from` into `to`, as its next local generation. Both are
// dbs of `m`; `to` has no unpublished changes. -EALREADY: they are equal.
MUST_CHECK int history_fold_equal(struct manifest *m, struct db_id to, struct db_id from);

// The same for the empty db `to` of another volume, whose parent is `parent`: blobs stay where they
// are, below the parent's part of the store (or that of its own parent).
MUST_CHECK int history_fold_fork(
    struct manifest *m, struct db_id to, struct db_id from, const struct db_record *parent);

// Folds into the db that its blobs lie in its own place, wherever they lay before: the caller has
// made copies there. -EALREADY: all of them do.
MUST_CHECK int history_fold_own(struct manifest *m, struct db_id db);

// The parts of these, for other makers of generations. history_export appends the state of a db to
// `out`, as encoded changes in the order of manifest_export, without the volume's generations and
// policy.
MUST_CHECK int history_export(
    struct manifest *m, struct db_id db, struct db_record *record_out, struct buffer *out);
// Submits the batch, which makes the local generation.
MUST_CHECK int history_fold_end(struct manifest *m, struct manifest_batch *b,
    struct generation generation, struct lsn cut, struct db_counters counters);

// Stages, creates and records the folded generation, and its catalog. Uploads no blobs.
MUST_CHECK int history_publish(const struct remote_place *place, struct manifest *m,
    struct db_id db, struct generation *generation_out);

#endif
