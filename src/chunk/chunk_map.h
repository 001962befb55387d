// SPDX-License-Identifier: Apache-2.0
// Layouts of chunks: base and deltas from the manifest at the local generation, with the indexes of
// their images. The map caches layouts within a budget; the checkpoint invalidates them when a
// local generation changes the chunk. Any thread.
#ifndef CKPTFS_CHUNK_CHUNK_MAP_H
#define CKPTFS_CHUNK_CHUNK_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/hash_table.h"
#include "base/list.h"
#include "base/types.h"
#include "format/blob.h"
#include "format/records.h"
#include "manifest/manifest.h"

// One image of a chunk. The index is loaded at first use (chunk_reader.h) and then stays.
struct chunk_image {
    struct blob_location where;
    struct blob_record blob;
    struct generation generation;
    _Atomic(struct blob_index *) index;
    atomic_bool asked; // a thread of the chunk reader has been told to load it
};

// Lost pages [first, end) of the chunk.
struct chunk_lost {
    uint32_t first;
    uint32_t end;
};

// Immutable but for the indexes; counted references.
struct chunk_layout {
    struct hash_node node;
    struct list_node use;
    atomic_uint references;
    bool cached;  // in the map: protected by the map's lock
    size_t bytes; // of it in the map's budget: likewise
    struct object_id object;
    struct chunk_index index;
    struct chunk_entry entry;
    struct chunk_lost *lost; // in order; they count more than the images
    size_t lost_count;
    size_t image_count;
    struct chunk_image images[]; // deltas from the newest to the oldest, then the base, if any
};

struct chunk_map;

struct chunk_map *chunk_map_new(struct manifest *m, struct db_id db, uint64_t limit_bytes);
void chunk_map_free(struct chunk_map *map); // no layouts may be out

// The chunk's layout, with a reference, or NULL when the object has no such chunk (a hole). 0 or
// -errno.
MUST_CHECK int chunk_map_get(struct chunk_map *map, struct object_id object,
    struct chunk_index index, struct chunk_layout **layout_out);
// The first chunk behind `index` that the object has; UINT64_MAX when there is none.
MUST_CHECK int chunk_map_next(struct chunk_map *map, struct object_id object,
    struct chunk_index index, struct chunk_index *next_out);
// Whether the page is lost. If not, `end_out` is the next lost page (or the end of the chunk), else
// the end of the lost ones.
bool chunk_layout_is_lost(const struct chunk_layout *layout, uint32_t page, uint32_t *end_out);
void chunk_layout_get(struct chunk_layout *layout);                        // one reference more
void chunk_layout_put(struct chunk_map *map, struct chunk_layout *layout); // NULL is fine

// The key of a blob in a place of `remote_namespace`. -ENOTSUP: in another store.
MUST_CHECK int chunk_map_named_key(
    struct chunk_map *map, const struct blob_record *blob, struct buffer *key_out);
// A blob's present record: a layout's own may be from before its publication. -ENOENT: released.
MUST_CHECK int chunk_map_read_blob(
    struct chunk_map *map, const struct sha256 *hash, struct blob_record *blob_out);

// The manifest's entry for the chunk has changed, or all of the object's.
void chunk_map_invalidate(struct chunk_map *map, struct object_id object, struct chunk_index index);
void chunk_map_invalidate_all(struct chunk_map *map);

// Tells the map that a layout's indexes grew by this much.
void chunk_map_account(struct chunk_map *map, struct chunk_layout *layout, size_t bytes);

#endif
