// SPDX-License-Identifier: Apache-2.0
// Memory that may not fail: small objects whose absence would leave a half-done change. The kernel
// overcommits, so a refused small allocation means that the process is out of address space or at a
// hard limit; the WAL makes stopping there the safe answer, and the next mount recovers.
#ifndef CKPTFS_PLATFORM_MEMORY_H
#define CKPTFS_PLATFORM_MEMORY_H

#include <stddef.h>

#include "base/compiler.h"

// Few pools for many threads: memory that one thread frees serves the others. Up to 16 MiB at the
// end of each are kept until memory_trim. At start, once.
void memory_limit_arenas(void);
// Gives what has been freed back to the system, after something large has gone.
void memory_trim(void);

void *memory_alloc(size_t n);
// At a multiple of `alignment`, a power of two of at least sizeof(void *).
void *memory_alloc_aligned(size_t alignment, size_t n);
void *memory_alloc_zero(size_t n);
void *memory_realloc(void *p, size_t n);
char *memory_string(const char *s);
// printf into a new string, to be freed.
char *memory_printf(const char *format, ...) PRINTF_LIKE(1, 2);
// For CLEANUP(memory_free_auto) char *p = NULL;
void memory_free_auto(void *p);

#endif
