// SPDX-License-Identifier: Apache-2.0
// The device, and the parts of the FUSE protocol that libfuse does not pass on.
//
// FUSE_HANDLE_KILLPRIV_V2: the kernel says in each request whether the daemon has to clear suid and
// sgid bits, and remembers that a file has none; without it, every write(2) asks for the attribute
// security.capability first, which costs a round trip to the daemon.
//
// FUSE_SETXATTR_EXT: the kernel says whether setting an access list clears sgid. libfuse
// before 3.17 gets the request in its shorter form.
//
// FUSE_TMPFILE (O_TMPFILE): has the form of FUSE_CREATE, and libfuse gets it as such.
#ifndef CKPTFS_FUSE_DEVICE_H
#define CKPTFS_FUSE_DEVICE_H

#include <stdbool.h>

#include "base/compiler.h"
#include "fuse/fs.h"

// libfuse can negotiate the first two since 3.17 (fs_ops.c). Before, device_attach adds them to the
// answer to INIT with fuse_session_custom_io, which later versions need not have.
#if defined(FUSE_CAP_SETXATTR_EXT) && defined(FUSE_CAP_HANDLE_KILLPRIV_V2)
#define DEVICE_LIBFUSE_NEGOTIATES
#endif

// Puts this module between libfuse and the device of a session that is mounted and has not served a
// request yet, if libfuse does not negotiate. 0 or -errno.
MUST_CHECK int device_attach(struct fuse_session *session);

// Reads the next request for fuse_session_process_buf. `request` begins as zeros; this function
// allocates its memory and uses it again in the next call; the caller frees it. 1; 0 when the
// session has ended; -EINTR, -EAGAIN: try again; else the error that ended it (logged). Any thread,
// each with a request of its own.
MUST_CHECK int device_receive(
    struct fuse_session *session, struct fs *fs, struct fuse_buf *request);

// Closes the connection of a session whose requests no worker reads any more, without unmounting:
// for a mount that lives on elsewhere, or under another one. fuse_session_unmount then finds that
// the file system is gone, and does not touch the present mount at the place. 0 or -errno.
MUST_CHECK int device_leave(struct fuse_session *session);

// The thread of a program that waits for the last request that the calling thread has read; 0: none
// does, or it is out of sight (another pid namespace).
uint32_t device_request_pid(void);
// Whether the last WRITE, OPEN or CREATE request that the calling thread has read asks the daemon
// to clear suid and sgid. For handlers, before they return.
bool device_request_kills_suid(void);
// Whether the SETXATTR request asks the daemon to clear sgid along with an access list.
bool device_request_clears_sgid(void);
// Whether the CREATE request asks for a file without a name.
bool device_request_is_nameless(void);

#endif
