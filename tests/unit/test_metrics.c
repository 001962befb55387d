// SPDX-License-Identifier: Apache-2.0
// The text format of Prometheus: names, heads, values and labels.
#include "unit.h"

#include <string.h>

#include "metrics/metrics_text.h"

// ---- a strict reader of the format --------------------------------------------------------------

static const char *
skip(const char *s, const char *text)
{
    ck_assert_msg(strncmp(s, text, strlen(text)) == 0, "no '%s' at: %.60s", text, s);
    return s + strlen(text);
}

static const char *
skip_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_");
    ck_assert_msg(n > 0 && (*s < '0' || *s > '9'), "no name at: %.60s", s);
    return s + n;
}

// `s` is behind the opening quote.
static const char *
skip_quoted(const char *s)
{
    for (; *s != '"'; s++) {
        ck_assert_msg(*s != '\0' && *s != '\n', "a label has no end");
        if (*s == '\\')
            ck_assert_msg(*++s == '\\' || *s == '"' || *s == 'n', "escape \\%c", *s);
    }
    return s + 1;
}

static const char *
skip_labels(const char *s)
{
    if (*s != '{')
        return s;
    do {
        s = skip_name(s + 1);
        s = skip_quoted(skip(s, "=\""));
    } while (*s == ',');
    return skip(s, "}");
}

// Each family has one head and then its samples. Returns the number of samples.
static size_t
read_exposition(const char *s)
{
    size_t samples = 0;
    while (*s) {
        const char *name = skip(s, "# HELP ");
        size_t n = (size_t)(skip_name(name) - name);
        const char *line = skip(name + n, " ");
        line += strcspn(line, "\n");
        line = skip(skip(line, "\n"), "# TYPE ");
        ck_assert(strncmp(line, name, n) == 0);
        bool counter = strncmp(line + n, " counter\n", 9) == 0;
        s = skip(line + n, counter ? " counter\n" : " gauge\n");
        ck_assert_int_eq(n > 6 && strncmp(name + n - 6, "_total", 6) == 0, counter);
        while (*s && *s != '#') {
            ck_assert_msg(strncmp(s, name, n) == 0, "another family's: %.60s", s);
            s = skip(skip_labels(s + n), " ");
            size_t digits = strspn(s, "0123456789.");
            ck_assert_uint_gt(digits, 0);
            s = skip(s + digits, "\n");
            samples++;
        }
    }
    return samples;
}

// ---- tests --------------------------------------------------------------------------------------

static void
check_name(const char *name, enum metric_kind kind, enum metric_unit unit, const char *expected)
{
    char text[METRICS_TEXT_NAME_BYTES];
    const struct metric_info info = {name, kind, unit, "help"};
    metrics_text_name(&info, text);
    ck_assert_str_eq(text, expected);
}

START_TEST(names_end_in_their_unit_and_counters_in_total)
{
    check_name("inodes", METRIC_KIND_GAUGE, METRIC_UNIT_NUMBER, "ckptfs_inodes");
    check_name("fsyncs", METRIC_KIND_COUNTER, METRIC_UNIT_NUMBER, "ckptfs_fsyncs_total");
    check_name("wal_bytes", METRIC_KIND_GAUGE, METRIC_UNIT_BYTES, "ckptfs_wal_bytes");
    check_name("store_bytes_written", METRIC_KIND_COUNTER, METRIC_UNIT_BYTES,
        "ckptfs_store_written_bytes_total");
    check_name("storage_quota_exhausted_total", METRIC_KIND_COUNTER, METRIC_UNIT_NUMBER,
        "ckptfs_storage_quota_exhausted_total");
    check_name("limit_wait_ms", METRIC_KIND_COUNTER, METRIC_UNIT_AGE_MS,
        "ckptfs_limit_wait_seconds_total");
    check_name(
        "local_time_ms", METRIC_KIND_GAUGE, METRIC_UNIT_TIME_MS, "ckptfs_local_timestamp_seconds");
}
END_TEST

// As promtool's lint wants it.
START_TEST(each_metric_has_a_good_name_of_its_own_and_a_help)
{
    static const char *const bad[] = {"_ms_", "_ms", "_sec_", "_count", "_sum", "_bucket"};
    for (size_t i = 0; i < METRICS_COUNT; i++) {
        char name[METRICS_TEXT_NAME_BYTES];
        const struct metric_info *info = &metrics_table[i];
        ck_assert(metrics_text_name_is_valid(info->name));
        ck_assert_ptr_eq(metrics_find(info->name), info);
        ck_assert_uint_gt(strlen(info->help), 0);
        metrics_text_name(info, name);
        size_t n = strlen(name);
        for (size_t k = 0; k < sizeof(bad) / sizeof(*bad); k++)
            ck_assert_msg(
                n < strlen(bad[k]) || strcmp(name + n - strlen(bad[k]), bad[k]) != 0, "%s", name);
        for (size_t k = 0; k < i; k++) {
            char other[METRICS_TEXT_NAME_BYTES];
            metrics_text_name(&metrics_table[k], other);
            ck_assert_str_ne(name, other);
        }
    }
    ck_assert_ptr_null(metrics_find("nonsense"));
}
END_TEST

START_TEST(the_whole_table_is_an_exposition)
{
    BUFFER_AUTO out = {0};
    const struct metric_label labels[] = {{"tenant", "acme"}, {"volume", "id"}};
    for (size_t i = 0; i < METRICS_COUNT; i++) {
        metrics_text_family(&out, &metrics_table[i]);
        metrics_text_sample(&out, &metrics_table[i], labels, 2, UINT64_MAX - i);
        metrics_text_sample(&out, &metrics_table[i], NULL, 0, i);
    }
    ck_assert_uint_eq(read_exposition(buffer_string(&out)), 2 * METRICS_COUNT);
}
END_TEST

START_TEST(times_are_exact_seconds)
{
    BUFFER_AUTO out = {0};
    const struct metric_info age = {"x_ms", METRIC_KIND_GAUGE, METRIC_UNIT_AGE_MS, "help"};
    metrics_text_sample(&out, &age, NULL, 0, 1005);
    metrics_text_sample(&out, &age, NULL, 0, 1767225600123);
    ck_assert_str_eq(
        buffer_string(&out), "ckptfs_x_seconds 1.005\nckptfs_x_seconds 1767225600.123\n");
}
END_TEST

START_TEST(labels_and_helps_are_escaped)
{
    BUFFER_AUTO out = {0};
    const struct metric_info info = {
        "x", METRIC_KIND_GAUGE, METRIC_UNIT_NUMBER, "a \\ and\na line"};
    const struct metric_label labels[] = {
        {"a", "C:\\x \"y\"\nz"}, {"b", "\xc3\xa9\xff\x1b[2J"}, {"c", ""}};
    metrics_text_family(&out, &info);
    metrics_text_sample(&out, &info, labels, 3, 7);
    ck_assert_str_eq(buffer_string(&out),
        "# HELP ckptfs_x a \\\\ and a line\n# TYPE ckptfs_x gauge\n"
        "ckptfs_x{a=\"C:\\\\x \\\"y\\\"\\nz\",b=\"\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd[2J\",c=\"\"} "
        "7\n");
    ck_assert_uint_eq(read_exposition(buffer_string(&out)), 1);
}
END_TEST

START_TEST(names_of_other_programs_are_checked)
{
    ck_assert(metrics_text_name_is_valid("a_b2"));
    ck_assert(!metrics_text_name_is_valid(""));
    ck_assert(!metrics_text_name_is_valid("2a"));
    ck_assert(!metrics_text_name_is_valid("a b"));
    ck_assert(!metrics_text_name_is_valid("a\n"));
    ck_assert(!metrics_text_name_is_valid("aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd"));
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("metrics");
    unit_add(suite, "names", names_end_in_their_unit_and_counters_in_total, 10);
    unit_add(suite, "table", each_metric_has_a_good_name_of_its_own_and_a_help, 10);
    unit_add(suite, "exposition", the_whole_table_is_an_exposition, 10);
    unit_add(suite, "times", times_are_exact_seconds, 10);
    unit_add(suite, "labels", labels_and_helps_are_escaped, 10);
    unit_add(suite, "foreign names", names_of_other_programs_are_checked, 10);
    return unit_run(suite);
}
