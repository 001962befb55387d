// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/checkpoint_planner.h"

#include <stdlib.h>

#include "format/blob.h"
#include "platform/memory.h"

// A change is thin when it is less than this part of the base.
#define THIN_CHANGE 512u

const struct plan_policy plan_policy_default = {
    .pack_threshold_bytes = 4u << 20,
    .pack_merged_bytes = 1u << 20,
    .delta_chain_max = 8,
    .delta_chain_wanted = 5,
    .merge_percent = 125,
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

// Those of the newest deltas that never need to go to the store.
static size_t
unpublished_deltas(const struct plan_chunk *c, uint64_t *bytes)
{
    size_t merge = 0;
    while (merge < c->delta_count && c->deltas[merge].mergeable)
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
        return true; // needs no old image
    if (!c->local)
        return false;
    if (c->restage_base || !policy->enable_chunk_deltas || 2 * (uint64_t)known > c->pages)
        return true;
    if (c->append_only && c->pages == CHUNK_PAGES)
        return true;
    return false;
}

static void
make_base(const struct plan_chunk *c, const struct plan_policy *policy, struct chunk_action *a)
{
    bool seal = c->append_only && c->pages == CHUNK_PAGES;
    uint32_t pages = c->present_pages + c->dirty_pages;
    a->kind = seal ? CHUNK_ACTION_SEAL_AS_BASE : CHUNK_ACTION_CREATE_BASE;
    a->merge_count = 0;
    a->estimated_bytes = image_bytes(pages < c->pages ? pages : c->pages, 0);
    a->pack = a->estimated_bytes < policy->pack_threshold_bytes;
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
        make_base(c, policy, a);
    } else {
        uint64_t merged = image_bytes(c->dirty_pages, c->hole_pages);
        a->merge_count = unpublished_deltas(c, &merged);
        a->kind = a->merge_count > 0 ? CHUNK_ACTION_MERGE_DELTAS : CHUNK_ACTION_CREATE_DELTA;
        a->estimated_bytes = merged;
        if (!c->changed && a->merge_count == 0)
            return false;
    }
    a->pack = a->estimated_bytes < policy->pack_threshold_bytes;
    return true;
}

// ---- upkeep within the budget -------------------------------------------------------------------

// A chunk that would be the better for more work than its change asks for.
struct upkeep {
    const struct plan_chunk *chunk;
    struct chunk_action *action;
    uint64_t weight; // of the deltas, in 1/1024 of the base
    bool full;       // the chain cannot take one more delta
    bool base;       // wants a new base
};

static bool
find_upkeep(const struct plan_chunk *c, const struct plan_policy *policy, struct chunk_action *a,
    struct upkeep *u)
{
    if (a->kind != CHUNK_ACTION_CREATE_DELTA && a->kind != CHUNK_ACTION_MERGE_DELTAS)
        return false;
    uint64_t deltas = 0;
    for (size_t i = 0; i < c->delta_count; i++)
        deltas += c->deltas[i].bytes;
    size_t count = c->delta_count - a->merge_count + 1;
    bool more = a->merge_count < c->delta_count && c->deltas[a->merge_count].local;
    *u = (struct upkeep){.chunk = c,
        .action = a,
        .weight = deltas * 1024 / (c->base_bytes + 1),
        .full = more && count > policy->delta_chain_max,
        .base = c->local && c->delta_count > 0 && 2 * deltas > c->base_bytes};
    return u->base || (more && count > policy->delta_chain_wanted);
}

static int
compare_upkeep(const void *p, const void *q)
{
    const struct upkeep *x = p;
    const struct upkeep *y = q;
    if (x->full != y->full)
        return x->full ? -1 : 1;
    if (x->base != y->base)
        return x->base ? -1 : 1;
    if (x->chunk->delta_count != y->chunk->delta_count)
        return x->chunk->delta_count > y->chunk->delta_count ? -1 : 1;
    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return x->chunk < y->chunk ? -1 : x->chunk > y->chunk; // both lie in one array
}

// Takes in the next delta and those that are not much larger. Where a chunk changes little at a
// time, it takes in each delta that is not larger than all before it together: a large delta is
// then written again rarely. Elsewhere that would make many chunks upload much at once.
static void
merge_tier(const struct plan_chunk *c, const struct plan_policy *policy, struct chunk_action *a)
{
    size_t merge = a->merge_count;
    uint64_t bytes = a->estimated_bytes;
    uint64_t limit = c->deltas[merge].bytes > bytes ? c->deltas[merge].bytes : bytes;
    limit += limit / 2;
    bool thin = bytes * THIN_CHANGE < c->base_bytes;
    bytes += c->deltas[merge++].bytes;
    while (merge < c->delta_count && c->deltas[merge].local &&
           (c->deltas[merge].bytes <= limit || (thin && c->deltas[merge].bytes <= bytes)))
        bytes += c->deltas[merge++].bytes;
    a->kind = CHUNK_ACTION_MERGE_DELTAS;
    a->merge_count = merge;
    a->estimated_bytes = bytes;
    a->pack = bytes < policy->pack_merged_bytes;
}

// `budget`: bytes that may be written beyond the changed ones; the last chunk may go over it.
static void
spend(const struct upkeep *all, size_t count, const struct plan_policy *policy, uint64_t budget)
{
    uint64_t spent = 0;
    for (size_t i = 0; i < count; i++) {
        const struct upkeep *u = &all[i];
        uint64_t before = u->action->estimated_bytes;
        if (spent >= budget && !u->full)
            continue;
        if (u->base && spent < budget)
            make_base(u->chunk, policy, u->action);
        else
            merge_tier(u->chunk, policy, u->action);
        spent += u->action->estimated_bytes - before;
    }
}

void
checkpoint_planner_plan(const struct plan_chunk *chunks, size_t count,
    const struct plan_policy *policy, struct checkpoint_plan *plan_out)
{
    *plan_out =
        (struct checkpoint_plan){.actions = memory_alloc(count * sizeof(struct chunk_action))};
    struct upkeep *upkeep = memory_alloc(count * sizeof(*upkeep));
    size_t upkeep_count = 0;
    uint64_t changed = 0;
    for (size_t i = 0; i < count; i++) {
        struct chunk_action *a = &plan_out->actions[plan_out->count];
        if (!plan_chunk(&chunks[i], policy, a))
            continue;
        plan_out->count++;
        changed += image_bytes(chunks[i].dirty_pages, 0);
        upkeep_count += find_upkeep(&chunks[i], policy, a, &upkeep[upkeep_count]);
    }
    if (upkeep_count > 0)
        qsort(upkeep, upkeep_count, sizeof(*upkeep), compare_upkeep);
    spend(upkeep, upkeep_count, policy, changed * policy->merge_percent / 100);
    free(upkeep);
    for (size_t i = 0; i < plan_out->count; i++)
        plan_out->estimated_bytes += plan_out->actions[i].estimated_bytes;
}

void
checkpoint_plan_free(struct checkpoint_plan *plan)
{
    free(plan->actions);
    *plan = (struct checkpoint_plan){0};
}
