// SPDX-License-Identifier: Apache-2.0
// Storage roots for as long as a volume is open: of mounts from the bucket alone, and of the
// generations that a mount shows below .ckptfs. They lie in ROOT/views; a lock file tells which of
// them a process still uses.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/random.h"
#include "volume/volume_internal.h"

#define VIEWS_DIRECTORY "%s/views"
#define ROOT_ATTEMPTS   8

void
volume_sweep_throwaway_roots(const struct volume *v)
{
    CLEANUP(memory_free_auto) char *directory = memory_printf(VIEWS_DIRECTORY, v->config.root);
    DIR *dir = path_open_directory(directory);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", directory, e->d_name);
        CLEANUP(memory_free_auto) char *lock = memory_printf("%s/lock", path);
        CLEANUP(file_close_auto) int fd = path_open(lock, O_RDWR, 0);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && path_remove_tree(path) < 0)
            log_warning("scratch.failed", "cannot remove %s", path);
    }
    if (dir)
        closedir(dir);
}

// Makes the root's directory and locks it. -EAGAIN: another process or thread that sweeps saw it
// before it was locked, and takes it for one that a dead process left.
static int
lock_throwaway_root(struct volume *v)
{
    struct stat st;
    int rc = path_make_directories(v->root, 0700);
    if (rc < 0)
        return rc;
    CLEANUP(memory_free_auto) char *lock = memory_printf("%s/lock", v->root);
    v->own.lock_fd = path_open(lock, O_RDWR | O_CREAT, 0600);
    if (v->own.lock_fd < 0)
        return v->own.lock_fd == -ENOENT ? -EAGAIN : v->own.lock_fd;
    if (flock(v->own.lock_fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    return fstat(v->own.lock_fd, &st) == 0 && st.st_nlink > 0 ? 0 : -EAGAIN;
}

int
volume_make_throwaway_root(struct volume *v, struct buffer *error)
{
    int rc = volume_take_root(v, error);
    if (rc < 0)
        return rc;
    CLEANUP(memory_free_auto) char *directory = memory_printf(VIEWS_DIRECTORY, v->config.root);
    rc = path_make_directories(directory, 0700);
    if (rc == 0) {
        volume_sweep_throwaway_roots(v);
        rc = -EAGAIN;
    }
    for (int i = 0; i < ROOT_ATTEMPTS && rc == -EAGAIN; i++) {
        file_close(v->own.lock_fd);
        v->own.lock_fd = -1;
        free(v->root);
        v->root = memory_printf(
            "%s/%ld-%016llx", directory, (long)getpid(), (unsigned long long)random_u64());
        rc = lock_throwaway_root(v);
    }
    if (rc < 0)
        volume_error(
            error, "cannot make and lock a directory below %s: %s", directory, strerror(-rc));
    return rc;
}
