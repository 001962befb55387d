// SPDX-License-Identifier: Apache-2.0
#include "metrics/metrics_text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/printable.h"

#define PREFIX      "ckptfs_"
#define REPLACEMENT "\xef\xbf\xbd" // U+FFFD

// ---- names --------------------------------------------------------------------------------------

bool
metrics_text_name_is_valid(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && n <= METRIC_NAME_MAX && name[0] >= 'a' && name[0] <= 'z' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

static bool
word_is(const char *word, size_t n, const char *other)
{
    return strlen(other) == n && memcmp(word, other, n) == 0;
}

// The ending says it.
static bool
is_said_by_ending(const struct metric_info *info, const char *word, size_t n)
{
    bool is_time = info->unit == METRIC_UNIT_TIME_MS;
    return (info->kind == METRIC_KIND_COUNTER && word_is(word, n, "total")) ||
           (info->unit == METRIC_UNIT_BYTES && word_is(word, n, "bytes")) ||
           (is_time && word_is(word, n, "time")) ||
           ((is_time || info->unit == METRIC_UNIT_AGE_MS) && word_is(word, n, "ms"));
}

static const char *
ending_of(enum metric_unit unit)
{
    switch (unit) {
    case METRIC_UNIT_BYTES:
        return "_bytes";
    case METRIC_UNIT_AGE_MS:
        return "_seconds";
    case METRIC_UNIT_TIME_MS:
        return "_timestamp_seconds";
    case METRIC_UNIT_NUMBER:
    case METRIC_UNIT_FLAG:
        break;
    }
    return "";
}

void
metrics_text_name(const struct metric_info *info, char name_out[METRICS_TEXT_NAME_BYTES])
{
    char words[METRIC_NAME_MAX + 2] = "";
    size_t length = 0;
    assert(metrics_text_name_is_valid(info->name));
    for (const char *word = info->name; *word;) {
        size_t n = strcspn(word, "_");
        if (n > 0 && !is_said_by_ending(info, word, n))
            length += (size_t)snprintf(
                words + length, sizeof(words) - length, "%s%.*s", length ? "_" : "", (int)n, word);
        word += n;
        word += strspn(word, "_");
    }
    snprintf(name_out, METRICS_TEXT_NAME_BYTES, PREFIX "%s%s%s", words, ending_of(info->unit),
        info->kind == METRIC_KIND_COUNTER ? "_total" : "");
}

// ---- lines --------------------------------------------------------------------------------------

void
metrics_text_family(struct buffer *out, const struct metric_info *info)
{
    char name[METRICS_TEXT_NAME_BYTES];
    metrics_text_name(info, name);
    buffer_printf(out, "# HELP %s ", name);
    for (const char *c = info->help; *c; c++)
        if (*c == '\\')
            buffer_append_string(out, "\\\\");
        else
            buffer_append_u8(out, *c == '\n' ? ' ' : (uint8_t)*c);
    buffer_printf(
        out, "\n# TYPE %s %s\n", name, info->kind == METRIC_KIND_COUNTER ? "counter" : "gauge");
}

static void
append_label_value(struct buffer *out, const char *value)
{
    const uint8_t *s = (const uint8_t *)value;
    while (*s) {
        size_t n = printable_utf8_length(s);
        if (*s == '\\' || *s == '"')
            buffer_printf(out, "\\%c", *s);
        else if (*s == '\n')
            buffer_append_string(out, "\\n");
        else if (n == 0 || printable_is_control(s, n))
            buffer_append_string(out, REPLACEMENT);
        else
            buffer_append(out, s, n);
        s += n ? n : 1;
    }
}

void
metrics_text_sample(struct buffer *out, const struct metric_info *info,
    const struct metric_label *labels, size_t count, uint64_t value)
{
    char name[METRICS_TEXT_NAME_BYTES];
    metrics_text_name(info, name);
    buffer_append_string(out, name);
    for (size_t i = 0; i < count; i++) {
        buffer_printf(out, "%s%s=\"", i == 0 ? "{" : ",", labels[i].name);
        append_label_value(out, labels[i].value);
        buffer_append_u8(out, '"');
    }
    if (count > 0)
        buffer_append_u8(out, '}');
    if (info->unit == METRIC_UNIT_AGE_MS || info->unit == METRIC_UNIT_TIME_MS)
        buffer_printf(out, " %" PRIu64 ".%03u\n", value / 1000, (unsigned)(value % 1000));
    else
        buffer_printf(out, " %" PRIu64 "\n", value);
}
