// SPDX-License-Identifier: Apache-2.0
// ScratchJanitor: removes the files that nothing needs and that a dead process, or a failed
// removal, has left, and sets the account of disk space right. At mount it has the directories to
// itself. Later the housekeeping thread calls it every ten minutes beside folds, publications and
// readers:
//
//     checkpoint_scratch   a directory goes when it is old and not that of the fold in progress; a
//                          file when it is a day old (a record waits there for its upload)
//     hot_cache            a whole copy goes when no generation names its blob. The removal is
//                          announced before the manifest is asked (store/pin_set.h), so that a
//                          blob which a fold makes meanwhile stays. Partial copies are evicted
//                          when there is no room.
#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "volume/volume_internal.h"

#define INTERVAL_MS      ((uint64_t)10 * 60 * 1000)
#define DIRECTORY_AGE_MS ((uint64_t)60 * 60 * 1000)
#define FILE_AGE_MS      ((uint64_t)24 * 60 * 60 * 1000)

static bool
is_needed(void *argument, const struct sha256 *hash)
{
    struct volume *v = argument;
    struct manifest_reader *r;
    struct blob_record blob;
    if (manifest_read_begin(v->manifest, &r) < 0)
        return true;
    int rc = manifest_read_blob(r, v->db, hash, &blob);
    manifest_read_end(r);
    return rc < 0 ? rc != -ENOENT : blob.references > 0;
}

static bool
is_left(void *argument, const struct sha256 *hash, bool whole)
{
    return whole && !is_needed(argument, hash);
}

// ---- scratch ------------------------------------------------------------------------------------

// Whether no thread of this process can still use it.
static bool
is_junk(const struct volume *v, const char *name, const struct stat *st)
{
    uint64_t now_ms = clock_wall_ms();
    uint64_t changed_ms = (uint64_t)st->st_mtim.tv_sec * 1000;
    uint64_t age_ms = now_ms > changed_ms ? now_ms - changed_ms : 0;
    if (!S_ISDIR(st->st_mode))
        return age_ms >= FILE_AGE_MS;
    return age_ms >= DIRECTORY_AGE_MS && !checkpoint_uses_scratch(v->checkpoint, name);
}

static unsigned
clear_scratch(struct volume *v, bool all)
{
    const char *scratch = local_store_scratch(v->local);
    unsigned removed = 0;
    DIR *dir = path_open_directory(scratch);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", scratch, e->d_name);
        if (!all && (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
                        !is_junk(v, e->d_name, &st)))
            continue;
        if (storage_quota_remove_tree(v->quota, QUOTA_BLOBS, path) < 0)
            log_warning("scratch.failed", "cannot remove %s", path);
        else
            removed++;
    }
    if (dir)
        closedir(dir);
    return removed;
}

// ---- runs ---------------------------------------------------------------------------------------

void
volume_sweep(struct volume *v)
{
    clear_scratch(v, true);
    volume_sweep_scratch(v);
    int removed = local_store_sweep(v->local, is_needed, v);
    if (removed > 0)
        log_info("scratch.swept", "removed %d blobs that no generation names", removed);
    v->housekeeping.next_janitor_ms = clock_monotonic_ms() + INTERVAL_MS;
}

void
volume_clean(struct volume *v)
{
    int64_t missed = storage_quota_audit(v->quota);
    unsigned removed = clear_scratch(v, false);
    int64_t freed = local_store_evict(v->local, is_left, v, UINT64_MAX);
    if (missed == 0 && removed == 0 && freed <= 0)
        return;
    struct log_event e;
    log_begin(&e, LOG_LEVEL_INFO, "scratch.cleaned");
    log_u64(&e, "uncounted_bytes", (uint64_t)missed);
    log_u64(&e, "scratch_files", removed);
    log_u64(&e, "blob_bytes", freed > 0 ? (uint64_t)freed : 0);
    log_end(&e);
}

void
volume_clean_when_due(struct volume *v)
{
    uint64_t now_ms = clock_monotonic_ms();
    if (now_ms < v->housekeeping.next_janitor_ms || v->from_bucket)
        return;
    v->housekeeping.next_janitor_ms = now_ms + INTERVAL_MS;
    volume_clean(v);
    if (!atomic_load(&v->own.root_lost))
        local_store_save_recency(v->local);
}
