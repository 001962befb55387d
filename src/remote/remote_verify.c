// SPDX-License-Identifier: Apache-2.0
#include "remote/remote_verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/memory.h"
#include "remote/remote_internal.h"

// So many records of one gap are named.
#define MISSING_MAX 100u

// A record that verifies.
struct known_record {
    uint64_t sequence;
    struct sha256 hash;
};

struct looking {
    const struct remote_place *place;
    struct remote_chain_health *out;
    remote_fault *fault;
    void *argument;
    struct known_record *known;
    size_t known_count;
    struct remote_link link; // sequence 0: the record before is not known
    uint64_t lowest;         // records below it may be missing
};

// Tells damage and passes over it: 0; other errors stay.
static int
pass_over(struct looking *l, const char *key, int rc)
{
    if (rc == -EBADMSG)
        l->fault(l->argument, key, "it is damaged, or does not follow its predecessor");
    else if (rc == -ENOTSUP)
        remote_store_set_error("a newer version of this program wrote %s: use that one", key);
    return rc == -EBADMSG ? 0 : rc;
}

// ---- records ------------------------------------------------------------------------------------

static int
read_record(struct looking *l, const char *key, const struct remote_listed *record)
{
    struct remote_object object;
    struct manifest_record_header h;
    struct sha256 hash;
    struct remote_link before = l->link;
    l->link = (struct remote_link){0};
    int rc = remote_object_fetch(l->place, key, record->bytes, &object);
    if (rc < 0)
        return rc;
    rc = remote_object_header(&object, key, &h);
    if (rc == 0 && h.sequence != record->number)
        rc = remote_log_bad(key, "its sequence number is not the one of its name");
    if (rc == 0)
        rc = remote_object_read(&object, key, NULL, NULL, &hash);
    if (rc == 0 && (before.sequence != 0 || record->number == 1))
        rc = remote_link_check(&before, key, &h);
    else if (rc == 0 && h.kind == MANIFEST_RECORD_DESTROY)
        rc = remote_log_destroyed(key, &h);
    remote_object_free(&object);
    if (rc < 0)
        return rc;
    remote_link_advance(&l->link, &h, &hash);
    l->known[l->known_count++] = (struct known_record){h.sequence, hash};
    if (h.lowest_sequence > l->lowest)
        l->lowest = h.lowest_sequence;
    return 0;
}

static void
tell_missing(struct looking *l, uint64_t from, uint64_t to)
{
    BUFFER_AUTO name = {0};
    for (uint64_t i = from; i < to && i < from + MISSING_MAX; i++) {
        remote_key(l->place, REMOTE_RECORD, i, &name);
        l->fault(l->argument, buffer_string(&name), "it is missing");
    }
}

static void
tell_gaps(struct looking *l, const struct remote_listed *records, size_t count)
{
    uint64_t expected = 1;
    for (size_t i = 0; i < count; i++) {
        uint64_t from = expected > 1 && expected < l->lowest ? l->lowest : expected;
        if (from < records[i].number)
            tell_missing(l, from, records[i].number);
        expected = records[i].number + 1;
    }
}

static int
read_records(struct looking *l)
{
    struct remote_listed *records;
    size_t count;
    BUFFER_AUTO name = {0};
    int rc = remote_list(l->place, REMOTE_RECORD, &records, &count);
    if (rc == 0 && count == 0)
        rc = -ENOENT;
    l->known = memory_alloc_zero((count + 1) * sizeof(*l->known));
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (i > 0 && records[i].number != records[i - 1].number + 1)
            l->link.sequence = 0;
        remote_key(l->place, REMOTE_RECORD, records[i].number, &name);
        l->out->records++;
        l->out->bytes += records[i].bytes;
        l->out->sequence = records[i].number;
        rc = pass_over(l, buffer_string(&name), read_record(l, buffer_string(&name), &records[i]));
    }
    if (rc == 0)
        tell_gaps(l, records, count);
    free(records);
    return rc;
}

// ---- catalogs -----------------------------------------------------------------------------------

static const struct known_record *
find_record(const struct looking *l, uint64_t sequence)
{
    size_t low = 0;
    size_t high = l->known_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (l->known[middle].sequence < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low < l->known_count && l->known[low].sequence == sequence ? &l->known[low] : NULL;
}

static int
read_catalog(struct looking *l, const char *key, const struct remote_listed *catalog)
{
    struct remote_object object;
    struct manifest_record_header h;
    int rc = remote_object_fetch(l->place, key, catalog->bytes, &object);
    if (rc < 0)
        return rc;
    rc = remote_object_header(&object, key, &h);
    if (rc == 0)
        rc = remote_object_read(&object, key, NULL, NULL, NULL);
    const struct known_record *record = find_record(l, catalog->number);
    if (rc == 0 && (h.kind != MANIFEST_RECORD_CATALOG || h.sequence != catalog->number ||
                       (record && !sha256_equal(&record->hash, &h.previous))))
        rc = remote_log_bad(key, "it is not the catalog of the record with its number");
    remote_object_free(&object);
    return rc;
}

static int
read_catalogs(struct looking *l)
{
    struct remote_listed *catalogs;
    size_t count;
    BUFFER_AUTO name = {0};
    int rc = remote_list(l->place, REMOTE_CATALOG, &catalogs, &count);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        remote_key(l->place, REMOTE_CATALOG, catalogs[i].number, &name);
        l->out->catalogs++;
        l->out->bytes += catalogs[i].bytes;
        rc =
            pass_over(l, buffer_string(&name), read_catalog(l, buffer_string(&name), &catalogs[i]));
    }
    free(catalogs);
    return rc;
}

int
remote_chain_verify(const struct remote_place *place, struct remote_chain_health *health_out,
    remote_fault *fault, void *argument)
{
    struct looking l = {.place = place, .out = health_out, .fault = fault, .argument = argument};
    *health_out = (struct remote_chain_health){0};
    int rc = read_records(&l);
    if (rc == 0)
        rc = read_catalogs(&l);
    free(l.known);
    return rc;
}

// ---- which objects are there --------------------------------------------------------------------

// Keys are kept as the first bytes of their SHA-256.
struct listed_object {
    uint8_t id[16];
    uint64_t bytes;
    bool read, good;
};

struct listed_place {
    char *prefix;
    struct listed_object *objects; // in order of ids
    size_t count, capacity;
};

struct remote_inventory {
    const struct remote_place *place;
    struct listed_place *places;
    size_t count;
    bool unlisted[2]; // read and good of an object that no listing has
};

struct remote_inventory *
remote_inventory_new(const struct remote_place *place)
{
    struct remote_inventory *inventory = memory_alloc_zero(sizeof(*inventory));
    inventory->place = place;
    return inventory;
}

void
remote_inventory_free(struct remote_inventory *inventory)
{
    if (!inventory)
        return;
    for (size_t i = 0; i < inventory->count; i++) {
        free(inventory->places[i].prefix);
        free(inventory->places[i].objects);
    }
    free(inventory->places);
    free(inventory);
}

static void
id_of_key(const char *key, uint8_t id_out[16])
{
    struct sha256 hash;
    sha256_of(key, strlen(key), &hash);
    memcpy(id_out, hash.b, 16);
}

static int
compare_objects(const void *a, const void *b)
{
    const struct listed_object *x = a;
    const struct listed_object *y = b;
    return memcmp(x->id, y->id, sizeof(x->id));
}

static int
list_place(struct remote_inventory *inventory, struct listed_place *p)
{
    struct remote_walk walk;
    const struct remote_listing_entry *entry;
    const char *name;
    int rc;
    remote_walk_begin_prefix(&walk, inventory->place, p->prefix);
    while ((rc = remote_walk_next_entry(&walk, &entry, &name)) > 0) {
        if (p->count == p->capacity) {
            p->capacity = p->capacity ? p->capacity * 2 : 256;
            p->objects = memory_realloc(p->objects, p->capacity * sizeof(*p->objects));
        }
        p->objects[p->count] = (struct listed_object){.bytes = entry->size};
        id_of_key(entry->key, p->objects[p->count++].id);
    }
    remote_walk_end(&walk);
    if (rc == 0 && p->count > 0)
        qsort(p->objects, p->count, sizeof(*p->objects), compare_objects);
    return rc;
}

static int
find_place(struct remote_inventory *inventory, const char *prefix, struct listed_place **place_out)
{
    for (size_t i = 0; i < inventory->count; i++)
        if (strcmp(inventory->places[i].prefix, prefix) == 0) {
            *place_out = &inventory->places[i];
            return 0;
        }
    inventory->places =
        memory_realloc(inventory->places, (inventory->count + 1) * sizeof(*inventory->places));
    struct listed_place *p = &inventory->places[inventory->count++];
    *p = (struct listed_place){.prefix = memory_string(prefix)};
    *place_out = p;
    return list_place(inventory, p);
}

int
remote_inventory_find(struct remote_inventory *inventory, const char *prefix, const char *key,
    struct remote_object_state *state_out)
{
    struct listed_place *p;
    struct listed_object wanted = {0};
    struct remote_head head;
    *state_out = (struct remote_object_state){0};
    int rc = find_place(inventory, prefix, &p);
    if (rc < 0)
        return rc;
    id_of_key(key, wanted.id);
    struct listed_object *found =
        p->count > 0 ? bsearch(&wanted, p->objects, p->count, sizeof(wanted), compare_objects)
                     : NULL;
    if (found) {
        *state_out = (struct remote_object_state){found->bytes, true, &found->read, &found->good};
        return 0;
    }
    struct remote_call call = remote_call_of(inventory->place, 0);
    rc = remote_store_head_blob(inventory->place->store, key, &head, &call);
    if (rc < 0 && rc != -ENOENT)
        return remote_log_failure("remote.head_failed", key, rc);
    inventory->unlisted[0] = inventory->unlisted[1] = false;
    *state_out = (struct remote_object_state){
        head.size, rc == 0, &inventory->unlisted[0], &inventory->unlisted[1]};
    if (rc == -ENOENT)
        state_out->bytes = 0;
    return 0;
}
