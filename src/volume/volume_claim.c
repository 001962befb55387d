// SPDX-License-Identifier: Apache-2.0
// Whether this root may go on with the volume: it catches up with the bucket and claims the volume,
// finds that another writer was there, or goes on without the store.
#include <errno.h>
#include <string.h>

#include "platform/log.h"
#include "platform/random.h"
#include "volume/volume_internal.h"

// A root that has the volume does not wait longer for the store: the publisher claims the volume
// later.
#define CLAIM_CALL_MS 10000u

static bool
is_unreachable(int rc)
{
    return rc == -EAGAIN || rc == -EBUSY || rc == -ETIMEDOUT || rc == -EACCES || rc == -EPROTO;
}

static bool
has_unpublished(struct volume *v, const struct db_record *db)
{
    // A new volume's root directory is made at every first mount; it is no user's data.
    size_t nobodys = db->local.v == 0 ? 1 : 0;
    lock_take(&v->lock);
    bool dirty = namespace_set_count(v->names) > nobodys || !page_store_is_clean_locked(v->pages);
    lock_release(&v->lock);
    return db->local.v > db->published.v || dirty;
}

// The volume went on elsewhere. 1: start over from the bucket.
static int
start_over(struct volume *v, const struct db_record *db, const char *host, struct buffer *error)
{
    if (has_unpublished(v, db) && !v->config.discard_unpublished) {
        volume_error(error,
            "%s was taken over by %s, and the storage root %s holds changes that were never "
            "published. To give them up and go on from the bucket, mount with -o "
            "discard_unpublished; to keep them for inspection, move the root away",
            v->config.source, host[0] ? host : "another host", v->config.root);
        return -EBUSY;
    }
    log_warning("volume.start_over", "%s was taken over meanwhile; going on from the bucket",
        v->config.source);
    int rc = volume_drop_db(v, error);
    return rc < 0 ? rc : 1;
}

static int
refuse_claim(struct volume *v, const struct remote_lease *lease, struct buffer *error)
{
    uint64_t left = lease->ttl_ms > lease->age_ms ? (lease->ttl_ms - lease->age_ms) / 1000 + 1 : 1;
    volume_error(error,
        "%s is mounted for writing by %s (its lease runs out in %llu s unless it is renewed). "
        "Unmount it there, wait, mount with -o ro, or take it over with -o takeover (changes that "
        "host has not published will be lost)",
        v->config.source, lease->host[0] ? lease->host : "another host", (unsigned long long)left);
    return -EBUSY;
}

// The store lacks the generation that this root published. When another volume was made there:
// -EBUSY with a text, since no write here could ever go to it.
static int
refuse_other_volume(struct volume *v, const struct remote_place *place, const struct db_record *db,
    struct buffer *error)
{
    struct uuid there;
    char here_text[37], there_text[37];
    if (remote_manifest_identity(place, &there) < 0 || uuid_equal(&there, &db->volume))
        return 0;
    uuid_to_string(&db->volume, here_text);
    uuid_to_string(&there, there_text);
    volume_error(error,
        "%s holds volume %s, and the storage root %s holds another one of that name, volume %s: "
        "the "
        "bucket or directory was made anew, or something else was put in its place. Nothing was "
        "changed. To mount the volume in the store, give another storage root with -o root=, or "
        "move "
        "this one away, which gives up its unpublished changes; to go on with volume %s, "
        "put its objects back into the store",
        v->config.source, there_text, v->config.root, here_text, here_text);
    return -EBUSY;
}

// The chain in the store is in order, and the manifest contradicts it: the manifest is damaged,
// though each of its entries verifies.
static int
refuse_contradiction(struct volume *v, const struct remote_place *place, const struct db_record *db,
    struct buffer *error)
{
    const char *what;
    if (remote_manifest_is_contradicted(place, db, &what) <= 0)
        return 0;
    volume_error(error,
        "the manifest in %s is damaged: it and record %llu in %s, the last one that this root has "
        "seen, disagree about %s. Nothing was changed. Move %s/manifest away and mount again: it "
        "is then made anew from the store and the write-ahead log, if nothing is lost by that",
        v->config.root, (unsigned long long)db->remote_sequence, v->config.source, what,
        v->config.root);
    log_error("manifest.damaged", "%s", buffer_string(error));
    return -EBADMSG;
}

int
volume_claim(struct volume *v, struct db_record *db, struct buffer *error)
{
    struct remote_place place = v->place;
    if (place.call_ms > CLAIM_CALL_MS)
        place.call_ms = CLAIM_CALL_MS;
    for (int attempt = 0; attempt < CLAIM_ATTEMPTS; attempt++) {
        struct remote_catch_up found = {0};
        int rc = remote_manifest_catch_up(&place, v->manifest, db, &found);
        if (rc == 0 && (found.foreign || db->fenced))
            return start_over(v, db, found.foreign_host, error);
        struct remote_lease lease = {0};
        if (rc == 0)
            rc = remote_manifest_claim(
                &place, v->manifest, db, v->config.lease_ttl_ms, v->config.takeover, &lease);
        if (rc == 0) {
            wal_set_writer_epoch(v->wal, db->epoch);
            v->own.claimed = true;
            return 0;
        }
        if (rc == -EBUSY && lease.ttl_ms > 0)
            return refuse_claim(v, &lease, error);
        if (is_unreachable(rc)) {
            volume_say(v,
                "%s is mounted without being claimed, because the store cannot be reached: %s. "
                "Changes are kept in %s and are published when the store is back, unless another "
                "host takes the volume before",
                v->config.source, remote_store_error(), v->config.root);
            return 0;
        }
        if (rc == -EBADMSG && refuse_contradiction(v, &place, db, error) < 0)
            return -EBADMSG;
        if (rc == -EBADMSG && refuse_other_volume(v, &place, db, error) < 0)
            return -EBUSY;
        // This root may have the only copy.
        if (rc == -EBADMSG) {
            volume_say(v,
                "%s is mounted without being claimed, because the store has lost or changed what "
                "was "
                "published: %s. Changes are kept in %s and are not published until that is put "
                "right",
                v->config.source, remote_store_error(), v->config.root);
            return 0;
        }
        if (rc != -ESTALE)
            return volume_store_failed(v, error, "claim", rc);
    }
    volume_error(error, "%s: other hosts keep claiming it; try again", v->config.source);
    return -EBUSY;
}
