// SPDX-License-Identifier: Apache-2.0
#include "quota/storage_quota.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "quota/quota_file.h"

#define FLOOR_MAX   (UINT64_C(256) << 20)
#define RESERVE_MAX (UINT64_C(64) << 20)
// Other threads may take the room that one has made.
#define MAKE_ROOM_TRIES 3u

struct storage_quota {
    struct quota_file file;
    char *root;
    _Atomic uint64_t limit;
    _Atomic uint64_t exhausted;
    quota_make_room *make_room;
    void *argument;
};

// ---- counters -----------------------------------------------------------------------------------

static uint64_t
load(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static void
add(uint64_t *counter, uint64_t bytes)
{
    __atomic_fetch_add(counter, bytes, __ATOMIC_SEQ_CST);
}

// Not below zero: a file that another process removed or cut would leave a huge number.
static void
take(uint64_t *counter, uint64_t bytes)
{
    uint64_t old = load(counter);
    while (!__atomic_compare_exchange_n(
        counter, &old, old > bytes ? old - bytes : 0, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
}

static uint64_t *
counter_of(struct storage_quota *q, enum quota_kind kind)
{
    return kind == QUOTA_LOG ? &q->file.slot->log : &q->file.slot->blobs;
}

struct sums {
    uint64_t used, promised;
};

static struct sums
sums_of_slot(const struct quota_slot *s)
{
    return (struct sums){load(&s->log) + load(&s->blobs), load(&s->promised)};
}

static struct sums
sums_of_root(const struct storage_quota *q)
{
    const struct quota_map *map = q->file.map;
    struct sums all = {.used = load(&map->header.manifest) + load(&map->header.other)};
    uint32_t used = __atomic_load_n(&map->header.used, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < used && i < QUOTA_SLOTS; i++) {
        struct sums s = sums_of_slot(&map->slots[i]);
        all.used += s.used;
        all.promised += s.promised;
    }
    return all;
}

// ---- limits -------------------------------------------------------------------------------------

static uint64_t
part_of(uint64_t limit, unsigned part, uint64_t most)
{
    return limit / part < most ? limit / part : most;
}

// How much of the limit is left for this need.
static uint64_t
room_below(uint64_t limit, const struct sums *s, enum quota_need need)
{
    uint64_t kept = 0;
    uint64_t used = s->used;
    if (limit == 0)
        return UINT64_MAX;
    if (need == QUOTA_CACHE || need == QUOTA_GROW) {
        kept = part_of(limit, 8, FLOOR_MAX);
        used += s->promised;
    } else if (need == QUOTA_CHECKPOINT) {
        kept = part_of(limit, 32, RESERVE_MAX);
    }
    return used + kept < limit ? limit - kept - used : 0;
}

static uint64_t
room_of(const struct storage_quota *q, enum quota_need need)
{
    uint64_t root_limit = load(&q->file.map->header.limit);
    uint64_t limit = q->limit;
    uint64_t room = UINT64_MAX;
    if (limit > 0) {
        struct sums mine = sums_of_slot(q->file.slot);
        room = room_below(limit, &mine, need);
    }
    if (root_limit > 0) {
        struct sums all = sums_of_root(q);
        uint64_t below = room_below(root_limit, &all, need);
        room = below < room ? below : room;
    }
    return room;
}

// Whether the sum, already added, is within the limits: the very last byte may be used.
static bool
fits(const struct storage_quota *q, enum quota_need need, uint64_t added)
{
    uint64_t root_limit = load(&q->file.map->header.limit);
    uint64_t limit = q->limit;
    if (limit == 0 && root_limit == 0)
        return true;
    struct sums mine = sums_of_slot(q->file.slot);
    mine.used -= added < mine.used ? added : mine.used;
    if (room_below(limit, &mine, need) < added)
        return false;
    if (root_limit == 0)
        return true;
    struct sums all = sums_of_root(q);
    all.used -= added < all.used ? added : all.used;
    return room_below(root_limit, &all, need) >= added;
}

bool
storage_quota_is_limited(const struct storage_quota *q)
{
    return q && (q->limit > 0 || load(&q->file.map->header.limit) > 0);
}

// ---- reserving ----------------------------------------------------------------------------------

struct wanted {
    enum quota_kind kind;
    enum quota_need need;
    uint64_t bytes;
    uint64_t promised;
};

static bool
try_reserve(struct storage_quota *q, const struct wanted *x)
{
    uint64_t *counter = counter_of(q, x->kind);
    add(counter, x->bytes);
    add(&q->file.slot->promised, x->promised);
    bool promises = x->need == QUOTA_CACHE || x->need == QUOTA_GROW;
    if (fits(q, x->need, x->bytes + (promises ? x->promised : 0)))
        return true;
    take(&q->file.slot->promised, x->promised);
    take(counter, x->bytes);
    return false;
}

static int
reserve(struct storage_quota *q, const struct wanted *x)
{
    if (!q || try_reserve(q, x))
        return 0;
    // Other threads may take the freed room; then this one tries again.
    for (unsigned tries = 0; q->make_room && tries < MAKE_ROOM_TRIES; tries++) {
        if (!q->make_room(q->argument, x->bytes + x->promised))
            break;
        if (try_reserve(q, x))
            return 0;
    }
    q->exhausted++;
    return -EDQUOT;
}

int
storage_quota_reserve(
    struct storage_quota *q, enum quota_kind kind, enum quota_need need, uint64_t bytes)
{
    return reserve(q, &(struct wanted){kind, need, bytes, 0});
}

void
storage_quota_give_back(struct storage_quota *q, enum quota_kind kind, uint64_t bytes)
{
    if (q)
        take(counter_of(q, kind), bytes);
}

void
storage_quota_settle(
    struct storage_quota *q, enum quota_kind kind, uint64_t reserved, uint64_t bytes)
{
    if (q && bytes > reserved)
        add(counter_of(q, kind), bytes - reserved);
    else if (q)
        take(counter_of(q, kind), reserved - bytes);
}

int
storage_quota_reserve_segment(struct storage_quota *q, uint64_t bytes, bool least)
{
    return reserve(
        q, &(struct wanted){QUOTA_LOG, least ? QUOTA_CHECKPOINT : QUOTA_GROW, bytes, bytes});
}

void
storage_quota_give_back_segment(struct storage_quota *q, uint64_t bytes, uint64_t promised)
{
    if (!q)
        return;
    take(&q->file.slot->promised, promised);
    take(&q->file.slot->log, bytes);
}

bool
storage_quota_may_fill(const struct storage_quota *q, enum quota_need need)
{
    return !q || room_of(q, need) > 0;
}

void
storage_quota_note_exhausted(struct storage_quota *q)
{
    if (q)
        q->exhausted++;
}

void
storage_quota_expect_manifest(struct storage_quota *q, uint64_t bytes)
{
    if (!q)
        return;
    add(&q->file.map->header.manifest, bytes);
    for (unsigned tries = 0; q->make_room && tries < MAKE_ROOM_TRIES; tries++) {
        uint64_t limit = load(&q->file.map->header.limit);
        uint64_t used = sums_of_root(q).used;
        if (limit == 0 || used <= limit || !q->make_room(q->argument, used - limit))
            return;
    }
}

void
storage_quota_note_manifest(struct storage_quota *q, uint64_t bytes)
{
    if (q)
        __atomic_store_n(&q->file.map->header.manifest, bytes, __ATOMIC_SEQ_CST);
}

// ---- life ---------------------------------------------------------------------------------------

void
storage_quota_recount(struct storage_quota *q)
{
    uint64_t log, blobs;
    struct quota_slot *s = q->file.slot;
    const char *name = s->name;
    quota_count_place(q->root, name, &log, &blobs);
    if (s->log != log || s->blobs != blobs)
        log_debug("quota.counted", "%s had %llu bytes in its account and has %llu", name,
            (unsigned long long)(s->log + s->blobs), (unsigned long long)(log + blobs));
    __atomic_store_n(&s->log, log, __ATOMIC_SEQ_CST);
    __atomic_store_n(&s->blobs, blobs, __ATOMIC_SEQ_CST);
    __atomic_store_n(&s->promised, log, __ATOMIC_SEQ_CST);
}

int64_t
storage_quota_audit(struct storage_quota *q)
{
    uint64_t found[2][2];
    if (!q)
        return 0;
    uint64_t *counters[2] = {&q->file.slot->log, &q->file.slot->blobs};
    const uint64_t before[2] = {load(counters[0]), load(counters[1])};
    // Twice: a file that came and went during the first look would count for ever.
    for (unsigned i = 0; i < 2; i++)
        quota_count_place(q->root, q->file.slot->name, &found[i][0], &found[i][1]);
    int64_t added = 0;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t counted = before[i];
        if (found[0][i] == found[1][i] && found[0][i] > counted &&
            __atomic_compare_exchange_n(
                counters[i], &counted, found[0][i], false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            added += (int64_t)(found[0][i] - before[i]);
    }
    return added;
}

struct storage_quota *
storage_quota_open(const char *root, const char *name)
{
    struct storage_quota *q = memory_alloc_zero(sizeof(*q));
    q->root = memory_string(root);
    quota_file_open(root, name, &q->file);
    storage_quota_recount(q);
    __atomic_store_n(&q->file.slot->limit, 0, __ATOMIC_SEQ_CST);
    CLEANUP(memory_free_auto) char *data = memory_printf("%s/manifest/data.mdb", root);
    storage_quota_note_manifest(q, storage_quota_path_bytes(data));
    return q;
}

void
storage_quota_close(struct storage_quota *q)
{
    if (!q)
        return;
    quota_file_close(&q->file);
    free(q->root);
    free(q);
}

void
storage_quota_set_host(struct storage_quota *q, quota_make_room *make_room, void *argument)
{
    if (!q)
        return;
    q->make_room = make_room;
    q->argument = argument;
}

void
storage_quota_set_limit(struct storage_quota *q, uint64_t bytes)
{
    if (!q)
        return;
    q->limit = bytes;
    __atomic_store_n(&q->file.slot->limit, bytes, __ATOMIC_SEQ_CST);
}

void
storage_quota_set_root_limit(struct storage_quota *q, uint64_t bytes)
{
    if (q)
        quota_file_set_limit(&q->file, bytes);
}

static uint64_t
count_places(const struct storage_quota *q)
{
    const struct quota_map *map = q->file.map;
    uint32_t used = __atomic_load_n(&map->header.used, __ATOMIC_ACQUIRE);
    uint64_t places = 0;
    for (uint32_t i = 0; i < used && i < QUOTA_SLOTS; i++)
        places += strncmp(map->slots[i].name, "db/", 3) == 0;
    return places;
}

void
storage_quota_numbers(const struct storage_quota *q, struct storage_quota_numbers *out)
{
    *out = (struct storage_quota_numbers){.room = UINT64_MAX};
    if (!q)
        return;
    struct sums mine = sums_of_slot(q->file.slot);
    struct sums all = sums_of_root(q);
    *out = (struct storage_quota_numbers){
        .limit = q->limit,
        .root_limit = load(&q->file.map->header.limit),
        .used = mine.used,
        .root_used = all.used,
        .log = load(&q->file.slot->log),
        .blobs = load(&q->file.slot->blobs),
        .promised = mine.promised,
        .room = room_of(q, QUOTA_CACHE),
        .places = count_places(q),
        .exhausted = q->exhausted,
    };
}

// ---- files --------------------------------------------------------------------------------------

uint64_t
storage_quota_file_bytes(int fd)
{
    struct stat st;
    return fstat(fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

uint64_t
storage_quota_path_bytes(const char *path)
{
    struct stat st;
    return path_stat(path, &st) < 0 || !S_ISREG(st.st_mode) ? 0 : (uint64_t)st.st_blocks * 512;
}

int
storage_quota_remove_tree(struct storage_quota *q, enum quota_kind kind, const char *path)
{
    uint64_t bytes = q ? quota_count_tree(path) : 0;
    int rc = path_remove_tree(path);
    storage_quota_give_back(q, kind, bytes - (rc < 0 && q ? quota_count_tree(path) : 0));
    return rc;
}
