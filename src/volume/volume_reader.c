// SPDX-License-Identifier: Apache-2.0
// A mount from the bucket alone pins the generation that it shows, so that the owner of the volume
// does not delete it: it writes a pin at the mount, renews it from time to time, and deletes it at
// the end. The pin of a mount that died runs out (READER_PIN_MS). A user who may not write to the
// store gets a warning: without a pin only the grace period of the policy protects the generation.
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "retention/collect.h"
#include "retention/snapshot.h"
#include "volume/volume_internal.h"

// A few renewals may fail before the pin runs out.
#define RENEW_MS (READER_PIN_MS / 4)
#define CALL_MS  30000u

struct volume_reader {
    struct remote_place place;
    struct remote_pin pin;
    struct thread thread;
    bool started;
    atomic_bool canceled;

    struct lock lock; // "reader": protects `stopping`
    struct condition work;
    bool stopping;
};

static bool
is_canceled(void *argument)
{
    const struct volume_reader *r = argument;
    return atomic_load(&r->canceled);
}

static void
reader_run(void *argument)
{
    struct volume_reader *r = argument;
    uint64_t next_ms = clock_monotonic_ms() + RENEW_MS;
    lock_take(&r->lock);
    while (!r->stopping) {
        if (clock_monotonic_ms() < next_ms) {
            condition_wait_until(&r->work, &r->lock, next_ms);
            continue;
        }
        lock_release(&r->lock);
        int rc = remote_pin_put(&r->place, &r->pin);
        next_ms = clock_monotonic_ms() + (rc == 0 ? RENEW_MS : RENEW_MS / 8);
        lock_take(&r->lock);
    }
    lock_release(&r->lock);
}

void
volume_start_reader(struct volume *v, struct generation generation)
{
    struct volume_reader *r = memory_alloc_zero(sizeof(*r));
    struct uuid id = random_uuid();
    r->place = v->place; // the host may cancel its calls until the volume is open
    r->place.call_ms = CALL_MS;
    r->pin.kind = PIN_READER;
    r->pin.generation = generation;
    uuid_to_string(&id, r->pin.name);
    lock_init(&r->lock, "reader", LOCK_RANK_CONTROL);
    condition_init(&r->work);
    v->bucket_reader = r;
    BUFFER_AUTO problem = {0};
    if (snapshot_pin(&r->place, &r->pin, &problem) < 0) {
        volume_say(v,
            "%s: generation %" PRIu64 " cannot be pinned (%s). It can be read until it has "
            "expired and the grace period of the retention policy is over",
            v->config.source, generation.v, buffer_string(&problem));
        return;
    }
    r->place.call = (struct remote_call){.is_canceled = is_canceled, .argument = r};
    r->started = thread_start(&r->thread, "pin", reader_run, r) == 0;
    if (!r->started)
        volume_say(v, "%s: there is no thread to renew the pin, which is good for an hour",
            v->config.source);
}

void
volume_stop_reader(struct volume *v)
{
    struct volume_reader *r = v->bucket_reader;
    if (!r)
        return;
    lock_take(&r->lock);
    r->stopping = true;
    atomic_store(&r->canceled, true);
    condition_signal(&r->work);
    lock_release(&r->lock);
    if (r->started)
        thread_join(&r->thread);
    atomic_store(&r->canceled, false);
    // It runs out by itself when this does not come about.
    r->place.call_ms = 2000;
    if (r->started && remote_pin_delete(&r->place, &r->pin) < 0)
        log_warning("retention.pin_left", "the pin of this mount stays for an hour");
    condition_destroy(&r->work);
    lock_destroy(&r->lock);
    free(r);
    v->bucket_reader = NULL;
}
