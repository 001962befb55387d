// SPDX-License-Identifier: Apache-2.0
// Checkpoints of one db: three threads and their work.
//
//     sync      make the kernel hand over its dirty pages, for requests that ask for that.
//     fold      freeze at a cut -> plan -> stage images -> verify -> one manifest transaction: the
//               local generation -> thaw -> release the WAL. Needs no store.
//     publish   stage the record that takes the bucket to the local generation -> upload missing
//               blobs -> create the record (the commit point) -> record it in the manifest.
//
// Steps, and the state after a crash behind them (each is a crash point for tests):
//     checkpoint.planned               scratch, a job record: swept at mount; the WAL replays
//     checkpoint.staged                the same
//     checkpoint.recorded              the local generation holds; publication goes on at mount
//     checkpoint.uploaded              blobs that no record names; uploaded again, same keys
//     checkpoint.published_remotely    the mount records it (rolls forward)
//     checkpoint.publication_recorded  nothing to do
//     checkpoint.cleaned               nothing to do
//
// After a failed fold, the host lays later changes over the frozen layers, and the next attempt
// freezes them at a newer cut. After a failed publication the next attempt takes the newest local
// generation. Any thread may call these functions.
#ifndef CKPTFS_CHECKPOINT_CHECKPOINT_H
#define CKPTFS_CHECKPOINT_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/types.h"
#include "cache/dirty_set.h"
#include "cache/namespace_set.h"
#include "checkpoint/checkpoint_offer.h"
#include "checkpoint/checkpoint_planner.h"
#include "checkpoint/lease_map.h"
#include "chunk/chunk_reader.h"
#include "manifest/manifest.h"
#include "platform/flush_pace.h"
#include "platform/lock.h"
#include "remote/remote_manifest.h"
#include "store/local_store.h"
#include "store/remote_store.h"
#include "wal/wal.h"

struct checkpoint;

// One moment of the volume: all layers at one LSN.
struct checkpoint_cut {
    struct dirty_set *pages;
    struct namespace_set *names;
    struct lsn lsn;
    struct db_counters counters;
    uint64_t wall_ms;
};

// Services of the owner of the layers. The checkpoint's threads call them and hold no locks.
struct checkpoint_host {
    void *argument;
    // Freezes all changes since the last local generation, also those frozen for a failed fold. 1:
    // nothing has changed; with `always` it still freezes. Or -errno.
    int (*freeze)(void *argument, bool always, struct checkpoint_cut *cut_out);
    // A page of the local generation, if it is in memory, with a reference, or NULL.
    struct page *(*remembered)(void *argument, struct object_id object, struct page_no page);
    // Whether the storage root was removed or moved away: missing files may come back with it, so
    // the checkpoint counts nothing as lost.
    bool (*root_is_gone)(void *argument);
    // The cut is the local generation now (committed): drop it, show the tables.
    void (*thaw)(void *argument);
    // Another writer owns the volume.
    void (*fenced)(void *argument, const char *host, uint64_t epoch);
    // Makes the kernel hand over its dirty pages; may be NULL. Folds go on meanwhile. Must return
    // when checkpoint_stop waits for it.
    int (*sync_kernel)(void *argument);
};

struct checkpoint_options {
    struct checkpoint_host host;
    struct lock *layers; // protects pages in the cut from eviction while they are taken
    struct manifest *manifest;
    struct db_id db;
    struct wal *wal;
    struct chunk_map *map;
    struct chunk_reader *reader;
    struct local_store *local;
    struct remote_place place; // place.scratch is ROOT/checkpoint_scratch/{db}
    const struct file_ops *ops;
    struct flush_pace *pace; // flushes of the checkpoint keep it; or NULL
    uint64_t interval_ms;    // 0: no timer
    uint64_t fold_retry_ms;  // pause after a fold that failed; 0: a second
    uint64_t upload_deadline_ms;
    unsigned upload_threads;
    uint64_t lease_ttl_ms;
    const _Atomic unsigned *flags; // DB_FLAG_*, of the owner; NULL: the default ones
    bool claimed;  // the volume was claimed at mount; else before the first publication
    bool takeover; // that claim takes it away from a host that is alive
};

MUST_CHECK int checkpoint_start(
    const struct checkpoint_options *options, struct checkpoint **checkpoint_out);
// Stops the threads after their present step, cancels their calls to the store, and frees `c`.
// Requests that wait get -ECANCELED.
void checkpoint_stop(struct checkpoint *c);

// The log grows (or the memory fills): fold soon.
void checkpoint_press(struct checkpoint *c);
// The flags have changed. A timer that is turned on again makes a checkpoint at once when one was
// due meanwhile.
void checkpoint_hear_flags(struct checkpoint *c);
// There is room again, or there may be: a fold that had none in the quota need not wait longer.
void checkpoint_hear_room(struct checkpoint *c);

// Makes the publish thread read the chain for records of another writer (and be fenced if it finds
// one).
void checkpoint_check_owner(struct checkpoint *c);

// The lease in the store is good for this time, with something to spare: until then no host can
// have destroyed the volume. After that each publication sends one more request to find out.
void checkpoint_note_lease(struct checkpoint *c, uint64_t for_ms);

// The error of the last fold; 0 when it succeeded.
int checkpoint_fold_error(struct checkpoint *c);

enum checkpoint_request_flags {
    CHECKPOINT_REQUEST_PUBLISH = 1 << 0,
    CHECKPOINT_REQUEST_SYNC_KERNEL = 1 << 1,
    // Ask the store whether this root still owns the volume, also when there is nothing to publish.
    // An unreachable store is no error then.
    CHECKPOINT_REQUEST_ASK_STORE = 1 << 2,
};
typedef void checkpoint_done(void *argument, int result, struct generation generation);
// Asks for a checkpoint of all changes so far. A thread of the checkpoint calls `done` once: with
// the generation that holds them, or with the error of an attempt that began after this call.
// -ESTALE: another writer has taken the volume.
void checkpoint_request(
    struct checkpoint *c, unsigned flags, checkpoint_done *done, void *argument);
// After this no thread calls `done` for this argument; false when the call was made or is under
// way.
bool checkpoint_forget(struct checkpoint *c, void *argument);

// ---- for upkeep ---------------------------------------------------------------------------------

// Takes over a finished offer, which takes the place of one that no fold has taken.
void checkpoint_make_offer(struct checkpoint *c, struct checkpoint_offer *offer);
// Whether a fold has not taken the offer yet, or works on it.
bool checkpoint_has_offer(struct checkpoint *c);

// ---- for truncations ----------------------------------------------------------------------------

// Until as many calls of checkpoint_unhold no fold begins, unless the log or the memory presses for
// it, and no publication does.
void checkpoint_hold(struct checkpoint *c);
void checkpoint_unhold(struct checkpoint *c);
// Waits as lease_map_wait does until no fold works on the chunks, and no publication on a
// generation that is at least `target`.
MUST_CHECK int checkpoint_wait_for_leases(struct checkpoint *c, const struct chunk_range *range,
    struct generation target, uint64_t deadline_ms, bool (*is_canceled)(void *argument),
    void *argument);
// CancelCheckpoint: gives up the fold and the publication in flight. Neither leaves anything but a
// record in the change log. The next ones take their changes; requests that wait for them wait on,
// but with CANCEL_USER_REQUESTED they get -ECANCELED. 0 when one of them will stop (soon after this
// returns), -EALREADY when nothing is in flight that could.
MUST_CHECK int checkpoint_cancel(struct checkpoint *c, enum cancel_reason reason);
// The next fold's record in the change log carries this note.
void checkpoint_note_truncation(struct checkpoint *c, const struct manifest_note *note);

// All blobs of other places have a copy in the volume's own one (retention/detach): the next fold,
// which also happens when nothing has changed, says that they lie there.
void checkpoint_own_places(struct checkpoint *c);

// Tells changes by remote_manifest_tell, between two publications. place->call can cancel it
// (-ECANCELED), also while it waits for a publication. -EAGAIN: the volume has not been claimed
// yet.
MUST_CHECK int checkpoint_tell(struct checkpoint *c, const struct remote_place *place,
    const struct change *changes, size_t count, uint64_t lowest);

// Whether an entry of the scratch directory is that of the fold in progress, or of the last one.
bool checkpoint_uses_scratch(struct checkpoint *c, const char *name);

enum checkpoint_phase {
    CHECKPOINT_PHASE_IDLE,
    CHECKPOINT_PHASE_PLANNING,
    CHECKPOINT_PHASE_STAGING,
    CHECKPOINT_PHASE_RECORDING,
    CHECKPOINT_PHASE_UPLOADING,
    CHECKPOINT_PHASE_PUBLISHING,
    CHECKPOINT_PHASE_CLEANING,
};

struct checkpoint_numbers {
    enum checkpoint_phase fold_phase;
    enum checkpoint_phase publish_phase;
    uint64_t done_bytes, total_bytes, done_blobs, total_blobs; // of the upload in progress
    uint64_t upload_rate_bytes; // its bytes a second so far; 0 before its first blob is there
    uint64_t folds, publications, failures;
    bool store_reachable; // as of the last attempt
    bool fenced;
    bool claimed;           // the writer epoch of this root is in the chain
    bool store_damaged;     // the last look found published objects missing or changed
    bool failing;           // the last attempt failed
    uint64_t last_error_ms; // wall clock of last_error; 0: there was none
    char last_error[200];   // stays when later attempts succeed
};
void checkpoint_numbers(struct checkpoint *c, struct checkpoint_numbers *numbers_out);

#endif
