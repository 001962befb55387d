// SPDX-License-Identifier: Apache-2.0
// Attributes and extended attributes.
#include "volume/volume_attributes.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "format/access_list.h"
#include "format/fetch_mark.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

// Times that are older than the known ones by more than this have not been overtaken on their way:
// a program set them, or the clock was set back.
#define OVERTAKEN_SECONDS 2

// The size of a directory for programs, as on most file systems.
#define DIRECTORY_BYTES 4096u

static int
add_present(void *argument, struct chunk_index index UNUSED, struct chunk_id id UNUSED,
    uint32_t present_pages)
{
    *(uint64_t *)argument += present_pages;
    return 0;
}

void
volume_see_allocation(const struct inode_record *inode, struct allocation *allocation_out)
{
    allocation_out->count = 0;
    // A decoded extension is valid.
    if (inode->extension_length > 0 &&
        allocation_decode(inode->extension, inode->extension_length, allocation_out) < 0)
        allocation_out->count = 0;
}

void
volume_put_allocation(
    struct inode_record *inode, const struct allocation *allocation, struct buffer *area)
{
    allocation_replace(inode->extension, inode->extension_length, allocation, area);
    assert(area->length <= INODE_EXTENSION_BYTES_MAX);
    inode->extension = area->length > 0 ? area->data : NULL;
    inode->extension_length = (uint16_t)area->length;
}

// An upper bound: pages that are folded, dirty or allocated count more than once when they are more
// than one of these, but never more than the object has. Behind its end only allocated pages count.
static int
count_blocks(struct volume *v, struct object_id object, uint64_t size,
    const struct allocation *allocation, uint64_t *blocks_out)
{
    uint64_t pages = 0;
    struct manifest_reader *r;
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc < 0)
        return rc;
    rc =
        manifest_read_object_chunks(r, v->db, object, (struct chunk_index){0}, add_present, &pages);
    manifest_read_end(r);
    if (rc < 0)
        return rc;
    lock_take(&v->lock);
    pages += page_store_dirty_pages_locked(v->pages, object);
    lock_release(&v->lock);
    uint64_t most = pages_of_bytes(size);
    uint64_t behind = 0;
    if (allocation) {
        pages += allocation_pages(allocation, 0, most);
        behind = allocation_pages(allocation, most, UINT64_MAX);
    }
    *blocks_out = ((pages < most ? pages : most) + behind) * (PAGE_BYTES / 512);
    return 0;
}

int
volume_fill_attributes(struct volume *v, struct object_id object, const struct inode_record *inode,
    const struct allocation *allocation, struct volume_attributes *attributes_out)
{
    attributes_out->object = object;
    attributes_out->inode = *inode;
    attributes_out->inode.link_target = NULL;
    attributes_out->inode.extension = NULL;
    attributes_out->inode.extension_length = 0;
    attributes_out->blocks = 0;
    if (S_ISDIR(inode->mode)) {
        attributes_out->inode.size = DIRECTORY_BYTES;
        attributes_out->blocks = DIRECTORY_BYTES / 512;
    }
    bool is_allocated = allocation && allocation->count > 0;
    if (!S_ISREG(inode->mode) || (inode->size == 0 && !is_allocated))
        return 0;
    return count_blocks(v, object, inode->size, allocation, &attributes_out->blocks);
}

struct get {
    struct object_id object;
    struct inode_record inode;
    struct allocation allocation;
};

static int
get_inode(struct view *view, void *argument)
{
    struct get *x = argument;
    int rc = view_inode(view, x->object, &x->inode);
    if (rc == 0)
        volume_see_allocation(&x->inode, &x->allocation);
    x->inode.link_target = NULL;
    return rc;
}

int
volume_get_attributes(
    struct volume *v, struct object_id object, struct volume_attributes *attributes_out)
{
    struct get x = {.object = object};
    int rc = volume_look(v, get_inode, &x);
    return rc < 0 ? rc : volume_fill_attributes(v, object, &x.inode, &x.allocation, attributes_out);
}

// ---- setting ------------------------------------------------------------------------------------

struct set {
    struct object_id object;
    const struct volume_set_attributes *change;
    struct inode_record inode;
    struct allocation allocation;
    struct buffer list; // access list that follows the mode
    struct buffer area; // extension area of which allocated pages were cut off
};

// With the write-back cache the kernel hands over times when it likes, also times from before the
// flags were set: they come without anything else, and are not later than the flags' ctime.
static bool
are_late_times(const struct inode_record *inode, const struct volume_set_attributes *a)
{
    if (!(a->set & VOLUME_SET_CTIME) || (a->set & ~(unsigned)(VOLUME_SET_MTIME | VOLUME_SET_CTIME)))
        return false;
    const struct timestamp *t = &a->ctime, *set = &inode->ctime;
    return t->seconds < set->seconds ||
           (t->seconds == set->seconds && t->nanoseconds <= set->nanoseconds);
}

static int64_t
nanoseconds_between(const struct timestamp *from, const struct timestamp *to)
{
    int64_t seconds = to->seconds - from->seconds;
    if (seconds > OVERTAKEN_SECONDS || seconds < -OVERTAKEN_SECONDS)
        return seconds < 0 ? INT64_MIN : INT64_MAX;
    return seconds * 1000000000 + (int64_t)to->nanoseconds - (int64_t)from->nanoseconds;
}

// The kernel's write-back hands over the times of a file while it changes them elsewhere: the
// request with the older times may be the one that arrives last. The kernel will not send the newer
// ones again.
static bool
are_overtaken_times(const struct inode_record *inode, const struct volume_set_attributes *a)
{
    if (a->set != (VOLUME_SET_MTIME | VOLUME_SET_CTIME))
        return false;
    int64_t changed = nanoseconds_between(&a->ctime, &inode->ctime);
    int64_t modified = nanoseconds_between(&a->mtime, &inode->mtime);
    return changed > 0 && changed != INT64_MAX && modified > 0 && modified != INT64_MAX;
}

// A program may touch an append-only object: set its times to the present one.
static int
check_flags(const struct inode_record *inode, const struct volume_set_attributes *a)
{
    if (!is_fixed(inode) || a->set == VOLUME_SET_FLAGS || are_late_times(inode, a))
        return 0;
    unsigned allowed = 0;
    if (inode->flags & INODE_APPEND_ONLY)
        allowed = VOLUME_SET_ATIME_NOW | VOLUME_SET_MTIME_NOW | VOLUME_SET_CTIME;
    if ((a->set & VOLUME_SET_CTIME) && a->mtime.seconds == a->ctime.seconds &&
        a->mtime.nanoseconds == a->ctime.nanoseconds)
        allowed |= VOLUME_SET_MTIME;
    if (inode->flags & INODE_IMMUTABLE)
        allowed = 0;
    return a->set & ~allowed ? -EPERM : 0;
}

static void
kill_suidgid(struct inode_record *inode)
{
    inode->mode &= ~(uint32_t)S_ISUID;
    if (inode->mode & S_IXGRP)
        inode->mode &= ~(uint32_t)S_ISGID;
}

static void
set_times(struct inode_record *inode, const struct volume_set_attributes *a, struct timestamp now)
{
    if (a->set & VOLUME_SET_ATIME)
        inode->atime = a->atime;
    if (a->set & VOLUME_SET_ATIME_NOW)
        inode->atime = now;
    if (a->set & VOLUME_SET_MTIME)
        inode->mtime = a->mtime;
    if (a->set & VOLUME_SET_MTIME_NOW)
        inode->mtime = now;
    inode->ctime = a->set & VOLUME_SET_CTIME ? a->ctime : now;
}

static int
set_mode(struct view *view, struct operation *op, struct set *x)
{
    x->inode.mode = (x->inode.mode & S_IFMT) | (x->change->mode & 07777u);
    int rc = acl_follow_mode(view, x->object, x->inode.mode, &x->list);
    if (rc == 0 && x->list.length > 0)
        op->changes[op->count++] =
            change_put_xattr(x->object, XATTR_ACCESS_LIST, x->list.data, x->list.length);
    return rc;
}

// By the precise clock: the times that the kernel gave to earlier changes are not later.
static void
set_flags(struct inode_record *inode, uint32_t flags)
{
    struct timespec now = clock_wall();
    inode->flags = flags;
    inode->ctime = (struct timestamp){.seconds = now.tv_sec, .nanoseconds = (uint32_t)now.tv_nsec};
}

// As other file systems: pages allocated behind the end go when the file is cut, even to its own
// length, and stay when it grows.
static void
cut_allocation(struct set *x, uint64_t size)
{
    uint64_t end = pages_of_bytes(size);
    if (size > x->inode.size || allocation_pages(&x->allocation, end, UINT64_MAX) == 0)
        return;
    allocation_remove(&x->allocation, end, UINT64_MAX);
    volume_put_allocation(&x->inode, &x->allocation, &x->area);
}

static int
decide_set(struct view *view, struct operation *op)
{
    struct set *x = op->argument;
    const struct volume_set_attributes *a = x->change;
    int rc = view_inode(view, x->object, &x->inode);
    if (rc < 0)
        return rc;
    struct inode_record *inode = &x->inode;
    struct timestamp now = volume_now();
    struct timestamp flagged = inode->ctime;
    bool late = is_fixed(inode) && are_late_times(inode, a);
    volume_see_allocation(inode, &x->allocation);
    rc = check_flags(inode, a);
    if (rc < 0 || are_overtaken_times(inode, a))
        return rc;
    if (a->set == VOLUME_SET_FLAGS) {
        set_flags(inode, a->flags);
        op->changes[op->count++] = change_put_inode(x->object, inode);
        return 0;
    }
    if (a->set == VOLUME_SET_VARIANT) {
        if (!S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
            return -EINVAL;
        inode->source_variant = a->source_variant;
        inode->ctime = now;
        op->changes[op->count++] = change_put_inode(x->object, inode);
        return 0;
    }
    if (a->set & VOLUME_SET_SIZE) {
        if (!S_ISREG(inode->mode))
            return S_ISDIR(inode->mode) ? -EISDIR : -EINVAL;
        if (a->size < inode->size) {
            struct change c = {.kind = CHANGE_DISCARD, .object = x->object};
            c.offset = a->size;
            c.length = UINT64_MAX;
            op->changes[op->count++] = c;
        }
        // The times change when the size is set, even to the same value.
        if (!(a->set & (VOLUME_SET_MTIME | VOLUME_SET_MTIME_NOW)) &&
            !view->volume->host.keeps_times)
            inode->mtime = now;
        cut_allocation(x, a->size);
        inode->size = a->size;
    }
    if (a->set & VOLUME_SET_MODE)
        rc = set_mode(view, op, x);
    if (rc < 0)
        return rc;
    if (a->set & VOLUME_SET_UID)
        inode->uid = a->uid;
    if (a->set & VOLUME_SET_GID)
        inode->gid = a->gid;
    if (a->set & VOLUME_SET_KILL_SUIDGID)
        kill_suidgid(inode);
    if (!view->volume->host.keeps_times || (a->set & ~(unsigned)VOLUME_SET_SIZE) != 0)
        set_times(inode, a, now);
    if (late)
        inode->ctime = flagged;
    if (a->set & (VOLUME_SET_ATIME | VOLUME_SET_ATIME_NOW))
        operation_note(op, LIVE_ATIME_SET, x->object);
    op->changes[op->count++] = change_put_inode(x->object, inode);
    return 0;
}

int
volume_set_attributes(struct volume *v, struct object_id object,
    const struct volume_set_attributes *change, struct volume_attributes *attributes_out)
{
    if ((change->set & VOLUME_SET_SIZE) && change->size > OBJECT_MAX_BYTES)
        return -EFBIG;
    if ((change->set & VOLUME_SET_FLAGS) && (change->flags & ~INODE_FLAGS))
        return -EOPNOTSUPP;
    if ((change->set & VOLUME_SET_VARIANT) && change->source_variant > SOURCE_VARIANT_RANDOM)
        return -EINVAL;
    struct set x = {.object = object, .change = change};
    struct operation op = {
        .decide = decide_set,
        .argument = &x,
        .commit_point = (change->set & VOLUME_SET_SIZE) != 0,
    };
    int rc = volume_operate(v, &op);
    buffer_free(&x.list);
    buffer_free(&x.area);
    if (rc < 0)
        return rc;
    return volume_fill_attributes(v, object, &x.inode, &x.allocation, attributes_out);
}

struct check_writable {
    struct object_id object;
    bool append;
    bool truncate;
};

static int
check_writable(struct view *view, void *argument)
{
    const struct check_writable *x = argument;
    struct inode_record inode;
    int rc = view_inode(view, x->object, &inode);
    if (rc < 0)
        return rc;
    if (inode.flags & INODE_IMMUTABLE)
        return -EPERM;
    return (inode.flags & INODE_APPEND_ONLY) && (!x->append || x->truncate) ? -EPERM : 0;
}

int
volume_check_writable(struct volume *v, struct object_id object, bool append, bool truncate)
{
    struct check_writable x = {object, append, truncate};
    return volume_look(v, check_writable, &x);
}

// ---- extended attributes ------------------------------------------------------------------------

struct xattr {
    struct object_id object;
    const char *name;
    const void *value;
    size_t size;
    int flags;
    struct buffer *out;
    struct buffer area; // the inode's extension area
};

// The mark for cold scans is in the inode, too. Its area must live as long as the change. 0 or
// -ENOSPC.
static int
put_mark(struct inode_record *inode, bool marked, struct buffer *area)
{
    fetch_mark_change(inode->extension, inode->extension_length, marked ? FETCH_MARK_COLD_SCAN : 0,
        marked ? 0 : FETCH_MARK_COLD_SCAN, area);
    if (area->length > INODE_EXTENSION_BYTES_MAX)
        return -ENOSPC;
    inode->extension = area->length > 0 ? area->data : NULL;
    inode->extension_length = (uint16_t)area->length;
    return 0;
}

static bool
is_mark(const char *name)
{
    return strcmp(name, FETCH_MARK_XATTR) == 0;
}

static int
check_mark(const struct inode_record *inode, const void *value, size_t size)
{
    if (!S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
        return -EPERM;
    return size == 1 && memcmp(value, "1", 1) == 0 ? 0 : -EINVAL;
}

static int
decide_set_xattr(struct view *view, struct operation *op)
{
    struct xattr *x = op->argument;
    struct inode_record inode;
    struct xattr_record old;
    int rc = view_inode(view, x->object, &inode);
    if (rc < 0)
        return rc;
    if (is_fixed(&inode))
        return -EPERM;
    rc = view_xattr(view, x->object, x->name, &old);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc == 0 && (x->flags & XATTR_CREATE))
        return -EEXIST;
    if (rc == -ENOENT && (x->flags & XATTR_REPLACE))
        return -ENODATA;
    if (is_mark(x->name)) {
        rc = check_mark(&inode, x->value, x->size);
        if (rc == 0)
            rc = put_mark(&inode, true, &x->area);
        if (rc < 0)
            return rc;
    }
    inode.ctime = volume_now();
    op->changes[op->count++] = change_put_xattr(x->object, x->name, x->value, x->size);
    op->changes[op->count++] = change_put_inode(x->object, &inode);
    return 0;
}

static int
check_xattr_name(const char *name)
{
    size_t n = strlen(name);
    return n == 0 ? -EINVAL : n > XATTR_NAME_BYTES_MAX ? -ERANGE : 0;
}

int
volume_set_xattr(struct volume *v, struct object_id object, const char *name, const void *value,
    size_t size, int flags)
{
    int rc = check_xattr_name(name);
    if (rc < 0)
        return rc;
    if (size > XATTR_VALUE_BYTES_MAX)
        return -E2BIG;
    struct xattr x = {.object = object, .name = name, .value = value, .size = size, .flags = flags};
    struct operation op = {
        .decide = decide_set_xattr, .argument = &x, .extra_bytes = (uint32_t)size};
    rc = volume_operate(v, &op);
    buffer_free(&x.area);
    return rc;
}

static int
decide_remove_xattr(struct view *view, struct operation *op)
{
    struct xattr *x = op->argument;
    struct inode_record inode;
    struct xattr_record old;
    int rc = view_inode(view, x->object, &inode);
    if (rc < 0)
        return rc;
    if (is_fixed(&inode))
        return -EPERM;
    rc = view_xattr(view, x->object, x->name, &old);
    if (rc < 0)
        return rc == -ENOENT ? -ENODATA : rc;
    struct change c = {.kind = CHANGE_DELETE_XATTR};
    c.xattr = (struct xattr_record){
        .object = x->object, .name_length = (uint8_t)strlen(x->name), .name = x->name};
    if (is_mark(x->name)) {
        rc = put_mark(&inode, false, &x->area);
        if (rc < 0)
            return rc;
    }
    inode.ctime = volume_now();
    op->changes[op->count++] = c;
    op->changes[op->count++] = change_put_inode(x->object, &inode);
    return 0;
}

int
volume_remove_xattr(struct volume *v, struct object_id object, const char *name)
{
    int rc = check_xattr_name(name);
    if (rc < 0)
        return rc;
    struct xattr x = {.object = object, .name = name};
    struct operation op = {.decide = decide_remove_xattr, .argument = &x};
    rc = volume_operate(v, &op);
    buffer_free(&x.area);
    return rc;
}

static int
get_xattr(struct view *view, void *argument)
{
    struct xattr *x = argument;
    struct xattr_record found;
    int rc = view_xattr(view, x->object, x->name, &found);
    if (rc < 0)
        return rc == -ENOENT ? -ENODATA : rc;
    buffer_clear(x->out);
    buffer_append(x->out, found.value, found.value_length);
    return 0;
}

int
volume_get_xattr(struct volume *v, struct object_id object, const char *name, struct buffer *out)
{
    int rc = check_xattr_name(name);
    if (rc < 0)
        return rc;
    struct xattr x = {.object = object, .name = name, .out = out};
    return volume_look(v, get_xattr, &x);
}

// ---- listing ------------------------------------------------------------------------------------

static int
append_base_name(void *argument, const struct xattr_record *xattr)
{
    struct buffer *names = argument;
    buffer_append(names, xattr->name, xattr->name_length);
    buffer_append_u8(names, 0);
    return 0;
}

// Appends the names of the tables that no layer mentions, and the names in the layers.
static void
merge_names_locked(
    struct volume *v, struct object_id object, const struct buffer *base, struct buffer *out)
{
    struct xattr_record x;
    const struct namespace_set *sets[] = {v->names, v->frozen_names};
    for (size_t at = 0; at < base->length; at += strlen((char *)base->data + at) + 1) {
        const char *name = (char *)base->data + at;
        bool hidden = false;
        for (unsigned i = 0; i < 2 && sets[i]; i++)
            hidden = hidden || namespace_set_find_xattr(sets[i], object, name, strlen(name), &x) !=
                                   LAYER_ABSENT;
        if (!hidden)
            buffer_append(out, name, strlen(name) + 1);
    }
    for (unsigned i = 0; i < 2 && sets[i]; i++) {
        const struct namespace_xattr *e = namespace_set_next_xattr(sets[i], object, NULL, 0);
        for (; e;
             e = namespace_set_next_xattr(sets[i], object, e->xattr.name, e->xattr.name_length)) {
            bool newer = i == 1 && namespace_set_find_xattr(sets[0], object, e->xattr.name,
                                       e->xattr.name_length, &x) != LAYER_ABSENT;
            if (e->deleted || newer)
                continue;
            buffer_append(out, e->xattr.name, e->xattr.name_length);
            buffer_append_u8(out, 0);
        }
    }
}

int
volume_list_xattrs(struct volume *v, struct object_id object, struct buffer *out)
{
    for (;;) {
        BUFFER_AUTO base = {0};
        lock_take(&v->lock);
        uint64_t version = v->version;
        lock_release(&v->lock);
        struct manifest_reader *r;
        int rc = manifest_read_begin(v->manifest, &r);
        if (rc < 0)
            return rc;
        rc = manifest_read_xattrs(r, v->db, object, append_base_name, &base);
        manifest_read_end(r);
        if (rc < 0)
            return rc;
        lock_take(&v->lock);
        bool same = version == v->version;
        buffer_clear(out);
        if (same)
            merge_names_locked(v, object, &base, out);
        lock_release(&v->lock);
        if (same)
            return 0;
    }
}
