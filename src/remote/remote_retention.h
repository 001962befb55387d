// SPDX-License-Identifier: Apache-2.0
// Generations, pins and deletion in the bucket. These functions read and change the bucket;
// retention/ decides which generations go. doc/retention.md has the rules, and the reasons why they
// are safe. Functions return 0 or -errno; any thread may call them.
//
// Only the owner deletes: this root claimed the db and is not fenced, which the functions check
// before each batch. remote_manifest_tell must not run beside a publication of the same db;
// deletions may.
#ifndef CKPTFS_REMOTE_REMOTE_RETENTION_H
#define CKPTFS_REMOTE_REMOTE_RETENTION_H

#include "remote/remote_manifest.h"

// ---- telling ------------------------------------------------------------------------------------

// Creates the next record of the chain with these changes (generations, retention policy, deaths
// told anew) and applies them to the manifest in the transaction that records it. `lowest` (0: as
// before): records below this sequence may be missing from now on. -ESTALE: another writer created
// a record, or this root does not own the volume: catch up. After any other error the record may be
// there; catching up finds out.
MUST_CHECK int remote_manifest_tell(const struct remote_place *place, struct manifest *m,
    struct db_id db, const struct change *changes, size_t count, uint64_t lowest);

// Milliseconds since 1970 by the server's clock: one request.
MUST_CHECK int remote_server_time(const struct remote_place *place, uint64_t *now_ms_out);

// ---- asking -------------------------------------------------------------------------------------

// The generations of a volume according to the bucket, without an import.
struct remote_generations {
    struct generation_record *records; // in order
    size_t count;
    struct generation head; // the newest that is published; {0}: none
    bool has_policy;
    struct retention_policy policy;
    bool complete; // `records` has all kept ones; false for volumes of old programs, which
                   // may have older generations, too
    struct uuid volume;
    uint64_t sequence; // of the newest record
};
void remote_generations_free(struct remote_generations *g);
// Reads the generations in the newest catalog, and the records after it. -ENOENT: no such volume.
MUST_CHECK int remote_generations_read(
    const struct remote_place *place, struct remote_generations *generations_out);
// The record of a generation, or NULL when it is not known.
const struct generation_record *remote_generations_find(
    const struct remote_generations *g, struct generation generation);

// Reads all records before the newest catalog, and notes their generations and deaths in the
// manifest: for a root that imported a catalog. Does nothing when the manifest has them already.
MUST_CHECK int remote_manifest_learn_history(
    const struct remote_place *place, struct manifest *m, struct db_id db);

// ---- pins ---------------------------------------------------------------------------------------
//
//     pins/{tenant}/{number}/{generation, 16 hex digits}-{kind}-{name}
//
// A program that needs a generation writes a pin and then looks whether the generation is retained;
// the owner that expires a generation tells so and then looks for pins. One of the two sees the
// other.

enum pin_kind { PIN_SNAPSHOT = 1, PIN_FORK, PIN_READER };

#define PIN_NAME_BYTES_MAX 64u // of [A-Za-z0-9._-], and not beginning with '.'

// A fork has two pins. The first one is named by the fork's id, and comes before the fork's first
// record; the second one has this ending, and comes after that record, before the command looks at
// the parent once more. So a first pin whose fork is not there is of no use to anybody, even if a
// command that is still under way wrote it.
#define PIN_MADE_ENDING ".made"

struct remote_pin {
    enum pin_kind kind;
    struct generation generation;
    char name[PIN_NAME_BYTES_MAX + 1];
    const char *holder; // remote_pin_put: the user of the pin, for people; NULL: this host
};

const char *pin_kind_name(enum pin_kind kind);
bool pin_name_is_valid(const char *name);
// Writes the pin anew when it is there already.
MUST_CHECK int remote_pin_put(const struct remote_place *place, const struct remote_pin *pin);
MUST_CHECK int remote_pin_delete(const struct remote_place *place, const struct remote_pin *pin);
// Milliseconds since the pin was written, by the server's clock. -ENOENT: it is gone.
MUST_CHECK int remote_pin_age(
    const struct remote_place *place, const struct remote_pin *pin, uint64_t *age_ms_out);
// The user of the pin, for people: a fork's name or a host. -ENOENT: it is gone.
MUST_CHECK int remote_pin_holder(
    const struct remote_place *place, const struct remote_pin *pin, struct buffer *holder_out);
// Whether the pin is the second one of its fork, and the second one to a first one.
bool remote_pin_is_made(const struct remote_pin *pin);
struct remote_pin remote_pin_of_made(const struct remote_pin *first);
// Deletes the pins of a fork among its parent's, wherever in the store the parent is: it looks for
// them below pins/ by the fork's id.
MUST_CHECK int remote_pins_release(
    const struct remote_place *place, const struct uuid *fork, uint64_t *released_out);
struct remote_pins {
    struct remote_pin *pins; // in order of generations
    size_t count;
};
void remote_pins_free(struct remote_pins *p);
// -EBADMSG when an object among the pins is none: then the set of pinned generations is unknown.
MUST_CHECK int remote_pins_read(const struct remote_place *place, struct remote_pins *pins_out);

// What there is in the place of a pin's fork. `child_out` is that place: `place` with the fork's
// tenant and number; the caller frees the tenant. `volume_out` is the id of the volume there.
enum remote_fork_state {
    FORK_UNKNOWN, // the pin does not say where the fork is, or what is there cannot be read
    FORK_MISSING, // no volume, or another one
    FORK_EMPTY,   // the fork without a generation: it was never finished
    FORK_MADE,
};
MUST_CHECK int remote_fork_look(const struct remote_place *place, const struct remote_pin *pin,
    struct remote_place *child_out, struct uuid *volume_out, enum remote_fork_state *state_out);

// ---- deleting -----------------------------------------------------------------------------------

// Whether this root still owns the volume: 0 or -ESTALE. To be asked before each deletion that
// another owner could mind.
MUST_CHECK int remote_owner_check(
    const struct remote_place *place, struct manifest *m, struct db_id db);

// Deletes objects of dead blobs, in batches; leaves other places than the volume's own alone. Looks
// before each batch whether this root still owns the volume (-ESTALE when not). Calls `gone` after
// each batch; its error ends the deletion.
typedef int remote_blobs_gone(void *argument, const struct dead_blob *blobs, size_t count);
MUST_CHECK int remote_blobs_delete(const struct remote_place *place, struct manifest *m,
    struct db_id db, const struct dead_blob *blobs, size_t count, remote_blobs_gone *gone,
    void *argument);

// The parts of the chain that a reader may need.
struct remote_chain_use {
    const uint64_t *sequences; // of the generations that are kept, in order
    size_t count;
    const uint64_t *told; // records with deaths whose objects are not deleted yet, in order
    size_t told_count;
    uint64_t grace_ms; // younger objects stay
    uint64_t fence_ms; // younger records that stop a stalled writer stay
    size_t limit;      // a call deletes at most this many objects
    bool dry_run;
};

struct remote_pruned {
    uint64_t records, catalogs, leases;
    uint64_t bytes;
    bool more; // the limit ended it
};

// Finds the sequence from which on all records stay (one listing). The caller tells it in a record
// before it deletes records below it.
MUST_CHECK int remote_chain_lowest(
    const struct remote_place *place, const struct db_record *db, uint64_t *lowest_out);
// Deletes records, catalogs and leases that no reader needs.
MUST_CHECK int remote_chain_prune(const struct remote_place *place, struct manifest *m,
    struct db_id db, const struct remote_chain_use *use, struct remote_pruned *pruned_out);

// Objects below the volume's part of checkpoints/ that are neither live nor known to be dead.
struct remote_orphans {
    uint64_t objects, bytes; // found and old enough
    uint64_t looked_at;
    uint64_t uploads; // in parts, which nobody completed; in a file store, temporary files
};
// Deletes those that are older than `grace_ms`, unless `dry_run`; aborts uploads that began so long
// ago and were not completed. -EAGAIN: the manifest does not
// know the history (remote_manifest_learn_history). `grace_ms` must be longer than any upload of
// this root.
MUST_CHECK int remote_orphans_sweep(const struct remote_place *place, struct manifest *m,
    struct db_id db, uint64_t grace_ms, bool dry_run, struct remote_orphans *orphans_out);

#endif
