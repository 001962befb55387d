// SPDX-License-Identifier: Apache-2.0
// The limiter of the store: shares, bursts, changes, cancellation. The clock is false, but for the
// tests of the store that waits.
#include "unit.h"

#include <stdatomic.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "store/limited_store.h"
#include "store/remote_store_backends.h"

#define MIB (UINT64_C(1) << 20)

// ---- the pure limiter ---------------------------------------------------------------------------

static uint64_t now_ms = 1000;
static struct read_limiter limiter;

static void
start(uint64_t bytes, uint64_t requests)
{
    const struct limiter_rates rates = {bytes, requests};
    read_limiter_init(&limiter, now_ms);
    read_limiter_set(&limiter, &rates, now_ms);
}

// One stream of requests of a class, `wanted` of them outstanding all the time.
struct stream {
    enum remote_class class;
    uint64_t bytes; // of a request
    unsigned wanted;
    uint64_t moved;
    uint64_t longest_wait_ms;
    struct limiter_request requests[32];
    uint64_t put_ms[32];
    uint64_t ends_ms[32]; // once granted
};

static void
put(struct read_limiter *l, struct stream *s, unsigned i)
{
    s->requests[i] = (struct limiter_request){.class = s->class, .bytes = s->bytes};
    s->put_ms[i] = now_ms;
    s->ends_ms[i] = 0;
    read_limiter_put(l, &s->requests[i], now_ms);
}

static void
put_all(struct read_limiter *l, struct stream *s)
{
    for (unsigned i = 0; i < s->wanted; i++)
        put(l, s, i);
}

static void
look_at(struct read_limiter *l, struct stream *s, unsigned i, uint64_t service_ms)
{
    if (!s->requests[i].granted)
        return;
    if (s->ends_ms[i] == 0) {
        s->ends_ms[i] = now_ms + service_ms;
        uint64_t wait = now_ms - s->put_ms[i];
        s->longest_wait_ms = wait > s->longest_wait_ms ? wait : s->longest_wait_ms;
    }
    if (s->ends_ms[i] > now_ms)
        return;
    s->moved += s->bytes;
    read_limiter_end(l, &s->requests[i], s->bytes, now_ms);
    put(l, s, i);
}

// A millisecond. Requests take `service_ms` once they are granted.
static void
step(struct read_limiter *l, struct stream *streams, size_t count, uint64_t service_ms)
{
    (void)read_limiter_grant(l, now_ms);
    for (size_t k = 0; k < count; k++)
        for (unsigned i = 0; i < streams[k].wanted; i++)
            look_at(l, &streams[k], i, service_ms);
}

static void
run(struct stream *streams, size_t count, uint64_t duration_ms, uint64_t service_ms)
{
    for (size_t k = 0; k < count; k++)
        put_all(&limiter, &streams[k]);
    for (uint64_t end = now_ms + duration_ms; now_ms < end; now_ms++)
        step(&limiter, streams, count, service_ms);
}

static void
check_near(uint64_t value, uint64_t wanted, unsigned percent)
{
    ck_assert_msg(
        value * 100 >= wanted * (100 - percent) && value * 100 <= wanted * (100 + percent),
        "%llu is not within %u %% of %llu", (unsigned long long)value, percent,
        (unsigned long long)wanted);
}

START_TEST(one_class_alone_gets_all)
{
    for (unsigned class = 0; class < LIMITER_CLASSES; class ++) {
        struct stream s = {.class = (enum remote_class) class, .bytes = MIB, .wanted = 4};
        start(20 * MIB, 0);
        run(&s, 1, 20000, 5);
        check_near(s.moved, 20 * 20 * MIB, 3);
    }
}
END_TEST

START_TEST(classes_share_by_weight_and_none_starves)
{
    struct stream s[4] = {{.class = REMOTE_FOREGROUND, .bytes = 64 << 10, .wanted = 16},
        {.class = REMOTE_READ_AHEAD, .bytes = 2 * MIB, .wanted = 6},
        {.class = REMOTE_JOB, .bytes = 4 * MIB, .wanted = 4},
        {.class = REMOTE_COLD_SCAN, .bytes = MIB, .wanted = 8}};
    uint64_t cost = 0;
    start(20 * MIB, 0);
    run(s, 4, 120000, 5);
    for (unsigned i = 0; i < 4; i++) // a small request costs more than its bytes
        cost += s[i].moved / s[i].bytes * (s[i].bytes + LIMITER_REQUEST_COST);
    for (unsigned i = 0; i < 4; i++)
        check_near(s[i].moved / s[i].bytes * (s[i].bytes + LIMITER_REQUEST_COST),
            cost * read_limiter_weight(s[i].class) / 27, 5);
    check_near(s[0].moved + s[1].moved + s[2].moved + s[3].moved, 120 * 20 * MIB, 2);
    ck_assert_uint_lt(s[0].longest_wait_ms, 2000);
    ck_assert_uint_lt(s[3].longest_wait_ms, 20000);
}
END_TEST

// Each tenant has a limiter of its own: the number of its readers does not matter to others.
START_TEST(a_tenant_with_many_readers_gets_no_more_than_one_with_few)
{
    struct stream streams[2] = {{.class = REMOTE_FOREGROUND, .bytes = MIB, .wanted = 1},
        {.class = REMOTE_FOREGROUND, .bytes = MIB, .wanted = 32}};
    struct read_limiter limiters[2];
    for (unsigned i = 0; i < 2; i++) {
        read_limiter_init(&limiters[i], now_ms);
        read_limiter_set(&limiters[i], &(const struct limiter_rates){20 * MIB, 0}, now_ms);
    }
    // Both at the same time, in steps of a millisecond.
    for (unsigned i = 0; i < 2; i++)
        put_all(&limiters[i], &streams[i]);
    for (uint64_t end = now_ms + 30000; now_ms < end; now_ms++)
        for (unsigned i = 0; i < 2; i++)
            step(&limiters[i], &streams[i], 1, 5);
    check_near(streams[0].moved, 30 * 20 * MIB, 3);
    check_near(streams[1].moved, streams[0].moved, 3);
}
END_TEST

START_TEST(requests_at_once_are_bounded_and_shared)
{
    struct stream s[2] = {{.class = REMOTE_FOREGROUND, .bytes = 64 << 10, .wanted = 8},
        {.class = REMOTE_COLD_SCAN, .bytes = 64 << 10, .wanted = 8}};
    start(0, 4);
    run(s, 2, 10000, 10);
    check_near(s[0].moved + s[1].moved, 4 * 1000 * (64 << 10), 12);
    check_near(s[0].moved, 16 * s[1].moved, 10);
    ck_assert_uint_eq(limiter.in_flight, 4);
    // Alone, a scan leaves one to others.
    struct stream scan = {.class = REMOTE_COLD_SCAN, .bytes = 64 << 10, .wanted = 8};
    start(0, 4);
    run(&scan, 1, 100, 10);
    ck_assert_uint_eq(limiter.in_flight, 3);
    // But not its only one.
    start(0, 1);
    run(&scan, 1, 100, 10);
    ck_assert_uint_eq(limiter.in_flight, 1);
}
END_TEST

START_TEST(a_burst_is_bounded)
{
    struct stream s = {.class = REMOTE_FOREGROUND, .bytes = MIB, .wanted = 32};
    start(8 * MIB, 0);
    now_ms += 3600000; // an hour of silence saves a quarter of a second
    run(&s, 1, 1, 0);
    ck_assert_uint_le(s.moved, 2 * MIB + MIB);
    run(&s, 1, 1000, 0);
    ck_assert_uint_le(s.moved, 8 * MIB + 2 * MIB + 2 * MIB);
}
END_TEST

START_TEST(a_class_that_did_not_wait_has_saved_nothing)
{
    struct stream scan = {.class = REMOTE_COLD_SCAN, .bytes = MIB, .wanted = 4};
    start(20 * MIB, 0);
    run(&scan, 1, 60000, 5);
    struct stream both[2] = {{.class = REMOTE_JOB, .bytes = MIB, .wanted = 4}, scan};
    read_limiter_init(&limiter, now_ms);
    read_limiter_set(&limiter, &(const struct limiter_rates){20 * MIB, 0}, now_ms);
    both[1].moved = 0;
    run(both, 2, 30000, 5);
    check_near(both[0].moved, 2 * both[1].moved, 5);
}
END_TEST

START_TEST(a_change_holds_at_once)
{
    struct limiter_request a = {.class = REMOTE_FOREGROUND, .bytes = 64 * MIB};
    struct limiter_request b = {.class = REMOTE_FOREGROUND, .bytes = MIB};
    start(MIB, 0);
    read_limiter_put(&limiter, &a, now_ms);
    read_limiter_put(&limiter, &b, now_ms);
    ck_assert(a.granted && !b.granted);
    ck_assert_uint_gt(read_limiter_grant(&limiter, now_ms), now_ms + 60000);
    // The debt of a minute is a second at the most under a new limit.
    read_limiter_set(&limiter, &(const struct limiter_rates){64 * MIB, 0}, now_ms);
    ck_assert_uint_le(read_limiter_grant(&limiter, now_ms), now_ms + 1001);
    now_ms += 1001;
    (void)read_limiter_grant(&limiter, now_ms);
    ck_assert(b.granted);
    struct limiter_request c = {.class = REMOTE_COLD_SCAN, .bytes = 100 * MIB};
    struct limiter_request d = {.class = REMOTE_COLD_SCAN, .bytes = MIB};
    read_limiter_put(&limiter, &c, now_ms);
    read_limiter_put(&limiter, &d, now_ms);
    ck_assert(!d.granted);
    read_limiter_set(&limiter, &(const struct limiter_rates){0, 0}, now_ms);
    (void)read_limiter_grant(&limiter, now_ms);
    ck_assert(c.granted && d.granted);
    ck_assert_uint_eq(limiter.in_flight, 4);
}
END_TEST

START_TEST(bytes_that_did_not_come_are_given_back)
{
    struct limiter_request a = {.class = REMOTE_FOREGROUND, .bytes = 10 * MIB};
    struct limiter_request b = {.class = REMOTE_FOREGROUND, .bytes = MIB};
    start(MIB, 0);
    read_limiter_put(&limiter, &a, now_ms);
    read_limiter_put(&limiter, &b, now_ms);
    ck_assert(a.granted && !b.granted);
    read_limiter_end(&limiter, &a, 0, now_ms);
    (void)read_limiter_grant(&limiter, now_ms);
    ck_assert(b.granted);
    // One that did not know its length pays afterwards.
    struct limiter_request c = {.class = REMOTE_JOB};
    now_ms += 10000;
    read_limiter_put(&limiter, &c, now_ms);
    ck_assert(c.granted);
    read_limiter_end(&limiter, &c, 5 * MIB, now_ms);
    ck_assert_int_lt(limiter.tokens, 0);
}
END_TEST

START_TEST(one_that_leaves_does_not_hold_up_others)
{
    struct limiter_request a = {.class = REMOTE_FOREGROUND, .bytes = MIB};
    struct limiter_request b = {.class = REMOTE_FOREGROUND, .bytes = MIB};
    struct limiter_request c = {.class = REMOTE_FOREGROUND, .bytes = MIB};
    start(0, 1);
    read_limiter_put(&limiter, &a, now_ms);
    read_limiter_put(&limiter, &b, now_ms);
    read_limiter_put(&limiter, &c, now_ms);
    ck_assert(a.granted && !b.granted && !c.granted);
    read_limiter_leave(&limiter, &b);
    read_limiter_end(&limiter, &a, MIB, now_ms);
    (void)read_limiter_grant(&limiter, now_ms);
    ck_assert(c.granted);
    ck_assert_uint_eq(limiter.in_flight, 1);
}
END_TEST

// ---- the store that waits -----------------------------------------------------------------------

static char *directory;
static struct remote_store *store;
static atomic_bool canceled;

static void
open_store(uint64_t bytes, uint64_t requests)
{
    directory = unit_directory_new();
    struct remote_store *file;
    ck_assert_int_eq(file_store_open(directory, true, &file_ops_system, &file), 0);
    store = limited_store_wrap(file);
    CLEANUP(memory_free_auto) uint8_t *data = memory_alloc_zero(MIB);
    struct remote_source source = {.data = data, .fd = -1, .length = MIB};
    sha256_of(data, MIB, &source.hash);
    ck_assert_int_eq(remote_store_put_blob(store, "blob", &source, REMOTE_PUT_OVERWRITE, NULL), 0);
    limited_store_set(store, &(const struct remote_limits){.reads = {bytes, requests}});
}

static void
close_store(void)
{
    remote_store_close(store);
    unit_directory_remove(directory);
}

static bool
is_canceled(void *argument UNUSED)
{
    return atomic_load(&canceled);
}

static int
get(const struct remote_call *call)
{
    BUFFER_AUTO out = {0};
    return remote_store_get_blob(store, "blob", 0, MIB, &out, call);
}

static void
get_and_note(void *argument)
{
    const struct remote_call call = {.paced = true, .is_canceled = is_canceled};
    *(int *)argument = get(&call);
}

START_TEST(a_waiting_call_can_be_canceled_and_has_a_deadline)
{
    struct thread thread;
    struct remote_limits_numbers n = {0};
    int rc = 1;
    open_store(LIMITER_RATE_MIN, 0);
    ck_assert_int_eq(get(&(const struct remote_call){.paced = true}), 0); // a debt of 16 s
    ck_assert_int_eq(
        get(&(const struct remote_call){.paced = true, .deadline_ms = clock_monotonic_ms() + 20}),
        -ETIMEDOUT);
    ck_assert_ptr_nonnull(strstr(remote_store_error(), "limit of reads"));
    ck_assert_int_eq(thread_start(&thread, "get", get_and_note, &rc), 0);
    while (n.waiting == 0)
        limited_store_numbers(store, &n);
    atomic_store(&canceled, true);
    thread_join(&thread);
    ck_assert_int_eq(rc, -ECANCELED);
    // What must not wait does not.
    ck_assert_int_eq(
        get(&(const struct remote_call){.deadline_ms = clock_monotonic_ms() + 10000}), 0);
    limited_store_numbers(store, &n);
    ck_assert_uint_eq(n.waiting, 0);
    ck_assert_uint_eq(n.waits, 2);
    ck_assert_uint_eq(n.refused, 1);
    ck_assert_uint_eq(n.read_bytes[REMOTE_FOREGROUND], 2 * MIB);
    ck_assert_uint_eq(n.reads[REMOTE_FOREGROUND], 1); // a program waited for this one alone
    close_store();
}
END_TEST

START_TEST(a_waiting_call_goes_on_when_the_limit_is_lifted)
{
    struct thread thread;
    struct remote_limits_numbers n = {0};
    int rc = 1;
    open_store(LIMITER_RATE_MIN, 1);
    ck_assert_int_eq(get(&(const struct remote_call){.paced = true}), 0);
    ck_assert_int_eq(thread_start(&thread, "get", get_and_note, &rc), 0);
    while (n.waiting == 0)
        limited_store_numbers(store, &n);
    limited_store_set(store, &(const struct remote_limits){0});
    thread_join(&thread);
    ck_assert_int_eq(rc, 0);
    close_store();
}
END_TEST

START_TEST(uploads_have_a_limit_of_their_own)
{
    open_store(0, 0);
    CLEANUP(memory_free_auto) uint8_t *data = memory_alloc_zero(MIB);
    struct remote_source source = {.data = data, .fd = -1, .length = MIB};
    sha256_of(data, MIB, &source.hash);
    limited_store_set(store, &(const struct remote_limits){.uploads = {LIMITER_RATE_MIN, 0}});
    const struct remote_call upload = {
        .class = REMOTE_UPLOAD, .deadline_ms = clock_monotonic_ms() + 30};
    const struct remote_call scan = {.class = REMOTE_COLD_SCAN};
    int first = remote_store_put_blob(store, "one", &source, REMOTE_PUT_OVERWRITE, &upload);
    int second = remote_store_put_blob(store, "two", &source, REMOTE_PUT_OVERWRITE, &upload);
    ck_assert_int_eq(first, 0);
    ck_assert_int_eq(second, -ETIMEDOUT);
    ck_assert_int_eq(get(&scan), 0);
    // A lease does not wait.
    ck_assert_int_eq(remote_store_put_blob(store, "lease", &source, REMOTE_PUT_OVERWRITE, NULL), 0);
    close_store();
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("read_limiter");
#define ADD(test) unit_add(s, #test, test, 20)
    ADD(one_class_alone_gets_all);
    ADD(classes_share_by_weight_and_none_starves);
    ADD(a_tenant_with_many_readers_gets_no_more_than_one_with_few);
    ADD(requests_at_once_are_bounded_and_shared);
    ADD(a_burst_is_bounded);
    ADD(a_class_that_did_not_wait_has_saved_nothing);
    ADD(a_change_holds_at_once);
    ADD(bytes_that_did_not_come_are_given_back);
    ADD(one_that_leaves_does_not_hold_up_others);
    ADD(a_waiting_call_can_be_canceled_and_has_a_deadline);
    ADD(a_waiting_call_goes_on_when_the_limit_is_lifted);
    ADD(uploads_have_a_limit_of_their_own);
    return unit_run(s);
}
