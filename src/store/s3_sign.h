// SPDX-License-Identifier: Apache-2.0
// AWS Signature Version 4 (docs.aws.amazon.com/IAM/latest/UserGuide, "Create a signed AWS API
// request"). Pure: time and keys come in as arguments.
#ifndef CKPTFS_STORE_S3_SIGN_H
#define CKPTFS_STORE_S3_SIGN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"

// A pair of strings: a header, or a parameter of a query.
struct s3_pair {
    const char *name;
    const char *value;
};

struct s3_signing {
    const char *method;
    const char *path;              // absolute and percent-encoded
    const char *query;             // as s3_append_query makes it, or ""
    const struct s3_pair *headers; // all signed ones, `host` among them
    size_t header_count;
    const char *payload_hash; // hexadecimal SHA-256 of the body
    const char *timestamp;    // as time_format_amz makes it
    const char *region;
    const char *service;
    const char *access_key;
    const char *secret_key;
};

// Appends the value of the Authorization header.
void s3_sign(const struct s3_signing *s, struct buffer *authorization_out);
// Appends the canonical request, which s3_sign signs. For tests.
void s3_append_canonical_request(const struct s3_signing *s, struct buffer *out);

// Appends `text` percent-encoded: all but A-Za-z0-9-_.~, and '/' when `keep_slash`.
void s3_append_encoded(struct buffer *out, const char *text, bool keep_slash);
// Appends the canonical query string of the parameters in any order.
void s3_append_query(struct buffer *out, const struct s3_pair *parameters, size_t count);

// Appends the bytes in base64 (RFC 4648, with padding), as headers of S3 have digests.
void s3_append_base64(struct buffer *out, const uint8_t *p, size_t n);

#endif
