// SPDX-License-Identifier: Apache-2.0
// Limits of the daemon's process: open files, and the memory in core dumps.
#ifndef CKPTFS_FUSE_PROCESS_LIMITS_H
#define CKPTFS_FUSE_PROCESS_LIMITS_H

#include "base/buffer.h"
#include "base/compiler.h"
#include "fuse/options.h"

// Raises the limit of open files as far as possible, and checks that the configuration needs no
// more. Keeps its memory, with the credentials for the store, out of core dumps, unless core_dumps
// is set. 0, or -EMFILE with a text for the user.
MUST_CHECK int process_limits_set(const struct options *options, struct buffer *error);

#endif
