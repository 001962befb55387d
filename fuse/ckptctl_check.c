// SPDX-License-Identifier: Apache-2.0
// ckptctl check: has the manifest of a mount looked through.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_writer.h"
#include "fuse/ckptctl.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/memory.h"

#define LOOK_INTERVAL_MS 50u

static uint64_t
number_of(const struct ckptfs_metrics *metrics, const char *name)
{
    for (size_t i = 0; i < metrics->count; i++)
        if (strcmp(metrics->metrics[i].name, name) == 0)
            return metrics->metrics[i].value;
    return 0;
}

// Waits until the daemon has finished: it goes on in the background when ckptctl is interrupted.
static int
wait_for_check(int fd, uint64_t ticket, struct ckptfs_metrics *metrics)
{
    for (;;) {
        int rc = control_metrics(fd, metrics);
        if (rc != 0 || number_of(metrics, "manifest_checks") >= ticket)
            return rc;
        clock_sleep_ms(LOOK_INTERVAL_MS);
    }
}

static void
print_found(const struct ckptfs_metrics *m, bool json, struct buffer *out)
{
    uint64_t entries = number_of(m, "manifest_entries");
    uint64_t damaged = number_of(m, "manifest_damaged");
    uint64_t violations = number_of(m, "manifest_violations");
    if (json) {
        struct json_writer w = {.out = out};
        write_json_begin_object(&w, NULL);
        write_json_u64(&w, "entries", entries);
        write_json_u64(&w, "damaged", damaged);
        write_json_u64(&w, "violations", violations);
        write_json_end_object(&w);
        buffer_printf(out, "\n");
    } else if (damaged == 0 && violations == 0) {
        buffer_printf(out, "the manifest is whole: %" PRIu64 " entries\n", entries);
    } else {
        buffer_printf(out,
            "the manifest is damaged: %" PRIu64 " of %" PRIu64 " entries, and %" PRIu64
            " contradictions; the log of ckptfs names them\n",
            damaged, entries, violations);
    }
}

int
check_volume(const char *path, bool json, bool quiet)
{
    BUFFER_AUTO text = {0};
    struct ckptfs_check check;
    CLEANUP(memory_free_auto) struct ckptfs_metrics *metrics = memory_alloc(sizeof(*metrics));
    CLEANUP(file_close_auto) int fd = control_open(path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    int rc = control_check(fd, &check);
    if (rc == 0)
        rc = wait_for_check(fd, check.ticket, metrics);
    if (rc == 0 && number_of(metrics, "manifest_check_failed"))
        rc = -EIO;
    if (rc != 0)
        return control_failed("check", path, rc);
    bool good = number_of(metrics, "manifest_damaged") == 0 &&
                number_of(metrics, "manifest_violations") == 0;
    if (good && quiet && !json)
        return EXIT_SUCCESS;
    print_found(metrics, json, &text);
    rc = print_out(&text);
    return rc != EXIT_SUCCESS ? rc : good ? EXIT_SUCCESS : EXIT_STATUS_ERROR;
}
