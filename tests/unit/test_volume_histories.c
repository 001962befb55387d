// SPDX-License-Identifier: Apache-2.0
// Random histories of real volumes: writes, checkpoints, snapshots, rollbacks, forks that are
// detached or not, retention and CheckpointGC, destroyed volumes, and hosts that die at a step of
// any of it and go on from the same storage root or from the bucket alone. After each step each
// generation that a volume keeps is opened on a bare host and has the bytes that it had when it was
// made; in the end everything is destroyed, and the bucket is empty. test_histories takes many more
// of the steps in between, with stand-ins for the blobs.
//
// CKPTFS_TEST_SEED repeats one history.
#include "volume_steps.h"
#include "volume_world.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"
#include "volume/volume_offline.h"

#define VOLUMES   3u
#define KEPT      64u
#define STEPS     12u
#define HISTORIES 2u

struct kept {
    struct generation generation;
    struct model *m;
    bool named;     // by the snapshot "sN", N being the generation
    unsigned forks; // that need it
};

struct history_volume {
    bool exists;
    struct volume_world w; // w.v is NULL while it is not mounted
    struct model *now;
    uint64_t mark;
    struct kept kept[KEPT];
    unsigned count;
    struct history_volume *parent; // of a fork that needs it
    struct generation parent_kept; // the one that it needs
};

static struct history_volume volumes[VOLUMES];
static char *directory;
static uint64_t seed;
static uint64_t next_number;
static unsigned next_root;

static uint64_t
below(uint64_t n)
{
    return test_random(&seed) % n;
}

// ---- generations --------------------------------------------------------------------------------

static struct kept *
find_kept(struct history_volume *h, struct generation generation)
{
    for (unsigned i = 0; i < h->count; i++)
        if (h->kept[i].generation.v == generation.v)
            return &h->kept[i];
    return NULL;
}

static void
note_kept(struct history_volume *h, struct generation generation, const struct model *m)
{
    if (find_kept(h, generation))
        return;
    ck_assert_uint_lt(h->count, KEPT);
    h->kept[h->count++] = (struct kept){.generation = generation, .m = model_copy(m)};
}

struct listing {
    struct history_volume *h;
    bool there[KEPT];
};

static int
visit_generation(void *argument, const char *name UNUSED, struct generation generation,
    uint64_t created_ms UNUSED)
{
    struct listing *l = argument;
    // A generation that is not known was made since the last look: nothing was changed after it.
    note_kept(l->h, generation, l->h->now);
    l->there[find_kept(l->h, generation) - l->h->kept] = true;
    return 0;
}

// Takes over which generations the mounted volume keeps. It may drop those alone that nothing asks
// for.
static void
look(struct history_volume *h)
{
    struct listing l = {.h = h};
    struct generation newest = {0};
    ck_assert_int_eq(
        volume_list_generations(h->w.v, (struct generation){0}, visit_generation, &l), 0);
    for (unsigned i = 0; i < h->count; i++)
        if (h->kept[i].generation.v > newest.v)
            newest = h->kept[i].generation;
    unsigned left = 0;
    for (unsigned i = 0; i < h->count; i++) {
        struct kept *k = &h->kept[i];
        if (l.there[i]) {
            h->kept[left++] = *k;
            continue;
        }
        ck_assert_msg(!k->named && k->forks == 0 && k->generation.v != newest.v,
            "%s dropped generation %" PRIu64 ": named %d, forks %u, newest %" PRIu64,
            h->w.config.source, k->generation.v, k->named, k->forks, newest.v);
        model_free(k->m);
    }
    h->count = left;
}

// ---- volumes ------------------------------------------------------------------------------------

static struct history_volume *
new_volume(unsigned number)
{
    struct history_volume *h = &volumes[number];
    *h = (struct history_volume){.exists = true};
    volume_world_join(&h->w, directory);
    free(h->w.config.source);
    h->w.config.source = memory_printf("file://%s/store/tenant%u", directory, number);
    return h;
}

static void
use_new_root(struct history_volume *h)
{
    char name[32];
    snprintf(name, sizeof(name), "root-%u", next_root++);
    volume_world_set_root(&h->w, name);
}

static void
mount(struct history_volume *h)
{
    volume_world_open(&h->w);
    h->w.v->collect_pause_ms = 1;
    ck_assert_uint_eq(volume_steps_mark(h->w.v), h->mark);
    volume_steps_compare(h->now, h->w.v, STEP_NO_FILE);
    look(h);
}

static void
unmount(struct history_volume *h)
{
    note_kept(h, volume_world_publish(h->w.v), h->now);
    volume_world_close(&h->w);
}

static int
operate(struct history_volume *h, unsigned kind, unsigned flags, const char *argument)
{
    BUFFER_AUTO text = {0};
    int rc = volume_world_operate(h->w.v, kind, flags, argument, &text);
    if (rc != 0 && rc != -ENOENT)
        ck_abort_msg("operation %u %s: %d %s", kind, argument, rc, buffer_string(&text));
    return rc;
}

// CheckpointGC runs by itself, too: a generation that was kept a moment ago may be gone.
static struct kept *
any_kept(struct history_volume *h)
{
    if (h->w.v)
        look(h);
    return &h->kept[below(h->count)];
}

// The mounted volume has said that it does not keep the generation.
static void
expect_gone(struct history_volume *h, struct generation generation)
{
    look(h);
    ck_assert_msg(
        !find_kept(h, generation), "generation %" PRIu64 " cannot be found", generation.v);
}

static void
set_policy(struct history_volume *h)
{
    char text[32];
    snprintf(text, sizeof(text), "last=%u,grace=0s", 1 + (unsigned)below(3));
    ck_assert_int_eq(operate(h, VOLUME_OPERATION_RETENTION, 0, text), 0);
}

// ---- steps: each leaves the volume mounted ------------------------------------------------------

// The operations of one batch, in the volume and (`m` not NULL) in the model. The mark comes last.
static int
write_batch(struct volume *v, struct model *m, uint64_t first, unsigned count)
{
    int rc = 0;
    for (unsigned i = 0; i < count && rc == 0; i++) {
        if (v)
            rc = volume_steps_do(v, first + i);
        if (m)
            volume_steps_model_do(m, first + i);
    }
    return rc == 0 && v ? volume_steps_set_mark(v, first + count) : rc;
}

static void
step_write(struct history_volume *h)
{
    unsigned count = 1 + (unsigned)below(5);
    ck_assert_int_eq(write_batch(h->w.v, h->now, next_number, count), 0);
    next_number += count;
    h->mark = next_number;
    if (below(2) == 0)
        (void)volume_world_fold(h->w.v);
}

static void
step_publish(struct history_volume *h)
{
    step_write(h);
    note_kept(h, volume_world_publish(h->w.v), h->now);
}

static void
step_snapshot(struct history_volume *h)
{
    char text[64];
    struct kept *k = any_kept(h);
    struct generation generation = k->generation;
    snprintf(text, sizeof(text), k->named ? "s%" PRIu64 : "s%" PRIu64 " %" PRIu64, generation.v,
        generation.v);
    unsigned kind = k->named ? VOLUME_OPERATION_SNAPSHOT_DROP : VOLUME_OPERATION_SNAPSHOT_CREATE;
    int rc = operate(h, kind, 0, text);
    if (rc == 0)
        k->named = !k->named;
    else
        expect_gone(h, generation);
}

static void
step_collect(struct history_volume *h)
{
    if (below(3) == 0)
        set_policy(h);
    for (int i = 0; i < 3; i++) {
        unsigned flags = below(2) == 0 ? VOLUME_OPERATION_SWEEP : 0;
        ck_assert_int_eq(operate(h, VOLUME_OPERATION_GC, flags, ""), 0);
        clock_sleep_ms(2);
    }
    look(h);
}

static void
step_roll_back(struct history_volume *h)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO at = {0};
    unmount(h);
    struct kept *k = any_kept(h);
    struct generation made;
    buffer_printf(&at, "%" PRIu64, k->generation.v);
    struct generation to = k->generation;
    int rc = volume_rollback(&h->w.config, buffer_string(&at), &made, &error);
    if (rc == -ENOENT) {
        mount(h);
        expect_gone(h, to);
        return;
    }
    ck_assert_msg(rc == 0 || rc == -EALREADY, "%d %s", rc, buffer_string(&error));
    if (rc == 0) {
        model_free(h->now);
        h->now = model_copy(k->m);
        note_kept(h, made, h->now);
    }
    if (below(2) == 0)
        use_new_root(h);
    // The mark goes back with the rest.
    volume_world_open(&h->w);
    h->mark = volume_steps_mark(h->w.v);
    volume_world_close(&h->w);
    mount(h);
}

static void
step_move(struct history_volume *h)
{
    unmount(h);
    use_new_root(h);
    mount(h);
}

static void
step_fork(struct history_volume *h)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO at = {0};
    unsigned number = 0;
    while (number < VOLUMES && volumes[number].exists)
        number++;
    if (number == VOLUMES)
        return;
    struct kept *k = any_kept(h);
    struct history_volume *f = new_volume(number);
    struct generation made;
    buffer_printf(&at, "%" PRIu64, k->generation.v);
    struct generation from = k->generation;
    int rc = volume_fork(&h->w.config, buffer_string(&at), f->w.config.source, &made, &error);
    if (rc == -ENOENT) {
        expect_gone(h, from);
        volume_world_leave(&f->w);
        f->exists = false;
        return;
    }
    ck_assert_msg(rc == 0, "%d %s", rc, buffer_string(&error));
    k->forks++;
    f->parent = h;
    f->parent_kept = k->generation;
    f->now = model_copy(k->m);
    note_kept(f, made, f->now);
    use_new_root(f);
    volume_world_open(&f->w);
    f->mark = volume_steps_mark(f->w.v);
    volume_world_close(&f->w);
    mount(f);
    set_policy(f);
}

static void
leave_parent(struct history_volume *h)
{
    if (h->parent)
        find_kept(h->parent, h->parent_kept)->forks--;
    h->parent = NULL;
}

static void
step_detach(struct history_volume *h)
{
    BUFFER_AUTO error = {0};
    struct volume_detached detached;
    if (!h->parent)
        return;
    unmount(h);
    int rc = volume_detach(&h->w.config, NULL, &detached, &error);
    ck_assert_msg(rc == 0, "%d %s", rc, buffer_string(&error));
    note_kept(h, detached.generation, h->now);
    if (detached.needed_by.v == 0)
        leave_parent(h);
    mount(h);
}

static bool
has_forks(const struct history_volume *h)
{
    for (unsigned i = 0; i < VOLUMES; i++)
        if (volumes[i].exists && volumes[i].parent == h)
            return true;
    return false;
}

static void
destroy(struct history_volume *h)
{
    BUFFER_AUTO error = {0};
    uint64_t objects;
    bool needed = has_forks(h);
    unmount(h);
    // The lease of a host that died counts until it runs out.
    h->w.config.takeover = true;
    int rc = volume_destroy(&h->w.config, NULL, &objects, &error);
    h->w.config.takeover = false;
    ck_assert_msg(rc == (needed ? -EBUSY : 0), "%d %s", rc, buffer_string(&error));
    if (needed) {
        mount(h);
        return;
    }
    leave_parent(h);
    for (unsigned i = 0; i < h->count; i++)
        model_free(h->kept[i].m);
    model_free(h->now);
    volume_world_leave(&h->w);
    h->exists = false;
}

// Of the volumes one stays.
static void
step_destroy(struct history_volume *h)
{
    unsigned count = 0;
    for (unsigned i = 0; i < VOLUMES; i++)
        count += volumes[i].exists;
    if (count > 1)
        destroy(h);
}

// ---- the host dies ------------------------------------------------------------------------------

static const char *const points[] = {"checkpoint.planned", "checkpoint.staged",
    "checkpoint.recorded", "checkpoint.uploaded", "checkpoint.published_remotely",
    "checkpoint.publication_recorded", "checkpoint.cleaned", "remote.record_created",
    "manifest.before_commit", "manifest.after_commit", "retention.told", "retention.run_told",
    "retention.blobs_deleted", "retention.deleted", NULL};

// In the child. What it wrote is durable before it dies, at the point or at the end.
static void
work_until_death(struct history_volume *h, uint64_t first, unsigned count, const char *point)
{
    BUFFER_AUTO error = {0};
    if (volume_open(&h->w.config, NULL, &h->w.v, &error) < 0 ||
        write_batch(h->w.v, NULL, first, count) < 0 || volume_world_sync(h->w.v) < 0)
        _exit(1);
    h->w.v->collect_pause_ms = 1;
#ifdef CKPTFS_FAULT_HOOKS
    crash_point_arm(point);
#else
    (void)point;
#endif
    struct generation generation;
    uint64_t ticket;
    if (volume_world_checkpoint(h->w.v, VOLUME_CHECKPOINT_PUBLISH, &generation) < 0)
        _exit(2);
    for (int i = 0; i < 3; i++) {
        struct volume_operation_report report;
        if (volume_operation_start(h->w.v, VOLUME_OPERATION_GC, 0, "", &ticket) < 0)
            _exit(3);
        do {
            char text[8];
            clock_sleep_ms(1);
            if (volume_operation_report(h->w.v, ticket, 0, text, sizeof(text), &report) < 0)
                _exit(4);
        } while (report.state != VOLUME_OPERATION_DONE);
    }
    raise(SIGKILL);
}

static void
step_die(struct history_volume *h)
{
    unmount(h);
    unsigned count = 1 + (unsigned)below(5);
    const char *point = points[below(ARRAY_LENGTH(points))];
    fflush(stdout);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0)
        work_until_death(h, next_number, count, point);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: status %x",
        point ? point : "the end", status);
    bool lost_root = below(2) == 0;
    if (lost_root)
        use_new_root(h);
    h->w.config.takeover = true;
    volume_world_open(&h->w);
    // The storage root has all that was synced; the bucket may have it.
    uint64_t mark = volume_steps_mark(h->w.v);
    if (mark != h->mark || !lost_root) {
        ck_assert_uint_eq(mark, next_number + count);
        write_batch(NULL, h->now, next_number, count);
        h->mark = mark;
    }
    next_number += count;
    volume_world_close(&h->w);
    mount(h);
    h->w.config.takeover = false;
}

// ---- histories ----------------------------------------------------------------------------------

// Opens a kept generation from the bucket alone. 0, or -ENOENT.
static int
verify_one(struct history_volume *h, const struct kept *k)
{
    BUFFER_AUTO error = {0};
    struct volume_world reader;
    volume_world_join(&reader, directory);
    free(reader.config.source);
    reader.config.source = memory_string(h->w.config.source);
    volume_world_set_root(&reader, "reader");
    reader.config.read_only = true;
    reader.config.create = false;
    reader.config.at = memory_printf("%" PRIu64, k->generation.v);
    int rc = volume_open(&reader.config, NULL, &reader.v, &error);
    ck_assert_msg(rc == 0 || rc == -ENOENT, "%d %s", rc, buffer_string(&error));
    if (rc == 0) {
        volume_steps_compare(k->m, reader.v, STEP_NO_FILE);
        volume_world_close(&reader);
    }
    volume_world_lose_root(&reader);
    volume_world_leave(&reader);
    return rc;
}

static void
verify(struct history_volume *h)
{
    unsigned i = 0;
    while (i < h->count) {
        struct generation generation = h->kept[i].generation;
        if (verify_one(h, &h->kept[i]) == 0) {
            i++;
            continue;
        }
        expect_gone(h, generation);
        i = 0;
    }
}

static const struct {
    const char *name;
    void (*run)(struct history_volume *h);
    unsigned weight;
} steps[] = {
    {"write", step_write, 2},
    {"publish", step_publish, 5},
    {"snapshot", step_snapshot, 3},
    {"collect", step_collect, 3},
    {"roll back", step_roll_back, 2},
    {"move", step_move, 1},
    {"fork", step_fork, 2},
    {"detach", step_detach, 1},
    {"destroy", step_destroy, 1},
    {"die", step_die, 3},
};

static unsigned
any_step(void)
{
    unsigned sum = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(steps); i++)
        sum += steps[i].weight;
    unsigned at = (unsigned)below(sum);
    unsigned i = 0;
    while (at >= steps[i].weight)
        at -= steps[i++].weight;
    return i;
}

static void
begin(void)
{
    struct history_volume *h = new_volume(0);
    use_new_root(h);
    h->now = volume_steps_model();
    volume_world_open(&h->w);
    ck_assert_int_eq(volume_steps_begin(h->w.v), 0);
    ck_assert_int_eq(volume_steps_set_mark(h->w.v, ++next_number), 0);
    h->mark = next_number;
    note_kept(h, volume_world_publish(h->w.v), h->now);
    set_policy(h);
}

static void
run_history(uint64_t number)
{
    directory = unit_directory_new();
    seed = number * 2 + 1;
    next_number = 0;
    printf("history CKPTFS_TEST_SEED=%" PRIu64 ":", number);
    begin();
    for (unsigned n = 0; n < STEPS; n++) {
        unsigned which = (unsigned)below(VOLUMES);
        while (!volumes[which].exists)
            which = (which + 1) % VOLUMES;
        unsigned step = any_step();
        printf(" %s %u,", steps[step].name, which);
        fflush(stdout);
        steps[step].run(&volumes[which]);
        for (unsigned i = 0; i < VOLUMES; i++)
            if (volumes[i].exists)
                verify(&volumes[i]);
    }
    // Forks before the volumes that they need.
    for (unsigned round = 0; round < VOLUMES; round++)
        for (unsigned i = 0; i < VOLUMES; i++)
            if (volumes[i].exists && !has_forks(&volumes[i]))
                destroy(&volumes[i]);
    printf(" end\n");
    const struct volume_world store = {.directory = directory};
    ck_assert_uint_eq(volume_world_count_objects(&store, "", "*"), 0);
    unit_directory_remove(directory);
}

START_TEST(every_kept_generation_has_its_bytes_after_each_step)
{
    bool one = getenv("CKPTFS_TEST_SEED") != NULL;
    unsigned count = one ? 1 : getenv("CKPTFS_TEST_LONG") ? 150 * HISTORIES : HISTORIES;
    uint64_t first = test_seed("histories");
    for (unsigned i = 0; i < count; i++)
        run_history(first + i);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_histories");
    unit_add(s, "histories", every_kept_generation_has_its_bytes_after_each_step, 3600);
    return unit_run(s);
}
