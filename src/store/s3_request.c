// SPDX-License-Identifier: Apache-2.0
#include "store/s3_request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "store/s3_sign.h"
#include "store/store_internal.h"
#include "store/store_time.h"

#define HEADERS_MAX      10
#define TRIES            3 // the first, one with new credentials, one with the clock corrected
#define BODY_SHOWN_BYTES 200
#define SKEW_NOTICED_MS  (60 * 1000)

// ---- classes ------------------------------------------------------------------------------------

static const struct {
    const char *code;
    int class;
} classes[] = {
    {"NoSuchKey", -ENOENT},
    {"NoSuchVersion", -ENOENT},
    {"NoSuchBucket", -ENXIO},
    {"NoSuchUpload", -EAGAIN}, // the upload was aborted by someone: begin anew
    {"PreconditionFailed", -EEXIST},
    {"SlowDown", -EBUSY},
    {"Throttling", -EBUSY},
    {"ThrottlingException", -EBUSY},
    {"RequestLimitExceeded", -EBUSY},
    {"BandwidthLimitExceeded", -EBUSY},
    {"TooManyRequests", -EBUSY},
    {"RequestTimeout", -EAGAIN},
    {"InternalError", -EAGAIN},
    {"ServiceUnavailable", -EAGAIN},
    {"OperationAborted", -EAGAIN},
    {"ConditionalRequestConflict", -EAGAIN},
    {"BadDigest", -EBADMSG},
    {"InvalidDigest", -EBADMSG},
    {"IncompleteBody", -EAGAIN},
    {"XAmzContentSHA256Mismatch", -EBADMSG},
    {"XAmzContentChecksumMismatch", -EBADMSG},
    {"NotImplemented", -EOPNOTSUPP},
    {"QuotaExceeded", -ENOSPC},
    {"InsufficientStorage", -ENOSPC},
    {"ExpiredToken", -EACCES},
    {"ExpiredTokenException", -EACCES},
    {"TokenRefreshRequired", -EACCES},
    {"InvalidToken", -EACCES},
    {"AccessDenied", -EACCES},
};

static int
class_of_status(int status, bool is_bucket)
{
    switch (status) {
    case 401:
    case 403:
        return -EACCES;
    case 404:
        return is_bucket ? -ENXIO : -ENOENT;
    case 408:
    case 409:
        return -EAGAIN;
    case 412:
        return -EEXIST;
    case 429:
        return -EBUSY;
    case 501:
        return -EOPNOTSUPP;
    case 507:
        return -ENOSPC;
    }
    return status >= 500 ? -EAGAIN : -EIO;
}

static bool
is_conditional(const struct s3_request *r)
{
    for (size_t i = 0; i < r->header_count; i++)
        if (strcmp(r->headers[i].name, "if-none-match") == 0)
            return true;
    return false;
}

static int
class_of(const struct s3_request *r, int status, const struct s3_error *error)
{
    int class = class_of_status(status, !r->key);
    for (size_t i = 0; i < ARRAY_LENGTH(classes); i++)
        if (strcmp(error->code, classes[i].code) == 0)
            class = classes[i].class;
    // These two are answers to a condition; without one they are nonsense.
    if ((class == -EEXIST || class == -EOPNOTSUPP) && !is_conditional(r))
        return -EIO;
    return class;
}

// ---- texts --------------------------------------------------------------------------------------

static void
append_missing_bucket(struct buffer *text, const struct s3_bucket *b)
{
    buffer_printf(text,
        "; bucket %s does not exist at %s. Create it, for example with: aws s3api "
        "create-bucket --bucket %s --region %s",
        b->name, b->base_url, b->name, b->region);
    if (b->has_endpoint)
        buffer_printf(text, " --endpoint-url %s", b->base_url);
    else if (strcmp(b->region, "us-east-1") != 0)
        buffer_printf(text, " --create-bucket-configuration LocationConstraint=%s", b->region);
}

static void
append_region_hint(struct buffer *text, const struct s3_bucket *b, const char *region)
{
    if (*region && strcmp(region, b->region) != 0)
        buffer_printf(text,
            "; the bucket is in region %s and the request was for %s: set region=%s", region,
            b->region, region);
}

// Sets the text for an answer that is a refusal. `body` is shown when it holds no error we know.
static int
refuse(struct s3_bucket *b, const struct s3_request *r, int status, const struct s3_error *error,
    const char *region, const struct buffer *body)
{
    BUFFER_AUTO text = {0};
    int class = class_of(r, status, error);
    // Bad Request in words that are not S3's: plain http sent to an https port, for example.
    if (status == 400 && !error->code[0] && body && body->length > 0)
        class = -EPROTO;
    buffer_printf(&text, "%s s3://%s%s%s: status %d", r->what, b->name, r->key ? "/" : "",
        r->key ? r->key : "", status);
    if (error->code[0]) {
        buffer_printf(&text, " %s", error->code);
        if (error->message[0])
            buffer_printf(&text, ": %s", error->message);
        if (error->request_id[0])
            buffer_printf(&text, " (request %s)", error->request_id);
    } else if (body && body->length > 0) {
        buffer_append_string(&text, ": ");
        store_append_printable(&text, (const char *)body->data, body->length, BODY_SHOWN_BYTES);
    }
    if (class == -ENXIO)
        append_missing_bucket(&text, b);
    append_region_hint(&text, b, region);
    if (status == 301 || status == 307 || status == 308)
        buffer_append_string(&text, "; the bucket is elsewhere, and redirects are not followed");
    return store_fail(class, "%s", buffer_string(&text));
}

int
s3_refused(
    struct s3_bucket *b, const struct s3_request *r, int status, const struct s3_error *error)
{
    return store_count_result(b->counters, refuse(b, r, status, error, error->region, NULL));
}

// ---- one try ------------------------------------------------------------------------------------

static void
append_url(struct buffer *url, struct buffer *path, struct buffer *query, const struct s3_bucket *b,
    const struct s3_request *r)
{
    buffer_append_string(path, b->base_path);
    buffer_append_u8(path, '/');
    if (r->key)
        s3_append_encoded(path, r->key, true);
    s3_append_query(query, r->query, r->query_count);
    buffer_printf(url, "%s%s%s%s", b->base_url, buffer_string(path), query->length > 0 ? "?" : "",
        buffer_string(query));
}

static void
count_request(struct s3_bucket *b, const struct s3_request *r)
{
    if (strcmp(r->method, "PUT") == 0)
        STORE_COUNT(b->counters, put_requests, 1);
    else if (strcmp(r->method, "HEAD") == 0)
        STORE_COUNT(b->counters, head_requests, 1);
    else if (strcmp(r->what, "list") == 0)
        STORE_COUNT(b->counters, list_requests, 1);
    else if (strcmp(r->what, "delete") == 0)
        STORE_COUNT(b->counters, delete_requests, 1);
    else if (strcmp(r->method, "GET") == 0)
        STORE_COUNT(b->counters, get_requests, 1);
    else
        STORE_COUNT(b->counters, put_requests, 1);
}

static int
send_signed(struct s3_bucket *b, const struct s3_request *r, const struct s3_credentials *c,
    struct http_response *response_out)
{
    BUFFER_AUTO url = {0};
    BUFFER_AUTO path = {0};
    BUFFER_AUTO query = {0};
    BUFFER_AUTO authorization = {0};
    struct s3_pair headers[HEADERS_MAX];
    struct sha256 hash;
    char hex[65];
    char timestamp[17];
    size_t count = 0;
    append_url(&url, &path, &query, b, r);
    if (r->body_hash)
        hash = *r->body_hash;
    else
        sha256_of("", 0, &hash);
    sha256_to_hex(&hash, hex);
    time_format_amz((uint64_t)((int64_t)clock_wall_ms() + atomic_load(&b->skew_ms)), timestamp);
    headers[count++] = (struct s3_pair){"host", b->authority};
    headers[count++] = (struct s3_pair){"x-amz-content-sha256", hex};
    headers[count++] = (struct s3_pair){"x-amz-date", timestamp};
    if (c->session_token)
        headers[count++] = (struct s3_pair){"x-amz-security-token", c->session_token};
    assert(count + r->header_count < HEADERS_MAX);
    for (size_t i = 0; i < r->header_count; i++)
        headers[count++] = r->headers[i];
    const struct s3_signing signing = {
        .method = r->method,
        .path = buffer_string(&path),
        .query = buffer_string(&query),
        .headers = headers,
        .header_count = count,
        .payload_hash = hex,
        .timestamp = timestamp,
        .region = b->region,
        .service = "s3",
        .access_key = c->access_key,
        .secret_key = c->secret_key,
    };
    s3_sign(&signing, &authorization);
    headers[count++] = (struct s3_pair){"authorization", buffer_string(&authorization)};
    const struct http_request request = {
        .method = r->method,
        .url = buffer_string(&url),
        .headers = headers,
        .header_count = count,
        .body = r->body,
        .body_at = r->body_at,
        .body_length = r->body_length,
        .sink = r->sink,
        .limit = r->limit,
        .call = r->call,
    };
    count_request(b, r);
    int rc = http_client_perform(b->http, &request, response_out);
    http_response_redact(response_out, c->secret_key);
    http_response_redact(response_out, c->session_token);
    return rc;
}

// ---- fields of an answer ------------------------------------------------------------------------

static bool
has_words(const struct http_response *response)
{
    for (size_t i = 0; i < response->body.length; i++)
        if (!s3_is_blank(response->body.data[i]))
            return true;
    return false;
}

int
s3_check_wordless(const char *what, const char *key, const struct http_response *response)
{
    if (!has_words(response))
        return 0;
    BUFFER_AUTO shown = {0};
    store_append_printable(
        &shown, (const char *)response->body.data, response->body.length, BODY_SHOWN_BYTES);
    return store_fail(-EAGAIN,
        "%s %s: status %d with words that are no answer of S3, so it may not have been done: %s",
        what, key, response->status, buffer_string(&shown));
}

// Compares a checksum that the server tells, in base64, with ours; no header is no contradiction.
static bool
checksum_agrees(
    const struct http_response *response, const char *name, const uint8_t *ours, size_t n)
{
    const char *theirs = http_response_header(response, name);
    BUFFER_AUTO text = {0};
    s3_append_base64(&text, ours, n);
    return !theirs || strcmp(theirs, buffer_string(&text)) == 0;
}

int
s3_check_stored(const char *what, const char *key, const struct http_response *response,
    const struct sha256 *hash)
{
    int rc = s3_check_wordless(what, key, response);
    const char *tag = http_response_header(response, "etag");
    if (rc == 0 && (!tag || !*tag || strpbrk(tag, "<>&")))
        rc = store_fail(-EAGAIN, "%s %s: an answer without an ETag", what, key);
    if (rc == 0 && !checksum_agrees(response, "x-amz-checksum-sha256", hash->b, sizeof(hash->b)))
        rc = store_fail(
            -EBADMSG, "%s %s: the server has stored other bytes than were sent", what, key);
    return rc;
}

// ---- the series ---------------------------------------------------------------------------------

int64_t
s3_response_skew_ms(const struct http_response *response)
{
    const char *date = http_response_header(response, "date");
    uint64_t server_ms;
    if (!date || time_parse_http(date, &server_ms) < 0)
        return 0;
    // Date counts whole seconds.
    return (int64_t)server_ms - (int64_t)(clock_wall_ms() / 1000 * 1000);
}

static bool
is_one_of(const char *code, const char *const *codes)
{
    for (; *codes; codes++)
        if (strcmp(code, *codes) == 0)
            return true;
    return false;
}

// Whether another try can help at once: with other credentials, or with the clock corrected.
static bool
can_mend(struct s3_bucket *b, const struct s3_credentials *c, const struct s3_error *error,
    const struct http_response *response, bool *has_refreshed, bool *has_set_clock)
{
    static const char *const expired[] = {"ExpiredToken", "ExpiredTokenException",
        "TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId", NULL};
    static const char *const skewed[] = {"RequestTimeTooSkewed", "RequestExpired", NULL};
    if (!*has_refreshed && is_one_of(error->code, expired)) {
        *has_refreshed = true;
        s3_credential_chain_refused(b->credentials, c);
        return true;
    }
    if (!*has_set_clock && is_one_of(error->code, skewed)) {
        *has_set_clock = true;
        int64_t skew = s3_response_skew_ms(response);
        int64_t before = atomic_exchange(&b->skew_ms, skew);
        return llabs(skew - before) > SKEW_NOTICED_MS;
    }
    return false;
}

static int
explain_transport(struct s3_bucket *b, const struct s3_request *r, int rc)
{
    return store_fail(rc, "%s s3://%s%s%s at %s: %s", r->what, b->name, r->key ? "/" : "",
        r->key ? r->key : "", b->base_url, remote_store_error());
}

int
s3_perform(struct s3_bucket *b, const struct s3_request *r, struct http_response *response_out,
    struct s3_error *error_out)
{
    bool has_refreshed = false;
    bool has_set_clock = false;
    struct s3_error error = {0};
    struct s3_credentials c = {0};
    int rc = 0;
    *response_out = (struct http_response){0};
    for (int tries = 0; tries < TRIES; tries++) {
        http_response_free(response_out);
        *response_out = (struct http_response){0};
        s3_credentials_free(&c);
        rc = s3_credential_chain_get(b->credentials, r->call, &c);
        if (rc == 0)
            rc = send_signed(b, r, &c, response_out);
        if (rc < 0) {
            rc = explain_transport(b, r, rc);
            break;
        }
        bool is_error = has_words(response_out) && s3_parse_error(response_out->body.data,
                                                       response_out->body.length, &error) == 0;
        if (!is_error)
            error = (struct s3_error){0};
        if (response_out->status / 100 == 2 && !is_error) {
            atomic_store(&b->seen, true);
            break;
        }
        const char *region = http_response_header(response_out, "x-amz-bucket-region");
        BUFFER_AUTO shown = {0};
        if (region)
            store_append_printable(&shown, region, strlen(region), sizeof(error.region));
        rc = refuse(b, r, response_out->status, &error,
            region ? buffer_string(&shown) : error.region, &response_out->body);
        if (!can_mend(b, &c, &error, response_out, &has_refreshed, &has_set_clock))
            break;
    }
    s3_credentials_free(&c);
    if (rc == -ENOENT && strcmp(error.code, "NoSuchKey") == 0)
        atomic_store(&b->seen, true);
    if (error_out)
        *error_out = error;
    return store_count_result(b->counters, rc);
}
