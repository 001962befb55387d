// SPDX-License-Identifier: Apache-2.0
#ifndef CKPTFS_CHECKPOINT_CHECKPOINT_INTERNAL_H
#define CKPTFS_CHECKPOINT_CHECKPOINT_INTERNAL_H

#include <stdatomic.h>

#include "base/list.h"
#include "checkpoint/checkpoint.h"
#include "platform/thread.h"

struct checkpoint_request {
    struct list_node node;
    unsigned flags;
    checkpoint_done *done;
    void *argument;
    uint64_t asked_ms;            // monotonic
    struct generation generation; // that holds it, once folded
};

#define CHECKPOINT_THREADS 3u
#define KNOWN_CRCS         1024u

// State of folding between two folds. The lock of the checkpoint protects the first five; the rest
// belongs to the fold thread.
struct checkpoint_fold_state {
    struct condition work;
    bool pressed;
    int error;         // of the last fold
    uint64_t pause_ms; // no fold before this time, after a failed one
    uint64_t rooms;    // how often the fold was told that there may be room

    // A generation number that is durably taken, though nothing has it: the attempts that got it
    // failed before they recorded anything with it. 0: none.
    struct generation unused;

    // Chunks with old images that the fold in progress could not read. It takes nothing from these
    // chunks' images: it writes their changes as deltas. With `avoid_images` it does so for all
    // chunks.
    struct unreadable_chunk {
        struct object_id object;
        struct chunk_index index;
    } * unreadable;
    size_t unreadable_count;
    bool avoid_images;
    bool frugal; // the last fold had no room in the quota: the next one writes changed pages only

    bool cancelable;           // a fold is in flight that checkpoint_cancel can stop
    atomic_int cancel;         // enum cancel_reason, 0: it goes on. Any thread may read it
    struct manifest_note note; // for the change log
    bool own_places;           // checkpoint_own_places

    // The images that the fold in progress reads, from its plan on until they have been staged;
    // then those that it makes, until they are recorded. NULL: none. The fold thread's own.
    struct pin *pin;

    // The offer that the fold in progress has taken; NULL: none. The lock of the checkpoint
    // protects the pointer, which only the fold thread sets.
    struct checkpoint_offer *offer;

    // Blobs that a fold released while they were pinned.
    struct sha256 *unlink_later;
    size_t unlink_later_count;
};

// State of publishing between two publications, and facts about the one in progress for other
// threads. The lock of the checkpoint protects it, but for the last group.
struct checkpoint_publish_state {
    struct condition work;
    bool due;          // as soon as the back-off allows
    bool now;          // a request waits
    bool check_due;    // look for records of another writer
    uint64_t retry_ms; // not before
    uint64_t backoff_ms;
    uint64_t away_since_ms; // since when the store cannot be reached; 0: it can
    uint64_t upload_began_ms;
    bool claimed;
    uint64_t lease_until_ms, lease_until_wall_ms; // checkpoint_note_lease, by both clocks
    bool cancelable;                              // as those of the fold
    atomic_int cancel;
    // A thread stages and creates a record of the chain: for a publication, or to tell of deaths.
    bool chain_busy;
    struct condition chain_free;

    // checkpoint_damaged.c
    struct damaged_blob {
        struct sha256 hash;
        bool tried;
    } * damaged;
    size_t damaged_count;
    bool mending; // publication waits for a fold that does without them

    // checkpoint_bucket.c: the publish thread's own.
    uint64_t next_walk_ms;
    struct sha256 blob_cursor; // the next look at blobs begins here
    bool catalog_lost;         // the newest one: another is due

    // A publication that did not come to its end, perhaps an earlier process's, may have uploaded
    // blobs. The publish thread's own.
    bool uploads_begun;

    // The images that the publication in progress takes, and their generation; NULL: there is
    // none. The publish thread's own; others ask the pins of the local store.
    struct pin *pin;
};

struct checkpoint {
    struct checkpoint_options options;
    atomic_bool canceled; // calls to the store must end
    struct lease_map *leases;

    struct lock lock;      // "checkpoint": protects everything below
    struct job_record job; // the CreateCheckpoint job; id 0 when there is none
    struct condition sync_work;
    // Requests, in the order in which they pass through these.
    struct list_node unsynced; // wait for a sync of the kernel's cache
    struct list_node syncing;  // of the sync in progress
    struct list_node asked;    // wait for a fold
    struct list_node folding;  // of the fold in progress
    struct list_node folded;   // wait for publication
    struct list_node served;   // wait for the publication in progress, which began after them
    bool stopping;
    unsigned holds; // checkpoint_hold
    uint64_t next_timer_ms;
    struct checkpoint_offer *offer; // for the next fold; NULL: none
    struct checkpoint_numbers numbers;
    // checkpoint_crc.c
    struct known_crc {
        struct sha256 hash;
        uint32_t crc;
        bool known;
    } known_crcs[KNOWN_CRCS];

    struct checkpoint_fold_state fold;
    struct checkpoint_publish_state publish;

    struct thread threads[CHECKPOINT_THREADS];
    unsigned thread_count;
};

// checkpoint_chain.c: from staging a record to recording it, one at a time.
void checkpoint_take_chain(struct checkpoint *c);
void checkpoint_release_chain(struct checkpoint *c);

// checkpoint_cancel.c: leases of the fold and of the publication in flight.
void checkpoint_lease_plan(
    struct checkpoint *c, struct generation generation, const struct checkpoint_plan *plan);
void checkpoint_end_fold_lease(struct checkpoint *c);
void checkpoint_lease_publication(struct checkpoint *c, struct generation generation);
void checkpoint_end_publication_lease(struct checkpoint *c);
// A fold (or else publication) begins that can be cancelled, or has ended.
void checkpoint_set_cancelable(struct checkpoint *c, bool fold, bool cancelable);
// Asked by a fold now and then: 0, or -ECANCELED when it is to be given up.
MUST_CHECK int checkpoint_fold_go_on(struct checkpoint *c);
// The same for the last time, before a step that cannot be taken back.
MUST_CHECK int checkpoint_fold_commits(struct checkpoint *c);
MUST_CHECK int checkpoint_publication_commits(struct checkpoint *c);
// Tells the change log, and puts the job if it is JOB_FAILED now.
void checkpoint_record_cancel(
    struct checkpoint *c, struct job_record *job, enum cancel_reason reason);

// checkpoint_gather.c: the planner's input for a cut.
struct checkpoint_input {
    struct plan_chunk *chunks;
    size_t count;
    struct plan_delta *deltas; // all of them; chunks point in here
};
MUST_CHECK int checkpoint_gather(
    struct checkpoint *c, const struct checkpoint_cut *cut, struct checkpoint_input *input_out);
void checkpoint_input_free(struct checkpoint_input *input);

// checkpoint_restage.c: chunks with live images in unpublished packs that are mostly dead, or in
// damaged blobs; and those of the fold's offer.
struct restage_chunk {
    struct object_id object;
    struct chunk_index index;
    struct chunk_id id;
    bool base;   // the base lies there
    bool deltas; // some delta does
    bool upkeep; // it was offered
};
struct checkpoint_restage {
    struct restage_chunk *chunks; // in order of object and index; to be freed
    size_t count;
};
MUST_CHECK int checkpoint_find_restage(struct checkpoint *c, struct manifest_reader *r,
    struct generation publishing, struct checkpoint_restage *restage_out);
// The first of them at or behind this place, or NULL; those that follow are next in the array.
const struct restage_chunk *checkpoint_restage_from(
    const struct checkpoint_restage *restage, struct object_id object, struct chunk_index index);

// checkpoint_lost.c: lost pages of a chunk, while its image is written, and as runs.
struct lost_pages {
    uint64_t bits[CHUNK_PAGES / 64];
};
struct lost_runs {
    struct chunk_lost *runs; // to be freed
    size_t count;
};
static inline bool
lost_pages_has(const struct lost_pages *lost, uint32_t page)
{
    return lost->bits[page / 64] >> (page % 64) & 1;
}
static inline void
lost_pages_set(struct lost_pages *lost, uint32_t page, bool is_lost)
{
    uint64_t bit = 1ull << (page % 64);
    lost->bits[page / 64] = is_lost ? lost->bits[page / 64] | bit : lost->bits[page / 64] & ~bit;
}
// Takes the layout's; NULL: no chunk yet.
void lost_pages_begin(struct lost_pages *lost, const struct chunk_layout *layout);
uint32_t lost_pages_count(const struct lost_pages *lost);
void lost_pages_cut(struct lost_pages *lost, uint32_t end); // none from there on
void lost_pages_runs(const struct lost_pages *lost, struct lost_runs *runs_out);

// checkpoint_stage.c: the images of a plan as blob files in a scratch directory.
struct staged_image {
    const struct chunk_action *action;
    size_t blob; // index into blobs
    uint64_t offset;
    struct blob_image_info info;
    uint32_t present_pages;
    struct lost_runs lost;  // of the chunk, with this image
    uint32_t newly_lost;    // pages of them that were not lost before
    struct chunk_id chunk;  // once it is recorded, as all below
    bool exists;            // the chunk is in the manifest already
    struct chunk_entry old; // then: its entry
};
struct staged_blob {
    char *path;   // NULL: there is no local copy
    uint32_t crc; // CRC-32C of the bytes as they were hashed
    struct blob_record record;
    enum staged_part {
        STAGED_HERE,
        STAGED_IN_STORE,     // uploaded by this staging
        STAGED_KNOWN_BEFORE, // the store had the same bytes already
    } part;
};
struct checkpoint_staging {
    struct staged_image *images;
    size_t image_count;
    struct staged_blob *blobs;
    size_t blob_count;
    uint64_t bytes;
};
MUST_CHECK int checkpoint_stage(struct checkpoint *c, const struct checkpoint_cut *cut,
    const struct checkpoint_plan *plan, const struct job_record *job, const char *directory,
    struct checkpoint_staging *staging_out);
// Reads every staged blob again and compares length and CRC-32C (decisions/0009).
MUST_CHECK int checkpoint_verify_staging(
    struct checkpoint *c, const struct checkpoint_staging *staging);

// checkpoint_part.c: parts of a checkpoint that has no room in the quota. A part is a pack that is
// in memory until it is in the store; there is no copy of it on the disk. No generation names it
// before the fold is recorded: after a death in between, the sweep of the bucket deletes it.
#define CHECKPOINT_PART_BYTES (16u << 20)
// Whether the fold in progress may stage in parts: it has been tried without, and this root may
// write to the store.
bool checkpoint_may_stage_in_parts(struct checkpoint *c);
// A file in memory, or -errno.
MUST_CHECK int checkpoint_part_open(void);
// Uploads the file as the blob, unless the store has the same bytes, and sets blob->part. -EDQUOT:
// not now (logged); -ECANCELED.
MUST_CHECK int checkpoint_part_upload(struct checkpoint *c, struct staged_blob *blob, int fd);
// Deletes the parts that the staging has uploaded, as far as no record of the manifest names them
// and the store can be reached.
void checkpoint_parts_discard(struct checkpoint *c, const struct checkpoint_staging *staging);

// Whether the action makes a base (or else a delta).
bool checkpoint_makes_base(const struct chunk_action *action);
void checkpoint_staging_free(struct checkpoint_staging *staging);

// checkpoint_unreadable.c: notes that the fold cannot read an old image of the chunk; tells whether
// a plan must do without the chunk's images.
void checkpoint_note_unreadable(struct checkpoint *c, const struct chunk_action *action);
bool checkpoint_avoids_images(
    const struct checkpoint *c, struct object_id object, struct chunk_index index);

// checkpoint_damaged.c: an upload failed with `error`. If the only copy is damaged, gets the blob
// back from the store if that has it (0), else asks for a fold without it (-EUCLEAN: the caller
// publishes again after that). Otherwise returns the error.
MUST_CHECK int checkpoint_explain_upload(struct checkpoint *c, const struct blob_record *blob,
    const char *key, const struct remote_call *call, int error);
bool checkpoint_is_damaged(struct checkpoint *c, const struct sha256 *hash);
// The damaged blobs that the next fold can do without. The caller frees the array.
struct sha256 *checkpoint_damaged_blobs(struct checkpoint *c, size_t *count_out);
// A fold that did without these has ended; `recorded`: it succeeded.
void checkpoint_damage_tried(
    struct checkpoint *c, const struct sha256 *hashes, size_t count, bool recorded);
// Whether an error says that bytes are gone, and not only that reading them failed this time.
bool checkpoint_is_unreadable(int rc);

// checkpoint_lost.c: puts the chunk's lost pages into the batch; logs newly lost ones.
struct staged_image;
MUST_CHECK int checkpoint_put_lost(struct checkpoint *c, struct manifest_batch *b,
    struct manifest_reader *r, struct generation generation, const struct chunk_action *action,
    const struct lost_runs *now);
void checkpoint_log_lost(const struct staged_image *image);

// checkpoint_crc.c: CRC-32Cs of blobs that were staged and verified, for their upload. recall:
// false when it has none for the hash.
void checkpoint_remember_crc(struct checkpoint *c, const struct staged_blob *blob);
bool checkpoint_recall_crc(struct checkpoint *c, const struct sha256 *hash, uint32_t *crc_out);

// checkpoint_image.c: writes one image of a chunk: fills in present_pages, lost and newly_lost.
MUST_CHECK int checkpoint_write_image(struct checkpoint *c, const struct checkpoint_cut *cut,
    const struct chunk_action *action, struct blob_writer *w, struct staged_image *image_out);

// checkpoint_fold.c: one local generation. 1 when there was nothing to fold.
MUST_CHECK int checkpoint_fold(struct checkpoint *c, struct generation *generation_out);

// checkpoint_publish.c: one attempt. 1: published; 0: there was nothing to publish; in both cases
// with the generation in the store. -ESTALE when another writer has taken the volume; with `ask` it
// asks the store about that also when there is nothing to publish.
MUST_CHECK int checkpoint_publish(
    struct checkpoint *c, bool ask, struct generation *generation_out);

// When an upload of so many bytes that begins now has failed.
uint64_t checkpoint_upload_deadline_ms(const struct checkpoint *c, uint64_t bytes);

// checkpoint_bucket.c: looks whether the bucket has the published state that `db` names, and at
// more objects when `asked` or every tenth minute. 0: it has; 1: another record follows; -EBADMSG:
// it has not; or the store's error. Notes the result.
MUST_CHECK int checkpoint_check_bucket(
    struct checkpoint *c, const struct remote_place *place, const struct db_record *db, bool asked);
// Notes the result of reading the bucket: -EBADMSG is damage, 0 and above is none.
void checkpoint_note_bucket(struct checkpoint *c, int rc);
bool checkpoint_bucket_is_damaged(struct checkpoint *c);

// Reads the chain: records own records in the manifest; a foreign one fences the volume.
void checkpoint_look_at_chain(struct checkpoint *c);

// For calls to the store: whether checkpoint_stop has been called. `argument`: the checkpoint.
bool checkpoint_is_canceled(void *argument);

// Whether a flag of the db is on; DB_FLAG_*.
bool checkpoint_has_flag(const struct checkpoint *c, unsigned flag);

void checkpoint_set_fold_phase(struct checkpoint *c, enum checkpoint_phase phase);
void checkpoint_set_publish_phase(struct checkpoint *c, enum checkpoint_phase phase);
// A call to the store succeeded: logs that the store is back when it was away.
void checkpoint_note_store_answers(struct checkpoint *c);
void checkpoint_note_failure(struct checkpoint *c, const char *stage, int rc, const char *text);

#endif
