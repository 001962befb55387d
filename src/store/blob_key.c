// SPDX-License-Identifier: Apache-2.0
#include "store/blob_key.h"

#include <inttypes.h>

#include "base/checksum.h"
#include "platform/random.h"

void
blob_key(const char *tenant, const struct blob_record *blob, struct buffer *key_out)
{
    char id[37];
    char hex[65];
    uuid_to_string(&blob->checkpoint_id, id);
    sha256_to_hex(&blob->hash, hex);
    uint64_t generation = blob->generation.v;
    buffer_clear(key_out);
    buffer_printf(key_out, "checkpoints/%s/%s/", tenant, id);
    if (blob->kind == BLOB_OBJECT_CHUNK)
        buffer_printf(key_out, "chunk-%016" PRIx64 "-", blob->chunk.v);
    else if (blob->kind == BLOB_OBJECT_DELTA)
        buffer_printf(key_out, "delta-%016" PRIx64 "-%016" PRIx64 "-", blob->chunk.v, generation);
    else
        buffer_printf(key_out, "pack-");
    buffer_printf(key_out, "%016" PRIx64 "-%s.blob", generation, hex);
    buffer_string(key_out);
}
