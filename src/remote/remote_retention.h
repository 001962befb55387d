// SPDX-License-Identifier: Apache-2.0
// The life of what is in the bucket: which generations are kept, who pins them, and deleting the
// rest. The functions here say what is so and do what they are told; which generations go is
// decided in retention/. The rules, and why they are safe, stand in doc/retention.md.
//
// Whoever deletes is the owner of the volume: the db was claimed by this root and is not fenced,
// which is looked at before each batch. Only remote_manifest_tell must not run beside a publication
// of the same db; deleting may.
#ifndef CKPTFS_REMOTE_REMOTE_RETENTION_H
#define CKPTFS_REMOTE_REMOTE_RETENTION_H

#include "remote/remote_manifest.h"

// ---- telling ------------------------------------------------------------------------------------

// Creates the next record of the chain with these changes (generations, retention policy, deaths
// told anew) and applies them to the manifest in the transaction that records it. `lowest` (0: as
// before): records below this sequence may be missing from now on. -ESTALE: somebody else wrote a
// record, or this root does not own the volume: catch up. Any other error: it is not known whether
// the record is there; catching up finds out.
MUST_CHECK int remote_manifest_tell(const struct remote_place *place, struct manifest *m,
    struct db_id db, const struct change *changes, size_t count, uint64_t lowest);

// Milliseconds since 1970 by the server's clock: one request.
MUST_CHECK int remote_server_time(const struct remote_place *place, uint64_t *now_ms_out);

// ---- asking -------------------------------------------------------------------------------------

// What the bucket says of a volume's generations, without importing it.
struct remote_generations {
    struct generation_record *records; // in order
    size_t count;
    struct generation head; // the newest that is published; {0}: none
    bool has_policy;
    struct retention_policy policy;
    bool complete; // all that are kept are listed; false for volumes of programs before, of which
                   // older ones may exist, too
    struct uuid volume;
    uint64_t sequence; // of the newest record
};
void remote_generations_free(struct remote_generations *g);
// Reads of the newest catalog what it says of generations, and the records after it. -ENOENT: no
// such volume.
MUST_CHECK int remote_generations_read(
    const struct remote_place *place, struct remote_generations *generations_out);
// The record of a generation, or NULL when it is not known.
const struct generation_record *remote_generations_find(
    const struct remote_generations *g, struct generation generation);

// Reads all records that lie before the newest catalog and notes in the manifest what they tell of
// generations and deaths: for a root that imported a catalog. Does nothing when it has been done.
MUST_CHECK int remote_manifest_learn_history(
    const struct remote_place *place, struct manifest *m, struct db_id db);

// ---- pins ---------------------------------------------------------------------------------------
//
//     pins/{tenant}/{number}/{generation, 16 hex digits}-{kind}-{name}
//
// Who wants a generation to stay writes a pin and then looks whether the generation is retained;
// who expires a generation tells so and then looks for pins. One of the two sees the other.

enum pin_kind { PIN_SNAPSHOT = 1, PIN_FORK, PIN_READER };

#define PIN_NAME_BYTES_MAX 64u // of [A-Za-z0-9._-], and not beginning with '.'

struct remote_pin {
    enum pin_kind kind;
    struct generation generation;
    char name[PIN_NAME_BYTES_MAX + 1];
    const char *holder; // remote_pin_put: what the pin is for, for people; NULL: this host
};

const char *pin_kind_name(enum pin_kind kind);
bool pin_name_is_valid(const char *name);
// Fine when it is there already.
MUST_CHECK int remote_pin_put(const struct remote_place *place, const struct remote_pin *pin);
MUST_CHECK int remote_pin_delete(const struct remote_place *place, const struct remote_pin *pin);
// Milliseconds since the pin was written, by the server's clock. -ENOENT: it is gone.
MUST_CHECK int remote_pin_age(
    const struct remote_place *place, const struct remote_pin *pin, uint64_t *age_ms_out);
// What the pin is for, for people: a fork's name or a host. -ENOENT: it is gone.
MUST_CHECK int remote_pin_holder(
    const struct remote_place *place, const struct remote_pin *pin, struct buffer *holder_out);
struct remote_pins {
    struct remote_pin *pins; // in order of generations
    size_t count;
};
void remote_pins_free(struct remote_pins *p);
// -EBADMSG when something lies among the pins that is none: then nobody can say what is pinned.
MUST_CHECK int remote_pins_read(const struct remote_place *place, struct remote_pins *pins_out);

// ---- deleting -----------------------------------------------------------------------------------

// Deletes objects of dead blobs, in batches; places that are not the volume's own are left alone.
// Looks before each batch whether the volume is still this root's (-ESTALE when it is not).
// `done` is called for each batch that is gone.
typedef int remote_blobs_gone(void *argument, const struct dead_blob *blobs, size_t count);
MUST_CHECK int remote_blobs_delete(const struct remote_place *place, struct manifest *m,
    struct db_id db, const struct dead_blob *blobs, size_t count, remote_blobs_gone *gone,
    void *argument);

// What of the chain somebody may need.
struct remote_chain_use {
    const uint64_t *sequences; // of the generations that are kept, in order
    size_t count;
    const uint64_t *told; // records whose deaths have not been dealt with, in order
    size_t told_count;
    uint64_t grace_ms; // nothing younger goes
    uint64_t fence_ms; // nor, of records that keep a stalled writer away, what is younger than this
    size_t limit;      // objects that one call deletes at most
    bool dry_run;
};

struct remote_pruned {
    uint64_t records, catalogs, leases;
    uint64_t bytes;
    bool more; // the limit ended it
};

// Finds out (one listing) from where on all records stay, which is told in a record before anything
// below it is deleted.
MUST_CHECK int remote_chain_lowest(
    const struct remote_place *place, const struct db_record *db, uint64_t *lowest_out);
// Deletes records, catalogs and leases that nobody needs.
MUST_CHECK int remote_chain_prune(const struct remote_place *place, struct manifest *m,
    struct db_id db, const struct remote_chain_use *use, struct remote_pruned *pruned_out);

// Objects below the volume's part of checkpoints/ that nothing knows.
struct remote_orphans {
    uint64_t objects, bytes; // found and old enough
    uint64_t looked_at;
};
// Deletes what is unknown and older than `grace_ms`, unless `dry_run`. -EAGAIN: the history has not
// been learned. `grace_ms` is longer than any upload of this root takes.
MUST_CHECK int remote_orphans_sweep(const struct remote_place *place, struct manifest *m,
    struct db_id db, uint64_t grace_ms, bool dry_run, struct remote_orphans *orphans_out);

#endif
