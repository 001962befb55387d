// SPDX-License-Identifier: Apache-2.0
// The set of hot parts: which parts of a volume's files were in use on the host that has it, the
// hottest ones first. The host writes it to the bucket now and then, and a host that restores the
// volume fetches in that order (doc/cold_reads.md). Nothing depends on it: it is a hint. Bytes:
// doc/format.md. Pure.
#ifndef CKPTFS_FORMAT_HOT_SET_H
#define CKPTFS_FORMAT_HOT_SET_H

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"

#define HOT_PART_PAGES    256u // a part: 1 MiB of a file
#define HOT_LEVEL_MAX     15u
#define HOT_PARTS_MAX     16384u // that a set names
#define HOT_SET_BYTES_MAX 65536u

// Parts of one file that follow each other and are as hot as each other.
struct hot_run {
    struct object_id object;
    uint64_t first; // part
    uint32_t count;
    uint8_t level; // 1 to HOT_LEVEL_MAX, the hottest
};

struct hot_set {
    struct uuid volume;
    uint64_t epoch;               // of the writer
    struct generation generation; // the newest published one then
    struct hot_run *runs; // from the highest level to the lowest, in a level by object and part
    size_t count;
};

void hot_set_free(struct hot_set *s);
uint32_t hot_set_parts(const struct hot_set *s);

// Puts the runs in order, and makes one run of those that follow each other in a level. They name
// no part twice.
void hot_set_settle(struct hot_set *s);

// Appends the set, in HOT_SET_BYTES_MAX bytes at most: the coldest runs that have no room are left
// out. The set has been settled.
void hot_set_encode(const struct hot_set *s, struct buffer *out);
// 0; -ENOTSUP: a newer program wrote it; -EBADMSG: it does not hold together. The caller frees the
// set, also after an error.
MUST_CHECK int hot_set_decode(const void *p, size_t n, struct hot_set *set_out);

#endif
