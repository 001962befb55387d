// SPDX-License-Identifier: Apache-2.0
// One mount from its beginning to its end.
#ifndef CKPTFS_FUSE_SESSION_H
#define CKPTFS_FUSE_SESSION_H

#include "fuse/options.h"
#include "fuse/startup.h"

// Opens the volume, mounts it, serves until it is unmounted or a signal comes, and closes the
// volume. Reports through `startup`. Returns the exit status of the process.
MUST_CHECK int session_run(const struct options *options, struct startup *startup);

#endif
