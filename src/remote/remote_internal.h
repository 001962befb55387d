// SPDX-License-Identifier: Apache-2.0
// Shared by the files of this folder: names of objects, fetching them, walking over them, and the
// checks that make a row of records a chain.
#ifndef CKPTFS_REMOTE_REMOTE_INTERNAL_H
#define CKPTFS_REMOTE_REMOTE_INTERNAL_H

#include "platform/clock.h"
#include "remote/remote_manifest.h"

// A transfer that is slower than this fails.
#define REMOTE_BYTES_PER_MS_MIN 64u

// A request of the place that moves about this many bytes.
static inline struct remote_call
remote_call_of(const struct remote_place *place, uint64_t bytes)
{
    uint64_t ms = place->call_ms + bytes / REMOTE_BYTES_PER_MS_MIN;
    struct remote_call call = place->call;
    call.deadline_ms = place->call_ms ? clock_monotonic_ms() + ms : 0;
    return call;
}

// For a lease that is unreadable or missing: others take its owner for alive for this long.
#define REMOTE_LEASE_DEFAULT_TTL_MS 60000u
// Readers take a lease with a longer ttl for unreadable.
#define REMOTE_LEASE_TTL_MAX_MS (7u * 24 * 3600 * 1000)
#define REMOTE_LEASE_BYTES_MAX  1024u

// Objects up to this size are fetched into memory, larger ones into a file.
#define REMOTE_MEMORY_BYTES (1u << 20)
#define REMOTE_FETCH_BYTES  (4u << 20)
// Enough of an object to hold a record's header.
#define REMOTE_HEADER_BYTES 4096u
// Changes and bytes that one batch of an import holds.
#define REMOTE_BATCH_CHANGES 10000u
#define REMOTE_BATCH_BYTES   (8u << 20)

// ---- remote_keys.c: names -----------------------------------------------------------------------

#define REMOTE_RECORD  "record-"
#define REMOTE_CATALOG "catalog-"
#define REMOTE_LEASE   "lease-"

// The key of object `kind`-`number`, or with remote_key_prefix the part before the number.
void remote_key(
    const struct remote_place *place, const char *kind, uint64_t number, struct buffer *key_out);
void remote_key_prefix(const struct remote_place *place, const char *kind, struct buffer *key_out);
// The number after `prefix`: exactly 16 lower-case hexadecimal digits. False when it is none.
bool remote_key_number(const char *key, const char *prefix, uint64_t *number_out);
// 36 characters as of uuid_to_string, exactly.
bool remote_uuid_parse(const char *text, size_t length, struct uuid *id_out);
// This host's name in printable ASCII without blanks; never empty.
void remote_host_name(char host_out[64]);
// The host name of a record's writer, in the same form, for messages.
void remote_copy_host(const char host[64], char host_out[64]);

// ---- remote_object.c: fetching and walking ------------------------------------------------------

// Logs that a call to the store failed; returns `rc`.
int remote_log_failure(const char *event, const char *key, int rc);
// Logs a bad object, and sets remote_store_error() to the reason; returns -EBADMSG.
int remote_log_bad(const char *key, const char *why);

// Puts a small object in the place of the one that is there, or deletes it. They log a failure.
MUST_CHECK int remote_small_put(
    const struct remote_place *place, const char *key, const void *p, size_t n);
MUST_CHECK int remote_small_delete(const struct remote_place *place, const char *key);

// A whole object, in memory or in an unlinked file of scratch. Zero-initialise with fd -1.
struct remote_object {
    struct buffer data;
    int fd;
    uint64_t bytes;
    struct storage_quota *quota;
    struct quota_job *budget; // of the job that fetched it, or NULL
    uint64_t reserved;        // of both, for the file
};
void remote_object_free(struct remote_object *o);
// Fetches an object of `bytes` bytes, according to a listing or head. An object that is gone or has
// another length is -EBADMSG: callers never take a listed object for absent.
MUST_CHECK int remote_object_fetch(const struct remote_place *place, const char *key,
    uint64_t bytes, struct remote_object *object_out);
// A manifest_record_source over a struct remote_object.
int remote_object_source(void *object, uint64_t offset, void *p, size_t n);

// Whether the object at `key` consists of exactly these bytes: 1, 0, or -errno (-EAGAIN when it is
// gone).
MUST_CHECK int remote_object_is(
    const struct remote_place *place, const char *key, uint64_t bytes, const struct sha256 *hash);

// Fetches the header alone and checks it; does not look at the bytes after it.
MUST_CHECK int remote_header_fetch(const struct remote_place *place, const char *key,
    uint64_t bytes, struct manifest_record_header *header_out);

// Makes a file in scratch, open for reading and writing. The caller unlinks it, closes it and frees
// the path.
MUST_CHECK int remote_scratch_open(const struct remote_place *place, char **path_out, int *fd_out);

// Objects below a prefix, in order, a page of the listing at a time.
struct remote_walk {
    const struct remote_place *place;
    struct buffer prefix;
    struct buffer after;
    struct remote_listing page;
    size_t next;
    bool last_page;
};
// Of one kind of the manifest, with a number above `after`; for remote_walk_next.
void remote_walk_begin(
    struct remote_walk *w, const struct remote_place *place, const char *kind, uint64_t after);
// Any other; for remote_walk_next_entry.
void remote_walk_begin_prefix(
    struct remote_walk *w, const struct remote_place *place, const char *prefix);
// 1 and the next object, 0 at the end, or -errno (logged). An entry is good until the next call;
// its name is the part of its key behind the prefix.
MUST_CHECK int remote_walk_next(struct remote_walk *w, uint64_t *number_out, uint64_t *bytes_out);
MUST_CHECK int remote_walk_next_entry(
    struct remote_walk *w, const struct remote_listing_entry **entry_out, const char **name_out);
void remote_walk_end(struct remote_walk *w);

// All objects of a kind, in order. The caller frees the array, also after an error.
struct remote_listed {
    uint64_t number;
    uint64_t bytes;
};
MUST_CHECK int remote_list(const struct remote_place *place, const char *kind,
    struct remote_listed **listed_out, size_t *count_out);

// ---- remote_delete.c: deleting in batches -------------------------------------------------------

#define REMOTE_KEYS_MAX 1000u
// So many the next request may delete: that, or less in tests (CKPTFS_DELETE_BATCH).
size_t remote_keys_limit(void);

// Zero-initialise.
struct remote_keys {
    char *names[REMOTE_KEYS_MAX];
    size_t count;
};
void remote_keys_clear(struct remote_keys *k);
// There is room.
void remote_keys_add(struct remote_keys *k, const struct buffer *key);
// Deletes the gathered keys, if there are any, and makes sure of the first one: a store may say yes
// and do nothing. The keys stay gathered.
MUST_CHECK int remote_keys_delete(const struct remote_place *place, const struct remote_keys *k);

// ---- remote_destroy.c ---------------------------------------------------------------------------

// Says that the record with header `h` is the mark of a volume that is being destroyed; returns
// -EIDRM.
int remote_log_destroyed(const char *key, const struct manifest_record_header *h);
// The result of a reader of the chain: -EIDRM in place of -EBADMSG when the volume is half
// destroyed, else `rc`.
int remote_judge_damage(const struct remote_place *place, int rc);

// ---- remote_manifest.c: the chain ---------------------------------------------------------------

// The end of a verified row of records, which the next record must fit.
struct remote_link {
    uint64_t sequence; // 0: before record 1
    struct sha256 hash;
    struct uuid volume;
    struct uuid name_key;
    struct generation generation; // the newest published by then
    bool has_epoch;               // whether the next two are known
    uint64_t epoch;
    struct uuid writer;
    uint64_t created_ms; // of the newest generation
    uint64_t lowest;     // records below it may be missing; 0: none may
};

// Whether a record with header `h` under `key` continues the chain after `link`; if not, says why
// in the log and returns -EBADMSG. The mark of a volume that is being destroyed is -EIDRM.
MUST_CHECK int remote_link_check(
    const struct remote_link *link, const char *key, const struct manifest_record_header *h);
void remote_link_advance(
    struct remote_link *link, const struct manifest_record_header *h, const struct sha256 *hash);

// Reads the whole object: -EBADMSG (logged) when it does not verify, else the visitor's result.
MUST_CHECK int remote_object_read(struct remote_object *o, const char *key,
    manifest_record_visitor *visitor, void *argument, struct sha256 *hash_out);
// Reads and checks the header of a fetched object.
MUST_CHECK int remote_object_header(
    struct remote_object *o, const char *key, struct manifest_record_header *header_out);

// Fetches a record and makes sure that it verifies and has this hash: 0 or -EBADMSG (logged).
MUST_CHECK int remote_record_fetch(const struct remote_place *place, const char *key,
    uint64_t bytes, const struct sha256 *hash, struct manifest_record_header *header_out);

// A header for db's position (a catalog's); a record after it has the next sequence. The caller
// fills in kind and times.
struct manifest_record_header remote_header_at(
    const struct remote_place *place, const struct db_record *db);

// A record in memory.
struct remote_small_record {
    struct buffer data;
    struct sha256 hash;
};
MUST_CHECK int remote_small_record_make(const struct manifest_record_header *header,
    const struct change *changes, size_t count, struct remote_small_record *record_out);

// Creates record `sequence`. 0: it is there with exactly these bytes. -EEXIST: another one is.
MUST_CHECK int remote_record_create(
    const struct remote_place *place, uint64_t sequence, const struct remote_source *source);

// Adds to `b` that record `h` with this hash is in the store, with all consequences. Both the
// publisher and a later catch-up record a publication with it. Before it, call remote_note_uploaded
// for each blob that the record names.
void remote_note_published(struct manifest_batch *b, const struct manifest_record_header *h,
    const struct sha256 *hash, uint64_t bytes);
// The blob is in the store under the key that follows from `blob`. The manifest may have another
// key for it, because content that went and came again got a new one. A blob that nothing refers to
// any more becomes known (again), so that GC and catalogs know of the object.
void remote_note_uploaded(
    struct manifest_batch *b, const struct blob_record *blob, struct generation generation);

// Reads the db's record anew.
MUST_CHECK int remote_refresh_db(struct manifest *m, struct db_id id, struct db_record *db_out);

#endif
