// SPDX-License-Identifier: Apache-2.0
// Listings (ListObjectsV2). This file checks answers: keys out of order would break callers that
// resume.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "platform/memory.h"
#include "store/s3_store_internal.h"
#include "store/store_internal.h"

#define EMPTY_PAGES_MAX 100

// One page of keys after `after` (whole keys); the parsed page is to be freed.
static int
list_page(struct s3_store *ss, const char *prefix, const char *after, const char *token,
    size_t count, struct s3_list_page *page_out, const struct remote_call *call)
{
    char max_keys[16];
    struct s3_pair query[5];
    size_t n = 0;
    snprintf(max_keys, sizeof(max_keys), "%zu", count);
    query[n++] = (struct s3_pair){"list-type", "2"};
    query[n++] = (struct s3_pair){"max-keys", max_keys};
    query[n++] = (struct s3_pair){"prefix", prefix};
    if (token)
        query[n++] = (struct s3_pair){"continuation-token", token};
    else if (after)
        query[n++] = (struct s3_pair){"start-after", after};
    const struct s3_request request = {
        .what = "list",
        .method = "GET",
        .query = query,
        .query_count = n,
        .limit = S3_ANSWER_MAX_BYTES,
        .call = call,
    };
    struct http_response response;
    *page_out = (struct s3_list_page){0};
    int rc = s3_perform(&ss->bucket, &request, &response, NULL);
    if (rc == 0 && s3_parse_list(response.body.data, response.body.length, page_out) < 0)
        rc = store_fail(
            -EBADMSG, "list s3://%s/%s: the answer cannot be understood", ss->bucket.name, prefix);
    http_response_free(&response);
    return rc;
}

// Takes the page's keys over. They must be those asked for, and in order.
static int
take_page(struct s3_store *ss, const char *prefix, struct buffer *last,
    const struct s3_list_page *page, size_t limit, struct remote_listing *out)
{
    size_t skip = strlen(ss->prefix);
    for (size_t i = 0; i < page->listing.count; i++) {
        const char *key = page->listing.entries[i].key;
        if (out->count == limit) {
            out->more = true;
            return 0;
        }
        if (strncmp(key, prefix, strlen(prefix)) != 0 ||
            (last->length > 0 && strcmp(key, buffer_string(last)) <= 0))
            return store_fail(-EBADMSG, "list s3://%s/%s: the keys that came are not in order",
                ss->bucket.name, prefix);
        store_listing_append(out, key + skip, strlen(key + skip), page->listing.entries[i].size);
        buffer_clear(last);
        buffer_append_string(last, key);
    }
    out->more = page->listing.more;
    return 0;
}

int
s3_list(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *listing_out, const struct remote_call *call)
{
    struct s3_store *ss = s3_store_of(s);
    CLEANUP(memory_free_auto) char *full = s3_full_key(ss, prefix);
    BUFFER_AUTO last = {0}; // the whole key up to which the listing has come
    BUFFER_AUTO token = {0};
    if (!full)
        return -EIO;
    if (after && *after) {
        CLEANUP(memory_free_auto) char *start = s3_full_key(ss, after);
        if (!start)
            return -EIO;
        buffer_append_string(&last, start);
    }
    unsigned empty_pages = 0;
    int rc = 0;
    do {
        struct s3_list_page page;
        size_t want =
            limit - listing_out->count < S3_PAGE_MAX ? limit - listing_out->count : S3_PAGE_MAX;
        size_t before = listing_out->count;
        rc = list_page(ss, full, last.length > 0 ? buffer_string(&last) : NULL,
            token.length > 0 ? buffer_string(&token) : NULL, want, &page, call);
        if (rc == 0)
            rc = take_page(ss, full, &last, &page, limit, listing_out);
        buffer_clear(&token);
        buffer_append(&token, page.token.data, page.token.length);
        s3_list_page_free(&page);
        // A server may look through much that does not match, but not for ever.
        empty_pages = listing_out->count > before ? 0 : empty_pages + 1;
        bool is_stuck = empty_pages > EMPTY_PAGES_MAX || (empty_pages > 0 && token.length == 0);
        if (rc == 0 && listing_out->more && is_stuck)
            rc = store_fail(-EBADMSG, "list s3://%s/%s: empty pages and no way to go on",
                ss->bucket.name, full);
    } while (rc == 0 && listing_out->more && listing_out->count < limit);
    return rc;
}
