// SPDX-License-Identifier: Apache-2.0
// Random histories of one volume: content that comes, goes and comes again, publications that fail,
// whose answer is lost, or after which the process dies. Whatever happened, what the bucket says is
// the same by catalog and by records, and each blob that it names is there under its key.
#include "remote_content.h"

#include <dirent.h>
#include <inttypes.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/memory.h"
#include "platform/random.h"

#define STEPS  60u
#define ROUNDS 12u

static struct world world;
static struct root source, copy;

// ---- publishing ---------------------------------------------------------------------------------

// Folds go on while a publication is under way.
static void
maybe_fold(void)
{
    if (content_dice(3) == 0)
        content_fold(&source);
}

// One attempt, which may fail at any step: nothing is tidied up behind it.
static int
publish_some(void)
{
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
    int rc = remote_manifest_stage_generation(
        &source.place, source.m, source.db.id, &staged, &uploads, &count);
    if (rc < 0)
        return rc;
    maybe_fold();
    rc = content_upload(&world, uploads, count);
    if (rc == 0) {
        maybe_fold();
        rc = remote_manifest_publish(&source.place, &staged);
        maybe_fold();
    }
    bool dies = content_dice(4) == 0;
    if (rc == 0 && !dies)
        rc = remote_manifest_record_publication(
            &source.place, source.m, source.db.id, &staged, uploads, count, 0);
    if (rc == 0 && !dies && staged.catalog && content_dice(4) > 0)
        rc = remote_manifest_put_catalog(&source.place, source.m, source.db.id, staged.catalog);
    free(uploads);
    remote_staged_free(&staged);
    return rc;
}

static void
catch_up(void)
{
    struct remote_catch_up found;
    ck_assert_int_eq(remote_manifest_catch_up(&source.place, source.m, &source.db, &found), 0);
    ck_assert(!found.foreign);
}

static void
add_faults(void)
{
    struct store_fault f = {.nth = 1, .times = 1, .error = -EAGAIN};
    switch (content_dice(5)) {
    case 0: // the record is created, the answer lost
        f.verb = STORE_VERB_PUT;
        f.kind = STORE_FAULT_SWALLOW;
        f.key_prefix = "manifests/acme/1/record-";
        break;
    case 1:
        f.verb = STORE_VERB_PUT;
        f.nth = 1 + content_dice(3);
        break;
    case 2: // an outage from somewhere on
        f.nth = 1 + content_dice(6);
        f.times = 0;
        break;
    default:
        return;
    }
    fault_store_add(world.faults, &f);
}

// ---- what must hold -----------------------------------------------------------------------------

static int
check_blob(void *argument, const struct change *c)
{
    if (c->kind != CHANGE_PUT_BLOB)
        return 0;
    ck_assert(content_is_there(&world, &c->blob));
    *(uint64_t *)argument += 1;
    return 0;
}

// Imports the newest generation into `copy` and dumps it; checks that its blobs are there.
static void
import(struct buffer *dump_out)
{
    uint64_t blobs = 0;
    struct manifest_reader *r;
    root_import(&copy);
    root_dump(copy.m, copy.db.id, dump_out);
    ck_assert_int_eq(manifest_check(copy.m, copy.db.id), 0);
    ck_assert_int_eq(manifest_read_begin(copy.m, &r), 0);
    ck_assert_int_eq(manifest_export(r, copy.db.id, check_blob, &blobs), 0);
    manifest_read_end(r);
}

// What the records say, one after the other: each object that was born has died or is alive.
struct object_told {
    struct blob_record blob;
    bool alive;
};

static struct object_told told[STEPS * 16];
static size_t told_count;

static int
hear(void *argument UNUSED, const struct change *c)
{
    size_t i = 0;
    if (c->kind != CHANGE_PUT_BLOB)
        return 0;
    while (i < told_count && !blob_is_same_object(&told[i].blob, &c->blob))
        i++;
    // Who dies was born. (It may die twice: what came back between two records is not told.)
    ck_assert(c->blob.death.v == 0 || i < told_count);
    if (i == told_count)
        ck_assert_uint_lt(told_count++, ARRAY_LENGTH(told));
    told[i] = (struct object_told){c->blob, c->blob.death.v == 0};
    return 0;
}

static int
read_from(void *argument, uint64_t offset, void *p, size_t n)
{
    const struct buffer *b = argument;
    ck_assert(offset <= b->length && n <= b->length - offset);
    memcpy(p, b->data + offset, n);
    return 0;
}

static int
count_alive(void *argument, const struct change *c)
{
    if (c->kind != CHANGE_PUT_BLOB)
        return 0;
    for (size_t i = 0; i < told_count; i++)
        *(size_t *)argument += told[i].alive && blob_is_same_object(&told[i].blob, &c->blob);
    return 0;
}

// What the records tell alive is what `copy` has, which imported all of them.
static void
check_lives(void)
{
    size_t records = world_count(&world, "record-");
    size_t named = 0, alive = 0;
    struct manifest_reader *r;
    told_count = 0;
    for (uint64_t n = 1; n <= records; n++) {
        BUFFER_AUTO record = {0};
        world_read(&world, "record-", n, &record);
        ck_assert_int_eq(
            manifest_record_read(read_from, &record, record.length, hear, NULL, NULL), 0);
    }
    for (size_t i = 0; i < told_count; i++)
        alive += told[i].alive;
    ck_assert_int_eq(manifest_read_begin(copy.m, &r), 0);
    ck_assert_int_eq(manifest_export(r, copy.db.id, count_alive, &named), 0);
    manifest_read_end(r);
    ck_assert_uint_eq(named, alive);
    struct db_totals totals;
    ck_assert_int_eq(manifest_read_begin(copy.m, &r), 0);
    ck_assert_int_eq(manifest_read_totals(r, copy.db.id, &totals), 0);
    manifest_read_end(r);
    ck_assert_uint_eq(totals.blobs, alive);
}

static void
check_bucket(void)
{
    BUFFER_AUTO by_catalog = {0};
    BUFFER_AUTO by_records = {0};
    BUFFER_AUTO own = {0};
    struct store_fault bad = {.verb = STORE_VERB_GET, .kind = STORE_FAULT_CORRUPT, .nth = 1};
    bad.key_prefix = "manifests/acme/1/catalog-";
    fault_store_clear(world.faults);
    catch_up();
    import(&by_catalog);
    fault_store_add(world.faults, &bad);
    import(&by_records);
    check_lives();
    fault_store_clear(world.faults);
    ck_assert_uint_eq(by_catalog.length, by_records.length);
    ck_assert_int_eq(memcmp(by_catalog.data, by_records.data, by_catalog.length), 0);
    ck_assert_int_eq(manifest_check(source.m, source.db.id), 0);
    if (source.db.local.v != source.db.published.v)
        return;
    root_dump(source.m, source.db.id, &own);
    ck_assert_uint_eq(own.length, by_records.length);
    ck_assert_int_eq(memcmp(own.data, by_records.data, own.length), 0);
}

static void
write_catalog(void)
{
    int rc = remote_manifest_write_catalog(&source.place, source.m, source.db.id);
    ck_assert(rc == 0 || rc == -EAGAIN);
}

static void
begin_history(uint64_t number)
{
    content_begin(number);
    world_open(&world);
    root_open(&source, &world, "source", 1);
    root_open(&copy, &world, "copy", 2);
    root_begin(&source);
}

static void
end_history(void)
{
    root_close(&source);
    root_close(&copy);
    world_close(&world);
}

static void
run_history(uint64_t number)
{
    struct remote_lease lease;
    begin_history(number);
    for (unsigned i = 0; i < STEPS; i++) {
        if (content_dice(3) > 0)
            content_fold(&source);
        add_faults();
        int rc = publish_some();
        // -ESTALE: the place is taken by an attempt of ours. Else it may be, too: who died looks
        // first, who only lost the answer tries again.
        if (content_dice(4) == 0)
            write_catalog();
        fault_store_clear(world.faults);
        if (rc == -ESTALE || content_dice(3) == 0)
            catch_up();
        if (content_dice(8) == 0) {
            catch_up();
            ck_assert_int_eq(root_claim(&source, false, &lease), 0);
        }
        if (source.db.published.v > 0 && content_dice(3) == 0)
            write_catalog();
        if (content_dice(6) == 0)
            check_bucket();
    }
    check_bucket();
    end_history();
}

START_TEST(what_the_bucket_says_is_there_and_said_alike_by_catalog_and_records)
{
    const char *given = getenv("CKPTFS_TEST_SEED");
    uint64_t first = given ? strtoull(given, NULL, 10) : 0;
    if (!given)
        random_bytes(&first, sizeof(first));
    for (unsigned i = 0; i < ROUNDS; i++) {
        printf("CKPTFS_TEST_SEED=%" PRIu64 "\n", first + i * 2);
        fflush(stdout);
        run_history(first + i * 2);
    }
}
END_TEST

// Publishes, while another fold is done between any two steps.
static void
publish_under_load(void)
{
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
    ck_assert_int_eq(remote_manifest_stage_generation(
                         &source.place, source.m, source.db.id, &staged, &uploads, &count),
        0);
    content_fold(&source);
    ck_assert_int_eq(content_upload(&world, uploads, count), 0);
    ck_assert_int_eq(remote_manifest_publish(&source.place, &staged), 0);
    content_fold(&source);
    ck_assert_int_eq(remote_manifest_record_publication(
                         &source.place, source.m, source.db.id, &staged, uploads, count, 0),
        0);
    content_fold(&source);
    if (staged.catalog)
        ck_assert_int_eq(
            remote_manifest_put_catalog(&source.place, source.m, source.db.id, staged.catalog), 0);
    free(uploads);
    remote_staged_free(&staged);
}

START_TEST(catalogs_are_written_under_load_and_do_not_grow_with_history)
{
    begin_history(77);
    content_fold(&source);
    for (unsigned i = 0; i < 100; i++)
        publish_under_load();
    ck_assert_int_eq(manifest_find_db(source.m, source.db.place, "acme", 1, &source.db), 0);
    ck_assert(!remote_manifest_catalog_due(&source.db));
    ck_assert_uint_ge(world_count(&world, "catalog-"), 6);
    // 5 inodes, 4 chunks, a few deltas; 100 generations made hundreds of blobs.
    ck_assert_uint_lt(source.db.catalog_bytes, 6000);
    check_bucket();
    end_history();
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("remote_history");
    unit_add(s, "what_the_bucket_says_is_there_and_said_alike_by_catalog_and_records",
        what_the_bucket_says_is_there_and_said_alike_by_catalog_and_records, 300);
    unit_add(s, "catalogs_are_written_under_load_and_do_not_grow_with_history",
        catalogs_are_written_under_load_and_do_not_grow_with_history, 120);
    return unit_run(s);
}
