// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/json_writer.h"
#include "base/printable.h"
#include "fuse/ckptctl.h"
#include "platform/random.h"
#include "volume/volume.h"

void
print_size(uint64_t bytes, char text_out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    double value = (double)bytes;
    // 1023.95 would be printed as 1024.0.
    for (; value >= 1023.95 && unit + 1 < ARRAY_LENGTH(units); unit++)
        value /= 1024;
    snprintf(text_out, 32, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

void
print_retries(struct buffer *out, uint64_t errors, const char *cause)
{
    buffer_printf(out, "retrying, %" PRIu64 " errors, last: ", errors);
    buffer_append_printable(out, cause);
}

void
print_progress(struct buffer *line)
{
    struct winsize window = {0};
    int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1
                    ? window.ws_col - 1
                    : INT_MAX;
    fprintf(stderr, "\r\033[K%.*s", width, buffer_string(line));
}

void
print_age(uint64_t ms, char text_out[32])
{
    uint64_t s = ms / 1000;
    if (s < 10)
        snprintf(text_out, 32, "%" PRIu64 ".%" PRIu64 "s", s, ms % 1000 / 100);
    else if (s < 60)
        snprintf(text_out, 32, "%" PRIu64 "s", s);
    else if (s < 3600)
        snprintf(text_out, 32, "%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(text_out, 32, "%" PRIu64 "h %" PRIu64 "m", s / 3600, s % 3600 / 60);
    else
        snprintf(text_out, 32, "%" PRIu64 "d %" PRIu64 "h", s / 86400, s % 86400 / 3600);
}

const char *
print_stage_name(uint32_t stage)
{
    static const char *const names[] = {
        [CHECKPOINT_STAGE_IDLE] = "idle",
        [CHECKPOINT_STAGE_PLANNING] = "planning",
        [CHECKPOINT_STAGE_STAGING] = "staging",
        [CHECKPOINT_STAGE_RECORDING] = "recording",
        [CHECKPOINT_STAGE_UPLOADING] = "uploading",
        [CHECKPOINT_STAGE_PUBLISHING] = "publishing",
        [CHECKPOINT_STAGE_CLEANING] = "cleaning",
    };
    return stage < ARRAY_LENGTH(names) ? names[stage] : "unknown";
}

// ---- for people ---------------------------------------------------------------------------------

static void
line(struct buffer *out, const char *name, const char *text)
{
    buffer_printf(out, "%-14s %s\n", name, text);
}

void
print_json_number(struct buffer *out, const char *key, uint64_t value)
{
    struct json_writer w = {.out = out};
    write_json_begin_object(&w, NULL);
    write_json_u64(&w, key, value);
    write_json_end_object(&w);
    buffer_printf(out, "\n");
}

void
print_generation(
    struct buffer *out, const char *name, uint64_t generation, uint64_t time_ms, uint64_t now_ms)
{
    char age[32];
    print_age(now_ms > time_ms ? now_ms - time_ms : 0, age);
    buffer_printf(out, "%-14s generation %" PRIu64, name, generation);
    if (time_ms > 0)
        buffer_printf(out, ", %s ago", age);
    buffer_append_u8(out, '\n');
}

static void
line_of(struct buffer *out, const char *name, uint64_t bytes, uint64_t limit)
{
    char used[32];
    char all[32];
    print_size(bytes, used);
    print_size(limit, all);
    buffer_printf(out, "%-14s %s of %s", name, used, all);
    if (limit > 0)
        buffer_printf(out, " (%.0f%%)", 100.0 * (double)bytes / (double)limit);
    buffer_append_u8(out, '\n');
}

static const struct ckptfs_metric *
find_metric(const struct ckptfs_metrics *metrics, const char *name)
{
    for (size_t i = 0; i < metrics->count; i++)
        if (strcmp(metrics->metrics[i].name, name) == 0)
            return &metrics->metrics[i];
    return NULL;
}

uint64_t
print_metric(const struct ckptfs_metrics *metrics, const char *name)
{
    const struct ckptfs_metric *m = find_metric(metrics, name);
    return m ? m->value : 0;
}

static void
print_identity(
    const struct ckptfs_status *s, const struct ckptfs_metrics *metrics, struct buffer *out)
{
    BUFFER_AUTO store = {0};
    struct uuid id;
    char text[37];
    memcpy(id.b, s->volume, sizeof(id.b));
    uuid_to_string(&id, text);
    line(out, "source", s->source);
    line(out, "tenant", s->tenant);
    line(out, "volume", text);
    line(out, "root", s->root);
    buffer_printf(out, "%-14s %s", "state",
        s->flags & CKPTFS_STATUS_FENCED      ? "fenced"
        : s->flags & CKPTFS_STATUS_READ_ONLY ? "read-only"
                                             : "read-write");
    if (s->read_only_reason[0] != '\0')
        buffer_printf(out, ": %s", s->read_only_reason);
    buffer_append_u8(out, '\n');
    if (print_metric(metrics, "claimed"))
        buffer_printf(
            out, "%-14s by this mount, writer epoch %" PRIu64 "\n", "claimed", (uint64_t)s->epoch);
    else if (!(s->flags & (CKPTFS_STATUS_READ_ONLY | CKPTFS_STATUS_FENCED)))
        line(out, "claimed",
            print_metric(metrics, "store_damaged")
                ? "no: the store is damaged; another host may take the volume"
                : "no: the store could not be reached; another host may take the volume");
    if (print_metric(metrics, "store_damaged"))
        buffer_append_string(&store,
            "damaged: it has lost or changed published objects. Nothing more is published; "
            "the root keeps the changes");
    else if (print_metric(metrics, "store_failing") > 0)
        print_retries(&store, print_metric(metrics, "store_failing"), s->last_error);
    else
        buffer_append_string(
            &store, s->flags & CKPTFS_STATUS_STORE_REACHABLE ? "reachable" : "not reachable");
    line(out, "store", buffer_string(&store));
}

static void
print_unpublished(const struct ckptfs_status *s, struct buffer *out)
{
    char size[32];
    char age[32];
    if (s->oldest_unpublished_ms == 0) {
        line(out, "not in store", "nothing");
        return;
    }
    print_age(s->oldest_unpublished_ms, age);
    print_size(s->unpublished_bytes, size);
    buffer_printf(out, "%-14s changes of the last %s; %" PRIu64 " blobs, %s, wait for upload\n",
        "not in store", age, (uint64_t)s->unpublished_blobs, size);
}

bool
print_has_failed(const struct ckptfs_metrics *metrics)
{
    // Older daemons do not tell the time, and nothing of errors that are over.
    return print_metric(metrics, "failing") || print_metric(metrics, "last_error_time_ms") == 0;
}

void
print_upload(
    const struct ckptfs_status *s, const struct ckptfs_metrics *metrics, struct buffer *out)
{
    char done[32];
    char total[32];
    uint64_t rate = print_metric(metrics, "upload_rate_bytes");
    print_size(s->stage_done_bytes, done);
    print_size(s->stage_total_bytes, total);
    buffer_printf(out, "%s of %s, %" PRIu64 " of %" PRIu64 " blobs", done, total,
        (uint64_t)s->stage_done_blobs, (uint64_t)s->stage_total_blobs);
    if (rate == 0 || s->stage_done_bytes >= s->stage_total_bytes)
        return;
    print_size(rate, done);
    print_age((s->stage_total_bytes - s->stage_done_bytes) * 1000 / rate, total);
    buffer_printf(out, ", %s/s, %s left", done, total);
}

static void
print_last_error(const struct ckptfs_status *s, const struct ckptfs_metrics *metrics,
    uint64_t now_ms, struct buffer *out)
{
    char age[32];
    uint64_t time_ms = print_metric(metrics, "last_error_time_ms");
    if (s->last_error[0] == '\0')
        return;
    buffer_printf(out, "%-14s %s", "last error", s->last_error);
    if (time_ms > 0) {
        print_age(now_ms > time_ms ? now_ms - time_ms : 0, age);
        buffer_printf(
            out, " (%s ago%s)", age, print_has_failed(metrics) ? "" : "; it went well since then");
    }
    buffer_append_u8(out, '\n');
}

static void
print_stages(const struct ckptfs_status *s, const struct ckptfs_metrics *metrics, uint64_t now_ms,
    struct buffer *out)
{
    buffer_printf(out, "%-14s local %s, store %s", "checkpoint", print_stage_name(s->fold_stage),
        print_stage_name(s->publish_stage));
    if (s->publish_stage == CHECKPOINT_STAGE_UPLOADING) {
        buffer_append_string(out, ": ");
        print_upload(s, metrics, out);
    }
    buffer_append_u8(out, '\n');
    buffer_printf(out, "%-14s %" PRIu64 " made, %" PRIu64 " published, %" PRIu64 " failed\n", "",
        (uint64_t)s->checkpoints, (uint64_t)s->publications, (uint64_t)s->checkpoint_failures);
    print_last_error(s, metrics, now_ms, out);
}

// Flags that an operator changed.
static void
print_flags(const struct ckptfs_metrics *metrics, struct buffer *out)
{
    static const struct {
        const char *name;
        bool usual;
    } flags[] = {{"enable_checkpoints", true}, {"enable_chunk_deltas", true},
        {"enable_append_only_truncation", true}, {"enable_cold_scan", true},
        {"cold_scan_all", false}};
    const char *name = "flags";
    for (size_t i = 0; i < ARRAY_LENGTH(flags); i++) {
        const struct ckptfs_metric *m = find_metric(metrics, flags[i].name);
        if (!m || (m->value != 0) == flags[i].usual)
            continue;
        buffer_printf(out, "%-14s %s is %s\n", name, flags[i].name, m->value ? "on" : "off");
        name = "";
    }
}

static void
print_disk(const struct ckptfs_metrics *metrics, struct buffer *out)
{
    static const char *const names[][3] = {
        {"disk", "quota_used_bytes", "quota_limit_bytes"},
        {"disk of tenant", "tenant_quota_used_bytes", "tenant_quota_limit_bytes"},
        {"disk of root", "root_quota_used_bytes", "root_quota_limit_bytes"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        char used[32];
        char limit[32];
        uint64_t bytes = print_metric(metrics, names[i][2]);
        print_size(print_metric(metrics, names[i][1]), used);
        print_size(bytes, limit);
        buffer_printf(
            out, "%-14s %s%s%s\n", names[i][0], used, bytes ? " of " : "", bytes ? limit : "");
    }
}

void
print_status(const struct ckptfs_status *s, const struct ckptfs_metrics *metrics, uint64_t now_ms,
    struct buffer *out)
{
    char size[32];
    char other[32];
    print_identity(s, metrics, out);
    print_generation(out, "local", s->local_generation, s->local_time_ms, now_ms);
    print_generation(out, "published", s->published_generation, s->published_time_ms, now_ms);
    print_unpublished(s, out);
    print_stages(s, metrics, now_ms, out);
    line_of(out, "wal", s->wal_bytes, s->wal_limit_bytes);
    line_of(out, "page cache", s->page_cache_bytes, s->page_cache_limit_bytes);
    print_size(s->dirty_bytes, size);
    buffer_printf(out, "%-14s %s\n", "dirty", size);
    print_disk(metrics, out);
    print_flags(metrics, out);
    print_size(s->blob_bytes, size);
    buffer_printf(out,
        "%-14s %" PRIu64 " inodes, %" PRIu64 " chunks, %" PRIu64 " deltas, %" PRIu64
        " blobs of %s\n",
        "content", (uint64_t)s->inodes, (uint64_t)s->chunks, (uint64_t)s->deltas,
        (uint64_t)s->blobs, size);
    buffer_printf(out,
        "%-14s %" PRIu64 " PUT, %" PRIu64 " GET, %" PRIu64 " HEAD, %" PRIu64 " LIST, %" PRIu64
        " DELETE; %" PRIu64 " errors\n",
        "requests", (uint64_t)s->put_requests, (uint64_t)s->get_requests,
        (uint64_t)s->head_requests, (uint64_t)s->list_requests, (uint64_t)s->delete_requests,
        (uint64_t)s->store_errors);
    print_size(s->store_bytes_written, size);
    print_size(s->store_bytes_read, other);
    buffer_printf(out, "%-14s %s written, %s read\n", "transfer", size, other);
    buffer_printf(out, "%-14s %" PRIu64 " fsyncs in %" PRIu64 " flushes\n", "commits",
        (uint64_t)s->fsyncs, (uint64_t)s->flushes);
}

void
print_lost(const struct ckptfs_lost *lost, struct buffer *out)
{
    char size[32];
    if (lost->ranges == 0)
        return;
    print_size(lost->bytes, size);
    buffer_printf(out,
        "%-14s %s of files cannot be read any more (EIO); find -inum names them, writing them anew "
        "heals\n",
        "lost", size);
    for (uint32_t i = 0; i < lost->count; i++)
        buffer_printf(out, "%-14s inode %" PRIu64 " at %" PRIu64 ", %" PRIu64 " bytes\n", "",
            (uint64_t)lost->first[i].inode, (uint64_t)lost->first[i].offset,
            (uint64_t)lost->first[i].length);
    if (lost->ranges > lost->count)
        buffer_printf(
            out, "%-14s and %" PRIu64 " more ranges\n", "", (uint64_t)(lost->ranges - lost->count));
}

// ---- for programs -------------------------------------------------------------------------------

static void
print_metrics_json(const struct ckptfs_metrics *metrics, struct json_writer *w)
{
    for (size_t i = 0; i < metrics->count; i++) {
        const struct ckptfs_metric *m = &metrics->metrics[i];
        if (m->unit == CKPTFS_UNIT_FLAG)
            write_json_bool(w, m->name, m->value != 0);
        else
            write_json_u64(w, m->name, m->value);
    }
}

static void
print_lost_json(const struct ckptfs_lost *lost, struct json_writer *w)
{
    write_json_begin_array(w, "lost");
    for (uint32_t i = 0; i < lost->count; i++) {
        write_json_begin_object(w, NULL);
        write_json_u64(w, "inode", lost->first[i].inode);
        write_json_u64(w, "offset", lost->first[i].offset);
        write_json_u64(w, "length", lost->first[i].length);
        write_json_end_object(w);
    }
    write_json_end_array(w);
}

void
print_status_json(const struct ckptfs_status *s, const struct ckptfs_metrics *metrics,
    const struct ckptfs_lost *lost, struct buffer *out)
{
    struct json_writer w = {.out = out};
    struct uuid id;
    char text[37];
    memcpy(id.b, s->volume, sizeof(id.b));
    uuid_to_string(&id, text);
    write_json_begin_object(&w, NULL);
    write_json_string(&w, "source", s->source);
    write_json_string(&w, "tenant", s->tenant);
    write_json_string(&w, "volume", text);
    write_json_string(&w, "root", s->root);
    write_json_u64(&w, "pid", metrics->pid);
    write_json_string(&w, "read_only_reason", s->read_only_reason);
    write_json_string(&w, "fold_stage", print_stage_name(s->fold_stage));
    write_json_string(&w, "publish_stage", print_stage_name(s->publish_stage));
    print_metrics_json(metrics, &w);
    print_lost_json(lost, &w);
    write_json_u64(&w, "completed_ticket", s->completed_ticket);
    write_json_i64(&w, "completed_result", s->completed_result);
    write_json_string(&w, "last_error", s->last_error);
    write_json_end_object(&w);
    buffer_append_u8(out, '\n');
}

void
print_checkpoint_json(const struct ckptfs_checkpoint *checkpoint,
    const struct ckptfs_status *status, struct buffer *out)
{
    struct json_writer w = {.out = out};
    write_json_begin_object(&w, NULL);
    write_json_u64(&w, "ticket", checkpoint->ticket);
    write_json_bool(&w, "waited", (checkpoint->flags & CKPTFS_CHECKPOINT_WAIT) != 0);
    write_json_bool(&w, "local_only", (checkpoint->flags & CKPTFS_CHECKPOINT_LOCAL_ONLY) != 0);
    if (checkpoint->flags & CKPTFS_CHECKPOINT_WAIT)
        write_json_u64(&w, "generation", checkpoint->generation);
    write_json_u64(&w, "local_generation", status->local_generation);
    write_json_u64(&w, "published_generation", status->published_generation);
    write_json_end_object(&w);
    buffer_append_u8(out, '\n');
}
