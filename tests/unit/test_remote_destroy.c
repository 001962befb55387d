// SPDX-License-Identifier: Apache-2.0
// A volume that is destroyed: who is in the way, who finds out, and what a run that failed leaves.
#include "remote_world.h"

#include <string.h>
#include <sys/stat.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "remote/remote_destroy.h"

#define READER_MS 3600000u
#define FORK_MS   86400000u

static struct world world;
static struct root one, two;
static bool takeover;

static void
begin(void)
{
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
}

static void
setup(void)
{
    world_open(&world);
    root_open(&one, &world, "one", 1);
    root_open(&two, &world, "two", 2);
    begin();
}

static void
teardown(void)
{
    root_close(&one);
    root_close(&two);
    world_close(&world);
}

static void
release(void)
{
    ck_assert_int_eq(remote_lease_write(&one.place, one.db.epoch, WORLD_TTL_MS, true), 0);
}

static int
destroy(void)
{
    BUFFER_AUTO holders = {0};
    struct remote_destroyed done;
    const struct remote_destroy_options options = {
        .reader_pin_ms = READER_MS, .fork_pin_ms = FORK_MS, .takeover = takeover};
    int rc = remote_manifest_destroy(&two.place, &options, &holders, &done);
    ck_assert_int_eq(holders.length > 0, rc == -EBUSY);
    return rc;
}

static int
import(void)
{
    struct db_record db = root_new_db(&two, "again");
    int rc = remote_manifest_import(&two.place, two.m, &db, (struct generation){0});
    ck_assert_int_eq(manifest_remove_db(two.m, db.id), 0);
    return rc;
}

static size_t
objects(void)
{
    struct remote_listing listing = {0};
    ck_assert_int_eq(
        remote_store_list_blobs(world.store, "manifests/", NULL, 1000, &listing, NULL), 0);
    size_t n = listing.count;
    remote_listing_free(&listing);
    ck_assert_int_eq(
        remote_store_list_blobs(world.store, "checkpoints/", NULL, 1000, &listing, NULL), 0);
    n += listing.count;
    remote_listing_free(&listing);
    return n;
}

START_TEST(who_holds_a_volume_keeps_it)
{
    struct remote_pin pin = {.kind = PIN_FORK, .generation = one.db.published, .name = "child"};
    size_t before = objects();
    ck_assert_int_eq(destroy(), -EBUSY);
    takeover = true; // of leases, not of pins
    ck_assert_int_eq(remote_pin_put(&two.place, &pin), 0);
    ck_assert_int_eq(destroy(), -EBUSY);
    takeover = false;
    release();
    ck_assert_int_eq(remote_pin_put(&two.place, &pin), 0);
    ck_assert_int_eq(destroy(), -EBUSY);
    ck_assert_int_eq(remote_pin_delete(&two.place, &pin), 0);
    pin.kind = PIN_READER;
    ck_assert_int_eq(remote_pin_put(&two.place, &pin), 0);
    ck_assert_int_eq(destroy(), -EBUSY);
    ck_assert_uint_eq(objects(), before);
    ck_assert_int_eq(import(), 0);
    ck_assert_int_eq(remote_pin_delete(&two.place, &pin), 0);
    ck_assert_int_eq(destroy(), 0);
    ck_assert_uint_eq(objects(), 0);
    ck_assert_int_eq(destroy(), -ENOENT);
}
END_TEST

// Whoever began a fork and died left a pin, and nobody can tell its volume's id.
START_TEST(pin_of_a_fork_that_was_never_made_counts_for_a_day)
{
    struct remote_pin pin = {.kind = PIN_FORK, .generation = one.db.published};
    char *path;
    uuid_to_string(&one.db.volume, pin.name);
    pin.holder = "acme@7";
    release();
    ck_assert_int_eq(remote_pin_put(&two.place, &pin), 0);
    ck_assert_int_eq(destroy(), -EBUSY);
    path = memory_printf("%s/pins/acme/1/%016llx-fork-%s", world.bucket,
        (unsigned long long)pin.generation.v, pin.name);
    const struct timespec old = {(time_t)(clock_wall_ms() / 1000 - 2 * 86400), 0};
    const struct timespec times[2] = {old, old};
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
    free(path);
    ck_assert_int_eq(destroy(), 0);
}
END_TEST

// A pin from before the mark, of somebody who looked before it, too: nothing is deleted.
START_TEST(pin_that_comes_just_before_the_mark_counts)
{
    struct remote_pin pin = {.kind = PIN_FORK, .generation = one.db.published, .name = "child"};
    release();
    // The mark is made, and nothing more.
    struct store_fault fault = {
        .verb = STORE_VERB_DELETE, .kind = STORE_FAULT_FAIL, .nth = 1, .times = 1, .error = -EIO};
    fault_store_add(world.faults, &fault);
    size_t before = objects();
    ck_assert_int_eq(destroy(), -EIO);
    ck_assert_int_eq(remote_pin_put(&two.place, &pin), 0);
    fault_store_clear(world.faults);
    ck_assert_int_eq(destroy(), -EBUSY);
    ck_assert_uint_eq(objects(), before + 1);
    ck_assert_int_eq(remote_pin_delete(&two.place, &pin), 0);
    ck_assert_int_eq(destroy(), 0);
}
END_TEST

START_TEST(failing_at_any_request_leaves_all_or_nothing_usable)
{
    unsigned failed = 0;
    for (int kind = STORE_FAULT_FAIL; kind <= STORE_FAULT_SWALLOW; kind++) {
        for (uint64_t nth = 1;; nth++) {
            struct store_fault fault = {
                .kind = (enum store_fault_kind)kind, .nth = nth, .times = 1, .error = -EAGAIN};
            release();
            uint64_t calls = fault_store_calls(world.faults, STORE_VERB_ANY);
            fault_store_add(world.faults, &fault);
            int rc = destroy();
            fault_store_clear(world.faults);
            bool last = fault_store_calls(world.faults, STORE_VERB_ANY) - calls < nth;
            if (rc < 0) {
                int import_rc = import();
                // The mark may have gone with a lost answer.
                bool gone = objects() == 0;
                ck_assert_int_eq(rc, -EAGAIN);
                ck_assert(import_rc == 0 || import_rc == (gone ? -ENOENT : -EIDRM));
                ck_assert_int_eq(destroy(), gone ? -ENOENT : 0);
                failed++;
            }
            ck_assert_uint_eq(objects(), 0);
            char name[32];
            snprintf(name, sizeof(name), "one-%d-%d", kind, (int)nth);
            root_close(&one);
            root_open(&one, &world, name, 1);
            begin();
            if (last)
                break;
        }
    }
    ck_assert_uint_ge(failed, 20);
}
END_TEST

// The owner is stalled between his last look and the creation of his record.
START_TEST(stalled_owner_publishes_nothing_into_the_void)
{
    struct remote_staged staged;
    struct remote_upload *uploads;
    struct remote_catch_up found;
    size_t count;
    root_fold(&one, 0);
    ck_assert_int_eq(
        remote_manifest_stage_generation(&one.place, one.m, one.db.id, &staged, &uploads, &count),
        0);
    release();
    struct store_fault fault = {
        .verb = STORE_VERB_DELETE, .kind = STORE_FAULT_FAIL, .nth = 1, .times = 1, .error = -EIO};
    fault_store_add(world.faults, &fault);
    ck_assert_int_eq(destroy(), -EIO);
    fault_store_clear(world.faults);
    // As long as the mark is there it lies in the way, and he is told by whom.
    ck_assert_int_eq(remote_manifest_publish(&one.place, &staged), -ESTALE);
    ck_assert_int_eq(remote_manifest_catch_up(&one.place, one.m, &one.db, &found), -EIDRM);
    ck_assert(found.foreign);
    ck_assert_uint_gt(strlen(found.foreign_host), 0);
    // And when all has gone, his record goes, too.
    ck_assert_int_eq(destroy(), 0);
    ck_assert_int_eq(remote_manifest_publish(&one.place, &staged), 0);
    ck_assert_int_eq(
        remote_manifest_check_ground(&one.place, staged.header.sequence, &staged.hash), -EIDRM);
    ck_assert_uint_eq(objects(), 0);
    free(uploads);
    remote_staged_free(&staged);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("remote_destroy");
#define ADD(t) unit_add_with(s, #t, t, setup, teardown, 120)
    ADD(who_holds_a_volume_keeps_it);
    ADD(pin_of_a_fork_that_was_never_made_counts_for_a_day);
    ADD(pin_that_comes_just_before_the_mark_counts);
    ADD(failing_at_any_request_leaves_all_or_nothing_usable);
    ADD(stalled_owner_publishes_nothing_into_the_void);
    return unit_run(s);
}
