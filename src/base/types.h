// SPDX-License-Identifier: Apache-2.0
// The vocabulary: page numbers, log positions and ids as types of their own, so that the compiler
// refuses a mix-up. See doc/checkpointing_design.md, section 2.
#ifndef CKPTFS_BASE_TYPES_H
#define CKPTFS_BASE_TYPES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define PAGE_BYTES  4096u
#define CHUNK_PAGES 16384u
#define CHUNK_BYTES ((uint64_t)PAGE_BYTES * CHUNK_PAGES)

// The largest file: sizes are off_t.
#define OBJECT_MAX_BYTES ((uint64_t)INT64_MAX)

// A volume inside one storage root; 0 is no db.
struct db_id {
    uint32_t v;
};

// One inode; equals st_ino; 1 is the root directory; 0 is no object.
struct object_id {
    uint64_t v;
};
#define OBJECT_ROOT_DIRECTORY ((struct object_id){1})

// A page of an object, counted from its beginning.
struct page_no {
    uint64_t v;
};

// A chunk of an object: page_no / CHUNK_PAGES.
struct chunk_index {
    uint64_t v;
};

// Stable for the life of (object, chunk index); 0 is no chunk.
struct chunk_id {
    uint64_t v;
};

// One per checkpoint of a db, never reused; 0 is the empty volume before its first checkpoint.
struct generation {
    uint64_t v;
};

// Byte position in a db's WAL.
struct lsn {
    uint64_t v;
};

struct sha256 {
    uint8_t b[32];
};

struct uuid {
    uint8_t b[16];
};

static inline struct page_no
page_of_offset(uint64_t offset)
{
    return (struct page_no){offset / PAGE_BYTES};
}

static inline struct chunk_index
chunk_of_page(struct page_no page)
{
    return (struct chunk_index){page.v / CHUNK_PAGES};
}

static inline uint32_t
page_in_chunk(struct page_no page)
{
    return (uint32_t)(page.v % CHUNK_PAGES);
}

static inline uint64_t
pages_of_bytes(uint64_t bytes)
{
    return bytes / PAGE_BYTES + (bytes % PAGE_BYTES != 0);
}

static inline bool
sha256_equal(const struct sha256 *a, const struct sha256 *b)
{
    return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}

// A key for hash tables: the hash is random enough to be cut.
static inline uint64_t
sha256_key(const struct sha256 *hash)
{
    uint64_t key;
    memcpy(&key, hash->b, sizeof(key));
    return key;
}

static inline bool
uuid_equal(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}

static inline bool
uuid_is_zero(const struct uuid *a)
{
    static const struct uuid zero;
    return uuid_equal(a, &zero);
}

#endif
