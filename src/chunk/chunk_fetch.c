// SPDX-License-Identifier: Apache-2.0
#include <errno.h>

#include "base/checksum.h"
#include "chunk/chunk_internal.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "store/blob_key.h"

// How often who waits for another's fetch looks whether it was cancelled.
#define POLL_MS 50u

static void
count(uint64_t *counter, uint64_t by)
{
    __atomic_fetch_add(counter, by, __ATOMIC_RELAXED);
}

static bool
overlaps_locked(struct chunk_reader *r, const struct sha256 *blob, uint64_t from, uint64_t to)
{
    LIST_FOR_EACH(&r->flights, n)
    {
        const struct chunk_flight *f = CONTAINER_OF(n, struct chunk_flight, node);
        if (sha256_equal(&f->blob, blob) && f->from < to && from < f->to)
            return true;
    }
    return false;
}

// Takes off (0), or waits until those who fetch the same bytes have landed: 1, the bytes may be
// here now. -EINTR, or -ETIMEDOUT at the deadline.
static int
take_off(struct chunk_reader *r, struct chunk_flight *flight, uint64_t deadline_ms,
    const struct chunk_read_options *options)
{
    int rc = 0;
    lock_take(&r->lock);
    while (rc >= 0 && overlaps_locked(r, &flight->blob, flight->from, flight->to)) {
        uint64_t now = clock_monotonic_ms();
        rc = 1;
        if (now >= deadline_ms)
            rc = -ETIMEDOUT;
        else if (options->is_canceled && options->is_canceled(options->argument))
            rc = -EINTR;
        else
            condition_wait_until(
                &r->landed, &r->lock, deadline_ms - now < POLL_MS ? deadline_ms : now + POLL_MS);
    }
    if (rc == 0)
        list_append(&r->flights, &flight->node);
    lock_release(&r->lock);
    return rc;
}

static void
land(struct chunk_reader *r, struct chunk_flight *flight)
{
    lock_take(&r->lock);
    list_remove(&flight->node);
    condition_broadcast(&r->landed);
    lock_release(&r->lock);
}

static int
fetch_remote(struct chunk_reader *r, const struct blob_record *blob, uint64_t offset, size_t n,
    size_t extra, uint8_t *p, chunk_verify *verify, void *verify_argument, uint64_t deadline_ms,
    const struct chunk_read_options *options)
{
    BUFFER_AUTO key = {0};
    BUFFER_AUTO bytes = {0};
    blob_key(r->tenant, blob, &key);
    struct remote_call call = {
        .deadline_ms = deadline_ms,
        .is_canceled = options->is_canceled,
        .argument = options->argument,
    };
    uint64_t length = n + extra;
    if (length > blob->bytes - offset)
        length = blob->bytes - offset;
    int rc = remote_store_get_blob(r->remote, buffer_string(&key), offset, length, &bytes, &call);
    if (rc == -ECANCELED)
        return -EINTR;
    if (rc < 0) {
        log_error(
            "chunk.read_failed", "cannot read %s: %s", buffer_string(&key), remote_store_error());
        return -EIO;
    }
    count(&r->numbers.remote_bytes, bytes.length);
    if (bytes.length < n || !verify(verify_argument, bytes.data, n)) {
        log_error("chunk.corrupt",
            "%s: the bytes at %llu from the store do not match their checksum", buffer_string(&key),
            (unsigned long long)offset);
        return -EIO;
    }
    memcpy(p, bytes.data, n);
    // Keeping is for later readers; this one has what it asked for.
    rc = local_store_keep(r->local, &blob->hash, offset, bytes.data, bytes.length);
    if (rc < 0)
        log_warning("chunk.keep_failed", "cannot keep part of %s in hot_cache: %s",
            buffer_string(&key), strerror(-rc));
    return 0;
}

// 0, -ENOENT (not here), -EBADMSG (here, but not what it should be), or a read error.
static int
read_local(struct chunk_reader *r, const struct blob_record *blob, uint64_t offset, size_t n,
    uint8_t *p, chunk_verify *verify, void *verify_argument)
{
    int rc = local_store_read(r->local, &blob->hash, offset, p, n);
    if (rc == 0 && !verify(verify_argument, p, n))
        rc = -EBADMSG;
    return rc == -ENODATA ? -EBADMSG : rc;
}

// A whole local copy that does not verify is damage (a partial one simply has a hole there).
static void
note_damage(struct chunk_reader *r, const struct blob_record *blob, uint64_t offset, int rc)
{
    char hex[65];
    sha256_to_hex(&blob->hash, hex);
    bool remote = r->remote && (blob->residency & RESIDENCY_REMOTE);
    log_error("local_store.corrupt", "hot_cache copy of blob %s at %llu: %s; %s", hex,
        (unsigned long long)offset, rc == -EBADMSG ? "checksum mismatch" : strerror(-rc),
        remote ? "reading it from the store" : "there is no other copy");
    if (remote) {
        count(&r->numbers.repaired_frames, 1);
        local_store_remove(r->local, &blob->hash);
    }
}

// One round: 0, an error, or 1 to look again because another reader has fetched these bytes.
static int
fetch_once(struct chunk_reader *r, const struct blob_record *known, uint64_t offset, size_t n,
    size_t extra, uint8_t *p, chunk_verify *verify, void *verify_argument, uint64_t deadline_ms,
    const struct chunk_read_options *options)
{
    int rc = read_local(r, known, offset, n, p, verify, verify_argument);
    if (rc == 0) {
        count(&r->numbers.local_frames, 1);
        return 0;
    }
    struct blob_record blob = *known;
    bool released = false;
    if (!(blob.residency & RESIDENCY_REMOTE))
        released = chunk_map_read_blob(r->map, &known->hash, &blob) == -ENOENT;
    if (rc != -ENOENT && local_store_has(r->local, &blob.hash))
        note_damage(r, &blob, offset, rc);
    if (!(blob.residency & RESIDENCY_REMOTE) || !r->remote) {
        count(&r->numbers.failed_reads, 1);
        return rc == -ENOENT || released ? -ESTALE : -EIO;
    }
    if (options->local_only)
        return -EREMOTE;
    struct chunk_flight flight = {.blob = blob.hash, .from = offset, .to = offset + n + extra};
    rc = take_off(r, &flight, deadline_ms, options);
    if (rc == -ETIMEDOUT) {
        log_error("chunk.read_failed", "the store did not answer in time");
        return -EIO;
    }
    if (rc != 0)
        return rc;
    rc = fetch_remote(r, &blob, offset, n, extra, p, verify, verify_argument, deadline_ms, options);
    land(r, &flight);
    count(rc == 0 ? &r->numbers.remote_frames : &r->numbers.failed_reads, 1);
    return rc;
}

// The deadline is that of the read, however many others it waits for.
int
chunk_fetch(struct chunk_reader *r, const struct blob_record *blob, uint64_t offset, size_t n,
    size_t extra, uint8_t *p, chunk_verify *verify, void *verify_argument,
    const struct chunk_read_options *options)
{
    if (offset + n > blob->bytes)
        return -EIO;
    uint64_t deadline_ms = clock_monotonic_ms() + r->deadline_ms;
    int rc;
    do {
        rc =
            fetch_once(r, blob, offset, n, extra, p, verify, verify_argument, deadline_ms, options);
    } while (rc == 1);
    return rc;
}
