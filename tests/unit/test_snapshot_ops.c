// SPDX-License-Identifier: Apache-2.0
// The kernel's requests for nodes below .ckptfs, also those that no kernel sends: other nodes,
// offsets and sizes at their limits.
#include "fake_kernel.h"
#include "volume_world.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "fuse/snapshot_ops.h"
#include "platform/clock.h"
#include "platform/memory.h"

#define GENERATIONS 2u
#define FILE_BYTES  5000u
#define STRANGER    1002u

static struct volume_world w;
static struct fs fs;
static struct kernel_cache kernel_cache;
static const struct fs_settings settings = {.door = "door", .read_deadline_ms = 60000};
static struct fuse_req r;
static const struct fuse_lowlevel_ops *const ops = &fs_operations;

static void
setup(void)
{
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id file = volume_world_make_file(w.v, "file");
    ck_assert_int_eq(volume_set_xattr(w.v, file, "user.a", "blue", 4, 0), 0);
    ck_assert_int_eq(volume_set_xattr(w.v, file, "trusted.b", "red", 3, 0), 0);
    for (unsigned i = 1; i <= GENERATIONS; i++) {
        volume_world_fill(w.v, file, 0, FILE_BYTES, i);
        (void)volume_world_publish(w.v);
    }
    kernel_cache_init(&kernel_cache, NULL);
    fs_init(&fs, &settings, w.v, &kernel_cache);
}

static void
teardown(void)
{
    fs_drain(&fs);
    fs_destroy(&fs);
    kernel_cache_destroy(&kernel_cache);
    volume_world_free(&w);
}

// The arguments may make no request.
#define REQUEST(operation, ...)                                                                    \
    (fake_request(&r, &fs, 0), ops->operation(&r, __VA_ARGS__), fake_answer(&r))

static fuse_ino_t
look_up(fuse_ino_t parent, const char *name)
{
    ck_assert_msg(REQUEST(lookup, parent, name) == 0, "%s: %d", name, r.error);
    return r.entry.ino;
}

static fuse_ino_t
generation(const char *number)
{
    fuse_ino_t top = look_up(FUSE_ROOT_ID, SNAPSHOT_TREE_NAME);
    return look_up(look_up(top, "generations"), number);
}

static void
expect_bytes(fuse_ino_t file, unsigned seed, uint64_t offset, size_t size, size_t length)
{
    static uint8_t wanted[FILE_BYTES];
    struct fuse_file_info fi = {0};
    ck_assert_int_eq(REQUEST(read, file, size, (off_t)offset, &fi), 0);
    ck_assert_uint_eq(r.length, length);
    struct object_id live = volume_world_find(w.v, "file");
    volume_world_fill(w.v, live, 0, FILE_BYTES, seed);
    struct volume_read_context context = {0};
    ck_assert_int_eq(volume_read(w.v, live, 0, FILE_BYTES, wanted, &context), FILE_BYTES);
    ck_assert_mem_eq(r.data, wanted + (length > 0 ? offset : 0), length);
}

START_TEST(files_are_read_within_their_size)
{
    fuse_ino_t root = generation("1");
    fuse_ino_t one = look_up(root, "file");
    fuse_ino_t two = look_up(generation("2"), "file");
    ck_assert_uint_ne(one, two);
    ck_assert_uint_ne(one, volume_world_find(w.v, "file").v);
    expect_bytes(one, 1, 0, FAKE_ANSWER_BYTES, FILE_BYTES);
    expect_bytes(two, 2, 0, FAKE_ANSWER_BYTES, FILE_BYTES);
    expect_bytes(one, 1, FILE_BYTES - 1, 100, 1);
    expect_bytes(one, 1, FILE_BYTES, 100, 0);
    expect_bytes(one, 1, INT64_MAX - 50, 100, 0);
    expect_bytes(one, 1, INT64_MAX, 100, 0);
    expect_bytes(one, 1, 10, 0, 0);
    struct fuse_file_info fi = {0};
    ck_assert_int_eq(REQUEST(read, one, 100, -1, &fi), EINVAL);
    ck_assert_int_eq(REQUEST(read, root, 100, 0, &fi), EISDIR);
    ck_assert_int_eq(REQUEST(lseek, one, 0, SEEK_HOLE, &fi), 0);
    ck_assert_uint_eq(r.number, FILE_BYTES);
    ck_assert_int_eq(REQUEST(lseek, one, FILE_BYTES, SEEK_DATA, &fi), ENXIO);
    ck_assert_int_eq(REQUEST(lseek, one, INT64_MAX, SEEK_HOLE, &fi), ENXIO);
    ck_assert_int_eq(REQUEST(readlink, one), EINVAL);
}
END_TEST

START_TEST(only_reading_opens)
{
    static const int refused[] = {O_WRONLY, O_RDWR, O_ACCMODE, O_RDONLY | O_TRUNC};
    fuse_ino_t root = generation("1");
    fuse_ino_t file = look_up(root, "file");
    for (size_t i = 0; i < ARRAY_LENGTH(refused); i++) {
        struct fuse_file_info fi = {.flags = refused[i]};
        ck_assert_int_eq(REQUEST(open, file, &fi), EROFS);
    }
    struct fuse_file_info fi = {.flags = O_RDONLY};
    ck_assert_int_eq(REQUEST(open, file, &fi), 0);
    ck_assert_uint_eq(fs.snapshots.views[0].files, 1);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(REQUEST(release, file, &fi), 0);
    ck_assert_uint_eq(fs.snapshots.views[0].files, 0);
    struct stat attributes = {0};
    ck_assert_int_eq(REQUEST(setattr, file, &attributes, FUSE_SET_ATTR_MODE, &fi), EROFS);
    ck_assert_int_eq(REQUEST(setxattr, file, "user.a", "x", 1, 0), EROFS);
    ck_assert_int_eq(REQUEST(removexattr, file, "user.a"), EROFS);
    ck_assert_int_eq(REQUEST(unlink, root, "file"), EROFS);
    ck_assert_int_eq(REQUEST(fallocate, file, 0, 0, 100, &fi), EROFS);
    ck_assert_int_eq(REQUEST(link, file, root, "new"), EROFS);
}
END_TEST

START_TEST(extended_attributes_fit_or_are_refused)
{
    fuse_ino_t file = look_up(generation("1"), "file");
    ck_assert_int_eq(REQUEST(getxattr, file, "user.a", 0), 0);
    ck_assert_uint_eq(r.number, 4);
    ck_assert_int_eq(REQUEST(getxattr, file, "user.a", 3), ERANGE);
    ck_assert_int_eq(REQUEST(getxattr, file, "user.a", 4), 0);
    ck_assert_mem_eq(r.data, "blue", 4);
    ck_assert_int_eq(REQUEST(getxattr, file, "user.", 4), EINVAL);
    ck_assert_int_eq(REQUEST(getxattr, file, "", 4), EOPNOTSUPP);
    ck_assert_int_eq(REQUEST(getxattr, file, "user.none", 4), ENODATA);
    ck_assert_int_eq(REQUEST(listxattr, file, 100), 0);
    ck_assert_uint_eq(r.length, sizeof("user.a") + sizeof("trusted.b"));
    fake_request(&r, &fs, STRANGER);
    ops->listxattr(&r, file, 100);
    ck_assert_int_eq(fake_answer(&r), 0);
    ck_assert_uint_eq(r.length, sizeof("user.a"));
}
END_TEST

START_TEST(nodes_that_nobody_got_are_harmless)
{
    fuse_ino_t good = look_up(generation("1"), "file");
    const fuse_ino_t nodes[] = {snapshot_node(0, 0), snapshot_node(0, 77),
        snapshot_node(0, SNAPSHOT_OBJECT_MAX), snapshot_node(1, 0), snapshot_node(1, 99999),
        snapshot_node(1, SNAPSHOT_OBJECT_MAX), snapshot_node(2, 1), snapshot_node(7, 1),
        snapshot_node(SNAPSHOT_PLACES_MAX, 1), UINT64_C(1) << 63, UINT64_MAX};
    struct fuse_file_info fi = {0};
    for (size_t i = 0; i < ARRAY_LENGTH(nodes); i++) {
        fuse_ino_t n = nodes[i];
        ck_assert(REQUEST(lookup, n, "file") != 0 || r.entry.ino == 0);
        ck_assert_int_eq(REQUEST(lookup, n, "."), ESTALE);
        ck_assert_int_eq(REQUEST(lookup, n, ".."), ESTALE);
        ck_assert_int_ne(REQUEST(open, n, &fi), 0);
        ck_assert_int_ne(REQUEST(read, n, 100, 0, &fi), 0);
        ck_assert_int_ne(REQUEST(readlink, n), 0);
        ck_assert_int_ne(REQUEST(lseek, n, 0, SEEK_DATA, &fi), 0);
        ck_assert_int_ne(REQUEST(getxattr, n, "user.a", 100), 0);
        (void)REQUEST(getattr, n, &fi);
        (void)REQUEST(listxattr, n, 100);
        (void)REQUEST(readdir, n, 4096, 0, &fi);
        ck_assert_int_eq(REQUEST(release, n, &fi), 0);
    }
    expect_bytes(good, 1, 0, 10, 10);
}
END_TEST

// What the kernel was told of, it forgets: then another generation gets the number.
START_TEST(nodes_are_counted_until_the_kernel_forgets_them)
{
    struct fuse_file_info fi = {0};
    fs.snapshots.places.kept = 1;
    fuse_ino_t root = generation("1");
    uint64_t before = r.entry.generation;
    fuse_ino_t file = look_up(root, "file");
    ck_assert_uint_eq(look_up(root, "file"), file);
    ck_assert_uint_eq(look_up(root, "nothing"), 0);
    ck_assert_int_eq(REQUEST(readdirplus, root, 4096, 0, &fi), 0);
    // Two lookups and an entry of the listing.
    (void)REQUEST(forget, file, 1);
    struct fuse_forget_data both[] = {{.ino = file, .nlookup = 2}, {.ino = FUSE_ROOT_ID}};
    (void)REQUEST(forget_multi, 2, both);
    fuse_ino_t two = generation("2");
    ck_assert_uint_eq(snapshot_node_number(two), 2);
    expect_bytes(look_up(root, "file"), 1, 0, 10, 10);
    (void)REQUEST(forget, file, 1);
    (void)REQUEST(forget, root, 1);
    volume_world_publish(w.v);
    fuse_ino_t three = generation("3");
    ck_assert_uint_eq(three, root);
    ck_assert_uint_ne(r.entry.generation, before);
    ck_assert_uint_eq(look_up(three, "file"), file);
}
END_TEST

// A request whose process was killed may be gone before the answer.
START_TEST(nodes_that_the_kernel_did_not_get_are_not_counted)
{
    struct fuse_file_info fi = {0};
    fuse_ino_t root = generation("1");
    fake_loses_answers = true;
    (void)REQUEST(lookup, root, "file");
    (void)REQUEST(readdirplus, root, 4096, 0, &fi);
    fake_loses_answers = false;
    // The thread that answered takes them back.
    uint64_t references;
    uint64_t deadline_ms = clock_monotonic_ms() + 60000;
    do {
        clock_sleep_ms(1);
        lock_take(&fs.snapshots.lock);
        references = snapshot_places_get(&fs.snapshots.places, 1)->references;
        lock_release(&fs.snapshots.lock);
    } while (references != 1 && clock_monotonic_ms() < deadline_ms);
    ck_assert_uint_eq(references, 1);
}
END_TEST

// Names that the listing gives, each with a blank.
static void
list(fuse_ino_t directory, size_t size, char *out, size_t out_size)
{
    struct fuse_file_info fi = {0};
    off_t offset = 0;
    out[0] = '\0';
    do {
        ck_assert_int_eq(REQUEST(readdir, directory, size, offset, &fi), 0);
        // struct fuse_dirent: inode number, offset, length of the name, type, name.
        for (size_t at = 0; at < r.length;) {
            uint32_t n;
            memcpy(&offset, r.data + at + 8, sizeof(offset));
            memcpy(&n, r.data + at + 16, sizeof(n));
            size_t end = strlen(out);
            snprintf(out + end, out_size - end, "%.*s ", (int)n, (char *)r.data + at + 24);
            at += (24 + n + 7) / 8 * 8;
        }
    } while (r.length > 0);
}

START_TEST(listings_are_the_same_in_pieces_of_any_size)
{
    char text[256];
    struct fuse_file_info fi = {0};
    fuse_ino_t top = look_up(FUSE_ROOT_ID, SNAPSHOT_TREE_NAME);
    fuse_ino_t generations = look_up(top, "generations");
    fuse_ino_t root = look_up(generations, "1");
    for (size_t size = 40; size < 400; size += 24) {
        list(top, size, text, sizeof(text));
        ck_assert_str_eq(text, ". .. snapshots generations ");
        list(generations, size, text, sizeof(text));
        ck_assert_str_eq(text, ". .. 1 2 ");
        list(root, size, text, sizeof(text));
        ck_assert_str_eq(text, ". .. file ");
        list(look_up(top, "snapshots"), size, text, sizeof(text));
        ck_assert_str_eq(text, ". .. ");
    }
    for (unsigned i = 0; i < 3; i++) {
        off_t far = i == 0 ? INT64_MAX : i == 1 ? INT64_MAX - 1 : -1;
        ck_assert_int_eq(REQUEST(readdir, top, 4096, far, &fi), 0);
        ck_assert_uint_eq(r.length, 0);
        ck_assert_int_eq(REQUEST(readdirplus, generations, 4096, far, &fi), 0);
        ck_assert_uint_eq(r.length, 0);
        (void)REQUEST(readdir, root, 4096, far, &fi);
    }
}
END_TEST

START_TEST(odd_names_are_not_there)
{
    static const char *const odd[] = {"", "none", "\xff\xfe", "%s%n", "a\n", "file/", "FILE"};
    char longest[4096];
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    fuse_ino_t top = look_up(FUSE_ROOT_ID, SNAPSHOT_TREE_NAME);
    const fuse_ino_t above[] = {top, look_up(top, "generations"), look_up(top, "snapshots")};
    fuse_ino_t root = look_up(above[1], "1");
    for (size_t i = 0; i <= ARRAY_LENGTH(odd); i++) {
        const char *name = i < ARRAY_LENGTH(odd) ? odd[i] : longest;
        for (size_t k = 0; k < ARRAY_LENGTH(above); k++)
            ck_assert_int_eq(REQUEST(lookup, above[k], name), ENOENT);
        int rc = REQUEST(lookup, root, name);
        ck_assert(rc == ENAMETOOLONG || rc == ENOENT || (rc == 0 && r.entry.ino == 0));
    }
}
END_TEST

static Suite *
suite(void)
{
    Suite *s = suite_create("snapshot_ops");
    TCase *c = tcase_create("requests");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, files_are_read_within_their_size);
    tcase_add_test(c, only_reading_opens);
    tcase_add_test(c, extended_attributes_fit_or_are_refused);
    tcase_add_test(c, nodes_that_nobody_got_are_harmless);
    tcase_add_test(c, nodes_are_counted_until_the_kernel_forgets_them);
    tcase_add_test(c, nodes_that_the_kernel_did_not_get_are_not_counted);
    tcase_add_test(c, listings_are_the_same_in_pieces_of_any_size);
    tcase_add_test(c, odd_names_are_not_there);
    suite_add_tcase(s, c);
    return s;
}

int
main(void)
{
    return unit_run(suite());
}
