// SPDX-License-Identifier: Apache-2.0
// Filling a new place in a store from a storage root (volume_offline.h, volume_push).
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "platform/crash_point.h"
#include "platform/file.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/random.h"
#include "retention/history.h"
#include "retention/push.h"
#include "retention/retention_policy.h"
#include "volume/volume_internal.h"
#include "volume/volume_offline.h"
#include "volume/volume_offline_internal.h"
#include "volume/volume_root.h"

struct pushing {
    struct offline *o; // the new place
    const struct volume_push_request *request;
    struct volume_pushed *out;
    struct volume_root root;
    char *hot_cache;
    struct push push;
    struct db_record from;
    int lock_fd; // of the volume in the root
    struct uuid volume;
    bool goes_on; // a push that was broken off has made the volume
};

// ---- the root -----------------------------------------------------------------------------------

struct choice {
    const struct store_url *url;
    struct db_record found;
    struct buffer names;
    unsigned count;
    bool exact; // found has the tenant and the number of the new place
};

static int
choose_db(void *argument, const struct db_record *db)
{
    struct choice *c = argument;
    if (db->state != DB_STATE_READY)
        return 0;
    bool same =
        strcmp(db->tenant, c->url->tenant) == 0 && db->volume_number == c->url->volume_number;
    c->count++;
    buffer_printf(&c->names, " %s/%s@%" PRIu32, db->place, db->tenant, db->volume_number);
    if (c->count == 1 || same)
        c->found = *db;
    c->exact |= same;
    return 0;
}

// The only volume of the root, or the one with the name of the new place.
static int
find_db(struct pushing *p, struct buffer *error)
{
    struct manifest_reader *r;
    struct choice c = {.url = &p->o->url};
    int rc = manifest_read_begin(p->push.root, &r);
    if (rc == 0) {
        rc = manifest_read_dbs(r, choose_db, &c);
        manifest_read_end(r);
    }
    if (rc < 0)
        volume_error(error, "cannot read the manifest in %s: %s", p->root.path, strerror(-rc));
    else if (c.count == 0)
        volume_error(error, "%s holds no volume", p->root.path);
    else if (c.count > 1 && !c.exact)
        volume_error(error,
            "%s holds several volumes (%s ); give the one that is meant the same name in the new "
            "place",
            p->root.path, buffer_string(&c.names));
    if (rc == 0 && (c.count == 0 || (c.count > 1 && !c.exact)))
        rc = -ENOENT;
    p->from = c.found;
    p->push.from = c.found.id;
    buffer_free(&c.names);
    return rc;
}

static int
look_at_log(struct pushing *p, const char *directory, struct buffer *error)
{
    struct wal_survey survey;
    struct lsn end = p->from.cut;
    BUFFER_AUTO text = {0};
    int rc = wal_survey(directory, &survey);
    const struct wal_options options = {
        .ops = &file_ops_system,
        .directory = directory,
        .volume = p->from.volume,
        .writer = manifest_root_id(p->push.root),
        .limit_bytes = p->o->config->wal_limit_bytes,
    };
    if (rc == 0 && survey.segments > 0)
        rc = wal_verify(&options, p->from.cut, &end, &text);
    if (rc == 0 && end.v == p->from.cut.v)
        return 0;
    p->out->log_left = true;
    if (p->request->partial)
        return 0;
    volume_error(error,
        "the write-ahead log in %s %s%s. Mount the volume from this root and unmount it, for which "
        "the bucket may be empty; or give --partial to do without the log",
        p->root.path, rc == 0 ? "holds changes that are in no generation yet" : "cannot be read: ",
        buffer_string(&text));
    return -EBUSY;
}

// No process mounts the volume from the root meanwhile, and the manifest has all that its log
// holds.
static int
hold_root(struct pushing *p, struct buffer *error)
{
    const struct db_record *db = &p->from;
    CLEANUP(memory_free_auto)
    char *directory =
        volume_tenant_directory(p->root.path, db->tenant, db->place, db->volume_number);
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/lock", directory);
    CLEANUP(memory_free_auto)
    char *wal = memory_printf("%s/tenants/%s/%" PRIu32 "/wal", p->root.path, db->tenant, db->id.v);
    p->lock_fd = path_open(path, O_RDWR | O_NONBLOCK, 0);
    if (p->lock_fd >= 0 && flock(p->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        volume_error(error, "the volume is mounted from %s: unmount it first", p->root.path);
        return -EBUSY;
    }
    return look_at_log(p, wal, error);
}

static int
open_root(struct pushing *p, struct buffer *error)
{
    int rc = volume_root_open(p->request->root, &p->root, error);
    if (rc < 0)
        return rc;
    p->push.root = p->root.manifest;
    p->hot_cache = memory_printf("%s/hot_cache", p->root.path);
    p->push.hot_cache = p->hot_cache;
    rc = find_db(p, error);
    return rc < 0 ? rc : hold_root(p, error);
}

// ---- the new place ------------------------------------------------------------------------------

static int
check_place(struct pushing *p, struct buffer *error)
{
    struct manifest_record_header origin;
    struct remote_generations g = {0};
    p->volume = random_uuid();
    int rc = remote_manifest_origin(&p->o->place, &origin);
    if (rc == -ENOENT)
        return 0;
    if (rc == 0)
        rc = remote_generations_read(&p->o->place, &g);
    bool empty = g.head.v == 0;
    remote_generations_free(&g);
    if (rc < 0)
        return offline_store_problem(p->o, "look at", rc, error);
    // Only a volume and its forks have the same key.
    if (!empty || origin.has_parent || !uuid_equal(&origin.name_key, &p->from.name_key)) {
        volume_error(error, "%s holds a volume already", p->o->config->source);
        return -EEXIST;
    }
    p->goes_on = true;
    p->volume = origin.volume;
    return 0;
}

static int
tell(void *argument, const char *what, uint64_t done, uint64_t total)
{
    const struct volume_progress *progress = argument;
    return progress->tell(progress->argument, what, done, total);
}

static int
upload(struct pushing *p, struct buffer *out, struct buffer *error)
{
    p->push.place = &p->o->place;
    p->push.progress = p->request->progress ? tell : NULL;
    p->push.argument = (void *)p->request->progress;
    int rc = push_upload(&p->push);
    p->out->blobs = p->push.blobs;
    p->out->bytes = p->push.bytes;
    p->out->uploaded = p->push.uploaded;
    p->out->lost = p->push.lost.damaged;
    for (const struct verify_damage *d = p->push.lost.damages; d; d = d->next)
        offline_print_damage(d, out);
    if (rc == -ECANCELED)
        volume_error(error, "interrupted; say the same once more to go on");
    else if (rc < 0)
        return offline_store_problem(p->o, "fill", rc, error);
    if (rc == 0 && p->out->lost > 0 && !p->request->partial) {
        volume_error(error,
            "%" PRIu64 " blobs are lost: the bucket had them, and %s has not. With --partial the "
            "rest is pushed, and the parts of files that need them are marked as lost",
            p->out->lost, p->root.path);
        rc = -ENODATA;
    }
    return rc;
}

static int
make_volume(struct pushing *p, struct buffer *error)
{
    struct db_record db;
    struct retention_policy policy = retention_default;
    struct manifest_reader *r;
    int rc = manifest_read_begin(p->push.root, &r);
    if (rc == 0) {
        rc = manifest_read_retention(r, p->from.id, &policy);
        manifest_read_end(r);
    }
    if (rc == -ENOENT)
        rc = 0;
    // The names' places in directories follow from the old volume's key.
    if (rc == 0 && !p->goes_on)
        rc = remote_manifest_create(&p->o->place, &p->volume, &p->from.name_key, &policy);
    if (rc < 0)
        return offline_store_problem(p->o, "create", rc, error);
    crash_point("push.created");
    rc = offline_claim(p->o, &db, error);
    if (rc < 0)
        return rc;
    rc = push_fold(&p->push, p->o->manifest, db.id);
    if (rc == 0)
        rc = history_publish(&p->o->place, p->o->manifest, db.id, &p->out->generation);
    if (rc < 0)
        (void)offline_store_problem(p->o, "write", rc, error);
    offline_give_back(p->o, &db);
    return rc;
}

int
volume_push(const struct volume_config *config, const struct volume_push_request *request,
    struct volume_pushed *pushed_out, struct buffer *out, struct buffer *error)
{
    struct offline o;
    struct pushing p = {.o = &o, .request = request, .out = pushed_out, .lock_fd = -1};
    *pushed_out = (struct volume_pushed){0};
    int rc = offline_open(config, &o, error);
    if (rc == 0)
        rc = open_root(&p, error);
    if (rc == 0)
        rc = check_place(&p, error);
    if (rc == 0)
        rc = upload(&p, out, error);
    if (rc == 0)
        rc = make_volume(&p, error);
    push_free(&p.push);
    file_close_auto(&p.lock_fd);
    volume_root_close(&p.root);
    free(p.hot_cache);
    offline_close(&o);
    return rc;
}
