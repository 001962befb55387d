// SPDX-License-Identifier: Apache-2.0
// Locks and conditions. A lock has a name and a rank. Debug builds assert that a thread takes locks
// in rising rank only (doc/locking.md has the order) and releases only locks that it holds.
#ifndef CKPTFS_PLATFORM_LOCK_H
#define CKPTFS_PLATFORM_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

// The lock order: a thread that holds one of these may take only those further down. Gaps are left
// for locks of tests.
enum lock_rank {
    LOCK_RANK_CONTROL = 10,     // housekeeping, operators' commands, the pin of a reader
    LOCK_RANK_JOBS = 15,        // job_queue: jobs and their records
    LOCK_RANK_CHECKPOINT = 20,  // checkpoint_thread: triggers and results
    LOCK_RANK_PUBLICATION = 25, // publication: state of the attempt
    LOCK_RANK_FETCH = 30,       // chunk_reader: fetches in flight
    LOCK_RANK_VOLUME = 40,      // volume: layers, namespace, LSN order
    LOCK_RANK_CHUNK_MAP = 50,   // chunk_map: cached entries and indexes
    LOCK_RANK_PAGE_CACHE = 60,  // page_cache: clean pages
    LOCK_RANK_WAL = 70,         // wal: log tail and waiters
    LOCK_RANK_MANIFEST = 80,    // manifest_writer: queue of batches
    LOCK_RANK_STORE = 90,       // stores: connections, credentials, limits
    LOCK_RANK_FUSE = 95,        // fuse: requests answered later, tickets, seeks, the mount
    LOCK_RANK_PLATFORM = 100,   // flush_pace, locks on a waiter's stack
    LOCK_RANK_WORKERS = 110,    // workers: roles; a thread may hold anything else when it takes it
    LOCK_RANK_PATH = 115,       // path: the list of held directories; likewise
    LOCK_RANK_LOG = 120,        // log: limits and queue; a thread may hold anything else
};

struct lock {
    pthread_mutex_t mutex;
    const char *name;
    enum lock_rank rank;
    pthread_t owner;
    bool held;
};

struct condition {
    pthread_cond_t cond;
};

void lock_init(struct lock *l, const char *name, enum lock_rank rank);
void lock_destroy(struct lock *l);
void lock_take(struct lock *l);
void lock_release(struct lock *l);
// Whether the calling thread holds it; for asserts. (Reads of `held` by other threads are benign:
// only the owner can see its own id there.)
bool lock_is_mine(const struct lock *l);

void condition_init(struct condition *c);
void condition_destroy(struct condition *c);
void condition_wait(struct condition *c, struct lock *l);
// Waits until signalled or until `deadline_ms` on clock_monotonic_ms(); false when it timed out.
bool condition_wait_until(struct condition *c, struct lock *l, uint64_t deadline_ms);
void condition_signal(struct condition *c);
void condition_broadcast(struct condition *c);

#endif
