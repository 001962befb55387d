/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The control ABI of ckptfs: ioctls on any file or directory of a mount. Fixed-size structs, usable
 * from C and C++. `version` is CKPTFS_ABI_VERSION; reserved bytes and unknown flags must be zero:
 * anything else is EINVAL and nothing is done. On another file system these are ENOTTY.
 * Permission: the owner of the mount's root directory, or root; else EPERM.
 */
#ifndef CKPTFS_IOCTL_H
#define CKPTFS_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define CKPTFS_ABI_VERSION 1

#define CKPTFS_CHECKPOINT_WAIT       (1u << 0) /* until done; else return at once */
#define CKPTFS_CHECKPOINT_LOCAL_ONLY (1u << 1) /* do not wait for the store */

struct ckptfs_checkpoint {
    __u32 version;
    __u32 flags;
    __u64 generation; /* out, with WAIT: the published (local) generation that holds all
                         changes before the call */
    __u64 ticket;     /* out: compare with completed_ticket of the status to follow it */
    __u64 reserved[5];
};

#define CKPTFS_STATUS_READ_ONLY       (1u << 0)
#define CKPTFS_STATUS_FENCED          (1u << 1)
#define CKPTFS_STATUS_STORE_REACHABLE (1u << 2)

struct ckptfs_status {
    __u32 version;
    __u32 flags; /* out: CKPTFS_STATUS_* */
    __u64 epoch;
    __u64 local_generation;
    __u64 published_generation;
    __u64 local_time_ms;
    __u64 published_time_ms;
    __u64 oldest_unpublished_ms;
    __u32 fold_stage;
    __u32 publish_stage;
    __u64 stage_done_bytes;
    __u64 stage_total_bytes;
    __u64 stage_done_blobs;
    __u64 stage_total_blobs;
    __u64 wal_bytes;
    __u64 wal_limit_bytes;
    __u64 dirty_bytes;
    __u64 page_cache_bytes;
    __u64 page_cache_limit_bytes;
    __u64 unpublished_blobs;
    __u64 unpublished_bytes;
    __u64 inodes;
    __u64 chunks;
    __u64 deltas;
    __u64 blobs;
    __u64 blob_bytes;
    __u64 put_requests;
    __u64 get_requests;
    __u64 head_requests;
    __u64 list_requests;
    __u64 delete_requests;
    __u64 store_bytes_written;
    __u64 store_bytes_read;
    __u64 store_errors;
    __u64 fsyncs;
    __u64 flushes;
    __u64 checkpoints;
    __u64 publications;
    __u64 checkpoint_failures;
    __u64 completed_ticket; /* the newest checkpoint request such that it and all
                               before it have ended */
    __s32 completed_result; /* its result: 0 or a negative errno */
    __u32 reserved0;
    __u8 volume[16];
    __u64 reserved[8];
    char tenant[72];
    char source[1024];
    char root[1024];
    char read_only_reason[160];
    char last_error[200];
};

/* Makes the daemon look through the manifest of its storage root in the background: it compares
   every entry with its checksum, then the counts and references of this volume with each other. It
   has ended when the metric manifest_checks is not below the ticket; the metrics
   manifest_check_failed, manifest_entries, manifest_damaged, manifest_violations have the result.
   EROFS on read-only mounts, whose manifest is a temporary copy. */
struct ckptfs_check {
    __u32 version;
    __u32 flags;  /* none yet */
    __u64 ticket; /* out */
    __u64 reserved[6];
};

/* Retention, GC and snapshots. The daemon carries these out one after the other, in the
   background; CKPTFS_IOC_REPORT tells the state and the text of one. EROFS on read-only mounts,
   EAGAIN when too many wait. The daemon remembers the newest 16. */
#define CKPTFS_OPERATION_GC              1 /* delete unneeded objects */
#define CKPTFS_OPERATION_RETENTION       2 /* show the policy, or set it to the argument */
#define CKPTFS_OPERATION_GENERATIONS     3 /* which are kept, and why */
#define CKPTFS_OPERATION_SNAPSHOT_CREATE 4 /* NAME, a blank, a published generation */
#define CKPTFS_OPERATION_SNAPSHOT_DROP   5 /* NAME */
#define CKPTFS_OPERATION_SNAPSHOTS       6 /* list them */
#define CKPTFS_OPERATION_SNAPSHOT_SHOW   7 /* NAME: its JSON object in the store */
#define CKPTFS_OPERATION_QUOTA           8 /* show it; "volume SIZE" or "root SIZE": set one */
#define CKPTFS_OPERATION_EVICT           9 /* copies of objects in the store; "inode N": a file's */

#define CKPTFS_OPERATION_JOB_REPORT 10 /* JOB: all that a VerifyManifest has found */
/* TICKET: stops that command, at once when it waits, else soon; its result is ECANCELED then. Gets
   no ticket itself. ENOENT: not known, EALREADY: it has ended. EVICT and GC look for it. */
#define CKPTFS_OPERATION_CANCEL 11

#define CKPTFS_OPERATION_JSON    (1u << 0)
#define CKPTFS_OPERATION_DRY_RUN (1u << 1) /* GC: tell what would be done */
#define CKPTFS_OPERATION_SWEEP   (1u << 2) /* GC: look for what nothing knows, too */

struct ckptfs_operation {
    __u32 version;
    __u32 kind;
    __u32 flags;
    __u32 reserved0;
    __u64 ticket; /* out */
    __u64 reserved[5];
    char argument[448]; /* NUL-terminated */
};

#define CKPTFS_OPERATION_WAITS 1
#define CKPTFS_OPERATION_RUNS  2
#define CKPTFS_OPERATION_DONE  3

struct ckptfs_report {
    __u32 version;
    __u32 state;       /* out: CKPTFS_OPERATION_WAITS, RUNS, DONE */
    __u64 ticket;      /* ENOENT: unknown or forgotten */
    __u64 offset;      /* in: first byte of the text */
    __u64 total;       /* out: length of the text, when done */
    __s32 result;      /* out: 0, or a negative errno; the text has the reason */
    __u32 length;      /* out: bytes in `text` */
    __u64 done_bytes;  /* out: how far an EVICT is */
    __u64 total_bytes; /* out */
    __u64 reserved;
    char text[8128]; /* out; not NUL-terminated */
};

/* Lost bytes of files: the daemon could read them neither from its log nor from an image, and
   reading them is EIO until a program writes them anew. The first ranges of the local
   generation. */
#define CKPTFS_LOST_MAX 16

struct ckptfs_lost_range {
    __u64 inode;
    __u64 offset;
    __u64 length;
    __u64 reserved;
};

struct ckptfs_lost {
    __u32 version;
    __u32 count;  /* out: of `first` */
    __u64 ranges; /* out: number of all ranges */
    __u64 bytes;  /* out: in all of them */
    __u64 reserved[5];
    struct ckptfs_lost_range first[CKPTFS_LOST_MAX];
};

/* All numbers of the volume, each with its name: newer daemons add some, so look them up by name.
   All fields but `version` must be zero in the call. */
#define CKPTFS_METRICS_MAX 200

#define CKPTFS_METRIC_GAUGE   1 /* as of now */
#define CKPTFS_METRIC_COUNTER 2 /* only grows while the volume is mounted */

#define CKPTFS_UNIT_NUMBER  1
#define CKPTFS_UNIT_BYTES   2
#define CKPTFS_UNIT_FLAG    3 /* 0 or 1 */
#define CKPTFS_UNIT_AGE_MS  4 /* a duration in milliseconds */
#define CKPTFS_UNIT_TIME_MS 5 /* milliseconds since 1970 */

struct ckptfs_metric {
    char name[40]; /* NUL-terminated */
    __u32 kind;    /* CKPTFS_METRIC_* */
    __u32 unit;    /* CKPTFS_UNIT_* */
    __u64 value;
    __u64 reserved;
};

struct ckptfs_metrics {
    __u32 version;
    __u32 count; /* out: of `metrics` */
    __u32 pid;   /* out: of the daemon, in its own pid namespace */
    __u32 reserved0;
    __u64 reserved[6];
    struct ckptfs_metric metrics[CKPTFS_METRICS_MAX];
};

/* Counts of the kernel's FUSE requests since the mount, to measure the cost of a program. Opcodes
   are those of <linux/fuse.h>. */
#define CKPTFS_FUSE_OPCODES 64

struct ckptfs_fuse_requests {
    __u32 version;
    __u32 reserved0;
    __u64 reserved[7];
    __u64 requests[CKPTFS_FUSE_OPCODES]; /* out: by opcode; too high ones at index 0 */
};

/* Truncation of an append-only file, on a descriptor of it; its owner may, too. A job carries it
   out; CKPTFS_IOC_JOB follows it. EOPNOTSUPP: append-only truncation is turned off. EMEDIUMTYPE:
   the file's source variant is not append-only. EINVAL also: the offset lies behind the file's end,
   or is no multiple of CKPTFS_CHUNK_BYTES for the head. EBUSY: another truncation of the file is
   under way. EROFS on read-only mounts. */
#define CKPTFS_CHUNK_BYTES (64u << 20)

#define CKPTFS_TRUNCATE_HEAD 1 /* bytes before the offset become a hole; offsets do not move */
#define CKPTFS_TRUNCATE_TAIL 2 /* the bytes behind it go */

struct ckptfs_truncate {
    __u32 version;
    __u32 side; /* CKPTFS_TRUNCATE_* */
    __u64 offset;
    __u64 job; /* out */
    __u64 reserved[5];
};

/* The source variant of a file, and of new files of a directory. On a descriptor of it; its
   owner may, too. */
#define CKPTFS_VARIANT_DETECT      0 /* the planner of checkpoints finds out */
#define CKPTFS_VARIANT_APPEND_ONLY 1
#define CKPTFS_VARIANT_RANDOM      2

#define CKPTFS_VARIANT_SET (1u << 0) /* else tell it */

struct ckptfs_variant {
    __u32 version;
    __u32 flags;
    __u32 variant; /* in with SET, else out */
    __u32 reserved0;
    __u64 reserved[6];
};

/* Jobs. NEXT tells about the one with the lowest id above `id`; ENOENT when there is none. CANCEL
   asks for the end of the one with this id: EALREADY when it has ended, or is a checkpoint that
   cannot be stopped any more. SUBMIT takes `kind` (VerifyManifest, DownloadCheckpoint,
   PruneCheckpoint, SweepOrphans, DetachFork) and `options`, and tells `id`: that of a new job, or
   of the unfinished one of this kind. EROFS on read-only mounts. */
#define CKPTFS_JOB_LOOK   0
#define CKPTFS_JOB_NEXT   1
#define CKPTFS_JOB_CANCEL 2
#define CKPTFS_JOB_SUBMIT 3

#define CKPTFS_JOB_PENDING   1
#define CKPTFS_JOB_IN_FLIGHT 2
#define CKPTFS_JOB_COMPLETED 3
#define CKPTFS_JOB_FAILED    4

#define CKPTFS_JOB_RETRYABLE     (1u << 0) /* out: the last try failed, but may be repeated */
#define CKPTFS_JOB_CANCEL_WANTED (1u << 1) /* out */

#define CKPTFS_JOB_DATA (1u << 0) /* VerifyManifest reads every blob */

/* All other fields but the first three must be zero in the call, and are set by LOOK and NEXT. */
struct ckptfs_job {
    __u32 version;
    __u32 command;
    __u64 id;
    __u32 state;
    __u32 flags;
    __u32 tries;
    __u32 priority; /* the highest goes first */
    __s32 error;    /* negative errno */
    __u32 reserved0;
    __u64 generation;
    __u64 created_ms, updated_ms; /* since 1970, as the next two; 0: never */
    __u64 lease_expires_ms, not_before_ms;
    __u64 done, total; /* of a unit of the kind's own */
    __u64 options;     /* in, of SUBMIT: CKPTFS_JOB_DATA */
    __u64 reserved[7];
    char kind[32]; /* "TruncateAppendOnly"; NUL-terminated, as the next two */
    char stage[32];
    char cause[160]; /* with an error its reason, else what the job has done */
};

/* Brings a file, with ALL all files of the volume, or with HOT the parts that were in use on the
   host that had the volume before, from the store to the local disk. A job
   carries it out; CKPTFS_IOC_JOB follows it. EEXIST: another one for the same is under way, whose
   number is in `job`. EINVAL also: it is no file. EROFS on read-only mounts. */
#define CKPTFS_HYDRATE_ALL  (1u << 0)
#define CKPTFS_HYDRATE_KEEP (1u << 1) /* it stays there until a user evicts it, or the unmount */
#define CKPTFS_HYDRATE_HOT  (1u << 2) /* alone */

struct ckptfs_hydrate {
    __u32 version;
    __u32 flags;
    __u64 job;    /* out */
    __s32 result; /* out: 0 or -EEXIST */
    __u32 reserved0;
    __u64 reserved[5];
};

/* Features that are on or off for the volume; CKPTFS_FLAG_*. */
#define CKPTFS_FLAG_APPEND_ONLY_TRUNCATION (1u << 0) /* enable_append_only_truncation */
#define CKPTFS_FLAG_COLD_SCAN              (1u << 1) /* enable_cold_scan */
#define CKPTFS_FLAG_COLD_SCAN_ALL          (1u << 2) /* cold_scan_all */
#define CKPTFS_FLAG_CHECKPOINTS            (1u << 3) /* enable_checkpoints */
#define CKPTFS_FLAG_CHUNK_DELTAS           (1u << 4) /* enable_chunk_deltas */

struct ckptfs_flags {
    __u32 version;
    __u32 change; /* in: the flags to be changed; 0: just tell */
    __u32 flags;  /* in: their new values. out: all that are on */
    __u32 known;  /* out */
    __u64 reserved[6];
};

/* How the daemon reads for this open file. Any process that has the file open may set it, but for
   PIN_IN_CACHE only its owner. EOPNOTSUPP: cold scans are turned off. EISDIR, EBADF: not a file
   that is open for data.
   BYPASS_CACHE is a cold scan: what is read is not kept in hot_cache, in the daemon's memory or in
   the kernel's cache, and what is there stays. The kernel does not change its way of caching for a
   file that is open already: set O_DIRECT with fcntl(2), too, or the daemon drops pages some
   16 MiB behind the reader, and the rest when the file is closed. */
#define CKPTFS_FETCH_SET          (1u << 0) /* else tell it */
#define CKPTFS_FETCH_BYPASS_CACHE (1u << 1)
#define CKPTFS_FETCH_PIN_IN_CACHE (1u << 2) /* local copies of what is read stay while it is open */

#define CKPTFS_PREFETCH_DETECT   0 /* the daemon finds out */
#define CKPTFS_PREFETCH_NONE     1
#define CKPTFS_PREFETCH_FORWARD  2
#define CKPTFS_PREFETCH_BACKWARD 3
#define CKPTFS_PREFETCH_BOTH     4

struct ckptfs_fetch {
    __u32 version;
    __u32 flags;         /* in; and out, without SET */
    __u32 prefetch_hint; /* CKPTFS_PREFETCH_* */
    __u32 reserved0;
    __u64 reserved[6];
};

/* Limits of the mount's calls to the store, until it ends, and those on reads of all mounts of the
   tenant in the storage root, until they are changed. EINVAL also: a rate is below 65,536 and not
   0. ENOTSUP: this mount shares no limits. */
#define CKPTFS_LIMIT_READ_BYTES           (1u << 0)
#define CKPTFS_LIMIT_READ_REQUESTS        (1u << 1)
#define CKPTFS_LIMIT_UPLOAD_BYTES         (1u << 2)
#define CKPTFS_LIMIT_TENANT_READ_BYTES    (1u << 3)
#define CKPTFS_LIMIT_TENANT_READ_REQUESTS (1u << 4)

struct ckptfs_limits {
    __u32 version;
    __u32 change;        /* in: the limits to be set; 0: just tell */
    __u64 read_bytes;    /* a second, of files; 0: no limit, as of the others */
    __u64 read_requests; /* at once */
    __u64 upload_bytes;  /* a second */
    __u64 tenant_read_bytes;
    __u64 tenant_read_requests;
    __u64 reserved[2];
};

/* The change log: one record for each change of the manifest, which names blobs only once they are
   in the store. READ tells the records with a sequence above `after`; with a name and RESUME, above
   what that subscriber has acknowledged (ENOENT: there is none of that name, or it was dropped
   because it acknowledged nothing for a week or too little). ACKNOWLEDGE says that the subscriber
   `name` has read up to `after`, and makes it when it is new: records that it has not read stay.
   LEAVE takes it away. */
#define CKPTFS_CHANGES_READ        0
#define CKPTFS_CHANGES_ACKNOWLEDGE 1
#define CKPTFS_CHANGES_LEAVE       2

#define CKPTFS_CHANGES_RESUME (1u << 0)

#define CKPTFS_CHANGE_CANCEL_CHECKPOINT 1 /* a checkpoint in flight was given up */
#define CKPTFS_CHANGE_TRUNCATE          2 /* an append-only file lost its head or tail */

#define CKPTFS_CANCEL_TRUNCATION_CONFLICT 1
#define CKPTFS_CANCEL_USER_REQUESTED      2
#define CKPTFS_CANCEL_TIMEOUT             3

struct ckptfs_change {
    __u64 sequence;
    __u64 time_ms;                                 /* since 1970 */
    __u64 local_generation, published_generation;  /* after it */
    __u32 inodes, dirents, xattrs, chunks, deltas; /* operations of each */
    __u32 blobs;                                   /* that the store got, and that this names */
    __u32 note;                                    /* CKPTFS_CHANGE_*; 0: none */
    __u32 reason;                                  /* CKPTFS_CANCEL_* */
    __u64 job;
    __u64 inode, window_begin, window_end; /* of a truncation */
    __u64 reserved[4];
};

#define CKPTFS_CHANGES_MAX 63

struct ckptfs_changes {
    __u32 version;
    __u32 command;
    __u64 after;
    __u32 flags;
    __u32 count;   /* out: of `changes` */
    __u64 oldest;  /* out: the oldest record that there is, of any volume of the storage root */
    __u64 resumed; /* out, with RESUME: the last acknowledged one */
    __u64 reserved[5];
    char name[48];                                    /* NUL-terminated; "": no subscriber */
    struct ckptfs_change changes[CKPTFS_CHANGES_MAX]; /* out */
};

#define CKPTFS_IOC_CHECKPOINT _IOWR('K', 0x01, struct ckptfs_checkpoint)
#define CKPTFS_IOC_STATUS     _IOWR('K', 0x02, struct ckptfs_status)
#define CKPTFS_IOC_METRICS    _IOWR('K', 0x03, struct ckptfs_metrics)
#define CKPTFS_IOC_CHECK      _IOWR('K', 0x04, struct ckptfs_check)
#define CKPTFS_IOC_OPERATION  _IOWR('K', 0x05, struct ckptfs_operation)
#define CKPTFS_IOC_REPORT     _IOWR('K', 0x06, struct ckptfs_report)
#define CKPTFS_IOC_LOST       _IOWR('K', 0x07, struct ckptfs_lost)
#define CKPTFS_IOC_TRUNCATE   _IOWR('K', 0x20, struct ckptfs_truncate)
#define CKPTFS_IOC_VARIANT    _IOWR('K', 0x21, struct ckptfs_variant)
#define CKPTFS_IOC_JOB        _IOWR('K', 0x22, struct ckptfs_job)
#define CKPTFS_IOC_FLAGS      _IOWR('K', 0x23, struct ckptfs_flags)
#define CKPTFS_IOC_CHANGES    _IOWR('K', 0x24, struct ckptfs_changes)
#define CKPTFS_IOC_HYDRATE    _IOWR('K', 0x25, struct ckptfs_hydrate)
#define CKPTFS_IOC_LIMITS     _IOWR('K', 0x30, struct ckptfs_limits)
#define CKPTFS_IOC_FETCH      _IOWR('K', 0x31, struct ckptfs_fetch)
#define CKPTFS_IOC_FUSE       _IOWR('K', 0x10, struct ckptfs_fuse_requests)

#ifdef __cplusplus
static_assert(sizeof(struct ckptfs_checkpoint) == 64, "ABI");
static_assert(sizeof(struct ckptfs_check) == 64, "ABI");
static_assert(sizeof(struct ckptfs_truncate) == 64, "ABI");
static_assert(sizeof(struct ckptfs_variant) == 64, "ABI");
static_assert(sizeof(struct ckptfs_job) == 384, "ABI");
static_assert(sizeof(struct ckptfs_flags) == 64, "ABI");
static_assert(sizeof(struct ckptfs_limits) == 64, "ABI");
static_assert(sizeof(struct ckptfs_hydrate) == 64, "ABI");
static_assert(sizeof(struct ckptfs_fetch) == 64, "ABI");
static_assert(sizeof(struct ckptfs_changes) == 8192, "ABI");
static_assert(sizeof(struct ckptfs_lost) == 576, "ABI");
static_assert(sizeof(struct ckptfs_operation) == 512, "ABI");
static_assert(sizeof(struct ckptfs_report) == 8192, "ABI");
static_assert(sizeof(struct ckptfs_fuse_requests) == 576, "ABI");
static_assert(sizeof(struct ckptfs_metrics) == 64 + 64 * CKPTFS_METRICS_MAX, "ABI");
#else
_Static_assert(sizeof(struct ckptfs_checkpoint) == 64, "ABI");
_Static_assert(sizeof(struct ckptfs_check) == 64, "ABI");
_Static_assert(sizeof(struct ckptfs_truncate) == 64, "ABI");
_Static_assert(sizeof(struct ckptfs_variant) == 64, "ABI");
_Static_assert(sizeof(struct ckptfs_job) == 384, "ABI");
_Static_assert(sizeof(struct ckptfs_flags) == 64, "ABI");
_Static_assert(sizeof(struct ckptfs_limits) == 64, "ABI");
_Static_assert(sizeof(struct ckptfs_hydrate) == 64, "ABI");
_Static_assert(sizeof(struct ckptfs_fetch) == 64, "ABI");
_Static_assert(sizeof(struct ckptfs_changes) == 8192, "ABI");
_Static_assert(sizeof(struct ckptfs_lost) == 576, "ABI");
_Static_assert(sizeof(struct ckptfs_operation) == 512, "ABI");
_Static_assert(sizeof(struct ckptfs_report) == 8192, "ABI");
_Static_assert(sizeof(struct ckptfs_fuse_requests) == 576, "ABI");
_Static_assert(sizeof(struct ckptfs_metrics) == 64 + 64 * CKPTFS_METRICS_MAX, "ABI");
#endif

#endif
