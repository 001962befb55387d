// SPDX-License-Identifier: Apache-2.0
#include "format/extension.h"

#include <errno.h>

void
extension_append(struct buffer *out, uint16_t type, const void *value, uint32_t length)
{
    buffer_append_le16(out, type);
    buffer_append_le16(out, 0);
    buffer_append_le32(out, length);
    buffer_append(out, value, length);
}

// Types rise without the bit, so that an item has one place only.
static uint16_t
place_of(uint16_t type)
{
    return type & (uint16_t)~EXTENSION_INCOMPATIBLE;
}

int
extension_next(struct byte_reader *r, uint16_t *last_type, struct extension *extension_out)
{
    if (byte_reader_left(r) == 0)
        return 0;
    extension_out->type = read_le16(r);
    uint16_t reserved = read_le16(r);
    extension_out->length = read_le32(r);
    extension_out->value = read_bytes(r, extension_out->length);
    if (r->bad || reserved != 0 || place_of(extension_out->type) <= *last_type)
        return -EBADMSG;
    *last_type = place_of(extension_out->type);
    return 1;
}

int
extension_find(const void *area, size_t length, uint16_t type, struct extension *extension_out)
{
    struct byte_reader r = byte_reader_over(area, length);
    uint16_t last = 0;
    int rc;
    while ((rc = extension_next(&r, &last, extension_out)) > 0)
        if (extension_out->type == type)
            return 0;
    return rc < 0 ? rc : -ENOENT;
}

void
extension_replace(const void *area, size_t area_length, uint16_t type, const void *value,
    uint32_t length, struct buffer *area_out)
{
    struct byte_reader r = byte_reader_over(area, area_length);
    struct extension x;
    uint16_t last = 0;
    bool placed = length == 0;
    buffer_clear(area_out);
    while (extension_next(&r, &last, &x) > 0) {
        if (!placed && place_of(x.type) >= place_of(type)) {
            extension_append(area_out, type, value, length);
            placed = true;
        }
        if (place_of(x.type) != place_of(type))
            extension_append(area_out, x.type, x.value, x.length);
    }
    if (!placed)
        extension_append(area_out, type, value, length);
}

int
extension_check(const void *area, size_t length)
{
    struct byte_reader r = byte_reader_over(area, length);
    struct extension x;
    uint16_t last = 0;
    bool known = true;
    int rc;
    while ((rc = extension_next(&r, &last, &x)) > 0)
        known &= !(x.type & EXTENSION_INCOMPATIBLE);
    return rc < 0 ? rc : known ? 0 : -ENOTSUP;
}
