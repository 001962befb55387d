// SPDX-License-Identifier: Apache-2.0
// A storage root whose manifest is damaged, or gone, while its log is there. The bucket's newest
// generation and the log from its cut on are everything that was ever acknowledged, if
//
//     the newest record of the chain is this root's own: no other root has gone on with the volume;
//     the log reaches back to the cut of the newest generation, and holds together from there.
//
// Then the mount makes a new manifest: it imports as on a bare host, with the cut of that
// generation, so that opening the log replays the newer changes. Blobs of local generations that
// were never published are not needed: their changes are in the log behind that cut. If one of the
// two does not hold, changes that were acknowledged would be lost; then the mount changes nothing,
// unless the user says discard_unpublished: it sets the log aside, and the volume begins with the
// newest generation.
//
// No step needs to know of the one before, because each mount judges by the state that it finds:
//
//     a manifest that is damaged               judges it, then renames it. Then: the next case
//     no db of this volume, and its log        judges the log; the import carries the cut
//     a db that is IMPORTING, and its log      removes the db, as after any import: as above
//     a db that is READY                       no rebuild: opens the log from the db's cut
//
// A log that was dropped on purpose, since the volume went on elsewhere, has the file "dropped"
// beside it until it is gone.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "platform/crash_point.h"
#include "platform/directory.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "volume/volume_internal.h"

#define DROPPED_FILE "dropped"

// A directory ROOT/tenants/T/N that holds, or held, the log of the db N.
struct log_place {
    char *directory;
    uint32_t db;
};

// The directory of a place, beside those of dbs, has eight hexadecimal digits for a name,
// which may all be decimal ones. No root gives out so many numbers.
#define DB_DIGITS_MAX 7u

static bool
is_db_name(const char *name, uint32_t *db_out)
{
    char again[16];
    if (strlen(name) > DB_DIGITS_MAX)
        return false;
    *db_out = (uint32_t)strtoul(name, NULL, 10);
    snprintf(again, sizeof(again), "%" PRIu32, *db_out);
    return *db_out != 0 && strcmp(name, again) == 0;
}

typedef int visit_log(void *argument, const struct log_place *place);

struct log_walk {
    const char *tenant; // its directory
    visit_log *visit;
    void *argument;
};

static int
visit_place(void *argument, const char *name)
{
    const struct log_walk *w = argument;
    struct log_place place;
    if (!is_db_name(name, &place.db))
        return 0;
    place.directory = memory_printf("%s/%s", w->tenant, name);
    int rc = w->visit(w->argument, &place);
    free(place.directory);
    return rc;
}

// Calls `visit` for each db's directory of this tenant.
static int
walk_logs(const struct volume *v, visit_log *visit, void *argument)
{
    CLEANUP(memory_free_auto)
    char *tenant = memory_printf("%s/tenants/%s", v->config.root, v->url.tenant);
    struct log_walk walk = {tenant, visit, argument};
    return directory_walk(tenant, visit_place, &walk);
}

// ---- which log is the volume's ------------------------------------------------------------------

struct log_search {
    const struct volume *v;
    const struct uuid *volume; // NULL: any
    uint32_t db;               // 0: none
    char *directory;           // of the log
    struct wal_survey survey;
    bool several; // writers
};

static bool
manifest_has(const struct volume *v, uint32_t id)
{
    struct manifest_reader *r;
    struct db_record db;
    if (!v->manifest || manifest_read_begin(v->manifest, &r) < 0)
        return false;
    int rc = manifest_read_db(r, (struct db_id){id}, &db);
    manifest_read_end(r);
    return rc == 0;
}

static int
note_log(void *argument, const struct log_place *place)
{
    struct log_search *x = argument;
    CLEANUP(memory_free_auto)
    char *dropped = memory_printf("%s/" DROPPED_FILE, place->directory);
    char *directory = memory_printf("%s/wal", place->directory);
    struct wal_survey survey = {0};
    int rc = wal_survey(directory, &survey);
    int is_dropped = rc == 0 ? path_exists(dropped) : 0;
    if (is_dropped < 0)
        rc = is_dropped;
    if (rc < 0)
        log_error("volume.rebuild", "cannot read %s: %s", directory, strerror(-rc));
    bool fits = rc == 0 && survey.segments > 0 && survey.has_volume && place->db > x->db &&
                !is_dropped && !manifest_has(x->v, place->db) &&
                (!x->volume || uuid_equal(&survey.volume, x->volume));
    if (fits) {
        free(x->directory);
        x->directory = directory;
        x->db = place->db;
        x->survey = survey;
    } else {
        free(directory);
    }
    return rc;
}

int
volume_find_former_root_id(void *volume, struct uuid *id_out)
{
    const struct volume *v = volume;
    struct log_search x = {.v = v};
    *id_out = (struct uuid){0};
    int rc = walk_logs(v, note_log, &x);
    free(x.directory);
    if (rc == 0 && x.survey.has_writer)
        *id_out = x.survey.writer;
    return rc;
}

// Walks the directories of all tenants of a root: `visit` gets the names in each.
struct tenants_walk {
    const char *tenants;
    const char *tenant; // its directory, while `visit` runs
    directory_visit *visit;
    void *argument;
};

static int
visit_tenant(void *argument, const char *name)
{
    struct tenants_walk *w = argument;
    CLEANUP(memory_free_auto) char *tenant = memory_printf("%s/%s", w->tenants, name);
    w->tenant = tenant;
    int rc = directory_walk(tenant, w->visit, w->argument);
    return rc == -ENOTDIR ? 0 : rc;
}

static int
note_db(void *argument, const char *name)
{
    uint32_t *highest = argument;
    uint32_t db;
    if (is_db_name(name, &db) && db > *highest)
        *highest = db;
    return 0;
}

// No other db gets a number that a directory of the root carries.
static int
find_highest_db(const struct volume *v, uint32_t *highest_out)
{
    CLEANUP(memory_free_auto) char *tenants = memory_printf("%s/tenants", v->config.root);
    CLEANUP(memory_free_auto) char *cache = memory_printf("%s/hot_cache", v->config.root);
    struct tenants_walk walk = {.tenants = tenants, .visit = note_db, .argument = highest_out};
    *highest_out = 0;
    int rc = directory_walk(tenants, visit_tenant, &walk);
    return rc < 0 ? rc : directory_walk(cache, note_db, highest_out);
}

// ---- judging ------------------------------------------------------------------------------------

struct judgement {
    struct log_search log;
    struct remote_continuation chain;
    struct buffer why_not; // empty: log and chain are everything
};

static void
judgement_free(struct judgement *j)
{
    free(j->log.directory);
    buffer_free(&j->why_not);
}

// 0, or why the log could not be read; that says nothing about its records.
static int
judge_log(struct volume *v, struct judgement *j)
{
    int rc = 0;
    const struct remote_continuation *c = &j->chain;
    struct wal_options options = {
        .ops = &file_ops_system,
        .directory = j->log.directory,
        .volume = c->volume,
        .writer = j->log.survey.writer,
        .limit_bytes = v->config.wal_limit_bytes,
    };
    BUFFER_AUTO text = {0};
    struct lsn end;
    if (!j->log.survey.has_writer)
        buffer_append_string(
            &j->why_not, "an older version wrote the log, which does not say whose it is");
    else if (!c->own)
        buffer_printf(&j->why_not, "%s went on with the volume", c->host);
    else if (!c->cut_is_known)
        buffer_append_string(
            &j->why_not, "the record that tells where the log goes on is no longer in the store");
    else
        rc = wal_verify(&options, c->cut, &end, &text);
    if (rc == -EBADMSG)
        buffer_printf(&j->why_not,
            "generation %" PRIu64 ", the newest in the store, ends at LSN %" PRIu64
            ", and the log from there on is not whole (it holds LSN %" PRIu64 " and later): %s",
            c->generation.v, c->cut.v, j->log.survey.oldest.v, buffer_string(&text));
    return rc == -EBADMSG ? 0 : rc;
}

static int
cannot_read_log(const struct volume *v, int rc, struct buffer *error)
{
    volume_error(
        error, "cannot read the write-ahead log below %s: %s", v->config.root, strerror(-rc));
    return rc;
}

static void
place_for_judging(struct volume *v, struct remote_place *place_out)
{
    *place_out = (struct remote_place){
        .store = v->remote,
        .tenant = v->url.tenant,
        .volume_number = v->url.volume_number,
        .scratch = v->config.root,
        .call_ms = v->config.read_deadline_ms,
    };
}

// Finds the volume's log and judges it. 0: j->log.db tells whether there is one.
static int
judge(struct volume *v, struct judgement *j, struct buffer *error)
{
    struct log_search any = {.v = v};
    *j = (struct judgement){.log = {.v = v}};
    int rc = walk_logs(v, note_log, &any);
    free(any.directory);
    if (rc < 0)
        return cannot_read_log(v, rc, error);
    if (any.db == 0)
        return 0;
    struct remote_place place;
    place_for_judging(v, &place);
    rc = remote_manifest_find_continuation(&place, &j->chain);
    if (rc == -ENOENT)
        return 0; // then none of the logs can be this volume's that anybody could go on with
    if (rc < 0)
        return volume_store_failed(v, error, "read the manifest of", rc);
    j->log.volume = &j->chain.volume;
    rc = walk_logs(v, note_log, &j->log);
    if (rc < 0)
        return cannot_read_log(v, rc, error);
    if (j->log.db != 0) {
        place.writer = j->log.survey.writer;
        rc = remote_manifest_find_continuation(&place, &j->chain);
    }
    if (rc < 0)
        return volume_store_failed(v, error, "read the manifest of", rc);
    rc = j->log.db != 0 ? judge_log(v, j) : 0;
    return rc < 0 ? cannot_read_log(v, rc, error) : 0;
}

static void
time_text(uint64_t ms, char out[32])
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    if (!gmtime_r(&t, &tm) || strftime(out, 32, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
        snprintf(out, 32, "%" PRIu64 " ms", ms);
}

static int
refuse(struct volume *v, struct judgement *j, const char *what, struct buffer *error)
{
    char when[32];
    time_text(j->chain.created_ms, when);
    volume_error(error,
        "%s. It cannot be made anew from the store and the log without losing changes: %s. The "
        "changes of this root after generation %" PRIu64 " (the newest record in the store is of "
        "%s) would be lost. Nothing was changed. Restore %s/manifest, or give those changes up "
        "with "
        "-o discard_unpublished, which sets manifest and log aside in the root",
        what, buffer_string(&j->why_not), j->chain.generation.v, when, v->config.root);
    log_error("volume.rebuild_refused", "%s", buffer_string(error));
    return -EBADMSG;
}

// ---- setting aside ------------------------------------------------------------------------------

// Renames DIRECTORY/name to DIRECTORY/name.aside-N, durably.
static int
set_aside(const char *directory, const char *name, char **aside_out)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", directory, name);
    int rc = -EEXIST;
    *aside_out = NULL;
    for (unsigned i = 1; rc == -EEXIST && i < 10000; i++) {
        free(*aside_out);
        *aside_out = memory_printf("%s.aside-%u", path, i);
        rc = renameat2(AT_FDCWD, path, AT_FDCWD, *aside_out, RENAME_NOREPLACE) < 0 ? -errno : 0;
    }
    return rc < 0 ? rc : file_sync_directory(&file_ops_system, directory);
}

struct lock_search {
    struct tenants_walk walk;
    const char *own;
    char *held;
};

static int
look_for_lock(void *argument, const char *name)
{
    struct lock_search *x = argument;
    CLEANUP(memory_free_auto) char *place = memory_printf("%s/%s", x->walk.tenant, name);
    CLEANUP(memory_free_auto) char *lock = memory_printf("%s/lock", place);
    if (strcmp(place, x->own) == 0)
        return 0;
    CLEANUP(file_close_auto)
    int fd = path_open(lock, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0)
        return file_error_is_shortage(fd) ? fd : 0;
    if (flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        x->held = memory_string(place);
    return x->held != NULL;
}

// The manifest belongs to all volumes of the root. Another mount may have it open: 1, and `held`.
static int
find_other_mount(const struct volume *v, struct lock_search *x)
{
    CLEANUP(memory_free_auto) char *tenants = memory_printf("%s/tenants", v->config.root);
    x->walk = (struct tenants_walk){.tenants = tenants, .visit = look_for_lock, .argument = x};
    return directory_walk(tenants, visit_tenant, &x->walk);
}

static int
refuse_other_mounts(struct volume *v, struct buffer *error)
{
    CLEANUP(memory_free_auto)
    char *own =
        volume_tenant_directory(v->config.root, v->url.tenant, v->place_name, v->url.volume_number);
    struct lock_search x = {.own = own};
    int rc = find_other_mount(v, &x);
    if (rc < 0)
        volume_error(error,
            "the manifest in %s is damaged, and whether another volume is mounted "
            "from this root cannot be told: %s",
            v->config.root, strerror(-rc));
    if (rc <= 0)
        return rc;
    volume_error(error,
        "the manifest in %s is damaged, and another volume is mounted from this root (%s): unmount "
        "it, then mount again",
        v->config.root, x.held);
    free(x.held);
    return -EBUSY;
}

int
volume_set_manifest_aside(struct volume *v, struct buffer *error)
{
    struct judgement j;
    CLEANUP(memory_free_auto)
    char *what =
        memory_printf("the manifest in %s is damaged (the log says where)", v->config.root);
    int rc = refuse_other_mounts(v, error);
    if (rc < 0)
        return rc;
    rc = judge(v, &j, error);
    if (rc == 0 && j.log.db == 0 && j.why_not.length == 0)
        buffer_append_string(&j.why_not, "no log of this volume is there");
    if (rc == 0 && j.why_not.length > 0 && !v->config.discard_unpublished)
        rc = refuse(v, &j, what, error);
    char *aside = NULL;
    if (rc == 0) {
        rc = set_aside(v->config.root, "manifest", &aside);
        if (rc < 0)
            volume_error(error, "cannot rename %s/manifest: %s", v->config.root, strerror(-rc));
    }
    if (rc == 0) {
        crash_point("volume.manifest_set_aside");
        volume_say(v, "%s; it is kept as %s, and a new one is made from the store%s", what, aside,
            j.why_not.length > 0 ? " alone" : " and the write-ahead log: nothing is lost");
    }
    free(aside);
    judgement_free(&j);
    return rc;
}

// ---- a db for a log -----------------------------------------------------------------------------

int
volume_find_rebuild(struct volume *v, struct volume_rebuild *rebuild_out, struct buffer *error)
{
    struct judgement j;
    *rebuild_out = (struct volume_rebuild){0};
    int rc = judge(v, &j, error);
    if (rc == 0 && j.log.db != 0 && j.why_not.length == 0) {
        *rebuild_out = (struct volume_rebuild){
            .db = {j.log.db}, .cut = j.chain.cut, .sequence = j.chain.sequence};
        log_warning("volume.rebuild",
            "the log of db %" PRIu32 " goes on at LSN %" PRIu64 " after generation %" PRIu64,
            j.log.db, j.chain.cut.v, j.chain.generation.v);
    } else if (rc == 0 && j.log.db != 0 && !v->config.discard_unpublished) {
        CLEANUP(memory_free_auto)
        char *what = memory_printf(
            "the manifest in %s does not know of this volume, whose log is there", v->config.root);
        rc = refuse(v, &j, what, error);
    } else if (rc == 0 && j.log.db != 0) {
        char *aside = NULL;
        BUFFER_AUTO directory = {0};
        path_directory(j.log.directory, &directory);
        rc = set_aside(buffer_string(&directory), "wal", &aside);
        if (rc < 0)
            volume_error(error, "cannot rename %s: %s", j.log.directory, strerror(-rc));
        else
            volume_say(v, "the write-ahead log is given up; it is kept as %s", aside);
        free(aside);
    }
    if (rc == 0 && rebuild_out->db.v == 0) {
        uint32_t highest;
        rc = find_highest_db(v, &highest);
        if (rc < 0)
            volume_error(error, "cannot list %s: %s", v->config.root, strerror(-rc));
        else if (highest == UINT32_MAX)
            rc = -EOVERFLOW;
        rebuild_out->above = (struct db_id){highest};
    }
    judgement_free(&j);
    return rc;
}

// ---- a log that is dropped ----------------------------------------------------------------------

int
volume_note_dropped(struct volume *v, bool dropped)
{
    CLEANUP(memory_free_auto)
    char *directory = memory_printf("%s/tenants/%s/%u", v->config.root, v->url.tenant, v->db.v);
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/" DROPPED_FILE, directory);
    if (dropped)
        return file_replace_whole(&file_ops_system, path, "\n", 1, 0600);
    int rc = path_unlink(path);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return file_sync_directory(&file_ops_system, directory);
}
