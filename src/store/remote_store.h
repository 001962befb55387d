// SPDX-License-Identifier: Apache-2.0
// The contract of every RemoteStore: immutable objects under keys, as S3 has them. A store is a
// table of functions; retrying, limiting, counting and fault injection are stores that wrap stores.
//
// Keys are relative to the store's root (the PREFIX of the design), made of [A-Za-z0-9._/-] and
// other bytes that the backend percent-encodes; no empty component, no "." or "..".
//
// All functions return 0 or a negative errno of this classed set:
//     -ENOENT        there is no such object (an answer, not a failure)
//     -EEXIST        conditional create: the object exists (an answer)
//     -EAGAIN        worth retrying: connection refused or reset, timeout, 5xx, RequestTimeout
//     -EBUSY         throttled: 429, 503 SlowDown; worth retrying, more slowly
//     -EACCES        credentials missing, refused or expired
//     -ENXIO         the bucket or the directory itself does not exist
//     -EBADMSG       a transfer did not match its length or checksum
//     -ECANCELED     the caller's cancel function returned true
//     -ETIMEDOUT     the deadline passed (set by the retrying wrapper)
//     -ENOSPC        the store is full (file store)
//     -EOPNOTSUPP    the store cannot do a conditional create (put with REMOTE_PUT_CREATE, probe)
//     -EPROTO        the configured server cannot work: no host of that name, a certificate that
//                    the client does not accept, another protocol. It stays so until a user
//                    changes something; retried, because that may happen, unless the call is
//                    fail_fast
//     -EIO           anything else; not worth retrying
// remote_store_error() gives the text of the calling thread's last failure; it names the operation,
// the key and the server's own words, and never holds a secret.
//
// All functions may be called from any thread at the same time.
#ifndef CKPTFS_STORE_REMOTE_STORE_H
#define CKPTFS_STORE_REMOTE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"
#include "store/remote_call.h"

struct remote_store;

// The bytes of a put: in memory, or `length` bytes of the file `fd` from `offset` (pread, so that a
// retry can read again). `hash` is the SHA-256 of those bytes, against which the store verifies the
// transfer. `crc`, if known, is their CRC-32C, computed together with the hash: a store that reads
// the bytes itself may compare that one instead.
struct remote_source {
    const void *data; // NULL: the file
    int fd;
    uint64_t offset;
    uint64_t length;
    struct sha256 hash;
    uint32_t crc;
    bool crc_known;
};

enum remote_put_mode {
    REMOTE_PUT_OVERWRITE,
    REMOTE_PUT_CREATE, // fails with -EEXIST when the object exists; atomic among all hosts
};

// One object of a listing, which has ascending byte order of keys.
struct remote_listing_entry {
    char *key;
    uint64_t size;
};

struct remote_listing {
    struct remote_listing_entry *entries;
    size_t count;
    size_t capacity;
    bool more; // the listing ended at `limit`; go on with after = last key
};

struct remote_head {
    uint64_t size;
    // Wall clock of the server minus the local one, from its answer; 0 for file stores.
    int64_t clock_skew_ms;
    // Milliseconds since 1970 on the server's clock.
    uint64_t modified_ms;
};

#define REMOTE_GET_MAX_BYTES ((uint64_t)1 << 30)

// What a retrying store has met.
struct remote_trouble {
    uint64_t tries;  // failed in a row since its last answer; 0: the last one succeeded
    uint64_t age_ms; // of the last failure, also when an answer has come since
    char text[256];  // of that one, its cause first: "connection refused (put KEY)"; empty: none
};

struct remote_store_ops {
    int (*put_blob)(struct remote_store *s, const char *key, const struct remote_source *source,
        enum remote_put_mode mode, const struct remote_call *call);
    // Appends bytes [offset, offset + length) to `out`; length UINT64_MAX reads to the end. A range
    // that begins past the end is -EIO; one that ends past it is cut. (The end itself counts as
    // past it, except that offset 0 of an empty object yields nothing.) The result is in memory, at
    // most REMOTE_GET_MAX_BYTES (-EIO above): callers ask for ranges. After a failure `out` is as
    // it was.
    int (*get_blob)(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
        struct buffer *out, const struct remote_call *call);
    int (*head_blob)(struct remote_store *s, const char *key, struct remote_head *head_out,
        const struct remote_call *call);
    // Up to `limit` keys that begin with `prefix` and are greater than `after` (NULL: all).
    int (*list_blobs)(struct remote_store *s, const char *prefix, const char *after, size_t limit,
        struct remote_listing *listing_out, const struct remote_call *call);
    // Deletes; keys that do not exist are fine.
    int (*delete_blobs)(struct remote_store *s, const char *const *keys, size_t count,
        const struct remote_call *call);
    // Gives up what processes that died left of puts to keys below `prefix`, if it is older than
    // `age_ms` by the server's clock: uploads in parts that were begun and not completed; in a file
    // store, temporary files, which know no prefix. Counts them; `dry_run`: does nothing else.
    // NULL: there is nothing of the kind.
    int (*sweep_uploads)(struct remote_store *s, const char *prefix, uint64_t age_ms, bool dry_run,
        uint64_t *count_out, const struct remote_call *call);
    // Proves that conditional create works by racing against itself on a probe key, and that the
    // place exists and the credentials are good for writing. -EOPNOTSUPP when it ignores the
    // condition or does not know it.
    int (*probe)(struct remote_store *s, const struct remote_call *call);
    void (*trouble)(struct remote_store *s, struct remote_trouble *trouble_out); // or NULL: none
    void (*close)(struct remote_store *s);
};

// Counters that every backend keeps, by verb. Read with relaxed atomics.
struct remote_store_counters {
    uint64_t put_requests, get_requests, head_requests, list_requests, delete_requests;
    uint64_t bytes_written, bytes_read;
    uint64_t retries, throttled, errors;
};

// The counters of a store that wraps another one include those of the inner one.
struct remote_store {
    const struct remote_store_ops *ops;
    size_t list_page; // remote_store_list_page
    struct remote_store_counters counters;
    struct remote_store *outer; // the store that wraps this one, or NULL
};

static inline void
remote_store_count(uint64_t *counter, uint64_t by)
{
    __atomic_fetch_add(counter, by, __ATOMIC_RELAXED);
}

// The calls. `call` may be NULL.
MUST_CHECK int remote_store_put_blob(struct remote_store *s, const char *key,
    const struct remote_source *source, enum remote_put_mode mode, const struct remote_call *call);
MUST_CHECK int remote_store_get_blob(struct remote_store *s, const char *key, uint64_t offset,
    uint64_t length, struct buffer *out, const struct remote_call *call);
MUST_CHECK int remote_store_head_blob(struct remote_store *s, const char *key,
    struct remote_head *head_out, const struct remote_call *call);
MUST_CHECK int remote_store_list_blobs(struct remote_store *s, const char *prefix,
    const char *after, size_t limit, struct remote_listing *listing_out,
    const struct remote_call *call);
MUST_CHECK int remote_store_delete_blobs(
    struct remote_store *s, const char *const *keys, size_t count, const struct remote_call *call);
MUST_CHECK int remote_store_sweep_uploads(struct remote_store *s, const char *prefix,
    uint64_t age_ms, bool dry_run, uint64_t *count_out, const struct remote_call *call);
MUST_CHECK int remote_store_probe(struct remote_store *s, const struct remote_call *call);
void remote_store_trouble(struct remote_store *s, struct remote_trouble *trouble_out);
void remote_store_close(struct remote_store *s); // NULL is fine
void remote_listing_free(struct remote_listing *listing);

// The number of keys for one listing, for callers that list much. A file store reads whole
// directories for each listing, so callers ask it for more at once.
size_t remote_store_list_page(const struct remote_store *s);

// The text of the calling thread's last failed call; "" when there is none.
const char *remote_store_error(void);
// For backends: sets that text.
void remote_store_set_error(const char *format, ...) PRINTF_LIKE(1, 2);

// ---- opening ------------------------------------------------------------------------------------

// A parsed SOURCE: file:///dir/TENANT or s3://bucket[/prefix]/TENANT.
struct store_url {
    bool is_s3;
    char *directory;        // file: absolute path of the store's root
    char *bucket;           // s3
    char *prefix;           // s3: without slashes at either end; "" when there is none
    char *tenant;           // [A-Za-z0-9._-]{1,64}, not "." or ".."
    uint32_t volume_number; // which of the tenant's volumes: from 1 on, 1 when it is not said
};

// 0, or -EINVAL with a text in remote_store_error() that names the fault and shows the two forms.
MUST_CHECK int store_url_parse(const char *source, struct store_url *url_out);
void store_url_free(struct store_url *url);
// The source without the tenant, canonical: equal for equal places. The caller frees it.
char *store_url_place(const struct store_url *url);

struct remote_store_options {
    const char
        *endpoint; // s3: NULL: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile's, AWS by region
    const char *region;       // NULL: AWS_REGION, the profile's, us-east-1
    const char *profile;      // NULL: AWS_PROFILE, "default"
    const char *ca_file;      // NULL: the system's
    bool virtual_host;        // bucket in the host name; default is path style when endpoint is set
    uint64_t multipart_bytes; // objects above this go in parts; 0: 72 MiB
    unsigned connections;     // at once; 0: 8
    uint64_t timeout_ms;      // no progress for this long fails the try; 0: 30 s
};

// Opens the backend that the URL names, wrapped in retries. It does not contact the store: faults
// of the store show at the first call. `create_directory` makes the file store's directory; a mount
// never does that.
MUST_CHECK int remote_store_open(const struct store_url *url,
    const struct remote_store_options *options, bool create_directory,
    struct remote_store **store_out);

#endif
