// SPDX-License-Identifier: Apache-2.0
#include "chunk/chunk_reader.h"

#include <errno.h>
#include <stdlib.h>

#include "chunk/chunk_internal.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"

struct chunk_reader *
chunk_reader_new(const struct chunk_reader_options *options)
{
    struct chunk_reader *r = memory_alloc_zero(sizeof(*r));
    r->map = options->map;
    r->local = options->local;
    r->remote = options->remote;
    r->tenant = memory_string(options->tenant);
    r->volume_number = options->volume_number;
    r->deadline_ms = options->deadline_ms;
    r->heat = options->heat;
    lock_init(&r->lock, "chunk_reader", LOCK_RANK_FETCH);
    condition_init(&r->landed);
    list_init(&r->flights);
    chunk_pools_init(r);
    return r;
}

void
chunk_reader_free(struct chunk_reader *r)
{
    if (!r)
        return;
    chunk_pools_stop(r);
    condition_destroy(&r->landed);
    lock_destroy(&r->lock);
    free(r->tenant);
    free(r);
}

void
chunk_reader_numbers(struct chunk_reader *r, struct chunk_reader_numbers *numbers_out)
{
    const uint64_t *from = (const uint64_t *)&r->numbers;
    uint64_t *to = (uint64_t *)numbers_out;
    for (size_t i = 0; i < sizeof(*numbers_out) / sizeof(uint64_t); i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

// ---- finding pages ------------------------------------------------------------------------------

// Where a page's content comes from: the newest image that has it whole (or as zeros), and the
// patches above that, newest first.
struct place {
    size_t image; // image_count: nowhere (a hole)
    enum blob_page_state state;
    uint32_t slot;
    bool patched; // some newer image has a patch for it
    bool had;     // the answer has its content (patches come later)
};

// Returns how many pages from this one on, `most` at most, are in the same place but for their
// slots, which follow each other; or -errno.
static int64_t
find_run(struct chunk_reader *r, struct chunk_layout *layout, uint32_t page, uint32_t most,
    const struct remote_call *call, struct chunk_held **held, struct place *place_out)
{
    uint32_t end = CHUNK_PAGES;
    *place_out = (struct place){.image = layout->image_count, .state = BLOB_PAGE_ABSENT};
    if (UNLIKELY(layout->lost_count > 0) && chunk_layout_is_lost(layout, page, &end))
        return -EIO;
    if (end - page > most)
        end = page + most;
    for (size_t i = 0; i < layout->image_count; i++) {
        const struct blob_index *index;
        int rc = chunk_index_get(r, layout, i, call, held, &index);
        if (rc < 0)
            return rc;
        struct blob_page p;
        blob_index_find(index, page, &p);
        if (p.first + p.count < end)
            end = p.first + p.count;
        if (p.state == BLOB_PAGE_PATCH) {
            place_out->patched = true;
        } else if (p.state != BLOB_PAGE_ABSENT) {
            place_out->image = i;
            place_out->state = p.state;
            place_out->slot = p.slot;
            break;
        }
    }
    return end - page;
}

static int
run_in_layout(struct chunk_reader *r, struct chunk_layout *layout, uint32_t page,
    const struct remote_call *call, bool *hole_out, uint64_t *count_out)
{
    uint32_t lost_end;
    bool lost = chunk_layout_is_lost(layout, page, &lost_end);
    uint64_t end = lost_end;
    *hole_out = !lost; // a lost page was data
    for (size_t i = 0; i < layout->image_count && *hole_out; i++) {
        const struct blob_index *index;
        int rc = chunk_reader_index(r, layout, i, call, &index);
        if (rc < 0)
            return rc;
        struct blob_page p;
        blob_index_find(index, page, &p);
        if ((uint64_t)p.first + p.count < end)
            end = (uint64_t)p.first + p.count;
        if (p.state == BLOB_PAGE_ZERO)
            break;
        *hole_out = p.state == BLOB_PAGE_ABSENT;
    }
    *count_out = end - page;
    return 0;
}

int
chunk_reader_run(struct chunk_reader *r, struct object_id object, struct page_no page,
    const struct remote_call *call, bool *hole_out, uint64_t *count_out)
{
    static const struct remote_call no_limits;
    struct chunk_layout *layout;
    *hole_out = true;
    *count_out = CHUNK_PAGES - page_in_chunk(page);
    int rc = chunk_map_get(r->map, object, chunk_of_page(page), &layout);
    if (rc < 0)
        return rc;
    if (!layout) {
        struct chunk_index next;
        rc = chunk_map_next(r->map, object, chunk_of_page(page), &next);
        *count_out = next.v == UINT64_MAX ? UINT64_MAX - page.v : next.v * CHUNK_PAGES - page.v;
        return rc;
    }
    rc = run_in_layout(
        r, layout, page_in_chunk(page), call ? call : &no_limits, hole_out, count_out);
    chunk_layout_put(r->map, layout);
    return rc;
}

// ---- frames -------------------------------------------------------------------------------------

int
chunk_reader_frame(struct chunk_reader *r, struct chunk_layout *layout, size_t image,
    uint32_t frame, const struct remote_call *call, uint8_t out[BLOB_FRAME_BYTES])
{
    struct chunk_frames f = {.first = frame, .count = 1, .to = {out}};
    int rc = chunk_reader_index(r, layout, image, call, &f.index);
    return rc < 0 ? rc : chunk_frames_fetch(r, &layout->images[image], &f, call);
}

// ---- reading ------------------------------------------------------------------------------------

struct read {
    struct chunk_reader *r;
    struct chunk_layout *layout;
    const struct remote_call *call;
    uint32_t first; // page within the chunk
    size_t count;
    struct page **out; // NULL: the answer goes to `bytes`
    uint8_t *bytes;
    struct place *places;
    struct chunk_frames frames;
    struct chunk_held *held;
    chunk_page_sink *sink;
    void *sink_argument;
};

static struct page_no
absolute(const struct read *x, uint32_t page)
{
    return (struct page_no){x->layout->index.v * CHUNK_PAGES + page};
}

// Gives a page of the present frames to the sink, and to the answer if the reader asked for it.
static void
deliver(struct read *x, size_t image, uint32_t page, const uint8_t *data)
{
    size_t i = page - x->first;
    bool asked = page >= x->first && i < x->count;
    struct place place;
    if (asked)
        place = x->places[i];
    else if (find_run(x->r, x->layout, page, 1, x->call, &x->held, &place) < 0)
        return;
    if (place.image != image || place.state != BLOB_PAGE_DATA)
        return; // a newer image has this page
    if (place.had)
        return;
    struct page *content = NULL;
    bool sink = x->sink && !place.patched;
    if (sink || (asked && x->out)) {
        content = page_new();
        memcpy(content->data, data, PAGE_BYTES);
    }
    if (sink)
        x->sink(x->sink_argument, absolute(x, page), content);
    if (asked) {
        x->places[i].had = true;
        if (!x->out)
            memcpy(x->bytes + i * PAGE_BYTES, data, PAGE_BYTES);
        else
            x->out[i] = page_get(content);
    }
    page_put(content);
}

// Hands out all pages of the unpacked frames, but for frames that went to the answer as a whole.
// Slots are in page order, so the pages of a frame are found by walking on from the page that was
// asked for.
static void
deliver_frames(struct read *x, size_t image, uint32_t page, uint32_t slot)
{
    struct chunk_frames *f = &x->frames;
    uint32_t slot_end = f->first * BLOB_FRAME_PAGES;
    for (uint32_t i = 0; i < f->count; i++)
        slot_end += f->pages[i];
    struct blob_page p;
    while (page < CHUNK_PAGES && slot < slot_end) {
        uint32_t k = slot / BLOB_FRAME_PAGES - f->first;
        if (f->in_place[k]) {
            page = x->first + (uint32_t)((f->to[k] - x->bytes) / PAGE_BYTES) + BLOB_FRAME_PAGES;
            slot = (f->first + k + 1) * BLOB_FRAME_PAGES;
            continue;
        }
        blob_index_find(f->index, page, &p);
        if (p.state == BLOB_PAGE_ABSENT || p.state == BLOB_PAGE_ZERO) {
            page = p.first + p.count;
            continue;
        }
        slot = p.slot;
        if (slot >= slot_end)
            break;
        if (p.state == BLOB_PAGE_DATA)
            deliver(x, image, page,
                f->to[slot / BLOB_FRAME_PAGES - f->first] +
                    (size_t)(slot % BLOB_FRAME_PAGES) * PAGE_BYTES);
        page++;
        slot++;
    }
}

// The first page whose slot lies at or behind the beginning of a frame is at most FRAME_PAGES slots
// before `page`; walk back over the runs.
static uint32_t
first_page_of_frame(const struct blob_index *index, uint32_t page, uint32_t slot)
{
    uint32_t back = slot % BLOB_FRAME_PAGES;
    struct blob_page p;
    while (back > 0 && page > 0) {
        blob_index_find(index, page - 1, &p);
        if (p.state == BLOB_PAGE_ABSENT || p.state == BLOB_PAGE_ZERO) {
            page = p.first;
            continue;
        }
        page--;
        back--;
    }
    return page;
}

// How many frames, beginning with the one of page i, serve the pages that follow.
static uint32_t
frames_wanted(const struct read *x, size_t i)
{
    uint32_t first = x->places[i].slot / BLOB_FRAME_PAGES;
    uint32_t last = first;
    for (size_t k = i + 1; k < x->count; k++) {
        const struct place *p = &x->places[k];
        if (p->state != BLOB_PAGE_DATA || p->image != x->places[i].image)
            continue;
        uint32_t frame = p->slot / BLOB_FRAME_PAGES;
        if (frame > last + 1 || frame - first >= CHUNK_FRAMES_MAX)
            break;
        last = frame;
    }
    return last - first + 1;
}

// Whether page i and those behind it are a whole frame, in order and not yet there.
static bool
is_whole_frame(const struct read *x, size_t i, size_t image, uint32_t frame)
{
    if (x->count - i < BLOB_FRAME_PAGES)
        return false;
    for (uint32_t k = 0; k < BLOB_FRAME_PAGES; k++) {
        const struct place *p = &x->places[i + k];
        if (p->state != BLOB_PAGE_DATA || p->image != image || p->had ||
            p->slot != frame * BLOB_FRAME_PAGES + k)
            return false;
    }
    return true;
}

// Says where the frames go that begin with the one of page i. A frame that is asked for as a whole
// goes to the answer at once, and not to the sink: a reader of such pieces reads on, and its pages
// would only push out pages that others read again.
static void
place_frames(struct read *x, size_t i, size_t image)
{
    struct chunk_frames *f = &x->frames;
    uint32_t in_memory = 0;
    for (uint32_t k = 0; k < f->count; k++) {
        uint32_t slot = (f->first + k) * BLOB_FRAME_PAGES;
        while (i < x->count && (x->places[i].state != BLOB_PAGE_DATA ||
                                   x->places[i].image != image || x->places[i].slot < slot))
            i++;
        f->in_place[k] = !x->out && i < x->count && is_whole_frame(x, i, image, f->first + k);
        if (f->in_place[k])
            f->to[k] = x->bytes + i * PAGE_BYTES;
        else
            in_memory++;
    }
    chunk_frames_reserve(f, in_memory);
    for (uint32_t k = f->count; k-- > 0;)
        if (!f->in_place[k])
            f->to[k] = f->memory + (size_t)--in_memory * BLOB_FRAME_BYTES;
}

// Notes that the pages unpacked into the answer are there.
static void
note_placed(struct read *x)
{
    const struct chunk_frames *f = &x->frames;
    for (uint32_t k = 0; k < f->count; k++)
        if (f->in_place[k])
            for (uint32_t p = 0; p < BLOB_FRAME_PAGES; p++)
                x->places[(size_t)(f->to[k] - x->bytes) / PAGE_BYTES + p].had = true;
}

static int
read_frames_for(struct read *x, size_t i)
{
    const struct place place = x->places[i];
    struct chunk_image *image = &x->layout->images[place.image];
    struct chunk_frames *f = &x->frames;
    int rc = chunk_reader_index(x->r, x->layout, place.image, x->call, &f->index);
    if (rc < 0)
        return rc;
    f->whole = chunk_held_find(x->held, place.image);
    f->first = place.slot / BLOB_FRAME_PAGES;
    f->count = frames_wanted(x, i);
    place_frames(x, i, place.image);
    rc = chunk_frames_fetch(x->r, image, f, x->call);
    if (rc < 0)
        return rc;
    note_placed(x);
    uint32_t page = f->in_place[0]
                        ? x->first + (uint32_t)i
                        : first_page_of_frame(f->index, x->first + (uint32_t)i, place.slot);
    deliver_frames(x, place.image, page, f->first * BLOB_FRAME_PAGES);
    return x->places[i].had ? 0 : -EIO;
}

// Makes the page's content the answer's own, so that it may be changed.
static uint8_t *
own_page(struct read *x, size_t i)
{
    uint8_t *own;
    if (x->out) {
        struct page *result = page_new();
        own = result->data;
        if (x->out[i])
            memcpy(own, x->out[i]->data, PAGE_BYTES);
        page_put(x->out[i]);
        x->out[i] = result;
    } else {
        own = x->bytes + i * PAGE_BYTES;
    }
    if (!x->places[i].had)
        memset(own, 0, PAGE_BYTES);
    x->places[i].had = true;
    return own;
}

// Applies the patches above the pages read, oldest first.
static int
apply_patches(struct read *x, size_t i)
{
    uint32_t page = x->first + (uint32_t)i;
    uint8_t *result = own_page(x, i);
    struct chunk_frames *f = &x->frames;
    for (size_t k = x->places[i].image; k-- > 0;) {
        int rc = chunk_reader_index(x->r, x->layout, k, x->call, &f->index);
        if (rc < 0)
            return rc;
        struct blob_page p;
        blob_index_find(f->index, page, &p);
        if (p.state != BLOB_PAGE_PATCH)
            continue;
        struct page_mask mask;
        blob_index_mask(f->index, p.patch, &mask);
        f->whole = chunk_held_find(x->held, k);
        f->first = p.slot / BLOB_FRAME_PAGES;
        f->count = 1;
        chunk_frames_to_memory(f);
        rc = chunk_frames_fetch(x->r, &x->layout->images[k], f, x->call);
        if (rc < 0)
            return rc;
        page_mask_copy(&mask, result, f->to[0] + (size_t)(p.slot % BLOB_FRAME_PAGES) * PAGE_BYTES);
    }
    if (x->sink) {
        struct page *content = x->out ? page_get(x->out[i]) : page_new();
        if (!x->out)
            memcpy(content->data, result, PAGE_BYTES);
        x->sink(x->sink_argument, absolute(x, page), content);
        page_put(content);
    }
    return 0;
}

static int
find_places(struct read *x)
{
    for (size_t i = 0; i < x->count;) {
        struct place *p = &x->places[i];
        int64_t n = find_run(x->r, x->layout, x->first + (uint32_t)i, (uint32_t)(x->count - i),
            x->call, &x->held, p);
        if (n < 0)
            return (int)n;
        for (int64_t k = 1; k < n; k++) {
            p[k] = *p;
            p[k].slot += p->state == BLOB_PAGE_DATA ? (uint32_t)k : 0;
        }
        i += (size_t)n;
    }
    return 0;
}

static int
read_from_layout(struct read *x)
{
    int rc = find_places(x);
    for (size_t i = 0; rc == 0 && i < x->count; i++)
        if (x->places[i].state == BLOB_PAGE_DATA && !x->places[i].had)
            rc = read_frames_for(x, i);
    for (size_t i = 0; rc == 0 && i < x->count; i++)
        if (x->places[i].patched)
            rc = apply_patches(x, i);
    for (size_t i = 0; rc == 0 && !x->out && i < x->count; i++)
        if (!x->places[i].had)
            memset(x->bytes + i * PAGE_BYTES, 0, PAGE_BYTES);
    return rc;
}

// Where the answer to a read goes.
struct answer {
    struct page **pages;
    uint8_t *bytes; // without `pages`
    chunk_page_sink *sink;
    void *sink_argument;
};

// Pages of one chunk, which begin at `at` in the answer.
static int
read_chunk(struct chunk_reader *r, struct object_id object, struct page_no first, size_t count,
    const struct remote_call *call, const struct answer *answer, size_t at)
{
    struct chunk_layout *layout;
    int rc = chunk_map_get(r->map, object, chunk_of_page(first), &layout);
    if (rc == 0 && !layout && !answer->pages)
        memset(answer->bytes + at * PAGE_BYTES, 0, count * PAGE_BYTES);
    if (rc < 0 || !layout)
        return rc;
    struct read x = {
        .r = r,
        .layout = layout,
        .call = call,
        .first = page_in_chunk(first),
        .count = count,
        .out = answer->pages ? answer->pages + at : NULL,
        .bytes = answer->pages ? NULL : answer->bytes + at * PAGE_BYTES,
        .places = memory_alloc(count * sizeof(struct place)),
        .sink = answer->sink,
        .sink_argument = answer->sink_argument,
    };
    rc = read_from_layout(&x);
    free(x.places);
    free(x.frames.memory);
    chunk_held_free(x.held);
    chunk_layout_put(r->map, layout);
    return rc;
}

// Programs' reads, also those of what is here. The memory for pages and the kernel's cache answer
// others, which nobody sees here.
static void
note_heat(struct chunk_reader *r, struct object_id object, struct page_no first, size_t count,
    const struct remote_call *call)
{
    bool counts = !call || (call->class == REMOTE_FOREGROUND && !call->fetch.bypass_cache);
    if (r->heat && counts)
        part_heat_note(r->heat, object, first, count, clock_monotonic_ms() / 1000);
}

static int
read_chunks(struct chunk_reader *r, struct object_id object, struct page_no first, size_t count,
    const struct remote_call *call, const struct answer *answer)
{
    static const struct remote_call no_limits;
    int rc = 0;
    note_heat(r, object, first, count, call);
    for (size_t done = 0; rc == 0 && done < count;) {
        struct page_no page = {first.v + done};
        size_t n = CHUNK_PAGES - page_in_chunk(page);
        if (n > count - done)
            n = count - done;
        rc = read_chunk(r, object, page, n, call ? call : &no_limits, answer, done);
        done += n;
    }
    return rc;
}

int
chunk_reader_read(struct chunk_reader *r, struct object_id object, struct page_no first,
    size_t count, const struct remote_call *call, struct page **pages_out, chunk_page_sink *sink,
    void *sink_argument)
{
    struct answer answer = {.pages = pages_out, .sink = sink, .sink_argument = sink_argument};
    memset(pages_out, 0, count * sizeof(struct page *));
    int rc = read_chunks(r, object, first, count, call, &answer);
    if (rc < 0)
        for (size_t i = 0; i < count; i++) {
            page_put(pages_out[i]);
            pages_out[i] = NULL;
        }
    return rc;
}

int
chunk_reader_copy(struct chunk_reader *r, struct object_id object, struct page_no first,
    size_t count, const struct remote_call *call, uint8_t *out, chunk_page_sink *sink,
    void *sink_argument)
{
    struct answer answer = {.bytes = out, .sink = sink, .sink_argument = sink_argument};
    return read_chunks(r, object, first, count, call, &answer);
}
