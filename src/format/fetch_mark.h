// SPDX-License-Identifier: Apache-2.0
// The mark of files that are read as cold scans (doc/cold_reads.md), and of directories whose new
// files and directories get it. It is an item of the inode's extension area, beside the extended
// attribute FETCH_MARK_XATTR, so that opening a file need not look for that one.
//
//     type 3, length 1
//     u8   FETCH_MARK_*; unknown bits are passed on
//
// Pure.
#ifndef CKPTFS_FORMAT_FETCH_MARK_H
#define CKPTFS_FORMAT_FETCH_MARK_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

#define FETCH_MARK_EXTENSION 3u // the item's type
#define FETCH_MARK_BYTES     9u // of an item
#define FETCH_MARK_COLD_SCAN (1u << 0)

#define FETCH_MARK_XATTR "user.ckptfs.cold_scan"

// From an inode's extension area, which is valid; 0 without an item.
uint8_t fetch_mark_decode(const void *area, size_t length);
// The extension area with this mark (0: with none); `area_out` is cleared first.
void fetch_mark_replace(const void *area, size_t length, uint8_t mark, struct buffer *area_out);

#endif
