// SPDX-License-Identifier: Apache-2.0
// A mount of an old generation reads on through the expiry of the generation and the deletion of
// its blobs for as long as its pin counts. After that its reads give the right bytes, or fail.
#include "volume_world.h"

#include <fcntl.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "remote/remote_retention.h"
#include "retention/collect.h"
#include "volume/volume_internal.h"

#define HOUR_MS    ((uint64_t)3600 * 1000)
#define FILE_BYTES (4u << 20)
#define PIECE      (64u << 10)

static struct volume_world owner, reader;
static struct object_id file;

static void
setup(void)
{
    volume_world_new(&owner);
    volume_world_open(&owner);
    file = volume_world_make_file(owner.v, "file");
    volume_world_fill(owner.v, file, 0, FILE_BYTES, 1);
    (void)volume_world_publish(owner.v);
    volume_world_fill(owner.v, file, 0, FILE_BYTES, 2);
    (void)volume_world_publish(owner.v);
    struct change c = {.kind = CHANGE_PUT_RETENTION, .retention = {.grace_ms = HOUR_MS}};
    ck_assert_int_eq(
        remote_manifest_tell(&owner.v->place, owner.v->manifest, owner.v->db, &c, 1, 0), 0);
    volume_world_join(&reader, owner.directory);
    volume_world_set_root(&reader, "reader");
    reader.config.read_only = true;
    reader.config.at = memory_string("1");
    volume_world_open(&reader);
}

static void
teardown(void)
{
    volume_world_close(&reader);
    volume_world_leave(&reader);
    volume_world_free(&owner);
}

static struct collect_result
collect(uint64_t ahead_ms)
{
    struct collect_result result;
    const struct collect_options options = {
        .place = &owner.v->place,
        .manifest = owner.v->manifest,
        .db = owner.v->db,
        .now_ms = clock_wall_ms() + ahead_ms,
    };
    ck_assert_int_eq(collect_run(&options, &result), 0);
    return result;
}

START_TEST(pinned_generation_is_read_through_expiry_and_deletion)
{
    volume_world_expect(reader.v, file, 0, PIECE, 1);
    ck_assert_uint_eq(volume_world_age_objects(&owner, "pins/acme/1", 0), 1);
    // The policy keeps the newest generation alone.
    for (unsigned hours = 0; hours < 4; hours++) {
        struct collect_result result = collect(hours * HOUR_MS);
        ck_assert_uint_eq(result.pins, 1);
        ck_assert_uint_eq(result.freed, 0);
        volume_world_expect(reader.v, file, (hours + 1) * PIECE, PIECE, 1);
    }
    volume_world_expect(reader.v, file, 0, FILE_BYTES, 1);
}
END_TEST

START_TEST(after_its_pin_has_run_out_a_reader_fails_and_reads_nothing_wrong)
{
    unsigned failed = 0;
    CLEANUP(memory_free_auto) uint8_t *got = memory_alloc(PIECE);
    volume_world_expect(reader.v, file, 0, PIECE, 1);
    // The reader could not renew its pin for two hours.
    ck_assert_uint_eq(volume_world_age_objects(&owner, "pins/acme/1", 2 * 3600), 1);
    ck_assert_uint_eq(collect(0).expired_now, 1);
    ck_assert_uint_eq(volume_world_age_objects(&owner, "pins/acme/1", 0), 0);
    // In the grace it reads on.
    volume_world_expect(reader.v, file, PIECE, PIECE, 1);
    ck_assert_uint_eq(collect(2 * HOUR_MS).freed, 1);
    for (uint64_t at = 0; at < FILE_BYTES; at += PIECE) {
        int64_t n = volume_read(reader.v, file, at, PIECE, got, NULL);
        ck_assert(n < 0 || n == PIECE);
        failed += n < 0;
        if (n == PIECE)
            volume_world_expect(reader.v, file, at, PIECE, 1);
    }
    ck_assert_uint_gt(failed, 0);
    // The owner is none the worse for it.
    volume_world_expect(owner.v, file, 0, FILE_BYTES, 2);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_readers");
#define ADD(t) unit_add_with(s, #t, t, setup, teardown, 60)
    ADD(pinned_generation_is_read_through_expiry_and_deletion);
    ADD(after_its_pin_has_run_out_a_reader_fails_and_reads_nothing_wrong);
    return unit_run(s);
}
