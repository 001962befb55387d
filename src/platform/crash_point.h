// SPDX-License-Identifier: Apache-2.0
// Named places at which a test can make the process die as if by kill -9: the environment variable
// CKPTFS_CRASH_AT=NAME[:COUNT] makes the COUNT-th (default first) arrival at NAME raise SIGKILL.
// With ":stop" behind it, it raises SIGSTOP: the process stands still until a test lets it go on.
// Without the variable a crash point costs one comparison. Programs that are built for use have no
// crash points at all: configure leaves them out unless it is given --enable-fault-hooks.
#ifndef CKPTFS_PLATFORM_CRASH_POINT_H
#define CKPTFS_PLATFORM_CRASH_POINT_H

#ifdef CKPTFS_FAULT_HOOKS
void crash_point(const char *name);
// For a child process of a test: the same as the variable, whose text stays the caller's. NULL: no
// crash point.
void crash_point_arm(const char *text);
#else
static inline void
crash_point(const char *name)
{
    (void)name;
}
#endif

#endif
