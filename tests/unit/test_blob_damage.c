// SPDX-License-Identifier: Apache-2.0
// Images that are damaged, forged, or written in a way that the writer does not.
#include "unit.h"

#include "format/compress.h"
#include "tests/unit/blob_model.h"
#include "tests/unit/blob_seal.h"

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

START_TEST(frames_do_not_unpack_more_than_fits)
{
    static uint8_t frame[BLOB_FRAME_HEADER + 1000];
    static const uint8_t zeros[BLOB_FRAME_BYTES + PAGE_BYTES];
    uint8_t *out = memory_alloc(BLOB_FRAME_BYTES); // a sanitizer sees a byte too many
    uint32_t pages;
    for (uint32_t raw = BLOB_FRAME_BYTES - 1; raw <= sizeof(zeros); raw++) {
        size_t n = BLOB_FRAME_HEADER + compress_block(zeros, raw, frame + BLOB_FRAME_HEADER, 1000);
        put_le32(frame + 4, (uint32_t)n);
        put_le32(frame + 8, raw);
        put_le16(frame + 12, 1);
        put_le32(frame, crc32c(0, frame + 4, n - 4));
        int rc = blob_frame_unpack(frame, n, out, &pages);
        ck_assert_int_eq(rc, raw == BLOB_FRAME_BYTES ? 0 : -EBADMSG);
    }
    free(out);
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
    {IN_HEADER, 16, 4, 1, -ENOTSUP},            // encrypted
    {IN_HEADER, 20, 2, BLOB_BASE, -EBADMSG},    // another kind than the index
    {IN_HEADER, 22, 2, 1, -EBADMSG},            // reserved
    {IN_HEADER, 24, 4, 8192, -EBADMSG},         // page size
    {IN_HEADER, 28, 4, 32, -EBADMSG},           // frame pages
    {IN_HEADER, 32, 4, 1, -EBADMSG},            // a key's id without encryption
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

int
main(void)
{
    Suite *s = suite_create("blob_damage");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(every_changed_byte_is_noticed);
    ADD(truncated_and_lengthened_images_are_refused);
    ADD(frames_with_a_wrong_shape_are_refused);
    ADD(frames_do_not_unpack_more_than_fits);
    ADD(forged_fields_are_refused_whatever_the_checksums_say);
    ADD(images_that_could_be_written_another_way_are_refused);
    ADD(a_wrong_hash_alone_is_noticed);
    return unit_run(s);
}
