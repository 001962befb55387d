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
    struct condition idle; // `visitors` has become 0
    // The lock protects:
    bool serving;      // requests are answered: the mount may be used from within the daemon
    unsigned visitors; // threads in mount_flush
    dev_t device;      // of our mount
};

// Finds the directory, and unmounts a ckptfs on it whose daemon is dead. 0, or -errno and a text
// for the user.
MUST_CHECK int mount_open(struct mount *m, const char *path, struct buffer *error);
// Appends a description of the things that a mount at this place hides: another mount, or entries
// of the directory; or nothing.
void mount_describe_hidden(const struct mount *m, struct buffer *out);
void mount_close(struct mount *m);

// Waits until the new mount answers; 0 or -errno.
MUST_CHECK int mount_begin_serving(struct mount *m);
// Lets the kernel read ahead up to `bytes`, if it does less and the process may change that.
// Without it the kernel asks for 128 KiB at most, though a request could hold 1 MiB.
void mount_raise_readahead(struct mount *m, uint64_t bytes);
// mount_end_serving: from now on no thread of the daemon enters the mount. mount_wait_idle waits
// for the threads that are inside; they come out when the session is closed at the latest.
void mount_end_serving(struct mount *m);
void mount_wait_idle(struct mount *m);

// The only generation that a node number has.
#define MOUNT_NODE_GENERATION 1u

// Makes the kernel hand over its dirty pages of the files with these node numbers and waits until
// it has; with `everything`, begins that for all others, too. The first *left_out of `nodes` are
// then those that it cannot reach. 0 without doing anything when the mount is not served. -errno
// when it cannot enter the mount, or the kernel could not write: then a part may be done.
MUST_CHECK int mount_flush(
    struct mount *m, bool everything, uint64_t *nodes, size_t count, size_t *left_out);

// Through the kernel: truncates the file to `offset`, or makes a hole of the bytes before it.
// `name` leads to the file in the root directory. 0; -EAGAIN: the mount is not served, or cannot
// be entered; or the system call's error.
MUST_CHECK int mount_truncate(struct mount *m, const char *name, bool tail, uint64_t offset);

// umount(8) of our own mount; -EBUSY when it is in use. 0 when its path leads elsewhere.
MUST_CHECK int mount_unmount(struct mount *m);

// Whether its path leads to our mount; true also before it has answered for the first time. Neither
// this nor the next one waits for the mount.
bool mount_is_reached(struct mount *m);
// Whether it is in the mount table of this process, perhaps below another mount.
bool mount_is_listed(struct mount *m);
// Appends a sentence: why the file system lives on although it was unmounted, or cannot be.
void mount_describe_users(struct mount *m, struct buffer *out);

#endif
