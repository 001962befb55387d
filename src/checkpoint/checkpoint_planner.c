// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/checkpoint_planner.h"

#include <stdlib.h>

#include "format/blob.h"
#include "platform/memory.h"

// Who plans a merge looks so far ahead: until a delta is merged more often than this.
#define MERGES_MAX 4u

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

// A place for `slots` deltas takes more of them by merging: so many turns of one delta each can go
// by until some delta has to be merged `merges` + 1 times, and so many deltas are written again
// meanwhile. In the best order C(slots + j, j + 1) deltas are merged j times.
static void
count_turns(size_t slots, size_t merges, uint64_t *turns_out, uint64_t *writes_out)
{
    uint64_t group = 1;
    *turns_out = *writes_out = 0;
    for (size_t j = 0; j <= merges && slots > 0; j++) {
        group = group * (slots + j) / (j + 1);
        *turns_out += group;
        *writes_out += j * group;
    }
}

// What one turn costs, in 1/256 bytes, when the newest `count` deltas, which have `bytes`, are
// merged with the change now, and the places of all but one of them are used as long as that pays.
static uint64_t
cost_of_merge(size_t count, uint64_t bytes, uint64_t change)
{
    uint64_t best = UINT64_MAX;
    for (size_t merges = 0; merges < MERGES_MAX; merges++) {
        uint64_t turns, writes;
        count_turns(count - 1, merges, &turns, &writes);
        uint64_t cost = (bytes + writes * change) * 256 / (turns + 1);
        if (cost < best)
            best = cost;
    }
    return best;
}

// Takes in as many deltas as makes this turn and those to come cheapest, if the chunk goes on to
// change like this. Of two numbers that cost about the same the higher one makes the shorter chain.
static void
merge_cheapest(const struct plan_chunk *c, const struct plan_policy *policy, struct chunk_action *a)
{
    if (a->kind == CHUNK_ACTION_NONE)
        merge_newest(c, policy, 1, a); // as if it were the change
    size_t best = a->merge_count + 1;
    uint64_t best_cost = UINT64_MAX;
    uint64_t bytes = 0;
    for (size_t i = a->merge_count; i < c->delta_count && c->deltas[i].local; i++) {
        bytes += c->deltas[i].bytes;
        uint64_t cost = cost_of_merge(i + 1 - a->merge_count, bytes, a->estimated_bytes);
        if (best_cost == UINT64_MAX || cost <= best_cost + best_cost / 32) {
            best_cost = cost;
            best = i + 1;
        }
    }
    merge_newest(c, policy, best, a);
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
        merge_cheapest(c, policy, u->action);
}

// Bytes that may be written beyond the changed ones. The last chunk may go over them.
struct budget {
    uint64_t usual;     // for all chunks but those in poor packs
    uint64_t packs;     // for these
    uint64_t allowance; // what both together have at least
};

static void
spend(const struct upkeep *all, size_t count, const struct plan_policy *policy,
    const struct budget *budget)
{
    uint64_t spent = 0;
    uint64_t pack_spent = 0;
    for (size_t i = 0; i < count; i++) {
        bool pack = all[i].why == PLAN_UPKEEP_PACK;
        uint64_t *sum = pack ? &pack_spent : &spent;
        bool paid =
            *sum < (pack ? budget->packs : budget->usual) || spent + pack_spent < budget->allowance;
        bool must = all[i].why == PLAN_UPKEEP_FULL && all[i].chunk->changed;
        uint64_t before = all[i].action->estimated_bytes;
        if (!paid && !must)
            continue;
        carry_out(&all[i], policy, paid);
        *sum += all[i].action->estimated_bytes - before;
    }
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
    const struct budget budget = {.usual = changed * policy->merge_percent / 100,
        .packs = changed * policy->pack_percent / 100,
        .allowance = policy->allowance_bytes > changed ? policy->allowance_bytes - changed : 0};
    spend(upkeep, upkeep_count, policy, &budget);
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
