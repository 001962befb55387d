// SPDX-License-Identifier: Apache-2.0
// Copies of blobs in the hot_cache of a storage root, for tools: the root may be mounted.
#ifndef CKPTFS_RETENTION_LOCAL_COPY_H
#define CKPTFS_RETENTION_LOCAL_COPY_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/types.h"

// Opens a copy with these bytes, of whichever volume of the root, for reading. `hot_cache` is the
// directory ROOT/hot_cache. The descriptor, or -ENOENT when no good copy is there.
MUST_CHECK int local_copy_open(const char *hot_cache, const struct sha256 *hash, uint64_t bytes);

#endif
