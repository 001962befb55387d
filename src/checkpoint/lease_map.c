// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/lease_map.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/memory.h"

#define POLL_MS 100u

struct lease {
    uint64_t holder;
    struct generation generation;
    uint64_t expires_ms;
    struct chunk_range *ranges;
    size_t count;
};

struct lease_map {
    struct lock lock; // "leases": protects all below
    struct condition released;
    struct lease *leases; // a handful: one a checkpoint in flight
    size_t count;
};

struct lease_map *
lease_map_new(void)
{
    struct lease_map *m = memory_alloc_zero(sizeof(*m));
    lock_init(&m->lock, "leases", LOCK_RANK_PUBLICATION);
    condition_init(&m->released);
    return m;
}

void
lease_map_free(struct lease_map *m)
{
    if (!m)
        return;
    assert(m->count == 0);
    free(m->leases);
    condition_destroy(&m->released);
    lock_destroy(&m->lock);
    free(m);
}

static struct lease *
find_locked(struct lease_map *m, uint64_t holder)
{
    for (size_t i = 0; i < m->count; i++)
        if (m->leases[i].holder == holder)
            return &m->leases[i];
    return NULL;
}

void
lease_map_take(struct lease_map *m, uint64_t holder, struct generation generation,
    const struct chunk_range *ranges, size_t count, uint64_t ttl_ms)
{
    struct lease lease = {holder, generation, clock_monotonic_ms() + ttl_ms, NULL, count};
    size_t bytes = count * sizeof(*ranges);
    if (bytes > 0)
        lease.ranges = memcpy(memory_alloc(bytes), ranges, bytes);
    lock_take(&m->lock);
    assert(holder != 0 && !find_locked(m, holder));
    m->leases = memory_realloc(m->leases, (m->count + 1) * sizeof(*m->leases));
    m->leases[m->count++] = lease;
    lock_release(&m->lock);
}

bool
lease_map_renew(struct lease_map *m, uint64_t holder, uint64_t ttl_ms)
{
    uint64_t now = clock_monotonic_ms();
    lock_take(&m->lock);
    struct lease *lease = find_locked(m, holder);
    bool good = lease && now < lease->expires_ms;
    if (good)
        lease->expires_ms = now + ttl_ms;
    lock_release(&m->lock);
    return good;
}

void
lease_map_release(struct lease_map *m, uint64_t holder)
{
    lock_take(&m->lock);
    struct lease *lease = find_locked(m, holder);
    if (lease) {
        free(lease->ranges);
        *lease = m->leases[--m->count];
        condition_broadcast(&m->released);
    }
    lock_release(&m->lock);
}

static bool
conflicts(const struct lease *lease, const struct chunk_range *range, struct generation target)
{
    for (size_t i = 0; i < lease->count; i++) {
        const struct chunk_range *r = &lease->ranges[i];
        if (r->object.v == 0 && target.v != 0 && lease->generation.v >= target.v)
            return true;
        if (r->object.v == range->object.v && r->first < range->end && range->first < r->end)
            return true;
    }
    return false;
}

static bool
is_leased_locked(
    const struct lease_map *m, const struct chunk_range *range, struct generation target)
{
    uint64_t now = clock_monotonic_ms();
    for (size_t i = 0; i < m->count; i++)
        if (now < m->leases[i].expires_ms && conflicts(&m->leases[i], range, target))
            return true;
    return false;
}

int
lease_map_wait(struct lease_map *m, const struct chunk_range *range, struct generation target,
    uint64_t deadline_ms, bool (*is_canceled)(void *argument), void *argument)
{
    int rc = 0;
    lock_take(&m->lock);
    while (rc == 0 && is_leased_locked(m, range, target)) {
        uint64_t now = clock_monotonic_ms();
        if (is_canceled && is_canceled(argument))
            rc = -ECANCELED;
        else if (now >= deadline_ms)
            rc = -ETIMEDOUT;
        else
            condition_wait_until(
                &m->released, &m->lock, deadline_ms - now < POLL_MS ? deadline_ms : now + POLL_MS);
    }
    lock_release(&m->lock);
    return rc;
}
