// SPDX-License-Identifier: Apache-2.0
// Randomness from the kernel.
#ifndef CKPTFS_PLATFORM_RANDOM_H
#define CKPTFS_PLATFORM_RANDOM_H

#include <stddef.h>
#include <stdint.h>

#include "base/types.h"

void random_bytes(void *p, size_t n);
uint64_t random_u64(void);
// A random (version 4, RFC 4122) UUID.
struct uuid random_uuid(void);
// 36 characters and a NUL.
void uuid_to_string(const struct uuid *id, char text_out[37]);

#endif
