// SPDX-License-Identifier: Apache-2.0
// Forks: a volume that is made out of a generation of another one (doc/retention.md, Forks).
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "remote/remote_destroy.h"
#include "retention/detach.h"
#include "retention/history.h"
#include "retention/retention_policy.h"
#include "retention/snapshot.h"
#include "volume/volume_internal.h"
#include "volume/volume_offline.h"
#include "volume/volume_offline_internal.h"

struct fork {
    struct offline parent, child;
    struct db_record parent_db, child_db;
    struct remote_pin pin;
    struct uuid volume; // the child's
    bool goes_on;       // the child exists: an earlier command died before it had a generation
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
    bool empty = rc == 0 && origin.has_parent && g.head.v == 0;
    remote_generations_free(&g);
    if (rc < 0)
        return offline_store_problem(&f->child, "look at", rc, error);
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

// The pin of a fork that does not exist counts for a day. This process may have been asleep for
// longer, while the parent was destroyed. So it pins and looks once more when the child's first
// record is there: the destroyer looks for that record after it has made its mark, and one of the
// two sees the other.
//
// A sweep of the parent may have looked for that record before, and be about to delete the pin. So
// the pin has another name now, too, which a sweep deletes only when the fork has gone.
static int
look_again(struct fork *f, struct buffer *error)
{
    BUFFER_AUTO problem = {0};
    struct manifest_record_header origin;
    const struct remote_pin made = remote_pin_of_made(&f->pin);
    int rc = remote_pin_put(&f->parent.place, &made);
    if (rc == 0)
        crash_point("fork.pinned_again");
    if (rc == 0)
        rc = snapshot_pin(&f->parent.place, &f->pin, &problem);
    if (rc == 0)
        rc = remote_manifest_origin(&f->parent.place, &origin);
    // A new volume may lie where the parent was.
    if (rc == 0 && !uuid_equal(&origin.volume, &f->parent_db.volume)) {
        rc = -ENOENT;
        if (remote_pin_delete(&f->parent.place, &f->pin) < 0)
            log_warning("retention.pin_left", "the pin of a fork that was not made stays");
    }
    bool gone = rc == -ENOENT || rc == -ESTALE || rc == -EIDRM;
    if (gone && remote_pin_delete(&f->parent.place, &made) < 0)
        log_warning("retention.pin_left", "the pin of a fork that was not made stays");
    if (rc < 0)
        volume_error(error,
            "%s has gone or changed while %s was being made (%s). The new volume is empty: "
            "destroy it, or say the same once more",
            f->parent.config->source, f->child.config->source,
            problem.length > 0 ? buffer_string(&problem) : strerror(-rc));
    return rc;
}

// ---- the end ------------------------------------------------------------------------------------

// The answer to the creation of the generation may be lost, and everything after it is of use to
// this command alone: the bucket tells whether the fork is there.
static int
judge_failure(struct fork *f, int rc, struct generation *generation_out, struct buffer *error)
{
    const char *source = f->child.config->source;
    struct remote_generations g = {0};
    BUFFER_AUTO cause = {0};
    const char *text = remote_store_error();
    buffer_append_string(&cause, text[0] ? text : strerror(-rc));
    const char *why = buffer_string(&cause);
    int found = remote_generations_read(&f->child.place, &g);
    *generation_out = g.head;
    bool made = g.head.v != 0;
    remote_generations_free(&g);
    if (found == 0 && made) {
        volume_error(error, "%s is complete and can be used, although the command failed then: %s",
            source, why);
        return 0;
    }
    if (found == 0)
        volume_error(error,
            "%s was begun and is empty (%s). Say the same once more to finish it, or destroy it",
            source, why);
    else
        volume_error(error,
            "%s may be complete or empty, the store does not tell (%s). Say the same once more: "
            "the "
            "command finishes it, or says that it is there",
            source, why);
    return rc;
}

// A sweep of the parent destroys a fork that stays empty for a day. If this process was asleep for
// so long just before it claimed the fork, its records lie where no volume is any more.
static int
look_at_child(struct fork *f, struct buffer *error)
{
    struct manifest_record_header origin;
    int rc = remote_manifest_origin(&f->child.place, &origin);
    if (rc == 0 && uuid_equal(&origin.volume, &f->volume))
        return 0;
    // Without an answer the fork counts as made.
    if (rc != 0 && rc != -ENOENT)
        return 0;
    struct remote_destroyed done;
    BUFFER_AUTO holders = {0};
    const struct remote_destroy_options options = {.takeover = true};
    int gone = rc == 0 ? 0 : remote_manifest_destroy(&f->child.place, &options, &holders, &done);
    volume_error(error, "%s was destroyed while it was being made, which took too long%s",
        f->child.config->source,
        gone < 0 ? ": destroy what is left of it" : "; say the same once more");
    return -EIDRM;
}

// Hosts can do without a catalog, since the record of the fork's generation says all.
static void
note_missing_catalog(struct fork *f, struct buffer *error)
{
    struct manifest_reader *r;
    struct db_record db;
    if (manifest_read_begin(f->child.manifest, &r) < 0)
        return;
    int rc = manifest_read_db(r, f->child_db.id, &db);
    manifest_read_end(r);
    if (rc == 0 && db.catalog_sequence == 0)
        volume_error(error,
            "%s is complete and can be used, but its catalog was not written (%s). There is "
            "nothing to do: the first host that publishes to it writes one",
            f->child.config->source, remote_store_error());
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
        return offline_store_problem(&f->child, "create", rc, error);
    crash_point("fork.created");
    rc = look_again(f, error);
    if (rc < 0)
        return rc;
    rc = offline_claim(&f->child, &f->child_db, error);
    if (rc < 0)
        return rc;
    rc = history_fold_fork(f->child.manifest, f->child_db.id, f->parent_db.id, &f->parent_db);
    if (rc == 0)
        rc = history_publish(&f->child.place, f->child.manifest, f->child_db.id, generation_out);
    if (rc < 0)
        rc = judge_failure(f, rc, generation_out, error);
    else
        note_missing_catalog(f, error);
    if (rc == 0)
        rc = look_at_child(f, error);
    if (rc != -EIDRM)
        offline_give_back(&f->child, &f->child_db);
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
    CLEANUP(memory_free_auto)
    char *holder = memory_printf("%s@%" PRIu32, f->child.url.tenant, f->child.url.volume_number);
    f->pin.holder = holder;
    f->pin.kind = PIN_FORK;
    uuid_to_string(&f->volume, f->pin.name);
    rc = offline_resolve(&f->parent, at, &f->pin, error);
    if (rc < 0)
        return rc;
    crash_point("fork.pinned");
    // Into the child's manifest, where the fold finds it.
    struct offline both = f->parent;
    both.manifest = f->child.manifest;
    rc = offline_import(&both, "parent", f->pin.generation, &f->parent_db, error);
    if (rc == 0)
        rc = make_child(f, generation_out, error);
    // A child that may have been made needs the pin; only a place that was taken does not.
    if (rc == -EEXIST && !f->goes_on && remote_pin_delete(&f->parent.place, &f->pin) < 0)
        log_warning("retention.pin_left", "the pin of a fork that was not made stays");
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
        rc = offline_newest_text(&f->parent, newest, error);
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

// ---- detaching ----------------------------------------------------------------------------------

struct detaching {
    struct offline *o;
    const struct volume_progress *progress;
    struct db_record db;
    struct volume_parent parent;
    struct volume_detached *out;
};

static int
tell_copied(void *argument, const struct detach_counts *counts)
{
    const struct detaching *d = argument;
    return d->progress->tell(d->progress->argument, "blobs", counts->blobs, 0);
}

static int
find_parent(struct detaching *d, struct buffer *error)
{
    struct manifest_record_header origin;
    int rc = remote_manifest_origin(&d->o->place, &origin);
    if (rc == -ENOENT)
        volume_error(error, "there is no volume at %s", d->o->config->source);
    else if (rc < 0)
        return offline_store_problem(d->o, "read", rc, error);
    if (rc == 0 && !origin.has_parent) {
        volume_error(error, "%s is no fork", d->o->config->source);
        rc = -EINVAL;
    }
    if (rc == 0)
        d->parent = origin.parent;
    return rc;
}

static int
copy_and_publish(struct detaching *d, struct buffer *error)
{
    const struct detach_options options = {
        .place = &d->o->place,
        .manifest = d->o->manifest,
        .db = d->db.id,
        .progress = d->progress ? tell_copied : NULL,
        .argument = d,
    };
    struct detach_counts counts;
    d->out->generation = d->db.published;
    int rc = detach_copy(&options, &counts);
    d->out->copied = counts.copied;
    d->out->copied_bytes = counts.copied_bytes;
    if (rc == 0)
        rc = history_fold_own(d->o->manifest, d->db.id);
    if (rc == 0)
        rc = history_publish(&d->o->place, d->o->manifest, d->db.id, &d->out->generation);
    if (rc == -ECANCELED)
        volume_error(error, "interrupted; say the same once more to go on");
    else if (rc < 0 && rc != -EALREADY)
        return offline_store_problem(d->o, "detach", rc, error);
    if (rc == 0)
        crash_point("detach.published");
    return rc == -EALREADY ? 0 : rc;
}

static int
detach(struct detaching *d, struct buffer *error)
{
    int rc = copy_and_publish(d, error);
    if (rc < 0)
        return rc;
    rc = detach_find_need(&d->o->place, d->o->manifest, d->out->generation, &d->out->needed_by);
    if (rc < 0)
        return offline_store_problem(d->o, "read", rc, error);
    if (d->out->needed_by.v != 0)
        return 0;
    uint64_t released;
    rc = remote_pins_release(&d->o->place, &d->db.volume, &released);
    return rc < 0 ? offline_store_problem(d->o, "take the pin in the parent of", rc, error) : 0;
}

int
volume_detach(const struct volume_config *config, const struct volume_progress *progress,
    struct volume_detached *detached_out, struct buffer *error)
{
    struct offline o;
    struct detaching d = {.o = &o, .progress = progress, .out = detached_out};
    *detached_out = (struct volume_detached){0};
    int rc = offline_open(config, &o, error);
    if (rc == 0)
        rc = find_parent(&d, error);
    if (rc == 0)
        rc = offline_claim(&o, &d.db, error);
    if (rc == 0) {
        rc = detach(&d, error);
        offline_give_back(&o, &d.db);
    }
    offline_close(&o);
    return rc;
}
