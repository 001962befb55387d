// SPDX-License-Identifier: Apache-2.0
// Credentials from each of their sources; the services are played by a server in this process.
#include "unit.h"

#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mock_http.h"
#include "platform/memory.h"
#include "store/s3_credentials_internal.h"
#include "store/s3_process.h"
#include "store/s3_profile.h"

#define SECRET "kT7/SecretSecretSecretSecretSecretSecret"
#define NOW_MS 1700000000000u // 2023-11-14T22:13:20Z

static const struct remote_call no_limits;
static uint64_t now_ms;
static struct http_client *http;

static uint64_t
false_clock(void)
{
    return now_ms;
}

static void
clear_environment(void)
{
    static const char *const names[] = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION",
        "AWS_DEFAULT_REGION", "http_proxy"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        unsetenv(names[i]);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials", 1);
    setenv("AWS_CONFIG_FILE", "/nonexistent/config", 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
}

static struct s3_credential_chain *
open_chain(const char *profile)
{
    const struct http_client_options h = {.connections = 2, .timeout_ms = 5000};
    now_ms = NOW_MS;
    http = http_client_new(&h);
    const struct s3_credential_options options = {
        .http = http, .profile = profile, .region = "eu-west-3", .wall_ms = false_clock};
    return s3_credential_chain_new(&options);
}

static void
close_chain(struct s3_credential_chain *chain)
{
    s3_credential_chain_free(chain);
    http_client_free(http);
}

static void
check_keys(struct s3_credential_chain *chain, const char *access_key, const char *token)
{
    struct s3_credentials c;
    int rc = s3_credential_chain_get(chain, &no_limits, &c);
    ck_assert_msg(rc == 0, "%d: %s", rc, remote_store_error());
    ck_assert_str_eq(c.access_key, access_key);
    ck_assert_str_eq(c.secret_key, SECRET);
    ck_assert_str_eq(c.session_token ? c.session_token : "", token);
    s3_credentials_free(&c);
}

static void
check_failure(struct s3_credential_chain *chain, int expected, const char *words)
{
    struct s3_credentials c;
    ck_assert_int_eq(s3_credential_chain_get(chain, &no_limits, &c), expected);
    ck_assert_ptr_null(c.access_key);
    ck_assert_msg(
        strstr(remote_store_error(), words) != NULL, "\"%s\" in: %s", words, remote_store_error());
    ck_assert_ptr_null(strstr(remote_store_error(), SECRET));
}

static char *
write_file(const char *directory, const char *name, const char *text)
{
    char *path = memory_printf("%s/%s", directory, name);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, text, strlen(text), 0600), 0);
    return path;
}

static char *
json_of(const char *access_key, const char *expiration)
{
    return memory_printf(
        "{\"Code\":\"Success\",\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"" SECRET
        "\",\"Token\":\"tok-%s\",\"Expiration\":\"%s\"}",
        access_key, access_key, expiration);
}

static void
answer_json(struct mock_http *m, const char *access_key, const char *expiration)
{
    char *json = json_of(access_key, expiration);
    mock_http_answer(m, "200 OK", "", json);
    free(json);
}

// ---- the environment and files ------------------------------------------------------------------

START_TEST(environment_comes_first)
{
    clear_environment();
    setenv("AWS_ACCESS_KEY_ID", "AKENV", 1);
    struct s3_credential_chain *half = open_chain(NULL);
    check_failure(half, -EACCES, "AWS_SECRET_ACCESS_KEY is not");
    close_chain(half);
    setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1);
    struct s3_credential_chain *chain = open_chain(NULL);
    check_keys(chain, "AKENV", "");
    close_chain(chain);
    setenv("AWS_SESSION_TOKEN", "session", 1);
    chain = open_chain(NULL);
    check_keys(chain, "AKENV", "session");
    close_chain(chain);
}
END_TEST

START_TEST(profiles_are_read_from_both_files)
{
    clear_environment();
    char *directory = unit_directory_new();
    char *credentials = write_file(directory, "credentials",
        "# comment\r\n[other]\naws_access_key_id=AKOTHER\naws_secret_access_key=" SECRET "\n"
        "[default]\r\n  aws_access_key_id = AKDEFAULT   ; comment\r\n"
        "aws_secret_access_key\t=\t" SECRET "\r\n\n[half]\naws_access_key_id=AKHALF\n"
        "[token]\naws_access_key_id=AKTOKEN\naws_secret_access_key=" SECRET
        "\naws_session_token=t=t#t\n[empty]");
    char *config = write_file(directory, "config",
        "[default]\nregion = eu-south-2\ns3 =\n  region = nested\n[profile other]\n"
        "region=us-west-1\naws_access_key_id=AKWRONG\naws_secret_access_key=wrong\n"
        "[profile half]\naws_secret_access_key=" SECRET "\n[profile config]\n"
        "aws_access_key_id=AKCONFIG\naws_secret_access_key=" SECRET "\n[profile sso]\n"
        "sso_session = x\n[other2]\naws_access_key_id=AK2\n");
    setenv("AWS_SHARED_CREDENTIALS_FILE", credentials, 1);
    setenv("AWS_CONFIG_FILE", config, 1);
    static const struct {
        const char *profile, *access_key, *token, *region;
    } good[] = {{NULL, "AKDEFAULT", "", "eu-south-2"}, {"other", "AKOTHER", "", "us-west-1"},
        {"token", "AKTOKEN", "t=t#t", NULL}, {"config", "AKCONFIG", "", NULL}};
    for (size_t i = 0; i < ARRAY_LENGTH(good); i++) {
        struct s3_credential_chain *chain = open_chain(good[i].profile);
        check_keys(chain, good[i].access_key, good[i].token);
        close_chain(chain);
        char *region = s3_region_from_environment(good[i].profile);
        ck_assert_str_eq(region ? region : "-", good[i].region ? good[i].region : "-");
        free(region);
    }
    static const struct {
        const char *profile, *words;
    } bad[] = {{"half", "no complete credentials"}, {"empty", "no complete credentials"},
        {"none", "no AWS profile \"none\""}, {"other2", "no AWS profile"},
        {"sso", "uses sso_session"}};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct s3_credential_chain *chain = open_chain(bad[i].profile);
        check_failure(chain, -EACCES, bad[i].words);
        close_chain(chain);
    }
    // A profile that was asked for by option wins over the environment, AWS_PROFILE does not.
    setenv("AWS_ACCESS_KEY_ID", "AKENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1);
    setenv("AWS_PROFILE", "config", 1);
    setenv("AWS_REGION", "sa-east-1", 1);
    struct s3_credential_chain *chain = open_chain("other");
    check_keys(chain, "AKOTHER", "");
    close_chain(chain);
    chain = open_chain(NULL);
    check_keys(chain, "AKENV", "");
    close_chain(chain);
    char *region = s3_region_from_environment("other");
    ck_assert_str_eq(region, "sa-east-1");
    free(region);
    free(credentials);
    free(config);
    unit_directory_remove(directory);
}
END_TEST

static void
check_endpoint(const char *profile, const char *expected)
{
    char *endpoint = s3_endpoint_from_environment(profile);
    ck_assert_str_eq(endpoint ? endpoint : "none", expected);
    free(endpoint);
}

START_TEST(endpoint_comes_from_environment_or_profile)
{
    clear_environment();
    char *directory = unit_directory_new();
    check_endpoint(NULL, "none");
    char *config = write_file(directory, "config",
        "[default]\nendpoint_url = http://default:1\n"
        "[profile a]\nendpoint_url = http://a:2\n[profile b]\nregion = x\n");
    setenv("AWS_CONFIG_FILE", config, 1);
    check_endpoint(NULL, "http://default:1");
    check_endpoint("a", "http://a:2");
    check_endpoint("b", "none");
    setenv("AWS_ENDPOINT_URL", "http://all:3", 1);
    check_endpoint("a", "http://all:3");
    setenv("AWS_ENDPOINT_URL_S3", "http://s3:4", 1);
    check_endpoint("a", "http://s3:4");
    free(config);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(without_home_the_user_database_is_asked)
{
    clear_environment();
    unsetenv("AWS_SHARED_CREDENTIALS_FILE");
    unsetenv("AWS_CONFIG_FILE");
    unsetenv("HOME");
    // The directory of the user is not the test's to write to: the path of a file shows what is
    // used.
    struct s3_environment env;
    s3_environment_read(&env);
    char *path = s3_environment_profile_path(&env);
    char *expected = memory_printf("%s/.aws/credentials", getpwuid(geteuid())->pw_dir);
    ck_assert_str_eq(path, expected);
    free(expected);
    free(path);
    s3_environment_free(&env);
}
END_TEST

START_TEST(refused_files_are_read_again)
{
    clear_environment();
    char *directory = unit_directory_new();
    char *path = write_file(directory, "credentials",
        "[default]\naws_access_key_id=AK1\naws_secret_access_key=" SECRET "\n");
    setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
    struct s3_credential_chain *chain = open_chain(NULL);
    struct s3_credentials first;
    ck_assert_int_eq(s3_credential_chain_get(chain, &no_limits, &first), 0);
    free(write_file(directory, "credentials",
        "[default]\naws_access_key_id=AK2\naws_secret_access_key=" SECRET "\n"));
    check_keys(chain, "AK1", "");
    s3_credential_chain_refused(chain, &first);
    check_keys(chain, "AK2", "");
    s3_credential_chain_refused(chain, &first); // late: these are others by now
    check_keys(chain, "AK2", "");
    s3_credentials_free(&first);
    close_chain(chain);
    free(path);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(parser_survives_any_text)
{
    static const char text[] = "[profile x]\n=\n==\n[\n]\n[]\n[profile ]\nkey\n a = b\n\n\t\n"
                               "[x]\nregion\n=region\nregion=\n  region=q\nregion=r\0s\n[";
    for (size_t n = 0; n <= sizeof(text); n++) {
        char *exact = malloc(n ? n : 1);
        memcpy(exact, text, n);
        struct s3_profile p = {0};
        s3_profile_parse(exact, n, "x", n % 2 == 0, &p);
        s3_profile_free(&p);
        free(exact);
    }
}
END_TEST

START_TEST(nothing_found_says_where_it_looked)
{
    clear_environment();
    struct s3_credential_chain *chain = open_chain(NULL);
    check_failure(chain, -EACCES, "AWS_ACCESS_KEY_ID");
    check_failure(chain, -EACCES, "profile \"default\"");
    close_chain(chain);
}
END_TEST

// ---- web identity -------------------------------------------------------------------------------

static void
answer_role(struct mock_http *m, const char *access_key, const char *expiration)
{
    char *xml = memory_printf(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"
        "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%s</AccessKeyId>"
        "<SecretAccessKey>" SECRET "</SecretAccessKey><SessionToken>st</SessionToken>"
        "<Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
        "</AssumeRoleWithWebIdentityResponse>",
        access_key, expiration);
    mock_http_answer(m, "200 OK", "Content-Type: text/xml\r\n", xml);
    free(xml);
}

START_TEST(web_identity_is_exchanged_and_renewed_before_it_expires)
{
    clear_environment();
    char *directory = unit_directory_new();
    char *token = write_file(directory, "token", "to ken+1\n");
    struct mock_http *m = mock_http_start();
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token, 1);
    setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r", 1);
    setenv("AWS_ENDPOINT_URL_STS", mock_http_url(m), 1);
    answer_role(m, "AKROLE1", "2023-11-14T23:13:20Z"); // in an hour
    answer_role(m, "AKROLE2", "2023-11-15T00:13:20Z");
    struct s3_credential_chain *chain = open_chain(NULL);
    check_keys(chain, "AKROLE1", "st");
    now_ms += 54 * 60 * 1000;
    check_keys(chain, "AKROLE1", "st");
    free(write_file(directory, "token", "token2"));
    now_ms += 2 * 60 * 1000;
    check_keys(chain, "AKROLE2", "st");
    const struct mock_request *r = mock_http_request(m, 0);
    ck_assert_str_eq(r->method, "POST");
    ck_assert_str_eq(r->target, "/");
    ck_assert_str_eq(r->body,
        "Action=AssumeRoleWithWebIdentity&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&"
        "RoleSessionName=ckptfs&Version=2011-06-15&WebIdentityToken=to%20ken%2B1");
    ck_assert_ptr_nonnull(strstr(mock_http_request(m, 1)->body, "WebIdentityToken=token2"));
    // While the old ones are good, a failure to renew is no failure.
    mock_http_answer(m, "503 Busy", "", "");
    now_ms += 60 * 60 * 1000;
    check_keys(chain, "AKROLE2", "st");
    check_keys(chain, "AKROLE2", "st"); // and is not repeated at once
    ck_assert_uint_eq(mock_http_count(m), 3);
    mock_http_answer(m, "503 Busy", "", "");
    mock_http_answer(m, "400 Bad Request", "",
        "<ErrorResponse><Error><Code>ExpiredTokenException</Code><Message>Token expired</Message>"
        "</Error></ErrorResponse>");
    now_ms += 10 * 60 * 1000;
    check_failure(chain, -EAGAIN, "503");
    check_failure(chain, -EACCES, "Token expired");
    close_chain(chain);
    mock_http_stop(m);
    free(token);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(web_identity_of_a_profile_is_used)
{
    clear_environment();
    char *directory = unit_directory_new();
    char *token = write_file(directory, "token", "t");
    char *text = memory_printf("[profile web]\nrole_arn = arn:r\nrole_session_name = me\n"
                               "web_identity_token_file = %s\n",
        token);
    char *config = write_file(directory, "config", text);
    struct mock_http *m = mock_http_start();
    setenv("AWS_CONFIG_FILE", config, 1);
    setenv("AWS_ENDPOINT_URL_STS", mock_http_url(m), 1);
    answer_role(m, "AKWEB", "2023-11-14T23:13:20Z");
    mock_http_answer(m, "200 OK", "", "<html/>");
    struct s3_credential_chain *chain = open_chain("web");
    check_keys(chain, "AKWEB", "st");
    ck_assert_ptr_nonnull(strstr(mock_http_request(m, 0)->body, "RoleSessionName=me"));
    close_chain(chain);
    chain = open_chain("web");
    check_failure(chain, -EAGAIN, "without credentials");
    close_chain(chain);
    ck_assert_int_eq(remove(token), 0);
    chain = open_chain("web");
    check_failure(chain, -EACCES, "cannot read the token file");
    close_chain(chain);
    mock_http_stop(m);
    free(token);
    free(text);
    free(config);
    unit_directory_remove(directory);
}
END_TEST

// ---- containers ---------------------------------------------------------------------------------

START_TEST(container_is_asked_with_its_token)
{
    clear_environment();
    char *directory = unit_directory_new();
    char *token = write_file(directory, "token", "Basic abc\n");
    struct mock_http *m = mock_http_start();
    char *url = memory_printf("%s/creds?id=1", mock_http_url(m));
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "not this", 1);
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token, 1);
    setenv("http_proxy", "http://127.0.0.1:1", 1); // must not be used
    answer_json(m, "AKCONT", "2023-11-14T23:13:20Z");
    mock_http_answer(m, "200 OK", "", "{\"AccessKeyId\": 5}");
    mock_http_answer(m, "403 Forbidden", "", "");
    mock_http_answer(m, "500 Oops", "", "");
    struct s3_credential_chain *chain = open_chain(NULL);
    check_keys(chain, "AKCONT", "tok-AKCONT");
    ck_assert_str_eq(mock_http_request(m, 0)->target, "/creds?id=1");
    char *sent = mock_request_header(mock_http_request(m, 0), "authorization");
    ck_assert_str_eq(sent, "Basic abc");
    free(sent);
    close_chain(chain);
    chain = open_chain(NULL);
    check_failure(chain, -EACCES, "other than credentials");
    check_failure(chain, -EACCES, "status 403");
    check_failure(chain, -EAGAIN, "status 500");
    close_chain(chain);
    static const char *const bad[] = {"http://example.com/", "http://169.254.170.2.example.com/",
        "http://127.evil.example/x", "http://[", "http://127.0.0.1@example.com/",
        "ftp://127.0.0.1/"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", bad[i], 1);
        chain = open_chain(NULL);
        check_failure(chain, -EACCES, "loopback");
        close_chain(chain);
    }
    mock_http_stop(m);
    free(token);
    free(url);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(tokens_with_line_breaks_are_not_sent)
{
    clear_environment();
    char *directory = unit_directory_new();
    char *token = write_file(directory, "token", "a\r\nX-Injected: 1");
    struct mock_http *m = mock_http_start();
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", mock_http_url(m), 1);
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token, 1);
    struct s3_credential_chain *chain = open_chain(NULL);
    check_failure(chain, -EIO, "line break");
    close_chain(chain);
    mock_http_stop(m);
    free(token);
    unit_directory_remove(directory);
}
END_TEST

// ---- instance metadata --------------------------------------------------------------------------

START_TEST(instance_metadata_is_asked_with_a_session_token)
{
    clear_environment();
    struct mock_http *m = mock_http_start();
    unsetenv("AWS_EC2_METADATA_DISABLED");
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", mock_http_url(m), 1);
    for (int i = 1; i <= 2; i++) {
        mock_http_answer(m, "200 OK", "", "imds-token");
        mock_http_answer(m, "200 OK", "", "the-role\n");
        answer_json(m, i == 1 ? "AKIMDS1" : "AKIMDS2",
            i == 1 ? "2023-11-14T22:14:20Z" : "2023-11-14T23:13:20Z");
    }
    struct s3_credential_chain *chain = open_chain(NULL);
    check_keys(chain, "AKIMDS1", "tok-AKIMDS1"); // expires in a minute, good until then
    check_keys(chain, "AKIMDS1", "tok-AKIMDS1");
    ck_assert_uint_eq(mock_http_count(m), 3);
    now_ms += 11000;
    check_keys(chain, "AKIMDS2", "tok-AKIMDS2");
    ck_assert_str_eq(mock_http_request(m, 0)->method, "PUT");
    ck_assert_str_eq(mock_http_request(m, 0)->target, "/latest/api/token");
    ck_assert_str_eq(
        mock_http_request(m, 1)->target, "/latest/meta-data/iam/security-credentials/");
    ck_assert_str_eq(
        mock_http_request(m, 2)->target, "/latest/meta-data/iam/security-credentials/the-role");
    for (size_t i = 1; i < 3; i++) {
        char *sent = mock_request_header(mock_http_request(m, i), "x-aws-ec2-metadata-token");
        ck_assert_str_eq(sent, "imds-token");
        free(sent);
    }
    // It has answered before, so that it does not now is a passing failure.
    mock_http_raw(m, "", 0, MOCK_CLOSE);
    mock_http_raw(m, "", 0, MOCK_CLOSE); // the first was a kept connection, and is tried anew
    now_ms += 3600 * 1000;
    check_failure(chain, -EAGAIN, "");
    close_chain(chain);
    mock_http_stop(m);
}
END_TEST

START_TEST(instance_without_role_or_metadata_has_no_credentials)
{
    clear_environment();
    struct mock_http *m = mock_http_start();
    unsetenv("AWS_EC2_METADATA_DISABLED");
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", mock_http_url(m), 1);
    mock_http_answer(m, "200 OK", "", "imds-token");
    mock_http_answer(m, "404 Not Found", "", "");
    mock_http_raw(m, "", 0, MOCK_RESET);
    mock_http_raw(m, "", 0, MOCK_RESET);
    mock_http_answer(m, "403 Forbidden", "", "");
    struct s3_credential_chain *chain = open_chain(NULL);
    check_failure(chain, -EACCES, "there are no AWS credentials");
    check_failure(chain, -EACCES, "there are no AWS credentials");
    check_failure(chain, -EACCES, "status 403");
    close_chain(chain);
    mock_http_stop(m);
}
END_TEST

START_TEST(all_sources_that_were_tried_are_named)
{
    clear_environment();
    struct s3_credential_chain *chain = open_chain(NULL);
    check_failure(chain, -EACCES, "environment: AWS_ACCESS_KEY_ID is not set");
    check_failure(chain, -EACCES, "web identity: AWS_ROLE_ARN is not set");
    check_failure(chain, -EACCES,
        "profile: /nonexistent/credentials and /nonexistent/config hold no profile \"default\"");
    check_failure(chain, -EACCES, "container: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    check_failure(chain, -EACCES, "instance metadata: AWS_EC2_METADATA_DISABLED is true");
    close_chain(chain);
}
END_TEST

// ---- a process ----------------------------------------------------------------------------------

START_TEST(commands_are_split_as_a_shell_quotes)
{
    static const struct {
        const char *command;
        const char *words; // joined by '|'; NULL: refused
    } cases[] = {
        {"one", "one|"},
        {"  a  b\tc ", "a|b|c|"},
        {"'a b' \"c 'd' \\\"e\\\\\" f\\ g", "a b|c 'd' \"e\\|f g|"},
        {"a '' b", "a||b|"},
        {"a$HOME `b` ;c", "a$HOME|`b`|;c|"},
        {"'a b", NULL},
        {"\"", NULL},
        {"", NULL},
        {"   ", NULL},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct s3_words words;
        BUFFER_AUTO joined = {0};
        bool good = s3_words_split(cases[i].command, &words);
        ck_assert_msg(good == (cases[i].words != NULL), "%s", cases[i].command);
        for (size_t w = 0; words.words[w]; w++)
            buffer_printf(&joined, "%s|", words.words[w]);
        if (good)
            ck_assert_str_eq(buffer_string(&joined), cases[i].words);
        s3_words_free(&words);
    }
}
END_TEST

// A profile whose credential_process is the script `body`, with an argument that needs a quote.
static struct s3_credential_chain *
open_process(const char *directory, const char *body)
{
    char *text = memory_printf("#!/bin/sh\n%s\n", body);
    char *script = write_file(directory, "give keys", text);
    ck_assert_int_eq(chmod(script, 0700), 0);
    char *config =
        memory_printf("[default]\ncredential_process = '%s' \"with blanks\"\nregion = x\n", script);
    char *path = write_file(directory, "config", config);
    setenv("AWS_CONFIG_FILE", path, 1);
    free(text);
    free(script);
    free(config);
    free(path);
    return open_chain(NULL);
}

START_TEST(process_of_a_profile_gives_keys_until_they_expire)
{
    clear_environment();
    char *directory = unit_directory_new();
    // It counts its calls: the first keys expire in an hour, the second ones do not.
    char *body = memory_printf(
        "[ \"$1\" = 'with blanks' ] || exit 3\n"
        "n=$(cat %s/calls 2>/dev/null || echo 0); echo $((n + 1)) >%s/calls\n"
        "echo " SECRET " >&2\n"
        "[ $n = 0 ] && end=',\"Expiration\":\"2023-11-14T23:13:20Z\"'\n"
        "echo '{\"Version\":1,\"AccessKeyId\":\"AK'$n'\",\"SecretAccessKey\":\"" SECRET
        "\",\"SessionToken\":\"tok\"'$end'}'",
        directory, directory);
    struct s3_credential_chain *chain = open_process(directory, body);
    check_keys(chain, "AK0", "tok");
    check_keys(chain, "AK0", "tok");
    now_ms += 3590 * 1000;
    check_keys(chain, "AK1", "tok");
    now_ms += 24 * 3600 * 1000;
    check_keys(chain, "AK1", "tok");
    close_chain(chain);
    free(body);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(processes_that_fail_are_named_and_their_output_is_not_shown)
{
    static const struct {
        const char *body, *said;
    } cases[] = {
        {"echo " SECRET "; echo " SECRET " >&2; exit 7", "ended with status 7"},
        {"kill -9 $$", "ended with signal 9"},
        {"echo '" SECRET "'", "no JSON object of Version 1"},
        {"echo '{\"Version\":2,\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"" SECRET "\"}'",
            "no JSON object of Version 1"},
        {"echo '{\"Version\":1,\"AccessKeyId\":\"a\"}'", "something other than credentials"},
        {"yes " SECRET, "wrote too much"},
    };
    clear_environment();
    char *directory = unit_directory_new();
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct s3_credential_chain *chain = open_process(directory, cases[i].body);
        check_failure(chain, -EACCES, cases[i].said);
        close_chain(chain);
    }
    BUFFER_AUTO out = {0};
    ck_assert_int_eq(s3_process_run("/nonexistent/program", 1000, &no_limits, &out), -EACCES);
    ck_assert_ptr_nonnull(strstr(remote_store_error(), "/nonexistent/program cannot be run"));
    // One that leaves the output open, or goes on without it, ends with its time.
    ck_assert_int_eq(s3_process_run("sleep 1000", 50, &no_limits, &out), -EACCES);
    ck_assert_int_eq(s3_process_run("sh -c 'sleep 1000 &'", 50, &no_limits, &out), -EACCES);
    ck_assert_int_eq(s3_process_run("sh -c 'exec >&-; sleep 1000'", 50, &no_limits, &out), -EACCES);
    ck_assert_ptr_nonnull(strstr(remote_store_error(), "did not end in time"));
    unit_directory_remove(directory);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("store_credentials");
#define ADD(test) unit_add(s, #test, test, 20)
    ADD(environment_comes_first);
    ADD(profiles_are_read_from_both_files);
    ADD(endpoint_comes_from_environment_or_profile);
    ADD(without_home_the_user_database_is_asked);
    ADD(refused_files_are_read_again);
    ADD(parser_survives_any_text);
    ADD(nothing_found_says_where_it_looked);
    ADD(web_identity_is_exchanged_and_renewed_before_it_expires);
    ADD(web_identity_of_a_profile_is_used);
    ADD(container_is_asked_with_its_token);
    ADD(tokens_with_line_breaks_are_not_sent);
    ADD(instance_metadata_is_asked_with_a_session_token);
    ADD(instance_without_role_or_metadata_has_no_credentials);
    ADD(all_sources_that_were_tried_are_named);
    ADD(commands_are_split_as_a_shell_quotes);
    ADD(process_of_a_profile_gives_keys_until_they_expire);
    ADD(processes_that_fail_are_named_and_their_output_is_not_shown);
    return unit_run(s);
}
