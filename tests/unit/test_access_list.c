// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include <string.h>

#include "format/access_list.h"

#define NO_ID 0xffffffffu

static struct access_list
list_of(const struct access_entry *entries, unsigned count)
{
    struct access_list list = {.count = count};
    memcpy(list.entries, entries, count * sizeof(*entries));
    return list;
}

static const struct access_entry minimal[] = {
    {ACCESS_OWNER, 6, NO_ID}, {ACCESS_GROUP_OWNER, 4, NO_ID}, {ACCESS_OTHERS, 0, NO_ID}};
static const struct access_entry extended[] = {{ACCESS_OWNER, 7, NO_ID}, {ACCESS_USER, 6, 10},
    {ACCESS_USER, 7, 11}, {ACCESS_GROUP_OWNER, 5, NO_ID}, {ACCESS_GROUP, 3, 10},
    {ACCESS_MASK, 6, NO_ID}, {ACCESS_OTHERS, 1, NO_ID}};

// From memory that ends where the bytes end.
static int
decode(const struct buffer *b, size_t length, struct access_list *out)
{
    uint8_t *copy = malloc(length > 0 ? length : 1);
    memcpy(copy, b->data, length);
    int rc = access_list_decode(copy, length, out);
    free(copy);
    return rc;
}

static int
decode_entries(const struct access_entry *entries, unsigned count)
{
    BUFFER_AUTO b = {0};
    struct access_list list = list_of(entries, count), back;
    access_list_encode(&list, &b);
    return decode(&b, b.length, &back);
}

START_TEST(lists_come_back)
{
    BUFFER_AUTO b = {0};
    BUFFER_AUTO again = {0};
    struct access_list list = list_of(extended, 7), back;
    access_list_encode(&list, &b);
    ck_assert_uint_eq(b.length, 4 + 7 * 8);
    ck_assert_mem_eq(b.data, "\2\0\0\0\1\0\7\0\377\377\377\377\2\0\6\0\12\0\0\0", 20);
    ck_assert_int_eq(decode(&b, b.length, &back), 0);
    access_list_encode(&back, &again);
    ck_assert_uint_eq(again.length, b.length);
    ck_assert_mem_eq(again.data, b.data, b.length);
    for (size_t n = 0; n < b.length; n++)
        ck_assert_int_eq(decode(&b, n, &back), -EINVAL);
}
END_TEST

START_TEST(what_is_no_list_is_refused)
{
    static const struct access_entry twice[] = {{ACCESS_OWNER, 6, NO_ID}, {ACCESS_OWNER, 6, NO_ID},
        {ACCESS_GROUP_OWNER, 4, NO_ID}, {ACCESS_OTHERS, 0, NO_ID}};
    static const struct access_entry disorder[] = {
        {ACCESS_GROUP_OWNER, 4, NO_ID}, {ACCESS_OWNER, 6, NO_ID}, {ACCESS_OTHERS, 0, NO_ID}};
    static const struct access_entry no_mask[] = {{ACCESS_OWNER, 6, NO_ID}, {ACCESS_USER, 6, 1},
        {ACCESS_GROUP_OWNER, 4, NO_ID}, {ACCESS_OTHERS, 0, NO_ID}};
    static const struct access_entry no_name[] = {{ACCESS_OWNER, 6, NO_ID}, {ACCESS_USER, 6, NO_ID},
        {ACCESS_GROUP_OWNER, 4, NO_ID}, {ACCESS_MASK, 7, NO_ID}, {ACCESS_OTHERS, 0, NO_ID}};
    static const struct access_entry permissions[] = {
        {ACCESS_OWNER, 8, NO_ID}, {ACCESS_GROUP_OWNER, 4, NO_ID}, {ACCESS_OTHERS, 0, NO_ID}};
    static const struct access_entry unknown[] = {{ACCESS_OWNER, 6, NO_ID},
        {ACCESS_GROUP_OWNER, 4, NO_ID}, {ACCESS_OTHERS, 0, NO_ID}, {0x40, 0, NO_ID}};
    static const struct access_entry tag_of_two[] = {{ACCESS_OWNER, 6, NO_ID}, {3, 6, 5},
        {ACCESS_GROUP_OWNER, 4, NO_ID}, {ACCESS_OTHERS, 0, NO_ID}};
    ck_assert_int_eq(decode_entries(minimal, 3), 0);
    ck_assert_int_eq(decode_entries(minimal, 2), -EINVAL);
    ck_assert_int_eq(decode_entries(minimal, 0), -EINVAL);
    ck_assert_int_eq(decode_entries(minimal + 1, 2), -EINVAL);
    ck_assert_int_eq(decode_entries(twice, 4), -EINVAL);
    ck_assert_int_eq(decode_entries(disorder, 3), -EINVAL);
    ck_assert_int_eq(decode_entries(no_mask, 4), -EINVAL);
    ck_assert_int_eq(decode_entries(no_name, 5), -EINVAL);
    ck_assert_int_eq(decode_entries(permissions, 3), -EINVAL);
    ck_assert_int_eq(decode_entries(unknown, 4), -EINVAL);
    ck_assert_int_eq(decode_entries(tag_of_two, 4), -EINVAL);
    BUFFER_AUTO b = {0};
    struct access_list list = list_of(minimal, 3), back;
    access_list_encode(&list, &b);
    b.data[0] = 1;
    ck_assert_int_eq(decode(&b, b.length, &back), -EINVAL);
    b.data[0] = 2;
    for (unsigned i = 0; i <= ACCESS_ENTRIES_MAX; i++)
        buffer_append(&b, "\2\0\7\0\1\0\0\0", 8);
    ck_assert_int_eq(decode(&b, b.length, &back), -E2BIG);
}
END_TEST

START_TEST(mode_and_list_stay_in_step)
{
    struct access_list list = list_of(minimal, 3);
    uint32_t mode = 0102777;
    ck_assert(!access_list_to_mode(&list, &mode));
    ck_assert_uint_eq(mode, 0102640);
    access_list_from_mode(&list, 0751);
    ck_assert(!access_list_to_mode(&list, &mode));
    ck_assert_uint_eq(mode, 0102751);
    list = list_of(extended, 7);
    ck_assert(access_list_to_mode(&list, &mode));
    ck_assert_uint_eq(mode, 0102761);
    access_list_from_mode(&list, 0640);
    ck_assert_uint_eq(list.entries[5].permissions, 4); // the mask; the group's own stay
    ck_assert_uint_eq(list.entries[3].permissions, 5);
    ck_assert_uint_eq(list.entries[1].permissions, 6);
    ck_assert_uint_eq(list.entries[0].permissions, 6);
    ck_assert_uint_eq(list.entries[6].permissions, 0);
}
END_TEST

START_TEST(what_is_made_inherits)
{
    struct access_list list = list_of(extended, 7);
    uint32_t mode = 0100644;
    ck_assert(access_list_inherit(&list, &mode));
    ck_assert_uint_eq(mode, 0100640);
    ck_assert_uint_eq(list.entries[0].permissions, 6);
    ck_assert_uint_eq(list.entries[5].permissions, 4);
    ck_assert_uint_eq(list.entries[6].permissions, 0);
    list = list_of(minimal, 3);
    mode = 040777;
    ck_assert(!access_list_inherit(&list, &mode));
    ck_assert_uint_eq(mode, 040640);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("access_list");
    unit_add(suite, "lists_come_back", lists_come_back, 10);
    unit_add(suite, "what_is_no_list_is_refused", what_is_no_list_is_refused, 10);
    unit_add(suite, "mode_and_list_stay_in_step", mode_and_list_stay_in_step, 10);
    unit_add(suite, "what_is_made_inherits", what_is_made_inherits, 10);
    return unit_run(suite);
}
