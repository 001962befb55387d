// SPDX-License-Identifier: Apache-2.0
// Reads an index. Every field is taken for hostile until it is checked; the index in memory is then
// trusted without further checks.
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "format/blob_internal.h"
#include "platform/memory.h"

struct index_run {
    uint16_t first;
    uint16_t count;
    uint16_t slot;       // of the first page (data and patch)
    uint16_t patch : 14; // of the first page (patch)
    uint16_t state : 2;
};
_Static_assert(sizeof(struct index_run) == 8 && CHUNK_PAGES <= 1u << 14, "memory of an index");

struct byte_range {
    uint16_t from;
    uint16_t to; // exclusive
};

// One allocation: the arrays lie behind the struct.
struct blob_index {
    enum blob_kind kind;
    uint32_t frames;
    uint32_t runs;
    uint32_t patches;
    uint32_t ranges;
    uint32_t slots;
    uint32_t zero_pages;
    size_t memory;
    uint32_t *frame_offset;   // [frames + 1]; the last is the index's offset
    uint32_t *patch_range;    // [patches + 1]; the first range of each patch
    struct index_run *run;    // [runs]
    struct byte_range *range; // [ranges]
};

int
blob_footer_parse(const uint8_t *p, struct blob_footer *footer_out)
{
    *footer_out = (struct blob_footer){0};
    if (memcmp(p + FOOTER_MAGIC, BLOB_FOOTER_MAGIC, BLOB_MAGIC_BYTES) != 0)
        return -EBADMSG;
    if (get_le32(p + FOOTER_CRC) != crc32c(0, p, FOOTER_CRC))
        return -EBADMSG;
    if (get_le16(p + FOOTER_VERSION) > BLOB_VERSION)
        return -ENOTSUP;
    if (get_le16(p + FOOTER_VERSION) != BLOB_VERSION ||
        get_le16(p + FOOTER_LENGTH) != BLOB_FOOTER_BYTES)
        return -EBADMSG;
    footer_out->index_crc = get_le32(p + FOOTER_INDEX_CRC);
    footer_out->index_offset = get_le32(p + FOOTER_INDEX_OFFSET);
    footer_out->index_bytes = get_le32(p + FOOTER_INDEX_BYTES);
    footer_out->image_bytes = get_le32(p + FOOTER_IMAGE_BYTES);
    memcpy(footer_out->hash.b, p + FOOTER_SHA256, sizeof(footer_out->hash.b));
    return 0;
}

// Kind and counts into `head_out`; the counts fit the chunk, each other, and the `n` bytes.
static int
parse_head(const uint8_t *p, size_t n, struct blob_index *head_out)
{
    if (get_le32(p + INDEX_INCOMPATIBLE) & ~BLOB_INCOMPATIBLE_FEATURES)
        return -ENOTSUP;
    uint32_t kind = get_le16(p + INDEX_KIND);
    if (kind != BLOB_BASE && kind != BLOB_DELTA)
        return -EBADMSG;
    if (get_le16(p + INDEX_RESERVED_A) != 0 || get_le32(p + INDEX_RESERVED_B) != 0)
        return -EBADMSG;
    struct blob_index h = {
        .kind = (enum blob_kind)kind,
        .frames = get_le32(p + INDEX_FRAMES),
        .runs = get_le32(p + INDEX_RUNS),
        .patches = get_le32(p + INDEX_PATCHES),
        .ranges = get_le32(p + INDEX_RANGES),
        .slots = get_le32(p + INDEX_SLOTS),
        .zero_pages = get_le32(p + INDEX_ZERO_PAGES),
    };
    if (h.slots > CHUNK_PAGES || h.zero_pages > CHUNK_PAGES - h.slots || h.patches > h.slots)
        return -EBADMSG;
    if (h.kind == BLOB_BASE && (h.patches > 0 || h.zero_pages > 0))
        return -EBADMSG;
    if (h.frames != (h.slots + BLOB_FRAME_PAGES - 1) / BLOB_FRAME_PAGES)
        return -EBADMSG;
    if (h.runs > h.slots + h.zero_pages || h.ranges > h.patches * PATCH_RANGES_MAX)
        return -EBADMSG;
    uint64_t length = INDEX_HEAD_BYTES + (uint64_t)h.frames * INDEX_FRAME_BYTES +
                      (uint64_t)h.runs * INDEX_RUN_BYTES + (uint64_t)h.patches * INDEX_PATCH_BYTES +
                      (uint64_t)h.ranges * INDEX_RANGE_BYTES;
    if (length != n)
        return -EBADMSG;
    *head_out = h;
    return 0;
}

static struct blob_index *
index_new(const struct blob_index *head)
{
    size_t frame_bytes = (head->frames + 1) * sizeof(*head->frame_offset);
    size_t patch_bytes = (head->patches + 1) * sizeof(*head->patch_range);
    size_t run_bytes = head->runs * sizeof(*head->run);
    size_t range_bytes = head->ranges * sizeof(*head->range);
    size_t memory = sizeof(*head) + frame_bytes + patch_bytes + run_bytes + range_bytes;
    struct blob_index *index = memory_alloc_zero(memory);
    *index = *head;
    index->memory = memory;
    uint8_t *arrays = (uint8_t *)(index + 1);
    index->frame_offset = (uint32_t *)arrays;
    index->patch_range = (uint32_t *)(arrays + frame_bytes);
    index->run = (struct index_run *)(arrays + frame_bytes + patch_bytes);
    index->range = (struct byte_range *)(arrays + frame_bytes + patch_bytes + run_bytes);
    return index;
}

// The frames lie one after the other between header and index.
static int
parse_frames(struct blob_index *index, struct byte_reader *r, uint32_t index_offset)
{
    uint64_t offset = BLOB_HEADER_BYTES;
    for (uint32_t i = 0; i < index->frames; i++) {
        uint32_t stored = read_le32(r);
        uint32_t raw = blob_frame_pages(index->slots, i) * PAGE_BYTES;
        if (stored <= BLOB_FRAME_HEADER || stored > BLOB_FRAME_HEADER + raw)
            return -EBADMSG;
        index->frame_offset[i] = (uint32_t)offset;
        offset += stored;
    }
    index->frame_offset[index->frames] = (uint32_t)offset;
    return offset == index_offset ? 0 : -EBADMSG;
}

// Slots and pages of the runs so far.
struct run_totals {
    uint32_t next_page;
    uint32_t slots;
    uint32_t patches;
    uint32_t zero_pages;
    uint32_t last_state;
};

static int
parse_run(
    struct blob_index *index, struct byte_reader *r, struct index_run *run, struct run_totals *t)
{
    uint32_t first = read_le16(r);
    uint32_t count = read_le16(r);
    uint32_t state = read_le16(r);
    uint32_t slot = read_le16(r);
    if (first < t->next_page || count == 0 || count > CHUNK_PAGES || first > CHUNK_PAGES - count)
        return -EBADMSG;
    if (first == t->next_page && state == t->last_state)
        return -EBADMSG;
    if (state < BLOB_PAGE_DATA || state > BLOB_PAGE_PATCH)
        return -EBADMSG;
    if (index->kind == BLOB_BASE && state != BLOB_PAGE_DATA)
        return -EBADMSG;
    if (slot != (state == BLOB_PAGE_ZERO ? 0 : t->slots))
        return -EBADMSG;
    run->first = (uint16_t)first;
    run->count = (uint16_t)count;
    run->slot = (uint16_t)slot;
    run->state = state & 3u;
    run->patch = t->patches & (CHUNK_PAGES - 1);
    if (state == BLOB_PAGE_ZERO)
        t->zero_pages += count;
    else
        t->slots += count;
    if (state == BLOB_PAGE_PATCH)
        t->patches += count;
    t->next_page = first + count;
    t->last_state = state;
    return 0;
}

static int
parse_runs(struct blob_index *index, struct byte_reader *r)
{
    struct run_totals t = {0};
    for (uint32_t i = 0; i < index->runs; i++) {
        int rc = parse_run(index, r, &index->run[i], &t);
        if (rc < 0)
            return rc;
    }
    if (t.slots != index->slots || t.zero_pages != index->zero_pages || t.patches != index->patches)
        return -EBADMSG;
    return 0;
}

static int
parse_patch(struct byte_reader *r, struct byte_range *ranges, uint32_t count)
{
    uint32_t end = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t from = read_le16(r);
        uint32_t to = read_le16(r);
        if (from >= to || to > PAGE_BYTES || from < end || (i > 0 && from == end))
            return -EBADMSG;
        ranges[i] = (struct byte_range){(uint16_t)from, (uint16_t)to};
        end = to;
    }
    return count == 1 && ranges[0].from == 0 && end == PAGE_BYTES ? -EBADMSG : 0;
}

static int
parse_patches(struct blob_index *index, struct byte_reader *r)
{
    uint32_t done = 0;
    for (uint32_t i = 0; i < index->patches; i++) {
        uint32_t count = read_le16(r);
        if (count == 0 || count > index->ranges - done)
            return -EBADMSG;
        int rc = parse_patch(r, index->range + done, count);
        if (rc < 0)
            return rc;
        done += count;
        index->patch_range[i + 1] = done;
    }
    return done == index->ranges ? 0 : -EBADMSG;
}

static int
parse_body(struct blob_index *index, const uint8_t *p, size_t n, uint32_t index_offset)
{
    struct byte_reader r = byte_reader_over(p, n);
    read_bytes(&r, INDEX_HEAD_BYTES);
    int rc = parse_frames(index, &r, index_offset);
    if (rc == 0)
        rc = parse_runs(index, &r);
    if (rc == 0)
        rc = parse_patches(index, &r);
    if (rc == 0 && (r.bad || byte_reader_left(&r) != 0))
        rc = -EBADMSG;
    return rc;
}

int
blob_index_parse(const void *p, size_t n, uint64_t image_bytes, struct blob_index **index_out)
{
    const uint8_t *b = p;
    *index_out = NULL;
    if (n < INDEX_HEAD_BYTES + BLOB_FOOTER_BYTES)
        return -EBADMSG;
    size_t index_bytes = n - BLOB_FOOTER_BYTES;
    struct blob_footer footer;
    int rc = blob_footer_parse(b + index_bytes, &footer);
    if (rc < 0)
        return rc;
    if (footer.image_bytes != image_bytes || footer.index_bytes != index_bytes ||
        (uint64_t)footer.index_offset + n != image_bytes)
        return -EBADMSG;
    if (footer.index_crc != crc32c(0, b, index_bytes))
        return -EBADMSG;
    struct blob_index head;
    rc = parse_head(b, index_bytes, &head);
    if (rc < 0)
        return rc;
    struct blob_index *index = index_new(&head);
    rc = parse_body(index, b, index_bytes, footer.index_offset);
    if (rc < 0) {
        blob_index_free(index);
        return rc;
    }
    *index_out = index;
    return 0;
}

void
blob_index_free(struct blob_index *index)
{
    free(index);
}

enum blob_kind
blob_index_kind(const struct blob_index *index)
{
    return index->kind;
}

size_t
blob_index_memory(const struct blob_index *index)
{
    return index->memory;
}

uint32_t
blob_index_data_pages(const struct blob_index *index)
{
    return index->slots;
}

uint32_t
blob_index_frames(const struct blob_index *index)
{
    return index->frames;
}

// How many runs begin at or before `page`.
static uint32_t
runs_up_to(const struct blob_index *index, uint32_t page)
{
    uint32_t low = 0;
    uint32_t high = index->runs;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->run[middle].first <= page)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void
blob_index_find(const struct blob_index *index, uint32_t page, struct blob_page *page_out)
{
    assert(page < CHUNK_PAGES);
    *page_out = (struct blob_page){0};
    uint32_t next = runs_up_to(index, page);
    uint32_t gap_first = 0;
    if (next > 0) {
        const struct index_run *run = &index->run[next - 1];
        uint32_t at = page - run->first;
        if (at < run->count) {
            page_out->state = (enum blob_page_state)run->state;
            page_out->first = run->first;
            page_out->count = run->count;
            page_out->slot = run->state == BLOB_PAGE_ZERO ? 0 : run->slot + at;
            page_out->patch = run->state == BLOB_PAGE_PATCH ? run->patch + at : 0;
            return;
        }
        gap_first = (uint32_t)run->first + run->count;
    }
    uint32_t gap_end = next < index->runs ? index->run[next].first : CHUNK_PAGES;
    page_out->first = gap_first;
    page_out->count = gap_end - gap_first;
}

void
blob_index_mask(const struct blob_index *index, uint32_t patch, struct page_mask *mask_out)
{
    assert(patch < index->patches);
    *mask_out = (struct page_mask){0};
    for (uint32_t i = index->patch_range[patch]; i < index->patch_range[patch + 1]; i++)
        page_mask_set(mask_out, index->range[i].from, index->range[i].to);
}

void
blob_index_frame(
    const struct blob_index *index, uint32_t frame, uint64_t *offset_out, uint32_t *stored_out)
{
    assert(frame < index->frames);
    *offset_out = index->frame_offset[frame];
    *stored_out = index->frame_offset[frame + 1] - index->frame_offset[frame];
}
