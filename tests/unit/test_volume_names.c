// SPDX-License-Identifier: Apache-2.0
// What changed names and attributes take of the memory.
#include "volume_world.h"

#include <string.h>
#include <sys/stat.h>

#include "volume/volume_internal.h"

#define VALUES 1000u // of 64 KiB each: more than may gather

static uint64_t
changed_bytes(struct volume *v)
{
    lock_take(&v->lock);
    uint64_t bytes = namespace_set_bytes(v->names);
    lock_release(&v->lock);
    return bytes;
}

// A log that is large enough not to ask for a fold first.
static void
open_with_large_log(struct volume_world *w)
{
    volume_world_new(w);
    w->config.wal_limit_bytes = 512u << 20;
    volume_world_open(w);
}

START_TEST(extended_attributes_wait_for_a_fold_rather_than_fill_the_memory)
{
    static uint8_t value[XATTR_VALUE_BYTES_MAX];
    struct volume_world w;
    open_with_large_log(&w);
    struct object_id file = volume_world_make_file(w.v, "file");
    BUFFER_AUTO got = {0};
    char name[32];
    uint64_t most = 0;
    for (unsigned i = 0; i < VALUES; i++) {
        snprintf(name, sizeof(name), "user.%u", i);
        memset(value, (int)(i % 251), sizeof(value));
        ck_assert_int_eq(volume_set_xattr(w.v, file, name, value, sizeof(value), 0), 0);
        uint64_t bytes = changed_bytes(w.v);
        most = bytes > most ? bytes : most;
    }
    ck_assert_uint_le(most, NAMES_BYTES_MAX + sizeof(value) + sizeof(name));
    for (unsigned i = 0; i < VALUES; i += 97) {
        snprintf(name, sizeof(name), "user.%u", i);
        ck_assert_int_eq(volume_get_xattr(w.v, file, name, &got), 0);
        ck_assert_uint_eq(got.length, sizeof(value));
        ck_assert_uint_eq(got.data[i], i % 251);
    }
    volume_world_free(&w);
}
END_TEST

START_TEST(link_targets_are_counted_and_forgotten)
{
    static char target[LINK_TARGET_BYTES_MAX + 1];
    static const struct volume_caller caller = {.uid = 0, .gid = 0};
    struct volume_attributes a;
    struct volume_world w;
    open_with_large_log(&w);
    memset(target, 'x', LINK_TARGET_BYTES_MAX);
    volume_world_fold(w.v);
    uint64_t before = changed_bytes(w.v);
    for (unsigned i = 0; i < 100; i++) {
        char name[32];
        snprintf(name, sizeof(name), "link%u", i);
        ck_assert_int_eq(
            volume_make(w.v, OBJECT_ROOT_DIRECTORY, name, S_IFLNK | 0777, 0, target, &caller, &a),
            0);
    }
    ck_assert_uint_ge(changed_bytes(w.v) - before, 100 * LINK_TARGET_BYTES_MAX);
    volume_world_fold(w.v);
    ck_assert_uint_eq(changed_bytes(w.v), 0);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_names");
    unit_add(s, "xattrs", extended_attributes_wait_for_a_fold_rather_than_fill_the_memory, 120);
    unit_add(s, "links", link_targets_are_counted_and_forgotten, 60);
    return unit_run(s);
}
