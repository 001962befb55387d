// SPDX-License-Identifier: Apache-2.0
// What the daemon's process may use, and what of it may be written into a core dump.
#ifndef CKPTFS_FUSE_PROCESS_LIMITS_H
#define CKPTFS_FUSE_PROCESS_LIMITS_H

#include "base/buffer.h"
#include "base/compiler.h"
#include "fuse/options.h"

// Lets the process open as many files as it may at most, and makes sure that the configuration
// needs no more. Keeps its memory, with the credentials for the store, out of core dumps, unless
// core_dumps is set. 0, or -EMFILE with a text for the user.
MUST_CHECK int process_limits_set(const struct options *options, struct buffer *error);

#endif
