// SPDX-License-Identifier: Apache-2.0
// The blob format: the bytes of one image of a chunk's pages in a blob. An image is a base (the
// whole chunk: absent pages are zeros) or a delta (changed pages only: older images have the absent
// pages). A chunk or delta blob is one image; a pack blob is several images, each beginning at a
// multiple of 64 bytes. An image does not contain its place, so equal content gives equal bytes.
// Pure: bytes in, bytes out. Little-endian; prose and layout in doc/format.md.
//
//     header   64 bytes: magic, version, feature bits, kind, geometry, CRC-32C
//     frames   each a 16-byte frame header and up to FRAME_PAGES pages, lz4 or raw
//     index    frame lengths; runs of pages; byte ranges of patches
//     footer   64 bytes: magic, index position, image length, SHA-256 of all before it, CRC-32C
//
// Pages of an image are numbered within the chunk (0 .. CHUNK_PAGES - 1) and lie in that order.
// Every page is one of
//     data    a whole page in a slot of a frame
//     zero    a run without slots
//     patch   deltas only: a slot whose valid bytes are given as ranges; the others come from older
//             images. So a small write to a chunk that is not on this host needs no download.
#ifndef CKPTFS_FORMAT_BLOB_H
#define CKPTFS_FORMAT_BLOB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"

#define BLOB_VERSION      1u
#define BLOB_HEADER_BYTES 64u
#define BLOB_FOOTER_BYTES 64u
#define BLOB_FRAME_PAGES  16u // 64 KiB frames
#define BLOB_FRAME_HEADER 16u
#define BLOB_ALIGNMENT    64u // of images in a pack
#define BLOB_FRAME_BYTES  (BLOB_FRAME_PAGES * PAGE_BYTES)
// The longest stored frame: header and raw pages.
#define BLOB_FRAME_STORED_MAX (BLOB_FRAME_HEADER + BLOB_FRAME_BYTES)

enum blob_kind { BLOB_BASE = 1, BLOB_DELTA = 2 };

// Valid bytes of a patch: bit i of the map is byte i of the page.
struct page_mask {
    uint64_t bits[PAGE_BYTES / 64];
};

void page_mask_set(struct page_mask *m, uint32_t from, uint32_t to);
bool page_mask_is_full(const struct page_mask *m);
bool page_mask_is_empty(const struct page_mask *m);
// Copies the bytes of `from` that `mask` marks to `to`.
void page_mask_copy(const struct page_mask *mask, uint8_t *to, const uint8_t *from);

// ---- writing ------------------------------------------------------------------------------------

// Streams one image to a sink. One thread.
struct blob_writer;

// Takes the next bytes of the image, in order; 0 or -errno, which the writer passes on.
typedef int blob_sink(void *argument, const void *p, size_t n);

struct blob_writer *blob_writer_new(enum blob_kind kind, blob_sink *sink, void *argument);
void blob_writer_free(struct blob_writer *w); // NULL is fine

// Pages must come in rising order (-EINVAL). The writer stores a data page of zeros as zero. In a
// base it leaves out zero pages and refuses patches (-EINVAL). It makes a patch with a full mask a
// data page, and leaves out one with an empty mask. After an error of the sink all calls return
// that error.
MUST_CHECK int blob_writer_add_data(struct blob_writer *w, uint32_t page, const uint8_t *data);
MUST_CHECK int blob_writer_add_zero(struct blob_writer *w, uint32_t page, uint32_t count);
MUST_CHECK int blob_writer_add_patch(
    struct blob_writer *w, uint32_t page, const uint8_t *data, const struct page_mask *mask);

// The places of the image's parts, relative to its first byte.
struct blob_image_info {
    uint64_t image_bytes;  // whole image
    uint64_t index_offset; // index and footer follow each other: one read fetches both
    uint32_t index_bytes;
    uint32_t data_pages; // pages with a slot (data and patch)
    uint32_t zero_pages;
    struct sha256 hash; // of the whole image, footer included
};

// Writes index and footer. The caller may only free the writer after that.
MUST_CHECK int blob_writer_finish(struct blob_writer *w, struct blob_image_info *info_out);

// ---- reading ------------------------------------------------------------------------------------

// The index of one image: the place of each page. Immutable; any thread.
struct blob_index;

// Parses index and footer: `p` holds the image's bytes from index_offset to its end. Checks
// everything: -EBADMSG for a wrong checksum, magic, or impossible geometry; -ENOTSUP for
// incompatible feature bits or a newer version.
MUST_CHECK int blob_index_parse(
    const void *p, size_t n, uint64_t image_bytes, struct blob_index **index_out);
void blob_index_free(struct blob_index *index); // NULL is fine
enum blob_kind blob_index_kind(const struct blob_index *index);
size_t blob_index_memory(const struct blob_index *index);
uint32_t blob_index_data_pages(const struct blob_index *index);

enum blob_page_state { BLOB_PAGE_ABSENT, BLOB_PAGE_DATA, BLOB_PAGE_ZERO, BLOB_PAGE_PATCH };

struct blob_page {
    enum blob_page_state state;
    uint32_t first; // the run of pages with this state that holds the page asked for
    uint32_t count;
    uint32_t slot;  // of the page asked for (data and patch); frame = slot / BLOB_FRAME_PAGES
    uint32_t patch; // number of the patch (for blob_index_mask)
};

// Finds `page`. For BLOB_PAGE_ABSENT the run is the gap.
void blob_index_find(const struct blob_index *index, uint32_t page, struct blob_page *page_out);
void blob_index_mask(const struct blob_index *index, uint32_t patch, struct page_mask *mask_out);

// The place of frame number `frame`, relative to the image's first byte.
void blob_index_frame(
    const struct blob_index *index, uint32_t frame, uint64_t *offset_out, uint32_t *stored_out);
uint32_t blob_index_frames(const struct blob_index *index);

// Verifies the stored frame of `n` bytes and unpacks its pages to `out` (BLOB_FRAME_BYTES of room);
// `pages_out` is their number. -EBADMSG when anything is wrong, also for zeros, so that readers do
// not take a hole in a partial file for a frame.
MUST_CHECK int blob_frame_unpack(const void *p, size_t n, uint8_t *out, uint32_t *pages_out);

// Whether these are the header and the pages of a full frame that is stored as it is. A frame is
// that when it has a stored length of BLOB_FRAME_STORED_MAX.
bool blob_frame_is_raw(
    const uint8_t header[BLOB_FRAME_HEADER], const uint8_t pages[BLOB_FRAME_BYTES]);

// Checks a whole image in memory: header, frames, index, footer, SHA-256. For verification jobs,
// tests and fuzzing. -EBADMSG or -ENOTSUP as above.
MUST_CHECK int blob_image_check(const void *p, size_t n);

#endif
