// SPDX-License-Identifier: Apache-2.0
// The bytes of records.h without their keys, which changes (format/change.h) and values of the
// manifest's tables (manifest/manifest_schema.h) share. Pure. Little-endian; fixed fields in the
// order of the structs, then fields of variable length.
//
// Decoders read from `r`, set r->bad when bytes are missing, and return false when bytes are
// missing or a value is impossible; names, targets and values point into the reader's bytes. A
// decoder is record_read_X, which takes any bytes, and record_X_is_valid, which judges the values
// (when no bytes were missing). Encoders' callers use the same judge.
#ifndef CKPTFS_FORMAT_RECORD_CODEC_H
#define CKPTFS_FORMAT_RECORD_CODEC_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/compiler.h"
#include "format/records.h"

// No image is longer: a chunk's pages, the byte ranges of as many patches, and room for both to be
// framed.
#define IMAGE_BYTES_MAX (4 * CHUNK_BYTES)

// The highest chunk index of an object of OBJECT_MAX_BYTES.
#define CHUNK_INDEX_MAX (OBJECT_MAX_BYTES / CHUNK_BYTES)

// Whether a name may stand in a directory: 1 .. NAME_BYTES_MAX bytes, not "." nor "..", without '/'
// and NUL.
bool name_is_valid(const char *name, size_t length);
bool xattr_name_is_valid(const char *name, size_t length);

// Version 1 has no extension area; an inode without one gets it.
unsigned record_inode_version(const struct inode_record *v);
void record_encode_inode(const struct inode_record *v, unsigned version, struct buffer *out);
void record_read_inode(struct byte_reader *r, unsigned version, struct inode_record *v);
bool record_inode_is_valid(const struct inode_record *v);
MUST_CHECK bool record_decode_inode(
    struct byte_reader *r, unsigned version, struct inode_record *v);

// Object, type and name; not parent and cookie.
void record_encode_dirent(const struct dirent_record *v, struct buffer *out);
void record_read_dirent(struct byte_reader *r, struct dirent_record *v);
bool record_dirent_is_valid(const struct dirent_record *v);
MUST_CHECK bool record_decode_dirent(struct byte_reader *r, struct dirent_record *v);

// Value; not object and name.
void record_encode_xattr(const struct xattr_record *v, struct buffer *out);
void record_read_xattr(struct byte_reader *r, struct xattr_record *v);
bool record_xattr_is_valid(const struct xattr_record *v);
MUST_CHECK bool record_decode_xattr(struct byte_reader *r, struct xattr_record *v);

// All but id.
// The version of its layout: 2 with an extension area.
unsigned record_chunk_version(const struct chunk_entry *v);
void record_encode_chunk(const struct chunk_entry *v, unsigned version, struct buffer *out);
void record_read_chunk(struct byte_reader *r, unsigned version, struct chunk_entry *v);
bool record_chunk_is_valid(const struct chunk_entry *v);
MUST_CHECK bool record_decode_chunk(struct byte_reader *r, unsigned version, struct chunk_entry *v);
// Whether the entry has a base at all; without one its content is zeros overlaid by deltas, and all
// fields about the base are zero.
bool chunk_entry_has_base(const struct chunk_entry *v);

// All but chunk and generation.
void record_encode_delta(const struct chunk_delta *v, struct buffer *out);
void record_read_delta(struct byte_reader *r, struct chunk_delta *v);
bool record_delta_is_valid(const struct chunk_delta *v);
MUST_CHECK bool record_decode_delta(struct byte_reader *r, struct chunk_delta *v);

// Object and page are the key's.
void record_encode_damage(const struct chunk_damage *v, struct buffer *out);
void record_read_damage(struct byte_reader *r, struct chunk_damage *v);
bool record_damage_is_valid(const struct chunk_damage *v);
MUST_CHECK bool record_decode_damage(struct byte_reader *r, struct chunk_damage *v);

// All but hash, residency, references and live bytes. Version 1 has neither death nor place;
// record_blob_version chooses it when both are zero.
unsigned record_blob_version(const struct blob_record *v);
void record_encode_blob(const struct blob_record *v, unsigned version, struct buffer *out);
void record_read_blob(struct byte_reader *r, unsigned version, struct blob_record *v);
bool record_blob_is_valid(const struct blob_record *v);
MUST_CHECK bool record_decode_blob(struct byte_reader *r, unsigned version, struct blob_record *v);

// All but id.
void record_encode_namespace(const struct namespace_record *v, struct buffer *out);
void record_read_namespace(struct byte_reader *r, struct namespace_record *v);
bool record_namespace_is_valid(const struct namespace_record *v);
MUST_CHECK bool record_decode_namespace(struct byte_reader *r, struct namespace_record *v);

// All but generation.
void record_encode_generation(const struct generation_record *v, struct buffer *out);
void record_read_generation(struct byte_reader *r, struct generation_record *v);
bool record_generation_is_valid(const struct generation_record *v);
MUST_CHECK bool record_decode_generation(struct byte_reader *r, struct generation_record *v);

void record_encode_retention(const struct retention_policy *v, struct buffer *out);
void record_read_retention(struct byte_reader *r, struct retention_policy *v);
bool record_retention_is_valid(const struct retention_policy *v);
MUST_CHECK bool record_decode_retention(struct byte_reader *r, struct retention_policy *v);

void record_encode_counters(const struct db_counters *v, struct buffer *out);
MUST_CHECK bool record_decode_counters(struct byte_reader *r, struct db_counters *v);

#endif
