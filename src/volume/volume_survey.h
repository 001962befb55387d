// SPDX-License-Identifier: Apache-2.0
// A look through a volume's catalog for what upkeep would be good for (checkpoint_upkeep.h): first
// at the blobs in the store, for poor packs and the usual size of a checkpoint, then at the chunks.
// It goes in steps with a short read transaction each, so it may see a chunk before and another one
// after a fold; its owner asks again when it uses what was found. One thread.
#ifndef CKPTFS_VOLUME_VOLUME_SURVEY_H
#define CKPTFS_VOLUME_VOLUME_SURVEY_H

#include "checkpoint/checkpoint_upkeep.h"
#include "manifest/manifest.h"
#include "store/local_store.h"

#define SURVEY_GENERATIONS 16u

struct survey_options {
    struct manifest *manifest;
    struct db_id db;
    struct local_store *local;
    // Chunks that are to be left alone; may be NULL.
    bool (*is_left)(void *argument, struct chunk_id id, struct generation generation);
    void *argument;
    uint64_t allowance_max; // by the room on this host
};

struct survey {
    struct survey_options options;
    struct generation local; // when it began
    bool blobs_seen;
    bool done;
    struct sha256 next_blob;
    struct chunk_id next_chunk;
    unsigned left; // entries of the present step
    struct manifest_reader *reader;

    // What it found.
    struct upkeep_pack *packs;
    size_t pack_count; // once it is done: of the poor ones
    size_t pack_capacity;
    uint64_t others;
    uint64_t allowance_bytes; // half of the median of the last checkpoints
    struct upkeep_chunk *chunks;
    size_t count;
    size_t capacity;

    struct survey_generation {
        struct generation generation;
        uint64_t bytes;
    } recent[SURVEY_GENERATIONS];
    size_t recent_count;

    // The chunk that is being looked at.
    struct plan_delta *deltas;
    struct sha256 *delta_blobs;
    size_t delta_count;
    size_t delta_capacity;
    uint32_t poor_rank;
};

void survey_begin(struct survey *s, const struct survey_options *options);
// Looks at about `entries` more. 1: there is more to see; 0: done; or -errno.
MUST_CHECK int survey_step(struct survey *s, unsigned entries);
void survey_end(struct survey *s);

#endif
