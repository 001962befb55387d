// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "platform/file.h"
#include "platform/memory.h"
#include "store/s3_credentials_internal.h"
#include "store/s3_process.h"
#include "store/s3_response.h"
#include "store/store_internal.h"

#define TOKEN_MAX_BYTES     (64u * 1024)
#define ANSWER_MAX_BYTES    (64u * 1024)
#define METADATA_TIMEOUT_MS 2000
#define STS_TIMEOUT_MS      10000
#define PROCESS_TIMEOUT_MS  30000

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

// A source of credentials: 0, -ENODATA when it is not configured, or another error. The text of
// -ENODATA says where the source was looked for.
typedef int source_function(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out);

// ---- the environment and its files --------------------------------------------------------------

void
s3_environment_read(struct s3_environment *env)
{
    for (int i = 0; i < VARIABLE_COUNT; i++) {
        const char *value = getenv(variable_names[i]);
        env->values[i] = value && *value ? memory_string(value) : NULL;
    }
}

void
s3_environment_free(struct s3_environment *env)
{
    for (int i = 0; i < VARIABLE_COUNT; i++)
        s3_wipe_string(env->values[i]);
}

// The home directory: HOME, or that of the user database. A mount at boot has no HOME.
static char *
home_directory(const struct s3_environment *env)
{
    if (env->values[HOME])
        return memory_string(env->values[HOME]);
    char text[4096];
    struct passwd entry;
    struct passwd *found = NULL;
    if (getpwuid_r(geteuid(), &entry, text, sizeof(text), &found) != 0 || !found)
        return memory_string("");
    return memory_string(found->pw_dir);
}

static char *
profile_file(const struct s3_environment *env, enum s3_variable variable, const char *name)
{
    if (env->values[variable])
        return memory_string(env->values[variable]);
    CLEANUP(memory_free_auto) char *home = home_directory(env);
    return memory_printf("%s/.aws/%s", home, name);
}

char *
s3_environment_profile_path(const struct s3_environment *env)
{
    return profile_file(env, SHARED_CREDENTIALS_FILE, "credentials");
}

int
s3_environment_profile(
    const struct s3_environment *env, const char *profile, struct s3_profile *out)
{
    CLEANUP(memory_free_auto)
    char *credentials = s3_environment_profile_path(env);
    CLEANUP(memory_free_auto) char *config = profile_file(env, CONFIG_FILE, "config");
    return s3_profile_load(credentials, config, profile, out);
}

const char *
s3_profile_name(const struct s3_environment *env, const char *asked)
{
    return asked ? asked : env->values[PROFILE] ? env->values[PROFILE] : "default";
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
        return store_fail(-ENODATA, "AWS_ACCESS_KEY_ID is not set");
    if (!env[ACCESS_KEY_ID] || !env[SECRET_ACCESS_KEY])
        return store_fail(-EACCES, "%s is set and %s is not",
            variable_names[env[ACCESS_KEY_ID] ? ACCESS_KEY_ID : SECRET_ACCESS_KEY],
            variable_names[env[ACCESS_KEY_ID] ? SECRET_ACCESS_KEY : ACCESS_KEY_ID]);
    *out = (struct s3_credentials){memory_string(env[ACCESS_KEY_ID]),
        memory_string(env[SECRET_ACCESS_KEY]), s3_copy_string(env[SESSION_TOKEN]), 0};
    return 0;
}

// Parses the answer of STS: credentials, or an error with a text.
static int
role_from_answer(const struct http_response *response, const char *role, const char *url,
    struct s3_credentials *out)
{
    struct s3_error error;
    struct s3_assumed_role assumed;
    const struct buffer *body = &response->body;
    int status = response->status;
    if (status / 100 != 2) {
        if (s3_parse_error(body->data, body->length, &error) < 0)
            error = (struct s3_error){0};
        bool again = status >= 500 || status == 429 ||
                     strcmp(error.code, "IDPCommunicationError") == 0 ||
                     strcmp(error.code, "Throttling") == 0;
        return store_fail(again ? -EAGAIN : -EACCES,
            "AssumeRoleWithWebIdentity of %s at %s: status %d %s %s", role, url, status, error.code,
            error.message);
    }
    if (s3_parse_assumed_role(body->data, body->length, &assumed) < 0)
        return store_fail(
            -EAGAIN, "AssumeRoleWithWebIdentity at %s: an answer without credentials", url);
    *out = (struct s3_credentials){
        assumed.access_key, assumed.secret_key, assumed.session_token, assumed.expires_ms};
    return 0;
}

// Exchanges the token for credentials. The token goes in the body: servers log URLs.
static int
ask_sts(struct s3_credential_chain *chain, const struct remote_call *call, const char *url,
    const char *role, const char *session, const char *token, struct s3_credentials *out)
{
    BUFFER_AUTO form = {0};
    const struct s3_pair parameters[] = {
        {"Action", "AssumeRoleWithWebIdentity"},
        {"Version", "2011-06-15"},
        {"RoleArn", role},
        {"RoleSessionName", session ? session : "ckptfs"},
        {"WebIdentityToken", token},
    };
    s3_append_query(&form, parameters, ARRAY_LENGTH(parameters));
    const struct s3_pair headers[] = {{"content-type", "application/x-www-form-urlencoded"}};
    const struct remote_source body = {.data = form.data, .fd = -1, .length = form.length};
    const struct http_request request = {
        .method = "POST",
        .url = url,
        .headers = headers,
        .header_count = 1,
        .body = &body,
        .body_length = form.length,
        .limit = ANSWER_MAX_BYTES,
        .timeout_ms = STS_TIMEOUT_MS,
        .call = call,
    };
    struct http_response response;
    int rc = http_client_perform(chain->http, &request, &response);
    http_response_redact(&response, token);
    explicit_bzero(form.data, form.length);
    if (rc < 0)
        rc = store_fail(rc, "AssumeRoleWithWebIdentity at %s: %s", url, remote_store_error());
    else
        rc = role_from_answer(&response, role, url, out);
    if (response.body.length > 0)
        explicit_bzero(response.body.data, response.body.length);
    http_response_free(&response);
    return rc;
}

static int
assume_role(struct s3_credential_chain *chain, const struct remote_call *call, const char *path,
    const char *role, const char *session, struct s3_credentials *out)
{
    BUFFER_AUTO token = {0};
    BUFFER_AUTO url = {0};
    int rc = read_token(path, &token);
    if (rc < 0)
        return rc;
    const char *endpoint = chain->env.values[STS_ENDPOINT];
    if (endpoint)
        buffer_printf(&url, "%s/", endpoint);
    else
        buffer_printf(&url, "https://sts.%s.amazonaws.com%s/", chain->region,
            strncmp(chain->region, "cn-", 3) == 0 ? ".cn" : "");
    rc = ask_sts(chain, call, buffer_string(&url), role, session, buffer_string(&token), out);
    explicit_bzero(token.data, token.length);
    return rc;
}

static int
from_web_identity(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out)
{
    char **env = chain->env.values;
    if (!env[WEB_IDENTITY_TOKEN_FILE] || !env[ROLE_ARN])
        return store_fail(-ENODATA, "%s is not set",
            variable_names[env[ROLE_ARN] ? WEB_IDENTITY_TOKEN_FILE : ROLE_ARN]);
    return assume_role(
        chain, call, env[WEB_IDENTITY_TOKEN_FILE], env[ROLE_ARN], env[ROLE_SESSION_NAME], out);
}

// The AWS tools' way to ask any program for credentials. They expire when it says so.
static int
from_process(const struct remote_call *call, const char *command, struct s3_credentials *out)
{
    BUFFER_AUTO text = {0};
    int rc = s3_process_run(command, PROCESS_TIMEOUT_MS, call, &text);
    if (rc == 0)
        rc = s3_credentials_from_process(text.data, text.length, "the credential_process", out);
    if (text.length > 0)
        explicit_bzero(text.data, text.length);
    return rc == -EBADMSG ? -EACCES : rc;
}

// Where the profile was looked for in vain.
static int
has_no_profile(const struct s3_environment *env, const char *name, const struct s3_profile *p)
{
    CLEANUP(memory_free_auto) char *credentials = s3_environment_profile_path(env);
    CLEANUP(memory_free_auto) char *config = profile_file(env, CONFIG_FILE, "config");
    return store_fail(-ENODATA, "%s and %s hold no %s \"%s\"", credentials, config,
        p->found ? "credentials in profile" : "profile", name);
}

static int
from_profile(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out)
{
    const char *name = s3_profile_name(&chain->env, chain->profile);
    bool was_named = chain->profile || chain->env.values[PROFILE];
    struct s3_profile p;
    int rc = s3_environment_profile(&chain->env, name, &p);
    if (rc < 0)
        return rc;
    if (p.web_identity_token_file && p.role_arn) {
        rc = assume_role(
            chain, call, p.web_identity_token_file, p.role_arn, p.role_session_name, out);
    } else if (p.access_key && p.secret_key) {
        *out = (struct s3_credentials){p.access_key, p.secret_key, p.session_token, 0};
        p.access_key = p.secret_key = p.session_token = NULL;
    } else if (p.credential_process) {
        rc = from_process(call, p.credential_process, out);
    } else if (p.unsupported) {
        rc = store_fail(-EACCES,
            "AWS profile \"%s\" uses %s, which is not supported; it needs aws_access_key_id and "
            "aws_secret_access_key, credential_process, or role_arn and web_identity_token_file",
            name, p.unsupported);
    } else if (was_named && !p.found) {
        rc = store_fail(-EACCES, "there is no AWS profile \"%s\"", name);
    } else if (p.access_key || p.secret_key || chain->profile) {
        rc = store_fail(-EACCES, "AWS profile \"%s\" has no complete credentials", name);
    } else {
        rc = has_no_profile(&chain->env, name, &p);
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
        return store_fail(
            -ENODATA, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI are not set");
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
        return store_fail(-ENODATA, "AWS_EC2_METADATA_DISABLED is true");
    const char *endpoint =
        env[METADATA_ENDPOINT] ? env[METADATA_ENDPOINT] : "http://169.254.169.254";
    int rc = metadata_token(chain, call, endpoint, &token);
    // Not on EC2, most likely. But if it has answered before, it will again.
    if (rc == -EAGAIN || rc == -EIO || rc == -EPROTO)
        return chain->has_metadata ? -EAGAIN : store_fail(-ENODATA, "%s does not answer", endpoint);
    CLEANUP(memory_free_auto)
    char *roles = memory_printf("%s/latest/meta-data/iam/security-credentials/", endpoint);
    if (rc == 0)
        rc = metadata_get(chain, call, buffer_string(&token), roles, &role);
    if (rc == -ENOENT)
        return store_fail(-ENODATA, "%s has no role for this instance", endpoint);
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

int
s3_credentials_fetch(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out)
{
    static const struct source {
        source_function *fetch;
        const char *name;
    } sources[] = {
        {from_environment, "environment"},
        {from_web_identity, "web identity"},
        {from_profile, "profile"},
        {from_container, "container"},
        {from_metadata, "instance metadata"},
    };
    BUFFER_AUTO tried = {0};
    for (size_t i = 0; i < ARRAY_LENGTH(sources); i++) {
        if (chain->profile && sources[i].fetch != from_profile)
            continue;
        int rc = sources[i].fetch(chain, call, out);
        if (rc != -ENODATA)
            return rc;
        buffer_printf(&tried, "%s%s: %s", tried.length > 0 ? "; " : "", sources[i].name,
            remote_store_error());
    }
    return store_fail(
        -EACCES, "there are no AWS credentials; tried were %s", buffer_string(&tried));
}
