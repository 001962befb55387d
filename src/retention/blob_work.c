// SPDX-License-Identifier: Apache-2.0
#include "retention/blob_work.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "base/buffer.h"
#include "platform/thread.h"
#include "store/remote_store.h"

// As many requests at once as a store has connections by default.
#define THREADS_MAX 8u

struct running {
    const struct blob_work *work;
    size_t count;
    atomic_size_t next, done;
    atomic_int error;
    struct buffer text; // of the thread that set `error`, until it has ended
};

static void
note_error(struct running *r, int rc)
{
    int none = 0;
    if (atomic_compare_exchange_strong(&r->error, &none, rc))
        buffer_append_string(&r->text, remote_store_error());
}

// Whether there was anything to do.
static bool
do_next(struct running *r)
{
    if (atomic_load(&r->error) != 0)
        return false;
    size_t i = atomic_fetch_add(&r->next, 1);
    if (i >= r->count)
        return false;
    int rc = r->work->work(r->work->argument, i);
    if (rc != 0)
        note_error(r, rc);
    atomic_fetch_add(&r->done, 1);
    return true;
}

static void
run(void *argument)
{
    while (do_next(argument))
        ;
}

static void
run_and_tell(struct running *r)
{
    bool more;
    do {
        more = do_next(r);
        int rc = r->work->progress && atomic_load(&r->error) == 0
                     ? r->work->progress(r->work->argument, atomic_load(&r->done))
                     : 0;
        if (rc != 0)
            note_error(r, rc);
    } while (more);
}

int
blob_work_run(const struct blob_work *work, size_t count)
{
    struct running r = {.work = work, .count = count};
    struct thread threads[THREADS_MAX];
    unsigned started = 0;
    while (started + 1 < THREADS_MAX && started + 1 < count &&
           thread_start(&threads[started], "blobs", run, &r) == 0)
        started++;
    run_and_tell(&r);
    for (unsigned i = 0; i < started; i++)
        thread_join(&threads[i]);
    int rc = atomic_load(&r.error);
    if (rc == 0 && work->progress)
        rc = work->progress(work->argument, count);
    if (r.text.length > 0)
        remote_store_set_error("%s", buffer_string(&r.text));
    buffer_free(&r.text);
    return rc;
}
