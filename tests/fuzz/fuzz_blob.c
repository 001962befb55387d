// SPDX-License-Identifier: Apache-2.0
// Hostile images. The first byte of an input chooses what the others are:
//     0  an image as it is
//     1  an image whose checksums are made right
//     2  the same, and positions and lengths in the footer are made to fit
//     3  index and footer alone, made right, checked as for a ranged read
//     4  a frame whose checksum and stored length are made right
//     5  a script of calls to the writer, whose image must be valid
// A valid image must also read consistently, and come out of the writer again with an equal index.
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/hash_table.h"
#include "format/blob.h"
#include "format/compress.h"
#include "platform/memory.h"
#include "tests/unit/blob_seal.h"

enum mode { MODE_PLAIN, MODE_SEALED, MODE_FITTED, MODE_INDEX, MODE_FRAME, MODE_WRITER, MODES };

#define INDEX_LENGTHS_AT 40u // where the frame lengths begin

// Not an assert: it must hold in builds without them.
#define MUST_HOLD(condition)                                                                       \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static int
sink_append(void *argument, const void *p, size_t n)
{
    buffer_append(argument, p, n);
    return 0;
}

// A parsed index tiles the chunk with runs; slots and patches count up; frames lie end to end.
static void
walk_index(const struct blob_index *index)
{
    uint32_t slots = 0;
    uint32_t patches = 0;
    enum blob_page_state last = BLOB_PAGE_ABSENT;
    for (uint32_t at = 0; at < CHUNK_PAGES;) {
        struct blob_page first;
        struct blob_page end;
        blob_index_find(index, at, &first);
        MUST_HOLD(first.first == at && first.count > 0 && first.count <= CHUNK_PAGES - at);
        MUST_HOLD(at == 0 || first.state != last);
        blob_index_find(index, at + first.count - 1, &end);
        MUST_HOLD(end.state == first.state && end.first == at && end.count == first.count);
        if (first.state == BLOB_PAGE_DATA || first.state == BLOB_PAGE_PATCH) {
            MUST_HOLD(first.slot == slots && end.slot == slots + first.count - 1);
            slots += first.count;
        }
        for (uint32_t i = 0; first.state == BLOB_PAGE_PATCH && i < first.count; i++) {
            struct page_mask mask;
            MUST_HOLD(first.patch + i == patches);
            blob_index_mask(index, patches++, &mask);
            MUST_HOLD(!page_mask_is_empty(&mask) && !page_mask_is_full(&mask));
        }
        last = first.state;
        at += first.count;
    }
    MUST_HOLD(slots == blob_index_data_pages(index));
    uint64_t next = BLOB_HEADER_BYTES;
    for (uint32_t i = 0; i < blob_index_frames(index); i++) {
        uint64_t offset;
        uint32_t stored;
        blob_index_frame(index, i, &offset, &stored);
        MUST_HOLD(offset == next && stored > BLOB_FRAME_HEADER && stored <= BLOB_FRAME_STORED_MAX);
        next = offset + stored;
    }
}

static void
copy_page(struct blob_writer *w, const struct blob_index *index, uint32_t at,
    const struct blob_page *page, const uint8_t *frame)
{
    const uint8_t *data = frame + page->slot % BLOB_FRAME_PAGES * PAGE_BYTES;
    int rc;
    if (page->state == BLOB_PAGE_PATCH) {
        struct page_mask mask;
        blob_index_mask(index, page->patch, &mask);
        rc = blob_writer_add_patch(w, at, data, &mask);
    } else {
        rc = blob_writer_add_data(w, at, data);
    }
    MUST_HOLD(rc == 0);
}

static void
copy_pages(struct blob_writer *w, const uint8_t *image, const struct blob_index *index)
{
    uint8_t *frame = memory_alloc(BLOB_FRAME_BYTES);
    for (uint32_t at = 0; at < CHUNK_PAGES;) {
        struct blob_page page;
        blob_index_find(index, at, &page);
        if (page.state == BLOB_PAGE_ZERO)
            MUST_HOLD(blob_writer_add_zero(w, page.first, page.count) == 0);
        if (page.state == BLOB_PAGE_ABSENT || page.state == BLOB_PAGE_ZERO) {
            at = page.first + page.count;
            continue;
        }
        if (page.slot % BLOB_FRAME_PAGES == 0) {
            uint64_t offset;
            uint32_t stored;
            uint32_t pages;
            blob_index_frame(index, page.slot / BLOB_FRAME_PAGES, &offset, &stored);
            MUST_HOLD(blob_frame_unpack(image + offset, stored, frame, &pages) == 0);
        }
        copy_page(w, index, at, &page, frame);
        at++;
    }
    free(frame);
}

static void
compare_frames(const uint8_t *a, const uint8_t *b, const struct blob_index *index_of_a,
    const struct blob_index *index_of_b)
{
    uint8_t *pages = memory_alloc(2 * BLOB_FRAME_BYTES);
    for (uint32_t i = 0; i < blob_index_frames(index_of_a); i++) {
        uint64_t offset;
        uint32_t stored;
        uint32_t count;
        uint32_t other_count;
        blob_index_frame(index_of_a, i, &offset, &stored);
        MUST_HOLD(blob_frame_unpack(a + offset, stored, pages, &count) == 0);
        blob_index_frame(index_of_b, i, &offset, &stored);
        MUST_HOLD(
            blob_frame_unpack(b + offset, stored, pages + BLOB_FRAME_BYTES, &other_count) == 0);
        MUST_HOLD(count == other_count);
        MUST_HOLD(memcmp(pages, pages + BLOB_FRAME_BYTES, count * PAGE_BYTES) == 0);
    }
    free(pages);
}

// There is one way to write an image, but for the compression of frames: others may do it better.
static void
rewrite_image(const uint8_t *image, const struct blob_index *index, const uint8_t *stored_index)
{
    BUFFER_AUTO again = {0};
    struct blob_image_info info;
    struct blob_writer *w = blob_writer_new(blob_index_kind(index), sink_append, &again);
    copy_pages(w, image, index);
    MUST_HOLD(blob_writer_finish(w, &info) == 0);
    blob_writer_free(w);
    const uint8_t *index_again = again.data + info.index_offset;
    size_t body = INDEX_LENGTHS_AT + 4 * (size_t)blob_index_frames(index);
    MUST_HOLD(memcmp(index_again + 4, stored_index + 4, INDEX_LENGTHS_AT - 4) == 0);
    MUST_HOLD(memcmp(index_again + body, stored_index + body, info.index_bytes - body) == 0);
    struct blob_index *parsed_again;
    MUST_HOLD(blob_index_parse(
                  index_again, again.length - info.index_offset, again.length, &parsed_again) == 0);
    compare_frames(image, again.data, index, parsed_again);
    blob_index_free(parsed_again);
}

static void
try_index(const uint8_t *p, size_t n, uint64_t image_bytes)
{
    struct blob_index *index;
    if (blob_index_parse(p, n, image_bytes, &index) == 0)
        walk_index(index);
    blob_index_free(index);
}

static void
try_image(const uint8_t *p, size_t n)
{
    int rc = blob_image_check(p, n);
    MUST_HOLD(rc == 0 || rc == -EBADMSG || rc == -ENOTSUP);
    if (n < SEAL_FOOTER_BYTES)
        return;
    size_t index_offset = get_le32(p + n - SEAL_FOOTER_BYTES + SEAL_INDEX_OFFSET_AT);
    if (index_offset > n)
        return;
    try_index(p + index_offset, n - index_offset, n);
    if (rc < 0)
        return;
    struct blob_index *index;
    MUST_HOLD(blob_index_parse(p + index_offset, n - index_offset, n, &index) == 0);
    rewrite_image(p, index, p + index_offset);
    blob_index_free(index);
}

// Makes the footer's positions and lengths fit an image of `n` bytes, as far as that is possible.
static void
fit_footer(uint8_t *p, size_t n)
{
    if (n < SEAL_FOOTER_BYTES)
        return;
    uint8_t *footer = p + n - SEAL_FOOTER_BYTES;
    uint32_t index_bytes = get_le32(footer + SEAL_INDEX_BYTES_AT);
    if (index_bytes > n - SEAL_FOOTER_BYTES)
        index_bytes = 0;
    put_le32(footer + SEAL_INDEX_OFFSET_AT, (uint32_t)(n - SEAL_FOOTER_BYTES) - index_bytes);
    put_le32(footer + SEAL_INDEX_BYTES_AT, index_bytes);
    put_le32(footer + SEAL_IMAGE_BYTES_AT, (uint32_t)n);
}

// All of `p` but the footer is the index; the frames are taken to be as long as it says.
static void
try_index_alone(uint8_t *p, size_t n)
{
    if (n < SEAL_FOOTER_BYTES + SEAL_INDEX_HEAD_BYTES)
        return;
    size_t index_bytes = n - SEAL_FOOTER_BYTES;
    uint32_t frames = get_le32(p + SEAL_FRAMES_AT);
    uint32_t offset = SEAL_HEADER_BYTES;
    for (size_t i = 0; i < frames && SEAL_INDEX_HEAD_BYTES + 4 * i + 4 <= index_bytes; i++)
        offset += get_le32(p + SEAL_INDEX_HEAD_BYTES + 4 * i);
    uint8_t *footer = p + index_bytes;
    put_le32(footer + SEAL_INDEX_CRC_AT, crc32c(0, p, index_bytes));
    put_le32(footer + SEAL_INDEX_OFFSET_AT, offset);
    put_le32(footer + SEAL_INDEX_BYTES_AT, (uint32_t)index_bytes);
    put_le32(footer + SEAL_IMAGE_BYTES_AT, (uint32_t)(offset + n));
    put_le32(footer + SEAL_CRC_AT, crc32c(0, footer, SEAL_CRC_AT));
    try_index(p, n, (uint64_t)offset + n);
}

static void
try_frame(uint8_t *p, size_t n)
{
    uint8_t *out = memory_alloc(BLOB_FRAME_BYTES);
    uint32_t pages;
    int rc = blob_frame_unpack(p, n, out, &pages);
    if (n >= SEAL_FRAME_HEADER) {
        put_le32(p + 4, (uint32_t)n);
        put_le32(p, crc32c(0, p + 4, n - 4));
        rc = blob_frame_unpack(p, n, out, &pages);
    }
    MUST_HOLD((rc == 0 && pages > 0 && pages <= BLOB_FRAME_PAGES) || (rc == -EBADMSG && !pages));
    free(out);
}

// One call of the script: 4 bytes.
static int
call_writer(struct blob_writer *w, struct byte_reader *r, uint32_t *page)
{
    uint8_t op = read_u8(r);
    uint8_t skip = read_u8(r);
    uint16_t value = read_le16(r);
    uint8_t data[PAGE_BYTES] = {0};
    struct page_mask mask = {0};
    *page += skip;
    switch (op % 4) {
    case 0:
        return blob_writer_add_zero(w, *page, value);
    case 1:
        memset(data, value, sizeof(data));
        return blob_writer_add_data(w, (*page)++, data);
    case 2:
        for (uint32_t i = 0; i < PAGE_BYTES; i += 8)
            put_le64(data + i, hash_u64(i + value));
        return blob_writer_add_data(w, (*page)++, data);
    default:
        memset(data, skip, sizeof(data));
        page_mask_set(&mask, op, op + value % (PAGE_BYTES + 1 - op));
        page_mask_set(&mask, value % PAGE_BYTES, value % PAGE_BYTES + 1);
        return blob_writer_add_patch(w, (*page)++, data, &mask);
    }
}

static void
try_writer(const uint8_t *p, size_t n)
{
    if (n == 0)
        return;
    BUFFER_AUTO image = {0};
    struct blob_image_info info;
    struct byte_reader r = byte_reader_over(p + 1, n - 1);
    enum blob_kind kind = p[0] % 2 ? BLOB_BASE : BLOB_DELTA;
    struct blob_writer *w = blob_writer_new(kind, sink_append, &image);
    for (uint32_t page = 0; byte_reader_left(&r) >= 4;) {
        int rc = call_writer(w, &r, &page);
        MUST_HOLD(rc == 0 || rc == -EINVAL);
    }
    MUST_HOLD(blob_writer_finish(w, &info) == 0);
    MUST_HOLD(info.image_bytes == image.length);
    blob_writer_free(w);
    MUST_HOLD(blob_image_check(image.data, image.length) == 0);
    try_image(image.data, image.length);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0 || n > UINT32_MAX / 2)
        return 0;
    enum mode mode = (enum mode)(data[0] % MODES);
    // A copy of exactly the size, to be changed.
    size_t length = n - 1;
    uint8_t *p = memory_alloc(length ? length : 1);
    memcpy(p, data + 1, length);
    if (mode == MODE_FITTED)
        fit_footer(p, length);
    if (mode == MODE_SEALED || mode == MODE_FITTED)
        blob_seal(p, length);
    if (mode <= MODE_FITTED)
        try_image(p, length);
    else if (mode == MODE_INDEX)
        try_index_alone(p, length);
    else if (mode == MODE_FRAME)
        try_frame(p, length);
    else
        try_writer(p, length);
    free(p);
    return 0;
}

// ---- seeds --------------------------------------------------------------------------------------

#define RAW_SEED_PAGES 1u // a seed with as many pages does not compress

// A page that LZ4 packs well, or not at all.
static void
add_seed_page(struct blob_writer *w, uint32_t page, bool packs)
{
    uint8_t data[PAGE_BYTES];
    memset(data, (int)(page % 251), sizeof(data));
    data[page % PAGE_BYTES] = 0xff;
    for (uint32_t i = 0; i < PAGE_BYTES && !packs; i += 8)
        put_le64(data + i, hash_u64(i));
    MUST_HOLD(blob_writer_add_data(w, page, data) == 0);
}

static void
add_seed_patch(struct blob_writer *w, uint32_t page)
{
    uint8_t data[PAGE_BYTES];
    struct page_mask mask = {0};
    memset(data, 9, sizeof(data));
    page_mask_set(&mask, 5, 10);
    page_mask_set(&mask, 100, 200);
    page_mask_set(&mask, PAGE_BYTES - page % 3 - 1, PAGE_BYTES);
    MUST_HOLD(blob_writer_add_patch(w, page, data, &mask) == 0);
}

static struct blob_image_info
seed_image(enum blob_kind kind, uint32_t pages, struct buffer *image)
{
    struct blob_image_info info;
    struct blob_writer *w = blob_writer_new(kind, sink_append, image);
    for (uint32_t i = 0; i < pages; i++)
        add_seed_page(w, 2 * i - i % 2, pages != RAW_SEED_PAGES);
    if (kind == BLOB_DELTA && pages > 0) {
        MUST_HOLD(blob_writer_add_zero(w, 9000, 1000) == 0);
        add_seed_patch(w, 10000);
        add_seed_patch(w, 10001);
        add_seed_page(w, 10002, true);
        add_seed_patch(w, CHUNK_PAGES - 1);
    }
    MUST_HOLD(blob_writer_finish(w, &info) == 0);
    blob_writer_free(w);
    return info;
}

static const uint8_t seed_script[] = {MODE_WRITER, 0, 0, 1, 5, 0, 1, 0, 7, 0, 1, 1, 9, 0, 3, 0, 50,
    1, 7, 3, 200, 4, 2, 0, 1, 0, 1, 0, 0, 0, 0, 255, 0, 64, 3, 0, 255, 255};

// A frame that claims, and has, one page more than fits.
static void
seed_long_frame(struct buffer *input_out)
{
    size_t raw = BLOB_FRAME_BYTES + PAGE_BYTES;
    uint8_t *pages = memory_alloc_zero(raw);
    buffer_append_u8(input_out, MODE_FRAME);
    buffer_append_le64(input_out, 0); // made right by try_frame
    buffer_append_le32(input_out, (uint32_t)raw);
    buffer_append_le32(input_out, 1);
    size_t room = 1000;
    size_t length = compress_block(pages, raw, buffer_reserve(input_out, room), room);
    MUST_HOLD(length > 0);
    input_out->length += length;
    free(pages);
}

bool
fuzz_seed(unsigned which, struct buffer *input_out)
{
    static const struct {
        enum mode mode;
        enum blob_kind kind;
        uint32_t pages;
    } seeds[] = {
        {MODE_PLAIN, BLOB_DELTA, 3},
        {MODE_SEALED, BLOB_DELTA, 3},
        {MODE_SEALED, BLOB_BASE, 40},
        {MODE_SEALED, BLOB_BASE, 0},
        {MODE_SEALED, BLOB_DELTA, RAW_SEED_PAGES},
        {MODE_FITTED, BLOB_DELTA, 20},
        {MODE_INDEX, BLOB_DELTA, 33},
        {MODE_INDEX, BLOB_BASE, 100},
        {MODE_FRAME, BLOB_BASE, 1},
        {MODE_FRAME, BLOB_BASE, 16},
    };
    if (which > ARRAY_LENGTH(seeds) + 1)
        return false;
    if (which == ARRAY_LENGTH(seeds)) {
        buffer_append(input_out, seed_script, sizeof(seed_script));
        return true;
    }
    if (which == ARRAY_LENGTH(seeds) + 1) {
        seed_long_frame(input_out);
        return true;
    }
    BUFFER_AUTO image = {0};
    struct blob_image_info info = seed_image(seeds[which].kind, seeds[which].pages, &image);
    size_t begin = 0;
    size_t end = image.length;
    if (seeds[which].mode == MODE_INDEX)
        begin = info.index_offset;
    if (seeds[which].mode == MODE_FRAME) {
        begin = SEAL_HEADER_BYTES;
        end = info.index_offset;
    }
    buffer_append_u8(input_out, (uint8_t)seeds[which].mode);
    buffer_append(input_out, image.data + begin, end - begin);
    return true;
}
