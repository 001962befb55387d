// SPDX-License-Identifier: Apache-2.0
#include "page/page_ahead.h"

#include <assert.h>

#include "base/hash_table.h"

static uint32_t
doubled(uint32_t window, uint32_t least, uint32_t most)
{
    window *= 2;
    return window < least ? least : window > most ? most : window;
}

// ---- windows ------------------------------------------------------------------------------------

static unsigned
go_forward(struct page_stream *s, struct page_range *out)
{
    if (s->ahead < s->end)
        s->ahead = s->end;
    if (s->ahead - s->end > s->window / 2)
        return 0;
    s->window = doubled(s->window, PAGE_AHEAD_MIN_PAGES, PAGE_AHEAD_MAX_PAGES);
    *out = (struct page_range){s->ahead, s->end + s->window - s->ahead};
    s->ahead = s->end + s->window;
    return 1;
}

static unsigned
go_backward(struct page_stream *s, struct page_range *out)
{
    if (s->ahead > s->first)
        s->ahead = s->first;
    if (s->first - s->ahead > s->window / 2 || s->ahead == 0)
        return 0;
    s->window = doubled(s->window, PAGE_AHEAD_MIN_PAGES, PAGE_AHEAD_MAX_PAGES);
    uint64_t low = s->first > s->window ? s->first - s->window : 0;
    if (low >= s->ahead)
        return 0;
    *out = (struct page_range){low, s->ahead - low};
    s->ahead = low;
    return 1;
}

// The read that is `window` strides ahead; when the window grows, those before it, too.
static unsigned
go_strided(struct page_stream *s, struct page_range *out)
{
    uint32_t from = s->window > 0 ? s->window : 1;
    unsigned n = 0;
    s->window = doubled(s->window, 2, PAGE_AHEAD_STRIDES);
    for (uint32_t i = from; i <= s->window; i++) {
        int64_t first = (int64_t)s->first + (int64_t)i * s->stride;
        if (first < 0)
            break;
        out[n++] = (struct page_range){(uint64_t)first, s->end - s->first};
        if (n == PAGE_AHEAD_RANGES_MAX)
            break;
    }
    return n;
}

// ---- streams ------------------------------------------------------------------------------------

static enum page_direction
direction_of(const struct page_stream *s, uint64_t first, uint64_t end)
{
    if (first == s->end)
        return PAGE_FORWARD;
    if (end == s->first)
        return PAGE_BACKWARD;
    if (s->stride != 0 && (int64_t)(first - s->first) == s->stride &&
        end - first == s->end - s->first)
        return PAGE_STRIDED;
    return PAGE_UNKNOWN;
}

static bool
is_of(const struct page_stream *s, struct object_id object)
{
    return s->used > 0 && s->object.v == object.v;
}

// Whose place a new stream takes: one that has no direction rather than one that has.
static bool
goes_before(const struct page_stream *s, const struct page_stream *other)
{
    bool loose = s->direction == PAGE_UNKNOWN;
    bool other_loose = other->direction == PAGE_UNKNOWN;
    return loose != other_loose ? loose : s->used < other->used;
}

// The stream that the read goes on with, or the one whose place it takes. `last_out`: the last read
// of the object, or NULL.
static struct page_stream *
find_stream(struct page_ahead *a, struct object_id object, uint64_t first, uint64_t end,
    enum page_direction *direction_out, const struct page_stream **last_out)
{
    struct page_stream *set = a->streams[hash_u64(object.v) % PAGE_AHEAD_SETS];
    struct page_stream *victim = &set[0];
    struct page_stream *found = NULL;
    *direction_out = PAGE_UNKNOWN;
    *last_out = NULL;
    for (unsigned i = 0; i < PAGE_AHEAD_WAYS; i++) {
        struct page_stream *s = &set[i];
        enum page_direction direction =
            is_of(s, object) ? direction_of(s, first, end) : PAGE_UNKNOWN;
        if (is_of(s, object) && (!*last_out || s->used > (*last_out)->used))
            *last_out = s;
        if (direction != PAGE_UNKNOWN && (!found || s->used > found->used)) {
            found = s;
            *direction_out = direction;
        }
        if (goes_before(s, victim))
            victim = s;
    }
    return found ? found : victim;
}

static void
note_read(struct page_ahead *a, struct page_stream *s, struct page_stream read)
{
    bool goes_on = is_of(s, read.object) && read.direction == s->direction;
    read.window = goes_on ? s->window : 0;
    read.ahead = goes_on ? s->ahead : read.direction == PAGE_BACKWARD ? read.first : read.end;
    read.used = ++a->count;
    *s = read;
}

unsigned
page_ahead_note(struct page_ahead *a, struct object_id object, uint64_t first, uint64_t end,
    enum prefetch_hint hint, struct page_range ranges_out[PAGE_AHEAD_RANGES_MAX])
{
    enum page_direction direction;
    const struct page_stream *last;
    struct page_stream *s = find_stream(a, object, first, end, &direction, &last);
    if (hint == PREFETCH_FORWARD || hint == PREFETCH_BOTH)
        direction = PAGE_FORWARD;
    if (hint == PREFETCH_BACKWARD)
        direction = PAGE_BACKWARD;
    if (hint == PREFETCH_NONE)
        direction = PAGE_UNKNOWN;
    note_read(a, s,
        (struct page_stream){.object = object,
            .first = first,
            .end = end,
            .stride = last ? (int64_t)(first - last->first) : 0,
            .direction = direction});
    switch (s->direction) {
    case PAGE_FORWARD:
        break;
    case PAGE_BACKWARD:
        return go_backward(s, ranges_out);
    case PAGE_STRIDED:
        return go_strided(s, ranges_out);
    default:
        return 0;
    }
    unsigned n = go_forward(s, ranges_out);
    if (hint == PREFETCH_BOTH && n > 0 && first > 0) {
        uint64_t low = first > s->window ? first - s->window : 0;
        ranges_out[n++] = (struct page_range){low, first - low};
    }
    return n;
}

// ---- regions ------------------------------------------------------------------------------------

bool
page_ahead_is_random(
    const struct page_ahead *a, struct object_id object, uint64_t first, uint64_t end)
{
    const struct page_stream *set = a->streams[hash_u64(object.v) % PAGE_AHEAD_SETS];
    for (unsigned i = 0; i < PAGE_AHEAD_WAYS; i++)
        if (is_of(&set[i], object) && set[i].first == first && set[i].end == end &&
            set[i].direction != PAGE_UNKNOWN)
            return false;
    return true;
}

unsigned
page_ahead_note_miss(struct page_ahead *a, struct object_id object, uint64_t first, uint64_t end,
    uint64_t now_ms, struct page_range *range_out)
{
    uint64_t chunk = first / CHUNK_PAGES;
    struct page_region *r = &a->regions[hash_u64_pair(object.v, chunk) % PAGE_AHEAD_REGIONS];
    if (!page_ahead_is_random(a, object, first, end))
        return 0;
    if (r->object.v != object.v || r->chunk != chunk || now_ms - r->since_ms > PAGE_AHEAD_MEMORY_MS)
        *r = (struct page_region){.object = object, .chunk = chunk, .since_ms = now_ms};
    if (++r->misses < PAGE_AHEAD_MISSES)
        return 0;
    r->since_ms = now_ms;
    *range_out = (struct page_range){first - first % PAGE_AHEAD_BLOCK, PAGE_AHEAD_BLOCK};
    return 1;
}

void
page_ahead_check(const struct page_ahead *a)
{
    for (unsigned set = 0; set < PAGE_AHEAD_SETS; set++)
        for (unsigned i = 0; i < PAGE_AHEAD_WAYS; i++) {
            const struct page_stream *s = &a->streams[set][i];
            assert(s->window <= PAGE_AHEAD_MAX_PAGES && s->used <= a->count);
            assert(s->used == 0 || hash_u64(s->object.v) % PAGE_AHEAD_SETS == set);
            assert(s->used == 0 || s->first < s->end);
        }
}
