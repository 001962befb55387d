// SPDX-License-Identifier: Apache-2.0
// A volume that version 1 of the formats made mounts and goes on, and so does a storage root that
// version 2 of its format has left with changes that were not published; a volume or a root of a
// newer program is refused with a text that says so, and nothing is changed.
#include "volume_world.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checksum.h"
#include "golden.h"
#include "manifest/manifest_schema.h"
#include "platform/memory.h"
#include "remote/remote_retention.h"
#include "store/remote_store_backends.h"
#include "volume/volume_internal.h"

#define RECORDS "manifests/acme/1/record-"

static struct volume_world world;
static struct remote_store *store;

// The golden file: "= KEY", and the object's bytes in hexadecimal.
static void
put_old_volume(void)
{
    BUFFER_AUTO text = {0};
    ck_assert_int_eq(file_read_whole(GOLDEN_DIRECTORY "/volume-1.hex", 1 << 20, &text), 0);
    for (char *next = (char *)buffer_string(&text); (next = strstr(next, "= "));) {
        BUFFER_AUTO bytes = {0};
        char *key = next + 2;
        char *end = strchr(key, '\n');
        *end = 0;
        next = end + 1;
        golden_read_hex(next, &bytes);
        struct remote_source s = {.data = bytes.data, .length = bytes.length};
        sha256_of(bytes.data, bytes.length, &s.hash);
        ck_assert_int_eq(remote_store_put_blob(store, key, &s, REMOTE_PUT_CREATE, NULL), 0);
    }
}

static void
setup(void)
{
    volume_world_new(&world);
    CLEANUP(memory_free_auto) char *directory = memory_printf("%s/store", world.directory);
    ck_assert_int_eq(file_store_open(directory, true, &file_ops_system, &store), 0);
    put_old_volume();
    world.config.takeover = true;
}

static void
teardown(void)
{
    remote_store_close(store);
    volume_world_free(&world);
}

static void
expect(const char *name, const char *content)
{
    uint8_t got[64];
    struct object_id object = volume_world_find(world.v, name);
    ck_assert_int_eq(
        volume_read(world.v, object, 0, sizeof(got), got, NULL), (int64_t)strlen(content));
    ck_assert_int_eq(memcmp(got, content, strlen(content)), 0);
}

// The header of a record.
static void
read_header(uint64_t sequence, struct buffer *out)
{
    CLEANUP(memory_free_auto)
    char *key = memory_printf(RECORDS "%016llx", (unsigned long long)sequence);
    buffer_clear(out);
    ck_assert_int_eq(remote_store_get_blob(store, key, 0, UINT64_MAX, out, NULL), 0);
}

static uint64_t
newest_record(void)
{
    struct remote_listing listing;
    ck_assert_int_eq(remote_store_list_blobs(store, RECORDS, NULL, 100, &listing, NULL), 0);
    uint64_t newest = strtoull(listing.entries[listing.count - 1].key + strlen(RECORDS), NULL, 16);
    remote_listing_free(&listing);
    return newest;
}

START_TEST(old_volume_mounts_and_is_upgraded)
{
    BUFFER_AUTO header = {0};
    read_header(5, &header);
    ck_assert_uint_eq(get_le16(header.data + 8), 1);
    volume_world_open(&world);
    expect("words", "the first words\nmore words\n");
    struct object_id file = volume_world_make_file(world.v, "new");
    volume_world_fill(world.v, file, 0, 10000, 3);
    (void)volume_world_publish(world.v);
    volume_world_close(&world);
    volume_world_check(&world);
    read_header(newest_record(), &header);
    ck_assert_uint_eq(get_le16(header.data + 8), 2);
    // From the bucket alone, and once more by this root.
    volume_world_open(&world);
    expect("words", "the first words\nmore words\n");
    volume_world_close(&world);
    volume_world_set_root(&world, "another");
    volume_world_open(&world);
    expect("words", "the first words\nmore words\n");
    volume_world_expect(world.v, volume_world_find(world.v, "new"), 0, 10000, 3);
    // Every generation of the old program stays, because the volume has no policy.
    struct remote_generations g;
    const struct remote_place place = {.store = store, .tenant = "acme", .volume_number = 1};
    ck_assert_int_eq(remote_generations_read(&place, &g), 0);
    ck_assert(!g.has_policy || g.policy.keep_all);
    remote_generations_free(&g);
}
END_TEST

// Changes a field in the header of the newest record; its checksum is right.
static void
spoil_header(size_t at, uint16_t value)
{
    BUFFER_AUTO record = {0};
    CLEANUP(memory_free_auto) char *key = memory_printf(RECORDS "%016llx", 5ull);
    read_header(5, &record);
    put_le16(record.data + at, value);
    put_le32(record.data + 252, crc32c(0, record.data, 252));
    struct remote_source s = {.data = record.data, .length = record.length};
    sha256_of(record.data, record.length, &s.hash);
    ck_assert_int_eq(remote_store_put_blob(store, key, &s, REMOTE_PUT_OVERWRITE, NULL), 0);
}

static size_t
objects(void)
{
    struct remote_listing listing;
    ck_assert_int_eq(remote_store_list_blobs(store, "", NULL, 1000, &listing, NULL), 0);
    size_t count = listing.count;
    remote_listing_free(&listing);
    return count;
}

static void
expect_refusal(void)
{
    BUFFER_AUTO error = {0};
    size_t before = objects();
    ck_assert_int_eq(volume_open(&world.config, NULL, &world.v, &error), -ENOTSUP);
    ck_assert_msg(strstr(buffer_string(&error), "newer version"), "%s", buffer_string(&error));
    ck_assert_uint_eq(objects(), before);
    world.v = NULL;
}

START_TEST(newer_volume_is_refused)
{
    spoil_header(8, 3);
    expect_refusal();
}
END_TEST

START_TEST(unknown_incompatible_feature_is_refused)
{
    spoil_header(16, 0x8000);
    expect_refusal();
}
END_TEST

// ---- storage roots ------------------------------------------------------------------------------

// Bytes of a file from an offset: "@OFFSET", and hexadecimal lines.
static const char *
put_run(int fd, const char *text)
{
    BUFFER_AUTO bytes = {0};
    char *next;
    off_t offset = (off_t)strtoull(text + 1, &next, 10);
    golden_read_hex(next, &bytes);
    ck_assert_int_eq(pwrite(fd, bytes.data, bytes.length, offset), (ssize_t)bytes.length);
    return next + strspn(next, "0123456789abcdef\n");
}

static void
make_directories(char *path)
{
    for (char *slash = strchr(path + strlen(world.directory) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        ck_assert_int_ge(path_make_directory(path, 0700), 0);
        *slash = '/';
    }
}

// The golden file has the files of a storage root, "root/...", and of its store, "store/...":
// "= PATH SIZE", and the runs of bytes that are not zero. The root knows its volume by the source,
// so that has a path which does not tell where the test runs.
static void
put_old_root(void)
{
    BUFFER_AUTO text = {0};
    char name[256];
    unsigned long long size;
    volume_world_new(&world);
    world.config.takeover = true;
    free(world.config.source);
    world.config.source = memory_string("file:///proc/self/cwd/store/acme");
    ck_assert_int_eq(chdir(world.directory), 0);
    ck_assert_int_eq(file_read_whole(GOLDEN_DIRECTORY "/root-2.hex", 1 << 20, &text), 0);
    const char *next = buffer_string(&text);
    while (sscanf(next, "= %255s %llu\n", name, &size) == 2) {
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", world.directory, name);
        make_directories(path);
        int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
        next = strchr(next, '\n') + 1;
        while (*next == '@')
            next = put_run(fd, next);
        close(fd);
    }
    ck_assert_str_eq(next, "");
}

static void
make_world(void)
{
    volume_world_new(&world);
}

static void
remove_world(void)
{
    volume_world_free(&world);
}

// Sets the format of the root everywhere in the manifest's file: in its page, and in older ones.
static void
set_root_format(const struct uuid *id, uint8_t from, uint8_t to)
{
    BUFFER_AUTO wanted = {0};
    BUFFER_AUTO bytes = {0};
    unsigned found = 0;
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/manifest/data.mdb", world.root);
    schema_encode_root(id, &wanted);
    wanted.data[2] = from;
    ck_assert_int_eq(file_read_whole(path, 64 << 20, &bytes), 0);
    uint8_t *end = bytes.data + bytes.length;
    uint8_t *p = bytes.data;
    while ((p = memmem(p, (size_t)(end - p), wanted.data, wanted.length))) {
        p[2] = to;
        p += wanted.length;
        found++;
    }
    ck_assert_uint_gt(found, 0);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, bytes.data, bytes.length, 0600), 0);
}

START_TEST(old_root_mounts_with_its_changes_and_is_upgraded)
{
    volume_world_open(&world);
    expect("published", "in the store\n");
    expect("synced", "only in the log\n");
    struct uuid id = manifest_root_id(world.v->manifest);
    struct object_id file = volume_world_make_file(world.v, "new");
    volume_world_fill(world.v, file, 0, 10000, 3);
    (void)volume_world_publish(world.v);
    volume_world_close(&world);
    volume_world_check(&world);
    // It has the present format: there is one to be set.
    set_root_format(&id, MANIFEST_FORMAT_VERSION, MANIFEST_FORMAT_VERSION);
    volume_world_open(&world);
    expect("synced", "only in the log\n");
    volume_world_close(&world);
    // From the bucket alone.
    volume_world_set_root(&world, "another");
    volume_world_open(&world);
    expect("published", "in the store\n");
    expect("synced", "only in the log\n");
    volume_world_expect(world.v, volume_world_find(world.v, "new"), 0, 10000, 3);
}
END_TEST

START_TEST(newer_root_is_refused)
{
    BUFFER_AUTO error = {0};
    const uint8_t now = MANIFEST_FORMAT_VERSION;
    volume_world_open(&world);
    struct uuid id = manifest_root_id(world.v->manifest);
    struct object_id file = volume_world_make_file(world.v, "file");
    volume_world_fill(world.v, file, 0, 10000, 3);
    volume_world_close(&world);
    set_root_format(&id, now, now + 1);
    ck_assert_int_eq(volume_open(&world.config, NULL, &world.v, &error), -ENOTSUP);
    world.v = NULL;
    ck_assert_msg(strstr(buffer_string(&error), "a newer version of ckptfs made it"), "%s",
        buffer_string(&error));
    // Everything is still there for the newer program.
    set_root_format(&id, now + 1, now);
    volume_world_open(&world);
    volume_world_expect(world.v, volume_world_find(world.v, "file"), 0, 10000, 3);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_upgrade");
#define ADD(t) unit_add_with(s, #t, t, setup, teardown, 60)
    ADD(old_volume_mounts_and_is_upgraded);
    ADD(newer_volume_is_refused);
    ADD(unknown_incompatible_feature_is_refused);
    unit_add_with(s, "old_root", old_root_mounts_with_its_changes_and_is_upgraded, put_old_root,
        remove_world, 60);
    unit_add_with(s, "newer_root", newer_root_is_refused, make_world, remove_world, 60);
    return unit_run(s);
}
