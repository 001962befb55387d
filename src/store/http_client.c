// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
// The only file that knows libcurl. Each handle is an easy handle in a multi handle of its own: the
// multi handle keeps the connections, and lets this file wait in slices, so that deadlines and
// cancellation do not depend on how often libcurl calls back.
#include "store/http_client.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/memory.h"
#include "store/store_internal.h"

#define WAIT_SLICE_MS     100
#define HEADERS_MAX_BYTES (64u * 1024)
#define EXPECT_FROM_BYTES (1u << 20)
#define SECRET_MIN_BYTES  4  // to look for less would blacken whole words
#define KEPT_CONNECTIONS  4L // per handle: the store, and now and then a source of credentials

struct handle {
    struct list_node node;
    CURL *easy;
    CURLM *multi;
};

struct http_client {
    char *ca_file;
    unsigned connections;
    uint64_t timeout_ms;
    uint64_t connect_timeout_ms;

    // Protects all below.
    struct lock lock;
    struct condition freed;
    struct list_node idle;
    unsigned in_use;
    unsigned foreground_waiting;
};

// One request under way.
struct transfer {
    const struct http_request *request;
    struct http_response *response;
    const struct remote_call *call;
    struct handle *handle;
    uint64_t begin_ms;
    uint64_t idle_ms;  // fails after so long without progress
    uint64_t sent;     // of the body
    uint64_t received; // of a 2xx body
    bool is_cut;       // an error's body was longer than we keep
    int failure;       // of a callback; the text is set
    char text[CURL_ERROR_SIZE];
};

static void
require(bool ok)
{
    if (!ok)
        abort();
}

static void
initialise_library(void)
{
    require(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
}

// ---- handles ------------------------------------------------------------------------------------

struct http_client *
http_client_new(const struct http_client_options *options)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    require(pthread_once(&once, initialise_library) == 0);
    struct http_client *c = memory_alloc_zero(sizeof(*c));
    c->ca_file = options->ca_file ? memory_string(options->ca_file) : NULL;
    c->connections = options->connections > 0 ? options->connections : 1;
    c->timeout_ms = options->timeout_ms;
    c->connect_timeout_ms = options->connect_timeout_ms;
    lock_init(&c->lock, "http_client", LOCK_RANK_STORE);
    condition_init(&c->freed);
    list_init(&c->idle);
    return c;
}

static void
handle_free(struct handle *h)
{
    curl_easy_cleanup(h->easy);
    curl_multi_cleanup(h->multi);
    free(h);
}

void
http_client_free(struct http_client *c)
{
    if (!c)
        return;
    assert(c->in_use == 0);
    for (struct list_node *node; (node = list_take_first(&c->idle));)
        handle_free(CONTAINER_OF(node, struct handle, node));
    condition_destroy(&c->freed);
    lock_destroy(&c->lock);
    free(c->ca_file);
    free(c);
}

static bool
may_take_locked(const struct http_client *c, bool background)
{
    if (!background)
        return c->in_use < c->connections;
    unsigned share = c->connections > 1 ? c->connections - 1 : 1;
    return c->foreground_waiting == 0 && c->in_use < share;
}

// Waits for a free handle. The wait is in slices because cancellation is polled.
static int
take_handle(struct http_client *c, const struct remote_call *call, const struct http_request *r,
    struct handle **handle_out)
{
    bool background = remote_call_gives_way(call);
    int rc = 0;
    lock_take(&c->lock);
    c->foreground_waiting += !background;
    while (rc == 0 && !may_take_locked(c, background)) {
        condition_wait_until(&c->freed, &c->lock, clock_monotonic_ms() + WAIT_SLICE_MS);
        rc = store_check_call(call, r->method, "(waiting for a connection)");
    }
    c->foreground_waiting -= !background;
    struct list_node *node = NULL;
    if (rc == 0) {
        c->in_use++;
        node = list_take_first(&c->idle);
    }
    lock_release(&c->lock);
    if (rc < 0)
        return rc;
    struct handle *h = node ? CONTAINER_OF(node, struct handle, node) : NULL;
    if (!h) {
        h = memory_alloc_zero(sizeof(*h));
        h->easy = curl_easy_init();
        h->multi = curl_multi_init();
        require(h->easy && h->multi);
        curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, KEPT_CONNECTIONS);
    }
    *handle_out = h;
    return 0;
}

static void
give_handle(struct http_client *c, struct handle *h)
{
    lock_take(&c->lock);
    // The one used last has the warmest connection.
    list_prepend(&c->idle, &h->node);
    c->in_use--;
    condition_broadcast(&c->freed);
    lock_release(&c->lock);
}

// ---- callbacks ----------------------------------------------------------------------------------

static size_t
on_send(char *out, size_t size, size_t count, void *p)
{
    struct transfer *t = p;
    const struct http_request *r = t->request;
    uint64_t left = r->body_length - t->sent;
    size_t n = size * count < left ? size * count : (size_t)left;
    if (n == 0)
        return 0;
    t->failure = store_source_read(r->body, r->body_at + t->sent, out, n);
    if (t->failure < 0)
        return CURL_READFUNC_ABORT;
    t->sent += n;
    return n;
}

static int
on_seek(void *p, curl_off_t offset, int origin)
{
    struct transfer *t = p;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > t->request->body_length)
        return CURL_SEEKFUNC_FAIL;
    t->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

static long
status_now(const struct transfer *t)
{
    long status = 0;
    curl_easy_getinfo(t->handle->easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

// Makes room in one step where the length is known and believable.
static void
reserve_for_body(struct transfer *t, struct buffer *out)
{
    curl_off_t length = -1;
    curl_easy_getinfo(t->handle->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (length > 0 && (uint64_t)length <= t->request->limit)
        buffer_reserve(out, (size_t)length + 1);
}

static size_t
on_receive(char *bytes, size_t size, size_t count, void *p)
{
    struct transfer *t = p;
    size_t n = size * count;
    if (status_now(t) / 100 != 2) {
        struct buffer *body = &t->response->body;
        size_t room = HTTP_ERROR_BODY_BYTES - body->length;
        buffer_append(body, bytes, n < room ? n : room);
        t->is_cut |= n > room;
        return t->is_cut ? 0 : n;
    }
    struct buffer *out = t->request->sink ? t->request->sink : &t->response->body;
    if (n > t->request->limit - t->received) {
        t->failure = store_fail(-EBADMSG, "the server sent more than the %llu bytes expected",
            (unsigned long long)t->request->limit);
        return 0;
    }
    if (t->received == 0)
        reserve_for_body(t, out);
    buffer_append(out, bytes, n);
    t->received += n;
    return n;
}

static size_t
on_header(char *line, size_t size, size_t count, void *p)
{
    struct transfer *t = p;
    struct buffer *out = &t->response->headers;
    size_t n = size * count;
    if (n > 5 && memcmp(line, "HTTP/", 5) == 0) {
        buffer_clear(out); // the lines before were an interim answer
        return n;
    }
    const char *colon = memchr(line, ':', n);
    if (!colon)
        return n;
    if (out->length + n > HEADERS_MAX_BYTES) {
        t->failure =
            store_fail(-EIO, "the server sent more than %u bytes of headers", HEADERS_MAX_BYTES);
        return 0;
    }
    for (const char *q = line; q < colon; q++)
        buffer_append_u8(out, (uint8_t)tolower((unsigned char)*q));
    buffer_append_u8(out, 0);
    const char *begin = colon + 1;
    const char *end = line + n;
    while (begin < end && isspace((unsigned char)*begin))
        begin++;
    while (end > begin && isspace((unsigned char)end[-1]))
        end--;
    for (; begin < end; begin++)
        buffer_append_u8(out, *begin ? (uint8_t)*begin : '?');
    buffer_append_u8(out, 0);
    return n;
}

// libcurl sends a request a second time by itself when a kept connection turns out to be dead. For
// a conditional create that matters: the first sending may have worked.
static int
on_debug(CURL *easy UNUSED, curl_infotype type, char *data, size_t n, void *p)
{
    struct transfer *t = p;
    size_t method = strlen(t->request->method);
    if (type == CURLINFO_HEADER_OUT && n > method && data[method] == ' ' &&
        memcmp(data, t->request->method, method) == 0)
        t->response->sends++;
    return 0;
}

// ---- one request --------------------------------------------------------------------------------

static void
append_line(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);
    require(longer != NULL);
    *list = longer;
}

static int
make_headers(const struct http_request *r, struct curl_slist **list_out)
{
    *list_out = NULL;
    for (size_t i = 0; i < r->header_count; i++) {
        const struct s3_pair *h = &r->headers[i];
        if (strpbrk(h->value, "\r\n")) {
            curl_slist_free_all(*list_out);
            *list_out = NULL;
            return store_fail(-EIO, "the value of header %s holds a line break", h->name);
        }
        CLEANUP(memory_free_auto) char *line = memory_printf("%s: %s", h->name, h->value);
        append_line(list_out, line);
    }
    // A refusal before a large body is sent is worth a round trip; for a small one it is not, and
    // libcurl would always ask.
    append_line(list_out, r->body_length >= EXPECT_FROM_BYTES ? "Expect: 100-continue" : "Expect:");
    return 0;
}

static void
set_security_options(const struct http_client *c, CURL *e)
{
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(e, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
#endif
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(e, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    curl_easy_setopt(e, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    if (c->ca_file)
        curl_easy_setopt(e, CURLOPT_CAINFO, c->ca_file);
}

static void
set_body_options(struct transfer *t, CURL *e)
{
    const struct http_request *r = t->request;
    if (strcmp(r->method, "HEAD") == 0) {
        curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    } else if (strcmp(r->method, "PUT") == 0 || strcmp(r->method, "POST") == 0) {
        curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->body_length);
        curl_easy_setopt(e, CURLOPT_READFUNCTION, on_send);
        curl_easy_setopt(e, CURLOPT_READDATA, t);
        curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(e, CURLOPT_SEEKDATA, t);
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, r->method);
    } else {
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, r->method);
    }
}

static void
set_options(const struct http_client *c, struct transfer *t, struct curl_slist *headers)
{
    CURL *e = t->handle->easy;
    uint64_t connect_ms = c->connect_timeout_ms ? c->connect_timeout_ms : t->idle_ms;
    curl_easy_reset(e);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_URL, t->request->url);
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_USERAGENT, "ckptfs");
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->text);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 256L * 1024);
    curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_receive);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(e, CURLOPT_VERBOSE, 1L); // for on_debug; nothing is printed
    curl_easy_setopt(e, CURLOPT_DEBUGFUNCTION, on_debug);
    curl_easy_setopt(e, CURLOPT_DEBUGDATA, t);
    if (t->request->direct)
        curl_easy_setopt(e, CURLOPT_PROXY, "");
    set_security_options(c, e);
    set_body_options(t, e);
}

static uint64_t
progress_of(const struct transfer *t)
{
    curl_off_t down = 0;
    curl_off_t up = 0;
    curl_easy_getinfo(t->handle->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
    curl_easy_getinfo(t->handle->easy, CURLINFO_SIZE_UPLOAD_T, &up);
    return (uint64_t)down + (uint64_t)up + t->response->headers.length;
}

// Runs the transfer to its end, or until it must stop: then the reason.
static int
run(struct transfer *t, CURLcode *code_out)
{
    CURLM *multi = t->handle->multi;
    uint64_t progress = 0;
    uint64_t moved_ms = t->begin_ms;
    *code_out = CURLE_FAILED_INIT;
    for (int running = 1;;) {
        if (curl_multi_perform(multi, &running) != CURLM_OK)
            return store_fail(-EIO, "libcurl failed");
        if (running == 0)
            break;
        int rc = store_check_call(t->call, t->request->method, t->request->url);
        if (rc < 0)
            return rc;
        uint64_t now = clock_monotonic_ms();
        uint64_t progress_now = progress_of(t);
        if (progress_now != progress) {
            progress = progress_now;
            moved_ms = now;
        }
        if (now - moved_ms >= t->idle_ms)
            return store_fail(
                -EAGAIN, "no byte came or went for %.1f s", (double)(now - moved_ms) / 1000);
        if (t->request->timeout_ms && now - t->begin_ms >= t->request->timeout_ms)
            return store_fail(-EAGAIN, "no answer in %.1f s", (double)(now - t->begin_ms) / 1000);
        uint64_t slice = t->idle_ms < WAIT_SLICE_MS ? t->idle_ms : WAIT_SLICE_MS;
        if (curl_multi_poll(multi, NULL, 0, (int)slice, NULL) != CURLM_OK)
            return store_fail(-EIO, "libcurl failed");
    }
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(multi, &left));)
        if (message->msg == CURLMSG_DONE)
            *code_out = message->data.result;
    return 0;
}

static int
class_of(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SEND_FAIL_REWIND:
        return -EAGAIN;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL: // "HTTP/0.9 when not allowed"
        return -EPROTO;
    default:
        return -EIO;
    }
}

// ---- failures that no retry can mend ------------------------------------------------------------

// Whether the name servers say that there is no such host, and not that they cannot be asked.
// libcurl does not tell the two apart. This waits as long as the resolver likes.
static bool
has_no_host(const char *url)
{
    CURLU *parts = curl_url();
    char *host = NULL;
    struct addrinfo *found = NULL;
    int rc = EAI_AGAIN;
    if (parts && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK)
        rc = getaddrinfo(host, NULL, NULL, &found);
    if (rc == 0)
        freeaddrinfo(found);
    curl_free(host);
    curl_url_cleanup(parts);
    return rc == EAI_NONAME || rc == EAI_NODATA;
}

// Whether the peer answered the beginning of TLS with something else. Only the words of the TLS
// library tell that from a connection that broke.
static bool
speaks_no_tls(const char *text)
{
    static const char *const words[] = {"wrong version number", "packet length too long",
        "unexpected TLS packet", "unknown protocol", "unsupported protocol",
        "alert protocol version", "http request", NULL};
    for (size_t i = 0; words[i]; i++)
        if (strstr(text, words[i]))
            return true;
    return false;
}

// Advice for the user beside libcurl's words; "" when they are enough. May correct the class.
static const char *
explain(const struct transfer *t, CURLcode code, const char *text, int *class)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        if (!t->call->fail_fast || !has_no_host(t->request->url))
            return "";
        *class = -EPROTO;
        return " (the name servers know no such host)";
    case CURLE_SSL_CONNECT_ERROR:
        if (!speaks_no_tls(text))
            return "";
        *class = -EPROTO;
        return " (what listens there does not speak https; for a server without it the endpoint "
               "begins with http://)";
    case CURLE_SSL_CACERT_BADFILE:
        return " (the file that the ca_file option names must hold certificates in PEM form)";
    case CURLE_PEER_FAILED_VERIFICATION:
        return " (for a private authority give its certificate with the ca_file option)";
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return " (what listens there does not speak http; perhaps the endpoint begins with "
               "https://, or has another port)";
    default:
        return "";
    }
}

static int
judge(struct transfer *t, CURLcode code)
{
    t->response->status = (int)status_now(t);
    if (t->failure < 0)
        return t->failure;
    if (code == CURLE_OK)
        return 0;
    // Of an error the status and the beginning of the body are enough.
    bool is_error_answer = t->response->status >= 300;
    if (is_error_answer && (t->is_cut || code == CURLE_PARTIAL_FILE || code == CURLE_SEND_ERROR ||
                               code == CURLE_RECV_ERROR))
        return 0;
    BUFFER_AUTO text = {0};
    const char *words = t->text[0] ? t->text : curl_easy_strerror(code);
    store_append_printable(&text, words, strlen(words), sizeof(t->text));
    int class = class_of(code);
    const char *more = explain(t, code, buffer_string(&text), &class);
    return store_fail(class, "%s%s%s",
        code == CURLE_PEER_FAILED_VERIFICATION ? "the server's certificate was not accepted: " : "",
        buffer_string(&text), more);
}

int
http_client_perform(
    struct http_client *c, const struct http_request *request, struct http_response *response_out)
{
    static const struct remote_call no_limits;
    *response_out = (struct http_response){0};
    struct transfer t = {
        .request = request,
        .response = response_out,
        .call = request->call ? request->call : &no_limits,
        .idle_ms = c->timeout_ms,
    };
    struct curl_slist *headers;
    int rc = make_headers(request, &headers);
    if (rc == 0)
        rc = take_handle(c, t.call, request, &t.handle);
    if (rc < 0) {
        curl_slist_free_all(headers);
        return rc;
    }
    CURLcode code;
    t.begin_ms = clock_monotonic_ms();
    set_options(c, &t, headers);
    require(curl_multi_add_handle(t.handle->multi, t.handle->easy) == CURLM_OK);
    rc = run(&t, &code);
    if (rc == 0)
        rc = judge(&t, code);
    curl_multi_remove_handle(t.handle->multi, t.handle->easy);
    curl_easy_reset(t.handle->easy); // it pointed at this stack
    curl_slist_free_all(headers);
    give_handle(c, t.handle);
    return rc;
}

// ---- the answer ---------------------------------------------------------------------------------

const char *
http_response_header(const struct http_response *response, const char *name)
{
    const char *found = NULL;
    const char *p = (const char *)response->headers.data;
    const char *end = p + response->headers.length;
    while (p && p < end) {
        const char *value = p + strlen(p) + 1;
        if (strcmp(p, name) == 0)
            found = value;
        p = value + strlen(value) + 1;
    }
    return found;
}

void
http_response_redact(struct http_response *response, const char *secret)
{
    struct buffer *body = &response->body;
    size_t n = secret ? strlen(secret) : 0;
    if (n < SECRET_MIN_BYTES)
        return;
    uint8_t *p = body->data;
    size_t left = body->length;
    for (uint8_t *hit; left >= n && (hit = memmem(p, left, secret, n)); p = hit + n) {
        memset(hit, '*', n);
        left = body->length - (size_t)(hit + n - body->data);
    }
}

void
http_response_free(struct http_response *response)
{
    buffer_free(&response->headers);
    buffer_free(&response->body);
}
