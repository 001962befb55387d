// SPDX-License-Identifier: Apache-2.0
// Commits of the manifest that fail: what passes is mended and loses nothing, what stays turns the
// volume read-only.
#include "manifest_disk.h"
#include "manifest_fixture.h"
#include "volume_world.h"

#include "manifest/manifest_internal.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

#define REG      (S_IFREG | 0600)
#define OBJECTS  24u
#define DEADLINE 20000u // ms; a hang, as things go here

// ---- the manifest -------------------------------------------------------------------------------

static struct fixture
durable_fixture(void)
{
    CLEANUP(memory_free_auto) char *directory = unit_directory_new();
    struct fixture f = {.directory = memory_printf("%s/manifest", directory)};
    struct manifest_options options = {0};
    ck_assert_int_eq(manifest_open(f.directory, &options, &f.manifest), 0);
    f.db = fixture_create_db(&f, 1);
    return f;
}

static void
durable_free(struct fixture *f)
{
    manifest_close(f->manifest);
    *strrchr(f->directory, '/') = 0;
    unit_directory_remove(f->directory);
}

static int
submit(struct fixture *f, uint64_t object, uint64_t version)
{
    static const uint8_t value[XATTR_VALUE_BYTES_MAX];
    struct change c[] = {sample_inode(object, REG, 0, version),
        sample_xattr(object, "user.x", value, (uint32_t)(hash_u64(version) % 20000))};
    return submit_changes(f->manifest, f->db, c, ARRAY_LENGTH(c), 1, RESIDENCY_LOCAL, NULL);
}

static uint64_t
version_of(struct fixture *f, uint64_t object)
{
    struct inode_record inode;
    struct manifest_reader *r = reader_of(f);
    int rc = manifest_read_inode(r, f->db, (struct object_id){object}, &inode);
    manifest_read_end(r);
    ck_assert(rc == 0 || rc == -ENOENT);
    return rc == 0 ? inode.size : 0;
}

struct fault {
    const char *name;
    int flushes, metas;
    bool arrives;
    int error;
};

static const struct fault passing[] = {
    {"one flush", 1, 0, false, EIO},
    {"two flushes", 2, 0, false, EIO},
    {"a meta page", 0, 1, false, EIO},
    {"a meta page that arrives", 0, 1, true, EIO},
    {"a meta page and a flush", 1, 1, true, EIO},
    {"a meta page without room", 0, 1, true, ENOSPC},
};

static const struct fault staying[] = {
    {"all flushes", DISK_ALWAYS, 0, false, EIO},
    {"all meta pages", 0, DISK_ALWAYS, false, EIO},
    {"all meta pages, which arrive", 0, DISK_ALWAYS, true, EIO},
    {"everything", DISK_ALWAYS, DISK_ALWAYS, true, EIO},
};

static void
inject(const struct fault *fault)
{
    disk_fail(fault->flushes, fault->metas, fault->arrives, fault->error);
}

static void
heal(void)
{
    disk_fail(0, 0, false, EIO);
}

START_TEST(a_failure_that_passes_is_not_seen)
{
    struct fixture f = durable_fixture();
    for (size_t i = 0; i < ARRAY_LENGTH(passing); i++) {
        inject(&passing[i]);
        int rc = submit(&f, 2 + i, 100 + i);
        ck_assert_msg(rc == 0, "%s: %d", passing[i].name, rc);
        ck_assert_uint_ge(disk_failed(), 1);
        heal();
        ck_assert(!manifest_is_lost(f.manifest));
        ck_assert_int_eq(submit(&f, 50 + i, 200 + i), 0);
        for (size_t k = 0; k <= i; k++)
            ck_assert_uint_eq(version_of(&f, 2 + k), 100 + k);
        ck_assert_int_eq(manifest_check(f.manifest, f.db), 0);
    }
    durable_free(&f);
}
END_TEST

START_TEST(a_failure_that_stays_is_told_soon)
{
    for (size_t i = 0; i < ARRAY_LENGTH(staying); i++) {
        struct fixture f = durable_fixture();
        struct manifest_options options = {0};
        ck_assert_int_eq(submit(&f, 2, 7), 0);
        uint64_t began = clock_monotonic_ms();
        inject(&staying[i]);
        ck_assert_int_eq(submit(&f, 2, 8), -EIO);
        ck_assert_uint_lt(clock_monotonic_ms() - began, DEADLINE);
        ck_assert(manifest_is_lost(f.manifest));
        heal();
        // What is there can be read, and nothing is written.
        ck_assert_uint_eq(version_of(&f, 2), 7);
        ck_assert_int_eq(submit(&f, 3, 9), -EIO);
        manifest_close(f.manifest);
        ck_assert_int_eq(manifest_open(f.directory, &options, &f.manifest), 0);
        ck_assert_uint_eq(version_of(&f, 2), 7);
        ck_assert_int_eq(submit(&f, 2, 10), 0);
        ck_assert_int_eq(manifest_check(f.manifest, f.db), 0);
        durable_free(&f);
    }
}
END_TEST

// Readers that have a transaction are waited for; those that come later wait, or go on.
START_TEST(readers_are_served_while_it_is_mended)
{
    struct fixture f = durable_fixture();
    ck_assert_int_eq(submit(&f, 2, 7), 0);
    struct manifest_reader *r = reader_of(&f);
    inject(&passing[3]);
    // The reader does not end, so the environment cannot be opened again.
    ck_assert_int_eq(submit(&f, 2, 8), -EIO);
    struct inode_record inode;
    ck_assert_int_eq(manifest_read_inode(r, f.db, (struct object_id){2}, &inode), 0);
    ck_assert_uint_eq(inode.size, 7);
    manifest_read_end(r);
    heal();
    durable_free(&f);
}
END_TEST

// What the disk has after a loss of power: every version that was acknowledged, and of the object
// that was being changed the old one or the new one.
static void
check_lost(const uint64_t *acknowledged, uint64_t object, uint64_t version)
{
    char *directory = unit_directory_new();
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/data.mdb", directory);
    struct fixture g = {.directory = directory, .db = {1}};
    ck_assert_int_eq(
        file_replace_whole(&file_ops_system, path, disk.lost, disk.lost_size, 0600), 0);
    fixture_open(&g, 0);
    for (uint64_t i = 2; i < OBJECTS; i++) {
        uint64_t found = version_of(&g, i);
        ck_assert_msg(found == acknowledged[i] || (i == object && found == version),
            "object %d has version %d, not %d", (int)i, (int)found, (int)acknowledged[i]);
    }
    ck_assert_int_eq(manifest_check(g.manifest, g.db), 0);
    manifest_close(g.manifest);
    unit_directory_remove(directory);
    free(disk.lost);
    disk.lost = NULL;
}

// A commit fails for good, and a new process opens what is there. What it commits lies where the
// failed commit lay, which may be on the disk.
static void
give_up_and_open(struct fixture *f, uint64_t object, uint64_t acknowledged)
{
    struct manifest_options options = {0};
    inject(&staying[2 + disk_chance(2)]);
    ck_assert_int_eq(submit(f, object, 1000000), -EIO);
    heal();
    free(disk.lost); // a moment at which either is right
    disk.lost = NULL;
    manifest_close(f->manifest);
    ck_assert_int_eq(manifest_open(f->directory, &options, &f->manifest), 0);
    ck_assert_uint_eq(version_of(f, object), acknowledged);
    free(disk.lost);
    disk.lost = NULL;
}

START_TEST(no_loss_of_power_brings_back_what_failed)
{
    struct fixture f = durable_fixture();
    uint64_t acknowledged[OBJECTS] = {0};
    unsigned crashes = 0;
    disk.random = test_seed("commit_faults");
    disk.durable = calloc(DISK_PAGES, DISK_PAGE);
    ck_assert_uint_eq(f.db.v, 1);
    BUFFER_AUTO file = {0};
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/data.mdb", f.directory);
    ck_assert_int_eq(file_read_whole(path, (size_t)DISK_PAGES * DISK_PAGE, &file), 0);
    memcpy(disk.durable, file.data, file.length);
    disk.track = true;
    for (uint64_t version = 1; version <= 250; version++) {
        uint64_t object = 2 + disk_chance(OBJECTS - 2);
        if (version % 50 == 25)
            give_up_and_open(
                &f, 2 + version % (OBJECTS - 2), acknowledged[2 + version % (OBJECTS - 2)]);
        if (disk_chance(4) == 0)
            inject(&passing[disk_chance(ARRAY_LENGTH(passing))]);
        ck_assert_int_eq(submit(&f, object, version), 0);
        heal();
        if (disk.lost) {
            crashes++;
            check_lost(acknowledged, object, version);
        }
        acknowledged[object] = version;
    }
    disk.track = false;
    ck_assert_uint_gt(crashes, 20);
    ck_assert_int_eq(manifest_check(f.manifest, f.db), 0);
    free(disk.durable);
    durable_free(&f);
}
END_TEST

// ---- volumes ------------------------------------------------------------------------------------

static bool
is_read_only(struct volume *v)
{
    struct volume_status s;
    volume_status(v, &s);
    ck_assert(!s.metrics.read_only || strstr(s.read_only_reason, "the manifest cannot be written"));
    return s.metrics.read_only;
}

static void
wait_until_read_only(struct volume *v)
{
    uint64_t began = clock_monotonic_ms();
    while (!is_read_only(v)) {
        ck_assert_uint_lt(clock_monotonic_ms() - began, DEADLINE);
        clock_sleep_ms(10);
    }
}

START_TEST(a_volume_goes_on_after_a_failure_that_passes)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    for (size_t i = 0; i < ARRAY_LENGTH(passing); i++) {
        volume_world_fill(w.v, a, 0, 300000, i);
        inject(&passing[i]);
        volume_world_fold(w.v);
        ck_assert_uint_ge(disk_failed(), 1);
        // The next one meets the commit that notes the publication, among others.
        inject(&passing[i]);
        volume_world_publish(w.v);
        heal();
        ck_assert(!is_read_only(w.v));
        volume_world_expect(w.v, a, 0, 300000, i);
    }
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_open(&w);
    volume_world_expect(w.v, a, 0, 300000, ARRAY_LENGTH(passing) - 1);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    volume_world_expect(w.v, a, 0, 300000, ARRAY_LENGTH(passing) - 1);
    volume_world_free(&w);
}
END_TEST

static void
fold_with_failures_and_write(struct volume *v)
{
    struct object_id a = volume_world_find(v, "a");
    for (size_t i = 0; i < ARRAY_LENGTH(passing); i++) {
        volume_world_fill(v, a, 0, 300000, i);
        inject(&passing[i]);
        volume_world_fold(v);
    }
    volume_world_fill(v, a, 0, 300000, 77);
    ck_assert_int_eq(volume_world_sync(v), 0);
}

START_TEST(a_volume_killed_after_a_failure_loses_nothing)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    volume_world_make_file(w.v, "a");
    volume_world_close(&w);
    volume_world_die_after(&w, fold_with_failures_and_write);
    volume_world_open(&w);
    volume_world_expect(w.v, volume_world_find(w.v, "a"), 0, 300000, 77);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_volume_is_read_only_after_a_failure_that_stays)
{
    struct volume_world w;
    volume_world_new(&w);
    for (size_t i = 0; i < ARRAY_LENGTH(staying); i++) {
        volume_world_open(&w);
        struct object_id a =
            i == 0 ? volume_world_make_file(w.v, "a") : volume_world_find(w.v, "a");
        volume_world_publish(w.v);
        volume_world_fill(w.v, a, 0, 300000, i);
        ck_assert_int_eq(volume_world_sync(w.v), 0);
        inject(&staying[i]);
        struct generation none;
        ck_assert_int_eq(volume_world_checkpoint(w.v, 0, &none), -EIO);
        wait_until_read_only(w.v);
        ck_assert_int_eq(volume_write(w.v, a, 0, (const uint8_t *)"late", 4, 0), -EROFS);
        volume_world_expect(w.v, a, 0, 300000, i);
        ck_assert_int_lt(volume_world_try_close(&w), 0);
        heal();
        volume_world_open(&w);
        volume_world_expect(w.v, a, 0, 300000, i);
        volume_world_publish(w.v);
        volume_world_close(&w);
        volume_world_check(&w);
    }
    volume_world_free(&w);
}
END_TEST

// Folds fail, and the log is full: whoever writes is told within seconds.
START_TEST(a_writer_without_room_learns_of_a_failing_disk)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_publish(w.v);
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc_zero(1u << 20);
    inject(&staying[0]);
    uint64_t began = clock_monotonic_ms();
    int rc = 0;
    for (uint64_t i = 0; rc == 0; i++)
        rc = volume_write(w.v, a, i << 20, bytes, 1u << 20, 0);
    ck_assert_msg(rc == -EROFS || rc == -EIO, "%d", rc);
    ck_assert_uint_lt(clock_monotonic_ms() - began, DEADLINE);
    heal();
    ck_assert_int_lt(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("commit_faults");
#define ADD(test) unit_add(s, #test, test, 240)
    ADD(a_failure_that_passes_is_not_seen);
    ADD(a_failure_that_stays_is_told_soon);
    ADD(readers_are_served_while_it_is_mended);
    ADD(no_loss_of_power_brings_back_what_failed);
    ADD(a_volume_goes_on_after_a_failure_that_passes);
    ADD(a_volume_killed_after_a_failure_loses_nothing);
    ADD(a_volume_is_read_only_after_a_failure_that_stays);
    ADD(a_writer_without_room_learns_of_a_failing_disk);
    return unit_run(s);
}
