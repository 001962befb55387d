// SPDX-License-Identifier: Apache-2.0
// Records: the rules of their chain, reading them, creating them.
#include "remote/remote_manifest.h"

#include <errno.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "remote/remote_internal.h"

// ---- the chain ----------------------------------------------------------------------------------

// The fault of `h` as the successor of `link`, or NULL. Epochs never fall, and one epoch has one
// writer. Writers begin an epoch with its OPEN record, but a reader may not insist on that: the
// fence is the predecessor's hash in each successor.
static const char *
link_fault(const struct remote_link *link, const struct manifest_record_header *h)
{
    if (h->sequence != link->sequence + 1)
        return "its sequence number is not the one of its name";
    if (h->kind == MANIFEST_RECORD_CATALOG)
        return "a catalog lies in the place of a record";
    if ((h->kind == MANIFEST_RECORD_CREATE) != (h->sequence == 1))
        return "exactly the first record is the one that makes the volume";
    if (!sha256_equal(&h->previous, &link->hash))
        return "it does not follow the record before it: the hash it names is another one";
    if (link->sequence > 0 && !uuid_equal(&h->volume, &link->volume))
        return "it belongs to another volume";
    if (link->sequence > 0 && !uuid_equal(&h->name_key, &link->name_key))
        return "its name key is not the volume's";
    if (link->has_epoch && h->epoch < link->epoch)
        return "its epoch is older than the one before it";
    if (link->has_epoch && h->epoch == link->epoch && !uuid_equal(&h->writer, &link->writer))
        return "its epoch belongs to another writer";
    bool opens = h->kind == MANIFEST_RECORD_OPEN || h->kind == MANIFEST_RECORD_DESTROY;
    if (opens && link->has_epoch && h->epoch == link->epoch)
        return "it opens an epoch that is open";
    if (h->kind != MANIFEST_RECORD_GENERATION)
        return h->generation.v == link->generation.v ? NULL : "its generation was never published";
    if (h->previous_generation.v != link->generation.v)
        return "the generation it builds on is not the one published before it";
    return h->generation.v > link->generation.v ? NULL : "its generation does not rise";
}

int
remote_link_check(
    const struct remote_link *link, const char *key, const struct manifest_record_header *h)
{
    const char *fault = link_fault(link, h);
    if (!fault && h->kind == MANIFEST_RECORD_DESTROY)
        return remote_log_destroyed(key, h);
    return fault ? remote_log_bad(key, fault) : 0;
}

void
remote_link_advance(
    struct remote_link *link, const struct manifest_record_header *h, const struct sha256 *hash)
{
    link->sequence = h->sequence;
    link->hash = *hash;
    link->volume = h->volume;
    link->name_key = h->name_key;
    link->has_epoch = true;
    link->epoch = h->epoch;
    link->writer = h->writer;
    link->lowest = h->lowest_sequence;
    if (h->generation.v != link->generation.v || h->kind == MANIFEST_RECORD_CREATE)
        link->created_ms = h->created_ms;
    link->generation = h->generation;
}

// ---- reading ------------------------------------------------------------------------------------

// Reading an object ends with an error of the visitor or of the object; this tells which.
struct guarded_visitor {
    manifest_record_visitor *visitor;
    void *argument;
    int rc;
};

static int
visit_guarded(void *argument, const struct change *change)
{
    struct guarded_visitor *g = argument;
    return g->rc = g->visitor(g->argument, change);
}

int
remote_object_read(struct remote_object *o, const char *key, manifest_record_visitor *visitor,
    void *argument, struct sha256 *hash_out)
{
    struct guarded_visitor g = {.visitor = visitor, .argument = argument};
    int rc = manifest_record_read(
        remote_object_source, o, o->bytes, visitor ? visit_guarded : NULL, &g, hash_out);
    if (rc == 0 || g.rc != 0)
        return rc;
    if (rc == -EBADMSG)
        return remote_log_bad(key, "its content does not verify");
    log_error("remote.object_bad", "%s cannot be read: %s", key, strerror(-rc));
    return rc;
}

int
remote_object_header(
    struct remote_object *o, const char *key, struct manifest_record_header *header_out)
{
    int rc = manifest_record_read_header(remote_object_source, o, o->bytes, header_out);
    if (rc == -EBADMSG)
        return remote_log_bad(key, "it is not a record of a manifest");
    if (rc == -ENOTSUP)
        log_error("remote.object_bad", "%s was written by a newer version of this program", key);
    else if (rc < 0)
        log_error("remote.object_bad", "%s cannot be read: %s", key, strerror(-rc));
    return rc;
}

int
remote_record_fetch(const struct remote_place *place, const char *key, uint64_t bytes,
    const struct sha256 *hash, struct manifest_record_header *header_out)
{
    struct remote_object object;
    struct sha256 found;
    int rc = remote_object_fetch(place, key, bytes, &object);
    if (rc < 0)
        return rc;
    rc = remote_object_header(&object, key, header_out);
    if (rc == 0)
        rc = remote_object_read(&object, key, NULL, NULL, &found);
    if (rc == 0 && !sha256_equal(&found, hash))
        rc = remote_log_bad(key, "it is not the record that was there before");
    remote_object_free(&object);
    return rc;
}

int
remote_refresh_db(struct manifest *m, struct db_id id, struct db_record *db_out)
{
    struct manifest_reader *r = NULL;
    int rc = manifest_read_begin(m, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_db(r, id, db_out);
    manifest_read_end(r);
    return rc;
}

// ---- creating -----------------------------------------------------------------------------------

static int
sink_to_buffer(void *argument, const void *p, size_t n)
{
    buffer_append(argument, p, n);
    return 0;
}

int
remote_small_record_make(const struct manifest_record_header *header, const struct change *changes,
    size_t count, struct remote_small_record *record_out)
{
    *record_out = (struct remote_small_record){0};
    struct manifest_record_writer *w =
        manifest_record_writer_new(header, sink_to_buffer, &record_out->data);
    uint64_t bytes;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = manifest_record_writer_add(w, &changes[i]);
    if (rc == 0)
        rc = manifest_record_writer_finish(w, &record_out->hash, &bytes);
    manifest_record_writer_free(w);
    if (rc < 0)
        buffer_free(&record_out->data);
    return rc;
}

int
remote_record_create(
    const struct remote_place *place, uint64_t sequence, const struct remote_source *source)
{
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_RECORD, sequence, &name);
    const char *key = buffer_string(&name);
    struct remote_call call = remote_call_of(place, source->length);
    int rc = remote_store_put_blob(place->store, key, source, REMOTE_PUT_CREATE, &call);
    if (rc == 0 || rc != -EEXIST)
        return rc == 0 ? 0 : remote_log_failure("remote.put_failed", key, rc);
    // It may be ours: made by a try whose answer was lost, or before a crash.
    rc = remote_object_is(place, key, source->length, &source->hash);
    if (rc < 0)
        return rc;
    return rc == 1 ? 0 : -EEXIST;
}

int
remote_manifest_create(const struct remote_place *place, const struct uuid *volume,
    const struct uuid *name_key, const struct retention_policy *policy)
{
    return remote_manifest_create_fork(place, volume, name_key, policy, NULL);
}

int
remote_manifest_create_fork(const struct remote_place *place, const struct uuid *volume,
    const struct uuid *name_key, const struct retention_policy *policy,
    const struct volume_parent *parent)
{
    struct manifest_record_header h = {
        .kind = MANIFEST_RECORD_CREATE,
        .sequence = 1,
        .volume = *volume,
        .writer = place->writer,
        .name_key = *name_key,
        .created_ms = clock_wall_ms(),
        .has_parent = parent != NULL,
    };
    remote_host_name(h.host);
    if (parent)
        h.parent = *parent;
    struct remote_small_record record;
    struct change retention = {.kind = CHANGE_PUT_RETENTION};
    if (policy)
        retention.retention = *policy;
    int rc = remote_small_record_make(&h, &retention, policy != NULL, &record);
    if (rc < 0)
        return rc;
    struct remote_source source = {
        .data = record.data.data, .length = record.data.length, .hash = record.hash};
    rc = remote_record_create(place, 1, &source);
    buffer_free(&record.data);
    return rc;
}

static int
record_exists(const struct remote_place *place, uint64_t sequence)
{
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_RECORD, sequence, &name);
    const char *key = buffer_string(&name);
    struct remote_head head;
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_head_blob(place->store, key, &head, &call);
    if (rc < 0 && rc != -ENOENT)
        return remote_log_failure("remote.head_failed", key, rc);
    return rc;
}

int
remote_manifest_exists(const struct remote_place *place)
{
    return record_exists(place, 1);
}

int
remote_manifest_origin(const struct remote_place *place, struct manifest_record_header *header_out)
{
    BUFFER_AUTO name = {0};
    struct remote_head head;
    remote_key(place, REMOTE_RECORD, 1, &name);
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_head_blob(place->store, buffer_string(&name), &head, &call);
    if (rc == -ENOENT)
        return rc;
    if (rc < 0)
        return remote_log_failure("remote.head_failed", buffer_string(&name), rc);
    return remote_header_fetch(place, buffer_string(&name), head.size, header_out);
}

int
remote_manifest_is_followed(const struct remote_place *place, uint64_t sequence)
{
    int rc = record_exists(place, sequence + 1);
    return rc == 0 ? 1 : rc == -ENOENT ? 0 : rc;
}

int
remote_manifest_publish(const struct remote_place *place, const struct remote_staged *staged)
{
    struct remote_source source = {.fd = staged->fd, .length = staged->bytes, .hash = staged->hash};
    int rc = remote_record_create(place, staged->header.sequence, &source);
    if (rc == 0)
        crash_point("remote.record_created");
    return rc == -EEXIST ? -ESTALE : rc;
}

int
remote_manifest_identity(const struct remote_place *place, struct uuid *volume_out)
{
    struct remote_walk walk;
    uint64_t sequence, bytes;
    struct manifest_record_header h;
    BUFFER_AUTO name = {0};
    remote_walk_begin(&walk, place, REMOTE_RECORD, 0);
    int rc = remote_walk_next(&walk, &sequence, &bytes);
    remote_walk_end(&walk);
    if (rc <= 0)
        return rc < 0 ? rc : -ENOENT;
    remote_key(place, REMOTE_RECORD, sequence, &name);
    rc = remote_header_fetch(place, buffer_string(&name), bytes, &h);
    if (rc == 0)
        *volume_out = h.volume;
    return rc;
}
