// SPDX-License-Identifier: Apache-2.0
// Checks a whole image, including the parts that readers of single pages do not look at.
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "format/blob_internal.h"
#include "platform/memory.h"

static int
check_header(const uint8_t *p, enum blob_kind kind)
{
    if (memcmp(p + HEADER_MAGIC, BLOB_HEADER_MAGIC, BLOB_MAGIC_BYTES) != 0)
        return -EBADMSG;
    if (get_le32(p + HEADER_CRC) != crc32c(0, p, HEADER_CRC))
        return -EBADMSG;
    if (get_le16(p + HEADER_VERSION) > BLOB_VERSION)
        return -ENOTSUP;
    if (get_le16(p + HEADER_VERSION) != BLOB_VERSION ||
        get_le16(p + HEADER_LENGTH) != BLOB_HEADER_BYTES)
        return -EBADMSG;
    if (get_le32(p + HEADER_INCOMPATIBLE) & ~BLOB_INCOMPATIBLE_FEATURES)
        return -ENOTSUP;
    if (get_le16(p + HEADER_KIND) != kind || get_le16(p + HEADER_RESERVED_A) != 0 ||
        get_le32(p + HEADER_PAGE_BYTES) != PAGE_BYTES ||
        get_le32(p + HEADER_FRAME_PAGES) != BLOB_FRAME_PAGES ||
        !blob_bytes_are_zero(p + HEADER_RESERVED_B, HEADER_CRC - HEADER_RESERVED_B))
        return -EBADMSG;
    return 0;
}

// Header and index say the same about features; the index is known to be well-formed.
static bool
features_agree(const uint8_t *header, const uint8_t *index)
{
    return get_le32(header + HEADER_COMPATIBLE) == get_le32(index + INDEX_COMPATIBLE) &&
           get_le32(header + HEADER_INCOMPATIBLE) == get_le32(index + INDEX_INCOMPATIBLE);
}

static bool
is_zero_outside(const uint8_t *data, const struct page_mask *mask)
{
    uint32_t at = 0; // where the last range ended
    for (bool more = true; more;) {
        uint32_t from;
        uint32_t to;
        more = page_mask_next_range(mask, at, &from, &to); // PAGE_BYTES, PAGE_BYTES at the end
        if (!blob_bytes_are_zero(data + at, from - at))
            return false;
        at = to;
    }
    return true;
}

// Unpacks the frames one by one while it walks the pages in slot order.
struct walk {
    const uint8_t *image;
    const struct blob_index *index;
    uint8_t *pages; // of the frame before `next_frame`
    uint32_t next_frame;
};

static int
load_next_frame(struct walk *w)
{
    uint64_t offset;
    uint32_t stored;
    uint32_t pages;
    blob_index_frame(w->index, w->next_frame, &offset, &stored);
    int rc = blob_frame_unpack(w->image + offset, stored, w->pages, &pages);
    if (rc < 0)
        return rc;
    if (pages != blob_frame_pages(blob_index_data_pages(w->index), w->next_frame))
        return -EBADMSG;
    w->next_frame++;
    return 0;
}

static int
check_page(struct walk *w, const struct blob_page *page)
{
    if (page->slot % BLOB_FRAME_PAGES == 0) {
        int rc = load_next_frame(w);
        if (rc < 0)
            return rc;
    }
    const uint8_t *data = w->pages + page->slot % BLOB_FRAME_PAGES * PAGE_BYTES;
    if (page->state == BLOB_PAGE_DATA)
        return blob_bytes_are_zero(data, PAGE_BYTES) ? -EBADMSG : 0;
    struct page_mask mask;
    blob_index_mask(w->index, page->patch, &mask);
    return is_zero_outside(data, &mask) ? 0 : -EBADMSG;
}

static int
check_pages(const uint8_t *image, const struct blob_index *index)
{
    CLEANUP(memory_free_auto) uint8_t *pages = memory_alloc(BLOB_FRAME_BYTES);
    struct walk w = {image, index, pages, 0};
    for (uint32_t at = 0; at < CHUNK_PAGES;) {
        struct blob_page page;
        blob_index_find(index, at, &page);
        bool has_slot = page.state == BLOB_PAGE_DATA || page.state == BLOB_PAGE_PATCH;
        int rc = has_slot ? check_page(&w, &page) : 0;
        if (rc < 0)
            return rc;
        at = has_slot ? at + 1 : page.first + page.count;
    }
    assert(w.next_frame == blob_index_frames(index));
    return 0;
}

static int
check_image(
    const uint8_t *p, size_t n, const struct blob_footer *footer, const struct blob_index *index)
{
    // Newer versions are named as such before the hash tells of changed bytes.
    int rc = check_header(p, blob_index_kind(index));
    if (rc < 0)
        return rc;
    if (!features_agree(p, p + footer->index_offset))
        return -EBADMSG;
    struct sha256 hash;
    sha256_of(p, n - BLOB_FOOTER_BYTES, &hash);
    if (!sha256_equal(&hash, &footer->hash))
        return -EBADMSG;
    return check_pages(p, index);
}

int
blob_image_check(const void *p, size_t n)
{
    const uint8_t *b = p;
    if (n < BLOB_HEADER_BYTES + INDEX_HEAD_BYTES + BLOB_FOOTER_BYTES || n > UINT32_MAX)
        return -EBADMSG;
    struct blob_footer footer;
    int rc = blob_footer_parse(b + n - BLOB_FOOTER_BYTES, &footer);
    if (rc < 0)
        return rc;
    if (footer.index_offset < BLOB_HEADER_BYTES ||
        footer.index_offset > n - BLOB_FOOTER_BYTES - INDEX_HEAD_BYTES)
        return -EBADMSG;
    struct blob_index *index;
    rc = blob_index_parse(b + footer.index_offset, n - footer.index_offset, n, &index);
    if (rc < 0)
        return rc;
    rc = check_image(b, n, &footer, index);
    blob_index_free(index);
    return rc;
}
