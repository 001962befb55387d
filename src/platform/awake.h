// SPDX-License-Identifier: Apache-2.0
// Whether this process, or the machine, stood still between two steps that belong together: a
// command that was stopped for days must not carry out the second one on the strength of the first.
// Any thread.
#ifndef CKPTFS_PLATFORM_AWAKE_H
#define CKPTFS_PLATFORM_AWAKE_H

#include <stdbool.h>
#include <stdint.h>

// Steps that belong together take no longer.
#define AWAKE_MS ((uint64_t)30 * 60 * 1000)

struct awake {
    uint64_t monotonic_ms, wall_ms;
};

void awake_begin(struct awake *a);
// Whether more than AWAKE_MS have passed since then, or the wall clock does not tell.
bool awake_has_slept(const struct awake *a);

#endif
