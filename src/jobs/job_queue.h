// SPDX-License-Identifier: Apache-2.0
// The durable queue of a db's jobs, and the worker threads that carry them out. A job is a record
// of the manifest (`job_queue`): it outlives the process, and the queue that is opened next goes on
// with it.
//
//     Pending ----> InFlight ----> Completed
//        ^             |---------> Failed      the handler's error, or it was cancelled
//        '-------------'  a more urgent job came, the try failed and is to be repeated, the job
//                         parks until a later time, the queue was closed, or the process died
//
// One queue of a db is open at a time: its process holds the lock of the volume. So a job that is
// InFlight when a queue is opened belongs to a process that has died, and the queue takes it over
// at once. The lease in the record tells other processes how long ago the worker renewed it.
//
// A kind of jobs belongs to a lane, and a lane has one worker. So jobs of one lane exclude each
// other, jobs of different lanes run side by side, and so many lanes, so many threads:
//
//     lane     its jobs
//     SHORT    take seconds or minutes, and somebody or something waits for them
//     FETCH    bring data from the store to this host
//     LONG     read or copy what is in the store, perhaps for hours
//
// What must not run beside something else is in its lane, or has a rule of its own
// (doc/jobs.md, Lanes).
//
// In a lane the job with the highest priority runs, and then the one with the lowest id. A more
// urgent job interrupts a job of a lower priority, which goes on later from its marker. But a job
// that has been ready for `patience_ms` without a run goes next, and for as long nothing interrupts
// it: so each job gets on, however many more urgent ones come. Handlers must bear being run again
// from any of their steps.
//
// All functions may be called from any thread, but for job_queue_open and job_queue_close.
#ifndef CKPTFS_JOBS_JOB_QUEUE_H
#define CKPTFS_JOBS_JOB_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "jobs/job_kinds.h"
#include "manifest/manifest.h"

struct job_queue;
struct job_worker;

enum job_priority {
    JOB_PRIORITY_IDLE = 5,    // uses time that nothing else wants
    JOB_PRIORITY_SWEEP = 10,  // looks for objects that are not needed
    JOB_PRIORITY_NORMAL = 20, // fetches or checks data
    JOB_PRIORITY_ASKED = 30,  // a user waits for it
    JOB_PRIORITY_URGENT = 40, // holds up a part of the volume while it waits
};

enum job_lane { JOB_LANE_SHORT, JOB_LANE_FETCH, JOB_LANE_LONG, JOB_LANES };

// One run of a job, as its handler sees it. The record is the handler's to read.
struct job_run {
    const struct job_record *job;
    struct job_queue *queue;
    struct job_worker *worker;
    // For the user: the cause when the job fails, else a report. The record keeps the first line.
    struct buffer *text;
    uint64_t park_ms; // job_park
};

// Carries a job out. 0: it is completed; JOB_PARKED: it is run again later, see job_park; else a
// negative errno. Runs in its lane's thread with no locks held. When job_is_interrupted says so
// it ends as soon as it can; the result does not count then, unless it is 0 or JOB_PARKED.
#define JOB_PARKED 1
typedef int job_handler(void *argument, struct job_run *run);

struct job_handler_entry {
    enum job_kind kind;
    enum job_lane lane;
    job_handler *run;
    // Whether the worker repeats a try that failed with this error; NULL: never.
    bool (*is_passing)(int error);
    uint32_t tries_max; // 0: as often as it takes
    // A job has failed for good or was cancelled, perhaps while it waited: what its runs keep for
    // the next one can go. Called with no locks held, by the lane's thread or by the one that
    // cancels. A process that dies may have called it for a job that the next process goes on
    // with. NULL: nothing is kept.
    void (*failed)(void *argument, const struct job_record *job);
};

struct job_queue_options {
    struct manifest *manifest;
    struct db_id db;
    const struct job_handler_entry *handlers; // must live as long as the queue
    size_t handler_count;
    void *argument;                // of the handlers
    void (*start)(void *argument); // runs first in each worker's thread; may be NULL
    uint64_t retry_ms;    // pause after the first failed try, doubled each time up to 64 times that
    uint64_t patience_ms; // 0: ten minutes
    uint32_t kept;        // so many jobs that have ended stay in the table; 0: 64
};

// Reads the table and starts the workers of the lanes that have kinds. 0 or -errno.
MUST_CHECK int job_queue_open(
    const struct job_queue_options *options, struct job_queue **queue_out);
// Interrupts the jobs that run, which stay for the next queue, and waits for the workers.
void job_queue_close(struct job_queue *q);

// Puts a job into the queue, durably. With a token that is not zero, a job that was put in with the
// same token is found again, also when it has ended: submitting twice is submitting once. 0 and the
// job's id; -EEXIST and the id of the unfinished job with the same kind and key; -EROFS while the
// queue is being closed; or the manifest's error.
MUST_CHECK int job_queue_submit(struct job_queue *q, enum job_kind kind, const void *parameters,
    enum job_priority priority, const struct uuid *token, uint64_t *id_out);

// Asks for the end of a job. One that waits is Failed with -ECANCELED when this returns, one that
// runs soon after. 0; -ENOENT: there is no such job; -EALREADY: it has ended; -EBUSY: this queue
// does not carry out its kind; or the manifest's error.
MUST_CHECK int job_queue_cancel(struct job_queue *q, uint64_t id);

// Ends the pause of a job that parks or waits for its next try, and raises its priority to this one
// until it has run. A job that runs, or waits for the worker already, runs no more often for it. 0,
// or -ENOENT: no unfinished job of this queue has the id.
MUST_CHECK int job_queue_wake(struct job_queue *q, uint64_t id, enum job_priority priority);

// The job with this id, or with the lowest id above it with `next`: its record in the table, with
// the present progress for one that runs. Payload and extension are NULL in it. `text_out` (may
// be NULL) gets the text of its last run in this process. 0 or -ENOENT.
MUST_CHECK int job_queue_look(struct job_queue *q, uint64_t id, bool next,
    struct job_record *job_out, struct buffer *text_out);

// The job with this id as it is in the table, for job_read_parameters: its payload lies in
// `payload_out`. 0 or -ENOENT.
MUST_CHECK int job_queue_read(
    struct job_queue *q, uint64_t id, struct job_record *job_out, struct buffer *payload_out);

// Unfinished jobs.
unsigned job_queue_depth(struct job_queue *q);

// ---- for handlers -------------------------------------------------------------------------------

// How far the run has come: `stage` in a word or two, units of the kind's own. Stays in memory and
// is written to the table now and then.
void job_progress(struct job_run *run, const char *stage, uint64_t done, uint64_t total);
// The same with a marker, at most JOB_MARKER_BYTES_MAX, from which a later run can go on; durable
// when this returns. 0 or -errno.
MUST_CHECK int job_mark(struct job_run *run, const void *marker, size_t length);
// Replaces the parameters of the job, which keep its key: a part of them may be what it has found.
// They are durable after the next job_mark, and at the end of the run.
void job_set_parameters(struct job_run *run, const void *parameters);
// The job has done all that it can do now: it goes back to Pending, leaves the worker to others and
// is run again in `pause_ms`, or when job_queue_wake says so. Its tries are counted anew. To be
// returned by the handler: JOB_PARKED.
int job_park(struct job_run *run, const char *stage, uint64_t pause_ms);
// Whether the run is to end. For struct remote_call: the argument is the run.
bool job_is_interrupted(void *run);

#endif
