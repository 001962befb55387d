// SPDX-License-Identifier: Apache-2.0
// The place where the volume is mounted.
#ifndef CKPTFS_FUSE_MOUNT_H
#define CKPTFS_FUSE_MOUNT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "platform/lock.h"

struct mount {
    char *path; // absolute, without symbolic links
    struct lock lock;
    struct condition idle; // `syncing` has become 0
    // The lock protects:
    bool serving;     // requests are answered: the mount may be used from within the daemon
    unsigned syncing; // threads in mount_sync_kernel
    dev_t device;     // of our mount
};

// Finds the directory, and takes away a mount of ours on it whose daemon is dead. -errno and a text
// for the user.
MUST_CHECK int mount_open(struct mount *m, const char *path, struct buffer *error);
void mount_close(struct mount *m);

// Waits until the new mount answers; 0 or -errno.
MUST_CHECK int mount_begin_serving(struct mount *m);
// Lets the kernel read ahead up to so many bytes, if it does less and the process may say so.
// Without that it asks for 128 KiB at most, though a request could hold 1 MiB.
void mount_raise_readahead(struct mount *m, uint64_t bytes);
// From now on nobody enters the mount from within the daemon. Those who are inside come out when
// the session is closed at the latest: mount_wait_idle.
void mount_end_serving(struct mount *m);
void mount_wait_idle(struct mount *m);

// For struct volume_host: `argument` is the mount. 0 without doing anything when it is not served.
MUST_CHECK int mount_sync_kernel(void *argument);

// umount(8) of our own mount; -EBUSY when it is in use. 0 when it is not there.
MUST_CHECK int mount_unmount(struct mount *m);

#endif
