// SPDX-License-Identifier: Apache-2.0
// Processes that share a storage root: slots for readers of the manifest, those of killed
// processes, and several that open a new root at once.
#include "unit.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "manifest/manifest.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"

#define SLOTS     1024u
#define OTHERS    600u
#define PROCESSES 6
#define ROUNDS    8

static struct manifest *
open_in(const char *directory)
{
    struct manifest_options options = {.map_bytes = 16u << 20, .no_sync = true};
    struct manifest *m;
    log_set_level(LOG_LEVEL_ERROR + 1);
    return manifest_open(directory, &options, &m) == 0 ? m : NULL;
}

static void
take_slots(struct manifest *m, struct manifest_reader **readers, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (manifest_read_begin(m, &readers[i]) < 0)
            abort();
}

// A process with readers, until it is killed.
static pid_t
start_other(const char *directory)
{
    int ready[2];
    char byte;
    ck_assert_int_eq(pipe(ready), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        static struct manifest_reader *readers[OTHERS];
        struct manifest *m = open_in(directory);
        if (!m)
            _exit(1);
        take_slots(m, readers, OTHERS);
        if (write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void *
end_soon(void *reader)
{
    clock_sleep_ms(50);
    manifest_read_end(reader);
    return NULL;
}

START_TEST(slots_run_out_with_a_clear_error_and_come_back)
{
    static struct manifest_reader *readers[SLOTS];
    char *directory = unit_directory_new();
    CLEANUP(memory_free_auto) char *place = memory_printf("%s/manifest", directory);
    pid_t other = start_other(place);
    struct manifest *m = open_in(place);
    ck_assert_ptr_nonnull(m);
    unsigned own = SLOTS - OTHERS;
    take_slots(m, readers, own);
    struct manifest_reader *more;
    ck_assert_int_eq(manifest_read_begin(m, &more), -ENFILE);
    // One of this process is given back while a reader waits for it.
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, end_soon, readers[0]), 0);
    ck_assert_int_eq(manifest_read_begin(m, &readers[0]), 0);
    pthread_join(thread, NULL);
    // Those of a process that is gone are taken back when they are needed.
    ck_assert_int_eq(kill(other, SIGKILL), 0);
    ck_assert_int_eq(waitpid(other, NULL, 0), other);
    take_slots(m, readers + own, OTHERS);
    for (unsigned i = 0; i < SLOTS; i++)
        manifest_read_end(readers[i]);
    manifest_close(m);
    unit_directory_remove(directory);
}
END_TEST

// ---- the first open -----------------------------------------------------------------------------

START_TEST(several_may_make_a_root_at_once)
{
    for (int round = 0; round < ROUNDS; round++) {
        char *directory = unit_directory_new();
        CLEANUP(memory_free_auto) char *place = memory_printf("%s/manifest", directory);
        pid_t pids[PROCESSES];
        for (int i = 0; i < PROCESSES; i++) {
            pids[i] = fork();
            if (pids[i] == 0) {
                struct manifest *m = open_in(place);
                if (m)
                    manifest_close(m);
                _exit(m ? 0 : 1);
            }
        }
        for (int i = 0; i < PROCESSES; i++) {
            int status;
            ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
            ck_assert_int_eq(status, 0);
        }
        unit_directory_remove(directory);
    }
}
END_TEST

static const char *shared_path;

// Another process replaces the file just before this one does.
static int
overtaken_rename(const char *from, const char *to)
{
    ck_assert_int_eq(file_replace_whole(&file_ops_system, shared_path, "other", 5, 0600), 0);
    return file_ops_system.rename(from, to);
}

START_TEST(two_may_replace_a_file_at_once)
{
    struct file_ops ops = file_ops_system;
    BUFFER_AUTO now = {0};
    char *directory = unit_directory_new();
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/mark", directory);
    CLEANUP(memory_free_auto) char *left = memory_printf("%s.tmp", path);
    shared_path = path;
    ops.rename = overtaken_rename;
    // What a process of before has left is in nobody's way.
    ck_assert_int_eq(file_replace_whole(&file_ops_system, left, "left", 4, 0400), 0);
    ck_assert_int_eq(file_replace_whole(&ops, path, "mine", 4, 0600), 0);
    ck_assert_int_eq(file_read_whole(path, 100, &now), 0);
    ck_assert_str_eq(buffer_string(&now), "mine");
    unit_directory_remove(directory);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("sharing");
    unit_add(suite, "slots", slots_run_out_with_a_clear_error_and_come_back, 30);
    unit_add(suite, "first_open", several_may_make_a_root_at_once, 60);
    unit_add(suite, "replace", two_may_replace_a_file_at_once, 10);
    return unit_run(suite);
}
