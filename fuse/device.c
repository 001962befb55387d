// SPDX-License-Identifier: Apache-2.0
// The protocol: https://www.kernel.org/doc/html/latest/filesystems/fuse.html, <linux/fuse.h>.
// A thread reads a request and handles it before it reads the next one, so the request read last is
// the one being handled.
#define _GNU_SOURCE
#include "fuse/device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "platform/log.h"
#include "platform/memory.h"

// Bytes of a request without the data of a WRITE.
#define REQUEST_HEADERS_MAX 4096u

static __thread bool kills_suid;
static __thread bool clears_sgid;
static __thread bool is_nameless;
static __thread uint32_t caller;
static __thread uint32_t offered; // of WANTED, when the request is INIT

// Flags that libfuse does not negotiate by itself.
#ifdef DEVICE_LIBFUSE_NEGOTIATES
#define WANTED 0u
#else
#define WANTED (FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT)
#endif

// The extended form of a SETXATTR request is so much longer.
#define SETXATTR_EXT_BYTES (sizeof(struct fuse_setxattr_in) - FUSE_COMPAT_SETXATTR_IN_SIZE)

uint32_t
device_request_pid(void)
{
    return caller;
}

bool
device_request_kills_suid(void)
{
    return kills_suid;
}

bool
device_request_clears_sgid(void)
{
    return clears_sgid;
}

bool
device_request_is_nameless(void)
{
    return is_nameless;
}

// The argument of the request, when it is there as a whole.
#define ARGUMENT_OF(request, length, out)                                                          \
    ((length) >= sizeof(struct fuse_in_header) + sizeof(*(out)) &&                                 \
        memcpy((out), (request) + sizeof(struct fuse_in_header), sizeof(*(out))))

// Numbers for people: nothing is ordered by them.
static void
count_request(struct fs *fs, uint32_t opcode)
{
    uint32_t i = opcode < CKPTFS_FUSE_OPCODES ? opcode : 0;
    atomic_fetch_add_explicit(&fs->requests[i], 1, memory_order_relaxed);
}

static void
note_request(struct fs *fs, const uint8_t *request, size_t length)
{
    struct fuse_in_header header;
    struct fuse_write_in write_in;
    struct fuse_open_in open_in;
    struct fuse_create_in create_in;
    // Newer kernels send more than this; the flags stand at the same place since 7.6.
    struct {
        uint32_t major, minor, max_readahead, flags;
    } init_in;
    kills_suid = clears_sgid = is_nameless = false;
    offered = caller = 0;
    if (length < sizeof(header))
        return;
    memcpy(&header, request, sizeof(header));
    caller = header.pid;
    count_request(fs, header.opcode);
    if (header.opcode == FUSE_WRITE && ARGUMENT_OF(request, length, &write_in))
        kills_suid = (write_in.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
    else if (header.opcode == FUSE_OPEN && ARGUMENT_OF(request, length, &open_in))
        kills_suid = (open_in.open_flags & FUSE_OPEN_KILL_SUIDGID) != 0;
    else if (header.opcode == FUSE_CREATE && ARGUMENT_OF(request, length, &create_in))
        kills_suid = (create_in.open_flags & FUSE_OPEN_KILL_SUIDGID) != 0;
    else if (header.opcode == FUSE_INIT && ARGUMENT_OF(request, length, &init_in))
        offered = init_in.flags & WANTED;
}

// Notes the extension of a SETXATTR request, and takes it out where libfuse does not know it; the
// request's new length.
static size_t
adapt_setxattr(uint8_t *request, size_t length)
{
    struct fuse_setxattr_in in;
    struct fuse_in_header header;
    if (!ARGUMENT_OF(request, length, &in))
        return length;
    clears_sgid = (in.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID) != 0;
    if (WANTED == 0)
        return length;
    const size_t kept = sizeof(header) + FUSE_COMPAT_SETXATTR_IN_SIZE;
    memmove(
        request + kept, request + kept + SETXATTR_EXT_BYTES, length - kept - SETXATTR_EXT_BYTES);
    length -= SETXATTR_EXT_BYTES;
    memcpy(&header, request, sizeof(header));
    header.len = (uint32_t)length;
    memcpy(request, &header, sizeof(header));
    return length;
}

// Gives a request the form that libfuse knows; its new length.
static size_t
adapt_request(const struct fs *fs, uint8_t *request, size_t length)
{
    struct fuse_in_header header;
    if (length < sizeof(header))
        return length;
    memcpy(&header, request, sizeof(header));
    if (header.opcode == FUSE_SETXATTR && fs->long_setxattr)
        return adapt_setxattr(request, length);
    if (header.opcode == FUSE_TMPFILE) {
        is_nameless = true;
        header.opcode = FUSE_CREATE;
        memcpy(request, &header, sizeof(header));
    }
    return length;
}

int
device_receive(struct fuse_session *session, struct fs *fs, struct fuse_buf *request)
{
    const size_t size = FS_WRITE_BYTES_MAX + REQUEST_HEADERS_MAX;
    if (!request->mem)
        request->mem = memory_alloc(size);
    ssize_t n;
    do {
        n = read(fuse_session_fd(session), request->mem, size);
    } while (n < 0 && errno == ENOENT); // the request was taken back before it was read
    int error = n < 0 ? errno : n < (ssize_t)sizeof(struct fuse_in_header) ? EIO : 0;
    if (fuse_session_exited(session) || error == ENODEV) { // ENODEV: unmounted, or aborted
        fuse_session_exit(session);
        return 0;
    }
    if (error != 0 && error != EINTR && error != EAGAIN)
        log_error("fuse.device_failed", "cannot read a request: %s", strerror(error));
    if (error != 0)
        return -error;
    note_request(fs, request->mem, (size_t)n);
    request->size = adapt_request(fs, request->mem, (size_t)n);
    return 1;
}

// The descriptor becomes the end of a pipe without a reader. It polls as broken, which is how
// libfuse recognises a connection that has ended; else it would unmount any file system at the
// path.
int
device_leave(struct fuse_session *session)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    close(ends[0]);
    int rc = dup3(ends[1], fuse_session_fd(session), O_CLOEXEC) < 0 ? -errno : 0;
    close(ends[1]);
    return rc;
}

#ifdef DEVICE_LIBFUSE_NEGOTIATES

int
device_attach(struct fuse_session *session UNUSED)
{
    return 0;
}

#else

// The answer to INIT: a header and a fuse_init_out. Accepts the offers.
static void
accept_offers(struct fs *fs, struct iovec *iov, int count)
{
    struct fuse_out_header header;
    uint32_t flags;
    const size_t at = offsetof(struct fuse_init_out, flags);
    const uint32_t accepted = offered;
    offered = 0;
    if (count != 2 || iov[0].iov_len != sizeof(header) || iov[1].iov_len < at + sizeof(flags))
        return;
    memcpy(&header, iov[0].iov_base, sizeof(header));
    if (header.error != 0)
        return;
    memcpy(&flags, (uint8_t *)iov[1].iov_base + at, sizeof(flags));
    flags |= accepted;
    memcpy((uint8_t *)iov[1].iov_base + at, &flags, sizeof(flags));
    fs->told_to_kill_suid = (accepted & FUSE_HANDLE_KILLPRIV_V2) != 0;
    fs->long_setxattr = (accepted & FUSE_SETXATTR_EXT) != 0;
}

static ssize_t
write_reply(int fd, struct iovec *iov, int count, void *userdata)
{
    if (UNLIKELY(offered != 0))
        accept_offers(userdata, iov, count);
    return writev(fd, iov, count);
}

// Never called: device_receive reads.
static ssize_t
read_request(int fd, void *buffer, size_t size, void *userdata UNUSED)
{
    return read(fd, buffer, size);
}

int
device_attach(struct fuse_session *session)
{
    static const struct fuse_custom_io io = {.read = read_request, .writev = write_reply};
    return fuse_session_custom_io(session, &io, fuse_session_fd(session));
}

#endif
