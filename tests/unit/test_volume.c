// SPDX-License-Identifier: Apache-2.0
// The volume against a model: random operations, checkpoints, closing, losing the root, looking at
// what was published before.
#define _GNU_SOURCE
#include "volume_model.h"
#include "volume_world.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/memory.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#define RENAME_EXCHANGE  (1 << 1)
#endif

#define WRITE_MAX     (300u << 10)
#define SNAPSHOTS_MAX 64

struct snapshot {
    struct generation generation;
    struct model *model;
};

struct driver {
    struct volume_world w;
    struct model *m;
    uint64_t random;
    struct snapshot snapshots[SNAPSHOTS_MAX];
    size_t snapshot_count;
    uint64_t operations;
    uint8_t *bytes;
};

static uint64_t
below(struct driver *d, uint64_t n)
{
    return test_random(&d->random) % n;
}

static struct model_object *
object_at(struct driver *d, int i)
{
    return &d->m->objects[i];
}

// A random object of this type; -1 when there is none.
static int
pick(struct driver *d, uint32_t type)
{
    int candidates[MODEL_OBJECTS];
    int count = 0;
    for (int i = 0; i < MODEL_OBJECTS; i++)
        if (object_at(d, i)->used && (type == 0 || (object_at(d, i)->mode & S_IFMT) == type))
            candidates[count++] = i;
    return count ? candidates[below(d, (uint64_t)count)] : -1;
}

// A directory that has a name (or is the root).
static int
pick_directory(struct driver *d)
{
    int i = pick(d, S_IFDIR);
    return object_at(d, i)->nlink == 0 ? 0 : i;
}

static void
random_name(struct driver *d, char name[16])
{
    snprintf(name, 16, "n%u", (unsigned)below(d, 12));
}

// ---- data ---------------------------------------------------------------------------------------

static void
random_bytes_of(struct driver *d, size_t n)
{
    uint64_t how = below(d, 8);
    for (size_t i = 0; i < n; i += 8) {
        uint64_t x = how == 0 ? 0 : how < 4 ? d->operations * 0x0101010101010101u : 0;
        if (how >= 4)
            x = test_random(&d->random);
        memcpy(d->bytes + i, &x, n - i < 8 ? n - i : 8);
    }
}

// Somewhere in or behind the file; large ones are sparse and have several chunks.
static uint64_t
random_offset(struct driver *d, const struct model_object *o)
{
    switch (below(d, 10)) {
    case 0:
        return o->size;
    case 1:
        return below(d, 3) * CHUNK_BYTES + below(d, 8) * PAGE_BYTES;
    case 2:
        return below(d, 3) * CHUNK_BYTES + CHUNK_BYTES - below(d, 3 * PAGE_BYTES);
    case 3:
        return below(d, 100) * PAGE_BYTES;
    case 4:
        return o->size + below(d, 20000);
    default:
        return o->size ? below(d, o->size) : 0;
    }
}

static size_t
random_length(struct driver *d)
{
    switch (below(d, 6)) {
    case 0:
        return 1 + below(d, 16);
    case 1:
        return PAGE_BYTES * (1 + below(d, 8));
    case 2:
        return 1 + below(d, WRITE_MAX);
    default:
        return 1 + below(d, 9000);
    }
}

static void
do_write(struct driver *d)
{
    int i = pick(d, S_IFREG);
    if (i < 0)
        return;
    struct model_object *o = object_at(d, i);
    uint64_t offset = random_offset(d, o);
    size_t n = random_length(d);
    if (below(d, 3) == 0)
        offset -= offset % PAGE_BYTES;
    unsigned flags = below(d, 5) == 0 ? VOLUME_WRITE_APPEND : 0;
    if (flags & VOLUME_WRITE_APPEND)
        offset = o->size;
    if (below(d, 4) == 0)
        flags |= VOLUME_WRITE_KEEP_TIMES;
    random_bytes_of(d, n);
    ck_assert_int_eq(volume_write(d->w.v, o->id, offset, d->bytes, n, flags), 0);
    model_write(d->m, i, offset, d->bytes, n);
}

static void
do_truncate(struct driver *d)
{
    int i = pick(d, S_IFREG);
    if (i < 0)
        return;
    struct model_object *o = object_at(d, i);
    uint64_t size = below(d, 4) == 0 ? 0 : random_offset(d, o);
    struct volume_set_attributes set = {.set = VOLUME_SET_SIZE, .size = size};
    struct volume_attributes a;
    ck_assert_int_eq(volume_set_attributes(d->w.v, o->id, &set, &a), 0);
    ck_assert_uint_eq(a.inode.size, size);
    model_truncate(d->m, i, size);
}

static void
do_allocate(struct driver *d)
{
    static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    int i = pick(d, S_IFREG);
    if (i < 0)
        return;
    struct model_object *o = object_at(d, i);
    int mode = modes[below(d, 5)];
    uint64_t offset = random_offset(d, o);
    uint64_t length = below(d, 5) == 0 ? 1 + below(d, 2 * CHUNK_BYTES) : random_length(d);
    if (below(d, 2) == 0) {
        offset -= offset % PAGE_BYTES;
        length = pages_of_bytes(length) * PAGE_BYTES;
    }
    ck_assert_int_eq(volume_allocate(d->w.v, o->id, mode, offset, length), 0);
    uint64_t end = offset + length;
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && offset < o->size)
        model_zero(d->m, i, offset, end < o->size ? end : o->size);
    if (!(mode & FALLOC_FL_KEEP_SIZE) && end > o->size)
        o->size = end;
}

// Every other page becomes a hole.
static void
do_many_holes(struct driver *d)
{
    int i = pick(d, S_IFREG);
    if (i < 0)
        return;
    struct model_object *o = object_at(d, i);
    uint64_t first = random_offset(d, o) / PAGE_BYTES, count = 1 + below(d, 300);
    for (uint64_t page = first; page < first + 2 * count; page += 2) {
        uint64_t from = page * PAGE_BYTES, to = from + PAGE_BYTES;
        ck_assert_int_eq(volume_allocate(d->w.v, o->id, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             from, PAGE_BYTES),
            0);
        if (from < o->size)
            model_zero(d->m, i, from, to < o->size ? to : o->size);
    }
}

static void
do_read(struct driver *d)
{
    int i = pick(d, S_IFREG);
    if (i < 0)
        return;
    model_compare_range(d->m, d->w.v, i, random_offset(d, object_at(d, i)), random_length(d));
    if (below(d, 8) == 0)
        model_compare_seek(d->m, d->w.v, i);
}

// ---- names --------------------------------------------------------------------------------------

static void
do_make(struct driver *d)
{
    static const uint32_t types[] = {S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFLNK};
    int parent = pick_directory(d);
    char name[16];
    random_name(d, name);
    uint32_t mode = types[below(d, 5)] | 0644;
    struct volume_caller caller = {.uid = 1, .gid = 2};
    struct volume_attributes a;
    bool taken = model_find(d->m, parent, name) != NULL;
    int room = model_add(d->m, (struct object_id){0}, mode);
    if (room < 0)
        return;
    const char *target = S_ISLNK(mode) ? "../somewhere/else" : NULL;
    int rc = volume_make(d->w.v, object_at(d, parent)->id, name, mode, 0, target, &caller, &a);
    ck_assert_int_eq(rc, taken ? -EEXIST : 0);
    if (rc < 0) {
        model_remove(d->m, room);
        return;
    }
    for (int i = 0; i < MODEL_OBJECTS; i++)
        ck_assert_uint_ne(object_at(d, i)->id.v, a.object.v);
    object_at(d, room)->id = a.object;
    if (target)
        snprintf(object_at(d, room)->target, sizeof(object_at(d, room)->target), "%s", target);
    model_put_entry(d->m, parent, name, room);
    object_at(d, parent)->nlink += S_ISDIR(mode) ? 1 : 0;
}

static void
do_link(struct driver *d)
{
    int i = pick(d, S_IFREG);
    int parent = pick_directory(d);
    char name[16];
    random_name(d, name);
    if (i < 0)
        return;
    struct volume_attributes a;
    int expected = object_at(d, i)->nlink == 0      ? -ENOENT
                   : model_find(d->m, parent, name) ? -EEXIST
                                                    : 0;
    int rc = volume_link(d->w.v, object_at(d, i)->id, object_at(d, parent)->id, name, &a);
    ck_assert_int_eq(rc, expected);
    if (rc < 0)
        return;
    object_at(d, i)->nlink++;
    model_put_entry(d->m, parent, name, i);
}

// What happens to an object that has lost a name.
static void
drop_link(struct driver *d, int i)
{
    struct model_object *o = object_at(d, i);
    o->nlink = S_ISDIR(o->mode) ? 0 : o->nlink - 1;
    if (o->nlink > 0)
        return;
    volume_object_forgotten(d->w.v, o->id); // does nothing while it is open
    if (!o->open)
        model_remove(d->m, i);
}

static void
do_unlink(struct driver *d)
{
    int parent = pick_directory(d);
    char name[16];
    random_name(d, name);
    struct model_entry *e = model_find(d->m, parent, name);
    bool directory = e && S_ISDIR(object_at(d, e->object)->mode);
    struct object_id id = object_at(d, parent)->id;
    if (!directory) {
        ck_assert_int_eq(volume_unlink(d->w.v, id, name), e ? 0 : -ENOENT);
        if (!e)
            return;
    } else {
        bool empty = object_at(d, e->object)->entry_count == 0;
        ck_assert_int_eq(volume_rmdir(d->w.v, id, name), empty ? 0 : -ENOTEMPTY);
        if (!empty)
            return;
        object_at(d, parent)->nlink--;
    }
    int object = e->object;
    model_drop_entry(d->m, parent, name);
    drop_link(d, object);
}

// Whether `directory` lies below (or is) `ancestor`.
static bool
is_below(struct driver *d, int directory, int ancestor)
{
    if (directory == ancestor)
        return true;
    struct model_object *a = object_at(d, ancestor);
    for (size_t i = 0; i < a->entry_count; i++)
        if (S_ISDIR(object_at(d, a->entries[i].object)->mode) &&
            is_below(d, directory, a->entries[i].object))
            return true;
    return false;
}

static int
expected_rename(
    struct driver *d, const struct model_entry *from, const struct model_entry *to, unsigned flags)
{
    if (flags & RENAME_EXCHANGE)
        return to ? 0 : -ENOENT;
    if (!to)
        return 0;
    if (flags & RENAME_NOREPLACE)
        return -EEXIST;
    bool from_dir = S_ISDIR(object_at(d, from->object)->mode);
    bool to_dir = S_ISDIR(object_at(d, to->object)->mode);
    if (from_dir != to_dir)
        return from_dir ? -ENOTDIR : -EISDIR;
    return to_dir && object_at(d, to->object)->entry_count > 0 ? -ENOTEMPTY : 0;
}

static void
apply_rename(struct driver *d, int parent, const char *name, int new_parent, const char *new_name,
    unsigned flags)
{
    int moved = model_find(d->m, parent, name)->object;
    struct model_entry *to = model_find(d->m, new_parent, new_name);
    int other = to ? to->object : -1;
    unsigned moved_dir = S_ISDIR(object_at(d, moved)->mode);
    unsigned other_dir = other >= 0 && S_ISDIR(object_at(d, other)->mode);
    object_at(d, parent)->nlink -= moved_dir;
    object_at(d, new_parent)->nlink += moved_dir;
    object_at(d, new_parent)->nlink -= other_dir;
    model_put_entry(d->m, new_parent, new_name, moved);
    if (flags & RENAME_EXCHANGE) {
        object_at(d, parent)->nlink += other_dir;
        model_put_entry(d->m, parent, name, other);
        return;
    }
    model_drop_entry(d->m, parent, name);
    if (other >= 0)
        drop_link(d, other);
}

static void
do_rename(struct driver *d)
{
    static const unsigned all_flags[] = {0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
    int parent = pick_directory(d);
    int new_parent = below(d, 2) ? parent : pick_directory(d);
    char name[16], new_name[16];
    random_name(d, name);
    random_name(d, new_name);
    unsigned flags = all_flags[below(d, 5)];
    struct model_entry *from = model_find(d->m, parent, name);
    struct model_entry *to = model_find(d->m, new_parent, new_name);
    // What the kernel refuses before it asks: moving a directory below itself.
    if (from && is_below(d, new_parent, from->object))
        return;
    if (to && (flags & RENAME_EXCHANGE || from) && is_below(d, parent, to->object))
        return;
    int expected = from ? expected_rename(d, from, to, flags) : -ENOENT;
    int rc = volume_rename(d->w.v, object_at(d, parent)->id, name, object_at(d, new_parent)->id,
        new_name, flags, NULL);
    ck_assert_int_eq(rc, expected);
    if (rc == 0 && !(to && to->object == from->object))
        apply_rename(d, parent, name, new_parent, new_name, flags);
}

static void
do_open_or_close(struct driver *d)
{
    int i = pick(d, S_IFREG);
    if (i < 0)
        return;
    struct model_object *o = object_at(d, i);
    o->open = !o->open;
    if (o->open) {
        ck_assert_int_eq(volume_object_opened(d->w.v, o->id), 0);
        return;
    }
    volume_object_closed(d->w.v, o->id);
    if (o->nlink > 0)
        return;
    volume_object_forgotten(d->w.v, o->id);
    struct volume_attributes a;
    ck_assert_int_eq(volume_get_attributes(d->w.v, o->id, &a), -ENOENT);
    model_remove(d->m, i);
}

static void
do_attributes(struct driver *d)
{
    int i = pick(d, 0);
    struct model_object *o = object_at(d, i);
    uint32_t mode = (uint32_t)below(d, 01000);
    struct volume_set_attributes set = {.set = VOLUME_SET_MODE, .mode = mode};
    struct volume_attributes a;
    ck_assert_int_eq(volume_set_attributes(d->w.v, o->id, &set, &a), 0);
    o->mode = (o->mode & S_IFMT) | mode;
}

static struct model_xattr *
find_xattr(struct model_object *o, const char *name)
{
    for (size_t i = 0; i < o->xattr_count; i++)
        if (strcmp(o->xattrs[i].name, name) == 0)
            return &o->xattrs[i];
    return NULL;
}

static void
do_xattr(struct driver *d)
{
    struct model_object *o = object_at(d, pick(d, 0));
    char name[16];
    snprintf(name, sizeof(name), "user.%u", (unsigned)below(d, MODEL_XATTRS));
    struct model_xattr *x = find_xattr(o, name);
    if (below(d, 3) == 0) {
        ck_assert_int_eq(volume_remove_xattr(d->w.v, o->id, name), x ? 0 : -ENODATA);
        if (x)
            *x = o->xattrs[--o->xattr_count];
        return;
    }
    int flags = below(d, 4) == 0 ? XATTR_CREATE : below(d, 4) == 0 ? XATTR_REPLACE : 0;
    size_t n = below(d, 8) == 0 ? below(d, XATTR_VALUE_BYTES_MAX + 1) : below(d, sizeof(x->value));
    random_bytes_of(d, sizeof(x->value));
    for (size_t i = sizeof(x->value); i < n; i++)
        d->bytes[i] = d->bytes[i % sizeof(x->value)];
    int expected = flags == XATTR_CREATE && x     ? -EEXIST
                   : flags == XATTR_REPLACE && !x ? -ENODATA
                                                  : 0;
    ck_assert_int_eq(volume_set_xattr(d->w.v, o->id, name, d->bytes, n, flags), expected);
    if (expected != 0)
        return;
    if (!x) {
        x = &o->xattrs[o->xattr_count++];
        snprintf(x->name, sizeof(x->name), "%s", name);
    }
    memcpy(x->value, d->bytes, sizeof(x->value));
    x->length = n;
}

// ---- checkpoints and more -----------------------------------------------------------------------

static void
remember(struct driver *d, struct generation generation)
{
    if (d->snapshot_count > 0 && d->snapshots[d->snapshot_count - 1].generation.v == generation.v)
        return;
    if (d->snapshot_count == SNAPSHOTS_MAX) {
        size_t victim = below(d, SNAPSHOTS_MAX);
        model_free(d->snapshots[victim].model);
        memmove(&d->snapshots[victim], &d->snapshots[victim + 1],
            (SNAPSHOTS_MAX - victim - 1) * sizeof(d->snapshots[0]));
        d->snapshot_count--;
    }
    d->snapshots[d->snapshot_count++] =
        (struct snapshot){.generation = generation, .model = model_copy(d->m)};
}

static void
publish(struct driver *d)
{
    remember(d, volume_world_publish(d->w.v));
}

// At mount nobody has anything open.
static void
forget_orphans(struct driver *d)
{
    for (int i = 0; i < MODEL_OBJECTS; i++) {
        struct model_object *o = object_at(d, i);
        o->open = false;
        if (o->used && o->nlink == 0)
            model_remove(d->m, i);
    }
}

static void
reopen(struct driver *d, bool lose_root)
{
    volume_world_close(&d->w);
    volume_world_check(&d->w);
    if (lose_root)
        volume_world_lose_root(&d->w);
    forget_orphans(d);
    volume_world_open(&d->w);
    if (lose_root || below(d, 3) == 0)
        model_compare(d->m, d->w.v);
}

static void
look_back(struct driver *d, size_t i)
{
    struct volume_world past = d->w;
    past.config.at = memory_printf("%" PRIu64, d->snapshots[i].generation.v);
    past.config.read_only = true;
    volume_world_open(&past);
    model_compare(d->snapshots[i].model, past.v);
    ck_assert_int_eq(volume_write(past.v, OBJECT_ROOT_DIRECTORY, 0, d->bytes, 1, 0), -EROFS);
    ck_assert_int_eq(volume_world_try_close(&past), 0);
    free(past.config.at);
}

static void
do_anything(struct driver *d)
{
    d->operations++;
    uint64_t what = below(d, 1000);
    if (what < 380)
        do_write(d);
    else if (what < 520)
        do_read(d);
    else if (what < 580)
        do_truncate(d);
    else if (what < 635)
        do_allocate(d);
    else if (what < 640)
        do_many_holes(d);
    else if (what < 730)
        do_make(d);
    else if (what < 760)
        do_link(d);
    else if (what < 810)
        do_unlink(d);
    else if (what < 870)
        do_rename(d);
    else if (what < 900)
        do_open_or_close(d);
    else if (what < 920)
        do_attributes(d);
    else if (what < 960)
        do_xattr(d);
    else if (what < 970)
        ck_assert_int_eq(volume_world_sync(d->w.v), 0);
    else if (what < 988)
        volume_world_fold(d->w.v);
    else if (what < 996)
        publish(d);
    else if (what < 997)
        model_compare(d->m, d->w.v);
    else if (what < 999)
        reopen(d, below(d, 3) == 0);
    else if (d->snapshot_count > 0)
        look_back(d, below(d, d->snapshot_count));
}

static void
run_model(const char *what, uint64_t duration_ms, uint64_t interval_ms)
{
    struct driver d = {.random = test_seed(what) * 2 + 1};
    volume_world_new(&d.w);
    d.w.config.checkpoint_interval_ms = interval_ms;
    volume_world_open(&d.w);
    d.m = model_new();
    d.bytes = memory_alloc(WRITE_MAX + 16);
    uint64_t end = clock_monotonic_ms() + duration_ms;
    while (clock_monotonic_ms() < end)
        do_anything(&d);
    publish(&d);
    model_compare(d.m, d.w.v);
    reopen(&d, true);
    for (size_t i = 0; i < d.snapshot_count; i++)
        look_back(&d, i);
    printf("%s: %" PRIu64 " operations, %zu generations looked at\n", what, d.operations,
        d.snapshot_count);
    for (size_t i = 0; i < d.snapshot_count; i++)
        model_free(d.snapshots[i].model);
    model_free(d.m);
    free(d.bytes);
    volume_world_free(&d.w);
}

// How long the random runs take, in all.
static uint64_t
run_ms(void)
{
    const char *given = getenv("CKPTFS_TEST_SECONDS");
    return given ? strtoull(given, NULL, 0) * 1000 : 20000;
}

START_TEST(the_volume_does_what_the_model_does)
{
    run_model("on demand", run_ms() / 2, 0);
}
END_TEST

START_TEST(the_volume_does_what_the_model_does_while_a_timer_publishes)
{
    run_model("with a timer", run_ms() / 2, 30);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume");
    double timeout = 120 + (double)run_ms() / 100;
#define ADD(test) unit_add(s, #test, test, timeout)
    ADD(the_volume_does_what_the_model_does);
    ADD(the_volume_does_what_the_model_does_while_a_timer_publishes);
#undef ADD
    return unit_run(s);
}
