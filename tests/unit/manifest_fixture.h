// SPDX-License-Identifier: Apache-2.0
// A manifest in a scratch directory, and short ways to change and compare it.
#ifndef CKPTFS_TESTS_MANIFEST_FIXTURE_H
#define CKPTFS_TESTS_MANIFEST_FIXTURE_H

#include "unit.h"

#include "manifest/manifest.h"
#include "manifest_samples.h"

struct fixture {
    char *directory;
    struct manifest *manifest;
    struct db_id db;
};

static inline void
fixture_open(struct fixture *f, uint64_t map_bytes)
{
    struct manifest_options options = {.map_bytes = map_bytes, .no_sync = true};
    ck_assert_int_eq(manifest_open(f->directory, &options, &f->manifest), 0);
}

static inline struct db_record
sample_db(uint32_t volume_number)
{
    return (struct db_record){
        .state = DB_STATE_READY,
        .place = "file:///srv/bucket",
        .tenant = "acme",
        .volume_number = volume_number,
        .volume = sample_uuid(1),
        .name_key = sample_uuid(2),
        .counters = {2, 1},
        .next = {1},
    };
}

static inline struct db_id
fixture_create_db(struct fixture *f, uint32_t volume_number)
{
    struct db_record db = sample_db(volume_number);
    ck_assert_int_eq(manifest_create_db(f->manifest, &db), 0);
    return db.id;
}

static inline struct fixture
fixture_new(uint64_t map_bytes)
{
    struct fixture f = {.directory = unit_directory_new()};
    fixture_open(&f, map_bytes);
    f.db = fixture_create_db(&f, 1);
    return f;
}

static inline void
fixture_reopen(struct fixture *f, uint64_t map_bytes)
{
    manifest_close(f->manifest);
    fixture_open(f, map_bytes);
}

static inline void
fixture_free(struct fixture *f)
{
    ck_assert_int_eq(manifest_check(f->manifest, f->db), 0);
    manifest_close(f->manifest);
    unit_directory_remove(f->directory);
}

// ---- batches ------------------------------------------------------------------------------------

// Submits the changes as one batch, noted under `generation` unless it is 0.
static inline int
submit_changes(struct manifest *m, struct db_id db, const struct change *changes, size_t count,
    uint64_t generation, uint8_t residency, struct manifest_released *released_out)
{
    struct manifest_batch *b = manifest_batch_new(db);
    manifest_batch_set_residency(b, residency);
    for (size_t i = 0; i < count; i++)
        manifest_batch_change(b, &changes[i], generation > 0, (struct generation){generation});
    return manifest_submit(m, b, released_out);
}

// Submits changes that must succeed and release nothing.
#define SUBMIT(f, generation, ...)                                                                 \
    do {                                                                                           \
        struct change submitted[] = {__VA_ARGS__};                                                 \
        struct manifest_released released;                                                         \
        ck_assert_int_eq(submit_changes((f)->manifest, (f)->db, submitted,                         \
                             ARRAY_LENGTH(submitted), generation, RESIDENCY_LOCAL, &released),     \
            0);                                                                                    \
        ck_assert_uint_eq(released.count, 0);                                                      \
        manifest_released_free(&released);                                                         \
    } while (0)

// Submits changes that must be refused.
#define REFUSE(f, error, ...)                                                                      \
    do {                                                                                           \
        struct change submitted[] = {__VA_ARGS__};                                                 \
        ck_assert_int_eq(submit_changes((f)->manifest, (f)->db, submitted,                         \
                             ARRAY_LENGTH(submitted), 0, RESIDENCY_LOCAL, NULL),                   \
            error);                                                                                \
    } while (0)

// Submits changes that must succeed and let go of exactly the blobs in `gone`, in that order.
#define SUBMIT_RELEASING(f, gone, ...)                                                             \
    do {                                                                                           \
        struct change submitted[] = {__VA_ARGS__};                                                 \
        struct manifest_released released;                                                         \
        ck_assert_int_eq(submit_changes((f)->manifest, (f)->db, submitted,                         \
                             ARRAY_LENGTH(submitted), 0, RESIDENCY_LOCAL, &released),              \
            0);                                                                                    \
        ck_assert_uint_eq(released.count, ARRAY_LENGTH(gone));                                     \
        for (size_t i = 0; i < released.count; i++) {                                              \
            struct sha256 expected = sample_hash((gone)[i]);                                       \
            ck_assert(sha256_equal(&released.blobs[i], &expected));                                \
        }                                                                                          \
        manifest_released_free(&released);                                                         \
    } while (0)

// ---- reading ------------------------------------------------------------------------------------

static inline struct manifest_reader *
reader_of(struct fixture *f)
{
    struct manifest_reader *r;
    ck_assert_int_eq(manifest_read_begin(f->manifest, &r), 0);
    return r;
}

static inline struct db_record
read_db(struct fixture *f)
{
    struct db_record db;
    struct manifest_reader *r = reader_of(f);
    ck_assert_int_eq(manifest_read_db(r, f->db, &db), 0);
    manifest_read_end(r);
    return db;
}

static inline struct db_totals
read_totals(struct fixture *f)
{
    struct db_totals totals;
    struct manifest_reader *r = reader_of(f);
    ck_assert_int_eq(manifest_read_totals(r, f->db, &totals), 0);
    manifest_read_end(r);
    return totals;
}

static inline int
read_blob(struct fixture *f, uint64_t blob, struct blob_record *out)
{
    struct sha256 hash = sample_hash(blob);
    struct manifest_reader *r = reader_of(f);
    int rc = manifest_read_blob(r, f->db, &hash, out);
    manifest_read_end(r);
    return rc;
}

static inline int
read_inode(struct fixture *f, uint64_t object, struct inode_record *out)
{
    struct manifest_reader *r = reader_of(f);
    int rc = manifest_read_inode(r, f->db, (struct object_id){object}, out);
    manifest_read_end(r);
    return rc;
}

static inline int
read_chunk(struct fixture *f, uint64_t object, uint64_t index, struct chunk_entry *out)
{
    struct manifest_reader *r = reader_of(f);
    int rc =
        manifest_read_chunk(r, f->db, (struct object_id){object}, (struct chunk_index){index}, out);
    manifest_read_end(r);
    return rc;
}

static inline int
append_change(void *argument, const struct change *c)
{
    change_encode(c, argument);
    return 0;
}

typedef int export_function(
    struct manifest_reader *r, struct db_id db, manifest_visit_change *visit, void *argument);

// The export as bytes; clears `out` first.
static inline void
export_bytes(struct fixture *f, export_function *export, struct buffer *out)
{
    struct manifest_reader *r = reader_of(f);
    buffer_clear(out);
    ck_assert_int_eq(export(r, f->db, append_change, out), 0);
    manifest_read_end(r);
}

// Applies exported bytes to another db, as an importer does.
static inline void
import_bytes(struct fixture *f, const struct buffer *bytes)
{
    struct byte_reader in = byte_reader_over(bytes->data, bytes->length);
    struct manifest_batch *b = manifest_batch_new(f->db);
    manifest_batch_set_residency(b, RESIDENCY_REMOTE);
    while (byte_reader_left(&in) > 0) {
        struct change c;
        ck_assert_int_eq(change_decode(&in, &c), 0);
        manifest_batch_change(b, &c, false, (struct generation){0});
    }
    ck_assert_int_eq(manifest_submit(f->manifest, b, NULL), 0);
}

#endif
