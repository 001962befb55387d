// SPDX-License-Identifier: Apache-2.0
// Which parts of files are in use: a table of fixed size that remembers the parts (1 MiB, see
// format/hot_set.h) that readers or checkpoints have used most often, as the source of the set of
// hot parts.
//
// A part has a level: in so many different seconds it was used, up to HOT_LEVEL_MAX. The table has
// sets of PART_HEAT_WAYS parts. A part that comes to a full set takes the place of one of level 1;
// if there is none, all in the set lose a level, and the newcomer has to come again. So a scan that
// reads everything once does not push out what is used again and again.
//
// Noting a part again in the same second reads a few words and takes no lock. Any thread.
#ifndef CKPTFS_CACHE_PART_HEAT_H
#define CKPTFS_CACHE_PART_HEAT_H

#include <stdint.h>

#include "base/types.h"
#include "format/hot_set.h"

#define PART_HEAT_WAYS 8u

struct part_heat;

struct part_heat *part_heat_new(void);
void part_heat_free(struct part_heat *h); // NULL is fine

// The pages [first, first + count) of an object are used, in this second of the monotonic clock.
void part_heat_note(struct part_heat *h, struct object_id object, struct page_no first,
    uint64_t count, uint64_t now_s);

// Parts that a set says were hot before, each with half of its level there. A part that the table
// has keeps its level.
void part_heat_recall(struct part_heat *h, const struct hot_set *set);
// All levels become half of what they are, and at least 1: what is used from now on weighs more.
void part_heat_cool(struct part_heat *h);

// Fills the runs of the set, which are settled. The caller frees the set.
void part_heat_list(struct part_heat *h, struct hot_set *set_out);

struct part_heat_numbers {
    uint64_t parts; // in the table
    uint64_t uses;  // that counted
};
void part_heat_numbers(struct part_heat *h, struct part_heat_numbers *numbers_out);

#endif
