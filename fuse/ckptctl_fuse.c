// SPDX-License-Identifier: Apache-2.0
// The counters of FUSE requests. The opcodes are the kernel's; newer ones than the headers know
// have a number here.
#include <inttypes.h>
#include <linux/fuse.h>
#include <stdio.h>

#include "base/json_writer.h"
#include "fuse/ckptctl.h"

#define OPCODE_TMPFILE 51
#define OPCODE_STATX   52

static const char *const names[CKPTFS_FUSE_OPCODES] = {
    [0] = "OTHER",
    [FUSE_LOOKUP] = "LOOKUP",
    [FUSE_FORGET] = "FORGET",
    [FUSE_GETATTR] = "GETATTR",
    [FUSE_SETATTR] = "SETATTR",
    [FUSE_READLINK] = "READLINK",
    [FUSE_SYMLINK] = "SYMLINK",
    [FUSE_MKNOD] = "MKNOD",
    [FUSE_MKDIR] = "MKDIR",
    [FUSE_UNLINK] = "UNLINK",
    [FUSE_RMDIR] = "RMDIR",
    [FUSE_RENAME] = "RENAME",
    [FUSE_LINK] = "LINK",
    [FUSE_OPEN] = "OPEN",
    [FUSE_READ] = "READ",
    [FUSE_WRITE] = "WRITE",
    [FUSE_STATFS] = "STATFS",
    [FUSE_RELEASE] = "RELEASE",
    [FUSE_FSYNC] = "FSYNC",
    [FUSE_SETXATTR] = "SETXATTR",
    [FUSE_GETXATTR] = "GETXATTR",
    [FUSE_LISTXATTR] = "LISTXATTR",
    [FUSE_REMOVEXATTR] = "REMOVEXATTR",
    [FUSE_FLUSH] = "FLUSH",
    [FUSE_INIT] = "INIT",
    [FUSE_OPENDIR] = "OPENDIR",
    [FUSE_READDIR] = "READDIR",
    [FUSE_RELEASEDIR] = "RELEASEDIR",
    [FUSE_FSYNCDIR] = "FSYNCDIR",
    [FUSE_GETLK] = "GETLK",
    [FUSE_SETLK] = "SETLK",
    [FUSE_SETLKW] = "SETLKW",
    [FUSE_ACCESS] = "ACCESS",
    [FUSE_CREATE] = "CREATE",
    [FUSE_INTERRUPT] = "INTERRUPT",
    [FUSE_BMAP] = "BMAP",
    [FUSE_DESTROY] = "DESTROY",
    [FUSE_IOCTL] = "IOCTL",
    [FUSE_POLL] = "POLL",
    [FUSE_NOTIFY_REPLY] = "NOTIFY_REPLY",
    [FUSE_BATCH_FORGET] = "BATCH_FORGET",
    [FUSE_FALLOCATE] = "FALLOCATE",
    [FUSE_READDIRPLUS] = "READDIRPLUS",
    [FUSE_RENAME2] = "RENAME2",
    [FUSE_LSEEK] = "LSEEK",
    [FUSE_COPY_FILE_RANGE] = "COPY_FILE_RANGE",
    [FUSE_SETUPMAPPING] = "SETUPMAPPING",
    [FUSE_REMOVEMAPPING] = "REMOVEMAPPING",
    [FUSE_SYNCFS] = "SYNCFS",
    [OPCODE_TMPFILE] = "TMPFILE",
    [OPCODE_STATX] = "STATX",
};

const char *
print_opcode(size_t opcode, char text[32])
{
    if (names[opcode])
        return names[opcode];
    snprintf(text, 32, "OPCODE_%zu", opcode);
    return text;
}

static uint64_t
sum_of(const struct ckptfs_fuse_requests *r)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < CKPTFS_FUSE_OPCODES; i++)
        sum += r->requests[i];
    return sum;
}

void
print_fuse_requests(const struct ckptfs_fuse_requests *r, struct buffer *out)
{
    char text[32];
    for (size_t i = 0; i < CKPTFS_FUSE_OPCODES; i++)
        if (r->requests[i] > 0)
            buffer_printf(
                out, "%-16s %12" PRIu64 "\n", print_opcode(i, text), (uint64_t)r->requests[i]);
    buffer_printf(out, "%-16s %12" PRIu64 "\n", "all", sum_of(r));
}

// Names without a request are printed too, so that programs find each name.
void
print_fuse_requests_json(const struct ckptfs_fuse_requests *r, struct buffer *out)
{
    struct json_writer w = {.out = out};
    char text[32];
    write_json_begin_object(&w, NULL);
    for (size_t i = 0; i < CKPTFS_FUSE_OPCODES; i++)
        if (names[i] || r->requests[i] > 0)
            write_json_u64(&w, print_opcode(i, text), r->requests[i]);
    write_json_u64(&w, "all", sum_of(r));
    write_json_end_object(&w);
    buffer_append_u8(out, '\n');
}
