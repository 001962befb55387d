// SPDX-License-Identifier: Apache-2.0
// LeaseMap: which chunks a checkpoint in flight works on. The fold leases the chunks of its plan
// until its generation is recorded or given up; a publication leases all chunks that changed up to
// its generation until it has ended. A truncation waits until no checkpoint has a lease on the
// chunks that it removes. A lease that has run out does not count any more: the checkpoint that had
// it must not record its result. Any thread.
#ifndef CKPTFS_CHECKPOINT_LEASE_MAP_H
#define CKPTFS_CHECKPOINT_LEASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/types.h"

struct lease_map;

// Chunks [first, end) of an object; object 0: any chunk that changed in a generation up to
// `generation`.
struct chunk_range {
    struct object_id object;
    uint64_t first, end;
};

struct lease_map *lease_map_new(void);
// No checkpoint may have a lease any more.
void lease_map_free(struct lease_map *m);

// Leases the ranges to a holder (a number of the caller's, not 0, that has no lease) for
// `generation`, until lease_map_release or `ttl_ms` from now.
void lease_map_take(struct lease_map *m, uint64_t holder, struct generation generation,
    const struct chunk_range *ranges, size_t count, uint64_t ttl_ms);
// Makes the holder's leases good for `ttl_ms` from now. False: they had run out.
MUST_CHECK bool lease_map_renew(struct lease_map *m, uint64_t holder, uint64_t ttl_ms);
void lease_map_release(struct lease_map *m, uint64_t holder);

// Waits until no checkpoint has a lease on the range, or on a generation that is at least `target`
// (0: no generation matters). 0; -ETIMEDOUT at `deadline_ms` (clock_monotonic_ms); -ECANCELED when
// `is_canceled` says so, which is polled.
MUST_CHECK int lease_map_wait(struct lease_map *m, const struct chunk_range *range,
    struct generation target, uint64_t deadline_ms, bool (*is_canceled)(void *argument),
    void *argument);

#endif
