// SPDX-License-Identifier: Apache-2.0
// Reading ahead: fetching pages that a reader is about to want from the store. The bytes go into
// LocalStore; a reader that comes earlier waits for the flight.
#include <assert.h>
#include <stdlib.h>

#include "chunk/chunk_internal.h"
#include "platform/memory.h"

// The frames of one image that hold some of the pages wanted.
struct span {
    uint64_t from;
    uint64_t to; // 0: none
};

static void
widen(struct span *s, const struct blob_index *index, uint32_t slot)
{
    uint64_t from;
    uint32_t stored;
    blob_index_frame(index, slot / BLOB_FRAME_PAGES, &from, &stored);
    if (s->to == 0 || from < s->from)
        s->from = from;
    if (from + stored > s->to)
        s->to = from + stored;
}

// From the newest image to the oldest, as reading does.
static int
add_page(struct chunk_reader *r, struct chunk_layout *layout, uint32_t page,
    const struct remote_call *call, struct span *spans)
{
    for (size_t i = 0; i < layout->image_count; i++) {
        const struct blob_index *index;
        int rc = chunk_index_get(r, layout, i, call, NULL, &index);
        if (rc < 0)
            return rc;
        struct blob_page p;
        blob_index_find(index, page, &p);
        if (p.state == BLOB_PAGE_DATA || p.state == BLOB_PAGE_PATCH)
            widen(&spans[i], index, p.slot);
        if (p.state == BLOB_PAGE_DATA || p.state == BLOB_PAGE_ZERO)
            break;
    }
    return 0;
}

int
chunk_fetch_pages(struct chunk_reader *r, struct chunk_layout *layout, uint32_t first,
    uint32_t count, const struct remote_call *call, uint64_t *bytes)
{
    CLEANUP(memory_free_auto)
    struct span *spans = memory_alloc_zero(layout->image_count * sizeof(*spans));
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = add_page(r, layout, first + i, call, spans);
    for (size_t i = 0; rc == 0 && i < layout->image_count; i++) {
        const struct chunk_image *image = &layout->images[i];
        uint64_t n = spans[i].to - spans[i].from;
        if (spans[i].to == 0)
            continue;
        *bytes += n;
        rc = chunk_reader_fetch(r, &image->blob, image->where.offset + spans[i].from, n, call);
    }
    return rc;
}

int
chunk_reader_fetch_pages(struct chunk_reader *r, struct object_id object, struct page_no first,
    uint64_t count, const struct remote_call *call, uint64_t *bytes_out)
{
    struct chunk_layout *layout;
    assert(count <= CHUNK_PAGES - page_in_chunk(first));
    int rc = chunk_map_get(r->map, object, chunk_of_page(first), &layout);
    if (rc < 0 || !layout)
        return rc;
    rc = chunk_fetch_pages(r, layout, page_in_chunk(first), (uint32_t)count, call, bytes_out);
    chunk_layout_put(r->map, layout);
    return rc;
}
