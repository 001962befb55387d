// SPDX-License-Identifier: Apache-2.0
// Objects of the manifest as they come from the store: whole ones in memory or in a file of
// scratch, so that memory does not depend on their size.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "quota/quota_job.h"
#include "remote/remote_internal.h"

int
remote_log_failure(const char *event, const char *key, int rc)
{
    struct log_event e;
    log_begin_of(&e, LOG_LEVEL_ERROR, event, key);
    log_string(&e, "error", strerror(-rc));
    log_string(&e, "cause", remote_store_error());
    log_end(&e);
    return rc;
}

int
remote_log_bad(const char *key, const char *why)
{
    struct log_event e;
    log_begin_of(&e, LOG_LEVEL_ERROR, "remote.object_bad", key);
    log_string(&e, "cause", why);
    log_end(&e);
    remote_store_set_error("%s: %s", key, why);
    return -EBADMSG;
}

int
remote_small_put(const struct remote_place *place, const char *key, const void *p, size_t n)
{
    struct remote_source source = {.data = p, .length = n};
    sha256_of(p, n, &source.hash);
    struct remote_call call = remote_call_of(place, n);
    int rc = remote_store_put_blob(place->store, key, &source, REMOTE_PUT_OVERWRITE, &call);
    return rc < 0 ? remote_log_failure("remote.put_failed", key, rc) : 0;
}

int
remote_small_delete(const struct remote_place *place, const char *key)
{
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_delete_blobs(place->store, &key, 1, &call);
    return rc < 0 ? remote_log_failure("remote.delete_failed", key, rc) : 0;
}

void
remote_object_free(struct remote_object *o)
{
    buffer_free(&o->data);
    file_close_auto(&o->fd);
    storage_quota_give_back(o->quota, QUOTA_BLOBS, o->reserved);
    quota_job_give_back(o->budget, o->budget ? o->reserved : 0);
    *o = (struct remote_object){.fd = -1};
}

int
remote_scratch_open(const struct remote_place *place, char **path_out, int *fd_out)
{
    char name[37];
    struct uuid id = random_uuid();
    uuid_to_string(&id, name);
    *path_out = memory_printf("%s/manifest-%s.tmp", place->scratch, name);
    *fd_out = file_open(&file_ops_system, *path_out, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (*fd_out >= 0)
        return 0;
    // A missing directory must not look like a missing volume.
    int rc = *fd_out == -ENOENT ? -EIO : *fd_out;
    log_error("remote.scratch_failed", "cannot create %s: %s", *path_out, strerror(-*fd_out));
    free(*path_out);
    *path_out = NULL;
    *fd_out = -1;
    return rc;
}

// Gets [offset, offset + n) and nothing else.
static int
fetch_range(const struct remote_place *place, const char *key, uint64_t offset, uint64_t n,
    struct buffer *out)
{
    buffer_clear(out);
    struct remote_call call = remote_call_of(place, n);
    int rc = remote_store_get_blob(place->store, key, offset, n, out, &call);
    if (rc == -ENOENT)
        return remote_log_bad(key, "the object is gone though it was just there");
    if (rc < 0)
        return remote_log_failure("remote.get_failed", key, rc);
    return out->length == n ? 0
                            : remote_log_bad(key, "the object is shorter than it is said to be");
}

// A job takes no more than its budget, and nothing of what is kept for checkpoints.
static int
reserve(const struct remote_place *place, struct remote_object *o)
{
    uint64_t bytes = storage_quota_blocks_for(o->bytes);
    struct quota_job *budget = place->call.budget;
    int rc = quota_job_ask(budget, bytes);
    if (rc < 0)
        return rc;
    enum quota_need need = budget ? QUOTA_CACHE : QUOTA_LAST;
    rc = storage_quota_reserve(place->quota, QUOTA_BLOBS, need, bytes);
    if (rc < 0) {
        quota_job_give_back(budget, bytes);
        return rc;
    }
    o->quota = place->quota;
    o->budget = budget;
    o->reserved = bytes;
    return 0;
}

static int
fetch_to_file(const struct remote_place *place, const char *key, struct remote_object *o)
{
    CLEANUP(memory_free_auto) char *path = NULL;
    int rc = remote_scratch_open(place, &path, &o->fd);
    if (rc < 0)
        return rc;
    (void)file_ops_system.unlink(path);
    rc = reserve(place, o);
    if (rc < 0)
        return rc;
    BUFFER_AUTO part = {0};
    for (uint64_t done = 0; done < o->bytes; done += part.length) {
        uint64_t left = o->bytes - done;
        rc = fetch_range(
            place, key, done, left < REMOTE_FETCH_BYTES ? left : REMOTE_FETCH_BYTES, &part);
        if (rc < 0)
            return rc;
        rc = file_write_at(&file_ops_system, o->fd, part.data, part.length, done);
        if (rc < 0) {
            log_error("remote.scratch_failed", "cannot write %s: %s", path, strerror(-rc));
            return rc;
        }
    }
    return 0;
}

int
remote_object_fetch(const struct remote_place *place, const char *key, uint64_t bytes,
    struct remote_object *object_out)
{
    *object_out = (struct remote_object){.fd = -1, .bytes = bytes};
    int rc;
    if (bytes == 0)
        rc = remote_log_bad(key, "the object is empty");
    else if (bytes <= REMOTE_MEMORY_BYTES)
        rc = fetch_range(place, key, 0, bytes, &object_out->data);
    else
        rc = fetch_to_file(place, key, object_out);
    if (rc < 0)
        remote_object_free(object_out);
    return rc;
}

int
remote_object_source(void *object, uint64_t offset, void *p, size_t n)
{
    const struct remote_object *o = object;
    if (offset > o->bytes || n > o->bytes - offset)
        return -EBADMSG;
    if (o->fd >= 0)
        return file_read_exact_at(&file_ops_system, o->fd, p, n, offset);
    if (offset > o->data.length || n > o->data.length - offset)
        return -EBADMSG;
    if (n > 0)
        memcpy(p, o->data.data + offset, n);
    return 0;
}

int
remote_object_is(
    const struct remote_place *place, const char *key, uint64_t bytes, const struct sha256 *hash)
{
    struct remote_head head;
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_head_blob(place->store, key, &head, &call);
    if (rc < 0)
        return remote_log_failure("remote.head_failed", key, rc == -ENOENT ? -EAGAIN : rc);
    if (head.size != bytes)
        return 0;
    struct sha256_stream *stream = sha256_stream_new();
    BUFFER_AUTO part = {0};
    for (uint64_t done = 0; rc == 0 && done < bytes; done += part.length) {
        uint64_t left = bytes - done;
        rc = fetch_range(
            place, key, done, left < REMOTE_FETCH_BYTES ? left : REMOTE_FETCH_BYTES, &part);
        if (rc == 0)
            sha256_stream_update(stream, part.data, part.length);
    }
    struct sha256 found;
    sha256_stream_finish(stream, &found);
    sha256_stream_free(stream);
    return rc < 0 ? rc : sha256_equal(&found, hash);
}

int
remote_header_fetch(const struct remote_place *place, const char *key, uint64_t bytes,
    struct manifest_record_header *header_out)
{
    struct remote_object o = {.fd = -1, .bytes = bytes};
    uint64_t n = bytes < REMOTE_HEADER_BYTES ? bytes : REMOTE_HEADER_BYTES;
    int rc = n == 0 ? remote_log_bad(key, "the object is empty")
                    : fetch_range(place, key, 0, n, &o.data);
    if (rc == 0)
        rc = remote_object_header(&o, key, header_out);
    remote_object_free(&o);
    return rc;
}

// ---- walking ------------------------------------------------------------------------------------

void
remote_walk_begin(
    struct remote_walk *w, const struct remote_place *place, const char *kind, uint64_t after)
{
    *w = (struct remote_walk){.place = place};
    remote_key_prefix(place, kind, &w->prefix);
    remote_key(place, kind, after, &w->after);
}

void
remote_walk_begin_prefix(
    struct remote_walk *w, const struct remote_place *place, const char *prefix)
{
    *w = (struct remote_walk){.place = place};
    buffer_append_string(&w->prefix, prefix);
    // Nothing comes before it: keys are longer than their prefix.
    buffer_append_string(&w->after, prefix);
}

void
remote_walk_end(struct remote_walk *w)
{
    remote_listing_free(&w->page);
    buffer_free(&w->prefix);
    buffer_free(&w->after);
    *w = (struct remote_walk){0};
}

static int
next_page(struct remote_walk *w)
{
    const char *prefix = buffer_string(&w->prefix);
    remote_listing_free(&w->page);
    w->page = (struct remote_listing){0};
    w->next = 0;
    struct remote_call call = remote_call_of(w->place, 0);
    struct remote_store *store = w->place->store;
    int rc = remote_store_list_blobs(
        store, prefix, buffer_string(&w->after), remote_store_list_page(store), &w->page, &call);
    if (rc < 0)
        return remote_log_failure("remote.list_failed", prefix, rc);
    // A server that says "more" and gives nothing would keep us here for ever.
    if (w->page.more && w->page.count == 0)
        return remote_log_failure("remote.list_failed", prefix, -EIO);
    w->last_page = !w->page.more;
    if (w->page.count > 0) {
        buffer_clear(&w->after);
        buffer_append_string(&w->after, w->page.entries[w->page.count - 1].key);
    }
    return 0;
}

int
remote_walk_next_entry(
    struct remote_walk *w, const struct remote_listing_entry **entry_out, const char **name_out)
{
    while (w->next == w->page.count) {
        if (w->last_page)
            return 0;
        int rc = next_page(w);
        if (rc < 0)
            return rc;
    }
    *entry_out = &w->page.entries[w->next++];
    *name_out = (*entry_out)->key + w->prefix.length;
    return 1;
}

int
remote_walk_next(struct remote_walk *w, uint64_t *number_out, uint64_t *bytes_out)
{
    const struct remote_listing_entry *entry;
    const char *name;
    int rc;
    *number_out = *bytes_out = 0;
    while ((rc = remote_walk_next_entry(w, &entry, &name)) > 0) {
        *bytes_out = entry->size;
        if (remote_key_number(entry->key, buffer_string(&w->prefix), number_out))
            return 1;
        log_warning("remote.object_unknown", "%s is nothing of ours", entry->key);
    }
    return rc;
}

int
remote_list(const struct remote_place *place, const char *kind, struct remote_listed **listed_out,
    size_t *count_out)
{
    struct remote_walk walk;
    struct remote_listed listed;
    size_t capacity = 0;
    int rc;
    *listed_out = NULL;
    *count_out = 0;
    remote_walk_begin(&walk, place, kind, 0);
    while ((rc = remote_walk_next(&walk, &listed.number, &listed.bytes)) > 0) {
        if (*count_out == capacity) {
            capacity = capacity ? capacity * 2 : 256;
            *listed_out = memory_realloc(*listed_out, capacity * sizeof(listed));
        }
        (*listed_out)[(*count_out)++] = listed;
    }
    remote_walk_end(&walk);
    return rc;
}
