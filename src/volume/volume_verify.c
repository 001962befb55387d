// SPDX-License-Identifier: Apache-2.0
// Verifying and repairing a volume in the store.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_writer.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "retention/verify.h"
#include "volume/volume_internal.h"
#include "volume/volume_offline.h"
#include "volume/volume_offline_internal.h"

#define LINE_GENERATIONS_MAX 8u
#define LINE_FILES_MAX       5u

// ---- the report ---------------------------------------------------------------------------------

void
offline_print_damage(const struct verify_damage *d, struct buffer *out)
{
    buffer_printf(out, "%s: %s\n", d->key, d->why);
    if (d->is_blob && d->generation_count > 0)
        buffer_append_string(out, "    generations:");
    for (size_t i = 0; d->is_blob && i < d->generation_count && i < LINE_GENERATIONS_MAX; i++)
        buffer_printf(out, " %" PRIu64, d->generations[i].v);
    if (d->is_blob && d->generation_count > LINE_GENERATIONS_MAX)
        buffer_printf(out, " ... %" PRIu64, d->generations[d->generation_count - 1].v);
    if (d->is_blob && d->generation_count > 0)
        buffer_append_string(out, "\n");
    for (size_t i = 0; i < d->file_count && i < LINE_FILES_MAX; i++)
        buffer_printf(out, "    file: %s\n", d->files[i]);
    if (d->more_files || d->file_count > LINE_FILES_MAX)
        buffer_append_string(out, "    and more files (--json names them)\n");
}

void
offline_print_report(const struct verify_result *v, const struct volume_verified *done, bool data,
    struct buffer *out)
{
    for (const struct verify_damage *d = v->damages; d; d = d->next)
        offline_print_damage(d, out);
    if (done->repaired > 0)
        buffer_printf(out, "%" PRIu64 " objects are repaired\n", done->repaired);
    if (v->lost_ranges > 0)
        buffer_printf(out,
            "%" PRIu64 " ranges of files were lost before: the newest generation says so, and "
            "ckptctl status names them\n",
            v->lost_ranges);
    buffer_printf(out,
        "%" PRIu64 " records, %" PRIu64 " catalogs, %" PRIu64 " generations with %" PRIu64
        " blobs: ",
        v->chain.records, v->chain.catalogs, v->generations, v->blobs);
    if (v->damaged > 0)
        buffer_printf(out, "%" PRIu64 " objects are damaged\n", v->damaged);
    else if (data)
        buffer_printf(
            out, "all are there, and %" PRIu64 " blobs were read and are right\n", v->read_blobs);
    else
        buffer_append_string(out, "all are there, with their sizes\n");
}

static void
write_damage(struct json_writer *w, const struct verify_damage *d)
{
    write_json_begin_object(w, NULL);
    write_json_string(w, "key", d->key);
    write_json_string(w, "what", d->why);
    write_json_begin_array(w, "generations");
    for (size_t i = 0; i < d->generation_count; i++)
        write_json_u64(w, NULL, d->generations[i].v);
    write_json_end_array(w);
    write_json_begin_array(w, "files");
    for (size_t i = 0; i < d->file_count; i++)
        write_json_string(w, NULL, d->files[i]);
    write_json_end_array(w);
    write_json_bool(w, "more_files", d->more_files);
    write_json_end_object(w);
}

static void
write_report(const struct verify_result *v, const struct volume_verified *done, struct buffer *out)
{
    struct json_writer w = {.out = out};
    write_json_begin_object(&w, NULL);
    write_json_bool(&w, "sound", v->damaged == 0);
    write_json_u64(&w, "records", v->chain.records);
    write_json_u64(&w, "catalogs", v->chain.catalogs);
    write_json_u64(&w, "generations", v->generations);
    write_json_u64(&w, "blobs", v->blobs);
    write_json_u64(&w, "blob_bytes", v->blob_bytes);
    write_json_u64(&w, "read_blobs", v->read_blobs);
    write_json_u64(&w, "read_bytes", v->read_bytes);
    write_json_u64(&w, "lost_ranges", v->lost_ranges);
    write_json_u64(&w, "repaired", done->repaired);
    write_json_begin_array(&w, "damage");
    for (const struct verify_damage *d = v->damages; d; d = d->next)
        write_damage(&w, d);
    write_json_end_array(&w);
    write_json_end_object(&w);
    buffer_append_string(out, "\n");
}

void
offline_print_damages(
    const struct verify_result *v, uint64_t damaged, bool json, struct buffer *out)
{
    uint64_t left_out = damaged > v->damaged ? damaged - v->damaged : 0;
    if (!json) {
        for (const struct verify_damage *d = v->damages; d; d = d->next)
            offline_print_damage(d, out);
        if (left_out > 0)
            buffer_printf(
                out, "%" PRIu64 " more damaged objects: the daemon's log names them\n", left_out);
        return;
    }
    struct json_writer w = {.out = out};
    write_json_begin_object(&w, NULL);
    write_json_u64(&w, "damaged", damaged);
    write_json_u64(&w, "left_out", left_out);
    write_json_begin_array(&w, "damage");
    for (const struct verify_damage *d = v->damages; d; d = d->next)
        write_damage(&w, d);
    write_json_end_array(&w);
    write_json_end_object(&w);
}

// ---- looking ------------------------------------------------------------------------------------

struct verifying {
    struct offline *o;
    const struct volume_verify_request *request;
    struct volume_verified *done;
};

static int
tell(void *argument, const char *what, uint64_t done, uint64_t total)
{
    const struct volume_progress *progress = argument;
    return progress->tell(progress->argument, what, done, total);
}

static int
look(const struct verifying *v, struct verify_result *result, struct buffer *error)
{
    const struct verify_options options = {
        .place = &v->o->place,
        .manifest = v->o->manifest,
        .data = v->request->data,
        .progress = v->request->progress ? tell : NULL,
        .argument = (void *)v->request->progress,
    };
    int rc = verify_run(&options, result);
    if (rc == -ENOENT)
        volume_error(error, "there is no volume at %s", v->o->config->source);
    else if (rc == -ECANCELED)
        volume_error(error, "interrupted");
    else if (rc < 0)
        return offline_store_problem(v->o, "verify", rc, error);
    return rc;
}

// ---- repairing ----------------------------------------------------------------------------------

static int
put_back_blobs(const struct verifying *v, const struct verify_result *result, struct buffer *error)
{
    CLEANUP(memory_free_auto)
    char *hot_cache = v->request->root ? memory_printf("%s/hot_cache", v->request->root) : NULL;
    for (const struct verify_damage *d = result->damages; hot_cache && d; d = d->next) {
        int rc = d->is_blob ? verify_put_back(&v->o->place, hot_cache, d) : 0;
        if (rc < 0)
            return offline_store_problem(v->o, "put a blob back to", rc, error);
        v->done->repaired += (uint64_t)rc;
    }
    return 0;
}

static bool
has_bad_catalog(const struct verify_result *result)
{
    for (const struct verify_damage *d = result->damages; d; d = d->next)
        if (strstr(d->key, "/catalog-"))
            return true;
    return false;
}

// Catalogs say nothing that the records do not say, as long as those are there: every generation
// that is kept could be read without the bad ones.
static bool
can_do_without(const struct verify_result *result)
{
    for (const struct verify_damage *d = result->damages; d; d = d->next)
        if (!d->is_blob && !strstr(d->key, "/catalog-"))
            return false;
    return true;
}

static int
delete_bad_catalogs(
    const struct verifying *v, const struct verify_result *result, struct buffer *error)
{
    for (const struct verify_damage *d = result->damages; d; d = d->next) {
        if (!strstr(d->key, "/catalog-"))
            continue;
        const char *key = d->key;
        int rc = remote_store_delete_blobs(v->o->store, &key, 1, &v->o->place.call);
        if (rc < 0)
            return offline_store_problem(v->o, "delete a damaged catalog of", rc, error);
        v->done->repaired++;
    }
    return 0;
}

// A new catalog first, then the bad ones go.
static int
renew_catalogs(const struct verifying *v, const struct verify_result *result, struct buffer *error)
{
    struct db_record db;
    if (!has_bad_catalog(result) || !can_do_without(result))
        return 0;
    int rc = offline_claim(v->o, &db, error);
    if (rc < 0)
        return rc;
    rc = remote_manifest_write_catalog(&v->o->place, v->o->manifest, db.id);
    if (rc < 0)
        (void)offline_store_problem(v->o, "write a catalog of", rc, error);
    if (rc == 0)
        rc = delete_bad_catalogs(v, result, error);
    offline_give_back(v->o, &db);
    int removed = manifest_remove_db(v->o->manifest, db.id);
    return rc < 0 ? rc : removed;
}

// Repairs all repairable damage, and looks again.
static int
repair(const struct verifying *v, struct verify_result *result, struct buffer *error)
{
    int rc = put_back_blobs(v, result, error);
    if (rc == 0)
        rc = renew_catalogs(v, result, error);
    if (rc < 0 || v->done->repaired == 0)
        return rc;
    verify_result_free(result);
    return look(v, result, error);
}

int
volume_verify(const struct volume_config *config, const struct volume_verify_request *request,
    struct volume_verified *verified_out, struct buffer *out, struct buffer *error)
{
    struct offline o;
    struct verify_result result = {0};
    const struct verifying v = {&o, request, verified_out};
    *verified_out = (struct volume_verified){0};
    int rc = offline_open(config, &o, error);
    if (rc == 0)
        rc = look(&v, &result, error);
    if (rc == 0 && request->repair && result.damaged > 0)
        rc = repair(&v, &result, error);
    verified_out->damaged = result.damaged;
    if (rc == 0 && request->json)
        write_report(&result, verified_out, out);
    else if (rc == 0)
        offline_print_report(&result, verified_out, request->data, out);
    verify_result_free(&result);
    offline_close(&o);
    return rc;
}
