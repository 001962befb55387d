// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include <string.h>

#include "retention/retention_policy.h"

#define HOUR_MS ((uint64_t)3600 * 1000)
#define DAY_MS  (24 * HOUR_MS)
#define START   ((uint64_t)1767225600000) // 2026-01-01 00:00 UTC, a Thursday

static struct generation_record generations[3000];
static unsigned reasons[3000];

static size_t
each(uint64_t step_ms, size_t count)
{
    for (size_t i = 0; i < count; i++)
        generations[i] = (struct generation_record){
            .generation = {i + 1},
            .sequence = i + 2,
            .created_ms = START + i * step_ms,
            .state = GENERATION_RETAINED,
        };
    return count;
}

static size_t
kept(const char *text, size_t count, uint64_t now_ms)
{
    struct retention_policy policy;
    BUFFER_AUTO problem = {0};
    ck_assert_int_eq(retention_parse(text, &policy, &problem), 0);
    retention_choose(&policy, generations, count, now_ms, reasons);
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        n += reasons[i] != 0;
    return n;
}

START_TEST(policies_keep_what_they_say)
{
    size_t n = each(HOUR_MS / 2, 2000); // two an hour for 41 days
    uint64_t now = START + 1000 * HOUR_MS;
    ck_assert_uint_eq(kept("grace=1h", n, now), 1);
    ck_assert(reasons[n - 1] == RETENTION_HEAD);
    ck_assert_uint_eq(kept("last=7", n, now), 7);
    ck_assert_uint_eq(kept("within=2h", n, now), 5);
    ck_assert_uint_eq(kept("hourly=24", n, now), 24);
    // The newest of the period stays.
    ck_assert(reasons[n - 1] & RETENTION_HOURLY);
    ck_assert(reasons[n - 3] & RETENTION_HOURLY);
    ck_assert_uint_eq(reasons[n - 2], 0);
    ck_assert_uint_eq(kept("daily=7", n, now), 7);
    ck_assert_uint_eq(kept("weekly=4", n, now), 4);
    ck_assert_uint_eq(kept("monthly=12", n, now), 2);
    ck_assert(reasons[31 * 48 - 1] & RETENTION_MONTHLY);
    ck_assert_uint_eq(kept("all", n, now), n);
    ck_assert_uint_eq(kept("last=2,daily=3", n, now), 4);
    ck_assert_uint_eq(kept("last=5000", 3, now), 3);
    ck_assert_uint_eq(kept("last=1", 0, now), 0);
}
END_TEST

START_TEST(what_has_expired_takes_nobodys_place)
{
    size_t n = each(HOUR_MS / 2, 200);
    uint64_t now = START + 100 * HOUR_MS;
    // The newest, and each second one.
    for (size_t i = 1; i < n; i += 2)
        generations[i].state = GENERATION_EXPIRED;
    ck_assert_uint_eq(kept("last=7", n, now), 7);
    ck_assert_uint_eq(reasons[n - 1], 0);
    ck_assert(reasons[n - 2] & RETENTION_HEAD);
    ck_assert_uint_eq(kept("hourly=24", n, now), 24);
    ck_assert_uint_eq(kept("within=2h", n, now), 3);
    ck_assert_uint_eq(kept("all", n, now), n / 2);
}
END_TEST

START_TEST(wrong_clocks_expire_nothing)
{
    size_t n = each(60 * 1000, 61);
    // The deleter's clock is years ahead, or the volume sleeps: ages count from the newest one.
    ck_assert_uint_eq(kept("within=1h", n, START + 10000 * DAY_MS), 61);
    // One generation came from a clock that was years ahead.
    generations[n - 1].created_ms += 10000 * DAY_MS;
    ck_assert_uint_eq(kept("within=1h", n, START + HOUR_MS), 61);
    // Times near the end of the scale do not wrap.
    generations[n - 1].created_ms = UINT64_MAX;
    ck_assert_uint_eq(kept("within=1h", n, START + HOUR_MS), 61);
}
END_TEST

START_TEST(policies_come_back_from_text)
{
    static const char *const texts[] = {"grace=1d", "last=3,grace=1d",
        "within=90m,hourly=24,daily=7,weekly=4,monthly=12,grace=1h", "all,grace=1w", "grace=0s",
        "last=100000,within=36500d,grace=1s"};
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        struct retention_policy policy;
        struct retention_policy again;
        BUFFER_AUTO problem = {0};
        BUFFER_AUTO text = {0};
        ck_assert_int_eq(retention_parse(texts[i], &policy, &problem), 0);
        retention_format(&policy, &text);
        ck_assert_str_eq(buffer_string(&text), texts[i]);
        ck_assert_int_eq(retention_parse(buffer_string(&text), &again, &problem), 0);
        ck_assert_mem_eq(&policy, &again, sizeof(policy));
    }
    struct retention_policy policy;
    BUFFER_AUTO problem = {0};
    BUFFER_AUTO text = {0};
    ck_assert_int_eq(retention_parse("default", &policy, &problem), 0);
    retention_format(&policy, &text);
    ck_assert_str_eq(buffer_string(&text), "last=1,within=1h,hourly=24,daily=7,weekly=4,grace=1d");
}
END_TEST

START_TEST(what_is_no_policy_is_refused_with_a_sentence)
{
    static const char *const texts[] = {"", ",", "last", "last=", "last=x", "last=-1", "last=1,",
        "last=1,last=2", "within=3", "within=h", "within=1y", "within=36601d", "last=100001",
        "monthly=99999999999999999999", "keep=3", "all=1", "last =1", "default,last=1"};
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        struct retention_policy policy;
        BUFFER_AUTO problem = {0};
        ck_assert_msg(retention_parse(texts[i], &policy, &problem) == -EINVAL, "%s", texts[i]);
        ck_assert_uint_gt(problem.length, 0);
    }
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("retention_policy");
#define ADD(name) unit_add(s, #name, name, 60)
    ADD(policies_keep_what_they_say);
    ADD(what_has_expired_takes_nobodys_place);
    ADD(wrong_clocks_expire_nothing);
    ADD(policies_come_back_from_text);
    ADD(what_is_no_policy_is_refused_with_a_sentence);
    return unit_run(s);
}
