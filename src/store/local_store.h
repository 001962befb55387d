// SPDX-License-Identifier: Apache-2.0
// The LocalStore: blobs on the local disk.
//
//     ROOT/hot_cache/{db}/{hash}.blob    a whole, verified, durable copy
//     ROOT/hot_cache/{db}/{hash}.part    a sparse copy of a remote blob: the bytes read so far
//     ROOT/hot_cache/{db}/recency        which parts of the copies are used (format/part_list.h)
//     ROOT/checkpoint_scratch/{db}/      staging, one directory a job
//
// A partial file has no map of its valid parts: frames and indexes carry checksums, and a hole
// fails them. So it needs no fsync either. Functions return 0 or -errno; any thread.
#ifndef CKPTFS_STORE_LOCAL_STORE_H
#define CKPTFS_STORE_LOCAL_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/types.h"
#include "format/part_list.h"
#include "platform/file.h"
#include "quota/storage_quota.h"
#include "store/pin_set.h"

struct local_store;

// Makes the directories below `root`. Each db has directories of its own, so that the process that
// holds the db's lock may sweep them.
MUST_CHECK int local_store_open(
    const struct file_ops *ops, const char *root, struct db_id db, struct local_store **store_out);
// From now on the store reserves the bytes that it keeps, and gives back those that it removes.
// Before other threads use the store. The writers of adopted files have reserved their bytes.
void local_store_set_quota(struct local_store *s, struct storage_quota *quota);
struct storage_quota *local_store_quota(const struct local_store *s);
// Removes copies that `is_needed` does not know. Returns how many went, or -errno.
typedef bool local_store_is_needed(void *argument, const struct sha256 *hash);
MUST_CHECK int local_store_sweep(
    struct local_store *s, local_store_is_needed *is_needed, void *argument);
void local_store_close(struct local_store *s); // NULL is fine
// The blobs that must not be removed now.
struct pin_set *local_store_pins(const struct local_store *s);
// Makes the two directories again after a user has removed them.
MUST_CHECK int local_store_make_directories(struct local_store *s);
// ROOT/checkpoint_scratch/{db}.
const char *local_store_scratch(const struct local_store *s);

// Moves a whole, fsynced file into hot_cache under its hash. The name is durable only after
// local_store_sync.
MUST_CHECK int local_store_adopt(
    struct local_store *s, const char *path, const struct sha256 *hash);
MUST_CHECK int local_store_sync(struct local_store *s);

// Reads bytes of a blob from its whole or partial file: 0; -ENOENT when there is neither; -ENODATA
// when the file ends before, or a partial one has a hole there. Bytes of a partial file may be
// zeros in part: verify them. Calls thread_will_wait before it waits for the disk.
MUST_CHECK int local_store_read(
    struct local_store *s, const struct sha256 *hash, uint64_t offset, void *p, size_t n);
// The same, without noting that they were used: for readers that must not change what is evicted.
MUST_CHECK int local_store_peek(
    struct local_store *s, const struct sha256 *hash, uint64_t offset, void *p, size_t n);
// Either of them into several pieces of memory, for bytes that follow each other in the blob.
MUST_CHECK int local_store_readv(struct local_store *s, const struct sha256 *hash, uint64_t offset,
    const struct iovec *iov, int count, bool is_use);
// Keeps bytes that were read from the store in the partial file. -EDQUOT: there is no room for
// them. Hold no locks.
MUST_CHECK int local_store_keep(
    struct local_store *s, const struct sha256 *hash, uint64_t offset, const void *p, size_t n);
// The first byte in [offset, end) that lies in a hole of the file; `end` when there is none. Bytes
// before it may still be zeros that were never kept (parts of blocks): verify them.
uint64_t local_store_find_hole(
    struct local_store *s, const struct sha256 *hash, uint64_t offset, uint64_t end);
// Whether there is a whole copy.
bool local_store_has(struct local_store *s, const struct sha256 *hash);
// Opens the whole copy for reading, or returns -errno; the caller closes it.
MUST_CHECK int local_store_open_blob(struct local_store *s, const struct sha256 *hash, int *fd_out);
// Removes copies, whole or partial, that `may_go` lets go and no thread has pinned, until `want`
// bytes of blocks are free or all have been looked at. Returns the bytes, or -errno. `may_go` is
// called when the removal has been announced to the pins, without locks.
typedef bool local_store_may_go(void *argument, const struct sha256 *hash, bool whole);
MUST_CHECK int64_t local_store_evict(
    struct local_store *s, local_store_may_go *may_go, void *argument, uint64_t want);
// Tells the blob of each copy, in no order; a blob with two files is told twice. 0 or -errno.
typedef void local_store_visit_copy(void *argument, const struct sha256 *hash);
MUST_CHECK int local_store_visit(
    struct local_store *s, local_store_visit_copy *visit, void *argument);
// Bytes in blocks of a blob's copies.
uint64_t local_store_bytes(const struct local_store *s, const struct sha256 *hash);
// One blob: whether it went.
bool local_store_evict_blob(
    struct local_store *s, const struct sha256 *hash, local_store_may_go *may_go, void *argument);
// The same for a thread that needs room: copies that are not known of any use go first, then parts,
// by recency (part_sieve.h). For a store with a quota. One thread at a time.
MUST_CHECK int64_t local_store_make_room(
    struct local_store *s, local_store_may_go *may_go, void *argument, uint64_t want);
// Which parts are in use, from the one that came first to the one that came last; returns how many
// stand before the hand (part_sieve.h). Without a limit, what is known from before.
uint32_t local_store_list_parts(struct local_store *s, struct part_list *out);
// Writes that to the file `recency`, so that the next mount evicts in the same order; takes the
// file away when there is nothing to tell. Failures are logged: the older file stays. One thread
// at a time; hold no locks.
void local_store_save_recency(struct local_store *s);
// Takes it over, for copies that are still here, before other threads use the store. A file that is
// damaged, or of a newer program, is ignored and logged.
void local_store_load_recency(struct local_store *s);
// Removes both files; missing ones are fine. -EBUSY: the blob is pinned, and stays.
MUST_CHECK int local_store_remove(struct local_store *s, const struct sha256 *hash);

#endif
