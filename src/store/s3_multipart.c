// SPDX-License-Identifier: Apache-2.0
// Uploads in parts. The parts' hashes are signed, so the server checks each; the checksum of the
// whole is computed on the way and compared before the parts become an object.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "store/s3_store_internal.h"
#include "store/store_internal.h"

#define PARTS_MAX        10000u
#define PART_MIN_BYTES   (5ull << 20) // of all parts but the last
#define PART_TRIES       3
#define ABORT_TIMEOUT_MS (10ull * 1000)
#define READ_BYTES       (256u * 1024)

struct upload {
    struct s3_store *ss;
    const char *key;
    const struct remote_source *source;
    const struct remote_call *call;
    struct buffer id;
    struct buffer parts; // XML of the parts that are there
    struct store_check whole;
};

static int
begin_upload(struct upload *u)
{
    const struct s3_pair query[] = {{"uploads", ""}};
    const struct s3_request request = {
        .what = "begin upload",
        .method = "POST",
        .key = u->key,
        .query = query,
        .query_count = 1,
        .limit = S3_ANSWER_MAX_BYTES,
        .call = u->call,
    };
    struct http_response response;
    int rc = s3_perform(&u->ss->bucket, &request, &response, NULL);
    if (rc == 0 && s3_parse_upload_id(response.body.data, response.body.length, &u->id) < 0)
        rc = store_fail(-EAGAIN, "begin upload %s: an answer without an upload id", u->key);
    http_response_free(&response);
    return rc;
}

// The hash of a part, and the whole's checksum carried on.
static int
hash_part(struct upload *u, uint64_t at, uint64_t length, struct sha256 *hash_out)
{
    CLEANUP(memory_free_auto) uint8_t *block = memory_alloc(READ_BYTES);
    struct sha256_stream *part = sha256_stream_new();
    int rc = 0;
    for (uint64_t done = 0; rc == 0 && done < length;) {
        size_t n = length - done < READ_BYTES ? (size_t)(length - done) : READ_BYTES;
        rc = store_source_read(u->source, at + done, block, n);
        if (rc == 0) {
            sha256_stream_update(part, block, n);
            store_check_update(&u->whole, block, n);
        }
        done += n;
    }
    sha256_stream_finish(part, hash_out);
    sha256_stream_free(part);
    return rc;
}

static int
send_part(
    struct upload *u, unsigned number, uint64_t at, uint64_t length, const struct sha256 *hash)
{
    CLEANUP(memory_free_auto) char *text = memory_printf("%u", number);
    const struct s3_pair query[] = {
        {"partNumber", text},
        {"uploadId", buffer_string(&u->id)},
    };
    const struct s3_request request = {
        .what = "put part of",
        .method = "PUT",
        .key = u->key,
        .query = query,
        .query_count = 2,
        .body = u->source,
        .body_at = at,
        .body_length = length,
        .body_hash = hash,
        .limit = S3_ANSWER_MAX_BYTES,
        .call = u->call,
    };
    struct http_response response;
    int rc = s3_perform(&u->ss->bucket, &request, &response, NULL);
    if (rc == 0)
        rc = s3_check_stored(request.what, u->key, &response, hash);
    if (rc == 0)
        buffer_printf(&u->parts, "<Part><PartNumber>%u</PartNumber><ETag>%s</ETag></Part>", number,
            http_response_header(&response, "etag"));
    http_response_free(&response);
    return rc;
}

static int
put_part(struct upload *u, unsigned number, uint64_t at, uint64_t length)
{
    struct sha256 hash;
    int rc = hash_part(u, at, length, &hash);
    if (rc < 0)
        return rc;
    // Repeating a part at once saves beginning the whole upload anew; waiting is for our caller.
    for (int tries = 0; tries < PART_TRIES; tries++) {
        rc = send_part(u, number, at, length, &hash);
        if (rc != -EAGAIN && rc != -EBADMSG)
            break;
    }
    return rc == -EBADMSG ? -EAGAIN : rc;
}

static int
put_parts(struct upload *u)
{
    uint64_t length = u->source->length;
    uint64_t part_bytes = u->ss->multipart_bytes;
    if (part_bytes < PART_MIN_BYTES)
        part_bytes = PART_MIN_BYTES;
    if (length / part_bytes >= PARTS_MAX)
        part_bytes = length / PARTS_MAX + 1;
    unsigned number = 0;
    for (uint64_t at = 0; at < length;) {
        uint64_t n = length - at < part_bytes ? length - at : part_bytes;
        int rc = put_part(u, ++number, at, n);
        if (rc < 0)
            return rc;
        at += n;
    }
    return store_check_finish(&u->whole, u->key);
}

static int
complete_upload(struct upload *u)
{
    BUFFER_AUTO xml = {0};
    buffer_printf(
        &xml, "<CompleteMultipartUpload>%s</CompleteMultipartUpload>", buffer_string(&u->parts));
    struct remote_source body = {.data = xml.data, .fd = -1, .length = xml.length};
    sha256_of(xml.data, xml.length, &body.hash);
    const struct s3_pair query[] = {{"uploadId", buffer_string(&u->id)}};
    const struct s3_request request = {
        .what = "complete upload",
        .method = "POST",
        .key = u->key,
        .query = query,
        .query_count = 1,
        .body = &body,
        .body_length = body.length,
        .body_hash = &body.hash,
        .limit = S3_ANSWER_MAX_BYTES,
        .call = u->call,
    };
    struct http_response response;
    int rc = s3_perform(&u->ss->bucket, &request, &response, NULL);
    if (rc == 0 && s3_parse_complete(response.body.data, response.body.length) < 0)
        rc = store_fail(-EAGAIN, "complete upload %s: an answer that says nothing", u->key);
    http_response_free(&response);
    return rc;
}

static void
abort_upload(struct s3_store *ss, const char *key, const char *id)
{
    const struct s3_pair query[] = {{"uploadId", id}};
    // Also for a call that was cancelled: abandoned parts cost money.
    const struct remote_call call = {.deadline_ms = clock_monotonic_ms() + ABORT_TIMEOUT_MS};
    const struct s3_request request = {
        .what = "abort upload",
        .method = "DELETE",
        .key = key,
        .query = query,
        .query_count = 1,
        .limit = S3_ANSWER_MAX_BYTES,
        .call = &call,
    };
    struct http_response response;
    int rc = s3_perform(&ss->bucket, &request, &response, NULL);
    http_response_free(&response);
    if (rc < 0 && rc != -ENOENT)
        log_warning("store.upload_left", "%s", remote_store_error());
}

// That the object has its length: a store that loses a part would show it here.
static int
check_length(struct upload *u)
{
    struct remote_head head;
    int status;
    int rc = s3_head_once(u->ss, u->key, &head, &status, u->call);
    if (rc == 0 && head.size != u->source->length)
        rc = store_fail(-EAGAIN, "put %s: %llu bytes were sent and the object has %llu", u->key,
            (unsigned long long)u->source->length, (unsigned long long)head.size);
    return rc == -ENOENT ? -EAGAIN : rc;
}

int
s3_put_multipart(struct s3_store *ss, const char *key, const struct remote_source *source,
    const struct remote_call *call)
{
    struct upload u = {
        .ss = ss,
        .key = key,
        .source = source,
        .call = call,
    };
    int rc = begin_upload(&u);
    if (rc == 0) {
        store_check_begin(&u.whole, source);
        rc = put_parts(&u);
        if (rc == 0)
            rc = complete_upload(&u);
        if (rc < 0) {
            CLEANUP(memory_free_auto) char *text = memory_string(remote_store_error());
            abort_upload(ss, key, buffer_string(&u.id));
            remote_store_set_error("%s", text);
        }
        store_check_free(&u.whole);
    }
    if (rc == 0)
        rc = check_length(&u);
    buffer_free(&u.id);
    buffer_free(&u.parts);
    return rc;
}

// ---- abandoned uploads --------------------------------------------------------------------------

// One page of ListMultipartUploads.
struct sweep {
    const char *prefix;
    uint64_t age_ms, before_ms;
    size_t seen; // uploads in the page
    size_t count;
    char *keys[S3_PAGE_MAX]; // of those that are old
    char *ids[S3_PAGE_MAX];
    struct buffer last_key, last_id;
};

static void
on_upload(void *context, const char *key, const char *upload_id, uint64_t initiated_ms)
{
    struct sweep *s = context;
    s->seen++;
    buffer_clear(&s->last_key);
    buffer_append_string(&s->last_key, key);
    buffer_clear(&s->last_id);
    buffer_append_string(&s->last_id, upload_id);
    if (s->count == S3_PAGE_MAX || initiated_ms >= s->before_ms ||
        strncmp(key, s->prefix, strlen(s->prefix)) != 0)
        return;
    s->keys[s->count] = memory_string(key);
    s->ids[s->count] = memory_string(upload_id);
    s->count++;
}

static int
parse_uploads(struct s3_store *ss, struct sweep *s, struct http_response *response)
{
    uint64_t now_ms = (uint64_t)((int64_t)clock_wall_ms() + s3_response_skew_ms(response));
    s->before_ms = now_ms > s->age_ms ? now_ms - s->age_ms : 0;
    if (s3_parse_uploads(response->body.data, response->body.length, on_upload, s) == 0)
        return 0;
    return store_fail(-EBADMSG, "list uploads below s3://%s/%s: the answer cannot be understood",
        ss->bucket.name, s->prefix);
}

static int
list_uploads(struct s3_store *ss, struct sweep *s, const struct remote_call *call)
{
    CLEANUP(memory_free_auto) char *key = memory_string(buffer_string(&s->last_key));
    CLEANUP(memory_free_auto) char *id = memory_string(buffer_string(&s->last_id));
    struct s3_pair query[4];
    size_t n = 0;
    if (*key)
        query[n++] = (struct s3_pair){"key-marker", key};
    query[n++] = (struct s3_pair){"prefix", s->prefix};
    if (*key)
        query[n++] = (struct s3_pair){"upload-id-marker", id};
    query[n++] = (struct s3_pair){"uploads", ""};
    const struct s3_request request = {
        .what = "list",
        .method = "GET",
        .query = query,
        .query_count = n,
        .limit = S3_ANSWER_MAX_BYTES,
        .call = call,
    };
    struct http_response response;
    s->seen = s->count = 0;
    int rc = s3_perform(&ss->bucket, &request, &response, NULL);
    if (rc == 0)
        rc = parse_uploads(ss, s, &response);
    http_response_free(&response);
    return rc;
}

static void
abort_listed(struct s3_store *ss, struct sweep *s, bool dry_run)
{
    for (size_t i = 0; i < s->count; i++) {
        if (!dry_run)
            abort_upload(ss, s->keys[i], s->ids[i]);
        free(s->keys[i]);
        free(s->ids[i]);
    }
}

int
s3_sweep_uploads(struct remote_store *store, const char *below, uint64_t age_ms, bool dry_run,
    uint64_t *count_out, const struct remote_call *call)
{
    struct s3_store *ss = s3_store_of(store);
    CLEANUP(memory_free_auto) char *prefix = memory_printf("%s%s", ss->prefix, below);
    CLEANUP(memory_free_auto) struct sweep *s = memory_alloc_zero(sizeof(*s));
    BUFFER_AUTO before = {0};
    int rc;
    s->prefix = prefix;
    s->age_ms = age_ms;
    *count_out = 0;
    do {
        buffer_clear(&before);
        buffer_append(&before, s->last_key.data, s->last_key.length);
        rc = list_uploads(ss, s, call);
        abort_listed(ss, s, dry_run);
        *count_out += s->count;
        // A full page has a next one, unless the server passes over the markers.
    } while (rc == 0 && s->seen >= S3_PAGE_MAX &&
             strcmp(buffer_string(&s->last_key), buffer_string(&before)) > 0);
    buffer_free(&s->last_key);
    buffer_free(&s->last_id);
    return rc;
}
