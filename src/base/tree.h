// SPDX-License-Identifier: Apache-2.0
// An intrusive ordered tree (a treap: Seidel and Aragon, 1996, with priorities hashed from the
// node's address). The entry embeds a `struct tree_node`; the caller gives the comparison. Not for
// concurrent use.
#ifndef CKPTFS_BASE_TREE_H
#define CKPTFS_BASE_TREE_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct tree_node {
    struct tree_node *left;
    struct tree_node *right;
    struct tree_node *parent;
};

// Compares a key with a node's key: negative, 0 or positive as with strcmp.
typedef int tree_compare(const void *key, const struct tree_node *node);

struct tree {
    struct tree_node *root;
    tree_compare *compare;
    size_t count;
};

// Inserts `node` under `key`, which must not be in the tree.
void tree_insert(struct tree *t, struct tree_node *node, const void *key);
void tree_remove(struct tree *t, struct tree_node *node);
// The node with this key, or NULL.
struct tree_node *tree_find(const struct tree *t, const void *key);
// The first node whose key is not less than `key`, or NULL.
struct tree_node *tree_lower_bound(const struct tree *t, const void *key);
struct tree_node *tree_first(const struct tree *t);
// The node after this one in key order, or NULL.
struct tree_node *tree_next(const struct tree_node *node);
// For tests of the cost of operations: the number of keys that this thread has compared. Only a
// developer's build counts.
uint64_t tree_comparisons(void);

#endif
