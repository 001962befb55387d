// SPDX-License-Identifier: Apache-2.0
#include "quota/quota_job.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "platform/memory.h"
#include "quota/storage_quota_internal.h"

struct quota_job {
    struct storage_quota *q; // NULL: it may have all
    _Atomic uint64_t bytes;
    atomic_bool refused;
};

struct quota_job *
quota_job_begin(struct storage_quota *q)
{
    struct quota_job *job = memory_alloc_zero(sizeof(*job));
    job->q = q;
    return job;
}

// As storage_quota_reserve does: adds, and looks at the sums afterwards.
static bool
try_to_ask(struct storage_quota *q, uint64_t bytes)
{
    struct quota_scope scopes[QUOTA_SCOPES];
    quota_count_add(&q->file.slot->jobs, bytes);
    unsigned n = quota_scopes(q, scopes);
    bool fits = true;
    for (unsigned i = 0; i < n; i++)
        fits &= scopes[i].sums.jobs <= quota_job_share(q, scopes[i].limit);
    if (!fits)
        quota_count_take(&q->file.slot->jobs, bytes);
    return fits;
}

int
quota_job_ask(struct quota_job *job, uint64_t bytes)
{
    if (!job || !job->q)
        return 0;
    if (try_to_ask(job->q, bytes) ||
        (quota_file_forget_jobs(&job->q->file) && try_to_ask(job->q, bytes))) {
        job->bytes += bytes;
        return 0;
    }
    atomic_store(&job->refused, true);
    job->q->job_refusals++;
    return -EDQUOT;
}

void
quota_job_give_back(struct quota_job *job, uint64_t bytes)
{
    if (!job || !job->q)
        return;
    job->bytes -= bytes;
    quota_count_take(&job->q->file.slot->jobs, bytes);
}

bool
quota_job_was_refused(const struct quota_job *job)
{
    return atomic_load(&job->refused);
}

void
quota_job_end(struct quota_job *job)
{
    if (job && job->q)
        quota_count_take(&job->q->file.slot->jobs, job->bytes);
    free(job);
}
