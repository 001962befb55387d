// SPDX-License-Identifier: Apache-2.0
// What a fuzz target provides. It links with fuzz_main.c for `make check`, or with libFuzzer:
//     clang -fsanitize=fuzzer,address,undefined -Isrc -I. tests/fuzz/fuzz_X.c SOURCES LIBRARIES
#ifndef CKPTFS_TESTS_FUZZ_H
#define CKPTFS_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

// Feeds one input to the code under test; aborts when a promise is broken. Returns 0. Keeps no
// state from one input to the next.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

// Appends valid input number `which` (from 0 on) to mutate from; false when there are no more.
bool fuzz_seed(unsigned which, struct buffer *input_out);

#endif
