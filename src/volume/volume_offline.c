// SPDX-License-Identifier: Apache-2.0
#include "volume/volume_offline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/crash_point.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "retention/history.h"
#include "retention/retention_report.h"
#include "retention/snapshot.h"
#include "volume/volume_internal.h"

#define CALL_MS        60000u
#define CLAIM_ATTEMPTS 5

struct offline {
    const struct volume_config *config;
    struct store_url url;
    char *place_name;
    struct remote_store *store;
    char *directory;
    struct manifest *manifest;
    struct remote_place place;
};

// ---- the temporary root -------------------------------------------------------------------------

static void
offline_close(struct offline *o)
{
    manifest_close(o->manifest);
    if (o->directory && path_remove_tree(o->directory) < 0)
        log_warning("scratch.failed", "cannot remove %s", o->directory);
    remote_store_close(o->store);
    store_url_free(&o->url);
    free(o->place_name);
    free(o->directory);
    free((char *)o->place.scratch);
    *o = (struct offline){0};
}

static int
store_problem(const struct offline *o, const char *what, int rc, struct buffer *error)
{
    const char *text = remote_store_error();
    volume_error(
        error, "cannot %s %s: %s", what, o->config->source, text[0] ? text : strerror(-rc));
    return rc;
}

static int
make_directory(struct offline *o, struct buffer *error)
{
    const char *base = getenv("TMPDIR");
    o->directory = memory_printf("%s/ckptfs-XXXXXX", base && base[0] == '/' ? base : "/tmp");
    if (!mkdtemp(o->directory)) {
        int rc = -errno;
        volume_error(error, "cannot make a directory like %s: %s", o->directory, strerror(-rc));
        free(o->directory);
        o->directory = NULL;
        return rc;
    }
    CLEANUP(memory_free_auto) char *manifest = memory_printf("%s/manifest", o->directory);
    char *scratch = memory_printf("%s/scratch", o->directory);
    o->place.scratch = scratch;
    const struct manifest_options options = {.no_sync = true};
    int rc = path_make_directory(scratch, 0700);
    if (rc >= 0)
        rc = manifest_open(manifest, &options, &o->manifest);
    if (rc < 0)
        volume_error(error, "cannot use %s: %s", o->directory, strerror(-rc));
    return rc;
}

static int
offline_open(const struct volume_config *config, struct offline *o, struct buffer *error)
{
    *o = (struct offline){.config = config};
    int rc = volume_open_store(config, &o->url, &o->store, error);
    if (rc < 0)
        return rc;
    o->place_name = store_url_place(&o->url);
    rc = make_directory(o, error);
    if (rc < 0)
        return rc;
    o->place.store = o->store;
    o->place.tenant = o->url.tenant;
    o->place.volume_number = o->url.volume_number;
    o->place.writer = manifest_root_id(o->manifest);
    o->place.call_ms = CALL_MS;
    o->place.call.class = REMOTE_JOB;
    return 0;
}

// Fills a new db with a generation of the volume; `label` keeps several apart.
static int
import_into(struct offline *o, const char *label, struct generation at, struct db_record *db,
    struct buffer *error)
{
    *db = (struct db_record){.state = DB_STATE_IMPORTING, .volume_number = o->url.volume_number};
    snprintf(db->place, sizeof(db->place), "%s %s", o->place_name, label);
    snprintf(db->tenant, sizeof(db->tenant), "%s", o->url.tenant);
    int rc = manifest_create_db(o->manifest, db);
    if (rc < 0) {
        volume_error(error, "cannot write %s: %s", o->directory, strerror(-rc));
        return rc;
    }
    rc = remote_manifest_import(&o->place, o->manifest, db, at);
    if (rc == -ENOENT)
        volume_error(error, "there is no volume at %s", o->config->source);
    else if (rc < 0)
        return store_problem(o, "read", rc, error);
    return rc;
}

static int
refuse_claim(const struct offline *o, const struct remote_lease *lease, struct buffer *error)
{
    volume_error(error,
        "%s is in use by host %s, which last renewed its claim %" PRIu64
        " s ago; unmount it there, or give -o takeover",
        o->config->source, lease->host[0] ? lease->host : "unknown", lease->age_ms / 1000);
    return -EBUSY;
}

// Imports the newest generation and claims the volume.
static int
claim_newest(struct offline *o, struct db_record *db, struct buffer *error)
{
    for (int i = 0; i < CLAIM_ATTEMPTS; i++) {
        struct remote_lease lease = {0};
        char label[16];
        snprintf(label, sizeof(label), "newest %d", i);
        int rc = import_into(o, label, (struct generation){0}, db, error);
        if (rc < 0)
            return rc;
        rc = remote_manifest_claim(
            &o->place, o->manifest, db, o->config->lease_ttl_ms, o->config->takeover, &lease);
        if (rc == 0)
            return 0;
        if (rc == -EBUSY)
            return refuse_claim(o, &lease, error);
        if (rc != -ESTALE)
            return store_problem(o, "claim", rc, error);
    }
    volume_error(error, "%s: other hosts keep claiming it; try again", o->config->source);
    return -EBUSY;
}

static void
give_back(struct offline *o, const struct db_record *db)
{
    if (remote_lease_write(&o->place, db->epoch, o->config->lease_ttl_ms, true) < 0)
        log_warning("volume.lease", "the claim could not be released; it runs out by itself");
}

// Which generation `text` means; its pin holds it while it is worked on.
static int
resolve(struct offline *o, const char *text, struct remote_pin *pin, struct buffer *error)
{
    BUFFER_AUTO problem = {0};
    int rc = snapshot_resolve(&o->place, text, &pin->generation, &problem);
    if (rc == 0)
        rc = snapshot_pin(&o->place, pin, &problem);
    if (rc < 0)
        volume_error(error, "%s: %s", o->config->source,
            problem.length > 0 ? buffer_string(&problem) : "there is no such volume");
    return rc;
}

// ---- rollback -----------------------------------------------------------------------------------

static int
roll_back(struct offline *o, const struct remote_pin *pin, struct generation *generation_out,
    struct buffer *error)
{
    struct db_record now;
    struct db_record then;
    int rc = claim_newest(o, &now, error);
    if (rc < 0)
        return rc;
    rc = import_into(o, "then", pin->generation, &then, error);
    if (rc == 0) {
        rc = history_fold_equal(o->manifest, now.id, then.id);
        if (rc == -EALREADY)
            volume_error(error, "%s equals generation %" PRIu64 " already: nothing was done",
                o->config->source, pin->generation.v);
        else if (rc == 0)
            rc = history_publish(&o->place, o->manifest, now.id, generation_out);
        if (rc < 0 && rc != -EALREADY)
            (void)store_problem(o, "roll back", rc, error);
    }
    give_back(o, &now);
    return rc;
}

int
volume_rollback(const struct volume_config *config, const char *to,
    struct generation *generation_out, struct buffer *error)
{
    struct offline o;
    struct remote_pin pin = {.kind = PIN_READER};
    struct uuid id = random_uuid();
    uuid_to_string(&id, pin.name);
    int rc = offline_open(config, &o, error);
    if (rc == 0)
        rc = resolve(&o, to, &pin, error);
    if (rc == 0) {
        rc = roll_back(&o, &pin, generation_out, error);
        int delete_rc = remote_pin_delete(&o.place, &pin);
        if (delete_rc < 0)
            log_warning("retention.pin_left", "a pin stays; it runs out by itself");
    }
    offline_close(&o);
    return rc;
}

// ---- forks --------------------------------------------------------------------------------------

struct fork {
    struct offline parent, child;
    struct db_record parent_db, child_db;
    struct remote_pin pin;
    struct uuid volume; // the child's
    bool goes_on;       // the child was made, and whoever made it died before it had a generation
    struct volume_parent made_of;
};

static int
check_places(struct fork *f, const char *new_source, struct buffer *error)
{
    if (strcmp(f->parent.place_name, f->child.place_name) != 0) {
        volume_error(error,
            "a fork lies in the store of its parent: %s and %s are not in the same place",
            f->parent.config->source, new_source);
        return -EXDEV;
    }
    struct manifest_record_header origin;
    struct remote_generations g = {0};
    int rc = remote_manifest_origin(&f->child.place, &origin);
    if (rc == -ENOENT)
        return 0;
    if (rc == 0 && origin.has_parent)
        rc = remote_generations_read(&f->child.place, &g);
    bool empty = origin.has_parent && g.head.v == 0;
    remote_generations_free(&g);
    if (rc < 0)
        return store_problem(&f->child, "look at", rc, error);
    if (!empty) {
        volume_error(error, "%s holds a volume already", new_source);
        return -EEXIST;
    }
    f->goes_on = true;
    f->volume = origin.volume;
    f->made_of = origin.parent;
    return 0;
}

static int
check_same_parent(const struct fork *f, struct buffer *error)
{
    if (uuid_equal(&f->made_of.volume, &f->parent_db.volume) &&
        f->made_of.generation.v == f->parent_db.published.v)
        return 0;
    volume_error(error,
        "%s is a fork of generation %" PRIu64
        " of a volume, which was broken off before it was written; say the same once more",
        f->child.config->source, f->made_of.generation.v);
    return -EEXIST;
}

// The child's chain: CREATE with its parent, a claim, and one generation.
static int
make_child(struct fork *f, struct generation *generation_out, struct buffer *error)
{
    const struct volume_parent parent = {
        .volume = f->parent_db.volume,
        .sequence = f->parent_db.remote_sequence,
        .hash = f->parent_db.remote_hash,
        .generation = f->parent_db.published,
    };
    // The names' places in directories follow from the parent's key.
    int rc = f->goes_on ? check_same_parent(f, error)
                        : remote_manifest_create_fork(&f->child.place, &f->volume,
                              &f->parent_db.name_key, &retention_default, &parent);
    if (rc == -EEXIST && f->goes_on)
        return rc;
    if (rc == -EEXIST) {
        volume_error(error, "%s holds a volume already", f->child.config->source);
        return rc;
    }
    if (rc < 0)
        return store_problem(&f->child, "create", rc, error);
    crash_point("fork.created");
    rc = claim_newest(&f->child, &f->child_db, error);
    if (rc < 0)
        return rc;
    rc = history_fold_fork(f->child.manifest, f->child_db.id, f->parent_db.id, &f->parent_db);
    if (rc == 0)
        rc = history_publish(&f->child.place, f->child.manifest, f->child_db.id, generation_out);
    if (rc < 0)
        (void)store_problem(&f->child, "write", rc, error);
    give_back(&f->child, &f->child_db);
    return rc;
}

static int
fork_steps(struct fork *f, const char *at, const char *new_source,
    struct generation *generation_out, struct buffer *error)
{
    f->volume = random_uuid();
    int rc = check_places(f, new_source, error);
    if (rc < 0)
        return rc;
    f->pin.kind = PIN_FORK;
    uuid_to_string(&f->volume, f->pin.name);
    rc = resolve(&f->parent, at, &f->pin, error);
    if (rc < 0)
        return rc;
    crash_point("fork.pinned");
    // Into the child's manifest, where the fold finds it.
    struct offline both = f->parent;
    both.manifest = f->child.manifest;
    rc = import_into(&both, "parent", f->pin.generation, &f->parent_db, error);
    if (rc == 0)
        rc = make_child(f, generation_out, error);
    // A child that may have been made needs the pin; only a place that was taken does not.
    if (rc == -EEXIST && !f->goes_on && remote_pin_delete(&f->parent.place, &f->pin) < 0)
        log_warning("retention.pin_left", "the pin of a fork that was not made stays");
    return rc;
}

static int
newest_text(struct offline *o, char text[24], struct buffer *error)
{
    struct remote_generations g;
    int rc = remote_generations_read(&o->place, &g);
    if (rc == -ENOENT || (rc == 0 && g.head.v == 0)) {
        volume_error(error, "%s has no published generation", o->config->source);
        rc = -ENOENT;
    } else if (rc < 0) {
        (void)store_problem(o, "read", rc, error);
    } else {
        snprintf(text, 24, "%" PRIu64, g.head.v);
    }
    remote_generations_free(&g);
    return rc;
}

int
volume_fork(const struct volume_config *config, const char *at, const char *new_source,
    struct generation *generation_out, struct buffer *error)
{
    struct fork *f = memory_alloc_zero(sizeof(*f));
    struct volume_config child;
    char newest[24];
    volume_config_copy(&child, config);
    free(child.source);
    child.source = memory_string(new_source);
    int rc = offline_open(config, &f->parent, error);
    if (rc == 0)
        rc = offline_open(&child, &f->child, error);
    if (rc == 0 && !at) {
        rc = newest_text(&f->parent, newest, error);
        at = newest;
    }
    if (rc == 0)
        rc = fork_steps(f, at, new_source, generation_out, error);
    if (f->child.config)
        offline_close(&f->child);
    offline_close(&f->parent);
    volume_config_free(&child);
    free(f);
    return rc;
}

// ---- what volume_operation.c does on a mount ----------------------------------------------------

static int
collect_offline(struct offline *o, struct db_record *db, unsigned flags, struct buffer *out,
    struct buffer *error)
{
    struct report_gc report = {
        .json = flags & VOLUME_OPERATION_JSON,
        .dry_run = flags & VOLUME_OPERATION_DRY_RUN,
    };
    struct collect_result result;
    const struct collect_options options = {
        .place = &o->place,
        .manifest = o->manifest,
        .db = db->id,
        .flags = COLLECT_PRUNE | (report.dry_run ? COLLECT_DRY_RUN : 0) |
                 (flags & VOLUME_OPERATION_SWEEP ? COLLECT_SWEEP : 0),
        .event = report_gc_event_of,
        .argument = &report,
    };
    int rc = collect_run(&options, &result);
    if (rc < 0) {
        buffer_free(&report.events);
        return store_problem(o, "collect", rc, error);
    }
    report_gc_end(&report, &result, out);
    return 0;
}

static int
set_policy(struct offline *o, struct db_record *db, const char *text, struct buffer *error)
{
    struct change c = {.kind = CHANGE_PUT_RETENTION};
    int rc = retention_parse(text, &c.retention, error);
    if (rc < 0)
        return rc;
    rc = remote_manifest_learn_history(&o->place, o->manifest, db->id);
    if (rc == 0)
        rc = remote_manifest_tell(&o->place, o->manifest, db->id, &c, 1, 0);
    return rc < 0 ? store_problem(o, "write", rc, error) : 0;
}

// Those that need the volume's state, and those of them that change it.
static int
run_with_state(struct offline *o, unsigned kind, unsigned flags, const char *argument,
    struct buffer *out, struct buffer *error)
{
    struct db_record db;
    const bool json = flags & VOLUME_OPERATION_JSON;
    bool sets = kind == VOLUME_OPERATION_RETENTION && argument[0];
    bool owns = kind == VOLUME_OPERATION_GC || sets;
    int rc = owns ? claim_newest(o, &db, error)
                  : import_into(o, "newest", (struct generation){0}, &db, error);
    if (rc < 0)
        return rc;
    const struct retention_scope scope = {&o->place, o->manifest, db.id};
    if (kind == VOLUME_OPERATION_GC)
        rc = collect_offline(o, &db, flags, out, error);
    else if (sets)
        rc = set_policy(o, &db, argument, error);
    if (rc == 0 && kind == VOLUME_OPERATION_RETENTION)
        rc = report_policy(&scope, json, out);
    else if (rc == 0 && kind == VOLUME_OPERATION_GENERATIONS)
        rc = report_generations(&scope, json, out);
    else if (rc == 0 && kind == VOLUME_OPERATION_SNAPSHOTS)
        rc = report_snapshots(&scope, json, out);
    if (rc < 0 && error->length == 0)
        buffer_append_string(error, buffer_string(out));
    if (owns)
        give_back(o, &db);
    return rc;
}

static int
run_snapshot(struct offline *o, unsigned kind, unsigned flags, const char *name, const char *at,
    struct buffer *out, struct buffer *error)
{
    char newest[24];
    struct generation generation;
    int rc = 0;
    if (kind == VOLUME_OPERATION_SNAPSHOT_DROP)
        return snapshot_drop(&o->place, name, error);
    if (kind == VOLUME_OPERATION_SNAPSHOT_CREATE) {
        if (!at) {
            rc = newest_text(o, newest, error);
            at = newest;
        }
        if (rc == 0)
            rc = snapshot_resolve(&o->place, at, &generation, error);
        if (rc == 0)
            rc = snapshot_create(&o->place, name, generation, error);
        if (rc < 0)
            return rc;
        if (!(flags & VOLUME_OPERATION_JSON)) {
            buffer_printf(out, "snapshot %s is generation %" PRIu64 "\n", name, generation.v);
            return 0;
        }
    }
    rc = snapshot_show(&o->place, name, out);
    if (rc == -ENOENT)
        volume_error(error, "there is no snapshot %s", name);
    else if (rc < 0)
        (void)store_problem(o, "read", rc, error);
    return rc;
}

int
volume_offline_operation(const struct volume_config *config, unsigned kind, unsigned flags,
    const char *argument, const char *at, struct buffer *out, struct buffer *error)
{
    struct offline o;
    int rc = offline_open(config, &o, error);
    bool snapshot = kind == VOLUME_OPERATION_SNAPSHOT_CREATE ||
                    kind == VOLUME_OPERATION_SNAPSHOT_DROP ||
                    kind == VOLUME_OPERATION_SNAPSHOT_SHOW;
    if (rc == 0 && snapshot)
        rc = run_snapshot(&o, kind, flags, argument, at, out, error);
    else if (rc == 0)
        rc = run_with_state(&o, kind, flags, argument, out, error);
    offline_close(&o);
    return rc;
}
