// SPDX-License-Identifier: Apache-2.0
// Whether the bucket still holds the published objects. A publication that builds on missing
// objects would be of no use to any reader; so each publication looks first, at a price that does
// not grow:
//
//     each publication                 the newest record
//     each that a user asked for        also the records that readers need, the newest catalog
//                                      and one blob
//     the first after ten minutes      the same and eight blobs, others each time
//
// The publish thread writes nothing more to a bucket that has lost something: readers find the
// bucket as it is, the local generations go on, and the storage root keeps all that is needed to
// fill the bucket again.
#include <errno.h>
#include <string.h>

#include "checkpoint/checkpoint_internal.h"
#include "platform/clock.h"
#include "platform/log.h"

#define WALK_INTERVAL_MS (10ull * 60 * 1000)
#define BLOBS_ASKED      1u
#define BLOBS_WALKED     8u

void
checkpoint_note_bucket(struct checkpoint *c, int rc)
{
    lock_take(&c->lock);
    bool before = c->numbers.store_damaged;
    if (rc >= 0 || rc == -EBADMSG)
        c->numbers.store_damaged = rc == -EBADMSG;
    bool after = c->numbers.store_damaged;
    lock_release(&c->lock);
    if (after && !before)
        log_error("store.damaged",
            "the store has lost or changed published objects: %s. Nothing is published until they "
            "are back; the storage root keeps the changes",
            remote_store_error());
    else if (before && !after)
        log_info("store.mended", "the published objects are in the store again");
}

bool
checkpoint_bucket_is_damaged(struct checkpoint *c)
{
    lock_take(&c->lock);
    bool damaged = c->numbers.store_damaged;
    lock_release(&c->lock);
    return damaged;
}

// The publish thread's own: `next_walk_ms`, `blob_cursor`, `catalog_lost`.
static int
walk(struct checkpoint *c, const struct remote_place *place, const struct db_record *db, bool due)
{
    bool lost = false;
    int followed = remote_manifest_check_chain(place, db, &lost);
    if (followed < 0)
        return followed;
    if (lost && !c->publish.catalog_lost)
        log_warning("store.catalog_lost", "the newest catalog is gone; a new one will be written");
    c->publish.catalog_lost |= lost;
    int rc = remote_manifest_check_blobs(place, c->options.manifest, c->options.db,
        &c->publish.blob_cursor, due ? BLOBS_WALKED : BLOBS_ASKED);
    return rc < 0 ? rc : followed;
}

int
checkpoint_check_bucket(
    struct checkpoint *c, const struct remote_place *place, const struct db_record *db, bool asked)
{
    uint64_t now = clock_monotonic_ms();
    bool due = now >= c->publish.next_walk_ms;
    int rc = remote_manifest_check_head(place, db);
    if (rc == 0 && (asked || due))
        rc = walk(c, place, db, due);
    if (rc >= 0 && due)
        c->publish.next_walk_ms = now + WALK_INTERVAL_MS;
    checkpoint_note_bucket(c, rc);
    return rc;
}
