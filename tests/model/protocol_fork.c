// SPDX-License-Identifier: Apache-2.0
// Forking a volume against destroying it, and against the parent's owner, who sweeps pins and empty
// forks that were never finished, and deletes the generation when it sees no pin
// (volume/volume_fork.c, remote/remote_destroy.c, retention/unfinished.c). The commands may die and
// be given again. A new volume may be made where the destroyed one was.
#include "protocol.h"

#define FORKS_MAX    3
#define DESTROYS_MAX 3
#define RUNS_MAX     4
// With all actors.
#define FORKS_OF_ALL    2
#define DESTROYS_OF_ALL 2
#define RUNS_OF_ALL     3

enum parent { ALIVE, MARKED, NO_VOLUME, ANOTHER_VOLUME };
// ENDED: its newest record is the mark of a sweep. SWEPT: all of it has gone.
enum child { NO_CHILD, CREATED, FORKED, ENDED, SWEPT };
enum chain { RETAINED, EXPIRED, DELETED };
enum forker_at {
    FORK_PIN,
    FORK_LOOK,
    FORK_IMPORT,
    FORK_CREATE,
    FORK_PIN_MADE,
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

// In the order of their steps.
enum owner_at {
    OWN_LIST,
    OWN_LOOK, // at the fork of an old pin
    OWN_UNPIN,
    OWN_END_FORK,
    OWN_COLLECT,
    OWN_END
};

struct pin {
    uint8_t there;   // is in the bucket
    uint8_t is_old;  // older than a day
    uint8_t is_late; // younger than the mark
};

struct state {
    uint8_t parent, child;
    uint8_t child_is_old; // its newest record is
    uint8_t blobs;
    uint8_t chain;
    struct pin pin, made; // the first and the second one
    uint8_t owner, runs_left;
    uint8_t saw_pin;    // the listing of the run
    uint8_t second;     // the old pin at which it looks is the second one
    uint8_t late_unpin; // of the first pin; the owner's process has died
    uint8_t has_destroyer, has_owner;
    uint8_t late_create; // a request of the forker is under way
    uint8_t forker, forks_left;
    uint8_t destroyer, destroys_left;
    uint8_t seen_pin; // the destroyer has listed a pin that is old: does its fork exist?
};

#define MUTATIONS_OF_DESTRUCTION                                                                   \
    "no look after the child's creation", /* the forker was asleep for a day */                    \
        "no second look at the pins",     /* after the mark */                                     \
        "no second look for the fork",                                                             \
        "the volume's id is not compared" /* in the look after the child's creation */
#define MUTATIONS_OF_SWEEPS                                                                        \
    "there is no second pin",                                                                      \
        "a sweep ends forks without their chain" /* deletes the pins of an empty fork at once */

static const char *const mutations_of_destruction[] = {MUTATIONS_OF_DESTRUCTION, NULL};
static const char *const mutations_of_sweeps[] = {MUTATIONS_OF_SWEEPS, NULL};
static const char *const all_mutations[] = {MUTATIONS_OF_DESTRUCTION, MUTATIONS_OF_SWEEPS, NULL};

enum {
    EVENT_FORKED,
    EVENT_DESTROYED,
    EVENT_LEFT_BEHIND,
    EVENT_REFUSED,
    EVENT_SWEPT,
    EVENT_SWEPT_FORK,
    EVENT_COLLECTED
};
static const char *const events[] = {
    "the fork is made",
    "the parent is destroyed",
    "a pin that was left behind is passed over",
    "the destroyer is refused",
    "a sweep deletes the pin of a fork that is not there",
    "a sweep destroys a fork that was never finished",
    "the generation is deleted",
    NULL,
};

static void
begin_with(struct state *x, unsigned forks, unsigned destroys, unsigned runs)
{
    x->blobs = 1;
    x->owner = OWN_END;
    x->forks_left = (uint8_t)forks;
    x->destroys_left = (uint8_t)destroys;
    x->runs_left = (uint8_t)runs;
    x->has_destroyer = destroys > 0;
    x->has_owner = runs > 0;
    x->destroyer = DESTROY_END;
}

static void
begin_destruction(void *state)
{
    begin_with(state, FORKS_MAX, DESTROYS_MAX, 0);
}

static void
begin_sweeps(void *state)
{
    begin_with(state, FORKS_MAX, 0, RUNS_MAX);
}

static void
begin_all(void *state)
{
    begin_with(state, FORKS_OF_ALL, DESTROYS_OF_ALL, RUNS_OF_ALL);
}

// ---- the forker ---------------------------------------------------------------------------------

// Times of servers are rough: a pin that was written just after the mark may look older.
static void
put_pin(struct search *s, struct state n, bool second, const char *label)
{
    struct pin *pin = second ? &n.made : &n.pin;
    *pin = (struct pin){.there = 1, .is_late = n.parent != ALIVE};
    search_step(s, &n, label);
    if (pin->is_late) {
        pin->is_late = 0;
        search_step(s, &n, label);
    }
}

static void
fork_pin(struct search *s, const struct state *x)
{
    struct state n = *x;
    bool second = x->forker == FORK_PIN_MADE;
    n.forker = x->forker == FORK_PIN ? FORK_LOOK : x->forker + 1;
    put_pin(s, n, second, "forker: PUT pin");
    n.forker = FORK_END;
    put_pin(s, n, second, "forker: PUT pin, the answer is lost; it gives up");
}

static void
fork_look(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.forker = x->parent == ALIVE && x->chain == RETAINED ? FORK_IMPORT : FORK_TAKE_BACK;
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
    bool second = !search_is_mutated("there is no second pin");
    n.forker = again ? second ? FORK_PIN_MADE : FORK_PIN_AGAIN : FORK_PUBLISH;
    if (x->child == ENDED || x->child == SWEPT) {
        n.forker = FORK_END;
        search_step(s, &n, "forker: the child is being destroyed");
        return;
    }
    if (x->child == NO_CHILD) {
        n.child = CREATED;
        n.child_is_old = 0;
    }
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
    bool there = x->parent == ALIVE && x->chain == RETAINED;
    n.forker = there || other ? FORK_PUBLISH : FORK_TAKE_BACK;
    search_step(s, &n, "forker: GET the parent's chain once more");
}

static void
fork_publish(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.forker = FORK_END;
    if (x->child != CREATED) {
        // The mark is in the place; or the records are those of no volume, and go.
        search_step(s, &n, "forker: the child is destroyed");
        return;
    }
    n.child = FORKED;
    search_event(s, EVENT_FORKED);
    search_step(s, &n, "forker: creates the child's generation");
}

static void
fork_take_back(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.pin.there = 0;
    n.made.there = 0;
    n.forker = FORK_END;
    search_step(s, &n, "forker: DELETE pins");
}

static void
step_forker(struct search *s, const struct state *x)
{
    static void (*const by_place[])(struct search *, const struct state *) = {
        [FORK_PIN] = fork_pin,
        [FORK_LOOK] = fork_look,
        [FORK_IMPORT] = fork_import,
        [FORK_CREATE] = fork_create,
        [FORK_PIN_MADE] = fork_pin,
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
    } else if (x->forks_left > 0 && x->child < FORKED) {
        n.forks_left--;
        n.forker = FORK_PIN;
        search_step(s, &n, "forker: the same command again");
    }
    if (x->late_create) {
        n = *x;
        n.late_create = 0;
        if (n.child == NO_CHILD) {
            n.child = CREATED;
            n.child_is_old = 0;
        }
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
    bool first = x->pin.there && !(again && x->pin.is_late);
    bool second = x->made.there && !(again && x->made.is_late);
    if ((first && !x->pin.is_old) || (second && !x->made.is_old)) {
        refuse(s, x);
        return;
    }
    n.seen_pin = first || second;
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
    n.pin.there = 0;
    n.made.there = 0;
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
    } else if (x->destroys_left > 0) {
        n.destroys_left--;
        n.destroyer = x->parent == MARKED ? DESTROY_PINS_AGAIN : DESTROY_PINS;
        search_step(s, &n, "destroyer: the same command again");
    }
}

// ---- the parent's owner -------------------------------------------------------------------------

static void
own_list(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.saw_pin = x->pin.there || x->made.there;
    n.owner = OWN_LOOK;
    n.second = 0;
    if (x->pin.there && x->pin.is_old)
        search_step(s, &n, "owner: LIST and HEAD pins");
    n.second = 1;
    if (x->made.there && x->made.is_old)
        search_step(s, &n, "owner: LIST and HEAD pins, takes the second");
    n.second = 0;
    n.owner = OWN_COLLECT;
    search_step(s, &n, "owner: LIST pins");
}

static void
own_look(struct search *s, const struct state *x)
{
    struct state n = *x;
    bool at_once = search_is_mutated("a sweep ends forks without their chain");
    bool empty = x->child == ENDED || (x->child == CREATED && x->child_is_old);
    n.owner = OWN_COLLECT;
    if (x->child == NO_CHILD || x->child == SWEPT || (empty && at_once))
        n.owner = OWN_UNPIN;
    else if (empty)
        n.owner = OWN_END_FORK;
    search_step(s, &n, "owner: GET the fork's newest record");
}

static void
own_unpin(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.owner = OWN_COLLECT;
    if (x->second)
        n.made.there = 0;
    else
        n.pin.there = 0;
    search_event(s, EVENT_SWEPT);
    search_step(s, &n, "owner: DELETE pin");
    n = *x;
    n.owner = OWN_END;
    n.late_unpin = !x->second;
    search_step(s, &n, "owner: dies while the deletion of a pin is under way");
}

static void
own_end_fork(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.owner = OWN_COLLECT;
    if (x->child == CREATED) {
        n.child = ENDED;
        n.owner = OWN_END_FORK;
        search_step(s, &n, "owner: creates the mark of the fork");
    } else if (x->child == ENDED) {
        n.child = SWEPT;
        n.owner = OWN_UNPIN;
        search_event(s, EVENT_SWEPT_FORK);
        search_step(s, &n, "owner: DELETE the fork");
    } else {
        search_step(s, &n, "owner: another record is in the place of the mark");
    }
}

static void
own_collect(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.owner = OWN_END;
    if (!x->saw_pin && x->chain != DELETED)
        n.chain++;
    else if (x->saw_pin && x->chain == EXPIRED)
        n.chain = RETAINED;
    if (n.chain == DELETED) {
        n.blobs = 0;
        search_event(s, EVENT_COLLECTED);
    }
    search_step(s, &n, "owner: expires, deletes or brings back the generation");
}

static void
step_owner(struct search *s, const struct state *x)
{
    static void (*const by_place[])(struct search *, const struct state *) = {
        [OWN_LIST] = own_list,
        [OWN_LOOK] = own_look,
        [OWN_UNPIN] = own_unpin,
        [OWN_END_FORK] = own_end_fork,
        [OWN_COLLECT] = own_collect,
    };
    struct state n = *x;
    if (x->late_unpin) {
        n.late_unpin = 0;
        n.pin.there = 0;
        search_step(s, &n, "store: carries out the late deletion of the first pin");
    }
    n = *x;
    if (x->owner != OWN_END && x->parent == ALIVE) {
        by_place[x->owner](s, x);
        n.owner = OWN_END;
        search_step(s, &n, "owner: dies");
    } else if (x->runs_left > 0 && x->parent == ALIVE) {
        n.runs_left--;
        n.owner = OWN_LIST;
        search_step(s, &n, "owner: begins a run");
    }
}

static void
step_time(struct search *s, const struct state *x)
{
    struct state n = *x;
    if (x->late_create || x->late_unpin)
        return;
    n.pin.is_old = x->pin.there;
    n.made.is_old = x->made.there;
    n.child_is_old = x->child == CREATED;
    search_step(s, &n, "time: a day passes");
}

// What an actor that is not there would do need not happen.
static void
excuse(struct search *s, const struct state *x)
{
    for (unsigned event = EVENT_DESTROYED; event <= EVENT_COLLECTED; event++)
        if (event <= EVENT_REFUSED ? !x->has_destroyer : !x->has_owner)
            search_event(s, event);
}

static void
steps(struct search *s, const void *state)
{
    const struct state *x = state;
    struct state n = *x;
    excuse(s, x);
    step_forker(s, x);
    step_destroyer(s, x);
    step_owner(s, x);
    step_time(s, x);
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
    .begin = begin_destruction,
    .steps = steps,
    .fault = fault,
    .mutations = mutations_of_destruction,
    .events = events,
};

const struct protocol protocol_fork_swept = {
    .name = "fork-swept",
    .bytes = sizeof(struct state),
    .begin = begin_sweeps,
    .steps = steps,
    .fault = fault,
    .mutations = mutations_of_sweeps,
    .events = events,
};

const struct protocol protocol_fork_all = {
    .name = "fork-all",
    .bytes = sizeof(struct state),
    .begin = begin_all,
    .steps = steps,
    .fault = fault,
    .mutations = all_mutations,
    .events = events,
    .takes_long = true,
};
