// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>

#include "manifest/manifest_internal.h"
#include "platform/log.h"

// ---- making -------------------------------------------------------------------------------------

static bool
is_same_place(const struct db_record *a, const struct db_record *b)
{
    return a->volume_number == b->volume_number && strcmp(a->place, b->place) == 0 &&
           strcmp(a->tenant, b->tenant) == 0;
}

static int
refuse_existing(struct apply *a)
{
    struct schema_key from = {0};
    struct table_walk w;
    int rc = table_walk_begin(&w, a->txn, TABLE_DB, &from, 0);
    while (rc > 0) {
        struct db_record db;
        if (!schema_decode_db(w.value.data, w.value.length, &db))
            rc = manifest_bad_entry(TABLE_DB);
        else
            rc = is_same_place(&db, &a->db) ? -EEXIST : table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

static int
refuse_existing_id(struct apply *a, struct db_id id)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_db(&key, id);
    int rc = lmdb_get(a->txn, TABLE_DB, key.bytes, key.length, &value);
    return rc == 0 ? -EEXIST : rc == -ENOENT ? 0 : rc;
}

int
apply_create_db(struct apply *a)
{
    a->db = *a->batch->db_record;
    int rc = refuse_existing(a);
    if (rc < 0)
        return rc;
    uint64_t id;
    rc = apply_runtime_number(a, RUNTIME_NEXT_DB, (struct db_id){0}, 1, &id);
    if (rc < 0)
        return rc;
    if (id > UINT32_MAX)
        return -EOVERFLOW;
    uint64_t next = id + 1;
    if (a->db.id.v != 0) {
        id = a->db.id.v;
        next = id >= next ? id + 1 : next;
        rc = refuse_existing_id(a, a->db.id);
        if (rc < 0)
            return rc;
    }
    rc = apply_put_runtime_number(a, RUNTIME_NEXT_DB, (struct db_id){0}, next);
    if (rc < 0)
        return rc;
    a->db.id.v = (uint32_t)id;
    a->batch->created = a->db.id;
    rc = apply_note_dates(a);
    return rc < 0 ? rc : apply_write_db(a);
}

// ---- removing -----------------------------------------------------------------------------------
//
// In steps, each a transaction of bounded size. The first marks the db as being imported, so that
// one that is partly gone is never taken for a whole one; its own records go with the last step.

#define STEP_ENTRIES_MAX 20000u

static const enum manifest_table tables_of_db[] = {TABLE_UNPUBLISHED_INDEX, TABLE_UNPUBLISHED_BLOBS,
    TABLE_JOB_PENDING_INDEX, TABLE_JOB_QUEUE, TABLE_ORPHAN_INDEX, TABLE_DIRENT, TABLE_XATTR,
    TABLE_INODE, TABLE_OBJECT_CHUNKS, TABLE_CHUNK_DELTA_INDEX, TABLE_CHUNK_CATALOG, TABLE_BLOB_REFS,
    TABLE_REMOTE_NAMESPACE, TABLE_SNAPSHOT_INDEX, TABLE_CHUNK_DAMAGE};

static void
remember_key(struct schema_key *k, const struct lmdb_value *key)
{
    k->length = key->length <= sizeof(k->bytes) ? key->length : 0;
    memcpy(k->bytes, key->data, k->length);
}

// Deletes entries of one table until it has none of the db or `budget` is used up. blob_refs, whose
// keys begin with a hash, has to be walked as a whole.
static int
remove_from_table(struct apply *a, struct db_removal *at, unsigned *budget)
{
    enum manifest_table table = tables_of_db[at->table];
    bool by_hash = table == TABLE_BLOB_REFS;
    struct schema_key from = at->from;
    struct table_walk w;
    if (from.length == 0 && !by_hash)
        schema_key_db(&from, a->db.id);
    int rc = table_walk_begin(&w, a->txn, table, &from, by_hash ? 0 : DB_PREFIX_BYTES);
    while (rc > 0 && *budget > 0) {
        struct sha256 hash;
        struct db_id owner = a->db.id;
        rc = 0;
        if (by_hash && !schema_read_blob(w.key.data, w.key.length, &hash, &owner))
            rc = manifest_bad_entry(table);
        else if (owner.v == a->db.id.v)
            rc = lmdb_cursor_delete(w.cursor);
        --*budget;
        if (rc == 0)
            rc = table_walk_next(&w);
    }
    if (rc > 0)
        remember_key(&at->from, &w.key);
    if (rc == 0) {
        at->table++;
        at->from.length = 0;
    }
    table_walk_end(&w);
    return rc < 0 ? rc : 0;
}

static int
delete_if_present(struct apply *a, enum manifest_table table, const struct schema_key *key)
{
    int rc = lmdb_delete(a->txn, table, key->bytes, key->length);
    return rc == -ENOENT ? 0 : rc;
}

static int
remove_own_records(struct apply *a)
{
    struct schema_key key;
    static const enum runtime_item items[] = {RUNTIME_TOTALS, RUNTIME_NEXT_JOB, RUNTIME_DATES,
        RUNTIME_CHECKPOINT, RUNTIME_RETENTION, RUNTIME_HISTORY, RUNTIME_LOWEST, RUNTIME_LOG_END,
        RUNTIME_FLAGS, RUNTIME_SWEPT};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < ARRAY_LENGTH(items); i++) {
        schema_key_runtime(&key, items[i], a->db.id);
        rc = delete_if_present(a, TABLE_RUNTIME_STATE, &key);
    }
    schema_key_db(&key, a->db.id);
    if (rc == 0)
        rc = delete_if_present(a, TABLE_WAL_STATE, &key);
    if (rc == 0)
        rc = delete_if_present(a, TABLE_GENERATION_WATERMARKS, &key);
    return rc < 0 ? rc : delete_if_present(a, TABLE_DB, &key);
}

int
apply_remove_db(struct apply *a)
{
    struct db_removal *at = &a->batch->removed;
    *at = *a->batch->removal;
    int rc = manifest_load_db(a->txn, a->batch->db, &a->db);
    if (rc < 0)
        return rc;
    if (a->db.state != DB_STATE_IMPORTING) {
        a->db.state = DB_STATE_IMPORTING;
        rc = apply_write_db(a);
    }
    unsigned budget = STEP_ENTRIES_MAX;
    while (rc == 0 && budget > 0 && at->table < ARRAY_LENGTH(tables_of_db))
        rc = remove_from_table(a, at, &budget);
    if (rc < 0 || at->table < ARRAY_LENGTH(tables_of_db))
        return rc;
    at->finished = true;
    return remove_own_records(a);
}
