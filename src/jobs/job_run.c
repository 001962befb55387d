// SPDX-License-Identifier: Apache-2.0
// What a handler asks and tells while it carries out a job.
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/job_queue_internal.h"
#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/memory.h"

// A worker writes progress to the table so often, and each time renews the lease.
#define PROGRESS_INTERVAL_MS 5000u

bool
job_worker_is_to_end(struct job_worker *w)
{
    if (atomic_load(&w->interrupted))
        return true;
    uint64_t at_ms = atomic_load(&w->interrupt_at_ms);
    return at_ms != UINT64_MAX && clock_monotonic_ms() >= at_ms;
}

void
job_progress(struct job_run *run, const char *stage, uint64_t done, uint64_t total)
{
    struct job_queue *q = run->queue;
    uint64_t now_ms = clock_monotonic_ms();
    lock_take(&q->lock);
    struct job_record *job = &run->worker->running->record;
    snprintf(job->stage, sizeof(job->stage), "%s", stage);
    job->done = done;
    job->total = total;
    if (now_ms - run->worker->progress_written_ms >= PROGRESS_INTERVAL_MS) {
        run->worker->progress_written_ms = now_ms;
        job->lease_expires_ms = clock_wall_ms() + LEASE_MS;
        int rc = job_queue_put_record(q, job, 0);
        if (rc < 0)
            log_warning("job.table_failed", "cannot record the progress of job %" PRIu64 ": %s",
                job->id, strerror(-rc));
    }
    lock_release(&q->lock);
}

int
job_mark(struct job_run *run, const void *marker, size_t length)
{
    struct job_queue *q = run->queue;
    assert(length <= JOB_MARKER_BYTES_MAX);
    lock_take(&q->lock);
    struct job_record *job = &run->worker->running->record;
    struct job_record before = *job;
    memcpy(job->marker, marker, length);
    job->marker_length = (uint16_t)length;
    job->lease_expires_ms = clock_wall_ms() + LEASE_MS;
    run->worker->progress_written_ms = clock_monotonic_ms();
    int rc = job_queue_put_record(q, job, 0);
    if (rc < 0)
        *job = before;
    lock_release(&q->lock);
    if (rc == 0)
        crash_point("job.marked");
    return rc;
}

void
job_set_parameters(struct job_run *run, const void *parameters)
{
    BUFFER_AUTO payload = {0};
    struct job_queue *q = run->queue;
    lock_take(&q->lock);
    struct job_record *job = &run->worker->running->record;
    struct job_record after = *job;
    job_set_kind(&after, job->kind, parameters, &payload);
    assert(
        after.key_length == job->key_length && memcmp(after.key, job->key, job->key_length) == 0);
    free((void *)(uintptr_t)job->payload);
    after.payload = memory_alloc(payload.length + 1);
    memcpy((void *)(uintptr_t)after.payload, payload.data, payload.length);
    *job = after;
    lock_release(&q->lock);
}

int
job_park(struct job_run *run, const char *stage, uint64_t pause_ms)
{
    struct job_queue *q = run->queue;
    lock_take(&q->lock);
    struct job_record *job = &run->worker->running->record;
    snprintf(job->stage, sizeof(job->stage), "%s", stage);
    lock_release(&q->lock);
    run->park_ms = pause_ms;
    return JOB_PARKED;
}

bool
job_is_interrupted(void *run)
{
    const struct job_run *r = run;
    return job_worker_is_to_end(r->worker);
}
