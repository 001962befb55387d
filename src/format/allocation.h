// SPDX-License-Identifier: Apache-2.0
// The pages of a file that fallocate(2) has allocated: they count as blocks of it with or without
// data in them. They are an item of the inode's extension area, so they go where the inode goes:
// the log, the manifest, the bucket. An inode without allocated pages has no such item.
//
//     type 1, length 16 * count
//     count times:   first page u64, number of pages u64
//
// One to ALLOCATION_RANGES_MAX ranges in rising order that do not touch. When there would be more
// the two with the smallest gap between them become one: the item may say too much, and never too
// little. Pure.
#ifndef CKPTFS_FORMAT_ALLOCATION_H
#define CKPTFS_FORMAT_ALLOCATION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"

#define ALLOCATION_EXTENSION  1u // the item's type
#define ALLOCATION_RANGES_MAX 8u
#define ALLOCATION_BYTES_MAX  (8u + 16u * ALLOCATION_RANGES_MAX) // of an item

struct allocation_range {
    uint64_t first; // page
    uint64_t end;   // behind the last page
};

struct allocation {
    unsigned count;
    struct allocation_range ranges[ALLOCATION_RANGES_MAX];
};

// From an inode's extension area. Without an item: none. -EBADMSG.
MUST_CHECK int allocation_decode(
    const void *area, size_t length, struct allocation *allocation_out);
// The extension area with this instead of the item that it had; `area_out` is cleared first.
void allocation_replace(
    const void *area, size_t length, const struct allocation *allocation, struct buffer *area_out);

// Pages `first` to before `end`, which is above `first`.
void allocation_add(struct allocation *a, uint64_t first, uint64_t end);
void allocation_remove(struct allocation *a, uint64_t first, uint64_t end);
bool allocation_is_same(const struct allocation *a, const struct allocation *b);
// How many of the pages from `first` to before `end` are allocated.
uint64_t allocation_pages(const struct allocation *a, uint64_t first, uint64_t end);

#endif
