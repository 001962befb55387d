// SPDX-License-Identifier: Apache-2.0
// Parts: packs of a checkpoint whose images find no room in the quota. The fold thread makes such a
// pack in memory, uploads it, and goes on with the next one; in the end it records all of them, and
// what it staged on the disk before, as one local generation. So a log can be released that holds
// more than the quota has room for, and the bucket's readers see one cut as ever. Their keys are
// those of packs. No other fold uses them, because they carry the checkpoint's id.
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "checkpoint/checkpoint_internal.h"
#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "store/blob_key.h"

bool
checkpoint_may_stage_in_parts(struct checkpoint *c)
{
    lock_take(&c->lock);
    bool may = c->fold.frugal && c->publish.claimed && !c->numbers.fenced && !c->stopping;
    lock_release(&c->lock);
    return may;
}

int
checkpoint_part_open(void)
{
    int fd = memfd_create("ckptfs-part", MFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static bool
is_stopping(void *argument)
{
    struct checkpoint *c = argument;
    return checkpoint_is_canceled(c) || atomic_load(&c->fold.cancel) != 0;
}

static struct remote_call
call_of(struct checkpoint *c, uint64_t bytes)
{
    return (struct remote_call){
        .deadline_ms = checkpoint_upload_deadline_ms(c, bytes),
        .is_canceled = is_stopping,
        .argument = c,
        .class = REMOTE_UPLOAD,
    };
}

// 1: the store has the same bytes, and they stay there; 0: it has not; -EDQUOT: a copy on this host
// is on its way there, or the store's is about to go.
static int
is_known(struct checkpoint *c, const struct sha256 *hash)
{
    struct manifest_reader *r;
    struct blob_record blob;
    int rc = manifest_read_begin(c->options.manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_blob(r, c->options.db, hash, &blob);
    manifest_read_end(r);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return (blob.residency & RESIDENCY_REMOTE) && blob.references > 0 ? 1 : -EDQUOT;
}

// An object that a store keeps short would be found out too late: the log goes before any thread
// reads the object.
static int
look_at_object(struct checkpoint *c, const char *key, uint64_t bytes)
{
    struct remote_head head;
    const struct remote_call call = call_of(c, 0);
    int rc = remote_store_head_blob(c->options.place.store, key, &head, &call);
    if (rc < 0 || head.size == bytes)
        return rc;
    remote_store_set_error("%s has %llu bytes in the store instead of %llu", key,
        (unsigned long long)head.size, (unsigned long long)bytes);
    return -EIO;
}

static int
put(struct checkpoint *c, const struct staged_blob *blob, int fd)
{
    BUFFER_AUTO key = {0};
    blob_key(c->options.place.tenant, c->options.place.volume_number, &blob->record, &key);
    const struct remote_source source = {
        .fd = fd,
        .length = blob->record.bytes,
        .hash = blob->record.hash,
        .crc = blob->crc,
        .crc_known = true,
    };
    const struct remote_call call = call_of(c, blob->record.bytes);
    int rc = remote_store_put_blob(
        c->options.place.store, buffer_string(&key), &source, REMOTE_PUT_OVERWRITE, &call);
    return rc == 0 ? look_at_object(c, buffer_string(&key), blob->record.bytes) : rc;
}

int
checkpoint_part_upload(struct checkpoint *c, struct staged_blob *blob, int fd)
{
    int rc = is_known(c, &blob->record.hash);
    if (rc == 1)
        blob->part = STAGED_KNOWN_BEFORE;
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    blob->part = STAGED_IN_STORE;
    rc = put(c, blob, fd);
    if (rc == -ECANCELED)
        return rc;
    if (rc < 0) {
        checkpoint_note_failure(c, "upload", rc, remote_store_error());
        return -EDQUOT;
    }
    // An object carries the number now.
    c->fold.unused.v = 0;
    log_info("checkpoint.part_uploaded",
        "there is no room in the quota: a part of the checkpoint with %llu bytes went to the store",
        (unsigned long long)blob->record.bytes);
    crash_point("checkpoint.part_uploaded");
    return 0;
}

void
checkpoint_parts_discard(struct checkpoint *c, const struct checkpoint_staging *staging)
{
    const struct remote_call call = call_of(c, 0);
    for (size_t i = 0; i < staging->blob_count; i++) {
        const struct blob_record *blob = &staging->blobs[i].record;
        if (staging->blobs[i].part != STAGED_IN_STORE || is_known(c, &blob->hash) != 0)
            continue;
        BUFFER_AUTO key = {0};
        blob_key(c->options.place.tenant, c->options.place.volume_number, blob, &key);
        const char *name = buffer_string(&key);
        int rc = remote_store_delete_blobs(c->options.place.store, &name, 1, &call);
        // The sweep of the bucket deletes the rest, too.
        if (rc < 0)
            return;
    }
}
