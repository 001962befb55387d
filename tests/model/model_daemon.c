// SPDX-License-Identifier: Apache-2.0
// The daemon of one run: mounted, killed, mounted again.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/model/model.h"

#define DEADLINE_MS 60000

static uint64_t
now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void
pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static bool
fail(char *why, const char *what, int error)
{
    snprintf(why, TEXT_BYTES_MAX, "%s: %s", what, strerror(error));
    return false;
}

static int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

void
remove_tree(const char *path)
{
    nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

void
daemon_init(struct daemon *d, const char *work, const char *options)
{
    *d = (struct daemon){.ckptfs = getenv("CKPTFS"), .ckptctl = getenv("CKPTCTL")};
    d->options = options;
    snprintf(d->work, sizeof(d->work), "%s", work);
    snprintf(d->mount, sizeof(d->mount), "%s/mnt", work);
    snprintf(d->root, sizeof(d->root), "%s/root", work);
    snprintf(d->log, sizeof(d->log), "%s/daemon.log", work);
    snprintf(d->source, sizeof(d->source), "file://%s/store/tenant", work);
    char store[sizeof(d->work) + 8];
    snprintf(store, sizeof(store), "%s/store", work);
    if (mkdir(store, 0700) < 0 && errno != EEXIST)
        abort();
}

static bool
is_mounted(const struct daemon *d)
{
    char line[4096], name[700];
    bool found = false;
    FILE *in = fopen("/proc/self/mountinfo", "re");
    snprintf(name, sizeof(name), " %s ", d->mount);
    while (in && !found && fgets(line, sizeof(line), in))
        found = strstr(line, name) != NULL;
    if (in)
        fclose(in);
    return found;
}

static _Noreturn void
become_daemon(const struct daemon *d, const char *more, const char *crash_at)
{
    char options[2048];
    snprintf(options, sizeof(options), "root=%s,log_file=%s,%s%s%s", d->root, d->log, d->options,
        more[0] ? "," : "", more);
    // Nothing is left behind when the test is killed.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int out = open(d->log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    int in = open("/dev/null", O_RDONLY);
    dup2(in, 0);
    dup2(out, 1);
    dup2(out, 2);
    if (crash_at)
        setenv("CKPTFS_CRASH_AT", crash_at, 1);
    else
        unsetenv("CKPTFS_CRASH_AT");
    execl(d->ckptfs, d->ckptfs, "-f", "-o", options, d->source, d->mount, (char *)NULL);
    _exit(127);
}

bool
daemon_is_alive(struct daemon *d)
{
    siginfo_t info = {0};
    return d->pid > 0 && waitid(P_PID, (id_t)d->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
}

bool
daemon_mount(struct daemon *d, const char *more, const char *crash_at, char *why)
{
    mkdir(d->root, 0755);
    mkdir(d->mount, 0755);
    pid_t pid = fork();
    if (pid < 0)
        return fail(why, "fork", errno);
    if (pid == 0)
        become_daemon(d, more, crash_at);
    d->pid = pid;
    uint64_t end = now_ms() + DEADLINE_MS;
    struct stat st;
    while (!is_mounted(d)) {
        if (!daemon_is_alive(d)) {
            snprintf(why, TEXT_BYTES_MAX, "the daemon ended before it had mounted; see its log");
            return false;
        }
        if (now_ms() > end)
            return fail(why, "mounting", ETIMEDOUT);
        pause_ms(2);
    }
    return stat(d->mount, &st) == 0 || fail(why, "stat of the mounted directory", errno);
}

static bool
detach(const struct daemon *d, char *why)
{
    char command[800];
    if (umount2(d->mount, MNT_DETACH) == 0 || !is_mounted(d))
        return true;
    snprintf(command, sizeof(command), "fusermount3 -u -z -q '%s'", d->mount);
    return system(command) == 0 || fail(why, "unmounting what a dead daemon left", errno);
}

void
daemon_kill(struct daemon *d)
{
    if (d->pid > 0)
        kill(d->pid, SIGKILL);
}

bool
daemon_bury(struct daemon *d, char *why)
{
    int status = 0;
    if (d->pid > 0)
        waitpid(d->pid, &status, 0);
    d->pid = 0;
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        snprintf(why, TEXT_BYTES_MAX, "the daemon ended with status %#x; see its log", status);
        detach(d, why + strlen(why));
        return false;
    }
    return detach(d, why);
}

static bool
try_unmount(const struct daemon *d)
{
    char command[800];
    if (umount2(d->mount, 0) == 0)
        return true;
    snprintf(command, sizeof(command), "fusermount3 -u -q '%s'", d->mount);
    return geteuid() != 0 && system(command) == 0;
}

bool
daemon_unmount(struct daemon *d, char *why)
{
    uint64_t end = now_ms() + DEADLINE_MS;
    while (!try_unmount(d)) {
        if (now_ms() > end)
            return fail(why, "umount", errno);
        pause_ms(5);
    }
    while (daemon_is_alive(d)) {
        if (now_ms() > end + DEADLINE_MS)
            return fail(why, "the daemon's end after umount", ETIMEDOUT);
        pause_ms(2);
    }
    int status = 0;
    waitpid(d->pid, &status, 0);
    d->pid = 0;
    if (status != 0)
        snprintf(why, TEXT_BYTES_MAX, "the daemon ended with status %#x after umount", status);
    return status == 0;
}

bool
daemon_checkpoint(struct daemon *d, char *why)
{
    char out[600];
    snprintf(out, sizeof(out), "%s/checkpoint.txt", d->work);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(fd, 1);
        dup2(fd, 2);
        execl(d->ckptctl, d->ckptctl, "checkpoint", d->mount, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return fail(why, "ckptctl checkpoint", errno);
    if (status == 0)
        return true;
    char said[200] = "";
    FILE *in = fopen(out, "re");
    if (in && !fgets(said, sizeof(said), in))
        said[0] = '\0';
    if (in)
        fclose(in);
    snprintf(why, TEXT_BYTES_MAX, "ckptctl checkpoint ended with %#x: %s", status, said);
    return false;
}

bool
daemon_lose_root(struct daemon *d, char *why)
{
    remove_tree(d->root);
    struct stat st;
    return stat(d->root, &st) != 0 || fail(why, "the storage root is still there", EEXIST);
}

// syncfs hands what the kernel holds to the daemon, but FUSE does not pass the call itself on;
// fsync of a directory does.
bool
daemon_sync(struct daemon *d, char *why)
{
    int fd = open(d->mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0 && syncfs(fd) == 0 && fsync(fd) == 0;
    if (!good)
        fail(why, "sync of the mount", errno);
    if (fd >= 0)
        close(fd);
    return good;
}
