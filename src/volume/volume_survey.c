// SPDX-License-Identifier: Apache-2.0
#include "volume/volume_survey.h"

#include <stdlib.h>
#include <string.h>

#include "platform/memory.h"

#define ALLOWANCE_MIN (UINT64_C(1) << 20)
// As long as only few checkpoints are known: the first one may have brought in everything.
#define ALLOWANCE_UNKNOWN (UINT64_C(32) << 20)
#define GENERATIONS_KNOWN 4u
// A chunk that changed in so many of the last generations will change again, and the planner looks
// after it then.
#define BUSY_GENERATIONS 2u

void
survey_begin(struct survey *s, const struct survey_options *options)
{
    *s = (struct survey){.options = *options};
}

void
survey_end(struct survey *s)
{
    free(s->packs);
    free(s->chunks);
    free(s->deltas);
    free(s->delta_blobs);
    *s = (struct survey){0};
}

// ---- blobs --------------------------------------------------------------------------------------

// Keeps the newest generations only.
static void
note_generation(struct survey *s, struct generation generation, uint64_t bytes)
{
    size_t lowest = 0;
    for (size_t i = 0; i < s->recent_count; i++) {
        if (s->recent[i].generation.v == generation.v) {
            s->recent[i].bytes += bytes;
            return;
        }
        if (s->recent[i].generation.v < s->recent[lowest].generation.v)
            lowest = i;
    }
    if (s->recent_count < SURVEY_GENERATIONS)
        lowest = s->recent_count++;
    else if (generation.v < s->recent[lowest].generation.v)
        return;
    s->recent[lowest] = (struct survey_generation){generation, bytes};
}

static int
note_blob(void *argument, const struct blob_record *blob)
{
    struct survey *s = argument;
    s->next_blob = blob->hash;
    if (s->left-- == 0)
        return 1;
    note_generation(s, blob->generation, blob->bytes);
    if (blob->kind != BLOB_OBJECT_PACK) {
        s->others += blob->bytes;
        return 0;
    }
    if (s->pack_count == s->pack_capacity) {
        s->pack_capacity = s->pack_capacity ? 2 * s->pack_capacity : 64;
        s->packs = memory_realloc(s->packs, s->pack_capacity * sizeof(*s->packs));
    }
    s->packs[s->pack_count++] = (struct upkeep_pack){
        .hash = blob->hash, .bytes = blob->bytes, .live_bytes = blob->live_bytes};
    return 0;
}

static int
compare_bytes(const void *p, const void *q)
{
    uint64_t x = ((const struct survey_generation *)p)->bytes;
    uint64_t y = ((const struct survey_generation *)q)->bytes;
    return x < y ? -1 : x > y;
}

static void
end_blobs(struct survey *s)
{
    uint64_t half = 0;
    if (s->recent_count > 0) {
        qsort(s->recent, s->recent_count, sizeof(s->recent[0]), compare_bytes);
        half = s->recent[s->recent_count / 2].bytes / 2;
    }
    if (s->recent_count < GENERATIONS_KNOWN && half > ALLOWANCE_UNKNOWN)
        half = ALLOWANCE_UNKNOWN;
    if (half < ALLOWANCE_MIN)
        half = ALLOWANCE_MIN;
    s->allowance_bytes = half < s->options.allowance_max ? half : s->options.allowance_max;
    s->pack_count =
        checkpoint_upkeep_choose_packs(s->packs, s->pack_count, s->others, s->allowance_bytes);
    s->blobs_seen = true;
}

// ---- chunks -------------------------------------------------------------------------------------

static bool
note_poor(struct survey *s, const struct sha256 *blob)
{
    const struct upkeep_pack *pack = checkpoint_upkeep_find_pack(s->packs, s->pack_count, blob);
    if (pack && pack->rank < s->poor_rank)
        s->poor_rank = pack->rank;
    return pack != NULL;
}

static int
note_delta(void *argument, const struct chunk_delta *delta)
{
    struct survey *s = argument;
    if (s->delta_count == s->delta_capacity) {
        s->delta_capacity = s->delta_capacity ? 2 * s->delta_capacity : 16;
        s->deltas = memory_realloc(s->deltas, s->delta_capacity * sizeof(*s->deltas));
        s->delta_blobs =
            memory_realloc(s->delta_blobs, s->delta_capacity * sizeof(*s->delta_blobs));
    }
    s->delta_blobs[s->delta_count] = delta->where.blob;
    s->deltas[s->delta_count++] = (struct plan_delta){.bytes = delta->where.length,
        .pages = delta->data_pages,
        .local = true,
        .poor = note_poor(s, &delta->where.blob)};
    return 0;
}

// Whether all images that upkeep needs have whole copies here.
static bool
is_here(const struct survey *s, const struct upkeep_chunk *c, const struct chunk_entry *chunk)
{
    for (size_t i = 0; i < c->images; i++) {
        const struct sha256 *blob = i < s->delta_count ? &s->delta_blobs[i] : &chunk->base.blob;
        if (!local_store_has(s->options.local, blob))
            return false;
    }
    return true;
}

static void
take_chunk(struct survey *s, const struct upkeep_chunk *found)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 64;
        s->chunks = memory_realloc(s->chunks, s->capacity * sizeof(*s->chunks));
    }
    s->chunks[s->count++] = *found;
    // What more than one checkpoint can do waits for the next look.
    if (s->count >= 2 * UPKEEP_CHUNKS_MAX)
        s->count = checkpoint_upkeep_choose(s->chunks, s->count, s->allowance_bytes);
}

static void
judge(struct survey *s, const struct chunk_entry *chunk, bool poor_base)
{
    struct upkeep_chunk found;
    const struct plan_chunk in = {.object = chunk->object,
        .index = chunk->index,
        .pages = CHUNK_PAGES,
        .exists = true,
        .present_pages = chunk->present_pages,
        .base_bytes = chunk->base.length,
        .base_pages = chunk->base_pages,
        .sealed = chunk->sealed,
        .poor_base = poor_base,
        .poor_rank = s->poor_rank,
        .delta_count = s->delta_count,
        .deltas = s->deltas};
    if (!checkpoint_upkeep_judge(&in, &plan_policy_default, &found))
        return;
    found.id = chunk->id;
    found.generation = chunk->generation;
    bool busy = chunk->generation.v + BUSY_GENERATIONS > s->local.v;
    if (busy && found.action.upkeep != PLAN_UPKEEP_PACK && is_here(s, &found, chunk))
        return;
    if (s->options.is_left && s->options.is_left(s->options.argument, found.id, found.generation))
        return;
    take_chunk(s, &found);
}

static int
note_chunk(void *argument, const struct chunk_entry *chunk)
{
    struct survey *s = argument;
    s->next_chunk = chunk->id;
    if (s->left-- == 0)
        return 1;
    s->poor_rank = UINT32_MAX;
    s->delta_count = 0;
    bool poor_base = chunk->base.length > 0 && note_poor(s, &chunk->base.blob);
    bool fine = 2 * chunk->delta_bytes <= chunk->base.length &&
                chunk->delta_count <= plan_policy_default.delta_chain_wanted;
    if (fine && !poor_base && (s->pack_count == 0 || chunk->delta_count == 0))
        return 0;
    int rc = manifest_read_deltas(s->reader, s->options.db, chunk->id, note_delta, s);
    if (rc == 0)
        judge(s, chunk, poor_base);
    return rc;
}

// ---- steps --------------------------------------------------------------------------------------

static int
go_on(struct survey *s)
{
    struct db_record db;
    int rc = manifest_read_db(s->reader, s->options.db, &db);
    if (rc < 0)
        return rc;
    s->local = db.local;
    if (!s->blobs_seen) {
        rc = manifest_read_remote_blobs(s->reader, s->options.db, &s->next_blob, note_blob, s);
        if (rc != 0)
            return rc;
        end_blobs(s);
    }
    rc = manifest_read_chunks(s->reader, s->options.db, s->next_chunk, note_chunk, s);
    s->done = rc == 0;
    return rc;
}

int
survey_step(struct survey *s, unsigned entries)
{
    s->left = entries;
    int rc = manifest_read_begin(s->options.manifest, &s->reader);
    if (rc < 0)
        return rc;
    rc = go_on(s);
    manifest_read_end(s->reader);
    s->reader = NULL;
    if (s->done)
        s->count = checkpoint_upkeep_choose(s->chunks, s->count, s->allowance_bytes);
    return rc;
}
