// SPDX-License-Identifier: Apache-2.0
// CheckpointPlanner: a pure function from changed chunks, their state in the manifest, and the
// policy to an ordered list of ChunkActions. The same input gives the same plan. The rules are
// those of the design, section 7:
//
//     append-only source   a new chunk that is full is sealed as a base; an open tail goes as a
//                          short base first and as deltas afterwards, and stays like that when it
//                          is full, as its images hold each page once; nothing is diffed
//     random source        more than half of a chunk changed: a new base; else a delta
//     both                 deltas that are not in the store yet are merged into the new one (no
//                          publication uploads superseded data)
//
// A plan also has a budget, a share of the changed bytes, to keep chains short: it pays for new
// bases of chunks whose superseded bytes outweigh half of the live ones, and for merging deltas
// that are in the store. Chunks that need it most come first; the others wait for a later one. So
// the work is spread, also when all chunks have aged alike. The planner merges a full chain without
// regard to the budget. Merging takes as many of the newest deltas as costs least in the long run,
// so that each page is rewritten few times. doc/merging.md has the costs.
//
// The plan writes live images in unpublished packs that are mostly dead again: a base as a new
// base, deltas merged, with the chunk's changes.
//
// A chunk that has not changed can be here for upkeep alone (checkpoint_upkeep.h): the budget pays
// for its merge or base, too, and for images that lie in poor packs, published ones of which little
// is live. A policy with an allowance has a larger budget where little has changed.
//
// The planner never plans a base that would need pages from the store: a delta needs none.
#ifndef CKPTFS_CHECKPOINT_CHECKPOINT_PLANNER_H
#define CKPTFS_CHECKPOINT_CHECKPOINT_PLANNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/types.h"
#include "format/records.h"

enum chunk_action_kind {
    CHUNK_ACTION_NONE = 0, // inside the planner only
    CHUNK_ACTION_SEAL_AS_BASE = 1,
    CHUNK_ACTION_CREATE_BASE,
    CHUNK_ACTION_CREATE_DELTA,
    CHUNK_ACTION_MERGE_DELTAS, // a delta that takes in some of the newest deltas
    CHUNK_ACTION_DROP_CHUNK,
};

// A delta that the chunk has, for the planner.
struct plan_delta {
    uint64_t bytes;
    bool mergeable; // not in the store and not on its way there
    bool local;     // the image can be read on this host
    bool poor;      // it lies in a poor pack
    uint32_t pages; // with content
};

// One chunk that changed.
struct plan_chunk {
    struct object_id object;
    struct chunk_index index;
    bool changed;     // holes behind its end count, too; else it is here only to be staged again
    bool append_only; // the object's source variant, detected or given
    uint32_t pages;   // of the object in this chunk, up to its end at the cut
    uint32_t dirty_pages;   // among them
    uint32_t hole_pages;    // among them: discarded and not written again
    bool partial;           // some dirty pages are patches
    bool exists;            // the manifest has the chunk
    bool local;             // all its images can be read on this host
    bool restage_base;      // its base lies in a pack that should go, and so
    bool restage_deltas;    // does one of its deltas; a chunk may be here for that alone
    bool upkeep;            // it may be here for upkeep alone
    bool sealed;            // it was filled by appending, and has no holes
    bool poor_base;         // its base lies in a poor pack
    uint32_t poor_rank;     // of its poor packs the first in the order in which they are to go
    uint32_t present_pages; // pages that are no holes now; an upper bound
    uint64_t base_bytes;    // of the base's image
    uint32_t base_pages;    // in it
    size_t delta_count;     // newest first
    const struct plan_delta *deltas;
};

struct plan_policy {
    uint64_t pack_threshold_bytes; // images expected below this share pack blobs
    uint64_t pack_merged_bytes;    // the same for merged deltas, which live longer than others
    size_t delta_chain_max;        // deltas of a chunk, where they can be merged
    size_t delta_chain_wanted;     // merge beyond this many, as the budget allows
    uint64_t merge_percent;        // the budget, of the bytes that changed
    uint64_t pack_percent;         // another one, for poor packs
    uint64_t allowance_bytes;      // so much a plan may write in all, if the budget is smaller
    bool enable_chunk_deltas;
};

extern const struct plan_policy plan_policy_default;

// Why a chunk gets more work than its change asks for, in the order in which the budget pays.
enum plan_upkeep {
    PLAN_UPKEEP_NONE,
    PLAN_UPKEEP_FULL,  // its chain is full
    PLAN_UPKEEP_PACK,  // an image lies in a poor pack
    PLAN_UPKEEP_BASE,  // its superseded bytes outweigh half of the live ones
    PLAN_UPKEEP_CHAIN, // its chain is longer than wanted
};

struct chunk_action {
    enum chunk_action_kind kind;
    enum plan_upkeep upkeep;
    struct object_id object;
    struct chunk_index index;
    uint32_t pages;           // of the object in this chunk
    size_t merge_count;       // MERGE_DELTAS: how many of the newest deltas are taken in
    uint64_t estimated_bytes; // upper bound of the image
    bool pack;
    bool sealed; // the chunk was filled by appending, and has no holes
};

struct checkpoint_plan {
    struct chunk_action *actions;
    size_t count;
    uint64_t estimated_bytes;
};

// `chunks` in ascending order of (object, index).
void checkpoint_planner_plan(const struct plan_chunk *chunks, size_t count,
    const struct plan_policy *policy, struct checkpoint_plan *plan_out);
void checkpoint_plan_free(struct checkpoint_plan *plan);

// The bytes of a chunk's images. Those of the deltas supersede others, but in a chunk that was
// filled by appending: there all pages beyond the full chunk's do.
struct plan_bytes {
    uint64_t live;
    uint64_t superseded;
};
struct plan_bytes checkpoint_planner_bytes(const struct plan_chunk *chunk);

// Whether an object's changes are those of an append-only source: nothing below the end it had at
// the last local generation changed, but the page that the end lay in.
bool checkpoint_planner_detects_append(
    uint64_t old_size, uint64_t first_dirty_page, bool has_holes);

#endif
