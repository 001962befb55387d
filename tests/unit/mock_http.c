// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "mock_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buffer.h"
#include "platform/lock.h"
#include "platform/memory.h"
#include "platform/thread.h"

#define ANSWERS_MAX     64
#define CONNECTIONS_MAX 32

struct answer {
    char *bytes;
    size_t length;
    enum mock_end end;
};

struct connection {
    int fd; // -1: free
    unsigned number;
    bool is_stalled;
    bool has_continued; // the interim answer to Expect went out
    struct buffer in;
};

struct mock_http {
    int listener;
    int wake[2]; // closing the write end stops the thread
    struct thread thread;
    char *url;
    struct connection connections[CONNECTIONS_MAX];
    unsigned accepted;

    // Protects all below.
    struct lock lock;
    struct answer answers[ANSWERS_MAX];
    size_t answer_count;
    struct mock_request requests[ANSWERS_MAX];
    size_t request_count;
};

static void
require(bool ok)
{
    if (!ok)
        abort();
}

// ---- one connection -----------------------------------------------------------------------------

static void
drop(struct connection *c)
{
    close(c->fd);
    c->fd = -1;
    c->is_stalled = false;
    c->has_continued = false;
    buffer_clear(&c->in);
}

static void
reset(struct connection *c)
{
    struct linger now = {.l_onoff = 1};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    drop(c);
}

static void
send_all(struct connection *c, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return; // the client has gone; its test knows why
        p += sent;
        n -= (size_t)sent;
    }
}

char *
mock_request_header(const struct mock_request *r, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = strstr(r->head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        const char *p = line + 2;
        if (strncasecmp(p, name, n) != 0 || p[n] != ':')
            continue;
        p += n + 1;
        p += strspn(p, " ");
        return memory_printf("%.*s", (int)strcspn(p, "\r"), p);
    }
    return NULL;
}

static void
request_free(struct mock_request *r)
{
    free(r->method);
    free(r->target);
    free(r->head);
    free(r->body);
}

// Takes a whole request from what came; false when there is none yet.
static bool
take_request(struct connection *c, struct mock_request *out)
{
    const char *end = c->in.length ? memmem(c->in.data, c->in.length, "\r\n\r\n", 4) : NULL;
    if (!end)
        return false;
    size_t head = (size_t)(end - (char *)c->in.data) + 4;
    *out = (struct mock_request){.connection = c->number};
    out->head = memory_printf("%.*s", (int)head, (char *)c->in.data);
    char *length = mock_request_header(out, "content-length");
    char *expect = mock_request_header(out, "expect");
    size_t body = length ? strtoull(length, NULL, 10) : 0;
    if (expect && !c->has_continued) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        c->has_continued = true;
        send_all(c, go_on, sizeof(go_on) - 1);
    }
    free(length);
    free(expect);
    if (c->in.length < head + body) {
        free(out->head);
        return false;
    }
    size_t method = strcspn(out->head, " ");
    out->method = memory_printf("%.*s", (int)method, out->head);
    const char *target = out->head + method + 1;
    out->target = memory_printf("%.*s", (int)strcspn(target, " "), target);
    out->body = memory_alloc(body + 1);
    memcpy(out->body, c->in.data + head, body);
    out->body[body] = 0;
    out->body_length = body;
    memmove(c->in.data, c->in.data + head + body, c->in.length - head - body);
    c->in.length -= head + body;
    c->has_continued = false;
    return true;
}

static void
play(struct mock_http *m, struct connection *c, const struct mock_request *r)
{
    lock_take(&m->lock);
    require(m->request_count < ANSWERS_MAX);
    size_t n = m->request_count;
    struct answer a = {0};
    bool has_answer = n < m->answer_count;
    if (has_answer)
        a = m->answers[n];
    m->requests[m->request_count++] = *r;
    lock_release(&m->lock);
    if (!has_answer) {
        fprintf(stderr, "mock server: no answer for %s %s\n", r->method, r->target);
        drop(c);
        return;
    }
    send_all(c, a.bytes, a.length);
    if (a.end == MOCK_CLOSE)
        drop(c);
    else if (a.end == MOCK_RESET)
        reset(c);
    else
        c->is_stalled = a.end == MOCK_STALL;
}

static void
serve(struct mock_http *m, struct connection *c)
{
    char block[65536];
    ssize_t got = recv(c->fd, block, sizeof(block), 0);
    if (got <= 0) {
        drop(c);
        return;
    }
    buffer_append(&c->in, block, (size_t)got);
    struct mock_request r;
    while (c->fd >= 0 && !c->is_stalled && take_request(c, &r))
        play(m, c, &r);
}

static void
take_connection(struct mock_http *m)
{
    int fd = accept4(m->listener, NULL, NULL, SOCK_CLOEXEC);
    for (size_t i = 0; fd >= 0 && i < CONNECTIONS_MAX; i++)
        if (m->connections[i].fd < 0) {
            m->connections[i].fd = fd;
            m->connections[i].number = ++m->accepted;
            return;
        }
    require(fd < 0);
}

static void
run(void *argument)
{
    struct mock_http *m = argument;
    struct pollfd fds[CONNECTIONS_MAX + 2];
    for (;;) {
        fds[0] = (struct pollfd){.fd = m->wake[0], .events = POLLIN};
        fds[1] = (struct pollfd){.fd = m->listener, .events = POLLIN};
        for (size_t i = 0; i < CONNECTIONS_MAX; i++)
            fds[i + 2] = (struct pollfd){.fd = m->connections[i].fd, .events = POLLIN};
        if (poll(fds, CONNECTIONS_MAX + 2, -1) < 0)
            continue;
        if (fds[0].revents)
            break;
        for (size_t i = 0; i < CONNECTIONS_MAX; i++)
            if (fds[i + 2].revents && m->connections[i].fd >= 0)
                serve(m, &m->connections[i]);
        if (fds[1].revents)
            take_connection(m);
    }
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (m->connections[i].fd >= 0)
            drop(&m->connections[i]);
        buffer_free(&m->connections[i].in);
    }
}

// ---- the server ---------------------------------------------------------------------------------

struct mock_http *
mock_http_start(void)
{
    struct mock_http *m = memory_alloc_zero(sizeof(*m));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        m->connections[i].fd = -1;
    lock_init(&m->lock, "mock_http", LOCK_RANK_PLATFORM + 1);
    m->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(m->listener >= 0);
    require(bind(m->listener, (struct sockaddr *)&address, sizeof(address)) == 0);
    require(listen(m->listener, 16) == 0);
    require(getsockname(m->listener, (struct sockaddr *)&address, &length) == 0);
    require(pipe(m->wake) == 0);
    m->url = memory_printf("http://127.0.0.1:%u", ntohs(address.sin_port));
    require(thread_start(&m->thread, "mock_http", run, m) == 0);
    return m;
}

void
mock_http_stop(struct mock_http *m)
{
    close(m->wake[1]);
    thread_join(&m->thread);
    close(m->wake[0]);
    close(m->listener);
    if (m->request_count != m->answer_count) {
        fprintf(stderr, "mock server: %zu requests came for %zu answers\n", m->request_count,
            m->answer_count);
        for (size_t i = 0; i < m->request_count; i++)
            fprintf(stderr, "    %s %s\n", m->requests[i].method, m->requests[i].target);
        abort();
    }
    for (size_t i = 0; i < m->answer_count; i++)
        free(m->answers[i].bytes);
    for (size_t i = 0; i < m->request_count; i++)
        request_free(&m->requests[i]);
    lock_destroy(&m->lock);
    free(m->url);
    free(m);
}

const char *
mock_http_url(const struct mock_http *m)
{
    return m->url;
}

void
mock_http_raw(struct mock_http *m, const char *bytes, size_t length, enum mock_end end)
{
    char *copy = memory_alloc(length);
    memcpy(copy, bytes, length);
    lock_take(&m->lock);
    require(m->answer_count < ANSWERS_MAX);
    m->answers[m->answer_count++] = (struct answer){copy, length, end};
    lock_release(&m->lock);
}

void
mock_http_answer(struct mock_http *m, const char *status, const char *headers, const char *body)
{
    char *text = memory_printf(
        "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n%s", status, strlen(body), headers, body);
    mock_http_raw(m, text, strlen(text), MOCK_KEEP);
    free(text);
}

size_t
mock_http_count(struct mock_http *m)
{
    lock_take(&m->lock);
    size_t count = m->request_count;
    lock_release(&m->lock);
    return count;
}

const struct mock_request *
mock_http_request(struct mock_http *m, size_t n)
{
    lock_take(&m->lock);
    require(n < m->request_count);
    const struct mock_request *r = &m->requests[n];
    lock_release(&m->lock);
    return r;
}
