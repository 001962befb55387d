// SPDX-License-Identifier: Apache-2.0
// A manifest, a LocalStore and a RemoteStore in a scratch directory, with one db whose chunks the
// test makes image by image; and the store that it can close like a gate. Include unit.h first.
#ifndef CKPTFS_TESTS_CHUNK_WORLD_H
#define CKPTFS_TESTS_CHUNK_WORLD_H

#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/hash_table.h"
#include "chunk/chunk_reader.h"
#include "format/blob.h"
#include "manifest/manifest.h"
#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "platform/thread.h"
#include "store/blob_key.h"
#include "store/remote_store_backends.h"

#define WORLD_TENANT "acme"

// A store whose gets, or those of at least `least` bytes, wait while the gate is closed, until
// their deadline or until cancelled.
struct gate_store {
    struct remote_store store;
    struct remote_store *inner;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool closed;
    uint64_t least;
    unsigned waiting;
};

struct world {
    char *directory;
    struct manifest *manifest;
    struct db_id db;
    struct uuid checkpoint_id;
    struct local_store *local;
    struct remote_store *fault; // counts and corrupts
    struct gate_store gate;     // around it; what the reader gets
    struct chunk_map *map;
    struct chunk_reader *reader;
    uint64_t generation;
};

static int
gate_get_blob(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    struct gate_store *g = CONTAINER_OF(s, struct gate_store, store);
    int rc = 0;
    pthread_mutex_lock(&g->mutex);
    g->waiting += length >= g->least;
    pthread_cond_broadcast(&g->changed);
    while (g->closed && length >= g->least && rc == 0) {
        struct timespec soon = clock_wall();
        soon.tv_nsec += 5000000;
        soon.tv_sec += soon.tv_nsec / 1000000000;
        soon.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&g->changed, &g->mutex, &soon);
        if (remote_call_is_canceled(call))
            rc = -ECANCELED;
        else if (call->deadline_ms > 0 && clock_monotonic_ms() >= call->deadline_ms)
            rc = -ETIMEDOUT;
    }
    g->waiting -= length >= g->least;
    pthread_mutex_unlock(&g->mutex);
    return rc < 0 ? rc : remote_store_get_blob(g->inner, key, offset, length, out, call);
}

static const struct remote_store_ops gate_ops = {.get_blob = gate_get_blob};

static inline void
gate_set(struct world *w, bool closed)
{
    pthread_mutex_lock(&w->gate.mutex);
    w->gate.closed = closed;
    pthread_cond_broadcast(&w->gate.changed);
    pthread_mutex_unlock(&w->gate.mutex);
}

// Closes it for large requests alone.
static inline void
gate_close_from(struct world *w, uint64_t least)
{
    pthread_mutex_lock(&w->gate.mutex);
    w->gate.closed = true;
    w->gate.least = least;
    pthread_mutex_unlock(&w->gate.mutex);
}

// Waits until so many stand before the gate.
static inline void
gate_await_many(struct world *w, unsigned count)
{
    pthread_mutex_lock(&w->gate.mutex);
    while (w->gate.waiting < count)
        pthread_cond_wait(&w->gate.changed, &w->gate.mutex);
    pthread_mutex_unlock(&w->gate.mutex);
}

static inline void
gate_await(struct world *w)
{
    gate_await_many(w, 1);
}

static inline void
world_init(struct world *w, uint64_t map_limit_bytes, uint64_t deadline_ms)
{
    memset(w, 0, sizeof(*w));
    w->directory = unit_directory_new();
    CLEANUP(memory_free_auto) char *manifest = memory_printf("%s/manifest", w->directory);
    CLEANUP(memory_free_auto) char *bucket = memory_printf("%s/bucket", w->directory);
    struct manifest_options options = {.map_bytes = 16u << 20, .no_sync = true};
    ck_assert_int_eq(manifest_open(manifest, &options, &w->manifest), 0);
    struct db_record db = {.state = DB_STATE_READY,
        .place = "file:///srv/bucket",
        .tenant = WORLD_TENANT,
        .volume_number = 1,
        .volume = {{1}},
        .name_key = {{2}},
        .counters = {2, 1},
        .next = {1}};
    ck_assert_int_eq(manifest_create_db(w->manifest, &db), 0);
    w->db = db.id;
    w->checkpoint_id = random_uuid();
    ck_assert_int_eq(local_store_open(NULL, w->directory, db.id, &w->local), 0);
    struct remote_store *file;
    ck_assert_int_eq(file_store_open(bucket, true, &file_ops_system, &file), 0);
    w->fault = fault_store_wrap(file, NULL);
    w->gate = (struct gate_store){.store = {.ops = &gate_ops},
        .inner = w->fault,
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .changed = PTHREAD_COND_INITIALIZER};
    w->map = chunk_map_new(w->manifest, w->db, map_limit_bytes);
    struct chunk_reader_options reader = {.map = w->map,
        .local = w->local,
        .remote = &w->gate.store,
        .tenant = WORLD_TENANT,
        .volume_number = 1,
        .deadline_ms = deadline_ms};
    w->reader = chunk_reader_new(&reader);
}

static inline void
world_destroy(struct world *w)
{
    chunk_reader_free(w->reader);
    chunk_map_free(w->map);
    remote_store_close(w->fault);
    local_store_close(w->local);
    manifest_close(w->manifest);
    unit_directory_remove(w->directory);
}

static inline uint64_t
world_gets(struct world *w)
{
    return fault_store_calls(w->fault, STORE_VERB_GET);
}

static inline struct blob_record
world_blob_record(const struct world *w, const struct sha256 *hash)
{
    struct manifest_reader *r;
    struct blob_record blob;
    ck_assert_int_eq(manifest_read_begin(w->manifest, &r), 0);
    ck_assert_int_eq(manifest_read_blob(r, w->db, hash, &blob), 0);
    manifest_read_end(r);
    return blob;
}

static inline char *
world_local_path(const struct world *w, const struct sha256 *hash, const char *ending)
{
    char hex[65];
    sha256_to_hex(hash, hex);
    return memory_printf("%s/hot_cache/%u/%s.%s", w->directory, w->db.v, hex, ending);
}

// A whole copy in LocalStore.
static inline void
world_put_local(struct world *w, const struct sha256 *hash, const struct buffer *bytes)
{
    CLEANUP(memory_free_auto)
    char *path = memory_printf("%s/staged", local_store_scratch(w->local));
    ck_assert_int_eq(
        file_replace_whole(&file_ops_system, path, bytes->data, bytes->length, 0600), 0);
    ck_assert_int_eq(local_store_adopt(w->local, path, hash), 0);
    ck_assert_int_eq(local_store_sync(w->local), 0);
}

static inline void
world_put_remote(struct world *w, const struct blob_record *blob, const struct buffer *bytes)
{
    BUFFER_AUTO key = {0};
    struct remote_source source = {
        .data = bytes->data, .length = bytes->length, .hash = blob->hash};
    blob_key(WORLD_TENANT, 1, blob, &key);
    ck_assert_int_eq(
        remote_store_put_blob(w->fault, buffer_string(&key), &source, REMOTE_PUT_OVERWRITE, NULL),
        0);
}

// Records the finished image, which is at `offset` in `bytes`, as the chunk's base or newest delta
// under the next generation, and puts the blob where `residency` says. Returns its hash.
static inline struct sha256
world_add_image(struct world *w, struct object_id object, uint64_t index, enum blob_kind kind,
    const struct buffer *bytes, uint64_t offset, const struct blob_image_info *info,
    uint8_t residency)
{
    struct generation generation = {++w->generation};
    struct chunk_id chunk = {object.v * 1000 + index + 1};
    struct change blob = {.kind = CHANGE_PUT_BLOB};
    blob.blob = (struct blob_record){.bytes = bytes->length,
        .kind = offset > 0          ? BLOB_OBJECT_PACK
                : kind == BLOB_BASE ? BLOB_OBJECT_CHUNK
                                    : BLOB_OBJECT_DELTA,
        .checkpoint_id = w->checkpoint_id,
        .chunk = chunk,
        .generation = generation};
    sha256_of(bytes->data, bytes->length, &blob.blob.hash);
    struct blob_location where = {blob.blob.hash, offset, info->image_bytes, info->index_offset};
    if (residency & RESIDENCY_LOCAL)
        world_put_local(w, &blob.blob.hash, bytes);
    if (residency & RESIDENCY_REMOTE)
        world_put_remote(w, &blob.blob, bytes);
    struct change image = {.kind = kind == BLOB_BASE ? CHANGE_PUT_CHUNK : CHANGE_PUT_DELTA};
    if (kind == BLOB_BASE)
        image.chunk = (struct chunk_entry){.id = chunk,
            .object = object,
            .index = {index},
            .generation = generation,
            .base_generation = generation,
            .base = where,
            .base_pages = info->data_pages,
            .present_pages = info->data_pages};
    else
        image.delta = (struct chunk_delta){.chunk = chunk,
            .generation = generation,
            .where = where,
            .data_pages = info->data_pages,
            .zero_pages = info->zero_pages};
    struct manifest_batch *b = manifest_batch_new(w->db);
    manifest_batch_set_residency(b, residency);
    manifest_batch_change(b, &blob, false, generation);
    manifest_batch_change(b, &image, false, generation);
    struct manifest_released released;
    ck_assert_int_eq(manifest_submit(w->manifest, b, &released), 0);
    manifest_released_free(&released);
    chunk_map_invalidate(w->map, object, (struct chunk_index){index});
    return blob.blob.hash;
}

static inline int
world_sink(void *argument, const void *p, size_t n)
{
    buffer_append(argument, p, n);
    return 0;
}

#endif
