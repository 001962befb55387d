// SPDX-License-Identifier: Apache-2.0
// Staging: the images of a plan become blob files in the job's scratch directory. Large images have
// a blob of their own, small ones share packs. Images that find no room in the quota go to the
// store at once (checkpoint_part.c), in packs that are in memory until they are there.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "checkpoint/checkpoint_internal.h"
#include "platform/log.h"
#include "platform/memory.h"

#define PACK_BYTES_MAX (64u << 20)
#define READ_BUFFER    (256u << 10)
// Small enough to stay in the processor's cache between hashing and writing. Writes begin at
// multiples of it, which costs the kernel's cache a fifth less than other places.
#define WRITE_BUFFER (256u << 10)
// So much may be on its way to the disk: commits to the log share it and do not wait behind more.
#define WRITE_BEHIND (4u << 20)

// A blob file that is being written.
struct blob_file {
    const struct file_ops *ops;
    int fd; // -1: none
    char *path;
    uint64_t bytes;
    uint64_t started;           // handed to the disk below this
    struct sha256_stream *hash; // of a pack; NULL: the blob is one image, which has its hash
    uint32_t crc;               // CRC-32C of all bytes
    struct buffer pending;      // not written yet
    struct storage_quota *quota;
    uint64_t reserved;
    bool in_memory; // a part: it has no path, and its bytes are not on the disk
};

struct stage {
    struct checkpoint *c;
    const struct checkpoint_cut *cut;
    const struct checkpoint_plan *plan;
    struct checkpoint_staging *out;
    const struct job_record *job;
    const char *directory;
    bool in_parts; // the quota is full: packs go to the store as soon as they are finished
    size_t at;     // the action in work
    struct blob_file pack;
    size_t pack_first;  // the action of its first image
    size_t pack_images; // that have gone into it as a whole
};

bool
checkpoint_makes_base(const struct chunk_action *action)
{
    return action->kind == CHUNK_ACTION_SEAL_AS_BASE || action->kind == CHUNK_ACTION_CREATE_BASE;
}

// Keeps the disk busy while the next bytes are made, and waits for the bytes that are WRITE_BEHIND
// older. The wait takes an error of write-back away from the fdatasync that follows, so its result
// counts.
static int
file_write_behind(struct blob_file *f)
{
    uint64_t end = f->bytes - f->pending.length;
    if (f->in_memory || end < f->started + WRITE_BUFFER)
        return 0;
    int rc = file_start_writing(f->ops, f->fd, f->started, end - f->started);
    if (rc == 0 && f->started > WRITE_BEHIND)
        rc = file_wait_written(f->ops, f->fd, 0, f->started - WRITE_BEHIND);
    f->started = end;
    return rc;
}

// Writes the first `n` of the bytes that are pending.
static int
file_flush(struct blob_file *f, size_t n)
{
    struct buffer *b = &f->pending;
    uint64_t reserved = storage_quota_blocks_for(n);
    int rc = storage_quota_reserve(f->quota, QUOTA_BLOBS, QUOTA_CHECKPOINT, reserved);
    if (rc < 0)
        return rc;
    f->reserved += reserved;
    rc = file_write_at(f->ops, f->fd, b->data, n, f->bytes - b->length);
    b->length -= n;
    memmove(b->data, b->data + n, b->length);
    return rc < 0 ? rc : file_write_behind(f);
}

static int
file_append(void *argument, const void *p, size_t n)
{
    struct blob_file *f = argument;
    if (f->hash)
        sha256_stream_update(f->hash, p, n);
    f->crc = crc32c(f->crc, p, n);
    buffer_append(&f->pending, p, n);
    f->bytes += n;
    size_t whole = f->pending.length - f->pending.length % WRITE_BUFFER;
    return whole > 0 ? file_flush(f, whole) : 0;
}

static int
file_begin(struct stage *s, struct blob_file *f, bool pack)
{
    *f = (struct blob_file){.ops = s->c->options.ops, .in_memory = s->in_parts};
    if (f->in_memory) {
        f->fd = checkpoint_part_open();
    } else {
        f->quota = local_store_quota(s->c->options.local);
        f->path = memory_printf("%s/blob-%zu", s->directory, s->out->blob_count);
        f->fd = file_open(f->ops, f->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    }
    if (f->fd < 0) {
        int rc = f->fd;
        free(f->path);
        f->path = NULL;
        return rc;
    }
    f->hash = pack ? sha256_stream_new() : NULL;
    return 0;
}

// The file stays in the directory of the job, and its bytes count.
static void
file_abandon(struct blob_file *f)
{
    if (f->fd >= 0 && f->quota)
        storage_quota_settle(f->quota, QUOTA_BLOBS, f->reserved, storage_quota_file_bytes(f->fd));
    file_close(f->fd);
    sha256_stream_free(f->hash);
    buffer_free(&f->pending);
    free(f->path);
    *f = (struct blob_file){.fd = -1};
}

// The file goes, and gives its room back.
static void
file_discard(struct blob_file *f)
{
    uint64_t bytes = f->fd >= 0 && f->quota ? storage_quota_file_bytes(f->fd) : 0;
    CLEANUP(memory_free_auto) char *path = f->path;
    struct storage_quota *quota = f->quota;
    const struct file_ops *ops = f->ops;
    f->path = NULL;
    file_abandon(f);
    if (path && ops->unlink(path) == 0)
        storage_quota_give_back(quota, QUOTA_BLOBS, bytes);
}

// Makes the file durable, here or in the store, and adds it to the staging as blob number
// blob_count. `hash`: that of the bytes, NULL for a pack.
static int
file_finish(
    struct stage *s, struct blob_file *f, enum blob_object_kind kind, const struct sha256 *hash)
{
    int rc = file_flush(f, f->pending.length);
    if (rc == 0 && !f->in_memory)
        rc = f->ops->fdatasync(f->fd);
    if (rc < 0)
        return rc;
    struct checkpoint_staging *out = s->out;
    out->blobs = memory_realloc(out->blobs, (out->blob_count + 1) * sizeof(*out->blobs));
    struct staged_blob *blob = &out->blobs[out->blob_count++];
    *blob = (struct staged_blob){
        .path = f->path,
        .crc = f->crc,
        .record = {.bytes = f->bytes,
            .kind = (uint8_t)kind,
            .residency = RESIDENCY_LOCAL,
            .checkpoint_id = s->job->checkpoint_id,
            .generation = s->job->generation,
            .where = BLOB_WHERE_OWN},
    };
    if (f->hash)
        sha256_stream_finish(f->hash, &blob->record.hash);
    else
        blob->record.hash = *hash;
    out->bytes += f->bytes;
    f->path = NULL;
    if (f->in_memory)
        rc = checkpoint_part_upload(s->c, blob, f->fd);
    file_abandon(f);
    return rc;
}

static int
finish_pack(struct stage *s)
{
    if (s->pack.fd < 0)
        return 0;
    int rc = file_finish(s, &s->pack, BLOB_OBJECT_PACK, NULL);
    if (rc == 0)
        s->pack_images = 0;
    return rc;
}

static int
write_image(struct stage *s, const struct chunk_action *action, struct blob_file *f,
    struct staged_image *image)
{
    bool base = checkpoint_makes_base(action);
    struct blob_writer *w = blob_writer_new(base ? BLOB_BASE : BLOB_DELTA, file_append, f);
    image->action = action;
    image->blob = s->out->blob_count;
    image->offset = f->bytes;
    int rc = checkpoint_fold_go_on(s->c);
    if (rc == 0)
        rc = checkpoint_write_image(s->c, s->cut, action, w, image);
    if (rc == 0)
        rc = blob_writer_finish(w, &image->info);
    blob_writer_free(w);
    return rc;
}

static int
align_pack(struct blob_file *f)
{
    static const uint8_t zeros[BLOB_ALIGNMENT];
    uint64_t over = f->bytes % BLOB_ALIGNMENT;
    return over ? file_append(f, zeros, BLOB_ALIGNMENT - over) : 0;
}

static int
begin_pack(struct stage *s)
{
    s->pack_first = s->at;
    s->pack_images = 0;
    return file_begin(s, &s->pack, true);
}

// Packs take the next blob number only when they are finished, so a large image that comes between
// finishes the pack first.
static int
stage_image(struct stage *s, const struct chunk_action *action)
{
    struct staged_image *image = &s->out->images[s->out->image_count];
    bool packed = action->pack || s->in_parts;
    uint64_t pack_bytes_max = s->in_parts ? CHECKPOINT_PART_BYTES : PACK_BYTES_MAX;
    int rc = 0;
    if (s->pack.fd >= 0 && (!packed || s->pack.bytes + action->estimated_bytes > pack_bytes_max))
        rc = finish_pack(s);
    if (rc < 0)
        return rc;
    if (packed) {
        rc = s->pack.fd < 0 ? begin_pack(s) : align_pack(&s->pack);
        if (rc == 0)
            rc = write_image(s, action, &s->pack, image);
        s->pack_images += rc == 0;
    } else {
        struct blob_file f;
        rc = file_begin(s, &f, false);
        if (rc < 0)
            return rc;
        rc = write_image(s, action, &f, image);
        bool base = checkpoint_makes_base(action);
        if (rc == 0)
            rc =
                file_finish(s, &f, base ? BLOB_OBJECT_CHUNK : BLOB_OBJECT_DELTA, &image->info.hash);
        file_discard(&f);
    }
    if (rc == 0)
        s->out->image_count++;
    else
        free(image->lost.runs);
    return rc;
}

static int
stage_rest(struct stage *s)
{
    int rc = 0;
    for (; rc == 0 && s->at < s->plan->count; s->at += rc == 0)
        if (s->plan->actions[s->at].kind != CHUNK_ACTION_DROP_CHUNK)
            rc = stage_image(s, &s->plan->actions[s->at]);
    return rc == 0 ? finish_pack(s) : rc;
}

// The images of the unfinished pack are made again as a part: the pack cannot be finished where
// there is no room, and a half image spoils its hash.
static void
go_on_in_parts(struct stage *s)
{
    if (s->pack.fd >= 0) {
        s->at = s->pack_first;
        for (; s->pack_images > 0; s->pack_images--)
            free(s->out->images[--s->out->image_count].lost.runs);
        file_discard(&s->pack);
    }
    s->in_parts = true;
}

int
checkpoint_stage(struct checkpoint *c, const struct checkpoint_cut *cut,
    const struct checkpoint_plan *plan, const struct job_record *job, const char *directory,
    struct checkpoint_staging *staging_out)
{
    *staging_out = (struct checkpoint_staging){
        .images = memory_alloc_zero(plan->count * sizeof(struct staged_image))};
    struct stage s = {
        .c = c,
        .cut = cut,
        .plan = plan,
        .out = staging_out,
        .job = job,
        .directory = directory,
        .pack = {.fd = -1},
    };
    int rc = stage_rest(&s);
    if (rc == -EDQUOT && checkpoint_may_stage_in_parts(c)) {
        go_on_in_parts(&s);
        rc = stage_rest(&s);
    }
    file_abandon(&s.pack);
    if (rc < 0) {
        checkpoint_parts_discard(c, staging_out);
        checkpoint_staging_free(staging_out);
    }
    return rc;
}

static int
verify_blob(struct checkpoint *c, const struct staged_blob *blob)
{
    CLEANUP(file_close_auto) int fd = file_open(c->options.ops, blob->path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc(READ_BUFFER);
    uint32_t crc = 0;
    uint64_t at = 0;
    ssize_t got;
    while ((got = file_read_at(c->options.ops, fd, bytes, READ_BUFFER, at)) > 0) {
        crc = crc32c(crc, bytes, (size_t)got);
        at += (uint64_t)got;
    }
    if (got < 0)
        return (int)got;
    if (at == blob->record.bytes && crc == blob->crc)
        return 0;
    log_error("checkpoint.corrupt", "%s does not read back as it was written", blob->path);
    return -EIO;
}

int
checkpoint_verify_staging(struct checkpoint *c, const struct checkpoint_staging *staging)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < staging->blob_count; i++)
        if (staging->blobs[i].part == STAGED_HERE)
            rc = verify_blob(c, &staging->blobs[i]);
    return rc;
}

void
checkpoint_staging_free(struct checkpoint_staging *staging)
{
    for (size_t i = 0; i < staging->blob_count; i++)
        free(staging->blobs[i].path);
    free(staging->blobs);
    for (size_t i = 0; i < staging->image_count; i++)
        free(staging->images[i].lost.runs);
    free(staging->images);
    *staging = (struct checkpoint_staging){0};
}
