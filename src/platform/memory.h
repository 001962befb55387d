// SPDX-License-Identifier: Apache-2.0
// Memory that may not fail: small objects whose absence would leave a half-done change. The kernel
// overcommits, so a refused small allocation means that the process is out of address space or at a
// hard limit; the WAL makes stopping there the safe answer, and the next mount recovers.
#ifndef CKPTFS_PLATFORM_MEMORY_H
#define CKPTFS_PLATFORM_MEMORY_H

#include <stddef.h>

#include "base/compiler.h"

// Few pools for many threads, so that memory that one thread frees serves the others. Each keeps up
// to 16 MiB at its end until memory_trim. Call it at the start, once.
void memory_limit_arenas(void);
// Gives freed memory back to the system; for use after large frees.
void memory_trim(void);

void *memory_alloc(size_t n);
// At a multiple of `alignment`, a power of two of at least sizeof(void *).
void *memory_alloc_aligned(size_t alignment, size_t n);
void *memory_alloc_zero(size_t n);
void *memory_realloc(void *p, size_t n);
char *memory_string(const char *s);
// printf into a new string, which the caller frees.
char *memory_printf(const char *format, ...) PRINTF_LIKE(1, 2);
// For CLEANUP(memory_free_auto) char *p = NULL;
void memory_free_auto(void *p);

#endif
