// SPDX-License-Identifier: Apache-2.0
// Merges two layers of dirty pages after a failed fold: the frozen one and the later one, so that
// the next fold works on both, at a newer cut. Not locked: the caller's lock protects both sets.
#ifndef CKPTFS_CACHE_DIRTY_MERGE_H
#define CKPTFS_CACHE_DIRTY_MERGE_H

#include "cache/dirty_set.h"

// A merge of a patch in the upper set with a page of the lower one needs the bytes of both in
// memory.
struct dirty_obstacle {
    struct object_id object;
    struct page_no page;
    struct dirty_set *set;     // the one whose page is in the log only
    struct dirty_page content; // of that page; the mask belongs to the set
};
bool dirty_merge_find_obstacle(
    struct dirty_set *lower, struct dirty_set *upper, struct dirty_obstacle *obstacle_out);

// Takes the upper set's holes and pages into the lower one, where they win. There must be no
// obstacle. The upper set stays as it is, for the caller to free.
void dirty_merge(struct dirty_set *lower, const struct dirty_set *upper);

#endif
