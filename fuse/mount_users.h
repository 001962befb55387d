// SPDX-License-Identifier: Apache-2.0
// Who still has a file system: the mount tables and open files of all processes, as /proc shows
// them. Nothing here sends a request to the file system itself, so its daemon may ask about its
// own.
#ifndef CKPTFS_FUSE_MOUNT_USERS_H
#define CKPTFS_FUSE_MOUNT_USERS_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/buffer.h"

// Whether the file system is mounted anywhere in this process's mount namespace. True when the
// table cannot be read.
bool mount_users_is_mounted(dev_t device);

// The device of what is reached at `path`; 0 when nothing is. Never waits for a file system.
dev_t mount_users_device_of(const char *path);

// Appends who has the file system: processes in other mount namespaces that mount it, with the
// place, and processes that have something of it open. At most MOUNT_USERS_MAX of them. Appends
// nothing when nobody is found (or /proc does not show it to this user).
#define MOUNT_USERS_MAX 8
void mount_users_describe(dev_t device, struct buffer *out);

#endif
