// SPDX-License-Identifier: Apache-2.0
// What the volume keeps beside names and data: access lists, flags, times of access, files without
// names; across folds, restarts and restores.
#define _GNU_SOURCE
#include "volume_world.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "format/access_list.h"
#include "manifest/manifest.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "store/remote_store.h"

static const struct volume_caller root_user = {.umask = 022};

static struct object_id
make(struct volume *v, struct object_id parent, const char *name, uint32_t mode)
{
    struct volume_attributes a;
    ck_assert_int_eq(volume_make(v, parent, name, mode, 0, NULL, &root_user, &a), 0);
    return a.object;
}

static struct volume_attributes
attributes_of(struct volume *v, struct object_id object)
{
    struct volume_attributes a;
    ck_assert_int_eq(volume_get_attributes(v, object, &a), 0);
    return a;
}

static int
set(struct volume *v, struct object_id object, struct volume_set_attributes change)
{
    struct volume_attributes a;
    return volume_set_attributes(v, object, &change, &a);
}

// owner 7, user 10 `user`, group 5, mask 7, others 0.
static void
make_list(uint16_t user, struct buffer *out)
{
    struct access_list list = {.count = 5,
        .entries = {{ACCESS_OWNER, 7, 0xffffffff}, {ACCESS_USER, user, 10},
            {ACCESS_GROUP_OWNER, 5, 0xffffffff}, {ACCESS_MASK, 7, 0xffffffff},
            {ACCESS_OTHERS, 0, 0xffffffff}}};
    access_list_encode(&list, out);
}

static void
expect_lists(struct volume *v, struct object_id directory, struct object_id file)
{
    BUFFER_AUTO list = {0};
    BUFFER_AUTO got = {0};
    make_list(6, &list);
    ck_assert_int_eq(volume_get_xattr(v, directory, XATTR_DEFAULT_ACCESS_LIST, &got), 0);
    ck_assert_uint_eq(got.length, list.length);
    ck_assert_mem_eq(got.data, list.data, list.length);
    ck_assert_int_eq(volume_get_xattr(v, file, XATTR_ACCESS_LIST, &got), 0);
    struct access_list back;
    ck_assert_int_eq(access_list_decode(got.data, got.length, &back), 0);
    ck_assert_uint_eq(back.entries[0].permissions, 6);
    ck_assert_uint_eq(back.entries[3].permissions, 4); // the mask, by chmod
    ck_assert_uint_eq(attributes_of(v, file).inode.mode, S_IFREG | 0640);
}

START_TEST(access_lists_are_inherited_and_last)
{
    struct volume_world w;
    BUFFER_AUTO list = {0};
    volume_world_new(&w);
    volume_world_open(&w);
    make_list(6, &list);
    struct object_id directory = make(w.v, OBJECT_ROOT_DIRECTORY, "d", S_IFDIR | 0777);
    ck_assert_uint_eq(attributes_of(w.v, directory).inode.mode, S_IFDIR | 0755);
    ck_assert_int_eq(volume_set_access_list(
                         w.v, directory, XATTR_DEFAULT_ACCESS_LIST, list.data, list.length, false),
        0);
    volume_world_fold(w.v); // from now on the list is found in the tables
    struct object_id file = make(w.v, directory, "file", S_IFREG | 0666);
    ck_assert_uint_eq(attributes_of(w.v, file).inode.mode, S_IFREG | 0660);
    ck_assert_int_eq(
        set(w.v, file, (struct volume_set_attributes){.set = VOLUME_SET_MODE, .mode = 0640}), 0);
    expect_lists(w.v, directory, file);
    ck_assert_int_eq(
        volume_set_access_list(w.v, file, XATTR_DEFAULT_ACCESS_LIST, list.data, list.length, false),
        -EACCES);
    ck_assert_int_eq(
        volume_set_access_list(w.v, file, XATTR_ACCESS_LIST, "\2\0\0\0xxx", 7, false), -EINVAL);
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_open(&w);
    expect_lists(w.v, directory, file);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    expect_lists(w.v, directory, file);
    volume_world_free(&w);
}
END_TEST

// What somebody else has put into the store may be no list.
START_TEST(a_list_that_is_none_is_an_error)
{
    struct volume_world w;
    struct volume_attributes a;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id d = make(w.v, OBJECT_ROOT_DIRECTORY, "d", S_IFDIR | 0777);
    ck_assert_int_eq(volume_set_xattr(w.v, d, XATTR_DEFAULT_ACCESS_LIST, "junk", 4, 0), 0);
    ck_assert_int_eq(volume_set_xattr(w.v, d, XATTR_ACCESS_LIST, "", 0, 0), 0);
    ck_assert_int_eq(volume_make(w.v, d, "file", S_IFREG | 0600, 0, NULL, &root_user, &a), -EIO);
    ck_assert_int_eq(
        set(w.v, d, (struct volume_set_attributes){.set = VOLUME_SET_MODE, .mode = 0700}), -EIO);
    ck_assert_int_eq(volume_lookup(w.v, d, "file", &a), -ENOENT);
    volume_world_free(&w);
}
END_TEST

static void
expect_fixed(struct volume *v, struct object_id o, const char *name)
{
    struct volume_attributes a;
    struct volume_set_attributes to_mode = {.set = VOLUME_SET_MODE, .mode = 0600};
    struct volume_set_attributes to_size = {.set = VOLUME_SET_SIZE, .size = 1};
    ck_assert_int_eq(set(v, o, to_mode), -EPERM);
    ck_assert_int_eq(set(v, o, to_size), -EPERM);
    ck_assert_int_eq(volume_unlink(v, OBJECT_ROOT_DIRECTORY, name), -EPERM);
    ck_assert_int_eq(
        volume_rename(v, OBJECT_ROOT_DIRECTORY, name, OBJECT_ROOT_DIRECTORY, "other", 0, NULL),
        -EPERM);
    ck_assert_int_eq(volume_link(v, o, OBJECT_ROOT_DIRECTORY, "other", &a), -EPERM);
    ck_assert_int_eq(volume_set_xattr(v, o, "user.x", "v", 1, 0), -EPERM);
    ck_assert_int_eq(volume_check_writable(v, o, false, false), -EPERM);
    ck_assert_int_eq(volume_check_writable(v, o, true, true), -EPERM);
    ck_assert_int_eq(volume_allocate(v, o, 3, 0, 1), -EPERM);
}

START_TEST(flags_forbid_and_last)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id fixed = volume_world_make_file(w.v, "fixed");
    struct object_id log = volume_world_make_file(w.v, "log");
    struct volume_set_attributes flags = {.set = VOLUME_SET_FLAGS, .flags = 0x800};
    ck_assert_int_eq(set(w.v, fixed, flags), -EOPNOTSUPP);
    flags.flags = INODE_IMMUTABLE;
    ck_assert_int_eq(set(w.v, fixed, flags), 0);
    flags.flags = INODE_APPEND_ONLY | INODE_NO_DUMP;
    ck_assert_int_eq(set(w.v, log, flags), 0);
    for (int i = 0; i < 3; i++) {
        expect_fixed(w.v, fixed, "fixed");
        expect_fixed(w.v, log, "log");
        ck_assert_int_eq(volume_check_writable(w.v, fixed, true, false), -EPERM);
        ck_assert_int_eq(volume_check_writable(w.v, log, true, false), 0);
        ck_assert_uint_eq(attributes_of(w.v, log).inode.flags, INODE_APPEND_ONLY | INODE_NO_DUMP);
        if (i == 0)
            volume_world_publish(w.v);
        volume_world_close(&w);
        if (i == 1)
            volume_world_lose_root(&w);
        volume_world_open(&w);
    }
    flags.flags = 0;
    ck_assert_int_eq(set(w.v, fixed, flags), 0);
    ck_assert_int_eq(volume_unlink(w.v, OBJECT_ROOT_DIRECTORY, "fixed"), 0);
    volume_world_free(&w);
}
END_TEST

// The kernel's write-back cache sends times of before the flag.
START_TEST(times_that_come_late_are_taken)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id o = volume_world_make_file(w.v, "file");
    struct timestamp before = attributes_of(w.v, o).inode.ctime;
    struct volume_set_attributes flags = {.set = VOLUME_SET_FLAGS, .flags = INODE_IMMUTABLE};
    ck_assert_int_eq(set(w.v, o, flags), 0);
    struct timestamp flagged = attributes_of(w.v, o).inode.ctime;
    struct volume_set_attributes times = {
        .set = VOLUME_SET_MTIME | VOLUME_SET_CTIME, .mtime = {.seconds = 5}, .ctime = before};
    ck_assert_int_eq(set(w.v, o, times), 0);
    struct volume_attributes a = attributes_of(w.v, o);
    ck_assert_int_eq(a.inode.mtime.seconds, 5);
    ck_assert_int_eq(a.inode.ctime.seconds, flagged.seconds);
    ck_assert_uint_eq(a.inode.ctime.nanoseconds, flagged.nanoseconds);
    times.ctime.seconds = flagged.seconds + 1;
    ck_assert_int_eq(set(w.v, o, times), -EPERM);
    times.set |= VOLUME_SET_ATIME;
    times.ctime = before;
    ck_assert_int_eq(set(w.v, o, times), -EPERM);
    volume_world_free(&w);
}
END_TEST

static void
read_byte(struct volume *v, struct object_id o, bool keep_atime)
{
    uint8_t byte;
    struct volume_read_context context = {.keep_atime = keep_atime};
    ck_assert_int_eq(volume_read(v, o, 0, 1, &byte, &context), 1);
}

START_TEST(times_that_were_overtaken_are_not_taken)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id file = make(w.v, OBJECT_ROOT_DIRECTORY, "file", S_IFREG | 0644);
    struct timestamp before = {1790000000, 996000000}, after = {1790000001, 0};
    struct timestamp old = {1000000000, 5};
    struct volume_set_attributes truncated = {
        .set = VOLUME_SET_SIZE | VOLUME_SET_MTIME | VOLUME_SET_CTIME,
        .size = 100,
        .mtime = after,
        .ctime = after,
    };
    struct volume_set_attributes late = {
        .set = VOLUME_SET_MTIME | VOLUME_SET_CTIME, .mtime = before, .ctime = before};
    ck_assert_int_eq(set(w.v, file, truncated), 0);
    ck_assert_int_eq(set(w.v, file, late), 0);
    ck_assert_int_eq(attributes_of(w.v, file).inode.mtime.seconds, after.seconds);
    ck_assert_int_eq(attributes_of(w.v, file).inode.ctime.seconds, after.seconds);
    // What somebody sets is taken: an old time, a clock that was set back.
    late.mtime = old;
    ck_assert_int_eq(set(w.v, file, late), 0);
    ck_assert_int_eq(attributes_of(w.v, file).inode.mtime.seconds, old.seconds);
    ck_assert_int_eq(set(w.v, file, truncated), 0);
    late.mtime = late.ctime = (struct timestamp){after.seconds - 3, 0};
    ck_assert_int_eq(set(w.v, file, late), 0);
    ck_assert_int_eq(attributes_of(w.v, file).inode.mtime.seconds, after.seconds - 3);
    volume_world_free(&w);
}
END_TEST

START_TEST(reading_changes_the_time_of_access)
{
    struct volume_world w;
    struct volume_set_attributes old = {.set = VOLUME_SET_ATIME, .atime = {.seconds = 1000}};
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id o = volume_world_make_file(w.v, "file");
    volume_world_write(w.v, o, 0, "x", 1);
    ck_assert_int_eq(set(w.v, o, old), 0);
    ck_assert_int_eq(volume_object_opened(w.v, o), 0);
    read_byte(w.v, o, true);
    ck_assert_int_eq(attributes_of(w.v, o).inode.atime.seconds, 1000);
    read_byte(w.v, o, false);
    struct timestamp read_at = attributes_of(w.v, o).inode.atime;
    ck_assert_int_gt(read_at.seconds, 1000);
    // Set explicitly, it is what was set.
    ck_assert_int_eq(set(w.v, o, old), 0);
    ck_assert_int_eq(attributes_of(w.v, o).inode.atime.seconds, 1000);
    read_byte(w.v, o, false);
    volume_object_closed(w.v, o);
    ck_assert_int_ge(attributes_of(w.v, o).inode.atime.seconds, read_at.seconds);
    // Without being open: at once.
    ck_assert_int_eq(set(w.v, o, old), 0);
    read_byte(w.v, o, false);
    ck_assert_int_ge(attributes_of(w.v, o).inode.atime.seconds, read_at.seconds);
    volume_world_close(&w);
    volume_world_open(&w);
    ck_assert_int_ge(attributes_of(w.v, o).inode.atime.seconds, read_at.seconds);
    struct volume_set_attributes flags = {.set = VOLUME_SET_FLAGS, .flags = INODE_NO_ATIME};
    ck_assert_int_eq(set(w.v, o, old), 0);
    ck_assert_int_eq(set(w.v, o, flags), 0);
    read_byte(w.v, o, false);
    ck_assert_int_eq(attributes_of(w.v, o).inode.atime.seconds, 1000);
    volume_world_free(&w);
}
END_TEST

struct closer {
    struct volume *v;
    struct object_id object;
    atomic_bool closed;
};

static void
close_it(void *argument)
{
    struct closer *x = argument;
    volume_object_closed(x->v, x->object);
    atomic_store(&x->closed, true);
}

START_TEST(nobody_sees_an_older_time_of_access_while_a_file_is_closed)
{
    struct volume_world w;
    struct volume_set_attributes old = {.set = VOLUME_SET_ATIME, .atime = {.seconds = 1000}};
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id o = volume_world_make_file(w.v, "file");
    volume_world_write(w.v, o, 0, "x", 1);
    for (int round = 0; round < 1000; round++) {
        ck_assert_int_eq(set(w.v, o, old), 0);
        ck_assert_int_eq(volume_object_opened(w.v, o), 0);
        read_byte(w.v, o, false);
        struct closer x = {.v = w.v, .object = o};
        struct thread t;
        ck_assert_int_eq(thread_start(&t, "closer", close_it, &x), 0);
        bool closed;
        do {
            closed = atomic_load(&x.closed);
            ck_assert_int_gt(attributes_of(w.v, o).inode.atime.seconds, 1000);
        } while (!closed);
        thread_join(&t);
    }
    volume_world_free(&w);
}
END_TEST

START_TEST(a_file_without_a_name_gets_one_or_goes)
{
    struct volume_world w;
    struct volume_attributes a, b;
    volume_world_new(&w);
    volume_world_open(&w);
    struct volume *v = w.v;
    ck_assert_int_eq(
        volume_make(v, OBJECT_ROOT_DIRECTORY, NULL, S_IFREG | 0666, 0, NULL, &root_user, &a), 0);
    ck_assert_uint_eq(a.inode.nlink, 0);
    ck_assert_uint_eq(a.inode.mode, S_IFREG | 0644);
    ck_assert_int_eq(volume_object_opened(v, a.object), 0);
    volume_world_write(v, a.object, 0, "x", 1);
    volume_world_fold(v);
    ck_assert_int_eq(volume_link(v, a.object, OBJECT_ROOT_DIRECTORY, "name", &b), 0);
    ck_assert_uint_eq(b.inode.nlink, 1);
    volume_object_closed(v, a.object);
    volume_object_forgotten(v, a.object);
    ck_assert_uint_eq(attributes_of(v, a.object).inode.nlink, 1);
    // One that lost its name gets none again.
    ck_assert_int_eq(volume_object_opened(v, a.object), 0);
    ck_assert_int_eq(volume_unlink(v, OBJECT_ROOT_DIRECTORY, "name"), 0);
    ck_assert_int_eq(volume_link(v, a.object, OBJECT_ROOT_DIRECTORY, "name", &b), -ENOENT);
    volume_object_closed(v, a.object);
    volume_object_forgotten(v, a.object);
    ck_assert_int_eq(volume_get_attributes(v, a.object, &b), -ENOENT);
    // One that gets none goes with its last user, or with the next mount.
    ck_assert_int_eq(
        volume_make(v, OBJECT_ROOT_DIRECTORY, NULL, S_IFREG | 0666, 0, NULL, &root_user, &a), 0);
    ck_assert_int_eq(volume_object_opened(v, a.object), 0);
    volume_object_closed(v, a.object);
    volume_object_forgotten(v, a.object);
    ck_assert_int_eq(volume_get_attributes(v, a.object, &b), -ENOENT);
    ck_assert_int_eq(
        volume_make(v, OBJECT_ROOT_DIRECTORY, NULL, S_IFREG | 0666, 0, NULL, &root_user, &a), 0);
    ck_assert_int_eq(volume_object_opened(v, a.object), 0);
    volume_world_fold(v);
    volume_world_close(&w);
    volume_world_open(&w);
    ck_assert_int_eq(volume_get_attributes(w.v, a.object, &b), -ENOENT);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

START_TEST(what_cannot_fit_is_not_allocated)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id o = volume_world_make_file(w.v, "file");
    ck_assert_int_eq(volume_allocate(w.v, o, 0, 0, 1u << 20), 0);
    ck_assert_int_eq(volume_allocate(w.v, o, 0, 0, (uint64_t)1 << 60), -ENOSPC);
    ck_assert_int_eq(volume_allocate(w.v, o, 1, (uint64_t)1 << 50, (uint64_t)1 << 60), -ENOSPC);
    ck_assert_uint_eq(attributes_of(w.v, o).inode.size, 1u << 20);
    volume_world_free(&w);
}
END_TEST

// ---- what later programs know of an inode -------------------------------------------------------

static const uint8_t later[] = {3, 0, 0, 0, 2, 0, 0, 0, 'a', 'b'};

// Opens the manifest of the world's root, which is closed.
static struct manifest *
open_manifest(struct volume_world *w, struct db_record *db)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/manifest", w->root);
    struct manifest_options options = {.no_sync = true};
    struct manifest *m;
    struct store_url url;
    ck_assert_int_eq(manifest_open(path, &options, &m), 0);
    ck_assert_int_eq(store_url_parse(w->config.source, &url), 0);
    CLEANUP(memory_free_auto) char *place = store_url_place(&url);
    ck_assert_int_eq(manifest_find_db(m, place, url.tenant, url.volume_number, db), 0);
    store_url_free(&url);
    return m;
}

START_TEST(what_later_programs_know_of_an_inode_is_passed_on)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id file = volume_world_make_file(w.v, "a");
    volume_world_publish(w.v);
    volume_world_close(&w);
    // A later program was here.
    struct db_record db;
    struct manifest *m = open_manifest(&w, &db);
    struct manifest_reader *r;
    struct change c = {.kind = CHANGE_PUT_INODE, .object = file};
    ck_assert_int_eq(manifest_read_begin(m, &r), 0);
    ck_assert_int_eq(manifest_read_inode(r, db.id, file, &c.inode), 0);
    manifest_read_end(r);
    c.inode.extension = later;
    c.inode.extension_length = sizeof(later);
    struct manifest_batch *b = manifest_batch_new(db.id);
    manifest_batch_change(b, &c, false, db.local);
    ck_assert_int_eq(manifest_submit(m, b, NULL), 0);
    manifest_close(m);
    // Through the log, a fold, and the bucket.
    volume_world_open(&w);
    ck_assert_int_eq(
        set(w.v, file, (struct volume_set_attributes){.set = VOLUME_SET_MODE, .mode = 0640}), 0);
    ck_assert_int_eq(volume_world_sync(w.v), 0);
    volume_world_close(&w);
    volume_world_open(&w);
    ck_assert_int_eq(
        set(w.v, file, (struct volume_set_attributes){.set = VOLUME_SET_MODE, .mode = 0600}), 0);
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    volume_world_close(&w);
    m = open_manifest(&w, &db);
    ck_assert_int_eq(manifest_read_begin(m, &r), 0);
    ck_assert_int_eq(manifest_read_inode(r, db.id, file, &c.inode), 0);
    ck_assert_uint_eq(c.inode.mode, S_IFREG | 0600);
    ck_assert_uint_eq(c.inode.extension_length, sizeof(later));
    ck_assert_mem_eq(c.inode.extension, later, sizeof(later));
    manifest_read_end(r);
    manifest_close(m);
    volume_world_free(&w);
}
END_TEST

// ---- blocks -------------------------------------------------------------------------------------

static uint64_t
pages_shown(struct volume *v, struct object_id object)
{
    uint64_t blocks = attributes_of(v, object).blocks;
    ck_assert_uint_eq(blocks % (PAGE_BYTES / 512), 0);
    return blocks / (PAGE_BYTES / 512);
}

#define MIB ((uint64_t)1 << 20)

static void
expect_allocated(struct volume *v)
{
    struct volume_attributes a;
    ck_assert_uint_eq(pages_shown(v, volume_world_find(v, "grown")), 256);
    ck_assert_uint_eq(pages_shown(v, volume_world_find(v, "kept")), 512);
    ck_assert_uint_eq(pages_shown(v, volume_world_find(v, "middle")), 10 + 1);
    ck_assert_int_eq(volume_lookup(v, OBJECT_ROOT_DIRECTORY, "kept", &a), 0);
    ck_assert_uint_eq(a.blocks, 512 * 8);
    ck_assert_uint_eq(a.inode.size, 2 * PAGE_BYTES);
}

START_TEST(what_is_allocated_shows_as_blocks_everywhere)
{
    struct volume_world w;
    struct volume_attributes a;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id grown = volume_world_make_file(w.v, "grown");
    struct object_id kept = volume_world_make_file(w.v, "kept");
    struct object_id middle = volume_world_make_file(w.v, "middle");
    ck_assert_int_eq(volume_allocate(w.v, grown, 0, 0, MIB), 0);
    ck_assert_int_eq(volume_allocate(w.v, kept, FALLOC_FL_KEEP_SIZE, 0, 2 * MIB), 0);
    ck_assert_uint_eq(attributes_of(w.v, kept).inode.size, 0);
    ck_assert_uint_eq(pages_shown(w.v, kept), 512);
    // Data where it was allocated adds nothing; data elsewhere does.
    volume_world_fill(w.v, grown, 0, MIB / 2, 1);
    volume_world_fill(w.v, kept, 0, 2 * PAGE_BYTES, 2);
    volume_world_fill(w.v, middle, 100 * PAGE_BYTES, 1, 3);
    ck_assert_int_eq(volume_allocate(w.v, middle, FALLOC_FL_KEEP_SIZE, 0, 9 * PAGE_BYTES + 1), 0);
    expect_allocated(w.v);
    ck_assert_int_eq(volume_link(w.v, kept, OBJECT_ROOT_DIRECTORY, "other", &a), 0);
    ck_assert_uint_eq(a.blocks, 512 * 8);
    ck_assert_int_eq(volume_set_attributes(w.v, kept,
                         &(struct volume_set_attributes){.set = VOLUME_SET_MODE, .mode = 0600}, &a),
        0);
    ck_assert_uint_eq(a.blocks, 512 * 8);
    // Through the log, a fold and the bucket.
    ck_assert_int_eq(volume_world_sync(w.v), 0);
    volume_world_close(&w);
    volume_world_open(&w);
    expect_allocated(w.v);
    volume_world_publish(w.v);
    expect_allocated(w.v);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    expect_allocated(w.v);
    volume_world_free(&w);
}
END_TEST

START_TEST(what_is_taken_away_shows_no_blocks)
{
    const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id f = volume_world_make_file(w.v, "f");
    ck_assert_int_eq(volume_allocate(w.v, f, 0, 0, MIB), 0);
    ck_assert_int_eq(volume_allocate(w.v, f, punch, PAGE_BYTES, 2 * PAGE_BYTES), 0);
    ck_assert_uint_eq(pages_shown(w.v, f), 256 - 2);
    ck_assert_int_eq(volume_allocate(w.v, f, FALLOC_FL_ZERO_RANGE, 0, MIB), 0);
    ck_assert_uint_eq(pages_shown(w.v, f), 256);
    ck_assert_int_eq(volume_allocate(w.v, f, FALLOC_FL_KEEP_SIZE, MIB, MIB), 0);
    ck_assert_uint_eq(pages_shown(w.v, f), 512);
    // Growing keeps what is allocated, cutting to the same length cuts it off, too.
    ck_assert_int_eq(
        set(w.v, f, (struct volume_set_attributes){.set = VOLUME_SET_SIZE, .size = MIB + 1}), 0);
    ck_assert_uint_eq(pages_shown(w.v, f), 512);
    ck_assert_int_eq(
        set(w.v, f, (struct volume_set_attributes){.set = VOLUME_SET_SIZE, .size = MIB + 1}), 0);
    ck_assert_uint_eq(pages_shown(w.v, f), 257);
    ck_assert_int_eq(volume_allocate(w.v, f, punch, 0, MIB + 1), 0);
    ck_assert_uint_eq(pages_shown(w.v, f), 0);
    ck_assert_int_eq(volume_allocate(w.v, f, FALLOC_FL_KEEP_SIZE, MIB, MIB), 0);
    ck_assert_int_eq(
        set(w.v, f, (struct volume_set_attributes){.set = VOLUME_SET_SIZE, .size = 0}), 0);
    ck_assert_uint_eq(pages_shown(w.v, f), 0);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("volume_posix");
    unit_add(suite, "access_lists", access_lists_are_inherited_and_last, 60);
    unit_add(suite, "no_list", a_list_that_is_none_is_an_error, 60);
    unit_add(suite, "flags", flags_forbid_and_last, 60);
    unit_add(suite, "late_times", times_that_come_late_are_taken, 60);
    unit_add(suite, "overtaken_times", times_that_were_overtaken_are_not_taken, 60);
    unit_add(suite, "access_time", reading_changes_the_time_of_access, 60);
    unit_add(suite, "closing", nobody_sees_an_older_time_of_access_while_a_file_is_closed, 60);
    unit_add(suite, "nameless", a_file_without_a_name_gets_one_or_goes, 60);
    unit_add(suite, "allocation", what_cannot_fit_is_not_allocated, 60);
    unit_add(suite, "blocks", what_is_allocated_shows_as_blocks_everywhere, 60);
    unit_add(suite, "no_blocks", what_is_taken_away_shows_no_blocks, 60);
    unit_add(suite, "later", what_later_programs_know_of_an_inode_is_passed_on, 60);
    return unit_run(suite);
}
