// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>

#include "page/page_internal.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"

// How often a read begins anew when the layers moved under it before it gives up: each time a whole
// local generation must have been recorded in between.
#define ATTEMPTS_MAX 100

// One page as the layers had it at one moment: overlays from the top, and the bottom.
struct layered_page {
    struct dirty_page layers[2]; // masks are copies
    unsigned layer_count;
    enum { BOTTOM_NONE, BOTTOM_ZERO, BOTTOM_CHUNK } bottom;
    struct page *base; // for BOTTOM_CHUNK, once it was had; NULL: a hole
    bool copied;       // the answer has the page already
};

struct reading {
    struct page_store *ps;
    struct object_id object;
    struct page_no first;
    size_t count;
    uint64_t offset; // of the answer
    size_t length;
    uint8_t *out;
    struct layered_page *layered;
    uint64_t version;
    const struct remote_call *call;
    struct page_trickle *trickle; // NULL: not a cold scan of an open file
    // Pages on their way to the clean cache.
    struct keep {
        struct page_no page;
        struct page *content;
    } * keeps;
    size_t keep_count;
    size_t keep_capacity;
};

static void
look_locked(
    struct page_store *ps, struct object_id object, struct page_no page, struct layered_page *v)
{
    struct dirty_set *sets[] = {ps->active, ps->frozen};
    v->bottom = BOTTOM_CHUNK;
    for (unsigned i = 0; i < 2 && sets[i] && v->bottom == BOTTOM_CHUNK; i++) {
        struct dirty_page found;
        enum dirty_state state = dirty_set_find(sets[i], object, page, &found);
        if (state == DIRTY_ABSENT)
            continue;
        if (state == DIRTY_HOLE) {
            v->bottom = BOTTOM_ZERO;
            continue;
        }
        if (found.mask) {
            struct page_mask *copy = memory_alloc(sizeof(*copy));
            *copy = *found.mask;
            found.mask = copy;
        } else {
            v->bottom = BOTTOM_NONE;
        }
        v->layers[v->layer_count++] = found;
    }
}

// Whether no page of the read is in a layer: one look for all of them.
static bool
is_below_layers_locked(const struct reading *x)
{
    const struct dirty_set *sets[] = {x->ps->active, x->ps->frozen};
    for (unsigned i = 0; i < 2 && sets[i]; i++) {
        enum dirty_state state;
        uint64_t run = dirty_set_run(sets[i], x->object, x->first.v, x->count, &state);
        if (state != DIRTY_ABSENT || run < x->count)
            return false;
    }
    return true;
}

static void
look_at_all_locked(struct reading *x)
{
    bool below = x->count > 1 && is_below_layers_locked(x);
    for (size_t i = 0; i < x->count; i++)
        if (below)
            x->layered[i].bottom = BOTTOM_CHUNK;
        else
            look_locked(x->ps, x->object, (struct page_no){x->first.v + i}, &x->layered[i]);
}

static void
free_layered(struct reading *x)
{
    for (size_t i = 0; i < x->count; i++) {
        for (unsigned k = 0; k < x->layered[i].layer_count; k++) {
            page_put(x->layered[i].layers[k].page);
            free(x->layered[i].layers[k].mask);
        }
        page_put(x->layered[i].base);
    }
    memset(x->layered, 0, x->count * sizeof(*x->layered));
}

// ---- pages that must be read from chunks --------------------------------------------------------

static void
keep_page(void *argument, struct page_no page, struct page *content)
{
    struct reading *x = argument;
    if (x->keep_count == x->keep_capacity) {
        x->keep_capacity = x->keep_capacity ? 2 * x->keep_capacity : 32;
        x->keeps = memory_realloc(x->keeps, x->keep_capacity * sizeof(*x->keeps));
    }
    x->keeps[x->keep_count++] = (struct keep){page, page_get(content)};
}

// Puts the pages read into the clean cache, unless the local generation moved on meanwhile.
static void
cache_keeps(struct reading *x)
{
    lock_take(x->ps->lock);
    if (x->version == x->ps->version)
        for (size_t i = 0; i < x->keep_count; i++)
            page_cache_put(x->ps->clean, x->object, x->keeps[i].page, x->keeps[i].content);
    lock_release(x->ps->lock);
    for (size_t i = 0; i < x->keep_count; i++)
        page_put(x->keeps[i].content);
    free(x->keeps);
    x->keeps = NULL;
    x->keep_count = x->keep_capacity = 0;
}

// What gets the pages that come along: nothing, if they are not to be kept.
static chunk_page_sink *
sink_of(const struct reading *x)
{
    return x->call->fetch.bypass_cache ? NULL : keep_page;
}

// Whether the reader asked for all of a page, and it is in chunks as a whole: then it goes to the
// answer directly.
static bool
is_plain(const struct reading *x, size_t i)
{
    uint64_t begin = (x->first.v + i) * PAGE_BYTES;
    return x->layered[i].layer_count == 0 && begin >= x->offset &&
           begin + PAGE_BYTES <= x->offset + x->length;
}

static int
copy_run(struct reading *x, size_t from, size_t to)
{
    struct page_no first = {x->first.v + from};
    uint8_t *out = x->out + (first.v * PAGE_BYTES - x->offset);
    const struct trickle_read read = {x->object, x->version, first, to - from, x->call};
    int rc = x->trickle ? page_trickle_copy(x->trickle, x->ps->reader, &read, out)
                        : chunk_reader_copy(x->ps->reader, x->object, first, to - from, x->call,
                              out, sink_of(x), x);
    cache_keeps(x);
    if (rc < 0)
        return rc;
    for (size_t i = from; i < to; i++)
        x->layered[i].copied = true;
    return 0;
}

// The same by way of the window of a scan.
static int
read_by_trickle(struct reading *x, size_t from, size_t to)
{
    int rc = 0;
    for (size_t i = from; rc == 0 && i < to; i++) {
        const struct trickle_read read = {x->object, x->version, {x->first.v + i}, 1, x->call};
        x->layered[i].base = page_new();
        rc = page_trickle_copy(x->trickle, x->ps->reader, &read, x->layered[i].base->data);
    }
    return rc;
}

static int
read_run(struct reading *x, size_t from, size_t to)
{
    if (is_plain(x, from))
        return copy_run(x, from, to);
    if (x->trickle)
        return read_by_trickle(x, from, to);
    CLEANUP(memory_free_auto) struct page **pages = memory_alloc((to - from) * sizeof(*pages));
    int rc = chunk_reader_read(x->ps->reader, x->object, (struct page_no){x->first.v + from},
        to - from, x->call, pages, sink_of(x), x);
    cache_keeps(x);
    if (rc < 0)
        return rc;
    for (size_t i = from; i < to; i++)
        x->layered[i].base = pages[i - from];
    return 0;
}

// Whether page i must be read from chunks.
static bool
is_missing(struct reading *x, size_t i)
{
    struct layered_page *v = &x->layered[i];
    struct page_no page = {x->first.v + i};
    if (v->bottom == BOTTOM_CHUNK && !v->base)
        v->base = x->call->fetch.bypass_cache ? page_cache_peek(x->ps->clean, x->object, page)
                                              : page_cache_get(x->ps->clean, x->object, page);
    return v->bottom == BOTTOM_CHUNK && !v->base;
}

// Where the pages that must be read from chunks in the same way as page `from` end.
static size_t
end_of_run(const struct reading *x, size_t from)
{
    bool plain = is_plain(x, from);
    size_t end = from + 1;
    if (end < x->count)
        end += page_cache_gap(
            x->ps->clean, x->object, (struct page_no){x->first.v + end}, x->count - end);
    size_t i = from + 1;
    while (i < end && x->layered[i].bottom == BOTTOM_CHUNK && is_plain(x, i) == plain)
        i++;
    return i;
}

static int
read_bottoms(struct reading *x)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < x->count;) {
        size_t from = i++;
        if (!is_missing(x, from))
            continue;
        i = end_of_run(x, from);
        rc = read_run(x, from, i);
    }
    return rc;
}

// ---- putting together ---------------------------------------------------------------------------

// Bytes [from, to) of one page.
static int
copy_page(struct reading *x, const struct layered_page *v, uint32_t from, uint32_t to, uint8_t *out)
{
    const struct dirty_page *top = v->layer_count ? &v->layers[v->layer_count - 1] : NULL;
    if (v->layer_count == 1 && !top->mask && top->page) {
        memcpy(out, top->page->data + from, to - from);
        return 0;
    }
    if (v->layer_count == 0) {
        if (v->base)
            memcpy(out, v->base->data + from, to - from);
        else
            memset(out, 0, to - from);
        return 0;
    }
    uint8_t whole[PAGE_BYTES] = {0};
    if (v->base)
        memcpy(whole, v->base->data, PAGE_BYTES);
    for (unsigned k = v->layer_count; k-- > 0;) {
        const struct dirty_page *layer = &v->layers[k];
        uint8_t logged[PAGE_BYTES];
        const uint8_t *bytes = layer->page ? layer->page->data : logged;
        int rc = layer->page ? 0 : page_store_read_logged(x->ps, layer, logged);
        if (rc < 0)
            return rc;
        if (layer->mask)
            page_mask_copy(layer->mask, whole, bytes);
        else
            memcpy(whole, bytes, PAGE_BYTES);
    }
    memcpy(out, whole + from, to - from);
    return 0;
}

static int
copy_out(struct reading *x)
{
    uint32_t from = (uint32_t)(x->offset % PAGE_BYTES);
    size_t left = x->length;
    uint8_t *out = x->out;
    for (size_t i = 0; i < x->count; i++) {
        uint32_t to = PAGE_BYTES - from < left ? PAGE_BYTES : from + (uint32_t)left;
        int rc = x->layered[i].copied ? 0 : copy_page(x, &x->layered[i], from, to, out);
        if (rc < 0)
            return rc;
        out += to - from;
        left -= to - from;
        from = 0;
    }
    return 0;
}

// Notes the read, and makes the reader's threads fetch the pages that it will want next. A read
// that is repeated with the store was noted by the first try.
struct ahead {
    unsigned count;
    struct page_range ranges[PAGE_AHEAD_RANGES_MAX];
};

static void
note_locked(const struct reading *x, struct ahead *ahead)
{
    uint64_t end = x->first.v + x->count;
    ahead->count = 0;
    if (x->call->fetch.bypass_cache)
        return;
    if (!x->call->again)
        ahead->count = page_ahead_note(
            &x->ps->ahead, x->object, x->first.v, end, x->call->fetch.prefetch_hint, ahead->ranges);
    else if (x->call->fetch.prefetch_hint == PREFETCH_DETECT)
        ahead->count = page_ahead_note_miss(
            &x->ps->ahead, x->object, x->first.v, end, clock_monotonic_ms(), ahead->ranges);
}

// A reader that comes back with the store and belongs to no stream.
static void
note_random_locked(struct reading *x, struct remote_call *own)
{
    uint64_t end = x->first.v + x->count;
    if (!x->call->again || x->call->fetch.bypass_cache ||
        !page_ahead_is_random(&x->ps->ahead, x->object, x->first.v, end))
        return;
    *own = *x->call;
    own->random = true;
    x->call = own;
}

static void
fetch_ahead(const struct reading *x, const struct ahead *ahead)
{
    for (unsigned i = 0; i < ahead->count; i++)
        chunk_reader_ahead(x->ps->reader, x->object, (struct page_no){ahead->ranges[i].first},
            ahead->ranges[i].count);
}

static int
read_layers(struct reading *reading)
{
    struct reading x = *reading;
    struct page_store *ps = x.ps;
    struct object_id object = x.object;
    struct remote_call random;
    if (x.length == 0)
        return 0;
    x.first = page_of_offset(x.offset);
    x.count = pages_of_bytes(x.offset + x.length) - x.offset / PAGE_BYTES;
    x.layered = memory_alloc_zero(x.count * sizeof(*x.layered));
    int rc = 0;
    for (int attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        struct ahead ahead = {0};
        lock_take(ps->lock);
        x.version = ps->version;
        look_at_all_locked(&x);
        if (attempt == 0) {
            note_locked(&x, &ahead);
            note_random_locked(&x, &random);
        }
        lock_release(ps->lock);
        fetch_ahead(&x, &ahead);
        rc = read_bottoms(&x);
        if (rc == 0)
            rc = copy_out(&x);
        free_layered(&x);
        if (rc == 0 || rc == -EINTR || rc == -EREMOTE)
            break;
        // An image or a WAL segment may have gone away because a local generation took its place:
        // then the layers have moved and looking again helps. If they have not, it is an error.
        lock_take(ps->lock);
        bool moved = x.version != ps->version;
        lock_release(ps->lock);
        if (!moved)
            break;
    }
    if (rc == -ESTALE)
        log_error("page_store.read_failed",
            "object %llu at %llu: what holds these bytes has been let go",
            (unsigned long long)object.v, (unsigned long long)x.offset);
    free(x.layered);
    return rc == -ESTALE ? -EIO : rc;
}

int
page_store_read(struct page_store *ps, struct object_id object, uint64_t offset, size_t length,
    uint8_t *out, const struct remote_call *call)
{
    static const struct remote_call no_limits;
    struct reading x = {
        .ps = ps,
        .object = object,
        .offset = offset,
        .length = length,
        .out = out,
        .call = call ? call : &no_limits,
    };
    return read_layers(&x);
}

int
page_store_read_page_trickle(struct page_store *ps, struct page_trickle *t, struct object_id object,
    uint64_t offset, size_t length, uint8_t *out, const struct remote_call *call)
{
    struct remote_call bypass = call ? *call : (struct remote_call){0};
    bypass.fetch.bypass_cache = true;
    struct reading x = {
        .ps = ps,
        .object = object,
        .offset = offset,
        .length = length,
        .out = out,
        .call = &bypass,
        .trickle = t,
    };
    return read_layers(&x);
}
