// SPDX-License-Identifier: Apache-2.0
#include "base/similar.h"

#include <string.h>

// Longer words are not compared.
#define WORD_MAX     63u
#define DISTANCE_MAX 2u

static size_t
least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t
similar_distance(const char *a, const char *b, size_t most)
{
    size_t row[WORD_MAX + 1];
    size_t n = strlen(a);
    size_t m = strlen(b);
    if (n > WORD_MAX || m > WORD_MAX)
        return most + 1;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    // row[j]: the distance of the first i characters of `a` and the first j of `b`.
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = least(replaced, least(row[j], row[j - 1]) + 1);
        }
    }
    return row[m];
}

// Above DISTANCE_MAX: not similar.
static size_t
score(const char *word, const char *candidate)
{
    size_t n = strlen(word);
    if (n >= 2 && strncmp(word, candidate, n) == 0)
        return 1;
    size_t distance = similar_distance(word, candidate, DISTANCE_MAX);
    return 2 * distance <= n ? distance : DISTANCE_MAX + 1;
}

const char *
similar_word(const char *word, const char *candidate, const char *best)
{
    size_t mine = score(word, candidate);
    if (mine > DISTANCE_MAX || (best && score(word, best) <= mine))
        return best;
    return candidate;
}
