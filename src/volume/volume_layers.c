// SPDX-License-Identifier: Apache-2.0
// Opens and closes the layers between the bottom (manifest, store) and the top (the namespace): the
// local store, the chunks, the pages and the write-ahead log.
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/directory.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "volume/volume_fetch.h"
#include "volume/volume_hot.h"
#include "volume/volume_internal.h"

int
volume_open_layers(struct volume *v, struct buffer *error)
{
    CLEANUP(memory_free_auto)
    char *hot_cache = memory_printf("%s/hot_cache/%u", v->root, v->db.v);
    CLEANUP(memory_free_auto)
    char *scratch = memory_printf("%s/checkpoint_scratch/%u", v->root, v->db.v);
    int rc = volume_check_private(hot_cache, error);
    if (rc == 0)
        rc = volume_check_private(scratch, error);
    if (rc < 0)
        return rc;
    rc = local_store_open(&file_ops_system, v->root, v->db, &v->local);
    if (rc < 0) {
        volume_error(error, "cannot open the local store in %s: %s", v->root, strerror(-rc));
        return rc;
    }
    if (!v->from_bucket)
        volume_keep_for_jobs(v);
    volume_open_quota(v);
    v->place = (struct remote_place){
        .store = v->remote,
        .tenant = v->url.tenant,
        .volume_number = v->url.volume_number,
        .writer = manifest_root_id(v->manifest),
        .scratch = local_store_scratch(v->local),
        .quota = v->quota,
        .call_ms = v->config.read_deadline_ms,
        .call = {.is_canceled = v->host.is_canceled, .argument = v->host.argument},
    };
    v->map = chunk_map_new(v->manifest, v->db, v->config.page_cache_bytes / 8 + (4u << 20));
    struct chunk_reader_options reader = {
        .map = v->map,
        .local = v->local,
        .remote = v->remote,
        .tenant = v->url.tenant,
        .volume_number = v->url.volume_number,
        .deadline_ms = v->config.read_deadline_ms,
        .heat = volume_hot_heat(v),
    };
    v->reader = chunk_reader_new(&reader);
    struct page_store_options pages = {
        .lock = &v->lock,
        .map = v->map,
        .reader = v->reader,
        .memory_bytes = v->config.page_cache_bytes,
    };
    v->pages = page_store_new(&pages);
    v->names = namespace_set_new();
    return 0;
}

void
volume_close_layers(struct volume *v)
{
    page_store_free(v->pages);
    chunk_reader_free(v->reader);
    chunk_map_free(v->map);
    local_store_close(v->local);
    volume_close_quota(v);
    namespace_set_free(v->names);
    namespace_set_free(v->frozen_names);
    v->pages = NULL;
    v->reader = NULL;
    v->map = NULL;
    v->local = NULL;
    v->names = v->frozen_names = NULL;
}

char *
volume_wal_directory(const struct volume *v)
{
    return memory_printf("%s/tenants/%s/%u/wal", v->config.root, v->url.tenant, v->db.v);
}

static int
is_segment(void *argument UNUSED, const char *name)
{
    return strncmp(name, "segment-", 8) == 0;
}

// A log has a segment from the first open on, and that comes before the first claim.
static int
check_log_is_there(struct volume *v, const char *directory, struct buffer *error)
{
    int rc = directory_walk(directory, is_segment, NULL);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    volume_error(error,
        "the write-ahead log in %s is missing, and with it every change since the last local "
        "generation. Restore it, or move the storage root %s away to go back to the last "
        "published generation",
        directory, v->root);
    return -EBADMSG;
}

// Skipped changes need the waiver until the log no longer has them.
static void
settle_waiver(struct volume *v, const char *waiver)
{
    free(v->waiver);
    v->waiver = memory_string(waiver);
    if (v->lost_changes == 0)
        volume_end_waiver(v);
    else
        log_warning("wal.replay_lost", "%llu changes of the write-ahead log were given up",
            (unsigned long long)v->lost_changes);
}

// A log of another volume would be taken for one that holds nothing.
static int
refuse_foreign_log(
    const char *root, const char *directory, const struct db_record *db, struct buffer *error)
{
    struct wal_survey survey;
    char log_text[37], own_text[37];
    int rc = wal_survey(directory, &survey);
    if (rc < 0 || !survey.has_volume || uuid_equal(&survey.volume, &db->volume))
        return rc;
    uuid_to_string(&survey.volume, log_text);
    uuid_to_string(&db->volume, own_text);
    volume_error(error,
        "the write-ahead log in %s is of volume %s, and the manifest says that it is of volume %s: "
        "one of them is damaged or was put in the other's place. Nothing was changed. Restore "
        "them; "
        "or, if it is the manifest, move %s/manifest away: it is then made anew from the store and "
        "the log, if nothing is lost by that",
        directory, log_text, own_text, root);
    return -EBADMSG;
}

int
volume_open_wal(struct volume *v, const struct db_record *db, struct buffer *error)
{
    CLEANUP(memory_free_auto) char *directory = volume_wal_directory(v);
    CLEANUP(memory_free_auto)
    char *above = memory_printf("%s/tenants/%s/%u", v->config.root, v->url.tenant, v->db.v);
    int rc = volume_check_private(above, error);
    if (rc == 0)
        rc = volume_check_private(directory, error);
    if (rc < 0)
        return rc;
    rc = volume_note_dropped(v, false); // a mount that meant to drop it died before
    if (rc < 0) {
        volume_error(error, "cannot write below %s: %s", v->config.root, strerror(-rc));
        return rc;
    }
    rc = path_make_directories(directory, 0700);
    struct wal_options options = {
        .ops = &file_ops_system,
        .directory = directory,
        .volume = db->volume,
        .writer = manifest_root_id(v->manifest),
        .writer_epoch = db->epoch,
        .limit_bytes = volume_log_limit(v),
        .quota = v->quota,
        // With one thread, no other would take the requests that make up the next batch.
        .callers_flush = v->config.fuse_threads > 1,
        .pace = &v->pace,
        .reached = db->log_end,
    };
    if (rc == 0 && (db->epoch > 0 || db->cut.v > 0))
        rc = check_log_is_there(v, directory, error);
    if (rc == -EBADMSG)
        return rc;
    if (rc == 0)
        rc = refuse_foreign_log(v->config.root, directory, db, error);
    CLEANUP(memory_free_auto) char *waiver = memory_printf("%s/" REPLAY_WAIVER, directory);
    struct volume_replay replay = {.v = v, .error = error, .waiver = waiver};
    v->lost_changes = 0;
    if (rc == 0)
        rc = volume_read_waiver(&replay);
    if (rc == 0)
        rc = wal_open(&options, db->cut, volume_replay, &replay, &v->wal, error);
    if (rc == 0 && replay.waived)
        settle_waiver(v, waiver);
    if (rc < 0 && error->length == 0)
        volume_error(error, "cannot open the write-ahead log in %s: %s", directory, strerror(-rc));
    page_store_set_wal(v->pages, v->wal);
    return rc;
}
