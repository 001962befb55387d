// SPDX-License-Identifier: Apache-2.0
// Requests to the file system without a kernel: functions of libfuse that take or answer a request
// stand here instead. Each call of a handler with a request of fake_request gives one answer.
#ifndef CKPTFS_TESTS_FAKE_KERNEL_H
#define CKPTFS_TESTS_FAKE_KERNEL_H

#include "unit.h"

#include "fuse/fs_ops.h"

#define FAKE_ANSWER_BYTES 32768u

struct fuse_req {
    struct fs *fs;
    struct fuse_ctx ctx;
    bool done; // changes under the lock of fake_kernel.c
    int error; // positive; 0: the request went well
    struct fuse_entry_param entry;
    struct stat attributes;
    uint64_t number; // an offset, or the size of an extended attribute
    uint8_t data[FAKE_ANSWER_BYTES];
    size_t length;
};

// The requests are gone when they are answered. The answer can be seen all the same.
extern bool fake_loses_answers;

// An empty request of this user.
void fake_request(struct fuse_req *r, struct fs *fs, uid_t uid);
// Waits for the answer; its error.
int fake_answer(struct fuse_req *r);

#endif
