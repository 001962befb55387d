// SPDX-License-Identifier: Apache-2.0
// One frame: pages to stored bytes and back.
#include <errno.h>

#include "base/bytes.h"
#include "format/blob_internal.h"
#include "format/compress.h"

// Compression must save at least this part of a frame: less is not worth unpacking on every read.
#define COMPRESS_MARGIN 8u

static uint32_t
frame_crc(const uint8_t *p, uint32_t stored)
{
    return crc32c(0, p + FRAME_STORED, stored - FRAME_STORED);
}

uint32_t
blob_frame_pack(uint8_t *frame, uint32_t pages, uint8_t *room, const uint8_t **stored_out)
{
    assert(pages > 0 && pages <= BLOB_FRAME_PAGES);
    uint32_t raw = pages * PAGE_BYTES;
    uint32_t most = raw - raw / COMPRESS_MARGIN;
    uint8_t *out = room;
    uint32_t flags = FRAME_FLAG_LZ4;
    uint32_t length =
        (uint32_t)compress_block(frame + FRAME_PAYLOAD, raw, room + FRAME_PAYLOAD, most);
    if (length == 0) {
        out = frame;
        flags = 0;
        length = raw;
    }
    uint32_t stored = FRAME_PAYLOAD + length;
    put_le32(out + FRAME_STORED, stored);
    put_le32(out + FRAME_RAW, raw);
    put_le16(out + FRAME_FLAGS, (uint16_t)flags);
    put_le16(out + FRAME_RESERVED, 0);
    put_le32(out + FRAME_CRC, frame_crc(out, stored));
    *stored_out = out;
    return stored;
}

int
blob_frame_unpack(const void *p, size_t n, uint8_t *out, uint32_t *pages_out)
{
    const uint8_t *b = p;
    *pages_out = 0;
    if (n <= FRAME_PAYLOAD || n > BLOB_FRAME_STORED_MAX || get_le32(b + FRAME_STORED) != n)
        return -EBADMSG;
    if (get_le32(b + FRAME_CRC) != frame_crc(b, (uint32_t)n))
        return -EBADMSG;
    uint32_t raw = get_le32(b + FRAME_RAW);
    uint32_t flags = get_le16(b + FRAME_FLAGS);
    if (raw == 0 || raw > BLOB_FRAME_BYTES || raw % PAGE_BYTES != 0)
        return -EBADMSG;
    if (flags > FRAME_FLAG_LZ4 || get_le16(b + FRAME_RESERVED) != 0)
        return -EBADMSG;
    size_t length = n - FRAME_PAYLOAD;
    if (flags == 0) {
        if (length != raw)
            return -EBADMSG;
        memcpy(out, b + FRAME_PAYLOAD, raw);
    } else if (length >= raw || !decompress_block(b + FRAME_PAYLOAD, length, out, raw)) {
        return -EBADMSG;
    }
    *pages_out = raw / PAGE_BYTES;
    return 0;
}

bool
blob_frame_is_raw(const uint8_t header[BLOB_FRAME_HEADER], const uint8_t pages[BLOB_FRAME_BYTES])
{
    if (get_le32(header + FRAME_STORED) != BLOB_FRAME_STORED_MAX ||
        get_le32(header + FRAME_RAW) != BLOB_FRAME_BYTES || get_le16(header + FRAME_FLAGS) != 0 ||
        get_le16(header + FRAME_RESERVED) != 0)
        return false;
    uint32_t crc = crc32c(0, header + FRAME_STORED, BLOB_FRAME_HEADER - FRAME_STORED);
    return get_le32(header + FRAME_CRC) == crc32c(crc, pages, BLOB_FRAME_BYTES);
}

bool
blob_bytes_are_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}
