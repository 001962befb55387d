// SPDX-License-Identifier: Apache-2.0
#include "retention/blob_page.h"

#include <errno.h>

#include "store/blob_key.h"

struct taking {
    struct blob_page *page;
    uint32_t least_where;
};

static int
take_blob(void *argument, const struct blob_record *blob)
{
    struct taking *t = argument;
    struct blob_page *page = t->page;
    if (blob->where < t->least_where)
        return 0;
    if (page->count == BLOB_PAGE_BLOBS) {
        page->next = blob->hash;
        page->more = true;
        return 1;
    }
    page->blobs[page->count++] = *blob;
    return 0;
}

int
blob_page_read(struct manifest *m, struct db_id db, uint32_t least_where, struct blob_page *page)
{
    struct manifest_reader *r;
    struct taking t = {page, least_where};
    struct sha256 from = page->next;
    page->count = 0;
    page->more = false;
    int rc = manifest_read_begin(m, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_remote_blobs(r, db, &from, take_blob, &t);
    manifest_read_end(r);
    return rc < 0 ? rc : 0;
}

int
blob_page_key(const struct remote_place *place, struct manifest *m, struct db_id db,
    const struct blob_record *blob, struct buffer *key_out)
{
    struct manifest_reader *r;
    struct namespace_record space;
    if (blob->where < BLOB_WHERE_NAMED) {
        blob_key(place->tenant, place->volume_number, blob, key_out);
        return 0;
    }
    int rc = manifest_read_begin(m, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_namespace(r, db, blob->where, &space);
    if (rc == 0)
        blob_key_in(&space, blob, key_out);
    manifest_read_end(r);
    return rc == -ENOENT ? -EBADMSG : rc;
}
