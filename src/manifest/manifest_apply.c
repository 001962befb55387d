// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>

#include "manifest/manifest_internal.h"
#include "platform/clock.h"
#include "platform/log.h"

// ---- writing entries ----------------------------------------------------------------------------

int
apply_put(struct apply *a, enum manifest_table table, const struct schema_key *key)
{
    return lmdb_put(a->txn, table, key->bytes, key->length, a->value.data, a->value.length);
}

int
apply_note(struct apply *a, enum unpublished_kind kind, const struct schema_key *key)
{
    if (!a->unpublished)
        return 0;
    struct schema_key note;
    schema_key_unpublished(&note, kind, key);
    buffer_clear(&a->value);
    schema_encode_u64(a->generation.v, &a->value);
    return apply_put(a, TABLE_UNPUBLISHED_INDEX, &note);
}

int
apply_runtime_number(
    struct apply *a, enum runtime_item item, struct db_id db, uint64_t otherwise, uint64_t *out)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_runtime(&key, item, db);
    int rc = lmdb_get(a->txn, TABLE_RUNTIME_STATE, key.bytes, key.length, &value);
    *out = otherwise;
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return schema_decode_u64(value.data, value.length, out)
               ? 0
               : manifest_bad_entry(TABLE_RUNTIME_STATE);
}

int
apply_put_runtime_number(struct apply *a, enum runtime_item item, struct db_id db, uint64_t number)
{
    struct schema_key key;
    schema_key_runtime(&key, item, db);
    buffer_clear(&a->value);
    schema_encode_u64(number, &a->value);
    return apply_put(a, TABLE_RUNTIME_STATE, &key);
}

int
apply_write_db(struct apply *a)
{
    struct schema_key key;
    schema_key_db(&key, a->db.id);
    buffer_clear(&a->value);
    schema_encode_db(&a->db, &a->value);
    int rc = apply_put(a, TABLE_DB, &key);
    if (rc < 0)
        return rc;
    buffer_clear(&a->value);
    schema_encode_wal_state(&a->db, &a->value);
    rc = apply_put(a, TABLE_WAL_STATE, &key);
    if (rc < 0)
        return rc;
    buffer_clear(&a->value);
    schema_encode_watermarks(&a->db, &a->value);
    return apply_put(a, TABLE_GENERATION_WATERMARKS, &key);
}

static int
write_totals(struct apply *a)
{
    struct schema_key key;
    schema_key_runtime(&key, RUNTIME_TOTALS, a->batch->db);
    buffer_clear(&a->value);
    schema_encode_totals(&a->totals, &a->value);
    return apply_put(a, TABLE_RUNTIME_STATE, &key);
}

// ---- operations on the db as a whole ------------------------------------------------------------

static uint64_t
larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void
raise_counters(struct apply *a, const struct db_counters *counters)
{
    a->db.counters.next_object = larger(a->db.counters.next_object, counters->next_object);
    a->db.counters.next_chunk = larger(a->db.counters.next_chunk, counters->next_chunk);
    a->db_changed = true;
}

static int
backwards(const struct apply *a, const char *what, uint64_t from, uint64_t to)
{
    log_error("manifest.batch_refused", "db %" PRIu32 ": %s would go from %" PRIu64 " to %" PRIu64,
        a->db.id.v, what, from, to);
    return -EINVAL;
}

static int
apply_local_generation(struct apply *a, const struct batch_op *op)
{
    if (op->local.generation.v < a->db.local.v)
        return backwards(a, "the local generation", a->db.local.v, op->local.generation.v);
    if (op->local.cut.v < a->db.cut.v)
        return backwards(a, "the cut", a->db.cut.v, op->local.cut.v);
    a->db.local = op->local.generation;
    a->db.next.v = larger(a->db.next.v, op->local.generation.v + 1);
    a->db.cut = op->local.cut;
    a->db.local_time_ms = op->local.wall_ms;
    raise_counters(a, &op->local.counters);
    return 0;
}

// Deletes a note that was published. A blob whose death is told needs no record here any more.
static int
forget_noted(struct apply *a, const struct table_walk *w)
{
    enum unpublished_kind kind;
    struct schema_key key;
    if (!schema_read_unpublished(w->key.data, w->key.length, &kind, &key))
        return manifest_bad_entry(TABLE_UNPUBLISHED_INDEX);
    int rc = kind == UNPUBLISHED_BLOB ? apply_forget_told(a, &key) : 0;
    return rc < 0 ? rc : lmdb_cursor_delete(w->cursor);
}

static int
forget_published(struct apply *a, struct generation published)
{
    struct schema_key from;
    struct table_walk w;
    schema_key_db(&from, a->db.id);
    int rc = table_walk_begin(&w, a->txn, TABLE_UNPUBLISHED_INDEX, &from, DB_PREFIX_BYTES);
    while (rc > 0) {
        uint64_t generation;
        rc = 0;
        if (!schema_decode_u64(w.value.data, w.value.length, &generation))
            rc = manifest_bad_entry(TABLE_UNPUBLISHED_INDEX);
        else if (generation <= published.v)
            rc = forget_noted(a, &w);
        if (rc == 0)
            rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

static int
apply_published(struct apply *a, const struct batch_op *op)
{
    if (op->published.generation.v < a->db.published.v)
        return backwards(
            a, "the published generation", a->db.published.v, op->published.generation.v);
    if (op->published.sequence < a->db.remote_sequence)
        return backwards(a, "the chain", a->db.remote_sequence, op->published.sequence);
    if (op->published.sequence > a->db.remote_sequence)
        a->db.bytes_since_catalog += op->published.record_bytes;
    a->db.published = op->published.generation;
    a->db.next.v = larger(a->db.next.v, op->published.generation.v + 1);
    a->db.published_time_ms = op->published.wall_ms;
    a->db.remote_sequence = op->published.sequence;
    a->db.remote_hash = op->published.hash;
    a->db_changed = true;
    a->told = op->published.sequence;
    const struct generation_record published = generation_retained(
        op->published.generation, op->published.sequence, op->published.wall_ms);
    int rc = apply_note_generation(a, &published);
    return rc < 0 ? rc : forget_published(a, op->published.generation);
}

static int
apply_remote_position(struct apply *a, const struct batch_op *op)
{
    if (op->position.sequence < a->db.remote_sequence)
        return backwards(a, "the chain", a->db.remote_sequence, op->position.sequence);
    a->db.epoch = op->position.epoch;
    a->db.remote_sequence = op->position.sequence;
    a->db.remote_hash = op->position.hash;
    a->db_changed = true;
    return 0;
}

static int
apply_checkpoint_id(struct apply *a, const struct batch_op *op)
{
    struct schema_key key;
    a->db.local_checkpoint = op->checkpoint.id;
    schema_key_runtime(&key, RUNTIME_CHECKPOINT, a->db.id);
    buffer_clear(&a->value);
    schema_encode_checkpoint(op->checkpoint.local, &op->checkpoint.id, &a->value);
    return apply_put(a, TABLE_RUNTIME_STATE, &key);
}

static int
apply_log_end(struct apply *a, const struct batch_op *op)
{
    struct schema_key key;
    a->db.log_end = op->log.end;
    schema_key_runtime(&key, RUNTIME_LOG_END, a->db.id);
    buffer_clear(&a->value);
    schema_encode_log_end(op->log.cut, op->log.end, &a->value);
    return apply_put(a, TABLE_RUNTIME_STATE, &key);
}

static int
apply_lowest(struct apply *a, uint64_t lowest)
{
    a->db.lowest_sequence = larger(a->db.lowest_sequence, lowest);
    return apply_put_runtime_number(a, RUNTIME_LOWEST, a->db.id, a->db.lowest_sequence);
}

static int
apply_change(struct apply *a, const struct change *c)
{
    switch (c->kind) {
    case CHANGE_PUT_INODE:
        return apply_put_inode(a, c->object, &c->inode);
    case CHANGE_DELETE_INODE:
        return apply_delete_inode(a, c->object);
    case CHANGE_PUT_DIRENT:
        return apply_put_dirent(a, &c->dirent);
    case CHANGE_DELETE_DIRENT:
        return apply_delete_dirent(a, &c->dirent);
    case CHANGE_PUT_XATTR:
        return apply_put_xattr(a, &c->xattr);
    case CHANGE_DELETE_XATTR:
        return apply_delete_xattr(a, &c->xattr);
    case CHANGE_PUT_CHUNK:
        return apply_put_chunk(a, &c->chunk);
    case CHANGE_DELETE_CHUNK:
        return apply_delete_chunk(a, c->chunk.object, c->chunk.index);
    case CHANGE_PUT_DAMAGE:
        return apply_put_damage(a, &c->damage);
    case CHANGE_DELETE_DAMAGE:
        return apply_delete_damage(a, c->damage.object, c->damage.page);
    case CHANGE_PUT_DELTA:
        return apply_put_delta(a, &c->delta);
    case CHANGE_DELETE_DELTA:
        return apply_delete_delta(a, c->delta.chunk, c->delta.generation);
    case CHANGE_PUT_BLOB:
        return apply_put_blob(a, &c->blob);
    case CHANGE_PUT_COUNTERS:
        raise_counters(a, &c->counters);
        return 0;
    case CHANGE_PUT_NAMESPACE:
        return apply_put_namespace(a, &c->space);
    case CHANGE_FORGET_BLOB:
        return apply_forget_blob(a, &c->forgotten);
    case CHANGE_PUT_GENERATION:
        return apply_put_generation(a, &c->published);
    case CHANGE_DELETE_GENERATION:
        return apply_delete_generation(a, c->published.generation);
    case CHANGE_PUT_RETENTION:
        return apply_put_retention(a, &c->retention);
    case CHANGE_WRITE:
    case CHANGE_DISCARD:
        break;
    }
    log_error("manifest.batch_refused", "db %" PRIu32 ": a change of kind %d has no place here",
        a->db.id.v, (int)c->kind);
    return -EINVAL;
}

// A source says how its own changes are noted; later ones in the batch are noted as before.
static int
apply_source(struct apply *a, const struct batch_op *op)
{
    bool unpublished = a->unpublished;
    struct generation generation = a->generation;
    uint8_t residency = a->batch->residency;
    struct manifest_batch *piece = manifest_batch_new(a->batch->db);
    piece->residency = residency;
    piece->unpublished = unpublished;
    piece->generation = generation;
    piece->applying = a;
    int rc = op->source.make(op->source.argument, piece);
    if (rc == 0)
        manifest_apply_piece(piece);
    if (rc == 0)
        rc = piece->refused;
    manifest_batch_free(piece);
    a->unpublished = unpublished;
    a->generation = generation;
    a->batch->residency = residency;
    return rc;
}

static int
apply_op(struct apply *a, enum batch_op_kind kind, const struct batch_op *op)
{
    a->db_changed |= kind != OP_NOTE && kind != OP_BLOB_REMOTE;
    switch (kind) {
    case OP_CHANGE:
        break;
    case OP_SOURCE:
        return apply_source(a, op);
    case OP_NOTE:
        a->unpublished = op->note.unpublished;
        a->generation = op->note.generation;
        if (a->unpublished)
            a->newest = a->generation;
        return 0;
    case OP_LOCAL_GENERATION:
        return apply_local_generation(a, op);
    case OP_PUBLISHED:
        return apply_published(a, op);
    case OP_BLOB_REMOTE:
        return apply_blob_remote(a, &op->blob);
    case OP_BLOB_UPLOADED:
        return apply_blob_uploaded(a, &op->uploaded.hash, op->uploaded.generation);
    case OP_REMOTE_POSITION:
        return apply_remote_position(a, op);
    case OP_CATALOG:
        a->db.catalog_sequence = op->catalog.sequence;
        a->db.catalog_bytes = op->catalog.bytes;
        // Records that came after it since stay counted, with those before it.
        if (op->catalog.sequence >= a->db.remote_sequence)
            a->db.bytes_since_catalog = 0;
        return 0;
    case OP_NEXT_GENERATION:
        a->db.next.v = larger(a->db.next.v, op->next.v);
        return 0;
    case OP_DB_STATE:
        a->db.state = op->state;
        return 0;
    case OP_FENCED:
        a->db.fenced = op->fenced;
        return 0;
    case OP_IDENTITY:
        a->db.volume = op->identity.volume;
        a->db.name_key = op->identity.name_key;
        return 0;
    case OP_CHECKPOINT_ID:
        return apply_checkpoint_id(a, op);
    case OP_LOG_END:
        return apply_log_end(a, op);
    case OP_DATE_DEATHS:
        return apply_date_deaths(a);
    case OP_LOWEST:
        return apply_lowest(a, op->told);
    case OP_TOLD:
        a->told = op->told;
        return 0;
    case OP_ANNOTATE:
        a->log.note = op->annotation;
        return 0;
    case OP_PUT_CURSOR:
        return change_log_put_cursor(a, &op->cursor);
    case OP_DROP_CURSOR:
        return change_log_drop_cursor(a, op->cursor.name);
    case OP_FLAGS:
        return apply_put_runtime_number(a, RUNTIME_FLAGS, a->db.id, op->flags_changed);
    case OP_SWEPT:
        return apply_put_runtime_number(a, RUNTIME_SWEPT, a->db.id, op->swept_ms);
    case OP_DEAD_GONE:
        return apply_dead_gone(a, &op->dead);
    case OP_OLD_DEATH:
        return apply_old_death(a, &op->old_death.blob, op->old_death.told);
    case OP_NOTE_GENERATION:
        return apply_note_generation(a, &op->generation);
    case OP_HISTORY_KNOWN:
        return apply_history_known(a);
    case OP_PUT_JOB:
        return apply_put_job(a, op->job);
    case OP_REMOVE_JOB:
        return apply_remove_job(a, op->job_id);
    }
    return -EINVAL;
}

// ---- one batch ----------------------------------------------------------------------------------

static int
apply_ops(struct apply *a, const struct buffer *ops)
{
    struct byte_reader r = byte_reader_over(ops->data, ops->length);
    while (byte_reader_left(&r) > 0) {
        enum batch_op_kind kind = (enum batch_op_kind)read_u8(&r);
        a->told_something |= kind != OP_PUT_CURSOR && kind != OP_DROP_CURSOR;
        int rc;
        if (kind == OP_CHANGE) {
            struct change change;
            // It was encoded here: newer than this program it cannot be.
            if (change_decode(&r, &change) < 0) {
                log_error("manifest.batch_refused",
                    "db %" PRIu32 ": change of kind %d (object %" PRIu64 ") is not valid",
                    a->batch->db.v, change.kind, change.object.v);
                return -EINVAL;
            }
            rc = apply_change(a, &change);
        } else {
            struct batch_op op;
            read_copy(&r, &op, sizeof(op));
            rc = apply_op(a, kind, &op);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

void
manifest_apply_piece(struct manifest_batch *piece)
{
    piece->applying->batch->residency = piece->residency;
    if (piece->refused == 0)
        piece->refused = apply_ops(piece->applying, &piece->ops);
    buffer_clear(&piece->ops);
}

static int
apply_operations(struct apply *a)
{
    int rc = manifest_load_db(a->txn, a->batch->db, &a->db);
    if (rc == 0)
        rc = manifest_load_totals(a->txn, a->batch->db, &a->totals);
    if (rc == 0)
        rc = apply_ops(a, &a->batch->ops);
    if (rc == 0)
        rc = apply_release_blobs(a);
    if (rc == 0 && a->db_changed)
        rc = apply_write_db(a);
    if (rc == 0 && a->totals_changed)
        rc = write_totals(a);
    return rc;
}

static int
apply_batch(struct apply *a)
{
    int rc = -EINVAL;
    switch (a->batch->kind) {
    case BATCH_OPERATIONS:
        rc = apply_operations(a);
        break;
    case BATCH_CREATE_DB:
        rc = apply_create_db(a);
        break;
    case BATCH_REMOVE_DB:
        rc = apply_remove_db(a);
        break;
    }
    // An acknowledgement of the log alone is no news for its readers.
    if (rc == 0 && a->batch->kind == BATCH_OPERATIONS && !a->told_something)
        return 0;
    return rc < 0 ? rc : change_log_append(a);
}

int
manifest_apply(struct lmdb_txn *txn, struct manifest_batch *b)
{
    struct apply a = {.txn = txn, .batch = b};
    int rc = apply_batch(&a);
    buffer_free(&a.published_blobs);
    buffer_free(&a.unreferenced);
    buffer_free(&a.value);
    buffer_free(&a.extension);
    return rc;
}
