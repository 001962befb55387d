// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "manifest/manifest_internal.h"
#include "platform/memory.h"

// So many bytes of a source's changes are applied at once.
#define PIECE_BYTES (64u << 10)

struct manifest_batch *
manifest_batch_new(struct db_id db)
{
    struct manifest_batch *b = memory_alloc_zero(sizeof(*b));
    b->db = db;
    b->residency = RESIDENCY_LOCAL;
    condition_init(&b->finished);
    return b;
}

void
manifest_batch_free(struct manifest_batch *b)
{
    if (!b)
        return;
    condition_destroy(&b->finished);
    buffer_free(&b->ops);
    buffer_free(&b->released);
    buffer_free(&b->assigned);
    free(b);
}

static void
append_op(struct manifest_batch *b, enum batch_op_kind kind, const struct batch_op *op)
{
    buffer_append_u8(&b->ops, (uint8_t)kind);
    buffer_append(&b->ops, op, sizeof(*op));
}

void
manifest_batch_change(struct manifest_batch *b, const struct change *change, bool unpublished,
    struct generation generation)
{
    if (unpublished != b->unpublished || (unpublished && generation.v != b->generation.v)) {
        struct batch_op op = {.note = {unpublished, generation}};
        append_op(b, OP_NOTE, &op);
        b->unpublished = unpublished;
        b->generation = generation;
    }
    buffer_append_u8(&b->ops, OP_CHANGE);
    change_encode(change, &b->ops);
    if (b->applying && b->ops.length >= PIECE_BYTES)
        manifest_apply_piece(b);
}

void
manifest_batch_source(struct manifest_batch *b, manifest_source *source, void *argument)
{
    struct batch_op op = {.source = {source, argument}};
    append_op(b, OP_SOURCE, &op);
}

void
manifest_batch_expect(struct manifest_batch *b, uint64_t bytes)
{
    b->expected_bytes += bytes;
}

void
manifest_batch_set_residency(struct manifest_batch *b, uint8_t residency)
{
    b->residency = residency;
}

void
manifest_batch_local_generation(struct manifest_batch *b, struct generation local, struct lsn cut,
    struct db_counters counters, uint64_t wall_ms)
{
    struct batch_op op = {.local = {local, cut, counters, wall_ms}};
    append_op(b, OP_LOCAL_GENERATION, &op);
}

void
manifest_batch_published(struct manifest_batch *b, struct generation published, uint64_t wall_ms,
    uint64_t sequence, const struct sha256 *hash, uint64_t record_bytes)
{
    struct batch_op op = {.published = {published, wall_ms, sequence, *hash, record_bytes}};
    append_op(b, OP_PUBLISHED, &op);
}

void
manifest_batch_blob_remote(struct manifest_batch *b, const struct sha256 *hash)
{
    struct batch_op op = {.blob = *hash};
    append_op(b, OP_BLOB_REMOTE, &op);
}

void
manifest_batch_blob_uploaded(
    struct manifest_batch *b, const struct sha256 *hash, struct generation generation)
{
    struct batch_op op = {.uploaded = {*hash, generation}};
    append_op(b, OP_BLOB_UPLOADED, &op);
}

void
manifest_batch_remote_position(
    struct manifest_batch *b, uint64_t epoch, uint64_t sequence, const struct sha256 *hash)
{
    struct batch_op op = {.position = {epoch, sequence, *hash}};
    append_op(b, OP_REMOTE_POSITION, &op);
}

void
manifest_batch_catalog(struct manifest_batch *b, uint64_t sequence, uint64_t bytes)
{
    struct batch_op op = {.catalog = {sequence, bytes}};
    append_op(b, OP_CATALOG, &op);
}

void
manifest_batch_next_generation(struct manifest_batch *b, struct generation next)
{
    struct batch_op op = {.next = next};
    append_op(b, OP_NEXT_GENERATION, &op);
}

void
manifest_batch_db_state(struct manifest_batch *b, enum db_state state)
{
    struct batch_op op = {.state = state};
    append_op(b, OP_DB_STATE, &op);
}

void
manifest_batch_fenced(struct manifest_batch *b, bool fenced)
{
    struct batch_op op = {.fenced = fenced};
    append_op(b, OP_FENCED, &op);
}

void
manifest_batch_identity(
    struct manifest_batch *b, const struct uuid *volume, const struct uuid *name_key)
{
    struct batch_op op = {.identity = {*volume, *name_key}};
    append_op(b, OP_IDENTITY, &op);
}

void
manifest_batch_checkpoint_id(
    struct manifest_batch *b, struct generation local, const struct uuid *id)
{
    struct batch_op op = {.checkpoint = {local, *id}};
    append_op(b, OP_CHECKPOINT_ID, &op);
}

void
manifest_batch_log_end(struct manifest_batch *b, struct lsn cut, struct lsn end)
{
    struct batch_op op = {.log = {cut, end}};
    append_op(b, OP_LOG_END, &op);
}

void
manifest_batch_date_deaths(struct manifest_batch *b)
{
    struct batch_op op = {0};
    append_op(b, OP_DATE_DEATHS, &op);
}

void
manifest_batch_lowest(struct manifest_batch *b, uint64_t lowest)
{
    struct batch_op op = {.told = lowest};
    append_op(b, OP_LOWEST, &op);
}

void
manifest_batch_told(struct manifest_batch *b, uint64_t sequence)
{
    struct batch_op op = {.told = sequence};
    append_op(b, OP_TOLD, &op);
}

void
manifest_batch_old_death(
    struct manifest_batch *b, const struct blob_record *blob, uint64_t sequence)
{
    struct batch_op op = {.old_death = {*blob, sequence}};
    append_op(b, OP_OLD_DEATH, &op);
}

void
manifest_batch_note_generation(struct manifest_batch *b, const struct generation_record *g)
{
    struct batch_op op = {.generation = *g};
    append_op(b, OP_NOTE_GENERATION, &op);
}

void
manifest_batch_dead_gone(struct manifest_batch *b, const struct blob_identity *blob)
{
    struct batch_op op = {.dead = *blob};
    append_op(b, OP_DEAD_GONE, &op);
}

void
manifest_batch_history_known(struct manifest_batch *b)
{
    struct batch_op op = {0};
    append_op(b, OP_HISTORY_KNOWN, &op);
}

void
manifest_batch_annotate(struct manifest_batch *b, const struct manifest_note *note)
{
    struct batch_op op = {.annotation = *note};
    append_op(b, OP_ANNOTATE, &op);
}

void
manifest_batch_put_cursor(struct manifest_batch *b, const struct change_cursor *cursor)
{
    struct batch_op op = {.cursor = *cursor};
    append_op(b, OP_PUT_CURSOR, &op);
}

void
manifest_batch_drop_cursor(struct manifest_batch *b, const char *name)
{
    struct batch_op op = {0};
    (void)snprintf(op.cursor.name, sizeof(op.cursor.name), "%s", name);
    append_op(b, OP_DROP_CURSOR, &op);
}

void
manifest_batch_flags(struct manifest_batch *b, unsigned flags)
{
    struct batch_op op = {.flags_changed = (DB_FLAGS_DEFAULT ^ flags) & DB_FLAGS_ALL};
    append_op(b, OP_FLAGS, &op);
}

void
manifest_batch_swept(struct manifest_batch *b, uint64_t wall_ms)
{
    struct batch_op op = {.swept_ms = wall_ms};
    append_op(b, OP_SWEPT, &op);
}

void
manifest_batch_put_job(struct manifest_batch *b, struct job_record *job)
{
    struct batch_op op = {.job = job};
    append_op(b, OP_PUT_JOB, &op);
}

void
manifest_batch_remove_job(struct manifest_batch *b, uint64_t job_id)
{
    struct batch_op op = {.job_id = job_id};
    append_op(b, OP_REMOVE_JOB, &op);
}

void
manifest_released_free(struct manifest_released *released)
{
    free(released->blobs);
    *released = (struct manifest_released){0};
}

static void
hand_over_released(struct manifest_batch *b, struct manifest_released *released_out)
{
    released_out->count = b->released.length / sizeof(struct sha256);
    released_out->blobs = (struct sha256 *)(void *)b->released.data;
    b->released = (struct buffer){0};
}

int
manifest_submit(
    struct manifest *m, struct manifest_batch *b, struct manifest_released *released_out)
{
    if (released_out)
        *released_out = (struct manifest_released){0};
    int rc = manifest_writer_commit(m, b);
    if (rc == 0) {
        const struct assigned_job_id *assigned = (const void *)b->assigned.data;
        for (size_t i = 0; i < b->assigned.length / sizeof(*assigned); i++)
            assigned[i].job->id = assigned[i].id;
        if (released_out)
            hand_over_released(b, released_out);
    }
    manifest_batch_free(b);
    return rc;
}
