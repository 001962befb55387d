// SPDX-License-Identifier: Apache-2.0
#include "fuse/snapshot_places.h"

#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/memory.h"

void
snapshot_places_init(struct snapshot_places *p)
{
    *p = (struct snapshot_places){.kept = SNAPSHOT_PLACES_KEPT};
    list_init(&p->let_go);
}

void
snapshot_places_destroy(struct snapshot_places *p)
{
    for (unsigned i = 0; i < p->count; i++)
        free(p->by_number[i]);
    free(p->by_number);
    hash_table_free(&p->by_name);
}

struct snapshot_place *
snapshot_places_get(const struct snapshot_places *p, unsigned number)
{
    return number > 0 && number <= p->count ? p->by_number[number - 1] : NULL;
}

static uint64_t
hash_of(const struct snapshot_name *is)
{
    return hash_u64_pair(is->generation.v, crc32c(0, is->name, strlen(is->name)));
}

static struct snapshot_place *
find(const struct snapshot_places *p, const struct snapshot_name *is, uint64_t hash)
{
    for (struct hash_node *n = hash_table_first(&p->by_name, hash); n;
         n = hash_table_next_same(n)) {
        struct snapshot_place *place = CONTAINER_OF(n, struct snapshot_place, node);
        if (place->is.generation.v == is->generation.v && strcmp(place->is.name, is->name) == 0)
            return place;
    }
    return NULL;
}

static bool
is_let_go(const struct snapshot_place *place)
{
    return place->references == 0 && place->files == 0;
}

static struct snapshot_place *
add(struct snapshot_places *p)
{
    struct snapshot_place *place = memory_alloc_zero(sizeof(*place));
    // The array grows at 0, 1, 2, 4, 8, ... places.
    if ((p->count & (p->count - 1)) == 0)
        p->by_number =
            memory_realloc(p->by_number, (p->count ? 2 * p->count : 1) * sizeof(*p->by_number));
    p->by_number[p->count] = place;
    place->number = ++p->count;
    list_append(&p->let_go, &place->let_go);
    return place;
}

struct snapshot_place *
snapshot_places_find(struct snapshot_places *p, const struct snapshot_name *is)
{
    uint64_t hash = hash_of(is);
    struct snapshot_place *place = find(p, is, hash);
    if (!place) {
        bool reuse = p->count >= p->kept && !list_is_empty(&p->let_go);
        if (!reuse && p->count == SNAPSHOT_PLACES_MAX)
            return NULL;
        place = reuse ? CONTAINER_OF(p->let_go.next, struct snapshot_place, let_go) : add(p);
        if (reuse)
            hash_table_remove(&p->by_name, &place->node);
        place->is = *is;
        place->has_root = false;
        place->incarnation = ++p->incarnations;
        hash_table_insert(&p->by_name, &place->node, hash);
    }
    snapshot_places_refer(p, place, 1);
    return place;
}

// ---- what refers to a place ---------------------------------------------------------------------

void
snapshot_places_refer(
    struct snapshot_places *p UNUSED, struct snapshot_place *place, uint64_t count)
{
    if (count > 0 && is_let_go(place))
        list_remove(&place->let_go);
    place->references += count;
}

void
snapshot_places_let_go(struct snapshot_places *p, struct snapshot_place *place, uint64_t count)
{
    // A kernel that forgets more than it was told is none that can be helped.
    if (is_let_go(place))
        return;
    place->references -= count < place->references ? count : place->references;
    if (is_let_go(place))
        list_append(&p->let_go, &place->let_go);
}

void
snapshot_places_file_opened(struct snapshot_places *p UNUSED, struct snapshot_place *place)
{
    if (is_let_go(place))
        list_remove(&place->let_go);
    place->files++;
}

void
snapshot_places_file_closed(struct snapshot_places *p, struct snapshot_place *place)
{
    if (place->files == 0)
        return;
    place->files--;
    if (is_let_go(place))
        list_append(&p->let_go, &place->let_go);
}
