// SPDX-License-Identifier: Apache-2.0
// Writes past the kernel's page cache (O_DIRECT). Before such a write the kernel drops its cached
// pages of the range, and after a synchronous one it does so again, because a reader may have
// brought old bytes into the cache in between. After an asynchronous one (io_submit, io_uring) a
// FUSE file system gets no second time: old pages stay, are read for ever, and one of them that is
// written to a byte later takes old bytes back into the file. So the daemon drops the range itself,
// between the change and the answer. The drop waits for reads on their way: their pages are locked
// until the daemon has answered, and later readers get the new bytes.
//
// The dropping waits for requests of the kernel, so no worker may do it. Threads of this module do,
// one at first, more while all of them wait. Pure users of O_DIRECT do not come here: a new file
// that no program has read or written through the cache has no pages to drop.
#ifndef CKPTFS_FUSE_DIRECT_WRITES_H
#define CKPTFS_FUSE_DIRECT_WRITES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/list.h"
#include "base/types.h"
#include "platform/lock.h"
#include "platform/thread.h"

struct fuse_req;
struct fuse_file_info;
struct kernel_cache;

#define DIRECT_WRITES_THREADS 8u

struct direct_writes {
    struct kernel_cache *kernel_cache;
    struct lock lock; // "direct_writes": protects everything below
    struct condition changed;
    struct list_node queue; // of writes that are done and not answered
    unsigned idle;          // threads
    unsigned started;
    bool running;
    struct thread threads[DIRECT_WRITES_THREADS];
};

void direct_writes_init(struct direct_writes *d, struct kernel_cache *kernel_cache);
void direct_writes_destroy(struct direct_writes *d);
// Starts the first thread. 0 or -errno.
MUST_CHECK int direct_writes_start(struct direct_writes *d);
// Answers waiting writes and ends the threads. Workers must still serve, or the connection be
// closed.
void direct_writes_stop(struct direct_writes *d);

// Whether a WRITE request came past the page cache.
bool direct_writes_is_direct(const struct fuse_file_info *fi);

// Takes a WRITE of `size` bytes that the volume has done, drops the kernel's pages of the range,
// then answers; for `sync`, once it is on stable storage. Any thread.
void direct_writes_answer(struct direct_writes *d, struct fuse_req *req, struct object_id object,
    uint64_t offset, uint64_t size, bool sync);

#endif
