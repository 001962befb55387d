// SPDX-License-Identifier: Apache-2.0
#include "format/fetch_mark.h"

#include "format/extension.h"

uint8_t
fetch_mark_decode(const void *area, size_t length)
{
    struct extension x;
    if (extension_find(area, length, FETCH_MARK_EXTENSION, &x) < 0 || x.length == 0)
        return 0;
    return x.value[0];
}

void
fetch_mark_replace(const void *area, size_t length, uint8_t mark, struct buffer *area_out)
{
    extension_replace(
        area, length, FETCH_MARK_EXTENSION, &mark, mark != 0 ? sizeof(mark) : 0, area_out);
}
