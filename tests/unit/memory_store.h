// SPDX-License-Identifier: Apache-2.0
// A store in memory with a clock of its own: objects have the server's time, which the test moves
// forward. Several threads may use the store; the functions below are one thread's.
#ifndef CKPTFS_TESTS_MEMORY_STORE_H
#define CKPTFS_TESTS_MEMORY_STORE_H

#include "store/remote_store.h"

struct remote_store *memory_store_new(void);
// The bytes lie in another store, which closes with this one; only times are in memory.
struct remote_store *memory_store_over(struct remote_store *inner);
// The server's clock goes forward, against that of this machine.
void memory_store_pass(struct remote_store *s, uint64_t ms);
// Milliseconds since 1970 by the server's clock.
uint64_t memory_store_now_ms(const struct remote_store *s);
// How many objects have keys with this beginning, and their bytes.
size_t memory_store_count(const struct remote_store *s, const char *prefix, uint64_t *bytes_out);
// The key of the n-th of them, which is good until a put or delete; NULL: there are no more.
const char *memory_store_key(const struct remote_store *s, const char *prefix, size_t n);

#endif
