// SPDX-License-Identifier: Apache-2.0
// Makes a process the only one that works with a volume's data in a storage root: the root and the
// directories below it belong to the user, no other user may write to them, and the volume's lock
// file is locked.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/safe_path.h"
#include "volume/volume_internal.h"

// How long a mount waits for a predecessor that is on its way out.
#define PREDECESSOR_WAIT_MS 90000u
// How long one that was killed may take to be gone.
#define DYING_WAIT_MS 2000u

char *
volume_tenant_directory(
    const char *root, const char *tenant, const char *place, uint32_t volume_number)
{
    struct sha256 h;
    BUFFER_AUTO path = {0};
    sha256_of(place, strlen(place), &h);
    buffer_printf(
        &path, "%s/tenants/%s/%02x%02x%02x%02x", root, tenant, h.b[0], h.b[1], h.b[2], h.b[3]);
    if (volume_number != 1)
        buffer_printf(&path, "-%" PRIu32, volume_number);
    return memory_string(buffer_string(&path));
}

static void
write_lock_text(struct volume *v, const char *state)
{
    BUFFER_AUTO text = {0};
    buffer_printf(&text, "%ld %s\n", (long)getpid(), state);
    // For people and for a successor's patience; nothing depends on it. A longer old text is cut
    // off afterwards, so that a reader in between finds the new beginning.
    if (pwrite(v->own.lock_fd, text.data, text.length, 0) < 0 ||
        ftruncate(v->own.lock_fd, (off_t)text.length) < 0)
        log_debug("volume.lock", "cannot write the lock file");
}

void
volume_mark_closing(struct volume *v, uint64_t done_bytes, uint64_t total_bytes)
{
    BUFFER_AUTO state = {0};
    struct remote_trouble trouble = {0};
    buffer_printf(&state, VOLUME_LOCK_CLOSING " %" PRIu64 " %" PRIu64, done_bytes, total_bytes);
    volume_trouble(v, &trouble);
    if (trouble.tries > 0)
        buffer_printf(
            &state, "\n" VOLUME_LOCK_RETRYING " %" PRIu64 " %s", trouble.tries, trouble.text);
    if (v->own.lock_fd >= 0)
        write_lock_text(v, buffer_string(&state));
}

int
volume_take_root(struct volume *v, struct buffer *error)
{
    static const char *const names[] = {
        "manifest", "tenants", "hot_cache", "checkpoint_scratch", "views"};
    BUFFER_AUTO why = {0};
    int rc = path_make_directory(v->config.root, 0700);
    if (rc < 0 && rc != -ENOTDIR) {
        volume_error(error, "cannot make the storage root %s: %s%s", v->config.root, strerror(-rc),
            rc == -ENOENT
                ? "; the directory above it is missing: make it, or mount the disk that holds it"
                : "; give a directory of yours with -o root=");
        return rc;
    }
    char *resolved = safe_path_hold(v->config.root, &v->root_hold, &why);
    for (size_t i = 0; resolved && i < ARRAY_LENGTH(names) && why.length == 0; i++) {
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", resolved, names[i]);
        (void)safe_path_is_private(path, &why);
    }
    if (why.length > 0) {
        path_release(v->root_hold);
        v->root_hold = NULL;
        volume_error(
            error, "cannot use the storage root %s: %s", v->config.root, buffer_string(&why));
        free(resolved);
        return -EPERM;
    }
    free(v->config.root);
    v->config.root = resolved;
    return 0;
}

int
volume_check_private(const char *path, struct buffer *error)
{
    BUFFER_AUTO why = {0};
    if (safe_path_is_private(path, &why))
        return 0;
    volume_error(error, "cannot use the storage root: %s", buffer_string(&why));
    return -EPERM;
}

int
volume_take_lock(struct volume *v, struct buffer *error)
{
    CLEANUP(memory_free_auto)
    char *tenant = memory_printf("%s/tenants/%s", v->config.root, v->url.tenant);
    CLEANUP(memory_free_auto)
    char *directory =
        volume_tenant_directory(v->config.root, v->url.tenant, v->place_name, v->url.volume_number);
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/lock", directory);
    int rc = volume_check_private(tenant, error);
    if (rc == 0)
        rc = volume_check_private(directory, error);
    if (rc < 0)
        return rc;
    rc = path_make_directories(directory, 0700);
    if (rc < 0) {
        volume_error(error,
            "cannot make %s: %s; give a directory of yours with -o root=", directory,
            strerror(-rc));
        return rc;
    }
    v->own.lock_fd = path_open(path, O_RDWR | O_CREAT, 0600);
    if (v->own.lock_fd < 0) {
        rc = v->own.lock_fd;
        volume_error(error, "cannot open %s: %s", path, strerror(-rc));
        return rc;
    }
    bool told = false;
    uint64_t now = clock_monotonic_ms();
    uint64_t deadline = now + PREDECESSOR_WAIT_MS;
    uint64_t patience = now + DYING_WAIT_MS;
    while (flock(v->own.lock_fd, LOCK_EX | LOCK_NB) < 0) {
        char text[64] = {0};
        ssize_t got = pread(v->own.lock_fd, text, sizeof(text) - 1, 0);
        bool closing = got > 0 && strstr(text, VOLUME_LOCK_CLOSING);
        now = clock_monotonic_ms();
        if (now > deadline || (!closing && now > patience)) {
            volume_error(error,
                "%s is in use: process %ld has it mounted from the storage root %s; unmount it "
                "first",
                v->config.source, strtol(text, NULL, 10), v->config.root);
            return -EBUSY;
        }
        if (closing && !told) {
            volume_say(v,
                "waiting for process %ld, which was unmounted and publishes the last changes",
                strtol(text, NULL, 10));
            told = true;
        }
        clock_sleep_ms(50);
    }
    write_lock_text(v, "mounted");
    return 0;
}
