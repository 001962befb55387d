// SPDX-License-Identifier: Apache-2.0
#include "format/compress.h"

#include <limits.h>
#include <lz4.h>

#define COMPRESS_MAX ((size_t)1 << 30)

size_t
compress_block(const void *p, size_t n, void *out, size_t room)
{
    assert(n <= COMPRESS_MAX);
    if (room > COMPRESS_MAX)
        room = COMPRESS_MAX;
    int length = LZ4_compress_default(p, out, (int)n, (int)room);
    return length > 0 ? (size_t)length : 0;
}

bool
decompress_block(const void *p, size_t n, void *out, size_t expected)
{
    if (n > COMPRESS_MAX || expected > COMPRESS_MAX)
        return false;
    return LZ4_decompress_safe(p, out, (int)n, (int)expected) == (int)expected;
}

const char *
compress_library_version(void)
{
    return LZ4_versionString();
}
