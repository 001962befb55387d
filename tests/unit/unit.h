// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
// What every unit test program shares: a main that runs one suite, and a scratch directory.
#ifndef CKPTFS_TESTS_UNIT_H
#define CKPTFS_TESTS_UNIT_H

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "platform/file.h"
#include "platform/path.h"

// Check writes a message for each assertion that holds, so that it can name the last one when a
// test dies by a signal. That costs a system call in each turn of a loop. And a child that a test
// kills can die in the middle of such a message; Check then gives up the whole program with "Bad
// message type". So assertions that hold say nothing here; those that fail do.
#define _mark_point(file, line) ((void)0)

#ifdef __SANITIZE_THREAD__
// The manifest's writer takes LMDB's lock of writers and the lock of the environment in both
// orders: when a fold reads inside the transaction, and when it mends. No other thread of the
// process takes LMDB's lock, so none can hold it and wait for the other one.
const char *__tsan_default_suppressions(void);
__attribute__((weak, visibility("default"))) const char *
__tsan_default_suppressions(void)
{
    return "deadlock:lmdb_env_mend\n";
}
#endif

// A new empty directory below $TMPDIR; remove it with unit_directory_remove.
static inline char *
unit_directory_new(void)
{
    const char *base = getenv("TMPDIR");
    char *path = NULL;
    if (asprintf(&path, "%s/ckptfs-unit-XXXXXX", base ? base : "/tmp") < 0 || !mkdtemp(path))
        abort();
    return path;
}

static inline void
unit_directory_remove(char *path)
{
    ck_assert_int_eq(path_remove_tree(path), 0);
    free(path);
}

// Runs the suite; the exit status of the program. Each test runs in a process of its own.
static inline int
unit_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

// Sets an environment variable that kills the process or disturbs the store, for programs that are
// started later, or for stores that are opened later.
static inline void
unit_set_fault_hook(const char *variable, const char *value)
{
#ifdef CKPTFS_FAULT_HOOKS
    setenv(variable, value, 1);
#else
    fprintf(stderr, "%s=%s needs a build with fault hooks: configure --enable-fault-hooks\n",
        variable, value);
    abort();
#endif
}

// Adds one test as a case of its own, with a timeout in seconds, and functions that run before and
// after it in its process (NULL: none).
static inline void
unit_add_with(Suite *suite, const char *name, const TTest *test, void (*setup)(void),
    void (*teardown)(void), double timeout)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, timeout);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test);
    suite_add_tcase(suite, tcase);
}

static inline void
unit_add(Suite *suite, const char *name, const TTest *test, double timeout)
{
    unit_add_with(suite, name, test, NULL, NULL, timeout);
}

#endif
