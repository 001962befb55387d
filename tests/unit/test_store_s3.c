// SPDX-License-Identifier: Apache-2.0
// The S3 store against a server that misbehaves on purpose. What a good server does is checked by
// tests/integration/test_remote_store.c.
#include "store_s3_world.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/thread.h"

// ---- classes of errors --------------------------------------------------------------------------

START_TEST(refusals_are_classed_and_quoted)
{
    static const struct {
        const char *status, *headers, *code;
        int expected;
        const char *words;
    } cases[] = {
        {"500 Oops", "", "InternalError", -EAGAIN, "500 InternalError: the words of the server"},
        {"502 Bad Gateway", "", "", -EAGAIN, "502"},
        {"503 Busy", "", "SlowDown", -EBUSY, "SlowDown"},
        {"503 Unavailable", "", "ServiceUnavailable", -EAGAIN, "503"},
        {"429 Too Many", "", "", -EBUSY, "429"},
        {"400 Bad", "", "RequestTimeout", -EAGAIN, "RequestTimeout"},
        {"409 Conflict", "", "OperationAborted", -EAGAIN, "OperationAborted"},
        {"403 Forbidden", "", "AccessDenied", -EACCES, "get s3://bucket/pre/fix/k"},
        {"403 Forbidden", "", "QuotaExceeded", -ENOSPC, "QuotaExceeded"},
        {"401 Who", "", "", -EACCES, "401"},
        {"404 Not Found", "", "NoSuchKey", -ENOENT, "request R1"},
        {"404 Not Found", "", "NoSuchBucket", -ENXIO, "create-bucket --bucket bucket"},
        {"400 Bad", "", "SomethingNew", -EIO, "SomethingNew"},
        {"412 Failed", "", "PreconditionFailed", -EIO, "412"},
        {"501 No", "", "NotImplemented", -EIO, "501"},
        {"507 Full", "", "", -ENOSPC, "507"},
        {"301 Moved", "x-amz-bucket-region: us-west-2\r\nLocation: http://127.0.0.1:1/\r\n",
            "PermanentRedirect", -EIO, "set region=us-west-2"},
    };
    open_store();
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        answer_error(cases[i].status, cases[i].headers, cases[i].code);
        int rc = get_range(0, 1);
        ck_assert_msg(rc == cases[i].expected, "%s: %d", cases[i].status, rc);
        check_words(cases[i].words);
    }
    mock_http_answer(mock, "400 Bad", "",
        "<Error><Code>AuthorizationHeaderMalformed</Code><Region>us-east-2</Region></Error>");
    ck_assert_int_eq(get_range(0, 1), -EIO);
    check_words("set region=us-east-2");
    // The server's words in a form that is not S3's.
    mock_http_answer(mock, "502 Bad", "", "<html>no\tupstream \x01</html>");
    ck_assert_int_eq(get_range(0, 1), -EAGAIN);
    check_words("<html>no upstream ?</html>");
    ck_assert_uint_eq(store->counters.throttled, 2);
    close_store();
}
END_TEST

START_TEST(huge_error_bodies_are_cut_and_secrets_struck_out)
{
    enum { LENGTH = 3u << 20 };
    static char body[LENGTH + 200];
    open_store();
    int head = snprintf(body, sizeof(body),
        "HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\nyour secret is " SECRET " ", LENGTH);
    memset(body + head, 'x', LENGTH - 60);
    mock_http_raw(mock, body, (size_t)head + LENGTH - 60, MOCK_STALL);
    ck_assert_int_eq(get_range(0, 1), -EAGAIN);
    check_words("your secret is ****");
    ck_assert_ptr_null(strstr(remote_store_error(), SECRET));
    ck_assert_uint_lt(strlen(remote_store_error()), 1000);
    close_store();
}
END_TEST

START_TEST(retrying_gets_over_passing_errors)
{
    static const char cut[] = "HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-9/10\r\n"
                              "Content-Length: 10\r\n\r\n01234";
    open_store();
    const struct retry_policy quick = {
        .base_ms = 1, .cap_ms = 1, .throttled_base_ms = 1, .throttled_cap_ms = 1};
    store = retry_store_wrap(store, &quick, NULL);
    answer_error("500 Oops", "", "InternalError");
    answer_error("503 Busy", "", "SlowDown");
    mock_http_raw(mock, cut, sizeof(cut) - 1, MOCK_CLOSE);
    mock_http_raw(mock, cut, sizeof(cut) - 1, MOCK_RESET);
    mock_http_answer(mock, "206 Partial", "Content-Range: bytes 0-9/10\r\n", "0123456789");
    BUFFER_AUTO out = {0};
    ck_assert_int_eq(remote_store_get_blob(store, "k", 0, 10, &out, NULL), 0);
    ck_assert_str_eq(buffer_string(&out), "0123456789");
    ck_assert_uint_eq(store->counters.retries, 4);
    ck_assert_uint_eq(store->counters.get_requests, 5);
    close_store();
}
END_TEST

// ---- transfers ----------------------------------------------------------------------------------

START_TEST(broken_transfers_yield_nothing)
{
    static const char *const cut[] = {
        "HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10\r\n\r\n01234",
        "HTTP/1.1 206 Partial\r\nContent-Ran", "HTTP/1.1", "garbage\r\n\r\n",
        "HTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01"};
    open_store();
    for (size_t i = 0; i < ARRAY_LENGTH(cut); i++) {
        mock_http_raw(mock, cut[i], strlen(cut[i]), i % 2 ? MOCK_RESET : MOCK_CLOSE);
        int rc = get_range(0, 10);
        // Garbage may be another protocol, which is tried again, too.
        ck_assert_msg(rc == (i == 3 ? -EPROTO : -EAGAIN), "%s: %s", cut[i], remote_store_error());
    }
    close_store();
}
END_TEST

START_TEST(answers_must_be_what_was_asked_for)
{
    static const struct {
        const char *status, *range, *body;
        uint64_t offset, length;
        int expected;
    } cases[] = {
        {"206 P", "Content-Range: bytes 5-9/10\r\n", "56789", 5, 5, 0},
        {"206 P", "Content-Range: bytes 5-9/10\r\n", "56789", 5, 100, 0},
        {"206 P", "Content-Range: bytes 5-9/10\r\n", "56789", 5, UINT64_MAX, 0},
        {"206 P", "Content-Range: bytes 4-8/10\r\n", "45678", 5, 5, -EBADMSG},
        {"206 P", "Content-Range: bytes 5-9/10\r\n", "5678", 5, 5, -EBADMSG},
        {"206 P", "Content-Range: bytes 5-8/10\r\n", "5678", 5, 5, -EBADMSG},
        {"206 P", "Content-Range: bytes 5-9/3\r\n", "56789", 5, 5, -EBADMSG},
        {"206 P", "Content-Range: bytes 5-9/*\r\n", "56789", 5, 5, -EBADMSG},
        {"206 P", "Content-Range: lines 5-9/10\r\n", "56789", 5, 5, -EBADMSG},
        {"206 P", "Content-Range: bytes 5-99999999999999999999/10\r\n", "56789", 5, 5, -EBADMSG},
        {"206 P", "", "56789", 5, 5, -EBADMSG},
        {"206 P", "Content-Range: bytes 5-9/10\r\n", "567890", 5, 5, -EBADMSG},
        {"200 OK", "", "0123456789", 5, 5, -EBADMSG},
        {"200 OK", "", "56789", 5, 5, -EBADMSG},
        {"200 OK", "", "01234", 0, 5, 0},
        {"200 OK", "", "012345", 0, 5, -EBADMSG},
        {"204 None", "", "", 5, 5, -EBADMSG},
        {"416 Range", "", "", 5, 5, -EIO},
        {"416 Range", "", "", 0, 5, 0},
    };
    open_store();
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        mock_http_answer(mock, cases[i].status, cases[i].range, cases[i].body);
        int rc = get_range(cases[i].offset, cases[i].length);
        ck_assert_msg(rc == cases[i].expected, "case %zu: %d: %s", i, rc, remote_store_error());
    }
    char *range = mock_request_header(mock_http_request(mock, 0), "range");
    ck_assert_str_eq(range, "bytes=5-9");
    free(range);
    range = mock_request_header(mock_http_request(mock, 2), "range");
    ck_assert_str_eq(range, "bytes=5-");
    free(range);
    ck_assert_int_eq(get_range(UINT64_MAX - 1, 10), -EIO);
    close_store();
}
END_TEST

START_TEST(stalled_transfers_end)
{
    static const char begun[] = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234";
    mock = mock_http_start();
    const struct remote_store_options options = {.endpoint = mock_http_url(mock), .timeout_ms = 50};
    open_with(&options, "");
    mock_http_raw(mock, begun, sizeof(begun) - 1, MOCK_STALL);
    ck_assert_int_eq(get_range(0, UINT64_MAX), -EAGAIN);
    check_words("no byte came or went");
    mock_http_raw(mock, "", 0, MOCK_STALL);
    ck_assert_int_eq(put_text("x", REMOTE_PUT_OVERWRITE), -EAGAIN);
    close_store();
    open_store();
    const struct remote_call late = {.deadline_ms = clock_monotonic_ms() + 50};
    const struct remote_call canceled = {.is_canceled = when_the_second_came, .argument = mock};
    struct remote_head head;
    mock_http_raw(mock, "", 0, MOCK_STALL);
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, &late), -ETIMEDOUT);
    mock_http_raw(mock, "", 0, MOCK_STALL);
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, &canceled), -ECANCELED);
    close_store();
}
END_TEST

START_TEST(refused_connections_are_worth_retrying)
{
    mock = mock_http_start();
    char *url = memory_string(mock_http_url(mock));
    mock_http_stop(mock);
    const struct remote_store_options options = {.endpoint = url};
    open_with(&options, "");
    ck_assert_int_eq(get_range(0, 1), -EAGAIN);
    check_words(url);
    remote_store_close(store);
    free(url);
}
END_TEST

// ---- what no retry can mend ---------------------------------------------------------------------

// Something on 127.0.0.1 that says its words to one connection, whatever it is asked; without words
// it never answers.
struct other_server {
    int fd;
    uint16_t port;
    const char *words;
    struct thread thread;
};

static void
say_words(void *argument)
{
    struct other_server *o = argument;
    char heard[4096];
    int fd = accept(o->fd, NULL, NULL);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_gt(recv(fd, heard, sizeof(heard), 0), 0);
    ck_assert_int_ge(send(fd, o->words, strlen(o->words), MSG_NOSIGNAL), 0);
    shutdown(fd, SHUT_WR);
    while (recv(fd, heard, sizeof(heard), 0) > 0)
        ;
    close(fd);
}

static void
other_server_start(struct other_server *o, const char *words)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(address);
    o->words = words;
    o->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(o->fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(o->fd, 1), 0);
    ck_assert_int_eq(getsockname(o->fd, (struct sockaddr *)&address, &n), 0);
    o->port = ntohs(address.sin_port);
    if (words)
        ck_assert_int_eq(thread_start(&o->thread, "other", say_words, o), 0);
}

static int
head_in_haste(const char *endpoint, const char *ca_file)
{
    const struct remote_call call = {.fail_fast = true};
    const struct remote_store_options options = {.endpoint = endpoint, .ca_file = ca_file};
    struct remote_listing listing = {0};
    open_with(&options, "");
    int rc = remote_store_list_blobs(store, "", NULL, 1, &listing, &call);
    remote_store_close(store);
    return rc;
}

START_TEST(servers_that_speak_otherwise_are_no_outage)
{
    static const struct {
        const char *scheme, *words, *said;
    } cases[] = {
        {"https", "HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak https"},
        {"http", "SSH-2.0-OpenSSH_9.2\r\n", "does not speak http;"},
        {"http", "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.",
            "HTTP request to an HTTPS server"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct other_server other;
        other_server_start(&other, cases[i].words);
        char *url = memory_printf("%s://127.0.0.1:%u", cases[i].scheme, other.port);
        int rc = head_in_haste(url, NULL);
        ck_assert_msg(rc == -EPROTO, "%s: %d, %s", cases[i].words, rc, remote_store_error());
        check_words(cases[i].said);
        thread_join(&other.thread);
        close(other.fd);
        free(url);
    }
}
END_TEST

START_TEST(ca_files_that_are_none_are_no_outage)
{
    struct other_server other;
    other_server_start(&other, NULL);
    char *url = memory_printf("https://127.0.0.1:%u", other.port);
    int rc = head_in_haste(url, "/nonexistent/ca.pem");
    ck_assert_msg(rc == -EPROTO, "%d, %s", rc, remote_store_error());
    check_words("ca_file");
    check_words("/nonexistent/ca.pem");
    close(other.fd);
    free(url);
}
END_TEST

// What the class is depends on what the name servers of this machine say.
START_TEST(names_that_do_not_exist_are_told_from_name_servers_that_do_not_answer)
{
    struct addrinfo *found = NULL;
    int resolved = getaddrinfo("nowhere.invalid", NULL, NULL, &found);
    ck_assert_int_ne(resolved, 0);
    bool none = resolved == EAI_NONAME || resolved == EAI_NODATA;
    ck_assert_int_eq(head_in_haste("https://nowhere.invalid", NULL), none ? -EPROTO : -EAGAIN);
    check_words("nowhere.invalid");
    if (none)
        check_words("know no such host");
}
END_TEST

static void
hold_connection(void *argument)
{
    struct remote_head head;
    const struct remote_call call = {.deadline_ms = *(uint64_t *)argument};
    ck_assert_int_eq(remote_store_head_blob(store, "held", &head, &call), -ETIMEDOUT);
}

START_TEST(calls_beyond_the_connections_wait)
{
    mock = mock_http_start();
    const struct remote_store_options options = {
        .endpoint = mock_http_url(mock), .connections = 1, .timeout_ms = 10000};
    open_with(&options, "");
    struct thread thread;
    struct remote_head head;
    uint64_t held_until = clock_monotonic_ms() + 400;
    mock_http_raw(mock, "", 0, MOCK_STALL);
    ck_assert_int_eq(thread_start(&thread, "holder", hold_connection, &held_until), 0);
    while (mock_http_count(mock) == 0)
        clock_sleep_ms(1);
    const struct remote_call late = {
        .deadline_ms = clock_monotonic_ms() + 20, .class = REMOTE_UPLOAD};
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, &late), -ETIMEDOUT);
    check_words("waiting for a connection");
    mock_http_raw(mock, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
        strlen("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"), MOCK_KEEP);
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, NULL), 0);
    ck_assert_uint_eq(head.size, 7);
    thread_join(&thread);
    close_store();
}
END_TEST

// ---- credentials and the clock ------------------------------------------------------------------

static void
answer_credentials(const char *access_key)
{
    char *json = memory_printf("{\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"" SECRET "\",\"Token"
                               "\":\"" TOKEN "%s\",\"Expiration\":\"2999-01-01T00:00:00Z\"}",
        access_key, access_key);
    mock_http_answer(mock, "200 OK", "", json);
    free(json);
}

START_TEST(expired_credentials_are_renewed_once)
{
    open_store();
    remote_store_close(store);
    unsetenv("AWS_ACCESS_KEY_ID");
    unsetenv("AWS_SECRET_ACCESS_KEY");
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", mock_http_url(mock), 1);
    const struct remote_store_options options = {.endpoint = mock_http_url(mock)};
    ck_assert_int_eq(s3_store_open("bucket", "", &options, &store), 0);
    answer_credentials("AK1");
    answer_error("400 Bad", "", "ExpiredToken");
    answer_credentials("AK2");
    mock_http_answer(mock, "200 OK", TAG, "");
    ck_assert_int_eq(put_text("x", REMOTE_PUT_OVERWRITE), 0);
    char *token = mock_request_header(mock_http_request(mock, 3), "x-amz-security-token");
    ck_assert_str_eq(token, TOKEN "AK2");
    free(token);
    answer_error("403 No", "", "ExpiredToken");
    answer_credentials("AK3");
    mock_http_answer(mock, "403 No", "",
        "<Error><Code>ExpiredToken</Code><Message>" TOKEN "AK3 expired</Message></Error>");
    ck_assert_int_eq(put_text("x", REMOTE_PUT_OVERWRITE), -EACCES);
    check_words("ExpiredToken");
    ck_assert_ptr_null(strstr(remote_store_error(), TOKEN));
    close_store();
}
END_TEST

START_TEST(clock_is_set_by_the_server)
{
    open_store();
    answer_error("403 No", "Date: Tue, 01 Jan 2030 00:00:30 GMT\r\n", "RequestTimeTooSkewed");
    mock_http_answer(mock, "200 OK", TAG, "");
    mock_http_answer(mock, "200 OK", TAG, "");
    ck_assert_int_eq(put_text("x", REMOTE_PUT_OVERWRITE), 0);
    ck_assert_int_eq(put_text("x", REMOTE_PUT_OVERWRITE), 0);
    for (size_t i = 1; i < 3; i++) {
        char *date = mock_request_header(mock_http_request(mock, i), "x-amz-date");
        ck_assert_int_eq(strncmp(date, "20300101T000", 12), 0);
        free(date);
    }
    // A server that is never content ends the series; so does one without a date.
    answer_error("403 No", "Date: Tue, 01 Jan 2030 00:00:31 GMT\r\n", "RequestTimeTooSkewed");
    ck_assert_int_eq(put_text("x", REMOTE_PUT_OVERWRITE), -EACCES);
    check_words("RequestTimeTooSkewed");
    close_store();
}
END_TEST

// ---- head ---------------------------------------------------------------------------------------

static const char head_ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\nLast-Modified: Sun, 06 Nov "
                              "1994 08:49:37 GMT\r\n\r\n";

static void
answer_head(const char *status)
{
    char *text = memory_printf("HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", status);
    mock_http_raw(mock, text, strlen(text), MOCK_KEEP);
    free(text);
}

START_TEST(refused_head_asks_why)
{
    open_store();
    struct remote_head head;
    answer_head("403 Forbidden");
    answer_error("403 Forbidden", "", "AccessDenied");
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, NULL), -EACCES);
    check_words("AccessDenied: the words of the server");
    // The clock is set right while asking.
    answer_head("403 Forbidden");
    answer_error("403 No", "Date: Tue, 01 Jan 2030 00:00:00 GMT\r\n", "RequestTimeTooSkewed");
    mock_http_answer(mock, "206 P", "Content-Range: bytes 0-0/17\r\n", "x");
    mock_http_raw(mock, head_ok, sizeof(head_ok) - 1, MOCK_KEEP);
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, NULL), 0);
    ck_assert_uint_eq(head.size, 17);
    ck_assert_uint_eq(head.modified_ms, 784111777000u);
    static const char no_length[] = "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n";
    mock_http_raw(mock, no_length, sizeof(no_length) - 1, MOCK_CLOSE);
    ck_assert_int_lt(remote_store_head_blob(store, "k", &head, NULL), 0);
    close_store();
}
END_TEST

START_TEST(missing_head_looks_for_the_bucket_once)
{
    open_store();
    struct remote_head head;
    answer_head("404 Not Found");
    answer_error("404 Not Found", "", "NoSuchBucket");
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, NULL), -ENXIO);
    check_words("bucket does not exist");
    answer_head("404 Not Found");
    mock_http_answer(mock, "200 OK", "", "<ListBucketResult/>");
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, NULL), -ENOENT);
    answer_head("404 Not Found");
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, NULL), -ENOENT);
    close_store();
}
END_TEST

// ---- list and delete ----------------------------------------------------------------------------

static int
list(size_t limit, struct remote_listing *listing_out)
{
    return remote_store_list_blobs(store, "a/", "a/0", limit, listing_out, NULL);
}

#define ENTRY(key) "<Contents><Key>pre/fix/" key "</Key><Size>3</Size></Contents>"
#define PAGE(more, rest)                                                                           \
    "<ListBucketResult><IsTruncated>" more "</IsTruncated>" rest "</ListBucketResult>"
#define NEXT(token) "<NextContinuationToken>" token "</NextContinuationToken>"

START_TEST(listings_go_on_by_token_or_by_key)
{
    open_store();
    struct remote_listing listing;
    mock_http_answer(mock, "200 OK", "", PAGE("true", ENTRY("a/1") ENTRY("a/2") NEXT("t/1")));
    mock_http_answer(mock, "200 OK", "", PAGE("true", NEXT("t2"))); // nothing, but more to come
    mock_http_answer(mock, "200 OK", "", PAGE("true", ENTRY("a/3")));
    mock_http_answer(mock, "200 OK", "", PAGE("false", ENTRY("a/4")));
    ck_assert_int_eq(list(5000, &listing), 0);
    ck_assert_uint_eq(listing.count, 4);
    ck_assert_str_eq(listing.entries[3].key, "a/4");
    ck_assert(!listing.more);
    remote_listing_free(&listing);
    check_sent(0, "GET",
        "/bucket/?list-type=2&max-keys=1000&prefix=pre%2Ffix%2Fa%2F&start-after=pre%2Ffix%2Fa%2F0");
    check_sent(1, "GET",
        "/bucket/?continuation-token=t%2F1&list-type=2&max-keys=1000&prefix=pre%2Ffix%2Fa%2F");
    check_sent(3, "GET",
        "/bucket/?list-type=2&max-keys=1000&prefix=pre%2Ffix%2Fa%2F&start-after=pre%2Ffix%2Fa%2F3");
    // A server that sends more than it was asked for.
    mock_http_answer(mock, "200 OK", "", PAGE("false", ENTRY("a/1") ENTRY("a/2") ENTRY("a/3")));
    ck_assert_int_eq(list(2, &listing), 0);
    ck_assert_uint_eq(listing.count, 2);
    ck_assert(listing.more);
    remote_listing_free(&listing);
    close_store();
}
END_TEST

START_TEST(listings_that_make_no_sense_are_refused)
{
    static const char *const bad[] = {PAGE("false", ENTRY("a/2") ENTRY("a/1")),
        PAGE("false", ENTRY("a/1") ENTRY("a/1")), PAGE("false", ENTRY("b/1")),
        PAGE("false", "<Contents><Key>a/1</Key><Size>1</Size></Contents>"),
        PAGE("false", ENTRY("a/0")), PAGE("true", ""), "<html/>", ""};
    open_store();
    struct remote_listing listing;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        mock_http_answer(mock, "200 OK", "", bad[i]);
        ck_assert_msg(list(10, &listing) == -EBADMSG, "%s", bad[i]);
        ck_assert_uint_eq(listing.count, 0);
    }
    close_store();
}
END_TEST

START_TEST(deletions_go_in_batches_and_report_what_failed)
{
    enum { COUNT = 1003 };
    static char names[COUNT][16];
    static const char *keys[COUNT];
    open_store();
    for (int i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof(names[i]), "k&%d", i);
        keys[i] = names[i];
    }
    mock_http_answer(mock, "200 OK", "", "<DeleteResult/>");
    mock_http_answer(mock, "200 OK", "",
        "<DeleteResult><Error><Key>x</Key><Code>NoSuchKey</Code></Error></DeleteResult>");
    ck_assert_int_eq(remote_store_delete_blobs(store, keys, COUNT, NULL), 0);
    check_sent(0, "POST", "/bucket/?delete=");
    const struct mock_request *second = mock_http_request(mock, 1);
    ck_assert_str_eq(second->body,
        "<Delete><Quiet>true</Quiet><Object><Key>pre/fix/k&amp;1000</Key></Object><Object><Key>"
        "pre/fix/k&amp;1001</Key></Object><Object><Key>pre/fix/k&amp;1002</Key></Object></Delete>");
    char *md5 = mock_request_header(second, "content-md5");
    ck_assert_uint_eq(strlen(md5), 24);
    free(md5);
    static const struct {
        const char *code;
        int expected;
    } cases[] = {{"AccessDenied", -EACCES}, {"InternalError", -EAGAIN}, {"SlowDown", -EBUSY},
        {"Strange", -EIO}};
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        char *xml = memory_printf(
            "<DeleteResult><Error><Key>pre/fix/bad</Key><Code>%s</Code></Error></DeleteResult>",
            cases[i].code);
        mock_http_answer(mock, "200 OK", "", xml);
        ck_assert_int_eq(remote_store_delete_blobs(store, keys, 2, NULL), cases[i].expected);
        check_words("pre/fix/bad");
        free(xml);
    }
    mock_http_answer(mock, "200 OK", "", "not xml");
    ck_assert_int_eq(remote_store_delete_blobs(store, keys, 2, NULL), -EAGAIN);
    mock_http_answer(mock, "404 Not Found", "", "<Error><Code>NoSuchKey</Code></Error>");
    ck_assert_int_eq(remote_store_delete_blobs(store, keys, 1, NULL), 0);
    check_sent(mock_http_count(mock) - 1, "DELETE", "/bucket/pre/fix/k%260");
    close_store();
}
END_TEST

START_TEST(keys_that_s3_cannot_have_are_refused)
{
    static const char *const bad[] = {"a\x01", "\xff", "a\x7f/b", "\xc0\xaf", "\xed\xa0\x80",
        "\xf4\x90\x80\x80", "\xe2\x82", "\xf5\x80\x80\x80"};
    open_store();
    struct remote_head head;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        ck_assert_int_eq(remote_store_head_blob(store, bad[i], &head, NULL), -EIO);
        check_words("not UTF-8");
    }
    close_store();
}
END_TEST

// ---- probe --------------------------------------------------------------------------------------

START_TEST(stores_without_conditional_create_are_found_out)
{
    open_store();
    mock_http_answer(mock, "200 OK", TAG, "");
    mock_http_answer(mock, "200 OK", TAG, "");
    mock_http_answer(mock, "204 No Content", "", "");
    ck_assert_int_eq(remote_store_probe(store, NULL), -EOPNOTSUPP);
    check_words("If-None-Match");
    ck_assert_str_ne(mock_http_request(mock, 0)->body, mock_http_request(mock, 1)->body);
    ck_assert_str_eq(mock_http_request(mock, 0)->target, mock_http_request(mock, 2)->target);
    answer_error("501 No", "", "NotImplemented");
    ck_assert_int_eq(remote_store_probe(store, NULL), -EOPNOTSUPP);
    check_words("If-None-Match");
    answer_error("403 No", "", "AccessDenied");
    ck_assert_int_eq(remote_store_probe(store, NULL), -EACCES);
    // It may not delete: garbage collection would not work.
    mock_http_answer(mock, "200 OK", TAG, "");
    answer_error("412 Failed", "", "PreconditionFailed");
    answer_error("403 No", "", "AccessDenied");
    ck_assert_int_eq(remote_store_probe(store, NULL), -EACCES);
    check_words("delete");
    close_store();
}
END_TEST

START_TEST(probe_sweeps_abandoned_uploads)
{
    open_store();
    mock_http_answer(mock, "200 OK", TAG, "");
    answer_error("412 Failed", "", "PreconditionFailed");
    mock_http_answer(mock, "204 No Content", "", "");
    mock_http_answer(mock, "200 OK", "Date: Tue, 01 Jan 2030 00:00:00 GMT\r\n",
        "<ListMultipartUploadsResult>"
        "<Upload><Key>pre/fix/checkpoints/old</Key><UploadId>1</UploadId>"
        "<Initiated>2029-12-30T00:00:00.000Z</Initiated></Upload>"
        "<Upload><Key>pre/fix/checkpoints/young</Key><UploadId>2</UploadId>"
        "<Initiated>2029-12-31T12:00:00.000Z</Initiated></Upload>"
        "<Upload><Key>pre/fix/old</Key><UploadId>3</UploadId>"
        "<Initiated>2029-12-30T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>");
    mock_http_answer(mock, "204 No Content", "", "");
    ck_assert_int_eq(remote_store_probe(store, NULL), 0);
    check_sent(3, "GET", "/bucket/?prefix=pre%2Ffix%2Fcheckpoints%2F&uploads=");
    check_sent(4, "DELETE", "/bucket/pre/fix/checkpoints/old?uploadId=1");
    close_store();
}
END_TEST

// A page of uploads, all of this day, to keys from 1000 on.
static void
answer_uploads(unsigned first, unsigned count, const char *day)
{
    BUFFER_AUTO xml = {0};
    buffer_append_string(&xml, "<ListMultipartUploadsResult>");
    for (unsigned i = first; i < first + count; i++)
        buffer_printf(&xml,
            "<Upload><Key>pre/fix/v/%u</Key><UploadId>u%u</UploadId>"
            "<Initiated>%sT00:00:00.000Z</Initiated></Upload>",
            1000 + i, i, day);
    buffer_append_string(&xml, "</ListMultipartUploadsResult>");
    mock_http_answer(
        mock, "200 OK", "Date: Tue, 01 Jan 2030 00:00:00 GMT\r\n", buffer_string(&xml));
}

START_TEST(old_uploads_below_a_prefix_are_aborted)
{
    const uint64_t day_ms = 24ull * 3600 * 1000;
    uint64_t count;
    open_store();
    // The first page is full, of young ones: the old ones are in the second.
    answer_uploads(0, 1000, "2029-12-31");
    answer_uploads(1000, 2, "2029-12-20");
    mock_http_answer(mock, "204 No Content", "", "");
    answer_error("404 Not Found", "", "NoSuchUpload");
    ck_assert_int_eq(remote_store_sweep_uploads(store, "v/", 2 * day_ms, false, &count, NULL), 0);
    ck_assert_uint_eq(count, 2);
    check_sent(0, "GET", "/bucket/?prefix=pre%2Ffix%2Fv%2F&uploads=");
    check_sent(1, "GET",
        "/bucket/?key-marker=pre%2Ffix%2Fv%2F1999&prefix=pre%2Ffix%2Fv%2F"
        "&upload-id-marker=u999&uploads=");
    check_sent(2, "DELETE", "/bucket/pre/fix/v/2000?uploadId=u1000");
    check_sent(3, "DELETE", "/bucket/pre/fix/v/2001?uploadId=u1001");
    // A dry run counts only.
    answer_uploads(0, 3, "2029-12-20");
    ck_assert_int_eq(remote_store_sweep_uploads(store, "v/", 2 * day_ms, true, &count, NULL), 0);
    ck_assert_uint_eq(count, 3);
    // A server that passes over the markers ends it.
    answer_uploads(0, 1000, "2029-12-31");
    answer_uploads(0, 1000, "2029-12-31");
    ck_assert_int_eq(remote_store_sweep_uploads(store, "v/", 2 * day_ms, false, &count, NULL), 0);
    ck_assert_uint_eq(count, 0);
    answer_error("403 No", "", "AccessDenied");
    ck_assert_int_eq(
        remote_store_sweep_uploads(store, "v/", 2 * day_ms, false, &count, NULL), -EACCES);
    mock_http_answer(mock, "200 OK", "", "nonsense");
    ck_assert_int_eq(
        remote_store_sweep_uploads(store, "v/", 2 * day_ms, false, &count, NULL), -EBADMSG);
    close_store();
}
END_TEST

// ---- addresses ----------------------------------------------------------------------------------

START_TEST(bucket_stands_in_the_path_or_in_the_host)
{
    mock = mock_http_start();
    const char *port = strrchr(mock_http_url(mock), ':') + 1;
    char *endpoint = memory_printf("http://s3.localhost:%s/", port);
    char *expected = memory_printf("bucket.s3.localhost:%s", port);
    const struct remote_store_options options = {.endpoint = endpoint, .virtual_host = true};
    open_with(&options, "");
    mock_http_answer(mock, "200 OK", TAG, "");
    ck_assert_int_eq(put_text("x", REMOTE_PUT_OVERWRITE), 0);
    char *host = mock_request_header(mock_http_request(mock, 0), "host");
    ck_assert_str_eq(host, expected);
    check_sent(0, "PUT", "/k");
    free(host);
    free(endpoint);
    free(expected);
    close_store();
}
END_TEST

START_TEST(senseless_options_are_refused)
{
    static const struct remote_store_options bad[] = {{.endpoint = "127.0.0.1:9000"},
        {.endpoint = "ftp://host"}, {.endpoint = "http://"}, {.endpoint = "http://user@host"},
        {.endpoint = "http://host/path"}, {.endpoint = "http://ho st"},
        {.endpoint = "http://host?x"}, {.region = ""}, {.region = "a/b"}, {.region = "a b"}};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        ck_assert_msg(s3_store_open("bucket", "", &bad[i], &store) == -EINVAL, "case %zu", i);
        ck_assert_str_ne(remote_store_error(), "");
        ck_assert_ptr_null(store);
    }
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("store_s3");
#define ADD(test) unit_add(s, #test, test, 30)
    ADD(refusals_are_classed_and_quoted);
    ADD(huge_error_bodies_are_cut_and_secrets_struck_out);
    ADD(retrying_gets_over_passing_errors);
    ADD(broken_transfers_yield_nothing);
    ADD(answers_must_be_what_was_asked_for);
    ADD(stalled_transfers_end);
    ADD(refused_connections_are_worth_retrying);
    ADD(servers_that_speak_otherwise_are_no_outage);
    ADD(ca_files_that_are_none_are_no_outage);
    ADD(names_that_do_not_exist_are_told_from_name_servers_that_do_not_answer);
    ADD(calls_beyond_the_connections_wait);
    ADD(expired_credentials_are_renewed_once);
    ADD(clock_is_set_by_the_server);
    ADD(refused_head_asks_why);
    ADD(missing_head_looks_for_the_bucket_once);
    ADD(listings_go_on_by_token_or_by_key);
    ADD(listings_that_make_no_sense_are_refused);
    ADD(deletions_go_in_batches_and_report_what_failed);
    ADD(keys_that_s3_cannot_have_are_refused);
    ADD(stores_without_conditional_create_are_found_out);
    ADD(probe_sweeps_abandoned_uploads);
    ADD(old_uploads_below_a_prefix_are_aborted);
    ADD(bucket_stands_in_the_path_or_in_the_host);
    ADD(senseless_options_are_refused);
    return unit_run(s);
}
