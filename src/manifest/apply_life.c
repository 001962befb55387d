// SPDX-License-Identifier: Apache-2.0
// The life of data (`snapshot_index`): published generations, and blobs that the chain has told to
// be dead and that lie in the store still. Three entries belong to a dead blob: its record under
// its identity, a place in the order of deaths, and one more in the count of the record that told
// the death. Only put_dead and remove_dead write them.
#include <errno.h>

#include "manifest/manifest_internal.h"

static int
delete_entry(struct apply *a, const struct schema_key *key)
{
    int rc = lmdb_delete(a->txn, TABLE_SNAPSHOT_INDEX, key->bytes, key->length);
    return rc == -ENOENT ? 0 : rc;
}

// ---- generations --------------------------------------------------------------------------------

int
apply_put_generation(struct apply *a, const struct generation_record *g)
{
    struct schema_key key;
    schema_key_life_number(&key, a->db.id, LIFE_GENERATION, g->generation.v);
    buffer_clear(&a->value);
    schema_encode_generation(g, &a->value);
    return apply_put(a, TABLE_SNAPSHOT_INDEX, &key);
}

int
apply_delete_generation(struct apply *a, struct generation generation)
{
    struct schema_key key;
    schema_key_life_number(&key, a->db.id, LIFE_GENERATION, generation.v);
    return delete_entry(a, &key);
}

int
apply_note_generation(struct apply *a, const struct generation_record *g)
{
    struct generation_record old;
    if (g->generation.v == 0)
        return 0;
    int rc = manifest_load_generation(a->txn, a->db.id, g->generation, &old);
    return rc == -ENOENT ? apply_put_generation(a, g) : rc;
}

int
apply_put_retention(struct apply *a, const struct retention_policy *policy)
{
    struct schema_key key;
    schema_key_runtime(&key, RUNTIME_RETENTION, a->db.id);
    buffer_clear(&a->value);
    schema_encode_retention(policy, &a->value);
    return apply_put(a, TABLE_RUNTIME_STATE, &key);
}

// ---- dead blobs ---------------------------------------------------------------------------------

// One death more or less that record `sequence` told.
static int
count_told(struct apply *a, uint64_t sequence, int by)
{
    struct schema_key key;
    struct lmdb_value value;
    uint64_t count = 0;
    schema_key_life_number(&key, a->db.id, LIFE_TOLD, sequence);
    int rc = lmdb_get(a->txn, TABLE_SNAPSHOT_INDEX, key.bytes, key.length, &value);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc == 0 && !schema_decode_u64(value.data, value.length, &count))
        return manifest_bad_entry(TABLE_SNAPSHOT_INDEX);
    if (by < 0 && count <= 1)
        return delete_entry(a, &key);
    buffer_clear(&a->value);
    schema_encode_u64(by < 0 ? count - 1 : count + 1, &a->value);
    return apply_put(a, TABLE_SNAPSHOT_INDEX, &key);
}

static int
remove_dead(struct apply *a, const struct dead_blob *dead)
{
    struct schema_key key;
    schema_key_dead(&key, a->db.id, &dead->blob.hash, dead->blob.generation);
    int rc = delete_entry(a, &key);
    if (rc < 0)
        return rc;
    schema_key_death(&key, a->db.id, &dead->blob);
    rc = delete_entry(a, &key);
    return rc < 0 ? rc : count_told(a, dead->told, -1);
}

static int
put_dead(struct apply *a, const struct dead_blob *dead)
{
    struct schema_key key;
    schema_key_dead(&key, a->db.id, &dead->blob.hash, dead->blob.generation);
    buffer_clear(&a->value);
    schema_encode_dead(dead, &a->value);
    int rc = apply_put(a, TABLE_SNAPSHOT_INDEX, &key);
    if (rc < 0)
        return rc;
    schema_key_death(&key, a->db.id, &dead->blob);
    buffer_clear(&a->value);
    schema_encode_empty(&a->value);
    rc = apply_put(a, TABLE_SNAPSHOT_INDEX, &key);
    return rc < 0 ? rc : count_told(a, dead->told, +1);
}

int
apply_old_death(struct apply *a, const struct blob_record *blob, uint64_t told)
{
    struct blob_record known;
    struct dead_blob old;
    struct dead_blob dead = {.blob = *blob, .told = told};
    // It lives (again), or its newer death is noted for the next record.
    int rc = manifest_load_blob(a->txn, a->db.id, &blob->hash, &known);
    if (rc == 0 && blob_is_same_object(&known, blob))
        return 0;
    if (rc == 0 || rc == -ENOENT)
        rc = manifest_load_dead(a->txn, a->db.id, &blob->hash, blob->generation, &old);
    return rc == -ENOENT ? put_dead(a, &dead) : rc;
}

int
apply_tell_death(struct apply *a, const struct blob_record *blob)
{
    struct dead_blob old;
    struct dead_blob dead = {.blob = *blob, .told = a->told};
    int rc = manifest_load_dead(a->txn, a->db.id, &blob->hash, blob->generation, &old);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc == 0 && old.blob.death.v == blob->death.v && old.told == dead.told)
        return 0;
    if (rc == 0) {
        rc = remove_dead(a, &old);
        if (rc < 0)
            return rc;
    }
    return put_dead(a, &dead);
}

int
apply_tell_life(struct apply *a, const struct blob_record *blob)
{
    struct dead_blob old;
    int rc = manifest_load_dead(a->txn, a->db.id, &blob->hash, blob->generation, &old);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return blob_is_same_object(&old.blob, blob) ? remove_dead(a, &old) : 0;
}

int
apply_dead_gone(struct apply *a, const struct blob_identity *identity)
{
    const struct blob_record blob = {
        .hash = identity->hash,
        .checkpoint_id = identity->checkpoint_id,
        .generation = identity->generation,
    };
    return apply_tell_life(a, &blob);
}

int
apply_history_known(struct apply *a)
{
    struct schema_key key;
    schema_key_runtime(&key, RUNTIME_HISTORY, a->db.id);
    buffer_clear(&a->value);
    schema_encode_empty(&a->value);
    return apply_put(a, TABLE_RUNTIME_STATE, &key);
}
