// SPDX-License-Identifier: Apache-2.0
#include "cache/dirty_merge.h"

#include <stdlib.h>
#include <string.h>

#include "platform/memory.h"

struct merge {
    struct dirty_set *lower;
    struct dirty_set *upper; // of the search for an obstacle
    struct object_id object;
    struct dirty_obstacle *obstacle;
};

static struct page_mask *
copy_mask(const struct page_mask *mask)
{
    if (!mask)
        return NULL;
    struct page_mask *copy = memory_alloc(sizeof(*copy));
    *copy = *mask;
    return copy;
}

// ---- obstacles ----------------------------------------------------------------------------------

static int
look_for_obstacle(void *argument, struct page_no page, const struct dirty_page *content)
{
    struct merge *m = argument;
    if (!content->mask)
        return 0;
    struct dirty_page below;
    if (dirty_set_find(m->lower, m->object, page, &below) != DIRTY_PAGE)
        return 0;
    page_put(below.page);
    if ((content->page && below.page) || dirty_page_is_lost(&below))
        return 0;
    *m->obstacle = (struct dirty_obstacle){
        .object = m->object,
        .page = page,
        .set = content->page ? m->lower : m->upper,
        .content = content->page ? below : *content,
    };
    return 1;
}

bool
dirty_merge_find_obstacle(
    struct dirty_set *lower, struct dirty_set *upper, struct dirty_obstacle *obstacle_out)
{
    struct merge m = {.lower = lower, .upper = upper, .obstacle = obstacle_out};
    size_t count;
    struct object_id *objects = dirty_set_objects(upper, &count);
    int found = 0;
    for (size_t i = 0; found == 0 && i < count; i++) {
        m.object = objects[i];
        found = dirty_set_walk(upper, objects[i], 0, UINT64_MAX, look_for_obstacle, &m);
    }
    free(objects);
    return found != 0;
}

// ---- merging ------------------------------------------------------------------------------------

// A patch over a page, both in memory: the known bytes are those of either.
static struct dirty_page
lay_over(const struct dirty_page *patch, const struct dirty_page *below)
{
    struct dirty_page merged = {.page = page_new(), .mask = copy_mask(below->mask)};
    memcpy(merged.page->data, below->page->data, PAGE_BYTES);
    page_mask_copy(patch->mask, merged.page->data, patch->page->data);
    if (!merged.mask)
        return merged;
    for (size_t i = 0; i < ARRAY_LENGTH(merged.mask->bits); i++)
        merged.mask->bits[i] |= patch->mask->bits[i];
    if (page_mask_is_full(merged.mask)) {
        free(merged.mask);
        merged.mask = NULL;
    }
    return merged;
}

// A patch over zeros is a whole page. One that is in the log only is one piece with zeros around.
static struct dirty_page
lay_over_zeros(const struct dirty_page *patch)
{
    struct dirty_page merged = *patch;
    merged.mask = NULL;
    if (!patch->page)
        return merged;
    merged.page = page_new();
    memset(merged.page->data, 0, PAGE_BYTES);
    page_mask_copy(patch->mask, merged.page->data, patch->page->data);
    return merged;
}

static int
merge_page(void *argument, struct page_no page, const struct dirty_page *content)
{
    struct merge *m = argument;
    struct dirty_page merged;
    struct dirty_page below = {0};
    enum dirty_state state = DIRTY_ABSENT;
    if (content->mask)
        state = dirty_set_find(m->lower, m->object, page, &below);
    if (state == DIRTY_PAGE && dirty_page_is_lost(&below))
        return 0; // a part of the page is of no use
    if (state == DIRTY_PAGE) {
        assert(content->page && below.page);
        merged = lay_over(content, &below);
    } else if (state == DIRTY_HOLE) {
        merged = lay_over_zeros(content);
    } else {
        merged = *content;
        merged.mask = copy_mask(content->mask);
        if (merged.page)
            page_get(merged.page);
    }
    page_put(below.page);
    dirty_set_put(m->lower, m->object, page, merged);
    return 0;
}

void
dirty_merge(struct dirty_set *lower, const struct dirty_set *upper)
{
    struct merge m = {.lower = lower};
    size_t count;
    struct object_id *objects = dirty_set_objects(upper, &count);
    for (size_t i = 0; i < count; i++) {
        m.object = objects[i];
        struct page_extent hole;
        for (uint64_t at = 0; dirty_set_next_hole(upper, objects[i], at, &hole); at = hole.end)
            dirty_set_discard(lower, objects[i], hole.first, hole.end);
        dirty_set_walk(upper, objects[i], 0, UINT64_MAX, merge_page, &m);
    }
    free(objects);
}
