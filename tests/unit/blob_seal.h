// SPDX-License-Identifier: Apache-2.0
// Makes the checksums of a changed image right again, so that a test or a fuzzer gets past them to
// the checks behind. Knows the layout on its own, from doc/format.md.
#ifndef CKPTFS_TESTS_BLOB_SEAL_H
#define CKPTFS_TESTS_BLOB_SEAL_H

#include "base/bytes.h"
#include "base/checksum.h"

enum {
    SEAL_HEADER_BYTES = 64,
    SEAL_FOOTER_BYTES = 64,
    SEAL_INDEX_HEAD_BYTES = 40,
    SEAL_CRC_AT = 60,          // in header and footer
    SEAL_INDEX_CRC_AT = 12,    // in the footer, as are the following
    SEAL_INDEX_OFFSET_AT = 16, //
    SEAL_INDEX_BYTES_AT = 20,  //
    SEAL_IMAGE_BYTES_AT = 24,  //
    SEAL_SHA256_AT = 28,       //
    SEAL_FRAMES_AT = 12,       // in the index
    SEAL_FRAME_HEADER = 16,
};

// Header and frames: 64 bytes, then frames with the lengths that the index gives, as far as they
// lie in `[0, n)`.
static inline void
blob_seal_frames(uint8_t *p, size_t n, const uint8_t *index, size_t index_bytes)
{
    if (n < SEAL_HEADER_BYTES || index_bytes < SEAL_INDEX_HEAD_BYTES)
        return;
    put_le32(p + SEAL_CRC_AT, crc32c(0, p, SEAL_CRC_AT));
    size_t frames = get_le32(index + SEAL_FRAMES_AT);
    size_t at = SEAL_HEADER_BYTES;
    for (size_t i = 0; i < frames && SEAL_INDEX_HEAD_BYTES + 4 * i + 4 <= index_bytes; i++) {
        size_t stored = get_le32(index + SEAL_INDEX_HEAD_BYTES + 4 * i);
        if (stored < SEAL_FRAME_HEADER || stored > n - at)
            return;
        put_le32(p + at, crc32c(0, p + at + 4, stored - 4));
        at += stored;
    }
}

// All checksums of the image in `[p, p + n)`, whatever is in there.
static inline void
blob_seal(uint8_t *p, size_t n)
{
    if (n < SEAL_HEADER_BYTES + SEAL_FOOTER_BYTES)
        return;
    uint8_t *footer = p + n - SEAL_FOOTER_BYTES;
    size_t index_offset = get_le32(footer + SEAL_INDEX_OFFSET_AT);
    size_t index_bytes = get_le32(footer + SEAL_INDEX_BYTES_AT);
    if (index_offset <= n - SEAL_FOOTER_BYTES &&
        index_bytes <= n - SEAL_FOOTER_BYTES - index_offset) {
        const uint8_t *index = p + index_offset;
        blob_seal_frames(p, index_offset, index, index_bytes);
        put_le32(footer + SEAL_INDEX_CRC_AT, crc32c(0, index, index_bytes));
    }
    struct sha256 hash;
    sha256_of(p, n - SEAL_FOOTER_BYTES, &hash);
    memcpy(footer + SEAL_SHA256_AT, hash.b, sizeof(hash.b));
    put_le32(footer + SEAL_CRC_AT, crc32c(0, footer, SEAL_CRC_AT));
}

#endif
