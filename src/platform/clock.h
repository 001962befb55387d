// SPDX-License-Identifier: Apache-2.0
// Time. Pure code takes it as an argument instead.
#ifndef CKPTFS_PLATFORM_CLOCK_H
#define CKPTFS_PLATFORM_CLOCK_H

#include <stdint.h>
#include <time.h>

// Never goes back; not comparable between boots.
uint64_t clock_monotonic_ns(void);
uint64_t clock_monotonic_ms(void);
// Seconds and nanoseconds since 1970; may jump.
struct timespec clock_wall(void);
// The same as of the last tick, with which the kernel stamps files.
struct timespec clock_wall_coarse(void);
uint64_t clock_wall_ms(void);
void clock_sleep_ms(uint64_t ms);

#endif
