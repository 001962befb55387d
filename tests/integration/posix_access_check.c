// SPDX-License-Identifier: Apache-2.0
// Who may do what, tried out by root and by users that it becomes: sticky and setgid directories,
// set-user-ID bits and capabilities that changes take away, access lists, the flags of chattr.
// Leaves a tree behind; with "again" it checks that what this tree forbids is still forbidden.
//     posix_access_check DIR [again]
#define _GNU_SOURCE
#include <grp.h>
#include <linux/fs.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

#include "check.h"

enum { ALICE = 61001, BOB = 61002, CAROL = 61003, STAFF = 61100, GUESTS = 61101 };

// In a process of `uid` with its groups; what fails there counts here.
static void
as_user(uid_t uid, gid_t gid, gid_t other_group, void (*run)(void))
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        failures = 0;
        if (setgroups(1, &other_group) != 0 || setresgid(gid, gid, gid) != 0 ||
            setresuid(uid, uid, uid) != 0)
            _exit(99);
        run();
        fflush(stdout);
        _exit(failures > 90 ? 90 : failures);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) < 99);
    failures += WEXITSTATUS(status);
}

static void
alice(void (*run)(void))
{
    as_user(ALICE, STAFF, STAFF, run);
}

static void
bob(void (*run)(void))
{
    as_user(BOB, GUESTS, GUESTS, run);
}

static void
give(const char *path, uid_t uid, gid_t gid, mode_t mode)
{
    CHECK(lchown(path, uid, gid) == 0 && chmod(path, mode) == 0);
}

static mode_t
mode_of(const char *path)
{
    return stat_of(path).st_mode & 07777;
}

static bool
opens(const char *path, int flags)
{
    int fd = open(path, flags, 0644);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

// ---- sticky and setgid directories --------------------------------------------------------------

static void
bob_in_sticky(void)
{
    REFUSED(unlink("sticky/of-alice"), EPERM);
    REFUSED(rename("sticky/of-alice", "sticky/taken"), EPERM);
    REFUSED(rmdir("sticky/directory-of-alice"), EPERM);
    make_file("sticky/of-bob", "b");
    REFUSED(rename("sticky/of-bob", "sticky/of-alice"), EPERM);
    CHECK(rename("sticky/of-bob", "sticky/of-bob-2") == 0 && unlink("sticky/of-bob-2") == 0);
    CHECK(unlink("open-to-all/of-alice") == 0);
}

static void
alice_in_sticky(void)
{
    CHECK(unlink("sticky/of-alice") == 0 && rmdir("sticky/directory-of-alice") == 0);
}

static void
sticky_directories(void)
{
    CHECK(mkdir("sticky", 0755) == 0 && mkdir("open-to-all", 0755) == 0);
    give("sticky", CAROL, STAFF, 01777);
    give("open-to-all", CAROL, STAFF, 0777);
    make_file("sticky/of-alice", "a");
    make_file("open-to-all/of-alice", "a");
    CHECK(mkdir("sticky/directory-of-alice", 0777) == 0);
    give("sticky/of-alice", ALICE, STAFF, 0666);
    give("open-to-all/of-alice", ALICE, STAFF, 0600);
    give("sticky/directory-of-alice", ALICE, STAFF, 0777);
    bob(bob_in_sticky);
    alice(alice_in_sticky);
}

static void
alice_in_setgid(void)
{
    umask(0);
    CHECK(mkdir("of-guests/directory", 0770) == 0);
    CHECK(stat_of("of-guests/directory").st_gid == GUESTS);
    CHECK(mode_of("of-guests/directory") == 02770);
    make_file("of-guests/file", "x");
    CHECK(stat_of("of-guests/file").st_gid == GUESTS);
    // She is not of this group: no program of hers runs with it.
    CHECK(chmod("of-guests/file", 02755) == 0 && mode_of("of-guests/file") == 0755);
    int fd = open("of-guests/born", O_CREAT | O_WRONLY, 02755);
    CHECK(fd >= 0 && close(fd) == 0 && mode_of("of-guests/born") == 0755);
    CHECK(symlink("x", "of-guests/link") == 0 && stat_of("of-guests/link").st_gid == GUESTS);
    CHECK(mkdir("plain-parent/directory", 02770) == 0);
    CHECK(stat_of("plain-parent/directory").st_gid == STAFF);
}

static void
setgid_directories(void)
{
    CHECK(mkdir("of-guests", 0755) == 0 && mkdir("plain-parent", 0755) == 0);
    give("of-guests", ALICE, GUESTS, 02777);
    give("plain-parent", ALICE, GUESTS, 0777);
    alice(alice_in_setgid);
}

// ---- what changes take away ---------------------------------------------------------------------

static void
bob_writes(void)
{
    int fd = open("program", O_WRONLY);
    CHECK(fd >= 0 && write(fd, "b", 1) == 1 && close(fd) == 0);
}

static void
bob_truncates(void)
{
    CHECK(truncate("program", 0) == 0);
}

static void
bob_opens_empty(void)
{
    CHECK(opens("program", O_WRONLY | O_TRUNC));
}

static void
bob_punches(void)
{
    int fd = open("program", O_WRONLY);
    CHECK(fallocate(fd, 0, 0, 8192) == 0 && close(fd) == 0);
}

static void
alice_changes_group(void)
{
    CHECK(chown("program", (uid_t)-1, STAFF) == 0);
}

static void
fresh_program(mode_t mode)
{
    unlink("program");
    make_file("program", "#!/bin/sh\n");
    give("program", ALICE, STAFF, mode);
}

static void
set_user_id(void)
{
    static void (*const by_bob[])(void) = {bob_writes, bob_truncates, bob_opens_empty, bob_punches};
    for (size_t i = 0; i < sizeof(by_bob) / sizeof(by_bob[0]); i++) {
        fresh_program(06777);
        bob(by_bob[i]);
        expect(
            mode_of("program") == 0777, __LINE__, "way %zu leaves mode %o", i, mode_of("program"));
    }
    fresh_program(06777);
    bob_writes();
    CHECK(mode_of("program") == 06777); // by root
    bob_truncates();
    CHECK(mode_of("program") == 06777);
    CHECK(chown("program", BOB, (gid_t)-1) == 0 && mode_of("program") == 0777);
    fresh_program(06777);
    alice(alice_changes_group);
    CHECK(mode_of("program") == 0777);
    fresh_program(02767); // not executable by the group: stays
    bob(bob_writes);
    CHECK((mode_of("program") & S_ISUID) == 0);
    CHECK(mkdir("suid-directory", 0755) == 0 && chmod("suid-directory", 06755) == 0);
    CHECK(chown("suid-directory", ALICE, STAFF) == 0 && mode_of("suid-directory") == 06755);
}

// The bytes of a capability set (linux/capability.h), revision 2: CAP_NET_RAW, permitted.
static const uint8_t capability[20] = {1, 0, 0, 2, 0, 0x20};

static bool
has_capability(void)
{
    char value[64];
    return getxattr("program", "security.capability", value, sizeof(value)) > 0;
}

static void
root_changes_owner(void)
{
    CHECK(chown("program", ALICE, STAFF) == 0);
}

static void
capabilities(void)
{
    static void (*const changes[])(void) = {
        bob_writes, bob_truncates, bob_opens_empty, root_changes_owner};
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        fresh_program(0777);
        CHECK(setxattr("program", "security.capability", capability, sizeof(capability), 0) == 0);
        CHECK(has_capability());
        changes[i]();
        expect(!has_capability(), __LINE__, "way %zu leaves the capabilities", i);
    }
}

// ---- permissions of everyday calls --------------------------------------------------------------

static void
bob_and_alices_file(void)
{
    struct timespec some[2] = {{1, 0}, {1, 0}};
    REFUSED(chmod("alices/writable", 0600), EPERM);
    REFUSED(chown("alices/writable", BOB, (gid_t)-1), EPERM);
    REFUSED(utimensat(AT_FDCWD, "alices/writable", some, 0), EPERM);
    CHECK(utimensat(AT_FDCWD, "alices/writable", NULL, 0) == 0);
    REFUSED(utimensat(AT_FDCWD, "alices/readable", NULL, 0), EACCES);
    REFUSED(open("alices/readable", O_WRONLY), EACCES);
    REFUSED(open("alices/readable", O_RDONLY | O_TRUNC), EACCES);
    REFUSED(open("alices/readable", O_RDONLY | O_NOATIME), EPERM);
    REFUSED(truncate("alices/readable", 0), EACCES);
    REFUSED(open("alices/new", O_CREAT | O_WRONLY, 0644), EACCES);
    CHECK(opens("alices/writable", O_CREAT | O_RDWR));
    REFUSED(mkdir("alices/new", 0755), EACCES);
    REFUSED(symlink("x", "alices/new"), EACCES);
    REFUSED(unlink("alices/writable"), EACCES);
    REFUSED(rename("alices/writable", "open-to-all/got-it"), EACCES);
    REFUSED(mkfifo("alices/new", 0644), EACCES);
    REFUSED(mknod("open-to-all/device", S_IFCHR | 0666, 0x103), EPERM);
    REFUSED(setxattr("alices/readable", "user.x", "v", 1, 0), EACCES);
    CHECK(setxattr("alices/writable", "user.x", "v", 1, 0) == 0);
    REFUSED(setxattr("alices/writable", "trusted.x", "v", 1, 0), EPERM);
    REFUSED(setxattr("alices/writable", "security.x", "v", 1, 0), EPERM);
    char list[1000];
    ssize_t n = listxattr("alices/writable", list, sizeof(list));
    CHECK(n > 0 && !memmem(list, (size_t)n, "trusted.", 8) && memmem(list, (size_t)n, "user.x", 7));
    REFUSED(open("alices/closed/below", O_RDONLY), EACCES);
    REFUSED(access("alices/closed/below", F_OK), EACCES);
    REFUSED(access("alices/readable", W_OK), EACCES);
    CHECK(access("alices/readable", R_OK) == 0);
    REFUSED(unlink("alices/closed/below"), EACCES);
    REFUSED(open("alices/closed", O_RDONLY | O_DIRECTORY), EACCES);
}

static void
alice_and_her_file(void)
{
    REFUSED(chown("alices/readable", BOB, (gid_t)-1), EPERM);
    REFUSED(chown("alices/readable", (uid_t)-1, GUESTS), EPERM);
    CHECK(chown("alices/readable", ALICE, STAFF) == 0 && chmod("alices/readable", 0440) == 0);
    REFUSED(open("alices/readable", O_WRONLY), EACCES);
    int fd = open("alices/only-now", O_CREAT | O_RDWR, 0);
    CHECK(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
    REFUSED(open("alices/only-now", O_RDONLY), EACCES);
}

static void
everyday(void)
{
    CHECK(mkdir("alices", 0755) == 0 && mkdir("alices/closed", 0700) == 0);
    make_file("alices/writable", "w");
    make_file("alices/readable", "r");
    make_file("alices/closed/below", "c");
    give("alices/writable", ALICE, STAFF, 0666);
    give("alices/readable", ALICE, STAFF, 0644);
    give("alices", ALICE, STAFF, 0755);
    CHECK(setxattr("alices/writable", "trusted.secret", "t", 1, 0) == 0);
    bob(bob_and_alices_file);
    alice(alice_and_her_file);
}

// ---- access lists -------------------------------------------------------------------------------

#define ACCESS_LIST  "system.posix_acl_access"
#define DEFAULT_LIST "system.posix_acl_default"
#define NO_ID        0xffffffffu

struct acl {
    uint8_t bytes[4 + 8 * 16];
    size_t length;
};

static void
add(struct acl *a, uint16_t tag, uint16_t permissions, uint32_t id)
{
    if (a->length == 0) {
        memcpy(a->bytes, "\2\0\0\0", 4);
        a->length = 4;
    }
    uint8_t *p = a->bytes + a->length;
    uint8_t entry[8] = {(uint8_t)tag, 0, (uint8_t)permissions, 0, (uint8_t)id, (uint8_t)(id >> 8),
        (uint8_t)(id >> 16), (uint8_t)(id >> 24)};
    memcpy(p, entry, sizeof(entry));
    a->length += sizeof(entry);
}

// owner, user `id`, group owner, group `id`, mask, others; 9: leave the entry out.
static struct acl
acl_of(int owner, int user, uint32_t user_id, int group, int named_group, uint32_t group_id,
    int mask, int others)
{
    struct acl a = {.length = 0};
    add(&a, 0x01, (uint16_t)owner, NO_ID);
    if (user != 9)
        add(&a, 0x02, (uint16_t)user, user_id);
    add(&a, 0x04, (uint16_t)group, NO_ID);
    if (named_group != 9)
        add(&a, 0x08, (uint16_t)named_group, group_id);
    if (mask != 9)
        add(&a, 0x10, (uint16_t)mask, NO_ID);
    add(&a, 0x20, (uint16_t)others, NO_ID);
    return a;
}

static bool
is_list(const char *path, const char *name, struct acl expected)
{
    uint8_t got[200];
    ssize_t n = getxattr(path, name, got, sizeof(got));
    return n == (ssize_t)expected.length && memcmp(got, expected.bytes, expected.length) == 0;
}

static int
set_list(const char *path, const char *name, struct acl a)
{
    return setxattr(path, name, a.bytes, a.length, 0);
}

static void
bob_may_read_and_write(void)
{
    CHECK(opens("listed/file", O_RDWR));
}

static void
bob_may_only_read(void)
{
    CHECK(opens("listed/file", O_RDONLY));
    REFUSED(open("listed/file", O_WRONLY), EACCES);
    REFUSED(set_list("listed/file", ACCESS_LIST, acl_of(7, 9, 0, 7, 9, 0, 9, 7)), EPERM);
    REFUSED(removexattr("listed/file", ACCESS_LIST), EPERM);
}

static void
nobody_may(void)
{
    REFUSED(open("listed/file", O_RDONLY), EACCES);
}

static void
access_lists(void)
{
    CHECK(mkdir("listed", 0755) == 0);
    make_file("listed/file", "x");
    give("listed/file", ALICE, STAFF, 0600);
    bob(nobody_may);
    CHECK(set_list("listed/file", ACCESS_LIST, acl_of(6, 6, BOB, 0, 9, 0, 6, 0)) == 0);
    CHECK(mode_of("listed/file") == 0660);
    bob(bob_may_read_and_write);
    as_user(CAROL, STAFF, STAFF, nobody_may);
    CHECK(chmod("listed/file", 0640) == 0); // the mask
    CHECK(is_list("listed/file", ACCESS_LIST, acl_of(6, 6, BOB, 0, 9, 0, 4, 0)));
    bob(bob_may_only_read);
    CHECK(chmod("listed/file", 0660) == 0);
    bob(bob_may_read_and_write);
    CHECK(set_list("listed/file", ACCESS_LIST, acl_of(6, 9, 0, 0, 4, GUESTS, 4, 0)) == 0);
    bob(bob_may_only_read);
    CHECK(mode_of("listed/file") == 0640);
    CHECK(removexattr("listed/file", ACCESS_LIST) == 0);
    REFUSED(getxattr("listed/file", ACCESS_LIST, NULL, 0), ENODATA);
    // A list that says no more than a mode becomes one.
    CHECK(set_list("listed/file", ACCESS_LIST, acl_of(7, 9, 0, 5, 9, 0, 9, 1)) == 0);
    CHECK(mode_of("listed/file") == 0751);
    REFUSED(getxattr("listed/file", ACCESS_LIST, NULL, 0), ENODATA);
    REFUSED(set_list("listed/file", ACCESS_LIST, acl_of(6, 6, BOB, 0, 9, 0, 9, 0)), EINVAL);
    REFUSED(setxattr("listed/file", ACCESS_LIST, "\1\0\0\0", 4, 0), EOPNOTSUPP);
    REFUSED(setxattr("listed/file", ACCESS_LIST, "\2\0\0\0xyz", 7, 0), EINVAL);
    REFUSED(set_list("listed/file", DEFAULT_LIST, acl_of(7, 9, 0, 5, 9, 0, 9, 1)), EACCES);
    CHECK(set_list("listed/file", ACCESS_LIST, acl_of(6, 6, BOB, 4, 4, GUESTS, 6, 0)) == 0);
    CHECK(link("listed/file", "listed/link") == 0);
    CHECK(is_list("listed/link", ACCESS_LIST, acl_of(6, 6, BOB, 4, 4, GUESTS, 6, 0)));
    char list[1000];
    ssize_t n = listxattr("listed/file", list, sizeof(list));
    CHECK(n > 0 && memmem(list, (size_t)n, ACCESS_LIST, sizeof(ACCESS_LIST)));
}

static void
default_access_lists(void)
{
    struct acl defaults = acl_of(7, 7, BOB, 5, 9, 0, 7, 0);
    CHECK(mkdir("heir", 0755) == 0 && set_list("heir", DEFAULT_LIST, defaults) == 0);
    CHECK(mode_of("heir") == 0755);
    umask(077); // a default list takes the place of the umask
    int fd = open("heir/file", O_CREAT | O_WRONLY, 0664);
    CHECK(fd >= 0 && close(fd) == 0 && mode_of("heir/file") == 0660);
    CHECK(is_list("heir/file", ACCESS_LIST, acl_of(6, 7, BOB, 5, 9, 0, 6, 0)));
    REFUSED(getxattr("heir/file", DEFAULT_LIST, NULL, 0), ENODATA);
    CHECK(mkdir("heir/below", 0777) == 0 && mode_of("heir/below") == 0770);
    CHECK(is_list("heir/below", DEFAULT_LIST, defaults) &&
          is_list("heir/below", ACCESS_LIST, defaults));
    CHECK(mkfifo("heir/fifo", 0622) == 0 && mode_of("heir/fifo") == 0620);
    CHECK(symlink("x", "heir/link") == 0);
    fd = open("heir", O_TMPFILE | O_RDWR, 0640);
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fd >= 0)
        CHECK(fsetxattr(fd, "user.x", "v", 1, 0) == 0 &&
              linkat(AT_FDCWD, path, AT_FDCWD, "heir/nameless", AT_SYMLINK_FOLLOW) == 0 &&
              is_list("heir/nameless", ACCESS_LIST, acl_of(6, 7, BOB, 5, 9, 0, 4, 0)));
    close(fd);
    umask(022);
    CHECK(removexattr("heir/below", DEFAULT_LIST) == 0);
    CHECK(mkdir("heir/below/plain", 0777) == 0 && mode_of("heir/below/plain") == 0755);
    CHECK(mkdir("heir/minimal", 0755) == 0);
    CHECK(set_list("heir/minimal", DEFAULT_LIST, acl_of(7, 9, 0, 0, 9, 0, 9, 0)) == 0);
    make_file("heir/minimal/file", "x");
    CHECK(mode_of("heir/minimal/file") == 0600);
    REFUSED(getxattr("heir/minimal/file", ACCESS_LIST, NULL, 0), ENODATA);
}

static void
alice_sets_list(void)
{
    CHECK(set_list("listed/of-guests", ACCESS_LIST, acl_of(7, 7, BOB, 5, 9, 0, 7, 0)) == 0);
    CHECK(mode_of("listed/of-guests") == 0770);
}

static void
lists_and_setgid(void)
{
    make_file("listed/of-guests", "x");
    give("listed/of-guests", ALICE, GUESTS, 02755);
    alice(alice_sets_list);
    give("listed/of-guests", ALICE, STAFF, 02755);
    CHECK(set_list("listed/of-guests", ACCESS_LIST, acl_of(7, 7, BOB, 5, 9, 0, 7, 0)) == 0);
    CHECK(mode_of("listed/of-guests") == 02770);
}

// ---- flags --------------------------------------------------------------------------------------

static int
get_flags(const char *path)
{
    int flags = -1, fd = open(path, O_RDONLY);
    if (fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0)
        flags = -1;
    close(fd);
    return flags & (FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL);
}

static int
set_flags(const char *path, int flags)
{
    int fd = open(path, O_RDONLY);
    int old = 0, rc = ioctl(fd, FS_IOC_GETFLAGS, &old);
    if (rc == 0) {
        flags |= old & ~(FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL);
        rc = ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
    int error = errno;
    close(fd);
    errno = error;
    return rc;
}

// By root.
static void
check_immutable(void)
{
    struct timespec t[2] = {{5, 0}, {5, 0}};
    CHECK(
        get_flags("flags/immutable") == FS_IMMUTABLE_FL && has_content("flags/immutable", "fixed"));
    REFUSED(open("flags/immutable", O_WRONLY), EPERM);
    REFUSED(open("flags/immutable", O_RDWR | O_APPEND), EPERM);
    REFUSED(open("flags/immutable", O_RDONLY | O_TRUNC), EPERM);
    REFUSED(truncate("flags/immutable", 0), EPERM);
    REFUSED(chmod("flags/immutable", 0600), EPERM);
    REFUSED(chown("flags/immutable", ALICE, STAFF), EPERM);
    REFUSED(utimensat(AT_FDCWD, "flags/immutable", t, 0), EPERM);
    REFUSED(utimensat(AT_FDCWD, "flags/immutable", NULL, 0), EPERM);
    REFUSED(unlink("flags/immutable"), EPERM);
    REFUSED(rename("flags/immutable", "flags/moved"), EPERM);
    REFUSED(rename("flags/plain", "flags/immutable"), EPERM);
    REFUSED(
        renameat2(AT_FDCWD, "flags/plain", AT_FDCWD, "flags/immutable", RENAME_EXCHANGE), EPERM);
    REFUSED(link("flags/immutable", "flags/link"), EPERM);
    REFUSED(setxattr("flags/immutable", "user.x", "v", 1, 0), EPERM);
    REFUSED(removexattr("flags/immutable", "user.kept"), EPERM);
    REFUSED(set_list("flags/immutable", ACCESS_LIST, acl_of(7, 9, 0, 7, 9, 0, 9, 7)), EPERM);
    // A directory.
    CHECK(has_content("flags/fixed/file", "below"));
    REFUSED(open("flags/fixed/new", O_CREAT | O_WRONLY, 0644), EPERM);
    REFUSED(mkdir("flags/fixed/new", 0755), EPERM);
    REFUSED(symlink("x", "flags/fixed/new"), EPERM);
    REFUSED(link("flags/plain", "flags/fixed/new"), EPERM);
    REFUSED(unlink("flags/fixed/file"), EPERM);
    REFUSED(rename("flags/plain", "flags/fixed/new"), EPERM);
    REFUSED(rename("flags/fixed/file", "flags/new"), EPERM);
    REFUSED(rmdir("flags/fixed"), EPERM);
    CHECK(opens("flags/fixed/file", O_RDWR)); // only the names are fixed
}

static void
check_append_only(void)
{
    struct timespec t[2] = {{5, 0}, {6, 0}};
    CHECK(get_flags("flags/append") == FS_APPEND_FL);
    REFUSED(open("flags/append", O_WRONLY), EPERM);
    REFUSED(open("flags/append", O_RDWR), EPERM);
    REFUSED(open("flags/append", O_WRONLY | O_APPEND | O_TRUNC), EPERM);
    REFUSED(truncate("flags/append", 0), EPERM);
    REFUSED(chmod("flags/append", 0600), EPERM);
    REFUSED(unlink("flags/append"), EPERM);
    REFUSED(rename("flags/append", "flags/moved"), EPERM);
    REFUSED(link("flags/append", "flags/link"), EPERM);
    REFUSED(utimensat(AT_FDCWD, "flags/append", t, 0), EPERM);
    CHECK(utimensat(AT_FDCWD, "flags/append", NULL, 0) == 0);
    off_t size = stat_of("flags/append").st_size;
    int fd = open("flags/append", O_WRONLY | O_APPEND);
    CHECK(fd >= 0 && write(fd, "+", 1) == 1 && fsync(fd) == 0);
    REFUSED(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1), EPERM);
    CHECK(close(fd) == 0 && stat_of("flags/append").st_size == size + 1);
    REFUSED(unlink("flags/growing/file"), EPERM);
    REFUSED(rename("flags/growing/file", "flags/growing/file-2"), EPERM);
}

static void
alice_and_flags(void)
{
    REFUSED(set_flags("flags/of-alice", FS_IMMUTABLE_FL), EPERM);
    REFUSED(set_flags("flags/of-alice", FS_APPEND_FL), EPERM);
    REFUSED(set_flags("flags/plain", FS_NODUMP_FL), EPERM);
    CHECK(set_flags("flags/of-alice", FS_NODUMP_FL) == 0);
    CHECK(get_flags("flags/of-alice") == FS_NODUMP_FL);
    REFUSED(set_flags("flags/immutable", 0), EPERM);
}

static void
flags(void)
{
    CHECK(mkdir("flags", 0755) == 0 && mkdir("flags/fixed", 0755) == 0);
    CHECK(mkdir("flags/growing", 0755) == 0);
    make_file("flags/plain", "plain");
    make_file("flags/fixed/file", "below");
    make_file("flags/growing/file", "first");
    make_file("flags/of-alice", "alice");
    give("flags/of-alice", ALICE, STAFF, 0644);
    // Opened before: goes on.
    int open_before = open("flags/immutable", O_CREAT | O_RDWR, 0644);
    CHECK(write(open_before, "fixed", 5) == 5);
    CHECK(setxattr("flags/immutable", "user.kept", "v", 1, 0) == 0);
    make_file("flags/append", "log");
    CHECK(set_flags("flags/immutable", FS_IMMUTABLE_FL) == 0);
    CHECK(fsync(open_before) == 0 && close(open_before) == 0);
    CHECK(set_flags("flags/append", FS_APPEND_FL) == 0);
    CHECK(set_flags("flags/fixed", FS_IMMUTABLE_FL) == 0);
    CHECK(set_flags("flags/growing", FS_APPEND_FL) == 0);
    make_file("flags/growing/second", "second");
    check_immutable();
    check_append_only();
    alice(alice_and_flags);
    struct fsxattr x = {0};
    int fd = open("flags/immutable", O_RDONLY);
    CHECK(ioctl(fd, FS_IOC_FSGETXATTR, &x) == 0 && (x.fsx_xflags & FS_XFLAG_IMMUTABLE));
    x.fsx_xflags &= ~(uint32_t)FS_XFLAG_IMMUTABLE;
    CHECK(ioctl(fd, FS_IOC_FSSETXATTR, &x) == 0 && get_flags("flags/immutable") == 0);
    close(fd);
    CHECK(opens("flags/immutable", O_RDWR) && chmod("flags/immutable", 0640) == 0);
    CHECK(set_flags("flags/immutable", FS_IMMUTABLE_FL) == 0);
    // The number of this command says that the result is a long; all programs give it an int.
    fd = open("flags/plain", O_RDWR);
    int version[2] = {0, 0x5a5a5a5a};
    CHECK(ioctl(fd, FS_IOC_GETVERSION, version) == 0 && version[1] == 0x5a5a5a5a);
    int unknown = FS_NOCOMP_FL | 0x40000000;
    CHECK(ioctl(fd, FS_IOC_SETFLAGS, &unknown) == -1 && errno == EOPNOTSUPP);
    close(fd);
}

static const struct check_group groups[] = {
    {"sticky directories", sticky_directories},
    {"setgid directories", setgid_directories},
    {"set-user-ID bits", set_user_id},
    {"capabilities", capabilities},
    {"everyday permissions", everyday},
    {"access lists", access_lists},
    {"default access lists", default_access_lists},
    {"access lists and setgid", lists_and_setgid},
    {"flags", flags},
};

// After a remount.
static const struct check_group groups_again[] = {
    {"immutable", check_immutable},
    {"append-only", check_append_only},
};

static void
check_lists_again(void)
{
    CHECK(is_list("listed/file", ACCESS_LIST, acl_of(6, 6, BOB, 4, 4, GUESTS, 6, 0)));
    bob(bob_may_read_and_write);
}

int
main(int argc, char **argv)
{
    bool again = argc == 3 && strcmp(argv[2], "again") == 0;
    if ((argc != 2 && !again) || geteuid() != 0 || chdir(argv[1]) != 0) {
        fprintf(stderr, "usage, as root: posix_access_check DIR [again]\n");
        return 2;
    }
    if (!again)
        return run_groups(groups, sizeof(groups) / sizeof(groups[0]));
    current = "access lists";
    check_lists_again();
    return run_groups(groups_again, sizeof(groups_again) / sizeof(groups_again[0]));
}
