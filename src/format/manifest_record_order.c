// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "base/bytes.h"
#include "format/manifest_record_internal.h"

void
record_order_free(struct record_order *o)
{
    buffer_free(&o->last);
    buffer_free(&o->first);
    buffer_free(&o->key);
    buffer_free(&o->index);
}

void
record_order_reset(struct record_order *o)
{
    o->kinds = 0;
    o->kind = 0;
    buffer_clear(&o->last);
    buffer_clear(&o->first);
    buffer_clear(&o->index);
}

static bool
is_below(const struct buffer *a, const struct buffer *b)
{
    size_t n = a->length < b->length ? a->length : b->length;
    int order = n > 0 ? memcmp(a->data, b->data, n) : 0;
    return order != 0 ? order < 0 : a->length < b->length;
}

bool
record_order_take(struct record_order *o, const struct change *c, bool begins)
{
    uint8_t kind = (uint8_t)c->kind;
    buffer_clear(&o->key);
    change_key(c, &o->key);
    if (kind == o->kind) {
        if (!is_below(&o->last, &o->key))
            return false;
    } else if (!begins || (o->kinds & 1u << kind)) {
        return false;
    }
    o->kind = kind;
    o->kinds |= 1u << kind;
    if (begins) {
        buffer_clear(&o->first);
        buffer_append(&o->first, o->key.data, o->key.length);
    }
    buffer_clear(&o->last);
    buffer_append(&o->last, o->key.data, o->key.length);
    return true;
}

void
record_order_close(struct record_order *o, uint64_t offset, uint32_t stored_bytes, uint32_t changes)
{
    buffer_append_u8(&o->index, o->kind);
    buffer_append_u8(&o->index, 0);
    buffer_append_le16(&o->index, (uint16_t)o->first.length);
    buffer_append_le32(&o->index, stored_bytes);
    buffer_append_le64(&o->index, offset);
    buffer_append_le32(&o->index, changes);
    buffer_append(&o->index, o->first.data, o->first.length);
}
