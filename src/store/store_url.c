// SPDX-License-Identifier: Apache-2.0
// SOURCE as the user writes it: file:///DIRECTORY/TENANT or s3://BUCKET[/PREFIX]/TENANT, either
// with @NUMBER behind it for another volume of the tenant than the first. A tenant has no '@'. The
// bytes stand for themselves; there is no percent-decoding.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/memory.h"
#include "store/remote_store.h"
#include "store/store_internal.h"

#define TENANT_MAX_BYTES 64
#define SOURCE_MAX_BYTES 1024

#define LOWER   "abcdefghijklmnopqrstuvwxyz"
#define DIGITS  "0123456789"
#define LETTERS LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

static int
refuse(const char *source, const char *why)
{
    BUFFER_AUTO shown = {0};
    store_append_printable(&shown, source, strlen(source), 200);
    return store_fail(-EINVAL,
        "source \"%s\": %s; write file:///DIRECTORY/TENANT or s3://BUCKET[/PREFIX]/TENANT (@NUMBER "
        "for another volume)",
        buffer_string(&shown), why);
}

// Appends the components of `path` to `out`, each after one slash; NULL or the fault.
static const char *
append_components(struct buffer *out, const char *path)
{
    while (*path) {
        size_t n = strcspn(path, "/");
        if ((n == 1 && path[0] == '.') || (n == 2 && memcmp(path, "..", 2) == 0))
            return "\".\" and \"..\" have no place in it";
        if (n > 0) {
            buffer_append_u8(out, '/');
            buffer_append(out, path, n);
        }
        path += n;
        path += *path == '/';
    }
    return NULL;
}

static bool
bucket_is_good(const char *bucket)
{
    size_t n = strlen(bucket);
    return n >= 3 && n <= 63 && strspn(bucket, LOWER DIGITS ".-") == n && !strstr(bucket, "..") &&
           !strchr(".-", bucket[0]) && !strchr(".-", bucket[n - 1]);
}

static bool
tenant_is_good(const char *tenant)
{
    size_t n = strlen(tenant);
    return n >= 1 && n <= TENANT_MAX_BYTES && strspn(tenant, LETTERS DIGITS "._-") == n &&
           strcmp(tenant, ".") != 0 && strcmp(tenant, "..") != 0;
}

static bool
has_control_bytes(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return true;
    return false;
}

// A number from 1 on without leading zeros; 0: it is none.
static uint32_t
parse_volume_number(const char *text)
{
    size_t n = strspn(text, DIGITS);
    if (n == 0 || n > 10 || text[n] || text[0] == '0')
        return 0;
    unsigned long long number = strtoull(text, NULL, 10);
    return number <= UINT32_MAX ? (uint32_t)number : 0;
}

// `path` is "/a/b/tenant" or "/a/b/tenant@number"; cuts the tenant off and keeps it.
static const char *
take_tenant(char *path, struct store_url *url_out)
{
    char *slash = strrchr(path, '/');
    char *at = slash ? strchr(slash, '@') : NULL;
    url_out->volume_number = at ? parse_volume_number(at + 1) : 1;
    if (url_out->volume_number == 0)
        return "behind \"@\" stands the number of a volume: 1 to 4294967295, without zeros before "
               "it";
    if (at)
        *at = 0;
    if (!slash || !tenant_is_good(slash + 1))
        return "the last component names the tenant: 1 to 64 of A-Z a-z 0-9 . _ -";
    url_out->tenant = memory_string(slash + 1);
    *slash = 0;
    return NULL;
}

static const char *
parse_file(const char *rest, struct store_url *url_out)
{
    if (rest[0] != '/')
        return "a file source names an absolute path";
    BUFFER_AUTO path = {0};
    const char *wrong = append_components(&path, rest);
    buffer_string(&path);
    if (!wrong)
        wrong = take_tenant((char *)path.data, url_out);
    if (!wrong && path.data[0] == 0)
        wrong = "there is no directory before the tenant";
    if (!wrong)
        url_out->directory = memory_string((char *)path.data);
    return wrong;
}

static const char *
parse_s3(const char *rest, struct store_url *url_out)
{
    if (strpbrk(rest, "?#"))
        return "\"?\" and \"#\" have no place in it";
    size_t n = strcspn(rest, "/");
    url_out->is_s3 = true;
    url_out->bucket = memory_printf("%.*s", (int)n, rest);
    if (!bucket_is_good(url_out->bucket))
        return "a bucket's name has 3 to 63 of a-z 0-9 . - and begins and ends with a letter or "
               "digit";
    BUFFER_AUTO path = {0};
    const char *wrong = append_components(&path, rest + n);
    buffer_string(&path);
    if (!wrong)
        wrong = take_tenant((char *)path.data, url_out);
    if (!wrong)
        url_out->prefix = memory_string((char *)path.data + (path.data[0] == '/'));
    return wrong;
}

int
store_url_parse(const char *source, struct store_url *url_out)
{
    *url_out = (struct store_url){0};
    const char *wrong = NULL;
    if (strlen(source) > SOURCE_MAX_BYTES)
        wrong = "it is too long";
    else if (has_control_bytes(source))
        wrong = "it holds control characters";
    else if (strncmp(source, "file://", 7) == 0)
        wrong = parse_file(source + 7, url_out);
    else if (strncmp(source, "s3://", 5) == 0)
        wrong = parse_s3(source + 5, url_out);
    else
        wrong = "it begins with neither file:// nor s3://";
    if (!wrong)
        return 0;
    store_url_free(url_out);
    return refuse(source, wrong);
}

void
store_url_free(struct store_url *url)
{
    free(url->directory);
    free(url->bucket);
    free(url->prefix);
    free(url->tenant);
    *url = (struct store_url){0};
}

char *
store_url_place(const struct store_url *url)
{
    if (!url->is_s3)
        return memory_printf("file://%s", url->directory);
    return memory_printf("s3://%s%s%s", url->bucket, url->prefix[0] ? "/" : "", url->prefix);
}
