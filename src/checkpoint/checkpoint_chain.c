// SPDX-License-Identifier: Apache-2.0
// Who adds to the chain of records: the publish thread, and those who tell something between two
// publications. A record names its predecessor, so that one is staged only when the one before is
// recorded.
#include <errno.h>

#include "checkpoint/checkpoint_internal.h"
#include "remote/remote_retention.h"

void
checkpoint_take_chain(struct checkpoint *c)
{
    lock_take(&c->lock);
    while (c->publish.chain_busy)
        condition_wait(&c->publish.chain_free, &c->lock);
    c->publish.chain_busy = true;
    lock_release(&c->lock);
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
checkpoint_tell(struct checkpoint *c, const struct change *changes, size_t count, uint64_t lowest)
{
    checkpoint_take_chain(c);
    lock_take(&c->lock);
    bool claimed = c->publish.claimed;
    lock_release(&c->lock);
    int rc = -EAGAIN;
    if (claimed)
        rc = remote_manifest_tell(
            &c->options.place, c->options.manifest, c->options.db, changes, count, lowest);
    checkpoint_release_chain(c);
    // Another host, or a record of this one whose answer was lost.
    if (rc == -ESTALE)
        checkpoint_check_owner(c);
    return rc;
}
