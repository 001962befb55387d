// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "fuse/workers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/list.h"
#include "fuse/caller.h"
#include "fuse/device.h"
#include "fuse/fs.h"
#include "fuse/kernel_cache.h"
#include "platform/clock.h"
#include "platform/cpu_latency.h"
#include "platform/lock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/thread.h"

// How long a request may keep a role, and how long the watchdog goes on looking when nothing
// happens.
#define WATCH_MS     10u
#define WATCH_ROUNDS 100u
// Requests since the last look from which on they come fast: 1,000 in a second.
#define FAST_REQUESTS 10u
// How often the daemon tells threads again to end: one that is about to enter read(2) can miss a
// signal.
#define STOP_RETRY_MS 100u

struct worker {
    struct list_node node;
    struct workers *pool;
    struct thread thread;
    atomic_bool serving;    // has the role; its thread, or the watchdog, takes it away
    atomic_uint requests;   // odd while one is handled
    unsigned requests_seen; // by the watchdog
};

struct workers {
    struct fuse_session *session;
    struct fs *fs;
    unsigned threads_max;
    unsigned serving_max;
    atomic_bool watching; // the watchdog looks every WATCH_MS
    struct thread watchdog;
    struct cpu_latency latency; // the watchdog's own

    struct lock lock; // "workers": protects all below
    struct condition role_free;
    struct condition watch;
    struct condition ended;
    struct list_node all;
    unsigned serving;
    unsigned idle;
    unsigned threads; // that have not ended
    bool stopping;
    int error;
};

struct workers *
workers_new(struct fuse_session *session, struct fs *fs, unsigned threads_max, bool lower_latency)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    struct workers *w = memory_alloc_zero(sizeof(*w));
    w->session = session;
    w->fs = fs;
    w->threads_max = threads_max;
    w->serving_max = processors > 2 ? (unsigned)processors : 2;
    if (w->serving_max > threads_max)
        w->serving_max = threads_max;
    w->latency = CPU_LATENCY_NONE;
    int rc = lower_latency ? cpu_latency_open(&w->latency) : 0;
    if (rc != 0)
        log_info(
            "fuse.no_cpu_latency", "idle processors may sleep between requests: %s", strerror(-rc));
    lock_init(&w->lock, "workers", LOCK_RANK_WORKERS);
    condition_init(&w->role_free);
    condition_init(&w->watch);
    condition_init(&w->ended);
    list_init(&w->all);
    return w;
}

void
workers_free(struct workers *w)
{
    cpu_latency_close(&w->latency);
    condition_destroy(&w->role_free);
    condition_destroy(&w->watch);
    condition_destroy(&w->ended);
    lock_destroy(&w->lock);
    free(w);
}

// ---- roles --------------------------------------------------------------------------------------

static int start_worker_locked(struct workers *w);

// The role that its last thread has given up goes to a thread that waits for one, or a new one.
static void
pass_role(struct workers *w)
{
    lock_take(&w->lock);
    w->serving--;
    if (w->idle > 0)
        condition_signal(&w->role_free);
    else if (!w->stopping && w->threads < w->threads_max)
        (void)start_worker_locked(w); // else the next thread that comes back takes the role
    lock_release(&w->lock);
}

static void
give_up_role(void *argument)
{
    struct worker *x = argument;
    bool serving = true;
    if (atomic_compare_exchange_strong(&x->serving, &serving, false))
        pass_role(x->pool);
}

// False when it is time to end.
static bool
take_role(struct worker *x)
{
    struct workers *w = x->pool;
    lock_take(&w->lock);
    w->idle++;
    while (!w->stopping && w->serving >= w->serving_max)
        condition_wait(&w->role_free, &w->lock);
    w->idle--;
    bool go_on = !w->stopping;
    if (go_on) {
        w->serving++;
        atomic_store(&x->serving, true);
    }
    lock_release(&w->lock);
    return go_on;
}

// ---- serving ------------------------------------------------------------------------------------

static void
wake_watchdog(struct workers *w)
{
    lock_take(&w->lock);
    atomic_store(&w->watching, true);
    condition_signal(&w->watch);
    lock_release(&w->lock);
}

static void
end_all(struct workers *w, int error)
{
    lock_take(&w->lock);
    w->stopping = true;
    if (w->error == 0)
        w->error = error;
    condition_broadcast(&w->role_free);
    condition_signal(&w->watch);
    condition_signal(&w->ended);
    lock_release(&w->lock);
}

static void
handle(struct worker *x, const struct fuse_buf *request)
{
    struct workers *w = x->pool;
    atomic_fetch_add_explicit(&x->requests, 1, memory_order_relaxed);
    if (UNLIKELY(!atomic_load_explicit(&w->watching, memory_order_relaxed)))
        wake_watchdog(w);
    fuse_session_process_buf(w->session, request);
    atomic_fetch_add_explicit(&x->requests, 1, memory_order_relaxed);
}

static void
serve(struct worker *x, struct fuse_buf *request)
{
    struct workers *w = x->pool;
    while (atomic_load_explicit(&x->serving, memory_order_relaxed)) {
        int n = fuse_session_exited(w->session) ? 0 : device_receive(w->session, w->fs, request);
        if (n == -EINTR || n == -EAGAIN)
            continue;
        if (n <= 0) {
            end_all(w, n);
            return;
        }
        handle(x, request);
    }
}

static bool
caller_is_to_end(void)
{
    return caller_wants_to_end(device_request_pid());
}

static void
run_worker(void *argument)
{
    struct worker *x = argument;
    struct workers *w = x->pool;
    struct fuse_buf request = {.mem = NULL};
    sigset_t interrupt;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &interrupt, NULL);
    thread_set_wait_hook(give_up_role, x);
    thread_set_interrupt_hook(caller_is_to_end);
    while (take_role(x))
        serve(x, &request);
    thread_set_wait_hook(NULL, NULL);
    free(request.mem);
    lock_take(&w->lock);
    w->threads--;
    condition_signal(&w->ended);
    lock_release(&w->lock);
}

static int
start_worker_locked(struct workers *w)
{
    struct worker *x = memory_alloc_zero(sizeof(*x));
    x->pool = w;
    int rc = thread_start(&x->thread, "fuse", run_worker, x);
    if (rc < 0) {
        log_warning("fuse.no_thread", "cannot start a thread: %s", strerror(-rc));
        free(x);
        return rc;
    }
    list_append(&w->all, &x->node);
    w->threads++;
    return 0;
}

// ---- the watchdog -------------------------------------------------------------------------------

struct sight {
    unsigned stuck;   // lost their roles: busy with the same request since the last look
    unsigned handled; // requests since then
    bool busy;        // requests are being handled
};

static struct sight
look_locked(struct workers *w)
{
    struct sight seen = {0};
    LIST_FOR_EACH(&w->all, n)
    {
        struct worker *x = CONTAINER_OF(n, struct worker, node);
        unsigned requests = atomic_load_explicit(&x->requests, memory_order_relaxed);
        unsigned steps = requests - x->requests_seen;
        bool busy = requests % 2 == 1;
        bool serving = true;
        if (steps == 0 && busy && atomic_compare_exchange_strong(&x->serving, &serving, false))
            seen.stuck++;
        seen.handled += steps / 2;
        seen.busy = seen.busy || busy || steps > 0;
        x->requests_seen = requests;
    }
    return seen;
}

static void
run_watchdog(void *argument)
{
    struct workers *w = argument;
    unsigned quiet = 0;
    lock_take(&w->lock);
    while (!w->stopping) {
        struct sight seen = look_locked(w);
        quiet = seen.busy ? 0 : quiet + 1;
        lock_release(&w->lock);
        while (seen.stuck-- > 0)
            pass_role(w);
        cpu_latency_lower(&w->latency, seen.handled >= FAST_REQUESTS);
        if (kernel_cache_is_behind(w->fs->kernel_cache))
            kernel_cache_catch_up_all(w->fs->kernel_cache, !seen.busy);
        lock_take(&w->lock);
        if (w->stopping)
            break;
        if (quiet < WATCH_ROUNDS) {
            condition_wait_until(&w->watch, &w->lock, clock_monotonic_ms() + WATCH_MS);
            continue;
        }
        atomic_store(&w->watching, false);
        while (!w->stopping && !atomic_load(&w->watching))
            condition_wait(&w->watch, &w->lock);
        quiet = 0;
    }
    lock_release(&w->lock);
}

// ---- beginning and end --------------------------------------------------------------------------

static void
join_all(struct workers *w)
{
    while (!list_is_empty(&w->all)) {
        struct worker *x = CONTAINER_OF(list_take_first(&w->all), struct worker, node);
        thread_join(&x->thread);
        free(x);
    }
}

static void
interrupt_readers_locked(struct workers *w)
{
    LIST_FOR_EACH(&w->all, n)
    {
        struct worker *x = CONTAINER_OF(n, struct worker, node);
        if (atomic_load(&x->serving) && atomic_load(&x->requests) % 2 == 0)
            pthread_kill(x->thread.id, SIGUSR1);
    }
}

int
workers_run(struct workers *w)
{
    int rc = thread_start(&w->watchdog, "fuse-watch", run_watchdog, w);
    if (rc < 0)
        return rc;
    lock_take(&w->lock);
    for (unsigned i = 0; i < w->serving_max && rc == 0; i++)
        rc = start_worker_locked(w);
    if (w->threads == 0)
        w->error = rc;
    while (w->threads > 0) {
        if (!w->stopping) {
            condition_wait(&w->ended, &w->lock);
            continue;
        }
        fuse_session_exit(w->session);
        interrupt_readers_locked(w);
        condition_wait_until(&w->ended, &w->lock, clock_monotonic_ms() + STOP_RETRY_MS);
    }
    w->stopping = true;
    condition_signal(&w->watch);
    lock_release(&w->lock);
    thread_join(&w->watchdog);
    join_all(w);
    return w->error;
}

void
workers_stop(struct workers *w)
{
    end_all(w, 0);
}
