// SPDX-License-Identifier: Apache-2.0
#ifndef CKPTFS_FUSE_UNMOUNT_H
#define CKPTFS_FUSE_UNMOUNT_H

#include <stdbool.h>

#include "base/compiler.h"

// Unmounts the topmost mount at `path`, as root by itself and for others through fusermount3;
// lazily: also while it is in use. 0 or -errno.
MUST_CHECK int unmount_path(const char *path, bool lazily);

#endif
