// SPDX-License-Identifier: Apache-2.0
#include "manifest/lmdb_seal.h"

#include <string.h>

#include "base/bytes.h"
#include "base/checksum.h"

uint32_t
lmdb_seal_seed(const char *table)
{
    return crc32c(0, table, strlen(table));
}

static uint32_t
seal_of(uint32_t seed, const void *key, size_t key_length, const void *value, size_t value_length)
{
    // Without the key's length, a byte that went from the value to the key would not be noticed.
    uint8_t length[2];
    put_le16(length, (uint16_t)key_length);
    uint32_t crc = crc32c(seed, length, sizeof(length));
    crc = crc32c(crc, key, key_length);
    return crc32c(crc, value, value_length);
}

void
lmdb_seal_write(uint32_t seed, const void *key, size_t key_length, const void *value,
    size_t value_length, uint8_t *out)
{
    if (value_length > 0)
        memcpy(out, value, value_length);
    put_le32(out + value_length, seal_of(seed, key, key_length, value, value_length));
}

bool
lmdb_seal_is_whole(
    uint32_t seed, const void *key, size_t key_length, const void *sealed, size_t length)
{
    if (length < LMDB_SEAL_BYTES)
        return false;
    size_t n = length - LMDB_SEAL_BYTES;
    return get_le32((const uint8_t *)sealed + n) == seal_of(seed, key, key_length, sealed, n);
}
