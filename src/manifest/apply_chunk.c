// SPDX-License-Identifier: Apache-2.0
// Chunks and deltas. A chunk entry with a base holds one reference to the base's blob, a delta one
// to its own.
#include <errno.h>
#include <inttypes.h>

#include "format/record_codec.h"
#include "manifest/manifest_internal.h"
#include "platform/log.h"

// ---- deltas -------------------------------------------------------------------------------------

static int
store_chunk(struct apply *a, const struct chunk_entry *chunk)
{
    struct schema_key key;
    schema_key_number(&key, a->db.id, chunk->id.v);
    buffer_clear(&a->value);
    schema_encode_chunk(chunk, &a->value);
    return apply_put(a, TABLE_CHUNK_CATALOG, &key);
}

// Loads a chunk that will be stored again. Its extension area lies in a page of the transaction,
// which the next put may move: it is copied.
static int
load_chunk(struct apply *a, struct chunk_id id, struct chunk_entry *chunk_out)
{
    int rc = manifest_load_chunk(a->txn, a->db.id, id, chunk_out);
    if (rc < 0)
        return rc;
    buffer_clear(&a->extension);
    buffer_append(&a->extension, chunk_out->extension, chunk_out->extension_length);
    chunk_out->extension = a->extension.data;
    return 0;
}

// Removes a delta that is there, and its share of `chunk`, which the caller stores.
static int
remove_delta(struct apply *a, struct chunk_entry *chunk, const struct chunk_delta *delta)
{
    struct schema_key key;
    schema_key_pair(&key, a->db.id, delta->chunk.v, delta->generation.v);
    int rc = lmdb_delete(a->txn, TABLE_CHUNK_DELTA_INDEX, key.bytes, key.length);
    if (rc == 0)
        rc = apply_note(a, UNPUBLISHED_DELTA, &key);
    if (rc < 0)
        return rc;
    a->totals.deltas--;
    a->totals_changed = true;
    if (chunk->delta_count > 0)
        chunk->delta_count--;
    chunk->delta_bytes -=
        delta->where.length < chunk->delta_bytes ? delta->where.length : chunk->delta_bytes;
    return apply_remove_reference(a, &delta->where);
}

// The oldest delta of the chunk: 1, or 0 when it has none.
static int
first_delta(struct apply *a, struct chunk_id chunk, struct chunk_delta *delta_out)
{
    struct schema_key from;
    struct table_walk w;
    uint64_t id;
    schema_key_number(&from, a->db.id, chunk.v);
    int rc = table_walk_begin(&w, a->txn, TABLE_CHUNK_DELTA_INDEX, &from, NUMBER_PREFIX_BYTES);
    if (rc > 0 && (!schema_read_pair(w.key.data, w.key.length, &id, &delta_out->generation.v) ||
                      !schema_decode_delta(w.value.data, w.value.length, delta_out)))
        rc = manifest_bad_entry(TABLE_CHUNK_DELTA_INDEX);
    delta_out->chunk = chunk;
    table_walk_end(&w);
    return rc;
}

// Removes the deltas up to and including `last`.
static int
remove_deltas(struct apply *a, struct chunk_entry *chunk, struct generation last)
{
    for (;;) {
        struct chunk_delta delta;
        int rc = first_delta(a, chunk->id, &delta);
        if (rc <= 0)
            return rc;
        if (delta.generation.v > last.v)
            return 0;
        rc = remove_delta(a, chunk, &delta);
        if (rc < 0)
            return rc;
    }
}

static int
refuse_delta(const struct apply *a, const struct chunk_delta *delta, const char *problem)
{
    log_error("manifest.batch_refused",
        "db %" PRIu32 ": delta of chunk %" PRIu64 ", generation %" PRIu64 ": %s", a->db.id.v,
        delta->chunk.v, delta->generation.v, problem);
    return -EINVAL;
}

int
apply_put_delta(struct apply *a, const struct chunk_delta *delta)
{
    struct chunk_entry chunk;
    struct chunk_delta old;
    int rc = load_chunk(a, delta->chunk, &chunk);
    if (rc < 0)
        return rc == -ENOENT ? refuse_delta(a, delta, "there is no such chunk") : rc;
    if (delta->generation.v <= chunk.base_generation.v)
        return refuse_delta(a, delta, "the base is newer");
    rc = apply_add_reference(a, &delta->where);
    if (rc < 0)
        return rc;
    rc = manifest_load_delta(a->txn, a->db.id, delta->chunk, delta->generation, &old);
    if (rc == 0)
        rc = remove_delta(a, &chunk, &old);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    a->totals.deltas++;
    a->totals_changed = true;
    a->log.deltas++;
    chunk.delta_count++;
    chunk.delta_bytes += delta->where.length;
    if (chunk.generation.v < delta->generation.v)
        chunk.generation = delta->generation;
    rc = store_chunk(a, &chunk);
    if (rc < 0)
        return rc;
    struct schema_key key;
    schema_key_pair(&key, a->db.id, delta->chunk.v, delta->generation.v);
    buffer_clear(&a->value);
    schema_encode_delta(delta, &a->value);
    rc = apply_put(a, TABLE_CHUNK_DELTA_INDEX, &key);
    return rc < 0 ? rc : apply_note(a, UNPUBLISHED_DELTA, &key);
}

int
apply_delete_delta(struct apply *a, struct chunk_id id, struct generation generation)
{
    struct chunk_entry chunk;
    struct chunk_delta delta;
    a->log.deltas++;
    int rc = manifest_load_delta(a->txn, a->db.id, id, generation, &delta);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    rc = load_chunk(a, id, &chunk);
    if (rc < 0)
        return rc == -ENOENT ? manifest_bad_entry(TABLE_CHUNK_DELTA_INDEX) : rc;
    rc = remove_delta(a, &chunk, &delta);
    return rc < 0 ? rc : store_chunk(a, &chunk);
}

// ---- chunks -------------------------------------------------------------------------------------

static int
remove_chunk(struct apply *a, struct chunk_entry *chunk)
{
    struct schema_key key;
    int rc = remove_deltas(a, chunk, (struct generation){UINT64_MAX});
    if (rc == 0 && chunk_entry_has_base(chunk))
        rc = apply_remove_reference(a, &chunk->base);
    if (rc < 0)
        return rc;
    schema_key_number(&key, a->db.id, chunk->id.v);
    rc = lmdb_delete(a->txn, TABLE_CHUNK_CATALOG, key.bytes, key.length);
    if (rc < 0)
        return rc;
    a->totals.chunks--;
    a->totals_changed = true;
    schema_key_pair(&key, a->db.id, chunk->object.v, chunk->index.v);
    rc = lmdb_delete(a->txn, TABLE_OBJECT_CHUNKS, key.bytes, key.length);
    if (rc == 0)
        rc = apply_note(a, UNPUBLISHED_CHUNK, &key);
    return rc < 0 ? rc : apply_delete_chunk_damage(a, chunk->object, chunk->index);
}

// Removes the chunk at this place of the object unless it is `keep`; 0 also if there is none.
static int
remove_chunk_at(
    struct apply *a, struct object_id object, struct chunk_index index, struct chunk_id keep)
{
    struct chunk_id id;
    struct chunk_entry chunk;
    int rc = manifest_load_object_chunk(a->txn, a->db.id, object, index, &id);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (id.v == keep.v)
        return 0;
    rc = manifest_load_chunk(a->txn, a->db.id, id, &chunk);
    if (rc < 0)
        return rc == -ENOENT ? manifest_bad_entry(TABLE_OBJECT_CHUNKS) : rc;
    return remove_chunk(a, &chunk);
}

static bool
same_base(const struct chunk_entry *a, const struct chunk_entry *b)
{
    return chunk_entry_has_base(a) == chunk_entry_has_base(b) && a->base.length == b->base.length &&
           sha256_equal(&a->base.blob, &b->base.blob);
}

// Moves the reference from the old entry's base (`old` may be NULL) to the new one's.
static int
move_base_reference(struct apply *a, const struct chunk_entry *old, const struct chunk_entry *chunk)
{
    if (old && same_base(old, chunk))
        return 0;
    int rc = chunk_entry_has_base(chunk) ? apply_add_reference(a, &chunk->base) : 0;
    if (rc == 0 && old && chunk_entry_has_base(old))
        rc = apply_remove_reference(a, &old->base);
    return rc;
}

int
apply_put_chunk(struct apply *a, const struct chunk_entry *put)
{
    struct chunk_entry old;
    struct chunk_entry chunk = *put;
    a->log.chunks++;
    int rc = remove_chunk_at(a, put->object, put->index, put->id);
    if (rc < 0)
        return rc;
    rc = load_chunk(a, put->id, &old);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    bool exists = rc == 0;
    if (exists && (old.object.v != put->object.v || old.index.v != put->index.v)) {
        log_error("manifest.batch_refused",
            "db %" PRIu32 ": chunk %" PRIu64 " would move to another place", a->db.id.v, put->id.v);
        return -EINVAL;
    }
    a->totals.chunks += exists ? 0 : 1;
    a->totals_changed = true;
    chunk.delta_count = exists ? old.delta_count : 0;
    chunk.delta_bytes = exists ? old.delta_bytes : 0;
    // A fold knows nothing of the area and passes it on; the chain tells all of a chunk.
    if (exists && a->unpublished && put->extension_length == 0) {
        chunk.extension = old.extension;
        chunk.extension_length = old.extension_length;
    }
    rc = move_base_reference(a, exists ? &old : NULL, &chunk);
    if (rc == 0)
        rc = remove_deltas(a, &chunk, chunk.base_generation);
    if (rc == 0)
        rc = store_chunk(a, &chunk);
    if (rc < 0)
        return rc;
    struct schema_key key;
    schema_key_pair(&key, a->db.id, chunk.object.v, chunk.index.v);
    buffer_clear(&a->value);
    schema_encode_object_chunk(chunk.id, chunk.present_pages, &a->value);
    rc = apply_put(a, TABLE_OBJECT_CHUNKS, &key);
    return rc < 0 ? rc : apply_note(a, UNPUBLISHED_CHUNK, &key);
}

int
apply_delete_chunk(struct apply *a, struct object_id object, struct chunk_index index)
{
    a->log.chunks++;
    return remove_chunk_at(a, object, index, (struct chunk_id){0});
}

int
apply_delete_object_chunks(struct apply *a, struct object_id object)
{
    for (;;) {
        struct schema_key from;
        struct table_walk w;
        uint64_t number;
        struct chunk_index index;
        schema_key_number(&from, a->db.id, object.v);
        int rc = table_walk_begin(&w, a->txn, TABLE_OBJECT_CHUNKS, &from, NUMBER_PREFIX_BYTES);
        if (rc > 0 && !schema_read_pair(w.key.data, w.key.length, &number, &index.v))
            rc = manifest_bad_entry(TABLE_OBJECT_CHUNKS);
        table_walk_end(&w);
        if (rc <= 0)
            return rc;
        rc = apply_delete_chunk(a, object, index);
        if (rc < 0)
            return rc;
    }
}
