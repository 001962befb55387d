// SPDX-License-Identifier: Apache-2.0
// Single entries and walks, for readers and the writer.
#include <errno.h>

#include "manifest/manifest_internal.h"
#include "platform/log.h"

int
manifest_bad_entry(enum manifest_table table)
{
    log_error("manifest.damaged", "table %s has an entry that does not decode",
        manifest_table_names[table]);
    return -EBADMSG;
}

static int
load(struct lmdb_txn *txn, enum manifest_table table, const struct schema_key *key,
    struct lmdb_value *value_out)
{
    return lmdb_get(txn, table, key->bytes, key->length, value_out);
}

// Older roots have no such entry, and an older program leaves the entry of an older generation
// behind.
static int
load_checkpoint_id(struct lmdb_txn *txn, struct db_record *db)
{
    struct schema_key key;
    struct lmdb_value value;
    struct generation generation;
    db->local_checkpoint = (struct uuid){{0}};
    schema_key_runtime(&key, RUNTIME_CHECKPOINT, db->id);
    int rc = load(txn, TABLE_RUNTIME_STATE, &key, &value);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (!schema_decode_checkpoint(value.data, value.length, &generation, &db->local_checkpoint))
        return manifest_bad_entry(TABLE_RUNTIME_STATE);
    if (generation.v != db->local.v)
        db->local_checkpoint = (struct uuid){{0}};
    return 0;
}

// As for the checkpoint id: an entry of another cut counts for nothing.
static int
load_log_end(struct lmdb_txn *txn, struct db_record *db)
{
    struct schema_key key;
    struct lmdb_value value;
    struct lsn cut;
    db->log_end.v = 0;
    schema_key_runtime(&key, RUNTIME_LOG_END, db->id);
    int rc = load(txn, TABLE_RUNTIME_STATE, &key, &value);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (!schema_decode_log_end(value.data, value.length, &cut, &db->log_end) ||
        db->log_end.v > cut.v)
        return manifest_bad_entry(TABLE_RUNTIME_STATE);
    if (cut.v != db->cut.v)
        db->log_end.v = 0;
    return 0;
}

static int
load_lowest(struct lmdb_txn *txn, struct db_record *db)
{
    struct schema_key key;
    struct lmdb_value value;
    db->lowest_sequence = 0;
    schema_key_runtime(&key, RUNTIME_LOWEST, db->id);
    int rc = load(txn, TABLE_RUNTIME_STATE, &key, &value);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return schema_decode_u64(value.data, value.length, &db->lowest_sequence)
               ? 0
               : manifest_bad_entry(TABLE_RUNTIME_STATE);
}

int
manifest_load_db(struct lmdb_txn *txn, struct db_id db, struct db_record *db_out)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_db(&key, db);
    int rc = load(txn, TABLE_DB, &key, &value);
    if (rc < 0)
        return rc;
    db_out->id = db;
    if (!schema_decode_db(value.data, value.length, db_out))
        return manifest_bad_entry(TABLE_DB);
    rc = load(txn, TABLE_WAL_STATE, &key, &value);
    if (rc < 0 || !schema_decode_wal_state(value.data, value.length, db_out))
        return manifest_bad_entry(TABLE_WAL_STATE);
    rc = load(txn, TABLE_GENERATION_WATERMARKS, &key, &value);
    if (rc < 0 || !schema_decode_watermarks(value.data, value.length, db_out))
        return manifest_bad_entry(TABLE_GENERATION_WATERMARKS);
    rc = load_checkpoint_id(txn, db_out);
    if (rc == 0)
        rc = load_log_end(txn, db_out);
    return rc < 0 ? rc : load_lowest(txn, db_out);
}

int
manifest_load_inode(
    struct lmdb_txn *txn, struct db_id db, struct object_id object, struct inode_record *inode_out)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_number(&key, db, object.v);
    int rc = load(txn, TABLE_INODE, &key, &value);
    if (rc < 0)
        return rc;
    return schema_decode_inode(value.data, value.length, inode_out)
               ? 0
               : manifest_bad_entry(TABLE_INODE);
}

int
manifest_load_object_chunk(struct lmdb_txn *txn, struct db_id db, struct object_id object,
    struct chunk_index index, struct chunk_id *id_out)
{
    struct schema_key key;
    struct lmdb_value value;
    uint32_t present_pages;
    schema_key_pair(&key, db, object.v, index.v);
    int rc = load(txn, TABLE_OBJECT_CHUNKS, &key, &value);
    if (rc < 0)
        return rc;
    return schema_decode_object_chunk(value.data, value.length, id_out, &present_pages)
               ? 0
               : manifest_bad_entry(TABLE_OBJECT_CHUNKS);
}

int
manifest_load_chunk(
    struct lmdb_txn *txn, struct db_id db, struct chunk_id id, struct chunk_entry *chunk_out)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_number(&key, db, id.v);
    int rc = load(txn, TABLE_CHUNK_CATALOG, &key, &value);
    if (rc < 0)
        return rc;
    chunk_out->id = id;
    return schema_decode_chunk(value.data, value.length, chunk_out)
               ? 0
               : manifest_bad_entry(TABLE_CHUNK_CATALOG);
}

int
manifest_load_delta(struct lmdb_txn *txn, struct db_id db, struct chunk_id chunk,
    struct generation generation, struct chunk_delta *delta_out)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_pair(&key, db, chunk.v, generation.v);
    int rc = load(txn, TABLE_CHUNK_DELTA_INDEX, &key, &value);
    if (rc < 0)
        return rc;
    delta_out->chunk = chunk;
    delta_out->generation = generation;
    return schema_decode_delta(value.data, value.length, delta_out)
               ? 0
               : manifest_bad_entry(TABLE_CHUNK_DELTA_INDEX);
}

int
manifest_load_blob(
    struct lmdb_txn *txn, struct db_id db, const struct sha256 *hash, struct blob_record *blob_out)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_blob(&key, hash, db);
    int rc = load(txn, TABLE_BLOB_REFS, &key, &value);
    if (rc < 0)
        return rc;
    blob_out->hash = *hash;
    return schema_decode_blob(value.data, value.length, blob_out)
               ? 0
               : manifest_bad_entry(TABLE_BLOB_REFS);
}

int
manifest_load_namespace(
    struct lmdb_txn *txn, struct db_id db, uint32_t id, struct namespace_record *space_out)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_number(&key, db, id);
    int rc = load(txn, TABLE_REMOTE_NAMESPACE, &key, &value);
    if (rc < 0)
        return rc;
    space_out->id = id;
    return schema_decode_namespace(value.data, value.length, space_out)
               ? 0
               : manifest_bad_entry(TABLE_REMOTE_NAMESPACE);
}

int
manifest_load_generation(struct lmdb_txn *txn, struct db_id db, struct generation generation,
    struct generation_record *generation_out)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_life_number(&key, db, LIFE_GENERATION, generation.v);
    int rc = load(txn, TABLE_SNAPSHOT_INDEX, &key, &value);
    if (rc < 0)
        return rc;
    generation_out->generation = generation;
    return schema_decode_generation(value.data, value.length, generation_out)
               ? 0
               : manifest_bad_entry(TABLE_SNAPSHOT_INDEX);
}

int
manifest_load_dead(struct lmdb_txn *txn, struct db_id db, const struct sha256 *hash,
    struct generation birth, struct dead_blob *dead_out)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_dead(&key, db, hash, birth);
    int rc = load(txn, TABLE_SNAPSHOT_INDEX, &key, &value);
    if (rc < 0)
        return rc;
    dead_out->blob.hash = *hash;
    return schema_decode_dead(value.data, value.length, dead_out) &&
                   dead_out->blob.generation.v == birth.v
               ? 0
               : manifest_bad_entry(TABLE_SNAPSHOT_INDEX);
}

int
manifest_load_totals(struct lmdb_txn *txn, struct db_id db, struct db_totals *totals_out)
{
    struct schema_key key;
    struct lmdb_value value;
    *totals_out = (struct db_totals){0};
    schema_key_runtime(&key, RUNTIME_TOTALS, db);
    int rc = load(txn, TABLE_RUNTIME_STATE, &key, &value);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return schema_decode_totals(value.data, value.length, totals_out)
               ? 0
               : manifest_bad_entry(TABLE_RUNTIME_STATE);
}

// ---- walks --------------------------------------------------------------------------------------

// Turns the answer of a cursor into that of a walk.
static int
walk_result(struct table_walk *w, int rc)
{
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return w->key.length >= w->prefix_length &&
           memcmp(w->key.data, w->prefix, w->prefix_length) == 0;
}

int
table_walk_begin(struct table_walk *w, struct lmdb_txn *txn, enum manifest_table table,
    const struct schema_key *from, size_t prefix_length)
{
    static const uint8_t lowest[1];
    assert(prefix_length <= from->length);
    w->prefix_length = prefix_length;
    memcpy(w->prefix, from->bytes, prefix_length);
    int rc = lmdb_cursor_open(txn, table, &w->cursor);
    if (rc < 0)
        return rc;
    return walk_result(w, lmdb_cursor_seek(w->cursor, from->length ? from->bytes : lowest,
                              from->length ? from->length : sizeof(lowest), &w->key, &w->value));
}

int
table_walk_next(struct table_walk *w)
{
    return walk_result(w, lmdb_cursor_next(w->cursor, &w->key, &w->value));
}

void
table_walk_end(struct table_walk *w)
{
    lmdb_cursor_close(w->cursor);
    w->cursor = NULL;
}
