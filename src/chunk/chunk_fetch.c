// SPDX-License-Identifier: Apache-2.0
#include <errno.h>

#include "base/checksum.h"
#include "chunk/chunk_internal.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/thread.h"
#include "quota/quota_job.h"
#include "store/blob_key.h"

// How often a reader that waits for another one's fetch asks whether it has been cancelled.
#define CANCEL_POLL_MS 50u

static void
count(uint64_t *counter, uint64_t by)
{
    __atomic_fetch_add(counter, by, __ATOMIC_RELAXED);
}

// One piece of work: the wanted bytes, and the deadline.
struct fetch {
    struct blob_record blob;
    uint64_t offset;
    size_t n;
    uint8_t *p;
    chunk_verify *verify;
    bool (*is_there)(void *argument);
    void *argument;
    bool ahead;
    struct remote_call call; // always with a deadline
    uint64_t landings;       // when the local copy was looked at
    bool landed;             // another flight has landed since
    uint64_t overtake_ms;    // when it may overtake flights; 0: it has not met one
};

static struct remote_call
with_deadline(const struct chunk_reader *r, const struct remote_call *call)
{
    struct remote_call limited = *call;
    limited.paced = true;
    if (limited.fetch.bypass_cache)
        limited.class = REMOTE_COLD_SCAN;
    if (limited.deadline_ms == 0)
        limited.deadline_ms = clock_monotonic_ms() + r->deadline_ms;
    return limited;
}

static bool
overlap(const struct chunk_flight *a, const struct chunk_flight *b)
{
    return sha256_equal(&a->blob, &b->blob) && a->from < b->to && b->from < a->to;
}

static bool
may_overtake(
    const struct fetch *x, const struct chunk_flight *flight, const struct chunk_flight *other)
{
    if (flight->ahead || !other->ahead || x->call.class != REMOTE_FOREGROUND ||
        x->overtake_ms == 0 || clock_monotonic_ms() < x->overtake_ms)
        return false;
    bool large = other->to - other->from >= FLIGHT_OVERTAKE_RATIO * (flight->to - flight->from);
    return other->gives_way || (x->call.random && large && other->overtaken < FLIGHT_OVERTAKEN_MAX);
}

// Whether the flight has to wait for another one.
static bool
is_blocked_locked(struct chunk_reader *r, const struct fetch *x, const struct chunk_flight *flight)
{
    LIST_FOR_EACH(&r->flights, n)
    {
        const struct chunk_flight *other = CONTAINER_OF(n, struct chunk_flight, node);
        if (overlap(flight, other) && !may_overtake(x, flight, other))
            return true;
    }
    return false;
}

static void
enter_flight_locked(struct chunk_reader *r, struct chunk_flight *flight)
{
    bool overtakes = false;
    LIST_FOR_EACH(&r->flights, n)
    {
        struct chunk_flight *other = CONTAINER_OF(n, struct chunk_flight, node);
        bool overtaken = overlap(flight, other);
        other->overtaken += overtaken;
        overtakes |= overtaken;
    }
    if (overtakes)
        count(&r->numbers.overtakes, 1);
    list_append(&r->flights, &flight->node);
}

// Takes off (0), or waits until the threads that fetch the same bytes have landed (1: the bytes may
// be here now). -EINTR and -ETIMEDOUT when that takes too long: a waiting reader has a deadline of
// its own, or many readers of a store that does not answer would wait one after the other.
static int
take_off(struct chunk_reader *r, struct chunk_flight *flight, struct fetch *x)
{
    lock_take(&r->lock);
    int rc = 0;
    while (rc >= 0 && is_blocked_locked(r, x, flight)) {
        uint64_t now = clock_monotonic_ms();
        rc = now >= x->call.deadline_ms          ? -ETIMEDOUT
             : remote_call_is_canceled(&x->call) ? -EINTR
                                                 : 1;
        if (x->overtake_ms == 0)
            x->overtake_ms = now + FLIGHT_OVERTAKE_MS;
        uint64_t poll = now + (now < x->overtake_ms ? FLIGHT_OVERTAKE_MS : CANCEL_POLL_MS);
        if (rc > 0)
            condition_wait_until(
                &r->landed, &r->lock, poll < x->call.deadline_ms ? poll : x->call.deadline_ms);
    }
    if (rc == 0)
        enter_flight_locked(r, flight);
    x->landed = r->landings != x->landings;
    lock_release(&r->lock);
    return rc;
}

static void
land(struct chunk_reader *r, struct chunk_flight *flight)
{
    lock_take(&r->lock);
    list_remove(&flight->node);
    __atomic_store_n(&r->landings, r->landings + 1, __ATOMIC_RELEASE);
    condition_broadcast(&r->landed);
    lock_release(&r->lock);
}

static int
fail_remote(const struct fetch *x, const char *key, const char *why)
{
    if (!x->ahead)
        log_error_of("chunk.read_failed", key, "cannot read %s: %s", key, why);
    return -EIO;
}

// Reads and verifies. Asks once more for bytes that do not match: a transfer without a checksum of
// its own may have gone wrong.
static int
get_verified(struct chunk_reader *r, const struct fetch *x, const char *key, struct buffer *bytes)
{
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        buffer_clear(bytes);
        int rc = remote_store_get_blob(r->remote, key, x->offset, x->n, bytes, &x->call);
        if (rc == -ECANCELED)
            return -EINTR;
        if (rc < 0)
            return fail_remote(x, key, remote_store_error());
        count(&r->numbers.remote_bytes, bytes->length);
        if (bytes->length != x->n || !x->verify(x->argument, bytes->data, x->n))
            continue;
        if (attempt > 0)
            log_warning_of("chunk.transfer_damaged", key,
                "%s: the bytes at %llu came damaged from the store, and whole the second time", key,
                (unsigned long long)x->offset);
        return 0;
    }
    log_error_of("chunk.corrupt", key,
        "%s: the bytes at %llu from the store do not match their checksum, twice", key,
        (unsigned long long)x->offset);
    return -EIO;
}

// -EDQUOT: the quota, or the budget of the job, has no room.
static int
put_in_cache(struct chunk_reader *r, const struct fetch *x, const struct buffer *bytes)
{
    uint64_t asked = storage_quota_blocks_for(bytes->length);
    int rc = quota_job_ask(x->call.budget, asked);
    if (rc < 0)
        return rc;
    rc = local_store_keep(r->local, &x->blob.hash, x->offset, bytes->data, bytes->length);
    if (rc < 0)
        quota_job_give_back(x->call.budget, asked);
    return rc;
}

static void
keep(struct chunk_reader *r, const struct fetch *x, const char *key, const struct buffer *bytes)
{
    if (x->call.no_keep || x->call.fetch.bypass_cache)
        return;
    int rc = put_in_cache(r, x, bytes);
    if (rc < 0 && rc != -EDQUOT)
        log_warning_of("chunk.keep_failed", key, "cannot keep part of %s in hot_cache: %s", key,
            strerror(-rc));
}

// Where the blob lies; -EIO, logged, when that is out of reach.
static int
key_of(struct chunk_reader *r, const struct blob_record *blob, struct buffer *key_out)
{
    if (blob->where < BLOB_WHERE_NAMED) {
        blob_key(r->tenant, r->volume_number, blob, key_out);
        return 0;
    }
    int rc = chunk_map_named_key(r->map, blob, key_out);
    if (rc == 0)
        return 0;
    char hex[65];
    sha256_to_hex(&blob->hash, hex);
    log_error("chunk.place_unknown", "blob %s lies in place %u: %s", hex, blob->where,
        rc == -ENOTSUP ? "another store, which this program cannot read" : strerror(-rc));
    return -EIO;
}

static int
fetch_remote(struct chunk_reader *r, const struct fetch *x)
{
    BUFFER_AUTO key = {0};
    BUFFER_AUTO bytes = {0};
    int rc = key_of(r, &x->blob, &key);
    if (rc == 0)
        rc = get_verified(r, x, buffer_string(&key), &bytes);
    if (rc < 0)
        return rc;
    memcpy(x->p, bytes.data, x->n);
    // Keeping is for later readers; this one has its bytes.
    keep(r, x, buffer_string(&key), &bytes);
    return 0;
}

// 0, -ENOENT (not here), -EBADMSG (here, with other bytes), or a read error.
static int
read_local(struct chunk_reader *r, const struct fetch *x)
{
    const struct iovec whole = {x->p, x->n};
    int rc = local_store_readv(
        r->local, &x->blob.hash, x->offset, &whole, 1, !x->call.fetch.bypass_cache);
    if (rc == 0 && !x->verify(x->argument, x->p, x->n))
        rc = -EBADMSG;
    return rc == -ENODATA ? -EBADMSG : rc;
}

static bool
is_in_store(const struct chunk_reader *r, const struct blob_record *blob)
{
    return r->remote && (blob->residency & RESIDENCY_REMOTE);
}

// A whole local copy that does not verify is damage (a partial one simply has a hole there).
static void
note_damage(struct chunk_reader *r, const struct fetch *x, int rc)
{
    char hex[65];
    sha256_to_hex(&x->blob.hash, hex);
    bool remote = is_in_store(r, &x->blob);
    log_error_of("local_store.corrupt", hex, "hot_cache copy of blob %s at %llu: %s; %s", hex,
        (unsigned long long)x->offset, rc == -EBADMSG ? "checksum mismatch" : strerror(-rc),
        remote ? "reading it from the store" : "there is no other copy");
    if (remote) {
        count(&r->numbers.repaired_frames, 1);
        // A fold that reads other parts of it keeps it for so long.
        (void)!local_store_remove(r->local, &x->blob.hash);
    }
}

// From the local copy. When that fails and the blob was only local when the layout was made, it may
// be in the store by now. A whole copy is read twice before it is called damaged: it may have taken
// the place of a partial one in between. A copy that could not be read for want of descriptors or
// memory may be whole, and stays.
static int
fetch_local(struct chunk_reader *r, struct fetch *x)
{
    int rc = read_local(r, x);
    if (rc == 0)
        return 0;
    struct blob_record now;
    if (!is_in_store(r, &x->blob) && chunk_map_read_blob(r->map, &x->blob.hash, &now) == 0)
        x->blob = now;
    if (rc != -ENOENT && local_store_has(r->local, &x->blob.hash)) {
        rc = read_local(r, x);
        if (rc < 0 && rc != -ENOENT && !file_error_is_shortage(rc))
            note_damage(r, x, rc);
    }
    return rc;
}

// The error for a reader when the only copy could not be read.
static int
fail_local(const struct fetch *x, int rc)
{
    if (rc == -ENOENT)
        return -ESTALE;
    if (!file_error_is_shortage(rc))
        return -EIO;
    char hex[65];
    sha256_to_hex(&x->blob.hash, hex);
    log_error_of("chunk.read_failed", hex, "cannot read the hot_cache copy of blob %s: %s", hex,
        strerror(-rc));
    return rc;
}

// Whether another thread has got what the bytes are for.
static bool
is_there(const struct fetch *x)
{
    return x->is_there && x->is_there(x->argument);
}

// 1: try again from the beginning.
static int
try_fetch(struct chunk_reader *r, struct fetch *x)
{
    if (is_there(x))
        return 0;
    x->landings = __atomic_load_n(&r->landings, __ATOMIC_ACQUIRE);
    int rc = fetch_local(r, x);
    if (rc == 0) {
        count(&r->numbers.local_frames, 1);
        return 0;
    }
    if (!is_in_store(r, &x->blob))
        return fail_local(x, rc);
    if (x->call.local_only)
        return -EREMOTE;
    struct chunk_flight flight = {.blob = x->blob.hash, .from = x->offset, .to = x->offset + x->n};
    thread_will_wait();
    rc = take_off(r, &flight, x);
    if (rc == -ETIMEDOUT) {
        BUFFER_AUTO key = {0};
        (void)key_of(r, &x->blob, &key);
        return fail_remote(
            x, buffer_string(&key), "another reader waits for the same bytes too long");
    }
    if (rc != 0)
        return rc;
    // Another flight may have landed since we looked.
    bool here = x->landed && (is_there(x) || read_local(r, x) == 0);
    if (!here)
        rc = fetch_remote(r, x);
    land(r, &flight);
    if (rc == 0)
        count(here ? &r->numbers.local_frames : &r->numbers.remote_frames, 1);
    return rc;
}

// Before it looks for the copy, as every user of a pin.
static void
pin(const struct blob_record *blob, const struct remote_call *call)
{
    if (UNLIKELY(call->fetch.pin_in_cache != NULL))
        pin_blob(call->fetch.pin_in_cache, &blob->hash);
}

int
chunk_read_local(struct chunk_reader *r, const struct blob_record *blob, uint64_t offset,
    const struct iovec *iov, int count, const struct remote_call *call)
{
    pin(blob, call);
    return local_store_readv(r->local, &blob->hash, offset, iov, count, !call->fetch.bypass_cache);
}

int
chunk_fetch(struct chunk_reader *r, const struct blob_record *blob,
    const struct chunk_wanted *wanted, const struct remote_call *call)
{
    if (wanted->offset > blob->bytes || wanted->n > blob->bytes - wanted->offset)
        return -EIO;
    struct fetch x = {
        .blob = *blob,
        .offset = wanted->offset,
        .n = wanted->n,
        .p = wanted->p,
        .verify = wanted->verify,
        .is_there = wanted->is_there,
        .argument = wanted->argument,
        .ahead = wanted->ahead,
        .call = with_deadline(r, call),
    };
    int rc;
    pin(blob, call);
    do {
        rc = try_fetch(r, &x);
    } while (rc > 0);
    if (!x.ahead && (rc == -EIO || rc == -ESTALE || file_error_is_shortage(rc)))
        count(&r->numbers.failed_reads, 1);
    return rc;
}

// ---- ahead of the readers -----------------------------------------------------------------------

static int
get_ahead(struct chunk_reader *r, const struct fetch *x)
{
    BUFFER_AUTO key = {0};
    BUFFER_AUTO bytes = {0};
    int rc = key_of(r, &x->blob, &key);
    if (rc == 0)
        rc = remote_store_get_blob(
            r->remote, buffer_string(&key), x->offset, x->n, &bytes, &x->call);
    if (rc < 0)
        return rc;
    count(&r->numbers.remote_bytes, bytes.length);
    count(&r->numbers.remote_frames, 1);
    return put_in_cache(r, x, &bytes);
}

int
chunk_reader_fetch(struct chunk_reader *r, const struct blob_record *blob, uint64_t offset,
    uint64_t n, const struct remote_call *call)
{
    uint64_t end = offset + n;
    struct fetch x = {.blob = *blob, .call = with_deadline(r, call)};
    if (offset > blob->bytes || n > blob->bytes - offset)
        return -EINVAL;
    int rc = is_in_store(r, blob) ? 1 : 0;
    while (rc > 0) {
        uint64_t hole = local_store_find_hole(r->local, &blob->hash, offset, end);
        if (hole >= end)
            return 0;
        // The last kept bytes may end within a block.
        if (hole - offset > BLOB_FRAME_STORED_MAX)
            offset = hole - BLOB_FRAME_STORED_MAX;
        x.offset = offset;
        x.n = end - offset;
        struct chunk_flight flight = {.blob = blob->hash,
            .from = offset,
            .to = end,
            .ahead = true,
            .gives_way = remote_call_gives_way(call)};
        rc = take_off(r, &flight, &x);
        if (rc == 0) {
            rc = get_ahead(r, &x);
            land(r, &flight);
        }
    }
    return rc;
}

void
chunk_fetch_ahead(struct chunk_reader *r, const struct blob_record *blob, uint64_t offset,
    uint64_t n, const struct remote_call *call)
{
    // The readers of the bytes will see a failure, too.
    (void)!chunk_reader_fetch(r, blob, offset, n, call);
}
