// SPDX-License-Identifier: Apache-2.0
// Writes JSON (RFC 8259) into a buffer. The writer escapes strings, turns bytes that are not UTF-8
// into U+FFFD, so that the output always parses, and adds the commas. Not for concurrent use.
#ifndef CKPTFS_BASE_JSON_WRITER_H
#define CKPTFS_BASE_JSON_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"

struct json_writer {
    struct buffer *out;
    bool needs_comma;
};

void write_json_begin_object(struct json_writer *w, const char *key);
void write_json_end_object(struct json_writer *w);
void write_json_begin_array(struct json_writer *w, const char *key);
void write_json_end_array(struct json_writer *w);
// `key` is NULL for an element of an array.
void write_json_string(struct json_writer *w, const char *key, const char *value);
void write_json_u64(struct json_writer *w, const char *key, uint64_t value);
void write_json_i64(struct json_writer *w, const char *key, int64_t value);
void write_json_double(struct json_writer *w, const char *key, double value);
// `json` is a whole value already.
void write_json_raw(struct json_writer *w, const char *key, const char *json);
void write_json_bool(struct json_writer *w, const char *key, bool value);

#endif
