// SPDX-License-Identifier: Apache-2.0
// The ioctls that the daemon knows: one table, and one place that checks what a caller passes.
//
// The dispatcher (fs_ioctl) copies the argument into a struct ioctl_request, and calls the
// command's function only when the argument is as long as the table says, has the version of the
// ABI, and comes from somebody who may use the command. Each function checks the fields of its own
// struct, and puts its answer in their place.
#ifndef CKPTFS_FUSE_IOCTL_TABLE_H
#define CKPTFS_FUSE_IOCTL_TABLE_H

#include <linux/fs.h>
#include <stddef.h>

#include "fuse/fs_ops.h"

union ioctl_argument {
    __u32 version; // every struct of ckptfs_ioctl.h begins with it
    struct ckptfs_checkpoint checkpoint;
    struct ckptfs_status status;
    struct ckptfs_metrics metrics;
    struct ckptfs_check check;
    struct ckptfs_operation operation;
    struct ckptfs_report report;
    struct ckptfs_lost lost;
    struct ckptfs_fuse_requests fuse_requests;
    struct ckptfs_truncate truncate;
    struct ckptfs_variant variant;
    struct ckptfs_job job;
    struct ckptfs_flags flags;
    struct ckptfs_changes changes;
    struct ckptfs_hydrate hydrate;
    struct ckptfs_limits limits;
    struct ckptfs_fetch fetch;
    // Of the kernel's own commands.
    uint32_t word;
    struct fsxattr fsxattr;
};

struct ioctl_request {
    fuse_req_t req;
    fuse_ino_t ino;
    const struct fuse_file_info *fi; // of the file that is open; may be NULL
    union ioctl_argument io;         // behind the bytes that the caller passed it is zero
};

// The function answers the request itself, or another thread does.
#define IOCTL_LATER 1

enum ioctl_user {
    IOCTL_ANYONE,     // who has the file open
    IOCTL_FILE_OWNER, // the owner of the file, and operators
    IOCTL_OPERATOR,   // root and the owner of the root directory
};

struct ioctl_entry {
    unsigned command;
    size_t in;  // bytes that the function needs
    size_t out; // bytes of the answer
    enum ioctl_user user;
    bool needs_file; // an open regular file
    // 0, and the answer is in `io`; IOCTL_LATER; or -errno.
    int (*run)(struct ioctl_request *r);
};

// NULL: the daemon does not know the command.
const struct ioctl_entry *ioctl_table_find(unsigned command);
// The whole table, for tests.
const struct ioctl_entry *ioctl_table_all(size_t *count_out);

// ---- for the functions --------------------------------------------------------------------------

// 0 when the caller is an operator; else -EPERM or another error.
int ioctl_check_operator(fuse_req_t req);
// 0 when the caller is an operator or owns the file.
int ioctl_check_owner(const struct ioctl_request *r);
bool ioctl_is_zero(const void *p, size_t n);
// The field and all that follows it in the struct are zero.
#define IOCTL_REST_IS_ZERO(in, field)                                                              \
    ioctl_is_zero(&(in)->field, sizeof(*(in)) - offsetof(__typeof__(*(in)), field))

int ioctl_checkpoint(struct ioctl_request *r);
int ioctl_status(struct ioctl_request *r);
int ioctl_metrics(struct ioctl_request *r);
int ioctl_check(struct ioctl_request *r);
int ioctl_operation(struct ioctl_request *r);
int ioctl_report(struct ioctl_request *r);
int ioctl_lost(struct ioctl_request *r);
int ioctl_fuse_requests(struct ioctl_request *r);

int ioctl_truncate(struct ioctl_request *r);
int ioctl_variant(struct ioctl_request *r);
int ioctl_job(struct ioctl_request *r);
int ioctl_flags(struct ioctl_request *r);
int ioctl_changes(struct ioctl_request *r);
int ioctl_hydrate(struct ioctl_request *r);

int ioctl_limits(struct ioctl_request *r);
int ioctl_fetch(struct ioctl_request *r);

// Those of chattr and lsattr, and of the kernel's interface to flags in general.
int ioctl_get_file_flags(struct ioctl_request *r);
int ioctl_set_file_flags(struct ioctl_request *r);
int ioctl_get_extended_flags(struct ioctl_request *r);
int ioctl_set_extended_flags(struct ioctl_request *r);
int ioctl_get_node_generation(struct ioctl_request *r);

#endif
