// SPDX-License-Identifier: Apache-2.0
#include "cache/page.h"

#include <stdlib.h>

#include "platform/memory.h"

struct page *
page_new(void)
{
    struct page *p = memory_alloc(sizeof(*p));
    atomic_init(&p->references, 1);
    return p;
}

void
page_put(struct page *p)
{
    if (p && atomic_fetch_sub_explicit(&p->references, 1, memory_order_acq_rel) == 1)
        free(p);
}
