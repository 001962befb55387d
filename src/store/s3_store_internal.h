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

// One PUT. -EBADMSG only when the source itself does not have its hash.
MUST_CHECK int s3_put_single(struct s3_store *ss, const char *key,
    const struct remote_source *source, enum remote_put_mode mode, const struct remote_call *call);
// `key` here and below is the whole key in the bucket.
MUST_CHECK int s3_put_multipart(struct s3_store *ss, const char *key,
    const struct remote_source *source, const struct remote_call *call);
// Aborts uploads below the prefix that began more than a day ago, as far as that can be done.
void s3_sweep_uploads(struct s3_store *ss, const struct remote_call *call);
// What a HEAD says, without looking into why when it is refused.
MUST_CHECK int s3_head_once(struct s3_store *ss, const char *key, struct remote_head *head_out,
    int *status_out, const struct remote_call *call);

#endif
