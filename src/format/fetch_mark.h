// SPDX-License-Identifier: Apache-2.0
// The mark of files that are read as cold scans (doc/cold_reads.md), and of directories whose new
// files and directories get it. It is an item of the inode's extension area, beside the extended
// attribute FETCH_MARK_XATTR, so that opening a file need not look for that one.
//
//     type 3, length 1 or more
//     u8   FETCH_MARK_*
//     ...  bytes of newer programs
//
// Newer programs may use other bits, and bytes behind the first. A program passes on those that it
// does not know: when it changes the mark, and to what is made in a marked directory. An item whose
// bytes are all 0 is left out.
//
// Pure.
#ifndef CKPTFS_FORMAT_FETCH_MARK_H
#define CKPTFS_FORMAT_FETCH_MARK_H

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

#define FETCH_MARK_EXTENSION 3u // the item's type
#define FETCH_MARK_COLD_SCAN (1u << 0)

#define FETCH_MARK_XATTR "user.ckptfs.cold_scan"

// From an inode's extension area, which is valid: the first byte; 0 without an item.
uint8_t fetch_mark_decode(const void *area, size_t length);
// The extension area with these bits of the first byte set, and those cleared; all else as it was.
// `area_out` is cleared first.
void fetch_mark_change(
    const void *area, size_t length, uint8_t set, uint8_t cleared, struct buffer *area_out);
// The extension area of something new with the item of its directory, whose area is `parent`.
void fetch_mark_inherit(const void *parent, size_t parent_length, const void *area, size_t length,
    struct buffer *area_out);

#endif
