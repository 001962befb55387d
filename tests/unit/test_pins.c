// SPDX-License-Identifier: Apache-2.0
// Pins of local copies: what is pinned stays, and nobody who pins is too late without knowing it.
#include "unit.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "store/local_store.h"

static char *root;
static struct local_store *store;

static void
begin(void)
{
    root = unit_directory_new();
    ck_assert_int_eq(local_store_open(NULL, root, (struct db_id){1}, &store), 0);
}

static void
end(void)
{
    local_store_close(store);
    unit_directory_remove(root);
}

static struct sha256
hash_of(unsigned blob)
{
    struct sha256 hash;
    sha256_of(&blob, sizeof(blob), &hash);
    return hash;
}

static void
put(unsigned blob)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/staged", root);
    struct sha256 hash = hash_of(blob);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, "x", 1, 0600), 0);
    ck_assert_int_eq(local_store_adopt(store, path, &hash), 0);
}

START_TEST(a_blob_stays_until_its_last_pin_ends)
{
    struct pin_set *pins = local_store_pins(store);
    struct sha256 hash = hash_of(1);
    const char *who, *why;
    put(1);
    struct pin *a = pin_begin(pins, "reader", "it is read");
    struct pin *b = pin_begin(pins, "publication", "it is uploaded");
    pin_blob(a, &hash);
    pin_blob(a, &hash); // twice is once
    pin_exactly(b, (struct generation){7}, &hash, 1);
    ck_assert(pin_set_has_blob(pins, &hash, &who, &why));
    ck_assert_int_eq(local_store_remove(store, &hash), -EBUSY);
    pin_end(a);
    ck_assert(pin_set_has_blob(pins, &hash, &who, &why));
    ck_assert_str_eq(who, "publication");
    ck_assert_str_eq(why, "it is uploaded");
    ck_assert_int_eq(local_store_remove(store, &hash), -EBUSY);
    ck_assert(local_store_has(store, &hash));
    pin_end(b);
    ck_assert(!pin_set_has_blob(pins, &hash, NULL, NULL));
    ck_assert_int_eq(local_store_remove(store, &hash), 0);
    ck_assert(!local_store_has(store, &hash));
}
END_TEST

START_TEST(everything_is_pinned_until_it_is_known_what)
{
    struct pin_set *pins = local_store_pins(store);
    struct sha256 needed = hash_of(1);
    struct sha256 other = hash_of(2);
    ck_assert_uint_eq(pin_set_generation(pins).v, 0);
    struct pin *pin = pin_begin(pins, "publication", "it is uploaded");
    ck_assert_int_eq(local_store_remove(store, &other), 0);
    pin_everything(pin);
    ck_assert_uint_eq(pin_set_generation(pins).v, UINT64_MAX);
    ck_assert_int_eq(local_store_remove(store, &other), -EBUSY);
    pin_exactly(pin, (struct generation){5}, &needed, 1);
    ck_assert_uint_eq(pin_set_generation(pins).v, 5);
    ck_assert_int_eq(local_store_remove(store, &other), 0);
    ck_assert_int_eq(local_store_remove(store, &needed), -EBUSY);
    struct pin *older = pin_begin(pins, "job", "it is read");
    pin_exactly(older, (struct generation){3}, NULL, 0);
    ck_assert_uint_eq(pin_set_generation(pins).v, 5);
    pin_end(pin);
    ck_assert_uint_eq(pin_set_generation(pins).v, 3);
    pin_end(older);
    ck_assert_uint_eq(pin_set_generation(pins).v, 0);
}
END_TEST

// ---- who pins and who removes -------------------------------------------------------------------

static atomic_bool pinned;

static void
pin_it(void *argument)
{
    struct pin *pin = pin_begin(local_store_pins(store), "reader", "it is read");
    pin_blob(pin, argument);
    atomic_store(&pinned, true);
    pin_end(pin);
}

START_TEST(who_pins_waits_for_a_removal_that_has_begun)
{
    struct sha256 hash = hash_of(1);
    struct sha256 other = hash_of(2);
    struct pin_removal removal, second;
    struct thread thread;
    ck_assert(pin_set_begin_removal(local_store_pins(store), &other, &second));
    ck_assert(pin_set_begin_removal(local_store_pins(store), &hash, &removal));
    ck_assert_int_eq(thread_start(&thread, "reader", pin_it, &hash), 0);
    // It must have pinned, or it would wait for nothing.
    while (!pin_set_has_blob(local_store_pins(store), &hash, NULL, NULL))
        usleep(100);
    // Two threads that remove the same copies would both give back their bytes.
    struct pin_removal again;
    ck_assert(!pin_set_begin_removal(local_store_pins(store), &other, &again));
    pin_set_end_removal(local_store_pins(store), &second);
    ck_assert(pin_set_begin_removal(local_store_pins(store), &other, &again));
    pin_set_end_removal(local_store_pins(store), &again);
    ck_assert(!atomic_load(&pinned));
    pin_set_end_removal(local_store_pins(store), &removal);
    thread_join(&thread);
    ck_assert(atomic_load(&pinned));
}
END_TEST

static atomic_bool stop;

static void
remove_again_and_again(void *argument)
{
    const struct sha256 *hash = argument;
    while (!atomic_load(&stop))
        (void)!local_store_remove(store, hash);
}

START_TEST(what_was_there_after_it_was_pinned_stays_there)
{
    struct sha256 hash = hash_of(1);
    struct thread threads[2];
    unsigned seen = 0;
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(thread_start(&threads[i], "remover", remove_again_and_again, &hash), 0);
    for (unsigned i = 0; i < 20000 && seen < 200; i++) {
        put(1);
        struct pin *pin = pin_begin(local_store_pins(store), "reader", "it is read");
        pin_blob(pin, &hash);
        bool there = local_store_has(store, &hash);
        seen += there;
        for (unsigned k = 0; there && k < 20; k++)
            ck_assert(local_store_has(store, &hash));
        pin_end(pin);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++)
        thread_join(&threads[i]);
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
    Suite *suite = suite_create("pins");
    add(suite, "last", a_blob_stays_until_its_last_pin_ends);
    add(suite, "everything", everything_is_pinned_until_it_is_known_what);
    add(suite, "waits", who_pins_waits_for_a_removal_that_has_begun);
    add(suite, "race", what_was_there_after_it_was_pinned_stays_there);
    return unit_run(suite);
}
