// SPDX-License-Identifier: Apache-2.0
// Directories that are held: whoever may rename what lies above them, or plants links in their
// place, leads no call anywhere else.
#include "unit.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/directory.h"
#include "platform/memory.h"
#include "platform/safe_path.h"
#include "store/remote_store_backends.h"

static char *top;     // holds all below
static char *root;    // top/above/root: held
static char *victim;  // top/victim: nothing in it may change
static char *planted; // top/planted: comes in the place of the root
static struct path_hold *hold;

static void
put(const char *directory, const char *name, const char *text)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", directory, name);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, text, strlen(text), 0600), 0);
}

static void
begin(void)
{
    top = unit_directory_new();
    CLEANUP(memory_free_auto) char *below = memory_printf("%s/above/root/a/b", top);
    CLEANUP(memory_free_auto) char *sub = memory_printf("%s/victim/sub", top);
    root = memory_printf("%s/above/root", top);
    victim = memory_printf("%s/victim", top);
    planted = memory_printf("%s/planted", top);
    ck_assert_int_eq(path_make_directories(below, 0700), 0);
    ck_assert_int_eq(path_make_directories(sub, 0700), 0);
    ck_assert_int_eq(path_make_directories(planted, 0700), 0);
    put(victim, "file", "precious");
    put(victim, "sub/file", "precious");
    put(root, "a/file", "own");
    ck_assert_int_eq(path_hold(root, &hold), 0);
}

static void
end(void)
{
    path_release(hold);
    free(root);
    free(victim);
    free(planted);
    unit_directory_remove(top);
}

static char *
path_in(const char *directory, const char *name)
{
    return memory_printf("%s/%s", directory, name);
}

static void
move(const char *from, const char *to)
{
    ck_assert_int_eq(rename(from, to), 0);
}

static int
count(void *argument, const char *name)
{
    unsigned *n = argument;
    (void)name;
    ++*n;
    return 0;
}

static void
check_victim(void)
{
    static const char *const names[] = {"file", "sub/file"};
    unsigned n = 0;
    for (size_t i = 0; i < 2; i++) {
        BUFFER_AUTO text = {0};
        CLEANUP(memory_free_auto) char *path = path_in(victim, names[i]);
        ck_assert_int_eq(file_read_whole(path, 100, &text), 0);
        ck_assert_str_eq(buffer_string(&text), "precious");
    }
    ck_assert_int_eq(directory_walk(victim, count, &n), 0);
    ck_assert_uint_eq(n, 2);
}

// Every call that changes or reads something, at a name below the root. 0 or the first error.
static int
use(const char *name)
{
    CLEANUP(memory_free_auto) char *directory = path_in(root, name);
    CLEANUP(memory_free_auto) char *file = path_in(directory, "file");
    CLEANUP(memory_free_auto) char *other = path_in(directory, "other");
    CLEANUP(memory_free_auto) char *made = path_in(directory, "made");
    BUFFER_AUTO text = {0};
    struct stat st;
    struct statvfs space;
    int result = 0;
#define NOTE(call) ((call) < 0 && result == 0 ? (result = rc) : 0)
    int rc = file_read_whole(file, 100, &text);
    NOTE(rc);
    rc = path_stat(file, &st);
    NOTE(rc);
    rc = path_link(file, other);
    NOTE(rc);
    rc = path_rename(other, file);
    NOTE(rc);
    rc = file_replace_whole(&file_ops_system, other, "new", 3, 0600);
    NOTE(rc);
    rc = path_unlink(other);
    NOTE(rc);
    rc = path_make_directories(made, 0700);
    NOTE(rc);
    rc = path_exists(made);
    NOTE(rc);
    rc = path_space(made, &space);
    NOTE(rc);
    rc = file_sync_directory(&file_ops_system, directory);
    NOTE(rc);
    rc = path_remove_tree(made);
    NOTE(rc);
    rc = path_open(file, O_RDWR, 0);
    NOTE(rc);
    file_close(rc);
    DIR *dir = path_open_directory(directory);
    rc = dir ? closedir(dir) : -errno;
    NOTE(rc);
#undef NOTE
    return result;
}

START_TEST(a_held_directory_stays_the_one_that_it_was)
{
    CLEANUP(memory_free_auto) char *moved = path_in(top, "above/moved");
    CLEANUP(memory_free_auto) char *a = path_in(planted, "a");
    unsigned n = 0;
    ck_assert_int_eq(use("a"), 0);
    move(root, moved);
    ck_assert_int_eq(symlink(victim, a), 0);
    move(planted, root);
    ck_assert_int_eq(use("a"), 0);
    check_victim();
    CLEANUP(memory_free_auto) char *link = path_in(root, "a");
    ck_assert_int_eq(unlink(link), 0);
    ck_assert_int_eq(rmdir(root), 0);
    // A link in the place of the root itself, and one above it.
    ck_assert_int_eq(symlink(victim, root), 0);
    ck_assert_int_eq(use("a"), 0);
    ck_assert_int_eq(unlink(root), 0);
    CLEANUP(memory_free_auto) char *above = path_in(top, "above");
    CLEANUP(memory_free_auto) char *away = path_in(top, "away");
    move(above, away);
    ck_assert_int_eq(symlink(victim, above), 0);
    ck_assert_int_eq(use("a"), 0);
    check_victim();
    ck_assert_int_eq(directory_walk(root, count, &n), 0);
    ck_assert_uint_eq(n, 1);
    ck_assert(!path_hold_is_removed(hold));
}
END_TEST

static void
plant_links(void)
{
    CLEANUP(memory_free_auto) char *link = path_in(root, "link");
    CLEANUP(memory_free_auto) char *deep = path_in(root, "a/deep");
    CLEANUP(memory_free_auto) char *inside = path_in(root, "inside");
    ck_assert_int_eq(symlink(victim, link), 0);
    ck_assert_int_eq(symlink(victim, deep), 0);
    ck_assert_int_eq(symlink("a", inside), 0);
}

static bool
is_refusal(int rc)
{
    return rc == -ENOTDIR || rc == -ELOOP;
}

START_TEST(links_below_a_held_directory_are_not_followed)
{
    static const char *const names[] = {"link", "link/sub", "a/deep", "a/deep/sub", "inside"};
    plant_links();
    for (size_t i = 0; i < 5; i++)
        ck_assert_msg(is_refusal(use(names[i])), "%s: %d", names[i], use(names[i]));
    ck_assert_int_lt(use("a/../../victim"), 0);
    check_victim();
    // A link is an entry as any other.
    CLEANUP(memory_free_auto) char *link = path_in(root, "link");
    struct stat st;
    ck_assert_int_eq(path_stat(link, &st), 0);
    ck_assert(S_ISLNK(st.st_mode));
    ck_assert_int_eq(path_remove_tree(link), 0);
    CLEANUP(memory_free_auto) char *a = path_in(root, "a");
    ck_assert_int_eq(path_remove_tree(a), 0);
    ck_assert_int_eq(path_exists(a), 0);
    check_victim();
}
END_TEST

// ---- a kernel without openat2 -------------------------------------------------------------------

static bool
deny_openat2(unsigned error)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(steps) / sizeof(steps[0]), steps};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

START_TEST(without_openat2_the_rules_are_the_same)
{
    static const char *const names[] = {"link", "link/sub", "a/deep", "a/deep/sub", "inside"};
    static const unsigned errors[] = {ENOSYS, EPERM};
    plant_links();
    ck_assert(deny_openat2(errors[_i]));
    ck_assert_int_eq((int)syscall(SYS_openat2, AT_FDCWD, ".", NULL, 0), -1);
    ck_assert_int_eq(errno, (int)errors[_i]);
    ck_assert_int_eq(use("a"), 0);
    for (size_t i = 0; i < 5; i++)
        ck_assert_msg(is_refusal(use(names[i])), "%s: %d", names[i], use(names[i]));
    ck_assert_int_lt(use("a/../../victim"), 0);
    check_victim();
}
END_TEST

// ---- holding ------------------------------------------------------------------------------------

START_TEST(what_is_no_directory_of_its_own_is_not_held)
{
    struct path_hold *other;
    CLEANUP(memory_free_auto) char *link = path_in(top, "link");
    CLEANUP(memory_free_auto) char *file = path_in(victim, "file");
    CLEANUP(memory_free_auto) char *none = path_in(top, "none");
    ck_assert_int_eq(symlink(victim, link), 0);
    ck_assert_int_eq(path_hold(link, &other), -ENOTDIR);
    ck_assert_int_eq(path_hold(file, &other), -ENOTDIR);
    ck_assert_int_eq(path_hold(none, &other), -ENOENT);
    ck_assert_ptr_null(other);
    path_release(NULL);
}
END_TEST

START_TEST(the_directory_that_was_held_last_counts)
{
    struct path_hold *again;
    CLEANUP(memory_free_auto) char *moved = path_in(top, "above/moved");
    CLEANUP(memory_free_auto) char *similar = path_in(top, "above/root2");
    CLEANUP(memory_free_auto) char *name = path_in(root, "name");
    struct stat st;
    ck_assert_uint_eq(path_held_length(root), strlen(root));
    ck_assert_uint_eq(path_held_length(name), strlen(root));
    ck_assert_uint_eq(path_held_length(similar), 0);
    move(root, moved);
    move(planted, root);
    ck_assert_int_eq(path_hold(root, &again), 0);
    ck_assert_int_eq(path_mkdir(name, 0700), 0);
    path_release(again);
    ck_assert_int_eq(path_stat(name, &st), -ENOENT);
    ck_assert_int_eq(stat(name, &st), 0);
}
END_TEST

START_TEST(a_removed_directory_says_so)
{
    CLEANUP(memory_free_auto) char *directory = path_in(top, "short");
    CLEANUP(memory_free_auto) char *name = path_in(directory, "name");
    struct path_hold *other;
    ck_assert_int_eq(path_mkdir(directory, 0700), 0);
    ck_assert_int_eq(path_hold(directory, &other), 0);
    ck_assert(!path_hold_is_removed(other));
    ck_assert_int_eq(path_remove_tree(directory), 0);
    ck_assert(path_hold_is_removed(other));
    ck_assert_int_eq(path_mkdir(name, 0700), -ENOENT);
    path_release(other);
}
END_TEST

START_TEST(a_root_is_judged_as_it_is_held)
{
    BUFFER_AUTO why = {0};
    struct path_hold *other;
    ck_assert_int_eq(chmod(root, 0770), 0);
    ck_assert_ptr_null(safe_path_hold(root, &other, &why));
    ck_assert_ptr_null(other);
    ck_assert_int_eq(chmod(root, 0700), 0);
    buffer_clear(&why);
    char *resolved = safe_path_hold(root, &other, &why);
    ck_assert_msg(resolved != NULL, "%s", buffer_string(&why));
    path_release(other);
    free(resolved);
}
END_TEST

// ---- a store ------------------------------------------------------------------------------------

START_TEST(a_store_is_not_led_elsewhere_while_it_is_open)
{
    struct remote_store *store;
    struct sha256 hash;
    sha256_of("x", 1, &hash);
    CLEANUP(memory_free_auto) char *directory = path_in(top, "above/store");
    CLEANUP(memory_free_auto) char *moved = path_in(top, "above/moved");
    ck_assert_int_eq(file_store_open(directory, true, &file_ops_system, &store), 0);
    const struct remote_source x = {.data = "x", .length = 1, .hash = hash};
    ck_assert_int_eq(remote_store_put_blob(store, "sub/one", &x, REMOTE_PUT_CREATE, NULL), 0);
    move(directory, moved);
    ck_assert_int_eq(symlink(victim, directory), 0);
    ck_assert_int_lt(remote_store_put_blob(store, "sub/two", &x, REMOTE_PUT_CREATE, NULL), 0);
    check_victim();
    // The disk is back.
    ck_assert_int_eq(unlink(directory), 0);
    move(moved, directory);
    ck_assert_int_eq(remote_store_put_blob(store, "sub/two", &x, REMOTE_PUT_CREATE, NULL), 0);
    remote_store_close(store);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("path");
    TCase *tcase = tcase_create("path");
    tcase_add_checked_fixture(tcase, begin, end);
    tcase_add_test(tcase, a_held_directory_stays_the_one_that_it_was);
    tcase_add_test(tcase, links_below_a_held_directory_are_not_followed);
    tcase_add_loop_test(tcase, without_openat2_the_rules_are_the_same, 0, 2);
    tcase_add_test(tcase, what_is_no_directory_of_its_own_is_not_held);
    tcase_add_test(tcase, the_directory_that_was_held_last_counts);
    tcase_add_test(tcase, a_removed_directory_says_so);
    tcase_add_test(tcase, a_root_is_judged_as_it_is_held);
    tcase_add_test(tcase, a_store_is_not_led_elsewhere_while_it_is_open);
    suite_add_tcase(suite, tcase);
    return unit_run(suite);
}
