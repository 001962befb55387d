// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "platform/path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/lock.h"
#include "platform/memory.h"

// ---- directories that are held ------------------------------------------------------------------

struct path_hold {
    struct path_hold *next; // held before this one
    char *path;
    size_t length; // of `path`
    int fd;
    unsigned users; // its owner, and calls that are under way
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct lock lock; // "path": protects all below, and the fields of holds that change
static struct path_hold *holds;

static void
initialise(void)
{
    lock_init(&lock, "path", LOCK_RANK_PATH);
}

static void
take_lock(void)
{
    pthread_once(&once, initialise);
    lock_take(&lock);
}

int
path_hold(const char *path, struct path_hold **hold_out)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    *hold_out = NULL;
    if (fd < 0)
        return errno == ELOOP ? -ENOTDIR : -errno;
    struct path_hold *hold = memory_alloc_zero(sizeof(*hold));
    hold->path = memory_string(path);
    hold->length = strlen(path);
    hold->fd = fd;
    hold->users = 1;
    take_lock();
    hold->next = holds;
    holds = hold;
    lock_release(&lock);
    *hold_out = hold;
    return 0;
}

static void
leave(struct path_hold *hold)
{
    if (!hold)
        return;
    take_lock();
    bool last = --hold->users == 0;
    lock_release(&lock);
    if (!last)
        return;
    close(hold->fd);
    free(hold->path);
    free(hold);
}

void
path_release(struct path_hold *hold)
{
    if (!hold)
        return;
    take_lock();
    struct path_hold **link = &holds;
    while (*link != hold)
        link = &(*link)->next;
    *link = hold->next;
    lock_release(&lock);
    leave(hold);
}

bool
path_hold_is_removed(const struct path_hold *hold)
{
    struct stat st;
    return fstat(hold->fd, &st) == 0 && st.st_nlink == 0;
}

// The rest of the path below a held directory, "" for the directory itself; NULL: not below it.
static const char *
rest_below(const struct path_hold *hold, const char *path)
{
    if (strncmp(path, hold->path, hold->length) != 0)
        return NULL;
    const char *rest = path + hold->length;
    if (*rest != '/' && *rest != '\0')
        return NULL;
    while (*rest == '/')
        rest++;
    return rest;
}

// NULL: the path lies in no held directory. Else the caller leaves it again.
static struct path_hold *
find(const char *path, const char **rest_out)
{
    take_lock();
    struct path_hold *hold = holds;
    while (hold && !(*rest_out = rest_below(hold, path)))
        hold = hold->next;
    if (hold)
        hold->users++;
    lock_release(&lock);
    return hold;
}

size_t
path_held_length(const char *path)
{
    const char *rest;
    struct path_hold *hold = find(path, &rest);
    size_t length = hold ? hold->length : 0;
    leave(hold);
    return length;
}

static void
close_auto(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

// ---- the way down -------------------------------------------------------------------------------

// For kernels without openat2(2).
static int
open_by_steps(int top, const char *relative, int flags, mode_t mode)
{
    int fd = top;
    for (;;) {
        char name[NAME_MAX + 1];
        size_t n = strcspn(relative, "/");
        const char *next = relative + n + strspn(relative + n, "/");
        int found = -1;
        if (n == 0 || n > NAME_MAX) {
            errno = n == 0 ? ENOENT : ENAMETOOLONG;
        } else {
            memcpy(name, relative, n);
            name[n] = '\0';
            int how = *next ? O_PATH | O_DIRECTORY | O_CLOEXEC : flags;
            if (strcmp(name, "..") == 0)
                errno = EXDEV;
            else
                found = openat(fd, name, how | O_NOFOLLOW, mode);
        }
        int error = errno;
        if (fd != top)
            close(fd);
        if (found < 0)
            return -error;
        if (!*next)
            return found;
        fd = found;
        relative = next;
    }
}

static int
open_below(int top, const char *relative, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
        .mode = (flags & O_CREAT) ? mode : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    };
    long fd = syscall(SYS_openat2, top, relative, &how, sizeof(how));
    if (fd >= 0)
        return (int)fd;
    // A filter of system calls that does not know it may say EPERM.
    if (errno != ENOSYS && errno != EPERM)
        return -errno;
    return open_by_steps(top, relative, flags | O_CLOEXEC, mode);
}

// An entry of a directory.
struct place {
    struct path_hold *hold; // NULL: the path of the system
    int parent;             // the directory: of `hold`, or opened below it
    const char *name;
};

static void
place_leave(struct place *p)
{
    if (p->hold && p->parent >= 0 && p->parent != p->hold->fd)
        close(p->parent);
    leave(p->hold);
}

// A held directory itself is an entry of the one above, which is not held.
static int
place_enter(const char *path, struct place *p)
{
    const char *rest;
    *p = (struct place){.parent = AT_FDCWD, .name = path};
    struct path_hold *hold = find(path, &rest);
    if (!hold || !*rest) {
        leave(hold);
        return 0;
    }
    const char *slash = strrchr(rest, '/');
    p->hold = hold;
    p->parent = hold->fd;
    p->name = slash ? slash + 1 : rest;
    if (!slash)
        return 0;
    CLEANUP(memory_free_auto) char *above = memory_string(rest);
    above[slash - rest] = '\0';
    p->parent = open_below(hold->fd, above, O_PATH | O_DIRECTORY, 0);
    if (p->parent >= 0)
        return 0;
    int rc = p->parent == -ELOOP ? -ENOTDIR : p->parent;
    leave(hold);
    return rc;
}

// ---- the calls ----------------------------------------------------------------------------------

int
path_open(const char *path, int flags, mode_t mode)
{
    const char *rest;
    struct path_hold *hold = find(path, &rest);
    int fd;
    if (hold)
        fd = open_below(hold->fd, *rest ? rest : ".", flags, mode);
    else if ((fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, mode)) < 0)
        fd = -errno;
    leave(hold);
    return fd;
}

int
path_open_straight(const char *path, int flags)
{
    CLEANUP(close_auto) int top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        return -errno;
    path += strspn(path, "/");
    return open_below(top, *path ? path : ".", flags, 0);
}

DIR *
path_open_directory(const char *path)
{
    const char *rest;
    struct path_hold *hold = find(path, &rest);
    if (!hold)
        return opendir(path);
    int fd = open_below(hold->fd, *rest ? rest : ".", O_RDONLY | O_DIRECTORY, 0);
    leave(hold);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (fd < 0)
        errno = -fd;
    else if (!dir)
        close(fd);
    return dir;
}

int
path_walk_names(DIR *dir, path_name_visit *visit, void *argument)
{
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(dir);
        if (!e)
            return -errno;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        int rc = visit(argument, e->d_name);
        if (rc != 0)
            return rc;
    }
}

int
path_stat(const char *path, struct stat *st_out)
{
    const char *rest;
    struct path_hold *hold = find(path, &rest);
    if (hold && !*rest) {
        int rc = fstat(hold->fd, st_out) < 0 ? -errno : 0;
        leave(hold);
        return rc;
    }
    leave(hold);
    struct place p;
    int rc = place_enter(path, &p);
    if (rc < 0)
        return rc;
    rc = fstatat(p.parent, p.name, st_out, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
    place_leave(&p);
    return rc;
}

int
path_unlink(const char *path)
{
    struct place p;
    int rc = place_enter(path, &p);
    if (rc < 0)
        return rc;
    rc = unlinkat(p.parent, p.name, 0) < 0 ? -errno : 0;
    place_leave(&p);
    return rc;
}

// Of two entries.
static int
with_both(const char *from, const char *to, bool link)
{
    struct place x;
    struct place y;
    int rc = place_enter(from, &x);
    if (rc < 0)
        return rc;
    rc = place_enter(to, &y);
    if (rc == 0) {
        rc = link ? linkat(x.parent, x.name, y.parent, y.name, 0)
                  : renameat(x.parent, x.name, y.parent, y.name);
        rc = rc < 0 ? -errno : 0;
        place_leave(&y);
    }
    place_leave(&x);
    return rc;
}

int
path_rename(const char *from, const char *to)
{
    return with_both(from, to, false);
}

int
path_link(const char *from, const char *to)
{
    return with_both(from, to, true);
}

int
path_mkdir(const char *path, mode_t mode)
{
    struct place p;
    int rc = place_enter(path, &p);
    if (rc < 0)
        return rc;
    rc = mkdirat(p.parent, p.name, mode) < 0 ? -errno : 0;
    place_leave(&p);
    return rc;
}

int
path_space(const char *path, struct statvfs *space_out)
{
    const char *rest;
    struct path_hold *hold = find(path, &rest);
    int rc;
    if (!hold) {
        rc = statvfs(path, space_out) < 0 ? -errno : 0;
    } else {
        CLEANUP(close_auto)
        int fd = open_below(hold->fd, *rest ? rest : ".", O_PATH, 0);
        rc = fd < 0 ? fd : fstatvfs(fd, space_out) < 0 ? -errno : 0;
    }
    leave(hold);
    return rc;
}

static int remove_below(int parent, const char *name);

struct removal {
    DIR *dir;
    bool some;
};

static int
remove_entry(void *argument, const char *name)
{
    struct removal *x = argument;
    int rc = remove_below(dirfd(x->dir), name);
    x->some |= rc == 0;
    return rc;
}

static int
remove_directory(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        int error = errno;
        close_auto(&fd);
        return error == ENOENT ? 0 : -error;
    }
    int rc;
    struct removal x = {.dir = dir};
    // A listing may miss names while others go.
    do {
        x.some = false;
        rewinddir(dir);
        rc = path_walk_names(dir, remove_entry, &x);
        if (rc == 0 && unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
            rc = -errno;
    } while ((rc == -ENOTEMPTY || rc == -EEXIST) && x.some);
    closedir(dir);
    return rc;
}

static int
remove_below(int parent, const char *name)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return 0;
    // POSIX has EPERM for directories, Linux EISDIR.
    return errno == EISDIR || errno == EPERM ? remove_directory(parent, name) : -errno;
}

int
path_remove_tree(const char *path)
{
    struct place p;
    int rc = place_enter(path, &p);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    rc = remove_below(p.parent, p.name);
    place_leave(&p);
    return rc;
}
