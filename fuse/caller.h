// SPDX-License-Identifier: Apache-2.0
// The program that waits for a request.
#ifndef CKPTFS_FUSE_CALLER_H
#define CKPTFS_FUSE_CALLER_H

#include <stdbool.h>
#include <stdint.h>

// Whether a signal waits for the thread `pid`, by which a user ends programs: SIGKILL (the kernel
// gives it to each thread of a process that is to die, whatever the signal), SIGINT, SIGTERM,
// SIGQUIT or SIGHUP. The kernel itself does not end the wait for a request that the daemon has
// read. Other signals do not count: programs use them for their own ends, and do not expect EINTR
// from a file. 0 is nobody.
bool caller_wants_to_end(uint32_t pid);

// The same of a text as /proc/PID/status has it; for tests.
bool caller_status_wants_to_end(const char *status);

#endif
