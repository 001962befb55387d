// SPDX-License-Identifier: Apache-2.0
// The limits on reads from the store that all mounts of a tenant in a storage root share: bytes a
// second, and requests at once, with the shares of the classes of calls. The rules are those of
// store/read_limiter.h, over all the mounts: this is the part of their state that they share.
//
// ROOT/reads is memory of the daemons, like ROOT/quota, and each maps it. Entry n belongs to slot n
// of the account (quota_file.h): the process that holds the slot writes its counters. The limits of
// a tenant are in the entries of all its places; the bucket of bytes and the turns of its classes
// are in the first of them. No lock is held while a request is decided on:
//
//     bytes      `sold_us` is the moment up to which the rate has been given away. A request may
//                begin when that has passed, and moves it on by its bytes, in one step. So of two
//                that begin at once one sees the other, and the limit is never passed. A process
//                that is killed has taken bytes that it did not get: time passes over them
//     requests   a process counts itself first and looks at the sum afterwards, and takes itself
//                back when that is too large. What dead processes have left is forgotten when a
//                request is refused
//     turns      a process says in each class that it waits, and when it last said so. The class
//                goes next that has had the least for its weight, and in it the mount that has had
//                the least. A process that is stopped is passed over after a moment
//
// Any thread. tenant_rate_set, tenant_rate_get and tenant_rate_is_limited take NULL: there are no
// limits.
#ifndef CKPTFS_QUOTA_TENANT_RATE_H
#define CKPTFS_QUOTA_TENANT_RATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "quota/storage_quota.h"

#define TENANT_RATE_CLASSES 6u

struct tenant_rate;

struct tenant_rate_limits {
    uint64_t bytes;    // a second; 0: no limit
    uint64_t requests; // at once; 0: no limit
};

// Makes ROOT/reads. Before the account counts what is in the root. An obstacle shows later.
void tenant_rate_make_file(const char *root);
// Takes the entry of the place and the tenant that the quota has. `background` is the set of
// classes (bits) that leave one request to the others. NULL when that does not work, which is
// logged: the mount then shares no limits.
struct tenant_rate *tenant_rate_open(struct storage_quota *q, uint32_t background);
// Before the quota is closed. NULL is fine.
void tenant_rate_close(struct tenant_rate *r);

// The limits of the tenant, for all its places in the root. They stay until the root has no place
// of the tenant any more.
void tenant_rate_set(struct tenant_rate *r, const struct tenant_rate_limits *limits);
void tenant_rate_get(const struct tenant_rate *r, struct tenant_rate_limits *limits_out);
bool tenant_rate_is_limited(const struct tenant_rate *r);

// Whether requests of the class wait in this process; to be said again at each look.
void tenant_rate_note_waiting(struct tenant_rate *r, unsigned class, bool waits, uint64_t now_ms);
// The virtual time of the class's next request: the lowest one goes next.
uint64_t tenant_rate_turn(const struct tenant_rate *r, unsigned class);
// Whether one more request of the class may be under way.
bool tenant_rate_has_room(struct tenant_rate *r, unsigned class, uint64_t now_ms);

// A request of the class, which moves `bytes`, wants to begin. 0: it begins now, and its class's
// turn moves on by `cost`. Else when to ask again (a time as now_ms).
MUST_CHECK uint64_t tenant_rate_begin(
    struct tenant_rate *r, unsigned class, uint64_t bytes, uint64_t cost, uint64_t now_ms);
// A request that tenant_rate_begin let begin with `bytes` is done and moved `moved`.
void tenant_rate_end(
    struct tenant_rate *r, unsigned class, uint64_t bytes, uint64_t moved, uint64_t now_ms);
// Counts bytes that did not wait.
void tenant_rate_charge(struct tenant_rate *r, uint64_t bytes, uint64_t now_ms);

#endif
