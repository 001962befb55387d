// SPDX-License-Identifier: Apache-2.0
// The chunk reader's own threads, in two pools: one reads pages ahead of the readers, several
// requests at once; the other one gets the indexes of older images while a reader waits for that
// of a newer one. What they get goes to LocalStore, and indexes to the layout. Failures are
// ignored: the readers of the same bytes will see them, too.
#include <assert.h>

#include "chunk/chunk_internal.h"
#include "platform/log.h"

static bool
is_stopping(void *argument)
{
    struct chunk_reader *r = argument;
    return __atomic_load_n(&r->stopping, __ATOMIC_RELAXED);
}

static bool
is_here(struct chunk_reader *r, const struct chunk_layout *layout)
{
    for (size_t i = 0; i < layout->image_count; i++)
        if (!local_store_has(r->local, &layout->images[i].where.blob))
            return false;
    return true;
}

static void
get_pages(struct chunk_reader *r, const struct chunk_job *job, const struct remote_call *call)
{
    uint64_t bytes = 0;
    struct chunk_layout *layout;
    if (chunk_map_get(r->map, job->object, chunk_of_page(job->first), &layout) < 0 || !layout)
        return;
    // Without a look at the indexes.
    if (!is_here(r, layout))
        (void)!chunk_fetch_pages(r, layout, page_in_chunk(job->first), job->count, call, &bytes);
    chunk_layout_put(r->map, layout);
}

static void
do_job(struct chunk_reader *r, const struct chunk_job *job)
{
    const struct remote_call call = {
        .is_canceled = is_stopping, .argument = r, .class = job->class};
    if (!job->layout) {
        get_pages(r, job, &call);
        return;
    }
    chunk_index_load(r, job->layout, job->image, &call);
    atomic_store(&job->layout->images[job->image].asked, false);
    chunk_layout_put(r->map, job->layout);
}

static struct chunk_job
take_job_locked(struct chunk_pool *p)
{
    struct chunk_job job = p->jobs[p->job_first];
    p->job_first = (p->job_first + 1) % POOL_JOBS;
    p->job_count--;
    return job;
}

static void
run(void *argument)
{
    struct chunk_pool *p = argument;
    struct chunk_reader *r = p->reader;
    lock_take(&r->lock);
    while (!r->stopping) {
        if (p->job_count == 0) {
            p->idle++;
            condition_wait(&p->work, &r->lock);
            p->idle--;
            continue;
        }
        struct chunk_job job = take_job_locked(p);
        lock_release(&r->lock);
        do_job(r, &job);
        lock_take(&r->lock);
    }
    lock_release(&r->lock);
}

// ---- giving them work ---------------------------------------------------------------------------

// One thread more for one job more, if none waits for it. Without any thread the jobs would stay
// there for ever: false.
static bool
find_thread_locked(struct chunk_pool *p)
{
    if (p->idle > p->job_count || p->thread_count == p->threads_max) {
        condition_signal(&p->work);
        return true;
    }
    int rc = thread_start(&p->threads[p->thread_count], p->thread_name, run, p);
    if (rc == 0)
        p->thread_count++;
    else
        log_warning(
            "chunk.no_thread", "cannot start a thread (%s): %s", p->thread_name, strerror(-rc));
    return p->thread_count > 0;
}

// False: there is no room.
static bool
add_job_locked(struct chunk_pool *p, const struct chunk_job *job)
{
    if (p->reader->stopping || p->job_count == POOL_JOBS || !find_thread_locked(p))
        return false;
    p->jobs[(p->job_first + p->job_count++) % POOL_JOBS] = *job;
    return true;
}

void
chunk_reader_ahead(
    struct chunk_reader *r, struct object_id object, struct page_no first, uint64_t count)
{
    if (!r->remote)
        return;
    bool room = true;
    lock_take(&r->lock);
    while (count > 0 && room) {
        uint64_t n = AHEAD_PAGES - first.v % AHEAD_PAGES;
        if (n > count)
            n = count;
        const struct chunk_job job = {
            .object = object, .first = first, .count = (uint32_t)n, .class = REMOTE_READ_AHEAD};
        room = add_job_locked(&r->ahead, &job);
        first.v += n;
        count -= n;
    }
    lock_release(&r->lock);
}

void
chunk_pool_get_index(
    struct chunk_reader *r, struct chunk_layout *layout, size_t image, enum remote_class class)
{
    const struct chunk_job job = {.layout = layout, .image = image, .class = class};
    struct chunk_image *im = &layout->images[image];
    if (atomic_load(&im->index) || atomic_exchange(&im->asked, true))
        return;
    lock_take(&r->lock);
    bool room = add_job_locked(&r->indexes, &job);
    if (room)
        chunk_layout_get(layout);
    lock_release(&r->lock);
    if (!room)
        atomic_store(&im->asked, false);
}

// ---- life ---------------------------------------------------------------------------------------

static void
init(struct chunk_pool *p, struct chunk_reader *r, const char *name, unsigned threads_max)
{
    assert(threads_max <= POOL_THREADS_MAX);
    p->reader = r;
    p->thread_name = name;
    p->threads_max = threads_max;
    condition_init(&p->work);
}

void
chunk_pools_init(struct chunk_reader *r)
{
    init(&r->ahead, r, "read-ahead", AHEAD_THREADS);
    init(&r->indexes, r, "read-index", INDEX_THREADS);
}

static void
drain(struct chunk_pool *p)
{
    // No thread is started any more.
    for (unsigned i = 0; i < p->thread_count; i++)
        thread_join(&p->threads[i]);
    while (p->job_count > 0) {
        struct chunk_job job = take_job_locked(p);
        chunk_layout_put(p->reader->map, job.layout);
    }
    condition_destroy(&p->work);
}

void
chunk_pools_stop(struct chunk_reader *r)
{
    lock_take(&r->lock);
    __atomic_store_n(&r->stopping, true, __ATOMIC_RELAXED);
    condition_broadcast(&r->ahead.work);
    condition_broadcast(&r->indexes.work);
    lock_release(&r->lock);
    drain(&r->ahead);
    drain(&r->indexes);
}
