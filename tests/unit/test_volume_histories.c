// SPDX-License-Identifier: Apache-2.0
// Random histories of real volumes: writes, checkpoints, snapshots, rollbacks, forks that are
// detached or not, retention and CheckpointGC, destroyed volumes; hosts that die at a step of any
// of it and go on from the same storage root or from the bucket alone; hosts that are taken over
// while they go on, or while they stand still at a step for two days; requests that fail, whose
// answers are lost, and outages. After each step each generation that a volume keeps is opened on a
// bare host and has the bytes that it had when it was made; in the end everything is destroyed, and
// the bucket is empty. test_histories takes many more of the steps in between, with stand-ins for
// the blobs.
//
// The objects lie in a directory, and in an S3 server when tests/with-s3 says where there is one.
// CKPTFS_TEST_SEED repeats one history, CKPTFS_TEST_ROUNDS sets how many there are.
#include "volume_history.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"
#include "volume/volume_offline.h"

#define STEPS          12u
#define STEPS_S3       5u // of `make check`: requests take longer
#define HISTORIES      2u
#define HISTORIES_LONG 300u
#define HISTORIES_S3   20u // of the long variant

// ---- steps: each leaves the volume mounted ------------------------------------------------------

static void
step_write(struct history_volume *h)
{
    unsigned count = 1 + (unsigned)history_below(5);
    ck_assert_int_eq(history_write_batch(h->w.v, h->now, history.next_number, count), 0);
    history.next_number += count;
    h->mark = history.next_number;
    if (history_below(2) == 0)
        (void)volume_world_fold(h->w.v);
}

// What an operation without a mount gave. If the store was disturbed, it is to be done again, and
// may find that the host that failed has the volume.
static bool
is_to_repeat(struct history_volume *h, int rc, struct buffer *error)
{
    if (rc >= 0 || rc == -ENOENT || rc == -EALREADY || !history_heal())
        return false;
    history.repeated++;
    h->w.config.takeover = true;
    buffer_clear(error);
    return true;
}

static void
end_operation(struct history_volume *h)
{
    history_heal();
    h->w.config.takeover = false;
}

static void
step_publish(struct history_volume *h)
{
    step_write(h);
    history_do_publish(h);
}

static void
step_snapshot(struct history_volume *h)
{
    char text[64];
    struct kept *k = history_any_kept(h);
    struct generation generation = k->generation;
    snprintf(text, sizeof(text), k->named ? "s%" PRIu64 : "s%" PRIu64 " %" PRIu64, generation.v,
        generation.v);
    unsigned kind = k->named ? VOLUME_OPERATION_SNAPSHOT_DROP : VOLUME_OPERATION_SNAPSHOT_CREATE;
    int rc = history_operate(h, kind, 0, text);
    if (rc == 0)
        k->named = !k->named;
    else
        history_expect_gone(h, generation);
}

static void
step_collect(struct history_volume *h)
{
    if (history_below(3) == 0)
        history_set_policy(h);
    for (int i = 0; i < 3; i++) {
        unsigned flags = history_below(2) == 0 ? VOLUME_OPERATION_SWEEP : 0;
        ck_assert_int_eq(history_operate(h, VOLUME_OPERATION_GC, flags, ""), 0);
        clock_sleep_ms(2);
    }
    history_look(h);
}

// The command may have failed to give its claim back, and says so in the log only.
static void
open_after_command(struct history_volume *h)
{
    h->w.config.takeover = true;
    volume_world_open(&h->w);
    h->w.config.takeover = false;
}

static void
step_roll_back(struct history_volume *h)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO at = {0};
    history_unmount(h);
    struct kept *k = history_any_kept(h);
    struct generation made;
    buffer_printf(&at, "%" PRIu64, k->generation.v);
    struct generation to = k->generation;
    history_disturb();
    int rc = volume_rollback(&h->w.config, buffer_string(&at), &made, &error);
    if (is_to_repeat(h, rc, &error))
        rc = volume_rollback(&h->w.config, buffer_string(&at), &made, &error);
    end_operation(h);
    if (rc == -ENOENT) {
        history_mount(h);
        history_expect_gone(h, to);
        return;
    }
    ck_assert_msg(rc == 0 || rc == -EALREADY, "%d %s", rc, buffer_string(&error));
    struct model *before = h->now;
    h->now = model_copy(k->m);
    model_free(before);
    if (rc == 0)
        history_note_kept(h, made, h->now);
    if (history_below(2) == 0)
        history_use_new_root(h);
    // The mark goes back with the rest.
    open_after_command(h);
    h->mark = volume_steps_mark(h->w.v);
    volume_world_close(&h->w);
    history_mount(h);
}

static void
step_move(struct history_volume *h)
{
    history_unmount(h);
    history_use_new_root(h);
    history_mount(h);
}

static void
step_fork(struct history_volume *h)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO at = {0};
    unsigned number = 0;
    while (number < HISTORY_VOLUMES && history.volumes[number].exists)
        number++;
    if (number == HISTORY_VOLUMES)
        return;
    struct kept *k = history_any_kept(h);
    struct history_volume *f = history_new_volume(number);
    struct generation made;
    buffer_printf(&at, "%" PRIu64, k->generation.v);
    struct generation from = k->generation;
    // A command that failed may leave a pin, which keeps the parent for a day.
    if (!history.place.in_s3)
        history_disturb();
    int rc = volume_fork(&h->w.config, buffer_string(&at), f->w.config.source, &made, &error);
    bool again = is_to_repeat(h, rc, &error);
    if (again)
        rc = volume_fork(&h->w.config, buffer_string(&at), f->w.config.source, &made, &error);
    end_operation(h);
    // The first command was told of a failure when the fork was there.
    bool there = again && rc == -EEXIST;
    if (rc == -ENOENT) {
        history_expect_gone(h, from);
        volume_world_leave(&f->w);
        f->exists = false;
        return;
    }
    ck_assert_msg(rc == 0 || there, "%d %s", rc, buffer_string(&error));
    k->forks++;
    f->parent = h;
    f->parent_kept = k->generation;
    f->now = model_copy(k->m);
    if (rc == 0)
        history_note_kept(f, made, f->now);
    history_use_new_root(f);
    open_after_command(f);
    f->mark = volume_steps_mark(f->w.v);
    volume_world_close(&f->w);
    history_mount(f);
    history_set_policy(f);
}

static void
leave_parent(struct history_volume *h)
{
    if (h->parent)
        history_find_kept(h->parent, h->parent_kept)->forks--;
    h->parent = NULL;
}

static void
step_detach(struct history_volume *h)
{
    BUFFER_AUTO error = {0};
    struct volume_detached detached;
    if (!h->parent)
        return;
    history_unmount(h);
    history_disturb();
    int rc = volume_detach(&h->w.config, NULL, &detached, &error);
    if (is_to_repeat(h, rc, &error))
        rc = volume_detach(&h->w.config, NULL, &detached, &error);
    end_operation(h);
    ck_assert_msg(rc == 0, "%d %s", rc, buffer_string(&error));
    history_note_kept(h, detached.generation, h->now);
    if (detached.needed_by.v == 0)
        leave_parent(h);
    history_mount(h);
}

static bool
has_forks(const struct history_volume *h)
{
    for (unsigned i = 0; i < HISTORY_VOLUMES; i++)
        if (history.volumes[i].exists && history.volumes[i].parent == h)
            return true;
    return false;
}

static void
destroy(struct history_volume *h)
{
    BUFFER_AUTO error = {0};
    uint64_t objects;
    bool needed = has_forks(h);
    history_unmount(h);
    // The lease of a host that died counts until it runs out, and a pin of a fork whose command
    // failed for a day.
    h->w.config.takeover = true;
    history_place_age(&history.place, 2);
    history_disturb();
    int rc = volume_destroy(&h->w.config, NULL, &objects, &error);
    if (!(needed && rc == -EBUSY) && is_to_repeat(h, rc, &error)) {
        rc = volume_destroy(&h->w.config, NULL, &objects, &error);
        rc = rc == -ENOENT && !needed ? 0 : rc;
    }
    end_operation(h);
    ck_assert_msg(rc == (needed ? -EBUSY : 0), "%d %s", rc, buffer_string(&error));
    if (needed) {
        history_mount(h);
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
    for (unsigned i = 0; i < HISTORY_VOLUMES; i++)
        count += history.volumes[i].exists;
    if (count > 1)
        destroy(h);
}

// ---- histories ----------------------------------------------------------------------------------

// Opens a kept generation from the bucket alone. 0, or -ENOENT.
static int
verify_one(struct history_volume *h, const struct kept *k)
{
    BUFFER_AUTO error = {0};
    struct volume_world reader;
    history_place_join(&history.place, strrchr(h->w.config.source, '/') + 1, &reader);
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
        history_expect_gone(h, generation);
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
    {"die", history_die, 3},
    {"take over", history_take_over, 2},
    {"stall", history_stall, 3},
    {"outage", history_outage, 1},
};

static unsigned
any_step(void)
{
    unsigned sum = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(steps); i++)
        sum += steps[i].weight;
    unsigned at = (unsigned)history_below(sum);
    unsigned i = 0;
    while (at >= steps[i].weight)
        at -= steps[i++].weight;
    return i;
}

static void
begin(void)
{
    struct history_volume *h = history_new_volume(0);
    history_use_new_root(h);
    h->now = volume_steps_model();
    volume_world_open(&h->w);
    ck_assert_int_eq(volume_steps_begin(h->w.v), 0);
    ck_assert_int_eq(volume_steps_set_mark(h->w.v, ++history.next_number), 0);
    h->mark = history.next_number;
    history_note_kept(h, volume_world_publish(h->w.v), h->now);
    history_set_policy(h);
}

static void
run_history(uint64_t number, bool in_s3)
{
    unsigned count = in_s3 && !getenv("CKPTFS_TEST_LONG") ? STEPS_S3 : STEPS;
    history_begin(in_s3, number * 2 + 1);
    printf("history CKPTFS_TEST_SEED=%" PRIu64 "%s:", number, in_s3 ? " in S3" : "");
    begin();
    for (unsigned n = 0; n < count; n++) {
        unsigned which = (unsigned)history_below(HISTORY_VOLUMES);
        while (!history.volumes[which].exists)
            which = (which + 1) % HISTORY_VOLUMES;
        unsigned step = any_step();
        printf(" %s %u,", steps[step].name, which);
        fflush(stdout);
        steps[step].run(&history.volumes[which]);
        for (unsigned i = 0; i < HISTORY_VOLUMES; i++)
            if (history.volumes[i].exists)
                verify(&history.volumes[i]);
    }
    // Forks before the volumes that they need.
    for (unsigned round = 0; round < HISTORY_VOLUMES; round++)
        for (unsigned i = 0; i < HISTORY_VOLUMES; i++)
            if (history.volumes[i].exists && !has_forks(&history.volumes[i]))
                destroy(&history.volumes[i]);
    printf(" end, %u done again\n", history.repeated);
    history_end();
}

static void
run_histories(bool in_s3, unsigned few, unsigned many)
{
    const char *rounds = getenv("CKPTFS_TEST_ROUNDS");
    unsigned count = getenv("CKPTFS_TEST_LONG") ? many : few;
    if (rounds || getenv("CKPTFS_TEST_SEED"))
        count = rounds ? (unsigned)strtoul(rounds, NULL, 10) : 1;
    uint64_t first = test_seed("histories");
    for (unsigned i = 0; i < count; i++)
        run_history(first + i, in_s3);
}

START_TEST(every_kept_generation_has_its_bytes_after_each_step)
{
    run_histories(false, HISTORIES, HISTORIES_LONG);
}
END_TEST

START_TEST(every_kept_generation_has_its_bytes_in_s3)
{
    run_histories(true, 1, HISTORIES_S3);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_histories");
    unit_add(s, "histories", every_kept_generation_has_its_bytes_after_each_step, 3600);
    if (getenv("CKPT_TEST_S3_ENDPOINT"))
        unit_add(s, "histories_s3", every_kept_generation_has_its_bytes_in_s3, 3600);
    return unit_run(s);
}
