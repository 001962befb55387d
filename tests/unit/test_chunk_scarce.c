// SPDX-License-Identifier: Apache-2.0
// Local copies that cannot be opened or read for want of descriptors or memory: they are whole, and
// nobody calls them damaged.
#include "unit.h"

#include "chunk_world.h"

#define OBJECT      ((struct object_id){5})
#define PAGES       40u
#define PATIENCE_MS 60000u

static int open_error, read_error;

static int
scarce_open(const char *path, int flags, mode_t mode)
{
    return open_error < 0 ? open_error : file_ops_system.open(path, flags, mode);
}

static ssize_t
scarce_pread(int fd, void *p, size_t n, off_t offset)
{
    return read_error < 0 ? read_error : file_ops_system.pread(fd, p, n, offset);
}

static struct sha256
add_content(struct world *w, uint8_t residency)
{
    BUFFER_AUTO bytes = {0};
    struct blob_image_info info;
    struct blob_writer *writer = blob_writer_new(BLOB_BASE, world_sink, &bytes);
    for (uint32_t i = 0; i < PAGES; i++) {
        uint8_t data[PAGE_BYTES];
        memset(data, (int)i + 1, sizeof(data));
        ck_assert_int_eq(blob_writer_add_data(writer, i, data), 0);
    }
    ck_assert_int_eq(blob_writer_finish(writer, &info), 0);
    blob_writer_free(writer);
    return world_add_image(w, OBJECT, 0, BLOB_BASE, &bytes, 0, &info, residency);
}

// Reads all by a reader of its own, which has no file open and no index in memory.
static int
read_when_scarce(struct world *w, int open_fails, int read_fails)
{
    struct file_ops ops = file_ops_system;
    ops.open = scarce_open;
    ops.pread = scarce_pread;
    ops.preadv = NULL;
    struct local_store *local;
    ck_assert_int_eq(local_store_open(&ops, w->directory, w->db, &local), 0);
    struct chunk_reader_options options = {.map = w->map,
        .local = local,
        .remote = w->fault,
        .tenant = WORLD_TENANT,
        .volume_number = 1,
        .deadline_ms = PATIENCE_MS};
    struct chunk_reader *reader = chunk_reader_new(&options);
    static uint8_t bytes[PAGES * PAGE_BYTES];
    chunk_map_invalidate_all(w->map);
    open_error = open_fails;
    read_error = read_fails;
    int rc = chunk_reader_copy(reader, OBJECT, (struct page_no){0}, PAGES, NULL, bytes, NULL, NULL);
    open_error = read_error = 0;
    for (size_t i = 0; rc == 0 && i < sizeof(bytes); i++)
        ck_assert_uint_eq(bytes[i], i / PAGE_BYTES + 1);
    struct chunk_reader_numbers n;
    chunk_reader_numbers(reader, &n);
    ck_assert_uint_eq(n.repaired_frames, 0);
    ck_assert_uint_eq(n.failed_reads, rc < 0);
    chunk_reader_free(reader);
    local_store_close(local);
    return rc;
}

static const int errors[] = {-EMFILE, -ENFILE, -ENOMEM};

START_TEST(the_store_helps_out_and_the_copy_stays)
{
    struct world w;
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct sha256 blob = add_content(&w, RESIDENCY_LOCAL | RESIDENCY_REMOTE);
    for (size_t i = 0; i < ARRAY_LENGTH(errors); i++) {
        uint64_t gets = world_gets(&w);
        ck_assert_int_eq(read_when_scarce(&w, errors[i], 0), 0);
        ck_assert_int_eq(read_when_scarce(&w, 0, errors[i]), 0);
        ck_assert_uint_gt(world_gets(&w), gets);
        ck_assert(local_store_has(w.local, &blob));
    }
    world_destroy(&w);
}
END_TEST

START_TEST(readers_of_the_only_copy_are_told_the_cause)
{
    struct world w;
    world_init(&w, 1 << 24, PATIENCE_MS);
    add_content(&w, RESIDENCY_LOCAL);
    for (size_t i = 0; i < ARRAY_LENGTH(errors); i++) {
        ck_assert_int_eq(read_when_scarce(&w, errors[i], 0), errors[i]);
        ck_assert_int_eq(read_when_scarce(&w, 0, errors[i]), errors[i]);
    }
    ck_assert_int_eq(read_when_scarce(&w, 0, -EIO), -EIO);
    ck_assert_int_eq(read_when_scarce(&w, 0, 0), 0);
    world_destroy(&w);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("chunk_scarce");
    unit_add(suite, "with_store", the_store_helps_out_and_the_copy_stays, 30);
    unit_add(suite, "only_copy", readers_of_the_only_copy_are_told_the_cause, 30);
    return unit_run(suite);
}
