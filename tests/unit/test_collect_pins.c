// SPDX-License-Identifier: Apache-2.0
// CheckpointGC beside hosts that pin, step by step.
#include "remote_content.h"
#include "retention/collect.h"
#include "retention/verify.h"

#include <string.h>

#include "platform/clock.h"

#define HOUR_MS ((uint64_t)3600 * 1000)

static struct world world;
static struct root owner, reader;

static void
publish(void)
{
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
    content_fold(&owner);
    ck_assert_int_eq(remote_manifest_stage_generation(
                         &owner.place, owner.m, owner.db.id, &staged, &uploads, &count),
        0);
    ck_assert_int_eq(content_upload(&world, uploads, count), 0);
    ck_assert_int_eq(remote_manifest_publish(&owner.place, &staged), 0);
    ck_assert_int_eq(remote_manifest_record_publication(
                         &owner.place, owner.m, owner.db.id, &staged, uploads, count, 0),
        0);
    ck_assert_int_eq(manifest_find_db(owner.m, "main", "acme", 1, &owner.db), 0);
    free(uploads);
    remote_staged_free(&staged);
}

static void
setup(void)
{
    content_begin(7);
    world_open(&world);
    root_open(&owner, &world, "owner", 1);
    root_open(&reader, &world, "reader", 2);
    root_begin(&owner);
    struct change c = {.kind = CHANGE_PUT_RETENTION, .retention = {.grace_ms = HOUR_MS}};
    ck_assert_int_eq(remote_manifest_tell(&owner.place, owner.m, owner.db.id, &c, 1, 0), 0);
    publish();
    publish();
}

static void
teardown(void)
{
    root_close(&owner);
    root_close(&reader);
    world_close(&world);
}

static int
collect(struct collect_options o, struct collect_result *result_out)
{
    o.place = &owner.place;
    o.manifest = owner.m;
    o.db = owner.db.id;
    return collect_run(&o, result_out);
}

static unsigned
state_of(uint64_t generation)
{
    struct remote_generations g;
    ck_assert_int_eq(remote_generations_read(&reader.place, &g), 0);
    const struct generation_record *found =
        remote_generations_find(&g, (struct generation){generation});
    unsigned state = found ? found->state : 0;
    remote_generations_free(&g);
    return state;
}

static const struct remote_pin pin = {.kind = PIN_SNAPSHOT, .generation = {1}, .name = "kept"};

// Another host pins the generation between the decision of the run and the record that tells it,
// finds it retained, and relies on it.
static void
pin_it(void *argument, const struct collect_event *event)
{
    bool *pinned = argument;
    if (event->kind != COLLECT_EXPIRE || *pinned)
        return;
    ck_assert_int_eq(remote_pin_put(&reader.place, &pin), 0);
    ck_assert_int_eq(state_of(1), GENERATION_RETAINED);
    *pinned = true;
}

START_TEST(pin_that_was_accepted_in_the_middle_of_a_run_brings_the_generation_back)
{
    struct collect_result result;
    bool pinned = false;
    uint64_t now_ms = clock_wall_ms() - 1000; // the run has begun a second ago
    ck_assert_int_eq(
        collect((struct collect_options){.event = pin_it, .argument = &pinned, .now_ms = now_ms},
            &result),
        0);
    ck_assert(pinned);
    ck_assert_uint_eq(result.expired_now, 1);
    ck_assert_int_eq(state_of(1), GENERATION_EXPIRED);
    ck_assert_int_eq(collect((struct collect_options){.now_ms = now_ms + 1000}, &result), 0);
    ck_assert_uint_eq(result.brought_back, 1);
    ck_assert_int_eq(state_of(1), GENERATION_RETAINED);
}
END_TEST

// The expiry counts from a time in the future, so that its grace is over later, too.
START_TEST(nothing_is_deleted_before_the_grace_is_over)
{
    struct collect_result result;
    uint64_t now_ms = clock_wall_ms();
    ck_assert_int_eq(collect((struct collect_options){.now_ms = now_ms}, &result), 0);
    ck_assert_int_eq(collect((struct collect_options){.now_ms = now_ms + HOUR_MS}, &result), 0);
    ck_assert_uint_eq(result.freed, 0);
    ck_assert_int_eq(
        collect((struct collect_options){.now_ms = now_ms + HOUR_MS + HOUR_MS / 6}, &result), 0);
    ck_assert_uint_eq(result.freed, 1);
}
END_TEST

START_TEST(record_that_may_still_come_to_be_gets_no_place)
{
    struct collect_result result;
    const struct store_fault fault = {.verb = STORE_VERB_PUT,
        .nth = 1,
        .times = 1,
        .error = -ETIMEDOUT,
        .key_prefix = "manifests/acme/1/record-"};
    fault_store_add(world.faults, &fault);
    ck_assert_int_lt(collect((struct collect_options){0}, &result), 0);
    ck_assert(result.unsure);
    size_t records = world_count(&world, "record-");
    // Two records: one in the place of the lost one, and its own.
    ck_assert_int_eq(collect((struct collect_options){.unsure = true}, &result), 0);
    ck_assert(!result.unsure);
    ck_assert_uint_eq(world_count(&world, "record-"), records + 2);
    ck_assert_int_eq(collect((struct collect_options){0}, &result), 0);
    ck_assert_uint_eq(world_count(&world, "record-"), records + 2);
}
END_TEST

// ---- verifying beside a run ---------------------------------------------------------------------

struct beside {
    uint64_t now_ms;
    unsigned damaged; // damaged objects of generation 1 that were told
};

// The owner lets the generation expire, and deletes it, while the verification is about to look at
// it.
static int
collect_meanwhile(void *argument, const char *what, uint64_t done UNUSED, uint64_t total UNUSED)
{
    struct beside *b = argument;
    struct collect_result result;
    if (strcmp(what, "generations") != 0)
        return 0;
    for (unsigned i = 0; i < 2; i++, b->now_ms += 2 * HOUR_MS)
        ck_assert_int_eq(collect((struct collect_options){.now_ms = b->now_ms}, &result), 0);
    return 0;
}

// The blobs of this test have other sizes than the manifest tells, so generation 2 is damaged.
static int
note_damage(void *argument, struct generation generation, const struct verify_result *result)
{
    struct beside *b = argument;
    if (generation.v == 1)
        b->damaged += (unsigned)result->damaged;
    return 0;
}

START_TEST(generation_that_goes_while_it_is_verified_is_not_damaged)
{
    struct verify_result result;
    struct beside b = {.now_ms = clock_wall_ms()};
    const struct verify_options options = {.place = &reader.place,
        .manifest = reader.m,
        .looked = note_damage,
        .progress = collect_meanwhile,
        .argument = &b};
    ck_assert_int_eq(verify_run(&options, &result), 0);
    ck_assert_uint_eq(b.damaged, 0);
    for (const struct verify_damage *d = result.damages; d; d = d->next)
        ck_assert_uint_eq(d->generations[0].v, 2);
    verify_result_free(&result);
    ck_assert_int_eq(state_of(1), 0);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("collect_pins");
#define ADD(t) unit_add_with(s, #t, t, setup, teardown, 60)
    ADD(pin_that_was_accepted_in_the_middle_of_a_run_brings_the_generation_back);
    ADD(nothing_is_deleted_before_the_grace_is_over);
    ADD(generation_that_goes_while_it_is_verified_is_not_damaged);
    ADD(record_that_may_still_come_to_be_gets_no_place);
    return unit_run(s);
}
