// SPDX-License-Identifier: Apache-2.0
// The RemoteReadLimiter's rules: bytes a second, and requests at once, shared by the classes of
// calls (enum remote_class). Pure: the caller brings the time and the lock; limited_store.h waits.
//
// Bytes come from a token bucket. A request may begin while there is a token, takes all its bytes
// at once, and so may leave a debt that the next ones wait for: over any time t all requests take
// at most rate * t + burst + one request. The burst is what the rate gives in a quarter of a
// second.
//
// Between classes that wait the one goes next that has had the least for its weight, where each
// request costs its bytes and LIMITER_REQUEST_COST. So each class that waits gets its share, and
// none waits for ever; a class that has not waited has saved nothing. Within a class: in order.
// Of several requests at once, jobs and cold scans leave one to the other classes.
//
// A limiter may have a share in the limits of its tenant (quota/tenant_rate.h). As long as the
// tenant has limits, a request must also be within those, and the turns are those that all mounts
// of the tenant have in common.
#ifndef CKPTFS_STORE_READ_LIMITER_H
#define CKPTFS_STORE_READ_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "quota/tenant_rate.h"
#include "store/remote_call.h"

#define LIMITER_CLASSES      (REMOTE_COLD_SCAN + 1u)
#define LIMITER_REQUEST_COST (64u << 10)
#define LIMITER_RATE_MIN     (64u << 10) // bytes a second; a lower rate is taken for this one

struct limiter_rates {
    uint64_t bytes;    // a second; 0: no limit
    uint64_t requests; // at once; 0: no limit
};

// One request, from read_limiter_put to read_limiter_end or read_limiter_leave.
struct limiter_request {
    struct list_node node;
    enum remote_class class;
    uint64_t bytes; // that it takes; 0 when it does not know
    bool granted;   // it may begin
    unsigned share; // under which number of the limiter it counts for the tenant; 0: it does not
};

struct read_limiter {
    struct limiter_rates rates;
    int64_t tokens;      // thousandths of a byte; negative: a debt
    uint64_t counted_ms; // when `tokens` was right
    uint64_t in_flight;
    uint64_t background;       // of them jobs and cold scans
    uint64_t turn;             // virtual time: that of the request that went last
    struct tenant_rate *share; // or NULL
    unsigned share_number;     // of the share: each one has another
    struct limiter_queue {
        struct list_node waiting;
        uint64_t turn; // virtual time of its next request
    } queues[LIMITER_CLASSES];
};

// Without limits.
void read_limiter_init(struct read_limiter *l, uint64_t now_ms);
void read_limiter_set(struct read_limiter *l, const struct limiter_rates *rates, uint64_t now_ms);
// Jobs and cold scans, as the set of classes that leave one request to others.
#define LIMITER_BACKGROUND (1u << REMOTE_JOB | 1u << REMOTE_COLD_SCAN)
// From now on with this share, or without (NULL). Requests that are under way count no more for the
// one before.
void read_limiter_set_share(struct read_limiter *l, struct tenant_rate *share);

// The weight of a class: its share is that of the sum of all classes that wait.
unsigned read_limiter_weight(enum remote_class class);

// Queues the request. It may be granted at once.
void read_limiter_put(struct read_limiter *l, struct limiter_request *x, uint64_t now_ms);
// Grants all requests that may begin. Returns when the next one may, as far as bytes hold it up;
// UINT64_MAX: not before another one ends.
uint64_t read_limiter_grant(struct read_limiter *l, uint64_t now_ms);
// Gives up a request that was not granted.
void read_limiter_leave(struct read_limiter *l, struct limiter_request *x);
// A granted request is done, and moved so many bytes. Others may begin: call read_limiter_grant.
void read_limiter_end(
    struct read_limiter *l, const struct limiter_request *x, uint64_t moved, uint64_t now_ms);
// Counts bytes that did not wait.
void read_limiter_charge(struct read_limiter *l, uint64_t bytes, uint64_t now_ms);

#endif
