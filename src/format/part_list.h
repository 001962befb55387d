// SPDX-License-Identifier: Apache-2.0
// A list of parts of blobs, in an order that means something to its reader: in the file `recency`
// of hot_cache, the order in which the parts came. One after the other:
//
//     0   u64   magic "CKPTPART"
//     8   u16   version 1
//     10  u16   flags: none yet. A reader refuses what it does not know
//     12  u32   bytes of a part: PART_LIST_PART_BYTES
//     16  u32   number of blobs
//     20  u32   number of runs
//     24  u32   the hand: so many parts stand before it; the number of parts: there is none
//     28  u32   0
//     32        blobs: SHA-256, 32 bytes each
//               runs, 16 bytes each: parts that follow each other in the list and in the blob
//                   0   u32   the blob, as an index
//                   4   u32   the first part
//                   8   u16   how many parts, 1 to 32
//                   10  u16   0
//                   12  u32   bit i: part first + i was used since the hand last passed it
//               u32   CRC-32C of all bytes before
//
// Little-endian. A part may stand in the list more than once; its first place counts. Pure; not for
// concurrent use.
#ifndef CKPTFS_FORMAT_PART_LIST_H
#define CKPTFS_FORMAT_PART_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"

#define PART_LIST_MAGIC      UINT64_C(0x5452415054504b43) // "CKPTPART"
#define PART_LIST_VERSION    1u
#define PART_LIST_PART_BYTES (1u << 20)

struct part_list;

struct part_list *part_list_new(void);
void part_list_free(struct part_list *l); // NULL is fine

void part_list_append(struct part_list *l, const struct sha256 *blob, uint32_t part, bool used);
// Parts in the list.
uint32_t part_list_count(const struct part_list *l);
// Appends the bytes. `hand` is at most the number of parts.
void part_list_encode(const struct part_list *l, uint32_t hand, struct buffer *out);

typedef void part_list_visit(void *argument, const struct sha256 *blob, uint32_t part, bool used);
// Checks the bytes, and then tells the parts in their order: 0; -EBADMSG when they do not hold
// together; -ENOTSUP when a newer program wrote them. Nothing was told then. The numbers of parts
// are as they are in the list: the caller knows how long a blob is.
MUST_CHECK int part_list_decode(
    const void *p, size_t n, uint32_t *hand_out, part_list_visit *visit, void *argument);

#endif
