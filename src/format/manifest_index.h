// SPDX-License-Identifier: Apache-2.0
// Reading a catalog in part: its index names each section's kind of change, first key, place and
// length. One ranged read near the end gets footer and index of most catalogs, one more a section.
// Such reads are verified by checksums, not by the hash of the whole. Pure.
#ifndef CKPTFS_FORMAT_MANIFEST_INDEX_H
#define CKPTFS_FORMAT_MANIFEST_INDEX_H

#include "format/manifest_record.h"

struct manifest_index_entry {
    enum change_kind kind;
    uint64_t offset; // of the section in the catalog
    uint32_t bytes;  // of the section, header included
    uint32_t changes;
    uint32_t key_length;
    const uint8_t *key; // of its first change; in the index
};

struct manifest_index {
    struct buffer bytes;
    struct manifest_index_entry *entries;
    size_t count;
};

// Reads the index of a catalog of `bytes` bytes: one call of `source`, or two when the index is
// large. -ENOTSUP: the catalog is of version 1 and has none, or it is newer than this program.
// -EBADMSG: it breaks the rules of the format. The caller frees `index_out` in every case.
MUST_CHECK int manifest_index_read(manifest_record_source *source, void *argument, uint64_t bytes,
    struct manifest_index *index_out);
void manifest_index_free(struct manifest_index *index);

// The only section that may have the change of this kind and key, or NULL.
const struct manifest_index_entry *manifest_index_find(
    const struct manifest_index *index, enum change_kind kind, const void *key, size_t key_length);

// Reads one section, verifies it, and passes its changes to the visitor.
MUST_CHECK int manifest_index_read_section(manifest_record_source *source, void *argument,
    const struct manifest_index_entry *entry, manifest_record_visitor *visitor,
    void *visitor_argument);

#endif
