// SPDX-License-Identifier: Apache-2.0
// When the owner of a volume renews its lease, and for how long. A lease has to be renewed before
// it runs out, so its price is set by its length: while the volume is in use it is short
// (lease_ttl), so that another host can soon follow an owner that died at work; while nothing
// happens it is long.
//
//     in use    written for `ttl`, renewed each third of it        1 PUT, 1 HEAD
//     idle      written for VOLUME_LEASE_IDLE_MS, renewed each     1 PUT, 1 HEAD, 1 GET
//               half of it
//     from idle to use: renewed at the next beat, so that an owner that was displaced meanwhile
//     finds out when it has something to lose
//
// In use is a volume with activity since the last renewal. Safety does not rest on any of this, but
// on the conditional creation of records. One thread; time comes from the caller.
#ifndef CKPTFS_VOLUME_VOLUME_LEASE_H
#define CKPTFS_VOLUME_VOLUME_LEASE_H

#include "base/compiler.h"
#include "remote/remote_manifest.h"

// So long another host waits for an owner that died idle, unless it takes over.
#define VOLUME_LEASE_IDLE_MS (3600u * 1000)
// An idle owner has all of the chain looked at after so many renewals: a day.
#define VOLUME_LEASE_WALK_RENEWALS 48u

struct volume_lease {
    uint64_t ttl_ms;
    uint64_t next_ms;
    uint64_t activity; // as of the last renewal
    unsigned idle_renewals;
    bool idle; // what stands in the store is the long one
};

// The claim has just written the lease for `ttl_ms`. `activity` is a number that changes whenever
// the volume is changed or published.
void volume_lease_begin(
    struct volume_lease *l, uint64_t ttl_ms, uint64_t activity, uint64_t now_ms);

// Whether the lease is to be renewed now.
bool volume_lease_is_due(const struct volume_lease *l, uint64_t activity, uint64_t now_ms);

// Renews it, and looks whether anybody else has written to the chain, and of an idle volume also
// whether its newest record is still there. 0: all is well; 1: somebody has to look at the chain;
// or the store's error: it is tried again after a third of the ttl.
MUST_CHECK int volume_lease_renew(struct volume_lease *l, const struct remote_place *place,
    const struct db_record *db, uint64_t activity, uint64_t now_ms);

#endif
