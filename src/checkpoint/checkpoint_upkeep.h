// SPDX-License-Identifier: Apache-2.0
// Which chunks of a volume would be the better for a merge or a new base though nothing changed in
// them, or though their images are in the store only; and which packs hold so little that is live
// that the rest is to be written again. Pure: the owner of the catalog shows all packs and chunks,
// chooses within a byte budget, fetches the missing images, and hands the chunks to the next
// checkpoint (checkpoint_offer). The planner decides there what becomes of them.
//
// The bound: all blobs together have at most UPKEEP_STORED_PERCENT of the bytes of the live images
// in them, as soon as the budget has allowed it.
#ifndef CKPTFS_CHECKPOINT_CHECKPOINT_UPKEEP_H
#define CKPTFS_CHECKPOINT_CHECKPOINT_UPKEEP_H

#include "checkpoint/checkpoint_planner.h"

#define UPKEEP_STORED_PERCENT 115u
// Images that are fetched to be merged may have so many times the bytes of the budget: what of them
// is written again is for the planner to say.
#define UPKEEP_FETCH_TIMES 8u
// At most so many chunks for one checkpoint.
#define UPKEEP_CHUNKS_MAX 4096u

// ---- packs --------------------------------------------------------------------------------------

struct upkeep_pack {
    struct sha256 hash;
    uint64_t bytes;
    uint64_t live_bytes;
    uint32_t rank; // filled in: poor packs with a lower one go first
};

// Moves the poor packs to the front of the array, in the order of their hashes, and gives them
// ranks. Takes the poorest ones first, until the rest of the store is rich enough or the live bytes
// in those taken reach `budget` (one pack may go over it). `others`: bytes of blobs that are no
// packs. Returns how many there are.
size_t checkpoint_upkeep_choose_packs(
    struct upkeep_pack *packs, size_t count, uint64_t others, uint64_t budget);
// The poor pack with this hash, or NULL. `packs`: as many as choose_packs returned.
const struct upkeep_pack *checkpoint_upkeep_find_pack(
    const struct upkeep_pack *packs, size_t count, const struct sha256 *hash);

// ---- chunks -------------------------------------------------------------------------------------

// A chunk that would be the better for upkeep.
struct upkeep_chunk {
    struct object_id object;
    struct chunk_index index;
    struct chunk_id id;
    struct generation generation;
    struct chunk_action action; // what the planner would do, had it the images here
    size_t images;              // so many of the newest images does it need
    uint32_t poor_rank;
    size_t delta_count;
    bool long_chain;          // longer than wanted; then
    size_t mergeable;         // so many of the newest deltas are worth being fetched for a merge
    uint64_t mergeable_bytes; // of them
    bool full;    // a change would make the chain too long, if it cannot be merged; then
    size_t least; // so many of the newest deltas are fetched in any case
};

// Whether the chunk is one of them; fills in everything but id and generation. `chunk` as for the
// planner: `upkeep` and `local` count as set.
bool checkpoint_upkeep_judge(const struct plan_chunk *chunk, const struct plan_policy *policy,
    struct upkeep_chunk *found_out);

// Puts those that need it most to the front, as many as `budget` bytes written again pay for (the
// last one may go over it), and returns how many. Chains to be merged are not paid for, but for
// what it takes to fetch them; and full chains get as much as keeps them from growing.
size_t checkpoint_upkeep_choose(struct upkeep_chunk *chunks, size_t count, uint64_t budget);

#endif
