// SPDX-License-Identifier: Apache-2.0
// The CRC-32Cs of blobs that this process staged and verified: an upload of one of them need not
// compute its SHA-256 once more (decisions/0009). A table of fixed size in which a newer blob may
// push an older one out, which is then uploaded with its SHA-256.
#include "base/bytes.h"
#include "checkpoint/checkpoint_internal.h"

static struct known_crc *
slot_of(struct checkpoint *c, const struct sha256 *hash)
{
    return &c->known_crcs[get_le64(hash->b) % ARRAY_LENGTH(c->known_crcs)];
}

void
checkpoint_remember_crc(struct checkpoint *c, const struct staged_blob *blob)
{
    lock_take(&c->lock);
    *slot_of(c, &blob->record.hash) =
        (struct known_crc){.hash = blob->record.hash, .crc = blob->crc, .known = true};
    lock_release(&c->lock);
}

bool
checkpoint_recall_crc(struct checkpoint *c, const struct sha256 *hash, uint32_t *crc_out)
{
    lock_take(&c->lock);
    const struct known_crc *k = slot_of(c, hash);
    bool known = k->known && sha256_equal(&k->hash, hash);
    *crc_out = known ? k->crc : 0;
    lock_release(&c->lock);
    return known;
}
