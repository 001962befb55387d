// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "platform/memory.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Memory of requests and fetches is not given back to the kernel each time it is freed: it would
// come back as fresh pages with the next one.
#define KEPT_BYTES (16 << 20)

static void *
require(void *p)
{
    if (!p)
        abort();
    return p;
}

void
memory_limit_arenas(void)
{
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, KEPT_BYTES / 2);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
}

void
memory_trim(void)
{
    malloc_trim(0);
}

void *
memory_alloc(size_t n)
{
    return require(malloc(n ? n : 1));
}

void *
memory_alloc_zero(size_t n)
{
    return require(calloc(1, n ? n : 1));
}

void *
memory_alloc_aligned(size_t alignment, size_t n)
{
    void *p = NULL;
    return require(posix_memalign(&p, alignment, n ? n : 1) == 0 ? p : NULL);
}

void *
memory_realloc(void *p, size_t n)
{
    return require(realloc(p, n ? n : 1));
}

char *
memory_string(const char *s)
{
    return require(strdup(s));
}

char *
memory_printf(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        abort();
    return text;
}

void
memory_free_auto(void *p)
{
    free(*(void **)p);
}
