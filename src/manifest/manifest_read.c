// SPDX-License-Identifier: Apache-2.0
#include <errno.h>

#include "manifest/manifest_internal.h"

int
manifest_read_begin(struct manifest *m, struct manifest_reader **reader_out)
{
    struct lmdb_txn *txn;
    int rc = lmdb_read_begin(m->env, &txn);
    *reader_out = (struct manifest_reader *)txn;
    return rc;
}

void
manifest_read_end(struct manifest_reader *r)
{
    if (r)
        lmdb_read_end(manifest_reader_txn(r));
}

// ---- single entries -----------------------------------------------------------------------------

int
manifest_read_db(struct manifest_reader *r, struct db_id db, struct db_record *db_out)
{
    return manifest_load_db(manifest_reader_txn(r), db, db_out);
}

int
manifest_read_inode(struct manifest_reader *r, struct db_id db, struct object_id object,
    struct inode_record *inode_out)
{
    return manifest_load_inode(manifest_reader_txn(r), db, object, inode_out);
}

int
manifest_read_xattr(struct manifest_reader *r, struct db_id db, struct object_id object,
    const char *name, size_t name_length, struct xattr_record *xattr_out)
{
    if (name_length == 0 || name_length > XATTR_NAME_BYTES_MAX)
        return -ENOENT;
    struct schema_key key;
    struct lmdb_value value;
    schema_key_xattr(&key, db, object, name, name_length);
    int rc = lmdb_get(manifest_reader_txn(r), TABLE_XATTR, key.bytes, key.length, &value);
    if (rc < 0)
        return rc;
    xattr_out->object = object;
    xattr_out->name = name;
    xattr_out->name_length = (uint8_t)name_length;
    return schema_decode_xattr(value.data, value.length, xattr_out)
               ? 0
               : manifest_bad_entry(TABLE_XATTR);
}

int
manifest_read_chunk(struct manifest_reader *r, struct db_id db, struct object_id object,
    struct chunk_index index, struct chunk_entry *chunk_out)
{
    struct chunk_id id;
    int rc = manifest_load_object_chunk(manifest_reader_txn(r), db, object, index, &id);
    if (rc < 0)
        return rc;
    rc = manifest_load_chunk(manifest_reader_txn(r), db, id, chunk_out);
    return rc == -ENOENT ? manifest_bad_entry(TABLE_OBJECT_CHUNKS) : rc;
}

int
manifest_read_blob(struct manifest_reader *r, struct db_id db, const struct sha256 *hash,
    struct blob_record *blob_out)
{
    return manifest_load_blob(manifest_reader_txn(r), db, hash, blob_out);
}

int
manifest_read_namespace(
    struct manifest_reader *r, struct db_id db, uint32_t id, struct namespace_record *space_out)
{
    return manifest_load_namespace(manifest_reader_txn(r), db, id, space_out);
}

int
manifest_read_totals(struct manifest_reader *r, struct db_id db, struct db_totals *totals_out)
{
    return manifest_load_totals(manifest_reader_txn(r), db, totals_out);
}

// ---- walks --------------------------------------------------------------------------------------

int
manifest_read_dbs(struct manifest_reader *r, manifest_visit_db *visit, void *argument)
{
    struct schema_key from = {0};
    struct table_walk w;
    int rc = table_walk_begin(&w, manifest_reader_txn(r), TABLE_DB, &from, 0);
    while (rc > 0) {
        struct db_id id;
        struct db_record db;
        if (!schema_read_db(w.key.data, w.key.length, &id))
            rc = manifest_bad_entry(TABLE_DB);
        else
            rc = manifest_read_db(r, id, &db);
        if (rc == 0)
            rc = visit(argument, &db);
        if (rc == 0)
            rc = table_walk_next(&w);
        else
            break;
    }
    table_walk_end(&w);
    return rc;
}

int
manifest_read_dirents(struct manifest_reader *r, struct db_id db, struct object_id parent,
    uint64_t from, uint64_t to, manifest_visit_dirent *visit, void *argument)
{
    struct schema_key key;
    struct table_walk w;
    schema_key_pair(&key, db, parent.v, from);
    int rc = table_walk_begin(&w, manifest_reader_txn(r), TABLE_DIRENT, &key, NUMBER_PREFIX_BYTES);
    while (rc > 0) {
        struct dirent_record dirent;
        if (!schema_read_pair(w.key.data, w.key.length, &dirent.parent.v, &dirent.cookie) ||
            !schema_decode_dirent(w.value.data, w.value.length, &dirent))
            rc = manifest_bad_entry(TABLE_DIRENT);
        else
            rc = dirent.cookie > to ? 0 : visit(argument, &dirent);
        if (rc != 0 || dirent.cookie > to)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

int
manifest_read_xattrs(struct manifest_reader *r, struct db_id db, struct object_id object,
    manifest_visit_xattr *visit, void *argument)
{
    struct schema_key key;
    struct table_walk w;
    schema_key_number(&key, db, object.v);
    int rc = table_walk_begin(&w, manifest_reader_txn(r), TABLE_XATTR, &key, NUMBER_PREFIX_BYTES);
    while (rc > 0) {
        struct xattr_record xattr;
        if (!schema_read_xattr(w.key.data, w.key.length, &xattr) ||
            !schema_decode_xattr(w.value.data, w.value.length, &xattr))
            rc = manifest_bad_entry(TABLE_XATTR);
        else
            rc = visit(argument, &xattr);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

// Deltas are walked downwards: from the first key above those of the chunk.
static int
seek_newest_delta(struct lmdb_cursor *cursor, const struct schema_key *above, struct table_walk *w)
{
    int rc = lmdb_cursor_seek(cursor, above->bytes, above->length, &w->key, &w->value);
    if (rc == -ENOENT)
        return lmdb_cursor_last(cursor, &w->key, &w->value);
    return rc < 0 ? rc : lmdb_cursor_previous(cursor, &w->key, &w->value);
}

static bool
is_of_chunk(const struct table_walk *w, const struct schema_key *chunk)
{
    return w->key.length >= NUMBER_PREFIX_BYTES &&
           memcmp(w->key.data, chunk->bytes, NUMBER_PREFIX_BYTES) == 0;
}

int
manifest_read_deltas(struct manifest_reader *r, struct db_id db, struct chunk_id chunk,
    manifest_visit_delta *visit, void *argument)
{
    struct schema_key above;
    struct table_walk w;
    CLEANUP(lmdb_cursor_close_auto) struct lmdb_cursor *cursor = NULL;
    // No delta has the generation UINT64_MAX; if one had, it would only be left out.
    schema_key_pair(&above, db, chunk.v, UINT64_MAX);
    int rc = lmdb_cursor_open(manifest_reader_txn(r), TABLE_CHUNK_DELTA_INDEX, &cursor);
    if (rc == 0)
        rc = seek_newest_delta(cursor, &above, &w);
    while (rc == 0 && is_of_chunk(&w, &above)) {
        struct chunk_delta delta;
        if (!schema_read_pair(w.key.data, w.key.length, &delta.chunk.v, &delta.generation.v) ||
            !schema_decode_delta(w.value.data, w.value.length, &delta))
            return manifest_bad_entry(TABLE_CHUNK_DELTA_INDEX);
        rc = visit(argument, &delta);
        if (rc != 0)
            return rc;
        rc = lmdb_cursor_previous(cursor, &w.key, &w.value);
    }
    return rc == -ENOENT ? 0 : rc;
}

int
manifest_read_chunks(struct manifest_reader *r, struct db_id db, struct chunk_id from,
    manifest_visit_chunk *visit, void *argument)
{
    struct schema_key key;
    struct table_walk w;
    schema_key_number(&key, db, from.v);
    int rc =
        table_walk_begin(&w, manifest_reader_txn(r), TABLE_CHUNK_CATALOG, &key, DB_PREFIX_BYTES);
    while (rc > 0) {
        struct chunk_entry chunk;
        if (!schema_read_number(w.key.data, w.key.length, &chunk.id.v) ||
            !schema_decode_chunk(w.value.data, w.value.length, &chunk))
            rc = manifest_bad_entry(TABLE_CHUNK_CATALOG);
        else
            rc = visit(argument, &chunk);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

int
manifest_read_object_chunks(struct manifest_reader *r, struct db_id db, struct object_id object,
    struct chunk_index from, manifest_visit_object_chunk *visit, void *argument)
{
    struct schema_key key;
    struct table_walk w;
    schema_key_pair(&key, db, object.v, from.v);
    int rc = table_walk_begin(
        &w, manifest_reader_txn(r), TABLE_OBJECT_CHUNKS, &key, NUMBER_PREFIX_BYTES);
    while (rc > 0) {
        uint64_t number;
        struct chunk_index index;
        struct chunk_id id;
        uint32_t present_pages;
        if (!schema_read_pair(w.key.data, w.key.length, &number, &index.v) ||
            !schema_decode_object_chunk(w.value.data, w.value.length, &id, &present_pages))
            rc = manifest_bad_entry(TABLE_OBJECT_CHUNKS);
        else
            rc = visit(argument, index, id, present_pages);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

static int
walk_damage(struct manifest_reader *r, const struct schema_key *from, size_t prefix, uint64_t end,
    manifest_visit_damage *visit, void *argument)
{
    struct table_walk w;
    int rc = table_walk_begin(&w, manifest_reader_txn(r), TABLE_CHUNK_DAMAGE, from, prefix);
    while (rc > 0) {
        struct chunk_damage damage;
        if (!schema_read_pair(w.key.data, w.key.length, &damage.object.v, &damage.page.v) ||
            !schema_decode_damage(w.value.data, w.value.length, &damage))
            rc = manifest_bad_entry(TABLE_CHUNK_DAMAGE);
        else if (damage.page.v >= end)
            rc = 0;
        else if ((rc = visit(argument, &damage)) == 0)
            rc = table_walk_next(&w);
        else
            break;
    }
    table_walk_end(&w);
    return rc;
}

int
manifest_read_damage(struct manifest_reader *r, struct db_id db, struct object_id object,
    uint64_t first, uint64_t end, manifest_visit_damage *visit, void *argument)
{
    struct schema_key from;
    schema_key_pair(&from, db, object.v, first);
    return walk_damage(r, &from, NUMBER_PREFIX_BYTES, end, visit, argument);
}

int
manifest_read_all_damage(
    struct manifest_reader *r, struct db_id db, manifest_visit_damage *visit, void *argument)
{
    struct schema_key from;
    schema_key_db(&from, db);
    return walk_damage(r, &from, DB_PREFIX_BYTES, UINT64_MAX, visit, argument);
}

int
manifest_read_orphans(
    struct manifest_reader *r, struct db_id db, manifest_visit_object *visit, void *argument)
{
    struct schema_key key;
    struct table_walk w;
    schema_key_db(&key, db);
    int rc =
        table_walk_begin(&w, manifest_reader_txn(r), TABLE_ORPHAN_INDEX, &key, DB_PREFIX_BYTES);
    while (rc > 0) {
        struct object_id object;
        struct inode_record inode;
        rc = schema_read_number(w.key.data, w.key.length, &object.v)
                 ? manifest_read_inode(r, db, object, &inode)
                 : manifest_bad_entry(TABLE_ORPHAN_INDEX);
        if (rc == -ENOENT)
            rc = manifest_bad_entry(TABLE_ORPHAN_INDEX);
        if (rc == 0)
            rc = visit(argument, object, &inode);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

int
manifest_read_remote_blobs(struct manifest_reader *r, struct db_id db, const struct sha256 *from,
    manifest_visit_blob *visit, void *argument)
{
    struct schema_key key;
    struct table_walk w;
    schema_key_blob(&key, from, (struct db_id){0});
    int rc = table_walk_begin(&w, manifest_reader_txn(r), TABLE_BLOB_REFS, &key, 0);
    while (rc > 0) {
        struct blob_record blob;
        struct db_id owner;
        rc = schema_read_blob(w.key.data, w.key.length, &blob.hash, &owner) &&
                     schema_decode_blob(w.value.data, w.value.length, &blob)
                 ? 0
                 : manifest_bad_entry(TABLE_BLOB_REFS);
        if (rc == 0 && owner.v == db.v && blob.references > 0 &&
            (blob.residency & RESIDENCY_REMOTE))
            rc = visit(argument, &blob);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

int
manifest_read_unpublished_blobs(
    struct manifest_reader *r, struct db_id db, manifest_visit_blob *visit, void *argument)
{
    struct schema_key key;
    struct table_walk w;
    schema_key_db(&key, db);
    int rc = table_walk_begin(
        &w, manifest_reader_txn(r), TABLE_UNPUBLISHED_BLOBS, &key, DB_PREFIX_BYTES);
    while (rc > 0) {
        struct sha256 hash;
        struct blob_record blob;
        rc = schema_read_unpublished_blob(w.key.data, w.key.length, &hash)
                 ? manifest_read_blob(r, db, &hash, &blob)
                 : manifest_bad_entry(TABLE_UNPUBLISHED_BLOBS);
        if (rc == -ENOENT)
            rc = manifest_bad_entry(TABLE_UNPUBLISHED_BLOBS);
        if (rc == 0)
            rc = visit(argument, &blob);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

// 0 when it is not there.
static int
read_runtime_number(
    struct manifest_reader *r, enum runtime_item item, struct db_id db, uint64_t *number_out)
{
    struct schema_key key;
    struct lmdb_value value;
    *number_out = 0;
    schema_key_runtime(&key, item, db);
    int rc = lmdb_get(manifest_reader_txn(r), TABLE_RUNTIME_STATE, key.bytes, key.length, &value);
    if (rc == 0 && !schema_decode_u64(value.data, value.length, number_out))
        rc = manifest_bad_entry(TABLE_RUNTIME_STATE);
    return rc == -ENOENT ? 0 : rc;
}

int
manifest_read_flags(struct manifest_reader *r, struct db_id db, unsigned *flags_out)
{
    uint64_t changed;
    int rc = read_runtime_number(r, RUNTIME_FLAGS, db, &changed);
    *flags_out = DB_FLAGS_ALL & (DB_FLAGS_DEFAULT ^ (unsigned)changed);
    return rc;
}

int
manifest_read_swept(struct manifest_reader *r, struct db_id db, uint64_t *wall_ms_out)
{
    return read_runtime_number(r, RUNTIME_SWEPT, db, wall_ms_out);
}

int
manifest_read_jobs(
    struct manifest_reader *r, struct db_id db, manifest_visit_job *visit, void *argument)
{
    struct schema_key key;
    struct table_walk w;
    schema_key_db(&key, db);
    int rc = table_walk_begin(&w, manifest_reader_txn(r), TABLE_JOB_QUEUE, &key, DB_PREFIX_BYTES);
    while (rc > 0) {
        struct job_record job;
        if (!schema_read_number(w.key.data, w.key.length, &job.id) ||
            !schema_decode_job(w.value.data, w.value.length, &job))
            rc = manifest_bad_entry(TABLE_JOB_QUEUE);
        else
            rc = visit(argument, &job);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}
