// SPDX-License-Identifier: Apache-2.0
#ifndef CKPTFS_VOLUME_VOLUME_ATTRIBUTES_H
#define CKPTFS_VOLUME_VOLUME_ATTRIBUTES_H

#include "format/allocation.h"
#include "volume/volume.h"

// Reads the allocated pages of an inode (format/allocation.h) that the view gave. Call it under the
// lock: the inode's extension area lives no longer.
void volume_see_allocation(const struct inode_record *inode, struct allocation *allocation_out);
// Gives the inode this allocation; the inode's new extension area lies in `area`.
void volume_put_allocation(
    struct inode_record *inode, const struct allocation *allocation, struct buffer *area);

// Fills in the attributes that programs see: the inode, a directory's size, and the blocks, for
// which it looks at the chunks. `allocation` may be NULL: nothing is allocated. 0 or -errno. Hold
// no locks.
MUST_CHECK int volume_fill_attributes(struct volume *v, struct object_id object,
    const struct inode_record *inode, const struct allocation *allocation,
    struct volume_attributes *attributes_out);

#endif
