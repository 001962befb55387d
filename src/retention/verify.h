// SPDX-License-Identifier: Apache-2.0
// Verifying a volume in the store: the chain and the catalogs, the state of each generation that is
// kept, and every blob that one of them refers to. For tools: it works in a manifest of its own and
// changes nothing in the store, but for verify_put_back.
#ifndef CKPTFS_RETENTION_VERIFY_H
#define CKPTFS_RETENTION_VERIFY_H

#include "base/hash_table.h"
#include "remote/remote_verify.h"

// Paths of files that are named for one object.
#define VERIFY_FILES_MAX 100u

// An object that is damaged, or a generation that cannot be read.
struct verify_damage {
    struct hash_node by_key, by_hash; // by_hash: of blobs
    char *key;                        // or "generation N"
    char *why;
    bool is_blob;
    struct sha256 hash; // of a blob
    uint64_t bytes;
    struct generation *generations; // that need the blob, in order
    size_t generation_count;
    char **files; // that need it in one of them; at most VERIFY_FILES_MAX
    size_t file_count;
    bool more_files;
    struct verify_damage *next;
};

struct verify_result {
    struct remote_chain_health chain;
    uint64_t generations;
    uint64_t blobs, blob_bytes;      // that were looked for, each once for each generation
    uint64_t read_blobs, read_bytes; // with `data`: each once
    uint64_t lost_ranges; // that the newest generation has noted as lost, which is no damage here
    uint64_t damaged;
    struct verify_damage *damages; // in the order in which they were found
    // Of this module.
    struct verify_damage **end;
    struct hash_table by_key, by_hash;
};
void verify_result_free(struct verify_result *result);

struct verify_options {
    const struct remote_place *place;
    struct manifest *manifest;
    bool data; // read every blob and compare its checksum
    // An earlier run has looked at the generations up to this one, and at all that they need: this
    // run passes over them. {0}: there was none.
    struct generation after;
    // A generation is done, and `result` has its damage; an error ends the run. May be NULL.
    int (*looked)(void *argument, struct generation generation, const struct verify_result *result);
    // Anything but 0 ends the run and is its result. May be NULL.
    int (*progress)(void *argument, const char *what, uint64_t done, uint64_t total);
    void *argument;
};

// 0, also when there is damage; -ENOENT: there is no volume; -EIDRM: it is being destroyed; else
// the store or the disk could not be read.
MUST_CHECK int verify_run(const struct verify_options *options, struct verify_result *result_out);

// Puts a damaged blob back from a copy with the right bytes: a file of a storage root's hot_cache
// (the directory ROOT/hot_cache). 1: done; 0: there is no good copy; or the store's error.
MUST_CHECK int verify_put_back(
    const struct remote_place *place, const char *hot_cache, const struct verify_damage *damage);

#endif
