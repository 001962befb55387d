// SPDX-License-Identifier: Apache-2.0
// SEEK_DATA and SEEK_HOLE. The kernel asks the daemon for data without having handed over its dirty
// pages, so data just written would look like a hole, and a copy of the file would lose it. So the
// seek thread first makes the kernel hand over its pages of the file (kernel_cache.h). No worker
// may do that, because the kernel needs the workers for it. The thread never waits for the store: a
// seek that needs it goes to the cold requests.
#ifndef CKPTFS_FUSE_SEEK_H
#define CKPTFS_FUSE_SEEK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/list.h"
#include "platform/lock.h"
#include "platform/thread.h"
#include "volume/volume.h"

struct fuse_req;
struct kernel_cache;

struct seeker {
    struct volume *volume;
    struct kernel_cache *kernel_cache;
    struct thread thread;
    struct lock lock;         // protects all below
    struct condition changed; // `queue`, `running`
    struct list_node queue;   // of struct seek_request
    bool running;             // requests are taken
    bool started;             // the thread has not been joined
};

void seeker_init(struct seeker *s, struct volume *volume, struct kernel_cache *kernel_cache);
void seeker_destroy(struct seeker *s);
MUST_CHECK int seeker_start(struct seeker *s);
// Answers queued requests and ends the thread. Later requests get ENOTCONN. As long as the
// connection is good, the workers must be running. May be called again, by the same thread or
// later.
void seeker_stop(struct seeker *s);

// Answers the request with volume_seek's result, now or later.
void seeker_seek(
    struct seeker *s, struct fuse_req *req, struct object_id object, uint64_t offset, int whence);

#endif
