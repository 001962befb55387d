// SPDX-License-Identifier: Apache-2.0
// Making a snapshot against the sweep that ends those that were never finished
// (retention/snapshot.c, retention/unfinished.c). Two commands make the same snapshot; each may
// die, sleep for days between any two of its steps, and be given again. The owner sweeps, and
// deletes the generation when it sees no pin.
#include "protocol.h"

#define MAKERS    2
#define TRIES_MAX 1 // after the first one
#define RUNS_MAX  5

enum name { FREE, SNAPSHOT, SWEPT };
enum chain { RETAINED, EXPIRED, GONE };
enum maker_at {
    MAKE_PIN,
    MAKE_LOOK,
    MAKE_NAME,
    MAKE_LOOK_FOR_PIN,
    MAKE_PIN_AGAIN,
    MAKE_LOOK_AGAIN,
    MAKE_FREE, // gives up, and has the name
    MAKE_UNPIN,
    MAKE_MADE, // and told so
    MAKE_END
};
enum owner_at {
    OWN_LIST,
    OWN_NAME,
    OWN_DATE,
    OWN_UNPIN,
    OWN_FREE,
    OWN_CONDEMN,
    OWN_COLLECT,
    OWN_END
};

struct maker {
    uint8_t at, tries;
    uint8_t slept; // since it wrote its pin
};

struct state {
    uint8_t name, name_is_old;
    uint8_t pin, pin_is_old;
    uint8_t chain;
    struct maker m[MAKERS];
    uint8_t late_name; // its creation is under way, the command has given up
    uint8_t late_free; // its deletion is under way, the command has died
    uint8_t owner, runs;
    uint8_t saw_pin;    // the listing of the run
    uint8_t late_unpin; // the pin's deletion is under way, the process has died
};

static const char *const mutations[] = {
    "the pin goes without its name being taken",
    "the command does not look for its pin again",
    "the sweep's object keeps its date",    // when the pin is deleted
    "the owner does not look at its clock", // between that and the deletion
    "the sweep overwrites the name",        // in place of creating it
    "a command that slept trusts any pin",
    "a command gives up when the generation has expired",
    "a name without a pin goes before its generation",
    NULL,
};

enum {
    EVENT_MADE,
    EVENT_ENDED,
    EVENT_REFUSED,
    EVENT_PINNED_AGAIN,
    EVENT_FINISHED_MEANWHILE,
    EVENT_GAVE_UP,
    EVENT_SLEPT,
    EVENT_CONDEMNED
};
static const char *const events[] = {
    "a snapshot is made",
    "what a command left is gone",
    "a command that slept is refused",
    "a command that slept pins again",
    "a sweep finds that the snapshot was finished meanwhile",
    "a command takes everything back",
    "a command finds that it slept",
    "a name without a pin is taken by a sweep",
    NULL,
};

static void
begin(void *state)
{
    struct state *x = state;
    x->owner = OWN_END;
    for (int i = 0; i < MAKERS; i++)
        x->m[i].at = MAKE_END;
}

// ---- the commands -------------------------------------------------------------------------------

static void
make_pin(struct search *s, const struct state *x, int i)
{
    struct state n = *x;
    n.pin = 1;
    n.pin_is_old = 0;
    n.m[i].at = x->m[i].at == MAKE_PIN ? MAKE_LOOK : MAKE_LOOK_AGAIN;
    n.m[i].slept = 0;
    search_step(s, &n, "command: PUT pin");
    n.m[i].at = MAKE_END;
    search_step(s, &n, "command: PUT pin, the answer is lost; it gives up");
}

static void
make_look(struct search *s, const struct state *x, int i)
{
    struct state n = *x;
    bool again = x->m[i].at == MAKE_LOOK_AGAIN;
    bool keen = search_is_mutated("a command gives up when the generation has expired");
    if (x->chain == RETAINED)
        n.m[i].at = again ? MAKE_MADE : MAKE_NAME;
    else if (x->chain == GONE || keen)
        n.m[i].at = again ? MAKE_FREE : MAKE_UNPIN;
    else
        n.m[i].at = MAKE_END;
    search_step(s, &n, "command: GET the chain");
}

static void
make_name(struct search *s, const struct state *x, int i)
{
    struct state n = *x;
    n.m[i].at = MAKE_END;
    n.late_name = 1;
    search_step(s, &n, "command: gives up while the creation of the name is under way");
    n.late_name = x->late_name;
    if (x->name == SWEPT) {
        search_event(s, EVENT_REFUSED);
        search_step(s, &n, "command: the name is a sweep's");
        return;
    }
    // A name that is taken is that of the same snapshot.
    if (x->name == FREE)
        n.name_is_old = 0;
    n.name = SNAPSHOT;
    n.m[i].at = search_is_mutated("the command does not look for its pin again")
                    ? MAKE_MADE
                    : MAKE_LOOK_FOR_PIN;
    search_step(s, &n, "command: creates the name");
    n.m[i].at = MAKE_END;
    search_step(s, &n, "command: creates the name, the answer is lost; it gives up");
}

static void
make_look_for_pin(struct search *s, const struct state *x, int i)
{
    struct state n = *x;
    // If it slept, that may be another command's, which has not looked yet.
    bool doubts = x->m[i].slept && !search_is_mutated("a command that slept trusts any pin");
    n.m[i].at = x->pin && !doubts ? MAKE_MADE : MAKE_PIN_AGAIN;
    if (!x->pin)
        search_event(s, EVENT_PINNED_AGAIN);
    search_step(s, &n, "command: HEAD pin");
}

// One that slept leaves the rest to a sweep.
static void
make_delete(struct search *s, const struct state *x, int i)
{
    struct state n = *x;
    bool unpins = x->m[i].at == MAKE_UNPIN;
    n.m[i].at = MAKE_END;
    if (x->m[i].slept) {
        search_event(s, EVENT_SLEPT);
        search_step(s, &n, "command: it slept, and does not delete anything");
        return;
    }
    n.late_unpin |= unpins;
    n.late_free |= !unpins;
    search_step(s, &n, "command: dies while the deletion of name or pin is under way");
    n = *x;
    n.m[i].at = unpins ? MAKE_END : MAKE_UNPIN;
    if (unpins)
        n.pin = 0;
    else
        n.name = FREE;
    search_event(s, EVENT_GAVE_UP);
    search_step(s, &n, "command: DELETE name or pin");
}

static void
step_maker(struct search *s, const struct state *x, int i)
{
    static void (*const by_place[])(struct search *, const struct state *, int) = {
        [MAKE_PIN] = make_pin,
        [MAKE_LOOK] = make_look,
        [MAKE_NAME] = make_name,
        [MAKE_LOOK_FOR_PIN] = make_look_for_pin,
        [MAKE_PIN_AGAIN] = make_pin,
        [MAKE_LOOK_AGAIN] = make_look,
        [MAKE_FREE] = make_delete,
        [MAKE_UNPIN] = make_delete,
    };
    struct state n = *x;
    if (x->m[i].at == MAKE_MADE) {
        search_event(s, EVENT_MADE);
    } else if (x->m[i].at != MAKE_END) {
        by_place[x->m[i].at](s, x, i);
        n.m[i].at = MAKE_END;
        search_step(s, &n, "command: dies");
    } else if (x->m[i].tries <= TRIES_MAX) {
        n.m[i].tries++;
        n.m[i].at = MAKE_PIN;
        n.m[i].slept = 0;
        search_step(s, &n, "command: begins");
    }
}

static void
step_late(struct search *s, const struct state *x)
{
    struct state n = *x;
    if (x->late_name) {
        n.late_name = 0;
        if (n.name == FREE) {
            n.name = SNAPSHOT;
            n.name_is_old = 0;
        }
        search_step(s, &n, "store: carries out the late creation of the name");
    }
    if (x->late_free) {
        n = *x;
        n.late_free = 0;
        n.name = FREE;
        search_step(s, &n, "store: carries out the late deletion of the name");
    }
}

// ---- the owner ----------------------------------------------------------------------------------

static void
own_list(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.saw_pin = x->pin;
    n.owner = x->name == SWEPT && x->name_is_old           ? x->pin ? OWN_DATE : OWN_FREE
              : x->pin && x->pin_is_old && x->name == FREE ? OWN_NAME
              : !x->pin && x->name == SNAPSHOT && x->name_is_old &&
                      (x->chain == GONE ||
                          search_is_mutated("a name without a pin goes before its generation"))
                  ? OWN_CONDEMN
                  : OWN_COLLECT;
    if (n.owner == OWN_NAME && search_is_mutated("the pin goes without its name being taken"))
        n.owner = OWN_UNPIN;
    search_step(s, &n, "owner: LIST pins and names");
}

static void
own_name(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.owner = OWN_COLLECT;
    if (x->name == FREE || search_is_mutated("the sweep overwrites the name")) {
        n.name = SWEPT;
        n.name_is_old = 0;
    } else {
        search_event(s, EVENT_FINISHED_MEANWHILE);
    }
    search_step(s, &n, "owner: creates the name for the sweep");
}

static void
own_condemn(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.name = SWEPT;
    n.name_is_old = 0;
    n.owner = OWN_COLLECT;
    search_event(s, EVENT_CONDEMNED);
    search_step(s, &n, "owner: PUT the sweep's object over a name without a pin");
}

static void
own_date(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.owner = OWN_UNPIN;
    n.name_is_old = search_is_mutated("the sweep's object keeps its date");
    search_step(s, &n, "owner: PUT name anew");
}

static void
own_unpin(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.pin = 0;
    n.owner = OWN_COLLECT;
    search_step(s, &n, "owner: DELETE pin");
    n = *x;
    n.owner = OWN_END;
    n.late_unpin = 1;
    search_step(s, &n, "owner: dies while the deletion of the pin is under way");
}

static void
own_free(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.name = FREE;
    n.name_is_old = 0;
    n.owner = OWN_COLLECT;
    search_event(s, EVENT_ENDED);
    search_step(s, &n, "owner: DELETE name");
}

// The run looks at the listing from its beginning.
static void
own_collect(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.owner = OWN_END;
    if (!x->saw_pin && x->chain != GONE)
        n.chain++;
    else if (x->saw_pin && x->chain == EXPIRED)
        n.chain = RETAINED;
    search_step(s, &n, "owner: expires, deletes or brings back the generation");
}

static void
step_owner(struct search *s, const struct state *x)
{
    static void (*const by_place[])(struct search *, const struct state *) = {
        [OWN_LIST] = own_list,
        [OWN_NAME] = own_name,
        [OWN_DATE] = own_date,
        [OWN_UNPIN] = own_unpin,
        [OWN_FREE] = own_free,
        [OWN_CONDEMN] = own_condemn,
        [OWN_COLLECT] = own_collect,
    };
    struct state n = *x;
    if (x->owner != OWN_END) {
        by_place[x->owner](s, x);
        n.owner = OWN_END;
        search_step(s, &n, "owner: dies");
    } else if (x->runs < RUNS_MAX) {
        n.runs++;
        n.owner = OWN_LIST;
        search_step(s, &n, "owner: begins a run");
    }
    if (x->late_unpin) {
        n = *x;
        n.late_unpin = 0;
        n.pin = 0;
        search_step(s, &n, "store: carries out the late deletion of the pin");
    }
}

// No request is under way for a day; and the owner looks at its clock before it deletes the pin.
static void
step_time(struct search *s, const struct state *x)
{
    struct state n = *x;
    bool unpins =
        x->owner == OWN_UNPIN && !search_is_mutated("the owner does not look at its clock");
    if (x->late_name || x->late_free || x->late_unpin || unpins)
        return;
    n.pin_is_old = x->pin;
    n.name_is_old = x->name != FREE;
    for (int i = 0; i < MAKERS; i++)
        n.m[i].slept = x->m[i].at != MAKE_MADE && x->m[i].at != MAKE_END;
    search_step(s, &n, "time: a day passes");
}

static void
steps(struct search *s, const void *state)
{
    const struct state *x = state;
    for (int i = 0; i < MAKERS; i++)
        step_maker(s, x, i);
    step_late(s, x);
    step_owner(s, x);
    step_time(s, x);
}

static const char *
fault(const void *state)
{
    const struct state *x = state;
    for (int i = 0; i < MAKERS; i++) {
        if (x->m[i].at == MAKE_MADE && (x->name != SNAPSHOT || !x->pin))
            return "a snapshot that was made has no name or no pin";
        if (x->m[i].at == MAKE_MADE && x->chain == GONE)
            return "a snapshot that was made has no generation";
    }
    return NULL;
}

PROTOCOL_DEFINE(snapshot);
