// SPDX-License-Identifier: Apache-2.0
// The directory in which a directory stands, for file handles: the kernel that has a directory's
// handle, and has forgotten the directory, asks for its parent. It is an item of the inode's
// extension area, so it goes where the inode goes. Only directories have one. The root has none,
// nor has a directory that a program made which did not know the item.
//
//     type 2, length 8
//     object number u64 of the parent, not 0
//
// A program that does not know the item leaves it as it is when it moves the directory. The kernel
// looks for the directory's name in the parent, so a wrong parent is a stale handle and nothing
// worse. Pure.
#ifndef CKPTFS_FORMAT_PARENT_H
#define CKPTFS_FORMAT_PARENT_H

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"

#define PARENT_EXTENSION 2u // the item's type

// From an inode's extension area: 0; -ENOENT without an item; -EBADMSG.
MUST_CHECK int parent_decode(const void *area, size_t length, struct object_id *parent_out);
// The extension area with this instead of the item that it had; `area_out` is cleared first.
void parent_replace(
    const void *area, size_t length, struct object_id parent, struct buffer *area_out);

#endif
