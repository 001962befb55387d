// SPDX-License-Identifier: Apache-2.0
#include "base/json_writer.h"

#include <inttypes.h>
#include <string.h>

#include "base/printable.h"

// Of a sequence of at most three bytes, as controls have.
static unsigned
code_of(const uint8_t *s, size_t length)
{
    if (length == 1)
        return s[0];
    if (length == 2)
        return (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    return (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
}

static void
append_escaped(struct buffer *out, const char *value)
{
    buffer_append_u8(out, '"');
    for (const uint8_t *s = (const uint8_t *)value; *s;) {
        size_t length = printable_utf8_length(s);
        if (length == 0) {
            buffer_append_string(out, "\\ufffd");
            s++;
        } else if (*s == '"' || *s == '\\') {
            buffer_printf(out, "\\%c", *s++);
        } else if (printable_is_control(s, length)) {
            buffer_printf(out, "\\u%04x", code_of(s, length));
            s += length;
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
write_json_begin_object(struct json_writer *w, const char *key)
{
    begin_value(w, key);
    buffer_append_u8(w->out, '{');
    w->needs_comma = false;
}

void
write_json_end_object(struct json_writer *w)
{
    buffer_append_u8(w->out, '}');
    w->needs_comma = true;
}

void
write_json_begin_array(struct json_writer *w, const char *key)
{
    begin_value(w, key);
    buffer_append_u8(w->out, '[');
    w->needs_comma = false;
}

void
write_json_end_array(struct json_writer *w)
{
    buffer_append_u8(w->out, ']');
    w->needs_comma = true;
}

void
write_json_string(struct json_writer *w, const char *key, const char *value)
{
    begin_value(w, key);
    append_escaped(w->out, value);
}

void
write_json_u64(struct json_writer *w, const char *key, uint64_t value)
{
    begin_value(w, key);
    buffer_printf(w->out, "%" PRIu64, value);
}

void
write_json_i64(struct json_writer *w, const char *key, int64_t value)
{
    begin_value(w, key);
    buffer_printf(w->out, "%" PRId64, value);
}

void
write_json_double(struct json_writer *w, const char *key, double value)
{
    begin_value(w, key);
    buffer_printf(w->out, "%.6g", value);
}

void
write_json_raw(struct json_writer *w, const char *key, const char *json)
{
    begin_value(w, key);
    buffer_append_string(w->out, json);
}

void
write_json_bool(struct json_writer *w, const char *key, bool value)
{
    begin_value(w, key);
    buffer_append_string(w->out, value ? "true" : "false");
}
