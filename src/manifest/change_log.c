// SPDX-License-Identifier: Apache-2.0
// The feed: one record a batch, in the batch's transaction. Sequence numbers go up by one and are
// never used again, because the newest record is never trimmed.
#include <errno.h>

#include "manifest/manifest_internal.h"
#include "platform/clock.h"

// Without subscribers. There are none yet: `change_cursors` is reserved for them.
#define KEPT_RECORDS 1024u

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

// Deletes records up to `last`.
static int
trim(struct lmdb_txn *txn, uint64_t last)
{
    struct schema_key from = {0};
    struct table_walk w;
    int rc = table_walk_begin(&w, txn, TABLE_CHANGE_LOG, &from, 0);
    while (rc > 0) {
        uint64_t sequence;
        if (!schema_read_sequence(w.key.data, w.key.length, &sequence))
            rc = manifest_bad_entry(TABLE_CHANGE_LOG);
        else if (sequence > last)
            rc = 0;
        else if ((rc = lmdb_cursor_delete(w.cursor)) == 0)
            rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

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
    return trim(a->txn, a->log.sequence - KEPT_RECORDS);
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
