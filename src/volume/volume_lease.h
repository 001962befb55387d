// SPDX-License-Identifier: Apache-2.0
// When the owner of a volume renews its lease, and for how long. The owner has to renew a lease
// before it runs out, so a short lease costs more requests. While the volume is in use the lease is
// short (lease_ttl), so that another host can soon follow an owner that died at work; while the
// volume is idle it is long.
//
//     in use    written for `ttl`, renewed each third of it        1 PUT, 1 HEAD
//     idle      written for VOLUME_LEASE_IDLE_MS, renewed each     1 PUT, 1 HEAD, 1 GET
//               half of it
//     from idle to use: renewed at the next beat, so that an owner that was displaced meanwhile
//     finds out soon after it has something to lose
//
// A volume is in use if it had activity since the last renewal. Safety does not depend on any of
// this, but on the conditional creation of records. For one thread; the caller passes the time
// (milliseconds of clock_monotonic_ms()).
#ifndef CKPTFS_VOLUME_VOLUME_LEASE_H
#define CKPTFS_VOLUME_VOLUME_LEASE_H

#include "base/compiler.h"
#include "remote/remote_manifest.h"

// Another host waits this long for an owner that died idle, unless it takes over.
#define VOLUME_LEASE_IDLE_MS (3600u * 1000)
// After this many renewals (a day) an idle owner asks for a look at the whole chain.
#define VOLUME_LEASE_WALK_RENEWALS 48u

struct volume_lease {
    uint64_t ttl_ms;
    uint64_t next_ms;
    uint64_t activity; // as of the last renewal
    unsigned idle_renewals;
    bool idle; // the store has the long lease
    // No host takes the lease for one that has run out before this time, with something to spare.
    uint64_t good_ms;
};

// Begins after the claim has written the lease for `ttl_ms`. `activity` is a number that changes
// whenever the volume is changed or published.
void volume_lease_begin(
    struct volume_lease *l, uint64_t ttl_ms, uint64_t activity, uint64_t now_ms);

// Whether the lease is to be renewed now.
bool volume_lease_is_due(const struct volume_lease *l, uint64_t activity, uint64_t now_ms);

// Renews it, and looks whether another writer has written to the chain; for an idle volume also
// whether its newest record is still there. 0: all is well; 1: the caller has to make the publisher
// look at the chain; or the store's error: the next try is due after a third of the ttl.
MUST_CHECK int volume_lease_renew(struct volume_lease *l, const struct remote_place *place,
    const struct db_record *db, uint64_t activity, uint64_t now_ms);

#endif
