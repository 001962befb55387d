// SPDX-License-Identifier: Apache-2.0
// Access lists. The kernel checks permissions by them (FUSE_POSIX_ACL); the volume keeps them,
// hands them down, and holds them in step with the mode.
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "format/access_list.h"
#include "platform/log.h"
#include "volume/volume_internal.h"

void
inherited_lists_free(struct inherited_lists *lists)
{
    buffer_free(&lists->access);
    buffer_free(&lists->defaults);
}

struct change
change_put_xattr(struct object_id object, const char *name, const void *value, size_t size)
{
    struct change c = {.kind = CHANGE_PUT_XATTR};
    c.xattr = (struct xattr_record){
        .object = object,
        .name_length = (uint8_t)strlen(name),
        .name = name,
        .value_length = (uint32_t)size,
        .value = value,
    };
    return c;
}

static struct change
change_delete_xattr(struct object_id object, const char *name)
{
    struct change c = {.kind = CHANGE_DELETE_XATTR};
    c.xattr =
        (struct xattr_record){.object = object, .name_length = (uint8_t)strlen(name), .name = name};
    return c;
}

static int
view_access_list(
    struct view *view, struct object_id object, const char *name, struct access_list *list_out)
{
    struct xattr_record x;
    int rc = view_xattr(view, object, name, &x);
    if (rc < 0)
        return rc;
    rc = access_list_decode(x.value, x.value_length, list_out);
    if (rc == 0)
        return 0;
    log_error("volume.access_list", "object %llu: its %s is no access list",
        (unsigned long long)object.v, name);
    return -EIO;
}

int
acl_inherit(struct view *view, struct object_id parent, uint32_t umask, uint32_t *mode,
    struct inherited_lists *lists)
{
    struct access_list list;
    buffer_clear(&lists->access);
    buffer_clear(&lists->defaults);
    if (S_ISLNK(*mode))
        return 0;
    int rc = view_access_list(view, parent, XATTR_DEFAULT_ACCESS_LIST, &list);
    if (rc == -ENOENT) {
        *mode &= ~(umask & 0777u);
        return 0;
    }
    if (rc < 0)
        return rc;
    if (S_ISDIR(*mode))
        access_list_encode(&list, &lists->defaults);
    if (access_list_inherit(&list, mode))
        access_list_encode(&list, &lists->access);
    return 0;
}

int
acl_follow_mode(struct view *view, struct object_id object, uint32_t mode, struct buffer *list_out)
{
    struct access_list list;
    buffer_clear(list_out);
    int rc = view_access_list(view, object, XATTR_ACCESS_LIST, &list);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    access_list_from_mode(&list, mode);
    access_list_encode(&list, list_out);
    return 0;
}

// ---- setting ------------------------------------------------------------------------------------

struct set_list {
    struct object_id object;
    const char *name;
    const void *value;
    size_t size;
    bool access; // else the default list
    bool clear_sgid;
    struct access_list list;
};

// The change of the attribute: the volume does not store a list that the mode can express.
static int
put_list(struct view *view, struct operation *op, const struct set_list *x, bool keep)
{
    struct xattr_record old;
    if (keep) {
        op->changes[op->count++] = change_put_xattr(x->object, x->name, x->value, x->size);
        return 0;
    }
    int rc = view_xattr(view, x->object, x->name, &old);
    if (rc == 0)
        op->changes[op->count++] = change_delete_xattr(x->object, x->name);
    return rc == -ENOENT ? 0 : rc;
}

static int
decide_set_list(struct view *view, struct operation *op)
{
    const struct set_list *x = op->argument;
    struct inode_record inode;
    bool keep = true;
    int rc = view_inode(view, x->object, &inode);
    if (rc < 0)
        return rc;
    if (is_fixed(&inode))
        return -EPERM;
    if (S_ISLNK(inode.mode))
        return -EOPNOTSUPP;
    if (!x->access && !S_ISDIR(inode.mode))
        return -EACCES;
    if (x->access)
        keep = access_list_to_mode(&x->list, &inode.mode);
    if (x->clear_sgid)
        inode.mode &= ~(uint32_t)S_ISGID;
    rc = put_list(view, op, x, keep);
    if (rc < 0)
        return rc;
    inode.ctime = volume_now();
    op->changes[op->count++] = change_put_inode(x->object, &inode);
    return 0;
}

int
volume_set_access_list(struct volume *v, struct object_id object, const char *name,
    const void *value, size_t size, bool clear_sgid)
{
    struct set_list x = {
        .object = object,
        .name = name,
        .value = value,
        .size = size,
        .access = strcmp(name, XATTR_ACCESS_LIST) == 0,
        .clear_sgid = clear_sgid,
    };
    int rc = access_list_decode(value, size, &x.list);
    if (rc < 0)
        return rc;
    struct operation op = {
        .decide = decide_set_list, .argument = &x, .extra_bytes = (uint32_t)size};
    return volume_operate(v, &op);
}
