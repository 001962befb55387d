// SPDX-License-Identifier: Apache-2.0
// Two layers of dirty pages become one: what a fold could not take is joined with what was written
// meanwhile, so that the next fold works on all of it, at a newer cut. Not locked: the caller's
// lock protects both sets.
#ifndef CKPTFS_CACHE_DIRTY_MERGE_H
#define CKPTFS_CACHE_DIRTY_MERGE_H

#include "cache/dirty_set.h"

// A patch in the upper set over a page of the lower one can be merged only when the bytes of both
// are in memory.
struct dirty_obstacle {
    struct object_id object;
    struct page_no page;
    struct dirty_set *set;     // whose page is in the log only
    struct dirty_page content; // of that page; the mask belongs to the set
};
bool dirty_merge_find_obstacle(
    struct dirty_set *lower, struct dirty_set *upper, struct dirty_obstacle *obstacle_out);

// Takes the upper set's holes and pages into the lower one, where they win. There must be no
// obstacle. The upper set stays as it is, for the caller to free.
void dirty_merge(struct dirty_set *lower, const struct dirty_set *upper);

#endif
