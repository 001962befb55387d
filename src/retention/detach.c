// SPDX-License-Identifier: Apache-2.0
#include "retention/detach.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "platform/crash_point.h"
#include "platform/memory.h"
#include "remote/remote_blob.h"
#include "retention/blob_page.h"
#include "retention/blob_work.h"
#include "store/blob_key.h"

int
detach_is_needed(struct manifest *m, struct db_id db)
{
    struct blob_page *page = memory_alloc_zero(sizeof(*page));
    int rc = blob_page_read(m, db, BLOB_WHERE_NAMED, page);
    bool any = page->count > 0;
    free(page);
    return rc < 0 ? rc : any;
}

// 0; -EEXIST: the copy is there.
static int
copy_blob(const struct detach_options *o, const struct blob_record *blob)
{
    BUFFER_AUTO from = {0};
    BUFFER_AUTO to = {0};
    struct blob_record own = *blob;
    own.where = BLOB_WHERE_OWN;
    blob_key(o->place->tenant, o->place->volume_number, &own, &to);
    int rc = remote_blob_is_there(o->place, buffer_string(&to), blob->bytes);
    if (rc != 0)
        return rc < 0 ? rc : -EEXIST;
    rc = blob_page_key(o->place, o->manifest, o->db, blob, &from);
    return rc < 0 ? rc
                  : remote_blob_copy(o->place, buffer_string(&from), buffer_string(&to),
                        blob->bytes, &blob->hash);
}

struct copying {
    const struct detach_options *o;
    const struct blob_page *page;
    const struct detach_counts *before; // the page
    bool copied[BLOB_PAGE_BLOBS];
};

static int
copy_number(void *argument, size_t index)
{
    struct copying *c = argument;
    int rc = copy_blob(c->o, &c->page->blobs[index]);
    c->copied[index] = rc == 0;
    if (rc == 0)
        crash_point("detach.copied");
    return rc == -EEXIST ? 0 : rc;
}

static int
tell(void *argument, size_t done)
{
    const struct copying *c = argument;
    struct detach_counts counts = *c->before;
    counts.blobs += done;
    return c->o->progress ? c->o->progress(c->o->argument, &counts) : 0;
}

static int
copy_page(
    const struct detach_options *o, const struct blob_page *page, struct detach_counts *counts)
{
    struct copying *c = memory_alloc_zero(sizeof(*c));
    const struct detach_counts before = *counts;
    *c = (struct copying){.o = o, .page = page, .before = &before};
    const struct blob_work work = {copy_number, tell, c};
    int rc = blob_work_run(&work, page->count);
    for (size_t i = 0; i < page->count; i++) {
        counts->blobs++;
        counts->bytes += page->blobs[i].bytes;
        counts->copied += c->copied[i];
        counts->copied_bytes += c->copied[i] ? page->blobs[i].bytes : 0;
    }
    free(c);
    return rc;
}

int
detach_copy(const struct detach_options *o, struct detach_counts *counts_out)
{
    struct blob_page *page = memory_alloc_zero(sizeof(*page));
    int rc;
    *counts_out = (struct detach_counts){0};
    page->next = o->from;
    do {
        rc = blob_page_read(o->manifest, o->db, BLOB_WHERE_NAMED, page);
        if (rc == 0)
            rc = copy_page(o, page, counts_out);
        if (rc == 0 && page->more && o->mark)
            rc = o->mark(o->argument, &page->next);
    } while (rc == 0 && page->more);
    free(page);
    return rc;
}

int
detach_count(struct manifest *m, struct db_id db, uint64_t *blobs_out, uint64_t *bytes_out)
{
    struct blob_page *page = memory_alloc_zero(sizeof(*page));
    int rc;
    *blobs_out = *bytes_out = 0;
    do {
        rc = blob_page_read(m, db, BLOB_WHERE_NAMED, page);
        for (size_t i = 0; rc == 0 && i < page->count; i++)
            *bytes_out += page->blobs[i].bytes;
        *blobs_out += rc == 0 ? page->count : 0;
    } while (rc == 0 && page->more);
    free(page);
    return rc;
}

// ---- the generations before ---------------------------------------------------------------------

// 1: the generation needs another place; 0: it does not.
static int
look_at_generation(
    const struct remote_place *place, struct manifest *scratch, struct generation generation)
{
    struct db_record db = {.state = DB_STATE_IMPORTING, .volume_number = place->volume_number};
    snprintf(db.place, sizeof(db.place), "detach %" PRIu64, generation.v);
    snprintf(db.tenant, sizeof(db.tenant), "%s", place->tenant);
    int rc = manifest_create_db(scratch, &db);
    if (rc < 0)
        return rc;
    rc = remote_manifest_import(place, scratch, &db, generation);
    int needed = rc == 0 ? detach_is_needed(scratch, db.id) : rc;
    rc = manifest_remove_db(scratch, db.id);
    return rc < 0 && needed >= 0 ? rc : needed;
}

// CheckpointGC may delete the generation while it is looked at: then nothing needs it. Else `rc`.
static int
judge_failure(const struct remote_place *place, struct generation generation, int rc)
{
    struct remote_generations now;
    BUFFER_AUTO cause = {0};
    buffer_append_string(&cause, remote_store_error());
    bool gone =
        remote_generations_read(place, &now) == 0 && !remote_generations_find(&now, generation);
    remote_generations_free(&now);
    remote_store_set_error("%s", buffer_string(&cause));
    return gone ? 0 : rc;
}

int
detach_find_need(const struct remote_place *place, struct manifest *scratch,
    struct generation newest, struct generation *needed_out)
{
    struct remote_generations g;
    *needed_out = (struct generation){0};
    int rc = remote_generations_read(place, &g);
    for (size_t i = 0; rc == 0 && i < g.count; i++) {
        if (g.records[i].generation.v >= newest.v)
            continue;
        rc = look_at_generation(place, scratch, g.records[i].generation);
        if (rc > 0)
            *needed_out = g.records[i].generation;
        if (rc < 0)
            rc = judge_failure(place, g.records[i].generation, rc);
    }
    remote_generations_free(&g);
    return rc < 0 ? rc : 0;
}
