// SPDX-License-Identifier: Apache-2.0
#include "format/columns.h"

void
columns_split(const uint8_t *rows, size_t count, size_t width, uint8_t *columns)
{
    for (size_t c = 0; c < width; c++) {
        uint8_t above = 0;
        for (size_t i = 0; i < count; i++) {
            uint8_t byte = rows[i * width + c];
            *columns++ = (uint8_t)(byte - above);
            above = byte;
        }
    }
}

void
columns_join(const uint8_t *columns, size_t count, size_t width, uint8_t *rows)
{
    for (size_t c = 0; c < width; c++) {
        uint8_t byte = 0;
        for (size_t i = 0; i < count; i++) {
            byte = (uint8_t)(byte + *columns++);
            rows[i * width + c] = byte;
        }
    }
}
