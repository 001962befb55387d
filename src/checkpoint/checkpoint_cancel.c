// SPDX-License-Identifier: Apache-2.0
// CancelCheckpoint, and the other things that truncations need of checkpoints: none begins, those
// in flight let go of their chunks, and the change log tells of the truncation.
//
// A caller can cancel a fold until it hands its generation to the manifest, a publication until it
// creates its record; after that it is only a matter of time until they end.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "checkpoint/checkpoint_internal.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"

// Far more than the longest step between two renewals takes, unless the disk hangs.
#define LEASE_TTL_MS (10u * 60 * 1000)

enum holder { HOLDER_FOLD = 1, HOLDER_PUBLICATION = 2 };

static const char *
reason_text(enum cancel_reason reason)
{
    switch (reason) {
    case CANCEL_TRUNCATION_CONFLICT:
        return "TruncationConflict";
    case CANCEL_USER_REQUESTED:
        return "UserRequested";
    case CANCEL_TIMEOUT:
        return "Timeout";
    }
    return "unknown";
}

// ---- holding back -------------------------------------------------------------------------------

void
checkpoint_hold(struct checkpoint *c)
{
    lock_take(&c->lock);
    c->holds++;
    lock_release(&c->lock);
}

void
checkpoint_unhold(struct checkpoint *c)
{
    lock_take(&c->lock);
    c->holds--;
    condition_broadcast(&c->fold.work);
    condition_broadcast(&c->publish.work);
    lock_release(&c->lock);
}

void
checkpoint_note_truncation(struct checkpoint *c, const struct manifest_note *note)
{
    lock_take(&c->lock);
    c->fold.note = *note;
    lock_release(&c->lock);
}

// ---- leases -------------------------------------------------------------------------------------

void
checkpoint_lease_plan(
    struct checkpoint *c, struct generation generation, const struct checkpoint_plan *plan)
{
    // The actions are in the order of objects and indexes.
    struct chunk_range *ranges = memory_alloc((plan->count + 1) * sizeof(*ranges));
    size_t count = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const struct chunk_action *a = &plan->actions[i];
        struct chunk_range *last = count > 0 ? &ranges[count - 1] : NULL;
        if (last && last->object.v == a->object.v && last->end >= a->index.v)
            last->end = a->index.v + 1;
        else
            ranges[count++] = (struct chunk_range){a->object, a->index.v, a->index.v + 1};
    }
    lease_map_take(c->leases, HOLDER_FOLD, generation, ranges, count, LEASE_TTL_MS);
    free(ranges);
}

void
checkpoint_end_fold_lease(struct checkpoint *c)
{
    lease_map_release(c->leases, HOLDER_FOLD);
}

void
checkpoint_lease_publication(struct checkpoint *c, struct generation generation)
{
    const struct chunk_range any = {0};
    lease_map_take(c->leases, HOLDER_PUBLICATION, generation, &any, 1, UINT32_MAX);
}

void
checkpoint_end_publication_lease(struct checkpoint *c)
{
    lease_map_release(c->leases, HOLDER_PUBLICATION);
}

int
checkpoint_wait_for_leases(struct checkpoint *c, const struct chunk_range *range,
    struct generation target, uint64_t deadline_ms, bool (*is_canceled)(void *argument),
    void *argument)
{
    return lease_map_wait(c->leases, range, target, deadline_ms, is_canceled, argument);
}

// ---- cancelling ---------------------------------------------------------------------------------

int
checkpoint_cancel(struct checkpoint *c, enum cancel_reason reason)
{
    int rc = -EALREADY;
    lock_take(&c->lock);
    if (c->fold.cancelable) {
        atomic_store(&c->fold.cancel, reason);
        rc = 0;
    }
    if (c->publish.cancelable) {
        atomic_store(&c->publish.cancel, reason);
        rc = 0;
    }
    lock_release(&c->lock);
    return rc;
}

int
checkpoint_fold_go_on(struct checkpoint *c)
{
    if (!lease_map_renew(c->leases, HOLDER_FOLD, LEASE_TTL_MS))
        atomic_store(&c->fold.cancel, CANCEL_TIMEOUT);
    return atomic_load(&c->fold.cancel) == 0 ? 0 : -ECANCELED;
}

int
checkpoint_fold_commits(struct checkpoint *c)
{
    lock_take(&c->lock);
    c->fold.cancelable = false; // from here on no caller sets `cancel`
    lock_release(&c->lock);
    return checkpoint_fold_go_on(c);
}

int
checkpoint_publication_commits(struct checkpoint *c)
{
    lock_take(&c->lock);
    c->publish.cancelable = false;
    lock_release(&c->lock);
    return atomic_load(&c->publish.cancel) == 0 ? 0 : -ECANCELED;
}

void
checkpoint_set_cancelable(struct checkpoint *c, bool fold, bool cancelable)
{
    lock_take(&c->lock);
    if (cancelable)
        atomic_store(fold ? &c->fold.cancel : &c->publish.cancel, 0);
    *(fold ? &c->fold.cancelable : &c->publish.cancelable) = cancelable;
    lock_release(&c->lock);
}

// The compensating record: subscribers have seen the job begin, and learn that it makes nothing.
void
checkpoint_record_cancel(struct checkpoint *c, struct job_record *job, enum cancel_reason reason)
{
    const struct manifest_note note = {
        .kind = MANIFEST_NOTE_CANCEL_CHECKPOINT, .reason = reason, .job = job->id};
    struct manifest_batch *b = manifest_batch_new(c->options.db);
    manifest_batch_annotate(b, &note);
    if (job->state == JOB_FAILED) {
        job->error = -ECANCELED;
        job->retryable = reason != CANCEL_USER_REQUESTED;
        job->updated_ms = clock_wall_ms();
        snprintf(job->cause, sizeof(job->cause), "%s", reason_text(reason));
        manifest_batch_put_job(b, job);
    }
    int rc = manifest_submit(c->options.manifest, b, NULL);
    struct log_event e;
    log_begin(&e, LOG_LEVEL_WARNING, "checkpoint.canceled");
    log_u64(&e, "job_id", job->id);
    log_string(&e, "reason", reason_text(reason));
    if (rc < 0)
        log_string(&e, "error", "the cancellation cannot be recorded");
    log_end(&e);
}
