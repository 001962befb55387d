// SPDX-License-Identifier: Apache-2.0
// The queue as its workers and the functions for handlers see it.
#ifndef CKPTFS_JOBS_JOB_QUEUE_INTERNAL_H
#define CKPTFS_JOBS_JOB_QUEUE_INTERNAL_H

#include <stdatomic.h>

#include "jobs/job_queue.h"
#include "platform/lock.h"
#include "platform/thread.h"

#define TEXTS_KEPT 16u
// A worker renews the lease of its job to that length.
#define LEASE_MS 60000u

// An unfinished job that the queue carries out. The record's payload and extension are its own.
struct queued_job {
    struct job_record record;
    const struct job_handler_entry *handler;
    uint64_t ready_ms;    // monotonic: no run before; 0: at once
    uint64_t waits_ms;    // monotonic: it has been ready, and not run, since then
    uint8_t own_priority; // without that of job_queue_wake
};

struct job_text {
    uint64_t id; // 0: free
    struct buffer text;
};

// The worker of a lane.
struct job_worker {
    struct job_queue *queue;
    enum job_lane lane;
    struct thread thread;
    bool started;
    // The running job is to end: now, or from a time on (monotonic; UINT64_MAX: no), which only
    // moves forward during a run. Any thread may read them.
    atomic_bool interrupted;
    atomic_uint_fast64_t interrupt_at_ms;

    // Of the queue's lock.
    struct queued_job *running; // or NULL; also while the result of its run is being written
    uint64_t protected_ms;      // no more urgent job interrupts it before
    uint64_t progress_written_ms;
};

struct job_queue {
    struct job_queue_options options;
    struct job_worker workers[JOB_LANES];

    struct lock lock; // "jobs": protects all below
    struct condition work;
    struct queued_job **jobs; // in order of their ids
    size_t count;
    uint64_t *ended; // ids of the jobs in the table that have ended, in order of their ends
    size_t ended_count;
    struct job_text texts[TEXTS_KEPT]; // a ring
    unsigned next_text;
    bool stopping;
};

// job_run.c
bool job_worker_is_to_end(struct job_worker *w);

// job_queue.c: writes the job, and removes another one (0: none), in one transaction.
MUST_CHECK int job_queue_put_record(
    struct job_queue *q, struct job_record *job, uint64_t remove_id);

#endif
