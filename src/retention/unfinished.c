// SPDX-License-Identifier: Apache-2.0
// What decides in each case is one object that is created once:
//
//     a snapshot   its name. Whoever creates that object first has won: the command, which has a
//                  snapshot then, or a sweep. A day later, a sweep deletes the pin, and after
//                  another day the object: so no late request takes the name or deletes another
//                  pin. A name without a pin goes when its generation has gone.
//     a fork       its first record. The first pin may go while that is not there, since a command
//                  that makes the record writes a second pin afterwards and looks at the parent
//                  again. A second pin may go when the record has gone: the fork was destroyed.
//     an empty     the next record of its chain: the command's, or the mark of a volume that is
//     fork         being destroyed. The pins go last, so that a later sweep goes on.
#include "retention/unfinished.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/awake.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "remote/remote_destroy.h"
#include "retention/snapshot.h"

#define PAGE_ENTRIES 1000u

// An object below snapshots/. Only the one that a sweep makes is so short.
struct name_object {
    char name[PIN_NAME_BYTES_MAX + 1];
    bool short_one;
};

struct sweep {
    const struct unfinished_options *o;
    struct name_object *names; // in order
    size_t count, capacity;
    struct remote_generations generations; // what the chain tells, when it was asked
    bool asked;
    uint64_t pins;
};

// ---- deleting a pin -----------------------------------------------------------------------------

static int
let_go(struct sweep *s, const struct remote_pin *pin, const char *why)
{
    const struct unfinished_options *o = s->o;
    s->pins++;
    if (o->dry_run)
        return 0;
    int rc = remote_owner_check(o->place, o->manifest, o->db);
    if (rc == 0)
        rc = remote_pin_delete(o->place, pin);
    if (rc == 0)
        log_info("retention.pin_removed", "the %s %s keeps generation %" PRIu64 " no more: %s",
            pin_kind_name(pin->kind), pin->name, pin->generation.v, why);
    return rc;
}

// 1, 0 or -errno; a pin that has gone is not old.
static int
is_old(const struct sweep *s, const struct remote_pin *pin)
{
    uint64_t age_ms;
    int rc = remote_pin_age(s->o->place, pin, &age_ms);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return age_ms > s->o->age_ms;
}

// ---- snapshots ----------------------------------------------------------------------------------

static void
note_name(struct sweep *s, const struct remote_listing_entry *entry, size_t prefix_length)
{
    const char *name = entry->key + prefix_length;
    size_t n = strlen(name);
    const size_t ending = strlen(".json");
    if (n <= ending || n - ending > PIN_NAME_BYTES_MAX || strcmp(name + n - ending, ".json") != 0)
        return;
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 64;
        s->names = memory_realloc(s->names, s->capacity * sizeof(*s->names));
    }
    struct name_object *object = &s->names[s->count++];
    *object = (struct name_object){.short_one = entry->size == strlen(SNAPSHOT_UNFINISHED)};
    memcpy(object->name, name, n - ending);
}

static int
list_names(struct sweep *s)
{
    const struct remote_place *place = s->o->place;
    BUFFER_AUTO prefix = {0};
    BUFFER_AUTO after = {0};
    bool more = true;
    snapshot_key(place, "", &prefix);
    prefix.length -= strlen(".json");
    while (more) {
        struct remote_listing page = {0};
        int rc = remote_store_list_blobs(place->store, buffer_string(&prefix),
            after.length > 0 ? buffer_string(&after) : NULL, PAGE_ENTRIES, &page, &place->call);
        for (size_t i = 0; rc == 0 && i < page.count; i++)
            note_name(s, &page.entries[i], prefix.length);
        more = rc == 0 && page.more && page.count > 0;
        if (more) {
            buffer_clear(&after);
            buffer_append_string(&after, page.entries[page.count - 1].key);
        }
        remote_listing_free(&page);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool
has_name(const struct sweep *s, const char *name)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->names[i].name, name) == 0)
            return true;
    return false;
}

// Writes the sweep's object, in which case its age begins anew. -EEXIST: the name is taken.
static int
put_unfinished(struct sweep *s, const char *name, enum remote_put_mode mode)
{
    const struct unfinished_options *o = s->o;
    BUFFER_AUTO key = {0};
    struct remote_source source = {
        .data = (const uint8_t *)SNAPSHOT_UNFINISHED, .length = strlen(SNAPSHOT_UNFINISHED)};
    int rc = remote_owner_check(o->place, o->manifest, o->db);
    if (rc < 0)
        return rc;
    sha256_of(source.data, source.length, &source.hash);
    snapshot_key(o->place, name, &key);
    return remote_store_put_blob(
        o->place->store, buffer_string(&key), &source, mode, &o->place->call);
}

// The first step. A command that has taken the name since the listing wins.
static int
condemn(struct sweep *s, const struct remote_pin *pin)
{
    int rc = is_old(s, pin);
    if (rc <= 0)
        return rc;
    if (s->o->dry_run) {
        s->pins++;
        return 0;
    }
    rc = put_unfinished(s, pin->name, REMOTE_PUT_CREATE);
    if (rc < 0)
        return rc == -EEXIST ? 0 : rc;
    log_info("retention.pin_condemned",
        "the snapshot %s of generation %" PRIu64 " was never finished: its pin will go", pin->name,
        pin->generation.v);
    crash_point("unfinished.condemned");
    return 0;
}

// Whether the object under the name is a sweep's, and old: 1, 0 or -errno.
static int
is_condemned(const struct sweep *s, const char *name, const char *key)
{
    const struct remote_place *place = s->o->place;
    BUFFER_AUTO text = {0};
    struct remote_head head;
    int rc = snapshot_show(place, name, &text);
    if (rc == 0 && strcmp(buffer_string(&text), SNAPSHOT_UNFINISHED) != 0)
        return 0;
    if (rc == 0)
        rc = remote_store_head_blob(place->store, key, &head, &place->call);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return remote_age_ms(&head) > s->o->age_ms;
}

static bool
is_pinned(const struct sweep *s, const char *name)
{
    for (size_t i = 0; i < s->o->pins->count; i++)
        if (s->o->pins->pins[i].kind == PIN_SNAPSHOT && strcmp(s->o->pins->pins[i].name, name) == 0)
            return true;
    return false;
}

// The second step. The object gets a new date before, so that it stays for as long as the deletion
// can be under way: else that could hit the pin of the next snapshot of this name.
static int
unpin(struct sweep *s, const char *name)
{
    const struct unfinished_options *o = s->o;
    struct awake awake;
    awake_begin(&awake);
    int rc = o->dry_run ? 0 : put_unfinished(s, name, REMOTE_PUT_OVERWRITE);
    for (size_t i = 0; rc == 0 && i < o->pins->count; i++) {
        const struct remote_pin *pin = &o->pins->pins[i];
        if (pin->kind != PIN_SNAPSHOT || strcmp(pin->name, name) != 0)
            continue;
        // The next sweep goes on.
        if (awake_has_slept(&awake))
            return 0;
        rc = let_go(s, pin, "the snapshot was never finished");
    }
    if (rc == 0)
        crash_point("unfinished.unpinned");
    return rc;
}

// The third step, when no pin is there any more.
static int
free_name(struct sweep *s, const char *key)
{
    const struct unfinished_options *o = s->o;
    if (o->dry_run)
        return 0;
    int rc = remote_owner_check(o->place, o->manifest, o->db);
    return rc < 0 ? rc : remote_store_delete_blobs(o->place->store, &key, 1, &o->place->call);
}

static int
end_name(struct sweep *s, const char *name)
{
    BUFFER_AUTO text = {0};
    snapshot_key(s->o->place, name, &text);
    const char *key = buffer_string(&text);
    int rc = is_condemned(s, name, key);
    if (rc <= 0)
        return rc;
    return is_pinned(s, name) ? unpin(s, name) : free_name(s, key);
}

// Whether the chain has had the generation, and has forgotten it: 1, 0 or -errno.
static int
is_forgotten(struct sweep *s, struct generation generation)
{
    if (!s->asked) {
        int rc = remote_generations_read(s->o->place, &s->generations);
        if (rc < 0)
            return rc;
        s->asked = true;
    }
    return s->generations.complete && generation.v < s->generations.head.v &&
           !remote_generations_find(&s->generations, generation);
}

// A name without a pin is of a command that died between two of its last steps. While the chain has
// the generation, the same command finishes the snapshot; afterwards nobody can.
static int
condemn_name(struct sweep *s, const char *name)
{
    BUFFER_AUTO key = {0};
    struct generation generation;
    struct remote_head head;
    int rc = snapshot_named_generation(s->o->place, name, &generation);
    if (rc == 0)
        rc = is_forgotten(s, generation);
    if (rc <= 0)
        return rc == -ENOENT ? 0 : rc;
    snapshot_key(s->o->place, name, &key);
    rc = remote_store_head_blob(s->o->place->store, buffer_string(&key), &head, &s->o->place->call);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (s->o->dry_run || remote_age_ms(&head) <= s->o->age_ms)
        return 0;
    log_info("retention.name_condemned",
        "the snapshot %s has no pin, and generation %" PRIu64 " is not kept any more", name,
        generation.v);
    return put_unfinished(s, name, REMOTE_PUT_OVERWRITE);
}

static int
sweep_snapshots(struct sweep *s)
{
    int rc = list_names(s);
    for (size_t i = 0; rc == 0 && i < s->count; i++) {
        if (s->names[i].short_one)
            rc = end_name(s, s->names[i].name);
        else if (!is_pinned(s, s->names[i].name))
            rc = condemn_name(s, s->names[i].name);
    }
    for (size_t i = 0; rc == 0 && i < s->o->pins->count; i++) {
        const struct remote_pin *pin = &s->o->pins->pins[i];
        if (pin->kind == PIN_SNAPSHOT && !has_name(s, pin->name))
            rc = condemn(s, pin);
    }
    return rc;
}

// ---- forks --------------------------------------------------------------------------------------

// A fork without a generation: 0 when it has gone, -EEXIST when it stays.
static int
destroy_empty(struct sweep *s, const struct remote_place *child, const struct uuid *volume)
{
    BUFFER_AUTO holders = {0};
    struct remote_destroyed done;
    const struct remote_destroy_options options = {
        .reader_pin_ms = s->o->reader_pin_ms,
        .fork_pin_ms = s->o->age_ms,
        .unfinished = volume,
        .unfinished_ms = s->o->age_ms,
    };
    if (s->o->dry_run)
        return 0;
    int rc = remote_owner_check(s->o->place, s->o->manifest, s->o->db);
    if (rc < 0)
        return rc;
    rc = remote_manifest_destroy(child, &options, &holders, &done);
    // Somebody works on it; or this host may not write there, and its owner has to destroy it.
    return rc == -ESTALE || rc == -EBUSY || rc == -EACCES || rc == -ENOENT ? -EEXIST : rc;
}

static int
sweep_fork(struct sweep *s, const struct remote_pin *pin)
{
    struct remote_place child;
    struct uuid volume;
    enum remote_fork_state state;
    int rc = is_old(s, pin);
    if (rc <= 0)
        return rc;
    rc = remote_fork_look(s->o->place, pin, &child, &volume, &state);
    if (rc == 0 && state == FORK_EMPTY) {
        rc = destroy_empty(s, &child, &volume);
        if (rc == 0)
            crash_point("unfinished.destroyed");
        state = rc == 0 ? FORK_MISSING : FORK_UNKNOWN;
        rc = rc == -EEXIST ? 0 : rc;
    }
    free((void *)(uintptr_t)child.tenant);
    return rc == 0 && state == FORK_MISSING ? let_go(s, pin, "there is no such fork") : rc;
}

int
unfinished_sweep(const struct unfinished_options *options, uint64_t *pins_out)
{
    struct sweep s = {.o = options};
    int rc = sweep_snapshots(&s);
    for (size_t i = 0; rc == 0 && i < options->pins->count; i++)
        if (options->pins->pins[i].kind == PIN_FORK)
            rc = sweep_fork(&s, &options->pins->pins[i]);
    free(s.names);
    remote_generations_free(&s.generations);
    *pins_out = s.pins;
    return rc;
}
