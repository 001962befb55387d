// SPDX-License-Identifier: Apache-2.0
// Pinning a generation against expiring and deleting it (retention/snapshot.c, collect.c).
// Two hosts pin, one owner runs CheckpointGC.
#include "protocol.h"

#include <string.h>

#define PINNERS  2
#define RUNS_MAX 5

enum chain { RETAINED, EXPIRED, GONE };
enum pinner_at { PIN_PUT, PIN_LOOK, PIN_HELD, PIN_TAKE_BACK, PIN_END };
enum collector_at {
    RUN_CLAIM,
    RUN_BEGIN,
    RUN_LIST,
    RUN_HEAD_0,
    RUN_HEAD_1,
    RUN_DECIDE,
    RUN_DELETE,
    RUN_TELL
};
enum todo { TELL_NOTHING, TELL_EXPIRED, TELL_RETAINED, TELL_GONE };

struct pinner {
    uint8_t at;
    uint8_t object;     // the pin is in the bucket
    uint8_t is_older;   // as the owner judges it: from before the expiry
    uint8_t is_counted; // was there when the run asked for the time
    uint8_t accepted;   // its host relies on it
    uint8_t late_put;   // the request is under way, its host has given up
};

struct state {
    struct pinner p[PINNERS];
    uint8_t chain;
    uint8_t blobs;       // are in the bucket
    uint8_t grace_over;  // since the expiry
    uint8_t recent;      // the expiry is dated forward, and that time is not over
    uint8_t prolonged;   // the owner has made the grace longer once
    uint8_t late_delete; // a request is under way, its process has died
    uint8_t at, runs;
    uint8_t due;             // the grace was over when the run asked
    uint8_t listed[PINNERS]; // 2: and its host relied on it then
    uint8_t pinned, bring_back;
    uint8_t todo;
    uint8_t late_todo; // a record is under way; it comes to be if its place stays free
    uint8_t unsure;    // the owner does not know whether its last record will come to be
    uint8_t unusable;  // a run ended well and left an accepted pin without its generation
};

static const char *const mutations[] = {
    "look before pin",                         // a host looks at the chain first, and then pins
    "no second look",                          // the run that deletes does not list the pins
    "expiry counts from the begin of the run", // pins between that and the record are too young
    "late pins bring back",                    // also those from after the expiry
    "no record after a lost one", // the run that follows leaves the place of a late record free
    NULL,
};

enum { EVENT_DELETED, EVENT_TAKEN_BACK, EVENT_BROUGHT_BACK, EVENT_LATE_PIN_HELD };
static const char *const events[] = {
    "an unneeded generation is deleted",
    "a host takes its pin back",
    "a pin brings a generation back",
    "a pin from after the expiry delays the deletion",
    NULL,
};

static void
begin(void *state)
{
    struct state *x = state;
    x->blobs = 1;
    x->at = RUN_BEGIN;
    for (int i = 0; i < PINNERS; i++)
        x->p[i].at = search_is_mutated("look before pin") ? PIN_LOOK : PIN_PUT;
}

// ---- the hosts that pin -------------------------------------------------------------------------

// Who put a pin shortly after the expiry may be judged either way: times of servers are rough, and
// the owner dates the expiry forward.
static void
put_pin(struct search *s, const struct state *x, int i, struct state next, const char *label)
{
    next.p[i].object = 1;
    next.p[i].is_older = 0;
    search_step(s, &next, label);
    if (x->recent) {
        next.p[i].is_older = 1;
        search_step(s, &next, label);
    }
}

static void
step_put(struct search *s, const struct state *x, int i)
{
    struct state n = *x;
    if (search_is_mutated("look before pin")) {
        n.p[i].at = PIN_HELD;
        n.p[i].accepted = 1;
        put_pin(s, x, i, n, "host: PUT pin");
        return;
    }
    n.p[i].at = PIN_LOOK;
    put_pin(s, x, i, n, "host: PUT pin");
    n.p[i].at = PIN_TAKE_BACK;
    put_pin(s, x, i, n, "host: PUT pin, the answer is lost");
    n = *x;
    n.p[i].at = PIN_END;
    n.p[i].late_put = 1;
    search_step(s, &n, "host: PUT pin, gives up while the request is under way");
}

static void
step_look(struct search *s, const struct state *x, int i)
{
    struct state n = *x;
    bool before = search_is_mutated("look before pin");
    if (x->chain != RETAINED) {
        n.p[i].at = before ? PIN_END : PIN_TAKE_BACK;
        search_step(s, &n, "host: GET chain: the generation is not retained");
        return;
    }
    n.p[i].at = before ? PIN_PUT : PIN_HELD;
    n.p[i].accepted = !before;
    search_step(s, &n, "host: GET chain: the generation is retained");
    n = *x;
    n.p[i].at = PIN_TAKE_BACK;
    search_step(s, &n, "host: GET chain fails");
}

static void
step_unpin(struct search *s, const struct state *x, int i)
{
    struct state n = *x;
    n.p[i].at = PIN_END;
    n.p[i].accepted = 0;
    search_step(s, &n, "host: dies, or gives up; its pin stays");
    n.p[i].object = 0;
    search_event(s, EVENT_TAKEN_BACK);
    search_step(s, &n, "host: DELETE pin");
}

static void
step_pinner(struct search *s, const struct state *x, int i)
{
    struct state n = *x;
    if (x->p[i].late_put) {
        n.p[i].late_put = 0;
        put_pin(s, x, i, n, "store: carries out the late PUT of a pin");
    }
    if (x->p[i].at == PIN_PUT)
        step_put(s, x, i);
    else if (x->p[i].at == PIN_LOOK)
        step_look(s, x, i);
    else if (x->p[i].at != PIN_END)
        step_unpin(s, x, i);
}

// ---- the owner ----------------------------------------------------------------------------------

static struct state
end_run(const struct state *x)
{
    struct state n = *x;
    n.at = n.unsure ? RUN_CLAIM : RUN_BEGIN;
    n.runs++;
    n.due = n.pinned = n.bring_back = n.todo = 0;
    for (int i = 0; i < PINNERS; i++)
        n.listed[i] = n.p[i].is_counted = 0;
    return n;
}

static struct state
end_well(const struct state *x)
{
    struct state n = end_run(x);
    for (int i = 0; i < PINNERS; i++)
        n.unusable |= x->listed[i] == 2 && x->p[i].accepted && x->chain != RETAINED;
    return n;
}

// After a death the next process claims the volume, and after a record that may still come to be
// the owner creates another one: it takes the place.
static void
step_claim(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.at = RUN_BEGIN;
    n.unsure = 0;
    if (!search_is_mutated("no record after a lost one"))
        n.late_todo = TELL_NOTHING;
    search_step(s, &n, "owner: creates a record that says nothing, in the place of a late one");
}

static void
step_begin(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.at = RUN_LIST;
    n.due = x->grace_over;
    for (int i = 0; i < PINNERS; i++)
        n.p[i].is_counted = x->p[i].object;
    search_step(s, &n, "owner: HEAD record 1 for the time");
}

static void
step_list(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.at = x->chain == EXPIRED ? RUN_HEAD_0 : RUN_DECIDE;
    for (int i = 0; i < PINNERS; i++)
        n.listed[i] = x->p[i].object ? 1 + x->p[i].accepted : 0;
    if (search_is_mutated("no second look") && x->chain == EXPIRED)
        memset(n.listed, 0, sizeof(n.listed));
    search_step(s, &n, "owner: LIST pins");
}

static void
step_head(struct search *s, const struct state *x, int i)
{
    struct state n = *x;
    n.at++;
    if (x->listed[i] && x->p[i].object) {
        n.pinned = 1;
        if (x->p[i].is_older || search_is_mutated("late pins bring back"))
            n.bring_back = 1;
        else
            search_event(s, EVENT_LATE_PIN_HELD);
    }
    search_step(s, &n, x->listed[i] ? "owner: HEAD pin" : "owner: there is no pin");
}

static void
step_decide(struct search *s, const struct state *x)
{
    struct state n = *x;
    if (x->chain == RETAINED && !x->listed[0] && !x->listed[1]) {
        n.at = RUN_TELL;
        n.todo = TELL_EXPIRED;
        search_step(s, &n, "owner: the policy does not keep the generation");
    } else if (x->chain == EXPIRED && x->bring_back) {
        n.at = RUN_TELL;
        n.todo = TELL_RETAINED;
        search_step(s, &n, "owner: a pin is older than the expiry");
    } else if (x->chain == EXPIRED && !x->pinned && x->due) {
        n.at = RUN_DELETE;
        search_step(s, &n, "owner: the grace is over, nothing is pinned");
    }
    if (x->chain == RETAINED || n.at == RUN_DECIDE) {
        n = end_well(x);
        search_step(s, &n, "owner: nothing to do");
    }
}

static void
step_delete(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.blobs = 0;
    n.at = RUN_TELL;
    n.todo = TELL_GONE;
    search_event(s, EVENT_DELETED);
    search_step(s, &n, "owner: DELETE blobs");
    n = end_run(x);
    n.blobs = 0;
    search_step(s, &n, "owner: DELETE blobs, the answer is lost");
    n = end_run(x);
    n.late_delete = 1;
    search_step(s, &n, "owner: DELETE blobs, gives up while the request is under way");
}

// The record says what is so from now on.
static struct state
hear(struct search *s, const struct state *x, uint8_t todo)
{
    struct state told = *x;
    told.late_todo = TELL_NOTHING;
    if (todo == TELL_EXPIRED) {
        told.chain = EXPIRED;
        told.grace_over = 0;
        told.recent = 1;
        for (int i = 0; i < PINNERS; i++)
            told.p[i].is_older = search_is_mutated("expiry counts from the begin of the run")
                                     ? x->p[i].is_counted
                                     : x->p[i].object;
    } else if (todo == TELL_RETAINED) {
        told.chain = RETAINED;
        told.grace_over = told.recent = 0;
        search_event(s, EVENT_BROUGHT_BACK);
    } else {
        told.chain = GONE;
    }
    return told;
}

static void
step_tell(struct search *s, const struct state *x)
{
    struct state told = hear(s, x, x->todo);
    struct state n = x->todo == TELL_RETAINED ? end_well(&told) : end_run(&told);
    search_step(s, &n, "owner: creates the RETENTION record");
    told.unsure = 1;
    n = end_run(&told);
    search_step(s, &n, "owner: creates the RETENTION record, the answer is lost");
    n = *x;
    n.unsure = 1;
    n.late_todo = x->todo;
    n = end_run(&n);
    search_step(s, &n, "owner: gives up while the RETENTION record is under way");
}

static void
step_collector(struct search *s, const struct state *x)
{
    static void (*const by_place[])(struct search *, const struct state *) = {
        [RUN_CLAIM] = step_claim,
        [RUN_BEGIN] = step_begin,
        [RUN_LIST] = step_list,
        [RUN_DECIDE] = step_decide,
        [RUN_DELETE] = step_delete,
        [RUN_TELL] = step_tell,
    };
    if (x->runs == RUNS_MAX || x->chain == GONE)
        return;
    if (x->at == RUN_HEAD_0 || x->at == RUN_HEAD_1)
        step_head(s, x, x->at - RUN_HEAD_0);
    else
        by_place[x->at](s, x);
    if (x->at <= RUN_BEGIN)
        return;
    struct state n = *x;
    n.unsure = 1;
    n = end_run(&n);
    search_step(s, &n, "owner: dies");
}

static void
step_world(struct search *s, const struct state *x)
{
    struct state n = *x;
    if (x->chain == EXPIRED && !x->grace_over) {
        n.grace_over = 1;
        n.recent = 0;
        search_step(s, &n, "time: the grace is over");
    }
    if (x->chain == EXPIRED && x->grace_over && !x->prolonged) {
        n.grace_over = 0;
        n.prolonged = 1;
        search_step(s, &n, "owner: a longer grace is set");
    }
    if (x->late_todo) {
        n = hear(s, x, x->late_todo);
        // The run that goes on does not know it yet.
        for (int i = 0; i < PINNERS; i++)
            n.listed[i] = n.listed[i] > 0;
        search_step(s, &n, "store: carries out the late creation of a record");
    }
    if (x->late_delete) {
        n = *x;
        n.late_delete = 0;
        n.blobs = 0;
        search_step(s, &n, "store: carries out the late DELETE");
    }
}

static void
steps(struct search *s, const void *state)
{
    const struct state *x = state;
    for (int i = 0; i < PINNERS; i++)
        step_pinner(s, x, i);
    step_collector(s, x);
    step_world(s, x);
}

static const char *
fault(const void *state)
{
    const struct state *x = state;
    for (int i = 0; i < PINNERS; i++)
        if (x->p[i].accepted && !x->blobs)
            return "a host relies on its pin, and the blobs are gone";
    if (x->chain == RETAINED && !x->blobs)
        return "the chain says that the generation is retained, and the blobs are gone";
    if (x->unusable)
        return "a host relies on its pin, and the generation stays expired";
    return NULL;
}

PROTOCOL_DEFINE(pin);
