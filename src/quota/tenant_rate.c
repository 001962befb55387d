// SPDX-License-Identifier: Apache-2.0
#include "quota/tenant_rate.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "quota/storage_quota_internal.h"

#define MAGIC     UINT64_C(0x3144414552504b43) // "CKPREAD1" on little-endian machines
#define BURST_US  UINT64_C(250000)
#define DEBT_US   UINT64_C(1000000) // the most that a change of the rate leaves
#define POLL_MS   4u                // how soon a request asks again for which others are before
#define FRESH_MS  200u              // a process that has said nothing for longer does not wait
#define FORGET_MS 500u              // between looks for dead processes
#define SECOND_US UINT64_C(1000000)

struct rate_header {
    uint64_t magic;
    struct uuid boot_id; // the clock of `sold_us` and `waiting_ms` is that of this boot
    uint64_t reserved[509];
};
_Static_assert(sizeof(struct rate_header) == 4096, "layout");

struct rate_entry {
    uint64_t tenant; // as in the slot of the account; another one: the entry is void
    uint64_t bytes, bytes_check;
    uint64_t requests, requests_check;
    uint32_t in_flight, background;
    uint64_t waiting_ms[TENANT_RATE_CLASSES];  // when the process last said so; 0: it does not
    uint64_t mount_turns[TENANT_RATE_CLASSES]; // virtual time of its next request in the class
    // In the tenant's first entry:
    uint64_t sold_us;
    uint64_t turn; // of the request that went last
    uint64_t turns[TENANT_RATE_CLASSES];
    uint64_t mount_turn[TENANT_RATE_CLASSES]; // of the request of the class that went last
};
_Static_assert(sizeof(struct rate_entry) == 256, "layout");

struct rate_map {
    struct rate_header header;
    struct rate_entry entries[QUOTA_SLOTS];
};

struct tenant_rate {
    int fd;
    struct rate_map *map;
    const struct quota_file *account;
    struct rate_entry *mine;
    uint64_t tenant;
    uint32_t background;
    _Atomic uint64_t forgot_ms;
};

static uint64_t
load(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void
store(uint64_t *p, uint64_t value)
{
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);
}

static void
raise_to(uint64_t *p, uint64_t value)
{
    uint64_t now = load(p);
    while (now < value &&
           !__atomic_compare_exchange_n(p, &now, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
}

static bool
is_background(const struct tenant_rate *r, unsigned class)
{
    return r->background >> class & 1;
}

// ---- the file -----------------------------------------------------------------------------------

// Returns the descriptor of the file, which is locked and as long as its memory.
static int
open_file(const char *root)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/reads", root);
    return quota_shared_file_open(path, sizeof(struct rate_map));
}

void
tenant_rate_make_file(const char *root)
{
    int fd = open_file(root);
    if (fd >= 0)
        file_close(fd);
}

// Under the lock of the file.
static int
map_file(struct tenant_rate *r)
{
    void *map = mmap(NULL, sizeof(*r->map), PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    r->map = map;
    if (r->map->header.magic == MAGIC)
        return 0;
    memset(r->map, 0, sizeof(*r->map));
    r->map->header.magic = MAGIC;
    return 0;
}

void
tenant_rate_close(struct tenant_rate *r)
{
    if (!r)
        return;
    for (unsigned i = 0; i < TENANT_RATE_CLASSES; i++)
        store(&r->mine->waiting_ms[i], 0);
    munmap(r->map, sizeof(*r->map));
    file_close(r->fd);
    free(r);
}

// ---- places of the tenant -----------------------------------------------------------------------

static struct rate_entry *
entry_of_tenant(const struct tenant_rate *r, uint32_t i)
{
    struct rate_entry *e = &r->map->entries[i];
    const struct quota_slot *slot = &r->account->map->slots[i];
    return load(&e->tenant) == r->tenant && load(&slot->tenant) == r->tenant ? e : NULL;
}

static uint32_t
entries_used(const struct tenant_rate *r)
{
    uint32_t used = __atomic_load_n(&r->account->map->header.used, __ATOMIC_ACQUIRE);
    return used < QUOTA_SLOTS ? used : QUOTA_SLOTS;
}

static struct rate_entry *
first_entry(const struct tenant_rate *r)
{
    struct rate_entry *e = NULL;
    uint32_t used = entries_used(r);
    for (uint32_t i = 0; !e && i < used; i++)
        e = entry_of_tenant(r, i);
    return e ? e : r->mine;
}

// A limit that a killed process has written by half is void.
static void
limits_of(const struct rate_entry *e, struct tenant_rate_limits *out)
{
    uint64_t bytes = load(&e->bytes);
    uint64_t requests = load(&e->requests);
    out->bytes = load(&e->bytes_check) == ~bytes ? bytes : 0;
    out->requests = load(&e->requests_check) == ~requests ? requests : 0;
}

static void
set_limits(struct rate_entry *e, const struct tenant_rate_limits *limits)
{
    store(&e->bytes, limits->bytes);
    store(&e->bytes_check, ~limits->bytes);
    store(&e->requests, limits->requests);
    store(&e->requests_check, ~limits->requests);
}

static uint64_t
smaller_limit(uint64_t a, uint64_t b)
{
    return a == 0 || (b > 0 && b < a) ? b : a;
}

// The smallest limits that any place of the tenant has: a killed process may have set some.
static struct tenant_rate_limits
limits_of_tenant(const struct tenant_rate *r)
{
    struct tenant_rate_limits all = {0};
    for (uint32_t i = 0; i < entries_used(r); i++) {
        const struct rate_entry *e = entry_of_tenant(r, i);
        struct tenant_rate_limits limits;
        if (!e)
            continue;
        limits_of(e, &limits);
        all.bytes = smaller_limit(all.bytes, limits.bytes);
        all.requests = smaller_limit(all.requests, limits.requests);
    }
    return all;
}

static void
set_limits_of_tenant(struct tenant_rate *r, const struct tenant_rate_limits *limits)
{
    for (uint32_t i = 0; i < entries_used(r); i++) {
        struct rate_entry *e = entry_of_tenant(r, i);
        if (e)
            set_limits(e, limits);
    }
}

// Before a restart of the machine the clock was another one.
static void
begin_boot(struct tenant_rate *r)
{
    struct rate_header *h = &r->map->header;
    if (uuid_equal(&h->boot_id, &r->account->map->header.boot_id))
        return;
    for (uint32_t i = 0; i < QUOTA_SLOTS; i++) {
        struct rate_entry *e = &r->map->entries[i];
        e->in_flight = e->background = 0;
        e->sold_us = e->turn = 0;
        memset(e->waiting_ms, 0, sizeof(e->waiting_ms));
        memset(e->turns, 0, sizeof(e->turns));
        memset(e->mount_turns, 0, sizeof(e->mount_turns));
        memset(e->mount_turn, 0, sizeof(e->mount_turn));
    }
    h->boot_id = r->account->map->header.boot_id;
}

static void
begin_change(const struct tenant_rate *r)
{
    if (flock(r->fd, LOCK_EX) < 0)
        log_warning("limits.failed", "cannot lock the limits on reads: %s", strerror(errno));
}

static void
end_change(const struct tenant_rate *r)
{
    flock(r->fd, LOCK_UN);
}

// Under the lock of the file.
static void
take_entry(struct tenant_rate *r)
{
    begin_boot(r);
    // That of another tenant, or of an earlier process of this place.
    if (load(&r->mine->tenant) != r->tenant)
        memset(r->mine, 0, sizeof(*r->mine));
    __atomic_store_n(&r->mine->in_flight, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&r->mine->background, 0, __ATOMIC_SEQ_CST);
    store(&r->mine->tenant, r->tenant);
    struct tenant_rate_limits limits = limits_of_tenant(r);
    set_limits_of_tenant(r, &limits);
}

static int
try_open(struct tenant_rate *r, const struct storage_quota *q)
{
    // An account of this process alone has other slots than those of the root.
    if (q->file.fd < 0)
        return -EINVAL;
    r->fd = open_file(q->root);
    if (r->fd < 0)
        return r->fd;
    int rc = map_file(r);
    if (rc == 0) {
        r->mine = &r->map->entries[q->file.slot - q->file.map->slots];
        take_entry(r);
    }
    end_change(r);
    return rc;
}

struct tenant_rate *
tenant_rate_open(struct storage_quota *q, uint32_t background)
{
    struct tenant_rate *r = memory_alloc_zero(sizeof(*r));
    *r = (struct tenant_rate){.fd = -1, .background = background, .account = &q->file};
    r->tenant = q->file.slot->tenant;
    int rc = try_open(r, q);
    if (rc == 0)
        return r;
    log_warning("limits.alone",
        "cannot use %s/reads: %s; this mount shares no limit on reads with others", q->root,
        strerror(-rc));
    file_close(r->fd);
    free(r);
    return NULL;
}

// ---- limits -------------------------------------------------------------------------------------

void
tenant_rate_set(struct tenant_rate *r, const struct tenant_rate_limits *limits)
{
    if (!r)
        return;
    begin_change(r);
    // A second of the old debt is the most that the new rate has to make up for.
    struct rate_entry *first = first_entry(r);
    uint64_t most = clock_monotonic_ms() * 1000 + DEBT_US;
    if (load(&first->sold_us) > most)
        store(&first->sold_us, most);
    set_limits_of_tenant(r, limits);
    end_change(r);
    if (fdatasync(r->fd) < 0)
        log_warning("limits.failed", "cannot write the limits on reads: %s", strerror(errno));
}

void
tenant_rate_get(const struct tenant_rate *r, struct tenant_rate_limits *limits_out)
{
    *limits_out = (struct tenant_rate_limits){0};
    if (r)
        limits_of(r->mine, limits_out);
}

bool
tenant_rate_is_limited(const struct tenant_rate *r)
{
    struct tenant_rate_limits limits;
    tenant_rate_get(r, &limits);
    return limits.bytes > 0 || limits.requests > 0;
}

// ---- requests at once ---------------------------------------------------------------------------

static void
sum_requests(const struct tenant_rate *r, uint64_t *all_out, uint64_t *background_out)
{
    *all_out = *background_out = 0;
    for (uint32_t i = 0; i < entries_used(r); i++) {
        const struct rate_entry *e = entry_of_tenant(r, i);
        if (!e)
            continue;
        *all_out += __atomic_load_n(&e->in_flight, __ATOMIC_SEQ_CST);
        *background_out += __atomic_load_n(&e->background, __ATOMIC_SEQ_CST);
    }
}

// Whether so many may be under way.
static bool
is_within(uint64_t most, uint64_t all, uint64_t background, bool is_background)
{
    if (most == 0)
        return true;
    return all <= most && !(is_background && most > 1 && background > most - 1);
}

static void
count_request(struct tenant_rate *r, unsigned class)
{
    __atomic_fetch_add(&r->mine->in_flight, 1, __ATOMIC_SEQ_CST);
    if (is_background(r, class))
        __atomic_fetch_add(&r->mine->background, 1, __ATOMIC_SEQ_CST);
}

// Not below zero: another process may have the entry, too, if someone has removed ROOT/quota.
static void
take_one(uint32_t *counter)
{
    uint32_t n = __atomic_load_n(counter, __ATOMIC_SEQ_CST);
    while (n > 0 && !__atomic_compare_exchange_n(
                        counter, &n, n - 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
}

static void
uncount_request(struct tenant_rate *r, unsigned class)
{
    if (is_background(r, class))
        take_one(&r->mine->background);
    take_one(&r->mine->in_flight);
}

// A process that died has left its requests behind.
static void
forget_dead(struct tenant_rate *r, uint64_t now_ms)
{
    uint64_t before = atomic_load(&r->forgot_ms);
    if (now_ms < before + FORGET_MS ||
        !atomic_compare_exchange_strong(&r->forgot_ms, &before, now_ms))
        return;
    for (uint32_t i = 0; i < entries_used(r); i++) {
        struct rate_entry *e = entry_of_tenant(r, i);
        if (!e || e == r->mine || __atomic_load_n(&e->in_flight, __ATOMIC_SEQ_CST) == 0 ||
            quota_file_is_owned(r->account, i))
            continue;
        __atomic_store_n(&e->in_flight, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&e->background, 0, __ATOMIC_SEQ_CST);
    }
}

bool
tenant_rate_has_room(struct tenant_rate *r, unsigned class, uint64_t now_ms)
{
    struct tenant_rate_limits limits;
    uint64_t all, background;
    tenant_rate_get(r, &limits);
    if (limits.requests == 0)
        return true;
    bool back = is_background(r, class);
    sum_requests(r, &all, &background);
    if (is_within(limits.requests, all + 1, background + back, back))
        return true;
    forget_dead(r, now_ms);
    return false;
}

// Counts one request more, if it is within the limit.
static bool
add_request(struct tenant_rate *r, unsigned class, uint64_t most, uint64_t now_ms)
{
    uint64_t all, background;
    count_request(r, class);
    sum_requests(r, &all, &background);
    if (is_within(most, all, background, is_background(r, class)))
        return true;
    uncount_request(r, class);
    forget_dead(r, now_ms);
    return false;
}

// ---- bytes --------------------------------------------------------------------------------------

static uint64_t
time_for(uint64_t bytes, uint64_t rate)
{
    uint64_t us;
    if (rate == 0 || __builtin_mul_overflow(bytes, SECOND_US, &us))
        return 0;
    return us / rate;
}

// Gives the bytes away. False when the rate up to now has been given away already, unless `always`.
static bool
sell(struct rate_entry *first, uint64_t bytes, uint64_t rate, uint64_t now_us, bool always)
{
    uint64_t sold = load(&first->sold_us);
    uint64_t least = now_us > BURST_US ? now_us - BURST_US : 0;
    uint64_t after;
    do {
        if (sold >= now_us && !always)
            return false;
        after = (sold > least ? sold : least) + time_for(bytes, rate);
    } while (!__atomic_compare_exchange_n(
        &first->sold_us, &sold, after, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return true;
}

static void
buy_back(struct rate_entry *first, uint64_t bytes, uint64_t rate)
{
    uint64_t us = time_for(bytes, rate);
    uint64_t sold = load(&first->sold_us);
    while (!__atomic_compare_exchange_n(&first->sold_us, &sold, sold > us ? sold - us : 0, false,
        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
}

// ---- turns --------------------------------------------------------------------------------------

static bool
is_waiting(const struct rate_entry *e, unsigned class, uint64_t now_ms)
{
    uint64_t said_ms = load(&e->waiting_ms[class]);
    return said_ms != 0 && said_ms + FRESH_MS >= now_ms;
}

static bool
anyone_waits(const struct tenant_rate *r, unsigned class, uint64_t now_ms)
{
    for (uint32_t i = 0; i < entries_used(r); i++) {
        const struct rate_entry *e = entry_of_tenant(r, i);
        if (e && is_waiting(e, class, now_ms))
            return true;
    }
    return false;
}

void
tenant_rate_note_waiting(struct tenant_rate *r, unsigned class, bool waits, uint64_t now_ms)
{
    // What the mount or its class did not use while it did not wait is gone.
    if (waits && load(&r->mine->waiting_ms[class]) == 0) {
        struct rate_entry *first = first_entry(r);
        raise_to(&r->mine->mount_turns[class], load(&first->mount_turn[class]));
        if (!anyone_waits(r, class, now_ms))
            raise_to(&first->turns[class], load(&first->turn));
    }
    store(&r->mine->waiting_ms[class], waits ? now_ms : 0);
}

uint64_t
tenant_rate_turn(const struct tenant_rate *r, unsigned class)
{
    return load(&first_entry(r)->turns[class]);
}

// Whether another mount waits in this class before this one, or (`any`) waits in it at all.
static bool
another_waits(const struct tenant_rate *r, unsigned class, bool any, uint64_t now_ms)
{
    uint64_t mine = load(&r->mine->mount_turns[class]);
    for (uint32_t i = 0; i < entries_used(r); i++) {
        const struct rate_entry *e = entry_of_tenant(r, i);
        if (e && e != r->mine && is_waiting(e, class, now_ms) &&
            (any || load(&e->mount_turns[class]) < mine))
            return true;
    }
    return false;
}

// The mount with the lowest turn in the class with the lowest turn of all begins its request, so
// not all of them wait.
static bool
others_are_before(
    struct tenant_rate *r, const struct rate_entry *first, unsigned class, uint64_t now_ms)
{
    for (unsigned c = 0; c < TENANT_RATE_CLASSES; c++) {
        bool before = load(&first->turns[c]) < load(&first->turns[class]);
        if ((before || c == class) && tenant_rate_has_room(r, c, now_ms) &&
            another_waits(r, c, before, now_ms))
            return true;
    }
    return false;
}

// ---- requests -----------------------------------------------------------------------------------

uint64_t
tenant_rate_begin(
    struct tenant_rate *r, unsigned class, uint64_t bytes, uint64_t cost, uint64_t now_ms)
{
    struct tenant_rate_limits limits;
    struct rate_entry *first = first_entry(r);
    tenant_rate_get(r, &limits);
    if (others_are_before(r, first, class, now_ms) ||
        !add_request(r, class, limits.requests, now_ms))
        return now_ms + POLL_MS;
    if (limits.bytes > 0 && !sell(first, bytes, limits.bytes, now_ms * 1000, false)) {
        uncount_request(r, class);
        uint64_t free_ms = load(&first->sold_us) / 1000 + 1;
        return free_ms > now_ms ? free_ms : now_ms + 1;
    }
    raise_to(&first->turn, __atomic_fetch_add(&first->turns[class], cost, __ATOMIC_SEQ_CST));
    raise_to(&first->mount_turn[class],
        __atomic_fetch_add(&r->mine->mount_turns[class], cost, __ATOMIC_SEQ_CST));
    return 0;
}

void
tenant_rate_end(
    struct tenant_rate *r, unsigned class, uint64_t bytes, uint64_t moved, uint64_t now_ms)
{
    struct tenant_rate_limits limits;
    struct rate_entry *first = first_entry(r);
    uncount_request(r, class);
    tenant_rate_get(r, &limits);
    if (moved > bytes)
        (void)sell(first, moved - bytes, limits.bytes, now_ms * 1000, true);
    else
        buy_back(first, bytes - moved, limits.bytes);
}

void
tenant_rate_charge(struct tenant_rate *r, uint64_t bytes, uint64_t now_ms)
{
    struct tenant_rate_limits limits;
    tenant_rate_get(r, &limits);
    if (limits.bytes > 0)
        (void)sell(first_entry(r), bytes, limits.bytes, now_ms * 1000, true);
}
