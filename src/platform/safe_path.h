// SPDX-License-Identifier: Apache-2.0
// Paths that another user might redirect: a daemon that runs as root must not follow links that
// another user planted in its directories.
#ifndef CKPTFS_PLATFORM_SAFE_PATH_H
#define CKPTFS_PLATFORM_SAFE_PATH_H

#include <limits.h>
#include <stdbool.h>

#include "base/buffer.h"
#include "base/compiler.h"

struct path_hold;
// Checks that only this user and root can change the contents of the directory `path` (absolute):
// it is no symbolic link, belongs to one of the two, no other user may write to it, and no
// directory above it lets all users put another one in its place. Holds it (platform/path.h), since
// the owners of those above can still do that. Returns its path without links, which the caller
// frees, and `*hold_out`; or NULL, and appends the wrong directory and the reason to `why`.
char *safe_path_hold(const char *path, struct path_hold **hold_out, struct buffer *why);
// The same for one directory by itself; true when there is nothing at `path`.
bool safe_path_is_private(const char *path, struct buffer *why);

// A place below a directory, reached without following a link on the way.
struct safe_place {
    int parent;               // descriptor of the directory that holds it
    char path[NAME_MAX + 40]; // leads there through the descriptor: for calls that take a path
};
// `top` is absolute and without links. `relative` is "a/b/name", without "." and "..". 0, or
// -errno: -ENOTDIR when a component on the way is a link or no directory. Does not look at the
// last component.
MUST_CHECK int safe_place_enter(
    const char *top, const char *relative, struct safe_place *place_out);
void safe_place_leave(struct safe_place *place);

// Whether an existing path lies in another one or is the same: through links and bind mounts, too.
// False when that cannot be told.
bool safe_path_lies_in(const char *path, const char *above);

#endif
