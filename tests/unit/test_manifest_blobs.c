// SPDX-License-Identifier: Apache-2.0
// The life of blobs: what the next generation's record tells of births, deaths and returns.
#include "unit.h"

#include "manifest/manifest_internal.h"
#include "manifest_fixture.h"

#define REG (S_IFREG | 0644)

static struct fixture
begin(void)
{
    struct fixture f = fixture_new(0);
    SUBMIT(&f, 1, sample_inode(1, S_IFDIR | 0755, 2, 1), sample_inode(2, REG, 1, 0),
        sample_dirent(1, 20, 2, DT_REG, "a"), sample_blob(1, 1000), sample_blob(2, 1000),
        sample_chunk(5, 2, 0, 4, 1, 100), sample_chunk(6, 2, 1, 4, 2, 100));
    return f;
}

// Folds these changes as generation g.
#define FOLD(f, g, ...)                                                                            \
    do {                                                                                           \
        struct change folded[] = {__VA_ARGS__};                                                    \
        struct manifest_batch *b = manifest_batch_new((f)->db);                                    \
        for (size_t i = 0; i < ARRAY_LENGTH(folded); i++)                                          \
            manifest_batch_change(b, &folded[i], true, (struct generation){g});                    \
        manifest_batch_local_generation(                                                           \
            b, (struct generation){g}, (struct lsn){(g)*10}, (struct db_counters){100, 100}, 1);   \
        ck_assert_int_eq(manifest_submit((f)->manifest, b, NULL), 0);                              \
    } while (0)

// Records that generation g was published, with blobs that were uploaded for it.
static void
publish(struct fixture *f, uint64_t g, const uint64_t *uploaded, size_t count)
{
    struct sha256 hash = sample_hash(g);
    struct manifest_batch *b = manifest_batch_new(f->db);
    manifest_batch_set_residency(b, RESIDENCY_REMOTE);
    for (size_t i = 0; i < count; i++) {
        struct change put = sample_blob(uploaded[i], 1000);
        manifest_batch_change(b, &put, false, (struct generation){g});
        manifest_batch_blob_remote(b, &put.blob.hash);
    }
    manifest_batch_published(b, (struct generation){g}, 1, g, &hash, 10);
    ck_assert_int_eq(manifest_submit(f->manifest, b, NULL), 0);
}

static int
list_blobs(void *argument, const struct change *c)
{
    const struct sha256 *hash = c->kind == CHANGE_PUT_BLOB      ? &c->blob.hash
                                : c->kind == CHANGE_FORGET_BLOB ? &c->forgotten.hash
                                                                : NULL;
    for (uint64_t i = 1; hash && i < 10; i++) {
        struct sha256 known = sample_hash(i);
        if (!sha256_equal(&known, hash))
            continue;
        if (c->kind == CHANGE_FORGET_BLOB)
            buffer_printf(argument, "-%d ", (int)i);
        else
            buffer_printf(argument, "%d@%d ", (int)i, (int)c->blob.death.v);
    }
    return 0;
}

// What the next record tells of blobs: "number@death" or "-number".
static void
told(struct fixture *f, const char *expected)
{
    BUFFER_AUTO text = {0};
    struct manifest_reader *r = reader_of(f);
    ck_assert_int_eq(manifest_export_unpublished(r, f->db, list_blobs, &text), 0);
    manifest_read_end(r);
    ck_assert_str_eq(buffer_string(&text), expected);
}

static const uint64_t one_and_two[] = {1, 2};
static const uint64_t three[] = {3};

START_TEST(a_death_is_told_once_and_then_the_record_goes)
{
    struct fixture f = begin();
    struct blob_record blob;
    FOLD(&f, 4, sample_inode(2, REG, 1, 1));
    publish(&f, 4, one_and_two, 2);
    told(&f, "");
    FOLD(&f, 5, sample_blob(3, 1000), sample_chunk(5, 2, 0, 5, 3, 100));
    ck_assert_int_eq(read_blob(&f, 1, &blob), 0);
    ck_assert(blob.references == 0 && blob.death.v == 5);
    told(&f, "3@0 1@5 ");
    // A later fold changes nothing about it.
    FOLD(&f, 6, sample_inode(2, REG, 1, 1));
    told(&f, "3@0 1@5 ");
    fixture_reopen(&f, 0);
    told(&f, "3@0 1@5 ");
    publish(&f, 6, three, 1);
    told(&f, "");
    ck_assert_int_eq(read_blob(&f, 1, &blob), -ENOENT);
    ck_assert_uint_eq(read_totals(&f).blobs, 2);
    fixture_free(&f);
}
END_TEST

START_TEST(a_return_is_told)
{
    struct fixture f = begin();
    struct blob_record blob;
    FOLD(&f, 4, sample_inode(2, REG, 1, 1));
    publish(&f, 4, one_and_two, 2);
    FOLD(&f, 5, sample_delete_chunk(2, 0));
    told(&f, "1@5 ");
    // It comes back while the record that tells of its death is under way.
    FOLD(&f, 6, sample_blob(1, 1000), sample_chunk(7, 2, 0, 6, 1, 100));
    told(&f, "1@0 ");
    publish(&f, 5, NULL, 0);
    told(&f, "1@0 ");
    publish(&f, 6, NULL, 0);
    told(&f, "");
    ck_assert_int_eq(read_blob(&f, 1, &blob), 0);
    ck_assert(blob.references == 1 && blob.death.v == 0);
    // Within one fold there is nothing to tell.
    FOLD(&f, 7, sample_delete_chunk(2, 0), sample_blob(1, 1000), sample_chunk(8, 2, 0, 7, 1, 100));
    told(&f, "");
    fixture_free(&f);
}
END_TEST

START_TEST(what_dies_on_its_way_into_the_store_is_told_dead)
{
    struct fixture f = begin();
    struct blob_record blob;
    FOLD(&f, 4, sample_inode(2, REG, 1, 1));
    told(&f, "1@0 2@0 ");
    FOLD(&f, 5, sample_delete_chunk(2, 0));
    ck_assert_int_eq(read_blob(&f, 1, &blob), -ENOENT);
    told(&f, "2@0 ");
    publish(&f, 4, one_and_two, 2);
    told(&f, "1@5 ");
    publish(&f, 5, NULL, 0);
    ck_assert_int_eq(read_blob(&f, 1, &blob), -ENOENT);
    fixture_free(&f);
}
END_TEST

START_TEST(an_importer_follows)
{
    struct fixture f = begin();
    struct fixture copy = fixture_new(0);
    BUFFER_AUTO bytes = {0};
    struct blob_record blob;
    FOLD(&f, 4, sample_inode(2, REG, 1, 1));
    export_bytes(&f, manifest_export_unpublished, &bytes);
    import_bytes(&copy, &bytes);
    publish(&f, 4, one_and_two, 2);
    FOLD(&f, 5, sample_blob(3, 1000), sample_chunk(5, 2, 0, 5, 3, 100), sample_delete_chunk(2, 1));
    export_bytes(&f, manifest_export_unpublished, &bytes);
    import_bytes(&copy, &bytes);
    import_bytes(&copy, &bytes); // twice is once
    ck_assert_int_eq(read_blob(&copy, 1, &blob), -ENOENT);
    ck_assert_int_eq(read_blob(&copy, 2, &blob), -ENOENT);
    ck_assert_uint_eq(read_totals(&copy).blobs, 1);
    publish(&f, 5, three, 1);
    export_bytes(&f, manifest_export, &bytes);
    BUFFER_AUTO other = {0};
    export_bytes(&copy, manifest_export, &other);
    fixture_free(&copy);
    fixture_free(&f);
}
END_TEST

START_TEST(forgetting_is_told_and_refused_for_what_is_needed)
{
    struct fixture f = begin();
    struct blob_record blob;
    struct change other = sample_forget(2);
    other.forgotten.generation.v = 77; // another object with the same content
    FOLD(&f, 4, sample_inode(2, REG, 1, 1));
    publish(&f, 4, one_and_two, 2);
    struct change needed = sample_forget(2);
    ck_assert_int_eq(
        submit_changes(f.manifest, f.db, &needed, 1, 5, RESIDENCY_LOCAL, NULL), -EINVAL);
    FOLD(&f, 5, sample_delete_chunk(2, 0));
    FOLD(&f, 6, sample_forget(1), other);
    ck_assert_int_eq(read_blob(&f, 1, &blob), -ENOENT);
    ck_assert_int_eq(read_blob(&f, 2, &blob), 0);
    told(&f, "-1 -2 ");
    // A reader of the record does not lose what it needs.
    struct fixture copy = begin();
    BUFFER_AUTO bytes = {0};
    change_encode(&needed, &bytes);
    import_bytes(&copy, &bytes);
    ck_assert_int_eq(read_blob(&copy, 2, &blob), 0);
    fixture_free(&copy);
    publish(&f, 6, NULL, 0);
    told(&f, "");
    fixture_free(&f);
}
END_TEST

START_TEST(places_of_blobs_travel_with_them)
{
    struct fixture f = begin();
    struct fixture copy = fixture_new(0);
    struct change there = sample_blob(4, 1000);
    there.blob.where = 2;
    struct blob_record blob;
    struct namespace_record space;
    BUFFER_AUTO bytes = {0};
    BUFFER_AUTO other = {0};
    REFUSE(&f, -EINVAL, there); // nobody knows that place
    FOLD(&f, 4, sample_namespace(2, ""), there, sample_chunk(7, 2, 2, 4, 4, 100));
    export_bytes(&f, manifest_export_unpublished, &bytes);
    import_bytes(&copy, &bytes);
    ck_assert_int_eq(read_blob(&copy, 4, &blob), 0);
    ck_assert_uint_eq(blob.where, 2);
    struct manifest_reader *r = reader_of(&copy);
    ck_assert_int_eq(manifest_read_namespace(r, copy.db, 2, &space), 0);
    ck_assert(space.volume_number == 7 && space.place_length == 0);
    ck_assert_mem_eq(space.tenant, "parent", 6);
    ck_assert_int_eq(manifest_read_namespace(r, copy.db, 3, &space), -ENOENT);
    manifest_read_end(r);
    export_bytes(&copy, manifest_export, &bytes);
    export_bytes(&f, manifest_export, &other);
    ck_assert_uint_eq(bytes.length, other.length);
    ck_assert_mem_eq(bytes.data, other.data, bytes.length);
    fixture_free(&f);
    ck_assert_int_eq(manifest_remove_db(copy.manifest, copy.db), 0);
    manifest_close(copy.manifest);
    unit_directory_remove(copy.directory);
}
END_TEST

// ---- roots of before ----------------------------------------------------------------------------

static void
take_mark_away(struct fixture *f)
{
    struct lmdb_txn *txn;
    struct schema_key key;
    schema_key_runtime(&key, RUNTIME_DATES, f->db);
    ck_assert_int_eq(lmdb_write_begin(f->manifest->env, &txn), 0);
    ck_assert_int_eq(lmdb_delete(txn, TABLE_RUNTIME_STATE, key.bytes, key.length), 0);
    ck_assert_int_eq(lmdb_write_commit(txn), 0);
}

START_TEST(a_root_of_before_is_upgraded)
{
    struct fixture f = begin();
    struct blob_record blob;
    FOLD(&f, 4, sample_inode(2, REG, 1, 1));
    publish(&f, 4, one_and_two, 2);
    // Programs of before noted nothing when a blob died.
    const uint64_t one[] = {1};
    SUBMIT_RELEASING(&f, one, sample_delete_chunk(2, 0));
    ck_assert_int_eq(read_blob(&f, 1, &blob), 0);
    ck_assert(blob.references == 0 && blob.death.v == 0);
    told(&f, "");
    take_mark_away(&f);
    fixture_reopen(&f, 0);
    ck_assert_int_eq(read_blob(&f, 1, &blob), 0);
    ck_assert_uint_eq(blob.death.v, 4);
    told(&f, "1@4 ");
    // Also by the record after one that had been made before the upgrade.
    publish(&f, 4, NULL, 0);
    told(&f, "1@4 ");
    FOLD(&f, 5, sample_inode(2, REG, 1, 1));
    publish(&f, 5, NULL, 0);
    ck_assert_int_eq(read_blob(&f, 1, &blob), -ENOENT);
    fixture_free(&f);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("manifest_blobs");
#define ADD(test) unit_add(s, #test, test, 60)
    ADD(a_death_is_told_once_and_then_the_record_goes);
    ADD(a_return_is_told);
    ADD(what_dies_on_its_way_into_the_store_is_told_dead);
    ADD(an_importer_follows);
    ADD(forgetting_is_told_and_refused_for_what_is_needed);
    ADD(places_of_blobs_travel_with_them);
    ADD(a_root_of_before_is_upgraded);
    return unit_run(s);
}
