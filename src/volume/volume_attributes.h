// SPDX-License-Identifier: Apache-2.0
#ifndef CKPTFS_VOLUME_VOLUME_ATTRIBUTES_H
#define CKPTFS_VOLUME_VOLUME_ATTRIBUTES_H

#include "volume/volume.h"

// Fills in the attributes that programs see: the inode, a directory's size, and the blocks, for
// which it looks at the chunks. 0 or -errno. Hold no locks.
MUST_CHECK int volume_fill_attributes(struct volume *v, struct object_id object,
    const struct inode_record *inode, struct volume_attributes *attributes_out);

#endif
