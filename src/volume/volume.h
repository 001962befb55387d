// SPDX-License-Identifier: Apache-2.0
// The open volume: what FUSE, ckptctl's offline commands and tests talk to. Knows nothing of FUSE.
// Functions return 0 (or a byte count) or a negative errno, the one the application should see. All
// may be called from any thread at the same time unless it says otherwise.
#ifndef CKPTFS_VOLUME_VOLUME_H
#define CKPTFS_VOLUME_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"
#include "format/records.h"
#include "metrics/metrics.h"
#include "store/remote_call.h"
#include "volume/volume_config.h"
#include "volume/volume_lost.h"

struct volume;

// What the volume asks of whoever mounts it. All may be NULL.
struct volume_host {
    void *argument;
    // Makes the kernel hand over what it caches, and returns when all of that has been answered.
    // Called from a thread of the volume that holds no locks. 0 or -errno.
    int (*sync_kernel)(void *argument);
    // Tells whoever mounts something that volume_open found out and that does not stop it: one
    // sentence without a newline. Called by the thread that opens.
    void (*say)(void *argument, const char *text);
    // The host stamps the times of files itself (the kernel's write-back cache does): changes of
    // data and size leave them alone unless they bring times along.
    bool keeps_times;
    // Mounted so: reading leaves access times alone, of everything or of directories.
    bool no_atime;
    bool no_directory_atime;
};

// ---- life ---------------------------------------------------------------------------------------

// Makes an empty volume at config->source. -EEXIST when there is one. Needs no root.
// Failures put a text for the user into `error`: what failed, on what, why, what to do.
MUST_CHECK int volume_create(const struct volume_config *config, struct buffer *error);

// Opens: local state and WAL replay, or the state in the bucket; claims the volume for writing
// unless read-only. The config is copied. Errors as above: -ENOENT no such volume, -EBUSY held by
// another writer or another process, ...
MUST_CHECK int volume_open(const struct volume_config *config, const struct volume_host *host,
    struct volume **volume_out, struct buffer *error);

// Last checkpoint and its publication (up to unmount_timeout), release of the lease, and all
// memory. Nothing may be using the volume. 0, or the errno of what could not be published (it is
// safe in the storage root).
int volume_close(struct volume *v);

bool volume_is_read_only(const struct volume *v);

// ---- namespace ----------------------------------------------------------------------------------

// Who asks; decides ownership of what is made. Permission checks are the kernel's
// (default_permissions).
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
};

struct volume_set_attributes {
    unsigned set; // VOLUME_SET_*
    uint32_t mode, uid, gid;
    uint64_t size;
    struct timestamp atime, mtime, ctime;
    uint32_t flags; // INODE_*
};

// -EPERM where INODE_IMMUTABLE and INODE_APPEND_ONLY forbid it, as in all that follows. -EOPNOTSUPP
// for flags that are not kept.
MUST_CHECK int volume_set_attributes(struct volume *v, struct object_id object,
    const struct volume_set_attributes *change, struct volume_attributes *attributes_out);

// Makes a file, directory, symbolic link (`target`), fifo, socket or device node by the type in
// `mode`. A directory's default access list decides permissions; without one the caller's umask
// does. setgid directories hand down their group. -EEXIST when the name is taken. Without a name
// (NULL) a file that is in no directory: it goes when nobody has it open, unless it is linked.
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
// on from, and returns nonzero to stop (that entry counts as not taken). With `with_attributes` the
// attributes are filled in, else only object and the type bits of mode. "." and ".." are not among
// them; offsets are above 2.
typedef int volume_visit_entry(void *argument, const char *name, size_t name_length,
    uint64_t offset, const struct volume_attributes *attributes);
MUST_CHECK int volume_read_directory(struct volume *v, struct object_id directory, uint64_t from,
    bool with_attributes, volume_visit_entry *visit, void *argument);

// The kernel opened / closed / forgot the object. An object without names goes when it is neither
// open nor known to the kernel any more.
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
// Sets one of the two attributes of access lists (format/access_list.h), and the mode to what the
// access list says; a list that says no more than the mode is not kept. -EINVAL when the value is
// no list, -EACCES for a default list of what is no directory.
MUST_CHECK int volume_set_access_list(struct volume *v, struct object_id object, const char *name,
    const void *value, size_t size, bool clear_sgid);

struct volume_space {
    uint64_t block_bytes;
    uint64_t blocks, blocks_free;
    uint64_t files, files_free;
};
MUST_CHECK int volume_space(struct volume *v, struct volume_space *space_out);

// ---- data ---------------------------------------------------------------------------------------

struct volume_read_context {
    struct remote_call call; // for what is only in the store
    bool keep_atime;         // O_NOATIME
};

// A directory is being read: its access time changes as with the mount option relatime. volume_read
// and volume_read_link see to that themselves. The new time is kept in memory while the object is
// open and becomes part of it at the last close, or with its next change.
void volume_directory_accessed(struct volume *v, struct object_id directory);

// Up to `length` bytes at `offset` into `out`; the count, 0 at the end of the file. -EIO when the
// store does not give them, -EINTR, -EREMOTE as of the limits. `context` may be NULL.
MUST_CHECK int64_t volume_read(struct volume *v, struct object_id object, uint64_t offset,
    size_t length, uint8_t *out, const struct volume_read_context *context);

enum volume_write_flags {
    VOLUME_WRITE_APPEND = 1 << 0,       // at the end, whatever `offset` says
    VOLUME_WRITE_KILL_SUIDGID = 1 << 1, // as VOLUME_SET_KILL_SUIDGID
    VOLUME_WRITE_KEEP_TIMES = 1 << 2,   // from the kernel's write-back: it sets the times itself
};

// All of it or an error. May wait for room in the WAL.
MUST_CHECK int volume_write(struct volume *v, struct object_id object, uint64_t offset,
    const uint8_t *data, size_t length, unsigned flags);

// `mode` as of fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE];
// -EOPNOTSUPP for the rest.
MUST_CHECK int volume_allocate(
    struct volume *v, struct object_id object, int mode, uint64_t offset, uint64_t length);
// SEEK_DATA or SEEK_HOLE; the offset or -ENXIO; errors of the store as of volume_read. `call` may
// be NULL.
MUST_CHECK int64_t volume_seek(struct volume *v, struct object_id object, uint64_t offset,
    int whence, const struct remote_call *call);

// Calls `done` when everything that happened before is on stable local storage: before this
// function returns when it already is, from the flusher thread else. `done` must not call back into
// the volume.
typedef void volume_synced(void *argument, int result);
void volume_sync(struct volume *v, volume_synced *done, void *argument);

// ---- control ------------------------------------------------------------------------------------

enum volume_checkpoint_flags {
    VOLUME_CHECKPOINT_PUBLISH = 1 << 0,     // until it is in the store, not only local
    VOLUME_CHECKPOINT_SYNC_KERNEL = 1 << 1, // first take in what the kernel still caches
};

// Starts a checkpoint of all that has happened so far. `done` is called once, from a thread of the
// volume, with the generation that holds it (the present one when there was nothing to do) or with
// a negative result. Cancelling: volume_checkpoint_forget makes sure that `done` is not called any
// more for this argument; false when it has been called already (or is being called).
typedef void volume_checkpointed(void *argument, int result, struct generation generation);
MUST_CHECK int volume_checkpoint(
    struct volume *v, unsigned flags, volume_checkpointed *done, void *argument);
bool volume_checkpoint_forget(struct volume *v, void *argument);

// Has the manifest looked through, in the background. It is done when manifest_checks of the status
// is not below the ticket; what was found stands beside it. -EROFS: a mount from the bucket alone
// has nothing of its own.
MUST_CHECK int volume_check(struct volume *v, uint64_t *ticket_out);

// What operators ask of the life of data; each gives a text. They are carried out one after the
// other, in the background. The volume's own runs of CheckpointGC take their turn among them.
enum volume_operation {
    VOLUME_OPERATION_GC = 1,          // runs CheckpointGC now
    VOLUME_OPERATION_RETENTION,       // shows the retention policy; `argument`: sets it
    VOLUME_OPERATION_GENERATIONS,     // lists the generations that are kept, and why
    VOLUME_OPERATION_SNAPSHOT_CREATE, // `argument`: NAME and a generation, with a blank between
    VOLUME_OPERATION_SNAPSHOT_DROP,   // NAME
    VOLUME_OPERATION_SNAPSHOTS,       // lists them
    VOLUME_OPERATION_SNAPSHOT_SHOW,   // NAME
};
enum volume_operation_flags {
    VOLUME_OPERATION_JSON = 1 << 0,
    VOLUME_OPERATION_DRY_RUN = 1 << 1, // GC: tells what it would do
    VOLUME_OPERATION_SWEEP = 1 << 2,   // GC: looks for what nothing knows, too
};
#define VOLUME_OPERATION_ARGUMENT_MAX 440u

// Queues one. -EROFS: a read-only mount. -ESTALE: another host has the volume. -EAGAIN: too many
// wait. -EINVAL: no such kind, flag or argument.
MUST_CHECK int volume_operation_start(
    struct volume *v, unsigned kind, unsigned flags, const char *argument, uint64_t *ticket_out);

enum volume_operation_state {
    VOLUME_OPERATION_WAITS = 1,
    VOLUME_OPERATION_RUNS,
    VOLUME_OPERATION_DONE,
};
struct volume_operation_report {
    unsigned state;
    int result;      // of one that is done: 0 or -errno, and then the text says why
    uint64_t length; // of its text
    size_t copied;
};
// The state of an operation, and its text from `offset` on. The newest 16 are remembered: -ENOENT.
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
    char last_error[200]; // of checkpoint or publication; "" when the last one went well
    struct metrics metrics;
};

void volume_status(struct volume *v, struct volume_status *status_out);

// What is lost as of the local generation. 0 or -errno.
MUST_CHECK int volume_lost(struct volume *v, struct volume_lost *lost_out);

#endif
