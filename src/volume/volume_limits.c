// SPDX-License-Identifier: Apache-2.0
// The limits of the store under a mount: how fast it may read and upload.
#include <errno.h>

#include "platform/log.h"
#include "store/hedged_store.h"
#include "volume/volume_internal.h"

void
volume_open_limits(struct volume *v)
{
    const struct remote_limits limits = {
        .reads = {v->config.read_limit_bytes, v->config.read_requests},
        .uploads = {.bytes = v->config.upload_limit_bytes},
    };
    v->hedged = hedged_store_wrap(v->remote);
    hedged_store_turn(v->hedged, v->config.hedge_reads);
    v->remote = limited_store_wrap(v->hedged);
    limited_store_set(v->remote, &limits);
}

void
volume_get_limits(struct volume *v, struct remote_limits *limits_out)
{
    limited_store_get(v->remote, limits_out);
}

static bool
is_rate(uint64_t bytes)
{
    return bytes == 0 || bytes >= LIMITER_RATE_MIN;
}

// Those that are as they were are left alone: another daemon may be changing them.
static int
set_tenant_limits(struct volume *v, const struct limiter_rates *wanted)
{
    struct tenant_rate_limits now;
    tenant_rate_get(v->tenant_rate, &now);
    if (now.bytes == wanted->bytes && now.requests == wanted->requests)
        return 0;
    if (!v->tenant_rate)
        return -ENOTSUP;
    const struct tenant_rate_limits limits = {wanted->bytes, wanted->requests};
    tenant_rate_set(v->tenant_rate, &limits);
    return 0;
}

void
volume_open_tenant_limits(struct volume *v)
{
    struct tenant_rate_limits limits;
    v->tenant_rate = tenant_rate_open(v->quota, LIMITER_BACKGROUND);
    tenant_rate_get(v->tenant_rate, &limits);
    if (v->config.tenant_read_limit_bytes > 0)
        limits.bytes = v->config.tenant_read_limit_bytes;
    if (v->config.tenant_read_requests > 0)
        limits.requests = v->config.tenant_read_requests;
    if (v->config.tenant_read_limit_bytes > 0 || v->config.tenant_read_requests > 0)
        tenant_rate_set(v->tenant_rate, &limits);
    limited_store_set_share(v->remote, v->tenant_rate);
}

void
volume_close_tenant_limits(struct volume *v)
{
    limited_store_set_share(v->remote, NULL);
    tenant_rate_close(v->tenant_rate);
    v->tenant_rate = NULL;
}

int
volume_set_limits(struct volume *v, const struct remote_limits *limits)
{
    if (!is_rate(limits->reads.bytes) || !is_rate(limits->uploads.bytes) ||
        !is_rate(limits->tenant_reads.bytes))
        return -EINVAL;
    limited_store_set(v->remote, limits);
    int rc = set_tenant_limits(v, &limits->tenant_reads);
    if (rc < 0)
        return rc;
    struct log_event e;
    log_begin(&e, LOG_LEVEL_INFO, "limits.set");
    log_u64(&e, "read_bytes", limits->reads.bytes);
    log_u64(&e, "read_requests", limits->reads.requests);
    log_u64(&e, "upload_bytes", limits->uploads.bytes);
    log_u64(&e, "tenant_read_bytes", limits->tenant_reads.bytes);
    log_u64(&e, "tenant_read_requests", limits->tenant_reads.requests);
    log_end(&e);
    return 0;
}

void
volume_limits_metrics(struct volume *v, struct metrics *m)
{
    struct remote_limits limits;
    struct remote_limits_numbers n;
    limited_store_get(v->remote, &limits);
    limited_store_numbers(v->remote, &n);
    struct hedged_numbers hedged;
    hedged_store_numbers(v->hedged, &hedged);
    m->hedged_reads = hedged.sent;
    m->hedged_reads_won = hedged.won;
    m->read_limit_bytes = limits.reads.bytes;
    m->read_limit_requests = limits.reads.requests;
    m->tenant_read_limit_bytes = limits.tenant_reads.bytes;
    m->tenant_read_limit_requests = limits.tenant_reads.requests;
    m->upload_limit_bytes = limits.uploads.bytes;
    m->limit_waits = n.waits;
    m->limit_wait_ms = n.wait_ms;
    m->limit_waiting = n.waiting;
    m->limit_timeouts = n.refused;
    m->reads_foreground = n.reads[REMOTE_FOREGROUND];
    m->reads_read_ahead = n.reads[REMOTE_READ_AHEAD];
    m->reads_job = n.reads[REMOTE_UPLOAD] + n.reads[REMOTE_JOB];
    m->reads_cold_scan = n.reads[REMOTE_COLD_SCAN];
    m->read_bytes_foreground = n.read_bytes[REMOTE_FOREGROUND];
    m->read_bytes_read_ahead = n.read_bytes[REMOTE_READ_AHEAD];
    m->read_bytes_job = n.read_bytes[REMOTE_UPLOAD] + n.read_bytes[REMOTE_JOB];
    m->read_bytes_cold_scan = n.read_bytes[REMOTE_COLD_SCAN];
}
