// SPDX-License-Identifier: Apache-2.0
#include "platform/crash_point.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifdef CKPTFS_FAULT_HOOKS

static const char *wanted;
static size_t wanted_length;
static int death;
static atomic_long remaining;

void
crash_point_arm(const char *text)
{
    wanted = text;
    if (!wanted)
        return;
    const char *colon = strchr(wanted, ':');
    wanted_length = colon ? (size_t)(colon - wanted) : strlen(wanted);
    long count = colon ? atol(colon + 1) : 1;
    death = colon && strstr(colon, ":stop") ? SIGSTOP : SIGKILL;
    atomic_store(&remaining, count > 0 ? count : 1);
}

static void __attribute__((constructor)) read_environment(void)
{
    crash_point_arm(getenv("CKPTFS_CRASH_AT"));
}

void
crash_point(const char *name)
{
    if (!wanted || strlen(name) != wanted_length || memcmp(name, wanted, wanted_length) != 0)
        return;
    if (atomic_fetch_sub(&remaining, 1) == 1)
        raise(death);
}

#endif
