// SPDX-License-Identifier: Apache-2.0
#include "base/hash_table.h"

#include <stdlib.h>

void
hash_table_free(struct hash_table *t)
{
    free(t->buckets);
    *t = (struct hash_table){0};
}

static void
grow(struct hash_table *t)
{
    size_t size = t->buckets ? 2 * (t->mask + 1) : 16;
    struct hash_node **buckets = calloc(size, sizeof(struct hash_node *));
    if (!buckets)
        abort();
    HASH_TABLE_FOR_EACH(t, node)
    {
        struct hash_node **bucket = &buckets[node->hash & (size - 1)];
        node->next = *bucket;
        *bucket = node;
    }
    free(t->buckets);
    t->buckets = buckets;
    t->mask = size - 1;
}

void
hash_table_insert(struct hash_table *t, struct hash_node *node, uint64_t hash)
{
    if (!t->buckets || t->count > t->mask)
        grow(t);
    struct hash_node **bucket = &t->buckets[hash & t->mask];
    node->hash = hash;
    node->next = *bucket;
    *bucket = node;
    t->count++;
}

void
hash_table_remove(struct hash_table *t, struct hash_node *node)
{
    struct hash_node **link = &t->buckets[node->hash & t->mask];
    while (*link != node)
        link = &(*link)->next;
    *link = node->next;
    t->count--;
}
