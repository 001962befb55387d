// SPDX-License-Identifier: Apache-2.0
// How a session ends:
// - The file system is unmounted (umount, fusermount3 -u): the kernel has handed over everything;
//   workers see the end of the connection and end.
// - SIGTERM, SIGINT: the control thread unmounts while the workers still serve. When the
//   mount is busy, or the file system lives on after that (in another mount namespace, below
//   another mount, with files open after umount -l), it makes the kernel hand over its dirty pages
//   and stops the workers; the mount is detached where it can be, and a process that still uses it
//   gets ENOTCONN.
// - The mount leaves the mount table and the file system lives on: the control thread logs which
//   processes have it, and the session goes on.
// - The process that started us is gone before the mount is up: as a signal.
#define _GNU_SOURCE
#include "fuse/session.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fuse/device.h"
#include "fuse/direct_writes.h"
#include "fuse/fs_ops.h"
#include "fuse/mount.h"
#include "fuse/seek.h"
#include "fuse/workers.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "platform/safe_path.h"
#include "platform/thread.h"
#include "store/remote_store.h"

// How far the kernel reads ahead. Half of the largest request: a reader through a mapping makes the
// kernel fetch as much for any page it touches.
#define READAHEAD_DEFAULT_BYTES ((uint64_t)512 << 10)

// After the last umount the kernel ends the connection at once; the workers need this long at most
// to see that.
#define LAST_MOUNT_MS 2000

struct session {
    const struct options *options;
    struct startup *startup;
    struct mount mount;
    struct kernel_cache kernel_cache;
    struct volume *volume;
    struct fs fs;
    char door[FS_DOOR_BYTES]; // set before the volume is opened
    struct fuse_session *fuse;
    struct workers *workers;
    int signals;  // eventfd: a signal has come
    int finished; // eventfd: the workers have ended
};

// ---- libfuse's messages -------------------------------------------------------------------------

// libfuse has one log function a process. The last message is the best explanation there is for a
// mount that failed; only the main thread mounts, and reads it.
static __thread char last_message[300];

static void
log_of_libfuse(enum fuse_log_level level, const char *format, va_list args)
{
    char text[sizeof(last_message)];
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    memcpy(last_message, text, sizeof(last_message));
    if (level <= FUSE_LOG_ERR)
        log_error("fuse.message", "%s", text);
    else if (level <= FUSE_LOG_WARNING)
        log_warning("fuse.message", "%s", text);
    else
        log_debug("fuse.message", "%s", text);
}

// ---- mounting -----------------------------------------------------------------------------------

static void
append_pair(struct buffer *list, const char *name, const char *value)
{
    BUFFER_AUTO pair = {0};
    buffer_printf(&pair, "%s%s", name, value);
    options_append(list, buffer_string(&pair));
}

static void
make_mount_options(const struct session *s, struct buffer *list)
{
    const struct options *o = s->options;
    buffer_append_string(list, "default_permissions,subtype=ckptfs");
    append_pair(list, "fsname=", o->fsname ? o->fsname : o->config.source);
    options_append(list, volume_is_read_only(s->volume) ? "ro" : "rw");
    if (o->allow_other)
        options_append(list, "allow_other");
    if (o->debug)
        options_append(list, "debug");
    if (o->sync)
        options_append(list, "sync");
    if (o->max_read > 0)
        buffer_printf(list, ",max_read=%u", (unsigned)o->max_read);
    if (o->kernel.length > 0) {
        buffer_append_u8(list, ',');
        buffer_append(list, o->kernel.data, o->kernel.length);
    }
}

static int
mount_volume(struct session *s, struct buffer *error)
{
    BUFFER_AUTO list = {0};
    make_mount_options(s, &list);
    char *argv[] = {(char *)"ckptfs", (char *)"-o", (char *)buffer_string(&list), NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    fuse_set_log_func(log_of_libfuse);
    last_message[0] = '\0';
    s->fuse = fuse_session_new(&args, &fs_operations, sizeof(fs_operations), &s->fs);
    fuse_opt_free_args(&args);
    bool mounted = s->fuse && fuse_session_mount(s->fuse, s->mount.path) == 0;
    if (mounted && device_attach(s->fuse) == 0)
        return 0;
    if (mounted)
        fuse_session_unmount(s->fuse);
    buffer_printf(error, "mount %s: %s", s->mount.path,
        last_message[0] ? last_message : "libfuse did not say why");
    if (geteuid() != 0 && s->options->allow_other)
        buffer_append_string(
            error, "; for -o allow_other, /etc/fuse.conf must have user_allow_other");
    if (s->fuse)
        fuse_session_destroy(s->fuse);
    s->fuse = NULL;
    return -EIO;
}

// ---- the control thread -------------------------------------------------------------------------

// Signal handlers have no argument of their own: they report to a variable of the process.
static volatile int signal_event = -1;

static void
note_signal(int number UNUSED)
{
    int error = errno;
    uint64_t one = 1;
    ssize_t ignored UNUSED = write(signal_event, &one, sizeof(one));
    errno = error;
}

static void
ignore_signal(int number UNUSED)
{
}

// Whether the workers have ended, at the latest after so many milliseconds (-1: without limit).
static bool
wait_for_workers(struct session *s, int ms)
{
    struct pollfd finished = {.fd = s->finished, .events = POLLIN};
    int n;
    do
        n = poll(&finished, 1, ms);
    while (n < 0 && errno == EINTR);
    return n > 0;
}

static void
stop_loop(struct session *s)
{
    workers_stop(s->workers);
    (void)wait_for_workers(s, -1);
}

static void
unmount_and_stop(struct session *s)
{
    BUFFER_AUTO why = {0};
    // The kernel would wait for its read-ahead, even when no process wants it any more.
    cold_pool_stop(&s->fs.cold);
    cold_pool_stop(&s->fs.scans);
    cold_pool_stop(&s->fs.snapshot_pool);
    int rc = mount_unmount(&s->mount);
    // The kernel ends the connection with the last mount of the file system.
    if (rc == 0 && wait_for_workers(s, LAST_MOUNT_MS))
        return;
    if (rc != 0)
        buffer_printf(&why, "%s: ", strerror(-rc));
    mount_describe_users(&s->mount, &why);
    log_warning("mount.busy", "%s: %s; it is detached, and programs that use it get ENOTCONN",
        s->mount.path, buffer_string(&why));
    // Logged where it fails; the kernel's dirty pages are lost then, as in a crash.
    rc = kernel_cache_flush(&s->kernel_cache);
    // Their work needs the workers.
    seeker_stop(s->fs.seeker);
    fetch_table_stop(&s->fs.fetches);
    direct_writes_stop(s->fs.direct_writes);
    mount_end_serving(&s->mount);
    stop_loop(s);
}

// The mount table changed. Whether our mount has left it for good.
static bool
is_gone(struct session *s)
{
    if (mount_is_listed(&s->mount))
        return false;
    if (wait_for_workers(s, LAST_MOUNT_MS))
        return true;
    BUFFER_AUTO who = {0};
    mount_describe_users(&s->mount, &who);
    log_warning("mount.lives_on",
        "%s: unmounted here, but still in use: %s. The volume stays mounted until that ends, or "
        "until SIGTERM ends process %ld",
        s->mount.path, buffer_string(&who), (long)getpid());
    return true;
}

static void
control(void *argument)
{
    struct session *s = argument;
    int rc = mount_begin_serving(&s->mount);
    if (rc != 0) {
        BUFFER_AUTO text = {0};
        buffer_printf(
            &text, "mount %s: the new mount does not answer: %s", s->mount.path, strerror(-rc));
        log_error("mount.failed", "%s", buffer_string(&text));
        startup_failed(s->startup, buffer_string(&text));
        stop_loop(s);
        return;
    }
    mount_raise_readahead(&s->mount,
        s->options->max_readahead > 0 ? s->options->max_readahead : READAHEAD_DEFAULT_BYTES);
    log_info("mount.ready", "%s on %s", s->options->config.source, s->mount.path);
    if (!startup_succeeded(s->startup)) {
        log_warning("mount.abandoned", "%s: the process that started it is gone", s->mount.path);
        unmount_and_stop(s);
    }
    CLEANUP(file_close_auto) int table = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    for (bool gone = false;;) {
        struct pollfd fds[] = {{.fd = s->finished, .events = POLLIN},
            {.fd = s->signals, .events = POLLIN}, {.fd = gone ? -1 : table, .events = POLLPRI}};
        uint64_t count;
        if (poll(fds, ARRAY_LENGTH(fds), -1) < 0 && errno != EINTR)
            break;
        if (fds[0].revents)
            return;
        if (fds[2].revents)
            gone = is_gone(s);
        if (read(s->signals, &count, sizeof(count)) != (ssize_t)sizeof(count))
            continue;
        log_info("mount.signal", "%s: asked to end by a signal", s->mount.path);
        unmount_and_stop(s);
    }
}

// Handlers, not blocked signals and signalfd: a thread that some library started before could have
// the signal unblocked and would let the process die.
static int
take_signals(struct session *s)
{
    static const int ending[] = {SIGTERM, SIGINT};
    s->signals = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->finished = eventfd(0, EFD_CLOEXEC);
    if (s->signals < 0 || s->finished < 0)
        return -errno;
    signal_event = s->signals;
    struct sigaction note = {.sa_handler = note_signal, .sa_flags = SA_RESTART};
    for (size_t i = 0; i < ARRAY_LENGTH(ending); i++)
        sigaction(ending[i], &note, NULL);
    // Without SA_RESTART: it is there to interrupt the system call in which a worker waits.
    struct sigaction interrupt = {.sa_handler = ignore_signal};
    sigaction(SIGUSR1, &interrupt, NULL);
    return 0;
}

// ---- serving ------------------------------------------------------------------------------------

// From the mount to its end.
static int
serve(struct session *s, struct buffer *error)
{
    struct thread control_thread;
    int rc = take_signals(s);
    if (rc != 0) {
        buffer_printf(error, "start %s: eventfd: %s", s->mount.path, strerror(-rc));
        return rc;
    }
    rc = mount_volume(s, error);
    if (rc != 0)
        return rc;
    s->workers = workers_new(
        s->fuse, &s->fs, (unsigned)s->options->config.fuse_threads, !s->options->no_cpu_latency);
    s->kernel_cache.session = s->fuse;
    rc = seeker_start(s->fs.seeker);
    if (rc == 0)
        rc = direct_writes_start(s->fs.direct_writes);
    if (rc == 0)
        rc = thread_start(&control_thread, "control", control, s);
    if (rc != 0) {
        seeker_stop(s->fs.seeker);
        direct_writes_stop(s->fs.direct_writes);
        buffer_printf(error, "start %s: cannot start a thread: %s", s->mount.path, strerror(-rc));
        fuse_session_unmount(s->fuse);
        workers_free(s->workers);
        fuse_session_destroy(s->fuse);
        return rc;
    }
    int loop_result = workers_run(s->workers);
    if (loop_result < 0)
        log_error("fuse.loop_failed", "%s: %s", s->mount.path, strerror(-loop_result));
    mount_end_serving(&s->mount);
    fs_drain(&s->fs);
    // Closes the connection: threads of ours inside the mount come out with an error.
    if (!mount_is_reached(&s->mount)) {
        int left = device_leave(s->fuse);
        if (left != 0)
            log_warning("mount.leave", "%s: %s", s->mount.path, strerror(-left));
    }
    fuse_session_unmount(s->fuse);
    uint64_t one = 1;
    if (write(s->finished, &one, sizeof(one)) != (ssize_t)sizeof(one))
        abort();
    thread_join(&control_thread);
    mount_wait_idle(&s->mount);
    workers_free(s->workers);
    fuse_session_destroy(s->fuse);
    return 0;
}

// A daemon whose storage root or store lies in its own mount waits for itself.
static int
check_places(const struct options *options, const char *mountpoint, struct buffer *error)
{
    struct store_url url;
    BUFFER_AUTO above = {0};
    if (store_url_parse(options->config.source, &url) < 0)
        return 0; // told when the volume is opened
    const char *root = options->config.root;
    path_directory(root, &above);
    const char *above_root = access(root, F_OK) == 0 ? root : buffer_string(&above);
    const struct {
        const char *name;
        const char *path;
        const char *above; // from where a path leads down that may not exist yet
    } places[] = {{"the mountpoint", mountpoint, mountpoint},
        {"the storage root", root, above_root},
        {"the store", url.is_s3 ? NULL : url.directory, url.directory}};
    int rc = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(places) && rc == 0; i++) {
        for (size_t j = 0; j < ARRAY_LENGTH(places) && rc == 0; j++) {
            if (i == j || !places[i].path || !places[j].path ||
                !safe_path_lies_in(places[i].above, places[j].path))
                continue;
            buffer_printf(error, "%s %s lies in %s %s; give directories of their own",
                places[i].name, places[i].path, places[j].name, places[j].path);
            rc = -EINVAL;
        }
    }
    store_url_free(&url);
    return rc;
}

static int
host_sync_kernel(void *argument)
{
    struct session *s = argument;
    return kernel_cache_flush(&s->kernel_cache);
}

static int
host_truncate(void *argument, struct object_id object, bool tail, uint64_t offset)
{
    struct session *s = argument;
    CLEANUP(memory_free_auto)
    char *name = memory_printf("%s%" PRIu64, s->door, object.v);
    return mount_truncate(&s->mount, name, tail, offset);
}

static void
host_say(void *argument, const char *text)
{
    struct session *s = argument;
    startup_note(s->startup, text);
}

static void
choose_door(struct session *s)
{
    char secret[37];
    struct uuid id = random_uuid();
    uuid_to_string(&id, secret);
    (void)snprintf(s->door, sizeof(s->door), ".ckptfs-%s-", secret);
}

static int
open_volume(struct session *s, struct buffer *error)
{
    choose_door(s);
    struct volume_host host = {.argument = s,
        .sync_kernel = host_sync_kernel,
        .truncate = host_truncate,
        .say = host_say,
        .keeps_times = s->options->config.writeback,
        .no_atime = s->options->no_atime,
        .no_directory_atime = s->options->no_directory_atime};
    int rc = volume_open(&s->options->config, &host, &s->volume, error);
    if (rc != 0 && error->length == 0)
        buffer_printf(error, "open %s: %s", s->options->config.source, strerror(-rc));
    return rc;
}

// The volume reports unpublished changes.
static int
close_volume(struct session *s)
{
    log_info("mount.ended", "%s", s->mount.path);
    return volume_close(s->volume);
}

static void
warn_of_hidden(struct session *s)
{
    BUFFER_AUTO text = {0};
    mount_describe_hidden(&s->mount, &text);
    if (text.length == 0)
        return;
    log_warning("mount.hides", "%s", buffer_string(&text));
    startup_note(s->startup, buffer_string(&text));
}

int
session_run(const struct options *options, struct startup *startup)
{
    BUFFER_AUTO error = {0};
    struct session s = {.options = options, .startup = startup, .signals = -1, .finished = -1};
    struct fs_settings settings = {.writeback = options->config.writeback,
        .sync_writes = options->sync,
        .max_read = options->max_read,
        .max_readahead = options->max_readahead,
        .max_background = options->max_background,
        .time_granularity_ms = options->time_granularity_ms,
        .read_deadline_ms = options->config.read_deadline_ms};
    int rc = mount_open(&s.mount, options->mountpoint, &error);
    kernel_cache_init(&s.kernel_cache, &s.mount);
    if (rc == 0)
        rc = check_places(options, s.mount.path, &error);
    if (rc == 0)
        warn_of_hidden(&s);
    if (rc == 0)
        rc = open_volume(&s, &error);
    if (rc == 0) {
        memcpy(settings.door, s.door, sizeof(settings.door));
        fs_init(&s.fs, &settings, s.volume, &s.kernel_cache);
        rc = serve(&s, &error);
        int close_result = close_volume(&s);
        rc = rc != 0 ? rc : close_result;
        fs_destroy(&s.fs);
    }
    if (error.length > 0) {
        log_error("mount.failed", "%s", buffer_string(&error));
        startup_failed(startup, buffer_string(&error));
    }
    kernel_cache_destroy(&s.kernel_cache);
    mount_close(&s.mount);
    file_close(s.signals);
    file_close(s.finished);
    return rc == 0 ? EXIT_SUCCESS : EXIT_STATUS_ERROR;
}
