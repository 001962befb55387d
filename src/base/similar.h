// SPDX-License-Identifier: Apache-2.0
// "Did you mean": which of the words that are known is close to one that is not.
#ifndef CKPTFS_BASE_SIMILAR_H
#define CKPTFS_BASE_SIMILAR_H

#include <stddef.h>

// How many characters must be inserted, removed or replaced to make `b` of `a` (Levenshtein's
// distance); anything above `most` may be told as most + 1.
size_t similar_distance(const char *a, const char *b, size_t most);

// The better of two guesses at what `word` was meant to be: `candidate` when it is close (a
// distance of 2 at most and at most half of the word, or the word begins it) and closer than
// `best`, which may be NULL; else `best`.
const char *similar_word(const char *word, const char *candidate, const char *best);

#endif
