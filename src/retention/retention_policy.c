// SPDX-License-Identifier: Apache-2.0
#include "retention/retention_policy.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#define SECOND_MS ((uint64_t)1000)
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS   (60 * MINUTE_MS)
#define DAY_MS    (24 * HOUR_MS)
#define WEEK_MS   (7 * DAY_MS)

const struct retention_policy retention_default = {
    .last = 1,
    .within_ms = HOUR_MS,
    .hourly = 24,
    .daily = 7,
    .weekly = 4,
    .grace_ms = DAY_MS,
};

// ---- text ---------------------------------------------------------------------------------------

static const struct unit {
    char letter;
    uint64_t ms;
} units[] = {{'w', WEEK_MS}, {'d', DAY_MS}, {'h', HOUR_MS}, {'m', MINUTE_MS}, {'s', SECOND_MS}};

// Digits from `text` up to `end`.
static bool
parse_number(const char *text, const char *end, uint64_t max, uint64_t *out)
{
    uint64_t n = 0;
    if (text == end)
        return false;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return false;
        n = n * 10 + (uint64_t)(*text - '0');
        if (n > max)
            return false;
    }
    *out = n;
    return true;
}

static bool
parse_time(const char *text, const char *end, uint64_t *ms_out)
{
    uint64_t n;
    if (end - text < 2)
        return false;
    for (size_t i = 0; i < ARRAY_LENGTH(units); i++)
        if (units[i].letter == end[-1]) {
            if (!parse_number(text, end - 1, RETENTION_MS_MAX / units[i].ms, &n))
                return false;
            *ms_out = n * units[i].ms;
            return true;
        }
    return false;
}

static void
format_time(uint64_t ms, struct buffer *out)
{
    // The largest unit that says it exactly; parts of a second are left out.
    ms -= ms % SECOND_MS;
    for (size_t i = 0; i < ARRAY_LENGTH(units); i++)
        if (ms % units[i].ms == 0 && (ms > 0 || units[i].letter == 's')) {
            buffer_printf(out, "%" PRIu64 "%c", ms / units[i].ms, units[i].letter);
            return;
        }
}

enum item_kind { ITEM_COUNT, ITEM_TIME };

static const struct item {
    const char *name;
    enum item_kind kind;
    size_t offset;
    unsigned reason;
} items[] = {
    {"last", ITEM_COUNT, offsetof(struct retention_policy, last), RETENTION_LAST},
    {"within", ITEM_TIME, offsetof(struct retention_policy, within_ms), RETENTION_WITHIN},
    {"hourly", ITEM_COUNT, offsetof(struct retention_policy, hourly), RETENTION_HOURLY},
    {"daily", ITEM_COUNT, offsetof(struct retention_policy, daily), RETENTION_DAILY},
    {"weekly", ITEM_COUNT, offsetof(struct retention_policy, weekly), RETENTION_WEEKLY},
    {"monthly", ITEM_COUNT, offsetof(struct retention_policy, monthly), RETENTION_MONTHLY},
    {"grace", ITEM_TIME, offsetof(struct retention_policy, grace_ms), 0},
};

static bool
set_item(
    struct retention_policy *policy, const struct item *item, const char *value, const char *end)
{
    char *field = (char *)policy + item->offset;
    uint64_t n;
    if (item->kind == ITEM_TIME) {
        if (!parse_time(value, end, &n))
            return false;
        memcpy(field, &n, sizeof(n));
        return true;
    }
    if (!parse_number(value, end, RETENTION_COUNT_MAX, &n))
        return false;
    uint32_t count = (uint32_t)n;
    memcpy(field, &count, sizeof(count));
    return true;
}

static uint64_t
get_item(const struct retention_policy *policy, const struct item *item)
{
    const char *field = (const char *)policy + item->offset;
    uint64_t n = 0;
    uint32_t count;
    if (item->kind == ITEM_TIME) {
        memcpy(&n, field, sizeof(n));
        return n;
    }
    memcpy(&count, field, sizeof(count));
    return count;
}

static int
parse_item(const char *text, const char *end, struct retention_policy *policy, unsigned *seen,
    struct buffer *problem)
{
    const char *equals = memchr(text, '=', (size_t)(end - text));
    int length = (int)(end - text);
    for (size_t i = 0; equals && i < ARRAY_LENGTH(items); i++) {
        if (strlen(items[i].name) != (size_t)(equals - text) ||
            memcmp(items[i].name, text, (size_t)(equals - text)) != 0)
            continue;
        if (*seen & 1u << i) {
            buffer_printf(problem, "%s is given twice", items[i].name);
            return -EINVAL;
        }
        *seen |= 1u << i;
        if (set_item(policy, &items[i], equals + 1, end))
            return 0;
        buffer_printf(problem,
            items[i].kind == ITEM_TIME
                ? "%.*s: a time is a number with s, m, h, d or w behind it, at most 100 years"
                : "%.*s: this is no number from 0 to 100000",
            length, text);
        return -EINVAL;
    }
    buffer_printf(problem,
        "\"%.*s\" is no part of a retention policy; those are last=N, within=TIME, hourly=N, "
        "daily=N, weekly=N, monthly=N, grace=TIME, or the words all and default",
        length, text);
    return -EINVAL;
}

int
retention_parse(const char *text, struct retention_policy *policy_out, struct buffer *problem_out)
{
    unsigned seen = 0;
    *policy_out = (struct retention_policy){.grace_ms = retention_default.grace_ms};
    if (strcmp(text, "default") == 0) {
        *policy_out = retention_default;
        return 0;
    }
    if (strcmp(text, "all") == 0) {
        policy_out->keep_all = 1;
        return 0;
    }
    int rc = 0;
    for (const char *end; rc == 0; text = end + 1) {
        end = text + strcspn(text, ",");
        if (strncmp(text, "all", 3) == 0 && end == text + 3)
            policy_out->keep_all = 1;
        else
            rc = parse_item(text, end, policy_out, &seen, problem_out);
        if (*end == 0)
            break;
    }
    return rc;
}

void
retention_format(const struct retention_policy *policy, struct buffer *out)
{
    bool any = policy->keep_all;
    if (any)
        buffer_printf(out, "all");
    for (size_t i = 0; i < ARRAY_LENGTH(items); i++) {
        uint64_t n = get_item(policy, &items[i]);
        // The grace is always written, so that the text is never empty.
        if (n == 0 && items[i].reason != 0)
            continue;
        buffer_printf(out, "%s%s=", any ? "," : "", items[i].name);
        if (items[i].kind == ITEM_TIME)
            format_time(n, out);
        else
            buffer_printf(out, "%" PRIu64, n);
        any = true;
    }
    (void)buffer_string(out);
}

void
retention_format_reasons(unsigned reasons, struct buffer *out)
{
    size_t start = out->length;
    if (reasons & RETENTION_HEAD)
        buffer_printf(out, "newest");
    for (size_t i = 0; i < ARRAY_LENGTH(items); i++)
        if (reasons & items[i].reason)
            buffer_printf(out, "%s%s", out->length > start ? "," : "", items[i].name);
    if (reasons & RETENTION_PINNED)
        buffer_printf(out, "%spinned", out->length > start ? "," : "");
    if (reasons & RETENTION_ALL)
        buffer_printf(out, "%sall", out->length > start ? "," : "");
    (void)buffer_string(out);
}

// ---- choosing -----------------------------------------------------------------------------------

static uint64_t
hour_of(uint64_t ms)
{
    return ms / HOUR_MS;
}

static uint64_t
day_of(uint64_t ms)
{
    return ms / DAY_MS;
}

// 1970 began on a Thursday.
static uint64_t
week_of(uint64_t ms)
{
    return (ms / DAY_MS + 3) / 7;
}

static uint64_t
month_of(uint64_t ms)
{
    time_t seconds = (time_t)(ms / SECOND_MS);
    struct tm tm;
    if (!gmtime_r(&seconds, &tm))
        return ms / (31 * DAY_MS);
    return (uint64_t)(tm.tm_year + 1900) * 12 + (uint64_t)tm.tm_mon;
}

// Of each of the newest `wanted` periods, the newest generation.
static void
choose_periods(uint32_t wanted, uint64_t (*period_of)(uint64_t ms), unsigned reason,
    const struct generation_record *generations, size_t count, unsigned *reasons)
{
    uint64_t last = UINT64_MAX;
    for (size_t i = count; wanted > 0 && i-- > 0;) {
        if (generations[i].state == GENERATION_EXPIRED)
            continue;
        uint64_t period = period_of(generations[i].created_ms);
        if (period == last)
            continue;
        last = period;
        reasons[i] |= reason;
        wanted--;
    }
}

void
retention_choose(const struct retention_policy *policy, const struct generation_record *generations,
    size_t count, uint64_t now_ms, unsigned *reasons_out)
{
    uint64_t from_ms = now_ms;
    uint32_t newer = 0; // of those that are retained
    memset(reasons_out, 0, count * sizeof(*reasons_out));
    for (size_t i = count; i-- > 0;) {
        uint64_t created_ms = generations[i].created_ms;
        if (generations[i].state == GENERATION_EXPIRED)
            continue;
        if (newer == 0) {
            reasons_out[i] |= RETENTION_HEAD;
            from_ms = created_ms < now_ms ? created_ms : now_ms;
        }
        if (policy->keep_all)
            reasons_out[i] |= RETENTION_ALL;
        if (newer < policy->last)
            reasons_out[i] |= RETENTION_LAST;
        if (policy->within_ms > 0 &&
            (created_ms >= from_ms || from_ms - created_ms <= policy->within_ms))
            reasons_out[i] |= RETENTION_WITHIN;
        newer += newer < UINT32_MAX;
    }
    choose_periods(policy->hourly, hour_of, RETENTION_HOURLY, generations, count, reasons_out);
    choose_periods(policy->daily, day_of, RETENTION_DAILY, generations, count, reasons_out);
    choose_periods(policy->weekly, week_of, RETENTION_WEEKLY, generations, count, reasons_out);
    choose_periods(policy->monthly, month_of, RETENTION_MONTHLY, generations, count, reasons_out);
}
