// SPDX-License-Identifier: Apache-2.0
#include "retention/push.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/crash_point.h"
#include "platform/file.h"
#include "platform/memory.h"
#include "remote/remote_blob.h"
#include "retention/blob_work.h"
#include "retention/history.h"
#include "retention/local_copy.h"
#include "retention/verify_internal.h"
#include "store/blob_key.h"

typedef int visit_change(void *argument, struct change *change);

static int
each_change(const struct push *p, visit_change *visit, void *argument)
{
    struct byte_reader r = byte_reader_over(p->state.data, p->state.length);
    int rc = 0;
    while (rc == 0 && byte_reader_left(&r) > 0) {
        struct change c;
        rc = change_decode(&r, &c);
        if (rc == 0)
            rc = visit(argument, &c);
    }
    return rc;
}

void
push_free(struct push *p)
{
    buffer_free(&p->state);
    verify_result_free(&p->lost);
}

// ---- blobs --------------------------------------------------------------------------------------

struct upload {
    struct blob_record blob;
    enum { UPLOAD_WAS_THERE, UPLOAD_DONE, UPLOAD_IS_LOST } state;
};

struct uploading {
    struct push *p;
    struct upload *uploads;
    size_t count, capacity;
};

static int
take_blob(void *argument, struct change *c)
{
    struct uploading *u = argument;
    if (c->kind != CHANGE_PUT_BLOB)
        return 0;
    if (u->count == u->capacity) {
        u->capacity = u->capacity ? u->capacity * 2 : 256;
        u->uploads = memory_realloc(u->uploads, u->capacity * sizeof(*u->uploads));
    }
    u->uploads[u->count] = (struct upload){.blob = c->blob};
    u->uploads[u->count++].blob.where = BLOB_WHERE_OWN;
    return 0;
}

static void
key_of(const struct push *p, const struct blob_record *blob, struct buffer *key_out)
{
    blob_key(p->place->tenant, p->place->volume_number, blob, key_out);
}

static int
upload_number(void *argument, size_t index)
{
    struct uploading *u = argument;
    const struct push *p = u->p;
    struct upload *upload = &u->uploads[index];
    const struct blob_record *blob = &upload->blob;
    BUFFER_AUTO key = {0};
    key_of(p, blob, &key);
    int rc = remote_blob_is_there(p->place, buffer_string(&key), blob->bytes);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    CLEANUP(file_close_auto) int fd = local_copy_open(p->hot_cache, &blob->hash, blob->bytes);
    upload->state = UPLOAD_IS_LOST;
    if (fd < 0)
        return 0;
    rc = remote_blob_put(p->place, buffer_string(&key), fd, blob->bytes, &blob->hash);
    if (rc < 0)
        return rc;
    upload->state = UPLOAD_DONE;
    crash_point("push.uploaded");
    return 0;
}

static int
tell(void *argument, size_t done)
{
    const struct uploading *u = argument;
    const struct push *p = u->p;
    return p->progress ? p->progress(p->argument, "blobs", done, u->count) : 0;
}

static void
count_upload(struct push *p, const struct upload *upload)
{
    BUFFER_AUTO key = {0};
    p->blobs++;
    p->bytes += upload->blob.bytes;
    p->uploaded += upload->state == UPLOAD_DONE;
    if (upload->state != UPLOAD_IS_LOST)
        return;
    key_of(p, &upload->blob, &key);
    verify_note_blob(
        &p->lost, buffer_string(&key), "the storage root has no good copy of it", &upload->blob);
}

static int
upload_all(struct push *p)
{
    struct uploading u = {.p = p};
    int rc = each_change(p, take_blob, &u);
    const struct blob_work work = {upload_number, tell, &u};
    if (rc == 0)
        rc = blob_work_run(&work, u.count);
    for (size_t i = 0; rc == 0 && i < u.count; i++)
        count_upload(p, &u.uploads[i]);
    free(u.uploads);
    return rc;
}

int
push_upload(struct push *p)
{
    int rc = history_export(p->root, p->from, &p->db, &p->state);
    if (rc == 0)
        rc = upload_all(p);
    if (rc == 0 && p->lost.damaged > 0)
        rc = verify_find_files(p->root, p->from, &p->lost);
    return rc;
}

// ---- chunks that need lost blobs ----------------------------------------------------------------

struct hurt_chunk {
    struct object_id object;
    struct chunk_index index;
};

struct folding {
    struct push *p;
    struct manifest_batch *batch;
    struct buffer ids;   // of chunks with lost deltas, in order
    struct buffer hurts; // struct hurt_chunk, in order
};

static bool
is_lost(const struct folding *f, const struct blob_location *where)
{
    return where->length > 0 && verify_find_blob(&f->p->lost, &where->blob) != NULL;
}

// Deltas stand in the order of their chunks' ids.
static int
hear_lost_delta(void *argument, struct change *c)
{
    struct folding *f = argument;
    if (c->kind == CHANGE_PUT_DELTA && is_lost(f, &c->delta.where))
        buffer_append(&f->ids, &c->delta.chunk.v, sizeof(c->delta.chunk.v));
    return 0;
}

static int
compare_ids(const void *a, const void *b)
{
    uint64_t x;
    uint64_t y;
    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return (x > y) - (x < y);
}

static int
hear_hurt_chunk(void *argument, struct change *c)
{
    struct folding *f = argument;
    if (c->kind != CHANGE_PUT_CHUNK)
        return 0;
    bool hurt =
        is_lost(f, &c->chunk.base) ||
        (f->ids.length > 0 && bsearch(&c->chunk.id.v, f->ids.data, f->ids.length / sizeof(uint64_t),
                                  sizeof(uint64_t), compare_ids));
    const struct hurt_chunk chunk = {c->chunk.object, c->chunk.index};
    if (hurt)
        buffer_append(&f->hurts, &chunk, sizeof(chunk));
    return 0;
}

static int
compare_hurts(const void *a, const void *b)
{
    struct hurt_chunk x;
    struct hurt_chunk y;
    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    int objects = (x.object.v > y.object.v) - (x.object.v < y.object.v);
    return objects ? objects : (x.index.v > y.index.v) - (x.index.v < y.index.v);
}

static bool
is_hurt(const struct folding *f, const struct chunk_damage *damage)
{
    const struct hurt_chunk chunk = {damage->object, chunk_of_page(damage->page)};
    size_t n = f->hurts.length / sizeof(chunk);
    return n > 0 && bsearch(&chunk, f->hurts.data, n, sizeof(chunk), compare_hurts);
}

// All pages of the chunk within the file.
static int
put_damage(struct folding *f, struct manifest_reader *r, const struct hurt_chunk *chunk)
{
    struct inode_record inode;
    int rc = manifest_read_inode(r, f->p->from, chunk->object, &inode);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    uint64_t first = chunk->index.v * CHUNK_PAGES;
    uint64_t pages = pages_of_bytes(inode.size);
    if (pages <= first)
        return 0;
    uint64_t count = pages - first < CHUNK_PAGES ? pages - first : CHUNK_PAGES;
    const struct change c = {
        .kind = CHANGE_PUT_DAMAGE,
        .damage = {chunk->object, {first}, (uint32_t)count},
    };
    manifest_batch_change(f->batch, &c, true, f->p->db.local);
    return 0;
}

static int
put_damages(struct folding *f)
{
    struct manifest_reader *r;
    int rc = manifest_read_begin(f->p->root, &r);
    if (rc < 0)
        return rc;
    for (size_t at = 0; rc == 0 && at < f->hurts.length; at += sizeof(struct hurt_chunk)) {
        struct hurt_chunk chunk;
        memcpy(&chunk, f->hurts.data + at, sizeof(chunk));
        rc = put_damage(f, r, &chunk);
    }
    manifest_read_end(r);
    return rc;
}

// ---- folding ------------------------------------------------------------------------------------

static bool
is_told(struct folding *f, struct change *c)
{
    switch (c->kind) {
    case CHANGE_PUT_NAMESPACE:
        return false;
    case CHANGE_PUT_BLOB:
        c->blob.where = BLOB_WHERE_OWN;
        return verify_find_blob(&f->p->lost, &c->blob.hash) == NULL;
    case CHANGE_PUT_CHUNK:
        if (is_lost(f, &c->chunk.base)) {
            c->chunk.base = (struct blob_location){0};
            c->chunk.base_generation.v = 0;
            c->chunk.base_pages = 0;
        }
        return true;
    case CHANGE_PUT_DELTA:
        return !is_lost(f, &c->delta.where);
    case CHANGE_PUT_DAMAGE:
        return !is_hurt(f, &c->damage);
    default:
        return true;
    }
}

static int
fold_change(void *argument, struct change *c)
{
    struct folding *f = argument;
    if (is_told(f, c))
        manifest_batch_change(f->batch, c, true, f->p->db.local);
    return 0;
}

int
push_fold(struct push *p, struct manifest *m, struct db_id to)
{
    struct folding f = {.p = p, .batch = manifest_batch_new(to)};
    manifest_batch_set_residency(f.batch, RESIDENCY_REMOTE);
    int rc = each_change(p, hear_lost_delta, &f);
    if (rc == 0)
        rc = each_change(p, hear_hurt_chunk, &f);
    if (rc == 0)
        rc = each_change(p, fold_change, &f);
    if (rc == 0)
        rc = put_damages(&f);
    buffer_free(&f.ids);
    buffer_free(&f.hurts);
    if (rc == 0)
        return history_fold_end(m, f.batch, p->db.local, (struct lsn){0}, p->db.counters);
    manifest_batch_free(f.batch);
    return rc;
}
