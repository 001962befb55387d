// SPDX-License-Identifier: Apache-2.0
// What ckptctl status --check says of a volume, and its exit status.
#include "unit.h"

#include <string.h>

#include "fuse/ckptctl.h"
#include "fuse/health.h"

static struct health_input
well(void)
{
    return (struct health_input){.read_only_reason = "",
        .claimed = true,
        .max_age_ms = 60000,
        .published_generation = 7,
        .last_error = ""};
}

static void
check(const struct health_input *in, int exit_status, const char *line)
{
    BUFFER_AUTO out = {0};
    health_print(in, false, &out);
    ck_assert_str_eq(buffer_string(&out), line);
    ck_assert_int_eq(health_exit_status(health_judge(in)), exit_status);
}

START_TEST(a_volume_that_is_well_says_how_far_the_store_is)
{
    struct health_input in = well();
    check(&in, 0, "ok: everything is in the store, up to generation 7\n");
    in.oldest_unpublished_ms = 60000;
    check(&in, 0, "ok: the oldest change that is not in the store is 1m 0s old\n");
    in.oldest_unpublished_ms = 1000000000;
    in.max_age_ms = UINT64_MAX;
    check(&in, 0, "ok: the oldest change that is not in the store is 11d 13h old\n");
}
END_TEST

START_TEST(each_problem_has_its_exit_status_and_its_cause)
{
    struct health_input in = well();
    in.store_damaged = true;
    in.lost_bytes = 4096;
    in.manifest_violations = 1;
    check(&in, 4,
        "damaged: the store has lost or changed published objects, 4.0 KiB of files cannot be read "
        "any more, the manifest has 0 damaged entries and 1 contradictions\n");
    in = well();
    in.fenced = in.read_only = true;
    in.claimed = false;
    in.read_only_reason = "host b took the volume over";
    check(&in, 5, "fenced: host b took the volume over\n");
    in = well();
    in.read_only = true;
    in.claimed = false;
    in.read_only_reason = "the write-ahead log cannot be written: I/O error";
    check(&in, 6, "read-only: the write-ahead log cannot be written: I/O error\n");
    in = well();
    in.claimed = false;
    check(&in, 7,
        "unclaimed: this mount does not hold the volume in the store yet, and another host may "
        "take "
        "it\n");
    in = well();
    in.oldest_unpublished_ms = 60001;
    in.store_failing = 3;
    in.last_error = "connection refused\n(put x)";
    check(&in, 8,
        "stale: the oldest change that is not in the store is 1m 0s old, and 1m 0s is the limit; "
        "the "
        "store: retrying, 3 errors, last: connection refused\\x0a(put x)\n");
}
END_TEST

START_TEST(a_mount_that_was_asked_to_be_read_only_is_well)
{
    struct health_input in = well();
    in.read_only = true;
    in.claimed = false;
    check(&in, 0, "ok: everything is in the store, up to generation 7\n");
}
END_TEST

START_TEST(of_several_problems_the_gravest_gives_the_exit_status)
{
    struct health_input in = well();
    BUFFER_AUTO out = {0};
    in.claimed = false;
    in.oldest_unpublished_ms = 90000;
    check(&in, 7,
        "unclaimed: this mount does not hold the volume in the store yet, and another host may "
        "take "
        "it; stale: the oldest change that is not in the store is 1m 30s old, and 1m 0s is the "
        "limit\n");
    in.lost_bytes = 1;
    ck_assert_int_eq(health_exit_status(health_judge(&in)), 4);
    health_print(&in, true, &out);
    const char *text = buffer_string(&out);
    ck_assert_ptr_nonnull(strstr(text, "\"healthy\":false,\"exit_status\":4,\"problems\":["
                                       "{\"problem\":\"damaged\","));
    ck_assert_ptr_nonnull(strstr(text, "{\"problem\":\"stale\","));
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("health");
    unit_add(suite, "well", a_volume_that_is_well_says_how_far_the_store_is, 10);
    unit_add(suite, "problems", each_problem_has_its_exit_status_and_its_cause, 10);
    unit_add(suite, "read-only", a_mount_that_was_asked_to_be_read_only_is_well, 10);
    unit_add(suite, "several", of_several_problems_the_gravest_gives_the_exit_status, 10);
    return unit_run(suite);
}
