// SPDX-License-Identifier: Apache-2.0
// Reading ahead: threads of the chunk reader fetch pages that a sequential reader is about to want
// from the store, several at once. They put the bytes into LocalStore; a reader that comes earlier
// waits for the flight. For chunks on this host they do nothing.
#include <assert.h>
#include <stdlib.h>

#include "chunk/chunk_internal.h"
#include "platform/log.h"
#include "platform/memory.h"

// The frames of one image that hold some of the pages wanted.
struct span {
    uint64_t from;
    uint64_t to; // 0: none
};

static bool
is_stopping(void *argument)
{
    struct chunk_reader *r = argument;
    return __atomic_load_n(&r->ahead.stopping, __ATOMIC_RELAXED);
}

static void
widen(struct span *s, const struct blob_index *index, uint32_t slot)
{
    uint64_t from;
    uint32_t stored;
    blob_index_frame(index, slot / BLOB_FRAME_PAGES, &from, &stored);
    if (s->to == 0 || from < s->from)
        s->from = from;
    if (from + stored > s->to)
        s->to = from + stored;
}

// From the newest image to the oldest, as reading does.
static int
add_page(struct chunk_reader *r, struct chunk_layout *layout, uint32_t page,
    const struct remote_call *call, struct span *spans)
{
    for (size_t i = 0; i < layout->image_count; i++) {
        const struct blob_index *index;
        int rc = chunk_reader_index(r, layout, i, call, &index);
        if (rc < 0)
            return rc;
        struct blob_page p;
        blob_index_find(index, page, &p);
        if (p.state == BLOB_PAGE_DATA || p.state == BLOB_PAGE_PATCH)
            widen(&spans[i], index, p.slot);
        if (p.state == BLOB_PAGE_DATA || p.state == BLOB_PAGE_ZERO)
            break;
    }
    return 0;
}

static bool
is_here(struct chunk_reader *r, const struct chunk_layout *layout)
{
    for (size_t i = 0; i < layout->image_count; i++)
        if (!local_store_has(r->local, &layout->images[i].where.blob))
            return false;
    return true;
}

static int
fetch_from_layout(struct chunk_reader *r, struct chunk_layout *layout, uint32_t first,
    uint32_t count, const struct remote_call *call, uint64_t *bytes)
{
    CLEANUP(memory_free_auto)
    struct span *spans = memory_alloc_zero(layout->image_count * sizeof(*spans));
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = add_page(r, layout, first + i, call, spans);
    for (size_t i = 0; rc == 0 && i < layout->image_count; i++) {
        const struct chunk_image *image = &layout->images[i];
        uint64_t n = spans[i].to - spans[i].from;
        if (spans[i].to == 0)
            continue;
        *bytes += n;
        rc = chunk_reader_fetch(r, &image->blob, image->where.offset + spans[i].from, n, call);
    }
    return rc;
}

int
chunk_reader_fetch_pages(struct chunk_reader *r, struct object_id object, struct page_no first,
    uint64_t count, const struct remote_call *call, uint64_t *bytes_out)
{
    struct chunk_layout *layout;
    assert(count <= CHUNK_PAGES - page_in_chunk(first));
    int rc = chunk_map_get(r->map, object, chunk_of_page(first), &layout);
    if (rc < 0 || !layout)
        return rc;
    rc = fetch_from_layout(r, layout, page_in_chunk(first), (uint32_t)count, call, bytes_out);
    chunk_layout_put(r->map, layout);
    return rc;
}

// Ignores failures: the readers of the pages will see them, too.
static void
do_job(struct chunk_reader *r, const struct chunk_ahead_job *job)
{
    const struct remote_call call = {
        .is_canceled = is_stopping, .argument = r, .class = REMOTE_READ_AHEAD};
    uint64_t bytes = 0;
    struct chunk_layout *layout;
    if (chunk_map_get(r->map, job->object, chunk_of_page(job->first), &layout) < 0 || !layout)
        return;
    // Without a look at the indexes.
    if (!is_here(r, layout))
        (void)!fetch_from_layout(r, layout, page_in_chunk(job->first), job->count, &call, &bytes);
    chunk_layout_put(r->map, layout);
}

static void
run(void *argument)
{
    struct chunk_reader *r = argument;
    struct chunk_ahead *a = &r->ahead;
    lock_take(&r->lock);
    while (!a->stopping) {
        if (a->job_count == 0) {
            a->idle++;
            condition_wait(&a->work, &r->lock);
            a->idle--;
            continue;
        }
        struct chunk_ahead_job job = a->jobs[a->job_first];
        a->job_first = (a->job_first + 1) % AHEAD_JOBS;
        a->job_count--;
        lock_release(&r->lock);
        do_job(r, &job);
        lock_take(&r->lock);
    }
    lock_release(&r->lock);
}

// One thread more for one job more, if none waits for it.
static void
find_thread_locked(struct chunk_reader *r)
{
    struct chunk_ahead *a = &r->ahead;
    if (a->idle >= a->job_count || a->thread_count == AHEAD_THREADS) {
        condition_signal(&a->work);
        return;
    }
    int rc = thread_start(&a->threads[a->thread_count], "read-ahead", run, r);
    if (rc == 0)
        a->thread_count++;
    else if (a->thread_count == 0)
        a->job_count = 0;
    if (rc < 0)
        log_warning("chunk.no_thread", "cannot start a thread to read ahead: %s", strerror(-rc));
}

void
chunk_reader_ahead(
    struct chunk_reader *r, struct object_id object, struct page_no first, uint64_t count)
{
    struct chunk_ahead *a = &r->ahead;
    if (!r->remote)
        return;
    lock_take(&r->lock);
    while (count > 0 && !a->stopping && a->job_count < AHEAD_JOBS) {
        uint64_t n = AHEAD_PAGES - first.v % AHEAD_PAGES;
        if (n > count)
            n = count;
        a->jobs[(a->job_first + a->job_count++) % AHEAD_JOBS] =
            (struct chunk_ahead_job){object, first, (uint32_t)n};
        find_thread_locked(r);
        first.v += n;
        count -= n;
    }
    lock_release(&r->lock);
}

void
chunk_ahead_stop(struct chunk_reader *r)
{
    struct chunk_ahead *a = &r->ahead;
    lock_take(&r->lock);
    __atomic_store_n(&a->stopping, true, __ATOMIC_RELAXED);
    condition_broadcast(&a->work);
    lock_release(&r->lock);
    // No thread is started any more.
    for (unsigned i = 0; i < a->thread_count; i++)
        thread_join(&a->threads[i]);
}
