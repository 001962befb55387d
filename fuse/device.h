// SPDX-License-Identifier: Apache-2.0
// The device, and the parts of the FUSE protocol that libfuse does not pass on.
//
// FUSE_HANDLE_KILLPRIV_V2: the kernel says in each request whether suid and sgid bits are to be
// cleared, and remembers that a file has none; without it, every write(2) asks for the attribute
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

// Since 3.17 libfuse can be asked for the first two (fs_ops.c). Before, device_attach adds them to
// the answer to INIT; what that takes (fuse_session_custom_io) need not be there in later versions.
#if defined(FUSE_CAP_SETXATTR_EXT) && defined(FUSE_CAP_HANDLE_KILLPRIV_V2)
#define DEVICE_LIBFUSE_NEGOTIATES
#endif

// Puts itself between libfuse and the device of a session that has just been mounted and has not
// served a request yet, where that is needed. 0 or -errno.
MUST_CHECK int device_attach(struct fuse_session *session);

// Reads the next request for fuse_session_process_buf. `request` begins as zeros; its memory is
// allocated here, kept for the next call, and freed by the caller. 1; 0 when the session has ended;
// -EINTR, -EAGAIN: try again; else what ended it (logged). Any thread, each with a request of its
// own.
MUST_CHECK int device_receive(
    struct fuse_session *session, struct fs *fs, struct fuse_buf *request);

// Closes the connection of a session whose requests nobody reads any more, without unmounting: for
// a mount that lives on elsewhere, or under another one. fuse_session_unmount then finds that the
// file system is gone, and leaves alone what is mounted at the place now. 0 or -errno.
MUST_CHECK int device_leave(struct fuse_session *session);

// Whether the WRITE, OPEN or CREATE request that the calling thread has read last asks for suid and
// sgid to be cleared. For handlers, before they return.
bool device_request_kills_suid(void);
// Whether the SETXATTR request asks for sgid to be cleared along with an access list.
bool device_request_clears_sgid(void);
// Whether the CREATE request is to make a file without a name.
bool device_request_is_nameless(void);

#endif
