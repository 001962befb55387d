// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "fuse/mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <mntent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fuse/mount_users.h"
#include "fuse/unmount.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/thread.h"

#define MOUNT_TYPE "fuse.ckptfs"

// A dead mount on a dead mount, and so on.
#define DEAD_MOUNTS_MAX 16

// FILEID_INO64_GEN
#define NODE_HANDLE_TYPE 0x81

// Whether the topmost mount at `path` is a ckptfs.
static bool
is_ours(const char *path)
{
    FILE *table = setmntent("/proc/self/mounts", "r");
    if (!table)
        return false;
    bool ours = false;
    struct mntent entry;
    char text[8192];
    while (getmntent_r(table, &entry, text, sizeof(text)))
        if (strcmp(entry.mnt_dir, path) == 0)
            ours = strcmp(entry.mnt_type, MOUNT_TYPE) == 0;
    endmntent(table);
    return ours;
}

// The absolute path: all but the last component resolved, because a dead mount cannot be.
static char *
resolve_parent(const char *path)
{
    char *copy = memory_string(path);
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = '\0';
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy;
    char *result = NULL;
    if (*name != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
        if (slash)
            *slash = '\0';
        char *parent = realpath(!slash ? "." : copy[0] ? copy : "/", NULL);
        if (parent)
            result = memory_printf("%s/%s", strcmp(parent, "/") == 0 ? "" : parent, name);
        free(parent);
    }
    free(copy);
    return result;
}

static int
clear_dead_mount(const char *path, struct buffer *error)
{
    char *absolute CLEANUP(memory_free_auto) = NULL;
    absolute = resolve_parent(path);
    if (!absolute || !is_ours(absolute)) {
        buffer_printf(error,
            "mountpoint %s: a file system is mounted there whose daemon is dead, and it is not a "
            "ckptfs; unmount it first: umount -l %s",
            path, path);
        return -ENOTCONN;
    }
    int rc = unmount_path(absolute, true);
    if (rc != 0) {
        buffer_printf(error,
            "mountpoint %s: cannot take away the dead mount of an earlier ckptfs: %s; unmount it: "
            "umount -l %s",
            path, strerror(-rc), path);
        return rc;
    }
    log_warning("mount.dead_mount_removed", "%s: the daemon of the mount there had died", path);
    return 0;
}

// stat and statfs: the kernel answers stat for a dead mount when it has cached the attributes.
static int
probe(const char *path, struct stat *st)
{
    struct statfs fs;
    return statfs(path, &fs) < 0 || stat(path, st) < 0 ? -errno : 0;
}

int
mount_open(struct mount *m, const char *path, struct buffer *error)
{
    struct stat st;
    int rc;
    *m = (struct mount){0};
    for (int tries = 0; (rc = probe(path, &st)) != 0; tries++) {
        if (rc == -ENOTCONN && tries < DEAD_MOUNTS_MAX) {
            rc = clear_dead_mount(path, error);
            if (rc != 0)
                return rc;
            continue;
        }
        buffer_printf(error, "mountpoint %s: %s%s", path, strerror(-rc),
            rc == -ENOENT ? "; make the directory first" : "");
        return rc;
    }
    if (!S_ISDIR(st.st_mode)) {
        buffer_printf(error, "mountpoint %s: this is not a directory", path);
        return -ENOTDIR;
    }
    m->path = realpath(path, NULL);
    if (!m->path) {
        rc = -errno;
        buffer_printf(error, "mountpoint %s: %s", path, strerror(-rc));
        return rc;
    }
    lock_init(&m->lock, "mount", LOCK_RANK_FUSE);
    condition_init(&m->idle);
    return 0;
}

// A mount of an automounter is there to be covered.
static bool
is_covered_mount(const char *path)
{
    struct statx st;
    struct statfs fs;
    return statx(AT_FDCWD, path, AT_NO_AUTOMOUNT, 0, &st) == 0 &&
           (st.stx_attributes & STATX_ATTR_MOUNT_ROOT) && statfs(path, &fs) == 0 &&
           fs.f_type != AUTOFS_SUPER_MAGIC;
}

void
mount_describe_hidden(const struct mount *m, struct buffer *out)
{
    if (is_covered_mount(m->path)) {
        buffer_printf(
            out, "something is mounted on %s already; this mount hides it until it ends", m->path);
        return;
    }
    size_t count = 0;
    DIR *d = opendir(m->path);
    for (struct dirent *e; d && count == 0 && (e = readdir(d));)
        count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d)
        closedir(d);
    if (count > 0)
        buffer_printf(out, "%s is not empty; the mount hides its contents until it ends", m->path);
}

void
mount_close(struct mount *m)
{
    if (!m->path)
        return;
    condition_destroy(&m->idle);
    lock_destroy(&m->lock);
    free(m->path);
    m->path = NULL;
}

// ---- from within the daemon ---------------------------------------------------------------------

// A thread that enters the mount from within the daemon waits for the daemon's own answers. When
// the daemon is killed meanwhile there are none, and the kernel breaks the connection, which ends
// the waiting, only after the last descriptor of it was closed. So each visit is a thread with a
// table of descriptors of its own that has none of them; else the process could never end, and
// would keep the mount and the storage root. (The log's descriptor is not there, either.)
struct visit {
    const char *path;
    dev_t device; // set by visit_stat, expected by the others
    int (*call)(struct visit *visit);
    int result;
    // For visit_flush.
    bool everything;
    uint64_t *nodes;
    size_t count;
    size_t left; // of the nodes, moved to the front
    // For visit_truncate.
    const char *name;
    bool tail;
    uint64_t offset;
};

static void
run_visit(void *argument)
{
    struct visit *visit = argument;
    if (unshare(CLONE_FILES) == 0)
        closefrom(STDERR_FILENO + 1);
    visit->result = visit->call(visit);
}

static int
make_visit(struct visit *visit)
{
    struct thread thread;
    int rc = thread_start(&thread, "visit", run_visit, visit);
    if (rc != 0)
        return rc;
    thread_join(&thread);
    return visit->result;
}

static int
visit_stat(struct visit *visit)
{
    struct stat st;
    if (stat(visit->path, &st) < 0)
        return -errno;
    visit->device = st.st_dev;
    return 0;
}

// Waits until the kernel has written its cached pages of one file. -EAGAIN: it cannot be opened by
// its number: the kernel does not cache it, or the caller may not (only a process that may read
// every file may do that). The number is the kernel's name of an inode for NFS: its node id and its
// generation.
static int
flush_node(int mount, uint64_t node)
{
    struct {
        struct file_handle head;
        uint32_t words[3];
    } handle = {.head = {.handle_bytes = sizeof(handle.words), .handle_type = NODE_HANDLE_TYPE},
        .words = {(uint32_t)(node >> 32), (uint32_t)node, MOUNT_NODE_GENERATION}};
    CLEANUP(file_close_auto)
    int fd = open_by_handle_at(mount, &handle.head, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -EAGAIN;
    const unsigned how =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    return sync_file_range(fd, 0, 0, how) < 0 ? -errno : 0;
}

// syncfs of our mount begins to write everything; recent kernels (Linux 6.18.44) do not wait for
// files of FUSE then, so that has to be done for each that may have something. When another file
// system is mounted over ours, or it was detached, it cannot be reached by its path.
static int
visit_flush(struct visit *visit)
{
    CLEANUP(file_close_auto) int fd = open(visit->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (st.st_dev != visit->device)
        return -ESTALE;
    if (visit->everything && syncfs(fd) < 0)
        return -errno;
    visit->left = 0;
    for (size_t i = 0; i < visit->count; i++) {
        int rc = flush_node(fd, visit->nodes[i]);
        if (rc == -EAGAIN)
            visit->nodes[visit->left++] = visit->nodes[i];
        else if (rc < 0)
            return rc;
    }
    return 0;
}

static int
visit_truncate(struct visit *visit)
{
    struct stat st;
    CLEANUP(file_close_auto)
    int root = open(visit->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || fstat(root, &st) < 0 || st.st_dev != visit->device)
        return -EAGAIN;
    CLEANUP(file_close_auto)
    int fd = openat(root, visit->name, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = visit->tail ? ftruncate(fd, (off_t)visit->offset)
                         : fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                               (off_t)visit->offset);
    return rc < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int
visit_unmount(struct visit *visit)
{
    if (mount_users_device_of(visit->path) != visit->device)
        return 0;
    return unmount_path(visit->path, false);
}

int
mount_begin_serving(struct mount *m)
{
    struct visit visit = {.path = m->path, .call = visit_stat};
    int rc = make_visit(&visit);
    if (rc != 0)
        return rc;
    lock_take(&m->lock);
    m->device = visit.device;
    m->serving = true;
    lock_release(&m->lock);
    return 0;
}

void
mount_raise_readahead(struct mount *m, uint64_t bytes)
{
    lock_take(&m->lock);
    dev_t device = m->device;
    lock_release(&m->lock);
    CLEANUP(memory_free_auto)
    char *path = memory_printf("/sys/class/bdi/%u:%u/read_ahead_kb", major(device), minor(device));
    CLEANUP(file_close_auto) int fd = open(path, O_RDWR | O_CLOEXEC);
    char text[32] = "";
    if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && strtoull(text, NULL, 10) >= bytes / 1024)
        return;
    int n = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)(bytes / 1024));
    if (fd < 0 || pwrite(fd, text, (size_t)n, 0) != n)
        log_debug("mount.readahead", "%s stays as it is: %s", path, strerror(errno));
}

void
mount_end_serving(struct mount *m)
{
    lock_take(&m->lock);
    m->serving = false;
    lock_release(&m->lock);
}

void
mount_wait_idle(struct mount *m)
{
    lock_take(&m->lock);
    while (m->visitors > 0)
        condition_wait(&m->idle, &m->lock);
    lock_release(&m->lock);
}

// Whether the calling thread may enter the mount now; then it must leave it.
static bool
enter(struct mount *m, dev_t *device_out)
{
    lock_take(&m->lock);
    bool serving = m->serving;
    *device_out = m->device;
    m->visitors += serving;
    lock_release(&m->lock);
    return serving;
}

// Whether the mount is served still.
static bool
leave(struct mount *m)
{
    lock_take(&m->lock);
    bool serving = m->serving;
    if (--m->visitors == 0)
        condition_broadcast(&m->idle);
    lock_release(&m->lock);
    return serving;
}

int
mount_flush(struct mount *m, bool everything, uint64_t *nodes, size_t count, size_t *left_out)
{
    dev_t device;
    *left_out = 0;
    if (!enter(m, &device))
        return 0;
    struct visit visit = {.path = m->path,
        .device = device,
        .call = visit_flush,
        .everything = everything,
        .nodes = nodes,
        .count = count,
        .left = count};
    int rc = make_visit(&visit);
    *left_out = visit.left;
    // The session ended under it: there is no kernel cache any more.
    if (!leave(m)) {
        rc = 0;
        *left_out = 0;
    }
    if (rc != 0)
        log_warning("mount.sync_failed", "%s: %s", m->path, strerror(-rc));
    return rc;
}

int
mount_truncate(struct mount *m, const char *name, bool tail, uint64_t offset)
{
    dev_t device;
    if (!enter(m, &device))
        return -EAGAIN;
    struct visit visit = {.path = m->path,
        .device = device,
        .call = visit_truncate,
        .name = name,
        .tail = tail,
        .offset = offset};
    int rc = make_visit(&visit);
    leave(m);
    return rc;
}

int
mount_unmount(struct mount *m)
{
    lock_take(&m->lock);
    struct visit visit = {.path = m->path, .device = m->device, .call = visit_unmount};
    bool serving = m->serving;
    lock_release(&m->lock);
    return serving ? make_visit(&visit) : 0;
}

static dev_t
device_of(struct mount *m)
{
    lock_take(&m->lock);
    dev_t device = m->device;
    lock_release(&m->lock);
    return device;
}

bool
mount_is_reached(struct mount *m)
{
    dev_t device = device_of(m);
    return device == 0 || mount_users_device_of(m->path) == device;
}

bool
mount_is_listed(struct mount *m)
{
    return mount_users_is_mounted(device_of(m));
}

void
mount_describe_users(struct mount *m, struct buffer *out)
{
    dev_t device = device_of(m);
    BUFFER_AUTO users = {0};
    mount_users_describe(device, &users);
    if (mount_users_is_mounted(device) && mount_users_device_of(m->path) != device)
        buffer_append_string(out, "another file system is mounted over it");
    else if (users.length == 0)
        buffer_append_string(out, "something still uses it that /proc does not show");
    if (out->length > 0 && users.length > 0)
        buffer_append_string(out, "; ");
    buffer_append(out, users.data, users.length);
}
