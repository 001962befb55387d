// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/fault_report.h"
#include "platform/log.h"
#include "platform/log_internal.h"
#include "platform/log_limit.h"
#include "platform/memory.h"

// ---- limits -------------------------------------------------------------------------------------

static unsigned
admit(struct log_limit *l, const char *event, const char *key, unsigned lines, uint64_t now_ms)
{
    unsigned passed = 0;
    for (unsigned i = 0; i < lines; i++)
        passed += log_limit_admit(l, event, key, now_ms);
    return passed;
}

START_TEST(lines_of_one_key_are_limited_and_counted)
{
    static struct log_limit l;
    struct log_limit_slot ended;
    ck_assert_uint_eq(admit(&l, "a.b", "key", 100, 5), LOG_LIMIT_KEY_LINES);
    ck_assert(!log_limit_take(&l, 5 + LOG_LIMIT_WINDOW_MS - 1, &ended));
    ck_assert(log_limit_take(&l, 5 + LOG_LIMIT_WINDOW_MS, &ended));
    ck_assert_str_eq(ended.event, "a.b");
    ck_assert_str_eq(ended.key, "key");
    ck_assert_uint_eq(ended.suppressed, 100 - LOG_LIMIT_KEY_LINES);
    ck_assert(!log_limit_take(&l, UINT64_MAX, &ended));
    ck_assert_uint_eq(l.next_ms, 0);
    // A new window.
    ck_assert_uint_eq(admit(&l, "a.b", "key", 100, 5 + LOG_LIMIT_WINDOW_MS), LOG_LIMIT_KEY_LINES);
}
END_TEST

START_TEST(other_keys_and_events_are_not_held_up)
{
    static struct log_limit l;
    (void)admit(&l, "a.b", "key", 1000, 0);
    ck_assert(log_limit_admit(&l, "a.b", "other", 0));
    ck_assert(log_limit_admit(&l, "a.b", NULL, 0));
    ck_assert(log_limit_admit(&l, "a.c", "key", 0));
    (void)admit(&l, "a.d", NULL, 1000, 0);
    ck_assert(log_limit_admit(&l, "a.e", NULL, 0));
}
END_TEST

START_TEST(many_keys_of_one_event_are_limited_together)
{
    static struct log_limit l;
    char key[32];
    unsigned passed = 0;
    for (unsigned i = 0; i < 10000; i++) {
        snprintf(key, sizeof(key), "key %u", i);
        passed += log_limit_admit(&l, "a.b", key, i / 100);
    }
    ck_assert_uint_eq(passed, LOG_LIMIT_EVENT_LINES);
    struct log_limit_slot ended;
    ck_assert(log_limit_take(&l, LOG_LIMIT_WINDOW_MS, &ended));
    ck_assert_str_eq(ended.key, "");
    ck_assert_uint_eq(ended.suppressed, 10000 - LOG_LIMIT_EVENT_LINES);
}
END_TEST

START_TEST(one_off_events_pass_in_a_flood)
{
    static struct log_limit l;
    char event[32];
    for (unsigned i = 0; i < 2 * LOG_LIMIT_EVENTS; i++) {
        snprintf(event, sizeof(event), "event.%u", i);
        (void)admit(&l, event, "key", 10, 0);
        (void)admit(&l, "flood.one", event, 100, 0);
        ck_assert(i >= 100 || log_limit_admit(&l, event, "other key", 0));
    }
    ck_assert(log_limit_admit(&l, "volume.of_a_new_name", NULL, 0));
}
END_TEST

START_TEST(no_suppressed_line_goes_uncounted)
{
    static struct log_limit l;
    char key[32];
    uint64_t passed = 0;
    uint64_t counted = 0;
    struct log_limit_slot ended;
    for (unsigned i = 0; i < 200000; i++) {
        snprintf(key, sizeof(key), "key %u", i % 700);
        passed += log_limit_admit(&l, i % 3 ? "a.b" : "a.c", i % 5 ? key : NULL, i);
        if (i % 1000 == 0)
            while (log_limit_take(&l, i, &ended))
                counted += ended.suppressed;
    }
    while (log_limit_take_any(&l, &ended))
        counted += ended.suppressed;
    ck_assert_uint_eq(passed + counted, 200000);
}
END_TEST

// ---- lines --------------------------------------------------------------------------------------

static unsigned
count_lines(const char *path, const char *with)
{
    BUFFER_AUTO text = {0};
    ck_assert_int_eq(file_read_whole(path, 100 << 20, &text), 0);
    unsigned count = 0;
    for (const char *p = buffer_string(&text); (p = strstr(p, with)); p++)
        count++;
    return count;
}

START_TEST(every_line_names_the_tenant_once)
{
    char *directory = unit_directory_new();
    char *path = NULL;
    ck_assert_int_gt(asprintf(&path, "%s/log", directory), 0);
    ck_assert_int_eq(log_set_file(path), 0);
    log_set_tenant("acme");
    log_start();
    log_info("a.b", "one");
    log_error_of("a.c", "key", "two");
    log_stop();
    ck_assert_uint_eq(count_lines(path, "\"tenant\":\"acme\""), 2);
    ck_assert_uint_eq(count_lines(path, "\"key\":\"key\",\"message\":\"two\""), 1);
    free(path);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(a_flood_ends_with_its_count)
{
    char *directory = unit_directory_new();
    char *path = NULL;
    ck_assert_int_gt(asprintf(&path, "%s/log", directory), 0);
    ck_assert_int_eq(log_set_file(path), 0);
    log_start();
    for (int i = 0; i < 5000; i++) {
        log_error_of("flood.error", "key", "again");
        if (i % 50 == 0)
            log_error("volume.fenced", "an operator must see each");
    }
    log_stop();
    ck_assert_uint_eq(
        count_lines(path, "\"flood.error\",\"key\":\"key\",\"message\""), LOG_LIMIT_KEY_LINES);
    ck_assert_uint_eq(
        count_lines(path, "\"of\":\"flood.error\",\"key\":\"key\",\"lines\":4997"), 1);
    ck_assert_uint_eq(count_lines(path, "volume.fenced"), 100);
    free(path);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(a_renamed_log_is_opened_anew)
{
    char *directory = unit_directory_new();
    char *path = NULL;
    char *old = NULL;
    ck_assert_int_gt(asprintf(&path, "%s/log", directory), 0);
    ck_assert_int_gt(asprintf(&old, "%s/log.1", directory), 0);
    ck_assert_int_eq(log_set_file(path), 0);
    log_start();
    log_info("a.before", " ");
    while (count_lines(path, "a.before") == 0)
        clock_sleep_ms(1);
    ck_assert_int_eq(rename(path, old), 0);
    log_info("a.between", " ");
    while (count_lines(old, "a.between") == 0)
        clock_sleep_ms(1);
    log_reopen_soon();
    log_info("a.after", " ");
    log_stop();
    ck_assert_uint_eq(count_lines(old, "\"event\""), 2);
    ck_assert_uint_eq(count_lines(path, "a.after"), 1);
    ck_assert_uint_eq(count_lines(path, "log.reopened"), 1);
    free(path);
    free(old);
    unit_directory_remove(directory);
}
END_TEST

// stderr is a pipe that nobody reads: who logs goes on, and what does not fit is counted.
START_TEST(a_log_that_hangs_keeps_nobody_waiting)
{
    int ends[2];
    char *directory = unit_directory_new();
    char *path = NULL;
    char text[1000];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    ck_assert_int_gt(asprintf(&path, "%s/log", directory), 0);
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    ck_assert_int_eq(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    ck_assert_int_eq(log_set_file(path), 0);
    log_start();
    for (unsigned i = 0; i < 5 * LOG_QUEUE_BYTES / sizeof(text); i++)
        log_info("a.b", "%s", text);
    log_error("volume.fenced", "has room still");
    // Now somebody reads.
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(null, 0);
    ck_assert_int_eq(dup2(null, STDERR_FILENO), STDERR_FILENO);
    close(ends[1]);
    close(ends[0]);
    while (count_lines(path, "log.dropped") == 0)
        clock_sleep_ms(1);
    log_stop();
    ck_assert_uint_eq(count_lines(path, "volume.fenced"), 1);
    unsigned lines = count_lines(path, "\"a.b\"");
    ck_assert(lines > 900 && lines < 2000);
    free(path);
    unit_directory_remove(directory);
}
END_TEST

// ---- the end of the process ---------------------------------------------------------------------

// A page of a mapped file that is not there any more.
static void
read_what_is_gone(const char *log, const char *mapped)
{
    int fd = open(mapped, O_RDWR | O_CREAT, 0600);
    bool ok = fd >= 0 && ftruncate(fd, 3 * 4096) == 0;
    char *p = ok ? mmap(NULL, 3 * 4096, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (p == MAP_FAILED || ftruncate(fd, 4096) < 0 || log_set_file(log) < 0)
        _exit(1);
    fault_report_start();
    _exit(2 + *(volatile char *)(p + 2 * 4096));
}

START_TEST(a_mapped_file_that_ends_the_process_is_named)
{
    char *directory = unit_directory_new();
    char *log = memory_printf("%s/log", directory);
    char *mapped = memory_printf("%s/mapped", directory);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0)
        read_what_is_gone(log, mapped);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    ck_assert_uint_eq(count_lines(log, "process.fault"), 1);
    ck_assert_uint_eq(count_lines(log, mapped), 1);
    free(mapped);
    free(log);
    unit_directory_remove(directory);
}
END_TEST

int
main(void)
{
    signal(SIGPIPE, SIG_IGN);
    Suite *s = suite_create("log");
#define ADD(name) unit_add(s, #name, name, 30)
    ADD(lines_of_one_key_are_limited_and_counted);
    ADD(other_keys_and_events_are_not_held_up);
    ADD(many_keys_of_one_event_are_limited_together);
    ADD(one_off_events_pass_in_a_flood);
    ADD(no_suppressed_line_goes_uncounted);
    ADD(every_line_names_the_tenant_once);
    ADD(a_flood_ends_with_its_count);
    ADD(a_renamed_log_is_opened_anew);
    ADD(a_mapped_file_that_ends_the_process_is_named);
    ADD(a_log_that_hangs_keeps_nobody_waiting);
    return unit_run(s);
}
