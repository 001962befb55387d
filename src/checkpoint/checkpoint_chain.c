// SPDX-License-Identifier: Apache-2.0
// Turns to add to the chain of records: of the publish thread, and of threads that tell changes
// between two publications. A record names its predecessor, so that one is staged only when the one
// before is recorded.
#include <errno.h>

#include "checkpoint/checkpoint_internal.h"
#include "platform/clock.h"
#include "remote/remote_retention.h"

// How soon a thread that waits for its turn learns that it need not wait any more.
#define POLL_MS 100u

// 0, or -ECANCELED by `call` (may be NULL).
static int
take_chain(struct checkpoint *c, const struct remote_call *call)
{
    int rc = 0;
    lock_take(&c->lock);
    while (rc == 0 && c->publish.chain_busy) {
        condition_wait_until(&c->publish.chain_free, &c->lock, clock_monotonic_ms() + POLL_MS);
        if (call && remote_call_is_canceled(call))
            rc = -ECANCELED;
    }
    if (rc == 0)
        c->publish.chain_busy = true;
    lock_release(&c->lock);
    return rc;
}

void
checkpoint_take_chain(struct checkpoint *c)
{
    (void)take_chain(c, NULL);
}

void
checkpoint_release_chain(struct checkpoint *c)
{
    lock_take(&c->lock);
    c->publish.chain_busy = false;
    condition_signal(&c->publish.chain_free);
    lock_release(&c->lock);
}

int
checkpoint_tell(struct checkpoint *c, const struct remote_place *place,
    const struct change *changes, size_t count, uint64_t lowest)
{
    int rc = take_chain(c, &place->call);
    if (rc < 0)
        return rc;
    lock_take(&c->lock);
    bool claimed = c->publish.claimed;
    lock_release(&c->lock);
    rc = -EAGAIN;
    if (claimed)
        rc =
            remote_manifest_tell(place, c->options.manifest, c->options.db, changes, count, lowest);
    checkpoint_release_chain(c);
    // Another host, or a record of this one whose answer was lost.
    if (rc == -ESTALE)
        checkpoint_check_owner(c);
    return rc;
}
