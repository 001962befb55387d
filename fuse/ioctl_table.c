// SPDX-License-Identifier: Apache-2.0
#include "fuse/ioctl_table.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fuse/snapshot_ops.h"

#define OURS(number, name, user, needs_file)                                                       \
    {                                                                                              \
        CKPTFS_IOC_##number, sizeof(struct ckptfs_##name), sizeof(struct ckptfs_##name), user,     \
            needs_file, ioctl_##name                                                               \
    }

// The kernel's restricted mode copies the argument by the size in the command number: a struct of
// another size is another command, and so ENOTTY. The numbers of the kernel's own commands for
// flags and generations say "long", but programs pass an int. The kernel copies in as many bytes as
// the number says, and out as many as the answer has: never more than an int.
static const struct ioctl_entry table[] = {
    OURS(CHECKPOINT, checkpoint, IOCTL_OPERATOR, false),
    OURS(STATUS, status, IOCTL_OPERATOR, false),
    OURS(METRICS, metrics, IOCTL_OPERATOR, false),
    OURS(CHECK, check, IOCTL_OPERATOR, false),
    OURS(OPERATION, operation, IOCTL_OPERATOR, false),
    OURS(REPORT, report, IOCTL_OPERATOR, false),
    OURS(LOST, lost, IOCTL_OPERATOR, false),
    OURS(FUSE, fuse_requests, IOCTL_OPERATOR, false),
    OURS(TRUNCATE, truncate, IOCTL_FILE_OWNER, false),
    OURS(VARIANT, variant, IOCTL_FILE_OWNER, false),
    OURS(JOB, job, IOCTL_OPERATOR, false),
    OURS(FLAGS, flags, IOCTL_OPERATOR, false),
    OURS(CHANGES, changes, IOCTL_OPERATOR, false),
    // Like eviction, it takes disk space and requests from all.
    OURS(HYDRATE, hydrate, IOCTL_OPERATOR, false),
    OURS(LIMITS, limits, IOCTL_OPERATOR, false),
    OURS(FETCH, fetch, IOCTL_ANYONE, true),
    {FS_IOC_GETFLAGS, 0, sizeof(uint32_t), IOCTL_ANYONE, false, ioctl_get_file_flags},
    {FS_IOC_SETFLAGS, sizeof(uint32_t), 0, IOCTL_ANYONE, false, ioctl_set_file_flags},
    {FS_IOC_FSGETXATTR, 0, sizeof(struct fsxattr), IOCTL_ANYONE, false, ioctl_get_extended_flags},
    {FS_IOC_FSSETXATTR, sizeof(struct fsxattr), 0, IOCTL_ANYONE, false, ioctl_set_extended_flags},
    {FS_IOC_GETVERSION, 0, sizeof(uint32_t), IOCTL_ANYONE, false, ioctl_get_node_generation},
};

const struct ioctl_entry *
ioctl_table_find(unsigned command)
{
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++)
        if (table[i].command == command)
            return &table[i];
    return NULL;
}

const struct ioctl_entry *
ioctl_table_all(size_t *count_out)
{
    *count_out = ARRAY_LENGTH(table);
    return table;
}

bool
ioctl_is_zero(const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        if (b[i] != 0)
            return false;
    return true;
}

int
ioctl_check_operator(fuse_req_t req)
{
    uid_t uid = fuse_req_ctx(req)->uid;
    struct volume_attributes root;
    if (uid == 0)
        return 0;
    int rc = volume_get_attributes(fs_of(req)->volume, OBJECT_ROOT_DIRECTORY, &root);
    if (rc != 0)
        return rc;
    return root.inode.uid == uid ? 0 : -EPERM;
}

int
ioctl_check_owner(const struct ioctl_request *r)
{
    struct volume_attributes a;
    if (ioctl_check_operator(r->req) == 0)
        return 0;
    int rc = volume_get_attributes(fs_of(r->req)->volume, object_of(r->ino), &a);
    if (rc != 0)
        return rc;
    return a.inode.uid == fuse_req_ctx(r->req)->uid ? 0 : -EPERM;
}

static int
check_user(const struct ioctl_entry *e, const struct ioctl_request *r)
{
    switch (e->user) {
    case IOCTL_OPERATOR:
        return ioctl_check_operator(r->req);
    case IOCTL_FILE_OWNER:
        return ioctl_check_owner(r);
    case IOCTL_ANYONE:
        break;
    }
    return 0;
}

static int
check_file(const struct ioctl_request *r)
{
    struct volume_attributes a;
    int rc = volume_get_attributes(fs_of(r->req)->volume, object_of(r->ino), &a);
    if (rc != 0)
        return rc;
    if (!S_ISREG(a.inode.mode))
        return S_ISDIR(a.inode.mode) ? -EISDIR : -EBADF;
    return r->fi && r->fi->fh != 0 ? 0 : -EBADF;
}

static int
check(const struct ioctl_entry *e, const struct ioctl_request *r, size_t in_size, size_t out_size)
{
    if (in_size < e->in || out_size < e->out)
        return -EINVAL;
    int rc = check_user(e, r);
    if (rc != 0)
        return rc;
    if (_IOC_TYPE(e->command) == _IOC_TYPE(CKPTFS_IOC_STATUS) &&
        r->io.version != CKPTFS_ABI_VERSION)
        return -EINVAL;
    return e->needs_file ? check_file(r) : 0;
}

void
fs_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void *argument UNUSED,
    struct fuse_file_info *fi, unsigned flags UNUSED, const void *in, size_t in_size,
    size_t out_size)
{
    struct ioctl_request r = {.req = req, .ino = ino, .fi = fi};
    if (UNLIKELY(snapshot_node_is(ino))) {
        snapshot_ops_ioctl(req, ino, command, out_size);
        return;
    }
    const struct ioctl_entry *e = ioctl_table_find(command);
    if (!e) {
        fs_reply_result(req, -ENOTTY);
        return;
    }
    if (in_size >= e->in && e->in > 0)
        memcpy(&r.io, in, e->in);
    int rc = check(e, &r, in_size, out_size);
    if (rc == 0)
        rc = e->run(&r);
    if (rc < 0)
        fs_reply_result(req, rc);
    else if (rc == 0)
        fuse_reply_ioctl(req, 0, e->out > 0 ? &r.io : NULL, e->out);
}
