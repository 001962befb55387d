// SPDX-License-Identifier: Apache-2.0
// The seal of an entry: a CRC-32C over the name of the table, the length of the key, the key and
// the value. It lies behind the value, so that a reader notices a value that changed on the disk,
// or that lies under another key or in another table. Pure.
#ifndef CKPTFS_MANIFEST_LMDB_SEAL_H
#define CKPTFS_MANIFEST_LMDB_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

#define LMDB_SEAL_BYTES 4u

// The start value of a table's seals.
uint32_t lmdb_seal_seed(const char *table);

// Writes `value` and its seal to `out`, which has room for LMDB_SEAL_BYTES more than the value.
void lmdb_seal_write(uint32_t seed, const void *key, size_t key_length, const void *value,
    size_t value_length, uint8_t *out);
// Whether the `length` bytes at `sealed` are a value and its seal for this key.
bool lmdb_seal_is_whole(
    uint32_t seed, const void *key, size_t key_length, const void *sealed, size_t length);

#endif
