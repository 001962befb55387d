// SPDX-License-Identifier: Apache-2.0
#include "fuse/snapshot_tree.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"

// A lookup trusts a listing that is not older than this, or any when the snapshot is open.
#define NAMES_MS 2000u
// A thread that waits for a view looks so often whether its request is canceled.
#define POLL_MS 100u
// For so long the failure of one request is that of others: the kernel sends lookups of one name
// one after the other, so that each would wait for the store anew.
#define FAILURE_MS 1000u

static void
free_names(struct snapshot_names *names)
{
    free(names->list);
    free(names->in_turn);
}

void
snapshot_tree_init(struct snapshot_tree *t, struct volume *volume)
{
    memset(t, 0, sizeof(*t));
    t->volume = volume;
    t->started_ms = clock_wall_ms();
    t->idle_ms = SNAPSHOT_IDLE_MS;
    lock_init(&t->lock, "snapshots", LOCK_RANK_FUSE);
    condition_init(&t->changed);
    snapshot_places_init(&t->places);
    for (unsigned i = 0; i < SNAPSHOT_VIEWS_MAX; i++)
        t->views[i].tree = t;
}

void
snapshot_tree_destroy(struct snapshot_tree *t)
{
    snapshot_places_destroy(&t->places);
    free_names(&t->names);
    condition_destroy(&t->changed);
    lock_destroy(&t->lock);
}

// ---- places -------------------------------------------------------------------------------------

static int
number_locked(struct snapshot_tree *t, const struct snapshot_name *is, unsigned *number_out)
{
    const struct snapshot_place *p = snapshot_places_find(&t->places, is);
    if (!p) {
        log_error("snapshot.places",
            "%s: programs use %u generations and snapshots, or the kernel remembers them; more can "
            "be looked up when it has forgotten some",
            SNAPSHOT_TREE_NAME, SNAPSHOT_PLACES_MAX);
        return -ENFILE;
    }
    *number_out = p->number;
    return 0;
}

void
snapshot_tree_refer(struct snapshot_tree *t, unsigned number, uint64_t count)
{
    lock_take(&t->lock);
    struct snapshot_place *p = snapshot_places_get(&t->places, number);
    if (p)
        snapshot_places_refer(&t->places, p, count);
    lock_release(&t->lock);
}

void
snapshot_tree_forget(struct snapshot_tree *t, unsigned number, uint64_t count)
{
    lock_take(&t->lock);
    struct snapshot_place *p = snapshot_places_get(&t->places, number);
    if (p)
        snapshot_places_let_go(&t->places, p, count);
    lock_release(&t->lock);
}

uint64_t
snapshot_tree_incarnation(struct snapshot_tree *t, unsigned number)
{
    lock_take(&t->lock);
    const struct snapshot_place *p = snapshot_places_get(&t->places, number);
    uint64_t incarnation = p ? p->incarnation : 0;
    lock_release(&t->lock);
    return incarnation;
}

int
snapshot_tree_root(
    struct snapshot_tree *t, unsigned number, struct volume_attributes *attributes_out)
{
    struct volume_attributes live;
    int rc = volume_get_attributes(t->volume, OBJECT_ROOT_DIRECTORY, &live);
    if (rc < 0)
        return rc;
    lock_take(&t->lock);
    const struct snapshot_place *p = snapshot_places_get(&t->places, number);
    if (p && p->has_root) {
        *attributes_out = p->root;
    } else if (p) {
        uint64_t ms = p->is.created_ms ? p->is.created_ms : t->started_ms;
        struct timestamp time = {
            .seconds = (int64_t)(ms / 1000), .nanoseconds = (uint32_t)(ms % 1000 * 1000000)};
        live.inode.atime = live.inode.mtime = live.inode.ctime = live.inode.btime = time;
        live.inode.nlink = 2;
        *attributes_out = live;
    }
    lock_release(&t->lock);
    return p ? 0 : -ESTALE;
}

void
snapshot_tree_note_root(
    struct snapshot_tree *t, unsigned number, const struct volume_attributes *attributes)
{
    lock_take(&t->lock);
    struct snapshot_place *p = snapshot_places_get(&t->places, number);
    if (p) {
        p->root = *attributes;
        p->has_root = true;
    }
    lock_release(&t->lock);
}

// ---- names --------------------------------------------------------------------------------------

static int
add_name(void *argument, const char *name, struct generation generation, uint64_t created_ms)
{
    struct snapshot_names *names = argument;
    if ((names->count & (names->count - 1)) == 0)
        names->list = memory_realloc(
            names->list, (names->count ? 2 * names->count : 1) * sizeof(*names->list));
    struct snapshot_name *n = &names->list[names->count++];
    *n = (struct snapshot_name){.generation = generation, .created_ms = created_ms};
    (void)snprintf(n->name, sizeof(n->name), "%s", name);
    return 0;
}

static int
compare_names(const void *a, const void *b)
{
    return strcmp(((const struct snapshot_name *)a)->name, ((const struct snapshot_name *)b)->name);
}

static int
compare_names_in_full(const void *a, const void *b)
{
    uint64_t x = ((const struct snapshot_name *)a)->generation.v;
    uint64_t y = ((const struct snapshot_name *)b)->generation.v;
    int rc = compare_names(a, b);
    return rc != 0 ? rc : (x > y) - (x < y);
}

// Two commands that make a snapshot of one name at the same time may both leave their pin: the
// newest generation has the name, as for commands (snapshot_find).
static void
sort_names(struct snapshot_names *names)
{
    size_t kept = 0;
    if (names->count == 0)
        return;
    qsort(names->list, names->count, sizeof(*names->list), compare_names_in_full);
    for (size_t i = 1; i < names->count; i++) {
        if (compare_names(&names->list[kept], &names->list[i]) != 0)
            kept++;
        names->list[kept] = names->list[i];
    }
    names->count = kept + 1;
}

static int
compare_positions(const void *a, const void *b)
{
    uint64_t x = (*(const struct snapshot_name *const *)a)->position;
    uint64_t y = (*(const struct snapshot_name *const *)b)->position;
    return (x > y) - (x < y);
}

static struct snapshot_name *
find_name(const struct snapshot_names *names, const struct snapshot_name *key)
{
    if (names->count == 0)
        return NULL;
    return bsearch(key, names->list, names->count, sizeof(*key), compare_names);
}

// Names that were there before keep their positions.
static void
place_names_locked(struct snapshot_tree *t, struct snapshot_names *names)
{
    names->in_turn = memory_alloc((names->count + 1) * sizeof(const struct snapshot_name *));
    for (size_t i = 0; i < names->count; i++) {
        struct snapshot_name *n = &names->list[i];
        const struct snapshot_name *before = find_name(&t->names, n);
        bool same = before && before->generation.v == n->generation.v;
        n->position = same ? before->position : ++t->last_position;
        names->in_turn[i] = n;
    }
    if (names->count > 0)
        qsort(names->in_turn, names->count, sizeof(*names->in_turn), compare_positions);
}

// Another thread may have asked later and got its answer earlier: its listing stays.
static void
take_names(struct snapshot_tree *t, struct snapshot_names *names)
{
    lock_take(&t->lock);
    bool newer = names->version > t->names.version ||
                 (names->version == t->names.version && names->read_ms >= t->names.read_ms);
    if (newer) {
        place_names_locked(t, names);
        struct snapshot_names old = t->names;
        t->names = *names;
        *names = old;
    }
    lock_release(&t->lock);
    free_names(names);
}

// The thread that asks may be canceled by the tree's end, too.
struct asking {
    const struct snapshot_tree *tree;
    const struct remote_call *call;
};

static bool
is_canceled(const struct snapshot_tree *t, const struct remote_call *call)
{
    return atomic_load(&t->stopping) || (call && remote_call_is_canceled(call));
}

static bool
asking_is_canceled(void *argument)
{
    const struct asking *a = argument;
    return is_canceled(a->tree, a->call);
}

static int
read_names(struct snapshot_tree *t, const struct remote_call *call)
{
    struct snapshot_names names = {
        .read_ms = clock_monotonic_ms(), .version = atomic_load(&t->names_version)};
    struct asking asking = {t, call};
    struct remote_call mine = *call;
    if (call->local_only)
        return -EREMOTE;
    lock_take(&t->lock);
    bool failed = t->names.failed_ms != 0 && clock_monotonic_ms() < t->names.failed_ms + FAILURE_MS;
    lock_release(&t->lock);
    if (failed)
        return -EIO;
    mine.is_canceled = asking_is_canceled;
    mine.argument = &asking;
    int rc = volume_list_snapshots(t->volume, &mine, add_name, &names);
    if (rc < 0) {
        free_names(&names);
        if (is_canceled(t, call))
            return -EINTR;
        lock_take(&t->lock);
        t->names.failed_ms = clock_monotonic_ms();
        lock_release(&t->lock);
        log_error_of("snapshot.list_failed", "snapshots",
            "the snapshots in the store cannot be listed: %s", strerror(-rc));
        return -EIO;
    }
    sort_names(&names);
    take_names(t, &names);
    return 0;
}

static struct snapshot_view *
view_locked(struct snapshot_tree *t, struct generation generation)
{
    for (unsigned i = 0; i < SNAPSHOT_VIEWS_MAX; i++)
        if (t->views[i].state != VIEW_CLOSED && t->views[i].generation.v == generation.v)
            return &t->views[i];
    return NULL;
}

// Looks in the last listing. -EREMOTE when it does not tell.
static int
find_listed(struct snapshot_tree *t, const char *name, bool is_new, unsigned *number_out)
{
    struct snapshot_name key = {0};
    (void)snprintf(key.name, sizeof(key.name), "%s", name);
    lock_take(&t->lock);
    const struct snapshot_name *n = find_name(&t->names, &key);
    const struct snapshot_view *view = n ? view_locked(t, n->generation) : NULL;
    bool open = view && view->state == VIEW_OPEN;
    bool fresh = t->names.read_ms != 0 && clock_monotonic_ms() < t->names.read_ms + NAMES_MS;
    int rc = is_new ? -ENOENT : -EREMOTE;
    bool changed = atomic_load(&t->names_version) != t->names.version;
    if (n && (is_new || (!changed && (open || fresh))))
        rc = number_locked(t, n, number_out);
    lock_release(&t->lock);
    return rc;
}

static int
find_generation(
    void *argument, const char *name UNUSED, struct generation generation, uint64_t created_ms)
{
    struct snapshot_name *is = argument;
    if (generation.v == is->generation.v)
        is->created_ms = created_ms;
    else
        is->generation.v = 0;
    return 1;
}

static int
find_number(struct snapshot_tree *t, const char *name, unsigned *number_out)
{
    char *end;
    // No two names for one directory.
    if (name[0] < '1' || name[0] > '9' || strspn(name, "0123456789") != strlen(name))
        return -ENOENT;
    errno = 0;
    const struct generation wanted = {strtoull(name, &end, 10)};
    struct snapshot_name is = {.generation = wanted, .created_ms = UINT64_MAX};
    if (errno != 0)
        return -ENOENT;
    int rc = volume_list_generations(t->volume, wanted, find_generation, &is);
    if (rc < 0)
        return rc;
    if (is.generation.v == 0 || is.created_ms == UINT64_MAX)
        return -ENOENT;
    lock_take(&t->lock);
    rc = number_locked(t, &is, number_out);
    lock_release(&t->lock);
    return rc;
}

int
snapshot_tree_find(struct snapshot_tree *t, enum snapshot_directory directory, const char *name,
    const struct remote_call *call, unsigned *number_out)
{
    if (directory == SNAPSHOT_GENERATIONS)
        return find_number(t, name, number_out);
    if (strlen(name) > SNAPSHOT_NAME_BYTES_MAX)
        return -ENOENT;
    int rc = find_listed(t, name, false, number_out);
    if (rc == -EREMOTE)
        rc = read_names(t, call);
    else
        return rc;
    return rc < 0 ? rc : find_listed(t, name, true, number_out);
}

struct listing {
    snapshot_visit_name *visit;
    void *argument;
};

static int
list_generation(void *argument, const char *name UNUSED, struct generation generation,
    uint64_t created_ms UNUSED)
{
    const struct listing *l = argument;
    char text[24];
    (void)snprintf(text, sizeof(text), "%" PRIu64, generation.v);
    return l->visit(l->argument, text, generation.v) ? 1 : 0;
}

static size_t
after_position_locked(const struct snapshot_tree *t, uint64_t position)
{
    size_t low = 0;
    size_t high = t->names.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->names.in_turn[middle]->position > position)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

int
snapshot_tree_list(struct snapshot_tree *t, enum snapshot_directory directory, uint64_t from,
    const struct remote_call *call, snapshot_visit_name *visit, void *argument)
{
    struct listing l = {visit, argument};
    if (directory == SNAPSHOT_GENERATIONS)
        return volume_list_generations(
            t->volume, (struct generation){from + 1}, list_generation, &l);
    int rc = from == 0 ? read_names(t, call) : 0;
    if (rc < 0)
        return rc;
    lock_take(&t->lock);
    for (size_t i = after_position_locked(t, from); i < t->names.count; i++)
        if (visit(argument, t->names.in_turn[i]->name, t->names.in_turn[i]->position))
            break;
    lock_release(&t->lock);
    return 0;
}

// ---- closing views ------------------------------------------------------------------------------

static bool
is_unused(const struct snapshot_view *view)
{
    return view->state == VIEW_OPEN && view->requests == 0 && view->files == 0;
}

// Releases the lock meanwhile.
static void
close_locked(struct snapshot_view *view)
{
    struct snapshot_tree *t = view->tree;
    view->state = VIEW_CLOSING;
    lock_release(&t->lock);
    log_info("snapshot.closed", "generation %" PRIu64, view->generation.v);
    int ignored UNUSED = volume_close(view->volume); // of a read-only one: nothing can be lost
    lock_take(&t->lock);
    view->volume = NULL;
    view->state = VIEW_CLOSED;
    condition_broadcast(&t->changed);
}

static struct snapshot_view *
longest_unused_locked(struct snapshot_tree *t)
{
    struct snapshot_view *found = NULL;
    for (unsigned i = 0; i < SNAPSHOT_VIEWS_MAX; i++)
        if (is_unused(&t->views[i]) && (!found || t->views[i].used_ms < found->used_ms))
            found = &t->views[i];
    return found;
}

static void
run_closer(void *argument)
{
    struct snapshot_tree *t = argument;
    lock_take(&t->lock);
    while (!atomic_load(&t->stopping)) {
        struct snapshot_view *view = longest_unused_locked(t);
        uint64_t now = clock_monotonic_ms();
        uint64_t due = (view ? view->used_ms : now) + t->idle_ms;
        if (view && now >= due)
            close_locked(view);
        else
            condition_wait_until(&t->changed, &t->lock, due);
    }
    lock_release(&t->lock);
}

void
snapshot_tree_stop(struct snapshot_tree *t)
{
    lock_take(&t->lock);
    atomic_store(&t->stopping, true);
    condition_broadcast(&t->changed);
    bool join = t->closing;
    t->closing = false;
    lock_release(&t->lock);
    if (join)
        thread_join(&t->closer);
    lock_take(&t->lock);
    for (unsigned i = 0; i < SNAPSHOT_VIEWS_MAX; i++)
        if (t->views[i].state == VIEW_OPEN)
            close_locked(&t->views[i]);
    lock_release(&t->lock);
}

// ---- opening views ------------------------------------------------------------------------------

static bool
opening_is_canceled(void *argument)
{
    const struct snapshot_view *view = argument;
    return is_canceled(view->tree, view->opener);
}

static int
answer_of(struct snapshot_view *view, int rc, const struct buffer *error)
{
    char key[32];
    if (opening_is_canceled(view))
        return -EINTR;
    (void)snprintf(key, sizeof(key), "generation %" PRIu64, view->generation.v);
    log_error_of("snapshot.open_failed", key, "%s cannot be opened: %.*s", key, (int)error->length,
        (const char *)error->data);
    return rc == -ESTALE || rc == -EDQUOT || rc == -ENOSPC ? rc : -EIO;
}

// Releases the lock meanwhile.
static int
open_locked(
    struct snapshot_view *view, struct generation generation, const struct remote_call *call)
{
    struct snapshot_tree *t = view->tree;
    BUFFER_AUTO error = {0};
    struct volume_host host = {.argument = view, .is_canceled = opening_is_canceled};
    view->state = VIEW_OPENING;
    view->generation = generation;
    view->opener = call;
    lock_release(&t->lock);
    int rc = volume_open_generation(t->volume, generation, &host, &view->volume, &error);
    if (rc < 0)
        rc = answer_of(view, rc, &error);
    lock_take(&t->lock);
    view->opener = NULL;
    view->failure = rc == -EINTR ? 0 : rc;
    view->used_ms = clock_monotonic_ms();
    view->state = rc < 0 ? VIEW_CLOSED : VIEW_OPEN;
    if (rc == 0 && !t->closing && !atomic_load(&t->stopping))
        t->closing = thread_start(&t->closer, "snapshots", run_closer, t) == 0;
    condition_broadcast(&t->changed);
    return rc;
}

// A view for another generation: closed now, or one to be closed. NULL: each is in use; then
// `files_out` tells whether by files that are open.
static struct snapshot_view *
free_view_locked(struct snapshot_tree *t, bool *files_out)
{
    *files_out = true;
    for (unsigned i = 0; i < SNAPSHOT_VIEWS_MAX; i++) {
        if (t->views[i].state == VIEW_CLOSED)
            return &t->views[i];
        *files_out = *files_out && t->views[i].files > 0;
    }
    return longest_unused_locked(t);
}

// Others may have waited for the store until now.
static int
check_patience(const struct snapshot_tree *t, const struct remote_call *call)
{
    if (is_canceled(t, call))
        return -EINTR;
    return call->deadline_ms != 0 && clock_monotonic_ms() >= call->deadline_ms ? -EIO : 0;
}

static int
wait_locked(struct snapshot_tree *t)
{
    condition_wait_until(&t->changed, &t->lock, clock_monotonic_ms() + POLL_MS);
    return 0;
}

// The failure of an opening that ended a moment ago, or 0.
static int
last_failure_locked(const struct snapshot_tree *t, struct generation generation)
{
    for (unsigned i = 0; i < SNAPSHOT_VIEWS_MAX; i++) {
        const struct snapshot_view *view = &t->views[i];
        if (view->state == VIEW_CLOSED && view->generation.v == generation.v && view->failure < 0 &&
            clock_monotonic_ms() < view->used_ms + FAILURE_MS)
            return view->failure;
    }
    return 0;
}

// One step towards an open view, for which the lock may be released: 1 when it is open.
static int
get_locked(struct snapshot_tree *t, struct generation generation, const struct remote_call *call,
    struct snapshot_view **view_out)
{
    bool files;
    *view_out = view_locked(t, generation);
    if (*view_out && (*view_out)->state == VIEW_OPEN)
        return 1;
    if (call->local_only)
        return -EREMOTE;
    int rc = check_patience(t, call);
    if (rc == 0)
        rc = last_failure_locked(t, generation);
    if (rc < 0)
        return rc;
    if (*view_out)
        return wait_locked(t);
    struct snapshot_view *view = free_view_locked(t, &files);
    if (!view && files) {
        log_error("snapshot.too_many",
            "generation %" PRIu64 " cannot be opened: programs have files of %u others open",
            generation.v, SNAPSHOT_VIEWS_MAX);
        return -ENFILE;
    }
    if (!view)
        return wait_locked(t);
    if (view->state == VIEW_OPEN) {
        close_locked(view);
        return 0;
    }
    return open_locked(view, generation, call);
}

int
snapshot_tree_get(struct snapshot_tree *t, unsigned number, const struct remote_call *call,
    struct snapshot_view **view_out)
{
    lock_take(&t->lock);
    const struct snapshot_place *p = snapshot_places_get(&t->places, number);
    struct generation generation = p ? p->is.generation : (struct generation){0};
    int rc = p ? 0 : -ESTALE;
    while (rc == 0)
        rc = get_locked(t, generation, call, view_out);
    if (rc > 0)
        (*view_out)->requests++;
    lock_release(&t->lock);
    return rc < 0 ? rc : 0;
}

void
snapshot_tree_put(struct snapshot_view *view)
{
    struct snapshot_tree *t = view->tree;
    lock_take(&t->lock);
    view->used_ms = clock_monotonic_ms();
    view->requests--;
    lock_release(&t->lock);
}

void
snapshot_tree_file_opened(struct snapshot_view *view, unsigned number)
{
    struct snapshot_tree *t = view->tree;
    lock_take(&t->lock);
    struct snapshot_place *p = snapshot_places_get(&t->places, number);
    if (p)
        snapshot_places_file_opened(&t->places, p);
    view->files++;
    lock_release(&t->lock);
}

void
snapshot_tree_file_closed(struct snapshot_tree *t, unsigned number)
{
    lock_take(&t->lock);
    struct snapshot_place *p = snapshot_places_get(&t->places, number);
    struct snapshot_view *view = p ? view_locked(t, p->is.generation) : NULL;
    if (view && view->files > 0) {
        view->files--;
        view->used_ms = clock_monotonic_ms();
    }
    if (p)
        snapshot_places_file_closed(&t->places, p);
    lock_release(&t->lock);
}
