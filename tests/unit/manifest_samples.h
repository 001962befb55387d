// SPDX-License-Identifier: Apache-2.0
// Changes to test with.
#ifndef CKPTFS_TESTS_MANIFEST_SAMPLES_H
#define CKPTFS_TESTS_MANIFEST_SAMPLES_H

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buffer.h"
#include "base/checksum.h"
#include "format/change.h"

static inline struct sha256
sample_hash(uint64_t n)
{
    struct sha256 hash;
    sha256_of(&n, sizeof(n), &hash);
    return hash;
}

static inline struct uuid
sample_uuid(uint8_t n)
{
    struct uuid id;
    memset(id.b, n, sizeof(id.b));
    return id;
}

static inline struct change
sample_inode(uint64_t object, uint32_t mode, uint32_t nlink, uint64_t size)
{
    return (struct change){
        .kind = CHANGE_PUT_INODE,
        .object = {object},
        .inode = {.mode = mode,
            .uid = 1000,
            .gid = 100,
            .nlink = nlink,
            .size = size,
            .atime = {-5, 0},
            .mtime = {1700000000, 999999999},
            .ctime = {1700000001, 1},
            .btime = {1700000002, 2}},
    };
}

// Types 3 and 0x1234, which nobody knows.
static const uint8_t sample_extension[] = {
    3, 0, 0, 0, 2, 0, 0, 0, 'a', 'b', 0x34, 0x12, 0, 0, 0, 0, 0, 0};

static inline struct change
sample_symlink(uint64_t object, const char *target)
{
    struct change c = sample_inode(object, S_IFLNK | 0777, 1, strlen(target));
    c.inode.link_target = target;
    c.inode.link_target_length = (uint16_t)strlen(target);
    return c;
}

static inline struct change
sample_delete_inode(uint64_t object)
{
    return (struct change){.kind = CHANGE_DELETE_INODE, .object = {object}};
}

static inline struct change
sample_dirent(uint64_t parent, uint64_t cookie, uint64_t object, uint8_t type, const char *name)
{
    return (struct change){
        .kind = CHANGE_PUT_DIRENT,
        .dirent = {.parent = {parent},
            .cookie = cookie,
            .object = {object},
            .type = type,
            .name = name,
            .name_length = (uint8_t)strlen(name)},
    };
}

static inline struct change
sample_delete_dirent(uint64_t parent, uint64_t cookie, const char *name)
{
    struct change c = sample_dirent(parent, cookie, 0, 0, name);
    c.kind = CHANGE_DELETE_DIRENT;
    return c;
}

static inline struct change
sample_xattr(uint64_t object, const char *name, const void *value, uint32_t length)
{
    return (struct change){
        .kind = CHANGE_PUT_XATTR,
        .xattr = {.object = {object},
            .name = name,
            .name_length = (uint8_t)strlen(name),
            .value = value,
            .value_length = length},
    };
}

static inline struct change
sample_delete_xattr(uint64_t object, const char *name)
{
    struct change c = sample_xattr(object, name, NULL, 0);
    c.kind = CHANGE_DELETE_XATTR;
    return c;
}

static inline struct blob_location
sample_location(uint64_t blob, uint64_t offset, uint64_t length)
{
    return (struct blob_location){sample_hash(blob), offset, length, length / 2};
}

// A chunk whose base is `length` bytes at the beginning of blob `blob`; 0: no base.
static inline struct change
sample_chunk(uint64_t id, uint64_t object, uint64_t index, uint64_t generation, uint64_t blob,
    uint64_t length)
{
    struct change c = {
        .kind = CHANGE_PUT_CHUNK,
        .chunk = {.id = {id},
            .object = {object},
            .index = {index},
            .generation = {generation},
            .present_pages = 9},
    };
    if (blob > 0) {
        c.chunk.base_generation.v = generation;
        c.chunk.base = sample_location(blob, 0, length);
        c.chunk.base_pages = 7;
    }
    return c;
}

static inline struct change
sample_delete_chunk(uint64_t object, uint64_t index)
{
    return (struct change){
        .kind = CHANGE_DELETE_CHUNK, .chunk = {.object = {object}, .index = {index}}};
}

static inline struct change
sample_delta(uint64_t chunk, uint64_t generation, uint64_t blob, uint64_t offset, uint64_t length)
{
    return (struct change){
        .kind = CHANGE_PUT_DELTA,
        .delta = {.chunk = {chunk},
            .generation = {generation},
            .where = sample_location(blob, offset, length),
            .data_pages = 3,
            .zero_pages = 1},
    };
}

static inline struct change
sample_delete_delta(uint64_t chunk, uint64_t generation)
{
    return (struct change){
        .kind = CHANGE_DELETE_DELTA, .delta = {.chunk = {chunk}, .generation = {generation}}};
}

static inline struct change
sample_damage(uint64_t object, uint64_t page, uint32_t pages)
{
    return (struct change){.kind = CHANGE_PUT_DAMAGE, .damage = {{object}, {page}, pages}};
}

static inline struct change
sample_delete_damage(uint64_t object, uint64_t page)
{
    return (struct change){.kind = CHANGE_DELETE_DAMAGE, .damage = {{object}, {page}, 0}};
}

static inline struct change
sample_blob(uint64_t blob, uint64_t bytes)
{
    return (struct change){
        .kind = CHANGE_PUT_BLOB,
        .blob = {.hash = sample_hash(blob),
            .bytes = bytes,
            .kind = BLOB_OBJECT_PACK,
            .checkpoint_id = sample_uuid(7),
            .generation = {3}},
    };
}

static inline struct change
sample_forget(uint64_t blob)
{
    return (struct change){
        .kind = CHANGE_FORGET_BLOB,
        .forgotten = {.hash = sample_hash(blob),
            .checkpoint_id = sample_uuid(7),
            .generation = {3}},
    };
}

static inline struct change
sample_namespace(uint32_t id, const char *place)
{
    return (struct change){
        .kind = CHANGE_PUT_NAMESPACE,
        .space = {.id = id,
            .form = BLOB_WHERE_OWN,
            .volume_number = 7,
            .volume = sample_uuid(8),
            .tenant = "parent",
            .tenant_length = 6,
            .place = place,
            .place_length = (uint16_t)strlen(place)},
    };
}

static inline struct change
sample_generation(uint64_t generation, uint64_t sequence, enum generation_state state)
{
    return (struct change){
        .kind = CHANGE_PUT_GENERATION,
        .published = {.generation = {generation},
            .sequence = sequence,
            .created_ms = 1700000000000,
            .state = (uint8_t)state,
            .expired_ms = state == GENERATION_EXPIRED ? 1700000060000 : 0},
    };
}

// One of each kind, and some at the limits. Returns how many; `room` is enough for them. The first
// ones are of version 1.
#define SAMPLE_CHANGES   38
#define SAMPLE_CHANGES_1 24
#define SAMPLE_CHANGES_2 30 // with those of version 2
#define SAMPLE_CHANGES_3 34 // with those of retention
#define SAMPLE_CHANGES_4 37 // with those of lost pages

static inline size_t
sample_changes(struct change *out)
{
    static char name[NAME_BYTES_MAX + 1];
    static char target[LINK_TARGET_BYTES_MAX + 1];
    static uint8_t value[XATTR_VALUE_BYTES_MAX];
    size_t n = 0;
    memset(name, 'n', sizeof(name) - 1);
    memset(target, 't', sizeof(target) - 1);
    memset(value, 'v', sizeof(value));
    out[n++] = sample_inode(1, S_IFDIR | 01777, 2, 0);
    out[n++] = sample_inode(UINT64_MAX, S_IFREG | 0644, 0, OBJECT_MAX_BYTES);
    out[n++] = sample_inode(5, S_IFCHR | 0600, 1, 0);
    out[n - 1].inode.rdev = 0x103;
    out[n - 1].inode.flags = 0x10;
    out[n - 1].inode.source_variant = SOURCE_VARIANT_RANDOM;
    out[n++] = sample_symlink(6, "../elsewhere");
    out[n++] = sample_symlink(7, target);
    out[n++] = sample_delete_inode(8);
    out[n++] = sample_dirent(1, 0, 2, DT_REG, "a");
    out[n++] = sample_dirent(1, INT64_MAX, 3, DT_DIR, name);
    out[n++] = sample_delete_dirent(1, 77, "gone");
    out[n++] = sample_delete_dirent(1, 78, "");
    out[n++] = sample_xattr(2, "user.color", "red", 3);
    out[n++] = sample_xattr(2, "user.a/b", "", 0);
    out[n++] = sample_xattr(2, name, value, sizeof(value));
    out[n++] = sample_delete_xattr(2, "user.color");
    out[n++] = (struct change){CHANGE_WRITE, .object = {2}, .offset = 4096, .length = 8192};
    out[n++] = (struct change){CHANGE_DISCARD, .object = {2}, .offset = 1, .length = UINT64_MAX};
    out[n++] = sample_chunk(11, 2, 3, 5, 100, 5000);
    out[n++] = sample_chunk(12, 2, 4, 5, 0, 0);
    out[n - 1].chunk.sealed = 1;
    out[n++] = sample_delete_chunk(2, 3);
    out[n++] = sample_delta(11, 6, 101, 64, 640);
    out[n++] = sample_delete_delta(11, 6);
    out[n++] = sample_blob(100, 64u << 20);
    out[n++] = sample_blob(101, 1);
    out[n - 1].blob.kind = BLOB_OBJECT_DELTA;
    out[n - 1].blob.chunk.v = 11;
    out[n++] = (struct change){CHANGE_PUT_COUNTERS, .counters = {100, 200}};
    out[n++] = sample_blob(102, 4096);
    out[n - 1].blob.where = BLOB_WHERE_OWN;
    out[n++] = sample_blob(103, 4096);
    out[n - 1].blob.death.v = 9;
    out[n++] = sample_forget(103);
    out[n++] = sample_namespace(2, "");
    out[n++] = sample_namespace(UINT32_MAX, "s3://other/prefix");
    out[n++] = sample_symlink(9, "with more");
    out[n - 1].inode.extension = sample_extension;
    out[n - 1].inode.extension_length = sizeof(sample_extension);
    out[n++] = sample_generation(7, 21, GENERATION_RETAINED);
    out[n++] = sample_generation(UINT64_MAX, UINT64_MAX, GENERATION_EXPIRED);
    out[n++] = (struct change){CHANGE_DELETE_GENERATION, .published = {.generation = {6}}};
    out[n++] = (struct change){CHANGE_PUT_RETENTION, .retention = {.last = 3,
                                                         .within_ms = 3600000,
                                                         .hourly = 24,
                                                         .daily = 7,
                                                         .weekly = 4,
                                                         .monthly = 12,
                                                         .grace_ms = 86400000}};
    out[n++] = sample_damage(2, 3 * (uint64_t)CHUNK_PAGES + 7, 5);
    out[n++] = sample_damage(2, OBJECT_MAX_BYTES / PAGE_BYTES, 1);
    out[n++] = sample_delete_damage(2, 9);
    out[n++] = sample_chunk(13, 2, 5, 5, 100, 5000);
    out[n - 1].chunk.extension = sample_extension;
    out[n - 1].chunk.extension_length = sizeof(sample_extension);
    return n;
}

#endif
