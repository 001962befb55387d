// SPDX-License-Identifier: Apache-2.0
// Writes an image as its pages come. Held in memory: one frame, and the index as it will be stored.
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "format/blob_internal.h"
#include "platform/memory.h"

// Pages that follow each other with the same state, and with slots that follow each other.
struct run {
    uint32_t first;
    uint32_t count; // 0: there is none
    uint32_t slot;
    enum blob_page_state state;
};

struct blob_writer {
    enum blob_kind kind;
    blob_sink *sink;
    void *argument;
    int failed; // the error of the sink, for good
    bool finished;
    struct sha256_stream *hash;
    uint32_t written;
    uint32_t next_page; // pages below are taken

    uint32_t slots;
    uint32_t zero_pages;
    uint32_t patches;
    uint32_t ranges;
    struct run run; // still growing, not yet in `runs`
    struct buffer frame_lengths;
    struct buffer runs;
    struct buffer patch_ranges;

    uint8_t frame[BLOB_FRAME_STORED_MAX]; // that fills up: pages behind room for the header
    uint8_t packed[BLOB_FRAME_STORED_MAX];
};

struct blob_writer *
blob_writer_new(enum blob_kind kind, blob_sink *sink, void *argument)
{
    assert(kind == BLOB_BASE || kind == BLOB_DELTA);
    struct blob_writer *w = memory_alloc_zero(sizeof(*w));
    w->kind = kind;
    w->sink = sink;
    w->argument = argument;
    w->hash = sha256_stream_new();
    return w;
}

void
blob_writer_free(struct blob_writer *w)
{
    if (!w)
        return;
    sha256_stream_free(w->hash);
    buffer_free(&w->frame_lengths);
    buffer_free(&w->runs);
    buffer_free(&w->patch_ranges);
    free(w);
}

static int
give(struct blob_writer *w, const void *p, size_t n)
{
    if (w->failed == 0)
        w->failed = w->sink(w->argument, p, n);
    w->written += (uint32_t)n;
    return w->failed;
}

static int
give_header(struct blob_writer *w)
{
    uint8_t h[BLOB_HEADER_BYTES] = {0};
    memcpy(h + HEADER_MAGIC, BLOB_HEADER_MAGIC, BLOB_MAGIC_BYTES);
    put_le16(h + HEADER_VERSION, BLOB_VERSION);
    put_le16(h + HEADER_LENGTH, BLOB_HEADER_BYTES);
    put_le32(h + HEADER_COMPATIBLE, BLOB_COMPATIBLE_FEATURES);
    put_le32(h + HEADER_INCOMPATIBLE, BLOB_INCOMPATIBLE_FEATURES);
    put_le16(h + HEADER_KIND, (uint16_t)w->kind);
    put_le32(h + HEADER_PAGE_BYTES, PAGE_BYTES);
    put_le32(h + HEADER_FRAME_PAGES, BLOB_FRAME_PAGES);
    put_le32(h + HEADER_CRC, crc32c(0, h, HEADER_CRC));
    sha256_stream_update(w->hash, h, sizeof(h));
    return give(w, h, sizeof(h));
}

// Passes on bytes that the image's hash covers; the header goes ahead of the first ones.
static int
give_hashed(struct blob_writer *w, const void *p, size_t n)
{
    if (w->failed < 0)
        return w->failed;
    int rc = w->written == 0 ? give_header(w) : 0;
    if (rc < 0)
        return rc;
    sha256_stream_update(w->hash, p, n);
    return give(w, p, n);
}

static int
give_frame(struct blob_writer *w)
{
    uint32_t pages = w->slots % BLOB_FRAME_PAGES;
    if (pages == 0)
        pages = BLOB_FRAME_PAGES;
    const uint8_t *stored;
    uint32_t n = blob_frame_pack(w->frame, pages, w->packed, &stored);
    buffer_append_le32(&w->frame_lengths, n);
    return give_hashed(w, stored, n);
}

static void
close_run(struct blob_writer *w)
{
    if (w->run.count == 0)
        return;
    buffer_append_le16(&w->runs, (uint16_t)w->run.first);
    buffer_append_le16(&w->runs, (uint16_t)w->run.count);
    buffer_append_le16(&w->runs, (uint16_t)w->run.state);
    buffer_append_le16(&w->runs, (uint16_t)w->run.slot);
    w->run.count = 0;
}

static void
extend_run(struct blob_writer *w, enum blob_page_state state, uint32_t page, uint32_t count)
{
    struct run *run = &w->run;
    if (run->count > 0 && run->state == state && run->first + run->count == page) {
        run->count += count;
        return;
    }
    close_run(w);
    uint32_t slot = state == BLOB_PAGE_ZERO ? 0 : w->slots;
    *run = (struct run){page, count, slot, state};
}

// Whether `count` pages from `page` on may come now; takes them if so.
static int
take_pages(struct blob_writer *w, uint32_t page, uint32_t count)
{
    if (w->failed < 0)
        return w->failed;
    if (w->finished || page < w->next_page || count > CHUNK_PAGES || page > CHUNK_PAGES - count)
        return -EINVAL;
    w->next_page = page + count;
    return 0;
}

// The next slot's bytes, to be filled before end_slot.
static uint8_t *
begin_slot(struct blob_writer *w, enum blob_page_state state, uint32_t page)
{
    extend_run(w, state, page, 1);
    return w->frame + BLOB_FRAME_HEADER + w->slots % BLOB_FRAME_PAGES * PAGE_BYTES;
}

static int
end_slot(struct blob_writer *w)
{
    w->slots++;
    return w->slots % BLOB_FRAME_PAGES == 0 ? give_frame(w) : 0;
}

static void
put_zero(struct blob_writer *w, uint32_t page, uint32_t count)
{
    if (w->kind == BLOB_BASE || count == 0)
        return;
    extend_run(w, BLOB_PAGE_ZERO, page, count);
    w->zero_pages += count;
}

static int
put_data(struct blob_writer *w, uint32_t page, const uint8_t *data)
{
    if (blob_bytes_are_zero(data, PAGE_BYTES)) {
        put_zero(w, page, 1);
        return 0;
    }
    memcpy(begin_slot(w, BLOB_PAGE_DATA, page), data, PAGE_BYTES);
    return end_slot(w);
}

static int
put_patch(struct blob_writer *w, uint32_t page, const uint8_t *data, const struct page_mask *mask)
{
    uint8_t *slot = begin_slot(w, BLOB_PAGE_PATCH, page);
    memset(slot, 0, PAGE_BYTES);
    page_mask_copy(mask, slot, data);

    size_t count_at = w->patch_ranges.length;
    buffer_append_le16(&w->patch_ranges, 0);
    uint32_t ranges = 0;
    uint32_t from;
    uint32_t to = 0;
    for (; page_mask_next_range(mask, to, &from, &to); ranges++) {
        buffer_append_le16(&w->patch_ranges, (uint16_t)from);
        buffer_append_le16(&w->patch_ranges, (uint16_t)to);
    }
    put_le16(w->patch_ranges.data + count_at, (uint16_t)ranges);
    w->ranges += ranges;
    w->patches++;
    return end_slot(w);
}

int
blob_writer_add_data(struct blob_writer *w, uint32_t page, const uint8_t *data)
{
    int rc = take_pages(w, page, 1);
    return rc < 0 ? rc : put_data(w, page, data);
}

int
blob_writer_add_zero(struct blob_writer *w, uint32_t page, uint32_t count)
{
    int rc = take_pages(w, page, count);
    if (rc == 0)
        put_zero(w, page, count);
    return rc;
}

int
blob_writer_add_patch(
    struct blob_writer *w, uint32_t page, const uint8_t *data, const struct page_mask *mask)
{
    if (w->failed == 0 && w->kind == BLOB_BASE)
        return -EINVAL;
    int rc = take_pages(w, page, 1);
    if (rc < 0 || page_mask_is_empty(mask))
        return rc;
    if (page_mask_is_full(mask))
        return put_data(w, page, data);
    return put_patch(w, page, data, mask);
}

static void
make_index(struct blob_writer *w, struct buffer *index)
{
    close_run(w);
    uint8_t *h = buffer_extend(index, INDEX_HEAD_BYTES);
    memset(h, 0, INDEX_HEAD_BYTES);
    put_le32(h + INDEX_COMPATIBLE, BLOB_COMPATIBLE_FEATURES);
    put_le32(h + INDEX_INCOMPATIBLE, BLOB_INCOMPATIBLE_FEATURES);
    put_le16(h + INDEX_KIND, (uint16_t)w->kind);
    put_le32(h + INDEX_FRAMES, (uint32_t)(w->frame_lengths.length / INDEX_FRAME_BYTES));
    put_le32(h + INDEX_RUNS, (uint32_t)(w->runs.length / INDEX_RUN_BYTES));
    put_le32(h + INDEX_PATCHES, w->patches);
    put_le32(h + INDEX_RANGES, w->ranges);
    put_le32(h + INDEX_SLOTS, w->slots);
    put_le32(h + INDEX_ZERO_PAGES, w->zero_pages);
    buffer_append(index, w->frame_lengths.data, w->frame_lengths.length);
    buffer_append(index, w->runs.data, w->runs.length);
    buffer_append(index, w->patch_ranges.data, w->patch_ranges.length);
}

static int
give_footer(struct blob_writer *w, const struct buffer *index)
{
    struct sha256 hash;
    sha256_stream_peek(w->hash, &hash);
    uint8_t f[BLOB_FOOTER_BYTES] = {0};
    memcpy(f + FOOTER_MAGIC, BLOB_FOOTER_MAGIC, BLOB_MAGIC_BYTES);
    put_le16(f + FOOTER_VERSION, BLOB_VERSION);
    put_le16(f + FOOTER_LENGTH, BLOB_FOOTER_BYTES);
    put_le32(f + FOOTER_INDEX_CRC, crc32c(0, index->data, index->length));
    put_le32(f + FOOTER_INDEX_OFFSET, w->written - (uint32_t)index->length);
    put_le32(f + FOOTER_INDEX_BYTES, (uint32_t)index->length);
    put_le32(f + FOOTER_IMAGE_BYTES, w->written + BLOB_FOOTER_BYTES);
    memcpy(f + FOOTER_SHA256, hash.b, sizeof(hash.b));
    put_le32(f + FOOTER_CRC, crc32c(0, f, FOOTER_CRC));
    sha256_stream_update(w->hash, f, sizeof(f));
    return give(w, f, sizeof(f));
}

int
blob_writer_finish(struct blob_writer *w, struct blob_image_info *info_out)
{
    *info_out = (struct blob_image_info){0};
    if (w->failed < 0)
        return w->failed;
    if (w->finished)
        return -EINVAL;
    w->finished = true;
    int rc = w->slots % BLOB_FRAME_PAGES != 0 ? give_frame(w) : 0;
    if (rc < 0)
        return rc;
    BUFFER_AUTO index = {0};
    make_index(w, &index);
    rc = give_hashed(w, index.data, index.length);
    if (rc < 0)
        return rc;
    rc = give_footer(w, &index);
    if (rc < 0)
        return rc;
    *info_out = (struct blob_image_info){
        .image_bytes = w->written,
        .index_offset = w->written - BLOB_FOOTER_BYTES - index.length,
        .index_bytes = (uint32_t)index.length,
        .data_pages = w->slots,
        .zero_pages = w->zero_pages,
    };
    sha256_stream_finish(w->hash, &info_out->hash);
    return 0;
}
