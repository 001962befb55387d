// SPDX-License-Identifier: Apache-2.0
#include "fake_kernel.h"

#include <pthread.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

bool fake_loses_answers;

void
fake_request(struct fuse_req *r, struct fs *fs, uid_t uid)
{
    memset(r, 0, sizeof(*r));
    r->fs = fs;
    r->ctx = (struct fuse_ctx){.uid = uid, .gid = uid, .pid = 1};
}

int
fake_answer(struct fuse_req *r)
{
    pthread_mutex_lock(&lock);
    while (!r->done)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return r->error;
}

static int
answer(struct fuse_req *r, int error, const void *data, size_t n)
{
    pthread_mutex_lock(&lock);
    if (r->done || n > sizeof(r->data))
        abort();
    if (n > 0)
        memcpy(r->data, data, n);
    r->length = n;
    r->error = error;
    r->done = true;
    int rc = fake_loses_answers ? -ENOENT : 0;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return rc;
}

// ---- libfuse ------------------------------------------------------------------------------------

void *
fuse_req_userdata(fuse_req_t req)
{
    return req->fs;
}

const struct fuse_ctx *
fuse_req_ctx(fuse_req_t req)
{
    return &req->ctx;
}

int
fuse_req_getgroups(fuse_req_t req, int size UNUSED, gid_t list[] UNUSED)
{
    return req->ctx.uid == 0 ? 0 : -EPERM;
}

void
fuse_req_interrupt_func(
    fuse_req_t req UNUSED, fuse_interrupt_func_t function UNUSED, void *data UNUSED)
{
}

int
fuse_reply_err(fuse_req_t req, int error)
{
    return answer(req, error, NULL, 0);
}

void
fuse_reply_none(fuse_req_t req)
{
    (void)answer(req, 0, NULL, 0);
}

int
fuse_reply_ioctl(fuse_req_t req, int result, const void *data, size_t n)
{
    return answer(req, result, data, n);
}

int
fuse_reply_buf(fuse_req_t req, const char *data, size_t n)
{
    return answer(req, 0, data, n);
}

int
fuse_reply_readlink(fuse_req_t req, const char *target)
{
    return answer(req, 0, target, strlen(target) + 1);
}

int
fuse_reply_entry(fuse_req_t req, const struct fuse_entry_param *entry)
{
    req->entry = *entry;
    return answer(req, 0, NULL, 0);
}

int
fuse_reply_attr(fuse_req_t req, const struct stat *attributes, double timeout UNUSED)
{
    req->attributes = *attributes;
    return answer(req, 0, NULL, 0);
}

int
fuse_reply_open(fuse_req_t req, const struct fuse_file_info *fi UNUSED)
{
    return answer(req, 0, NULL, 0);
}

int
fuse_reply_xattr(fuse_req_t req, size_t n)
{
    req->number = n;
    return answer(req, 0, NULL, 0);
}

int
fuse_reply_lseek(fuse_req_t req, off_t offset)
{
    req->number = (uint64_t)offset;
    return answer(req, 0, NULL, 0);
}
