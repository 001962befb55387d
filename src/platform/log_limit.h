// SPDX-License-Identifier: Apache-2.0
// Limits the lines of one kind. A line has an event and may have a key (an object of the store, a
// file). Within a window that begins with the first line, LOG_LIMIT_KEY_LINES of one event and key
// pass, and LOG_LIMIT_EVENT_LINES of one event; the limit counts further lines, and reports the
// count when the window has ended. So the first line of any event always passes.
//
// Pure: the clock is an argument, and all memory is in the struct. No lock.
#ifndef CKPTFS_PLATFORM_LOG_LIMIT_H
#define CKPTFS_PLATFORM_LOG_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#define LOG_LIMIT_WINDOW_MS   10000u
#define LOG_LIMIT_KEY_LINES   3u
#define LOG_LIMIT_EVENT_LINES 30u
#define LOG_LIMIT_EVENTS      128u
#define LOG_LIMIT_KEYS        256u
// Bytes that count of a longer name, with the NUL.
#define LOG_LIMIT_EVENT_BYTES 40u
#define LOG_LIMIT_KEY_BYTES   160u

// One event, or one event and key, in its window.
struct log_limit_slot {
    char event[LOG_LIMIT_EVENT_BYTES]; // "": free
    char key[LOG_LIMIT_KEY_BYTES];     // "": the event as a whole
    uint64_t hash;
    uint64_t began_ms;
    uint64_t passed;
    uint64_t suppressed;
};

// Zero-initialise.
struct log_limit {
    struct log_limit_slot events[LOG_LIMIT_EVENTS];
    struct log_limit_slot keys[LOG_LIMIT_KEYS];
    uint64_t next_ms; // when the next window ends in which lines were suppressed; 0: there is none
};

// Whether a line may be logged now. `key` may be NULL. When there is no slot for a new key, its
// lines count for their event only; when there is none for a new event, its lines pass.
bool log_limit_admit(struct log_limit *l, const char *event, const char *key, uint64_t now_ms);
// Takes one window that has ended and in which lines were suppressed; false when there is none.
bool log_limit_take(struct log_limit *l, uint64_t now_ms, struct log_limit_slot *ended_out);
// The same of windows that have not ended.
bool log_limit_take_any(struct log_limit *l, struct log_limit_slot *ended_out);
#endif
