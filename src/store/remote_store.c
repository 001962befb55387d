// SPDX-License-Identifier: Apache-2.0
// Dispatch: rules of all stores are checked here, so that backends need not.
#include "store/remote_store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/printable.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "store/store_internal.h"

#define KEY_MAX_BYTES 1024

#define LIST_PAGE 1000 // as many as S3 gives in one answer

// ---- error text ---------------------------------------------------------------------------------

static __thread char error_text[2048];

void
store_clear_error(void)
{
    error_text[0] = 0;
}

const char *
remote_store_error(void)
{
    return error_text;
}

static void
set_error(const char *format, va_list args)
{
    // The arguments may hold the present text.
    char text[sizeof(error_text)];
    vsnprintf(text, sizeof(text), format, args);
    // Keys and words of the server are in it.
    BUFFER_AUTO shown = {0};
    buffer_append_printable(&shown, text);
    (void)snprintf(error_text, sizeof(error_text), "%s", buffer_string(&shown));
}

void
remote_store_set_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_error(format, args);
    va_end(args);
}

int
store_fail(int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_error(format, args);
    va_end(args);
    return code;
}

void
store_append_printable(struct buffer *out, const char *text, size_t length, size_t limit)
{
    for (size_t i = 0; i < length && i < limit; i++) {
        uint8_t c = (uint8_t)text[i];
        if (c == '\n' || c == '\r' || c == '\t')
            c = ' ';
        buffer_append_u8(out, c >= 0x20 && c < 0x7f ? c : '?');
    }
    if (length > limit)
        buffer_append_string(out, "...");
}

// ---- counting -----------------------------------------------------------------------------------

void
store_count(struct remote_store *s, size_t field_offset, uint64_t by)
{
    for (; s; s = s->outer)
        remote_store_count((uint64_t *)((char *)&s->counters + field_offset), by);
}

int
store_count_result(struct remote_store *s, int rc)
{
    if (rc == -EBUSY)
        STORE_COUNT(s, throttled, 1);
    if (rc < 0 && rc != -ENOENT && rc != -EEXIST && rc != -ECANCELED)
        STORE_COUNT(s, errors, 1);
    return rc;
}

// ---- the calls ----------------------------------------------------------------------------------

static const struct remote_call no_limits;

static bool
component_is_good(const char *p, size_t n)
{
    return n > 0 && !(n == 1 && p[0] == '.') && !(n == 2 && p[0] == '.' && p[1] == '.');
}

static int
check_key(const char *key, const char *what)
{
    size_t length = strlen(key);
    bool good = length > 0 && length <= KEY_MAX_BYTES;
    for (const char *p = key; good; p++) {
        size_t n = strcspn(p, "/");
        good = component_is_good(p, n);
        p += n;
        if (!*p)
            break;
    }
    if (good)
        return 0;
    BUFFER_AUTO shown = {0};
    store_append_printable(&shown, key, length, 200);
    return store_fail(-EIO,
        "%s: \"%s\" is no key: keys have 1 to %d bytes and no component that "
        "is empty, \".\" or \"..\"",
        what, buffer_string(&shown), KEY_MAX_BYTES);
}

int
remote_store_put_blob(struct remote_store *s, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    store_clear_error();
    int rc = check_key(key, "put");
    return rc < 0 ? rc : s->ops->put_blob(s, key, source, mode, call ? call : &no_limits);
}

int
remote_store_get_blob(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    store_clear_error();
    int rc = check_key(key, "get");
    if (rc < 0)
        return rc;
    if (length != UINT64_MAX && length > REMOTE_GET_MAX_BYTES)
        return store_fail(-EIO, "get %s: %llu bytes are more than one call may ask for", key,
            (unsigned long long)length);
    size_t before = out->length;
    rc = s->ops->get_blob(s, key, offset, length, out, call ? call : &no_limits);
    if (rc < 0)
        out->length = before;
    return rc;
}

int
remote_store_head_blob(struct remote_store *s, const char *key, struct remote_head *head_out,
    const struct remote_call *call)
{
    store_clear_error();
    *head_out = (struct remote_head){0};
    int rc = check_key(key, "head");
    return rc < 0 ? rc : s->ops->head_blob(s, key, head_out, call ? call : &no_limits);
}

size_t
remote_store_list_page(const struct remote_store *s)
{
    return s->list_page ? s->list_page : LIST_PAGE;
}

int
remote_store_list_blobs(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *listing_out, const struct remote_call *call)
{
    store_clear_error();
    *listing_out = (struct remote_listing){0};
    if (limit == 0)
        return 0;
    int rc = s->ops->list_blobs(
        s, prefix ? prefix : "", after, limit, listing_out, call ? call : &no_limits);
    if (rc < 0)
        remote_listing_free(listing_out);
    return rc;
}

int
remote_store_delete_blobs(
    struct remote_store *s, const char *const *keys, size_t count, const struct remote_call *call)
{
    store_clear_error();
    for (size_t i = 0; i < count; i++) {
        int rc = check_key(keys[i], "delete");
        if (rc < 0)
            return rc;
    }
    return count == 0 ? 0 : s->ops->delete_blobs(s, keys, count, call ? call : &no_limits);
}

int
remote_store_sweep_uploads(struct remote_store *s, const char *prefix, uint64_t age_ms,
    bool dry_run, uint64_t *count_out, const struct remote_call *call)
{
    store_clear_error();
    *count_out = 0;
    if (!s->ops->sweep_uploads)
        return 0;
    return s->ops->sweep_uploads(s, prefix, age_ms, dry_run, count_out, call ? call : &no_limits);
}

int
remote_store_probe(struct remote_store *s, const struct remote_call *call)
{
    store_clear_error();
    return s->ops->probe(s, call ? call : &no_limits);
}

void
remote_store_trouble(struct remote_store *s, struct remote_trouble *trouble_out)
{
    *trouble_out = (struct remote_trouble){0};
    if (s->ops->trouble)
        s->ops->trouble(s, trouble_out);
}

void
remote_store_close(struct remote_store *s)
{
    if (s)
        s->ops->close(s);
}

// ---- listings -----------------------------------------------------------------------------------

void
remote_listing_free(struct remote_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free(listing->entries[i].key);
    free(listing->entries);
    *listing = (struct remote_listing){0};
}

void
store_listing_append(
    struct remote_listing *listing, const char *key, size_t key_length, uint64_t size)
{
    if (listing->count == listing->capacity) {
        listing->capacity = listing->capacity ? listing->capacity * 2 : 64;
        listing->entries =
            memory_realloc(listing->entries, listing->capacity * sizeof(listing->entries[0]));
    }
    char *copy = memory_alloc(key_length + 1);
    memcpy(copy, key, key_length);
    copy[key_length] = 0;
    listing->entries[listing->count++] = (struct remote_listing_entry){copy, size};
}

// ---- shared by backends -------------------------------------------------------------------------

int
store_check_call(const struct remote_call *call, const char *what, const char *key)
{
    if (remote_call_is_canceled(call))
        return store_fail(-ECANCELED, "%s %s: canceled", what, key);
    if (call->deadline_ms && clock_monotonic_ms() >= call->deadline_ms)
        return store_fail(-ETIMEDOUT, "%s %s: the deadline passed", what, key);
    return 0;
}

int
store_source_read(const struct remote_source *source, uint64_t at, void *p, size_t n)
{
    assert(at <= source->length && n <= source->length - at);
    if (source->data) {
        memcpy(p, (const char *)source->data + at, n);
        return 0;
    }
    int rc = file_read_exact_at(&file_ops_system, source->fd, p, n, source->offset + at);
    if (rc == -ENODATA)
        return store_fail(-EBADMSG, "the local file ends before the bytes to be put");
    if (rc < 0)
        return store_fail(-EIO, "cannot read the local file: %s", strerror(-rc));
    return 0;
}

int
store_source_hash(
    const struct remote_source *source, uint64_t at, uint64_t length, struct sha256 *hash_out)
{
    enum { STEP = 256 * 1024 };
    if (source->data) {
        sha256_of((const char *)source->data + at, length, hash_out);
        return 0;
    }
    CLEANUP(memory_free_auto) uint8_t *block = memory_alloc(STEP);
    struct sha256_stream *stream = sha256_stream_new();
    int rc = 0;
    for (uint64_t done = 0; rc == 0 && done < length;) {
        size_t n = length - done < STEP ? (size_t)(length - done) : STEP;
        rc = store_source_read(source, at + done, block, n);
        if (rc == 0)
            sha256_stream_update(stream, block, n);
        done += n;
    }
    sha256_stream_finish(stream, hash_out);
    sha256_stream_free(stream);
    return rc;
}

void
store_check_begin(struct store_check *k, const struct remote_source *source)
{
    *k = (struct store_check){.source = source};
    if (!source->crc_known)
        k->hash = sha256_stream_new();
}

void
store_check_update(struct store_check *k, const void *p, size_t n)
{
    if (k->hash)
        sha256_stream_update(k->hash, p, n);
    else
        k->crc = crc32c(k->crc, p, n);
}

int
store_check_finish(struct store_check *k, const char *key)
{
    if (!k->hash)
        return k->crc == k->source->crc
                   ? 0
                   : store_fail(
                         -EBADMSG, "put %s: the bytes do not have the CRC-32C that was given", key);
    struct sha256 hash;
    sha256_stream_finish(k->hash, &hash);
    if (sha256_equal(&hash, &k->source->hash))
        return 0;
    return store_fail(-EBADMSG, "put %s: the bytes do not have the SHA-256 that was given", key);
}

void
store_check_free(struct store_check *k)
{
    sha256_stream_free(k->hash);
    k->hash = NULL;
}

static int
probe_put(struct remote_store *s, const char *key, const char *text, const struct remote_call *call)
{
    struct remote_source source = {.data = text, .fd = -1, .length = strlen(text)};
    sha256_of(text, strlen(text), &source.hash);
    return remote_store_put_blob(s, key, &source, REMOTE_PUT_CREATE, call);
}

int
store_probe_by_create(struct remote_store *s, const struct remote_call *call)
{
    char id[37];
    char key[64];
    struct uuid uuid = random_uuid();
    uuid_to_string(&uuid, id);
    snprintf(key, sizeof(key), "probe/%s", id);
    int rc = probe_put(s, key, "first", call);
    if (rc < 0)
        return rc == -EEXIST ? store_fail(-EAGAIN, "probe: put %s: a new name exists", key) : rc;
    int second = probe_put(s, key, "second", call);
    char text[sizeof(error_text)];
    snprintf(text, sizeof(text), "%s", error_text);
    const char *keys[] = {key};
    rc = remote_store_delete_blobs(s, keys, 1, call);
    if (second == 0)
        return store_fail(-EOPNOTSUPP,
            "probe: the store overwrites an object that it was asked to create only if absent "
            "(PUT with If-None-Match: *). Without conditional create two hosts could write one "
            "volume; use a store that has it, such as AWS S3, Ceph RGW or MinIO");
    if (second != -EEXIST)
        return store_fail(second, "%s", text);
    return rc;
}
