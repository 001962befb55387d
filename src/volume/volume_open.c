// SPDX-License-Identifier: Apache-2.0
// Opening a volume for writing on its storage root, and read-only from the bucket alone.
//
//     root has the db ready   -> replay the WAL -> catch up with the bucket -> claim -> go
//     root does not have it   -> import from the bucket -> claim -> go
//     another writer was here -> what is local is history: if all of it had been published, import
//                                anew; else refuse, unless the user says discard_unpublished
//     store not reachable     -> a root that has the db goes on with it and claims later; a root
//                                that does not have it cannot go on
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "platform/safe_path.h"
#include "retention/retention_policy.h"
#include "retention/snapshot.h"
#include "volume/volume_internal.h"

// How long a mount waits for a predecessor that is on its way out.
#define PREDECESSOR_WAIT_MS 90000u
// How long one that was killed may take to be gone.
#define DYING_WAIT_MS  2000u
#define CLAIM_ATTEMPTS 5
// A root that has the volume does not wait longer for the store: the volume is claimed later then.
#define CLAIM_CALL_MS 10000u

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
    case -EACCES:
        return "check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, profile=)";
    case -ENXIO:
        return "check that the bucket or directory exists and is spelled right";
    case -EOPNOTSUPP:
        return "use a store with conditional writes, or accept the risk with -o unsafe_store";
    case -EBADMSG:
        return "an object there is damaged; an older generation may still mount with -o "
               "at=GENERATION";
    default:
        return "check endpoint=, region= and the network, then try again";
    }
}

static int
store_failed(struct volume *v, struct buffer *error, const char *what, int rc)
{
    const char *text = remote_store_error();
    // A store that lacks something says so itself.
    bool newer = rc == -ENOTSUP && !text[0];
    volume_error(error, "cannot %s %s: %s; %s", what, v->config.source,
        text[0] ? text : strerror(-rc),
        newer ? "a newer version of this program wrote it: use that one" : volume_store_advice(rc));
    return rc;
}

static bool
is_unreachable(int rc)
{
    return rc == -EAGAIN || rc == -EBUSY || rc == -ETIMEDOUT || rc == -EACCES;
}

// ---- the process's hold on the db ---------------------------------------------------------------

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
    char text[96];
    int n = snprintf(text, sizeof(text), "%ld %s\n", (long)getpid(), state);
    // For people and for a successor's patience; nothing depends on it.
    if (ftruncate(v->lock_fd, 0) < 0 || pwrite(v->lock_fd, text, (size_t)n, 0) < 0)
        log_debug("volume.lock", "cannot write the lock file");
}

void
volume_mark_closing(struct volume *v, uint64_t done_bytes, uint64_t total_bytes)
{
    char state[64];
    snprintf(state, sizeof(state), VOLUME_LOCK_CLOSING " %llu %llu", (unsigned long long)done_bytes,
        (unsigned long long)total_bytes);
    if (v->lock_fd >= 0)
        write_lock_text(v, state);
}

// Makes the storage root when only its last component is missing, and makes sure that nobody else
// works in it. `v->config.root` has no links afterwards.
static int
open_root(struct volume *v, struct buffer *error)
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
    char *resolved = safe_path_resolve(v->config.root, &why);
    for (size_t i = 0; resolved && i < ARRAY_LENGTH(names) && why.length == 0; i++) {
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", resolved, names[i]);
        (void)safe_path_is_private(path, &why);
    }
    if (why.length > 0) {
        volume_error(
            error, "cannot use the storage root %s: %s", v->config.root, buffer_string(&why));
        free(resolved);
        return -EPERM;
    }
    free(v->config.root);
    v->config.root = resolved;
    return 0;
}

// One of the directories that belong to a volume, which may not exist yet.
static int
check_private(const char *path, struct buffer *error)
{
    BUFFER_AUTO why = {0};
    if (safe_path_is_private(path, &why))
        return 0;
    volume_error(error, "cannot use the storage root: %s", buffer_string(&why));
    return -EPERM;
}

static int
take_db_lock(struct volume *v, struct buffer *error)
{
    CLEANUP(memory_free_auto)
    char *tenant = memory_printf("%s/tenants/%s", v->config.root, v->url.tenant);
    CLEANUP(memory_free_auto)
    char *directory =
        volume_tenant_directory(v->config.root, v->url.tenant, v->place_name, v->url.volume_number);
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/lock", directory);
    int rc = check_private(tenant, error);
    if (rc == 0)
        rc = check_private(directory, error);
    if (rc < 0)
        return rc;
    rc = path_make_directories(directory, 0700);
    if (rc < 0) {
        volume_error(error,
            "cannot make %s: %s; give a directory of yours with -o root=", directory,
            strerror(-rc));
        return rc;
    }
    v->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (v->lock_fd < 0) {
        rc = -errno;
        volume_error(error, "cannot open %s: %s", path, strerror(-rc));
        return rc;
    }
    bool told = false;
    uint64_t now = clock_monotonic_ms();
    uint64_t deadline = now + PREDECESSOR_WAIT_MS;
    uint64_t patience = now + DYING_WAIT_MS;
    while (flock(v->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        char text[64] = {0};
        ssize_t got = pread(v->lock_fd, text, sizeof(text) - 1, 0);
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
            volume_say(v, "waiting for process %ld, which was unmounted and publishes what is left",
                strtol(text, NULL, 10));
            told = true;
        }
        clock_sleep_ms(50);
    }
    write_lock_text(v, "mounted");
    return 0;
}

// ---- layers -------------------------------------------------------------------------------------

int
volume_open_layers(struct volume *v, struct buffer *error)
{
    CLEANUP(memory_free_auto)
    char *hot_cache = memory_printf("%s/hot_cache/%u", v->root, v->db.v);
    CLEANUP(memory_free_auto)
    char *scratch = memory_printf("%s/checkpoint_scratch/%u", v->root, v->db.v);
    int rc = check_private(hot_cache, error);
    if (rc == 0)
        rc = check_private(scratch, error);
    if (rc < 0)
        return rc;
    rc = local_store_open(&file_ops_system, v->root, v->db, &v->local);
    if (rc < 0) {
        volume_error(error, "cannot open the local store in %s: %s", v->root, strerror(-rc));
        return rc;
    }
    v->place = (struct remote_place){
        .store = v->remote,
        .tenant = v->url.tenant,
        .volume_number = v->url.volume_number,
        .writer = manifest_root_id(v->manifest),
        .scratch = local_store_scratch(v->local),
        .call_ms = v->config.read_deadline_ms,
    };
    v->map = chunk_map_new(v->manifest, v->db, v->config.page_cache_bytes / 8 + (4u << 20));
    struct chunk_reader_options reader = {
        .map = v->map,
        .local = v->local,
        .remote = v->remote,
        .tenant = v->url.tenant,
        .volume_number = v->url.volume_number,
        .deadline_ms = v->config.read_deadline_ms,
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
    namespace_set_free(v->names);
    namespace_set_free(v->frozen_names);
    v->pages = NULL;
    v->reader = NULL;
    v->map = NULL;
    v->local = NULL;
    v->names = v->frozen_names = NULL;
}

static char *
wal_directory(const struct volume *v)
{
    return memory_printf("%s/tenants/%s/%u/wal", v->config.root, v->url.tenant, v->db.v);
}

static bool
has_segments(const char *directory)
{
    DIR *dir = opendir(directory);
    bool found = false;
    for (struct dirent *e; dir && !found && (e = readdir(dir));)
        found = strncmp(e->d_name, "segment-", 8) == 0;
    if (dir)
        closedir(dir);
    return found;
}

// What was skipped needs the waiver until the log no longer holds it.
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

static int
open_wal(struct volume *v, const struct db_record *db, struct buffer *error)
{
    CLEANUP(memory_free_auto) char *directory = wal_directory(v);
    CLEANUP(memory_free_auto)
    char *above = memory_printf("%s/tenants/%s/%u", v->config.root, v->url.tenant, v->db.v);
    int rc = check_private(above, error);
    if (rc == 0)
        rc = check_private(directory, error);
    if (rc < 0)
        return rc;
    rc = path_make_directories(directory, 0700);
    struct wal_options options = {
        .ops = &file_ops_system,
        .directory = directory,
        .volume = db->volume,
        .writer = manifest_root_id(v->manifest),
        .writer_epoch = db->epoch,
        .limit_bytes = v->config.wal_limit_bytes,
        // With one thread, nobody would take the requests that make up the next batch.
        .callers_flush = v->config.fuse_threads > 1,
        .pace = &v->pace,
    };
    // The log has a segment from the first open on, and that comes before the first claim.
    if (rc == 0 && (db->epoch > 0 || db->cut.v > 0) && !has_segments(directory)) {
        volume_error(error,
            "the write-ahead log in %s is missing, and with it every change since the last local "
            "generation. Restore it, or move the storage root %s away to go back to the last "
            "published generation",
            directory, v->root);
        return -EBADMSG;
    }
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

// What a process that died left behind: staging directories, and blobs whose transaction never
// came.
static void
sweep(struct volume *v)
{
    const char *scratch = local_store_scratch(v->local);
    DIR *dir = opendir(scratch);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", scratch, e->d_name);
        if (path_remove_tree(path) < 0)
            log_warning("scratch.failed", "cannot remove %s", path);
    }
    if (dir)
        closedir(dir);
    int removed = local_store_sweep(v->local, is_needed, v);
    if (removed > 0)
        log_info("scratch.swept", "removed %d blobs that no generation names", removed);
}

// ---- the db in this root ------------------------------------------------------------------------

static int
open_manifest(struct volume *v, const char *directory, bool throwaway, struct buffer *error)
{
    struct manifest_options options = {.no_sync = throwaway, .pace = &v->pace};
    int rc = manifest_open(directory, &options, &v->manifest);
    if (rc < 0)
        volume_error(error, "cannot open the manifest in %s: %s%s", directory, strerror(-rc),
            rc == -EBADMSG
                ? "; it is damaged (the log says where), or of a newer version of ckptfs. Nothing "
                  "was changed. Restore it, or move the storage root away to mount from the store "
                  "alone, which gives up what was not published"
            : rc == -EBUSY
                ? "; another process uses this storage root in the format of an older version: end "
                  "that process, then mount again"
            : rc == -ENOTSUP
                ? "; a newer version of ckptfs made it. Nothing was changed. Use that one"
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
    int rc = remote_manifest_create(&v->place, &volume, &key, &retention_default);
    if (rc == -EEXIST)
        return 0;
    return rc < 0 ? store_failed(v, error, "create", rc) : 0;
}

int
volume_import(struct volume *v, struct db_record *db, struct generation at, struct buffer *error)
{
    uint64_t started = clock_monotonic_ms();
    int rc = remote_manifest_import(&v->place, v->manifest, db, at);
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
        return store_failed(v, error, "read the manifest of", rc);
    struct log_event e;
    log_begin(&e, LOG_LEVEL_INFO, "volume.imported");
    log_string(&e, "source", v->config.source);
    log_u64(&e, "generation", db->published.v);
    log_u64(&e, "duration_ms", clock_monotonic_ms() - started);
    log_end(&e);
    return 0;
}

static int
probe_store(struct volume *v, struct buffer *error)
{
    if (v->config.unsafe_store)
        return 0;
    struct remote_call call = {.deadline_ms = clock_monotonic_ms() + v->config.read_deadline_ms};
    int rc = remote_store_probe(v->remote, &call);
    return rc < 0 ? store_failed(v, error, "use", rc) : 0;
}

// Fills a new db from the bucket.
static int
import_db(struct volume *v, struct db_record *db, struct buffer *error)
{
    new_db(v, db);
    int rc = manifest_create_db(v->manifest, db);
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
        rc = volume_import(v, db, (struct generation){0}, error);
    if (rc == 0)
        return 0;
    volume_close_layers(v);
    int removed = manifest_remove_db(v->manifest, db->id);
    if (removed < 0)
        log_warning("volume.import", "cannot remove the unfinished db: %s", strerror(-removed));
    return rc;
}

// All that this root has of the volume goes.
static int
drop_db(struct volume *v, struct buffer *error)
{
    // From here on what is left in the root is worthless, however far the removal gets.
    struct manifest_batch *b = manifest_batch_new(v->db);
    manifest_batch_db_state(b, DB_STATE_IMPORTING);
    int rc = manifest_submit(v->manifest, b, NULL);
    int closed = wal_close(v->wal);
    if (closed < 0)
        log_warning("wal.failed", "the log could not be closed: %s", strerror(-closed));
    v->wal = NULL;
    volume_close_layers(v);
    if (rc < 0) {
        volume_error(error, "cannot write the manifest in %s: %s", v->root, strerror(-rc));
        return rc;
    }
    CLEANUP(memory_free_auto) char *directory = wal_directory(v);
    CLEANUP(memory_free_auto)
    char *cache = memory_printf("%s/hot_cache/%u", v->config.root, v->db.v);
    rc = path_remove_tree(directory);
    if (rc == 0)
        rc = manifest_remove_db(v->manifest, v->db);
    if (rc == 0)
        rc = path_remove_tree(cache);
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
    rc = open_wal(v, db, error);
    if (rc == 0)
        sweep(v);
    return rc;
}

// ---- ownership ----------------------------------------------------------------------------------

static bool
has_unpublished(struct volume *v, const struct db_record *db)
{
    // A new volume's root directory is made at every first mount; it is nobody's data.
    size_t nobodys = db->local.v == 0 ? 1 : 0;
    lock_take(&v->lock);
    bool dirty = namespace_set_count(v->names) > nobodys || !page_store_is_clean_locked(v->pages);
    lock_release(&v->lock);
    return db->local.v > db->published.v || dirty;
}

// The volume went on elsewhere. 1: start over from the bucket.
static int
start_over(struct volume *v, const struct db_record *db, const char *host, struct buffer *error)
{
    if (has_unpublished(v, db) && !v->config.discard_unpublished) {
        volume_error(error,
            "%s was taken over by %s, and the storage root %s holds changes that were never "
            "published. To give them up and go on from the bucket, mount with -o "
            "discard_unpublished; to keep them for inspection, move the root away",
            v->config.source, host[0] ? host : "another host", v->config.root);
        return -EBUSY;
    }
    log_warning("volume.start_over", "%s was taken over meanwhile; going on from the bucket",
        v->config.source);
    int rc = drop_db(v, error);
    return rc < 0 ? rc : 1;
}

static int
refuse_claim(struct volume *v, const struct remote_lease *lease, struct buffer *error)
{
    uint64_t left = lease->ttl_ms > lease->age_ms ? (lease->ttl_ms - lease->age_ms) / 1000 + 1 : 1;
    volume_error(error,
        "%s is mounted for writing by %s (its lease runs out in %llu s unless it is renewed). "
        "Unmount it there, wait, mount with -o ro, or take it over with -o takeover (changes that "
        "host has not published will be lost)",
        v->config.source, lease->host[0] ? lease->host : "another host", (unsigned long long)left);
    return -EBUSY;
}

// Catches up with the bucket and claims. 0: claimed, or not reachable (v->claimed tells); 1: the
// local state had to go.
static int
claim(struct volume *v, struct db_record *db, struct buffer *error)
{
    struct remote_place place = v->place;
    if (place.call_ms > CLAIM_CALL_MS)
        place.call_ms = CLAIM_CALL_MS;
    for (int attempt = 0; attempt < CLAIM_ATTEMPTS; attempt++) {
        struct remote_catch_up found = {0};
        int rc = remote_manifest_catch_up(&place, v->manifest, db, &found);
        if (rc == 0 && (found.foreign || db->fenced))
            return start_over(v, db, found.foreign_host, error);
        struct remote_lease lease = {0};
        if (rc == 0)
            rc = remote_manifest_claim(
                &place, v->manifest, db, v->config.lease_ttl_ms, v->config.takeover, &lease);
        if (rc == 0) {
            wal_set_writer_epoch(v->wal, db->epoch);
            v->claimed = true;
            return 0;
        }
        if (rc == -EBUSY && lease.ttl_ms > 0)
            return refuse_claim(v, &lease, error);
        if (is_unreachable(rc)) {
            volume_say(v,
                "%s is mounted without being claimed, because the store cannot be reached: %s. "
                "Changes are kept in %s and are published when the store is back, unless another "
                "host takes the volume before",
                v->config.source, remote_store_error(), v->config.root);
            return 0;
        }
        // What this root holds may be all that is left.
        if (rc == -EBADMSG) {
            volume_say(v,
                "%s is mounted without being claimed, because the store has lost or changed what "
                "was "
                "published: %s. Changes are kept in %s and are not published until that is put "
                "right",
                v->config.source, remote_store_error(), v->config.root);
            return 0;
        }
        if (rc != -ESTALE)
            return store_failed(v, error, "claim", rc);
    }
    volume_error(error, "%s: other hosts keep claiming it; try again", v->config.source);
    return -EBUSY;
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

int
volume_open_local(struct volume *v, struct buffer *error)
{
    int rc = open_root(v, error);
    v->root = memory_string(v->config.root);
    if (rc == 0)
        rc = take_db_lock(v, error);
    CLEANUP(memory_free_auto) char *directory = memory_printf("%s/manifest", v->root);
    if (rc == 0)
        rc = open_manifest(v, directory, false, error);
    struct db_record db;
    for (int round = 0; rc == 0; round++) {
        rc = find_or_import(v, &db, error);
        if (rc == 0)
            rc = claim(v, &db, error);
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
        volume_press(v); // what was skipped stays in the log until then
    volume_press_if_needed(v);
    int rc = make_root_directory(v);
    if (rc == 0)
        rc = volume_purge_orphans(v);
    if (rc < 0)
        volume_error(error, "cannot write to the log in %s: %s", v->root, strerror(-rc));
    return rc;
}

// ---- views --------------------------------------------------------------------------------------

// Directories of views whose process is gone.
static void
sweep_views(const char *views)
{
    DIR *dir = opendir(views);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", views, e->d_name);
        CLEANUP(memory_free_auto) char *lock = memory_printf("%s/lock", path);
        CLEANUP(file_close_auto) int fd = open(lock, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && path_remove_tree(path) < 0)
            log_warning("scratch.failed", "cannot remove %s", path);
    }
    if (dir)
        closedir(dir);
}

static int
make_view_root(struct volume *v, struct buffer *error)
{
    int rc = open_root(v, error);
    if (rc < 0)
        return rc;
    CLEANUP(memory_free_auto) char *views = memory_printf("%s/views", v->config.root);
    rc = path_make_directories(views, 0700);
    if (rc == 0) {
        sweep_views(views);
        v->root = memory_printf(
            "%s/%ld-%016llx", views, (long)getpid(), (unsigned long long)random_u64());
        rc = path_make_directories(v->root, 0700);
    }
    if (rc < 0) {
        volume_error(error, "cannot make a directory below %s: %s", views, strerror(-rc));
        return rc;
    }
    CLEANUP(memory_free_auto) char *lock = memory_printf("%s/lock", v->root);
    v->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (v->lock_fd < 0 || flock(v->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        rc = -errno;
        volume_error(error, "cannot lock %s: %s", lock, strerror(-rc));
    }
    return rc;
}

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
        return store_failed(v, error, "read", rc);
    return rc;
}

int
volume_open_view(struct volume *v, struct buffer *error)
{
    v->view = v->read_only = true;
    int rc = make_view_root(v, error);
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
    return rc;
}
