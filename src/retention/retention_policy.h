// SPDX-License-Identifier: Apache-2.0
// Choosing the generations that a policy keeps, and policies as text. Pure.
#ifndef CKPTFS_RETENTION_RETENTION_POLICY_H
#define CKPTFS_RETENTION_RETENTION_POLICY_H

#include <stddef.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "format/records.h"

// The policy of new volumes.
extern const struct retention_policy retention_default;

// `all`, `default`, or items with commas between them, each at most once:
//
//     last=N  within=TIME  hourly=N  daily=N  weekly=N  monthly=N  grace=TIME
//
// TIME is a number with s, m, h, d or w behind it. Items that the text does not name are 0, but the
// grace, which is that of the default. 0, or -EINVAL with a sentence in `problem_out`.
MUST_CHECK int retention_parse(
    const char *text, struct retention_policy *policy_out, struct buffer *problem_out);
// The same text again: parsing it gives the policy.
void retention_format(const struct retention_policy *policy, struct buffer *out);
// Why a generation is kept: bits.
enum retention_reason {
    RETENTION_HEAD = 1 << 0, // the newest
    RETENTION_LAST = 1 << 1,
    RETENTION_WITHIN = 1 << 2,
    RETENTION_HOURLY = 1 << 3,
    RETENTION_DAILY = 1 << 4,
    RETENTION_WEEKLY = 1 << 5,
    RETENTION_MONTHLY = 1 << 6,
    RETENTION_ALL = 1 << 7,
    RETENTION_PINNED = 1 << 8, // not set here: callers that know the pins do
};

// Sets the reasons for each of `count` generations, which are in order; 0: the policy does not keep
// it. An expired one has none, and does not count for the other reasons. Ages count from the newest
// generation's time, or from `now_ms` when that is earlier, so that neither a clock that is ahead
// nor a volume that sleeps expires anything. Hours, days, weeks (from Monday on) and months are
// those of UTC; of each the newest generation stays.
void retention_choose(const struct retention_policy *policy,
    const struct generation_record *generations, size_t count, uint64_t now_ms,
    unsigned *reasons_out);
// The reasons as words with commas between them.
void retention_format_reasons(unsigned reasons, struct buffer *out);

#endif
