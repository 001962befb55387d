// SPDX-License-Identifier: Apache-2.0
#include "store/hedged_store.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "store/store_forward.h"
#include "store/store_internal.h"

#define THREADS_MAX    16u
#define CANCEL_POLL_MS 50u
#define TEXT_BYTES     1024u

struct hedged_store {
    struct forwarding_store forward;
    atomic_bool on;
    struct lock lock; // "hedged_store": protects all below, and races
    struct condition work;
    struct condition done;
    struct list_node queue; // of attempts
    unsigned idle, queued, thread_count;
    bool stopping;
    struct hedged_delay delay;
    struct hedged_numbers numbers;
    struct thread threads[THREADS_MAX];
};

struct race;

struct attempt {
    struct list_node node;
    struct race *race;
    bool started, done;
    int rc;
    struct buffer bytes;
    char text[TEXT_BYTES]; // of its failure
};

// One call, sent once or twice. Each attempt that was queued and the caller have a reference.
struct race {
    struct hedged_store *hs;
    char *key;
    uint64_t offset, length;
    struct remote_call call; // with a cancel function of its own: the caller may be gone
    atomic_bool over;
    unsigned references;
    struct attempt attempts[2];
};

static struct hedged_store *
hedged_store_of(struct remote_store *s)
{
    return CONTAINER_OF(s, struct hedged_store, forward.base);
}

// ---- when a request is late ---------------------------------------------------------------------

static int
compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void
hedged_delay_note(struct hedged_delay *d, uint64_t ms)
{
    uint32_t sorted[HEDGE_SAMPLES];
    d->samples[d->count % HEDGE_SAMPLES] = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
    if (++d->count == 2 * HEDGE_SAMPLES)
        d->count = HEDGE_SAMPLES;
    if (d->count < HEDGE_LEAST || d->count % (HEDGE_LEAST / 4) != 0)
        return;
    unsigned n = d->count < HEDGE_SAMPLES ? d->count : HEDGE_SAMPLES;
    memcpy(sorted, d->samples, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), compare);
    d->delay_ms = sorted[n * 19 / 20] + 1;
    if (d->delay_ms < HEDGE_FLOOR_MS)
        d->delay_ms = HEDGE_FLOOR_MS;
}

// ---- attempts -----------------------------------------------------------------------------------

static bool
is_over(void *argument)
{
    const struct race *race = argument;
    return atomic_load(&race->over);
}

static void
put_race_locked(struct race *race)
{
    if (--race->references > 0)
        return;
    for (unsigned i = 0; i < 2; i++)
        buffer_free(&race->attempts[i].bytes);
    free(race->key);
    free(race);
}

static void
run_attempt(struct attempt *a)
{
    struct race *race = a->race;
    struct hedged_store *hs = race->hs;
    int rc = remote_store_get_blob(
        hs->forward.inner, race->key, race->offset, race->length, &a->bytes, &race->call);
    if (rc < 0)
        (void)snprintf(a->text, sizeof(a->text), "%s", remote_store_error());
    lock_take(&hs->lock);
    a->rc = rc;
    a->done = true;
    condition_broadcast(&hs->done);
    put_race_locked(race);
    lock_release(&hs->lock);
}

static void
run(void *argument)
{
    struct hedged_store *hs = argument;
    lock_take(&hs->lock);
    while (!hs->stopping) {
        struct list_node *node = list_take_first(&hs->queue);
        if (!node) {
            hs->idle++;
            condition_wait(&hs->work, &hs->lock);
            hs->idle--;
            continue;
        }
        hs->queued--;
        lock_release(&hs->lock);
        run_attempt(CONTAINER_OF(node, struct attempt, node));
        lock_take(&hs->lock);
    }
    lock_release(&hs->lock);
}

// False: there is no thread for it.
static bool
start_locked(struct hedged_store *hs, struct race *race, unsigned i)
{
    if (hs->idle <= hs->queued) {
        if (hs->thread_count == THREADS_MAX ||
            thread_start(&hs->threads[hs->thread_count], "hedge", run, hs) < 0)
            return false;
        hs->thread_count++;
    }
    struct attempt *a = &race->attempts[i];
    a->race = race;
    a->started = true;
    race->references++;
    list_append(&hs->queue, &a->node);
    hs->queued++;
    condition_signal(&hs->work);
    return true;
}

// ---- races --------------------------------------------------------------------------------------

// An attempt that has the answer: one that succeeded, or the last one of those that failed. -1:
// there is none yet.
static int
winner_locked(const struct race *race)
{
    int failed = -1;
    for (int i = 0; i < 2; i++) {
        const struct attempt *a = &race->attempts[i];
        if (a->started && !a->done)
            failed = -2;
        else if (a->started && a->rc == 0)
            return i;
        else if (a->started && failed != -2)
            failed = i;
    }
    return failed < 0 ? -1 : failed;
}

// Waits for an answer; sends the second request when the first one is late.
static int
run_race_locked(
    struct hedged_store *hs, struct race *race, const struct remote_call *call, uint64_t begin_ms)
{
    uint64_t late_ms = hs->delay.delay_ms > 0 ? begin_ms + hs->delay.delay_ms : UINT64_MAX;
    int winner;
    while ((winner = winner_locked(race)) < 0) {
        uint64_t now = clock_monotonic_ms();
        if (remote_call_is_canceled(call))
            return -1;
        if (now >= late_ms) {
            hs->numbers.sent += start_locked(hs, race, 1);
            late_ms = UINT64_MAX;
            continue;
        }
        condition_wait_until(
            &hs->done, &hs->lock, late_ms < now + CANCEL_POLL_MS ? late_ms : now + CANCEL_POLL_MS);
    }
    hs->numbers.won += winner == 1 && race->attempts[1].rc == 0;
    return winner;
}

static struct race *
new_race(struct hedged_store *hs, const char *key, uint64_t offset, uint64_t length,
    const struct remote_call *call)
{
    struct race *race = memory_alloc_zero(sizeof(*race));
    race->hs = hs;
    race->key = memory_string(key);
    race->offset = offset;
    race->length = length;
    race->references = 1;
    race->call = *call;
    race->call.is_canceled = is_over;
    race->call.argument = race;
    return race;
}

static int
take_answer(const struct race *race, int winner, const char *key, struct buffer *out)
{
    if (winner < 0)
        return store_fail(-ECANCELED, "get %s: canceled", key);
    const struct attempt *a = &race->attempts[winner];
    if (a->rc < 0)
        return store_fail(a->rc, "%s", a->text);
    buffer_append(out, a->bytes.data, a->bytes.length);
    return 0;
}

static int
hedged_get(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    struct hedged_store *hs = hedged_store_of(s);
    if (!atomic_load(&hs->on) || !call->paced || call->class != REMOTE_FOREGROUND)
        return remote_store_get_blob(hs->forward.inner, key, offset, length, out, call);
    uint64_t begin_ms = clock_monotonic_ms();
    struct race *race = new_race(hs, key, offset, length, call);
    thread_will_wait();
    lock_take(&hs->lock);
    bool started = start_locked(hs, race, 0);
    int winner = started ? run_race_locked(hs, race, call, begin_ms) : -1;
    int rc = take_answer(race, winner, key, out);
    if (rc == 0)
        hedged_delay_note(&hs->delay, clock_monotonic_ms() - begin_ms);
    atomic_store(&race->over, true);
    put_race_locked(race);
    lock_release(&hs->lock);
    return started ? rc : remote_store_get_blob(hs->forward.inner, key, offset, length, out, call);
}

// ---- life ---------------------------------------------------------------------------------------

// No call is under way, but losers of races may be.
static void
hedged_close(struct remote_store *s)
{
    struct hedged_store *hs = hedged_store_of(s);
    lock_take(&hs->lock);
    hs->stopping = true;
    condition_broadcast(&hs->work);
    // Only losers wait here: the callers have gone.
    for (struct list_node *node; (node = list_take_first(&hs->queue));)
        put_race_locked(CONTAINER_OF(node, struct attempt, node)->race);
    lock_release(&hs->lock);
    for (unsigned i = 0; i < hs->thread_count; i++)
        thread_join(&hs->threads[i]);
    remote_store_close(hs->forward.inner);
    condition_destroy(&hs->done);
    condition_destroy(&hs->work);
    lock_destroy(&hs->lock);
    free(hs);
}

static const struct remote_store_ops hedged_store_ops = {
    .put_blob = store_forward_put,
    .get_blob = hedged_get,
    .head_blob = store_forward_head,
    .list_blobs = store_forward_list,
    .delete_blobs = store_forward_delete,
    .sweep_uploads = store_forward_sweep_uploads,
    .probe = store_forward_probe,
    .trouble = store_forward_trouble,
    .close = hedged_close,
};

struct remote_store *
hedged_store_wrap(struct remote_store *inner)
{
    struct hedged_store *hs = memory_alloc_zero(sizeof(*hs));
    store_forward_init(&hs->forward, &hedged_store_ops, inner);
    lock_init(&hs->lock, "hedged_store", LOCK_RANK_STORE);
    condition_init(&hs->work);
    condition_init(&hs->done);
    list_init(&hs->queue);
    return &hs->forward.base;
}

void
hedged_store_turn(struct remote_store *s, bool on)
{
    atomic_store(&hedged_store_of(s)->on, on);
}

void
hedged_store_numbers(struct remote_store *s, struct hedged_numbers *numbers_out)
{
    struct hedged_store *hs = hedged_store_of(s);
    lock_take(&hs->lock);
    *numbers_out = hs->numbers;
    lock_release(&hs->lock);
}
