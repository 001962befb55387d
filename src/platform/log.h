// SPDX-License-Identifier: Apache-2.0
// The log: one line an event, as JSON objects {"time", "level", "event", "tenant", ...}, to stderr
// or to the system log. The events' names and fields are listed in doc/checkpointing_design.md,
// section 14. The code that meets a failure logs it once, with the object and the cause. Any
// thread, with any locks held. Never log a secret.
//
// After log_start no caller waits until its line is written: a thread writes the lines from a queue
// (log_sink.c). Repeated warnings and errors are suppressed and counted (log_limit.h); a line
// "log.suppressed" has their number when the window has ended.
#ifndef CKPTFS_PLATFORM_LOG_H
#define CKPTFS_PLATFORM_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/json_writer.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };

// Process-wide, set once at start: the level from which on lines are logged, and their destination.
void log_set_level(enum log_level level);
void log_set_syslog(bool to_syslog, const char *identity);
// Appends lines to this file too; 0 or -errno.
MUST_CHECK int log_set_file(const char *path);
// The field "tenant" of every line from now on.
void log_set_tenant(const char *tenant);

// log_start starts the thread that writes; call it after the last fork(2). log_stop ends it when
// all lines are written, or cannot be written.
void log_start(void);
void log_stop(void);
// Writes a line, with its newline, to stderr and the file at once, past the queue; not to the
// system log. Only for the end of the process. Signal handlers may call it.
void log_write_now(const char *line, size_t n);
// Opens the file anew before the next line, after a rename. Signal handlers may call it.
void log_reopen_soon(void);

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
    bool always; // exempt from suppression; has room of its own in the queue
};

void log_begin(struct log_event *e, enum log_level level, const char *event);
// The same about a named object; the name becomes the field "key". The limit of lines is by event
// and key.
void log_begin_of(struct log_event *e, enum log_level level, const char *event, const char *key);
void log_string(struct log_event *e, const char *key, const char *value);
void log_u64(struct log_event *e, const char *key, uint64_t value);
void log_bool(struct log_event *e, const char *key, bool value);
void log_end(struct log_event *e);

// An event with one field "message".
void log_message(enum log_level level, const char *event, const char *format, ...)
    PRINTF_LIKE(3, 4);
void log_message_of(enum log_level level, const char *event, const char *key, const char *format,
    ...) PRINTF_LIKE(4, 5);

#define log_error(event, ...)   log_message(LOG_LEVEL_ERROR, event, __VA_ARGS__)
#define log_warning(event, ...) log_message(LOG_LEVEL_WARNING, event, __VA_ARGS__)
#define log_info(event, ...)    log_message(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define log_debug(event, ...)   log_message(LOG_LEVEL_DEBUG, event, __VA_ARGS__)

#define log_error_of(event, key, ...)   log_message_of(LOG_LEVEL_ERROR, event, key, __VA_ARGS__)
#define log_warning_of(event, key, ...) log_message_of(LOG_LEVEL_WARNING, event, key, __VA_ARGS__)

#endif
