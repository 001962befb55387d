// SPDX-License-Identifier: Apache-2.0
#include "manifest_fixture.h"

#include "base/hash_table.h"
#include "manifest/manifest_internal.h"

#define REG      (S_IFREG | 0644)
#define DIR_MODE (S_IFDIR | 0755)

// A root directory with `files` files, numbered from 2 on, at cookies of ten times their number.
static void
make_files(struct fixture *f, uint64_t files)
{
    struct manifest_batch *b = manifest_batch_new(f->db);
    struct generation none = {0};
    struct change c = sample_inode(1, DIR_MODE, 2, files);
    manifest_batch_change(b, &c, false, none);
    for (uint64_t i = 2; i < files + 2; i++) {
        char name[32];
        snprintf(name, sizeof(name), "file-%d", (int)i);
        c = sample_inode(i, REG, 1, i);
        manifest_batch_change(b, &c, false, none);
        c = sample_dirent(1, i * 10, i, DT_REG, name);
        manifest_batch_change(b, &c, false, none);
    }
    ck_assert_int_eq(manifest_submit(f->manifest, b, NULL), 0);
}

// ---- dbs ----------------------------------------------------------------------------------------

START_TEST(dbs_are_found_by_their_place)
{
    struct fixture f = fixture_new(0);
    struct db_record db = sample_db(1);
    struct db_record found;
    ck_assert_int_eq(manifest_create_db(f.manifest, &db), -EEXIST);
    db.volume_number = 2;
    db.fenced = true;
    db.epoch = 5;
    db.remote_sequence = 6;
    db.remote_hash = sample_hash(7);
    db.catalog_sequence = 8;
    db.catalog_bytes = 9;
    db.bytes_since_catalog = 10;
    db.local.v = 11;
    db.published.v = 12;
    db.next.v = 13;
    db.cut.v = 14;
    db.local_time_ms = 15;
    db.published_time_ms = 16;
    ck_assert_int_eq(manifest_create_db(f.manifest, &db), 0);
    ck_assert_uint_ne(db.id.v, f.db.v);
    struct uuid root = manifest_root_id(f.manifest);
    fixture_reopen(&f, 0);
    struct uuid again = manifest_root_id(f.manifest);
    ck_assert(uuid_equal(&root, &again) && !uuid_is_zero(&root));
    ck_assert_int_eq(manifest_find_db(f.manifest, db.place, db.tenant, 2, &found), 0);
    ck_assert_uint_eq(found.id.v, db.id.v);
    ck_assert_str_eq(found.place, db.place);
    ck_assert_str_eq(found.tenant, db.tenant);
    ck_assert(uuid_equal(&found.volume, &db.volume) && uuid_equal(&found.name_key, &db.name_key));
    ck_assert(sha256_equal(&found.remote_hash, &db.remote_hash));
    ck_assert(found.fenced && found.state == DB_STATE_READY && found.epoch == 5);
    ck_assert(found.remote_sequence == 6 && found.catalog_sequence == 8);
    ck_assert(found.catalog_bytes == 9 && found.bytes_since_catalog == 10);
    ck_assert(found.local.v == 11 && found.published.v == 12 && found.next.v == 13);
    ck_assert(found.cut.v == 14 && found.local_time_ms == 15 && found.published_time_ms == 16);
    ck_assert(found.counters.next_object == 2 && found.counters.next_chunk == 1);
    ck_assert_int_eq(manifest_find_db(f.manifest, db.place, db.tenant, 3, &found), -ENOENT);
    ck_assert_int_eq(manifest_find_db(f.manifest, db.place, "other", 2, &found), -ENOENT);
    ck_assert_int_eq(manifest_find_db(f.manifest, "s3://b", db.tenant, 2, &found), -ENOENT);
    fixture_free(&f);
}
END_TEST

START_TEST(removed_dbs_leave_others_alone)
{
    struct fixture a = fixture_new(0);
    struct fixture b = {.manifest = a.manifest, .db = fixture_create_db(&a, 2)};
    BUFFER_AUTO before = {0};
    BUFFER_AUTO after = {0};
    struct db_record db;
    struct blob_record blob;
    struct fixture *both[] = {&a, &b};
    for (int i = 0; i < 2; i++) {
        make_files(both[i], i == 0 ? 30000 : 3);
        SUBMIT(both[i], 4, sample_blob(1, 100), sample_blob(2, 100),
            sample_chunk(5, 2, 0, 4, 1, 100), sample_delta(5, 5, 2, 0, 100),
            sample_xattr(2, "user.x", "y", 1));
    }
    export_bytes(&b, manifest_export, &before);
    ck_assert_int_eq(manifest_remove_db(a.manifest, a.db), 0);
    ck_assert_int_eq(manifest_remove_db(a.manifest, a.db), -ENOENT);
    ck_assert_int_eq(manifest_find_db(a.manifest, "file:///srv/bucket", "acme", 1, &db), -ENOENT);
    ck_assert_int_eq(read_blob(&a, 1, &blob), -ENOENT);
    ck_assert_int_eq(read_blob(&b, 1, &blob), 0);
    export_bytes(&b, manifest_export, &after);
    ck_assert_uint_eq(before.length, after.length);
    ck_assert_mem_eq(before.data, after.data, after.length);
    ck_assert_int_eq(manifest_check(b.manifest, b.db), 0);
    // The number is not given out again, and a new db of that name is empty.
    struct db_id again = fixture_create_db(&a, 1);
    ck_assert(again.v != a.db.v && again.v != b.db.v);
    a.db = again;
    ck_assert_uint_eq(read_totals(&a).inodes, 0);
    fixture_free(&a);
}
END_TEST

START_TEST(batches_for_unknown_dbs_are_refused)
{
    struct fixture f = fixture_new(0);
    struct fixture other = {.manifest = f.manifest, .db = {99}};
    REFUSE(&other, -ENOENT, sample_inode(2, REG, 1, 0));
    ck_assert_int_eq(manifest_check(f.manifest, other.db), -ENOENT);
    fixture_free(&f);
}
END_TEST

// ---- the namespace ------------------------------------------------------------------------------

START_TEST(inodes_are_put_and_replaced)
{
    struct fixture f = fixture_new(0);
    struct inode_record inode;
    struct change c = sample_symlink(3, "some/where");
    SUBMIT(&f, 0, sample_inode(1, DIR_MODE, 2, 1), c, sample_dirent(1, 5, 3, DT_LNK, "l"));
    struct manifest_reader *r = reader_of(&f);
    ck_assert_int_eq(manifest_read_inode(r, f.db, (struct object_id){3}, &inode), 0);
    ck_assert_uint_eq(inode.link_target_length, 10);
    ck_assert_mem_eq(inode.link_target, "some/where", 10);
    ck_assert_int_eq(inode.mtime.seconds, 1700000000);
    manifest_read_end(r);
    c.inode.uid = 77;
    SUBMIT(&f, 0, c);
    ck_assert_int_eq(read_inode(&f, 3, &inode), 0);
    ck_assert_uint_eq(inode.uid, 77);
    ck_assert_uint_eq(read_totals(&f).inodes, 2);
    ck_assert_int_eq(read_inode(&f, 4, &inode), -ENOENT);
    fixture_free(&f);
}
END_TEST

static int
collect_cookies(void *argument, const struct dirent_record *d)
{
    buffer_printf(argument, "%d:%.*s ", (int)d->cookie, d->name_length, d->name);
    return d->object.v == 9 ? 42 : 0;
}

static const char *
list(struct fixture *f, uint64_t from, uint64_t to, int expected, struct buffer *text)
{
    struct manifest_reader *r = reader_of(f);
    buffer_clear(text);
    ck_assert_int_eq(
        manifest_read_dirents(r, f->db, (struct object_id){1}, from, to, collect_cookies, text),
        expected);
    manifest_read_end(r);
    return buffer_string(text);
}

START_TEST(directories_are_listed_in_order_of_cookies)
{
    struct fixture f = fixture_new(0);
    BUFFER_AUTO text = {0};
    make_files(&f, 3);
    ck_assert_str_eq(list(&f, 0, INT64_MAX, 0, &text), "20:file-2 30:file-3 40:file-4 ");
    ck_assert_str_eq(list(&f, 21, INT64_MAX, 0, &text), "30:file-3 40:file-4 ");
    ck_assert_str_eq(list(&f, 20, 30, 0, &text), "20:file-2 30:file-3 ");
    ck_assert_str_eq(list(&f, 21, 29, 0, &text), "");
    ck_assert_str_eq(list(&f, 41, INT64_MAX, 0, &text), "");
    SUBMIT(&f, 0, sample_delete_dirent(1, 30, "file-3"), sample_dirent(1, 15, 3, DT_REG, "moved"),
        sample_delete_dirent(1, 999, "never-was"));
    ck_assert_str_eq(list(&f, 0, INT64_MAX, 0, &text), "15:moved 20:file-2 40:file-4 ");
    SUBMIT(&f, 0, sample_dirent(1, 16, 9, DT_REG, "stop"), sample_inode(9, REG, 1, 0),
        sample_inode(1, DIR_MODE, 2, 4));
    ck_assert_str_eq(list(&f, 0, INT64_MAX, 42, &text), "15:moved 16:stop ");
    fixture_free(&f);
}
END_TEST

static int
collect_xattrs(void *argument, const struct xattr_record *x)
{
    buffer_printf(argument, "%.*s=%.*s ", x->name_length, x->name, (int)x->value_length,
        (const char *)x->value);
    return 0;
}

START_TEST(xattrs_belong_to_their_inode)
{
    struct fixture f = fixture_new(0);
    BUFFER_AUTO text = {0};
    struct xattr_record x;
    static char large[XATTR_VALUE_BYTES_MAX];
    make_files(&f, 2);
    memset(large, 'L', sizeof(large));
    SUBMIT(&f, 0, sample_xattr(2, "user.b", "2", 1), sample_xattr(2, "user.a", "1", 1),
        sample_xattr(2, "user.ab", "", 0), sample_xattr(3, "user.large", large, sizeof(large)));
    SUBMIT(&f, 0, sample_xattr(2, "user.b", "two", 3), sample_delete_xattr(2, "user.none"));
    struct manifest_reader *r = reader_of(&f);
    ck_assert_int_eq(
        manifest_read_xattrs(r, f.db, (struct object_id){2}, collect_xattrs, &text), 0);
    ck_assert_str_eq(buffer_string(&text), "user.a=1 user.ab= user.b=two ");
    ck_assert_int_eq(manifest_read_xattr(r, f.db, (struct object_id){2}, "user.b", 6, &x), 0);
    ck_assert_mem_eq(x.value, "two", 3);
    ck_assert_int_eq(manifest_read_xattr(r, f.db, (struct object_id){3}, "user.large", 10, &x), 0);
    ck_assert_uint_eq(x.value_length, sizeof(large));
    ck_assert_mem_eq(x.value, large, sizeof(large));
    ck_assert_int_eq(manifest_read_xattr(r, f.db, (struct object_id){3}, "user.b", 6, &x), -ENOENT);
    ck_assert_int_eq(manifest_read_xattr(r, f.db, (struct object_id){3}, "", 0, &x), -ENOENT);
    manifest_read_end(r);
    SUBMIT(&f, 0, sample_delete_inode(2), sample_delete_dirent(1, 20, "file-2"),
        sample_inode(1, DIR_MODE, 2, 1));
    r = reader_of(&f);
    buffer_clear(&text);
    ck_assert_int_eq(
        manifest_read_xattrs(r, f.db, (struct object_id){2}, collect_xattrs, &text), 0);
    ck_assert_uint_eq(text.length, 0);
    ck_assert_int_eq(manifest_read_xattr(r, f.db, (struct object_id){3}, "user.large", 10, &x), 0);
    manifest_read_end(r);
    fixture_free(&f);
}
END_TEST

static int
collect_objects(void *argument, struct object_id object, const struct inode_record *inode)
{
    ck_assert_uint_eq(inode->nlink, 0);
    buffer_printf(argument, "%d ", (int)object.v);
    return 0;
}

static const char *
orphans(struct fixture *f, struct buffer *text)
{
    struct manifest_reader *r = reader_of(f);
    buffer_clear(text);
    ck_assert_int_eq(manifest_read_orphans(r, f->db, collect_objects, text), 0);
    manifest_read_end(r);
    return buffer_string(text);
}

START_TEST(orphans_are_found_without_a_scan)
{
    struct fixture f = fixture_new(0);
    BUFFER_AUTO text = {0};
    make_files(&f, 3);
    ck_assert_str_eq(orphans(&f, &text), "");
    SUBMIT(&f, 0, sample_inode(4, REG, 0, 1), sample_delete_dirent(1, 40, "file-4"),
        sample_inode(9, REG, 0, 1), sample_inode(1, DIR_MODE, 2, 2));
    ck_assert_str_eq(orphans(&f, &text), "4 9 ");
    SUBMIT(&f, 0, sample_inode(4, REG, 0, 2), sample_inode(9, REG, 1, 2),
        sample_dirent(1, 90, 9, DT_REG, "linked"), sample_inode(1, DIR_MODE, 2, 3));
    ck_assert_str_eq(orphans(&f, &text), "4 ");
    SUBMIT(&f, 0, sample_delete_inode(4), sample_delete_inode(4));
    ck_assert_str_eq(orphans(&f, &text), "");
    ck_assert_uint_eq(read_totals(&f).inodes, 4);
    fixture_free(&f);
}
END_TEST

// ---- chunks, deltas, blobs ----------------------------------------------------------------------

START_TEST(references_follow_the_chunks)
{
    struct fixture f = fixture_new(0);
    struct blob_record blob;
    struct chunk_entry chunk;
    make_files(&f, 1);
    SUBMIT(&f, 0, sample_blob(1, 1000), sample_blob(2, 1000), sample_chunk(5, 2, 0, 4, 1, 100),
        sample_chunk(6, 2, 1, 4, 1, 200), sample_delta(5, 5, 2, 0, 50),
        sample_delta(5, 6, 1, 300, 70));
    ck_assert_int_eq(read_blob(&f, 1, &blob), 0);
    ck_assert(blob.references == 3 && blob.live_bytes == 370);
    ck_assert(blob.residency == RESIDENCY_LOCAL && blob.kind == BLOB_OBJECT_PACK);
    ck_assert_int_eq(read_chunk(&f, 2, 0, &chunk), 0);
    ck_assert(chunk.delta_count == 2 && chunk.delta_bytes == 120 && chunk.generation.v == 6);
    // A replaced delta gives its reference back; so does a deleted one.
    SUBMIT(&f, 0, sample_delta(5, 6, 2, 50, 60));
    ck_assert_int_eq(read_blob(&f, 1, &blob), 0);
    ck_assert(blob.references == 2 && blob.live_bytes == 300);
    ck_assert_int_eq(read_blob(&f, 2, &blob), 0);
    ck_assert(blob.references == 2 && blob.live_bytes == 110);
    SUBMIT(&f, 0, sample_delete_delta(5, 6), sample_delete_delta(5, 6), sample_delete_delta(8, 8));
    ck_assert_int_eq(read_chunk(&f, 2, 0, &chunk), 0);
    ck_assert(chunk.delta_count == 1 && chunk.delta_bytes == 50);
    // Putting the same again changes nothing.
    SUBMIT(&f, 0, sample_blob(1, 1000), sample_chunk(6, 2, 1, 4, 1, 200));
    ck_assert_int_eq(read_blob(&f, 1, &blob), 0);
    ck_assert(blob.references == 2 && blob.live_bytes == 300);
    struct db_totals totals = read_totals(&f);
    ck_assert(totals.chunks == 2 && totals.deltas == 1 && totals.blobs == 2);
    ck_assert(totals.blob_bytes == 2000 && totals.unpublished_blobs == 2);
    fixture_free(&f);
}
END_TEST

START_TEST(a_new_base_removes_older_deltas)
{
    struct fixture f = fixture_new(0);
    struct chunk_entry chunk;
    make_files(&f, 1);
    SUBMIT(&f, 0, sample_blob(1, 1000), sample_blob(2, 1000), sample_chunk(5, 2, 0, 4, 1, 100),
        sample_delta(5, 5, 2, 0, 50), sample_delta(5, 6, 2, 50, 60),
        sample_delta(5, 9, 2, 110, 70));
    struct change base = sample_chunk(5, 2, 0, 6, 1, 100);
    base.chunk.base.offset = 500;
    base.chunk.generation.v = 9;
    base.chunk.delta_count = 1000; // not believed
    base.chunk.delta_bytes = 1000;
    SUBMIT(&f, 0, base);
    ck_assert_int_eq(read_chunk(&f, 2, 0, &chunk), 0);
    ck_assert(chunk.delta_count == 1 && chunk.delta_bytes == 70);
    ck_assert(chunk.base_generation.v == 6 && chunk.base.offset == 500);
    // Deltas at or below the base's generation have no meaning.
    REFUSE(&f, -EINVAL, sample_delta(5, 6, 2, 0, 50));
    fixture_free(&f);
}
END_TEST

static void
expect_extension(struct fixture *f, uint16_t length)
{
    struct manifest_reader *r = reader_of(f);
    struct chunk_entry chunk;
    ck_assert_int_eq(
        manifest_read_chunk(r, f->db, (struct object_id){2}, (struct chunk_index){0}, &chunk), 0);
    ck_assert_uint_eq(chunk.extension_length, length);
    if (length > 0)
        ck_assert_mem_eq(chunk.extension, sample_extension, length);
    manifest_read_end(r);
}

START_TEST(what_later_programs_know_of_a_chunk_is_kept)
{
    struct fixture f = fixture_new(0);
    make_files(&f, 1);
    struct change chunk = sample_chunk(5, 2, 0, 4, 1, 100);
    chunk.chunk.extension = sample_extension;
    chunk.chunk.extension_length = sizeof(sample_extension);
    SUBMIT(&f, 0, sample_blob(1, 1000), sample_blob(2, 1000), chunk);
    // A fold puts deltas and chunks, and knows nothing of it.
    SUBMIT(&f, 5, sample_delta(5, 5, 2, 0, 50), sample_delta(5, 6, 2, 50, 60));
    struct change again = sample_chunk(5, 2, 0, 4, 1, 100);
    again.chunk.generation.v = 6;
    SUBMIT(&f, 6, sample_delete_delta(5, 6), again);
    expect_extension(&f, sizeof(sample_extension));
    fixture_reopen(&f, 0);
    expect_extension(&f, sizeof(sample_extension));
    BUFFER_AUTO told = {0};
    struct manifest_reader *r = reader_of(&f);
    ck_assert_int_eq(manifest_export_unpublished(r, f.db, append_change, &told), 0);
    manifest_read_end(r);
    ck_assert_ptr_nonnull(
        memmem(told.data, told.length, sample_extension, sizeof(sample_extension)));
    // The chain tells all of a chunk.
    SUBMIT(&f, 0, again);
    expect_extension(&f, 0);
    fixture_free(&f);
}
END_TEST

START_TEST(blobs_without_references_are_released)
{
    struct fixture f = fixture_new(0);
    struct blob_record blob;
    const uint64_t one[] = {1};
    const uint64_t three_and_two[] = {3, 2};
    make_files(&f, 1);
    SUBMIT(&f, 0, sample_blob(1, 1000), sample_blob(2, 1000), sample_chunk(5, 2, 0, 4, 1, 100));
    // Replaced, and wanted again later in the same batch: stays.
    SUBMIT(&f, 0, sample_chunk(5, 2, 0, 5, 2, 100), sample_chunk(5, 2, 0, 6, 1, 100),
        sample_chunk(6, 2, 1, 6, 2, 100));
    SUBMIT_RELEASING(&f, one, sample_chunk(5, 2, 0, 7, 2, 100));
    ck_assert_int_eq(read_blob(&f, 1, &blob), -ENOENT);
    ck_assert_int_eq(read_blob(&f, 2, &blob), 0);
    ck_assert_uint_eq(blob.references, 2);
    // One that is in the store stays for GC; deltas count like bases.
    struct change remote = sample_blob(2, 1000);
    struct manifest_batch *b = manifest_batch_new(f.db);
    manifest_batch_blob_remote(b, &remote.blob.hash);
    ck_assert_int_eq(manifest_submit(f.manifest, b, NULL), 0);
    SUBMIT(&f, 0, sample_blob(3, 1000), sample_delta(5, 8, 3, 0, 10), sample_delta(5, 9, 3, 0, 10));
    SUBMIT_RELEASING(&f, three_and_two, sample_delete_inode(2), sample_delete_dirent(1, 20, ""),
        sample_inode(1, DIR_MODE, 2, 0));
    ck_assert_int_eq(read_blob(&f, 2, &blob), 0);
    ck_assert(blob.references == 0 && blob.live_bytes == 0);
    ck_assert_int_eq(blob.residency, RESIDENCY_REMOTE);
    struct db_totals totals = read_totals(&f);
    ck_assert(totals.chunks == 0 && totals.deltas == 0 && totals.blobs == 1);
    ck_assert(totals.unpublished_blobs == 0 && totals.unpublished_bytes == 0);
    // The same bytes made again: a local copy is there once more, and nothing is to be uploaded.
    make_files(&f, 1);
    SUBMIT(&f, 0, sample_blob(2, 1000), sample_chunk(7, 2, 0, 9, 2, 100));
    ck_assert_int_eq(read_blob(&f, 2, &blob), 0);
    ck_assert_int_eq(blob.residency, RESIDENCY_LOCAL | RESIDENCY_REMOTE);
    ck_assert_uint_eq(read_totals(&f).unpublished_blobs, 0);
    fixture_free(&f);
}
END_TEST

START_TEST(each_db_releases_its_own_blobs)
{
    struct fixture a = fixture_new(0);
    struct fixture b = {.manifest = a.manifest, .db = fixture_create_db(&a, 2)};
    const uint64_t one[] = {1};
    make_files(&a, 1);
    make_files(&b, 1);
    SUBMIT(&a, 0, sample_blob(1, 1000), sample_chunk(5, 2, 0, 4, 1, 100));
    SUBMIT(&b, 0, sample_blob(1, 1000), sample_chunk(5, 2, 0, 4, 1, 100));
    SUBMIT_RELEASING(&a, one, sample_delete_chunk(2, 0));
    ck_assert_int_eq(manifest_check(b.manifest, b.db), 0);
    SUBMIT_RELEASING(&b, one, sample_delete_chunk(2, 0));
    ck_assert_int_eq(manifest_check(b.manifest, b.db), 0);
    fixture_free(&a);
}
END_TEST

START_TEST(refused_batches_change_nothing)
{
    struct fixture f = fixture_new(0);
    BUFFER_AUTO before = {0};
    BUFFER_AUTO after = {0};
    make_files(&f, 1);
    SUBMIT(&f, 0, sample_blob(1, 1000), sample_chunk(5, 2, 0, 4, 1, 100));
    export_bytes(&f, manifest_export, &before);
#define GOOD sample_inode(2, REG, 1, 12345)
    REFUSE(&f, -EINVAL, GOOD, sample_chunk(6, 2, 1, 4, 99, 100)); // no such blob
    REFUSE(&f, -EINVAL, GOOD, sample_chunk(6, 2, 1, 4, 1, 1001)); // blob too short
    REFUSE(&f, -EINVAL, GOOD, sample_delta(6, 5, 1, 0, 10));      // no such chunk
    REFUSE(&f, -EINVAL, GOOD, sample_delta(5, 5, 1, 995, 10));    // blob too short
    REFUSE(&f, -EINVAL, GOOD, sample_chunk(5, 2, 7, 5, 1, 100));  // chunk would move
    REFUSE(&f, -EINVAL, GOOD, (struct change){CHANGE_WRITE, .object = {2}, .length = 1});
    REFUSE(&f, -EINVAL, GOOD, (struct change){CHANGE_DISCARD, .object = {2}, .length = 1});
    REFUSE(&f, -EINVAL, GOOD, sample_dirent(1, 3, 2, DT_REG, ".."));
    export_bytes(&f, manifest_export, &after);
    ck_assert_uint_eq(before.length, after.length);
    ck_assert_mem_eq(before.data, after.data, after.length);
    fixture_free(&f);
}
END_TEST

START_TEST(blobs_keep_the_key_they_were_given)
{
    struct fixture f = fixture_new(0);
    struct blob_record blob;
    struct change again = sample_blob(1, 1000);
    make_files(&f, 1);
    SUBMIT(&f, 0, sample_blob(1, 1000), sample_chunk(5, 2, 0, 4, 1, 100));
    again.blob.checkpoint_id = sample_uuid(99);
    SUBMIT(&f, 0, again);
    ck_assert_int_eq(read_blob(&f, 1, &blob), 0);
    ck_assert(!uuid_equal(&blob.checkpoint_id, &again.blob.checkpoint_id));
    // The chain knows better.
    ck_assert_int_eq(submit_changes(f.manifest, f.db, &again, 1, 0, RESIDENCY_REMOTE, NULL), 0);
    ck_assert_int_eq(read_blob(&f, 1, &blob), 0);
    ck_assert(uuid_equal(&blob.checkpoint_id, &again.blob.checkpoint_id));
    ck_assert(blob.references == 1 && blob.residency == RESIDENCY_LOCAL);
    fixture_free(&f);
}
END_TEST

START_TEST(a_place_of_an_object_has_one_chunk)
{
    struct fixture f = fixture_new(0);
    struct chunk_entry chunk;
    make_files(&f, 1);
    SUBMIT(&f, 0, sample_blob(1, 1000), sample_chunk(5, 2, 0, 4, 1, 100),
        sample_delta(5, 5, 1, 100, 50), sample_chunk(6, 2, 0, 6, 1, 300),
        sample_chunk(7, 2, 1, 6, 0, 0), sample_delta(7, 7, 1, 400, 50));
    ck_assert_int_eq(read_chunk(&f, 2, 0, &chunk), 0);
    ck_assert_uint_eq(chunk.id.v, 6);
    struct db_totals totals = read_totals(&f);
    ck_assert(totals.chunks == 2 && totals.deltas == 1);
    SUBMIT(&f, 0, sample_delete_chunk(2, 0), sample_delete_chunk(2, 0), sample_delete_chunk(2, 9));
    ck_assert_int_eq(read_chunk(&f, 2, 0, &chunk), -ENOENT);
    fixture_free(&f);
}
END_TEST

static int
collect_deltas(void *argument, const struct chunk_delta *d)
{
    buffer_printf(argument, "%d/%d ", (int)d->chunk.v, (int)d->generation.v);
    return d->generation.v == 7 ? 42 : 0;
}

static int
collect_chunks(void *argument, struct chunk_index index, struct chunk_id id, uint32_t present)
{
    ck_assert_uint_eq(present, 9);
    buffer_printf(argument, "%d:%d ", (int)index.v, (int)id.v);
    return index.v == 50 ? 42 : 0;
}

START_TEST(deltas_and_chunks_are_walked_in_order)
{
    struct fixture f = fixture_new(0);
    BUFFER_AUTO text = {0};
    struct object_id file = {2};
    make_files(&f, 2);
    SUBMIT(&f, 0, sample_blob(1, 1000), sample_chunk(4, 3, 0, 4, 1, 100),
        sample_chunk(5, 2, 0, 4, 1, 100), sample_chunk(6, 2, 3, 4, 1, 100),
        sample_chunk(7, 2, 50, 4, 1, 100), sample_chunk(8, 2, 90, 4, 1, 100),
        sample_delta(5, 8, 1, 0, 10), sample_delta(5, 5, 1, 0, 10), sample_delta(4, 6, 1, 0, 10),
        sample_delta(8, 9, 1, 0, 10), sample_delta(8, 7, 1, 0, 10), sample_delta(8, 5, 1, 0, 10));
    struct manifest_reader *r = reader_of(&f);
    ck_assert_int_eq(manifest_read_deltas(r, f.db, (struct chunk_id){5}, collect_deltas, &text), 0);
    ck_assert_int_eq(manifest_read_deltas(r, f.db, (struct chunk_id){7}, collect_deltas, &text), 0);
    ck_assert_int_eq(manifest_read_deltas(r, f.db, (struct chunk_id){1}, collect_deltas, &text), 0);
    ck_assert_int_eq(
        manifest_read_deltas(r, f.db, (struct chunk_id){8}, collect_deltas, &text), 42);
    ck_assert_str_eq(buffer_string(&text), "5/8 5/5 8/9 8/7 ");
    buffer_clear(&text);
    ck_assert_int_eq(
        manifest_read_object_chunks(r, f.db, file, (struct chunk_index){1}, collect_chunks, &text),
        42);
    ck_assert_int_eq(
        manifest_read_object_chunks(r, f.db, file, (struct chunk_index){51}, collect_chunks, &text),
        0);
    ck_assert_str_eq(buffer_string(&text), "3:6 50:7 90:8 ");
    manifest_read_end(r);
    fixture_free(&f);
}
END_TEST

// ---- generations --------------------------------------------------------------------------------

static void
local_generation(struct fixture *f, uint64_t generation, uint64_t cut, int expected)
{
    struct manifest_batch *b = manifest_batch_new(f->db);
    manifest_batch_local_generation(b, (struct generation){generation}, (struct lsn){cut},
        (struct db_counters){generation * 10, generation}, 1000 + generation);
    ck_assert_int_eq(manifest_submit(f->manifest, b, NULL), expected);
}

static void
publish(struct fixture *f, uint64_t generation, uint64_t sequence, int expected)
{
    struct manifest_batch *b = manifest_batch_new(f->db);
    struct sha256 hash = sample_hash(sequence);
    manifest_batch_published(
        b, (struct generation){generation}, 2000 + generation, sequence, &hash, 50);
    ck_assert_int_eq(manifest_submit(f->manifest, b, NULL), expected);
}

START_TEST(watermarks_only_go_forward)
{
    struct fixture f = fixture_new(0);
    local_generation(&f, 5, 100, 0);
    local_generation(&f, 4, 200, -EINVAL);
    local_generation(&f, 6, 99, -EINVAL);
    publish(&f, 3, 7, 0);
    publish(&f, 3, 7, 0);
    publish(&f, 2, 8, -EINVAL);
    publish(&f, 4, 6, -EINVAL);
    struct db_record db = read_db(&f);
    ck_assert(db.local.v == 5 && db.published.v == 3 && db.next.v == 6 && db.cut.v == 100);
    ck_assert(db.local_time_ms == 1005 && db.published_time_ms == 2003);
    ck_assert(db.counters.next_object == 50 && db.counters.next_chunk == 5);
    ck_assert(db.remote_sequence == 7 && db.bytes_since_catalog == 50);
    struct sha256 hash = sample_hash(7);
    ck_assert(sha256_equal(&db.remote_hash, &hash));
    fixture_free(&f);
}
END_TEST

START_TEST(state_of_the_db_is_kept)
{
    struct fixture f = fixture_new(0);
    struct sha256 hash = sample_hash(1);
    struct uuid volume = sample_uuid(8);
    struct uuid key = sample_uuid(9);
    publish(&f, 3, 7, 0);
    struct manifest_batch *b = manifest_batch_new(f.db);
    struct change counters = {CHANGE_PUT_COUNTERS, .counters = {500, 1}};
    manifest_batch_remote_position(b, 4, 9, &hash);
    manifest_batch_catalog(b, 9, 12345);
    manifest_batch_next_generation(b, (struct generation){20});
    manifest_batch_next_generation(b, (struct generation){10});
    manifest_batch_db_state(b, DB_STATE_IMPORTING);
    manifest_batch_fenced(b, true);
    manifest_batch_identity(b, &volume, &key);
    manifest_batch_change(b, &counters, false, (struct generation){0});
    ck_assert_int_eq(manifest_submit(f.manifest, b, NULL), 0);
    fixture_reopen(&f, 0);
    struct db_record db = read_db(&f);
    ck_assert(db.epoch == 4 && db.remote_sequence == 9 && sha256_equal(&db.remote_hash, &hash));
    ck_assert(db.catalog_sequence == 9 && db.catalog_bytes == 12345);
    ck_assert(db.bytes_since_catalog == 0 && db.next.v == 20 && db.fenced);
    ck_assert(db.state == DB_STATE_IMPORTING && uuid_equal(&db.volume, &volume));
    ck_assert(uuid_equal(&db.name_key, &key));
    ck_assert(db.counters.next_object == 500 && db.counters.next_chunk == 1);
    b = manifest_batch_new(f.db);
    manifest_batch_remote_position(b, 5, 8, &hash);
    ck_assert_int_eq(manifest_submit(f.manifest, b, NULL), -EINVAL);
    fixture_free(&f);
}
END_TEST

static int
list_kinds(void *argument, const struct change *c)
{
    buffer_printf(argument, "%d", c->kind);
    if (c->kind == CHANGE_PUT_INODE || c->kind == CHANGE_DELETE_INODE)
        buffer_printf(argument, ":%d", (int)c->object.v);
    if (c->kind == CHANGE_PUT_DIRENT || c->kind == CHANGE_DELETE_DIRENT)
        buffer_printf(argument, ":%d", (int)c->dirent.cookie);
    if (c->kind == CHANGE_PUT_DELTA || c->kind == CHANGE_DELETE_DELTA)
        buffer_printf(argument, ":%d", (int)c->delta.generation.v);
    buffer_printf(argument, " ");
    return 0;
}

static const char *
unpublished(struct fixture *f, struct buffer *text)
{
    struct manifest_reader *r = reader_of(f);
    buffer_clear(text);
    ck_assert_int_eq(manifest_export_unpublished(r, f->db, list_kinds, text), 0);
    manifest_read_end(r);
    return buffer_string(text);
}

START_TEST(what_is_unpublished_is_told_by_generation)
{
    struct fixture f = fixture_new(0);
    BUFFER_AUTO text = {0};
    make_files(&f, 4); // as if published: not noted
    SUBMIT(&f, 0, sample_xattr(2, "user.x", "y", 1));
    ck_assert_str_eq(unpublished(&f, &text), "14 ");
    SUBMIT(&f, 1, sample_inode(2, REG, 1, 1), sample_inode(3, REG, 1, 1), sample_blob(1, 100),
        sample_chunk(5, 3, 0, 1, 1, 100), sample_delta(5, 2, 1, 0, 10));
    SUBMIT(&f, 2, sample_inode(3, REG, 1, 2), sample_delete_inode(2),
        sample_delete_dirent(1, 20, "file-2"), sample_delete_dirent(1, 30, ""),
        sample_dirent(1, 31, 3, DT_REG, "renamed"), sample_delete_delta(5, 2),
        sample_inode(1, DIR_MODE, 2, 3));
    // Counters; deletes of inode 2, two entries, its xattr, the delta; puts; the blob; the chunk.
    ck_assert_str_eq(unpublished(&f, &text), "14 2:2 4:20 4:30 6 12:2 1:1 1:3 3:31 13 9 ");
    publish(&f, 1, 5, 0);
    // Only generation 1 touched the chunk's key; the blob is still not in the store.
    ck_assert_str_eq(unpublished(&f, &text), "14 2:2 4:20 4:30 6 12:2 1:1 1:3 3:31 13 ");
    publish(&f, 2, 6, 0);
    ck_assert_str_eq(unpublished(&f, &text), "14 13 ");
    struct sha256 hash = sample_hash(1);
    struct manifest_batch *b = manifest_batch_new(f.db);
    manifest_batch_blob_remote(b, &hash);
    ck_assert_int_eq(manifest_submit(f.manifest, b, NULL), 0);
    ck_assert_str_eq(unpublished(&f, &text), "14 ");
    fixture_free(&f);
}
END_TEST

static int
stop_at_blob(void *argument, const struct blob_record *blob)
{
    *(struct blob_record *)argument = *blob;
    return 42;
}

START_TEST(blobs_that_are_not_in_the_store_are_listed)
{
    struct fixture f = fixture_new(0);
    struct blob_record blob;
    make_files(&f, 1);
    SUBMIT(&f, 0, sample_blob(1, 100), sample_blob(2, 200), sample_chunk(5, 2, 0, 1, 2, 100));
    struct manifest_reader *r = reader_of(&f);
    ck_assert_int_eq(manifest_read_unpublished_blobs(r, f.db, stop_at_blob, &blob), 42);
    ck_assert_uint_eq(blob.bytes, 200);
    manifest_read_end(r);
    ck_assert_uint_eq(read_totals(&f).unpublished_bytes, 200);
    // Imported blobs are in the store from the start.
    struct change imported[] = {sample_blob(3, 300), sample_chunk(6, 2, 1, 1, 3, 100)};
    ck_assert_int_eq(submit_changes(f.manifest, f.db, imported, 2, 0, RESIDENCY_REMOTE, NULL), 0);
    ck_assert_uint_eq(read_totals(&f).unpublished_bytes, 200);
    fixture_free(&f);
}
END_TEST

static int
list_damage(void *argument, const struct chunk_damage *damage)
{
    buffer_printf(
        argument, "%d:%d+%d ", (int)damage->object.v, (int)damage->page.v, (int)damage->pages);
    return 0;
}

static const char *
damage(struct fixture *f, struct buffer *text)
{
    struct manifest_reader *r = reader_of(f);
    buffer_clear(text);
    ck_assert_int_eq(manifest_read_all_damage(r, f->db, list_damage, text), 0);
    manifest_read_end(r);
    return buffer_string(text);
}

START_TEST(lost_pages_go_with_their_chunk_and_are_told)
{
    struct fixture f = fixture_new(0);
    BUFFER_AUTO text = {0};
    make_files(&f, 2);
    SUBMIT(&f, 1, sample_blob(1, 1000), sample_chunk(5, 2, 0, 1, 1, 100),
        sample_chunk(6, 2, 1, 1, 1, 100), sample_chunk(7, 3, 0, 1, 1, 100), sample_damage(2, 10, 5),
        sample_damage(2, 20, 1), sample_damage(2, CHUNK_PAGES, 2), sample_damage(3, 0, 3));
    ck_assert_str_eq(damage(&f, &text), "2:10+5 2:20+1 2:16384+2 3:0+3 ");
    ck_assert_str_eq(unpublished(&f, &text), "14 13 9 9 9 20 20 20 20 ");
    publish(&f, 1, 5, 0);
    // One heals in part, a chunk goes, and so does an object.
    SUBMIT(&f, 2, sample_delete_damage(2, 10), sample_damage(2, 12, 3),
        sample_delete_damage(2, 999), sample_delete_chunk(2, 1), sample_delete_inode(3),
        sample_delete_dirent(1, 30, ""), sample_inode(1, DIR_MODE, 2, 1));
    ck_assert_str_eq(damage(&f, &text), "2:12+3 2:20+1 ");
    ck_assert_str_eq(unpublished(&f, &text), "14 2:3 4:30 10 10 21 21 21 1:1 13 20 ");
    ck_assert_int_eq(manifest_check(f.manifest, f.db), 0);
    fixture_reopen(&f, 0);
    ck_assert_str_eq(damage(&f, &text), "2:12+3 2:20+1 ");
    // What touches, and what is in no chunk, is found by the check.
    f.manifest->contradictions_are_meant = true;
    SUBMIT(&f, 3, sample_damage(2, 21, 1), sample_damage(2, 5 * CHUNK_PAGES, 1));
    ck_assert_int_eq(manifest_check(f.manifest, f.db), 2);
    SUBMIT(&f, 4, sample_delete_damage(2, 21), sample_delete_damage(2, 5 * CHUNK_PAGES));
    fixture_free(&f);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("manifest");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(dbs_are_found_by_their_place);
    ADD(removed_dbs_leave_others_alone);
    ADD(batches_for_unknown_dbs_are_refused);
    ADD(inodes_are_put_and_replaced);
    ADD(directories_are_listed_in_order_of_cookies);
    ADD(xattrs_belong_to_their_inode);
    ADD(orphans_are_found_without_a_scan);
    ADD(references_follow_the_chunks);
    ADD(a_new_base_removes_older_deltas);
    ADD(what_later_programs_know_of_a_chunk_is_kept);
    ADD(blobs_without_references_are_released);
    ADD(each_db_releases_its_own_blobs);
    ADD(refused_batches_change_nothing);
    ADD(blobs_keep_the_key_they_were_given);
    ADD(a_place_of_an_object_has_one_chunk);
    ADD(deltas_and_chunks_are_walked_in_order);
    ADD(watermarks_only_go_forward);
    ADD(state_of_the_db_is_kept);
    ADD(what_is_unpublished_is_told_by_generation);
    ADD(blobs_that_are_not_in_the_store_are_listed);
    ADD(lost_pages_go_with_their_chunk_and_are_told);
    return unit_run(s);
}
