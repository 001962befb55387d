// SPDX-License-Identifier: Apache-2.0
// Truncation of append-only objects: the job TruncateAppendOnly. The job keeps checkpoints from
// beginning, waits until those in flight have released the chunks (and cancels them when that takes
// long), removes the data as truncate(2) or fallocate(2) does, which is one record of the log, and
// asks for the fold that takes the chunks out of the manifest.
//
// The job removes the data at most once: it marks its record before, and a run that finds the mark
// only looks whether the data is gone. A job that another process submitted does not remove data
// written after that: it fails when the file has grown.
#define _GNU_SOURCE // SEEK_DATA
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/crash_point.h"
#include "volume/volume_internal.h"

struct truncation {
    struct volume *v;
    struct job_run *run;
    struct job_truncation order;
    struct inode_record inode;
};

// ---- taking the order ---------------------------------------------------------------------------

static int
check_order(const struct job_truncation *order, const struct inode_record *inode)
{
    if (!S_ISREG(inode->mode))
        return -EINVAL;
    if (inode->source_variant != SOURCE_VARIANT_APPEND_ONLY)
        return -EMEDIUMTYPE;
    if (order->offset > inode->size || (!order->tail && order->offset % CHUNK_BYTES != 0))
        return -EINVAL;
    return is_fixed(inode) ? -EPERM : 0;
}

int
volume_truncate(
    struct volume *v, struct object_id object, bool tail, uint64_t offset, uint64_t *job_out)
{
    struct volume_attributes a;
    unsigned flags;
    if (!v->jobs)
        return -EROFS;
    int rc = volume_get_flags(v, &flags);
    if (rc == 0 && !(flags & DB_FLAG_APPEND_ONLY_TRUNCATION))
        rc = -EOPNOTSUPP;
    if (rc == 0)
        rc = volume_get_attributes(v, object, &a);
    if (rc < 0)
        return rc;
    struct job_truncation order = {object, tail, offset, a.inode.size, v->session};
    rc = check_order(&order, &a.inode);
    if (rc < 0)
        return rc;
    rc = job_queue_submit(
        v->jobs, JOB_TRUNCATE_APPEND_ONLY, &order, JOB_PRIORITY_URGENT, NULL, job_out);
    return rc == -EEXIST ? -EBUSY : rc;
}

// ---- carrying it out ----------------------------------------------------------------------------

static bool
is_interrupted(void *argument)
{
    const struct truncation *t = argument;
    return job_is_interrupted(t->run);
}

// Whether the data is gone: 1, 0 or -errno.
static int
is_done(const struct truncation *t)
{
    if (t->order.tail)
        return t->inode.size <= t->order.offset;
    if (t->order.offset == 0)
        return 1;
    int64_t data = volume_seek(t->v, t->order.object, 0, SEEK_DATA, NULL);
    if (data == -ENXIO)
        return 1;
    return data < 0 ? (int)data : (uint64_t)data >= t->order.offset;
}

struct unpublished {
    struct volume *v;
    struct manifest_reader *r;
    struct chunk_range range;
    struct object_id object;
    struct generation published;
    struct generation first; // of the chunks that are not published; 0: all are
};

static int
look_at_chunk(void *argument, struct chunk_index index, struct chunk_id id UNUSED,
    uint32_t present_pages UNUSED)
{
    struct unpublished *u = argument;
    struct chunk_entry chunk;
    if (index.v < u->range.first || index.v >= u->range.end)
        return 0;
    int rc = manifest_read_chunk(u->r, u->v->db, u->object, index, &chunk);
    if (rc == 0 && chunk.generation.v > u->published.v &&
        (u->first.v == 0 || chunk.generation.v < u->first.v))
        u->first = chunk.generation;
    return rc == -ENOENT ? 0 : rc;
}

// The oldest generation of a chunk in the range that a publication may be uploading.
static int
find_target(
    const struct truncation *t, const struct chunk_range *range, struct generation *target_out)
{
    struct unpublished u = {.v = t->v, .range = *range, .object = t->order.object};
    struct db_record db;
    int rc = manifest_read_begin(t->v->manifest, &u.r);
    if (rc < 0)
        return rc;
    rc = manifest_read_db(u.r, t->v->db, &db);
    u.published = db.published;
    if (rc == 0)
        rc = manifest_read_object_chunks(
            u.r, t->v->db, t->order.object, (struct chunk_index){range->first}, look_at_chunk, &u);
    manifest_read_end(u.r);
    *target_out = u.first;
    return rc;
}

static int
wait_for_checkpoints(struct truncation *t)
{
    uint64_t at = t->order.offset / CHUNK_BYTES;
    struct chunk_range range = {t->order.object, 0, at};
    if (t->order.tail)
        range = (struct chunk_range){t->order.object, at, UINT64_MAX};
    struct generation target;
    int rc = find_target(t, &range, &target);
    if (rc < 0)
        return rc;
    job_progress(t->run, "waiting for leases", 0, 3);
    rc = checkpoint_wait_for_leases(t->v->checkpoint, &range, target,
        clock_monotonic_ms() + t->v->lease_wait_ms, is_interrupted, t);
    if (rc != -ETIMEDOUT)
        return rc;
    if (checkpoint_cancel(t->v->checkpoint, CANCEL_TRUNCATION_CONFLICT) == 0)
        job_progress(t->run, "cancelling", 0, 3);
    rc = checkpoint_wait_for_leases(t->v->checkpoint, &range, target,
        clock_monotonic_ms() + t->v->lease_wait_ms, is_interrupted, t);
    if (rc == -ETIMEDOUT)
        buffer_printf(t->run->text, "a checkpoint works on these chunks and does not end");
    return rc == -ETIMEDOUT ? -EBUSY : rc;
}

// By way of the kernel, which caches size and pages of the file, when there is one.
static int
remove_data(const struct truncation *t)
{
    struct volume *v = t->v;
    if (v->host.truncate)
        return v->host.truncate(v->host.argument, t->order.object, t->order.tail, t->order.offset);
    struct volume_attributes a;
    struct volume_set_attributes cut = {.set = VOLUME_SET_SIZE, .size = t->order.offset};
    return t->order.tail ? volume_set_attributes(v, t->order.object, &cut, &a)
                         : volume_allocate(v, t->order.object,
                               FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, t->order.offset);
}

static int
remove_once(struct truncation *t)
{
    static const uint8_t begun = 1;
    job_progress(t->run, "truncating", 1, 3);
    int rc = job_mark(t->run, &begun, sizeof(begun));
    if (rc < 0)
        return rc;
    crash_point("truncation.marked");
    rc = remove_data(t);
    crash_point("truncation.removed");
    // A failed try has removed nothing, and may run again.
    if (rc < 0 && job_mark(t->run, NULL, 0) < 0)
        return -EIO;
    return rc;
}

static int
truncate_held(struct truncation *t)
{
    struct volume_attributes a;
    int rc = wait_for_checkpoints(t);
    if (rc == 0)
        rc = volume_get_attributes(t->v, t->order.object, &a);
    if (rc < 0)
        return rc;
    t->inode = a.inode;
    rc = check_order(&t->order, &t->inode);
    if (rc < 0) {
        buffer_printf(t->run->text, "the file has changed so that it cannot be truncated there");
        return rc;
    }
    bool taken_over = !uuid_equal(&t->order.session, &t->v->session);
    if (t->order.tail && taken_over && t->inode.size != t->order.size) {
        buffer_printf(t->run->text,
            "the file has %" PRIu64 " bytes and had %" PRIu64
            " when this was asked for, before the daemon ended: look at it and ask again",
            t->inode.size, t->order.size);
        return -ESTALE;
    }
    return remove_once(t);
}

// The data is gone: the manifest is to say so, too.
static int
fold(struct truncation *t)
{
    struct volume *v = t->v;
    struct manifest_note note = {.kind = MANIFEST_NOTE_TRUNCATE,
        .job = t->run->job->id,
        .object = t->order.object,
        .window_begin = t->order.tail ? 0 : t->order.offset,
        .window_end = t->order.tail ? t->order.offset : t->inode.size};
    job_progress(t->run, "folding", 2, 3);
    checkpoint_note_truncation(v->checkpoint, &note);
    int rc = volume_await_checkpoint(v, 0, is_interrupted, t);
    if (rc == 0)
        job_progress(t->run, "folded", 3, 3);
    return rc;
}

int
volume_truncate_run(void *argument, struct job_run *run)
{
    struct truncation t = {.v = argument, .run = run};
    struct volume_attributes a;
    int rc = job_read_parameters(run->job, &t.order);
    if (rc == 0)
        rc = volume_get_attributes(t.v, t.order.object, &a);
    if (rc == -ENOENT)
        buffer_printf(run->text, "the file was removed");
    if (rc < 0)
        return rc;
    t.inode = a.inode;
    int done = is_done(&t);
    if (done < 0)
        return done;
    if (!done && run->job->marker_length > 0) {
        buffer_printf(run->text,
            "the daemon ended while it truncated, and the data is still there: look at the file "
            "and ask again");
        return -ESTALE;
    }
    if (!done) {
        checkpoint_hold(t.v->checkpoint);
        rc = truncate_held(&t);
        checkpoint_unhold(t.v->checkpoint);
    }
    return rc < 0 ? rc : fold(&t);
}
