// SPDX-License-Identifier: Apache-2.0
// Publication: the newest local generation goes to the store. No reader sees anything of it until
// the record is created; the thread repeats every step before it, under the same keys.
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint_internal.h"
#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "store/blob_key.h"

#define UPLOAD_THREADS_MAX 16u
// Slower than this an upload has failed.
#define UPLOAD_BYTES_PER_MS_MIN 64u
// A caller waits so long for a store when there is nothing to upload.
#define ASK_DEADLINE_MS 2000u
// An attempt begins anew so often before it has failed.
#define ATTEMPTS_MAX 3u

struct publication {
    struct checkpoint *c;
    struct db_record db;
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t upload_count;
    uint64_t started_ms;
    uint64_t job_id; // of the fold that made the generation, when it is known
    bool again;      // an older attempt of ours turned up in the chain: begin anew, at once
    bool repeats;    // an earlier attempt may have uploaded some of the blobs

    struct lock lock; // "publication": protects all below
    size_t next;      // upload to take
    atomic_int error; // of the first upload that failed; is_stopping() reads it without the lock
};

static int
read_db(struct checkpoint *c, struct db_record *db_out)
{
    struct manifest_reader *r;
    int rc = manifest_read_begin(c->options.manifest, &r);
    if (rc == 0)
        rc = manifest_read_db(r, c->options.db, db_out);
    manifest_read_end(r);
    return rc;
}

// A fold may merge or remove nothing while it is not known which images a publication names.
static void
begin_publishing(struct checkpoint *c)
{
    c->publish.pin = pin_begin(local_store_pins(c->options.local), "publication", "it is uploaded");
    pin_everything(c->publish.pin);
}

// From here on it is known which blobs the publication needs.
static void
set_uploading(struct checkpoint *c, struct generation generation,
    const struct remote_upload *uploads, size_t count)
{
    struct sha256 *hashes = memory_alloc(count * sizeof(*hashes));
    for (size_t i = 0; i < count; i++)
        hashes[i] = uploads[i].blob.hash;
    pin_exactly(c->publish.pin, generation, hashes, count);
    free(hashes);
}

static void
end_publishing(struct checkpoint *c)
{
    pin_end(c->publish.pin);
    c->publish.pin = NULL;
}

// ---- ownership ----------------------------------------------------------------------------------

static int
note_fenced(struct publication *p, const char *host, uint64_t epoch)
{
    struct checkpoint *c = p->c;
    lock_take(&c->lock);
    c->numbers.fenced = true;
    lock_release(&c->lock);
    c->options.host.fenced(c->options.host.argument, host, epoch);
    struct manifest_batch *b = manifest_batch_new(c->options.db);
    manifest_batch_fenced(b, true);
    int rc = manifest_submit(c->options.manifest, b, NULL);
    if (rc < 0)
        log_error("volume.fenced", "cannot record that the volume was taken: %s", strerror(-rc));
    return -ESTALE;
}

// Takes in the chain's newer records: own publications that were not recorded, or another writer's.
static int
catch_up(struct publication *p)
{
    struct remote_catch_up result = {0};
    int rc =
        remote_manifest_catch_up(&p->c->options.place, p->c->options.manifest, &p->db, &result);
    if (rc < 0 && rc != -EIDRM)
        checkpoint_note_bucket(p->c, rc);
    if ((rc == 0 || rc == -EIDRM) && result.foreign)
        return note_fenced(p, result.foreign_host, result.foreign_epoch);
    return rc;
}

static int
begin_anew(struct publication *p)
{
    p->again = true;
    return -EAGAIN;
}

// Claims a volume that was mounted while the store could not be reached, before it first publishes.
static int
ensure_claimed(struct publication *p)
{
    struct checkpoint *c = p->c;
    lock_take(&c->lock);
    bool claimed = c->publish.claimed;
    lock_release(&c->lock);
    if (claimed)
        return 0;
    int rc = catch_up(p);
    struct remote_lease lease = {0};
    if (rc == 0)
        rc = remote_manifest_claim(&c->options.place, c->options.manifest, &p->db,
            c->options.lease_ttl_ms, c->options.takeover, &lease);
    if (rc == -EBUSY)
        return note_fenced(p, lease.host, lease.epoch);
    if (rc < 0)
        checkpoint_note_bucket(c, rc);
    if (rc == -ESTALE)
        return begin_anew(p);
    if (rc < 0)
        return rc;
    wal_set_writer_epoch(c->options.wal, p->db.epoch);
    lock_take(&c->lock);
    c->publish.claimed = true;
    lock_release(&c->lock);
    checkpoint_note_lease(c, c->options.lease_ttl_ms / 2);
    checkpoint_note_store_answers(c);
    return 0;
}

// ---- uploading ----------------------------------------------------------------------------------

// Asked from inside the store, which may hold locks of its own.
static bool
is_stopping(void *argument)
{
    struct publication *p = argument;
    return atomic_load(&p->error) != 0 || checkpoint_is_canceled(p->c) ||
           atomic_load(&p->c->publish.cancel) != 0;
}

uint64_t
checkpoint_upload_deadline_ms(const struct checkpoint *c, uint64_t bytes)
{
    return clock_monotonic_ms() + c->options.upload_deadline_ms + bytes / UPLOAD_BYTES_PER_MS_MIN;
}

// Whether an earlier attempt has uploaded the blob. Its key has its hash, and the store compared
// the bytes with that when it took them.
static bool
is_uploaded(struct publication *p, const struct blob_record *blob, const char *key)
{
    struct remote_head head;
    const struct remote_call call = {
        .deadline_ms = checkpoint_upload_deadline_ms(p->c, 0),
        .is_canceled = is_stopping,
        .argument = p,
        .class = REMOTE_UPLOAD,
    };
    return p->repeats &&
           remote_store_head_blob(p->c->options.place.store, key, &head, &call) == 0 &&
           head.size == blob->bytes;
}

static int
upload_blob(struct publication *p, const struct blob_record *blob)
{
    struct checkpoint *c = p->c;
    BUFFER_AUTO key = {0};
    blob_key(c->options.place.tenant, c->options.place.volume_number, blob, &key);
    if (is_uploaded(p, blob, buffer_string(&key)))
        return 0;
    CLEANUP(file_close_auto) int fd = -1;
    int rc = local_store_open_blob(c->options.local, &blob->hash, &fd);
    struct remote_source source = {.fd = fd, .length = blob->bytes, .hash = blob->hash};
    source.crc_known = checkpoint_recall_crc(c, &blob->hash, &source.crc);
    struct remote_call call = {
        .deadline_ms = checkpoint_upload_deadline_ms(c, blob->bytes),
        .is_canceled = is_stopping,
        .argument = p,
        .class = REMOTE_UPLOAD,
    };
    if (rc < 0) {
        log_error("checkpoint.failed", "cannot open the local copy of %s: %s", buffer_string(&key),
            strerror(-rc));
        if (file_error_is_shortage(rc))
            return rc;
        return checkpoint_explain_upload(c, blob, buffer_string(&key), &call, -EIO);
    }
    rc = remote_store_put_blob(
        c->options.place.store, buffer_string(&key), &source, REMOTE_PUT_OVERWRITE, &call);
    return rc < 0 ? checkpoint_explain_upload(c, blob, buffer_string(&key), &call, rc) : 0;
}

static void
upload_run(void *argument)
{
    struct publication *p = argument;
    flush_pace_bind(p->c->options.pace);
    for (;;) {
        lock_take(&p->lock);
        bool more = p->error == 0 && p->next < p->upload_count;
        size_t i = p->next;
        p->next += more;
        lock_release(&p->lock);
        if (!more)
            return;
        const struct blob_record *blob = &p->uploads[i].blob;
        int rc = upload_blob(p, blob);
        if (rc < 0) {
            if (rc != -ECANCELED && rc != -EUCLEAN)
                checkpoint_note_failure(p->c, "upload", rc, remote_store_error());
            lock_take(&p->lock);
            if (atomic_load(&p->error) == 0)
                atomic_store(&p->error, rc);
            lock_release(&p->lock);
            return;
        }
        lock_take(&p->c->lock);
        p->c->numbers.done_blobs++;
        p->c->numbers.done_bytes += blob->bytes;
        lock_release(&p->c->lock);
    }
}

static int
upload(struct publication *p)
{
    struct checkpoint *c = p->c;
    checkpoint_set_publish_phase(c, CHECKPOINT_PHASE_UPLOADING);
    lock_take(&c->lock);
    c->numbers.done_blobs = c->numbers.done_bytes = c->numbers.total_bytes = 0;
    c->numbers.total_blobs = p->upload_count;
    c->publish.upload_began_ms = clock_monotonic_ms();
    for (size_t i = 0; i < p->upload_count; i++)
        c->numbers.total_bytes += p->uploads[i].blob.bytes;
    uint64_t bytes = c->numbers.total_bytes;
    lock_release(&c->lock);
    p->repeats = c->publish.uploads_begun;
    c->publish.uploads_begun = true;
    struct thread threads[UPLOAD_THREADS_MAX];
    unsigned wanted = c->options.upload_threads;
    unsigned started = 0;
    while (started + 1 < wanted && started + 1 < p->upload_count && started < UPLOAD_THREADS_MAX &&
           thread_start(&threads[started], "upload", upload_run, p) == 0)
        started++;
    upload_run(p);
    for (unsigned i = 0; i < started; i++)
        thread_join(&threads[i]);
    if (p->error < 0)
        return p->error;
    struct log_event e;
    log_begin(&e, LOG_LEVEL_INFO, "checkpoint.uploaded");
    log_u64(&e, "job_id", p->job_id);
    log_u64(&e, "uploaded_blobs", p->upload_count);
    log_u64(&e, "uploaded_bytes", bytes);
    log_u64(&e, "duration_ms", clock_monotonic_ms() - p->started_ms);
    log_end(&e);
    crash_point("checkpoint.uploaded");
    return 0;
}

// ---- the commit point and after -----------------------------------------------------------------

// Whether the lease cannot have run out. Until it has, no host destroys the volume.
static bool
has_good_lease(struct checkpoint *c)
{
    lock_take(&c->lock);
    bool good = clock_monotonic_ms() < c->publish.lease_until_ms &&
                clock_wall_ms() < c->publish.lease_until_wall_ms;
    lock_release(&c->lock);
    return good;
}

void
checkpoint_note_lease(struct checkpoint *c, uint64_t for_ms)
{
    lock_take(&c->lock);
    c->publish.lease_until_ms = clock_monotonic_ms() + for_ms;
    c->publish.lease_until_wall_ms = clock_wall_ms() + for_ms;
    lock_release(&c->lock);
}

static int
create_record(struct publication *p)
{
    struct checkpoint *c = p->c;
    checkpoint_set_publish_phase(c, CHECKPOINT_PHASE_PUBLISHING);
    int rc = remote_manifest_publish(&c->options.place, &p->staged);
    if (rc == 0 && !has_good_lease(c))
        rc = remote_manifest_check_ground(
            &c->options.place, p->staged.header.sequence, &p->staged.hash);
    if (rc == -ESTALE) {
        rc = catch_up(p);
        return rc == 0 ? begin_anew(p) : rc;
    }
    if (rc < 0)
        return rc;
    crash_point("checkpoint.published_remotely");
    return 0;
}

// The checkpoint job is done when its generation (or a later one) is in the store. 0: none is.
static uint64_t
finished_job(struct checkpoint *c, struct generation published)
{
    lock_take(&c->lock);
    uint64_t id = c->job.generation.v <= published.v ? c->job.id : 0;
    lock_release(&c->lock);
    return id;
}

// Only now may a fold begin a job with a new id: two unfinished ones exclude each other. One that
// began meanwhile goes on under this id.
static void
forget_job(struct checkpoint *c, uint64_t id, struct generation published)
{
    lock_take(&c->lock);
    if (c->job.id == id && c->job.generation.v <= published.v)
        c->job.id = 0;
    lock_release(&c->lock);
}

static int
record_publication(struct publication *p)
{
    struct checkpoint *c = p->c;
    struct generation generation = p->staged.header.generation;
    uint64_t job_id = finished_job(c, generation);
    int rc = remote_manifest_record_publication(&c->options.place, c->options.manifest,
        c->options.db, &p->staged, p->uploads, p->upload_count, job_id);
    if (rc < 0)
        return rc;
    c->publish.uploads_begun = false;
    forget_job(c, job_id, generation);
    struct log_event e;
    char id[37];
    uuid_to_string(&p->staged.header.checkpoint_id, id);
    log_begin(&e, LOG_LEVEL_INFO, "checkpoint.published");
    log_u64(&e, "job_id", p->job_id);
    log_u64(&e, "manifest_generation", generation.v);
    log_string(&e, "checkpoint_id", id);
    log_u64(&e, "sequence", p->staged.header.sequence);
    log_u64(&e, "duration_ms", clock_monotonic_ms() - p->started_ms);
    log_end(&e);
    crash_point("checkpoint.publication_recorded");
    return 0;
}

// The one that was staged with the record; one that was lost is replaced when no newer generation
// is in the way, or by the next that is due.
static void
write_catalog(struct publication *p)
{
    struct checkpoint *c = p->c;
    const struct remote_place *place = &c->options.place;
    int rc = 0;
    if (p->staged.catalog)
        rc = remote_manifest_put_catalog(
            place, c->options.manifest, c->options.db, p->staged.catalog);
    else if (c->publish.catalog_lost)
        rc = remote_manifest_write_catalog(place, c->options.manifest, c->options.db);
    else
        return;
    c->publish.catalog_lost &= rc < 0;
    if (rc < 0 && rc != -EAGAIN)
        log_warning("catalog.failed", "cannot write a catalog: %s", remote_store_error());
}

static void
clean_up(struct publication *p)
{
    struct checkpoint *c = p->c;
    checkpoint_set_publish_phase(c, CHECKPOINT_PHASE_CLEANING);
    write_catalog(p);
    struct log_event e;
    log_begin(&e, LOG_LEVEL_INFO, "checkpoint.cleaned_up");
    log_u64(&e, "job_id", p->job_id);
    log_end(&e);
    crash_point("checkpoint.cleaned");
}

static uint64_t
job_of(struct checkpoint *c, struct generation generation)
{
    lock_take(&c->lock);
    uint64_t id = c->job.generation.v == generation.v ? c->job.id : 0;
    lock_release(&c->lock);
    return id;
}

// Whether the published objects are there, and no other root has written more.
static int
check_bucket(struct publication *p, const struct remote_place *place, bool asked)
{
    int rc = checkpoint_check_bucket(p->c, place, &p->db, asked);
    if (rc <= 0)
        return rc;
    rc = catch_up(p);
    return rc == 0 ? begin_anew(p) : rc;
}

// Nothing is to be published, but a caller wants to know that the bucket still holds it. A store
// that cannot be asked is no error: the generation was published before.
static int
ask_store(struct publication *p)
{
    struct remote_place place = p->c->options.place;
    place.call_ms = ASK_DEADLINE_MS;
    int rc = check_bucket(p, &place, true);
    return rc == -EBADMSG || rc == -ESTALE || p->again ? rc : 0;
}

static int
publish_steps(struct publication *p, bool ask)
{
    struct checkpoint *c = p->c;
    int rc = ensure_claimed(p);
    if (rc == 0)
        rc = read_db(c, &p->db);
    if (rc < 0)
        return rc;
    if (p->db.fenced)
        return -ESTALE;
    if (p->db.local.v == p->db.published.v)
        return ask ? ask_store(p) : 0;
    // So that the thread does not upload again and again to a damaged bucket.
    if (checkpoint_bucket_is_damaged(c))
        rc = check_bucket(p, &c->options.place, true);
    if (rc < 0)
        return rc;
    begin_publishing(c);
    rc = remote_manifest_stage_generation(&c->options.place, c->options.manifest, c->options.db,
        &p->staged, &p->uploads, &p->upload_count);
    if (rc < 0)
        return rc == -EALREADY ? 0 : rc;
    p->job_id = job_of(c, p->staged.header.generation);
    set_uploading(c, p->staged.header.generation, p->uploads, p->upload_count);
    checkpoint_lease_publication(c, p->staged.header.generation);
    rc = upload(p);
    if (rc == 0)
        rc = check_bucket(p, &c->options.place, ask);
    if (rc == 0) {
        crash_point("checkpoint.bucket_checked");
        rc = checkpoint_publication_commits(c);
    }
    if (rc == 0)
        rc = create_record(p);
    if (rc == 0)
        rc = record_publication(p);
    return rc;
}

void
checkpoint_look_at_chain(struct checkpoint *c)
{
    struct publication p = {.c = c};
    int rc = read_db(c, &p.db);
    if (rc == 0 && !p.db.fenced)
        rc = catch_up(&p);
    lock_take(&c->lock);
    bool claimed = c->publish.claimed;
    lock_release(&c->lock);
    if (rc == 0 && claimed && !p.db.fenced)
        rc = checkpoint_check_bucket(c, &c->options.place, &p.db, false);
    if (rc < 0 && rc != -ESTALE && rc != -ECANCELED)
        checkpoint_note_failure(c, "ownership", rc, remote_store_error());
}

static void
forget_attempt(struct publication *p)
{
    end_publishing(p->c);
    checkpoint_end_publication_lease(p->c);
    remote_staged_free(&p->staged);
    free(p->uploads);
    p->uploads = NULL;
    p->upload_count = p->next = 0;
}

static int
attempt(struct publication *p, bool ask)
{
    int rc = -EAGAIN;
    for (unsigned i = 0; i < ATTEMPTS_MAX && (i == 0 || p->again); i++) {
        forget_attempt(p);
        p->again = false;
        rc = read_db(p->c, &p->db);
        if (rc == 0)
            rc = publish_steps(p, ask);
    }
    return rc;
}

int
checkpoint_publish(struct checkpoint *c, bool ask, struct generation *generation_out)
{
    struct publication p = {.c = c, .started_ms = clock_monotonic_ms(), .staged = {.fd = -1}};
    lock_init(&p.lock, "publication", LOCK_RANK_PUBLICATION);
    int rc = attempt(&p, ask);
    bool published = rc == 0 && p.staged.path;
    end_publishing(c);
    if (published)
        clean_up(&p);
    int reason = atomic_load(&c->publish.cancel);
    if (rc == -ECANCELED && reason != 0)
        checkpoint_record_cancel(
            c, &(struct job_record){.id = p.job_id}, (enum cancel_reason)reason);
    if (rc < 0 && rc != -ECANCELED && rc != -EUCLEAN && p.error == 0)
        checkpoint_note_failure(c, "publish", rc, remote_store_error());
    if (rc == 0)
        rc = read_db(c, &p.db);
    *generation_out = p.db.published;
    forget_attempt(&p);
    lock_destroy(&p.lock);
    checkpoint_set_publish_phase(c, CHECKPOINT_PHASE_IDLE);
    return rc == 0 && published ? 1 : rc;
}
