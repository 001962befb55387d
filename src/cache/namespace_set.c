// SPDX-License-Identifier: Apache-2.0
#include "cache/namespace_set.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash_table.h"
#include "base/tree.h"
#include "platform/memory.h"

struct inode_entry {
    struct hash_node node;
    struct object_id object;
    bool deleted;
    struct inode_record inode; // owns link_target and extension
};

struct dirent_entry {
    struct tree_node node;
    struct namespace_dirent content; // owns name
};

struct xattr_entry {
    struct tree_node node;
    struct namespace_xattr content; // owns name and value
};

struct namespace_set {
    struct hash_table inodes;
    struct tree dirents; // by parent, cookie
    struct tree xattrs;  // by object, name
    uint64_t bytes;      // that entries own: names, link targets, values
};

struct dirent_key {
    uint64_t parent;
    uint64_t cookie;
};

struct xattr_key {
    uint64_t object;
    const char *name; // NULL sorts before all names
    size_t length;
};

static int
compare_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int
compare_dirent(const void *key, const struct tree_node *node)
{
    const struct dirent_key *k = key;
    const struct dirent_record *d = &CONTAINER_OF(node, struct dirent_entry, node)->content.dirent;
    int order = compare_u64(k->parent, d->parent.v);
    return order != 0 ? order : compare_u64(k->cookie, d->cookie);
}

static int
compare_xattr(const void *key, const struct tree_node *node)
{
    const struct xattr_key *k = key;
    const struct xattr_record *x = &CONTAINER_OF(node, struct xattr_entry, node)->content.xattr;
    int order = compare_u64(k->object, x->object.v);
    if (order != 0)
        return order;
    if (!k->name)
        return -1;
    size_t n = k->length < x->name_length ? k->length : x->name_length;
    order = memcmp(k->name, x->name, n);
    return order != 0 ? order : compare_u64(k->length, x->name_length);
}

struct namespace_set *
namespace_set_new(void)
{
    struct namespace_set *s = memory_alloc_zero(sizeof(*s));
    s->dirents.compare = compare_dirent;
    s->xattrs.compare = compare_xattr;
    return s;
}

// A copy that an entry owns; NULL of NULL.
static void *
own_bytes(struct namespace_set *s, const void *p, size_t n)
{
    if (!p)
        return NULL;
    void *copy = memory_alloc(n + 1);
    memcpy(copy, p, n);
    ((char *)copy)[n] = 0;
    s->bytes += n;
    return copy;
}

static void
disown_bytes(struct namespace_set *s, const void *p, size_t n)
{
    if (!p)
        return;
    assert(s->bytes >= n);
    s->bytes -= n;
    free((void *)p);
}

static void
disown_dirent(struct namespace_set *s, const struct dirent_record *d)
{
    disown_bytes(s, d->name, d->name_length);
}

static void
disown_xattr(struct namespace_set *s, const struct xattr_record *x)
{
    disown_bytes(s, x->name, x->name_length);
    disown_bytes(s, x->value, x->value_length);
}

static void
disown_target(struct namespace_set *s, const struct inode_record *inode)
{
    disown_bytes(s, inode->link_target, inode->link_target_length);
}

static void
disown_extension(struct namespace_set *s, const struct inode_record *inode)
{
    disown_bytes(s, inode->extension, inode->extension_length);
}

static void
remove_xattr(struct namespace_set *s, struct xattr_entry *e)
{
    tree_remove(&s->xattrs, &e->node);
    disown_xattr(s, &e->content.xattr);
    free(e);
}

void
namespace_set_free(struct namespace_set *s)
{
    if (!s)
        return;
    HASH_TABLE_FOR_EACH(&s->inodes, n)
    {
        struct inode_entry *e = CONTAINER_OF(n, struct inode_entry, node);
        disown_target(s, &e->inode);
        disown_extension(s, &e->inode);
        free(e);
    }
    hash_table_free(&s->inodes);
    for (struct tree_node *n; (n = s->dirents.root);) {
        struct dirent_entry *e = CONTAINER_OF(n, struct dirent_entry, node);
        tree_remove(&s->dirents, n);
        disown_dirent(s, &e->content.dirent);
        free(e);
    }
    for (struct tree_node *n; (n = s->xattrs.root);) {
        remove_xattr(s, CONTAINER_OF(n, struct xattr_entry, node));
    }
    assert(s->bytes == 0);
    free(s);
}

bool
namespace_set_is_empty(const struct namespace_set *s)
{
    return namespace_set_count(s) == 0;
}

size_t
namespace_set_count(const struct namespace_set *s)
{
    return s->inodes.count + s->dirents.count + s->xattrs.count;
}

uint64_t
namespace_set_bytes(const struct namespace_set *s)
{
    return s->bytes;
}

static struct inode_entry *
find_inode(const struct namespace_set *s, struct object_id object)
{
    struct hash_node *n = hash_table_first(&s->inodes, hash_u64(object.v));
    for (; n; n = hash_table_next_same(n)) {
        struct inode_entry *e = CONTAINER_OF(n, struct inode_entry, node);
        if (e->object.v == object.v)
            return e;
    }
    return NULL;
}

// An object that goes takes its attributes along: their entries in the set are void.
static void
drop_xattrs(struct namespace_set *s, struct object_id object)
{
    struct xattr_key key = {object.v, NULL, 0};
    for (;;) {
        struct tree_node *n = tree_lower_bound(&s->xattrs, &key);
        struct xattr_entry *e = n ? CONTAINER_OF(n, struct xattr_entry, node) : NULL;
        if (!e || e->content.xattr.object.v != object.v)
            return;
        remove_xattr(s, e);
    }
}

static void
apply_inode(struct namespace_set *s, const struct change *c)
{
    struct inode_entry *e = find_inode(s, c->object);
    if (!e) {
        e = memory_alloc_zero(sizeof(*e));
        e->object = c->object;
        hash_table_insert(&s->inodes, &e->node, hash_u64(c->object.v));
    }
    e->deleted = c->kind == CHANGE_DELETE_INODE;
    if (e->deleted) {
        disown_target(s, &e->inode);
        disown_extension(s, &e->inode);
        e->inode = (struct inode_record){0};
        drop_xattrs(s, c->object);
        return;
    }
    // A link's target never changes; the change may point to the very string that is kept here.
    const char *target = e->inode.link_target;
    if (c->inode.link_target != target) {
        target = own_bytes(s, c->inode.link_target, c->inode.link_target_length);
        disown_target(s, &e->inode);
    }
    const void *extension = e->inode.extension;
    if (c->inode.extension != extension) {
        extension = own_bytes(s, c->inode.extension, c->inode.extension_length);
        disown_extension(s, &e->inode);
    }
    e->inode = c->inode;
    e->inode.link_target = target;
    e->inode.extension = extension;
}

static void
apply_dirent(struct namespace_set *s, const struct change *c)
{
    struct dirent_key key = {c->dirent.parent.v, c->dirent.cookie};
    struct tree_node *n = tree_find(&s->dirents, &key);
    struct dirent_entry *e;
    char *name = own_bytes(s, c->dirent.name, c->dirent.name_length);
    if (n) {
        e = CONTAINER_OF(n, struct dirent_entry, node);
        disown_dirent(s, &e->content.dirent);
    } else {
        e = memory_alloc_zero(sizeof(*e));
        e->content.dirent.parent = c->dirent.parent;
        e->content.dirent.cookie = c->dirent.cookie;
        tree_insert(&s->dirents, &e->node, &key);
    }
    e->content.deleted = c->kind == CHANGE_DELETE_DIRENT;
    e->content.dirent = c->dirent;
    e->content.dirent.name = name;
}

static void
apply_xattr(struct namespace_set *s, const struct change *c)
{
    struct xattr_key key = {c->xattr.object.v, c->xattr.name, c->xattr.name_length};
    struct tree_node *n = tree_find(&s->xattrs, &key);
    struct xattr_entry *e;
    char *name = own_bytes(s, c->xattr.name, c->xattr.name_length);
    bool deleted = c->kind == CHANGE_DELETE_XATTR;
    void *value = deleted ? NULL : own_bytes(s, c->xattr.value, c->xattr.value_length);
    if (n) {
        e = CONTAINER_OF(n, struct xattr_entry, node);
        disown_xattr(s, &e->content.xattr);
        e->content.xattr = c->xattr;
    } else {
        e = memory_alloc_zero(sizeof(*e));
        e->content.xattr = c->xattr;
        tree_insert(&s->xattrs, &e->node, &key);
    }
    e->content.deleted = deleted;
    e->content.xattr.name = name;
    e->content.xattr.value = value;
}

void
namespace_set_apply(struct namespace_set *s, const struct change *c)
{
    switch (c->kind) {
    case CHANGE_PUT_INODE:
    case CHANGE_DELETE_INODE:
        apply_inode(s, c);
        return;
    case CHANGE_PUT_DIRENT:
    case CHANGE_DELETE_DIRENT:
        apply_dirent(s, c);
        return;
    case CHANGE_PUT_XATTR:
    case CHANGE_DELETE_XATTR:
        apply_xattr(s, c);
        return;
    default:
        assert(!"a change of the namespace");
    }
}

enum layer_state
namespace_set_find_inode(
    const struct namespace_set *s, struct object_id object, struct inode_record *inode_out)
{
    struct inode_entry *e = find_inode(s, object);
    if (!e)
        return LAYER_ABSENT;
    *inode_out = e->inode;
    return e->deleted ? LAYER_DELETED : LAYER_PUT;
}

enum layer_state
namespace_set_find_xattr(const struct namespace_set *s, struct object_id object, const char *name,
    size_t name_length, struct xattr_record *xattr_out)
{
    struct xattr_key key = {object.v, name, name_length};
    struct tree_node *n = tree_find(&s->xattrs, &key);
    if (!n)
        return LAYER_ABSENT;
    struct xattr_entry *e = CONTAINER_OF(n, struct xattr_entry, node);
    *xattr_out = e->content.xattr;
    return e->content.deleted ? LAYER_DELETED : LAYER_PUT;
}

const struct namespace_dirent *
namespace_set_next_dirent(const struct namespace_set *s, struct object_id parent, uint64_t from)
{
    struct dirent_key key = {parent.v, from};
    struct tree_node *n = tree_lower_bound(&s->dirents, &key);
    if (!n)
        return NULL;
    const struct dirent_entry *e = CONTAINER_OF(n, struct dirent_entry, node);
    return e->content.dirent.parent.v == parent.v ? &e->content : NULL;
}

const struct namespace_xattr *
namespace_set_next_xattr(
    const struct namespace_set *s, struct object_id object, const char *after, size_t after_length)
{
    struct xattr_key key = {object.v, after, after_length};
    struct tree_node *n = tree_lower_bound(&s->xattrs, &key);
    if (n && after && compare_xattr(&key, n) == 0)
        n = tree_next(n);
    if (!n)
        return NULL;
    const struct xattr_entry *e = CONTAINER_OF(n, struct xattr_entry, node);
    return e->content.xattr.object.v == object.v ? &e->content : NULL;
}

// ---- walking ------------------------------------------------------------------------------------

static int
walk_dirents(const struct namespace_set *s, bool deleted, namespace_set_visit *visit, void *a)
{
    int rc = 0;
    for (struct tree_node *n = tree_first(&s->dirents); rc == 0 && n; n = tree_next(n)) {
        const struct dirent_entry *e = CONTAINER_OF(n, struct dirent_entry, node);
        struct change c = {.kind = deleted ? CHANGE_DELETE_DIRENT : CHANGE_PUT_DIRENT};
        c.dirent = e->content.dirent;
        if (e->content.deleted == deleted)
            rc = visit(a, &c);
    }
    return rc;
}

static int
walk_xattrs(const struct namespace_set *s, bool deleted, namespace_set_visit *visit, void *a)
{
    int rc = 0;
    for (struct tree_node *n = tree_first(&s->xattrs); rc == 0 && n; n = tree_next(n)) {
        const struct xattr_entry *e = CONTAINER_OF(n, struct xattr_entry, node);
        struct change c = {.kind = deleted ? CHANGE_DELETE_XATTR : CHANGE_PUT_XATTR};
        c.xattr = e->content.xattr;
        if (e->content.deleted == deleted)
            rc = visit(a, &c);
    }
    return rc;
}

static int
walk_inodes(const struct namespace_set *s, bool deleted, namespace_set_visit *visit, void *a)
{
    int rc = 0;
    HASH_TABLE_FOR_EACH(&s->inodes, n)
    {
        const struct inode_entry *e = CONTAINER_OF(n, struct inode_entry, node);
        struct change c = {.kind = deleted ? CHANGE_DELETE_INODE : CHANGE_PUT_INODE};
        c.object = e->object;
        c.inode = e->inode;
        if (rc == 0 && e->deleted == deleted)
            rc = visit(a, &c);
    }
    return rc;
}

int
namespace_set_walk_inodes(const struct namespace_set *s, namespace_set_visit *visit, void *argument)
{
    int rc = walk_inodes(s, true, visit, argument);
    return rc == 0 ? walk_inodes(s, false, visit, argument) : rc;
}

int
namespace_set_walk(const struct namespace_set *s, namespace_set_visit *visit, void *argument)
{
    int rc = walk_dirents(s, true, visit, argument);
    if (rc == 0)
        rc = walk_xattrs(s, true, visit, argument);
    if (rc == 0)
        rc = walk_inodes(s, true, visit, argument);
    if (rc == 0)
        rc = walk_inodes(s, false, visit, argument);
    if (rc == 0)
        rc = walk_dirents(s, false, visit, argument);
    if (rc == 0)
        rc = walk_xattrs(s, false, visit, argument);
    return rc;
}

struct orphan_walk {
    namespace_set_visit *visit;
    void *argument;
};

static int
visit_if_orphan(void *argument, const struct change *change)
{
    struct orphan_walk *w = argument;
    return change->inode.nlink == 0 ? w->visit(w->argument, change) : 0;
}

int
namespace_set_walk_orphans(
    const struct namespace_set *s, namespace_set_visit *visit, void *argument)
{
    struct orphan_walk w = {visit, argument};
    return walk_inodes(s, false, visit_if_orphan, &w);
}

// ---- checking -----------------------------------------------------------------------------------

static void
check_xattrs(const struct namespace_set *s, uint64_t *bytes)
{
    const struct xattr_entry *last = NULL;
    for (struct tree_node *n = tree_first(&s->xattrs); n; n = tree_next(n)) {
        const struct xattr_entry *e = CONTAINER_OF(n, struct xattr_entry, node);
        const struct xattr_record *x = &e->content.xattr;
        struct xattr_key key = {x->object.v, x->name, x->name_length};
        assert(x->name && (!last || compare_xattr(&key, &last->node) > 0));
        assert(x->value || x->value_length == 0 || e->content.deleted);
        *bytes += x->name_length + (x->value ? x->value_length : 0);
        last = e;
    }
}

static void
check_dirents(const struct namespace_set *s, uint64_t *bytes)
{
    const struct dirent_entry *last = NULL;
    for (struct tree_node *n = tree_first(&s->dirents); n; n = tree_next(n)) {
        const struct dirent_entry *e = CONTAINER_OF(n, struct dirent_entry, node);
        const struct dirent_record *d = &e->content.dirent;
        struct dirent_key key = {d->parent.v, d->cookie};
        assert(!last || compare_dirent(&key, &last->node) > 0);
        *bytes += d->name ? d->name_length : 0;
        last = e;
    }
}

void
namespace_set_check(const struct namespace_set *s)
{
    uint64_t bytes = 0;
    HASH_TABLE_FOR_EACH(&s->inodes, n)
    {
        const struct inode_entry *e = CONTAINER_OF(n, struct inode_entry, node);
        assert(find_inode(s, e->object) == e);
        assert(!e->deleted || (!e->inode.link_target && !e->inode.extension));
        bytes += e->inode.link_target ? e->inode.link_target_length : 0;
        bytes += e->inode.extension ? e->inode.extension_length : 0;
    }
    check_dirents(s, &bytes);
    check_xattrs(s, &bytes);
    assert(bytes == s->bytes);
}
