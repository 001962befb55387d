// SPDX-License-Identifier: Apache-2.0
// SEEK_DATA and SEEK_HOLE: layers and chunks walked in runs of pages that are alike.
#include "page/page_internal.h"

// Far enough that a sparse file of a terabyte takes few steps, short enough to hold the lock for.
#define LAYER_PAGES_MAX 4096u

// What the layers say about the pages from `page` on.
enum layer_answer { LAYERS_BELOW, LAYERS_DATA, LAYERS_HOLE };

static enum layer_answer
ask_layers_locked(struct page_store *ps, struct object_id object, uint64_t page)
{
    const struct dirty_set *sets[] = {ps->active, ps->frozen};
    for (unsigned i = 0; i < 2 && sets[i]; i++) {
        struct dirty_page found;
        enum dirty_state state = dirty_set_find(sets[i], object, (struct page_no){page}, &found);
        page_put(found.page);
        if (state != DIRTY_ABSENT)
            return state == DIRTY_PAGE ? LAYERS_DATA : LAYERS_HOLE;
    }
    return LAYERS_BELOW;
}

// How many pages from `page` on the layers answer alike, up to LAYER_PAGES_MAX.
static uint64_t
layer_run_locked(
    struct page_store *ps, struct object_id object, uint64_t page, enum layer_answer *answer)
{
    *answer = ask_layers_locked(ps, object, page);
    uint64_t untouched = dirty_set_next_change(ps->active, object, page);
    if (ps->frozen) {
        uint64_t other = dirty_set_next_change(ps->frozen, object, page);
        untouched = other < untouched ? other : untouched;
    }
    if (*answer == LAYERS_BELOW)
        return untouched - page;
    uint64_t n = 1;
    while (n < LAYER_PAGES_MAX && ask_layers_locked(ps, object, page + n) == *answer)
        n++;
    return n;
}

int
page_store_seek(struct page_store *ps, struct object_id object, uint64_t offset, uint64_t end,
    bool data, uint64_t *found_out)
{
    uint64_t page = offset / PAGE_BYTES;
    uint64_t pages = pages_of_bytes(end);
    while (page < pages) {
        enum layer_answer answer;
        lock_take(ps->lock);
        uint64_t run = layer_run_locked(ps, object, page, &answer);
        lock_release(ps->lock);
        bool hole = answer == LAYERS_HOLE;
        if (answer == LAYERS_BELOW) {
            uint64_t below;
            int rc =
                chunk_reader_run(ps->reader, object, (struct page_no){page}, NULL, &hole, &below);
            if (rc < 0)
                return rc;
            run = below < run ? below : run;
        }
        if (hole != data) {
            *found_out = page * PAGE_BYTES > offset ? page * PAGE_BYTES : offset;
            return 0;
        }
        page += run;
    }
    *found_out = end;
    return 0;
}
