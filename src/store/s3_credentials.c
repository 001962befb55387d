// SPDX-License-Identifier: Apache-2.0
#include "store/s3_credentials.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/file.h"
#include "platform/lock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "store/s3_profile.h"
#include "store/s3_response.h"
#include "store/store_internal.h"

#define REFRESH_BEFORE_MS   (5ull * 60 * 1000)
#define REFRESH_AGAIN_MS    (10ull * 1000) // when that failed, or brought what expires at once
#define USABLE_MS           (5ull * 1000)  // what expires sooner is not given out
#define TOKEN_MAX_BYTES     (64u * 1024)
#define ANSWER_MAX_BYTES    (64u * 1024)
#define METADATA_TIMEOUT_MS 2000
#define STS_TIMEOUT_MS      10000

// The environment that matters, copied when the chain is made.
enum variable {
    ACCESS_KEY_ID,
    SECRET_ACCESS_KEY,
    SESSION_TOKEN,
    PROFILE,
    SHARED_CREDENTIALS_FILE,
    CONFIG_FILE,
    WEB_IDENTITY_TOKEN_FILE,
    ROLE_ARN,
    ROLE_SESSION_NAME,
    CONTAINER_RELATIVE_URI,
    CONTAINER_FULL_URI,
    CONTAINER_TOKEN,
    CONTAINER_TOKEN_FILE,
    METADATA_DISABLED,
    METADATA_ENDPOINT,
    STS_ENDPOINT,
    HOME,
    VARIABLE_COUNT,
};
static const char *const variable_names[VARIABLE_COUNT] = {
    [ACCESS_KEY_ID] = "AWS_ACCESS_KEY_ID",
    [SECRET_ACCESS_KEY] = "AWS_SECRET_ACCESS_KEY",
    [SESSION_TOKEN] = "AWS_SESSION_TOKEN",
    [PROFILE] = "AWS_PROFILE",
    [SHARED_CREDENTIALS_FILE] = "AWS_SHARED_CREDENTIALS_FILE",
    [CONFIG_FILE] = "AWS_CONFIG_FILE",
    [WEB_IDENTITY_TOKEN_FILE] = "AWS_WEB_IDENTITY_TOKEN_FILE",
    [ROLE_ARN] = "AWS_ROLE_ARN",
    [ROLE_SESSION_NAME] = "AWS_ROLE_SESSION_NAME",
    [CONTAINER_RELATIVE_URI] = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    [CONTAINER_FULL_URI] = "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    [CONTAINER_TOKEN] = "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    [CONTAINER_TOKEN_FILE] = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    [METADATA_DISABLED] = "AWS_EC2_METADATA_DISABLED",
    [METADATA_ENDPOINT] = "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    [STS_ENDPOINT] = "AWS_ENDPOINT_URL_STS",
    [HOME] = "HOME",
};

struct environment {
    char *values[VARIABLE_COUNT]; // NULL where unset or empty
};

struct s3_credential_chain {
    struct http_client *http;
    char *profile; // NULL: none was asked for
    char *region;
    uint64_t (*wall_ms)(void);
    struct environment env;

    // Protects all below. Not held while credentials are fetched.
    struct lock lock;
    struct condition fetched;
    struct s3_credentials now;
    uint64_t refresh_at_ms; // 0: never
    bool is_fetching;
    bool has_metadata; // the instance metadata has answered once
};

// A source of credentials: 0, -ENODATA when it is not configured, or an error with a text.
typedef int source_function(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out);

// ---- small things -------------------------------------------------------------------------------

static void
wipe(char *s)
{
    if (s)
        explicit_bzero(s, strlen(s));
    free(s);
}

void
s3_credentials_free(struct s3_credentials *c)
{
    wipe(c->access_key);
    wipe(c->secret_key);
    wipe(c->session_token);
    *c = (struct s3_credentials){0};
}

static char *
copy_string(const char *s)
{
    return s ? memory_string(s) : NULL;
}

static struct s3_credentials
copy_credentials(const struct s3_credentials *c)
{
    return (struct s3_credentials){copy_string(c->access_key), copy_string(c->secret_key),
        copy_string(c->session_token), c->expires_ms};
}

static void
environment_read(struct environment *env)
{
    for (int i = 0; i < VARIABLE_COUNT; i++) {
        const char *value = getenv(variable_names[i]);
        env->values[i] = value && *value ? memory_string(value) : NULL;
    }
}

static void
environment_free(struct environment *env)
{
    for (int i = 0; i < VARIABLE_COUNT; i++)
        wipe(env->values[i]);
}

// A token that stands in a file, without the line break at its end.
static int
read_token(const char *path, struct buffer *out)
{
    int rc = file_read_whole(path, TOKEN_MAX_BYTES, out);
    if (rc < 0)
        return store_fail(-EACCES, "cannot read the token file %s: %s", path, strerror(-rc));
    while (out->length > 0 && strchr(" \t\r\n", out->data[out->length - 1]))
        out->length--;
    if (out->length == 0)
        return store_fail(-EACCES, "the token file %s is empty", path);
    return 0;
}

// ---- the sources --------------------------------------------------------------------------------

static int
from_environment(struct s3_credential_chain *chain, const struct remote_call *call UNUSED,
    struct s3_credentials *out)
{
    char **env = chain->env.values;
    if (!env[ACCESS_KEY_ID] && !env[SECRET_ACCESS_KEY])
        return -ENODATA;
    if (!env[ACCESS_KEY_ID] || !env[SECRET_ACCESS_KEY])
        return store_fail(-EACCES, "%s is set and %s is not",
            variable_names[env[ACCESS_KEY_ID] ? ACCESS_KEY_ID : SECRET_ACCESS_KEY],
            variable_names[env[ACCESS_KEY_ID] ? SECRET_ACCESS_KEY : ACCESS_KEY_ID]);
    *out = (struct s3_credentials){memory_string(env[ACCESS_KEY_ID]),
        memory_string(env[SECRET_ACCESS_KEY]), copy_string(env[SESSION_TOKEN]), 0};
    return 0;
}

static int
assume_role(struct s3_credential_chain *chain, const struct remote_call *call, const char *path,
    const char *role, const char *session, struct s3_credentials *out)
{
    BUFFER_AUTO token = {0};
    BUFFER_AUTO form = {0};
    BUFFER_AUTO url = {0};
    int rc = read_token(path, &token);
    if (rc < 0)
        return rc;
    const struct s3_pair parameters[] = {
        {"Action", "AssumeRoleWithWebIdentity"},
        {"Version", "2011-06-15"},
        {"RoleArn", role},
        {"RoleSessionName", session ? session : "ckptfs"},
        {"WebIdentityToken", buffer_string(&token)},
    };
    s3_append_query(&form, parameters, ARRAY_LENGTH(parameters));
    const char *endpoint = chain->env.values[STS_ENDPOINT];
    if (endpoint)
        buffer_printf(&url, "%s/", endpoint);
    else
        buffer_printf(&url, "https://sts.%s.amazonaws.com%s/", chain->region,
            strncmp(chain->region, "cn-", 3) == 0 ? ".cn" : "");
    const struct s3_pair headers[] = {{"content-type", "application/x-www-form-urlencoded"}};
    const struct remote_source body = {.data = form.data, .fd = -1, .length = form.length};
    const struct http_request request = {
        .method = "POST",
        .url = buffer_string(&url),
        .headers = headers,
        .header_count = 1,
        .body = &body,
        .body_length = form.length,
        .limit = ANSWER_MAX_BYTES,
        .timeout_ms = STS_TIMEOUT_MS,
        .call = call,
    };
    struct http_response response;
    rc = http_client_perform(chain->http, &request, &response);
    explicit_bzero(form.data, form.length);
    explicit_bzero(token.data, token.length);
    struct s3_assumed_role assumed;
    if (rc < 0) {
        rc = store_fail(
            rc, "AssumeRoleWithWebIdentity at %s: %s", buffer_string(&url), remote_store_error());
    } else if (response.status / 100 != 2) {
        struct s3_error error;
        if (s3_parse_error(response.body.data, response.body.length, &error) < 0)
            error = (struct s3_error){0};
        bool again = response.status >= 500 || response.status == 429 ||
                     strcmp(error.code, "IDPCommunicationError") == 0 ||
                     strcmp(error.code, "Throttling") == 0;
        rc =
            store_fail(again ? -EAGAIN : -EACCES, "AssumeRoleWithWebIdentity of %s at %s: %d %s %s",
                role, buffer_string(&url), response.status, error.code, error.message);
    } else if (s3_parse_assumed_role(response.body.data, response.body.length, &assumed) < 0) {
        rc = store_fail(-EAGAIN, "AssumeRoleWithWebIdentity at %s: an answer without credentials",
            buffer_string(&url));
    } else {
        *out = (struct s3_credentials){
            assumed.access_key, assumed.secret_key, assumed.session_token, assumed.expires_ms};
    }
    if (response.body.length > 0)
        explicit_bzero(response.body.data, response.body.length);
    http_response_free(&response);
    return rc;
}

static int
from_web_identity(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out)
{
    char **env = chain->env.values;
    if (!env[WEB_IDENTITY_TOKEN_FILE] || !env[ROLE_ARN])
        return -ENODATA;
    return assume_role(
        chain, call, env[WEB_IDENTITY_TOKEN_FILE], env[ROLE_ARN], env[ROLE_SESSION_NAME], out);
}

static char *
profile_file(const struct environment *env, enum variable variable, const char *name)
{
    if (env->values[variable])
        return memory_string(env->values[variable]);
    return memory_printf("%s/.aws/%s", env->values[HOME] ? env->values[HOME] : "", name);
}

static int
load_profile(const struct environment *env, const char *profile, struct s3_profile *out)
{
    CLEANUP(memory_free_auto)
    char *credentials = profile_file(env, SHARED_CREDENTIALS_FILE, "credentials");
    CLEANUP(memory_free_auto) char *config = profile_file(env, CONFIG_FILE, "config");
    return s3_profile_load(credentials, config, profile, out);
}

static const char *
profile_name(const struct environment *env, const char *asked)
{
    return asked ? asked : env->values[PROFILE] ? env->values[PROFILE] : "default";
}

static int
from_profile(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out)
{
    const char *name = profile_name(&chain->env, chain->profile);
    bool was_named = chain->profile || chain->env.values[PROFILE];
    struct s3_profile p;
    int rc = load_profile(&chain->env, name, &p);
    if (rc < 0)
        return rc;
    if (p.web_identity_token_file && p.role_arn) {
        rc = assume_role(
            chain, call, p.web_identity_token_file, p.role_arn, p.role_session_name, out);
    } else if (p.access_key && p.secret_key) {
        *out = (struct s3_credentials){p.access_key, p.secret_key, p.session_token, 0};
        p.access_key = p.secret_key = p.session_token = NULL;
    } else if (p.unsupported) {
        rc = store_fail(-EACCES,
            "AWS profile \"%s\" uses %s, which is not supported; it needs aws_access_key_id and "
            "aws_secret_access_key, or role_arn and web_identity_token_file",
            name, p.unsupported);
    } else if (was_named && !p.found) {
        rc = store_fail(-EACCES, "there is no AWS profile \"%s\"", name);
    } else if (p.access_key || p.secret_key || chain->profile) {
        rc = store_fail(-EACCES, "AWS profile \"%s\" has no complete credentials", name);
    } else {
        rc = -ENODATA;
    }
    s3_profile_free(&p);
    return rc;
}

// A GET or PUT at a metadata service: 0 with a 2xx answer, -ENOENT for 404, else an error.
static int
ask_metadata(struct s3_credential_chain *chain, const struct remote_call *call, const char *method,
    const char *url, const struct s3_pair *header, struct http_response *response_out)
{
    const struct http_request request = {
        .method = method,
        .url = url,
        .headers = header,
        .header_count = header && header->value,
        .limit = ANSWER_MAX_BYTES,
        .direct = true,
        .timeout_ms = METADATA_TIMEOUT_MS,
        .call = call,
    };
    int rc = http_client_perform(chain->http, &request, response_out);
    if (rc < 0)
        return store_fail(rc, "credentials from %s: %s", url, remote_store_error());
    int status = response_out->status;
    if (status / 100 == 2)
        return 0;
    return store_fail(status == 404                    ? -ENOENT
                      : status >= 500 || status == 429 ? -EAGAIN
                                                       : -EACCES,
        "credentials from %s: status %d", url, status);
}

// A token is sent along, so plain HTTP goes only to this machine and to the link-local addresses of
// the container services.
static bool
may_ask_container(const char *url)
{
    static const char *const trusted[] = {
        "localhost", "[::1]", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"};
    if (strncmp(url, "https://", 8) == 0)
        return true;
    if (strncmp(url, "http://", 7) != 0)
        return false;
    const char *host = url + 7;
    if (strchr(host, '@'))
        return false;
    size_t n = *host == '[' ? strcspn(host, "]/") + 1 : strcspn(host, ":/?#");
    for (size_t i = 0; i < ARRAY_LENGTH(trusted); i++)
        if (n == strlen(trusted[i]) && strncmp(host, trusted[i], n) == 0)
            return true;
    return strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == n;
}

static int
from_container(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out)
{
    char **env = chain->env.values;
    BUFFER_AUTO url = {0};
    BUFFER_AUTO token = {0};
    if (env[CONTAINER_RELATIVE_URI])
        buffer_printf(&url, "http://169.254.170.2%s", env[CONTAINER_RELATIVE_URI]);
    else if (env[CONTAINER_FULL_URI])
        buffer_append_string(&url, env[CONTAINER_FULL_URI]);
    else
        return -ENODATA;
    if (!may_ask_container(buffer_string(&url)))
        return store_fail(-EACCES, "%s is neither https nor a loopback or link-local address",
            variable_names[CONTAINER_FULL_URI]);
    struct s3_pair header = {"authorization", env[CONTAINER_TOKEN]};
    if (env[CONTAINER_TOKEN_FILE]) {
        int rc = read_token(env[CONTAINER_TOKEN_FILE], &token);
        if (rc < 0)
            return rc;
        header.value = buffer_string(&token);
    }
    struct http_response response;
    int rc = ask_metadata(chain, call, "GET", buffer_string(&url), &header, &response);
    if (rc == 0)
        rc = s3_credentials_from_json(
            response.body.data, response.body.length, buffer_string(&url), out);
    http_response_free(&response);
    return rc == -ENOENT || rc == -EBADMSG ? -EACCES : rc;
}

static int
metadata_token(struct s3_credential_chain *chain, const struct remote_call *call,
    const char *endpoint, struct buffer *token_out)
{
    const struct s3_pair header = {"x-aws-ec2-metadata-token-ttl-seconds", "300"};
    CLEANUP(memory_free_auto) char *url = memory_printf("%s/latest/api/token", endpoint);
    struct http_response response;
    int rc = ask_metadata(chain, call, "PUT", url, &header, &response);
    if (rc == 0)
        buffer_append(token_out, response.body.data, response.body.length);
    http_response_free(&response);
    return rc;
}

static int
metadata_get(struct s3_credential_chain *chain, const struct remote_call *call, const char *token,
    const char *url, struct buffer *out)
{
    const struct s3_pair header = {"x-aws-ec2-metadata-token", token};
    struct http_response response;
    int rc = ask_metadata(chain, call, "GET", url, &header, &response);
    if (rc == 0)
        buffer_append(out, response.body.data, response.body.length);
    http_response_free(&response);
    return rc;
}

static int
from_metadata(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out)
{
    char **env = chain->env.values;
    BUFFER_AUTO token = {0};
    BUFFER_AUTO role = {0};
    BUFFER_AUTO json = {0};
    if (env[METADATA_DISABLED] && strcasecmp(env[METADATA_DISABLED], "true") == 0)
        return -ENODATA;
    const char *endpoint =
        env[METADATA_ENDPOINT] ? env[METADATA_ENDPOINT] : "http://169.254.169.254";
    int rc = metadata_token(chain, call, endpoint, &token);
    // Not on EC2, most likely. But if it has answered before, it will again.
    if (rc == -EAGAIN || rc == -EIO)
        return chain->has_metadata ? -EAGAIN : -ENODATA;
    CLEANUP(memory_free_auto)
    char *roles = memory_printf("%s/latest/meta-data/iam/security-credentials/", endpoint);
    if (rc == 0)
        rc = metadata_get(chain, call, buffer_string(&token), roles, &role);
    if (rc == -ENOENT)
        return -ENODATA; // no role is attached
    if (rc < 0)
        return rc;
    const char *name = buffer_string(&role);
    CLEANUP(memory_free_auto)
    char *url = memory_printf("%s%.*s", roles, (int)strcspn(name, "\r\n"), name);
    rc = metadata_get(chain, call, buffer_string(&token), url, &json);
    if (rc == 0)
        rc = s3_credentials_from_json(json.data, json.length, url, out);
    if (rc == 0)
        chain->has_metadata = true;
    return rc == -ENOENT || rc == -EBADMSG ? -EAGAIN : rc;
}

static int
fetch(struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out)
{
    static source_function *const by_profile[] = {from_profile};
    static source_function *const standard[] = {
        from_environment, from_web_identity, from_profile, from_container, from_metadata};
    source_function *const *sources = chain->profile ? by_profile : standard;
    size_t count = chain->profile ? ARRAY_LENGTH(by_profile) : ARRAY_LENGTH(standard);
    for (size_t i = 0; i < count; i++) {
        int rc = sources[i](chain, call, out);
        if (rc != -ENODATA)
            return rc;
    }
    return store_fail(-EACCES,
        "there are no AWS credentials: none in the environment (AWS_ACCESS_KEY_ID), the files "
        "~/.aws/credentials and ~/.aws/config (profile \"%s\"), a web identity token file, a "
        "container's or the instance's metadata",
        profile_name(&chain->env, chain->profile));
}

// ---- the chain ----------------------------------------------------------------------------------

struct s3_credential_chain *
s3_credential_chain_new(const struct s3_credential_options *options)
{
    struct s3_credential_chain *chain = memory_alloc_zero(sizeof(*chain));
    chain->http = options->http;
    chain->profile = copy_string(options->profile);
    chain->region = memory_string(options->region);
    chain->wall_ms = options->wall_ms ? options->wall_ms : clock_wall_ms;
    environment_read(&chain->env);
    lock_init(&chain->lock, "s3_credentials", LOCK_RANK_STORE);
    condition_init(&chain->fetched);
    return chain;
}

void
s3_credential_chain_free(struct s3_credential_chain *chain)
{
    if (!chain)
        return;
    s3_credentials_free(&chain->now);
    environment_free(&chain->env);
    condition_destroy(&chain->fetched);
    lock_destroy(&chain->lock);
    free(chain->profile);
    free(chain->region);
    free(chain);
}

static bool
is_usable_locked(const struct s3_credential_chain *chain, uint64_t now_ms)
{
    const struct s3_credentials *c = &chain->now;
    return c->access_key && (c->expires_ms == 0 || now_ms + USABLE_MS < c->expires_ms);
}

static bool
is_due_locked(const struct s3_credential_chain *chain, uint64_t now_ms)
{
    return !is_usable_locked(chain, now_ms) ||
           (chain->refresh_at_ms > 0 && now_ms >= chain->refresh_at_ms);
}

static void
keep_locked(struct s3_credential_chain *chain, struct s3_credentials *fresh, uint64_t now_ms)
{
    s3_credentials_free(&chain->now);
    chain->now = *fresh;
    *fresh = (struct s3_credentials){0};
    uint64_t expires = chain->now.expires_ms;
    chain->refresh_at_ms = expires == 0                           ? 0
                           : expires > now_ms + REFRESH_BEFORE_MS ? expires - REFRESH_BEFORE_MS
                                                                  : now_ms + REFRESH_AGAIN_MS;
}

// Fetches; the lock is released meanwhile, and the caller is the only one who does this.
static int
refresh_locked(struct s3_credential_chain *chain, const struct remote_call *call)
{
    struct s3_credentials fresh = {0};
    chain->is_fetching = true;
    lock_release(&chain->lock);
    int rc = fetch(chain, call, &fresh);
    lock_take(&chain->lock);
    chain->is_fetching = false;
    uint64_t now = chain->wall_ms();
    if (rc == 0) {
        keep_locked(chain, &fresh, now);
        if (!is_usable_locked(chain, now))
            rc = store_fail(-EACCES, "the AWS credentials that were found have expired");
    } else if (is_usable_locked(chain, now)) {
        chain->refresh_at_ms = now + REFRESH_AGAIN_MS;
        log_warning(
            "store.credentials", "cannot renew, going on with the old: %s", remote_store_error());
        rc = 0;
    }
    condition_broadcast(&chain->fetched);
    return rc;
}

int
s3_credential_chain_get(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out)
{
    int rc = 0;
    *out = (struct s3_credentials){0};
    lock_take(&chain->lock);
    while (rc == 0 && is_due_locked(chain, chain->wall_ms())) {
        if (!chain->is_fetching)
            rc = refresh_locked(chain, call);
        else if (is_usable_locked(chain, chain->wall_ms()))
            break;
        else {
            condition_wait_until(&chain->fetched, &chain->lock, clock_monotonic_ms() + 100);
            rc = store_check_call(call, "credentials", "");
        }
    }
    if (rc == 0)
        *out = copy_credentials(&chain->now);
    lock_release(&chain->lock);
    return rc;
}

void
s3_credential_chain_refused(struct s3_credential_chain *chain, const struct s3_credentials *refused)
{
    lock_take(&chain->lock);
    // Somebody else may have fetched new ones since.
    if (chain->now.access_key && strcmp(chain->now.access_key, refused->access_key) == 0 &&
        strcmp(chain->now.session_token ? chain->now.session_token : "",
            refused->session_token ? refused->session_token : "") == 0)
        s3_credentials_free(&chain->now);
    lock_release(&chain->lock);
}

char *
s3_region_from_environment(const char *profile)
{
    const char *region = getenv("AWS_REGION");
    if (!region || !*region)
        region = getenv("AWS_DEFAULT_REGION");
    if (region && *region)
        return memory_string(region);
    struct environment env;
    struct s3_profile p;
    char *found = NULL;
    environment_read(&env);
    if (load_profile(&env, profile_name(&env, profile), &p) == 0) {
        found = p.region;
        p.region = NULL;
        s3_profile_free(&p);
    }
    environment_free(&env);
    return found;
}
