// SPDX-License-Identifier: Apache-2.0
// Operators' commands about generations and snapshots: the thread "retention" carries them out, one
// after the other. It also looks now and then whether CheckpointGC is due, and submits its jobs
// (volume_collect.c), and publishes the set of hot parts (volume_hot.h). Closing the volume
// interrupts a command.
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/decimal.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "retention/collect.h"
#include "volume/volume_hot.h"
#include "volume/volume_internal.h"
#include "volume/volume_operator.h"

#define OPERATIONS_MAX 16u
#define TEXT_BYTES_MAX (16u << 20)

// Between two looks whether CheckpointGC is due.
#define LOOK_INTERVAL_MS ((uint64_t)10 * 60 * 1000)
// One call to the store takes no longer.
#define CALL_MS 60000u

struct operation_entry {
    uint64_t ticket; // 0: free
    unsigned kind, flags, state;
    int result;
    uint64_t done_bytes, total_bytes; // while it runs, as far as it tells
    char argument[VOLUME_OPERATION_ARGUMENT_MAX + 1];
    struct buffer text;
};

struct volume_operations {
    struct volume *v;
    struct thread thread;
    atomic_bool interrupted; // the present command must end
    uint64_t next_look_ms;   // of the thread alone

    struct lock lock; // "operations": protects all below
    struct condition work;
    struct operation_entry entries[OPERATIONS_MAX];
    uint64_t last_ticket;
    bool restored; // volume_operations_restored
    bool stopping;
};

static bool
is_interrupted(void *argument)
{
    const struct volume_operations *o = argument;
    return atomic_load(&o->interrupted);
}

// ---- how a mount tells -----------------------------------------------------------------------

void
volume_bucket_init(
    struct volume_bucket *b, struct volume *v, bool (*is_canceled)(void *argument), void *argument)
{
    *b = (struct volume_bucket){v, v->place};
    b->place.call_ms = CALL_MS;
    b->place.call =
        (struct remote_call){.is_canceled = is_canceled, .argument = argument, .class = REMOTE_JOB};
}

// While others may publish.
int
volume_bucket_tell(void *argument, const struct change *changes, size_t count, uint64_t lowest)
{
    const struct volume_bucket *b = argument;
    return checkpoint_tell(b->v->checkpoint, &b->place, changes, count, lowest);
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

// There is one that runs.
static void
note_progress(void *argument, uint64_t done_bytes, uint64_t total_bytes)
{
    struct volume_operations *o = argument;
    lock_take(&o->lock);
    for (size_t i = 0; i < OPERATIONS_MAX; i++)
        if (o->entries[i].state == VOLUME_OPERATION_RUNS) {
            o->entries[i].done_bytes = done_bytes;
            o->entries[i].total_bytes = total_bytes;
        }
    lock_release(&o->lock);
}

static int
run_entry(struct volume_operations *o, const struct operation_entry *e, struct buffer *out)
{
    bool json = e->flags & VOLUME_OPERATION_JSON;
    if (e->kind == VOLUME_OPERATION_QUOTA)
        return volume_quota_operation(o->v, e->argument, json, out);
    if (e->kind == VOLUME_OPERATION_EVICT)
        return volume_evict_operation(o->v, e->argument, json,
            &(const struct volume_command){is_interrupted, note_progress, o}, out);
    if (e->kind == VOLUME_OPERATION_GC)
        return volume_collect_now(o->v, e->flags, is_interrupted, o, out);
    struct volume_bucket bucket;
    volume_bucket_init(&bucket, o->v, is_interrupted, o);
    const struct volume_operator by = {
        .place = &bucket.place,
        .manifest = o->v->manifest,
        .db = o->v->db,
        .tell = volume_bucket_tell,
        .argument = &bucket,
    };
    int rc = volume_operator_run(&by, e->kind, e->flags, e->argument, out);
    if (rc == 0 && e->kind == VOLUME_OPERATION_RETENTION && e->argument[0])
        volume_collect_hear_policy(o->v);
    return rc;
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
        if (o->restored) {
            o->restored = false;
            lock_release(&o->lock);
            volume_hot_restore(o->v, is_interrupted, o);
            lock_take(&o->lock);
            continue;
        }
        if (clock_monotonic_ms() < o->next_look_ms) {
            condition_wait_until(&o->work, &o->lock, o->next_look_ms);
            continue;
        }
        lock_release(&o->lock);
        o->next_look_ms = clock_monotonic_ms() + LOOK_INTERVAL_MS;
        volume_collect_if_due(o->v);
        volume_hot_publish(o->v, is_interrupted, o);
        lock_take(&o->lock);
    }
    lock_release(&o->lock);
}

int
volume_start_operations(struct volume *v)
{
    struct volume_operations *o = memory_alloc_zero(sizeof(*o));
    o->v = v;
    o->next_look_ms = clock_monotonic_ms() + LOOK_INTERVAL_MS;
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
volume_operations_restored(struct volume *v)
{
    lock_take(&v->operations->lock);
    v->operations->restored = true;
    condition_signal(&v->operations->work);
    lock_release(&v->operations->lock);
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

// Needs the manifest only, and so does not wait for a command that waits for the store.
static int
report_job(struct volume *v, const char *argument, unsigned flags, struct buffer *out)
{
    uint64_t id;
    if (!decimal_parse(argument, UINT64_MAX, &id))
        return -EINVAL;
    int rc = volume_job_report(v, id, flags & VOLUME_OPERATION_JSON, out);
    if (rc < 0)
        buffer_printf(out, "%s",
            rc == -ENOENT    ? "there is no such job"
            : rc == -ENODATA ? "jobs of this kind have no report"
                             : strerror(-rc));
    return rc;
}

// Stops the command with this ticket. One that waits is done at once, one that runs soon.
static int
cancel(struct volume_operations *o, const char *argument)
{
    uint64_t ticket;
    if (!decimal_parse(argument, UINT64_MAX, &ticket) || ticket == 0)
        return -EINVAL;
    int rc = -ENOENT;
    lock_take(&o->lock);
    for (size_t i = 0; i < OPERATIONS_MAX; i++) {
        struct operation_entry *e = &o->entries[i];
        if (e->ticket != ticket)
            continue;
        rc = e->state == VOLUME_OPERATION_DONE ? -EALREADY : 0;
        if (e->state == VOLUME_OPERATION_RUNS)
            atomic_store(&o->interrupted, true);
        if (e->state == VOLUME_OPERATION_WAITS) {
            e->state = VOLUME_OPERATION_DONE;
            e->result = -ECANCELED;
        }
    }
    lock_release(&o->lock);
    return rc;
}

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
    if (kind < VOLUME_OPERATION_GC || kind > VOLUME_OPERATION_CANCEL || (flags & ~known) ||
        strlen(argument) > VOLUME_OPERATION_ARGUMENT_MAX)
        return -EINVAL;
    BUFFER_AUTO text = {0};
    bool at_once = kind == VOLUME_OPERATION_JOB_REPORT;
    int result = at_once ? report_job(v, argument, flags, &text) : 0;
    int rc = -EAGAIN;
    *ticket_out = 0;
    if (kind == VOLUME_OPERATION_CANCEL)
        return cancel(o, argument);
    lock_take(&o->lock);
    struct operation_entry *e = find_room_locked(o);
    if (e) {
        buffer_free(&e->text);
        *e = (struct operation_entry){.ticket = ++o->last_ticket,
            .kind = kind,
            .flags = flags,
            .result = result,
            .state = at_once ? VOLUME_OPERATION_DONE : VOLUME_OPERATION_WAITS};
        buffer_append(&e->text, text.data, text.length);
        memcpy(e->argument, argument, strlen(argument));
        *ticket_out = e->ticket;
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
        report_out->done_bytes = e->done_bytes;
        report_out->total_bytes = e->total_bytes;
        if (offset < e->text.length) {
            uint64_t left = e->text.length - offset;
            report_out->copied = left < size ? (size_t)left : size;
            memcpy(text, e->text.data + offset, report_out->copied);
        }
    }
    lock_release(&o->lock);
    return rc;
}
