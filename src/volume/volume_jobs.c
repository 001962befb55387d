// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "volume/volume_fetch.h"
#include "volume/volume_internal.h"

#define RETRY_MS 1000u
#define POLL_MS  100u

// ---- waiting for a checkpoint -------------------------------------------------------------------

struct awaited {
    struct lock lock;
    struct condition condition;
    bool done;
    int result;
};

static void
note_result(void *argument, int result, struct generation generation UNUSED)
{
    struct awaited *x = argument;
    lock_take(&x->lock);
    x->done = true;
    x->result = result;
    condition_signal(&x->condition);
    lock_release(&x->lock);
}

int
volume_await_checkpoint(
    struct volume *v, unsigned flags, bool (*is_canceled)(void *argument), void *argument)
{
    struct awaited x = {.done = false};
    lock_init(&x.lock, "awaited checkpoint", LOCK_RANK_PLATFORM);
    condition_init(&x.condition);
    checkpoint_request(v->checkpoint, flags, note_result, &x);
    lock_take(&x.lock);
    while (!x.done) {
        condition_wait_until(&x.condition, &x.lock, clock_monotonic_ms() + POLL_MS);
        if (x.done || !is_canceled)
            continue;
        // Both take locks that come before this one.
        lock_release(&x.lock);
        // When it cannot be forgotten the answer is on its way.
        bool forgotten = is_canceled(argument) && checkpoint_forget(v->checkpoint, &x);
        lock_take(&x.lock);
        if (forgotten) {
            x.done = true;
            x.result = -ECANCELED;
        }
    }
    int rc = x.result;
    lock_release(&x.lock);
    condition_destroy(&x.condition);
    lock_destroy(&x.lock);
    return rc;
}

// ---- the queue ----------------------------------------------------------------------------------

static bool
is_passing(int error)
{
    return error == -EAGAIN || error == -EBUSY || error == -ETIMEDOUT || error == -ENOSPC ||
           error == -EINTR;
}

// Outages, and stores that refuse for a while.
static bool
is_passing_in_store(int error)
{
    return is_passing(error) || error == -EACCES || error == -ENXIO || error == -EPROTO;
}

// What may run beside what, and why: doc/jobs.md, Lanes.
static const struct job_handler_entry handlers[] = {
    {JOB_TRUNCATE_APPEND_ONLY, JOB_LANE_SHORT, volume_truncate_run, is_passing, 10, NULL},
    // The retention thread submits these again.
    {JOB_PRUNE_CHECKPOINT, JOB_LANE_SHORT, volume_prune_run, is_passing_in_store, 10, NULL},
    {JOB_SWEEP_ORPHANS, JOB_LANE_SHORT, volume_sweep_run, is_passing_in_store, 10, NULL},
    {JOB_MERGE_CHUNKS, JOB_LANE_FETCH, volume_merge_run, is_passing, 5, NULL},
    {JOB_HYDRATE_FILES, JOB_LANE_FETCH, volume_hydrate_run, is_passing, 10, volume_hydrate_failed},
    // Users submit these, and they outlast outages.
    {JOB_DOWNLOAD_CHECKPOINT, JOB_LANE_FETCH, volume_download_run, is_passing_in_store, 0, NULL},
    {JOB_DETACH_FORK, JOB_LANE_LONG, volume_detach_run, is_passing_in_store, 0, NULL},
    {JOB_VERIFY_MANIFEST, JOB_LANE_LONG, volume_verify_run, is_passing_in_store, 0, NULL},
};

static void
begin_thread(void *argument)
{
    struct volume *v = argument;
    flush_pace_bind(&v->pace);
}

int
volume_start_jobs(struct volume *v)
{
    const struct job_queue_options options = {
        .manifest = v->manifest,
        .db = v->db,
        .handlers = handlers,
        .handler_count = ARRAY_LENGTH(handlers),
        .argument = v,
        .start = begin_thread,
        .retry_ms = RETRY_MS,
    };
    volume_open_collect(v);
    int rc = job_queue_open(&options, &v->jobs);
    if (rc == 0)
        volume_merge_has_queue(v, true);
    return rc;
}

void
volume_stop_jobs(struct volume *v)
{
    if (v->jobs)
        volume_merge_has_queue(v, false);
    job_queue_close(v->jobs);
    v->jobs = NULL;
    volume_close_collect(v);
}

// ---- flags --------------------------------------------------------------------------------------

int
volume_get_flags(struct volume *v, unsigned *flags_out)
{
    struct manifest_reader *r;
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_flags(r, v->db, flags_out);
    manifest_read_end(r);
    return rc;
}

int
volume_set_flags(struct volume *v, unsigned flags)
{
    if (v->from_bucket)
        return -EROFS;
    if (flags & ~DB_FLAGS_ALL)
        return -EINVAL;
    struct manifest_batch *b = manifest_batch_new(v->db);
    manifest_batch_flags(b, flags);
    int rc = manifest_submit(v->manifest, b, NULL);
    if (rc < 0)
        return rc;
    atomic_store(&v->flags, flags);
    checkpoint_hear_flags(v->checkpoint);
    return 0;
}

// ---- asking -------------------------------------------------------------------------------------

int
volume_job_submit(struct volume *v, enum job_kind kind, const void *parameters, uint64_t *job_out)
{
    bool known = false;
    for (size_t i = 0; i < ARRAY_LENGTH(handlers); i++)
        known |= handlers[i].kind == kind && kind != JOB_TRUNCATE_APPEND_ONLY &&
                 kind != JOB_MERGE_CHUNKS;
    if (!v->jobs)
        return -EROFS;
    if (!known)
        return -EINVAL;
    // Those that take long let others of their lane go first.
    bool is_long =
        kind == JOB_VERIFY_MANIFEST || kind == JOB_DOWNLOAD_CHECKPOINT || kind == JOB_DETACH_FORK;
    return job_queue_submit(v->jobs, kind, parameters,
        is_long ? JOB_PRIORITY_NORMAL : JOB_PRIORITY_ASKED, NULL, job_out);
}

int
volume_job_look(struct volume *v, uint64_t id, bool next, struct job_record *job_out)
{
    return v->jobs ? job_queue_look(v->jobs, id, next, job_out, NULL) : -EROFS;
}

int
volume_job_cancel(struct volume *v, uint64_t id)
{
    struct job_record job;
    if (!v->jobs)
        return -EROFS;
    int rc = job_queue_cancel(v->jobs, id);
    if (rc != -EBUSY)
        return rc;
    rc = job_queue_look(v->jobs, id, false, &job, NULL);
    if (rc < 0)
        return rc;
    return job.kind == JOB_CREATE_CHECKPOINT
               ? checkpoint_cancel(v->checkpoint, CANCEL_USER_REQUESTED)
               : -EBUSY;
}
