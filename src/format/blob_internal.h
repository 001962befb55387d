// SPDX-License-Identifier: Apache-2.0
// The layout of an image, field by field; see format/blob.h for the whole and doc/format.md for the
// reasons. All integers are little-endian. Positions count from the first byte of the image; an
// image is shorter than 4 GiB, so u32 holds them. Reserved bytes are zero, and a reader insists.
//
//     header, 64 bytes
//          0  u8[8]  magic "CKPTBLOB"
//          8  u16    version
//         10  u16    header length, 64
//         12  u32    compatible features: a reader may ignore bits that it does not know
//         16  u32    incompatible features: a reader refuses bits that it does not know
//         20  u16    kind: 1 base, 2 delta
//         22  u16    reserved
//         24  u32    page size, 4096
//         28  u32    pages of a full frame, 16
//         32  u8[16] id of the key that the frames are encrypted with: only together with the
//                    incompatible feature 1, which no program writes yet. Else reserved
//         48  u8[12] reserved
//         60  u32    CRC-32C of bytes 0 .. 59
//
//     frame, one after the other without gaps; all but the last hold 16 pages
//          0  u32    CRC-32C of bytes 4 .. stored length - 1
//          4  u32    stored length, this header included
//          8  u32    raw length: pages * 4096
//         12  u16    flags: 0 payload is the pages, 1 payload is one LZ4 block
//         14  u16    reserved
//         16         payload
//
//     index, right behind the frames
//          0  u32    compatible features   \.
//          4  u32    incompatible features  > as in the header
//          8  u16    kind                  /
//         10  u16    reserved
//         12  u32    frames
//         16  u32    runs
//         20  u32    patches
//         24  u32    ranges of all patches
//         28  u32    slots: data pages and patches
//         32  u32    zero pages
//         36  u32    reserved
//         40         stored length of each frame, u32
//                    runs, 8 bytes each: u16 first page, u16 pages, u16 state (1 data, 2 zero,
//                    3 patch), u16 first slot (0 for zero pages). In page order; they do not
//                    touch when their states are equal; slots are given out in page order.
//                    patches in slot order: u16 number of ranges, then a u16 first byte and a
//                    u16 end byte (exclusive) for each; in order; they do not touch; together
//                    they are not the whole page.
//
//     footer, 64 bytes, right behind the index
//          0  u8[8]  magic "CKPTFOOT"
//          8  u16    version
//         10  u16    footer length, 64
//         12  u32    CRC-32C of the index
//         16  u32    position of the index
//         20  u32    length of the index
//         24  u32    length of the image, footer included
//         28  u8[32] SHA-256 of all bytes before the footer
//         60  u32    CRC-32C of bytes 0 .. 59
//
// Magic, version and CRC of header and footer stay where they are in every version. Equal pages
// give equal images: each image has only one valid encoding (bytes of a patch's slot that are not
// valid are zero; a data page is never all zeros; a patch is never empty or full).
#ifndef CKPTFS_FORMAT_BLOB_INTERNAL_H
#define CKPTFS_FORMAT_BLOB_INTERNAL_H

#include "base/checksum.h"
#include "format/blob.h"

#define BLOB_HEADER_MAGIC "CKPTBLOB"
#define BLOB_FOOTER_MAGIC "CKPTFOOT"
#define BLOB_MAGIC_BYTES  8u
// Kept free for images whose frames are encrypted: this program refuses them.
#define BLOB_INCOMPATIBLE_ENCRYPTED 1u

enum blob_header_field {
    HEADER_MAGIC = 0,
    HEADER_VERSION = 8,
    HEADER_LENGTH = 10,
    HEADER_COMPATIBLE = 12,
    HEADER_INCOMPATIBLE = 16,
    HEADER_KIND = 20,
    HEADER_RESERVED_A = 22,
    HEADER_PAGE_BYTES = 24,
    HEADER_FRAME_PAGES = 28,
    HEADER_RESERVED_B = 32,
    HEADER_CRC = 60,
    HEADER_END = 64,
};

enum blob_frame_field {
    FRAME_CRC = 0,
    FRAME_STORED = 4,
    FRAME_RAW = 8,
    FRAME_FLAGS = 12,
    FRAME_RESERVED = 14,
    FRAME_PAYLOAD = 16,
};
#define FRAME_FLAG_LZ4 1u

enum blob_index_field {
    INDEX_COMPATIBLE = 0,
    INDEX_INCOMPATIBLE = 4,
    INDEX_KIND = 8,
    INDEX_RESERVED_A = 10,
    INDEX_FRAMES = 12,
    INDEX_RUNS = 16,
    INDEX_PATCHES = 20,
    INDEX_RANGES = 24,
    INDEX_SLOTS = 28,
    INDEX_ZERO_PAGES = 32,
    INDEX_RESERVED_B = 36,
    INDEX_HEAD_BYTES = 40,
};
#define INDEX_FRAME_BYTES 4u
#define INDEX_RUN_BYTES   8u
#define INDEX_PATCH_BYTES 2u // and its ranges
#define INDEX_RANGE_BYTES 4u

enum blob_footer_field {
    FOOTER_MAGIC = 0,
    FOOTER_VERSION = 8,
    FOOTER_LENGTH = 10,
    FOOTER_INDEX_CRC = 12,
    FOOTER_INDEX_OFFSET = 16,
    FOOTER_INDEX_BYTES = 20,
    FOOTER_IMAGE_BYTES = 24,
    FOOTER_SHA256 = 28,
    FOOTER_CRC = 60,
    FOOTER_END = 64,
};

// Bits of this version.
#define BLOB_COMPATIBLE_FEATURES   0u
#define BLOB_INCOMPATIBLE_FEATURES 0u

// A patch has at most every second byte as a range of its own.
#define PATCH_RANGES_MAX (PAGE_BYTES / 2)
#define FRAMES_MAX       (CHUNK_PAGES / BLOB_FRAME_PAGES)
// No run is adjacent to one of its own state, but runs of different states may be.
#define RUNS_MAX CHUNK_PAGES
#define INDEX_MAX                                                                                  \
    ((uint64_t)INDEX_HEAD_BYTES + FRAMES_MAX * INDEX_FRAME_BYTES + RUNS_MAX * INDEX_RUN_BYTES +    \
        CHUNK_PAGES * (INDEX_PATCH_BYTES + PATCH_RANGES_MAX * (uint64_t)INDEX_RANGE_BYTES))

_Static_assert(sizeof(BLOB_HEADER_MAGIC) - 1 == BLOB_MAGIC_BYTES, "magic");
_Static_assert(sizeof(BLOB_FOOTER_MAGIC) - 1 == BLOB_MAGIC_BYTES, "magic");
_Static_assert(HEADER_END == BLOB_HEADER_BYTES && HEADER_CRC + 4 == HEADER_END, "header");
_Static_assert(FOOTER_END == BLOB_FOOTER_BYTES && FOOTER_CRC + 4 == FOOTER_END, "footer");
_Static_assert(FOOTER_SHA256 + sizeof(struct sha256) == FOOTER_CRC, "footer");
_Static_assert(FRAME_PAYLOAD == BLOB_FRAME_HEADER, "frame header");
_Static_assert(INDEX_RESERVED_B + 4 == INDEX_HEAD_BYTES, "index head");
_Static_assert(CHUNK_PAGES % BLOB_FRAME_PAGES == 0 && CHUNK_PAGES < UINT16_MAX, "page numbers");
_Static_assert(PAGE_BYTES <= UINT16_MAX && PATCH_RANGES_MAX <= UINT16_MAX, "ranges");
_Static_assert(BLOB_HEADER_BYTES + (uint64_t)FRAMES_MAX * BLOB_FRAME_STORED_MAX + INDEX_MAX +
                       BLOB_FOOTER_BYTES <=
                   UINT32_MAX,
    "positions are u32");
// The states of runs on disk are those of enum blob_page_state.
_Static_assert(BLOB_PAGE_DATA == 1 && BLOB_PAGE_ZERO == 2 && BLOB_PAGE_PATCH == 3, "states");

struct blob_footer {
    uint32_t index_crc;
    uint32_t index_offset;
    uint32_t index_bytes;
    uint32_t image_bytes;
    struct sha256 hash;
};

// Reads the footer at `p` (BLOB_FOOTER_BYTES). Errors as blob_index_parse.
MUST_CHECK int blob_footer_parse(const uint8_t *p, struct blob_footer *footer_out);

// The number of pages in frame `frame` of an image with `slots` slots.
static inline uint32_t
blob_frame_pages(uint32_t slots, uint32_t frame)
{
    uint32_t left = slots - frame * BLOB_FRAME_PAGES;
    return left < BLOB_FRAME_PAGES ? left : BLOB_FRAME_PAGES;
}

// Packs the `pages` pages that lie BLOB_FRAME_HEADER bytes behind `frame`; returns the stored
// length. The stored bytes are in `room` (BLOB_FRAME_STORED_MAX) or, when they do not compress, in
// `frame`.
MUST_CHECK uint32_t blob_frame_pack(
    uint8_t *frame, uint32_t pages, uint8_t *room, const uint8_t **stored_out);

// The first run of set bits at or after bit `at`; false when there is none.
bool page_mask_next_range(
    const struct page_mask *m, uint32_t at, uint32_t *from_out, uint32_t *to_out);

bool blob_bytes_are_zero(const uint8_t *p, size_t n);

#endif
