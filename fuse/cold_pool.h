// SPDX-License-Identifier: Apache-2.0
// Jobs that wait for the store, and the threads that do them. Few threads wait at a time; further
// jobs wait in a queue without a thread, with a deadline, and can leave it at any moment. So an
// outage of the store costs its readers some bytes each, and other requests nothing.
//
// States of a job: new -> queued -> running -> ended. The pool ends a queued job itself when it is
// interrupted, when its time has passed, or when the pool stops (give_up), and else hands it to a
// thread (run). The pool calls exactly one of the two, once; the callee owns the job from then on.
//
// A job has `patience_ms` from when it was put. As long as other jobs succeed, the store answers
// and the job only waits for its turn: its time then counts from the last success.
#ifndef CKPTFS_FUSE_COLD_POOL_H
#define CKPTFS_FUSE_COLD_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "platform/lock.h"
#include "platform/thread.h"

// A job takes about 300 bytes with the request that it is part of, so at most 20 MB. A thread keeps
// memory for one answer, 1 MiB at most.
#define COLD_JOBS_MAX    65536u
#define COLD_THREADS_MAX 16u
#define SCAN_THREADS_MAX 8u // for cold scans

struct cold_pool;

enum cold_state { COLD_NEW, COLD_QUEUED, COLD_RUNNING, COLD_ENDED };

// Embedded in the pool user's description of the work. Zero-initialise.
struct cold_job {
    struct list_node node;
    struct cold_pool *pool;
    enum cold_state state;
    uint64_t deadline_ms; // on clock_monotonic_ms(); final when the job runs
    atomic_bool interrupted;
};

struct cold_pool_ops {
    // Runs in a thread of the pool; waits until `deadline_ms` at most, and ends early once
    // cold_job_is_canceled. Returns whether the store answered.
    bool (*run)(struct cold_job *job);
    // Runs in any thread, with no locks held. -EINTR, -ETIMEDOUT, -ENOTCONN (the pool has stopped),
    // -EAGAIN (too many jobs, or the system has no thread).
    void (*give_up)(struct cold_job *job, int result);
};

struct cold_pool {
    const struct cold_pool_ops *ops;
    uint64_t patience_ms;
    unsigned threads_max;
    atomic_bool stopping;     // changes under the lock
    struct lock lock;         // "cold_pool": protects all below, and the state of jobs
    struct condition work;    // `queue`, for the threads
    struct condition changed; // `queue`, for the reaper
    struct list_node queue;   // of cold_job, in the order they were put
    unsigned queued;
    unsigned idle;
    uint64_t success_ms; // when a job last succeeded
    struct thread threads[COLD_THREADS_MAX];
    unsigned thread_count;
    struct thread reaper; // ends jobs whose time has passed
    bool reaping;         // it has been started
};

// The pool starts threads when it needs them, `threads_max` at most.
void cold_pool_init(struct cold_pool *p, const struct cold_pool_ops *ops, unsigned threads_max,
    uint64_t patience_ms);
void cold_pool_destroy(struct cold_pool *p); // must have been stopped
// Gives up all jobs that are queued, cancels those that run and waits for them. Jobs that are put
// later are given up at once. May be called again.
void cold_pool_stop(struct cold_pool *p);

// Any thread. The job may have ended before this returns.
void cold_pool_put(struct cold_pool *p, struct cold_job *job);
// The caller does not need the job's result any more: ends it if it is queued, cancels it if it
// runs, and if it has not been put yet, makes cold_pool_put end it. The job must still exist: the
// callee that ends it has to keep it until no call of this is under way.
void cold_pool_interrupt(struct cold_pool *p, struct cold_job *job);
// For the job's remote_call: takes no lock.
bool cold_job_is_canceled(void *job);

#endif
