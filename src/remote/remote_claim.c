// SPDX-License-Identifier: Apache-2.0
// Claiming a volume for writing. In order:
//
//     1. The root looks the record at db's position up and verifies it: its writer owns the volume.
//        (A bucket that was restored to an older state shows here.) Its volume, name key and
//        generation must be those of the manifest, before the root writes anything.
//     2. Unless that is this root, or `takeover`, the owner's lease must be released, too old, or
//        missing with a record that is too old.
//     3. The root notes the next epoch in the manifest, position unchanged. Should this process
//        die, the next one knows by it that an OPEN record of that epoch is its own, and not that
//        of a copy of this storage root that was started elsewhere.
//     4. The root creates the OPEN record: it has claimed the volume, or lost to a host that came
//        first.
//     5. The root writes the lease and records the position.
#include <errno.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/random.h"
#include "remote/remote_internal.h"

// Names the field in which db and the record at its position disagree, or NULL.
static const char *
disagreement(const struct db_record *db, const struct manifest_record_header *h)
{
    return !uuid_equal(&h->volume, &db->volume)       ? "the volume"
           : !uuid_equal(&h->name_key, &db->name_key) ? "the key of the names"
           : h->generation.v != db->published.v       ? "the published generation"
                                                      : NULL;
}

// Fetches the record at db's position. `verified_out`: it has the hash that db keeps.
static int
fetch_at_position(const struct remote_place *place, const struct db_record *db, const char *key,
    uint64_t bytes, struct manifest_record_header *h_out, bool *verified_out)
{
    // A large one was verified when it was imported or written; its header will do.
    *verified_out = bytes <= REMOTE_MEMORY_BYTES;
    return *verified_out ? remote_record_fetch(place, key, bytes, &db->remote_hash, h_out)
                         : remote_header_fetch(place, key, bytes, h_out);
}

int
remote_manifest_is_contradicted(
    const struct remote_place *place, const struct db_record *db, const char **what_out)
{
    BUFFER_AUTO name = {0};
    struct remote_head head;
    struct manifest_record_header h;
    bool verified = false;
    *what_out = NULL;
    remote_key(place, REMOTE_RECORD, db->remote_sequence, &name);
    const char *key = buffer_string(&name);
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_head_blob(place->store, key, &head, &call);
    if (rc == 0)
        rc = fetch_at_position(place, db, key, head.size, &h, &verified);
    if (rc < 0)
        return rc;
    // A large record that is of this volume is the one that was there, or the bucket is damaged.
    if (verified || (h.sequence == db->remote_sequence && uuid_equal(&h.volume, &db->volume)))
        *what_out = disagreement(db, &h);
    return *what_out ? 1 : 0;
}

// Step 1: the header of the newest record, which must be the one at db's position. -ESTALE when
// there are newer ones.
static int
find_owner(const struct remote_place *place, const struct db_record *db,
    struct manifest_record_header *owner_out)
{
    struct remote_walk walk;
    uint64_t sequence, bytes, next, next_bytes;
    remote_walk_begin(&walk, place, REMOTE_RECORD, db->remote_sequence - 1);
    int rc = remote_walk_next(&walk, &sequence, &bytes);
    bool found = rc > 0 && sequence == db->remote_sequence;
    if (found)
        rc = remote_walk_next(&walk, &next, &next_bytes);
    remote_walk_end(&walk);
    if (rc < 0)
        return rc;
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_RECORD, db->remote_sequence, &name);
    const char *key = buffer_string(&name);
    if (!found)
        return remote_log_bad(key, "the record is missing");
    if (rc > 0)
        return -ESTALE;
    bool verified = false;
    rc = fetch_at_position(place, db, key, bytes, owner_out, &verified);
    if (rc == 0 && (owner_out->sequence != db->remote_sequence || disagreement(db, owner_out)))
        rc = remote_log_bad(key, verified ? "the manifest of this storage root contradicts it"
                                          : "it is not the record that was there before");
    return rc;
}

// The owner wrote a record and no lease: it died in between, or is about to write it.
static int
lease_from_record(const struct remote_place *place, const struct manifest_record_header *owner,
    struct remote_lease *lease_out)
{
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_RECORD, owner->sequence, &name);
    const char *key = buffer_string(&name);
    struct remote_head head;
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_head_blob(place->store, key, &head, &call);
    if (rc < 0)
        return remote_log_failure("remote.head_failed", key, rc == -ENOENT ? -EBADMSG : rc);
    *lease_out = (struct remote_lease){
        .epoch = owner->epoch,
        .ttl_ms = REMOTE_LEASE_DEFAULT_TTL_MS,
        .age_ms = remote_age_ms(&head),
    };
    return 0;
}

// Step 2. -EBUSY while the owner is alive.
static int
check_lease(const struct remote_place *place, const struct manifest_record_header *owner,
    struct remote_lease *lease_out)
{
    int rc = remote_lease_read(place, owner->epoch, lease_out);
    if (rc == -ENOENT)
        rc = lease_from_record(place, owner, lease_out);
    if (rc < 0)
        return rc;
    // Unreadable, missing, or not the owner's at all: then it says nothing about the owner.
    if (!uuid_equal(&lease_out->writer, &owner->writer)) {
        lease_out->writer = owner->writer;
        lease_out->released = false;
        lease_out->ttl_ms = REMOTE_LEASE_DEFAULT_TTL_MS;
        remote_copy_host(owner->host, lease_out->host);
    }
    return !lease_out->released && lease_out->age_ms <= lease_out->ttl_ms ? -EBUSY : 0;
}

static int
note_position(struct manifest *m, struct db_id db, uint64_t epoch, uint64_t sequence,
    const struct sha256 *hash)
{
    struct manifest_batch *b = manifest_batch_new(db);
    manifest_batch_remote_position(b, epoch, sequence, hash);
    return manifest_submit(m, b, NULL);
}

static int
make_open_record(const struct remote_place *place, const struct db_record *db, uint64_t epoch,
    struct remote_small_record *record_out)
{
    struct manifest_record_header h = remote_header_at(place, db);
    h.kind = MANIFEST_RECORD_OPEN;
    h.sequence++;
    h.epoch = epoch;
    // No two claims may be equal byte for byte, not even those of a root and its copy.
    h.checkpoint_id = random_uuid();
    h.created_ms = clock_wall_ms();
    return remote_small_record_make(&h, NULL, 0, record_out);
}

// Steps 3 and 4.
static int
create_open_record(const struct remote_place *place, struct manifest *m, const struct db_record *db,
    uint64_t epoch, struct sha256 *hash_out)
{
    struct remote_small_record record;
    int rc = make_open_record(place, db, epoch, &record);
    if (rc < 0)
        return rc;
    if (db->epoch != epoch)
        rc = note_position(m, db->id, epoch, db->remote_sequence, &db->remote_hash);
    if (rc == 0) {
        crash_point("remote.epoch_noted");
        struct remote_source source = {
            .data = record.data.data, .length = record.data.length, .hash = record.hash};
        rc = remote_record_create(place, db->remote_sequence + 1, &source);
    }
    // Lost for certain. The winning record may have the same writer and epoch (a copy of this root)
    // and must not be taken for ours; an older note may be of a try of ours with an unknown end and
    // stays.
    if (rc == -EEXIST) {
        rc = -ESTALE;
        if (db->epoch != epoch) {
            int undo = note_position(m, db->id, db->epoch, db->remote_sequence, &db->remote_hash);
            rc = undo < 0 ? undo : rc;
        }
    }
    *hash_out = record.hash;
    buffer_free(&record.data);
    return rc;
}

// Step 5. The claim stands even if the lease cannot be written: the position is recorded all the
// same.
static int
record_claim(const struct remote_place *place, struct manifest *m, const struct db_record *db,
    uint64_t epoch, const struct sha256 *hash, uint64_t ttl_ms)
{
    crash_point("remote.open_created");
    int lease_rc = remote_lease_write(place, epoch, ttl_ms, false);
    int rc = note_position(m, db->id, epoch, db->remote_sequence + 1, hash);
    return rc < 0 ? rc : lease_rc;
}

static int
claim(const struct remote_place *place, struct manifest *m, struct db_record *db, uint64_t ttl_ms,
    bool takeover, struct remote_lease *lease_out)
{
    struct manifest_record_header owner;
    int rc = find_owner(place, db, &owner);
    if (rc < 0)
        return rc;
    bool is_owned = owner.epoch > 0 && !uuid_equal(&owner.writer, &place->writer);
    if (is_owned && !takeover)
        rc = check_lease(place, &owner, lease_out);
    if (rc < 0)
        return rc;
    if (owner.epoch == UINT64_MAX)
        return -EOVERFLOW;
    struct sha256 hash;
    rc = create_open_record(place, m, db, owner.epoch + 1, &hash);
    if (rc == 0)
        rc = record_claim(place, m, db, owner.epoch + 1, &hash, ttl_ms);
    return rc;
}

int
remote_manifest_claim(const struct remote_place *place, struct manifest *m, struct db_record *db,
    uint64_t ttl_ms, bool takeover, struct remote_lease *lease_out)
{
    *lease_out = (struct remote_lease){0};
    int rc = remote_refresh_db(m, db->id, db);
    if (rc < 0)
        return rc;
    if (db->state != DB_STATE_READY || db->remote_sequence == 0)
        return -EINVAL;
    rc = claim(place, m, db, ttl_ms, takeover, lease_out);
    int refresh_rc = remote_refresh_db(m, db->id, db);
    return rc < 0 ? rc : refresh_rc;
}
