// SPDX-License-Identifier: Apache-2.0
// Fetching: brings the images of one file, or of all files, from the store into hot_cache, so that
// reading them needs no store. The work of the job DownloadCheckpoint, and of `ckptctl hydrate`.
//
// Fetching a second time costs a look at the local files, so a job that was interrupted just calls
// it again. The bytes are kept as read-ahead keeps them: in partial copies, and verified by their
// readers. Data that changes meanwhile is here anyway.
#ifndef CKPTFS_VOLUME_VOLUME_FETCH_H
#define CKPTFS_VOLUME_VOLUME_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "jobs/job_queue.h"

struct volume;

struct volume_fetch {
    uint64_t inode;                      // of the file; 0: all files of the local generation
    bool (*is_canceled)(void *argument); // polled, also while the store is asked; may be NULL
    // Called by the thread that calls volume_fetch; may be NULL.
    void (*progress)(void *argument, uint64_t done_bytes, uint64_t total_bytes);
    void *argument; // of both
};

struct volume_fetched {
    uint64_t total_bytes;   // of the images
    uint64_t done_bytes;    // that were here, or came
    bool budget_is_used_up; // -EDQUOT because jobs may not take more (quota_job.h)
};

// Fetches with a few threads at once, and waits for them. Under a quota a file pushes colder parts
// of others out, but is not fetched when it is larger than the budget of jobs; fetching all files
// uses free room only and pushes nothing out. 0, also for a file without images; -ECANCELED;
// -EDQUOT: there is no more room, what has come stays; or the error of store or manifest. For a
// volume that is open, in any thread that holds no locks.
MUST_CHECK int volume_fetch(
    struct volume *v, const struct volume_fetch *what, struct volume_fetched *fetched_out);

// Says why there was -EDQUOT.
void volume_say_no_room(
    const struct volume *v, const struct volume_fetched *fetched, struct buffer *out);

// The handler of JOB_HYDRATE_FILES, and what it does when such a job has failed; the argument is
// the volume.
int volume_hydrate_run(void *argument, struct job_run *run);
void volume_hydrate_failed(void *argument, const struct job_record *job);

// ---- kept files (volume_keep.c) -----------------------------------------------------------------

// Keeps the images of a file (0: of all files) in hot_cache until volume_unkeep, or until the
// volume is closed, also those that later checkpoints make: eviction passes them over. They count
// for the quota. -ENOSPC: too many files are kept.
//
// The file is kept for a job, also while that is interrupted, until volume_end_keep says whether it
// stays kept. One that is kept without a job stays so. `job` 0: without a job.
MUST_CHECK int volume_keep(struct volume *v, uint64_t inode, uint64_t job);
// The job is done (`stays`) or has failed. Nothing happens when the file is not kept for this job:
// it was kept before, or a user has ended that.
void volume_end_keep(struct volume *v, uint64_t inode, uint64_t job, bool stays);
// Ends what volume_keep with the same inode has begun.
void volume_unkeep(struct volume *v, uint64_t inode);
void volume_unkeep_all(struct volume *v);
// Keeps what the unfinished jobs of an earlier process are to keep, and nothing else. Before any
// thread can evict.
void volume_keep_for_jobs(struct volume *v);

#endif
