// SPDX-License-Identifier: Apache-2.0
#include "store/blob_key.h"

#include <inttypes.h>

#include "base/checksum.h"
#include "platform/random.h"

static void
make_key(const char *tenant, size_t tenant_length, uint32_t volume_number, uint8_t form,
    const struct blob_record *blob, struct buffer *key_out)
{
    char id[37];
    char hex[65];
    uuid_to_string(&blob->checkpoint_id, id);
    sha256_to_hex(&blob->hash, hex);
    uint64_t generation = blob->generation.v;
    buffer_clear(key_out);
    buffer_printf(key_out, "checkpoints/%.*s/", (int)tenant_length, tenant);
    if (form != BLOB_WHERE_OWN_OLD)
        buffer_printf(key_out, "%" PRIu32 "/", volume_number);
    buffer_printf(key_out, "%s/", id);
    if (blob->kind == BLOB_OBJECT_CHUNK)
        buffer_printf(key_out, "chunk-%016" PRIx64 "-", blob->chunk.v);
    else if (blob->kind == BLOB_OBJECT_DELTA)
        buffer_printf(key_out, "delta-%016" PRIx64 "-%016" PRIx64 "-", blob->chunk.v, generation);
    else
        buffer_printf(key_out, "pack-");
    buffer_printf(key_out, "%016" PRIx64 "-%s.blob", generation, hex);
    buffer_string(key_out);
}

void
blob_key(const char *tenant, uint32_t volume_number, const struct blob_record *blob,
    struct buffer *key_out)
{
    assert(blob->where < BLOB_WHERE_NAMED);
    make_key(tenant, strlen(tenant), volume_number, (uint8_t)blob->where, blob, key_out);
}

void
blob_key_in(
    const struct namespace_record *space, const struct blob_record *blob, struct buffer *key_out)
{
    make_key(space->tenant, space->tenant_length, space->volume_number, space->form, blob, key_out);
}
