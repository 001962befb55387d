// SPDX-License-Identifier: Apache-2.0
// Objects in a bucket of an S3 server (docs.aws.amazon.com/AmazonS3/latest/API).
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "store/remote_store_backends.h"
#include "store/s3_store_internal.h"
#include "store/store_internal.h"
#include "store/store_time.h"

// Above a chunk that does not compress, with its frames' headers and index: it goes in one request,
// and the server compares its hash.
#define DEFAULT_MULTIPART_BYTES (72ull << 20)
#define DEFAULT_CONNECTIONS     8
#define DEFAULT_TIMEOUT_MS      30000
#define CONNECT_TIMEOUT_MS      10000
#define DEFAULT_REGION          "us-east-1"
#define ABANDONED_MS            (24ull * 3600 * 1000)

// ---- keys ---------------------------------------------------------------------------------------

// The length of the UTF-8 sequence at `p` (RFC 3629), or 0.
static size_t
utf8_length(const unsigned char *p)
{
    static const struct {
        unsigned char mask, lead;
        size_t length;
    } forms[] = {
        {0xe0, 0xc0, 2},
        {0xf0, 0xe0, 3},
        {0xf8, 0xf0, 4},
    };
    if (p[0] < 0x80)
        return 1;
    for (size_t i = 0; i < ARRAY_LENGTH(forms); i++) {
        if ((p[0] & forms[i].mask) != forms[i].lead)
            continue;
        for (size_t j = 1; j < forms[i].length; j++)
            if ((p[j] & 0xc0) != 0x80)
                return 0;
        bool is_overlong =
            p[0] < 0xc2 || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
        bool is_surrogate = p[0] == 0xed && p[1] >= 0xa0;
        bool is_beyond = p[0] > 0xf4 || (p[0] == 0xf4 && p[1] >= 0x90);
        return is_overlong || is_surrogate || is_beyond ? 0 : forms[i].length;
    }
    return 0;
}

// S3 keys are UTF-8; control characters cannot stand in the XML of listings and deletions.
static bool
key_is_text(const char *key)
{
    for (const unsigned char *p = (const unsigned char *)key; *p;) {
        size_t n = utf8_length(p);
        if (n == 0 || *p < 0x20 || *p == 0x7f)
            return false;
        p += n;
    }
    return true;
}

char *
s3_full_key(const struct s3_store *ss, const char *key)
{
    if (key_is_text(key))
        return memory_printf("%s%s", ss->prefix, key);
    BUFFER_AUTO shown = {0};
    store_append_printable(&shown, key, strlen(key), 200);
    remote_store_set_error(
        "key \"%s\" is not UTF-8 or has control characters", buffer_string(&shown));
    return NULL;
}

// ---- put ----------------------------------------------------------------------------------------

// The server says that the bytes do not match. Were they wrong, or did the transfer spoil them?
static int
explain_mismatch(const char *key, const struct remote_source *source)
{
    CLEANUP(memory_free_auto) char *text = memory_string(remote_store_error());
    struct sha256 hash;
    int rc = store_source_hash(source, 0, source->length, &hash);
    if (rc < 0)
        return rc;
    if (sha256_equal(&hash, &source->hash))
        return store_fail(
            -EAGAIN, "%s (the bytes are right here: the transfer spoiled them)", text);
    return store_fail(-EBADMSG, "put %s: the bytes do not have the SHA-256 that was given", key);
}

int
s3_put_single(struct s3_store *ss, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    const struct s3_pair headers[] = {{"if-none-match", "*"}};
    const struct s3_request request = {
        .what = "put",
        .method = "PUT",
        .key = key,
        .headers = headers,
        .header_count = mode == REMOTE_PUT_CREATE,
        .body = source,
        .body_length = source->length,
        .body_hash = &source->hash,
        .limit = S3_ANSWER_MAX_BYTES,
        .call = call,
    };
    struct http_response response;
    int rc = s3_perform(&ss->bucket, &request, &response, NULL);
    if (rc == 0)
        rc = s3_check_stored(request.what, key, &response, &source->hash);
    unsigned sends = response.sends;
    int status = response.status;
    http_response_free(&response);
    if (rc == -EBADMSG && status != 0)
        return explain_mismatch(key, source);
    if (rc == -EEXIST && sends > 1)
        return store_fail(-EAGAIN,
            "put %s: the connection broke and the request was sent again; "
            "the object exists, perhaps by the first sending",
            key);
    if (rc == -EOPNOTSUPP)
        return store_fail(-EOPNOTSUPP,
            "%s; the store has no conditional create (PUT with "
            "If-None-Match: *), without which two hosts could write one volume; use a store that "
            "has it, such as AWS S3, Ceph RGW or MinIO",
            remote_store_error());
    return rc;
}

static int
s3_store_put(struct remote_store *s, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    struct s3_store *ss = s3_store_of(s);
    CLEANUP(memory_free_auto) char *full = s3_full_key(ss, key);
    if (!full)
        return -EIO;
    bool in_parts = mode == REMOTE_PUT_OVERWRITE && source->length > ss->multipart_bytes;
    int rc = in_parts ? s3_put_multipart(ss, full, source, call)
                      : s3_put_single(ss, full, source, mode, call);
    if (rc == 0)
        STORE_COUNT(s, bytes_written, source->length);
    return rc;
}

// ---- get ----------------------------------------------------------------------------------------

static bool
parse_number(const char **p, uint64_t *out)
{
    char *end;
    if (**p < '0' || **p > '9')
        return false;
    errno = 0;
    *out = strtoull(*p, &end, 10);
    *p = end;
    return errno == 0;
}

// "bytes FIRST-LAST/SIZE"
static bool
parse_content_range(const char *text, uint64_t *first, uint64_t *last, uint64_t *size)
{
    if (!text || strncmp(text, "bytes ", 6) != 0)
        return false;
    text += 6;
    return parse_number(&text, first) && *text++ == '-' && parse_number(&text, last) &&
           *text++ == '/' && parse_number(&text, size) && *text == 0;
}

// Whether the answer has the bytes asked for, and all of them.
static int
check_range(const char *key, const struct http_response *response, uint64_t offset, uint64_t length,
    uint64_t received)
{
    uint64_t first;
    uint64_t last;
    uint64_t size;
    const char *text = http_response_header(response, "content-range");
    if (response->status == 200) {
        // The server did not care for the range; that is fine when the object lies inside it.
        if (offset == 0)
            return 0;
        return store_fail(-EBADMSG, "get %s: a range was asked for and the whole came", key);
    }
    if (response->status != 206 || !parse_content_range(text, &first, &last, &size))
        return store_fail(
            -EBADMSG, "get %s: status %d without a usable Content-Range", key, response->status);
    uint64_t wanted_last = length > size - offset ? size - 1 : offset + length - 1;
    if (first != offset || offset >= size || last != wanted_last || received != last - first + 1)
        return store_fail(-EBADMSG,
            "get %s: asked for %llu bytes from %llu, got %llu bytes said to be %s", key,
            (unsigned long long)length, (unsigned long long)offset, (unsigned long long)received,
            text);
    return 0;
}

static int
get_range(struct s3_store *ss, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    char range[64];
    bool whole = offset == 0 && length == UINT64_MAX;
    if (length == UINT64_MAX)
        snprintf(range, sizeof(range), "bytes=%llu-", (unsigned long long)offset);
    else
        snprintf(range, sizeof(range), "bytes=%llu-%llu", (unsigned long long)offset,
            (unsigned long long)(offset + length - 1));
    const struct s3_pair headers[] = {{"range", range}};
    const struct s3_request request = {
        .what = "get",
        .method = "GET",
        .key = key,
        .headers = headers,
        .header_count = !whole,
        .sink = out,
        .limit = length < REMOTE_GET_MAX_BYTES ? length : REMOTE_GET_MAX_BYTES,
        .call = call,
    };
    size_t before = out->length;
    struct http_response response;
    int rc = s3_perform(&ss->bucket, &request, &response, NULL);
    if (response.status == 416) {
        // A range from 0 cannot be had only when there is nothing at all.
        if (offset == 0)
            rc = 0;
        else
            rc = store_fail(-EIO, "get %s: the range begins at %llu, where the object has ended",
                key, (unsigned long long)offset);
    } else if (rc == 0 && !whole) {
        rc = check_range(key, &response, offset, length, out->length - before);
    }
    http_response_free(&response);
    if (rc == -EBADMSG && length == UINT64_MAX && out->length - before >= REMOTE_GET_MAX_BYTES / 2)
        rc = store_fail(-EIO, "get %s: the object is too large to be read whole", key);
    if (rc == 0)
        STORE_COUNT(&ss->base, bytes_read, out->length - before);
    return rc;
}

static int s3_store_head(struct remote_store *s, const char *key, struct remote_head *head_out,
    const struct remote_call *call);

static int
s3_store_get(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    struct s3_store *ss = s3_store_of(s);
    CLEANUP(memory_free_auto) char *full = s3_full_key(ss, key);
    if (!full)
        return -EIO;
    if (length == 0) {
        // HTTP has no empty ranges.
        struct remote_head head = {0};
        int rc = s3_store_head(s, key, &head, call);
        if (rc == 0 && offset > 0 && offset >= head.size)
            rc = store_fail(-EIO, "get %s: the range begins at %llu, where the object has ended",
                key, (unsigned long long)offset);
        return rc;
    }
    if (length != UINT64_MAX && offset > UINT64_MAX - length)
        return store_fail(-EIO, "get %s: the range has no end", key);
    return get_range(ss, full, offset, length, out, call);
}

// ---- head ---------------------------------------------------------------------------------------

int
s3_head_once(struct s3_store *ss, const char *key, struct remote_head *head_out, int *status_out,
    const struct remote_call *call)
{
    const struct s3_request request = {
        .what = "head",
        .method = "HEAD",
        .key = key,
        .call = call,
    };
    struct http_response response;
    int rc = s3_perform(&ss->bucket, &request, &response, NULL);
    *head_out = (struct remote_head){0};
    *status_out = response.status;
    if (rc == 0) {
        const char *length = http_response_header(&response, "content-length");
        const char *modified = http_response_header(&response, "last-modified");
        if (!length || !parse_number(&length, &head_out->size) || *length)
            rc = store_fail(-EBADMSG, "head %s: an answer without a Content-Length", key);
        if (!modified || time_parse_http(modified, &head_out->modified_ms) < 0)
            head_out->modified_ms = 0;
        head_out->clock_skew_ms = s3_response_skew_ms(&response);
    }
    http_response_free(&response);
    return rc;
}

// Reads one byte: a refused HEAD has no body that says why, a refused GET has.
static int
ask_why(struct s3_store *ss, const char *key, const struct remote_call *call)
{
    BUFFER_AUTO byte = {0};
    return get_range(ss, key, 0, 1, &byte, call);
}

// Whether the bucket is there: that an object is missing does not say so.
static int
check_bucket(struct s3_store *ss, const struct remote_call *call)
{
    const struct s3_pair query[] = {{"list-type", "2"}, {"max-keys", "1"}};
    const struct s3_request request = {
        .what = "list",
        .method = "GET",
        .query = query,
        .query_count = 2,
        .limit = S3_ANSWER_MAX_BYTES,
        .call = call,
    };
    struct http_response response;
    int rc = s3_perform(&ss->bucket, &request, &response, NULL);
    http_response_free(&response);
    return rc;
}

static int
s3_store_head(struct remote_store *s, const char *key, struct remote_head *head_out,
    const struct remote_call *call)
{
    struct s3_store *ss = s3_store_of(s);
    int status;
    CLEANUP(memory_free_auto) char *full = s3_full_key(ss, key);
    if (!full)
        return -EIO;
    int rc = s3_head_once(ss, full, head_out, &status, call);
    if (status == 400 || status == 403) {
        rc = ask_why(ss, full, call);
        if (rc == 0) // credentials or the clock were set right on the way
            rc = s3_head_once(ss, full, head_out, &status, call);
    }
    if (rc == -ENOENT && !atomic_load(&ss->bucket.seen)) {
        if (check_bucket(ss, call) == -ENXIO)
            return -ENXIO;
        return store_fail(-ENOENT, "head s3://%s/%s: no such object", ss->bucket.name, full);
    }
    return rc;
}

// ---- the rest -----------------------------------------------------------------------------------

static int
s3_store_probe(struct remote_store *s, const struct remote_call *call)
{
    uint64_t count;
    int rc = store_probe_by_create(s, call);
    // Also of volumes that nobody mounts any more. Other programs may use the bucket, too, with
    // other keys.
    if (rc == 0 && s3_sweep_uploads(s, "checkpoints/", ABANDONED_MS, false, &count, call) < 0)
        log_warning("store.upload_left", "%s", remote_store_error());
    return rc;
}

static void
s3_store_close(struct remote_store *s)
{
    struct s3_store *ss = s3_store_of(s);
    s3_credential_chain_free(ss->bucket.credentials);
    http_client_free(ss->bucket.http);
    free(ss->bucket.name);
    free(ss->bucket.region);
    free(ss->bucket.base_url);
    free(ss->bucket.authority);
    free(ss->bucket.base_path);
    free(ss->prefix);
    free(ss);
}

static const struct remote_store_ops s3_store_ops = {
    .put_blob = s3_store_put,
    .get_blob = s3_store_get,
    .head_blob = s3_store_head,
    .list_blobs = s3_list,
    .delete_blobs = s3_delete,
    .sweep_uploads = s3_sweep_uploads,
    .probe = s3_store_probe,
    .close = s3_store_close,
};

// ---- opening ------------------------------------------------------------------------------------

// Splits "http[s]://host[:port][/]"; false for another form.
static bool
split_endpoint(const char *endpoint, struct buffer *scheme, struct buffer *authority)
{
    size_t skip = strncmp(endpoint, "http://", 7) == 0    ? 7
                  : strncmp(endpoint, "https://", 8) == 0 ? 8
                                                          : 0;
    size_t n = strcspn(endpoint + skip, "/");
    const char *rest = endpoint + skip + n;
    if (skip == 0 || n == 0 || strcspn(endpoint + skip, "@?#\\ \t\r\n") < n ||
        strspn(rest, "/") != strlen(rest))
        return false;
    buffer_append(scheme, endpoint, skip);
    buffer_append(authority, endpoint + skip, n);
    return true;
}

static bool
region_is_good(const char *region)
{
    size_t n = strlen(region);
    return n > 0 && n < 64 &&
           strspn(region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == n;
}

// Where requests go: bucket in the path or in the host's name.
static int
set_address(struct s3_bucket *b, const struct remote_store_options *options)
{
    BUFFER_AUTO scheme = {0};
    BUFFER_AUTO host = {0};
    CLEANUP(memory_free_auto)
    char *endpoint = options->endpoint ? memory_string(options->endpoint)
                                       : s3_endpoint_from_environment(options->profile);
    b->has_endpoint = endpoint != NULL;
    if (endpoint && !split_endpoint(endpoint, &scheme, &host))
        return store_fail(
            -EINVAL, "endpoint \"%.200s\" is not of the form http[s]://HOST[:PORT]", endpoint);
    if (!endpoint) {
        buffer_append_string(&scheme, "https://");
        buffer_printf(&host, "s3.%s.amazonaws.com%s", b->region,
            strncmp(b->region, "cn-", 3) == 0 ? ".cn" : "");
    }
    // A dot in the bucket's name would leave AWS's wildcard certificate.
    bool in_host = options->virtual_host || (!endpoint && strchr(b->name, '.') == NULL);
    b->base_path = in_host ? memory_string("") : memory_printf("/%s", b->name);
    b->authority = in_host ? memory_printf("%s.%s", b->name, buffer_string(&host))
                           : memory_string(buffer_string(&host));
    b->base_url = memory_printf("%s%s", buffer_string(&scheme), b->authority);
    return 0;
}

static void
set_up(struct s3_store *ss, const struct remote_store_options *options)
{
    const struct http_client_options http = {
        .ca_file = options->ca_file,
        .connections = options->connections ? options->connections : DEFAULT_CONNECTIONS,
        .timeout_ms = options->timeout_ms ? options->timeout_ms : DEFAULT_TIMEOUT_MS,
        .connect_timeout_ms = options->timeout_ms && options->timeout_ms < CONNECT_TIMEOUT_MS
                                  ? options->timeout_ms
                                  : CONNECT_TIMEOUT_MS,
    };
    ss->bucket.http = http_client_new(&http);
    const struct s3_credential_options credentials = {
        .http = ss->bucket.http, .profile = options->profile, .region = ss->bucket.region};
    ss->bucket.credentials = s3_credential_chain_new(&credentials);
    ss->multipart_bytes =
        options->multipart_bytes ? options->multipart_bytes : DEFAULT_MULTIPART_BYTES;
}

int
s3_store_open(const char *bucket, const char *prefix, const struct remote_store_options *options,
    struct remote_store **store_out)
{
    *store_out = NULL;
    struct s3_store *ss = memory_alloc_zero(sizeof(*ss));
    ss->base.ops = &s3_store_ops;
    ss->bucket.counters = &ss->base;
    ss->bucket.name = memory_string(bucket);
    ss->prefix = prefix[0] ? memory_printf("%s/", prefix) : memory_string("");
    ss->bucket.region = options->region ? memory_string(options->region)
                                        : s3_region_from_environment(options->profile);
    if (!ss->bucket.region)
        ss->bucket.region = memory_string(DEFAULT_REGION);
    int rc = 0;
    if (!region_is_good(ss->bucket.region))
        rc = store_fail(-EINVAL, "\"%.100s\" is no region", ss->bucket.region);
    if (rc == 0)
        rc = set_address(&ss->bucket, options);
    if (rc == 0)
        set_up(ss, options);
    if (rc < 0) {
        s3_store_close(&ss->base);
        return rc;
    }
    *store_out = &ss->base;
    return 0;
}
