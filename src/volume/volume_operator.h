// SPDX-License-Identifier: Apache-2.0
// Carries out operators' commands about the life of data (volume.h, enum volume_operation), for a
// mount and for a volume in the store alike: they differ in where the manifest is and in how a
// change is told to the chain. For one thread at a time, which may wait for the store.
#ifndef CKPTFS_VOLUME_VOLUME_OPERATOR_H
#define CKPTFS_VOLUME_VOLUME_OPERATOR_H

#include "retention/retention_report.h"

struct volume_operator {
    const struct remote_place *place;
    // Not needed for making, dropping and showing one snapshot. Those that change the volume need
    // its owner.
    struct manifest *manifest;
    struct db_id db;
    // Creates the next record, beside publications; NULL: no thread publishes.
    int (*tell)(void *argument, const struct change *changes, size_t count, uint64_t lowest);
    void *argument;
    // Gets each step of CheckpointGC; may be NULL. The argument is `argument`.
    void (*event)(void *argument, const struct collect_event *event);
    struct generation *scanned;       // collect_options.scanned from run to run; NULL: begins anew
    struct collect_result *collected; // gets the result of CheckpointGC; may be NULL
    bool *unsure; // collect_options.unsure from run to run; NULL: a process of one run
};

// Carries out one operation; its text goes to `out`. After a failure that is a sentence, or empty
// for errors that errno says well enough.
MUST_CHECK int volume_operator_run(const struct volume_operator *o, unsigned kind, unsigned flags,
    const char *argument, struct buffer *out);
// A run of CheckpointGC, which is logged if anything was done; COLLECT_* flags, `report` may be
// NULL.
MUST_CHECK int volume_operator_collect(const struct volume_operator *o, unsigned flags,
    struct report_gc *report, struct collect_result *result_out);

// Appends the sentence for a failure.
void volume_operator_say_failure(int rc, struct buffer *out);

#endif
