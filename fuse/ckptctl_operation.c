// SPDX-License-Identifier: Apache-2.0
// Commands for retention and snapshots: sends them by ioctl, waits, and prints the daemon's text.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse/ckptctl.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/memory.h"

#define POLL_FIRST_MS 5u
#define POLL_MAX_MS   200u
// More than a daemon gives.
#define TEXT_BYTES_MAX (64u << 20)

static int
start(int fd, const struct operation_request *request, uint64_t *ticket_out)
{
    struct ckptfs_operation op = {
        .version = CKPTFS_ABI_VERSION,
        .kind = request->kind,
        .flags = request->flags,
    };
    if (strlen(request->argument) >= sizeof(op.argument))
        return -E2BIG;
    memcpy(op.argument, request->argument, strlen(request->argument));
    if (ioctl(fd, CKPTFS_IOC_OPERATION, &op) < 0)
        return -errno;
    *ticket_out = op.ticket;
    return 0;
}

static int
ask(int fd, uint64_t ticket, uint64_t offset, struct ckptfs_report *report)
{
    *report =
        (struct ckptfs_report){.version = CKPTFS_ABI_VERSION, .ticket = ticket, .offset = offset};
    if (ioctl(fd, CKPTFS_IOC_REPORT, report) < 0)
        return -errno;
    return report->length > sizeof(report->text) || report->total > TEXT_BYTES_MAX ? -EBADMSG : 0;
}

// The daemon stops the operation soon, and tells it in the report.
static void
cancel(int fd, uint64_t ticket)
{
    char text[24];
    uint64_t none;
    snprintf(text, sizeof(text), "%llu", (unsigned long long)ticket);
    const struct operation_request request = {
        .what = "stop", .kind = CKPTFS_OPERATION_CANCEL, .argument = text};
    int rc = start(fd, &request, &none);
    if (rc < 0 && rc != -EALREADY)
        print_error("the daemon goes on: %s", strerror(-rc));
}

// Waits for the end and fetches the text; `result_out` is the operation's.
static int
wait_for(int fd, uint64_t ticket, const struct operation_request *request, struct buffer *text,
    int *result_out)
{
    CLEANUP(memory_free_auto) struct ckptfs_report *report = memory_alloc(sizeof(*report));
    uint64_t pause_ms = POLL_FIRST_MS;
    bool asked = false;
    for (;;) {
        int rc = ask(fd, ticket, text->length, report);
        if (rc < 0)
            return rc;
        if (report->state != CKPTFS_OPERATION_DONE) {
            if (was_interrupted() && !asked) {
                cancel(fd, ticket);
                asked = true;
                continue;
            }
            if (request->show)
                show_done_bytes(report->done_bytes, report->total_bytes);
            clock_sleep_ms(pause_ms);
            pause_ms = pause_ms * 2 < POLL_MAX_MS ? pause_ms * 2 : POLL_MAX_MS;
            continue;
        }
        if (request->show && text->length == 0)
            end_done_bytes();
        buffer_append(text, report->text, report->length);
        *result_out = report->result;
        if (text->length >= report->total || report->length == 0)
            return 0;
    }
}

int
ask_operation(int fd, const struct operation_request *request, struct buffer *text, int *result_out)
{
    uint64_t ticket = 0;
    int rc = start(fd, request, &ticket);
    return rc < 0 ? rc : wait_for(fd, ticket, request, text, result_out);
}

int
run_operation(const char *path, const struct operation_request *request)
{
    CLEANUP(file_close_auto) int fd = control_open(path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    BUFFER_AUTO text = {0};
    int result = 0;
    int rc = ask_operation(fd, request, &text, &result);
    if (rc == -EROFS) {
        print_error("%s %s: the mount is read-only", request->what, path);
        return EXIT_STATUS_ERROR;
    }
    if (rc < 0)
        return control_failed(request->what, path, rc);
    // What was done until then.
    if (result == -ECANCELED && text.length > 0) {
        int status = request->quiet ? EXIT_SUCCESS : print_out(&text);
        print_error("%s %s: stopped", request->what, path);
        return status == EXIT_SUCCESS ? EXIT_STATUS_ERROR : status;
    }
    if (result < 0) {
        print_error("%s %s: %s", request->what, path,
            text.length > 0 ? buffer_string(&text) : strerror(-result));
        return EXIT_STATUS_ERROR;
    }
    return text.length > 0 && !request->quiet ? print_out(&text) : 0;
}

int
create_snapshot(const char *name, const char *path, uint32_t flags)
{
    struct ckptfs_checkpoint done;
    BUFFER_AUTO argument = {0};
    CLEANUP(file_close_auto) int fd = control_open(path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    if (strchr(name, ' ')) {
        print_error("\"%s\" cannot be the name of a snapshot: there is a blank in it", name);
        return EXIT_STATUS_USAGE;
    }
    int rc = control_checkpoint(fd, CKPTFS_CHECKPOINT_WAIT, &done);
    if (rc < 0)
        return control_checkpoint_failed(path, fd, rc);
    buffer_printf(&argument, "%s %llu", name, (unsigned long long)done.generation);
    const struct operation_request request = {
        .what = "snapshot of",
        .kind = CKPTFS_OPERATION_SNAPSHOT_CREATE,
        .flags = flags,
        .argument = buffer_string(&argument),
    };
    return run_operation(path, &request);
}

int
control_quota(const char *path, const char *size, const char *of, uint32_t flags)
{
    BUFFER_AUTO argument = {0};
    if (size)
        buffer_printf(&argument, "%s %s", of ? of : "volume", size);
    const struct operation_request request = {.what = "quota of",
        .kind = CKPTFS_OPERATION_QUOTA,
        .flags = flags,
        .argument = buffer_string(&argument)};
    return run_operation(path, &request);
}

int
control_evict(const struct evict_request *evict)
{
    BUFFER_AUTO argument = {0};
    struct stat st;
    if (!evict->all && stat(evict->path, &st) < 0) {
        print_error("%s: %s", evict->path, strerror(errno));
        return EXIT_STATUS_ERROR;
    }
    if (!evict->all && !S_ISREG(st.st_mode)) {
        print_error("%s is no file; give --all to evict all of the volume", evict->path);
        return EXIT_STATUS_USAGE;
    }
    if (!evict->all)
        buffer_printf(&argument, "inode %llu", (unsigned long long)st.st_ino);
    const struct operation_request request = {
        .what = "evict",
        .kind = CKPTFS_OPERATION_EVICT,
        .flags = evict->json ? CKPTFS_OPERATION_JSON : 0,
        .argument = buffer_string(&argument),
        .show = !evict->quiet && !evict->json && isatty(STDERR_FILENO),
        .quiet = evict->quiet && !evict->json,
    };
    watch_interrupts();
    return run_operation(evict->path, &request);
}
