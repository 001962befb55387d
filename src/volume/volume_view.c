// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

void
view_init(struct view *view, const struct volume *v)
{
    memset(view, 0, sizeof(*view));
    view->volume = v;
    view->version = UINT64_MAX;
}

static void
forget(struct view *view)
{
    for (unsigned i = 0; i < view->inode_count; i++) {
        free((char *)view->inodes[i].inode.link_target);
        free((void *)view->inodes[i].inode.extension);
    }
    for (unsigned i = 0; i < view->name_count; i++)
        for (unsigned k = 0; k < view->names[i].count; k++)
            free((char *)view->names[i].entries[k].name);
    free(view->xattr.name);
    free(view->xattr.value);
    view->inode_count = view->name_count = 0;
    view->xattr = (struct view_xattr){0};
    view->need = NEED_NOTHING;
}

void
view_free(struct view *view)
{
    forget(view);
}

bool
view_check_locked(struct view *view)
{
    if (view->version == view->volume->version)
        return true;
    forget(view);
    view->version = view->volume->version;
    return false;
}

// ---- loading ------------------------------------------------------------------------------------

static int
load_inode(struct view *view, struct manifest_reader *r)
{
    struct view_inode *e = &view->inodes[view->inode_count];
    *e = (struct view_inode){.object = view->need_object};
    int rc = manifest_read_inode(r, view->volume->db, view->need_object, &e->inode);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    e->exists = rc == 0;
    if (e->exists && e->inode.link_target) {
        char *copy = memory_alloc(e->inode.link_target_length + 1u);
        memcpy(copy, e->inode.link_target, e->inode.link_target_length);
        copy[e->inode.link_target_length] = 0;
        e->inode.link_target = copy;
    }
    if (e->exists && e->inode.extension) {
        void *copy = memory_alloc(e->inode.extension_length);
        memcpy(copy, e->inode.extension, e->inode.extension_length);
        e->inode.extension = copy;
    }
    view->inode_count++;
    return 0;
}

static int
keep_name(void *argument, const struct dirent_record *dirent)
{
    struct view_name *n = argument;
    if (n->count == ARRAY_LENGTH(n->entries))
        return -EOVERFLOW;
    char *copy = memory_alloc(dirent->name_length + 1u);
    memcpy(copy, dirent->name, dirent->name_length);
    copy[dirent->name_length] = 0;
    n->entries[n->count] = *dirent;
    n->entries[n->count++].name = copy;
    return 0;
}

static int
load_name(struct view *view, struct manifest_reader *r)
{
    struct view_name *n = &view->names[view->name_count];
    n->parent = view->need_object;
    n->hash = view->need_hash;
    n->count = 0;
    view->name_count++;
    return manifest_read_dirents(
        r, view->volume->db, n->parent, n->hash, n->hash + DIRENT_SLOTS - 1, keep_name, n);
}

static int
load_xattr(struct view *view, struct manifest_reader *r)
{
    struct view_xattr *x = &view->xattr;
    free(x->name);
    free(x->value);
    *x = (struct view_xattr){.loaded = true, .object = view->need_object};
    x->name = memory_string(view->need_name);
    struct xattr_record record;
    int rc = manifest_read_xattr(r, view->volume->db, x->object, x->name, strlen(x->name), &record);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    x->exists = true;
    x->value_length = record.value_length;
    x->value = memory_alloc(record.value_length);
    memcpy(x->value, record.value, record.value_length);
    return 0;
}

int
view_load(struct view *view)
{
    struct manifest_reader *r;
    int rc = manifest_read_begin(view->volume->manifest, &r);
    if (rc < 0)
        return rc;
    if (view->need == NEED_INODE)
        rc = load_inode(view, r);
    else if (view->need == NEED_NAME)
        rc = load_name(view, r);
    else
        rc = load_xattr(view, r);
    manifest_read_end(r);
    view->need = NEED_NOTHING;
    return rc;
}

// ---- inodes -------------------------------------------------------------------------------------

int
view_recorded_inode(struct view *view, struct object_id object, struct inode_record *inode_out)
{
    const struct volume *v = view->volume;
    enum layer_state state = namespace_set_find_inode(v->names, object, inode_out);
    if (state == LAYER_ABSENT && v->frozen_names)
        state = namespace_set_find_inode(v->frozen_names, object, inode_out);
    if (state != LAYER_ABSENT)
        return state == LAYER_PUT ? 0 : -ENOENT;
    for (unsigned i = 0; i < view->inode_count; i++) {
        if (view->inodes[i].object.v != object.v)
            continue;
        *inode_out = view->inodes[i].inode;
        return view->inodes[i].exists ? 0 : -ENOENT;
    }
    assert(view->inode_count < VIEW_INODES);
    view->need = NEED_INODE;
    view->need_object = object;
    return -EAGAIN;
}

int
view_inode(struct view *view, struct object_id object, struct inode_record *inode_out)
{
    int rc = view_recorded_inode(view, object, inode_out);
    if (rc == 0)
        volume_merge_atime_locked(view->volume, object, inode_out);
    return rc;
}

// ---- contradictions -----------------------------------------------------------------------------

int
view_contradiction(struct view *view, struct object_id object, const char *wrong)
{
    view->contradiction = wrong;
    view->contradictory = object;
    return -EIO;
}

void
view_log_contradiction(struct view *view)
{
    if (view->contradiction)
        log_error("volume.contradiction", "object %llu: %s",
            (unsigned long long)view->contradictory.v, view->contradiction);
    view->contradiction = NULL;
}

int
view_named_inode(
    struct view *view, const struct dirent_record *dirent, struct inode_record *inode_out)
{
    int rc = view_inode(view, dirent->object, inode_out);
    if (rc == -ENOENT)
        return view_contradiction(view, dirent->object, "a directory names it, but it is missing");
    if (rc == 0 && inode_out->nlink == 0)
        return view_contradiction(view, dirent->object, "a directory names it, but it has no link");
    return rc;
}

// ---- names --------------------------------------------------------------------------------------

// The first of the cookies that names with this hash may have.
static uint64_t
hash_name(const struct volume *v, const char *name)
{
    uint64_t h = siphash24(&v->name_key, name, strlen(name)) >> 1;
    h &= ~(uint64_t)(DIRENT_SLOTS - 1);
    return h == 0 ? DIRENT_SLOTS : h;
}

static bool
is_name(const struct dirent_record *d, const char *name, size_t length)
{
    return d->name_length == length && memcmp(d->name, name, length) == 0;
}

static enum layer_state
find_in_set(const struct namespace_set *set, struct object_id parent, uint64_t hash,
    const char *name, struct dirent_record *dirent_out)
{
    size_t length = strlen(name);
    const struct namespace_dirent *e = namespace_set_next_dirent(set, parent, hash);
    for (; e && e->dirent.cookie < hash + DIRENT_SLOTS;
         e = namespace_set_next_dirent(set, parent, e->dirent.cookie + 1)) {
        if (!is_name(&e->dirent, name, length))
            continue;
        *dirent_out = e->dirent;
        return e->deleted ? LAYER_DELETED : LAYER_PUT;
    }
    return LAYER_ABSENT;
}

static const struct view_name *
find_loaded(struct view *view, struct object_id parent, uint64_t hash)
{
    for (unsigned i = 0; i < view->name_count; i++)
        if (view->names[i].parent.v == parent.v && view->names[i].hash == hash)
            return &view->names[i];
    assert(view->name_count < VIEW_NAMES);
    view->need = NEED_NAME;
    view->need_object = parent;
    view->need_hash = hash;
    return NULL;
}

int
view_dirent(
    struct view *view, struct object_id parent, const char *name, struct dirent_record *dirent_out)
{
    const struct volume *v = view->volume;
    uint64_t hash = hash_name(v, name);
    enum layer_state state = find_in_set(v->names, parent, hash, name, dirent_out);
    if (state == LAYER_ABSENT && v->frozen_names)
        state = find_in_set(v->frozen_names, parent, hash, name, dirent_out);
    if (state != LAYER_ABSENT)
        return state == LAYER_PUT ? 0 : -ENOENT;
    const struct view_name *loaded = find_loaded(view, parent, hash);
    if (!loaded)
        return -EAGAIN;
    for (unsigned i = 0; i < loaded->count; i++) {
        if (!is_name(&loaded->entries[i], name, strlen(name)))
            continue;
        *dirent_out = loaded->entries[i];
        return 0;
    }
    return -ENOENT;
}

static void
mark_used(const struct namespace_set *set, struct object_id parent, uint64_t hash, const char *name,
    bool *used)
{
    if (!set)
        return;
    const struct namespace_dirent *e = namespace_set_next_dirent(set, parent, hash);
    for (; e && e->dirent.cookie < hash + DIRENT_SLOTS;
         e = namespace_set_next_dirent(set, parent, e->dirent.cookie + 1))
        if (!is_name(&e->dirent, name, strlen(name)))
            used[e->dirent.cookie - hash] = true;
}

// A slot counts as used even when it was freed in a layer: a layer's entry hides the one below by
// its cookie alone, so another name must not take it before the tables have let go of it.
int
view_new_cookie(struct view *view, struct object_id parent, const char *name, uint64_t *cookie_out)
{
    const struct volume *v = view->volume;
    uint64_t hash = hash_name(v, name);
    bool used[DIRENT_SLOTS] = {false};
    const struct view_name *loaded = find_loaded(view, parent, hash);
    if (!loaded)
        return -EAGAIN;
    for (unsigned i = 0; i < loaded->count; i++)
        if (!is_name(&loaded->entries[i], name, strlen(name)))
            used[loaded->entries[i].cookie - hash] = true;
    mark_used(v->names, parent, hash, name, used);
    mark_used(v->frozen_names, parent, hash, name, used);
    for (unsigned i = 0; i < DIRENT_SLOTS; i++) {
        if (used[i])
            continue;
        *cookie_out = hash + i;
        return 0;
    }
    return -ENOSPC;
}

// ---- extended attributes ------------------------------------------------------------------------

int
view_xattr(
    struct view *view, struct object_id object, const char *name, struct xattr_record *xattr_out)
{
    const struct volume *v = view->volume;
    size_t length = strlen(name);
    enum layer_state state = namespace_set_find_xattr(v->names, object, name, length, xattr_out);
    if (state == LAYER_ABSENT && v->frozen_names)
        state = namespace_set_find_xattr(v->frozen_names, object, name, length, xattr_out);
    if (state != LAYER_ABSENT)
        return state == LAYER_PUT ? 0 : -ENOENT;
    struct view_xattr *x = &view->xattr;
    if (!x->loaded || x->object.v != object.v || strcmp(x->name, name) != 0) {
        view->need = NEED_XATTR;
        view->need_object = object;
        view->need_name = name;
        return -EAGAIN;
    }
    *xattr_out =
        (struct xattr_record){.object = object, .value_length = x->value_length, .value = x->value};
    return x->exists ? 0 : -ENOENT;
}
