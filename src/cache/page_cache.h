// SPDX-License-Identifier: Apache-2.0
// The PageCache: clean pages, as of the local generation, within a budget. Least recently used
// pages go first (the CLOCK approximation of Corbato, 1968). It has a lock of its own; any thread.
#ifndef CKPTFS_CACHE_PAGE_CACHE_H
#define CKPTFS_CACHE_PAGE_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "base/types.h"
#include "cache/page.h"

struct page_cache;

struct page_cache *page_cache_new(uint64_t limit_bytes);
void page_cache_free(struct page_cache *c);

// A reference to the page, or NULL.
struct page *page_cache_get(struct page_cache *c, struct object_id object, struct page_no page);
// The same, without noting that it was used.
struct page *page_cache_peek(struct page_cache *c, struct object_id object, struct page_no page);
// How many of the `most` pages from this one on are not there, up to the first one that is.
size_t page_cache_gap(
    struct page_cache *c, struct object_id object, struct page_no page, size_t most);
// Puts a page (takes a reference of its own), replacing an older one.
void page_cache_put(
    struct page_cache *c, struct object_id object, struct page_no page, struct page *content);
void page_cache_drop(struct page_cache *c, struct object_id object, struct page_no page);
// Drops all pages of the object in [first, end).
void page_cache_drop_range(
    struct page_cache *c, struct object_id object, uint64_t first, uint64_t end);

// Sets the bytes of the budget that dirty pages use: clean pages get the rest.
void page_cache_set_foreign_bytes(struct page_cache *c, uint64_t bytes);
uint64_t page_cache_bytes(struct page_cache *c);

#endif
