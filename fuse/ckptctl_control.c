// SPDX-License-Identifier: Apache-2.0
// The ioctls, and the line that shows how a checkpoint gets on.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fuse/ckptctl.h"
#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "volume/volume.h"

// ---- control ------------------------------------------------------------------------------------

int
control_open(const char *path)
{
    // O_NONBLOCK: a fifo must not make it wait.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0)
        return fd;
    int rc = -errno;
    print_error("open %s: %s%s", path, strerror(-rc),
        rc == -ENOTCONN ? "; the daemon of this mount is dead, mount it again" : "");
    return rc;
}

int
control_status(int fd, struct ckptfs_status *status_out)
{
    *status_out = (struct ckptfs_status){.version = CKPTFS_ABI_VERSION};
    return ioctl(fd, CKPTFS_IOC_STATUS, status_out) < 0 ? -errno : 0;
}

int
control_metrics(int fd, struct ckptfs_metrics *metrics_out)
{
    *metrics_out = (struct ckptfs_metrics){.version = CKPTFS_ABI_VERSION};
    if (ioctl(fd, CKPTFS_IOC_METRICS, metrics_out) < 0)
        return -errno;
    // Bytes of another program: the fields in use are checked here.
    if (metrics_out->count > CKPTFS_METRICS_MAX)
        return -EBADMSG;
    for (size_t i = 0; i < metrics_out->count; i++) {
        struct ckptfs_metric *m = &metrics_out->metrics[i];
        m->name[sizeof(m->name) - 1] = '\0';
    }
    return 0;
}

int
control_lost(int fd, struct ckptfs_lost *lost_out)
{
    *lost_out = (struct ckptfs_lost){.version = CKPTFS_ABI_VERSION};
    if (ioctl(fd, CKPTFS_IOC_LOST, lost_out) < 0)
        return errno == ENOTTY ? 0 : -errno;
    return lost_out->count > CKPTFS_LOST_MAX ? -EBADMSG : 0;
}

int
control_fuse_requests(int fd, struct ckptfs_fuse_requests *requests_out)
{
    *requests_out = (struct ckptfs_fuse_requests){.version = CKPTFS_ABI_VERSION};
    return ioctl(fd, CKPTFS_IOC_FUSE, requests_out) < 0 ? -errno : 0;
}

int
control_check(int fd, struct ckptfs_check *check_out)
{
    *check_out = (struct ckptfs_check){.version = CKPTFS_ABI_VERSION};
    return ioctl(fd, CKPTFS_IOC_CHECK, check_out) < 0 ? -errno : 0;
}

int
control_checkpoint(int fd, uint32_t flags, struct ckptfs_checkpoint *checkpoint_out)
{
    *checkpoint_out = (struct ckptfs_checkpoint){.version = CKPTFS_ABI_VERSION, .flags = flags};
    return ioctl(fd, CKPTFS_IOC_CHECKPOINT, checkpoint_out) < 0 ? -errno : 0;
}

static const char *
explain(int rc)
{
    switch (-rc) {
    case ENOTTY:
    case ENOSYS:
    case EOPNOTSUPP:
        return "this is not on a ckptfs mount; give the mountpoint or a path below it";
    case EPERM:
        return "permission denied; be root or the owner of the mount's root directory";
    case EINVAL:
        return "the daemon does not know this request; it and ckptctl are of different versions";
    case ENOTCONN:
    case ECONNABORTED:
        return "the daemon of this mount has ended; mount it again";
    case EAGAIN:
        return "too many checkpoints are waiting; see ckptctl status";
    case EINTR:
        return "interrupted; the checkpoint may go on in the background";
    default:
        return NULL;
    }
}

int
control_failed(const char *what, const char *path, int rc)
{
    const char *text = explain(rc);
    if (text)
        print_error("%s %s: %s", what, path, text);
    else
        print_error(
            "%s %s: %s; see ckptctl status and the log of ckptfs", what, path, strerror(-rc));
    return EXIT_STATUS_ERROR;
}

int
control_checkpoint_failed(const char *path, int fd, int rc)
{
    struct ckptfs_status status;
    CLEANUP(memory_free_auto) struct ckptfs_metrics *metrics = memory_alloc(sizeof(*metrics));
    switch (-rc) {
    case EINTR:
    case EAGAIN:
    case ENOTCONN:
    case ECONNABORTED:
        return control_failed("checkpoint of", path, rc);
    default:
        break;
    }
    BUFFER_AUTO why = {0};
    if (control_status(fd, &status) == 0 && control_metrics(fd, metrics) == 0) {
        if (status.flags & (CKPTFS_STATUS_FENCED | CKPTFS_STATUS_READ_ONLY))
            buffer_printf(&why, "%s%s",
                status.flags & CKPTFS_STATUS_FENCED ? "" : "read-only: ", status.read_only_reason);
        else if (print_has_failed(metrics))
            buffer_append_string(&why, status.last_error);
    }
    print_error("checkpoint of %s: %s%s%s", path, strerror(-rc),
        why.length > 0 ? ": " : "; the log of ckptfs says more", buffer_string(&why));
    return EXIT_STATUS_ERROR;
}

// ---- progress -----------------------------------------------------------------------------------

#define PROGRESS_INTERVAL_MS 200

struct progress {
    int fd;
    struct ckptfs_metrics *metrics;
    struct thread thread;
    struct lock lock; // protects `stopping`
    struct condition changed;
    bool stopping;
};

static void
show(const struct ckptfs_status *s, const struct ckptfs_metrics *metrics)
{
    uint64_t failing = print_metric(metrics, "store_failing");
    BUFFER_AUTO text = {0};
    uint32_t stage = s->publish_stage ? s->publish_stage : s->fold_stage;
    // The cause comes before the numbers, and is there on a narrow terminal, too.
    if (failing > 1) {
        print_retries(&text, failing, s->last_error);
        buffer_append_string(&text, "; ");
    }
    if (stage == CHECKPOINT_STAGE_IDLE) {
        buffer_append_string(&text, "waiting");
    } else {
        buffer_append_string(&text, print_stage_name(stage));
        if (stage == CHECKPOINT_STAGE_UPLOADING) {
            buffer_append_u8(&text, ' ');
            print_upload(s, metrics, &text);
        }
    }
    if (failing <= 1 && !(s->flags & CKPTFS_STATUS_STORE_REACHABLE))
        buffer_append_string(&text, " (the store is not reachable)");
    print_progress(&text);
}

static void
run_progress(void *argument)
{
    struct progress *p = argument;
    lock_take(&p->lock);
    while (!p->stopping) {
        struct ckptfs_status status;
        // The first look comes after a while: a quick checkpoint needs no line.
        (void)condition_wait_until(
            &p->changed, &p->lock, clock_monotonic_ms() + PROGRESS_INTERVAL_MS);
        if (p->stopping)
            break;
        lock_release(&p->lock);
        if (control_status(p->fd, &status) == 0 && control_metrics(p->fd, p->metrics) == 0)
            show(&status, p->metrics);
        lock_take(&p->lock);
    }
    lock_release(&p->lock);
    fputs("\r\033[K", stderr);
}

struct progress *
progress_start(int fd)
{
    if (!isatty(STDERR_FILENO))
        return NULL;
    struct progress *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->fd = fd;
    p->metrics = calloc(1, sizeof(*p->metrics));
    if (!p->metrics) {
        free(p);
        return NULL;
    }
    lock_init(&p->lock, "progress", LOCK_RANK_FUSE);
    condition_init(&p->changed);
    if (thread_start(&p->thread, "progress", run_progress, p) == 0)
        return p;
    condition_destroy(&p->changed);
    lock_destroy(&p->lock);
    free(p->metrics);
    free(p);
    return NULL;
}

void
progress_stop(struct progress *p)
{
    if (!p)
        return;
    lock_take(&p->lock);
    p->stopping = true;
    condition_signal(&p->changed);
    lock_release(&p->lock);
    thread_join(&p->thread);
    condition_destroy(&p->changed);
    lock_destroy(&p->lock);
    free(p->metrics);
    free(p);
}
