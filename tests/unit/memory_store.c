// SPDX-License-Identifier: Apache-2.0
#include "memory_store.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "store/store_internal.h"

struct object {
    char *key;
    uint8_t *bytes;
    uint64_t length;
    uint64_t modified_ms;
};

struct memory_store {
    struct remote_store base;
    struct object *objects; // in order of keys
    size_t count, capacity;
    uint64_t ahead_ms;
    struct remote_store *inner; // has the bytes; or NULL
    pthread_mutex_t lock;       // protects the objects
};

static struct memory_store *
store_of(const struct remote_store *s)
{
    return CONTAINER_OF((struct remote_store *)s, struct memory_store, base);
}

void
memory_store_pass(struct remote_store *s, uint64_t ms)
{
    store_of(s)->ahead_ms += ms;
}

uint64_t
memory_store_now_ms(const struct remote_store *s)
{
    return clock_wall_ms() + store_of(s)->ahead_ms;
}

// The first object whose key is not below this one.
static size_t
place_of(const struct memory_store *ms, const char *key)
{
    size_t low = 0;
    size_t high = ms->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(ms->objects[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct object *
find(const struct memory_store *ms, const char *key)
{
    size_t at = place_of(ms, key);
    return at < ms->count && strcmp(ms->objects[at].key, key) == 0 ? &ms->objects[at] : NULL;
}

static struct object *
insert(struct memory_store *ms, const char *key)
{
    size_t at = place_of(ms, key);
    if (ms->count == ms->capacity) {
        ms->capacity = ms->capacity ? ms->capacity * 2 : 256;
        ms->objects = memory_realloc(ms->objects, ms->capacity * sizeof(*ms->objects));
    }
    memmove(&ms->objects[at + 1], &ms->objects[at], (ms->count - at) * sizeof(*ms->objects));
    ms->objects[at] = (struct object){.key = memory_string(key)};
    ms->count++;
    return &ms->objects[at];
}

static int
put_locked(struct remote_store *s, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    struct memory_store *ms = store_of(s);
    struct object *o = find(ms, key);
    STORE_COUNT(s, put_requests, 1);
    int inner_rc = ms->inner ? remote_store_put_blob(ms->inner, key, source, mode, call) : 0;
    if (inner_rc < 0)
        return inner_rc;
    if (o && mode == REMOTE_PUT_CREATE)
        return store_fail(-EEXIST, "put %s: the object exists", key);
    uint8_t *bytes = memory_alloc(source->length + 1);
    int rc = store_source_read(source, 0, bytes, source->length);
    if (rc < 0) {
        free(bytes);
        return rc;
    }
    if (!o)
        o = insert(ms, key);
    free(o->bytes);
    o->bytes = bytes;
    o->length = source->length;
    o->modified_ms = memory_store_now_ms(s);
    STORE_COUNT(s, bytes_written, source->length);
    return 0;
}

static int
memory_put(struct remote_store *s, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    struct memory_store *ms = store_of(s);
    pthread_mutex_lock(&ms->lock);
    int rc = put_locked(s, key, source, mode, call);
    pthread_mutex_unlock(&ms->lock);
    return rc;
}

static int
get_locked(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    const struct object *o = find(store_of(s), key);
    STORE_COUNT(s, get_requests, 1);
    if (store_of(s)->inner)
        return remote_store_get_blob(store_of(s)->inner, key, offset, length, out, call);
    if (!o)
        return store_fail(-ENOENT, "get %s: no such object", key);
    if (offset > 0 && offset >= o->length)
        return store_fail(-EIO, "get %s: the range begins behind the end", key);
    if (length > o->length - offset)
        length = o->length - offset;
    buffer_append(out, o->bytes + offset, length);
    STORE_COUNT(s, bytes_read, length);
    return 0;
}

static int
memory_get(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    struct memory_store *ms = store_of(s);
    pthread_mutex_lock(&ms->lock);
    int rc = get_locked(s, key, offset, length, out, call);
    pthread_mutex_unlock(&ms->lock);
    return rc;
}

static int
head_locked(struct remote_store *s, const char *key, struct remote_head *head_out,
    const struct remote_call *call)
{
    const struct object *o = find(store_of(s), key);
    STORE_COUNT(s, head_requests, 1);
    int rc =
        store_of(s)->inner ? remote_store_head_blob(store_of(s)->inner, key, head_out, call) : 0;
    if (rc < 0)
        return rc;
    if (!o)
        return store_fail(-ENOENT, "head %s: no such object", key);
    *head_out = (struct remote_head){
        .size = o->length,
        .clock_skew_ms = (int64_t)store_of(s)->ahead_ms,
        .modified_ms = o->modified_ms,
    };
    return 0;
}

static int
memory_head(struct remote_store *s, const char *key, struct remote_head *head_out,
    const struct remote_call *call)
{
    struct memory_store *ms = store_of(s);
    pthread_mutex_lock(&ms->lock);
    int rc = head_locked(s, key, head_out, call);
    pthread_mutex_unlock(&ms->lock);
    return rc;
}

static int
list_locked(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *listing_out, const struct remote_call *call)
{
    const struct memory_store *ms = store_of(s);
    size_t at = place_of(ms, prefix);
    STORE_COUNT(s, list_requests, 1);
    if (ms->inner)
        return remote_store_list_blobs(ms->inner, prefix, after, limit, listing_out, call);
    if (after && strcmp(after, prefix) >= 0)
        at = place_of(ms, after);
    for (; at < ms->count; at++) {
        const struct object *o = &ms->objects[at];
        if (after && strcmp(o->key, after) == 0)
            continue;
        if (strncmp(o->key, prefix, strlen(prefix)) != 0)
            break;
        if (listing_out->count == limit) {
            listing_out->more = true;
            break;
        }
        store_listing_append(listing_out, o->key, strlen(o->key), o->length);
    }
    return 0;
}

static int
memory_list(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *listing_out, const struct remote_call *call)
{
    struct memory_store *ms = store_of(s);
    pthread_mutex_lock(&ms->lock);
    int rc = list_locked(s, prefix, after, limit, listing_out, call);
    pthread_mutex_unlock(&ms->lock);
    return rc;
}

static int
delete_locked(
    struct remote_store *s, const char *const *keys, size_t count, const struct remote_call *call)
{
    struct memory_store *ms = store_of(s);
    STORE_COUNT(s, delete_requests, 1);
    int rc = ms->inner ? remote_store_delete_blobs(ms->inner, keys, count, call) : 0;
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < count; i++) {
        struct object *o = find(ms, keys[i]);
        if (!o)
            continue;
        free(o->key);
        free(o->bytes);
        size_t at = (size_t)(o - ms->objects);
        memmove(o, o + 1, (ms->count - at - 1) * sizeof(*o));
        ms->count--;
    }
    return 0;
}

static int
memory_delete(
    struct remote_store *s, const char *const *keys, size_t count, const struct remote_call *call)
{
    struct memory_store *ms = store_of(s);
    pthread_mutex_lock(&ms->lock);
    int rc = delete_locked(s, keys, count, call);
    pthread_mutex_unlock(&ms->lock);
    return rc;
}

static int
memory_probe(struct remote_store *s UNUSED, const struct remote_call *call UNUSED)
{
    return 0;
}

static void
memory_close(struct remote_store *s)
{
    struct memory_store *ms = store_of(s);
    for (size_t i = 0; i < ms->count; i++) {
        free(ms->objects[i].key);
        free(ms->objects[i].bytes);
    }
    free(ms->objects);
    remote_store_close(ms->inner);
    pthread_mutex_destroy(&ms->lock);
    free(ms);
}

static const struct remote_store_ops memory_store_ops = {
    .put_blob = memory_put,
    .get_blob = memory_get,
    .head_blob = memory_head,
    .list_blobs = memory_list,
    .delete_blobs = memory_delete,
    .probe = memory_probe,
    .close = memory_close,
};

struct remote_store *
memory_store_new(void)
{
    struct memory_store *ms = memory_alloc_zero(sizeof(*ms));
    ms->base.ops = &memory_store_ops;
    pthread_mutex_init(&ms->lock, NULL);
    return &ms->base;
}

struct remote_store *
memory_store_over(struct remote_store *inner)
{
    struct remote_store *s = memory_store_new();
    store_of(s)->inner = inner;
    return s;
}

size_t
memory_store_count(const struct remote_store *s, const char *prefix, uint64_t *bytes_out)
{
    const struct memory_store *ms = store_of(s);
    size_t count = 0;
    uint64_t bytes = 0;
    for (size_t i = place_of(ms, prefix); i < ms->count; i++, count++) {
        if (strncmp(ms->objects[i].key, prefix, strlen(prefix)) != 0)
            break;
        bytes += ms->objects[i].length;
    }
    if (bytes_out)
        *bytes_out = bytes;
    return count;
}

const char *
memory_store_key(const struct remote_store *s, const char *prefix, size_t n)
{
    const struct memory_store *ms = store_of(s);
    size_t at = place_of(ms, prefix) + n;
    bool there = at < ms->count && strncmp(ms->objects[at].key, prefix, strlen(prefix)) == 0;
    return there ? ms->objects[at].key : NULL;
}
