// SPDX-License-Identifier: Apache-2.0
// When checkpoints happen: the fold thread answers pressure, the timer and requests; the publish
// thread follows it, at its own pace, and tries again with back-off while the store cannot be
// reached. Requests that want the kernel's cache first go through the sync thread: the kernel may
// hand over more than the log holds, so folds must go on meanwhile.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint_internal.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"

#define BACKOFF_FIRST_MS 500u
#define BACKOFF_MAX_MS   30000u
#define FOLD_RETRY_MS    1000u
// So long a request waits for room in the quota, which publications make.
#define QUOTA_WAIT_MS 60000u
// People put a bucket right that has lost something, and they can ask for a publication.
#define DAMAGED_RETRY_MS (5u * 60 * 1000)

void
checkpoint_set_fold_phase(struct checkpoint *c, enum checkpoint_phase phase)
{
    lock_take(&c->lock);
    c->numbers.fold_phase = phase;
    lock_release(&c->lock);
}

void
checkpoint_set_publish_phase(struct checkpoint *c, enum checkpoint_phase phase)
{
    lock_take(&c->lock);
    c->numbers.publish_phase = phase;
    lock_release(&c->lock);
}

static bool
is_store_trouble(int rc)
{
    return rc == -EAGAIN || rc == -EBUSY || rc == -ETIMEDOUT || rc == -EACCES || rc == -ENXIO ||
           rc == -EPROTO;
}

static void
note_away_locked(struct checkpoint *c)
{
    c->numbers.store_reachable = false;
    if (c->publish.away_since_ms == 0)
        c->publish.away_since_ms = clock_monotonic_ms();
}

void
checkpoint_note_store_answers(struct checkpoint *c)
{
    lock_take(&c->lock);
    uint64_t since_ms = c->publish.away_since_ms;
    c->publish.away_since_ms = 0;
    c->numbers.store_reachable = true;
    c->numbers.failing = false;
    lock_release(&c->lock);
    if (since_ms == 0)
        return;
    struct log_event e;
    log_begin(&e, LOG_LEVEL_INFO, "store.back");
    log_u64(&e, "away_ms", clock_monotonic_ms() - since_ms);
    log_end(&e);
}

void
checkpoint_note_failure(struct checkpoint *c, const char *stage, int rc, const char *text)
{
    lock_take(&c->lock);
    c->numbers.failures++;
    c->numbers.failing = true;
    c->numbers.last_error_ms = clock_wall_ms();
    snprintf(c->numbers.last_error, sizeof(c->numbers.last_error), "%s: %s", stage,
        text && text[0] ? text : strerror(-rc));
    if (is_store_trouble(rc))
        note_away_locked(c);
    lock_release(&c->lock);
    struct log_event e;
    log_begin(&e, LOG_LEVEL_ERROR, "checkpoint.failed");
    log_string(&e, "stage", stage);
    log_string(&e, "error", text && text[0] ? text : strerror(-rc));
    log_bool(&e, "retryable", rc != -ESTALE);
    log_end(&e);
}

// ---- requests -----------------------------------------------------------------------------------

void
checkpoint_request(struct checkpoint *c, unsigned flags, checkpoint_done *done, void *argument)
{
    struct checkpoint_request *r = memory_alloc_zero(sizeof(*r));
    r->flags = flags;
    r->done = done;
    r->argument = argument;
    r->asked_ms = clock_monotonic_ms();
    bool sync = (flags & CHECKPOINT_REQUEST_SYNC_KERNEL) && c->options.host.sync_kernel;
    lock_take(&c->lock);
    list_append(sync ? &c->unsynced : &c->asked, &r->node);
    condition_signal(sync ? &c->sync_work : &c->fold.work);
    lock_release(&c->lock);
}

static struct checkpoint_request *
find_request_locked(struct checkpoint *c, const void *argument)
{
    struct list_node *lists[] = {
        &c->unsynced, &c->syncing, &c->asked, &c->folding, &c->folded, &c->served};
    for (unsigned i = 0; i < sizeof(lists) / sizeof(*lists); i++)
        LIST_FOR_EACH(lists[i], n)
        {
            struct checkpoint_request *r = CONTAINER_OF(n, struct checkpoint_request, node);
            if (r->argument == argument)
                return r;
        }
    return NULL;
}

bool
checkpoint_forget(struct checkpoint *c, void *argument)
{
    lock_take(&c->lock);
    struct checkpoint_request *r = find_request_locked(c, argument);
    if (r)
        list_remove(&r->node);
    lock_release(&c->lock);
    free(r);
    return r != NULL;
}

// Answers requests without the lock.
static void
answer(struct list_node *list, int result, struct generation generation)
{
    for (struct list_node *n; (n = list_take_first(list));) {
        struct checkpoint_request *r = CONTAINER_OF(n, struct checkpoint_request, node);
        r->done(r->argument, result, generation);
        free(r);
    }
}

// ---- the kernel's cache -------------------------------------------------------------------------

// One sync serves all requests made before it began; they go on to the fold, or fail with it.
static void
sync_run(void *argument)
{
    struct checkpoint *c = argument;
    struct generation none = {0};
    lock_take(&c->lock);
    while (!c->stopping) {
        if (list_is_empty(&c->unsynced)) {
            condition_wait(&c->sync_work, &c->lock);
            continue;
        }
        list_move_all(&c->syncing, &c->unsynced);
        lock_release(&c->lock);
        int rc = c->options.host.sync_kernel(c->options.host.argument);
        if (rc < 0)
            checkpoint_note_failure(c, "kernel sync", rc, NULL);
        struct list_node ready;
        list_init(&ready);
        lock_take(&c->lock);
        list_move_all(rc < 0 ? &ready : &c->asked, &c->syncing);
        condition_signal(&c->fold.work);
        lock_release(&c->lock);
        answer(&ready, rc, none);
        lock_take(&c->lock);
    }
    lock_release(&c->lock);
}

// ---- folding ------------------------------------------------------------------------------------

bool
checkpoint_has_flag(const struct checkpoint *c, unsigned flag)
{
    return (c->options.flags ? atomic_load(c->options.flags) : DB_FLAGS_DEFAULT) & flag;
}

void
checkpoint_hear_flags(struct checkpoint *c)
{
    lock_take(&c->lock);
    condition_signal(&c->fold.work);
    lock_release(&c->lock);
}

// When the timer wants a fold; 0: it does not run.
static uint64_t
timer_locked(const struct checkpoint *c)
{
    return c->holds == 0 && checkpoint_has_flag(c, DB_FLAG_CHECKPOINTS) ? c->next_timer_ms : 0;
}

static bool
must_fold_locked(const struct checkpoint *c, uint64_t now)
{
    uint64_t timer_ms = timer_locked(c);
    if (c->fold.pressed)
        return true;
    return (c->holds == 0 && !list_is_empty(&c->asked)) || (timer_ms != 0 && now >= timer_ms);
}

static struct generation
local_generation(struct checkpoint *c)
{
    struct manifest_reader *r;
    struct db_record db = {0};
    if (manifest_read_begin(c->options.manifest, &r) == 0) {
        if (manifest_read_db(r, c->options.db, &db) < 0)
            db.local.v = 0;
        manifest_read_end(r);
    }
    return db.local;
}

// The requests whose fold is done either wait for publication or are answered. Those of a fold that
// had no room in the quota wait for the next one.
static void
sort_requests(struct checkpoint *c, int rc, struct generation generation)
{
    struct list_node ready;
    list_init(&ready);
    uint64_t now = clock_monotonic_ms();
    lock_take(&c->lock);
    LIST_FOR_EACH(&c->folding, n)
    {
        struct checkpoint_request *r = CONTAINER_OF(n, struct checkpoint_request, node);
        list_remove(&r->node);
        if (rc == -EDQUOT && now - r->asked_ms < QUOTA_WAIT_MS) {
            list_append(&c->asked, &r->node);
            continue;
        }
        r->generation = generation;
        bool publish = rc >= 0 && (r->flags & CHECKPOINT_REQUEST_PUBLISH);
        list_append(publish ? &c->folded : &ready, &r->node);
        if (publish)
            c->publish.now = true;
    }
    condition_signal(&c->publish.work);
    lock_release(&c->lock);
    answer(&ready, rc < 0 ? rc : 0, generation);
}

static void
fold_once(struct checkpoint *c, bool timer)
{
    lock_take(&c->lock);
    list_move_all(&c->folding, &c->asked);
    bool pressed = c->fold.pressed;
    uint64_t rooms = c->fold.rooms;
    c->fold.pressed = false;
    if (!pressed) { // upkeep can wait, and this fold cannot
        c->fold.offer = c->offer;
        c->offer = NULL;
    }
    struct checkpoint_offer *offer = c->fold.offer;
    lock_release(&c->lock);
    checkpoint_set_cancelable(c, true, true);
    struct generation generation = {0};
    int rc = checkpoint_fold(c, &generation);
    checkpoint_offer_free(offer);
    checkpoint_set_cancelable(c, true, false);
    int reason = rc == -ECANCELED ? atomic_load(&c->fold.cancel) : 0;
    lock_take(&c->lock);
    c->fold.offer = NULL;
    c->numbers.folds += rc == 0;
    if (timer || rc == -EDQUOT)
        c->publish.due = true; // published images can be evicted
    if (rc < 0 && rc != -ESTALE && reason == 0)
        c->fold.pressed = true; // the rest is still there: again, after a pause
    c->fold.pressed |= reason != 0 && pressed;
    if (reason != 0 && reason != CANCEL_USER_REQUESTED) {
        // The next one serves the requests that wait.
        list_move_all(&c->asked, &c->folding);
        rc = 0;
    }
    c->fold.error = rc < 0 ? rc : 0;
    bool at_once = rc >= 0 || (rc == -EDQUOT && c->fold.rooms != rooms);
    c->fold.pause_ms = at_once ? 0 : clock_monotonic_ms() + c->options.fold_retry_ms;
    lock_release(&c->lock);
    if (rc == 1)
        generation = local_generation(c);
    sort_requests(c, rc, generation);
}

static void
fold_run(void *argument)
{
    struct checkpoint *c = argument;
    flush_pace_bind(c->options.pace);
    lock_take(&c->lock);
    while (!c->stopping) {
        uint64_t now = clock_monotonic_ms();
        if (!must_fold_locked(c, now) || now < c->fold.pause_ms) {
            uint64_t timer_ms = timer_locked(c);
            uint64_t until = timer_ms ? timer_ms : now + 3600000;
            if (now < c->fold.pause_ms)
                until = c->fold.pause_ms;
            condition_wait_until(&c->fold.work, &c->lock, until);
            continue;
        }
        uint64_t timer_ms = timer_locked(c);
        bool timer = timer_ms != 0 && now >= timer_ms;
        if (timer)
            c->next_timer_ms = now + c->options.interval_ms;
        lock_release(&c->lock);
        fold_once(c, timer);
        lock_take(&c->lock);
    }
    lock_release(&c->lock);
}

// A fold that had no room in the quota tries again at once.
static void
hear_room_locked(struct checkpoint *c)
{
    c->fold.rooms++;
    if (c->fold.error != -EDQUOT || c->fold.pause_ms == 0)
        return;
    c->fold.pause_ms = 0;
    condition_signal(&c->fold.work);
}

// ---- publishing ---------------------------------------------------------------------------------

static void
take_published_locked(struct checkpoint *c, struct generation generation, struct list_node *out)
{
    LIST_FOR_EACH(&c->served, n)
    {
        struct checkpoint_request *r = CONTAINER_OF(n, struct checkpoint_request, node);
        list_remove(&r->node);
        list_append(r->generation.v > generation.v ? &c->folded : out, &r->node);
    }
}

// The attempt that begins serves the requests that are folded by now. Later ones do not get its
// result. True when one of the served requests wants the store to be asked.
static bool
serve_requests_locked(struct checkpoint *c)
{
    bool ask = false;
    list_move_all(&c->served, &c->folded);
    LIST_FOR_EACH(&c->served, n)
    ask |= CONTAINER_OF(n, struct checkpoint_request, node)->flags & CHECKPOINT_REQUEST_ASK_STORE;
    return ask;
}

static void
publish_once(struct checkpoint *c)
{
    struct list_node ready;
    list_init(&ready);
    struct generation generation = {0};
    lock_take(&c->lock);
    bool ask = serve_requests_locked(c);
    lock_release(&c->lock);
    checkpoint_take_chain(c);
    checkpoint_set_cancelable(c, false, true);
    int rc = checkpoint_publish(c, ask, &generation);
    checkpoint_set_cancelable(c, false, false);
    checkpoint_release_chain(c);
    int reason = rc == -ECANCELED ? atomic_load(&c->publish.cancel) : 0;
    if (rc == 1)
        checkpoint_note_store_answers(c);
    lock_take(&c->lock);
    if (rc >= 0) {
        c->numbers.publications += rc == 1;
        if (rc == 1)
            hear_room_locked(c); // what is published can be evicted
        if (rc == 1 || list_is_empty(&c->served)) {
            c->numbers.store_reachable = true;
            c->numbers.failing = false;
        }
        c->publish.backoff_ms = 0;
        c->publish.retry_ms = 0;
        take_published_locked(c, generation, &ready);
    } else if (reason != 0) {
        // The next publication takes more. It serves the waiting requests, unless a user cancelled.
        c->publish.due = true;
        if (reason == CANCEL_USER_REQUESTED)
            list_move_all(&ready, &c->served);
        else
            list_move_all(&c->folded, &c->served);
    } else if (rc == -EUCLEAN) {
        // A fold that does without a damaged blob comes first, then they are served.
        list_move_all(&c->asked, &c->served);
        c->publish.due = true;
    } else {
        // Waiting requests get the error; the thread publishes again, later and later.
        c->publish.backoff_ms =
            c->publish.backoff_ms ? 2 * c->publish.backoff_ms : BACKOFF_FIRST_MS;
        if (c->publish.backoff_ms > BACKOFF_MAX_MS)
            c->publish.backoff_ms = BACKOFF_MAX_MS;
        c->publish.retry_ms = clock_monotonic_ms() +
                              (c->numbers.store_damaged ? DAMAGED_RETRY_MS : c->publish.backoff_ms);
        c->publish.due = rc != -ESTALE;
        list_move_all(&ready, &c->served);
    }
    if (!list_is_empty(&c->folded))
        c->publish.now = true;
    if (c->publish.mending) {
        c->fold.pressed = true;
        condition_signal(&c->fold.work);
    }
    lock_release(&c->lock);
    answer(&ready, rc < 0 ? rc : 0, generation);
}

static void
publish_run(void *argument)
{
    struct checkpoint *c = argument;
    flush_pace_bind(c->options.pace);
    lock_take(&c->lock);
    while (!c->stopping) {
        uint64_t now = clock_monotonic_ms();
        if (c->publish.check_due) {
            c->publish.check_due = false;
            lock_release(&c->lock);
            checkpoint_look_at_chain(c);
            lock_take(&c->lock);
            continue;
        }
        bool may = !c->publish.mending && c->holds == 0;
        bool due = may && (c->publish.now || (c->publish.due && now >= c->publish.retry_ms));
        if (!due) {
            bool later = c->publish.due && may;
            condition_wait_until(
                &c->publish.work, &c->lock, later ? c->publish.retry_ms : now + 3600000);
            continue;
        }
        c->publish.now = c->publish.due = false;
        lock_release(&c->lock);
        publish_once(c);
        lock_take(&c->lock);
    }
    lock_release(&c->lock);
}

// ---- life ---------------------------------------------------------------------------------------

void
checkpoint_press(struct checkpoint *c)
{
    lock_take(&c->lock);
    if (!c->fold.pressed) {
        c->fold.pressed = true;
        condition_signal(&c->fold.work);
    }
    lock_release(&c->lock);
}

void
checkpoint_hear_room(struct checkpoint *c)
{
    lock_take(&c->lock);
    hear_room_locked(c);
    lock_release(&c->lock);
}

void
checkpoint_make_offer(struct checkpoint *c, struct checkpoint_offer *offer)
{
    lock_take(&c->lock);
    struct checkpoint_offer *old = c->offer;
    c->offer = offer;
    lock_release(&c->lock);
    checkpoint_offer_free(old);
}

bool
checkpoint_has_offer(struct checkpoint *c)
{
    lock_take(&c->lock);
    bool has = c->offer || c->fold.offer;
    lock_release(&c->lock);
    return has;
}

int
checkpoint_fold_error(struct checkpoint *c)
{
    lock_take(&c->lock);
    int error = c->fold.error;
    lock_release(&c->lock);
    return error;
}

void
checkpoint_check_owner(struct checkpoint *c)
{
    lock_take(&c->lock);
    c->publish.check_due = true;
    condition_signal(&c->publish.work);
    lock_release(&c->lock);
}

void
checkpoint_numbers(struct checkpoint *c, struct checkpoint_numbers *numbers_out)
{
    lock_take(&c->lock);
    *numbers_out = c->numbers;
    numbers_out->claimed = c->publish.claimed;
    if (c->numbers.publish_phase == CHECKPOINT_PHASE_UPLOADING) {
        uint64_t ms = clock_monotonic_ms() - c->publish.upload_began_ms;
        numbers_out->upload_rate_bytes = c->numbers.done_bytes * 1000 / (ms ? ms : 1);
    }
    lock_release(&c->lock);
}

// Takes over the job that an earlier process left: it keeps its id.
static int
find_job(void *argument, const struct job_record *job)
{
    struct checkpoint *c = argument;
    if (job->kind == JOB_CREATE_CHECKPOINT &&
        (job->state == JOB_PENDING || job->state == JOB_IN_FLIGHT))
        c->job = *job;
    return 0;
}

static void
free_checkpoint(struct checkpoint *c)
{
    condition_destroy(&c->sync_work);
    condition_destroy(&c->fold.work);
    condition_destroy(&c->publish.work);
    condition_destroy(&c->publish.chain_free);
    lease_map_free(c->leases);
    lock_destroy(&c->lock);
    free(c->fold.unlink_later);
    free(c->fold.unreadable);
    checkpoint_offer_free(c->offer);
    pin_end(c->publish.pin);
    free(c->publish.damaged);
    free(c);
}

static void
stop_threads(struct checkpoint *c)
{
    lock_take(&c->lock);
    c->stopping = true;
    atomic_store(&c->canceled, true);
    condition_broadcast(&c->sync_work);
    condition_broadcast(&c->fold.work);
    condition_broadcast(&c->publish.work);
    lock_release(&c->lock);
    for (unsigned i = 0; i < c->thread_count; i++)
        thread_join(&c->threads[i]);
}

static int
start_threads(struct checkpoint *c)
{
    static const struct {
        const char *name;
        void (*run)(void *argument);
    } threads[CHECKPOINT_THREADS] = {
        {"checkpoint", fold_run}, {"publish", publish_run}, {"sync", sync_run}};
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < CHECKPOINT_THREADS; i++) {
        rc = thread_start(&c->threads[i], threads[i].name, threads[i].run, c);
        c->thread_count += rc == 0;
    }
    if (rc < 0)
        stop_threads(c);
    return rc;
}

bool
checkpoint_is_canceled(void *argument)
{
    struct checkpoint *c = argument;
    return atomic_load(&c->canceled);
}

int
checkpoint_start(const struct checkpoint_options *options, struct checkpoint **checkpoint_out)
{
    *checkpoint_out = NULL;
    struct checkpoint *c = memory_alloc_zero(sizeof(*c));
    c->options = *options;
    if (c->options.fold_retry_ms == 0)
        c->options.fold_retry_ms = FOLD_RETRY_MS;
    c->leases = lease_map_new();
    c->publish.claimed = options->claimed;
    c->options.place.call_ms = options->upload_deadline_ms;
    c->options.place.call =
        (struct remote_call){.is_canceled = checkpoint_is_canceled, .argument = c};
    lock_init(&c->lock, "checkpoint", LOCK_RANK_CHECKPOINT);
    condition_init(&c->sync_work);
    condition_init(&c->fold.work);
    condition_init(&c->publish.work);
    condition_init(&c->publish.chain_free);
    list_init(&c->unsynced);
    list_init(&c->syncing);
    list_init(&c->asked);
    list_init(&c->folding);
    list_init(&c->folded);
    list_init(&c->served);
    c->numbers.store_reachable = true;
    if (options->claimed)
        checkpoint_note_lease(c, options->lease_ttl_ms / 2);
    if (!options->claimed)
        note_away_locked(c);
    if (options->interval_ms > 0)
        c->next_timer_ms = clock_monotonic_ms() + options->interval_ms;
    c->publish.due = true;                          // in case an earlier process left one
    c->publish.next_walk_ms = clock_monotonic_ms(); // the first publication looks at more
    random_bytes(&c->publish.blob_cursor, sizeof(c->publish.blob_cursor));
    struct manifest_reader *r;
    int rc = manifest_read_begin(options->manifest, &r);
    if (rc == 0) {
        rc = manifest_read_jobs(r, options->db, find_job, c);
        manifest_read_end(r);
    }
    c->publish.uploads_begun = c->job.id != 0;
    if (rc == 0)
        rc = start_threads(c);
    if (rc < 0) {
        free_checkpoint(c);
        return rc;
    }
    *checkpoint_out = c;
    return 0;
}

void
checkpoint_stop(struct checkpoint *c)
{
    if (!c)
        return;
    stop_threads(c);
    struct generation none = {0};
    answer(&c->unsynced, -ECANCELED, none);
    answer(&c->syncing, -ECANCELED, none);
    answer(&c->asked, -ECANCELED, none);
    answer(&c->folding, -ECANCELED, none);
    answer(&c->folded, -ECANCELED, none);
    answer(&c->served, -ECANCELED, none);
    free_checkpoint(c);
}
