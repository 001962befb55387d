// SPDX-License-Identifier: Apache-2.0
// The limits of one call to the store. The thread that begins an operation makes one, and passes it
// down unchanged, through volume, page store and chunk reader to the backend.
#ifndef CKPTFS_STORE_REMOTE_CALL_H
#define CKPTFS_STORE_REMOTE_CALL_H

#include <stdbool.h>
#include <stdint.h>

#include "store/fetch_options.h"

struct quota_job;

// The purpose of a call. Limiters let the last three wait for the others.
enum remote_class {
    REMOTE_FOREGROUND, // a program waits for it, or it keeps a lease or the chain of records alive
    REMOTE_READ_AHEAD, // a reader will probably need it soon, and waits if it comes first
    REMOTE_UPLOAD,     // blobs of a checkpoint
    REMOTE_JOB,        // work on the bucket that an operator asked for
    REMOTE_COLD_SCAN,  // data for one read only
};

// Zero-initialise for a foreground call without limits.
struct remote_call {
    uint64_t deadline_ms; // on clock_monotonic_ms(); 0: the default of the layer below
    bool (*is_canceled)(void *argument); // polled while the call waits; may be NULL
    void *argument;
    enum remote_class class;
    bool again;      // of readers: the repetition of a call with local_only
    bool random;     // of readers: nothing says that the reader wants the neighbours, too
    bool local_only; // of readers of chunks: -EREMOTE instead of asking the store
    bool no_keep;    // of readers of chunks: bytes from the store do not go to hot_cache
    bool paced;      // bytes of files: they wait for their turn under the limits of the store
    struct fetch_options fetch; // of readers
    struct quota_job *budget; // of jobs: it pays for what goes to hot_cache or scratch; may be NULL
    bool fail_fast; // -EPROTO ends a series of tries, for callers that cannot go on without
};

static inline bool
remote_call_is_canceled(const struct remote_call *call)
{
    return call->is_canceled && call->is_canceled(call->argument);
}

static inline bool
remote_call_gives_way(const struct remote_call *call)
{
    return call->class >= REMOTE_UPLOAD;
}

#endif
