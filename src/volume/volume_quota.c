// SPDX-License-Identifier: Apache-2.0
// The volume under a StorageQuota: how it makes room when there is none, and its numbers.
//
// Under pressure, in this order: the volume removes copies in hot_cache that are in the store, too;
// it forces a checkpoint, whose publication makes more of them removable; writers wait for that, a
// minute at most, or three seconds while the store cannot be reached; then they get ENOSPC.
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

// Room is made before it is needed when less than this part of the limit is left, and so much more
// than is needed, because a look at all files of hot_cache has its price.
#define LOW_PART 16u
// After a look that found nothing.
#define FRUITLESS_PAUSE_MS 200u
// The log, with the files of its checkpoints, takes half of the limit at most.
#define LOG_PART 4u

uint64_t
volume_quota_limit(const struct storage_quota_numbers *n)
{
    const uint64_t limits[] = {n->limit, n->tenant_limit, n->root_limit};
    uint64_t least = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(limits); i++)
        if (limits[i] > 0 && (least == 0 || limits[i] < least))
            least = limits[i];
    return least;
}

static uint64_t
log_part(uint64_t limit, uint64_t places)
{
    return limit > 0 ? limit / LOG_PART / (places > 0 ? places : 1) : UINT64_MAX;
}

uint64_t
volume_log_limit(const struct volume *v)
{
    struct storage_quota_numbers n;
    storage_quota_numbers(v->quota, &n);
    const uint64_t parts[] = {log_part(n.limit, 1), log_part(n.tenant_limit, n.tenant_places),
        log_part(n.root_limit, n.places)};
    uint64_t limit = v->config.wal_limit_bytes;
    for (size_t i = 0; i < ARRAY_LENGTH(parts); i++)
        limit = parts[i] < limit ? parts[i] : limit;
    return limit > VOLUME_LOG_LIMIT_MIN ? limit : VOLUME_LOG_LIMIT_MIN;
}

// ---- making room --------------------------------------------------------------------------------

bool
volume_is_in_store(struct volume *v, const struct sha256 *hash)
{
    struct manifest_reader *r;
    struct blob_record blob;
    struct checkpoint_numbers c = {0};
    struct checkpoint *checkpoint = volume_started_checkpoint(v);
    if (checkpoint)
        checkpoint_numbers(checkpoint, &c);
    // A transaction for each: an older one would not show newer records.
    if (c.store_damaged || manifest_read_begin(v->manifest, &r) < 0)
        return false;
    int rc = manifest_read_blob(r, v->db, hash, &blob);
    manifest_read_end(r);
    return rc == 0 && (blob.residency & RESIDENCY_REMOTE);
}

// A copy from the store can be read from there again. A blob made here may be the only copy, and a
// store that has lost one object may have lost others. A pinned file may have got new blobs since
// this thread began to evict.
static bool
may_go_locked(void *argument, const struct sha256 *hash, bool whole)
{
    struct volume *v = argument;
    volume_refresh_kept_locked(v);
    return !volume_is_kept_locked(v, hash) && (!whole || volume_is_in_store(v, hash));
}

void
volume_log_evicted(int64_t freed)
{
    struct log_event e;
    if (freed == 0)
        return;
    log_begin(&e, freed < 0 ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "cache.evicted");
    if (freed < 0)
        log_string(&e, "error", strerror((int)-freed));
    else
        log_u64(&e, "bytes", (uint64_t)freed);
    log_end(&e);
}

static int64_t
evict(struct volume *v, uint64_t want)
{
    int64_t freed = local_store_make_room(v->local, may_go_locked, v, want);
    volume_log_evicted(freed);
    return freed;
}

// What is published can be evicted.
static uint64_t
count_publications(const struct volume *v)
{
    struct checkpoint_numbers c = {0};
    struct checkpoint *checkpoint = volume_started_checkpoint(v);
    if (checkpoint)
        checkpoint_numbers(checkpoint, &c);
    return c.publications;
}

// Frees that much, and the part of the limit that is made in advance. Whether there was anything.
static bool
evict_locked(struct volume *v, uint64_t bytes, uint64_t in_advance)
{
    uint64_t publications = count_publications(v);
    bool pauses = clock_monotonic_ms() < v->evict_again_ms && publications == v->evict_publications;
    if (!v->local || pauses)
        return false;
    int64_t freed = evict(v, bytes + in_advance);
    if (freed <= 0) {
        v->evict_again_ms = clock_monotonic_ms() + FRUITLESS_PAUSE_MS;
        v->evict_publications = publications;
    }
    return freed > 0;
}

// A thread that waited for the lock may find the room that the thread before it made.
static bool
make_room(void *argument, const struct quota_wanted *wanted)
{
    struct volume *v = argument;
    struct storage_quota_numbers n;
    lock_take(&v->evicting);
    storage_quota_numbers(v->quota, &n);
    bool good =
        storage_quota_has_room(v->quota, wanted) ||
        evict_locked(v, wanted->bytes + wanted->promised, volume_quota_limit(&n) / LOW_PART);
    lock_release(&v->evicting);
    return good;
}

struct low_room {
    uint64_t low;  // less than this is little room; 0: there is no limit
    uint64_t lack; // so much is missing to that
};

static struct low_room
look_at_room(const struct volume *v)
{
    struct storage_quota_numbers n;
    storage_quota_numbers(v->quota, &n);
    uint64_t low = volume_quota_limit(&n) / LOW_PART;
    return (struct low_room){low, n.room < low ? low - n.room : 0};
}

static void
relieved(void *argument, int result UNUSED, struct generation generation UNUSED)
{
    struct volume *v = argument;
    atomic_store(&v->relieving, false);
}

void
volume_relieve(struct volume *v)
{
    if (look_at_room(v).lack == 0)
        return;
    lock_take(&v->evicting);
    struct low_room room = look_at_room(v);
    if (room.lack > 0)
        (void)evict_locked(v, room.lack, room.low);
    lock_release(&v->evicting);
    if (look_at_room(v).lack == 0)
        return;
    // What could go has gone, and it was too little. One request at a time: its argument names it.
    struct checkpoint *checkpoint = volume_started_checkpoint(v);
    if (checkpoint && !atomic_exchange(&v->relieving, true))
        checkpoint_request(checkpoint, CHECKPOINT_REQUEST_PUBLISH, relieved, v);
}

void
volume_hear_room(struct volume *v)
{
    struct checkpoint *checkpoint = volume_started_checkpoint(v);
    if (checkpoint)
        checkpoint_hear_room(checkpoint);
}

void
volume_watch_quota(struct volume *v)
{
    volume_relieve(v);
    if (v->wal)
        wal_set_limit(v->wal, volume_log_limit(v));
}

// ---- life ---------------------------------------------------------------------------------------

void
volume_open_quota(struct volume *v)
{
    char name[64];
    const char *base = strrchr(v->root, '/');
    if (v->from_bucket)
        snprintf(name, sizeof(name), "views/%s", base ? base + 1 : v->root);
    else
        snprintf(name, sizeof(name), "db/%" PRIu32, v->db.v);
    tenant_rate_make_file(v->config.root);
    v->quota = storage_quota_open(v->config.root, name);
    storage_quota_set_tenant(v->quota, v->url.tenant);
    volume_open_tenant_limits(v);
    storage_quota_set_limit(v->quota, v->config.quota_bytes);
    storage_quota_set_job_share(v->quota, v->config.job_quota);
    if (v->config.tenant_quota_bytes > 0)
        storage_quota_set_tenant_limit(v->quota, v->config.tenant_quota_bytes);
    if (v->config.root_quota_bytes > 0)
        storage_quota_set_root_limit(v->quota, v->config.root_quota_bytes);
    storage_quota_set_host(v->quota, make_room, v);
    local_store_set_quota(v->local, v->quota);
    // That of a read-only mount is below its own place.
    if (!v->from_bucket)
        manifest_set_quota(v->manifest, v->quota);
}

void
volume_close_quota(struct volume *v)
{
    if (v->manifest && !v->from_bucket)
        manifest_set_quota(v->manifest, NULL);
    if (v->quota)
        volume_close_tenant_limits(v);
    storage_quota_close(v->quota);
    v->quota = NULL;
}

// ---- numbers and limits -------------------------------------------------------------------------

void
volume_quota_metrics(struct volume *v, struct metrics *m)
{
    struct storage_quota_numbers n;
    storage_quota_numbers(v->quota, &n);
    m->quota_limit_bytes = n.limit;
    m->quota_used_bytes = n.used;
    m->tenant_quota_limit_bytes = n.tenant_limit;
    m->tenant_quota_used_bytes = n.tenant_used;
    m->root_quota_limit_bytes = n.root_limit;
    m->root_quota_used_bytes = n.root_used;
    m->storage_quota_exhausted_total = n.exhausted;
    m->job_quota_limit_bytes = n.job_limit;
    m->job_quota_used_bytes = n.jobs;
    m->job_quota_exhausted_total = n.job_refusals;
}

uint64_t
volume_quota_room(struct volume *v, uint64_t unpublished_bytes)
{
    struct storage_quota_numbers n;
    storage_quota_numbers(v->quota, &n);
    if (n.room == UINT64_MAX)
        return n.room;
    return n.room + (n.blobs > unpublished_bytes ? n.blobs - unpublished_bytes : 0);
}

static void
report_json(const struct storage_quota_numbers *n, struct buffer *out)
{
    buffer_printf(out,
        "{\"quota_limit_bytes\":%" PRIu64 ",\"quota_used_bytes\":%" PRIu64
        ",\"tenant_quota_limit_bytes\":%" PRIu64 ",\"tenant_quota_used_bytes\":%" PRIu64
        ",\"root_quota_limit_bytes\":%" PRIu64 ",\"root_quota_used_bytes\":%" PRIu64
        ",\"job_quota_percent\":%" PRIu64 ",\"job_quota_limit_bytes\":%" PRIu64
        ",\"job_quota_used_bytes\":%" PRIu64 ",\"job_quota_exhausted_total\":%" PRIu64
        ",\"log_bytes\":%" PRIu64 ",\"blob_bytes\":%" PRIu64 ",\"promised_bytes\":%" PRIu64
        ",\"storage_quota_exhausted_total\":%" PRIu64 "}\n",
        n->limit, n->used, n->tenant_limit, n->tenant_used, n->root_limit, n->root_used,
        n->job_share, n->job_limit, n->jobs, n->job_refusals, n->log, n->blobs, n->promised,
        n->exhausted);
}

static void
report_line(const char *what, uint64_t used, uint64_t limit, struct buffer *out)
{
    buffer_printf(out, "%-8s %" PRIu64 " bytes", what, used);
    if (limit > 0)
        buffer_printf(out, " of %" PRIu64 "\n", limit);
    else
        buffer_append_string(out, ", no quota\n");
}

static void
report(struct volume *v, bool json, struct buffer *out)
{
    struct storage_quota_numbers n;
    storage_quota_numbers(v->quota, &n);
    if (json) {
        report_json(&n, out);
        return;
    }
    report_line("volume", n.used, n.limit, out);
    report_line("tenant", n.tenant_used, n.tenant_limit, out);
    report_line("root", n.root_used, n.root_limit, out);
    report_line("jobs", n.jobs, n.job_limit, out);
    buffer_printf(
        out, "%-8s %" PRIu64 " bytes\n%-8s %" PRIu64 " bytes\n", "log", n.log, "blobs", n.blobs);
}

// A log of three segments, and their checkpoints.
static int
check_log(struct volume *v, uint64_t bytes, struct buffer *out)
{
    struct wal_numbers w;
    wal_numbers(v->wal, &w);
    uint64_t least = 8 * w.segment_bytes;
    if (bytes == 0 || bytes >= least)
        return 0;
    buffer_printf(out,
        "this mount's log needs a quota of at least %" PRIu64
        " bytes; mount with a smaller quota= or wal_limit= to have smaller segments",
        least);
    return -EINVAL;
}

// The limits that the operation sets. The first word of its argument names one.
enum quota_of { QUOTA_OF_VOLUME, QUOTA_OF_TENANT, QUOTA_OF_ROOT, QUOTA_OF_JOBS };
static const char *const quota_words[] = {"volume ", "tenant ", "root ", "jobs "};

static int
set_job_share(struct volume *v, const char *text, struct buffer *out)
{
    struct volume_config config = {0};
    CLEANUP(memory_free_auto) char *option = memory_printf("job_quota=%s", text);
    int rc = volume_config_set(&config, option, out);
    if (rc == 0)
        storage_quota_set_job_share(v->quota, config.job_quota);
    return rc;
}

static int
set_limit(struct volume *v, enum quota_of of, const char *text, struct buffer *out)
{
    uint64_t bytes;
    if (of == QUOTA_OF_JOBS)
        return set_job_share(v, text, out);
    int rc = volume_config_parse_quota("quota", text, &bytes, out);
    if (rc == 0)
        rc = check_log(v, bytes, out);
    if (rc < 0)
        return rc;
    if (of == QUOTA_OF_ROOT)
        storage_quota_set_root_limit(v->quota, bytes);
    else if (of == QUOTA_OF_TENANT)
        storage_quota_set_tenant_limit(v->quota, bytes);
    else
        storage_quota_set_limit(v->quota, bytes);
    return 0;
}

int
volume_quota_operation(struct volume *v, const char *argument, bool json, struct buffer *out)
{
    unsigned of = 0;
    while (of < ARRAY_LENGTH(quota_words) &&
           strncmp(argument, quota_words[of], strlen(quota_words[of])) != 0)
        of++;
    if (argument[0] != 0 && of == ARRAY_LENGTH(quota_words))
        return -EINVAL;
    if (argument[0] != 0) {
        const char *text = argument + strlen(quota_words[of]);
        int rc = set_limit(v, (enum quota_of)of, text, out);
        if (rc < 0)
            return rc;
        log_info("quota.set", "a quota was set: %s", argument);
        volume_watch_quota(v);
        volume_hear_room(v);
    }
    report(v, json, out);
    return 0;
}
