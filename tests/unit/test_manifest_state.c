// SPDX-License-Identifier: Apache-2.0
// Random histories of a db, jobs, the change log, and what manifest_check and readers say about
// entries that were damaged.
#include "manifest_fixture.h"

#include <signal.h>

#include "base/hash_table.h"
#include "manifest/manifest_internal.h"

// ---- random histories ---------------------------------------------------------------------------
//
// A db goes through random batches and generations. From time to time it is published: what is
// unpublished of it is applied to a second db, as a mounting host would do. Then both must export
// the same, and hold together.

#define OBJECTS 12u
#define CHUNKS  4u // an object
#define BLOBS   40u

struct history {
    struct fixture f;
    struct fixture copy; // another root
    uint64_t random;
    uint64_t generation;
    uint64_t sequence;
    bool exists[OBJECTS + 2];
    uint64_t entries;
};

static uint64_t
pick(struct history *h, uint64_t below)
{
    return hash_u64(++h->random) % below;
}

static void
add(struct history *h, struct manifest_batch *b, struct change c)
{
    manifest_batch_change(b, &c, true, (struct generation){h->generation});
}

static struct change
random_inode(struct history *h, uint64_t object)
{
    return sample_inode(object, S_IFREG | 0600, 1, pick(h, 1000));
}

// A file gets or loses its name, at a cookie that names of other files have had, too.
static void
change_namespace(struct history *h, struct manifest_batch *b, uint64_t object)
{
    char name[16];
    snprintf(name, sizeof(name), "f%d", (int)object);
    if (!h->exists[object]) {
        add(h, b, random_inode(h, object));
        add(h, b, sample_dirent(1, object, object, DT_REG, name));
        h->entries++;
    } else {
        add(h, b, sample_delete_inode(object));
        add(h, b, sample_delete_dirent(1, object, name));
        h->entries--;
    }
    h->exists[object] = !h->exists[object];
    add(h, b, sample_inode(1, S_IFDIR | 0755, 2, h->entries));
}

static void
change_xattrs(struct history *h, struct manifest_batch *b, uint64_t object)
{
    char name[16];
    snprintf(name, sizeof(name), "user.%d", (int)pick(h, 4));
    if (pick(h, 3) > 0)
        add(h, b, sample_xattr(object, name, "value", (uint32_t)pick(h, 6)));
    else
        add(h, b, sample_delete_xattr(object, name));
}

// Chunk ids belong to one place of one object, but for every third place, where they change.
static uint64_t
chunk_id_at(struct history *h, uint64_t object, uint64_t index)
{
    uint64_t place = object * CHUNKS + index + 1;
    return place % 3 == 0 ? place + 1000 * (1 + h->generation) : place;
}

static uint64_t
add_random_blob(struct history *h, struct manifest_batch *b)
{
    uint64_t blob = 1 + pick(h, BLOBS);
    add(h, b, sample_blob(blob, 10000 + blob));
    return blob;
}

static void
change_chunks(struct history *h, struct manifest_batch *b, uint64_t object)
{
    uint64_t index = pick(h, CHUNKS);
    uint64_t id = chunk_id_at(h, object, index);
    switch (pick(h, 4)) {
    case 0:
        add(h, b, sample_delete_chunk(object, index));
        break;
    case 1:
        add(h, b, sample_delete_delta(id, 1 + pick(h, h->generation)));
        break;
    case 2:
        add(h, b,
            sample_chunk(id, object, index, h->generation, add_random_blob(h, b), 1 + pick(h, 99)));
        break;
    default:
        add(h, b, sample_delete_chunk(object, index));
        add(h, b, sample_chunk(id, object, index, h->generation, 0, 0));
        add(h, b,
            sample_delta(id, h->generation, add_random_blob(h, b), pick(h, 99), 1 + pick(h, 99)));
        break;
    }
}

static void
random_batch(struct history *h)
{
    struct manifest_batch *b = manifest_batch_new(h->f.db);
    struct manifest_released released;
    for (uint64_t n = 1 + pick(h, 12); n > 0; n--) {
        uint64_t object = 2 + pick(h, OBJECTS);
        uint64_t what = pick(h, 8);
        if (what == 0 || !h->exists[object])
            change_namespace(h, b, object);
        else if (what == 1)
            add(h, b, random_inode(h, object));
        else if (what < 4)
            change_xattrs(h, b, object);
        else
            change_chunks(h, b, object);
    }
    ck_assert_int_eq(manifest_submit(h->f.manifest, b, &released), 0);
    manifest_released_free(&released);
}

static void
fold(struct history *h)
{
    struct manifest_batch *b = manifest_batch_new(h->f.db);
    manifest_batch_local_generation(b, (struct generation){h->generation},
        (struct lsn){h->generation * 100}, (struct db_counters){h->generation, h->generation}, 0);
    ck_assert_int_eq(manifest_submit(h->f.manifest, b, NULL), 0);
    h->generation++;
}

static int
add_remote(void *argument, const struct blob_record *blob)
{
    manifest_batch_blob_remote(argument, &blob->hash);
    return 0;
}

static void
publish(struct history *h)
{
    BUFFER_AUTO bytes = {0};
    BUFFER_AUTO copy = {0};
    fold(h);
    export_bytes(&h->f, manifest_export_unpublished, &bytes);
    import_bytes(&h->copy, &bytes);
    struct sha256 hash = sample_hash(h->sequence);
    struct manifest_batch *b = manifest_batch_new(h->f.db);
    struct manifest_reader *r = reader_of(&h->f);
    ck_assert_int_eq(manifest_read_unpublished_blobs(r, h->f.db, add_remote, b), 0);
    manifest_read_end(r);
    manifest_batch_published(
        b, (struct generation){h->generation - 1}, 0, ++h->sequence, &hash, bytes.length);
    ck_assert_int_eq(manifest_submit(h->f.manifest, b, NULL), 0);
    // Whoever imports a record notes its generation.
    b = manifest_batch_new(h->copy.db);
    struct generation_record g = {
        .generation = {h->generation - 1}, .sequence = h->sequence, .state = GENERATION_RETAINED};
    manifest_batch_note_generation(b, &g);
    ck_assert_int_eq(manifest_submit(h->copy.manifest, b, NULL), 0);
    export_bytes(&h->f, manifest_export, &bytes);
    export_bytes(&h->copy, manifest_export, &copy);
    ck_assert_uint_eq(bytes.length, copy.length);
    ck_assert_mem_eq(bytes.data, copy.data, copy.length);
    ck_assert_int_eq(manifest_check(h->f.manifest, h->f.db), 0);
    ck_assert_int_eq(manifest_check(h->copy.manifest, h->copy.db), 0);
}

// The whole state, imported into an empty db, exports the same.
static void
export_and_import(struct history *h)
{
    BUFFER_AUTO bytes = {0};
    BUFFER_AUTO copy = {0};
    struct fixture empty = fixture_new(0);
    export_bytes(&h->f, manifest_export, &bytes);
    import_bytes(&empty, &bytes);
    export_bytes(&empty, manifest_export, &copy);
    ck_assert_uint_gt(copy.length, 100);
    ck_assert_uint_eq(bytes.length, copy.length);
    ck_assert_mem_eq(bytes.data, copy.data, copy.length);
    fixture_free(&empty);
}

START_TEST(published_histories_arrive_as_they_are)
{
    struct history h = {.generation = 1, .random = (uint64_t)_i * 1000000};
    h.f = fixture_new(0);
    h.copy = fixture_new(0);
    struct change root = sample_inode(1, S_IFDIR | 0755, 2, 0);
    ck_assert_int_eq(submit_changes(h.f.manifest, h.f.db, &root, 1, 1, RESIDENCY_LOCAL, NULL), 0);
    for (int round = 0; round < 40; round++) {
        for (uint64_t n = pick(&h, 8); n > 0; n--)
            random_batch(&h);
        if (pick(&h, 3) > 0)
            fold(&h);
        else
            publish(&h);
    }
    publish(&h);
    export_and_import(&h);
    fixture_free(&h.f);
    fixture_free(&h.copy);
}
END_TEST

START_TEST(applying_an_export_twice_is_applying_it_once)
{
    struct history h = {.generation = 1};
    BUFFER_AUTO bytes = {0};
    BUFFER_AUTO once = {0};
    h.f = fixture_new(0);
    h.copy = fixture_new(0);
    for (int i = 0; i < 30; i++)
        random_batch(&h);
    export_bytes(&h.f, manifest_export_unpublished, &bytes);
    import_bytes(&h.copy, &bytes);
    export_bytes(&h.copy, manifest_export, &once);
    import_bytes(&h.copy, &bytes);
    export_bytes(&h.copy, manifest_export, &bytes);
    ck_assert_uint_eq(bytes.length, once.length);
    ck_assert_mem_eq(bytes.data, once.data, once.length);
    fixture_free(&h.f);
    fixture_free(&h.copy);
}
END_TEST

// ---- jobs ---------------------------------------------------------------------------------------

static struct job_record
sample_job(enum job_kind kind, enum job_state state)
{
    return (struct job_record){.kind = kind,
        .state = state,
        .token = sample_uuid(3),
        .checkpoint_id = sample_uuid(4),
        .generation = {5},
        .cut = {6},
        .created_ms = 7,
        .updated_ms = 8,
        .lease_expires_ms = 9,
        .done = 7,
        .total = 12,
        .error = -EIO,
        .retryable = true,
        .stage = "upload",
        .cause = "connection reset"};
}

static int
put_job(struct fixture *f, struct job_record *job)
{
    struct manifest_batch *b = manifest_batch_new(f->db);
    manifest_batch_put_job(b, job);
    return manifest_submit(f->manifest, b, NULL);
}

static int
copy_job(void *argument, const struct job_record *job)
{
    *(struct job_record *)argument = *job;
    return 42;
}

static int
count_job(void *argument, const struct job_record *job)
{
    ck_assert_uint_ne(job->id, 0);
    ++*(int *)argument;
    return 0;
}

static int
jobs_of(struct fixture *f)
{
    int count = 0;
    struct manifest_reader *r = reader_of(f);
    ck_assert_int_eq(manifest_read_jobs(r, f->db, count_job, &count), 0);
    manifest_read_end(r);
    return count;
}

START_TEST(jobs_come_back)
{
    struct fixture f = fixture_new(0);
    struct job_record job = sample_job(JOB_CREATE_CHECKPOINT, JOB_IN_FLIGHT);
    struct job_record back = {0};
    ck_assert_int_eq(put_job(&f, &job), 0);
    ck_assert_uint_ne(job.id, 0);
    fixture_reopen(&f, 0);
    struct manifest_reader *r = reader_of(&f);
    ck_assert_int_eq(manifest_read_jobs(r, f.db, copy_job, &back), 42);
    manifest_read_end(r);
    ck_assert_uint_eq(back.id, job.id);
    ck_assert(back.kind == job.kind && back.state == job.state);
    ck_assert(uuid_equal(&back.token, &job.token));
    ck_assert(uuid_equal(&back.checkpoint_id, &job.checkpoint_id));
    ck_assert(back.generation.v == 5 && back.cut.v == 6 && back.created_ms == 7);
    ck_assert(back.updated_ms == 8 && back.lease_expires_ms == 9 && back.done == 7);
    ck_assert(back.total == 12 && back.error == -EIO && back.retryable);
    ck_assert_str_eq(back.stage, "upload");
    ck_assert_str_eq(back.cause, "connection reset");
    fixture_free(&f);
}
END_TEST

START_TEST(one_unfinished_job_of_a_kind)
{
    struct fixture f = fixture_new(0);
    struct job_record first = sample_job(JOB_CREATE_CHECKPOINT, JOB_PENDING);
    struct job_record second = sample_job(JOB_CREATE_CHECKPOINT, JOB_PENDING);
    struct job_record other = sample_job(JOB_PRUNE_CHECKPOINT, JOB_PENDING);
    ck_assert_int_eq(put_job(&f, &first), 0);
    ck_assert_int_eq(put_job(&f, &second), -EEXIST);
    ck_assert_uint_eq(second.id, 0);
    ck_assert_int_eq(put_job(&f, &other), 0);
    first.state = JOB_IN_FLIGHT;
    ck_assert_int_eq(put_job(&f, &first), 0);
    ck_assert_int_eq(put_job(&f, &second), -EEXIST);
    first.state = JOB_COMPLETED;
    ck_assert_int_eq(put_job(&f, &first), 0);
    ck_assert_int_eq(put_job(&f, &second), 0);
    ck_assert_uint_gt(second.id, first.id);
    // A finished job cannot be taken up again while another one waits.
    first.state = JOB_PENDING;
    ck_assert_int_eq(put_job(&f, &first), -EEXIST);
    ck_assert_int_eq(jobs_of(&f), 3);
    struct manifest_batch *b = manifest_batch_new(f.db);
    manifest_batch_remove_job(b, second.id);
    manifest_batch_remove_job(b, 12345);
    manifest_batch_put_job(b, &first);
    ck_assert_int_eq(manifest_submit(f.manifest, b, NULL), 0);
    ck_assert_int_eq(jobs_of(&f), 2);
    // A job of another db is another matter.
    struct fixture g = {.manifest = f.manifest, .db = fixture_create_db(&f, 2)};
    struct job_record elsewhere = sample_job(JOB_CREATE_CHECKPOINT, JOB_PENDING);
    ck_assert_int_eq(put_job(&g, &elsewhere), 0);
    // Changing its kind frees the old one's place.
    first.kind = JOB_VERIFY_MANIFEST;
    ck_assert_int_eq(put_job(&f, &first), 0);
    second.id = 0;
    ck_assert_int_eq(put_job(&f, &second), 0);
    second.state = JOB_FAILED;
    ck_assert_int_eq(put_job(&f, &second), 0);
    // A kind of a later program is kept, an impossible state is not.
    struct job_record later = sample_job((enum job_kind)9, JOB_PENDING);
    ck_assert_int_eq(put_job(&f, &later), 0);
    struct job_record bad = sample_job(JOB_CREATE_CHECKPOINT, (enum job_state)9);
    ck_assert_int_eq(put_job(&f, &bad), -EINVAL);
    fixture_free(&f);
}
END_TEST

// ---- the change log -----------------------------------------------------------------------------

struct log_walk {
    uint64_t first, last, count;
    struct manifest_change_record newest;
    struct sha256 blob;
};

static int
walk_log(void *argument, const struct manifest_change_record *record)
{
    struct log_walk *w = argument;
    if (w->count++ == 0)
        w->first = record->sequence;
    else
        ck_assert_uint_eq(record->sequence, w->last + 1);
    w->last = record->sequence;
    w->newest = *record;
    if (record->blob_count > 0)
        memcpy(w->blob.b, record->blobs, sizeof(w->blob.b));
    return 0;
}

static struct log_walk
read_log(struct fixture *f, uint64_t after)
{
    struct log_walk w = {0};
    struct manifest_reader *r = reader_of(f);
    ck_assert_int_eq(manifest_read_change_log(r, after, walk_log, &w), 0);
    manifest_read_end(r);
    return w;
}

START_TEST(each_batch_is_one_change_record)
{
    struct fixture f = fixture_new(0);
    uint64_t before = read_log(&f, 0).last;
    SUBMIT(&f, 1, sample_inode(1, S_IFDIR | 0755, 2, 1), sample_inode(2, S_IFREG | 0600, 1, 0),
        sample_dirent(1, 2, 2, DT_REG, "a"), sample_xattr(2, "user.a", "", 0), sample_blob(1, 100),
        sample_blob(2, 100), sample_chunk(5, 2, 0, 1, 1, 100), sample_delta(5, 2, 1, 0, 10));
    struct log_walk w = read_log(&f, before);
    ck_assert_uint_eq(w.count, 1);
    ck_assert_uint_eq(w.first, before + 1);
    ck_assert(w.newest.db.v == f.db.v && w.newest.inodes == 2 && w.newest.dirents == 1);
    ck_assert(w.newest.xattrs == 1 && w.newest.chunks == 1 && w.newest.deltas == 1);
    ck_assert_uint_eq(w.newest.blob_count, 0); // not in the store: not named
    // Publication names the blobs it knows.
    struct sha256 known = sample_hash(1);
    struct sha256 unknown = sample_hash(77);
    struct manifest_batch *b = manifest_batch_new(f.db);
    manifest_batch_published(b, (struct generation){1}, 0, 1, &known, 10);
    manifest_batch_blob_remote(b, &known);
    manifest_batch_blob_remote(b, &unknown);
    ck_assert_int_eq(manifest_submit(f.manifest, b, NULL), 0);
    w = read_log(&f, before + 1);
    ck_assert_uint_eq(w.count, 1);
    ck_assert_uint_eq(w.newest.blob_count, 1);
    ck_assert_uint_eq(w.newest.published.v, 1);
    ck_assert(sha256_equal(&w.blob, &known));
    // A refused batch leaves no record.
    REFUSE(&f, -EINVAL, sample_delta(99, 2, 1, 0, 10));
    ck_assert_uint_eq(read_log(&f, before + 2).count, 0);
    ck_assert_uint_eq(read_log(&f, UINT64_MAX).count, 0);
    fixture_free(&f);
}
END_TEST

START_TEST(change_log_is_trimmed)
{
    struct fixture f = fixture_new(0);
    for (int i = 0; i < 1100; i++)
        SUBMIT(&f, 0, sample_inode(2, S_IFREG | 0600, 0, (uint64_t)i));
    struct log_walk w = read_log(&f, 0);
    ck_assert_uint_eq(w.count, 1024);
    ck_assert_uint_eq(w.last, 1101); // the first batch made the db
    fixture_reopen(&f, 0);
    SUBMIT(&f, 0, sample_inode(2, S_IFREG | 0600, 0, 0));
    w = read_log(&f, 0);
    ck_assert_uint_eq(w.count, 1024);
    ck_assert_uint_eq(w.last, 1102);
    ck_assert_uint_eq(w.first, 79);
    fixture_free(&f);
}
END_TEST

static int
put_cursor(struct fixture *f, const char *name, uint64_t sequence)
{
    struct change_cursor cursor = {.sequence = sequence};
    snprintf(cursor.name, sizeof(cursor.name), "%s", name);
    struct manifest_batch *b = manifest_batch_new(f->db);
    manifest_batch_put_cursor(b, &cursor);
    return manifest_submit(f->manifest, b, NULL);
}

START_TEST(subscribers_keep_what_they_have_not_read)
{
    struct fixture f = fixture_new(0);
    struct change_cursor cursor;
    ck_assert_int_eq(put_cursor(&f, "", 0), -EINVAL);
    ck_assert_int_eq(put_cursor(&f, "early", 100), -EINVAL);
    ck_assert_int_eq(put_cursor(&f, "slow", 1), 0);
    for (int i = 0; i < 1500; i++)
        SUBMIT(&f, 0, sample_inode(2, S_IFREG | 0600, 0, (uint64_t)i));
    struct log_walk w = read_log(&f, 1);
    ck_assert_uint_eq(w.first, 2);
    ck_assert_uint_eq(w.count, w.last - 1);
    // It reads on, and what it has read goes.
    uint64_t last = w.last;
    ck_assert_int_eq(put_cursor(&f, "slow", 300), 0);
    w = read_log(&f, 0);
    ck_assert_uint_eq(w.last, last); // which is no news
    SUBMIT(&f, 0, sample_inode(2, S_IFREG | 0600, 0, 7));
    w = read_log(&f, 0);
    ck_assert_uint_eq(w.first, 301);
    fixture_reopen(&f, 0);
    struct manifest_reader *r = reader_of(&f);
    ck_assert_int_eq(manifest_read_cursor(r, "slow", &cursor), 0);
    ck_assert_uint_eq(cursor.sequence, 300);
    ck_assert_int_eq(manifest_read_cursor(r, "other", &cursor), -ENOENT);
    ck_assert_int_eq(manifest_read_cursor(r, "", &cursor), -ENOENT);
    manifest_read_end(r);
    struct manifest_batch *b = manifest_batch_new(f.db);
    manifest_batch_drop_cursor(b, "slow");
    manifest_batch_drop_cursor(b, "other");
    ck_assert_int_eq(manifest_submit(f.manifest, b, NULL), 0);
    SUBMIT(&f, 0, sample_inode(2, S_IFREG | 0600, 0, 8));
    w = read_log(&f, 0);
    ck_assert_uint_eq(w.count, 1024);
    fixture_free(&f);
}
END_TEST

START_TEST(a_subscriber_that_reads_nothing_is_dropped)
{
    struct fixture f = fixture_new(0);
    struct change_cursor cursor;
    struct manifest_reader *r;
    ck_assert_int_eq(put_cursor(&f, "dead", 1), 0);
    for (int i = 0; i < 65540; i += 4)
        SUBMIT(&f, 0, sample_inode(2, S_IFREG | 0600, 0, (uint64_t)i));
    r = reader_of(&f);
    ck_assert_int_eq(manifest_read_cursor(r, "dead", &cursor), 0);
    manifest_read_end(r);
    struct log_walk w = read_log(&f, 0);
    for (uint64_t i = w.last; i < 65540; i++)
        SUBMIT(&f, 0, sample_inode(2, S_IFREG | 0600, 0, i));
    r = reader_of(&f);
    ck_assert_int_eq(manifest_read_cursor(r, "dead", &cursor), -ENOENT);
    manifest_read_end(r);
    // Each batch deletes some.
    for (uint64_t i = 0; i < 66; i++)
        SUBMIT(&f, 0, sample_inode(2, S_IFREG | 0600, 0, i));
    w = read_log(&f, 0);
    ck_assert_uint_eq(w.count, 1024);
    fixture_free(&f);
}
END_TEST

// ---- damaged entries ----------------------------------------------------------------------------

// Overwrites (or with a NULL value deletes) an entry behind the manifest's back.
static void
tamper(struct fixture *f, enum manifest_table table, const struct schema_key *key,
    const void *value, size_t n)
{
    struct lmdb_txn *txn;
    ck_assert_int_eq(lmdb_write_begin(f->manifest->env, &txn), 0);
    int rc = value ? lmdb_put(txn, table, key->bytes, key->length, value, n)
                   : lmdb_delete(txn, table, key->bytes, key->length);
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(lmdb_write_commit(txn), 0);
}

static struct fixture
small_state(void)
{
    struct fixture f = fixture_new(0);
    SUBMIT(&f, 1, sample_inode(1, S_IFDIR | 0755, 2, 1), sample_inode(2, S_IFREG | 0600, 1, 0),
        sample_inode(3, S_IFREG | 0600, 0, 0), sample_dirent(1, 2, 2, DT_REG, "a"),
        sample_xattr(2, "user.a", "", 0), sample_blob(1, 100), sample_chunk(5, 2, 0, 1, 1, 100),
        sample_delta(5, 2, 1, 0, 10));
    struct job_record job = sample_job(JOB_CREATE_CHECKPOINT, JOB_PENDING);
    ck_assert_int_eq(put_job(&f, &job), 0);
    return f;
}

static void
key_of(struct fixture *f, enum manifest_table table, struct schema_key *key)
{
    struct sha256 hash = sample_hash(1);
    switch (table) {
    case TABLE_INODE:
    case TABLE_JOB_QUEUE:
        schema_key_number(key, f->db, table == TABLE_INODE ? 2 : 1);
        break;
    case TABLE_ORPHAN_INDEX:
        schema_key_number(key, f->db, 3);
        break;
    case TABLE_DIRENT:
        schema_key_pair(key, f->db, 1, 2);
        break;
    case TABLE_XATTR:
        schema_key_xattr(key, f->db, (struct object_id){2}, "user.a", 6);
        break;
    case TABLE_CHUNK_CATALOG:
        schema_key_number(key, f->db, 5);
        break;
    case TABLE_OBJECT_CHUNKS:
        schema_key_pair(key, f->db, 2, 0);
        break;
    case TABLE_CHUNK_DELTA_INDEX:
        schema_key_pair(key, f->db, 5, 2);
        break;
    case TABLE_BLOB_REFS:
        schema_key_blob(key, &hash, f->db);
        break;
    case TABLE_UNPUBLISHED_BLOBS:
        schema_key_unpublished_blob(key, f->db, &hash);
        break;
    case TABLE_JOB_PENDING_INDEX:
        schema_key_pending_job(key, f->db, &(struct job_record){.kind = JOB_CREATE_CHECKPOINT});
        break;
    default:
        ck_abort();
    }
}

static const enum manifest_table checked_tables[] = {TABLE_INODE, TABLE_ORPHAN_INDEX, TABLE_DIRENT,
    TABLE_XATTR, TABLE_CHUNK_CATALOG, TABLE_OBJECT_CHUNKS, TABLE_CHUNK_DELTA_INDEX, TABLE_BLOB_REFS,
    TABLE_UNPUBLISHED_BLOBS, TABLE_JOB_PENDING_INDEX};

START_TEST(check_finds_missing_entries)
{
    for (size_t i = 0; i < ARRAY_LENGTH(checked_tables); i++) {
        if (checked_tables[i] == TABLE_XATTR)
            continue; // nothing refers to it
        struct fixture f = small_state();
        struct schema_key key;
        ck_assert_int_eq(manifest_check(f.manifest, f.db), 0);
        key_of(&f, checked_tables[i], &key);
        tamper(&f, checked_tables[i], &key, NULL, 0);
        ck_assert_msg(manifest_check(f.manifest, f.db) > 0, "missing in %s: not found",
            manifest_table_names[checked_tables[i]]);
        manifest_close(f.manifest);
        unit_directory_remove(f.directory);
    }
}
END_TEST

static int
ignore_change(void *argument, const struct change *c)
{
    (void)argument;
    (void)c;
    return 0;
}

START_TEST(values_that_do_not_decode_are_refused)
{
    static const uint8_t garbage[200] = {9};
    const size_t lengths[] = {1, 2, 10, sizeof(garbage)};
    for (size_t i = 0; i < ARRAY_LENGTH(checked_tables); i++) {
        enum manifest_table table = checked_tables[i];
        if (table == TABLE_ORPHAN_INDEX || table == TABLE_UNPUBLISHED_BLOBS)
            continue; // the key says it all
        for (size_t n = 0; n < ARRAY_LENGTH(lengths); n++) {
            struct fixture f = small_state();
            struct schema_key key;
            key_of(&f, table, &key);
            tamper(&f, table, &key, garbage, lengths[n]);
            ck_assert_int_gt(manifest_check(f.manifest, f.db), 0);
            struct manifest_reader *r = reader_of(&f);
            int rc = manifest_export(r, f.db, ignore_change, NULL);
            ck_assert_int_eq(rc, table == TABLE_JOB_PENDING_INDEX ? 0 : -EBADMSG);
            manifest_read_end(r);
            manifest_close(f.manifest);
            unit_directory_remove(f.directory);
        }
    }
}
END_TEST

START_TEST(damaged_entries_fail_the_batches_that_meet_them)
{
    static const uint8_t garbage[30] = {9};
    struct fixture f = small_state();
    struct schema_key key;
    struct inode_record inode;
    struct chunk_entry chunk;
    f.manifest->contradictions_are_meant = true;
    key_of(&f, TABLE_INODE, &key);
    tamper(&f, TABLE_INODE, &key, garbage, sizeof(garbage));
    key_of(&f, TABLE_CHUNK_CATALOG, &key);
    tamper(&f, TABLE_CHUNK_CATALOG, &key, garbage, sizeof(garbage));
    ck_assert_int_eq(read_inode(&f, 2, &inode), -EBADMSG);
    ck_assert_int_eq(read_chunk(&f, 2, 0, &chunk), -EBADMSG);
    REFUSE(&f, -EBADMSG, sample_inode(2, S_IFREG | 0600, 1, 0));
    REFUSE(&f, -EBADMSG, sample_delete_chunk(2, 0));
    REFUSE(&f, -EBADMSG, sample_delta(5, 9, 1, 0, 10));
    SUBMIT(&f, 0, sample_inode(4, S_IFREG | 0600, 0, 0)); // others go on
    manifest_close(f.manifest);
    unit_directory_remove(f.directory);
}
END_TEST

#ifdef CKPTFS_DEBUG
// Expects SIGABRT.
START_TEST(a_commit_that_contradicts_itself_ends_a_developer_build)
{
    struct fixture f = fixture_new(0);
    SUBMIT(&f, 1, sample_inode(1, S_IFDIR | 0755, 2, 1), sample_inode(2, S_IFREG | 0600, 1, 0),
        sample_dirent(1, 2, 2, DT_REG, "a"));
    SUBMIT(&f, 2, sample_inode(1, S_IFDIR | 0755, 2, 7));
}
END_TEST
#endif

START_TEST(newer_roots_are_refused)
{
    struct fixture f = fixture_new(0);
    struct schema_key key;
    BUFFER_AUTO value = {0};
    struct uuid id = sample_uuid(1);
    struct manifest_options options = {.no_sync = true};
    schema_key_runtime(&key, RUNTIME_ROOT, (struct db_id){0});
    schema_encode_root(&id, &value);
    value.data[2] = MANIFEST_FORMAT_VERSION + 1;
    tamper(&f, TABLE_RUNTIME_STATE, &key, value.data, value.length);
    manifest_close(f.manifest);
    ck_assert_int_eq(manifest_open(f.directory, &options, &f.manifest), -ENOTSUP);
    ck_assert_ptr_null(f.manifest);
    unit_directory_remove(f.directory);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("manifest_state");
#define ADD(test) unit_add(s, #test, test, 240)
    TCase *histories = tcase_create("published_histories_arrive_as_they_are");
    tcase_set_timeout(histories, 240);
    tcase_add_loop_test(histories, published_histories_arrive_as_they_are, 0, 6);
    suite_add_tcase(s, histories);
    ADD(applying_an_export_twice_is_applying_it_once);
    ADD(jobs_come_back);
    ADD(one_unfinished_job_of_a_kind);
    ADD(each_batch_is_one_change_record);
    ADD(change_log_is_trimmed);
    ADD(subscribers_keep_what_they_have_not_read);
    ADD(a_subscriber_that_reads_nothing_is_dropped);
    ADD(check_finds_missing_entries);
    ADD(values_that_do_not_decode_are_refused);
    ADD(damaged_entries_fail_the_batches_that_meet_them);
    ADD(newer_roots_are_refused);
#ifdef CKPTFS_DEBUG
    TCase *ends = tcase_create("a_commit_that_contradicts_itself_ends_a_developer_build");
    tcase_add_test_raise_signal(
        ends, a_commit_that_contradicts_itself_ends_a_developer_build, SIGABRT);
    suite_add_tcase(s, ends);
#endif
    return unit_run(s);
}
