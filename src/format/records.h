// SPDX-License-Identifier: Apache-2.0
// The records of the namespace and the catalog, as structs in memory. format/change.h (WAL and
// bucket) and manifest/manifest_schema.h (LMDB) have their bytes.
#ifndef CKPTFS_FORMAT_RECORDS_H
#define CKPTFS_FORMAT_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/types.h"

#define NAME_BYTES_MAX        255u
#define LINK_TARGET_BYTES_MAX 4095u
#define XATTR_NAME_BYTES_MAX  255u
#define XATTR_VALUE_BYTES_MAX 65536u

struct timestamp {
    int64_t seconds;
    uint32_t nanoseconds; // below 1,000,000,000
};

// How an object's changes come: see the design, section 7.
enum source_variant {
    SOURCE_VARIANT_DETECT = 0, // the planner finds out
    SOURCE_VARIANT_APPEND_ONLY = 1,
    SOURCE_VARIANT_RANDOM = 2, // libsql-style
};

// Flags of an inode (chattr), with the values of FS_*_FL in <linux/fs.h>.
#define INODE_IMMUTABLE   0x10u
#define INODE_APPEND_ONLY 0x20u
#define INODE_NO_DUMP     0x40u
#define INODE_NO_ATIME    0x80u
#define INODE_FLAGS       (INODE_IMMUTABLE | INODE_APPEND_ONLY | INODE_NO_DUMP | INODE_NO_ATIME)

struct inode_record {
    uint32_t mode; // file type and permissions as in st_mode
    uint32_t uid;
    uint32_t gid;
    uint32_t nlink; // 0: an orphan, kept only while the kernel still refers to it
    uint32_t rdev;
    uint32_t flags; // INODE_*
    uint64_t size;  // bytes; of a directory: its number of entries
    struct timestamp atime;
    struct timestamp mtime;
    struct timestamp ctime;
    struct timestamp btime;
    uint8_t source_variant; // enum source_variant
    uint16_t link_target_length;
    const char
        *link_target; // symbolic links; not NUL-terminated; who owns it is told where it is had
    // An extension area (format/extension.h): items of later programs, which this one passes on
    // unchanged. Owned like link_target.
    uint16_t extension_length;
    const void *extension;
};

#define INODE_EXTENSION_BYTES_MAX 2048u

// A directory's entry. The cookie is the entry's place in the directory's order and its readdir
// offset: the upper 55 bits of a 63-bit value are a keyed hash of the name, the lower 8 tell names
// with equal hashes apart. It does not change while the entry exists.
struct dirent_record {
    struct object_id parent;
    uint64_t cookie;
    struct object_id object;
    uint8_t type; // DT_*
    uint8_t name_length;
    const char *name; // not NUL-terminated
};

#define DIRENT_SLOT_BITS 8u
#define DIRENT_SLOTS     (1u << DIRENT_SLOT_BITS)

struct xattr_record {
    struct object_id object;
    uint8_t name_length;
    const char *name; // not NUL-terminated
    uint32_t value_length;
    const void *value;
};

// The place of an image: `length` bytes of the blob at `offset`; index and footer are the image's
// bytes from `index_offset` (relative to the image) to its end.
struct blob_location {
    struct sha256 blob;
    uint64_t offset;
    uint64_t length;
    uint64_t index_offset;
};

// One chunk of an object (`ChunkEntryRecord`). Its content is the base overlaid by the deltas that
// `chunk_delta_index` has for it, in order of generation. Without a base (base.length 0, and all
// other fields of the base 0) it is zeros overlaid by deltas.
struct chunk_entry {
    struct chunk_id id;
    struct object_id object;
    struct chunk_index index;
    struct generation generation;      // of the newest image
    struct generation base_generation; // of the base
    struct blob_location base;
    uint32_t base_pages;    // data pages in the base
    uint32_t delta_count;   // deltas on top of it
    uint64_t delta_bytes;   // their images' bytes
    uint32_t present_pages; // pages that are not holes; an upper bound (st_blocks)
    uint8_t sealed;         // filled by appending, and without holes
    // Items of later programs about a chunk (format/extension.h). Like the texts of other records
    // it lies in the bytes that it was read from.
    uint16_t extension_length;
    const uint8_t *extension;
};

#define CHUNK_EXTENSION_BYTES_MAX 1024u

// One delta of a chunk (`ChunkDeltaRecord`).
struct chunk_delta {
    struct chunk_id chunk;
    struct generation generation;
    struct blob_location where;
    uint32_t data_pages; // whole pages and patches
    uint32_t zero_pages;
};

// Pages of an object whose bytes are lost (`chunk_damage`): `pages` of them from `page` on, all in
// one chunk. Reads of them fail, even if the chunk's images hold bytes there. They are whole again
// when they are written, become a hole or go with the chunk.
struct chunk_damage {
    struct object_id object;
    struct page_no page;
    uint32_t pages;
};

enum blob_object_kind { BLOB_OBJECT_CHUNK = 1, BLOB_OBJECT_DELTA = 2, BLOB_OBJECT_PACK = 3 };

// Places of a blob's copies.
#define RESIDENCY_LOCAL  1u // whole and durable in LocalStore; no eviction unless REMOTE too
#define RESIDENCY_REMOTE 2u // verified in the RemoteStore

// One blob: the parts of its key in the store, and the references to it.
struct blob_record {
    struct sha256 hash;
    uint64_t bytes;
    uint8_t kind;        // enum blob_object_kind
    uint8_t residency;   // RESIDENCY_*
    uint32_t references; // chunk entries and deltas that point into it
    uint64_t live_bytes; // sum of the lengths of those images
    struct uuid checkpoint_id;
    struct chunk_id chunk;        // CHUNK and DELTA
    struct generation generation; // its birth: the first one that referred to it
    // Its death: the first generation from which on nothing refers to it. {0}: it is alive. The
    // generations from birth to before death may need it.
    struct generation death;
    uint32_t where; // its owner, its place and the form of its key: BLOB_WHERE_*
};

// Values of blob_record.where. From BLOB_WHERE_NAMED on they name an entry of `remote_namespace`.
#define BLOB_WHERE_OWN_OLD 0u // the volume's own, under a key without the volume's number
#define BLOB_WHERE_OWN     1u // the volume's own, under a key with it
#define BLOB_WHERE_NAMED   2u

// The place of another volume's blobs (`remote_namespace`).
struct namespace_record {
    uint32_t id;            // blob_record.where; from BLOB_WHERE_NAMED on
    uint8_t form;           // of the keys: BLOB_WHERE_OWN_OLD or BLOB_WHERE_OWN
    uint32_t volume_number; // in them
    struct uuid volume;     // the owner of the blobs
    uint8_t tenant_length;
    const char *tenant; // not NUL-terminated
    uint16_t place_length;
    const char *place; // store_url_place(); empty: the store of the volume itself
};

#define TENANT_BYTES_MAX 64u
#define PLACE_BYTES_MAX  1023u

// Identifies one object among those with the same content.
struct blob_identity {
    struct sha256 hash;
    struct uuid checkpoint_id;
    struct generation generation;
};

// A published generation, and its state.
enum generation_state {
    GENERATION_RETAINED = 1, // hosts may use it
    GENERATION_EXPIRED = 2,  // no host may begin to use it; it goes after the grace period
};

struct generation_record {
    struct generation generation;
    uint64_t sequence;   // of the record that publishes it
    uint64_t created_ms; // wall clock of its cut
    uint8_t state;       // enum generation_state
    uint64_t expired_ms; // wall clock of the expiry; 0 when it is retained
};

static inline struct generation_record
generation_retained(struct generation generation, uint64_t sequence, uint64_t created_ms)
{
    return (struct generation_record){
        .generation = generation,
        .sequence = sequence,
        .created_ms = created_ms,
        .state = GENERATION_RETAINED,
    };
}

// The generations that a volume keeps besides the newest one and pinned ones. For each of hourly to
// monthly: the newest generation of each of that many periods. All zeros but the grace keeps
// nothing else; `keep_all` keeps everything.
struct retention_policy {
    uint8_t keep_all;
    uint32_t last;
    uint64_t within_ms;
    uint32_t hourly, daily, weekly, monthly;
    uint64_t grace_ms; // between the expiry of a generation and the deletion of its blobs
};

#define RETENTION_COUNT_MAX 100000u
#define RETENTION_MS_MAX    ((uint64_t)100 * 366 * 24 * 3600 * 1000)

static inline struct blob_identity
blob_identity_of(const struct blob_record *blob)
{
    return (struct blob_identity){blob->hash, blob->checkpoint_id, blob->generation};
}

static inline bool
blob_has_identity(const struct blob_record *blob, const struct blob_identity *identity)
{
    return sha256_equal(&blob->hash, &identity->hash) &&
           uuid_equal(&blob->checkpoint_id, &identity->checkpoint_id) &&
           blob->generation.v == identity->generation.v;
}

static inline bool
blob_is_same_object(const struct blob_record *a, const struct blob_record *b)
{
    const struct blob_identity identity = blob_identity_of(b);
    return blob_has_identity(a, &identity);
}

// Counters of a db that only grow.
struct db_counters {
    uint64_t next_object;
    uint64_t next_chunk;
};

#endif
