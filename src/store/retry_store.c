// SPDX-License-Identifier: Apache-2.0
// A store that tries again. Time and randomness come from a table, so that tests do not wait.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "store/remote_store_backends.h"
#include "store/store_internal.h"

#define SLEEP_SLICE_MS    50
#define BAD_MESSAGE_TRIES 3
#define COMPARE_BYTES     (8ull << 20)

struct retry_store {
    struct remote_store base;
    struct remote_store *inner;
    struct retry_policy policy;
    struct retry_environment env;
    uint64_t failed_in_a_row; // atomic; under the lock when it grows

    // Protects all below: the last failure.
    struct lock lock;
    uint64_t failed_ms;
    char failure[256];
};

// One series of tries.
struct series {
    struct retry_store *rs;
    const struct remote_call *call;
    const char *what;
    const char *key;
    bool is_read;
    uint64_t begin_ms;
    uint64_t tries;
    uint64_t throttled;
};

static struct retry_store *
retry_store_of(struct remote_store *s)
{
    return CONTAINER_OF(s, struct retry_store, base);
}

static uint64_t
now_ms(const struct retry_store *rs)
{
    return rs->env.now_ms(rs->env.context);
}

static struct series
series_begin(struct remote_store *s, const struct remote_call *call, const char *what,
    const char *key, bool is_read)
{
    struct retry_store *rs = retry_store_of(s);
    return (struct series){
        .rs = rs,
        .call = call,
        .what = what,
        .key = key,
        .is_read = is_read,
        .begin_ms = now_ms(rs),
    };
}

// The upper end of the random sleep before try `tries` + 1.
static uint64_t
back_off_limit(const struct retry_policy *p, uint64_t tries, bool throttled)
{
    uint64_t limit = throttled ? p->throttled_base_ms : p->base_ms;
    uint64_t cap = throttled ? p->throttled_cap_ms : p->cap_ms;
    for (uint64_t i = 1; i < tries && limit < cap; i++)
        limit *= 2;
    return limit < cap ? limit : cap;
}

static uint64_t
series_end_ms(const struct series *t)
{
    return t->call->deadline_ms ? t->call->deadline_ms : t->begin_ms + t->rs->policy.total_ms;
}

// 0 when the time has passed, -ECANCELED when the caller gave up.
static int
sleep_unless_canceled(const struct series *t, uint64_t ms)
{
    const struct retry_environment *env = &t->rs->env;
    for (uint64_t end = now_ms(t->rs) + ms;;) {
        if (remote_call_is_canceled(t->call))
            return store_fail(
                -ECANCELED, "%s %s: canceled while waiting to try again", t->what, t->key);
        uint64_t now = now_ms(t->rs);
        if (now >= end)
            return 0;
        env->sleep_ms(env->context, end - now < SLEEP_SLICE_MS ? end - now : SLEEP_SLICE_MS);
    }
}

static bool
is_worth_retrying(const struct series *t, int rc)
{
    if (rc == -EBADMSG)
        return t->is_read && t->tries < BAD_MESSAGE_TRIES;
    return rc == -EAGAIN || rc == -EBUSY || (rc == -EPROTO && !t->call->fail_fast);
}

// ---- telling of failures ------------------------------------------------------------------------

// "put KEY: CAUSE" becomes "CAUSE (put KEY)", so that a narrow line shows the cause. `more` goes
// behind the key.
static void
cause_first(const struct series *t, const char *more, struct buffer *out)
{
    const char *text = remote_store_error();
    size_t n = strlen(t->what);
    const char *cause =
        strncmp(text, t->what, n) == 0 && text[n] == ' ' ? strstr(text, ": ") : NULL;
    if (!cause) {
        buffer_printf(out, "%s%s%s%s", text, *more ? " (" : "", more, *more ? ")" : "");
        return;
    }
    buffer_printf(
        out, "%s (%.*s%s%s)", cause + 2, (int)(cause - text), text, *more ? "; " : "", more);
}

static void
note_failure(struct series *t)
{
    struct retry_store *rs = t->rs;
    BUFFER_AUTO text = {0};
    cause_first(t, "", &text);
    lock_take(&rs->lock);
    uint64_t tries = __atomic_add_fetch(&rs->failed_in_a_row, 1, __ATOMIC_RELAXED);
    rs->failed_ms = now_ms(rs);
    snprintf(rs->failure, sizeof(rs->failure), "%s", buffer_string(&text));
    lock_release(&rs->lock);
    // The second one comes within a second; repeated failures are told ever more rarely.
    if (tries >= 2 && (tries & (tries - 1)) == 0)
        log_warning("store.retrying", "retrying, %llu errors, last: %s", (unsigned long long)tries,
            buffer_string(&text));
}

static void
note_answer(struct retry_store *rs)
{
    if (__atomic_load_n(&rs->failed_in_a_row, __ATOMIC_RELAXED) == 0)
        return;
    lock_take(&rs->lock);
    __atomic_store_n(&rs->failed_in_a_row, 0, __ATOMIC_RELAXED);
    lock_release(&rs->lock);
}

static void
retry_trouble(struct remote_store *s, struct remote_trouble *trouble_out)
{
    struct retry_store *rs = retry_store_of(s);
    lock_take(&rs->lock);
    trouble_out->tries = __atomic_load_n(&rs->failed_in_a_row, __ATOMIC_RELAXED);
    if (rs->failure[0] != '\0') {
        trouble_out->age_ms = now_ms(rs) - rs->failed_ms;
        snprintf(trouble_out->text, sizeof(trouble_out->text), "%s", rs->failure);
    }
    lock_release(&rs->lock);
}

static int
give_up(const struct series *t, int code)
{
    BUFFER_AUTO text = {0};
    char more[80];
    snprintf(more, sizeof(more), "gave up after %llu tries in %.1f s", (unsigned long long)t->tries,
        (double)(now_ms(t->rs) - t->begin_ms) / 1000);
    cause_first(t, more, &text);
    return store_fail(code, "%s", buffer_string(&text));
}

// Called with the result of each try: true when there is to be another one, after the wait that is
// due. Else *rc is the result of the series.
static bool
series_goes_on(struct series *t, int *rc)
{
    t->tries++;
    if (*rc >= 0 || *rc == -ENOENT || *rc == -EEXIST)
        note_answer(t->rs);
    else if (*rc != -ECANCELED)
        note_failure(t);
    if (*rc >= 0)
        return false;
    if (!is_worth_retrying(t, *rc)) {
        if (t->tries > 1 && *rc != -ENOENT && *rc != -EEXIST && *rc != -ECANCELED)
            *rc = give_up(t, *rc);
        return false;
    }
    bool throttled = *rc == -EBUSY;
    t->throttled += throttled;
    uint64_t limit = back_off_limit(&t->rs->policy, throttled ? t->throttled : t->tries, throttled);
    uint64_t wait = t->rs->env.random(t->rs->env.context) % (limit + 1);
    if (now_ms(t->rs) + wait >= series_end_ms(t)) {
        *rc = give_up(t, -ETIMEDOUT);
        return false;
    }
    int canceled = sleep_unless_canceled(t, wait);
    if (canceled < 0) {
        *rc = canceled;
        return false;
    }
    STORE_COUNT(&t->rs->base, retries, 1);
    return true;
}

// ---- the conditional create ---------------------------------------------------------------------

// Whether the object under `key` holds exactly the bytes of the source: 0 when it does, -EEXIST
// when not, else the error that kept us from finding out.
static int
compare_with_source(struct retry_store *rs, const char *key, const struct remote_source *source,
    const struct remote_call *call)
{
    struct remote_head head;
    int rc = remote_store_head_blob(rs->inner, key, &head, call);
    if (rc == 0 && head.size != source->length)
        return store_fail(-EEXIST, "put %s: the object exists with other content", key);
    struct sha256_stream *stream = sha256_stream_new();
    struct buffer block = {0};
    for (uint64_t done = 0; rc == 0 && done < source->length;) {
        uint64_t n = source->length - done < COMPARE_BYTES ? source->length - done : COMPARE_BYTES;
        buffer_clear(&block);
        rc = remote_store_get_blob(rs->inner, key, done, n, &block, call);
        if (rc == 0 && block.length != n)
            rc = store_fail(-EAGAIN, "put %s: the object became shorter", key);
        sha256_stream_update(stream, block.data, block.length);
        done += n;
    }
    struct sha256 hash;
    sha256_stream_finish(stream, &hash);
    sha256_stream_free(stream);
    buffer_free(&block);
    if (rc == -ENOENT)
        return store_fail(-EAGAIN, "put %s: the object exists and does not", key);
    if (rc < 0)
        return rc;
    if (!sha256_equal(&hash, &source->hash))
        return store_fail(-EEXIST, "put %s: the object exists with other content", key);
    return 0;
}

static int
retry_put(struct remote_store *s, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    struct retry_store *rs = retry_store_of(s);
    struct series t = series_begin(s, call, "put", key, false);
    int rc;
    do {
        rc = remote_store_put_blob(rs->inner, key, source, mode, call);
        // An earlier try may have been the one that created it.
        if (rc == -EEXIST && mode == REMOTE_PUT_CREATE && t.tries > 0)
            rc = compare_with_source(rs, key, source, call);
    } while (series_goes_on(&t, &rc));
    return rc;
}

// ---- the other calls ----------------------------------------------------------------------------

static int
retry_get(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    struct series t = series_begin(s, call, "get", key, true);
    int rc;
    do {
        rc = remote_store_get_blob(t.rs->inner, key, offset, length, out, call);
    } while (series_goes_on(&t, &rc));
    return rc;
}

static int
retry_head(struct remote_store *s, const char *key, struct remote_head *head_out,
    const struct remote_call *call)
{
    struct series t = series_begin(s, call, "head", key, true);
    int rc;
    do {
        rc = remote_store_head_blob(t.rs->inner, key, head_out, call);
    } while (series_goes_on(&t, &rc));
    return rc;
}

static int
retry_list(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *listing_out, const struct remote_call *call)
{
    struct series t = series_begin(s, call, "list", prefix, true);
    int rc;
    do {
        rc = remote_store_list_blobs(t.rs->inner, prefix, after, limit, listing_out, call);
    } while (series_goes_on(&t, &rc));
    return rc;
}

static int
retry_delete(
    struct remote_store *s, const char *const *keys, size_t count, const struct remote_call *call)
{
    struct series t = series_begin(s, call, "delete", keys[0], false);
    int rc;
    do {
        rc = remote_store_delete_blobs(t.rs->inner, keys, count, call);
    } while (series_goes_on(&t, &rc));
    return rc;
}

static int
retry_sweep_uploads(struct remote_store *s, const char *prefix, uint64_t age_ms, bool dry_run,
    uint64_t *count_out, const struct remote_call *call)
{
    struct series t = series_begin(s, call, "list uploads below", prefix, true);
    int rc;
    do {
        rc = remote_store_sweep_uploads(t.rs->inner, prefix, age_ms, dry_run, count_out, call);
    } while (series_goes_on(&t, &rc));
    return rc;
}

static int
retry_probe(struct remote_store *s, const struct remote_call *call)
{
    struct series t = series_begin(s, call, "probe", "", false);
    int rc;
    do {
        rc = remote_store_probe(t.rs->inner, call);
    } while (series_goes_on(&t, &rc));
    return rc;
}

static void
retry_close(struct remote_store *s)
{
    struct retry_store *rs = retry_store_of(s);
    remote_store_close(rs->inner);
    lock_destroy(&rs->lock);
    free(rs);
}

static const struct remote_store_ops retry_store_ops = {
    .put_blob = retry_put,
    .get_blob = retry_get,
    .head_blob = retry_head,
    .list_blobs = retry_list,
    .delete_blobs = retry_delete,
    .sweep_uploads = retry_sweep_uploads,
    .probe = retry_probe,
    .trouble = retry_trouble,
    .close = retry_close,
};

// ---- opening ------------------------------------------------------------------------------------

static uint64_t
system_now_ms(void *context UNUSED)
{
    return clock_monotonic_ms();
}

static void
system_sleep_ms(void *context UNUSED, uint64_t ms)
{
    clock_sleep_ms(ms);
}

static uint64_t
system_random(void *context UNUSED)
{
    return random_u64();
}

static void
set_default(uint64_t *value, uint64_t standard)
{
    if (*value == 0)
        *value = standard;
}

struct remote_store *
retry_store_wrap(struct remote_store *inner, const struct retry_policy *policy,
    const struct retry_environment *environment)
{
    static const struct retry_environment system = {
        .now_ms = system_now_ms, .sleep_ms = system_sleep_ms, .random = system_random};
    struct retry_store *rs = memory_alloc_zero(sizeof(*rs));
    rs->base.ops = &retry_store_ops;
    lock_init(&rs->lock, "retry_store", LOCK_RANK_STORE);
    rs->base.list_page = inner->list_page;
    rs->inner = inner;
    rs->env = environment ? *environment : system;
    if (policy)
        rs->policy = *policy;
    set_default(&rs->policy.base_ms, 100);
    set_default(&rs->policy.cap_ms, 10000);
    set_default(&rs->policy.throttled_base_ms, 1000);
    set_default(&rs->policy.throttled_cap_ms, 30000);
    set_default(&rs->policy.total_ms, 120000);
    inner->outer = &rs->base;
    return &rs->base;
}
