// SPDX-License-Identifier: Apache-2.0
// Reading the records of generations and of dead blobs.
#include <errno.h>

#include "manifest/manifest_internal.h"

#define LIFE_PREFIX_BYTES (DB_PREFIX_BYTES + 1u) // the db and the item

int
manifest_read_generations(struct manifest_reader *r, struct db_id db, struct generation from,
    manifest_visit_generation *visit, void *argument)
{
    struct schema_key key;
    struct table_walk w;
    schema_key_life_number(&key, db, LIFE_GENERATION, from.v);
    int rc =
        table_walk_begin(&w, manifest_reader_txn(r), TABLE_SNAPSHOT_INDEX, &key, LIFE_PREFIX_BYTES);
    while (rc > 0) {
        struct generation_record g;
        if (!schema_read_life_number(w.key.data, w.key.length, &g.generation.v) ||
            !schema_decode_generation(w.value.data, w.value.length, &g))
            rc = manifest_bad_entry(TABLE_SNAPSHOT_INDEX);
        else
            rc = visit(argument, &g);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

int
manifest_read_dead_blobs(struct manifest_reader *r, struct db_id db, struct generation after,
    struct generation to, manifest_visit_dead *visit, void *argument)
{
    struct schema_key key;
    struct table_walk w;
    if (after.v == UINT64_MAX)
        return 0;
    schema_key_life_number(&key, db, LIFE_DEATH, after.v + 1);
    int rc =
        table_walk_begin(&w, manifest_reader_txn(r), TABLE_SNAPSHOT_INDEX, &key, LIFE_PREFIX_BYTES);
    while (rc > 0) {
        struct blob_record at;
        struct dead_blob dead;
        if (!schema_read_death(w.key.data, w.key.length, &at)) {
            rc = manifest_bad_entry(TABLE_SNAPSHOT_INDEX);
            break;
        }
        if (at.death.v > to.v) {
            rc = 0;
            break;
        }
        rc = manifest_load_dead(manifest_reader_txn(r), db, &at.hash, at.generation, &dead);
        if (rc == -ENOENT || (rc == 0 && dead.blob.death.v != at.death.v))
            rc = manifest_bad_entry(TABLE_SNAPSHOT_INDEX);
        if (rc == 0)
            rc = visit(argument, &dead);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

int
manifest_is_dead(struct manifest_reader *r, struct db_id db, const struct blob_identity *blob)
{
    struct dead_blob dead;
    int rc = manifest_load_dead(manifest_reader_txn(r), db, &blob->hash, blob->generation, &dead);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return blob_has_identity(&dead.blob, blob);
}

int
manifest_read_told(
    struct manifest_reader *r, struct db_id db, manifest_visit_told *visit, void *argument)
{
    struct schema_key key;
    struct table_walk w;
    schema_key_life(&key, db, LIFE_TOLD);
    int rc =
        table_walk_begin(&w, manifest_reader_txn(r), TABLE_SNAPSHOT_INDEX, &key, LIFE_PREFIX_BYTES);
    while (rc > 0) {
        uint64_t sequence;
        uint64_t deaths;
        if (!schema_read_life_number(w.key.data, w.key.length, &sequence) ||
            !schema_decode_u64(w.value.data, w.value.length, &deaths))
            rc = manifest_bad_entry(TABLE_SNAPSHOT_INDEX);
        else
            rc = visit(argument, sequence, deaths);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

// The value of a runtime item of the db: 0 or -ENOENT or another error.
static int
load_item(struct manifest_reader *r, enum runtime_item item, struct db_id db,
    struct lmdb_value *value_out)
{
    struct schema_key key;
    schema_key_runtime(&key, item, db);
    return lmdb_get(manifest_reader_txn(r), TABLE_RUNTIME_STATE, key.bytes, key.length, value_out);
}

int
manifest_read_retention(
    struct manifest_reader *r, struct db_id db, struct retention_policy *policy_out)
{
    struct lmdb_value value;
    int rc = load_item(r, RUNTIME_RETENTION, db, &value);
    if (rc < 0)
        return rc;
    return schema_decode_retention(value.data, value.length, policy_out)
               ? 0
               : manifest_bad_entry(TABLE_RUNTIME_STATE);
}

int
manifest_knows_history(struct manifest_reader *r, struct db_id db)
{
    struct lmdb_value value;
    int rc = load_item(r, RUNTIME_HISTORY, db, &value);
    return rc == 0 ? 1 : rc == -ENOENT ? 0 : rc;
}
