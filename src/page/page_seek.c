// SPDX-License-Identifier: Apache-2.0
// SEEK_DATA and SEEK_HOLE: layers and chunks walked in runs of pages that are alike.
#include <errno.h>

#include "page/page_internal.h"

// The longest run of dirty pages that is counted under the lock.
#define RUN_PAGES_MAX 4096u

// The layers' answer for the pages from `page` on.
enum layer_answer { LAYERS_BELOW, LAYERS_DATA, LAYERS_HOLE };

// How many pages from `page` on the layers answer alike.
static uint64_t
layer_run_locked(
    struct page_store *ps, struct object_id object, uint64_t page, enum layer_answer *answer)
{
    static const enum layer_answer answers[] = {
        [DIRTY_ABSENT] = LAYERS_BELOW, [DIRTY_PAGE] = LAYERS_DATA, [DIRTY_HOLE] = LAYERS_HOLE};
    enum dirty_state state;
    uint64_t run = dirty_set_run(ps->active, object, page, RUN_PAGES_MAX, &state);
    if (state == DIRTY_ABSENT && ps->frozen) {
        uint64_t below = dirty_set_run(ps->frozen, object, page, RUN_PAGES_MAX, &state);
        run = below < run ? below : run;
    }
    *answer = answers[state];
    return run;
}

// The same for the chunks. An image may go away meanwhile, because a local generation took its
// place: then this looks again.
static int
chunk_run(struct page_store *ps, struct object_id object, uint64_t page,
    const struct remote_call *call, bool *hole_out, uint64_t *run_out)
{
    for (;;) {
        lock_take(ps->lock);
        uint64_t version = ps->version;
        lock_release(ps->lock);
        int rc =
            chunk_reader_run(ps->reader, object, (struct page_no){page}, call, hole_out, run_out);
        if (rc == 0)
            return 0;
        lock_take(ps->lock);
        bool moved = version != ps->version;
        lock_release(ps->lock);
        if (!moved)
            return rc == -ESTALE ? -EIO : rc;
    }
}

int
page_store_seek(struct page_store *ps, struct object_id object, uint64_t offset, uint64_t end,
    bool data, const struct remote_call *call, uint64_t *found_out)
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
            int rc = chunk_run(ps, object, page, call, &hole, &below);
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
