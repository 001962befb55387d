// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/checkpoint_offer.h"

#include <stdlib.h>
#include <string.h>

#include "platform/memory.h"

struct checkpoint_offer *
checkpoint_offer_new(void)
{
    return memory_alloc_zero(sizeof(struct checkpoint_offer));
}

void
checkpoint_offer_free(struct checkpoint_offer *offer)
{
    if (!offer)
        return;
    pin_end(offer->pin);
    free(offer->chunks);
    free(offer->images);
    free(offer->packs);
    free(offer);
}

// Room for one more of `size` bytes; arrays grow at powers of two.
static void *
grow(void *array, size_t count, size_t size)
{
    if (count >= 16 && (count & (count - 1)) != 0)
        return array;
    return count > 0 && count < 16 ? array : memory_realloc(array, (count ? 2 * count : 16) * size);
}

void
checkpoint_offer_add_chunk(
    struct checkpoint_offer *offer, struct object_id object, struct chunk_index index)
{
    offer->chunks = grow(offer->chunks, offer->count, sizeof(*offer->chunks));
    offer->chunks[offer->count++] = (struct offered_chunk){object, index};
}

void
checkpoint_offer_add_image(
    struct checkpoint_offer *offer, const struct sha256 *blob, uint64_t offset)
{
    offer->images = grow(offer->images, offer->image_count, sizeof(*offer->images));
    offer->images[offer->image_count++] = (struct offered_image){*blob, offset};
}

static int
compare_chunks(const void *p, const void *q)
{
    const struct offered_chunk *x = p;
    const struct offered_chunk *y = q;
    if (x->object.v != y->object.v)
        return x->object.v < y->object.v ? -1 : 1;
    return x->index.v < y->index.v ? -1 : x->index.v > y->index.v;
}

static int
compare_images(const void *p, const void *q)
{
    const struct offered_image *x = p;
    const struct offered_image *y = q;
    int order = memcmp(&x->blob, &y->blob, sizeof(x->blob));
    return order != 0 ? order : x->offset < y->offset ? -1 : x->offset > y->offset;
}

void
checkpoint_offer_finish(struct checkpoint_offer *offer)
{
    if (offer->count > 0)
        qsort(offer->chunks, offer->count, sizeof(*offer->chunks), compare_chunks);
    if (offer->image_count > 0)
        qsort(offer->images, offer->image_count, sizeof(*offer->images), compare_images);
}

bool
checkpoint_offer_has_image(
    const struct checkpoint_offer *offer, const struct sha256 *blob, uint64_t offset)
{
    const struct offered_image key = {*blob, offset};
    return offer && offer->image_count > 0 &&
           bsearch(&key, offer->images, offer->image_count, sizeof(key), compare_images);
}

const struct upkeep_pack *
checkpoint_offer_find_pack(const struct checkpoint_offer *offer, const struct sha256 *blob)
{
    return offer ? checkpoint_upkeep_find_pack(offer->packs, offer->pack_count, blob) : NULL;
}
