// SPDX-License-Identifier: Apache-2.0
// Forking a volume against destroying it (volume/volume_fork.c, remote/remote_destroy.c). Both
// commands may die and be given again. A new volume may be made where the destroyed one was.
#include "protocol.h"

#define TRIES_MAX 3

enum parent { ALIVE, MARKED, NO_VOLUME, ANOTHER_VOLUME };
enum child { NO_CHILD, CREATED, FORKED };
enum forker_at {
    FORK_PIN,
    FORK_LOOK,
    FORK_IMPORT,
    FORK_CREATE,
    FORK_PIN_AGAIN,
    FORK_LOOK_AGAIN,
    FORK_PUBLISH,
    FORK_TAKE_BACK,
    FORK_END
};
enum destroyer_at {
    DESTROY_PINS,
    DESTROY_CHILD,
    DESTROY_MARK,
    DESTROY_PINS_AGAIN,
    DESTROY_CHILD_AGAIN,
    DESTROY_BLOBS,
    DESTROY_OTHERS,
    DESTROY_LAST,
    DESTROY_END
};

struct state {
    uint8_t parent, child;
    uint8_t blobs;
    uint8_t pin;         // is in the bucket
    uint8_t pin_is_old;  // older than a day
    uint8_t pin_is_late; // younger than the mark
    uint8_t late_create; // a request of the forker is under way
    uint8_t forker, fork_tries;
    uint8_t destroyer, destroy_tries;
    uint8_t seen_pin; // the destroyer has listed a pin that is old: does its fork exist?
};

static const char *const mutations[] = {
    "no look after the child's creation", // the forker was asleep for a day
    "no second look at the pins",         // after the mark
    "no second look for the fork",
    "the volume's id is not compared", // in the look after the child's creation
    NULL,
};

enum { EVENT_FORKED, EVENT_DESTROYED, EVENT_LEFT_BEHIND, EVENT_REFUSED };
static const char *const events[] = {
    "the fork is made",
    "the parent is destroyed",
    "a pin that was left behind is passed over",
    "the destroyer is refused",
    NULL,
};

static void
begin(void *state)
{
    struct state *x = state;
    x->blobs = 1;
}

// ---- the forker ---------------------------------------------------------------------------------

// Times of servers are rough: a pin that was written just after the mark may look older.
static void
put_pin(struct search *s, struct state n, const char *label)
{
    n.pin = 1;
    n.pin_is_old = 0;
    n.pin_is_late = n.parent != ALIVE;
    search_step(s, &n, label);
    if (n.pin_is_late) {
        n.pin_is_late = 0;
        search_step(s, &n, label);
    }
}

static void
fork_pin(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.forker = x->forker == FORK_PIN_AGAIN ? FORK_LOOK_AGAIN : FORK_LOOK;
    put_pin(s, n, "forker: PUT pin");
    n.forker = FORK_END;
    put_pin(s, n, "forker: PUT pin, the answer is lost; it gives up");
}

static void
fork_look(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.forker = x->parent == ALIVE ? FORK_IMPORT : FORK_TAKE_BACK;
    search_step(s, &n, "forker: GET the parent's chain");
}

// Reading the catalog and the records: also a volume that has just been destroyed shows here.
static void
fork_import(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.forker = x->parent == ALIVE ? FORK_CREATE : FORK_END;
    search_step(s, &n, "forker: imports the parent's generation");
}

static void
fork_create(struct search *s, const struct state *x)
{
    struct state n = *x;
    bool again = !search_is_mutated("no look after the child's creation");
    n.forker = again ? FORK_PIN_AGAIN : FORK_PUBLISH;
    if (x->child == NO_CHILD)
        n.child = CREATED;
    search_step(s, &n, "forker: creates the child's record 1");
    n.forker = FORK_END;
    search_step(s, &n, "forker: creates the child's record 1, the answer is lost; it gives up");
    n = *x;
    n.forker = FORK_END;
    n.late_create = 1;
    search_step(s, &n, "forker: gives up while the creation of record 1 is under way");
}

static void
fork_look_again(struct search *s, const struct state *x)
{
    struct state n = *x;
    bool other =
        x->parent == ANOTHER_VOLUME && search_is_mutated("the volume's id is not compared");
    n.forker = x->parent == ALIVE || other ? FORK_PUBLISH : FORK_TAKE_BACK;
    search_step(s, &n, "forker: GET the parent's chain once more");
}

static void
fork_publish(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.child = FORKED;
    n.forker = FORK_END;
    search_event(s, EVENT_FORKED);
    search_step(s, &n, "forker: creates the child's generation");
}

static void
fork_take_back(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.pin = 0;
    n.forker = FORK_END;
    search_step(s, &n, "forker: DELETE pin");
}

static void
step_forker(struct search *s, const struct state *x)
{
    static void (*const by_place[])(struct search *, const struct state *) = {
        [FORK_PIN] = fork_pin,
        [FORK_LOOK] = fork_look,
        [FORK_IMPORT] = fork_import,
        [FORK_CREATE] = fork_create,
        [FORK_PIN_AGAIN] = fork_pin,
        [FORK_LOOK_AGAIN] = fork_look_again,
        [FORK_PUBLISH] = fork_publish,
        [FORK_TAKE_BACK] = fork_take_back,
    };
    struct state n = *x;
    if (x->forker != FORK_END) {
        by_place[x->forker](s, x);
        n.forker = FORK_END;
        search_step(s, &n, "forker: dies");
    } else if (x->fork_tries < TRIES_MAX && x->child != FORKED) {
        n.fork_tries++;
        n.forker = FORK_PIN;
        search_step(s, &n, "forker: the same command again");
    }
    if (x->late_create) {
        n = *x;
        n.late_create = 0;
        if (n.child == NO_CHILD)
            n.child = CREATED;
        search_step(s, &n, "store: carries out the late creation");
    }
}

// ---- the destroyer ------------------------------------------------------------------------------

static void
refuse(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.destroyer = DESTROY_END;
    search_event(s, EVENT_REFUSED);
    search_step(s, &n, "destroyer: a fork needs the volume: refused");
}

static void
destroy_pins(struct search *s, const struct state *x)
{
    bool again = x->destroyer == DESTROY_PINS_AGAIN;
    struct state n = *x;
    bool counts = x->pin && !(again && x->pin_is_late);
    if (counts && !x->pin_is_old) {
        refuse(s, x);
        return;
    }
    n.seen_pin = counts;
    n.destroyer++;
    search_step(s, &n, "destroyer: LIST and HEAD pins");
}

static void
destroy_child(struct search *s, const struct state *x)
{
    struct state n = *x;
    bool blind =
        x->destroyer == DESTROY_CHILD_AGAIN && search_is_mutated("no second look for the fork");
    if (x->seen_pin && x->child != NO_CHILD && !blind) {
        refuse(s, x);
        return;
    }
    if (x->seen_pin)
        search_event(s, EVENT_LEFT_BEHIND);
    n.seen_pin = 0;
    n.destroyer++;
    search_step(s, &n, "destroyer: GET record 1 of the fork");
}

static void
destroy_mark(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.parent = MARKED;
    n.destroyer =
        search_is_mutated("no second look at the pins") ? DESTROY_BLOBS : DESTROY_PINS_AGAIN;
    search_step(s, &n, "destroyer: creates the mark");
    n.destroyer = DESTROY_END;
    search_step(s, &n, "destroyer: creates the mark, the answer is lost");
}

static void
destroy_blobs(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.blobs = 0;
    n.destroyer = DESTROY_OTHERS;
    search_event(s, EVENT_DESTROYED);
    search_step(s, &n, "destroyer: DELETE blobs");
}

static void
destroy_others(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.pin = 0;
    n.destroyer = DESTROY_LAST;
    search_step(s, &n, "destroyer: DELETE pins, catalogs, records");
}

static void
destroy_last(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.parent = NO_VOLUME;
    n.destroyer = DESTROY_END;
    search_step(s, &n, "destroyer: DELETE the mark");
}

static void
step_destroyer(struct search *s, const struct state *x)
{
    static void (*const by_place[])(struct search *, const struct state *) = {
        [DESTROY_PINS] = destroy_pins,
        [DESTROY_CHILD] = destroy_child,
        [DESTROY_MARK] = destroy_mark,
        [DESTROY_PINS_AGAIN] = destroy_pins,
        [DESTROY_CHILD_AGAIN] = destroy_child,
        [DESTROY_BLOBS] = destroy_blobs,
        [DESTROY_OTHERS] = destroy_others,
        [DESTROY_LAST] = destroy_last,
    };
    struct state n = *x;
    if (x->parent == NO_VOLUME || x->parent == ANOTHER_VOLUME)
        return;
    if (x->destroyer != DESTROY_END) {
        by_place[x->destroyer](s, x);
        n.destroyer = DESTROY_END;
        n.seen_pin = 0;
        search_step(s, &n, "destroyer: dies");
    } else if (x->destroy_tries < TRIES_MAX) {
        n.destroy_tries++;
        n.destroyer = x->parent == MARKED ? DESTROY_PINS_AGAIN : DESTROY_PINS;
        search_step(s, &n, "destroyer: the same command again");
    }
}

static void
steps(struct search *s, const void *state)
{
    const struct state *x = state;
    struct state n = *x;
    step_forker(s, x);
    step_destroyer(s, x);
    if (x->pin && !x->pin_is_old) {
        n.pin_is_old = 1;
        search_step(s, &n, "time: a day passes");
    }
    if (x->parent == NO_VOLUME) {
        n = *x;
        n.parent = ANOTHER_VOLUME;
        search_step(s, &n, "another host: makes a new volume in the parent's place");
    }
}

static const char *
fault(const void *state)
{
    const struct state *x = state;
    return x->child == FORKED && !x->blobs ? "the fork is there, and its parent's blobs are gone"
                                           : NULL;
}

const struct protocol protocol_fork = {
    .name = "fork",
    .bytes = sizeof(struct state),
    .begin = begin,
    .steps = steps,
    .fault = fault,
    .mutations = mutations,
    .events = events,
};
