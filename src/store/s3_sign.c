// SPDX-License-Identifier: Apache-2.0
#include "store/s3_sign.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/memory.h"

#define ALGORITHM "AWS4-HMAC-SHA256"

void
s3_append_encoded(struct buffer *out, const char *text, bool keep_slash)
{
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '-' || c == '_' || c == '.' || c == '~' || (c == '/' && keep_slash);
        if (plain)
            buffer_append_u8(out, c);
        else
            buffer_printf(out, "%%%02X", c);
    }
}

static int
compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void
s3_append_query(struct buffer *out, const struct s3_pair *parameters, size_t count)
{
    CLEANUP(memory_free_auto) char **encoded = memory_alloc(count * sizeof(*encoded));
    for (size_t i = 0; i < count; i++) {
        struct buffer b = {0};
        s3_append_encoded(&b, parameters[i].name, false);
        buffer_append_u8(&b, '=');
        s3_append_encoded(&b, parameters[i].value, false);
        buffer_string(&b);
        encoded[i] = (char *)b.data;
    }
    // '=' sorts after every byte of a name but letters and '_', '~': sorting whole "name=value"
    // strings would put "a-b=" before "a=". Sort with the separator as the lowest byte.
    for (size_t i = 0; i < count; i++)
        *strchr(encoded[i], '=') = '\x01';
    if (count > 1)
        qsort(encoded, count, sizeof(encoded[0]), compare_strings);
    for (size_t i = 0; i < count; i++) {
        *strchr(encoded[i], '\x01') = '=';
        if (i > 0)
            buffer_append_u8(out, '&');
        buffer_append_string(out, encoded[i]);
        free(encoded[i]);
    }
    buffer_string(out);
}

// A header as it is signed: lower-case name, ':', value without white space at its ends and with
// single spaces inside.
static char *
canonical_header(const struct s3_pair *header)
{
    struct buffer b = {0};
    for (const char *p = header->name; *p; p++)
        buffer_append_u8(&b, (uint8_t)tolower((unsigned char)*p));
    buffer_append_u8(&b, ':');
    const char *p = header->value;
    for (p += strspn(p, " \t"); *p;) {
        size_t word = strcspn(p, " \t");
        buffer_append(&b, p, word);
        p += word;
        p += strspn(p, " \t");
        if (*p)
            buffer_append_u8(&b, ' ');
    }
    buffer_string(&b);
    return (char *)b.data;
}

static size_t
name_length(const char *header)
{
    return strcspn(header, ":");
}

static int
compare_header_names(const void *a, const void *b)
{
    const char *x = *(char *const *)a;
    const char *y = *(char *const *)b;
    size_t nx = name_length(x);
    size_t ny = name_length(y);
    int order = memcmp(x, y, nx < ny ? nx : ny);
    if (order != 0)
        return order;
    return nx < ny ? -1 : nx > ny;
}

static char **
canonical_headers_new(const struct s3_signing *s)
{
    char **headers = memory_alloc(s->header_count * sizeof(*headers));
    for (size_t i = 0; i < s->header_count; i++)
        headers[i] = canonical_header(&s->headers[i]);
    qsort(headers, s->header_count, sizeof(headers[0]), compare_header_names);
    return headers;
}

static void
canonical_headers_free(char **headers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(headers[i]);
    free(headers);
}

static void
append_signed_headers(struct buffer *out, char **headers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buffer_append_u8(out, ';');
        buffer_append(out, headers[i], name_length(headers[i]));
    }
}

void
s3_append_canonical_request(const struct s3_signing *s, struct buffer *out)
{
    char **headers = canonical_headers_new(s);
    buffer_printf(out, "%s\n%s\n%s\n", s->method, s->path, s->query);
    for (size_t i = 0; i < s->header_count; i++)
        buffer_printf(out, "%s\n", headers[i]);
    buffer_append_u8(out, '\n');
    append_signed_headers(out, headers, s->header_count);
    buffer_printf(out, "\n%s", s->payload_hash);
    canonical_headers_free(headers, s->header_count);
}

static void
signing_key(const struct s3_signing *s, struct sha256 *key_out)
{
    BUFFER_AUTO secret = {0};
    buffer_printf(&secret, "AWS4%s", s->secret_key);
    hmac_sha256(secret.data, secret.length, s->timestamp, 8, key_out);
    explicit_bzero(secret.data, secret.length);
    hmac_sha256(key_out->b, sizeof(key_out->b), s->region, strlen(s->region), key_out);
    hmac_sha256(key_out->b, sizeof(key_out->b), s->service, strlen(s->service), key_out);
    hmac_sha256(key_out->b, sizeof(key_out->b), "aws4_request", 12, key_out);
}

void
s3_sign(const struct s3_signing *s, struct buffer *authorization_out)
{
    BUFFER_AUTO request = {0};
    BUFFER_AUTO to_sign = {0};
    BUFFER_AUTO scope = {0};
    struct sha256 hash;
    char hex[65];
    s3_append_canonical_request(s, &request);
    sha256_of(request.data, request.length, &hash);
    sha256_to_hex(&hash, hex);
    buffer_printf(&scope, "%.8s/%s/%s/aws4_request", s->timestamp, s->region, s->service);
    buffer_printf(&to_sign, "%s\n%s\n%s\n%s", ALGORITHM, s->timestamp, buffer_string(&scope), hex);
    struct sha256 key;
    signing_key(s, &key);
    hmac_sha256(key.b, sizeof(key.b), to_sign.data, to_sign.length, &hash);
    explicit_bzero(&key, sizeof(key));
    sha256_to_hex(&hash, hex);
    char **headers = canonical_headers_new(s);
    buffer_printf(authorization_out, "%s Credential=%s/%s, SignedHeaders=", ALGORITHM,
        s->access_key, buffer_string(&scope));
    append_signed_headers(authorization_out, headers, s->header_count);
    buffer_printf(authorization_out, ", Signature=%s", hex);
    canonical_headers_free(headers, s->header_count);
}

void
s3_append_base64(struct buffer *out, const uint8_t *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        buffer_append_u8(out, (uint8_t)digits[v >> 18]);
        buffer_append_u8(out, (uint8_t)digits[v >> 12 & 63]);
        buffer_append_u8(out, i + 1 < n ? (uint8_t)digits[v >> 6 & 63] : '=');
        buffer_append_u8(out, i + 2 < n ? (uint8_t)digits[v & 63] : '=');
    }
}
