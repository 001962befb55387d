// SPDX-License-Identifier: Apache-2.0
// Replay: what the WAL tells happened after the cut of the local generation goes back into the
// active layers, by the same function that applied it the first time. Whole pages stay in the log
// and are only noted; so memory does not grow with the log.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

// An object's size before a change to its data, from the layers or the tables.
struct size_of {
    struct object_id object;
    uint64_t size;
};

static int
look_up_size(struct view *view, void *argument)
{
    struct size_of *x = argument;
    struct inode_record inode = {0};
    int rc = view_inode(view, x->object, &inode);
    x->size = inode.size;
    return rc;
}

// A partial page over one that is only in the log: bring that one into memory first.
static int
make_way(struct volume *v, const struct change *c, struct page_piece *pieces, size_t count)
{
    if (c->kind == CHANGE_WRITE)
        return page_store_prefault(v->pages, c->object, pieces, count);
    uint64_t end = c->length == UINT64_MAX ? UINT64_MAX : c->offset + c->length;
    size_t edge_count;
    struct page_piece *edges = page_store_edges(c->offset, end, &edge_count);
    int rc = page_store_prefault(v->pages, c->object, edges, edge_count);
    page_pieces_free(edges, edge_count);
    return rc;
}

static int
replay_data(struct volume *v, const struct change *c, const struct wal_replayed *record)
{
    struct size_of x = {.object = c->object};
    int rc = volume_look(v, look_up_size, &x);
    if (rc < 0)
        return rc;
    struct page_piece *pieces = NULL;
    size_t count = 0;
    if (c->kind == CHANGE_WRITE) {
        if (c->length != record->payload_length ||
            c->offset % PAGE_BYTES != record->payload_page_offset)
            return -EBADMSG;
        pieces = page_pieces_logged(
            c->offset, record->payload, record->payload_length, record->piece_crcs, &count);
    }
    rc = make_way(v, c, pieces, count);
    if (rc == 0) {
        lock_take(&v->lock);
        volume_apply_locked(v, c, pieces, count, record->payload_lsn, x.size);
        lock_release(&v->lock);
    }
    page_pieces_free(pieces, count);
    return rc;
}

static int
replay_change(struct volume *v, const struct change *c, const struct wal_replayed *record)
{
    if (c->kind > CHANGE_DISCARD)
        return -EBADMSG;
    if (c->kind == CHANGE_WRITE || c->kind == CHANGE_DISCARD)
        return replay_data(v, c, record);
    lock_take(&v->lock);
    volume_apply_locked(v, c, NULL, 0, record->lsn, 0);
    lock_release(&v->lock);
    return 0;
}

int
volume_replay(void *argument, const struct wal_replayed *record)
{
    struct volume *v = argument;
    page_store_set_wal(v->pages, record->wal);
    struct byte_reader r = byte_reader_over(record->changes, record->changes_length);
    while (byte_reader_left(&r) > 0) {
        struct change c;
        int rc = change_decode(&r, &c);
        if (rc == 0)
            rc = replay_change(v, &c, record);
        if (rc < 0) {
            log_error(
                "wal.replay_failed", "record at LSN %" PRIu64 ": %s", record->lsn.v, strerror(-rc));
            return rc == -ENOENT ? -EBADMSG : rc;
        }
    }
    lock_take(&v->lock);
    v->oldest_change_ms = clock_monotonic_ms();
    lock_release(&v->lock);
    return 0;
}
