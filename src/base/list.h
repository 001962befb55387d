// SPDX-License-Identifier: Apache-2.0
// An intrusive, circular, doubly linked list. The head is a node of its own.
#ifndef CKPTFS_BASE_LIST_H
#define CKPTFS_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

struct list_node {
    struct list_node *next;
    struct list_node *previous;
};

static inline void
list_init(struct list_node *head)
{
    head->next = head->previous = head;
}

static inline bool
list_is_empty(const struct list_node *head)
{
    return head->next == head;
}

static inline void
list_append(struct list_node *head, struct list_node *node)
{
    node->previous = head->previous;
    node->next = head;
    head->previous->next = node;
    head->previous = node;
}

static inline void
list_prepend(struct list_node *head, struct list_node *node)
{
    list_append(head->next, node);
}

static inline void
list_remove(struct list_node *node)
{
    node->previous->next = node->next;
    node->next->previous = node->previous;
    node->next = node->previous = NULL;
}

// The first node taken off the list, or NULL.
static inline struct list_node *
list_take_first(struct list_node *head)
{
    if (list_is_empty(head))
        return NULL;
    struct list_node *node = head->next;
    list_remove(node);
    return node;
}

// Moves all nodes of `from` to the end of `to`.
static inline void
list_move_all(struct list_node *to, struct list_node *from)
{
    if (list_is_empty(from))
        return;
    from->next->previous = to->previous;
    to->previous->next = from->next;
    from->previous->next = to;
    to->previous = from->previous;
    list_init(from);
}

#define LIST_FOR_EACH(head, node)                                                                  \
    for (struct list_node *node = (head)->next, *node##_next;                                      \
         node != (head) && (node##_next = node->next, 1); node = node##_next)

#endif
