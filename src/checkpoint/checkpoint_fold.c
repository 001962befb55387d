// SPDX-License-Identifier: Apache-2.0
// The local generation: the fold thread moves the writes since the last one from the WAL to blobs
// in hot_cache and one manifest transaction. Nothing here needs the store.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint/checkpoint_internal.h"
#include "jobs/job_kinds.h"
#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/random.h"

struct fold {
    struct checkpoint *c;
    struct checkpoint_cut cut;
    struct checkpoint_input input;
    struct checkpoint_plan plan;
    struct checkpoint_staging staging;
    struct manifest_released released;
    struct generation generation;
    struct job_record job;
    struct db_counters counters; // with the chunk ids given out here
    char *directory;
    uint64_t started_ms;
    bool own_places; // checkpoint_own_places
};

static void
begin_event(struct fold *f, struct log_event *e, const char *name)
{
    char id[37];
    log_begin(e, LOG_LEVEL_INFO, name);
    uuid_to_string(&f->job.checkpoint_id, id);
    log_u64(e, "job_id", f->job.id);
    log_string(e, "checkpoint_id", id);
}

// The publisher looks at the job too.
static void
share_job(struct fold *f)
{
    lock_take(&f->c->lock);
    f->c->job = f->job;
    lock_release(&f->c->lock);
}

bool
checkpoint_uses_scratch(struct checkpoint *c, const char *name)
{
    char id[37];
    lock_take(&c->lock);
    uuid_to_string(&c->job.checkpoint_id, id);
    lock_release(&c->lock);
    return strcmp(id, name) == 0;
}

// ---- planned ------------------------------------------------------------------------------------

// The generation number and the checkpoint id are durable before anything carries them, so that
// neither is ever used twice. An attempt that failed before its generation was handed to the
// manifest leaves nothing that carries the number but staged files, which are gone with it: the
// next attempt takes it, as long as it is the newest.
static int
begin_job(struct fold *f)
{
    struct checkpoint *c = f->c;
    struct manifest_reader *r;
    struct db_record db;
    int rc = manifest_read_begin(c->options.manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_db(r, c->options.db, &db);
    manifest_read_end(r);
    if (rc < 0)
        return rc;
    bool again = c->fold.unused.v > 0 && c->fold.unused.v + 1 == db.next.v;
    f->generation = again ? c->fold.unused : db.next;
    c->fold.unused.v = 0;
    f->counters = f->cut.counters;
    f->counters.next_chunk = db.counters.next_chunk > 0 ? db.counters.next_chunk : 1;
    lock_take(&c->lock);
    f->job.id = c->job.id; // an unfinished one is taken over
    lock_release(&c->lock);
    job_set_kind(&f->job, JOB_CREATE_CHECKPOINT, NULL, NULL);
    f->job.state = JOB_IN_FLIGHT;
    f->job.checkpoint_id = f->job.token = random_uuid();
    f->job.generation = f->generation;
    f->job.cut = f->cut.lsn;
    f->job.created_ms = f->job.updated_ms = clock_wall_ms();
    f->job.done = f->job.total = 0;
    snprintf(f->job.stage, sizeof(f->job.stage), "planned");
    struct manifest_batch *b = manifest_batch_new(c->options.db);
    manifest_batch_next_generation(b, (struct generation){f->generation.v + 1});
    manifest_batch_put_job(b, &f->job);
    rc = manifest_submit(c->options.manifest, b, NULL);
    if (rc < 0)
        return rc;
    c->fold.unused = f->generation;
    share_job(f);
    return 0;
}

static size_t
count_upkeep(const struct checkpoint_plan *plan)
{
    size_t n = 0;
    for (size_t i = 0; i < plan->count; i++)
        n += plan->actions[i].upkeep != PLAN_UPKEEP_NONE;
    return n;
}

static int
plan(struct fold *f)
{
    checkpoint_set_fold_phase(f->c, CHECKPOINT_PHASE_PLANNING);
    int rc = checkpoint_gather(f->c, &f->cut, &f->input);
    if (rc < 0)
        return rc;
    struct plan_policy policy = plan_policy_default;
    policy.enable_chunk_deltas = checkpoint_has_flag(f->c, DB_FLAG_CHUNK_DELTAS);
    policy.allowance_bytes = f->c->fold.offer ? f->c->fold.offer->allowance_bytes : 0;
    checkpoint_planner_plan(f->input.chunks, f->input.count, &policy, &f->plan);
    struct log_event e;
    begin_event(f, &e, "checkpoint.started");
    log_u64(&e, "generation", f->generation.v);
    log_u64(&e, "plan_size_bytes", f->plan.estimated_bytes);
    log_u64(&e, "chunk_actions", f->plan.count);
    log_u64(&e, "upkeep_actions", count_upkeep(&f->plan));
    log_u64(&e, "wal_cut", f->cut.lsn.v);
    log_end(&e);
    checkpoint_lease_plan(f->c, f->generation, &f->plan);
    crash_point("checkpoint.planned");
    return 0;
}

// ---- staged -------------------------------------------------------------------------------------

static int
stage(struct fold *f)
{
    checkpoint_set_fold_phase(f->c, CHECKPOINT_PHASE_STAGING);
    char id[37];
    uuid_to_string(&f->job.checkpoint_id, id);
    f->directory = memory_printf("%s/%s", f->c->options.place.scratch, id);
    // Not durable, which saves a flush: its files count only once they have other names.
    int rc = path_mkdir(f->directory, 0700);
    if (rc == -ENOENT)
        rc = path_make_directories(f->directory, 0700);
    if (rc == 0)
        rc = checkpoint_stage(f->c, &f->cut, &f->plan, &f->job, f->directory, &f->staging);
    if (rc == 0)
        rc = checkpoint_verify_staging(f->c, &f->staging);
    if (rc < 0)
        return rc;
    struct log_event e;
    begin_event(f, &e, "checkpoint.staged");
    log_u64(&e, "staged_chunks", f->staging.image_count);
    log_u64(&e, "staged_blobs", f->staging.blob_count);
    log_u64(&e, "staged_bytes", f->staging.bytes);
    log_u64(&e, "duration_ms", clock_monotonic_ms() - f->started_ms);
    log_end(&e);
    crash_point("checkpoint.staged");
    return 0;
}

// The blobs get their names in hot_cache before the transaction that names them. A crash in between
// leaves files without a record; the mount removes them. They are pinned until they are recorded:
// the manifest may know one of them as it was before, when the store had it.
static int
adopt(struct fold *f)
{
    struct checkpoint *c = f->c;
    size_t adopted = 0;
    c->fold.pin = pin_begin(local_store_pins(c->options.local), "fold", "it is recorded");
    for (size_t i = 0; i < f->staging.blob_count; i++) {
        struct staged_blob *blob = &f->staging.blobs[i];
        if (blob->part != STAGED_HERE)
            continue;
        pin_blob(c->fold.pin, &blob->record.hash);
        int rc = local_store_adopt(f->c->options.local, blob->path, &blob->record.hash);
        if (rc < 0)
            return rc;
        checkpoint_remember_crc(f->c, blob);
        adopted++;
    }
    return adopted > 0 ? local_store_sync(f->c->options.local) : 0;
}

// ---- recorded -----------------------------------------------------------------------------------

struct batch_walk {
    struct fold *f;
    struct manifest_batch *b;
};

static int
add_name_change(void *argument, const struct change *change)
{
    struct batch_walk *w = argument;
    manifest_batch_change(w->b, change, true, w->f->generation);
    return 0;
}

static struct blob_location
location_of(const struct fold *f, const struct staged_image *image)
{
    return (struct blob_location){
        .blob = f->staging.blobs[image->blob].record.hash,
        .offset = image->offset,
        .length = image->info.image_bytes,
        .index_offset = image->info.index_offset,
    };
}

static void
add_base(struct fold *f, struct manifest_batch *b, const struct staged_image *image)
{
    struct change c = {.kind = CHANGE_PUT_CHUNK};
    c.chunk = (struct chunk_entry){
        .id = image->chunk,
        .object = image->action->object,
        .index = image->action->index,
        .generation = f->generation,
        .base_generation = f->generation,
        .base = location_of(f, image),
        .base_pages = image->info.data_pages,
        .present_pages = image->present_pages,
        .sealed = image->action->sealed,
    };
    manifest_batch_change(b, &c, true, f->generation);
}

struct drop_merged {
    struct fold *f;
    struct manifest_batch *b;
    size_t left;
};

static int
drop_merged_delta(void *argument, const struct chunk_delta *delta)
{
    struct drop_merged *d = argument;
    if (d->left == 0)
        return 1;
    d->left--;
    struct change c = {.kind = CHANGE_DELETE_DELTA};
    c.delta = *delta;
    manifest_batch_change(d->b, &c, true, d->f->generation);
    return 0;
}

static int
add_delta(struct fold *f, struct manifest_batch *b, struct manifest_reader *r,
    const struct staged_image *image)
{
    struct drop_merged d = {f, b, image->action->merge_count};
    int rc = manifest_read_deltas(r, f->c->options.db, image->chunk, drop_merged_delta, &d);
    if (rc < 0)
        return rc;
    struct change put = {.kind = CHANGE_PUT_CHUNK};
    put.chunk = image->old;
    put.chunk.generation = f->generation;
    put.chunk.present_pages = image->present_pages;
    put.chunk.sealed = image->action->sealed;
    manifest_batch_change(b, &put, true, f->generation);
    struct change c = {.kind = CHANGE_PUT_DELTA};
    c.delta = (struct chunk_delta){
        .chunk = image->chunk,
        .generation = f->generation,
        .where = location_of(f, image),
        .data_pages = image->info.data_pages,
        .zero_pages = image->info.zero_pages,
    };
    manifest_batch_change(b, &c, true, f->generation);
    return 0;
}

// Finds or gives the ids of the chunks that the images are of; blobs of one image carry them.
static int
identify_chunks(struct fold *f)
{
    struct manifest_reader *r;
    int rc = manifest_read_begin(f->c->options.manifest, &r);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < f->staging.image_count; i++) {
        struct staged_image *image = &f->staging.images[i];
        const struct chunk_action *a = image->action;
        rc = manifest_read_chunk(r, f->c->options.db, a->object, a->index, &image->old);
        if (rc < 0 && rc != -ENOENT)
            break;
        image->old.extension = NULL; // it lies in the transaction, and stays without being put
        image->old.extension_length = 0;
        image->exists = rc == 0;
        image->chunk = image->exists ? image->old.id : (struct chunk_id){f->counters.next_chunk++};
        struct blob_record *blob = &f->staging.blobs[image->blob].record;
        if (blob->kind != BLOB_OBJECT_PACK)
            blob->chunk = image->chunk;
        rc = 0;
    }
    manifest_read_end(r);
    return rc;
}

static int
add_drops(struct fold *f, struct manifest_batch *b, struct manifest_reader *r)
{
    for (size_t i = 0; i < f->plan.count; i++) {
        const struct chunk_action *a = &f->plan.actions[i];
        if (a->kind != CHUNK_ACTION_DROP_CHUNK)
            continue;
        struct change c = {.kind = CHANGE_DELETE_CHUNK};
        int rc = manifest_read_chunk(r, f->c->options.db, a->object, a->index, &c.chunk);
        if (rc < 0)
            return rc;
        manifest_batch_change(b, &c, true, f->generation);
    }
    return 0;
}

static int
add_chunks(struct fold *f, struct manifest_batch *b, struct manifest_reader *r)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < f->staging.blob_count; i++) {
        struct change put = {.kind = CHANGE_PUT_BLOB};
        put.blob = f->staging.blobs[i].record;
        manifest_batch_change(b, &put, false, f->generation);
    }
    for (size_t i = 0; rc == 0 && i < f->staging.image_count; i++) {
        const struct staged_image *image = &f->staging.images[i];
        if (checkpoint_makes_base(image->action))
            add_base(f, b, image);
        else
            rc = image->exists ? add_delta(f, b, r, image) : -EBADMSG;
        if (rc == 0)
            rc = checkpoint_put_lost(f->c, b, r, f->generation, image->action, &image->lost);
    }
    for (size_t i = 0; rc == 0 && i < f->staging.blob_count; i++)
        if (f->staging.blobs[i].part == STAGED_IN_STORE)
            manifest_batch_blob_uploaded(b, &f->staging.blobs[i].record.hash, f->generation);
    return rc == 0 ? add_drops(f, b, r) : rc;
}

// All that the cut changes, made while it is applied: in memory it would be as large as the names
// and chunks of the cut are many.
static int
make_changes(void *argument, struct manifest_batch *b)
{
    struct fold *f = argument;
    struct batch_walk w = {f, b};
    struct manifest_reader *r;
    int rc = manifest_read_begin(f->c->options.manifest, &r);
    if (rc < 0)
        return rc;
    // Chunks before inodes go: deleting an inode takes its chunks along.
    rc = add_chunks(f, b, r);
    manifest_read_end(r);
    return rc < 0 ? rc : namespace_set_walk(f->cut.names, add_name_change, &w);
}

struct owning {
    struct fold *f;
    struct manifest_batch *b;
};

static int
own_blob(void *argument, const struct blob_record *blob)
{
    struct owning *o = argument;
    struct change c = {.kind = CHANGE_PUT_BLOB, .blob = *blob};
    if (blob->where < BLOB_WHERE_NAMED)
        return 0;
    c.blob.where = BLOB_WHERE_OWN;
    manifest_batch_change(o->b, &c, true, o->f->generation);
    return 0;
}

static int
own_places(void *argument, struct manifest_batch *b)
{
    static const struct sha256 first;
    struct owning o = {argument, b};
    struct manifest_reader *r;
    int rc = manifest_read_begin(o.f->c->options.manifest, &r);
    if (rc < 0)
        return rc;
    manifest_batch_set_residency(b, RESIDENCY_REMOTE);
    rc = manifest_read_remote_blobs(r, o.f->c->options.db, &first, own_blob, &o);
    manifest_read_end(r);
    return rc;
}

// The log first, so that the next mount can tell a log that has lost its end from one whose end had
// never got to the disk. A log that died has nothing more to lose: the generation saves all.
static void
note_log_end(struct fold *f, struct manifest_batch *b)
{
    struct lsn end;
    if (wal_reach(f->c->options.wal, f->cut.lsn, &end) == 0)
        manifest_batch_log_end(b, f->cut.lsn, end);
}

// What the manifest keeps of a changed name or inode, but for its texts, and of an image.
#define NAME_BYTES  200u
#define IMAGE_BYTES 400u

static int
record(struct fold *f)
{
    struct checkpoint *c = f->c;
    int rc = identify_chunks(f);
    if (rc < 0)
        return rc;
    struct manifest_batch *b = manifest_batch_new(c->options.db);
    if (f->own_places)
        manifest_batch_source(b, own_places, f);
    manifest_batch_source(b, make_changes, f);
    manifest_batch_expect(b, NAME_BYTES * namespace_set_count(f->cut.names) +
                                 namespace_set_bytes(f->cut.names) +
                                 IMAGE_BYTES * f->staging.image_count);
    manifest_batch_local_generation(b, f->generation, f->cut.lsn, f->counters, f->cut.wall_ms);
    manifest_batch_checkpoint_id(b, f->generation, &f->job.checkpoint_id);
    note_log_end(f, b);
    snprintf(f->job.stage, sizeof(f->job.stage), "recorded");
    f->job.updated_ms = clock_wall_ms();
    manifest_batch_put_job(b, &f->job);
    lock_take(&c->lock);
    struct manifest_note note = c->fold.note;
    lock_release(&c->lock);
    if (note.kind != MANIFEST_NOTE_NONE)
        manifest_batch_annotate(b, &note);
    rc = manifest_submit(c->options.manifest, b, &f->released);
    if (rc == 0 && note.kind != MANIFEST_NOTE_NONE)
        checkpoint_note_truncation(c, &(const struct manifest_note){0});
    return rc;
}

// ---- after that ---------------------------------------------------------------------------------

// Blobs that are pinned, because a publication uploads them, stay until it is done: they go at the
// beginning of a later fold.
static void
remove_or_defer(struct checkpoint *c, const struct sha256 *hash)
{
    if (local_store_remove(c->options.local, hash) == 0)
        return;
    size_t n = c->fold.unlink_later_count + 1;
    c->fold.unlink_later = memory_realloc(c->fold.unlink_later, n * sizeof(*c->fold.unlink_later));
    c->fold.unlink_later[c->fold.unlink_later_count++] = *hash;
}

// Only this thread makes blobs, so a blob that the manifest does not need now cannot be needed
// again before its file is gone.
static void
remove_deferred(struct checkpoint *c)
{
    struct manifest_reader *r;
    if (c->fold.unlink_later_count == 0 || manifest_read_begin(c->options.manifest, &r) < 0)
        return;
    struct sha256 *hashes = c->fold.unlink_later;
    size_t count = c->fold.unlink_later_count;
    c->fold.unlink_later = NULL;
    c->fold.unlink_later_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct blob_record blob;
        int rc = manifest_read_blob(r, c->options.db, &hashes[i], &blob);
        if (rc == -ENOENT || (rc == 0 && blob.references == 0))
            remove_or_defer(c, &hashes[i]);
    }
    manifest_read_end(r);
    free(hashes);
}

// The order matters: first no reader can find the old state, then the frozen layer that hid it
// goes, and only then the blobs of the old state.
static void
let_go(struct fold *f)
{
    struct checkpoint *c = f->c;
    for (size_t i = 0; i < f->plan.count; i++)
        chunk_map_invalidate(c->options.map, f->plan.actions[i].object, f->plan.actions[i].index);
    if (f->own_places)
        chunk_map_invalidate_all(c->options.map);
    c->options.host.thaw(c->options.host.argument);
    memory_trim();
    wal_release(c->options.wal, f->cut.lsn);
    for (size_t i = 0; i < f->released.count; i++)
        remove_or_defer(c, &f->released.blobs[i]);
}

// The next attempt may make other blobs. Blobs that may have been committed after all stay: the
// next mount finds out.
static void
abandon_blobs(struct fold *f, int rc)
{
    struct checkpoint *c = f->c;
    struct manifest_reader *r;
    if (rc == -EIO)
        return;
    checkpoint_parts_discard(c, &f->staging);
    if (manifest_read_begin(c->options.manifest, &r) < 0)
        return;
    for (size_t i = 0; i < f->staging.blob_count; i++) {
        const struct sha256 *hash = &f->staging.blobs[i].record.hash;
        struct blob_record blob;
        if (manifest_read_blob(r, c->options.db, hash, &blob) == -ENOENT)
            remove_or_defer(c, hash);
    }
    manifest_read_end(r);
}

static int
plan_and_stage(struct fold *f)
{
    int rc = plan(f);
    return rc == 0 ? stage(f) : rc;
}

static void
end_pin(struct checkpoint *c)
{
    pin_end(c->fold.pin);
    c->fold.pin = NULL;
}

static void
drop_plan(struct fold *f)
{
    end_pin(f->c);
    checkpoint_end_fold_lease(f->c);
    struct storage_quota *quota = local_store_quota(f->c->options.local);
    if (f->directory && storage_quota_remove_tree(quota, QUOTA_BLOBS, f->directory) < 0)
        log_warning("scratch.failed", "cannot remove %s", f->directory);
    checkpoint_staging_free(&f->staging);
    checkpoint_plan_free(&f->plan);
    checkpoint_input_free(&f->input);
    free(f->directory);
    f->directory = NULL;
}

// An old image that cannot be read is no reason to fail: the cut alone is enough. Each attempt
// finds one; when there are many, the last attempt reads no images at all.
#define IMAGES_TRIED 4u
// Before pages are lost for good the fold asks for them again, after a while: a disk that hiccups
// gives them then. (One that stays away takes no images either, so that nothing is recorded.)
#define LOST_PAUSE_MS 500u

static bool
loses_pages(const struct fold *f)
{
    for (size_t i = 0; i < f->staging.image_count; i++)
        if (f->staging.images[i].newly_lost > 0)
            return true;
    return false;
}

static int
fold_cut(struct fold *f)
{
    struct checkpoint *c = f->c;
    int rc = begin_job(f);
    if (rc < 0)
        return rc;
    size_t known;
    bool again = false;
    c->fold.unreadable_count = 0;
    for (unsigned tries = 1;; tries++) {
        known = c->fold.unreadable_count;
        c->fold.avoid_images = c->fold.frugal || tries > IMAGES_TRIED;
        rc = plan_and_stage(f);
        bool doubtful = rc == 0 && !again && loses_pages(f);
        if (!doubtful && (rc == 0 || c->fold.unreadable_count == known))
            break;
        drop_plan(f);
        if (doubtful)
            clock_sleep_ms(LOST_PAUSE_MS);
        again |= doubtful;
    }
    c->fold.avoid_images = false;
    end_pin(c); // some of them are let go of below
    if (rc < 0)
        return rc;
    checkpoint_set_fold_phase(f->c, CHECKPOINT_PHASE_RECORDING);
    rc = adopt(f);
    if (rc == 0)
        rc = checkpoint_fold_commits(c);
    if (rc == 0) {
        f->c->fold.unused.v = 0; // it may be recorded even if that fails
        rc = record(f);
    }
    end_pin(c);
    if (rc < 0) {
        abandon_blobs(f, rc);
        return rc;
    }
    struct log_event e;
    begin_event(f, &e, "checkpoint.recorded");
    log_u64(&e, "generation", f->generation.v);
    log_u64(&e, "duration_ms", clock_monotonic_ms() - f->started_ms);
    log_end(&e);
    for (size_t i = 0; i < f->staging.image_count; i++)
        checkpoint_log_lost(&f->staging.images[i]);
    crash_point("checkpoint.recorded");
    let_go(f);
    return 0;
}

// Nothing was recorded: its job ends, and the next fold begins one of its own.
static void
cancel(struct fold *f)
{
    struct checkpoint *c = f->c;
    f->job.state = JOB_FAILED;
    checkpoint_record_cancel(c, &f->job, (enum cancel_reason)atomic_load(&c->fold.cancel));
    lock_take(&c->lock);
    if (c->job.id == f->job.id)
        c->job.id = 0;
    lock_release(&c->lock);
}

void
checkpoint_own_places(struct checkpoint *c)
{
    lock_take(&c->lock);
    c->fold.own_places = true;
    lock_release(&c->lock);
}

static bool
take_own_places(struct checkpoint *c)
{
    lock_take(&c->lock);
    bool wanted = c->fold.own_places;
    c->fold.own_places = false;
    lock_release(&c->lock);
    return wanted;
}

int
checkpoint_fold(struct checkpoint *c, struct generation *generation_out)
{
    struct fold f = {.c = c, .started_ms = clock_monotonic_ms()};
    remove_deferred(c);
    size_t damaged_count;
    CLEANUP(memory_free_auto)
    struct sha256 *damaged = checkpoint_damaged_blobs(c, &damaged_count);
    f.own_places = take_own_places(c);
    bool always = damaged_count > 0 || c->fold.offer || f.own_places;
    int rc = c->options.host.freeze(c->options.host.argument, always, &f.cut);
    if (rc == 1)
        return 1;
    if (rc == 0)
        rc = fold_cut(&f);
    if (rc < 0 && f.own_places)
        checkpoint_own_places(c);
    *generation_out = f.generation;
    c->fold.frugal = rc == -EDQUOT;
    if (rc == -ECANCELED)
        cancel(&f);
    else if (rc < 0)
        checkpoint_note_failure(c, "fold", rc, strerror(-rc));
    manifest_released_free(&f.released);
    drop_plan(&f);
    checkpoint_set_fold_phase(c, CHECKPOINT_PHASE_IDLE);
    if (damaged_count > 0)
        checkpoint_damage_tried(c, damaged, damaged_count, rc == 0);
    return rc;
}
