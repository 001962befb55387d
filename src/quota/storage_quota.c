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
#include "quota/storage_quota_internal.h"

#define FLOOR_MAX   (UINT64_C(256) << 20)
#define RESERVE_MAX (UINT64_C(64) << 20)
// Other threads may take the room that one has made.
#define MAKE_ROOM_TRIES 8u

// ---- counters -----------------------------------------------------------------------------------

static uint64_t
load(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

void
quota_count_add(uint64_t *counter, uint64_t bytes)
{
    __atomic_fetch_add(counter, bytes, __ATOMIC_SEQ_CST);
}

// A file that another process removed or cut would leave a huge number.
void
quota_count_take(uint64_t *counter, uint64_t bytes)
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

static struct quota_sums
sums_of_slot(const struct quota_slot *s)
{
    return (struct quota_sums){load(&s->log) + load(&s->blobs), load(&s->promised), load(&s->jobs)};
}

static void
add_sums(struct quota_sums *all, const struct quota_sums *s)
{
    all->used += s->used;
    all->promised += s->promised;
    all->jobs += s->jobs;
}

// Of all places of the tenant, and of the root.
static void
sum_places(const struct storage_quota *q, struct quota_sums *tenant, struct quota_sums *root)
{
    const struct quota_map *map = q->file.map;
    uint64_t mine = q->file.slot->tenant;
    uint32_t used = __atomic_load_n(&map->header.used, __ATOMIC_ACQUIRE);
    *tenant = (struct quota_sums){0};
    *root = (struct quota_sums){.used = load(&map->header.manifest) + load(&map->header.other)};
    for (uint32_t i = 0; i < used && i < QUOTA_SLOTS; i++) {
        struct quota_sums s = sums_of_slot(&map->slots[i]);
        add_sums(root, &s);
        if (mine != 0 && load(&map->slots[i].tenant) == mine)
            add_sums(tenant, &s);
    }
}

// ---- limits -------------------------------------------------------------------------------------

static uint64_t
part_of(uint64_t limit, unsigned part, uint64_t most)
{
    return limit / part < most ? limit / part : most;
}

static bool
keeps_promises(enum quota_need need)
{
    return need == QUOTA_CACHE || need == QUOTA_GROW;
}

// How much of the limit is left for this need.
static uint64_t
room_below(uint64_t limit, const struct quota_sums *s, enum quota_need need)
{
    uint64_t kept = 0;
    uint64_t used = s->used;
    if (keeps_promises(need)) {
        kept = part_of(limit, 8, FLOOR_MAX);
        used += s->promised;
    } else if (need == QUOTA_CHECKPOINT) {
        kept = part_of(limit, 32, RESERVE_MAX);
    }
    return used + kept < limit ? limit - kept - used : 0;
}

unsigned
quota_scopes(const struct storage_quota *q, struct quota_scope out[QUOTA_SCOPES])
{
    uint64_t limit = q->limit;
    uint64_t tenant_limit = load(&q->file.slot->tenant_limit);
    uint64_t root_limit = load(&q->file.map->header.limit);
    unsigned n = 0;
    if (limit > 0)
        out[n++] = (struct quota_scope){limit, sums_of_slot(q->file.slot)};
    if (tenant_limit == 0 && root_limit == 0)
        return n;
    struct quota_sums tenant;
    struct quota_sums root;
    sum_places(q, &tenant, &root);
    if (tenant_limit > 0)
        out[n++] = (struct quota_scope){tenant_limit, tenant};
    if (root_limit > 0)
        out[n++] = (struct quota_scope){root_limit, root};
    return n;
}

static uint64_t
room_of(const struct storage_quota *q, enum quota_need need)
{
    struct quota_scope scopes[QUOTA_SCOPES];
    unsigned n = quota_scopes(q, scopes);
    uint64_t room = UINT64_MAX;
    for (unsigned i = 0; i < n; i++) {
        uint64_t below = room_below(scopes[i].limit, &scopes[i].sums, need);
        room = below < room ? below : room;
    }
    return room;
}

// The sums without what was added for `x`.
static struct quota_sums
without(struct quota_sums s, const struct quota_wanted *x)
{
    s.used -= x->bytes < s.used ? x->bytes : s.used;
    s.promised -= x->promised < s.promised ? x->promised : s.promised;
    return s;
}

// Whether the sum, already added, is within the limits: the very last byte may be used.
static bool
fits(const struct storage_quota *q, const struct quota_wanted *x)
{
    struct quota_scope scopes[QUOTA_SCOPES];
    unsigned n = quota_scopes(q, scopes);
    uint64_t added = x->bytes + (keeps_promises(x->need) ? x->promised : 0);
    for (unsigned i = 0; i < n; i++) {
        struct quota_sums before = without(scopes[i].sums, x);
        if (room_below(scopes[i].limit, &before, x->need) < added)
            return false;
    }
    return true;
}

bool
storage_quota_is_limited(const struct storage_quota *q)
{
    return q && (q->limit > 0 || load(&q->file.slot->tenant_limit) > 0 ||
                    load(&q->file.map->header.limit) > 0);
}

// ---- the share of jobs --------------------------------------------------------------------------

uint64_t
quota_job_share(const struct storage_quota *q, uint64_t limit)
{
    return limit / 100 * q->job_share;
}

static uint64_t
job_room(const struct storage_quota *q)
{
    struct quota_scope scopes[QUOTA_SCOPES];
    unsigned n = quota_scopes(q, scopes);
    uint64_t room = UINT64_MAX;
    for (unsigned i = 0; i < n; i++) {
        uint64_t share = quota_job_share(q, scopes[i].limit);
        uint64_t left = scopes[i].sums.jobs < share ? share - scopes[i].sums.jobs : 0;
        room = left < room ? left : room;
    }
    return room;
}

uint64_t
storage_quota_job_limit(const struct storage_quota *q)
{
    struct quota_scope scopes[QUOTA_SCOPES];
    unsigned n = q ? quota_scopes(q, scopes) : 0;
    uint64_t least = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t share = quota_job_share(q, scopes[i].limit);
        least = i == 0 || share < least ? share : least;
    }
    return least;
}

// ---- reserving ----------------------------------------------------------------------------------

static bool
try_reserve(struct storage_quota *q, const struct quota_wanted *x)
{
    uint64_t *counter = counter_of(q, x->kind);
    quota_count_add(counter, x->bytes);
    quota_count_add(&q->file.slot->promised, x->promised);
    if (fits(q, x))
        return true;
    quota_count_take(&q->file.slot->promised, x->promised);
    quota_count_take(counter, x->bytes);
    return false;
}

bool
storage_quota_has_room(const struct storage_quota *q, const struct quota_wanted *x)
{
    uint64_t added = x->bytes + (keeps_promises(x->need) ? x->promised : 0);
    return !q || room_of(q, x->need) >= added;
}

static int
reserve(struct storage_quota *q, const struct quota_wanted *x)
{
    if (!q || try_reserve(q, x))
        return 0;
    // Other threads may take the freed room; then this one tries again.
    for (unsigned tries = 0; q->make_room && tries < MAKE_ROOM_TRIES; tries++) {
        if (!q->make_room(q->argument, x))
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
    return reserve(q, &(struct quota_wanted){kind, need, bytes, 0});
}

void
storage_quota_give_back(struct storage_quota *q, enum quota_kind kind, uint64_t bytes)
{
    if (q)
        quota_count_take(counter_of(q, kind), bytes);
}

void
storage_quota_settle(
    struct storage_quota *q, enum quota_kind kind, uint64_t reserved, uint64_t bytes)
{
    if (q && bytes > reserved)
        quota_count_add(counter_of(q, kind), bytes - reserved);
    else if (q)
        quota_count_take(counter_of(q, kind), reserved - bytes);
}

int
storage_quota_reserve_segment(struct storage_quota *q, uint64_t bytes, bool least)
{
    const enum quota_need need = least ? QUOTA_CHECKPOINT : QUOTA_GROW;
    return reserve(q, &(struct quota_wanted){QUOTA_LOG, need, bytes, bytes});
}

void
storage_quota_give_back_segment(struct storage_quota *q, uint64_t bytes, uint64_t promised)
{
    if (!q)
        return;
    quota_count_take(&q->file.slot->promised, promised);
    quota_count_take(&q->file.slot->log, bytes);
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
    quota_count_add(&q->file.map->header.manifest, bytes);
    for (unsigned tries = 0; q->make_room && tries < MAKE_ROOM_TRIES; tries++) {
        uint64_t limit = load(&q->file.map->header.limit);
        struct quota_sums tenant;
        struct quota_sums root;
        sum_places(q, &tenant, &root);
        if (limit == 0 || root.used <= limit ||
            !q->make_room(
                q->argument, &(struct quota_wanted){QUOTA_BLOBS, QUOTA_LAST, root.used - limit, 0}))
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
    __atomic_store_n(&q->file.slot->jobs, 0, __ATOMIC_SEQ_CST);
    q->job_share = QUOTA_JOB_SHARE;
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

void
storage_quota_set_tenant(struct storage_quota *q, const char *tenant)
{
    if (q)
        quota_file_set_tenant(&q->file, tenant);
}

void
storage_quota_set_tenant_limit(struct storage_quota *q, uint64_t bytes)
{
    if (q)
        quota_file_set_tenant_limit(&q->file, bytes);
}

void
storage_quota_set_job_share(struct storage_quota *q, uint64_t percent)
{
    if (q)
        q->job_share = percent;
}

static void
count_places(const struct storage_quota *q, uint64_t *places_out, uint64_t *of_tenant_out)
{
    const struct quota_map *map = q->file.map;
    uint64_t mine = q->file.slot->tenant;
    uint32_t used = __atomic_load_n(&map->header.used, __ATOMIC_ACQUIRE);
    *places_out = *of_tenant_out = 0;
    for (uint32_t i = 0; i < used && i < QUOTA_SLOTS; i++) {
        bool is_db = strncmp(map->slots[i].name, "db/", 3) == 0;
        *places_out += is_db;
        *of_tenant_out += is_db && mine != 0 && load(&map->slots[i].tenant) == mine;
    }
}

void
storage_quota_numbers(const struct storage_quota *q, struct storage_quota_numbers *out)
{
    *out = (struct storage_quota_numbers){.room = UINT64_MAX, .job_room = UINT64_MAX};
    if (!q)
        return;
    struct quota_sums mine = sums_of_slot(q->file.slot);
    struct quota_sums tenant;
    struct quota_sums root;
    sum_places(q, &tenant, &root);
    *out = (struct storage_quota_numbers){
        .limit = q->limit,
        .tenant_limit = load(&q->file.slot->tenant_limit),
        .root_limit = load(&q->file.map->header.limit),
        .used = mine.used,
        .tenant_used = tenant.used,
        .root_used = root.used,
        .log = load(&q->file.slot->log),
        .blobs = load(&q->file.slot->blobs),
        .promised = mine.promised,
        .room = room_of(q, QUOTA_CACHE),
        .exhausted = q->exhausted,
        .job_share = q->job_share,
        .job_limit = storage_quota_job_limit(q),
        .jobs = mine.jobs,
        .job_room = job_room(q),
        .job_refusals = q->job_refusals,
    };
    count_places(q, &out->places, &out->tenant_places);
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
