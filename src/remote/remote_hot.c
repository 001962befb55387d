// SPDX-License-Identifier: Apache-2.0
#include "remote/remote_hot.h"

#include <errno.h>
#include <inttypes.h>

#include "platform/crash_point.h"
#include "platform/log.h"
#include "remote/remote_internal.h"

static void
hot_key(const struct remote_place *place, struct buffer *key_out)
{
    buffer_clear(key_out);
    buffer_printf(key_out, REMOTE_HINTS "/%s/%" PRIu32 "/hot", place->tenant, place->volume_number);
    (void)buffer_string(key_out);
}

// Why a set is not to be believed; NULL: it is.
static const char *
find_fault(
    int decoded, const struct hot_set *set, const struct uuid *volume, uint64_t epoch, bool *later)
{
    if (decoded == -ENOTSUP)
        return "a newer program wrote it";
    if (decoded < 0)
        return "it does not hold together";
    if (!uuid_equal(&set->volume, volume))
        return "it is of another volume";
    *later = set->epoch > epoch;
    return *later ? "it is of a later owner" : NULL;
}

int
remote_hot_read(const struct remote_place *place, const struct uuid *volume, uint64_t epoch,
    struct hot_set *set_out, bool *later_out)
{
    *set_out = (struct hot_set){0};
    *later_out = false;
    BUFFER_AUTO name = {0};
    BUFFER_AUTO bytes = {0};
    hot_key(place, &name);
    const char *key = buffer_string(&name);
    struct remote_call call = remote_call_of(place, HOT_SET_BYTES_MAX);
    int rc = remote_store_get_blob(place->store, key, 0, HOT_SET_BYTES_MAX + 1, &bytes, &call);
    if (rc == -ENOENT)
        return rc;
    // Some stores refuse to read a range of an empty object.
    if (rc < 0 && rc != -EIO && rc != -EBADMSG)
        return remote_log_failure("remote.get_failed", key, rc);
    int decoded = rc < 0 ? -EBADMSG : hot_set_decode(bytes.data, bytes.length, set_out);
    const char *fault = find_fault(decoded, set_out, volume, epoch, later_out);
    if (!fault)
        return 0;
    log_warning("hot_set.ignored", "%s is not used: %s", key, fault);
    hot_set_free(set_out);
    return -ENOENT;
}

static int
put_set(const struct remote_place *place, const char *key, const struct hot_set *set)
{
    BUFFER_AUTO bytes = {0};
    hot_set_encode(set, &bytes);
    return remote_small_put(place, key, bytes.data, bytes.length);
}

// Whether the record behind db's position, if there is one, is of another host, or the mark of a
// volume that is being destroyed: 1, 0, or -errno; -ENOENT: there is no such record.
static int
is_displaced(const struct remote_place *place, const struct db_record *db)
{
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_RECORD, db->remote_sequence + 1, &name);
    const char *key = buffer_string(&name);
    struct remote_object o = {.fd = -1};
    struct manifest_record_header h;
    struct remote_call call = remote_call_of(place, REMOTE_HEADER_BYTES);
    int rc = remote_store_get_blob(place->store, key, 0, REMOTE_HEADER_BYTES, &o.data, &call);
    o.bytes = o.data.length;
    if (rc == 0)
        rc = remote_object_header(&o, key, &h);
    else if (rc != -ENOENT)
        rc = remote_log_failure("remote.get_failed", key, rc);
    remote_object_free(&o);
    if (rc < 0)
        return rc;
    return h.kind == MANIFEST_RECORD_DESTROY || !uuid_equal(&h.writer, &place->writer);
}

// 1: the chain ends with a record of the owner's own.
static int
is_owner(const struct remote_place *place, const struct db_record *db)
{
    int rc = is_displaced(place, db);
    if (rc >= 0)
        return !rc; // the publisher has just written the next record
    if (rc == -ENOENT)
        rc = remote_manifest_check_head(place, db);
    return rc == -EBADMSG ? 0 : rc < 0 ? rc : 1;
}

int
remote_hot_write(
    const struct remote_place *place, const struct db_record *db, const struct hot_set *set)
{
    BUFFER_AUTO name = {0};
    struct hot_set old;
    bool later;
    int rc = remote_hot_read(place, &db->volume, db->epoch, &old, &later);
    hot_set_free(&old);
    if (later)
        return -ESTALE;
    if (rc < 0 && rc != -ENOENT)
        return rc;
    hot_key(place, &name);
    rc = put_set(place, buffer_string(&name), set);
    if (rc < 0)
        return rc;
    crash_point("hot_set.written");
    int owner = is_owner(place, db);
    if (owner != 0)
        return owner < 0 ? owner : 0;
    rc = remote_small_delete(place, buffer_string(&name));
    return rc < 0 ? rc : -ESTALE;
}
