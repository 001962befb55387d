// SPDX-License-Identifier: Apache-2.0
// stderr, a file on a full or a hanging disk, and the system log's socket can all keep a writer
// waiting. So a thread that logs only puts a line into the queue, and the thread "log" waits
// instead. A daemon that is killed loses the lines that are still in the queue, usually none.
#define _GNU_SOURCE
#include "platform/log_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/list.h"
#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/memory.h"
#include "platform/thread.h"

// How long the end of the program waits for lines that cannot be written.
#define STOP_MS 5000u

struct line {
    struct list_node node;
    enum log_level level;
    size_t length;
    char text[];
};

static bool use_syslog;
static char *file_path;
static int file_fd = -1; // the number never changes: the log is reopened under it
static atomic_bool reopen_wanted;
static sem_t wake; // lines, a reopening, the end; may be posted by a signal handler

static struct lock lock;       // "log": protects all below
static struct condition ended; // `running` is false again
static struct list_node queue;
static size_t queued_bytes; // with the bytes being written
static uint64_t dropped;
static bool running;
static bool stopping;
static struct thread thread;

static void __attribute__((constructor)) initialise(void)
{
    lock_init(&lock, "log", LOCK_RANK_LOG);
    condition_init(&ended);
    list_init(&queue);
    if (sem_init(&wake, 0, 0) < 0)
        abort();
}

// ---- places -------------------------------------------------------------------------------------

void
log_set_syslog(bool to_syslog, const char *identity)
{
    if (to_syslog)
        openlog(identity, LOG_PID, LOG_DAEMON);
    use_syslog = to_syslog;
}

static int
open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

int
log_set_file(const char *path)
{
    int fd = open_file(path);
    if (fd < 0)
        return fd;
    file_fd = fd;
    file_path = memory_string(path);
    return 0;
}

void
log_write_now(const char *line, size_t n)
{
    ssize_t ignored UNUSED = write(STDERR_FILENO, line, n);
    if (file_fd >= 0)
        ignored = write(file_fd, line, n);
}

void
log_reopen_soon(void)
{
    atomic_store(&reopen_wanted, true);
    sem_post(&wake);
}

static void
reopen_if_wanted(void)
{
    if (!atomic_exchange(&reopen_wanted, false) || file_fd < 0)
        return;
    int fd = open_file(file_path);
    if (fd >= 0 && dup3(fd, file_fd, O_CLOEXEC) < 0) {
        int rc = -errno;
        close(fd);
        fd = rc;
    }
    if (fd < 0) {
        log_warning("log.reopen_failed", "%s: %s; lines go on to the file that was open", file_path,
            strerror(-fd));
        return;
    }
    close(fd);
    log_info("log.reopened", "%s", file_path);
}

// One write a line keeps lines of several processes apart. A log that cannot be written must not
// stop the volume, so the results are not used.
static void
write_line(enum log_level level, const char *text, size_t n)
{
    static const int syslog_levels[] = {LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERR};
    ssize_t ignored UNUSED = 0;
    if (use_syslog)
        syslog(syslog_levels[level], "%.*s", (int)(n - 1), text);
    else
        ignored = write(STDERR_FILENO, text, n);
    if (file_fd >= 0)
        ignored = write(file_fd, text, n);
}

// ---- the queue ----------------------------------------------------------------------------------

static void
append_locked(enum log_level level, bool always, const void *text, size_t n)
{
    if (queued_bytes + n > LOG_QUEUE_BYTES * (always ? 2 : 1)) {
        dropped++;
        return;
    }
    struct line *l = memory_alloc(sizeof(*l) + n);
    l->level = level;
    l->length = n;
    memcpy(l->text, text, n);
    list_append(&queue, &l->node);
    queued_bytes += n;
}

void
log_sink_put(enum log_level level, bool always, const void *text, size_t n)
{
    lock_take(&lock);
    bool queued = running && !stopping;
    if (queued)
        append_locked(level, always, text, n);
    lock_release(&lock);
    if (queued) {
        sem_post(&wake);
    } else {
        reopen_if_wanted();
        write_line(level, text, n);
    }
}

void
log_sink_wake(void)
{
    sem_post(&wake);
}

static void
write_lines(struct list_node *lines)
{
    for (struct list_node *node; (node = list_take_first(lines));) {
        struct line *l = CONTAINER_OF(node, struct line, node);
        write_line(l->level, l->text, l->length);
        lock_take(&lock);
        queued_bytes -= l->length;
        lock_release(&lock);
        free(l);
    }
}

static void
report_dropped(uint64_t count)
{
    struct log_event e;
    if (count == 0)
        return;
    log_begin(&e, LOG_LEVEL_WARNING, "log.dropped");
    log_u64(&e, "lines", count);
    log_end(&e);
}

static void
wait_until(uint64_t until_ms)
{
    struct timespec until = {
        .tv_sec = (time_t)(until_ms / 1000), .tv_nsec = (long)(until_ms % 1000) * 1000000};
    if (until_ms == UINT64_MAX)
        (void)sem_wait(&wake);
    else
        (void)sem_clockwait(&wake, CLOCK_MONOTONIC, &until);
}

static void
run(void *argument UNUSED)
{
    for (bool stop = false; !stop;) {
        struct list_node lines;
        list_init(&lines);
        wait_until(log_report_suppressed(false));
        reopen_if_wanted();
        lock_take(&lock);
        list_move_all(&lines, &queue);
        stop = stopping;
        lock_release(&lock);
        write_lines(&lines);
        // Dropped lines are reported behind the lines that filled the queue.
        lock_take(&lock);
        uint64_t count = dropped;
        dropped = 0;
        lock_release(&lock);
        report_dropped(count);
    }
    lock_take(&lock);
    running = false;
    condition_signal(&ended);
    lock_release(&lock);
}

void
log_start(void)
{
    lock_take(&lock);
    running = true;
    stopping = false;
    lock_release(&lock);
    int rc = thread_start(&thread, "log", run, NULL);
    if (rc == 0)
        return;
    lock_take(&lock);
    running = false;
    lock_release(&lock);
    log_warning(
        "log.no_thread", "cannot start a thread; lines are written at once: %s", strerror(-rc));
}

void
log_stop(void)
{
    lock_take(&lock);
    bool was_running = running;
    lock_release(&lock);
    (void)log_report_suppressed(true);
    if (!was_running)
        return;
    lock_take(&lock);
    stopping = true;
    sem_post(&wake);
    uint64_t until = clock_monotonic_ms() + STOP_MS;
    while (running && condition_wait_until(&ended, &lock, until))
        ;
    bool has_ended = !running;
    lock_release(&lock);
    if (has_ended)
        thread_join(&thread);
}
