// SPDX-License-Identifier: Apache-2.0
// A store that asks a second time when an answer is late: a GET for which a program waits, and that
// takes longer than 19 of 20 did lately, is sent again, and the first answer counts. That costs a
// twentieth more requests and takes away the tail that one slow server or connection makes.
//
// Such calls run in threads of the store, because the loser goes on when the caller has its answer;
// it is cancelled. A call without a free thread, and every other call, goes the usual way.
#ifndef CKPTFS_STORE_HEDGED_STORE_H
#define CKPTFS_STORE_HEDGED_STORE_H

#include <stdint.h>

#include "store/remote_store.h"

#define HEDGE_SAMPLES  128u // the durations that count
#define HEDGE_LEAST    32u  // before so many nothing is sent twice
#define HEDGE_FLOOR_MS 2u   // never earlier than this

// Durations of late, and which of them is the 95th percentile. Pure.
struct hedged_delay {
    uint32_t samples[HEDGE_SAMPLES]; // milliseconds; a ring
    unsigned count;                  // that were ever noted, up to twice the ring
    uint32_t delay_ms;               // 0: not known
};
void hedged_delay_note(struct hedged_delay *d, uint64_t ms);

struct hedged_numbers {
    uint64_t sent, won; // second requests, and those that answered first
};

// Off. Closing it closes the inner store, too.
struct remote_store *hedged_store_wrap(struct remote_store *inner);
// For the results of hedged_store_wrap. Any thread.
void hedged_store_turn(struct remote_store *s, bool on);
void hedged_store_numbers(struct remote_store *s, struct hedged_numbers *numbers_out);

#endif
