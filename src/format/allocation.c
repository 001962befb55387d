// SPDX-License-Identifier: Apache-2.0
#include "format/allocation.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/types.h"
#include "format/extension.h"

#define RANGE_BYTES 16u

// ---- bytes --------------------------------------------------------------------------------------

static int
decode_ranges(const struct extension *x, struct allocation *a)
{
    struct byte_reader r = byte_reader_over(x->value, x->length);
    const uint64_t end = pages_of_bytes(OBJECT_MAX_BYTES);
    if (x->length == 0 || x->length % RANGE_BYTES != 0 ||
        x->length / RANGE_BYTES > ALLOCATION_RANGES_MAX)
        return -EBADMSG;
    for (unsigned i = 0; i < x->length / RANGE_BYTES; i++) {
        uint64_t first = read_le64(&r);
        uint64_t pages = read_le64(&r);
        if (pages == 0 || first >= end || pages > end - first ||
            (i > 0 && first <= a->ranges[i - 1].end))
            return -EBADMSG;
        a->ranges[a->count++] = (struct allocation_range){first, first + pages};
    }
    return 0;
}

int
allocation_decode(const void *area, size_t length, struct allocation *allocation_out)
{
    struct extension x;
    allocation_out->count = 0;
    int rc = extension_find(area, length, ALLOCATION_EXTENSION, &x);
    return rc == 0 ? decode_ranges(&x, allocation_out) : rc == -ENOENT ? 0 : rc;
}

void
allocation_replace(
    const void *area, size_t length, const struct allocation *allocation, struct buffer *area_out)
{
    uint8_t value[RANGE_BYTES * ALLOCATION_RANGES_MAX];
    for (unsigned i = 0; i < allocation->count; i++) {
        const struct allocation_range *range = &allocation->ranges[i];
        put_le64(value + i * RANGE_BYTES, range->first);
        put_le64(value + i * RANGE_BYTES + 8, range->end - range->first);
    }
    extension_replace(
        area, length, ALLOCATION_EXTENSION, value, allocation->count * RANGE_BYTES, area_out);
}

// ---- ranges -------------------------------------------------------------------------------------

static void
join_nearest(struct allocation_range *ranges, unsigned *count)
{
    unsigned nearest = 1;
    for (unsigned i = 2; i < *count; i++)
        if (ranges[i].first - ranges[i - 1].end < ranges[nearest].first - ranges[nearest - 1].end)
            nearest = i;
    ranges[nearest - 1].end = ranges[nearest].end;
    memmove(ranges + nearest, ranges + nearest + 1, (*count - nearest - 1) * sizeof(*ranges));
    --*count;
}

// `ranges` has room for one more than may be kept.
static void
keep(struct allocation *a, struct allocation_range *ranges, unsigned count)
{
    if (count > ALLOCATION_RANGES_MAX)
        join_nearest(ranges, &count);
    assert(count <= ALLOCATION_RANGES_MAX);
    memcpy(a->ranges, ranges, count * sizeof(*ranges));
    a->count = count;
}

void
allocation_add(struct allocation *a, uint64_t first, uint64_t end)
{
    struct allocation_range ranges[ALLOCATION_RANGES_MAX + 1];
    unsigned count = 0;
    unsigned i = 0;
    assert(first < end);
    while (i < a->count && a->ranges[i].end < first)
        ranges[count++] = a->ranges[i++];
    struct allocation_range added = {first, end};
    for (; i < a->count && a->ranges[i].first <= end; i++) {
        if (a->ranges[i].first < added.first)
            added.first = a->ranges[i].first;
        if (a->ranges[i].end > added.end)
            added.end = a->ranges[i].end;
    }
    ranges[count++] = added;
    while (i < a->count)
        ranges[count++] = a->ranges[i++];
    keep(a, ranges, count);
}

void
allocation_remove(struct allocation *a, uint64_t first, uint64_t end)
{
    struct allocation_range ranges[ALLOCATION_RANGES_MAX + 1];
    unsigned count = 0;
    for (unsigned i = 0; i < a->count; i++) {
        struct allocation_range before = a->ranges[i];
        struct allocation_range behind = a->ranges[i];
        if (before.end > first)
            before.end = first;
        if (behind.first < end)
            behind.first = end;
        if (first >= end || before.end >= a->ranges[i].end || behind.first <= a->ranges[i].first) {
            ranges[count++] = a->ranges[i]; // they do not meet
            continue;
        }
        if (before.first < before.end)
            ranges[count++] = before;
        if (behind.first < behind.end)
            ranges[count++] = behind;
    }
    keep(a, ranges, count);
}

bool
allocation_is_same(const struct allocation *a, const struct allocation *b)
{
    return a->count == b->count && memcmp(a->ranges, b->ranges, a->count * sizeof(*a->ranges)) == 0;
}

uint64_t
allocation_pages(const struct allocation *a, uint64_t first, uint64_t end)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < a->count; i++) {
        uint64_t from = a->ranges[i].first > first ? a->ranges[i].first : first;
        uint64_t to = a->ranges[i].end < end ? a->ranges[i].end : end;
        pages += from < to ? to - from : 0;
    }
    return pages;
}
