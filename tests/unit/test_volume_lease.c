// SPDX-License-Identifier: Apache-2.0
// What an owner pays for its lease, and what the lease is good for, over a month of a clock that
// the test keeps.
#include "remote_world.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "volume/volume_lease.h"

#define SECOND_MS 1000ull
#define HOUR_MS   (3600 * SECOND_MS)
#define MONTH_MS  (30 * 24 * HOUR_MS)
#define TTL_MS    (60 * SECOND_MS)

static struct world world;
static struct root owner, other;

static void
setup(void)
{
    world_open(&world);
    root_open(&owner, &world, "owner", 1);
    root_open(&other, &world, "other", 2);
    root_begin(&owner);
    root_fold(&owner, 0);
    ck_assert_int_eq(root_publish(&owner), 0);
}

static void
teardown(void)
{
    root_close(&owner);
    root_close(&other);
    world_close(&world);
}

// The owner with its clock, and what others see of its lease.
struct life {
    struct volume_lease lease;
    uint64_t now_ms, activity;
    uint64_t good_until_ms; // by what stands in the store
    uint64_t least_left_ms;
    uint64_t looks;
};

static void
begin(struct life *l)
{
    *l = (struct life){.good_until_ms = TTL_MS, .least_left_ms = UINT64_MAX};
    volume_lease_begin(&l->lease, TTL_MS, l->activity, l->now_ms);
}

static uint64_t
ttl_in_store(void)
{
    BUFFER_AUTO text = {0};
    world_read(&world, "lease-", owner.db.epoch, &text);
    const char *line = strstr(buffer_string(&text), "\nttl_ms ");
    ck_assert_ptr_nonnull(line);
    return strtoull(line + 8, NULL, 10);
}

// A second passes.
static void
beat(struct life *l)
{
    l->now_ms += SECOND_MS;
    uint64_t left = l->good_until_ms > l->now_ms ? l->good_until_ms - l->now_ms : 0;
    l->least_left_ms = left < l->least_left_ms ? left : l->least_left_ms;
    if (!volume_lease_is_due(&l->lease, l->activity, l->now_ms))
        return;
    uint64_t puts = fault_store_calls(world.faults, STORE_VERB_PUT);
    int rc = volume_lease_renew(&l->lease, &owner.place, &owner.db, l->activity, l->now_ms);
    ck_assert_uint_eq(fault_store_calls(world.faults, STORE_VERB_PUT), puts + 1);
    l->looks += rc == 1;
    if (rc >= 0)
        l->good_until_ms = l->now_ms + ttl_in_store();
}

static void
pass(struct life *l, uint64_t ms)
{
    for (uint64_t end = l->now_ms + ms; l->now_ms < end;)
        beat(l);
}

START_TEST(an_idle_month_costs_few_requests_and_the_lease_is_always_fresh)
{
    struct life l;
    begin(&l);
    uint64_t calls = fault_store_calls(world.faults, STORE_VERB_ANY);
    pass(&l, MONTH_MS);
    calls = fault_store_calls(world.faults, STORE_VERB_ANY) - calls;
    // A look at the chain is 13 requests at most: two listings, a GET, ten HEADs.
    uint64_t price = calls + l.looks * 13;
    printf("%" PRIu64 " requests, %" PRIu64 " looks: %" PRIu64 "\n", calls, l.looks, price);
    ck_assert_uint_le(price, 5000);
    ck_assert_uint_ge(l.looks, 29);
    ck_assert_uint_ge(l.least_left_ms, TTL_MS / 2);
    ck_assert_uint_eq(ttl_in_store(), VOLUME_LEASE_IDLE_MS);
}
END_TEST

START_TEST(a_volume_in_use_has_a_short_lease)
{
    struct life l;
    begin(&l);
    pass(&l, 5 * HOUR_MS);
    ck_assert_uint_eq(ttl_in_store(), VOLUME_LEASE_IDLE_MS);
    // At the first beat after a change; then each third of the ttl.
    l.activity++;
    beat(&l);
    ck_assert_uint_eq(ttl_in_store(), TTL_MS);
    uint64_t calls = fault_store_calls(world.faults, STORE_VERB_ANY);
    for (int i = 0; i < 600; i++) {
        l.activity++;
        beat(&l);
    }
    ck_assert_uint_eq(fault_store_calls(world.faults, STORE_VERB_ANY) - calls, 2 * 30);
    ck_assert_uint_eq(ttl_in_store(), TTL_MS);
    ck_assert_uint_ge(l.least_left_ms, TTL_MS / 2);
    pass(&l, 2 * TTL_MS);
    ck_assert_uint_eq(ttl_in_store(), VOLUME_LEASE_IDLE_MS);
}
END_TEST

START_TEST(an_outage_is_waited_for_at_the_short_beat)
{
    struct life l;
    begin(&l);
    pass(&l, HOUR_MS);
    fault_store_set_outage(world.faults, true);
    uint64_t calls = fault_store_calls(world.faults, STORE_VERB_ANY);
    for (int i = 0; i < 1200; i++) {
        l.activity++; // a busy one does not ask at each beat
        beat(&l);
    }
    ck_assert_uint_le(fault_store_calls(world.faults, STORE_VERB_ANY) - calls, 61);
    fault_store_set_outage(world.faults, false);
    pass(&l, TTL_MS / 3);
    ck_assert_uint_gt(l.least_left_ms, 0);
    ck_assert_uint_gt(l.good_until_ms, l.now_ms);
}
END_TEST

static void
age_lease(uint64_t age_ms)
{
    char *path = world_path(&world, "lease-", owner.db.epoch);
    uint64_t then = clock_wall_ms() - age_ms;
    struct timespec times[2] = {
        {.tv_sec = (time_t)(then / 1000)}, {.tv_sec = (time_t)(then / 1000)}};
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
    free(path);
}

START_TEST(an_idle_owner_is_displaced_only_when_asked_and_finds_out_when_it_works)
{
    struct life l;
    begin(&l);
    pass(&l, HOUR_MS);
    root_import(&other);
    // As old as the lease of an idle owner gets, and a little older than it may be.
    age_lease(VOLUME_LEASE_IDLE_MS / 2 + TTL_MS);
    ck_assert_int_eq(root_claim(&other, false, NULL), -EBUSY);
    age_lease(VOLUME_LEASE_IDLE_MS - TTL_MS);
    ck_assert_int_eq(root_claim(&other, false, NULL), -EBUSY);
    ck_assert_int_eq(root_claim(&other, true, NULL), 0);
    uint64_t looks = l.looks;
    beat(&l);
    ck_assert_uint_eq(l.looks, looks); // nothing to lose
    l.activity++;
    beat(&l);
    ck_assert_uint_eq(l.looks, looks + 1);
}
END_TEST

START_TEST(a_dead_idle_owner_keeps_others_away_for_an_hour)
{
    struct life l;
    begin(&l);
    pass(&l, HOUR_MS);
    root_import(&other);
    age_lease(VOLUME_LEASE_IDLE_MS + TTL_MS);
    ck_assert_int_eq(root_claim(&other, false, NULL), 0);
}
END_TEST

START_TEST(an_idle_owner_notices_that_its_record_is_gone)
{
    struct life l;
    begin(&l);
    pass(&l, HOUR_MS);
    ck_assert_uint_eq(l.looks, 0);
    char *path = world_path(&world, "record-", owner.db.remote_sequence);
    ck_assert_int_eq(unlink(path), 0);
    free(path);
    pass(&l, HOUR_MS);
    ck_assert_uint_ge(l.looks, 1);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_lease");
#define ADD(t) unit_add_with(s, #t, t, setup, teardown, 120)
    ADD(an_idle_month_costs_few_requests_and_the_lease_is_always_fresh);
    ADD(a_volume_in_use_has_a_short_lease);
    ADD(an_outage_is_waited_for_at_the_short_beat);
    ADD(an_idle_owner_is_displaced_only_when_asked_and_finds_out_when_it_works);
    ADD(a_dead_idle_owner_keeps_others_away_for_an_hour);
    ADD(an_idle_owner_notices_that_its_record_is_gone);
#undef ADD
    return unit_run(s);
}
