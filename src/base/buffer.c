// SPDX-License-Identifier: Apache-2.0
#include "base/buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

void
buffer_free(struct buffer *b)
{
    if (!b)
        return;
    free(b->data);
    *b = (struct buffer){0};
}

void
buffer_clear(struct buffer *b)
{
    b->length = 0;
}

uint8_t *
buffer_reserve(struct buffer *b, size_t n)
{
    if (n > SIZE_MAX / 2 - b->length)
        abort();
    if (b->length + n > b->capacity) {
        size_t capacity = b->capacity ? b->capacity : 64;
        while (capacity < b->length + n)
            capacity *= 2;
        uint8_t *data = realloc(b->data, capacity);
        if (!data)
            abort();
        b->data = data;
        b->capacity = capacity;
    }
    // A buffer that never had room for anything has no memory, to which C adds not even 0.
    return b->data ? b->data + b->length : NULL;
}

uint8_t *
buffer_extend(struct buffer *b, size_t n)
{
    uint8_t *p = buffer_reserve(b, n);
    b->length += n;
    return p;
}

void
buffer_append(struct buffer *b, const void *p, size_t n)
{
    if (n > 0)
        memcpy(buffer_extend(b, n), p, n);
}

void
buffer_append_u8(struct buffer *b, uint8_t v)
{
    *buffer_extend(b, 1) = v;
}

void
buffer_append_le16(struct buffer *b, uint16_t v)
{
    put_le16(buffer_extend(b, 2), v);
}

void
buffer_append_le32(struct buffer *b, uint32_t v)
{
    put_le32(buffer_extend(b, 4), v);
}

void
buffer_append_le64(struct buffer *b, uint64_t v)
{
    put_le64(buffer_extend(b, 8), v);
}

void
buffer_append_string(struct buffer *b, const char *s)
{
    buffer_append(b, s, strlen(s));
}

void
buffer_printf(struct buffer *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        abort();
    char *p = (char *)buffer_reserve(b, (size_t)n + 1);
    va_start(args, format);
    vsnprintf(p, (size_t)n + 1, format, args);
    va_end(args);
    b->length += (size_t)n;
}

const char *
buffer_string(struct buffer *b)
{
    *buffer_reserve(b, 1) = 0;
    return (const char *)b->data;
}
