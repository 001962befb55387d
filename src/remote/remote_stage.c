// SPDX-License-Identifier: Apache-2.0
// Staging: records and catalogs are streamed out of one read transaction into a file of scratch, so
// that memory does not depend on their size, and a retry of the upload sends the same bytes.
//
// The staged bytes are a function of the manifest (`created_ms` is the time of the cut, not of the
// staging, and the checkpoint's id is kept with the generation): a root that stages again after a
// crash makes the same bytes, and finds its own record if it was created before.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "remote/remote_internal.h"

#define STAGE_BUFFER_BYTES (256u << 10)

struct stage {
    struct remote_staged *staged;
    struct manifest_record_writer *writer;
    struct buffer pending; // not yet in the file
    uint64_t written;
    // How a blob is treated that is not in the store.
    enum { BLOB_IS_UPLOADED, BLOB_IS_UPLOADED_BY_RECORD, BLOB_IS_REFUSED } absent;
    struct remote_upload *uploads;
    size_t count, capacity;
};

void
remote_staged_free(struct remote_staged *s)
{
    if (s->path) {
        file_close(s->fd);
        (void)file_ops_system.unlink(s->path);
        storage_quota_give_back(s->quota, QUOTA_BLOBS, s->reserved);
        free(s->path);
    }
    if (s->catalog)
        remote_staged_free(s->catalog);
    free(s->catalog);
    *s = (struct remote_staged){.fd = -1};
}

static int
flush_pending(struct stage *s)
{
    uint64_t reserved = storage_quota_blocks_for(s->pending.length);
    int rc = storage_quota_reserve(s->staged->quota, QUOTA_BLOBS, QUOTA_LAST, reserved);
    if (rc < 0)
        return rc;
    s->staged->reserved += reserved;
    rc = file_write_at(
        &file_ops_system, s->staged->fd, s->pending.data, s->pending.length, s->written);
    if (rc < 0) {
        log_error("remote.scratch_failed", "cannot write %s: %s", s->staged->path, strerror(-rc));
        return rc;
    }
    s->written += s->pending.length;
    buffer_clear(&s->pending);
    return 0;
}

static int
sink_to_file(void *argument, const void *p, size_t n)
{
    struct stage *s = argument;
    buffer_append(&s->pending, p, n);
    return s->pending.length >= STAGE_BUFFER_BYTES ? flush_pending(s) : 0;
}

static void
note_upload(struct stage *s, const struct blob_record *blob)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 16;
        s->uploads = memory_realloc(s->uploads, s->capacity * sizeof(*s->uploads));
    }
    s->uploads[s->count++].blob = *blob;
}

static int
stage_change(void *argument, const struct change *change)
{
    struct stage *s = argument;
    if (change->kind == CHANGE_PUT_BLOB && !(change->blob.residency & RESIDENCY_REMOTE)) {
        if (s->absent == BLOB_IS_REFUSED)
            return -EAGAIN;
        if (s->absent == BLOB_IS_UPLOADED)
            note_upload(s, &change->blob);
    }
    s->staged->changes++;
    return manifest_record_writer_add(s->writer, change);
}

typedef int export_function(
    struct manifest_reader *r, struct db_id db, manifest_visit_change *visit, void *argument);

// Writes header and changes to a new file of scratch. `s` and its staged record are the caller's to
// free, also after an error.
static int
stage_write(const struct remote_place *place, struct stage *s, struct manifest_reader *r,
    struct db_id db, export_function *export)
{
    struct remote_staged *staged = s->staged;
    int rc = remote_scratch_open(place, &staged->path, &staged->fd);
    if (rc < 0)
        return rc;
    staged->quota = place->quota;
    s->writer = manifest_record_writer_new(&staged->header, sink_to_file, s);
    rc = export(r, db, stage_change, s);
    if (rc == 0)
        rc = manifest_record_writer_finish(s->writer, &staged->hash, &staged->bytes);
    if (rc == 0)
        rc = flush_pending(s);
    manifest_record_writer_free(s->writer);
    buffer_free(&s->pending);
    return rc;
}

struct manifest_record_header
remote_header_at(const struct remote_place *place, const struct db_record *db)
{
    struct manifest_record_header h = {
        .sequence = db->remote_sequence,
        .epoch = db->epoch,
        .volume = db->volume,
        .writer = place->writer,
        .name_key = db->name_key,
        .previous = db->remote_hash,
        .generation = db->published,
        .previous_generation = db->published,
        .cut = db->cut,
        .lowest_sequence = db->lowest_sequence,
    };
    remote_host_name(h.host);
    return h;
}

// A generation of a program that did not keep the id: any will do, if it is always the same.
static struct uuid
checkpoint_id_of(const struct remote_place *place, const struct db_record *db)
{
    if (!uuid_is_zero(&db->local_checkpoint))
        return db->local_checkpoint;
    BUFFER_AUTO text = {0};
    struct sha256 hash;
    struct uuid id;
    buffer_append(&text, db->volume.b, sizeof(db->volume.b));
    buffer_append(&text, place->writer.b, sizeof(place->writer.b));
    buffer_append_le64(&text, db->local.v);
    sha256_of(text.data, text.length, &hash);
    memcpy(id.b, hash.b, sizeof(id.b));
    return id;
}

// A record costs its reader a request; in that time a catalog would yield about so many bytes.
#define RECORD_WEIGHT_BYTES (64u << 10)

bool
remote_manifest_catalog_due(const struct db_record *db)
{
    if (db->published.v == 0)
        return false;
    if (db->catalog_sequence == 0)
        return true;
    uint64_t records = db->remote_sequence - db->catalog_sequence;
    if (db->bytes_since_catalog + records * RECORD_WEIGHT_BYTES <= db->catalog_bytes)
        return false;
    return records >= 16 || db->bytes_since_catalog >= (1u << 20);
}

// The catalog of the published state of `db`, from a transaction that shows this state.
static int
stage_catalog_from(const struct remote_place *place, struct manifest_reader *r,
    const struct db_record *db, struct stage *s)
{
    s->staged->header = remote_header_at(place, db);
    s->staged->header.kind = MANIFEST_RECORD_CATALOG;
    s->staged->header.created_ms = db->published_time_ms;
    return stage_write(place, s, r, db->id, manifest_export);
}

// The catalog of the state after the record that has just been staged from the same transaction, if
// one is due then: folds go on while the record is published, and no later transaction shows that
// state again. The record's blobs are in the store when it is written.
static int
stage_catalog_of(const struct remote_place *place, struct manifest_reader *r,
    const struct db_record *db, struct remote_staged *record)
{
    struct db_record after = *db;
    after.published = db->local;
    after.published_time_ms = db->local_time_ms;
    after.remote_sequence = record->header.sequence;
    after.remote_hash = record->hash;
    after.bytes_since_catalog += record->bytes;
    if (!remote_manifest_catalog_due(&after))
        return 0;
    record->catalog = memory_alloc_zero(sizeof(*record->catalog));
    record->catalog->fd = -1;
    struct stage s = {.staged = record->catalog, .absent = BLOB_IS_UPLOADED_BY_RECORD};
    return stage_catalog_from(place, r, &after, &s);
}

static int
stage_generation_from(const struct remote_place *place, struct manifest_reader *r,
    const struct db_record *db, struct stage *s)
{
    if (db->fenced || db->epoch == 0)
        return -ESTALE;
    if (db->local.v <= db->published.v)
        return -EALREADY;
    struct manifest_record_header *h = &s->staged->header;
    *h = remote_header_at(place, db);
    h->kind = MANIFEST_RECORD_GENERATION;
    h->sequence++;
    h->generation = db->local;
    h->checkpoint_id = checkpoint_id_of(place, db);
    h->created_ms = db->local_time_ms;
    int rc = stage_write(place, s, r, db->id, manifest_export_unpublished);
    return rc < 0 ? rc : stage_catalog_of(place, r, db, s->staged);
}

int
remote_manifest_stage_generation(const struct remote_place *place, struct manifest *m,
    struct db_id db_id, struct remote_staged *staged_out, struct remote_upload **uploads_out,
    size_t *count_out)
{
    *staged_out = (struct remote_staged){.fd = -1};
    *uploads_out = NULL;
    *count_out = 0;
    struct stage s = {.staged = staged_out};
    struct manifest_reader *r = NULL;
    int rc = manifest_read_begin(m, &r);
    if (rc < 0)
        return rc;
    struct db_record db;
    rc = manifest_read_db(r, db_id, &db);
    if (rc == 0)
        rc = stage_generation_from(place, r, &db, &s);
    manifest_read_end(r);
    if (rc < 0) {
        free(s.uploads);
        remote_staged_free(staged_out);
        return rc;
    }
    *uploads_out = s.uploads;
    *count_out = s.count;
    return 0;
}

void
remote_note_uploaded(
    struct manifest_batch *b, const struct blob_record *blob, struct generation generation)
{
    struct change put = {.kind = CHANGE_PUT_BLOB, .blob = *blob};
    manifest_batch_set_residency(b, RESIDENCY_REMOTE);
    manifest_batch_change(b, &put, false, generation);
    manifest_batch_blob_remote(b, &blob->hash);
}

void
remote_note_published(struct manifest_batch *b, const struct manifest_record_header *h,
    const struct sha256 *hash, uint64_t bytes)
{
    manifest_batch_published(b, h->generation, h->created_ms, h->sequence, hash, bytes);
}

int
remote_manifest_record_publication(const struct remote_place *place, struct manifest *m,
    struct db_id db_id, const struct remote_staged *staged, const struct remote_upload *uploads,
    size_t count, uint64_t job_id)
{
    struct db_record db;
    int rc = remote_refresh_db(m, db_id, &db);
    if (rc < 0)
        return rc;
    const struct manifest_record_header *h = &staged->header;
    // Catching up may have been here before.
    bool known = db.remote_sequence == h->sequence && sha256_equal(&db.remote_hash, &staged->hash);
    if (known && job_id == 0)
        return 0;
    if (!known &&
        (db.remote_sequence + 1 != h->sequence || !uuid_equal(&h->writer, &place->writer)))
        return -ESTALE;
    struct manifest_batch *b = manifest_batch_new(db_id);
    manifest_batch_told(b, h->sequence);
    if (job_id != 0)
        manifest_batch_remove_job(b, job_id);
    if (known)
        return manifest_submit(m, b, NULL);
    for (size_t i = 0; i < count; i++)
        remote_note_uploaded(b, &uploads[i].blob, h->generation);
    remote_note_published(b, h, &staged->hash, staged->bytes);
    return manifest_submit(m, b, NULL);
}

// ---- catalogs -----------------------------------------------------------------------------------

static int
stage_catalog(const struct remote_place *place, struct manifest *m, struct db_id db_id,
    struct remote_staged *staged)
{
    struct stage s = {.staged = staged, .absent = BLOB_IS_REFUSED};
    struct manifest_reader *r = NULL;
    int rc = manifest_read_begin(m, &r);
    if (rc < 0)
        return rc;
    struct db_record db;
    rc = manifest_read_db(r, db_id, &db);
    if (rc == 0 && (db.local.v != db.published.v || db.remote_sequence == 0))
        rc = -EAGAIN;
    if (rc == 0)
        rc = stage_catalog_from(place, r, &db, &s);
    manifest_read_end(r);
    return rc;
}

static int
put_catalog(const struct remote_place *place, const struct remote_staged *staged)
{
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_CATALOG, staged->header.sequence, &name);
    const char *key = buffer_string(&name);
    struct remote_source source = {.fd = staged->fd, .length = staged->bytes, .hash = staged->hash};
    struct remote_call call = remote_call_of(place, staged->bytes);
    int rc = remote_store_put_blob(place->store, key, &source, REMOTE_PUT_CREATE, &call);
    if (rc < 0 && rc != -EEXIST)
        return remote_log_failure("remote.put_failed", key, rc);
    return 0;
}

int
remote_manifest_put_catalog(const struct remote_place *place, struct manifest *m, struct db_id db,
    const struct remote_staged *catalog)
{
    int rc = put_catalog(place, catalog);
    if (rc < 0)
        return rc;
    struct manifest_batch *b = manifest_batch_new(db);
    manifest_batch_catalog(b, catalog->header.sequence, catalog->bytes);
    return manifest_submit(m, b, NULL);
}

int
remote_manifest_write_catalog(const struct remote_place *place, struct manifest *m, struct db_id db)
{
    struct remote_staged staged = {.fd = -1};
    int rc = stage_catalog(place, m, db, &staged);
    if (rc == 0)
        rc = remote_manifest_put_catalog(place, m, db, &staged);
    remote_staged_free(&staged);
    return rc;
}
