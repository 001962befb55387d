// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "retention/snapshot.h"
#include "volume/volume_internal.h"
#include "volume/volume_offline_internal.h"

#define CALL_MS 60000u

// ---- the temporary root -------------------------------------------------------------------------

void
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

int
offline_store_problem(const struct offline *o, const char *what, int rc, struct buffer *error)
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

int
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
int
offline_import(struct offline *o, const char *label, struct generation at, struct db_record *db,
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
        return offline_store_problem(o, "read", rc, error);
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
int
offline_claim(struct offline *o, struct db_record *db, struct buffer *error)
{
    for (int i = 0; i < CLAIM_ATTEMPTS; i++) {
        struct remote_lease lease = {0};
        char label[16];
        snprintf(label, sizeof(label), "newest %d", i);
        int rc = offline_import(o, label, (struct generation){0}, db, error);
        if (rc < 0)
            return rc;
        rc = remote_manifest_claim(
            &o->place, o->manifest, db, o->config->lease_ttl_ms, o->config->takeover, &lease);
        if (rc == 0)
            return 0;
        if (rc == -EBUSY)
            return refuse_claim(o, &lease, error);
        if (rc != -ESTALE)
            return offline_store_problem(o, "claim", rc, error);
    }
    volume_error(error, "%s: other hosts keep claiming it; try again", o->config->source);
    return -EBUSY;
}

void
offline_give_back(struct offline *o, const struct db_record *db)
{
    if (remote_lease_write(&o->place, db->epoch, o->config->lease_ttl_ms, true) < 0)
        log_warning("volume.lease", "the claim could not be released; it runs out by itself");
}

// Which generation `text` means; its pin holds it while it is worked on.
int
offline_resolve(struct offline *o, const char *text, struct remote_pin *pin, struct buffer *error)
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

int
offline_newest_text(struct offline *o, char text[24], struct buffer *error)
{
    struct remote_generations g;
    int rc = remote_generations_read(&o->place, &g);
    if (rc == -ENOENT || (rc == 0 && g.head.v == 0)) {
        volume_error(error, "%s has no published generation", o->config->source);
        rc = -ENOENT;
    } else if (rc < 0) {
        (void)offline_store_problem(o, "read", rc, error);
    } else {
        snprintf(text, 24, "%" PRIu64, g.head.v);
    }
    remote_generations_free(&g);
    return rc;
}
