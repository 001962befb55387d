// SPDX-License-Identifier: Apache-2.0
// Eviction from hot_cache: which parts go, which stay, and what readers see of it.
#include "unit.h"

#include <malloc.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
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
    add(suite, "partial", a_partial_copy_that_lost_parts_gets_them_again);
    return unit_run(suite);
}
