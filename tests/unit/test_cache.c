// SPDX-License-Identifier: Apache-2.0
// page_cache and namespace_set.
#include "unit.h"

#include <string.h>

#include "base/bytes.h"
#include "base/hash_table.h"
#include "cache/namespace_set.h"
#include "cache/page_cache.h"
#include "platform/memory.h"
#include "platform/thread.h"

static uint64_t
pick(uint64_t *seed, uint64_t below)
{
    return hash_u64(++*seed) % below;
}

// ---- page_cache ---------------------------------------------------------------------------------

static void
put_stamped(struct page_cache *c, uint64_t object, uint64_t number, uint64_t stamp)
{
    struct page *p = page_new();
    put_le64(p->data, object);
    put_le64(p->data + 8, number);
    put_le64(p->data + 16, stamp);
    page_cache_put(c, (struct object_id){object}, (struct page_no){number}, p);
    page_put(p);
}

// The page's stamp; 0 when it is not there.
static uint64_t
get_stamp(struct page_cache *c, uint64_t object, uint64_t number)
{
    struct page *p = page_cache_get(c, (struct object_id){object}, (struct page_no){number});
    if (!p)
        return 0;
    bool right = get_le64(p->data) == object && get_le64(p->data + 8) == number;
    uint64_t stamp = get_le64(p->data + 16);
    page_put(p);
    if (!right)
        abort();
    return stamp;
}

START_TEST(a_page_cache_keeps_its_limit)
{
    uint64_t limit = 100 * 5000;
    struct page_cache *c = page_cache_new(limit);
    for (uint64_t i = 0; i < 1000; i++) {
        put_stamped(c, 1 + i % 7, i, i + 1);
        ck_assert_uint_eq(get_stamp(c, 1 + i % 7, i), i + 1);
        ck_assert_uint_le(page_cache_bytes(c), limit);
    }
    ck_assert_uint_gt(page_cache_bytes(c), limit - 5000);
    // A page's new content replaces the old one.
    put_stamped(c, 1 + 999 % 7, 999, 5);
    ck_assert_uint_eq(get_stamp(c, 1 + 999 % 7, 999), 5);
    page_cache_set_foreign_bytes(c, limit / 2);
    ck_assert_uint_le(page_cache_bytes(c), limit / 2);
    page_cache_set_foreign_bytes(c, 2 * limit);
    ck_assert_uint_eq(page_cache_bytes(c), 0);
    put_stamped(c, 1, 1, 1);
    ck_assert_uint_eq(get_stamp(c, 1, 1), 0);
    page_cache_set_foreign_bytes(c, 0);
    put_stamped(c, 1, 1, 1);
    ck_assert_uint_eq(get_stamp(c, 1, 1), 1);
    page_cache_free(c);
    page_cache_free(NULL);
}
END_TEST

START_TEST(pages_in_use_outlive_those_that_are_not)
{
    struct page_cache *c = page_cache_new(100 * 5000);
    for (uint64_t i = 0; i < 50; i++)
        put_stamped(c, 1, i, i + 1);
    for (uint64_t i = 1000; i < 3000; i++) { // a scan
        put_stamped(c, 2, i, i);
        for (uint64_t k = 0; k < 50; k++)
            ck_assert_uint_eq(get_stamp(c, 1, k), k + 1);
    }
    page_cache_free(c);
}
END_TEST

START_TEST(a_reference_outlives_the_cache)
{
    struct page_cache *c = page_cache_new(1 << 20);
    put_stamped(c, 1, 2, 3);
    struct page *p = page_cache_get(c, (struct object_id){1}, (struct page_no){2});
    page_cache_drop(c, (struct object_id){1}, (struct page_no){2});
    page_cache_drop(c, (struct object_id){1}, (struct page_no){2});
    ck_assert_uint_eq(get_stamp(c, 1, 2), 0);
    page_cache_free(c);
    ck_assert_uint_eq(get_le64(p->data + 16), 3);
    page_put(p);
    page_put(NULL);
}
END_TEST

START_TEST(a_range_is_dropped_and_nothing_else)
{
    static const struct {
        uint64_t first;
        uint64_t end;
    } ranges[] = {{0, 1}, {10, 20}, {30, UINT64_MAX}, {5, 5}, {0, 200}, {99, 101}, {0, UINT64_MAX}};
    for (size_t r = 0; r < ARRAY_LENGTH(ranges); r++) {
        struct page_cache *c = page_cache_new(1 << 22);
        for (uint64_t i = 0; i < 300; i++)
            put_stamped(c, 1 + i % 3, i / 3, i + 1);
        page_cache_drop_range(c, (struct object_id){2}, ranges[r].first, ranges[r].end);
        for (uint64_t i = 0; i < 300; i++) {
            bool dropped = i % 3 == 1 && i / 3 >= ranges[r].first && i / 3 < ranges[r].end;
            ck_assert_uint_eq(get_stamp(c, 1 + i % 3, i / 3), dropped ? 0 : i + 1);
        }
        page_cache_free(c);
    }
}
END_TEST

struct cache_user {
    struct thread thread;
    struct page_cache *cache;
    uint64_t seed;
    uint64_t hits;
};

static void
use_cache(void *argument)
{
    struct cache_user *u = argument;
    for (int i = 0; i < 20000; i++) {
        uint64_t object = 1 + pick(&u->seed, 3);
        uint64_t number = pick(&u->seed, 100);
        switch (pick(&u->seed, 20)) {
        case 0:
            page_cache_drop(u->cache, (struct object_id){object}, (struct page_no){number});
            break;
        case 1:
            page_cache_drop_range(u->cache, (struct object_id){object}, number, number + 5);
            break;
        case 2:
            page_cache_set_foreign_bytes(u->cache, number * 1000);
            break;
        case 3:
        case 4:
        case 5:
            put_stamped(u->cache, object, number, 1);
            break;
        default:
            u->hits += get_stamp(u->cache, object, number);
        }
    }
}

START_TEST(threads_share_a_page_cache)
{
    struct page_cache *c = page_cache_new(200 * 5000);
    struct cache_user users[4];
    for (uint64_t i = 0; i < 4; i++) {
        users[i] = (struct cache_user){.cache = c, .seed = i << 32};
        ck_assert_int_eq(thread_start(&users[i].thread, "cache", use_cache, &users[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        thread_join(&users[i].thread);
        ck_assert_uint_gt(users[i].hits, 0);
    }
    page_cache_free(c);
}
END_TEST

// ---- namespace_set ------------------------------------------------------------------------------

#define OBJECTS 12u
#define COOKIES 6u
#define NAMES   5u

struct slot {
    enum layer_state state;
    uint64_t stamp;
};

static struct namespace_model {
    struct slot inodes[OBJECTS];
    struct slot dirents[OBJECTS][COOKIES];
    struct slot xattrs[OBJECTS][NAMES];
} names_model;

// In order of name: one is the beginning of another.
static const char *const xattr_names[NAMES] = {"a", "ab", "b", "user.long.name", "z\xff"};

static void
text_of(uint64_t stamp, char text_out[24])
{
    snprintf(text_out, 24, "text-%llu", (unsigned long long)stamp);
}

static void
change_inode(struct namespace_set *s, uint64_t o, uint64_t stamp, bool delete)
{
    char target[24];
    text_of(stamp, target);
    struct change c = {.kind = delete ? CHANGE_DELETE_INODE : CHANGE_PUT_INODE, .object = {o + 1}};
    if (!delete) {
        c.inode.size = stamp;
        c.inode.nlink = stamp % 3 ? 1 : 0;
        c.inode.link_target = stamp % 2 ? target : NULL;
        c.inode.link_target_length = stamp % 2 ? (uint16_t)strlen(target) : 0;
        c.inode.extension = stamp % 5 ? NULL : target;
        c.inode.extension_length = stamp % 5 ? 0 : (uint16_t)strlen(target);
    }
    namespace_set_apply(s, &c);
    names_model.inodes[o] = (struct slot){delete ? LAYER_DELETED : LAYER_PUT, stamp};
    if (delete) // the attributes go along
        memset(names_model.xattrs[o], 0, sizeof(names_model.xattrs[o]));
}

static void
change_dirent(struct namespace_set *s, uint64_t o, uint64_t k, uint64_t stamp, bool delete)
{
    char name[24];
    text_of(stamp, name);
    struct change c = {.kind = delete ? CHANGE_DELETE_DIRENT : CHANGE_PUT_DIRENT};
    c.dirent = (struct dirent_record){.parent = {o + 1},
        .cookie = k * k * 1000,
        .object = {stamp},
        .name = name,
        .name_length = (uint8_t)strlen(name)};
    namespace_set_apply(s, &c);
    names_model.dirents[o][k] = (struct slot){delete ? LAYER_DELETED : LAYER_PUT, stamp};
}

static void
change_xattr(struct namespace_set *s, uint64_t o, uint64_t k, uint64_t stamp, bool delete)
{
    char value[24];
    text_of(stamp, value);
    struct change c = {.kind = delete ? CHANGE_DELETE_XATTR : CHANGE_PUT_XATTR};
    c.xattr = (struct xattr_record){
        .object = {o + 1}, .name = xattr_names[k], .name_length = (uint8_t)strlen(xattr_names[k])};
    if (!delete) {
        c.xattr.value = stamp % 5 ? value : NULL;
        c.xattr.value_length = stamp % 5 ? (uint32_t)strlen(value) : 0;
    }
    namespace_set_apply(s, &c);
    names_model.xattrs[o][k] = (struct slot){delete ? LAYER_DELETED : LAYER_PUT, stamp};
}

static void
check_inode(const struct namespace_set *s, uint64_t o)
{
    const struct slot *m = &names_model.inodes[o];
    struct inode_record inode;
    char target[24];
    text_of(m->stamp, target);
    ck_assert_int_eq(namespace_set_find_inode(s, (struct object_id){o + 1}, &inode), m->state);
    if (m->state != LAYER_PUT)
        return;
    ck_assert_uint_eq(inode.size, m->stamp);
    ck_assert_int_eq(inode.link_target != NULL, (int)(m->stamp % 2));
    if (inode.link_target)
        ck_assert_mem_eq(inode.link_target, target, inode.link_target_length);
    ck_assert_int_eq(inode.extension != NULL, m->stamp % 5 == 0);
    if (inode.extension)
        ck_assert_mem_eq(inode.extension, target, inode.extension_length);
}

static void
check_dirents(const struct namespace_set *s, uint64_t o)
{
    struct object_id parent = {o + 1};
    uint64_t from = 0;
    for (uint64_t k = 0; k < COOKIES; k++) {
        const struct slot *m = &names_model.dirents[o][k];
        if (m->state == LAYER_ABSENT)
            continue;
        char name[24];
        text_of(m->stamp, name);
        const struct namespace_dirent *d = namespace_set_next_dirent(s, parent, from);
        ck_assert_ptr_nonnull(d);
        ck_assert_uint_eq(d->dirent.cookie, k * k * 1000);
        ck_assert_uint_eq(d->dirent.parent.v, parent.v);
        ck_assert_int_eq(d->deleted, m->state == LAYER_DELETED);
        ck_assert_uint_eq(d->dirent.name_length, strlen(name));
        ck_assert_mem_eq(d->dirent.name, name, strlen(name));
        ck_assert_ptr_eq(namespace_set_next_dirent(s, parent, d->dirent.cookie), d);
        from = d->dirent.cookie + 1;
    }
    ck_assert_ptr_null(namespace_set_next_dirent(s, parent, from));
}

static void
check_xattrs(const struct namespace_set *s, uint64_t o)
{
    struct object_id object = {o + 1};
    const char *after = NULL;
    for (uint64_t k = 0; k < NAMES; k++) {
        const struct slot *m = &names_model.xattrs[o][k];
        struct xattr_record x;
        size_t n = strlen(xattr_names[k]);
        ck_assert_int_eq(namespace_set_find_xattr(s, object, xattr_names[k], n, &x), m->state);
        if (m->state == LAYER_ABSENT)
            continue;
        char value[24];
        text_of(m->stamp, value);
        if (m->state == LAYER_PUT && m->stamp % 5) {
            ck_assert_uint_eq(x.value_length, strlen(value));
            ck_assert_mem_eq(x.value, value, x.value_length);
        } else {
            ck_assert_uint_eq(x.value_length, 0);
        }
        const struct namespace_xattr *next =
            namespace_set_next_xattr(s, object, after, after ? strlen(after) : 0);
        ck_assert_ptr_nonnull(next);
        ck_assert_uint_eq(next->xattr.name_length, n);
        ck_assert_mem_eq(next->xattr.name, xattr_names[k], n);
        ck_assert_int_eq(next->deleted, m->state == LAYER_DELETED);
        after = xattr_names[k];
    }
    ck_assert_ptr_null(namespace_set_next_xattr(s, object, after, after ? strlen(after) : 0));
}

struct seen {
    size_t count;
    size_t orphans;
    int stage;
    struct namespace_set *copy;
};

static int
visit_change(void *argument, const struct change *c)
{
    static const enum change_kind order[] = {CHANGE_DELETE_DIRENT, CHANGE_DELETE_XATTR,
        CHANGE_DELETE_INODE, CHANGE_PUT_INODE, CHANGE_PUT_DIRENT, CHANGE_PUT_XATTR};
    struct seen *seen = argument;
    while (seen->stage < 6 && order[seen->stage] != c->kind)
        seen->stage++;
    ck_assert_int_lt(seen->stage, 6);
    seen->count++;
    seen->orphans += c->kind == CHANGE_PUT_INODE && c->inode.nlink == 0;
    namespace_set_apply(seen->copy, c);
    return 0;
}

static int
count_orphan(void *argument, const struct change *c)
{
    ck_assert_int_eq(c->kind, CHANGE_PUT_INODE);
    ck_assert_uint_eq(c->inode.nlink, 0);
    ++*(size_t *)argument;
    return 0;
}

static int
refuse_third(void *argument, const struct change *c)
{
    (void)c;
    return ++*(size_t *)argument == 3 ? -EIO : 0;
}

static void
check_names(const struct namespace_set *s)
{
    for (uint64_t o = 0; o < OBJECTS; o++) {
        check_inode(s, o);
        check_dirents(s, o);
        check_xattrs(s, o);
    }
}

static size_t
bytes_of_text(const struct slot *m, bool there)
{
    char text[24];
    text_of(m->stamp, text);
    return m->state != LAYER_ABSENT && there ? strlen(text) : 0;
}

static void
check_names_bytes(const struct namespace_set *s)
{
    uint64_t bytes = 0;
    for (uint64_t o = 0; o < OBJECTS; o++) {
        const struct slot *m = &names_model.inodes[o];
        bytes += bytes_of_text(m, m->state == LAYER_PUT && m->stamp % 2);
        bytes += bytes_of_text(m, m->state == LAYER_PUT && m->stamp % 5 == 0);
        for (uint64_t k = 0; k < COOKIES; k++)
            bytes += bytes_of_text(&names_model.dirents[o][k], true);
        for (uint64_t k = 0; k < NAMES; k++) {
            m = &names_model.xattrs[o][k];
            bytes += m->state != LAYER_ABSENT ? strlen(xattr_names[k]) : 0;
            bytes += bytes_of_text(m, m->state == LAYER_PUT && m->stamp % 5);
        }
    }
    ck_assert_uint_eq(namespace_set_bytes(s), bytes);
    namespace_set_check(s);
}

static void
check_names_walk(const struct namespace_set *s)
{
    struct seen seen = {.copy = namespace_set_new()};
    ck_assert_int_eq(namespace_set_walk(s, visit_change, &seen), 0);
    ck_assert_uint_eq(seen.count, namespace_set_count(s));
    ck_assert_uint_eq(namespace_set_count(seen.copy), seen.count);
    check_names(seen.copy);
    size_t orphans = 0;
    ck_assert_int_eq(namespace_set_walk_orphans(s, count_orphan, &orphans), 0);
    ck_assert_uint_eq(orphans, seen.orphans);
    namespace_set_free(seen.copy);
    size_t visited = 0;
    if (seen.count >= 3) {
        ck_assert_int_eq(namespace_set_walk(s, refuse_third, &visited), -EIO);
        ck_assert_uint_eq(visited, 3);
    }
}

START_TEST(a_namespace_set_is_what_the_model_is)
{
    uint64_t seed = 1;
    for (int round = 0; round < 10; round++) {
        memset(&names_model, 0, sizeof(names_model));
        struct namespace_set *s = namespace_set_new();
        ck_assert(namespace_set_is_empty(s));
        for (uint64_t stamp = 1; stamp < 600; stamp++) {
            uint64_t o = pick(&seed, OBJECTS);
            bool delete = pick(&seed, 3) == 0;
            switch (pick(&seed, 3)) {
            case 0:
                change_inode(s, o, stamp, delete);
                break;
            case 1:
                change_dirent(s, o, pick(&seed, COOKIES), stamp, delete);
                break;
            default: // an object that is gone gets no attributes
                if (names_model.inodes[o].state != LAYER_DELETED)
                    change_xattr(s, o, pick(&seed, NAMES), stamp, delete);
            }
            if (stamp % 20 == 1) {
                check_names(s);
                check_names_walk(s);
                check_names_bytes(s);
            }
        }
        ck_assert(!namespace_set_is_empty(s));
        namespace_set_free(s);
    }
    namespace_set_free(NULL);
}
END_TEST

// The volume reads an entry, changes a field, and applies it: pointers are the set's own.
START_TEST(a_change_may_point_into_the_set)
{
    memset(&names_model, 0, sizeof(names_model));
    struct namespace_set *s = namespace_set_new();
    change_inode(s, 0, 7, false);
    change_dirent(s, 0, 1, 7, false);
    change_xattr(s, 0, 1, 7, false);
    for (int i = 0; i < 3; i++) {
        struct change c = {.kind = CHANGE_PUT_INODE, .object = {1}};
        ck_assert_int_eq(namespace_set_find_inode(s, c.object, &c.inode), LAYER_PUT);
        namespace_set_apply(s, &c);
        c = (struct change){.kind = CHANGE_PUT_DIRENT};
        c.dirent = namespace_set_next_dirent(s, (struct object_id){1}, 0)->dirent;
        namespace_set_apply(s, &c);
        c = (struct change){.kind = CHANGE_PUT_XATTR};
        c.xattr = namespace_set_next_xattr(s, (struct object_id){1}, NULL, 0)->xattr;
        namespace_set_apply(s, &c);
    }
    check_names(s);
    check_names_bytes(s);
    namespace_set_free(s);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("cache");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(a_page_cache_keeps_its_limit);
    ADD(pages_in_use_outlive_those_that_are_not);
    ADD(a_reference_outlives_the_cache);
    ADD(a_range_is_dropped_and_nothing_else);
    ADD(threads_share_a_page_cache);
    ADD(a_namespace_set_is_what_the_model_is);
    ADD(a_change_may_point_into_the_set);
#undef ADD
    return unit_run(s);
}
