// SPDX-License-Identifier: Apache-2.0
// The names in a directory. A directory that is not there and one that cannot be read are two
// things: a caller that finds nothing where files must be calls that damage, or begins anew.
#ifndef CKPTFS_PLATFORM_DIRECTORY_H
#define CKPTFS_PLATFORM_DIRECTORY_H

#include "base/compiler.h"

// Calls `visit` for each name but "." and "..", until it returns other than 0; then that result,
// else 0. A directory that is not there has no names. -errno when the names could not be read to
// the end.
typedef int directory_visit(void *argument, const char *name);
MUST_CHECK int directory_walk(const char *path, directory_visit *visit, void *argument);

// 1 when there is something of this name, 0 when there is not, or -errno when that is not known.
MUST_CHECK int path_exists(const char *path);

#endif
