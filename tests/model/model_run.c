// SPDX-License-Identifier: Apache-2.0
// A plan is run, batch by batch: on the mount by all threads, then on the reference, then the
// event, then the comparison.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/model/model.h"

struct run {
    const struct plan *plan;
    struct daemon daemon;
    char reference_directory[600];
    struct side mount;
    struct side reference;
    struct result *on_mount; // of each item
    struct result *on_reference;
    _Atomic(uint64_t) begun; // operations of the batch
    uint64_t kill_at;        // 0: not while the batch runs
    _Atomic(bool) killed;
    bool crashes;        // the batch ends in a crash
    bool no_checkpoints; // what the batch does must not get into the store
    bool verbose;
    char *why;
};

// ---- a batch ------------------------------------------------------------------------------------

struct worker {
    pthread_t thread;
    struct run *run;
    struct side *side;
    struct result *results;
    size_t from, to;
    int number; // -1: the operations of all threads
};

static bool
is_write(const struct item *item)
{
    return item->kind == OP_WRITE || item->kind == OP_PWRITEV;
}

// What may be there in part after a crash, or in an order between threads that is not known. A plan
// from a seed has none of it before a crash, one that was shrunk may.
static bool
is_left_out(const struct run *run, const struct item *item)
{
    switch (item->kind) {
    case OP_MMAP:
    case OP_COPY:
    case OP_HOLES:
    case OP_FLOOD:
    case OP_SWRITE:
    case OP_SREAD:
    case OP_SAPPEND:
    case OP_SNAME:
    case OP_SREADDIR:
        return run->crashes;
    case OP_CHECKPOINT:
        return run->no_checkpoints;
    default:
        return false;
    }
}

static void
run_one(struct worker *w, size_t i)
{
    struct run *run = w->run;
    const struct item *item = &run->plan->items[i];
    struct result *r = &w->results[i];
    if (w->side->is_mount && ++run->begun == run->kill_at) {
        run->killed = true;
        daemon_kill(&run->daemon);
    }
    if (is_left_out(run, item))
        *r = (struct result){.began_ns = 1, .ended_ns = UINT64_MAX};
    else
        execute(w->side, item, r);
    // An error after the daemon's death may be its death; the operation may have been done. And a
    // write may have been done in part.
    bool failed = r->value < 0 || (is_write(item) && r->value != item->a[2]);
    r->done = !(w->side->is_mount && run->killed && failed);
}

static void *
work(void *argument)
{
    struct worker *w = argument;
    for (size_t i = w->from; i < w->to; i++) {
        if (w->number >= 0 && w->run->plan->items[i].thread != w->number)
            continue;
        if (w->side->is_mount && w->run->killed)
            break;
        run_one(w, i);
    }
    return NULL;
}

static void
run_batch(struct run *run, struct side *side, size_t from, size_t to)
{
    struct worker workers[THREADS_MAX];
    struct result *results = side->is_mount ? run->on_mount : run->on_reference;
    int threads = run->plan->serial ? 1 : run->plan->threads;
    run->begun = 0;
    for (int t = 0; t < threads; t++) {
        workers[t] = (struct worker){.run = run,
            .side = side,
            .results = results,
            .from = from,
            .to = to,
            .number = run->plan->serial ? -1 : t};
        if (pthread_create(&workers[t].thread, NULL, work, &workers[t]) != 0)
            abort();
    }
    for (int t = 0; t < threads; t++)
        pthread_join(workers[t].thread, NULL);
}

static bool
same_result(struct run *run, size_t i)
{
    const struct result *m = &run->on_mount[i], *r = &run->on_reference[i];
    if (m->value == r->value && (m->hash == r->hash || m->value < 0))
        return true;
    char text[200] = "";
    FILE *out = fmemopen(text, sizeof(text), "w");
    if (out) {
        item_print(&run->plan->items[i], out);
        fclose(out);
    }
    snprintf(run->why, TEXT_BYTES_MAX,
        "item %zu: %.*s: the mount gave %lld%s%s%s, right is %lld%s%s%s%s", i,
        (int)strcspn(text, "\n"), text, (long long)m->value, m->value < 0 ? " (" : "",
        m->value < 0 ? strerror((int)-m->value) : "", m->value < 0 ? ")" : "", (long long)r->value,
        r->value < 0 ? " (" : "", r->value < 0 ? strerror((int)-r->value) : "",
        r->value < 0 ? ")" : "", m->value == r->value ? "; what was read differs" : "");
    return false;
}

static bool
run_both(struct run *run, size_t from, size_t to)
{
    run_batch(run, &run->mount, from, to);
    if (!daemon_is_alive(&run->daemon)) {
        snprintf(run->why, TEXT_BYTES_MAX, "the daemon died");
        return false;
    }
    run_batch(run, &run->reference, from, to);
    for (size_t i = from; i < to; i++)
        if (!same_result(run, i))
            return false;
    return true;
}

// ---- comparing ----------------------------------------------------------------------------------

static bool
compare(struct run *run, const char *below, enum tree_times times)
{
    char a[700], b[700];
    snprintf(a, sizeof(a), "%s%s", run->daemon.mount, below);
    snprintf(b, sizeof(b), "%s%s", run->reference_directory, below);
    struct tree *mount = tree_read(a, run->why), *reference = NULL;
    if (mount)
        reference = tree_read(b, run->why);
    bool same = mount && reference && tree_same(mount, reference, times, run->why);
    tree_free(mount);
    tree_free(reference);
    return same;
}

static bool
is_unchanged(struct run *run, const struct tree *before)
{
    struct tree *now = tree_read(run->daemon.mount, run->why);
    bool same = now && tree_unchanged(before, now, run->why);
    tree_free(now);
    return same;
}

// ---- events -------------------------------------------------------------------------------------

static void
close_handles(struct run *run)
{
    side_close_handles(&run->mount);
    side_close_handles(&run->reference);
}

static bool
kill_and_bury(struct run *run)
{
    daemon_kill(&run->daemon);
    bool good = daemon_bury(&run->daemon, run->why);
    close_handles(run);
    return good;
}

static bool
remount(struct run *run)
{
    close_handles(run);
    return daemon_unmount(&run->daemon, run->why) && daemon_mount(&run->daemon, "", NULL, run->why);
}

// After a kill. With `commit` above 0 the recovery is killed, too: before that commit, or, when it
// has fewer, at its end.
static bool
recover(struct run *run, int64_t commit)
{
    char point[100], ignored[TEXT_BYTES_MAX];
    snprintf(point, sizeof(point), "manifest.before_commit:%d", (int)commit);
    if (commit > 0) {
        (void)daemon_mount(&run->daemon, "", point, ignored);
        daemon_kill(&run->daemon);
        if (!daemon_bury(&run->daemon, run->why))
            return false;
    }
    return daemon_mount(&run->daemon, "", NULL, run->why);
}

static bool
kill_synced(struct run *run, const struct item *event)
{
    return daemon_sync(&run->daemon, run->why) && kill_and_bury(run) && recover(run, event->a[0]);
}

static bool
lose_root(struct run *run)
{
    return kill_and_bury(run) && daemon_lose_root(&run->daemon, run->why) &&
           daemon_mount(&run->daemon, "takeover", NULL, run->why);
}

static bool
restore(struct run *run)
{
    return daemon_checkpoint(&run->daemon, run->why) && lose_root(run);
}

static bool
die_in_checkpoint(struct run *run, const struct item *event)
{
    char point[100], ignored[TEXT_BYTES_MAX];
    snprintf(point, sizeof(point), "%s:%d", crash_point_name(event->a[0]), (int)event->a[1]);
    if (!daemon_sync(&run->daemon, run->why) || !kill_and_bury(run))
        return false;
    // It may come to the point while it mounts already, or not at all.
    if (daemon_mount(&run->daemon, "", point, run->why))
        (void)daemon_checkpoint(&run->daemon, ignored);
    return kill_and_bury(run) && daemon_mount(&run->daemon, "", NULL, run->why);
}

// Events after which everything is as it was, to the last time stamp.
static bool
keep_all(struct run *run, const struct item *event)
{
    if (!daemon_sync(&run->daemon, run->why))
        return false;
    struct tree *before = tree_read(run->daemon.mount, run->why);
    if (!before)
        return false;
    bool good;
    switch (event->kind) {
    case EVENT_CHECKPOINT:
        good = daemon_checkpoint(&run->daemon, run->why);
        break;
    case EVENT_REMOUNT:
        good = remount(run);
        break;
    case EVENT_KILL:
        good = kill_synced(run, event);
        break;
    case EVENT_CRASHPOINT:
        good = die_in_checkpoint(run, event);
        break;
    default:
        good = restore(run);
        break;
    }
    good = good && is_unchanged(run, before);
    tree_free(before);
    return good;
}

static bool
is_only_on_demand(const struct plan *plan)
{
    return strstr(plan->options, "checkpoint_interval=0,") != NULL;
}

// What came after the checkpoint is lost with the root, and nothing else.
static bool
lose(struct run *run, size_t from, size_t to)
{
    if (!daemon_checkpoint(&run->daemon, run->why))
        return false;
    run->no_checkpoints = true;
    run_batch(run, &run->mount, from, to);
    run->no_checkpoints = false;
    memcpy(run->mount.appended, run->reference.appended, sizeof(run->mount.appended));
    return lose_root(run);
}

// ---- crashes ------------------------------------------------------------------------------------

struct prefix {
    size_t least; // so many operations must be there
    size_t most;  // and so many may be
};

static bool
was_begun(const struct result *r)
{
    return r->began_ns != 0;
}

// What must be there: everything up to the thread's own last durable operation, and everything that
// had ended before any thread's durable one began.
static struct prefix
find_prefix(struct run *run, int thread, size_t from, size_t to)
{
    struct prefix p = {0};
    uint64_t last_durable = 0;
    for (size_t i = from; i < to; i++) {
        const struct result *r = &run->on_mount[i];
        if (was_begun(r) && r->done && r->durable && r->began_ns > last_durable)
            last_durable = r->began_ns;
    }
    for (size_t i = from; i < to; i++) {
        const struct result *r = &run->on_mount[i];
        if (run->plan->items[i].thread != thread || !was_begun(r))
            continue;
        p.most++;
        if (r->done && (r->durable || r->ended_ns < last_durable))
            p.least = p.most;
    }
    return p;
}

// Does an operation on the reference. The kernel may hand a write over in several requests, which
// end where pages end; true when the state after some of them is the one that the crash left.
static bool
do_in_pieces(struct run *run, size_t i, bool may_end_in, const char *below, enum tree_times times)
{
    const struct item *item = &run->plan->items[i];
    struct result *r = &run->on_reference[i];
    if (is_left_out(run, item))
        return false;
    if (!is_write(item) || !may_end_in) {
        execute(&run->reference, item, r);
        return false;
    }
    struct item piece = *item;
    while (execute_piece(&run->reference, item, &piece, r))
        if (compare(run, below, times))
            return true;
    return false;
}

// Does the thread's operations on the reference until its tree is the one that the crash left.
static bool
find_state(struct run *run, int thread, size_t from, size_t to, enum tree_times times)
{
    struct prefix p = find_prefix(run, thread, from, to);
    char below[16], first[TEXT_BYTES_MAX] = "";
    size_t n = 0;
    snprintf(below, sizeof(below), "/t%d", thread);
    for (size_t i = from;; i++) {
        while (i < to && run->plan->items[i].thread != thread)
            i++;
        if (n >= p.least && compare(run, below, times))
            break;
        if (n == p.least)
            snprintf(first, sizeof(first), "%s", run->why);
        if (n == p.most || i >= to) {
            char last[TEXT_BYTES_MAX / 3];
            snprintf(last, sizeof(last), "%s", run->why);
            snprintf(run->why, TEXT_BYTES_MAX,
                "thread %d: nothing from %zu to %zu operations is the state after the crash: "
                "%.300s; "
                "at the end: %.300s",
                thread, p.least, p.most, first, last);
            return false;
        }
        if (do_in_pieces(run, i, n >= p.least, below, times))
            break;
        if (run->on_mount[i].done && !same_result(run, i))
            return false;
        n++;
    }
    if (run->verbose)
        printf("# crash: thread %d: %zu operations, from %zu to %zu allowed\n", thread, n, p.least,
            p.most);
    return true;
}

static bool
crash(struct run *run, size_t from, size_t to, const struct item *event)
{
    bool writeback = run->plan->writeback;
    enum tree_times times = writeback ? TREE_TIMES_NONE : TREE_TIMES_EXPLICIT;
    if (!daemon_sync(&run->daemon, run->why))
        return false;
    memset(run->on_mount + from, 0, (to - from) * sizeof(*run->on_mount));
    run->crashes = true;
    run->mount.sync_after_data = writeback;
    run->kill_at = writeback ? 0 : (uint64_t)event->a[0];
    run_batch(run, &run->mount, from, to);
    run->mount.sync_after_data = false;
    run->kill_at = 0;
    daemon_kill(&run->daemon);
    bool good = daemon_bury(&run->daemon, run->why);
    run->killed = false;
    side_close_handles(&run->mount);
    good = good && recover(run, event->a[1]);
    for (int t = 0; good && t < run->plan->threads; t++)
        good = find_state(run, t, from, to, times);
    run->crashes = false;
    side_close_handles(&run->reference);
    if (good && writeback) { // the kernel had not handed over all times
        tree_set_times(run->daemon.mount);
        tree_set_times(run->reference_directory);
    }
    return good;
}

// ---- the whole ----------------------------------------------------------------------------------

static bool
run_event(struct run *run, size_t from, size_t to, const struct item *event)
{
    bool good;
    if (event->kind == EVENT_CRASH)
        good = crash(run, from, to, event);
    else if (event->kind == EVENT_LOSE && is_only_on_demand(run->plan))
        good = lose(run, from, to);
    else if (event->kind == EVENT_COMPARE)
        good = run_both(run, from, to);
    else
        good = run_both(run, from, to) && compare(run, "", TREE_TIMES_EXPLICIT) &&
               keep_all(run, event);
    return good && compare(run, "", TREE_TIMES_EXPLICIT);
}

static bool
prepare(struct run *run, const char *work)
{
    daemon_init(&run->daemon, work, run->plan->options);
    snprintf(run->reference_directory, sizeof(run->reference_directory), "%s/reference", work);
    side_init(&run->mount, run->daemon.mount, true);
    side_init(&run->reference, run->reference_directory, false);
    run->mount.writeback = run->reference.writeback = run->plan->writeback;
    run->mount.ckptctl = run->daemon.ckptctl;
    if (!daemon_mount(&run->daemon, "create", NULL, run->why))
        return false;
    int rc = mkdir(run->reference_directory, 0755) == 0 ? 0 : -errno;
    if (rc == 0)
        rc = side_prepare(&run->mount, run->plan->threads);
    if (rc == 0)
        rc = side_prepare(&run->reference, run->plan->threads);
    if (rc < 0)
        snprintf(run->why, TEXT_BYTES_MAX, "the first directories: %s", strerror(-rc));
    return rc == 0;
}

static size_t
next_event(const struct plan *plan, size_t from)
{
    size_t i = from;
    while (i < plan->count && !item_is_event(&plan->items[i]))
        i++;
    return i;
}

void
plan_run(const struct plan *plan, const char *work, bool verbose, struct outcome *o)
{
    static const struct item last = {.kind = EVENT_COMPARE};
    char ignored[TEXT_BYTES_MAX];
    *o = (struct outcome){0};
    struct run *run = calloc(1, sizeof(*run));
    if (!run)
        abort();
    run->plan = plan;
    run->verbose = verbose;
    run->why = o->why;
    run->on_mount = calloc(plan->count + 1, sizeof(*run->on_mount));
    run->on_reference = calloc(plan->count + 1, sizeof(*run->on_reference));
    bool good = prepare(run, work);
    for (size_t from = 0; good && from < plan->count;) {
        size_t to = next_event(plan, from);
        const struct item *event = to < plan->count ? &plan->items[to] : &last;
        o->failed_at = to;
        if (verbose)
            item_print(event, stdout);
        good = run_event(run, from, to, event);
        o->operations += to - from;
        o->events++;
        from = to + 1;
    }
    o->failed = !good;
    // Names may hold any byte.
    for (char *c = o->why; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    daemon_kill(&run->daemon);
    close_handles(run);
    (void)daemon_bury(&run->daemon, ignored);
    side_free(&run->mount);
    side_free(&run->reference);
    free(run->on_mount);
    free(run->on_reference);
    free(run);
}
