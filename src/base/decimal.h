// SPDX-License-Identifier: Apache-2.0
// Numbers that people and programs write in decimal digits.
#ifndef CKPTFS_BASE_DECIMAL_H
#define CKPTFS_BASE_DECIMAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

// The whole text is digits, at least one, and their number is at most `most`. strtoull takes blanks
// and signs, too, and turns -1 into the largest number.
MUST_CHECK bool decimal_parse(const char *text, uint64_t most, uint64_t *number_out);

#endif
