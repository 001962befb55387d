// SPDX-License-Identifier: Apache-2.0
// The PageStore: the data of all objects, as layers.
//
//     active   dirty_set, takes the writes
//     frozen   dirty_set, which the checkpoint in progress folds; NULL between checkpoints
//     clean    page_cache, pages as of the local generation
//     chunks   chunk_reader, the local generation itself
//
// Readers look for a page from the top; a page with a mask overlays the one below. Writers hold the
// volume's lock (functions ending in _locked), so that layers, namespace and the order of the log
// move together; readers take it only to look at the layers.
//
// Life of a dirty page: written (active, in memory; its bytes also lie in the WAL) -> evicted (in
// the WAL only) -> frozen -> folded into a chunk -> clean. A page put together from several writes
// stays in memory until it is folded.
#ifndef CKPTFS_PAGE_PAGE_STORE_H
#define CKPTFS_PAGE_PAGE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/types.h"
#include "cache/dirty_set.h"
#include "chunk/chunk_reader.h"
#include "platform/lock.h"
#include "wal/wal.h"

struct page_store;

struct page_store_options {
    struct lock *lock; // the volume's; borrowed
    struct wal *wal;   // may be set later with page_store_set_wal
    struct chunk_map *map;
    struct chunk_reader *reader;
    uint64_t memory_bytes; // for dirty and clean pages together
};

struct page_store *page_store_new(const struct page_store_options *options);
void page_store_free(struct page_store *ps);
void page_store_set_wal(struct page_store *ps, struct wal *w);

// ---- writing ------------------------------------------------------------------------------------

// One page's part of a write: bytes [from, to) of the page, at their place in `content`, zeros
// elsewhere (NULL for a whole page that is only in the WAL); `crc` is the CRC-32C of those bytes.
struct page_piece {
    struct page_no page;
    uint32_t from;
    uint32_t to;
    struct page *content;
    uint32_t crc;
};

// Cuts `length` bytes at `offset` into pieces; page_pieces_free frees the array. Whole pages of
// large writes have no content: the caller must put them with a place in the log. Any thread, no
// locks.
struct page_piece *page_pieces_new(
    uint64_t offset, const uint8_t *data, size_t length, size_t *count_out);
// The same of bytes that are in the log already: no whole page has content, and their checksums are
// `crcs`, which has the le32 of each piece.
struct page_piece *page_pieces_logged(
    uint64_t offset, const uint8_t *data, size_t length, const uint8_t *crcs, size_t *count_out);
// Frees the array and the contents that no layer has taken.
void page_pieces_free(struct page_piece *pieces, size_t count);

// Whether page_store_put_locked can put the pieces without a read. When not: release the lock, call
// page_store_prefault, and start again.
bool page_store_can_put_locked(
    struct page_store *ps, struct object_id object, const struct page_piece *pieces, size_t count);
// Loads the pages below partial pieces back into memory. Hold no locks.
MUST_CHECK int page_store_prefault(
    struct page_store *ps, struct object_id object, const struct page_piece *pieces, size_t count);
// Puts the pieces into the active layer (taking their contents); the payload's bytes lie at
// `payload` in the log. `size` is the object's size before the write: bytes behind it are zeros.
void page_store_put_locked(struct page_store *ps, struct object_id object,
    struct page_piece *pieces, size_t count, struct lsn payload, uint64_t size);
// Bytes [offset, end) become zeros: whole pages become a hole (up to the end of the object if end
// is UINT64_MAX), the edges are overwritten. page_store_can_put_locked's rule applies to the edges,
// which page_store_edges gives.
void page_store_discard_locked(
    struct page_store *ps, struct object_id object, uint64_t offset, uint64_t end, uint64_t size);
// The partial pages at the edges of such a range, as pieces of zeros (0, 1 or 2).
struct page_piece *page_store_edges(uint64_t offset, uint64_t end, size_t *count_out);
// Forgets a deleted object.
void page_store_drop_object_locked(struct page_store *ps, struct object_id object);

// ---- reading ------------------------------------------------------------------------------------

// Reads `length` bytes at `offset` (the caller has cut them at the object's size). 0 or -errno as
// chunk_reader_read. `call` may be NULL. Hold no locks.
MUST_CHECK int page_store_read(struct page_store *ps, struct object_id object, uint64_t offset,
    size_t length, uint8_t *out, const struct remote_call *call);

// The first byte in [offset, end) that is data (`data`) or lies in a hole, with the granularity of
// pages; `end` when there is none. Hold no locks.
MUST_CHECK int page_store_seek(struct page_store *ps, struct object_id object, uint64_t offset,
    uint64_t end, bool data, const struct remote_call *call, uint64_t *found_out);

// ---- cold scans ---------------------------------------------------------------------------------

// Reads of a file that are not to fill the caches: they note nothing as used and keep nothing, but
// for a window of pages of this one scan, which grows up to `window_pages` for a reader in order.
// Of one open file; any threads.
struct cold_scan_options {
    uint32_t window_pages;
};
struct page_trickle;
struct page_trickle *page_trickle_new(const struct cold_scan_options *options);
void page_trickle_free(struct page_trickle *t); // NULL is fine
// As page_store_read, with fetch.bypass_cache, by way of the window of `t`.
MUST_CHECK int page_store_read_page_trickle(struct page_store *ps, struct page_trickle *t,
    struct object_id object, uint64_t offset, size_t length, uint8_t *out,
    const struct remote_call *call);

// ---- checkpoints --------------------------------------------------------------------------------

// The active set becomes the frozen one; there must be no frozen set.
void page_store_freeze_locked(struct page_store *ps);
// The frozen set, or NULL. It is good until page_store_thaw. For the checkpoint thread only.
struct dirty_set *page_store_frozen(struct page_store *ps);
// After a failed fold: lays later writes over the frozen set; both are the active set from now on.
// For the checkpoint thread only. Pages that it has to put together and cannot read from the log
// any more are lost: the set has them without bytes. 0, or another error of reading the log; then
// the frozen set is still there. Hold no locks.
MUST_CHECK int page_store_unfreeze(struct page_store *ps);
// The frozen set has become part of the local generation (the manifest is committed, the chunk map
// invalidated): its pages become clean ones, and it goes. Hold no locks.
void page_store_thaw(struct page_store *ps);
// A page of the local generation, if it is in memory, with a reference, or NULL. Hold no locks.
struct page *page_store_remembered(
    struct page_store *ps, struct object_id object, struct page_no page);
struct page_store_numbers {
    uint64_t dirty_pages;          // active and frozen
    uint64_t dirty_resident_bytes; // of them in memory
    uint64_t clean_bytes;
    uint64_t limit_bytes;
};
void page_store_numbers_locked(struct page_store *ps, struct page_store_numbers *numbers_out);
// Asserts the invariants of the layers. Walks all of them.
void page_store_check_locked(const struct page_store *ps);
// The bytes of unfolded pages that the log does not give any more. Reads all of them. No thread may
// write meanwhile. Hold no locks.
uint64_t page_store_unreadable_bytes(struct page_store *ps);
// Whether nothing has been written since the last freeze.
bool page_store_is_clean_locked(struct page_store *ps);
// Dirty pages of one object, those that are in both sets twice.
uint64_t page_store_dirty_pages_locked(struct page_store *ps, struct object_id object);
// Whether dirty pages that cannot be evicted use most of the memory: a fold would help.
bool page_store_is_tight_locked(struct page_store *ps);
// Whether dirty pages that cannot be evicted use up the memory: writers should wait for a fold.
bool page_store_is_full_locked(struct page_store *ps);

#endif
