// SPDX-License-Identifier: Apache-2.0
// Deleting: dead blobs, objects of the chain that no reader needs, and objects that the manifest
// does not know. Objects that cannot be read, are not as they should be, or are too young, stay.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "remote/remote_internal.h"
#include "remote/remote_retention.h"
#include "store/blob_key.h"

// ---- ownership ----------------------------------------------------------------------------------

// Whether the record after the newest that this root knows of is its own: its publication may be
// going on beside.
static int
is_own_record(const struct remote_place *place, const struct db_record *db, uint64_t sequence)
{
    BUFFER_AUTO name = {0};
    BUFFER_AUTO bytes = {0};
    struct manifest_record_header h;
    remote_key(place, REMOTE_RECORD, sequence, &name);
    struct remote_call call = remote_call_of(place, REMOTE_HEADER_BYTES);
    int rc = remote_store_get_blob(
        place->store, buffer_string(&name), 0, REMOTE_HEADER_BYTES, &bytes, &call);
    if (rc < 0)
        return remote_log_failure("remote.get_failed", buffer_string(&name), rc);
    struct remote_object o = {.fd = -1, .bytes = bytes.length, .data = bytes};
    rc = remote_object_header(&o, buffer_string(&name), &h);
    return rc < 0 ? rc : uuid_equal(&h.writer, &place->writer) && h.epoch == db->epoch;
}

// Whether this root is the owner of the volume still. A writer that was taken over does not know
// whether the new owner needs the objects that it wants to delete.
int
remote_owner_check(const struct remote_place *place, struct manifest *m, struct db_id id)
{
    struct db_record db;
    int rc = remote_refresh_db(m, id, &db);
    if (rc == 0 && (db.fenced || db.epoch == 0))
        rc = -ESTALE;
    if (rc == 0)
        rc = remote_manifest_is_followed(place, db.remote_sequence);
    if (rc == 1)
        rc = is_own_record(place, &db, db.remote_sequence + 1) == 1 ? 0 : -ESTALE;
    return rc;
}

static int
keys_delete(
    const struct remote_place *place, struct manifest *m, struct db_id db, struct remote_keys *k)
{
    if (k->count == 0)
        return 0;
    int rc = remote_owner_check(place, m, db);
    return rc < 0 ? rc : remote_keys_delete(place, k);
}

// ---- blobs --------------------------------------------------------------------------------------

int
remote_blobs_delete(const struct remote_place *place, struct manifest *m, struct db_id db,
    const struct dead_blob *blobs, size_t count, remote_blobs_gone *gone, void *argument)
{
    struct remote_keys *k = memory_alloc_zero(sizeof(*k));
    BUFFER_AUTO key = {0};
    const size_t limit = remote_keys_limit();
    int rc = 0;
    for (size_t done = 0; rc == 0 && done < count;) {
        size_t n = count - done < limit ? count - done : limit;
        for (size_t i = 0; i < n; i++) {
            const struct blob_record *blob = &blobs[done + i].blob;
            if (blob->where >= BLOB_WHERE_NAMED)
                continue;
            blob_key(place->tenant, place->volume_number, blob, &key);
            remote_keys_add(k, &key);
        }
        rc = keys_delete(place, m, db, k);
        remote_keys_clear(k);
        if (rc == 0)
            rc = gone(argument, &blobs[done], n);
        done += n;
    }
    free(k);
    return rc;
}

// ---- the chain ----------------------------------------------------------------------------------

struct chain {
    struct remote_listed *records, *catalogs;
    size_t record_count, catalog_count;
};

static void
chain_free(struct chain *c)
{
    free(c->records);
    free(c->catalogs);
}

// The newest catalog at or below `sequence`: its place in the list plus one, or 0.
static size_t
catalog_below(const struct chain *c, uint64_t sequence)
{
    size_t n = c->catalog_count;
    while (n > 0 && c->catalogs[n - 1].number > sequence)
        n--;
    return n;
}

// Readers of the newest generation begin with the newest catalog, or with the one before it when
// that one is damaged.
static uint64_t
tail_of(const struct chain *c, const struct db_record *db)
{
    size_t n = catalog_below(c, db->catalog_sequence);
    if (n == 0 || c->catalogs[n - 1].number != db->catalog_sequence || n < 2)
        return 1;
    return c->catalogs[n - 2].number;
}

int
remote_chain_lowest(
    const struct remote_place *place, const struct db_record *db, uint64_t *lowest_out)
{
    struct chain c = {0};
    int rc = remote_list(place, REMOTE_CATALOG, &c.catalogs, &c.catalog_count);
    *lowest_out = rc == 0 ? tail_of(&c, db) : 0;
    chain_free(&c);
    return rc;
}

static bool
contains(const uint64_t *numbers, size_t count, uint64_t n)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (numbers[middle] < n)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && numbers[low] == n;
}

// Records from `from` to `to` are needed.
struct range {
    uint64_t from, to;
};

struct prune {
    const struct remote_place *place;
    struct manifest *m;
    const struct db_record *db;
    const struct remote_chain_use *use;
    struct remote_pruned *out;
    struct chain chain;
    uint64_t tail;        // records and catalogs from here on are needed
    bool *catalog_used;   // of those below
    struct range *ranges; // of records below, in order
    struct remote_keys keys;
};

static void
find_uses(struct prune *p)
{
    const struct remote_chain_use *use = p->use;
    p->tail = tail_of(&p->chain, p->db);
    p->ranges = memory_alloc_zero((use->count + 1) * sizeof(*p->ranges));
    p->catalog_used = memory_alloc_zero(p->chain.catalog_count + 1);
    for (size_t i = 0; i < use->count; i++) {
        size_t n = catalog_below(&p->chain, use->sequences[i]);
        uint64_t from = n > 0 ? p->chain.catalogs[n - 1].number : 1;
        p->ranges[i] = (struct range){from, use->sequences[i]};
        if (n > 0)
            p->catalog_used[n - 1] = true;
    }
}

static bool
is_full(const struct prune *p)
{
    return p->out->records + p->out->catalogs + p->out->leases >= p->use->limit;
}

static int
flush(struct prune *p)
{
    int rc = p->use->dry_run ? 0 : keys_delete(p->place, p->m, p->db->id, &p->keys);
    remote_keys_clear(&p->keys);
    return rc;
}

static int
let_go(struct prune *p, const struct buffer *key, uint64_t bytes, uint64_t *counter)
{
    remote_keys_add(&p->keys, key);
    ++*counter;
    p->out->bytes += bytes;
    return p->keys.count >= remote_keys_limit() ? flush(p) : 0;
}

// The age of an object, or 0 when it is gone.
static int
age_of(const struct prune *p, const char *key, uint64_t *age_ms_out)
{
    struct remote_head head;
    struct remote_call call = remote_call_of(p->place, 0);
    int rc = remote_store_head_blob(p->place->store, key, &head, &call);
    *age_ms_out = rc == 0 ? remote_age_ms(&head) : 0;
    return rc < 0 && rc != -ENOENT ? remote_log_failure("remote.head_failed", key, rc) : 0;
}

static int
prune_catalogs(struct prune *p)
{
    BUFFER_AUTO name = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < p->chain.catalog_count && !is_full(p); i++) {
        const struct remote_listed *c = &p->chain.catalogs[i];
        uint64_t age_ms;
        if (c->number >= p->tail || p->catalog_used[i])
            continue;
        remote_key(p->place, REMOTE_CATALOG, c->number, &name);
        rc = age_of(p, buffer_string(&name), &age_ms);
        if (rc == 0 && age_ms > p->use->grace_ms)
            rc = let_go(p, &name, c->bytes, &p->out->catalogs);
    }
    return rc < 0 ? rc : flush(p);
}

enum record_use { RECORD_IS_FREE, RECORD_IS_OPEN, RECORD_IS_KEPT };

// The header of a record. Unreadable records stay.
static int
look_at_record(const struct prune *p, const struct remote_listed *record, enum record_use *use_out)
{
    BUFFER_AUTO name = {0};
    struct manifest_record_header h;
    *use_out = RECORD_IS_KEPT;
    remote_key(p->place, REMOTE_RECORD, record->number, &name);
    int rc = remote_header_fetch(p->place, buffer_string(&name), record->bytes, &h);
    if (rc == -EBADMSG || rc == -ENOTSUP)
        return 0;
    if (rc < 0)
        return rc;
    if (h.sequence == record->number && uuid_equal(&h.volume, &p->db->volume) &&
        h.kind != MANIFEST_RECORD_CREATE)
        *use_out = h.kind == MANIFEST_RECORD_OPEN ? RECORD_IS_OPEN : RECORD_IS_FREE;
    return 0;
}

// An owner that was taken over, and does not know it yet, goes on by creating the record after its
// last one. The new owner's OPEN record lies there, and the old owner's last one may lie there when
// its answer was lost: both are kept for long.
static int
prune_record(struct prune *p, size_t i, enum record_use *next)
{
    const struct remote_listed *record = &p->chain.records[i];
    BUFFER_AUTO name = {0};
    uint64_t age_ms;
    enum record_use use;
    int rc = look_at_record(p, record, &use);
    bool before_open = *next == RECORD_IS_OPEN;
    *next = use;
    if (rc < 0 || use == RECORD_IS_KEPT)
        return rc;
    remote_key(p->place, REMOTE_RECORD, record->number, &name);
    rc = age_of(p, buffer_string(&name), &age_ms);
    uint64_t least_ms = use == RECORD_IS_OPEN || before_open ? p->use->fence_ms : 0;
    if (least_ms < p->use->grace_ms)
        least_ms = p->use->grace_ms;
    if (rc < 0 || age_ms <= least_ms)
        return rc;
    return let_go(p, &name, record->bytes, &p->out->records);
}

// From the newest to the oldest, because the one after a record decides about it.
static int
prune_records(struct prune *p)
{
    enum record_use next = RECORD_IS_KEPT;
    size_t range = p->use->count;
    bool next_known = false;
    int rc = 0;
    for (size_t i = p->chain.record_count; rc == 0 && i-- > 0 && !is_full(p);) {
        const struct remote_listed *record = &p->chain.records[i];
        bool follows =
            i + 1 < p->chain.record_count && p->chain.records[i + 1].number == record->number + 1;
        while (range > 0 && p->ranges[range - 1].from > record->number)
            range--;
        bool needed = record->number >= p->tail || record->number == 1 ||
                      contains(p->use->told, p->use->told_count, record->number);
        needed |= range > 0 && p->ranges[range - 1].to >= record->number;
        if (needed) {
            next_known = false;
            continue;
        }
        if (!follows)
            next = RECORD_IS_FREE;
        else if (!next_known)
            rc = look_at_record(p, &p->chain.records[i + 1], &next);
        if (rc == 0)
            rc = prune_record(p, i, &next);
        next_known = true;
    }
    return rc < 0 ? rc : flush(p);
}

static int
prune_leases(struct prune *p)
{
    struct remote_listed *leases = NULL;
    size_t count = 0;
    BUFFER_AUTO name = {0};
    int rc = remote_list(p->place, REMOTE_LEASE, &leases, &count);
    for (size_t i = 0; rc == 0 && i < count && !is_full(p); i++) {
        uint64_t age_ms;
        if (leases[i].number >= p->db->epoch)
            continue;
        remote_key(p->place, REMOTE_LEASE, leases[i].number, &name);
        rc = age_of(p, buffer_string(&name), &age_ms);
        if (rc == 0 && age_ms > p->use->grace_ms)
            rc = let_go(p, &name, leases[i].bytes, &p->out->leases);
    }
    free(leases);
    return rc < 0 ? rc : flush(p);
}

int
remote_chain_prune(const struct remote_place *place, struct manifest *m, struct db_id id,
    const struct remote_chain_use *use, struct remote_pruned *pruned_out)
{
    struct db_record db;
    *pruned_out = (struct remote_pruned){0};
    int rc = remote_refresh_db(m, id, &db);
    if (rc < 0)
        return rc;
    struct prune *p = memory_alloc_zero(sizeof(*p));
    *p = (struct prune){.place = place, .m = m, .db = &db, .use = use, .out = pruned_out};
    rc = remote_list(place, REMOTE_RECORD, &p->chain.records, &p->chain.record_count);
    if (rc == 0)
        rc = remote_list(place, REMOTE_CATALOG, &p->chain.catalogs, &p->chain.catalog_count);
    if (rc == 0) {
        find_uses(p);
        // Records may only be missing if a record has told so.
        if (p->tail > db.lowest_sequence)
            p->tail = db.lowest_sequence;
        rc = prune_catalogs(p);
        if (rc == 0)
            rc = prune_records(p);
        if (rc == 0)
            rc = prune_leases(p);
        pruned_out->more = is_full(p);
    }
    remote_keys_clear(&p->keys);
    chain_free(&p->chain);
    free(p->ranges);
    free(p->catalog_used);
    free(p);
    return rc;
}

// ---- unknown objects ----------------------------------------------------------------------------

struct sweep {
    const struct remote_place *place;
    struct manifest *m;
    struct db_id db;
    uint64_t grace_ms;
    bool dry_run;
    struct remote_orphans *out;
    struct remote_keys keys;
};

// {checkpoint id}/{kind}-...-{generation}-{hash}.blob
static bool
parse_blob_key(const char *text, struct blob_identity *blob)
{
    char digits[17] = {0};
    size_t n = strlen(text);
    if (n < 37 + 5 + 17 + 64 + 5 || text[36] != '/' ||
        !remote_uuid_parse(text, 36, &blob->checkpoint_id))
        return false;
    const char *hash = text + n - 5 - 64;
    if (strcmp(text + n - 5, ".blob") != 0 || hash[-1] != '-' || hash[-18] != '-')
        return false;
    memcpy(digits, hash - 17, 16);
    if (!remote_key_number(digits, "", &blob->generation.v))
        return false;
    for (size_t i = 0; i < sizeof(blob->hash.b); i++) {
        char pair[17] = "00000000000000";
        uint64_t v;
        memcpy(pair + 14, hash + 2 * i, 2);
        if (!remote_key_number(pair, "", &v))
            return false;
        blob->hash.b[i] = (uint8_t)v;
    }
    return true;
}

// Whether the manifest knows the object, as one that lives or as one that is dead.
static int
is_known(struct sweep *s, const struct blob_identity *blob)
{
    struct manifest_reader *r;
    struct blob_record known;
    int rc = manifest_read_begin(s->m, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_blob(r, s->db, &blob->hash, &known);
    if (rc == 0 && blob_has_identity(&known, blob))
        rc = 1;
    else if (rc == 0 || rc == -ENOENT)
        rc = manifest_is_dead(r, s->db, blob);
    manifest_read_end(r);
    return rc;
}

static int
sweep_flush(struct sweep *s)
{
    int rc = s->dry_run ? 0 : keys_delete(s->place, s->m, s->db, &s->keys);
    remote_keys_clear(&s->keys);
    return rc;
}

static int
sweep_object(struct sweep *s, const struct remote_listing_entry *entry, const char *name)
{
    struct blob_identity blob;
    s->out->looked_at++;
    // An object with another name is not ours.
    if (!parse_blob_key(name, &blob))
        return 0;
    int rc = is_known(s, &blob);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    struct remote_head head;
    struct remote_call call = remote_call_of(s->place, 0);
    rc = remote_store_head_blob(s->place->store, entry->key, &head, &call);
    if (rc < 0)
        return rc == -ENOENT ? 0 : remote_log_failure("remote.head_failed", entry->key, rc);
    if (remote_age_ms(&head) <= s->grace_ms)
        return 0;
    s->out->objects++;
    s->out->bytes += head.size;
    BUFFER_AUTO key = {0};
    buffer_append_string(&key, entry->key);
    remote_keys_add(&s->keys, &key);
    return s->keys.count >= remote_keys_limit() ? sweep_flush(s) : 0;
}

static int
sweep_prefix(struct sweep *s, const char *prefix)
{
    struct remote_walk walk;
    const struct remote_listing_entry *entry;
    const char *name;
    int rc;
    remote_walk_begin_prefix(&walk, s->place, prefix);
    while ((rc = remote_walk_next_entry(&walk, &entry, &name)) > 0) {
        rc = sweep_object(s, entry, name);
        if (rc < 0)
            break;
    }
    remote_walk_end(&walk);
    return rc < 0 ? rc : sweep_flush(s);
}

// An upload that is under way is younger, as an object that no manifest knows yet.
static int
sweep_uploads(struct sweep *s, const char *prefix)
{
    int rc = s->dry_run ? 0 : remote_owner_check(s->place, s->m, s->db);
    struct remote_call call = remote_call_of(s->place, 0);
    if (rc < 0)
        return rc;
    rc = remote_store_sweep_uploads(
        s->place->store, prefix, s->grace_ms, s->dry_run, &s->out->uploads, &call);
    return rc < 0 ? remote_log_failure("remote.list_failed", prefix, rc) : 0;
}

int
remote_orphans_sweep(const struct remote_place *place, struct manifest *m, struct db_id db,
    uint64_t grace_ms, bool dry_run, struct remote_orphans *orphans_out)
{
    struct sweep *s = memory_alloc_zero(sizeof(*s));
    BUFFER_AUTO prefix = {0};
    *orphans_out = (struct remote_orphans){0};
    *s = (struct sweep){.place = place, .m = m, .db = db, .grace_ms = grace_ms};
    s->dry_run = dry_run;
    s->out = orphans_out;
    buffer_printf(&prefix, "checkpoints/%s/%" PRIu32 "/", place->tenant, place->volume_number);
    // A root that does not know all dead blobs would take them for orphans.
    struct manifest_reader *r;
    int rc = manifest_read_begin(m, &r);
    if (rc == 0) {
        rc = manifest_knows_history(r, db);
        manifest_read_end(r);
        rc = rc == 0 ? -EAGAIN : rc < 0 ? rc : sweep_prefix(s, buffer_string(&prefix));
        if (rc == 0)
            rc = sweep_uploads(s, buffer_string(&prefix));
    }
    remote_keys_clear(&s->keys);
    free(s);
    return rc;
}
