// SPDX-License-Identifier: Apache-2.0
// Writes the image that a ChunkAction asks for, page by page in order. A page comes from the cut;
// where the cut has nothing, or only a patch, it comes from the deltas that are being merged (for a
// delta) or from the chunk as it is (for a base).
//
// A page that cannot be read is lost: one whose newest bytes are in the log only, and one of an old
// image in a blob that is known to be damaged. It is left out of the image, and stays lost until
// the cut has it as a whole.
#include <errno.h>
#include <stdlib.h>

#include "base/checksum.h"
#include "checkpoint/checkpoint_internal.h"
#include "platform/memory.h"

#define CUT_BATCH 64u // a word of `interest`
// How often a page is asked of the log before it is lost.
#define LOG_READS 3u
// Result of a page's source instead of 0: its bytes are not there any more.
#define PAGE_LOST 1

struct image {
    struct checkpoint *c;
    const struct checkpoint_cut *cut;
    const struct chunk_action *action;
    struct blob_writer *w;
    struct chunk_layout *layout; // NULL: no chunk yet
    uint64_t first;              // page of the object
    uint32_t pages;              // of the object in this chunk
    bool base;
    uint64_t interest[CHUNK_PAGES / 64]; // pages to look at
    uint32_t written;
    struct lost_pages lost;
    uint32_t newly_lost;
    // Whether some image of the chunk lies in a damaged blob, and which. Then a base is made page
    // by page from all images, so that it is known which one does not give a page.
    bool damaged;
    bool *is_damaged;   // [images of the view]
    size_t merge_count; // images that are looked at for old pages
    // For reading old pages a batch at a time.
    struct page *batch[64];
    uint32_t batch_first;
    uint32_t batch_count;
    // The cut's answers for the pages [cut_first, cut_first + CUT_BATCH) of interest, taken under
    // one lock, and the bytes of those that are only in the log, read a run at a time.
    struct cut_page {
        enum dirty_state state;
        struct dirty_page found;
        uint32_t logged_at; // in `logged`, once it is read
        bool lost;
    } cut_pages[CUT_BATCH];
    uint32_t cut_first;  // CHUNK_PAGES: there are none
    uint32_t logged_end; // pages of the batch below this have been read from the log
    uint8_t *logged;     // CUT_BATCH pages
    // The last frame of each merged delta.
    struct merged_frame {
        bool valid;
        uint32_t number;
        uint8_t data[BLOB_FRAME_BYTES];
    } * frames;
};

static const struct remote_call local_only = {.local_only = true};

// Whether an answer about an old image says that its bytes are lost for good.
static bool
is_gone(const struct image *x, size_t image, int rc)
{
    return x->is_damaged[image] && checkpoint_is_unreadable(rc);
}

static void
mark(struct image *x, uint64_t from, uint64_t to)
{
    for (uint64_t p = from; p < to; p++)
        x->interest[p / 64] |= 1ull << (p % 64);
}

static int
mark_page(void *argument, struct page_no page, const struct dirty_page *content UNUSED)
{
    mark(argument, page_in_chunk(page), page_in_chunk(page) + 1);
    return 0;
}

static void
mark_holes(struct image *x)
{
    struct object_id object = x->action->object;
    struct page_extent hole;
    uint64_t end = x->first + CHUNK_PAGES;
    for (uint64_t at = x->first;
         dirty_set_next_hole(x->cut->pages, object, at, &hole) && hole.first < end; at = hole.end) {
        uint64_t from = hole.first > x->first ? hole.first : x->first;
        uint64_t to = hole.end < end ? hole.end : end;
        mark(x, from - x->first, to - x->first);
    }
}

// The pages that the newest `count` images of the chunk say something about.
static int
mark_images(struct image *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct blob_index *index;
        int rc = chunk_reader_index(x->c->options.reader, x->layout, i, &local_only, &index);
        if (is_gone(x, i, rc)) {
            mark(x, 0, CHUNK_PAGES); // any page may have been in it
            continue;
        }
        if (rc < 0)
            return rc;
        struct blob_page p;
        for (uint32_t page = 0; page < CHUNK_PAGES; page = p.first + p.count) {
            blob_index_find(index, page, &p);
            if (p.state != BLOB_PAGE_ABSENT)
                mark(x, p.first, p.first + p.count);
        }
    }
    return 0;
}

// The result of reading old images: notes a failure, so that the next plan does without them.
static int
note_old(struct image *x, int rc)
{
    if (rc < 0)
        checkpoint_note_unreadable(x->c, x->action);
    return rc;
}

// A base of a sparse file has few pages in a chunk, and there may be thousands of such chunks.
static void
mark_for_base(struct image *x)
{
    size_t images = x->layout ? x->layout->image_count : 0;
    // An old image may be in the store only. When the cut has all pages it is not needed; else it
    // fails with the page that is missing.
    if (mark_images(x, images) < 0)
        mark(x, 0, x->pages);
}

// ---- one page -----------------------------------------------------------------------------------

// The known bytes of a page: those that the mask marks, all without a mask.
struct content {
    uint8_t data[PAGE_BYTES];
    struct page_mask mask;
    enum { CONTENT_NONE, CONTENT_PATCH, CONTENT_WHOLE } state;
};

// Lays `content` over the known bytes of `below`: the newer bytes win.
static void
lay_under(struct content *content, const uint8_t *below, const struct page_mask *mask)
{
    if (content->state == CONTENT_NONE) {
        memcpy(content->data, below, PAGE_BYTES);
        if (mask)
            content->mask = *mask;
    } else {
        uint8_t merged[PAGE_BYTES];
        memcpy(merged, below, PAGE_BYTES);
        page_mask_copy(&content->mask, merged, content->data);
        memcpy(content->data, merged, PAGE_BYTES);
        for (size_t i = 0; mask && i < ARRAY_LENGTH(mask->bits); i++)
            content->mask.bits[i] |= mask->bits[i];
    }
    content->state = mask && !page_mask_is_full(&content->mask) ? CONTENT_PATCH : CONTENT_WHOLE;
}

static void
drop_cut_pages(struct image *x)
{
    for (uint32_t i = 0; x->cut_first < CHUNK_PAGES && i < CUT_BATCH; i++)
        page_put(x->cut_pages[i].found.page);
    x->cut_first = CHUNK_PAGES;
}

static void
find_cut_pages(struct image *x, uint32_t first)
{
    drop_cut_pages(x);
    memset(x->cut_pages, 0, sizeof(x->cut_pages));
    x->cut_first = first;
    x->logged_end = first;
    uint64_t interest = x->interest[first / CUT_BATCH];
    lock_take(x->c->options.layers);
    for (uint32_t i = 0; i < CUT_BATCH; i++) {
        struct cut_page *p = &x->cut_pages[i];
        if (interest >> i & 1)
            p->state = dirty_set_find(x->cut->pages, x->action->object,
                (struct page_no){x->first + first + i}, &p->found);
        p->lost = p->state == DIRTY_PAGE && dirty_page_is_lost(&p->found);
    }
    lock_release(x->c->options.layers);
}

static bool
is_logged(const struct cut_page *p)
{
    return p->state == DIRTY_PAGE && !p->found.page && !p->lost;
}

// One page by itself.
static int
read_logged_page(struct image *x, struct cut_page *p)
{
    const struct dirty_page *d = &p->found;
    int rc = -EIO;
    p->logged_at = 0;
    for (unsigned i = 0; i < LOG_READS && (rc == -EIO || rc == -ENODATA); i++) {
        rc = wal_read(x->c->options.wal, d->wal_lsn, x->logged, d->wal_bytes);
        if (rc == 0 && crc32c(0, x->logged, d->wal_bytes) != d->crc)
            rc = -EIO;
        if (rc == 0)
            return 0;
    }
    p->lost = rc == -EIO || rc == -ENODATA;
    return p->lost ? 0 : rc;
}

// Reads page `from` of the batch, which is only in the log, with those behind it that a large write
// left behind it in the log. Each is checked by itself.
static int
read_logged_run(struct image *x, uint32_t from)
{
    const struct dirty_page *first = &x->cut_pages[from].found;
    uint32_t bytes = 0;
    uint32_t end = from;
    for (; end < CUT_BATCH && is_logged(&x->cut_pages[end]) &&
           x->cut_pages[end].found.wal_lsn.v == first->wal_lsn.v + bytes;
         end++) {
        x->cut_pages[end].logged_at = bytes;
        bytes += x->cut_pages[end].found.wal_bytes;
    }
    if (!x->logged)
        x->logged = memory_alloc((size_t)CUT_BATCH * PAGE_BYTES);
    int rc = wal_read(x->c->options.wal, first->wal_lsn, x->logged, bytes);
    for (uint32_t i = from; rc == 0 && i < end; i++) {
        const struct cut_page *p = &x->cut_pages[i];
        if (crc32c(0, x->logged + p->logged_at, p->found.wal_bytes) != p->found.crc)
            rc = -EIO;
    }
    if (rc < 0) {
        end = from + 1;
        rc = read_logged_page(x, &x->cut_pages[from]);
    }
    if (rc == 0)
        x->logged_end = x->cut_first + end;
    return rc;
}

// Gets the page from the cut, or PAGE_LOST: `whole_out` points at it when it is there in one piece.
static int
take_from_cut(struct image *x, uint32_t page, struct content *content, const uint8_t **whole_out)
{
    static const uint8_t zeros[PAGE_BYTES];
    if (x->cut_first != page / CUT_BATCH * CUT_BATCH)
        find_cut_pages(x, page / CUT_BATCH * CUT_BATCH);
    struct cut_page *p = &x->cut_pages[page - x->cut_first];
    if (p->state == DIRTY_ABSENT)
        return 0;
    if (p->state == DIRTY_HOLE) {
        *whole_out = zeros;
        return 0;
    }
    const struct dirty_page *found = &p->found;
    if (p->lost)
        return PAGE_LOST;
    if (found->page) {
        if (found->mask)
            lay_under(content, found->page->data, found->mask);
        else
            *whole_out = found->page->data;
        return 0;
    }
    int rc = page >= x->logged_end ? read_logged_run(x, page - x->cut_first) : 0;
    if (rc < 0)
        return rc;
    if (p->lost)
        return PAGE_LOST;
    const uint8_t *logged = x->logged + p->logged_at;
    if (!found->mask && found->wal_bytes == PAGE_BYTES) {
        *whole_out = logged;
        return 0;
    }
    uint8_t bytes[PAGE_BYTES] = {0};
    memcpy(bytes + found->wal_from, logged, found->wal_bytes);
    lay_under(content, bytes, found->mask);
    return 0;
}

// The page in a slot of a merged delta. Slots come in rising order, so one frame is enough to keep.
static int
read_slot(struct image *x, size_t image, uint32_t slot, const uint8_t **page_out)
{
    struct merged_frame *f = &x->frames[image];
    uint32_t number = slot / BLOB_FRAME_PAGES;
    *page_out = f->data + (size_t)(slot % BLOB_FRAME_PAGES) * PAGE_BYTES;
    if (f->valid && f->number == number)
        return 0;
    int rc =
        chunk_reader_frame(x->c->options.reader, x->layout, image, number, &local_only, f->data);
    f->valid = rc == 0;
    f->number = number;
    return rc;
}

static int
take_from_merged(struct image *x, uint32_t page, struct content *content)
{
    for (size_t i = 0; i < x->merge_count && content->state != CONTENT_WHOLE; i++) {
        const struct blob_index *index;
        int rc = chunk_reader_index(x->c->options.reader, x->layout, i, &local_only, &index);
        if (rc < 0)
            return is_gone(x, i, rc) ? PAGE_LOST : rc;
        struct blob_page p;
        static const uint8_t zeros[PAGE_BYTES];
        const uint8_t *bytes = zeros;
        blob_index_find(index, page, &p);
        if (p.state == BLOB_PAGE_ABSENT)
            continue;
        if (p.state != BLOB_PAGE_ZERO)
            rc = read_slot(x, i, p.slot, &bytes);
        if (rc < 0)
            return is_gone(x, i, rc) ? PAGE_LOST : rc;
        struct page_mask mask;
        if (p.state == BLOB_PAGE_PATCH)
            blob_index_mask(index, p.patch, &mask);
        lay_under(content, bytes, p.state == BLOB_PAGE_PATCH ? &mask : NULL);
    }
    return 0;
}

static void
drop_batch(struct image *x)
{
    for (uint32_t i = 0; i < x->batch_count; i++)
        page_put(x->batch[i]);
    x->batch_count = 0;
}

static int
take_from_chunk(struct image *x, uint32_t page, struct content *content)
{
    static const uint8_t zeros[PAGE_BYTES];
    if (!x->layout) {
        lay_under(content, zeros, NULL);
        return 0;
    }
    if (page < x->batch_first || page >= x->batch_first + x->batch_count) {
        uint32_t end; // the next page that cannot be read
        bool lost = chunk_layout_is_lost(x->layout, page, &end);
        assert(!lost);
        uint32_t n = end - page < ARRAY_LENGTH(x->batch) ? end - page : ARRAY_LENGTH(x->batch);
        drop_batch(x);
        int rc = chunk_reader_read(x->c->options.reader, x->action->object,
            (struct page_no){x->first + page}, n, &local_only, x->batch, NULL, NULL);
        if (rc < 0)
            return rc;
        x->batch_first = page;
        x->batch_count = n;
    }
    struct page *old = x->batch[page - x->batch_first];
    lay_under(content, old ? old->data : zeros, NULL);
    return 0;
}

static int
write_whole(struct image *x, uint32_t page, const uint8_t *data)
{
    if (page_is_zero(data))
        return x->base ? 0 : blob_writer_add_zero(x->w, page, 1);
    x->written++;
    return blob_writer_add_data(x->w, page, data);
}

static int
lose_page(struct image *x, uint32_t page)
{
    x->newly_lost += !lost_pages_has(&x->lost, page);
    lost_pages_set(&x->lost, page, true);
    return 0;
}

// Gets the page from old images, if they must be asked, or PAGE_LOST. A page that a damaged image
// had may still be in memory. Behind the end of the object there are always zeros.
static int
take_old(struct image *x, uint32_t page, struct content *content)
{
    static const uint8_t zeros[PAGE_BYTES];
    const struct checkpoint_host *host = &x->c->options.host;
    bool merged = !x->base || x->damaged;
    int rc = merged ? take_from_merged(x, page, content) : take_from_chunk(x, page, content);
    if (rc == 0 && x->base && content->state != CONTENT_WHOLE)
        lay_under(content, zeros, NULL);
    if (rc != PAGE_LOST)
        return note_old(x, rc);
    struct page *old = NULL;
    if (page < x->pages && host->remembered)
        old =
            host->remembered(host->argument, x->action->object, (struct page_no){x->first + page});
    if (!old && page < x->pages)
        return PAGE_LOST;
    lay_under(content, old ? old->data : zeros, NULL);
    page_put(old);
    return 0;
}

static int
write_page(struct image *x, uint32_t page)
{
    const uint8_t *whole = NULL;
    struct content content;
    content.state = CONTENT_NONE;
    memset(&content.mask, 0, sizeof(content.mask));
    int rc = take_from_cut(x, page, &content, &whole);
    if (rc == PAGE_LOST)
        return lose_page(x, page);
    if (rc < 0)
        return rc;
    if (whole || content.state == CONTENT_WHOLE)
        lost_pages_set(&x->lost, page, false);
    else if (lost_pages_has(&x->lost, page))
        return 0; // a part of the page is of no use
    if (whole)
        return write_whole(x, page, whole);
    if (content.state != CONTENT_WHOLE)
        rc = take_old(x, page, &content);
    if (rc == PAGE_LOST)
        return lose_page(x, page);
    if (rc < 0 || content.state == CONTENT_NONE)
        return rc;
    if (content.state == CONTENT_WHOLE)
        return write_whole(x, page, content.data);
    x->written++;
    return blob_writer_add_patch(x->w, page, content.data, &content.mask);
}

static int
write_pages(struct image *x)
{
    // Pages behind the end of the object are never asked for; holes behind it must stay holes,
    // because the object may grow again.
    uint32_t end = x->base ? x->pages : CHUNK_PAGES;
    for (uint32_t page = 0; page < end; page++) {
        if (x->interest[page / 64] == 0) {
            page |= 63;
            continue;
        }
        if (!(x->interest[page / 64] >> (page % 64) & 1))
            continue;
        int rc = write_page(x, page);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int
checkpoint_write_image(struct checkpoint *c, const struct checkpoint_cut *cut,
    const struct chunk_action *action, struct blob_writer *w, struct staged_image *image_out)
{
    struct image x = {
        .c = c,
        .cut = cut,
        .action = action,
        .w = w,
        .first = action->index.v * CHUNK_PAGES,
        .pages = action->pages,
        .cut_first = CHUNK_PAGES,
        .base = checkpoint_makes_base(action),
    };
    int rc = chunk_map_get(c->options.map, action->object, action->index, &x.layout);
    if (rc < 0)
        return rc;
    lost_pages_begin(&x.lost, x.layout);
    size_t images = x.layout ? x.layout->image_count : 0;
    x.is_damaged = memory_alloc_zero(images * sizeof(*x.is_damaged));
    for (size_t i = 0; i < images; i++) {
        x.is_damaged[i] = checkpoint_is_damaged(c, &x.layout->images[i].where.blob);
        x.damaged |= x.is_damaged[i];
    }
    x.merge_count = !x.base ? action->merge_count : x.damaged ? images : 0;
    x.frames = memory_alloc(x.merge_count * sizeof(*x.frames));
    for (size_t i = 0; i < x.merge_count; i++)
        x.frames[i].valid = false;
    dirty_set_walk(cut->pages, action->object, x.first, x.first + CHUNK_PAGES, mark_page, &x);
    mark_holes(&x);
    if (x.base)
        mark_for_base(&x);
    else
        rc = note_old(&x, mark_images(&x, action->merge_count));
    if (rc == 0)
        rc = write_pages(&x);
    drop_batch(&x);
    drop_cut_pages(&x);
    free(x.logged);
    free(x.frames);
    free(x.is_damaged);
    if (x.base)
        lost_pages_cut(&x.lost, x.pages);
    uint32_t old = x.layout ? x.layout->entry.present_pages : 0;
    uint32_t lost = lost_pages_count(&x.lost); // was data, as far as anybody knows
    uint32_t present = lost + (x.base ? x.written : old + x.written);
    image_out->present_pages = present < x.pages ? present : x.pages;
    image_out->newly_lost = x.newly_lost;
    lost_pages_runs(&x.lost, &image_out->lost);
    chunk_layout_put(c->options.map, x.layout);
    return rc;
}
