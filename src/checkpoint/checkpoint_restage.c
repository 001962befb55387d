// SPDX-License-Identifier: Apache-2.0
// Packs that are not in the store yet and mostly hold superseded images: the next fold stages their
// live images again, so that the pack can go. Every image is then rewritten at the cost of at least
// as many dead bytes, and the packs kept for an upload are at most twice their live bytes, however
// long the store is out. The fold does the same with all images in damaged blobs
// (checkpoint_damaged.c).
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint_internal.h"
#include "platform/memory.h"

struct search {
    struct checkpoint *c;
    struct generation publishing;
    struct sha256 *packs; // in order of hash
    size_t pack_count;
    size_t pack_capacity;
    struct checkpoint_restage *out;
    size_t capacity;
};

static int
compare_hashes(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct sha256));
}

static int
note_pack(void *argument, const struct blob_record *blob)
{
    struct search *s = argument;
    bool wasted = blob->kind == BLOB_OBJECT_PACK && 2 * blob->live_bytes < blob->bytes;
    if (blob->generation.v <= s->publishing.v ||
        !(wasted || checkpoint_is_damaged(s->c, &blob->hash)))
        return 0;
    if (s->pack_count == s->pack_capacity) {
        s->pack_capacity = s->pack_capacity ? 2 * s->pack_capacity : 16;
        s->packs = memory_realloc(s->packs, s->pack_capacity * sizeof(*s->packs));
    }
    s->packs[s->pack_count++] = blob->hash;
    return 0;
}

static bool
is_wasted(const struct search *s, const struct blob_location *where)
{
    return where->length > 0 &&
           bsearch(&where->blob, s->packs, s->pack_count, sizeof(*s->packs), compare_hashes);
}

static int
compare_ids(const void *a, const void *b)
{
    uint64_t x = ((const struct restage_chunk *)a)->id.v;
    uint64_t y = ((const struct restage_chunk *)b)->id.v;
    return x < y ? -1 : x > y;
}

static int
compare_places(const void *a, const void *b)
{
    const struct restage_chunk *x = a;
    const struct restage_chunk *y = b;
    if (x->object.v != y->object.v)
        return x->object.v < y->object.v ? -1 : 1;
    return x->index.v < y->index.v ? -1 : x->index.v > y->index.v;
}

// All images of an unpublished pack were put since the last publication, so that the unpublished
// changes name all of them. A delta's chunk is among them too.
static int
note_chunk(void *argument, const struct change *c)
{
    struct search *s = argument;
    if (c->kind != CHANGE_PUT_CHUNK)
        return 0;
    struct checkpoint_restage *out = s->out;
    if (out->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 64;
        out->chunks = memory_realloc(out->chunks, s->capacity * sizeof(*out->chunks));
    }
    out->chunks[out->count++] = (struct restage_chunk){
        .id = c->chunk.id,
        .object = c->chunk.object,
        .index = c->chunk.index,
        .base = is_wasted(s, &c->chunk.base),
    };
    return 0;
}

static int
note_delta(void *argument, const struct change *c)
{
    struct search *s = argument;
    if (c->kind != CHANGE_PUT_DELTA || s->out->count == 0 || !is_wasted(s, &c->delta.where))
        return 0;
    struct restage_chunk key = {.id = c->delta.chunk};
    struct restage_chunk *found =
        bsearch(&key, s->out->chunks, s->out->count, sizeof(key), compare_ids);
    if (found)
        found->deltas = true;
    return 0;
}

static void
drop_others(struct checkpoint_restage *out)
{
    size_t kept = 0;
    for (size_t i = 0; i < out->count; i++)
        if (out->chunks[i].base || out->chunks[i].deltas)
            out->chunks[kept++] = out->chunks[i];
    out->count = kept;
    if (kept > 0)
        qsort(out->chunks, out->count, sizeof(*out->chunks), compare_places);
}

static void
add_offered(const struct checkpoint_offer *offer, struct checkpoint_restage *out)
{
    size_t count = out->count;
    out->chunks = memory_realloc(out->chunks, (count + offer->count) * sizeof(*out->chunks));
    for (size_t i = 0; i < offer->count; i++)
        out->chunks[count++] = (struct restage_chunk){
            .object = offer->chunks[i].object, .index = offer->chunks[i].index, .upkeep = true};
    if (count > 0)
        qsort(out->chunks, count, sizeof(*out->chunks), compare_places);
    out->count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct restage_chunk *c = &out->chunks[i];
        struct restage_chunk *last = out->count > 0 ? &out->chunks[out->count - 1] : NULL;
        if (last && compare_places(last, c) == 0) {
            last->base |= c->base;
            last->deltas |= c->deltas;
            last->upkeep |= c->upkeep;
        } else {
            out->chunks[out->count++] = *c;
        }
    }
}

int
checkpoint_find_restage(struct checkpoint *c, struct manifest_reader *r,
    struct generation publishing, struct checkpoint_restage *out)
{
    struct db_id db = c->options.db;
    struct search s = {.c = c, .publishing = publishing, .out = out};
    *out = (struct checkpoint_restage){0};
    int rc = manifest_read_unpublished_blobs(r, db, note_pack, &s);
    if (rc == 0 && s.pack_count > 0) {
        qsort(s.packs, s.pack_count, sizeof(*s.packs), compare_hashes);
        rc = manifest_export_unpublished(r, db, note_chunk, &s);
        if (out->count > 0)
            qsort(out->chunks, out->count, sizeof(*out->chunks), compare_ids);
        if (rc == 0)
            rc = manifest_export_unpublished(r, db, note_delta, &s);
        drop_others(out);
    }
    free(s.packs);
    if (rc == 0 && c->fold.offer && c->fold.offer->count > 0)
        add_offered(c->fold.offer, out);
    return rc;
}

const struct restage_chunk *
checkpoint_restage_from(
    const struct checkpoint_restage *restage, struct object_id object, struct chunk_index index)
{
    struct restage_chunk key = {.object = object, .index = index};
    size_t low = 0;
    size_t high = restage->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare_places(&restage->chunks[middle], &key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < restage->count ? &restage->chunks[low] : NULL;
}
