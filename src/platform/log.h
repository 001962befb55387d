// SPDX-License-Identifier: Apache-2.0
// The log: one line an event, as JSON objects {"time", "level", "event", ...}, to stderr or to the
// system log. The events' names and fields are listed in doc/checkpointing_design.md, section 14.
// Whoever meets a failure logs it once, with the object and the cause. Any thread. Secrets never go
// in here.
#ifndef CKPTFS_PLATFORM_LOG_H
#define CKPTFS_PLATFORM_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/json_writer.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };

// Process-wide, set once at start: where lines go and from which level on.
void log_set_level(enum log_level level);
void log_set_syslog(bool to_syslog, const char *identity);
// Appends lines to this file too; 0 or -errno.
MUST_CHECK int log_set_file(const char *path);

// An event with fields:
//     struct log_event e;
//     log_begin(&e, LOG_LEVEL_INFO, "checkpoint.staged");
//     log_u64(&e, "staged_bytes", n);
//     log_end(&e);
struct log_event {
    struct buffer text;
    struct json_writer json;
    enum log_level level;
    bool wanted;
};

void log_begin(struct log_event *e, enum log_level level, const char *event);
void log_string(struct log_event *e, const char *key, const char *value);
void log_u64(struct log_event *e, const char *key, uint64_t value);
void log_bool(struct log_event *e, const char *key, bool value);
void log_end(struct log_event *e);

// An event with one field "message".
void log_message(enum log_level level, const char *event, const char *format, ...)
    PRINTF_LIKE(3, 4);

#define log_error(event, ...)   log_message(LOG_LEVEL_ERROR, event, __VA_ARGS__)
#define log_warning(event, ...) log_message(LOG_LEVEL_WARNING, event, __VA_ARGS__)
#define log_info(event, ...)    log_message(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define log_debug(event, ...)   log_message(LOG_LEVEL_DEBUG, event, __VA_ARGS__)

#endif
