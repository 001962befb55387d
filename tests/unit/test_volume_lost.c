// SPDX-License-Identifier: Apache-2.0
// Bytes that the log or an unpublished blob does not give any more: everything else is folded and
// published, reading them is EIO wherever the volume is mounted, and they heal.
#include "volume_world.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/memory.h"
#include "volume/volume_internal.h"

#define PAGES 40u

static const char *const names[] = {"a", "b", "c", "d"};
enum { FILES = 4 };

static uint64_t
lost_bytes(struct volume_world *w)
{
    struct volume_status s;
    volume_status(w->v, &s);
    ck_assert((s.metrics.lost_ranges == 0) == (s.metrics.lost_bytes == 0));
    return s.metrics.lost_bytes;
}

static int64_t
read_page(struct volume_world *w, struct object_id object, uint64_t page)
{
    uint8_t bytes[PAGE_BYTES];
    return volume_read(w->v, object, page * PAGE_BYTES, PAGE_BYTES, bytes, NULL);
}

static void
open_quietly(struct volume_world *w)
{
    volume_world_new(w);
    w->config.checkpoint_interval_ms = 0;
    volume_world_open(w);
}

// Changes a byte in each page of every blob that is not old, but for the last one.
static void
spoil_blobs(struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *pattern = memory_printf("%s/hot_cache/*/*.blob", w->root);
    glob_t blobs;
    ck_assert_int_eq(glob(pattern, 0, NULL, &blobs), 0);
    unsigned spoiled = 0;
    for (size_t i = 0; i < blobs.gl_pathc; i++) {
        struct stat st;
        ck_assert_int_eq(stat(blobs.gl_pathv[i], &st), 0);
        if (st.st_mtime < 2000)
            continue;
        int fd = open(blobs.gl_pathv[i], O_RDWR);
        for (off_t at = 2000; at + PAGE_BYTES < st.st_size; at += PAGE_BYTES) {
            uint8_t byte;
            ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
            byte ^= 1;
            ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
        }
        close(fd);
        spoiled++;
    }
    globfree(&blobs);
    ck_assert_uint_gt(spoiled, 0);
}

// ---- unpublished blobs --------------------------------------------------------------------------

// The attempt to publish that a mount begins by itself takes what is folded meanwhile. When it is
// over, a fold stays unpublished.
static void
let_publisher_rest(struct volume *v)
{
    volume_world_publish(v);
}

static void
change_and_fold(struct volume *v)
{
    let_publisher_rest(v);
    for (unsigned i = 0; i < FILES; i++)
        volume_world_fill(
            v, volume_world_find(v, names[i]), 10 * PAGE_BYTES, 3 * PAGE_BYTES, 50 + i);
    volume_world_fold(v);
}

static void
expect_the_rest(struct volume_world *w, unsigned file, uint64_t pages)
{
    struct object_id object = volume_world_find(w->v, names[file]);
    volume_world_expect(w->v, object, 0, 10 * PAGE_BYTES, file);
    for (uint64_t page = 10; page < 13; page++)
        ck_assert_int_eq(read_page(w, object, page), -EIO);
    if (pages > 13)
        volume_world_expect(w->v, object, 20 * PAGE_BYTES, (pages - 20) * PAGE_BYTES, 20 + file);
}

static void
heal(struct volume_world *w)
{
    struct object_id b = volume_world_find(w->v, "b");
    struct object_id d = volume_world_find(w->v, "d");
    struct volume_set_attributes set = {.set = VOLUME_SET_SIZE, .size = 10 * PAGE_BYTES};
    struct volume_attributes attributes;
    volume_world_fill(w->v, volume_world_find(w->v, "a"), 10 * PAGE_BYTES, 3 * PAGE_BYTES, 90);
    ck_assert_int_eq(volume_allocate(w->v, b, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         10 * PAGE_BYTES, 3 * PAGE_BYTES),
        0);
    ck_assert_int_eq(
        volume_set_attributes(w->v, volume_world_find(w->v, "c"), &set, &attributes), 0);
    ck_assert_int_eq(volume_unlink(w->v, OBJECT_ROOT_DIRECTORY, "d"), 0);
    volume_object_forgotten(w->v, d);
}

static void
expect_healed(struct volume_world *w)
{
    uint8_t page[PAGE_BYTES];
    static const uint8_t zeros[PAGE_BYTES];
    ck_assert_uint_eq(lost_bytes(w), 0);
    volume_world_expect(w->v, volume_world_find(w->v, "a"), 10 * PAGE_BYTES, 3 * PAGE_BYTES, 90);
    struct object_id b = volume_world_find(w->v, "b");
    ck_assert_int_eq(volume_read(w->v, b, 11 * PAGE_BYTES, PAGE_BYTES, page, NULL), PAGE_BYTES);
    ck_assert_mem_eq(page, zeros, PAGE_BYTES);
    volume_world_expect(w->v, volume_world_find(w->v, "c"), 0, 10 * PAGE_BYTES, 2);
}

static void
make_files(struct volume_world *w)
{
    for (unsigned i = 0; i < FILES; i++) {
        struct object_id object = volume_world_make_file(w->v, names[i]);
        volume_world_fill(w->v, object, 0, 20 * PAGE_BYTES, i);
        volume_world_fill(w->v, object, 20 * PAGE_BYTES, (PAGES - 20) * PAGE_BYTES, 20 + i);
    }
}

START_TEST(a_damaged_unpublished_blob_loses_its_pages_and_nothing_else)
{
    struct volume_world w;
    open_quietly(&w);
    make_files(&w);
    volume_world_publish(w.v);
    volume_world_age_blobs(&w);
    volume_world_close(&w);
    volume_world_die_after(&w, change_and_fold);
    spoil_blobs(&w);
    // The publication that the mount begins meets the damage, and gets on.
    volume_world_open(&w);
    struct object_id other = volume_world_make_file(w.v, "other");
    volume_world_fill(w.v, other, 0, 10000, 60);
    volume_world_publish(w.v);
    for (unsigned i = 0; i < FILES; i++)
        expect_the_rest(&w, i, PAGES);
    ck_assert_uint_eq(lost_bytes(&w), FILES * 3 * PAGE_BYTES);
    // It is so at the next mount, and wherever the volume is mounted from the bucket.
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_open(&w);
    for (unsigned i = 0; i < FILES; i++)
        expect_the_rest(&w, i, PAGES);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    ck_assert_uint_eq(lost_bytes(&w), FILES * 3 * PAGE_BYTES);
    volume_world_expect(w.v, volume_world_find(w.v, "other"), 0, 10000, 60);
    for (unsigned i = 0; i < FILES; i++)
        expect_the_rest(&w, i, PAGES);
    // A base over them, made from all that can be had, still says so.
    volume_world_fill(
        w.v, volume_world_find(w.v, "a"), 20 * PAGE_BYTES, (PAGES - 20) * PAGE_BYTES, 20);
    volume_world_fold(w.v);
    expect_the_rest(&w, 0, PAGES);
    heal(&w);
    volume_world_publish(w.v);
    expect_healed(&w);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    expect_healed(&w);
    volume_world_free(&w);
}
END_TEST

static char *
largest_blob(struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *pattern = memory_printf("%s/hot_cache/*/*.blob", w->root);
    glob_t blobs;
    ck_assert_int_eq(glob(pattern, 0, NULL, &blobs), 0);
    off_t most = 0;
    char *path = NULL;
    for (size_t i = 0; i < blobs.gl_pathc; i++) {
        struct stat st;
        ck_assert_int_eq(stat(blobs.gl_pathv[i], &st), 0);
        if (st.st_size <= most)
            continue;
        most = st.st_size;
        free(path);
        path = memory_string(blobs.gl_pathv[i]);
    }
    globfree(&blobs);
    ck_assert_ptr_nonnull(path);
    return path;
}

static void
make_one_and_fold(struct volume *v)
{
    let_publisher_rest(v);
    struct object_id a = volume_world_make_file(v, "a");
    volume_world_fill(v, a, 0, 20 * PAGE_BYTES, 1);
    volume_world_fill(v, a, 20 * PAGE_BYTES, 20 * PAGE_BYTES, 2);
    volume_world_fold(v);
    // The end of the file comes back as zeros, whatever the image had there.
    struct volume_set_attributes set = {.set = VOLUME_SET_SIZE, .size = 30 * PAGE_BYTES};
    struct volume_attributes attributes;
    ck_assert_int_eq(volume_set_attributes(v, a, &set, &attributes), 0);
    volume_world_fold(v);
}

enum spoiling { SPOIL_FRAME, SPOIL_INDEX, SPOIL_ALL };

// A base that nobody else has: of what can be read of it the fold makes another one.
static void
lose_base(enum spoiling how)
{
    struct volume_world w;
    open_quietly(&w);
    volume_world_close(&w);
    volume_world_die_after(&w, make_one_and_fold);
    CLEANUP(memory_free_auto) char *path = largest_blob(&w);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    int fd = open(path, O_RDWR);
    const uint8_t bytes[] = {1, 2, 3, 4};
    off_t at = how == SPOIL_FRAME ? 5000 : st.st_size - 80;
    ck_assert_int_eq(pwrite(fd, bytes, sizeof(bytes), at), sizeof(bytes));
    close(fd);
    if (how == SPOIL_ALL)
        ck_assert_int_eq(unlink(path), 0);
    volume_world_open(&w);
    volume_world_publish(w.v);
    for (int round = 0; round < 2; round++) {
        struct object_id a = volume_world_find(w.v, "a");
        uint64_t lost = how == SPOIL_FRAME ? 16 : 30; // a frame has 16 pages
        ck_assert_uint_eq(lost_bytes(&w), lost * PAGE_BYTES);
        for (uint64_t page = 0; page < 30; page++)
            ck_assert_int_eq(read_page(&w, a, page), page < lost ? -EIO : (int64_t)PAGE_BYTES);
        if (how == SPOIL_FRAME)
            volume_world_expect(w.v, a, 20 * PAGE_BYTES, 10 * PAGE_BYTES, 2);
        volume_world_close(&w);
        volume_world_check(&w);
        volume_world_lose_root(&w);
        volume_world_open(&w);
    }
    struct object_id a = volume_world_find(w.v, "a");
    struct volume_set_attributes set = {.set = VOLUME_SET_SIZE, .size = 40 * PAGE_BYTES};
    struct volume_attributes attributes;
    ck_assert_int_eq(volume_set_attributes(w.v, a, &set, &attributes), 0);
    for (uint64_t page = 30; page < 40; page++) {
        uint8_t bytes_read[PAGE_BYTES];
        static const uint8_t zeros[PAGE_BYTES];
        ck_assert_int_eq(
            volume_read(w.v, a, page * PAGE_BYTES, PAGE_BYTES, bytes_read, NULL), PAGE_BYTES);
        ck_assert_mem_eq(bytes_read, zeros, PAGE_BYTES);
    }
    volume_world_free(&w);
}

START_TEST(a_damaged_frame_of_a_base_costs_its_pages)
{
    lose_base(SPOIL_FRAME);
}
END_TEST

START_TEST(a_damaged_index_costs_all_that_may_have_been_in_the_image)
{
    lose_base(SPOIL_INDEX);
}
END_TEST

START_TEST(a_missing_blob_costs_all_that_may_have_been_in_it)
{
    lose_base(SPOIL_ALL);
}
END_TEST

START_TEST(what_is_in_memory_or_in_the_store_is_not_lost)
{
    struct volume_world w;
    open_quietly(&w);
    make_files(&w);
    volume_world_publish(w.v);
    volume_world_age_blobs(&w);
    change_and_fold(w.v);
    spoil_blobs(&w);
    volume_world_publish(w.v);
    for (unsigned i = 0; i < FILES; i++)
        volume_world_expect(
            w.v, volume_world_find(w.v, names[i]), 10 * PAGE_BYTES, 3 * PAGE_BYTES, 50 + i);
    ck_assert_uint_eq(lost_bytes(&w), 0);
    volume_world_free(&w);
}
END_TEST

static void
rename_in(const struct volume_world *w, const char *from, const char *to)
{
    CLEANUP(memory_free_auto) char *a = memory_printf("%s/%s", w->directory, from);
    CLEANUP(memory_free_auto) char *b = memory_printf("%s/%s", w->directory, to);
    ck_assert_int_eq(rename(a, b), 0);
}

START_TEST(an_upload_whose_record_failed_repairs_the_local_copy)
{
    struct volume_world w;
    struct generation generation;
    open_quietly(&w);
    make_files(&w);
    volume_world_publish(w.v);
    volume_world_age_blobs(&w);
    change_and_fold(w.v);
    // The blobs get there, the record does not.
    rename_in(&w, "store/manifests", "away");
    ck_assert_int_lt(volume_world_checkpoint(w.v, VOLUME_CHECKPOINT_PUBLISH, &generation), 0);
    rename_in(&w, "away", "store/manifests");
    spoil_blobs(&w);
    volume_world_publish(w.v);
    ck_assert_uint_eq(lost_bytes(&w), 0);
    volume_world_close(&w);
    volume_world_open(&w); // with nothing in memory
    for (unsigned i = 0; i < FILES; i++)
        volume_world_expect(
            w.v, volume_world_find(w.v, names[i]), 10 * PAGE_BYTES, 3 * PAGE_BYTES, 50 + i);
    volume_world_free(&w);
}
END_TEST

// ---- the log ------------------------------------------------------------------------------------

// Writes more than memory holds, with the needle in page 17; that page is then in the log only, and
// cannot be read.
#define PIECE ((size_t)128 * 1024)
#define LOST  17u

static struct object_id
write_and_spoil(struct volume_world *w)
{
    struct object_id a = volume_world_make_file(w->v, "a");
    CLEANUP(memory_free_auto) uint8_t *data = memory_alloc(PIECE);
    uint64_t state = 5;
    for (unsigned round = 0; round < 18; round++) {
        for (size_t i = 0; i < PIECE; i++)
            data[i] = (uint8_t)(test_random(&state) >> 8);
        if (round == 0)
            memcpy(data + LOST * PAGE_BYTES + 300, "a byte in the middle", 20);
        volume_world_write(w->v, a, round * PIECE, data, PIECE);
        ck_assert_int_eq(volume_world_sync(w->v), 0);
    }
    ck_assert(volume_world_spoil_log(w, "a byte in the middle", 20));
    return a;
}

static void
expect_one_lost(struct volume_world *w, struct object_id a)
{
    for (uint64_t page = 0; page < 18 * PIECE / PAGE_BYTES; page++)
        ck_assert_int_eq(read_page(w, a, page), page == LOST ? -EIO : (int64_t)PAGE_BYTES);
    ck_assert_uint_eq(lost_bytes(w), PAGE_BYTES);
}

START_TEST(a_page_that_the_log_does_not_give_is_lost_and_nothing_else)
{
    struct volume_world w;
    open_quietly(&w);
    struct object_id a = write_and_spoil(&w);
    ck_assert_int_eq(read_page(&w, a, LOST), -EIO); // before it is folded
    volume_world_publish(w.v);
    expect_one_lost(&w, a);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    expect_one_lost(&w, a);
    // A part of it makes it no better, all of it does.
    volume_world_fill(w.v, a, LOST * PAGE_BYTES, 100, 1);
    volume_world_fold(w.v);
    expect_one_lost(&w, a);
    volume_world_fill(w.v, a, LOST * PAGE_BYTES, PAGE_BYTES, 2);
    volume_world_publish(w.v);
    ck_assert_uint_eq(lost_bytes(&w), 0);
    volume_world_expect(w.v, a, LOST * PAGE_BYTES, PAGE_BYTES, 2);
    volume_world_free(&w);
}
END_TEST

// After a fold that failed its pages and those of the active layer are put together, for which
// some have to be read back from the log.
START_TEST(what_cannot_be_put_together_after_a_failed_fold_is_lost)
{
    struct volume_world w;
    struct generation generation;
    open_quietly(&w);
    struct object_id a = write_and_spoil(&w);
    rename_in(&w, "root/checkpoint_scratch", "aside");
    CLEANUP(memory_free_auto) char *scratch = memory_printf("%s/checkpoint_scratch", w.root);
    close(open(scratch, O_CREAT | O_WRONLY, 0600));
    ck_assert_int_lt(volume_world_checkpoint(w.v, 0, &generation), 0);
    volume_world_fill(w.v, a, LOST * PAGE_BYTES, 100, 1);
    // Who closes now is told that the log is damaged.
    ck_assert_uint_eq(page_store_unreadable_bytes(w.v->pages), PAGE_BYTES);
    ck_assert_int_eq(unlink(scratch), 0);
    rename_in(&w, "aside", "root/checkpoint_scratch");
    volume_world_publish(w.v);
    expect_one_lost(&w, a);
    ck_assert_uint_eq(page_store_unreadable_bytes(w.v->pages), 0);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_lost");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(a_damaged_unpublished_blob_loses_its_pages_and_nothing_else);
    ADD(a_damaged_frame_of_a_base_costs_its_pages);
    ADD(a_damaged_index_costs_all_that_may_have_been_in_the_image);
    ADD(a_missing_blob_costs_all_that_may_have_been_in_it);
    ADD(what_is_in_memory_or_in_the_store_is_not_lost);
    ADD(an_upload_whose_record_failed_repairs_the_local_copy);
    ADD(a_page_that_the_log_does_not_give_is_lost_and_nothing_else);
    ADD(what_cannot_be_put_together_after_a_failed_fold_is_lost);
    return unit_run(s);
}
