// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include <string.h>

#include "base/bytes.h"
#include "base/hash_table.h"
#include "checkpoint/checkpoint_planner.h"
#include "format/blob.h"
#include "platform/memory.h"

#define MIB (UINT64_C(1) << 20)

static uint64_t
pick(uint64_t *seed, uint64_t below)
{
    return hash_u64(++*seed) % below;
}

// ---- the rules ----------------------------------------------------------------------------------

// The action for one chunk; kind 0 when there is none.
static struct chunk_action
plan_one(const struct plan_chunk *chunk, const struct plan_policy *policy)
{
    struct checkpoint_plan plan;
    struct plan_chunk changed = *chunk;
    changed.changed = true;
    checkpoint_planner_plan(&changed, 1, policy, &plan);
    struct chunk_action a = {0};
    if (plan.count > 0) {
        ck_assert_uint_eq(plan.count, 1);
        a = plan.actions[0];
        ck_assert_uint_eq(plan.estimated_bytes, a.estimated_bytes);
        ck_assert_uint_eq(a.object.v, chunk->object.v);
        ck_assert_uint_eq(a.index.v, chunk->index.v);
        if (a.kind != CHUNK_ACTION_DROP_CHUNK)
            ck_assert(!a.pack || a.estimated_bytes < policy->pack_threshold_bytes);
        if (a.kind != CHUNK_ACTION_DROP_CHUNK && a.kind != CHUNK_ACTION_MERGE_DELTAS)
            ck_assert_int_eq(a.pack, a.estimated_bytes < policy->pack_threshold_bytes);
    }
    checkpoint_plan_free(&plan);
    return a;
}

static const struct plan_delta small_delta[] = {{.bytes = 100000}};
static const struct plan_delta appended_delta[] = {
    {.bytes = 41 * MIB, .pages = CHUNK_PAGES - 6000}};
static const struct plan_delta big_deltas[] = {{.bytes = 30 * MIB}, {.bytes = 4 * MIB}};
static const struct plan_delta waiting_deltas[] = {
    {.bytes = 9 * MIB, .mergeable = true}, {.bytes = 100000, .mergeable = true}, {.bytes = 50000}};

#define OLD_CHUNK                                                                                  \
    .object = {7}, .index = {3}, .pages = CHUNK_PAGES, .exists = true, .local = true,              \
    .changed = true, .base_bytes = 64 * MIB

START_TEST(each_rule_gives_its_action)
{
    static const struct {
        const char *rule;
        struct plan_chunk chunk;
        enum chunk_action_kind kind;
        size_t merges;
    } rules[] = {
        {"a new chunk is a base", {.object = {1}, .pages = 10, .dirty_pages = 1},
            CHUNK_ACTION_CREATE_BASE, 0},
        {"a new chunk of an append-only object that is full is sealed",
            {.object = {1}, .pages = CHUNK_PAGES, .dirty_pages = CHUNK_PAGES, .append_only = true},
            CHUNK_ACTION_SEAL_AS_BASE, 0},
        {"a new chunk of an append-only object that is open is a base",
            {.object = {1}, .pages = 100, .dirty_pages = 100, .append_only = true},
            CHUNK_ACTION_CREATE_BASE, 0},
        {"a new chunk without a page is nothing", {.object = {1}, .pages = 100, .hole_pages = 30},
            0, 0},
        {"a new chunk of holes is nothing", {.object = {1}, .pages = 100, .hole_pages = 100}, 0, 0},
        {"a small footprint is a delta", {OLD_CHUNK, .dirty_pages = 100}, CHUNK_ACTION_CREATE_DELTA,
            0},
        {"a hole is a delta", {OLD_CHUNK, .hole_pages = 5000}, CHUNK_ACTION_CREATE_DELTA, 0},
        {"half of the chunk is a delta", {OLD_CHUNK, .dirty_pages = CHUNK_PAGES / 2},
            CHUNK_ACTION_CREATE_DELTA, 0},
        {"more than half of the chunk is a base",
            {OLD_CHUNK, .dirty_pages = 1 + CHUNK_PAGES / 2 - 200, .hole_pages = 200},
            CHUNK_ACTION_CREATE_BASE, 0},
        {"a chunk of holes is dropped", {OLD_CHUNK, .hole_pages = CHUNK_PAGES},
            CHUNK_ACTION_DROP_CHUNK, 0},
        {"a chunk behind the end is dropped", {.object = {1}, .exists = true},
            CHUNK_ACTION_DROP_CHUNK, 0},
        {"a chunk written all over is a base wherever it is",
            {.object = {1}, .pages = 100, .dirty_pages = 60, .hole_pages = 40, .exists = true},
            CHUNK_ACTION_CREATE_BASE, 0},
        {"but not when pages are patches",
            {.object = {1},
                .pages = 100,
                .dirty_pages = 60,
                .hole_pages = 40,
                .partial = true,
                .exists = true},
            CHUNK_ACTION_CREATE_DELTA, 0},
        {"nothing is fetched for a base",
            {.object = {1}, .pages = 100, .dirty_pages = 99, .exists = true},
            CHUNK_ACTION_CREATE_DELTA, 0},
        {"an open tail goes as a delta",
            {.object = {1},
                .pages = 4000,
                .dirty_pages = 100,
                .append_only = true,
                .exists = true,
                .local = true,
                .base_bytes = 16 * MIB},
            CHUNK_ACTION_CREATE_DELTA, 0},
        {"a tail that became full stays as it is",
            {OLD_CHUNK, .dirty_pages = 10, .append_only = true, .base_pages = CHUNK_PAGES - 10},
            CHUNK_ACTION_CREATE_DELTA, 0},
        {"however much came at once",
            {OLD_CHUNK, .dirty_pages = 9000, .append_only = true, .base_pages = CHUNK_PAGES - 9000},
            CHUNK_ACTION_CREATE_DELTA, 0},
        {"and is no better for a base when it changes",
            {.object = {7},
                .pages = CHUNK_PAGES,
                .exists = true,
                .local = true,
                .dirty_pages = 10,
                .sealed = true,
                .base_pages = 6000,
                .base_bytes = 24 * MIB,
                .delta_count = 1,
                .deltas = appended_delta},
            CHUNK_ACTION_CREATE_DELTA, 0},
        {"but when its images hold pages twice, it is sealed",
            {OLD_CHUNK, .dirty_pages = 10, .append_only = true, .base_pages = CHUNK_PAGES},
            CHUNK_ACTION_SEAL_AS_BASE, 0},
        {"deltas that outweigh half of the base make a base",
            {OLD_CHUNK, .dirty_pages = 1, .delta_count = 2, .deltas = big_deltas},
            CHUNK_ACTION_CREATE_BASE, 0},
        {"but not when images are elsewhere",
            {.object = {7},
                .pages = CHUNK_PAGES,
                .dirty_pages = 1,
                .exists = true,
                .base_bytes = 64 * MIB,
                .delta_count = 2,
                .deltas = big_deltas},
            CHUNK_ACTION_CREATE_DELTA, 0},
        {"deltas that are not in the store are merged",
            {OLD_CHUNK, .dirty_pages = 1, .delta_count = 3, .deltas = waiting_deltas},
            CHUNK_ACTION_MERGE_DELTAS, 2},
        {"a short chain is left alone",
            {OLD_CHUNK, .dirty_pages = 100, .delta_count = 1, .deltas = small_delta},
            CHUNK_ACTION_CREATE_DELTA, 0},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rules); i++) {
        struct chunk_action a = plan_one(&rules[i].chunk, &plan_policy_default);
        ck_assert_msg(a.kind == rules[i].kind && a.merge_count == rules[i].merges,
            "%s: action %d, %zu merged", rules[i].rule, (int)a.kind, a.merge_count);
    }
}
END_TEST

START_TEST(without_deltas_everything_local_is_a_base)
{
    struct plan_policy policy = plan_policy_default;
    policy.enable_chunk_deltas = false;
    struct plan_chunk chunk = {OLD_CHUNK, .dirty_pages = 1};
    ck_assert_int_eq(plan_one(&chunk, &policy).kind, CHUNK_ACTION_CREATE_BASE);
    chunk.local = false;
    ck_assert_int_eq(plan_one(&chunk, &policy).kind, CHUNK_ACTION_CREATE_DELTA);
}
END_TEST

START_TEST(a_long_chain_is_merged_from_its_newest_end)
{
    struct plan_delta deltas[] = {{200000, false, true, false, 0}, {300000, false, true, false, 0},
        {50000, false, true, false, 0}, {5 * MIB, false, true, false, 0},
        {100000, false, true, false, 0}, {100000, false, true, false, 0}};
    struct plan_chunk chunk = {
        OLD_CHUNK, .dirty_pages = 50, .delta_count = ARRAY_LENGTH(deltas), .deltas = deltas};
    struct chunk_action a = plan_one(&chunk, &plan_policy_default);
    ck_assert_int_eq(a.kind, CHUNK_ACTION_MERGE_DELTAS);
    ck_assert_uint_eq(a.merge_count, 3); // three stay, among them the big one
    ck_assert_uint_ge(a.estimated_bytes, 550000);
    deltas[0].bytes = 3 * MIB; // with so much to write, the rest is cheap and gives more room
    a = plan_one(&chunk, &plan_policy_default);
    ck_assert_int_eq(a.kind, CHUNK_ACTION_MERGE_DELTAS);
    ck_assert_uint_eq(a.merge_count, 6);
    chunk.delta_count = 4; // not long enough yet
    a = plan_one(&chunk, &plan_policy_default);
    ck_assert_int_eq(a.kind, CHUNK_ACTION_CREATE_DELTA);
    chunk.delta_count = ARRAY_LENGTH(deltas);
    chunk.local = false;
    for (size_t i = 0; i < ARRAY_LENGTH(deltas); i++)
        deltas[i].local = false;
    deltas[0].bytes = 1;
    a = plan_one(&chunk, &plan_policy_default);
    ck_assert_int_eq(a.kind, CHUNK_ACTION_CREATE_DELTA);
}
END_TEST

// Chunks of one age do not all get their merges, or bases, in one checkpoint; but no chain grows
// beyond its bound.
START_TEST(merging_is_spread_over_checkpoints)
{
    static struct plan_delta deltas[9];
    static struct plan_chunk chunks[64];
    for (size_t count = 1; count <= ARRAY_LENGTH(deltas); count++) {
        for (size_t weight = 0; weight < 2; weight++) {
            for (size_t i = 0; i < count; i++)
                deltas[i] = (struct plan_delta){weight ? 33 * MIB : 650000, false, true, false, 0};
            for (uint64_t i = 0; i < ARRAY_LENGTH(chunks); i++)
                chunks[i] = (struct plan_chunk){OLD_CHUNK, .present_pages = CHUNK_PAGES,
                    .dirty_pages = 160, .delta_count = count, .deltas = deltas};
            for (uint64_t i = 0; i < ARRAY_LENGTH(chunks); i++)
                chunks[i].index.v = i;
            struct checkpoint_plan plan;
            checkpoint_planner_plan(chunks, ARRAY_LENGTH(chunks), &plan_policy_default, &plan);
            ck_assert_uint_eq(plan.count, ARRAY_LENGTH(chunks));
            uint64_t changed = ARRAY_LENGTH(chunks) * UINT64_C(160) * PAGE_BYTES;
            if (count < plan_policy_default.delta_chain_max)
                ck_assert_uint_le(plan.estimated_bytes, 5 * changed / 2 + 70 * MIB);
            for (size_t i = 0; i < plan.count; i++) {
                const struct chunk_action *a = &plan.actions[i];
                if (a->kind != CHUNK_ACTION_CREATE_BASE)
                    ck_assert_uint_le(
                        count - a->merge_count + 1, plan_policy_default.delta_chain_max);
            }
            checkpoint_plan_free(&plan);
        }
    }
}
END_TEST

START_TEST(appending_is_told_from_writing)
{
    ck_assert(checkpoint_planner_detects_append(0, 0, false));
    ck_assert(checkpoint_planner_detects_append(10000, 2, false)); // the page the end lay in
    ck_assert(checkpoint_planner_detects_append(8192, 2, false));
    ck_assert(checkpoint_planner_detects_append(8192, 7, false));
    ck_assert(!checkpoint_planner_detects_append(8192, 1, false));
    ck_assert(!checkpoint_planner_detects_append(10000, 1, false));
    ck_assert(!checkpoint_planner_detects_append(10000, 5, true));
}
END_TEST

// ---- properties ---------------------------------------------------------------------------------

#define CHUNKS 400u
#define DELTAS 9u

static void
random_chunks(struct plan_chunk *chunks, struct plan_delta (*deltas)[DELTAS], uint64_t *seed)
{
    for (uint64_t i = 0; i < CHUNKS; i++) {
        struct plan_chunk *c = &chunks[i];
        *c = (struct plan_chunk){.object = {1 + i / 10}, .index = {i % 10}};
        c->pages = pick(seed, 3) ? CHUNK_PAGES : (uint32_t)pick(seed, CHUNK_PAGES + 1);
        c->dirty_pages = (uint32_t)pick(seed, c->pages + 1);
        if (pick(seed, 2))
            c->dirty_pages /= 100;
        c->hole_pages = (uint32_t)pick(seed, c->pages - c->dirty_pages + 1);
        c->append_only = pick(seed, 3) == 0;
        c->partial = pick(seed, 4) == 0;
        c->exists = pick(seed, 5) > 0;
        c->local = c->exists && pick(seed, 2);
        c->changed = true;
        c->base_bytes = c->exists ? pick(seed, 64 * MIB) : 0;
        c->delta_count = c->exists ? pick(seed, DELTAS + 1) : 0;
        c->deltas = deltas[i];
        bool mergeable = pick(seed, 2);
        for (size_t k = 0; k < c->delta_count; k++) {
            mergeable = mergeable && pick(seed, 3);
            deltas[i][k] = (struct plan_delta){
                1 + pick(seed, 4 * MIB), mergeable, mergeable || c->local, false, 0};
        }
    }
}

static void
check_action(const struct plan_chunk *c, const struct chunk_action *a)
{
    bool known = c->dirty_pages + c->hole_pages >= c->pages && !c->partial;
    switch (a->kind) {
    case CHUNK_ACTION_SEAL_AS_BASE:
        ck_assert(c->append_only && c->pages == CHUNK_PAGES);
        // fall through
    case CHUNK_ACTION_CREATE_BASE:
        ck_assert(!c->exists || c->local || known);
        ck_assert(c->exists || c->dirty_pages > 0);
        ck_assert_uint_eq(a->merge_count, 0);
        break;
    case CHUNK_ACTION_MERGE_DELTAS:
        ck_assert(a->merge_count > 0 && a->merge_count <= c->delta_count);
        for (size_t i = 0; i < a->merge_count; i++)
            ck_assert(c->local || c->deltas[i].mergeable);
        // fall through
    case CHUNK_ACTION_CREATE_DELTA:
        ck_assert(c->exists);
        ck_assert(c->dirty_pages + c->hole_pages > 0 || c->pages == 0 || c->dirty_pages == 0);
        ck_assert(a->merge_count == c->delta_count || !c->deltas[a->merge_count].mergeable);
        break;
    case CHUNK_ACTION_NONE:
        ck_abort_msg("an action that does nothing");
        break;
    case CHUNK_ACTION_DROP_CHUNK:
        ck_assert(c->exists && c->dirty_pages == 0 && c->hole_pages >= c->pages);
        break;
    }
}

START_TEST(equal_input_gives_equal_plans_in_order)
{
    static struct plan_chunk chunks[CHUNKS];
    static struct plan_delta deltas[CHUNKS][DELTAS];
    uint64_t seed = 3;
    for (int round = 0; round < 50; round++) {
        struct checkpoint_plan plan;
        struct checkpoint_plan again;
        random_chunks(chunks, deltas, &seed);
        checkpoint_planner_plan(chunks, CHUNKS, &plan_policy_default, &plan);
        checkpoint_planner_plan(chunks, CHUNKS, &plan_policy_default, &again);
        ck_assert_uint_eq(plan.count, again.count);
        uint64_t bytes = 0;
        size_t c = 0;
        for (size_t i = 0; i < plan.count; i++, c++) {
            const struct chunk_action *a = &plan.actions[i];
            const struct chunk_action *b = &again.actions[i];
            ck_assert(a->kind == b->kind && a->object.v == b->object.v &&
                      a->index.v == b->index.v && a->merge_count == b->merge_count &&
                      a->estimated_bytes == b->estimated_bytes && a->pack == b->pack);
            while (chunks[c].object.v != a->object.v || chunks[c].index.v != a->index.v) {
                ck_assert(!chunks[c].exists && chunks[c].dirty_pages == 0);
                c++;
            }
            check_action(&chunks[c], a);
            bytes += a->estimated_bytes;
        }
        ck_assert_uint_eq(plan.estimated_bytes, bytes);
        checkpoint_plan_free(&plan);
        checkpoint_plan_free(&again);
    }
    struct checkpoint_plan empty;
    checkpoint_planner_plan(NULL, 0, &plan_policy_default, &empty);
    ck_assert_uint_eq(empty.count, 0);
    checkpoint_plan_free(&empty);
}
END_TEST

// ---- churn --------------------------------------------------------------------------------------

#define IMAGES 64u

// A chunk whose images are sets of pages.
struct churned {
    uint64_t base_bytes;
    size_t count; // deltas, newest first
    struct {
        uint8_t pages[CHUNK_PAGES / 8];
        uint32_t page_count;
        bool mergeable;
    } deltas[IMAGES];
    uint64_t written_bytes;
    size_t longest;
    unsigned bases;
};

static uint64_t
bytes_of_pages(uint64_t pages)
{
    return 128 + pages * (PAGE_BYTES + 8);
}

static void
apply_action(struct churned *x, const struct chunk_action *a, const uint8_t *dirty, bool published)
{
    if (a->kind == CHUNK_ACTION_CREATE_BASE) {
        x->base_bytes = bytes_of_pages(CHUNK_PAGES);
        x->written_bytes += x->base_bytes;
        x->bases++;
        x->count = 0;
        return;
    }
    uint8_t merged[CHUNK_PAGES / 8];
    memcpy(merged, dirty, sizeof(merged));
    for (size_t i = 0; i < a->merge_count; i++)
        for (size_t k = 0; k < sizeof(merged); k++)
            merged[k] |= x->deltas[i].pages[k];
    memmove(&x->deltas[1], &x->deltas[a->merge_count],
        (x->count - a->merge_count) * sizeof(x->deltas[0]));
    x->count = x->count - a->merge_count + 1;
    ck_assert_uint_lt(x->count, IMAGES);
    memcpy(x->deltas[0].pages, merged, sizeof(merged));
    x->deltas[0].page_count = 0;
    for (size_t k = 0; k < sizeof(merged); k++)
        x->deltas[0].page_count += (uint32_t)__builtin_popcount(merged[k]);
    x->deltas[0].mergeable = !published;
    uint64_t bytes = bytes_of_pages(x->deltas[0].page_count);
    ck_assert_uint_le(bytes, a->estimated_bytes);
    x->written_bytes += bytes;
    if (x->count > x->longest)
        x->longest = x->count;
}

// `rounds` checkpoints of `per_round` random pages each; every `publish_every`-th is published.
static void
churn(struct churned *x, uint64_t rounds, uint32_t per_round, uint64_t publish_every, bool local)
{
    uint64_t seed = rounds * per_round + publish_every;
    *x = (struct churned){.base_bytes = bytes_of_pages(CHUNK_PAGES)};
    for (uint64_t round = 1; round <= rounds; round++) {
        uint8_t dirty[CHUNK_PAGES / 8] = {0};
        struct plan_delta deltas[IMAGES];
        struct plan_chunk chunk = {OLD_CHUNK, .delta_count = x->count, .deltas = deltas};
        chunk.local = local;
        chunk.base_bytes = x->base_bytes;
        for (uint32_t i = 0; i < per_round; i++) {
            uint64_t page = pick(&seed, CHUNK_PAGES);
            chunk.dirty_pages += !(dirty[page / 8] >> page % 8 & 1);
            dirty[page / 8] |= (uint8_t)(1u << page % 8);
        }
        for (size_t i = 0; i < x->count; i++)
            deltas[i] = (struct plan_delta){bytes_of_pages(x->deltas[i].page_count),
                x->deltas[i].mergeable, x->deltas[i].mergeable || local, false, 0};
        struct chunk_action a = plan_one(&chunk, &plan_policy_default);
        ck_assert(local || a.kind != CHUNK_ACTION_CREATE_BASE);
        bool published = round % publish_every == 0;
        apply_action(x, &a, dirty, published);
        for (size_t i = 0; published && i < x->count; i++)
            x->deltas[i].mergeable = false;
    }
}

START_TEST(uniform_churn_does_not_rewrite_the_database)
{
    static struct churned x;
    uint32_t per_round = CHUNK_PAGES / 100;
    churn(&x, 200, per_round, 1, true);
    uint64_t churned = 200 * bytes_of_pages(per_round);
    printf("1 %% churn, 200 rounds: %.1f times, chain %zu, %u bases\n",
        (double)x.written_bytes / (double)churned, x.longest, x.bases);
    // A base after half a base of deltas costs twice the churn; merging costs a logarithm.
    ck_assert_uint_lt(x.written_bytes, 7 * churned);
    ck_assert_uint_le(x.longest, plan_policy_default.delta_chain_max);
    ck_assert_uint_le(x.bases, 5);
}
END_TEST

START_TEST(thin_churn_keeps_the_chain_short)
{
    static struct churned x;
    churn(&x, 3000, 5, 1, true);
    uint64_t churned = 3000 * bytes_of_pages(5);
    printf("5 pages, 3000 rounds: %.1f times, chain %zu, %u bases\n",
        (double)x.written_bytes / (double)churned, x.longest, x.bases);
    ck_assert_uint_lt(x.written_bytes, 14 * churned);
    ck_assert_uint_le(x.longest, plan_policy_default.delta_chain_max);
}
END_TEST

START_TEST(an_outage_costs_the_footprint_not_every_write)
{
    static struct churned x;
    churn(&x, 500, 20, 1000, true);
    // One delta, written again and again, but never more than half of the base.
    ck_assert_uint_eq(x.longest, 1);
    churn(&x, 100, 20, 1000, false);
    ck_assert_uint_eq(x.longest, 1);
    ck_assert_uint_eq(x.bases, 0);
    ck_assert_uint_le(x.deltas[0].page_count, 100 * 20);
}
END_TEST

// ---- estimates ----------------------------------------------------------------------------------

static int
count_bytes(void *argument, const void *p, size_t n)
{
    (void)p;
    *(uint64_t *)argument += n;
    return 0;
}

// The worst for the index: pages that do not compress, holes that do not touch.
START_TEST(estimates_are_upper_bounds)
{
    uint64_t seed = 9;
    for (int round = 0; round < 12; round++) {
        uint64_t bytes = 0;
        struct blob_image_info info;
        struct plan_chunk chunk = {OLD_CHUNK};
        struct blob_writer *w = blob_writer_new(BLOB_DELTA, count_bytes, &bytes);
        uint32_t most = round < 3 ? 0 : 3000;
        for (uint32_t page = 0; page < CHUNK_PAGES; page += 2) {
            if (chunk.dirty_pages < most && pick(&seed, 4) == 0) {
                uint8_t data[PAGE_BYTES];
                for (size_t i = 0; i < sizeof(data); i += 8)
                    put_le64(data + i, hash_u64(++seed));
                ck_assert_int_eq(blob_writer_add_data(w, page, data), 0);
                chunk.dirty_pages++;
            } else if (pick(&seed, 3) || round < 3) {
                ck_assert_int_eq(blob_writer_add_zero(w, page, 1), 0);
                chunk.hole_pages++;
            }
        }
        ck_assert_int_eq(blob_writer_finish(w, &info), 0);
        blob_writer_free(w);
        struct chunk_action a = plan_one(&chunk, &plan_policy_default);
        if (a.kind != CHUNK_ACTION_CREATE_DELTA)
            continue;
        ck_assert_uint_le(info.image_bytes, a.estimated_bytes);
    }
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("planner");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(each_rule_gives_its_action);
    ADD(without_deltas_everything_local_is_a_base);
    ADD(a_long_chain_is_merged_from_its_newest_end);
    ADD(merging_is_spread_over_checkpoints);
    ADD(appending_is_told_from_writing);
    ADD(equal_input_gives_equal_plans_in_order);
    ADD(uniform_churn_does_not_rewrite_the_database);
    ADD(thin_churn_keeps_the_chain_short);
    ADD(an_outage_costs_the_footprint_not_every_write);
    ADD(estimates_are_upper_bounds);
#undef ADD
    return unit_run(s);
}
