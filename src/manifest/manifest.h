// SPDX-License-Identifier: Apache-2.0
// The manifest: a storage root's records of its dbs, in LMDB, one environment a root. Readers use
// short read transactions. One thread writes: it takes batches from a queue and commits each as one
// transaction with one ManifestChangeRecord in `change_log`; batches that wait together may share a
// commit. Several processes may have the same root open (for different dbs).
//
// manifest/manifest_schema.h and doc/format.md have the tables, their keys and their values. Only
// the files lmdb_env* include lmdb.h. Functions return 0 or -errno; any thread may call them,
// unless the comment says otherwise.
#ifndef CKPTFS_MANIFEST_MANIFEST_H
#define CKPTFS_MANIFEST_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"
#include "format/change.h"
#include "format/records.h"
#include "manifest/manifest_records.h"
#include "platform/flush_pace.h"
#include "quota/storage_quota.h"

struct manifest;

struct manifest_options {
    uint64_t map_bytes; // initial size of the map; 0: 64 GiB, or less where address space is short.
                        // It is address space only, and grows by itself
    bool no_sync;       // for throwaway environments (of read-only mounts) and tests
    struct flush_pace *pace; // commits of the manifest wait for their turn there; or NULL
    // Asked when the manifest holds no identity of the root yet: the one that the root had before,
    // or zero when it had none, so that a random one is taken. 0, or -errno, and then nothing is
    // made. NULL: there was none.
    int (*find_former_id)(void *argument, struct uuid *id_out);
    void *argument;
};

// Opens or creates the environment in `directory` (made if missing) and starts the writer thread.
// -EBADMSG when it is not an LMDB file or is damaged (manifest/lmdb_file.h lists the damage that it
// finds), -ENOTSUP when the root's format is newer than this program; logs the cause. -ENOSPC,
// -EACCES, ... as they come. The caller must not open the same directory twice in one process (the
// first close would drop LMDB's file locks), nor use the manifest after fork(2).
MUST_CHECK int manifest_open(
    const char *directory, const struct manifest_options *options, struct manifest **manifest_out);
// Commits the queued batches, stops the thread, frees `m`.
void manifest_close(struct manifest *m);
// Tells the account how large the file is, now and after each commit of this process; NULL: no
// longer.
void manifest_set_quota(struct manifest *m, struct storage_quota *quota);
// This root's identity as a writer: made once, random, durable.
struct uuid manifest_root_id(const struct manifest *m);

// Whether a commit failed for good, so that all later ones fail (-EIO): the disk did not recover
// within a second, or it is unknown whether the commit is there.
bool manifest_is_lost(const struct manifest *m);
// How many damaged entries readers have met since the manifest was opened.
uint64_t manifest_damage(const struct manifest *m);

// A look through all entries of all dbs, in steps: each has a short read transaction of its own.
// Begin with zeros and repeat until it is finished. It logs and counts damage, which is no error.
struct manifest_sweep {
    bool finished;
    uint64_t entries;
    uint64_t damaged;
    unsigned table; // where to go on
    size_t key_length;
    uint8_t key[512];
};
MUST_CHECK int manifest_sweep_step(struct manifest *m, struct manifest_sweep *s);

// A look at the pages that hold the entries together, to be made before a sweep, which trusts them.
// One read transaction: pages that commits free meanwhile stay in the file until it ends. Not
// `always`: only in a manifest that was too large to be looked through when it was opened. `go_on`
// (or NULL) is asked each 256 pages; it may pause, or end the look with false: -ECANCELED. -EBADMSG
// when a page is damaged: logged.
typedef bool manifest_go_on(void *argument);
MUST_CHECK int manifest_check_pages(
    struct manifest *m, bool always, manifest_go_on *go_on, void *argument);

// ---- dbs ----------------------------------------------------------------------------------------

// -ENOENT when the root has no such db.
MUST_CHECK int manifest_find_db(struct manifest *m, const char *place, const char *tenant,
    uint32_t volume_number, struct db_record *db_out);
// Writes the db under db->id; when that is 0, gives it a new id and fills that in. -EEXIST when the
// db or the id exists.
MUST_CHECK int manifest_create_db(struct manifest *m, struct db_record *db);
// Removes the db's entries of all tables, in steps of bounded size. The db record goes last.
MUST_CHECK int manifest_remove_db(struct manifest *m, struct db_id db);

// ---- reading ------------------------------------------------------------------------------------

// A read transaction: one thread, short. Pointers in results point into the map and are good until
// manifest_read_end. Beginning one costs no system call. While a thread has one it must not call
// manifest_submit, manifest_create_db or manifest_remove_db: growing the map waits for readers.
struct manifest_reader;

MUST_CHECK int manifest_read_begin(struct manifest *m, struct manifest_reader **reader_out);
void manifest_read_end(struct manifest_reader *r); // NULL is fine

// Each returns 0, -ENOENT, or -EBADMSG (logged) when a value does not decode.
MUST_CHECK int manifest_read_db(
    struct manifest_reader *r, struct db_id db, struct db_record *db_out);
MUST_CHECK int manifest_read_inode(struct manifest_reader *r, struct db_id db,
    struct object_id object, struct inode_record *inode_out);
MUST_CHECK int manifest_read_xattr(struct manifest_reader *r, struct db_id db,
    struct object_id object, const char *name, size_t name_length, struct xattr_record *xattr_out);
MUST_CHECK int manifest_read_chunk(struct manifest_reader *r, struct db_id db,
    struct object_id object, struct chunk_index index, struct chunk_entry *chunk_out);
MUST_CHECK int manifest_read_blob(struct manifest_reader *r, struct db_id db,
    const struct sha256 *hash, struct blob_record *blob_out);

// The place of blobs with this `where` (from BLOB_WHERE_NAMED on).
MUST_CHECK int manifest_read_namespace(
    struct manifest_reader *r, struct db_id db, uint32_t id, struct namespace_record *space_out);

// Visitors return 0 to go on; anything else ends the walk, which returns it.
typedef int manifest_visit_db(void *argument, const struct db_record *db);
typedef int manifest_visit_object(
    void *argument, struct object_id object, const struct inode_record *inode);
typedef int manifest_visit_dirent(void *argument, const struct dirent_record *dirent);
typedef int manifest_visit_xattr(void *argument, const struct xattr_record *xattr);
typedef int manifest_visit_delta(void *argument, const struct chunk_delta *delta);
typedef int manifest_visit_blob(void *argument, const struct blob_record *blob);
typedef int manifest_visit_change(void *argument, const struct change *change);

// Every db of the root, in the order of their numbers.
MUST_CHECK int manifest_read_dbs(
    struct manifest_reader *r, manifest_visit_db *visit, void *argument);
// Entries of a directory with cookie >= `from` and <= `to`, in order.
MUST_CHECK int manifest_read_dirents(struct manifest_reader *r, struct db_id db,
    struct object_id parent, uint64_t from, uint64_t to, manifest_visit_dirent *visit,
    void *argument);
MUST_CHECK int manifest_read_xattrs(struct manifest_reader *r, struct db_id db,
    struct object_id object, manifest_visit_xattr *visit, void *argument);
// All chunks whose id is `from` or a higher one, in the order of the ids.
typedef int manifest_visit_chunk(void *argument, const struct chunk_entry *chunk);
MUST_CHECK int manifest_read_chunks(struct manifest_reader *r, struct db_id db,
    struct chunk_id from, manifest_visit_chunk *visit, void *argument);
// Deltas of a chunk, newest generation first.
MUST_CHECK int manifest_read_deltas(struct manifest_reader *r, struct db_id db,
    struct chunk_id chunk, manifest_visit_delta *visit, void *argument);
// The chunks of an object, from `from` on, in order (`object_chunks`). present_pages as in
// chunk_entry.
typedef int manifest_visit_object_chunk(
    void *argument, struct chunk_index index, struct chunk_id id, uint32_t present_pages);
MUST_CHECK int manifest_read_object_chunks(struct manifest_reader *r, struct db_id db,
    struct object_id object, struct chunk_index from, manifest_visit_object_chunk *visit,
    void *argument);
// Lost pages that begin in the pages [first, end) of an object, in order; those of all objects.
typedef int manifest_visit_damage(void *argument, const struct chunk_damage *damage);
MUST_CHECK int manifest_read_damage(struct manifest_reader *r, struct db_id db,
    struct object_id object, uint64_t first, uint64_t end, manifest_visit_damage *visit,
    void *argument);
MUST_CHECK int manifest_read_all_damage(
    struct manifest_reader *r, struct db_id db, manifest_visit_damage *visit, void *argument);
// Inodes with nlink 0 (a table of its own keeps them findable without a scan).
MUST_CHECK int manifest_read_orphans(
    struct manifest_reader *r, struct db_id db, manifest_visit_object *visit, void *argument);
// Blobs that have references but are not in the store.
MUST_CHECK int manifest_read_unpublished_blobs(
    struct manifest_reader *r, struct db_id db, manifest_visit_blob *visit, void *argument);

// Blobs with this hash or a higher one that are in the store and have references, in order of their
// hashes.
MUST_CHECK int manifest_read_remote_blobs(struct manifest_reader *r, struct db_id db,
    const struct sha256 *from, manifest_visit_blob *visit, void *argument);

// ---- the life of data ---------------------------------------------------------------------------

typedef int manifest_visit_generation(void *argument, const struct generation_record *g);
typedef int manifest_visit_dead(void *argument, const struct dead_blob *dead);
typedef int manifest_visit_told(void *argument, uint64_t sequence, uint64_t deaths);

// The known published generations, from `from` on, in order.
MUST_CHECK int manifest_read_generations(struct manifest_reader *r, struct db_id db,
    struct generation from, manifest_visit_generation *visit, void *argument);
// Dead blobs with after < death <= to, in the order of their deaths.
MUST_CHECK int manifest_read_dead_blobs(struct manifest_reader *r, struct db_id db,
    struct generation after, struct generation to, manifest_visit_dead *visit, void *argument);
// Whether exactly this object is one of the dead: 1 or 0.
MUST_CHECK int manifest_is_dead(
    struct manifest_reader *r, struct db_id db, const struct blob_identity *blob);
// Records of the chain that told deaths of the blobs that are still dead, in order of their
// sequences.
MUST_CHECK int manifest_read_told(
    struct manifest_reader *r, struct db_id db, manifest_visit_told *visit, void *argument);
// -ENOENT: the owner has set no policy.
MUST_CHECK int manifest_read_retention(
    struct manifest_reader *r, struct db_id db, struct retention_policy *policy_out);
// Whether the manifest knows generations and dead blobs as far back as the chain goes: 1 or 0.
MUST_CHECK int manifest_knows_history(struct manifest_reader *r, struct db_id db);

// The totals, which every batch keeps up to date.
MUST_CHECK int manifest_read_totals(
    struct manifest_reader *r, struct db_id db, struct db_totals *totals_out);

// The whole state of a db as changes from which an empty db can be filled, in key order: counters,
// inodes, dirents, xattrs, places of blobs, blobs that something refers to, chunks by object and
// index, deltas, lost pages, generations, the retention policy. Each kind stands in the order of
// change_key().
MUST_CHECK int manifest_export(
    struct manifest_reader *r, struct db_id db, manifest_visit_change *visit, void *argument);
// The changes between the published and the local generation, made from `unpublished_index` and the
// present state: for every key touched since, its put or its delete, deletes of chunks and inodes
// before puts; every blob with references that is not in the store, or that was dead and came back,
// as CHANGE_PUT_BLOB, before the chunks that name it; the counters; at the end each blob in the
// store that died, as CHANGE_PUT_BLOB with its death, and a CHANGE_FORGET_BLOB for each that is no
// longer kept.
MUST_CHECK int manifest_export_unpublished(
    struct manifest_reader *r, struct db_id db, manifest_visit_change *visit, void *argument);

// ---- writing ------------------------------------------------------------------------------------

struct manifest_batch; // a list of ManifestOps for one db

struct manifest_batch *manifest_batch_new(struct db_id db);
void manifest_batch_free(struct manifest_batch *b); // NULL is fine; submitting also frees

// Adds one change (all kinds but WRITE and DISCARD) with copies of its texts and bytes.
// - PUT_CHUNK (UpsertChunk) and PUT_DELTA (UpsertChunkDelta) move the references of blobs: the new
//   location's blob gains one, the replaced one's loses one. The blob must exist in the table or
//   come earlier in the batch (CHANGE_PUT_BLOB), else the batch fails with -EINVAL and does
//   nothing.
// - PUT_CHUNK with a base_generation above the present one's removes deltas with generation <= it.
//   The writer computes delta_count and delta_bytes of the stored entry from the delta operations
//   and ignores those of the change. A chunk that had another id at this place of the object is
//   removed. PUT_DELTA raises the entry's generation, if it is the newest; one that is not above
//   the base's generation is refused (-EINVAL).
// - DELETE_CHUNK also removes the chunk's deltas and entries of lost pages; DELETE_INODE also
//   removes xattrs and chunks.
// - PUT_BLOB leaves an existing blob's references alone; one that is only remote becomes local too
//   (not in imports). The parts of its key change only when the batch's residency has REMOTE
//   (imports), because an uploader takes the key from the record. A place that it names must be
//   known or come earlier in the batch (PUT_NAMESPACE), else -EINVAL.
// - This host does not need a blob whose references reach 0: manifest_submit reports its hash, so
//   that the caller can unlink the db's copies. The record of a blob that is only local goes. The
//   record of one in the store stays, only remote, with its death, until a publication tells the
//   death: from then on GC finds it by the chain. A reference before that brings it back to life,
//   and the next publication tells that, too.
// - PUT_BLOB with a death comes from the chain: the record of a blob without references goes.
//   FORGET_BLOB removes the record of this very object, if nothing refers to it; with `unpublished`
//   the batch fails (-EINVAL) while something does, and the next publication tells it.
// `unpublished`: notes the keys in `unpublished_index` under `generation`.
void manifest_batch_change(struct manifest_batch *b, const struct change *change, bool unpublished,
    struct generation generation);
// Changes that are too many to be in memory at once: `source` makes them with manifest_batch_change
// on the batch that it gets, which holds 64 KiB of them at most. The writer's thread calls it while
// it applies `b`, at this place among the operations, and again when it repeats the transaction:
// each time it must make the same changes, with no other operations. The caller that waits in
// manifest_submit keeps `argument` alive. The source may read the manifest, as it was before the
// transaction. A negative result fails the batch.
typedef int manifest_source(void *argument, struct manifest_batch *changes);
void manifest_batch_source(struct manifest_batch *b, manifest_source *source, void *argument);
// So many bytes of changes the sources of the batch will make, by an estimate.
void manifest_batch_expect(struct manifest_batch *b, uint64_t bytes);
// The residency of blobs in later PUT_BLOB changes of this batch; RESIDENCY_LOCAL by default. A
// source may set it once, before its first change, for its own changes.
void manifest_batch_set_residency(struct manifest_batch *b, uint8_t residency);
// BumpGeneration (local): the state of the tables is now generation `local`, cut at `cut`.
void manifest_batch_local_generation(struct manifest_batch *b, struct generation local,
    struct lsn cut, struct db_counters counters, uint64_t wall_ms);
// The id of the checkpoint that made the generation, which becomes the local one in this batch. The
// manifest keeps it, so that each publication of the generation, by any process, writes the same
// bytes.
void manifest_batch_checkpoint_id(
    struct manifest_batch *b, struct generation local, const struct uuid *id);
// How far the log was durable when `cut`, which becomes the db's in this batch, was recorded
// (wal_reach).
void manifest_batch_log_end(struct manifest_batch *b, struct lsn cut, struct lsn end);
// BumpGeneration (published): record `sequence` with `hash` is in the store and publishes
// `published`. Keys of unpublished_index with generation <= published go. The named blobs become
// RESIDENCY_REMOTE too; names without a record are ignored. The ManifestChangeRecord of this batch
// names these blobs.
void manifest_batch_published(struct manifest_batch *b, struct generation published,
    uint64_t wall_ms, uint64_t sequence, const struct sha256 *hash, uint64_t record_bytes);
void manifest_batch_blob_remote(struct manifest_batch *b, const struct sha256 *hash);
// A blob of the local generation `generation` was uploaded before that is published, and has no
// local copy: the generation's record tells its birth. After the changes that refer to the blob. A
// blob that is in the store already, or that nothing refers to, stays as it is.
void manifest_batch_blob_uploaded(
    struct manifest_batch *b, const struct sha256 *hash, struct generation generation);
// Another record of the chain was written or seen (OPEN): epoch and position, nothing else.
void manifest_batch_remote_position(
    struct manifest_batch *b, uint64_t epoch, uint64_t sequence, const struct sha256 *hash);
void manifest_batch_catalog(struct manifest_batch *b, uint64_t sequence, uint64_t bytes);
// Gives a date to deaths that have none, which old programs wrote (imports).
void manifest_batch_date_deaths(struct manifest_batch *b);
// Records below this sequence may be missing from now on.
void manifest_batch_lowest(struct manifest_batch *b, uint64_t lowest);
// Later changes come from record `sequence` of the chain: deaths get this number.
void manifest_batch_told(struct manifest_batch *b, uint64_t sequence);
// Facts from a record before the known history: the batch ignores those that newer facts
// contradict.
void manifest_batch_old_death(
    struct manifest_batch *b, const struct blob_record *blob, uint64_t sequence);
void manifest_batch_note_generation(struct manifest_batch *b, const struct generation_record *g);
// The manifest now knows the whole history (manifest_knows_history).
void manifest_batch_history_known(struct manifest_batch *b);
// The store does not have the object of a dead blob any more.
void manifest_batch_dead_gone(struct manifest_batch *b, const struct blob_identity *blob);
void manifest_batch_next_generation(struct manifest_batch *b, struct generation next);
void manifest_batch_db_state(struct manifest_batch *b, enum db_state state);
void manifest_batch_fenced(struct manifest_batch *b, bool fenced);
// Volume identity and counters learned at import.
void manifest_batch_identity(
    struct manifest_batch *b, const struct uuid *volume, const struct uuid *name_key);
// Adds a note on the batch for the readers of the change log; the last one counts.
void manifest_batch_annotate(struct manifest_batch *b, const struct manifest_note *note);
// Subscribers of the change log: notes the record that one has acknowledged (`updated_ms` becomes
// now), or removes it. A batch with nothing else gets no record in the log. -EINVAL: the name is
// empty, or the sequence is not in the log yet.
void manifest_batch_put_cursor(struct manifest_batch *b, const struct change_cursor *cursor);
void manifest_batch_drop_cursor(struct manifest_batch *b, const char *name);
// Which flags of the db are on (DB_FLAG_*).
void manifest_batch_flags(struct manifest_batch *b, unsigned flags);
// When the last sweep for orphans ended, by the wall clock.
void manifest_batch_swept(struct manifest_batch *b, uint64_t wall_ms);
// PutJob and UpdateJobState: inserts or replaces. With id 0 manifest_submit gives a new id and
// writes it back; at most one unfinished job per kind and key (`job_pending_index`): a second one
// fails the batch with -EEXIST. `job` must stay valid until manifest_submit returns.
void manifest_batch_put_job(struct manifest_batch *b, struct job_record *job);
void manifest_batch_remove_job(struct manifest_batch *b, uint64_t job_id);

// The blobs that a commit released: nothing of the db refers to them.
struct manifest_released {
    struct sha256 *blobs;
    size_t count;
};
void manifest_released_free(struct manifest_released *released);

// Queues the batch and waits until it is committed and durable, or has failed as a whole. Frees the
// batch in every case. `released_out` may be NULL. Any thread. -ENOENT: no such db.
// -EINVAL, -EEXIST: refused, see above. -ENOSPC, -EDQUOT, -EFBIG: no room; later batches may
// succeed. -EIO: the disk failed several times within a second; the batch may be there after the
// next mount, and all later batches fail likewise (manifest_is_lost). The writer hides a failure
// that passes: it takes the commit back and does it again. An error fails only this batch, not
// others that wait with it, unless it is the disk's.
MUST_CHECK int manifest_submit(
    struct manifest *m, struct manifest_batch *b, struct manifest_released *released_out);

// The flags of the db that are on; all of them in a new one.
MUST_CHECK int manifest_read_flags(struct manifest_reader *r, struct db_id db, unsigned *flags_out);
// When the last sweep of this root ended; 0: none did.
MUST_CHECK int manifest_read_swept(
    struct manifest_reader *r, struct db_id db, uint64_t *wall_ms_out);

// ---- jobs and the change log --------------------------------------------------------------------

typedef int manifest_visit_job(void *argument, const struct job_record *job);
MUST_CHECK int manifest_read_jobs(
    struct manifest_reader *r, struct db_id db, manifest_visit_job *visit, void *argument);

typedef int manifest_visit_change_record(
    void *argument, const struct manifest_change_record *record);
// Records with sequence > `after`, in order. The newest 1,024 stay, and more while subscribers have
// not seen them: up to 65,536. A subscriber that has acknowledged nothing for 7 days, or would need
// older ones, is dropped.
MUST_CHECK int manifest_read_change_log(
    struct manifest_reader *r, uint64_t after, manifest_visit_change_record *visit, void *argument);
// 0 or -ENOENT: there is no subscriber of that name (any more).
MUST_CHECK int manifest_read_cursor(
    struct manifest_reader *r, const char *name, struct change_cursor *cursor_out);

// ---- checking -----------------------------------------------------------------------------------

// Walks every table of a db and checks its invariants: references and live bytes of blobs match the
// chunks and deltas, delta counts, object_chunks against chunk_catalog, dirents point to inodes,
// link and entry counts, totals. Logs each violation; returns their number, or -errno.
MUST_CHECK int manifest_check(struct manifest *m, struct db_id db);
// The same of inodes, names, attributes, chunks and totals, in one pass without memory for each of
// them: 0, -EBADMSG with the first contradiction in `problem` when it is one, or -errno.
MUST_CHECK int manifest_count(struct manifest_reader *r, struct db_id db, struct buffer *problem);
// The sum, over all chunks, of the numbers that a chunk has of its deltas.
MUST_CHECK int manifest_sum_chunks(struct manifest_reader *r, struct db_id db, uint64_t *sum_out);
uint64_t manifest_chunk_sum(const struct chunk_entry *chunk);

#endif
