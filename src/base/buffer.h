// SPDX-License-Identifier: Apache-2.0
// A growable run of bytes. Zero-initialise it, append to it, free it. Appending aborts the process
// when memory is exhausted (see platform/memory.h for the reason). Not for concurrent use.
#ifndef CKPTFS_BASE_BUFFER_H
#define CKPTFS_BASE_BUFFER_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct buffer {
    uint8_t *data;
    size_t length;
    size_t capacity;
};

void buffer_free(struct buffer *b);
// Empties the buffer and keeps its memory.
void buffer_clear(struct buffer *b);
// Room for `n` more bytes; returns where they begin. The length does not change.
uint8_t *buffer_reserve(struct buffer *b, size_t n);
// Extends the length by `n` bytes and returns where they begin; their content is undefined.
uint8_t *buffer_extend(struct buffer *b, size_t n);
void buffer_append(struct buffer *b, const void *p, size_t n);
void buffer_append_u8(struct buffer *b, uint8_t v);
void buffer_append_le16(struct buffer *b, uint16_t v);
void buffer_append_le32(struct buffer *b, uint32_t v);
void buffer_append_le64(struct buffer *b, uint64_t v);
void buffer_append_string(struct buffer *b, const char *s);
void buffer_printf(struct buffer *b, const char *format, ...) PRINTF_LIKE(2, 3);
// The bytes as a C string: ends them with a NUL that is not counted in the length.
const char *buffer_string(struct buffer *b);

#define BUFFER_AUTO CLEANUP(buffer_free) struct buffer

#endif
