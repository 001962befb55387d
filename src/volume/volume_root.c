// SPDX-License-Identifier: Apache-2.0
#include "volume/volume_root.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "platform/directory.h"
#include "platform/file.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/safe_path.h"
#include "volume/volume_internal.h"

bool
volume_root_is_published(const struct volume_root_entry *e)
{
    return e->local.v == e->published.v && e->log_bytes == 0;
}

// Reads the lock file of the volume, and finds out whether a process holds it.
static void
look_at_lock(const char *root, const struct db_record *db, struct volume_root_entry *e)
{
    CLEANUP(memory_free_auto)
    char *directory = volume_tenant_directory(root, db->tenant, db->place, db->volume_number);
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/lock", directory);
    CLEANUP(file_close_auto) int fd = path_open(path, O_RDONLY | O_NONBLOCK, 0);
    char text[512] = "";
    if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK)
        return;
    e->mounted = true;
    if (pread(fd, text, sizeof(text) - 1, 0) <= 0)
        return;
    e->pid = strtol(text, NULL, 10);
    const char *closing = strstr(text, VOLUME_LOCK_CLOSING);
    e->closing = closing != NULL;
    if (closing)
        (void)sscanf(closing + strlen(VOLUME_LOCK_CLOSING), "%" SCNu64 " %" SCNu64,
            &e->closing_done_bytes, &e->closing_total_bytes);
    char *retrying = closing ? strstr(closing, "\n" VOLUME_LOCK_RETRYING " ") : NULL;
    if (!retrying)
        return;
    char *cause;
    e->closing_errors = strtoull(retrying + strlen("\n" VOLUME_LOCK_RETRYING " "), &cause, 10);
    cause[strcspn(cause, "\n")] = '\0';
    snprintf(e->closing_error, sizeof(e->closing_error), "%s", cause + (*cause == ' '));
}

static void
look_at_log(const char *root, const struct db_record *db, struct volume_root_entry *e)
{
    CLEANUP(memory_free_auto)
    char *directory = memory_printf("%s/tenants/%s/%u/wal", root, db->tenant, db->id.v);
    struct lsn end;
    if (wal_peek(directory, &db->volume, &end) == 0 && end.v > db->cut.v)
        e->log_bytes = end.v - db->cut.v;
}

struct listing {
    const char *root;
    struct manifest_reader *reader;
    volume_root_visit *visit;
    void *argument;
};

static int
visit_db(void *argument, const struct db_record *db)
{
    struct listing *x = argument;
    struct volume_root_entry e = {
        .volume = db->volume,
        .importing = db->state == DB_STATE_IMPORTING,
        .fenced = db->fenced,
        .epoch = db->epoch,
        .local = db->local,
        .published = db->published,
        .local_time_ms = db->local_time_ms,
        .published_time_ms = db->published_time_ms,
    };
    struct db_totals totals;
    int n = snprintf(e.source, sizeof(e.source), "%s/%s", db->place, db->tenant);
    if (db->volume_number != 1 && n > 0 && (size_t)n < sizeof(e.source))
        snprintf(e.source + n, sizeof(e.source) - (size_t)n, "@%" PRIu32, db->volume_number);
    snprintf(e.tenant, sizeof(e.tenant), "%s", db->tenant);
    if (manifest_read_totals(x->reader, db->id, &totals) == 0) {
        e.unpublished_blobs = totals.unpublished_blobs;
        e.unpublished_bytes = totals.unpublished_bytes;
    }
    if (volume_read_lost(x->reader, db->id, &e.lost) < 0)
        e.lost.ranges = 0;
    look_at_lock(x->root, db, &e);
    if (!e.importing)
        look_at_log(x->root, db, &e);
    return x->visit(x->argument, &e);
}

static int
open_root_manifest(struct volume_root *root, struct buffer *error)
{
    CLEANUP(memory_free_auto) char *directory = memory_printf("%s/manifest", root->path);
    CLEANUP(memory_free_auto) char *file = memory_printf("%s/data.mdb", directory);
    struct manifest_options options = {0};
    BUFFER_AUTO why = {0};
    if (!safe_path_is_private(directory, &why)) {
        volume_error(error, "cannot use the storage root: %s", buffer_string(&why));
        return -EPERM;
    }
    // Opening would make missing files, and write.
    CLEANUP(file_close_auto) int fd = path_open(file, O_RDWR | O_NONBLOCK, 0);
    int rc = fd < 0 ? fd : manifest_open(directory, &options, &root->manifest);
    if (rc == -ENOENT)
        volume_error(error, "%s is not a storage root: it has no manifest", root->path);
    else if (rc < 0)
        volume_error(error, "cannot read the manifest in %s: %s", directory, strerror(-rc));
    return rc;
}

int
volume_root_open(const char *path, struct volume_root *root_out, struct buffer *error)
{
    BUFFER_AUTO why = {0};
    *root_out = (struct volume_root){0};
    if (path_exists(path) == 0) {
        volume_error(error, "%s is not a storage root: it has no manifest", path);
        return -ENOENT;
    }
    root_out->path = safe_path_hold(path, &root_out->hold, &why);
    if (!root_out->path) {
        volume_error(error, "cannot use the storage root: %s", buffer_string(&why));
        return -EPERM;
    }
    int rc = open_root_manifest(root_out, error);
    if (rc < 0)
        volume_root_close(root_out);
    return rc;
}

void
volume_root_close(struct volume_root *root)
{
    manifest_close(root->manifest);
    path_release(root->hold);
    free(root->path);
    *root = (struct volume_root){0};
}

int
volume_root_list(const char *path, volume_root_visit *visit, void *argument, struct buffer *error)
{
    struct volume_root root;
    int rc = volume_root_open(path, &root, error);
    if (rc < 0)
        return rc;
    struct listing x = {.root = root.path, .visit = visit, .argument = argument};
    rc = manifest_read_begin(root.manifest, &x.reader);
    if (rc < 0) {
        volume_error(error, "cannot read the manifest in %s: %s", root.path, strerror(-rc));
        volume_root_close(&root);
        return rc;
    }
    rc = manifest_read_dbs(x.reader, visit_db, &x);
    if (rc == -EBADMSG)
        volume_error(error, "the manifest in %s is damaged", root.path);
    manifest_read_end(x.reader);
    volume_root_close(&root);
    return rc;
}
