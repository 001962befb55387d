// SPDX-License-Identifier: Apache-2.0
// The volume's part in checkpoints, its numbers for operators, and the thread that renews the lease
// and watches over the log.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "volume/volume_hot.h"
#include "volume/volume_internal.h"

#define HOUSEKEEPING_MS 1000u
// An older failure of the store is no longer true: tries are never that far apart.
#define TROUBLE_SHOWN_MS 90000u

// ---- freezing and thawing -----------------------------------------------------------------------

static int
lay_over(void *argument, const struct change *change)
{
    namespace_set_apply(argument, change);
    return 0;
}

// The pages of a deleted object in a failed cut need not be written any more. Its deletion may have
// to wait for room in the log, which only a fold makes; a mount deletes remaining objects.
static int
drop_deleted(void *argument, const struct change *change)
{
    struct volume *v = argument;
    bool gone = change->kind == CHANGE_DELETE_INODE ||
                (change->kind == CHANGE_PUT_INODE &&
                    volume_is_abandoned_locked(v, change->object, &change->inode));
    if (gone)
        page_store_drop_object_locked(v->pages, change->object);
    return 0;
}

// After a fold that failed: its cut and the changes since become one layer, which is frozen at a
// newer cut. So the next fold does not write data removed or overwritten meanwhile, and a program
// that deletes data to make room gets the room.
static int
unfreeze(struct volume *v)
{
    lock_take(&v->lock);
    bool is_frozen = v->frozen_names != NULL;
    lock_release(&v->lock);
    int rc = is_frozen ? page_store_unfreeze(v->pages) : 0;
    if (!is_frozen || rc < 0)
        return rc;
    lock_take(&v->lock);
    struct namespace_set *gone = v->names;
    rc = namespace_set_walk(gone, lay_over, v->frozen_names);
    if (rc == 0)
        rc = namespace_set_walk(v->frozen_names, drop_deleted, v);
    assert(rc == 0);
    v->names = v->frozen_names;
    v->frozen_names = NULL;
    if (v->frozen_change_ms != 0)
        v->oldest_change_ms = v->frozen_change_ms;
    v->frozen_change_ms = 0;
    v->fold_failed = true;
    lock_release(&v->lock);
    namespace_set_free(gone);
    return 0;
}

static int
freeze(void *argument, bool always, struct checkpoint_cut *cut_out)
{
    struct volume *v = argument;
    int rc = unfreeze(v);
    if (rc < 0)
        return rc;
    lock_take(&v->lock);
    bool something =
        always || !(namespace_set_is_empty(v->names) && page_store_is_clean_locked(v->pages));
    if (something) {
        struct wal_numbers n;
        wal_numbers(v->wal, &n);
        page_store_freeze_locked(v->pages);
#ifdef CKPTFS_DEBUG
        namespace_set_check(v->names);
#endif
        v->frozen_names = v->names;
        v->names = namespace_set_new();
        v->cut = (struct checkpoint_cut){
            .pages = page_store_frozen(v->pages),
            .names = v->frozen_names,
            .lsn = n.append,
            .counters = v->counters,
            .wall_ms = clock_wall_ms(),
        };
        v->frozen_change_ms = v->oldest_change_ms;
        v->oldest_change_ms = 0;
    }
    *cut_out = v->cut;
    lock_release(&v->lock);
    return something ? 0 : 1;
}

static void
thaw(void *argument)
{
    struct volume *v = argument;
    volume_hot_note_written(v, page_store_frozen(v->pages));
    page_store_thaw(v->pages);
    lock_take(&v->lock);
    struct namespace_set *gone = v->frozen_names;
    v->frozen_names = NULL;
    v->fold_failed = false;
    v->version++;
    if (v->local_change_ms == 0)
        v->local_change_ms = v->frozen_change_ms;
    v->frozen_change_ms = 0;
    condition_broadcast(&v->folded);
    lock_release(&v->lock);
    namespace_set_free(gone);
    volume_end_waiver(v);
}

static bool
root_is_gone(void *argument)
{
    return volume_root_is_gone(argument);
}

static struct page *
remembered(void *argument, struct object_id object, struct page_no page)
{
    struct volume *v = argument;
    return page_store_remembered(v->pages, object, page);
}

static void
fenced(void *argument, const char *host, uint64_t epoch)
{
    struct volume *v = argument;
    char reason[160];
    snprintf(reason, sizeof(reason), "%s took the volume over (epoch %llu) and fenced this writer",
        host && host[0] ? host : "another host", (unsigned long long)epoch);
    lock_take(&v->lock);
    bool first = !v->own.fenced;
    v->own.fenced = true;
    volume_set_read_only_locked(v, reason);
    lock_release(&v->lock);
    if (!first)
        return;
    struct log_event e;
    log_begin(&e, LOG_LEVEL_ERROR, "volume.fenced");
    log_string(&e, "source", v->config.source);
    log_string(&e, "host", host ? host : "");
    log_u64(&e, "epoch", epoch);
    log_end(&e);
}

static int
sync_kernel(void *argument)
{
    struct volume *v = argument;
    return v->host.sync_kernel ? v->host.sync_kernel(v->host.argument) : 0;
}

void
volume_checkpoint_host(struct volume *v, struct checkpoint_host *host_out)
{
    *host_out = (struct checkpoint_host){
        .argument = v,
        .freeze = freeze,
        .remembered = remembered,
        .root_is_gone = root_is_gone,
        .thaw = thaw,
        .fenced = fenced,
        .sync_kernel = sync_kernel,
    };
}

void
volume_press(struct volume *v)
{
    if (v->checkpoint)
        checkpoint_press(v->checkpoint);
}

void
volume_set_read_only_locked(struct volume *v, const char *reason)
{
    v->own.read_only = true;
    if (v->own.read_only_reason[0] == 0)
        snprintf(v->own.read_only_reason, sizeof(v->own.read_only_reason), "%s", reason);
    condition_broadcast(&v->folded);
}

// ---- housekeeping -------------------------------------------------------------------------------

static void
turn_read_only(struct volume *v, const char *what, int error)
{
    char reason[160];
    snprintf(reason, sizeof(reason), "%s cannot be written: %s", what, strerror(-error));
    lock_take(&v->lock);
    bool first = !v->own.read_only;
    volume_set_read_only_locked(v, reason);
    lock_release(&v->lock);
    if (!first)
        return;
    struct log_event e;
    log_begin(&e, LOG_LEVEL_ERROR, "volume.read_only");
    log_string(&e, "source", v->config.source);
    log_string(&e, "reason", reason);
    log_end(&e);
}

// Without one of them no new write could ever leave memory or reach the store. Changes in the log
// stay there for the next mount.
static void
watch_disk(struct volume *v)
{
    struct wal_numbers n;
    wal_numbers(v->wal, &n);
    if (n.failed != 0)
        turn_read_only(v, "the write-ahead log", n.failed);
    if (manifest_is_lost(v->manifest))
        turn_read_only(v, "the manifest", -EIO);
}

static bool
is_canceled(void *argument)
{
    struct volume *v = argument;
    return atomic_load(&v->housekeeping.canceled);
}

// Changes whenever the volume is changed or published.
static uint64_t
activity(struct volume *v)
{
    struct wal_numbers n;
    struct checkpoint_numbers c;
    wal_numbers(v->wal, &n);
    checkpoint_numbers(v->checkpoint, &c);
    return n.append.v + c.publications;
}

static void
renew_lease(struct volume *v, uint64_t mark)
{
    struct manifest_reader *r;
    struct db_record db = {0};
    if (manifest_read_begin(v->manifest, &r) < 0)
        return;
    int rc = manifest_read_db(r, v->db, &db);
    manifest_read_end(r);
    if (rc < 0)
        return;
    struct remote_place place = v->place;
    place.call = (struct remote_call){.is_canceled = is_canceled, .argument = v};
    rc = volume_lease_renew(&v->housekeeping.lease, &place, &db, mark, clock_monotonic_ms());
    uint64_t now_ms = clock_monotonic_ms();
    if (v->housekeeping.lease.good_ms > now_ms)
        checkpoint_note_lease(v->checkpoint, v->housekeeping.lease.good_ms - now_ms);
    // Our own publisher may just have written a record: let the publisher find out, it reads it.
    if (rc == 1)
        checkpoint_check_owner(v->checkpoint);
}

// A volume that is not claimed has no lease; the publisher claims it when it can.
static bool
is_owner(struct volume *v)
{
    struct checkpoint_numbers c;
    checkpoint_numbers(v->checkpoint, &c);
    return c.claimed && !c.fenced;
}

static void
housekeeping_run(void *argument)
{
    struct volume *v = argument;
    volume_lease_begin(
        &v->housekeeping.lease, v->config.lease_ttl_ms, activity(v), clock_monotonic_ms());
    lock_take(&v->housekeeping.lock);
    while (!v->housekeeping.stopping) {
        condition_wait_until(
            &v->housekeeping.work, &v->housekeeping.lock, clock_monotonic_ms() + HOUSEKEEPING_MS);
        if (v->housekeeping.stopping)
            break;
        lock_release(&v->housekeeping.lock);
        watch_disk(v);
        volume_watch_root(v);
        volume_delete_late(v);
        volume_watch_quota(v);
        volume_clean_when_due(v);
        volume_watch_merge(v);
        uint64_t mark = activity(v);
        if (volume_lease_is_due(&v->housekeeping.lease, mark, clock_monotonic_ms()) && is_owner(v))
            renew_lease(v, mark);
        lock_take(&v->housekeeping.lock);
    }
    lock_release(&v->housekeeping.lock);
}

int
volume_start_housekeeping(struct volume *v)
{
    int rc = thread_start(&v->housekeeping.thread, "housekeeping", housekeeping_run, v);
    v->housekeeping.started = rc == 0;
    return rc;
}

void
volume_stop_housekeeping(struct volume *v)
{
    if (!v->housekeeping.started)
        return;
    lock_take(&v->housekeeping.lock);
    v->housekeeping.stopping = true;
    atomic_store(&v->housekeeping.canceled, true);
    condition_signal(&v->housekeeping.work);
    lock_release(&v->housekeeping.lock);
    thread_join(&v->housekeeping.thread);
    v->housekeeping.started = false;
}

// ---- control ------------------------------------------------------------------------------------

int
volume_checkpoint(struct volume *v, unsigned flags, volume_checkpointed *done, void *argument)
{
    if (v->from_bucket)
        return -EROFS;
    unsigned wanted = 0;
    if (flags & VOLUME_CHECKPOINT_PUBLISH)
        wanted |= CHECKPOINT_REQUEST_PUBLISH | CHECKPOINT_REQUEST_ASK_STORE;
    if (flags & VOLUME_CHECKPOINT_SYNC_KERNEL)
        wanted |= CHECKPOINT_REQUEST_SYNC_KERNEL;
    checkpoint_request(v->checkpoint, wanted, done, argument);
    return 0;
}

bool
volume_checkpoint_forget(struct volume *v, void *argument)
{
    return !v->from_bucket && checkpoint_forget(v->checkpoint, argument);
}

static enum checkpoint_stage
stage_of(enum checkpoint_phase phase)
{
    static const enum checkpoint_stage stages[] = {
        [CHECKPOINT_PHASE_IDLE] = CHECKPOINT_STAGE_IDLE,
        [CHECKPOINT_PHASE_PLANNING] = CHECKPOINT_STAGE_PLANNING,
        [CHECKPOINT_PHASE_STAGING] = CHECKPOINT_STAGE_STAGING,
        [CHECKPOINT_PHASE_RECORDING] = CHECKPOINT_STAGE_RECORDING,
        [CHECKPOINT_PHASE_UPLOADING] = CHECKPOINT_STAGE_UPLOADING,
        [CHECKPOINT_PHASE_PUBLISHING] = CHECKPOINT_STAGE_PUBLISHING,
        [CHECKPOINT_PHASE_CLEANING] = CHECKPOINT_STAGE_CLEANING,
    };
    return stages[phase];
}

struct inode_count {
    const struct namespace_set *newer; // or NULL
    struct object_id next;
    uint64_t born, dead;
};

// An object that got its number after the local generation is not counted there.
static int
count_inode(void *argument, const struct change *change)
{
    struct inode_count *n = argument;
    struct inode_record inode;
    bool known = change->object.v < n->next.v;
    if (n->newer && namespace_set_find_inode(n->newer, change->object, &inode) != LAYER_ABSENT)
        return 0;
    n->born += !known && change->kind == CHANGE_PUT_INODE;
    n->dead += known && change->kind == CHANGE_DELETE_INODE;
    return 0;
}

uint64_t
volume_count_inodes(struct volume *v, uint64_t local, struct object_id next)
{
    struct inode_count n = {.next = next};
    lock_take(&v->lock);
    (void)namespace_set_walk_inodes(v->names, count_inode, &n);
    n.newer = v->names;
    if (v->frozen_names)
        (void)namespace_set_walk_inodes(v->frozen_names, count_inode, &n);
    lock_release(&v->lock);
    return local + n.born > n.dead ? local + n.born - n.dead : 0;
}

static void
fill_from_manifest(struct volume *v, struct volume_status *s)
{
    struct metrics *m = &s->metrics;
    struct manifest_reader *r;
    struct db_record db = {0};
    struct db_totals totals;
    if (manifest_read_begin(v->manifest, &r) < 0)
        return;
    if (manifest_read_db(r, v->db, &db) == 0) {
        s->volume = db.volume;
        m->epoch = db.epoch;
        m->local_generation = db.local.v;
        m->published_generation = db.published.v;
        m->local_time_ms = db.local_time_ms;
        m->published_time_ms = db.published_time_ms;
    }
    if (manifest_read_totals(r, v->db, &totals) == 0) {
        m->inodes =
            volume_count_inodes(v, totals.inodes, (struct object_id){db.counters.next_object});
        m->chunks = totals.chunks;
        m->deltas = totals.deltas;
        m->blobs = totals.blobs;
        m->blob_bytes = totals.blob_bytes;
        m->unpublished_blobs = totals.unpublished_blobs;
        m->unpublished_bytes = totals.unpublished_bytes;
    }
    struct volume_lost lost;
    if (volume_read_lost(r, v->db, &lost) == 0) {
        m->lost_ranges = lost.ranges;
        m->lost_bytes = lost.bytes;
    }
    manifest_read_end(r);
}

static void
fill_from_store(struct volume *v, struct metrics *m)
{
    const struct remote_store_counters *c = &v->remote->counters;
    m->put_requests = __atomic_load_n(&c->put_requests, __ATOMIC_RELAXED);
    m->get_requests = __atomic_load_n(&c->get_requests, __ATOMIC_RELAXED);
    m->head_requests = __atomic_load_n(&c->head_requests, __ATOMIC_RELAXED);
    m->list_requests = __atomic_load_n(&c->list_requests, __ATOMIC_RELAXED);
    m->delete_requests = __atomic_load_n(&c->delete_requests, __ATOMIC_RELAXED);
    m->store_bytes_written = __atomic_load_n(&c->bytes_written, __ATOMIC_RELAXED);
    m->store_bytes_read = __atomic_load_n(&c->bytes_read, __ATOMIC_RELAXED);
    m->store_errors = __atomic_load_n(&c->errors, __ATOMIC_RELAXED);
    m->store_retries = __atomic_load_n(&c->retries, __ATOMIC_RELAXED);
}

static void
fill_flags(struct volume *v, struct metrics *m)
{
    unsigned flags = atomic_load(&v->flags);
    m->enable_checkpoints = (flags & DB_FLAG_CHECKPOINTS) != 0;
    m->enable_chunk_deltas = (flags & DB_FLAG_CHUNK_DELTAS) != 0;
    m->enable_append_only_truncation = (flags & DB_FLAG_APPEND_ONLY_TRUNCATION) != 0;
    m->enable_cold_scan = (flags & DB_FLAG_COLD_SCAN) != 0;
    m->cold_scan_all = (flags & DB_FLAG_COLD_SCAN_ALL) != 0;
}

static void
fill_from_writer(struct volume *v, struct volume_status *s)
{
    struct metrics *m = &s->metrics;
    struct wal_numbers w;
    wal_numbers(v->wal, &w);
    m->wal_bytes = w.retained_bytes;
    m->wal_limit_bytes = w.limit_bytes;
    m->fsyncs = w.syncs;
    m->flushes = w.flushes;
    struct checkpoint_numbers c;
    checkpoint_numbers(v->checkpoint, &c);
    s->fold_stage = stage_of(c.fold_phase);
    s->publish_stage = stage_of(c.publish_phase);
    m->stage_done_bytes = c.done_bytes;
    m->stage_total_bytes = c.total_bytes;
    m->stage_done_blobs = c.done_blobs;
    m->stage_total_blobs = c.total_blobs;
    m->checkpoints = c.folds;
    m->publications = c.publications;
    m->checkpoint_failures = c.failures;
    volume_check_numbers(v, m);
    m->store_reachable = c.store_reachable;
    m->store_damaged = c.store_damaged;
    m->claimed = c.claimed && !c.fenced;
    m->lease_ttl_ms = v->config.lease_ttl_ms;
    m->upload_rate_bytes = c.upload_rate_bytes;
    m->failing = c.failing;
    m->last_error_time_ms = c.last_error_ms;
    snprintf(s->last_error, sizeof(s->last_error), "%s", c.last_error);
}

int
volume_lost(struct volume *v, struct volume_lost *lost_out)
{
    struct manifest_reader *r;
    *lost_out = (struct volume_lost){0};
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc < 0)
        return rc;
    rc = volume_read_lost(r, v->db, lost_out);
    manifest_read_end(r);
    return rc;
}

void
volume_say_lost(struct volume *v)
{
    struct volume_lost lost;
    BUFFER_AUTO text = {0};
    if (volume_lost(v, &lost) < 0 || lost.ranges == 0)
        return;
    volume_describe_lost(&lost, &text);
    volume_say(v, "%s; writing them anew or removing the file heals it", buffer_string(&text));
}

// While a thread tries the store again nothing has failed for good yet, but a waiting user wants to
// know why.
void
volume_trouble(struct volume *v, struct remote_trouble *trouble_out)
{
    remote_store_trouble(v->remote, trouble_out);
    if (trouble_out->age_ms > TROUBLE_SHOWN_MS)
        trouble_out->tries = 0;
}

// The newest error: the store's is told as the last one also when a retry has mended it.
static void
fill_from_trouble(struct volume *v, struct volume_status *s)
{
    struct remote_trouble trouble;
    volume_trouble(v, &trouble);
    uint64_t failed_ms = clock_wall_ms() - trouble.age_ms;
    if (trouble.text[0] == '\0' ||
        (trouble.tries == 0 && failed_ms <= s->metrics.last_error_time_ms))
        return;
    s->metrics.store_failing = trouble.tries;
    s->metrics.failing |= trouble.tries > 0;
    s->metrics.last_error_time_ms = failed_ms;
    snprintf(
        s->last_error, sizeof(s->last_error), "%.*s", (int)sizeof(s->last_error) - 1, trouble.text);
}

void
volume_status(struct volume *v, struct volume_status *status_out)
{
    struct volume_status *s = status_out;
    struct metrics *m = &s->metrics;
    *s = (struct volume_status){0};
    snprintf(s->source, sizeof(s->source), "%s", v->config.source);
    snprintf(s->tenant, sizeof(s->tenant), "%s", v->url.tenant);
    snprintf(s->root, sizeof(s->root), "%s", v->config.root);
    fill_from_manifest(v, s);
    fill_from_store(v, m);
    fill_flags(v, m);
    volume_quota_metrics(v, m);
    volume_limits_metrics(v, m);
    volume_scan_metrics(v, m);
    volume_hot_metrics(v, m);
    if (v->wal)
        fill_from_writer(v, s);
    else
        m->store_reachable = true; // as far as such a mount has asked it
    fill_from_trouble(v, s);
    struct page_store_numbers p;
    uint64_t now = clock_monotonic_ms();
    lock_take(&v->lock);
    page_store_numbers_locked(v->pages, &p);
    m->read_only = v->own.read_only;
    m->fenced = v->own.fenced;
    snprintf(s->read_only_reason, sizeof(s->read_only_reason), "%s", v->own.read_only_reason);
    if (m->local_generation == m->published_generation)
        v->local_change_ms = 0;
    uint64_t oldest = v->local_change_ms    ? v->local_change_ms
                      : v->frozen_change_ms ? v->frozen_change_ms
                                            : v->oldest_change_ms;
    lock_release(&v->lock);
    m->oldest_unpublished_ms = oldest ? now - oldest : 0;
    m->dirty_bytes = p.dirty_pages * PAGE_BYTES;
    m->page_cache_bytes = p.dirty_resident_bytes + p.clean_bytes;
    m->page_cache_limit_bytes = p.limit_bytes;
}
