// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include "format/compress.h"
#include "tests/unit/blob_model.h"
#include "tests/unit/blob_seal.h"

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

START_TEST(full_patches_become_data_and_empty_ones_nothing)
{
    uint64_t seed = 6;
    struct model *m = model_new(BLOB_DELTA);
    for (uint32_t i = 1; i <= 4; i++) {
        model_put(m, i, BLOB_PAGE_PATCH, i < 4 ? CONTENT_RANDOM : CONTENT_ZERO, &seed);
        *m->page[i].mask = (struct page_mask){0};
    }
    page_mask_set(m->page[1].mask, 0, PAGE_BYTES);
    page_mask_set(m->page[2].mask, 0, 1); // a patch between the two
    page_mask_set(m->page[4].mask, 0, PAGE_BYTES);
    BUFFER_AUTO image = {0};
    struct blob_image_info info = write_image(m, &image);
    compare_image(m, &image, &info);
    ck_assert_uint_eq(m->slots, 2);
    ck_assert_uint_eq(m->patches, 1);
    ck_assert_uint_eq(m->zeros, 1);
    model_free(m);
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
        if (sink.bytes.length > 0)
            ck_assert_mem_eq(sink.bytes.data, whole.bytes.data, sink.bytes.length);
        blob_writer_free(w);
        buffer_free(&sink.bytes);
    }
    buffer_free(&whole.bytes);
    model_free(m);
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
    ADD(full_patches_become_data_and_empty_ones_nothing);
    ADD(full_base_has_a_small_index_and_streams);
    ADD(compressible_frames_shrink_and_random_ones_stay_raw);
    ADD(writer_refuses_wrong_calls_and_goes_on);
    ADD(failing_sink_fails_the_writer_for_good);
    ADD(masks_agree_with_a_map_of_bytes);
    ADD(format_has_not_changed);
    return unit_run(s);
}
