// SPDX-License-Identifier: Apache-2.0
// Keys of blobs in the RemoteStore:
//     checkpoints/{tenant}/{n}/{checkpoint_id}/chunk-{chunk_id}-{generation}-{hash}.blob
//     checkpoints/{tenant}/{n}/{checkpoint_id}/delta-{chunk_id}-{delta_id}-{generation}-{hash}.blob
//     checkpoints/{tenant}/{n}/{checkpoint_id}/pack-{generation}-{hash}.blob
// {n} is the volume's number, decimal; keys of the old form have no {n}/. Other numbers are 16
// hexadecimal digits, the checkpoint id is a UUID, and a delta's id is its generation.
#ifndef CKPTFS_STORE_BLOB_KEY_H
#define CKPTFS_STORE_BLOB_KEY_H

#include "base/buffer.h"
#include "format/records.h"

// The key of a volume's own blob (blob->where below BLOB_WHERE_NAMED), into `key_out` (cleared
// first); ends it as a C string.
void blob_key(const char *tenant, uint32_t volume_number, const struct blob_record *blob,
    struct buffer *key_out);
// The key of a blob in the namespace `space`, in the store of the volume itself.
void blob_key_in(
    const struct namespace_record *space, const struct blob_record *blob, struct buffer *key_out);

#endif
