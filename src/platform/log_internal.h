// SPDX-License-Identifier: Apache-2.0
// Between log.c, which makes lines, and log_sink.c, which has the queue of lines and the thread
// that writes them.
#ifndef CKPTFS_PLATFORM_LOG_INTERNAL_H
#define CKPTFS_PLATFORM_LOG_INTERNAL_H

#include "platform/log.h"

// Size of the queue: log_sink_put drops and counts further lines.
#define LOG_QUEUE_BYTES (1u << 20)

// A line, with its newline. `always`: a line that has a second LOG_QUEUE_BYTES for itself. Without
// the thread this function writes it; else it never waits.
void log_sink_put(enum log_level level, bool always, const void *text, size_t n);

// Makes the thread ask log_report_suppressed anew for its next call.
void log_sink_wake(void);

// log.c: logs how many lines were suppressed in windows that have ended, or in `all`. Returns the
// time of the next call, on clock_monotonic_ms(); UINT64_MAX: not before another line is
// suppressed.
uint64_t log_report_suppressed(bool all);

#endif
