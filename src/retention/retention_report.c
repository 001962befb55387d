// SPDX-License-Identifier: Apache-2.0
#include "retention/retention_report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/json_writer.h"
#include "platform/memory.h"
#include "retention/snapshot.h"

// Lines about single blobs end here; the counts go on.
#define EVENTS_MAX 20000u

void
report_failure(int rc, struct buffer *out)
{
    const char *text = remote_store_error();
    buffer_append_string(out, rc != -ENOSPC && text[0] ? text : strerror(-rc));
}

// ---- generations --------------------------------------------------------------------------------

struct known {
    struct generation_record *records;
    size_t count, capacity;
    struct retention_policy policy;
};

static int
take(void *argument, const struct generation_record *g)
{
    struct known *k = argument;
    if (k->count == k->capacity) {
        k->capacity = k->capacity ? k->capacity * 2 : 256;
        k->records = memory_realloc(k->records, k->capacity * sizeof(*k->records));
    }
    k->records[k->count++] = *g;
    return 0;
}

static int
read_known(const struct retention_scope *scope, struct known *k)
{
    struct manifest_reader *r;
    int rc = manifest_read_begin(scope->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_generations(r, scope->db, (struct generation){0}, take, k);
    if (rc == 0)
        rc = collect_policy(r, scope->db, &k->policy);
    manifest_read_end(r);
    return rc;
}

// The reason why each is kept; none for those that expired.
static unsigned *
reasons_of(const struct known *k, const struct remote_pins *pins)
{
    unsigned *reasons = memory_alloc((k->count + 1) * sizeof(*reasons));
    retention_choose(&k->policy, k->records, k->count, UINT64_MAX, reasons);
    size_t pin = 0;
    for (size_t i = 0; i < k->count; i++) {
        while (pin < pins->count && pins->pins[pin].generation.v < k->records[i].generation.v)
            pin++;
        if (pin < pins->count && pins->pins[pin].generation.v == k->records[i].generation.v)
            reasons[i] |= RETENTION_PINNED;
    }
    return reasons;
}

static void
show_generation(const struct generation_record *g, unsigned reasons, const struct known *k,
    bool json, struct json_writer *w, struct buffer *out)
{
    BUFFER_AUTO time = {0};
    BUFFER_AUTO why = {0};
    bool expired = g->state == GENERATION_EXPIRED;
    snapshot_format_time(g->created_ms, &time);
    retention_format_reasons(reasons, &why);
    if (!json) {
        buffer_printf(out, "%12" PRIu64 "  %s  %s", g->generation.v, buffer_string(&time),
            expired                  ? "expired, deleted after "
            : buffer_string(&why)[0] ? buffer_string(&why)
                                     : "expires with the next run");
        if (expired)
            snapshot_format_time(g->expired_ms + k->policy.grace_ms, out);
        buffer_append_u8(out, '\n');
        return;
    }
    write_json_begin_object(w, NULL);
    write_json_u64(w, "generation", g->generation.v);
    write_json_string(w, "created", buffer_string(&time));
    write_json_u64(w, "created_ms", g->created_ms);
    write_json_u64(w, "sequence", g->sequence);
    write_json_bool(w, "expired", expired);
    if (expired)
        write_json_u64(w, "deleted_after_ms", g->expired_ms + k->policy.grace_ms);
    write_json_string(w, "kept_because", buffer_string(&why));
    write_json_end_object(w);
}

int
report_generations(const struct retention_scope *scope, bool json, struct buffer *out)
{
    struct known k = {0};
    struct remote_pins pins = {0};
    struct json_writer w = {.out = out};
    int rc = remote_pins_read(scope->place, &pins);
    if (rc == 0)
        rc = remote_manifest_learn_history(scope->place, scope->manifest, scope->db);
    if (rc == 0)
        rc = read_known(scope, &k);
    if (rc < 0) {
        report_failure(rc, out);
    } else {
        unsigned *reasons = reasons_of(&k, &pins);
        if (json)
            write_json_begin_array(&w, NULL);
        for (size_t i = 0; i < k.count; i++)
            show_generation(&k.records[i], reasons[i], &k, json, &w, out);
        if (json) {
            write_json_end_array(&w);
            buffer_append_u8(out, '\n');
        }
        free(reasons);
    }
    free(k.records);
    remote_pins_free(&pins);
    return rc;
}

// ---- snapshots and the policy -------------------------------------------------------------------

int
report_snapshots(const struct retention_scope *scope, bool json, struct buffer *out)
{
    struct known k = {0};
    struct remote_pins pins;
    struct json_writer w = {.out = out};
    int rc = remote_pins_read(scope->place, &pins);
    if (rc == 0)
        rc = read_known(scope, &k);
    if (rc < 0)
        report_failure(rc, out);
    if (json && rc == 0)
        write_json_begin_array(&w, NULL);
    for (size_t i = 0; rc == 0 && i < pins.count; i++) {
        BUFFER_AUTO time = {0};
        if (pins.pins[i].kind != PIN_SNAPSHOT)
            continue;
        for (size_t n = 0; n < k.count; n++)
            if (k.records[n].generation.v == pins.pins[i].generation.v)
                snapshot_format_time(k.records[n].created_ms, &time);
        if (!json) {
            buffer_printf(out, "%-32s  %12" PRIu64 "  %s\n", pins.pins[i].name,
                pins.pins[i].generation.v, buffer_string(&time));
            continue;
        }
        write_json_begin_object(&w, NULL);
        write_json_string(&w, "name", pins.pins[i].name);
        write_json_u64(&w, "generation", pins.pins[i].generation.v);
        write_json_string(&w, "created", buffer_string(&time));
        write_json_end_object(&w);
    }
    if (json && rc == 0) {
        write_json_end_array(&w);
        buffer_append_u8(out, '\n');
    }
    free(k.records);
    remote_pins_free(&pins);
    return rc;
}

int
report_policy(const struct retention_scope *scope, bool json, struct buffer *out)
{
    struct known k = {0};
    BUFFER_AUTO text = {0};
    struct json_writer w = {.out = out};
    int rc = read_known(scope, &k);
    free(k.records);
    if (rc < 0) {
        report_failure(rc, out);
        return rc;
    }
    retention_format(&k.policy, &text);
    if (!json) {
        buffer_printf(out, "%s\n", buffer_string(&text));
        return 0;
    }
    write_json_begin_object(&w, NULL);
    write_json_string(&w, "policy", buffer_string(&text));
    write_json_bool(&w, "all", k.policy.keep_all);
    write_json_u64(&w, "last", k.policy.last);
    write_json_u64(&w, "within_ms", k.policy.within_ms);
    write_json_u64(&w, "hourly", k.policy.hourly);
    write_json_u64(&w, "daily", k.policy.daily);
    write_json_u64(&w, "weekly", k.policy.weekly);
    write_json_u64(&w, "monthly", k.policy.monthly);
    write_json_u64(&w, "grace_ms", k.policy.grace_ms);
    write_json_end_object(&w);
    buffer_append_u8(out, '\n');
    return 0;
}

// ---- runs ---------------------------------------------------------------------------------------

static const char *const event_names[] = {
    [COLLECT_EXPIRE] = "expire",
    [COLLECT_BRING_BACK] = "bring back",
    [COLLECT_FREE] = "delete",
    [COLLECT_BLOB] = "blob",
};

static void
event_line(struct report_gc *r, const struct collect_event *e)
{
    static const char *const why[] = {
        [COLLECT_EXPIRE] = "the policy does not keep it",
        [COLLECT_BRING_BACK] = "a pin from before its expiry is there",
        [COLLECT_FREE] = "its grace period is over",
    };
    if (e->kind != COLLECT_BLOB) {
        buffer_printf(&r->events, "%s generation %" PRIu64 ": %s\n", event_names[e->kind],
            e->generation->generation.v, why[e->kind]);
        return;
    }
    char hex[65];
    sha256_to_hex(&e->blob->hash, hex);
    buffer_printf(&r->events,
        "delete blob %.16s, %" PRIu64 " bytes, of generations %" PRIu64 " to before %" PRIu64 ": ",
        hex, e->blob->bytes, e->blob->generation.v, e->blob->death.v);
    if (e->generation)
        buffer_printf(&r->events, "generation %" PRIu64 " was the last that needed it\n",
            e->generation->generation.v);
    else
        buffer_printf(&r->events, "no published generation needed it\n");
}

static void
event_json(struct report_gc *r, const struct collect_event *e)
{
    struct json_writer w = {.out = &r->events, .needs_comma = r->count > 0};
    write_json_begin_object(&w, NULL);
    write_json_string(&w, "what", event_names[e->kind]);
    if (e->generation)
        write_json_u64(&w, "generation", e->generation->generation.v);
    if (e->kind == COLLECT_BLOB) {
        char hex[65];
        sha256_to_hex(&e->blob->hash, hex);
        write_json_string(&w, "hash", hex);
        write_json_u64(&w, "bytes", e->blob->bytes);
        write_json_u64(&w, "birth", e->blob->generation.v);
        write_json_u64(&w, "death", e->blob->death.v);
    }
    write_json_end_object(&w);
}

void
report_gc_event(struct report_gc *r, const struct collect_event *event)
{
    if (r->count < EVENTS_MAX) {
        if (r->json)
            event_json(r, event);
        else
            event_line(r, event);
    }
    r->count++;
}

void
report_gc_event_of(void *report, const struct collect_event *event)
{
    report_gc_event(report, event);
}

static void
end_lines(struct report_gc *r, const struct collect_result *s, struct buffer *out)
{
    const char *would = r->dry_run ? "would be " : "";
    buffer_append(out, r->events.data, r->events.length);
    if (r->count > EVENTS_MAX)
        buffer_printf(out, "... and %" PRIu64 " more\n", r->count - EVENTS_MAX);
    buffer_printf(out,
        "%" PRIu64 " generations are retained, %" PRIu64 " have expired; %" PRIu64
        " %sexpired, %" PRIu64 " %sbrought back, %" PRIu64 " %sdeleted\n",
        s->retained, s->expired, s->expired_now, would, s->brought_back, would, s->freed, would);
    buffer_printf(out,
        "%" PRIu64 " blobs (%" PRIu64 " bytes), %" PRIu64 " records, %" PRIu64 " catalogs, %" PRIu64
        " leases, %" PRIu64 " orphans (%" PRIu64 " bytes), %" PRIu64
        " unfinished uploads %sdeleted\n",
        s->blobs, s->blob_bytes, s->pruned.records, s->pruned.catalogs, s->pruned.leases,
        s->orphans.objects, s->orphans.bytes, s->orphans.uploads, would);
    if (s->unfinished > 0)
        buffer_printf(out, "%" PRIu64 " pins of snapshots and forks that were never finished %s\n",
            s->unfinished, r->dry_run ? "would be removed by this sweep or the next" : "deleted");
}

static void
end_json(struct report_gc *r, const struct collect_result *s, struct buffer *out)
{
    struct json_writer w = {.out = out};
    write_json_begin_object(&w, NULL);
    write_json_bool(&w, "dry_run", r->dry_run);
    write_json_u64(&w, "retained", s->retained);
    write_json_u64(&w, "expired", s->expired);
    write_json_u64(&w, "expired_now", s->expired_now);
    write_json_u64(&w, "brought_back", s->brought_back);
    write_json_u64(&w, "deleted_generations", s->freed);
    write_json_u64(&w, "pins", s->pins);
    write_json_u64(&w, "deleted_blobs", s->blobs);
    write_json_u64(&w, "deleted_blob_bytes", s->blob_bytes);
    write_json_u64(&w, "deleted_records", s->pruned.records);
    write_json_u64(&w, "deleted_catalogs", s->pruned.catalogs);
    write_json_u64(&w, "deleted_leases", s->pruned.leases);
    write_json_u64(&w, "deleted_orphans", s->orphans.objects);
    write_json_u64(&w, "deleted_orphan_bytes", s->orphans.bytes);
    write_json_u64(&w, "aborted_uploads", s->orphans.uploads);
    write_json_u64(&w, "deleted_unfinished_pins", s->unfinished);
    write_json_u64(&w, "events_total", r->count);
    write_json_begin_array(&w, "events");
    buffer_append(out, r->events.data, r->events.length);
    write_json_end_array(&w);
    write_json_end_object(&w);
    buffer_append_u8(out, '\n');
}

void
report_gc_end(struct report_gc *r, const struct collect_result *result, struct buffer *out)
{
    if (r->json)
        end_json(r, result, out);
    else
        end_lines(r, result, out);
    buffer_free(&r->events);
}
