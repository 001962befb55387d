// SPDX-License-Identifier: Apache-2.0
// Hostile changes. The first byte of an input chooses what the others are:
//     0  changes as they are
//     1  one change whose length is made right
// What decodes must be the only way to write what it says.
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>

#include "platform/memory.h"
#include "tests/unit/manifest_samples.h"

// Not an assert: it must hold in builds without them.
#define MUST_HOLD(condition)                                                                       \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

#define CHANGE_HEADER_BYTES 8u

// Reads everything a change points to, so that a sanitizer sees it.
static void
touch(const struct change *c, struct buffer *again)
{
    buffer_clear(again);
    change_encode(c, again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    // A copy of exactly the size.
    size_t length = n - 1;
    uint8_t *p = memory_alloc(length ? length : 1);
    memcpy(p, data + 1, length);
    if (data[0] % 2 == 1 && length >= CHANGE_HEADER_BYTES)
        put_le32(p + 4, (uint32_t)(length - CHANGE_HEADER_BYTES));
    BUFFER_AUTO again = {0};
    struct byte_reader r = byte_reader_over(p, length);
    while (byte_reader_left(&r) > 0) {
        const uint8_t *start = r.next;
        struct change c;
        int rc = change_decode(&r, &c);
        MUST_HOLD(rc == 0 || rc == -EBADMSG || rc == -ENOTSUP);
        if (rc < 0)
            break;
        MUST_HOLD(change_is_valid(&c));
        touch(&c, &again);
        MUST_HOLD((size_t)(r.next - start) == again.length);
        MUST_HOLD(memcmp(start, again.data, again.length) == 0);
    }
    free(p);
    return 0;
}

bool
fuzz_seed(unsigned which, struct buffer *input_out)
{
    struct change samples[SAMPLE_CHANGES];
    size_t count = sample_changes(samples);
    if (which >= 2 * count)
        return false;
    buffer_append_u8(input_out, (uint8_t)(which >= count));
    change_encode(&samples[which % count], input_out);
    if (which < count)
        change_encode(&samples[(which + 1) % count], input_out);
    return true;
}
