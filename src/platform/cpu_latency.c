// SPDX-License-Identifier: Apache-2.0
#include "platform/cpu_latency.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "platform/file.h"
#include "platform/log.h"

#define DEVICE      "/dev/cpu_dma_latency"
#define IDLE_DRIVER "/sys/devices/system/cpu/cpuidle/current_driver"

// In microseconds. The last is the kernel's default (PM_QOS_CPU_LATENCY_DEFAULT_VALUE).
#define LIMIT_POLL 0
#define LIMIT_HALT 3
#define LIMIT_NONE 2000000000

static int32_t
limit_for_this_machine(void)
{
    CLEANUP(file_close_auto) int fd = open(IDLE_DRIVER, O_RDONLY | O_CLOEXEC);
    char driver[64] = "";
    if (fd < 0 || read(fd, driver, sizeof(driver) - 1) < 0)
        return LIMIT_HALT;
    return strcmp(driver, "haltpoll\n") == 0 ? LIMIT_POLL : LIMIT_HALT;
}

int
cpu_latency_open(struct cpu_latency *c)
{
    *c = CPU_LATENCY_NONE;
    c->fd = open(DEVICE, O_WRONLY | O_CLOEXEC);
    if (c->fd < 0)
        return -errno;
    c->limit_us = limit_for_this_machine();
    return 0;
}

void
cpu_latency_close(struct cpu_latency *c)
{
    file_close(c->fd);
    *c = CPU_LATENCY_NONE;
}

void
cpu_latency_lower(struct cpu_latency *c, bool low)
{
    if (c->fd < 0 || low == c->low)
        return;
    int32_t limit_us = low ? c->limit_us : LIMIT_NONE;
    if (write(c->fd, &limit_us, sizeof(limit_us)) != (ssize_t)sizeof(limit_us)) {
        log_warning(
            "cpu_latency.failed", "cannot set the latency of processors: %s", strerror(errno));
        cpu_latency_close(c);
        return;
    }
    c->low = low;
}
