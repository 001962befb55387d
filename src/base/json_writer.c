// SPDX-License-Identifier: Apache-2.0
#include "base/json_writer.h"

#include <inttypes.h>
#include <string.h>

// The length of the valid UTF-8 sequence at `s`, or 0. (RFC 3629, section 4.)
static size_t
utf8_length(const uint8_t *s)
{
    static const struct {
        uint8_t first_low, first_high, second_low, second_high;
        size_t length;
    } forms[] = {
        {0xc2, 0xdf, 0x80, 0xbf, 2},
        {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3},
        {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4},
        {0xf1, 0xf3, 0x80, 0xbf, 4},
        {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    if (s[0] < 0x80)
        return 1;
    for (size_t i = 0; i < ARRAY_LENGTH(forms); i++) {
        if (s[0] < forms[i].first_low || s[0] > forms[i].first_high)
            continue;
        if (s[1] < forms[i].second_low || s[1] > forms[i].second_high)
            return 0;
        for (size_t k = 2; k < forms[i].length; k++)
            if (s[k] < 0x80 || s[k] > 0xbf)
                return 0;
        return forms[i].length;
    }
    return 0;
}

static void
append_escaped(struct buffer *out, const char *value)
{
    buffer_append_u8(out, '"');
    for (const uint8_t *s = (const uint8_t *)value; *s;) {
        size_t length = utf8_length(s);
        if (length == 0) {
            buffer_append_string(out, "\\ufffd");
            s++;
        } else if (*s == '"' || *s == '\\') {
            buffer_printf(out, "\\%c", *s++);
        } else if (*s < 0x20 || *s == 0x7f) {
            buffer_printf(out, "\\u%04x", *s++);
        } else {
            buffer_append(out, s, length);
            s += length;
        }
    }
    buffer_append_u8(out, '"');
}

static void
begin_value(struct json_writer *w, const char *key)
{
    if (w->needs_comma)
        buffer_append_u8(w->out, ',');
    w->needs_comma = true;
    if (key) {
        append_escaped(w->out, key);
        buffer_append_u8(w->out, ':');
    }
}

void
json_begin_object(struct json_writer *w, const char *key)
{
    begin_value(w, key);
    buffer_append_u8(w->out, '{');
    w->needs_comma = false;
}

void
json_end_object(struct json_writer *w)
{
    buffer_append_u8(w->out, '}');
    w->needs_comma = true;
}

void
json_begin_array(struct json_writer *w, const char *key)
{
    begin_value(w, key);
    buffer_append_u8(w->out, '[');
    w->needs_comma = false;
}

void
json_end_array(struct json_writer *w)
{
    buffer_append_u8(w->out, ']');
    w->needs_comma = true;
}

void
json_string(struct json_writer *w, const char *key, const char *value)
{
    begin_value(w, key);
    append_escaped(w->out, value);
}

void
json_u64(struct json_writer *w, const char *key, uint64_t value)
{
    begin_value(w, key);
    buffer_printf(w->out, "%" PRIu64, value);
}

void
json_i64(struct json_writer *w, const char *key, int64_t value)
{
    begin_value(w, key);
    buffer_printf(w->out, "%" PRId64, value);
}

void
json_double(struct json_writer *w, const char *key, double value)
{
    begin_value(w, key);
    buffer_printf(w->out, "%.6g", value);
}

void
json_bool(struct json_writer *w, const char *key, bool value)
{
    begin_value(w, key);
    buffer_append_string(w->out, value ? "true" : "false");
}
