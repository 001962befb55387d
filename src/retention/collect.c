// SPDX-License-Identifier: Apache-2.0
// One run:
//
//     1. learn the history, if a catalog was imported since; after a run that does not know whether
//        its record was created: create one that says nothing
//     2. list the pins
//     3. read the generations, and decide: which are expired now, which are brought back, which
//        are due (their grace is over and no pin holds them)
//     4. delete the blobs that only generations that are due needed
//     5. tell in one record: expired, brought back, done; deaths of old records anew, when they are
//        many
//     6. delete records, catalogs and leases that no reader needs
//     7. delete objects that the manifest does not know, and end pins of snapshots and forks that
//        were never finished
//
// After a death at any point the next run repeats a step: a run forgets blobs after it has deleted
// them, and a generation after its blobs.
#include "retention/collect.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "retention/unfinished.h"

#define DELETE_BLOBS_MAX 10000u
// A run tells the deaths of so many records anew as one, when the records stay only for them.
#define TOLD_RECORDS_MAX 64u
#define RETOLD_MAX       50000u
// Telling that so many more records may be missing is worth a record of its own.
#define LOWEST_STEP 16u
#define PRUNE_MAX   100000u
// An expiry is dated forward by up to this: no creation of a record takes longer.
#define FORWARD_MS ((uint64_t)5 * 60 * 1000)
// A pin that was written too late is taken back soon.
#define LATE_PIN_MS 60000u

struct row {
    struct generation_record g;
    bool pinned;   // by a pin that counts
    bool is_due;   // expired, its grace is over, no pin holds it
    bool is_freed; // its blobs are gone
};

struct run {
    const struct collect_options *options;
    struct collect_result *result;
    uint64_t now_ms;   // by the server's clock, when it was asked
    uint64_t asked_ms; // by the monotonic clock
    struct db_record db;
    struct retention_policy policy;
    struct row *rows; // in order of generations
    size_t count, capacity;
    struct remote_pins pins;
    struct change *changes;
    size_t change_count, change_capacity;
};

// ---- reading ------------------------------------------------------------------------------------

static int
take_row(void *argument, const struct generation_record *g)
{
    struct run *run = argument;
    if (run->count == run->capacity) {
        run->capacity = run->capacity ? run->capacity * 2 : 256;
        run->rows = memory_realloc(run->rows, run->capacity * sizeof(*run->rows));
    }
    run->rows[run->count++] = (struct row){.g = *g};
    return 0;
}

int
collect_policy(struct manifest_reader *r, struct db_id db, struct retention_policy *policy_out)
{
    int rc = manifest_read_retention(r, db, policy_out);
    if (rc != -ENOENT)
        return rc;
    *policy_out = (struct retention_policy){.keep_all = 1, .grace_ms = retention_default.grace_ms};
    return 0;
}

static int
read_manifest(struct run *run)
{
    const struct collect_options *o = run->options;
    struct manifest_reader *r;
    int rc = manifest_read_begin(o->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_db(r, o->db, &run->db);
    if (rc == 0)
        rc = manifest_read_generations(r, o->db, (struct generation){0}, take_row, run);
    if (rc == 0)
        rc = collect_policy(r, o->db, &run->policy);
    manifest_read_end(r);
    return rc;
}

static int
ask_time(struct run *run)
{
    const struct collect_options *o = run->options;
    run->now_ms = o->now_ms;
    run->asked_ms = clock_monotonic_ms();
    return run->now_ms ? 0 : remote_server_time(o->place, &run->now_ms);
}

// ---- deciding -----------------------------------------------------------------------------------

static struct row *
find_row(struct run *run, struct generation generation)
{
    size_t low = 0;
    size_t high = run->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (run->rows[middle].g.generation.v < generation.v)
            low = middle + 1;
        else
            high = middle;
    }
    return low < run->count && run->rows[low].g.generation.v == generation.v ? &run->rows[low]
                                                                             : NULL;
}

static void
say(struct run *run, enum collect_event_kind kind, const struct generation_record *g,
    const struct blob_record *blob)
{
    const struct collect_event event = {.kind = kind, .generation = g, .blob = blob};
    if (run->options->event)
        run->options->event(run->options->argument, &event);
}

static struct change *
add_change(struct run *run, enum change_kind kind)
{
    if (run->change_count == run->change_capacity) {
        run->change_capacity = run->change_capacity ? run->change_capacity * 2 : 64;
        run->changes = memory_realloc(run->changes, run->change_capacity * sizeof(*run->changes));
    }
    struct change *c = &run->changes[run->change_count++];
    *c = (struct change){.kind = kind};
    return c;
}

// A pin of a generation that has expired counts when it was written before: a host that wrote it
// later has found, or will find, that the generation has expired. Until then the run deletes
// nothing.
static void
judge_late_pin(struct run *run, const struct remote_pin *pin, struct row *row, uint64_t age_ms)
{
    uint64_t expired_for_ms = run->now_ms > row->g.expired_ms ? run->now_ms - row->g.expired_ms : 0;
    if (age_ms < expired_for_ms)
        return;
    log_info("retention.brought_back",
        "generation %" PRIu64 " had expired and is kept: the %s %s is older than that",
        pin->generation.v, pin_kind_name(pin->kind), pin->name);
    row->g.state = GENERATION_RETAINED;
    row->g.expired_ms = 0;
    run->result->brought_back++;
    say(run, COLLECT_BRING_BACK, &row->g, NULL);
    add_change(run, CHANGE_PUT_GENERATION)->published = row->g;
}

static int
judge_pin(struct run *run, const struct remote_pin *pin)
{
    const struct collect_options *o = run->options;
    struct row *row = find_row(run, pin->generation);
    uint64_t age_ms = 0;
    bool expired = row && row->g.state == GENERATION_EXPIRED;
    int rc = 0;
    if (pin->kind == PIN_READER || expired)
        rc = remote_pin_age(o->place, pin, &age_ms);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (pin->kind == PIN_READER && age_ms > READER_PIN_MS)
        return o->flags & COLLECT_DRY_RUN ? 0 : remote_pin_delete(o->place, pin);
    run->result->pins++;
    if (row)
        row->pinned = true;
    if (expired)
        judge_late_pin(run, pin, row, age_ms);
    return 0;
}

static int
judge_pins(struct run *run)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < run->pins.count; i++)
        rc = judge_pin(run, &run->pins.pins[i]);
    return rc;
}

static void
expire(struct run *run, struct row *row)
{
    row->g.state = GENERATION_EXPIRED;
    row->g.expired_ms = run->now_ms;
    run->result->expired_now++;
    say(run, COLLECT_EXPIRE, &row->g, NULL);
    add_change(run, CHANGE_PUT_GENERATION)->published = row->g;
}

static void
apply_policy(struct run *run)
{
    struct generation_record *generations = memory_alloc((run->count + 1) * sizeof(*generations));
    unsigned *reasons = memory_alloc((run->count + 1) * sizeof(*reasons));
    for (size_t i = 0; i < run->count; i++)
        generations[i] = run->rows[i].g;
    retention_choose(&run->policy, generations, run->count, run->now_ms, reasons);
    for (size_t i = 0; i < run->count; i++) {
        struct row *row = &run->rows[i];
        if (row->g.state == GENERATION_EXPIRED) {
            uint64_t end_ms = row->g.expired_ms + run->policy.grace_ms;
            row->is_due = !row->pinned && end_ms >= row->g.expired_ms && end_ms <= run->now_ms;
            continue;
        }
        // The published generation is the newest, even if the times differ.
        if (reasons[i] == 0 && !row->pinned && row->g.generation.v < run->db.published.v)
            expire(run, row);
    }
    free(generations);
    free(reasons);
}

// ---- blobs --------------------------------------------------------------------------------------

// Blobs that died after `from` and up to `to` and were born after `before`.
struct gathering {
    struct run *run;
    struct generation before;
    struct dead_blob *blobs;
    size_t count;
    struct manifest_reader *reader;
};

static int
gather_dead(void *argument, const struct dead_blob *dead)
{
    struct gathering *g = argument;
    struct blob_record alive;
    if (dead->blob.generation.v <= g->before.v)
        return 0;
    int rc = manifest_read_blob(g->reader, g->run->options->db, &dead->blob.hash, &alive);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    // It came back to life and no record has told so yet.
    if (rc == 0 && blob_is_same_object(&alive, &dead->blob))
        return 0;
    g->blobs[g->count++] = *dead;
    return g->count == DELETE_BLOBS_MAX ? 1 : 0;
}

// The owner of another volume deletes the blobs in that volume's part of the store.
static bool
is_own(const struct blob_record *blob)
{
    return blob->where < BLOB_WHERE_NAMED;
}

static void
count_blob(struct run *run, const struct blob_record *blob)
{
    if (!is_own(blob))
        return;
    run->result->blobs++;
    run->result->blob_bytes += blob->bytes;
}

static int
note_gone(void *argument, const struct dead_blob *blobs, size_t count)
{
    struct run *run = argument;
    const struct collect_options *o = run->options;
    crash_point("retention.blobs_deleted");
    struct manifest_batch *b = manifest_batch_new(o->db);
    for (size_t i = 0; i < count; i++) {
        const struct blob_record *blob = &blobs[i].blob;
        const struct blob_identity identity = blob_identity_of(blob);
        manifest_batch_dead_gone(b, &identity);
        count_blob(run, blob);
    }
    return manifest_submit(o->manifest, b, NULL);
}

static int
gather(struct gathering *g, struct generation from, struct generation to)
{
    const struct collect_options *o = g->run->options;
    g->count = 0;
    int rc = manifest_read_begin(o->manifest, &g->reader);
    if (rc < 0)
        return rc;
    rc = manifest_read_dead_blobs(g->reader, o->db, from, to, gather_dead, g);
    manifest_read_end(g->reader);
    return rc;
}

// Deletes blobs that died in (from, to] and were born after `before`; `needed_by` needed them last.
static int
free_range(struct run *run, struct generation before, struct generation from, struct generation to,
    const struct generation_record *needed_by)
{
    const struct collect_options *o = run->options;
    struct gathering g = {.run = run, .before = before};
    g.blobs = memory_alloc(DELETE_BLOBS_MAX * sizeof(*g.blobs));
    int rc;
    do {
        rc = gather(&g, from, to);
        for (size_t i = 0; rc >= 0 && i < g.count; i++)
            if (is_own(&g.blobs[i].blob))
                say(run, COLLECT_BLOB, needed_by, &g.blobs[i].blob);
        if (rc < 0 || g.count == 0)
            break;
        if (o->flags & COLLECT_DRY_RUN) {
            for (size_t i = 0; i < g.count; i++)
                count_blob(run, &g.blobs[i].blob);
            break;
        }
        int delete_rc =
            remote_blobs_delete(o->place, o->manifest, o->db, g.blobs, g.count, note_gone, run);
        if (delete_rc < 0)
            rc = delete_rc;
    } while (rc > 0);
    free(g.blobs);
    return rc < 0 ? rc : 0;
}

// The neighbours of a generation among those that are not freed.
static struct generation
kept_below(const struct run *run, size_t i)
{
    while (i-- > 0)
        if (!run->rows[i].is_freed)
            return run->rows[i].g.generation;
    return (struct generation){0};
}

static struct generation
kept_above(const struct run *run, size_t i)
{
    while (++i < run->count)
        if (!run->rows[i].is_freed)
            return run->rows[i].g.generation;
    return run->db.published;
}

// A generation needs the blobs that were born up to it and died after it. The next generation that
// stays does not need blobs that died before it, and the previous one does not need blobs that were
// born after it.
static int
free_due(struct run *run)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < run->count; i++) {
        struct row *row = &run->rows[i];
        if (!row->is_due || row->g.generation.v >= run->db.published.v)
            continue;
        say(run, COLLECT_FREE, &row->g, NULL);
        rc = free_range(run, kept_below(run, i), row->g.generation, kept_above(run, i), &row->g);
        if (rc < 0)
            break;
        row->is_freed = true;
        run->result->freed++;
        add_change(run, CHANGE_DELETE_GENERATION)->published.generation = row->g.generation;
    }
    return rc;
}

// Blobs that were born and died between two published generations: no generation ever needed them.
static int
free_unneeded(struct run *run)
{
    // A sweep looks at all: some deaths are told late.
    uint64_t scanned = run->options->flags & COLLECT_SWEEP ? 0 : run->options->scanned.v;
    struct generation below = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < run->count; i++) {
        struct generation g = run->rows[i].g.generation;
        if (run->rows[i].is_freed || g.v > run->db.published.v)
            continue;
        if (g.v > scanned)
            rc = free_range(run, below, below, g, NULL);
        below = g;
    }
    run->result->scanned = rc == 0 ? below : run->options->scanned;
    return rc;
}

// ---- telling ------------------------------------------------------------------------------------

struct told {
    uint64_t *sequences;
    size_t count, capacity;
    uint64_t deaths;
};

static int
take_told(void *argument, uint64_t sequence, uint64_t deaths)
{
    struct told *t = argument;
    if (t->count == t->capacity) {
        t->capacity = t->capacity ? t->capacity * 2 : 256;
        t->sequences = memory_realloc(t->sequences, t->capacity * sizeof(*t->sequences));
    }
    t->sequences[t->count++] = sequence;
    t->deaths += deaths;
    return 0;
}

static int
read_told(struct run *run, struct told *told)
{
    struct manifest_reader *r;
    int rc = manifest_read_begin(run->options->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_told(r, run->options->db, take_told, told);
    manifest_read_end(r);
    return rc;
}

struct retelling {
    struct run *run;
    uint64_t below; // deaths that records below this one told
};

static int
retell(void *argument, const struct dead_blob *dead)
{
    struct retelling *t = argument;
    if (dead->told >= t->below)
        return 0;
    add_change(t->run, CHANGE_PUT_BLOB)->blob = dead->blob;
    return t->run->change_count >= RETOLD_MAX;
}

// Many small records that stay for their deaths become one. It costs as much as there are deaths,
// so that it waits until the records are many beside them.
static int
retell_old(struct run *run, uint64_t lowest)
{
    struct told told = {0};
    int rc = read_told(run, &told);
    size_t old = 0;
    while (old < told.count && told.sequences[old] < lowest)
        old++;
    bool worth = old > TOLD_RECORDS_MAX && old > told.deaths / 256;
    free(told.sequences);
    if (rc < 0 || !worth)
        return rc;
    struct manifest_reader *r;
    struct retelling t = {run, lowest};
    rc = manifest_read_begin(run->options->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_dead_blobs(
        r, run->options->db, (struct generation){0}, (struct generation){UINT64_MAX}, retell, &t);
    manifest_read_end(r);
    return rc < 0 ? rc : 0;
}

// A host that has pinned a generation relies on it if no record expires it yet. So an expiry counts
// from a time when the record is there: a later run takes each pin from before that time for one
// that counts. It is safe, because no run deletes anything of the generation before that time, and
// each later run sees those pins.
static void
date_expiries(struct run *run)
{
    uint64_t forward_ms =
        run->policy.grace_ms / 2 < FORWARD_MS ? run->policy.grace_ms / 2 : FORWARD_MS;
    uint64_t when_ms = run->now_ms + (clock_monotonic_ms() - run->asked_ms) + forward_ms;
    for (size_t i = 0; i < run->change_count; i++) {
        struct change *c = &run->changes[i];
        if (c->kind == CHANGE_PUT_GENERATION && c->published.state == GENERATION_EXPIRED)
            c->published.expired_ms = when_ms;
    }
}

static int
tell_changes(struct run *run, uint64_t lowest)
{
    const struct collect_options *o = run->options;
    date_expiries(run);
    int rc = o->tell ? o->tell(o->argument, run->changes, run->change_count, lowest)
                     : remote_manifest_tell(
                           o->place, o->manifest, o->db, run->changes, run->change_count, lowest);
    // -ESTALE: another record has the place.
    run->result->unsure = rc < 0 && rc != -ESTALE;
    return rc;
}

// The record of the run before may come to be late, when its request was under way for long. It
// says perhaps that a generation is brought back whose blobs this run deletes. A record that says
// nothing takes its place.
static int
make_sure(struct run *run)
{
    run->result->unsure = run->options->unsure;
    return run->options->unsure && !(run->options->flags & COLLECT_DRY_RUN) ? tell_changes(run, 0)
                                                                            : 0;
}

static int
tell(struct run *run)
{
    const struct collect_options *o = run->options;
    uint64_t lowest = 0;
    int rc = 0;
    if (o->flags & COLLECT_PRUNE)
        rc = remote_chain_lowest(o->place, &run->db, &lowest);
    if (rc == 0 && lowest > 0)
        rc = retell_old(run, lowest);
    bool worth = run->change_count > 0 || lowest >= run->db.lowest_sequence + LOWEST_STEP;
    if (rc < 0 || !worth || (o->flags & COLLECT_DRY_RUN))
        return rc;
    return tell_changes(run, lowest);
}

// ---- the chain and the rest ---------------------------------------------------------------------

static int
prune(struct run *run)
{
    const struct collect_options *o = run->options;
    struct told told = {0};
    uint64_t *sequences = memory_alloc((run->count + 1) * sizeof(*sequences));
    size_t n = 0;
    for (size_t i = 0; i < run->count; i++)
        if (!run->rows[i].is_freed)
            sequences[n++] = run->rows[i].g.sequence;
    int rc = read_told(run, &told);
    const struct remote_chain_use use = {
        .sequences = sequences,
        .count = n,
        .told = told.sequences,
        .told_count = told.count,
        .grace_ms = run->policy.grace_ms,
        .fence_ms = FENCE_MS,
        .limit = PRUNE_MAX,
        .dry_run = o->flags & COLLECT_DRY_RUN,
    };
    if (rc == 0)
        rc = remote_chain_prune(o->place, o->manifest, o->db, &use, &run->result->pruned);
    free(told.sequences);
    free(sequences);
    return rc;
}

static int
sweep(struct run *run)
{
    const struct collect_options *o = run->options;
    uint64_t grace_ms = run->policy.grace_ms > ORPHAN_MS ? run->policy.grace_ms : ORPHAN_MS;
    const struct unfinished_options unfinished = {
        .place = o->place,
        .manifest = o->manifest,
        .db = o->db,
        .pins = &run->pins,
        .age_ms = ORPHAN_MS,
        .reader_pin_ms = READER_PIN_MS,
        .dry_run = o->flags & COLLECT_DRY_RUN,
    };
    int rc = remote_orphans_sweep(
        o->place, o->manifest, o->db, grace_ms, o->flags & COLLECT_DRY_RUN, &run->result->orphans);
    return rc < 0 ? rc : unfinished_sweep(&unfinished, &run->result->unfinished);
}

static void
note_due(struct run *run, const struct row *row)
{
    uint64_t *next_ms = &run->result->next_due_ms;
    uint64_t end_ms = row->g.expired_ms + run->policy.grace_ms;
    if (end_ms < row->g.expired_ms)
        return;
    if (row->pinned && end_ms < run->now_ms + LATE_PIN_MS)
        end_ms = run->now_ms + LATE_PIN_MS;
    if (*next_ms == 0 || end_ms < *next_ms)
        *next_ms = end_ms;
}

static void
count_rows(struct run *run)
{
    run->result->now_ms = run->now_ms;
    for (size_t i = 0; i < run->count; i++) {
        if (run->rows[i].is_freed)
            continue;
        if (run->rows[i].g.state == GENERATION_EXPIRED)
            note_due(run, &run->rows[i]);
        run->result->retained += run->rows[i].g.state == GENERATION_RETAINED;
        run->result->expired += run->rows[i].g.state == GENERATION_EXPIRED;
    }
}

static int
run_steps(struct run *run)
{
    const struct collect_options *o = run->options;
    int rc = remote_manifest_learn_history(o->place, o->manifest, o->db);
    if (rc == 0)
        rc = make_sure(run);
    if (rc == 0)
        rc = ask_time(run);
    // The pins first: a host that writes one later finds the expired generations in the chain.
    if (rc == 0)
        rc = remote_pins_read(o->place, &run->pins);
    if (rc == 0)
        rc = read_manifest(run);
    if (rc == 0 && (run->db.fenced || run->db.epoch == 0))
        rc = -ESTALE;
    if (rc == 0)
        rc = judge_pins(run);
    if (rc < 0)
        return rc;
    apply_policy(run);
    rc = free_due(run);
    if (rc == 0)
        rc = free_unneeded(run);
    if (rc == 0)
        rc = tell(run);
    if (rc == 0)
        crash_point("retention.run_told");
    if (rc == 0 && (o->flags & COLLECT_PRUNE))
        rc = prune(run);
    if (rc == 0 && (o->flags & COLLECT_SWEEP))
        rc = sweep(run);
    return rc;
}

int
collect_run(const struct collect_options *options, struct collect_result *result_out)
{
    struct run run = {.options = options, .result = result_out};
    *result_out = (struct collect_result){.scanned = options->scanned};
    int rc = run_steps(&run);
    count_rows(&run);
    remote_pins_free(&run.pins);
    free(run.rows);
    free(run.changes);
    return rc;
}
