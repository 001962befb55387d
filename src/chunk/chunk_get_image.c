// SPDX-License-Identifier: Apache-2.0
// Fetching for readers that come later and must not ask the store.
#include <errno.h>

#include "chunk/chunk_internal.h"
#include "platform/memory.h"

// One GET asks for so much at most.
#define GET_BYTES (8u << 20)

void
chunk_reader_get_range(struct chunk_reader *r, const struct blob_record *blob, uint64_t offset,
    uint64_t n, const struct remote_call *call)
{
    uint64_t end = offset + n;
    while (offset < end && !remote_call_is_canceled(call)) {
        uint64_t part = end - offset < GET_BYTES ? end - offset : GET_BYTES;
        chunk_fetch_ahead(r, blob, offset, part, call);
        offset += part;
    }
}

int
chunk_reader_check_image(struct chunk_reader *r, struct chunk_layout *layout, size_t image,
    const struct remote_call *call)
{
    struct chunk_image *im = &layout->images[image];
    uint64_t from = im->where.offset;
    uint64_t to = from + im->where.length;
    const struct blob_index *index;
    int rc = chunk_reader_index(r, layout, image, call, &index);
    CLEANUP(memory_free_auto) uint8_t *frame = memory_alloc(BLOB_FRAME_BYTES);
    for (uint32_t i = 0; rc == 0 && i < blob_index_frames(index); i++) {
        rc = chunk_reader_frame(r, layout, image, i, call, frame);
        if (rc == 0 && remote_call_is_canceled(call))
            rc = -EINTR;
    }
    if (rc == 0 && local_store_find_hole(r->local, &im->blob.hash, from, to) < to)
        rc = -EDQUOT; // hot_cache had no room to keep it
    return rc;
}
