// SPDX-License-Identifier: Apache-2.0
// Shared by the stores.
#ifndef CKPTFS_STORE_STORE_INTERNAL_H
#define CKPTFS_STORE_STORE_INTERNAL_H

#include <stddef.h>

#include "store/remote_store.h"

// Adds to a counter of `s` and of every store that wraps it:
//     STORE_COUNT(s, put_requests, 1);
void store_count(struct remote_store *s, size_t field_offset, uint64_t by);
#define STORE_COUNT(s, field, by) store_count(s, offsetof(struct remote_store_counters, field), by)

// Sets the error text and returns `code`; a call begins with no text.
void store_clear_error(void);
MUST_CHECK int store_fail(int code, const char *format, ...) PRINTF_LIKE(2, 3);

// Counts a failure of a backend's call by its class; answers and cancellations are no failures.
// Returns `rc`.
int store_count_result(struct remote_store *s, int rc);

// -ECANCELED or -ETIMEDOUT with a text when the call must stop now, else 0. `what` names the
// operation and `key` its object.
MUST_CHECK int store_check_call(const struct remote_call *call, const char *what, const char *key);

// The probe for any backend whose put_blob obeys the contract: a random key below probe/ is created
// twice, with different bytes, and deleted.
MUST_CHECK int store_probe_by_create(struct remote_store *s, const struct remote_call *call);

// Reads up to `n` bytes of the source from `at`, counted from the source's beginning; 0 or
// negative. A file that ends early is -EBADMSG.
MUST_CHECK int store_source_read(
    const struct remote_source *source, uint64_t at, void *p, size_t n);
// The SHA-256 of `length` bytes of the source from `at`.
MUST_CHECK int store_source_hash(
    const struct remote_source *source, uint64_t at, uint64_t length, struct sha256 *hash_out);

// Compares bytes with the source: by their CRC-32C if the source has one, else by their SHA-256.
// Pass all pieces in order; finish gives 0 or -EBADMSG.
struct store_check {
    const struct remote_source *source;
    struct sha256_stream *hash; // NULL: the CRC
    uint32_t crc;
};
void store_check_begin(struct store_check *k, const struct remote_source *source);
void store_check_update(struct store_check *k, const void *p, size_t n);
MUST_CHECK int store_check_finish(struct store_check *k, const char *key);
void store_check_free(struct store_check *k);

// Appends one entry; `key` is copied.
void store_listing_append(
    struct remote_listing *listing, const char *key, size_t key_length, uint64_t size);

// Appends `text` with everything but printable ASCII replaced by '?', at most `limit` bytes of it
// and then "...".
void store_append_printable(struct buffer *out, const char *text, size_t length, size_t limit);

#endif
