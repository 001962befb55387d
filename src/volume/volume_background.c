// SPDX-License-Identifier: Apache-2.0
// The jobs VerifyManifest and DownloadCheckpoint, which read from the store in the background. A
// run after a death goes on behind the last generation that was verified; fetching passes over what
// is here.
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "platform/log.h"
#include "retention/verify.h"
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

// The marker: the last generation that is done, and the damage found up to there.
#define MARKER_BYTES 16u

struct verifying {
    struct job_run *run;
    struct generation after;
    uint64_t damaged_before;          // by earlier runs of the job
    const struct verify_damage *told; // the last one that the log has
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

static void
log_new_damage(struct verifying *x, const struct verify_result *result)
{
    const struct verify_damage *d = x->told ? x->told->next : result->damages;
    for (; d; d = d->next) {
        log_damage(d);
        x->told = d;
    }
}

// Every run looks at the chain; the generations and blobs are the marker's.
static uint64_t
count_marked(const struct verify_result *result)
{
    uint64_t count = 0;
    for (const struct verify_damage *d = result->damages; d; d = d->next)
        count += d->is_blob || strncmp(d->key, "generation ", 11) == 0;
    return count;
}

static int
mark_verified(void *argument, struct generation generation, const struct verify_result *result)
{
    struct verifying *x = argument;
    BUFFER_AUTO marker = {0};
    log_new_damage(x, result);
    buffer_append_le64(&marker, generation.v);
    buffer_append_le64(&marker, x->damaged_before + count_marked(result));
    return job_mark(x->run, marker.data, marker.length);
}

static void
read_marker(struct verifying *x)
{
    const struct job_record *job = x->run->job;
    struct byte_reader r = byte_reader_over(job->marker, job->marker_length);
    if (job->marker_length != MARKER_BYTES)
        return;
    x->after.v = read_le64(&r);
    x->damaged_before = read_le64(&r);
}

// The record keeps the first line.
static int
report(struct verifying *x, const struct verify_result *result, bool data)
{
    static const struct volume_verified done;
    struct buffer *out = x->run->text;
    const struct verify_damage *first = result->damages;
    uint64_t damaged = x->damaged_before + result->damaged;
    log_new_damage(x, result);
    if (damaged > 0 && first)
        buffer_printf(
            out, "%" PRIu64 " objects are damaged: %s: %s\n", damaged, first->key, first->why);
    else if (damaged > 0)
        buffer_printf(
            out, "%" PRIu64 " objects are damaged: the daemon's log names them\n", damaged);
    if (damaged > 0 && !first)
        buffer_append_string(out, "since the job was interrupted: ");
    offline_print_report(result, &done, data, out);
    return damaged > 0 ? -EBADMSG : 0;
}

int
volume_verify_run(void *argument, struct job_run *run)
{
    struct volume *v = argument;
    struct verifying x = {.run = run};
    struct job_verification order;
    struct volume_bucket bucket;
    struct manifest *scratch;
    struct verify_result result = {0};
    char *path;
    int rc = job_read_parameters(run->job, &order);
    if (rc < 0)
        return rc;
    read_marker(&x);
    volume_bucket_init(&bucket, v, is_interrupted, run);
    rc = volume_open_scratch(v, "verify", &scratch, &path);
    const struct verify_options options = {
        .place = &bucket.place,
        .manifest = scratch,
        .data = order.data,
        .after = x.after,
        .looked = mark_verified,
        .progress = tell_verified,
        .argument = &x,
    };
    if (rc == 0)
        rc = verify_run(&options, &result);
    if (rc == 0)
        rc = report(&x, &result, order.data);
    else if (rc != -ECANCELED)
        volume_operator_say_failure(rc, run->text);
    verify_result_free(&result);
    volume_close_scratch(scratch, path);
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
    if (rc == -EDQUOT)
        buffer_append_string(run->text, ", and the quota has no more room");
    return rc;
}
