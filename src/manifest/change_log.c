// SPDX-License-Identifier: Apache-2.0
// The feed: one record a batch, in the batch's transaction. Sequence numbers go up by one and are
// never used again, because the newest record is never trimmed.
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "manifest/manifest_internal.h"
#include "platform/clock.h"
#include "platform/log.h"

#define KEPT_RECORDS   1024u  // at least
#define KEPT_FOR_SLOW  65536u // at most, for subscribers
#define TRIMMED_MAX    1024u  // for one batch
#define CURSOR_IDLE_MS ((uint64_t)7 * 24 * 3600 * 1000)

static int
last_sequence(struct lmdb_txn *txn, uint64_t *sequence_out)
{
    struct lmdb_value key = {0};
    struct lmdb_value value;
    CLEANUP(lmdb_cursor_close_auto) struct lmdb_cursor *cursor = NULL;
    *sequence_out = 0;
    int rc = lmdb_cursor_open(txn, TABLE_CHANGE_LOG, &cursor);
    if (rc == 0)
        rc = lmdb_cursor_last(cursor, &key, &value);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return schema_read_sequence(key.data, key.length, sequence_out)
               ? 0
               : manifest_bad_entry(TABLE_CHANGE_LOG);
}

// Deletes records up to `last`, a bounded number for each batch.
static int
trim(struct lmdb_txn *txn, uint64_t last)
{
    struct schema_key from = {0};
    struct table_walk w;
    int rc = table_walk_begin(&w, txn, TABLE_CHANGE_LOG, &from, 0);
    for (unsigned i = 0; rc > 0 && i < TRIMMED_MAX; i++) {
        uint64_t sequence;
        if (!schema_read_sequence(w.key.data, w.key.length, &sequence))
            rc = manifest_bad_entry(TABLE_CHANGE_LOG);
        else if (sequence > last)
            rc = 0;
        else if ((rc = lmdb_cursor_delete(w.cursor)) == 0)
            rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc < 0 ? rc : 0;
}

// ---- subscribers --------------------------------------------------------------------------------

int
change_log_put_cursor(struct apply *a, const struct change_cursor *cursor)
{
    uint64_t last;
    struct schema_key key;
    struct change_cursor now = *cursor;
    int rc = last_sequence(a->txn, &last);
    if (rc < 0)
        return rc;
    if (cursor->name[0] == 0 || cursor->sequence > last)
        return -EINVAL;
    now.updated_ms = clock_wall_ms();
    schema_key_cursor(&key, cursor->name);
    buffer_clear(&a->value);
    schema_encode_cursor(&now, &a->value);
    return apply_put(a, TABLE_CHANGE_CURSORS, &key);
}

int
change_log_drop_cursor(struct apply *a, const char *name)
{
    struct schema_key key;
    if (name[0] == 0)
        return -EINVAL;
    schema_key_cursor(&key, name);
    int rc = lmdb_delete(a->txn, TABLE_CHANGE_CURSORS, key.bytes, key.length);
    return rc == -ENOENT ? 0 : rc;
}

static bool
read_cursor_entry(const struct table_walk *w, struct change_cursor *cursor_out)
{
    return schema_read_cursor_name(w->key.data, w->key.length, cursor_out) &&
           schema_decode_cursor(w->value.data, w->value.length, cursor_out);
}

// Drops subscribers that are gone or too slow. Up to which record all others have read.
static int
expire_cursors(struct lmdb_txn *txn, uint64_t last, uint64_t *seen_out)
{
    struct schema_key from = {0};
    struct table_walk w;
    uint64_t now_ms = clock_wall_ms();
    *seen_out = UINT64_MAX;
    int rc = table_walk_begin(&w, txn, TABLE_CHANGE_CURSORS, &from, 0);
    while (rc > 0) {
        struct change_cursor cursor;
        if (!read_cursor_entry(&w, &cursor)) {
            rc = manifest_bad_entry(TABLE_CHANGE_CURSORS);
            break;
        }
        bool idle = now_ms > cursor.updated_ms && now_ms - cursor.updated_ms > CURSOR_IDLE_MS;
        if (idle || last - cursor.sequence > KEPT_FOR_SLOW) {
            log_warning("changes.expired", "subscriber %s has read up to %" PRIu64 " of %" PRIu64,
                cursor.name, cursor.sequence, last);
            rc = lmdb_cursor_delete(w.cursor);
        } else if (cursor.sequence < *seen_out) {
            *seen_out = cursor.sequence;
        }
        if (rc >= 0)
            rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

int
manifest_read_cursor(struct manifest_reader *r, const char *name, struct change_cursor *cursor_out)
{
    struct schema_key key;
    struct lmdb_value value;
    if (name[0] == 0 || strlen(name) >= sizeof(cursor_out->name))
        return -ENOENT;
    schema_key_cursor(&key, name);
    int rc = lmdb_get(manifest_reader_txn(r), TABLE_CHANGE_CURSORS, key.bytes, key.length, &value);
    if (rc < 0)
        return rc;
    return schema_read_cursor_name(name, strlen(name), cursor_out) &&
                   schema_decode_cursor(value.data, value.length, cursor_out)
               ? 0
               : manifest_bad_entry(TABLE_CHANGE_CURSORS);
}

// ---- records ------------------------------------------------------------------------------------

int
change_log_append(struct apply *a)
{
    uint64_t last;
    int rc = last_sequence(a->txn, &last);
    if (rc < 0)
        return rc;
    a->log.sequence = last + 1;
    a->log.db = a->db.id;
    a->log.wall_ms = clock_wall_ms();
    a->log.local = a->db.local;
    a->log.published = a->db.published;
    a->log.blobs = a->published_blobs.data;
    a->log.blob_count = (uint32_t)(a->published_blobs.length / sizeof(struct sha256));
    struct schema_key key;
    schema_key_sequence(&key, a->log.sequence);
    buffer_clear(&a->value);
    schema_encode_change_record(&a->log, &a->value);
    rc = apply_put(a, TABLE_CHANGE_LOG, &key);
    if (rc < 0 || a->log.sequence <= KEPT_RECORDS)
        return rc;
    uint64_t seen;
    uint64_t old = a->log.sequence - KEPT_RECORDS;
    rc = expire_cursors(a->txn, a->log.sequence, &seen);
    return rc < 0 ? rc : trim(a->txn, seen < old ? seen : old);
}

int
manifest_read_change_log(
    struct manifest_reader *r, uint64_t after, manifest_visit_change_record *visit, void *argument)
{
    struct schema_key from;
    struct table_walk w;
    if (after == UINT64_MAX)
        return 0;
    schema_key_sequence(&from, after + 1);
    int rc = table_walk_begin(&w, manifest_reader_txn(r), TABLE_CHANGE_LOG, &from, 0);
    while (rc > 0) {
        struct manifest_change_record record;
        if (!schema_read_sequence(w.key.data, w.key.length, &record.sequence) ||
            !schema_decode_change_record(w.value.data, w.value.length, &record))
            rc = manifest_bad_entry(TABLE_CHANGE_LOG);
        else
            rc = visit(argument, &record);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}
