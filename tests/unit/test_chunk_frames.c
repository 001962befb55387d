// SPDX-License-Identifier: Apache-2.0
// Frames that are stored as they are, alone and between others that are compressed: the reader gets
// their pages without a copy, and no byte of them goes unchecked.
#include "unit.h"

#include "blob_model.h"
#include "chunk_world.h"

#define OBJECT      ((struct object_id){5})
#define PATIENCE_MS 60000u
#define PAGES       1003u

struct file {
    uint8_t *bytes; // PAGES pages, and as many of zeros behind them
    struct sha256 blob;
};

// One frame of three is compressed.
static void
add_content(struct world *w, struct file *c, uint8_t residency)
{
    BUFFER_AUTO bytes = {0};
    struct blob_image_info info;
    struct blob_writer *writer = blob_writer_new(BLOB_BASE, world_sink, &bytes);
    uint64_t seed = 77;
    c->bytes = memory_alloc_zero((size_t)2 * PAGES * PAGE_BYTES);
    for (uint32_t i = 0; i < PAGES; i++) {
        uint8_t *page = c->bytes + (size_t)i * PAGE_BYTES;
        fill_page(page, i / BLOB_FRAME_PAGES % 3 == 0 ? CONTENT_TEXT : CONTENT_RANDOM, &seed);
        ck_assert_int_eq(blob_writer_add_data(writer, i, page), 0);
    }
    ck_assert_int_eq(blob_writer_finish(writer, &info), 0);
    blob_writer_free(writer);
    c->blob = world_add_image(w, OBJECT, 0, BLOB_BASE, &bytes, 0, &info, residency);
}

static void
check_sunk(void *argument, struct page_no page, struct page *content)
{
    const struct file *c = argument;
    if (memcmp(content->data, c->bytes + page.v * PAGE_BYTES, PAGE_BYTES) != 0)
        abort();
}

static int
read_pages(struct world *w, struct file *c, uint64_t first, size_t count)
{
    uint8_t *bytes = memory_alloc(count * PAGE_BYTES);
    int rc = chunk_reader_copy(
        w->reader, OBJECT, (struct page_no){first}, count, NULL, bytes, check_sunk, c);
    if (rc == 0)
        ck_assert_mem_eq(bytes, c->bytes + first * PAGE_BYTES, count * PAGE_BYTES);
    free(bytes);
    return rc;
}

START_TEST(raw_and_packed_frames_are_read_together)
{
    struct world w;
    struct file c;
    uint64_t seed = 5;
    world_init(&w, 1 << 24, PATIENCE_MS);
    add_content(&w, &c, RESIDENCY_LOCAL);
    for (int i = 0; i < 200; i++)
        ck_assert_int_eq(
            read_pages(&w, &c, next_random(&seed) % PAGES, 1 + next_random(&seed) % 400), 0);
    struct chunk_reader_numbers n;
    chunk_reader_numbers(w.reader, &n);
    ck_assert_uint_eq(n.repaired_frames, 0);
    ck_assert_uint_ge(n.local_frames, 200);
    free(c.bytes);
    world_destroy(&w);
}
END_TEST

static void
flip_byte(const char *path, off_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

// Damages a byte of a raw frame at a time: of each field of its header, and of its pages.
START_TEST(no_byte_of_a_raw_frame_goes_unchecked)
{
    static const off_t places[] = {0, 4, 8, 12, 14, 16, 40000, BLOB_FRAME_STORED_MAX - 1};
    struct world w;
    struct file c;
    world_init(&w, 1 << 24, PATIENCE_MS);
    add_content(&w, &c, RESIDENCY_LOCAL);
    CLEANUP(memory_free_auto) char *path = world_local_path(&w, &c.blob, "blob");
    CLEANUP(file_close_auto) int fd = open(path, O_RDONLY);
    uint8_t length[4];
    ck_assert_int_eq(pread(fd, length, 4, BLOB_HEADER_BYTES + 4), 4);
    const off_t second = BLOB_HEADER_BYTES + (off_t)get_le32(length);
    for (size_t i = 0; i < ARRAY_LENGTH(places); i++) {
        flip_byte(path, second + places[i]);
        ck_assert_int_eq(read_pages(&w, &c, 0, 64), -EIO);
        ck_assert_int_eq(read_pages(&w, &c, 17, 1), -EIO);
        ck_assert_int_eq(read_pages(&w, &c, 32, 64), 0);
        flip_byte(path, second + places[i]);
        ck_assert_int_eq(read_pages(&w, &c, 0, 64), 0);
    }
    free(c.bytes);
    world_destroy(&w);
}
END_TEST

START_TEST(a_damaged_raw_frame_is_repaired_from_the_store)
{
    struct world w;
    struct file c;
    world_init(&w, 1 << 24, PATIENCE_MS);
    add_content(&w, &c, RESIDENCY_LOCAL | RESIDENCY_REMOTE);
    CLEANUP(memory_free_auto) char *path = world_local_path(&w, &c.blob, "blob");
    ck_assert_int_eq(read_pages(&w, &c, 0, 1), 0);
    flip_byte(path, 5 * (off_t)BLOB_FRAME_STORED_MAX);
    ck_assert_int_eq(read_pages(&w, &c, 0, PAGES), 0);
    struct chunk_reader_numbers n;
    chunk_reader_numbers(w.reader, &n);
    ck_assert_uint_eq(n.repaired_frames, 1);
    ck_assert(!local_store_has(w.local, &c.blob));
    free(c.bytes);
    world_destroy(&w);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("chunk_frames");
    unit_add(suite, "together", raw_and_packed_frames_are_read_together, 30);
    unit_add(suite, "checked", no_byte_of_a_raw_frame_goes_unchecked, 30);
    unit_add(suite, "repaired", a_damaged_raw_frame_is_repaired_from_the_store, 30);
    return unit_run(suite);
}
