// SPDX-License-Identifier: Apache-2.0
#include "base/printable.h"

// RFC 3629, section 4.
size_t
printable_utf8_length(const uint8_t *s)
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

bool
printable_is_control(const uint8_t *s, size_t length)
{
    if (length == 1)
        return s[0] < 0x20 || s[0] == 0x7f;
    if (length == 2)
        return s[0] == 0xc2 && s[1] < 0xa0; // U+0080 to U+009F
    if (length != 3 || s[0] != 0xe2)
        return false;
    // U+2028 to U+202E, U+2066 to U+2069
    return (s[1] == 0x80 && s[2] >= 0xa8 && s[2] <= 0xae) ||
           (s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9);
}

static void
append(struct buffer *out, const char *text, bool lines)
{
    for (const uint8_t *s = (const uint8_t *)text; *s;) {
        size_t length = printable_utf8_length(s);
        bool plain = length > 0 && !printable_is_control(s, length);
        if (length == 0)
            length = 1;
        if (plain || (lines && *s == '\n'))
            buffer_append(out, s, length);
        else
            for (size_t i = 0; i < length; i++)
                buffer_printf(out, "\\x%02x", s[i]);
        s += length;
    }
}

void
buffer_append_printable(struct buffer *out, const char *text)
{
    append(out, text, false);
}

void
buffer_append_printable_lines(struct buffer *out, const char *text)
{
    append(out, text, true);
}
