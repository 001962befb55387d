// SPDX-License-Identifier: Apache-2.0
// An intrusive chained hash table: the entry embeds a `struct hash_node`, the caller computes the
// hash and compares keys. Grows by doubling. Not for concurrent use.
#ifndef CKPTFS_BASE_HASH_TABLE_H
#define CKPTFS_BASE_HASH_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct hash_node {
    struct hash_node *next;
    uint64_t hash;
};

struct hash_table {
    struct hash_node **buckets;
    size_t mask; // buckets - 1, when there are buckets
    size_t count;
};

// Mixes a 64-bit key (the finaliser of SplitMix64, Steele et al. 2014).
static inline uint64_t
hash_u64(uint64_t v)
{
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
    return v ^ (v >> 31);
}

static inline uint64_t
hash_u64_pair(uint64_t a, uint64_t b)
{
    return hash_u64(hash_u64(a) + 0x9e3779b97f4a7c15u + b);
}

// Frees the buckets, not the entries.
void hash_table_free(struct hash_table *t);
void hash_table_insert(struct hash_table *t, struct hash_node *node, uint64_t hash);
// `node` must be in the table.
void hash_table_remove(struct hash_table *t, struct hash_node *node);

// The first node with this hash, or NULL; the caller compares keys and goes on with
// hash_table_next_same.
static inline struct hash_node *
hash_table_first(const struct hash_table *t, uint64_t hash)
{
    if (!t->buckets)
        return NULL;
    struct hash_node *n = t->buckets[hash & t->mask];
    while (n && n->hash != hash)
        n = n->next;
    return n;
}

static inline struct hash_node *
hash_table_next_same(const struct hash_node *node)
{
    struct hash_node *n = node->next;
    while (n && n->hash != node->hash)
        n = n->next;
    return n;
}

// Walks all nodes in no particular order; the node given may be removed and freed inside the loop.
#define HASH_TABLE_FOR_EACH(t, node)                                                               \
    for (size_t node##_i = 0; (t)->buckets && node##_i <= (t)->mask; node##_i++)                   \
        for (struct hash_node *node = (t)->buckets[node##_i], *node##_next;                        \
             node && (node##_next = node->next, 1); node = node##_next)

#endif
