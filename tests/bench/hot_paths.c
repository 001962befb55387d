// SPDX-License-Identifier: Apache-2.0
// The hot paths of the library without FUSE, to count their instructions and system calls:
//     hot_paths DIR WHAT COUNT
// opens a new volume in DIR and does WHAT so many times. What one of them costs is the difference
// of two runs, divided by the difference of their counts.
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/lock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "volume/volume.h"

#define FILE_PAGES 256u
#define SMALL      4096u
#define LARGE      (1u << 20)
static const struct object_id root = {1};

// Valgrind has no room for the manifest's map and says EINVAL; a kernel would say ENOMEM, and then
// a smaller one is tried.
void *
mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (length > (size_t)8 << 30) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}

struct world {
    struct volume *volume;
    struct object_id file;
    uint8_t *data;
    struct lock lock; // protects what follows
    struct condition synced;
    bool is_synced;
};

static void
require(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "hot_paths: %s failed\n", what);
    exit(1);
}

static void
note_synced(void *argument, int result)
{
    struct world *w = argument;
    require(result == 0, "sync");
    lock_take(&w->lock);
    w->is_synced = true;
    condition_signal(&w->synced);
    lock_release(&w->lock);
}

static void
await(struct world *w)
{
    lock_take(&w->lock);
    while (!w->is_synced)
        condition_wait(&w->synced, &w->lock);
    lock_release(&w->lock);
}

static void
synchronise(struct world *w)
{
    w->is_synced = false;
    volume_sync(w->volume, note_synced, w);
    await(w);
}

static void
note_checkpoint(void *argument, int result, struct generation generation UNUSED)
{
    note_synced(argument, result);
}

// What is written from now on is random, and lies in hot_cache alone afterwards.
static void
fill_and_fold(struct world *w)
{
    uint64_t seed = 1;
    for (size_t i = 0; i < LARGE; i += sizeof(seed)) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t mixed = seed ^ (seed >> 29);
        memcpy(w->data + i, &mixed, sizeof(mixed));
    }
    int rc = volume_write(w->volume, w->file, 0, w->data, LARGE, VOLUME_WRITE_KEEP_TIMES);
    require(rc == 0, "write");
    w->is_synced = false;
    require(volume_checkpoint(w->volume, 0, note_checkpoint, w) == 0, "checkpoint");
    await(w);
}

// ---- the paths ----------------------------------------------------------------------------------

// A page that jumps about in the file.
static uint64_t
place(unsigned i)
{
    return (uint64_t)(i * 97u % FILE_PAGES) * SMALL;
}

static void
write_small(struct world *w, unsigned i)
{
    int rc = volume_write(w->volume, w->file, place(i), w->data, SMALL, VOLUME_WRITE_KEEP_TIMES);
    require(rc == 0, "write");
}

static void
commit_small(struct world *w, unsigned i)
{
    write_small(w, i);
    synchronise(w);
}

// What a database does to its log: a part of a page, at the end of what it wrote before.
static void
commit_part(struct world *w, unsigned i)
{
    int rc = volume_write(w->volume, w->file, (uint64_t)(i % (FILE_PAGES * 8)) * 512, w->data, 512,
        VOLUME_WRITE_KEEP_TIMES);
    require(rc == 0, "write");
    synchronise(w);
}

static void
write_large(struct world *w, unsigned i)
{
    int rc = volume_write(
        w->volume, w->file, (uint64_t)(i % 8) * LARGE, w->data, LARGE, VOLUME_WRITE_KEEP_TIMES);
    require(rc == 0, "write");
    synchronise(w);
}

static void
read_hot(struct world *w, unsigned i)
{
    int64_t n = volume_read(w->volume, w->file, place(i), SMALL, w->data, NULL);
    require(n == SMALL, "read");
}

// What the kernel asks for when a program reads a file in sequence.
static void
read_stream(struct world *w, unsigned i)
{
    struct volume_read_context context = {.call = {.local_only = true}, .keep_atime = true};
    int64_t n = volume_read(
        w->volume, w->file, (uint64_t)(i % 2) * (LARGE / 2), LARGE / 2, w->data, &context);
    require(n == LARGE / 2, "read");
}

static void
look_up(struct world *w, unsigned i UNUSED)
{
    struct volume_attributes a;
    require(volume_lookup(w->volume, root, "file", &a) == 0, "lookup");
    volume_object_forgotten(w->volume, a.object);
}

static void
create_and_unlink(struct world *w, unsigned i)
{
    char name[32];
    struct volume_attributes a;
    struct volume_caller caller = {0};
    snprintf(name, sizeof(name), "made-%u", i % 100);
    int rc = volume_make(w->volume, root, name, S_IFREG | 0644, 0, NULL, &caller, &a);
    require(rc == 0, "create");
    require(volume_unlink(w->volume, root, name) == 0, "unlink");
    volume_object_forgotten(w->volume, a.object);
}

static const struct path {
    const char *name;
    void (*once)(struct world *w, unsigned i);
    void (*prepare)(struct world *w); // or NULL
} paths[] = {
    {"write", write_small, NULL},
    {"commit", commit_small, NULL},
    {"commit_part", commit_part, NULL},
    {"commit_large", write_large, NULL},
    {"read", read_hot, NULL},
    {"read_stream", read_stream, fill_and_fold},
    {"lookup", look_up, NULL},
    {"create_unlink", create_and_unlink, NULL},
};

// ---- the volume ---------------------------------------------------------------------------------

static void
open_world(struct world *w, const char *directory)
{
    BUFFER_AUTO error = {0};
    struct volume_config config;
    volume_config_init(&config);
    config.source = memory_printf("file://%s/store/tenant", directory);
    CLEANUP(memory_free_auto) char *store = memory_printf("%s/store", directory);
    if (mkdir(store, 0755) < 0 && errno != EEXIST) {
        perror(store);
        exit(1);
    }
    free(config.root);
    config.root = memory_printf("%s/root", directory);
    config.create = true;
    config.checkpoint_interval_ms = 0;
    if (volume_open(&config, NULL, &w->volume, &error) != 0) {
        fprintf(stderr, "hot_paths: %s\n", buffer_string(&error));
        exit(1);
    }
    volume_config_free(&config);
    lock_init(&w->lock, "hot_paths", LOCK_RANK_PLATFORM);
    condition_init(&w->synced);
    w->data = memory_alloc_zero(LARGE);
    for (unsigned i = 0; i < LARGE; i++)
        w->data[i] = (uint8_t)(i * 31);
    struct volume_caller caller = {0};
    struct volume_attributes a;
    int rc = volume_make(w->volume, root, "file", S_IFREG | 0644, 0, NULL, &caller, &a);
    require(rc == 0, "create");
    w->file = a.object;
    for (unsigned i = 0; i < FILE_PAGES; i++)
        write_small(w, i);
    synchronise(w);
}

int
main(int argc, char **argv)
{
    struct world w = {0};
    const struct path *path = NULL;
    for (size_t i = 0; argc == 4 && i < ARRAY_LENGTH(paths); i++)
        if (strcmp(argv[2], paths[i].name) == 0)
            path = &paths[i];
    if (!path) {
        fprintf(stderr,
            "usage: hot_paths DIR write|commit|commit_part|commit_large|read|read_stream|"
            "lookup|create_unlink COUNT\n");
        return 2;
    }
    log_set_level(LOG_LEVEL_WARNING);
    open_world(&w, argv[1]);
    unsigned count = (unsigned)strtoul(argv[3], NULL, 10);
    if (path->prepare)
        path->prepare(&w);
    for (unsigned i = 0; i < count; i++)
        path->once(&w, i);
    // Without closing: what a checkpoint costs would hide what is measured.
    fflush(stdout);
    _Exit(0);
}
