// SPDX-License-Identifier: Apache-2.0
// Blobs: references, and the life of a blob from its birth to the generation that tells of its
// death. A blob's record is changed by blob_store only, which keeps the totals and
// unpublished_blobs in step. Whether a blob without references is let go is decided at the end of
// the batch, because a later change may want it again.
#include <errno.h>
#include <inttypes.h>

#include "base/checksum.h"
#include "manifest/manifest_internal.h"
#include "platform/log.h"

static bool
is_unpublished(const struct blob_record *blob)
{
    return blob->references > 0 && !(blob->residency & RESIDENCY_REMOTE);
}

static int
set_unpublished_blob(struct apply *a, const struct blob_record *blob, bool unpublished)
{
    struct schema_key key;
    schema_key_unpublished_blob(&key, a->db.id, &blob->hash);
    if (!unpublished) {
        int rc = lmdb_delete(a->txn, TABLE_UNPUBLISHED_BLOBS, key.bytes, key.length);
        return rc == -ENOENT ? 0 : rc;
    }
    buffer_clear(&a->value);
    schema_encode_u64(blob->bytes, &a->value);
    return apply_put(a, TABLE_UNPUBLISHED_BLOBS, &key);
}

// Replaces `old` (NULL: there is none) by `blob` (NULL: it goes).
static int
blob_store(struct apply *a, const struct blob_record *old, const struct blob_record *blob)
{
    bool was_unpublished = old && is_unpublished(old);
    bool unpublished = blob && is_unpublished(blob);
    uint64_t old_bytes = old ? old->bytes : 0;
    uint64_t bytes = blob ? blob->bytes : 0;
    a->totals.blobs += (uint64_t)(blob != NULL) - (uint64_t)(old != NULL);
    a->totals.blob_bytes += bytes - old_bytes;
    a->totals.unpublished_blobs += (uint64_t)unpublished - (uint64_t)was_unpublished;
    a->totals.unpublished_bytes += (unpublished ? bytes : 0) - (was_unpublished ? old_bytes : 0);
    a->totals_changed = true;

    struct schema_key key;
    schema_key_blob(&key, blob ? &blob->hash : &old->hash, a->db.id);
    int rc;
    if (blob) {
        buffer_clear(&a->value);
        schema_encode_blob(blob, &a->value);
        rc = apply_put(a, TABLE_BLOB_REFS, &key);
    } else {
        rc = lmdb_delete(a->txn, TABLE_BLOB_REFS, key.bytes, key.length);
    }
    if (rc < 0 || unpublished == was_unpublished)
        return rc;
    return set_unpublished_blob(a, blob ? blob : old, unpublished);
}

// When a blob dies that nothing refers to as of `local`: not before it was born.
static struct generation
death_at(struct generation local, const struct blob_record *blob)
{
    return local.v > blob->generation.v ? local : (struct generation){blob->generation.v + 1};
}

static int
refuse_location(const struct apply *a, const struct blob_location *where, const char *problem)
{
    char hex[65];
    sha256_to_hex(&where->blob, hex);
    log_error("manifest.batch_refused", "db %" PRIu32 ": an image lies in blob %s, %s", a->db.id.v,
        hex, problem);
    return -EINVAL;
}

// Notes that the next record has to tell of the blob.
static int
note_blob(struct apply *a, const struct sha256 *hash, struct generation generation)
{
    struct schema_key key;
    struct schema_key note;
    schema_key_unpublished_blob(&key, a->db.id, hash);
    schema_key_unpublished(&note, UNPUBLISHED_BLOB, &key);
    buffer_clear(&a->value);
    schema_encode_u64(generation.v, &a->value);
    return apply_put(a, TABLE_UNPUBLISHED_INDEX, &note);
}

int
apply_add_reference(struct apply *a, const struct blob_location *where)
{
    struct blob_record old;
    int rc = manifest_load_blob(a->txn, a->db.id, &where->blob, &old);
    if (rc == -ENOENT)
        return refuse_location(a, where, "which is not known");
    if (rc < 0)
        return rc;
    if (where->length > old.bytes || where->offset > old.bytes - where->length)
        return refuse_location(a, where, "which is shorter");
    struct blob_record blob = old;
    blob.references++;
    blob.live_bytes += where->length;
    if (old.death.v != 0 && a->unpublished) {
        rc = note_blob(a, &blob.hash, a->generation);
        if (rc < 0)
            return rc;
    }
    blob.death.v = 0;
    return blob_store(a, &old, &blob);
}

int
apply_remove_reference(struct apply *a, const struct blob_location *where)
{
    struct blob_record old;
    int rc = manifest_load_blob(a->txn, a->db.id, &where->blob, &old);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc == -ENOENT || old.references == 0 || old.live_bytes < where->length) {
        // Counting wrong must not keep the chunk from changing; manifest_check tells more.
        char hex[65];
        sha256_to_hex(&where->blob, hex);
        log_error("manifest.inconsistent",
            "db %" PRIu32 ": blob %s lacks a reference that is given back", a->db.id.v, hex);
        return 0;
    }
    struct blob_record blob = old;
    blob.references--;
    blob.live_bytes -= where->length;
    if (blob.references == 0)
        buffer_append(&a->unreferenced, &blob.hash, sizeof(blob.hash));
    return blob_store(a, &old, &blob);
}

// Whether the place that a blob names is known: 0, or -EINVAL.
static int
check_where(struct apply *a, const struct blob_record *blob)
{
    struct namespace_record space;
    if (blob->where < BLOB_WHERE_NAMED)
        return 0;
    int rc = manifest_load_namespace(a->txn, a->db.id, blob->where, &space);
    if (rc != -ENOENT)
        return rc;
    log_error("manifest.batch_refused",
        "db %" PRIu32 ": a blob lies in place %" PRIu32 ", which is not known", a->db.id.v,
        blob->where);
    return -EINVAL;
}

int
apply_put_namespace(struct apply *a, const struct namespace_record *space)
{
    struct schema_key key;
    schema_key_number(&key, a->db.id, space->id);
    buffer_clear(&a->value);
    schema_encode_namespace(space, &a->value);
    int rc = apply_put(a, TABLE_REMOTE_NAMESPACE, &key);
    return rc < 0 ? rc : apply_note(a, UNPUBLISHED_NAMESPACE, &key);
}

// The chain tells that the blob is dead: 1 when it lives all the same.
static int
bury(struct apply *a, const struct blob_record *old)
{
    if (old->references == 0)
        return blob_store(a, old, NULL);
    char hex[65];
    sha256_to_hex(&old->hash, hex);
    log_warning("manifest.blob_lives",
        "db %" PRIu32
        ": the chain says that blob %s is dead, and something refers to it; it is kept",
        a->db.id.v, hex);
    return 1;
}

// `old`: the known record of a blob with this content, or NULL.
static int
put_dead_blob(struct apply *a, const struct blob_record *old, const struct blob_record *put)
{
    int rc = old && blob_is_same_object(old, put) ? bury(a, old) : 0;
    return rc == 0 ? apply_tell_death(a, put) : rc < 0 ? rc : 0;
}

int
apply_put_blob(struct apply *a, const struct blob_record *put)
{
    struct blob_record old;
    struct blob_record blob = *put;
    int rc = manifest_load_blob(a->txn, a->db.id, &put->hash, &old);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (put->death.v != 0)
        return put_dead_blob(a, rc == 0 ? &old : NULL, put);
    int where_rc = check_where(a, put);
    if (where_rc < 0)
        return where_rc;
    // A blob stays under the key that it was given first: it may be on its way into the store. Only
    // the chain changes the key.
    if (rc == 0 && !(a->batch->residency & RESIDENCY_REMOTE)) {
        blob = old;
        blob.residency |= a->batch->residency;
        return blob.residency == old.residency ? 0 : blob_store(a, &old, &blob);
    }
    // The same content is in the store under another key: that object stays the one that is used,
    // or no record would ever tell of its death.
    if (rc == 0 && a->unpublished && (old.residency & RESIDENCY_REMOTE) &&
        !blob_is_same_object(&old, put))
        return 0;
    if (a->batch->residency & RESIDENCY_REMOTE) {
        int life_rc = apply_tell_life(a, put);
        // It comes back from the dead, or from another volume: the next record tells so.
        if (life_rc == 0 && a->unpublished)
            life_rc = note_blob(a, &put->hash, a->generation);
        if (life_rc < 0)
            return life_rc;
    }
    blob.residency = rc == 0 ? old.residency : a->batch->residency;
    blob.references = rc == 0 ? old.references : 0;
    blob.live_bytes = rc == 0 ? old.live_bytes : 0;
    return blob_store(a, rc == 0 ? &old : NULL, &blob);
}

int
apply_blob_remote(struct apply *a, const struct sha256 *hash)
{
    struct blob_record old;
    int rc = manifest_load_blob(a->txn, a->db.id, hash, &old);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    buffer_append(&a->published_blobs, hash, sizeof(*hash));
    struct blob_record blob = old;
    blob.residency |= RESIDENCY_REMOTE;
    // It died while it was on its way: the record that names it tells of its birth only.
    if (blob.references == 0 && blob.death.v == 0) {
        blob.death = death_at(a->db.local, &blob);
        rc = note_blob(a, hash, a->db.local);
        if (rc < 0)
            return rc;
    }
    return blob_store(a, &old, &blob);
}

int
apply_blob_uploaded(struct apply *a, const struct sha256 *hash, struct generation generation)
{
    struct blob_record old;
    int rc = manifest_load_blob(a->txn, a->db.id, hash, &old);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (old.references == 0 || (old.residency & RESIDENCY_REMOTE))
        return 0;
    struct blob_record blob = old;
    blob.residency = RESIDENCY_REMOTE;
    rc = note_blob(a, hash, generation);
    return rc < 0 ? rc : blob_store(a, &old, &blob);
}

int
apply_forget_blob(struct apply *a, const struct blob_identity *identity)
{
    struct blob_record old;
    struct schema_key key;
    int rc = manifest_load_blob(a->txn, a->db.id, &identity->hash, &old);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc == 0 && blob_has_identity(&old, identity)) {
        if (old.references > 0 && a->unpublished) {
            char hex[65];
            sha256_to_hex(&old.hash, hex);
            log_error("manifest.batch_refused",
                "db %" PRIu32 ": blob %s is to be forgotten, and something refers to it",
                a->db.id.v, hex);
            return -EINVAL;
        }
        rc = bury(a, &old);
        if (rc < 0)
            return rc;
    }
    rc = apply_dead_gone(a, identity);
    if (rc < 0)
        return rc;
    schema_key_forgotten(&key, a->db.id, identity);
    return apply_note(a, UNPUBLISHED_FORGET, &key);
}

int
apply_forget_told(struct apply *a, const struct schema_key *unpublished_blob)
{
    struct blob_record old;
    if (!schema_read_unpublished_blob(unpublished_blob->bytes, unpublished_blob->length, &old.hash))
        return manifest_bad_entry(TABLE_UNPUBLISHED_INDEX);
    struct sha256 hash = old.hash;
    int rc = manifest_load_blob(a->txn, a->db.id, &hash, &old);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (old.references > 0 || old.death.v == 0)
        return 0;
    rc = apply_tell_death(a, &old);
    return rc < 0 ? rc : blob_store(a, &old, NULL);
}

// The local copies are needed no more (each db has its own). Objects in the store stay known.
static int
release_blob(struct apply *a, const struct sha256 *hash)
{
    struct blob_record old;
    int rc = manifest_load_blob(a->txn, a->db.id, hash, &old);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (old.references > 0)
        return 0;
    buffer_append(&a->batch->released, hash, sizeof(*hash));
    struct blob_record blob = old;
    blob.residency &= ~RESIDENCY_LOCAL;
    if (!(blob.residency & RESIDENCY_REMOTE))
        return blob_store(a, &old, NULL);
    if (a->newest.v != 0 && blob.death.v == 0) {
        blob.death = death_at(a->newest, &blob);
        rc = note_blob(a, hash, a->newest);
        if (rc < 0)
            return rc;
    }
    return blob_store(a, &old, &blob);
}

int
apply_release_blobs(struct apply *a)
{
    for (size_t at = 0; at < a->unreferenced.length; at += sizeof(struct sha256)) {
        struct sha256 hash;
        memcpy(&hash, a->unreferenced.data + at, sizeof(hash));
        int rc = release_blob(a, &hash);
        if (rc < 0)
            return rc;
    }
    return 0;
}

// The hashes of the db's blobs without references and without a date.
static int
find_undated(struct apply *a, struct buffer *hashes_out)
{
    const struct schema_key from = {0};
    struct table_walk w;
    int rc = table_walk_begin(&w, a->txn, TABLE_BLOB_REFS, &from, 0);
    while (rc > 0) {
        struct blob_record blob;
        struct db_id owner;
        if (!schema_read_blob(w.key.data, w.key.length, &blob.hash, &owner) ||
            (owner.v == a->db.id.v && !schema_decode_blob(w.value.data, w.value.length, &blob))) {
            rc = manifest_bad_entry(TABLE_BLOB_REFS);
            break;
        }
        if (owner.v == a->db.id.v && blob.references == 0 && blob.death.v == 0)
            buffer_append(hashes_out, &blob.hash, sizeof(blob.hash));
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

static int
date_death(struct apply *a, const struct sha256 *hash)
{
    struct blob_record old;
    int rc = manifest_load_blob(a->txn, a->db.id, hash, &old);
    if (rc < 0)
        return rc;
    struct blob_record blob = old;
    blob.death = death_at(a->db.local, &blob);
    // The record of the local generation may have been made already.
    rc = note_blob(a, hash, a->db.next);
    return rc < 0 ? rc : blob_store(a, &old, &blob);
}

int
apply_note_dates(struct apply *a)
{
    struct schema_key key;
    schema_key_runtime(&key, RUNTIME_DATES, a->db.id);
    buffer_clear(&a->value);
    schema_encode_empty(&a->value);
    return apply_put(a, TABLE_RUNTIME_STATE, &key);
}

int
apply_date_deaths(struct apply *a)
{
    BUFFER_AUTO hashes = {0};
    int rc = find_undated(a, &hashes);
    if (rc == 0)
        rc = apply_note_dates(a);
    for (size_t at = 0; rc == 0 && at < hashes.length; at += sizeof(struct sha256)) {
        struct sha256 hash;
        memcpy(&hash, hashes.data + at, sizeof(hash));
        rc = date_death(a, &hash);
    }
    return rc;
}
