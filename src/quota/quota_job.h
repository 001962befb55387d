// SPDX-License-Identifier: Apache-2.0
// The budget of jobs: what the jobs that run may bring to hot_cache, so that they leave the rest of
// the quota to programs that read and write. It is a share of each limit (of the place, its tenant
// and the root), and the jobs of all places below a limit use it together.
//
// A job asks for bytes before it fetches them, and then reserves them as others do
// (storage_quota.h). What it has been given counts until it ends, also when parts of it have been
// evicted meanwhile: so one job cannot push out more than the share either. Afterwards the bytes
// are copies like all others. A job that gets nothing more ends.
//
// The jobs of a process that was killed count until another job is refused, or the place is
// mounted again.
#ifndef CKPTFS_QUOTA_QUOTA_JOB_H
#define CKPTFS_QUOTA_QUOTA_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct storage_quota;
struct quota_job;

// The quota outlives the job. NULL is a quota without limits.
struct quota_job *quota_job_begin(struct storage_quota *q);
// Any thread; a job that is NULL has no budget. 0 or -EDQUOT.
MUST_CHECK int quota_job_ask(struct quota_job *job, uint64_t bytes);
// The bytes did not come.
void quota_job_give_back(struct quota_job *job, uint64_t bytes);
// Whether it has been refused anything.
bool quota_job_was_refused(const struct quota_job *job);
void quota_job_end(struct quota_job *job); // NULL is fine

#endif
