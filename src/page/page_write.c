// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/checksum.h"
#include "page/page_internal.h"
#include "platform/memory.h"

// The whole pages of a write of this many bytes are not copied into memory: they are found in the
// log. The kernel has them in its cache, and folds read the log in order.
#define LARGE_WRITE_BYTES (64u << 10)

// ---- pieces -------------------------------------------------------------------------------------

static struct page_piece
make_piece(uint64_t page, uint32_t from, uint32_t to, const uint8_t *data)
{
    struct page_piece piece = {.page = {page}, .from = from, .to = to, .content = page_new()};
    if (to - from < PAGE_BYTES)
        memset(piece.content->data, 0, PAGE_BYTES);
    if (data)
        memcpy(piece.content->data + from, data, to - from);
    piece.crc = crc32c(0, piece.content->data + from, to - from);
    return piece;
}

// Whole pages get no content if `logged`. `crcs`: the le32 of each piece, or NULL.
static struct page_piece *
cut_pieces(uint64_t offset, const uint8_t *data, size_t length, bool logged, const uint8_t *crcs,
    size_t *count_out)
{
    uint32_t in_page = (uint32_t)(offset % PAGE_BYTES);
    size_t count = wal_payload_pieces(in_page, (uint32_t)length);
    struct page_piece *pieces = memory_alloc(count * sizeof(*pieces));
    uint64_t page = offset / PAGE_BYTES;
    for (size_t i = 0; i < count; i++) {
        uint32_t n = PAGE_BYTES - in_page;
        if (n > length)
            n = (uint32_t)length;
        if (logged && n == PAGE_BYTES)
            pieces[i] = (struct page_piece){
                .page = {page + i},
                .to = PAGE_BYTES,
                .crc = crcs ? get_le32(crcs + 4 * i) : crc32c(0, data, PAGE_BYTES),
            };
        else
            pieces[i] = make_piece(page + i, in_page, in_page + n, data);
        data += n;
        length -= n;
        in_page = 0;
    }
    *count_out = count;
    return pieces;
}

struct page_piece *
page_pieces_new(uint64_t offset, const uint8_t *data, size_t length, size_t *count_out)
{
    return cut_pieces(offset, data, length, length >= LARGE_WRITE_BYTES, NULL, count_out);
}

struct page_piece *
page_pieces_logged(
    uint64_t offset, const uint8_t *data, size_t length, const uint8_t *crcs, size_t *count_out)
{
    return cut_pieces(offset, data, length, true, crcs, count_out);
}

struct page_piece *
page_store_edges(uint64_t offset, uint64_t end, size_t *count_out)
{
    struct page_piece *pieces = memory_alloc(2 * sizeof(*pieces));
    size_t count = 0;
    uint32_t head = (uint32_t)(offset % PAGE_BYTES);
    uint32_t tail = end == UINT64_MAX ? 0 : (uint32_t)(end % PAGE_BYTES);
    uint64_t head_page = offset / PAGE_BYTES;
    uint64_t tail_page = end / PAGE_BYTES;
    if (head_page == tail_page && end != UINT64_MAX) {
        if (head < tail)
            pieces[count++] = make_piece(head_page, head, tail, NULL);
    } else {
        if (head > 0)
            pieces[count++] = make_piece(head_page, head, PAGE_BYTES, NULL);
        if (tail > 0)
            pieces[count++] = make_piece(tail_page, 0, tail, NULL);
    }
    *count_out = count;
    return pieces;
}

void
page_pieces_free(struct page_piece *pieces, size_t count)
{
    for (size_t i = 0; pieces && i < count; i++)
        page_put(pieces[i].content);
    free(pieces);
}

static bool
is_whole(const struct page_piece *piece)
{
    return piece->to - piece->from == PAGE_BYTES;
}

// ---- merging ------------------------------------------------------------------------------------

// Whether the set's own page is in the way: it would have to be merged with, but is in the WAL.
static bool
is_evicted(struct dirty_set *set, struct object_id object, struct page_no page)
{
    struct dirty_page below;
    bool evicted = set && dirty_set_find(set, object, page, &below) == DIRTY_PAGE && !below.page;
    if (set)
        page_put(below.page);
    return evicted;
}

bool
page_store_can_put_locked(
    struct page_store *ps, struct object_id object, const struct page_piece *pieces, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!is_whole(&pieces[i]) && is_evicted(ps->active, object, pieces[i].page))
            return false;
    return true;
}

static struct page_mask *
copy_mask(const struct page_mask *mask)
{
    if (!mask)
        return NULL;
    struct page_mask *copy = memory_alloc(sizeof(*copy));
    *copy = *mask;
    return copy;
}

int
page_store_prefault(
    struct page_store *ps, struct object_id object, const struct page_piece *pieces, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_whole(&pieces[i]))
            continue;
        lock_take(ps->lock);
        struct dirty_page found;
        enum dirty_state state = dirty_set_find(ps->active, object, pieces[i].page, &found);
        page_put(found.page);
        found.mask = NULL; // belongs to the set
        lock_release(ps->lock);
        if (state != DIRTY_PAGE || found.page)
            continue;
        struct page *page = page_new();
        int rc = page_store_read_logged(ps, &found, page->data);
        lock_take(ps->lock);
        struct dirty_page now;
        state = dirty_set_find(ps->active, object, pieces[i].page, &now);
        page_put(now.page);
        bool same = state == DIRTY_PAGE && !now.page && now.wal_lsn.v == found.wal_lsn.v;
        if (same && rc == 0) {
            found.page = page_get(page);
            found.wal_bytes = 0; // stays until the write that needs it has merged it
            found.mask = copy_mask(now.mask);
            dirty_set_put(ps->active, object, pieces[i].page, found);
        }
        lock_release(ps->lock);
        page_put(page);
        if (same && rc < 0)
            return -EIO;
    }
    return 0;
}

// Whether the rest of the piece's page is known to be zero: it lies behind the end of the object.
static bool
rest_is_zero(const struct page_piece *piece, uint64_t size)
{
    uint64_t start = piece->page.v * PAGE_BYTES;
    if (start >= size)
        return true;
    return piece->from == 0 && start + piece->to >= size;
}

// A fresh page: `below` overlaid by the piece.
static struct page *
overlay(const struct page *below, const struct page_piece *piece)
{
    struct page *page = page_new();
    memcpy(page->data, below->data, PAGE_BYTES);
    memcpy(page->data + piece->from, piece->content->data + piece->from, piece->to - piece->from);
    return page;
}

// The page's whole content below the active set, if it is at hand in memory.
static struct page *
find_below(struct page_store *ps, struct object_id object, struct page_no page, bool *zero_out)
{
    *zero_out = false;
    if (ps->frozen) {
        struct dirty_page found;
        enum dirty_state state = dirty_set_find(ps->frozen, object, page, &found);
        if (state == DIRTY_HOLE)
            *zero_out = true;
        if (state == DIRTY_PAGE && found.page && !found.mask)
            return found.page;
        page_put(found.page);
        if (state != DIRTY_ABSENT)
            return NULL;
    }
    return page_cache_get(ps->clean, object, page);
}

// The page of the active set with the piece in it: the piece itself, merged with the page of the
// set or of the layers below, or a patch.
static struct dirty_page
merge_piece(struct page_store *ps, struct object_id object, struct page_piece *piece, uint64_t size)
{
    struct dirty_page merged = {0};
    struct dirty_page mine;
    enum dirty_state state = dirty_set_find(ps->active, object, piece->page, &mine);
    bool zero = state == DIRTY_HOLE || (state == DIRTY_ABSENT && rest_is_zero(piece, size));
    struct page *below = mine.page;
    if (state == DIRTY_ABSENT && !zero)
        below = find_below(ps, object, piece->page, &zero);
    if (below) {
        merged.page = overlay(below, piece);
        page_put(below);
    } else {
        merged.page = page_get(piece->content);
    }
    if (zero || (below && !mine.mask))
        return merged;
    merged.mask = memory_alloc_zero(sizeof(*merged.mask));
    if (mine.mask)
        *merged.mask = *mine.mask;
    page_mask_set(merged.mask, piece->from, piece->to);
    if (page_mask_is_full(merged.mask)) {
        free(merged.mask);
        merged.mask = NULL;
    }
    return merged;
}

// Notes where in the log the bytes of a piece are, if nothing else went into the page.
static void
put_piece(struct page_store *ps, struct object_id object, struct page_piece *piece,
    uint64_t wal_lsn, uint64_t size)
{
    struct dirty_page content;
    bool alone = is_whole(piece);
    if (alone)
        content = (struct dirty_page){.page = piece->content ? page_get(piece->content) : NULL};
    else
        content = merge_piece(ps, object, piece, size);
    alone = alone || content.page == piece->content;
    if (alone && wal_lsn != 0) {
        content.wal_lsn.v = wal_lsn;
        content.crc = piece->crc;
        content.wal_from = (uint16_t)piece->from;
        content.wal_bytes = (uint16_t)(piece->to - piece->from);
    }
    dirty_set_put(ps->active, object, piece->page, content);
}

void
page_store_put_locked(struct page_store *ps, struct object_id object, struct page_piece *pieces,
    size_t count, struct lsn payload, uint64_t size)
{
    assert(lock_is_mine(ps->lock));
    uint64_t at = payload.v;
    for (size_t i = 0; i < count; i++) {
        put_piece(ps, object, &pieces[i], at, size);
        at += pieces[i].to - pieces[i].from;
        // A later piece may lie behind the end of the object that this one made.
        uint64_t end = pieces[i].page.v * PAGE_BYTES + pieces[i].to;
        if (end > size)
            size = end;
    }
    page_store_balance_locked(ps);
}

void
page_store_discard_locked(
    struct page_store *ps, struct object_id object, uint64_t offset, uint64_t end, uint64_t size)
{
    assert(lock_is_mine(ps->lock));
    size_t count;
    struct page_piece *edges = page_store_edges(offset, end, &count);
    for (size_t i = 0; i < count; i++)
        if (edges[i].page.v * PAGE_BYTES + edges[i].from < size)
            put_piece(ps, object, &edges[i], 0, size);
    page_pieces_free(edges, count);
    uint64_t first = pages_of_bytes(offset);
    uint64_t last = end == UINT64_MAX ? UINT64_MAX : end / PAGE_BYTES;
    dirty_set_discard(ps->active, object, first, last);
    page_store_balance_locked(ps);
}

void
page_store_drop_object_locked(struct page_store *ps, struct object_id object)
{
    dirty_set_drop_object(ps->active, object);
}

void
page_store_balance_locked(struct page_store *ps)
{
    uint64_t active = dirty_set_resident_bytes(ps->active);
    uint64_t frozen = ps->frozen ? dirty_set_resident_bytes(ps->frozen) : 0;
    uint64_t limit = ps->memory_bytes / 4 * 3;
    if (active + frozen > limit && ps->wal) {
        struct wal_numbers n;
        wal_numbers(ps->wal, &n);
        uint64_t excess = active + frozen - limit + limit / 8;
        if (ps->frozen && !ps->thawing) {
            uint64_t freed = dirty_set_evict(ps->frozen, n.flushed, excess);
            excess -= freed < excess ? freed : excess;
        }
        if (excess > 0)
            dirty_set_evict(ps->active, n.flushed, excess);
        active = dirty_set_resident_bytes(ps->active);
        frozen = ps->frozen ? dirty_set_resident_bytes(ps->frozen) : 0;
    }
    page_cache_set_foreign_bytes(ps->clean, active + frozen);
}
