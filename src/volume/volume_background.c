// SPDX-License-Identifier: Apache-2.0
// The jobs VerifyManifest and DownloadCheckpoint, which read from the store in the background. A
// run after a death begins anew: verifying changes nothing, and fetching passes over what is here.
#include <errno.h>
#include <inttypes.h>

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

static int
tell_verified(void *argument, const char *what, uint64_t done, uint64_t total)
{
    struct job_run *run = argument;
    job_progress(run, what, done, total);
    return job_is_interrupted(run) ? -ECANCELED : 0;
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

// The record keeps the first line.
static int
report(const struct verify_result *result, bool data, struct buffer *out)
{
    static const struct volume_verified done;
    const struct verify_damage *first = result->damages;
    if (result->damaged == 0) {
        offline_print_report(result, &done, data, out);
        return 0;
    }
    buffer_printf(
        out, "%" PRIu64 " objects are damaged: %s: %s\n", result->damaged, first->key, first->why);
    offline_print_report(result, &done, data, out);
    for (const struct verify_damage *d = first; d; d = d->next)
        log_damage(d);
    return -EBADMSG;
}

int
volume_verify_run(void *argument, struct job_run *run)
{
    struct volume *v = argument;
    struct job_verification order;
    struct volume_bucket bucket;
    struct manifest *scratch;
    struct verify_result result = {0};
    char *path;
    int rc = job_read_parameters(run->job, &order);
    if (rc < 0)
        return rc;
    volume_bucket_init(&bucket, v, is_interrupted, run);
    rc = volume_open_scratch(v, "verify", &scratch, &path);
    const struct verify_options options = {
        .place = &bucket.place,
        .manifest = scratch,
        .data = order.data,
        .progress = tell_verified,
        .argument = run,
    };
    if (rc == 0)
        rc = verify_run(&options, &result);
    if (rc == 0)
        rc = report(&result, order.data, run->text);
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
