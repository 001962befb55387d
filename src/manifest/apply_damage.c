// SPDX-License-Identifier: Apache-2.0
// Pages whose bytes are lost. An entry stands beside the chunk's images, not in them: the writer of
// an image leaves the pages out, and a reader looks here first.
#include <errno.h>

#include "manifest/manifest_internal.h"

int
apply_put_damage(struct apply *a, const struct chunk_damage *damage)
{
    struct schema_key key;
    schema_key_pair(&key, a->db.id, damage->object.v, damage->page.v);
    buffer_clear(&a->value);
    schema_encode_damage(damage, &a->value);
    int rc = apply_put(a, TABLE_CHUNK_DAMAGE, &key);
    return rc < 0 ? rc : apply_note(a, UNPUBLISHED_DAMAGE, &key);
}

int
apply_delete_damage(struct apply *a, struct object_id object, struct page_no page)
{
    struct schema_key key;
    schema_key_pair(&key, a->db.id, object.v, page.v);
    int rc = lmdb_delete(a->txn, TABLE_CHUNK_DAMAGE, key.bytes, key.length);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return apply_note(a, UNPUBLISHED_DAMAGE, &key);
}

// The first page of the first entry from `from` on: 1, or 0 when none begins before `end`.
static int
first_in(
    struct apply *a, struct object_id object, uint64_t from, uint64_t end, struct page_no *page_out)
{
    struct schema_key key;
    struct table_walk w;
    uint64_t number;
    schema_key_pair(&key, a->db.id, object.v, from);
    int rc = table_walk_begin(&w, a->txn, TABLE_CHUNK_DAMAGE, &key, NUMBER_PREFIX_BYTES);
    if (rc > 0 && !schema_read_pair(w.key.data, w.key.length, &number, &page_out->v))
        rc = manifest_bad_entry(TABLE_CHUNK_DAMAGE);
    table_walk_end(&w);
    return rc > 0 && page_out->v >= end ? 0 : rc;
}

int
apply_delete_chunk_damage(struct apply *a, struct object_id object, struct chunk_index index)
{
    uint64_t first = index.v * CHUNK_PAGES;
    for (;;) {
        struct page_no page;
        int rc = first_in(a, object, first, first + CHUNK_PAGES, &page);
        if (rc > 0)
            rc = apply_delete_damage(a, object, page);
        else
            return rc;
        if (rc < 0)
            return rc;
    }
}
