// SPDX-License-Identifier: Apache-2.0
// A volume whose storage quota is full: checkpoints go on, and nothing is lost.
#include "volume_world.h"

#include <glob.h>
#include <signal.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "quota/quota_file.h"
#include "volume/volume_internal.h"

#define MIB        (UINT64_C(1) << 20)
#define FILES      5u
#define FILE_BYTES (4u << 20)

// A log that holds all that the test writes, and no pressure to fold it.
static void
world_new(struct volume_world *w)
{
    volume_world_new(w);
    w->config.wal_limit_bytes = 96u << 20;
    w->config.page_cache_bytes = 64u << 20;
}

static void
write_files(struct volume *v, uint64_t seed)
{
    char name[16];
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        volume_world_fill(v, volume_world_make_file(v, name), 0, FILE_BYTES, seed + i);
    }
    ck_assert_int_eq(volume_world_sync(v), 0);
}

static void
expect_files(struct volume *v, uint64_t seed)
{
    char name[16];
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        volume_world_expect(v, volume_world_find(v, name), 0, FILE_BYTES, seed + i);
    }
}

// All but the last file, and one page of that.
static void
expect_rewritten(struct volume *v)
{
    char name[16];
    for (unsigned i = 0; i < FILES - 1; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        volume_world_expect(v, volume_world_find(v, name), 0, FILE_BYTES, 70 + i);
    }
    struct object_id last = volume_world_find(v, "f4");
    volume_world_expect(v, last, 0, PAGE_BYTES, 74);
    volume_world_expect(v, last, PAGE_BYTES, FILE_BYTES - PAGE_BYTES, 7 + FILES - 1);
}

static struct storage_quota_numbers
numbers_of(const struct volume *v)
{
    struct storage_quota_numbers n;
    storage_quota_numbers(v->quota, &n);
    return n;
}

// Leaves no room at all: the volume may take what it has.
static void
fill_quota(struct volume *v)
{
    storage_quota_set_limit(v->quota, numbers_of(v).used);
}

START_TEST(a_log_without_room_for_its_checkpoint_goes_to_the_store_in_parts)
{
    struct volume_world w;
    world_new(&w);
    volume_world_open(&w);
    write_files(w.v, 7);
    fill_quota(w.v);
    uint64_t before = numbers_of(w.v).blobs;
    volume_world_fold(w.v);
    // The images are in the store only.
    ck_assert_uint_lt(numbers_of(w.v).blobs, before + MIB);
    storage_quota_set_limit(w.v->quota, 0);
    expect_files(w.v, 7);
    // What dies before it is published is told and buried as other blobs are.
    for (unsigned i = 0; i < FILES - 1; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%u", i);
        volume_world_fill(w.v, volume_world_find(w.v, name), 0, FILE_BYTES, 70 + i);
    }
    volume_world_fill(w.v, volume_world_find(w.v, "f4"), 0, PAGE_BYTES, 74);
    volume_world_fold(w.v);
    volume_world_publish(w.v);
    expect_rewritten(w.v);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    expect_rewritten(w.v);
    volume_world_free(&w);
}
END_TEST

static struct volume_world *dying;

static bool
has_part(void)
{
    CLEANUP(memory_free_auto)
    char *pattern = memory_printf("%s/store/checkpoints/acme/1/*/pack-*.blob", dying->directory);
    glob_t found;
    bool has = glob(pattern, 0, NULL, &found) == 0;
    globfree(&found);
    return has;
}

static void
ignore(void *argument UNUSED, int result UNUSED, struct generation generation UNUSED)
{
}

// Dies while the second part waits for the store.
static void
die_in_parts(struct volume *v)
{
    write_files(v, 7);
    fill_quota(v);
    volume_world_set_faults(dying, "slow 60");
    checkpoint_request(v->checkpoint, CHECKPOINT_REQUEST_PUBLISH, ignore, NULL);
    while (!has_part())
        clock_sleep_ms(5);
    raise(SIGKILL);
}

START_TEST(a_death_between_two_parts_loses_nothing)
{
    struct volume_world w;
    world_new(&w);
    volume_world_script_faults(&w);
    dying = &w;
    volume_world_die_after(&w, die_in_parts);
    volume_world_set_faults(&w, "");
    volume_world_open(&w);
    expect_files(w.v, 7);
    uint64_t log;
    uint64_t blobs;
    quota_count_place(w.root, "db/1", &log, &blobs);
    ck_assert_uint_eq(numbers_of(w.v).used, log + blobs);
    volume_world_publish(w.v);
    expect_files(w.v, 7);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_quota");
    unit_add(s, "a_log_without_room_for_its_checkpoint_goes_to_the_store_in_parts",
        a_log_without_room_for_its_checkpoint_goes_to_the_store_in_parts, 60);
    unit_add(
        s, "a_death_between_two_parts_loses_nothing", a_death_between_two_parts_loses_nothing, 60);
    return unit_run(s);
}
