// SPDX-License-Identifier: Apache-2.0
// The data of files.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "platform/memory.h"
#include "platform/path.h"
#include "volume/volume_attributes.h"
#include "volume/volume_internal.h"

// ---- reading ------------------------------------------------------------------------------------

struct find_file {
    struct object_id object;
    struct inode_record inode;
};

static int
find_file(struct view *view, void *argument)
{
    struct find_file *x = argument;
    int rc = view_inode(view, x->object, &x->inode);
    x->inode.link_target = NULL;
    if (rc == 0 && !S_ISREG(x->inode.mode))
        rc = S_ISDIR(x->inode.mode) ? -EISDIR : -EINVAL;
    return rc;
}

int64_t
volume_read(struct volume *v, struct object_id object, uint64_t offset, size_t length, uint8_t *out,
    const struct volume_read_context *context)
{
    struct find_file x = {.object = object};
    int rc = volume_look(v, find_file, &x);
    if (rc < 0)
        return rc;
    bool keep_atime = context && (context->keep_atime || context->call.again);
    if (length > 0 && !keep_atime)
        volume_accessed(v, object, &x.inode);
    if (offset >= x.inode.size)
        return 0;
    if (length > x.inode.size - offset)
        length = x.inode.size - offset;
    if (context && context->scan)
        rc = volume_read_scanned(context->scan, object, offset, length, out, &context->call);
    else
        rc =
            page_store_read(v->pages, object, offset, length, out, context ? &context->call : NULL);
    if (UNLIKELY(rc == -EREMOTE))
        atomic_fetch_add_explicit(&v->cold_reads, 1, memory_order_relaxed);
    return rc < 0 ? rc : (int64_t)length;
}

// ---- writing ------------------------------------------------------------------------------------

struct write {
    struct object_id object;
    uint64_t offset;
    uint32_t length;
    unsigned flags;
    struct operation *op;
    const uint8_t *data;
};

// Pieces depend on where in their pages the bytes fall; for an append that is known only here.
static int
cut_append(struct write *x, uint64_t end)
{
    if (x->op->pieces && x->offset == end)
        return 0;
    page_pieces_free(x->op->pieces, x->op->piece_count);
    x->offset = end;
    x->op->pieces = page_pieces_new(x->offset, x->data, x->length, &x->op->piece_count);
    return 0;
}

static int
decide_write(struct view *view, struct operation *op)
{
    struct write *x = op->argument;
    struct find_file f = {.object = x->object};
    int rc = find_file(view, &f);
    if (rc < 0)
        return rc;
    if (x->flags & VOLUME_WRITE_APPEND)
        rc = cut_append(x, f.inode.size);
    if (rc == 0 && x->offset > OBJECT_MAX_BYTES - x->length)
        rc = -EFBIG;
    if (rc < 0)
        return rc;
    struct change w = {.kind = CHANGE_WRITE, .object = x->object};
    w.offset = x->offset;
    w.length = x->length;
    op->changes[op->count++] = w;
    bool grows = x->offset + x->length > f.inode.size;
    if (grows)
        f.inode.size = x->offset + x->length;
    bool kill = (x->flags & VOLUME_WRITE_KILL_SUIDGID) && (f.inode.mode & (S_ISUID | S_ISGID));
    if (kill) {
        f.inode.mode &= ~(uint32_t)S_ISUID;
        if (f.inode.mode & S_IXGRP)
            f.inode.mode &= ~(uint32_t)S_ISGID;
    }
    if (!(x->flags & VOLUME_WRITE_KEEP_TIMES))
        f.inode.mtime = f.inode.ctime = volume_now();
    if (grows || kill || !(x->flags & VOLUME_WRITE_KEEP_TIMES))
        op->changes[op->count++] = change_put_inode(x->object, &f.inode);
    return 0;
}

static int
write_record(struct volume *v, struct write *x)
{
    struct operation op = {
        .decide = decide_write,
        .argument = x,
        .payload = x->data,
        .payload_length = x->length,
    };
    x->op = &op;
    if (x->flags & VOLUME_WRITE_APPEND)
        op.piece_count = pages_of_bytes(x->length) + 1; // at most; cut when the end is known
    else
        op.pieces = page_pieces_new(x->offset, x->data, x->length, &op.piece_count);
    int rc = volume_operate(v, &op);
    page_pieces_free(op.pieces, op.pieces ? op.piece_count : 0);
    return rc;
}

// One record carries at most WAL_PAYLOAD_MAX bytes, so a longer write is several records. Until the
// application syncs, a crash may leave any prefix of them, as on any file system.
int
volume_write(struct volume *v, struct object_id object, uint64_t offset, const uint8_t *data,
    size_t length, unsigned flags)
{
    if (!(flags & VOLUME_WRITE_APPEND) &&
        (offset > OBJECT_MAX_BYTES || length > OBJECT_MAX_BYTES - offset))
        return -EFBIG;
    while (length > 0) {
        uint32_t n = length < WAL_PAYLOAD_MAX ? (uint32_t)length : WAL_PAYLOAD_MAX;
        struct write x = {
            .object = object, .offset = offset, .length = n, .flags = flags, .data = data};
        int rc = write_record(v, &x);
        if (rc < 0)
            return rc;
        offset += n;
        data += n;
        length -= n;
    }
    return 0;
}

// ---- holes --------------------------------------------------------------------------------------

struct allocate {
    struct object_id object;
    int mode;
    uint64_t offset;
    uint64_t length;
    struct buffer area; // the inode's extension area with the present allocation
};

// Whole pages: allocating counts up, taking away counts down. True when that changes the inode.
static bool
allocate_pages(struct allocate *x, struct inode_record *inode)
{
    uint64_t end = x->offset + x->length;
    struct allocation before, after;
    volume_see_allocation(inode, &before);
    after = before;
    if (!(x->mode & FALLOC_FL_PUNCH_HOLE))
        allocation_add(&after, x->offset / PAGE_BYTES, pages_of_bytes(end));
    else
        allocation_remove(&after, pages_of_bytes(x->offset),
            end < inode->size ? end / PAGE_BYTES : pages_of_bytes(end));
    if (allocation_is_same(&before, &after))
        return false;
    volume_put_allocation(inode, &after, &x->area);
    return true;
}

static int
decide_allocate(struct view *view, struct operation *op)
{
    struct allocate *x = op->argument;
    struct find_file f = {.object = x->object};
    int rc = find_file(view, &f);
    if (rc < 0)
        return rc;
    if ((f.inode.flags & INODE_IMMUTABLE) ||
        ((f.inode.flags & INODE_APPEND_ONLY) && (x->mode & ~FALLOC_FL_KEEP_SIZE)))
        return -EPERM;
    uint64_t end = x->offset + x->length;
    if ((x->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && x->offset < f.inode.size) {
        struct change c = {.kind = CHANGE_DISCARD, .object = x->object};
        c.offset = x->offset;
        // To the end: the last page, too, goes as a whole.
        c.length = end < f.inode.size ? x->length : UINT64_MAX;
        op->changes[op->count++] = c;
    }
    bool grows = !(x->mode & FALLOC_FL_KEEP_SIZE) && end > f.inode.size;
    // The times change even when nothing else does, as on other file systems.
    bool keeps_times = view->volume->host.keeps_times;
    bool allocates = allocate_pages(x, &f.inode);
    if (keeps_times && !grows && !allocates && op->count == 0)
        return 0;
    if (grows)
        f.inode.size = end;
    if (!keeps_times)
        f.inode.mtime = f.inode.ctime = volume_now();
    op->changes[op->count++] = change_put_inode(x->object, &f.inode);
    return 0;
}

// No room is set aside for allocated pages, but a range that cannot fit is refused: its part beyond
// the end of the object must fit.
static int
check_space(struct volume *v, struct object_id object, uint64_t offset, uint64_t end)
{
    struct find_file x = {.object = object};
    struct volume_space space;
    int rc = volume_look(v, find_file, &x);
    if (rc < 0)
        return rc;
    uint64_t from = offset > x.inode.size ? offset : x.inode.size;
    if (end <= from)
        return 0;
    rc = volume_space(v, &space);
    if (rc < 0)
        return rc;
    return (end - from) / space.block_bytes >= space.blocks_free ? -ENOSPC : 0;
}

int
volume_allocate(
    struct volume *v, struct object_id object, int mode, uint64_t offset, uint64_t length)
{
    if (mode != 0 && mode != FALLOC_FL_KEEP_SIZE &&
        mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) && mode != FALLOC_FL_ZERO_RANGE &&
        mode != (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
        return -EOPNOTSUPP;
    if (length == 0)
        return -EINVAL;
    if (offset > OBJECT_MAX_BYTES || length > OBJECT_MAX_BYTES - offset)
        return -EFBIG;
    int rc = 0;
    if ((mode & ~FALLOC_FL_KEEP_SIZE) == 0)
        rc = check_space(v, object, offset, offset + length);
    if (rc < 0)
        return rc;
    struct allocate x = {.object = object, .mode = mode, .offset = offset, .length = length};
    struct operation op = {
        .decide = decide_allocate, .argument = &x, .extra_bytes = ALLOCATION_BYTES_MAX};
    rc = volume_operate(v, &op);
    buffer_free(&x.area);
    return rc;
}

// ---- seeking ------------------------------------------------------------------------------------

int64_t
volume_seek(struct volume *v, struct object_id object, uint64_t offset, int whence,
    const struct remote_call *call)
{
    struct find_file x = {.object = object};
    int rc = volume_look(v, find_file, &x);
    if (rc < 0)
        return rc;
    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return -EINVAL;
    if (offset >= x.inode.size)
        return -ENXIO;
    uint64_t found;
    rc = page_store_seek(v->pages, object, offset, x.inode.size, whence == SEEK_DATA, call, &found);
    if (rc < 0)
        return rc;
    if (found >= x.inode.size)
        return whence == SEEK_DATA ? -ENXIO : (int64_t)x.inode.size;
    return (int64_t)found;
}

// ---- syncing and space --------------------------------------------------------------------------

void
volume_sync(struct volume *v, volume_synced *done, void *argument)
{
    if (v->from_bucket)
        done(argument, 0);
    else if (atomic_load_explicit(&v->own.root_lost, memory_order_relaxed))
        done(argument, -EIO);
    else
        wal_sync(v->wal, done, argument);
}

// The free space is that of the quota, or of the disk under the storage root if that is less: all
// written data must fit there before it can leave for the store. A read-only mount shows the same:
// programs that watch file systems take one without free space for full.
int
volume_space(struct volume *v, struct volume_space *space_out)
{
    struct statvfs s;
    int rc = path_space(v->root, &s);
    if (rc < 0)
        return rc;
    struct manifest_reader *r;
    struct db_record db;
    struct db_totals totals = {0};
    rc = manifest_read_begin(v->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_db(r, v->db, &db);
    if (rc == 0)
        rc = manifest_read_totals(r, v->db, &totals);
    manifest_read_end(r);
    if (rc < 0)
        return rc;
    uint64_t inodes =
        volume_count_inodes(v, totals.inodes, (struct object_id){db.counters.next_object});
    uint64_t scale = s.f_frsize ? s.f_frsize : PAGE_BYTES;
    uint64_t free_blocks = (uint64_t)s.f_bavail * scale / PAGE_BYTES;
    uint64_t room = volume_quota_room(v, totals.unpublished_bytes) / PAGE_BYTES;
    free_blocks = room < free_blocks ? room : free_blocks;
    *space_out = (struct volume_space){
        .block_bytes = PAGE_BYTES,
        .blocks = totals.blob_bytes / PAGE_BYTES + free_blocks,
        .blocks_free = free_blocks,
        .files = inodes + UINT32_MAX,
        .files_free = UINT32_MAX,
    };
    return 0;
}
