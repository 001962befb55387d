// SPDX-License-Identifier: Apache-2.0
// An HTTP server on 127.0.0.1 that plays a script: the n-th request that arrives, on whichever
// connection, gets the n-th answer. One thread serves all connections.
#ifndef CKPTFS_TESTS_MOCK_HTTP_H
#define CKPTFS_TESTS_MOCK_HTTP_H

#include <stdbool.h>
#include <stddef.h>

enum mock_end {
    MOCK_KEEP,  // the connection stays open
    MOCK_CLOSE, // it is closed after the answer
    MOCK_RESET, // it is reset after the answer
    MOCK_STALL, // nothing more comes, and it stays open
};

struct mock_request {
    char *method;
    char *target;
    char *head; // the request line and the headers as they came
    char *body;
    size_t body_length;
    unsigned connection; // counted from 1
};

struct mock_http;

struct mock_http *mock_http_start(void);
// Ends the server; every answer of the script must have been used.
void mock_http_stop(struct mock_http *m);
// "http://127.0.0.1:PORT"
const char *mock_http_url(const struct mock_http *m);

// Adds raw bytes as the next answer ("" with MOCK_CLOSE: none).
void mock_http_raw(struct mock_http *m, const char *bytes, size_t length, enum mock_end end);
// Adds an answer with this status line rest ("200 OK"), further header lines (each ending in \r\n,
// or "") and a body; Content-Length is added.
void mock_http_answer(
    struct mock_http *m, const char *status, const char *headers, const char *body);

// How many requests came, and the n-th of them from 0 (which must have come).
size_t mock_http_count(struct mock_http *m);
const struct mock_request *mock_http_request(struct mock_http *m, size_t n);
// The value of a request's header (any case) in a new string, or NULL.
char *mock_request_header(const struct mock_request *r, const char *name);

#endif
