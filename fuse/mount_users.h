// SPDX-License-Identifier: Apache-2.0
// Finds the users of a file system, by the mount tables and open files of all processes in /proc.
// Nothing here sends a request to the file system itself, so a daemon may ask about its own.
#ifndef CKPTFS_FUSE_MOUNT_USERS_H
#define CKPTFS_FUSE_MOUNT_USERS_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/buffer.h"

// Whether the file system is mounted anywhere in this process's mount namespace. True when the
// table cannot be read.
bool mount_users_is_mounted(dev_t device);

// The device of the file system at `path`; 0 when there is none. Never waits for a file system.
dev_t mount_users_device_of(const char *path);

// Appends the users of the file system: processes in other mount namespaces that mount it, with the
// place, and processes that have files of it open. At most MOUNT_USERS_MAX of them. Appends nothing
// when it finds none (or /proc does not show them to this user).
#define MOUNT_USERS_MAX 8
void mount_users_describe(dev_t device, struct buffer *out);

#endif
