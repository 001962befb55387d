// SPDX-License-Identifier: Apache-2.0
// Import: fills an empty db from the newest good catalog and the records after it.
//
//     1. It lists the catalogs and takes the newest one at or below the wanted generation. It
//        passes over one that does not verify, or that the chain contradicts, with a warning, and
//        takes an older one: the records since then hold the same changes.
//     2. It reads the records after it in order. None may be missing, none may fail to verify:
//        until the next catalog a record is the only copy of its changes.
//     3. It counts the imported entries: directories, links, chunks and totals must agree with the
//        inodes, chunks and the catalog. An import that is only read from (place->forgiving) tells
//        a contradiction and goes on, so that a user can copy files away.
//     4. The last batch makes the db ready. Until then its state is DB_STATE_IMPORTING, and an
//        import that was interrupted is worth nothing.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "remote/remote_internal.h"

struct import {
    const struct remote_place *place;
    struct manifest *m;
    struct db_id db;
    struct generation at; // {0}: the newest
    struct remote_link link;
    struct db_counters counters; // as records say, and above the ids met
    struct remote_listed used;   // number 0: none
    uint64_t bytes_since_catalog;
    uint64_t chunk_sum; // of the catalog's numbers of the deltas of chunks
    // Changes that wait to be submitted.
    struct manifest_batch *batch;
    uint64_t batch_changes, batch_bytes;
    uint64_t told;   // sequence of the record being applied, or that a catalog stands for
    const char *key; // of the object being applied
};

// ---- applying -----------------------------------------------------------------------------------

static int
submit_pending(struct import *im)
{
    if (!im->batch)
        return 0;
    struct manifest_released released = {0};
    int rc = manifest_submit(im->m, im->batch, &released);
    manifest_released_free(&released);
    im->batch = NULL;
    im->batch_changes = im->batch_bytes = 0;
    crash_point("remote.import_batch");
    // A batch refuses changes that make no sense together.
    if (rc == -EINVAL)
        return remote_log_bad(im->key, "changes up to here cannot be applied");
    return rc;
}

// Bytes of the change in a batch, roughly.
static uint64_t
change_weight(const struct change *c)
{
    switch (c->kind) {
    case CHANGE_PUT_INODE:
        return sizeof(*c) + c->inode.link_target_length + c->inode.extension_length;
    case CHANGE_PUT_DIRENT:
    case CHANGE_DELETE_DIRENT:
        return sizeof(*c) + c->dirent.name_length;
    case CHANGE_PUT_XATTR:
    case CHANGE_DELETE_XATTR:
        return sizeof(*c) + c->xattr.name_length + c->xattr.value_length;
    case CHANGE_PUT_CHUNK:
        return sizeof(*c) + c->chunk.extension_length;
    default:
        return sizeof(*c);
    }
}

static void
ensure_batch(struct import *im)
{
    if (im->batch)
        return;
    im->batch = manifest_batch_new(im->db);
    manifest_batch_set_residency(im->batch, RESIDENCY_REMOTE);
}

// Later changes come from this record.
static void
begin_object(struct import *im, const char *key, uint64_t sequence)
{
    im->key = key;
    im->told = sequence;
    if (im->batch)
        manifest_batch_told(im->batch, sequence);
}

static void
raise_to(uint64_t *counter, uint64_t at_least)
{
    if (*counter < at_least)
        *counter = at_least;
}

// A counter that is too low would give an id away twice, and with it the content of another file.
// So it is never believed to be lower than the ids that are there.
static void
count_change(struct db_counters *counters, const struct change *c)
{
    if (c->kind == CHANGE_PUT_COUNTERS) {
        raise_to(&counters->next_object, c->counters.next_object);
        raise_to(&counters->next_chunk, c->counters.next_chunk);
    } else if (c->kind == CHANGE_PUT_INODE && c->object.v < UINT64_MAX) {
        raise_to(&counters->next_object, c->object.v + 1);
    } else if (c->kind == CHANGE_PUT_CHUNK && c->chunk.id.v < UINT64_MAX) {
        raise_to(&counters->next_chunk, c->chunk.id.v + 1);
    }
}

static int
apply_change(void *argument, const struct change *change)
{
    struct import *im = argument;
    count_change(&im->counters, change);
    if (change->kind == CHANGE_PUT_CHUNK)
        im->chunk_sum += manifest_chunk_sum(&change->chunk);
    if (!im->batch) {
        ensure_batch(im);
        manifest_batch_told(im->batch, im->told);
    }
    manifest_batch_change(im->batch, change, false, im->link.generation);
    im->batch_changes++;
    im->batch_bytes += change_weight(change);
    if (im->batch_changes >= REMOTE_BATCH_CHANGES || im->batch_bytes >= REMOTE_BATCH_BYTES)
        return submit_pending(im);
    return 0;
}

// The record at the link published its generation.
static void
note_generation(struct import *im)
{
    const struct generation_record g =
        generation_retained(im->link.generation, im->link.sequence, im->link.created_ms);
    if (g.generation.v == 0)
        return;
    ensure_batch(im);
    manifest_batch_note_generation(im->batch, &g);
}

// ---- catalogs -----------------------------------------------------------------------------------

static void
pass_over(const struct import *im, uint64_t sequence)
{
    BUFFER_AUTO key = {0};
    remote_key(im->place, REMOTE_CATALOG, sequence, &key);
    log_warning("remote.catalog_passed_over",
        "%s is not usable; an older catalog and the records after it are read instead",
        buffer_string(&key));
}

// How many of the first `count` catalogs are at or below the wanted generation. Generations rise
// with the sequence, so that halving finds it; catalogs without a readable header are taken out.
static int
count_candidates(struct import *im, struct remote_listed *catalogs, size_t count, size_t *count_out)
{
    size_t low = 0, high = count; // below low: candidates; from high on: too new
    BUFFER_AUTO key = {0};
    while (im->at.v != 0 && low < high) {
        size_t middle = low + (high - low) / 2;
        struct manifest_record_header h;
        remote_key(im->place, REMOTE_CATALOG, catalogs[middle].number, &key);
        int rc = remote_header_fetch(im->place, buffer_string(&key), catalogs[middle].bytes, &h);
        if (rc == -EBADMSG || rc == -ENOTSUP) {
            pass_over(im, catalogs[middle].number);
            memmove(
                &catalogs[middle], &catalogs[middle + 1], (high - middle - 1) * sizeof(*catalogs));
            high--;
            continue;
        }
        if (rc < 0)
            return rc;
        if (h.generation.v <= im->at.v)
            low = middle + 1;
        else
            high = middle;
    }
    *count_out = high;
    return 0;
}

// Whether the chain agrees with a catalog that claims to end at `link`: the next record names the
// hash, or, when there is none, the record itself has it.
static int
check_against_chain(struct import *im, const struct remote_link *link)
{
    struct remote_walk walk;
    remote_walk_begin(&walk, im->place, REMOTE_RECORD, link->sequence - 1);
    BUFFER_AUTO name = {0};
    uint64_t sequence, bytes, own_bytes = 0;
    int rc = remote_walk_next(&walk, &sequence, &bytes);
    bool own = rc > 0 && sequence == link->sequence;
    if (own) {
        own_bytes = bytes;
        rc = remote_walk_next(&walk, &sequence, &bytes);
    }
    remote_walk_end(&walk);
    if (rc < 0)
        return rc;
    // Records that no generation needs may have been deleted behind it.
    bool next = rc > 0 && sequence == link->sequence + 1;
    remote_key(im->place, REMOTE_RECORD, link->sequence + next, &name);
    const char *key = buffer_string(&name);
    struct manifest_record_header h;
    if (!next && !own)
        return remote_log_bad(key, "the record is missing");
    if (next) {
        rc = remote_header_fetch(im->place, key, bytes, &h);
        return rc < 0 ? rc : remote_link_check(link, key, &h);
    }
    rc = remote_record_fetch(im->place, key, own_bytes, &link->hash, &h);
    if (rc == 0 &&
        (h.sequence != link->sequence || h.generation.v != link->generation.v ||
            !uuid_equal(&h.volume, &link->volume) || !uuid_equal(&h.name_key, &link->name_key)))
        rc = remote_log_bad(key, "its catalog says something else");
    return rc;
}

// Fetches the catalog and makes sure of it, without changing anything.
static int
verify_catalog(struct import *im, const char *key, const struct remote_listed *c,
    struct remote_object *object, struct remote_link *link_out)
{
    struct manifest_record_header h;
    int rc = remote_object_fetch(im->place, key, c->bytes, object);
    if (rc == 0)
        rc = remote_object_header(object, key, &h);
    if (rc == 0 && (h.kind != MANIFEST_RECORD_CATALOG || h.sequence != c->number))
        rc = remote_log_bad(key, "it is not the catalog that its name says");
    if (rc == 0)
        rc = remote_object_read(object, key, NULL, NULL, NULL);
    if (rc < 0)
        return rc;
    *link_out = (struct remote_link){
        .sequence = h.sequence,
        .hash = h.previous,
        .volume = h.volume,
        .name_key = h.name_key,
        .generation = h.generation,
        .created_ms = h.created_ms,
        .lowest = h.lowest_sequence,
    };
    return check_against_chain(im, link_out);
}

// The imported state contradicts the numbers in the bucket.
static int
note_contradiction(const struct import *im, const char *key, const char *problem)
{
    if (!im->place->forgiving)
        return remote_log_bad(key, problem);
    log_warning("remote.contradiction", "%s: %s", key, problem);
    return 0;
}

// Deltas are counted while they are applied; the catalog says how many there are.
static int
check_chunks(const struct import *im)
{
    struct manifest_reader *r;
    uint64_t sum;
    int rc = manifest_read_begin(im->m, &r);
    if (rc < 0)
        return rc;
    rc = manifest_sum_chunks(r, im->db, &sum);
    manifest_read_end(r);
    if (rc == 0 && sum != im->chunk_sum)
        rc = note_contradiction(im, im->key,
            "chunks do not have the deltas that it says (a mount with -o ro shows them all the "
            "same)");
    return rc;
}

static int
check_counts(const struct import *im)
{
    struct manifest_reader *r;
    BUFFER_AUTO problem = {0};
    BUFFER_AUTO key = {0};
    int rc = manifest_read_begin(im->m, &r);
    if (rc < 0)
        return rc;
    rc = manifest_count(r, im->db, &problem);
    manifest_read_end(r);
    if (rc != -EBADMSG || problem.length == 0)
        return rc;
    BUFFER_AUTO text = {0};
    remote_key(im->place, REMOTE_RECORD, im->link.sequence, &key);
    buffer_printf(&text,
        "the state after it contradicts itself (a mount with -o ro shows it all the same): %s",
        buffer_string(&problem));
    return note_contradiction(im, buffer_string(&key), buffer_string(&text));
}

static int
import_catalog(struct import *im, const struct remote_listed *c)
{
    BUFFER_AUTO name = {0};
    remote_key(im->place, REMOTE_CATALOG, c->number, &name);
    im->key = buffer_string(&name);
    struct remote_object object = {.fd = -1};
    struct remote_link link;
    int rc = verify_catalog(im, im->key, c, &object, &link);
    if (rc == -EBADMSG || rc == -ENOTSUP) {
        pass_over(im, c->number);
        rc = -ESTALE;
    } else if (rc == 0 && im->at.v != 0 && link.generation.v > im->at.v) {
        rc = -ESTALE;
    } else if (rc == 0) {
        im->link = link;
        im->used = *c;
        begin_object(im, im->key, c->number);
        rc = remote_object_read(&object, im->key, apply_change, im, NULL);
        // The catalog was made before its own generation was known to be published.
        if (rc == 0)
            note_generation(im);
        if (rc == 0)
            rc = submit_pending(im);
        if (rc == 0)
            rc = check_chunks(im);
    }
    im->key = NULL;
    remote_object_free(&object);
    return rc;
}

// Begins with the newest good catalog, or with nothing when there is none; `any_out` tells whether
// there are catalogs at all.
static int
import_newest_catalog(struct import *im, bool *any_out)
{
    struct remote_listed *catalogs = NULL;
    size_t count = 0;
    int rc = remote_list(im->place, REMOTE_CATALOG, &catalogs, &count);
    *any_out = count > 0;
    if (rc == 0)
        rc = count_candidates(im, catalogs, count, &count);
    bool done = false;
    while (rc == 0 && !done && count > 0) {
        rc = import_catalog(im, &catalogs[--count]);
        done = rc == 0;
        if (rc == -ESTALE)
            rc = 0;
    }
    free(catalogs);
    return rc;
}

// ---- records ------------------------------------------------------------------------------------

static int
import_record(struct import *im, const char *key, uint64_t bytes)
{
    struct remote_object object;
    struct manifest_record_header h;
    struct sha256 hash;
    int rc = remote_object_fetch(im->place, key, bytes, &object);
    if (rc < 0)
        return rc;
    begin_object(im, key, im->link.sequence + 1);
    rc = remote_object_header(&object, key, &h);
    if (rc == 0)
        rc = remote_link_check(&im->link, key, &h);
    if (rc == 0)
        rc = remote_object_read(&object, key, apply_change, im, &hash);
    if (rc == 0) {
        remote_link_advance(&im->link, &h, &hash);
        if (h.kind == MANIFEST_RECORD_GENERATION)
            note_generation(im);
        im->bytes_since_catalog += bytes;
    }
    im->key = NULL;
    remote_object_free(&object);
    return rc;
}

static bool
is_reached(const struct import *im)
{
    return im->at.v != 0 && im->link.generation.v >= im->at.v;
}

static int
import_records(struct import *im)
{
    struct remote_walk walk;
    remote_walk_begin(&walk, im->place, REMOTE_RECORD, im->link.sequence);
    BUFFER_AUTO name = {0};
    uint64_t sequence, bytes;
    int rc = 0;
    while (!is_reached(im) && (rc = remote_walk_next(&walk, &sequence, &bytes)) > 0) {
        remote_key(im->place, REMOTE_RECORD, im->link.sequence + 1, &name);
        const char *key = buffer_string(&name);
        rc = sequence == im->link.sequence + 1 ? import_record(im, key, bytes)
                                               : remote_log_bad(key, "the record is missing");
        if (rc < 0)
            break;
    }
    remote_walk_end(&walk);
    im->key = name.length ? buffer_string(&name) : NULL;
    if (rc >= 0)
        rc = submit_pending(im);
    im->key = NULL;
    return rc;
}

// ---- the whole ----------------------------------------------------------------------------------

static int
finish_import(struct import *im, const struct db_record *db)
{
    const struct remote_link *link = &im->link;
    struct manifest_batch *b = manifest_batch_new(im->db);
    manifest_batch_identity(b, &link->volume, &link->name_key);
    if (im->used.number != 0)
        manifest_batch_catalog(b, im->used.number, im->used.bytes);
    manifest_batch_local_generation(b, link->generation, db->cut, im->counters, link->created_ms);
    manifest_batch_published(b, link->generation, link->created_ms, link->sequence, &link->hash,
        im->bytes_since_catalog);
    manifest_batch_next_generation(b, (struct generation){link->generation.v + 1});
    if (im->used.number == 0)
        manifest_batch_history_known(b);
    if (link->lowest != 0)
        manifest_batch_lowest(b, link->lowest);
    // Gives a date to deaths of which no record tells: older records tell of none.
    manifest_batch_date_deaths(b);
    manifest_batch_db_state(b, DB_STATE_READY);
    return manifest_submit(im->m, b, NULL);
}

static int
import_all(struct import *im)
{
    bool any_catalog = false;
    int rc = import_newest_catalog(im, &any_catalog);
    if (rc == 0)
        rc = import_records(im);
    if (rc < 0)
        return rc;
    if (im->link.sequence == 0) {
        if (!any_catalog)
            return -ENOENT;
        BUFFER_AUTO key = {0};
        remote_key(im->place, REMOTE_RECORD, 1, &key);
        return remote_log_bad(buffer_string(&key), "the record is missing");
    }
    return im->at.v == 0 || im->link.generation.v == im->at.v ? 0 : -ESTALE;
}

static int
import_to(struct import *im, struct db_record *db, uint64_t sequence)
{
    if (db->state != DB_STATE_IMPORTING)
        return -EINVAL;
    int rc = remote_judge_damage(im->place, import_all(im));
    if (rc == 0 && sequence != 0 && im->link.sequence != sequence)
        rc = -EBUSY;
    if (rc == 0)
        rc = check_counts(im);
    if (rc == 0)
        rc = finish_import(im, db);
    else
        manifest_batch_free(im->batch);
    return rc == 0 ? remote_refresh_db(im->m, db->id, db) : rc;
}

int
remote_manifest_import(const struct remote_place *place, struct manifest *m, struct db_record *db,
    struct generation at)
{
    struct import im = {.place = place, .m = m, .db = db->id, .at = at, .counters = db->counters};
    return import_to(&im, db, 0);
}

int
remote_manifest_import_exactly(
    const struct remote_place *place, struct manifest *m, struct db_record *db, uint64_t sequence)
{
    struct import im = {.place = place, .m = m, .db = db->id, .counters = db->counters};
    return import_to(&im, db, sequence);
}
