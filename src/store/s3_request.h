// SPDX-License-Identifier: Apache-2.0
// One signed request to a bucket: addressing, signing, error classes, and the two repetitions that
// need no waiting (new credentials, corrected clock). This file knows no single operation of S3.
#ifndef CKPTFS_STORE_S3_REQUEST_H
#define CKPTFS_STORE_S3_REQUEST_H

#include <stdatomic.h>

#include "store/http_client.h"
#include "store/remote_store.h"
#include "store/s3_credentials.h"
#include "store/s3_response.h"

// A bucket and its addresses. Immutable but for the atomics. Any thread.
struct s3_bucket {
    struct remote_store *counters; // of this store
    struct http_client *http;
    struct s3_credential_chain *credentials;
    char *name;
    char *region;
    char *base_url;  // scheme://authority
    char *authority; // host[:port], as in the Host header
    char *base_path; // "" or "/BUCKET"
    bool has_endpoint;
    atomic_int_fast64_t skew_ms; // server's clock minus ours
    atomic_bool seen;            // the bucket is known to exist
};

struct s3_request {
    const char *what;   // for texts: "put"
    const char *method; // of HTTP
    const char *key;    // whole key in the bucket; NULL: the bucket itself
    const struct s3_pair *query;
    size_t query_count;
    const struct s3_pair *headers; // beyond those that every request has; at most 4
    size_t header_count;
    const struct remote_source *body; // NULL: none
    uint64_t body_at;
    uint64_t body_length;
    const struct sha256 *body_hash; // of that part; NULL: of nothing
    struct buffer *sink;            // as in struct http_request
    uint64_t limit;
    const struct remote_call *call;
};

// 0 with a 2xx answer; else an error of the contract's classes with a text. With an if-none-match
// header, 412 is -EEXIST and 501 is -EOPNOTSUPP. An answer with status 200 and an Error in its body
// is that Error, for any operation (a body that goes to the caller's sink is not checked). The
// caller frees the response in any case; its status is 0 when no answer came. `error_out` may be
// NULL.
MUST_CHECK int s3_perform(struct s3_bucket *bucket, const struct s3_request *request,
    struct http_response *response_out, struct s3_error *error_out);

// Sets the text for a refusal that came in the body of a 200 answer; returns its class.
MUST_CHECK int s3_refused(struct s3_bucket *bucket, const struct s3_request *request, int status,
    const struct s3_error *error);

// Checks a 2xx answer to a request that writes, beyond its status. The body must be empty: -EAGAIN
// with a text when it is not (a proxy's page, an Error that was cut off).
MUST_CHECK int s3_check_wordless(
    const char *what, const char *key, const struct http_response *response);
// The same for an answer to sent bytes: it must have an ETag (-EAGAIN), and if it has the checksum
// of the stored bytes, that must be `hash` (-EBADMSG).
MUST_CHECK int s3_check_stored(const char *what, const char *key,
    const struct http_response *response, const struct sha256 *hash);

// The server's clock minus ours by the answer's Date; 0 without one.
int64_t s3_response_skew_ms(const struct http_response *response);

#endif
