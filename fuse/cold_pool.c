// SPDX-License-Identifier: Apache-2.0
#include "fuse/cold_pool.h"

#include <errno.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/log.h"

void
cold_pool_init(struct cold_pool *p, const struct cold_pool_ops *ops, unsigned threads_max,
    uint64_t patience_ms)
{
    memset(p, 0, sizeof(*p));
    p->ops = ops;
    p->patience_ms = patience_ms;
    p->threads_max = threads_max < COLD_THREADS_MAX ? threads_max : COLD_THREADS_MAX;
    lock_init(&p->lock, "cold_pool", LOCK_RANK_FUSE);
    condition_init(&p->work);
    condition_init(&p->changed);
    list_init(&p->queue);
}

void
cold_pool_destroy(struct cold_pool *p)
{
    condition_destroy(&p->work);
    condition_destroy(&p->changed);
    lock_destroy(&p->lock);
}

bool
cold_job_is_canceled(void *job)
{
    struct cold_job *j = job;
    return atomic_load(&j->interrupted) || atomic_load(&j->pool->stopping);
}

// ---- the queue ----------------------------------------------------------------------------------

static struct cold_job *
first_locked(struct cold_pool *p)
{
    return list_is_empty(&p->queue) ? NULL : CONTAINER_OF(p->queue.next, struct cold_job, node);
}

static void
take_locked(struct cold_pool *p, struct cold_job *job, enum cold_state state)
{
    list_remove(&job->node);
    p->queued--;
    job->state = state;
}

// Later for jobs that were put later, so the first one in the queue is always the next one due.
static uint64_t
deadline_locked(const struct cold_pool *p, const struct cold_job *job)
{
    uint64_t after_success = p->success_ms ? p->success_ms + p->patience_ms : 0;
    return job->deadline_ms > after_success ? job->deadline_ms : after_success;
}

// ---- threads ------------------------------------------------------------------------------------

static void
run_thread(void *argument)
{
    struct cold_pool *p = argument;
    lock_take(&p->lock);
    while (!atomic_load(&p->stopping)) {
        struct cold_job *job = first_locked(p);
        if (!job) {
            p->idle++;
            condition_wait(&p->work, &p->lock);
            p->idle--;
            continue;
        }
        job->deadline_ms = deadline_locked(p, job);
        take_locked(p, job, COLD_RUNNING);
        lock_release(&p->lock);
        bool success = p->ops->run(job);
        lock_take(&p->lock);
        if (success)
            p->success_ms = clock_monotonic_ms();
    }
    lock_release(&p->lock);
}

static void
run_reaper(void *argument)
{
    struct cold_pool *p = argument;
    lock_take(&p->lock);
    while (!atomic_load(&p->stopping)) {
        struct cold_job *job = first_locked(p);
        uint64_t due = job ? deadline_locked(p, job) : 0;
        if (!job) {
            condition_wait(&p->changed, &p->lock);
        } else if (clock_monotonic_ms() < due) {
            condition_wait_until(&p->changed, &p->lock, due);
        } else {
            take_locked(p, job, COLD_ENDED);
            lock_release(&p->lock);
            p->ops->give_up(job, -ETIMEDOUT);
            lock_take(&p->lock);
        }
    }
    lock_release(&p->lock);
}

static int
start_locked(struct cold_pool *p, struct thread *thread, const char *name, void (*run)(void *))
{
    int rc = thread_start(thread, name, run, p);
    if (rc < 0)
        log_warning(
            "fuse.no_thread", "cannot start a thread to wait for the store: %s", strerror(-rc));
    return rc;
}

// One thread more for one job more, if none is free for it. Fails only if there is none at all.
static int
find_thread_locked(struct cold_pool *p)
{
    if (p->thread_count == 0) {
        int rc = start_locked(p, &p->threads[0], "cold", run_thread);
        if (rc < 0)
            return rc;
        p->thread_count = 1;
    } else if (p->idle <= p->queued && p->thread_count < p->threads_max) {
        if (start_locked(p, &p->threads[p->thread_count], "cold", run_thread) == 0)
            p->thread_count++;
    }
    if (!p->reaping)
        p->reaping = start_locked(p, &p->reaper, "cold-deadlines", run_reaper) == 0;
    return p->reaping ? 0 : -EAGAIN;
}

void
cold_pool_stop(struct cold_pool *p)
{
    lock_take(&p->lock);
    atomic_store(&p->stopping, true);
    condition_broadcast(&p->work);
    condition_broadcast(&p->changed);
    for (struct cold_job *job; (job = first_locked(p));) {
        take_locked(p, job, COLD_ENDED);
        lock_release(&p->lock);
        p->ops->give_up(job, -ENOTCONN);
        lock_take(&p->lock);
    }
    unsigned threads = p->thread_count;
    bool reaping = p->reaping;
    p->thread_count = 0;
    p->reaping = false;
    lock_release(&p->lock);
    for (unsigned i = 0; i < threads; i++)
        thread_join(&p->threads[i]);
    if (reaping)
        thread_join(&p->reaper);
}

// ---- jobs ---------------------------------------------------------------------------------------

static int
put_locked(struct cold_pool *p, struct cold_job *job)
{
    if (atomic_load(&p->stopping))
        return -ENOTCONN;
    if (atomic_load(&job->interrupted))
        return -EINTR;
    if (p->queued >= COLD_JOBS_MAX || find_thread_locked(p) < 0)
        return -EAGAIN;
    job->deadline_ms = clock_monotonic_ms() + p->patience_ms;
    job->state = COLD_QUEUED;
    list_append(&p->queue, &job->node);
    // The reaper need not know of it while another one is due earlier.
    if (p->queued++ == 0)
        condition_signal(&p->changed);
    condition_signal(&p->work);
    return 0;
}

void
cold_pool_put(struct cold_pool *p, struct cold_job *job)
{
    lock_take(&p->lock);
    job->pool = p;
    int rc = put_locked(p, job);
    if (rc < 0)
        job->state = COLD_ENDED;
    lock_release(&p->lock);
    if (rc < 0)
        p->ops->give_up(job, rc);
}

void
cold_pool_interrupt(struct cold_pool *p, struct cold_job *job)
{
    lock_take(&p->lock);
    bool queued = job->state == COLD_QUEUED;
    if (queued)
        take_locked(p, job, COLD_ENDED);
    else
        atomic_store(&job->interrupted, true);
    lock_release(&p->lock);
    if (queued)
        p->ops->give_up(job, -EINTR);
}
