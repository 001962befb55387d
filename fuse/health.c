// SPDX-License-Identifier: Apache-2.0
#include "fuse/health.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/json_writer.h"
#include "base/printable.h"
#include "fuse/ckptctl.h"

static const struct {
    const char *name;
    int exit_status;
} problems[HEALTH_PROBLEMS] = {
    [HEALTH_DAMAGED] = {"damaged", EXIT_STATUS_DAMAGED},
    [HEALTH_FENCED] = {"fenced", EXIT_STATUS_FENCED},
    [HEALTH_READ_ONLY] = {"read-only", EXIT_STATUS_READ_ONLY},
    [HEALTH_UNCLAIMED] = {"unclaimed", EXIT_STATUS_UNCLAIMED},
    [HEALTH_STALE] = {"stale", EXIT_STATUS_STALE},
};

// ---- judging ------------------------------------------------------------------------------------

static bool
is_damaged(const struct health_input *in)
{
    return in->store_damaged || in->lost_bytes > 0 || in->manifest_damaged > 0 ||
           in->manifest_violations > 0;
}

unsigned
health_judge(const struct health_input *in)
{
    unsigned found = 0;
    if (is_damaged(in))
        found |= 1u << HEALTH_DAMAGED;
    if (in->fenced)
        found |= 1u << HEALTH_FENCED;
    else if (in->read_only && in->read_only_reason[0])
        found |= 1u << HEALTH_READ_ONLY;
    else if (!in->read_only && !in->claimed)
        found |= 1u << HEALTH_UNCLAIMED;
    if (in->oldest_unpublished_ms > in->max_age_ms)
        found |= 1u << HEALTH_STALE;
    return found;
}

const char *
health_name(enum health_problem problem)
{
    return problems[problem].name;
}

int
health_exit_status(unsigned found)
{
    for (unsigned i = 0; i < HEALTH_PROBLEMS; i++)
        if (found & (1u << i))
            return problems[i].exit_status;
    return EXIT_SUCCESS;
}

// ---- words --------------------------------------------------------------------------------------

static void
explain_damage(const struct health_input *in, struct buffer *out)
{
    char size[32];
    const char *comma = "";
    if (in->store_damaged) {
        buffer_append_string(out, "the store has lost or changed published objects");
        comma = ", ";
    }
    if (in->lost_bytes > 0) {
        print_size(in->lost_bytes, size);
        buffer_printf(out, "%s%s of files cannot be read any more", comma, size);
        comma = ", ";
    }
    if (in->manifest_damaged > 0 || in->manifest_violations > 0)
        buffer_printf(out,
            "%sthe manifest has %" PRIu64 " damaged entries and %" PRIu64 " contradictions", comma,
            in->manifest_damaged, in->manifest_violations);
}

static void
explain_store(const struct health_input *in, struct buffer *out)
{
    if (in->store_failing > 0) {
        buffer_append_string(out, "; the store: ");
        print_retries(out, in->store_failing, in->last_error);
    } else if (in->last_error[0]) {
        buffer_append_string(out, "; last error: ");
        buffer_append_printable(out, in->last_error);
    }
}

void
health_explain(const struct health_input *in, enum health_problem problem, struct buffer *out)
{
    char age[32];
    char limit[32];
    switch (problem) {
    case HEALTH_DAMAGED:
        explain_damage(in, out);
        break;
    case HEALTH_FENCED:
    case HEALTH_READ_ONLY:
        buffer_append_printable(out,
            in->read_only_reason[0] ? in->read_only_reason : "another host took the volume over");
        break;
    case HEALTH_UNCLAIMED:
        buffer_append_string(out, "this mount does not hold the volume in the store yet, and "
                                  "another host may take it");
        explain_store(in, out);
        break;
    case HEALTH_STALE:
        print_age(in->oldest_unpublished_ms, age);
        print_age(in->max_age_ms, limit);
        buffer_printf(out,
            "the oldest change that is not in the store is %s old, and %s is the limit", age,
            limit);
        explain_store(in, out);
        break;
    case HEALTH_PROBLEMS:
        break;
    }
}

static void
print_well(const struct health_input *in, struct buffer *out)
{
    char age[32];
    if (in->oldest_unpublished_ms == 0) {
        buffer_printf(
            out, "everything is in the store, up to generation %" PRIu64, in->published_generation);
        return;
    }
    print_age(in->oldest_unpublished_ms, age);
    buffer_printf(out, "the oldest change that is not in the store is %s old", age);
}

static void
print_json(const struct health_input *in, unsigned found, struct buffer *out)
{
    struct json_writer w = {.out = out};
    write_json_begin_object(&w, NULL);
    write_json_bool(&w, "healthy", found == 0);
    write_json_i64(&w, "exit_status", health_exit_status(found));
    write_json_begin_array(&w, "problems");
    for (unsigned i = 0; i < HEALTH_PROBLEMS; i++) {
        BUFFER_AUTO why = {0};
        if (!(found & (1u << i)))
            continue;
        health_explain(in, i, &why);
        write_json_begin_object(&w, NULL);
        write_json_string(&w, "problem", problems[i].name);
        write_json_string(&w, "cause", buffer_string(&why));
        write_json_end_object(&w);
    }
    write_json_end_array(&w);
    write_json_u64(&w, "oldest_unpublished_ms", in->oldest_unpublished_ms);
    write_json_u64(&w, "published_generation", in->published_generation);
    write_json_end_object(&w);
    buffer_append_u8(out, '\n');
}

void
health_print(const struct health_input *in, bool json, struct buffer *out)
{
    unsigned found = health_judge(in);
    const char *between = "";
    if (json) {
        print_json(in, found, out);
        return;
    }
    if (found == 0) {
        buffer_append_string(out, "ok: ");
        print_well(in, out);
    }
    for (unsigned i = 0; i < HEALTH_PROBLEMS; i++) {
        if (!(found & (1u << i)))
            continue;
        buffer_printf(out, "%s%s: ", between, problems[i].name);
        health_explain(in, i, out);
        between = "; ";
    }
    buffer_append_u8(out, '\n');
}
