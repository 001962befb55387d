// SPDX-License-Identifier: Apache-2.0
// Upkeep: which packs and chunks are worth writing again, and how the planner pays for it. Pure.
#include "unit.h"

#include "base/hash_table.h"
#include "checkpoint/checkpoint_upkeep.h"
#include "platform/memory.h"

#define MIB   (UINT64_C(1) << 20)
#define PLAIN &plan_policy_default

static struct upkeep_pack
pack(uint8_t name, uint64_t bytes, uint64_t live_bytes)
{
    return (struct upkeep_pack){.hash = {{name}}, .bytes = bytes, .live_bytes = live_bytes};
}

START_TEST(the_poorest_packs_go_until_the_store_is_rich_enough)
{
    struct upkeep_pack packs[] = {
        pack(9, 10 * MIB, 10 * MIB), pack(5, 10 * MIB, 2 * MIB), pack(7, 10 * MIB, 5 * MIB)};
    // Without the pack of 2 MiB, 22 MiB are stored for 17 live ones; without the second, 17.
    ck_assert_uint_eq(checkpoint_upkeep_choose_packs(packs, 3, 0, 100 * MIB), 2);
    ck_assert_uint_eq(packs[0].hash.b[0], 5);
    ck_assert_uint_eq(packs[0].rank, 0);
    ck_assert_uint_eq(packs[1].hash.b[0], 7);
    ck_assert_uint_eq(packs[1].rank, 1);
    for (uint8_t name = 5; name <= 9; name += 2) {
        struct sha256 hash = {{name}};
        const struct upkeep_pack *found = checkpoint_upkeep_find_pack(packs, 2, &hash);
        ck_assert(name == 9 ? !found : found && found->hash.b[0] == name);
    }
    // Among much that is live they do not matter.
    ck_assert_uint_eq(checkpoint_upkeep_choose_packs(packs, 3, 1000 * MIB, 100 * MIB), 0);
    // One budget pays for one pack.
    ck_assert_uint_eq(checkpoint_upkeep_choose_packs(packs, 3, 0, 1), 1);
    ck_assert_uint_eq(checkpoint_upkeep_choose_packs(packs, 3, 0, 0), 0);
    ck_assert_uint_eq(checkpoint_upkeep_choose_packs(NULL, 0, MIB, MIB), 0);
    ck_assert_ptr_null(checkpoint_upkeep_find_pack(NULL, 0, &packs[0].hash));
}
END_TEST

#define CHUNK                                                                                      \
    .object = {7}, .index = {3}, .pages = CHUNK_PAGES, .present_pages = CHUNK_PAGES,               \
    .exists = true, .base_bytes = 64 * MIB

static void
fill(struct plan_delta *deltas, size_t count, uint64_t bytes, bool local)
{
    for (size_t i = 0; i < count; i++)
        deltas[i] = (struct plan_delta){.bytes = bytes, .local = local};
}

START_TEST(each_need_is_found)
{
    struct plan_delta deltas[9];
    struct upkeep_chunk found;
    fill(deltas, 9, 100000, true);
    struct plan_chunk c = {CHUNK, .deltas = deltas, .delta_count = 5};
    ck_assert(!checkpoint_upkeep_judge(&c, PLAIN, &found));
    c.delta_count = 6;
    ck_assert(checkpoint_upkeep_judge(&c, PLAIN, &found));
    ck_assert_int_eq(found.action.upkeep, PLAN_UPKEEP_CHAIN);
    ck_assert_uint_eq(found.images, 6); // all deltas, and not the base
    ck_assert_uint_eq(found.mergeable, 6);
    c.delta_count = 9;
    ck_assert(checkpoint_upkeep_judge(&c, PLAIN, &found));
    ck_assert_int_eq(found.action.upkeep, PLAN_UPKEEP_FULL);
    c.delta_count = 2;
    deltas[1].bytes = 33 * MIB;
    ck_assert(checkpoint_upkeep_judge(&c, PLAIN, &found));
    ck_assert_int_eq(found.action.upkeep, PLAN_UPKEEP_BASE);
    ck_assert_int_eq(found.action.kind, CHUNK_ACTION_CREATE_BASE);
    ck_assert_uint_eq(found.images, 3);
    deltas[1].bytes = 100000;
    c.poor_base = true;
    ck_assert(checkpoint_upkeep_judge(&c, PLAIN, &found));
    ck_assert_int_eq(found.action.upkeep, PLAN_UPKEEP_PACK);
    ck_assert_uint_eq(found.images, 3);
    c.poor_base = false;
    deltas[1].poor = true;
    c.delta_count = 4;
    ck_assert(checkpoint_upkeep_judge(&c, PLAIN, &found));
    ck_assert_int_eq(found.action.kind, CHUNK_ACTION_MERGE_DELTAS);
    ck_assert_uint_eq(found.action.merge_count, 2);
    ck_assert_uint_eq(found.images, 2);
}
END_TEST

START_TEST(the_worst_chunks_are_chosen_within_the_budget)
{
    struct plan_delta deltas[9];
    struct upkeep_chunk found[20];
    fill(deltas, 9, MIB, true);
    for (size_t i = 0; i < 20; i++) {
        struct plan_chunk c = {
            CHUNK, .deltas = deltas, .delta_count = 6 + i % 3, .poor_base = i >= 10};
        ck_assert(checkpoint_upkeep_judge(&c, PLAIN, &found[i]));
        found[i].id.v = i + 1;
    }
    // One base of 64 MiB is what the budget pays for; chains take as much as can be fetched.
    size_t count = checkpoint_upkeep_choose(found, 20, 2 * MIB);
    ck_assert_uint_lt(count, 10);
    size_t bases = 0;
    size_t full = 0;
    uint64_t fetched = 0;
    for (size_t i = 0; i < count; i++) {
        bool base = found[i].images > found[i].delta_count;
        bases += base;
        fetched += base || found[i].images < found[i].mergeable ? 0 : found[i].mergeable_bytes;
        // Full chains that the budget does not reach must not grow, either.
        if (found[i].images < found[i].mergeable)
            ck_assert(found[i].full && found[i].images == 3);
        full += found[i].full;
    }
    ck_assert_uint_eq(full, 6);
    ck_assert_uint_eq(bases, 1);
    ck_assert_uint_ge(fetched, UPKEEP_FETCH_TIMES * 2 * MIB);
    ck_assert_uint_le(fetched, UPKEEP_FETCH_TIMES * 2 * MIB + 9 * MIB);
    ck_assert_uint_eq(checkpoint_upkeep_choose(found, count, 0), 0);
}
END_TEST

// ---- the planner --------------------------------------------------------------------------------

static struct checkpoint_plan
plan(const struct plan_chunk *chunks, size_t count, uint64_t allowance)
{
    struct checkpoint_plan p;
    struct plan_policy policy = plan_policy_default;
    policy.allowance_bytes = allowance;
    checkpoint_planner_plan(chunks, count, &policy, &p);
    return p;
}

START_TEST(a_chunk_that_did_not_change_is_merged_with_an_allowance_only)
{
    struct plan_delta deltas[7];
    fill(deltas, 7, 100000, true);
    struct plan_chunk c = {CHUNK, .deltas = deltas, .delta_count = 7, .upkeep = true};
    struct checkpoint_plan p = plan(&c, 1, 0);
    ck_assert_uint_eq(p.count, 0);
    checkpoint_plan_free(&p);
    p = plan(&c, 1, MIB);
    ck_assert_uint_eq(p.count, 1);
    ck_assert_int_eq(p.actions[0].kind, CHUNK_ACTION_MERGE_DELTAS);
    ck_assert_uint_eq(p.actions[0].merge_count, 7);
    ck_assert_uint_eq(p.estimated_bytes, 700000);
    checkpoint_plan_free(&p);
    deltas[1].local = false; // cannot be read here after all
    p = plan(&c, 1, MIB);
    ck_assert_uint_eq(p.count, 0);
    checkpoint_plan_free(&p);
    c.upkeep = false;
    deltas[1].local = true;
    p = plan(&c, 1, MIB);
    ck_assert_uint_eq(p.count, 0);
    checkpoint_plan_free(&p);
}
END_TEST

START_TEST(upkeep_stays_within_the_allowance)
{
    static struct plan_delta deltas[9];
    static struct plan_chunk chunks[200];
    fill(deltas, 9, 100000, true);
    for (uint64_t i = 0; i < 200; i++) {
        chunks[i] = (struct plan_chunk){CHUNK, .deltas = deltas, .delta_count = 9, .upkeep = true};
        chunks[i].index.v = i;
    }
    struct checkpoint_plan p = plan(chunks, 200, 4 * MIB);
    ck_assert_uint_ge(p.estimated_bytes, 4 * MIB);
    ck_assert_uint_le(p.estimated_bytes, 5 * MIB);
    checkpoint_plan_free(&p);
    // Changes that use it up leave nothing.
    struct plan_chunk both[2] = {chunks[0], chunks[1]};
    both[0].changed = true;
    both[0].dirty_pages = 2000;
    both[0].delta_count = 0;
    p = plan(both, 2, 8 * MIB);
    ck_assert_uint_eq(p.count, 2); // a share of the change is left for upkeep
    checkpoint_plan_free(&p);
}
END_TEST

// If chains and packs had an allowance each, a volume whose checkpoints are mostly upkeep would
// have ever larger ones, since the allowance is half of such a checkpoint.
START_TEST(chains_and_packs_share_an_allowance)
{
    static struct plan_delta deltas[9];
    static struct plan_delta poor[2];
    static struct plan_chunk chunks[200];
    fill(deltas, 9, 100000, true);
    fill(poor, 2, 450000, true);
    poor[1].poor = true;
    for (uint64_t i = 0; i < 200; i++) {
        bool pack = i % 2;
        chunks[i] = (struct plan_chunk){CHUNK, .upkeep = true};
        chunks[i].deltas = pack ? poor : deltas;
        chunks[i].delta_count = pack ? 2 : 9;
        chunks[i].index.v = i;
    }
    struct checkpoint_plan p = plan(chunks, 200, 4 * MIB);
    ck_assert_uint_ge(p.estimated_bytes, 4 * MIB);
    ck_assert_uint_le(p.estimated_bytes, 5 * MIB);
    checkpoint_plan_free(&p);
}
END_TEST

// A chunk that was filled in parts and never changed: a base would save nothing.
START_TEST(what_was_only_appended_gets_no_base)
{
    struct plan_delta deltas[3];
    struct upkeep_chunk found;
    fill(deltas, 3, 20 * MIB, true);
    for (size_t i = 0; i < 3; i++)
        deltas[i].pages = 5000;
    struct plan_chunk c = {CHUNK, .deltas = deltas, .delta_count = 3, .sealed = true};
    c.base_bytes = 6 * MIB;
    c.base_pages = CHUNK_PAGES - 15000;
    ck_assert(!checkpoint_upkeep_judge(&c, PLAIN, &found));
    // Random changes later count as such, and the appended deltas still do not.
    deltas[0].pages = 10000;
    deltas[0].bytes = 40 * MIB;
    ck_assert(!checkpoint_upkeep_judge(&c, PLAIN, &found));
    deltas[0].pages = 15000;
    deltas[0].bytes = 60 * MIB;
    ck_assert(checkpoint_upkeep_judge(&c, PLAIN, &found));
    fill(deltas, 1, 20 * MIB, true);
    deltas[0].pages = 5000;
    c.sealed = false;
    ck_assert(checkpoint_upkeep_judge(&c, PLAIN, &found));
    ck_assert_int_eq(found.action.kind, CHUNK_ACTION_CREATE_BASE);
}
END_TEST

START_TEST(images_in_poor_packs_move)
{
    struct plan_delta deltas[3];
    fill(deltas, 3, 1000, true);
    deltas[1].poor = true;
    struct plan_chunk c = {CHUNK, .deltas = deltas, .delta_count = 3, .upkeep = true};
    struct checkpoint_plan p = plan(&c, 1, MIB);
    ck_assert_uint_eq(p.count, 1);
    ck_assert_uint_eq(p.actions[0].merge_count, 2);
    checkpoint_plan_free(&p);
    c.poor_base = true; // not without all of its images
    deltas[1].poor = false;
    p = plan(&c, 1, MIB);
    ck_assert_uint_eq(p.count, 0);
    checkpoint_plan_free(&p);
    c.local = true;
    p = plan(&c, 1, MIB);
    ck_assert_uint_eq(p.count, 1);
    ck_assert_int_eq(p.actions[0].kind, CHUNK_ACTION_CREATE_BASE);
    checkpoint_plan_free(&p);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("upkeep");
#define ADD(test) unit_add(s, #test, test, 20)
    ADD(the_poorest_packs_go_until_the_store_is_rich_enough);
    ADD(each_need_is_found);
    ADD(the_worst_chunks_are_chosen_within_the_budget);
    ADD(a_chunk_that_did_not_change_is_merged_with_an_allowance_only);
    ADD(upkeep_stays_within_the_allowance);
    ADD(chains_and_packs_share_an_allowance);
    ADD(what_was_only_appended_gets_no_base);
    ADD(images_in_poor_packs_move);
    return unit_run(s);
}
