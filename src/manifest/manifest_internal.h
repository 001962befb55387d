// SPDX-License-Identifier: Apache-2.0
// Shared by the files of this folder.
//
//     manifest.c           opening, closing, dbs
//     manifest_load.c      single entries and walks, in any transaction
//     manifest_read.c      read transactions
//     manifest_export.c    the state, or its unpublished part, as changes
//     manifest_batch.c     making batches
//     manifest_writer.c    the queue, the thread, the group commit
//     manifest_apply.c     one batch inside a write transaction; the operations on the whole db
//     apply_namespace.c    inodes, entries, xattrs
//     apply_blob.c         blobs and their references
//     apply_life.c         kept generations, dead blobs
//     apply_chunk.c        chunks, deltas
//     apply_damage.c       pages whose bytes are lost
//     apply_db.c           making and removing dbs
//     apply_job.c          jobs
//     change_log.c         the feed
#ifndef CKPTFS_MANIFEST_MANIFEST_INTERNAL_H
#define CKPTFS_MANIFEST_MANIFEST_INTERNAL_H

#include "base/list.h"
#include "manifest/lmdb_env.h"
#include "manifest/manifest.h"
#include "manifest/manifest_schema.h"
#include "platform/lock.h"
#include "platform/thread.h"

struct manifest {
    struct lmdb_env *env;
    struct uuid root_id;
    const struct manifest_options *options; // while it is being opened
    struct schema_key root_key;             // of the one entry without a seal
    struct thread writer;
    // In developer builds the writer checks its commits.
    uint64_t unchecked;            // records that it may look at
    struct buffer known_dbs;       // which of them held together before
    bool contradictions_are_meant; // set by tests: no check
    struct flush_pace *pace;

    struct lock lock; // "manifest_queue" protects the following
    struct condition wanted;
    struct list_node queue; // of struct manifest_batch
    bool stopping;
    struct storage_quota *quota; // or NULL
};

// ---- batches ------------------------------------------------------------------------------------

enum batch_kind { BATCH_OPERATIONS, BATCH_CREATE_DB, BATCH_REMOVE_DB };

enum batch_op_kind {
    OP_CHANGE = 1, // followed by an encoded change instead of a struct batch_op
    OP_SOURCE,     // changes that are made while the batch is applied
    OP_NOTE,       // from here on changes are noted in unpublished_index, or not
    OP_LOCAL_GENERATION,
    OP_PUBLISHED,
    OP_BLOB_REMOTE,
    OP_BLOB_UPLOADED,
    OP_REMOTE_POSITION,
    OP_CATALOG,
    OP_NEXT_GENERATION,
    OP_DB_STATE,
    OP_FENCED,
    OP_IDENTITY,
    OP_CHECKPOINT_ID,
    OP_LOG_END,
    OP_DATE_DEATHS,
    OP_LOWEST,
    OP_TOLD,
    OP_ANNOTATE,
    OP_PUT_CURSOR,
    OP_DROP_CURSOR,
    OP_FLAGS,
    OP_SWEPT,
    OP_OLD_DEATH,
    OP_NOTE_GENERATION,
    OP_DEAD_GONE,
    OP_HISTORY_KNOWN,
    OP_PUT_JOB,
    OP_REMOVE_JOB,
};

struct batch_op {
    union {
        struct {
            bool unpublished;
            struct generation generation;
        } note;
        struct {
            struct generation generation;
            struct lsn cut;
            struct db_counters counters;
            uint64_t wall_ms;
        } local;
        struct {
            struct generation generation;
            uint64_t wall_ms;
            uint64_t sequence;
            struct sha256 hash;
            uint64_t record_bytes;
        } published;
        struct sha256 blob;
        struct {
            struct sha256 hash;
            struct generation generation;
        } uploaded;
        struct {
            uint64_t epoch;
            uint64_t sequence;
            struct sha256 hash;
        } position;
        struct {
            uint64_t sequence;
            uint64_t bytes;
        } catalog;
        uint64_t told;
        struct {
            struct blob_record blob;
            uint64_t told;
        } old_death;
        struct generation_record generation;
        struct blob_identity dead;
        struct generation next;
        enum db_state state;
        bool fenced;
        struct {
            struct uuid volume;
            struct uuid name_key;
        } identity;
        struct {
            struct generation local;
            struct uuid id;
        } checkpoint;
        struct {
            struct lsn cut;
            struct lsn end;
        } log;
        struct job_record *job;
        uint64_t job_id;
        struct {
            manifest_source *make;
            void *argument;
        } source;
        struct manifest_note annotation;
        struct change_cursor cursor;
        uint64_t flags_changed;
        uint64_t swept_ms;
    };
};

// How far the removal of a db has come.
struct db_removal {
    unsigned table;         // place in the list of tables
    struct schema_key from; // where to go on in it; length 0: at the db's first entry
    bool finished;
};

struct assigned_job_id {
    struct job_record *job;
    uint64_t id;
};

struct manifest_batch {
    struct list_node node; // in the queue
    enum batch_kind kind;
    struct db_id db;
    struct buffer ops;       // kind (u8) and operation, one after the other
    uint64_t expected_bytes; // of its sources' changes
    uint8_t residency;
    bool unpublished; // as of the last OP_NOTE
    struct generation generation;
    struct apply *applying;           // a source fills it: it is applied piece by piece
    int refused;                      // then: the error of such a piece
    struct db_record *db_record;      // BATCH_CREATE_DB
    const struct db_removal *removal; // BATCH_REMOVE_DB: where to begin

    // Results of the last application.
    int result;
    struct buffer released;    // of struct sha256
    struct buffer assigned;    // of struct assigned_job_id
    struct db_id created;      // BATCH_CREATE_DB
    struct db_removal removed; // BATCH_REMOVE_DB: how far it came

    struct condition finished;
    bool is_finished;
};

// ---- applying -----------------------------------------------------------------------------------

// One batch inside a write transaction.
struct apply {
    struct lmdb_txn *txn;
    struct manifest_batch *batch;
    struct db_record db;
    bool db_changed;
    struct db_totals totals;
    bool totals_changed;
    bool unpublished; // note changed keys under `generation`
    struct generation generation;
    uint64_t told;                     // sequence of the record that the changes come from; 0: none
    struct generation newest;          // noted in this batch; {0}: none
    struct manifest_change_record log; // counts
    bool told_something;               // the batch does more than move cursors
    struct buffer published_blobs;     // hashes for the log
    struct buffer unreferenced;        // hashes whose references reached 0 at some moment
    struct buffer value;               // scratch
    struct buffer extension;           // of the chunk that was loaded last, to be stored again
};

// Applies the changes that a source has put into its batch so far, which is empty then.
void manifest_apply_piece(struct manifest_batch *piece);

// Applies the batch; 0, or an error that means the transaction must be aborted.
MUST_CHECK int manifest_apply(struct lmdb_txn *txn, struct manifest_batch *b);

// Writes a->value under the key.
MUST_CHECK int apply_put(struct apply *a, enum manifest_table table, const struct schema_key *key);
// Notes the changed key, if a->unpublished.
MUST_CHECK int apply_note(
    struct apply *a, enum unpublished_kind kind, const struct schema_key *key);

MUST_CHECK int apply_put_inode(
    struct apply *a, struct object_id object, const struct inode_record *inode);
MUST_CHECK int apply_delete_inode(struct apply *a, struct object_id object);
MUST_CHECK int apply_put_dirent(struct apply *a, const struct dirent_record *dirent);
MUST_CHECK int apply_delete_dirent(struct apply *a, const struct dirent_record *dirent);
MUST_CHECK int apply_put_xattr(struct apply *a, const struct xattr_record *xattr);
MUST_CHECK int apply_delete_xattr(struct apply *a, const struct xattr_record *xattr);

MUST_CHECK int apply_put_chunk(struct apply *a, const struct chunk_entry *chunk);
MUST_CHECK int apply_delete_chunk(
    struct apply *a, struct object_id object, struct chunk_index index);
MUST_CHECK int apply_delete_object_chunks(struct apply *a, struct object_id object);
MUST_CHECK int apply_put_damage(struct apply *a, const struct chunk_damage *damage);
MUST_CHECK int apply_delete_damage(struct apply *a, struct object_id object, struct page_no page);
// All entries that begin in the chunk.
MUST_CHECK int apply_delete_chunk_damage(
    struct apply *a, struct object_id object, struct chunk_index index);
MUST_CHECK int apply_put_delta(struct apply *a, const struct chunk_delta *delta);
MUST_CHECK int apply_delete_delta(
    struct apply *a, struct chunk_id chunk, struct generation generation);
// The blob must be known and long enough, else -EINVAL.
MUST_CHECK int apply_add_reference(struct apply *a, const struct blob_location *where);
MUST_CHECK int apply_remove_reference(struct apply *a, const struct blob_location *where);
MUST_CHECK int apply_put_blob(struct apply *a, const struct blob_record *blob);
MUST_CHECK int apply_blob_uploaded(
    struct apply *a, const struct sha256 *hash, struct generation generation);
MUST_CHECK int apply_blob_remote(struct apply *a, const struct sha256 *hash);
MUST_CHECK int apply_put_namespace(struct apply *a, const struct namespace_record *space);
MUST_CHECK int apply_forget_blob(struct apply *a, const struct blob_identity *blob);
// Removes records of local blobs that ended without references and reports them; dates the death of
// those in the store and notes it.
MUST_CHECK int apply_release_blobs(struct apply *a);
// A publication told the noted death of this blob: drops its record.
MUST_CHECK int apply_forget_told(struct apply *a, const struct schema_key *unpublished_blob);
// Blobs of the db without references and without a date of death, which old programs left, die with
// the local generation. The next record tells so.
MUST_CHECK int apply_date_deaths(struct apply *a);
// Notes that no blob without a date of death is left.
MUST_CHECK int apply_note_dates(struct apply *a);

MUST_CHECK int apply_put_generation(struct apply *a, const struct generation_record *g);
MUST_CHECK int apply_delete_generation(struct apply *a, struct generation generation);
// Puts it unless the table has the generation already.
MUST_CHECK int apply_note_generation(struct apply *a, const struct generation_record *g);
MUST_CHECK int apply_put_retention(struct apply *a, const struct retention_policy *policy);
// The chain told in record a->told that the blob is dead.
MUST_CHECK int apply_tell_death(struct apply *a, const struct blob_record *blob);
// The same from a record before the known history: known facts about the blob stay.
MUST_CHECK int apply_old_death(struct apply *a, const struct blob_record *blob, uint64_t told);
// The chain told that the blob lives: it is none of the dead.
MUST_CHECK int apply_tell_life(struct apply *a, const struct blob_record *blob);
// The object of a dead blob is deleted.
MUST_CHECK int apply_dead_gone(struct apply *a, const struct blob_identity *identity);
MUST_CHECK int apply_history_known(struct apply *a);

MUST_CHECK int apply_put_job(struct apply *a, struct job_record *job);
MUST_CHECK int apply_remove_job(struct apply *a, uint64_t job_id);

MUST_CHECK int apply_create_db(struct apply *a);
MUST_CHECK int apply_remove_db(struct apply *a);
// Writes the db's record to its three tables.
MUST_CHECK int apply_write_db(struct apply *a);

// The number under the runtime item, or `otherwise` when there is none.
MUST_CHECK int apply_runtime_number(
    struct apply *a, enum runtime_item item, struct db_id db, uint64_t otherwise, uint64_t *out);
MUST_CHECK int apply_put_runtime_number(
    struct apply *a, enum runtime_item item, struct db_id db, uint64_t value);

// Appends the batch's ManifestChangeRecord and trims the log.
MUST_CHECK int change_log_append(struct apply *a);
MUST_CHECK int change_log_put_cursor(struct apply *a, const struct change_cursor *cursor);
MUST_CHECK int change_log_drop_cursor(struct apply *a, const char *name);

// ---- reading inside any transaction -------------------------------------------------------------

// -ENOENT, or -EBADMSG, logged, as in manifest.h.
MUST_CHECK int manifest_load_db(struct lmdb_txn *txn, struct db_id db, struct db_record *db_out);
MUST_CHECK int manifest_load_inode(
    struct lmdb_txn *txn, struct db_id db, struct object_id object, struct inode_record *inode_out);
MUST_CHECK int manifest_load_object_chunk(struct lmdb_txn *txn, struct db_id db,
    struct object_id object, struct chunk_index index, struct chunk_id *id_out);
MUST_CHECK int manifest_load_chunk(
    struct lmdb_txn *txn, struct db_id db, struct chunk_id id, struct chunk_entry *chunk_out);
MUST_CHECK int manifest_load_delta(struct lmdb_txn *txn, struct db_id db, struct chunk_id chunk,
    struct generation generation, struct chunk_delta *delta_out);
MUST_CHECK int manifest_load_blob(
    struct lmdb_txn *txn, struct db_id db, const struct sha256 *hash, struct blob_record *blob_out);
MUST_CHECK int manifest_load_totals(
    struct lmdb_txn *txn, struct db_id db, struct db_totals *totals_out);

MUST_CHECK int manifest_load_namespace(
    struct lmdb_txn *txn, struct db_id db, uint32_t id, struct namespace_record *space_out);

MUST_CHECK int manifest_load_generation(struct lmdb_txn *txn, struct db_id db,
    struct generation generation, struct generation_record *generation_out);
MUST_CHECK int manifest_load_dead(struct lmdb_txn *txn, struct db_id db, const struct sha256 *hash,
    struct generation birth, struct dead_blob *dead_out);

// A key or value that does not decode: logs it and returns -EBADMSG.
int manifest_bad_entry(enum manifest_table table);

// Entries of a table whose keys begin with the first `prefix_length` bytes of `from`, from `from`
// on; an empty `from` is the beginning. Both functions return 1 with an entry in w->key and
// w->value, 0 at the end, or -errno. The walk has to be ended in every case.
struct table_walk {
    struct lmdb_cursor *cursor;
    size_t prefix_length;
    uint8_t prefix[SCHEMA_KEY_MAX];
    struct lmdb_value key;
    struct lmdb_value value;
};

MUST_CHECK int table_walk_begin(struct table_walk *w, struct lmdb_txn *txn,
    enum manifest_table table, const struct schema_key *from, size_t prefix_length);
MUST_CHECK int table_walk_next(struct table_walk *w);
void table_walk_end(struct table_walk *w);

static inline struct lmdb_txn *
manifest_reader_txn(struct manifest_reader *r)
{
    return (struct lmdb_txn *)r;
}

#define DB_PREFIX_BYTES     4u  // of a schema_key: the db
#define NUMBER_PREFIX_BYTES 12u // the db and one number

// ---- the writer ---------------------------------------------------------------------------------

MUST_CHECK int manifest_writer_start(struct manifest *m);
void manifest_writer_stop(struct manifest *m);
// manifest_submit without freeing the batch.
MUST_CHECK int manifest_writer_commit(struct manifest *m, struct manifest_batch *b);

#endif
