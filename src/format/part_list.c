// SPDX-License-Identifier: Apache-2.0
#include "format/part_list.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/hash_table.h"
#include "platform/memory.h"

#define HEADER_BYTES 32u
#define RUN_BYTES    16u
#define CRC_BYTES    4u
#define RUN_PARTS    32u

struct listed_blob {
    struct hash_node node;
    struct sha256 hash;
    uint32_t index;
};

struct run {
    uint32_t blob, first, count, used;
};

struct part_list {
    struct hash_table blobs;
    struct buffer hashes;
    struct buffer runs; // of struct run
    uint32_t count;
};

struct part_list *
part_list_new(void)
{
    return memory_alloc_zero(sizeof(struct part_list));
}

void
part_list_free(struct part_list *l)
{
    if (!l)
        return;
    HASH_TABLE_FOR_EACH(&l->blobs, n)
    free(CONTAINER_OF(n, struct listed_blob, node));
    hash_table_free(&l->blobs);
    buffer_free(&l->hashes);
    buffer_free(&l->runs);
    free(l);
}

// ---- writing ------------------------------------------------------------------------------------

static uint32_t
index_of(struct part_list *l, const struct sha256 *hash)
{
    struct hash_node *n = hash_table_first(&l->blobs, sha256_key(hash));
    for (; n; n = hash_table_next_same(n)) {
        const struct listed_blob *b = CONTAINER_OF(n, struct listed_blob, node);
        if (sha256_equal(&b->hash, hash))
            return b->index;
    }
    struct listed_blob *b = memory_alloc_zero(sizeof(*b));
    b->hash = *hash;
    b->index = (uint32_t)l->blobs.count;
    hash_table_insert(&l->blobs, &b->node, sha256_key(hash));
    buffer_append(&l->hashes, hash->b, sizeof(hash->b));
    return b->index;
}

void
part_list_append(struct part_list *l, const struct sha256 *hash, uint32_t part, bool used)
{
    uint32_t blob = index_of(l, hash);
    struct run *last = NULL;
    if (l->runs.length > 0)
        last = (struct run *)(void *)(l->runs.data + l->runs.length - sizeof(*last));
    bool goes_on = last && last->blob == blob && last->count < RUN_PARTS && part > last->first &&
                   part - last->first == last->count;
    if (!goes_on) {
        last = (struct run *)(void *)buffer_extend(&l->runs, sizeof(*last));
        *last = (struct run){.blob = blob, .first = part};
    }
    last->used |= (uint32_t)used << last->count;
    last->count++;
    l->count++;
}

uint32_t
part_list_count(const struct part_list *l)
{
    return l->count;
}

void
part_list_encode(const struct part_list *l, uint32_t hand, struct buffer *out)
{
    size_t begin = out->length;
    size_t runs = l->runs.length / sizeof(struct run);
    assert(hand <= l->count);
    buffer_append_le64(out, PART_LIST_MAGIC);
    buffer_append_le16(out, PART_LIST_VERSION);
    buffer_append_le16(out, 0);
    buffer_append_le32(out, PART_LIST_PART_BYTES);
    buffer_append_le32(out, (uint32_t)l->blobs.count);
    buffer_append_le32(out, (uint32_t)runs);
    buffer_append_le32(out, hand);
    buffer_append_le32(out, 0);
    buffer_append(out, l->hashes.data, l->hashes.length);
    for (size_t i = 0; i < runs; i++) {
        struct run r;
        memcpy(&r, l->runs.data + i * sizeof(r), sizeof(r));
        buffer_append_le32(out, r.blob);
        buffer_append_le32(out, r.first);
        buffer_append_le16(out, (uint16_t)r.count);
        buffer_append_le16(out, 0);
        buffer_append_le32(out, r.used);
    }
    buffer_append_le32(out, crc32c(0, out->data + begin, out->length - begin));
}

// ---- reading ------------------------------------------------------------------------------------

struct header {
    uint16_t version, flags;
    uint32_t part_bytes, blobs, runs, hand, reserved;
};

// Whether the bytes are a list at all, of any version: its head and its checksum.
static bool
read_header(const void *p, size_t n, struct header *out)
{
    if (n < HEADER_BYTES + CRC_BYTES)
        return false;
    struct byte_reader r = byte_reader_over(p, n);
    uint64_t magic = read_le64(&r);
    out->version = read_le16(&r);
    out->flags = read_le16(&r);
    out->part_bytes = read_le32(&r);
    out->blobs = read_le32(&r);
    out->runs = read_le32(&r);
    out->hand = read_le32(&r);
    out->reserved = read_le32(&r);
    return magic == PART_LIST_MAGIC &&
           get_le32((const uint8_t *)p + n - CRC_BYTES) == crc32c(0, p, n - CRC_BYTES);
}

static struct run
get_run(const uint8_t *p)
{
    return (struct run){get_le32(p), get_le32(p + 4), get_le16(p + 8), get_le32(p + 12)};
}

static bool
is_sound_run(const uint8_t *p, const struct header *h)
{
    struct run r = get_run(p);
    return r.blob < h->blobs && r.count > 0 && r.count <= RUN_PARTS && get_le16(p + 10) == 0 &&
           r.first <= UINT32_MAX - r.count && (r.count == RUN_PARTS || r.used >> r.count == 0);
}

int
part_list_decode(
    const void *p, size_t n, uint32_t *hand_out, part_list_visit *visit, void *argument)
{
    struct header h;
    uint64_t count = 0;
    *hand_out = 0;
    if (!read_header(p, n, &h))
        return -EBADMSG;
    if (h.version > PART_LIST_VERSION || h.flags != 0)
        return -ENOTSUP;
    uint64_t bytes = HEADER_BYTES + (uint64_t)h.blobs * sizeof(struct sha256) +
                     (uint64_t)h.runs * RUN_BYTES + CRC_BYTES;
    if (h.version != PART_LIST_VERSION || h.part_bytes != PART_LIST_PART_BYTES || h.reserved != 0 ||
        bytes != n)
        return -EBADMSG;
    const uint8_t *hashes = (const uint8_t *)p + HEADER_BYTES;
    const uint8_t *runs = hashes + (size_t)h.blobs * sizeof(struct sha256);
    for (uint32_t i = 0; i < h.runs; i++) {
        if (!is_sound_run(runs + (size_t)i * RUN_BYTES, &h))
            return -EBADMSG;
        count += get_run(runs + (size_t)i * RUN_BYTES).count;
    }
    if (count > UINT32_MAX || h.hand > count)
        return -EBADMSG;
    *hand_out = h.hand;
    for (uint32_t i = 0; i < h.runs; i++) {
        struct run r = get_run(runs + (size_t)i * RUN_BYTES);
        struct sha256 hash;
        memcpy(hash.b, hashes + (size_t)r.blob * sizeof(hash.b), sizeof(hash.b));
        for (uint32_t k = 0; k < r.count; k++)
            visit(argument, &hash, r.first + k, r.used >> k & 1);
    }
    return 0;
}
