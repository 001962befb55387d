// SPDX-License-Identifier: Apache-2.0
#include "volume/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/random.h"
#include "retention/retention_policy.h"
#include "volume/volume_internal.h"

#define LEASE_WAIT_MS    30000u
#define COLLECT_PAUSE_MS 5000u

// A lease that is not released runs out: not worth a long wait.
#define LEASE_RELEASE_MS 5000u
#define HOT_SET_MS       5000u

static struct volume *
volume_new(const struct volume_config *config, const struct volume_host *host)
{
    struct volume *v = memory_alloc_zero(sizeof(*v));
    volume_config_copy(&v->config, config);
    volume_open_hot(v);
    if (host)
        v->host = *host;
    v->own.lock_fd = -1;
    lock_init(&v->lock, "volume", LOCK_RANK_VOLUME);
    condition_init(&v->folded);
    lock_init(&v->evicting, "evicting", LOCK_RANK_CONTROL);
    flush_pace_init(&v->pace);
    lock_init(&v->housekeeping.lock, "housekeeping", LOCK_RANK_CONTROL);
    condition_init(&v->housekeeping.work);
    condition_init(&v->housekeeping.check_work);
    return v;
}

static void
volume_free(struct volume *v)
{
    volume_stop_reader(v);
    volume_close_merge(v);
    volume_close_layers(v);
    volume_close_hot(v);
    remote_store_close(v->remote);
    manifest_close(v->manifest);
    if (v->from_bucket && v->root && path_remove_tree(v->root) < 0)
        log_warning("scratch.failed", "cannot remove %s", v->root);
    file_close(v->own.lock_fd);
    volume_free_live_objects(v);
    flush_pace_destroy(&v->pace);
    condition_destroy(&v->folded);
    volume_free_kept(v);
    lock_destroy(&v->evicting);
    condition_destroy(&v->housekeeping.check_work);
    condition_destroy(&v->housekeeping.work);
    lock_destroy(&v->housekeeping.lock);
    lock_destroy(&v->lock);
    store_url_free(&v->url);
    volume_config_free(&v->config);
    free(v->place_name);
    free(v->waiver);
    free(v->root);
    path_release(v->root_hold);
    free(v);
}

int
volume_open_store(const struct volume_config *config, struct store_url *url_out,
    struct remote_store **store_out, struct buffer *error)
{
    int rc = store_url_parse(config->source, url_out);
    if (rc < 0) {
        volume_error(error, "%s", remote_store_error());
        return rc;
    }
    struct remote_store_options options = {
        .endpoint = config->endpoint,
        .region = config->region,
        .profile = config->profile,
        .ca_file = config->ca_file,
        .virtual_host = config->virtual_host,
        .connections = (unsigned)config->upload_threads + 8,
    };
    rc = remote_store_open(url_out, &options, false, store_out);
    if (rc < 0)
        volume_error(error, "cannot open %s: %s; %s", config->source,
            remote_store_error()[0] ? remote_store_error() : strerror(-rc),
            volume_store_advice(rc));
    return rc;
}

static int
open_store(struct volume *v, struct buffer *error)
{
    int rc = volume_open_store(&v->config, &v->url, &v->remote, error);
    if (rc == 0)
        volume_open_limits(v);
    if (v->url.tenant)
        v->place_name = store_url_place(&v->url);
    return rc;
}

// ---- creating -----------------------------------------------------------------------------------

int
volume_create(const struct volume_config *config, struct buffer *error)
{
    struct volume_config mine;
    volume_config_copy(&mine, config);
    mine.create = true;
    struct volume *v = volume_new(&mine, NULL);
    volume_config_free(&mine);
    int rc = open_store(v, error);
    if (rc == 0 && !v->config.unsafe_store)
        rc = remote_store_probe(v->remote, &(const struct remote_call){.fail_fast = true});
    if (rc == 0) {
        struct remote_place place = {
            .store = v->remote,
            .tenant = v->url.tenant,
            .volume_number = v->url.volume_number,
            .writer = random_uuid(),
            .scratch = "/tmp",
            .call = {.fail_fast = true},
        };
        struct uuid volume = random_uuid();
        struct uuid key = random_uuid();
        rc = remote_manifest_create(&place, &volume, &key, &retention_default);
    }
    if (rc == -EEXIST)
        volume_error(error, "%s holds a volume already", v->config.source);
    else if (rc < 0 && error->length == 0)
        volume_error(error, "cannot create %s: %s; %s", v->config.source,
            remote_store_error()[0] ? remote_store_error() : strerror(-rc),
            volume_store_advice(rc));
    volume_free(v);
    return rc;
}

// ---- opening ------------------------------------------------------------------------------------

static int
start_checkpoints(struct volume *v)
{
    struct checkpoint_options options = {
        .layers = &v->lock,
        .manifest = v->manifest,
        .db = v->db,
        .wal = v->wal,
        .map = v->map,
        .reader = v->reader,
        .local = v->local,
        .place = v->place,
        .ops = &file_ops_system,
        .pace = &v->pace,
        .interval_ms = v->config.checkpoint_interval_ms,
        .upload_deadline_ms = 60000,
        .upload_threads = (unsigned)v->config.upload_threads,
        .lease_ttl_ms = v->config.lease_ttl_ms,
        .flags = &v->flags,
        .claimed = v->own.claimed,
        .takeover = v->config.takeover,
    };
    volume_checkpoint_host(v, &options.host);
    volume_open_merge(v);
    struct checkpoint *checkpoint = NULL;
    int rc = checkpoint_start(&options, &checkpoint);
    __atomic_store_n(&v->checkpoint, checkpoint, __ATOMIC_RELEASE);
    if (rc == 0)
        rc = volume_start_housekeeping(v);
    if (rc == 0)
        rc = volume_start_operations(v);
    return rc < 0 ? rc : volume_start_checker(v);
}

int
volume_open(const struct volume_config *config, const struct volume_host *host,
    struct volume **volume_out, struct buffer *error)
{
    *volume_out = NULL;
    uint64_t started = clock_monotonic_ms();
    struct volume *v = volume_new(config, host);
    v->session = random_uuid();
    v->lease_wait_ms = LEASE_WAIT_MS;
    v->collect_pause_ms = COLLECT_PAUSE_MS;
    int rc = open_store(v, error);
    if (rc == 0)
        rc = v->config.read_only || v->config.at ? volume_open_from_bucket(v, error)
                                                 : volume_open_local(v, error);
    if (rc == 0)
        volume_load_flags(v);
    if (rc == 0 && !v->from_bucket) {
        rc = start_checkpoints(v);
        if (rc < 0)
            volume_error(error, "cannot start the threads: %s", strerror(-rc));
        else
            rc = volume_settle(v, error);
        if (rc == 0) {
            rc = volume_start_jobs(v);
            if (rc < 0)
                volume_error(error, "cannot go on with the jobs: %s", strerror(-rc));
        }
    }
    if (rc < 0) {
        volume_stop_operations(v); // it waits for jobs
        volume_stop_jobs(v);
        volume_stop_checker(v);
        volume_stop_housekeeping(v); // it talks to the checkpoint
        checkpoint_stop(v->checkpoint);
        int closed = wal_close(v->wal);
        if (closed < 0)
            log_warning("wal.failed", "the log could not be closed: %s", strerror(-closed));
        volume_free(v);
        return rc;
    }
    volume_say_lost(v);
    if (v->restored)
        volume_operations_restored(v);
    struct log_event e;
    log_begin(&e, LOG_LEVEL_INFO, "volume.opened");
    log_string(&e, "source", v->config.source);
    log_string(&e, "root", v->config.root);
    log_bool(&e, "read_only", v->from_bucket);
    log_bool(&e, "claimed", v->own.claimed);
    log_u64(&e, "duration_ms", clock_monotonic_ms() - started);
    log_end(&e);
    *volume_out = v;
    return 0;
}

bool
volume_is_read_only(const struct volume *v)
{
    return v->from_bucket;
}

// ---- closing ------------------------------------------------------------------------------------

// How often the lock file (for processes that wait) and the log tell how far the last publication
// is.
#define CLOSING_PROGRESS_MS 500
#define CLOSING_LOG_MS      5000

struct last_checkpoint {
    struct volume *v;
    uint64_t deadline_ms;
    uint64_t shown_ms, logged_ms;
};

// Tells how far the publication is. True when it takes too long.
static bool
watch_last(void *argument)
{
    struct last_checkpoint *x = argument;
    uint64_t now = clock_monotonic_ms();
    if (now >= x->shown_ms + CLOSING_PROGRESS_MS) {
        struct checkpoint_numbers n;
        checkpoint_numbers(x->v->checkpoint, &n);
        volume_mark_closing(x->v, n.done_bytes, n.total_bytes);
        x->shown_ms = now;
        if (now >= x->logged_ms + CLOSING_LOG_MS) {
            x->logged_ms = now;
            log_info("volume.closing", "uploading: %llu of %llu bytes",
                (unsigned long long)n.done_bytes, (unsigned long long)n.total_bytes);
        }
    }
    return now >= x->deadline_ms;
}

// Folds and publishes the remaining changes.
static int
publish_last(struct volume *v)
{
    uint64_t now = clock_monotonic_ms();
    struct last_checkpoint x = {v, now + v->config.unmount_timeout_ms, now, now};
    int rc = volume_await_checkpoint(v, CHECKPOINT_REQUEST_PUBLISH, watch_last, &x);
    return rc == -ECANCELED ? -ETIMEDOUT : rc;
}

static void
release_lease(struct volume *v)
{
    struct manifest_reader *r;
    struct db_record db = {0};
    if (manifest_read_begin(v->manifest, &r) < 0)
        return;
    int rc = manifest_read_db(r, v->db, &db);
    manifest_read_end(r);
    if (rc < 0 || db.epoch == 0 || db.fenced)
        return;
    struct remote_place place = v->place;
    place.call_ms = LEASE_RELEASE_MS;
    // remote_lease_write logs a failure; the lease runs out then.
    int ignored UNUSED = remote_lease_write(&place, db.epoch, v->config.lease_ttl_ms, true);
}

static bool
is_late(void *deadline_ms)
{
    return clock_monotonic_ms() >= *(const uint64_t *)deadline_ms;
}

// Not worth a long wait, either.
static void
publish_hot(struct volume *v)
{
    uint64_t deadline_ms = clock_monotonic_ms() + HOT_SET_MS;
    volume_hot_publish(v, is_late, &deadline_ms);
}

// The last message about the volume: which part is in the store, and where the rest is.
// `unreadable`: so many bytes that are in the log only cannot be read there.
static void
log_closed(struct volume *v, int publish_result, int log_result, uint64_t unreadable)
{
    struct manifest_reader *r;
    struct db_record db = {0};
    struct db_totals totals = {0};
    struct volume_lost lost = {0};
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc == 0) {
        rc = manifest_read_db(r, v->db, &db);
        if (rc == 0)
            rc = manifest_read_totals(r, v->db, &totals);
        if (rc == 0)
            rc = volume_read_lost(r, v->db, &lost);
        manifest_read_end(r);
    }
    bool whole = publish_result == 0 && log_result == 0;
    struct log_event e;
    log_begin(&e, whole && lost.ranges == 0 ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, "volume.closed");
    log_string(&e, "source", v->config.source);
    log_bool(&e, "published", whole);
    if (rc == 0) {
        log_u64(&e, "local_generation", db.local.v);
        log_u64(&e, "published_generation", db.published.v);
        log_u64(&e, "unpublished_blobs", totals.unpublished_blobs);
        log_u64(&e, "unpublished_bytes", totals.unpublished_bytes);
        log_u64(&e, "lost_bytes", lost.bytes);
    }
    BUFFER_AUTO text = {0};
    if (whole && lost.ranges > 0)
        buffer_append_string(&text, "everything that could be read is in the store");
    else if (whole)
        buffer_append_string(&text, "everything is in the store");
    else if (atomic_load(&v->own.root_lost))
        buffer_printf(&text,
            "the storage root %s was removed or moved away while it was mounted. The changes after "
            "generation %llu are not in the store, and are lost with the root",
            v->root, (unsigned long long)db.published.v);
    else if (log_result != 0)
        buffer_printf(&text,
            "the log in %s could not be written: %s. Changes that no program synced are lost",
            v->root, strerror(-log_result));
    else if (db.fenced)
        buffer_printf(&text,
            "another host took the volume over. Changes that this host had not published are not "
            "part of the volume; they stay in %s until a mount with discard_unpublished",
            v->root);
    else if (unreadable > 0)
        buffer_printf(&text,
            "the newest changes are not in the store: %s. They are in the log in %s, and at least "
            "%llu bytes of it cannot be read: the next mount refuses this log as damaged",
            strerror(-publish_result), v->root, (unsigned long long)unreadable);
    else
        buffer_printf(&text,
            "the newest changes are not in the store: %s. They are in %s, and the next mount with "
            "that root tries again to publish them",
            strerror(-publish_result), v->root);
    if (lost.ranges > 0) {
        buffer_append_string(&text, "; ");
        volume_describe_lost(&lost, &text);
    }
    log_string(&e, "message", buffer_string(&text));
    log_end(&e);
}

int
volume_close(struct volume *v)
{
    if (!v)
        return 0;
    int rc = 0;
    if (!v->from_bucket) {
        volume_mark_closing(v, 0, 0);
        lock_take(&v->lock);
        bool fenced = v->own.fenced;
        lock_release(&v->lock);
        volume_stop_operations(v); // it waits for jobs
        volume_stop_jobs(v);
        rc = fenced ? -ESTALE : publish_last(v);
        if (rc == 0)
            publish_hot(v);
        volume_stop_checker(v);
        volume_stop_housekeeping(v); // it talks to the checkpoint
        // The room for it is made while there is a checkpoint to ask.
        if (!atomic_load(&v->own.root_lost))
            local_store_save_recency(v->local);
        checkpoint_stop(v->checkpoint);
        // Nobody asks it for room any more.
        __atomic_store_n(&v->checkpoint, NULL, __ATOMIC_RELEASE);
        if (rc == 0)
            release_lease(v);
        // Changes that no fold took are in the log, or were.
        uint64_t unreadable = rc < 0 ? page_store_unreadable_bytes(v->pages) : 0;
        int closed = wal_close(v->wal);
        v->wal = NULL;
        log_closed(v, rc, closed, unreadable);
        if (closed < 0)
            rc = closed;
    }
    volume_free(v);
    return rc;
}
