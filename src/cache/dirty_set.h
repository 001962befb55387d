// SPDX-License-Identifier: Apache-2.0
// The dirty-page tracker: changes of the data of objects since a cut. The volume has two: the
// active set takes the writes, the checkpoint in progress folds the frozen one. Freezing exchanges
// two pointers. Each set is a layer over the ones below it (the frozen set, the clean pages, the
// chunks):
//
//     a page in the set           hides the page below, or overlays it when it has a mask
//     no page, but in a hole      hides the page below with zeros
//     neither                     look below
//
// A page that a later discard covers leaves the set; a page written after a discard lies over the
// hole. Beyond a budget the bytes of pages leave memory: a page that was logged whole in one piece
// is then found in the WAL by position and checksum. Pages put together from several writes and
// pages with masks stay.
//
// Not locked: the caller's lock (the volume's) protects an active set; a frozen one only changes by
// eviction, under the same lock.
#ifndef CKPTFS_CACHE_DIRTY_SET_H
#define CKPTFS_CACHE_DIRTY_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/types.h"
#include "cache/page.h"
#include "format/blob.h"

struct dirty_set;

// A page's content. With `page` it is in memory. A page written in one piece also lies in the WAL:
// `wal_bytes` bytes at `wal_lsn`, which belong at `wal_from` in the page, zeros around them; then
// its memory may go. wal_bytes 0: put together from several writes, in memory only. Without `page`
// and wal_bytes it is lost: the log does not give its bytes any more.
struct dirty_page {
    struct page *page;      // a counted reference, or NULL
    struct page_mask *mask; // which bytes are valid; NULL: all
    struct lsn wal_lsn;
    uint32_t crc; // CRC-32C of the bytes in the WAL
    uint16_t wal_from;
    uint16_t wal_bytes;
};

static inline bool
dirty_page_is_lost(const struct dirty_page *p)
{
    return !p->page && p->wal_bytes == 0;
}

enum dirty_state { DIRTY_ABSENT, DIRTY_PAGE, DIRTY_HOLE };

struct dirty_set *dirty_set_new(void);
void dirty_set_free(struct dirty_set *s); // NULL is fine

// Puts a page; the set takes over the references (page and mask are the set's to free).
void dirty_set_put(
    struct dirty_set *s, struct object_id object, struct page_no page, struct dirty_page content);
// Pages [first, end) become a hole; end UINT64_MAX: to the end of the object.
void dirty_set_discard(struct dirty_set *s, struct object_id object, uint64_t first, uint64_t end);
// Forgets all of the object: pages and holes (it is deleted).
void dirty_set_drop_object(struct dirty_set *s, struct object_id object);

// Finds a page. For DIRTY_PAGE `content_out` gets the content; the caller owns a reference to its
// page; its mask belongs to the set (valid while the caller holds the lock or the set is frozen).
enum dirty_state dirty_set_find(const struct dirty_set *s, struct object_id object,
    struct page_no page, struct dirty_page *content_out);

uint64_t dirty_set_pages(const struct dirty_set *s);
uint64_t dirty_set_object_pages(const struct dirty_set *s, struct object_id object);
// Bytes of pages in memory.
uint64_t dirty_set_resident_bytes(const struct dirty_set *s);
bool dirty_set_is_empty(const struct dirty_set *s);

// Lets go of the memory of pages that lie whole in the WAL below `flushed`, oldest first, until
// about `bytes` are free. Returns the number of freed bytes.
uint64_t dirty_set_evict(struct dirty_set *s, struct lsn flushed, uint64_t bytes);

// ---- walking ------------------------------------------------------------------------------------

// A run of pages [first, end).
struct page_extent {
    uint64_t first;
    uint64_t end;
};

// All objects with changes, in ascending order; the caller frees the array.
struct object_id *dirty_set_objects(const struct dirty_set *s, size_t *count_out);
// The first hole of an object that ends behind `page`; false: none does. Holes are disjoint and
// have pages between them. They may cover pages that were written afterwards: pages win. All of
// them:
//     for (uint64_t at = 0; dirty_set_next_hole(s, object, at, &hole); at = hole.end)
bool dirty_set_next_hole(const struct dirty_set *s, struct object_id object, uint64_t page,
    struct page_extent *hole_out);
// Calls `visit` for pages of the object in [first, end), in order. Nonzero ends the walk, which
// returns it.
typedef int dirty_set_visit(void *argument, struct page_no page, const struct dirty_page *content);
int dirty_set_walk(const struct dirty_set *s, struct object_id object, uint64_t first, uint64_t end,
    dirty_set_visit *visit, void *argument);

// The state of the page, and how many pages from it on have the same one (runs of DIRTY_PAGE may be
// cut short at `most`). One that goes on to the end of the object counts up to UINT64_MAX.
uint64_t dirty_set_run(const struct dirty_set *s, struct object_id object, uint64_t page,
    uint64_t most, enum dirty_state *state_out);

// ---- helpers for layers -------------------------------------------------------------------------

// Whether all bytes of the page are zero.
bool page_is_zero(const uint8_t data[PAGE_BYTES]);

// ---- checking -----------------------------------------------------------------------------------

// Asserts the invariants of the set. Walks all of it.
void dirty_set_check(const struct dirty_set *s);

#endif
