// SPDX-License-Identifier: Apache-2.0
// Stores for random histories: the server's clock is the test's, wherever the objects lie.
#ifndef CKPTFS_TESTS_HISTORY_STORE_H
#define CKPTFS_TESTS_HISTORY_STORE_H

#include "store/remote_store.h"

enum history_backend { IN_MEMORY, IN_FILES, IN_S3 };

// A store for memory_store_pass. IN_FILES: below `directory`. IN_S3: where tests/with-s3 says, and
// below a prefix of its own.
struct remote_store *history_store_open(enum history_backend backend, const char *directory);

#endif
