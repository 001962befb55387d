// SPDX-License-Identifier: Apache-2.0
// A table of file operations that fails on demand, and that remembers what is not on stable storage
// yet, sector by sector, so that a power loss can take any part of it away. One per process: a test
// runs in a process of its own. Include unit.h first.
#ifndef CKPTFS_TESTS_FILE_FAULTS_H
#define CKPTFS_TESTS_FILE_FAULTS_H

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/hash_table.h"
#include "platform/memory.h"

#define SECTOR_BYTES 512u

// A sector that was written and not synced: what stable storage still has.
struct lost_sector {
    struct hash_node node;
    ino_t file;
    uint64_t number;
    bool stuck; // the kernel takes it for clean although it never got to the disk
    uint8_t before[SECTOR_BYTES];
};

// A file whose name is not on stable storage yet.
struct lost_name {
    struct lost_name *next;
    char *path;
};

static struct file_faults {
    pthread_mutex_t mutex;
    bool track;          // remember what is not synced
    uint64_t durable;    // durable writes so far
    uint64_t fail_at;    // this durable write fails; 0: none
    bool die_there;      // it is written, not synced, and nothing works from then on
    bool stuck;          // what it wrote stays in the kernel's cache, and no sync moves it
    int error;           // what it returns
    uint32_t torn_bytes; // so much of it is written nevertheless
    bool dead;
    bool no_space;     // fallocate and plain writes say ENOSPC
    bool short_writes; // writes are cut short and interrupted now and then
    int sync_error;    // fsync and fdatasync say so
    int range_error;   // sync_file_range says so
    int read_error;    // pread says so
    uint64_t seed;
    struct hash_table sectors;
    struct lost_name *names;
} file_faults = {.mutex = PTHREAD_MUTEX_INITIALIZER, .error = -EIO};

static inline struct lost_sector *
find_lost_sector(ino_t file, uint64_t number)
{
    struct hash_node *n =
        hash_table_first(&file_faults.sectors, hash_u64_pair((uint64_t)file, number));
    for (; n; n = hash_table_next_same(n)) {
        struct lost_sector *s = CONTAINER_OF(n, struct lost_sector, node);
        if (s->file == file && s->number == number)
            return s;
    }
    return NULL;
}

static inline ino_t
file_number_of(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        abort();
    return st.st_ino;
}

static inline void
remember_sectors(int fd, uint64_t offset, uint64_t n)
{
    ino_t file = file_number_of(fd);
    for (uint64_t i = offset / SECTOR_BYTES; i * SECTOR_BYTES < offset + n; i++) {
        struct lost_sector *known = find_lost_sector(file, i);
        if (known) {
            known->stuck = false;
            continue;
        }
        struct lost_sector *s = memory_alloc_zero(sizeof(*s));
        s->file = file;
        s->number = i;
        if (pread(fd, s->before, SECTOR_BYTES, (off_t)(i * SECTOR_BYTES)) < 0)
            abort();
        hash_table_insert(&file_faults.sectors, &s->node, hash_u64_pair((uint64_t)file, i));
    }
}

static inline void
forget_sectors(int fd, uint64_t offset, uint64_t n)
{
    ino_t file = file_number_of(fd);
    for (uint64_t i = offset / SECTOR_BYTES; i * SECTOR_BYTES < offset + n; i++) {
        struct lost_sector *s = find_lost_sector(file, i);
        if (!s || s->stuck)
            continue;
        hash_table_remove(&file_faults.sectors, &s->node);
        free(s);
    }
}

static inline void
stick_sectors(int fd, uint64_t offset, uint64_t n)
{
    ino_t file = file_number_of(fd);
    for (uint64_t i = offset / SECTOR_BYTES; i * SECTOR_BYTES < offset + n; i++) {
        struct lost_sector *s = find_lost_sector(file, i);
        if (s)
            s->stuck = true;
    }
}

static inline uint64_t
faults_random(uint64_t below)
{
    return hash_u64(file_faults.seed++) % below;
}

static inline size_t
vector_bytes(const struct iovec *iov, int count)
{
    size_t n = 0;
    for (int i = 0; i < count; i++)
        n += iov[i].iov_len;
    return n;
}

static inline ssize_t
write_some(int fd, const struct iovec *iov, int count, off_t offset, size_t most)
{
    BUFFER_AUTO all = {0};
    for (int i = 0; i < count; i++)
        buffer_append(&all, iov[i].iov_base, iov[i].iov_len);
    size_t n = all.length < most ? all.length : most;
    if (file_faults.track)
        remember_sectors(fd, (uint64_t)offset, n);
    return n == 0 ? 0 : pwrite(fd, all.data, n, offset) == (ssize_t)n ? (ssize_t)n : -EIO;
}

static ssize_t
faulty_pwritev_locked(int fd, const struct iovec *iov, int count, off_t offset, bool durable)
{
    struct file_faults *f = &file_faults;
    if (f->dead)
        return -EIO;
    if (!durable && f->no_space)
        return -ENOSPC;
    size_t most = vector_bytes(iov, count);
    if (f->short_writes && faults_random(4) == 0)
        return -EINTR;
    if (f->short_writes && faults_random(2) == 0)
        most = 1 + faults_random(most);
    f->durable += durable;
    if (durable && f->durable == f->fail_at) {
        f->dead = f->die_there;
        ssize_t put = write_some(fd, iov, count, offset, f->die_there ? most : f->torn_bytes);
        if (put > 0 && f->stuck)
            stick_sectors(fd, (uint64_t)offset, (uint64_t)put);
        return put < 0 ? put : f->error;
    }
    ssize_t put = write_some(fd, iov, count, offset, most);
    if (put > 0 && durable && f->track)
        forget_sectors(fd, (uint64_t)offset, (uint64_t)put);
    return put;
}

static ssize_t
faulty_pwritev(int fd, const struct iovec *iov, int count, off_t offset, bool durable)
{
    pthread_mutex_lock(&file_faults.mutex);
    ssize_t put = faulty_pwritev_locked(fd, iov, count, offset, durable);
    pthread_mutex_unlock(&file_faults.mutex);
    return put;
}

static inline void
forget_names(void)
{
    for (struct lost_name *n; (n = file_faults.names);) {
        file_faults.names = n->next;
        free(n->path);
        free(n);
    }
}

static int
faulty_sync(int fd)
{
    pthread_mutex_lock(&file_faults.mutex);
    int rc = file_faults.dead ? -EIO : file_faults.sync_error;
    if (rc == 0) {
        struct stat st;
        if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
            forget_names();
        else
            forget_sectors(fd, 0, (uint64_t)st.st_size);
    }
    pthread_mutex_unlock(&file_faults.mutex);
    return rc;
}

static inline void
remember_name(const char *path)
{
    struct lost_name *n = memory_alloc(sizeof(*n));
    *n = (struct lost_name){file_faults.names, memory_string(path)};
    file_faults.names = n;
}

static int
faulty_open(const char *path, int flags, mode_t mode)
{
    pthread_mutex_lock(&file_faults.mutex);
    // What was there before is read when something is written.
    if ((flags & O_ACCMODE) == O_WRONLY)
        flags = (flags & ~O_ACCMODE) | O_RDWR;
    int fd = file_faults.dead ? -EIO : file_ops_system.open(path, flags, mode);
    if (fd >= 0 && file_faults.track && (flags & O_CREAT))
        remember_name(path);
    pthread_mutex_unlock(&file_faults.mutex);
    return fd;
}

static ssize_t
faulty_pread(int fd, void *p, size_t n, off_t offset)
{
    pthread_mutex_lock(&file_faults.mutex);
    int error = file_faults.read_error;
    pthread_mutex_unlock(&file_faults.mutex);
    return error < 0 ? error : file_ops_system.pread(fd, p, n, offset);
}

static int
faulty_fallocate(int fd, off_t offset, off_t length)
{
    pthread_mutex_lock(&file_faults.mutex);
    int rc = file_faults.dead ? -EIO : file_faults.no_space ? -ENOSPC : 0;
    pthread_mutex_unlock(&file_faults.mutex);
    return rc < 0 ? rc : file_ops_system.fallocate(fd, offset, length);
}

static int
faulty_sync_range(int fd, off_t offset, off_t length, unsigned flags)
{
    pthread_mutex_lock(&file_faults.mutex);
    int rc = file_faults.dead ? -EIO : file_faults.range_error;
    pthread_mutex_unlock(&file_faults.mutex);
    return rc < 0 ? rc : file_ops_system.sync_range(fd, offset, length, flags);
}

static int
faulty_unlink(const char *path)
{
    pthread_mutex_lock(&file_faults.mutex);
    int rc = file_faults.dead ? -EIO : file_ops_system.unlink(path);
    pthread_mutex_unlock(&file_faults.mutex);
    return rc;
}

static int
faulty_rename(const char *from, const char *to)
{
    pthread_mutex_lock(&file_faults.mutex);
    bool is_new = access(to, F_OK) < 0;
    int rc = file_faults.dead ? -EIO : file_ops_system.rename(from, to);
    if (rc == 0 && file_faults.track && is_new)
        remember_name(to);
    pthread_mutex_unlock(&file_faults.mutex);
    return rc;
}

static int
faulty_link(const char *from, const char *to)
{
    return file_ops_system.link(from, to);
}

static const struct file_ops file_ops_faulty = {
    .open = faulty_open,
    .pread = faulty_pread,
    .pwritev = faulty_pwritev,
    .fdatasync = faulty_sync,
    .fsync = faulty_sync,
    .fallocate = faulty_fallocate,
    .sync_range = faulty_sync_range,
    .rename = faulty_rename,
    .unlink = faulty_unlink,
    .link = faulty_link,
};

// The next `skip` durable writes work, the one after that kills the process, so to say.
static inline void
faults_die_after(uint64_t skip)
{
    pthread_mutex_lock(&file_faults.mutex);
    file_faults.fail_at = file_faults.durable + skip + 1;
    file_faults.die_there = true;
    pthread_mutex_unlock(&file_faults.mutex);
}

static inline uint64_t
faults_durable_writes(void)
{
    pthread_mutex_lock(&file_faults.mutex);
    uint64_t n = file_faults.durable;
    pthread_mutex_unlock(&file_faults.mutex);
    return n;
}

// What plain writes and fallocate, syncs, and sync_file_range say from now on.
static inline void
faults_refuse(bool no_space, int sync_error, int range_error)
{
    pthread_mutex_lock(&file_faults.mutex);
    file_faults.no_space = no_space;
    file_faults.sync_error = sync_error;
    file_faults.range_error = range_error;
    pthread_mutex_unlock(&file_faults.mutex);
}

// A new process; what was written is still in the kernel's cache.
static inline void
faults_restart(void)
{
    pthread_mutex_lock(&file_faults.mutex);
    file_faults.dead = false;
    file_faults.fail_at = 0;
    pthread_mutex_unlock(&file_faults.mutex);
}

static inline void
lose_sectors_of(int fd)
{
    ino_t file = file_number_of(fd);
    // Sometimes all, sometimes nearly none, usually half.
    uint64_t keep_of_8 = (uint64_t[]){0, 1, 4, 4, 4, 7}[faults_random(6)];
    HASH_TABLE_FOR_EACH(&file_faults.sectors, node)
    {
        struct lost_sector *s = CONTAINER_OF(node, struct lost_sector, node);
        if (s->file != file)
            continue;
        if (faults_random(8) >= keep_of_8 &&
            pwrite(fd, s->before, SECTOR_BYTES, (off_t)(s->number * SECTOR_BYTES)) < 0)
            abort();
    }
}

// The machine loses power: each sector of files in `directory` that was not synced keeps its new
// bytes or gets its old ones back; names that were not synced may vanish.
static inline void
faults_lose_power(const char *directory)
{
    for (struct lost_name *n = file_faults.names; n; n = n->next)
        if (faults_random(2))
            unlink(n->path);
    forget_names();
    DIR *dir = opendir(directory);
    if (!dir)
        abort();
    for (struct dirent *e; (e = readdir(dir));) {
        int fd = openat(dirfd(dir), e->d_name, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            continue;
        lose_sectors_of(fd);
        close(fd);
    }
    closedir(dir);
    HASH_TABLE_FOR_EACH(&file_faults.sectors, node)
    {
        hash_table_remove(&file_faults.sectors, node);
        free(CONTAINER_OF(node, struct lost_sector, node));
    }
    faults_restart();
}

static inline void
faults_end(void)
{
    forget_names();
    HASH_TABLE_FOR_EACH(&file_faults.sectors, node)
    {
        hash_table_remove(&file_faults.sectors, node);
        free(CONTAINER_OF(node, struct lost_sector, node));
    }
    hash_table_free(&file_faults.sectors);
}

#endif
