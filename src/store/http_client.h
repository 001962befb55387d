// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 requests over kept connections. The client verifies certificates, follows no redirects,
// and takes a proxy from the environment. Any thread; a call blocks its thread and ends soon (a
// tenth of a second) after its deadline or cancellation.
#ifndef CKPTFS_STORE_HTTP_CLIENT_H
#define CKPTFS_STORE_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "store/remote_store.h"
#include "store/s3_sign.h"

// Bytes that the client keeps of an answer other than 2xx.
#define HTTP_ERROR_BODY_BYTES (64u * 1024)

struct http_client;

struct http_client_options {
    const char *ca_file;         // NULL: the system's
    unsigned connections;        // requests at once; further ones wait
    uint64_t timeout_ms;         // no byte either way for this long fails the request
    uint64_t connect_timeout_ms; // 0: timeout_ms
};

struct http_request {
    const char *method;
    const char *url;
    const struct s3_pair *headers;
    size_t header_count;
    const struct remote_source *body; // NULL: none
    uint64_t body_at;                 // the part of `body` that is sent
    uint64_t body_length;
    struct buffer *sink; // where the bytes of a 2xx answer are appended; NULL: the response's body
    uint64_t limit;      // of the bytes of a 2xx answer
    bool direct;         // no proxy
    uint64_t timeout_ms; // of the whole request; 0: none
    const struct remote_call *call; // may be NULL
};

struct http_response {
    int status;
    struct buffer headers; // name NUL value NUL ...; names in lower case
    struct buffer body;
    unsigned sends; // of the request: a kept connection may turn out to be dead
};

struct http_client *http_client_new(const struct http_client_options *options);
// No call may be under way.
void http_client_free(struct http_client *client);

// 0 when an answer came, whatever its status. Else, with a text: -EAGAIN (connection), -ECANCELED,
// -ETIMEDOUT (deadline), -EBADMSG (more bytes than `limit`; or the source could not be read), -EIO.
// The caller frees the response in any case.
MUST_CHECK int http_client_perform(struct http_client *client, const struct http_request *request,
    struct http_response *response_out);
// The last value of the header (lower-case name), or NULL.
const char *http_response_header(const struct http_response *response, const char *name);
// Overwrites each copy of the secret (NULL is fine) in the body: a server may send back the
// request, and its words go into texts.
void http_response_redact(struct http_response *response, const char *secret);
void http_response_free(struct http_response *response);

#endif
