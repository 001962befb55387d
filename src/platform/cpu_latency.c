// SPDX-License-Identifier: Apache-2.0
#include "platform/cpu_latency.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "platform/file.h"
#include "platform/log.h"

// The kernel's default: no limit, in microseconds (PM_QOS_CPU_LATENCY_DEFAULT_VALUE).
#define NO_LIMIT_US 2000000000

int
cpu_latency_open(struct cpu_latency *c, const char *path)
{
    *c = CPU_LATENCY_NONE;
    c->fd = open(path ? path : "/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);
    return c->fd < 0 ? -errno : 0;
}

void
cpu_latency_close(struct cpu_latency *c)
{
    file_close(c->fd);
    *c = CPU_LATENCY_NONE;
}

void
cpu_latency_poll(struct cpu_latency *c, bool poll)
{
    if (c->fd < 0 || poll == c->polling)
        return;
    int32_t limit_us = poll ? 0 : NO_LIMIT_US;
    if (write(c->fd, &limit_us, sizeof(limit_us)) != (ssize_t)sizeof(limit_us)) {
        log_warning(
            "cpu_latency.failed", "cannot set the latency of processors: %s", strerror(errno));
        cpu_latency_close(c);
        return;
    }
    c->polling = poll;
}
