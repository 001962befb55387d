// SPDX-License-Identifier: Apache-2.0
// The open volume, for FUSE, ckptctl's offline commands and tests. It knows nothing of FUSE.
// Functions return 0 (or a byte count) or a negative errno, which the application should see. Any
// thread may call any of them at the same time, unless the comment says otherwise. Sizes and
// offsets are bytes; results (`_out`) belong to the caller.
#ifndef CKPTFS_VOLUME_VOLUME_H
#define CKPTFS_VOLUME_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"
#include "format/records.h"
#include "manifest/manifest.h"
#include "metrics/metrics.h"
#include "store/limited_store.h"
#include "store/remote_call.h"
#include "volume/volume_config.h"
#include "volume/volume_lost.h"

struct volume;

// Services of the program that mounts the volume. All may be NULL.
struct volume_host {
    void *argument;
    // Makes the kernel hand over its dirty pages, and returns when the daemon has answered for all
    // of them. A thread of the volume that holds no locks calls it. 0 or -errno.
    int (*sync_kernel)(void *argument);
    // Takes a warning of volume_open for the user: one sentence without a newline. The thread that
    // opens calls it.
    void (*say)(void *argument, const char *text);
    // Cuts the file at `offset` (tail), or makes a hole of the bytes before it, by way of the
    // kernel. Called likewise. -EAGAIN: the kernel cannot be asked at the moment.
    int (*truncate)(void *argument, struct object_id object, bool tail, uint64_t offset);
    // The host stamps the times of files itself (the kernel's write-back cache does): changes of
    // data and size leave them alone unless they bring times along.
    bool keeps_times;
    // Mount options: reads leave access times alone, of all objects or of directories.
    bool no_atime;
    bool no_directory_atime;
    // Polled while the volume is opened and waits for the store: whether to give that up.
    bool (*is_canceled)(void *argument);
};

// ---- life ---------------------------------------------------------------------------------------

// Makes an empty volume at config->source. -EEXIST when there is one. Needs no storage root. On
// failure `error` gets a text for the user: the failure, its object, its cause, the remedy.
MUST_CHECK int volume_create(const struct volume_config *config, struct buffer *error);

// Opens: local state and WAL replay, or the state in the bucket; claims the volume for writing
// unless read-only. The config is copied. Errors as above: -ENOENT no such volume, -EBUSY held by
// another writer or another process, ...
MUST_CHECK int volume_open(const struct volume_config *config, const struct volume_host *host,
    struct volume **volume_out, struct buffer *error);

// Opens one of the volume's generations, read-only, as another volume beside it; as a mount with
// at=GENERATION, but with little memory. -ESTALE: it is not kept any more. volume_close ends it,
// before that of `v`.
MUST_CHECK int volume_open_generation(struct volume *v, struct generation generation,
    const struct volume_host *host, struct volume **volume_out, struct buffer *error);

// Makes the last checkpoint, publishes it (for up to unmount_timeout), releases the lease, and
// frees all memory. No other thread may use the volume. 0, or the errno of the publication (the
// changes are safe in the storage root then).
int volume_close(struct volume *v);

bool volume_is_read_only(const struct volume *v);

// ---- namespace ----------------------------------------------------------------------------------

// The calling user, who will own new objects. The kernel checks permissions (default_permissions).
struct volume_caller {
    uint32_t uid;
    uint32_t gid;
    uint32_t umask;
};

struct volume_attributes {
    struct object_id object;
    struct inode_record inode; // link_target is NULL here; a directory's size is 4096
    uint64_t blocks;           // of 512 bytes
};

MUST_CHECK int volume_lookup(struct volume *v, struct object_id parent, const char *name,
    struct volume_attributes *attributes_out);
// Gives the parent of a directory, for the kernel's file handles. -ENOENT for the root, and for a
// directory whose inode keeps no parent (format/parent.h).
MUST_CHECK int volume_lookup_parent(
    struct volume *v, struct object_id object, struct volume_attributes *attributes_out);
MUST_CHECK int volume_get_attributes(
    struct volume *v, struct object_id object, struct volume_attributes *attributes_out);

enum volume_set {
    VOLUME_SET_MODE = 1 << 0,
    VOLUME_SET_UID = 1 << 1,
    VOLUME_SET_GID = 1 << 2,
    VOLUME_SET_SIZE = 1 << 3,
    VOLUME_SET_ATIME = 1 << 4,
    VOLUME_SET_MTIME = 1 << 5,
    VOLUME_SET_CTIME = 1 << 6,
    VOLUME_SET_ATIME_NOW = 1 << 7,
    VOLUME_SET_MTIME_NOW = 1 << 8,
    VOLUME_SET_KILL_SUIDGID = 1 << 9, // clear suid, and sgid when group-executable
    VOLUME_SET_FLAGS = 1 << 10,       // stands alone
    VOLUME_SET_VARIANT = 1 << 11,     // stands alone
};

struct volume_set_attributes {
    unsigned set; // VOLUME_SET_*
    uint32_t mode, uid, gid;
    uint64_t size;
    struct timestamp atime, mtime, ctime;
    uint32_t flags;         // INODE_*
    uint8_t source_variant; // enum source_variant: of files, and of new files of a directory
};

// -EPERM when INODE_IMMUTABLE or INODE_APPEND_ONLY forbids it, as in all functions below.
// -EOPNOTSUPP for flags that the volume does not keep.
MUST_CHECK int volume_set_attributes(struct volume *v, struct object_id object,
    const struct volume_set_attributes *change, struct volume_attributes *attributes_out);

// Makes a file, directory, symbolic link (`target`), fifo, socket or device node by the type in
// `mode`. A directory's default access list decides permissions; without one the caller's umask
// does. setgid directories hand down their group. -EEXIST when the name is taken. `name` NULL makes
// a file in no directory: the volume deletes it at its last close, unless it is linked by then.
MUST_CHECK int volume_make(struct volume *v, struct object_id parent, const char *name,
    uint32_t mode, uint32_t rdev, const char *target, const struct volume_caller *caller,
    struct volume_attributes *attributes_out);
MUST_CHECK int volume_link(struct volume *v, struct object_id object, struct object_id parent,
    const char *name, struct volume_attributes *attributes_out);
MUST_CHECK int volume_unlink(struct volume *v, struct object_id parent, const char *name);
MUST_CHECK int volume_rmdir(struct volume *v, struct object_id parent, const char *name);
// `flags`: RENAME_NOREPLACE or 0, RENAME_WHITEOUT with either, or RENAME_EXCHANGE. A whiteout, a
// character device 0:0 of the caller's, takes the old name in the same step.
MUST_CHECK int volume_rename(struct volume *v, struct object_id parent, const char *name,
    struct object_id new_parent, const char *new_name, unsigned flags,
    const struct volume_caller *caller);
// Target without NUL into `out` (cleared first).
MUST_CHECK int volume_read_link(struct volume *v, struct object_id object, struct buffer *out);

// Entries after offset `from` (0: the beginning), in order: `visit` gets each with the offset to go
// on from, and returns nonzero to stop (that entry counts as not taken). With `with_attributes` it
// gets full attributes, else only object and the type bits of mode. "." and ".." are not among the
// entries; offsets are above 2.
typedef int volume_visit_entry(void *argument, const char *name, size_t name_length,
    uint64_t offset, const struct volume_attributes *attributes);
MUST_CHECK int volume_read_directory(struct volume *v, struct object_id directory, uint64_t from,
    bool with_attributes, volume_visit_entry *visit, void *argument);

// The kernel opened / closed / forgot the object. The volume deletes an object without names when
// it is neither open nor known to the kernel any more.
MUST_CHECK int volume_object_opened(struct volume *v, struct object_id object);
// Whether the object's flags let it be opened for writing: 0 or -EPERM.
MUST_CHECK int volume_check_writable(
    struct volume *v, struct object_id object, bool append, bool truncate);
void volume_object_closed(struct volume *v, struct object_id object);
void volume_object_forgotten(struct volume *v, struct object_id object);

// Extended attributes. `flags`: XATTR_CREATE, XATTR_REPLACE or 0. get: the value into `out`
// (cleared first). list: NUL-terminated names one after the other.
MUST_CHECK int volume_set_xattr(struct volume *v, struct object_id object, const char *name,
    const void *value, size_t size, int flags);
MUST_CHECK int volume_get_xattr(
    struct volume *v, struct object_id object, const char *name, struct buffer *out);
MUST_CHECK int volume_list_xattrs(struct volume *v, struct object_id object, struct buffer *out);
MUST_CHECK int volume_remove_xattr(struct volume *v, struct object_id object, const char *name);
// Sets one of the two attributes of access lists (format/access_list.h), and makes the mode agree
// with the access list; does not store a list that the mode can express. -EINVAL when the value is
// no list, -EACCES for a default list of an object that is no directory.
MUST_CHECK int volume_set_access_list(struct volume *v, struct object_id object, const char *name,
    const void *value, size_t size, bool clear_sgid);

struct volume_space {
    uint64_t block_bytes;
    uint64_t blocks, blocks_free;
    uint64_t files, files_free;
};
MUST_CHECK int volume_space(struct volume *v, struct volume_space *space_out);

// ---- data ---------------------------------------------------------------------------------------

struct volume_scan;

struct volume_read_context {
    struct remote_call call;  // for data that is only in the store
    bool keep_atime;          // O_NOATIME
    struct volume_scan *scan; // of the open file; NULL: an ordinary read
};

// ColdScan: reads of one open file that leave hot_cache and the memory for pages as they are. The
// caller ends it when no read of it is under way.
struct volume_scan *volume_scan_begin(struct volume *v);
void volume_scan_end(struct volume_scan *scan); // NULL is fine
// Whether opening the file begins one: its mark says so (FETCH_MARK_XATTR), or a flag of the volume
// (DB_FLAG_COLD_SCAN_ALL), and DB_FLAG_COLD_SCAN is on.
bool volume_is_scanned(struct volume *v, struct object_id object);
// Whether DB_FLAG_COLD_SCAN is on.
bool volume_may_scan(const struct volume *v);
// A pin for fetch_options.pin_in_cache; pin_end ends it.
struct pin *volume_begin_pin(struct volume *v);

// Tells that a program reads a directory: its access time changes as with the mount option
// relatime. volume_read and volume_read_link change that of their object themselves. The new time
// stays in memory while the object is open, and becomes part of the inode at the last close or with
// the next change.
void volume_directory_accessed(struct volume *v, struct object_id directory);

// Reads up to `length` bytes at `offset` into `out`; returns the count, 0 at the end of the file.
// -EIO when the bytes are lost, damaged, or not to be had from the store in time; -EINTR and
// -EREMOTE as context->call says. `context` may be NULL.
MUST_CHECK int64_t volume_read(struct volume *v, struct object_id object, uint64_t offset,
    size_t length, uint8_t *out, const struct volume_read_context *context);

enum volume_write_flags {
    VOLUME_WRITE_APPEND = 1 << 0,       // at the end; `offset` does not count
    VOLUME_WRITE_KILL_SUIDGID = 1 << 1, // as VOLUME_SET_KILL_SUIDGID
    VOLUME_WRITE_KEEP_TIMES = 1 << 2,   // the kernel sets the times itself (write-back cache)
};

// Writes all bytes or fails. May wait for room in the WAL.
MUST_CHECK int volume_write(struct volume *v, struct object_id object, uint64_t offset,
    const uint8_t *data, size_t length, unsigned flags);

// `mode` as of fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE];
// -EOPNOTSUPP for others. Reserves nothing; -ENOSPC when the bytes that it adds to the file do not
// fit on the disk of the storage root.
MUST_CHECK int volume_allocate(
    struct volume *v, struct object_id object, int mode, uint64_t offset, uint64_t length);
// `whence` is SEEK_DATA or SEEK_HOLE. Returns the offset or -ENXIO; errors of the store as
// volume_read. `call` may be NULL.
MUST_CHECK int64_t volume_seek(struct volume *v, struct object_id object, uint64_t offset,
    int whence, const struct remote_call *call);

// Calls `done` once, when all earlier changes are on stable local storage (0) or the log has failed
// (-EIO): in this call, or later from the thread that writes the log (wal_sync). `done` must not
// call back into the volume.
typedef void volume_synced(void *argument, int result);
void volume_sync(struct volume *v, volume_synced *done, void *argument);

// ---- control ------------------------------------------------------------------------------------

enum volume_checkpoint_flags {
    VOLUME_CHECKPOINT_PUBLISH = 1 << 0,     // until it is in the store, not only local
    VOLUME_CHECKPOINT_SYNC_KERNEL = 1 << 1, // first take in the dirty pages of the kernel
};

// Starts a checkpoint of all changes so far. A thread of the volume calls `done` once, with the
// generation that holds them (the present one when there was nothing to do) or with a negative
// result. After volume_checkpoint_forget the volume does not call `done` for this argument any
// more; it returns false when the call has happened or is under way.
typedef void volume_checkpointed(void *argument, int result, struct generation generation);
MUST_CHECK int volume_checkpoint(
    struct volume *v, unsigned flags, volume_checkpointed *done, void *argument);
bool volume_checkpoint_forget(struct volume *v, void *argument);

// Makes the check thread look through the manifest. The check has ended when manifest_checks of the
// status is not below the ticket; the numbers beside it are its result. -EROFS: a mount from the
// bucket alone, which has no manifest of its own to keep.
MUST_CHECK int volume_check(struct volume *v, uint64_t *ticket_out);

// Truncation of an append-only file: takes an order that a job (TruncateAppendOnly) carries out,
// durably. `tail`: everything from `offset` on goes; else the data before it, in whole chunks,
// becomes a hole. -EOPNOTSUPP: append-only truncation is turned off. -EMEDIUMTYPE: the file's
// source variant is not "append-only". -EINVAL: it is no file, `offset` lies behind its end, or is
// no multiple of CHUNK_BYTES for the head. -EBUSY: another order for the file is unfinished.
MUST_CHECK int volume_truncate(
    struct volume *v, struct object_id object, bool tail, uint64_t offset, uint64_t *job_out);

// Takes an order to bring a file, or with object 0 all files, from the store into hot_cache, which
// the job HydrateFiles carries out (volume_fetch.h). `keep`: eviction passes them over until the
// volume is closed or a user evicts them. -EEXIST and the id: another order for the same is
// unfinished. -EINVAL: it is no file. -EROFS.
MUST_CHECK int volume_hydrate(
    struct volume *v, struct object_id object, bool keep, uint64_t *job_out);
// The same for the parts that the published set of hot parts names.
MUST_CHECK int volume_hydrate_hot(struct volume *v, uint64_t *job_out);

// Submits the job that writes long chains and poor packs again (MergeChunks), or finds the one that
// has not ended. 0 and its id, or -errno.
MUST_CHECK int volume_merge(struct volume *v, uint64_t *job_out);

// Flags of the volume that operators turn off and on while it is mounted: DB_FLAG_*.
MUST_CHECK int volume_get_flags(struct volume *v, unsigned *flags_out);
MUST_CHECK int volume_set_flags(struct volume *v, unsigned flags);

// Limits of this mount's reads and uploads (store/limited_store.h), until it ends. -EINVAL: a rate
// is below LIMITER_RATE_MIN and not 0.
void volume_get_limits(struct volume *v, struct remote_limits *limits_out);
MUST_CHECK int volume_set_limits(struct volume *v, const struct remote_limits *limits);

// The change log. `visit` gets the records of this volume with sequence > `after`, in order, until
// it returns nonzero; `oldest_out` (may be NULL) is the oldest that the root's log has, of any
// volume. A subscriber is known by a name of 1 to 47 bytes: reading its last acknowledged record,
// -ENOENT when there is no such subscriber (any more); acknowledging; leaving. -EROFS: a read-only
// mount has no log.
MUST_CHECK int volume_changes(struct volume *v, uint64_t after, manifest_visit_change_record *visit,
    void *argument, uint64_t *oldest_out);
MUST_CHECK int volume_subscriber(struct volume *v, const char *name, uint64_t *sequence_out);
MUST_CHECK int volume_acknowledge(struct volume *v, const char *name, uint64_t sequence);
MUST_CHECK int volume_unsubscribe(struct volume *v, const char *name);

// Puts a job into the queue for a user, with the parameters of its kind (jobs/job_kinds.h; NULL: it
// has none). 0 and its id; -EINVAL: users do not submit this kind; -EEXIST and the id of an
// unfinished job of the kind that excludes it; -EROFS: a read-only mount has no jobs; or the
// manifest's error.
MUST_CHECK int volume_job_submit(
    struct volume *v, enum job_kind kind, const void *parameters, uint64_t *job_out);
// The job with this id, or with `next` the one after it, as job_queue_look; cancelling it, as
// job_queue_cancel. Cancelling a CreateCheckpoint gives up the checkpoint in flight (-EALREADY:
// there is none that could be). -EROFS: a read-only mount has no jobs.
MUST_CHECK int volume_job_look(
    struct volume *v, uint64_t id, bool next, struct job_record *job_out);
MUST_CHECK int volume_job_cancel(struct volume *v, uint64_t id);
// Appends what a VerifyManifest has found so far: damaged objects, and the generations and files
// that need them, as lines or as a JSON object. -ENOENT: no such job; -ENODATA: it is of another
// kind.
MUST_CHECK int volume_job_report(struct volume *v, uint64_t id, bool json, struct buffer *out);

// What can be opened: the snapshots in the store (one listing), and the generations that the
// manifest knows as kept; a mount from the bucket alone knows those of its own time. `name` is NULL
// for generations. `created_ms` is 0 when the manifest does not know it. `visit` returns nonzero to
// stop.
typedef int volume_visit_kept(
    void *argument, const char *name, struct generation generation, uint64_t created_ms);
MUST_CHECK int volume_list_snapshots(
    struct volume *v, const struct remote_call *call, volume_visit_kept *visit, void *argument);
MUST_CHECK int volume_list_generations(
    struct volume *v, struct generation from, volume_visit_kept *visit, void *argument);

// Operators' commands about generations and snapshots; each gives a text. The retention thread
// carries them out one after the other; a command interrupts a CheckpointGC run of the thread's
// own.
enum volume_operation {
    VOLUME_OPERATION_GC = 1,          // runs CheckpointGC now
    VOLUME_OPERATION_RETENTION,       // shows the retention policy; `argument`: sets it
    VOLUME_OPERATION_GENERATIONS,     // lists the generations that are kept, and why
    VOLUME_OPERATION_SNAPSHOT_CREATE, // `argument`: NAME and a generation, with a blank between
    VOLUME_OPERATION_SNAPSHOT_DROP,   // NAME
    VOLUME_OPERATION_SNAPSHOTS,       // lists them
    VOLUME_OPERATION_SNAPSHOT_SHOW,   // NAME
    VOLUME_OPERATION_QUOTA,           // shows it; `argument`: "volume SIZE" or "root SIZE" sets one
    VOLUME_OPERATION_EVICT, // local copies of objects in the store; `argument`: "inode N" of a file
    VOLUME_OPERATION_JOB_REPORT, // volume_job_report; `argument`: the job. It waits for no other
    // Stops the command whose ticket is the argument, at once when it waits, else soon; its result
    // is -ECANCELED then, unless it ends first. Needs no ticket: volume_operation_start returns 0,
    // -ENOENT (not known), -EALREADY (it has ended) or -EINVAL.
    VOLUME_OPERATION_CANCEL,
};
enum volume_operation_flags {
    VOLUME_OPERATION_JSON = 1 << 0,
    VOLUME_OPERATION_DRY_RUN = 1 << 1, // GC: only tells its steps
    VOLUME_OPERATION_SWEEP = 1 << 2,   // GC: looks for orphaned objects, too
};
#define VOLUME_OPERATION_ARGUMENT_MAX 440u

// Queues one. -EROFS: a mount from the bucket alone. -EAGAIN: 16 wait already. -EINVAL: unknown
// kind or flag, or an argument that is too long. Other errors are in the report.
MUST_CHECK int volume_operation_start(
    struct volume *v, unsigned kind, unsigned flags, const char *argument, uint64_t *ticket_out);

enum volume_operation_state {
    VOLUME_OPERATION_WAITS = 1,
    VOLUME_OPERATION_RUNS,
    VOLUME_OPERATION_DONE,
};
struct volume_operation_report {
    unsigned state;
    int result;      // when done: 0, or -errno with the reason as its text
    uint64_t length; // of its text
    size_t copied;
    uint64_t done_bytes, total_bytes; // of a command that tells its progress; else 0
};
// Tells the state of an operation, and copies up to `size` bytes of its text from `offset` on into
// `text`. The volume remembers 16 operations; -ENOENT for others.
MUST_CHECK int volume_operation_report(struct volume *v, uint64_t ticket, uint64_t offset,
    char *text, size_t size, struct volume_operation_report *report_out);

enum checkpoint_stage {
    CHECKPOINT_STAGE_IDLE,
    CHECKPOINT_STAGE_PLANNING,
    CHECKPOINT_STAGE_STAGING,
    CHECKPOINT_STAGE_RECORDING, // the local generation
    CHECKPOINT_STAGE_UPLOADING,
    CHECKPOINT_STAGE_PUBLISHING,
    CHECKPOINT_STAGE_CLEANING,
};

struct volume_status {
    char source[1024];
    char tenant[65];
    char root[1024];
    struct uuid volume;
    char read_only_reason[160];          // "" when not, or when asked for
    enum checkpoint_stage fold_stage;    // local generation
    enum checkpoint_stage publish_stage; // upload and publication
    char last_error[200]; // of checkpoint, publication or store, also one that is over; "": none
    struct metrics metrics;
};

void volume_status(struct volume *v, struct volume_status *status_out);

// The lost bytes of the local generation. 0 or -errno.
MUST_CHECK int volume_lost(struct volume *v, struct volume_lost *lost_out);

#endif
