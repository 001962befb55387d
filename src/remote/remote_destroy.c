// SPDX-License-Identifier: Apache-2.0
// Destroying a volume. Why it harms no other host:
//
//     another host                     finds
//     mounts, forks or reads           the mark, the last record of the chain until the very end; a
//                                      reader of the chain that meets damage looks for the mark
//     has pinned a generation and      that its pin, which is not younger than the mark, keeps this
//       looked before the mark         run from deleting anything
//     owns the volume                  that its lease keeps this run from making the mark
//     owned it, and was stalled        the mark in the place of its next record; once the mark has
//                                      gone, the record before has gone, too
//                                      (remote_manifest_check_ground)
//     makes a new volume there         record 1 until all but the mark has gone; then the mark
#include "remote/remote_destroy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "remote/remote_hot.h"
#include "remote/remote_internal.h"
#include "store/blob_key.h"

// Times of servers come in seconds.
#define TIME_STEP_MS 2000u

const char *
remote_destroy_stage_name(enum remote_destroy_stage stage)
{
    static const char *const names[] = {
        [DESTROY_BLOBS] = "blobs",
        [DESTROY_SNAPSHOTS] = "snapshots",
        [DESTROY_PINS] = "pins",
        [DESTROY_CATALOGS] = "catalogs",
        [DESTROY_LEASES] = "leases",
        [DESTROY_HINTS] = "hints",
        [DESTROY_RECORDS] = "records",
    };
    return names[stage];
}

// ---- the mark -----------------------------------------------------------------------------------

int
remote_log_destroyed(const char *key, const struct manifest_record_header *h)
{
    char host[64];
    remote_copy_host(h->host, host);
    log_warning("remote.destroyed", "%s: host %s destroys the volume", key, host);
    remote_store_set_error("host %s has begun to destroy the volume", host);
    return -EIDRM;
}

// The end of the chain.
struct chain_end {
    uint64_t sequence; // 0: there is no record
    struct manifest_record_header header;
    struct sha256 hash;
    bool marked;
};

// The newest record: number 0 when there is none.
static int
find_newest(const struct remote_place *place, struct remote_listed *newest_out)
{
    struct remote_listed *records;
    size_t count;
    int rc = remote_list(place, REMOTE_RECORD, &records, &count);
    *newest_out = rc == 0 && count > 0 ? records[count - 1] : (struct remote_listed){0};
    free(records);
    return rc;
}

static int
find_end(const struct remote_place *place, struct chain_end *end_out)
{
    struct remote_listed newest;
    struct remote_object object;
    BUFFER_AUTO name = {0};
    *end_out = (struct chain_end){0};
    int rc = find_newest(place, &newest);
    if (rc < 0 || newest.number == 0)
        return rc < 0 ? rc : -ENOENT;
    remote_key(place, REMOTE_RECORD, newest.number, &name);
    const char *key = buffer_string(&name);
    rc = remote_object_fetch(place, key, newest.bytes, &object);
    if (rc < 0)
        return rc;
    rc = remote_object_header(&object, key, &end_out->header);
    if (rc == 0)
        rc = remote_object_read(&object, key, NULL, NULL, &end_out->hash);
    if (rc == 0 && end_out->header.sequence != newest.number)
        rc = remote_log_bad(key, "it is not the record that its name says");
    end_out->sequence = newest.number;
    end_out->marked = rc == 0 && end_out->header.kind == MANIFEST_RECORD_DESTROY;
    remote_object_free(&object);
    return rc;
}

// Whether the newest record is the mark; its header.
static bool
is_marked(const struct remote_place *place, struct manifest_record_header *header_out)
{
    struct remote_listed newest;
    BUFFER_AUTO name = {0};
    if (find_newest(place, &newest) < 0 || newest.number == 0)
        return false;
    remote_key(place, REMOTE_RECORD, newest.number, &name);
    return remote_header_fetch(place, buffer_string(&name), newest.bytes, header_out) == 0 &&
           header_out->kind == MANIFEST_RECORD_DESTROY;
}

int
remote_judge_damage(const struct remote_place *place, int rc)
{
    struct manifest_record_header mark;
    if (rc != -EBADMSG)
        return rc;
    BUFFER_AUTO cause = {0};
    buffer_append_string(&cause, remote_store_error());
    if (is_marked(place, &mark))
        return remote_log_destroyed("the newest record", &mark);
    remote_store_set_error("%s", buffer_string(&cause));
    return rc;
}

// Opens a new epoch, so that the record fits the chain like the OPEN record of another owner.
static int
put_mark(const struct remote_place *place, struct chain_end *end)
{
    struct remote_small_record record;
    struct manifest_record_header h = end->header;
    h.kind = MANIFEST_RECORD_DESTROY;
    h.sequence++;
    h.epoch++;
    h.writer = place->writer;
    h.previous = end->hash;
    h.previous_generation = h.generation;
    h.checkpoint_id = random_uuid();
    h.created_ms = clock_wall_ms();
    h.has_parent = false;
    memset(h.host, 0, sizeof(h.host));
    remote_host_name(h.host);
    if (h.epoch == 0)
        return -EOVERFLOW;
    int rc = remote_small_record_make(&h, NULL, 0, &record);
    if (rc < 0)
        return rc;
    struct remote_source source = {
        .data = record.data.data, .length = record.data.length, .hash = record.hash};
    rc = remote_record_create(place, h.sequence, &source);
    buffer_free(&record.data);
    if (rc < 0)
        return rc == -EEXIST ? -ESTALE : rc;
    end->header = h;
    end->sequence = h.sequence;
    end->marked = true;
    crash_point("destroy.marked");
    return 0;
}

// ---- users of the volume ------------------------------------------------------------------------

static uint64_t
seconds_left(const struct remote_lease *lease)
{
    return (lease->ttl_ms - lease->age_ms) / 1000 + 1;
}

static int
look_at_lease(const struct remote_place *place, uint64_t epoch, struct buffer *holders)
{
    struct remote_lease lease;
    int rc = remote_lease_read(place, epoch, &lease);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (!lease.released && lease.age_ms <= lease.ttl_ms)
        buffer_printf(holders,
            "host %s has it; its lease runs out in %" PRIu64
            " s unless it is renewed (-o takeover: do not wait)\n",
            lease.host[0] ? lease.host : "unknown", seconds_left(&lease));
    return 0;
}

// A host that has just taken the volume may be about to write its lease.
static int
look_at_newest_owner(
    const struct remote_place *place, const struct chain_end *end, struct buffer *holders)
{
    struct remote_head head;
    BUFFER_AUTO name = {0};
    char host[64];
    remote_key(place, REMOTE_RECORD, end->sequence, &name);
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_head_blob(place->store, buffer_string(&name), &head, &call);
    if (rc < 0)
        return rc == -ENOENT ? -ESTALE
                             : remote_log_failure("remote.head_failed", buffer_string(&name), rc);
    remote_copy_host(end->header.host, host);
    if (remote_age_ms(&head) <= REMOTE_LEASE_DEFAULT_TTL_MS)
        buffer_printf(holders, "host %s has just taken it\n", host);
    return 0;
}

static int
look_at_leases(
    const struct remote_place *place, const struct chain_end *end, struct buffer *holders)
{
    struct remote_listed *leases = NULL;
    size_t count = 0;
    bool newest_has = end->header.epoch == 0;
    int rc = remote_list(place, REMOTE_LEASE, &leases, &count);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        newest_has |= leases[i].number == end->header.epoch;
        rc = look_at_lease(place, leases[i].number, holders);
    }
    free(leases);
    return rc == 0 && !newest_has ? look_at_newest_owner(place, end, holders) : rc;
}

// A pin that is younger than the mark does not count, because the host that wrote it looks at the
// chain after that, and takes it back. `mark_age_ms` UINT64_MAX: there is no mark yet.
struct pin_look {
    const struct remote_place *place;
    const struct remote_destroy_options *options;
    uint64_t mark_age_ms;
    struct buffer *holders;
};

// Whether the pin is of a fork that was begun and never made.
static int
is_left_behind(const struct pin_look *look, const struct remote_pin *pin, uint64_t age_ms)
{
    struct remote_place fork;
    struct uuid volume;
    enum remote_fork_state state;
    if (age_ms <= look->options->fork_pin_ms)
        return 0;
    int rc = remote_fork_look(look->place, pin, &fork, &volume, &state);
    free((void *)(uintptr_t)fork.tenant);
    return rc < 0 ? rc : state == FORK_MISSING;
}

static int
look_at_fork(const struct pin_look *look, const struct remote_pin *pin, uint64_t age_ms)
{
    BUFFER_AUTO holder = {0};
    BUFFER_AUTO line = {0};
    int rc = remote_pin_holder(look->place, pin, &holder);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    rc = is_left_behind(look, pin, age_ms);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    buffer_printf(&line, "%s is a fork of generation %" PRIu64 " (volume %.36s)\n",
        buffer_string(&holder), pin->generation.v, pin->name);
    // A fork has two pins.
    if (!strstr(buffer_string(look->holders), buffer_string(&line)))
        buffer_append_string(look->holders, buffer_string(&line));
    return 0;
}

static int
look_at_reader(const struct pin_look *look, const struct remote_pin *pin, uint64_t age_ms)
{
    BUFFER_AUTO holder = {0};
    if (age_ms > look->options->reader_pin_ms)
        return 0;
    int rc = remote_pin_holder(look->place, pin, &holder);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    buffer_printf(look->holders, "host %s reads generation %" PRIu64 "\n", buffer_string(&holder),
        pin->generation.v);
    return 0;
}

static int
look_at_pin(const struct pin_look *look, const struct remote_pin *pin)
{
    uint64_t age_ms;
    if (pin->kind == PIN_SNAPSHOT)
        return 0;
    int rc = remote_pin_age(look->place, pin, &age_ms);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (look->mark_age_ms != UINT64_MAX && age_ms + TIME_STEP_MS < look->mark_age_ms)
        return 0;
    return pin->kind == PIN_FORK ? look_at_fork(look, pin, age_ms)
                                 : look_at_reader(look, pin, age_ms);
}

static int
look_at_pins(const struct pin_look *look)
{
    struct remote_pins pins;
    int rc = remote_pins_read(look->place, &pins);
    for (size_t i = 0; rc == 0 && i < pins.count; i++)
        rc = look_at_pin(look, &pins.pins[i]);
    remote_pins_free(&pins);
    return rc;
}

static int
look_before(const struct remote_place *place, const struct remote_destroy_options *options,
    const struct chain_end *end, struct buffer *holders)
{
    const struct pin_look look = {place, options, UINT64_MAX, holders};
    int rc = options->takeover ? 0 : look_at_leases(place, end, holders);
    if (rc == 0)
        rc = look_at_pins(&look);
    return rc < 0 ? rc : holders->length > 0 ? -EBUSY : 0;
}

static int
look_after(const struct remote_place *place, const struct remote_destroy_options *options,
    const struct chain_end *end, struct buffer *holders)
{
    struct remote_head head;
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_RECORD, end->sequence, &name);
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_head_blob(place->store, buffer_string(&name), &head, &call);
    if (rc < 0)
        return remote_log_failure("remote.head_failed", buffer_string(&name), rc);
    const struct pin_look look = {place, options, remote_age_ms(&head), holders};
    rc = look_at_pins(&look);
    return rc < 0 ? rc : holders->length > 0 ? -EBUSY : 0;
}

// ---- deleting -----------------------------------------------------------------------------------

struct destroying {
    const struct remote_place *place;
    const struct chain_end *end;
    enum remote_destroy_stage stage;
    remote_destroy_progress *progress;
    void *argument;
    bool spares_parent; // leaves the pins there
    struct remote_destroyed *out;
    struct remote_keys keys;
};

static int
flush(struct destroying *d)
{
    int rc = remote_keys_delete(d->place, &d->keys);
    if (rc == 0 && d->keys.count > 0) {
        d->out->objects[d->stage] += d->keys.count;
        rc = d->progress ? d->progress(d->argument, d->stage, d->out) : 0;
    }
    remote_keys_clear(&d->keys);
    return rc;
}

static int
let_go(struct destroying *d, const struct buffer *key)
{
    remote_keys_add(&d->keys, key);
    return d->keys.count == REMOTE_KEYS_MAX ? flush(d) : 0;
}

// Everything whose key begins with `prefix`, but `spared` (NULL: nothing).
static int
delete_below(struct destroying *d, const char *prefix, const char *spared)
{
    struct remote_walk walk;
    const struct remote_listing_entry *entry;
    const char *name;
    int rc;
    remote_walk_begin_prefix(&walk, d->place, prefix);
    while ((rc = remote_walk_next_entry(&walk, &entry, &name)) > 0) {
        BUFFER_AUTO key = {0};
        buffer_append_string(&key, entry->key);
        // A key outside the listed prefix belongs to another volume.
        bool foreign = strncmp(entry->key, prefix, strlen(prefix)) != 0;
        if (foreign || (spared && strcmp(entry->key, spared) == 0))
            continue;
        d->out->bytes += entry->size;
        rc = let_go(d, &key);
        if (rc < 0)
            break;
    }
    remote_walk_end(&walk);
    return rc < 0 ? rc : flush(d);
}

static int
delete_own(struct destroying *d, const char *folder)
{
    BUFFER_AUTO prefix = {0};
    buffer_printf(&prefix, "%s/%s/%" PRIu32 "/", folder, d->place->tenant, d->place->volume_number);
    return delete_below(d, buffer_string(&prefix), NULL);
}

static int
delete_kind(struct destroying *d, const char *kind)
{
    BUFFER_AUTO prefix = {0};
    remote_key_prefix(d->place, kind, &prefix);
    return delete_below(d, buffer_string(&prefix), NULL);
}

// ---- blobs under keys of older programs ---------------------------------------------------------

// Whether the tenant has any: one request for each of its volumes.
static int
has_old_blobs(const struct remote_place *place)
{
    BUFFER_AUTO prefix = {0};
    BUFFER_AUTO after = {0};
    buffer_printf(&prefix, "checkpoints/%s/", place->tenant);
    buffer_append_string(&after, buffer_string(&prefix));
    for (;;) {
        struct remote_listing page = {0};
        struct remote_call call = remote_call_of(place, 0);
        int rc = remote_store_list_blobs(
            place->store, buffer_string(&prefix), buffer_string(&after), 1, &page, &call);
        if (rc < 0)
            return remote_log_failure("remote.list_failed", buffer_string(&prefix), rc);
        const char *name = page.count > 0 ? page.entries[0].key + prefix.length : "";
        size_t digits = strspn(name, "0123456789");
        bool numbered = digits > 0 && name[digits] == '/';
        // Behind everything of that number: '0' follows '/'.
        buffer_clear(&after);
        buffer_printf(&after, "%s%.*s0", buffer_string(&prefix), (int)digits, name);
        bool none = page.count == 0;
        remote_listing_free(&page);
        if (none || !numbered)
            return !none;
    }
}

static int
let_go_of_old(void *argument, const struct change *change)
{
    struct destroying *d = argument;
    BUFFER_AUTO key = {0};
    if (change->kind != CHANGE_PUT_BLOB || change->blob.where != BLOB_WHERE_OWN_OLD)
        return 0;
    blob_key(d->place->tenant, d->place->volume_number, &change->blob, &key);
    return let_go(d, &key);
}

// The keys do not say to which volume the blobs belong: records and catalogs do.
static int
delete_old_blobs(struct destroying *d, const char *kind)
{
    struct remote_listed *listed = NULL;
    size_t count = 0;
    BUFFER_AUTO name = {0};
    int rc = remote_list(d->place, kind, &listed, &count);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct remote_object object;
        remote_key(d->place, kind, listed[i].number, &name);
        rc = remote_object_fetch(d->place, buffer_string(&name), listed[i].bytes, &object);
        if (rc == 0) {
            rc = remote_object_read(&object, buffer_string(&name), let_go_of_old, d, NULL);
            remote_object_free(&object);
        }
        if (rc == -EBADMSG)
            log_warning("destroy.unknown_blobs",
                "%s is damaged: blobs below checkpoints/%s/ that only it names stay",
                buffer_string(&name), d->place->tenant);
        rc = rc == -EBADMSG ? 0 : rc;
    }
    free(listed);
    return rc < 0 ? rc : flush(d);
}

static int
delete_blobs(struct destroying *d)
{
    int rc = has_old_blobs(d->place);
    if (rc > 0) {
        rc = delete_old_blobs(d, REMOTE_CATALOG);
        if (rc == 0)
            rc = delete_old_blobs(d, REMOTE_RECORD);
    }
    return rc < 0 ? rc : delete_own(d, "checkpoints");
}

// ---- the stages ---------------------------------------------------------------------------------

static int
delete_snapshots(struct destroying *d)
{
    return delete_own(d, "snapshots");
}

// After the leases: an owner that was displaced may have written one meanwhile.
static int
delete_hints(struct destroying *d)
{
    return delete_own(d, REMOTE_HINTS);
}

static int
delete_pins(struct destroying *d)
{
    struct manifest_record_header origin;
    int rc = delete_own(d, "pins");
    if (rc == 0)
        rc = remote_manifest_origin(d->place, &origin);
    // An earlier run that deleted record 1 has been here before.
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (!origin.has_parent || d->spares_parent)
        return 0;
    uint64_t released;
    rc = remote_pins_release(d->place, &d->end->header.volume, &released);
    d->out->objects[DESTROY_PINS] += released;
    return rc;
}

static int
delete_catalogs(struct destroying *d)
{
    return delete_kind(d, REMOTE_CATALOG);
}

static int
delete_leases(struct destroying *d)
{
    return delete_kind(d, REMOTE_LEASE);
}

// Deletes the remaining objects of the manifest, and then the mark.
static int
delete_records(struct destroying *d)
{
    BUFFER_AUTO mark = {0};
    BUFFER_AUTO prefix = {0};
    remote_key(d->place, REMOTE_RECORD, d->end->sequence, &mark);
    remote_key_prefix(d->place, "", &prefix);
    int rc = delete_below(d, buffer_string(&prefix), buffer_string(&mark));
    if (rc < 0)
        return rc;
    crash_point("destroy.mark_is_left");
    rc = let_go(d, &mark);
    return rc < 0 ? rc : flush(d);
}

static int
delete_all(struct destroying *d)
{
    static int (*const stages[])(struct destroying *) = {
        [DESTROY_BLOBS] = delete_blobs,
        [DESTROY_SNAPSHOTS] = delete_snapshots,
        [DESTROY_PINS] = delete_pins,
        [DESTROY_CATALOGS] = delete_catalogs,
        [DESTROY_LEASES] = delete_leases,
        [DESTROY_HINTS] = delete_hints,
        [DESTROY_RECORDS] = delete_records,
    };
    int rc = 0;
    for (d->stage = DESTROY_BLOBS; rc == 0 && d->stage < DESTROY_STAGES; d->stage++) {
        rc = stages[d->stage](d);
        if (rc == 0)
            crash_point("destroy.stage_done");
    }
    return rc;
}

// The mark is created right behind the end that was looked at here, so a generation that comes
// meanwhile wins.
static int
check_unfinished(const struct remote_place *place, const struct remote_destroy_options *options,
    const struct chain_end *end)
{
    struct remote_head head;
    BUFFER_AUTO name = {0};
    if (!uuid_equal(&end->header.volume, options->unfinished) || end->header.generation.v != 0)
        return -EEXIST;
    if (end->marked)
        return 0;
    remote_key(place, REMOTE_RECORD, end->sequence, &name);
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_head_blob(place->store, buffer_string(&name), &head, &call);
    if (rc < 0)
        return remote_log_failure("remote.head_failed", buffer_string(&name), rc);
    return remote_age_ms(&head) <= options->unfinished_ms ? -EEXIST : 0;
}

int
remote_manifest_destroy(const struct remote_place *place,
    const struct remote_destroy_options *options, struct buffer *holders_out,
    struct remote_destroyed *destroyed_out)
{
    struct chain_end end;
    *destroyed_out = (struct remote_destroyed){0};
    int rc = find_end(place, &end);
    if (rc == 0 && options->unfinished)
        rc = check_unfinished(place, options, &end);
    if (rc < 0)
        return rc;
    if (!end.marked)
        rc = look_before(place, options, &end, holders_out);
    if (rc == 0 && !end.marked)
        rc = put_mark(place, &end);
    destroyed_out->marked = end.marked;
    if (rc == 0)
        rc = look_after(place, options, &end, holders_out);
    if (rc < 0)
        return rc;
    struct destroying *d = memory_alloc_zero(sizeof(*d));
    *d = (struct destroying){.place = place, .end = &end};
    d->progress = options->progress;
    d->argument = options->argument;
    d->spares_parent = options->unfinished != NULL;
    d->out = destroyed_out;
    rc = delete_all(d);
    remote_keys_clear(&d->keys);
    free(d);
    return rc;
}
