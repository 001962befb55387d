// SPDX-License-Identifier: Apache-2.0
#include "format/blob_internal.h"

#define WORD_BITS 64u

// Bits `from` .. `to` - 1 of one word.
static uint64_t
word_bits(uint32_t from, uint32_t to)
{
    uint64_t high = to == WORD_BITS ? ~(uint64_t)0 : ((uint64_t)1 << to) - 1;
    return high & ~(((uint64_t)1 << from) - 1);
}

void
page_mask_set(struct page_mask *m, uint32_t from, uint32_t to)
{
    assert(from <= to && to <= PAGE_BYTES);
    while (from < to) {
        uint32_t word = from / WORD_BITS;
        uint32_t word_end = (word + 1) * WORD_BITS;
        uint32_t end = to < word_end ? to : word_end;
        m->bits[word] |= word_bits(from - word * WORD_BITS, end - word * WORD_BITS);
        from = end;
    }
}

bool
page_mask_is_full(const struct page_mask *m)
{
    for (size_t i = 0; i < ARRAY_LENGTH(m->bits); i++)
        if (m->bits[i] != ~(uint64_t)0)
            return false;
    return true;
}

bool
page_mask_is_empty(const struct page_mask *m)
{
    for (size_t i = 0; i < ARRAY_LENGTH(m->bits); i++)
        if (m->bits[i] != 0)
            return false;
    return true;
}

// The first bit at or after `at` that is set (or clear, when `flip` is all ones); PAGE_BYTES when
// there is none.
static uint32_t
next_bit(const struct page_mask *m, uint32_t at, uint64_t flip)
{
    while (at < PAGE_BYTES) {
        uint64_t rest = (m->bits[at / WORD_BITS] ^ flip) >> (at % WORD_BITS);
        if (rest != 0)
            return at + (uint32_t)__builtin_ctzll(rest);
        at = (at / WORD_BITS + 1) * WORD_BITS;
    }
    return PAGE_BYTES;
}

bool
page_mask_next_range(const struct page_mask *m, uint32_t at, uint32_t *from_out, uint32_t *to_out)
{
    *from_out = next_bit(m, at, 0);
    *to_out = next_bit(m, *from_out, ~(uint64_t)0);
    return *from_out < PAGE_BYTES;
}

void
page_mask_copy(const struct page_mask *mask, uint8_t *to, const uint8_t *from)
{
    uint32_t begin;
    uint32_t end = 0;
    while (page_mask_next_range(mask, end, &begin, &end))
        memcpy(to + begin, from + begin, end - begin);
}
