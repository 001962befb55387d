// SPDX-License-Identifier: Apache-2.0
// StorageQuota: a thread that writes below the storage root reserves bytes before it writes them,
// and gives them back when it has removed them. Bytes are those of allocated blocks, so holes of a
// sparse file do not count.
//
// Three limits hold at once: that of this process's place (one volume), that of its tenant, over
// all places of the tenant, and that of the root, over all places and the manifest. A process that
// reserves adds first and looks at the sum afterwards; it takes a sum back that is too large. So of
// two processes that reserve at once at least one sees the sum of both, and the limit is never
// passed; it may happen that both are refused.
//
// The part of a limit L that each need may use:
//
//     QUOTA_CACHE       L - floor - promised    copies of objects in the store
//     QUOTA_GROW        L - floor - promised    more log than the least
//     QUOTA_CHECKPOINT  L - reserve             files of a checkpoint, and the least log
//     QUOTA_LAST        L                       records on their way to the store
//
// `promised` is the size of the checkpoints of all that the log's segments can hold: as much as the
// segments have bytes. The floor (an eighth of L, at most 256 MiB) covers the error of that
// estimate. The reserve (a thirty-second of L, at most 64 MiB) is for the growth of the manifest,
// of which only an estimate is known before it happens.
//
// All functions but open and close: any thread, and a quota that is NULL has no limits and counts
// nothing.
#ifndef CKPTFS_QUOTA_STORAGE_QUOTA_H
#define CKPTFS_QUOTA_STORAGE_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct storage_quota;

#define QUOTA_LIMIT_MIN (UINT64_C(64) << 20)
#define QUOTA_BLOCK     4096u
#define QUOTA_JOB_SHARE 75u // in per cent, when none is set

enum quota_kind {
    QUOTA_LOG,
    QUOTA_BLOBS, // hot_cache and checkpoint_scratch
};
enum quota_need {
    QUOTA_CACHE,
    QUOTA_GROW,
    QUOTA_CHECKPOINT,
    QUOTA_LAST,
};

// Takes the place `name` in the account of the root, and counts its files: "db/N", or "views/NAME".
// The caller has the place to itself. Never fails: see quota_file_open.
struct storage_quota *storage_quota_open(const char *root, const char *name);
void storage_quota_close(struct storage_quota *q); // NULL is fine
// The place counts for this tenant. Once, before the quota is used.
void storage_quota_set_tenant(struct storage_quota *q, const char *tenant);

// Counts the place again, when no thread writes to it.
void storage_quota_recount(struct storage_quota *q);

// Compares the account of the place with its files, beside threads that write there, and adds what
// the account lacks: a file system takes blocks for the map of a file only when it writes the file
// out. Leaves the account when it changes meanwhile; a number that is too large stays, because it
// may be a reservation. Returns the bytes added.
int64_t storage_quota_audit(struct storage_quota *q);

// A reservation.
struct quota_wanted {
    enum quota_kind kind;
    enum quota_need need;
    uint64_t bytes;
    uint64_t promised;
};
// Whether it would be granted now. Cheap, and may be called with locks held.
bool storage_quota_has_room(const struct storage_quota *q, const struct quota_wanted *wanted);

// How reservations that do not fit get room: called by the thread that reserves, which holds no
// locks; returns whether the thread should try again. Several threads may be there at once: one
// that has waited for another asks storage_quota_has_room before it frees more. Set once, before
// the quota is used.
typedef bool quota_make_room(void *argument, const struct quota_wanted *wanted);
void storage_quota_set_host(struct storage_quota *q, quota_make_room *make_room, void *argument);

// 0: no limit. The place's limit is this process's; those of the tenant and the root stay in the
// root.
void storage_quota_set_limit(struct storage_quota *q, uint64_t bytes);
void storage_quota_set_tenant_limit(struct storage_quota *q, uint64_t bytes);
void storage_quota_set_root_limit(struct storage_quota *q, uint64_t bytes);
// How much of each limit the jobs of this process may fill (quota_job.h), in per cent.
void storage_quota_set_job_share(struct storage_quota *q, uint64_t percent);
// In bytes, of the smallest limit; 0: there is no limit.
uint64_t storage_quota_job_limit(const struct storage_quota *q);

// Whether there is any limit.
bool storage_quota_is_limited(const struct storage_quota *q);

// 0 or -EDQUOT. Hold no locks: room may be made.
MUST_CHECK int storage_quota_reserve(
    struct storage_quota *q, enum quota_kind kind, enum quota_need need, uint64_t bytes);
void storage_quota_give_back(struct storage_quota *q, enum quota_kind kind, uint64_t bytes);
// Corrects a reservation that turned out to be another number.
void storage_quota_settle(
    struct storage_quota *q, enum quota_kind kind, uint64_t reserved, uint64_t bytes);

// A segment of the log: its bytes, and the same as a promise. `least`: the log cannot do without.
MUST_CHECK int storage_quota_reserve_segment(struct storage_quota *q, uint64_t bytes, bool least);
// Its file had so many bytes.
void storage_quota_give_back_segment(struct storage_quota *q, uint64_t bytes, uint64_t promised);
// Whether a segment that was reserved may be filled now. QUOTA_GROW: with data; the files of its
// checkpoint have room beside all else. QUOTA_CHECKPOINT: with a removal, which makes room in the
// end. Cheap, and may be called with locks held.
bool storage_quota_may_fill(const struct storage_quota *q, enum quota_need need);

// A writer has been refused because a segment may not be filled.
void storage_quota_note_exhausted(struct storage_quota *q);

// The next transaction of the manifest may make its file so much larger. Counted until
// storage_quota_note_manifest. Makes room as a reservation does, and counts also when there is
// none: a checkpoint that cannot be recorded would never give room back. Hold no locks.
void storage_quota_expect_manifest(struct storage_quota *q, uint64_t bytes);
// The manifest's file has so many bytes in blocks now.
void storage_quota_note_manifest(struct storage_quota *q, uint64_t bytes);

struct storage_quota_numbers {
    uint64_t limit;        // of the place; 0: none
    uint64_t tenant_limit; // 0: none
    uint64_t root_limit;   // of the root; 0: none
    uint64_t used;         // by the place
    uint64_t tenant_used;  // by all places of the tenant
    uint64_t root_used;    // by all places, the manifest, and the rest
    uint64_t log, blobs;   // of the place
    uint64_t promised;     // of the place
    // The part of the limits that data may still take, without evicting cached copies; UINT64_MAX
    // without limits.
    uint64_t room;
    uint64_t places;        // that the root has
    uint64_t tenant_places; // of them the tenant's
    uint64_t exhausted;     // how often a writer was refused
    uint64_t job_share;     // of the limits, in per cent
    uint64_t job_limit;     // storage_quota_job_limit
    uint64_t jobs;          // bytes that the jobs of the place have asked for
    uint64_t job_room;      // what they may still ask for; UINT64_MAX without limits
    uint64_t job_refusals;  // how often a job was refused
};
void storage_quota_numbers(const struct storage_quota *q, struct storage_quota_numbers *out);

// Bytes in blocks of an open file; of a path (0 when there is none).
uint64_t storage_quota_file_bytes(int fd);
uint64_t storage_quota_path_bytes(const char *path);
// So many blocks at most for `bytes` written anywhere in a file.
static inline uint64_t
storage_quota_blocks_for(uint64_t bytes)
{
    return (bytes / QUOTA_BLOCK + 2) * QUOTA_BLOCK;
}

// path_remove_tree, and gives back the bytes of its files.
MUST_CHECK int storage_quota_remove_tree(
    struct storage_quota *q, enum quota_kind kind, const char *path);

#endif
