// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include "base/hash_table.h"
#include "format/blob.h"
#include "format/compress.h"
#include "platform/memory.h"
#include "tests/unit/blob_seal.h"

// ---- a model of an image: what each page should be ----------------------------------------------

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

static uint64_t
next_random(uint64_t *seed)
{
    return hash_u64((*seed)++);
}

enum content { CONTENT_ZERO, CONTENT_TEXT, CONTENT_RANDOM, CONTENT_LAST_BYTE, CONTENTS };

static void
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

static void
fill_mask(struct page_mask *mask, uint64_t *seed)
{
    for (uint64_t ranges = 1 + next_random(seed) % 6; ranges > 0; ranges--) {
        uint32_t from = (uint32_t)(next_random(seed) % PAGE_BYTES);
        uint32_t to = from + 1 + (uint32_t)(next_random(seed) % (PAGE_BYTES - from));
        page_mask_set(mask, from, to);
    }
}

static void
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

static struct model *
model_new(enum blob_kind kind)
{
    struct model *m = memory_alloc_zero(sizeof(*m));
    m->kind = kind;
    return m;
}

static void
model_free(struct model *m)
{
    for (uint32_t i = 0; i < CHUNK_PAGES; i++) {
        free(m->page[i].data);
        free(m->page[i].mask);
    }
    free(m);
}

// Runs of pages with random states, gaps and contents below `limit`.
static struct model *
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

static int
sink_take(void *argument, const void *p, size_t n)
{
    struct sink *s = argument;
    s->calls++;
    if (s->calls_until_failure > 0 && s->calls >= s->calls_until_failure)
        return s->calls == s->calls_until_failure ? -ENOSPC : -EIO;
    buffer_append(&s->bytes, p, n);
    return 0;
}

static int
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

static int
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

static struct blob_image_info
write_image(const struct model *m, struct buffer *image)
{
    struct sink sink = {0};
    struct blob_image_info info;
    ck_assert_int_eq(write_to_sink(m, &sink, &info), 0);
    ck_assert_uint_eq(info.image_bytes, sink.bytes.length);
    ck_assert_uint_eq(info.index_offset + info.index_bytes + BLOB_FOOTER_BYTES, info.image_bytes);
    *image = sink.bytes;
    return info;
}

// What the writer makes of the model: zeros elided, full patches turned to data, and so on.
static void
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

static struct blob_index *
parse_index(const struct buffer *image, const struct blob_image_info *info)
{
    struct blob_index *index;
    ck_assert_int_eq(blob_index_parse(image->data + info->index_offset,
                         image->length - info->index_offset, image->length, &index),
        0);
    return index;
}

static void
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
static void
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

static void
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

// ---- tests --------------------------------------------------------------------------------------

START_TEST(random_images_hold_what_was_added)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        enum blob_kind kind = seed % 3 == 0 ? BLOB_BASE : BLOB_DELTA;
        uint32_t limit = seed == 12 ? CHUNK_PAGES : (uint32_t)(1u << seed);
        struct model *m = model_random(kind, limit, seed * 1000000);
        BUFFER_AUTO image = {0};
        struct blob_image_info info = write_image(m, &image);
        compare_image(m, &image, &info);
        model_free(m);
    }
}
END_TEST

START_TEST(pages_far_apart_and_at_both_ends)
{
    uint64_t seed = 5;
    struct model *m = model_new(BLOB_DELTA);
    model_put(m, 0, BLOB_PAGE_PATCH, CONTENT_RANDOM, &seed);
    model_put(m, 1, BLOB_PAGE_ZERO, CONTENT_ZERO, &seed);
    model_put(m, 8000, BLOB_PAGE_DATA, CONTENT_TEXT, &seed);
    model_put(m, CHUNK_PAGES - 1, BLOB_PAGE_PATCH, CONTENT_RANDOM, &seed);
    BUFFER_AUTO image = {0};
    struct blob_image_info info = write_image(m, &image);
    compare_image(m, &image, &info);
    model_free(m);
}
END_TEST

START_TEST(empty_images_are_valid)
{
    for (int kind = BLOB_BASE; kind <= BLOB_DELTA; kind++) {
        struct model *m = model_new((enum blob_kind)kind);
        BUFFER_AUTO image = {0};
        struct blob_image_info info = write_image(m, &image);
        ck_assert_uint_eq(info.index_offset, BLOB_HEADER_BYTES);
        compare_image(m, &image, &info);
        model_free(m);
    }
}
END_TEST

START_TEST(equal_pages_give_equal_bytes)
{
    struct model *m = model_random(BLOB_DELTA, 500, 77);
    BUFFER_AUTO first = {0};
    BUFFER_AUTO second = {0};
    BUFFER_AUTO third = {0};
    write_image(m, &first);
    write_image(m, &second);
    ck_assert_uint_eq(first.length, second.length);
    ck_assert_mem_eq(first.data, second.data, first.length);
    // Bytes that a patch does not mark do not reach the image.
    for (uint32_t i = 0; i < CHUNK_PAGES; i++)
        if (m->page[i].state == BLOB_PAGE_PATCH) {
            uint8_t *other = memory_alloc(PAGE_BYTES);
            memset(other, 0xa5, PAGE_BYTES);
            page_mask_copy(m->page[i].mask, other, m->page[i].data);
            free(m->page[i].data);
            m->page[i].data = other;
        }
    model_normalise(m);
    write_image(m, &third);
    ck_assert_uint_eq(first.length, third.length);
    ck_assert_mem_eq(first.data, third.data, first.length);
    model_free(m);
}
END_TEST

START_TEST(zero_runs_merge_with_zero_data)
{
    uint8_t zeros[PAGE_BYTES] = {0};
    struct sink sink = {0};
    struct blob_image_info info;
    struct blob_writer *w = blob_writer_new(BLOB_DELTA, sink_take, &sink);
    ck_assert_int_eq(blob_writer_add_zero(w, 10, 5), 0);
    ck_assert_int_eq(blob_writer_add_data(w, 15, zeros), 0);
    ck_assert_int_eq(blob_writer_add_zero(w, 16, 0), 0);
    ck_assert_int_eq(blob_writer_add_zero(w, 16, 100), 0);
    ck_assert_int_eq(blob_writer_finish(w, &info), 0);
    blob_writer_free(w);
    struct blob_index *index = parse_index(&sink.bytes, &info);
    struct blob_page found;
    blob_index_find(index, 50, &found);
    ck_assert_int_eq(found.state, BLOB_PAGE_ZERO);
    ck_assert_uint_eq(found.first, 10);
    ck_assert_uint_eq(found.count, 106);
    ck_assert_uint_eq(info.zero_pages, 106);
    blob_index_free(index);
    buffer_free(&sink.bytes);
}
END_TEST

START_TEST(full_base_has_a_small_index_and_streams)
{
    static uint8_t data[PAGE_BYTES];
    uint64_t seed = 3;
    struct sink sink = {0};
    struct blob_image_info info;
    struct blob_writer *w = blob_writer_new(BLOB_BASE, sink_take, &sink);
    fill_page(data, CONTENT_RANDOM, &seed);
    for (uint32_t i = 0; i < CHUNK_PAGES; i++) {
        put_le32(data, i);
        ck_assert_int_eq(blob_writer_add_data(w, i, data), 0);
        // What is complete has been handed on: the header and all full frames.
        uint32_t frames = (i + 1) / BLOB_FRAME_PAGES;
        ck_assert_uint_eq(sink.calls, frames + (frames > 0));
        buffer_clear(&sink.bytes);
    }
    ck_assert_uint_eq(sink.calls, 1 + CHUNK_PAGES / BLOB_FRAME_PAGES);
    ck_assert_int_eq(blob_writer_finish(w, &info), 0);
    blob_writer_free(w);
    struct blob_index *index;
    ck_assert_int_eq(
        blob_index_parse(sink.bytes.data, sink.bytes.length, info.image_bytes, &index), 0);
    ck_assert_uint_le(blob_index_memory(index), 8192);
    ck_assert_uint_eq(blob_index_frames(index), CHUNK_PAGES / BLOB_FRAME_PAGES);
    blob_index_free(index);
    buffer_free(&sink.bytes);
}
END_TEST

START_TEST(compressible_frames_shrink_and_random_ones_stay_raw)
{
    for (int content = CONTENT_TEXT; content <= CONTENT_RANDOM; content++) {
        uint64_t seed = 9;
        struct model *m = model_new(BLOB_BASE);
        for (uint32_t i = 0; i < BLOB_FRAME_PAGES; i++)
            model_put(m, i, BLOB_PAGE_DATA, (enum content)content, &seed);
        BUFFER_AUTO image = {0};
        struct blob_image_info info = write_image(m, &image);
        uint64_t frame = info.index_offset - BLOB_HEADER_BYTES;
        if (content == CONTENT_TEXT)
            ck_assert_uint_lt(frame, BLOB_FRAME_BYTES / 10);
        else
            ck_assert_uint_eq(frame, BLOB_FRAME_STORED_MAX);
        model_free(m);
    }
}
END_TEST

START_TEST(writer_refuses_wrong_calls_and_goes_on)
{
    uint8_t data[PAGE_BYTES] = {1};
    struct page_mask mask = {0};
    struct page_mask full = {0};
    struct sink sink = {0};
    struct blob_image_info info;
    page_mask_set(&mask, 0, 10);
    page_mask_set(&full, 0, PAGE_BYTES);

    struct blob_writer *w = blob_writer_new(BLOB_BASE, sink_take, &sink);
    ck_assert_int_eq(blob_writer_add_patch(w, 1, data, &mask), -EINVAL);
    ck_assert_int_eq(blob_writer_add_patch(w, 1, data, &full), -EINVAL);
    ck_assert_int_eq(blob_writer_add_data(w, CHUNK_PAGES, data), -EINVAL);
    ck_assert_int_eq(blob_writer_add_data(w, UINT32_MAX, data), -EINVAL);
    ck_assert_int_eq(blob_writer_add_zero(w, 5, UINT32_MAX), -EINVAL);
    ck_assert_int_eq(blob_writer_add_zero(w, 5, CHUNK_PAGES - 4), -EINVAL);
    ck_assert_int_eq(blob_writer_add_data(w, 7, data), 0);
    ck_assert_int_eq(blob_writer_add_data(w, 7, data), -EINVAL);
    ck_assert_int_eq(blob_writer_add_zero(w, 6, 1), -EINVAL);
    ck_assert_int_eq(blob_writer_add_data(w, 8, data), 0);
    ck_assert_int_eq(blob_writer_finish(w, &info), 0);
    ck_assert_int_eq(blob_writer_add_data(w, 9, data), -EINVAL);
    ck_assert_int_eq(blob_writer_finish(w, &info), -EINVAL);
    blob_writer_free(w);
    ck_assert_int_eq(blob_image_check(sink.bytes.data, sink.bytes.length), 0);
    buffer_free(&sink.bytes);
    blob_writer_free(NULL);
    blob_index_free(NULL);
}
END_TEST

START_TEST(failing_sink_fails_the_writer_for_good)
{
    struct model *m = model_random(BLOB_DELTA, 300, 4);
    struct sink whole = {0};
    struct blob_image_info info;
    ck_assert_int_eq(write_to_sink(m, &whole, &info), 0);
    for (uint64_t at = 1; at <= whole.calls; at++) {
        struct sink sink = {.calls_until_failure = at};
        struct blob_writer *w = blob_writer_new(m->kind, sink_take, &sink);
        int rc = 0;
        uint32_t page = 0;
        for (; page < CHUNK_PAGES && rc == 0; page++)
            rc = add_page(w, page, &m->page[page]);
        if (rc == 0)
            rc = blob_writer_finish(w, &info);
        ck_assert_int_eq(rc, -ENOSPC);
        struct page_mask mask = {{1}};
        const uint8_t *data = m->page[page - 1].data ? m->page[page - 1].data : (uint8_t *)m;
        ck_assert_int_eq(blob_writer_add_data(w, page, data), -ENOSPC);
        ck_assert_int_eq(blob_writer_add_zero(w, page, 1), -ENOSPC);
        ck_assert_int_eq(blob_writer_add_patch(w, page, data, &mask), -ENOSPC);
        ck_assert_int_eq(blob_writer_finish(w, &info), -ENOSPC);
        ck_assert_uint_eq(info.image_bytes, 0);
        ck_assert_uint_eq(sink.calls, at); // nothing more was offered
        ck_assert_mem_eq(sink.bytes.data, whole.bytes.data, sink.bytes.length);
        blob_writer_free(w);
        buffer_free(&sink.bytes);
    }
    buffer_free(&whole.bytes);
    model_free(m);
}
END_TEST

// A small image with every kind of page.
static struct blob_image_info
small_image(struct buffer *image)
{
    uint64_t seed = 42;
    struct model *m = model_new(BLOB_DELTA);
    model_put(m, 3, BLOB_PAGE_DATA, CONTENT_TEXT, &seed);
    model_put(m, 4, BLOB_PAGE_DATA, CONTENT_LAST_BYTE, &seed);
    model_put(m, 5, BLOB_PAGE_ZERO, CONTENT_ZERO, &seed);
    model_put(m, 6, BLOB_PAGE_ZERO, CONTENT_ZERO, &seed);
    model_put(m, 9, BLOB_PAGE_DATA, CONTENT_LAST_BYTE, &seed);
    for (uint32_t i = 20; i < 22; i++) {
        model_put(m, i, BLOB_PAGE_PATCH, CONTENT_LAST_BYTE, &seed);
        *m->page[i].mask = (struct page_mask){0};
        page_mask_set(m->page[i].mask, 100, 200);
        page_mask_set(m->page[i].mask, 300, 400);
    }
    struct blob_image_info info = write_image(m, image);
    model_free(m);
    return info;
}

START_TEST(every_changed_byte_is_noticed)
{
    BUFFER_AUTO image = {0};
    small_image(&image);
    ck_assert_int_eq(blob_image_check(image.data, image.length), 0);
    for (size_t i = 0; i < image.length; i++)
        for (unsigned change = 1; change < 256; change++) {
            image.data[i] ^= (uint8_t)change;
            ck_assert_int_eq(blob_image_check(image.data, image.length), -EBADMSG);
            image.data[i] ^= (uint8_t)change;
        }
}
END_TEST

START_TEST(truncated_and_lengthened_images_are_refused)
{
    BUFFER_AUTO image = {0};
    struct blob_image_info info = small_image(&image);
    struct blob_index *index;
    for (size_t n = 0; n < image.length; n++) {
        // A copy of exactly that size, so that a sanitizer sees reads past the end.
        uint8_t *copy = memory_alloc(n + 1);
        memcpy(copy, image.data, n);
        ck_assert_int_eq(blob_image_check(copy, n), -EBADMSG);
        free(copy);
    }
    for (size_t n = 0; n < image.length - info.index_offset; n++) {
        const uint8_t *tail = image.data + image.length - n;
        ck_assert_int_eq(blob_index_parse(tail, n, image.length, &index), -EBADMSG);
        ck_assert_ptr_null(index);
    }
    const uint8_t *tail = image.data + info.index_offset;
    size_t n = image.length - info.index_offset;
    ck_assert_int_eq(blob_index_parse(tail, n, image.length - 1, &index), -EBADMSG);
    ck_assert_int_eq(blob_index_parse(tail, n, image.length + 1, &index), -EBADMSG);
    ck_assert_int_eq(
        blob_index_parse(tail, n, image.length + ((uint64_t)1 << 32), &index), -EBADMSG);
    ck_assert_int_eq(blob_index_parse(tail - 1, n + 1, image.length, &index), -EBADMSG);
    buffer_append_u8(&image, 0);
    ck_assert_int_eq(blob_image_check(image.data, image.length), -EBADMSG);
}
END_TEST

START_TEST(frames_with_a_wrong_shape_are_refused)
{
    static uint8_t out[BLOB_FRAME_BYTES];
    static const uint8_t zeros[BLOB_FRAME_STORED_MAX + 1];
    BUFFER_AUTO image = {0};
    struct blob_image_info info = small_image(&image);
    size_t n = info.index_offset - BLOB_HEADER_BYTES;
    uint8_t *frame = image.data + BLOB_HEADER_BYTES;
    uint32_t pages;
    ck_assert_int_eq(blob_frame_unpack(frame, n, out, &pages), 0);
    ck_assert_uint_eq(pages, 5);
    for (size_t length = 0; length < n; length++) {
        ck_assert_int_eq(blob_frame_unpack(frame, length, out, &pages), -EBADMSG);
        ck_assert_uint_eq(pages, 0);
    }
    for (size_t length = 0; length <= sizeof(zeros); length += length < 40 ? 1 : 999)
        ck_assert_int_eq(blob_frame_unpack(zeros, length, out, &pages), -EBADMSG);
    static const struct {
        uint32_t at;
        uint32_t value;
    } wrong[] = {
        {4, 0},
        {4, UINT32_MAX},
        {8, 0},
        {8, 4 * PAGE_BYTES},
        {8, 6 * PAGE_BYTES},
        {8, 5 * PAGE_BYTES + 1},
        {8, BLOB_FRAME_BYTES + PAGE_BYTES},
        {8, UINT32_MAX - 4095},
        {12, 0},
        {12, 2},
        {12, 3},
        {12, 0x10001},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++) {
        BUFFER_AUTO copy = {0};
        buffer_append(&copy, frame, n);
        put_le32(copy.data + wrong[i].at, wrong[i].value);
        put_le32(copy.data, crc32c(0, copy.data + 4, n - 4));
        ck_assert_int_eq(blob_frame_unpack(copy.data, n, out, &pages), -EBADMSG);
    }
}
END_TEST

enum where { IN_HEADER, IN_FRAME, IN_INDEX, IN_FOOTER };

// One field of the small image set to something, with all checksums made right.
struct forgery {
    enum where where;
    uint32_t at;
    uint32_t bytes;
    uint32_t value;
    int expected;
};

// Index of the small image: head 40, one frame length 4, then runs at 44: (3, 2 data), (5, 2 zero),
// (9, 1 data), (20, 2 patch); patches at 76: count, 100-200, 300-400, twice.
static const struct forgery forgeries[] = {
    {IN_HEADER, 8, 2, 2, -ENOTSUP},             // newer version
    {IN_HEADER, 8, 2, 0, -EBADMSG},             // no version
    {IN_HEADER, 10, 2, 65, -EBADMSG},           // length
    {IN_HEADER, 12, 4, 1, -EBADMSG},            // features that the index does not know of
    {IN_HEADER, 16, 4, 1u << 31, -ENOTSUP},     // incompatible feature
    {IN_HEADER, 20, 2, BLOB_BASE, -EBADMSG},    // another kind than the index
    {IN_HEADER, 22, 2, 1, -EBADMSG},            // reserved
    {IN_HEADER, 24, 4, 8192, -EBADMSG},         // page size
    {IN_HEADER, 28, 4, 32, -EBADMSG},           // frame pages
    {IN_HEADER, 32, 4, 1, -EBADMSG},            // reserved
    {IN_HEADER, 56, 4, 1u << 24, -EBADMSG},     // reserved
    {IN_FRAME, 8, 4, 4 * PAGE_BYTES, -EBADMSG}, // one page less
    {IN_INDEX, 0, 4, 1, -EBADMSG},              // features that the header does not know of
    {IN_INDEX, 4, 4, 1, -ENOTSUP},              // incompatible feature
    {IN_INDEX, 8, 2, BLOB_BASE, -EBADMSG},      // patches and zeros in a base
    {IN_INDEX, 8, 2, 0, -EBADMSG},              // kind
    {IN_INDEX, 8, 2, 3, -EBADMSG},              // kind
    {IN_INDEX, 10, 2, 1, -EBADMSG},             // reserved
    {IN_INDEX, 12, 4, 0, -EBADMSG},             // frames
    {IN_INDEX, 12, 4, 2, -EBADMSG},             //
    {IN_INDEX, 12, 4, UINT32_MAX, -EBADMSG},    //
    {IN_INDEX, 16, 4, 3, -EBADMSG},             // runs
    {IN_INDEX, 16, 4, 5, -EBADMSG},             //
    {IN_INDEX, 16, 4, 0x20000004, -EBADMSG},    //
    {IN_INDEX, 20, 4, 1, -EBADMSG},             // patches
    {IN_INDEX, 20, 4, 6, -EBADMSG},             //
    {IN_INDEX, 20, 4, UINT32_MAX, -EBADMSG},    //
    {IN_INDEX, 24, 4, 3, -EBADMSG},             // ranges
    {IN_INDEX, 24, 4, UINT32_MAX, -EBADMSG},    //
    {IN_INDEX, 28, 4, 4, -EBADMSG},             // slots
    {IN_INDEX, 28, 4, 6, -EBADMSG},             //
    {IN_INDEX, 28, 4, UINT32_MAX, -EBADMSG},    //
    {IN_INDEX, 32, 4, 3, -EBADMSG},             // zero pages
    {IN_INDEX, 32, 4, UINT32_MAX, -EBADMSG},    //
    {IN_INDEX, 36, 4, 1, -EBADMSG},             // reserved
    {IN_INDEX, 40, 4, 16, -EBADMSG},            // frame length
    {IN_INDEX, 40, 4, UINT32_MAX, -EBADMSG},    //
    {IN_INDEX, 44, 2, 4, -EBADMSG},             // run overlaps the next one
    {IN_INDEX, 44, 2, 100, -EBADMSG},           // runs out of order
    {IN_INDEX, 46, 2, 0, -EBADMSG},             // empty run
    {IN_INDEX, 46, 2, 1, -EBADMSG},             // slot left over
    {IN_INDEX, 48, 2, 0, -EBADMSG},             // run of absent pages
    {IN_INDEX, 48, 2, 4, -EBADMSG},             // unknown state
    {IN_INDEX, 48, 2, BLOB_PAGE_PATCH, -EBADMSG}, {IN_INDEX, 50, 2, 1, -EBADMSG}, // slot skipped
    {IN_INDEX, 54, 2, 1, -EBADMSG},                                               // count of zeros
    {IN_INDEX, 56, 2, BLOB_PAGE_DATA, -EBADMSG},
    {IN_INDEX, 58, 2, 2, -EBADMSG},        // zero run with a slot
    {IN_INDEX, 60, 2, 7, 0},               // another page: a different, valid image
    {IN_INDEX, 66, 2, 1, -EBADMSG},        // slot out of order
    {IN_INDEX, 66, 2, 40000, -EBADMSG},    // slot beyond the frames
    {IN_INDEX, 68, 2, CHUNK_PAGES - 2, 0}, // last pages of the chunk
    {IN_INDEX, 68, 2, CHUNK_PAGES - 1, -EBADMSG},
    {IN_INDEX, 68, 2, UINT16_MAX, -EBADMSG}, // beyond the chunk
    {IN_INDEX, 70, 2, UINT16_MAX, -EBADMSG}, // beyond the chunk
    {IN_INDEX, 76, 2, 0, -EBADMSG},          // patch without ranges
    {IN_INDEX, 76, 2, 1, -EBADMSG},          //
    {IN_INDEX, 76, 2, 3, -EBADMSG},          //
    {IN_INDEX, 76, 2, UINT16_MAX, -EBADMSG}, //
    {IN_INDEX, 78, 2, 200, -EBADMSG},        // empty range
    {IN_INDEX, 78, 2, 250, -EBADMSG},        // range that ends before it begins
    {IN_INDEX, 78, 2, 101, 0},               // a byte less, and zero it is
    {IN_INDEX, 80, 2, 300, -EBADMSG},        // ranges touch
    {IN_INDEX, 80, 2, 301, -EBADMSG},        // ranges overlap
    {IN_INDEX, 82, 2, 50, -EBADMSG},         // ranges out of order
    {IN_INDEX, 84, 2, PAGE_BYTES, 0},        // up to the end of the page
    {IN_INDEX, 84, 2, PAGE_BYTES + 1, -EBADMSG}, {IN_FOOTER, 0, 4, 0, -EBADMSG}, // magic
    {IN_FOOTER, 8, 2, 2, -ENOTSUP},                                              // newer version
    {IN_FOOTER, 8, 2, 0, -EBADMSG},                                              // no version
    {IN_FOOTER, 10, 2, 0, -EBADMSG},                                             // length
    {IN_FOOTER, 16, 4, 0, -EBADMSG},          // index inside the header
    {IN_FOOTER, 16, 4, 64, -EBADMSG},         // index instead of the frames
    {IN_FOOTER, 16, 4, UINT32_MAX, -EBADMSG}, // index beyond the image
    {IN_FOOTER, 20, 4, 0, -EBADMSG},          // index length
    {IN_FOOTER, 20, 4, UINT32_MAX, -EBADMSG}, //
    {IN_FOOTER, 24, 4, 0, -EBADMSG},          // image length
};

START_TEST(forged_fields_are_refused_whatever_the_checksums_say)
{
    for (size_t i = 0; i < ARRAY_LENGTH(forgeries); i++) {
        const struct forgery *f = &forgeries[i];
        BUFFER_AUTO image = {0};
        struct blob_image_info info = small_image(&image);
        ck_assert_uint_eq(info.index_bytes, 96);
        const size_t begin[] = {
            0, BLOB_HEADER_BYTES, info.index_offset, image.length - BLOB_FOOTER_BYTES};
        uint8_t *field = image.data + begin[f->where] + f->at;
        if (f->bytes == 2)
            put_le16(field, (uint16_t)f->value);
        else
            put_le32(field, f->value);
        blob_seal(image.data, image.length);
        int rc = blob_image_check(image.data, image.length);
        ck_assert_msg(rc == f->expected, "forgery %zu (part %d, byte %u, value %u): %d", i,
            (int)f->where, f->at, f->value, rc);
    }
}
END_TEST

// A frame of one raw page in an image of one page: `[64, 80)` header, `[80, 80 + 4096)` page.
static void
one_raw_page(struct buffer *image, enum blob_page_state state)
{
    uint64_t seed = 8;
    struct model *m = model_new(BLOB_DELTA);
    model_put(m, 0, state, CONTENT_RANDOM, &seed);
    if (state == BLOB_PAGE_PATCH) {
        *m->page[0].mask = (struct page_mask){0};
        page_mask_set(m->page[0].mask, 0, 4000);
    }
    struct blob_image_info info = write_image(m, image);
    ck_assert_uint_eq(info.index_offset, BLOB_HEADER_BYTES + BLOB_FRAME_HEADER + PAGE_BYTES);
    model_free(m);
}

START_TEST(images_that_could_be_written_another_way_are_refused)
{
    uint32_t page_at = BLOB_HEADER_BYTES + BLOB_FRAME_HEADER;
    BUFFER_AUTO image = {0};
    one_raw_page(&image, BLOB_PAGE_PATCH);
    image.data[page_at + 3999] ^= 1;
    blob_seal(image.data, image.length);
    ck_assert_int_eq(blob_image_check(image.data, image.length), 0);
    image.data[page_at + 4000] ^= 1; // not a valid byte of the patch
    blob_seal(image.data, image.length);
    ck_assert_int_eq(blob_image_check(image.data, image.length), -EBADMSG);

    buffer_free(&image);
    one_raw_page(&image, BLOB_PAGE_DATA);
    memset(image.data + page_at, 0, PAGE_BYTES); // should be a zero page
    blob_seal(image.data, image.length);
    ck_assert_int_eq(blob_image_check(image.data, image.length), -EBADMSG);
}
END_TEST

START_TEST(a_wrong_hash_alone_is_noticed)
{
    BUFFER_AUTO image = {0};
    small_image(&image);
    uint8_t *footer = image.data + image.length - BLOB_FOOTER_BYTES;
    footer[SEAL_SHA256_AT + 7] ^= 1;
    put_le32(footer + SEAL_CRC_AT, crc32c(0, footer, SEAL_CRC_AT));
    ck_assert_int_eq(blob_image_check(image.data, image.length), -EBADMSG);
}
END_TEST

START_TEST(masks_agree_with_a_map_of_bytes)
{
    uint64_t seed = 11;
    for (int round = 0; round < 200; round++) {
        static uint8_t map[PAGE_BYTES];
        static uint8_t from[PAGE_BYTES];
        static uint8_t to[PAGE_BYTES];
        struct page_mask mask = {0};
        memset(map, 0, sizeof(map));
        ck_assert(page_mask_is_empty(&mask));
        for (uint64_t ranges = next_random(&seed) % 20; ranges > 0; ranges--) {
            uint32_t a = (uint32_t)(next_random(&seed) % (PAGE_BYTES + 1));
            uint32_t b = (uint32_t)(next_random(&seed) % (PAGE_BYTES + 1));
            page_mask_set(&mask, a < b ? a : b, a < b ? b : a);
            memset(map + (a < b ? a : b), 1, a < b ? b - a : a - b);
        }
        memset(from, 7, sizeof(from));
        memset(to, 0, sizeof(to));
        page_mask_copy(&mask, to, from);
        for (uint32_t i = 0; i < PAGE_BYTES; i++)
            ck_assert_uint_eq(to[i], map[i] ? 7 : 0);
    }
    struct page_mask mask = {0};
    page_mask_set(&mask, 1, PAGE_BYTES);
    ck_assert(!page_mask_is_full(&mask));
    page_mask_set(&mask, 0, 1);
    ck_assert(page_mask_is_full(&mask));
}
END_TEST

// ---- golden bytes -------------------------------------------------------------------------------

static struct model *
golden_model(enum blob_kind kind)
{
    uint64_t seed = 20;
    struct model *m = model_new(kind);
    model_put(m, 0, BLOB_PAGE_DATA, CONTENT_TEXT, &seed);
    model_put(m, 1, BLOB_PAGE_DATA, CONTENT_LAST_BYTE, &seed);
    model_put(m, 2, BLOB_PAGE_ZERO, CONTENT_ZERO, &seed);
    model_put(m, 700, BLOB_PAGE_DATA, CONTENT_TEXT, &seed);
    if (kind == BLOB_DELTA)
        model_put(m, 701, BLOB_PAGE_PATCH, CONTENT_TEXT, &seed);
    for (uint32_t i = 800; i < 800 + BLOB_FRAME_PAGES - m->slots; i++)
        model_put(m, i, BLOB_PAGE_DATA, CONTENT_LAST_BYTE, &seed);
    // The last frame is short and raw.
    model_put(m, CHUNK_PAGES - 1, BLOB_PAGE_DATA, CONTENT_RANDOM, &seed);
    return m;
}

static void
append_hex(struct buffer *text, const struct buffer *image)
{
    for (size_t i = 0; i < image->length; i++)
        buffer_printf(
            text, "%02x%s", image->data[i], i % 32 == 31 || i + 1 == image->length ? "\n" : "");
}

static void
read_hex(const char *text, struct buffer *image)
{
    unsigned value;
    int used;
    for (; sscanf(text, " %2x%n", &value, &used) == 1; text += used)
        buffer_append_u8(image, (uint8_t)value);
}

// The stored image is read in every build; that the writer still makes it byte by byte is compared
// when liblz4 is of the release line that made it.
static void
compare_golden(const char *name, enum blob_kind kind)
{
    struct model *m = golden_model(kind);
    BUFFER_AUTO image = {0};
    BUFFER_AUTO text = {0};
    BUFFER_AUTO path = {0};
    BUFFER_AUTO golden_text = {0};
    BUFFER_AUTO golden = {0};
    struct blob_image_info info = write_image(m, &image);
    append_hex(&text, &image);
    buffer_printf(&path, "%s/%s", GOLDEN_DIRECTORY, name);
    if (getenv("CKPTFS_WRITE_GOLDEN"))
        ck_assert_int_eq(file_replace_whole(
                             &file_ops_system, buffer_string(&path), text.data, text.length, 0644),
            0);
    ck_assert_int_eq(file_read_whole(buffer_string(&path), 1 << 20, &golden_text), 0);
    if (strncmp(compress_library_version(), "1.9.", 4) == 0)
        ck_assert_str_eq(buffer_string(&text), buffer_string(&golden_text));
    read_hex(buffer_string(&golden_text), &golden);
    ck_assert_uint_gt(golden.length, BLOB_FOOTER_BYTES);
    info.index_offset =
        get_le32(golden.data + golden.length - BLOB_FOOTER_BYTES + SEAL_INDEX_OFFSET_AT);
    compare_image(m, &golden, &info);
    model_free(m);
}

START_TEST(format_has_not_changed)
{
    compare_golden("blob-base-1.hex", BLOB_BASE);
    compare_golden("blob-delta-1.hex", BLOB_DELTA);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("blob");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(random_images_hold_what_was_added);
    ADD(pages_far_apart_and_at_both_ends);
    ADD(empty_images_are_valid);
    ADD(equal_pages_give_equal_bytes);
    ADD(zero_runs_merge_with_zero_data);
    ADD(full_base_has_a_small_index_and_streams);
    ADD(compressible_frames_shrink_and_random_ones_stay_raw);
    ADD(writer_refuses_wrong_calls_and_goes_on);
    ADD(failing_sink_fails_the_writer_for_good);
    ADD(every_changed_byte_is_noticed);
    ADD(truncated_and_lengthened_images_are_refused);
    ADD(frames_with_a_wrong_shape_are_refused);
    ADD(forged_fields_are_refused_whatever_the_checksums_say);
    ADD(images_that_could_be_written_another_way_are_refused);
    ADD(a_wrong_hash_alone_is_noticed);
    ADD(masks_agree_with_a_map_of_bytes);
    ADD(format_has_not_changed);
    return unit_run(s);
}
