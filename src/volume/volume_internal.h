// SPDX-License-Identifier: Apache-2.0
#ifndef CKPTFS_VOLUME_VOLUME_INTERNAL_H
#define CKPTFS_VOLUME_VOLUME_INTERNAL_H

#include <stdatomic.h>

#include "base/hash_table.h"
#include "cache/namespace_set.h"
#include "checkpoint/checkpoint.h"
#include "chunk/chunk_reader.h"
#include "jobs/job_queue.h"
#include "manifest/manifest.h"
#include "page/page_store.h"
#include "platform/flush_pace.h"
#include "platform/lock.h"
#include "platform/thread.h"
#include "remote/remote_manifest.h"
#include "store/limited_store.h"
#include "store/local_store.h"
#include "store/remote_store.h"
#include "volume/volume.h"
#include "volume/volume_lease.h"
#include "wal/wal.h"

// An object that is open or has lost its last name.
struct live_object {
    struct hash_node node;
    struct object_id object;
    unsigned opens;
    bool orphan;
    bool nameless;  // was made without a name, and so may get its first one
    bool forgotten; // the kernel forgot it before its last close arrived
    bool accessed;  // `atime` is newer than the inode's
    struct timestamp atime;
};

// The result of a look through the manifest.
struct manifest_check_result {
    uint64_t entries;    // that were compared with their checksums
    uint64_t damaged;    // of them
    uint64_t violations; // counts and references that do not agree
    int error;           // when it could not be done
};

struct volume_collect;    // volume_collect.c
struct volume_hot;        // volume_hot.c
struct volume_operations; // volume_operation.c
struct volume_reader;     // volume_reader.c

// Whether this process may change the volume, and why not. volume_lock.c and volume_claim.c set it
// at the mount, volume_checkpoint.c and volume_watch.c change it later.
struct volume_ownership {
    int lock_fd;    // of the lock file; -1: none
    bool claimed;   // in the bucket, when it was mounted
    bool fenced;    // another writer took the volume. Under the lock of the volume
    bool read_only; // likewise
    char read_only_reason[160];
    atomic_bool root_lost; // the files of this mount have no names any more
};

// Two threads of a volume: the housekeeping thread renews the lease and watches log and root, the
// check thread looks through the manifest on request.
struct volume_housekeeping {
    struct lock lock; // "housekeeping": protects all below, down to `checked`
    struct condition work;
    struct condition check_work;
    bool stopping;
    uint64_t checks_wanted; // of the manifest: the ticket of the newest
    uint64_t checks_done;
    struct manifest_check_result checked; // by the last one
    struct thread thread;
    struct thread checker;
    bool started;
    bool checker_started;
    atomic_bool canceled;      // calls of `thread` to the store are to be given up
    struct volume_lease lease; // of `thread`
    uint64_t next_janitor_ms;  // likewise
};

#define VOLUME_KEPT_MAX 256u

struct volume {
    // ---- wiring: set while the volume is opened, and constant until it is closed
    struct volume_config config; // owned copies
    struct volume_host host;
    struct store_url url;
    char *place_name;
    char *root; // config.root; a throwaway one below it when mounted from the bucket alone
    struct path_hold *root_hold; // of config.root; the housekeeping thread may replace it
    bool restored;               // this mount has taken the volume's state from the bucket
    bool from_bucket;            // mounted read-only, from a generation in the bucket alone
    struct manifest *manifest;
    struct db_id db;
    struct uuid name_key;
    struct remote_store *remote;
    struct remote_store *hedged;     // inside it
    struct tenant_rate *tenant_rate; // or NULL; as long as there is a quota
    struct remote_place place;
    struct local_store *local;
    struct storage_quota *quota;
    struct chunk_map *map;
    struct chunk_reader *reader;
    struct wal *wal;
    struct page_store *pages;
    // Its own threads may ask for room before it has been started: they find it by
    // volume_started_checkpoint.
    struct checkpoint *checkpoint;
    struct flush_pace pace; // commits before checkpoints
    struct uuid session;    // of this process
    uint64_t
        lease_wait_ms; // so long a truncation waits for checkpoints in flight, before and after
                       // it cancels them
    uint64_t collect_pause_ms;            // the least time between two runs of PruneCheckpoint
    struct job_queue *jobs;               // NULL when mounted from the bucket alone
    struct volume_merge *merge;           // likewise
    struct volume_collect *collect;       // likewise
    struct volume_hot *hot;               // likewise, and with no_hot_set
    struct volume_operations *operations; // NULL when mounted from the bucket alone
    struct volume_reader *bucket_reader;  // else NULL
    char *waiver; // file that waived the changes that the replay skipped; NULL: it skipped none
    uint64_t lost_changes; // skipped by the replay

    // ---- the namespace: layers above the tables of the manifest
    struct lock lock;                   // "volume": protects all below, and the layers of `pages`
    struct condition folded;            // a cut has been folded: there may be room
    struct namespace_set *names;        // active
    struct namespace_set *frozen_names; // NULL between checkpoints
    struct checkpoint_cut cut;          // while frozen
    bool fold_failed;                   // the frozen layer has taken in one whose fold failed
    uint64_t version;                   // of the tables that lie below the layers
    _Atomic uint64_t refused_ms;        // when a writer was last refused for want of room
    struct db_counters counters;
    struct hash_table live_objects;
    struct object_id *undeleted; // have lost their last name and user; the log had no room
    size_t undeleted_count;
    uint64_t oldest_change_ms; // monotonic; 0: nothing since the last cut
    uint64_t frozen_change_ms;
    uint64_t local_change_ms; // oldest change that is folded but not published; 0: none

    struct lock evicting;        // "evicting": one thread at a time looks for copies that can go
    uint64_t evict_again_ms;     // not before: nothing was found. Under `evicting`
    uint64_t evict_publications; // by then. Another one ends the pause. Under `evicting`
    // Files that a user wants to stay in hot_cache, and their blobs as of a local generation. Under
    // `evicting`.
    struct volume_kept {
        bool all;
        uint64_t all_job;
        uint64_t inodes[VOLUME_KEPT_MAX];
        uint64_t jobs[VOLUME_KEPT_MAX]; // for which each is kept; 0: for none, and for good
        size_t inode_count;
        bool unknown; // the blobs could not be read
        struct generation generation;
        struct sha256 *blobs; // in order
        size_t blob_count, blob_capacity;
    } kept;
    atomic_bool relieving; // a checkpoint was asked for to make room

    _Atomic unsigned flags;      // DB_FLAG_*, as the manifest has them
    _Atomic uint64_t scans;      // cold scans that have begun and not ended
    _Atomic uint64_t scan_bytes; // that programs got from them
    _Atomic uint64_t cold_reads;
    _Atomic uint64_t scan_held_ms; // since when scans hold up CheckpointGC; 0: they do not
    _Atomic uint64_t scan_ms;      // when one last gave some; 0: never

    struct volume_ownership own;
    struct volume_housekeeping housekeeping;
};

// NULL until it has been started, and once it has stopped.
static inline struct checkpoint *
volume_started_checkpoint(const struct volume *v)
{
    return __atomic_load_n(&v->checkpoint, __ATOMIC_ACQUIRE);
}

// Opens the store of config->source; both results are to be freed, also after an error.
MUST_CHECK int volume_open_store(const struct volume_config *config, struct store_url *url_out,
    struct remote_store **store_out, struct buffer *error);

// ---- volume_limits.c: the limits of the store ---------------------------------------------------

// Wraps the open store, and sets the limits of the config.
void volume_open_limits(struct volume *v);
void volume_limits_metrics(struct volume *v, struct metrics *m);

// ---- volume_scan.c: cold scans ------------------------------------------------------------------

// Reads the flags of the volume from the manifest.
void volume_load_flags(struct volume *v);
MUST_CHECK int volume_read_scanned(struct volume_scan *scan, struct object_id object,
    uint64_t offset, size_t length, uint8_t *out, const struct remote_call *call);
void volume_scan_metrics(struct volume *v, struct metrics *m);
// Whether CheckpointGC is to wait: a cold scan is open and has read in the last minute, and has not
// held it up for an hour yet.
bool volume_scans_hold_collection(struct volume *v, uint64_t now_ms);

// ---- volume_jobs.c: the queue of jobs -----------------------------------------------------------

// Once everything else of the volume runs. Read-only mounts have no jobs.
MUST_CHECK int volume_start_jobs(struct volume *v);
// Once no other thread submits jobs. The job that runs stays for the next mount.
void volume_stop_jobs(struct volume *v);
// Asks for a checkpoint (CHECKPOINT_REQUEST_*) and waits for it: 0, its error, or -ECANCELED by
// `is_canceled`, which this thread polls.
MUST_CHECK int volume_await_checkpoint(
    struct volume *v, unsigned flags, bool (*is_canceled)(void *argument), void *argument);
// volume_truncate.c: the handler of JOB_TRUNCATE_APPEND_ONLY; the argument is the volume.
int volume_truncate_run(void *argument, struct job_run *run);

// ---- volume_merge.c: upkeep of what is published ------------------------------------------------

// Before and after all threads of the volume.
void volume_open_merge(struct volume *v);
void volume_close_merge(struct volume *v);
// The queue of jobs is there from now on, or is to be closed.
void volume_merge_has_queue(struct volume *v, bool has_queue);
// Each second, by the housekeeping thread.
void volume_watch_merge(struct volume *v);
int volume_merge_run(void *argument, struct job_run *run); // the handler of JOB_MERGE_CHUNKS

// ---- volume_collect.c: CheckpointGC -------------------------------------------------------------

// With the queue of jobs.
void volume_open_collect(struct volume *v);
void volume_close_collect(struct volume *v);
// The handlers of JOB_PRUNE_CHECKPOINT and JOB_SWEEP_ORPHANS.
int volume_prune_run(void *argument, struct job_run *run);
int volume_sweep_run(void *argument, struct job_run *run);
// Submits these jobs when they may have something to do. For the retention thread.
void volume_collect_if_due(struct volume *v);
// The retention policy has changed: an unfinished PruneCheckpoint looks at it.
void volume_collect_hear_policy(struct volume *v);
// VOLUME_OPERATION_GC: one run, by the job PruneCheckpoint; a dry run in this thread.
MUST_CHECK int volume_collect_now(struct volume *v, unsigned flags,
    bool (*is_canceled)(void *argument), void *argument, struct buffer *out);

// ---- volume_background.c ------------------------------------------------------------------------

// The handlers of JOB_VERIFY_MANIFEST and JOB_DOWNLOAD_CHECKPOINT.
int volume_verify_run(void *argument, struct job_run *run);
int volume_download_run(void *argument, struct job_run *run);

// ---- volume_detach.c ----------------------------------------------------------------------------

// The handler of JOB_DETACH_FORK.
int volume_detach_run(void *argument, struct job_run *run);
// An empty manifest beside the scratch directory, for one job, which pays for it; to be closed also
// after an error. The quota has to have room for as much as the root's manifest has: -EDQUOT.
struct volume_scratch {
    struct volume *v;
    struct manifest *manifest;
    char *path;
    struct quota_job *budget;
    uint64_t reserved;
};
MUST_CHECK int volume_open_scratch(
    struct volume *v, const char *name, struct quota_job *budget, struct volume_scratch *out);
// Counts what it has become. Now and then.
void volume_count_scratch(struct volume_scratch *s);
void volume_close_scratch(struct volume_scratch *s);
// Removes what jobs of a process have left that is dead.
void volume_sweep_scratch(struct volume *v);

// ---- volume_hot.c: the hot parts (volume_hot.h) -------------------------------------------------

// With the volume; before and after all its threads.
void volume_open_hot(struct volume *v);
void volume_close_hot(struct volume *v);
// Publishes the set, if something was read or written since the last time, this host owns the
// volume and the set has VOLUME_HOT_PARTS_MIN parts. 1 GET; then, unless the set is the one that is
// there, 1 PUT and 2 GET. Logs failures. For the retention thread, and once that has ended the one
// that closes the volume.
void volume_hot_publish(struct volume *v, bool (*is_canceled)(void *argument), void *argument);

// ---- volume_operation.c: the life of data -------------------------------------------------------

MUST_CHECK int volume_start_operations(struct volume *v);
// Before the jobs and the checkpoint are stopped.
void volume_stop_operations(struct volume *v);
// The volume was restored, and there is a queue of jobs: the thread calls volume_hot_restore.
void volume_operations_restored(struct volume *v);
// The volume's part of the bucket, for work in the background; and telling changes to the chain,
// while other threads may publish (for struct volume_operator; the argument is the bucket).
struct volume_bucket {
    struct volume *v;
    struct remote_place place;
};
void volume_bucket_init(
    struct volume_bucket *b, struct volume *v, bool (*is_canceled)(void *argument), void *argument);
MUST_CHECK int volume_bucket_tell(
    void *argument, const struct change *changes, size_t count, uint64_t lowest);

// ---- volume_checkpoint.c: numbers ---------------------------------------------------------------

// How many inodes the volume has: `local` in the local generation, whose counters end before object
// `next`, and the changes since. Takes the volume's lock.
uint64_t volume_count_inodes(struct volume *v, uint64_t local, struct object_id next);

// ---- volume_quota.c: disk space -----------------------------------------------------------------

// Below this the log is not cut, with any quota.
#define VOLUME_LOG_LIMIT_MIN (UINT64_C(16) << 20)
// Takes the volume's place in the root's account; needs local and manifest.
// Of the quota's tenant; after the quota was opened, and before it is closed.
void volume_open_tenant_limits(struct volume *v);
void volume_close_tenant_limits(struct volume *v);
void volume_open_quota(struct volume *v);
void volume_close_quota(struct volume *v);
// The smaller one of the limits that there are; 0: none.
uint64_t volume_quota_limit(const struct storage_quota_numbers *n);
// How large the log may be.
uint64_t volume_log_limit(const struct volume *v);
// When there is little room: makes some, or else asks for a checkpoint. Hold no locks.
void volume_relieve(struct volume *v);
// Each second: the same, and the log follows the quota.
void volume_watch_quota(struct volume *v);
void volume_quota_metrics(struct volume *v, struct metrics *m);
// The bytes that data may still take, with those that can be evicted; UINT64_MAX: there is no
// quota.
uint64_t volume_quota_room(struct volume *v, uint64_t unpublished_bytes);
// There may be room for a fold that had none.
void volume_hear_room(struct volume *v);
// Whether the store has the blob for certain.
bool volume_is_in_store(struct volume *v, const struct sha256 *hash);
void volume_log_evicted(int64_t freed); // or -errno
// How an operator's command is stopped, and how it tells its progress. Each may be NULL.
struct volume_command {
    bool (*is_canceled)(void *argument);
    void (*progress)(void *argument, uint64_t done_bytes, uint64_t total_bytes);
    void *argument;
};
// VOLUME_OPERATION_EVICT (volume_evict.c). -ECANCELED: it was stopped; the text tells what went
// until then.
MUST_CHECK int volume_evict_operation(struct volume *v, const char *argument, bool json,
    const struct volume_command *by, struct buffer *out);
// VOLUME_OPERATION_QUOTA.
MUST_CHECK int volume_quota_operation(
    struct volume *v, const char *argument, bool json, struct buffer *out);

// ---- volume_reader.c: the pin of a mount from the bucket alone ----------------------------------

// Pins the generation that the mount shows; a thread renews the pin until volume_stop_reader. Tells
// the host of failures (volume_say).
void volume_start_reader(struct volume *v, struct generation generation);
void volume_stop_reader(struct volume *v);

// ---- volume_throwaway.c: roots of volumes from the bucket alone ---------------------------------

// Makes one and locks it; the end of the volume removes it.
MUST_CHECK int volume_make_throwaway_root(struct volume *v, struct buffer *error);
// Removes those whose process is gone.
void volume_sweep_throwaway_roots(const struct volume *v);

// ---- volume_check.c: looking through the manifest ----------------------------------------------

MUST_CHECK int volume_start_checker(struct volume *v);
// Before the manifest is closed.
void volume_stop_checker(struct volume *v);
void volume_check_numbers(struct volume *v, struct metrics *m);

// ---- volume_view.c: the namespace, merged ------------------------------------------------------

// One look at the namespace by one operation. The view keeps records that view_load read from LMDB
// without the lock. When an operation needs a record that is not here, it notes its key, and
// volume_operate or volume_look runs it again. When the tables below the layers have changed
// meanwhile, the view reads everything again.
#define VIEW_INODES 8u
#define VIEW_NAMES  4u

struct view_inode {
    struct object_id object;
    bool exists;
    struct inode_record inode; // owns link_target and extension
};

struct view_name {
    struct object_id parent;
    uint64_t hash; // the first cookie of names with this hash
    unsigned count;
    struct dirent_record entries[16]; // own their names
};

struct view_xattr {
    bool loaded;
    bool exists;
    struct object_id object;
    char *name;
    void *value;
    uint32_t value_length;
};

struct view {
    const struct volume *volume; // looking changes nothing
    uint64_t version;
    struct view_inode inodes[VIEW_INODES];
    unsigned inode_count;
    struct view_name names[VIEW_NAMES];
    unsigned name_count;
    struct view_xattr xattr;
    // The record that the last run lacked.
    enum { NEED_NOTHING, NEED_INODE, NEED_NAME, NEED_XATTR } need;
    struct object_id need_object;
    uint64_t need_hash;
    const char *need_name;
    // Why the last run failed with EIO, NULL: for no reason of the namespace's own.
    const char *contradiction;
    struct object_id contradictory;
};

void view_init(struct view *view, const struct volume *v);
void view_free(struct view *view);
// Reads the missing record from LMDB. 0 or -errno. Hold no locks.
MUST_CHECK int view_load(struct view *view);
// Whether the loaded records still fit the layers; forgets them if not.
bool view_check_locked(struct view *view);

// Each returns 0, -ENOENT, or -EAGAIN after noting the missing record. Pointers in results are good
// while the caller holds the lock.
MUST_CHECK int view_inode(
    struct view *view, struct object_id object, struct inode_record *inode_out);
// As the layers and the tables have it, without the time of access that an open object keeps.
MUST_CHECK int view_recorded_inode(
    struct view *view, struct object_id object, struct inode_record *inode_out);
MUST_CHECK int view_dirent(
    struct view *view, struct object_id parent, const char *name, struct dirent_record *dirent_out);
// The inode of an entry: it must exist, or the namespace contradicts itself.
MUST_CHECK int view_named_inode(
    struct view *view, const struct dirent_record *dirent, struct inode_record *inode_out);
// The namespace contradicts itself about this object: returns -EIO, and notes `wrong` (a literal)
// for the log.
MUST_CHECK int view_contradiction(struct view *view, struct object_id object, const char *wrong);
// After a run that failed: logs that note. Hold no locks.
void view_log_contradiction(struct view *view);
// A cookie for a new name (which must not exist): -ENOSPC when 256 names share a hash.
MUST_CHECK int view_new_cookie(
    struct view *view, struct object_id parent, const char *name, uint64_t *cookie_out);
MUST_CHECK int view_xattr(
    struct view *view, struct object_id object, const char *name, struct xattr_record *xattr_out);

// ---- volume_change.c: changing it --------------------------------------------------------------

#define OPERATION_CHANGES_MAX 16u
// Bytes of changed names, link targets and extended attributes in memory, at most; operations under
// way may exceed it.
#define NAMES_BYTES_MAX (32u << 20)

// Change of the entry of an object that is open or has no name.
enum live_note {
    LIVE_AS_IT_IS,
    LIVE_ORPHAN,   // has lost its last name
    LIVE_NAMELESS, // was made without one
    LIVE_NAMED,    // gets its first one
    LIVE_ATIME_SET // the access time in memory is void
};

// One operation that changes the volume. `decide` runs under the lock, looks through the view, and
// either fails or fills in changes and a note; it may run several times and changes nothing but
// these and the caller's argument. Then volume_operate logs the changes as one record, applies
// them, and takes the note. A new object gets the id `counters.next_object`: applying its inode
// increments that.
struct operation {
    int (*decide)(struct view *view, struct operation *op);
    void *argument;
    struct change changes[OPERATION_CHANGES_MAX];
    unsigned count;
    enum live_note note;
    struct object_id noted; // the object of the note
    bool commit_point;      // must survive this process without an fsync (wal_spill)
    bool optional;          // does not wait for room: -ENOSPC at once
    uint32_t extra_bytes;   // of the changes, beyond names and inodes
    // The payload of a CHANGE_WRITE.
    const uint8_t *payload;
    uint32_t payload_length;
    struct page_piece *pieces;
    size_t piece_count;
};

static inline void
operation_note(struct operation *op, enum live_note note, struct object_id object)
{
    assert(op->note == LIVE_AS_IT_IS); // one is enough for every operation
    op->note = note;
    op->noted = object;
}

MUST_CHECK int volume_operate(struct volume *v, struct operation *op);
// The same for looks: runs `look` until it has all records that it needs.
MUST_CHECK int volume_look(
    struct volume *v, int (*look)(struct view *view, void *argument), void *argument);
// Whether a change may stand in a record of the log whose payload (of a CHANGE_WRITE) has this
// length and begins at this offset in a page. Writers and replay use the same rule.
static inline bool
volume_is_loggable(
    const struct change *change, uint32_t payload_length, uint32_t payload_page_offset)
{
    if (change->kind == CHANGE_WRITE)
        return change->length == payload_length &&
               change->offset % PAGE_BYTES == payload_page_offset;
    return change->kind <= CHANGE_DISCARD;
}
// Applies one logged change to the layers; `size` is the object's size before it (WRITE, DISCARD).
void volume_apply_locked(struct volume *v, const struct change *change, struct page_piece *pieces,
    size_t piece_count, struct lsn payload, uint64_t size);

// The present time of the clock with which the kernel stamps files, so that stamps of both are in
// order.
struct timestamp volume_now(void);

// No user may change, rename, link or unlink such an object.
static inline bool
is_fixed(const struct inode_record *inode)
{
    return (inode->flags & (INODE_IMMUTABLE | INODE_APPEND_ONLY)) != 0;
}
struct change change_put_inode(struct object_id object, const struct inode_record *inode);

// ---- volume_acl.c ------------------------------------------------------------------------------

// The lists that a new object gets from its directory; the caller frees them.
struct inherited_lists {
    struct buffer access;
    struct buffer defaults;
};
void inherited_lists_free(struct inherited_lists *lists);
// Changes `mode` by the directory's default list, or by the umask, and fills in `lists` (clears
// them first; does not store an empty one). 0 or an error of view_xattr.
MUST_CHECK int acl_inherit(struct view *view, struct object_id parent, uint32_t umask,
    uint32_t *mode, struct inherited_lists *lists);
struct change change_put_xattr(
    struct object_id object, const char *name, const void *value, size_t size);
// chmod: the object's access list with the permissions of the new mode; empty when it has none.
MUST_CHECK int acl_follow_mode(
    struct view *view, struct object_id object, uint32_t mode, struct buffer *list_out);

// ---- volume_access.c ---------------------------------------------------------------------------

// Puts an access time that is only in memory into the inode. Hold the lock.
void volume_merge_atime_locked(
    const struct volume *v, struct object_id object, struct inode_record *inode);
// A program has read data of the object; `inode` is the view's.
void volume_accessed(struct volume *v, struct object_id object, const struct inode_record *inode);
// After the last close: makes an access time part of the inode.
void volume_keep_atime(struct volume *v, struct object_id object, struct timestamp atime);

// ---- volume_orphan.c ---------------------------------------------------------------------------

// Takes an operation's note. Hold the lock.
void volume_take_note_locked(struct volume *v, enum live_note note, struct object_id object);
// Whether an object without a name may get one: 0, or -ENOENT when it has lost its last one.
MUST_CHECK int volume_check_nameless_locked(const struct volume *v, struct object_id object);
struct live_object *volume_find_live_locked(struct volume *v, struct object_id object);
// The same for readers.
const struct live_object *volume_see_live_locked(const struct volume *v, struct object_id object);
// Deletes every object without a name (at the mount: no program can have them open).
MUST_CHECK int volume_purge_orphans(struct volume *v);
void volume_free_live_objects(struct volume *v);
// Deletes objects for whose deletion the log had no room. Does not wait for room. Hold no locks.
void volume_delete_late(struct volume *v);
// Whether no program can reach the object any more, although its deletion is not logged yet.
bool volume_is_abandoned_locked(
    struct volume *v, struct object_id object, const struct inode_record *inode);

// ---- volume_open.c: from nothing to a volume ----------------------------------------------------

void volume_error(struct buffer *error, const char *format, ...) PRINTF_LIKE(2, 3);
// Logs a warning for the user who mounts, and tells it to the host; the mount goes on.
void volume_say(struct volume *v, const char *format, ...) PRINTF_LIKE(2, 3);
// A call to the store failed: puts "cannot `what` SOURCE", the cause and advice into `error`.
// Returns `rc`.
int volume_store_failed(struct volume *v, struct buffer *error, const char *what, int rc);
MUST_CHECK int volume_open_local(struct volume *v, struct buffer *error);
// Once the checkpoint runs: makes the root directory of a new volume, and deletes objects without
// names.
MUST_CHECK int volume_settle(struct volume *v, struct buffer *error);
MUST_CHECK int volume_open_from_bucket(struct volume *v, struct buffer *error);
MUST_CHECK int volume_import(
    struct volume *v, struct db_record *db, struct generation at, struct buffer *error);
const char *volume_store_advice(int rc);
// Removes everything that this root has of the volume: log, db, hot_cache. The manifest stays open.
MUST_CHECK int volume_drop_db(struct volume *v, struct buffer *error);

// ---- volume_rebuild.c: a root that has lost its manifest ----------------------------------------

// The db to be made for a volume that the manifest does not know.
struct volume_rebuild {
    struct db_id db;    // the db of the log that goes on; 0: there is no such log
    struct lsn cut;     // replay begins here
    uint64_t sequence;  // of the record that the import ends with
    struct db_id above; // without a log: the new db gets a higher number
};

// For a manifest that is damaged and not open: renames it to make room for a new one, when the
// bucket and the log hold everything that was acknowledged, or with discard_unpublished. Else
// refuses, changing nothing.
MUST_CHECK int volume_set_manifest_aside(struct volume *v, struct buffer *error);
// For struct manifest_options: finds the identity of the volume's root in its logs; zero when they
// do not have it. -errno when the logs could not be read: a root must not become another one for
// that.
MUST_CHECK int volume_find_former_root_id(void *volume, struct uuid *id_out);
// Looks for a log of the volume, which the manifest does not know, and judges it: refuses when
// acknowledged changes would be lost.
MUST_CHECK int volume_find_rebuild(
    struct volume *v, struct volume_rebuild *rebuild_out, struct buffer *error);
// Notes durably that this program removes the db's log on purpose, or takes the note back.
MUST_CHECK int volume_note_dropped(struct volume *v, bool dropped);

// ---- volume_claim.c: ownership ------------------------------------------------------------------

// A root tries to claim this often while other hosts claim the volume, too.
#define CLAIM_ATTEMPTS 5
// Catches up with the bucket and claims. 0: claimed, or the store cannot be reached (v->own.claimed
// tells); 1: another writer went on with the volume, and the local state had to go.
MUST_CHECK int volume_claim(struct volume *v, struct db_record *db, struct buffer *error);

// ---- volume_lock.c: the hold of a process -------------------------------------------------------

// volume_checkpoint.c: tells the host which bytes are lost.
void volume_say_lost(struct volume *v);
// The directory of a volume's lock file. The caller frees it.
char *volume_tenant_directory(
    const char *root, const char *tenant, const char *place, uint32_t volume_number);
// Makes the storage root when only its last component is missing, and checks that no other user may
// write to it. `v->config.root` has no links afterwards.
MUST_CHECK int volume_take_root(struct volume *v, struct buffer *error);
// Checks that only the user may write to a directory of the volume, which may not exist yet: 0, or
// -EPERM with a text.
MUST_CHECK int volume_check_private(const char *path, struct buffer *error);
// Waits for a predecessor that is on its way out. -EBUSY: another process has the volume.
MUST_CHECK int volume_take_lock(struct volume *v, struct buffer *error);
// The lock file holds "PID mounted", or "PID closing DONE TOTAL" with bytes of the last
// publication. While requests to the store are made again, a second line says "retrying ERRORS
// CAUSE".
#define VOLUME_LOCK_CLOSING  "closing"
#define VOLUME_LOCK_RETRYING "retrying"
// The retries of the store that are of interest to a waiting user; `tries` is 0 when there are
// none.
void volume_trouble(struct volume *v, struct remote_trouble *trouble_out);
void volume_mark_closing(struct volume *v, uint64_t done_bytes, uint64_t total_bytes);

// ---- volume_layers.c ----------------------------------------------------------------------------

// The layers between bottom and top: local store, map, reader, pages.
MUST_CHECK int volume_open_layers(struct volume *v, struct buffer *error);
void volume_close_layers(struct volume *v);
// The directory of the log. The caller frees it.
char *volume_wal_directory(const struct volume *v);
// Opens the log and replays it into the layers.
MUST_CHECK int volume_open_wal(struct volume *v, const struct db_record *db, struct buffer *error);

// ---- volume_keep.c: files that stay in hot_cache (volume_fetch.h) -------------------------------

// Tells every image of a file as of the local generation. 0 or -errno.
typedef void volume_visit_image(void *argument, const struct blob_location *where);
MUST_CHECK int volume_visit_images(
    struct volume *v, uint64_t inode, volume_visit_image *visit, void *argument);
// Before a thread asks volume_is_kept_locked, for each blob anew: a fold may have given new blobs
// to a file meanwhile. Both under `evicting`. When the blobs of the files cannot be read, all count
// as kept.
void volume_refresh_kept_locked(struct volume *v);
bool volume_is_kept_locked(const struct volume *v, const struct sha256 *hash);
void volume_free_kept(struct volume *v);

// ---- volume_janitor.c: files that nothing needs -------------------------------------------------

// Removes the remains of a dead process: staging directories, and blobs whose transaction never
// came. At mount.
void volume_sweep(struct volume *v);
// The same beside other threads, and an audit of the account. One thread at a time.
void volume_clean(struct volume *v);
// Every ten minutes; called by the housekeeping thread each second.
void volume_clean_when_due(struct volume *v);

// ---- volume_recover.c: replay -------------------------------------------------------------------

// WAL replay into the active layer. The argument is a struct volume_replay.
struct volume_replay {
    struct volume *v;
    struct buffer *error;
    const char *waiver; // the file with which an operator waives unreadable changes
    bool waived;        // an operator has done so
};
MUST_CHECK int volume_replay(void *argument, const struct wal_replayed *record);
// Sets `waived` if the file (REPLAY_WAIVER in the log's directory) has the word. 0 or -errno.
#define REPLAY_WAIVER      "undecodable"
#define REPLAY_WAIVER_WORD "skip"
MUST_CHECK int volume_read_waiver(struct volume_replay *replay);
// Removes the waiver as soon as no replay needs it any more: it is for one log alone.
void volume_end_waiver(struct volume *v);
// volume_checkpoint.c
void volume_checkpoint_host(struct volume *v, struct checkpoint_host *host_out);
// Asks for a fold. Hold no locks.
void volume_press(struct volume *v);
// Asks for one when the log has grown enough.
void volume_press_if_needed(struct volume *v);
void volume_set_read_only_locked(struct volume *v, const char *reason);
// volume_watch.c: notices that the storage root was removed. Hold no locks.
void volume_watch_root(struct volume *v);
// Looks now whether the root has gone.
bool volume_root_is_gone(struct volume *v);
MUST_CHECK int volume_start_housekeeping(struct volume *v);
void volume_stop_housekeeping(struct volume *v);

#endif
