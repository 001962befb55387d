// SPDX-License-Identifier: Apache-2.0
// The tables of the manifest: names, keys and values as bytes. Pure.
//
// Keys are fixed-width and big-endian, so that LMDB's order is the order of the numbers; the one
// exception is `xattr`, whose key ends with the attribute's name. Values are little-endian and
// begin with record_version (u16). All keys begin with the db but those of blob_refs (a hash may be
// in several dbs, which a thread that unlinks a file looks up), change_log and runtime_state.
//
//     db                    db                       state, place, identity, chain position
//     wal_state             db                       cut
//     generation_watermarks db                       local, published, next
//     inode                 db, object               inode
//     orphan_index          db, object               -            inodes with nlink 0
//     dirent                db, parent, cookie       object, type, name
//     xattr                 db, object, name         value
//     chunk_catalog         db, chunk                chunk entry
//     object_chunks         db, object, index        chunk, present pages
//     chunk_delta_index     db, chunk, generation    delta
//     chunk_damage          db, object, page         how many pages from there on are lost
//     blob_refs             hash, db                 blob, residency, references
//     unpublished_blobs     db, hash                 bytes        references but not in the store
//     unpublished_index     db, kind, key            generation   newest that touched the key
//     job_queue             db, job                  job
//     job_pending_index     db, job kind, its key    job          the unfinished one
//     change_log            sequence                 ManifestChangeRecord
//     runtime_state         what, db                 root id, next ids, totals
//     remote_namespace      db, id                   place of another volume's blobs
//     snapshot_index        db, item, key            generations, dead blobs (enum life_item)
//
//     change_cursors        the subscriber's name    change_cursor
// Reserved, without content yet: wal_catalog.
#ifndef CKPTFS_MANIFEST_MANIFEST_SCHEMA_H
#define CKPTFS_MANIFEST_MANIFEST_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "format/change.h"
#include "manifest/manifest_records.h"

enum manifest_table {
    TABLE_DB,
    TABLE_WAL_STATE,
    TABLE_GENERATION_WATERMARKS,
    TABLE_INODE,
    TABLE_ORPHAN_INDEX,
    TABLE_DIRENT,
    TABLE_XATTR,
    TABLE_CHUNK_CATALOG,
    TABLE_OBJECT_CHUNKS,
    TABLE_CHUNK_DELTA_INDEX,
    TABLE_BLOB_REFS,
    TABLE_UNPUBLISHED_BLOBS,
    TABLE_UNPUBLISHED_INDEX,
    TABLE_JOB_QUEUE,
    TABLE_JOB_PENDING_INDEX,
    TABLE_CHANGE_LOG,
    TABLE_RUNTIME_STATE,
    TABLE_WAL_CATALOG,
    TABLE_SNAPSHOT_INDEX,
    TABLE_CHANGE_CURSORS,
    TABLE_REMOTE_NAMESPACE,
    TABLE_CHUNK_DAMAGE,
    TABLE_COUNT,
};

extern const char *const manifest_table_names[TABLE_COUNT];

// Raised when an older program must not touch the root any more. 2: the values carry seals
// (lmdb_env.h). A root of version 1 gets them when it is opened.
// 3: snapshot_index has content, and catalogs tell of generations.
#define MANIFEST_FORMAT_VERSION  3u
#define MANIFEST_FORMAT_SEALED   2u
#define MANIFEST_FORMAT_UNSEALED 1u

// ---- keys ---------------------------------------------------------------------------------------

#define SCHEMA_KEY_MAX 300u

struct schema_key {
    size_t length;
    uint8_t bytes[SCHEMA_KEY_MAX];
};

// Kinds of keys in unpublished_index.
enum unpublished_kind {
    UNPUBLISHED_INODE = 1,     // object
    UNPUBLISHED_DIRENT = 2,    // parent, cookie
    UNPUBLISHED_XATTR = 3,     // object, name
    UNPUBLISHED_CHUNK = 4,     // object, index
    UNPUBLISHED_DELTA = 5,     // chunk, generation
    UNPUBLISHED_BLOB = 6,      // hash: it died, or came back to life
    UNPUBLISHED_FORGET = 7,    // hash, checkpoint id, generation: it is no longer kept
    UNPUBLISHED_NAMESPACE = 8, // id
    UNPUBLISHED_DAMAGE = 9,    // object, page
};

// Kinds of entries in snapshot_index.
enum life_item {
    LIFE_GENERATION = 1, // generation -> struct generation_record
    LIFE_DEAD = 2,       // hash, birth -> struct dead_blob
    LIFE_DEATH = 3,      // death, hash, birth -> nothing: the dead in the order of their deaths
    LIFE_TOLD = 4,       // sequence -> number of the dead that this record told, u64
};

enum runtime_item {
    RUNTIME_ROOT = 1,       // (db 0) format version, root id; the one value without a seal, so that
                            // older programs can read the version
    RUNTIME_NEXT_DB = 2,    // (db 0) u64
    RUNTIME_NEXT_JOB = 3,   // u64
    RUNTIME_DATES = 7,      // nothing: deaths of blobs have dates
    RUNTIME_TOTALS = 4,     // struct db_totals
    RUNTIME_CHECKPOINT = 5, // generation u64, its checkpoint id
    RUNTIME_SEALED = 6,     // (db 0) the same as RUNTIME_ROOT, with a seal
    RUNTIME_RETENTION = 8,  // struct retention_policy
    RUNTIME_LOWEST = 10,    // u64: records of the chain below it may be missing
    RUNTIME_FLAGS = 12,     // u64: db flags that differ from DB_FLAGS_DEFAULT
    RUNTIME_SWEPT = 13,     // u64: when the last sweep ended
    RUNTIME_HISTORY = 9,    // nothing: snapshot_index has all that the chain tells
    RUNTIME_LOG_END = 11,   // cut u64, durable end of the log when it was recorded u64
};

void schema_key_db(struct schema_key *k, struct db_id db);
// (db, object), (db, chunk), (db, job): one number below the db.
void schema_key_number(struct schema_key *k, struct db_id db, uint64_t a);
// (db, parent, cookie), (db, object, index), (db, chunk, generation).
void schema_key_pair(struct schema_key *k, struct db_id db, uint64_t a, uint64_t b);
void schema_key_xattr(struct schema_key *k, struct db_id db, struct object_id object,
    const char *name, size_t name_length);
void schema_key_blob(struct schema_key *k, const struct sha256 *hash, struct db_id db);
void schema_key_unpublished_blob(struct schema_key *k, struct db_id db, const struct sha256 *hash);
void schema_key_forgotten(struct schema_key *k, struct db_id db, const struct blob_identity *blob);
// `key` is a key of the kind's own table.
void schema_key_unpublished(
    struct schema_key *k, enum unpublished_kind kind, const struct schema_key *key);
// The kind, and the job's own key.
void schema_key_pending_job(struct schema_key *k, struct db_id db, const struct job_record *job);
void schema_key_sequence(struct schema_key *k, uint64_t sequence);
// Keys of snapshot_index: the beginning of an item's, of LIFE_GENERATION and LIFE_TOLD, of
// LIFE_DEAD, of LIFE_DEATH.
void schema_key_life(struct schema_key *k, struct db_id db, enum life_item item);
void schema_key_life_number(
    struct schema_key *k, struct db_id db, enum life_item item, uint64_t number);
void schema_key_dead(
    struct schema_key *k, struct db_id db, const struct sha256 *hash, struct generation birth);
void schema_key_death(struct schema_key *k, struct db_id db, const struct blob_record *blob);
void schema_key_runtime(struct schema_key *k, enum runtime_item item, struct db_id db);

// Each false when the key has not the right length.
MUST_CHECK bool schema_read_db(const void *p, size_t n, struct db_id *db);
MUST_CHECK bool schema_read_number(const void *p, size_t n, uint64_t *a);
MUST_CHECK bool schema_read_pair(const void *p, size_t n, uint64_t *a, uint64_t *b);
MUST_CHECK bool schema_read_xattr(const void *p, size_t n, struct xattr_record *xattr);
MUST_CHECK bool schema_read_blob(const void *p, size_t n, struct sha256 *hash, struct db_id *db);
MUST_CHECK bool schema_read_unpublished_blob(const void *p, size_t n, struct sha256 *hash);
MUST_CHECK bool schema_read_forgotten(const void *p, size_t n, struct blob_identity *blob);
// Splits the key; `key` becomes the key of the kind's own table.
MUST_CHECK bool schema_read_unpublished(
    const void *p, size_t n, enum unpublished_kind *kind, struct schema_key *key);
MUST_CHECK bool schema_read_life_number(const void *p, size_t n, uint64_t *number);
// Of LIFE_DEATH: death, hash and generation.
MUST_CHECK bool schema_read_death(const void *p, size_t n, struct blob_record *blob);
MUST_CHECK bool schema_read_sequence(const void *p, size_t n, uint64_t *sequence);

// ---- values -------------------------------------------------------------------------------------
//
// Encoders append to `out`. Decoders return false for anything but one whole valid value, and leave
// the fields of the key alone. Pointers in results point into the value.

void schema_encode_db(const struct db_record *v, struct buffer *out);
void schema_encode_wal_state(const struct db_record *v, struct buffer *out);
void schema_encode_watermarks(const struct db_record *v, struct buffer *out);
void schema_encode_inode(const struct inode_record *v, struct buffer *out);
void schema_encode_dirent(const struct dirent_record *v, struct buffer *out);
void schema_encode_xattr(const struct xattr_record *v, struct buffer *out);
void schema_encode_chunk(const struct chunk_entry *v, struct buffer *out);
void schema_encode_object_chunk(struct chunk_id id, uint32_t present_pages, struct buffer *out);
void schema_encode_namespace(const struct namespace_record *v, struct buffer *out);
void schema_encode_damage(const struct chunk_damage *v, struct buffer *out);
void schema_encode_delta(const struct chunk_delta *v, struct buffer *out);
void schema_encode_blob(const struct blob_record *v, struct buffer *out);
void schema_encode_generation(const struct generation_record *v, struct buffer *out);
void schema_encode_dead(const struct dead_blob *v, struct buffer *out);
void schema_encode_retention(const struct retention_policy *v, struct buffer *out);
void schema_encode_u64(uint64_t v, struct buffer *out);
void schema_encode_empty(struct buffer *out);
void schema_encode_root(const struct uuid *root, struct buffer *out);
void schema_encode_log_end(struct lsn cut, struct lsn end, struct buffer *out);
void schema_encode_checkpoint(
    struct generation generation, const struct uuid *id, struct buffer *out);
void schema_encode_totals(const struct db_totals *v, struct buffer *out);
// Subscribers by their names.
void schema_key_cursor(struct schema_key *k, const char *name);
MUST_CHECK bool schema_read_cursor_name(const void *p, size_t n, struct change_cursor *v);
void schema_encode_cursor(const struct change_cursor *v, struct buffer *out);
MUST_CHECK bool schema_decode_cursor(const void *p, size_t n, struct change_cursor *v);
void schema_encode_job(const struct job_record *v, struct buffer *out);
void schema_encode_change_record(const struct manifest_change_record *v, struct buffer *out);

MUST_CHECK bool schema_decode_db(const void *p, size_t n, struct db_record *v);
MUST_CHECK bool schema_decode_wal_state(const void *p, size_t n, struct db_record *v);
MUST_CHECK bool schema_decode_watermarks(const void *p, size_t n, struct db_record *v);
MUST_CHECK bool schema_decode_inode(const void *p, size_t n, struct inode_record *v);
MUST_CHECK bool schema_decode_dirent(const void *p, size_t n, struct dirent_record *v);
MUST_CHECK bool schema_decode_xattr(const void *p, size_t n, struct xattr_record *v);
MUST_CHECK bool schema_decode_chunk(const void *p, size_t n, struct chunk_entry *v);
MUST_CHECK bool schema_decode_object_chunk(
    const void *p, size_t n, struct chunk_id *id, uint32_t *present_pages);
MUST_CHECK bool schema_decode_namespace(const void *p, size_t n, struct namespace_record *v);
MUST_CHECK bool schema_decode_damage(const void *p, size_t n, struct chunk_damage *v);
MUST_CHECK bool schema_decode_delta(const void *p, size_t n, struct chunk_delta *v);
MUST_CHECK bool schema_decode_blob(const void *p, size_t n, struct blob_record *v);
MUST_CHECK bool schema_decode_generation(const void *p, size_t n, struct generation_record *v);
MUST_CHECK bool schema_decode_dead(const void *p, size_t n, struct dead_blob *v);
MUST_CHECK bool schema_decode_retention(const void *p, size_t n, struct retention_policy *v);
MUST_CHECK bool schema_decode_u64(const void *p, size_t n, uint64_t *v);
MUST_CHECK bool schema_decode_root(const void *p, size_t n, uint32_t *format, struct uuid *root);
MUST_CHECK bool schema_decode_log_end(const void *p, size_t n, struct lsn *cut, struct lsn *end);
MUST_CHECK bool schema_decode_checkpoint(
    const void *p, size_t n, struct generation *generation, struct uuid *id);
MUST_CHECK bool schema_decode_totals(const void *p, size_t n, struct db_totals *v);
MUST_CHECK bool schema_decode_job(const void *p, size_t n, struct job_record *v);
// `blobs` points into the value.
MUST_CHECK bool schema_decode_change_record(
    const void *p, size_t n, struct manifest_change_record *v);

#endif
