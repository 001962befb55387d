// SPDX-License-Identifier: Apache-2.0
#include "volume/volume_lost.h"

#include "manifest/manifest.h"

// So many ranges are named in a sentence.
#define NAMED_MAX 4u

// A range that goes on in the next chunk counts as one.
static int
add_range(void *argument, const struct chunk_damage *damage)
{
    struct volume_lost *lost = argument;
    uint64_t offset = damage->page.v * PAGE_BYTES;
    uint64_t length = (uint64_t)damage->pages * PAGE_BYTES;
    struct volume_lost_range *last = lost->count > 0 ? &lost->first[lost->count - 1] : NULL;
    lost->bytes += length;
    if (last && lost->ranges == lost->count && last->object.v == damage->object.v &&
        last->offset + last->length == offset) {
        last->length += length;
        return 0;
    }
    lost->ranges++;
    if (lost->count < VOLUME_LOST_RANGES)
        lost->first[lost->count++] = (struct volume_lost_range){damage->object, offset, length};
    return 0;
}

int
volume_read_lost(struct manifest_reader *r, struct db_id db, struct volume_lost *lost_out)
{
    *lost_out = (struct volume_lost){0};
    return manifest_read_all_damage(r, db, add_range, lost_out);
}

void
volume_describe_lost(const struct volume_lost *lost, struct buffer *out)
{
    buffer_printf(
        out, "%llu bytes of files are lost and cannot be read:", (unsigned long long)lost->bytes);
    unsigned named = lost->count < NAMED_MAX ? lost->count : NAMED_MAX;
    for (unsigned i = 0; i < named; i++) {
        const struct volume_lost_range *range = &lost->first[i];
        buffer_printf(out, "%s inode %llu at %llu (%llu bytes)", i > 0 ? "," : "",
            (unsigned long long)range->object.v, (unsigned long long)range->offset,
            (unsigned long long)range->length);
    }
    if (lost->ranges > named)
        buffer_printf(out, " and %llu more ranges", (unsigned long long)(lost->ranges - named));
}
