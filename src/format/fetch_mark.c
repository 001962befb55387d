// SPDX-License-Identifier: Apache-2.0
#include "format/fetch_mark.h"

#include "format/extension.h"

// An item without bytes marks nothing.
static bool
find(const void *area, size_t length, struct extension *x)
{
    return extension_find(area, length, FETCH_MARK_EXTENSION, x) == 0 && x->length > 0;
}

uint8_t
fetch_mark_decode(const void *area, size_t length)
{
    struct extension x;
    return find(area, length, &x) ? x.value[0] : 0;
}

void
fetch_mark_change(
    const void *area, size_t length, uint8_t set, uint8_t cleared, struct buffer *area_out)
{
    BUFFER_AUTO value = {0};
    struct extension x;
    bool any = false;
    if (find(area, length, &x))
        buffer_append(&value, x.value, x.length);
    else
        buffer_append_u8(&value, 0);
    value.data[0] = (uint8_t)((value.data[0] & ~cleared) | set);
    for (size_t i = 0; i < value.length; i++)
        any |= value.data[i] != 0;
    extension_replace(
        area, length, FETCH_MARK_EXTENSION, value.data, any ? (uint32_t)value.length : 0, area_out);
}

void
fetch_mark_inherit(const void *parent, size_t parent_length, const void *area, size_t length,
    struct buffer *area_out)
{
    struct extension x;
    bool any = find(parent, parent_length, &x);
    extension_replace(
        area, length, FETCH_MARK_EXTENSION, any ? x.value : NULL, any ? x.length : 0, area_out);
}
