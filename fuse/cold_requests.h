// SPDX-License-Identifier: Apache-2.0
// Requests of the kernel that need data from the store. A worker tries them first with local data
// (remote_call.local_only), and parks them on -EREMOTE. A parked request holds no thread that other
// work needs: a thread of the pool does it again and answers it. It fails with EINTR when its
// process is killed, with EIO when the store does not answer in time, and with ENOTCONN when the
// mount ends. Any thread.
#ifndef CKPTFS_FUSE_COLD_REQUESTS_H
#define CKPTFS_FUSE_COLD_REQUESTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/types.h"

struct fetch_entry;
struct fuse_req;

// `entry` (may be NULL) as of fetch_table_get; its reference goes with the request. A cold scan has
// threads of its own, which no other request waits for.
void cold_requests_read(struct fuse_req *req, struct object_id object, uint64_t offset,
    size_t length, struct fetch_entry *entry);
// `whence`: SEEK_DATA or SEEK_HOLE.
void cold_requests_seek(struct fuse_req *req, struct object_id object, uint64_t offset, int whence);

// For the pool of these requests.
extern const struct cold_pool_ops cold_requests_ops;

#endif
