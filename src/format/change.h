// SPDX-License-Identifier: Apache-2.0
// Changes as bytes: the WAL and the manifest records in the bucket describe all changes in this one
// form. Each change puts or deletes a whole state, so applying one twice is applying it once. Pure.
// Little-endian; doc/format.md has the layout.
#ifndef CKPTFS_FORMAT_CHANGE_H
#define CKPTFS_FORMAT_CHANGE_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/compiler.h"
#include "format/records.h"

enum change_kind {
    CHANGE_PUT_INODE = 1,     // object, inode
    CHANGE_DELETE_INODE = 2,  // object: the inode, its xattrs, its chunks
    CHANGE_PUT_DIRENT = 3,    // dirent
    CHANGE_DELETE_DIRENT = 4, // dirent: parent, cookie (and name or "", for readers of the log)
    CHANGE_PUT_XATTR = 5,     // xattr
    CHANGE_DELETE_XATTR = 6,  // xattr: object, name
    CHANGE_WRITE = 7, // WAL only: object, offset, length; the bytes are the record's payload
    CHANGE_DISCARD =
        8, // WAL only: object, offset, length: becomes a hole (length UINT64_MAX: to the end)
    CHANGE_PUT_CHUNK = 9,          // bucket only from here on: chunk
    CHANGE_DELETE_CHUNK = 10,      // chunk: object, index
    CHANGE_PUT_DELTA = 11,         // delta (its chunk is put in the same record or exists)
    CHANGE_DELETE_DELTA = 12,      // delta: chunk, generation
    CHANGE_PUT_BLOB = 13,          // blob (residency and references are not encoded)
    CHANGE_PUT_COUNTERS = 14,      // counters
    CHANGE_FORGET_BLOB = 15,       // forgotten: the object is no longer kept
    CHANGE_PUT_NAMESPACE = 16,     // space
    CHANGE_PUT_GENERATION = 17,    // published: a generation is retained, or expired
    CHANGE_DELETE_GENERATION = 18, // published (generation): its own blobs are deleted
    CHANGE_PUT_RETENTION = 19,     // retention: the volume's policy
    CHANGE_PUT_DAMAGE = 20,        // damage (its chunk is put in the same record or exists)
    CHANGE_DELETE_DAMAGE = 21,     // damage: object, page
};

struct change {
    enum change_kind kind;
    struct object_id object; // PUT_INODE, DELETE_INODE, WRITE, DISCARD
    uint64_t offset;         // WRITE, DISCARD
    uint64_t length;         // WRITE, DISCARD
    union {
        struct inode_record inode;
        struct dirent_record dirent;
        struct xattr_record xattr;
        struct chunk_entry chunk;
        struct chunk_delta delta;
        struct blob_record blob;
        struct db_counters counters;
        struct blob_identity forgotten;
        struct namespace_record space;
        struct generation_record published;
        struct retention_policy retention;
        struct chunk_damage damage;
    };
};

// Whether a change is valid. Not valid: unknown kinds, lengths beyond the limits of records.h,
// names that are empty, "." or "..", or contain '/' or NUL, nanoseconds out of range, sizes above
// OBJECT_MAX_BYTES, offsets + lengths that overflow, chunk and blob geometry that is impossible.
// change_decode uses the same rules, so callers must not encode an invalid change.
bool change_is_valid(const struct change *c);

void change_encode(const struct change *c, struct buffer *out);

// Decodes the next change; names, link targets and values point into the reader's bytes. 0;
// -ENOTSUP for a kind or a version of a kind that is newer than this program; or -EBADMSG when
// bytes are missing or left over, or the change is not valid. After an error `change_out` has the
// readable parts, and the reader stands behind the change, unless r->bad: then its end is unknown.
MUST_CHECK int change_decode(struct byte_reader *r, struct change *change_out);

// Appends the key in whose order the changes of this kind stand in a catalog; keys compare as
// bytes, a shorter one before those that it begins. Kinds of which a catalog has no row have the
// empty key.
void change_key(const struct change *c, struct buffer *key_out);

#endif
