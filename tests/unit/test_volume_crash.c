// SPDX-License-Identifier: Apache-2.0
// A process that dies at every step of a checkpoint, and at any moment: everything it was promised
// is there afterwards, and what is there is a prefix of what it did.
//
// The victim works through a numbered sequence of operations, each a function of its number alone.
// It reports the number up to which a sync succeeded. The parent reopens, finds out how far the
// volume got, and compares with a model that did the same operations up to there.
#include "volume_steps.h"
#include "volume_world.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "store/remote_store.h"

// ---- the victim ---------------------------------------------------------------------------------

// What the victim says about itself.
struct report {
    uint64_t done; // operations that are durable
};

static int
work(const char *directory, int report_fd, uint64_t from, bool publish)
{
    struct volume_world world;
    struct volume_world *w = &world;
    volume_world_join(w, directory);
    w->config.upload_threads = 2;
    BUFFER_AUTO error = {0};
    if (volume_open(&w->config, NULL, &w->v, &error) < 0)
        _exit(3);
    if (volume_steps_begin(w->v) < 0)
        _exit(4);
    for (uint64_t n = from;; n++) {
        if (volume_steps_do(w->v, n) < 0 || volume_steps_set_mark(w->v, n + 1) < 0)
            _exit(5);
        struct generation generation;
        if (n % 7 == 0) {
            struct report r = {n + 1};
            if (volume_world_sync(w->v) < 0 || write(report_fd, &r, sizeof(r)) != sizeof(r))
                _exit(6);
        }
        if (n % 40 == 39 &&
            volume_world_checkpoint(w->v, publish ? VOLUME_CHECKPOINT_PUBLISH : 0, &generation) < 0)
            _exit(7);
    }
}

// ---- the parent ---------------------------------------------------------------------------------

struct scene {
    struct volume_world w;
    struct model *m;
    uint64_t in_model; // operations the model has done
};

static void
scene_new(struct scene *s)
{
    volume_world_new(&s->w);
    s->m = volume_steps_model();
    s->in_model = 0;
}

static void
scene_free(struct scene *s)
{
    model_free(s->m);
    volume_world_free(&s->w);
}

// Lets a victim (this program again, because crash points are read at its start) work until it
// dies; how many operations it was promised.
static uint64_t
let_die(struct scene *s, uint64_t from, bool publish, uint64_t kill_after_ms, const char *crash_at)
{
    int fds[2];
    ck_assert_int_eq(pipe(fds), 0);
    fflush(stdout);
    char number[24], fd[12];
    snprintf(number, sizeof(number), "%" PRIu64, from);
    snprintf(fd, sizeof(fd), "%d", fds[1]);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        close(fds[0]);
        if (crash_at)
            unit_set_fault_hook("CKPTFS_CRASH_AT", crash_at);
        execl("/proc/self/exe", "victim", "victim", s->w.directory, fd, number,
            publish ? "publish" : "fold", NULL);
        _exit(2);
    }
    close(fds[1]);
    uint64_t promised = from;
    struct report r;
    uint64_t end = clock_monotonic_ms() + kill_after_ms;
    while (read(fds[0], &r, sizeof(r)) == sizeof(r)) {
        promised = r.done;
        if (kill_after_ms > 0 && clock_monotonic_ms() >= end)
            kill(pid, SIGKILL);
    }
    close(fds[0]);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", status);
    return promised;
}

// The volume as it is now, against the model after as many operations; the number of operations.
// An operation and its mark are two records: the last operation may be there without its mark.
static uint64_t
compare(struct volume *v, const struct model *before, uint64_t base)
{
    uint64_t number = volume_steps_mark(v);
    ck_assert_uint_ge(number, base);
    struct model *m = model_copy(before);
    for (uint64_t n = base; n < number; n++)
        volume_steps_model_do(m, n);
    // The operation after the mark touches one file, which may be as before or after it. A volume
    // without a mark may have been left before it had all files.
    if (number > 0)
        volume_steps_compare(m, v, volume_steps_file(number));
    model_free(m);
    return number;
}

static void
after_death(struct scene *s, uint64_t promised)
{
    // What is in the store is a prefix, too: everything up to the last round was published.
    struct volume_world past = s->w;
    BUFFER_AUTO error = {0};
    past.config.read_only = true;
    int rc = volume_open(&past.config, NULL, &past.v, &error);
    ck_assert_msg(
        rc == 0 || (rc == -ENOENT && s->in_model == 0), "%d %s", rc, buffer_string(&error));
    if (rc == 0) {
        compare(past.v, s->m, s->in_model);
        ck_assert_int_eq(volume_world_try_close(&past), 0);
    }
    volume_world_open(&s->w);
    uint64_t number = compare(s->w.v, s->m, s->in_model);
    ck_assert_msg(number >= promised, "%" PRIu64 " of %" PRIu64, number, promised);
    // Settle the last operation, which may have happened without its mark: it can be done again.
    ck_assert_int_eq(volume_steps_begin(s->w.v), 0);
    ck_assert_int_eq(volume_steps_do(s->w.v, number), 0);
    ck_assert_int_eq(volume_steps_set_mark(s->w.v, number + 1), 0);
    for (; s->in_model <= number; s->in_model++)
        volume_steps_model_do(s->m, s->in_model);
    volume_world_publish(s->w.v);
    volume_world_close(&s->w);
    volume_world_check(&s->w);
    // And from the store alone, all of it.
    struct volume_world other;
    volume_world_join(&other, s->w.directory);
    volume_world_set_root(&other, "other");
    volume_world_open(&other);
    ck_assert_uint_eq(compare(other.v, s->m, s->in_model), s->in_model);
    volume_world_close(&other);
    volume_world_lose_root(&other);
    volume_world_leave(&other);
}

// ---- tests --------------------------------------------------------------------------------------

static const char *const points[] = {"checkpoint.planned", "checkpoint.staged",
    "checkpoint.recorded", "checkpoint.uploaded", "checkpoint.published_remotely",
    "checkpoint.publication_recorded", "checkpoint.cleaned", "remote.record_created",
    "manifest.before_commit", "manifest.after_commit", "remote.epoch_noted", "remote.open_created"};

START_TEST(nothing_promised_is_lost_at_any_step_of_a_checkpoint)
{
    struct scene s;
    scene_new(&s);
    for (size_t i = 0; i < ARRAY_LENGTH(points); i++)
        for (unsigned count = 1; count <= 2; count++) {
            char crash_at[64];
            // A process opens the volume once; the manifest is written to all the time.
            bool opening = strcmp(points[i], "remote.epoch_noted") == 0 ||
                           strcmp(points[i], "remote.open_created") == 0;
            if (count == 2 && opening)
                continue;
            bool often = strncmp(points[i], "manifest.", 9) == 0;
            snprintf(crash_at, sizeof(crash_at), "%s:%u", points[i], often ? 5 * count : count);
            after_death(&s, let_die(&s, s.in_model, true, 0, crash_at));
        }
    scene_free(&s);
}
END_TEST

START_TEST(nothing_promised_is_lost_when_it_dies_at_any_moment)
{
    struct scene s;
    uint64_t random = test_seed("crash") * 2 + 1;
    scene_new(&s);
    for (int round = 0; round < 12; round++) {
        uint64_t ms = 1 + test_random(&random) % 400;
        uint64_t promised = let_die(&s, s.in_model, round % 2, ms, NULL);
        after_death(&s, promised);
    }
    printf("crash: %" PRIu64 " operations\n", s.in_model);
    scene_free(&s);
}
END_TEST

int
main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "victim") == 0)
        return work(
            argv[2], atoi(argv[3]), strtoull(argv[4], NULL, 10), strcmp(argv[5], "publish") == 0);
    Suite *s = suite_create("volume_crash");
#define ADD(test) unit_add(s, #test, test, 240)
    ADD(nothing_promised_is_lost_at_any_step_of_a_checkpoint);
    ADD(nothing_promised_is_lost_when_it_dies_at_any_moment);
#undef ADD
    return unit_run(s);
}
