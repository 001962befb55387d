// SPDX-License-Identifier: Apache-2.0
#include "jobs/job_queue.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/lock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "platform/thread.h"

#define UNFINISHED_MAX 4096u
#define KEPT_DEFAULT   64u
#define TEXTS_KEPT     16u
// The worker writes progress to the table so often, and each time renews a lease of that length.
#define PROGRESS_INTERVAL_MS 5000u
#define LEASE_MS             60000u
#define RETRY_DOUBLINGS      6u
// After the table could not be changed.
#define TABLE_RETRY_MS 1000u
// The worker looks at the clock of the day so often while jobs wait for a time: it may have been
// set, or the machine may have slept.
#define CLOCK_LOOK_MS 60000u

// An unfinished job that the queue carries out. The record's payload and extension are its own.
struct queued_job {
    struct job_record record;
    const struct job_handler_entry *handler;
    uint64_t ready_ms;    // monotonic: no run before; 0: at once
    uint8_t own_priority; // without that of job_queue_wake
};

struct job_text {
    uint64_t id; // 0: free
    struct buffer text;
};

struct job_queue {
    struct job_queue_options options;
    struct thread thread;

    struct lock lock; // "jobs": protects all below
    struct condition work;
    struct queued_job **jobs; // in order of their ids
    size_t count;
    uint64_t *ended; // ids of the jobs in the table that have ended, in order of their ends
    size_t ended_count;
    struct queued_job *running; // one of `jobs`, or NULL
    uint64_t progress_written_ms;
    struct job_text texts[TEXTS_KEPT]; // a ring
    unsigned next_text;
    bool stopping;
    atomic_bool interrupted; // the running job is to end: any thread may read it
};

// ---- records ------------------------------------------------------------------------------------

static bool
is_unfinished(const struct job_record *job)
{
    return job->state == JOB_PENDING || job->state == JOB_IN_FLIGHT;
}

static const struct job_handler_entry *
find_handler(const struct job_queue *q, enum job_kind kind)
{
    for (size_t i = 0; i < q->options.handler_count; i++)
        if (q->options.handlers[i].kind == kind)
            return &q->options.handlers[i];
    return NULL;
}

static const uint8_t *
copy_bytes(const uint8_t *p, size_t n)
{
    return n > 0 ? memcpy(memory_alloc(n), p, n) : NULL;
}

static struct queued_job *
new_queued(const struct job_queue *q, const struct job_record *job)
{
    struct queued_job *j = memory_alloc_zero(sizeof(*j));
    j->record = *job;
    j->handler = find_handler(q, job->kind);
    j->own_priority = job->priority;
    j->record.payload = copy_bytes(job->payload, job->payload_length);
    j->record.extension = copy_bytes(job->extension, job->extension_length);
    return j;
}

static void
free_queued(struct queued_job *j)
{
    if (!j)
        return;
    free((void *)(uintptr_t)j->record.payload);
    free((void *)(uintptr_t)j->record.extension);
    free(j);
}

static int
put_record(struct job_queue *q, struct job_record *job, uint64_t remove_id)
{
    struct manifest_batch *b = manifest_batch_new(q->options.db);
    job->updated_ms = clock_wall_ms();
    manifest_batch_put_job(b, job);
    if (remove_id != 0)
        manifest_batch_remove_job(b, remove_id);
    return manifest_submit(q->options.manifest, b, NULL);
}

static void
log_job(const struct job_record *job, const char *event, int error)
{
    const struct job_kind_entry *kind = job_kind_find(job->kind);
    struct log_event e;
    log_begin(&e, error < 0 ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, event);
    log_u64(&e, "job_id", job->id);
    log_string(&e, "kind", kind ? kind->name : "unknown");
    log_u64(&e, "tries", job->tries);
    if (error < 0) {
        log_string(&e, "error", job->cause[0] ? job->cause : strerror(-error));
        log_bool(&e, "retryable", job->retryable);
    }
    log_end(&e);
}

// ---- the queue in memory ------------------------------------------------------------------------

static struct queued_job *
find_locked(struct job_queue *q, uint64_t id)
{
    for (size_t i = 0; i < q->count; i++)
        if (q->jobs[i]->record.id == id)
            return q->jobs[i];
    return NULL;
}

static void
append_locked(struct job_queue *q, struct queued_job *j)
{
    q->jobs = memory_realloc(q->jobs, (q->count + 1) * sizeof(*q->jobs));
    q->jobs[q->count++] = j;
}

static void
take_out_locked(struct job_queue *q, struct queued_job *j)
{
    size_t i = 0;
    while (q->jobs[i] != j)
        i++;
    memmove(&q->jobs[i], &q->jobs[i + 1], (q->count - i - 1) * sizeof(*q->jobs));
    q->count--;
    free_queued(j);
}

static void
append_ended_locked(struct job_queue *q, uint64_t id)
{
    q->ended = memory_realloc(q->ended, (q->ended_count + 1) * sizeof(*q->ended));
    q->ended[q->ended_count++] = id;
}

// The ended job that has to make room for another one; 0: there is room.
static uint64_t
oldest_ended_locked(const struct job_queue *q)
{
    return q->ended_count >= q->options.kept ? q->ended[0] : 0;
}

static void
ended_locked(struct job_queue *q, struct queued_job *j, uint64_t removed)
{
    if (removed != 0) {
        q->ended_count--;
        memmove(q->ended, q->ended + 1, q->ended_count * sizeof(*q->ended));
    }
    append_ended_locked(q, j->record.id);
    take_out_locked(q, j);
}

// The record tells the end of a pause by the clock of the day, for a later process and for users.
// In this process the clock counts that is further: the monotonic one when the other was set back,
// the other one when the machine has slept.
static void
set_pause(struct queued_job *j, uint64_t pause_ms)
{
    j->record.not_before_ms = clock_wall_ms() + pause_ms;
    j->ready_ms = clock_monotonic_ms() + pause_ms;
}

// A pause that another process began is never longer than it was meant to be, whatever the clock
// says.
static void
go_on_with_pause(struct queued_job *j)
{
    const struct job_record *job = &j->record;
    uint64_t now_ms = clock_wall_ms();
    uint64_t whole =
        job->not_before_ms > job->updated_ms ? job->not_before_ms - job->updated_ms : 0;
    uint64_t left = job->not_before_ms > now_ms ? job->not_before_ms - now_ms : 0;
    if (left > 0)
        set_pause(j, left < whole ? left : whole);
}

static bool
is_ready(const struct queued_job *j, uint64_t now_ms)
{
    return j->ready_ms <= now_ms || j->record.not_before_ms <= clock_wall_ms();
}

// The job to run now, or NULL and when to look again (monotonic; 0: when something comes).
static struct queued_job *
choose_locked(struct job_queue *q, uint64_t now_ms, uint64_t *later_ms_out)
{
    struct queued_job *best = NULL;
    *later_ms_out = 0;
    for (size_t i = 0; i < q->count; i++) {
        struct queued_job *j = q->jobs[i];
        if (!is_ready(j, now_ms)) {
            uint64_t look_ms = now_ms + CLOCK_LOOK_MS;
            if (j->ready_ms < look_ms)
                look_ms = j->ready_ms;
            if (*later_ms_out == 0 || look_ms < *later_ms_out)
                *later_ms_out = look_ms;
        } else if (!best || j->record.priority > best->record.priority) {
            best = j;
        }
    }
    return best;
}

static void
keep_text_locked(struct job_queue *q, uint64_t id, struct buffer *text)
{
    struct job_text *t = NULL;
    for (unsigned i = 0; !t && i < TEXTS_KEPT; i++)
        t = q->texts[i].id == id ? &q->texts[i] : NULL;
    if (!t) {
        t = &q->texts[q->next_text];
        q->next_text = (q->next_text + 1) % TEXTS_KEPT;
    }
    buffer_free(&t->text);
    t->id = id;
    t->text = *text;
    *text = (struct buffer){0};
}

// ---- running ------------------------------------------------------------------------------------

// The first line of the handler's text, or the error's own.
static void
set_cause(struct job_record *job, int error, struct buffer *text)
{
    job->error = error;
    snprintf(job->cause, sizeof(job->cause), "%s",
        text->length > 0 ? buffer_string(text)
        : error < 0      ? strerror(-error)
                         : "");
    job->cause[strcspn(job->cause, "\n")] = 0;
}

// Sets the job's state after a run that ended with `rc`; `pause_ms` is for one that parks.
static void
judge_locked(
    struct job_queue *q, struct queued_job *j, int rc, uint64_t pause_ms, struct buffer *text)
{
    struct job_record *job = &j->record;
    bool interrupted = atomic_load(&q->interrupted);
    job->lease_expires_ms = 0;
    job->retryable = false;
    job->priority = j->own_priority;
    if (rc == 0) {
        job->state = JOB_COMPLETED;
        set_cause(job, 0, text);
    } else if (job->cancel_wanted) {
        job->state = JOB_FAILED;
        job->error = -ECANCELED;
        snprintf(job->cause, sizeof(job->cause), "cancelled by an operator");
    } else if (rc == JOB_PARKED) {
        job->state = JOB_PENDING;
        job->tries = 0;
        set_cause(job, 0, text);
        set_pause(j, pause_ms);
    } else if (interrupted) {
        job->state = JOB_PENDING;
        job->tries--; // it is no fault of the job's
    } else {
        set_cause(job, rc, text);
        bool passing = j->handler->is_passing && j->handler->is_passing(rc);
        bool last = j->handler->tries_max != 0 && job->tries >= j->handler->tries_max;
        job->retryable = passing;
        job->state = passing && !last ? JOB_PENDING : JOB_FAILED;
        unsigned doublings = job->tries < RETRY_DOUBLINGS ? job->tries - 1 : RETRY_DOUBLINGS;
        if (job->state == JOB_PENDING)
            set_pause(j, q->options.retry_ms << doublings);
    }
}

// Writes the state of a job that ran from memory to the table, even if that takes long: a queue
// that is being closed leaves it to the next one.
static void
settle_locked(struct job_queue *q, struct queued_job *j)
{
    for (;;) {
        bool ended = !is_unfinished(&j->record);
        uint64_t removed = ended ? oldest_ended_locked(q) : 0;
        int rc = put_record(q, &j->record, removed);
        if (rc == 0) {
            if (ended)
                ended_locked(q, j, removed);
            return;
        }
        if (q->stopping)
            return;
        log_warning(
            "job.table_failed", "cannot record job %" PRIu64 ": %s", j->record.id, strerror(-rc));
        condition_wait_until(&q->work, &q->lock, clock_monotonic_ms() + TABLE_RETRY_MS);
    }
}

// Notes in the table that the job runs. When that fails the job waits for a while.
static bool
begin_locked(struct job_queue *q, struct queued_job *j)
{
    j->record.state = JOB_IN_FLIGHT;
    j->record.tries++;
    j->record.lease_expires_ms = clock_wall_ms() + LEASE_MS;
    j->record.not_before_ms = 0;
    j->ready_ms = 0;
    int rc = put_record(q, &j->record, 0);
    if (rc == 0)
        return true;
    log_warning(
        "job.table_failed", "cannot begin job %" PRIu64 ": %s", j->record.id, strerror(-rc));
    j->record.state = JOB_PENDING;
    j->record.tries--;
    j->record.lease_expires_ms = 0;
    set_pause(j, TABLE_RETRY_MS);
    return false;
}

static void
run_locked(struct job_queue *q, struct queued_job *j)
{
    if (j->record.cancel_wanted) {
        // A user asked an earlier process for that, which has died.
        BUFFER_AUTO nothing = {0};
        judge_locked(q, j, -ECANCELED, 0, &nothing);
        settle_locked(q, j);
        return;
    }
    if (!begin_locked(q, j))
        return;
    BUFFER_AUTO text = {0};
    struct job_run run = {.job = &j->record, .queue = q, .text = &text};
    uint64_t id = j->record.id;
    q->running = j;
    q->progress_written_ms = clock_monotonic_ms();
    atomic_store(&q->interrupted, q->stopping || j->record.cancel_wanted);
    log_job(&j->record, "job.started", 0);
    lock_release(&q->lock);
    crash_point("job.started");
    int rc = j->handler->run(q->options.argument, &run);
    crash_point("job.done");
    lock_take(&q->lock);
    judge_locked(q, j, rc, run.park_ms, &text);
    struct job_record result = j->record;
    q->running = NULL;
    settle_locked(q, j);
    if (result.state == JOB_COMPLETED)
        log_job(&result, "job.completed", 0);
    else if (result.state == JOB_PENDING && rc == JOB_PARKED)
        crash_point("job.parked");
    else if (!atomic_load(&q->interrupted) || result.state == JOB_FAILED)
        log_job(&result, "job.failed", result.error);
    keep_text_locked(q, id, &text);
}

static void
worker_run(void *argument)
{
    struct job_queue *q = argument;
    if (q->options.start)
        q->options.start(q->options.argument);
    lock_take(&q->lock);
    while (!q->stopping) {
        uint64_t later_ms;
        struct queued_job *j = choose_locked(q, clock_monotonic_ms(), &later_ms);
        if (j) {
            run_locked(q, j);
            continue;
        }
        if (later_ms == 0)
            condition_wait(&q->work, &q->lock);
        else
            condition_wait_until(&q->work, &q->lock, later_ms);
    }
    lock_release(&q->lock);
}

// ---- opening and closing ------------------------------------------------------------------------

static int
load_job(void *argument, const struct job_record *job)
{
    struct job_queue *q = argument;
    if (!is_unfinished(job)) {
        if (find_handler(q, job->kind))
            append_ended_locked(q, job->id);
    } else if (find_handler(q, job->kind)) {
        struct queued_job *j = new_queued(q, job);
        j->record.state = JOB_PENDING;
        go_on_with_pause(j);
        append_locked(q, j);
    }
    return 0;
}

static void
free_queue(struct job_queue *q)
{
    for (size_t i = 0; i < q->count; i++)
        free_queued(q->jobs[i]);
    for (unsigned i = 0; i < TEXTS_KEPT; i++)
        buffer_free(&q->texts[i].text);
    free(q->jobs);
    free(q->ended);
    condition_destroy(&q->work);
    lock_destroy(&q->lock);
    free(q);
}

int
job_queue_open(const struct job_queue_options *options, struct job_queue **queue_out)
{
    *queue_out = NULL;
    struct job_queue *q = memory_alloc_zero(sizeof(*q));
    q->options = *options;
    if (q->options.kept == 0)
        q->options.kept = KEPT_DEFAULT;
    lock_init(&q->lock, "jobs", LOCK_RANK_JOBS);
    condition_init(&q->work);
    struct manifest_reader *r;
    int rc = manifest_read_begin(options->manifest, &r);
    if (rc == 0) {
        rc = manifest_read_jobs(r, options->db, load_job, q);
        manifest_read_end(r);
    }
    if (rc == 0)
        rc = thread_start(&q->thread, "jobs", worker_run, q);
    if (rc < 0) {
        free_queue(q);
        return rc;
    }
    *queue_out = q;
    return 0;
}

void
job_queue_close(struct job_queue *q)
{
    if (!q)
        return;
    lock_take(&q->lock);
    q->stopping = true;
    atomic_store(&q->interrupted, true);
    condition_broadcast(&q->work);
    lock_release(&q->lock);
    thread_join(&q->thread);
    free_queue(q);
}

// ---- asking -------------------------------------------------------------------------------------

struct find_twin {
    const struct job_record *job;
    uint64_t by_token, by_key;
};

static int
find_twin(void *argument, const struct job_record *other)
{
    struct find_twin *f = argument;
    const struct job_record *job = f->job;
    if (!uuid_is_zero(&job->token) && uuid_equal(&job->token, &other->token))
        f->by_token = other->id;
    if (is_unfinished(other) && other->kind == job->kind && other->key_length == job->key_length &&
        memcmp(other->key, job->key, job->key_length) == 0)
        f->by_key = other->id;
    return 0;
}

static int
submit_locked(struct job_queue *q, struct job_record *job, bool token_given, uint64_t *id_out)
{
    struct manifest_reader *r;
    struct find_twin twin = {.job = job};
    if (q->stopping)
        return -EROFS;
    if (q->count >= UNFINISHED_MAX)
        return -EAGAIN;
    int rc = manifest_read_begin(q->options.manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_jobs(r, q->options.db, find_twin, &twin);
    manifest_read_end(r);
    if (rc < 0)
        return rc;
    *id_out = token_given && twin.by_token != 0 ? twin.by_token : twin.by_key;
    if (*id_out != 0)
        return *id_out == twin.by_token ? 0 : -EEXIST;
    rc = put_record(q, job, 0);
    if (rc < 0)
        return rc;
    *id_out = job->id;
    append_locked(q, new_queued(q, job));
    if (q->running && job->priority > q->running->record.priority)
        atomic_store(&q->interrupted, true);
    condition_broadcast(&q->work);
    return 0;
}

int
job_queue_submit(struct job_queue *q, enum job_kind kind, const void *parameters,
    enum job_priority priority, const struct uuid *token, uint64_t *id_out)
{
    BUFFER_AUTO payload = {0};
    struct job_record job = {.state = JOB_PENDING, .priority = (uint8_t)priority};
    bool token_given = token && !uuid_is_zero(token);
    assert(find_handler(q, kind));
    job_set_kind(&job, kind, parameters, &payload);
    job.token = token_given ? *token : random_uuid();
    job.created_ms = clock_wall_ms();
    lock_take(&q->lock);
    int rc = submit_locked(q, &job, token_given, id_out);
    lock_release(&q->lock);
    if (rc == 0)
        crash_point("job.submitted");
    return rc;
}

static int
cancel_locked(struct job_queue *q, struct queued_job *j)
{
    bool before = j->record.cancel_wanted;
    j->record.cancel_wanted = true;
    if (j == q->running) {
        int rc = put_record(q, &j->record, 0);
        if (rc < 0)
            j->record.cancel_wanted = before;
        else
            atomic_store(&q->interrupted, true);
        return rc;
    }
    struct job_record was = j->record;
    j->record.state = JOB_FAILED;
    j->record.error = -ECANCELED;
    j->record.retryable = false;
    snprintf(j->record.cause, sizeof(j->record.cause), "cancelled by an operator");
    uint64_t removed = oldest_ended_locked(q);
    int rc = put_record(q, &j->record, removed);
    if (rc < 0) {
        j->record = was;
        j->record.cancel_wanted = before;
        return rc;
    }
    log_job(&j->record, "job.failed", -ECANCELED);
    ended_locked(q, j, removed);
    return 0;
}

int
job_queue_cancel(struct job_queue *q, uint64_t id)
{
    struct job_record job;
    lock_take(&q->lock);
    struct queued_job *j = find_locked(q, id);
    if (j) {
        int rc = cancel_locked(q, j);
        lock_release(&q->lock);
        return rc;
    }
    lock_release(&q->lock);
    int rc = job_queue_look(q, id, false, &job, NULL);
    if (rc < 0)
        return rc;
    return is_unfinished(&job) ? -EBUSY : -EALREADY;
}

int
job_queue_wake(struct job_queue *q, uint64_t id, enum job_priority priority)
{
    lock_take(&q->lock);
    struct queued_job *j = find_locked(q, id);
    if (j && j != q->running) {
        j->record.not_before_ms = 0;
        j->ready_ms = 0;
        if (j->record.priority < priority)
            j->record.priority = (uint8_t)priority;
        if (q->running && j->record.priority > q->running->record.priority)
            atomic_store(&q->interrupted, true);
        condition_broadcast(&q->work);
    }
    lock_release(&q->lock);
    return j ? 0 : -ENOENT;
}

struct look {
    uint64_t id;
    bool next;
    bool found;
    struct job_record *job;
};

static int
look_at(void *argument, const struct job_record *job)
{
    struct look *l = argument;
    if (l->next ? job->id <= l->id : job->id != l->id)
        return 0;
    *l->job = *job;
    l->found = true;
    return 1;
}

int
job_queue_look(struct job_queue *q, uint64_t id, bool next, struct job_record *job_out,
    struct buffer *text_out)
{
    struct manifest_reader *r;
    struct look look = {.id = id, .next = next, .job = job_out};
    int rc = manifest_read_begin(q->options.manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_jobs(r, q->options.db, look_at, &look);
    if (look.found) {
        job_out->payload = job_out->extension = NULL;
        job_out->payload_length = 0;
        job_out->extension_length = 0;
    }
    manifest_read_end(r);
    if (rc < 0)
        return rc;
    if (!look.found)
        return -ENOENT;
    lock_take(&q->lock);
    const struct queued_job *running = q->running;
    if (running && running->record.id == job_out->id) {
        job_out->done = running->record.done;
        job_out->total = running->record.total;
        memcpy(job_out->stage, running->record.stage, sizeof(job_out->stage));
    }
    for (unsigned i = 0; text_out && i < TEXTS_KEPT; i++) {
        const struct job_text *t = &q->texts[i];
        if (t->id != job_out->id)
            continue;
        buffer_clear(text_out);
        buffer_append(text_out, t->text.data, t->text.length);
    }
    lock_release(&q->lock);
    return 0;
}

unsigned
job_queue_depth(struct job_queue *q)
{
    lock_take(&q->lock);
    unsigned depth = (unsigned)q->count;
    lock_release(&q->lock);
    return depth;
}

// ---- for handlers -------------------------------------------------------------------------------

void
job_progress(struct job_run *run, const char *stage, uint64_t done, uint64_t total)
{
    struct job_queue *q = run->queue;
    uint64_t now_ms = clock_monotonic_ms();
    lock_take(&q->lock);
    struct job_record *job = &q->running->record;
    snprintf(job->stage, sizeof(job->stage), "%s", stage);
    job->done = done;
    job->total = total;
    if (now_ms - q->progress_written_ms >= PROGRESS_INTERVAL_MS) {
        q->progress_written_ms = now_ms;
        job->lease_expires_ms = clock_wall_ms() + LEASE_MS;
        int rc = put_record(q, job, 0);
        if (rc < 0)
            log_warning("job.table_failed", "cannot record the progress of job %" PRIu64 ": %s",
                job->id, strerror(-rc));
    }
    lock_release(&q->lock);
}

int
job_mark(struct job_run *run, const void *marker, size_t length)
{
    struct job_queue *q = run->queue;
    assert(length <= JOB_MARKER_BYTES_MAX);
    lock_take(&q->lock);
    struct job_record *job = &q->running->record;
    struct job_record before = *job;
    memcpy(job->marker, marker, length);
    job->marker_length = (uint16_t)length;
    job->lease_expires_ms = clock_wall_ms() + LEASE_MS;
    q->progress_written_ms = clock_monotonic_ms();
    int rc = put_record(q, job, 0);
    if (rc < 0)
        *job = before;
    lock_release(&q->lock);
    if (rc == 0)
        crash_point("job.marked");
    return rc;
}

int
job_park(struct job_run *run, const char *stage, uint64_t pause_ms)
{
    struct job_queue *q = run->queue;
    lock_take(&q->lock);
    snprintf(q->running->record.stage, sizeof(q->running->record.stage), "%s", stage);
    lock_release(&q->lock);
    run->park_ms = pause_ms;
    return JOB_PARKED;
}

bool
job_is_interrupted(void *run)
{
    const struct job_run *r = run;
    return atomic_load(&r->queue->interrupted);
}
