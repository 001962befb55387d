// SPDX-License-Identifier: Apache-2.0
// The set of hot parts: its bytes, and the table that it is made of.
#include "unit.h"

#include "golden.h"

#include "base/bytes.h"
#include "base/checksum.h"
#include "cache/part_heat.h"
#include "platform/memory.h"
#include "platform/random.h"

// ---- the bytes ----------------------------------------------------------------------------------

static struct hot_run sample_runs[] = {
    {{9}, 7, 1, 1},
    {{4}, 0, 3, 15},
    {{4}, 9, 200, 15},
    {{70000}, UINT64_C(1) << 40, 5, 15},
    {{4}, 3, 1, 15}, // goes on behind the first of its level
    {{4}, 4, 2, 2},
    {{5}, 0, 1, 2},
};

static struct hot_set
sample(void)
{
    struct hot_set s = {.volume = {{1, 2, 3}}, .epoch = 12, .generation = {77}};
    s.runs = memory_alloc(sizeof(sample_runs));
    memcpy(s.runs, sample_runs, sizeof(sample_runs));
    s.count = ARRAY_LENGTH(sample_runs);
    hot_set_settle(&s);
    return s;
}

static void
expect_equal(const struct hot_set *a, const struct hot_set *b)
{
    ck_assert(uuid_equal(&a->volume, &b->volume));
    ck_assert_uint_eq(a->epoch, b->epoch);
    ck_assert_uint_eq(a->generation.v, b->generation.v);
    ck_assert_uint_eq(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        ck_assert_uint_eq(a->runs[i].object.v, b->runs[i].object.v);
        ck_assert_uint_eq(a->runs[i].first, b->runs[i].first);
        ck_assert_uint_eq(a->runs[i].count, b->runs[i].count);
        ck_assert_uint_eq(a->runs[i].level, b->runs[i].level);
    }
}

START_TEST(a_set_reads_back_and_has_the_golden_bytes)
{
    BUFFER_AUTO bytes = {0};
    BUFFER_AUTO golden = {0};
    struct hot_set s = sample();
    struct hot_set back;
    ck_assert_uint_eq(s.count, 6);
    ck_assert_uint_eq(s.runs[0].count, 4);
    ck_assert_uint_eq(hot_set_parts(&s), 4 + 200 + 5 + 2 + 1 + 1);
    hot_set_encode(&s, &bytes);
    golden_load("hot-set-1.hex", &bytes, &golden);
    ck_assert_uint_eq(golden.length, bytes.length);
    ck_assert_mem_eq(golden.data, bytes.data, bytes.length);
    ck_assert_int_eq(hot_set_decode(golden.data, golden.length, &back), 0);
    expect_equal(&s, &back);
    hot_set_free(&s);
    hot_set_free(&back);
}
END_TEST

// With the right checksum, so that the rules behind it are asked.
static int
decode_sealed(const uint8_t *p, size_t n)
{
    struct hot_set set;
    CLEANUP(memory_free_auto) uint8_t *copy = memory_alloc(n);
    memcpy(copy, p, n);
    put_le32(copy + 60, crc32c(crc32c(0, copy, 60), copy + 64, n - 64));
    int rc = hot_set_decode(copy, n, &set);
    BUFFER_AUTO again = {0};
    if (rc == 0) {
        // What is accepted has one form.
        hot_set_encode(&set, &again);
        ck_assert_uint_eq(again.length, n);
        ck_assert_mem_eq(again.data, copy, n);
    }
    hot_set_free(&set);
    return rc;
}

START_TEST(damage_is_found_and_newer_sets_are_told_apart)
{
    BUFFER_AUTO bytes = {0};
    struct hot_set s = sample();
    struct hot_set back;
    hot_set_encode(&s, &bytes);
    for (size_t i = 0; i < bytes.length; i++) {
        bytes.data[i] ^= 0x10;
        int rc = hot_set_decode(bytes.data, bytes.length, &back);
        ck_assert(rc == -EBADMSG || (rc == -ENOTSUP && (i == 8 || i == 9)));
        hot_set_free(&back);
        bytes.data[i] ^= 0x10;
    }
    for (size_t n = 0; n < bytes.length; n++) {
        ck_assert_int_eq(hot_set_decode(bytes.data, n, &back), -EBADMSG);
        hot_set_free(&back);
    }
    put_le32(bytes.data + 12, 1); // a feature
    ck_assert_int_eq(decode_sealed(bytes.data, bytes.length), -ENOTSUP);
    put_le32(bytes.data + 12, 0);
    put_le16(bytes.data + 8, 0);
    ck_assert_int_eq(decode_sealed(bytes.data, bytes.length), -EBADMSG);
    hot_set_free(&s);
}
END_TEST

START_TEST(bytes_of_any_kind_are_refused_or_mean_one_set)
{
    BUFFER_AUTO bytes = {0};
    struct hot_set s = sample();
    unsigned accepted = 0;
    uint64_t seed = 5;
    hot_set_encode(&s, &bytes);
    hot_set_free(&s);
    for (unsigned i = 0; i < 20000; i++) {
        CLEANUP(memory_free_auto) uint8_t *copy = memory_alloc(bytes.length);
        memcpy(copy, bytes.data, bytes.length);
        for (unsigned k = 0; k < 1 + i % 3; k++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            copy[64 + (seed >> 33) % (bytes.length - 64)] = (uint8_t)(seed >> 20);
        }
        accepted += decode_sealed(copy, bytes.length) == 0;
    }
    ck_assert_uint_gt(accepted, 0);
}
END_TEST

START_TEST(a_set_without_room_leaves_out_the_coldest)
{
    BUFFER_AUTO bytes = {0};
    struct hot_set s = {.runs = memory_alloc(HOT_PARTS_MAX * sizeof(struct hot_run))};
    struct hot_set back;
    for (uint32_t i = 0; i < HOT_PARTS_MAX; i++)
        s.runs[s.count++] = (struct hot_run){
            {UINT64_C(1) << 50 | i * 1000u}, UINT64_C(1) << 40, 1, (uint8_t)(1 + i % 15)};
    hot_set_settle(&s);
    hot_set_encode(&s, &bytes);
    ck_assert_uint_le(bytes.length, HOT_SET_BYTES_MAX);
    ck_assert_uint_gt(bytes.length, HOT_SET_BYTES_MAX - 100);
    ck_assert_int_eq(hot_set_decode(bytes.data, bytes.length, &back), 0);
    ck_assert_uint_gt(back.count, 4000);
    ck_assert_uint_lt(back.count, s.count);
    s.count = back.count;
    expect_equal(&s, &back);
    hot_set_free(&s);
    hot_set_free(&back);
}
END_TEST

// ---- the heat -----------------------------------------------------------------------------------

#define OBJECT ((struct object_id){5})

static unsigned
level_of(struct part_heat *h, struct object_id object, uint64_t part)
{
    struct hot_set set;
    unsigned level = 0;
    part_heat_list(h, &set);
    for (size_t i = 0; i < set.count; i++) {
        const struct hot_run *r = &set.runs[i];
        if (r->object.v == object.v && part >= r->first && part < r->first + r->count)
            level = r->level;
    }
    hot_set_free(&set);
    return level;
}

static void
use(struct part_heat *h, struct object_id object, uint64_t part, uint64_t now_s)
{
    part_heat_note(h, object, (struct page_no){part * HOT_PART_PAGES}, HOT_PART_PAGES, now_s);
}

START_TEST(a_part_is_as_hot_as_the_seconds_in_which_it_is_used)
{
    struct part_heat *h = part_heat_new();
    struct part_heat_numbers n;
    for (unsigned i = 0; i < 100; i++)
        use(h, OBJECT, 3, 1000);
    ck_assert_uint_eq(level_of(h, OBJECT, 3), 1);
    for (unsigned i = 0; i < 5; i++)
        use(h, OBJECT, 3, 1001 + i);
    ck_assert_uint_eq(level_of(h, OBJECT, 3), 6);
    for (unsigned i = 0; i < 100; i++)
        use(h, OBJECT, 3, 2000 + i);
    ck_assert_uint_eq(level_of(h, OBJECT, 3), HOT_LEVEL_MAX);
    part_heat_cool(h);
    ck_assert_uint_eq(level_of(h, OBJECT, 3), 8);
    // Reads across parts count for each of them.
    part_heat_note(h, OBJECT, (struct page_no){HOT_PART_PAGES - 1}, HOT_PART_PAGES + 2, 3000);
    ck_assert(level_of(h, OBJECT, 0) == 1 && level_of(h, OBJECT, 1) == 1);
    ck_assert(level_of(h, OBJECT, 2) == 1 && level_of(h, OBJECT, 4) == 0);
    part_heat_numbers(h, &n);
    ck_assert_uint_eq(n.parts, 4);
    ck_assert_uint_eq(n.uses, 1 + 5 + 100 + 3);
    part_heat_free(h);
}
END_TEST

START_TEST(a_scan_does_not_push_out_what_is_used_again)
{
    struct part_heat *h = part_heat_new();
    unsigned left = 0;
    for (unsigned second = 0; second < 12; second++)
        for (uint64_t part = 0; part < 4096; part++)
            use(h, OBJECT, part, second);
    for (uint64_t part = 0; part < 10 * HOT_PARTS_MAX; part++)
        use(h, (struct object_id){6}, part, 100 + part / 1000);
    for (uint64_t part = 0; part < 4096; part += 64)
        left += level_of(h, OBJECT, part) > 1;
    ck_assert_uint_ge(left, 60); // of 64: some sets have more than their ways of them
    part_heat_free(h);
}
END_TEST

START_TEST(what_was_hot_before_is_recalled_at_half_its_level)
{
    struct part_heat *h = part_heat_new();
    struct hot_set s = sample();
    use(h, (struct object_id){5}, 0, 1);
    part_heat_recall(h, &s);
    ck_assert_uint_eq(level_of(h, (struct object_id){4}, 0), 8);
    ck_assert_uint_eq(level_of(h, (struct object_id){9}, 7), 1);
    ck_assert_uint_eq(level_of(h, (struct object_id){5}, 0), 1);
    hot_set_free(&s);
    part_heat_free(h);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("hot_set");
#define ADD(test) unit_add(s, #test, test, 30)
    ADD(a_set_reads_back_and_has_the_golden_bytes);
    ADD(damage_is_found_and_newer_sets_are_told_apart);
    ADD(bytes_of_any_kind_are_refused_or_mean_one_set);
    ADD(a_set_without_room_leaves_out_the_coldest);
    ADD(a_part_is_as_hot_as_the_seconds_in_which_it_is_used);
    ADD(a_scan_does_not_push_out_what_is_used_again);
    ADD(what_was_hot_before_is_recalled_at_half_its_level);
    return unit_run(s);
}
