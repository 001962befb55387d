// SPDX-License-Identifier: Apache-2.0
#include "volume/volume_operator.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/decimal.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "retention/snapshot.h"
#include "volume/volume.h"

// ---- telling ------------------------------------------------------------------------------------

static int
tell(const struct volume_operator *o, const struct change *changes, size_t count, uint64_t lowest)
{
    return o->tell ? o->tell(o->argument, changes, count, lowest)
                   : remote_manifest_tell(o->place, o->manifest, o->db, changes, count, lowest);
}

void
volume_operator_say_failure(int rc, struct buffer *out)
{
    if (rc == -ESTALE || rc == -EAGAIN)
        buffer_printf(out, "another host has taken the volume, or it is not claimed yet");
    else
        report_failure(rc, out);
}

// ---- CheckpointGC -------------------------------------------------------------------------------

struct gc_run {
    const struct volume_operator *o;
    struct report_gc *report; // or NULL
};

static int
tell_for_gc(void *argument, const struct change *changes, size_t count, uint64_t lowest)
{
    const struct gc_run *run = argument;
    return tell(run->o, changes, count, lowest);
}

static void
hear_event(void *argument, const struct collect_event *event)
{
    const struct gc_run *run = argument;
    if (run->report)
        report_gc_event(run->report, event);
    if (run->o->event)
        run->o->event(run->o->argument, event);
}

static void
log_run(const struct collect_result *s, int rc, uint64_t duration_ms)
{
    struct log_event e;
    bool idle = s->expired_now + s->brought_back + s->freed + s->blobs + s->pruned.records +
                    s->pruned.catalogs + s->pruned.leases + s->orphans.objects ==
                0;
    if (rc == -ECANCELED || (rc == 0 && idle))
        return;
    log_begin(&e, rc < 0 ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "retention.collected");
    log_u64(&e, "retained", s->retained);
    log_u64(&e, "expired", s->expired);
    log_u64(&e, "expired_now", s->expired_now);
    log_u64(&e, "deleted_generations", s->freed);
    log_u64(&e, "deleted_blobs", s->blobs);
    log_u64(&e, "deleted_blob_bytes", s->blob_bytes);
    log_u64(&e, "deleted_records", s->pruned.records);
    log_u64(&e, "deleted_orphans", s->orphans.objects);
    if (rc < 0)
        log_string(&e, "error", remote_store_error()[0] ? remote_store_error() : strerror(-rc));
    log_u64(&e, "duration_ms", duration_ms);
    log_end(&e);
}

int
volume_operator_collect(const struct volume_operator *o, unsigned flags, struct report_gc *report,
    struct collect_result *result_out)
{
    struct gc_run run = {o, report};
    const struct collect_options options = {
        .place = o->place,
        .manifest = o->manifest,
        .db = o->db,
        .flags = flags,
        .tell = tell_for_gc,
        .event = hear_event,
        .argument = &run,
        .scanned = o->scanned ? *o->scanned : (struct generation){0},
        .unsure = o->unsure && *o->unsure,
    };
    uint64_t began = clock_monotonic_ms();
    int rc = collect_run(&options, result_out);
    if (flags & COLLECT_DRY_RUN)
        return rc;
    if (o->collected)
        *o->collected = *result_out;
    if (o->scanned)
        *o->scanned = result_out->scanned;
    if (o->unsure)
        *o->unsure = result_out->unsure;
    log_run(result_out, rc, clock_monotonic_ms() - began);
    return rc;
}

static int
run_gc(const struct volume_operator *o, unsigned flags, struct buffer *out)
{
    struct collect_result result;
    struct report_gc report = {
        .json = flags & VOLUME_OPERATION_JSON,
        .dry_run = flags & VOLUME_OPERATION_DRY_RUN,
    };
    unsigned collect_flags = COLLECT_PRUNE;
    collect_flags |= flags & VOLUME_OPERATION_DRY_RUN ? COLLECT_DRY_RUN : 0;
    collect_flags |= flags & VOLUME_OPERATION_SWEEP ? COLLECT_SWEEP : 0;
    int rc = volume_operator_collect(o, collect_flags, &report, &result);
    if (rc == 0) {
        report_gc_end(&report, &result, out);
        return 0;
    }
    buffer_free(&report.events);
    volume_operator_say_failure(rc, out);
    return rc;
}

// ---- the policy ---------------------------------------------------------------------------------

static int
set_policy(const struct volume_operator *o, const char *text, struct buffer *out)
{
    struct change c = {.kind = CHANGE_PUT_RETENTION};
    int rc = retention_parse(text, &c.retention, out);
    if (rc < 0)
        return rc;
    // First, because only the missing policy shows that the volume is of an older program.
    rc = remote_manifest_learn_history(o->place, o->manifest, o->db);
    if (rc == 0)
        rc = tell(o, &c, 1, 0);
    if (rc < 0)
        volume_operator_say_failure(rc, out);
    return rc;
}

// ---- snapshots ----------------------------------------------------------------------------------

static int
show_snapshot(const struct volume_operator *o, const char *name, struct buffer *out)
{
    int rc = snapshot_show(o->place, name, out);
    if (rc == -ENOENT)
        buffer_printf(out, "there is no snapshot %s", name);
    else if (rc < 0)
        report_failure(rc, out);
    return rc;
}

// "NAME GENERATION"
static int
create_snapshot(
    const struct volume_operator *o, const char *argument, bool json, struct buffer *out)
{
    BUFFER_AUTO problem = {0};
    CLEANUP(memory_free_auto) char *name = memory_string(argument);
    char *blank = strrchr(name, ' ');
    struct generation generation;
    if (!blank || !decimal_parse(blank + 1, UINT64_MAX, &generation.v))
        return -EINVAL;
    *blank = 0;
    int rc = snapshot_create(o->place, name, generation, &problem);
    if (rc < 0)
        buffer_append_string(out, buffer_string(&problem));
    else if (json)
        rc = show_snapshot(o, name, out);
    else
        buffer_printf(out, "snapshot %s is generation %" PRIu64 "\n", name, generation.v);
    return rc;
}

static int
drop_snapshot(const struct volume_operator *o, const char *name, struct buffer *out)
{
    BUFFER_AUTO problem = {0};
    int rc = snapshot_drop(o->place, name, &problem);
    if (rc < 0)
        buffer_append_string(out, buffer_string(&problem));
    return rc;
}

// ---- the whole ----------------------------------------------------------------------------------

int
volume_operator_run(const struct volume_operator *o, unsigned kind, unsigned flags,
    const char *argument, struct buffer *out)
{
    const struct retention_scope scope = {o->place, o->manifest, o->db};
    bool json = flags & VOLUME_OPERATION_JSON;
    int rc;
    switch (kind) {
    case VOLUME_OPERATION_GC:
        return run_gc(o, flags, out);
    case VOLUME_OPERATION_RETENTION:
        rc = argument[0] ? set_policy(o, argument, out) : 0;
        return rc < 0 ? rc : report_policy(&scope, json, out);
    case VOLUME_OPERATION_GENERATIONS:
        return report_generations(&scope, json, out);
    case VOLUME_OPERATION_SNAPSHOT_CREATE:
        return create_snapshot(o, argument, json, out);
    case VOLUME_OPERATION_SNAPSHOT_DROP:
        return drop_snapshot(o, argument, out);
    case VOLUME_OPERATION_SNAPSHOTS:
        return report_snapshots(&scope, json, out);
    case VOLUME_OPERATION_SNAPSHOT_SHOW:
        return show_snapshot(o, argument, out);
    default:
        return -EINVAL;
    }
}
