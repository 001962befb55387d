// SPDX-License-Identifier: Apache-2.0
// Calls that take a path. A process can hold a directory by a descriptor: then these calls reach
// each path that begins with its name from that descriptor, so that nobody who may rename one of
// the directories above it leads them to another place. They follow no symbolic link on the way
// (openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, component by component on a kernel
// without it). Storage roots are held while they are in use; their paths stay their names in logs
// and messages. For all other paths the calls are those of the system.
//
// Functions return 0 or -errno, unless it says otherwise. A link on the way below a held directory
// is -ENOTDIR or -ELOOP. Any thread.
#ifndef CKPTFS_PLATFORM_PATH_H
#define CKPTFS_PLATFORM_PATH_H

#include <dirent.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "base/compiler.h"

// One directory that is held. A path is looked for in the one that was held last.
struct path_hold;

// Holds the directory `path`: absolute, without links, "." and "..". -ENOTDIR when its last
// component is a link or no directory. Each hold is released once.
MUST_CHECK int path_hold(const char *path, struct path_hold **hold_out);
// NULL is fine. Calls that have begun go on.
void path_release(struct path_hold *hold);
// Whether the directory has been removed, so that nothing can be made below it any more. False when
// it was renamed.
bool path_hold_is_removed(const struct path_hold *hold);
// The length of the name of the held directory that the path lies in or is; 0: none.
size_t path_held_length(const char *path);

// A descriptor, with O_CLOEXEC. Follows no link in the last component.
MUST_CHECK int path_open(const char *path, int flags, mode_t mode);
// The names of a directory, for readdir and closedir; NULL, and errno.
DIR *path_open_directory(const char *path);
// The same for an absolute path without links, held or not: a link anywhere on it is an error.
MUST_CHECK int path_open_straight(const char *path, int flags);
// Calls `visit` for each name of `dir` but "." and "..", until it returns other than 0; then that
// result, else 0, or -errno when the names could not be read to the end.
typedef int path_name_visit(void *argument, const char *name);
MUST_CHECK int path_walk_names(DIR *dir, path_name_visit *visit, void *argument);
// lstat(2), unlink(2), rename(2), link(2), mkdir(2) and statvfs(2).
MUST_CHECK int path_stat(const char *path, struct stat *st_out);
MUST_CHECK int path_unlink(const char *path);
MUST_CHECK int path_rename(const char *from, const char *to);
MUST_CHECK int path_link(const char *from, const char *to);
MUST_CHECK int path_mkdir(const char *path, mode_t mode);
MUST_CHECK int path_space(const char *path, struct statvfs *space_out);
// rm -rf; a missing path is fine. Does not follow symbolic links.
MUST_CHECK int path_remove_tree(const char *path);

#endif
