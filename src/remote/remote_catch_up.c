// SPDX-License-Identifier: Apache-2.0
// Catching up: this root takes in the records of the chain behind its position.
//
// A root that published and died before it recorded that finds its own record there; so does a root
// whose request the store carried out after the root gave up on it. Which records are its own:
//
//     record                     the root's knowledge            verdict
//     GENERATION, own writer,    generation <= local             own: its changes are in the tables
//       epoch <= db.epoch        generation > local              foreign: the tables are older than
//                                                                the chain (restored, or a copy)
//     RETENTION, own writer,     any                             own: it is valid with any state of
//       epoch <= db.epoch                                        the tables
//     OPEN, own writer           epoch == db.epoch               own: a claim notes the epoch first
//                                another epoch                   foreign: a copy of this root
//     any, other writer                                          foreign
#include <errno.h>
#include <string.h>

#include "platform/log.h"
#include "remote/remote_internal.h"

struct catch_up {
    const struct remote_place *place;
    struct manifest *m;
    struct db_record *db;
    struct remote_link link;
    struct remote_catch_up *result;
};

static bool
is_own(const struct catch_up *c, const struct manifest_record_header *h)
{
    const struct db_record *db = c->db;
    if (!uuid_equal(&h->writer, &c->place->writer) || db->epoch == 0)
        return false;
    if (h->kind == MANIFEST_RECORD_OPEN)
        return h->epoch == db->epoch;
    if (h->kind == MANIFEST_RECORD_RETENTION)
        return h->epoch <= db->epoch;
    // The newest local generation is the one whose cut is known.
    return h->kind == MANIFEST_RECORD_GENERATION && h->epoch <= db->epoch &&
           h->generation.v <= db->local.v &&
           (h->generation.v != db->local.v || h->cut.v == db->cut.v);
}

struct noted_blobs {
    struct manifest_batch *b;
    struct generation generation; // of the record
};

static int
note_blob(void *argument, const struct change *change)
{
    const struct noted_blobs *n = argument;
    // The tables know deaths already.
    if (change->kind == CHANGE_PUT_BLOB && change->blob.death.v == 0)
        remote_note_uploaded(n->b, &change->blob, n->generation);
    return 0;
}

static int
apply_all(void *argument, const struct change *change)
{
    const struct noted_blobs *n = argument;
    manifest_batch_change(n->b, change, false, n->generation);
    return 0;
}

static int
roll_forward(struct catch_up *c, const char *key, struct remote_object *object,
    const struct manifest_record_header *h)
{
    struct sha256 hash;
    struct manifest_batch *b = manifest_batch_new(c->db->id);
    struct noted_blobs noted = {b, h->generation};
    bool retention = h->kind == MANIFEST_RECORD_RETENTION;
    manifest_batch_told(b, h->sequence);
    int rc = remote_object_read(object, key, retention ? apply_all : note_blob, &noted, &hash);
    if (rc < 0) {
        manifest_batch_free(b);
        return rc;
    }
    if (retention && h->lowest_sequence > 0)
        manifest_batch_lowest(b, h->lowest_sequence);
    if (h->kind == MANIFEST_RECORD_OPEN || retention)
        manifest_batch_remote_position(b, h->epoch, h->sequence, &hash);
    else
        remote_note_published(b, h, &hash, object->bytes);
    rc = manifest_submit(c->m, b, NULL);
    if (rc < 0)
        return rc;
    if (h->kind == MANIFEST_RECORD_GENERATION)
        c->result->rolled_forward++;
    remote_link_advance(&c->link, h, &hash);
    return remote_refresh_db(c->m, c->db->id, c->db);
}

static void
note_foreign(struct catch_up *c, const struct manifest_record_header *h)
{
    c->result->foreign = true;
    c->result->foreign_epoch = h->epoch;
    remote_copy_host(h->host, c->result->foreign_host);
}

static int
take_record(struct catch_up *c, const char *key, uint64_t bytes)
{
    struct remote_object object;
    struct manifest_record_header h;
    int rc = remote_object_fetch(c->place, key, bytes, &object);
    if (rc < 0)
        return rc;
    rc = remote_object_header(&object, key, &h);
    if (rc == 0)
        rc = remote_link_check(&c->link, key, &h);
    if (rc == -EIDRM)
        note_foreign(c, &h);
    if (rc == 0 && is_own(c, &h)) {
        rc = roll_forward(c, key, &object, &h);
    } else if (rc == 0) {
        // Even a foreign record is believed only when all of it verifies.
        rc = remote_object_read(&object, key, NULL, NULL, NULL);
        if (rc == 0)
            note_foreign(c, &h);
    }
    remote_object_free(&object);
    return rc;
}

// The record after the link is not there, and record `sequence` is. If that one says that records
// up to it may be missing, another owner went on for so long that they were deleted: this root's
// state is too old. Else the bucket has lost something.
static int
judge_gap(struct catch_up *c, uint64_t sequence, uint64_t bytes)
{
    BUFFER_AUTO name = {0};
    struct manifest_record_header h;
    remote_key(c->place, REMOTE_RECORD, sequence, &name);
    int rc = remote_header_fetch(c->place, buffer_string(&name), bytes, &h);
    if (rc < 0)
        return rc;
    if (h.sequence == sequence && uuid_equal(&h.volume, &c->db->volume) &&
        h.lowest_sequence > c->link.sequence + 1) {
        note_foreign(c, &h);
        return 0;
    }
    if (remote_judge_damage(c->place, -EBADMSG) == -EIDRM) {
        note_foreign(c, &h);
        return -EIDRM;
    }
    remote_key(c->place, REMOTE_RECORD, c->link.sequence + 1, &name);
    return remote_log_bad(buffer_string(&name), "the record is missing");
}

int
remote_manifest_catch_up(const struct remote_place *place, struct manifest *m, struct db_record *db,
    struct remote_catch_up *result_out)
{
    *result_out = (struct remote_catch_up){0};
    int rc = remote_refresh_db(m, db->id, db);
    if (rc < 0)
        return rc;
    if (db->state != DB_STATE_READY || db->remote_sequence == 0)
        return -EINVAL;
    struct catch_up c = {.place = place, .m = m, .db = db, .result = result_out};
    c.link = (struct remote_link){
        .sequence = db->remote_sequence,
        .hash = db->remote_hash,
        .volume = db->volume,
        .name_key = db->name_key,
        .generation = db->published,
    };
    struct remote_walk walk;
    remote_walk_begin(&walk, place, REMOTE_RECORD, db->remote_sequence);
    BUFFER_AUTO name = {0};
    uint64_t sequence, bytes;
    while (!result_out->foreign && (rc = remote_walk_next(&walk, &sequence, &bytes)) > 0) {
        remote_key(place, REMOTE_RECORD, c.link.sequence + 1, &name);
        const char *key = buffer_string(&name);
        rc = sequence == c.link.sequence + 1 ? take_record(&c, key, bytes)
                                             : judge_gap(&c, sequence, bytes);
        if (rc < 0)
            break;
    }
    remote_walk_end(&walk);
    return rc < 0 ? rc : 0;
}
