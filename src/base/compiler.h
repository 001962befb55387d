// SPDX-License-Identifier: Apache-2.0
// Compiler attributes and the few macros that everyone needs.
#ifndef CKPTFS_BASE_COMPILER_H
#define CKPTFS_BASE_COMPILER_H

#include <assert.h>
#include <stddef.h>

#define MUST_CHECK        __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define UNUSED            __attribute__((unused))
#define CLEANUP(fn)       __attribute__((cleanup(fn)))
#define LIKELY(x)         __builtin_expect(!!(x), 1)
#define UNLIKELY(x)       __builtin_expect(!!(x), 0)

#define ARRAY_LENGTH(a) (sizeof(a) / sizeof((a)[0]))

// The struct that embeds `member`, from a pointer to the member.
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#endif
