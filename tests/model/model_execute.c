// SPDX-License-Identifier: Apache-2.0
// One operation on one of the two directories.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "tests/model/model_execute.h"

#define PAGE 4096

static void
name_of(int64_t path, char *out)
{
    int n = (int)(path % PATHS);
    if (n == 7) { // a long name of odd bytes
        memset(out, 'x', 255);
        memcpy(out, "\x01\xff \n", 4);
        out[255] = '\0';
    } else if (n < 8) {
        sprintf(out, "a%d", n);
    } else if (n < 24) {
        sprintf(out, "a%d/b%d", (n - 8) / 4, (n - 8) % 4);
    } else {
        sprintf(out, "a%d/b%d/c%d", (n - 24) / 8, (n - 24) / 4 % 2, (n - 24) % 4);
    }
}

void
side_path(const struct side *side, int thread, int64_t path, char *out)
{
    char name[300];
    name_of(path, name);
    snprintf(out, PATH_MAX, "%s/t%d/%s", side->directory, thread, name);
}

void
side_init(struct side *side, const char *directory, bool is_mount)
{
    *side = (struct side){.directory = directory, .is_mount = is_mount};
    for (int t = 0; t < THREADS_MAX; t++) {
        for (int s = 0; s < SLOTS; s++)
            side->handles[t][s].fd = -1;
        side->buffers[t] = aligned_alloc(PAGE, IO_BYTES_MAX + PAGE);
        if (!side->buffers[t])
            abort();
    }
}

void
side_close_handles(struct side *side)
{
    for (int t = 0; t < THREADS_MAX; t++)
        for (int s = 0; s < SLOTS; s++) {
            if (side->handles[t][s].fd >= 0)
                close(side->handles[t][s].fd);
            side->handles[t][s].fd = -1;
        }
}

void
side_free(struct side *side)
{
    side_close_handles(side);
    for (int t = 0; t < THREADS_MAX; t++)
        free(side->buffers[t]);
}

uint64_t
hash_bytes(uint64_t hash, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint64_t word;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&word, p, 8);
        hash = (hash ^ word) * 0x9fb21c651e98df25u;
        hash ^= hash >> 32;
    }
    for (; n > 0; p++, n--)
        hash = (hash ^ *p) * 0x100000001b3u;
    return hash;
}

// Some contents are zeros, some repeat themselves, most are random.
void
fill_bytes(uint8_t *out, size_t n, uint64_t seed)
{
    uint64_t state = seed;
    if (seed % 8 == 0) {
        memset(out, 0, n);
        return;
    }
    uint64_t word = next_random(&state);
    for (size_t i = 0; i < n; i++) {
        if (i % 8 == 0 && seed % 8 > 2)
            word = next_random(&state);
        out[i] = (uint8_t)(word >> (i % 8 * 8));
    }
}

int64_t
negative_errno(int64_t result)
{
    return result < 0 ? -errno : result;
}

int64_t
write_fully(int fd, const uint8_t *bytes, size_t n, off_t offset)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = pwrite(fd, bytes + done, n - done, offset + (off_t)done);
        if (got < 0)
            return -errno;
        done += (size_t)got;
    }
    return (int64_t)n;
}

static bool
is_regular(int fd, struct stat *st)
{
    return fstat(fd, st) == 0 && S_ISREG(st->st_mode);
}

// ---- names --------------------------------------------------------------------------------------

static int64_t
do_open(struct side *side, const struct item *item, struct handle *h, struct result *r)
{
    char path[PATH_MAX];
    side_path(side, item->thread, item->a[1], path);
    if (h->fd >= 0)
        close(h->fd);
    h->flags = (int)item->a[2];
    // Never waits for the other end of a fifo.
    h->fd = open(path, h->flags | O_NONBLOCK | O_CLOEXEC, (mode_t)item->a[3] & 07777);
    // A file that is new is not truncated, and a fifo's opening is not told to the file system.
    struct stat st;
    r->durable = (h->flags & O_TRUNC) && !(h->flags & O_CREAT) && is_regular(h->fd, &st);
    return h->fd < 0 ? -errno : 0;
}

static int64_t
do_symlink(const char *path, int64_t target)
{
    static const char *const targets[] = {
        "b0", "b1", "c0", "a4", "a5", "a0", "a0/b1", "./b2", "b0/c1", "nowhere", "a3/b3"};
    char longest[1001];
    memset(longest, 't', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    size_t count = sizeof(targets) / sizeof(targets[0]);
    return symlink((size_t)target < count ? targets[target] : longest, path);
}

// A rename of one name of a file to another name of it does nothing, so it promises nothing.
static bool
is_same_object(const char *a, const char *b)
{
    struct stat x, y;
    return lstat(a, &x) == 0 && lstat(b, &y) == 0 && x.st_ino == y.st_ino;
}

static int64_t
do_two_names(const struct item *item, const char *a, const char *b, struct result *r)
{
    r->durable = item->kind == OP_LINK || !is_same_object(a, b);
    if (item->kind == OP_LINK)
        return link(a, b);
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, (unsigned)item->a[2]);
}

static struct timespec
time_of(int64_t argument)
{
    if (argument == 0)
        return (struct timespec){.tv_nsec = UTIME_OMIT};
    if (argument == 1)
        return (struct timespec){.tv_nsec = UTIME_NOW};
    return (struct timespec){.tv_sec = argument, .tv_nsec = argument * 7919 % 1000000000};
}

static int64_t
do_utimens(const char *path, const struct item *item)
{
    struct timespec times[2] = {time_of(item->a[1]), time_of(item->a[2])};
    return utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

static int64_t
do_xattr(const char *path, const struct item *item)
{
    static const char *const names[] = {
        "user.one", "user.two", "user.three", "user.a-longer-name", "trusted.four", "user.five"};
    const char *name = names[item->a[1] % 6];
    uint8_t value[256];
    if (item->kind == OP_RMXATTR)
        return lremovexattr(path, name);
    size_t n = (size_t)item->a[2] % sizeof(value);
    fill_bytes(value, n, (uint64_t)item->a[3]);
    return lsetxattr(path, name, value, n, (int)item->a[4]);
}

static uint64_t
stat_hash(const struct stat *st)
{
    uint64_t words[] = {st->st_mode, st->st_uid, st->st_gid, st->st_nlink,
        S_ISDIR(st->st_mode) ? 0 : (uint64_t)st->st_size};
    return hash_bytes(1, words, sizeof(words));
}

static int64_t
do_stat(const char *path, int fd, struct result *r)
{
    struct stat st;
    if ((path ? lstat(path, &st) : fstat(fd, &st)) != 0)
        return -errno;
    r->hash = stat_hash(&st);
    return S_ISDIR(st.st_mode) ? 0 : st.st_size;
}

// The names that begin with `prefix`, whatever their order.
int64_t
list_names(const char *path, const char *prefix, struct result *r)
{
    DIR *directory = opendir(path);
    if (!directory)
        return -errno;
    int64_t count = 0;
    struct dirent *entry;
    while (errno = 0, (entry = readdir(directory))) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
            continue;
        count++;
        r->hash += hash_bytes(entry->d_type, entry->d_name, strlen(entry->d_name));
    }
    int error = errno;
    closedir(directory);
    return error ? -error : count;
}

static int64_t
do_sync_directory(struct side *side, const char *path, struct result *r)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int64_t result = side->is_mount ? negative_errno(fsync(fd)) : 0;
    close(fd);
    r->durable = true;
    return result;
}

// With its write-back cache the kernel does not tell when a size is set to what it is: then the
// times stay, other than on other file systems.
static int64_t
do_truncate(const struct side *side, const char *path, off_t size)
{
    struct stat st;
    if (side->writeback && stat(path, &st) == 0 && st.st_size == size)
        size++;
    return truncate(path, size);
}

// Enough names for listings and commits of more than one piece. How many were done.
static int64_t
do_flood(const char *path, const struct item *item)
{
    char name[PATH_MAX], other[PATH_MAX];
    int64_t done = 0;
    for (int64_t i = item->a[1]; i < item->a[1] + item->a[2]; i++) {
        snprintf(name, sizeof(name), "%.4000s/n%d", path, (int)i);
        snprintf(other, sizeof(other), "%.4000s/n%d", path, (int)(i * 7 % 400));
        int rc;
        if (item->a[3] == 1) {
            rc = unlink(name);
        } else if (item->a[3] == 2) {
            rc = renameat2(AT_FDCWD, name, AT_FDCWD, other, RENAME_NOREPLACE);
        } else {
            rc = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
            if (rc >= 0)
                close(rc);
        }
        if (rc < 0 && errno != EEXIST && errno != ENOENT)
            return -errno;
        done += rc >= 0;
    }
    return done;
}

static int64_t
do_path(struct side *side, const struct item *item, struct result *r)
{
    char path[PATH_MAX], other[PATH_MAX];
    side_path(side, item->thread, item->a[0], path);
    side_path(side, item->thread, item->a[1], other);
    switch (item->kind) {
    case OP_MKDIR:
        return negative_errno(mkdir(path, (mode_t)item->a[1]));
    case OP_MKNOD:
        return negative_errno(mkfifo(path, (mode_t)item->a[1]));
    case OP_SYMLINK:
        return negative_errno(do_symlink(path, item->a[1]));
    case OP_LINK:
    case OP_RENAME:
        return negative_errno(do_two_names(item, path, other, r));
    case OP_UNLINK:
        r->durable = true;
        return negative_errno(unlink(path));
    case OP_RMDIR:
        r->durable = true;
        return negative_errno(rmdir(path));
    case OP_STAT:
        return do_stat(path, -1, r);
    case OP_TRUNCATE:
        r->durable = true;
        return negative_errno(do_truncate(side, path, item->a[1]));
    case OP_CHMOD:
        return negative_errno(chmod(path, (mode_t)item->a[1]));
    case OP_CHOWN:
        return negative_errno(lchown(path, (uid_t)item->a[1], (gid_t)item->a[2]));
    case OP_UTIMENS:
        return negative_errno(do_utimens(path, item));
    case OP_SETXATTR:
    case OP_RMXATTR:
        return negative_errno(do_xattr(path, item));
    case OP_FSYNCDIR:
        return do_sync_directory(side, path, r);
    case OP_FLOOD:
        return do_flood(path, item);
    default:
        return list_names(path, "", r);
    }
}

// ---- data ---------------------------------------------------------------------------------------

static int64_t
place(int fd, int64_t offset)
{
    struct stat st;
    if (offset >= 0)
        return offset;
    if (!is_regular(fd, &st))
        return 0;
    offset += st.st_size + NEAR_END / 2;
    return offset < 0 ? 0 : offset;
}

// O_DIRECT wants everything aligned.
static void
fit(const struct handle *h, int64_t *offset, int64_t *length)
{
    if (*length > IO_BYTES_MAX)
        *length = IO_BYTES_MAX;
    if (!(h->flags & O_DIRECT))
        return;
    *offset &= ~(int64_t)(PAGE - 1);
    *length = (*length + PAGE - 1) & ~(int64_t)(PAGE - 1);
    if (*length > IO_BYTES_MAX)
        *length = IO_BYTES_MAX;
}

static int64_t
do_write(struct side *side, const struct item *item, struct handle *h, struct result *r)
{
    uint8_t *bytes = side->buffers[item->thread];
    int64_t offset = place(h->fd, item->a[1]), length = item->a[2], result;
    fit(h, &offset, &length);
    int64_t skipped = item->a[4]; // of a piece of a write
    fill_bytes(bytes, (size_t)(length + skipped), (uint64_t)item->a[3]);
    bytes += skipped;
    struct stat st;
    r->durable = (h->flags & (O_SYNC | O_DSYNC)) && is_regular(h->fd, &st);
    if (item->kind == OP_WRITE || (h->flags & O_DIRECT)) {
        result = negative_errno(pwrite(h->fd, bytes, (size_t)length, offset));
    } else {
        size_t a = (size_t)length / 3, b = (size_t)length / 2;
        struct iovec parts[] = {{bytes, a}, {bytes + a, b - a}, {bytes + b, (size_t)length - b}};
        result = negative_errno(pwritev(h->fd, parts, 3, offset));
    }
    return result;
}

static int64_t
do_read(struct side *side, const struct item *item, struct handle *h, struct result *r)
{
    uint8_t *bytes = side->buffers[item->thread];
    int64_t offset = place(h->fd, item->a[1]), length = item->a[2];
    fit(h, &offset, &length);
    ssize_t got = pread(h->fd, bytes, (size_t)length, offset);
    if (got < 0)
        return -errno;
    r->hash = hash_bytes(1, bytes, (size_t)got);
    return got;
}

static int64_t
do_mmap(struct side *side, const struct item *item, struct handle *h, struct result *r)
{
    struct stat st;
    if (!is_regular(h->fd, &st) || st.st_size == 0)
        return -EINVAL;
    int64_t offset = place(h->fd, item->a[1]) % st.st_size, length = item->a[2] % (256 << 10) + 1;
    if (length > st.st_size - offset)
        length = st.st_size - offset;
    int64_t from = offset & ~(int64_t)(PAGE - 1);
    size_t mapped = (size_t)(offset + length - from);
    uint8_t *p = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, h->fd, from);
    if (p == MAP_FAILED)
        return -errno;
    uint8_t *bytes = side->buffers[item->thread];
    fill_bytes(bytes, (size_t)length, (uint64_t)item->a[3]);
    r->hash = hash_bytes(1, p, mapped);
    memcpy(p + (offset - from), bytes, (size_t)length);
    int64_t result = 0;
    if (item->a[4] && side->is_mount)
        result = negative_errno(msync(p, mapped, MS_SYNC));
    munmap(p, mapped);
    return result;
}

static int64_t
do_holes(const struct item *item, const struct handle *h)
{
    off_t at = place(h->fd, item->a[1]) & ~(int64_t)(PAGE - 1);
    for (int64_t i = 0; i < item->a[2]; i++, at += 2 * PAGE)
        if (fallocate(h->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, PAGE) < 0)
            return -errno;
    return item->a[2];
}

static int64_t
do_copy(struct side *side, const struct item *item, struct handle *h)
{
    struct handle *to = &side->handles[item->thread][item->a[1] % SLOTS];
    off64_t in = place(h->fd, item->a[2]), out = place(to->fd, item->a[3]);
    int64_t length = item->a[4] % (512 << 10), total = 0;
    if (to->fd < 0 || ((h->flags | to->flags) & O_DIRECT))
        return -EBADF;
    while (total < length) {
        ssize_t n = copy_file_range(h->fd, &in, to->fd, &out, (size_t)(length - total), 0);
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        total += n;
    }
    return total;
}

static int64_t
do_fsync(struct side *side, const struct item *item, struct handle *h, struct result *r)
{
    struct stat st;
    if (fstat(h->fd, &st) != 0)
        return -errno;
    if (!side->is_mount && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || item->a[1] == 3))
        return 0;
    switch (item->a[1]) {
    case 0:
        r->durable = true;
        return negative_errno(fsync(h->fd));
    case 1:
        r->durable = true;
        return negative_errno(fdatasync(h->fd));
    case 2:
        return negative_errno(sync_file_range(h->fd, 0, 0,
            SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
    default:
        return negative_errno(syncfs(h->fd));
    }
}

// The pages that are not zero, where SEEK_DATA and SEEK_HOLE say that there is data.
static int64_t
do_seek_scan(struct side *side, const struct item *item, struct handle *h, struct result *r)
{
    struct stat st;
    uint8_t *page = side->buffers[item->thread];
    static const uint8_t zeros[PAGE];
    if (!is_regular(h->fd, &st))
        return -EINVAL;
    // Whether there is anything to read is the file system's business, whether it may be is not.
    if (pread(h->fd, page, PAGE, 0) < 0)
        return -errno;
    for (off_t at = 0; at < st.st_size;) {
        off_t data = lseek(h->fd, at, SEEK_DATA);
        if (data < 0)
            return errno == ENXIO ? st.st_size : -errno;
        off_t hole = lseek(h->fd, data, SEEK_HOLE);
        if (hole <= data)
            return hole < 0 ? -errno : -EPROTO;
        for (at = data & ~(off_t)(PAGE - 1); at < hole; at += PAGE) {
            memset(page, 0, PAGE);
            if (pread(h->fd, page, PAGE, at) < 0)
                return -errno;
            if (memcmp(page, zeros, PAGE) != 0)
                r->hash += hash_bytes((uint64_t)at, page, PAGE);
        }
    }
    return st.st_size;
}

static int64_t
do_handle(struct side *side, const struct item *item, struct handle *h, struct result *r)
{
    switch (item->kind) {
    case OP_FSTAT:
        return do_stat(NULL, h->fd, r);
    case OP_READ:
        return do_read(side, item, h, r);
    case OP_WRITE:
    case OP_PWRITEV:
        return do_write(side, item, h, r);
    case OP_MMAP:
        return do_mmap(side, item, h, r);
    case OP_FTRUNCATE:
        r->durable = true;
        return negative_errno(ftruncate(h->fd, place(h->fd, item->a[1])));
    case OP_FALLOCATE:
        return negative_errno(
            fallocate(h->fd, (int)item->a[1], place(h->fd, item->a[2]), item->a[3]));
    case OP_HOLES:
        return do_holes(item, h);
    case OP_COPY:
        return do_copy(side, item, h);
    case OP_FSYNC:
        return do_fsync(side, item, h, r);
    case OP_SEEKSCAN:
        return do_seek_scan(side, item, h, r);
    default:
        close(h->fd);
        h->fd = -1;
        return 0;
    }
}

static bool
changes_data(enum kind kind)
{
    return kind == OP_WRITE || kind == OP_PWRITEV || kind == OP_FALLOCATE || kind == OP_HOLES ||
           kind == OP_FTRUNCATE;
}

static int64_t
do_slot(struct side *side, const struct item *item, struct result *r)
{
    struct handle *h = &side->handles[item->thread][item->a[0] % SLOTS];
    if (item->kind == OP_OPEN)
        return do_open(side, item, h, r);
    if (h->fd < 0)
        return -EBADF;
    int64_t result = do_handle(side, item, h, r);
    struct stat st;
    if (result >= 0 && side->is_mount && side->sync_after_data && changes_data(item->kind) &&
        is_regular(h->fd, &st)) {
        if (fsync(h->fd) != 0)
            return -errno;
        r->durable = true;
    }
    return result;
}

static bool
is_of_slot(enum kind kind)
{
    switch (kind) {
    case OP_OPEN:
    case OP_CLOSE:
    case OP_FSTAT:
    case OP_READ:
    case OP_WRITE:
    case OP_PWRITEV:
    case OP_MMAP:
    case OP_FTRUNCATE:
    case OP_FALLOCATE:
    case OP_HOLES:
    case OP_COPY:
    case OP_FSYNC:
    case OP_SEEKSCAN:
        return true;
    default:
        return false;
    }
}

static uint64_t
now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void
execute(struct side *side, const struct item *item, struct result *r)
{
    *r = (struct result){.began_ns = now_ns()};
    if (item->kind >= OP_SWRITE)
        r->value = execute_shared(side, item, r);
    else if (is_of_slot(item->kind))
        r->value = do_slot(side, item, r);
    else
        r->value = do_path(side, item, r);
    r->durable = r->durable && r->value >= 0;
    r->ended_ns = now_ns();
}

bool
execute_piece(
    struct side *side, const struct item *item, struct item *piece, struct result *result_out)
{
    const struct handle *h = &side->handles[item->thread][item->a[0] % SLOTS];
    struct stat st;
    if (h->fd < 0 || (h->flags & O_DIRECT) || !is_regular(h->fd, &st)) {
        execute(side, item, result_out);
        return false;
    }
    piece->a[1] = place(h->fd, piece->a[1]);
    int64_t left = item->a[2] - piece->a[4];
    int64_t at = h->flags & O_APPEND ? st.st_size : piece->a[1];
    int64_t n = PAGE - at % PAGE;
    piece->kind = OP_WRITE;
    piece->a[2] = n < left ? n : left;
    execute(side, piece, result_out);
    if (result_out->value < 0)
        return false;
    piece->a[1] += piece->a[2];
    piece->a[4] += piece->a[2];
    result_out->value = piece->a[4];
    return piece->a[4] < item->a[2];
}
