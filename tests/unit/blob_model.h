// SPDX-License-Identifier: Apache-2.0
// A simple model of an image: an array of pages. Makes random ones, writes them with blob_writer,
// and compares an image with them. For test programs; include unit.h first.
#ifndef CKPTFS_TESTS_BLOB_MODEL_H
#define CKPTFS_TESTS_BLOB_MODEL_H

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/hash_table.h"
#include "format/blob.h"
#include "platform/memory.h"

struct model_page {
    enum blob_page_state state;
    uint8_t *data;          // data and patch
    struct page_mask *mask; // patch
};

struct model {
    enum blob_kind kind;
    uint32_t slots;
    uint32_t zeros;
    uint32_t patches;
    struct model_page page[CHUNK_PAGES];
};

static inline uint64_t
next_random(uint64_t *seed)
{
    return hash_u64((*seed)++);
}

enum content { CONTENT_ZERO, CONTENT_TEXT, CONTENT_RANDOM, CONTENT_LAST_BYTE, CONTENTS };

static inline void
fill_page(uint8_t *data, enum content content, uint64_t *seed)
{
    memset(data, 0, PAGE_BYTES);
    if (content == CONTENT_LAST_BYTE)
        data[PAGE_BYTES - 1] = 1;
    if (content == CONTENT_TEXT)
        for (size_t i = 0; i < PAGE_BYTES; i++)
            data[i] = (uint8_t)('a' + (i / 7 + i % 7) % 20);
    if (content == CONTENT_TEXT)
        put_le64(data, next_random(seed));
    if (content == CONTENT_RANDOM)
        for (size_t i = 0; i < PAGE_BYTES; i += 8)
            put_le64(data + i, next_random(seed));
}

static inline void
fill_mask(struct page_mask *mask, uint64_t *seed)
{
    for (uint64_t ranges = 1 + next_random(seed) % 6; ranges > 0; ranges--) {
        uint32_t from = (uint32_t)(next_random(seed) % PAGE_BYTES);
        uint32_t to = from + 1 + (uint32_t)(next_random(seed) % (PAGE_BYTES - from));
        page_mask_set(mask, from, to);
    }
}

static inline void
model_put(struct model *m, uint32_t page, enum blob_page_state state, enum content content,
    uint64_t *seed)
{
    struct model_page *p = &m->page[page];
    p->state = state;
    if (state == BLOB_PAGE_ABSENT || state == BLOB_PAGE_ZERO)
        return;
    p->data = memory_alloc(PAGE_BYTES);
    fill_page(p->data, content, seed);
    if (state == BLOB_PAGE_DATA)
        return;
    p->mask = memory_alloc_zero(sizeof(*p->mask));
    fill_mask(p->mask, seed);
}

static inline struct model *
model_new(enum blob_kind kind)
{
    struct model *m = memory_alloc_zero(sizeof(*m));
    m->kind = kind;
    return m;
}

static inline void
model_free(struct model *m)
{
    for (uint32_t i = 0; i < CHUNK_PAGES; i++) {
        free(m->page[i].data);
        free(m->page[i].mask);
    }
    free(m);
}

// Runs of pages with random states, gaps and contents below `limit`.
static inline struct model *
model_random(enum blob_kind kind, uint32_t limit, uint64_t seed)
{
    struct model *m = model_new(kind);
    uint32_t states = kind == BLOB_BASE ? 3 : 4;
    for (uint32_t at = 0; at < limit;) {
        enum blob_page_state state = (enum blob_page_state)(next_random(&seed) % states);
        enum content content = (enum content)(next_random(&seed) % CONTENTS);
        uint32_t count = 1 + (uint32_t)(next_random(&seed) % 40);
        for (; count > 0 && at < limit; count--, at++)
            model_put(m, at, state, content, &seed);
    }
    return m;
}

// ---- writing the model --------------------------------------------------------------------------

struct sink {
    struct buffer bytes;
    uint64_t calls_until_failure; // 0: never
    uint64_t calls;
};

static inline int
sink_take(void *argument, const void *p, size_t n)
{
    struct sink *s = argument;
    s->calls++;
    if (s->calls_until_failure > 0 && s->calls >= s->calls_until_failure)
        return s->calls == s->calls_until_failure ? -ENOSPC : -EIO;
    buffer_append(&s->bytes, p, n);
    return 0;
}

static inline int
add_page(struct blob_writer *w, uint32_t page, const struct model_page *p)
{
    switch (p->state) {
    case BLOB_PAGE_DATA:
        return blob_writer_add_data(w, page, p->data);
    case BLOB_PAGE_ZERO:
        return blob_writer_add_zero(w, page, 1);
    case BLOB_PAGE_PATCH:
        return blob_writer_add_patch(w, page, p->data, p->mask);
    case BLOB_PAGE_ABSENT:
        break;
    }
    return 0;
}

static inline int
write_to_sink(const struct model *m, struct sink *sink, struct blob_image_info *info_out)
{
    struct blob_writer *w = blob_writer_new(m->kind, sink_take, sink);
    int rc = 0;
    for (uint32_t i = 0; i < CHUNK_PAGES && rc == 0; i++)
        rc = add_page(w, i, &m->page[i]);
    if (rc == 0)
        rc = blob_writer_finish(w, info_out);
    if (rc == 0)
        ck_assert_int_eq(
            blob_writer_finish(w, info_out ? &(struct blob_image_info){0} : NULL), -EINVAL);
    blob_writer_free(w);
    return rc;
}

static inline struct blob_image_info
write_image(const struct model *m, struct buffer *image)
{
    struct sink sink = {0};
    struct blob_image_info info;
    ck_assert_int_eq(write_to_sink(m, &sink, &info), 0);
    ck_assert_uint_eq(info.image_bytes, sink.bytes.length);
    ck_assert_uint_eq(info.index_offset + info.index_bytes + BLOB_FOOTER_BYTES, info.image_bytes);
    struct sha256 hash;
    sha256_of(sink.bytes.data, sink.bytes.length, &hash);
    ck_assert(sha256_equal(&hash, &info.hash));
    *image = sink.bytes;
    return info;
}

// What the writer makes of the model: zeros elided, full patches turned to data, and so on.
static inline void
model_normalise(struct model *m)
{
    static const uint8_t zeros[PAGE_BYTES];
    m->slots = m->zeros = m->patches = 0;
    for (uint32_t i = 0; i < CHUNK_PAGES; i++) {
        struct model_page *p = &m->page[i];
        if (p->state == BLOB_PAGE_PATCH && page_mask_is_full(p->mask))
            p->state = BLOB_PAGE_DATA;
        if (p->state == BLOB_PAGE_PATCH && page_mask_is_empty(p->mask))
            p->state = BLOB_PAGE_ABSENT;
        if (p->state == BLOB_PAGE_DATA && memcmp(p->data, zeros, PAGE_BYTES) == 0)
            p->state = BLOB_PAGE_ZERO;
        if (p->state == BLOB_PAGE_ZERO && m->kind == BLOB_BASE)
            p->state = BLOB_PAGE_ABSENT;
        m->slots += p->state == BLOB_PAGE_DATA || p->state == BLOB_PAGE_PATCH;
        m->patches += p->state == BLOB_PAGE_PATCH;
        m->zeros += p->state == BLOB_PAGE_ZERO;
    }
}

// ---- comparing an image with the model ----------------------------------------------------------

static inline struct blob_index *
parse_index(const struct buffer *image, const struct blob_image_info *info)
{
    struct blob_index *index;
    ck_assert_int_eq(blob_index_parse(image->data + info->index_offset,
                         image->length - info->index_offset, image->length, &index),
        0);
    return index;
}

static inline void
compare_slot(const struct buffer *image, const struct blob_index *index,
    const struct blob_page *found, const struct model_page *p)
{
    static uint8_t frame[BLOB_FRAME_BYTES];
    static uint8_t page[PAGE_BYTES];
    uint64_t offset;
    uint32_t stored;
    uint32_t pages;
    blob_index_frame(index, found->slot / BLOB_FRAME_PAGES, &offset, &stored);
    ck_assert_int_eq(blob_frame_unpack(image->data + offset, stored, frame, &pages), 0);
    ck_assert_uint_lt(found->slot % BLOB_FRAME_PAGES, pages);
    const uint8_t *slot = frame + found->slot % BLOB_FRAME_PAGES * PAGE_BYTES;
    if (p->state == BLOB_PAGE_DATA) {
        ck_assert_mem_eq(slot, p->data, PAGE_BYTES);
        return;
    }
    struct page_mask mask;
    blob_index_mask(index, found->patch, &mask);
    ck_assert_mem_eq(&mask, p->mask, sizeof(mask));
    memset(page, 0, PAGE_BYTES);
    page_mask_copy(p->mask, page, p->data);
    ck_assert_mem_eq(slot, page, PAGE_BYTES);
}

// The run that holds `page` is as long as the model has pages of that state.
static inline void
compare_run(const struct model *m, uint32_t page, const struct blob_page *found)
{
    uint32_t end = found->first + found->count;
    ck_assert(found->first <= page && page < end && end <= CHUNK_PAGES);
    if (page == found->first)
        for (uint32_t i = found->first; i < end; i++)
            ck_assert_int_eq(m->page[i].state, found->state);
    if (found->first > 0)
        ck_assert_int_ne(m->page[found->first - 1].state, found->state);
    if (end < CHUNK_PAGES)
        ck_assert_int_ne(m->page[end].state, found->state);
}

static inline void
compare_image(struct model *m, const struct buffer *image, const struct blob_image_info *info)
{
    model_normalise(m);
    ck_assert_int_eq(blob_image_check(image->data, image->length), 0);
    struct blob_index *index = parse_index(image, info);
    ck_assert_int_eq(blob_index_kind(index), m->kind);
    ck_assert_uint_eq(blob_index_data_pages(index), m->slots);
    ck_assert_uint_eq(info->data_pages, m->slots);
    ck_assert_uint_eq(info->zero_pages, m->zeros);
    ck_assert_uint_eq(
        blob_index_frames(index), (m->slots + BLOB_FRAME_PAGES - 1) / BLOB_FRAME_PAGES);
    uint32_t slot = 0;
    uint32_t patch = 0;
    for (uint32_t i = 0; i < CHUNK_PAGES; i++) {
        struct blob_page found;
        blob_index_find(index, i, &found);
        ck_assert_int_eq(found.state, m->page[i].state);
        compare_run(m, i, &found);
        if (found.state == BLOB_PAGE_PATCH)
            ck_assert_uint_eq(found.patch, patch++);
        if (found.state == BLOB_PAGE_DATA || found.state == BLOB_PAGE_PATCH) {
            ck_assert_uint_eq(found.slot, slot++);
            compare_slot(image, index, &found, &m->page[i]);
        }
    }
    blob_index_free(index);
}

#endif
