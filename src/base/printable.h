// SPDX-License-Identifier: Apache-2.0
// Text of others (of the store, of other hosts, names of files) for terminals and messages.
#ifndef CKPTFS_BASE_PRINTABLE_H
#define CKPTFS_BASE_PRINTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

// The length of the valid UTF-8 sequence at `s`, or 0.
size_t printable_utf8_length(const uint8_t *s);
// Whether a terminal would take that sequence for a command: control characters, and characters
// that change the direction or the lines of the text around them.
bool printable_is_control(const uint8_t *s, size_t length);

// Appends the text; each byte of controls and of invalid UTF-8 as \xNN, so that it does nothing and
// stays in its line.
void buffer_append_printable(struct buffer *out, const char *text);
// The same, but keeps newlines.
void buffer_append_printable_lines(struct buffer *out, const char *text);

#endif
