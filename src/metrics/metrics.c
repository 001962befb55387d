// SPDX-License-Identifier: Apache-2.0
#include "metrics/metrics.h"

#include <string.h>

const struct metric_info metrics_table[] = {
#define METRIC(name, kind, unit, where, help) {#name, METRIC_KIND_##kind, METRIC_UNIT_##unit, help},
#include "metrics/metrics.def"
#undef METRIC
};

#define METRIC(name, kind, unit, where, help)                                                      \
    _Static_assert(sizeof(#name) - 1 <= METRIC_NAME_MAX, "name");
#include "metrics/metrics.def"
#undef METRIC
_Static_assert(sizeof(metrics_table) / sizeof(metrics_table[0]) == METRICS_COUNT, "table");

uint64_t
metrics_value(const struct metrics *m, size_t i)
{
    uint64_t value;
    memcpy(&value, (const uint8_t *)m + i * sizeof(value), sizeof(value));
    return value;
}

const struct metric_info *
metrics_find(const char *name)
{
    for (size_t i = 0; i < METRICS_COUNT; i++)
        if (strcmp(metrics_table[i].name, name) == 0)
            return &metrics_table[i];
    return NULL;
}
