// SPDX-License-Identifier: Apache-2.0
// A storage root can be removed, or moved away, under a mounted volume. Descriptors go on working
// then, and nothing fails: but data written to files without names is gone with the process. So the
// housekeeping thread looks each second whether the files are still where they were.
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/safe_path.h"
#include "volume/volume_internal.h"

// Whether the name leads to the lock file that this process holds. A name counts as there unless
// the look fails because it is missing.
static bool
is_lock_in_place(const struct volume *v)
{
    struct stat mine;
    struct stat named;
    if (fstat(v->own.lock_fd, &mine) < 0)
        return true;
    if (mine.st_nlink == 0)
        return false;
    CLEANUP(memory_free_auto)
    char *directory =
        volume_tenant_directory(v->config.root, v->url.tenant, v->place_name, v->url.volume_number);
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/lock", directory);
    if (stat(path, &named) < 0)
        return errno != ENOENT && errno != ENOTDIR;
    return named.st_dev == mine.st_dev && named.st_ino == mine.st_ino;
}

static void
note_published(void *argument UNUSED, int result UNUSED, struct generation generation UNUSED)
{
}

// Nothing can be made below a directory that was removed. A root that was renamed still serves.
static int
hold_new_root(struct volume *v)
{
    if (!path_hold_is_removed(v->root_hold))
        return 0;
    BUFFER_AUTO why = {0};
    struct path_hold *hold;
    int rc = path_make_directory(v->config.root, 0700);
    if (rc < 0)
        return rc;
    CLEANUP(memory_free_auto) char *root = safe_path_hold(v->config.root, &hold, &why);
    if (!root || strcmp(root, v->config.root) != 0) {
        path_release(hold);
        return -EPERM;
    }
    path_release(v->root_hold);
    v->root_hold = hold;
    return 0;
}

// Memory and open files still have the writes since the last local generation: a last publication
// saves them, if it has all else that it needs. It stages in new directories.
static void
save_what_is_left(struct volume *v)
{
    int rc = hold_new_root(v);
    if (rc == 0)
        rc = local_store_make_directories(v->local);
    if (rc < 0)
        log_warning("volume.root_lost", "cannot make directories for a last publication: %s",
            strerror(-rc));
    else
        checkpoint_request(v->checkpoint, CHECKPOINT_REQUEST_PUBLISH, note_published, v);
}

bool
volume_root_is_gone(struct volume *v)
{
    return atomic_load(&v->own.root_lost) || !is_lock_in_place(v) || wal_is_removed(v->wal);
}

void
volume_watch_root(struct volume *v)
{
    if (atomic_load(&v->own.root_lost) || !volume_root_is_gone(v))
        return;
    char reason[160];
    snprintf(reason, sizeof(reason), "the storage root %s was removed or moved away", v->root);
    lock_take(&v->lock);
    volume_set_read_only_locked(v, reason);
    lock_release(&v->lock);
    atomic_store(&v->own.root_lost, true);
    log_error("volume.root_lost",
        "%s while it was mounted: the volume is read-only; unmount, and mount it again", reason);
    save_what_is_left(v);
}
