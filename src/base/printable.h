// SPDX-License-Identifier: Apache-2.0
// Text that others wrote (the store, other hosts, whoever named a file) for terminals and messages.
#ifndef CKPTFS_BASE_PRINTABLE_H
#define CKPTFS_BASE_PRINTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

// The length of the valid UTF-8 sequence at `s`, or 0.
size_t printable_utf8_length(const uint8_t *s);
// Whether that sequence means something to a terminal other than a character: control characters,
// and what changes the direction or the lines of the text around it.
bool printable_is_control(const uint8_t *s, size_t length);

// Appends the text; of controls and of what is not UTF-8 each byte as \xNN, so that it does nothing
// and stays in its line.
void buffer_append_printable(struct buffer *out, const char *text);
// The same of several lines: they stay lines.
void buffer_append_printable_lines(struct buffer *out, const char *text);

#endif
