// SPDX-License-Identifier: Apache-2.0
#include "manifest/manifest_schema.h"

#include "base/bytes.h"
#include "format/extension.h"
#include "format/record_codec.h"

const char *const manifest_table_names[TABLE_COUNT] = {
    [TABLE_DB] = "db",
    [TABLE_WAL_STATE] = "wal_state",
    [TABLE_GENERATION_WATERMARKS] = "generation_watermarks",
    [TABLE_INODE] = "inode",
    [TABLE_ORPHAN_INDEX] = "orphan_index",
    [TABLE_DIRENT] = "dirent",
    [TABLE_XATTR] = "xattr",
    [TABLE_CHUNK_CATALOG] = "chunk_catalog",
    [TABLE_OBJECT_CHUNKS] = "object_chunks",
    [TABLE_CHUNK_DELTA_INDEX] = "chunk_delta_index",
    [TABLE_BLOB_REFS] = "blob_refs",
    [TABLE_UNPUBLISHED_BLOBS] = "unpublished_blobs",
    [TABLE_UNPUBLISHED_INDEX] = "unpublished_index",
    [TABLE_JOB_QUEUE] = "job_queue",
    [TABLE_JOB_PENDING_INDEX] = "job_pending_index",
    [TABLE_CHANGE_LOG] = "change_log",
    [TABLE_RUNTIME_STATE] = "runtime_state",
    [TABLE_WAL_CATALOG] = "wal_catalog",
    [TABLE_SNAPSHOT_INDEX] = "snapshot_index",
    [TABLE_CHANGE_CURSORS] = "change_cursors",
    [TABLE_REMOTE_NAMESPACE] = "remote_namespace",
    [TABLE_CHUNK_DAMAGE] = "chunk_damage",
};

#define RECORD_VERSION 1u
#define HASH_BYTES     32u
#define DB_BYTES       4u

// ---- keys ---------------------------------------------------------------------------------------

static void
key_append(struct schema_key *k, const void *p, size_t n)
{
    assert(n <= sizeof(k->bytes) - k->length);
    memcpy(k->bytes + k->length, p, n);
    k->length += n;
}

static void
key_append_u64(struct schema_key *k, uint64_t v)
{
    put_be64(k->bytes + k->length, v);
    k->length += sizeof(v);
}

void
schema_key_db(struct schema_key *k, struct db_id db)
{
    put_be32(k->bytes, db.v);
    k->length = DB_BYTES;
}

void
schema_key_number(struct schema_key *k, struct db_id db, uint64_t a)
{
    schema_key_db(k, db);
    key_append_u64(k, a);
}

void
schema_key_pair(struct schema_key *k, struct db_id db, uint64_t a, uint64_t b)
{
    schema_key_number(k, db, a);
    key_append_u64(k, b);
}

void
schema_key_xattr(struct schema_key *k, struct db_id db, struct object_id object, const char *name,
    size_t name_length)
{
    schema_key_number(k, db, object.v);
    key_append(k, name, name_length);
}

void
schema_key_blob(struct schema_key *k, const struct sha256 *hash, struct db_id db)
{
    memcpy(k->bytes, hash->b, HASH_BYTES);
    put_be32(k->bytes + HASH_BYTES, db.v);
    k->length = HASH_BYTES + DB_BYTES;
}

void
schema_key_unpublished_blob(struct schema_key *k, struct db_id db, const struct sha256 *hash)
{
    schema_key_db(k, db);
    key_append(k, hash->b, HASH_BYTES);
}

void
schema_key_forgotten(struct schema_key *k, struct db_id db, const struct blob_identity *blob)
{
    schema_key_unpublished_blob(k, db, &blob->hash);
    key_append(k, blob->checkpoint_id.b, sizeof(blob->checkpoint_id.b));
    key_append_u64(k, blob->generation.v);
}

void
schema_key_unpublished(
    struct schema_key *k, enum unpublished_kind kind, const struct schema_key *key)
{
    memcpy(k->bytes, key->bytes, DB_BYTES);
    k->bytes[DB_BYTES] = (uint8_t)kind;
    k->length = DB_BYTES + 1;
    key_append(k, key->bytes + DB_BYTES, key->length - DB_BYTES);
}

void
schema_key_pending_job(struct schema_key *k, struct db_id db, const struct job_record *job)
{
    schema_key_db(k, db);
    put_be32(k->bytes + DB_BYTES, (uint32_t)job->kind);
    k->length += 4;
    key_append(k, job->key, job->key_length);
}

void
schema_key_sequence(struct schema_key *k, uint64_t sequence)
{
    k->length = 0;
    key_append_u64(k, sequence);
}

void
schema_key_cursor(struct schema_key *k, const char *name)
{
    k->length = 0;
    key_append(k, name, strlen(name));
}

bool
schema_read_cursor_name(const void *p, size_t n, struct change_cursor *v)
{
    memset(v->name, 0, sizeof(v->name));
    if (n == 0 || n >= sizeof(v->name) || memchr(p, 0, n))
        return false;
    memcpy(v->name, p, n);
    return true;
}

void
schema_key_runtime(struct schema_key *k, enum runtime_item item, struct db_id db)
{
    put_be32(k->bytes, (uint32_t)item);
    put_be32(k->bytes + 4, db.v);
    k->length = 8;
}

// ---- keys of snapshot_index ---------------------------------------------------------------------

#define LIFE_BYTES (DB_BYTES + 1)

void
schema_key_life(struct schema_key *k, struct db_id db, enum life_item item)
{
    schema_key_db(k, db);
    k->bytes[k->length++] = (uint8_t)item;
}

void
schema_key_life_number(struct schema_key *k, struct db_id db, enum life_item item, uint64_t number)
{
    schema_key_life(k, db, item);
    key_append_u64(k, number);
}

void
schema_key_dead(
    struct schema_key *k, struct db_id db, const struct sha256 *hash, struct generation birth)
{
    schema_key_life(k, db, LIFE_DEAD);
    key_append(k, hash->b, HASH_BYTES);
    key_append_u64(k, birth.v);
}

void
schema_key_death(struct schema_key *k, struct db_id db, const struct blob_record *blob)
{
    schema_key_life_number(k, db, LIFE_DEATH, blob->death.v);
    key_append(k, blob->hash.b, HASH_BYTES);
    key_append_u64(k, blob->generation.v);
}

bool
schema_read_life_number(const void *p, size_t n, uint64_t *number)
{
    if (n != LIFE_BYTES + 8)
        return false;
    *number = get_be64((const uint8_t *)p + LIFE_BYTES);
    return true;
}

bool
schema_read_death(const void *p, size_t n, struct blob_record *blob)
{
    const uint8_t *bytes = p;
    if (n != LIFE_BYTES + 8 + HASH_BYTES + 8)
        return false;
    blob->death.v = get_be64(bytes + LIFE_BYTES);
    memcpy(blob->hash.b, bytes + LIFE_BYTES + 8, HASH_BYTES);
    blob->generation.v = get_be64(bytes + n - 8);
    return true;
}

bool
schema_read_db(const void *p, size_t n, struct db_id *db)
{
    if (n != DB_BYTES)
        return false;
    db->v = get_be32(p);
    return true;
}

bool
schema_read_number(const void *p, size_t n, uint64_t *a)
{
    if (n != DB_BYTES + 8)
        return false;
    *a = get_be64((const uint8_t *)p + DB_BYTES);
    return true;
}

bool
schema_read_pair(const void *p, size_t n, uint64_t *a, uint64_t *b)
{
    if (n != DB_BYTES + 16)
        return false;
    *a = get_be64((const uint8_t *)p + DB_BYTES);
    *b = get_be64((const uint8_t *)p + DB_BYTES + 8);
    return true;
}

bool
schema_read_xattr(const void *p, size_t n, struct xattr_record *xattr)
{
    if (n <= DB_BYTES + 8 || n > DB_BYTES + 8 + XATTR_NAME_BYTES_MAX)
        return false;
    xattr->object.v = get_be64((const uint8_t *)p + DB_BYTES);
    xattr->name = (const char *)p + DB_BYTES + 8;
    xattr->name_length = (uint8_t)(n - DB_BYTES - 8);
    return true;
}

bool
schema_read_blob(const void *p, size_t n, struct sha256 *hash, struct db_id *db)
{
    if (n != HASH_BYTES + DB_BYTES)
        return false;
    memcpy(hash->b, p, HASH_BYTES);
    db->v = get_be32((const uint8_t *)p + HASH_BYTES);
    return true;
}

bool
schema_read_unpublished_blob(const void *p, size_t n, struct sha256 *hash)
{
    if (n != DB_BYTES + HASH_BYTES)
        return false;
    memcpy(hash->b, (const uint8_t *)p + DB_BYTES, HASH_BYTES);
    return true;
}

#define FORGOTTEN_BYTES (DB_BYTES + HASH_BYTES + 16 + 8)

bool
schema_read_forgotten(const void *p, size_t n, struct blob_identity *blob)
{
    if (n != FORGOTTEN_BYTES)
        return false;
    const uint8_t *bytes = p;
    memcpy(blob->hash.b, bytes + DB_BYTES, HASH_BYTES);
    memcpy(blob->checkpoint_id.b, bytes + DB_BYTES + HASH_BYTES, sizeof(blob->checkpoint_id.b));
    blob->generation.v = get_be64(bytes + n - 8);
    return true;
}

bool
schema_read_unpublished(
    const void *p, size_t n, enum unpublished_kind *kind, struct schema_key *key)
{
    if (n < DB_BYTES + 1 + 8 || n > DB_BYTES + 1 + 8 + XATTR_NAME_BYTES_MAX)
        return false;
    const uint8_t *bytes = p;
    memcpy(key->bytes, bytes, DB_BYTES);
    key->length = DB_BYTES;
    key_append(key, bytes + DB_BYTES + 1, n - DB_BYTES - 1);
    *kind = (enum unpublished_kind)bytes[DB_BYTES];
    switch (*kind) {
    case UNPUBLISHED_INODE:
    case UNPUBLISHED_NAMESPACE:
        return key->length == DB_BYTES + 8;
    case UNPUBLISHED_DIRENT:
    case UNPUBLISHED_CHUNK:
    case UNPUBLISHED_DELTA:
    case UNPUBLISHED_DAMAGE:
        return key->length == DB_BYTES + 16;
    case UNPUBLISHED_XATTR:
        return key->length > DB_BYTES + 8;
    case UNPUBLISHED_BLOB:
        return key->length == DB_BYTES + HASH_BYTES;
    case UNPUBLISHED_FORGET:
        return key->length == FORGOTTEN_BYTES;
    }
    return false;
}

bool
schema_read_sequence(const void *p, size_t n, uint64_t *sequence)
{
    if (n != 8)
        return false;
    *sequence = get_be64(p);
    return true;
}

// ---- values: the beginning and the end of each --------------------------------------------------

static void
encode_version(struct buffer *out)
{
    buffer_append_le16(out, RECORD_VERSION);
}

static bool
decode_version(const void *p, size_t n, struct byte_reader *r)
{
    *r = byte_reader_over(p, n);
    return read_le16(r) == RECORD_VERSION && !r->bad;
}

static bool
is_finished(const struct byte_reader *r)
{
    return !r->bad && byte_reader_left(r) == 0;
}

// ---- values: dbs --------------------------------------------------------------------------------

static void
encode_text(const char *text, struct buffer *out)
{
    size_t n = strlen(text);
    buffer_append_le16(out, (uint16_t)n);
    buffer_append(out, text, n);
}

// Into a NUL-terminated array of `room` bytes, zeros after the text.
static bool
decode_text(struct byte_reader *r, char *out, size_t room)
{
    size_t n = read_le16(r);
    memset(out, 0, room);
    if (r->bad || n >= room)
        return false;
    read_copy(r, out, n);
    return !r->bad && !memchr(out, 0, n);
}

void
schema_encode_db(const struct db_record *v, struct buffer *out)
{
    encode_version(out);
    buffer_append_u8(out, (uint8_t)v->state);
    buffer_append_u8(out, v->fenced);
    buffer_append_le32(out, v->volume_number);
    buffer_append(out, v->volume.b, sizeof(v->volume.b));
    buffer_append(out, v->name_key.b, sizeof(v->name_key.b));
    record_encode_counters(&v->counters, out);
    buffer_append_le64(out, v->epoch);
    buffer_append_le64(out, v->remote_sequence);
    buffer_append(out, v->remote_hash.b, sizeof(v->remote_hash.b));
    buffer_append_le64(out, v->catalog_sequence);
    buffer_append_le64(out, v->catalog_bytes);
    buffer_append_le64(out, v->bytes_since_catalog);
    encode_text(v->tenant, out);
    encode_text(v->place, out);
}

bool
schema_decode_db(const void *p, size_t n, struct db_record *v)
{
    struct byte_reader r;
    if (!decode_version(p, n, &r))
        return false;
    uint8_t state = read_u8(&r);
    uint8_t fenced = read_u8(&r);
    v->state = (enum db_state)state;
    v->fenced = fenced != 0;
    v->volume_number = read_le32(&r);
    read_copy(&r, v->volume.b, sizeof(v->volume.b));
    read_copy(&r, v->name_key.b, sizeof(v->name_key.b));
    if (!record_decode_counters(&r, &v->counters))
        return false;
    v->epoch = read_le64(&r);
    v->remote_sequence = read_le64(&r);
    read_copy(&r, v->remote_hash.b, sizeof(v->remote_hash.b));
    v->catalog_sequence = read_le64(&r);
    v->catalog_bytes = read_le64(&r);
    v->bytes_since_catalog = read_le64(&r);
    return decode_text(&r, v->tenant, sizeof(v->tenant)) &&
           decode_text(&r, v->place, sizeof(v->place)) && is_finished(&r) && fenced <= 1 &&
           (state == DB_STATE_IMPORTING || state == DB_STATE_READY);
}

void
schema_encode_wal_state(const struct db_record *v, struct buffer *out)
{
    encode_version(out);
    buffer_append_le64(out, v->cut.v);
}

bool
schema_decode_wal_state(const void *p, size_t n, struct db_record *v)
{
    struct byte_reader r;
    if (!decode_version(p, n, &r))
        return false;
    v->cut.v = read_le64(&r);
    return is_finished(&r);
}

void
schema_encode_watermarks(const struct db_record *v, struct buffer *out)
{
    encode_version(out);
    buffer_append_le64(out, v->local.v);
    buffer_append_le64(out, v->published.v);
    buffer_append_le64(out, v->next.v);
    buffer_append_le64(out, v->local_time_ms);
    buffer_append_le64(out, v->published_time_ms);
}

bool
schema_decode_watermarks(const void *p, size_t n, struct db_record *v)
{
    struct byte_reader r;
    if (!decode_version(p, n, &r))
        return false;
    v->local.v = read_le64(&r);
    v->published.v = read_le64(&r);
    v->next.v = read_le64(&r);
    v->local_time_ms = read_le64(&r);
    v->published_time_ms = read_le64(&r);
    return is_finished(&r);
}

// ---- values: the records of format/records.h ----------------------------------------------------

#define RECORD_VALUE(name, type)                                                                   \
    void schema_encode_##name(const struct type *v, struct buffer *out)                            \
    {                                                                                              \
        encode_version(out);                                                                       \
        record_encode_##name(v, out);                                                              \
    }                                                                                              \
    bool schema_decode_##name(const void *p, size_t n, struct type *v)                             \
    {                                                                                              \
        struct byte_reader r;                                                                      \
        return decode_version(p, n, &r) && record_decode_##name(&r, v) && is_finished(&r);         \
    }
RECORD_VALUE(dirent, dirent_record)
RECORD_VALUE(xattr, xattr_record)
RECORD_VALUE(delta, chunk_delta)
RECORD_VALUE(namespace, namespace_record)
RECORD_VALUE(generation, generation_record)
RECORD_VALUE(retention, retention_policy)
RECORD_VALUE(damage, chunk_damage)
#undef RECORD_VALUE

void
schema_encode_inode(const struct inode_record *v, struct buffer *out)
{
    unsigned version = record_inode_version(v);
    buffer_append_le16(out, (uint16_t)version);
    record_encode_inode(v, version, out);
}

bool
schema_decode_inode(const void *p, size_t n, struct inode_record *v)
{
    struct byte_reader r = byte_reader_over(p, n);
    unsigned version = read_le16(&r);
    return !r.bad && version >= 1 && version <= 2 && record_decode_inode(&r, version, v) &&
           is_finished(&r);
}

void
schema_encode_chunk(const struct chunk_entry *v, struct buffer *out)
{
    unsigned version = record_chunk_version(v);
    buffer_append_le16(out, (uint16_t)version);
    record_encode_chunk(v, version, out);
}

bool
schema_decode_chunk(const void *p, size_t n, struct chunk_entry *v)
{
    struct byte_reader r = byte_reader_over(p, n);
    unsigned version = read_le16(&r);
    return !r.bad && version >= 1 && version <= 2 && record_decode_chunk(&r, version, v) &&
           is_finished(&r) && version == record_chunk_version(v);
}

void
schema_encode_blob(const struct blob_record *v, struct buffer *out)
{
    unsigned version = record_blob_version(v);
    buffer_append_le16(out, (uint16_t)version);
    record_encode_blob(v, version, out);
    buffer_append_u8(out, v->residency);
    buffer_append_le32(out, v->references);
    buffer_append_le64(out, v->live_bytes);
}

bool
schema_decode_blob(const void *p, size_t n, struct blob_record *v)
{
    struct byte_reader r = byte_reader_over(p, n);
    unsigned version = read_le16(&r);
    if (r.bad || version < 1 || version > 2 || !record_decode_blob(&r, version, v))
        return false;
    v->residency = read_u8(&r);
    v->references = read_le32(&r);
    v->live_bytes = read_le64(&r);
    return is_finished(&r) && (v->residency & ~(RESIDENCY_LOCAL | RESIDENCY_REMOTE)) == 0;
}

void
schema_encode_dead(const struct dead_blob *v, struct buffer *out)
{
    encode_version(out);
    record_encode_blob(&v->blob, 2, out);
    buffer_append_le64(out, v->told);
}

bool
schema_decode_dead(const void *p, size_t n, struct dead_blob *v)
{
    struct byte_reader r;
    if (!decode_version(p, n, &r) || !record_decode_blob(&r, 2, &v->blob))
        return false;
    v->blob.residency = 0;
    v->blob.references = 0;
    v->blob.live_bytes = 0;
    v->told = read_le64(&r);
    return is_finished(&r);
}

void
schema_encode_object_chunk(struct chunk_id id, uint32_t present_pages, struct buffer *out)
{
    encode_version(out);
    buffer_append_le64(out, id.v);
    buffer_append_le32(out, present_pages);
}

bool
schema_decode_object_chunk(const void *p, size_t n, struct chunk_id *id, uint32_t *present_pages)
{
    struct byte_reader r;
    if (!decode_version(p, n, &r))
        return false;
    id->v = read_le64(&r);
    *present_pages = read_le32(&r);
    return is_finished(&r) && id->v != 0 && *present_pages <= CHUNK_PAGES;
}

// ---- values: numbers and the root's state -------------------------------------------------------

void
schema_encode_u64(uint64_t v, struct buffer *out)
{
    encode_version(out);
    buffer_append_le64(out, v);
}

bool
schema_decode_u64(const void *p, size_t n, uint64_t *v)
{
    struct byte_reader r;
    if (!decode_version(p, n, &r))
        return false;
    *v = read_le64(&r);
    return is_finished(&r);
}

void
schema_encode_empty(struct buffer *out)
{
    encode_version(out);
}

void
schema_encode_root(const struct uuid *root, struct buffer *out)
{
    encode_version(out);
    buffer_append_le32(out, MANIFEST_FORMAT_VERSION);
    buffer_append(out, root->b, sizeof(root->b));
}

bool
schema_decode_root(const void *p, size_t n, uint32_t *format, struct uuid *root)
{
    struct byte_reader r;
    if (!decode_version(p, n, &r))
        return false;
    *format = read_le32(&r);
    read_copy(&r, root->b, sizeof(root->b));
    return is_finished(&r);
}

void
schema_encode_checkpoint(struct generation generation, const struct uuid *id, struct buffer *out)
{
    encode_version(out);
    buffer_append_le64(out, generation.v);
    buffer_append(out, id->b, sizeof(id->b));
}

bool
schema_decode_checkpoint(const void *p, size_t n, struct generation *generation, struct uuid *id)
{
    struct byte_reader r;
    if (!decode_version(p, n, &r))
        return false;
    generation->v = read_le64(&r);
    read_copy(&r, id->b, sizeof(id->b));
    return is_finished(&r);
}

void
schema_encode_log_end(struct lsn cut, struct lsn end, struct buffer *out)
{
    encode_version(out);
    buffer_append_le64(out, cut.v);
    buffer_append_le64(out, end.v);
}

bool
schema_decode_log_end(const void *p, size_t n, struct lsn *cut, struct lsn *end)
{
    struct byte_reader r;
    if (!decode_version(p, n, &r))
        return false;
    cut->v = read_le64(&r);
    end->v = read_le64(&r);
    return is_finished(&r);
}

void
schema_encode_totals(const struct db_totals *v, struct buffer *out)
{
    encode_version(out);
    buffer_append_le64(out, v->inodes);
    buffer_append_le64(out, v->chunks);
    buffer_append_le64(out, v->deltas);
    buffer_append_le64(out, v->blobs);
    buffer_append_le64(out, v->blob_bytes);
    buffer_append_le64(out, v->unpublished_blobs);
    buffer_append_le64(out, v->unpublished_bytes);
}

bool
schema_decode_totals(const void *p, size_t n, struct db_totals *v)
{
    struct byte_reader r;
    if (!decode_version(p, n, &r))
        return false;
    v->inodes = read_le64(&r);
    v->chunks = read_le64(&r);
    v->deltas = read_le64(&r);
    v->blobs = read_le64(&r);
    v->blob_bytes = read_le64(&r);
    v->unpublished_blobs = read_le64(&r);
    v->unpublished_bytes = read_le64(&r);
    return is_finished(&r);
}

// ---- values: jobs and the change log ------------------------------------------------------------

// The lowest version that holds all of the job, so that an older program can read most of them.
static unsigned
job_version(const struct job_record *v)
{
    if (v->tries > 0 || v->not_before_ms > 0 || v->priority > 0 || v->cancel_wanted ||
        v->marker_length > 0 || v->extension_length > 0)
        return 3;
    return v->key_length > 0 || v->payload_version > 0 ? 2 : 1;
}

void
schema_encode_job(const struct job_record *v, struct buffer *out)
{
    unsigned version = job_version(v);
    buffer_append_le16(out, (uint16_t)version);
    buffer_append_u8(out, (uint8_t)v->kind);
    buffer_append_u8(out, (uint8_t)v->state);
    buffer_append_u8(out, v->retryable);
    buffer_append(out, v->token.b, sizeof(v->token.b));
    buffer_append(out, v->checkpoint_id.b, sizeof(v->checkpoint_id.b));
    buffer_append_le64(out, v->generation.v);
    buffer_append_le64(out, v->cut.v);
    buffer_append_le64(out, v->created_ms);
    buffer_append_le64(out, v->updated_ms);
    buffer_append_le64(out, v->lease_expires_ms);
    buffer_append_le64(out, v->done);
    buffer_append_le64(out, v->total);
    buffer_append_le32(out, (uint32_t)v->error);
    encode_text(v->stage, out);
    encode_text(v->cause, out);
    if (version == 1)
        return;
    buffer_append_u8(out, v->key_length);
    buffer_append(out, v->key, v->key_length);
    buffer_append_le16(out, v->payload_version);
    buffer_append_le32(out, v->payload_length);
    buffer_append(out, v->payload, v->payload_length);
    if (version == 2)
        return;
    buffer_append_le32(out, v->tries);
    buffer_append_le64(out, v->not_before_ms);
    buffer_append_u8(out, v->priority);
    buffer_append_u8(out, v->cancel_wanted);
    buffer_append_le16(out, v->marker_length);
    buffer_append(out, v->marker, v->marker_length);
    buffer_append_le16(out, v->extension_length);
    buffer_append(out, v->extension, v->extension_length);
}

// Fields of version 2 behind those of version 1.
static bool
decode_job_payload(struct byte_reader *r, struct job_record *v)
{
    v->key_length = read_u8(r);
    if (r->bad || v->key_length > sizeof(v->key))
        return false;
    read_copy(r, v->key, v->key_length);
    v->payload_version = read_le16(r);
    v->payload_length = read_le32(r);
    if (r->bad || v->payload_length > JOB_PAYLOAD_BYTES_MAX)
        return false;
    v->payload = read_bytes(r, v->payload_length);
    return !r->bad;
}

// Fields of version 3 behind those of version 2.
static bool
decode_job_course(struct byte_reader *r, struct job_record *v)
{
    v->tries = read_le32(r);
    v->not_before_ms = read_le64(r);
    v->priority = read_u8(r);
    uint8_t cancel_wanted = read_u8(r);
    v->cancel_wanted = cancel_wanted != 0;
    v->marker_length = read_le16(r);
    if (r->bad || v->marker_length > sizeof(v->marker))
        return false;
    read_copy(r, v->marker, v->marker_length);
    v->extension_length = read_le16(r);
    if (r->bad || v->extension_length > JOB_EXTENSION_BYTES_MAX)
        return false;
    v->extension = read_bytes(r, v->extension_length);
    return !r->bad && cancel_wanted <= 1 && extension_check(v->extension, v->extension_length) == 0;
}

bool
schema_decode_job(const void *p, size_t n, struct job_record *v)
{
    struct byte_reader r = byte_reader_over(p, n);
    unsigned version = read_le16(&r);
    if (r.bad || version < 1 || version > 3)
        return false;
    uint8_t kind = read_u8(&r);
    uint8_t state = read_u8(&r);
    uint8_t retryable = read_u8(&r);
    v->kind = (enum job_kind)kind;
    v->state = (enum job_state)state;
    v->retryable = retryable != 0;
    read_copy(&r, v->token.b, sizeof(v->token.b));
    read_copy(&r, v->checkpoint_id.b, sizeof(v->checkpoint_id.b));
    v->generation.v = read_le64(&r);
    v->cut.v = read_le64(&r);
    v->created_ms = read_le64(&r);
    v->updated_ms = read_le64(&r);
    v->lease_expires_ms = read_le64(&r);
    v->done = read_le64(&r);
    v->total = read_le64(&r);
    v->error = (int32_t)read_le32(&r);
    v->key_length = 0;
    v->payload_version = 0;
    v->payload_length = 0;
    v->payload = NULL;
    v->tries = 0;
    v->not_before_ms = 0;
    v->priority = 0;
    v->cancel_wanted = false;
    v->marker_length = 0;
    v->extension_length = 0;
    v->extension = NULL;
    return decode_text(&r, v->stage, sizeof(v->stage)) &&
           decode_text(&r, v->cause, sizeof(v->cause)) &&
           (version == 1 || decode_job_payload(&r, v)) &&
           (version <= 2 || decode_job_course(&r, v)) && is_finished(&r) && retryable <= 1 &&
           kind >= JOB_CREATE_CHECKPOINT && state >= JOB_PENDING && state <= JOB_FAILED;
}

void
schema_encode_cursor(const struct change_cursor *v, struct buffer *out)
{
    encode_version(out);
    buffer_append_le64(out, v->sequence);
    buffer_append_le64(out, v->updated_ms);
}

bool
schema_decode_cursor(const void *p, size_t n, struct change_cursor *v)
{
    struct byte_reader r;
    if (!decode_version(p, n, &r))
        return false;
    v->sequence = read_le64(&r);
    v->updated_ms = read_le64(&r);
    return is_finished(&r);
}

void
schema_encode_change_record(const struct manifest_change_record *v, struct buffer *out)
{
    bool noted = v->note.kind != MANIFEST_NOTE_NONE;
    buffer_append_le16(out, noted ? 2 : 1);
    buffer_append_le32(out, v->db.v);
    buffer_append_le64(out, v->wall_ms);
    buffer_append_le64(out, v->local.v);
    buffer_append_le64(out, v->published.v);
    buffer_append_le32(out, v->inodes);
    buffer_append_le32(out, v->dirents);
    buffer_append_le32(out, v->xattrs);
    buffer_append_le32(out, v->chunks);
    buffer_append_le32(out, v->deltas);
    buffer_append_le32(out, v->blob_count);
    buffer_append(out, v->blobs, (size_t)v->blob_count * HASH_BYTES);
    if (!noted)
        return;
    buffer_append_u8(out, (uint8_t)v->note.kind);
    buffer_append_u8(out, (uint8_t)v->note.reason);
    buffer_append_le64(out, v->note.job);
    buffer_append_le64(out, v->note.object.v);
    buffer_append_le64(out, v->note.window_begin);
    buffer_append_le64(out, v->note.window_end);
}

// Fields of version 2 behind those of version 1.
static bool
decode_note(struct byte_reader *r, struct manifest_note *note)
{
    note->kind = read_u8(r);
    note->reason = read_u8(r);
    note->job = read_le64(r);
    note->object.v = read_le64(r);
    note->window_begin = read_le64(r);
    note->window_end = read_le64(r);
    return !r->bad && note->kind != MANIFEST_NOTE_NONE && note->window_begin <= note->window_end;
}

bool
schema_decode_change_record(const void *p, size_t n, struct manifest_change_record *v)
{
    struct byte_reader r = byte_reader_over(p, n);
    unsigned version = read_le16(&r);
    if (r.bad || version < 1 || version > 2)
        return false;
    v->db.v = read_le32(&r);
    v->wall_ms = read_le64(&r);
    v->local.v = read_le64(&r);
    v->published.v = read_le64(&r);
    v->inodes = read_le32(&r);
    v->dirents = read_le32(&r);
    v->xattrs = read_le32(&r);
    v->chunks = read_le32(&r);
    v->deltas = read_le32(&r);
    v->blob_count = read_le32(&r);
    if (r.bad || v->blob_count > byte_reader_left(&r) / HASH_BYTES)
        return false;
    v->blobs = read_bytes(&r, (size_t)v->blob_count * HASH_BYTES);
    v->note = (struct manifest_note){0};
    return (version == 1 || decode_note(&r, &v->note)) && is_finished(&r);
}
