// SPDX-License-Identifier: Apache-2.0
#include "fuse/snapshot_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/access_list.h"
#include "fuse/ckptfs_ioctl.h"
#include "fuse/mount.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"

#define GROUPS_MAX 1024

// The result of a request, to be sent when the request is not to be interrupted any more.
enum answer_kind {
    ANSWER_ENTRY,
    ANSWER_ATTRIBUTES,
    ANSWER_BYTES,
    ANSWER_LINK,
    ANSWER_VALUE,
    ANSWER_OPENED,
    ANSWER_OFFSET,
    ANSWER_FLAGS,
};

struct answer {
    enum answer_kind kind;
    struct fuse_entry_param entry; // ENTRY, ATTRIBUTES
    unsigned number;               // of the place to which it has references, or 0
    uint64_t references;           // that the kernel gets with it
    const uint8_t *data;           // BYTES: memory of the thread
    size_t length;
    struct buffer text; // LINK, VALUE
    int64_t offset;     // OFFSET
    uint32_t flags;     // FLAGS
};

struct snapshot_request {
    struct cold_job job;
    fuse_req_t req;
    // Fills in the answer. 0, -EREMOTE when it needs the store and `call` has local_only, or
    // another error, which is the answer then.
    int (*serve)(const struct snapshot_request *r, const struct remote_call *call,
        struct answer *answer_out);
    uint64_t node;
    const char *name; // LOOKUP, GETXATTR; owned while the request waits
    size_t size;
    uint64_t offset;
    int whence;
    bool plus;
    unsigned command;
};

// ---- replies ------------------------------------------------------------------------------------

static void
reply_opened(const struct snapshot_request *r)
{
    struct fs *fs = fs_of(r->req);
    // What is in the tree never changes.
    struct fuse_file_info fi = {.flags = O_RDONLY, .keep_cache = 1, .noflush = 1};
    if (fuse_reply_open(r->req, &fi) == -ENOENT)
        snapshot_tree_file_closed(&fs->snapshots, snapshot_node_number(r->node));
}

// The kernel does not get what was sent when its request has gone meanwhile.
static void
note_sent(struct fs *fs, const struct answer *a, int rc)
{
    if (rc == -ENOENT && a->references > 0)
        snapshot_tree_forget(&fs->snapshots, a->number, a->references);
}

static void
reply(const struct snapshot_request *r, int rc, struct answer *a)
{
    struct fs *fs = fs_of(r->req);
    if (rc < 0) {
        fs_reply_result(r->req, rc);
        return;
    }
    switch (a->kind) {
    case ANSWER_ENTRY:
        note_sent(fs, a, fuse_reply_entry(r->req, &a->entry));
        break;
    case ANSWER_ATTRIBUTES:
        fuse_reply_attr(r->req, &a->entry.attr, a->entry.attr_timeout);
        break;
    case ANSWER_BYTES:
        note_sent(fs, a, fuse_reply_buf(r->req, (const char *)a->data, a->length));
        break;
    case ANSWER_LINK:
        fuse_reply_readlink(r->req, buffer_string(&a->text));
        break;
    case ANSWER_VALUE:
        fs_reply_value(r->req, 0, &a->text, r->size);
        break;
    case ANSWER_OPENED:
        reply_opened(r);
        break;
    case ANSWER_OFFSET:
        fuse_reply_lseek(r->req, a->offset);
        break;
    case ANSWER_FLAGS:
        fs_reply_flags(r->req, r->command, a->flags);
        break;
    }
}

// ---- waiting for the store ----------------------------------------------------------------------

static struct snapshot_request *
request_of(struct cold_job *job)
{
    return CONTAINER_OF(job, struct snapshot_request, job);
}

static void
answered(struct snapshot_request *r, struct fs *fs)
{
    free((char *)r->name);
    free(r);
    fs_end_deferred(fs);
}

static bool
run(struct cold_job *job)
{
    struct snapshot_request *r = request_of(job);
    struct fs *fs = fs_of(r->req);
    struct answer a = {0};
    const struct remote_call call = {.deadline_ms = job->deadline_ms,
        .is_canceled = cold_job_is_canceled,
        .argument = job,
        .again = true};
    int rc = r->serve(r, &call, &a);
    // From here on libfuse does not interrupt the request any more.
    fuse_req_interrupt_func(r->req, NULL, NULL);
    if (rc == -EINTR && !atomic_load(&job->interrupted))
        rc = -ENOTCONN;
    reply(r, rc, &a);
    buffer_free(&a.text);
    answered(r, fs);
    return rc != -EIO && rc != -EINTR && rc != -ENOTCONN;
}

static void
give_up(struct cold_job *job, int result)
{
    struct snapshot_request *r = request_of(job);
    struct fs *fs = fs_of(r->req);
    // As for cold requests: libfuse may hold the lock that this takes.
    if (result != -EINTR)
        fuse_req_interrupt_func(r->req, NULL, NULL);
    bool io = result == -ETIMEDOUT || result == -EAGAIN;
    if (io)
        log_error_of("snapshot.gave_up", SNAPSHOT_TREE_NAME,
            "a request for a snapshot waited for the store too long, behind others");
    fs_reply_result(r->req, io ? -EIO : result);
    answered(r, fs);
}

const struct cold_pool_ops snapshot_ops_pool = {.run = run, .give_up = give_up};

static void
interrupted(fuse_req_t req, void *job)
{
    cold_pool_interrupt(&fs_of(req)->snapshot_pool, job);
}

static void
begin(const struct snapshot_request *r)
{
    static const struct remote_call local_only = {.local_only = true};
    struct answer a = {0};
    int rc = r->serve(r, &local_only, &a);
    if (rc != -EREMOTE) {
        reply(r, rc, &a);
        buffer_free(&a.text);
        return;
    }
    buffer_free(&a.text);
    struct fs *fs = fs_of(r->req);
    struct snapshot_request *waiting = memory_alloc(sizeof(*waiting));
    *waiting = *r;
    waiting->name = r->name ? memory_string(r->name) : NULL;
    fs_begin_deferred(fs);
    fuse_req_interrupt_func(r->req, interrupted, &waiting->job);
    cold_pool_put(&fs->snapshot_pool, &waiting->job);
}

// ---- attributes ---------------------------------------------------------------------------------

// An object of a generation: nothing of it changes, but the root directory's attributes come from
// elsewhere before its generation is opened for the first time, and the kernel may not keep those.
static int
fill_entry(
    struct fs *fs, unsigned number, struct volume_attributes *a, struct fuse_entry_param *entry_out)
{
    if (a->object.v > SNAPSHOT_OBJECT_MAX)
        return -EOVERFLOW;
    bool is_root = a->object.v == OBJECT_ROOT_DIRECTORY.v;
    a->object.v = snapshot_node(number, a->object.v);
    fs_fill_entry(fs, a, entry_out);
    entry_out->generation = snapshot_tree_incarnation(&fs->snapshots, number);
    if (is_root)
        entry_out->attr_timeout = entry_out->entry_timeout = 0;
    return 0;
}

// One of the directories above the generations. Its time is always new: so the kernel does not take
// a listing that it has in its cache for the present one.
static int
fill_directory(struct fs *fs, enum snapshot_directory directory, struct fuse_entry_param *entry_out)
{
    struct volume_attributes a;
    int rc = volume_get_attributes(fs->volume, OBJECT_ROOT_DIRECTORY, &a);
    if (rc < 0)
        return rc;
    uint64_t ms = clock_wall_ms();
    struct timestamp now = {
        .seconds = (int64_t)(ms / 1000), .nanoseconds = (uint32_t)(ms % 1000 * 1000000)};
    a.object.v = snapshot_node(0, directory);
    a.inode.mode = S_IFDIR | 0555;
    a.inode.nlink = 2;
    a.inode.atime = a.inode.mtime = a.inode.ctime = now;
    fs_fill_entry(fs, &a, entry_out);
    entry_out->attr_timeout = 0;
    return 0;
}

static bool
is_member(fuse_req_t req, uint32_t gid)
{
    gid_t groups[GROUPS_MAX];
    if (fuse_req_ctx(req)->gid == gid)
        return true;
    int n = fuse_req_getgroups(req, GROUPS_MAX, groups);
    for (int i = 0; i < n && i < GROUPS_MAX; i++)
        if (groups[i] == gid)
            return true;
    return false;
}

// The kernel may have checked the permissions of a generation's root directory by made-up
// attributes (snapshot_tree_root). It knows access lists only from an open generation, so it
// enforces those.
static int
check_root(fuse_req_t req, struct volume *v, const struct volume_attributes *root, unsigned wanted)
{
    BUFFER_AUTO list = {0};
    uint32_t mode = root->inode.mode;
    uid_t uid = fuse_req_ctx(req)->uid;
    if (uid == 0 || volume_get_xattr(v, root->object, XATTR_ACCESS_LIST, &list) == 0)
        return 0;
    if (uid == root->inode.uid)
        mode >>= 6;
    else if (is_member(req, root->inode.gid))
        mode >>= 3;
    return (mode & wanted) == wanted ? 0 : -EACCES;
}

// ---- inside a generation ------------------------------------------------------------------------

// Opens the generation of the request's node. `wanted`: the permissions (r 4, x 1) that the request
// needs if the node is the root directory.
static int
enter(const struct snapshot_request *r, const struct remote_call *call, unsigned wanted,
    struct snapshot_view **view_out)
{
    struct snapshot_tree *t = &fs_of(r->req)->snapshots;
    struct volume_attributes root;
    int rc = snapshot_tree_get(t, snapshot_node_number(r->node), call, view_out);
    if (rc < 0 || snapshot_node_object(r->node) != OBJECT_ROOT_DIRECTORY.v)
        return rc;
    struct volume *v = (*view_out)->volume;
    rc = volume_get_attributes(v, OBJECT_ROOT_DIRECTORY, &root);
    if (rc == 0) {
        snapshot_tree_note_root(t, snapshot_node_number(r->node), &root);
        rc = check_root(r->req, v, &root, wanted);
    }
    if (rc < 0)
        snapshot_tree_put(*view_out);
    return rc;
}

static struct object_id
object_in(const struct snapshot_request *r)
{
    return (struct object_id){snapshot_node_object(r->node)};
}

// The kernel has a reference to the place, since it asks for something in it.
static void
refer(const struct snapshot_request *r, struct answer *a, unsigned number, uint64_t count)
{
    a->number = number;
    a->references = count;
    if (count > 0)
        snapshot_tree_refer(&fs_of(r->req)->snapshots, number, count);
}

static int
lookup_inside(const struct snapshot_request *r, const struct remote_call *call, struct answer *a)
{
    struct volume_attributes attributes;
    struct snapshot_view *view;
    int rc = enter(r, call, 1, &view);
    if (rc < 0)
        return rc;
    rc = volume_lookup(view->volume, object_in(r), r->name, &attributes);
    snapshot_tree_put(view);
    if (rc == 0)
        rc = fill_entry(fs_of(r->req), snapshot_node_number(r->node), &attributes, &a->entry);
    if (rc == 0)
        refer(r, a, snapshot_node_number(r->node), 1);
    if (rc == -ENOENT) {
        // Node 0: the kernel remembers that there is nothing, and nothing will ever be there.
        a->entry = (struct fuse_entry_param){.entry_timeout = FS_CACHE_SECONDS};
        rc = 0;
    }
    return rc;
}

static int
look_up_name(const struct snapshot_request *r, const struct remote_call *call, struct answer *a)
{
    struct fs *fs = fs_of(r->req);
    struct volume_attributes attributes;
    unsigned number;
    enum snapshot_directory directory = (enum snapshot_directory)snapshot_node_object(r->node);
    int rc = snapshot_tree_find(&fs->snapshots, directory, r->name, call, &number);
    if (rc < 0)
        return rc;
    rc = snapshot_tree_root(&fs->snapshots, number, &attributes);
    attributes.object = OBJECT_ROOT_DIRECTORY;
    if (rc == 0)
        rc = fill_entry(fs, number, &attributes, &a->entry);
    if (rc < 0)
        snapshot_tree_forget(&fs->snapshots, number, 1);
    a->number = number;
    a->references = 1;
    return rc;
}

static const struct {
    const char *name;
    enum snapshot_directory directory;
} top_names[] = {{"snapshots", SNAPSHOT_SNAPSHOTS}, {"generations", SNAPSHOT_GENERATIONS}};

static int
serve_lookup(const struct snapshot_request *r, const struct remote_call *call, struct answer *a)
{
    a->kind = ANSWER_ENTRY;
    if (snapshot_node_number(r->node) != 0)
        return lookup_inside(r, call, a);
    if (snapshot_node_object(r->node) != SNAPSHOT_TOP)
        return look_up_name(r, call, a);
    for (size_t i = 0; i < ARRAY_LENGTH(top_names); i++)
        if (strcmp(r->name, top_names[i].name) == 0)
            return fill_directory(fs_of(r->req), top_names[i].directory, &a->entry);
    return -ENOENT;
}

static int
serve_getattr(const struct snapshot_request *r, const struct remote_call *call, struct answer *a)
{
    struct fs *fs = fs_of(r->req);
    static const struct remote_call local_only = {.local_only = true};
    struct volume_attributes attributes;
    struct snapshot_view *view;
    unsigned number = snapshot_node_number(r->node);
    bool is_root = snapshot_node_object(r->node) == OBJECT_ROOT_DIRECTORY.v;
    a->kind = ANSWER_ATTRIBUTES;
    if (number == 0)
        return fill_directory(
            fs, (enum snapshot_directory)snapshot_node_object(r->node), &a->entry);
    // A look at the directory itself fetches nothing.
    int rc = enter(r, is_root ? &local_only : call, 0, &view);
    if (rc == 0) {
        rc = volume_get_attributes(view->volume, object_in(r), &attributes);
        snapshot_tree_put(view);
    } else if (rc == -EREMOTE && is_root) {
        rc = snapshot_tree_root(&fs->snapshots, number, &attributes);
        attributes.object = OBJECT_ROOT_DIRECTORY;
    }
    return rc < 0 ? rc : fill_entry(fs, number, &attributes, &a->entry);
}

static int
serve_readlink(const struct snapshot_request *r, const struct remote_call *call, struct answer *a)
{
    struct snapshot_view *view;
    int rc = enter(r, call, 0, &view);
    if (rc < 0)
        return rc;
    a->kind = ANSWER_LINK;
    rc = volume_read_link(view->volume, object_in(r), &a->text);
    snapshot_tree_put(view);
    return rc;
}

// Programs that list directories ask for access lists of each entry: that fetches nothing, either.
// A closed generation's root directory has no extended attributes.
static int
serve_xattr(const struct snapshot_request *r, const struct remote_call *call, struct answer *a)
{
    static const struct remote_call local_only = {.local_only = true};
    struct snapshot_view *view;
    bool is_root = snapshot_node_number(r->node) == 0 ||
                   snapshot_node_object(r->node) == OBJECT_ROOT_DIRECTORY.v;
    a->kind = ANSWER_VALUE;
    int rc = r->name ? fs_check_xattr_name(fs_of(r->req), r->name) : 0;
    if (rc < 0)
        return rc;
    rc = snapshot_node_number(r->node) == 0 ? -EREMOTE
                                            : enter(r, is_root ? &local_only : call, 0, &view);
    if (rc == -EREMOTE && is_root)
        return r->name ? -ENODATA : 0;
    if (rc < 0)
        return rc;
    if (r->name)
        rc = volume_get_xattr(view->volume, object_in(r), r->name, &a->text);
    else
        rc = volume_list_xattrs(view->volume, object_in(r), &a->text);
    snapshot_tree_put(view);
    if (rc == 0 && !r->name && fuse_req_ctx(r->req)->uid != 0)
        fs_remove_trusted(&a->text);
    return rc;
}

static int
serve_flags(const struct snapshot_request *r, const struct remote_call *call, struct answer *a)
{
    struct volume_attributes attributes;
    struct snapshot_view *view;
    if (snapshot_node_number(r->node) == 0)
        return -ENOTTY;
    int rc = enter(r, call, 0, &view);
    if (rc < 0)
        return rc;
    a->kind = ANSWER_FLAGS;
    rc = volume_get_attributes(view->volume, object_in(r), &attributes);
    if (rc == 0)
        a->flags = attributes.inode.flags;
    snapshot_tree_put(view);
    return rc;
}

// ---- directories --------------------------------------------------------------------------------

struct listing {
    struct fs_listing l;
    unsigned number;
    uint64_t nodes; // that the kernel gets
    int error;
};

static int
add_entry(void *argument, const char *name, size_t name_length, uint64_t offset,
    const struct volume_attributes *attributes)
{
    struct listing *x = argument;
    char text[NAME_BYTES_MAX + 1];
    struct fuse_entry_param entry;
    struct volume_attributes a = *attributes;
    if (name_length > NAME_BYTES_MAX)
        return 1;
    memcpy(text, name, name_length);
    text[name_length] = '\0';
    x->error = fill_entry(fs_of(x->l.req), x->number, &a, &entry);
    if (x->error != 0 || !fs_list_entry(&x->l, text, &entry, offset))
        return 1;
    x->nodes += x->l.plus;
    return 0;
}

// Node 0: the kernel looks it up when it needs more than the name. The inode number is none that a
// lookup gives, as of a directory on which something is mounted.
static int
add_name(void *argument, const char *name, uint64_t position)
{
    struct listing *x = argument;
    struct fuse_entry_param entry = {0};
    entry.attr.st_ino = snapshot_node(0, SNAPSHOT_OBJECT_MAX / 2 + position);
    entry.attr.st_mode = S_IFDIR;
    return fs_list_entry(&x->l, name, &entry, position + FS_OFFSET_DOT_DOT) ? 0 : 1;
}

static int
list_top(struct listing *x, uint64_t from)
{
    for (uint64_t i = from; i < ARRAY_LENGTH(top_names); i++)
        if (add_name(x, top_names[i].name, i + 1) != 0)
            break;
    return 0;
}

static int
list_inside(const struct snapshot_request *r, const struct remote_call *call, struct listing *x)
{
    struct snapshot_view *view;
    int rc = enter(r, call, 4, &view);
    if (rc < 0)
        return rc;
    rc = volume_read_directory(view->volume, object_in(r),
        r->offset <= FS_OFFSET_DOT_DOT ? 0 : r->offset, r->plus, add_entry, x);
    snapshot_tree_put(view);
    return rc;
}

static int
serve_readdir(const struct snapshot_request *r, const struct remote_call *call, struct answer *a)
{
    struct snapshot_tree *t = &fs_of(r->req)->snapshots;
    struct listing x = {.l = {.req = r->req, .size = r->size, .plus = r->plus},
        .number = snapshot_node_number(r->node)};
    uint64_t from = r->offset <= FS_OFFSET_DOT_DOT ? 0 : r->offset - FS_OFFSET_DOT_DOT;
    enum snapshot_directory directory = (enum snapshot_directory)snapshot_node_object(r->node);
    x.l.out = fs_scratch(r->size);
    int rc = 0;
    if (fs_list_dots(&x.l, r->node, FUSE_ROOT_ID, r->offset)) {
        size_t dots = x.l.used;
        if (x.number != 0)
            rc = list_inside(r, call, &x);
        else if (directory == SNAPSHOT_TOP)
            rc = list_top(&x, from);
        else
            rc = snapshot_tree_list(t, directory, from, call, add_name, &x);
        rc = rc < 0 ? rc : x.error;
        // The entries that came before a failure are good.
        if (rc < 0 && x.l.used > dots)
            rc = 0;
    }
    if (rc == 0)
        refer(r, a, x.number, x.nodes);
    a->kind = ANSWER_BYTES;
    a->data = x.l.out;
    a->length = x.l.used;
    return rc;
}

// ---- files --------------------------------------------------------------------------------------

static int
serve_open(const struct snapshot_request *r, const struct remote_call *call, struct answer *a)
{
    struct volume_attributes attributes;
    struct snapshot_view *view;
    int rc = enter(r, call, 0, &view);
    if (rc < 0)
        return rc;
    a->kind = ANSWER_OPENED;
    rc = volume_get_attributes(view->volume, object_in(r), &attributes);
    if (rc == 0)
        snapshot_tree_file_opened(view, snapshot_node_number(r->node));
    snapshot_tree_put(view);
    return rc;
}

static int
serve_read(const struct snapshot_request *r, const struct remote_call *call, struct answer *a)
{
    struct volume_read_context context = {.call = *call};
    struct snapshot_view *view;
    int rc = enter(r, call, 0, &view);
    if (rc < 0)
        return rc;
    uint8_t *data = fs_scratch(r->size);
    int64_t n = volume_read(view->volume, object_in(r), r->offset, r->size, data, &context);
    snapshot_tree_put(view);
    a->kind = ANSWER_BYTES;
    a->data = data;
    a->length = n < 0 ? 0 : (size_t)n;
    return n < 0 ? (int)n : 0;
}

static int
serve_lseek(const struct snapshot_request *r, const struct remote_call *call, struct answer *a)
{
    struct snapshot_view *view;
    int rc = enter(r, call, 0, &view);
    if (rc < 0)
        return rc;
    a->kind = ANSWER_OFFSET;
    a->offset = volume_seek(view->volume, object_in(r), r->offset, r->whence, call);
    snapshot_tree_put(view);
    return a->offset < 0 ? (int)a->offset : 0;
}

// ---- requests -----------------------------------------------------------------------------------

bool
snapshot_ops_is_top(fuse_ino_t parent, const char *name)
{
    return parent == FUSE_ROOT_ID && strcmp(name, SNAPSHOT_TREE_NAME) == 0;
}

void
snapshot_ops_lookup_top(fuse_req_t req)
{
    struct fuse_entry_param entry;
    int rc = fill_directory(fs_of(req), SNAPSHOT_TOP, &entry);
    if (rc < 0)
        fs_reply_result(req, rc);
    else
        fuse_reply_entry(req, &entry);
}

bool
snapshot_ops_refuse(fuse_req_t req, fuse_ino_t ino)
{
    if (LIKELY(!snapshot_node_is(ino)))
        return false;
    fs_reply_result(req, -EROFS);
    return true;
}

bool
snapshot_ops_refuse_name(fuse_req_t req, fuse_ino_t parent, const char *name, int result)
{
    struct volume_attributes own;
    if (LIKELY(!snapshot_ops_is_top(parent, name)) ||
        volume_lookup(fs_of(req)->volume, OBJECT_ROOT_DIRECTORY, name, &own) != -ENOENT)
        return false;
    fs_reply_result(req, result);
    return true;
}

void
snapshot_ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    begin(&(const struct snapshot_request){
        .req = req, .serve = serve_lookup, .node = parent, .name = name});
}

void
snapshot_ops_getattr(fuse_req_t req, fuse_ino_t ino)
{
    begin(&(const struct snapshot_request){.req = req, .serve = serve_getattr, .node = ino});
}

void
snapshot_ops_readlink(fuse_req_t req, fuse_ino_t ino)
{
    begin(&(const struct snapshot_request){.req = req, .serve = serve_readlink, .node = ino});
}

void
snapshot_ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, uint64_t offset, bool plus)
{
    begin(&(const struct snapshot_request){.req = req,
        .serve = serve_readdir,
        .node = ino,
        .size = size,
        .offset = offset,
        .plus = plus});
}

void
snapshot_ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    begin(&(const struct snapshot_request){
        .req = req, .serve = serve_xattr, .node = ino, .name = name, .size = size});
}

void
snapshot_ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    begin(&(const struct snapshot_request){
        .req = req, .serve = serve_xattr, .node = ino, .size = size});
}

void
snapshot_ops_open(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi)
{
    if ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC))
        fs_reply_result(req, -EROFS);
    else
        begin(&(const struct snapshot_request){.req = req, .serve = serve_open, .node = ino});
}

void
snapshot_ops_release(fuse_req_t req, fuse_ino_t ino)
{
    snapshot_tree_file_closed(&fs_of(req)->snapshots, snapshot_node_number(ino));
    fs_reply_result(req, 0);
}

void
snapshot_ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset)
{
    if (offset < 0)
        fs_reply_result(req, -EINVAL);
    else
        begin(&(const struct snapshot_request){.req = req,
            .serve = serve_read,
            .node = ino,
            .size = size,
            .offset = (uint64_t)offset});
}

void
snapshot_ops_lseek(fuse_req_t req, fuse_ino_t ino, uint64_t offset, int whence)
{
    begin(&(const struct snapshot_request){
        .req = req, .serve = serve_lseek, .node = ino, .offset = offset, .whence = whence});
}

// Those of the program are for the mounted volume.
void
snapshot_ops_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, size_t out_size)
{
    size_t needed = command == FS_IOC_FSGETXATTR ? sizeof(struct fsxattr) : sizeof(uint32_t);
    if (command == FS_IOC_SETFLAGS || command == FS_IOC_FSSETXATTR ||
        _IOC_TYPE(command) == _IOC_TYPE(CKPTFS_IOC_STATUS))
        fs_reply_result(req, -EROFS);
    else if (command != FS_IOC_GETFLAGS && command != FS_IOC_FSGETXATTR)
        fs_reply_result(req, -ENOTTY);
    else if (out_size < needed)
        fs_reply_result(req, -EINVAL);
    else
        begin(&(const struct snapshot_request){
            .req = req, .serve = serve_flags, .node = ino, .command = command});
}
