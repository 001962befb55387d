// SPDX-License-Identifier: Apache-2.0
// Bytes on their way into an S3 store, in one request or in parts, and what the server says of
// them.
#include "store_s3_world.h"

// ---- put ----------------------------------------------------------------------------------------

START_TEST(requests_are_signed_and_connections_kept)
{
    open_store();
    for (int i = 0; i < 3; i++)
        mock_http_answer(mock, "200 OK", "ETag: \"x\"\r\n", "");
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(put_text("content", REMOTE_PUT_CREATE), 0);
    const struct mock_request *r = mock_http_request(mock, 2);
    ck_assert_uint_eq(r->connection, 1);
    check_sent(2, "PUT", "/bucket/pre/fix/k");
    ck_assert_str_eq(r->body, "content");
    char *authorization = mock_request_header(r, "authorization");
    ck_assert_ptr_nonnull(strstr(authorization, "Credential=AKEXAMPLE/"));
    ck_assert_ptr_nonnull(strstr(authorization, "/eu-west-3/s3/aws4_request"));
    ck_assert_ptr_nonnull(
        strstr(authorization, "host;if-none-match;x-amz-content-sha256;x-amz-date,"));
    free(authorization);
    char *condition = mock_request_header(r, "if-none-match");
    ck_assert_str_eq(condition, "*");
    free(condition);
    char *hash = mock_request_header(r, "x-amz-content-sha256");
    ck_assert_str_eq(hash, "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73");
    free(hash);
    close_store();
}
END_TEST

START_TEST(create_resent_on_a_dead_connection_is_not_taken_for_a_conflict)
{
    open_store();
    mock_http_answer(mock, "200 OK", TAG, "");
    ck_assert_int_eq(put_text("ours", REMOTE_PUT_CREATE), 0);
    // The kept connection dies after the request; libcurl sends it again on a new one.
    mock_http_raw(mock, "", 0, MOCK_CLOSE);
    answer_error("412 Failed", "", "PreconditionFailed");
    ck_assert_int_eq(put_text("ours", REMOTE_PUT_CREATE), -EAGAIN);
    check_words("sent again");
    // With retries the object itself decides.
    const struct retry_policy quick = {.base_ms = 1, .cap_ms = 1};
    store = retry_store_wrap(store, &quick, NULL);
    mock_http_raw(mock, "", 0, MOCK_CLOSE);
    answer_error("412 Failed", "", "PreconditionFailed");
    answer_error("412 Failed", "", "PreconditionFailed");
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
    mock_http_raw(mock, head, sizeof(head) - 1, MOCK_KEEP);
    mock_http_answer(mock, "206 Partial", "Content-Range: bytes 0-3/4\r\n", "ours");
    ck_assert_int_eq(put_text("ours", REMOTE_PUT_CREATE), 0);
    // Without doubt about our own sending a conflict is one.
    answer_error("412 Failed", "", "PreconditionFailed");
    ck_assert_int_eq(put_text("ours", REMOTE_PUT_CREATE), -EEXIST);
    close_store();
}
END_TEST

START_TEST(mismatch_is_ours_or_the_transfers)
{
    open_store();
    answer_error("400 Bad", "", "XAmzContentSHA256Mismatch");
    ck_assert_int_eq(put_text("good", REMOTE_PUT_OVERWRITE), -EAGAIN);
    check_words("the transfer spoiled them");
    struct remote_source source = {.data = "bad", .fd = -1, .length = 3};
    answer_error("400 Bad", "", "BadDigest");
    ck_assert_int_eq(
        remote_store_put_blob(store, "k", &source, REMOTE_PUT_OVERWRITE, NULL), -EBADMSG);
    close_store();
}
END_TEST

// What a server answers that says 200 and has not done it, and what is made of that.
static const struct {
    const char *headers, *body;
    int expected;
} not_done[] = {
    {TAG, "<Error><Code>InternalError</Code></Error>", -EAGAIN},
    {TAG, " \n<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code></Error>", -EBUSY},
    {"", "<Error><Code>AccessDenied</Code><Message>no</Message></Error>", -EACCES},
    {TAG, "<Error><Code>QuotaExceeded</Code></Error>", -ENOSPC},
    {TAG, "<Error><Code>SomethingNew</Code></Error>", -EIO},
    {TAG, "<Error><Code>Intern", -EAGAIN},
    {TAG, "<html>please log in</html>", -EAGAIN},
    {"", "<html>please log in</html>", -EAGAIN},
};

START_TEST(ok_with_an_error_in_its_body_is_the_error)
{
    static const enum remote_put_mode modes[] = {REMOTE_PUT_OVERWRITE, REMOTE_PUT_CREATE};
    static const char *const keys[] = {"a", "b"};
    open_store();
    for (size_t i = 0; i < ARRAY_LENGTH(not_done); i++) {
        for (size_t j = 0; j < ARRAY_LENGTH(modes); j++) {
            mock_http_answer(mock, "200 OK", not_done[i].headers, not_done[i].body);
            int rc = put_text("x", modes[j]);
            ck_assert_msg(rc == not_done[i].expected, "put %zu: %d", i, rc);
        }
        for (size_t count = 1; count <= 2; count++) {
            mock_http_answer(mock, "200 OK", "", not_done[i].body);
            int rc = remote_store_delete_blobs(store, keys, count, NULL);
            ck_assert_msg(rc == not_done[i].expected, "delete %zu: %d", i, rc);
        }
    }
    // What a bad source is refused for counts as ever.
    mock_http_answer(mock, "200 OK", TAG, "<Error><Code>BadDigest</Code></Error>");
    ck_assert_int_eq(put_text("good", REMOTE_PUT_OVERWRITE), -EAGAIN);
    check_words("the transfer spoiled them");
    mock_http_answer(mock, "200 OK", TAG, "<Error><Code>PreconditionFailed</Code></Error>");
    ck_assert_int_eq(put_text("x", REMOTE_PUT_CREATE), -EEXIST);
    close_store();
}
END_TEST

START_TEST(what_is_stored_is_what_was_sent)
{
    open_store();
    mock_http_answer(mock, "200 OK", "", "");
    ck_assert_int_eq(put_text("content", REMOTE_PUT_OVERWRITE), -EAGAIN);
    check_words("without an ETag");
    mock_http_answer(mock, "200 OK",
        TAG "x-amz-checksum-sha256: 7XACtDnprIRfIjV9giusFERzD722AW0+yUMil7nsn3M=\r\n", " \r\n");
    ck_assert_int_eq(put_text("content", REMOTE_PUT_OVERWRITE), 0);
    mock_http_answer(mock, "200 OK",
        TAG "x-amz-checksum-sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\r\n", "");
    ck_assert_int_eq(put_text("content", REMOTE_PUT_OVERWRITE), -EAGAIN);
    check_words("other bytes than were sent");
    close_store();
}
END_TEST

// ---- multipart ----------------------------------------------------------------------------------

#define UPLOAD                                                                                     \
    "<InitiateMultipartUploadResult><UploadId>u+1</UploadId></InitiateMultipartUploadResult>"
enum { BIG = (5u << 20) + 100 };

// What the caller knows of the bytes. A CRC-32C is enough then: the SHA-256 is not looked at.
enum known { NOTHING_RIGHT, HASH_RIGHT, CRC_RIGHT, CRC_WRONG };

static int
put_big(enum known known)
{
    uint8_t *bytes = memory_alloc_zero(BIG);
    struct remote_source source = {.data = bytes, .fd = -1, .length = BIG};
    if (known == HASH_RIGHT)
        sha256_of(bytes, BIG, &source.hash);
    source.crc_known = known >= CRC_RIGHT;
    if (source.crc_known)
        source.crc = crc32c(0, bytes, BIG) ^ (known == CRC_WRONG);
    int rc = remote_store_put_blob(store, "big", &source, REMOTE_PUT_OVERWRITE, NULL);
    free(bytes);
    return rc;
}

static void
open_for_parts(void)
{
    mock = mock_http_start();
    const struct remote_store_options options = {
        .endpoint = mock_http_url(mock), .timeout_ms = 10000, .multipart_bytes = 1000};
    open_with(&options, "");
}

// The end of an upload, and the HEAD that asks for the length of what has come of it.
static void
answer_completed(const char *result)
{
    char head[64];
    snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", BIG);
    mock_http_answer(mock, "200 OK", "", result);
    mock_http_raw(mock, head, strlen(head), MOCK_KEEP);
}

START_TEST(large_objects_go_in_parts)
{
    open_for_parts();
    mock_http_answer(mock, "200 OK", "", UPLOAD);
    mock_http_answer(mock, "200 OK", "ETag: \"e1\"\r\n", "");
    answer_error("500 Oops", "", "InternalError"); // a part is repeated at once
    mock_http_answer(mock, "200 OK", "ETag: \"e2\"\r\n", "");
    answer_completed("\n  <CompleteMultipartUploadResult/>");
    ck_assert_int_eq(put_big(HASH_RIGHT), 0);
    check_sent(0, "POST", "/bucket/big?uploads=");
    check_sent(1, "PUT", "/bucket/big?partNumber=1&uploadId=u%2B1");
    check_sent(3, "PUT", "/bucket/big?partNumber=2&uploadId=u%2B1");
    check_sent(4, "POST", "/bucket/big?uploadId=u%2B1");
    ck_assert_uint_eq(mock_http_request(mock, 1)->body_length, 5u << 20);
    ck_assert_uint_eq(mock_http_request(mock, 3)->body_length, 100);
    ck_assert_str_eq(mock_http_request(mock, 4)->body,
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"e1\"</ETag></Part><Part>"
        "<PartNumber>2</PartNumber><ETag>\"e2\"</ETag></Part></CompleteMultipartUpload>");
    close_store();
}
END_TEST

START_TEST(the_checksum_of_a_large_object_will_do)
{
    open_for_parts();
    mock_http_answer(mock, "200 OK", "", UPLOAD);
    mock_http_answer(mock, "200 OK", "ETag: \"e1\"\r\n", "");
    mock_http_answer(mock, "200 OK", "ETag: \"e2\"\r\n", "");
    answer_completed("<CompleteMultipartUploadResult/>");
    ck_assert_int_eq(put_big(CRC_RIGHT), 0);
    ck_assert_uint_eq(mock_http_count(mock), 5);
    close_store();
}
END_TEST

START_TEST(failed_uploads_are_aborted)
{
    open_for_parts();
    // Each row: what the requests after the beginning are answered.
    static const struct {
        const char *part1, *part2, *complete;
        int expected;
    } cases[] = {
        {"", NULL, NULL, -EACCES},
        {"ETag: \"e\"\r\n", "", NULL, -EACCES},
        {"ETag: \"e\"\r\n", "ETag: \"e\"\r\n", "<Error><Code>InternalError</Code></Error>",
            -EAGAIN},
        {"ETag: \"e\"\r\n", "ETag: \"e\"\r\n", "<Error><Code>InvalidPart</Code></Error>", -EIO},
        {"ETag: \"e\"\r\n", "ETag: \"e\"\r\n", "", -EAGAIN},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        const char *parts[] = {cases[i].part1, cases[i].part2};
        mock_http_answer(mock, "200 OK", "", UPLOAD);
        for (int j = 0; j < 2 && parts[j]; j++)
            if (*parts[j])
                mock_http_answer(mock, "200 OK", parts[j], "");
            else
                answer_error("403 No", "", "AccessDenied");
        if (cases[i].complete)
            mock_http_answer(mock, "200 OK", "", cases[i].complete);
        mock_http_answer(mock, "204 No Content", "", "");
        int rc = put_big(HASH_RIGHT);
        ck_assert_msg(rc == cases[i].expected, "case %zu: %d %s", i, rc, remote_store_error());
        ck_assert_str_ne(remote_store_error(), "");
        check_sent(mock_http_count(mock) - 1, "DELETE", "/bucket/big?uploadId=u%2B1");
    }
    // Bytes without their hash, or their checksum, are never made an object.
    static const enum known wrong[] = {NOTHING_RIGHT, CRC_WRONG};
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++) {
        mock_http_answer(mock, "200 OK", "", UPLOAD);
        mock_http_answer(mock, "200 OK", "ETag: \"e\"\r\n", "");
        mock_http_answer(mock, "200 OK", "ETag: \"e\"\r\n", "");
        mock_http_answer(mock, "204 No Content", "", "");
        ck_assert_int_eq(put_big(wrong[i]), -EBADMSG);
        check_sent(mock_http_count(mock) - 1, "DELETE", "/bucket/big?uploadId=u%2B1");
    }
    // An answer without what is needed to go on.
    mock_http_answer(mock, "200 OK", "", "<html/>");
    ck_assert_int_eq(put_big(HASH_RIGHT), -EAGAIN);
    mock_http_answer(mock, "200 OK", "", UPLOAD);
    for (int i = 0; i < 3; i++)
        mock_http_answer(mock, "200 OK", "", ""); // no ETag
    mock_http_answer(mock, "204 No Content", "", "");
    ck_assert_int_eq(put_big(HASH_RIGHT), -EAGAIN);
    // An object that came out shorter.
    mock_http_answer(mock, "200 OK", "", UPLOAD);
    mock_http_answer(mock, "200 OK", "ETag: \"e\"\r\n", "");
    mock_http_answer(mock, "200 OK", "ETag: \"e\"\r\n", "");
    mock_http_answer(mock, "200 OK", "", "<CompleteMultipartUploadResult/>");
    static const char shorter[] = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n";
    mock_http_raw(mock, shorter, sizeof(shorter) - 1, MOCK_KEEP);
    ck_assert_int_eq(put_big(HASH_RIGHT), -EAGAIN);
    check_words("the object has 17");
    close_store();
}
END_TEST

START_TEST(ok_with_an_error_in_its_body_ends_an_upload)
{
    for (size_t i = 0; i < ARRAY_LENGTH(not_done); i++) {
        open_for_parts();
        // At the beginning there is nothing to abort.
        mock_http_answer(mock, "200 OK", "", not_done[i].body);
        ck_assert_int_eq(put_big(HASH_RIGHT), not_done[i].expected);
        // A part that may come another time is tried three times.
        mock_http_answer(mock, "200 OK", "", UPLOAD);
        for (int j = 0; j < (not_done[i].expected == -EAGAIN ? 3 : 1); j++)
            mock_http_answer(mock, "200 OK", not_done[i].headers, not_done[i].body);
        mock_http_answer(mock, "204 No Content", "", "");
        ck_assert_int_eq(put_big(HASH_RIGHT), not_done[i].expected);
        mock_http_answer(mock, "200 OK", "", UPLOAD);
        mock_http_answer(mock, "200 OK", TAG, "");
        mock_http_answer(mock, "200 OK", TAG, "");
        mock_http_answer(mock, "200 OK", not_done[i].headers, not_done[i].body);
        mock_http_answer(mock, "204 No Content", "", "");
        ck_assert_int_eq(put_big(HASH_RIGHT), not_done[i].expected);
        check_sent(mock_http_count(mock) - 1, "DELETE", "/bucket/big?uploadId=u%2B1");
        close_store();
    }
}
END_TEST

START_TEST(canceled_uploads_are_aborted_all_the_same)
{
    open_for_parts();
    uint8_t *bytes = memory_alloc_zero(BIG);
    struct remote_source source = {.data = bytes, .fd = -1, .length = BIG};
    sha256_of(bytes, BIG, &source.hash);
    const struct remote_call call = {.is_canceled = when_the_second_came, .argument = mock};
    mock_http_answer(mock, "200 OK", "", UPLOAD);
    mock_http_raw(mock, "", 0, MOCK_STALL);
    mock_http_answer(mock, "204 No Content", "", "");
    ck_assert_int_eq(
        remote_store_put_blob(store, "big", &source, REMOTE_PUT_OVERWRITE, &call), -ECANCELED);
    check_words("canceled");
    check_sent(2, "DELETE", "/bucket/big?uploadId=u%2B1");
    free(bytes);
    close_store();
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("store_s3_writes");
#define ADD(test) unit_add(s, #test, test, 30)
    ADD(requests_are_signed_and_connections_kept);
    ADD(create_resent_on_a_dead_connection_is_not_taken_for_a_conflict);
    ADD(mismatch_is_ours_or_the_transfers);
    ADD(ok_with_an_error_in_its_body_is_the_error);
    ADD(what_is_stored_is_what_was_sent);
    ADD(large_objects_go_in_parts);
    ADD(the_checksum_of_a_large_object_will_do);
    ADD(failed_uploads_are_aborted);
    ADD(ok_with_an_error_in_its_body_ends_an_upload);
    ADD(canceled_uploads_are_aborted_all_the_same);
    return unit_run(s);
}
