// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/checkpoint_upkeep.h"

#include <stdlib.h>
#include <string.h>

// Of the deltas of a chunk, those are fetched for a merge that make up this part of the base, and
// at least so many.
#define MERGED_PART 8u
#define MERGED_MIN  3u

// ---- packs --------------------------------------------------------------------------------------

static int
compare_shares(const void *p, const void *q)
{
    const struct upkeep_pack *x = p;
    const struct upkeep_pack *y = q;
    double a = (double)x->live_bytes / (double)(x->bytes + 1);
    double b = (double)y->live_bytes / (double)(y->bytes + 1);
    return a != b ? (a < b ? -1 : 1) : memcmp(&x->hash, &y->hash, sizeof(x->hash));
}

static int
compare_hashes(const void *p, const void *q)
{
    return memcmp(p, q, sizeof(struct sha256)); // the first field of both
}

size_t
checkpoint_upkeep_choose_packs(
    struct upkeep_pack *packs, size_t count, uint64_t others, uint64_t budget)
{
    uint64_t stored = others;
    uint64_t live = others;
    for (size_t i = 0; i < count; i++) {
        stored += packs[i].bytes;
        live += packs[i].live_bytes;
    }
    if (count > 0)
        qsort(packs, count, sizeof(*packs), compare_shares);
    size_t chosen = 0;
    for (uint64_t moved = 0; chosen < count && moved < budget; chosen++) {
        struct upkeep_pack *p = &packs[chosen];
        if (stored <= live / 100 * UPKEEP_STORED_PERCENT || p->live_bytes >= p->bytes)
            break;
        stored -= p->bytes - p->live_bytes;
        moved += p->live_bytes;
        p->rank = (uint32_t)chosen;
    }
    if (chosen > 0)
        qsort(packs, chosen, sizeof(*packs), compare_hashes);
    return chosen;
}

const struct upkeep_pack *
checkpoint_upkeep_find_pack(
    const struct upkeep_pack *packs, size_t count, const struct sha256 *hash)
{
    return count > 0 ? bsearch(hash, packs, count, sizeof(*packs), compare_hashes) : NULL;
}

// ---- chunks -------------------------------------------------------------------------------------

// Most chunks are fine, and are told so without a plan.
static bool
may_want_upkeep(const struct plan_chunk *c, const struct plan_policy *policy)
{
    bool poor = c->poor_base;
    for (size_t i = 0; i < c->delta_count; i++)
        poor |= c->deltas[i].poor;
    struct plan_bytes bytes = checkpoint_planner_bytes(c);
    return poor || 2 * bytes.superseded > bytes.live || c->delta_count > policy->delta_chain_wanted;
}

// Large old deltas are seldom merged with small new ones, and cost much to fetch.
static void
limit_merge(const struct plan_chunk *c, struct upkeep_chunk *found)
{
    size_t n = 0;
    uint64_t bytes = 0;
    while (n < c->delta_count && (n < MERGED_MIN || bytes <= c->base_bytes / MERGED_PART))
        bytes += c->deltas[n++].bytes;
    found->mergeable = n;
    found->mergeable_bytes = bytes;
    found->least = n < MERGED_MIN ? n : MERGED_MIN;
}

bool
checkpoint_upkeep_judge(const struct plan_chunk *chunk, const struct plan_policy *policy,
    struct upkeep_chunk *found_out)
{
    if (!may_want_upkeep(chunk, policy))
        return false;
    struct plan_policy rich = *policy;
    struct plan_chunk here = *chunk;
    struct checkpoint_plan plan;
    rich.allowance_bytes = UINT64_MAX;
    here.upkeep = here.local = true;
    here.changed = false;
    checkpoint_planner_plan(&here, 1, &rich, &plan);
    bool found = plan.count > 0 && plan.actions[0].upkeep != PLAN_UPKEEP_NONE;
    if (found) {
        const struct chunk_action *a = &plan.actions[0];
        bool merge = a->kind == CHUNK_ACTION_MERGE_DELTAS;
        *found_out = (struct upkeep_chunk){.object = chunk->object,
            .index = chunk->index,
            .action = *a,
            .images = merge ? a->merge_count : chunk->delta_count + (chunk->base_bytes > 0),
            .poor_rank = chunk->poor_rank,
            .delta_count = chunk->delta_count,
            .long_chain = chunk->delta_count > policy->delta_chain_wanted,
            .full = chunk->delta_count >= policy->delta_chain_max};
    }
    if (found)
        limit_merge(chunk, found_out);
    checkpoint_plan_free(&plan);
    return found;
}

static int
compare_needs(const void *p, const void *q)
{
    const struct upkeep_chunk *x = p;
    const struct upkeep_chunk *y = q;
    if (x->action.upkeep != y->action.upkeep)
        return x->action.upkeep < y->action.upkeep ? -1 : 1;
    if (x->action.upkeep == PLAN_UPKEEP_PACK && x->poor_rank != y->poor_rank)
        return x->poor_rank < y->poor_rank ? -1 : 1;
    if (x->delta_count != y->delta_count)
        return x->delta_count > y->delta_count ? -1 : 1;
    return x->id.v < y->id.v ? -1 : x->id.v > y->id.v;
}

static bool
pay(uint64_t *sum, uint64_t limit, uint64_t bytes)
{
    if (*sum >= limit)
        return false;
    *sum += bytes;
    return true;
}

// A chunk that gets no new base now may at least be merged.
size_t
checkpoint_upkeep_choose(struct upkeep_chunk *chunks, size_t count, uint64_t budget)
{
    if (count > 0)
        qsort(chunks, count, sizeof(*chunks), compare_needs);
    uint64_t written = 0;
    uint64_t merged = 0;
    size_t chosen = 0;
    for (size_t i = 0; i < count && chosen < UPKEEP_CHUNKS_MAX; i++) {
        struct upkeep_chunk c = chunks[i];
        bool write = c.action.upkeep == PLAN_UPKEEP_PACK || c.action.upkeep == PLAN_UPKEEP_BASE;
        if (write && pay(&written, budget, c.action.estimated_bytes)) {
            chunks[chosen++] = c;
        } else if (c.long_chain && pay(&merged, UPKEEP_FETCH_TIMES * budget, c.mergeable_bytes)) {
            c.images = c.mergeable;
            chunks[chosen++] = c;
        } else if (c.full && budget > 0) {
            c.images = c.least;
            chunks[chosen++] = c;
        }
    }
    return chosen;
}
