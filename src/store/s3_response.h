// SPDX-License-Identifier: Apache-2.0
// The XML that S3 and STS answer with. Everything here comes from the network: sizes, depths and
// counts are bounded, and a document type declaration is refused, so that no entity expands. All
// parsers return 0, or -EBADMSG when the text is malformed.
#ifndef CKPTFS_STORE_S3_RESPONSE_H
#define CKPTFS_STORE_S3_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "store/remote_store.h"

// The longest answer that is read: a listing of 1000 keys with every byte escaped.
#define S3_ANSWER_MAX_BYTES (16u << 20)

// Blanks may stand around an answer: a server that takes long sends them, so that the connection
// stays open.
static inline bool
s3_is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

// Printable ASCII, cut where too long; "" where absent.
struct s3_error {
    char code[64];
    char message[400];
    char region[64];
    char request_id[80];
};

// <Error>, or <ErrorResponse><Error> as STS has it.
MUST_CHECK int s3_parse_error(const void *p, size_t n, struct s3_error *error_out);

struct s3_list_page {
    struct remote_listing listing; // `more` is IsTruncated
    struct buffer token;           // NextContinuationToken
};
MUST_CHECK int s3_parse_list(const void *p, size_t n, struct s3_list_page *page_out);
void s3_list_page_free(struct s3_list_page *page);

// The first error that is not NoSuchKey; *count_out counts those.
MUST_CHECK int s3_parse_delete(
    const void *p, size_t n, struct s3_error *error_out, struct buffer *key_out, size_t *count_out);

// The UploadId of CreateMultipartUpload.
MUST_CHECK int s3_parse_upload_id(const void *p, size_t n, struct buffer *id_out);
// Checks that the body reports success of CompleteMultipartUpload: the status does not tell.
MUST_CHECK int s3_parse_complete(const void *p, size_t n);

// Calls `each` for every upload of ListMultipartUploads.
typedef void s3_upload_function(
    void *context, const char *key, const char *upload_id, uint64_t initiated_ms);
MUST_CHECK int s3_parse_uploads(const void *p, size_t n, s3_upload_function *each, void *context);

// The answer of AssumeRoleWithWebIdentity. The caller frees the strings.
struct s3_assumed_role {
    char *access_key;
    char *secret_key;
    char *session_token;
    uint64_t expires_ms;
};
MUST_CHECK int s3_parse_assumed_role(const void *p, size_t n, struct s3_assumed_role *role_out);

#endif
