// SPDX-License-Identifier: Apache-2.0
#include "page/page_store.h"

#include <errno.h>
#include <stdlib.h>

#include "base/hash_table.h"
#include "cache/dirty_merge.h"
#include "page/page_internal.h"
#include "platform/log.h"
#include "platform/memory.h"

struct page_store *
page_store_new(const struct page_store_options *options)
{
    struct page_store *ps = memory_alloc_zero(sizeof(*ps));
    ps->lock = options->lock;
    ps->wal = options->wal;
    ps->map = options->map;
    ps->reader = options->reader;
    ps->memory_bytes = options->memory_bytes;
    ps->clean = page_cache_new(options->memory_bytes);
    ps->active = dirty_set_new();
    return ps;
}

void
page_store_free(struct page_store *ps)
{
    if (!ps)
        return;
    dirty_set_free(ps->active);
    dirty_set_free(ps->frozen);
    page_cache_free(ps->clean);
    free(ps);
}

void
page_store_set_wal(struct page_store *ps, struct wal *w)
{
    ps->wal = w;
}

void
page_store_freeze_locked(struct page_store *ps)
{
    assert(lock_is_mine(ps->lock) && !ps->frozen);
#ifdef CKPTFS_DEBUG
    page_store_check_locked(ps);
#endif
    ps->frozen = ps->active;
    ps->active = dirty_set_new();
}

struct dirty_set *
page_store_frozen(struct page_store *ps)
{
    return ps->frozen;
}

// ---- after a fold that failed -------------------------------------------------------------------

// Brings a page back into memory that another one must be laid over, or that must be laid over
// another. Between looking and putting it back the lock is free; a page that has changed meanwhile
// is no longer the obstacle.
static int
remove_obstacle(struct page_store *ps, const struct dirty_obstacle *o)
{
    struct page *page = page_new();
    int rc = page_store_read_logged(ps, &o->content, page->data);
    lock_take(ps->lock);
    struct dirty_page now;
    bool same = dirty_set_find(o->set, o->object, o->page, &now) == DIRTY_PAGE && !now.page &&
                now.wal_lsn.v == o->content.wal_lsn.v;
    bool lost = rc == -EIO || rc == -ENODATA;
    page_put(now.page);
    if (same && lost) {
        dirty_set_put(o->set, o->object, o->page, (struct dirty_page){0});
        rc = 0;
    } else if (same && rc == 0) {
        struct dirty_page back = {.page = page_get(page)}; // without a place in the log: it stays
        if (now.mask) {
            back.mask = memory_alloc(sizeof(*back.mask));
            *back.mask = *now.mask;
        }
        dirty_set_put(o->set, o->object, o->page, back);
    }
    lock_release(ps->lock);
    page_put(page);
    return same ? rc : 0;
}

int
page_store_unfreeze(struct page_store *ps)
{
    lock_take(ps->lock);
    assert(ps->frozen && !ps->thawing);
    struct dirty_obstacle obstacle;
    while (dirty_merge_find_obstacle(ps->frozen, ps->active, &obstacle)) {
        lock_release(ps->lock);
        int rc = remove_obstacle(ps, &obstacle);
        if (rc < 0)
            return rc;
        lock_take(ps->lock);
    }
    struct dirty_set *gone = ps->active;
    dirty_merge(ps->frozen, gone);
    ps->active = ps->frozen;
    ps->frozen = NULL;
    page_store_balance_locked(ps);
    lock_release(ps->lock);
    dirty_set_free(gone);
    return 0;
}

struct page *
page_store_remembered(struct page_store *ps, struct object_id object, struct page_no page)
{
    lock_take(ps->lock);
    struct page *found = page_cache_get(ps->clean, object, page);
    lock_release(ps->lock);
    return found;
}

// ---- after a local generation -------------------------------------------------------------------

struct thaw {
    struct page_store *ps;
    struct object_id object;
};

static int
refresh_clean_page(void *argument, struct page_no page, const struct dirty_page *content)
{
    struct thaw *t = argument;
    if (content->page && !content->mask)
        page_cache_put(t->ps->clean, t->object, page, content->page);
    else
        page_cache_drop(t->ps->clean, t->object, page);
    return 0;
}

static void
refresh_clean_object(struct page_store *ps, struct object_id object)
{
    struct thaw t = {ps, object};
    struct page_extent hole;
    for (uint64_t at = 0; dirty_set_next_hole(ps->frozen, object, at, &hole); at = hole.end)
        page_cache_drop_range(ps->clean, object, hole.first, hole.end);
    dirty_set_walk(ps->frozen, object, 0, UINT64_MAX, refresh_clean_page, &t);
}

// Order matters. Readers that began before the version went up must not cache their pages (of the
// old generation); until the frozen set goes, it hides all that the clean cache still has; and when
// it goes the clean cache has been refreshed. Readers that found the frozen set meanwhile hold
// places in the log that may be released from then on: for them the version goes up once more.
// Eviction only changes a frozen set in page_store_balance_locked, which leaves it alone while
// `thawing`.
void
page_store_thaw(struct page_store *ps)
{
    lock_take(ps->lock);
    ps->version++;
    ps->thawing = true;
    lock_release(ps->lock);
    size_t count;
    struct object_id *objects = dirty_set_objects(ps->frozen, &count);
    for (size_t i = 0; i < count; i++)
        refresh_clean_object(ps, objects[i]);
    free(objects);
    lock_take(ps->lock);
    struct dirty_set *gone = ps->frozen;
    ps->frozen = NULL;
    ps->thawing = false;
    ps->version++;
    page_store_balance_locked(ps);
    lock_release(ps->lock);
    dirty_set_free(gone);
}

int
page_store_read_logged(
    struct page_store *ps, const struct dirty_page *content, uint8_t out[PAGE_BYTES])
{
    memset(out, 0, PAGE_BYTES);
    if (dirty_page_is_lost(content))
        return -EIO;
    int rc = wal_read_verified(
        ps->wal, content->wal_lsn, content->crc, out + content->wal_from, content->wal_bytes);
    if (rc == -EIO || rc == -ENODATA)
        log_error("wal.page_unreadable",
            "the log does not give the bytes of a page at LSN %llu, or others than were written",
            (unsigned long long)content->wal_lsn.v);
    return rc;
}

struct log_reader {
    struct page_store *ps;
    uint64_t unreadable;
};

static int
try_page(void *argument, struct page_no page UNUSED, const struct dirty_page *content)
{
    struct log_reader *x = argument;
    uint8_t bytes[PAGE_BYTES];
    bool lost = dirty_page_is_lost(content);
    if (lost || (content->wal_bytes > 0 && page_store_read_logged(x->ps, content, bytes) < 0))
        x->unreadable += lost ? PAGE_BYTES : content->wal_bytes;
    return 0;
}

uint64_t
page_store_unreadable_bytes(struct page_store *ps)
{
    struct log_reader x = {.ps = ps};
    struct dirty_set *sets[] = {ps->active, ps->frozen};
    for (unsigned i = 0; i < ARRAY_LENGTH(sets) && sets[i]; i++) {
        size_t count;
        CLEANUP(memory_free_auto) struct object_id *objects = dirty_set_objects(sets[i], &count);
        for (size_t k = 0; k < count; k++)
            dirty_set_walk(sets[i], objects[k], 0, UINT64_MAX, try_page, &x);
    }
    return x.unreadable;
}

void
page_store_numbers_locked(struct page_store *ps, struct page_store_numbers *numbers_out)
{
    uint64_t frozen_pages = ps->frozen ? dirty_set_pages(ps->frozen) : 0;
    uint64_t frozen_bytes = ps->frozen ? dirty_set_resident_bytes(ps->frozen) : 0;
    *numbers_out = (struct page_store_numbers){
        .dirty_pages = dirty_set_pages(ps->active) + frozen_pages,
        .dirty_resident_bytes = dirty_set_resident_bytes(ps->active) + frozen_bytes,
        .clean_bytes = page_cache_bytes(ps->clean),
        .limit_bytes = ps->memory_bytes,
    };
}

void
page_store_check_locked(const struct page_store *ps)
{
    assert(lock_is_mine(ps->lock) && ps->active && ps->active != ps->frozen);
    assert(ps->frozen || !ps->thawing);
    dirty_set_check(ps->active);
    if (ps->frozen)
        dirty_set_check(ps->frozen);
    page_ahead_check(&ps->ahead);
}

bool
page_store_is_tight_locked(struct page_store *ps)
{
    return dirty_set_resident_bytes(ps->active) > ps->memory_bytes / 4 * 3;
}

bool
page_store_is_full_locked(struct page_store *ps)
{
    uint64_t bytes = dirty_set_resident_bytes(ps->active);
    if (ps->frozen)
        bytes += dirty_set_resident_bytes(ps->frozen);
    return bytes > ps->memory_bytes;
}

uint64_t
page_store_dirty_pages_locked(struct page_store *ps, struct object_id object)
{
    uint64_t pages = dirty_set_object_pages(ps->active, object);
    return ps->frozen ? pages + dirty_set_object_pages(ps->frozen, object) : pages;
}

bool
page_store_is_clean_locked(struct page_store *ps)
{
    return dirty_set_is_empty(ps->active);
}
