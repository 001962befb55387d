// SPDX-License-Identifier: Apache-2.0
// Single objects in the store by their keys, blobs above all. All functions may wait for the store.
#ifndef CKPTFS_REMOTE_REMOTE_BLOB_H
#define CKPTFS_REMOTE_REMOTE_BLOB_H

#include "remote/remote_manifest.h"

// 1: the object is there, with this length (0: any); 0: it is not; or the store's error.
MUST_CHECK int remote_blob_is_there(
    const struct remote_place *place, const char *key, uint64_t bytes);
// Reads the object and compares it with its SHA-256. -EBADMSG: it is missing, or it is another one
// (logged; remote_store_error() tells it).
MUST_CHECK int remote_blob_verify(
    const struct remote_place *place, const char *key, uint64_t bytes, const struct sha256 *hash);
// Reads the object `from`, verifies it, and writes it to `to`. Errors as above.
MUST_CHECK int remote_blob_copy(const struct remote_place *place, const char *from, const char *to,
    uint64_t bytes, const struct sha256 *hash);
// Writes the first `bytes` bytes of a file, whose SHA-256 the caller knows.
MUST_CHECK int remote_blob_put(const struct remote_place *place, const char *key, int fd,
    uint64_t bytes, const struct sha256 *hash);

#endif
