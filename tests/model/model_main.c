// SPDX-License-Identifier: Apache-2.0
// Runs plans, each in a process of its own, and shrinks one that fails.
//
//     fs_model run WORK SECONDS SEED FAILURES   plans of SEED, SEED + 1, ... ; the first that fails
//                                               is shrunk and written to the directory FAILURES
//     fs_model replay WORK FILE...              plans from files
//     fs_model shrink WORK FILE OUT             makes a failing plan smaller
//     fs_model show SEED                        the plan of a seed, as text
//
// WORK is an empty directory on the disk that is the reference. CKPTFS and CKPTCTL in the
// environment are the programs. Exit status: 0 all is well, 1 a plan failed, 2 wrong use.
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/model/model.h"

#define RUN_SECONDS_MAX    150
#define SHRINK_SECONDS_MAX 240

static uint64_t
now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec;
}

// ---- one run ------------------------------------------------------------------------------------

static void
wait_for_run(pid_t pid, struct outcome *o)
{
    uint64_t end = now_seconds() + RUN_SECONDS_MAX;
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (now_seconds() > end) {
            // The daemon dies with its parent, and with it what waits for it.
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            o->failed = true;
            snprintf(o->why, sizeof(o->why), "not done after %d seconds", RUN_SECONDS_MAX);
            return;
        }
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    if (status != 0) {
        o->failed = true;
        snprintf(o->why, sizeof(o->why), "the test itself ended with status %#x", status);
    }
}

static void
run_in_process(const struct plan *plan, const char *work, bool verbose, struct outcome *outcome_out)
{
    char directory[PATH_MAX], mount[PATH_MAX + 8];
    snprintf(directory, sizeof(directory), "%s/run", work);
    snprintf(mount, sizeof(mount), "%s/mnt", directory);
    if (mkdir(directory, 0755) != 0) {
        perror(directory);
        exit(2);
    }
    struct outcome *o =
        mmap(NULL, sizeof(*o), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (o == MAP_FAILED)
        abort();
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        plan_run(plan, directory, verbose, o);
        fflush(stdout);
        _exit(0);
    }
    wait_for_run(pid, o);
    *outcome_out = *o;
    munmap(o, sizeof(*o));
    umount2(mount, MNT_DETACH);
    if (outcome_out->failed && getenv("CKPTFS_MODEL_KEEP")) {
        printf("kept: %s\n", directory);
        exit(1);
    }
    remove_tree(directory);
}

// ---- shrinking ----------------------------------------------------------------------------------

struct shrinker {
    const char *work;
    struct plan *best;
    struct outcome outcome; // of the best
    uint64_t deadline;
    unsigned tries;
};

static bool
is_out_of_time(const struct shrinker *s)
{
    return now_seconds() > s->deadline;
}

// Takes the candidate when it fails, too.
static bool
try_plan(struct shrinker *s, struct plan *candidate)
{
    struct outcome o;
    s->tries++;
    run_in_process(candidate, s->work, false, &o);
    if (!o.failed) {
        plan_free(candidate);
        return false;
    }
    if (o.failed_at + 1 < candidate->count)
        candidate->count = o.failed_at + 1;
    plan_free(s->best);
    s->best = candidate;
    s->outcome = o;
    return true;
}

static struct plan *
without(const struct plan *plan, size_t from, size_t n)
{
    struct plan *p = plan_copy(plan);
    p->count = 0;
    free(p->items);
    p->items = NULL;
    for (size_t i = 0; i < plan->count; i++)
        if (i < from || i >= from + n)
            plan_append(p, plan->items[i]);
    return p;
}

// One pass with pieces of n items, from the end; whether anything could go.
static bool
drop_pieces(struct shrinker *s, size_t n)
{
    bool dropped = false;
    size_t end = s->best->count;
    while (end > 0 && !is_out_of_time(s)) {
        size_t from = end > n ? end - n : 0;
        if (try_plan(s, without(s->best, from, end - from)))
            dropped = true;
        end = from < s->best->count ? from : s->best->count;
    }
    return dropped;
}

static struct plan *
shrink(const char *work, const struct plan *plan, struct outcome *outcome)
{
    struct shrinker s = {.work = work, .best = plan_copy(plan), .outcome = *outcome};
    s.deadline = now_seconds() + SHRINK_SECONDS_MAX;
    if (outcome->failed_at + 1 < s.best->count)
        s.best->count = outcome->failed_at + 1;
    // With one thread a failure repeats itself; often it is still there.
    for (int i = 0; i < 2 && !s.best->serial; i++) {
        struct plan *serial = plan_copy(s.best);
        serial->serial = true;
        (void)try_plan(&s, serial);
    }
    size_t n = s.best->count / 2;
    while (n > 0 && !is_out_of_time(&s))
        if (!drop_pieces(&s, n) || n > 1)
            n /= 2;
    printf("shrunk from %zu to %zu items in %u runs%s\n", plan->count, s.best->count, s.tries,
        is_out_of_time(&s) ? " (time was up)" : "");
    *outcome = s.outcome;
    return s.best;
}

static int
save_shrunk(const char *path, const struct plan *plan, const struct outcome *outcome)
{
    FILE *out = fopen(path, "we");
    if (!out) {
        perror(path);
        return 2;
    }
    fprintf(out, "# %s\n", outcome->why);
    plan_write(plan, out);
    fclose(out);
    printf("# %s\n", outcome->why);
    plan_write(plan, stdout);
    printf("to repeat it: fs_model replay WORK %s\n", path);
    return 1;
}

// ---- commands -----------------------------------------------------------------------------------

static int
command_run(char **argv)
{
    const char *work = argv[0], *failures = argv[3];
    uint64_t end = now_seconds() + strtoull(argv[1], NULL, 10);
    uint64_t seed = strtoull(argv[2], NULL, 10), runs = 0, operations = 0, events = 0;
    for (; now_seconds() < end; seed++, runs++) {
        struct outcome o;
        struct plan *plan = plan_generate(seed);
        run_in_process(plan, work, false, &o);
        operations += o.operations;
        events += o.events;
        if (o.failed) {
            char path[PATH_MAX];
            printf("seed %" PRIu64 " (%d threads, %s) failed: %s\n", seed, plan->threads,
                plan->options, o.why);
            struct plan *small = shrink(work, plan, &o);
            snprintf(path, sizeof(path), "%s/model-%" PRIu64 ".ops", failures, seed);
            int rc = save_shrunk(path, small, &o);
            plan_free(small);
            plan_free(plan);
            return rc;
        }
        plan_free(plan);
    }
    printf("%" PRIu64 " plans, the last of seed %" PRIu64 ": %" PRIu64 " operations, %" PRIu64
           " events\n",
        runs, seed - 1, operations, events);
    return 0;
}

static int
command_replay(char **argv)
{
    int status = 0;
    for (char **file = argv + 1; *file; file++) {
        struct outcome o;
        struct plan *plan = plan_read(*file);
        if (!plan)
            return 2;
        run_in_process(plan, argv[0], getenv("CKPTFS_MODEL_VERBOSE") != NULL, &o);
        if (o.failed)
            printf("%s failed: %s\n", *file, o.why);
        status |= o.failed;
        plan_free(plan);
    }
    return status;
}

static int
command_shrink(char **argv)
{
    struct outcome o;
    struct plan *plan = plan_read(argv[1]);
    if (!plan)
        return 2;
    run_in_process(plan, argv[0], false, &o);
    if (!o.failed) {
        printf("it does not fail\n");
        return 0;
    }
    struct plan *small = shrink(argv[0], plan, &o);
    int rc = save_shrunk(argv[2], small, &o);
    plan_free(small);
    plan_free(plan);
    return rc;
}

static int
command_show(char **argv)
{
    struct plan *plan = plan_generate(strtoull(argv[0], NULL, 10));
    plan_write(plan, stdout);
    plan_free(plan);
    return 0;
}

static const struct {
    const char *name;
    int least, most;
    int (*run)(char **argv);
} commands[] = {
    {"run", 4, 4, command_run},
    {"replay", 2, INT_MAX, command_replay},
    {"shrink", 3, 3, command_shrink},
    {"show", 1, 1, command_show},
};

int
main(int argc, char **argv)
{
    umask(022);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (argc < 2 || strcmp(argv[1], commands[i].name) != 0 || argc - 2 < commands[i].least ||
            argc - 2 > commands[i].most)
            continue;
        bool mounts = strcmp(argv[1], "show") != 0;
        if (mounts && (!getenv("CKPTFS") || !getenv("CKPTCTL"))) {
            fprintf(stderr, "CKPTFS and CKPTCTL must name the programs\n");
            return 2;
        }
        return commands[i].run(argv + 2);
    }
    fprintf(stderr, "usage: see the head of model_main.c\n");
    return 2;
}
