// SPDX-License-Identifier: Apache-2.0
// Names: lookup, making, linking, unlinking, renaming.
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "format/access_list.h"
#include "format/fetch_mark.h"
#include "format/parent.h"
#include "platform/memory.h"
#include "volume/volume_attributes.h"
#include "volume/volume_internal.h"

#define LINKS_MAX 0x7fffffffu

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#define RENAME_EXCHANGE  (1 << 1)
#define RENAME_WHITEOUT  (1 << 2)
#endif

static int
check_name(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || strchr(name, '/'))
        return -EINVAL;
    if (n > NAME_BYTES_MAX)
        return -ENAMETOOLONG;
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ? -EEXIST : 0;
}

static uint8_t
type_of(uint32_t mode)
{
    return (uint8_t)((mode & S_IFMT) >> 12);
}

static void
put_change(struct operation *op, struct change change)
{
    assert(op->count < OPERATION_CHANGES_MAX);
    op->changes[op->count++] = change;
}

static struct change
change_dirent(enum change_kind kind, struct object_id parent, uint64_t cookie, const char *name,
    struct object_id object, uint32_t mode)
{
    struct change c = {.kind = kind};
    c.dirent = (struct dirent_record){
        .parent = parent,
        .cookie = cookie,
        .object = object,
        .type = type_of(mode),
        .name_length = (uint8_t)strlen(name),
        .name = name,
    };
    return c;
}

static void
touch(struct inode_record *inode, struct timestamp now)
{
    inode->mtime = inode->ctime = now;
}

// A directory that is there and has not been removed.
static int
view_directory(struct view *view, struct object_id object, struct inode_record *inode_out)
{
    int rc = view_inode(view, object, inode_out);
    if (rc < 0)
        return rc;
    if (!S_ISDIR(inode_out->mode))
        return -ENOTDIR;
    return 0;
}

// Adds to (or takes from) the counts of a directory: its entries, and the directories among them,
// which link back to it. A count that was wrong before must not become one that no program can
// read.
static int
count_entries(struct view *view, struct object_id directory, struct inode_record *inode,
    int entries, int directories)
{
    if ((entries < 0 && inode->size == 0) || (directories < 0 && inode->nlink <= 2))
        return view_contradiction(view, directory, "the directory has more entries than it counts");
    if (directories > 0 && inode->nlink >= LINKS_MAX)
        return -EMLINK;
    inode->size += (uint64_t)(int64_t)entries;
    inode->nlink += (uint32_t)directories;
    return 0;
}

// A directory keeps where it stands. The inode's new extension area lies in `area`.
static void
put_parent(struct inode_record *inode, struct object_id parent, struct buffer *area)
{
    parent_replace(inode->extension, inode->extension_length, parent, area);
    assert(area->length <= INODE_EXTENSION_BYTES_MAX);
    inode->extension = area->data;
    inode->extension_length = (uint16_t)area->length;
}

// ---- lookup -------------------------------------------------------------------------------------

struct lookup {
    struct object_id parent;
    const char *name;
    struct object_id object;
    struct inode_record inode;
    struct allocation allocation;
};

static int
look_up(struct view *view, void *argument)
{
    struct lookup *x = argument;
    struct dirent_record d;
    int rc = view_dirent(view, x->parent, x->name, &d);
    if (rc < 0)
        return rc;
    x->object = d.object;
    rc = view_named_inode(view, &d, &x->inode);
    if (rc == 0)
        volume_see_allocation(&x->inode, &x->allocation);
    x->inode.link_target = NULL;
    return rc;
}

int
volume_lookup(struct volume *v, struct object_id parent, const char *name,
    struct volume_attributes *attributes_out)
{
    struct lookup x = {.parent = parent, .name = name};
    if (strlen(name) > NAME_BYTES_MAX)
        return -ENAMETOOLONG;
    int rc = volume_look(v, look_up, &x);
    if (rc < 0)
        return rc;
    return volume_fill_attributes(v, x.object, &x.inode, &x.allocation, attributes_out);
}

struct find_parent {
    struct object_id object;
    struct object_id parent;
};

static int
find_parent(struct view *view, void *argument)
{
    struct find_parent *x = argument;
    struct inode_record inode;
    int rc = view_directory(view, x->object, &inode);
    if (rc == 0)
        rc = parent_decode(inode.extension, inode.extension_length, &x->parent);
    return rc;
}

int
volume_lookup_parent(
    struct volume *v, struct object_id object, struct volume_attributes *attributes_out)
{
    struct find_parent x = {.object = object};
    int rc = volume_look(v, find_parent, &x);
    return rc < 0 ? rc : volume_get_attributes(v, x.parent, attributes_out);
}

// ---- making -------------------------------------------------------------------------------------

struct make {
    struct object_id parent;
    const char *name; // NULL: a file without one
    const char *target;
    uint32_t mode;
    uint32_t rdev;
    const struct volume_caller *caller;
    struct object_id object;
    struct inode_record inode;
    struct inherited_lists lists;
    struct buffer area;        // of a directory's inode
    struct buffer marked_area; // with the mark for cold scans
};

static int
must_not_exist(struct view *view, struct object_id parent, const char *name)
{
    struct dirent_record d;
    int rc = view_dirent(view, parent, name, &d);
    return rc == 0 ? -EEXIST : rc == -ENOENT ? 0 : rc;
}

static void
inherit(struct make *x, const struct inode_record *parent, uint32_t mode, struct timestamp now)
{
    x->inode = (struct inode_record){
        .mode = mode,
        .uid = x->caller->uid,
        .gid = x->caller->gid,
        .nlink = !x->name           ? 0
                 : S_ISDIR(x->mode) ? 2
                                    : 1,
        .rdev = x->rdev,
        .atime = now,
        .mtime = now,
        .ctime = now,
        .btime = now,
        .source_variant = parent->source_variant,
    };
    if (parent->mode & S_ISGID) {
        x->inode.gid = parent->gid;
        if (S_ISDIR(x->mode))
            x->inode.mode |= S_ISGID;
    }
    if (x->target) {
        x->inode.link_target = x->target;
        x->inode.link_target_length = (uint16_t)strlen(x->target);
        x->inode.size = x->inode.link_target_length;
    }
}

// The mark for cold scans goes to files and directories, in the inode and as an attribute. Whether
// the attribute is due.
static bool
inherit_mark(struct make *x, const struct inode_record *parent)
{
    struct inode_record *inode = &x->inode;
    if (!S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
        return false;
    fetch_mark_inherit(parent->extension, parent->extension_length, inode->extension,
        inode->extension_length, &x->marked_area);
    // A mark of a newer program may be too long beside the item of the parent.
    if (x->marked_area.length == inode->extension_length ||
        x->marked_area.length > INODE_EXTENSION_BYTES_MAX)
        return false;
    inode->extension = x->marked_area.data;
    inode->extension_length = (uint16_t)x->marked_area.length;
    return fetch_mark_decode(inode->extension, inode->extension_length) & FETCH_MARK_COLD_SCAN;
}

static void
put_lists(struct operation *op, const struct make *x)
{
    const struct buffer *access = &x->lists.access, *defaults = &x->lists.defaults;
    if (access->length > 0)
        put_change(
            op, change_put_xattr(x->object, XATTR_ACCESS_LIST, access->data, access->length));
    if (defaults->length > 0)
        put_change(op, change_put_xattr(
                           x->object, XATTR_DEFAULT_ACCESS_LIST, defaults->data, defaults->length));
}

static int
decide_make(struct view *view, struct operation *op)
{
    struct make *x = op->argument;
    struct inode_record parent;
    uint64_t cookie = 0;
    uint32_t mode = x->mode;
    int rc = view_directory(view, x->parent, &parent);
    if (rc == 0 && parent.nlink == 0)
        rc = -ENOENT;
    if (rc == 0 && x->name)
        rc = must_not_exist(view, x->parent, x->name);
    if (rc == 0 && x->name && (parent.flags & INODE_IMMUTABLE))
        rc = -EPERM;
    if (rc == 0 && x->name)
        rc = view_new_cookie(view, x->parent, x->name, &cookie);
    if (rc == 0)
        rc = acl_inherit(view, x->parent, x->caller->umask, &mode, &x->lists);
    if (rc == 0 && x->name)
        rc = count_entries(view, x->parent, &parent, 1, S_ISDIR(mode) ? 1 : 0);
    if (rc < 0)
        return rc;
    struct timestamp now = volume_now();
    inherit(x, &parent, mode, now);
    if (S_ISDIR(mode))
        put_parent(&x->inode, x->parent, &x->area);
    x->object.v = view->volume->counters.next_object;
    bool marked = inherit_mark(x, &parent);
    put_change(op, change_put_inode(x->object, &x->inode));
    if (marked)
        put_change(op, change_put_xattr(x->object, FETCH_MARK_XATTR, "1", 1));
    put_lists(op, x);
    if (!x->name) {
        operation_note(op, LIVE_NAMELESS, x->object);
        return 0;
    }
    touch(&parent, now);
    put_change(op, change_dirent(CHANGE_PUT_DIRENT, x->parent, cookie, x->name, x->object, mode));
    put_change(op, change_put_inode(x->parent, &parent));
    return 0;
}

int
volume_make(struct volume *v, struct object_id parent, const char *name, uint32_t mode,
    uint32_t rdev, const char *target, const struct volume_caller *caller,
    struct volume_attributes *attributes_out)
{
    struct make x = {.parent = parent,
        .name = name,
        .target = target,
        .mode = mode,
        .rdev = rdev,
        .caller = caller};
    int rc = name ? check_name(name) : 0;
    if (rc == 0 && target && strlen(target) > LINK_TARGET_BYTES_MAX)
        rc = -ENAMETOOLONG;
    if (rc < 0)
        return rc;
    struct operation op = {.decide = decide_make, .argument = &x};
    rc = volume_operate(v, &op);
    inherited_lists_free(&x.lists);
    buffer_free(&x.area);
    buffer_free(&x.marked_area);
    if (rc < 0)
        return rc;
    return volume_fill_attributes(v, x.object, &x.inode, NULL, attributes_out);
}

// ---- linking ------------------------------------------------------------------------------------

struct link {
    struct object_id object;
    struct object_id parent;
    const char *name;
    struct inode_record inode;
    struct allocation allocation;
};

static int
decide_link(struct view *view, struct operation *op)
{
    struct link *x = op->argument;
    struct inode_record parent;
    uint64_t cookie = 0;
    int rc = view_inode(view, x->object, &x->inode);
    if (rc == 0 && S_ISDIR(x->inode.mode))
        rc = -EPERM;
    if (rc == 0 && x->inode.nlink == 0)
        rc = volume_check_nameless_locked(view->volume, x->object);
    if (rc == 0 && x->inode.nlink >= LINKS_MAX)
        rc = -EMLINK;
    if (rc == 0)
        rc = view_directory(view, x->parent, &parent);
    if (rc == 0 && parent.nlink == 0)
        rc = -ENOENT;
    if (rc == 0)
        rc = must_not_exist(view, x->parent, x->name);
    if (rc == 0 && (is_fixed(&x->inode) || (parent.flags & INODE_IMMUTABLE)))
        rc = -EPERM;
    if (rc == 0)
        rc = view_new_cookie(view, x->parent, x->name, &cookie);
    if (rc == 0)
        rc = count_entries(view, x->parent, &parent, 1, 0);
    if (rc < 0)
        return rc;
    struct timestamp now = volume_now();
    if (x->inode.nlink++ == 0)
        operation_note(op, LIVE_NAMED, x->object);
    x->inode.ctime = now;
    touch(&parent, now);
    volume_see_allocation(&x->inode, &x->allocation);
    put_change(op, change_put_inode(x->object, &x->inode));
    put_change(
        op, change_dirent(CHANGE_PUT_DIRENT, x->parent, cookie, x->name, x->object, x->inode.mode));
    put_change(op, change_put_inode(x->parent, &parent));
    return 0;
}

int
volume_link(struct volume *v, struct object_id object, struct object_id parent, const char *name,
    struct volume_attributes *attributes_out)
{
    struct link x = {.object = object, .parent = parent, .name = name};
    int rc = check_name(name);
    struct operation op = {.decide = decide_link, .argument = &x, .commit_point = true};
    if (rc == 0)
        rc = volume_operate(v, &op);
    if (rc < 0)
        return rc;
    return volume_fill_attributes(v, object, &x.inode, &x.allocation, attributes_out);
}

// ---- unlinking ----------------------------------------------------------------------------------

struct unlink {
    struct object_id parent;
    const char *name;
    bool directory;
};

// Takes a name off an inode that stands in a directory. When it was the last, the object lives on
// until the kernel lets go of it.
static void
drop_link(
    struct operation *op, struct object_id object, struct inode_record *inode, struct timestamp now)
{
    if (S_ISDIR(inode->mode))
        inode->nlink = 0;
    else
        inode->nlink--;
    inode->ctime = now;
    put_change(op, change_put_inode(object, inode));
    if (inode->nlink == 0)
        operation_note(op, LIVE_ORPHAN, object);
}

static int
decide_unlink(struct view *view, struct operation *op)
{
    struct unlink *x = op->argument;
    struct inode_record parent;
    struct inode_record inode;
    struct dirent_record d;
    int rc = view_directory(view, x->parent, &parent);
    if (rc == 0)
        rc = view_dirent(view, x->parent, x->name, &d);
    if (rc == 0)
        rc = view_named_inode(view, &d, &inode);
    if (rc == 0 && (is_fixed(&parent) || is_fixed(&inode)))
        rc = -EPERM;
    if (rc == 0 && x->directory != S_ISDIR(inode.mode))
        rc = x->directory ? -ENOTDIR : -EISDIR;
    if (rc == 0 && x->directory && inode.size > 0)
        rc = -ENOTEMPTY;
    if (rc == 0)
        rc = count_entries(view, x->parent, &parent, -1, x->directory ? -1 : 0);
    if (rc < 0)
        return rc;
    struct timestamp now = volume_now();
    touch(&parent, now);
    put_change(op,
        change_dirent(CHANGE_DELETE_DIRENT, x->parent, d.cookie, x->name, d.object, inode.mode));
    put_change(op, change_put_inode(x->parent, &parent));
    drop_link(op, d.object, &inode, now);
    return 0;
}

static int
unlink_or_rmdir(struct volume *v, struct object_id parent, const char *name, bool directory)
{
    if (strlen(name) > NAME_BYTES_MAX)
        return -ENAMETOOLONG;
    struct unlink x = {parent, name, directory};
    struct operation op = {.decide = decide_unlink, .argument = &x, .commit_point = true};
    return volume_operate(v, &op);
}

int
volume_unlink(struct volume *v, struct object_id parent, const char *name)
{
    return unlink_or_rmdir(v, parent, name, false);
}

int
volume_rmdir(struct volume *v, struct object_id parent, const char *name)
{
    return unlink_or_rmdir(v, parent, name, true);
}

// ---- renaming -----------------------------------------------------------------------------------

struct rename {
    struct object_id parent;
    const char *name;
    struct object_id new_parent;
    const char *new_name;
    unsigned flags;
    const struct volume_caller *caller;
    struct buffer *area;        // of the inode of a directory that moves
    struct buffer *target_area; // of one that it is exchanged with
};

// Everything a rename looks at.
struct rename_state {
    struct inode_record from_parent;
    struct inode_record to_parent;
    struct dirent_record from;
    struct dirent_record to;
    struct inode_record inode;
    struct inode_record target;
    bool target_exists;
    bool same_parent;
};

static int
look_for_rename(struct view *view, const struct rename *x, struct rename_state *s)
{
    s->same_parent = x->parent.v == x->new_parent.v;
    int rc = view_directory(view, x->parent, &s->from_parent);
    if (rc == 0)
        rc = view_directory(view, x->new_parent, &s->to_parent);
    if (rc == 0 && s->to_parent.nlink == 0)
        rc = -ENOENT;
    if (rc == 0)
        rc = view_dirent(view, x->parent, x->name, &s->from);
    if (rc == 0)
        rc = view_named_inode(view, &s->from, &s->inode);
    if (rc < 0)
        return rc;
    rc = view_dirent(view, x->new_parent, x->new_name, &s->to);
    s->target_exists = rc == 0;
    if (rc == 0)
        rc = view_named_inode(view, &s->to, &s->target);
    return rc == -ENOENT ? 0 : rc;
}

static int
check_rename(const struct rename *x, const struct rename_state *s)
{
    if ((x->flags & RENAME_NOREPLACE) && s->target_exists)
        return -EEXIST;
    if ((x->flags & RENAME_EXCHANGE) && !s->target_exists)
        return -ENOENT;
    if (is_fixed(&s->from_parent) || is_fixed(&s->inode))
        return -EPERM;
    if (s->target_exists ? is_fixed(&s->to_parent) || is_fixed(&s->target)
                         : (s->to_parent.flags & INODE_IMMUTABLE) != 0)
        return -EPERM;
    if ((x->flags & RENAME_EXCHANGE) || !s->target_exists)
        return 0;
    bool directory = S_ISDIR(s->inode.mode);
    if (directory != S_ISDIR(s->target.mode))
        return directory ? -ENOTDIR : -EISDIR;
    return directory && s->target.size > 0 ? -ENOTEMPTY : 0;
}

// How the directories count after the rename.
static int
count_renamed(struct view *view, const struct rename *x, struct rename_state *s)
{
    struct inode_record *to = s->same_parent ? &s->from_parent : &s->to_parent;
    int moved = S_ISDIR(s->inode.mode) ? 1 : 0;
    int replaced = s->target_exists && S_ISDIR(s->target.mode) ? 1 : 0;
    bool exchanges = (x->flags & RENAME_EXCHANGE) != 0;
    int from_links = (exchanges ? replaced : 0) - moved;
    int to_links = moved - replaced;
    int from_entries = exchanges || (x->flags & RENAME_WHITEOUT) ? 0 : -1;
    int to_entries = exchanges || s->target_exists ? 0 : 1;
    if (s->same_parent)
        return count_entries(
            view, x->parent, &s->from_parent, from_entries + to_entries, from_links + to_links);
    int rc = count_entries(view, x->parent, &s->from_parent, from_entries, from_links);
    return rc == 0 ? count_entries(view, x->new_parent, to, to_entries, to_links) : rc;
}

static void
put_parents(
    struct operation *op, const struct rename *x, struct rename_state *s, struct timestamp now)
{
    touch(&s->from_parent, now);
    put_change(op, change_put_inode(x->parent, &s->from_parent));
    if (s->same_parent)
        return;
    touch(&s->to_parent, now);
    put_change(op, change_put_inode(x->new_parent, &s->to_parent));
}

static void
put_moved(struct operation *op, struct object_id object, struct inode_record *inode,
    struct object_id parent, struct buffer *area, struct timestamp now)
{
    inode->ctime = now;
    if (S_ISDIR(inode->mode))
        put_parent(inode, parent, area);
    put_change(op, change_put_inode(object, inode));
}

static void
exchange(struct operation *op, const struct rename *x, struct rename_state *s, struct timestamp now)
{
    put_change(op, change_dirent(CHANGE_PUT_DIRENT, x->parent, s->from.cookie, x->name,
                       s->to.object, s->target.mode));
    put_change(op, change_dirent(CHANGE_PUT_DIRENT, x->new_parent, s->to.cookie, x->new_name,
                       s->from.object, s->inode.mode));
    put_moved(op, s->from.object, &s->inode, x->new_parent, x->area, now);
    put_moved(op, s->to.object, &s->target, x->parent, x->target_area, now);
    put_parents(op, x, s, now);
}

// The object that overlayfs expects under a name that it has moved away: a character device 0:0.
static void
put_whiteout(struct view *view, struct operation *op, const struct rename *x,
    const struct rename_state *s, struct timestamp now)
{
    struct make m = {.parent = x->parent, .name = x->name, .mode = S_IFCHR, .caller = x->caller};
    inherit(&m, &s->from_parent, S_IFCHR, now);
    struct object_id object = {view->volume->counters.next_object};
    put_change(op, change_put_inode(object, &m.inode));
    put_change(
        op, change_dirent(CHANGE_PUT_DIRENT, x->parent, s->from.cookie, x->name, object, S_IFCHR));
}

static int
decide_rename(struct view *view, struct operation *op)
{
    const struct rename *x = op->argument;
    struct rename_state s = {0};
    uint64_t cookie = 0;
    int rc = look_for_rename(view, x, &s);
    if (rc == 0)
        rc = check_rename(x, &s);
    if (rc < 0)
        return rc;
    if (s.target_exists && s.from.object.v == s.to.object.v)
        return 0; // two names of one object: POSIX says that nothing happens
    if (s.target_exists)
        cookie = s.to.cookie;
    else
        rc = view_new_cookie(view, x->new_parent, x->new_name, &cookie);
    if (rc == 0)
        rc = count_renamed(view, x, &s);
    if (rc < 0)
        return rc;
    struct timestamp now = volume_now();
    if (x->flags & RENAME_EXCHANGE) {
        exchange(op, x, &s, now);
        return 0;
    }
    if (x->flags & RENAME_WHITEOUT)
        put_whiteout(view, op, x, &s, now);
    else
        put_change(op, change_dirent(CHANGE_DELETE_DIRENT, x->parent, s.from.cookie, x->name,
                           s.from.object, s.inode.mode));
    put_change(op, change_dirent(CHANGE_PUT_DIRENT, x->new_parent, cookie, x->new_name,
                       s.from.object, s.inode.mode));
    put_moved(op, s.from.object, &s.inode, x->new_parent, x->area, now);
    if (s.target_exists)
        drop_link(op, s.to.object, &s.target, now);
    put_parents(op, x, &s, now);
    return 0;
}

int
volume_rename(struct volume *v, struct object_id parent, const char *name,
    struct object_id new_parent, const char *new_name, unsigned flags,
    const struct volume_caller *caller)
{
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) ||
        ((flags & RENAME_EXCHANGE) && flags != RENAME_EXCHANGE))
        return -EINVAL;
    int rc = check_name(new_name);
    if (rc < 0)
        return rc;
    BUFFER_AUTO area = {0};
    BUFFER_AUTO target_area = {0};
    struct rename x = {parent, name, new_parent, new_name, flags, caller, &area, &target_area};
    struct operation op = {.decide = decide_rename, .argument = &x, .commit_point = true};
    return volume_operate(v, &op);
}

// ---- symbolic links -----------------------------------------------------------------------------

struct read_link {
    struct object_id object;
    struct buffer *out;
    struct inode_record inode;
};

static int
read_link(struct view *view, void *argument)
{
    struct read_link *x = argument;
    struct inode_record inode;
    int rc = view_inode(view, x->object, &inode);
    if (rc < 0)
        return rc;
    if (!S_ISLNK(inode.mode))
        return -EINVAL;
    buffer_clear(x->out);
    buffer_append(x->out, inode.link_target, inode.link_target_length);
    x->inode = inode;
    x->inode.link_target = NULL;
    return 0;
}

int
volume_read_link(struct volume *v, struct object_id object, struct buffer *out)
{
    struct read_link x = {.object = object, .out = out};
    int rc = volume_look(v, read_link, &x);
    if (rc == 0)
        volume_accessed(v, object, &x.inode);
    return rc;
}
