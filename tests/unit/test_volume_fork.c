// SPDX-License-Identifier: Apache-2.0
// Forks that are made while their parent is destroyed or swept, and what is left of forks and
// snapshots whose commands died.
#include "volume_world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/awake.h"
#include "platform/crash_point.h"
#include "platform/memory.h"
#include "volume/volume_offline.h"

#define DAY ((time_t)24 * 3600)

static struct volume_world world;
static void (*before_object)(void);
static const char *object_name; // behind the last slash of its key
static bool object_fails;

// The clock of commands that look whether they were asleep: they were when this has grown.
static uint64_t sleeps;
static void (*before_clock)(void);

void __wrap_awake_begin(struct awake *a);
bool __wrap_awake_has_slept(const struct awake *a);

void
__wrap_awake_begin(struct awake *a)
{
    a->wall_ms = sleeps;
}

bool
__wrap_awake_has_slept(const struct awake *a)
{
    void (*call)(void) = before_clock;
    before_clock = NULL;
    if (call)
        call();
    return a->wall_ms != sleeps;
}

// Stands in for the C library's.
int
linkat(int from_directory, const char *from, int directory, const char *to, int flags)
{
    void (*call)(void) = before_object;
    const char *slash = strrchr(to, '/');
    if (object_name && strcmp(slash ? slash + 1 : to, object_name) == 0) {
        before_object = NULL;
        if (call)
            call();
        if (object_fails) {
            errno = EIO;
            return -1;
        }
    }
    return (int)syscall(SYS_linkat, from_directory, from, directory, to, flags);
}

static void
setup(void)
{
    volume_world_new(&world);
    volume_world_open(&world);
    struct object_id file = volume_world_make_file(world.v, "file");
    volume_world_fill(world.v, file, 0, 100000, 7);
    (void)volume_world_publish(world.v);
    volume_world_close(&world);
    world.config.takeover = true; // from commands that died
}

static void
teardown(void)
{
    volume_world_free(&world);
}

static int
fork_it(const char *tenant, struct buffer *error)
{
    struct generation made;
    CLEANUP(memory_free_auto)
    char *source = memory_printf("file://%s/store/%s", world.directory, tenant);
    return volume_fork(&world.config, NULL, source, &made, error);
}

static int
destroy(struct buffer *error)
{
    uint64_t objects;
    return volume_destroy(&world.config, NULL, &objects, error);
}

// The forking host sleeps for two days. Nothing shows that the pin is of a fork that is under way.
static void
sleep_while_the_parent_is_destroyed(void)
{
    BUFFER_AUTO error = {0};
    volume_world_age_objects(&world, "pins/acme/1", 2 * 24 * 3600);
    ck_assert_msg(destroy(&error) == 0, "%s", buffer_string(&error));
}

START_TEST(fork_of_a_parent_that_went_meanwhile_is_not_made)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO again = {0};
    struct generation made;
    object_name = "record-0000000000000001";
    before_object = sleep_while_the_parent_is_destroyed;
    ck_assert_int_lt(fork_it("child", &error), 0);
    ck_assert_ptr_null(before_object);
    ck_assert_ptr_nonnull(strstr(buffer_string(&error), "has gone or changed"));
    // Nothing was left in the parent's place.
    CLEANUP(memory_free_auto) char *pins = memory_printf("%s/store/pins/acme/1", world.directory);
    DIR *d = opendir(pins);
    for (struct dirent *e; d && (e = readdir(d));)
        ck_assert_int_eq(e->d_name[0], '.');
    if (d)
        closedir(d);
    // The child is empty, and nobody takes it for a fork.
    CLEANUP(memory_free_auto)
    char *child = memory_printf("file://%s/store/child", world.directory);
    struct volume_config config;
    volume_config_copy(&config, &world.config);
    free(config.source);
    config.source = memory_string(child);
    ck_assert_int_lt(volume_rollback(&config, "1", &made, &again), 0);
    volume_config_free(&config);
}
END_TEST

START_TEST(fork_that_was_made_keeps_its_parent)
{
    BUFFER_AUTO error = {0};
    ck_assert_msg(fork_it("child", &error) == 0, "%s", buffer_string(&error));
    volume_world_age_objects(&world, "pins/acme/1", 2 * 24 * 3600);
    ck_assert_int_eq(destroy(&error), -EBUSY);
    ck_assert_ptr_nonnull(strstr(buffer_string(&error), "child@1 is a fork"));
}
END_TEST

// ---- what is left of commands that died ---------------------------------------------------------

static unsigned
count(const char *directory, const char *pattern)
{
    return volume_world_count_objects(&world, directory, pattern);
}

static int
operate(unsigned kind, unsigned flags, const char *argument)
{
    BUFFER_AUTO out = {0};
    BUFFER_AUTO error = {0};
    return volume_offline_operation(&world.config, kind, flags, argument, NULL, &out, &error);
}

static void
sweep(void)
{
    ck_assert_int_eq(operate(VOLUME_OPERATION_GC, VOLUME_OPERATION_SWEEP, ""), 0);
}

static void
pass_days(time_t days)
{
    static const char *const directories[] = {"pins", "snapshots", "manifests/child"};
    for (size_t i = 0; i < ARRAY_LENGTH(directories); i++) {
        CLEANUP(memory_free_auto)
        char *command = memory_printf("d=%s/store/%s; [ ! -d $d ] || find $d -type f | "
                                      "while read -r f; do touch -d \"$(date -R -r \"$f\") %d days "
                                      "ago\" \"$f\"; done",
            world.directory, directories[i], (int)days);
        ck_assert_int_eq(system(command), 0);
    }
}

static void
make_snapshot(void)
{
    (void)!operate(VOLUME_OPERATION_SNAPSHOT_CREATE, 0, "kept");
}

static void
drop_snapshot(void)
{
    (void)!operate(VOLUME_OPERATION_SNAPSHOT_DROP, 0, "kept");
}

static void
make_fork(void)
{
    BUFFER_AUTO error = {0};
    (void)!fork_it("child", &error);
}

// In a process that is to die at the crash point.
static void
die_at(const char *point, void (*work)(void))
{
    fflush(stdout);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
#ifdef CKPTFS_FAULT_HOOKS
        crash_point_arm(point);
#endif
        work();
        _exit(3);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(
        WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: status %x", point, status);
}

// Whether anything of snapshots is in the store.
static unsigned
count_snapshot(void)
{
    return count("pins", "*-snapshot-kept") + count("snapshots", "kept.json");
}

static void
check_that_the_snapshot_goes(void)
{
    ck_assert_uint_eq(count("pins", "*-snapshot-kept"), 1);
    ck_assert_uint_eq(count("snapshots", "*"), 0);
    sweep(); // it may be under way
    ck_assert_uint_eq(count("snapshots", "*"), 0);
    pass_days(2);
    die_at("unfinished.condemned", sweep);
    ck_assert_uint_eq(count_snapshot(), 2);
    sweep();
    ck_assert_uint_eq(count_snapshot(), 2);
    // Nobody gets the name meanwhile.
    ck_assert_int_eq(operate(VOLUME_OPERATION_SNAPSHOT_CREATE, 0, "kept"), -EBUSY);
    ck_assert_int_eq(operate(VOLUME_OPERATION_SNAPSHOT_DROP, 0, "kept"), -EBUSY);
    pass_days(2);
    die_at("unfinished.unpinned", sweep);
    ck_assert_uint_eq(count_snapshot(), 1);
    sweep(); // the deletion of the pin may be under way
    ck_assert_uint_eq(count_snapshot(), 1);
    pass_days(2);
    sweep();
    ck_assert_uint_eq(count_snapshot(), 0);
}

START_TEST(snapshots_that_were_never_finished_go)
{
    die_at("snapshot.pinned", make_snapshot);
    check_that_the_snapshot_goes();
    // And so do those whose removal died.
    ck_assert_int_eq(operate(VOLUME_OPERATION_SNAPSHOT_CREATE, 0, "kept"), 0);
    die_at("snapshot.name_dropped", drop_snapshot);
    check_that_the_snapshot_goes();
    // Once it has its name it is finished.
    die_at("snapshot.named", make_snapshot);
    pass_days(2);
    sweep();
    pass_days(2);
    sweep();
    ck_assert_uint_eq(count_snapshot(), 2);
    ck_assert_int_eq(operate(VOLUME_OPERATION_SNAPSHOT_DROP, 0, "kept"), 0);
    ck_assert_uint_eq(count_snapshot(), 0);
}
END_TEST

static void
sleep_while_swept(void)
{
    pass_days(2);
    sweep();
}

static void
sleep_while_swept_to_the_end(void)
{
    sleep_while_swept();
    sleep_while_swept();
    sleep_while_swept();
}

// The command sleeps between the pin and the name.
START_TEST(snapshot_whose_command_slept_is_whole_or_not_there)
{
    object_name = "kept.json";
    before_object = sleep_while_swept;
    ck_assert_int_eq(operate(VOLUME_OPERATION_SNAPSHOT_CREATE, 0, "kept"), -EBUSY);
    sleep_while_swept_to_the_end();
    ck_assert_uint_eq(count_snapshot(), 0);
    // It has slept for so long that nothing is left of its pin, and writes it anew.
    before_object = sleep_while_swept_to_the_end;
    ck_assert_int_eq(operate(VOLUME_OPERATION_SNAPSHOT_CREATE, 0, "kept"), 0);
    ck_assert_uint_eq(count_snapshot(), 2);
    sleep_while_swept_to_the_end();
    ck_assert_uint_eq(count_snapshot(), 2);
}
END_TEST

static int
make_snapshot_of_first(const char *name)
{
    BUFFER_AUTO out = {0};
    BUFFER_AUTO error = {0};
    return volume_offline_operation(
        &world.config, VOLUME_OPERATION_SNAPSHOT_CREATE, 0, name, "1", &out, &error);
}

// Removes the snapshot as a whole, and makes the same one.
static void
sleep_while_it_is_made_anew(void)
{
    sleeps++;
    sleep_while_swept_to_the_end();
    ck_assert_uint_eq(count_snapshot(), 0);
    make_snapshot();
    ck_assert_uint_eq(count_snapshot(), 2);
}

START_TEST(snapshot_stays_when_the_command_that_dropped_the_one_before_wakes_up)
{
    make_snapshot();
    before_clock = sleep_while_it_is_made_anew;
    ck_assert_int_eq(operate(VOLUME_OPERATION_SNAPSHOT_DROP, 0, "kept"), -ETIME);
    ck_assert_ptr_null(before_clock);
    sleep_while_swept_to_the_end();
    ck_assert_uint_eq(count_snapshot(), 2);
}
END_TEST

// The policy keeps the newest generation alone: the first one goes.
static void
forget_the_first_generation(void)
{
    BUFFER_AUTO out = {0};
    volume_world_open(&world);
    volume_world_fill(world.v, volume_world_find(world.v, "file"), 0, 5000, 8);
    (void)volume_world_publish(world.v);
    ck_assert_int_eq(
        volume_world_operate(world.v, VOLUME_OPERATION_RETENTION, 0, "last=1,grace=0s", &out), 0);
    volume_world_close(&world);
    for (int i = 0; i < 3; i++)
        sweep();
    ck_assert_int_eq(make_snapshot_of_first("other"), -ENOENT);
}

static void
sleep_while_the_generation_goes(void)
{
    sleep_while_swept_to_the_end();
    forget_the_first_generation();
}

// The command sleeps between the pin and the name until its generation is gone.
START_TEST(snapshot_whose_generation_went_meanwhile_is_taken_back)
{
    object_name = "kept.json";
    before_object = sleep_while_the_generation_goes;
    ck_assert_int_eq(make_snapshot_of_first("kept"), -ENOENT);
    ck_assert_ptr_null(before_object);
    ck_assert_uint_eq(count("pins", "*"), 0);
    ck_assert_uint_eq(count("snapshots", "*"), 0);
}
END_TEST

static void
make_first_snapshot(void)
{
    (void)!make_snapshot_of_first("kept");
}

static void
leave_a_name_without_a_pin(void)
{
    object_name = "kept.json";
    before_object = sleep_while_swept_to_the_end;
    die_at("snapshot.named", make_first_snapshot);
    before_object = NULL;
    ck_assert_uint_eq(count("pins", "*"), 0);
    ck_assert_uint_eq(count("snapshots", "kept.json"), 1);
}

START_TEST(name_without_a_pin_is_finished_or_goes)
{
    leave_a_name_without_a_pin();
    sleep_while_swept_to_the_end();
    ck_assert_uint_eq(count("snapshots", "kept.json"), 1);
    make_first_snapshot();
    ck_assert_uint_eq(count_snapshot(), 2);
    ck_assert_int_eq(operate(VOLUME_OPERATION_SNAPSHOT_DROP, 0, "kept"), 0);
    ck_assert_uint_eq(count_snapshot(), 0);

    leave_a_name_without_a_pin();
    ck_assert_int_eq(operate(VOLUME_OPERATION_SNAPSHOT_DROP, 0, "kept"), 0);
    ck_assert_uint_eq(count("snapshots", "*"), 0);

    leave_a_name_without_a_pin();
    forget_the_first_generation();
    // It tells of another generation.
    ck_assert_int_eq(operate(VOLUME_OPERATION_SNAPSHOT_CREATE, 0, "kept"), -EBUSY);
    ck_assert_uint_eq(count("pins", "*"), 0);
    sweep(); // it is young
    ck_assert_int_eq(operate(VOLUME_OPERATION_SNAPSHOT_CREATE, 0, "kept"), -EBUSY);
    sleep_while_swept();
    sleep_while_swept();
    ck_assert_uint_eq(count("snapshots", "*"), 0);
    ck_assert_int_eq(operate(VOLUME_OPERATION_SNAPSHOT_CREATE, 0, "kept"), 0);
    ck_assert_uint_eq(count_snapshot(), 2);
}
END_TEST

static unsigned
count_fork(void)
{
    return count("pins", "*-fork-*") + count("manifests/child", "*");
}

START_TEST(forks_that_were_never_finished_go)
{
    static const struct {
        const char *fork, *sweep; // where they die
        unsigned left;            // objects of the fork and its pins
    } cases[] = {
        {"fork.pinned", NULL, 1},
        {"fork.created", "destroy.marked", 2},
        {"fork.pinned_again", "destroy.stage_done:3", 3},
        {"fork.pinned_again", "destroy.mark_is_left", 3},
        {"fork.created", "unfinished.destroyed", 2},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        die_at(cases[i].fork, make_fork);
        sweep(); // it may be under way
        ck_assert_uint_eq(count_fork(), cases[i].left);
        pass_days(2);
        if (cases[i].sweep)
            die_at(cases[i].sweep, sweep);
        sweep();
        ck_assert_msg(count_fork() == 0, "%s, %s: %u objects", cases[i].fork,
            cases[i].sweep ? cases[i].sweep : "", count_fork());
    }
}
END_TEST

START_TEST(fork_that_was_finished_keeps_its_pins)
{
    BUFFER_AUTO error = {0};
    die_at("fork.pinned_again", make_fork);
    pass_days(2);
    ck_assert_int_eq(fork_it("child", &error), 0);
    sleep_while_swept_to_the_end();
    ck_assert_uint_eq(count("pins", "*-fork-*"), 2);
}
END_TEST

// The command sleeps before it makes the fork's first record, and the parent is swept.
START_TEST(fork_whose_command_slept_pins_once_more)
{
    BUFFER_AUTO error = {0};
    object_name = "record-0000000000000001";
    before_object = sleep_while_swept;
    ck_assert_msg(fork_it("child", &error) == 0, "%s", buffer_string(&error));
    ck_assert_ptr_null(before_object);
    ck_assert_uint_eq(count("pins", "*-fork-*"), 2);
    sleep_while_swept_to_the_end();
    ck_assert_uint_eq(count("pins", "*-fork-*"), 2);
}
END_TEST

// It sleeps after that, and the sweep takes the empty fork for one that nobody will finish.
START_TEST(fork_whose_command_slept_for_too_long_is_not_made)
{
    BUFFER_AUTO error = {0};
    object_name = "record-0000000000000002";
    before_object = sleep_while_swept;
    ck_assert_int_lt(fork_it("child", &error), 0);
    ck_assert_ptr_null(before_object);
    ck_assert_ptr_nonnull(strstr(buffer_string(&error), "was destroyed while it was being made"));
    ck_assert_uint_eq(count_fork(), 0);
}
END_TEST

// ---- the last steps of a fork -------------------------------------------------------------------

START_TEST(fork_without_a_catalog_is_complete_and_says_so)
{
    BUFFER_AUTO error = {0};
    object_name = "catalog-0000000000000003";
    object_fails = true;
    ck_assert_int_eq(fork_it("child", &error), 0);
    ck_assert_ptr_nonnull(strstr(buffer_string(&error), "child is complete and can be used, but"));
    object_fails = false;
    CLEANUP(memory_free_auto)
    char *child = memory_printf("file://%s/store/child", world.directory);
    free(world.config.source);
    world.config.source = memory_string(child);
    volume_world_set_root(&world, "child");
    volume_world_open(&world);
    volume_world_expect(world.v, volume_world_find(world.v, "file"), 0, 100000, 7);
    volume_world_close(&world);
}
END_TEST

START_TEST(fork_without_a_generation_is_not_made_and_the_same_command_makes_it)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO again = {0};
    object_name = "record-0000000000000003";
    object_fails = true;
    ck_assert_int_lt(fork_it("child", &error), 0);
    ck_assert_ptr_nonnull(strstr(buffer_string(&error), "was begun and is empty"));
    object_fails = false;
    ck_assert_msg(fork_it("child", &again) == 0, "%s", buffer_string(&again));
    ck_assert_uint_eq(again.length, 0);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_fork");
#define ADD(t) unit_add_with(s, #t, t, setup, teardown, 60)
    ADD(fork_of_a_parent_that_went_meanwhile_is_not_made);
    ADD(fork_that_was_made_keeps_its_parent);
    ADD(snapshots_that_were_never_finished_go);
    ADD(snapshot_whose_command_slept_is_whole_or_not_there);
    ADD(snapshot_stays_when_the_command_that_dropped_the_one_before_wakes_up);
    ADD(snapshot_whose_generation_went_meanwhile_is_taken_back);
    ADD(name_without_a_pin_is_finished_or_goes);
    ADD(forks_that_were_never_finished_go);
    ADD(fork_that_was_finished_keeps_its_pins);
    ADD(fork_whose_command_slept_pins_once_more);
    ADD(fork_whose_command_slept_for_too_long_is_not_made);
    ADD(fork_without_a_catalog_is_complete_and_says_so);
    ADD(fork_without_a_generation_is_not_made_and_the_same_command_makes_it);
    return unit_run(s);
}
