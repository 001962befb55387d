// SPDX-License-Identifier: Apache-2.0
// Changes of the namespace since a cut: inodes, directory entries, extended attributes, each either
// put or deleted. As with dirty_set there is an active and a frozen one, both over the tables in
// LMDB, and freezing exchanges pointers. Not locked: the volume's lock protects it; a frozen set
// does not change.
#ifndef CKPTFS_CACHE_NAMESPACE_SET_H
#define CKPTFS_CACHE_NAMESPACE_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/types.h"
#include "format/change.h"
#include "format/records.h"

struct namespace_set;

enum layer_state { LAYER_ABSENT, LAYER_PUT, LAYER_DELETED };

struct namespace_set *namespace_set_new(void);
void namespace_set_free(struct namespace_set *s); // NULL is fine
bool namespace_set_is_empty(const struct namespace_set *s);

// Applies a change (the six kinds of the namespace), with copies of its texts.
void namespace_set_apply(struct namespace_set *s, const struct change *change);

// Look-ups. Pointers in the results belong to the set and are good until the entry changes.
enum layer_state namespace_set_find_inode(
    const struct namespace_set *s, struct object_id object, struct inode_record *inode_out);
enum layer_state namespace_set_find_xattr(const struct namespace_set *s, struct object_id object,
    const char *name, size_t name_length, struct xattr_record *xattr_out);

// An entry of a directory, or of an object's attributes, put or deleted.
struct namespace_dirent {
    bool deleted;
    struct dirent_record dirent;
};
struct namespace_xattr {
    bool deleted;
    struct xattr_record xattr;
};

// The first entry of `parent` with cookie >= `from`, or NULL.
const struct namespace_dirent *namespace_set_next_dirent(
    const struct namespace_set *s, struct object_id parent, uint64_t from);
// The first attribute of `object` with a name after `after` (NULL: the first of all), or NULL.
const struct namespace_xattr *namespace_set_next_xattr(
    const struct namespace_set *s, struct object_id object, const char *after, size_t after_length);

// Every entry as a change: deleted dirents, deleted xattrs, deleted inodes, then inodes, dirents
// and xattrs that were put. Nonzero from `visit` ends the walk, which returns it.
typedef int namespace_set_visit(void *argument, const struct change *change);
int namespace_set_walk(const struct namespace_set *s, namespace_set_visit *visit, void *argument);
// The inodes alone.
int namespace_set_walk_inodes(
    const struct namespace_set *s, namespace_set_visit *visit, void *argument);
// Inodes put with nlink 0.
int namespace_set_walk_orphans(
    const struct namespace_set *s, namespace_set_visit *visit, void *argument);
size_t namespace_set_count(const struct namespace_set *s);
// Bytes of names, link targets and values in it.
uint64_t namespace_set_bytes(const struct namespace_set *s);
// Asserts the invariants of the set. Walks all of it.
void namespace_set_check(const struct namespace_set *s);

#endif
