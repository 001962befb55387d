// SPDX-License-Identifier: Apache-2.0
// Deletions: one by DELETE, several by DeleteObjects in batches.
#include <errno.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/memory.h"
#include "store/s3_store_internal.h"
#include "store/store_internal.h"

static int
delete_one(struct s3_store *ss, const char *key, const struct remote_call *call)
{
    const struct s3_request request = {
        .what = "delete",
        .method = "DELETE",
        .key = key,
        .limit = S3_ANSWER_MAX_BYTES,
        .call = call,
    };
    struct http_response response;
    int rc = s3_perform(&ss->bucket, &request, &response, NULL);
    if (rc == 0)
        rc = s3_check_wordless("delete", key, &response);
    http_response_free(&response);
    return rc == -ENOENT ? 0 : rc;
}

static void
append_xml(struct buffer *out, const char *text)
{
    for (; *text; text++) {
        const char *special = *text == '&'   ? "&amp;"
                              : *text == '<' ? "&lt;"
                              : *text == '>' ? "&gt;"
                              : *text == '"' ? "&quot;"
                                             : NULL;
        if (special)
            buffer_append_string(out, special);
        else
            buffer_append_u8(out, (uint8_t)*text);
    }
}

static int
send_deletions(struct s3_store *ss, struct buffer *xml, const struct remote_call *call)
{
    BUFFER_AUTO md5 = {0};
    BUFFER_AUTO key = {0};
    uint8_t digest[16];
    struct remote_source body = {.data = xml->data, .fd = -1, .length = xml->length};
    sha256_of(xml->data, xml->length, &body.hash);
    md5_of(xml->data, xml->length, digest);
    s3_append_base64(&md5, digest, sizeof(digest));
    const struct s3_pair query[] = {{"delete", ""}};
    const struct s3_pair headers[] = {
        {"content-md5", buffer_string(&md5)}, {"content-type", "application/xml"}};
    const struct s3_request request = {
        .what = "delete",
        .method = "POST",
        .query = query,
        .query_count = 1,
        .headers = headers,
        .header_count = 2,
        .body = &body,
        .body_length = body.length,
        .body_hash = &body.hash,
        .limit = S3_ANSWER_MAX_BYTES,
        .call = call,
    };
    struct http_response response;
    struct s3_error error;
    size_t count = 0;
    int rc = s3_perform(&ss->bucket, &request, &response, NULL);
    if (rc == 0 &&
        s3_parse_delete(response.body.data, response.body.length, &error, &key, &count) < 0)
        rc =
            store_fail(-EAGAIN, "delete s3://%s: the answer cannot be understood", ss->bucket.name);
    if (rc == 0 && count > 0) {
        struct s3_request one = request;
        one.key = buffer_string(&key);
        rc = s3_refused(&ss->bucket, &one, response.status, &error);
    }
    http_response_free(&response);
    return rc;
}

int
s3_delete(
    struct remote_store *s, const char *const *keys, size_t count, const struct remote_call *call)
{
    struct s3_store *ss = s3_store_of(s);
    if (count == 1) {
        CLEANUP(memory_free_auto) char *full = s3_full_key(ss, keys[0]);
        return full ? delete_one(ss, full, call) : -EIO;
    }
    for (size_t done = 0; done < count;) {
        BUFFER_AUTO xml = {0};
        size_t end = count - done < S3_PAGE_MAX ? count : done + S3_PAGE_MAX;
        buffer_append_string(&xml, "<Delete><Quiet>true</Quiet>");
        for (; done < end; done++) {
            CLEANUP(memory_free_auto) char *full = s3_full_key(ss, keys[done]);
            if (!full)
                return -EIO;
            buffer_append_string(&xml, "<Object><Key>");
            append_xml(&xml, full);
            buffer_append_string(&xml, "</Key></Object>");
        }
        buffer_append_string(&xml, "</Delete>");
        int rc = send_deletions(ss, &xml, call);
        if (rc < 0)
            return rc;
    }
    return 0;
}
