// SPDX-License-Identifier: Apache-2.0
// Golden files in hexadecimal, in GOLDEN_DIRECTORY. Include after unit.h.
#ifndef CKPTFS_TESTS_GOLDEN_H
#define CKPTFS_TESTS_GOLDEN_H

#include "base/buffer.h"
#include "platform/file.h"

static inline void
golden_append_hex(struct buffer *text, const void *p, size_t n)
{
    const uint8_t *bytes = p;
    for (size_t i = 0; i < n; i++)
        buffer_printf(text, "%02x%s", bytes[i], i % 32 == 31 || i + 1 == n ? "\n" : "");
}

static inline void
golden_read_hex(const char *text, struct buffer *out)
{
    unsigned value;
    int used;
    for (; sscanf(text, " %2x%n", &value, &used) == 1; text += used)
        buffer_append_u8(out, (uint8_t)value);
}

// The bytes of a golden file that an older program wrote.
static inline void
golden_load_old(const char *name, struct buffer *golden_out)
{
    BUFFER_AUTO path = {0};
    BUFFER_AUTO text = {0};
    buffer_printf(&path, "%s/%s", GOLDEN_DIRECTORY, name);
    ck_assert_int_eq(file_read_whole(buffer_string(&path), 1 << 20, &text), 0);
    golden_read_hex(buffer_string(&text), golden_out);
}

// The golden file's bytes; with CKPTFS_WRITE_GOLDEN set it is written first.
static inline void
golden_load(const char *name, const struct buffer *bytes, struct buffer *golden_out)
{
    BUFFER_AUTO path = {0};
    BUFFER_AUTO text = {0};
    buffer_printf(&path, "%s/%s", GOLDEN_DIRECTORY, name);
    if (getenv("CKPTFS_WRITE_GOLDEN")) {
        golden_append_hex(&text, bytes->data, bytes->length);
        ck_assert_int_eq(file_replace_whole(
                             &file_ops_system, buffer_string(&path), text.data, text.length, 0644),
            0);
    }
    ck_assert_int_eq(file_read_whole(buffer_string(&path), 1 << 20, &text), 0);
    golden_read_hex(buffer_string(&text), golden_out);
}

#endif
