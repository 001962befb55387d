// SPDX-License-Identifier: Apache-2.0
#include "volume/volume_fetch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "quota/quota_job.h"
#include "volume/volume_hot.h"
#include "volume/volume_internal.h"

#define FETCHERS 4u
// Pieces begin at multiples of it in their blob.
#define PIECE_BYTES (4u << 20)
// One call to the store takes no longer.
#define CALL_MS 60000u

// Bytes of a blob.
struct range {
    struct sha256 blob;
    uint64_t offset, length;
};

struct work {
    struct volume *v;
    const struct volume_fetch *what;
    struct range *ranges;
    size_t count, capacity;
    bool limited; // by the quota
    struct quota_job *budget;
    atomic_int error;

    struct lock lock; // "fetch": protects all below
    size_t next;
    uint64_t at; // in the next range
    struct volume_fetched done;
};

// ---- the images ---------------------------------------------------------------------------------

static void
add_range(struct work *w, const struct sha256 *blob, uint64_t offset, uint64_t length)
{
    if (length == 0)
        return;
    if (w->count == w->capacity) {
        w->capacity = w->capacity ? 2 * w->capacity : 64;
        w->ranges = memory_realloc(w->ranges, w->capacity * sizeof(*w->ranges));
    }
    w->ranges[w->count++] = (struct range){*blob, offset, length};
    w->done.total_bytes += length;
}

static int
add_blob(void *argument, const struct blob_record *blob)
{
    add_range(argument, &blob->hash, 0, blob->bytes);
    return 0;
}

static int
find_all(struct work *w)
{
    struct manifest_reader *r;
    const struct sha256 first = {{0}};
    int rc = manifest_read_begin(w->v->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_remote_blobs(r, w->v->db, &first, add_blob, w);
    manifest_read_end(r);
    return rc;
}

static void
add_image(void *argument, const struct blob_location *where)
{
    add_range(argument, &where->blob, where->offset, where->length);
}

static int
find_ranges(struct work *w)
{
    return w->what->inode == 0 ? find_all(w)
                               : volume_visit_images(w->v, w->what->inode, add_image, w);
}

// ---- fetching -----------------------------------------------------------------------------------

// Asked from inside the store.
static bool
is_stopping(void *argument)
{
    struct work *w = argument;
    if (atomic_load(&w->error) != 0)
        return true;
    return w->what->is_canceled && w->what->is_canceled(w->what->argument);
}

static void
fail(struct work *w, int rc)
{
    int none = 0;
    (void)atomic_compare_exchange_strong(&w->error, &none, rc);
}

static bool
take_piece(struct work *w, struct range *out)
{
    lock_take(&w->lock);
    bool more = w->next < w->count;
    if (more) {
        const struct range *r = &w->ranges[w->next];
        uint64_t offset = r->offset + w->at;
        uint64_t end = (offset / PIECE_BYTES + 1) * PIECE_BYTES;
        if (end > r->offset + r->length)
            end = r->offset + r->length;
        *out = (struct range){r->blob, offset, end - offset};
        w->at += out->length;
        if (w->at == r->length) {
            w->next++;
            w->at = 0;
        }
    }
    lock_release(&w->lock);
    return more;
}

// Under a limit, fetching all must leave room to those that read.
static bool
has_room(const struct work *w, uint64_t bytes)
{
    struct storage_quota_numbers n;
    if (!w->limited || w->what->inode != 0)
        return true;
    storage_quota_numbers(w->v->quota, &n);
    return n.room >= bytes + (uint64_t)FETCHERS * PIECE_BYTES;
}

static int
fetch_piece(struct work *w, const struct range *piece)
{
    struct volume *v = w->v;
    struct blob_record blob;
    const struct remote_call call = {
        .deadline_ms = clock_monotonic_ms() + CALL_MS,
        .is_canceled = is_stopping,
        .argument = w,
        .class = REMOTE_JOB,
        .budget = w->budget,
    };
    if (local_store_has(v->local, &piece->blob))
        return 0;
    int rc = chunk_map_read_blob(v->map, &piece->blob, &blob);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc; // nothing needs it any more
    uint64_t end = piece->offset + piece->length;
    if (!has_room(w, piece->length) &&
        local_store_find_hole(v->local, &piece->blob, piece->offset, end) < end)
        return -EDQUOT;
    rc = chunk_reader_fetch(v->reader, &blob, piece->offset, piece->length, &call);
    // CheckpointGC may have deleted it meanwhile, since nothing needs it any more.
    if (rc < 0 && chunk_map_read_blob(v->map, &piece->blob, &blob) == -ENOENT)
        return 0;
    return rc;
}

// Returns the bytes so far.
static uint64_t
note_done(struct work *w, uint64_t bytes)
{
    lock_take(&w->lock);
    w->done.done_bytes += bytes;
    uint64_t done = w->done.done_bytes;
    lock_release(&w->lock);
    return done;
}

// False: there is nothing more to do.
static bool
fetch_next(struct work *w, uint64_t *done_out)
{
    struct range piece;
    if (is_stopping(w) || !take_piece(w, &piece))
        return false;
    int rc = fetch_piece(w, &piece);
    if (rc < 0)
        fail(w, rc);
    else
        *done_out = note_done(w, piece.length);
    return rc == 0;
}

static void
fetch_run(void *argument)
{
    struct work *w = argument;
    uint64_t done;
    flush_pace_bind(&w->v->pace);
    while (fetch_next(w, &done))
        ;
}

static void
fetch_ranges(struct work *w)
{
    struct thread threads[FETCHERS];
    unsigned started = 0;
    while (started + 1 < FETCHERS && started + 1 < w->count &&
           thread_start(&threads[started], "fetch", fetch_run, w) == 0)
        started++;
    uint64_t done;
    while (fetch_next(w, &done))
        if (w->what->progress)
            w->what->progress(w->what->argument, done, w->done.total_bytes);
    for (unsigned i = 0; i < started; i++)
        thread_join(&threads[i]);
}

// A file that is larger than what jobs may take would push itself out.
static bool
pushes_itself_out(const struct work *w)
{
    uint64_t limit = storage_quota_job_limit(w->v->quota);
    return limit > 0 && w->what->inode != 0 && w->done.total_bytes > limit;
}

int
volume_fetch(struct volume *v, const struct volume_fetch *what, struct volume_fetched *fetched_out)
{
    struct work w = {
        .v = v,
        .what = what,
        .limited = v->quota && storage_quota_is_limited(v->quota),
        .budget = quota_job_begin(v->quota),
    };
    lock_init(&w.lock, "fetch", LOCK_RANK_PLATFORM);
    int rc = find_ranges(&w);
    bool too_large = rc == 0 && pushes_itself_out(&w);
    if (too_large)
        rc = -EDQUOT;
    if (rc == 0 && w.count > 0)
        fetch_ranges(&w);
    if (rc == 0)
        rc = atomic_load(&w.error);
    bool canceled = what->is_canceled && what->is_canceled(what->argument);
    if (rc == 0 ? canceled && w.done.done_bytes < w.done.total_bytes : canceled)
        rc = -ECANCELED;
    w.done.budget_is_used_up = too_large || quota_job_was_refused(w.budget);
    *fetched_out = w.done;
    quota_job_end(w.budget);
    lock_destroy(&w.lock);
    free(w.ranges);
    return rc;
}

// ---- the job ------------------------------------------------------------------------------------

void
volume_say_no_room(const struct volume *v, const struct volume_fetched *fetched, struct buffer *out)
{
    struct storage_quota_numbers n;
    storage_quota_numbers(v->quota, &n);
    buffer_append_string(out, "the quota has no room for more");
    if (fetched->budget_is_used_up)
        buffer_printf(out, ", of which jobs may take %" PRIu64 " bytes (%" PRIu64 " per cent)",
            n.job_limit, n.job_share);
}

static void
tell_progress(void *run, uint64_t done_bytes, uint64_t total_bytes)
{
    job_progress(run, "fetching", done_bytes, total_bytes);
}

int
volume_hydrate_run(void *argument, struct job_run *run)
{
    struct volume *v = argument;
    struct job_hydration order;
    struct volume_fetched fetched = {0};
    int rc = job_read_parameters(run->job, &order);
    if (rc < 0)
        return rc;
    if (order.hot)
        return volume_hot_fetch_run(v, run);
    const struct volume_fetch what = {
        .inode = order.object.v,
        .is_canceled = job_is_interrupted,
        .progress = tell_progress,
        .argument = run,
    };
    // The first, so that what has come stays while the rest comes, also between two runs.
    if (order.keep)
        rc = volume_keep(v, order.object.v, run->job->id);
    if (rc == 0)
        rc = volume_fetch(v, &what, &fetched);
    if (rc == 0 && order.keep)
        volume_end_keep(v, order.object.v, run->job->id, true);
    job_progress(run, "fetched", fetched.done_bytes, fetched.total_bytes);
    if (rc == -EDQUOT) {
        volume_say_no_room(v, &fetched, run->text);
        buffer_printf(run->text, ": %" PRIu64 " of %" PRIu64 " bytes are here", fetched.done_bytes,
            fetched.total_bytes);
    }
    return rc;
}

// A pin of a file that is not here would be in the way of all else.
void
volume_hydrate_failed(void *argument, const struct job_record *job)
{
    struct job_hydration order;
    if (job_read_parameters(job, &order) == 0 && order.keep)
        volume_end_keep(argument, order.object.v, job->id, false);
}

int
volume_hydrate(struct volume *v, struct object_id object, bool keep, uint64_t *job_out)
{
    struct volume_attributes a;
    const struct job_hydration order = {.object = object, .keep = keep};
    if (!v->jobs)
        return -EROFS;
    int rc = object.v != 0 ? volume_get_attributes(v, object, &a) : 0;
    if (rc == 0 && object.v != 0 && !S_ISREG(a.inode.mode))
        rc = -EINVAL;
    if (rc < 0)
        return rc;
    return job_queue_submit(v->jobs, JOB_HYDRATE_FILES, &order, JOB_PRIORITY_ASKED, NULL, job_out);
}

int
volume_hydrate_hot(struct volume *v, uint64_t *job_out)
{
    const struct job_hydration order = {.hot = true};
    if (!v->jobs)
        return -EROFS;
    return job_queue_submit(v->jobs, JOB_HYDRATE_FILES, &order, JOB_PRIORITY_ASKED, NULL, job_out);
}
