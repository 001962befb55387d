// SPDX-License-Identifier: Apache-2.0
// The indexes of a chunk's images: loaded at the first use, then kept with the layout. A reader
// needs those of all images above the one that has its page. When the first one has to come from
// the store, the others are asked for at the same time; and a small image comes whole.
#include <errno.h>
#include <stdlib.h>

#include "chunk/chunk_internal.h"
#include "platform/memory.h"

const uint8_t *
chunk_held_find(const struct chunk_held *held, size_t image)
{
    while (held && held->image != image)
        held = held->next;
    return held ? held->bytes : NULL;
}

void
chunk_held_free(struct chunk_held *held)
{
    while (held) {
        struct chunk_held *next = held->next;
        free(held);
        held = next;
    }
}

// One load of one index.
struct load {
    struct chunk_reader *r;
    struct chunk_layout *layout;
    struct chunk_image *image;
    bool ahead; // nobody waits for it
    bool came;  // by this load
};

static size_t
index_length(const struct chunk_image *im)
{
    return im->where.length - im->where.index_offset;
}

static bool
is_there(void *argument)
{
    const struct load *x = argument;
    return atomic_load(&x->image->index) != NULL;
}

// The bytes end with the index. It goes to the layout at once, so that readers who waited for the
// same request find it there, whether or not the bytes are kept.
static bool
take_index(void *argument, const uint8_t *p, size_t n)
{
    struct load *x = argument;
    struct blob_index *index;
    struct blob_index *expected = NULL;
    size_t length = index_length(x->image);
    if (blob_index_parse(p + (n - length), length, x->image->where.length, &index) < 0)
        return false;
    if (atomic_compare_exchange_strong(&x->image->index, &expected, index))
        chunk_map_account(x->r->map, x->layout, blob_index_memory(index));
    else
        blob_index_free(index);
    x->came = true;
    return true;
}

static bool
is_in_store(const struct chunk_reader *r, const struct chunk_image *im)
{
    return r->remote && (im->blob.residency & RESIDENCY_REMOTE);
}

static bool
is_kept(const struct remote_call *call)
{
    return !call->no_keep && !call->fetch.bypass_cache;
}

// Frames of a small image are in hot_cache afterwards, or held; they are verified when they are
// read, like all that is fetched ahead.
static bool
comes_whole(const struct chunk_reader *r, const struct chunk_image *im,
    const struct remote_call *call, struct chunk_held **held)
{
    return !call->local_only && is_in_store(r, im) && im->where.length <= CHUNK_WHOLE_MAX &&
           (held || is_kept(call));
}

// The usual case of an index that is not in memory: it lies in the local copy.
static bool
load_local(struct load *x, const struct remote_call *call)
{
    const struct chunk_image *im = x->image;
    size_t n = index_length(im);
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc(n);
    const struct iovec iov = {bytes, n};
    bool ok = chunk_read_local(
                  x->r, &im->blob, im->where.offset + im->where.index_offset, &iov, 1, call) == 0 &&
              take_index(x, bytes, n);
    if (ok)
        __atomic_fetch_add(&x->r->numbers.local_frames, 1, __ATOMIC_RELAXED);
    return ok;
}

static int
fetch(struct load *x, const struct remote_call *call, struct chunk_held **held)
{
    const struct chunk_image *im = x->image;
    bool whole = comes_whole(x->r, im, call, held);
    size_t n = whole ? im->where.length : index_length(im);
    struct chunk_held *bytes = memory_alloc(sizeof(*bytes) + n);
    const struct chunk_wanted wanted = {
        .offset = im->where.offset + im->where.length - n,
        .n = n,
        .p = bytes->bytes,
        .verify = take_index,
        .is_there = is_there,
        .argument = x,
        .ahead = x->ahead,
    };
    int rc = chunk_fetch(x->r, &im->blob, &wanted, call);
    if (rc == 0 && whole && held && x->came) {
        bytes->image = (size_t)(im - x->layout->images);
        bytes->next = *held;
        *held = bytes;
    } else {
        free(bytes);
    }
    return rc;
}

// The threads of the pool have no budget of a job, keep what they get, and go on when the reader
// has left.
static bool
may_use_pool(const struct remote_call *call)
{
    return call->class <= REMOTE_READ_AHEAD && !call->local_only && !call->budget && is_kept(call);
}

// The older images whose index the pool can get. Most of them the reader will need: a page is more
// often in an old image than in a new one.
static void
get_older(const struct load *x, const struct remote_call *call)
{
    struct chunk_layout *layout = x->layout;
    size_t first = (size_t)(x->image - layout->images) + 1;
    for (size_t i = first; i < layout->image_count; i++)
        if (is_in_store(x->r, &layout->images[i]))
            chunk_pool_get_index(x->r, layout, i, call->class);
}

int
chunk_index_get(struct chunk_reader *r, struct chunk_layout *layout, size_t image,
    const struct remote_call *call, struct chunk_held **held, const struct blob_index **index_out)
{
    struct load x = {.r = r, .layout = layout, .image = &layout->images[image]};
    int rc = 0;
    if (!is_there(&x) && (call->local_only || !load_local(&x, call))) {
        if (may_use_pool(call) && is_in_store(r, x.image))
            get_older(&x, call);
        rc = fetch(&x, call, held);
    }
    *index_out = atomic_load(&x.image->index);
    return rc;
}

void
chunk_index_load(struct chunk_reader *r, struct chunk_layout *layout, size_t image,
    const struct remote_call *call)
{
    struct load x = {.r = r, .layout = layout, .image = &layout->images[image], .ahead = true};
    if (!is_there(&x) && !load_local(&x, call))
        (void)!fetch(&x, call, NULL);
}

int
chunk_reader_index(struct chunk_reader *r, struct chunk_layout *layout, size_t image,
    const struct remote_call *call, const struct blob_index **index_out)
{
    return chunk_index_get(r, layout, image, call, NULL, index_out);
}
