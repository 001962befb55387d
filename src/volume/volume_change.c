// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "volume/volume_internal.h"

// Room for the changes of an operation without its declared extra: a rename puts five inodes and
// four names, a symbolic link its target.
#define CHANGES_RESERVE 12288u
// How long a writer waits for room before it is told ENOSPC, when folds fail or the log cannot
// grow; for as long as both go well, it waits.
#define ROOM_DEADLINE_MS 60000u
#define ROOM_HOPELESS_MS 3000u // when they fail for a reason that no waiting mends
// A writer that waits looks again so often, and presses for a fold. A segment that becomes free
// wakes it before. Under a quota it looks more often: nothing wakes it when an eviction, a
// publication or another daemon makes room. Without one a writer in a hurry waits for a flush most
// of the time, and a fold would only stage what its stream has begun to write.
#define ROOM_SLICE_MS       1000u
#define ROOM_QUOTA_SLICE_MS 20u
#define REFUSED_MS          2000u // so long after one was told, others are told at once
// Changes of names and inodes that may gather in memory before the volume asks for a fold, and
// before writers wait for it: so memory does not grow with the number of files. The same of the
// bytes that they carry: names, link targets and extended attributes.
#define NAMES_PRESS       32768u
#define NAMES_MAX         131072u
#define NAMES_BYTES_PRESS (8u << 20)

struct timestamp
volume_now(void)
{
    struct timespec t = clock_wall_coarse();
    return (struct timestamp){.seconds = t.tv_sec, .nanoseconds = (uint32_t)t.tv_nsec};
}

struct change
change_put_inode(struct object_id object, const struct inode_record *inode)
{
    struct change c = {.kind = CHANGE_PUT_INODE, .object = object};
    c.inode = *inode;
    return c;
}

int
volume_look(struct volume *v, int (*look)(struct view *view, void *argument), void *argument)
{
    struct view view;
    view_init(&view, v);
    int rc;
    for (;;) {
        lock_take(&v->lock);
        view_check_locked(&view);
        rc = look(&view, argument);
        lock_release(&v->lock);
        if (rc != -EAGAIN)
            break;
        rc = view_load(&view);
        if (rc < 0)
            break;
    }
    if (rc == -EIO)
        view_log_contradiction(&view);
    view_free(&view);
    return rc;
}

// ---- applying -----------------------------------------------------------------------------------

void
volume_apply_locked(struct volume *v, const struct change *change, struct page_piece *pieces,
    size_t piece_count, struct lsn payload, uint64_t size)
{
    switch (change->kind) {
    case CHANGE_WRITE:
        page_store_put_locked(v->pages, change->object, pieces, piece_count, payload, size);
        return;
    case CHANGE_DISCARD: {
        uint64_t end = change->length == UINT64_MAX ? UINT64_MAX : change->offset + change->length;
        page_store_discard_locked(v->pages, change->object, change->offset, end, size);
        return;
    }
    case CHANGE_DELETE_INODE:
        page_store_drop_object_locked(v->pages, change->object);
        namespace_set_apply(v->names, change);
        return;
    case CHANGE_PUT_INODE:
        if (change->object.v >= v->counters.next_object)
            v->counters.next_object = change->object.v + 1;
        namespace_set_apply(v->names, change);
        return;
    default:
        namespace_set_apply(v->names, change);
    }
}

// The size of the object that an operation's data changes are about, before them.
static int
size_before(struct view *view, const struct operation *op, uint64_t *size_out)
{
    *size_out = 0;
    for (unsigned i = 0; i < op->count; i++) {
        if (op->changes[i].kind != CHANGE_WRITE && op->changes[i].kind != CHANGE_DISCARD)
            continue;
        struct inode_record inode;
        int rc = view_inode(view, op->changes[i].object, &inode);
        *size_out = inode.size;
        return rc;
    }
    return 0;
}

// ---- obstacles to putting pages -----------------------------------------------------------------

struct obstacle {
    struct object_id object;
    struct page_piece *edges; // owned; NULL: the operation's own pieces
    size_t count;
};

// Whether a partial page lies over one that is only in the WAL: it must be read first.
static bool
find_obstacle_locked(struct volume *v, const struct operation *op, struct obstacle *o)
{
    for (unsigned i = 0; i < op->count; i++) {
        const struct change *c = &op->changes[i];
        *o = (struct obstacle){.object = c->object};
        if (c->kind == CHANGE_WRITE &&
            !page_store_can_put_locked(v->pages, c->object, op->pieces, op->piece_count))
            return true;
        if (c->kind != CHANGE_DISCARD)
            continue;
        uint64_t end = c->length == UINT64_MAX ? UINT64_MAX : c->offset + c->length;
        o->edges = page_store_edges(c->offset, end, &o->count);
        if (!page_store_can_put_locked(v->pages, c->object, o->edges, o->count))
            return true;
        page_pieces_free(o->edges, o->count);
        o->edges = NULL;
    }
    return false;
}

static int
remove_obstacle(struct volume *v, const struct operation *op, struct obstacle *o)
{
    int rc = page_store_prefault(v->pages, o->object, o->edges ? o->edges : op->pieces,
        o->edges ? o->count : op->piece_count);
    page_pieces_free(o->edges, o->count);
    return rc;
}

// ---- operating ----------------------------------------------------------------------------------

// Each fold that fails takes the gathered changes into its cut and leaves an empty layer, so the
// cut counts too: else names would gather in memory without end.
static bool
is_full_locked(struct volume *v)
{
    size_t names = namespace_set_count(v->names);
    uint64_t bytes = namespace_set_bytes(v->names);
    if (v->fold_failed && v->frozen_names) {
        names += namespace_set_count(v->frozen_names) / 2;
        bytes += namespace_set_bytes(v->frozen_names) / 2;
    }
    return page_store_is_full_locked(v->pages) || names > NAMES_MAX || bytes > NAMES_BYTES_MAX;
}

static bool
is_tight_locked(struct volume *v)
{
    return page_store_is_tight_locked(v->pages) || namespace_set_count(v->names) > NAMES_PRESS ||
           namespace_set_bytes(v->names) > NAMES_BYTES_PRESS;
}

// A writer waits here for dirty pages that cannot leave memory, or for a full log, before it locks
// or decides anything.
static int
wait_for_memory(struct volume *v, uint64_t deadline)
{
    lock_take(&v->lock);
    bool in_time = true;
    while (in_time && !v->own.read_only && is_full_locked(v)) {
        lock_release(&v->lock);
        volume_press(v);
        lock_take(&v->lock);
        if (!is_full_locked(v))
            break;
        flush_pace_begin_waiting(&v->pace);
        in_time = condition_wait_until(&v->folded, &v->lock, deadline);
        flush_pace_end_waiting(&v->pace);
    }
    bool read_only = v->own.read_only;
    lock_release(&v->lock);
    return read_only ? -EROFS : in_time ? 0 : -ENOSPC;
}

// The error for a writer when there is no room because folds fail with `error`. A full disk, one
// that fails, one that became read-only, and damage that folds meet do not pass by themselves.
static int
room_error(int error, bool *hopeless_out)
{
    *hopeless_out = error == -ENOSPC || error == -EIO || error == -EBADMSG || error == -EROFS;
    return error == -EROFS ? -EROFS : error == -EIO || error == -EBADMSG ? -EIO : -ENOSPC;
}

static bool
is_store_reachable(struct volume *v)
{
    struct checkpoint_numbers c = {0};
    struct remote_trouble trouble = {0};
    struct checkpoint *checkpoint = volume_started_checkpoint(v);
    if (checkpoint)
        checkpoint_numbers(checkpoint, &c);
    remote_store_trouble(v->remote, &trouble);
    return c.store_reachable && trouble.tries < 2;
}

// Where one writer has waited in vain others need not wait as long: the kernel hands over its
// cached data in many pieces, one after the other.
static bool
has_refused(const struct volume *v, uint64_t now)
{
    uint64_t refused = atomic_load(&v->refused_ms);
    return refused > 0 && now < refused + REFUSED_MS;
}

// Waits a slice at a time: a disk that is full shows by folds that fail, and then there is nothing
// to wait for.
static int
wait_for_room(struct volume *v, uint32_t bytes, const struct operation *op)
{
    struct wal_numbers n;
    uint64_t began = clock_monotonic_ms();
    uint64_t slice_ms = storage_quota_is_limited(v->quota) ? ROOM_QUOTA_SLICE_MS : ROOM_SLICE_MS;
    uint64_t turn = 0;
    if (op->optional) {
        int rc = wait_for_memory(v, began);
        return rc == 0 ? wal_reserve(v->wal, bytes, began) : rc;
    }
    for (bool at_once = has_refused(v, began);; at_once = false) {
        uint64_t slice = clock_monotonic_ms() + (at_once ? 0 : slice_ms);
        int rc = wait_for_memory(v, slice);
        // A removal makes room.
        if (rc == 0 && op->payload_length == 0 && !storage_quota_may_fill(v->quota, QUOTA_GROW) &&
            wal_reserve_past_quota(v->wal, bytes) == 0)
            return 0;
        if (rc == 0)
            rc = wal_reserve_in_turn(v->wal, bytes, slice, &turn);
        if (rc != -ENOSPC)
            return rc;
        if (thread_is_interrupted())
            return -EINTR;
        uint64_t waited = clock_monotonic_ms() - began;
        struct checkpoint *checkpoint = volume_started_checkpoint(v);
        int error = checkpoint ? checkpoint_fold_error(checkpoint) : -EBUSY;
        wal_numbers(v->wal, &n);
        bool stuck = error != 0 || n.spare_error != 0 || n.quota_full;
        bool hopeless;
        rc = room_error(error, &hopeless);
        // Publications make room in a quota.
        if (n.quota_full || n.spare_error == -EDQUOT || error == -EDQUOT) {
            hopeless |= !is_store_reachable(v);
            volume_relieve(v);
        }
        if (stuck && (at_once || waited >= (hopeless ? ROOM_HOPELESS_MS : ROOM_DEADLINE_MS))) {
            if (!at_once)
                atomic_store(&v->refused_ms, clock_monotonic_ms());
            if (n.quota_full)
                storage_quota_note_exhausted(v->quota);
            return rc;
        }
        volume_press(v);
    }
}

static uint32_t
encoded_length(struct operation *op, struct buffer *body)
{
    buffer_clear(body);
    for (unsigned i = 0; i < op->count; i++)
        change_encode(&op->changes[i], body);
    return (uint32_t)body->length;
}

struct logged {
    struct wal_slot slot;
    struct buffer body;
    uint32_t page_offset;
    uint32_t *crcs;
    bool tight; // dirty pages fill the memory
};

static uint32_t
payload_page_offset(const struct operation *op)
{
    return op->piece_count > 0 ? op->pieces[0].from : 0;
}

// Gives the operation its place in the log and in the layers, in one step.
static void
log_and_apply_locked(
    struct volume *v, struct operation *op, uint32_t reserved, uint64_t size, struct logged *l)
{
    uint32_t body = encoded_length(op, &l->body);
    l->page_offset = payload_page_offset(op);
    uint32_t length = wal_record_length(l->page_offset, body, op->payload_length);
    wal_begin(v->wal, reserved, length, &l->slot);
    struct lsn payload = wal_payload_lsn(&l->slot, l->page_offset, body, op->payload_length);
    l->crcs = memory_alloc(op->piece_count * sizeof(*l->crcs));
    for (size_t i = 0; i < op->piece_count; i++)
        l->crcs[i] = op->pieces[i].crc;
    for (unsigned i = 0; i < op->count; i++)
        volume_apply_locked(v, &op->changes[i], op->pieces, op->piece_count, payload, size);
    if (op->note != LIVE_AS_IT_IS)
        volume_take_note_locked(v, op->note, op->noted);
    l->tight = is_tight_locked(v);
    if (v->oldest_change_ms == 0)
        v->oldest_change_ms = clock_monotonic_ms();
}

static int
run_decide(struct view *view, struct operation *op)
{
    op->count = 0;
    op->note = LIVE_AS_IT_IS;
    return op->decide(view, op);
}

// The object that a change is about, in messages.
static struct object_id
subject_of(const struct change *c)
{
    switch (c->kind) {
    case CHANGE_PUT_DIRENT:
    case CHANGE_DELETE_DIRENT:
        return c->dirent.parent;
    case CHANGE_PUT_XATTR:
    case CHANGE_DELETE_XATTR:
        return c->xattr.object;
    default:
        return c->object;
    }
}

// Each replay must accept all logged changes, or no mount succeeds any more.
static int
check_changes(struct view *view, const struct operation *op)
{
    for (unsigned i = 0; i < op->count; i++) {
        const struct change *c = &op->changes[i];
        if (!change_is_valid(c) ||
            !volume_is_loggable(c, op->payload_length, payload_page_offset(op)))
            return view_contradiction(
                view, subject_of(c), "a change to it would make no sense in the log");
    }
    return 0;
}

// A developer build decides everything twice: both results must be alike, and leave no trace.
static int
decide_locked(struct view *view, struct operation *op)
{
    int rc = run_decide(view, op);
#ifdef CKPTFS_DEBUG
    const struct volume *v = view->volume;
    unsigned count = op->count;
    enum live_note note = op->note;
    uint64_t next_object = v->counters.next_object;
    size_t names = namespace_set_count(v->names), live = v->live_objects.count;
    int again = run_decide(view, op);
    assert(again == rc && (rc < 0 || (op->count == count && op->note == note)));
    assert(v->counters.next_object == next_object && v->live_objects.count == live &&
           namespace_set_count(v->names) == names);
#endif
    assert(rc < 0 || op->count > 0 || op->note == LIVE_AS_IT_IS);
    return rc;
}

// One run. -EAGAIN: something was missing and has been read; run again.
static int
try_operation(
    struct volume *v, struct view *view, struct operation *op, uint32_t reserved, bool *logged_out)
{
    struct logged l = {0};
    struct obstacle obstacle = {0};
    uint64_t size = 0;
    lock_take(&v->lock);
    view_check_locked(view);
    int rc = v->own.read_only ? -EROFS : decide_locked(view, op);
    if (rc == 0)
        rc = check_changes(view, op);
    if (rc == 0)
        rc = size_before(view, op, &size);
    bool blocked = rc == 0 && find_obstacle_locked(v, op, &obstacle);
    *logged_out = rc == 0 && !blocked && op->count > 0;
    if (*logged_out)
        log_and_apply_locked(v, op, reserved, size, &l);
    lock_release(&v->lock);
    if (*logged_out)
        wal_fill(v->wal, &l.slot, l.page_offset, l.body.data, (uint32_t)l.body.length, op->payload,
            op->payload_length, l.crcs);
    if (*logged_out && op->commit_point)
        rc = wal_spill(v->wal, &l.slot);
    else if (*logged_out)
        wal_start_writing(v->wal, &l.slot);
    if (l.tight)
        volume_press(v);
    buffer_free(&l.body);
    free(l.crcs);
    if (rc == -EIO)
        view_log_contradiction(view);
    if (!blocked && rc != -EAGAIN)
        return rc;
    rc = blocked ? remove_obstacle(v, op, &obstacle) : view_load(view);
    return rc < 0 ? rc : -EAGAIN;
}

void
volume_press_if_needed(struct volume *v)
{
    struct wal_numbers n;
    wal_numbers(v->wal, &n);
    flush_pace_hurry(&v->pace, n.retained_bytes > n.limit_bytes / 4 * 3);
    if (n.retained_bytes < n.limit_bytes / 8 * 3 && !n.starved)
        return;
    volume_press(v);
}

int
volume_operate(struct volume *v, struct operation *op)
{
    uint32_t reserved = WAL_RECORD_HEADER + CHANGES_RESERVE + op->extra_bytes + op->payload_length +
                        4 * (uint32_t)op->piece_count + 64;
    int rc = wait_for_room(v, wal_align(reserved), op);
    if (rc < 0)
        return rc;
    struct view view;
    view_init(&view, v);
    bool logged = false;
    do {
        rc = try_operation(v, &view, op, wal_align(reserved), &logged);
    } while (rc == -EAGAIN);
    view_free(&view);
    if (!logged)
        wal_unreserve(v->wal, wal_align(reserved));
    else
        volume_press_if_needed(v);
    return rc;
}
