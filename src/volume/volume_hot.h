// SPDX-License-Identifier: Apache-2.0
// The hot parts of a volume: which are noted while programs read and write, the set of them that
// the owner publishes, and the fetching of such a set on a host that has restored the volume
// (doc/cold_reads.md, Hot parts). The set is a hint: whatever happens to it, only the time of the
// first reads on another host depends on it.
#ifndef CKPTFS_VOLUME_VOLUME_HOT_H
#define CKPTFS_VOLUME_VOLUME_HOT_H

#include <stdbool.h>

#include "cache/dirty_set.h"
#include "cache/part_heat.h"
#include "jobs/job_queue.h"
#include "metrics/metrics.h"

struct volume;
struct volume_hot;

// Where readers note what they read; NULL: nowhere.
struct part_heat *volume_hot_heat(const struct volume *v);
// A local generation has taken these pages. For the checkpoint thread.
void volume_hot_note_written(struct volume *v, const struct dirty_set *pages);

// A set of fewer parts is not worth its requests: the first reads bring so much anyway.
#define VOLUME_HOT_PARTS_MIN 32u

// After the volume was restored: if there is a set, or in the case of a fork without one if its
// parent has one, submits the job that fetches its parts. 1 GET, and one more for each ancestor of
// a fork that is asked. For the retention thread.
void volume_hot_restore(struct volume *v, bool (*is_canceled)(void *argument), void *argument);

// The job HydrateFiles with the order to fetch the hot parts: in the order of the set, as a job
// under the limits on reads, as long as there is free room beyond what the quota keeps free; it
// evicts nothing. Parts that the files do not have any more are passed over.
MUST_CHECK int volume_hot_fetch_run(struct volume *v, struct job_run *run);

void volume_hot_metrics(struct volume *v, struct metrics *m);

#endif
