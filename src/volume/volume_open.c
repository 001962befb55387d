// SPDX-License-Identifier: Apache-2.0
// Opening a volume for writing on its storage root, and read-only from the bucket alone.
//
//     root has the db ready   -> replay the WAL -> catch up with the bucket -> claim -> go
//     root does not have it   -> import from the bucket -> claim -> go
//     another writer was here -> the local state is old: if all of it had been published, import
//                                anew; else refuse, unless the user says discard_unpublished
//     store not reachable     -> a root that has the db goes on with it and claims later; a root
//                                that does not have it cannot go on
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/random.h"
#include "retention/retention_policy.h"
#include "retention/snapshot.h"
#include "volume/volume_internal.h"

void
volume_error(struct buffer *error, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    buffer_clear(error);
    buffer_append_string(error, text);
}

void
volume_say(struct volume *v, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_warning("volume.opening", "%s", text);
    if (v->host.say)
        v->host.say(v->host.argument, text);
}

const char *
volume_store_advice(int rc)
{
    switch (rc) {
    case -EPROTO:
        return "check endpoint=, ca_file= and the name servers";
    case -EACCES:
        return "check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, profile=)";
    case -ENXIO:
        return "check that the bucket or directory exists and is spelled right";
    case -EOPNOTSUPP:
        return "use a store with conditional writes, or accept the risk with -o unsafe_store";
    case -EBADMSG:
        return "an object there is damaged; an older generation may still mount with -o "
               "at=GENERATION";
    case -EIDRM:
        return "ckptctl destroy finishes that";
    default:
        return "check endpoint=, region= and the network, then try again";
    }
}

int
volume_store_failed(struct volume *v, struct buffer *error, const char *what, int rc)
{
    const char *text = remote_store_error();
    // A store that lacks something says so itself.
    bool newer = rc == -ENOTSUP && !text[0];
    volume_error(error, "cannot %s %s: %s; %s", what, v->config.source,
        text[0] ? text : strerror(-rc),
        newer ? "a newer version of this program wrote it: use that one" : volume_store_advice(rc));
    return rc;
}

// ---- the db in this root ------------------------------------------------------------------------

static int
open_manifest(struct volume *v, const char *directory, bool throwaway, struct buffer *error)
{
    struct manifest_options options = {.no_sync = throwaway, .pace = &v->pace};
    if (!throwaway) {
        options.find_former_id = volume_find_former_root_id;
        options.argument = v;
    }
    int rc = manifest_open(directory, &options, &v->manifest);
    if (rc < 0)
        volume_error(error, "cannot open the manifest in %s: %s%s", directory, strerror(-rc),
            rc == -EBADMSG
                ? "; it is damaged (the log says where), or of a newer version of ckptfs. None "
                  "of its entries was changed. Restore it, or move the storage root away to mount "
                  "from the store "
                  "alone, which gives up unpublished changes"
            : rc == -EBUSY
                ? "; another process uses this storage root in the format of an older version: end "
                  "that process, then mount again"
            : rc == -ENOTSUP ? "; a newer version of ckptfs made it. None of its entries was "
                               "changed. Use that one"
                             : "");
    return rc;
}

static void
new_db(struct volume *v, struct db_record *db)
{
    *db = (struct db_record){.state = DB_STATE_IMPORTING, .volume_number = v->url.volume_number};
    snprintf(db->place, sizeof(db->place), "%s", v->place_name);
    snprintf(db->tenant, sizeof(db->tenant), "%s", v->url.tenant);
}

static int
create_in_store(struct volume *v, struct buffer *error)
{
    struct uuid volume = random_uuid();
    struct uuid key = random_uuid();
    struct remote_place place = v->place;
    place.call.fail_fast = true;
    int rc = remote_manifest_create(&place, &volume, &key, &retention_default);
    if (rc == -EEXIST)
        return 0;
    return rc < 0 ? volume_store_failed(v, error, "create", rc) : 0;
}

static void
log_import(const struct volume *v, const struct db_record *db, uint64_t started)
{
    struct log_event e;
    log_begin(&e, LOG_LEVEL_INFO, "volume.imported");
    log_string(&e, "source", v->config.source);
    log_u64(&e, "generation", db->published.v);
    log_u64(&e, "duration_ms", clock_monotonic_ms() - started);
    log_end(&e);
}

int
volume_import(struct volume *v, struct db_record *db, struct generation at, struct buffer *error)
{
    uint64_t started = clock_monotonic_ms();
    struct remote_place place = v->place;
    place.call.fail_fast = true;
    place.forgiving = v->from_bucket;
    int rc = remote_manifest_import(&place, v->manifest, db, at);
    if (rc == -ENOENT) {
        volume_error(error,
            "%s holds no volume; to make one there, mount with -o create or run: ckptctl create %s",
            v->config.source, v->config.source);
        return rc;
    }
    if (rc == -ESTALE) {
        volume_error(
            error, "%s has no generation %llu", v->config.source, (unsigned long long)at.v);
        return rc;
    }
    if (rc < 0)
        return volume_store_failed(v, error, "read the manifest of", rc);
    log_import(v, db, started);
    return 0;
}

// The root's log goes on behind the imported generation.
static int
import_for_log(struct volume *v, struct db_record *db, const struct volume_rebuild *rebuild,
    struct buffer *error)
{
    uint64_t started = clock_monotonic_ms();
    int rc = remote_manifest_import_exactly(&v->place, v->manifest, db, rebuild->sequence);
    if (rc == -EBUSY)
        volume_error(error, "another host writes to %s at this moment", v->config.source);
    else if (rc < 0)
        return volume_store_failed(v, error, "read the manifest of", rc);
    else
        log_import(v, db, started);
    return rc;
}

static int
create_db(struct volume *v, struct db_record *db, const struct volume_rebuild *rebuild)
{
    int rc = manifest_create_db(v->manifest, db);
    if (rc < 0 || db->id.v > rebuild->above.v || rebuild->db.v != 0)
        return rc;
    // Directories that another manifest has left carry this number.
    rc = manifest_remove_db(v->manifest, db->id);
    db->id.v = rebuild->above.v + 1;
    return rc < 0 ? rc : manifest_create_db(v->manifest, db);
}

static int
probe_store(struct volume *v, struct buffer *error)
{
    if (v->config.unsafe_store)
        return 0;
    struct remote_call call = {
        .deadline_ms = clock_monotonic_ms() + v->config.read_deadline_ms, .fail_fast = true};
    int rc = remote_store_probe(v->remote, &call);
    return rc < 0 ? volume_store_failed(v, error, "use", rc) : 0;
}

// Fills a new db from the bucket.
static int
import_db(struct volume *v, struct db_record *db, struct buffer *error)
{
    struct volume_rebuild rebuild;
    new_db(v, db);
    int rc = volume_find_rebuild(v, &rebuild, error);
    if (rc < 0)
        return rc;
    db->id = rebuild.db;
    db->cut = rebuild.cut;
    rc = create_db(v, db, &rebuild);
    if (rc < 0) {
        volume_error(error, "cannot write the manifest in %s: %s", v->root, strerror(-rc));
        return rc;
    }
    v->db = db->id;
    rc = volume_open_layers(v, error);
    if (rc == 0)
        rc = probe_store(v, error);
    if (rc == 0 && v->config.create)
        rc = create_in_store(v, error);
    if (rc == 0)
        rc = rebuild.db.v != 0 ? import_for_log(v, db, &rebuild, error)
                               : volume_import(v, db, (struct generation){0}, error);
    if (rc == 0) {
        v->restored = db->published.v > 0;
        return 0;
    }
    volume_close_layers(v);
    int removed = manifest_remove_db(v->manifest, db->id);
    if (removed < 0)
        log_warning("volume.import", "cannot remove the unfinished db: %s", strerror(-removed));
    return rc;
}

// All that this root has of the volume goes.
int
volume_drop_db(struct volume *v, struct buffer *error)
{
    // From here on the volume's files in the root are worthless, however far the removal gets.
    struct manifest_batch *b = manifest_batch_new(v->db);
    manifest_batch_db_state(b, DB_STATE_IMPORTING);
    int rc = volume_note_dropped(v, true);
    if (rc == 0)
        rc = manifest_submit(v->manifest, b, NULL);
    else
        manifest_batch_free(b);
    int closed = wal_close(v->wal);
    if (closed < 0)
        log_warning("wal.failed", "the log could not be closed: %s", strerror(-closed));
    v->wal = NULL;
    volume_close_layers(v);
    if (rc < 0) {
        volume_error(error, "cannot write the manifest in %s: %s", v->root, strerror(-rc));
        return rc;
    }
    CLEANUP(memory_free_auto) char *directory = volume_wal_directory(v);
    CLEANUP(memory_free_auto)
    char *cache = memory_printf("%s/hot_cache/%u", v->config.root, v->db.v);
    rc = path_remove_tree(directory);
    if (rc == 0)
        rc = manifest_remove_db(v->manifest, v->db);
    if (rc == 0)
        rc = path_remove_tree(cache);
    if (rc == 0)
        rc = volume_note_dropped(v, false);
    if (rc < 0)
        volume_error(
            error, "cannot remove the old local state below %s: %s", v->config.root, strerror(-rc));
    return rc;
}

static int
open_ready_db(struct volume *v, struct db_record *db, struct buffer *error)
{
    v->db = db->id;
    int rc = volume_open_layers(v, error);
    if (rc < 0)
        return rc;
    v->counters = db->counters;
    v->name_key = db->name_key;
    rc = volume_open_wal(v, db, error);
    if (rc == 0) {
        volume_sweep(v);
        local_store_load_recency(v->local);
    }
    return rc;
}

static int
find_or_import(struct volume *v, struct db_record *db, struct buffer *error)
{
    int rc = manifest_find_db(v->manifest, v->place_name, v->url.tenant, v->url.volume_number, db);
    if (rc == 0 && db->state == DB_STATE_IMPORTING) {
        rc = manifest_remove_db(v->manifest, db->id);
        if (rc == 0)
            rc = -ENOENT;
    }
    if (rc == -ENOENT) {
        rc = import_db(v, db, error);
        if (rc < 0)
            return rc;
        volume_close_layers(v);
    } else if (rc < 0) {
        volume_error(error, "cannot read the manifest in %s: %s", v->root, strerror(-rc));
        return rc;
    }
    return open_ready_db(v, db, error);
}

// ---- the root directory of a new volume ---------------------------------------------------------

static int
decide_root(struct view *view, struct operation *op)
{
    struct inode_record inode;
    int rc = view_inode(view, OBJECT_ROOT_DIRECTORY, &inode);
    if (rc != -ENOENT)
        return rc;
    struct timestamp now = volume_now();
    inode = (struct inode_record){
        .mode = S_IFDIR | 0755,
        .uid = getuid(),
        .gid = getgid(),
        .nlink = 2,
        .atime = now,
        .mtime = now,
        .ctime = now,
        .btime = now,
    };
    op->changes[op->count++] = change_put_inode(OBJECT_ROOT_DIRECTORY, &inode);
    return 0;
}

static int
make_root_directory(struct volume *v)
{
    if (v->counters.next_object < 2)
        v->counters.next_object = 2;
    struct operation op = {.decide = decide_root};
    return volume_operate(v, &op);
}

// Makes a damaged manifest anew if nothing is lost by that.
static int
open_sound_manifest(struct volume *v, const char *directory, struct buffer *error)
{
    struct db_record db;
    int rc = open_manifest(v, directory, false, error);
    // The entries of a large one have not been looked at.
    if (rc == 0 && manifest_find_db(v->manifest, v->place_name, v->url.tenant, v->url.volume_number,
                       &db) == -EBADMSG) {
        manifest_close(v->manifest);
        v->manifest = NULL;
        rc = -EBADMSG;
    }
    if (rc == -EBADMSG)
        rc = volume_set_manifest_aside(v, error);
    else
        return rc;
    return rc < 0 ? rc : open_manifest(v, directory, false, error);
}

int
volume_open_local(struct volume *v, struct buffer *error)
{
    int rc = volume_take_root(v, error);
    v->root = memory_string(v->config.root);
    if (rc == 0)
        rc = volume_take_lock(v, error);
    if (rc == 0)
        volume_sweep_throwaway_roots(v);
    CLEANUP(memory_free_auto) char *directory = memory_printf("%s/manifest", v->root);
    if (rc == 0)
        rc = open_sound_manifest(v, directory, error);
    struct db_record db;
    for (int round = 0; rc == 0; round++) {
        rc = find_or_import(v, &db, error);
        if (rc == 0)
            rc = volume_claim(v, &db, error);
        if (rc <= 0)
            break;
        if (round == CLAIM_ATTEMPTS) {
            volume_error(error, "%s: other hosts keep taking it", v->config.source);
            return -EBUSY;
        }
        rc = 0;
    }
    return rc;
}

int
volume_settle(struct volume *v, struct buffer *error)
{
    if (v->lost_changes > 0)
        volume_press(v); // skipped changes stay in the log until then
    volume_press_if_needed(v);
    int rc = make_root_directory(v);
    if (rc == 0)
        rc = volume_purge_orphans(v);
    if (rc < 0)
        volume_error(error, "cannot write to the log in %s: %s", v->root, strerror(-rc));
    return rc;
}

// ---- read-only, from the bucket alone -----------------------------------------------------------

// Which generation at= means.
static int
resolve_at(struct volume *v, struct generation *at, struct buffer *error)
{
    BUFFER_AUTO problem = {0};
    int rc = snapshot_resolve(&v->place, v->config.at, at, &problem);
    if (rc == -ENOENT && problem.length == 0)
        volume_error(
            error, "there is no volume at %s; give -o create to make one", v->config.source);
    else if (rc == -ENOENT || rc == -ESTALE)
        volume_error(
            error, "%s: at=%s: %s", v->config.source, v->config.at, buffer_string(&problem));
    else if (rc < 0)
        return volume_store_failed(v, error, "read", rc);
    return rc;
}

int
volume_open_from_bucket(struct volume *v, struct buffer *error)
{
    v->from_bucket = v->own.read_only = true;
    int rc = volume_make_throwaway_root(v, error);
    CLEANUP(memory_free_auto)
    char *directory = memory_printf("%s/manifest", v->root ? v->root : "");
    if (rc == 0)
        rc = open_manifest(v, directory, true, error);
    if (rc < 0)
        return rc;
    struct db_record db;
    new_db(v, &db);
    rc = manifest_create_db(v->manifest, &db);
    if (rc < 0) {
        volume_error(error, "cannot write %s: %s", directory, strerror(-rc));
        return rc;
    }
    v->db = db.id;
    rc = volume_open_layers(v, error);
    struct generation at = {0};
    if (rc == 0 && v->config.at)
        rc = resolve_at(v, &at, error);
    if (rc == 0)
        rc = volume_import(v, &db, at, error);
    v->name_key = db.name_key;
    v->counters = db.counters;
    struct volume_attributes root;
    if (rc == 0 && volume_get_attributes(v, OBJECT_ROOT_DIRECTORY, &root) < 0) {
        volume_error(error, "%s has no published generation yet", v->config.source);
        rc = -ENOENT;
    }
    if (rc == 0)
        storage_quota_recount(v->quota); // with the manifest that was imported
    if (rc == 0)
        volume_start_reader(v, db.published);
    return rc;
}
