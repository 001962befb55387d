// SPDX-License-Identifier: Apache-2.0
// The parts of the S3 store.
#ifndef CKPTFS_STORE_S3_STORE_INTERNAL_H
#define CKPTFS_STORE_S3_STORE_INTERNAL_H

#include "store/remote_store.h"
#include "store/s3_request.h"

struct s3_store {
    struct remote_store base;
    struct s3_bucket bucket;
    char *prefix; // "" or "a/b/"
    uint64_t multipart_bytes;
};

// Keys in one listing or one DeleteObjects, by the protocol.
#define S3_PAGE_MAX 1000u

static inline struct s3_store *
s3_store_of(struct remote_store *s)
{
    return CONTAINER_OF(s, struct s3_store, base);
}

// The whole key in the bucket, which the caller frees; NULL with a text when S3 cannot have it.
char *s3_full_key(const struct s3_store *ss, const char *key);

// Members of the table of functions.
int s3_list(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *listing_out, const struct remote_call *call);
int s3_delete(
    struct remote_store *s, const char *const *keys, size_t count, const struct remote_call *call);

// One PUT. -EBADMSG only when the source itself does not have its hash.
MUST_CHECK int s3_put_single(struct s3_store *ss, const char *key,
    const struct remote_source *source, enum remote_put_mode mode, const struct remote_call *call);
// `key` here and below is the whole key in the bucket.
MUST_CHECK int s3_put_multipart(struct s3_store *ss, const char *key,
    const struct remote_source *source, const struct remote_call *call);
// A member of the table of functions.
int s3_sweep_uploads(struct remote_store *s, const char *prefix, uint64_t age_ms, bool dry_run,
    uint64_t *count_out, const struct remote_call *call);
// One HEAD, without a look at the reason when the server refuses it.
MUST_CHECK int s3_head_once(struct s3_store *ss, const char *key, struct remote_head *head_out,
    int *status_out, const struct remote_call *call);

#endif
