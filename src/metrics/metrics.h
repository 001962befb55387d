// SPDX-License-Identifier: Apache-2.0
// The numbers of a volume, as metrics.def lists them: a struct with one uint64_t each, and the
// table that describes them. Pure; the code that fills a struct metrics takes its own locks.
#ifndef CKPTFS_METRICS_METRICS_H
#define CKPTFS_METRICS_METRICS_H

#include <stddef.h>
#include <stdint.h>

enum metric_kind { METRIC_KIND_GAUGE = 1, METRIC_KIND_COUNTER = 2 };

enum metric_unit {
    METRIC_UNIT_NUMBER = 1,
    METRIC_UNIT_BYTES = 2,
    METRIC_UNIT_FLAG = 3,    // 0 or 1
    METRIC_UNIT_AGE_MS = 4,  // a duration in milliseconds
    METRIC_UNIT_TIME_MS = 5, // milliseconds since 1970
};

struct metrics {
#define METRIC(name, kind, unit, where, help) uint64_t name;
#include "metrics/metrics.def"
#undef METRIC
};

#define METRICS_COUNT   (sizeof(struct metrics) / sizeof(uint64_t))
#define METRIC_NAME_MAX 39u // characters

struct metric_info {
    const char *name;
    enum metric_kind kind;
    enum metric_unit unit;
    const char *help;
};

// In the order of struct metrics; METRICS_COUNT entries.
extern const struct metric_info metrics_table[];

// The value of entry `i` of the table.
uint64_t metrics_value(const struct metrics *m, size_t i);
// The entry with this name, or NULL.
const struct metric_info *metrics_find(const char *name);

#endif
