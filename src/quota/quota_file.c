// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "quota/quota_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"

#define BLOCK_BYTES 512u

// ---- counting -----------------------------------------------------------------------------------

// Counts the files below the directory `fd`, which it closes; but for directories called `skip`.
static uint64_t
count_directory(int fd, const char *skip)
{
    uint64_t bytes = 0;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        file_close(fd);
        return 0;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISREG(st.st_mode))
            bytes += (uint64_t)st.st_blocks * BLOCK_BYTES;
        if (!S_ISDIR(st.st_mode) || (skip && strcmp(e->d_name, skip) == 0))
            continue;
        int below = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0)
            bytes += count_directory(below, skip);
    }
    closedir(dir);
    return bytes;
}

static uint64_t
count_below(const char *path, const char *skip)
{
    int fd = path_open(path, O_RDONLY | O_DIRECTORY, 0);
    return fd < 0 ? 0 : count_directory(fd, skip);
}

uint64_t
quota_count_tree(const char *path)
{
    struct stat st;
    if (path_stat(path, &st) < 0)
        return 0;
    return S_ISREG(st.st_mode) ? (uint64_t)st.st_blocks * BLOCK_BYTES : count_below(path, NULL);
}

// Counts the files that belong to no place.
static uint64_t
count_other(const char *root)
{
    static const char *const places[] = {"hot_cache", "checkpoint_scratch", "views"};
    struct stat st;
    CLEANUP(memory_free_auto) char *data = memory_printf("%s/manifest/data.mdb", root);
    uint64_t bytes = count_below(root, "wal");
    for (size_t i = 0; i < ARRAY_LENGTH(places); i++) {
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", root, places[i]);
        uint64_t theirs = count_below(path, "wal");
        bytes -= theirs < bytes ? theirs : bytes;
    }
    uint64_t manifest = path_stat(data, &st) == 0 ? (uint64_t)st.st_blocks * BLOCK_BYTES : 0;
    return manifest < bytes ? bytes - manifest : 0;
}

// The number of a db's place, or NULL.
static const char *
number_of(const char *name)
{
    return strncmp(name, "db/", 3) == 0 ? name + 3 : NULL;
}

// tenants/T/N/wal, of whichever tenant has it.
static uint64_t
count_logs(const char *root, const char *number)
{
    CLEANUP(memory_free_auto) char *tenants = memory_printf("%s/tenants", root);
    uint64_t bytes = 0;
    DIR *dir = path_open_directory(tenants);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        CLEANUP(memory_free_auto)
        char *path = memory_printf("%s/%s/%s/wal", tenants, e->d_name, number);
        bytes += quota_count_tree(path);
    }
    if (dir)
        closedir(dir);
    return bytes;
}

void
quota_count_place(const char *root, const char *name, uint64_t *log_out, uint64_t *blobs_out)
{
    const char *number = number_of(name);
    *log_out = 0;
    if (!number) {
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", root, name);
        *blobs_out = quota_count_tree(path);
        return;
    }
    CLEANUP(memory_free_auto) char *cache = memory_printf("%s/hot_cache/%s", root, number);
    CLEANUP(memory_free_auto)
    char *scratch = memory_printf("%s/checkpoint_scratch/%s", root, number);
    *log_out = count_logs(root, number);
    *blobs_out = quota_count_tree(cache) + quota_count_tree(scratch);
}

// ---- the file -----------------------------------------------------------------------------------

static struct uuid
read_boot_id(void)
{
    struct uuid id = {0};
    char text[64] = {0};
    CLEANUP(file_close_auto)
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
        return id;
    size_t digits = 0;
    for (const char *p = text; *p && digits < 2 * sizeof(id.b); p++) {
        unsigned digit;
        if (sscanf((char[2]){*p, 0}, "%x", &digit) != 1)
            continue;
        id.b[digits / 2] = (uint8_t)(id.b[digits / 2] << 4 | digit);
        digits++;
    }
    return id;
}

static bool
is_sound(const struct quota_header *h)
{
    return h->magic == QUOTA_MAGIC && h->slots == QUOTA_SLOTS && h->used <= QUOTA_SLOTS;
}

// Real zeros, not a hole: a page that cannot be allocated when it is touched would end the process.
// In place: others may have the file mapped.
static int
fill(int fd, size_t bytes)
{
    void *zeros = memory_alloc_zero(bytes);
    int rc = file_write_at(&file_ops_system, fd, zeros, bytes, 0);
    free(zeros);
    return rc;
}

int
quota_shared_file_open(const char *path, size_t bytes)
{
    struct stat st;
    int fd = path_open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0)
        return fd;
    int rc = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
    if (rc == 0 && flock(fd, LOCK_EX) < 0)
        rc = -errno;
    if (rc == 0 && fstat(fd, &st) < 0)
        rc = -errno;
    // A file with holes has no room set aside for them.
    if (rc == 0 && (st.st_size < (off_t)bytes || (uint64_t)st.st_blocks * BLOCK_BYTES < bytes))
        rc = fill(fd, bytes);
    if (rc == 0)
        return fd;
    file_close(fd);
    return rc;
}

static void
begin_anew(struct quota_map *map, const char *path)
{
    if (map->header.magic != 0)
        log_warning("quota.damaged",
            "%s was damaged and is made anew: the storage root has no quota until one is set again",
            path);
    memset(map, 0, sizeof(*map));
    map->header.slots = QUOTA_SLOTS;
    map->header.limit_check = ~map->header.limit;
    map->header.magic = QUOTA_MAGIC;
}

// All else can be counted again.
static void
check_limit(struct quota_header *h, const char *path)
{
    if (h->limit_check == ~h->limit)
        return;
    log_warning("quota.damaged",
        "the limit in %s was damaged: the storage root has no quota until one is set again", path);
    __atomic_store_n(&h->limit, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&h->limit_check, ~UINT64_C(0), __ATOMIC_SEQ_CST);
}

static struct flock
slot_range(const struct quota_file *file, const struct quota_slot *slot, short type)
{
    return (struct flock){
        .l_type = type,
        .l_whence = SEEK_SET,
        .l_start = (const char *)slot - (const char *)file->map,
        .l_len = 1,
    };
}

static bool
is_owned(const struct quota_file *file, const struct quota_slot *slot)
{
    struct flock range = slot_range(file, slot, F_WRLCK);
    return fcntl(file->fd, F_OFD_GETLK, &range) < 0 || range.l_type != F_UNLCK;
}

static bool
exists_below(const char *root, const char *directory, const char *name)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s%s", root, directory, name);
    struct stat st;
    return path_stat(path, &st) == 0;
}

static bool
is_stale(const char *root, const struct quota_file *file, const struct quota_slot *slot)
{
    const char *number = number_of(slot->name);
    if (is_owned(file, slot))
        return false;
    return number ? !exists_below(root, "hot_cache/", number) : !exists_below(root, "", slot->name);
}

static struct quota_slot *
find_slot(struct quota_map *map, const char *name)
{
    for (uint32_t i = 0; i < map->header.used; i++)
        if (strncmp(map->slots[i].name, name, QUOTA_NAME_BYTES) == 0)
            return &map->slots[i];
    return NULL;
}

static struct quota_slot *
new_slot(struct quota_map *map, const char *name)
{
    struct quota_slot *slot = NULL;
    for (uint32_t i = 0; !slot && i < map->header.used; i++)
        if (map->slots[i].name[0] == 0)
            slot = &map->slots[i];
    if (!slot && map->header.used == QUOTA_SLOTS)
        return NULL;
    if (!slot)
        slot = &map->slots[map->header.used];
    memset(slot, 0, sizeof(*slot));
    snprintf(slot->name, sizeof(slot->name), "%s", name);
    if (slot == &map->slots[map->header.used])
        __atomic_store_n(&map->header.used, map->header.used + 1, __ATOMIC_RELEASE);
    return slot;
}

// ---- tenants ------------------------------------------------------------------------------------

uint64_t
quota_tenant_id(const char *tenant)
{
    struct sha256 hash;
    uint64_t id = 0;
    sha256_of(tenant, strlen(tenant), &hash);
    for (unsigned i = 0; i < sizeof(id); i++)
        id = id << 8 | hash.b[i];
    return id != 0 ? id : 1;
}

// The tenant whose directory has the log of a db; 0: none has.
static uint64_t
find_tenant(const char *root, const char *number)
{
    CLEANUP(memory_free_auto) char *tenants = memory_printf("%s/tenants", root);
    uint64_t id = 0;
    DIR *dir = path_open_directory(tenants);
    for (struct dirent *e; id == 0 && dir && (e = readdir(dir));) {
        CLEANUP(memory_free_auto) char *log = memory_printf("/%s/%s/wal", e->d_name, number);
        if (e->d_name[0] != '.' && exists_below(tenants, "", log))
            id = quota_tenant_id(e->d_name);
    }
    if (dir)
        closedir(dir);
    return id;
}

// The smallest limit that any place of the tenant has, or 0.
static uint64_t
limit_of_tenant(const struct quota_map *map, uint64_t tenant)
{
    uint64_t limit = 0;
    for (uint32_t i = 0; i < map->header.used; i++) {
        const struct quota_slot *s = &map->slots[i];
        if (s->tenant == tenant && s->tenant_limit > 0 &&
            s->tenant_limit_check == ~s->tenant_limit && (limit == 0 || s->tenant_limit < limit))
            limit = s->tenant_limit;
    }
    return limit;
}

static void
set_limit_of_tenant(struct quota_map *map, uint64_t tenant, uint64_t bytes)
{
    for (uint32_t i = 0; i < map->header.used; i++) {
        struct quota_slot *s = &map->slots[i];
        if (s->name[0] == 0 || s->tenant != tenant)
            continue;
        __atomic_store_n(&s->tenant_limit, bytes, __ATOMIC_SEQ_CST);
        __atomic_store_n(&s->tenant_limit_check, ~bytes, __ATOMIC_SEQ_CST);
    }
}

static void
enter_tenant(struct quota_map *map, struct quota_slot *slot, uint64_t tenant)
{
    // That of another tenant: the place may have changed hands.
    if (slot->tenant != tenant)
        slot->tenant_limit = 0;
    __atomic_store_n(&slot->tenant, tenant, __ATOMIC_SEQ_CST);
    set_limit_of_tenant(map, tenant, limit_of_tenant(map, tenant));
}

// Places that a program without tenants has taken, or that were found on the disk.
static void
find_tenants(const char *root, struct quota_map *map)
{
    for (uint32_t i = 0; i < map->header.used; i++) {
        struct quota_slot *slot = &map->slots[i];
        const char *number = number_of(slot->name);
        uint64_t tenant = number && slot->tenant == 0 ? find_tenant(root, number) : 0;
        if (tenant != 0)
            enter_tenant(map, slot, tenant);
    }
}

// ---- counting places ----------------------------------------------------------------------------

static void
count_slot(const char *root, struct quota_slot *slot)
{
    uint64_t log, blobs;
    quota_count_place(root, slot->name, &log, &blobs);
    __atomic_store_n(&slot->log, log, __ATOMIC_SEQ_CST);
    __atomic_store_n(&slot->blobs, blobs, __ATOMIC_SEQ_CST);
    __atomic_store_n(&slot->promised, log, __ATOMIC_SEQ_CST);
    __atomic_store_n(&slot->jobs, 0, __ATOMIC_SEQ_CST);
}

static void
free_stale_slots(const char *root, struct quota_file *file)
{
    for (uint32_t i = 0; i < file->map->header.used; i++) {
        struct quota_slot *slot = &file->map->slots[i];
        slot->name[QUOTA_NAME_BYTES - 1] = 0;
        if (slot->name[0] != 0 && is_stale(root, file, slot))
            memset(slot, 0, sizeof(*slot));
    }
}

static void
name_places(struct quota_map *map, const char *root, const char *directory, const char *prefix)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", root, directory);
    DIR *dir = path_open_directory(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char name[QUOTA_NAME_BYTES];
        int n = snprintf(name, sizeof(name), "%s%s", prefix, e->d_name);
        if (e->d_name[0] != '.' && n > 0 && (size_t)n < sizeof(name) && !find_slot(map, name))
            (void)new_slot(map, name); // without one the place is not counted
    }
    if (dir)
        closedir(dir);
}

// The machine was started anew, or the file is new: no process has any place yet.
static void
count_all(const char *root, struct quota_file *file)
{
    struct quota_map *map = file->map;
    name_places(map, root, "hot_cache", "db/");
    name_places(map, root, "views", "views/");
    for (uint32_t i = 0; i < map->header.used; i++)
        if (map->slots[i].name[0] != 0 && !is_owned(file, &map->slots[i]))
            count_slot(root, &map->slots[i]);
}

// Under the lock of the file.
static int
take_slot(const char *root, const char *path, const char *name, struct quota_file *file)
{
    struct quota_header *h = &file->map->header;
    struct uuid boot_id = read_boot_id();
    if (!is_sound(h))
        begin_anew(file->map, path);
    check_limit(h, path);
    free_stale_slots(root, file);
    if (!uuid_equal(&h->boot_id, &boot_id)) {
        count_all(root, file);
        h->boot_id = boot_id;
    }
    find_tenants(root, file->map);
    __atomic_store_n(&h->other, count_other(root), __ATOMIC_SEQ_CST);
    file->slot = find_slot(file->map, name);
    if (!file->slot)
        file->slot = new_slot(file->map, name);
    if (!file->slot)
        return -ENOSPC;
    struct flock range = slot_range(file, file->slot, F_WRLCK);
    return fcntl(file->fd, F_OFD_SETLK, &range) < 0 ? -errno : 0;
}

static int
try_open(const char *root, const char *path, const char *name, struct quota_file *file)
{
    file->fd = quota_shared_file_open(path, sizeof(struct quota_map));
    if (file->fd < 0)
        return file->fd;
    void *map = mmap(NULL, sizeof(*file->map), PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    file->map = map;
    int rc = take_slot(root, path, name, file);
    flock(file->fd, LOCK_UN);
    return rc;
}

void
quota_file_open(const char *root, const char *name, struct quota_file *file_out)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/quota", root);
    *file_out = (struct quota_file){.fd = -1};
    int rc = try_open(root, path, name, file_out);
    if (rc == 0)
        return;
    log_warning("quota.alone",
        "cannot use %s: %s; this mount counts for itself alone, and knows nothing of other volumes "
        "in the storage root",
        path, strerror(-rc));
    quota_file_close(file_out);
    file_out->map = memory_alloc_zero(sizeof(*file_out->map));
    file_out->map->header.used = 1;
    file_out->slot = &file_out->map->slots[0];
    snprintf(file_out->slot->name, sizeof(file_out->slot->name), "%s", name);
}

static void
begin_change(const struct quota_file *file)
{
    if (file->fd >= 0 && flock(file->fd, LOCK_EX) < 0)
        log_warning("quota.failed", "cannot lock the account: %s", strerror(errno));
}

static void
end_change(const struct quota_file *file)
{
    if (file->fd >= 0)
        flock(file->fd, LOCK_UN);
}

// The limits are all that cannot be counted again after a crash of the machine.
static void
keep_limits(const struct quota_file *file)
{
    if (file->fd >= 0 && fdatasync(file->fd) < 0)
        log_warning("quota.failed", "cannot write the account: %s", strerror(errno));
}

void
quota_file_set_limit(struct quota_file *file, uint64_t bytes)
{
    struct quota_header *h = &file->map->header;
    begin_change(file);
    __atomic_store_n(&h->limit, bytes, __ATOMIC_SEQ_CST);
    __atomic_store_n(&h->limit_check, ~bytes, __ATOMIC_SEQ_CST);
    end_change(file);
    keep_limits(file);
}

void
quota_file_set_tenant(struct quota_file *file, const char *tenant)
{
    begin_change(file);
    enter_tenant(file->map, file->slot, quota_tenant_id(tenant));
    end_change(file);
}

void
quota_file_set_tenant_limit(struct quota_file *file, uint64_t bytes)
{
    begin_change(file);
    if (file->slot->tenant != 0)
        set_limit_of_tenant(file->map, file->slot->tenant, bytes);
    end_change(file);
    keep_limits(file);
}

bool
quota_file_is_owned(const struct quota_file *file, uint32_t index)
{
    return is_owned(file, &file->map->slots[index]);
}

bool
quota_file_forget_jobs(struct quota_file *file)
{
    bool any = false;
    begin_change(file);
    for (uint32_t i = 0; file->fd >= 0 && i < file->map->header.used; i++) {
        struct quota_slot *slot = &file->map->slots[i];
        // The file's own lock does not show as one.
        if (slot == file->slot || __atomic_load_n(&slot->jobs, __ATOMIC_SEQ_CST) == 0 ||
            is_owned(file, slot))
            continue;
        __atomic_store_n(&slot->jobs, 0, __ATOMIC_SEQ_CST);
        any = true;
    }
    end_change(file);
    return any;
}

void
quota_file_close(struct quota_file *file)
{
    if (file->fd < 0)
        free(file->map);
    else if (file->map)
        munmap(file->map, sizeof(*file->map));
    file_close(file->fd);
    *file = (struct quota_file){.fd = -1};
}
