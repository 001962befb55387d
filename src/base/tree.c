// SPDX-License-Identifier: Apache-2.0
#include "base/tree.h"

#include <assert.h>
#include <stdint.h>

#include "base/hash_table.h"

#ifdef CKPTFS_DEBUG
static _Thread_local uint64_t comparisons;
#else
static const uint64_t comparisons;
#endif

uint64_t
tree_comparisons(void)
{
    return comparisons;
}

static inline int
compare(const struct tree *t, const void *key, const struct tree_node *node)
{
#ifdef CKPTFS_DEBUG
    comparisons++;
#endif
    return t->compare(key, node);
}

static uint64_t
priority(const struct tree_node *node)
{
    return hash_u64((uintptr_t)node);
}

static void
replace_child(
    struct tree *t, struct tree_node *parent, struct tree_node *old, struct tree_node *new)
{
    if (!parent)
        t->root = new;
    else if (parent->left == old)
        parent->left = new;
    else
        parent->right = new;
    if (new)
        new->parent = parent;
}

// Lifts `node` above its parent, keeping the order.
static void
rotate_up(struct tree *t, struct tree_node *node)
{
    struct tree_node *parent = node->parent;
    struct tree_node *grand = parent->parent;
    if (parent->left == node) {
        parent->left = node->right;
        if (node->right)
            node->right->parent = parent;
        node->right = parent;
    } else {
        parent->right = node->left;
        if (node->left)
            node->left->parent = parent;
        node->left = parent;
    }
    replace_child(t, grand, parent, node);
    parent->parent = node;
}

void
tree_insert(struct tree *t, struct tree_node *node, const void *key)
{
    struct tree_node *parent = NULL;
    struct tree_node **link = &t->root;
    while (*link) {
        parent = *link;
        int order = compare(t, key, parent);
        assert(order != 0);
        link = order < 0 ? &parent->left : &parent->right;
    }
    *node = (struct tree_node){NULL, NULL, parent};
    *link = node;
    t->count++;
    while (node->parent && priority(node->parent) < priority(node))
        rotate_up(t, node);
}

void
tree_remove(struct tree *t, struct tree_node *node)
{
    while (node->left && node->right)
        rotate_up(t, priority(node->left) > priority(node->right) ? node->left : node->right);
    replace_child(t, node->parent, node, node->left ? node->left : node->right);
    t->count--;
}

struct tree_node *
tree_find(const struct tree *t, const void *key)
{
    struct tree_node *node = t->root;
    while (node) {
        int order = compare(t, key, node);
        if (order == 0)
            return node;
        node = order < 0 ? node->left : node->right;
    }
    return NULL;
}

struct tree_node *
tree_lower_bound(const struct tree *t, const void *key)
{
    struct tree_node *best = NULL;
    struct tree_node *node = t->root;
    while (node) {
        if (compare(t, key, node) <= 0) {
            best = node;
            node = node->left;
        } else {
            node = node->right;
        }
    }
    return best;
}

struct tree_node *
tree_first(const struct tree *t)
{
    struct tree_node *node = t->root;
    while (node && node->left)
        node = node->left;
    return node;
}

struct tree_node *
tree_next(const struct tree_node *node)
{
    if (node->right) {
        node = node->right;
        while (node->left)
            node = node->left;
        return (struct tree_node *)node;
    }
    while (node->parent && node->parent->right == node)
        node = node->parent;
    return node->parent;
}
