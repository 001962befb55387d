// SPDX-License-Identifier: Apache-2.0
// Blobs that only this host has and that cannot be read any more as a whole. A publication that
// wants to upload one finds out, and asks for a fold. That fold writes the blob's images anew
// without it, from the pages that can still be read; the others are lost (format/records.h:
// chunk_damage). Then nothing refers to the blob any more, and the publish thread tries again.
//
//     noted     by the publish thread; it waits until a fold has been tried
//     tried     a fold has been recorded since: if the blob is still in the way, that did not help,
//               and the publication fails as others do
//     gone      when the manifest has no use for the blob any more
#include <errno.h>
#include <stdlib.h>

#include "base/checksum.h"
#include "checkpoint/checkpoint_internal.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "store/blob_key.h"

#define READ_BYTES (256u << 10)
// A blob that is fetched to replace a damaged copy is in memory meanwhile.
#define REPAIR_BYTES_MAX ((uint64_t)256 << 20)

bool
checkpoint_is_unreadable(int rc)
{
    return rc == -EIO || rc == -EBADMSG || rc == -ENODATA || rc == -ESTALE;
}

static struct damaged_blob *
find_locked(struct checkpoint *c, const struct sha256 *hash)
{
    for (size_t i = 0; i < c->publish.damaged_count; i++)
        if (sha256_equal(&c->publish.damaged[i].hash, hash))
            return &c->publish.damaged[i];
    return NULL;
}

bool
checkpoint_is_damaged(struct checkpoint *c, const struct sha256 *hash)
{
    lock_take(&c->lock);
    bool damaged = find_locked(c, hash) != NULL;
    lock_release(&c->lock);
    return damaged;
}

struct sha256 *
checkpoint_damaged_blobs(struct checkpoint *c, size_t *count_out)
{
    // A fold cannot write blobs anew while a publication uploads them.
    bool publishing = pin_set_generation(local_store_pins(c->options.local)).v != 0;
    lock_take(&c->lock);
    size_t count = publishing ? 0 : c->publish.damaged_count;
    struct sha256 *hashes = memory_alloc(count * sizeof(*hashes));
    for (size_t i = 0; i < count; i++)
        hashes[i] = c->publish.damaged[i].hash;
    *count_out = count;
    lock_release(&c->lock);
    return hashes;
}

static bool
is_needed(struct checkpoint *c, struct manifest_reader *r, const struct sha256 *hash)
{
    struct blob_record blob;
    int rc = manifest_read_blob(r, c->options.db, hash, &blob);
    return rc == 0 ? blob.references > 0 : rc != -ENOENT;
}

static void
settle(struct checkpoint *c, const struct sha256 *hash, bool needed)
{
    lock_take(&c->lock);
    struct damaged_blob *d = find_locked(c, hash);
    d->tried = true;
    if (!needed)
        *d = c->publish.damaged[--c->publish.damaged_count];
    lock_release(&c->lock);
}

void
checkpoint_damage_tried(
    struct checkpoint *c, const struct sha256 *hashes, size_t count, bool recorded)
{
    struct manifest_reader *r = NULL;
    if (recorded && manifest_read_begin(c->options.manifest, &r) == 0)
        for (size_t i = 0; i < count; i++)
            settle(c, &hashes[i], is_needed(c, r, &hashes[i]));
    manifest_read_end(r);
    lock_take(&c->lock);
    c->publish.mending = false;
    for (size_t i = 0; recorded && i < c->publish.damaged_count; i++)
        c->publish.mending |= !c->publish.damaged[i].tried; // noted meanwhile: another fold comes
    condition_signal(&c->publish.work);
    lock_release(&c->lock);
}

// ---- finding out --------------------------------------------------------------------------------

static int
hash_of(struct checkpoint *c, int fd, struct sha256 *hash_out)
{
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc(READ_BYTES);
    struct sha256_stream *stream = sha256_stream_new();
    uint64_t at = 0;
    ssize_t got;
    while ((got = file_read_at(c->options.ops, fd, bytes, READ_BYTES, at)) > 0) {
        sha256_stream_update(stream, bytes, (size_t)got);
        at += (uint64_t)got;
    }
    sha256_stream_finish(stream, hash_out);
    sha256_stream_free(stream);
    return got < 0 ? (int)got : 0;
}

// 1: the local copy has other bytes, or cannot be read, or is missing. 0: it is whole.
static int
look_at_copy(struct checkpoint *c, const struct blob_record *blob)
{
    CLEANUP(file_close_auto) int fd = -1;
    struct sha256 hash;
    int rc = local_store_open_blob(c->options.local, &blob->hash, &fd);
    if (rc == -ENOENT)
        return 1;
    if (rc == 0)
        rc = hash_of(c, fd, &hash);
    if (rc == 0)
        return !sha256_equal(&hash, &blob->hash);
    return rc == -EIO ? 1 : rc;
}

// An upload whose outcome was lost may have left the object there.
static int
repair(struct checkpoint *c, const struct blob_record *blob, const char *key,
    const struct remote_call *call)
{
    struct remote_store *store = c->options.place.store;
    BUFFER_AUTO bytes = {0};
    struct remote_head head;
    struct sha256 hash;
    int rc = remote_store_head_blob(store, key, &head, call);
    if (rc == 0 && (head.size != blob->bytes || head.size > REPAIR_BYTES_MAX))
        rc = -ENOENT;
    if (rc == 0)
        rc = remote_store_get_blob(store, key, 0, blob->bytes, &bytes, call);
    if (rc < 0)
        return rc;
    sha256_of(bytes.data, bytes.length, &hash);
    if (!sha256_equal(&hash, &blob->hash))
        return -ENOENT;
    CLEANUP(memory_free_auto)
    char *path = memory_printf("%s/repair", local_store_scratch(c->options.local));
    struct storage_quota *quota = local_store_quota(c->options.local);
    uint64_t reserved = storage_quota_blocks_for(bytes.length);
    rc = storage_quota_reserve(quota, QUOTA_BLOBS, QUOTA_CHECKPOINT, reserved);
    if (rc < 0)
        return rc;
    reserved += storage_quota_path_bytes(path); // of an attempt that failed
    rc = file_replace_whole(c->options.ops, path, bytes.data, bytes.length, 0600);
    storage_quota_settle(quota, QUOTA_BLOBS, reserved, storage_quota_path_bytes(path));
    if (rc == 0)
        rc = local_store_adopt(c->options.local, path, &blob->hash);
    return rc == 0 ? local_store_sync(c->options.local) : rc;
}

static void
log_blob(enum log_level level, const char *event, const char *key, const char *message)
{
    struct log_event e;
    log_begin_of(&e, level, event, key);
    log_string(&e, "message", message);
    log_end(&e);
}

static bool
note(struct checkpoint *c, const struct sha256 *hash)
{
    lock_take(&c->lock);
    struct damaged_blob *known = find_locked(c, hash);
    bool hope = !known || !known->tried;
    if (!known) {
        size_t n = c->publish.damaged_count + 1;
        c->publish.damaged = memory_realloc(c->publish.damaged, n * sizeof(*c->publish.damaged));
        c->publish.damaged[c->publish.damaged_count++] = (struct damaged_blob){.hash = *hash};
    }
    c->publish.mending |= hope; // the fold is asked for when this publication has ended
    lock_release(&c->lock);
    return hope;
}

int
checkpoint_explain_upload(struct checkpoint *c, const struct blob_record *blob, const char *key,
    const struct remote_call *call, int error)
{
    if (!checkpoint_is_unreadable(error))
        return error;
    // Twice: the fault may pass.
    if (look_at_copy(c, blob) != 1 || look_at_copy(c, blob) != 1)
        return error;
    int rc = repair(c, blob, key, call);
    if (rc == 0) {
        log_blob(LOG_LEVEL_WARNING, "checkpoint.blob_repaired", key,
            "the local copy was damaged; it was got back from the store, which had it already");
        return 0;
    }
    // While the store does not say whether it has the blob, the thread gives nothing up.
    if (rc != -ENOENT)
        return rc;
    if (c->options.host.root_is_gone && c->options.host.root_is_gone(c->options.host.argument))
        return error;
    bool hope = note(c, &blob->hash);
    log_blob(LOG_LEVEL_ERROR, "checkpoint.blob_damaged", key,
        hope ? "the only copy is damaged or missing; its readable part is written anew"
             : "the only copy is damaged or missing, and could not be replaced");
    return hope ? -EUCLEAN : -EIO;
}
