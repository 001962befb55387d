// SPDX-License-Identifier: Apache-2.0
#include "volume/volume_hot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "quota/quota_job.h"
#include "remote/remote_hot.h"
#include "volume/volume_internal.h"

// One call to the store takes no longer.
#define CALL_MS    60000u
#define FETCHERS   4u
#define PART_BYTES ((uint64_t)HOT_PART_PAGES * PAGE_BYTES)
// Fetching leaves this part of a quota free, or without one this part of the file system. The
// volume begins to evict when less than a sixteenth of the quota is free.
#define FREE_PART_OF_QUOTA 8u
#define FREE_PART_OF_DISK  16u
// A fork without a set asks for those of so many ancestors.
#define ANCESTORS_MAX 4u

struct volume_hot {
    struct part_heat *heat;
    uint64_t uses_told;   // of the heat, when the last set was made. Of the publishing thread
    atomic_bool recalled; // the heat has taken in the set that was there at the mount
    atomic_uint_fast64_t written; // sets
    atomic_uint_fast64_t fetched; // parts
};

void
volume_open_hot(struct volume *v)
{
    if (!v->config.hot_set || v->config.read_only || v->config.at)
        return;
    v->hot = memory_alloc_zero(sizeof(*v->hot));
    v->hot->heat = part_heat_new();
}

void
volume_close_hot(struct volume *v)
{
    if (!v->hot)
        return;
    part_heat_free(v->hot->heat);
    free(v->hot);
    v->hot = NULL;
}

struct part_heat *
volume_hot_heat(const struct volume *v)
{
    return v->hot ? v->hot->heat : NULL;
}

// ---- what is written ----------------------------------------------------------------------------

static int
take_page(void *argument, struct page_no page, const struct dirty_page *content UNUSED)
{
    *(struct page_no *)argument = page;
    return 1;
}

void
volume_hot_note_written(struct volume *v, const struct dirty_set *pages)
{
    size_t count;
    if (!v->hot)
        return;
    uint64_t now_s = clock_monotonic_ms() / 1000;
    CLEANUP(memory_free_auto) struct object_id *objects = dirty_set_objects(pages, &count);
    for (size_t i = 0; i < count; i++) {
        struct page_no page = {0};
        while (dirty_set_walk(pages, objects[i], page.v, UINT64_MAX, take_page, &page) == 1) {
            part_heat_note(v->hot->heat, objects[i], page, 1, now_s);
            page.v = (page.v / HOT_PART_PAGES + 1) * HOT_PART_PAGES;
        }
    }
}

// ---- the set ------------------------------------------------------------------------------------

static int
read_db(struct volume *v, struct db_record *db_out)
{
    struct manifest_reader *r;
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_db(r, v->db, db_out);
    manifest_read_end(r);
    return rc;
}

static struct remote_place
place_of(const struct volume *v, bool (*is_canceled)(void *argument), void *argument)
{
    struct remote_place place = v->place;
    place.call_ms = CALL_MS;
    place.call =
        (struct remote_call){.is_canceled = is_canceled, .argument = argument, .class = REMOTE_JOB};
    return place;
}

// Cuts the run to what the local generation has of the file; false: nothing.
static bool
cut_run(struct manifest_reader *r, struct db_id db, struct hot_run *run)
{
    struct inode_record inode;
    if (manifest_read_inode(r, db, run->object, &inode) < 0 || !S_ISREG(inode.mode))
        return false;
    uint64_t parts = inode.size / PART_BYTES + (inode.size % PART_BYTES > 0);
    if (run->first >= parts)
        return false;
    if (run->count > parts - run->first)
        run->count = (uint32_t)(parts - run->first);
    return true;
}

// Leaves out what the files do not have.
static int
cut_set(struct volume *v, struct hot_set *set)
{
    struct manifest_reader *r;
    size_t count = 0;
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < set->count; i++)
        if (cut_run(r, v->db, &set->runs[i]))
            set->runs[count++] = set->runs[i];
    manifest_read_end(r);
    set->count = count;
    return 0;
}

static bool
are_equal(const struct hot_set *a, const struct hot_set *b)
{
    bool equal = a->count == b->count;
    for (size_t i = 0; equal && i < a->count; i++) {
        const struct hot_run *x = &a->runs[i];
        const struct hot_run *y = &b->runs[i];
        equal = x->object.v == y->object.v && x->first == y->first && x->count == y->count &&
                x->level == y->level;
    }
    return equal;
}

// A set that was there at the mount goes on: a short mount does not replace it by little.
static void
recall(struct volume_hot *hot, const struct hot_set *old)
{
    if (!atomic_exchange(&hot->recalled, true))
        part_heat_recall(hot->heat, old);
}

static bool
is_owner(struct volume *v)
{
    struct checkpoint_numbers c;
    checkpoint_numbers(v->checkpoint, &c);
    return c.claimed && !c.fenced && c.store_reachable && !c.store_damaged;
}

static void
log_written(const struct hot_set *set)
{
    struct log_event e;
    log_begin(&e, LOG_LEVEL_INFO, "hot_set.written");
    log_u64(&e, "parts", hot_set_parts(set));
    log_end(&e);
}

static void
write_set(struct volume *v, const struct remote_place *place, const struct db_record *db,
    const struct hot_set *old)
{
    struct hot_set set;
    part_heat_list(v->hot->heat, &set);
    set.volume = db->volume;
    set.epoch = db->epoch;
    set.generation = db->published;
    if (cut_set(v, &set) == 0 && hot_set_parts(&set) >= VOLUME_HOT_PARTS_MIN &&
        !are_equal(&set, old) && remote_hot_write(place, db, &set) == 0) {
        part_heat_cool(v->hot->heat);
        atomic_fetch_add(&v->hot->written, 1);
        log_written(&set);
    }
    hot_set_free(&set);
}

void
volume_hot_publish(struct volume *v, bool (*is_canceled)(void *argument), void *argument)
{
    struct part_heat_numbers n;
    struct hot_set old = {0};
    struct db_record db;
    bool later;
    if (!v->hot || !v->checkpoint || !is_owner(v))
        return;
    part_heat_numbers(v->hot->heat, &n);
    if (n.uses == v->hot->uses_told || n.parts < VOLUME_HOT_PARTS_MIN || read_db(v, &db) < 0)
        return;
    struct remote_place place = place_of(v, is_canceled, argument);
    int rc = remote_hot_read(&place, &db.volume, db.epoch, &old, &later);
    if ((rc == 0 || rc == -ENOENT) && !later) {
        v->hot->uses_told = n.uses;
        recall(v->hot, &old);
        write_set(v, &place, &db, &old);
    }
    hot_set_free(&old);
}

// ---- the set of an ancestor ---------------------------------------------------------------------

struct ancestor {
    uint32_t id; // of its place; 0: none yet
    struct uuid volume;
    uint32_t volume_number;
    char tenant[TENANT_BYTES_MAX + 1];
};

// Goes on to the next volume out of which this one was made, the nearest one first. Each has a
// place or two in a row. False: there is none.
static bool
next_ancestor(struct volume *v, struct ancestor *a)
{
    struct manifest_reader *r;
    struct namespace_record space;
    struct uuid before = a->volume;
    uint32_t id = a->id == 0 ? BLOB_WHERE_NAMED : a->id + 1;
    if (manifest_read_begin(v->manifest, &r) < 0)
        return false;
    int rc;
    while ((rc = manifest_read_namespace(r, v->db, id, &space)) == 0 &&
           (uuid_equal(&space.volume, &before) || space.place_length > 0))
        id++;
    if (rc == 0) {
        *a = (struct ancestor){
            .id = id, .volume = space.volume, .volume_number = space.volume_number};
        snprintf(a->tenant, sizeof(a->tenant), "%.*s", (int)space.tenant_length, space.tenant);
    }
    manifest_read_end(r);
    return rc == 0;
}

// A fork has the files of its parent under the same numbers. So until it has a set of its own, that
// of the parent tells best what its programs will read. As remote_hot_read.
static int
read_set_to_fetch(struct volume *v, const struct remote_place *place, struct hot_set *set_out)
{
    struct db_record db;
    struct ancestor a = {0};
    bool later = false;
    *set_out = (struct hot_set){0};
    int rc = read_db(v, &db);
    if (rc == 0)
        rc = remote_hot_read(place, &db.volume, db.epoch, set_out, &later);
    for (unsigned i = 0; rc == -ENOENT && !later && i < ANCESTORS_MAX && next_ancestor(v, &a);
         i++) {
        bool ignored;
        struct remote_place theirs = *place;
        theirs.tenant = a.tenant;
        theirs.volume_number = a.volume_number;
        hot_set_free(set_out);
        // Their epochs are no concern of this volume.
        rc = remote_hot_read(&theirs, &a.volume, UINT64_MAX, set_out, &ignored);
    }
    return rc;
}

// ---- fetching -----------------------------------------------------------------------------------

void
volume_hot_restore(struct volume *v, bool (*is_canceled)(void *argument), void *argument)
{
    const struct job_hydration order = {.hot = true};
    struct hot_set set;
    uint64_t id;
    if (!v->hot)
        return;
    struct remote_place place = place_of(v, is_canceled, argument);
    int rc = read_set_to_fetch(v, &place, &set);
    if (rc == 0) {
        recall(v->hot, &set);
        rc = job_queue_submit(v->jobs, JOB_HYDRATE_FILES, &order, JOB_PRIORITY_NORMAL, NULL, &id);
        if (rc < 0 && rc != -EEXIST)
            log_warning("hot_set.ignored", "no job can fetch the hot parts: %s", strerror(-rc));
    }
    hot_set_free(&set);
}

struct fetching {
    struct volume *v;
    struct job_run *run;
    const struct hot_set *set;
    struct quota_job *budget;
    atomic_int error;

    struct lock lock; // "hot": protects all below
    size_t next;
    uint32_t at; // in the next run
    uint64_t done, bytes;
};

// Asked from inside the store.
static bool
is_stopping(void *argument)
{
    struct fetching *x = argument;
    return atomic_load(&x->error) != 0 || job_is_interrupted(x->run);
}

static bool
take_part(struct fetching *x, struct object_id *object_out, uint64_t *part_out)
{
    lock_take(&x->lock);
    bool more = x->next < x->set->count;
    if (more) {
        const struct hot_run *r = &x->set->runs[x->next];
        *object_out = r->object;
        *part_out = r->first + x->at;
        if (++x->at == r->count) {
            x->next++;
            x->at = 0;
        }
    }
    lock_release(&x->lock);
    return more;
}

// Whether the disk has room for more without eviction.
static bool
has_room(struct volume *v)
{
    struct storage_quota_numbers n;
    struct statvfs st;
    uint64_t coming = FETCHERS * 2 * PART_BYTES;
    storage_quota_numbers(v->quota, &n);
    uint64_t limit = volume_quota_limit(&n);
    if (limit > 0)
        return n.room >= limit / FREE_PART_OF_QUOTA + coming;
    return path_space(v->root, &st) < 0 ||
           (uint64_t)st.f_bavail * st.f_frsize >=
               (uint64_t)st.f_blocks * st.f_frsize / FREE_PART_OF_DISK + coming;
}

static int
fetch_part(struct fetching *x, struct object_id object, uint64_t part)
{
    const struct remote_call call = {
        .deadline_ms = clock_monotonic_ms() + CALL_MS,
        .is_canceled = is_stopping,
        .argument = x,
        .class = REMOTE_JOB,
        .budget = x->budget,
    };
    uint64_t bytes = 0;
    if (!has_room(x->v))
        return -EDQUOT;
    int rc = chunk_reader_fetch_pages(x->v->reader, object, (struct page_no){part * HOT_PART_PAGES},
        HOT_PART_PAGES, &call, &bytes);
    lock_take(&x->lock);
    x->done++;
    x->bytes += bytes;
    lock_release(&x->lock);
    return rc;
}

// False: there is nothing more to do.
static bool
fetch_next(struct fetching *x)
{
    struct object_id object;
    uint64_t part;
    int none = 0;
    if (is_stopping(x) || !take_part(x, &object, &part))
        return false;
    int rc = fetch_part(x, object, part);
    // An image that went away meanwhile: what took its place is here.
    if (rc == -ESTALE)
        rc = 0;
    if (rc < 0)
        (void)atomic_compare_exchange_strong(&x->error, &none, rc);
    else
        atomic_fetch_add(&x->v->hot->fetched, 1);
    return rc == 0;
}

static void
fetch_run(void *argument)
{
    struct fetching *x = argument;
    flush_pace_bind(&x->v->pace);
    while (fetch_next(x))
        ;
}

static void
tell_progress(struct fetching *x, const char *stage)
{
    lock_take(&x->lock);
    uint64_t done = x->done * PART_BYTES;
    lock_release(&x->lock);
    job_progress(x->run, stage, done, hot_set_parts(x->set) * PART_BYTES);
}

static int
fetch_set(struct fetching *x)
{
    struct thread threads[FETCHERS];
    unsigned started = 0;
    lock_init(&x->lock, "hot", LOCK_RANK_PLATFORM);
    while (started + 1 < FETCHERS && thread_start(&threads[started], "fetch", fetch_run, x) == 0)
        started++;
    while (fetch_next(x))
        tell_progress(x, "fetching");
    for (unsigned i = 0; i < started; i++)
        thread_join(&threads[i]);
    tell_progress(x, "fetched");
    lock_destroy(&x->lock);
    return job_is_interrupted(x->run) ? -ECANCELED : atomic_load(&x->error);
}

int
volume_hot_fetch_run(struct volume *v, struct job_run *run)
{
    struct hot_set set;
    if (!v->hot) {
        buffer_append_string(run->text, "the mount has no_hot_set");
        return 0;
    }
    struct remote_place place = place_of(v, job_is_interrupted, run);
    int rc = read_set_to_fetch(v, &place, &set);
    if (rc == -ENOENT) {
        buffer_append_string(run->text, "the store has no set of hot parts");
        return 0;
    }
    if (rc == 0)
        rc = cut_set(v, &set);
    struct fetching x = {.v = v, .run = run, .set = &set, .budget = quota_job_begin(v->quota)};
    if (rc == 0)
        rc = fetch_set(&x);
    if (rc == 0 || rc == -EDQUOT || rc == -ENOSPC)
        buffer_printf(run->text, "%" PRIu64 " of %" PRIu32 " hot parts, %" PRIu64 " bytes%s",
            x.done, hot_set_parts(&set), x.bytes,
            rc == 0 ? "" : "; the disk space has no room for more");
    quota_job_end(x.budget);
    hot_set_free(&set);
    return rc == -EDQUOT || rc == -ENOSPC ? 0 : rc;
}

// ---- numbers ------------------------------------------------------------------------------------

void
volume_hot_metrics(struct volume *v, struct metrics *m)
{
    struct part_heat_numbers n;
    struct chunk_reader_numbers reads;
    if (v->reader) {
        chunk_reader_numbers(v->reader, &reads);
        m->overtaking_reads = reads.overtakes;
    }
    if (!v->hot)
        return;
    part_heat_numbers(v->hot->heat, &n);
    m->hot_parts = n.parts;
    m->hot_sets_written = atomic_load(&v->hot->written);
    m->hot_parts_fetched = atomic_load(&v->hot->fetched);
}
