// SPDX-License-Identifier: Apache-2.0
// Judges the state of a mounted volume for monitors: ckptctl status --check. Pure.
#ifndef CKPTFS_FUSE_HEALTH_H
#define CKPTFS_FUSE_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"

// The gravest first.
enum health_problem {
    HEALTH_DAMAGED,   // the store, files or the manifest lost something
    HEALTH_FENCED,    // another host took the volume over
    HEALTH_READ_ONLY, // the volume takes no changes, and nobody asked for that
    HEALTH_UNCLAIMED, // another host may take the volume
    HEALTH_STALE,     // a change has waited for the store for too long
    HEALTH_PROBLEMS,
};

struct health_input {
    bool fenced, read_only;
    const char *read_only_reason; // "" when the user asked for it
    bool claimed;
    bool store_damaged;
    uint64_t lost_bytes;
    uint64_t manifest_damaged, manifest_violations; // as of the last look
    uint64_t oldest_unpublished_ms;
    uint64_t max_age_ms; // UINT64_MAX: any age is good
    uint64_t published_generation;
    uint64_t store_failing; // tries in a row
    const char *last_error; // "" when there is none
};

// Which of them there are: bits (1 << HEALTH_*). 0: the volume is well.
unsigned health_judge(const struct health_input *in);
// "damaged", ...
const char *health_name(enum health_problem problem);
// Appends a sentence about one of the problems, without its name and a full stop.
void health_explain(const struct health_input *in, enum health_problem problem, struct buffer *out);
// The exit status of ckptctl: 0, or that of the gravest problem.
int health_exit_status(unsigned problems);
// Appends the whole as a line, or as a JSON object.
void health_print(const struct health_input *in, bool json, struct buffer *out);

#endif
