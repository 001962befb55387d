// SPDX-License-Identifier: Apache-2.0
// Extension areas: additions of later programs to a format, without a version of their own. An area
// is a row of items in rising order of their types, at most one of a type:
//
//     type      u16     EXTENSION_INCOMPATIBLE set: a reader that does not know it must refuse
//     reserved  u16     0
//     length    u32     of the value
//     value
//
// A reader passes over types that it does not know; a program that writes the record again passes
// them on unchanged. Pure.
#ifndef CKPTFS_FORMAT_EXTENSION_H
#define CKPTFS_FORMAT_EXTENSION_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/compiler.h"

#define EXTENSION_INCOMPATIBLE 0x8000u
#define EXTENSION_HEADER_BYTES 8u

struct extension {
    uint16_t type;
    uint32_t length;
    const uint8_t *value; // in the reader's bytes
};

// The caller appends in rising order of types.
void extension_append(struct buffer *out, uint16_t type, const void *value, uint32_t length);
// The next item: 1, 0 at the end, -EBADMSG. `last_type` is 0 before the first item, and updated.
MUST_CHECK int extension_next(
    struct byte_reader *r, uint16_t *last_type, struct extension *extension_out);
// The item of this type: 0; -ENOENT without one; -EBADMSG.
MUST_CHECK int extension_find(
    const void *area, size_t length, uint16_t type, struct extension *extension_out);
// The area with this item instead of the one of its type; with `length` 0 without one. The area is
// valid; `area_out` is cleared first.
void extension_replace(const void *area, size_t area_length, uint16_t type, const void *value,
    uint32_t length, struct buffer *area_out);
// Checks an area for a reader that knows none of its types: 0; -EBADMSG when it breaks the rules;
// -ENOTSUP when it has an incompatible item.
MUST_CHECK int extension_check(const void *area, size_t length);

#endif
