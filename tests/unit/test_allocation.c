// SPDX-License-Identifier: Apache-2.0
// Items of an inode's extension area: the pages that fallocate has allocated, against a table of
// pages (the ranges may say more, never less), and the parent of a directory.
#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "format/allocation.h"
#include "format/extension.h"
#include "format/fetch_mark.h"
#include "format/parent.h"
#include "format/record_codec.h"
#include "golden.h"

#define PAGES 200u

static uint64_t
next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void
expect_round_trip(const struct allocation *a)
{
    static const uint8_t others[] = {3, 0, 0, 0, 2, 0, 0, 0, 'a', 'b'};
    BUFFER_AUTO area = {0};
    BUFFER_AUTO again = {0};
    struct allocation back;
    allocation_replace(others, sizeof(others), a, &area);
    ck_assert_uint_eq(
        area.length, sizeof(others) + (a->count > 0 ? EXTENSION_HEADER_BYTES + 16u * a->count : 0));
    ck_assert_int_eq(extension_check(area.data, area.length), 0);
    ck_assert_int_eq(allocation_decode(area.data, area.length, &back), 0);
    ck_assert(allocation_is_same(a, &back));
    // What others know stays when the item goes.
    allocation_replace(area.data, area.length, &(struct allocation){0}, &again);
    ck_assert_uint_eq(again.length, sizeof(others));
    ck_assert_mem_eq(again.data, others, sizeof(others));
}

START_TEST(ranges_never_say_less_than_was_allocated)
{
    uint64_t random = 20;
    for (unsigned history = 0; history < 200; history++) {
        struct allocation a = {0};
        bool is_allocated[PAGES] = {0};
        bool exact = true;
        for (unsigned step = 0; step < 40; step++) {
            uint64_t first = next(&random) % (PAGES - 1);
            uint64_t end = first + 1 + next(&random) % (PAGES - 1 - first);
            bool add = next(&random) % 3 != 0;
            if (add)
                allocation_add(&a, first, end);
            else
                allocation_remove(&a, first, end);
            for (uint64_t i = first; i < end; i++)
                is_allocated[i] = add;
            exact = exact && a.count < ALLOCATION_RANGES_MAX;
            // One assertion for all: Check writes a message for each.
            unsigned too_little = 0;
            unsigned too_much = 0;
            for (unsigned i = 0; i < PAGES; i++) {
                uint64_t said = allocation_pages(&a, i, i + 1);
                too_little += said == 0 && is_allocated[i];
                too_much += said != 0 && !is_allocated[i];
            }
            ck_assert_uint_eq(too_little, 0);
            ck_assert(!exact || too_much == 0);
            expect_round_trip(&a);
        }
    }
}
END_TEST

START_TEST(one_range_too_many_fills_the_smallest_gap)
{
    struct allocation a = {0};
    for (unsigned i = 0; i < ALLOCATION_RANGES_MAX; i++)
        allocation_add(&a, 100 * i, 100 * i + (i == 3 ? 97 : 10));
    ck_assert_uint_eq(a.count, ALLOCATION_RANGES_MAX);
    allocation_add(&a, 5000, 5001);
    ck_assert_uint_eq(a.count, ALLOCATION_RANGES_MAX);
    ck_assert_uint_eq(allocation_pages(&a, 0, UINT64_MAX), 7 * 10 + 97 + 3 + 1);
    allocation_remove(&a, 2, 3); // one more again: 297 to 300 are filled already
    ck_assert_uint_eq(a.count, ALLOCATION_RANGES_MAX);
    ck_assert_uint_eq(allocation_pages(&a, 0, 10), 10);
    allocation_remove(&a, 0, UINT64_MAX);
    ck_assert_uint_eq(a.count, 0);
}
END_TEST

static int
decode(const uint64_t *words, size_t count)
{
    uint8_t value[16 * (ALLOCATION_RANGES_MAX + 1)];
    BUFFER_AUTO area = {0};
    struct allocation a;
    for (size_t i = 0; i < count; i++)
        put_le64(value + 8 * i, words[i]);
    extension_append(&area, ALLOCATION_EXTENSION, value, (uint32_t)(8 * count));
    return allocation_decode(area.data, area.length, &a);
}

START_TEST(impossible_ranges_are_refused)
{
    const uint64_t all = (uint64_t)1 << 51;
    ck_assert_int_eq(decode((uint64_t[]){0, all}, 2), 0);
    ck_assert_int_eq(decode((uint64_t[]){5, 1, 7, 1}, 4), 0);
    ck_assert_int_eq(decode(NULL, 0), -EBADMSG);
    ck_assert_int_eq(decode((uint64_t[]){5}, 1), -EBADMSG);
    ck_assert_int_eq(decode((uint64_t[]){5, 0}, 2), -EBADMSG);
    ck_assert_int_eq(decode((uint64_t[]){0, all + 1}, 2), -EBADMSG);
    ck_assert_int_eq(decode((uint64_t[]){all, 1}, 2), -EBADMSG);
    ck_assert_int_eq(decode((uint64_t[]){2, UINT64_MAX}, 2), -EBADMSG);
    ck_assert_int_eq(decode((uint64_t[]){5, 1, 6, 1}, 4), -EBADMSG); // they touch
    ck_assert_int_eq(decode((uint64_t[]){5, 1, 2, 1}, 4), -EBADMSG);
    uint64_t many[2 * (ALLOCATION_RANGES_MAX + 1)];
    for (unsigned i = 0; i <= ALLOCATION_RANGES_MAX; i++) {
        many[2 * i] = 2 * i;
        many[2 * i + 1] = 1;
    }
    ck_assert_int_eq(decode(many, 2 * ALLOCATION_RANGES_MAX), 0);
    ck_assert_int_eq(decode(many, 2 * (ALLOCATION_RANGES_MAX + 1)), -EBADMSG);
}
END_TEST

START_TEST(an_item_keeps_its_place_among_others)
{
    static const uint8_t later[] = {3, 0, 0, 0, 2, 0, 0, 0, 'a', 'b'};
    struct allocation a = {0}, allocation_back;
    struct object_id parent = {77}, back = {0};
    BUFFER_AUTO one = {0};
    BUFFER_AUTO two = {0};
    BUFFER_AUTO three = {0};
    allocation_add(&a, 4, 9);
    // In either order, and once more.
    parent_replace(later, sizeof(later), (struct object_id){5}, &one);
    allocation_replace(one.data, one.length, &a, &two);
    parent_replace(two.data, two.length, parent, &three);
    ck_assert_int_eq(extension_check(three.data, three.length), 0);
    ck_assert_int_eq(parent_decode(three.data, three.length, &back), 0);
    ck_assert_uint_eq(back.v, 77);
    ck_assert_int_eq(allocation_decode(three.data, three.length, &allocation_back), 0);
    ck_assert(allocation_is_same(&a, &allocation_back));
    ck_assert_uint_eq(three.length, two.length);
    allocation_replace(later, sizeof(later), &a, &one);
    parent_replace(one.data, one.length, parent, &two);
    ck_assert_uint_eq(two.length, three.length);
    ck_assert_mem_eq(two.data, three.data, two.length);
    ck_assert_int_eq(parent_decode(later, sizeof(later), &back), -ENOENT);
}
END_TEST

START_TEST(only_a_directory_has_a_parent_and_it_is_somebody)
{
    struct inode_record inode = {.mode = S_IFDIR | 0755, .nlink = 2};
    static const uint8_t short_value[4] = {1};
    BUFFER_AUTO area = {0};
    BUFFER_AUTO bad = {0};
    struct object_id back;
    parent_replace(NULL, 0, (struct object_id){9}, &area);
    inode.extension = area.data;
    inode.extension_length = (uint16_t)area.length;
    ck_assert(record_inode_is_valid(&inode));
    inode.mode = S_IFREG | 0644;
    inode.nlink = 1;
    ck_assert(!record_inode_is_valid(&inode));
    parent_replace(NULL, 0, (struct object_id){0}, &area);
    ck_assert_int_eq(parent_decode(area.data, area.length, &back), -EBADMSG);
    extension_append(&bad, PARENT_EXTENSION, short_value, sizeof(short_value));
    ck_assert_int_eq(parent_decode(bad.data, bad.length, &back), -EBADMSG);
    inode.mode = S_IFDIR | 0755;
    inode.extension = bad.data;
    inode.extension_length = (uint16_t)bad.length;
    ck_assert(!record_inode_is_valid(&inode));
}
END_TEST

START_TEST(format_of_parents_has_not_changed)
{
    BUFFER_AUTO area = {0};
    BUFFER_AUTO golden = {0};
    parent_replace(NULL, 0, (struct object_id){0x0102030405060708}, &area);
    golden_load("parent-1.hex", &area, &golden);
    ck_assert_uint_eq(golden.length, area.length);
    ck_assert_mem_eq(golden.data, area.data, area.length);
}
END_TEST

static void
expect_item(const struct buffer *area, const char *value, uint32_t length)
{
    struct extension x;
    ck_assert_int_eq(extension_check(area->data, area->length), 0);
    ck_assert_int_eq(extension_find(area->data, area->length, FETCH_MARK_EXTENSION, &x), 0);
    ck_assert_uint_eq(x.length, length);
    ck_assert_mem_eq(x.value, value, length);
}

// Bits and bytes of a newer program stay when this one marks a file, takes the mark away, and makes
// a file in a marked directory.
START_TEST(a_mark_of_a_newer_program_stays)
{
    BUFFER_AUTO newer = {0};
    BUFFER_AUTO marked = {0};
    BUFFER_AUTO child = {0};
    BUFFER_AUTO again = {0};
    parent_replace(NULL, 0, (struct object_id){9}, &again);
    extension_append(&newer, FETCH_MARK_EXTENSION, "\x82\x07", 2);
    ck_assert_uint_eq(fetch_mark_decode(newer.data, newer.length), 0x82);
    fetch_mark_change(newer.data, newer.length, FETCH_MARK_COLD_SCAN, 0, &marked);
    expect_item(&marked, "\x83\x07", 2);
    fetch_mark_inherit(marked.data, marked.length, again.data, again.length, &child);
    expect_item(&child, "\x83\x07", 2);
    fetch_mark_change(child.data, child.length, 0, FETCH_MARK_COLD_SCAN, &again);
    expect_item(&again, "\x82\x07", 2);
    // What is all this program's goes.
    fetch_mark_change(NULL, 0, FETCH_MARK_COLD_SCAN, 0, &marked);
    expect_item(&marked, "\x01", 1);
    fetch_mark_change(marked.data, marked.length, 0, FETCH_MARK_COLD_SCAN, &again);
    ck_assert_uint_eq(again.length, 0);
    fetch_mark_inherit(again.data, again.length, NULL, 0, &child);
    ck_assert_uint_eq(child.length, 0);
}
END_TEST

START_TEST(format_of_marks_has_not_changed)
{
    BUFFER_AUTO area = {0};
    BUFFER_AUTO golden = {0};
    fetch_mark_change(NULL, 0, FETCH_MARK_COLD_SCAN, 0, &area);
    golden_load("fetch-mark-1.hex", &area, &golden);
    ck_assert_uint_eq(golden.length, area.length);
    ck_assert_mem_eq(golden.data, area.data, area.length);
}
END_TEST

START_TEST(format_has_not_changed)
{
    struct allocation a = {0};
    BUFFER_AUTO area = {0};
    BUFFER_AUTO golden = {0};
    allocation_add(&a, 0, 3);
    allocation_add(&a, 256, (uint64_t)1 << 40);
    allocation_replace(NULL, 0, &a, &area);
    golden_load("allocation-1.hex", &area, &golden);
    ck_assert_uint_eq(golden.length, area.length);
    ck_assert_mem_eq(golden.data, area.data, area.length);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("allocation");
    unit_add(suite, "ranges", ranges_never_say_less_than_was_allocated, 20);
    unit_add(suite, "too_many", one_range_too_many_fills_the_smallest_gap, 20);
    unit_add(suite, "impossible", impossible_ranges_are_refused, 20);
    unit_add(suite, "places", an_item_keeps_its_place_among_others, 20);
    unit_add(suite, "parent", only_a_directory_has_a_parent_and_it_is_somebody, 20);
    unit_add(suite, "format", format_has_not_changed, 20);
    unit_add(suite, "marks", a_mark_of_a_newer_program_stays, 20);
    unit_add(suite, "marks_format", format_of_marks_has_not_changed, 20);
    unit_add(suite, "parent_format", format_of_parents_has_not_changed, 20);
    return unit_run(suite);
}
