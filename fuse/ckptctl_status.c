// SPDX-License-Identifier: Apache-2.0
// ckptctl status.
#include <stdlib.h>

#include "fuse/ckptctl.h"
#include "fuse/health.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/memory.h"

static int
show_fuse(const struct status_request *request, int fd)
{
    BUFFER_AUTO text = {0};
    struct ckptfs_fuse_requests requests;
    int rc = control_fuse_requests(fd, &requests);
    if (rc != 0)
        return control_failed("status of", request->path, rc);
    if (request->json)
        print_fuse_requests_json(&requests, &text);
    else
        print_fuse_requests(&requests, &text);
    return print_out(&text);
}

static int
check(const struct status_request *request, const struct ckptfs_status *s,
    const struct ckptfs_metrics *metrics)
{
    BUFFER_AUTO text = {0};
    const struct health_input in = {
        .fenced = s->flags & CKPTFS_STATUS_FENCED,
        .read_only = s->flags & CKPTFS_STATUS_READ_ONLY,
        .read_only_reason = s->read_only_reason,
        .claimed = print_metric(metrics, "claimed"),
        .store_damaged = print_metric(metrics, "store_damaged"),
        .lost_bytes = print_metric(metrics, "lost_bytes"),
        .manifest_damaged = print_metric(metrics, "manifest_damaged"),
        .manifest_violations = print_metric(metrics, "manifest_violations"),
        .oldest_unpublished_ms = s->oldest_unpublished_ms,
        .max_age_ms =
            request->max_age_seconds < 0 ? UINT64_MAX : (uint64_t)request->max_age_seconds * 1000,
        .published_generation = s->published_generation,
        .store_failing = print_metric(metrics, "store_failing"),
        .last_error = print_has_failed(metrics) ? s->last_error : "",
    };
    health_print(&in, request->json, &text);
    int status = print_out(&text);
    return status != EXIT_SUCCESS ? status : health_exit_status(health_judge(&in));
}

static int
show(const struct status_request *request, const struct ckptfs_status *s,
    const struct ckptfs_metrics *metrics, const struct ckptfs_lost *lost)
{
    BUFFER_AUTO text = {0};
    if (request->json) {
        print_status_json(s, metrics, lost, &text);
    } else {
        print_status(s, metrics, clock_wall_ms(), &text);
        print_lost(lost, &text);
    }
    return print_out(&text);
}

int
show_status(const struct status_request *request)
{
    struct ckptfs_status status;
    struct ckptfs_lost lost;
    if (request->max_age_seconds >= 0 && !request->check) {
        print_error("--max-age is for --check");
        return EXIT_STATUS_USAGE;
    }
    if (request->check && (request->root || request->fuse)) {
        print_error("--check is for a MOUNTPOINT, without --fuse");
        return EXIT_STATUS_USAGE;
    }
    if (request->root)
        return print_root(request->root, request->json);
    CLEANUP(memory_free_auto) struct ckptfs_metrics *metrics = memory_alloc(sizeof(*metrics));
    CLEANUP(file_close_auto) int fd = control_open(request->path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    if (request->fuse)
        return show_fuse(request, fd);
    int rc = control_status(fd, &status);
    if (rc == 0)
        rc = control_metrics(fd, metrics);
    if (rc == 0)
        rc = control_lost(fd, &lost);
    if (rc != 0)
        return control_failed("status of", request->path, rc);
    return request->check ? check(request, &status, metrics)
                          : show(request, &status, metrics, &lost);
}
