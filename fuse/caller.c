// SPDX-License-Identifier: Apache-2.0
#include "fuse/caller.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "platform/file.h"
#include "platform/memory.h"

#define BIT(signal) (UINT64_C(1) << ((signal)-1))

static const uint64_t ending =
    BIT(SIGKILL) | BIT(SIGINT) | BIT(SIGTERM) | BIT(SIGQUIT) | BIT(SIGHUP);

// The set of signals behind the name of a line.
static uint64_t
signals_of(const char *status, const char *name)
{
    const char *line = strstr(status, name);
    return line ? strtoull(line + strlen(name), NULL, 16) : 0;
}

bool
caller_status_wants_to_end(const char *status)
{
    uint64_t waiting = signals_of(status, "\nSigPnd:") | signals_of(status, "\nShdPnd:");
    return (waiting & ending & ~signals_of(status, "\nSigBlk:")) != 0;
}

bool
caller_wants_to_end(uint32_t pid)
{
    char text[4096] = {0};
    if (pid == 0)
        return false;
    CLEANUP(memory_free_auto) char *path = memory_printf("/proc/%" PRIu32 "/status", pid);
    CLEANUP(file_close_auto) int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && caller_status_wants_to_end(text);
}
