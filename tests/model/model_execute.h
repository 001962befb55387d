// SPDX-License-Identifier: Apache-2.0
// What the operations share.
#ifndef TESTS_MODEL_MODEL_EXECUTE_H
#define TESTS_MODEL_MODEL_EXECUTE_H

#include "tests/model/model.h"

uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t n);
void fill_bytes(uint8_t *out, size_t n, uint64_t seed);
int64_t negative_errno(int64_t result);
int64_t write_fully(int fd, const uint8_t *bytes, size_t n, off_t offset);
int64_t list_names(const char *path, const char *prefix, struct result *r);
int64_t execute_shared(struct side *side, const struct item *item, struct result *r);

#endif
