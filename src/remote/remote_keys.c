// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/random.h"
#include "remote/remote_internal.h"

void
remote_key_prefix(const struct remote_place *place, const char *kind, struct buffer *key_out)
{
    buffer_clear(key_out);
    buffer_printf(
        key_out, "manifests/%s/%" PRIu32 "/%s", place->tenant, place->volume_number, kind);
    (void)buffer_string(key_out);
}

void
remote_key(
    const struct remote_place *place, const char *kind, uint64_t number, struct buffer *key_out)
{
    remote_key_prefix(place, kind, key_out);
    buffer_printf(key_out, "%016" PRIx64, number);
    (void)buffer_string(key_out);
}

// The value of a lower-case hexadecimal digit, or -1.
static int
hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

bool
remote_key_number(const char *key, const char *prefix, uint64_t *number_out)
{
    size_t n = strlen(prefix);
    *number_out = 0;
    if (strncmp(key, prefix, n) != 0 || strlen(key + n) != 16)
        return false;
    uint64_t number = 0;
    for (const char *p = key + n; *p; p++) {
        int v = hex_value(*p);
        if (v < 0)
            return false;
        number = number << 4 | (unsigned)v;
    }
    *number_out = number;
    return true;
}

bool
remote_uuid_parse(const char *text, size_t length, struct uuid *id_out)
{
    *id_out = (struct uuid){{0}};
    if (length != 36)
        return false;
    struct uuid id = {{0}};
    size_t digits = 0;
    for (size_t i = 0; i < length; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        int v = hex_value(text[i]);
        if (dash ? text[i] != '-' : v < 0)
            return false;
        if (dash)
            continue;
        id.b[digits / 2] = (uint8_t)(id.b[digits / 2] << 4 | v);
        digits++;
    }
    *id_out = id;
    return true;
}

static void
make_plain(char *host)
{
    for (char *p = host; *p; p++)
        if (*p <= ' ' || *p >= 0x7f)
            *p = '_';
}

void
remote_host_name(char host_out[64])
{
    memset(host_out, 0, 64);
    // A name that is too long may come without its end; the last byte stays zero either way.
    if (gethostname(host_out, 63) != 0 || host_out[0] == '\0')
        strcpy(host_out, "unknown");
    make_plain(host_out);
}

void
remote_copy_host(const char host[64], char host_out[64])
{
    memset(host_out, 0, 64);
    memcpy(host_out, host, strnlen(host, 63));
    make_plain(host_out);
}
