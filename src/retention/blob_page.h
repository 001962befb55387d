// SPDX-License-Identifier: Apache-2.0
// The live blobs of a db that are in the store, some at a time, so that no read transaction waits
// for the store; and where in the store each lies.
#ifndef CKPTFS_RETENTION_BLOB_PAGE_H
#define CKPTFS_RETENTION_BLOB_PAGE_H

#include "remote/remote_manifest.h"

#define BLOB_PAGE_BLOBS 1000u

// Zero-initialise.
struct blob_page {
    struct blob_record blobs[BLOB_PAGE_BLOBS];
    size_t count;
    struct sha256 next; // where the next call goes on
    bool more;
};

// The next blobs in the order of their hashes: those with `where` at or above `least_where`.
MUST_CHECK int blob_page_read(
    struct manifest *m, struct db_id db, uint32_t least_where, struct blob_page *page);

// The key of a blob of the db. -EBADMSG: it names a place that the db does not know.
MUST_CHECK int blob_page_key(const struct remote_place *place, struct manifest *m, struct db_id db,
    const struct blob_record *blob, struct buffer *key_out);

#endif
