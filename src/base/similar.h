// SPDX-License-Identifier: Apache-2.0
// "Did you mean": finds a known word that is close to an unknown one.
#ifndef CKPTFS_BASE_SIMILAR_H
#define CKPTFS_BASE_SIMILAR_H

#include <stddef.h>

// The number of characters to insert, remove or replace to make `b` of `a` (Levenshtein's
// distance); most + 1 for any number above `most`.
size_t similar_distance(const char *a, const char *b, size_t most);

// The better of two guesses at the meaning of `word`: `candidate` when it is close (a distance of 2
// at most and at most half of the word, or the word begins it) and closer than `best`, which may be
// NULL; else `best`.
const char *similar_word(const char *word, const char *candidate, const char *best);

#endif
