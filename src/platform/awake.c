// SPDX-License-Identifier: Apache-2.0
#include "platform/awake.h"

#include "platform/clock.h"

void
awake_begin(struct awake *a)
{
    *a = (struct awake){.monotonic_ms = clock_monotonic_ms(), .wall_ms = clock_wall_ms()};
}

bool
awake_has_slept(const struct awake *a)
{
    uint64_t now_ms = clock_wall_ms();
    return clock_monotonic_ms() - a->monotonic_ms > AWAKE_MS || now_ms < a->wall_ms ||
           now_ms - a->wall_ms > AWAKE_MS;
}
