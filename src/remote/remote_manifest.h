// SPDX-License-Identifier: Apache-2.0
// The manifest in the bucket: the chain of records and the catalogs from which a volume is mounted
// on a machine that has nothing else, and the protocol by which one writer at a time owns it.
//
//     PREFIX/manifests/{tenant}/{number}/record-{sequence, 16 hex digits}
//     PREFIX/manifests/{tenant}/{number}/catalog-{sequence, 16 hex digits}
//     PREFIX/manifests/{tenant}/{number}/lease-{epoch, 16 hex digits}
//
// Writers create records conditionally (REMOTE_PUT_CREATE); each names the SHA-256 of its
// predecessor. The creation of record n+1 is the commit point of its contents. Two writers that
// both want n+1 cannot both win; fencing rests on that alone. The lease object only keeps polite
// writers away from a live owner: its body has writer, host, epoch, ttl and whether the owner
// released it; the server's clock gives its age. Functions return 0 or -errno; any thread may call
// them, unless the comment says otherwise. The protocol is in doc/remote_manifest.md.
#ifndef CKPTFS_REMOTE_REMOTE_MANIFEST_H
#define CKPTFS_REMOTE_REMOTE_MANIFEST_H

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"
#include "format/manifest_record.h"
#include "manifest/manifest.h"
#include "quota/storage_quota.h"
#include "store/remote_store.h"

// The place of a volume's manifest, and the identity of the caller. Borrowed pointers.
struct remote_place {
    struct remote_store *store;
    const char *tenant;
    uint32_t volume_number;
    struct uuid writer;          // manifest_root_id()
    const char *scratch;         // an existing directory for temporary files
    struct storage_quota *quota; // of these; or NULL
    // The time of one request, tries included, without the time for its bytes (0: the store's own
    // limit). `call` has its other limits; a canceled request is -ECANCELED.
    uint64_t call_ms;
    struct remote_call call;
    bool forgiving; // imports log counts that contradict each other, and go on: for reading alone
};

// Milliseconds since an object was written, by the server's clock.
uint64_t remote_age_ms(const struct remote_head *head);

// Makes record 1, with the retention policy that the volume begins with (NULL: it has none, and
// keeps everything). -EEXIST when the volume exists.
MUST_CHECK int remote_manifest_create(const struct remote_place *place, const struct uuid *volume,
    const struct uuid *name_key, const struct retention_policy *policy);
// The same for a fork of `parent`.
MUST_CHECK int remote_manifest_create_fork(const struct remote_place *place,
    const struct uuid *volume, const struct uuid *name_key, const struct retention_policy *policy,
    const struct volume_parent *parent);

// The header of record 1: how the volume was made. -ENOENT: there is none.
MUST_CHECK int remote_manifest_origin(
    const struct remote_place *place, struct manifest_record_header *header_out);

// Whether the volume exists: 0 or -ENOENT or a store's error.
MUST_CHECK int remote_manifest_exists(const struct remote_place *place);

// Fills the empty db `db` (state DB_STATE_IMPORTING) from the newest catalog at or below generation
// `at` ({0}: the newest) and the records after it, in batches of bounded size, streaming catalogs
// through `scratch`; blobs become RESIDENCY_REMOTE; then sets identity, counters, generations
// (local = published = the imported one, next above it), remote position, and DB_STATE_READY.
// Verifies every record and the chain, and that the imported directories, links and chunks have the
// counts that their records tell: else -EBADMSG, unless place->forgiving. -ENOENT: no such volume;
// -ESTALE: no such generation; -EIDRM: the volume is being destroyed. Also refreshes *db.
MUST_CHECK int remote_manifest_import(const struct remote_place *place, struct manifest *m,
    struct db_record *db, struct generation at);

// The id of the volume that the oldest record in the store belongs to. -ENOENT: there is no record.
MUST_CHECK int remote_manifest_identity(const struct remote_place *place, struct uuid *volume_out);

// ---- a root that has lost its manifest ----------------------------------------------------------

// The newest record, and the LSN from which the log of the root `place->writer` goes on after it.
struct remote_continuation {
    uint64_t sequence; // of the newest record
    struct uuid volume;
    struct generation generation; // the newest
    uint64_t created_ms;          // of the newest record
    char host[64];                // its writer's
    bool own;                     // the root wrote it, or no root has written since the creation
    bool cut_is_known;            // if own: the records that tell the cut are there
    struct lsn cut;               // all below it is in the newest generation
};

// -ENOENT: no such volume.
MUST_CHECK int remote_manifest_find_continuation(
    const struct remote_place *place, struct remote_continuation *c_out);

// The same as remote_manifest_import of the newest generation, for a log that goes on at db->cut
// after the record `sequence`: -EBUSY when there is a newer one, and the db stays IMPORTING.
MUST_CHECK int remote_manifest_import_exactly(
    const struct remote_place *place, struct manifest *m, struct db_record *db, uint64_t sequence);

// The result of catching up with the chain.
struct remote_catch_up {
    bool foreign; // another writer has written since: this root's state is history
    uint64_t foreign_epoch;
    char foreign_host[64];
    uint64_t rolled_forward; // own generations that were published but not recorded here
};

// Reads the records after db->remote_sequence. Records own ones (writer and epoch of this root) in
// the manifest: their generation as published, their blobs as remote. Stops at the first foreign
// one and reports it, changing nothing for it. Refreshes *db. -EIDRM: the volume is being
// destroyed, by foreign_host.
MUST_CHECK int remote_manifest_catch_up(const struct remote_place *place, struct manifest *m,
    struct db_record *db, struct remote_catch_up *result_out);

// ---- ownership ----------------------------------------------------------------------------------

struct remote_lease {
    struct uuid writer;
    uint64_t epoch;
    uint64_t ttl_ms;
    bool released;
    char host[64];
    uint64_t age_ms; // since it was last written, by the server's clock
};

MUST_CHECK int remote_lease_read(
    const struct remote_place *place, uint64_t epoch, struct remote_lease *lease_out);
// Writes lease-{epoch}: one request.
MUST_CHECK int remote_lease_write(
    const struct remote_place *place, uint64_t epoch, uint64_t ttl_ms, bool released);

// Takes the volume for writing: db must have caught up. Fails with -EBUSY (lease_out names the
// owner) while another writer's lease is fresh, unless `takeover`. Then creates the OPEN record
// with the next epoch, writes the lease, and records epoch and position in the manifest. -ESTALE
// when another writer created a record meanwhile: catch up and try again. Refreshes *db.
MUST_CHECK int remote_manifest_claim(const struct remote_place *place, struct manifest *m,
    struct db_record *db, uint64_t ttl_ms, bool takeover, struct remote_lease *lease_out);

// After -EBADMSG of catching up or claiming: whether the record at db's position is the one that
// was there, and says something else than the manifest, which is damaged then: 1 and the name of
// the field in which they disagree (a constant). 0: no, or -errno.
MUST_CHECK int remote_manifest_is_contradicted(
    const struct remote_place *place, const struct db_record *db, const char **what_out);

// Whether the record after `sequence` exists (one request): 0, 1, or -errno.
MUST_CHECK int remote_manifest_is_followed(const struct remote_place *place, uint64_t sequence);

// For a writer that has just created the record `sequence` with this hash, and whose lease may have
// run out before: whether the record is part of the chain. The writer may have been away for so
// long that another host took the volume and deleted the record that lay in this place, or that the
// volume was destroyed. Then the function deletes the new record and returns -ESTALE or -EIDRM.
MUST_CHECK int remote_manifest_check_ground(
    const struct remote_place *place, uint64_t sequence, const struct sha256 *hash);

// ---- looking after published objects -----------------------------------------------------------
//
// For the owner: `db` is the manifest's, and this root wrote the record at its position in
// db->epoch. -EBADMSG when the bucket has lost or changed an object (logged; remote_store_error()
// names it).

// Whether the newest record is there and is ours: one GET of at most 4 KiB.
MUST_CHECK int remote_manifest_check_head(
    const struct remote_place *place, const struct db_record *db);
// Whether record 1 is there and every record from the newest catalog on: one listing for each 1,000
// of them, and two HEADs. 1 when another record follows them. If the catalog is missing, sets
// *catalog_lost_out: readers take an older one, and the publisher should write a new one.
MUST_CHECK int remote_manifest_check_chain(
    const struct remote_place *place, const struct db_record *db, bool *catalog_lost_out);
// Whether up to `count` blobs are there, the next ones in order of their hashes from *cursor on: a
// HEAD each. Moves the cursor forward, and back to the beginning behind the last blob.
MUST_CHECK int remote_manifest_check_blobs(const struct remote_place *place, struct manifest *m,
    struct db_id db, struct sha256 *cursor, unsigned count);

// ---- publication --------------------------------------------------------------------------------

// A record or catalog staged in a file of `scratch`.
struct remote_staged {
    char *path; // unlinked and freed by remote_staged_free
    int fd;
    struct storage_quota *quota;
    uint64_t reserved; // of it
    struct sha256 hash;
    uint64_t bytes;
    struct manifest_record_header header;
    uint64_t changes;              // how many it holds
    struct remote_staged *catalog; // of a record: the state after it, if a catalog is due; or NULL
};
void remote_staged_free(struct remote_staged *s);

// A blob that publication has to upload.
struct remote_upload {
    struct blob_record blob;
};

// Stages the GENERATION record that takes the bucket from the published to the local generation, in
// one read transaction, as successor of db's position in that transaction; `uploads_out` (an array
// that the caller frees) are the blobs that must be in the store before the caller creates the
// record. The generation published is the local one of the transaction:
// staged_out->header.generation, under the checkpoint id that the manifest keeps with it.
// -EALREADY: there is nothing to publish. -ESTALE: this root never claimed the volume or was
// fenced. Staging again from the same state gives the same bytes, also in another process.
MUST_CHECK int remote_manifest_stage_generation(const struct remote_place *place,
    struct manifest *m, struct db_id db, struct remote_staged *staged_out,
    struct remote_upload **uploads_out, size_t *count_out);

// Creates the staged record. 0: it is there and ours. -ESTALE: another record has the place (own
// older attempt or a foreign writer: catch up to find out). Else the store's error.
MUST_CHECK int remote_manifest_publish(
    const struct remote_place *place, const struct remote_staged *staged);

// Records a publication in the manifest: generation, position, and the uploads as remote; and, in
// the same transaction, that the job with `job_id` is done (0: no job).
MUST_CHECK int remote_manifest_record_publication(const struct remote_place *place,
    struct manifest *m, struct db_id db, const struct remote_staged *staged,
    const struct remote_upload *uploads, size_t count, uint64_t job_id);

// Whether a new catalog is worth writing: there is none, or the records after the newest one
// outweigh it (and at least 16 records or 1 MiB have come since). A record weighs its bytes and 64
// KiB for the request that a reader needs. Never before the first generation.
bool remote_manifest_catalog_due(const struct db_record *db);
// Uploads the catalog that was staged with a record, after the manifest has that record, and
// records it. 0 also when the catalog exists already.
MUST_CHECK int remote_manifest_put_catalog(const struct remote_place *place, struct manifest *m,
    struct db_id db, const struct remote_staged *catalog);
// Stages and uploads a catalog of the published generation if local == published in the read
// transaction (else -EAGAIN), and records it. 0 also when the catalog exists already.
MUST_CHECK int remote_manifest_write_catalog(
    const struct remote_place *place, struct manifest *m, struct db_id db);

#endif
