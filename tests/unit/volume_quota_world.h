// SPDX-License-Identifier: Apache-2.0
// A volume with five files, and its account of disk space.
#ifndef CKPTFS_TESTS_VOLUME_QUOTA_WORLD_H
#define CKPTFS_TESTS_VOLUME_QUOTA_WORLD_H

#include "volume_world.h"

#include "platform/clock.h"
#include "quota/quota_file.h"
#include "volume/volume_fetch.h"
#include "volume/volume_internal.h"

#define MIB        (UINT64_C(1) << 20)
#define FILES      5u
#define FILE_BYTES (4u << 20)

// A log that holds all that the test writes, and no pressure to fold it.
static inline void
world_new(struct volume_world *w)
{
    volume_world_new(w);
    w->config.wal_limit_bytes = 96u << 20;
    w->config.page_cache_bytes = 64u << 20;
}

static inline void
write_files(struct volume *v, uint64_t seed)
{
    char name[16];
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        volume_world_fill(v, volume_world_make_file(v, name), 0, FILE_BYTES, seed + i);
    }
    ck_assert_int_eq(volume_world_sync(v), 0);
}

// Opens a volume whose files are written from seed 7 and published.
static inline void
world_with_files(struct volume_world *w)
{
    world_new(w);
    volume_world_open(w);
    write_files(w->v, 7);
    volume_world_publish(w->v);
}

static inline void
expect_files(struct volume *v, uint64_t seed)
{
    char name[16];
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        volume_world_expect(v, volume_world_find(v, name), 0, FILE_BYTES, seed + i);
    }
}

// All but the last file, and one page of that.
static inline void
write_files_again(struct volume *v, uint64_t seed)
{
    char name[16];
    for (unsigned i = 0; i < FILES - 1; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        volume_world_fill(v, volume_world_find(v, name), 0, FILE_BYTES, seed + i);
    }
    volume_world_fill(v, volume_world_find(v, "f4"), 0, PAGE_BYTES, seed + FILES - 1);
    ck_assert_int_eq(volume_world_sync(v), 0);
}

static inline void
expect_rewritten(struct volume *v)
{
    char name[16];
    for (unsigned i = 0; i < FILES - 1; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        volume_world_expect(v, volume_world_find(v, name), 0, FILE_BYTES, 70 + i);
    }
    struct object_id last = volume_world_find(v, "f4");
    volume_world_expect(v, last, 0, PAGE_BYTES, 74);
    volume_world_expect(v, last, PAGE_BYTES, FILE_BYTES - PAGE_BYTES, 7 + FILES - 1);
}

static inline struct storage_quota_numbers
numbers_of(const struct volume *v)
{
    struct storage_quota_numbers n;
    storage_quota_numbers(v->quota, &n);
    return n;
}

// As soon as nothing is under way: the log may be making a segment, for which it has reserved.
static inline void
expect_exact_account(const struct volume_world *w)
{
    uint64_t log;
    uint64_t blobs;
    uint64_t end_ms = clock_monotonic_ms() + 20000;
    struct storage_quota_numbers n;
    do {
        clock_sleep_ms(2);
        n = numbers_of(w->v);
        quota_count_place(w->root, "db/1", &log, &blobs);
    } while ((n.log != log || n.blobs != blobs) && clock_monotonic_ms() < end_ms);
    ck_assert_uint_eq(n.log, log);
    ck_assert_uint_eq(n.blobs, blobs);
}

// Leaves no room at all: the volume may take what it has.
static inline void
fill_quota(struct volume *v)
{
    storage_quota_set_limit(v->quota, numbers_of(v).used);
}

// ---- fetching and evicting --------------------------------------------------------------

static inline uint64_t
remote_bytes(struct volume *v)
{
    struct chunk_reader_numbers n;
    chunk_reader_numbers(v->reader, &n);
    return n.remote_bytes;
}

static inline int
fetch(struct volume *v, uint64_t inode)
{
    const struct volume_fetch what = {.inode = inode};
    struct volume_fetched fetched;
    int rc = volume_fetch(v, &what, &fetched);
    if (rc == 0)
        ck_assert_uint_eq(fetched.done_bytes, fetched.total_bytes);
    return rc;
}

static inline int
try_evict(struct volume *v, const char *what, const struct volume_command *by, struct buffer *text)
{
    static const struct volume_command alone = {0};
    buffer_clear(text);
    return volume_evict_operation(v, what, false, by ? by : &alone, text);
}

static inline void
evict(struct volume *v, const char *what)
{
    BUFFER_AUTO text = {0};
    ck_assert_int_eq(try_evict(v, what, NULL, &text), 0);
}

#endif
