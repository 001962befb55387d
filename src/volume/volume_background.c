// SPDX-License-Identifier: Apache-2.0
// The jobs VerifyManifest and DownloadCheckpoint, which read from the store in the background. A
// run after a death goes on behind the last generation that was verified; fetching passes over what
// is here.
#include <errno.h>
#include <inttypes.h>

#include "platform/log.h"
#include "quota/quota_job.h"
#include "retention/verify_report.h"
#include "volume/volume_fetch.h"
#include "volume/volume_internal.h"
#include "volume/volume_offline.h"
#include "volume/volume_offline_internal.h"
#include "volume/volume_operator.h"

static bool
is_interrupted(void *run)
{
    return job_is_interrupted(run);
}

// ---- VerifyManifest -----------------------------------------------------------------------------

// The marker: the last generation that is done, and the damage found up to there. The damage itself
// is in the job's parameters, as far as it has room there.
#define MARKER_BYTES 16u

struct verifying {
    struct job_run *run;
    struct volume_scratch scratch;
    struct job_verification order;
    struct generation after;
    uint64_t left_out;          // of the damage found by earlier runs of the job, for want of room
    struct verify_result found; // by all runs of the job
};

static int
tell_verified(void *argument, const char *what, uint64_t done, uint64_t total)
{
    const struct verifying *x = argument;
    job_progress(x->run, what, done, total);
    return job_is_interrupted(x->run) ? -ECANCELED : 0;
}

static void
log_damage(const struct verify_damage *d)
{
    struct log_event e;
    log_begin(&e, LOG_LEVEL_ERROR, "verify.damaged");
    log_string(&e, "key", d->key);
    log_string(&e, "error", d->why);
    if (d->generation_count > 0) {
        log_u64(&e, "first_generation", d->generations[0].v);
        log_u64(&e, "last_generation", d->generations[d->generation_count - 1].v);
    }
    if (d->file_count > 0)
        log_string(&e, "file", d->files[0]);
    log_end(&e);
}

static uint64_t
count_damaged(const struct verifying *x)
{
    return x->left_out + x->found.damaged;
}

// Puts what was found into the job's parameters.
static void
keep_report(struct verifying *x)
{
    BUFFER_AUTO bytes = {0};
    verify_report_encode(&x->found, &bytes);
    const struct job_verification now = {
        .data = x->order.data,
        .damaged = count_damaged(x),
        .report = bytes.data,
        .report_length = (uint32_t)bytes.length,
    };
    job_set_parameters(x->run, &now);
}

// Every run looks at the chain, whose damage counts at its end; generations and blobs are done.
static int
mark_verified(void *argument, struct generation generation, const struct verify_result *result)
{
    struct verifying *x = argument;
    BUFFER_AUTO marker = {0};
    uint64_t before = x->found.damaged;
    volume_count_scratch(&x->scratch);
    verify_merge(&x->found, result, false, log_damage);
    if (x->found.damaged > before)
        keep_report(x);
    buffer_append_le64(&marker, generation.v);
    buffer_append_le64(&marker, count_damaged(x));
    return job_mark(x->run, marker.data, marker.length);
}

// What the runs before have found. A run of an older program has kept the number only.
static int
read_course(struct verifying *x)
{
    const struct job_record *job = x->run->job;
    int rc = job_read_parameters(job, &x->order);
    if (rc < 0)
        return rc;
    if (!verify_report_decode(x->order.report, x->order.report_length, &x->found))
        return -EBADMSG;
    uint64_t damaged = x->order.damaged;
    if (job->marker_length == MARKER_BYTES) {
        struct byte_reader r = byte_reader_over(job->marker, job->marker_length);
        x->after.v = read_le64(&r);
        uint64_t marked = read_le64(&r);
        damaged = marked > damaged ? marked : damaged;
    }
    x->left_out = damaged > x->found.damaged ? damaged - x->found.damaged : 0;
    return 0;
}

// The record keeps the first line.
static int
report(struct verifying *x, const struct verify_result *result)
{
    static const struct volume_verified done;
    struct buffer *out = x->run->text;
    verify_merge(&x->found, result, true, log_damage);
    uint64_t damaged = count_damaged(x);
    const struct verify_damage *first = x->found.damages;
    if (damaged > 0)
        keep_report(x);
    if (damaged > 0 && first)
        buffer_printf(
            out, "%" PRIu64 " objects are damaged: %s: %s\n", damaged, first->key, first->why);
    else if (damaged > 0)
        buffer_printf(
            out, "%" PRIu64 " objects are damaged: the daemon's log names them\n", damaged);
    if (damaged > 0 && result->damaged == 0)
        buffer_append_string(out, "since the job was interrupted: ");
    offline_print_report(result, &done, x->order.data, out);
    return damaged > 0 ? -EBADMSG : 0;
}

int
volume_verify_run(void *argument, struct job_run *run)
{
    struct volume *v = argument;
    struct verifying x = {.run = run};
    struct volume_bucket bucket;
    struct verify_result result = {0};
    int rc = read_course(&x);
    if (rc < 0) {
        verify_result_free(&x.found);
        return rc;
    }
    volume_bucket_init(&bucket, v, is_interrupted, run);
    struct quota_job *budget = quota_job_begin(v->quota);
    bucket.place.call.budget = budget;
    rc = volume_open_scratch(v, "verify", budget, &x.scratch);
    const struct verify_options options = {
        .place = &bucket.place,
        .manifest = x.scratch.manifest,
        .data = x.order.data,
        .after = x.after,
        .looked = mark_verified,
        .progress = tell_verified,
        .argument = &x,
    };
    if (rc == 0)
        rc = verify_run(&options, &result);
    if (rc == 0)
        rc = report(&x, &result);
    else if (rc == -EDQUOT)
        buffer_append_string(run->text, "the quota has no room for what the job reads: look at "
                                        "ckptctl quota, and at job_quota");
    else if (rc != -ECANCELED)
        volume_operator_say_failure(rc, run->text);
    verify_result_free(&result);
    verify_result_free(&x.found);
    volume_close_scratch(&x.scratch);
    quota_job_end(budget);
    return rc;
}

int
volume_job_report(struct volume *v, uint64_t id, bool json, struct buffer *out)
{
    struct job_record job;
    struct job_verification order;
    struct verify_result found = {0};
    BUFFER_AUTO payload = {0};
    if (!v->jobs)
        return -EROFS;
    int rc = job_queue_read(v->jobs, id, &job, &payload);
    if (rc == 0 && job.kind != JOB_VERIFY_MANIFEST)
        rc = -ENODATA;
    if (rc == 0)
        rc = job_read_parameters(&job, &order);
    if (rc < 0)
        return rc;
    if (!verify_report_decode(order.report, order.report_length, &found))
        rc = -EBADMSG;
    else
        offline_print_damages(&found, order.damaged, json, out);
    verify_result_free(&found);
    return rc;
}

// ---- DownloadCheckpoint -------------------------------------------------------------------------

static void
tell_fetched(void *argument, uint64_t done_bytes, uint64_t total_bytes)
{
    job_progress(argument, "fetching", done_bytes, total_bytes);
}

int
volume_download_run(void *argument, struct job_run *run)
{
    struct volume *v = argument;
    const struct volume_fetch all = {
        .is_canceled = is_interrupted, .progress = tell_fetched, .argument = run};
    struct volume_fetched fetched = {0};
    int rc = volume_fetch(v, &all, &fetched);
    job_progress(run, "fetched", fetched.done_bytes, fetched.total_bytes);
    buffer_printf(run->text, "%" PRIu64 " of %" PRIu64 " bytes are in hot_cache",
        fetched.done_bytes, fetched.total_bytes);
    if (rc == -EDQUOT) {
        buffer_append_string(run->text, ", and ");
        volume_say_no_room(v, &fetched, run->text);
    }
    return rc;
}
