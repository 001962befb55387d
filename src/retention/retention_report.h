// SPDX-License-Identifier: Apache-2.0
// Reports about generations, snapshots and GC, as lines for people or as JSON. Each function
// appends to `out`; after an error that is a sentence instead. 0 or -errno; any thread.
#ifndef CKPTFS_RETENTION_RETENTION_REPORT_H
#define CKPTFS_RETENTION_RETENTION_REPORT_H

#include "retention/collect.h"

struct retention_scope {
    const struct remote_place *place;
    struct manifest *manifest;
    struct db_id db;
};

// The known generations, newest last: each with its time, its state, and the reasons why it stays.
MUST_CHECK int report_generations(
    const struct retention_scope *scope, bool json, struct buffer *out);
MUST_CHECK int report_snapshots(const struct retention_scope *scope, bool json, struct buffer *out);
MUST_CHECK int report_policy(const struct retention_scope *scope, bool json, struct buffer *out);

// A run of CheckpointGC. Events come while it runs, the result at its end.
struct report_gc {
    bool json;
    bool dry_run;
    struct buffer events; // for people: lines; else elements of an array
    uint64_t count;
};
void report_gc_event(struct report_gc *r, const struct collect_event *event);
// The same as collect_options.event, with the report as argument.
void report_gc_event_of(void *report, const struct collect_event *event);
void report_gc_end(struct report_gc *r, const struct collect_result *result, struct buffer *out);

// Appends the store's words, or the errno's text.
void report_failure(int rc, struct buffer *out);

#endif
