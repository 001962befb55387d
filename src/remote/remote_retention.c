// SPDX-License-Identifier: Apache-2.0
// Records of the kind RETENTION: making them, and reading the bucket's records of generations.
#include "remote/remote_retention.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/manifest_index.h"
#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "remote/remote_internal.h"

// ---- telling ------------------------------------------------------------------------------------

static int
make_record(const struct remote_place *place, const struct db_record *db,
    const struct change *changes, size_t count, uint64_t lowest,
    struct remote_small_record *record_out)
{
    struct manifest_record_header h = remote_header_at(place, db);
    h.kind = MANIFEST_RECORD_RETENTION;
    h.sequence++;
    h.created_ms = clock_wall_ms();
    if (lowest > h.lowest_sequence)
        h.lowest_sequence = lowest;
    return remote_small_record_make(&h, changes, count, record_out);
}

static int
record_told(struct manifest *m, const struct db_record *db, const struct change *changes,
    size_t count, uint64_t lowest, const struct sha256 *hash)
{
    struct manifest_batch *b = manifest_batch_new(db->id);
    manifest_batch_set_residency(b, RESIDENCY_REMOTE);
    manifest_batch_told(b, db->remote_sequence + 1);
    for (size_t i = 0; i < count; i++)
        manifest_batch_change(b, &changes[i], false, db->published);
    if (lowest > db->lowest_sequence)
        manifest_batch_lowest(b, lowest);
    manifest_batch_remote_position(b, db->epoch, db->remote_sequence + 1, hash);
    return manifest_submit(m, b, NULL);
}

int
remote_manifest_tell(const struct remote_place *place, struct manifest *m, struct db_id db_id,
    const struct change *changes, size_t count, uint64_t lowest)
{
    struct db_record db;
    int rc = remote_refresh_db(m, db_id, &db);
    if (rc < 0)
        return rc;
    if (db.fenced || db.epoch == 0)
        return -ESTALE;
    struct remote_small_record record;
    rc = make_record(place, &db, changes, count, lowest, &record);
    if (rc == 0) {
        struct remote_source source = {
            .data = record.data.data, .length = record.data.length, .hash = record.hash};
        rc = remote_record_create(place, db.remote_sequence + 1, &source);
    }
    if (rc == 0) {
        crash_point("retention.told");
        rc = record_told(m, &db, changes, count, lowest, &record.hash);
    }
    buffer_free(&record.data);
    return rc == -EEXIST ? -ESTALE : rc;
}

int
remote_server_time(const struct remote_place *place, uint64_t *now_ms_out)
{
    BUFFER_AUTO name = {0};
    struct remote_head head;
    remote_key(place, REMOTE_RECORD, 1, &name);
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_head_blob(place->store, buffer_string(&name), &head, &call);
    if (rc == -ENOENT)
        return remote_log_bad(buffer_string(&name), "the record is gone");
    if (rc < 0)
        return remote_log_failure("remote.head_failed", buffer_string(&name), rc);
    *now_ms_out = clock_wall_ms() + (uint64_t)head.clock_skew_ms;
    return 0;
}

// ---- asking -------------------------------------------------------------------------------------

struct asking {
    const struct remote_place *place;
    struct remote_generations *out;
    size_t capacity;
};

void
remote_generations_free(struct remote_generations *g)
{
    free(g->records);
    *g = (struct remote_generations){0};
}

static size_t
place_of(const struct remote_generations *g, struct generation generation)
{
    size_t low = 0;
    size_t high = g->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (g->records[middle].generation.v < generation.v)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct generation_record *
remote_generations_find(const struct remote_generations *g, struct generation generation)
{
    size_t at = place_of(g, generation);
    return at < g->count && g->records[at].generation.v == generation.v ? &g->records[at] : NULL;
}

static void
put(struct asking *a, const struct generation_record *g)
{
    struct remote_generations *out = a->out;
    size_t at = place_of(out, g->generation);
    if (at < out->count && out->records[at].generation.v == g->generation.v) {
        out->records[at] = *g;
        return;
    }
    if (out->count == a->capacity) {
        a->capacity = a->capacity ? a->capacity * 2 : 64;
        out->records = memory_realloc(out->records, a->capacity * sizeof(*out->records));
    }
    memmove(&out->records[at + 1], &out->records[at], (out->count - at) * sizeof(*out->records));
    out->records[at] = *g;
    out->count++;
}

static void
take_out(struct asking *a, struct generation generation)
{
    struct remote_generations *out = a->out;
    size_t at = place_of(out, generation);
    if (at == out->count || out->records[at].generation.v != generation.v)
        return;
    out->count--;
    memmove(&out->records[at], &out->records[at + 1], (out->count - at) * sizeof(*out->records));
}

static int
hear(void *argument, const struct change *change)
{
    struct asking *a = argument;
    if (change->kind == CHANGE_PUT_GENERATION) {
        put(a, &change->published);
    } else if (change->kind == CHANGE_DELETE_GENERATION) {
        take_out(a, change->published.generation);
    } else if (change->kind == CHANGE_PUT_RETENTION) {
        a->out->has_policy = true;
        a->out->policy = change->retention;
    }
    return 0;
}

static void
note_published(struct asking *a, const struct generation_record *g)
{
    a->out->head = g->generation;
    if (g->generation.v != 0 && !remote_generations_find(a->out, g->generation))
        put(a, g);
}

// A catalog in the store, read in ranges.
struct ranged {
    const struct remote_place *place;
    const char *key;
};

static int
ranged_source(void *argument, uint64_t offset, void *p, size_t n)
{
    const struct ranged *r = argument;
    BUFFER_AUTO part = {0};
    struct remote_call call = remote_call_of(r->place, n);
    int rc = remote_store_get_blob(r->place->store, r->key, offset, n, &part, &call);
    if (rc < 0)
        return remote_log_failure("remote.get_failed", r->key, rc);
    if (part.length != n)
        return -EBADMSG;
    memcpy(p, part.data, n);
    return 0;
}

static int
hear_sections(struct asking *a, struct ranged *r, const struct manifest_index *index)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < index->count; i++) {
        const struct manifest_index_entry *e = &index->entries[i];
        if (e->kind != CHANGE_PUT_GENERATION && e->kind != CHANGE_PUT_RETENTION)
            continue;
        // Older programs put none into a catalog.
        a->out->complete |= e->kind == CHANGE_PUT_RETENTION;
        rc = manifest_index_read_section(ranged_source, r, e, hear, a);
    }
    return rc;
}

// -EBADMSG, -ENOTSUP: take an older one.
static int
ask_catalog(struct asking *a, uint64_t sequence, uint64_t bytes, struct remote_link *link)
{
    BUFFER_AUTO name = {0};
    remote_key(a->place, REMOTE_CATALOG, sequence, &name);
    struct ranged r = {a->place, buffer_string(&name)};
    struct manifest_record_header h;
    struct manifest_index index = {0};
    int rc = remote_header_fetch(a->place, r.key, bytes, &h);
    if (rc == 0 && (h.kind != MANIFEST_RECORD_CATALOG || h.sequence != sequence))
        rc = remote_log_bad(r.key, "it is not the catalog that its name says");
    if (rc < 0)
        return rc;
    rc = manifest_index_read(ranged_source, &r, bytes, &index);
    if (rc == 0)
        rc = hear_sections(a, &r, &index);
    manifest_index_free(&index);
    // Of version 1: it says nothing of generations.
    if (rc == -ENOTSUP && h.version == 1)
        rc = 0;
    if (rc < 0)
        return rc;
    *link = (struct remote_link){
        .sequence = h.sequence,
        .hash = h.previous,
        .volume = h.volume,
        .name_key = h.name_key,
        .generation = h.generation,
        .created_ms = h.created_ms,
    };
    const struct generation_record own =
        generation_retained(h.generation, h.sequence, h.created_ms);
    note_published(a, &own);
    return 0;
}

static int
ask_newest_catalog(struct asking *a, struct remote_link *link)
{
    struct remote_listed *catalogs;
    size_t n;
    bool found = false;
    int rc = remote_list(a->place, REMOTE_CATALOG, &catalogs, &n);
    while (rc == 0 && n-- > 0) {
        rc = ask_catalog(a, catalogs[n].number, catalogs[n].bytes, link);
        found = rc == 0;
        if (found)
            break;
        if (rc == -EBADMSG || rc == -ENOTSUP)
            rc = 0;
        remote_generations_free(a->out);
        a->capacity = 0;
    }
    free(catalogs);
    // Without one all of the chain is read.
    if (!found)
        a->out->complete = rc == 0;
    return rc;
}

static int
ask_record(struct asking *a, struct remote_link *link, const char *key, uint64_t bytes)
{
    struct remote_object object;
    struct manifest_record_header h;
    struct sha256 hash;
    int rc = remote_object_fetch(a->place, key, bytes, &object);
    if (rc < 0)
        return rc;
    rc = remote_object_header(&object, key, &h);
    if (rc == 0)
        rc = remote_link_check(link, key, &h);
    if (rc == 0)
        rc = remote_object_read(&object, key, hear, a, &hash);
    if (rc == 0)
        remote_link_advance(link, &h, &hash);
    if (rc == 0 && h.kind == MANIFEST_RECORD_GENERATION) {
        const struct generation_record g =
            generation_retained(h.generation, h.sequence, h.created_ms);
        note_published(a, &g);
    }
    remote_object_free(&object);
    return rc;
}

static int
read_generations(const struct remote_place *place, struct remote_generations *generations_out)
{
    struct remote_link link = {0};
    struct asking a = {.place = place, .out = generations_out};
    int rc = ask_newest_catalog(&a, &link);
    if (rc < 0)
        return rc;
    struct remote_walk walk;
    uint64_t sequence;
    uint64_t bytes;
    BUFFER_AUTO name = {0};
    remote_walk_begin(&walk, place, REMOTE_RECORD, link.sequence);
    while ((rc = remote_walk_next(&walk, &sequence, &bytes)) > 0) {
        remote_key(place, REMOTE_RECORD, link.sequence + 1, &name);
        const char *key = buffer_string(&name);
        rc = sequence == link.sequence + 1 ? ask_record(&a, &link, key, bytes)
                                           : remote_log_bad(key, "the record is missing");
        if (rc < 0)
            break;
    }
    remote_walk_end(&walk);
    generations_out->volume = link.volume;
    generations_out->sequence = link.sequence;
    if (rc < 0)
        return remote_judge_damage(place, rc);
    return link.sequence == 0 ? -ENOENT : 0;
}

int
remote_generations_read(
    const struct remote_place *place, struct remote_generations *generations_out)
{
    *generations_out = (struct remote_generations){0};
    int rc = read_generations(place, generations_out);
    if (rc < 0)
        remote_generations_free(generations_out);
    return rc;
}

// ---- learning the history -----------------------------------------------------------------------

struct learning {
    struct manifest_batch *batch;
    uint64_t sequence;
    uint64_t changes;
};

static int
learn_change(void *argument, const struct change *change)
{
    struct learning *l = argument;
    if (change->kind == CHANGE_PUT_BLOB && change->blob.death.v != 0) {
        manifest_batch_old_death(l->batch, &change->blob, l->sequence);
        l->changes++;
    }
    return 0;
}

// The last record that tells of a blob counts, also when it tells that the blob lives: records are
// learned from the newest to the oldest, and a known state stays.
static int
learn_record(const struct remote_place *place, struct manifest *m, const struct db_record *db,
    uint64_t sequence, uint64_t bytes, bool note_generations)
{
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_RECORD, sequence, &name);
    const char *key = buffer_string(&name);
    struct remote_object object;
    struct manifest_record_header h;
    struct learning l = {.batch = manifest_batch_new(db->id), .sequence = sequence};
    int rc = remote_object_fetch(place, key, bytes, &object);
    if (rc == 0) {
        rc = remote_object_header(&object, key, &h);
        if (rc == 0 && (h.sequence != sequence || !uuid_equal(&h.volume, &db->volume)))
            rc = remote_log_bad(key, "it is not a record of this volume");
        if (rc == 0)
            rc = remote_object_read(&object, key, learn_change, &l, NULL);
        remote_object_free(&object);
    }
    if (rc == 0 && note_generations && h.kind == MANIFEST_RECORD_GENERATION) {
        const struct generation_record g =
            generation_retained(h.generation, sequence, h.created_ms);
        manifest_batch_note_generation(l.batch, &g);
        l.changes++;
    }
    if (rc == 0 && l.changes > 0)
        return manifest_submit(m, l.batch, NULL);
    manifest_batch_free(l.batch);
    return rc;
}

int
remote_manifest_learn_history(
    const struct remote_place *place, struct manifest *m, struct db_id db_id)
{
    struct db_record db;
    struct manifest_reader *r = NULL;
    int rc = manifest_read_begin(m, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_db(r, db_id, &db);
    int known = rc == 0 ? manifest_knows_history(r, db_id) : rc;
    struct retention_policy policy;
    if (known == 0)
        rc = manifest_read_retention(r, db_id, &policy);
    manifest_read_end(r);
    // Programs that know of retention put a policy into each catalog. Without one all generations
    // that have a record are kept.
    bool of_before = rc == -ENOENT;
    if (known != 0 || (rc < 0 && !of_before))
        return known > 0 ? 0 : rc;
    struct remote_listed *records;
    size_t n;
    rc = remote_list(place, REMOTE_RECORD, &records, &n);
    while (rc == 0 && n-- > 0)
        if (records[n].number <= db.remote_sequence)
            rc = learn_record(place, m, &db, records[n].number, records[n].bytes, of_before);
    free(records);
    if (rc < 0)
        return rc;
    struct manifest_batch *b = manifest_batch_new(db_id);
    manifest_batch_history_known(b);
    return manifest_submit(m, b, NULL);
}
