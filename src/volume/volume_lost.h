// SPDX-License-Identifier: Apache-2.0
// The lost bytes of files (format/records.h: chunk_damage), for status and messages.
#ifndef CKPTFS_VOLUME_VOLUME_LOST_H
#define CKPTFS_VOLUME_VOLUME_LOST_H

#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"

#define VOLUME_LOST_RANGES 16u

struct volume_lost {
    uint64_t ranges, bytes; // of all
    unsigned count;         // of the first ones:
    struct volume_lost_range {
        struct object_id object; // its inode number
        uint64_t offset, length;
    } first[VOLUME_LOST_RANGES];
};

struct manifest_reader;

// As of the local generation. 0 or -errno.
MUST_CHECK int volume_read_lost(
    struct manifest_reader *r, struct db_id db, struct volume_lost *lost_out);

// Appends "12288 bytes of files are lost and cannot be read: inode 5 at 40960 (12288 bytes), ...".
void volume_describe_lost(const struct volume_lost *lost, struct buffer *out);

#endif
