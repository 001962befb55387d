// SPDX-License-Identifier: Apache-2.0
#include "store/read_limiter.h"

#include <assert.h>
#include <string.h>

#include "base/compiler.h"

#define BURST_MS     250
#define TOKEN_PARTS  1000 // of a byte: so that a millisecond loses nothing
#define DEBT_MAX     (INT64_MAX / 4)
#define WEIGHT_SCALE 64u // divisible by all weights

_Static_assert(LIMITER_CLASSES <= TENANT_RATE_CLASSES, "classes");

static const unsigned weights[LIMITER_CLASSES] = {
    [REMOTE_FOREGROUND] = 16,
    [REMOTE_READ_AHEAD] = 8,
    [REMOTE_UPLOAD] = 4,
    [REMOTE_JOB] = 2,
    [REMOTE_COLD_SCAN] = 1,
};

unsigned read_limiter_weight(enum remote_class class)
{
    return weights[class];
}

void
read_limiter_init(struct read_limiter *l, uint64_t now_ms)
{
    memset(l, 0, sizeof(*l));
    l->counted_ms = now_ms;
    for (unsigned i = 0; i < LIMITER_CLASSES; i++)
        list_init(&l->queues[i].waiting);
}

// ---- tokens -------------------------------------------------------------------------------------

static void
count_tokens(struct read_limiter *l, uint64_t now_ms)
{
    uint64_t elapsed = now_ms > l->counted_ms ? now_ms - l->counted_ms : 0;
    int64_t burst = (int64_t)l->rates.bytes * BURST_MS;
    int64_t gained;
    l->counted_ms += elapsed;
    if (l->rates.bytes == 0)
        l->tokens = 0;
    else if (__builtin_mul_overflow(elapsed, l->rates.bytes, &gained) || gained > burst - l->tokens)
        l->tokens = burst;
    else
        l->tokens += gained;
}

static void
take_tokens(struct read_limiter *l, uint64_t bytes)
{
    int64_t taken;
    if (l->rates.bytes == 0)
        return;
    if (__builtin_mul_overflow(bytes, TOKEN_PARTS, &taken) || taken > DEBT_MAX + l->tokens)
        l->tokens = -DEBT_MAX;
    else
        l->tokens -= taken;
}

void
read_limiter_set(struct read_limiter *l, const struct limiter_rates *rates, uint64_t now_ms)
{
    bool had_none = l->rates.bytes == 0;
    count_tokens(l, now_ms);
    l->rates = *rates;
    if (rates->bytes > 0 && rates->bytes < LIMITER_RATE_MIN)
        l->rates.bytes = LIMITER_RATE_MIN;
    if (l->rates.bytes > INT64_MAX / TOKEN_PARTS / TOKEN_PARTS)
        l->rates.bytes = INT64_MAX / TOKEN_PARTS / TOKEN_PARTS;
    int64_t burst = (int64_t)l->rates.bytes * BURST_MS;
    if (had_none || l->tokens > burst)
        l->tokens = burst;
    // A debt of the old rate would hold up the new one for longer than it did the old one, or be
    // forgotten: one second of the new rate is the most.
    if (l->tokens < -(int64_t)l->rates.bytes * TOKEN_PARTS)
        l->tokens = -(int64_t)l->rates.bytes * TOKEN_PARTS;
}

// The share, if the tenant has limits.
static struct tenant_rate *
share_of(const struct read_limiter *l)
{
    return l->share && tenant_rate_is_limited(l->share) ? l->share : NULL;
}

void
read_limiter_charge(struct read_limiter *l, uint64_t bytes, uint64_t now_ms)
{
    count_tokens(l, now_ms);
    take_tokens(l, bytes);
    if (share_of(l))
        tenant_rate_charge(l->share, bytes, now_ms);
}

void
read_limiter_set_share(struct read_limiter *l, struct tenant_rate *share)
{
    l->share = share;
    l->share_number++;
}

// ---- turns --------------------------------------------------------------------------------------

static bool is_background(enum remote_class class)
{
    return LIMITER_BACKGROUND >> class & 1;
}

static uint64_t
turn_of(const struct read_limiter *l, const struct tenant_rate *share, unsigned class)
{
    return share ? tenant_rate_turn(share, class) : l->queues[class].turn;
}

static bool
has_room(const struct read_limiter *l, enum remote_class class)
{
    uint64_t most = l->rates.requests;
    if (most == 0)
        return true;
    if (is_background(class) && most > 1 && l->background >= most - 1)
        return false;
    return l->in_flight < most;
}

// The class whose turn it is; LIMITER_CLASSES: none that has room waits.
static unsigned
next_class(const struct read_limiter *l, struct tenant_rate *share, uint64_t now_ms)
{
    unsigned best = LIMITER_CLASSES;
    for (unsigned i = 0; i < LIMITER_CLASSES; i++)
        if (!list_is_empty(&l->queues[i].waiting) && has_room(l, (enum remote_class)i) &&
            (!share || tenant_rate_has_room(share, i, now_ms)) &&
            (best == LIMITER_CLASSES || turn_of(l, share, i) < turn_of(l, share, best)))
            best = i;
    return best;
}

static uint64_t
cost_of(const struct limiter_request *x)
{
    return (x->bytes + LIMITER_REQUEST_COST) * (WEIGHT_SCALE / weights[x->class]);
}

static struct limiter_request *
first_of(const struct limiter_queue *q)
{
    return CONTAINER_OF(q->waiting.next, struct limiter_request, node);
}

static void
begin(struct read_limiter *l, struct limiter_queue *q)
{
    struct limiter_request *x = first_of(q);
    list_remove(&x->node);
    x->granted = true;
    l->turn = q->turn;
    q->turn += cost_of(x);
    take_tokens(l, x->bytes);
    l->in_flight++;
    l->background += is_background(x->class);
}

static void
tell_who_waits(struct read_limiter *l, struct tenant_rate *share, uint64_t now_ms)
{
    for (unsigned i = 0; i < LIMITER_CLASSES; i++)
        tenant_rate_note_waiting(share, i, !list_is_empty(&l->queues[i].waiting), now_ms);
}

// As read_limiter_grant.
static uint64_t
grant_all(struct read_limiter *l, struct tenant_rate *share, uint64_t now_ms)
{
    for (unsigned class; (class = next_class(l, share, now_ms)) < LIMITER_CLASSES;) {
        struct limiter_request *x = first_of(&l->queues[class]);
        if (l->rates.bytes > 0 && l->tokens <= 0)
            return now_ms + (uint64_t)-l->tokens / l->rates.bytes + 1;
        uint64_t later = share ? tenant_rate_begin(share, class, x->bytes, cost_of(x), now_ms) : 0;
        if (later != 0)
            return later;
        x->share = share ? l->share_number : 0;
        begin(l, &l->queues[class]);
    }
    return UINT64_MAX;
}

static bool
is_anyone_waiting(const struct read_limiter *l)
{
    for (unsigned i = 0; i < LIMITER_CLASSES; i++)
        if (!list_is_empty(&l->queues[i].waiting))
            return true;
    return false;
}

// Nobody tells when a request of another mount ends.
#define SHARE_POLL_MS 4u

uint64_t
read_limiter_grant(struct read_limiter *l, uint64_t now_ms)
{
    struct tenant_rate *share = share_of(l);
    count_tokens(l, now_ms);
    if (!share)
        return grant_all(l, NULL, now_ms);
    tell_who_waits(l, share, now_ms);
    uint64_t next = grant_all(l, share, now_ms);
    tell_who_waits(l, share, now_ms);
    if (next == UINT64_MAX && is_anyone_waiting(l))
        next = now_ms + SHARE_POLL_MS;
    return next;
}

void
read_limiter_put(struct read_limiter *l, struct limiter_request *x, uint64_t now_ms)
{
    struct limiter_queue *q = &l->queues[x->class];
    x->granted = false;
    x->share = 0;
    // What it did not use while it did not wait is gone.
    if (list_is_empty(&q->waiting) && q->turn < l->turn)
        q->turn = l->turn;
    list_append(&q->waiting, &x->node);
    (void)read_limiter_grant(l, now_ms);
}

void
read_limiter_leave(struct read_limiter *l, struct limiter_request *x)
{
    assert(!x->granted);
    list_remove(&x->node);
    if (l->share && list_is_empty(&l->queues[x->class].waiting))
        tenant_rate_note_waiting(l->share, x->class, false, 0);
}

void
read_limiter_end(
    struct read_limiter *l, const struct limiter_request *x, uint64_t moved, uint64_t now_ms)
{
    assert(x->granted && l->in_flight > 0);
    l->in_flight--;
    l->background -= is_background(x->class);
    if (l->share && x->share == l->share_number)
        tenant_rate_end(l->share, x->class, x->bytes, moved, now_ms);
    count_tokens(l, now_ms);
    if (moved > x->bytes)
        take_tokens(l, moved - x->bytes);
    else if (l->rates.bytes > 0)
        l->tokens += (int64_t)((x->bytes - moved) * TOKEN_PARTS);
    count_tokens(l, now_ms);
}
