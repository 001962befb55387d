// SPDX-License-Identifier: Apache-2.0
// Manifest records: the objects under PREFIX/manifests/{tenant}/{db}/ from which a volume can be
// mounted. A record is a header, a stream of changes (format/change.h) in lz4 sections, and a
// footer with the SHA-256 of all before it. Records form a chain: each has a sequence number one
// above its predecessor's and the SHA-256 of the predecessor's bytes. A catalog has the same form
// and holds the whole state, for readers that do not need the records before it. Pure; streaming,
// so that memory does not depend on the size of a catalog. In a catalog the changes of each kind
// stand in the order of their keys, and an index tells where (manifest_index.h), so that a reader
// can read a part of it. Layout in doc/format.md.
#ifndef CKPTFS_FORMAT_MANIFEST_RECORD_H
#define CKPTFS_FORMAT_MANIFEST_RECORD_H

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"
#include "format/change.h"

enum manifest_record_kind {
    MANIFEST_RECORD_CREATE = 1,     // sequence 1: the volume is made
    MANIFEST_RECORD_OPEN = 2,       // a writer takes the volume: a new epoch
    MANIFEST_RECORD_GENERATION = 3, // a checkpoint is published
    MANIFEST_RECORD_CATALOG = 4,    // not part of the chain: the state after record `sequence`
    MANIFEST_RECORD_RETENTION = 5,  // which generations are kept, and which deaths are told anew
    MANIFEST_RECORD_DESTROY = 6,    // the volume is being destroyed: no host may use it any more
};

#define MANIFEST_RECORD_KIND_MAX MANIFEST_RECORD_DESTROY

// The origin of a fork.
struct volume_parent {
    struct uuid volume;
    uint64_t sequence;  // of the parent's record
    struct sha256 hash; // of that record's bytes
    struct generation generation;
};

struct manifest_record_header {
    enum manifest_record_kind kind;
    unsigned version; // told by the reader; the writer writes the newest
    uint64_t sequence;
    uint64_t epoch;
    struct uuid volume;     // same in all records of a volume
    struct uuid writer;     // the storage root that wrote it
    struct uuid name_key;   // the key of the hash in dirent cookies
    struct sha256 previous; // of the predecessor's bytes; of record `sequence` itself for a catalog
    struct generation generation;          // of this checkpoint; of the newest one for other kinds
    struct generation previous_generation; // published before it
    struct lsn cut;                        // the writer's LSN of the cut
    struct uuid checkpoint_id;
    uint64_t created_ms; // wall clock of the writer, for people
    char host[64];       // NUL-terminated name of the writer's host, for people
    // Records below this sequence may be missing; 0: no statement.
    uint64_t lowest_sequence;
    uint32_t extension_bytes; // told by the reader
    bool has_parent;          // of CREATE
    struct volume_parent parent;
};

// ---- writing ------------------------------------------------------------------------------------

struct manifest_record_writer;
typedef int manifest_record_sink(void *argument, const void *p, size_t n);

struct manifest_record_writer *manifest_record_writer_new(
    const struct manifest_record_header *header, manifest_record_sink *sink, void *argument);
void manifest_record_writer_free(struct manifest_record_writer *w);
MUST_CHECK int manifest_record_writer_add(
    struct manifest_record_writer *w, const struct change *change);
// Ends the record; `hash_out` is the SHA-256 of all its bytes, `bytes_out` their number.
MUST_CHECK int manifest_record_writer_finish(
    struct manifest_record_writer *w, struct sha256 *hash_out, uint64_t *bytes_out);

// ---- reading ------------------------------------------------------------------------------------

// Gives `n` bytes at `offset` of the record: fills `p` wholly or returns -errno.
typedef int manifest_record_source(void *argument, uint64_t offset, void *p, size_t n);
typedef int manifest_record_visitor(void *argument, const struct change *change);

// Reads the header of a record of `bytes` bytes. -EBADMSG, or -ENOTSUP for a newer version or
// incompatible features.
MUST_CHECK int manifest_record_read_header(manifest_record_source *source, void *argument,
    uint64_t bytes, struct manifest_record_header *header_out);
// Verifies the whole record first (SHA-256, section checksums, counts), then calls `visitor` for
// each change in order; a visitor's error ends the walk and is returned. `visitor` may be NULL to
// verify only. `hash_out` (may be NULL) is the SHA-256 of all its bytes.
MUST_CHECK int manifest_record_read(manifest_record_source *source, void *argument, uint64_t bytes,
    manifest_record_visitor *visitor, void *visitor_argument, struct sha256 *hash_out);

#endif
