// SPDX-License-Identifier: Apache-2.0
// CheckpointGC of a mounted volume: the jobs PruneCheckpoint and SweepOrphans (doc/retention.md).
//
// There is one PruneCheckpoint job at a time. Each of its runs does all that is due: it expires
// generations, looks again at expired ones whose grace is over, and deletes what only they needed.
// While expired generations are left the job parks until the grace of the first is over. It keeps
// no state of its own: manifest and bucket tell each run what is left to do.
//
// The retention thread submits the job when something may be due. A command of an operator joins
// the job: the command's run is one of the job's, and its report goes to the command.
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "retention/collect.h"
#include "volume/volume_internal.h"
#include "volume/volume_operator.h"

#define PRUNE_INTERVAL_MS ((uint64_t)60 * 60 * 1000)
// From the end of a sweep to the beginning of the next one, whatever mounts are in between.
#define SWEEP_INTERVAL_MS ((uint64_t)24 * 60 * 60 * 1000)
// A sweep that failed is tried again after so long.
#define SWEEP_RETRY_MS ((uint64_t)60 * 60 * 1000)
// While the store cannot be reached.
#define AWAY_MS ((uint64_t)10 * 60 * 1000)
// Looks again after so long whether a cold scan still reads.
#define SCAN_MS 60000u
#define POLL_MS 100u

// A command that waits for its run.
struct collect_order {
    struct list_node node;
    unsigned flags; // VOLUME_OPERATION_*
    struct buffer *out;
    int result;
    bool taken; // by a run, which sets `done`
    bool done;
    atomic_bool abandoned; // its run is to end
};

struct volume_collect {
    struct volume *v;
    struct generation scanned; // collect_options.scanned; of the run
    bool unsure;               // collect_options.unsure; likewise
    uint64_t next_prune_ms;    // likewise

    // Of the retention thread.
    struct generation collected; // the published generation at the last submission
    uint64_t next_sweep_ms;      // no submission before

    struct lock lock; // "collect": protects all below
    struct condition changed;
    struct list_node orders;
    atomic_bool new_policy; // since the present run began
    atomic_uint waiting;    // orders that no run has taken; any thread may read it
    bool running;           // one run at a time, also a dry one
    bool failed;            // the last run of the job
};

// ---- one run ------------------------------------------------------------------------------------

struct collect_run {
    struct volume_bucket bucket;
    struct volume_collect *c;
    struct job_run *job;         // NULL: a dry run of an operator
    bool joins;                  // takes orders
    struct collect_order *order; // the present one, or NULL
    struct collect_result result;
    uint64_t expired, blobs;             // so far
    bool (*is_canceled)(void *argument); // of a dry run
    void *argument;
};

static bool
is_canceled(void *argument)
{
    const struct collect_run *r = argument;
    // A command ends a run of the job's own.
    if (r->order ? atomic_load(&r->order->abandoned) : r->joins && atomic_load(&r->c->waiting) > 0)
        return true;
    return r->job ? job_is_interrupted(r->job) : r->is_canceled(r->argument);
}

static void
hear(void *argument, const struct collect_event *event)
{
    struct collect_run *r = CONTAINER_OF(argument, struct collect_run, bucket);
    if (!r->job)
        return;
    r->expired += event->kind == COLLECT_EXPIRE;
    r->blobs += event->kind == COLLECT_BLOB;
    if (event->kind == COLLECT_EXPIRE)
        job_progress(r->job, "condemning", r->expired, 0);
    else
        job_progress(r->job, "deleting blobs", r->blobs, 0);
}

static struct volume_operator
operator_of(struct collect_run *r)
{
    struct volume *v = r->c->v;
    volume_bucket_init(&r->bucket, v, is_canceled, r);
    return (struct volume_operator){
        .place = &r->bucket.place,
        .manifest = v->manifest,
        .db = v->db,
        .tell = volume_bucket_tell,
        .event = hear,
        .argument = &r->bucket,
        .scanned = &r->c->scanned,
        .unsure = &r->c->unsure,
        .collected = &r->result,
    };
}

// False when it was cancelled meanwhile.
static bool
begin(struct collect_run *r)
{
    struct volume_collect *c = r->c;
    lock_take(&c->lock);
    while (c->running) {
        lock_release(&c->lock);
        bool canceled = is_canceled(r);
        lock_take(&c->lock);
        if (canceled)
            break;
        if (c->running)
            condition_wait_until(&c->changed, &c->lock, clock_monotonic_ms() + POLL_MS);
    }
    bool free_now = !c->running;
    c->running |= free_now;
    lock_release(&c->lock);
    return free_now;
}

static void
end(struct collect_run *r)
{
    lock_take(&r->c->lock);
    r->c->running = false;
    condition_broadcast(&r->c->changed);
    lock_release(&r->c->lock);
}

// ---- the jobs -----------------------------------------------------------------------------------

static struct collect_order *
take_order(struct volume_collect *c)
{
    lock_take(&c->lock);
    struct list_node *first = list_take_first(&c->orders);
    struct collect_order *order = first ? CONTAINER_OF(first, struct collect_order, node) : NULL;
    if (order) {
        order->taken = true;
        atomic_fetch_sub(&c->waiting, 1);
    }
    lock_release(&c->lock);
    return order;
}

static void
put_order(struct volume_collect *c, struct collect_order *order)
{
    lock_take(&c->lock);
    order->taken = false;
    list_append(&c->orders, &order->node);
    atomic_fetch_add(&c->waiting, 1);
    lock_release(&c->lock);
}

static void
end_order(struct volume_collect *c, struct collect_order *order, int result)
{
    lock_take(&c->lock);
    order->result = result;
    order->done = true;
    condition_broadcast(&c->changed);
    lock_release(&c->lock);
}

// Notes the end of a sweep. Without the note the next one comes early.
static void
note_swept(struct volume *v)
{
    struct manifest_batch *b = manifest_batch_new(v->db);
    manifest_batch_swept(b, clock_wall_ms());
    int rc = manifest_submit(v->manifest, b, NULL);
    if (rc < 0)
        log_warning("retention.note_failed", "cannot note the end of a sweep: %s", strerror(-rc));
}

// Carries out the orders, whose text is their own. 1: there were some.
static int
carry_out_orders(struct collect_run *r, const struct volume_operator *by)
{
    struct volume_collect *c = r->c;
    int any = 0;
    while ((r->order = take_order(c))) {
        struct collect_order *order = r->order;
        buffer_clear(order->out);
        int rc = volume_operator_run(by, VOLUME_OPERATION_GC, order->flags, "", order->out);
        if (rc == 0 && (order->flags & VOLUME_OPERATION_SWEEP))
            note_swept(c->v);
        bool abandoned = atomic_load(&order->abandoned);
        bool interrupted = rc == -ECANCELED && job_is_interrupted(r->job);
        r->order = NULL;
        // The job runs again and takes the order then.
        if (interrupted && !abandoned)
            put_order(c, order);
        else
            end_order(c, order, rc);
        if (interrupted || (rc < 0 && rc != -ECANCELED))
            return rc;
        any |= rc == 0;
    }
    return any;
}

static int
run_due(struct collect_run *r, const struct volume_operator *by, unsigned flags)
{
    struct volume_collect *c = r->c;
    uint64_t now_ms = clock_monotonic_ms();
    if (now_ms >= c->next_prune_ms)
        flags |= COLLECT_PRUNE;
    int rc = volume_operator_collect(by, flags, NULL, &r->result);
    if (rc == 0 && (flags & COLLECT_PRUNE))
        c->next_prune_ms = now_ms + PRUNE_INTERVAL_MS;
    if (rc == 0 && (flags & COLLECT_SWEEP))
        note_swept(c->v);
    return rc;
}

static bool
is_store_there(struct volume *v)
{
    struct checkpoint_numbers numbers;
    checkpoint_numbers(v->checkpoint, &numbers);
    return numbers.claimed && numbers.store_reachable;
}

static void
describe(const struct collect_result *s, struct buffer *out)
{
    buffer_printf(out,
        "%" PRIu64 " generations kept, %" PRIu64 " expired; deleted %" PRIu64
        " generations, %" PRIu64 " blobs, %" PRIu64 " records, %" PRIu64 " orphans",
        s->retained, s->expired, s->freed, s->blobs,
        s->pruned.records + s->pruned.catalogs + s->pruned.leases, s->orphans.objects);
}

static int
run_steps(struct collect_run *r, unsigned flags)
{
    const struct volume_operator by = operator_of(r);
    int rc;
    do {
        rc = r->joins ? carry_out_orders(r, &by) : 0;
        if (rc == 0 && !is_store_there(r->c->v))
            return job_park(r->job, "waiting for the store", AWAY_MS);
        if (rc == 0 && volume_scans_hold_collection(r->c->v, clock_monotonic_ms()))
            return job_park(r->job, "waiting for a cold scan", SCAN_MS);
        if (rc == 0)
            rc = run_due(r, &by, flags);
    } while (rc == -ECANCELED && r->joins && !job_is_interrupted(r->job));
    if (rc < 0) {
        if (rc != -ECANCELED)
            volume_operator_say_failure(rc, r->job->text);
        return rc;
    }
    describe(&r->result, r->job->text);
    if (r->result.expired == 0 || !r->joins)
        return 0;
    uint64_t now_ms = r->result.now_ms;
    uint64_t pause_ms = r->result.next_due_ms > now_ms ? r->result.next_due_ms - now_ms : 0;
    uint64_t least_ms = r->c->v->collect_pause_ms;
    // The run may have gone by the policy before.
    if (atomic_load(&r->c->new_policy))
        pause_ms = 0;
    return job_park(r->job, "waiting for the grace", pause_ms > least_ms ? pause_ms : least_ms);
}

static int
run_job(struct volume *v, struct job_run *job, unsigned flags)
{
    struct collect_run r = {.c = v->collect, .job = job, .joins = !(flags & COLLECT_SWEEP)};
    if (!begin(&r))
        return -ECANCELED;
    if (r.joins)
        atomic_store(&r.c->new_policy, false);
    int rc = run_steps(&r, flags);
    lock_take(&r.c->lock);
    r.c->failed = rc < 0;
    lock_release(&r.c->lock);
    end(&r);
    return rc;
}

int
volume_prune_run(void *argument, struct job_run *run)
{
    return run_job(argument, run, 0);
}

int
volume_sweep_run(void *argument, struct job_run *run)
{
    return run_job(argument, run, COLLECT_SWEEP);
}

// ---- submitting ---------------------------------------------------------------------------------

static int
find_due(void *argument, const struct generation_record *g)
{
    uint64_t *oldest_ms = argument;
    if (g->state == GENERATION_EXPIRED && (*oldest_ms == 0 || g->expired_ms < *oldest_ms))
        *oldest_ms = g->expired_ms;
    return 0;
}

// Whether something may have to be done: something was published, or a grace is over. For an idle
// volume only sweeps send requests.
static bool
has_work(struct volume_collect *c)
{
    struct volume *v = c->v;
    struct db_record db;
    struct manifest_reader *r;
    struct retention_policy policy;
    uint64_t oldest_ms = 0;
    if (manifest_read_begin(v->manifest, &r) < 0)
        return false;
    int rc = manifest_read_db(r, v->db, &db);
    if (rc == 0)
        rc = manifest_read_generations(r, v->db, (struct generation){0}, find_due, &oldest_ms);
    if (rc == 0)
        rc = collect_policy(r, v->db, &policy);
    manifest_read_end(r);
    if (rc < 0 || db.fenced || db.epoch == 0 || db.published.v == 0)
        return false;
    lock_take(&c->lock);
    bool failed = c->failed;
    lock_release(&c->lock);
    bool grown = db.published.v != c->collected.v;
    c->collected = db.published;
    return grown || failed || atomic_load(&c->new_policy) ||
           (oldest_ms != 0 && clock_wall_ms() >= oldest_ms + policy.grace_ms);
}

// The job that is there, or else a new one; it runs now.
static int
prune_now(struct volume *v, enum job_priority priority, uint64_t *job_out)
{
    int rc = job_queue_submit(v->jobs, JOB_PRUNE_CHECKPOINT, NULL, priority, NULL, job_out);
    if (rc != -EEXIST)
        return rc;
    // When it has ended meanwhile there is nothing to wake.
    rc = job_queue_wake(v->jobs, *job_out, priority);
    return rc == -ENOENT ? 0 : rc;
}

// A clock that was set back makes a sweep due.
static bool
is_sweep_due(struct volume_collect *c)
{
    struct volume *v = c->v;
    struct manifest_reader *r;
    struct db_record db;
    uint64_t swept_ms = 0;
    uint64_t now_ms = clock_wall_ms();
    if (clock_monotonic_ms() < c->next_sweep_ms || manifest_read_begin(v->manifest, &r) < 0)
        return false;
    int rc = manifest_read_db(r, v->db, &db);
    if (rc == 0)
        rc = manifest_read_swept(r, v->db, &swept_ms);
    manifest_read_end(r);
    if (rc < 0 || db.fenced || db.epoch == 0 || db.published.v == 0)
        return false;
    return now_ms < swept_ms || now_ms - swept_ms >= SWEEP_INTERVAL_MS;
}

static void
sweep_if_due(struct volume_collect *c)
{
    uint64_t job;
    if (!is_sweep_due(c))
        return;
    int rc = job_queue_submit(c->v->jobs, JOB_SWEEP_ORPHANS, NULL, JOB_PRIORITY_SWEEP, NULL, &job);
    if (rc == 0)
        c->next_sweep_ms = clock_monotonic_ms() + SWEEP_RETRY_MS;
}

void
volume_collect_if_due(struct volume *v)
{
    struct volume_collect *c = v->collect;
    uint64_t job;
    if (!is_store_there(v))
        return;
    if (has_work(c) && prune_now(v, JOB_PRIORITY_SWEEP, &job) < 0)
        c->collected.v = 0;
    sweep_if_due(c);
}

void
volume_collect_hear_policy(struct volume *v)
{
    struct job_record job;
    atomic_store(&v->collect->new_policy, true);
    for (uint64_t id = 0; job_queue_look(v->jobs, id, true, &job, NULL) == 0; id = job.id)
        if (job.kind == JOB_PRUNE_CHECKPOINT && job.state == JOB_PENDING &&
            job_queue_wake(v->jobs, job.id, JOB_PRIORITY_SWEEP) == 0)
            return;
}

// ---- operators ----------------------------------------------------------------------------------

static int
run_dry(struct volume_collect *c, unsigned flags, bool (*canceled)(void *argument), void *argument,
    struct buffer *out)
{
    struct collect_run r = {.c = c, .is_canceled = canceled, .argument = argument};
    const struct volume_operator by = operator_of(&r);
    if (!begin(&r))
        return -ECANCELED;
    int rc = volume_operator_run(&by, VOLUME_OPERATION_GC, flags, "", out);
    end(&r);
    return rc;
}

// Whether the order's job has failed without it: its result then, else 0.
static int
job_failure(struct volume *v, uint64_t id, struct buffer *out)
{
    struct job_record job;
    int rc = job_queue_look(v->jobs, id, false, &job, NULL);
    if (rc < 0 || job.state != JOB_FAILED)
        return 0;
    buffer_clear(out);
    buffer_append_string(out, job.cause);
    return job.error < 0 ? job.error : -EIO;
}

static void
wait_a_while(struct volume_collect *c, const struct collect_order *order)
{
    lock_take(&c->lock);
    if (!order->done)
        condition_wait_until(&c->changed, &c->lock, clock_monotonic_ms() + POLL_MS);
    lock_release(&c->lock);
}

// Takes an order out of the list that no run works on. False: one does.
static bool
take_back(struct volume_collect *c, struct collect_order *order)
{
    lock_take(&c->lock);
    bool mine = !order->taken || order->done;
    if (!order->taken) {
        list_remove(&order->node);
        atomic_fetch_sub(&c->waiting, 1);
    }
    lock_release(&c->lock);
    return mine;
}

static bool
is_done(struct volume_collect *c, const struct collect_order *order)
{
    lock_take(&c->lock);
    bool done = order->done;
    lock_release(&c->lock);
    return done;
}

int
volume_collect_now(struct volume *v, unsigned flags, bool (*canceled)(void *argument),
    void *argument, struct buffer *out)
{
    struct volume_collect *c = v->collect;
    if (flags & VOLUME_OPERATION_DRY_RUN)
        return run_dry(c, flags, canceled, argument, out);
    struct collect_order order = {.flags = flags, .out = out};
    uint64_t job = 0;
    int rc = 0;
    put_order(c, &order);
    while (!is_done(c, &order)) {
        if (rc == 0 && job != 0)
            rc = job_failure(v, job, out);
        if (rc == 0 && canceled(argument))
            rc = -ECANCELED;
        if (rc == 0)
            rc = prune_now(v, JOB_PRIORITY_ASKED, &job);
        if (rc < 0) {
            atomic_store(&order.abandoned, true);
            if (take_back(c, &order))
                return rc;
        }
        wait_a_while(c, &order);
    }
    return order.result;
}

// ---- the life of this part ----------------------------------------------------------------------

void
volume_open_collect(struct volume *v)
{
    struct volume_collect *c = memory_alloc_zero(sizeof(*c));
    uint64_t now_ms = clock_monotonic_ms();
    c->v = v;
    c->next_prune_ms = now_ms + PRUNE_INTERVAL_MS;
    list_init(&c->orders);
    lock_init(&c->lock, "collect", LOCK_RANK_CONTROL);
    condition_init(&c->changed);
    v->collect = c;
}

void
volume_close_collect(struct volume *v)
{
    struct volume_collect *c = v->collect;
    if (!c)
        return;
    condition_destroy(&c->changed);
    lock_destroy(&c->lock);
    free(c);
    v->collect = NULL;
}
