// SPDX-License-Identifier: Apache-2.0
// Which parts of local copies are evicted first: SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi:
// "SIEVE is Simpler than LRU", NSDI 2024), over parts of PART_BYTES. Parts stand in a queue in the
// order in which they came and never move; a use sets a bit. A hand goes from the oldest part to
// the newest: it clears the bits that are set, and a part without one is the next to go. So a part
// that a scan brought goes when the hand first meets it, and a part that is used again stays.
//
// Recency takes 28 bytes of memory a part and some 100 a blob. Why this one, and how it compares:
// doc/eviction.md. Pure; not for concurrent use.
#ifndef CKPTFS_STORE_PART_SIEVE_H
#define CKPTFS_STORE_PART_SIEVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/types.h"
#include "format/part_list.h"

#define PART_BYTES PART_LIST_PART_BYTES

struct part_sieve;

struct part_sieve *part_sieve_new(void);
void part_sieve_free(struct part_sieve *s); // NULL is fine

// The part is here: it enters the queue as the newest one, unless it is there already.
void part_sieve_enter(struct part_sieve *s, const struct sha256 *blob, uint32_t part);
// The part is used: it enters, or if it is there it will be passed over once.
void part_sieve_use(struct part_sieve *s, const struct sha256 *blob, uint32_t part);
// Whether any part of the blob is in the queue.
bool part_sieve_has(const struct part_sieve *s, const struct sha256 *blob);
size_t part_sieve_count(const struct part_sieve *s);

// Moves the hand to the part that should go next, and past it: a part that the caller does not drop
// stays until the hand comes round again. False: the queue is empty.
MUST_CHECK bool part_sieve_next(struct part_sieve *s, struct sha256 *blob_out, uint32_t *part_out);
// The part has gone. How many of the blob are left.
uint32_t part_sieve_drop(struct part_sieve *s, const struct sha256 *blob, uint32_t part);
// All of its parts have gone.
void part_sieve_drop_blob(struct part_sieve *s, const struct sha256 *blob);

// Tells the parts from the oldest to the newest. Returns how many stand before the hand; all of
// them: the hand begins at the oldest again.
uint32_t part_sieve_list(const struct part_sieve *s, part_list_visit *visit, void *argument);
// Puts the hand at this part, which is in the queue.
void part_sieve_set_hand(struct part_sieve *s, const struct sha256 *blob, uint32_t part);

// Asserts that queue and blobs agree.
void part_sieve_check(const struct part_sieve *s);

#endif
