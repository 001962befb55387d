// SPDX-License-Identifier: Apache-2.0
// Between log.c, which makes lines, and log_sink.c, which has the queue of lines and the thread
// that writes them.
#ifndef CKPTFS_PLATFORM_LOG_INTERNAL_H
#define CKPTFS_PLATFORM_LOG_INTERNAL_H

#include "platform/log.h"

// What the queue holds: what is more is dropped, and counted.
#define LOG_QUEUE_BYTES (1u << 20)

// A line, with its newline. `always`: a line that has a second LOG_QUEUE_BYTES for itself. Without
// the thread it is written before this returns, else never waited for.
void log_sink_put(enum log_level level, bool always, const void *text, size_t n);

// log_report_suppressed is to be asked anew when it wants to be called.
void log_sink_wake(void);

// log.c: logs how many lines were suppressed in windows that have ended, or in `all`. When it is to
// be called next, on clock_monotonic_ms(); UINT64_MAX: not before another line is suppressed.
uint64_t log_report_suppressed(bool all);

#endif
