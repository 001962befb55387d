// SPDX-License-Identifier: Apache-2.0
#include "format/parent.h"

#include <errno.h>

#include "base/bytes.h"
#include "format/extension.h"

#define PARENT_BYTES 8u

int
parent_decode(const void *area, size_t length, struct object_id *parent_out)
{
    struct extension x;
    int rc = extension_find(area, length, PARENT_EXTENSION, &x);
    if (rc < 0)
        return rc;
    if (x.length != PARENT_BYTES)
        return -EBADMSG;
    parent_out->v = get_le64(x.value);
    return parent_out->v != 0 ? 0 : -EBADMSG;
}

void
parent_replace(const void *area, size_t length, struct object_id parent, struct buffer *area_out)
{
    uint8_t value[PARENT_BYTES];
    put_le64(value, parent.v);
    extension_replace(area, length, PARENT_EXTENSION, value, sizeof(value), area_out);
}
