// SPDX-License-Identifier: Apache-2.0
// One page of an object in memory: counted references, and bytes that never change once other
// threads can see the page. A write makes a new page; so readers copy without a lock.
#ifndef CKPTFS_CACHE_PAGE_H
#define CKPTFS_CACHE_PAGE_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/types.h"

struct page {
    atomic_uint references;
    uint8_t data[PAGE_BYTES];
};

// One reference, bytes undefined. Never NULL.
struct page *page_new(void);
static inline struct page *
page_get(struct page *p)
{
    atomic_fetch_add_explicit(&p->references, 1, memory_order_relaxed);
    return p;
}
// Lets go of a reference; NULL is fine.
void page_put(struct page *p);

#endif
