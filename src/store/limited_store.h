// SPDX-License-Identifier: Apache-2.0
// A store that makes calls wait for their turn under limits (read_limiter.h): one limiter for GETs,
// one for PUTs. It wraps the store that retries, so a call waits once, and holds its place while it
// is tried again.
//
// These wait: GETs whose call is `paced` (bytes of files) or a job's or a cold scan's, and PUTs of
// uploads and jobs. Others go at once, and their bytes count: leases and the chain of records must
// not wait for data. HEADs, listings and deletions are not limited. A call that waits ends with
// -ECANCELED within 50 ms once its cancel function says so, and with -ETIMEDOUT at its deadline.
//
// The limits are those of this store, so of one mount. A share adds the limits on reads that all
// mounts of the tenant in the storage root have together (quota/tenant_rate.h).
#ifndef CKPTFS_STORE_LIMITED_STORE_H
#define CKPTFS_STORE_LIMITED_STORE_H

#include "store/read_limiter.h"
#include "store/remote_store.h"

struct remote_limits {
    struct limiter_rates reads;
    struct limiter_rates uploads;
    struct limiter_rates tenant_reads; // of the share, which the volume sets
};

struct remote_limits_numbers {
    uint64_t reads[LIMITER_CLASSES];      // that wait for their turn when there is a limit
    uint64_t read_bytes[LIMITER_CLASSES]; // of all reads, by class
    uint64_t waits, wait_ms;              // calls that had to wait, and how long in all
    uint64_t waiting;                     // at this moment
    uint64_t refused;                     // deadlines that passed in the queue
};

// Without limits. Closing it closes the inner store, too.
struct remote_store *limited_store_wrap(struct remote_store *inner);
// For the results of limited_store_wrap. Any thread.
void limited_store_set(struct remote_store *s, const struct remote_limits *limits);
void limited_store_get(struct remote_store *s, struct remote_limits *limits_out);
// From now on with the share, which the caller closes after it has taken it away (NULL).
void limited_store_set_share(struct remote_store *s, struct tenant_rate *share);
void limited_store_numbers(struct remote_store *s, struct remote_limits_numbers *numbers_out);

#endif
