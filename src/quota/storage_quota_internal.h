// SPDX-License-Identifier: Apache-2.0
// What storage_quota.c and quota_job.c share: the account of a process, and the limits that hold.
#ifndef CKPTFS_QUOTA_STORAGE_QUOTA_INTERNAL_H
#define CKPTFS_QUOTA_STORAGE_QUOTA_INTERNAL_H

#include <stdatomic.h>

#include "quota/quota_file.h"
#include "quota/storage_quota.h"

struct storage_quota {
    struct quota_file file;
    char *root;
    _Atomic uint64_t limit;
    _Atomic uint64_t exhausted;
    _Atomic uint64_t job_share; // in per cent
    _Atomic uint64_t job_refusals;
    quota_make_room *make_room;
    void *argument;
};

struct quota_sums {
    uint64_t used, promised, jobs;
};

// A limit that is set, and what counts for it.
struct quota_scope {
    uint64_t limit;
    struct quota_sums sums;
};
#define QUOTA_SCOPES 3u // the place, its tenant, the root

// Returns how many limits there are.
unsigned quota_scopes(const struct storage_quota *q, struct quota_scope out[QUOTA_SCOPES]);

void quota_count_add(uint64_t *counter, uint64_t bytes);
// Not below zero.
void quota_count_take(uint64_t *counter, uint64_t bytes);

// The part of a limit that jobs may fill.
uint64_t quota_job_share(const struct storage_quota *q, uint64_t limit);

#endif
