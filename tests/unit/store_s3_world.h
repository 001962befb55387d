// SPDX-License-Identifier: Apache-2.0
// What the tests of the S3 store share: a store before a server that plays a script.
#ifndef CKPTFS_TESTS_STORE_S3_WORLD_H
#define CKPTFS_TESTS_STORE_S3_WORLD_H

#include "unit.h"

#include <string.h>

#include "base/checksum.h"
#include "mock_http.h"
#include "platform/memory.h"
#include "store/remote_store_backends.h"

#define SECRET "kT7/SecretSecretSecretSecretSecretSecret"
#define TOKEN  "session-token-session-token"
#define TAG    "ETag: \"e\"\r\n" // of an object or a part that has been stored

static struct mock_http *mock;
static struct remote_store *store;

static inline void
open_with(const struct remote_store_options *options, const char *prefix)
{
    static const char *const names[] = {"AWS_PROFILE", "AWS_SESSION_TOKEN", "http_proxy",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_REGION"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        unsetenv(names[i]);
    setenv("AWS_ACCESS_KEY_ID", "AKEXAMPLE", 1);
    setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1);
    setenv("AWS_CONFIG_FILE", "/nonexistent/config", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials", 1);
    int rc = s3_store_open("bucket", prefix, options, &store);
    ck_assert_msg(rc == 0, "%s", remote_store_error());
}

static inline void
open_store(void)
{
    mock = mock_http_start();
    const struct remote_store_options options = {
        .endpoint = mock_http_url(mock), .region = "eu-west-3", .timeout_ms = 10000};
    open_with(&options, "pre/fix");
}

static inline void
close_store(void)
{
    remote_store_close(store);
    mock_http_stop(mock);
}

// An error as S3 writes it.
static inline void
answer_error(const char *status, const char *headers, const char *code)
{
    char *xml = memory_printf("<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>the words of "
                              "the server</Message><RequestId>R1</RequestId></Error>",
        code);
    mock_http_answer(mock, status, headers, xml);
    free(xml);
}

static inline int
put_text(const char *text, enum remote_put_mode mode)
{
    struct remote_source source = {.data = text, .fd = -1, .length = strlen(text)};
    sha256_of(text, strlen(text), &source.hash);
    return remote_store_put_blob(store, "k", &source, mode, NULL);
}

static inline int
get_range(uint64_t offset, uint64_t length)
{
    BUFFER_AUTO out = {0};
    buffer_append_string(&out, "kept");
    int rc = remote_store_get_blob(store, "k", offset, length, &out, NULL);
    ck_assert(out.length >= 4 && memcmp(out.data, "kept", 4) == 0);
    ck_assert(rc == 0 || out.length == 4);
    return rc;
}

static inline void
check_words(const char *words)
{
    ck_assert_msg(
        strstr(remote_store_error(), words) != NULL, "\"%s\" in: %s", words, remote_store_error());
}

static inline void
check_sent(size_t n, const char *method, const char *target)
{
    ck_assert_str_eq(mock_http_request(mock, n)->method, method);
    ck_assert_str_eq(mock_http_request(mock, n)->target, target);
}

// A caller who gives up when the second request has come. `argument`: the mock.
static inline bool
when_the_second_came(void *argument)
{
    return mock_http_count(argument) > 1;
}

#endif
