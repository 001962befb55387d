// SPDX-License-Identifier: Apache-2.0
// Looks through a cut and the manifest for the planner's input: per changed chunk how much changed
// and which images there are already.
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "checkpoint/checkpoint_internal.h"
#include "platform/memory.h"

struct gather {
    struct checkpoint *c;
    const struct checkpoint_cut *cut;
    struct manifest_reader *reader;
    struct checkpoint_input *in;
    size_t chunk_capacity;
    size_t delta_count;
    size_t delta_capacity;
    // Where a chunk's deltas begin; turned into pointers at the end, when the array stays.
    size_t *delta_start;
    struct generation publishing;
    struct checkpoint_restage restage;

    struct object_id object; // the one being looked at
    uint64_t size;
    uint64_t old_size;
    bool append_only;
    bool has_holes;
    uint32_t poor_rank; // of the chunk being looked at
};

static struct plan_chunk *
add_chunk(struct gather *g, uint64_t index)
{
    struct checkpoint_input *in = g->in;
    if (in->count == g->chunk_capacity) {
        g->chunk_capacity = g->chunk_capacity ? 2 * g->chunk_capacity : 64;
        in->chunks = memory_realloc(in->chunks, g->chunk_capacity * sizeof(*in->chunks));
        g->delta_start =
            memory_realloc(g->delta_start, g->chunk_capacity * sizeof(*g->delta_start));
    }
    struct plan_chunk *chunk = &in->chunks[in->count];
    *chunk = (struct plan_chunk){.object = g->object, .index = {index}};
    g->delta_start[in->count++] = g->delta_count;
    return chunk;
}

// ---- changes of the cut -------------------------------------------------------------------------

struct page_count {
    uint32_t pages;
    bool partial;
};

static int
count_page(void *argument, struct page_no page UNUSED, const struct dirty_page *content)
{
    struct page_count *n = argument;
    n->pages++;
    n->partial = n->partial || content->mask;
    return 0;
}

// Pages of [first, end) that lie in holes and were not written again.
static uint32_t
count_hole_pages(const struct gather *g, uint64_t first, uint64_t end)
{
    uint32_t n = 0;
    struct page_extent hole;
    for (uint64_t at = first;
         dirty_set_next_hole(g->cut->pages, g->object, at, &hole) && hole.first < end;
         at = hole.end) {
        uint64_t from = hole.first > first ? hole.first : first;
        uint64_t to = hole.end < end ? hole.end : end;
        struct page_count written = {0};
        dirty_set_walk(g->cut->pages, g->object, from, to, count_page, &written);
        n += (uint32_t)(to - from) - written.pages;
    }
    return n;
}

static bool
touches_hole(const struct gather *g, uint64_t first, uint64_t end)
{
    struct page_extent hole;
    return dirty_set_next_hole(g->cut->pages, g->object, first, &hole) && hole.first < end;
}

// ---- existing images ----------------------------------------------------------------------------

// Whether the blob is a poor pack; notes its rank.
static bool
note_poor(struct gather *g, const struct sha256 *blob)
{
    const struct upkeep_pack *pack = checkpoint_offer_find_pack(g->c->fold.offer, blob);
    if (pack && pack->rank < g->poor_rank)
        g->poor_rank = pack->rank;
    return pack != NULL;
}

static int
add_delta(void *argument, const struct chunk_delta *delta)
{
    struct gather *g = argument;
    struct blob_record blob;
    int rc = manifest_read_blob(g->reader, g->c->options.db, &delta->where.blob, &blob);
    if (rc < 0)
        return rc == -ENOENT ? -EBADMSG : rc;
    if (g->delta_count == g->delta_capacity) {
        g->delta_capacity = g->delta_capacity ? 2 * g->delta_capacity : 64;
        g->in->deltas = memory_realloc(g->in->deltas, g->delta_capacity * sizeof(*g->in->deltas));
    }
    g->in->deltas[g->delta_count++] = (struct plan_delta){
        .bytes = delta->where.length,
        .pages = delta->data_pages,
        .mergeable = !(blob.residency & RESIDENCY_REMOTE) && delta->generation.v > g->publishing.v,
        .poor = note_poor(g, &delta->where.blob),
    };
    return 0;
}

static int
look_up_chunk(struct gather *g, struct plan_chunk *chunk)
{
    struct chunk_entry entry;
    int rc = manifest_read_chunk(g->reader, g->c->options.db, g->object, chunk->index, &entry);
    if (rc == -ENOENT)
        return 0;
    if (rc < 0)
        return rc;
    chunk->exists = true;
    chunk->base_bytes = entry.base.length;
    chunk->base_pages = entry.base_pages;
    chunk->sealed = entry.sealed;
    chunk->present_pages = entry.present_pages;
    g->poor_rank = UINT32_MAX;
    chunk->poor_base = entry.base.length > 0 && note_poor(g, &entry.base.blob);
    size_t before = g->delta_count;
    rc = manifest_read_deltas(g->reader, g->c->options.db, entry.id, add_delta, g);
    // add_delta may have moved the arrays' ends, not `chunk`.
    chunk->delta_count = g->delta_count - before;
    chunk->poor_rank = g->poor_rank;
    return rc;
}

static int
gather_chunk(struct gather *g, uint64_t index)
{
    uint64_t first = index * CHUNK_PAGES;
    uint64_t object_end = pages_of_bytes(g->size);
    uint64_t end = object_end > first ? object_end : first;
    if (end > first + CHUNK_PAGES)
        end = first + CHUNK_PAGES;
    struct page_count written = {0};
    dirty_set_walk(g->cut->pages, g->object, first, end, count_page, &written);
    struct plan_chunk *chunk = add_chunk(g, index);
    chunk->pages = (uint32_t)(end - first);
    chunk->dirty_pages = written.pages;
    chunk->partial = written.partial;
    chunk->hole_pages = count_hole_pages(g, first, end);
    chunk->append_only = g->append_only && written.pages > 0;
    chunk->changed = written.pages > 0 || touches_hole(g, first, first + CHUNK_PAGES);
    const struct restage_chunk *again =
        checkpoint_restage_from(&g->restage, g->object, chunk->index);
    if (again && again->object.v == g->object.v && again->index.v == index) {
        chunk->restage_base = again->base;
        chunk->restage_deltas = again->deltas;
        chunk->upkeep = again->upkeep;
    }
    return look_up_chunk(g, chunk);
}

// ---- which chunks -------------------------------------------------------------------------------

struct index_list {
    uint64_t *indexes;
    size_t count;
    size_t capacity;
};

static void
note_index(struct index_list *list, uint64_t index)
{
    if (list->count > 0 && list->indexes[list->count - 1] == index)
        return;
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 16;
        list->indexes = memory_realloc(list->indexes, list->capacity * sizeof(*list->indexes));
    }
    list->indexes[list->count++] = index;
}

static int
note_page(void *argument, struct page_no page, const struct dirty_page *content UNUSED)
{
    note_index(argument, chunk_of_page(page).v);
    return 0;
}

struct hole_scan {
    struct gather *g;
    struct index_list *list;
    uint64_t last;
};

static int
note_existing(
    void *argument, struct chunk_index index, struct chunk_id id UNUSED, uint32_t present UNUSED)
{
    struct hole_scan *scan = argument;
    if (index.v > scan->last)
        return 1;
    note_index(scan->list, index.v);
    return 0;
}

// Chunks that exist and that a hole touches.
static int
note_holes(struct gather *g, struct index_list *list)
{
    struct page_extent hole;
    uint64_t seen = 0; // chunks below
    for (uint64_t at = 0; dirty_set_next_hole(g->cut->pages, g->object, at, &hole); at = hole.end) {
        struct hole_scan scan = {g, list, (hole.end - 1) / CHUNK_PAGES};
        struct chunk_index from = {hole.first / CHUNK_PAGES};
        if (from.v < seen)
            from.v = seen;
        if (from.v > scan.last)
            continue; // many holes of one chunk
        seen = scan.last + 1;
        int rc = manifest_read_object_chunks(
            g->reader, g->c->options.db, g->object, from, note_existing, &scan);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void
note_restage(struct gather *g, struct index_list *list)
{
    const struct restage_chunk *c =
        checkpoint_restage_from(&g->restage, g->object, (struct chunk_index){0});
    if (!c)
        return;
    const struct restage_chunk *end = g->restage.chunks + g->restage.count;
    for (; c < end && c->object.v == g->object.v; c++)
        note_index(list, c->index.v);
}

static int
compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int
first_page(void *argument, struct page_no page, const struct dirty_page *content UNUSED)
{
    *(uint64_t *)argument = page.v;
    return 1;
}

// The object's inode at the cut, and its size at the last local generation. False: the object is
// gone or is no file.
static int
look_up_object(struct gather *g, bool *wanted_out)
{
    struct inode_record inode = {0};
    struct inode_record old = {0};
    *wanted_out = false;
    int rc = manifest_read_inode(g->reader, g->c->options.db, g->object, &old);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    bool existed = rc == 0;
    enum layer_state state = namespace_set_find_inode(g->cut->names, g->object, &inode);
    if (state == LAYER_DELETED || (state == LAYER_ABSENT && !existed))
        return 0;
    if (state == LAYER_ABSENT)
        inode = old;
    if (!S_ISREG(inode.mode))
        return 0;
    *wanted_out = true;
    g->size = inode.size;
    g->old_size = existed ? old.size : 0;
    struct page_extent hole;
    g->has_holes = dirty_set_next_hole(g->cut->pages, g->object, 0, &hole);
    uint64_t first = UINT64_MAX;
    dirty_set_walk(g->cut->pages, g->object, 0, UINT64_MAX, first_page, &first);
    g->append_only = inode.source_variant == SOURCE_VARIANT_APPEND_ONLY ||
                     (inode.source_variant == SOURCE_VARIANT_DETECT &&
                         checkpoint_planner_detects_append(g->old_size, first, g->has_holes));
    return 0;
}

static int
gather_object(struct gather *g, struct object_id object)
{
    g->object = object;
    bool wanted;
    int rc = look_up_object(g, &wanted);
    if (rc < 0 || !wanted)
        return rc;
    struct index_list list = {0};
    dirty_set_walk(g->cut->pages, object, 0, UINT64_MAX, note_page, &list);
    rc = note_holes(g, &list);
    note_restage(g, &list);
    if (list.count > 0)
        qsort(list.indexes, list.count, sizeof(uint64_t), compare_u64);
    for (size_t i = 0; rc == 0 && i < list.count; i++)
        if (i == 0 || list.indexes[i] != list.indexes[i - 1])
            rc = gather_chunk(g, list.indexes[i]);
    free(list.indexes);
    return rc;
}

// Which images are on this host; asked outside the read transaction. The plan's deltas and the
// layout's images have the same order.
static int
look_up_residency(struct gather *g)
{
    struct local_store *local = g->c->options.local;
    if (!g->c->fold.pin)
        g->c->fold.pin = pin_begin(local_store_pins(local), "fold", "its pages are merged");
    for (size_t i = 0; i < g->in->count; i++) {
        struct plan_chunk *chunk = &g->in->chunks[i];
        struct plan_delta *deltas = g->in->deltas ? g->in->deltas + g->delta_start[i] : NULL;
        chunk->deltas = deltas;
        if (!chunk->exists)
            continue;
        struct chunk_layout *layout;
        int rc = chunk_map_get(g->c->options.map, chunk->object, chunk->index, &layout);
        if (rc < 0)
            return rc;
        bool avoid = checkpoint_avoids_images(g->c, chunk->object, chunk->index);
        chunk->local = layout != NULL && !avoid;
        for (size_t k = 0; layout && k < layout->image_count; k++) {
            const struct blob_location *where = &layout->images[k].where;
            const struct sha256 *blob = &where->blob;
            // First, so that a local copy stays here until it has been read.
            pin_blob(g->c->fold.pin, blob);
            // Pages that a damaged image does not give are lost.
            bool here =
                !avoid && (local_store_has(local, blob) || checkpoint_is_damaged(g->c, blob) ||
                              checkpoint_offer_has_image(g->c->fold.offer, blob, where->offset));
            chunk->local = chunk->local && here;
            if (k < chunk->delta_count) {
                deltas[k].local = here;
                deltas[k].mergeable = deltas[k].mergeable && !avoid;
            }
        }
        chunk_layout_put(g->c->options.map, layout);
    }
    return 0;
}

// All objects with changes, and those with images to be staged again or offered, in order.
static struct object_id *
merge_objects(struct gather *g, size_t *count_out)
{
    size_t dirty_count;
    struct object_id *dirty = dirty_set_objects(g->cut->pages, &dirty_count);
    const struct checkpoint_restage *again = &g->restage;
    struct object_id *all = memory_alloc((dirty_count + again->count) * sizeof(*all));
    size_t count = 0;
    for (size_t i = 0, k = 0; i < dirty_count || k < again->count;) {
        struct object_id next;
        if (k == again->count || (i < dirty_count && dirty[i].v <= again->chunks[k].object.v))
            next = dirty[i++];
        else
            next = again->chunks[k++].object;
        if (count == 0 || all[count - 1].v != next.v)
            all[count++] = next;
    }
    free(dirty);
    *count_out = count;
    return all;
}

int
checkpoint_gather(
    struct checkpoint *c, const struct checkpoint_cut *cut, struct checkpoint_input *input_out)
{
    *input_out = (struct checkpoint_input){0};
    struct gather g = {.c = c, .cut = cut, .in = input_out};
    g.publishing = pin_set_generation(local_store_pins(c->options.local));
    int rc = manifest_read_begin(c->options.manifest, &g.reader);
    if (rc < 0)
        return rc;
    rc = checkpoint_find_restage(c, g.reader, g.publishing, &g.restage);
    size_t count;
    struct object_id *objects = merge_objects(&g, &count);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = gather_object(&g, objects[i]);
    free(objects);
    free(g.restage.chunks);
    manifest_read_end(g.reader);
    if (rc == 0)
        rc = look_up_residency(&g);
    free(g.delta_start);
    if (rc < 0)
        checkpoint_input_free(input_out);
    return rc;
}

void
checkpoint_input_free(struct checkpoint_input *input)
{
    free(input->chunks);
    free(input->deltas);
    *input = (struct checkpoint_input){0};
}
