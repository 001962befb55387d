// SPDX-License-Identifier: Apache-2.0
// Objects hang in a hash table; an object's pages hang in leaves of LEAF_PAGES in a tree ordered by
// page number; leaves with resident pages queue for eviction in the order in which they came. Its
// holes hang in a tree, too: a program may punch any number of them between two folds.
#include "cache/dirty_set.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash_table.h"
#include "base/list.h"
#include "base/tree.h"
#include "platform/memory.h"

#define LEAF_PAGES 16u

struct leaf {
    struct tree_node node; // in the object's tree, by number
    struct list_node aging;
    uint64_t number; // page / LEAF_PAGES
    uint32_t present;
    struct dirty_page *pages[LEAF_PAGES];
};

struct dirty_object {
    struct hash_node node;
    struct object_id id;
    struct tree leaves;
    uint64_t pages;
    struct tree holes; // disjoint, apart from each other, by place
};

// Pages [first, end).
struct hole {
    struct tree_node node;
    uint64_t first;
    uint64_t end;
};

struct dirty_set {
    struct hash_table objects;
    struct list_node aging;
    uint64_t pages;
    uint64_t resident; // pages with bytes in memory
};

bool
page_is_zero(const uint8_t data[PAGE_BYTES])
{
    return data[0] == 0 && memcmp(data, data + 1, PAGE_BYTES - 1) == 0;
}

static int
compare_leaf(const void *key, const struct tree_node *node)
{
    uint64_t k = *(const uint64_t *)key;
    uint64_t n = CONTAINER_OF(node, struct leaf, node)->number;
    return k < n ? -1 : k > n;
}

// A page is less than each hole that ends behind it. Holes are disjoint, so that is their order
// too.
static int
compare_hole(const void *page, const struct tree_node *node)
{
    return *(const uint64_t *)page < CONTAINER_OF(node, struct hole, node)->end ? -1 : 1;
}

struct dirty_set *
dirty_set_new(void)
{
    struct dirty_set *s = memory_alloc_zero(sizeof(*s));
    list_init(&s->aging);
    return s;
}

static struct dirty_object *
find_object(const struct dirty_set *s, struct object_id id)
{
    struct hash_node *n = hash_table_first(&s->objects, hash_u64(id.v));
    for (; n; n = hash_table_next_same(n)) {
        struct dirty_object *o = CONTAINER_OF(n, struct dirty_object, node);
        if (o->id.v == id.v)
            return o;
    }
    return NULL;
}

static struct dirty_object *
find_or_make_object(struct dirty_set *s, struct object_id id)
{
    struct dirty_object *o = find_object(s, id);
    if (o)
        return o;
    o = memory_alloc_zero(sizeof(*o));
    o->id = id;
    o->leaves.compare = compare_leaf;
    o->holes.compare = compare_hole;
    hash_table_insert(&s->objects, &o->node, hash_u64(id.v));
    return o;
}

static void
forget_page(struct dirty_set *s, struct dirty_object *o, struct leaf *leaf, unsigned slot)
{
    struct dirty_page *p = leaf->pages[slot];
    s->pages--;
    o->pages--;
    s->resident -= p->page != NULL;
    page_put(p->page);
    free(p->mask);
    free(p);
    leaf->pages[slot] = NULL;
    leaf->present &= ~(1u << slot);
}

static void
free_leaf(struct dirty_object *o, struct leaf *leaf)
{
    tree_remove(&o->leaves, &leaf->node);
    if (leaf->aging.next)
        list_remove(&leaf->aging);
    free(leaf);
}

static void
free_hole(struct dirty_object *o, struct hole *hole)
{
    tree_remove(&o->holes, &hole->node);
    free(hole);
}

static void
free_object(struct dirty_set *s, struct dirty_object *o)
{
    for (struct tree_node *n; (n = o->leaves.root);) {
        struct leaf *leaf = CONTAINER_OF(n, struct leaf, node);
        for (unsigned i = 0; i < LEAF_PAGES; i++)
            if (leaf->pages[i])
                forget_page(s, o, leaf, i);
        free_leaf(o, leaf);
    }
    for (struct tree_node *n; (n = o->holes.root);)
        free_hole(o, CONTAINER_OF(n, struct hole, node));
    hash_table_remove(&s->objects, &o->node);
    free(o);
}

void
dirty_set_free(struct dirty_set *s)
{
    if (!s)
        return;
    HASH_TABLE_FOR_EACH(&s->objects, n)
    free_object(s, CONTAINER_OF(n, struct dirty_object, node));
    hash_table_free(&s->objects);
    free(s);
}

void
dirty_set_put(
    struct dirty_set *s, struct object_id object, struct page_no page, struct dirty_page content)
{
    struct dirty_object *o = find_or_make_object(s, object);
    uint64_t number = page.v / LEAF_PAGES;
    unsigned slot = (unsigned)(page.v % LEAF_PAGES);
    struct tree_node *n = tree_find(&o->leaves, &number);
    struct leaf *leaf = n ? CONTAINER_OF(n, struct leaf, node) : NULL;
    if (!leaf) {
        leaf = memory_alloc_zero(sizeof(*leaf));
        leaf->number = number;
        tree_insert(&o->leaves, &leaf->node, &number);
    }
    if (leaf->pages[slot])
        forget_page(s, o, leaf, slot);
    struct dirty_page *p = memory_alloc(sizeof(*p));
    *p = content;
    leaf->pages[slot] = p;
    leaf->present |= 1u << slot;
    s->pages++;
    o->pages++;
    s->resident += p->page != NULL;
    if (!leaf->aging.next)
        list_append(&s->aging, &leaf->aging);
}

// ---- holes --------------------------------------------------------------------------------------

// The first hole that ends behind `page`, or NULL.
static struct hole *
hole_behind(const struct dirty_object *o, uint64_t page)
{
    struct tree_node *n = tree_lower_bound(&o->holes, &page);
    return n ? CONTAINER_OF(n, struct hole, node) : NULL;
}

static struct hole *
next_hole(const struct hole *hole)
{
    struct tree_node *n = tree_next(&hole->node);
    return n ? CONTAINER_OF(n, struct hole, node) : NULL;
}

// Adds [first, end), joining holes that touch it: each hole that goes was added by a call of its
// own.
static void
add_hole(struct dirty_object *o, uint64_t first, uint64_t end)
{
    struct hole *hole = hole_behind(o, first > 0 ? first - 1 : 0);
    if (hole && hole->first <= first && hole->end >= end)
        return;
    while (hole && hole->first <= end) {
        struct hole *next = next_hole(hole);
        first = hole->first < first ? hole->first : first;
        end = hole->end > end ? hole->end : end;
        free_hole(o, hole);
        hole = next;
    }
    hole = memory_alloc(sizeof(*hole));
    hole->first = first;
    hole->end = end;
    tree_insert(&o->holes, &hole->node, &first);
}

// Where the hole that the page lies in ends, or where the next one begins.
static uint64_t
hole_edge(const struct dirty_object *o, uint64_t page, bool *inside_out)
{
    const struct hole *hole = hole_behind(o, page);
    *inside_out = hole && hole->first <= page;
    return !hole ? UINT64_MAX : *inside_out ? hole->end : hole->first;
}

static void
drop_pages(struct dirty_set *s, struct dirty_object *o, uint64_t first, uint64_t end)
{
    uint64_t number = first / LEAF_PAGES;
    struct tree_node *n = tree_lower_bound(&o->leaves, &number);
    while (n) {
        struct leaf *leaf = CONTAINER_OF(n, struct leaf, node);
        n = tree_next(n);
        if (leaf->number > (end - 1) / LEAF_PAGES)
            break;
        for (unsigned i = 0; i < LEAF_PAGES; i++) {
            uint64_t page = leaf->number * LEAF_PAGES + i;
            if (leaf->pages[i] && page >= first && page < end)
                forget_page(s, o, leaf, i);
        }
        if (leaf->present == 0)
            free_leaf(o, leaf);
    }
}

void
dirty_set_discard(struct dirty_set *s, struct object_id object, uint64_t first, uint64_t end)
{
    if (first >= end)
        return;
    struct dirty_object *o = find_or_make_object(s, object);
    drop_pages(s, o, first, end);
    add_hole(o, first, end);
}

void
dirty_set_drop_object(struct dirty_set *s, struct object_id object)
{
    struct dirty_object *o = find_object(s, object);
    if (o)
        free_object(s, o);
}

// ---- looking ------------------------------------------------------------------------------------

enum dirty_state
dirty_set_find(const struct dirty_set *s, struct object_id object, struct page_no page,
    struct dirty_page *content_out)
{
    *content_out = (struct dirty_page){0};
    struct dirty_object *o = find_object(s, object);
    if (!o)
        return DIRTY_ABSENT;
    uint64_t number = page.v / LEAF_PAGES;
    struct tree_node *n = tree_find(&o->leaves, &number);
    struct dirty_page *p =
        n ? CONTAINER_OF(n, struct leaf, node)->pages[page.v % LEAF_PAGES] : NULL;
    if (!p) {
        bool inside;
        hole_edge(o, page.v, &inside);
        return inside ? DIRTY_HOLE : DIRTY_ABSENT;
    }
    *content_out = *p;
    if (p->page)
        page_get(p->page);
    return DIRTY_PAGE;
}

uint64_t
dirty_set_pages(const struct dirty_set *s)
{
    return s->pages;
}

uint64_t
dirty_set_object_pages(const struct dirty_set *s, struct object_id object)
{
    struct dirty_object *o = find_object(s, object);
    return o ? o->pages : 0;
}

uint64_t
dirty_set_resident_bytes(const struct dirty_set *s)
{
    return s->resident * sizeof(struct page);
}

bool
dirty_set_is_empty(const struct dirty_set *s)
{
    return s->objects.count == 0;
}

// Bytes of a leaf that are still in memory after an attempt to evict it.
enum leaf_rest { LEAF_EMPTY, LEAF_LATER, LEAF_PINNED };

static enum leaf_rest
evict_leaf(struct dirty_set *s, struct leaf *leaf, struct lsn flushed, uint64_t *freed)
{
    enum leaf_rest rest = LEAF_EMPTY;
    for (unsigned i = 0; i < LEAF_PAGES; i++) {
        struct dirty_page *p = leaf->pages[i];
        if (!p || !p->page)
            continue;
        if (p->wal_bytes == 0) {
            rest = rest == LEAF_LATER ? rest : LEAF_PINNED;
        } else if (p->wal_lsn.v + p->wal_bytes > flushed.v) {
            rest = LEAF_LATER;
        } else {
            page_put(p->page);
            p->page = NULL;
            s->resident--;
            *freed += sizeof(struct page);
        }
    }
    return rest;
}

// Leaves age in the order in which they were written, so behind one that is not flushed yet there
// is little to gain. Pinned leaves leave the queue; the next write to them brings them back.
uint64_t
dirty_set_evict(struct dirty_set *s, struct lsn flushed, uint64_t bytes)
{
    uint64_t freed = 0;
    while (freed < bytes && !list_is_empty(&s->aging)) {
        struct leaf *leaf = CONTAINER_OF(s->aging.next, struct leaf, aging);
        enum leaf_rest rest = evict_leaf(s, leaf, flushed, &freed);
        list_remove(&leaf->aging);
        if (rest != LEAF_LATER)
            continue;
        list_append(&s->aging, &leaf->aging);
        break;
    }
    return freed;
}

// ---- walking ------------------------------------------------------------------------------------

static int
compare_ids(const void *a, const void *b)
{
    uint64_t x = ((const struct object_id *)a)->v;
    uint64_t y = ((const struct object_id *)b)->v;
    return x < y ? -1 : x > y;
}

struct object_id *
dirty_set_objects(const struct dirty_set *s, size_t *count_out)
{
    struct object_id *ids = memory_alloc(s->objects.count * sizeof(*ids));
    size_t count = 0;
    HASH_TABLE_FOR_EACH(&s->objects, n)
    ids[count++] = CONTAINER_OF(n, struct dirty_object, node)->id;
    qsort(ids, count, sizeof(*ids), compare_ids);
    *count_out = count;
    return ids;
}

bool
dirty_set_next_hole(
    const struct dirty_set *s, struct object_id object, uint64_t page, struct page_extent *hole_out)
{
    const struct dirty_object *o = find_object(s, object);
    const struct hole *hole = o ? hole_behind(o, page) : NULL;
    if (hole)
        *hole_out = (struct page_extent){hole->first, hole->end};
    return hole != NULL;
}

int
dirty_set_walk(const struct dirty_set *s, struct object_id object, uint64_t first, uint64_t end,
    dirty_set_visit *visit, void *argument)
{
    struct dirty_object *o = find_object(s, object);
    if (!o)
        return 0;
    uint64_t number = first / LEAF_PAGES;
    struct tree_node *n = tree_lower_bound(&o->leaves, &number);
    for (; n; n = tree_next(n)) {
        struct leaf *leaf = CONTAINER_OF(n, struct leaf, node);
        for (unsigned i = 0; i < LEAF_PAGES; i++) {
            uint64_t page = leaf->number * LEAF_PAGES + i;
            if (page >= end)
                return 0;
            if (page < first || !leaf->pages[i])
                continue;
            int rc = visit(argument, (struct page_no){page}, leaf->pages[i]);
            if (rc != 0)
                return rc;
        }
    }
    return 0;
}

static int
take_first(void *argument, struct page_no page, const struct dirty_page *content UNUSED)
{
    *(uint64_t *)argument = page.v;
    return 1;
}

struct page_run {
    uint64_t next;
    uint64_t limit;
};

static int
count_run(void *argument, struct page_no page, const struct dirty_page *content UNUSED)
{
    struct page_run *run = argument;
    if (page.v != run->next || run->next == run->limit)
        return 1;
    run->next++;
    return 0;
}

uint64_t
dirty_set_run(const struct dirty_set *s, struct object_id object, uint64_t page, uint64_t most,
    enum dirty_state *state_out)
{
    *state_out = DIRTY_ABSENT;
    struct dirty_object *o = find_object(s, object);
    if (!o)
        return UINT64_MAX - page;
    uint64_t next_page = UINT64_MAX;
    dirty_set_walk(s, object, page, UINT64_MAX, take_first, &next_page);
    if (next_page == page) {
        struct page_run run = {page, page + most};
        dirty_set_walk(s, object, page, UINT64_MAX, count_run, &run);
        *state_out = DIRTY_PAGE;
        return run.next - page;
    }
    bool inside;
    uint64_t edge = hole_edge(o, page, &inside);
    *state_out = inside ? DIRTY_HOLE : DIRTY_ABSENT;
    return (edge < next_page ? edge : next_page) - page;
}

// ---- checking -----------------------------------------------------------------------------------

static void
check_leaf(
    const struct dirty_object *o, const struct leaf *leaf, uint64_t *pages, uint64_t *resident)
{
    uint32_t present = 0;
    bool evictable = false;
    for (unsigned i = 0; i < LEAF_PAGES; i++) {
        const struct dirty_page *p = leaf->pages[i];
        if (!p)
            continue;
        present |= 1u << i;
        (*pages)++;
        *resident += p->page != NULL;
        evictable = evictable || (p->page && p->wal_bytes > 0);
        assert(!dirty_page_is_lost(p) || !p->mask);
        assert(p->wal_from + p->wal_bytes <= PAGE_BYTES);
    }
    assert(present != 0 && present == leaf->present);
    assert(!evictable || leaf->aging.next);
    assert(tree_find(&o->leaves, &leaf->number) == &leaf->node);
}

static void
check_object(const struct dirty_object *o, uint64_t *pages, uint64_t *resident)
{
    uint64_t before = *pages;
    size_t leaves = 0, holes = 0;
    for (struct tree_node *n = tree_first(&o->leaves); n; n = tree_next(n), leaves++)
        check_leaf(o, CONTAINER_OF(n, struct leaf, node), pages, resident);
    const struct hole *last = NULL;
    for (const struct hole *h = hole_behind(o, 0); h; h = next_hole(h), holes++) {
        assert(h->first < h->end && (!last || last->end < h->first));
        last = h;
    }
    assert(leaves == o->leaves.count && holes == o->holes.count);
    assert(*pages - before == o->pages);
}

void
dirty_set_check(const struct dirty_set *s)
{
    uint64_t pages = 0, resident = 0;
    HASH_TABLE_FOR_EACH(&s->objects, n)
    check_object(CONTAINER_OF(n, struct dirty_object, node), &pages, &resident);
    assert(pages == s->pages && resident == s->resident);
}
