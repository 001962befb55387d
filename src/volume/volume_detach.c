// SPDX-License-Identifier: Apache-2.0
// The job DetachFork: makes a mounted fork independent of its parent while programs write to it
// (doc/retention.md, Detaching). It copies the blobs that lie in other volumes' places, lets the
// next fold say that they lie in the own one, publishes that, and takes the pins in the parent away
// when no generation needs them.
//
// New blobs lie in the volume's own place, so the others only become fewer: the job goes through
// them once, in the order of their hashes, and its marker is the first one that is not copied.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "quota/quota_job.h"
#include "retention/detach.h"
#include "volume/volume_internal.h"
#include "volume/volume_operator.h"

struct detaching {
    struct volume_bucket bucket;
    struct volume *v;
    struct job_run *run;
    struct sha256 from;
    uint64_t left, left_bytes; // blobs when the run began
};

static bool
is_interrupted(void *argument)
{
    const struct detaching *d = argument;
    return job_is_interrupted(d->run);
}

// ---- a manifest for a while ---------------------------------------------------------------------

// The jobs that have one.
static const char *const scratch_names[] = {"verify", "detach"};

static uint64_t
manifest_bytes(const char *directory)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/data.mdb", directory);
    return storage_quota_path_bytes(path);
}

static int
reserve_scratch(struct volume_scratch *s)
{
    CLEANUP(memory_free_auto) char *manifest = memory_printf("%s/manifest", s->v->config.root);
    uint64_t bytes = manifest_bytes(manifest);
    int rc = quota_job_ask(s->budget, bytes);
    if (rc < 0)
        return rc;
    rc = storage_quota_reserve(s->v->quota, QUOTA_BLOBS, QUOTA_CACHE, bytes);
    if (rc < 0)
        quota_job_give_back(s->budget, bytes);
    else
        s->reserved = bytes;
    return rc;
}

int
volume_open_scratch(
    struct volume *v, const char *name, struct quota_job *budget, struct volume_scratch *out)
{
    const struct manifest_options options = {.no_sync = true};
    // Beside the scratch directory, in which the janitor removes what is old.
    *out = (struct volume_scratch){
        .v = v, .path = memory_printf("%s.%s", v->place.scratch, name), .budget = budget};
    int rc = path_remove_tree(out->path);
    if (rc == 0 || rc == -ENOENT)
        rc = reserve_scratch(out);
    if (rc == 0)
        rc = path_make_directories(out->path, 0700);
    return rc < 0 ? rc : manifest_open(out->path, &options, &out->manifest);
}

void
volume_count_scratch(struct volume_scratch *s)
{
    uint64_t bytes = manifest_bytes(s->path);
    if (bytes <= s->reserved)
        return;
    storage_quota_settle(s->v->quota, QUOTA_BLOBS, s->reserved, bytes);
    // It is there already.
    (void)!quota_job_ask(s->budget, bytes - s->reserved);
    s->reserved = bytes;
}

void
volume_close_scratch(struct volume_scratch *s)
{
    manifest_close(s->manifest);
    if (path_remove_tree(s->path) < 0)
        log_warning("scratch.failed", "cannot remove %s", s->path);
    storage_quota_give_back(s->v->quota, QUOTA_BLOBS, s->reserved);
    free(s->path);
}

void
volume_sweep_scratch(struct volume *v)
{
    for (size_t i = 0; i < ARRAY_LENGTH(scratch_names); i++) {
        CLEANUP(memory_free_auto)
        char *path = memory_printf("%s.%s", local_store_scratch(v->local), scratch_names[i]);
        if (path_remove_tree(path) < 0)
            log_warning("scratch.failed", "cannot remove %s", path);
    }
}

// ---- the steps ----------------------------------------------------------------------------------

static int
check_fork(struct detaching *d)
{
    struct manifest_record_header origin;
    int rc = remote_manifest_origin(&d->bucket.place, &origin);
    if (rc < 0 || origin.has_parent)
        return rc;
    buffer_printf(d->run->text, "the volume is no fork");
    return -EINVAL;
}

static int
tell(void *argument, const struct detach_counts *counts)
{
    const struct detaching *d = argument;
    job_progress(d->run, "copying blobs", counts->blobs, d->left);
    return job_is_interrupted(d->run) ? -ECANCELED : 0;
}

static int
mark(void *argument, const struct sha256 *next)
{
    const struct detaching *d = argument;
    return job_mark(d->run, next, sizeof(*next));
}

static int
copy(struct detaching *d, struct detach_counts *counts_out)
{
    const struct detach_options options = {
        .place = &d->bucket.place,
        .manifest = d->v->manifest,
        .db = d->v->db,
        .from = d->from,
        .mark = mark,
        .progress = tell,
        .argument = d,
    };
    int rc = detach_count(d->v->manifest, d->v->db, &d->left, &d->left_bytes);
    if (rc == 0)
        rc = detach_copy(&options, counts_out);
    return rc;
}

// The manifest, then the chain. A run after a death finds out which of these is done.
static int
publish(struct detaching *d)
{
    struct volume *v = d->v;
    int needed = detach_is_needed(v->manifest, v->db);
    if (needed < 0)
        return needed;
    if (needed > 0)
        checkpoint_own_places(v->checkpoint);
    job_progress(d->run, "publishing", d->left, d->left);
    int rc = volume_await_checkpoint(v, CHECKPOINT_REQUEST_PUBLISH, is_interrupted, d);
    if (rc < 0)
        return rc;
    needed = detach_is_needed(v->manifest, v->db);
    if (needed == 0)
        crash_point("detach.published");
    return needed > 0 ? -EAGAIN : needed;
}

static int
find_need(struct detaching *d, struct generation *needed_out)
{
    struct manifest_reader *r;
    struct db_record db;
    struct volume_scratch scratch;
    int rc = manifest_read_begin(d->v->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_db(r, d->v->db, &db);
    manifest_read_end(r);
    if (rc < 0)
        return rc;
    job_progress(d->run, "looking at generations", d->left, d->left);
    rc = volume_open_scratch(d->v, "detach", d->bucket.place.call.budget, &scratch);
    if (rc == 0)
        rc = detach_find_need(&d->bucket.place, scratch.manifest, db.published, needed_out);
    volume_close_scratch(&scratch);
    return rc;
}

static int
let_go(struct detaching *d, const struct detach_counts *counts)
{
    struct generation needed_by;
    struct db_record db;
    struct manifest_reader *r;
    uint64_t released;
    int rc = find_need(d, &needed_by);
    if (rc < 0)
        return rc;
    buffer_printf(d->run->text, "%" PRIu64 " blobs are copied", counts->copied);
    if (needed_by.v != 0) {
        buffer_printf(d->run->text,
            "; generation %" PRIu64 " needs the parent still: detach again when it is deleted",
            needed_by.v);
        return 0;
    }
    rc = manifest_read_begin(d->v->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_db(r, d->v->db, &db);
    manifest_read_end(r);
    if (rc == 0)
        rc = remote_pins_release(&d->bucket.place, &db.volume, &released);
    if (rc < 0)
        return rc;
    crash_point("detach.released");
    buffer_append_string(d->run->text, "; the volume does without its parent, which is free");
    return 0;
}

int
volume_detach_run(void *argument, struct job_run *run)
{
    struct detaching d = {.v = argument, .run = run};
    struct detach_counts counts = {0};
    if (run->job->marker_length == sizeof(d.from))
        memcpy(&d.from, run->job->marker, sizeof(d.from));
    volume_bucket_init(&d.bucket, d.v, is_interrupted, &d);
    struct quota_job *budget = quota_job_begin(d.v->quota);
    d.bucket.place.call.budget = budget;
    int rc = check_fork(&d);
    if (rc == 0)
        rc = copy(&d, &counts);
    if (rc == 0)
        rc = publish(&d);
    if (rc == 0)
        rc = let_go(&d, &counts);
    if (rc < 0 && rc != -ECANCELED && run->text->length == 0)
        volume_operator_say_failure(rc, run->text);
    quota_job_end(budget);
    return rc;
}
