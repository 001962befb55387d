// SPDX-License-Identifier: Apache-2.0
// Unmounting a volume and waiting until its daemon has published the rest; and showing the volumes
// of a storage root, mounted or not.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/json_writer.h"
#include "fuse/ckptctl.h"
#include "fuse/mount_users.h"
#include "fuse/unmount.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "volume/volume_root.h"

// A daemon that was unmounted for good says so in its lock file within this time.
#define CLOSING_WITHIN_MS 3000u
#define LOOK_INTERVAL_MS  500u

// ---- one entry of a root ------------------------------------------------------------------------

static void
print_entry(const struct volume_root_entry *e, uint64_t now_ms, struct buffer *out)
{
    char text[37];
    char size[32];
    char total[32];
    uuid_to_string(&e->volume, text);
    buffer_printf(out, "%-14s %s\n%-14s %s\n", "source", e->source, "volume", text);
    buffer_printf(out, "%-14s ", "state");
    print_size(e->closing_done_bytes, size);
    print_size(e->closing_total_bytes, total);
    if (e->mounted && e->closing)
        buffer_printf(out, "unmounted; process %ld publishes the last changes: %s of %s", e->pid,
            size, total);
    else if (e->mounted)
        buffer_printf(out, "mounted by process %ld", e->pid);
    else
        buffer_append_string(out, e->importing ? "not whole: the next mount reads the store"
                                  : e->fenced  ? "not mounted; another host took the volume over"
                                               : "not mounted");
    if (e->closing && e->closing_errors > 0) {
        buffer_printf(out, "\n%-14s ", "store");
        print_retries(out, e->closing_errors, e->closing_error);
    }
    buffer_printf(out, "\n");
    print_generation(out, "local", e->local.v, e->local_time_ms, now_ms);
    print_generation(out, "published", e->published.v, e->published_time_ms, now_ms);
    buffer_printf(out, "%-14s ", "not in store");
    if (volume_root_is_published(e)) {
        buffer_append_string(out, "nothing");
    } else {
        print_size(e->unpublished_bytes, size);
        buffer_printf(out, "%" PRIu64 " blobs of %s", e->unpublished_blobs, size);
        print_size(e->log_bytes, size);
        if (e->log_bytes > 0)
            buffer_printf(out, ", and at least %s of log", size);
    }
    buffer_append_u8(out, '\n');
    if (e->lost.ranges > 0) {
        buffer_printf(out, "%-14s ", "lost");
        volume_describe_lost(&e->lost, out);
        buffer_append_u8(out, '\n');
    }
}

static void
print_entry_json(const struct volume_root_entry *e, const char *name, struct json_writer *w)
{
    char text[37];
    uuid_to_string(&e->volume, text);
    write_json_begin_object(w, name);
    write_json_string(w, "source", e->source);
    write_json_string(w, "tenant", e->tenant);
    write_json_string(w, "volume", text);
    write_json_bool(w, "mounted", e->mounted);
    write_json_bool(w, "closing", e->closing);
    write_json_u64(w, "store_failing", e->closing_errors);
    write_json_string(w, "last_error", e->closing_error);
    write_json_i64(w, "pid", e->pid);
    write_json_bool(w, "importing", e->importing);
    write_json_bool(w, "fenced", e->fenced);
    write_json_u64(w, "epoch", e->epoch);
    write_json_u64(w, "local_generation", e->local.v);
    write_json_u64(w, "published_generation", e->published.v);
    write_json_u64(w, "local_time_ms", e->local_time_ms);
    write_json_u64(w, "published_time_ms", e->published_time_ms);
    write_json_bool(w, "published", volume_root_is_published(e));
    write_json_u64(w, "unpublished_blobs", e->unpublished_blobs);
    write_json_u64(w, "unpublished_bytes", e->unpublished_bytes);
    write_json_u64(w, "log_bytes", e->log_bytes);
    write_json_u64(w, "lost_ranges", e->lost.ranges);
    write_json_u64(w, "lost_bytes", e->lost.bytes);
    write_json_end_object(w);
}

// ---- status of a root ---------------------------------------------------------------------------

struct root_printer {
    struct buffer *out;
    struct json_writer *json; // NULL: for people
    uint64_t now_ms;
    bool any;
};

static int
visit_printed(void *argument, const struct volume_root_entry *e)
{
    struct root_printer *p = argument;
    if (p->json) {
        print_entry_json(e, NULL, p->json);
    } else {
        if (p->any)
            buffer_append_u8(p->out, '\n');
        print_entry(e, p->now_ms, p->out);
    }
    p->any = true;
    return 0;
}

int
print_root(const char *root, bool json)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO text = {0};
    struct json_writer w = {.out = &text};
    struct root_printer p = {.out = &text, .json = json ? &w : NULL, .now_ms = clock_wall_ms()};
    if (json) {
        write_json_begin_object(&w, NULL);
        write_json_begin_array(&w, "volumes");
    }
    int rc = volume_root_list(root, visit_printed, &p, &error);
    if (rc < 0) {
        print_error("%s", error.length > 0 ? buffer_string(&error) : strerror(-rc));
        return EXIT_STATUS_ERROR;
    }
    if (json) {
        write_json_end_array(&w);
        write_json_end_object(&w);
        buffer_append_u8(&text, '\n');
    } else if (!p.any) {
        buffer_printf(&text, "%s holds no volume\n", root);
    }
    return print_out(&text);
}

// ---- unmounting ---------------------------------------------------------------------------------

struct unmounting {
    const struct unmount_request *request;
    char *mountpoint; // absolute
    dev_t device;
    struct ckptfs_status status;
    bool read_only; // a mount that publishes nothing
    int process;    // pidfd, or -1
};

static int
fail(const char *what, const char *path, const char *why)
{
    print_error("%s %s: %s", what, path, why);
    return EXIT_STATUS_ERROR;
}

// Only the daemon's user or root finds its process; in another pid namespace no user does.
static int
open_process(uint32_t pid)
{
    char name[32] = "";
    CLEANUP(memory_free_auto) char *path = memory_printf("/proc/%u/comm", pid);
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    FILE *file = fd >= 0 ? fopen(path, "re") : NULL;
    bool ours = file && fgets(name, sizeof(name), file) && strncmp(name, "ckptfs", 6) == 0;
    if (file)
        fclose(file);
    if (ours)
        return fd;
    file_close(fd);
    return -1;
}

static int
look(struct unmounting *u)
{
    struct statx st;
    u->mountpoint = realpath(u->request->path, NULL);
    CLEANUP(file_close_auto) int fd = control_open(u->request->path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    int rc = control_status(fd, &u->status);
    CLEANUP(memory_free_auto) struct ckptfs_metrics *metrics = memory_alloc(sizeof(*metrics));
    if (rc == 0)
        rc = control_metrics(fd, metrics);
    if (rc != 0)
        return control_failed("unmount", u->request->path, rc);
    if (!u->mountpoint || statx(fd, "", AT_EMPTY_PATH, 0, &st) < 0)
        return fail("unmount", u->request->path, strerror(errno));
    if (!(st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
        return fail("unmount", u->request->path,
            "this lies below the mountpoint; give the mountpoint itself");
    u->device = mount_users_device_of(u->mountpoint);
    u->read_only = (u->status.flags & CKPTFS_STATUS_READ_ONLY) != 0 && u->status.epoch == 0;
    u->process = open_process(metrics->pid);
    return EXIT_SUCCESS;
}

static int
unmount(struct unmounting *u)
{
    int rc = unmount_path(u->mountpoint, false);
    if (rc == 0)
        return EXIT_SUCCESS;
    BUFFER_AUTO users = {0};
    BUFFER_AUTO why = {0};
    mount_users_describe(u->device, &users);
    buffer_printf(
        &why, "%s%s%s", strerror(-rc), users.length > 0 ? ": " : "", buffer_string(&users));
    return fail("unmount", u->mountpoint, buffer_string(&why));
}

static int
find_entry(void *argument, const struct volume_root_entry *e)
{
    struct volume_root_entry *entry = argument;
    if (!uuid_equal(&e->volume, &entry->volume))
        return 0;
    *entry = *e;
    return 1;
}

// Reads the volume's state from the storage root: 0, or a negative errno.
static int
ask_root(const struct unmounting *u, struct volume_root_entry *entry_out)
{
    BUFFER_AUTO error = {0};
    *entry_out = (struct volume_root_entry){0};
    memcpy(entry_out->volume.b, u->status.volume, sizeof(entry_out->volume.b));
    int rc = volume_root_list(u->status.root, find_entry, entry_out, &error);
    return rc == 1 ? 0 : rc < 0 ? rc : -ENOENT;
}

static bool
has_ended(const struct unmounting *u, uint64_t ms)
{
    struct pollfd process = {.fd = u->process, .events = POLLIN};
    return poll(&process, 1, (int)ms) > 0;
}

static void
show_progress(const struct unmounting *u, const struct volume_root_entry *e)
{
    char done[32];
    char total[32];
    BUFFER_AUTO line = {0};
    if (u->request->quiet || !isatty(STDERR_FILENO))
        return;
    print_size(e->closing_done_bytes, done);
    print_size(e->closing_total_bytes, total);
    if (e->closing_errors > 0) {
        print_retries(&line, e->closing_errors, e->closing_error);
        buffer_append_string(&line, "; ");
    }
    buffer_printf(&line, "publishing the last changes: %s of %s", done, total);
    print_progress(&line);
}

static void
clear_progress(const struct unmounting *u)
{
    if (!u->request->quiet && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

// Waits for the daemon's end: EXIT_SUCCESS, or another status with its reason on stderr.
static int
wait_for_end(const struct unmounting *u)
{
    const uint64_t began = clock_monotonic_ms();
    const int64_t wait = u->request->wait_seconds;
    bool closing = u->read_only;
    while (!has_ended(u, wait == 0 ? 0 : LOOK_INTERVAL_MS)) {
        struct volume_root_entry e;
        uint64_t waited = clock_monotonic_ms() - began;
        if (!u->read_only && ask_root(u, &e) == 0) {
            closing = closing || e.closing;
            show_progress(u, &e);
        }
        BUFFER_AUTO users = {0};
        if (!closing && waited >= CLOSING_WITHIN_MS)
            mount_users_describe(u->device, &users);
        if (users.length > 0) {
            clear_progress(u);
            print_error("unmount %s: unmounted here, but still in use: %s. The daemon goes on "
                        "until that ends",
                u->mountpoint, buffer_string(&users));
            return EXIT_STATUS_UNFINISHED;
        }
        if (wait >= 0 && waited >= (uint64_t)wait * 1000) {
            clear_progress(u);
            print_error("unmount %s: unmounted; the daemon still publishes changes "
                        "(ckptctl status --root %s shows how far it is)",
                u->mountpoint, u->status.root);
            return EXIT_STATUS_UNFINISHED;
        }
    }
    clear_progress(u);
    return EXIT_SUCCESS;
}

// The daemon has ended: reports the state that it left.
static int
report(const struct unmounting *u)
{
    struct volume_root_entry e;
    BUFFER_AUTO text = {0};
    int rc = ask_root(u, &e);
    if (rc < 0)
        return fail("status of", u->status.root, strerror(-rc));
    bool published = volume_root_is_published(&e) && !e.fenced;
    if (u->request->json) {
        struct json_writer w = {.out = &text};
        print_entry_json(&e, NULL, &w);
        buffer_append_u8(&text, '\n');
    } else if (!published) {
        char size[32];
        print_size(e.unpublished_bytes, size);
        print_error("unmount %s: unmounted, but not everything is in the store: %" PRIu64
                    " blobs of %s%s. %s",
            u->mountpoint, e.unpublished_blobs, size, e.log_bytes > 0 ? " and some log" : "",
            e.fenced ? "Another host took the volume over; this is not part of it any more"
                     : "The storage root keeps it, and the next mount with that root tries to "
                       "publish it");
    } else if (e.lost.ranges > 0) {
        BUFFER_AUTO lost = {0};
        volume_describe_lost(&e.lost, &lost);
        print_error("unmount %s: unmounted; everything that could be read is in the store, but %s",
            u->mountpoint, buffer_string(&lost));
    } else if (!u->request->quiet) {
        buffer_printf(
            &text, "everything is in the store, up to generation %" PRIu64 "\n", e.published.v);
    }
    int printed = print_out(&text);
    return published ? printed : EXIT_STATUS_ERROR;
}

int
unmount_volume(const struct unmount_request *request)
{
    struct unmounting u = {.request = request, .process = -1};
    int status = look(&u);
    if (status == EXIT_SUCCESS)
        status = unmount(&u);
    if (status == EXIT_SUCCESS && u.process < 0)
        status = fail("unmount", u.mountpoint,
            "unmounted; the daemon's process cannot be seen from here, so nobody waits for it");
    else if (status == EXIT_SUCCESS)
        status = wait_for_end(&u);
    if (status == EXIT_SUCCESS && !u.read_only)
        status = report(&u);
    file_close(u.process);
    free(u.mountpoint);
    return status;
}
