// SPDX-License-Identifier: Apache-2.0
// Numbers in the text format of Prometheus (version 0.0.4). The names derive from those in
// metrics.def: "ckptfs_", the name without the words for its unit and kind, and these at the end:
//
//     BYTES    _bytes                  store_bytes_written  ckptfs_store_written_bytes_total
//     AGE_MS   _seconds                limit_wait_ms        ckptfs_limit_wait_seconds_total
//     TIME_MS  _timestamp_seconds      local_time_ms        ckptfs_local_timestamp_seconds
//     counters _total behind that      fsyncs               ckptfs_fsyncs_total
//
// All samples of a family follow its head without another family in between. Any thread.
#ifndef CKPTFS_METRICS_METRICS_TEXT_H
#define CKPTFS_METRICS_METRICS_TEXT_H

#include <stdbool.h>

#include "base/buffer.h"
#include "metrics/metrics.h"

#define METRICS_TEXT_NAME_BYTES 80u

struct metric_label {
    const char *name; // [a-z_]+
    const char *value;
};

// Whether a name can be that of a metric: [a-z][a-z0-9_]*, at most METRIC_NAME_MAX characters.
bool metrics_text_name_is_valid(const char *name);
// The name must be valid, as below.
void metrics_text_name(const struct metric_info *info, char name_out[METRICS_TEXT_NAME_BYTES]);
// Appends the head of a family: its help and type.
void metrics_text_family(struct buffer *out, const struct metric_info *info);
// Appends one sample of it. Values of labels may be any text: what is no UTF-8, and control
// characters, become U+FFFD.
void metrics_text_sample(struct buffer *out, const struct metric_info *info,
    const struct metric_label *labels, size_t count, uint64_t value);

#endif
