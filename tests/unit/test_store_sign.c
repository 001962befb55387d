// SPDX-License-Identifier: Apache-2.0
// Signing, times and XML: the pure parts of the S3 store.
#include "unit.h"

#include <string.h>

#include "base/checksum.h"
#include "store/s3_response.h"
#include "store/s3_sign.h"
#include "store/store_time.h"

#define EMPTY_HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void
check_signature(const struct s3_signing *s, const char *signed_headers, const char *signature)
{
    BUFFER_AUTO is = {0};
    BUFFER_AUTO expected = {0};
    s3_sign(s, &is);
    buffer_printf(&expected,
        "AWS4-HMAC-SHA256 Credential=%s/%.8s/%s/%s/aws4_request, SignedHeaders=%s, Signature=%s",
        s->access_key, s->timestamp, s->region, s->service, signed_headers, signature);
    ck_assert_str_eq(buffer_string(&is), buffer_string(&expected));
}

// ---- AWS's SigV4 test suite ---------------------------------------------------------------------

#define SUITE_HEADERS                                                                              \
    {"Host", "example.amazonaws.com"},                                                             \
    {                                                                                              \
        "X-Amz-Date", "20150830T123600Z"                                                           \
    }

static struct s3_signing
suite_request(const char *method, const char *path, const char *query,
    const struct s3_pair *headers, size_t count)
{
    return (struct s3_signing){
        .method = method,
        .path = path,
        .query = query,
        .headers = headers,
        .header_count = count,
        .payload_hash = EMPTY_HASH,
        .timestamp = "20150830T123600Z",
        .region = "us-east-1",
        .service = "service",
        .access_key = "AKIDEXAMPLE",
        .secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    };
}

START_TEST(signatures_match_the_published_suite)
{
    const struct s3_pair plain[] = {SUITE_HEADERS};
    struct s3_signing get_vanilla = suite_request("GET", "/", "", plain, 2);
    check_signature(&get_vanilla, "host;x-amz-date",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
    struct s3_signing post_vanilla = suite_request("POST", "/", "", plain, 2);
    check_signature(&post_vanilla, "host;x-amz-date",
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
    // get-vanilla-query-order-key-case
    BUFFER_AUTO query = {0};
    const struct s3_pair parameters[] = {{"Param2", "value2"}, {"Param1", "value1"}};
    s3_append_query(&query, parameters, 2);
    struct s3_signing ordered = suite_request("GET", "/", buffer_string(&query), plain, 2);
    check_signature(&ordered, "host;x-amz-date",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
    // get-unreserved
    struct s3_signing unreserved = suite_request(
        "GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "", plain, 2);
    check_signature(&unreserved, "host;x-amz-date",
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f");
    // get-utf8
    BUFFER_AUTO path = {0};
    s3_append_encoded(&path, "/\xe1\x88\xb4", true);
    struct s3_signing utf8 = suite_request("GET", buffer_string(&path), "", plain, 2);
    check_signature(&utf8, "host;x-amz-date",
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85");
    // get-header-value-trim
    const struct s3_pair spaced[] = {
        {"My-Header1", " value1"}, {"My-Header2", " \"a   b   c\""}, SUITE_HEADERS};
    struct s3_signing trimmed = suite_request("GET", "/", "", spaced, 4);
    check_signature(&trimmed, "host;my-header1;my-header2;x-amz-date",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736");
    // post-header-key-sort
    const struct s3_pair sorted[] = {{"My-Header1", "value1"}, SUITE_HEADERS};
    struct s3_signing keys = suite_request("POST", "/", "", sorted, 3);
    check_signature(&keys, "host;my-header1;x-amz-date",
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c");
}
END_TEST

// ---- the examples of the S3 documentation ("Signature calculations: header-based") --------------

static struct s3_signing
s3_request_of(const char *method, const char *path, const char *query, const char *hash,
    const struct s3_pair *headers, size_t count)
{
    return (struct s3_signing){
        .method = method,
        .path = path,
        .query = query,
        .headers = headers,
        .header_count = count,
        .payload_hash = hash,
        .timestamp = "20130524T000000Z",
        .region = "us-east-1",
        .service = "s3",
        .access_key = "AKIAIOSFODNN7EXAMPLE",
        .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    };
}

START_TEST(signatures_match_the_s3_examples)
{
    const struct s3_pair get[] = {{"Host", "examplebucket.s3.amazonaws.com"},
        {"Range", "bytes=0-9"}, {"x-amz-content-sha256", EMPTY_HASH},
        {"x-amz-date", "20130524T000000Z"}};
    struct s3_signing s = s3_request_of("GET", "/test.txt", "", EMPTY_HASH, get, 4);
    check_signature(&s, "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");

    static const char hash[] = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    const struct s3_pair put[] = {{"Host", "examplebucket.s3.amazonaws.com"},
        {"Date", "Fri, 24 May 2013 00:00:00 GMT"}, {"x-amz-date", "20130524T000000Z"},
        {"x-amz-storage-class", "REDUCED_REDUNDANCY"}, {"x-amz-content-sha256", hash}};
    BUFFER_AUTO path = {0};
    s3_append_encoded(&path, "/test$file.text", true);
    ck_assert_str_eq(buffer_string(&path), "/test%24file.text");
    s = s3_request_of("PUT", buffer_string(&path), "", hash, put, 5);
    check_signature(&s, "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");

    const struct s3_pair list[] = {{"Host", "examplebucket.s3.amazonaws.com"},
        {"x-amz-content-sha256", EMPTY_HASH}, {"x-amz-date", "20130524T000000Z"}};
    BUFFER_AUTO lifecycle = {0};
    const struct s3_pair no_value[] = {{"lifecycle", ""}};
    s3_append_query(&lifecycle, no_value, 1);
    s = s3_request_of("GET", "/", buffer_string(&lifecycle), EMPTY_HASH, list, 3);
    check_signature(&s, "host;x-amz-content-sha256;x-amz-date",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");

    BUFFER_AUTO query = {0};
    const struct s3_pair parameters[] = {{"prefix", "J"}, {"max-keys", "2"}};
    s3_append_query(&query, parameters, 2);
    s = s3_request_of("GET", "/", buffer_string(&query), EMPTY_HASH, list, 3);
    check_signature(&s, "host;x-amz-content-sha256;x-amz-date",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}
END_TEST

START_TEST(queries_sort_by_name_then_value)
{
    BUFFER_AUTO query = {0};
    const struct s3_pair parameters[] = {
        {"a-b", "1"}, {"a", "2/ +"}, {"a", "1"}, {"A", ""}, {"a_", "x=y&z"}};
    s3_append_query(&query, parameters, ARRAY_LENGTH(parameters));
    ck_assert_str_eq(buffer_string(&query), "A=&a=1&a=2%2F%20%2B&a-b=1&a_=x%3Dy%26z");
    BUFFER_AUTO none = {0};
    s3_append_query(&none, NULL, 0);
    ck_assert_str_eq(buffer_string(&none), "");
}
END_TEST

// ---- times --------------------------------------------------------------------------------------

START_TEST(times_are_read_and_written)
{
    uint64_t ms;
    char text[17];
    ck_assert_int_eq(time_parse_http("Sun, 06 Nov 1994 08:49:37 GMT", &ms), 0);
    ck_assert_uint_eq(ms, 784111777000u);
    time_format_amz(ms, text);
    ck_assert_str_eq(text, "19941106T084937Z");
    ck_assert_int_eq(time_parse_iso8601("2011-07-15T23:28:33.359Z", &ms), 0);
    ck_assert_uint_eq(ms, 1310772513000u);
    ck_assert_int_eq(time_parse_iso8601("2011-07-15T23:28:33Z", &ms), 0);
    ck_assert_uint_eq(ms, 1310772513000u);
    static const char *const bad[] = {"", "yesterday", "Sun, 06 Nov 1994", "2011-07-15",
        "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 anF 1994 08:49:37 GMT",
        "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 28:49:37 GMT", "2011-13-15T23:28:33Z",
        "2011-07-15T23:28:33+02:00", "2011-07-15T23:28:33", "9999999999-07-15T23:28:33Z"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        ck_assert_msg(time_parse_http(bad[i], &ms) == -EINVAL, "%s", bad[i]);
        ck_assert_msg(time_parse_iso8601(bad[i], &ms) == -EINVAL, "%s", bad[i]);
    }
    time_format_amz(UINT64_MAX, text);
}
END_TEST

// ---- XML ----------------------------------------------------------------------------------------

START_TEST(errors_are_read_and_made_harmless)
{
    static const char s3[] = "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>Be\n"
                             "slower \xc3\xa9</Message><Resource>/b/k</Resource>"
                             "<RequestId>4442</RequestId><Region>eu-west-3</Region></Error>";
    static const char sts[] =
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender"
        "</Type><Code>ExpiredTokenException</Code><Message>old</Message></Error>"
        "<RequestId>7</RequestId></ErrorResponse>";
    struct s3_error e;
    ck_assert_int_eq(s3_parse_error(s3, sizeof(s3) - 1, &e), 0);
    ck_assert_str_eq(e.code, "SlowDown");
    ck_assert_str_eq(e.message, "Be slower ??");
    ck_assert_str_eq(e.region, "eu-west-3");
    ck_assert_str_eq(e.request_id, "4442");
    ck_assert_int_eq(s3_parse_error(sts, sizeof(sts) - 1, &e), 0);
    ck_assert_str_eq(e.code, "ExpiredTokenException");
    static const char *const bad[] = {"", "<html><body>Bad Gateway</body></html>", "<Error/>",
        "<Error><Code>x</Code>", "not xml",
        "<!DOCTYPE Error [<!ENTITY a \"aaaaaaaaaa\">]><Error><Code>&a;&a;</Code></Error>"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        ck_assert_int_eq(s3_parse_error(bad[i], strlen(bad[i]), &e), -EBADMSG);
        ck_assert_str_eq(e.code, "");
    }
    BUFFER_AUTO huge = {0};
    buffer_append_string(&huge, "<Error><Code>C</Code><Message>");
    for (int i = 0; i < 1000; i++)
        buffer_append_string(&huge, "0123456789");
    buffer_append_string(&huge, "</Message></Error>");
    ck_assert_int_eq(s3_parse_error(huge.data, huge.length, &e), 0);
    ck_assert_uint_lt(strlen(e.message), sizeof(e.message));
    ck_assert_ptr_nonnull(strstr(e.message, "..."));
}
END_TEST

START_TEST(listings_are_read_and_checked)
{
    static const char good[] =
        "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>"
        "<IsTruncated>true</IsTruncated><NextContinuationToken>1&amp;2</NextContinuationToken>"
        "<Contents><Key>a/b &lt;1&gt;</Key><Size>17</Size><ETag>&quot;x&quot;</ETag></Contents>"
        "<Contents><Size>18446744073709551615</Size><Key>z</Key></Contents></ListBucketResult>";
    struct s3_list_page page;
    ck_assert_int_eq(s3_parse_list(good, sizeof(good) - 1, &page), 0);
    ck_assert_uint_eq(page.listing.count, 2);
    ck_assert(page.listing.more);
    ck_assert_str_eq(page.listing.entries[0].key, "a/b <1>");
    ck_assert_uint_eq(page.listing.entries[0].size, 17);
    ck_assert_uint_eq(page.listing.entries[1].size, UINT64_MAX);
    ck_assert_str_eq(buffer_string(&page.token), "1&2");
    s3_list_page_free(&page);
#define LIST(text) "<ListBucketResult>" text "</ListBucketResult>"
    static const char *const bad[] = {"", "<Error/>", LIST("<Contents><Key>a</Key></Contents>"),
        LIST("<Contents><Size>1</Size></Contents>"),
        LIST("<Contents><Key>a</Key><Size>-1</Size></Contents>"),
        LIST("<Contents><Key>a</Key><Size>1x</Size></Contents>"),
        LIST("<Contents><Key></Key><Size>1</Size></Contents>"),
        LIST("<Contents><Key>a</Key><Size>99999999999999999999</Size></Contents>"),
        LIST("<IsTruncated>maybe</IsTruncated>"), "<ListBucketResult><Contents>",
        LIST("<a><b><c><d><e><f><g><h/></g></f></e></d></c></b></a>")};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        ck_assert_msg(s3_parse_list(bad[i], strlen(bad[i]), &page) == -EBADMSG, "%s", bad[i]);
        ck_assert_uint_eq(page.listing.count, 0);
    }
    // Every beginning of a good answer is refused and nothing is read past its end.
    for (size_t n = 0; n < sizeof(good) - 1; n++) {
        char *cut = malloc(n + 1);
        memcpy(cut, good, n);
        ck_assert_int_eq(s3_parse_list(cut, n, &page), -EBADMSG);
        free(cut);
    }
}
END_TEST

static void
on_upload(void *context, const char *key, const char *id, uint64_t initiated_ms)
{
    struct buffer *out = context;
    buffer_printf(out, "%s %s %llu;", key, id, (unsigned long long)initiated_ms);
}

START_TEST(other_answers_are_read)
{
    struct s3_error e;
    BUFFER_AUTO out = {0};
    size_t count;
#define PARSE(function, text, ...) function(text, strlen(text), __VA_ARGS__)
    ck_assert_int_eq(PARSE(s3_parse_delete, "<DeleteResult/>", &e, &out, &count), 0);
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(PARSE(s3_parse_delete,
                         "<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>n</Key><Code>"
                         "NoSuchKey</Code></Error><Error><Key>b</Key><Code>AccessDenied</Code>"
                         "</Error><Error><Key>c</Key><Code>InternalError</Code></Error>"
                         "</DeleteResult>",
                         &e, &out, &count),
        0);
    ck_assert_uint_eq(count, 2);
    ck_assert_str_eq(e.code, "AccessDenied");
    ck_assert_str_eq(buffer_string(&out), "b");
    ck_assert_int_eq(PARSE(s3_parse_delete, "<Other/>", &e, &out, &count), -EBADMSG);

    ck_assert_int_eq(PARSE(s3_parse_upload_id,
                         "<InitiateMultipartUploadResult><UploadId>u~1</UploadId>"
                         "</InitiateMultipartUploadResult>",
                         &out),
        0);
    ck_assert_str_eq(buffer_string(&out), "u~1");
    ck_assert_int_eq(PARSE(s3_parse_upload_id, "<InitiateMultipartUploadResult/>", &out), -EBADMSG);

    static const char *const answers[] = {"<CompleteMultipartUploadResult/>",
        " \n<?xml version=\"1.0\"?><CompleteMultipartUploadResult/>",
        "<Error><Code>InternalError</Code></Error>", " ", ""};
    for (size_t i = 0; i < ARRAY_LENGTH(answers); i++)
        ck_assert_int_eq(s3_parse_complete(answers[i], strlen(answers[i])), i < 2 ? 0 : -EBADMSG);

    buffer_clear(&out);
    ck_assert_int_eq(PARSE(s3_parse_uploads,
                         "<ListMultipartUploadsResult><Upload><Key>k</Key><UploadId>1</UploadId>"
                         "<Initiated>1970-01-01T00:00:01.000Z</Initiated></Upload><Upload><Key>l"
                         "</Key></Upload></ListMultipartUploadsResult>",
                         on_upload, &out),
        0);
    ck_assert_str_eq(buffer_string(&out), "k 1 1000;");

    struct s3_assumed_role role;
    ck_assert_int_eq(
        PARSE(s3_parse_assumed_role,
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            "<AccessKeyId>A</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>"
            "</AssumeRoleWithWebIdentityResponse>",
            &role),
        -EBADMSG);
    ck_assert_ptr_null(role.access_key);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("store_sign");
    unit_add(s, "signatures_match_the_published_suite", signatures_match_the_published_suite, 10);
    unit_add(s, "signatures_match_the_s3_examples", signatures_match_the_s3_examples, 10);
    unit_add(s, "queries_sort_by_name_then_value", queries_sort_by_name_then_value, 10);
    unit_add(s, "times_are_read_and_written", times_are_read_and_written, 10);
    unit_add(s, "errors_are_read_and_made_harmless", errors_are_read_and_made_harmless, 10);
    unit_add(s, "listings_are_read_and_checked", listings_are_read_and_checked, 10);
    unit_add(s, "other_answers_are_read", other_answers_are_read, 10);
    return unit_run(s);
}
