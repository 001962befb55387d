// SPDX-License-Identifier: Apache-2.0
#include "platform/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/log_internal.h"
#include "platform/log_limit.h"
#include "platform/memory.h"

static atomic_int minimum_level = LOG_LEVEL_INFO;
static char *tenant;

static struct lock lock; // "log_limit": protects `limit`
static struct log_limit limit;

static const char *const level_names[] = {"debug", "info", "warning", "error"};

// Events that happen once, and that an operator must see: which host has the volume, whether it can
// be written, and whether its data is whole.
static const char *const always_logged[] = {"checkpoint.corrupt", "log.dropped", "log.suppressed",
    "manifest.damaged", "mount.failed", "store.catalog_lost", "store.damaged", "volume.closed",
    "volume.fenced", "volume.start_over", "wal.damaged", "wal.failed", "wal.replay_failed",
    "wal.replay_lost", "wal.replay_skipped"};

static void __attribute__((constructor)) initialise(void)
{
    lock_init(&lock, "log_limit", LOCK_RANK_LOG);
}

void
log_set_level(enum log_level level)
{
    atomic_store_explicit(&minimum_level, (int)level, memory_order_relaxed);
}

void
log_set_tenant(const char *name)
{
    tenant = memory_string(name);
}

// ---- limits -------------------------------------------------------------------------------------

static bool
is_always_logged(const char *event)
{
    for (size_t i = 0; i < ARRAY_LENGTH(always_logged); i++)
        if (strcmp(event, always_logged[i]) == 0)
            return true;
    return false;
}

static bool
is_admitted(const struct log_event *e, const char *event, const char *key)
{
    if (e->always || e->level < LOG_LEVEL_WARNING)
        return true;
    lock_take(&lock);
    uint64_t next_ms = limit.next_ms;
    bool admitted = log_limit_admit(&limit, event, key, clock_monotonic_ms());
    bool earlier = limit.next_ms != next_ms;
    lock_release(&lock);
    if (earlier)
        log_sink_wake();
    return admitted;
}

static void
report(const struct log_limit_slot *s)
{
    struct log_event e;
    log_begin(&e, LOG_LEVEL_WARNING, "log.suppressed");
    log_string(&e, "of", s->event);
    if (s->key[0] != '\0')
        log_string(&e, "key", s->key);
    log_u64(&e, "lines", s->suppressed);
    log_u64(&e, "window_ms", LOG_LIMIT_WINDOW_MS);
    log_end(&e);
}

uint64_t
log_report_suppressed(bool all)
{
    for (;;) {
        struct log_limit_slot ended;
        lock_take(&lock);
        bool taken = all ? log_limit_take_any(&limit, &ended)
                         : log_limit_take(&limit, clock_monotonic_ms(), &ended);
        uint64_t next = limit.next_ms ? limit.next_ms : UINT64_MAX;
        lock_release(&lock);
        if (!taken)
            return next;
        report(&ended);
    }
}

// ---- events -------------------------------------------------------------------------------------

static void
begin_line(struct log_event *e, const char *event)
{
    e->json.out = &e->text;
    write_json_begin_object(&e->json, NULL);
    struct timespec now = clock_wall();
    struct tm tm;
    gmtime_r(&now.tv_sec, &tm);
    char text[40];
    size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + n, sizeof(text) - n, ".%06ldZ", now.tv_nsec / 1000);
    write_json_string(&e->json, "time", text);
    write_json_string(&e->json, "level", level_names[e->level]);
    write_json_string(&e->json, "event", event);
    if (tenant)
        write_json_string(&e->json, "tenant", tenant);
}

void
log_begin_of(struct log_event *e, enum log_level level, const char *event, const char *key)
{
    *e = (struct log_event){.level = level, .always = is_always_logged(event)};
    e->wanted = (int)level >= atomic_load_explicit(&minimum_level, memory_order_relaxed) &&
                is_admitted(e, event, key);
    if (!e->wanted)
        return;
    begin_line(e, event);
    if (key)
        write_json_string(&e->json, "key", key);
}

void
log_begin(struct log_event *e, enum log_level level, const char *event)
{
    log_begin_of(e, level, event, NULL);
}

void
log_string(struct log_event *e, const char *key, const char *value)
{
    if (e->wanted)
        write_json_string(&e->json, key, value);
}

void
log_u64(struct log_event *e, const char *key, uint64_t value)
{
    if (e->wanted)
        write_json_u64(&e->json, key, value);
}

void
log_bool(struct log_event *e, const char *key, bool value)
{
    if (e->wanted)
        write_json_bool(&e->json, key, value);
}

void
log_end(struct log_event *e)
{
    if (!e->wanted)
        return;
    write_json_end_object(&e->json);
    buffer_append_u8(&e->text, '\n');
    log_sink_put(e->level, e->always, e->text.data, e->text.length);
    buffer_free(&e->text);
}

static void PRINTF_LIKE(4, 0) log_text(
    enum log_level level, const char *event, const char *key, const char *format, va_list args)
{
    struct log_event e;
    log_begin_of(&e, level, event, key);
    if (e.wanted) {
        char text[2048];
        vsnprintf(text, sizeof(text), format, args);
        log_string(&e, "message", text);
    }
    log_end(&e);
}

void
log_message(enum log_level level, const char *event, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_text(level, event, NULL, format, args);
    va_end(args);
}

void
log_message_of(enum log_level level, const char *event, const char *key, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_text(level, event, key, format, args);
    va_end(args);
}
