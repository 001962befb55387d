// SPDX-License-Identifier: Apache-2.0
// What happens to the hosts of a volume: they die, stand still, and are taken over.
#include "volume_history.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

static const char *const points[] = {"checkpoint.planned", "checkpoint.staged",
    "checkpoint.recorded", "checkpoint.uploaded", "checkpoint.bucket_checked",
    "checkpoint.published_remotely", "checkpoint.publication_recorded", "checkpoint.cleaned",
    "remote.record_created", "manifest.before_commit", "manifest.after_commit", "retention.told",
    "retention.run_told", "retention.blobs_deleted", "retention.deleted"};

// ---- publishing without waiting -----------------------------------------------------------------

struct publication {
    atomic_bool done;
    int result;
    struct generation generation;
};

static void
note_published(void *argument, int result, struct generation generation)
{
    struct publication *p = argument;
    p->result = result;
    p->generation = generation;
    atomic_store(&p->done, true);
}

static void
begin_publication(struct volume *v, struct publication *p)
{
    *p = (struct publication){.result = 0};
    ck_assert_int_eq(volume_checkpoint(v, VOLUME_CHECKPOINT_PUBLISH, note_published, p), 0);
}

void
history_outage(struct history_volume *h)
{
    struct publication p;
    unsigned count = 1 + (unsigned)history_below(5);
    ck_assert_int_eq(history_write_batch(h->w.v, h->now, history.next_number, count), 0);
    history.next_number += count;
    h->mark = history.next_number;
    history_set_script("outage");
    begin_publication(h->w.v, &p);
    clock_sleep_ms(history_below(30));
    ck_assert_int_eq(volume_world_sync(h->w.v), 0);
    history_set_script("");
    while (!atomic_load(&p.done))
        clock_sleep_ms(1);
    ck_assert_int_eq(p.result, 0);
    history_note_kept(h, p.generation, h->now);
    history_look(h);
}

// ---- the work of a host that does not come to its end -------------------------------------------

// What it wrote is durable before the point. In the child, which asserts nothing.
static void
open_and_write(struct history_volume *h, unsigned count)
{
    BUFFER_AUTO error = {0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (volume_open(&h->w.config, NULL, &h->w.v, &error) < 0 ||
        history_write_batch(h->w.v, NULL, history.next_number, count) < 0 ||
        volume_world_sync(h->w.v) < 0)
        _exit(1);
    h->w.v->collect_pause_ms = 1;
}

// The result of CheckpointGC with a sweep; 1: it cannot be begun.
static int
sweep(struct volume *v)
{
    struct volume_operation_report report;
    uint64_t ticket;
    char text[8];
    if (volume_operation_start(v, VOLUME_OPERATION_GC, VOLUME_OPERATION_SWEEP, "", &ticket) < 0)
        return 1;
    do {
        clock_sleep_ms(1);
        if (volume_operation_report(v, ticket, 0, text, sizeof(text), &report) < 0)
            return 1;
    } while (report.state != VOLUME_OPERATION_DONE);
    return report.result;
}

static int
publish_in_child(struct volume *v)
{
    struct generation generation;
    return volume_world_checkpoint(v, VOLUME_CHECKPOINT_PUBLISH, &generation);
}

static void
arm(const char *point)
{
#ifdef CKPTFS_FAULT_HOOKS
    crash_point_arm(point);
#else
    (void)point;
#endif
}

static pid_t
begin_child(void)
{
    fflush(stdout);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    return pid;
}

// ---- death --------------------------------------------------------------------------------------

static void
work_until_death(struct history_volume *h, unsigned count, const char *point, bool outage)
{
    open_and_write(h, count);
    arm(point);
    if (outage) {
        struct publication p;
        history_set_script("outage");
        begin_publication(h->w.v, &p);
        clock_sleep_ms(10);
        raise(SIGKILL);
    }
    // A request may have failed.
    if (publish_in_child(h->w.v) < 0 && publish_in_child(h->w.v) < 0)
        _exit(2);
    for (int i = 0; i < 3; i++)
        (void)sweep(h->w.v);
    raise(SIGKILL);
}

// After the host is gone, or another one has the volume. The storage root has all that was synced;
// the bucket may have it.
static void
find_out(struct history_volume *h, unsigned count, bool must_have_it)
{
    volume_world_open(&h->w);
    uint64_t mark = volume_steps_mark(h->w.v);
    if (mark != h->mark || must_have_it) {
        ck_assert_uint_eq(mark, history.next_number + count);
        ck_assert_int_eq(history_write_batch(NULL, h->now, history.next_number, count), 0);
        h->mark = mark;
    }
    history.next_number += count;
}

void
history_die(struct history_volume *h)
{
    history_unmount(h);
    unsigned count = 1 + (unsigned)history_below(5);
    uint64_t at = history_below(ARRAY_LENGTH(points) + 1);
    const char *point = at < ARRAY_LENGTH(points) ? points[at] : NULL;
    bool outage = history_below(6) == 0;
    if (!outage)
        history_disturb();
    pid_t pid = begin_child();
    if (pid == 0)
        work_until_death(h, count, point, outage);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: status %x",
        point ? point : "the end", status);
    history_heal();
    history_set_script("");
    bool lost_root = history_below(2) == 0;
    if (lost_root)
        history_use_new_root(h);
    h->w.config.takeover = true;
    find_out(h, count, !lost_root);
    volume_world_close(&h->w);
    history_mount(h);
    h->w.config.takeover = false;
}

// ---- takeover -----------------------------------------------------------------------------------

// The volume on another host; the world of the one that has it goes to `old_out`.
static void
change_host(struct history_volume *h, struct volume_world *old_out)
{
    *old_out = h->w;
    history_place_join(&history.place, strrchr(old_out->config.source, '/') + 1, &h->w);
    history_use_new_root(h);
    h->w.config.takeover = true;
}

static void
go_on(struct history_volume *h)
{
    unsigned count = 1 + (unsigned)history_below(5);
    ck_assert_int_eq(history_write_batch(h->w.v, h->now, history.next_number, count), 0);
    history.next_number += count;
    h->mark = history.next_number;
    history_do_publish(h);
    if (history_below(2) == 0)
        (void)history_operate(h, VOLUME_OPERATION_GC, VOLUME_OPERATION_SWEEP, "");
    // For the sweep of the other host that is what was left behind.
    history_place_age(&history.place, 2);
    if (history_below(2) == 0)
        (void)history_operate(h, VOLUME_OPERATION_GC, VOLUME_OPERATION_SWEEP, "");
    history_look(h);
}

void
history_take_over(struct history_volume *h)
{
    struct volume_world old;
    struct generation generation;
    unsigned count = 1 + (unsigned)history_below(5);
    history_do_publish(h);
    history_look(h);
    change_host(h, &old);
    // These are in the log of the old host alone.
    ck_assert_int_eq(history_write_batch(old.v, NULL, history.next_number, count), 0);
    history.next_number += count;
    history_mount(h);
    h->w.config.takeover = false;
    go_on(h);
    if (history_below(2) == 0)
        (void)sweep(old.v);
    ck_assert_int_eq(
        volume_world_checkpoint(old.v, VOLUME_CHECKPOINT_PUBLISH, &generation), -ESTALE);
    (void)sweep(old.v);
    ck_assert_int_eq(volume_world_try_close(&old), -ESTALE);
    volume_world_leave(&old);
}

enum { CHILD_PUBLISHED = 10, CHILD_FENCED };

static void
work_and_stand_still(struct history_volume *h, unsigned count, const char *point)
{
    open_and_write(h, count);
    arm(point);
    int rc = publish_in_child(h->w.v);
    for (int i = 0; i < 3; i++)
        (void)sweep(h->w.v);
    // The same mark: nothing changes by it.
    if (rc == 0)
        rc = volume_steps_set_mark(h->w.v, history.next_number + count);
    if (rc == 0)
        rc = publish_in_child(h->w.v);
    _exit(rc == 0 ? CHILD_PUBLISHED : rc == -ESTALE || rc == -EROFS ? CHILD_FENCED : 3);
}

void
history_stall(struct history_volume *h)
{
    struct volume_world old;
    char point[64];
    int status;
    history_unmount(h);
    unsigned count = 1 + (unsigned)history_below(5);
    snprintf(point, sizeof(point), "%s:stop", points[history_below(ARRAY_LENGTH(points))]);
    pid_t pid = begin_child();
    if (pid == 0)
        work_and_stand_still(h, count, point);
    ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
    bool stands = WIFSTOPPED(status);
    change_host(h, &old);
    find_out(h, count, !stands);
    history_look(h);
    h->w.v->collect_pause_ms = 1;
    h->w.config.takeover = false;
    go_on(h);
    if (stands) {
        ck_assert_int_eq(kill(pid, SIGCONT), 0);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    }
    ck_assert_msg(
        WIFEXITED(status) && WEXITSTATUS(status) == (stands ? CHILD_FENCED : CHILD_PUBLISHED),
        "%s: a host that %s ends with status %x", point,
        stands ? "stood still" : "did not stand still", status);
    volume_world_leave(&old);
}
