// SPDX-License-Identifier: Apache-2.0
// Eviction from hot_cache: which parts go, which stay, and what readers see of it.
#include "unit.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checksum.h"
#include "format/part_list.h"
#include "golden.h"
#include "platform/memory.h"
#include "quota/quota_file.h"
#include "quota/storage_quota.h"
#include "store/local_store.h"
#include "store/part_sieve.h"

#define MIB   (UINT64_C(1) << 20)
#define BLOBS 8u
#define PARTS 5u

static char *root;
static struct storage_quota *quota;
static struct local_store *store;

static void
begin(void)
{
    root = unit_directory_new();
    ck_assert_int_eq(local_store_open(NULL, root, (struct db_id){1}, &store), 0);
    quota = storage_quota_open(root, "db/1");
    storage_quota_set_limit(quota, 1024 * MIB);
    local_store_set_quota(store, quota);
}

static void
end(void)
{
    local_store_close(store);
    storage_quota_close(quota);
    unit_directory_remove(root);
}

static struct sha256
hash_of(unsigned blob)
{
    struct sha256 hash;
    sha256_of(&blob, sizeof(blob), &hash);
    return hash;
}

static uint64_t
next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

// ---- the order ----------------------------------------------------------------------------------

static unsigned
next_of(struct part_sieve *s)
{
    struct sha256 hash;
    uint32_t part;
    ck_assert(part_sieve_next(s, &hash, &part));
    part_sieve_drop(s, &hash, part);
    part_sieve_check(s);
    return part;
}

START_TEST(parts_go_in_order_unless_they_were_used)
{
    struct part_sieve *s = part_sieve_new();
    struct sha256 blob = hash_of(1);
    struct sha256 hash;
    uint32_t part;
    ck_assert(!part_sieve_next(s, &hash, &part));
    for (unsigned i = 0; i < 6; i++)
        part_sieve_enter(s, &blob, i);
    part_sieve_use(s, &blob, 0);
    part_sieve_use(s, &blob, 2);
    ck_assert_uint_eq(next_of(s), 1);
    ck_assert_uint_eq(next_of(s), 3); // 2 was used, and is passed over once
    part_sieve_enter(s, &blob, 7);
    ck_assert_uint_eq(next_of(s), 4);
    ck_assert_uint_eq(next_of(s), 5);
    ck_assert_uint_eq(next_of(s), 7); // what came last and was not used goes before what was
    ck_assert_uint_eq(next_of(s), 0);
    ck_assert_uint_eq(next_of(s), 2);
    ck_assert(!part_sieve_has(s, &blob));
    part_sieve_free(s);
}
END_TEST

START_TEST(the_queue_is_whole_after_whatever_happens)
{
    uint64_t seed = (uint64_t)getpid();
    struct part_sieve *s = part_sieve_new();
    for (unsigned i = 0; i < 20000; i++) {
        struct sha256 hash = hash_of((unsigned)(next_random(&seed) % BLOBS));
        uint32_t part = (uint32_t)(next_random(&seed) % 40);
        switch (next_random(&seed) % 8) {
        case 0:
            part_sieve_drop(s, &hash, part);
            break;
        case 1:
            if (next_random(&seed) % 10 == 0)
                part_sieve_drop_blob(s, &hash);
            break;
        case 2:
            if (part_sieve_next(s, &hash, &part) && next_random(&seed) % 2)
                part_sieve_drop(s, &hash, part);
            break;
        case 3:
            part_sieve_enter(s, &hash, part);
            break;
        default:
            part_sieve_use(s, &hash, part);
        }
        part_sieve_check(s);
    }
    part_sieve_free(s);
}
END_TEST

START_TEST(recency_takes_little_memory)
{
    enum { PARTS_KNOWN = 50000 };
    for (unsigned of_blob = 1; of_blob <= 16; of_blob *= 4) {
        size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
        struct part_sieve *s = part_sieve_new();
        for (unsigned i = 0; i < PARTS_KNOWN; i++) {
            struct sha256 hash = hash_of(i / of_blob);
            part_sieve_enter(s, &hash, i % of_blob);
        }
        size_t bytes = mallinfo2().uordblks + mallinfo2().hblkhd - before;
        // 0.05 % of the cached bytes.
        ck_assert_uint_le(bytes, PARTS_KNOWN * MIB / 2000);
        part_sieve_free(s);
    }
}
END_TEST

// ---- lists of parts -----------------------------------------------------------------------------

static void
append_text(void *argument, const struct sha256 *hash, uint32_t part, bool used)
{
    char hex[65];
    sha256_to_hex(hash, hex);
    buffer_printf(argument, "%.8s %u%s\n", hex, part, used ? " used" : "");
}

static int
decode(const struct buffer *bytes, uint32_t *hand_out, struct buffer *text_out)
{
    buffer_clear(text_out);
    return part_list_decode(bytes->data, bytes->length, hand_out, append_text, text_out);
}

static struct part_list *
list_new(struct buffer *text_out)
{
    struct part_list *l = part_list_new();
    for (unsigned i = 0; i < 100; i++) {
        // Runs of one part, of 33, of parts in falling order; used ones; blobs that come again.
        unsigned part = i < 40 ? i : i < 60 ? 100 - i : 7 * i;
        struct sha256 hash = hash_of(i / 35 % 2);
        part_list_append(l, &hash, part, i % 3 == 0);
        append_text(text_out, &hash, part, i % 3 == 0);
    }
    return l;
}

START_TEST(a_list_of_parts_comes_back_as_it_was)
{
    BUFFER_AUTO text = {0};
    BUFFER_AUTO again = {0};
    BUFFER_AUTO bytes = {0};
    uint32_t hand;
    struct part_list *l = list_new(&text);
    ck_assert_uint_eq(part_list_count(l), 100);
    part_list_encode(l, 41, &bytes);
    ck_assert_int_eq(decode(&bytes, &hand, &again), 0);
    ck_assert_uint_eq(hand, 41);
    ck_assert_str_eq(buffer_string(&text), buffer_string(&again));
    part_list_free(l);
    l = part_list_new();
    buffer_clear(&bytes);
    part_list_encode(l, 0, &bytes);
    ck_assert_int_eq(decode(&bytes, &hand, &again), 0);
    ck_assert_uint_eq(again.length, 0);
    part_list_free(l);
}
END_TEST

// With a checksum that is right.
static int
decode_sealed(struct buffer *bytes, size_t at, uint32_t value, struct buffer *text)
{
    uint32_t hand;
    uint32_t old = get_le32(bytes->data + at);
    put_le32(bytes->data + at, value);
    put_le32(bytes->data + bytes->length - 4, crc32c(0, bytes->data, bytes->length - 4));
    int rc = decode(bytes, &hand, text);
    put_le32(bytes->data + at, old);
    put_le32(bytes->data + bytes->length - 4, crc32c(0, bytes->data, bytes->length - 4));
    return rc;
}

START_TEST(a_list_of_parts_that_is_damaged_tells_nothing)
{
    BUFFER_AUTO text = {0};
    BUFFER_AUTO bytes = {0};
    uint32_t hand;
    struct part_list *l = list_new(&text);
    part_list_encode(l, 100, &bytes);
    part_list_free(l);
    for (size_t i = 0; i < bytes.length; i++) {
        bytes.data[i] ^= 0x10;
        ck_assert_int_eq(decode(&bytes, &hand, &text), -EBADMSG);
        bytes.data[i] ^= 0x10;
        const struct buffer cut = {.data = bytes.data, .length = i};
        ck_assert_int_eq(decode(&cut, &hand, &text), -EBADMSG);
    }
    size_t run = 32 + 2 * 32;
    ck_assert_int_eq(decode_sealed(&bytes, 8, 2, &text), -ENOTSUP);           // a newer version
    ck_assert_int_eq(decode_sealed(&bytes, 8, 0, &text), -EBADMSG);           // none
    ck_assert_int_eq(decode_sealed(&bytes, 8, 1 | 1 << 16, &text), -ENOTSUP); // a flag
    ck_assert_int_eq(decode_sealed(&bytes, 12, 1u << 21, &text), -EBADMSG);
    ck_assert_int_eq(decode_sealed(&bytes, 16, UINT32_MAX, &text), -EBADMSG);
    ck_assert_int_eq(decode_sealed(&bytes, 20, UINT32_MAX, &text), -EBADMSG);
    ck_assert_int_eq(decode_sealed(&bytes, 24, 101, &text), -EBADMSG);
    ck_assert_int_eq(decode_sealed(&bytes, run, 2, &text), -EBADMSG); // no such blob
    ck_assert_int_eq(decode_sealed(&bytes, run + 4, UINT32_MAX, &text), -EBADMSG);
    ck_assert_int_eq(decode_sealed(&bytes, run + 8, 0, &text), -EBADMSG); // an empty run
    ck_assert_int_eq(decode_sealed(&bytes, run + 8, 33, &text), -EBADMSG);
    ck_assert_uint_eq(text.length, 0);
    ck_assert_int_eq(decode(&bytes, &hand, &text), 0);
}
END_TEST

START_TEST(format_of_a_list_of_parts_has_not_changed)
{
    BUFFER_AUTO bytes = {0};
    BUFFER_AUTO golden = {0};
    struct part_list *l = part_list_new();
    const struct sha256 a = {{0xa1, 0xa2}}, b = {{0xb1, 0xb2}};
    for (uint32_t part = 0; part < 40; part++)
        part_list_append(l, &a, part, part % 5 == 0);
    part_list_append(l, &b, 0x01020304, true);
    part_list_append(l, &a, 63, false);
    part_list_encode(l, 17, &bytes);
    part_list_free(l);
    golden_load("part-list-1.hex", &bytes, &golden);
    ck_assert_uint_eq(golden.length, bytes.length);
    ck_assert_mem_eq(golden.data, bytes.data, bytes.length);
}
END_TEST

// ---- the files ----------------------------------------------------------------------------------

// A whole copy of PARTS MiB.
static void
put(unsigned blob)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/staged", local_store_scratch(store));
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc(PARTS * MIB);
    struct sha256 hash = hash_of(blob);
    memset(bytes, 1 + (int)blob, PARTS * MIB);
    uint64_t reserved = storage_quota_blocks_for(PARTS * MIB);
    ck_assert_int_eq(storage_quota_reserve(quota, QUOTA_BLOBS, QUOTA_CHECKPOINT, reserved), 0);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, bytes, PARTS * MIB, 0600), 0);
    storage_quota_settle(quota, QUOTA_BLOBS, reserved, storage_quota_path_bytes(path));
    ck_assert_int_eq(local_store_adopt(store, path, &hash), 0);
}

// Whether the middle of a part is there, and right.
static bool
has_part(unsigned blob, unsigned part)
{
    uint8_t byte = 0;
    struct sha256 hash = hash_of(blob);
    uint64_t at = part * MIB + MIB / 2;
    return local_store_find_hole(store, &hash, at, at + 1) == at + 1 &&
           local_store_read(store, &hash, at, &byte, 1) == 0 && byte == 1 + blob;
}

static unsigned stays; // this blob is not in the store
static unsigned asked; // how often it was asked for

static bool
may_go(void *argument UNUSED, const struct sha256 *hash, bool whole UNUSED)
{
    struct sha256 kept = hash_of(stays);
    asked += sha256_equal(hash, &kept);
    return !sha256_equal(hash, &kept);
}

static uint64_t
make_room(uint64_t want)
{
    int64_t freed = local_store_make_room(store, may_go, NULL, want);
    uint64_t log, blobs;
    struct storage_quota_numbers n;
    quota_count_place(root, "db/1", &log, &blobs);
    storage_quota_numbers(quota, &n);
    ck_assert_uint_eq(n.blobs, blobs);
    ck_assert_int_ge(freed, 0);
    return (uint64_t)freed;
}

START_TEST(unused_parts_go_and_used_ones_stay)
{
    stays = 99;
    put(0);
    put(1);
    ck_assert(has_part(0, 3)); // this is a use
    ck_assert(has_part(1, 0));
    ck_assert_uint_eq(make_room(4 * MIB), 4 * MIB);
    struct sha256 hash = hash_of(0);
    ck_assert(!local_store_has(store, &hash)); // no longer whole
    ck_assert(!has_part(0, 0) && !has_part(0, 4) && has_part(0, 3));
    hash = hash_of(1);
    ck_assert(local_store_has(store, &hash));
    ck_assert_uint_ge(make_room(6 * MIB), 6 * MIB - 4096);
    ck_assert_uint_eq(make_room(100 * MIB), 0); // nothing is left
}
END_TEST

START_TEST(a_look_past_the_caches_is_no_use)
{
    uint8_t byte;
    struct sha256 hash = hash_of(0);
    stays = 99;
    put(0);
    put(1);
    ck_assert(has_part(1, 4)); // a use
    for (unsigned part = 0; part < PARTS; part++) {
        ck_assert_int_eq(local_store_peek(store, &hash, part * MIB + MIB / 2, &byte, 1), 0);
        ck_assert_uint_eq(byte, 1);
    }
    ck_assert_uint_eq(make_room(5 * MIB), 5 * MIB);
    ck_assert_int_eq(local_store_peek(store, &hash, MIB / 2, &byte, 1), -ENOENT);
    for (unsigned part = 0; part < PARTS; part++)
        ck_assert(has_part(1, part));
}
END_TEST

START_TEST(what_is_pinned_or_only_here_stays)
{
    stays = 2;
    for (unsigned i = 0; i < 4; i++)
        put(i);
    struct sha256 pinned = hash_of(1);
    struct pin *pin = pin_begin(local_store_pins(store), "fold", "it is read");
    pin_blob(pin, &pinned);
    make_room(100 * MIB);
    for (unsigned part = 0; part < PARTS; part++)
        ck_assert(!has_part(0, part) && has_part(1, part) && has_part(2, part));
    struct sha256 kept = hash_of(2);
    ck_assert(local_store_has(store, &pinned) && local_store_has(store, &kept));
    pin_end(pin);
    make_room(100 * MIB);
    make_room(100 * MIB); // used parts are passed over once
    for (unsigned part = 0; part < PARTS; part++)
        ck_assert(!has_part(1, part) && has_part(2, part));
}
END_TEST

START_TEST(what_was_here_before_the_mount_goes_first)
{
    stays = 2;
    put(0);
    put(2);
    local_store_close(store);
    ck_assert_int_eq(local_store_open(NULL, root, (struct db_id){1}, &store), 0);
    local_store_set_quota(store, quota);
    put(1);
    asked = 0;
    ck_assert_uint_ge(make_room(MIB), MIB);
    ck_assert(!has_part(0, 0) && has_part(1, 0) && has_part(2, 0));
    // What had to stay is known from then on, and is evicted when it may be.
    stays = 99;
    make_room(100 * MIB);
    make_room(100 * MIB);
    ck_assert(!has_part(1, 0) && !has_part(2, 0));
}
END_TEST

// A process that is killed between the two steps of an adoption leaves both copies.
START_TEST(a_whole_copy_beside_a_partial_one_loses_parts_and_the_account_is_right)
{
    stays = 99;
    put(0);
    char hex[65];
    struct sha256 hash = hash_of(0);
    sha256_to_hex(&hash, hex);
    CLEANUP(memory_free_auto) char *partial = memory_printf("%s/hot_cache/1/%s.part", root, hex);
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc_zero(MIB);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, partial, bytes, MIB, 0600), 0);
    storage_quota_recount(quota);
    ck_assert(has_part(0, 4)); // a use: the copy is known
    ck_assert_uint_eq(make_room(MIB), MIB);
    ck_assert(!has_part(0, 0) && has_part(0, 1) && has_part(0, 4));
    ck_assert(!local_store_has(store, &hash));
}
END_TEST

START_TEST(a_partial_copy_that_lost_parts_gets_them_again)
{
    static uint8_t bytes[65536];
    struct sha256 hash = hash_of(5);
    stays = 99;
    memset(bytes, 6, sizeof(bytes));
    for (unsigned part = 0; part < PARTS; part++)
        ck_assert_int_eq(
            local_store_keep(store, &hash, part * MIB + MIB / 2, bytes, sizeof(bytes)), 0);
    ck_assert(has_part(5, 1));
    make_room(2 * sizeof(bytes));
    ck_assert(!has_part(5, 0) && has_part(5, 1));
    ck_assert_int_eq(local_store_keep(store, &hash, MIB / 2, bytes, sizeof(bytes)), 0);
    ck_assert(has_part(5, 0));
    make_room(100 * MIB);
    make_room(100 * MIB);
    ck_assert_int_eq(local_store_read(store, &hash, MIB / 2, bytes, 1), -ENOENT);
}
END_TEST

// ---- across restarts ----------------------------------------------------------------------------

static void
open_again(void)
{
    local_store_close(store);
    storage_quota_close(quota);
    ck_assert_int_eq(local_store_open(NULL, root, (struct db_id){1}, &store), 0);
    quota = storage_quota_open(root, "db/1");
    storage_quota_set_limit(quota, 1024 * MIB);
    local_store_set_quota(store, quota);
}

static uint32_t
describe(struct buffer *text_out)
{
    BUFFER_AUTO bytes = {0};
    struct part_list *l = part_list_new();
    uint32_t hand = local_store_list_parts(store, l);
    part_list_encode(l, hand, &bytes);
    part_list_free(l);
    ck_assert_int_eq(decode(&bytes, &hand, text_out), 0);
    return hand;
}

static char *
recency_path(void)
{
    return memory_printf("%s/hot_cache/1/recency", root);
}

// Three blobs of which some parts were used, and the hand is in the middle.
static void
use_some(void)
{
    stays = 99;
    for (unsigned i = 0; i < 3; i++)
        put(i);
    ck_assert(has_part(0, 3) && has_part(1, 0) && has_part(2, 1));
    ck_assert_uint_eq(make_room(6 * MIB), 6 * MIB);
    ck_assert(has_part(2, 4));
}

START_TEST(recency_survives_a_restart)
{
    BUFFER_AUTO before = {0};
    BUFFER_AUTO after = {0};
    use_some();
    uint32_t hand = describe(&before);
    ck_assert_uint_gt(hand, 0);
    local_store_save_recency(store);
    make_room(0); // the account has the file
    open_again();
    local_store_load_recency(store);
    ck_assert_uint_eq(describe(&after), hand);
    ck_assert_str_eq(buffer_string(&before), buffer_string(&after));
    // What comes next goes as it would have gone. Unused parts of an unknown copy go before.
    ck_assert_uint_eq(make_room(2 * MIB), 2 * MIB);
    ck_assert(has_part(0, 3) && has_part(1, 0) && has_part(2, 4));
    ck_assert(!has_part(1, 3) && !has_part(1, 4));
    // Again, over the older file; and without parts there is no file.
    local_store_save_recency(store);
    make_room(0);
    make_room(100 * MIB);
    make_room(100 * MIB);
    local_store_save_recency(store);
    make_room(0);
    CLEANUP(memory_free_auto) char *path = recency_path();
    ck_assert_int_lt(access(path, F_OK), 0);
}
END_TEST

START_TEST(recency_from_before_a_kill_is_older_and_never_wrong)
{
    BUFFER_AUTO text = {0};
    use_some();
    local_store_save_recency(store);
    // One copy goes and one comes; then the process dies.
    struct sha256 hash = hash_of(1);
    ck_assert_int_eq(local_store_remove(store, &hash), 0);
    put(5);
    open_again();
    local_store_load_recency(store);
    describe(&text);
    char hex[65];
    sha256_to_hex(&hash, hex);
    hex[8] = 0;
    ck_assert_ptr_null(strstr(buffer_string(&text), hex));
    ck_assert_uint_ge(make_room(MIB), MIB);
    ck_assert(!has_part(5, 0) && has_part(0, 3) && has_part(2, 4));
    for (unsigned i = 0; i < 3; i++)
        make_room(100 * MIB);
    for (unsigned blob = 0; blob < 6; blob++)
        for (unsigned part = 0; part < PARTS; part++)
            ck_assert(!has_part(blob, part));
}
END_TEST

START_TEST(a_recency_file_that_is_damaged_or_newer_is_ignored)
{
    BUFFER_AUTO text = {0};
    BUFFER_AUTO bytes = {0};
    CLEANUP(memory_free_auto) char *path = recency_path();
    CLEANUP(memory_free_auto) char *unfinished = memory_printf("%s.new", path);
    use_some();
    local_store_save_recency(store);
    ck_assert_int_eq(file_read_whole(path, MIB, &bytes), 0);
    for (unsigned i = 0; i < 4; i++) {
        size_t n = i == 0 ? 0 : i == 1 ? bytes.length / 2 : bytes.length;
        BUFFER_AUTO bad = {0};
        buffer_append(&bad, bytes.data, n);
        if (i == 2)
            bad.data[40] ^= 1;
        if (i == 3) {
            bad.data[8] = 2;
            put_le32(bad.data + n - 4, crc32c(0, bad.data, n - 4));
        }
        ck_assert_int_eq(file_replace_whole(&file_ops_system, path, bad.data, n, 0600), 0);
        ck_assert_int_eq(file_replace_whole(&file_ops_system, unfinished, "x", 1, 0600), 0);
        open_again();
        local_store_load_recency(store);
        describe(&text);
        ck_assert_uint_eq(text.length, 0);
        ck_assert_int_lt(access(unfinished, F_OK), 0);
        make_room(0);
    }
    ck_assert_uint_ge(make_room(100 * MIB), 8 * MIB); // all unknown
}
END_TEST

static void
add(Suite *suite, const char *name, const TTest *test)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, begin, end);
    tcase_add_test(tcase, test);
    suite_add_tcase(suite, tcase);
}

int
main(void)
{
    Suite *suite = suite_create("eviction");
    add(suite, "order", parts_go_in_order_unless_they_were_used);
    add(suite, "memory", recency_takes_little_memory);
    add(suite, "random", the_queue_is_whole_after_whatever_happens);
    add(suite, "parts", unused_parts_go_and_used_ones_stay);
    add(suite, "looks", a_look_past_the_caches_is_no_use);
    add(suite, "pins", what_is_pinned_or_only_here_stays);
    add(suite, "unknown", what_was_here_before_the_mount_goes_first);
    add(suite, "list", a_list_of_parts_comes_back_as_it_was);
    add(suite, "damaged list", a_list_of_parts_that_is_damaged_tells_nothing);
    add(suite, "format", format_of_a_list_of_parts_has_not_changed);
    add(suite, "restart", recency_survives_a_restart);
    add(suite, "kill", recency_from_before_a_kill_is_older_and_never_wrong);
    add(suite, "damaged recency", a_recency_file_that_is_damaged_or_newer_is_ignored);
    add(suite, "both", a_whole_copy_beside_a_partial_one_loses_parts_and_the_account_is_right);
    add(suite, "partial", a_partial_copy_that_lost_parts_gets_them_again);
    return unit_run(suite);
}
