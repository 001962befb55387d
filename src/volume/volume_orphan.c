// SPDX-License-Identifier: Apache-2.0
// Objects without names. An inode that lost its last link lives on while it is open or the kernel
// still refers to it: the kernel forgets an inode without links as soon as its last user is gone.
// After the death of a daemon the next mount deletes the rest.
#include <errno.h>
#include <stdlib.h>

#include "platform/log.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

const struct live_object *
volume_see_live_locked(const struct volume *v, struct object_id object)
{
    const struct hash_node *n = hash_table_first(&v->live_objects, hash_u64(object.v));
    for (; n; n = hash_table_next_same(n)) {
        const struct live_object *o = CONTAINER_OF(n, struct live_object, node);
        if (o->object.v == object.v)
            return o;
    }
    return NULL;
}

struct live_object *
volume_find_live_locked(struct volume *v, struct object_id object)
{
    return (struct live_object *)volume_see_live_locked(v, object);
}

static struct live_object *
find_or_make_locked(struct volume *v, struct object_id object)
{
    struct live_object *o = volume_find_live_locked(v, object);
    if (o)
        return o;
    o = memory_alloc_zero(sizeof(*o));
    o->object = object;
    hash_table_insert(&v->live_objects, &o->node, hash_u64(object.v));
    return o;
}

static void
drop_locked(struct volume *v, struct live_object *o)
{
    hash_table_remove(&v->live_objects, &o->node);
    free(o);
}

void
volume_free_live_objects(struct volume *v)
{
    HASH_TABLE_FOR_EACH(&v->live_objects, n)
    drop_locked(v, CONTAINER_OF(n, struct live_object, node));
    hash_table_free(&v->live_objects);
    free(v->undeleted);
}

int
volume_check_nameless_locked(const struct volume *v, struct object_id object)
{
    const struct live_object *o = volume_see_live_locked(v, object);
    return o && o->nameless ? 0 : -ENOENT;
}

static void
note_named_locked(struct volume *v, struct live_object *o)
{
    o->orphan = o->nameless = false;
    if (o->opens == 0)
        drop_locked(v, o);
}

void
volume_take_note_locked(struct volume *v, enum live_note note, struct object_id object)
{
    struct live_object *o;
    switch (note) {
    case LIVE_AS_IT_IS:
        return;
    case LIVE_ORPHAN:
        find_or_make_locked(v, object)->orphan = true;
        return;
    case LIVE_NAMELESS:
        o = find_or_make_locked(v, object);
        o->orphan = o->nameless = true;
        return;
    case LIVE_NAMED:
        note_named_locked(v, volume_find_live_locked(v, object));
        return;
    case LIVE_ATIME_SET:
        o = volume_find_live_locked(v, object);
        if (o)
            o->accessed = false;
        return;
    }
}

int
volume_object_opened(struct volume *v, struct object_id object)
{
    lock_take(&v->lock);
    find_or_make_locked(v, object)->opens++;
    lock_release(&v->lock);
    return 0;
}

static int
decide_delete(struct view *view, struct operation *op)
{
    const struct object_id *object = op->argument;
    struct inode_record inode;
    int rc = view_inode(view, *object, &inode);
    if (rc < 0)
        return rc;
    if (inode.nlink > 0)
        return 0; // it has a name again
    op->changes[op->count++] = (struct change){.kind = CHANGE_DELETE_INODE, .object = *object};
    return 0;
}

static int
delete_object(struct volume *v, struct object_id object, bool now)
{
    struct operation op = {.decide = decide_delete, .argument = &object, .optional = now};
    int rc = volume_operate(v, &op);
    return rc == -ENOENT ? 0 : rc;
}

// Lets go of an object without openers; one without names waits until the kernel forgets it. True:
// the object is to be deleted.
static bool
let_go_locked(struct volume *v, struct live_object *o)
{
    if (o->opens > 0 || (o->orphan && !o->forgotten))
        return false;
    bool delete = o->orphan && !v->own.read_only;
    drop_locked(v, o);
    return delete;
}

// Without room in the log the deletion has to wait: the housekeeping thread tries it again.
static void
delete_orphan(struct volume *v, struct object_id object)
{
    int rc = delete_object(v, object, false);
    if (rc == -ENOSPC) {
        lock_take(&v->lock);
        size_t n = v->undeleted_count + 1;
        v->undeleted = memory_realloc(v->undeleted, n * sizeof(*v->undeleted));
        v->undeleted[v->undeleted_count++] = object;
        lock_release(&v->lock);
    } else if (rc < 0 && rc != -EROFS) {
        log_warning("volume.orphan", "cannot delete object %llu now: %s; the next mount will",
            (unsigned long long)object.v, strerror(-rc));
    }
}

void
volume_delete_late(struct volume *v)
{
    for (int rc = 0; rc == 0;) {
        lock_take(&v->lock);
        size_t n = v->undeleted_count;
        struct object_id object = n > 0 ? v->undeleted[n - 1] : (struct object_id){0};
        lock_release(&v->lock);
        if (n == 0)
            return;
        rc = delete_object(v, object, true);
        if (rc == -ENOSPC)
            return;
        // Others only append.
        lock_take(&v->lock);
        v->undeleted_count--;
        memmove(&v->undeleted[n - 1], &v->undeleted[n],
            (v->undeleted_count + 1 - n) * sizeof(*v->undeleted));
        lock_release(&v->lock);
    }
}

bool
volume_is_abandoned_locked(
    struct volume *v, struct object_id object, const struct inode_record *inode)
{
    return inode->nlink == 0 && !volume_find_live_locked(v, object);
}

// The time of access is logged while the object still is open, so that no program sees the older
// one.
static void
log_atime_locked(struct volume *v, struct live_object *o)
{
    struct object_id object = o->object;
    struct timestamp atime = o->atime;
    lock_release(&v->lock);
    volume_keep_atime(v, object, atime);
    lock_take(&v->lock);
    if (o->atime.seconds == atime.seconds && o->atime.nanoseconds == atime.nanoseconds)
        o->accessed = false;
}

void
volume_object_closed(struct volume *v, struct object_id object)
{
    lock_take(&v->lock);
    struct live_object *o = volume_find_live_locked(v, object);
    // It cannot go while its last opener is here.
    while (o && o->opens == 1 && o->accessed && !o->orphan && !v->own.read_only)
        log_atime_locked(v, o);
    bool gone = o && o->opens > 0 && --o->opens == 0 && let_go_locked(v, o);
    lock_release(&v->lock);
    if (gone)
        delete_orphan(v, object);
}

// The kernel says so after its last close, but another thread may be faster with this than with
// that.
void
volume_object_forgotten(struct volume *v, struct object_id object)
{
    lock_take(&v->lock);
    struct live_object *o = volume_find_live_locked(v, object);
    bool gone = false;
    if (o && o->orphan) {
        o->forgotten = true;
        gone = let_go_locked(v, o);
    }
    lock_release(&v->lock);
    if (gone)
        delete_orphan(v, object);
}

// ---- at mount -----------------------------------------------------------------------------------

struct orphans {
    struct object_id *ids;
    size_t count;
    size_t capacity;
};

static void
note(struct orphans *o, struct object_id id)
{
    if (o->count == o->capacity) {
        o->capacity = o->capacity ? 2 * o->capacity : 64;
        o->ids = memory_realloc(o->ids, o->capacity * sizeof(*o->ids));
    }
    o->ids[o->count++] = id;
}

static int
note_base(void *argument, struct object_id object, const struct inode_record *inode UNUSED)
{
    note(argument, object);
    return 0;
}

static int
note_change(void *argument, const struct change *change)
{
    note(argument, change->object);
    return 0;
}

int
volume_purge_orphans(struct volume *v)
{
    struct orphans o = {0};
    struct manifest_reader *r;
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_orphans(r, v->db, note_base, &o);
    manifest_read_end(r);
    lock_take(&v->lock);
    if (rc == 0)
        rc = namespace_set_walk_orphans(v->names, note_change, &o);
    lock_release(&v->lock);
    for (size_t i = 0; rc == 0 && i < o.count; i++)
        rc = delete_object(v, o.ids[i], false);
    free(o.ids);
    return rc;
}
