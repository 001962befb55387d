// SPDX-License-Identifier: Apache-2.0
// Deleting records against a writer that was stalled (remote/remote_prune.c,
// remote/remote_ground.c). The writer owns the volume, another host takes it by force, goes
// on, and deletes records that nobody needs. A record that a generation needs is one that is never
// deleted: the search has those orders, too.
#include "protocol.h"

#define RECORDS      7
#define WRITER_FIRST 2 // the place of the writer's newest record at the begin

// What lies in the place of a record, or lay there first.
enum record { NOTHING, BY_WRITER, BY_WRITER_LATER, OPEN, BY_OTHER };
enum age { YOUNG, OLDER_THAN_GRACE, OLDER_THAN_FENCE };
enum writer_at { WRITER_LOOK, WRITER_CREATE, WRITER_CHECK, WRITER_CATCH_UP, WRITER_END };

struct state {
    uint8_t there[RECORDS], first[RECORDS], age[RECORDS];
    uint8_t newest; // the place of the newest record
    uint8_t taken;  // the other host owns the volume
    uint8_t at;
    uint8_t position; // the writer's newest record as it knows it
    uint8_t attempt;  // BY_WRITER, or BY_WRITER_LATER: it publishes a later state
    uint8_t late;     // this record's creation is under way
    uint8_t late_at;
    uint8_t lease_good;
    uint8_t believes; // what the writer takes for published in the place after `position`
};

static const char *const mutations[] = {
    "no look after the creation",      // even when the lease may have run out
    "look at the record before alone", // which a generation may need for years
    "OPEN goes after the grace",
    "the record before OPEN goes after the grace",
    NULL,
};

enum { EVENT_PUBLISHED, EVENT_FENCED, EVENT_HOLE };
static const char *const events[] = {
    "the writer publishes",
    "the writer finds out that it was taken over",
    "the writer creates a record where one was deleted",
    NULL,
};

static void
begin(void *state)
{
    struct state *x = state;
    for (int i = 0; i <= WRITER_FIRST; i++)
        x->there[i] = x->first[i] = BY_WRITER;
    x->newest = x->position = WRITER_FIRST;
    x->attempt = BY_WRITER;
    x->lease_good = 1;
}

// ---- the writer ---------------------------------------------------------------------------------

static struct state
stop(const struct state *x)
{
    struct state n = *x;
    n.at = WRITER_END;
    n.believes = NOTHING;
    return n;
}

// A record comes to be, if its place is free.
static bool
create(struct search *s, struct state *n, int place, uint8_t what)
{
    if (n->there[place])
        return false;
    n->there[place] = what;
    n->age[place] = YOUNG;
    if (n->first[place])
        search_event(s, EVENT_HOLE);
    else
        n->first[place] = what;
    if (place > n->newest)
        n->newest = (uint8_t)place;
    return true;
}

static void
publish(struct search *s, const struct state *x, const char *label)
{
    struct state n = *x;
    n.believes = x->there[x->position + 1];
    n.at = WRITER_END;
    search_event(s, EVENT_PUBLISHED);
    search_step(s, &n, label);
}

static void
writer_look(struct search *s, const struct state *x)
{
    struct state n = *x;
    if (!x->there[x->position]) {
        n = stop(x);
        search_step(s, &n, "writer: GET its newest record: it is gone");
        return;
    }
    n.at = WRITER_CREATE;
    search_step(s, &n, "writer: GET its newest record: it is there");
}

static void
writer_create(struct search *s, const struct state *x)
{
    int place = x->position + 1;
    struct state n = *x;
    if (create(s, &n, place, x->attempt)) {
        n.at = WRITER_CHECK;
        search_step(s, &n, "writer: creates its record");
        n.at = WRITER_CATCH_UP;
        search_step(s, &n, "writer: creates its record, the answer is lost");
        // The publication failed; the next one has a later state.
        n.at = WRITER_LOOK;
        n.attempt = BY_WRITER_LATER;
        search_step(s, &n, "writer: creates its record, the answer is lost; it begins anew");
    } else if (x->there[place] == x->attempt) {
        n.at = WRITER_CHECK;
        search_step(s, &n, "writer: its record is there, of an earlier try");
    } else {
        n.at = WRITER_CATCH_UP;
        search_step(s, &n, "writer: another record has the place");
    }
    if (x->late || x->there[place])
        return;
    n = *x;
    n.late = x->attempt;
    n.late_at = (uint8_t)place;
    n.at = WRITER_CATCH_UP;
    search_step(s, &n, "writer: gives up while the creation is under way");
}

// Whether a record after `place` shows that the writer's record is none of the chain.
static bool
is_passed_over(const struct state *x, int place)
{
    int next = place + 1;
    while (next <= x->newest && !x->there[next])
        next++;
    // The next one names the hash of the one that was first in the place before it.
    return next <= x->newest && (next > place + 1 || x->first[place] != x->there[place]);
}

static void
writer_check(struct search *s, const struct state *x)
{
    struct state n = *x;
    int place = x->position + 1;
    bool gone = !x->there[x->position];
    if (x->lease_good || search_is_mutated("no look after the creation")) {
        publish(s, x, "writer: its lease is good: it has published");
        return;
    }
    if (!search_is_mutated("look at the record before alone"))
        gone |= is_passed_over(x, place);
    if (!gone) {
        publish(s, x, "writer: LIST records: nothing speaks against its own: it has published");
        return;
    }
    n = stop(x);
    n.there[place] = NOTHING;
    search_event(s, EVENT_FENCED);
    search_step(s, &n, "writer: LIST records: its own is none of the chain; DELETE");
    n = stop(x);
    search_step(s, &n, "writer: LIST records: its own is none of the chain; it dies");
}

static void
writer_catch_up(struct search *s, const struct state *x)
{
    int place = x->position + 1;
    struct state n = *x;
    if (x->there[place] == BY_WRITER || x->there[place] == BY_WRITER_LATER) {
        if (!is_passed_over(x, place)) {
            publish(s, x, "writer: catches up and finds its record");
            return;
        }
    } else if (!x->there[place] && x->newest <= x->position) {
        n.at = WRITER_LOOK;
        search_step(s, &n, "writer: catches up and finds nothing");
        return;
    }
    n = stop(x);
    search_event(s, EVENT_FENCED);
    search_step(s, &n, "writer: catches up and finds another's records, or a gap");
}

static void
step_writer(struct search *s, const struct state *x)
{
    static void (*const by_place[])(struct search *, const struct state *) = {
        [WRITER_LOOK] = writer_look,
        [WRITER_CREATE] = writer_create,
        [WRITER_CHECK] = writer_check,
        [WRITER_CATCH_UP] = writer_catch_up,
    };
    if (x->at != WRITER_END)
        by_place[x->at](s, x);
    struct state n = *x;
    if (x->at != WRITER_END && x->at != WRITER_CATCH_UP) {
        n.at = WRITER_CATCH_UP;
        search_step(s, &n, "writer: dies, and is started again");
    }
    if (x->late) {
        n = *x;
        n.late = NOTHING;
        (void)create(s, &n, x->late_at, x->late);
        search_step(s, &n, "store: carries out the late creation");
    }
}

// ---- the other host -----------------------------------------------------------------------------

static void
step_other(struct search *s, const struct state *x)
{
    if (x->newest + 1 >= RECORDS)
        return;
    struct state n = *x;
    n.taken = 1;
    if (create(s, &n, x->newest + 1, x->taken ? BY_OTHER : OPEN))
        search_step(s, &n, x->taken ? "other: creates a record" : "other: takes the volume: OPEN");
}

// Records below the two newest go; of record 0 everything may depend.
static void
step_prune(struct search *s, const struct state *x)
{
    for (int i = 1; x->taken && i + 1 < x->newest; i++) {
        bool is_open = x->first[i] == OPEN && !search_is_mutated("OPEN goes after the grace");
        bool before_open = x->first[i + 1] == OPEN && x->there[i + 1] == OPEN &&
                           !search_is_mutated("the record before OPEN goes after the grace");
        uint8_t least = is_open || before_open ? OLDER_THAN_FENCE : OLDER_THAN_GRACE;
        if (!x->there[i] || x->age[i] < least)
            continue;
        struct state n = *x;
        n.there[i] = NOTHING;
        search_step(s, &n, "other: DELETE an old record");
    }
}

static void
step_time(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.lease_good = 0;
    search_step(s, &n, "time: the writer's lease runs out");
    n = *x;
    for (int i = 0; i < RECORDS; i++)
        if (x->there[i] && x->age[i] < OLDER_THAN_GRACE)
            n.age[i] = OLDER_THAN_GRACE;
    search_step(s, &n, "time: the grace is over for all that is there");
    for (int i = 0; i < RECORDS; i++)
        if (x->there[i])
            n.age[i] = OLDER_THAN_FENCE;
    n.lease_good = 0;
    search_step(s, &n, "time: 30 days pass");
}

static void
steps(struct search *s, const void *state)
{
    const struct state *x = state;
    step_writer(s, x);
    step_other(s, x);
    step_prune(s, x);
    step_time(s, x);
}

static const char *
fault(const void *state)
{
    const struct state *x = state;
    if (x->believes && x->first[x->position + 1] != x->believes)
        return "the writer believes to have published, and its record is none of the chain";
    return NULL;
}

PROTOCOL_DEFINE(prune);
