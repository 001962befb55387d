// SPDX-License-Identifier: Apache-2.0
#include "remote/remote_blob.h"

#include <errno.h>

#include "base/checksum.h"
#include "remote/remote_internal.h"

int
remote_blob_is_there(const struct remote_place *place, const char *key, uint64_t bytes)
{
    struct remote_head head;
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_head_blob(place->store, key, &head, &call);
    if (rc < 0 && rc != -ENOENT)
        return remote_log_failure("remote.head_failed", key, rc);
    return rc == 0 && (bytes == 0 || head.size == bytes);
}

static int
hash_object(struct remote_object *o, struct sha256 *hash_out)
{
    uint8_t part[65536];
    struct sha256_stream *stream = sha256_stream_new();
    int rc = 0;
    for (uint64_t done = 0; rc == 0 && done < o->bytes;) {
        size_t n = o->bytes - done < sizeof(part) ? (size_t)(o->bytes - done) : sizeof(part);
        rc = remote_object_source(o, done, part, n);
        if (rc == 0)
            sha256_stream_update(stream, part, n);
        done += n;
    }
    sha256_stream_finish(stream, hash_out);
    sha256_stream_free(stream);
    return rc;
}

// The object with these bytes, which is the caller's to free.
static int
fetch_verified(const struct remote_place *place, const char *key, uint64_t bytes,
    const struct sha256 *hash, struct remote_object *object_out)
{
    struct sha256 found;
    int rc = remote_object_fetch(place, key, bytes, object_out);
    if (rc < 0)
        return rc;
    rc = hash_object(object_out, &found);
    if (rc == 0 && !sha256_equal(&found, hash))
        rc = remote_log_bad(key, "its bytes are not what its name says");
    if (rc < 0)
        remote_object_free(object_out);
    return rc;
}

int
remote_blob_verify(
    const struct remote_place *place, const char *key, uint64_t bytes, const struct sha256 *hash)
{
    struct remote_object object;
    int rc = fetch_verified(place, key, bytes, hash, &object);
    if (rc == 0)
        remote_object_free(&object);
    return rc;
}

static int
put(const struct remote_place *place, const char *key, const struct remote_source *source)
{
    struct remote_call call = remote_call_of(place, source->length);
    int rc = remote_store_put_blob(place->store, key, source, REMOTE_PUT_OVERWRITE, &call);
    return rc < 0 ? remote_log_failure("remote.put_failed", key, rc) : 0;
}

int
remote_blob_copy(const struct remote_place *place, const char *from, const char *to, uint64_t bytes,
    const struct sha256 *hash)
{
    struct remote_object object;
    int rc = fetch_verified(place, from, bytes, hash, &object);
    if (rc < 0)
        return rc;
    struct remote_source source = {.fd = object.fd, .length = bytes, .hash = *hash};
    if (object.fd < 0)
        source.data = object.data.data;
    rc = put(place, to, &source);
    remote_object_free(&object);
    return rc;
}

int
remote_blob_put(const struct remote_place *place, const char *key, int fd, uint64_t bytes,
    const struct sha256 *hash)
{
    const struct remote_source source = {.fd = fd, .length = bytes, .hash = *hash};
    return put(place, key, &source);
}
