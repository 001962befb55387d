// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include <string.h>
#include <unistd.h>

#include "volume/volume_config.h"

// Takes the option; the result, and the error text in `text` (may be NULL).
static int
set(struct volume_config *c, const char *option, char text[256])
{
    BUFFER_AUTO error = {0};
    int rc = volume_config_set(c, option, &error);
    ck_assert_msg(
        (rc == -EINVAL) == (error.length > 0), "%s: %d, %s", option, rc, buffer_string(&error));
    if (text)
        snprintf(text, 256, "%s", buffer_string(&error));
    return rc;
}

START_TEST(defaults_are_those_of_the_manual)
{
    struct volume_config c;
    volume_config_init(&c);
    ck_assert_uint_eq(c.checkpoint_interval_ms, 60000);
    ck_assert_uint_eq(c.wal_limit_bytes, UINT64_C(1) << 30);
    ck_assert_uint_eq(c.page_cache_bytes, UINT64_C(64) << 20);
    ck_assert_uint_eq(c.upload_threads, 4);
    ck_assert_uint_eq(c.read_limit_bytes + c.read_requests + c.upload_limit_bytes, 0);
    ck_assert_uint_eq(c.lease_ttl_ms, 60000);
    ck_assert_uint_eq(c.read_deadline_ms, 30000);
    ck_assert_uint_eq(c.unmount_timeout_ms, 60000);
    ck_assert_uint_eq(c.fuse_threads, 16);
    ck_assert_ptr_null(c.at);
    ck_assert(c.writeback);
    ck_assert(!c.read_only && !c.create && !c.takeover && !c.discard_unpublished);
    ck_assert(!c.unsafe_store && !c.virtual_host);
    ck_assert_str_eq(c.log_level, "info");
    ck_assert(!c.source && !c.endpoint && !c.region && !c.profile && !c.ca_file && !c.log_file);
    volume_config_free(&c);
}
END_TEST

START_TEST(the_root_depends_on_who_asks)
{
    struct volume_config c;
    setenv("XDG_STATE_HOME", "/state", 1);
    volume_config_init(&c);
    ck_assert_str_eq(c.root, geteuid() == 0 ? "/var/lib/ckptfs" : "/state/ckptfs");
    volume_config_free(&c);
    unsetenv("XDG_STATE_HOME");
    setenv("HOME", "/home/somebody", 1);
    volume_config_init(&c);
    ck_assert_str_eq(
        c.root, geteuid() == 0 ? "/var/lib/ckptfs" : "/home/somebody/.local/state/ckptfs");
    volume_config_free(&c);
}
END_TEST

START_TEST(every_unit_means_what_it_says)
{
    struct volume_config c;
    volume_config_init(&c);
    ck_assert_int_eq(set(&c, "wal_limit=16777216", NULL), 0);
    ck_assert_uint_eq(c.wal_limit_bytes, UINT64_C(16) << 20);
    ck_assert_int_eq(set(&c, "wal_limit=32768K", NULL), 0);
    ck_assert_uint_eq(c.wal_limit_bytes, UINT64_C(32) << 20);
    ck_assert_int_eq(set(&c, "wal_limit=64M", NULL), 0);
    ck_assert_uint_eq(c.wal_limit_bytes, UINT64_C(64) << 20);
    ck_assert_int_eq(set(&c, "wal_limit=1T", NULL), 0);
    ck_assert_uint_eq(c.wal_limit_bytes, UINT64_C(1) << 40);
    ck_assert_int_eq(set(&c, "checkpoint_interval=5", NULL), 0);
    ck_assert_uint_eq(c.checkpoint_interval_ms, 5000);
    ck_assert_int_eq(set(&c, "checkpoint_interval=250ms", NULL), 0);
    ck_assert_uint_eq(c.checkpoint_interval_ms, 250);
    ck_assert_int_eq(set(&c, "checkpoint_interval=7s", NULL), 0);
    ck_assert_uint_eq(c.checkpoint_interval_ms, 7000);
    ck_assert_int_eq(set(&c, "checkpoint_interval=2m", NULL), 0);
    ck_assert_uint_eq(c.checkpoint_interval_ms, 120000);
    ck_assert_int_eq(set(&c, "checkpoint_interval=1h", NULL), 0);
    ck_assert_uint_eq(c.checkpoint_interval_ms, 3600000);
    ck_assert_int_eq(set(&c, "checkpoint_interval=0", NULL), 0);
    ck_assert_uint_eq(c.checkpoint_interval_ms, 0);
    ck_assert_int_eq(set(&c, "upload_threads=9", NULL), 0);
    ck_assert_uint_eq(c.upload_threads, 9);
    volume_config_free(&c);
}
END_TEST

START_TEST(bad_values_are_refused_and_change_nothing)
{
    static const char *const bad[] = {"wal_limit=", "wal_limit", "wal_limit=abc", "wal_limit=-1",
        "wal_limit=1X", "wal_limit=1 G", "wal_limit=1GG", "wal_limit=15M", "wal_limit=2T",
        "wal_limit=99999999999999999999", "wal_limit=18446744073709551615T", "wal_limit=+64M",
        "wal_limit= 64M", "wal_limit=0x4000000", "page_cache=1K", "upload_threads=0",
        "upload_threads=65", "upload_threads=4K", "upload_threads=4s", "lease_ttl=2999ms",
        "lease_ttl=1M", "read_deadline=0", "at=0", "at=", "at", "fuse_threads=0", "log_level=loud",
        "log_level=", "log_level", "root", "root=", "create=yes", "create=", "no_create=on",
        "ro=maybe"};
    struct volume_config c;
    volume_config_init(&c);
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        char text[256];
        ck_assert_msg(set(&c, bad[i], text) == -EINVAL, "%s", bad[i]);
        // The text names the option.
        size_t length = strcspn(bad[i], "=");
        char name[64];
        snprintf(name, sizeof(name), "%.*s", (int)length, bad[i]);
        ck_assert_msg(strstr(text, name) != NULL, "%s: %s", bad[i], text);
    }
    struct volume_config untouched;
    volume_config_init(&untouched);
    ck_assert_uint_eq(c.wal_limit_bytes, untouched.wal_limit_bytes);
    ck_assert_uint_eq(c.upload_threads, untouched.upload_threads);
    ck_assert_uint_eq(c.lease_ttl_ms, untouched.lease_ttl_ms);
    ck_assert_str_eq(c.root, untouched.root);
    ck_assert_str_eq(c.log_level, "info");
    ck_assert(!c.create && !c.read_only);
    volume_config_free(&untouched);
    volume_config_free(&c);
}
END_TEST

START_TEST(unknown_names_are_somebody_elses)
{
    static const char *const unknown[] = {"", "=", "allow_other", "wal_limi=1G", "wal_limits=1G",
        "no_", "no_wal_limit", "no_such", "writebackx", "source=s3://b/t"};
    struct volume_config c;
    volume_config_init(&c);
    for (size_t i = 0; i < ARRAY_LENGTH(unknown); i++)
        ck_assert_msg(set(&c, unknown[i], NULL) == -ENOENT, "%s", unknown[i]);
    volume_config_free(&c);
}
END_TEST

START_TEST(flags_go_on_and_off)
{
    struct volume_config c;
    volume_config_init(&c);
    ck_assert_int_eq(set(&c, "no_writeback", NULL), 0);
    ck_assert(!c.writeback);
    ck_assert_int_eq(set(&c, "writeback", NULL), 0);
    ck_assert(c.writeback);
    ck_assert_int_eq(set(&c, "writeback=off", NULL), 0);
    ck_assert(!c.writeback);
    ck_assert_int_eq(set(&c, "writeback=on", NULL), 0);
    ck_assert(c.writeback);
    volume_config_free(&c);
}
END_TEST

START_TEST(an_old_generation_is_always_read_only)
{
    struct volume_config c;
    volume_config_init(&c);
    ck_assert_int_eq(set(&c, "at=18446744073709551615", NULL), 0);
    ck_assert_str_eq(c.at, "18446744073709551615");
    ck_assert(c.read_only);
    ck_assert_int_eq(set(&c, "no_ro", NULL), 0);
    ck_assert(c.read_only);
    volume_config_free(&c);
}
END_TEST

START_TEST(texts_are_taken_as_they_stand)
{
    struct volume_config c;
    volume_config_init(&c);
    ck_assert_int_eq(set(&c, "root=/a b,c=d\\e", NULL), 0);
    ck_assert_str_eq(c.root, "/a b,c=d\\e");
    ck_assert_int_eq(set(&c, "root=/second", NULL), 0);
    ck_assert_str_eq(c.root, "/second");
    volume_config_free(&c);
    ck_assert_ptr_null(c.root);
}
END_TEST

START_TEST(help_has_one_line_an_option)
{
    BUFFER_AUTO help = {0};
    volume_config_help(&help);
    size_t lines = 0;
    for (size_t i = 0; i < help.length; i++)
        lines += help.data[i] == '\n';
    ck_assert_uint_eq(lines, volume_config_count);
    for (size_t i = 0; i < volume_config_count; i++)
        ck_assert_ptr_nonnull(strstr(buffer_string(&help), volume_config_table[i].name));
    ck_assert_ptr_nonnull(strstr(buffer_string(&help), "(default 64M)"));
}
END_TEST

START_TEST(the_text_says_what_would_be_right)
{
    struct volume_config c;
    char text[256];
    volume_config_init(&c);
    ck_assert_int_eq(set(&c, "wal_limit=1M", text), -EINVAL);
    ck_assert_str_eq(text,
        "option wal_limit: '1M' is not right; give a size such as 512M (units K, M, G, T) from "
        "16M to 1T");
    ck_assert_int_eq(set(&c, "lease_ttl=1", text), -EINVAL);
    ck_assert_str_eq(text,
        "option lease_ttl: '1' is not right; give a time such as 30s (units ms, s, m, h) from 3s "
        "to 1h");
    ck_assert_int_eq(set(&c, "fuse_threads=1000", text), -EINVAL);
    ck_assert_str_eq(text, "option fuse_threads: '1000' is not right; give a number from 1 to 256");
    ck_assert_int_eq(set(&c, "region", text), -EINVAL);
    ck_assert_str_eq(text, "option region needs a value: region=NAME");
    volume_config_free(&c);
}
END_TEST

static int
check(const char *source, const char *options, char text_out[256])
{
    BUFFER_AUTO error = {0};
    struct volume_config c;
    volume_config_init(&c);
    c.source = strdup(source);
    if (*options)
        ck_assert_int_eq(volume_config_set(&c, options, &error), 0);
    int rc = volume_config_check(&c, &error);
    snprintf(text_out, 256, "%s", buffer_string(&error));
    volume_config_free(&c);
    return rc;
}

START_TEST(what_contradicts_itself_is_refused)
{
    char text[256];
    ck_assert_int_eq(check("file:///d/t", "", text), 0);
    ck_assert_int_eq(check("file:///d/t", "ro", text), 0);
    ck_assert_int_eq(check("s3://bucket/t", "takeover", text), 0);
    ck_assert_int_eq(check("ftp://b/t", "", text), -EINVAL);
    ck_assert_ptr_nonnull(strstr(text, "ftp://b/t"));
    static const char *const writes[] = {"create", "takeover", "discard_unpublished"};
    for (size_t i = 0; i < ARRAY_LENGTH(writes); i++) {
        BUFFER_AUTO error = {0};
        struct volume_config c;
        volume_config_init(&c);
        c.source = strdup("file:///d/t");
        ck_assert_int_eq(volume_config_set(&c, "at=3", &error), 0);
        ck_assert_int_eq(volume_config_set(&c, writes[i], &error), 0);
        ck_assert_int_eq(volume_config_check(&c, &error), -EINVAL);
        ck_assert_ptr_nonnull(strstr(buffer_string(&error), writes[i]));
        volume_config_free(&c);
    }
}
END_TEST

START_TEST(a_mistyped_option_finds_the_right_one)
{
    ck_assert_pstr_eq(volume_config_similar("wal_limt=16M"), "wal_limit");
    ck_assert_pstr_eq(volume_config_similar("no_writebak"), "writeback");
    ck_assert_pstr_eq(volume_config_similar("something_else=1"), NULL);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_config");
    unit_add(s, "defaults_are_those_of_the_manual", defaults_are_those_of_the_manual, 10);
    unit_add(s, "the_root_depends_on_who_asks", the_root_depends_on_who_asks, 10);
    unit_add(s, "every_unit_means_what_it_says", every_unit_means_what_it_says, 10);
    unit_add(s, "bad_values_are_refused_and_change_nothing",
        bad_values_are_refused_and_change_nothing, 10);
    unit_add(s, "unknown_names_are_somebody_elses", unknown_names_are_somebody_elses, 10);
    unit_add(s, "flags_go_on_and_off", flags_go_on_and_off, 10);
    unit_add(s, "an_old_generation_is_always_read_only", an_old_generation_is_always_read_only, 10);
    unit_add(s, "texts_are_taken_as_they_stand", texts_are_taken_as_they_stand, 10);
    unit_add(s, "help_has_one_line_an_option", help_has_one_line_an_option, 10);
    unit_add(s, "the_text_says_what_would_be_right", the_text_says_what_would_be_right, 10);
    unit_add(s, "what_contradicts_itself_is_refused", what_contradicts_itself_is_refused, 10);
    unit_add(s, "a_mistyped_option_finds_the_right_one", a_mistyped_option_finds_the_right_one, 10);
    return unit_run(s);
}
