// SPDX-License-Identifier: Apache-2.0
// Retrying and fault injection. The clock is false: nothing here waits.
#include "unit.h"

#include <string.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "store/remote_store_backends.h"

// ---- a false world ------------------------------------------------------------------------------

static struct {
    uint64_t now_ms;
    uint64_t slept_ms; // since the last look at the random numbers
    uint64_t random;
    uint64_t waits[64];
    size_t wait_count;
    uint64_t cancel_at_ms;
} world = {.now_ms = 1000000};

static uint64_t
world_now(void *context UNUSED)
{
    return world.now_ms;
}

static void
world_sleep(void *context UNUSED, uint64_t ms)
{
    ck_assert_uint_le(ms, 50); // so that a cancellation is seen soon
    world.now_ms += ms;
    world.waits[world.wait_count - 1] += ms;
}

static uint64_t
world_random(void *context UNUSED)
{
    ck_assert_uint_lt(world.wait_count, ARRAY_LENGTH(world.waits));
    world.waits[world.wait_count++] = 0;
    return world.random;
}

static bool
is_canceled(void *argument UNUSED)
{
    return world.cancel_at_ms && world.now_ms >= world.cancel_at_ms;
}

static const struct retry_environment world_environment = {
    .now_ms = world_now, .sleep_ms = world_sleep, .random = world_random};

// ---- the stack: retry(fault(file)) --------------------------------------------------------------

static char *directory;
static struct remote_store *fault;
static struct remote_store *store;

static void
open_stack(const struct retry_policy *policy)
{
    directory = unit_directory_new();
    struct remote_store *file;
    ck_assert_int_eq(file_store_open(directory, true, &file_ops_system, &file), 0);
    fault = fault_store_wrap(file, NULL);
    store = retry_store_wrap(fault, policy, &world_environment);
}

static void
close_stack(void)
{
    remote_store_close(store);
    unit_directory_remove(directory);
}

static void
fail_next(enum store_verb verb, int error, uint64_t times)
{
    const struct store_fault f = {
        .verb = verb, .kind = STORE_FAULT_FAIL, .error = error, .times = times};
    fault_store_clear(fault);
    fault_store_add(fault, &f);
}

static int
put_text(
    const char *key, const char *text, enum remote_put_mode mode, const struct remote_call *call)
{
    struct remote_source source = {.data = text, .fd = -1, .length = strlen(text)};
    sha256_of(text, strlen(text), &source.hash);
    return remote_store_put_blob(store, key, &source, mode, call);
}

static void
check_content(const char *key, const char *text)
{
    BUFFER_AUTO out = {0};
    ck_assert_int_eq(remote_store_get_blob(store, key, 0, UINT64_MAX, &out, NULL), 0);
    ck_assert_str_eq(buffer_string(&out), text);
}

// ---- retrying -----------------------------------------------------------------------------------

START_TEST(waits_grow_to_a_cap_with_full_jitter)
{
    static const uint64_t limits[] = {100, 200, 400, 800, 1000, 1000};
    const struct retry_policy policy = {.base_ms = 100, .cap_ms = 1000, .total_ms = 1u << 30};
    open_stack(&policy);
    static const uint64_t randoms[] = {0, 50, 1000003, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_LENGTH(randoms); i++) {
        world.random = randoms[i];
        world.wait_count = 0;
        fail_next(STORE_VERB_PUT, -EAGAIN, ARRAY_LENGTH(limits));
        ck_assert_int_eq(put_text("k", "x", REMOTE_PUT_OVERWRITE, NULL), 0);
        ck_assert_uint_eq(world.wait_count, ARRAY_LENGTH(limits));
        for (size_t j = 0; j < ARRAY_LENGTH(limits); j++)
            ck_assert_uint_eq(world.waits[j], randoms[i] % (limits[j] + 1));
    }
    ck_assert_uint_eq(store->counters.retries, ARRAY_LENGTH(randoms) * ARRAY_LENGTH(limits));
    ck_assert_uint_eq(store->counters.errors, ARRAY_LENGTH(randoms) * ARRAY_LENGTH(limits));
    ck_assert_uint_eq(store->counters.put_requests, ARRAY_LENGTH(randoms));
    close_stack();
}
END_TEST

START_TEST(throttling_waits_longer)
{
    static const uint64_t limits[] = {1000, 2000, 4000, 5000, 5000};
    const struct retry_policy policy = {
        .throttled_base_ms = 1000, .throttled_cap_ms = 5000, .total_ms = 1u << 30};
    open_stack(&policy);
    world.random = 123456789;
    fail_next(STORE_VERB_LIST, -EBUSY, ARRAY_LENGTH(limits));
    struct remote_listing listing;
    ck_assert_int_eq(remote_store_list_blobs(store, "", NULL, 5, &listing, NULL), 0);
    for (size_t j = 0; j < ARRAY_LENGTH(limits); j++)
        ck_assert_uint_eq(world.waits[j], world.random % (limits[j] + 1));
    ck_assert_uint_eq(store->counters.throttled, ARRAY_LENGTH(limits));
    close_stack();
}
END_TEST

START_TEST(a_series_ends_at_its_deadline_as_one_error)
{
    open_stack(NULL);
    world.random = 99;
    fault_store_set_outage(fault, true);
    const struct remote_call call = {.deadline_ms = world.now_ms + 5000};
    BUFFER_AUTO out = {0};
    ck_assert_int_eq(remote_store_get_blob(store, "k", 0, 1, &out, &call), -ETIMEDOUT);
    ck_assert_uint_le(world.now_ms, call.deadline_ms);
    ck_assert_uint_gt(world.now_ms, call.deadline_ms - 1000);
    ck_assert_ptr_nonnull(strstr(remote_store_error(), "get k"));
    ck_assert_ptr_nonnull(strstr(remote_store_error(), "gave up after"));
    // Without a deadline there is a standard one.
    uint64_t begin = world.now_ms;
    world.wait_count = 0;
    world.random = 4200; // keeps the number of tries below what the world counts
    ck_assert_int_eq(remote_store_probe(store, NULL), -ETIMEDOUT);
    ck_assert_uint_gt(world.now_ms - begin, 100000);
    ck_assert_uint_le(world.now_ms - begin, 120000);
    close_stack();
}
END_TEST

START_TEST(cancellation_ends_a_wait)
{
    const struct retry_policy policy = {.base_ms = 10000};
    open_stack(&policy);
    world.random = 9000;
    world.cancel_at_ms = world.now_ms + 1000;
    fault_store_set_outage(fault, true);
    const struct remote_call call = {.is_canceled = is_canceled};
    struct remote_head head;
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, &call), -ECANCELED);
    ck_assert_uint_le(world.now_ms, world.cancel_at_ms + 50);
    close_stack();
}
END_TEST

START_TEST(what_cannot_get_better_is_not_retried)
{
    static const int errors[] = {-EACCES, -ENXIO, -EIO, -ENOSPC, -EOPNOTSUPP, -ENOENT, -ECANCELED};
    open_stack(NULL);
    BUFFER_AUTO out = {0};
    for (size_t i = 0; i < ARRAY_LENGTH(errors); i++) {
        uint64_t before = fault_store_calls(fault, STORE_VERB_GET);
        fail_next(STORE_VERB_GET, errors[i], 0);
        ck_assert_int_eq(remote_store_get_blob(store, "k", 0, 1, &out, NULL), errors[i]);
        ck_assert_uint_eq(fault_store_calls(fault, STORE_VERB_GET), before + 1);
    }
    // A spoiled transfer may have been bad luck; bytes that differ from their hash are not.
    fail_next(STORE_VERB_GET, -EBADMSG, 0);
    uint64_t before = fault_store_calls(fault, STORE_VERB_GET);
    ck_assert_int_eq(remote_store_get_blob(store, "k", 0, 1, &out, NULL), -EBADMSG);
    ck_assert_uint_eq(fault_store_calls(fault, STORE_VERB_GET), before + 3);
    fail_next(STORE_VERB_PUT, -EBADMSG, 0);
    ck_assert_int_eq(put_text("k", "x", REMOTE_PUT_OVERWRITE, NULL), -EBADMSG);
    ck_assert_uint_eq(fault_store_calls(fault, STORE_VERB_PUT), 1);
    close_stack();
}
END_TEST

START_TEST(what_no_retry_can_mend_ends_a_call_that_has_no_time)
{
    open_stack(NULL);
    BUFFER_AUTO out = {0};
    const struct remote_call hasty = {.fail_fast = true};
    ck_assert_int_eq(put_text("k", "x", REMOTE_PUT_CREATE, NULL), 0);
    fail_next(STORE_VERB_GET, -EPROTO, 0);
    ck_assert_int_eq(remote_store_get_blob(store, "k", 0, 1, &out, &hasty), -EPROTO);
    ck_assert_uint_eq(fault_store_calls(fault, STORE_VERB_GET), 1);
    // Who has something to go on with waits for somebody to put it right.
    fail_next(STORE_VERB_GET, -EPROTO, 3);
    ck_assert_int_eq(remote_store_get_blob(store, "k", 0, 1, &out, NULL), 0);
    ck_assert_uint_eq(fault_store_calls(fault, STORE_VERB_GET), 5);
    fail_next(STORE_VERB_GET, -EAGAIN, 1);
    ck_assert_int_eq(remote_store_get_blob(store, "k", 0, 1, &out, &hasty), 0);
    close_stack();
}
END_TEST

START_TEST(failures_are_told_while_they_last_and_the_cause_first)
{
    open_stack(NULL);
    world.random = 4200;
    struct remote_trouble trouble;
    remote_store_trouble(store, &trouble);
    ck_assert_uint_eq(trouble.tries, 0);
    fail_next(STORE_VERB_PUT, -EAGAIN, 0);
    const struct remote_call call = {.deadline_ms = world.now_ms + 5000};
    ck_assert_int_eq(put_text("long/key", "x", REMOTE_PUT_OVERWRITE, &call), -ETIMEDOUT);
    const char *text = remote_store_error();
    ck_assert_msg(strncmp(text, "injected fault: ", 16) == 0, "%s", text);
    ck_assert_msg(strstr(text, "(put long/key; gave up after ") != NULL, "%s", text);
    remote_store_trouble(store, &trouble);
    ck_assert_uint_eq(trouble.tries, fault_store_calls(fault, STORE_VERB_PUT));
    ck_assert_uint_gt(trouble.tries, 1);
    ck_assert_uint_lt(trouble.age_ms, 5000);
    ck_assert_msg(strncmp(trouble.text, "injected fault: ", 16) == 0, "%s", trouble.text);
    ck_assert_msg(strstr(trouble.text, " (put long/key)") != NULL, "%s", trouble.text);
    fault_store_clear(fault);
    struct remote_head head;
    // That there is no such object is an answer.
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, NULL), -ENOENT);
    world.now_ms += 1000;
    remote_store_trouble(store, &trouble);
    ck_assert_uint_eq(trouble.tries, 0);
    ck_assert_uint_ge(trouble.age_ms, 1000); // the last failure is still told
    ck_assert_msg(strncmp(trouble.text, "injected fault: ", 16) == 0, "%s", trouble.text);
    close_stack();
}
END_TEST

// ---- conditional create -------------------------------------------------------------------------

START_TEST(create_whose_answer_was_lost_succeeds_when_it_is_ours)
{
    open_stack(NULL);
    const struct store_fault swallow = {
        .verb = STORE_VERB_PUT, .kind = STORE_FAULT_SWALLOW, .times = 1};
    fault_store_add(fault, &swallow);
    ck_assert_int_eq(put_text("k", "ours", REMOTE_PUT_CREATE, NULL), 0);
    check_content("k", "ours");
    // Without an ambiguous try the same content is no reason to say yes.
    fault_store_clear(fault);
    ck_assert_int_eq(put_text("k", "ours", REMOTE_PUT_CREATE, NULL), -EEXIST);
    ck_assert_uint_eq(fault_store_calls(fault, STORE_VERB_HEAD), 1);
    close_stack();
}
END_TEST

START_TEST(create_that_lost_to_another_host_says_so)
{
    open_stack(NULL);
    ck_assert_int_eq(put_text("k", "theirs", REMOTE_PUT_CREATE, NULL), 0);
    static const char *const ours[] = {"mine!!", "longer than theirs", ""};
    for (size_t i = 0; i < ARRAY_LENGTH(ours); i++) {
        fail_next(STORE_VERB_PUT, -EAGAIN, 2);
        ck_assert_int_eq(put_text("k", ours[i], REMOTE_PUT_CREATE, NULL), -EEXIST);
        check_content("k", "theirs");
    }
    close_stack();
}
END_TEST

START_TEST(comparison_after_a_lost_answer_is_retried_too)
{
    open_stack(NULL);
    world.random = 1;
    const struct store_fault faults[] = {
        {.verb = STORE_VERB_PUT, .kind = STORE_FAULT_SWALLOW, .times = 1},
        {.verb = STORE_VERB_HEAD, .kind = STORE_FAULT_FAIL, .error = -EBUSY, .times = 1},
        {.verb = STORE_VERB_HEAD, .kind = STORE_FAULT_FAIL, .nth = 2, .error = -ENOENT, .times = 1},
        {.verb = STORE_VERB_GET, .kind = STORE_FAULT_FAIL, .error = -EAGAIN, .times = 1},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(faults); i++)
        fault_store_add(fault, &faults[i]);
    ck_assert_int_eq(put_text("k", "ours", REMOTE_PUT_CREATE, NULL), 0);
    ck_assert_uint_eq(fault_store_calls(fault, STORE_VERB_HEAD), 4);
    fail_next(STORE_VERB_GET, -EACCES, 0);
    fault_store_add(fault, &faults[0]);
    ck_assert_int_eq(put_text("l", "ours", REMOTE_PUT_CREATE, NULL), -EACCES);
    close_stack();
}
END_TEST

// ---- faults -------------------------------------------------------------------------------------

START_TEST(faults_hit_the_calls_they_name)
{
    open_stack(NULL);
    const struct store_fault by_key = {.verb = STORE_VERB_PUT,
        .kind = STORE_FAULT_FAIL,
        .key_prefix = "a/",
        .nth = 2,
        .times = 1,
        .error = -ENOSPC};
    fault_store_add(fault, &by_key);
    ck_assert_int_eq(put_text("a/1", "x", REMOTE_PUT_CREATE, NULL), 0);
    ck_assert_int_eq(put_text("b/1", "x", REMOTE_PUT_CREATE, NULL), 0);
    ck_assert_int_eq(put_text("a/2", "x", REMOTE_PUT_CREATE, NULL), -ENOSPC);
    ck_assert_int_eq(put_text("a/3", "x", REMOTE_PUT_CREATE, NULL), 0);
    fault_store_clear(fault);
    const struct store_fault corrupt = {.verb = STORE_VERB_ANY, .kind = STORE_FAULT_CORRUPT};
    fault_store_add(fault, &corrupt);
    check_content("a/1", "y"); // what is read is spoiled
    ck_assert_int_eq(put_text("c", "x", REMOTE_PUT_CREATE, NULL), 0);
    fault_store_clear(fault);
    check_content("c", "y"); // what was stored is spoiled
    check_content("a/1", "x");
    ck_assert_uint_eq(fault_store_calls(fault, STORE_VERB_PUT), 5);
    const char *keys[] = {"a/1", "b/1"};
    const struct store_fault swallow = {
        .verb = STORE_VERB_DELETE, .kind = STORE_FAULT_SWALLOW, .times = 1};
    fault_store_add(fault, &swallow);
    ck_assert_int_eq(remote_store_delete_blobs(fault, keys, 2, NULL), -EAGAIN);
    struct remote_head head;
    ck_assert_int_eq(remote_store_head_blob(store, "a/1", &head, NULL), -ENOENT);
    close_stack();
}
END_TEST

static void
write_script(const char *path, const char *text)
{
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, text, strlen(text), 0600), 0);
}

START_TEST(script_turns_an_outage_on_and_off)
{
    directory = unit_directory_new();
    char *script = memory_printf("%s/faults", directory);
    char *place = memory_printf("file://%s/tenant", directory);
    struct store_url url;
    ck_assert_int_eq(store_url_parse(place, &url), 0);
    unit_set_fault_hook("CKPTFS_STORE_FAULTS", script);
    ck_assert_int_eq(remote_store_open(&url, NULL, true, &store), 0);
    ck_assert_int_eq(put_text("k", "x", REMOTE_PUT_CREATE, NULL), 0);
    write_script(script, "outage\n");
    const struct remote_call call = {.deadline_ms = clock_monotonic_ms() + 1};
    struct remote_head head;
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, &call), -ETIMEDOUT);
    ck_assert_ptr_nonnull(strstr(remote_store_error(), "outage"));
    write_script(script, "slow 100000\n");
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, &call), -ETIMEDOUT);
    write_script(script, "");
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, NULL), 0);
    uint64_t begin = clock_monotonic_ms();
    write_script(script, "slow 30\n");
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, NULL), 0);
    ck_assert_uint_ge(clock_monotonic_ms() - begin, 30);
    ck_assert_int_eq(remove(script), 0);
    ck_assert_int_eq(remote_store_head_blob(store, "k", &head, NULL), 0);
    store_url_free(&url);
    free(script);
    free(place);
    close_stack();
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("store_retry");
#define ADD(test) unit_add(s, #test, test, 20)
    ADD(waits_grow_to_a_cap_with_full_jitter);
    ADD(throttling_waits_longer);
    ADD(a_series_ends_at_its_deadline_as_one_error);
    ADD(cancellation_ends_a_wait);
    ADD(what_cannot_get_better_is_not_retried);
    ADD(what_no_retry_can_mend_ends_a_call_that_has_no_time);
    ADD(failures_are_told_while_they_last_and_the_cause_first);
    ADD(create_whose_answer_was_lost_succeeds_when_it_is_ours);
    ADD(create_that_lost_to_another_host_says_so);
    ADD(comparison_after_a_lost_answer_is_retried_too);
    ADD(faults_hit_the_calls_they_name);
    ADD(script_turns_an_outage_on_and_off);
    return unit_run(s);
}
