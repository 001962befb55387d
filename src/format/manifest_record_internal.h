// SPDX-License-Identifier: Apache-2.0
// The layout of manifest records; prose in doc/format.md.
//
//     header 256   sections: (section header 32, stored bytes) ...   footer 96
//
// The header has its length and its CRC-32C at the same place in every version, so that damage can
// be told from a newer version.
#ifndef CKPTFS_FORMAT_MANIFEST_RECORD_INTERNAL_H
#define CKPTFS_FORMAT_MANIFEST_RECORD_INTERNAL_H

#include <stdint.h>

#define RECORD_MAGIC        "CKPTFSMR"
#define RECORD_VERSION      1u
#define RECORD_HEADER_BYTES 256u
#define RECORD_HOST_BYTES   64u
#define RECORD_HEADER_ZEROS 24u // reserved, before the checksum

#define SECTION_MAGIC        0x54434553u // "SECT"
#define SECTION_HEADER_BYTES 32u
// A section is closed when it has reached the first length; one change may take it further.
#define SECTION_TARGET_BYTES (256u << 10)
#define SECTION_RAW_MAX      (384u << 10)

enum section_encoding { SECTION_RAW = 0, SECTION_LZ4 = 1 };

struct section_header {
    uint16_t encoding;
    uint32_t number; // from 0
    uint32_t raw_bytes;
    uint32_t stored_bytes;
    uint32_t changes;
    uint32_t crc; // of the stored bytes
};

#define FOOTER_MAGIC "CKPTFSMF"
#define FOOTER_BYTES 96u
#define FOOTER_ZEROS 24u

#define RECORD_BYTES_MIN (RECORD_HEADER_BYTES + FOOTER_BYTES)

#endif
