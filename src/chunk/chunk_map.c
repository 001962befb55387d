// SPDX-License-Identifier: Apache-2.0
#include "chunk/chunk_map.h"

#include <errno.h>
#include <stdlib.h>

#include "format/record_codec.h"
#include "platform/lock.h"
#include "platform/memory.h"
#include "store/blob_key.h"

struct chunk_map {
    struct manifest *manifest;
    struct db_id db;
    uint64_t limit_bytes;
    struct lock lock; // "chunk_map": protects everything below
    struct hash_table layouts;
    struct list_node use; // least recently used first
    uint64_t bytes;
    uint64_t invalidations; // a layout loaded before one of these must not be cached after it
};

struct chunk_map *
chunk_map_new(struct manifest *m, struct db_id db, uint64_t limit_bytes)
{
    struct chunk_map *map = memory_alloc_zero(sizeof(*map));
    map->manifest = m;
    map->db = db;
    map->limit_bytes = limit_bytes;
    lock_init(&map->lock, "chunk_map", LOCK_RANK_CHUNK_MAP);
    list_init(&map->use);
    return map;
}

static void
free_layout(struct chunk_layout *v)
{
    for (size_t i = 0; i < v->image_count; i++)
        blob_index_free(atomic_load(&v->images[i].index));
    free(v->lost);
    free(v);
}

static void
drop_reference(struct chunk_layout *v)
{
    if (atomic_fetch_sub(&v->references, 1) == 1)
        free_layout(v);
}

static void
uncache_locked(struct chunk_map *map, struct chunk_layout *v)
{
    hash_table_remove(&map->layouts, &v->node);
    list_remove(&v->use);
    v->cached = false;
    assert(map->bytes >= v->bytes);
    map->bytes -= v->bytes;
    drop_reference(v);
}

void
chunk_map_free(struct chunk_map *map)
{
    if (!map)
        return;
    chunk_map_invalidate_all(map);
    hash_table_free(&map->layouts);
    lock_destroy(&map->lock);
    free(map);
}

static struct chunk_layout *
find_locked(struct chunk_map *map, struct object_id object, struct chunk_index index)
{
    struct hash_node *n = hash_table_first(&map->layouts, hash_u64_pair(object.v, index.v));
    for (; n; n = hash_table_next_same(n)) {
        struct chunk_layout *v = CONTAINER_OF(n, struct chunk_layout, node);
        if (v->object.v == object.v && v->index.v == index.v)
            return v;
    }
    return NULL;
}

static void
shrink_locked(struct chunk_map *map)
{
    while (map->bytes > map->limit_bytes && !list_is_empty(&map->use))
        uncache_locked(map, CONTAINER_OF(map->use.next, struct chunk_layout, use));
}

// ---- loading ------------------------------------------------------------------------------------

struct delta_list {
    struct chunk_delta *deltas;
    size_t count;
    size_t capacity;
};

static int
collect_delta(void *argument, const struct chunk_delta *delta)
{
    struct delta_list *list = argument;
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 8;
        list->deltas = memory_realloc(list->deltas, list->capacity * sizeof(*list->deltas));
    }
    list->deltas[list->count++] = *delta;
    return 0;
}

static int
fill_image(struct chunk_map *map, struct manifest_reader *r, struct chunk_image *image,
    const struct blob_location *where, struct generation generation)
{
    image->where = *where;
    image->generation = generation;
    atomic_init(&image->index, NULL);
    atomic_init(&image->asked, false);
    int rc = manifest_read_blob(r, map->db, &where->blob, &image->blob);
    return rc == -ENOENT ? -EBADMSG : rc;
}

static int
add_lost(void *argument, const struct chunk_damage *damage)
{
    struct chunk_layout *v = argument;
    uint32_t first = page_in_chunk(damage->page);
    v->lost = memory_realloc(v->lost, (v->lost_count + 1) * sizeof(*v->lost));
    v->lost[v->lost_count++] = (struct chunk_lost){first, first + damage->pages};
    return 0;
}

static int
load_lost(struct chunk_map *map, struct manifest_reader *r, struct chunk_layout *v)
{
    uint64_t first = v->index.v * CHUNK_PAGES;
    return manifest_read_damage(r, map->db, v->object, first, first + CHUNK_PAGES, add_lost, v);
}

bool
chunk_layout_is_lost(const struct chunk_layout *layout, uint32_t page, uint32_t *end_out)
{
    size_t low = 0;
    size_t high = layout->lost_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (layout->lost[middle].end <= page)
            low = middle + 1;
        else
            high = middle;
    }
    const struct chunk_lost *next = low < layout->lost_count ? &layout->lost[low] : NULL;
    bool lost = next && next->first <= page;
    *end_out = lost ? next->end : next ? next->first : CHUNK_PAGES;
    return lost;
}

static int
load_layout(struct chunk_map *map, struct manifest_reader *r, struct object_id object,
    struct chunk_index index, struct chunk_layout **layout_out)
{
    struct chunk_entry entry;
    int rc = manifest_read_chunk(r, map->db, object, index, &entry);
    if (rc < 0)
        return rc;
    struct delta_list list = {0};
    rc = manifest_read_deltas(r, map->db, entry.id, collect_delta, &list);
    struct chunk_layout *v =
        memory_alloc_zero(sizeof(*v) + (list.count + 1) * sizeof(v->images[0]));
    atomic_init(&v->references, 1);
    v->object = object;
    v->index = index;
    v->entry = entry;
    v->entry.extension = NULL; // it lies in the transaction
    v->entry.extension_length = 0;
    v->image_count = list.count + chunk_entry_has_base(&entry);
    for (size_t i = 0; rc == 0 && i < list.count; i++)
        rc = fill_image(map, r, &v->images[i], &list.deltas[i].where, list.deltas[i].generation);
    if (rc == 0 && chunk_entry_has_base(&entry))
        rc = fill_image(map, r, &v->images[list.count], &entry.base, entry.base_generation);
    if (rc == 0)
        rc = load_lost(map, r, v);
    free(list.deltas);
    if (rc < 0) {
        free(v->lost);
        free(v);
        return rc;
    }
    *layout_out = v;
    return 0;
}

static void
cache_layout_locked(struct chunk_map *map, struct chunk_layout *v)
{
    atomic_fetch_add(&v->references, 1);
    v->cached = true;
    hash_table_insert(&map->layouts, &v->node, hash_u64_pair(v->object.v, v->index.v));
    list_append(&map->use, &v->use);
    // No index is loaded yet.
    v->bytes =
        sizeof(*v) + v->image_count * sizeof(v->images[0]) + v->lost_count * sizeof(v->lost[0]);
    map->bytes += v->bytes;
    shrink_locked(map);
}

// Readers that load a layout at once go on with that of the first one, so that they share its
// indexes.
static struct chunk_layout *
share_layout_locked(struct chunk_map *map, struct chunk_layout *v)
{
    struct chunk_layout *first = find_locked(map, v->object, v->index);
    if (!first) {
        cache_layout_locked(map, v);
        return v;
    }
    atomic_fetch_add(&first->references, 1);
    drop_reference(v);
    return first;
}

int
chunk_map_get(struct chunk_map *map, struct object_id object, struct chunk_index index,
    struct chunk_layout **layout_out)
{
    *layout_out = NULL;
    lock_take(&map->lock);
    struct chunk_layout *v = find_locked(map, object, index);
    uint64_t invalidations = map->invalidations;
    if (v) {
        atomic_fetch_add(&v->references, 1);
        list_remove(&v->use);
        list_append(&map->use, &v->use);
    }
    lock_release(&map->lock);
    if (v) {
        *layout_out = v;
        return 0;
    }
    struct manifest_reader *r;
    int rc = manifest_read_begin(map->manifest, &r);
    if (rc < 0)
        return rc;
    rc = load_layout(map, r, object, index, &v);
    manifest_read_end(r);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    lock_take(&map->lock);
    if (invalidations == map->invalidations)
        v = share_layout_locked(map, v);
    lock_release(&map->lock);
    *layout_out = v;
    return 0;
}

int
chunk_map_read_blob(struct chunk_map *map, const struct sha256 *hash, struct blob_record *blob_out)
{
    struct manifest_reader *r;
    int rc = manifest_read_begin(map->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_blob(r, map->db, hash, blob_out);
    manifest_read_end(r);
    return rc;
}

int
chunk_map_named_key(struct chunk_map *map, const struct blob_record *blob, struct buffer *key_out)
{
    struct manifest_reader *r;
    struct namespace_record space;
    int rc = manifest_read_begin(map->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_namespace(r, map->db, blob->where, &space);
    if (rc == 0 && space.place_length > 0)
        rc = -ENOTSUP;
    if (rc == 0)
        blob_key_in(&space, blob, key_out);
    manifest_read_end(r);
    return rc;
}

static int
take_index(
    void *argument, struct chunk_index index, struct chunk_id id UNUSED, uint32_t present UNUSED)
{
    *(struct chunk_index *)argument = index;
    return 1;
}

int
chunk_map_next(struct chunk_map *map, struct object_id object, struct chunk_index index,
    struct chunk_index *next_out)
{
    next_out->v = UINT64_MAX;
    struct manifest_reader *r;
    int rc = manifest_read_begin(map->manifest, &r);
    if (rc < 0)
        return rc;
    struct chunk_index from = {index.v + 1};
    rc = manifest_read_object_chunks(r, map->db, object, from, take_index, next_out);
    manifest_read_end(r);
    return rc < 0 ? rc : 0;
}

void
chunk_layout_get(struct chunk_layout *layout)
{
    atomic_fetch_add(&layout->references, 1);
}

void
chunk_layout_put(struct chunk_map *map UNUSED, struct chunk_layout *layout)
{
    if (layout)
        drop_reference(layout);
}

void
chunk_map_invalidate(struct chunk_map *map, struct object_id object, struct chunk_index index)
{
    lock_take(&map->lock);
    map->invalidations++;
    struct chunk_layout *v = find_locked(map, object, index);
    if (v)
        uncache_locked(map, v);
    lock_release(&map->lock);
}

void
chunk_map_invalidate_all(struct chunk_map *map)
{
    lock_take(&map->lock);
    map->invalidations++;
    while (!list_is_empty(&map->use))
        uncache_locked(map, CONTAINER_OF(map->use.next, struct chunk_layout, use));
    lock_release(&map->lock);
}

void
chunk_map_account(struct chunk_map *map, struct chunk_layout *layout, size_t bytes)
{
    lock_take(&map->lock);
    if (layout->cached) {
        map->bytes += bytes;
        layout->bytes += bytes;
        shrink_locked(map);
    }
    lock_release(&map->lock);
}
