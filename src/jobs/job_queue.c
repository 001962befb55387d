// SPDX-License-Identifier: Apache-2.0
#include "jobs/job_queue_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"

#define UNFINISHED_MAX  4096u
#define KEPT_DEFAULT    64u
#define PATIENCE_MS     ((uint64_t)10 * 60 * 1000)
#define RETRY_DOUBLINGS 6u
// After the table could not be changed.
#define TABLE_RETRY_MS 1000u
// A worker looks at the clock of the day so often while jobs wait for a time: it may have been
// set, or the machine may have slept.
#define CLOCK_LOOK_MS 60000u

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
    j->waits_ms = clock_monotonic_ms();
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

int
job_queue_put_record(struct job_queue *q, struct job_record *job, uint64_t remove_id)
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

// The caller frees the job.
static void
take_out_locked(struct job_queue *q, const struct queued_job *j)
{
    size_t i = 0;
    while (q->jobs[i] != j)
        i++;
    memmove(&q->jobs[i], &q->jobs[i + 1], (q->count - i - 1) * sizeof(*q->jobs));
    q->count--;
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

// The caller frees the job.
static void
ended_locked(struct job_queue *q, const struct queued_job *j, uint64_t removed)
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
    j->waits_ms = j->ready_ms;
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

// Whether the job has been passed over for too long.
static bool
is_impatient(const struct job_queue *q, const struct queued_job *j, uint64_t now_ms)
{
    return now_ms >= j->waits_ms && now_ms - j->waits_ms >= q->options.patience_ms;
}

// Of two jobs that are ready, the second one with the higher id.
static bool
goes_first(const struct job_queue *q, const struct queued_job *second,
    const struct queued_job *first, uint64_t now_ms)
{
    bool waits = is_impatient(q, second, now_ms);
    if (waits != is_impatient(q, first, now_ms))
        return waits;
    return waits ? second->waits_ms < first->waits_ms
                 : second->record.priority > first->record.priority;
}

// The job that the lane runs now, or NULL and when to look again (monotonic; 0: when something
// comes).
static struct queued_job *
choose_locked(struct job_worker *w, uint64_t now_ms, uint64_t *later_ms_out)
{
    struct job_queue *q = w->queue;
    struct queued_job *best = NULL;
    *later_ms_out = 0;
    for (size_t i = 0; i < q->count; i++) {
        struct queued_job *j = q->jobs[i];
        if (j->handler->lane != w->lane)
            continue;
        if (!is_ready(j, now_ms)) {
            uint64_t look_ms = now_ms + CLOCK_LOOK_MS;
            if (j->ready_ms < look_ms)
                look_ms = j->ready_ms;
            if (*later_ms_out == 0 || look_ms < *later_ms_out)
                *later_ms_out = look_ms;
        } else if (!best || goes_first(q, j, best, now_ms)) {
            best = j;
        }
    }
    return best;
}

// Notes when the running job has to give way to one that is more urgent.
static void
plan_interruption_locked(struct job_worker *w)
{
    const struct job_queue *q = w->queue;
    for (size_t i = 0; w->running && i < q->count; i++) {
        const struct queued_job *j = q->jobs[i];
        if (j == w->running || j->handler->lane != w->lane ||
            j->record.priority <= w->running->record.priority)
            continue;
        uint64_t at_ms = j->ready_ms > w->protected_ms ? j->ready_ms : w->protected_ms;
        if (at_ms < atomic_load(&w->interrupt_at_ms))
            atomic_store(&w->interrupt_at_ms, at_ms);
    }
}

static struct job_worker *
worker_of(struct job_queue *q, const struct queued_job *j)
{
    return &q->workers[j->handler->lane];
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
    bool interrupted = job_worker_is_to_end(worker_of(q, j));
    j->waits_ms = clock_monotonic_ms();
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

static void
tell_failed(const struct job_queue *q, const struct queued_job *j)
{
    if (j->handler->failed)
        j->handler->failed(q->options.argument, &j->record);
}

// Writes the state of a job that ran from memory to the table, even if that takes long: a queue
// that is being closed leaves it to the next one. A job that has ended is freed then.
static void
settle_locked(struct job_queue *q, struct queued_job *j)
{
    if (j->record.state == JOB_FAILED) {
        // Nobody changes the record of a job that has ended.
        lock_release(&q->lock);
        tell_failed(q, j);
        lock_take(&q->lock);
    }
    for (;;) {
        bool ended = !is_unfinished(&j->record);
        uint64_t removed = ended ? oldest_ended_locked(q) : 0;
        int rc = job_queue_put_record(q, &j->record, removed);
        if (rc == 0) {
            if (ended) {
                ended_locked(q, j, removed);
                free_queued(j);
            }
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
    int rc = job_queue_put_record(q, &j->record, 0);
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
run_locked(struct job_worker *w, struct queued_job *j)
{
    struct job_queue *q = w->queue;
    uint64_t now_ms = clock_monotonic_ms();
    w->running = j;
    w->protected_ms = is_impatient(q, j, now_ms) ? now_ms + q->options.patience_ms : 0;
    atomic_store(&w->interrupt_at_ms, UINT64_MAX);
    atomic_store(&w->interrupted, q->stopping);
    if (j->record.cancel_wanted) {
        // A user asked an earlier process for that, which has died.
        BUFFER_AUTO nothing = {0};
        judge_locked(q, j, -ECANCELED, 0, &nothing);
        settle_locked(q, j);
        w->running = NULL;
        return;
    }
    if (!begin_locked(q, j)) {
        w->running = NULL;
        return;
    }
    BUFFER_AUTO text = {0};
    struct job_run run = {.job = &j->record, .queue = q, .worker = w, .text = &text};
    uint64_t id = j->record.id;
    w->progress_written_ms = now_ms;
    plan_interruption_locked(w);
    log_job(&j->record, "job.started", 0);
    lock_release(&q->lock);
    crash_point("job.started");
    int rc = j->handler->run(q->options.argument, &run);
    crash_point("job.done");
    lock_take(&q->lock);
    judge_locked(q, j, rc, run.park_ms, &text);
    struct job_record result = j->record;
    bool interrupted = job_worker_is_to_end(w);
    settle_locked(q, j);
    w->running = NULL;
    if (result.state == JOB_COMPLETED)
        log_job(&result, "job.completed", 0);
    else if (result.state == JOB_PENDING && rc == JOB_PARKED)
        crash_point("job.parked");
    else if (!interrupted || result.state == JOB_FAILED)
        log_job(&result, "job.failed", result.error);
    keep_text_locked(q, id, &text);
}

static void
worker_run(void *argument)
{
    struct job_worker *w = argument;
    struct job_queue *q = w->queue;
    if (q->options.start)
        q->options.start(q->options.argument);
    lock_take(&q->lock);
    while (!q->stopping) {
        uint64_t later_ms;
        struct queued_job *j = choose_locked(w, clock_monotonic_ms(), &later_ms);
        if (j) {
            run_locked(w, j);
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

static bool
has_kinds(const struct job_queue *q, enum job_lane lane)
{
    for (size_t i = 0; i < q->options.handler_count; i++)
        if (q->options.handlers[i].lane == lane)
            return true;
    return false;
}

static int
start_workers(struct job_queue *q)
{
    static const char *const names[JOB_LANES] = {
        [JOB_LANE_SHORT] = "jobs",
        [JOB_LANE_FETCH] = "jobs-fetch",
        [JOB_LANE_LONG] = "jobs-long",
    };
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < JOB_LANES; i++) {
        struct job_worker *w = &q->workers[i];
        if (!has_kinds(q, w->lane))
            continue;
        rc = thread_start(&w->thread, names[i], worker_run, w);
        w->started = rc == 0;
    }
    return rc;
}

static void
stop_workers(struct job_queue *q)
{
    lock_take(&q->lock);
    q->stopping = true;
    for (unsigned i = 0; i < JOB_LANES; i++)
        atomic_store(&q->workers[i].interrupted, true);
    condition_broadcast(&q->work);
    lock_release(&q->lock);
    for (unsigned i = 0; i < JOB_LANES; i++)
        if (q->workers[i].started)
            thread_join(&q->workers[i].thread);
}

int
job_queue_open(const struct job_queue_options *options, struct job_queue **queue_out)
{
    *queue_out = NULL;
    struct job_queue *q = memory_alloc_zero(sizeof(*q));
    q->options = *options;
    if (q->options.kept == 0)
        q->options.kept = KEPT_DEFAULT;
    if (q->options.patience_ms == 0)
        q->options.patience_ms = PATIENCE_MS;
    for (unsigned i = 0; i < JOB_LANES; i++) {
        q->workers[i].queue = q;
        q->workers[i].lane = (enum job_lane)i;
    }
    lock_init(&q->lock, "jobs", LOCK_RANK_JOBS);
    condition_init(&q->work);
    struct manifest_reader *r;
    int rc = manifest_read_begin(options->manifest, &r);
    if (rc == 0) {
        rc = manifest_read_jobs(r, options->db, load_job, q);
        manifest_read_end(r);
    }
    if (rc == 0)
        rc = start_workers(q);
    if (rc < 0) {
        stop_workers(q);
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
    stop_workers(q);
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
    rc = job_queue_put_record(q, job, 0);
    if (rc < 0)
        return rc;
    *id_out = job->id;
    struct queued_job *j = new_queued(q, job);
    append_locked(q, j);
    plan_interruption_locked(worker_of(q, j));
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

// `ended_out`: the job, if it is out of the queue now; the caller frees it.
static int
cancel_locked(struct job_queue *q, struct queued_job *j, struct queued_job **ended_out)
{
    struct job_worker *w = worker_of(q, j);
    bool before = j->record.cancel_wanted;
    // Its run is over, and the worker writes the result as soon as it can.
    if (!is_unfinished(&j->record))
        return -EALREADY;
    j->record.cancel_wanted = true;
    if (j == w->running) {
        int rc = job_queue_put_record(q, &j->record, 0);
        if (rc < 0)
            j->record.cancel_wanted = before;
        else
            atomic_store(&w->interrupted, true);
        return rc;
    }
    struct job_record was = j->record;
    j->record.state = JOB_FAILED;
    j->record.error = -ECANCELED;
    j->record.retryable = false;
    snprintf(j->record.cause, sizeof(j->record.cause), "cancelled by an operator");
    uint64_t removed = oldest_ended_locked(q);
    int rc = job_queue_put_record(q, &j->record, removed);
    if (rc < 0) {
        j->record = was;
        j->record.cancel_wanted = before;
        return rc;
    }
    log_job(&j->record, "job.failed", -ECANCELED);
    ended_locked(q, j, removed);
    *ended_out = j;
    return 0;
}

int
job_queue_cancel(struct job_queue *q, uint64_t id)
{
    struct job_record job;
    struct queued_job *ended = NULL;
    lock_take(&q->lock);
    struct queued_job *j = find_locked(q, id);
    if (j) {
        int rc = cancel_locked(q, j, &ended);
        lock_release(&q->lock);
        if (ended)
            tell_failed(q, ended);
        free_queued(ended);
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
    if (j && j->record.state == JOB_PENDING) {
        uint64_t now_ms = clock_monotonic_ms();
        j->record.not_before_ms = 0;
        j->ready_ms = 0;
        if (j->waits_ms > now_ms)
            j->waits_ms = now_ms;
        if (j->record.priority < priority)
            j->record.priority = (uint8_t)priority;
        plan_interruption_locked(worker_of(q, j));
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
    const struct queued_job *running = find_locked(q, job_out->id);
    if (running && running == worker_of(q, running)->running) {
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

struct payload_look {
    uint64_t id;
    struct job_record *job;
    struct buffer *payload;
    bool found;
};

static int
copy_payload(void *argument, const struct job_record *job)
{
    struct payload_look *l = argument;
    if (job->id != l->id)
        return 0;
    buffer_clear(l->payload);
    buffer_append(l->payload, job->payload, job->payload_length);
    *l->job = *job;
    l->job->payload = l->payload->data;
    l->job->extension = NULL;
    l->job->extension_length = 0;
    l->found = true;
    return 1;
}

int
job_queue_read(
    struct job_queue *q, uint64_t id, struct job_record *job_out, struct buffer *payload_out)
{
    struct manifest_reader *r;
    struct payload_look look = {.id = id, .job = job_out, .payload = payload_out};
    int rc = manifest_read_begin(q->options.manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_jobs(r, q->options.db, copy_payload, &look);
    manifest_read_end(r);
    return rc < 0 ? rc : look.found ? 0 : -ENOENT;
}

unsigned
job_queue_depth(struct job_queue *q)
{
    lock_take(&q->lock);
    unsigned depth = (unsigned)q->count;
    lock_release(&q->lock);
    return depth;
}
