// SPDX-License-Identifier: Apache-2.0
// The two states are exported into memory, where each is a row of puts in the order of kinds and
// keys. Merging the rows gives the deletes and the puts.
#include "retention/history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "retention/blob_page.h"

// The order in which manifest_export tells the kinds.
static const enum change_kind order_of_kinds[] = {CHANGE_PUT_COUNTERS, CHANGE_PUT_INODE,
    CHANGE_PUT_DIRENT, CHANGE_PUT_XATTR, CHANGE_PUT_NAMESPACE, CHANGE_PUT_BLOB, CHANGE_PUT_CHUNK,
    CHANGE_PUT_DELTA, CHANGE_PUT_DAMAGE, CHANGE_PUT_GENERATION, CHANGE_PUT_RETENTION};

static int
place_of_kind(enum change_kind kind)
{
    for (size_t i = 0; i < ARRAY_LENGTH(order_of_kinds); i++)
        if (order_of_kinds[i] == kind)
            return (int)i;
    return -1;
}

static int
collect_change(void *argument, const struct change *c)
{
    if (place_of_kind(c->kind) < 0)
        return -ENOTSUP;
    // Changes that concern the volume and not its state.
    if (c->kind != CHANGE_PUT_COUNTERS && c->kind != CHANGE_PUT_GENERATION &&
        c->kind != CHANGE_PUT_RETENTION)
        change_encode(c, argument);
    return 0;
}

int
history_export(
    struct manifest *m, struct db_id db, struct db_record *record_out, struct buffer *out)
{
    struct manifest_reader *r;
    int rc = manifest_read_begin(m, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_db(r, db, record_out);
    if (rc == 0)
        rc = manifest_export(r, db, collect_change, out);
    manifest_read_end(r);
    return rc;
}

// One row: the change that comes next, its key, and its bytes.
struct row {
    struct byte_reader reader;
    const uint8_t *start;
    size_t length;
    struct change change;
    struct buffer key;
    bool done;
};

static int
row_next(struct row *r)
{
    r->start = r->reader.next;
    r->done = byte_reader_left(&r->reader) == 0;
    if (r->done)
        return 0;
    int rc = change_decode(&r->reader, &r->change);
    if (rc < 0)
        return rc;
    r->length = (size_t)(r->reader.next - r->start);
    buffer_clear(&r->key);
    change_key(&r->change, &r->key);
    return 0;
}

// As of strcmp; a row that is done comes last.
static int
row_compare(const struct row *a, const struct row *b)
{
    if (a->done || b->done)
        return a->done - b->done;
    int kinds = place_of_kind(a->change.kind) - place_of_kind(b->change.kind);
    if (kinds != 0)
        return kinds;
    size_t n = a->key.length < b->key.length ? a->key.length : b->key.length;
    int c = n > 0 ? memcmp(a->key.data, b->key.data, n) : 0;
    return c != 0 ? c : (a->key.length > b->key.length) - (a->key.length < b->key.length);
}

// The delete that undoes a put. False: none is needed.
static bool
delete_of(const struct change *put, struct change *out)
{
    *out = *put;
    switch (put->kind) {
    case CHANGE_PUT_INODE:
        out->kind = CHANGE_DELETE_INODE;
        return true;
    case CHANGE_PUT_DIRENT:
        out->kind = CHANGE_DELETE_DIRENT;
        return true;
    case CHANGE_PUT_XATTR:
        out->kind = CHANGE_DELETE_XATTR;
        return true;
    case CHANGE_PUT_CHUNK:
        out->kind = CHANGE_DELETE_CHUNK;
        return true;
    case CHANGE_PUT_DELTA:
        out->kind = CHANGE_DELETE_DELTA;
        return true;
    case CHANGE_PUT_DAMAGE:
        out->kind = CHANGE_DELETE_DAMAGE;
        return true;
    default:
        // Blobs go with the last reference to them; places stay known.
        return false;
    }
}

struct diff {
    struct manifest_batch *batch;
    struct generation generation;
    uint64_t changes;
};

static void
emit(struct diff *d, const struct change *c)
{
    manifest_batch_change(d->batch, c, true, d->generation);
    d->changes++;
}

// One pass over both rows: the deletes, or the puts.
static int
diff_pass(struct diff *d, const struct buffer *old, const struct buffer *new, bool deletes)
{
    struct row a = {.reader = byte_reader_over(old->data, old->length)};
    struct row b = {.reader = byte_reader_over(new->data, new->length)};
    int rc = row_next(&a);
    if (rc == 0)
        rc = row_next(&b);
    while (rc == 0 && !(a.done && b.done)) {
        int order = row_compare(&a, &b);
        struct change gone;
        bool same = order == 0 && a.length == b.length && memcmp(a.start, b.start, a.length) == 0;
        if (deletes && order < 0 && delete_of(&a.change, &gone))
            emit(d, &gone);
        // For a blob that lives under another key the content counts.
        same |= order == 0 && b.change.kind == CHANGE_PUT_BLOB;
        if (!deletes && order >= 0 && !same)
            emit(d, &b.change);
        if (order <= 0)
            rc = row_next(&a);
        if (rc == 0 && order >= 0)
            rc = row_next(&b);
    }
    buffer_free(&a.key);
    buffer_free(&b.key);
    return rc;
}

static struct db_counters
higher(struct db_counters a, struct db_counters b)
{
    return (struct db_counters){
        .next_object = a.next_object > b.next_object ? a.next_object : b.next_object,
        .next_chunk = a.next_chunk > b.next_chunk ? a.next_chunk : b.next_chunk,
    };
}

int
history_fold_end(struct manifest *m, struct manifest_batch *b, struct generation generation,
    struct lsn cut, struct db_counters counters)
{
    struct uuid id = random_uuid();
    manifest_batch_local_generation(b, generation, cut, counters, clock_wall_ms());
    manifest_batch_checkpoint_id(b, generation, &id);
    manifest_batch_next_generation(b, (struct generation){generation.v + 1});
    return manifest_submit(m, b, NULL);
}

int
history_fold_equal(struct manifest *m, struct db_id to, struct db_id from)
{
    BUFFER_AUTO old = {0};
    BUFFER_AUTO new = {0};
    struct db_record to_db;
    struct db_record from_db;
    int rc = history_export(m, to, &to_db, &old);
    if (rc == 0)
        rc = history_export(m, from, &from_db, &new);
    if (rc < 0)
        return rc;
    struct diff d = {.batch = manifest_batch_new(to), .generation = to_db.next};
    // Named blobs are in the store.
    manifest_batch_set_residency(d.batch, RESIDENCY_REMOTE);
    rc = diff_pass(&d, &old, &new, true);
    if (rc == 0)
        rc = diff_pass(&d, &old, &new, false);
    if (rc == 0 && d.changes == 0)
        rc = -EALREADY;
    if (rc < 0) {
        manifest_batch_free(d.batch);
        return rc;
    }
    return history_fold_end(
        m, d.batch, d.generation, to_db.cut, higher(to_db.counters, from_db.counters));
}

// ---- forks --------------------------------------------------------------------------------------

// The parent's own blobs lie in one of two places, by the form of their keys; those of its own
// parents have a place already, which gets a number behind these.
#define FORK_PLACES 2u

static uint32_t
place_in_fork(uint32_t where)
{
    return where < BLOB_WHERE_NAMED ? BLOB_WHERE_NAMED + where : where + FORK_PLACES;
}

static void
put_places(struct diff *d, const struct db_record *parent)
{
    for (uint8_t form = BLOB_WHERE_OWN_OLD; form <= BLOB_WHERE_OWN; form++) {
        struct change c = {.kind = CHANGE_PUT_NAMESPACE};
        c.space = (struct namespace_record){
            .id = place_in_fork(form),
            .form = form,
            .volume_number = parent->volume_number,
            .volume = parent->volume,
            .tenant = parent->tenant,
            .tenant_length = (uint8_t)strlen(parent->tenant),
            .place = "",
        };
        emit(d, &c);
    }
}

int
history_fold_fork(
    struct manifest *m, struct db_id to, struct db_id from, const struct db_record *parent)
{
    BUFFER_AUTO state = {0};
    struct db_record to_db;
    struct db_record from_db;
    int rc = history_export(m, from, &from_db, &state);
    if (rc == 0) {
        struct manifest_reader *r;
        rc = manifest_read_begin(m, &r);
        if (rc == 0) {
            rc = manifest_read_db(r, to, &to_db);
            manifest_read_end(r);
        }
    }
    if (rc < 0)
        return rc;
    // Generations go on from the parent's, because images and births of blobs carry them.
    struct diff d = {.batch = manifest_batch_new(to), .generation = from_db.published};
    manifest_batch_set_residency(d.batch, RESIDENCY_REMOTE);
    put_places(&d, parent);
    struct row row = {.reader = byte_reader_over(state.data, state.length)};
    rc = row_next(&row);
    while (rc == 0 && !row.done) {
        if (row.change.kind == CHANGE_PUT_BLOB)
            row.change.blob.where = place_in_fork(row.change.blob.where);
        if (row.change.kind == CHANGE_PUT_NAMESPACE)
            row.change.space.id = place_in_fork(row.change.space.id);
        emit(&d, &row.change);
        rc = row_next(&row);
    }
    buffer_free(&row.key);
    if (rc < 0) {
        manifest_batch_free(d.batch);
        return rc;
    }
    return history_fold_end(m, d.batch, d.generation, to_db.cut, from_db.counters);
}

int
history_fold_own(struct manifest *m, struct db_id db)
{
    struct blob_page *page = memory_alloc_zero(sizeof(*page));
    struct diff d = {.batch = manifest_batch_new(db)};
    struct db_record record = {0};
    struct manifest_reader *r;
    int rc = manifest_read_begin(m, &r);
    if (rc == 0) {
        rc = manifest_read_db(r, db, &record);
        manifest_read_end(r);
    }
    d.generation = record.next;
    manifest_batch_set_residency(d.batch, RESIDENCY_REMOTE);
    for (page->more = rc == 0; rc == 0 && page->more;) {
        rc = blob_page_read(m, db, BLOB_WHERE_NAMED, page);
        for (size_t i = 0; rc == 0 && i < page->count; i++) {
            struct change c = {.kind = CHANGE_PUT_BLOB, .blob = page->blobs[i]};
            c.blob.where = BLOB_WHERE_OWN;
            emit(&d, &c);
        }
    }
    free(page);
    if (rc == 0 && d.changes == 0)
        rc = -EALREADY;
    if (rc == 0)
        return history_fold_end(m, d.batch, d.generation, record.cut, record.counters);
    manifest_batch_free(d.batch);
    return rc;
}

// ---- publishing ---------------------------------------------------------------------------------

int
history_publish(const struct remote_place *place, struct manifest *m, struct db_id db,
    struct generation *generation_out)
{
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
    int rc = remote_manifest_stage_generation(place, m, db, &staged, &uploads, &count);
    if (rc < 0)
        return rc;
    *generation_out = staged.header.generation;
    // The record may name only blobs that are in the store.
    if (count > 0) {
        log_error("history.failed", "a blob of the new generation is not in the store");
        rc = -EINVAL;
    }
    if (rc == 0)
        rc = remote_manifest_publish(place, &staged);
    if (rc == 0)
        rc = remote_manifest_record_publication(place, m, db, &staged, uploads, count, 0);
    // Without the catalog readers take the record: it holds all that is new.
    if (rc == 0 && staged.catalog && remote_manifest_put_catalog(place, m, db, staged.catalog) < 0)
        log_warning("catalog.failed", "cannot write a catalog: %s", remote_store_error());
    free(uploads);
    remote_staged_free(&staged);
    return rc;
}
