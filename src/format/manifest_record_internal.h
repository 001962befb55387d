// SPDX-License-Identifier: Apache-2.0
// The layout of manifest records; prose in doc/format.md.
//
//     version 1: header 256   sections: (section header 32, stored bytes) ...   footer 96
//     version 2: header 256   extensions   sections ...   index   footer 192
//
// The header has its length and its CRC-32C at the same place in every version, so that a reader
// can tell damage from a newer version.
#ifndef CKPTFS_FORMAT_MANIFEST_RECORD_INTERNAL_H
#define CKPTFS_FORMAT_MANIFEST_RECORD_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "format/change.h"

#define RECORD_MAGIC   "CKPTFSMR"
#define RECORD_VERSION 2u
// Incompatible features.
#define RECORD_FEATURE_COLUMNS 1u // sections may have the encoding SECTION_COLUMNS: catalogs
#define RECORD_FEATURES_KNOWN  RECORD_FEATURE_COLUMNS
#define RECORD_HEADER_BYTES    256u
#define RECORD_HOST_BYTES      64u
#define RECORD_HEADER_ZEROS    12u // reserved, before the checksum
#define RECORD_HEADER_ZEROS_1  24u // in version 1

// The area after the header, checksum included: readers get it with the header in one request.
#define RECORD_EXTENSION_MAX 2048u
// Types of items there.
#define RECORD_EXTENSION_PARENT 1u // 64 bytes: volume, sequence, hash, generation
// Kept free for records whose sections are encrypted: this program refuses them. 18 bytes:
// algorithm u16, id of the key.
#define RECORD_EXTENSION_KEY 0x8002u

#define SECTION_MAGIC        0x54434553u // "SECT"
#define SECTION_HEADER_BYTES 32u
// The writer closes a section when it has reached the first length; its last change may exceed it.
#define SECTION_TARGET_BYTES (256u << 10)
#define SECTION_RAW_MAX      (384u << 10)

enum section_encoding {
    SECTION_RAW = 0,
    SECTION_LZ4 = 1,
    SECTION_COLUMNS = 2, // all changes have one length: columns.h, then LZ4
};

struct section_header {
    uint16_t encoding;
    uint32_t number; // from 0
    uint32_t raw_bytes;
    uint32_t stored_bytes;
    uint32_t changes;
    uint32_t crc; // of the stored bytes
};

#define FOOTER_MAGIC   "CKPTFSMF"
#define FOOTER_BYTES   192u
#define FOOTER_ZEROS   112u // seal, key and reserved, before the checksum
#define FOOTER_BYTES_1 96u  // of version 1
#define FOOTER_ZEROS_1 24u

#define RECORD_BYTES_MIN (RECORD_HEADER_BYTES + FOOTER_BYTES_1)

// An entry of the index, before its key.
#define INDEX_ENTRY_BYTES 20u
#define INDEX_KEY_MAX     (8u + XATTR_NAME_BYTES_MAX)

struct record_footer {
    uint32_t sections;
    uint64_t changes;
    uint64_t raw_bytes;
    uint64_t record_bytes;
    struct sha256 hash;
    uint32_t index_bytes;
    uint32_t index_crc;
    size_t length; // its own
};

// The order of changes in a catalog, and the index over it; the writer and the reader both compute
// it. Zero-initialise.
struct record_order {
    uint32_t kinds; // bits of the kinds so far
    uint8_t kind;   // of the section at hand; 0: none has been begun
    struct buffer last;
    struct buffer first;
    struct buffer key;
    struct buffer index;
};

void record_order_free(struct record_order *o);
// Begins anew.
void record_order_reset(struct record_order *o);
// Takes the next change; `begins`: it is the first of a section. False when it may not stand there:
// keys must rise within a kind, all changes of a kind follow each other, and a section has one
// kind.
bool record_order_take(struct record_order *o, const struct change *c, bool begins);
// The section that took the changes since the last call lies at `offset`.
void record_order_close(
    struct record_order *o, uint64_t offset, uint32_t stored_bytes, uint32_t changes);

// Shared with manifest_record_index.c.
MUST_CHECK int record_decode_footer(
    const uint8_t *p, unsigned version, struct record_footer *footer_out);
MUST_CHECK bool record_decode_section_header(const uint8_t *p, struct section_header *s);
MUST_CHECK bool record_unpack_section(
    const struct section_header *s, const uint8_t *stored, struct buffer *raw_out);

#endif
