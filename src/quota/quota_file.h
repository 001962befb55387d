// SPDX-License-Identifier: Apache-2.0
// ROOT/quota: the account of a storage root, which all its daemons share. Each maps the file. A
// process can count all of it again, but for the limits that an operator set. Layout, in the byte
// order of the machine, because it is memory and not a message (doc/format.md):
//
//     header   struct quota_header, 4,096 bytes
//     slots    QUOTA_SLOTS times struct quota_slot, 128 bytes each
//
// A slot belongs to a place: the directories of one volume ("db/N"), or a read-only mount
// ("views/NAME"). Only the process that has the place writes to its counters; it holds a lock on
// the slot's first byte for as long, so that others can tell. A process that takes or frees slots,
// or sets a limit, holds the lock of the whole file (flock).
//
// The limit of a tenant is in the slots of all its places, each with its inverse. A process that is
// killed while it sets the limit leaves some with the old one: the next process that takes a place
// of the tenant gives all of them the smallest that is set. A limit goes with the tenant's last
// place.
//
// States of a slot, also after a crash:
//
//     free     name[0] is 0
//     owned    named and locked. The process adds bytes before it writes them and subtracts them
//              after it has removed them: one that is killed in between has counted too much,
//              never too little
//     left     named, not locked: the process has ended, in any way. Still counted;
//              the next mount of the place counts its files
//     stale    left, and none of its directories exists: the next process that takes a slot frees
//              it
//
// After a crash of the machine the file may have any older content: `boot_id` is then another one,
// and the first process counts all places.
#ifndef CKPTFS_QUOTA_QUOTA_FILE_H
#define CKPTFS_QUOTA_QUOTA_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/types.h"

#define QUOTA_MAGIC        UINT64_C(0x31544f5551504b43) // "CKPQUOT1" on little-endian machines
#define QUOTA_SLOTS        1024u
#define QUOTA_HEADER_BYTES 4096u
#define QUOTA_NAME_BYTES   64u

struct quota_header {
    uint64_t magic;
    uint32_t slots; // QUOTA_SLOTS
    uint32_t used;  // slots from here on have never been taken
    struct uuid boot_id;
    uint64_t limit;       // of the root; 0: none
    uint64_t limit_check; // ~limit
    uint64_t manifest;    // bytes of manifest/data.mdb
    uint64_t other;       // bytes of all files that belong to no place
    uint64_t reserved[504];
};
_Static_assert(sizeof(struct quota_header) == QUOTA_HEADER_BYTES, "layout");

struct quota_slot {
    char name[QUOTA_NAME_BYTES]; // NUL-terminated
    uint64_t log;                // bytes of the log's files
    uint64_t blobs;              // bytes of hot_cache and checkpoint_scratch
    uint64_t promised;           // to the checkpoints of all that the log can hold
    uint64_t limit;              // of the place, for other processes to show; 0: none
    uint64_t tenant;             // quota_tenant_id; 0: not known (an older program has the place)
    uint64_t tenant_limit;       // 0: none
    uint64_t tenant_limit_check; // ~tenant_limit
    uint64_t jobs;               // bytes of hot_cache that jobs have asked for which run now
};
_Static_assert(sizeof(struct quota_slot) == 128, "layout");

struct quota_map {
    struct quota_header header;
    struct quota_slot slots[QUOTA_SLOTS];
};

struct quota_file {
    int fd;                // -1: the account is this process's alone
    struct quota_map *map; // shared, or private memory
    struct quota_slot *slot;
};

// Opens a file that processes map as their common memory, or makes it of `bytes` zeros, and locks
// it (flock); others may have it mapped. Returns the descriptor. -EINVAL: it is no regular file.
MUST_CHECK int quota_shared_file_open(const char *path, size_t bytes);

// Opens the account of a root, or makes it, and takes the slot `name` for this process, with the
// counters that are in it. An obstacle (a full disk, a file of another program) is logged, and the
// account is then of this process alone. Ends with quota_file_close.
void quota_file_open(const char *root, const char *name, struct quota_file *file_out);
// Sets the limit of the root; 0: none. A process that is killed between its two words leaves a
// limit that is known to be damaged, and void.
void quota_file_set_limit(struct quota_file *file, uint64_t bytes);
// Names the tenant whose place this is, and gives its slot the tenant's limit. Before the account
// is used.
void quota_file_set_tenant(struct quota_file *file, const char *tenant);
// Sets the limit of the tenant in all its places; 0: none.
void quota_file_set_tenant_limit(struct quota_file *file, uint64_t bytes);
// Whether a process has the place of slot `index`. This process's own slot of this file does not
// show.
bool quota_file_is_owned(const struct quota_file *file, uint32_t index);
// Forgets the jobs of processes that have ended. Returns whether there were any.
bool quota_file_forget_jobs(struct quota_file *file);
// The slot stays as it is.
void quota_file_close(struct quota_file *file);

// Stands for the name of a tenant; never 0.
uint64_t quota_tenant_id(const char *tenant);

// Bytes in blocks of the files of a place.
void quota_count_place(const char *root, const char *name, uint64_t *log_out, uint64_t *blobs_out);
// Those of all regular files at and below `path`, which may be missing. Follows no links.
uint64_t quota_count_tree(const char *path);

#endif
