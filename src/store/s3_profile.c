// SPDX-License-Identifier: Apache-2.0
#include "store/s3_profile.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "platform/file.h"
#include "platform/memory.h"
#include "store/store_internal.h"
#include "store/store_time.h"

#define FILE_MAX_BYTES (1u << 20)

// ---- profile files ------------------------------------------------------------------------------

struct span {
    const char *begin;
    size_t length;
};

static struct span
trim(const char *begin, const char *end)
{
    while (begin < end && isspace((unsigned char)*begin))
        begin++;
    while (end > begin && isspace((unsigned char)end[-1]))
        end--;
    return (struct span){begin, (size_t)(end - begin)};
}

static bool
span_is(struct span s, const char *text)
{
    return s.length == strlen(text) && memcmp(s.begin, text, s.length) == 0;
}

static bool
is_section(struct span line, const char *profile, bool is_config)
{
    const char *end = memchr(line.begin, ']', line.length);
    if (!end)
        return false;
    struct span name = trim(line.begin + 1, end);
    if (is_config && name.length > 8 && memcmp(name.begin, "profile", 7) == 0 &&
        isspace((unsigned char)name.begin[7]))
        return span_is(trim(name.begin + 8, name.begin + name.length), profile);
    if (is_config && strcmp(profile, "default") != 0)
        return false;
    return span_is(name, profile);
}

static void
take_value(char **out, struct span value)
{
    if (*out || value.length == 0)
        return;
    *out = memory_alloc(value.length + 1);
    memcpy(*out, value.begin, value.length);
    (*out)[value.length] = 0;
}

static void
take_setting(struct s3_profile *p, struct span key, struct span value)
{
    static const char *const unsupported[] = {
        "sso_session", "sso_start_url", "source_profile", "credential_source"};
    const struct {
        const char *key;
        char **out;
    } known[] = {
        {"aws_access_key_id", &p->access_key},
        {"aws_secret_access_key", &p->secret_key},
        {"aws_session_token", &p->session_token},
        {"region", &p->region},
        {"endpoint_url", &p->endpoint_url},
        {"role_arn", &p->role_arn},
        {"role_session_name", &p->role_session_name},
        {"web_identity_token_file", &p->web_identity_token_file},
        {"credential_process", &p->credential_process},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++)
        if (span_is(key, known[i].key))
            take_value(known[i].out, value);
    for (size_t i = 0; i < ARRAY_LENGTH(unsupported); i++)
        if (span_is(key, unsupported[i]))
            take_value(&p->unsupported, key);
}

// The line up to a comment: '#' or ';' at its beginning or after white space.
static const char *
end_of_content(const char *begin, const char *end)
{
    for (const char *p = begin; p < end; p++)
        if ((*p == '#' || *p == ';') && (p == begin || isspace((unsigned char)p[-1])))
            return p;
    return end;
}

void
s3_profile_parse(
    const char *text, size_t length, const char *profile, bool is_config, struct s3_profile *io)
{
    const char *end = text + length;
    bool inside = false;
    bool nested = false; // indented lines after "key =" belong to that key
    struct s3_profile here = {0};
    while (text < end) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        if (!line_end)
            line_end = end;
        bool indented = *text == ' ' || *text == '\t';
        struct span line = trim(text, end_of_content(text, line_end));
        text = line_end + 1;
        if (line.length == 0 || (indented && nested))
            continue;
        nested = false;
        if (line.begin[0] == '[') {
            inside = is_section(line, profile, is_config);
            here.found |= inside;
            continue;
        }
        const char *equals = memchr(line.begin, '=', line.length);
        if (!inside || !equals)
            continue;
        struct span value = trim(equals + 1, line.begin + line.length);
        nested = value.length == 0;
        take_setting(&here, trim(line.begin, equals), value);
    }
    // A key pair comes from one file: halves of two pairs make none.
    if (!io->access_key && !io->secret_key) {
        io->access_key = here.access_key;
        io->secret_key = here.secret_key;
        io->session_token = here.session_token;
        here.access_key = here.secret_key = here.session_token = NULL;
    }
    char **from[] = {&here.region, &here.endpoint_url, &here.role_arn, &here.role_session_name,
        &here.web_identity_token_file, &here.credential_process, &here.unsupported};
    char **to[] = {&io->region, &io->endpoint_url, &io->role_arn, &io->role_session_name,
        &io->web_identity_token_file, &io->credential_process, &io->unsupported};
    for (size_t i = 0; i < ARRAY_LENGTH(from); i++)
        if (!*to[i]) {
            *to[i] = *from[i];
            *from[i] = NULL;
        }
    io->found |= here.found;
    s3_profile_free(&here);
}

int
s3_profile_load(const char *credentials_path, const char *config_path, const char *profile,
    struct s3_profile *out)
{
    const char *paths[] = {credentials_path, config_path};
    BUFFER_AUTO text = {0};
    int rc = 0;
    *out = (struct s3_profile){0};
    for (int i = 0; i < 2; i++) {
        rc = file_read_whole(paths[i], FILE_MAX_BYTES, &text);
        if (rc == -ENOENT || rc == -ENOTDIR) {
            rc = 0;
            continue;
        }
        if (rc < 0)
            break;
        s3_profile_parse((const char *)text.data, text.length, profile, i == 1, out);
        explicit_bzero(text.data, text.length);
    }
    if (rc == 0)
        return 0;
    s3_profile_free(out);
    return store_fail(-EACCES, "cannot read AWS credentials: %s", strerror(-rc));
}

static void
wipe(char **s)
{
    if (*s)
        explicit_bzero(*s, strlen(*s));
    free(*s);
    *s = NULL;
}

void
s3_profile_free(struct s3_profile *p)
{
    wipe(&p->access_key);
    wipe(&p->secret_key);
    wipe(&p->session_token);
    free(p->region);
    free(p->endpoint_url);
    free(p->role_arn);
    free(p->role_session_name);
    free(p->web_identity_token_file);
    free(p->credential_process);
    free(p->unsupported);
    *p = (struct s3_profile){0};
}

// ---- JSON ---------------------------------------------------------------------------------------

static char *
string_member(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text && *text ? memory_string(text) : NULL;
}

// Takes the keys out of `root`, which it releases; `token` is the name of the session token.
static int
take_credentials(json_t *root, const char *token, const char *source, struct s3_credentials *out)
{
    *out = (struct s3_credentials){0};
    const char *expiration = json_string_value(json_object_get(root, "Expiration"));
    out->access_key = string_member(root, "AccessKeyId");
    out->secret_key = string_member(root, "SecretAccessKey");
    out->session_token = string_member(root, token);
    bool good = out->access_key && out->secret_key &&
                (!expiration || time_parse_iso8601(expiration, &out->expires_ms) == 0);
    json_decref(root);
    if (good)
        return 0;
    s3_credentials_free(out);
    return store_fail(-EBADMSG, "%s answered with something other than credentials", source);
}

int
s3_credentials_from_json(const void *p, size_t n, const char *source, struct s3_credentials *out)
{
    return take_credentials(json_loadb(p, n, 0, NULL), "Token", source, out);
}

int
s3_credentials_from_process(const void *p, size_t n, const char *source, struct s3_credentials *out)
{
    json_t *root = json_loadb(p, n, 0, NULL);
    const json_t *version = json_object_get(root, "Version");
    if (json_integer_value(version) == 1)
        return take_credentials(root, "SessionToken", source, out);
    json_decref(root);
    *out = (struct s3_credentials){0};
    return store_fail(-EBADMSG, "%s wrote no JSON object of Version 1", source);
}
