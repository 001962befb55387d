// SPDX-License-Identifier: Apache-2.0
// Looking after the published objects: a bucket can lose some or be set back to an older state
// while a writer goes on (a lifecycle rule, a restored backup, a mistake). The writer's later
// objects are then in the store, but no host can mount from them.
//
//     check          requests                          finds
//     head           1 GET of at most 4 KiB            the newest record is gone or is another one
//     chain          1 LIST a 1,000 records since the  a record that a reader needs is gone;
//                    newest catalog, 2 HEAD            another writer; the newest catalog is gone
//     blobs          1 HEAD each                       blobs that are gone, a few at a time
//
// An object that a listing lacks is asked for by its name before it counts as gone.
#include <errno.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "remote/remote_blob.h"
#include "remote/remote_internal.h"
#include "store/blob_key.h"

// ---- the newest record --------------------------------------------------------------------------

static int
check_header(const struct remote_place *place, const struct db_record *db, const char *key,
    struct remote_object *o)
{
    struct manifest_record_header h;
    int rc = remote_object_header(o, key, &h);
    if (rc < 0)
        return rc;
    bool same = h.sequence == db->remote_sequence && uuid_equal(&h.volume, &db->volume) &&
                uuid_equal(&h.name_key, &db->name_key) && uuid_equal(&h.writer, &place->writer) &&
                h.epoch == db->epoch && h.generation.v == db->published.v;
    // A record that is all there can be compared whole.
    if (same && o->bytes < REMOTE_HEADER_BYTES) {
        struct sha256 hash;
        sha256_of(o->data.data, o->data.length, &hash);
        same = sha256_equal(&hash, &db->remote_hash);
    }
    return same ? 0 : remote_log_bad(key, "it is not the record that this host has written there");
}

int
remote_manifest_check_head(const struct remote_place *place, const struct db_record *db)
{
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_RECORD, db->remote_sequence, &name);
    const char *key = buffer_string(&name);
    struct remote_object o = {.fd = -1};
    struct remote_call call = remote_call_of(place, REMOTE_HEADER_BYTES);
    int rc = remote_store_get_blob(place->store, key, 0, REMOTE_HEADER_BYTES, &o.data, &call);
    o.bytes = o.data.length;
    if (rc == -ENOENT)
        rc = remote_log_bad(
            key, "the newest record is gone; the bucket has lost it or was set back");
    else if (rc < 0)
        rc = remote_log_failure("remote.get_failed", key, rc);
    else
        rc = check_header(place, db, key, &o);
    remote_object_free(&o);
    return rc;
}

// ---- the chain ----------------------------------------------------------------------------------

static int
check_record(const struct remote_place *place, uint64_t sequence)
{
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_RECORD, sequence, &name);
    const char *key = buffer_string(&name);
    int rc = remote_blob_is_there(place, key, 0);
    if (rc == 0)
        return remote_log_bad(key, "the record is gone, and with it what follows it");
    return rc < 0 ? rc : 0;
}

// Every record from `first` to the newest; 1 when there is one behind that.
static int
check_records(const struct remote_place *place, const struct db_record *db, uint64_t first)
{
    struct remote_walk walk;
    uint64_t sequence;
    uint64_t bytes;
    uint64_t expected = first;
    bool followed = false;
    int rc = 0;
    remote_walk_begin(&walk, place, REMOTE_RECORD, first - 1);
    while (!followed && (rc = remote_walk_next(&walk, &sequence, &bytes)) > 0) {
        followed = sequence > db->remote_sequence;
        uint64_t end = followed ? db->remote_sequence + 1 : sequence;
        for (rc = 0; rc == 0 && expected < end; expected++)
            rc = check_record(place, expected);
        expected = end + !followed;
        if (rc < 0)
            break;
    }
    remote_walk_end(&walk);
    for (; rc == 0 && expected <= db->remote_sequence; expected++)
        rc = check_record(place, expected);
    return rc < 0 ? rc : followed;
}

int
remote_manifest_check_chain(
    const struct remote_place *place, const struct db_record *db, bool *catalog_lost_out)
{
    *catalog_lost_out = false;
    uint64_t first = db->catalog_sequence ? db->catalog_sequence : 1;
    int rc = check_records(place, db, first);
    // The first record keeps the volume from being made a second time.
    int first_rc = rc >= 0 && first > 1 ? check_record(place, 1) : 0;
    if (rc < 0 || first_rc < 0)
        return rc < 0 ? rc : first_rc;
    if (db->catalog_sequence == 0)
        return rc;
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_CATALOG, db->catalog_sequence, &name);
    int there = remote_blob_is_there(place, buffer_string(&name), db->catalog_bytes);
    *catalog_lost_out = there == 0;
    return there < 0 ? there : rc;
}

// ---- blobs --------------------------------------------------------------------------------------

struct sample {
    struct blob_record *blobs;
    unsigned count, wanted;
};

static int
take_blob(void *argument, const struct blob_record *blob)
{
    struct sample *s = argument;
    if (s->count == s->wanted)
        return 1;
    // Blobs of another volume are checked by that volume's owner.
    if (blob->where >= BLOB_WHERE_NAMED)
        return 0;
    s->blobs[s->count++] = *blob;
    return 0;
}

static int
choose_blobs(struct manifest *m, struct db_id db, const struct sha256 *from, struct sample *s)
{
    struct manifest_reader *r = NULL;
    int rc = manifest_read_begin(m, &r);
    if (rc == 0)
        rc = manifest_read_remote_blobs(r, db, from, take_blob, s);
    manifest_read_end(r);
    return rc < 0 ? rc : 0;
}

// The hash behind this one in order; after the last one the first.
static struct sha256
hash_after(struct sha256 hash)
{
    for (size_t i = sizeof(hash.b); i-- > 0;)
        if (++hash.b[i] != 0)
            break;
    return hash;
}

int
remote_manifest_check_blobs(const struct remote_place *place, struct manifest *m, struct db_id db,
    struct sha256 *cursor, unsigned count)
{
    const struct sha256 lowest = {{0}};
    CLEANUP(memory_free_auto) struct blob_record *blobs = memory_alloc(count * sizeof(*blobs));
    struct sample s = {.blobs = blobs, .wanted = count};
    int rc = choose_blobs(m, db, cursor, &s);
    if (rc == 0 && s.count == 0)
        rc = choose_blobs(m, db, &lowest, &s);
    for (unsigned i = 0; rc == 0 && i < s.count; i++) {
        BUFFER_AUTO name = {0};
        blob_key(place->tenant, place->volume_number, &blobs[i], &name);
        const char *key = buffer_string(&name);
        int there = remote_blob_is_there(place, key, blobs[i].bytes);
        *cursor = hash_after(blobs[i].hash);
        if (there == 0)
            rc = remote_log_bad(key, "a blob that the volume needs is gone, or is another one");
        else if (there < 0)
            rc = there;
    }
    return rc;
}
