// SPDX-License-Identifier: Apache-2.0
// The window of a cold scan: pages that it read from chunks beyond those asked for, because one
// request to the store for many pages costs hardly more than one for a few. It is what the chunks
// had, as the pages in page_cache are; layers above it win.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "page/page_internal.h"
#include "platform/memory.h"

// A read of so many pages is worth a request of its own.
#define LARGE_READ_PAGES 128u
#define WINDOW_MIN_PAGES 64u
// A sequential reader may pass over so many pages that it got elsewhere.
#define GAP_PAGES 256u

// Immutable but for the count.
struct trickle_window {
    unsigned references;
    uint64_t version;
    struct object_id object;
    uint64_t first;
    uint64_t count;
    uint8_t *bytes;
};

struct page_trickle {
    struct lock lock; // "trickle": protects all below
    struct trickle_window *window;
    uint64_t next_page; // behind the last read
    uint64_t window_pages;
    uint64_t limit_pages;
};

struct page_trickle *
page_trickle_new(const struct cold_scan_options *options)
{
    struct page_trickle *t = memory_alloc_zero(sizeof(*t));
    lock_init(&t->lock, "trickle", LOCK_RANK_FETCH);
    t->limit_pages = options->window_pages;
    return t;
}

static void
put_window(struct page_trickle *t, struct trickle_window *w)
{
    lock_take(&t->lock);
    bool last = w && --w->references == 0;
    lock_release(&t->lock);
    if (last) {
        free(w->bytes);
        free(w);
    }
}

void
page_trickle_free(struct page_trickle *t)
{
    if (!t)
        return;
    put_window(t, t->window);
    lock_destroy(&t->lock);
    free(t);
}

// The window if it has all the pages, with a reference; else NULL, and how many pages to read.
static struct trickle_window *
find(struct page_trickle *t, const struct trickle_read *x, uint64_t *pages_out)
{
    lock_take(&t->lock);
    struct trickle_window *w = t->window;
    if (w && (w->version != x->version || w->object.v != x->object.v || x->first.v < w->first ||
                 x->first.v + x->count > w->first + w->count))
        w = NULL;
    if (w)
        w->references++;
    bool goes_on = x->first.v >= t->next_page && x->first.v - t->next_page < GAP_PAGES;
    uint64_t pages =
        t->window_pages * 2 > WINDOW_MIN_PAGES ? t->window_pages * 2 : WINDOW_MIN_PAGES;
    if (pages > t->limit_pages)
        pages = t->limit_pages;
    *pages_out = goes_on && x->count < LARGE_READ_PAGES && pages > x->count ? pages : x->count;
    lock_release(&t->lock);
    return w;
}

static void
install(struct page_trickle *t, struct trickle_window *w)
{
    lock_take(&t->lock);
    struct trickle_window *old = t->window;
    t->window = w;
    t->window_pages = w->count;
    lock_release(&t->lock);
    if (old)
        put_window(t, old);
}

static void
note_read(struct page_trickle *t, const struct trickle_read *x, bool from_window)
{
    lock_take(&t->lock);
    t->next_page = x->first.v + x->count;
    if (!from_window)
        t->window_pages = 0;
    lock_release(&t->lock);
}

// Reads `pages` into a new window. On failure the reader tries its own pages alone.
static struct trickle_window *
read_window(struct chunk_reader *reader, const struct trickle_read *x, uint64_t pages, int *rc_out)
{
    struct trickle_window *w = memory_alloc(sizeof(*w));
    *w = (struct trickle_window){.references = 1,
        .version = x->version,
        .object = x->object,
        .first = x->first.v,
        .count = pages,
        .bytes = memory_alloc(pages * PAGE_BYTES)};
    *rc_out = chunk_reader_copy(
        reader, x->object, x->first, (size_t)pages, x->call, w->bytes, NULL, NULL);
    if (*rc_out == 0)
        return w;
    free(w->bytes);
    free(w);
    return NULL;
}

int
page_trickle_copy(
    struct page_trickle *t, struct chunk_reader *reader, const struct trickle_read *x, uint8_t *out)
{
    int rc = 0;
    uint64_t pages;
    struct trickle_window *w = find(t, x, &pages);
    bool is_new = !w && pages > x->count;
    if (is_new)
        w = read_window(reader, x, pages, &rc);
    if (w) {
        memcpy(out, w->bytes + (x->first.v - w->first) * PAGE_BYTES, x->count * PAGE_BYTES);
        note_read(t, x, true);
        if (is_new)
            install(t, w);
        else
            put_window(t, w);
        return 0;
    }
    if (rc == -EREMOTE || rc == -EINTR)
        return rc;
    rc = chunk_reader_copy(reader, x->object, x->first, x->count, x->call, out, NULL, NULL);
    if (rc == 0)
        note_read(t, x, false);
    return rc;
}
