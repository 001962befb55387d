// SPDX-License-Identifier: Apache-2.0
#include "cache/page_cache.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/hash_table.h"
#include "base/list.h"
#include "platform/lock.h"
#include "platform/memory.h"

struct entry {
    struct hash_node node;
    struct list_node clock;
    struct object_id object;
    struct page_no number;
    struct page *page;
    bool used; // since the hand came by
};

struct page_cache {
    struct lock lock; // "page_cache": protects everything below
    struct hash_table pages;
    struct list_node clock; // the hand is at the front
    uint64_t limit_bytes;
    uint64_t foreign_bytes;
};

#define ENTRY_BYTES (sizeof(struct page) + sizeof(struct entry))

struct page_cache *
page_cache_new(uint64_t limit_bytes)
{
    struct page_cache *c = memory_alloc_zero(sizeof(*c));
    lock_init(&c->lock, "page_cache", LOCK_RANK_PAGE_CACHE);
    list_init(&c->clock);
    c->limit_bytes = limit_bytes;
    return c;
}

static void
remove_locked(struct page_cache *c, struct entry *e)
{
    hash_table_remove(&c->pages, &e->node);
    list_remove(&e->clock);
    page_put(e->page);
    free(e);
}

void
page_cache_free(struct page_cache *c)
{
    if (!c)
        return;
    LIST_FOR_EACH(&c->clock, n)
    remove_locked(c, CONTAINER_OF(n, struct entry, clock));
    hash_table_free(&c->pages);
    lock_destroy(&c->lock);
    free(c);
}

static struct entry *
find_locked(struct page_cache *c, struct object_id object, struct page_no page)
{
    struct hash_node *n = hash_table_first(&c->pages, hash_u64_pair(object.v, page.v));
    for (; n; n = hash_table_next_same(n)) {
        struct entry *e = CONTAINER_OF(n, struct entry, node);
        if (e->object.v == object.v && e->number.v == page.v)
            return e;
    }
    return NULL;
}

struct page *
page_cache_get(struct page_cache *c, struct object_id object, struct page_no page)
{
    lock_take(&c->lock);
    struct entry *e = find_locked(c, object, page);
    struct page *p = NULL;
    if (e) {
        e->used = true;
        p = page_get(e->page);
    }
    lock_release(&c->lock);
    return p;
}

struct page *
page_cache_peek(struct page_cache *c, struct object_id object, struct page_no page)
{
    lock_take(&c->lock);
    struct entry *e = find_locked(c, object, page);
    struct page *p = e ? page_get(e->page) : NULL;
    lock_release(&c->lock);
    return p;
}

size_t
page_cache_gap(struct page_cache *c, struct object_id object, struct page_no page, size_t most)
{
    size_t n = 0;
    lock_take(&c->lock);
    while (n < most && !find_locked(c, object, (struct page_no){page.v + n}))
        n++;
    lock_release(&c->lock);
    return n;
}

static void
shrink_locked(struct page_cache *c)
{
    uint64_t limit = c->limit_bytes > c->foreign_bytes ? c->limit_bytes - c->foreign_bytes : 0;
    while (!list_is_empty(&c->clock) && c->pages.count * ENTRY_BYTES > limit) {
        struct entry *e = CONTAINER_OF(c->clock.next, struct entry, clock);
        if (!e->used) {
            remove_locked(c, e);
            continue;
        }
        e->used = false;
        list_remove(&e->clock);
        list_append(&c->clock, &e->clock);
    }
}

void
page_cache_put(
    struct page_cache *c, struct object_id object, struct page_no page, struct page *content)
{
    page_get(content);
    lock_take(&c->lock);
    struct entry *e = find_locked(c, object, page);
    if (e) {
        page_put(e->page);
        e->page = content;
    } else {
        e = memory_alloc_zero(sizeof(*e));
        e->object = object;
        e->number = page;
        e->page = content;
        hash_table_insert(&c->pages, &e->node, hash_u64_pair(object.v, page.v));
        shrink_locked(c); // without the new page: it must not go before it was of any use
        list_append(&c->clock, &e->clock);
        shrink_locked(c);
    }
    lock_release(&c->lock);
}

void
page_cache_drop(struct page_cache *c, struct object_id object, struct page_no page)
{
    lock_take(&c->lock);
    struct entry *e = find_locked(c, object, page);
    if (e)
        remove_locked(c, e);
    lock_release(&c->lock);
}

void
page_cache_drop_range(struct page_cache *c, struct object_id object, uint64_t first, uint64_t end)
{
    lock_take(&c->lock);
    if (end - first < c->pages.count) {
        for (uint64_t page = first; page < end; page++) {
            struct entry *e = find_locked(c, object, (struct page_no){page});
            if (e)
                remove_locked(c, e);
        }
    } else {
        LIST_FOR_EACH(&c->clock, n)
        {
            struct entry *e = CONTAINER_OF(n, struct entry, clock);
            if (e->object.v == object.v && e->number.v >= first && e->number.v < end)
                remove_locked(c, e);
        }
    }
    lock_release(&c->lock);
}

void
page_cache_set_foreign_bytes(struct page_cache *c, uint64_t bytes)
{
    lock_take(&c->lock);
    c->foreign_bytes = bytes;
    shrink_locked(c);
    lock_release(&c->lock);
}

uint64_t
page_cache_bytes(struct page_cache *c)
{
    lock_take(&c->lock);
    uint64_t bytes = c->pages.count * ENTRY_BYTES;
    lock_release(&c->lock);
    return bytes;
}
