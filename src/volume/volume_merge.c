// SPDX-License-Identifier: Apache-2.0
// Upkeep of what is published: the job MergeChunks. Chains of deltas that are long, bases that are
// outweighed by their deltas, and packs that hold little are written again, also on a host that
// holds none of them: the job looks for them (volume_survey.h), fetches the images that it takes as
// a background reader, and offers the chunks to the next checkpoint (checkpoint_offer.h), again and
// again until nothing is left to do.
//
// The job itself changes nothing. It can die, fail or run twice at any step.
//
// The housekeeping thread looks now and then whether there is something to do, and submits the job
// then.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint_offer.h"
#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "quota/quota_job.h"
#include "volume/volume_internal.h"
#include "volume/volume_survey.h"

#define STEP_ENTRIES 2048u
#define POLL_MS      50u
// Ranges of a blob with less than this between them are fetched together.
#define GAP_BYTES (128u << 10)
// So much room on this host, in parts, may the images of one offer take.
#define ROOM_PARTS 8u
#define LEFT_MAX   1024u

// What the housekeeping thread and the worker share.
struct volume_merge {
    struct volume *v;
    // The housekeeping thread's own.
    uint64_t next_look_ms;
    struct generation seen; // at the last look
    bool looking;
    struct survey survey;

    struct lock lock; // "merge": protects all below. A thread holds it while it submits the job
    bool has_queue;
    // Chunks that the job could do nothing for: they are left alone until they change.
    struct left_chunk {
        struct chunk_id id;
        struct generation generation;
    } left[LEFT_MAX];
    size_t left_count; // ever; the newest are kept
};

void
volume_open_merge(struct volume *v)
{
    v->merge = memory_alloc_zero(sizeof(*v->merge));
    v->merge->v = v;
    v->merge->next_look_ms = clock_monotonic_ms() + v->config.merge_interval_ms / 8;
    lock_init(&v->merge->lock, "merge", LOCK_RANK_CONTROL);
}

void
volume_close_merge(struct volume *v)
{
    if (!v->merge)
        return;
    survey_end(&v->merge->survey);
    lock_destroy(&v->merge->lock);
    free(v->merge);
    v->merge = NULL;
}

static bool
is_left(void *argument, struct chunk_id id, struct generation generation)
{
    struct volume_merge *m = argument;
    bool found = false;
    lock_take(&m->lock);
    size_t n = m->left_count < LEFT_MAX ? m->left_count : LEFT_MAX;
    for (size_t i = 0; i < n && !found; i++)
        found = m->left[i].id.v == id.v && m->left[i].generation.v == generation.v;
    lock_release(&m->lock);
    return found;
}

static void
leave(struct volume_merge *m, const struct upkeep_chunk *c)
{
    lock_take(&m->lock);
    m->left[m->left_count++ % LEFT_MAX] = (struct left_chunk){c->id, c->generation};
    lock_release(&m->lock);
}

// The images of an offer have to stay here until the fold has read them, and what it makes of them
// needs room, too.
static uint64_t
room_for_offer(struct volume *v)
{
    struct manifest_reader *r;
    struct db_totals totals = {0};
    if (manifest_read_begin(v->manifest, &r) < 0)
        return 0;
    int rc = manifest_read_totals(r, v->db, &totals);
    manifest_read_end(r);
    uint64_t room = rc < 0 ? 0 : volume_quota_room(v, totals.unpublished_bytes) / ROOM_PARTS;
    struct storage_quota_numbers n;
    storage_quota_numbers(v->quota, &n);
    return (n.job_room < room ? n.job_room : room) / UPKEEP_FETCH_TIMES;
}

static void
begin_survey(struct volume *v, struct survey *s)
{
    const struct survey_options options = {.manifest = v->manifest,
        .db = v->db,
        .local = v->local,
        .is_left = is_left,
        .argument = v->merge,
        .allowance_max = room_for_offer(v)};
    survey_begin(s, &options);
}

// ---- looking now and then -----------------------------------------------------------------------

static bool
has_changed(struct volume_merge *m)
{
    struct manifest_reader *r;
    struct db_record db;
    if (manifest_read_begin(m->v->manifest, &r) < 0)
        return false;
    int rc = manifest_read_db(r, m->v->db, &db);
    manifest_read_end(r);
    if (rc < 0 || db.local.v == m->seen.v)
        return false;
    m->seen = db.local;
    return true;
}

void
volume_merge_has_queue(struct volume *v, bool has_queue)
{
    lock_take(&v->merge->lock);
    v->merge->has_queue = has_queue;
    lock_release(&v->merge->lock);
}

static void
submit(struct volume *v)
{
    uint64_t id;
    lock_take(&v->merge->lock);
    int rc = -EROFS;
    if (v->merge->has_queue)
        rc = job_queue_submit(v->jobs, JOB_MERGE_CHUNKS, NULL, JOB_PRIORITY_IDLE, NULL, &id);
    lock_release(&v->merge->lock);
    if (rc < 0 && rc != -EEXIST && rc != -EROFS)
        log_warning("merge.failed", "cannot put the job into the queue: %s", strerror(-rc));
}

void
volume_watch_merge(struct volume *v)
{
    struct volume_merge *m = v->merge;
    uint64_t now = clock_monotonic_ms();
    struct checkpoint_numbers numbers;
    // Without a timer, checkpoints are made on demand only, and upkeep with them.
    if (v->config.merge_interval_ms == 0 || v->config.checkpoint_interval_ms == 0)
        return;
    if (!m->looking) {
        if (now < m->next_look_ms)
            return;
        m->next_look_ms = now + v->config.merge_interval_ms;
        checkpoint_numbers(v->checkpoint, &numbers);
        if (!numbers.claimed || numbers.fenced || !numbers.store_reachable || !has_changed(m))
            return;
        begin_survey(v, &m->survey);
        m->looking = true;
    }
    int rc = survey_step(&m->survey, STEP_ENTRIES);
    if (rc > 0)
        return;
    if (rc == 0 && m->survey.count > 0)
        submit(v);
    survey_end(&m->survey);
    m->looking = false;
}

// ---- fetching -----------------------------------------------------------------------------------

struct wanted {
    struct blob_record blob;
    uint64_t offset;
    uint64_t length;
};

// One round of the job.
struct round {
    struct volume *v;
    struct job_run *run;
    struct remote_call call;
    struct survey survey;
    struct checkpoint_offer *offer;
    struct wanted *wanted;
    size_t wanted_count;
    size_t wanted_capacity;
};

static void
want(struct round *x, const struct chunk_image *image)
{
    if (x->wanted_count == x->wanted_capacity) {
        x->wanted_capacity = x->wanted_capacity ? 2 * x->wanted_capacity : 64;
        x->wanted = memory_realloc(x->wanted, x->wanted_capacity * sizeof(*x->wanted));
    }
    x->wanted[x->wanted_count++] = (struct wanted){
        .blob = image->blob, .offset = image->where.offset, .length = image->where.length};
}

static int
compare_wanted(const void *p, const void *q)
{
    const struct wanted *x = p;
    const struct wanted *y = q;
    int order = memcmp(&x->blob.hash, &y->blob.hash, sizeof(x->blob.hash));
    return order != 0 ? order : x->offset < y->offset ? -1 : x->offset > y->offset;
}

// Pins the images that a chunk needs, and notes those that are not here as a whole.
static int
note_images(struct round *x, const struct upkeep_chunk *c)
{
    struct chunk_layout *layout;
    int rc = chunk_map_get(x->v->map, c->object, c->index, &layout);
    for (size_t i = 0; layout && i < c->images && i < layout->image_count; i++) {
        const struct sha256 *blob = &layout->images[i].where.blob;
        pin_blob(x->offer->pin, blob);
        if (!local_store_has(x->v->local, blob))
            want(x, &layout->images[i]);
    }
    chunk_layout_put(x->v->map, layout);
    return rc;
}

static int
fetch(struct round *x)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < x->survey.count; i++)
        rc = note_images(x, &x->survey.chunks[i]);
    if (x->wanted_count > 0)
        qsort(x->wanted, x->wanted_count, sizeof(*x->wanted), compare_wanted);
    for (size_t i = 0, next; rc == 0 && i < x->wanted_count; i = next) {
        const struct wanted *first = &x->wanted[i];
        uint64_t end = first->offset + first->length;
        for (next = i + 1; next < x->wanted_count; next++) {
            const struct wanted *w = &x->wanted[next];
            if (!sha256_equal(&w->blob.hash, &first->blob.hash) || w->offset > end + GAP_BYTES)
                break;
            end = w->offset + w->length > end ? w->offset + w->length : end;
        }
        job_progress(x->run, "fetching", i, x->wanted_count);
        chunk_reader_get_range(
            x->v->reader, &first->blob, first->offset, end - first->offset, &x->call);
        rc = job_is_interrupted(x->run) ? -EINTR : 0;
    }
    return rc;
}

// ---- offering -----------------------------------------------------------------------------------

// Adds the chunk to the offer if the images that it needs can be read here.
static int
offer_chunk(struct round *x, const struct upkeep_chunk *c)
{
    struct chunk_layout *layout;
    int rc = chunk_map_get(x->v->map, c->object, c->index, &layout);
    if (rc < 0 || !layout)
        return rc < 0 ? rc : -ENOENT;
    for (size_t i = 0; rc == 0 && i < c->images && i < layout->image_count; i++) {
        const struct blob_location *where = &layout->images[i].where;
        if (local_store_has(x->v->local, &where->blob))
            continue;
        rc = chunk_reader_check_image(x->v->reader, layout, i, &x->call);
        if (rc == 0)
            checkpoint_offer_add_image(x->offer, &where->blob, where->offset);
    }
    chunk_layout_put(x->v->map, layout);
    if (rc == 0)
        checkpoint_offer_add_chunk(x->offer, c->object, c->index);
    return rc;
}

// Chunks whose images cannot be had are left out: nothing is worse than before for them.
static int
offer_chunks(struct round *x)
{
    int rc = 0;
    for (size_t i = 0; rc != -EINTR && rc != -EDQUOT && i < x->survey.count; i++) {
        job_progress(x->run, "checking", i, x->survey.count);
        rc = job_is_interrupted(x->run) ? -EINTR : offer_chunk(x, &x->survey.chunks[i]);
        if (rc < 0 && rc != -EINTR && rc != -EDQUOT && rc != -ESTALE && rc != -ENOENT)
            leave(x->v->merge, &x->survey.chunks[i]);
    }
    if (rc == -EINTR)
        return rc;
    x->offer->packs = x->survey.packs;
    x->offer->pack_count = x->survey.pack_count;
    x->survey.packs = NULL;
    x->survey.pack_count = 0;
    x->offer->allowance_bytes = x->survey.allowance_bytes;
    return x->offer->count > 0;
}

// The next checkpoint takes the offer. Without a timer somebody has asked for this job, and so for
// its checkpoints, too.
static int
wait_for_fold(struct round *x)
{
    struct volume *v = x->v;
    job_progress(x->run, "checkpointing", 0, 0);
    if (v->config.checkpoint_interval_ms == 0)
        return volume_await_checkpoint(v, CHECKPOINT_REQUEST_PUBLISH, job_is_interrupted, x->run);
    while (checkpoint_has_offer(v->checkpoint) && !job_is_interrupted(x->run))
        clock_sleep_ms(POLL_MS);
    return job_is_interrupted(x->run) ? -EINTR : 0;
}

// How many of the chunks have changed since they were looked at. The rest, and a round without any,
// would come to the same again.
static size_t
count_changed(struct round *x)
{
    struct manifest_reader *r;
    size_t changed = 0;
    if (manifest_read_begin(x->v->manifest, &r) < 0)
        return 0;
    for (size_t i = 0; i < x->survey.count; i++) {
        const struct upkeep_chunk *c = &x->survey.chunks[i];
        struct chunk_entry now;
        int rc = manifest_read_chunk(r, x->v->db, c->object, c->index, &now);
        changed += rc == -ENOENT || (rc == 0 && now.generation.v != c->generation.v);
    }
    manifest_read_end(r);
    if (changed == 0)
        for (size_t i = 0; i < x->survey.count; i++)
            leave(x->v->merge, &x->survey.chunks[i]);
    return changed;
}

static int
look(struct round *x)
{
    int rc;
    begin_survey(x->v, &x->survey);
    do {
        rc = survey_step(&x->survey, STEP_ENTRIES);
    } while (rc > 0 && !job_is_interrupted(x->run));
    return rc > 0 ? -EINTR : rc;
}

static int
offer_round(struct round *x)
{
    x->offer = checkpoint_offer_new();
    x->offer->pin = pin_begin(local_store_pins(x->v->local), "merge", "its pages are merged");
    int rc = fetch(x);
    if (rc == 0)
        rc = offer_chunks(x);
    crash_point("merge.fetched");
    if (rc <= 0)
        return rc;
    checkpoint_offer_finish(x->offer);
    checkpoint_make_offer(x->v->checkpoint, x->offer);
    x->offer = NULL;
    rc = wait_for_fold(x);
    return rc < 0 ? rc : 1;
}

// 1: there may be more to do; 0: there is not; or -errno.
static int
run_round(struct volume *v, struct job_run *run, size_t *changed_out)
{
    struct round x = {.v = v,
        .run = run,
        .call = {.is_canceled = job_is_interrupted, .argument = run, .class = REMOTE_JOB}};
    *changed_out = 0;
    x.call.budget = quota_job_begin(v->quota);
    int rc = look(&x);
    if (rc == 0 && x.survey.count > 0)
        rc = offer_round(&x);
    if (rc == 1) {
        *changed_out = count_changed(&x);
        rc = *changed_out > 0;
    }
    checkpoint_offer_free(x.offer);
    survey_end(&x.survey);
    free(x.wanted);
    quota_job_end(x.call.budget);
    return rc;
}

int
volume_merge_run(void *argument, struct job_run *run)
{
    struct volume *v = argument;
    size_t total = 0;
    int rc;
    do {
        size_t changed;
        rc = run_round(v, run, &changed);
        total += changed;
    } while (rc == 1);
    if (rc == 0)
        buffer_printf(run->text, "%zu chunks were written again", total);
    return rc;
}

int
volume_merge(struct volume *v, uint64_t *job_out)
{
    if (!v->jobs)
        return -EROFS;
    int rc = job_queue_submit(v->jobs, JOB_MERGE_CHUNKS, NULL, JOB_PRIORITY_IDLE, NULL, job_out);
    return rc == -EEXIST ? 0 : rc;
}
