// SPDX-License-Identifier: Apache-2.0
// Publication and import. Ownership is in test_remote_claim.c.
#include "remote_world.h"

#include "store/blob_key.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "remote/remote_internal.h"

static struct world world;
static struct root source, copy;

static void
setup(void)
{
    world_open(&world);
    root_open(&source, &world, "source", 1);
    root_open(&copy, &world, "copy", 2);
}

static void
teardown(void)
{
    root_close(&source);
    root_close(&copy);
    world_close(&world);
}

// Publishes `n` generations; a catalog wherever one is due, and never without `catalogs`.
static void
publish_generations(unsigned n, bool catalogs)
{
    for (unsigned i = 0; i < n; i++) {
        root_fold(&source, 0);
        ck_assert_int_eq(root_publish(&source), 0);
        if (catalogs && remote_manifest_catalog_due(&source.db))
            ck_assert_int_eq(
                remote_manifest_write_catalog(&source.place, source.m, source.db.id), 0);
    }
}

// Imports `at` into a new db of `copy`, which is removed again; compares when that worked.
static int
try_import(uint64_t at, const struct buffer *expected)
{
    copy.db = root_new_db(&copy, "try");
    int rc = remote_manifest_import(&copy.place, copy.m, &copy.db, (struct generation){at});
    if (rc == 0 && expected)
        root_assert_equal(&copy, expected);
    if (rc == 0 && at)
        ck_assert_uint_eq(copy.db.published.v, at);
    if (rc < 0) {
        struct db_record found;
        ck_assert_int_eq(manifest_find_db(copy.m, "try", "acme", 1, &found), 0);
        ck_assert_int_eq(found.state, DB_STATE_IMPORTING);
    }
    ck_assert_int_eq(manifest_remove_db(copy.m, copy.db.id), 0);
    return rc;
}

START_TEST(volume_is_created_once)
{
    struct uuid volume = random_uuid(), key = random_uuid(), other = random_uuid();
    ck_assert_int_eq(remote_manifest_exists(&source.place), -ENOENT);
    ck_assert_int_eq(try_import(0, NULL), -ENOENT);
    ck_assert_int_eq(remote_manifest_create(&source.place, &volume, &key, NULL), 0);
    ck_assert_int_eq(remote_manifest_exists(&source.place), 0);
    ck_assert_int_eq(remote_manifest_create(&copy.place, &other, &key, NULL), -EEXIST);
    root_import(&source);
    ck_assert_int_eq(source.db.state, DB_STATE_READY);
    ck_assert(uuid_equal(&source.db.volume, &volume));
    ck_assert(uuid_equal(&source.db.name_key, &key));
    ck_assert_uint_eq(source.db.local.v, 0);
    ck_assert_uint_eq(source.db.published.v, 0);
    ck_assert_uint_eq(source.db.next.v, 1);
    ck_assert_uint_eq(source.db.remote_sequence, 1);
    ck_assert_uint_eq(source.db.epoch, 0);
    ck_assert_int_eq(try_import(1, NULL), -ESTALE);
}
END_TEST

START_TEST(blob_keys_are_those_of_the_design)
{
    struct blob_record blob = {.kind = BLOB_OBJECT_CHUNK, .chunk = {0xab}, .generation = {0x12}};
    sha256_of("abc", 3, &blob.hash);
    memset(blob.checkpoint_id.b, 0x77, 16);
    BUFFER_AUTO key = {0};
    blob_key("acme", 1, &blob, &key);
    ck_assert_str_eq(buffer_string(&key),
        "checkpoints/acme/77777777-7777-7777-7777-777777777777/"
        "chunk-00000000000000ab-0000000000000012-"
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad.blob");
    blob.kind = BLOB_OBJECT_DELTA;
    blob_key("acme", 1, &blob, &key);
    ck_assert_ptr_nonnull(strstr(
        buffer_string(&key), "/delta-00000000000000ab-0000000000000012-0000000000000012-ba7816bf"));
    blob.kind = BLOB_OBJECT_PACK;
    blob_key("acme", 1, &blob, &key);
    ck_assert_ptr_nonnull(strstr(buffer_string(&key), "/pack-0000000000000012-ba7816bf"));
    blob.where = BLOB_WHERE_OWN;
    blob_key("acme", 12, &blob, &key);
    ck_assert_ptr_nonnull(strstr(
        buffer_string(&key), "checkpoints/acme/12/77777777-7777-7777-7777-777777777777/pack-"));
    struct namespace_record space = {.form = BLOB_WHERE_OWN, .volume_number = 3};
    space.tenant = "parent";
    space.tenant_length = 6;
    blob.where = BLOB_WHERE_NAMED;
    blob_key_in(&space, &blob, &key);
    ck_assert_ptr_nonnull(strstr(
        buffer_string(&key), "checkpoints/parent/3/77777777-7777-7777-7777-777777777777/pack-"));
}
END_TEST

START_TEST(imported_db_equals_the_published_one)
{
    root_begin(&source);
    publish_generations(23, false);
    ck_assert_uint_eq(root_unpublished_blobs(&source), 0);
    BUFFER_AUTO dump = {0};
    root_dump(source.m, source.db.id, &dump);
    root_import(&copy);
    root_assert_equal(&copy, &dump);
    ck_assert_uint_eq(copy.db.local.v, 23);
    ck_assert_uint_eq(copy.db.published.v, 23);
    ck_assert_uint_eq(copy.db.next.v, 24);
    ck_assert_uint_eq(copy.db.counters.next_object, 25);
    ck_assert_uint_eq(copy.db.counters.next_chunk, 24);
    ck_assert_uint_eq(copy.db.published_time_ms, source.db.local_time_ms);
    ck_assert_uint_eq(copy.db.remote_sequence, source.db.remote_sequence);
    ck_assert(sha256_equal(&copy.db.remote_hash, &source.db.remote_hash));
    ck_assert_uint_eq(root_unpublished_blobs(&copy), 0);
    // A db that is in use is not imported into.
    ck_assert_int_eq(
        remote_manifest_import(&copy.place, copy.m, &copy.db, (struct generation){0}), -EINVAL);
}
END_TEST

START_TEST(every_published_generation_can_be_imported)
{
    static struct buffer dumps[61];
    root_begin(&source);
    for (unsigned i = 0; i < 50; i++) {
        root_fold(&source, 0);
        // Some generations stay local.
        if (i % 5 == 2)
            root_fold(&source, 0);
        ck_assert_int_eq(root_publish(&source), 0);
        if (remote_manifest_catalog_due(&source.db))
            ck_assert_int_eq(
                remote_manifest_write_catalog(&source.place, source.m, source.db.id), 0);
        root_dump(source.m, source.db.id, &dumps[source.db.local.v]);
    }
    ck_assert_uint_eq(source.db.published.v, 60);
    ck_assert_uint_ge(world_count(&world, "catalog-"), 3);
    for (unsigned g = 1; g <= 60; g++) {
        ck_assert_int_eq(try_import(g, &dumps[g]), dumps[g].length ? 0 : -ESTALE);
        buffer_free(&dumps[g]);
    }
    ck_assert_int_eq(try_import(61, NULL), -ESTALE);
}
END_TEST

START_TEST(catalog_saves_reading_the_records_before_it)
{
    root_begin(&source);
    publish_generations(30, false);
    ck_assert(remote_manifest_catalog_due(&source.db));
    ck_assert_int_eq(remote_manifest_write_catalog(&source.place, source.m, source.db.id), 0);
    // Once more is fine: what is there is a catalog of the same.
    ck_assert_int_eq(remote_manifest_write_catalog(&source.place, source.m, source.db.id), 0);
    publish_generations(2, false);
    ck_assert(!remote_manifest_catalog_due(&source.db));
    // A local generation that is not published is no state for a catalog.
    BUFFER_AUTO dump = {0};
    root_dump(source.m, source.db.id, &dump);
    root_fold(&source, 0);
    ck_assert_int_eq(remote_manifest_write_catalog(&source.place, source.m, source.db.id), -EAGAIN);
    uint64_t gets = fault_store_calls(world.faults, STORE_VERB_GET);
    root_import(&copy);
    // The catalog, the header of the record after it, two records.
    ck_assert_uint_eq(fault_store_calls(world.faults, STORE_VERB_GET) - gets, 4);
    root_assert_equal(&copy, &dump);
    ck_assert_uint_eq(copy.db.catalog_sequence, 32);
    ck_assert_uint_gt(copy.db.catalog_bytes, 0);
    ck_assert_uint_eq(copy.db.bytes_since_catalog, source.db.bytes_since_catalog);
    // Not even their existence matters.
    for (uint64_t i = 1; i < 32; i++) {
        char *path = world_path(&world, "record-", i);
        ck_assert_int_eq(unlink(path), 0);
        free(path);
    }
    root_import(&copy);
    root_assert_equal(&copy, &dump);
}
END_TEST

START_TEST(publication_costs_one_request)
{
    root_begin(&source);
    root_fold(&source, 0);
    uint64_t calls = fault_store_calls(world.faults, STORE_VERB_ANY);
    uint64_t puts = fault_store_calls(world.faults, STORE_VERB_PUT);
    ck_assert_int_eq(root_publish(&source), 0);
    ck_assert_uint_eq(fault_store_calls(world.faults, STORE_VERB_PUT) - puts, 1);
    ck_assert_uint_eq(fault_store_calls(world.faults, STORE_VERB_ANY) - calls, 1);
    ck_assert_int_eq(root_publish(&source), -EALREADY);
}
END_TEST

START_TEST(uploads_are_the_blobs_that_are_not_in_the_store)
{
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
    root_begin(&source);
    publish_generations(1, false);
    root_fold(&source, 0); // a chunk and a delta
    root_fold(&source, 0);
    ck_assert_int_eq(remote_manifest_stage_generation(
                         &source.place, source.m, source.db.id, &staged, &uploads, &count),
        0);
    ck_assert_uint_eq(count, 4);
    ck_assert_uint_eq(root_unpublished_blobs(&source), 4);
    for (size_t i = 0; i < count; i++)
        ck_assert_uint_gt(uploads[i].blob.generation.v, 1);
    ck_assert_uint_eq(staged.header.generation.v, 3);
    ck_assert_uint_eq(staged.header.previous_generation.v, 1);
    ck_assert_uint_eq(staged.header.cut.v, 3000);
    ck_assert_uint_gt(staged.changes, 8);
    uint64_t size;
    ck_assert_int_eq(file_size(staged.fd, &size), 0);
    ck_assert_uint_eq(size, staged.bytes);
    free(uploads);
    remote_staged_free(&staged);
    // A root that never claimed the volume has nothing to publish there.
    root_import(&copy);
    root_fold(&copy, 0);
    ck_assert_int_eq(root_publish(&copy), -ESTALE);
}
END_TEST

// One object whoever tries, however often: with the id that the fold gave, or without one.
START_TEST(publications_tried_again_write_the_same_bytes)
{
    struct remote_staged first, again;
    struct remote_upload *uploads;
    size_t count;
    struct uuid none = {{0}};
    root_begin(&source);
    for (unsigned round = 1; round <= 2; round++) {
        root_fold(&source, 0);
        if (round == 2) {
            struct manifest_batch *b = manifest_batch_new(source.db.id);
            manifest_batch_checkpoint_id(b, source.db.local, &none);
            ck_assert_int_eq(manifest_submit(source.m, b, NULL), 0);
        }
        ck_assert_int_eq(remote_manifest_stage_generation(
                             &source.place, source.m, source.db.id, &first, &uploads, &count),
            0);
        free(uploads);
        ck_assert(!uuid_is_zero(&first.header.checkpoint_id));
        ck_assert_int_eq(remote_manifest_publish(&source.place, &first), 0);
        struct sha256 hash = first.hash;
        remote_staged_free(&first);
        struct db_record db = source.db;
        root_close(&source);
        root_open(&source, &world, "source", 1);
        source.db = db;
        ck_assert_int_eq(remote_manifest_stage_generation(
                             &source.place, source.m, source.db.id, &again, &uploads, &count),
            0);
        ck_assert(sha256_equal(&again.hash, &hash));
        ck_assert_int_eq(remote_manifest_publish(&source.place, &again), 0);
        ck_assert_int_eq(remote_manifest_record_publication(
                             &source.place, source.m, source.db.id, &again, uploads, count, 0),
            0);
        free(uploads);
        remote_staged_free(&again);
        ck_assert_uint_eq(world_count(&world, "record-"), 2 + round);
    }
}
END_TEST

START_TEST(large_records_and_catalogs_are_streamed)
{
    root_begin(&source);
    root_fold(&source, 5 << 20);
    ck_assert_int_eq(root_publish(&source), 0);
    ck_assert_uint_gt(source.db.bytes_since_catalog, 5 << 20);
    BUFFER_AUTO dump = {0};
    root_dump(source.m, source.db.id, &dump);
    ck_assert_int_eq(try_import(0, &dump), 0);
    ck_assert_int_eq(remote_manifest_write_catalog(&source.place, source.m, source.db.id), 0);
    ck_assert_int_eq(try_import(0, &dump), 0);
    // The lost answer of a large record is resolved by its bytes.
    root_fold(&source, 5 << 20);
    ck_assert_int_eq(root_publish_and_forget(&source), 0);
    ck_assert_int_eq(root_publish(&source), 0);
    root_dump(source.m, source.db.id, &dump);
    ck_assert_int_eq(try_import(0, &dump), 0);
}
END_TEST

START_TEST(many_changes_go_in_several_batches)
{
    // 23 MB of attributes in one record are more than one batch takes.
    root_begin(&source);
    root_fold(&source, 23 << 20);
    ck_assert_int_eq(root_publish(&source), 0);
    BUFFER_AUTO dump = {0};
    root_dump(source.m, source.db.id, &dump);
    ck_assert_int_eq(try_import(0, &dump), 0);
}
END_TEST

// ---- a store that lists little at a time --------------------------------------------------------

struct stingy_store {
    struct remote_store base;
    struct remote_store *inner;
    struct remote_store_ops ops;
};

static int
stingy_list(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *out, const struct remote_call *call)
{
    struct stingy_store *stingy = CONTAINER_OF(s, struct stingy_store, base);
    return remote_store_list_blobs(stingy->inner, prefix, after, limit < 3 ? limit : 3, out, call);
}

static int
stingy_get(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    struct stingy_store *stingy = CONTAINER_OF(s, struct stingy_store, base);
    return remote_store_get_blob(stingy->inner, key, offset, length, out, call);
}

START_TEST(listings_are_read_page_by_page)
{
    root_begin(&source);
    publish_generations(40, true);
    for (int i = 0; i < 5; i++) {
        publish_generations(1, false);
        ck_assert_int_eq(remote_manifest_write_catalog(&source.place, source.m, source.db.id), 0);
    }
    publish_generations(13, false);
    BUFFER_AUTO dump = {0};
    root_dump(source.m, source.db.id, &dump);
    struct stingy_store stingy = {.inner = world.store};
    stingy.ops = (struct remote_store_ops){.list_blobs = stingy_list, .get_blob = stingy_get};
    stingy.base.ops = &stingy.ops;
    copy.place.store = &stingy.base;
    ck_assert_int_eq(try_import(0, &dump), 0);
    ck_assert_int_eq(try_import(7, NULL), 0);
}
END_TEST

// ---- garbage ------------------------------------------------------------------------------------

// Ways to spoil an object; false when there are no more.
static bool
spoil(struct buffer *b, unsigned how)
{
    size_t n = b->length;
    switch (how) {
    case 0:
        b->length = 0;
        return true;
    case 1:
        b->length = 1;
        return true;
    case 2:
        b->length = n / 2;
        return true;
    case 3:
        b->length = n - 1;
        return true;
    case 4:
        buffer_append_u8(b, 0);
        return true;
    case 5:
        memset(b->data, 0, n);
        return true;
    case 6:
        random_bytes(b->data, n);
        return true;
    default:
        // One bit, at places all over the object.
        if (how >= 30)
            return false;
        b->data[n * (how - 7) / 23] ^= (uint8_t)(1u << how % 8);
        return true;
    }
}

// Imports with object `kind`-`number` spoilt in every way; each time `expected` must come out.
static void
import_with_spoilt(const char *kind, uint64_t number, int expected, const struct buffer *dump)
{
    BUFFER_AUTO good = {0};
    BUFFER_AUTO bad = {0};
    world_read(&world, kind, number, &good);
    for (unsigned how = 0;; how++) {
        buffer_clear(&bad);
        buffer_append(&bad, good.data, good.length);
        if (!spoil(&bad, how))
            break;
        world_write(&world, kind, number, bad.data, bad.length);
        int rc = try_import(0, dump);
        ck_assert_msg(rc == expected, "%s%" PRIu64 " spoilt in way %u: %d", kind, number, how, rc);
    }
    world_write(&world, kind, number, good.data, good.length);
}

START_TEST(spoilt_records_are_refused)
{
    root_begin(&source);
    publish_generations(6, false);
    for (uint64_t i = 1; i <= 8; i++)
        import_with_spoilt("record-", i, -EBADMSG, NULL);
    ck_assert_int_eq(try_import(0, NULL), 0);
}
END_TEST

START_TEST(spoilt_catalog_is_replaced_by_an_older_one)
{
    root_begin(&source);
    publish_generations(3, false);
    ck_assert_int_eq(remote_manifest_write_catalog(&source.place, source.m, source.db.id), 0);
    publish_generations(3, false);
    ck_assert_int_eq(remote_manifest_write_catalog(&source.place, source.m, source.db.id), 0);
    // First with the catalog at the end of the chain, then with records after it.
    for (int round = 0; round < 2; round++) {
        BUFFER_AUTO dump = {0};
        root_dump(source.m, source.db.id, &dump);
        import_with_spoilt("catalog-", 8, 0, &dump);
        import_with_spoilt("catalog-", 5, 0, &dump);
        publish_generations(2, false);
    }
    // Both: the records alone will do, and older generations are found.
    BUFFER_AUTO dump = {0};
    root_dump(source.m, source.db.id, &dump);
    world_write(&world, "catalog-", 8, "garbage", 7);
    import_with_spoilt("catalog-", 5, 0, &dump);
    world_write(&world, "catalog-", 5, "", 0);
    for (uint64_t g = 1; g <= 10; g++)
        ck_assert_int_eq(try_import(g, NULL), 0);
    // A spoilt record that the catalogs stood for is missed then.
    world_write(&world, "record-", 3, "garbage", 7);
    ck_assert_int_eq(try_import(0, NULL), -EBADMSG);
}
END_TEST

START_TEST(catalog_that_the_chain_contradicts_is_passed_over)
{
    root_begin(&source);
    publish_generations(3, false);
    ck_assert_int_eq(remote_manifest_write_catalog(&source.place, source.m, source.db.id), 0);
    publish_generations(1, false);
    BUFFER_AUTO dump = {0};
    root_dump(source.m, source.db.id, &dump);
    BUFFER_AUTO catalog = {0};
    world_read(&world, "catalog-", 5, &catalog);
    // Under the name of the next record, of one that does not exist, and in a record's place.
    world_write(&world, "catalog-", 6, catalog.data, catalog.length);
    ck_assert_int_eq(try_import(0, &dump), 0);
    world_write(&world, "catalog-", 99, catalog.data, catalog.length);
    ck_assert_int_eq(try_import(0, &dump), 0);
    world_write(&world, "record-", 7, catalog.data, catalog.length);
    ck_assert_int_eq(try_import(0, &dump), -EBADMSG);
}
END_TEST

START_TEST(missing_and_foreign_records_are_refused)
{
    BUFFER_AUTO record = {0};
    root_begin(&source);
    publish_generations(5, false);
    for (uint64_t i = 1; i < 7; i++) {
        world_read(&world, "record-", i, &record);
        char *path = world_path(&world, "record-", i);
        ck_assert_int_eq(unlink(path), 0);
        ck_assert_int_eq(try_import(0, NULL), -EBADMSG);
        // Another record of this volume, in the place of this one.
        BUFFER_AUTO other = {0};
        world_read(&world, "record-", i == 1 ? 2 : i - 1, &other);
        world_write(&world, "record-", i, other.data, other.length);
        ck_assert_int_eq(try_import(0, NULL), -EBADMSG);
        world_write(&world, "record-", i, record.data, record.length);
        free(path);
    }
    ck_assert_int_eq(try_import(0, NULL), 0);
    // A volume of the same age in the place of the first.
    struct world elsewhere;
    struct root stranger;
    world_open(&elsewhere);
    root_open(&stranger, &elsewhere, "stranger", 3);
    root_begin(&stranger);
    root_fold(&stranger, 0);
    ck_assert_int_eq(root_publish(&stranger), 0);
    for (uint64_t i = 1; i <= 3; i++) {
        BUFFER_AUTO own = {0};
        world_read(&elsewhere, "record-", i, &record);
        world_read(&world, "record-", i, &own);
        world_write(&world, "record-", i, record.data, record.length);
        ck_assert_int_eq(try_import(0, NULL), -EBADMSG);
        world_write(&world, "record-", i, own.data, own.length);
    }
    root_close(&stranger);
    world_close(&elsewhere);
}
END_TEST

START_TEST(objects_of_other_names_do_not_matter)
{
    root_begin(&source);
    publish_generations(2, false);
    char *path = memory_printf("%s/manifests/acme/1/record-000000000000000A", world.bucket);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, "x", 1, 0600), 0);
    free(path);
    path = memory_printf("%s/manifests/acme/1/catalog-17", world.bucket);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, "x", 1, 0600), 0);
    free(path);
    ck_assert_int_eq(try_import(0, NULL), 0);
}
END_TEST

START_TEST(import_fails_wholly_at_every_failing_request)
{
    root_begin(&source);
    publish_generations(4, false);
    ck_assert_int_eq(remote_manifest_write_catalog(&source.place, source.m, source.db.id), 0);
    publish_generations(4, false);
    BUFFER_AUTO dump = {0};
    root_dump(source.m, source.db.id, &dump);
    unsigned failed = 0;
    for (uint64_t nth = 1;; nth++) {
        struct store_fault fault = {
            .kind = STORE_FAULT_FAIL, .nth = nth, .times = 1, .error = -EAGAIN};
        uint64_t calls = fault_store_calls(world.faults, STORE_VERB_ANY);
        fault_store_add(world.faults, &fault);
        int rc = try_import(0, &dump);
        fault_store_clear(world.faults);
        if (fault_store_calls(world.faults, STORE_VERB_ANY) - calls < nth) {
            ck_assert_int_eq(rc, 0);
            break;
        }
        ck_assert_int_eq(rc, -EAGAIN);
        failed++;
    }
    ck_assert_uint_ge(failed, 8);
    // A bit that flips on the way is an error or is made good by an older catalog, never content.
    for (uint64_t nth = 1; nth < 8; nth++) {
        struct store_fault fault = {
            .verb = STORE_VERB_GET, .kind = STORE_FAULT_CORRUPT, .nth = nth, .times = 1};
        fault_store_add(world.faults, &fault);
        int rc = try_import(0, &dump);
        fault_store_clear(world.faults);
        ck_assert(rc == 0 || rc == -EBADMSG);
    }
}
END_TEST

// ---- lost answers and crashes -------------------------------------------------------------------

START_TEST(record_whose_answer_was_lost_is_ours)
{
    struct store_fault lost = {
        .verb = STORE_VERB_PUT, .kind = STORE_FAULT_SWALLOW, .nth = 1, .times = 1};
    struct uuid volume = random_uuid(), key = random_uuid();
    root_begin(&source);
    root_fold(&source, 0);
    fault_store_add(world.faults, &lost);
    ck_assert_int_eq(root_publish(&source), -EAGAIN);
    ck_assert_uint_eq(source.db.published.v, 0);
    // Staged again, the same bytes: the record there is the one we want.
    ck_assert_int_eq(root_publish(&source), 0);
    ck_assert_uint_eq(source.db.published.v, 1);
    // Behind a retrying store nobody notices.
    struct retry_policy policy = {.base_ms = 1, .cap_ms = 1};
    fault_store_clear(world.faults);
    fault_store_add(world.faults, &lost);
    world.store = retry_store_wrap(world.faults, &policy, NULL);
    source.place.store = copy.place.store = world.store;
    root_fold(&source, 0);
    ck_assert_int_eq(root_publish(&source), 0);
    copy.place.volume_number = 2;
    fault_store_clear(world.faults);
    fault_store_add(world.faults, &lost);
    ck_assert_int_eq(remote_manifest_create(&copy.place, &volume, &key, NULL), 0);
    copy.place.volume_number = 1;
    BUFFER_AUTO dump = {0};
    root_dump(source.m, source.db.id, &dump);
    ck_assert_int_eq(try_import(0, &dump), 0);
}
END_TEST

START_TEST(own_record_is_rolled_forward)
{
    struct remote_catch_up found;
    root_begin(&source);
    publish_generations(3, false);
    ck_assert_int_eq(remote_manifest_catch_up(&source.place, source.m, &source.db, &found), 0);
    ck_assert(!found.foreign);
    ck_assert_uint_eq(found.rolled_forward, 0);
    root_fold(&source, 0);
    ck_assert_int_eq(root_publish_and_forget(&source), 0);
    ck_assert_uint_eq(source.db.published.v, 3);
    ck_assert_uint_gt(root_unpublished_blobs(&source), 0);
    ck_assert_int_eq(remote_manifest_catch_up(&source.place, source.m, &source.db, &found), 0);
    ck_assert(!found.foreign);
    ck_assert_uint_eq(found.rolled_forward, 1);
    ck_assert_uint_eq(source.db.published.v, 4);
    ck_assert_uint_eq(source.db.remote_sequence, 6);
    ck_assert_uint_eq(root_unpublished_blobs(&source), 0);
    BUFFER_AUTO dump = {0};
    root_dump(source.m, source.db.id, &dump);
    ck_assert_int_eq(try_import(0, &dump), 0);
    ck_assert_int_eq(root_publish(&source), -EALREADY);
    publish_generations(2, true);
}
END_TEST

START_TEST(older_attempt_that_lands_late_is_rolled_forward)
{
    // The record is created, its answer is lost, and writers go on before anybody looks.
    struct store_fault lost = {
        .verb = STORE_VERB_PUT, .kind = STORE_FAULT_SWALLOW, .nth = 1, .times = 1};
    struct remote_catch_up found;
    root_begin(&source);
    publish_generations(3, false);
    root_fold(&source, 0);
    fault_store_add(world.faults, &lost);
    ck_assert_int_eq(root_publish(&source), -EAGAIN);
    root_fold(&source, 0);
    root_fold(&source, 0);
    ck_assert_int_eq(root_publish(&source), -ESTALE);
    ck_assert_int_eq(remote_manifest_catch_up(&source.place, source.m, &source.db, &found), 0);
    ck_assert(!found.foreign);
    ck_assert_uint_eq(found.rolled_forward, 1);
    ck_assert_uint_eq(source.db.published.v, 4);
    ck_assert_uint_eq(source.db.local.v, 6);
    ck_assert_int_eq(root_publish(&source), 0);
    ck_assert_uint_eq(source.db.published.v, 6);
    BUFFER_AUTO dump = {0};
    root_dump(source.m, source.db.id, &dump);
    ck_assert_int_eq(try_import(0, &dump), 0);
    ck_assert_int_eq(try_import(4, NULL), 0);
    ck_assert_int_eq(try_import(5, NULL), -ESTALE);
}
END_TEST

static int
count_job(void *argument, const struct job_record *job UNUSED)
{
    ++*(unsigned *)argument;
    return 0;
}

static unsigned
count_jobs(struct root *r)
{
    struct manifest_reader *reader;
    unsigned count = 0;
    ck_assert_int_eq(manifest_read_begin(r->m, &reader), 0);
    ck_assert_int_eq(manifest_read_jobs(reader, r->db.id, count_job, &count), 0);
    manifest_read_end(reader);
    return count;
}

static void
begin_job(struct root *r, struct job_record *job)
{
    *job = (struct job_record){.kind = JOB_CREATE_CHECKPOINT, .state = JOB_IN_FLIGHT};
    struct manifest_batch *b = manifest_batch_new(r->db.id);
    manifest_batch_put_job(b, job);
    ck_assert_int_eq(manifest_submit(r->m, b, NULL), 0);
    ck_assert_uint_eq(count_jobs(r), 1);
}

// A first generation whose record is in the store and not in the manifest yet.
static void
publish_unrecorded(struct remote_staged *staged, struct remote_upload **uploads, size_t *count)
{
    root_begin(&source);
    root_fold(&source, 0);
    ck_assert_int_eq(remote_manifest_stage_generation(
                         &source.place, source.m, source.db.id, staged, uploads, count),
        0);
    ck_assert_int_eq(remote_manifest_publish(&source.place, staged), 0);
}

// The job that a publication finishes goes in its transaction, also when catching up was there
// before; one that is refused leaves it.
START_TEST(publication_ends_its_job)
{
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
    struct job_record job;
    publish_unrecorded(&staged, &uploads, &count);
    for (int i = 0; i < 2; i++) {
        begin_job(&source, &job);
        ck_assert_int_eq(remote_manifest_record_publication(&source.place, source.m, source.db.id,
                             &staged, uploads, count, job.id),
            0);
        ck_assert_uint_eq(count_jobs(&source), 0);
    }
    ck_assert_int_eq(manifest_find_db(source.m, source.db.place, "acme", 1, &source.db), 0);
    ck_assert_uint_eq(source.db.published.v, 1);
    publish_generations(1, false);
    begin_job(&source, &job);
    ck_assert_int_eq(remote_manifest_record_publication(
                         &source.place, source.m, source.db.id, &staged, uploads, count, job.id),
        -ESTALE);
    ck_assert_uint_eq(count_jobs(&source), 1);
    free(uploads);
    remote_staged_free(&staged);
}
END_TEST

START_TEST(publication_is_recorded_once)
{
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
    struct remote_catch_up found;
    publish_unrecorded(&staged, &uploads, &count);
    ck_assert_int_eq(remote_manifest_publish(&source.place, &staged), 0);
    ck_assert_int_eq(remote_manifest_catch_up(&source.place, source.m, &source.db, &found), 0);
    ck_assert_uint_eq(found.rolled_forward, 1);
    ck_assert_int_eq(remote_manifest_record_publication(
                         &source.place, source.m, source.db.id, &staged, uploads, count, 0),
        0);
    publish_generations(1, false);
    // Long past it is refused, and changes nothing.
    ck_assert_int_eq(remote_manifest_record_publication(
                         &source.place, source.m, source.db.id, &staged, uploads, count, 0),
        -ESTALE);
    ck_assert_uint_eq(source.db.published.v, 2);
    free(uploads);
    remote_staged_free(&staged);
}
END_TEST

START_TEST(catching_up_refuses_what_does_not_verify)
{
    struct remote_catch_up found;
    root_begin(&source);
    publish_generations(2, false);
    root_fold(&source, 0);
    ck_assert_int_eq(root_publish_and_forget(&source), 0);
    BUFFER_AUTO good = {0};
    BUFFER_AUTO bad = {0};
    world_read(&world, "record-", 5, &good);
    for (unsigned how = 0;; how++) {
        buffer_clear(&bad);
        buffer_append(&bad, good.data, good.length);
        if (!spoil(&bad, how))
            break;
        world_write(&world, "record-", 5, bad.data, bad.length);
        ck_assert_int_eq(
            remote_manifest_catch_up(&source.place, source.m, &source.db, &found), -EBADMSG);
        ck_assert(!found.foreign);
        ck_assert_uint_eq(source.db.published.v, 2);
    }
    // A gap is no end.
    char *path = world_path(&world, "record-", 5);
    ck_assert_int_eq(unlink(path), 0);
    world_write(&world, "record-", 6, good.data, good.length);
    ck_assert_int_eq(
        remote_manifest_catch_up(&source.place, source.m, &source.db, &found), -EBADMSG);
    free(path);
    path = world_path(&world, "record-", 6);
    ck_assert_int_eq(unlink(path), 0);
    free(path);
    world_write(&world, "record-", 5, good.data, good.length);
    ck_assert_int_eq(remote_manifest_catch_up(&source.place, source.m, &source.db, &found), 0);
    ck_assert_uint_eq(source.db.published.v, 3);
}
END_TEST

START_TEST(outage_leaves_publication_to_be_done_later)
{
    struct remote_catch_up found;
    root_begin(&source);
    root_fold(&source, 0);
    fault_store_set_outage(world.faults, true);
    ck_assert_int_eq(root_publish(&source), -EAGAIN);
    ck_assert_int_eq(remote_manifest_exists(&source.place), -EAGAIN);
    ck_assert_int_eq(remote_manifest_is_followed(&source.place, 2), -EAGAIN);
    ck_assert_int_eq(
        remote_manifest_catch_up(&source.place, source.m, &source.db, &found), -EAGAIN);
    fault_store_set_outage(world.faults, false);
    ck_assert_int_eq(remote_manifest_is_followed(&source.place, 2), 0);
    ck_assert_int_eq(root_publish(&source), 0);
    ck_assert_int_eq(remote_manifest_is_followed(&source.place, 2), 1);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("remote_manifest");
#define ADD(t) unit_add_with(s, #t, t, setup, teardown, 120)
    ADD(volume_is_created_once);
    ADD(blob_keys_are_those_of_the_design);
    ADD(imported_db_equals_the_published_one);
    ADD(every_published_generation_can_be_imported);
    ADD(catalog_saves_reading_the_records_before_it);
    ADD(publication_costs_one_request);
    ADD(uploads_are_the_blobs_that_are_not_in_the_store);
    ADD(publications_tried_again_write_the_same_bytes);
    ADD(large_records_and_catalogs_are_streamed);
    ADD(many_changes_go_in_several_batches);
    ADD(listings_are_read_page_by_page);
    ADD(spoilt_records_are_refused);
    ADD(spoilt_catalog_is_replaced_by_an_older_one);
    ADD(catalog_that_the_chain_contradicts_is_passed_over);
    ADD(missing_and_foreign_records_are_refused);
    ADD(objects_of_other_names_do_not_matter);
    ADD(import_fails_wholly_at_every_failing_request);
    ADD(record_whose_answer_was_lost_is_ours);
    ADD(own_record_is_rolled_forward);
    ADD(older_attempt_that_lands_late_is_rolled_forward);
    ADD(publication_ends_its_job);
    ADD(publication_is_recorded_once);
    ADD(catching_up_refuses_what_does_not_verify);
    ADD(outage_leaves_publication_to_be_done_later);
    return unit_run(s);
}
