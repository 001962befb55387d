// SPDX-License-Identifier: Apache-2.0
#include "retention/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/memory.h"
#include "remote/remote_blob.h"
#include "retention/blob_page.h"
#include "retention/blob_work.h"
#include "retention/verify_internal.h"

#define BLOB_IS_WRONG "its bytes are not what its name says"

// ---- damage -------------------------------------------------------------------------------------

static uint64_t
hash_text(const char *text)
{
    uint64_t h = 0;
    for (; *text; text++)
        h = hash_u64(h + (uint8_t)*text);
    return h;
}

static uint64_t
hash_of_blob(const struct sha256 *hash)
{
    return hash_u64(sha256_key(hash));
}

struct verify_damage *
verify_find_blob(const struct verify_result *result, const struct sha256 *hash)
{
    struct hash_node *n = hash_table_first(&result->by_hash, hash_of_blob(hash));
    for (; n; n = hash_table_next_same(n)) {
        struct verify_damage *d = CONTAINER_OF(n, struct verify_damage, by_hash);
        if (sha256_equal(&d->hash, hash))
            return d;
    }
    return NULL;
}

// The damage of an object; a new one when there is none yet.
struct verify_damage *
verify_note(struct verify_result *result, const char *key, const char *why)
{
    uint64_t h = hash_text(key);
    for (struct hash_node *n = hash_table_first(&result->by_key, h); n;
         n = hash_table_next_same(n)) {
        struct verify_damage *d = CONTAINER_OF(n, struct verify_damage, by_key);
        if (strcmp(d->key, key) == 0)
            return d;
    }
    struct verify_damage *d = memory_alloc_zero(sizeof(*d));
    d->key = memory_string(key);
    d->why = memory_string(why);
    hash_table_insert(&result->by_key, &d->by_key, h);
    if (!result->end)
        result->end = &result->damages;
    *result->end = d;
    result->end = &d->next;
    result->damaged++;
    return d;
}

struct verify_damage *
verify_note_blob(
    struct verify_result *result, const char *key, const char *why, const struct blob_record *blob)
{
    struct verify_damage *d = verify_note(result, key, why);
    if (!d->is_blob)
        hash_table_insert(&result->by_hash, &d->by_hash, hash_of_blob(&blob->hash));
    d->is_blob = true;
    d->hash = blob->hash;
    d->bytes = blob->bytes;
    return d;
}

void
verify_note_generation(struct verify_damage *d, struct generation generation)
{
    if (d->generation_count > 0 && d->generations[d->generation_count - 1].v == generation.v)
        return;
    d->generations =
        memory_realloc(d->generations, (d->generation_count + 1) * sizeof(*d->generations));
    d->generations[d->generation_count++] = generation;
}

static void
free_damage(struct verify_damage *d)
{
    for (size_t i = 0; i < d->file_count; i++)
        free(d->files[i]);
    free(d->files);
    free(d->generations);
    free(d->key);
    free(d->why);
    free(d);
}

// Forgets what was noted about the newest generation that was looked at.
static void
forget_generation(struct verify_result *result, struct generation generation)
{
    struct verify_damage **at = &result->damages;
    while (*at) {
        struct verify_damage *d = *at;
        bool its =
            d->generation_count > 0 && d->generations[d->generation_count - 1].v == generation.v;
        d->generation_count -= its;
        if (!its || d->generation_count > 0) {
            at = &d->next;
            continue;
        }
        *at = d->next;
        hash_table_remove(&result->by_key, &d->by_key);
        if (d->is_blob)
            hash_table_remove(&result->by_hash, &d->by_hash);
        free_damage(d);
        result->damaged--;
    }
    result->end = at;
}

void
verify_result_free(struct verify_result *result)
{
    for (struct verify_damage *d = result->damages, *next; d; d = next) {
        next = d->next;
        free_damage(d);
    }
    hash_table_free(&result->by_key);
    hash_table_free(&result->by_hash);
    *result = (struct verify_result){0};
}

// ---- one generation -----------------------------------------------------------------------------

struct run {
    const struct verify_options *options;
    struct verify_result *result;
    struct remote_inventory *inventory;
    struct db_id db;
    struct generation generation;
    bool damaged; // the generation refers to damaged blobs
    bool suspect; // something was noted about the generation
};

static void
hear_fault(void *argument, const char *key, const char *why)
{
    struct run *run = argument;
    verify_note(run->result, key, why);
}

static void
note_unreadable(struct run *run, const char *why)
{
    BUFFER_AUTO name = {0};
    run->suspect = true;
    buffer_printf(&name, "generation %" PRIu64, run->generation.v);
    verify_note_generation(verify_note(run->result, buffer_string(&name), why), run->generation);
}

// The part of a key before the checkpoint's id.
static void
place_of_key(const char *key, struct buffer *prefix_out)
{
    const char *name = strrchr(key, '/');
    const char *id = name;
    while (id && id > key && id[-1] != '/')
        id--;
    buffer_append(prefix_out, key, id ? (size_t)(id - key) : 0);
}

static void
note_blob(struct run *run, const struct blob_record *blob, const char *key, const char *why)
{
    verify_note_generation(verify_note_blob(run->result, key, why, blob), run->generation);
    run->damaged = true;
    run->suspect = true;
}

// A page of blobs: first all are looked for, then those that need it are read, by several threads.
struct checking {
    struct run *run;
    const struct blob_page *page;
    struct checked_blob {
        struct buffer key;
        bool is_read, is_good;
        struct remote_object_state state;
    } blobs[BLOB_PAGE_BLOBS];
    uint64_t before; // blobs before this page
};

static int
look_for_blob(struct checking *c, size_t index)
{
    struct run *run = c->run;
    const struct verify_options *o = run->options;
    const struct blob_record *blob = &c->page->blobs[index];
    struct checked_blob *checked = &c->blobs[index];
    BUFFER_AUTO prefix = {0};
    BUFFER_AUTO why = {0};
    int rc = blob_page_key(o->place, o->manifest, run->db, blob, &checked->key);
    if (rc == -EBADMSG) {
        note_unreadable(run, "a blob lies in a place that is not known");
        return 0;
    }
    const char *key = buffer_string(&checked->key);
    place_of_key(key, &prefix);
    if (rc == 0)
        rc = remote_inventory_find(run->inventory, buffer_string(&prefix), key, &checked->state);
    if (rc < 0)
        return rc;
    if (!checked->state.found)
        buffer_append_string(&why, "it is missing");
    else if (checked->state.bytes != blob->bytes)
        buffer_printf(
            &why, "it has %" PRIu64 " bytes and not %" PRIu64, checked->state.bytes, blob->bytes);
    if (why.length > 0)
        note_blob(run, blob, key, buffer_string(&why));
    else if (o->data && *checked->state.read && !*checked->state.good)
        note_blob(run, blob, key, BLOB_IS_WRONG);
    else
        checked->is_read = o->data && !*checked->state.read;
    return 0;
}

static int
read_number(void *argument, size_t index)
{
    struct checking *c = argument;
    const struct blob_record *blob = &c->page->blobs[index];
    struct checked_blob *checked = &c->blobs[index];
    if (!checked->is_read)
        return 0;
    int rc = remote_blob_verify(
        c->run->options->place, buffer_string(&checked->key), blob->bytes, &blob->hash);
    checked->is_good = rc == 0;
    return rc == -EBADMSG ? 0 : rc;
}

static void
note_read(struct checking *c, size_t index)
{
    const struct blob_record *blob = &c->page->blobs[index];
    struct checked_blob *checked = &c->blobs[index];
    if (!checked->is_read)
        return;
    *checked->state.read = true;
    *checked->state.good = checked->is_good;
    c->run->result->read_blobs++;
    c->run->result->read_bytes += blob->bytes;
    if (!checked->is_good)
        note_blob(c->run, blob, buffer_string(&checked->key), BLOB_IS_WRONG);
}

static int
tell_blobs(void *argument, size_t done)
{
    const struct checking *c = argument;
    const struct verify_options *o = c->run->options;
    return o->progress ? o->progress(o->argument, "blobs", c->before + done, 0) : 0;
}

static int
check_page(struct checking *c)
{
    struct verify_result *result = c->run->result;
    const struct blob_work work = {read_number, tell_blobs, c};
    int rc = 0;
    c->before = result->blobs;
    for (size_t i = 0; rc == 0 && i < c->page->count; i++) {
        rc = look_for_blob(c, i);
        result->blobs++;
        result->blob_bytes += c->page->blobs[i].bytes;
    }
    if (rc == 0)
        rc = blob_work_run(&work, c->page->count);
    for (size_t i = 0; i < c->page->count; i++) {
        if (rc == 0)
            note_read(c, i);
        buffer_free(&c->blobs[i].key);
    }
    return rc;
}

// A blob that is needed now and was born by the generation `after` was needed by that one, too.
static void
pass_over_known(struct blob_page *page, struct generation after)
{
    size_t kept = 0;
    for (size_t i = 0; i < page->count; i++)
        if (page->blobs[i].generation.v > after.v)
            page->blobs[kept++] = page->blobs[i];
    page->count = kept;
}

static int
check_blobs(struct run *run)
{
    const struct verify_options *o = run->options;
    struct blob_page *page = memory_alloc_zero(sizeof(*page));
    int rc;
    do {
        struct checking *c = memory_alloc_zero(sizeof(*c));
        c->run = run;
        c->page = page;
        rc = blob_page_read(o->manifest, run->db, 0, page);
        pass_over_known(page, o->after);
        if (rc == 0)
            rc = check_page(c);
        free(c);
    } while (rc == 0 && page->more);
    free(page);
    return rc;
}

static int
count_lost(void *argument, const struct chunk_damage *damage UNUSED)
{
    ++*(uint64_t *)argument;
    return 0;
}

static int
read_lost(struct run *run)
{
    struct manifest_reader *r;
    run->result->lost_ranges = 0;
    int rc = manifest_read_begin(run->options->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_all_damage(r, run->db, count_lost, &run->result->lost_ranges);
    manifest_read_end(r);
    return rc;
}

static int
check_state(struct run *run)
{
    BUFFER_AUTO why = {0};
    int violations = manifest_check(run->options->manifest, run->db);
    if (violations > 0) {
        buffer_printf(&why, "its state contradicts itself in %d places", violations);
        note_unreadable(run, buffer_string(&why));
    }
    int rc = violations < 0 ? violations : read_lost(run);
    if (rc == 0)
        rc = check_blobs(run);
    if (rc == 0 && run->damaged)
        rc = verify_find_files(run->options->manifest, run->db, run->result);
    return rc;
}

// Errors of reading a generation that are damage, not failures of the store or the disk.
static bool
is_damage(int rc)
{
    return rc == -EBADMSG || rc == -ESTALE || rc == -EINVAL;
}

// CheckpointGC may have deleted what the generation needs since the generations were read: it must
// still be kept. Without an answer the damage counts.
static bool
has_expired(const struct run *run)
{
    struct remote_generations now;
    int rc = remote_generations_read(run->options->place, &now);
    const struct generation_record *g =
        rc == 0 ? remote_generations_find(&now, run->generation) : NULL;
    bool expired = rc == 0 && (!g || g->state != GENERATION_RETAINED);
    remote_generations_free(&now);
    return expired;
}

static int
check_generation(struct run *run)
{
    const struct remote_place *place = run->options->place;
    struct manifest *m = run->options->manifest;
    struct db_record db = {.state = DB_STATE_IMPORTING, .volume_number = place->volume_number};
    snprintf(db.place, sizeof(db.place), "verify %" PRIu64, run->generation.v);
    snprintf(db.tenant, sizeof(db.tenant), "%s", place->tenant);
    int rc = manifest_create_db(m, &db);
    if (rc < 0)
        return rc;
    run->db = db.id;
    run->damaged = run->suspect = false;
    rc = remote_manifest_import(place, m, &db, run->generation);
    if (is_damage(rc)) {
        note_unreadable(run, remote_store_error()[0] ? remote_store_error() : strerror(-rc));
        rc = 0;
    } else if (rc == 0) {
        rc = check_state(run);
    }
    if (rc == 0 && run->suspect && has_expired(run))
        forget_generation(run->result, run->generation);
    run->result->generations++;
    int removed = manifest_remove_db(m, db.id);
    return rc < 0 ? rc : removed;
}

// ---- the whole ----------------------------------------------------------------------------------

static int
check_generations(struct run *run, const struct remote_generations *g)
{
    const struct verify_options *o = run->options;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < g->count; i++) {
        // Expired generations may be deleted at any moment.
        if (g->records[i].state != GENERATION_RETAINED || g->records[i].generation.v <= o->after.v)
            continue;
        run->generation = g->records[i].generation;
        if (o->progress)
            rc = o->progress(o->argument, "generations", i, g->count);
        if (rc == 0)
            rc = check_generation(run);
        if (rc == 0 && o->looked)
            rc = o->looked(o->argument, run->generation, run->result);
    }
    return rc;
}

// Once. 1: a writer added to the chain meanwhile, which may look like damage.
static int
look_once(const struct verify_options *options, struct verify_result *result)
{
    struct remote_generations g;
    struct remote_continuation now;
    struct run run = {.options = options, .result = result};
    int rc = remote_chain_verify(options->place, &result->chain, hear_fault, &run);
    if (rc < 0)
        return rc;
    run.inventory = remote_inventory_new(options->place);
    rc = remote_generations_read(options->place, &g);
    if (rc == 0)
        rc = check_generations(&run, &g);
    else if (is_damage(rc))
        rc = 0; // the chain's faults are noted
    remote_generations_free(&g);
    remote_inventory_free(run.inventory);
    if (rc < 0 || result->damaged == 0)
        return rc;
    rc = remote_manifest_find_continuation(options->place, &now);
    return is_damage(rc) ? 0 : rc < 0 ? rc : now.sequence != result->chain.sequence;
}

int
verify_run(const struct verify_options *options, struct verify_result *result_out)
{
    int rc = 1;
    *result_out = (struct verify_result){0};
    for (int i = 0; rc == 1 && i < 3; i++) {
        verify_result_free(result_out);
        rc = look_once(options, result_out);
    }
    return rc < 0 ? rc : 0;
}
