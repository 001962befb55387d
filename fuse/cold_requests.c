// SPDX-License-Identifier: Apache-2.0
#include "fuse/cold_requests.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuse/cold_pool.h"
#include "fuse/fs.h"
#include "platform/log.h"
#include "platform/memory.h"

#define WHENCE_READ (-1)

struct cold_request {
    struct cold_job job;
    struct fuse_req *req;
    struct object_id object;
    uint64_t offset;
    size_t length;
    int whence; // WHENCE_READ: none, it is a read
    struct cold_pool *pool;
    struct fetch_entry *entry; // NULL: it is read in the usual way
};

static struct cold_request *
request_of(struct cold_job *job)
{
    return CONTAINER_OF(job, struct cold_request, job);
}

// ---- answers ------------------------------------------------------------------------------------

// After the reply the request is gone, and so may be the session when nothing is deferred any more.
static void
answered(struct cold_request *x, struct fs *fs)
{
    fetch_table_put(&fs->fetches, x->entry);
    free(x);
    fs_end_deferred(fs);
}

static bool
is_answer(int64_t result)
{
    return result >= 0 || result == -ENXIO;
}

// From here on libfuse does not interrupt the request any more. The result for its process.
static int64_t
end_request(struct cold_request *x, int64_t result)
{
    fuse_req_interrupt_func(x->req, NULL, NULL);
    return result == -EINTR && !atomic_load(&x->job.interrupted) ? -ENOTCONN : result;
}

// A file that is open past the kernel's cache does not get what others have written there.
static int
flush_kernel(const struct cold_request *x)
{
    struct fs *fs = fs_of(x->req);
    bool flush =
        x->entry && x->entry->past_kernel && kernel_cache_has_writer(fs->kernel_cache, x->object);
    return flush ? kernel_cache_flush_object(fs->kernel_cache, x->object) : 0;
}

static int64_t
read_and_reply(struct cold_request *x, const struct remote_call *call)
{
    struct volume_read_context context = {.call = *call};
    uint8_t *data = fs_scratch(x->length);
    if (x->entry) {
        context.call.fetch = x->entry->options;
        context.scan = x->entry->scan;
    }
    int64_t n = flush_kernel(x);
    if (n == 0)
        n = volume_read(fs_of(x->req)->volume, x->object, x->offset, x->length, data, &context);
    n = end_request(x, n);
    if (n < 0)
        fs_reply_result(x->req, (int)n);
    else
        fuse_reply_buf(x->req, (const char *)data, (size_t)n);
    return n;
}

static int64_t
seek_and_reply(struct cold_request *x, const struct remote_call *call)
{
    int64_t found = volume_seek(fs_of(x->req)->volume, x->object, x->offset, x->whence, call);
    found = end_request(x, found);
    fs_reply_seek(x->req, found);
    return found;
}

static bool
run(struct cold_job *job)
{
    struct cold_request *x = request_of(job);
    struct fs *fs = fs_of(x->req);
    struct remote_call call = {.deadline_ms = job->deadline_ms,
        .is_canceled = cold_job_is_canceled,
        .argument = job,
        .again = true};
    int64_t result = x->whence == WHENCE_READ ? read_and_reply(x, &call) : seek_and_reply(x, &call);
    answered(x, fs);
    return is_answer(result);
}

static void
log_given_up(const struct cold_request *x, int result)
{
    char key[32];
    (void)snprintf(key, sizeof(key), "object %llu", (unsigned long long)x->object.v);
    if (result == -ETIMEDOUT)
        log_error_of(
            "fuse.cold_timeout", key, "%s: waited for the store too long, behind others", key);
    else
        log_error_of("fuse.cold_refused", key,
            "%s: too many requests wait for the store, or there is no thread for them", key);
}

static void
give_up(struct cold_job *job, int result)
{
    struct cold_request *x = request_of(job);
    struct fs *fs = fs_of(x->req);
    // An interrupted request may be in the hands of libfuse, which holds the lock that this takes;
    // it does not interrupt it twice.
    if (result != -EINTR)
        fuse_req_interrupt_func(x->req, NULL, NULL);
    if (result == -ETIMEDOUT || result == -EAGAIN)
        log_given_up(x, result);
    fs_reply_result(x->req, result == -ETIMEDOUT || result == -EAGAIN ? -EIO : result);
    answered(x, fs);
}

const struct cold_pool_ops cold_requests_ops = {.run = run, .give_up = give_up};

// ---- parking ------------------------------------------------------------------------------------

// libfuse keeps `req` for this call, and holds a lock of its own.
static void
interrupted(fuse_req_t req UNUSED, void *job)
{
    cold_pool_interrupt(request_of(job)->pool, job);
}

static void
park(struct cold_request *x)
{
    struct fs *fs = fs_of(x->req);
    fs_begin_deferred(fs);
    // Before another thread can answer it; libfuse may call the function at once.
    fuse_req_interrupt_func(x->req, interrupted, &x->job);
    cold_pool_put(x->pool, &x->job);
}

void
cold_requests_read(struct fuse_req *req, struct object_id object, uint64_t offset, size_t length,
    struct fetch_entry *entry)
{
    struct cold_request *x = memory_alloc_zero(sizeof(*x));
    struct fs *fs = fs_of(req);
    x->req = req;
    x->entry = entry;
    x->pool = entry && entry->scan ? &fs->scans : &fs->cold;
    x->object = object;
    x->offset = offset;
    x->length = length;
    x->whence = WHENCE_READ;
    park(x);
}

void
cold_requests_seek(struct fuse_req *req, struct object_id object, uint64_t offset, int whence)
{
    struct cold_request *x = memory_alloc_zero(sizeof(*x));
    x->req = req;
    x->pool = &fs_of(req)->cold;
    x->object = object;
    x->offset = offset;
    x->whence = whence;
    park(x);
}
