// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "fuse/unmount.h"

#include <errno.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

// Only root may call umount2; fusermount3 does it for others.
static int
run_fusermount(const char *flags, const char *path)
{
    char *const argv[] = {
        (char *)"fusermount3", (char *)flags, (char *)"-q", (char *)"--", (char *)path, NULL};
    pid_t pid;
    int status;
    int rc = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (rc != 0)
        return -rc;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

int
unmount_path(const char *path, bool lazily)
{
    if (geteuid() != 0)
        return run_fusermount(lazily ? "-uz" : "-u", path);
    if (umount2(path, UMOUNT_NOFOLLOW | (lazily ? MNT_DETACH : 0)) < 0)
        return -errno;
    return 0;
}
