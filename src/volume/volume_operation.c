// SPDX-License-Identifier: Apache-2.0
// Operators' commands about generations and snapshots, and the volume's own runs of CheckpointGC:
// the thread "retention" carries them out, one after the other. A command of an operator interrupts
// a run of the thread's own, and closing the volume interrupts both; the next run goes on where it
// stopped.
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "retention/collect.h"
#include "volume/volume_internal.h"
#include "volume/volume_operator.h"

#define OPERATIONS_MAX 16u
#define TEXT_BYTES_MAX (16u << 20)

// Between two runs that collect, prune and sweep.
#define RUN_INTERVAL_MS   ((uint64_t)10 * 60 * 1000)
#define PRUNE_INTERVAL_MS ((uint64_t)60 * 60 * 1000)
#define SWEEP_INTERVAL_MS ((uint64_t)24 * 60 * 60 * 1000)
// One call to the store takes no longer.
#define CALL_MS 60000u

struct operation_entry {
    uint64_t ticket; // 0: free
    unsigned kind, flags, state;
    int result;
    char argument[VOLUME_OPERATION_ARGUMENT_MAX + 1];
    struct buffer text;
};

struct volume_operations {
    struct volume *v;
    struct thread thread;
    atomic_bool interrupted; // the present command or run must end
    // Of the thread alone.
    struct generation scanned;   // collect_options.scanned
    bool unsure;                 // collect_options.unsure
    struct generation collected; // the published generation that the last run saw
    uint64_t next_run_ms, next_prune_ms, next_sweep_ms;

    struct lock lock; // "operations": protects all below
    struct condition work;
    struct operation_entry entries[OPERATIONS_MAX];
    uint64_t last_ticket;
    bool own_run; // the thread is in a run of its own
    bool stopping;
};

static bool
is_interrupted(void *argument)
{
    const struct volume_operations *o = argument;
    return atomic_load(&o->interrupted);
}

// ---- how a mount tells -----------------------------------------------------------------------

struct operations_place {
    struct volume *v;
    struct remote_place place;
};

static struct operations_place
place_of(struct volume_operations *o)
{
    struct operations_place p = {o->v, o->v->place};
    p.place.call_ms = CALL_MS;
    p.place.call =
        (struct remote_call){.is_canceled = is_interrupted, .argument = o, .class = REMOTE_JOB};
    return p;
}

// While others may publish.
static int
tell(void *argument, const struct change *changes, size_t count, uint64_t lowest)
{
    const struct operations_place *p = argument;
    return checkpoint_tell(p->v->checkpoint, &p->place, changes, count, lowest);
}

static struct volume_operator
operator_of(struct volume_operations *o, struct operations_place *p)
{
    return (struct volume_operator){
        .place = &p->place,
        .manifest = o->v->manifest,
        .db = o->v->db,
        .tell = tell,
        .argument = p,
        .scanned = &o->scanned,
        .unsure = &o->unsure,
    };
}

// ---- the volume's own runs ----------------------------------------------------------------------

static int
find_due(void *argument, const struct generation_record *g)
{
    uint64_t *oldest_ms = argument;
    if (g->state == GENERATION_EXPIRED && (*oldest_ms == 0 || g->expired_ms < *oldest_ms))
        *oldest_ms = g->expired_ms;
    return 0;
}

// Whether something may have to be done: something was published, or a grace is over. An idle
// volume sends no request.
static bool
has_work(struct volume_operations *o)
{
    struct db_record db;
    struct manifest_reader *r;
    struct retention_policy policy;
    uint64_t oldest_ms = 0;
    if (manifest_read_begin(o->v->manifest, &r) < 0)
        return false;
    int rc = manifest_read_db(r, o->v->db, &db);
    if (rc == 0)
        rc = manifest_read_generations(r, o->v->db, (struct generation){0}, find_due, &oldest_ms);
    if (rc == 0)
        rc = collect_policy(r, o->v->db, &policy);
    manifest_read_end(r);
    if (rc < 0 || db.fenced || db.epoch == 0 || db.published.v == 0)
        return false;
    bool grown = db.published.v != o->collected.v;
    o->collected = db.published;
    return grown || (oldest_ms != 0 && clock_wall_ms() >= oldest_ms + policy.grace_ms);
}

static void
run_own(struct volume_operations *o)
{
    uint64_t now = clock_monotonic_ms();
    unsigned flags = 0;
    o->next_run_ms = now + RUN_INTERVAL_MS;
    struct checkpoint_numbers numbers;
    checkpoint_numbers(o->v->checkpoint, &numbers);
    if (!numbers.claimed || !numbers.store_reachable || !has_work(o))
        return;
    if (now >= o->next_prune_ms)
        flags |= COLLECT_PRUNE;
    if (now >= o->next_sweep_ms)
        flags |= COLLECT_SWEEP;
    struct collect_result result;
    struct operations_place p = place_of(o);
    const struct volume_operator by = operator_of(o, &p);
    int rc = volume_operator_collect(&by, flags, NULL, &result);
    if (rc < 0) {
        o->collected.v = 0;
        return;
    }
    if (flags & COLLECT_PRUNE)
        o->next_prune_ms = now + PRUNE_INTERVAL_MS;
    if (flags & COLLECT_SWEEP)
        o->next_sweep_ms = now + SWEEP_INTERVAL_MS;
}

// ---- the thread ---------------------------------------------------------------------------------

static struct operation_entry *
next_locked(struct volume_operations *o)
{
    struct operation_entry *next = NULL;
    for (size_t i = 0; i < OPERATIONS_MAX; i++) {
        struct operation_entry *e = &o->entries[i];
        if (e->state == VOLUME_OPERATION_WAITS && (!next || e->ticket < next->ticket))
            next = e;
    }
    return next;
}

static int
run_entry(struct volume_operations *o, const struct operation_entry *e, struct buffer *out)
{
    bool json = e->flags & VOLUME_OPERATION_JSON;
    if (e->kind == VOLUME_OPERATION_QUOTA)
        return volume_quota_operation(o->v, e->argument, json, out);
    if (e->kind == VOLUME_OPERATION_EVICT)
        return volume_evict_operation(o->v, e->argument, json, out);
    struct operations_place p = place_of(o);
    const struct volume_operator by = operator_of(o, &p);
    return volume_operator_run(&by, e->kind, e->flags, e->argument, out);
}

static void
carry_out_locked(struct volume_operations *o, struct operation_entry *e)
{
    struct operation_entry mine = *e;
    e->state = VOLUME_OPERATION_RUNS;
    atomic_store(&o->interrupted, o->stopping);
    lock_release(&o->lock);
    BUFFER_AUTO text = {0};
    int rc = run_entry(o, &mine, &text);
    if (text.length > TEXT_BYTES_MAX)
        text.length = TEXT_BYTES_MAX;
    lock_take(&o->lock);
    // No caller takes an entry that runs.
    buffer_append(&e->text, text.data, text.length);
    e->result = rc;
    e->state = VOLUME_OPERATION_DONE;
}

static void
operations_run(void *argument)
{
    struct volume_operations *o = argument;
    flush_pace_bind(&o->v->pace);
    lock_take(&o->lock);
    while (!o->stopping) {
        struct operation_entry *e = next_locked(o);
        if (e) {
            carry_out_locked(o, e);
            continue;
        }
        if (clock_monotonic_ms() < o->next_run_ms) {
            condition_wait_until(&o->work, &o->lock, o->next_run_ms);
            continue;
        }
        o->own_run = true;
        atomic_store(&o->interrupted, false);
        lock_release(&o->lock);
        run_own(o);
        lock_take(&o->lock);
        o->own_run = false;
    }
    lock_release(&o->lock);
}

int
volume_start_operations(struct volume *v)
{
    struct volume_operations *o = memory_alloc_zero(sizeof(*o));
    uint64_t now = clock_monotonic_ms();
    o->v = v;
    o->next_run_ms = now + RUN_INTERVAL_MS;
    o->next_prune_ms = now + PRUNE_INTERVAL_MS;
    o->next_sweep_ms = now + SWEEP_INTERVAL_MS;
    lock_init(&o->lock, "operations", LOCK_RANK_CONTROL);
    condition_init(&o->work);
    int rc = thread_start(&o->thread, "retention", operations_run, o);
    if (rc == 0) {
        v->operations = o;
        return 0;
    }
    condition_destroy(&o->work);
    lock_destroy(&o->lock);
    free(o);
    return rc;
}

void
volume_stop_operations(struct volume *v)
{
    struct volume_operations *o = v->operations;
    if (!o)
        return;
    lock_take(&o->lock);
    o->stopping = true;
    atomic_store(&o->interrupted, true);
    condition_broadcast(&o->work);
    lock_release(&o->lock);
    thread_join(&o->thread);
    v->operations = NULL;
    for (size_t i = 0; i < OPERATIONS_MAX; i++)
        buffer_free(&o->entries[i].text);
    condition_destroy(&o->work);
    lock_destroy(&o->lock);
    free(o);
}

// ---- asking -------------------------------------------------------------------------------------

// One that is free, or the oldest that is done.
static struct operation_entry *
find_room_locked(struct volume_operations *o)
{
    struct operation_entry *oldest = NULL;
    for (size_t i = 0; i < OPERATIONS_MAX; i++) {
        struct operation_entry *e = &o->entries[i];
        if (e->ticket == 0)
            return e;
        if (e->state == VOLUME_OPERATION_DONE && (!oldest || e->ticket < oldest->ticket))
            oldest = e;
    }
    return oldest;
}

int
volume_operation_start(
    struct volume *v, unsigned kind, unsigned flags, const char *argument, uint64_t *ticket_out)
{
    struct volume_operations *o = v->operations;
    const unsigned known =
        VOLUME_OPERATION_JSON | VOLUME_OPERATION_DRY_RUN | VOLUME_OPERATION_SWEEP;
    if (!o)
        return -EROFS;
    if (kind < VOLUME_OPERATION_GC || kind > VOLUME_OPERATION_EVICT || (flags & ~known) ||
        strlen(argument) > VOLUME_OPERATION_ARGUMENT_MAX)
        return -EINVAL;
    int rc = -EAGAIN;
    lock_take(&o->lock);
    struct operation_entry *e = find_room_locked(o);
    if (e) {
        buffer_free(&e->text);
        *e = (struct operation_entry){.ticket = ++o->last_ticket,
            .kind = kind,
            .flags = flags,
            .state = VOLUME_OPERATION_WAITS};
        memcpy(e->argument, argument, strlen(argument));
        *ticket_out = e->ticket;
        if (o->own_run)
            atomic_store(&o->interrupted, true);
        condition_signal(&o->work);
        rc = 0;
    }
    lock_release(&o->lock);
    return rc;
}

int
volume_operation_report(struct volume *v, uint64_t ticket, uint64_t offset, char *text, size_t size,
    struct volume_operation_report *report_out)
{
    struct volume_operations *o = v->operations;
    *report_out = (struct volume_operation_report){0};
    if (!o)
        return -EROFS;
    int rc = -ENOENT;
    lock_take(&o->lock);
    for (size_t i = 0; ticket != 0 && i < OPERATIONS_MAX; i++) {
        const struct operation_entry *e = &o->entries[i];
        if (e->ticket != ticket)
            continue;
        rc = 0;
        report_out->state = e->state;
        report_out->result = e->result;
        report_out->length = e->text.length;
        if (offset < e->text.length) {
            uint64_t left = e->text.length - offset;
            report_out->copied = left < size ? (size_t)left : size;
            memcpy(text, e->text.data + offset, report_out->copied);
        }
    }
    lock_release(&o->lock);
    return rc;
}
