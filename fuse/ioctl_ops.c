// SPDX-License-Identifier: Apache-2.0
// The control ABI. The kernel's restricted mode copies the structs by the size in the command
// number: a wrong size is another command, and so ENOTTY.
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fuse/ckptfs_ioctl.h"
#include "fuse/fs_ops.h"
#include "fuse/snapshot_ops.h"
#include "metrics/metrics.h"
#include "platform/memory.h"

#define CHECKPOINT_FLAGS (CKPTFS_CHECKPOINT_WAIT | CKPTFS_CHECKPOINT_LOCAL_ONLY)

bool
fs_is_zero(const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        if (b[i] != 0)
            return false;
    return true;
}

int
fs_check_control(fuse_req_t req)
{
    uid_t uid = fuse_req_ctx(req)->uid;
    struct volume_attributes root;
    if (uid == 0)
        return 0;
    int rc = volume_get_attributes(fs_of(req)->volume, OBJECT_ROOT_DIRECTORY, &root);
    if (rc != 0)
        return rc;
    return root.inode.uid == uid ? 0 : -EPERM;
}

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

static void
checkpoint(fuse_req_t req, const struct ckptfs_checkpoint *in)
{
    struct fs *fs = fs_of(req);
    uint64_t ticket;
    struct ticket_slot *slot = ticket_begin(&fs->tickets, in->flags, &ticket);
    if (!slot) {
        fs_reply_result(req, -EAGAIN);
        return;
    }
    if (in->flags & CKPTFS_CHECKPOINT_WAIT) {
        wait_for_checkpoint(req, slot, ticket, in->flags);
        return;
    }
    int rc = start_checkpoint(fs, slot, in->flags);
    reply_checkpoint(req, rc, ticket, in->flags, (struct generation){0});
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

static void
status(fuse_req_t req)
{
    struct fs *fs = fs_of(req);
    struct volume_status s;
    struct ckptfs_status out;
    uint64_t ticket;
    int result;
    volume_status(fs->volume, &s);
    fill_status(&s, &out);
    tickets_completed(&fs->tickets, &ticket, &result);
    out.completed_ticket = ticket;
    out.completed_result = result;
    memcpy(out.volume, s.volume.b, sizeof(out.volume));
    copy_text(out.tenant, sizeof(out.tenant), s.tenant);
    copy_text(out.source, sizeof(out.source), s.source);
    copy_text(out.root, sizeof(out.root), s.root);
    copy_text(out.read_only_reason, sizeof(out.read_only_reason), s.read_only_reason);
    copy_text(out.last_error, sizeof(out.last_error), s.last_error);
    fuse_reply_ioctl(req, 0, &out, sizeof(out));
}

// ---- metrics ------------------------------------------------------------------------------------

_Static_assert(METRICS_COUNT <= CKPTFS_METRICS_MAX, "the metrics ioctl has no room for all");
_Static_assert(METRIC_NAME_MAX < sizeof(((struct ckptfs_metric *)0)->name), "names");

static void
metrics(fuse_req_t req)
{
    struct volume_status s;
    volume_status(fs_of(req)->volume, &s);
    CLEANUP(memory_free_auto) struct ckptfs_metrics *out = memory_alloc_zero(sizeof(*out));
    out->version = CKPTFS_ABI_VERSION;
    out->count = METRICS_COUNT;
    out->pid = (uint32_t)getpid();
    for (size_t i = 0; i < METRICS_COUNT; i++) {
        struct ckptfs_metric *metric = &out->metrics[i];
        copy_text(metric->name, sizeof(metric->name), metrics_table[i].name);
        metric->kind = metrics_table[i].kind;
        metric->unit = metrics_table[i].unit;
        metric->value = metrics_value(&s.metrics, i);
    }
    fuse_reply_ioctl(req, 0, out, sizeof(*out));
}

// ---- check --------------------------------------------------------------------------------------

static void
check_manifest(fuse_req_t req)
{
    struct ckptfs_check out = {.version = CKPTFS_ABI_VERSION};
    uint64_t ticket = 0;
    int rc = volume_check(fs_of(req)->volume, &ticket);
    out.ticket = ticket;
    if (rc != 0)
        fs_reply_result(req, rc);
    else
        fuse_reply_ioctl(req, 0, &out, sizeof(out));
}

// ---- lost bytes ---------------------------------------------------------------------------------

static void
lost_bytes(fuse_req_t req)
{
    struct ckptfs_lost out = {.version = CKPTFS_ABI_VERSION};
    struct volume_lost lost;
    _Static_assert(VOLUME_LOST_RANGES == CKPTFS_LOST_MAX, "ABI");
    int rc = volume_lost(fs_of(req)->volume, &lost);
    if (rc < 0) {
        fs_reply_result(req, rc);
        return;
    }
    out.count = lost.count;
    out.ranges = lost.ranges;
    out.bytes = lost.bytes;
    for (unsigned i = 0; i < lost.count; i++)
        out.first[i] = (struct ckptfs_lost_range){.inode = lost.first[i].object.v,
            .offset = lost.first[i].offset,
            .length = lost.first[i].length};
    fuse_reply_ioctl(req, 0, &out, sizeof(out));
}

// ---- the life of data ---------------------------------------------------------------------------

static void
operation(fuse_req_t req, const struct ckptfs_operation *in)
{
    struct ckptfs_operation out = *in;
    uint64_t ticket = 0;
    int rc = volume_operation_start(fs_of(req)->volume, in->kind, in->flags, in->argument, &ticket);
    out.ticket = ticket;
    if (rc != 0)
        fs_reply_result(req, rc);
    else
        fuse_reply_ioctl(req, 0, &out, sizeof(out));
}

static void
report(fuse_req_t req, const struct ckptfs_report *in)
{
    struct volume_operation_report r;
    CLEANUP(memory_free_auto) struct ckptfs_report *out = memory_alloc_zero(sizeof(*out));
    // It may have been about a snapshot.
    snapshot_tree_names_changed(&fs_of(req)->snapshots);
    int rc = volume_operation_report(
        fs_of(req)->volume, in->ticket, in->offset, out->text, sizeof(out->text), &r);
    out->version = CKPTFS_ABI_VERSION;
    out->ticket = in->ticket;
    out->offset = in->offset;
    out->state = r.state;
    out->total = r.length;
    out->result = r.result;
    out->length = (uint32_t)r.copied;
    if (rc != 0)
        fs_reply_result(req, rc);
    else
        fuse_reply_ioctl(req, 0, out, sizeof(*out));
}

// ---- requests -----------------------------------------------------------------------------------

static void
fuse_requests(fuse_req_t req)
{
    struct fs *fs = fs_of(req);
    struct ckptfs_fuse_requests out = {.version = CKPTFS_ABI_VERSION};
    for (size_t i = 0; i < CKPTFS_FUSE_OPCODES; i++)
        out.requests[i] = atomic_load_explicit(&fs->requests[i], memory_order_relaxed);
    fuse_reply_ioctl(req, 0, &out, sizeof(out));
}

// ---- dispatch -----------------------------------------------------------------------------------

static int
check_checkpoint(const struct ckptfs_checkpoint *in)
{
    if (in->version != CKPTFS_ABI_VERSION || (in->flags & ~CHECKPOINT_FLAGS) != 0 ||
        !fs_is_zero(in->reserved, sizeof(in->reserved)))
        return -EINVAL;
    return 0;
}

static int
check_status(const struct ckptfs_status *in)
{
    if (in->version != CKPTFS_ABI_VERSION || in->reserved0 != 0 ||
        !fs_is_zero(in->reserved, sizeof(in->reserved)))
        return -EINVAL;
    return 0;
}

static int
check_fuse_requests(const struct ckptfs_fuse_requests *in)
{
    if (in->version != CKPTFS_ABI_VERSION || in->reserved0 != 0 ||
        !fs_is_zero(in->reserved, sizeof(in->reserved)))
        return -EINVAL;
    return 0;
}

static int
check_metrics(const struct ckptfs_metrics *in)
{
    if (in->version != CKPTFS_ABI_VERSION || in->count != 0 || in->pid != 0 || in->reserved0 != 0 ||
        !fs_is_zero(in->reserved, sizeof(in->reserved)))
        return -EINVAL;
    return 0;
}

static int
check_check(const struct ckptfs_check *in)
{
    if (in->version != CKPTFS_ABI_VERSION || in->flags != 0 || in->ticket != 0 ||
        !fs_is_zero(in->reserved, sizeof(in->reserved)))
        return -EINVAL;
    return 0;
}

static int
check_lost(const struct ckptfs_lost *in)
{
    if (in->version != CKPTFS_ABI_VERSION ||
        !fs_is_zero(&in->count, sizeof(*in) - offsetof(struct ckptfs_lost, count)))
        return -EINVAL;
    return 0;
}

static int
check_operation(const struct ckptfs_operation *in)
{
    if (in->version != CKPTFS_ABI_VERSION || in->reserved0 != 0 || in->ticket != 0 ||
        !fs_is_zero(in->reserved, sizeof(in->reserved)) ||
        !memchr(in->argument, 0, sizeof(in->argument)))
        return -EINVAL;
    return 0;
}

static int
check_report(const struct ckptfs_report *in)
{
    if (in->version != CKPTFS_ABI_VERSION || in->state != 0 || in->total != 0 || in->result != 0 ||
        in->length != 0 || !fs_is_zero(in->reserved, sizeof(in->reserved)))
        return -EINVAL;
    return 0;
}

union request {
    struct ckptfs_check check;
    struct ckptfs_operation operation;
    struct ckptfs_report report;
    struct ckptfs_checkpoint checkpoint;
    struct ckptfs_status status;
    struct ckptfs_fuse_requests fuse;
    struct ckptfs_metrics metrics;
    struct ckptfs_lost lost;
};

// 0 for a command that there is not.
static size_t
size_of(unsigned command)
{
    switch (command) {
    case CKPTFS_IOC_CHECKPOINT:
        return sizeof(struct ckptfs_checkpoint);
    case CKPTFS_IOC_STATUS:
        return sizeof(struct ckptfs_status);
    case CKPTFS_IOC_CHECK:
        return sizeof(struct ckptfs_check);
    case CKPTFS_IOC_LOST:
        return sizeof(struct ckptfs_lost);
    case CKPTFS_IOC_OPERATION:
        return sizeof(struct ckptfs_operation);
    case CKPTFS_IOC_REPORT:
        return sizeof(struct ckptfs_report);
    case CKPTFS_IOC_FUSE:
        return sizeof(struct ckptfs_fuse_requests);
    case CKPTFS_IOC_METRICS:
        return sizeof(struct ckptfs_metrics);
    default:
        return 0;
    }
}

static int
check(unsigned command, const union request *in)
{
    if (command == CKPTFS_IOC_CHECKPOINT)
        return check_checkpoint(&in->checkpoint);
    if (command == CKPTFS_IOC_STATUS)
        return check_status(&in->status);
    if (command == CKPTFS_IOC_METRICS)
        return check_metrics(&in->metrics);
    if (command == CKPTFS_IOC_CHECK)
        return check_check(&in->check);
    if (command == CKPTFS_IOC_LOST)
        return check_lost(&in->lost);
    if (command == CKPTFS_IOC_OPERATION)
        return check_operation(&in->operation);
    if (command == CKPTFS_IOC_REPORT)
        return check_report(&in->report);
    return check_fuse_requests(&in->fuse);
}

void
fs_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void *argument UNUSED,
    struct fuse_file_info *fi, unsigned flags UNUSED, const void *in, size_t in_size,
    size_t out_size)
{
    union request u;
    size_t size = size_of(command);
    if (UNLIKELY(snapshot_node_is(ino))) {
        snapshot_ops_ioctl(req, ino, command, out_size);
        return;
    }
    if (fs_flags_ioctl(req, ino, command, in, in_size, out_size) ||
        fs_job_ioctl(req, ino, command, in, in_size, out_size) ||
        fs_fetch_ioctl(req, ino, command, fi, in, in_size, out_size))
        return;
    if (size == 0) {
        fs_reply_result(req, -ENOTTY);
        return;
    }
    int rc = fs_check_control(req);
    if (rc == 0 && (in_size != size || out_size < size))
        rc = -EINVAL;
    if (rc == 0) {
        memcpy(&u, in, size);
        rc = check(command, &u);
    }
    if (rc != 0)
        fs_reply_result(req, rc);
    else if (command == CKPTFS_IOC_CHECKPOINT)
        checkpoint(req, &u.checkpoint);
    else if (command == CKPTFS_IOC_STATUS)
        status(req);
    else if (command == CKPTFS_IOC_METRICS)
        metrics(req);
    else if (command == CKPTFS_IOC_LOST)
        lost_bytes(req);
    else if (command == CKPTFS_IOC_CHECK)
        check_manifest(req);
    else if (command == CKPTFS_IOC_OPERATION)
        operation(req, &u.operation);
    else if (command == CKPTFS_IOC_REPORT)
        report(req, &u.report);
    else
        fuse_requests(req);
}
