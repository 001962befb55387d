// SPDX-License-Identifier: Apache-2.0
// Compression of one block: LZ4's block format (github.com/lz4/lz4, doc/lz4_Block_format.md). Only
// compress.c knows liblz4. Any thread.
#ifndef CKPTFS_FORMAT_COMPRESS_H
#define CKPTFS_FORMAT_COMPRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

// Compresses `n` bytes (at most 1 GiB) into `room` bytes; returns the compressed length, or 0 when
// it does not fit. The same input gives the same bytes with the same release of the library.
MUST_CHECK size_t compress_block(const void *p, size_t n, void *out, size_t room);
// Unpacks `n` bytes to exactly `expected` bytes; false when they are not a block of that size.
MUST_CHECK bool decompress_block(const void *p, size_t n, void *out, size_t expected);
// The release of the library, such as "1.9.4".
const char *compress_library_version(void);

#endif
