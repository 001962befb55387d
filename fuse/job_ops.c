// SPDX-License-Identifier: Apache-2.0
// The ioctls about jobs, and those on a file that its owner may use: truncation and variant.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fuse/ioctl_table.h"
#include "jobs/job_kinds.h"

_Static_assert(CKPTFS_CHUNK_BYTES == CHUNK_BYTES, "ABI");
_Static_assert((int)CKPTFS_VARIANT_APPEND_ONLY == (int)SOURCE_VARIANT_APPEND_ONLY &&
                   (int)CKPTFS_VARIANT_RANDOM == (int)SOURCE_VARIANT_RANDOM,
    "ABI");
_Static_assert(
    (int)CKPTFS_JOB_PENDING == (int)JOB_PENDING && (int)CKPTFS_JOB_FAILED == (int)JOB_FAILED,
    "ABI");
_Static_assert((int)CKPTFS_FLAG_APPEND_ONLY_TRUNCATION == (int)DB_FLAG_APPEND_ONLY_TRUNCATION &&
                   (int)CKPTFS_FLAG_COLD_SCAN == (int)DB_FLAG_COLD_SCAN &&
                   (int)CKPTFS_FLAG_COLD_SCAN_ALL == (int)DB_FLAG_COLD_SCAN_ALL &&
                   (int)CKPTFS_FLAG_CHECKPOINTS == (int)DB_FLAG_CHECKPOINTS &&
                   (int)CKPTFS_FLAG_CHUNK_DELTAS == (int)DB_FLAG_CHUNK_DELTAS,
    "ABI");

int
ioctl_truncate(struct ioctl_request *r)
{
    struct ckptfs_truncate *io = &r->io.truncate;
    if (io->job != 0 || !IOCTL_REST_IS_ZERO(io, reserved) ||
        (io->side != CKPTFS_TRUNCATE_HEAD && io->side != CKPTFS_TRUNCATE_TAIL))
        return -EINVAL;
    uint64_t job = 0;
    int rc = volume_truncate(fs_of(r->req)->volume, object_of(r->ino),
        io->side == CKPTFS_TRUNCATE_TAIL, io->offset, &job);
    io->job = job;
    return rc;
}

int
ioctl_hydrate(struct ioctl_request *r)
{
    struct ckptfs_hydrate *io = &r->io.hydrate;
    struct volume *v = fs_of(r->req)->volume;
    bool all = io->flags & CKPTFS_HYDRATE_ALL;
    bool hot = io->flags == CKPTFS_HYDRATE_HOT;
    uint64_t job = 0;
    if ((!hot && (io->flags & ~(CKPTFS_HYDRATE_ALL | CKPTFS_HYDRATE_KEEP))) ||
        !IOCTL_REST_IS_ZERO(io, job))
        return -EINVAL;
    int rc = hot ? volume_hydrate_hot(v, &job)
                 : volume_hydrate(v, all ? (struct object_id){0} : object_of(r->ino),
                       io->flags & CKPTFS_HYDRATE_KEEP, &job);
    if (rc < 0 && rc != -EEXIST)
        return rc;
    io->job = job;
    io->result = rc;
    return 0;
}

int
ioctl_variant(struct ioctl_request *r)
{
    struct ckptfs_variant *io = &r->io.variant;
    struct volume *v = fs_of(r->req)->volume;
    struct volume_attributes a;
    bool set = io->flags & CKPTFS_VARIANT_SET;
    if ((io->flags & ~CKPTFS_VARIANT_SET) || !IOCTL_REST_IS_ZERO(io, reserved0) ||
        (set ? io->variant > CKPTFS_VARIANT_RANDOM : io->variant != 0))
        return -EINVAL;
    struct volume_set_attributes change = {
        .set = VOLUME_SET_VARIANT, .source_variant = (uint8_t)io->variant};
    int rc = set ? volume_set_attributes(v, object_of(r->ino), &change, &a)
                 : volume_get_attributes(v, object_of(r->ino), &a);
    if (rc == 0)
        io->variant = a.inode.source_variant;
    return rc;
}

static void
fill_job(const struct job_record *job, struct ckptfs_job *out)
{
    const struct job_kind_entry *kind = job_kind_find(job->kind);
    out->id = job->id;
    out->state = job->state;
    out->flags = (job->retryable ? CKPTFS_JOB_RETRYABLE : 0) |
                 (job->cancel_wanted ? CKPTFS_JOB_CANCEL_WANTED : 0);
    out->tries = job->tries;
    out->priority = job->priority;
    out->error = job->error;
    out->generation = job->generation.v;
    out->created_ms = job->created_ms;
    out->updated_ms = job->updated_ms;
    out->lease_expires_ms = job->lease_expires_ms;
    out->not_before_ms = job->not_before_ms;
    out->done = job->done;
    out->total = job->total;
    if (kind)
        (void)snprintf(out->kind, sizeof(out->kind), "%s", kind->name);
    else
        (void)snprintf(out->kind, sizeof(out->kind), "kind %u", (unsigned)job->kind);
    (void)snprintf(out->stage, sizeof(out->stage), "%s", job->stage);
    (void)snprintf(out->cause, sizeof(out->cause), "%s", job->cause);
}

// Kinds that users submit by themselves.
static int
submit_job(struct volume *v, struct ckptfs_job *io)
{
    char kind[sizeof(io->kind)];
    memcpy(kind, io->kind, sizeof(kind));
    uint64_t options = io->options;
    uint64_t id = 0;
    memset(io->kind, 0, sizeof(io->kind));
    io->options = 0;
    if (!memchr(kind, 0, sizeof(kind)) || io->id != 0 || !IOCTL_REST_IS_ZERO(io, state))
        return -EINVAL;
    const struct job_kind_entry *entry = job_kind_find_name(kind);
    const struct job_verification verification = {.data = options & CKPTFS_JOB_DATA};
    bool verifies = entry && entry->kind == JOB_VERIFY_MANIFEST;
    if (!entry || (options & ~(verifies ? (uint64_t)CKPTFS_JOB_DATA : 0)))
        return -EINVAL;
    // Of what there is when it runs.
    const struct job_generation newest = {{UINT64_MAX}};
    const void *parameters = verifies                                 ? (const void *)&verification
                             : entry->kind == JOB_DOWNLOAD_CHECKPOINT ? &newest
                                                                      : NULL;
    int rc = volume_job_submit(v, entry->kind, parameters, &id);
    io->id = id;
    return rc == -EEXIST ? 0 : rc;
}

int
ioctl_job(struct ioctl_request *r)
{
    struct ckptfs_job *io = &r->io.job;
    struct volume *v = fs_of(r->req)->volume;
    struct job_record record;
    if (io->command == CKPTFS_JOB_SUBMIT)
        return submit_job(v, io);
    if (io->command > CKPTFS_JOB_CANCEL || !IOCTL_REST_IS_ZERO(io, state))
        return -EINVAL;
    if (io->command == CKPTFS_JOB_CANCEL)
        return volume_job_cancel(v, io->id);
    int rc = volume_job_look(v, io->id, io->command == CKPTFS_JOB_NEXT, &record);
    if (rc == 0)
        fill_job(&record, io);
    return rc;
}

int
ioctl_flags(struct ioctl_request *r)
{
    struct ckptfs_flags *io = &r->io.flags;
    struct volume *v = fs_of(r->req)->volume;
    unsigned on = 0;
    if ((io->change & ~DB_FLAGS_ALL) || (io->flags & ~io->change) || !IOCTL_REST_IS_ZERO(io, known))
        return -EINVAL;
    int rc = volume_get_flags(v, &on);
    if (rc == 0 && io->change != 0) {
        on = (on & ~io->change) | io->flags;
        rc = volume_set_flags(v, on);
    }
    io->flags = on;
    io->known = DB_FLAGS_ALL;
    return rc;
}

// ---- the change log -----------------------------------------------------------------------------

_Static_assert((int)CKPTFS_CHANGE_TRUNCATE == (int)MANIFEST_NOTE_TRUNCATE &&
                   (int)CKPTFS_CANCEL_TIMEOUT == (int)CANCEL_TIMEOUT,
    "ABI");
_Static_assert(sizeof(((struct ckptfs_changes *)0)->name) == CHANGE_CURSOR_NAME_BYTES, "ABI");

static int
add_change(void *argument, const struct manifest_change_record *r)
{
    struct ckptfs_changes *io = argument;
    io->changes[io->count++] = (struct ckptfs_change){
        .sequence = r->sequence,
        .time_ms = r->wall_ms,
        .local_generation = r->local.v,
        .published_generation = r->published.v,
        .inodes = r->inodes,
        .dirents = r->dirents,
        .xattrs = r->xattrs,
        .chunks = r->chunks,
        .deltas = r->deltas,
        .blobs = r->blob_count,
        .note = r->note.kind,
        .reason = r->note.reason,
        .job = r->note.job,
        .inode = r->note.object.v,
        .window_begin = r->note.window_begin,
        .window_end = r->note.window_end,
    };
    return io->count == CKPTFS_CHANGES_MAX;
}

int
ioctl_changes(struct ioctl_request *r)
{
    struct ckptfs_changes *io = &r->io.changes;
    struct volume *v = fs_of(r->req)->volume;
    uint64_t after = io->after;
    uint64_t oldest = 0;
    bool read = io->command == CKPTFS_CHANGES_READ;
    if (io->command > CKPTFS_CHANGES_LEAVE || io->count != 0 || io->oldest != 0 ||
        io->resumed != 0 || (io->flags & ~(read ? CKPTFS_CHANGES_RESUME : 0u)) ||
        !ioctl_is_zero(io->reserved, sizeof(io->reserved)) ||
        !memchr(io->name, 0, sizeof(io->name)) || !IOCTL_REST_IS_ZERO(io, changes))
        return -EINVAL;
    if (io->command == CKPTFS_CHANGES_ACKNOWLEDGE)
        return volume_acknowledge(v, io->name, after);
    if (io->command == CKPTFS_CHANGES_LEAVE)
        return volume_unsubscribe(v, io->name);
    int rc = 0;
    if (io->flags & CKPTFS_CHANGES_RESUME)
        rc = volume_subscriber(v, io->name, &after);
    if (rc == 0)
        rc = volume_changes(v, after, add_change, io, &oldest);
    io->oldest = oldest;
    io->resumed = io->flags & CKPTFS_CHANGES_RESUME ? after : 0;
    return rc;
}
