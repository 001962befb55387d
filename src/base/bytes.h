// SPDX-License-Identifier: Apache-2.0
// Explicit byte order: accessors for integers of disk and wire formats, and a bounded reader for
// bytes from outside.
#ifndef CKPTFS_BASE_BYTES_H
#define CKPTFS_BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/compiler.h"

#define BYTES_ACCESSORS(bits, order, conv)                                                         \
    static inline uint##bits##_t get_##order##bits(const void *p)                                  \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof(v));                                                                  \
        return order##bits##toh(v);                                                                \
    }                                                                                              \
    static inline void put_##order##bits(void *p, uint##bits##_t v)                                \
    {                                                                                              \
        v = conv(v);                                                                               \
        memcpy(p, &v, sizeof(v));                                                                  \
    }
BYTES_ACCESSORS(16, le, htole16)
BYTES_ACCESSORS(32, le, htole32)
BYTES_ACCESSORS(64, le, htole64)
BYTES_ACCESSORS(16, be, htobe16)
BYTES_ACCESSORS(32, be, htobe32)
BYTES_ACCESSORS(64, be, htobe64)
#undef BYTES_ACCESSORS

// Reads forward through `[next, end)`. A read past the end yields zero and sets `bad`, which stays
// set: a decoder reads everything and checks `bad` once.
struct byte_reader {
    const uint8_t *next;
    const uint8_t *end;
    bool bad;
};

static inline struct byte_reader
byte_reader_over(const void *p, size_t length)
{
    // Nothing may be at NULL, to which C adds not even 0.
    return (struct byte_reader){p, length > 0 ? (const uint8_t *)p + length : p, false};
}

static inline size_t
byte_reader_left(const struct byte_reader *r)
{
    return (size_t)(r->end - r->next);
}

// The next `n` bytes in place, or NULL.
static inline const uint8_t *
read_bytes(struct byte_reader *r, size_t n)
{
    if (r->bad || byte_reader_left(r) < n) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *p = r->next;
    r->next += n;
    return p;
}

static inline uint8_t
read_u8(struct byte_reader *r)
{
    const uint8_t *p = read_bytes(r, 1);
    return p ? *p : 0;
}

static inline uint16_t
read_le16(struct byte_reader *r)
{
    const uint8_t *p = read_bytes(r, 2);
    return p ? get_le16(p) : 0;
}

static inline uint32_t
read_le32(struct byte_reader *r)
{
    const uint8_t *p = read_bytes(r, 4);
    return p ? get_le32(p) : 0;
}

static inline uint64_t
read_le64(struct byte_reader *r)
{
    const uint8_t *p = read_bytes(r, 8);
    return p ? get_le64(p) : 0;
}

// Copies the next `n` bytes to `out`, zeros when they are not there.
static inline void
read_copy(struct byte_reader *r, void *out, size_t n)
{
    const uint8_t *p = read_bytes(r, n);
    if (p)
        memcpy(out, p, n);
    else
        memset(out, 0, n);
}

#endif
