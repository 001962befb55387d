// SPDX-License-Identifier: Apache-2.0
// Taking a volume over against CheckpointGC of the owner before (remote/remote_claim.c,
// remote/remote_prune.c, retention/collect.c). The old owner does not know that it was taken over:
// it deletes the blobs of an expired generation, and sweeps objects that its manifest lacks.
// The new owner rolls the volume back to that generation if it may, and uploads blobs of its own.
#include "protocol.h"

#define RUNS_MAX 2

enum generation { RETAINED, EXPIRED };
enum owner_at { RUN_BEGIN, RUN_CHECK, RUN_DELETE, SWEEP_LIST, SWEEP_CHECK, SWEEP_DELETE };
enum other_at { OTHER_IMPORT, OTHER_OPEN, OTHER_ROLL_BACK, OTHER_UPLOAD, OTHER_PUBLISH, OTHER_END };

struct state {
    uint8_t chain;         // what the records say about the generation
    uint8_t records;       // how many there are
    uint8_t is_taken;      // one of them is the other host's OPEN record
    uint8_t old_blob;      // of the generation: is in the bucket
    uint8_t old_is_needed; // the other host's newest generation needs it
    uint8_t new_blob;      // of the other host: is in the bucket
    uint8_t new_is_needed;
    uint8_t new_is_old; // a day has passed since
    uint8_t owner, runs;
    uint8_t known; // records that the owner knows
    uint8_t grace_over;
    uint8_t listed;                    // the sweep will delete the new blob
    uint8_t late_old, late_new;        // deletions that are under way
    uint8_t other, imported, believed; // records and the state of the generation at the import
};

static const char *const mutations[] = {
    "no look at the chain before a deletion",
    "one look at the chain, before the listing",
    "the new owner goes on from an old import",
    "a rollback to an expired generation",
    NULL,
};

enum { EVENT_DELETED, EVENT_STALE, EVENT_ROLLED_BACK, EVENT_PUBLISHED };
static const char *const events[] = {
    "the old owner deletes blobs",
    "the old owner finds out",
    "the new owner rolls back",
    "the new owner publishes",
    NULL,
};

static void
begin(void *state)
{
    struct state *x = state;
    x->old_blob = 1;
    x->records = x->known = 1;
}

// ---- the owner ----------------------------------------------------------------------------------

static void
end_run(struct search *s, struct state n, const char *label)
{
    n.owner = RUN_BEGIN;
    n.listed = 0;
    n.runs++;
    search_step(s, &n, label);
}

static void
owner_begin(struct search *s, const struct state *x)
{
    struct state n = *x;
    bool looks_first = search_is_mutated("one look at the chain, before the listing");
    if (x->chain == RETAINED && x->records == x->known) {
        n.chain = EXPIRED;
        n.records = ++n.known;
        search_step(s, &n, "owner: tells that the generation has expired");
    }
    if (x->chain == EXPIRED && x->grace_over && x->old_blob) {
        n = *x;
        n.owner = RUN_CHECK;
        search_step(s, &n, "owner: the grace of the generation is over");
    }
    n = *x;
    n.owner = SWEEP_LIST;
    if (!looks_first || x->records == x->known)
        search_step(s, &n, "owner: begins a sweep");
}

static void
owner_check(struct search *s, const struct state *x)
{
    struct state n = *x;
    bool blind =
        search_is_mutated("no look at the chain before a deletion") ||
        (search_is_mutated("one look at the chain, before the listing") && x->owner == SWEEP_CHECK);
    if (x->records > x->known && !blind) {
        search_event(s, EVENT_STALE);
        end_run(s, n, "owner: HEAD the next record: it was taken over");
        return;
    }
    n.owner++;
    search_step(s, &n, "owner: HEAD the next record: there is none");
}

static void
owner_delete(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.old_blob = 0;
    search_event(s, EVENT_DELETED);
    end_run(s, n, "owner: DELETE the generation's blob");
    n = *x;
    n.late_old = 1;
    end_run(s, n, "owner: dies while DELETE of the generation's blob is under way");
}

static void
owner_list(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.listed = x->new_blob && x->new_is_old;
    n.owner = SWEEP_CHECK;
    search_step(s, &n, "owner: LIST and HEAD objects");
}

static void
owner_sweep(struct search *s, const struct state *x)
{
    struct state n = *x;
    if (x->listed)
        n.new_blob = 0;
    end_run(s, n, "owner: DELETE unknown objects");
    n = *x;
    n.late_new = x->listed;
    end_run(s, n, "owner: dies while DELETE of unknown objects is under way");
}

static void
step_owner(struct search *s, const struct state *x)
{
    static void (*const by_place[])(struct search *, const struct state *) = {
        [RUN_BEGIN] = owner_begin,
        [RUN_CHECK] = owner_check,
        [RUN_DELETE] = owner_delete,
        [SWEEP_LIST] = owner_list,
        [SWEEP_CHECK] = owner_check,
        [SWEEP_DELETE] = owner_sweep,
    };
    if (x->runs < RUNS_MAX)
        by_place[x->owner](s, x);
}

// ---- the other host -----------------------------------------------------------------------------

static void
other_import(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.imported = x->records;
    n.believed = x->chain;
    n.other = OTHER_OPEN;
    search_step(s, &n, "other: imports the chain");
}

static void
other_open(struct search *s, const struct state *x)
{
    struct state n = *x;
    if (x->imported != x->records &&
        !search_is_mutated("the new owner goes on from an old import")) {
        n.other = OTHER_IMPORT;
        search_step(s, &n, "other: another record has the place of OPEN");
        return;
    }
    n.records++;
    n.is_taken = 1;
    n.other = OTHER_ROLL_BACK;
    search_step(s, &n, "other: creates OPEN");
    n.other = OTHER_UPLOAD;
    search_step(s, &n, "other: creates OPEN");
}

static void
other_roll_back(struct search *s, const struct state *x)
{
    struct state n = *x;
    n.other = OTHER_UPLOAD;
    if (x->believed == RETAINED || search_is_mutated("a rollback to an expired generation")) {
        n.records++;
        n.old_is_needed = 1;
        search_event(s, EVENT_ROLLED_BACK);
    }
    search_step(s, &n, "other: publishes a rollback to the generation, if it is retained");
}

static void
step_other(struct search *s, const struct state *x)
{
    struct state n = *x;
    switch (x->other) {
    case OTHER_IMPORT:
        other_import(s, x);
        break;
    case OTHER_OPEN:
        other_open(s, x);
        break;
    case OTHER_ROLL_BACK:
        other_roll_back(s, x);
        break;
    case OTHER_UPLOAD:
        n.new_blob = 1;
        n.other = OTHER_PUBLISH;
        search_step(s, &n, "other: PUT a new blob");
        break;
    case OTHER_PUBLISH:
        n.records++;
        n.new_is_needed = 1;
        n.other = OTHER_END;
        search_event(s, EVENT_PUBLISHED);
        search_step(s, &n, "other: publishes a generation with the new blob");
        break;
    default:
        break;
    }
}

static void
step_world(struct search *s, const struct state *x)
{
    struct state n = *x;
    if (x->chain == EXPIRED && !x->grace_over) {
        n.grace_over = 1;
        search_step(s, &n, "time: the grace is over");
    }
    n = *x;
    if (x->new_blob && !x->new_is_old) {
        n.new_is_old = 1;
        search_step(s, &n, "time: a day passes");
    }
    n = *x;
    if (x->late_old) {
        n.late_old = n.old_blob = 0;
        search_step(s, &n, "store: carries out the late DELETE of the generation's blob");
    }
    n = *x;
    if (x->late_new) {
        n.late_new = n.new_blob = 0;
        search_step(s, &n, "store: carries out the late DELETE of unknown objects");
    }
}

static void
steps(struct search *s, const void *state)
{
    step_owner(s, state);
    step_other(s, state);
    step_world(s, state);
}

static const char *
fault(const void *state)
{
    const struct state *x = state;
    if (x->old_is_needed && !x->old_blob)
        return "the new owner rolled back to a generation, and its blob is gone";
    if (x->new_is_needed && !x->new_blob)
        return "the new owner published a blob, and it is gone";
    return NULL;
}

PROTOCOL_DEFINE(takeover);
