// SPDX-License-Identifier: Apache-2.0
// Named places at which a test can make the process die as if by kill -9: set the environment
// variable CKPTFS_CRASH_AT=NAME[:COUNT] and the COUNT-th (default first) arrival at NAME raises
// SIGKILL. Without the variable a crash point costs one comparison.
#ifndef CKPTFS_PLATFORM_CRASH_POINT_H
#define CKPTFS_PLATFORM_CRASH_POINT_H

void crash_point(const char *name);

#endif
