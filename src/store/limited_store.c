// SPDX-License-Identifier: Apache-2.0
#include "store/limited_store.h"

#include <errno.h>
#include <stdlib.h>

#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "store/store_forward.h"
#include "store/store_internal.h"

// How often a call that waits asks whether it has been cancelled.
#define CANCEL_POLL_MS 50u

struct limited_store {
    struct forwarding_store forward;
    struct lock lock; // "limited_store": protects all below
    struct condition turn;
    struct read_limiter reads;
    struct read_limiter uploads;
    struct remote_limits_numbers numbers;
};

static struct limited_store *
limited_store_of(struct remote_store *s)
{
    return CONTAINER_OF(s, struct limited_store, forward.base);
}

// ---- waiting ------------------------------------------------------------------------------------

static int
wait_locked(struct limited_store *ls, struct read_limiter *l, struct limiter_request *x,
    const struct remote_call *call, const char *what, const char *key)
{
    int rc = 0;
    uint64_t begin = clock_monotonic_ms();
    ls->numbers.waits++;
    ls->numbers.waiting++;
    while (rc == 0) {
        uint64_t now = clock_monotonic_ms();
        uint64_t next = read_limiter_grant(l, now);
        if (x->granted)
            break;
        rc = store_check_call(call, what, key);
        if (rc == 0)
            condition_wait_until(
                &ls->turn, &ls->lock, next < now + CANCEL_POLL_MS ? next : now + CANCEL_POLL_MS);
    }
    ls->numbers.waiting--;
    ls->numbers.wait_ms += clock_monotonic_ms() - begin;
    ls->numbers.refused += rc == -ETIMEDOUT;
    if (rc < 0)
        read_limiter_leave(l, x);
    // It may have granted others.
    condition_broadcast(&ls->turn);
    return rc;
}

static int
take_turn(struct limited_store *ls, struct read_limiter *l, struct limiter_request *x,
    const struct remote_call *call, const char *what, const char *key)
{
    int rc = 0;
    lock_take(&ls->lock);
    read_limiter_put(l, x, clock_monotonic_ms());
    if (UNLIKELY(!x->granted)) {
        thread_will_wait();
        rc = wait_locked(ls, l, x, call, what, key);
    }
    lock_release(&ls->lock);
    return rc;
}

// A call has moved its bytes, or none.
static void
settle_locked(struct limited_store *ls, struct read_limiter *l, const struct limiter_request *x,
    uint64_t moved)
{
    uint64_t now = clock_monotonic_ms();
    if (x->granted)
        read_limiter_end(l, x, moved, now);
    else
        read_limiter_charge(l, moved, now);
    if (ls->numbers.waiting > 0) {
        (void)read_limiter_grant(l, now);
        condition_broadcast(&ls->turn);
    }
}

// ---- the calls ----------------------------------------------------------------------------------

static int
limited_get(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    struct limited_store *ls = limited_store_of(s);
    struct limiter_request x = {.class = call->class, .bytes = length == UINT64_MAX ? 0 : length};
    size_t before = out->length;
    bool waits = call->paced || call->class >= REMOTE_JOB;
    int rc = 0;
    if (waits)
        rc = take_turn(ls, &ls->reads, &x, call, "get (waiting for the limit of reads)", key);
    if (rc < 0)
        return rc;
    rc = remote_store_get_blob(ls->forward.inner, key, offset, length, out, call);
    uint64_t moved = rc < 0 ? 0 : out->length - before;
    lock_take(&ls->lock);
    settle_locked(ls, &ls->reads, &x, moved);
    ls->numbers.reads[call->class] += waits;
    ls->numbers.read_bytes[call->class] += moved;
    lock_release(&ls->lock);
    return rc;
}

static int
limited_put(struct remote_store *s, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    struct limited_store *ls = limited_store_of(s);
    struct limiter_request x = {.class = call->class, .bytes = source->length};
    int rc = 0;
    if (call->class >= REMOTE_UPLOAD)
        rc = take_turn(ls, &ls->uploads, &x, call, "put (waiting for the limit of uploads)", key);
    if (rc < 0)
        return rc;
    rc = remote_store_put_blob(ls->forward.inner, key, source, mode, call);
    lock_take(&ls->lock);
    settle_locked(ls, &ls->uploads, &x, rc < 0 ? 0 : source->length);
    lock_release(&ls->lock);
    return rc;
}

static void
limited_close(struct remote_store *s)
{
    struct limited_store *ls = limited_store_of(s);
    remote_store_close(ls->forward.inner);
    condition_destroy(&ls->turn);
    lock_destroy(&ls->lock);
    free(ls);
}

static const struct remote_store_ops limited_store_ops = {
    .put_blob = limited_put,
    .get_blob = limited_get,
    .head_blob = store_forward_head,
    .list_blobs = store_forward_list,
    .delete_blobs = store_forward_delete,
    .sweep_uploads = store_forward_sweep_uploads,
    .probe = store_forward_probe,
    .trouble = store_forward_trouble,
    .close = limited_close,
};

// ---- life and limits ----------------------------------------------------------------------------

struct remote_store *
limited_store_wrap(struct remote_store *inner)
{
    struct limited_store *ls = memory_alloc_zero(sizeof(*ls));
    uint64_t now = clock_monotonic_ms();
    store_forward_init(&ls->forward, &limited_store_ops, inner);
    lock_init(&ls->lock, "limited_store", LOCK_RANK_STORE);
    condition_init(&ls->turn);
    read_limiter_init(&ls->reads, now);
    read_limiter_init(&ls->uploads, now);
    return &ls->forward.base;
}

void
limited_store_set(struct remote_store *s, const struct remote_limits *limits)
{
    struct limited_store *ls = limited_store_of(s);
    uint64_t now = clock_monotonic_ms();
    lock_take(&ls->lock);
    read_limiter_set(&ls->reads, &limits->reads, now);
    read_limiter_set(&ls->uploads, &limits->uploads, now);
    condition_broadcast(&ls->turn);
    lock_release(&ls->lock);
}

void
limited_store_get(struct remote_store *s, struct remote_limits *limits_out)
{
    struct limited_store *ls = limited_store_of(s);
    lock_take(&ls->lock);
    struct tenant_rate_limits tenant;
    tenant_rate_get(ls->reads.share, &tenant);
    limits_out->tenant_reads = (struct limiter_rates){tenant.bytes, tenant.requests};
    limits_out->reads = ls->reads.rates;
    limits_out->uploads = ls->uploads.rates;
    lock_release(&ls->lock);
}

void
limited_store_set_share(struct remote_store *s, struct tenant_rate *share)
{
    struct limited_store *ls = limited_store_of(s);
    lock_take(&ls->lock);
    read_limiter_set_share(&ls->reads, share);
    condition_broadcast(&ls->turn);
    lock_release(&ls->lock);
}

void
limited_store_numbers(struct remote_store *s, struct remote_limits_numbers *numbers_out)
{
    struct limited_store *ls = limited_store_of(s);
    lock_take(&ls->lock);
    *numbers_out = ls->numbers;
    lock_release(&ls->lock);
}
