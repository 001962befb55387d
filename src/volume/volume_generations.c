// SPDX-License-Identifier: Apache-2.0
// The generations and snapshots that a volume keeps: which there are, and opening one beside the
// volume that is mounted.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "quota/storage_quota.h"
#include "remote/remote_retention.h"
#include "volume/volume_internal.h"

// Of an opened generation: memory for pages of files, and disk space for copies of blobs.
#define GENERATION_MEMORY_BYTES (8u << 20)
#define GENERATION_DISK_BYTES   (UINT64_C(256) << 20)

// ---- listing ------------------------------------------------------------------------------------

struct listing {
    volume_visit_kept *visit;
    void *argument;
};

static int
visit_generation(void *argument, const struct generation_record *g)
{
    const struct listing *l = argument;
    if (g->state != GENERATION_RETAINED)
        return 0;
    return l->visit(l->argument, NULL, g->generation, g->created_ms);
}

// The visitor stops with 1.
static int
answer_of(int rc)
{
    return rc < 0 ? rc : 0;
}

int
volume_list_generations(
    struct volume *v, struct generation from, volume_visit_kept *visit, void *argument)
{
    struct listing l = {visit, argument};
    struct manifest_reader *r;
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_generations(r, v->db, from, visit_generation, &l);
    manifest_read_end(r);
    return answer_of(rc);
}

static int
note_created(void *argument, const struct generation_record *g)
{
    struct generation_record *found = argument;
    if (g->generation.v == found->generation.v)
        found->created_ms = g->created_ms;
    return 1;
}

static uint64_t
created_ms(struct manifest_reader *r, struct db_id db, struct generation generation)
{
    struct generation_record found = {.generation = generation};
    int ignored UNUSED = manifest_read_generations(r, db, generation, note_created, &found);
    return found.created_ms;
}

int
volume_list_snapshots(
    struct volume *v, const struct remote_call *call, volume_visit_kept *visit, void *argument)
{
    struct remote_place place = v->place;
    struct manifest_reader *r;
    struct remote_pins pins;
    uint64_t now = clock_monotonic_ms();
    place.call = *call;
    if (call->deadline_ms != 0)
        place.call_ms = call->deadline_ms > now ? call->deadline_ms - now : 1;
    int rc = remote_pins_read(&place, &pins);
    if (rc < 0)
        return rc;
    rc = manifest_read_begin(v->manifest, &r);
    if (rc == 0) {
        for (size_t i = 0; i < pins.count && rc == 0; i++)
            if (pins.pins[i].kind == PIN_SNAPSHOT)
                rc = visit(argument, pins.pins[i].name, pins.pins[i].generation,
                    created_ms(r, v->db, pins.pins[i].generation));
        manifest_read_end(r);
    }
    remote_pins_free(&pins);
    return answer_of(rc);
}

// ---- opening ------------------------------------------------------------------------------------

// Copies of blobs may not push the mounted volume's own files out of the root.
static void
limit_disk(struct volume *v)
{
    struct storage_quota_numbers n;
    storage_quota_numbers(v->quota, &n);
    storage_quota_set_limit(v->quota, 2 * n.used + GENERATION_DISK_BYTES);
}

int
volume_open_generation(struct volume *v, struct generation generation,
    const struct volume_host *host, struct volume **volume_out, struct buffer *error)
{
    struct volume_config config;
    volume_config_copy(&config, &v->config);
    free(config.at);
    config.at = memory_printf("%" PRIu64, generation.v);
    config.read_only = true;
    config.create = config.takeover = config.discard_unpublished = false;
    config.page_cache_bytes = GENERATION_MEMORY_BYTES;
    config.quota_bytes = config.tenant_quota_bytes = config.root_quota_bytes = 0;
    config.tenant_read_limit_bytes = config.tenant_read_requests = 0;
    config.upload_threads = 1;
    int rc = volume_open(&config, host, volume_out, error);
    volume_config_free(&config);
    if (rc == 0)
        limit_disk(*volume_out);
    return rc == -ENOENT ? -ESTALE : rc;
}
