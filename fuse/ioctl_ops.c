// SPDX-License-Identifier: Apache-2.0
// The ioctls about checkpoints, status and operators' commands.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fuse/ioctl_table.h"
#include "metrics/metrics.h"

#define CHECKPOINT_FLAGS (CKPTFS_CHECKPOINT_WAIT | CKPTFS_CHECKPOINT_LOCAL_ONLY)

// ---- checkpoint ---------------------------------------------------------------------------------

static void
reply_checkpoint(
    fuse_req_t req, int result, uint64_t ticket, uint32_t flags, struct generation generation)
{
    struct ckptfs_checkpoint out = {.version = CKPTFS_ABI_VERSION,
        .flags = flags,
        .generation = generation.v,
        .ticket = ticket};
    if (result != 0)
        fs_reply_result(req, result);
    else
        fuse_reply_ioctl(req, 0, &out, sizeof(out));
}

static void
checkpoint_done(void *argument, int result, struct generation generation)
{
    struct ticket_slot *slot = argument;
    struct fs *fs = CONTAINER_OF(slot->owner, struct fs, tickets);
    uint64_t ticket;
    uint32_t flags;
    fuse_req_t req = ticket_end(slot, result, &ticket, &flags);
    if (!req)
        return;
    reply_checkpoint(req, result, ticket, flags, generation);
    fs_end_deferred(fs);
}

// libfuse holds a reference to `req` and a lock of its own during this call. The ticket is found
// by its number, which is never reused: the request may be answered at the same time.
static void
checkpoint_interrupted(fuse_req_t req, void *data)
{
    struct fs *fs = fs_of(req);
    struct ticket_slot *slot;
    uint64_t ticket;
    uint32_t flags;
    fuse_req_t taken = ticket_interrupt(&fs->tickets, (uintptr_t)data, &slot);
    if (!taken)
        return;
    fuse_reply_err(taken, EINTR);
    if (volume_checkpoint_forget(fs->volume, slot))
        (void)ticket_end(slot, -EINTR, &ticket, &flags);
    ticket_unpin(slot);
    fs_end_deferred(fs);
}

// From here on a request that waits belongs to the thread that takes it out of the ticket, which
// can happen before this returns.
static int
start_checkpoint(struct fs *fs, struct ticket_slot *slot, uint32_t flags)
{
    unsigned wanted = VOLUME_CHECKPOINT_SYNC_KERNEL;
    if (!(flags & CKPTFS_CHECKPOINT_LOCAL_ONLY))
        wanted |= VOLUME_CHECKPOINT_PUBLISH;
    int rc = volume_checkpoint(fs->volume, wanted, checkpoint_done, slot);
    if (rc != 0)
        checkpoint_done(slot, rc, (struct generation){0});
    return rc;
}

static void
wait_for_checkpoint(fuse_req_t req, struct ticket_slot *slot, uint64_t ticket, uint32_t flags)
{
    struct fs *fs = fs_of(req);
    // Before another thread can answer the request: libfuse may call the function at once.
    fuse_req_interrupt_func(req, checkpoint_interrupted, (void *)(uintptr_t)ticket);
    fs_begin_deferred(fs);
    if (ticket_wait(slot, req)) {
        (void)start_checkpoint(fs, slot, flags);
        return;
    }
    (void)ticket_end(slot, -EINTR, &ticket, &flags);
    fuse_reply_err(req, EINTR);
    fs_end_deferred(fs);
}

int
ioctl_checkpoint(struct ioctl_request *r)
{
    const struct ckptfs_checkpoint *in = &r->io.checkpoint;
    struct fs *fs = fs_of(r->req);
    uint64_t ticket;
    if ((in->flags & ~CHECKPOINT_FLAGS) || !ioctl_is_zero(in->reserved, sizeof(in->reserved)))
        return -EINVAL;
    struct ticket_slot *slot = ticket_begin(&fs->tickets, in->flags, &ticket);
    if (!slot)
        return -EAGAIN;
    if (in->flags & CKPTFS_CHECKPOINT_WAIT) {
        wait_for_checkpoint(r->req, slot, ticket, in->flags);
        return IOCTL_LATER;
    }
    int rc = start_checkpoint(fs, slot, in->flags);
    reply_checkpoint(r->req, rc, ticket, in->flags, (struct generation){0});
    return IOCTL_LATER;
}

// ---- status -------------------------------------------------------------------------------------

#define FILL_STATUS(name) out->name = s->metrics.name;
#define FILL_ELSEWHERE(name)

static void
fill_status(const struct volume_status *s, struct ckptfs_status *out)
{
    const struct metrics *m = &s->metrics;
    *out = (struct ckptfs_status){
        .version = CKPTFS_ABI_VERSION,
        .flags = (m->read_only ? CKPTFS_STATUS_READ_ONLY : 0) |
                 (m->fenced ? CKPTFS_STATUS_FENCED : 0) |
                 (m->store_reachable ? CKPTFS_STATUS_STORE_REACHABLE : 0),
        .fold_stage = s->fold_stage,
        .publish_stage = s->publish_stage,
    };
#define METRIC(name, kind, unit, where, help) FILL_##where(name)
#include "metrics/metrics.def"
#undef METRIC
}

// The rest of the field is zero already.
static void
copy_text(char *out, size_t size, const char *text)
{
    (void)snprintf(out, size, "%s", text);
}

int
ioctl_status(struct ioctl_request *r)
{
    struct fs *fs = fs_of(r->req);
    struct ckptfs_status *out = &r->io.status;
    struct volume_status s;
    uint64_t ticket;
    int result;
    if (out->reserved0 != 0 || !ioctl_is_zero(out->reserved, sizeof(out->reserved)))
        return -EINVAL;
    volume_status(fs->volume, &s);
    fill_status(&s, out);
    tickets_completed(&fs->tickets, &ticket, &result);
    out->completed_ticket = ticket;
    out->completed_result = result;
    memcpy(out->volume, s.volume.b, sizeof(out->volume));
    copy_text(out->tenant, sizeof(out->tenant), s.tenant);
    copy_text(out->source, sizeof(out->source), s.source);
    copy_text(out->root, sizeof(out->root), s.root);
    copy_text(out->read_only_reason, sizeof(out->read_only_reason), s.read_only_reason);
    copy_text(out->last_error, sizeof(out->last_error), s.last_error);
    return 0;
}

// ---- metrics ------------------------------------------------------------------------------------

_Static_assert(METRICS_COUNT <= CKPTFS_METRICS_MAX, "the metrics ioctl has no room for all");
_Static_assert(METRIC_NAME_MAX < sizeof(((struct ckptfs_metric *)0)->name), "names");

int
ioctl_metrics(struct ioctl_request *r)
{
    struct ckptfs_metrics *out = &r->io.metrics;
    struct volume_status s;
    if (out->count != 0 || out->pid != 0 || out->reserved0 != 0 ||
        !ioctl_is_zero(out->reserved, sizeof(out->reserved)))
        return -EINVAL;
    volume_status(fs_of(r->req)->volume, &s);
    *out = (struct ckptfs_metrics){
        .version = CKPTFS_ABI_VERSION, .count = METRICS_COUNT, .pid = (uint32_t)getpid()};
    for (size_t i = 0; i < METRICS_COUNT; i++) {
        struct ckptfs_metric *metric = &out->metrics[i];
        copy_text(metric->name, sizeof(metric->name), metrics_table[i].name);
        metric->kind = metrics_table[i].kind;
        metric->unit = metrics_table[i].unit;
        metric->value = metrics_value(&s.metrics, i);
    }
    return 0;
}

// ---- check --------------------------------------------------------------------------------------

int
ioctl_check(struct ioctl_request *r)
{
    struct ckptfs_check *io = &r->io.check;
    uint64_t ticket = 0;
    if (!IOCTL_REST_IS_ZERO(io, flags))
        return -EINVAL;
    int rc = volume_check(fs_of(r->req)->volume, &ticket);
    io->ticket = ticket;
    return rc;
}

// ---- lost bytes ---------------------------------------------------------------------------------

int
ioctl_lost(struct ioctl_request *r)
{
    struct ckptfs_lost *out = &r->io.lost;
    struct volume_lost lost;
    _Static_assert(VOLUME_LOST_RANGES == CKPTFS_LOST_MAX, "ABI");
    if (!IOCTL_REST_IS_ZERO(out, count))
        return -EINVAL;
    int rc = volume_lost(fs_of(r->req)->volume, &lost);
    if (rc < 0)
        return rc;
    out->count = lost.count;
    out->ranges = lost.ranges;
    out->bytes = lost.bytes;
    for (unsigned i = 0; i < lost.count; i++)
        out->first[i] = (struct ckptfs_lost_range){.inode = lost.first[i].object.v,
            .offset = lost.first[i].offset,
            .length = lost.first[i].length};
    return 0;
}

// ---- the life of data ---------------------------------------------------------------------------

int
ioctl_operation(struct ioctl_request *r)
{
    struct ckptfs_operation *io = &r->io.operation;
    uint64_t ticket = 0;
    if (io->reserved0 != 0 || io->ticket != 0 ||
        !ioctl_is_zero(io->reserved, sizeof(io->reserved)) ||
        !memchr(io->argument, 0, sizeof(io->argument)))
        return -EINVAL;
    int rc =
        volume_operation_start(fs_of(r->req)->volume, io->kind, io->flags, io->argument, &ticket);
    io->ticket = ticket;
    return rc;
}

int
ioctl_report(struct ioctl_request *r)
{
    struct ckptfs_report *io = &r->io.report;
    struct volume_operation_report found;
    if (io->state != 0 || io->total != 0 || io->result != 0 || io->length != 0 ||
        io->done_bytes != 0 || io->total_bytes != 0 || io->reserved != 0)
        return -EINVAL;
    // It may have been about a snapshot.
    snapshot_tree_names_changed(&fs_of(r->req)->snapshots);
    memset(io->text, 0, sizeof(io->text));
    int rc = volume_operation_report(
        fs_of(r->req)->volume, io->ticket, io->offset, io->text, sizeof(io->text), &found);
    if (rc != 0)
        return rc;
    io->state = found.state;
    io->total = found.length;
    io->result = found.result;
    io->length = (uint32_t)found.copied;
    io->done_bytes = found.done_bytes;
    io->total_bytes = found.total_bytes;
    return 0;
}

// ---- requests -----------------------------------------------------------------------------------

int
ioctl_fuse_requests(struct ioctl_request *r)
{
    struct fs *fs = fs_of(r->req);
    struct ckptfs_fuse_requests *out = &r->io.fuse_requests;
    if (out->reserved0 != 0 || !ioctl_is_zero(out->reserved, sizeof(out->reserved)))
        return -EINVAL;
    for (size_t i = 0; i < CKPTFS_FUSE_OPCODES; i++)
        out->requests[i] = atomic_load_explicit(&fs->requests[i], memory_order_relaxed);
    return 0;
}
