// SPDX-License-Identifier: Apache-2.0
// Keys of blobs in the RemoteStore:
//     checkpoints/{tenant}/{checkpoint_id}/chunk-{chunk_id}-{generation}-{hash}.blob
//     checkpoints/{tenant}/{checkpoint_id}/delta-{chunk_id}-{delta_id}-{generation}-{hash}.blob
//     checkpoints/{tenant}/{checkpoint_id}/pack-{generation}-{hash}.blob
// Numbers are 16 hexadecimal digits, the checkpoint id is a UUID, and a delta's id is its
// generation.
#ifndef CKPTFS_STORE_BLOB_KEY_H
#define CKPTFS_STORE_BLOB_KEY_H

#include "base/buffer.h"
#include "format/records.h"

// Into `key_out` (cleared first); ends it as a C string.
void blob_key(const char *tenant, const struct blob_record *blob, struct buffer *key_out);

#endif
