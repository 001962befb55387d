// SPDX-License-Identifier: Apache-2.0
#ifndef CKPTFS_PAGE_PAGE_INTERNAL_H
#define CKPTFS_PAGE_PAGE_INTERNAL_H

#include "cache/page_cache.h"
#include "page/page_ahead.h"
#include "page/page_store.h"

struct page_store {
    struct lock *lock; // protects the sets, the version and the read-ahead table
    struct wal *wal;
    struct chunk_map *map;
    struct chunk_reader *reader;
    struct page_cache *clean;
    uint64_t memory_bytes;
    struct dirty_set *active;
    struct dirty_set *frozen;
    bool thawing;     // the checkpoint thread reads the frozen set without the lock
    uint64_t version; // goes up when layers move: pages read before must not be cached after
    struct page_ahead ahead;
};

// Reads the bytes of an evicted page back from the log, zeros around them.
MUST_CHECK int page_store_read_logged(
    struct page_store *ps, const struct dirty_page *content, uint8_t out[PAGE_BYTES]);

// page_trickle.c: whole pages for a cold scan, from its window or from chunks.
struct trickle_read {
    struct object_id object;
    uint64_t version; // of the layers, before any page was read
    struct page_no first;
    size_t count;
    const struct remote_call *call;
};
MUST_CHECK int page_trickle_copy(struct page_trickle *t, struct chunk_reader *reader,
    const struct trickle_read *x, uint8_t *out);

// page_write.c: keeps dirty pages within their share of the memory.
void page_store_balance_locked(struct page_store *ps);

#endif
