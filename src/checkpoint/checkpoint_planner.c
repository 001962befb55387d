// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/checkpoint_planner.h"

#include <stdlib.h>

#include "format/blob.h"
#include "platform/memory.h"

const struct plan_policy plan_policy_default = {
    .pack_threshold_bytes = 4u << 20,
    .delta_chain_max = 4,
    .enable_chunk_deltas = true,
};

bool
checkpoint_planner_detects_append(uint64_t old_size, uint64_t first_dirty_page, bool has_holes)
{
    return !has_holes && first_dirty_page >= old_size / PAGE_BYTES;
}

// An upper bound: raw frames, and a run for every page, also of holes.
static uint64_t
image_bytes(uint64_t pages, uint64_t holes)
{
    return BLOB_HEADER_BYTES + BLOB_FOOTER_BYTES + pages * (PAGE_BYTES + 32u) + (holes + 8) * 8u +
           (pages / BLOB_FRAME_PAGES + 1) * BLOB_FRAME_HEADER;
}

// How many of the newest deltas the new one should take in.
static size_t
deltas_to_merge(const struct plan_chunk *c, const struct plan_policy *policy, uint64_t *bytes)
{
    size_t merge = 0;
    while (merge < c->delta_count && c->deltas[merge].mergeable)
        *bytes += c->deltas[merge++].bytes;
    // Beyond that, only what is about as large as what is being written anyway: each page is then
    // rewritten a logarithmic number of times.
    while (merge < c->delta_count && c->deltas[merge].local &&
           c->delta_count - merge >= policy->delta_chain_max &&
           c->deltas[merge].bytes <= 2 * *bytes)
        *bytes += c->deltas[merge++].bytes;
    return merge;
}

static bool
wants_base(const struct plan_chunk *c, const struct plan_policy *policy)
{
    if (!c->exists)
        return true;
    uint32_t known = c->dirty_pages + c->hole_pages;
    if (known >= c->pages && !c->partial)
        return true; // needs nothing of what is there
    if (!c->local)
        return false;
    if (c->restage_base || !policy->enable_chunk_deltas || 2 * (uint64_t)known > c->pages)
        return true;
    if (c->append_only && c->pages == CHUNK_PAGES)
        return true;
    uint64_t deltas = 0;
    for (size_t i = 0; i < c->delta_count; i++)
        deltas += c->deltas[i].bytes;
    return c->delta_count > 0 && 2 * deltas > c->base_bytes;
}

static bool
plan_chunk(const struct plan_chunk *c, const struct plan_policy *policy, struct chunk_action *a)
{
    *a = (struct chunk_action){.object = c->object, .index = c->index, .pages = c->pages};
    if (c->dirty_pages == 0 && (!c->exists || c->hole_pages >= c->pages)) {
        a->kind = CHUNK_ACTION_DROP_CHUNK;
        return c->exists;
    }
    if (!c->changed && !(c->restage_base && c->local) && !c->restage_deltas)
        return false;
    if (wants_base(c, policy)) {
        bool seal = c->append_only && c->pages == CHUNK_PAGES;
        a->kind = seal ? CHUNK_ACTION_SEAL_AS_BASE : CHUNK_ACTION_CREATE_BASE;
        uint32_t pages = c->present_pages + c->dirty_pages;
        a->estimated_bytes = image_bytes(pages < c->pages ? pages : c->pages, 0);
    } else {
        uint64_t merged = image_bytes(c->dirty_pages, c->hole_pages);
        a->merge_count = deltas_to_merge(c, policy, &merged);
        a->kind = a->merge_count > 0 ? CHUNK_ACTION_MERGE_DELTAS : CHUNK_ACTION_CREATE_DELTA;
        a->estimated_bytes = merged;
        if (!c->changed && a->merge_count == 0)
            return false;
    }
    a->pack = a->estimated_bytes < policy->pack_threshold_bytes;
    return true;
}

void
checkpoint_planner_plan(const struct plan_chunk *chunks, size_t count,
    const struct plan_policy *policy, struct checkpoint_plan *plan_out)
{
    *plan_out =
        (struct checkpoint_plan){.actions = memory_alloc(count * sizeof(struct chunk_action))};
    for (size_t i = 0; i < count; i++) {
        struct chunk_action *a = &plan_out->actions[plan_out->count];
        if (!plan_chunk(&chunks[i], policy, a))
            continue;
        plan_out->count++;
        plan_out->estimated_bytes += a->estimated_bytes;
    }
}

void
checkpoint_plan_free(struct checkpoint_plan *plan)
{
    free(plan->actions);
    *plan = (struct checkpoint_plan){0};
}
