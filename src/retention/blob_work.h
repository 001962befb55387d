// SPDX-License-Identifier: Apache-2.0
// Work on many blobs that waits for the store: several threads do it, for a tool.
#ifndef CKPTFS_RETENTION_BLOB_WORK_H
#define CKPTFS_RETENTION_BLOB_WORK_H

#include <stddef.h>

#include "base/compiler.h"

struct blob_work {
    // Does number `index`; several threads call it at the same time.
    int (*work)(void *argument, size_t index);
    // Is called by the caller's thread now and then, and at the end: `done` numbers are done.
    // Anything but 0 ends the run and is its result. May be NULL.
    int (*progress)(void *argument, size_t done);
    void *argument;
};

// Does the numbers below `count`, and waits for the end. The first error ends the run and is its
// result; remote_store_error() has its text then.
MUST_CHECK int blob_work_run(const struct blob_work *work, size_t count);

#endif
