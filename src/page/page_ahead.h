// SPDX-License-Identifier: Apache-2.0
// Which pages a reader will probably want next. Pure but for the table's memory; the caller brings
// lock and time.
//
// Streams: a read that goes on where one of the last reads of its object ended (forward), that ends
// where one began (backward), or that repeats the distance between the last two (strided) belongs
// to a stream. Windows of a stream double each time half of one is read, and end with it: a random
// reader gets none. An object can have PAGE_AHEAD_WAYS streams at once.
//
// Regions: a random reader that misses several times in one chunk within some seconds gets the
// neighbourhood of each further miss there.
#ifndef CKPTFS_PAGE_PAGE_AHEAD_H
#define CKPTFS_PAGE_PAGE_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/types.h"
#include "store/fetch_options.h"

#define PAGE_AHEAD_MIN_PAGES  256u
#define PAGE_AHEAD_MAX_PAGES  4096u
#define PAGE_AHEAD_STRIDES    16u // reads ahead of a strided reader, at most
#define PAGE_AHEAD_SETS       16u
#define PAGE_AHEAD_WAYS       4u
#define PAGE_AHEAD_REGIONS    64u
#define PAGE_AHEAD_MISSES     3u
#define PAGE_AHEAD_BLOCK      1024u // pages of a neighbourhood
#define PAGE_AHEAD_MEMORY_MS  10000u
#define PAGE_AHEAD_RANGES_MAX PAGE_AHEAD_STRIDES

struct page_range {
    uint64_t first;
    uint64_t count;
};

enum page_direction { PAGE_UNKNOWN, PAGE_FORWARD, PAGE_BACKWARD, PAGE_STRIDED };

struct page_stream {
    struct object_id object;
    uint64_t first; // of the last read
    uint64_t end;
    int64_t stride; // from the last read but one to the last
    enum page_direction direction;
    uint64_t ahead;  // forward: the end of the pages that were asked for ahead; backward: the first
    uint32_t window; // pages; strided: reads
    uint64_t used;   // the table's count then
};

struct page_region {
    struct object_id object;
    uint64_t chunk;
    uint64_t since_ms;
    unsigned misses;
};

struct page_ahead {
    struct page_stream streams[PAGE_AHEAD_SETS][PAGE_AHEAD_WAYS];
    struct page_region regions[PAGE_AHEAD_REGIONS];
    uint64_t count; // of reads
};

// Notes a read of the pages [first, end). Returns how many ranges to fetch ahead, in `ranges_out`,
// in the order in which they will be wanted.
unsigned page_ahead_note(struct page_ahead *a, struct object_id object, uint64_t first,
    uint64_t end, enum prefetch_hint hint, struct page_range ranges_out[PAGE_AHEAD_RANGES_MAX]);
// Notes that the same read needs the store. Returns 1 and a range, or 0.
unsigned page_ahead_note_miss(struct page_ahead *a, struct object_id object, uint64_t first,
    uint64_t end, uint64_t now_ms, struct page_range *range_out);

// Whether the read that was noted belongs to no stream.
bool page_ahead_is_random(
    const struct page_ahead *a, struct object_id object, uint64_t first, uint64_t end);

// Asserts the invariants of the table.
void page_ahead_check(const struct page_ahead *a);

#endif
