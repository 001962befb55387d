// SPDX-License-Identifier: Apache-2.0
#include "platform/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "platform/clock.h"

static enum log_level minimum_level = LOG_LEVEL_INFO;
static bool use_syslog;
static int file_fd = -1;

static const char *const level_names[] = {"debug", "info", "warning", "error"};
static const int syslog_levels[] = {LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERR};

void
log_set_level(enum log_level level)
{
    minimum_level = level;
}

void
log_set_syslog(bool to_syslog, const char *identity)
{
    if (to_syslog)
        openlog(identity, LOG_PID, LOG_DAEMON);
    use_syslog = to_syslog;
}

int
log_set_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    file_fd = fd;
    return 0;
}

void
log_begin(struct log_event *e, enum log_level level, const char *event)
{
    *e = (struct log_event){.level = level, .wanted = level >= minimum_level};
    if (!e->wanted)
        return;
    e->json.out = &e->text;
    json_begin_object(&e->json, NULL);
    struct timespec now = clock_wall();
    struct tm tm;
    gmtime_r(&now.tv_sec, &tm);
    char text[40];
    size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + n, sizeof(text) - n, ".%06ldZ", now.tv_nsec / 1000);
    json_string(&e->json, "time", text);
    json_string(&e->json, "level", level_names[level]);
    json_string(&e->json, "event", event);
}

void
log_string(struct log_event *e, const char *key, const char *value)
{
    if (e->wanted)
        json_string(&e->json, key, value);
}

void
log_u64(struct log_event *e, const char *key, uint64_t value)
{
    if (e->wanted)
        json_u64(&e->json, key, value);
}

void
log_bool(struct log_event *e, const char *key, bool value)
{
    if (e->wanted)
        json_bool(&e->json, key, value);
}

void
log_end(struct log_event *e)
{
    if (!e->wanted)
        return;
    json_end_object(&e->json);
    if (use_syslog)
        syslog(syslog_levels[e->level], "%s", buffer_string(&e->text));
    buffer_append_u8(&e->text, '\n');
    // One write a line keeps lines of several threads apart. A log that cannot be written must not
    // stop the volume, so the result is not used.
    ssize_t ignored UNUSED = 0;
    if (!use_syslog)
        ignored = write(STDERR_FILENO, e->text.data, e->text.length);
    if (file_fd >= 0)
        ignored = write(file_fd, e->text.data, e->text.length);
    buffer_free(&e->text);
}

void
log_message(enum log_level level, const char *event, const char *format, ...)
{
    struct log_event e;
    log_begin(&e, level, event);
    if (e.wanted) {
        char text[2048];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        log_string(&e, "message", text);
    }
    log_end(&e);
}
