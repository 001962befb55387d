// SPDX-License-Identifier: Apache-2.0
// Reads pages out of chunks: finds in which image a page is, gets the frames it needs from
// LocalStore or by ranged reads from the RemoteStore (which are then kept), verifies and unpacks
// them. It repairs a damaged local copy from the store if that has the blob. Many readers of one
// range cause one fetch. A few threads of its own read ahead. Any thread; hold no locks.
#ifndef CKPTFS_CHUNK_CHUNK_READER_H
#define CKPTFS_CHUNK_CHUNK_READER_H

#include "base/compiler.h"
#include "base/types.h"
#include "cache/page.h"
#include "cache/part_heat.h"
#include "chunk/chunk_map.h"
#include "store/local_store.h"
#include "store/remote_store.h"

struct chunk_reader;

struct chunk_reader_options {
    struct chunk_map *map;
    struct local_store *local;
    struct remote_store *remote; // NULL: local only
    const char *tenant;
    uint32_t volume_number;
    uint64_t deadline_ms;   // longest wait of a fetch for the store when its call has no deadline
    struct part_heat *heat; // notes what programs read; may be NULL
};

struct chunk_reader *chunk_reader_new(const struct chunk_reader_options *options);
void chunk_reader_free(struct chunk_reader *r); // ends reading ahead

// Gets every page that the reader unpacked on the way, the requested ones among them, with its
// content as of the local generation. May keep a reference of its own.
typedef void chunk_page_sink(void *argument, struct page_no page, struct page *content);

// Fills pages_out[0 .. count) with references to the pages [first, first + count) of the object as
// of the local generation; NULL for a hole. -EIO when data cannot be had (logged), -EINTR when
// cancelled, -EREMOTE as above. On error the caller gets no references. -ESTALE: an image went away
// meanwhile; the caller looks again.
MUST_CHECK int chunk_reader_read(struct chunk_reader *r, struct object_id object,
    struct page_no first, size_t count, const struct remote_call *call, struct page **pages_out,
    chunk_page_sink *sink, void *sink_argument);

// The same, but the content of the pages goes to `out`, zeros for holes; on error `out` is
// undefined. The sink does not get pages of frames that are requested as a whole.
MUST_CHECK int chunk_reader_copy(struct chunk_reader *r, struct object_id object,
    struct page_no first, size_t count, const struct remote_call *call, uint8_t *out,
    chunk_page_sink *sink, void *sink_argument);

// Makes the reader's own threads fetch the pages [first, first + count), as far as they are not
// here, for a reader that will probably need them soon. Returns at once; failures show when the
// pages are read.
void chunk_reader_ahead(
    struct chunk_reader *r, struct object_id object, struct page_no first, uint64_t count);

// Fetches the pages [first, first + count), which lie in one chunk, as far as they are not here,
// and keeps them unverified. Adds to `bytes_out` what they take in their images. 0, also for pages
// that the local generation does not have; or an error as of chunk_reader_fetch, -EIO when an index
// cannot be had.
MUST_CHECK int chunk_reader_fetch_pages(struct chunk_reader *r, struct object_id object,
    struct page_no first, uint64_t count, const struct remote_call *call, uint64_t *bytes_out);

// Gets the bytes [offset, offset + n) of a blob that are not here from the store and keeps them.
// Unverified: their readers verify them. 0, also for a blob that is not in the store; -EDQUOT: the
// quota has no room; -EINTR when cancelled, -ETIMEDOUT; or the store's error.
MUST_CHECK int chunk_reader_fetch(struct chunk_reader *r, const struct blob_record *blob,
    uint64_t offset, uint64_t n, const struct remote_call *call);

// The index of an image, loaded if need be. Belongs to the layout.
MUST_CHECK int chunk_reader_index(struct chunk_reader *r, struct chunk_layout *layout, size_t image,
    const struct remote_call *call, const struct blob_index **index_out);

// Whether the page is a hole as of the local generation, and the number of pages from it on that
// are alike (to the end of the chunk at most, or without a chunk to the next one).
MUST_CHECK int chunk_reader_run(struct chunk_reader *r, struct object_id object,
    struct page_no page, const struct remote_call *call, bool *hole_out, uint64_t *count_out);

// The unpacked pages of one frame of an image.
MUST_CHECK int chunk_reader_frame(struct chunk_reader *r, struct chunk_layout *layout, size_t image,
    uint32_t frame, const struct remote_call *call, uint8_t out[BLOB_FRAME_BYTES]);

// Fetches what is not here of [offset, offset + n) of a blob, in large pieces, and keeps it for
// readers with local_only. It verifies nothing, and failures show when it is read.
void chunk_reader_get_range(struct chunk_reader *r, const struct blob_record *blob, uint64_t offset,
    uint64_t n, const struct remote_call *call);
// Verifies all frames of an image, fetches those that are not here or damaged, and keeps them for
// readers with local_only. 0; -EDQUOT: there was no room to keep all of it; or as above.
MUST_CHECK int chunk_reader_check_image(struct chunk_reader *r, struct chunk_layout *layout,
    size_t image, const struct remote_call *call);

struct chunk_reader_numbers {
    uint64_t local_frames, remote_frames, remote_bytes, repaired_frames, failed_reads;
    uint64_t overtakes; // readers that did not wait for a larger request with the same bytes
};
void chunk_reader_numbers(struct chunk_reader *r, struct chunk_reader_numbers *numbers_out);

#endif
