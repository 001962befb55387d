// SPDX-License-Identifier: Apache-2.0
// Reads that are sent again when they are late.
#include "unit.h"

#include <stdatomic.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "store/hedged_store.h"

// ---- a store whose answers the test decides -----------------------------------------------------

static atomic_uint gets;
static atomic_uint held;     // so many of the next gets answer only when they are cancelled
static atomic_uint standing; // gets that are held at this moment
static atomic_int result;    // of the others: 0 or an error

static int
fake_get(struct remote_store *s UNUSED, const char *key, uint64_t offset UNUSED,
    uint64_t length UNUSED, struct buffer *out, const struct remote_call *call)
{
    atomic_fetch_add(&gets, 1);
    if (atomic_load(&held) > 0) {
        atomic_fetch_sub(&held, 1);
        atomic_fetch_add(&standing, 1);
        while (!remote_call_is_canceled(call))
            clock_sleep_ms(1);
        atomic_fetch_sub(&standing, 1);
        return -ECANCELED;
    }
    buffer_append_string(out, key);
    if (atomic_load(&result) < 0)
        remote_store_set_error("get %s: it is out", key);
    return atomic_load(&result);
}

static void
fake_close(struct remote_store *s UNUSED)
{
}

static const struct remote_store_ops fake_ops = {.get_blob = fake_get, .close = fake_close};
static struct remote_store fake;
static struct remote_store *store;
static const struct remote_call paced = {.paced = true};

static int
get(const struct remote_call *call)
{
    BUFFER_AUTO out = {0};
    buffer_append_string(&out, "before ");
    int rc = remote_store_get_blob(store, "blob", 0, 4, &out, call);
    ck_assert_str_eq(buffer_string(&out), rc == 0 ? "before blob" : "before ");
    return rc;
}

static void
open_store(void)
{
    fake = (struct remote_store){.ops = &fake_ops};
    store = hedged_store_wrap(&fake);
    hedged_store_turn(store, true);
}

// Gets that are quick, until the store knows what is late.
static void
warm_up(void)
{
    for (unsigned i = 0; i < HEDGE_LEAST; i++)
        ck_assert_int_eq(get(&paced), 0);
    ck_assert_uint_ge(atomic_load(&gets), HEDGE_LEAST);
}

static struct hedged_numbers
numbers(void)
{
    struct hedged_numbers n;
    hedged_store_numbers(store, &n);
    return n;
}

// ---- tests --------------------------------------------------------------------------------------

START_TEST(late_is_longer_than_nineteen_of_twenty)
{
    struct hedged_delay d = {0};
    for (unsigned i = 0; i < HEDGE_LEAST - 1; i++)
        hedged_delay_note(&d, 10);
    ck_assert_uint_eq(d.delay_ms, 0);
    for (unsigned i = 0; i < 1000; i++)
        hedged_delay_note(&d, i % 25 == 0 ? 500 : 10);
    ck_assert_uint_eq(d.delay_ms, 11);
    for (unsigned i = 0; i < 1000; i++)
        hedged_delay_note(&d, i % 10 == 0 ? 500 : 10);
    ck_assert_uint_eq(d.delay_ms, 501);
    for (unsigned i = 0; i < 1000; i++)
        hedged_delay_note(&d, 0);
    ck_assert_uint_eq(d.delay_ms, HEDGE_FLOOR_MS);
}
END_TEST

START_TEST(a_late_read_is_sent_again_and_the_first_answer_counts)
{
    open_store();
    warm_up();
    struct hedged_numbers before = numbers();
    unsigned sent = atomic_load(&gets);
    atomic_store(&held, 1);
    ck_assert_int_eq(get(&paced), 0);
    ck_assert_uint_eq(atomic_load(&gets), sent + 2);
    ck_assert_uint_eq(numbers().sent, before.sent + 1);
    ck_assert_uint_eq(numbers().won, before.won + 1);
    // The loser is cancelled.
    while (atomic_load(&standing) > 0)
        clock_sleep_ms(1);
    remote_store_close(store);
}
END_TEST

START_TEST(others_are_sent_once)
{
    open_store();
    warm_up();
    const struct remote_call control = {.deadline_ms = 0};
    const struct remote_call ahead = {.paced = true, .class = REMOTE_READ_AHEAD};
    unsigned sent = atomic_load(&gets);
    ck_assert_int_eq(get(&control), 0);
    ck_assert_int_eq(get(&ahead), 0);
    hedged_store_turn(store, false);
    ck_assert_int_eq(get(&paced), 0);
    ck_assert_uint_eq(atomic_load(&gets), sent + 3);
    remote_store_close(store);
}
END_TEST

START_TEST(a_failure_is_the_callers_with_its_text)
{
    open_store();
    warm_up();
    atomic_store(&result, -EACCES);
    ck_assert_int_eq(get(&paced), -EACCES);
    ck_assert_str_eq(remote_store_error(), "get blob: it is out");
    remote_store_close(store);
}
END_TEST

static atomic_bool canceled;

static bool
is_canceled(void *argument UNUSED)
{
    return atomic_load(&canceled);
}

static void
get_and_note(void *argument)
{
    const struct remote_call call = {.paced = true, .is_canceled = is_canceled};
    *(int *)argument = get(&call);
}

START_TEST(a_caller_can_leave_both)
{
    struct thread thread;
    int rc = 1;
    open_store();
    warm_up();
    atomic_store(&held, 2);
    ck_assert_int_eq(thread_start(&thread, "get", get_and_note, &rc), 0);
    while (atomic_load(&standing) < 2)
        clock_sleep_ms(1);
    atomic_store(&canceled, true);
    thread_join(&thread);
    ck_assert_int_eq(rc, -ECANCELED);
    remote_store_close(store);
    ck_assert_uint_eq(atomic_load(&standing), 0);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("hedged_store");
#define ADD(test) unit_add(s, #test, test, 20)
    ADD(late_is_longer_than_nineteen_of_twenty);
    ADD(a_late_read_is_sent_again_and_the_first_answer_counts);
    ADD(others_are_sent_once);
    ADD(a_failure_is_the_callers_with_its_text);
    ADD(a_caller_can_leave_both);
    return unit_run(s);
}
