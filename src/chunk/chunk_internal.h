// SPDX-License-Identifier: Apache-2.0
// Ranges of blobs, verified: from LocalStore, else from the RemoteStore.
#ifndef CKPTFS_CHUNK_CHUNK_INTERNAL_H
#define CKPTFS_CHUNK_CHUNK_INTERNAL_H

#include "chunk/chunk_reader.h"
#include "platform/lock.h"

// Says whether the `n` bytes at `p` are what they should be.
typedef bool chunk_verify(void *argument, const uint8_t *p, size_t n);

// A fetch in progress, for others who want the same bytes.
struct chunk_flight {
    struct list_node node;
    struct sha256 blob;
    uint64_t from;
    uint64_t to;
};

struct chunk_reader {
    struct chunk_map *map;
    struct local_store *local;
    struct remote_store *remote;
    char *tenant;
    uint64_t deadline_ms;
    struct lock lock; // "chunk_reader": protects flights
    struct condition landed;
    struct list_node flights;
    struct chunk_reader_numbers numbers; // relaxed atomics
};

// Reads [offset, offset + n) of the blob to `p` so that `verify` accepts it. `n` bytes at least are
// read; with `extra` that many more are fetched and kept if the store is asked.
MUST_CHECK int chunk_fetch(struct chunk_reader *r, const struct blob_record *blob, uint64_t offset,
    size_t n, size_t extra, uint8_t *p, chunk_verify *verify, void *verify_argument,
    const struct chunk_read_options *options);

#endif
