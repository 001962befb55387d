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
    .pack_percent = 50,
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

static struct plan_bytes
sum_deltas(const struct plan_chunk *c, uint64_t *pages_out)
{
    struct plan_bytes sum = {.live = c->base_bytes};
    *pages_out = 0;
    for (size_t i = 0; i < c->delta_count; i++) {
        sum.superseded += c->deltas[i].bytes;
        *pages_out += c->deltas[i].pages;
    }
    return sum;
}

// Whether an open tail's images hold each page once, but for the pages that an end lay in.
static bool
is_appended(const struct plan_chunk *c)
{
    uint64_t pages;
    (void)sum_deltas(c, &pages);
    return c->append_only &&
           c->base_pages + pages + c->dirty_pages <= c->pages + c->delta_count + 1;
}

struct plan_bytes
checkpoint_planner_bytes(const struct plan_chunk *c)
{
    uint64_t pages;
    struct plan_bytes sum = sum_deltas(c, &pages);
    if (!c->sealed && !is_appended(c))
        return sum;
    // Pages that some image holds, at least; the others are in two images or more.
    uint64_t all = c->base_pages + pages;
    uint64_t once = c->sealed ? CHUNK_PAGES : all;
    uint64_t twice = all > once ? all - once : 0;
    if (twice < pages) {
        uint64_t superseded = sum.superseded * twice / pages;
        sum.live += sum.superseded - superseded;
        sum.superseded = superseded;
    }
    return sum;
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
    if (c->restage_base || !policy->enable_chunk_deltas)
        return true;
    return !is_appended(c) &&
           (2 * (uint64_t)known > c->pages || (c->append_only && c->pages == CHUNK_PAGES));
}

static void
make_base(const struct plan_chunk *c, const struct plan_policy *policy, struct chunk_action *a)
{
    bool seal = c->append_only && c->pages == CHUNK_PAGES;
    uint32_t pages = c->present_pages + c->dirty_pages;
    a->kind = seal ? CHUNK_ACTION_SEAL_AS_BASE : CHUNK_ACTION_CREATE_BASE;
    a->sealed = a->sealed || seal;
    a->merge_count = 0;
    a->estimated_bytes = image_bytes(pages < c->pages ? pages : c->pages, 0);
    a->pack = a->estimated_bytes < policy->pack_threshold_bytes;
}

static bool
plan_chunk(const struct plan_chunk *c, const struct plan_policy *policy, struct chunk_action *a)
{
    *a = (struct chunk_action){.object = c->object,
        .index = c->index,
        .pages = c->pages,
        .sealed = c->pages == CHUNK_PAGES && c->hole_pages == 0 && (c->sealed || is_appended(c))};
    if (c->dirty_pages == 0 && (!c->exists || c->hole_pages >= c->pages)) {
        a->kind = CHUNK_ACTION_DROP_CHUNK;
        return c->exists;
    }
    if (!c->changed && !(c->restage_base && c->local) && !c->restage_deltas)
        return c->exists && c->upkeep; // for upkeep or not at all
    if (wants_base(c, policy)) {
        make_base(c, policy, a);
    } else {
        uint64_t merged = image_bytes(c->dirty_pages, c->hole_pages);
        a->merge_count = unpublished_deltas(c, &merged);
        a->kind = a->merge_count > 0 ? CHUNK_ACTION_MERGE_DELTAS : CHUNK_ACTION_CREATE_DELTA;
        a->estimated_bytes = merged;
        if (!c->changed && a->merge_count == 0) {
            a->kind = CHUNK_ACTION_NONE;
            a->estimated_bytes = 0;
            return c->upkeep;
        }
    }
    a->pack = a->estimated_bytes < policy->pack_threshold_bytes;
    return true;
}

// ---- upkeep within the budget -------------------------------------------------------------------

// A chunk that would be the better for more work than its change asks for.
struct upkeep {
    const struct plan_chunk *chunk;
    struct chunk_action *action;
    enum plan_upkeep why;
    bool base;       // wants a new base
    uint64_t weight; // of superseded bytes, in 1/1024 of the live ones
    size_t poor;     // newest deltas down to the last one in a poor pack
};

// 0: no delta lies in a poor pack, or one above it cannot be read here.
static size_t
poor_deltas(const struct plan_chunk *c)
{
    size_t poor = 0;
    for (size_t i = 0; i < c->delta_count && c->deltas[i].local; i++)
        if (c->deltas[i].poor)
            poor = i + 1;
    return poor;
}

// Whether merging can take in a delta more, so that the chain gets shorter.
static bool
can_merge(const struct plan_chunk *c, const struct chunk_action *a)
{
    size_t next = a->kind == CHUNK_ACTION_NONE ? 1 : a->merge_count;
    return next < c->delta_count && c->deltas[next].local && c->deltas[0].local;
}

static bool
find_upkeep(const struct plan_chunk *c, const struct plan_policy *policy, struct chunk_action *a,
    struct upkeep *u)
{
    if (a->kind != CHUNK_ACTION_CREATE_DELTA && a->kind != CHUNK_ACTION_MERGE_DELTAS &&
        a->kind != CHUNK_ACTION_NONE)
        return false;
    struct plan_bytes bytes = checkpoint_planner_bytes(c);
    size_t count = c->delta_count - a->merge_count + (a->kind != CHUNK_ACTION_NONE);
    bool more = can_merge(c, a);
    *u = (struct upkeep){.chunk = c,
        .action = a,
        .weight = bytes.superseded * 1024 / (bytes.live + 1),
        .base = c->local && c->delta_count > 0 && 2 * bytes.superseded > bytes.live,
        .poor = poor_deltas(c)};
    if (more && count > policy->delta_chain_max)
        u->why = PLAN_UPKEEP_FULL;
    else if ((c->poor_base && c->local) || u->poor > a->merge_count)
        u->why = PLAN_UPKEEP_PACK;
    else if (u->base)
        u->why = PLAN_UPKEEP_BASE;
    else if (more && count > policy->delta_chain_wanted)
        u->why = PLAN_UPKEEP_CHAIN;
    return u->why != PLAN_UPKEEP_NONE;
}

static int
compare_upkeep(const void *p, const void *q)
{
    const struct upkeep *x = p;
    const struct upkeep *y = q;
    if (x->why != y->why)
        return x->why < y->why ? -1 : 1;
    if (x->base != y->base)
        return x->base ? -1 : 1;
    if (x->why == PLAN_UPKEEP_PACK && x->chunk->poor_rank != y->chunk->poor_rank)
        return x->chunk->poor_rank < y->chunk->poor_rank ? -1 : 1;
    if (x->chunk->delta_count != y->chunk->delta_count)
        return x->chunk->delta_count > y->chunk->delta_count ? -1 : 1;
    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return x->chunk < y->chunk ? -1 : x->chunk > y->chunk; // both lie in one array
}

static void
merge_newest(const struct plan_chunk *c, const struct plan_policy *policy, size_t count,
    struct chunk_action *a)
{
    for (size_t i = a->merge_count; i < count; i++)
        a->estimated_bytes += c->deltas[i].bytes;
    a->kind = CHUNK_ACTION_MERGE_DELTAS;
    a->merge_count = count;
    a->pack = a->estimated_bytes < policy->pack_merged_bytes;
}

// Takes in the next delta and those that are not much larger. Where a chunk changes little at a
// time, it takes in each delta that is not larger than all before it together: a large delta is
// then written again rarely. Elsewhere that would make many chunks upload much at once.
static void
merge_tier(const struct plan_chunk *c, const struct plan_policy *policy, struct chunk_action *a)
{
    if (a->kind == CHUNK_ACTION_NONE)
        merge_newest(c, policy, 1, a); // as if it were the change
    size_t merge = a->merge_count;
    uint64_t bytes = a->estimated_bytes;
    uint64_t limit = c->deltas[merge].bytes > bytes ? c->deltas[merge].bytes : bytes;
    limit += limit / 2;
    bool thin = bytes * THIN_CHANGE < c->base_bytes;
    bytes += c->deltas[merge++].bytes;
    while (merge < c->delta_count && c->deltas[merge].local &&
           (c->deltas[merge].bytes <= limit || (thin && c->deltas[merge].bytes <= bytes)))
        bytes += c->deltas[merge++].bytes;
    merge_newest(c, policy, merge, a);
}

// `paid`: the budget pays for it; else this is a full chain, which gets the least.
static void
carry_out(const struct upkeep *u, const struct plan_policy *policy, bool paid)
{
    const struct plan_chunk *c = u->chunk;
    u->action->upkeep = u->why;
    if (paid && (u->base || (u->why == PLAN_UPKEEP_PACK && c->poor_base && c->local)))
        make_base(c, policy, u->action);
    else if (u->why == PLAN_UPKEEP_PACK)
        merge_newest(c, policy, u->poor, u->action);
    else
        merge_tier(c, policy, u->action);
}

// `budget`: bytes that may be written beyond the changed ones; the last chunk may go over it.
// `pack_budget`: the same, for chunks in poor packs alone.
static void
spend(const struct upkeep *all, size_t count, const struct plan_policy *policy, uint64_t budget,
    uint64_t pack_budget)
{
    uint64_t spent = 0;
    uint64_t pack_spent = 0;
    for (size_t i = 0; i < count; i++) {
        bool pack = all[i].why == PLAN_UPKEEP_PACK;
        uint64_t *sum = pack ? &pack_spent : &spent;
        bool paid = *sum < (pack ? pack_budget : budget);
        bool must = all[i].why == PLAN_UPKEEP_FULL && all[i].chunk->changed;
        uint64_t before = all[i].action->estimated_bytes;
        if (!paid && !must)
            continue;
        carry_out(&all[i], policy, paid);
        *sum += all[i].action->estimated_bytes - before;
    }
}

static uint64_t
budget_of(uint64_t changed, uint64_t percent, const struct plan_policy *policy)
{
    uint64_t budget = changed * percent / 100;
    uint64_t rest = policy->allowance_bytes > changed ? policy->allowance_bytes - changed : 0;
    return budget > rest ? budget : rest;
}

// Chunks that were here for upkeep and did not get any.
static void
drop_idle(struct checkpoint_plan *plan)
{
    size_t kept = 0;
    for (size_t i = 0; i < plan->count; i++)
        if (plan->actions[i].kind != CHUNK_ACTION_NONE)
            plan->actions[kept++] = plan->actions[i];
    plan->count = kept;
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
        if (a->kind != CHUNK_ACTION_NONE)
            changed += image_bytes(chunks[i].dirty_pages, 0);
        upkeep_count += find_upkeep(&chunks[i], policy, a, &upkeep[upkeep_count]);
    }
    if (upkeep_count > 0)
        qsort(upkeep, upkeep_count, sizeof(*upkeep), compare_upkeep);
    spend(upkeep, upkeep_count, policy, budget_of(changed, policy->merge_percent, policy),
        budget_of(changed, policy->pack_percent, policy));
    free(upkeep);
    drop_idle(plan_out);
    for (size_t i = 0; i < plan_out->count; i++)
        plan_out->estimated_bytes += plan_out->actions[i].estimated_bytes;
}

void
checkpoint_plan_free(struct checkpoint_plan *plan)
{
    free(plan->actions);
    *plan = (struct checkpoint_plan){0};
}
