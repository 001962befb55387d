// SPDX-License-Identifier: Apache-2.0
// Small models of the protocols in the bucket, searched exhaustively (doc/protocols.md). A state
// has the objects in the bucket that matter, and where each actor stands. A step is one request to
// the store with one of its outcomes, the death of an actor, or the passing of time. The search
// visits every state that any order of steps reaches, and checks what must hold in each.
//
// A mutation takes one precaution away; the search must then find a state that breaks a promise,
// which shows that the model can see that fault.
#ifndef CKPTFS_TESTS_PROTOCOL_H
#define CKPTFS_TESTS_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct search;

struct protocol {
    const char *name;
    size_t bytes; // of a state, which has no padding
    void (*begin)(void *state);
    // Calls search_step for each step that can come next.
    void (*steps)(struct search *s, const void *state);
    // The promise that the state breaks, or NULL.
    const char *(*fault)(const void *state);
    const char *const *mutations; // NULL at the end
    const char *const *events;    // what the search must come across; NULL at the end
    bool takes_long;              // searched only when it is named, or by `make check-long`
};

// A protocol whose file has its parts under these names: struct state, begin, steps, fault,
// mutations and events.
#define PROTOCOL_DEFINE(word)                                                                      \
    const struct protocol protocol_##word = {.name = #word,                                        \
        .bytes = sizeof(struct state),                                                             \
        .begin = begin,                                                                            \
        .steps = steps,                                                                            \
        .fault = fault,                                                                            \
        .mutations = mutations,                                                                    \
        .events = events}

extern const struct protocol protocol_pin, protocol_prune, protocol_fork, protocol_fork_swept,
    protocol_fork_all, protocol_takeover, protocol_snapshot;

// For the protocols. `label` says who does what; it is a constant.
void search_step(struct search *s, const void *to, const char *label);
// The search came across the event (an index into `events`).
void search_event(struct search *s, unsigned event);
bool search_is_mutated(const char *mutation);

#endif
