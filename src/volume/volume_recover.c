// SPDX-License-Identifier: Apache-2.0
// Replay: the records of the WAL after the cut of the local generation go back into the active
// layers, by the same function that applied them the first time. Whole pages stay in the log and
// are only noted; so memory does not grow with the log.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
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
    if (!volume_is_loggable(c, record->payload_length, record->payload_page_offset))
        return -EBADMSG;
    if (c->kind == CHANGE_WRITE || c->kind == CHANGE_DISCARD)
        return replay_data(v, c, record);
    lock_take(&v->lock);
    volume_apply_locked(v, c, NULL, 0, record->lsn, 0);
    lock_release(&v->lock);
    return 0;
}

// ---- records that cannot be replayed ------------------------------------------------------------

int
volume_read_waiver(struct volume_replay *replay)
{
    BUFFER_AUTO text = {0};
    replay->waived = false;
    int rc = file_read_whole(replay->waiver, 64, &text);
    if (rc == -ENOENT)
        return 0;
    size_t n =
        text.length > 0 && text.data[text.length - 1] == '\n' ? text.length - 1 : text.length;
    if (rc == 0 && n == strlen(REPLAY_WAIVER_WORD) && memcmp(text.data, REPLAY_WAIVER_WORD, n) == 0)
        replay->waived = true;
    else
        volume_error(replay->error, "cannot use %s: %s", replay->waiver,
            rc < 0 ? strerror(-rc) : "it may hold nothing but the word " REPLAY_WAIVER_WORD);
    return rc < 0 ? rc : replay->waived ? 0 : -EINVAL;
}

void
volume_end_waiver(struct volume *v)
{
    if (!v->waiver)
        return;
    BUFFER_AUTO directory = {0};
    path_directory(v->waiver, &directory);
    int rc = path_unlink(v->waiver);
    if (rc == 0)
        rc = file_sync_directory(&file_ops_system, buffer_string(&directory));
    if (rc < 0 && rc != -ENOENT)
        log_warning("wal.waiver", "cannot remove %s: %s", v->waiver, strerror(-rc));
    free(v->waiver);
    v->waiver = NULL;
}

static const char *
name_of_kind(enum change_kind kind)
{
    static const char *const names[] = {
        [CHANGE_PUT_INODE] = "the inode",
        [CHANGE_DELETE_INODE] = "the deletion",
        [CHANGE_PUT_DIRENT] = "an entry of the directory",
        [CHANGE_DELETE_DIRENT] = "the removal of an entry of the directory",
        [CHANGE_PUT_XATTR] = "an extended attribute",
        [CHANGE_DELETE_XATTR] = "the removal of an extended attribute",
        [CHANGE_WRITE] = "a write",
        [CHANGE_DISCARD] = "a hole or truncation",
    };
    return (size_t)kind < ARRAY_LENGTH(names) && names[kind] ? names[kind] : "an unknown change";
}

// `c` may be any bytes.
static void
describe_change(const struct change *c, struct buffer *out)
{
    bool dirent = c->kind == CHANGE_PUT_DIRENT || c->kind == CHANGE_DELETE_DIRENT;
    bool xattr = c->kind == CHANGE_PUT_XATTR || c->kind == CHANGE_DELETE_XATTR;
    uint64_t object = dirent ? c->dirent.parent.v : xattr ? c->xattr.object.v : c->object.v;
    const char *name = dirent ? c->dirent.name : xattr ? c->xattr.name : NULL;
    int length = dirent ? c->dirent.name_length : c->xattr.name_length;
    buffer_printf(out, "%s of object %" PRIu64, name_of_kind(c->kind), object);
    if (name)
        buffer_printf(out, " with the name %.*s", length, name);
    if (dirent && c->dirent.object.v != 0)
        buffer_printf(out, " for object %" PRIu64, c->dirent.object.v);
    if (c->kind == CHANGE_WRITE || c->kind == CHANGE_DISCARD)
        buffer_printf(out, " of %" PRIu64 " bytes at %" PRIu64, c->length, c->offset);
}

// Skips a change that makes no sense if an operator wants that. Changes put whole states, so the
// others of the record hold without it.
static int
judge_failure(struct volume_replay *x, const struct wal_replayed *record, const struct change *c,
    const struct byte_reader *r, int rc)
{
    if (rc != -EBADMSG && rc != -ENOENT) {
        log_error(
            "wal.replay_failed", "record at LSN %" PRIu64 ": %s", record->lsn.v, strerror(-rc));
        return rc;
    }
    BUFFER_AUTO what = {0};
    describe_change(c, &what);
    const char *rest = r->bad ? ", and the rest of the record," : "";
    if (x->waived) {
        x->v->lost_changes++;
        log_warning("wal.replay_skipped", "record at LSN %" PRIu64 ": %s%s is given up",
            record->lsn.v, buffer_string(&what), rest);
        return 0;
    }
    log_error("wal.replay_failed", "record at LSN %" PRIu64 ": %s makes no sense", record->lsn.v,
        buffer_string(&what));
    volume_error(x->error,
        "the write-ahead log has a record at LSN %" PRIu64 " that was written well but makes no "
        "sense: %s. Nothing was changed. To give up such changes, and nothing else, run: "
        "echo " REPLAY_WAIVER_WORD " >%s",
        record->lsn.v, buffer_string(&what), x->waiver);
    return -EBADMSG;
}

int
volume_replay(void *argument, const struct wal_replayed *record)
{
    struct volume_replay *x = argument;
    struct volume *v = x->v;
    page_store_set_wal(v->pages, record->wal);
    struct byte_reader r = byte_reader_over(record->changes, record->changes_length);
    while (!r.bad && byte_reader_left(&r) > 0) {
        struct change c;
        int rc = change_decode(&r, &c);
        if (rc == 0)
            rc = replay_change(v, &c, record);
        if (rc < 0)
            rc = judge_failure(x, record, &c, &r, rc);
        if (rc < 0)
            return rc;
    }
    lock_take(&v->lock);
    v->oldest_change_ms = clock_monotonic_ms();
    lock_release(&v->lock);
    return 0;
}
