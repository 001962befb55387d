// SPDX-License-Identifier: Apache-2.0
#ifndef CKPTFS_STORE_LOCAL_STORE_INTERNAL_H
#define CKPTFS_STORE_LOCAL_STORE_INTERNAL_H

#include "base/hash_table.h"
#include "base/list.h"
#include "platform/lock.h"
#include "store/local_store.h"
#include "store/part_sieve.h"

// An open file of hot_cache. Idle ones wait in order of use for being closed.
struct open_file {
    struct hash_node node;
    struct list_node idle;
    struct sha256 hash;
    int fd;
    bool whole;
    bool doomed;      // removed or replaced: close when the last user is done
    bool owed;        // its name is gone: its blocks are given back when it is closed
    uint64_t counted; // bytes in blocks that the quota knows of; of a partial one
    unsigned users;
};

struct local_store {
    const struct file_ops *ops;
    char *hot_cache;
    char *scratch;
    struct lock lock; // "local_store": protects everything below
    struct hash_table files;
    struct list_node idle;
    uint64_t forgotten; // how often a name got another meaning
    struct pin_set *pins;
    struct storage_quota *quota; // constant once others use the store
    struct part_sieve *parts;    // the parts here, as far as they were used under a limit
    bool all_known;              // all files are in `parts`
};

char *local_store_path(const struct local_store *s, const struct sha256 *hash, bool whole);
// Whether the name is that of a copy, and of which.
bool local_store_parse_name(const char *name, struct sha256 *hash_out, bool *whole_out);

// The file of a blob, whole if there is one; `make` makes the partial one when there is neither.
MUST_CHECK int local_store_get_file(
    struct local_store *s, const struct sha256 *hash, bool make, struct open_file **out);
void local_store_put_file(struct local_store *s, struct open_file *f);
// The partial file may have grown by the reserved bytes, or by less, or have shrunk.
void local_store_count_growth(struct local_store *s, struct open_file *f, uint64_t reserved);

// Bytes in blocks of the two files of a blob that have lost their names.
struct unlinked {
    uint64_t partial, whole;
};
// Lets no further user have the open file: its name means something else now. Gives back the bytes
// of a file that has lost its name; of an open one when it is closed.
void local_store_forget_file(
    struct local_store *s, const struct sha256 *hash, const struct unlinked *gone);

// local_store_remove between pin_set_begin_removal and its end.
void local_store_remove_announced(struct local_store *s, const struct sha256 *hash);

// local_store_evict.c: bytes of the open file have been read, or have come; a whole file has come
// under this name; all of a blob has gone.
void local_store_note_use_locked(
    struct local_store *s, const struct open_file *f, uint64_t offset, size_t n);
void local_store_note_kept(
    struct local_store *s, const struct open_file *f, uint64_t offset, size_t n);
void local_store_note_adopted(struct local_store *s, const struct sha256 *hash, const char *path);
void local_store_note_removed(struct local_store *s, const struct sha256 *hash);

#endif
