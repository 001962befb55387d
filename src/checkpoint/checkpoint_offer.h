// SPDX-License-Identifier: Apache-2.0
// An offer to the next fold: chunks that would be the better for upkeep (checkpoint_upkeep.h), the
// images of them that were fetched from the store and can be read on this host now, and the poor
// packs. The fold's planner takes what its budget allows. An offer holds for one fold, whatever
// comes of that: a fold that fails, or cannot read an image after all, leaves all chunks as they
// were, and a write to a chunk goes on top of its merged images, as it is part of the same cut.
//
// One thread makes an offer, and gives it to the checkpoint (checkpoint_make_offer).
#ifndef CKPTFS_CHECKPOINT_CHECKPOINT_OFFER_H
#define CKPTFS_CHECKPOINT_CHECKPOINT_OFFER_H

#include "checkpoint/checkpoint_upkeep.h"
#include "store/pin_set.h"

struct offered_chunk {
    struct object_id object;
    struct chunk_index index;
};

struct offered_image {
    struct sha256 blob;
    uint64_t offset;
};

struct checkpoint_offer {
    struct offered_chunk *chunks; // in order, once it is made
    size_t count;
    struct offered_image *images; // likewise
    size_t image_count;
    struct upkeep_pack *packs; // in the order of their hashes
    size_t pack_count;
    uint64_t allowance_bytes; // for the planner's policy
    struct pin *pin;          // keeps the fetched bytes here
};

struct checkpoint_offer *checkpoint_offer_new(void);
void checkpoint_offer_free(struct checkpoint_offer *offer); // NULL is fine
void checkpoint_offer_add_chunk(
    struct checkpoint_offer *offer, struct object_id object, struct chunk_index index);
void checkpoint_offer_add_image(
    struct checkpoint_offer *offer, const struct sha256 *blob, uint64_t offset);

// Once everything is added.
void checkpoint_offer_finish(struct checkpoint_offer *offer);

// For the fold; `offer` may be NULL.
bool checkpoint_offer_has_image(
    const struct checkpoint_offer *offer, const struct sha256 *blob, uint64_t offset);
// The poor pack with this hash, or NULL.
const struct upkeep_pack *checkpoint_offer_find_pack(
    const struct checkpoint_offer *offer, const struct sha256 *blob);

#endif
