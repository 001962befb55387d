// SPDX-License-Identifier: Apache-2.0
#include "volume/volume_offline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/log.h"
#include "platform/random.h"
#include "retention/history.h"
#include "retention/snapshot.h"
#include "volume/volume_internal.h"
#include "volume/volume_offline_internal.h"
#include "volume/volume_operator.h"

// ---- rollback -----------------------------------------------------------------------------------

static int
roll_back(struct offline *o, const struct remote_pin *pin, struct generation *generation_out,
    struct buffer *error)
{
    struct db_record now;
    struct db_record then;
    int rc = offline_claim(o, &now, error);
    if (rc < 0)
        return rc;
    rc = offline_import(o, "then", pin->generation, &then, error);
    if (rc == 0) {
        rc = history_fold_equal(o->manifest, now.id, then.id);
        if (rc == -EALREADY)
            volume_error(error, "%s equals generation %" PRIu64 " already: nothing was done",
                o->config->source, pin->generation.v);
        else if (rc == 0)
            rc = history_publish(&o->place, o->manifest, now.id, generation_out);
        if (rc < 0 && rc != -EALREADY)
            (void)offline_store_problem(o, "roll back", rc, error);
    }
    offline_give_back(o, &now);
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
        rc = offline_resolve(&o, to, &pin, error);
    if (rc == 0) {
        rc = roll_back(&o, &pin, generation_out, error);
        int delete_rc = remote_pin_delete(&o.place, &pin);
        if (delete_rc < 0)
            log_warning("retention.pin_left", "a pin stays; it runs out by itself");
    }
    offline_close(&o);
    return rc;
}

// ---- operators' commands ------------------------------------------------------------------------

static bool
is_of_snapshots(unsigned kind)
{
    return kind == VOLUME_OPERATION_SNAPSHOT_CREATE || kind == VOLUME_OPERATION_SNAPSHOT_DROP ||
           kind == VOLUME_OPERATION_SNAPSHOT_SHOW;
}

// Snapshots are made of generations in the store; `argument_out` is then as on a mount.
static int
name_generation(struct offline *o, const char *name, const char *at, struct buffer *argument_out,
    struct buffer *error)
{
    char newest[24];
    struct generation generation;
    int rc = at ? 0 : offline_newest_text(o, newest, error);
    if (rc == 0)
        rc = snapshot_resolve(&o->place, at ? at : newest, &generation, error);
    if (rc == 0)
        buffer_printf(argument_out, "%s %" PRIu64, name, generation.v);
    return rc;
}

// The volume's state, and the volume itself for those that change it.
static int
get_state(struct offline *o, unsigned kind, const char *argument, struct db_record *db,
    bool *owns_out, struct buffer *error)
{
    *owns_out = kind == VOLUME_OPERATION_GC || (kind == VOLUME_OPERATION_RETENTION && argument[0]);
    return *owns_out ? offline_claim(o, db, error)
                     : offline_import(o, "newest", (struct generation){0}, db, error);
}

static int
run_operation(struct offline *o, unsigned kind, unsigned flags, const char *argument,
    const char *at, struct buffer *out, struct buffer *error)
{
    BUFFER_AUTO whole = {0};
    struct db_record db = {0};
    bool owns = false;
    int rc = 0;
    if (kind == VOLUME_OPERATION_SNAPSHOT_CREATE) {
        rc = name_generation(o, argument, at, &whole, error);
        argument = buffer_string(&whole);
    }
    if (rc == 0 && !is_of_snapshots(kind))
        rc = get_state(o, kind, argument, &db, &owns, error);
    if (rc < 0)
        return rc;
    const struct volume_operator by = {
        .place = &o->place,
        .manifest = o->manifest,
        .db = db.id,
    };
    rc = volume_operator_run(&by, kind, flags, argument, out);
    if (rc < 0)
        buffer_append(error, out->data, out->length);
    if (owns)
        offline_give_back(o, &db);
    return rc;
}

int
volume_offline_operation(const struct volume_config *config, unsigned kind, unsigned flags,
    const char *argument, const char *at, struct buffer *out, struct buffer *error)
{
    struct offline o;
    int rc = offline_open(config, &o, error);
    if (rc == 0)
        rc = run_operation(&o, kind, flags, argument, at, out, error);
    offline_close(&o);
    return rc;
}
