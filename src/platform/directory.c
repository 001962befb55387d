// SPDX-License-Identifier: Apache-2.0
#include "platform/directory.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

#include "platform/path.h"

int
directory_walk(const char *path, directory_visit *visit, void *argument)
{
    DIR *dir = path_open_directory(path);
    if (!dir)
        return errno == ENOENT ? 0 : -errno;
    int rc = path_walk_names(dir, visit, argument);
    closedir(dir);
    return rc;
}

int
path_exists(const char *path)
{
    struct stat st;
    int rc = path_stat(path, &st);
    return rc == 0 ? 1 : rc == -ENOENT ? 0 : rc;
}
