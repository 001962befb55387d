// SPDX-License-Identifier: Apache-2.0
// The LocalStore: blobs on the local disk.
//
//     ROOT/hot_cache/{db}/{hash}.blob    a whole, verified, durable copy
//     ROOT/hot_cache/{db}/{hash}.part    a sparse copy of a remote blob: holds what has been read
//     so far ROOT/checkpoint_scratch/           staging, one directory a job
//
// What a partial file holds is told by the bytes themselves: frames and indexes carry checksums,
// and a hole does not pass them. So partial files need no map and no fsync. Any thread.
#ifndef CKPTFS_STORE_LOCAL_STORE_H
#define CKPTFS_STORE_LOCAL_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/types.h"
#include "platform/file.h"

struct local_store;

// Makes the directories below `root`. The db has a directory of its own, so that whoever holds the
// db may sweep it.
MUST_CHECK int local_store_open(
    const struct file_ops *ops, const char *root, struct db_id db, struct local_store **store_out);
// Removes copies that `is_needed` does not know. Returns how many went, or -errno.
typedef bool local_store_is_needed(void *argument, const struct sha256 *hash);
MUST_CHECK int local_store_sweep(
    struct local_store *s, local_store_is_needed *is_needed, void *argument);
void local_store_close(struct local_store *s); // NULL is fine
// Makes the two directories again after somebody has removed them.
MUST_CHECK int local_store_make_directories(struct local_store *s);
// ROOT/checkpoint_scratch/{db}.
const char *local_store_scratch(const struct local_store *s);

// Moves a whole, fsynced file into hot_cache under its hash. The name is durable only after
// local_store_sync.
MUST_CHECK int local_store_adopt(
    struct local_store *s, const char *path, const struct sha256 *hash);
MUST_CHECK int local_store_sync(struct local_store *s);

// Reads bytes of a blob from its whole or partial file: 0; -ENOENT when there is neither; -ENODATA
// when the file ends before, or a partial one has a hole there. What a partial file gives may be
// zeros in part: verify it. Calls thread_will_wait before it waits for the disk.
MUST_CHECK int local_store_read(
    struct local_store *s, const struct sha256 *hash, uint64_t offset, void *p, size_t n);
// Keeps bytes that were read from the store in the partial file.
MUST_CHECK int local_store_keep(
    struct local_store *s, const struct sha256 *hash, uint64_t offset, const void *p, size_t n);
// The first byte in [offset, end) that nothing has been kept for; `end` when there is none. Only
// the bytes themselves say what a file holds (see above): parts of blocks may be zeros.
uint64_t local_store_find_hole(
    struct local_store *s, const struct sha256 *hash, uint64_t offset, uint64_t end);
// Whether there is a whole copy.
bool local_store_has(struct local_store *s, const struct sha256 *hash);
// Opens the whole copy for reading, or returns -errno; the caller closes it.
MUST_CHECK int local_store_open_blob(struct local_store *s, const struct sha256 *hash, int *fd_out);
// Removes both files; missing ones are fine.
void local_store_remove(struct local_store *s, const struct sha256 *hash);

#endif
