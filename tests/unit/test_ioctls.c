// SPDX-License-Identifier: Apache-2.0
// Every ioctl of the table with arguments that are too short, too long, zero, full and random, from
// each kind of user, on files, directories and nodes that there are not.
#include "fake_kernel.h"
#include "volume_world.h"

#include <linux/fs.h>
#include <string.h>

#include "fuse/ioctl_table.h"
#include "platform/memory.h"
#include "platform/random.h"

#define OWNER    1001u
#define STRANGER 1002u
#define RANDOM   12u

static struct volume_world w;
static struct fs fs;
static struct kernel_cache kernel_cache;
static const struct fs_settings settings = {.door = "door", .read_deadline_ms = 60000};
static struct object_id file;
static struct fuse_file_info handle = {.fh = 1};

static void
setup(void)
{
    struct volume_attributes a;
    struct volume_set_attributes change = {.set = VOLUME_SET_UID, .uid = OWNER};
    volume_world_new(&w);
    volume_world_open(&w);
    file = volume_world_make_file(w.v, "file");
    volume_world_fill(w.v, file, 0, 4096, 1);
    ck_assert_int_eq(volume_set_attributes(w.v, file, &change, &a), 0);
    (void)volume_world_publish(w.v);
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

struct call {
    uid_t uid;
    fuse_ino_t ino;
    struct fuse_file_info *fi;
    size_t in_size;
    size_t out_size;
};

// The bytes behind `in_size` do not belong to the argument: sanitizers and valgrind see a use.
static int
call(struct fuse_req *r, const struct call *c, unsigned command, const void *in)
{
    CLEANUP(memory_free_auto) void *copy = c->in_size > 0 ? memory_alloc(c->in_size) : NULL;
    if (copy)
        memcpy(copy, in, c->in_size);
    fake_request(r, &fs, c->uid);
    fs_ioctl(r, c->ino, command, NULL, c->fi, 0, copy, c->in_size, c->out_size);
    return fake_answer(r);
}

static struct call
call_of(const struct ioctl_entry *e)
{
    return (struct call){.ino = file.v, .fi = &handle, .in_size = e->in, .out_size = e->out};
}

static bool
is_ours(const struct ioctl_entry *e)
{
    return _IOC_TYPE(e->command) == _IOC_TYPE(CKPTFS_IOC_STATUS);
}

#define FOR_EACH_ENTRY(e)                                                                          \
    size_t count_;                                                                                 \
    for (const struct ioctl_entry *e = ioctl_table_all(&count_), *end_ = e + count_; e < end_; e++)

static uint8_t bytes[2 * sizeof(union ioctl_argument)];

static void
begin_with_version(void)
{
    const uint32_t version = CKPTFS_ABI_VERSION;
    memcpy(bytes, &version, sizeof(version));
}

START_TEST(each_command_is_in_the_table_once)
{
    FOR_EACH_ENTRY(e)
    {
        ck_assert_ptr_eq(ioctl_table_find(e->command), e);
        ck_assert_uint_le(e->in, sizeof(union ioctl_argument));
        ck_assert_uint_le(e->out, sizeof(union ioctl_argument));
        // What the kernel copies is what the function gets.
        ck_assert(!is_ours(e) || e->in == _IOC_SIZE(e->command));
        ck_assert(!is_ours(e) || e->out == _IOC_SIZE(e->command));
    }
}
END_TEST

START_TEST(short_arguments_are_refused_and_long_ones_cut)
{
    static struct fuse_req r;
    memset(bytes, 0, sizeof(bytes));
    begin_with_version();
    FOR_EACH_ENTRY(e)
    {
        struct call c = call_of(e);
        for (c.in_size = 0; c.in_size < e->in; c.in_size += 1 + c.in_size / 16)
            ck_assert_int_eq(call(&r, &c, e->command, bytes), EINVAL);
        c.in_size = e->in;
        for (c.out_size = 0; c.out_size < e->out; c.out_size += 1 + c.out_size / 16)
            ck_assert_int_eq(call(&r, &c, e->command, bytes), EINVAL);
        c.in_size = sizeof(bytes);
        c.out_size = sizeof(bytes);
        int rc = call(&r, &c, e->command, bytes);
        ck_assert_uint_eq(r.length, rc == 0 ? e->out : 0);
    }
}
END_TEST

START_TEST(unknown_commands_are_none)
{
    static struct fuse_req r;
    struct call c = {
        .ino = file.v, .fi = &handle, .in_size = sizeof(bytes), .out_size = sizeof(bytes)};
    memset(bytes, 0xff, sizeof(bytes));
    ck_assert_int_eq(call(&r, &c, 0, bytes), ENOTTY);
    ck_assert_int_eq(call(&r, &c, UINT32_MAX, bytes), ENOTTY);
    FOR_EACH_ENTRY(e)
    {
        // The struct of another version, and another direction.
        unsigned size = _IOC_SIZE(e->command);
        unsigned longer =
            _IOC(_IOC_READ | _IOC_WRITE, _IOC_TYPE(e->command), _IOC_NR(e->command), size + 8);
        unsigned none = _IOC(_IOC_NONE, _IOC_TYPE(e->command), _IOC_NR(e->command), size);
        ck_assert_int_eq(call(&r, &c, longer, bytes), ENOTTY);
        ck_assert_int_eq(call(&r, &c, none, bytes), ENOTTY);
    }
}
END_TEST

START_TEST(strangers_get_no_further_than_the_table)
{
    static struct fuse_req r;
    memset(bytes, 0xff, sizeof(bytes)); // nothing that the function would take
    begin_with_version();
    FOR_EACH_ENTRY(e)
    {
        struct call c = call_of(e);
        c.uid = STRANGER;
        int rc = call(&r, &c, e->command, bytes);
        ck_assert_msg(e->user == IOCTL_ANYONE || rc == EPERM, "%#x: %d", e->command, rc);
        c.uid = OWNER;
        rc = call(&r, &c, e->command, bytes);
        ck_assert_msg((e->user == IOCTL_OPERATOR) == (rc == EPERM), "%#x: %d", e->command, rc);
    }
}
END_TEST

START_TEST(another_version_is_refused)
{
    static struct fuse_req r;
    static const uint32_t versions[] = {
        0, CKPTFS_ABI_VERSION - 1, CKPTFS_ABI_VERSION + 1, UINT32_MAX};
    memset(bytes, 0, sizeof(bytes));
    FOR_EACH_ENTRY(e)
    for (size_t i = 0; i < ARRAY_LENGTH(versions); i++) {
        struct call c = call_of(e);
        memcpy(bytes, &versions[i], sizeof(versions[i]));
        ck_assert(!is_ours(e) || call(&r, &c, e->command, bytes) == EINVAL);
    }
}
END_TEST

static void
try_all_nodes(const struct ioctl_entry *e)
{
    static struct fuse_req r;
    const fuse_ino_t nodes[] = {file.v, FUSE_ROOT_ID, 0, 999999, INT64_MAX, SNAPSHOT_NODE_BIT - 1,
        snapshot_node(0, SNAPSHOT_TOP), snapshot_node(7, 77), UINT64_MAX};
    struct call c = call_of(e);
    for (size_t i = 0; i < ARRAY_LENGTH(nodes); i++) {
        c.ino = nodes[i];
        c.fi = i % 2 == 0 ? &handle : NULL;
        (void)call(&r, &c, e->command, bytes);
    }
}

// None of these may hurt the daemon, whatever they mean.
START_TEST(any_bytes_are_survived)
{
    uint64_t seed = test_seed("ioctls");
    FOR_EACH_ENTRY(e)
    {
        memset(bytes, 0xff, sizeof(bytes));
        begin_with_version();
        try_all_nodes(e);
        memset(bytes, 0, sizeof(bytes));
        begin_with_version();
        try_all_nodes(e);
        for (unsigned i = 0; i < RANDOM; i++) {
            // A few bytes that are not zero: so that some pass the checks of reserved fields.
            memset(bytes, 0, sizeof(bytes));
            for (unsigned k = 0; k < i; k++)
                bytes[test_random(&seed) % (k % 2 ? 32 : e->in + 1)] = (uint8_t)test_random(&seed);
            begin_with_version();
            try_all_nodes(e);
        }
    }
    volume_world_expect(w.v, file, 0, 1, 1);
}
END_TEST

START_TEST(an_open_file_is_needed_where_the_table_says_so)
{
    static struct fuse_req r;
    static struct fuse_file_info no_handle;
    memset(bytes, 0, sizeof(bytes));
    begin_with_version();
    FOR_EACH_ENTRY(e)
    {
        struct call c = call_of(e);
        if (!e->needs_file)
            continue;
        ck_assert_int_eq(call(&r, &c, e->command, bytes), 0);
        c.ino = FUSE_ROOT_ID;
        ck_assert_int_eq(call(&r, &c, e->command, bytes), EISDIR);
        c.ino = 999999;
        ck_assert_int_eq(call(&r, &c, e->command, bytes), ENOENT);
        c.ino = file.v;
        c.fi = &no_handle;
        ck_assert_int_eq(call(&r, &c, e->command, bytes), EBADF);
        c.fi = NULL;
        ck_assert_int_eq(call(&r, &c, e->command, bytes), EBADF);
    }
}
END_TEST

static Suite *
suite(void)
{
    Suite *s = suite_create("ioctls");
    TCase *c = tcase_create("table");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, each_command_is_in_the_table_once);
    tcase_add_test(c, short_arguments_are_refused_and_long_ones_cut);
    tcase_add_test(c, unknown_commands_are_none);
    tcase_add_test(c, strangers_get_no_further_than_the_table);
    tcase_add_test(c, another_version_is_refused);
    tcase_add_test(c, any_bytes_are_survived);
    tcase_add_test(c, an_open_file_is_needed_where_the_table_says_so);
    suite_add_tcase(s, c);
    return s;
}

int
main(void)
{
    return unit_run(suite());
}
