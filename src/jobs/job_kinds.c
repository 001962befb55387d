// SPDX-License-Identifier: Apache-2.0
#include "jobs/job_kinds.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

// ---- parameters that are one number -------------------------------------------------------------

static void
encode_generation(const void *parameters, struct buffer *out)
{
    buffer_append_le64(out, ((const struct job_generation *)parameters)->generation.v);
}

static bool
decode_generation(unsigned version UNUSED, struct byte_reader *r, void *parameters_out)
{
    struct job_generation *p = parameters_out;
    p->generation.v = read_le64(r);
    return p->generation.v != 0;
}

// ---- verifications ------------------------------------------------------------------------------

static bool
has_found(const struct job_verification *p)
{
    return p->damaged > 0;
}

// Version 2 has the report; programs before it can carry out jobs without one.
static void
encode_verification(const void *parameters, struct buffer *out)
{
    const struct job_verification *p = parameters;
    buffer_append_u8(out, p->data);
    if (!has_found(p))
        return;
    buffer_append_le64(out, p->damaged);
    buffer_append(out, p->report, p->report_length);
}

static unsigned
version_of_verification(const void *parameters)
{
    return has_found(parameters) ? 2 : 1;
}

static bool
decode_verification(unsigned version, struct byte_reader *r, void *parameters_out)
{
    struct job_verification *p = parameters_out;
    uint8_t data = read_u8(r);
    *p = (struct job_verification){.data = data != 0};
    if (version == 1)
        return data <= 1;
    p->damaged = read_le64(r);
    p->report_length = r->bad ? 0 : (uint32_t)byte_reader_left(r);
    p->report = read_bytes(r, p->report_length);
    return data <= 1 && has_found(p);
}

// ---- truncations --------------------------------------------------------------------------------

static void
key_truncation(const void *parameters, struct buffer *out)
{
    buffer_append_le64(out, ((const struct job_truncation *)parameters)->object.v);
}

static void
encode_truncation(const void *parameters, struct buffer *out)
{
    const struct job_truncation *p = parameters;
    buffer_append_le64(out, p->object.v);
    buffer_append_u8(out, p->tail);
    buffer_append_le64(out, p->offset);
    buffer_append_le64(out, p->size);
    buffer_append(out, p->session.b, sizeof(p->session.b));
}

// No program has ever written version 1, which had the object only.
static bool
decode_truncation(unsigned version, struct byte_reader *r, void *parameters_out)
{
    struct job_truncation *p = parameters_out;
    p->object.v = read_le64(r);
    uint8_t tail = read_u8(r);
    p->tail = tail != 0;
    p->offset = read_le64(r);
    p->size = read_le64(r);
    read_copy(r, p->session.b, sizeof(p->session.b));
    return version == 2 && tail <= 1 && p->object.v != 0 && p->offset <= OBJECT_MAX_BYTES;
}

// ---- hydrations ---------------------------------------------------------------------------------

static void
key_hydration(const void *parameters, struct buffer *out)
{
    const struct job_hydration *p = parameters;
    buffer_append_le64(out, p->object.v);
    if (p->hot)
        buffer_append_u8(out, p->hot);
}

// Version 2 has `hot`; programs before it can carry out jobs without that.
static void
encode_hydration(const void *parameters, struct buffer *out)
{
    const struct job_hydration *p = parameters;
    buffer_append_le64(out, p->object.v);
    buffer_append_u8(out, p->keep);
    if (p->hot)
        buffer_append_u8(out, p->hot);
}

static unsigned
version_of_hydration(const void *parameters)
{
    return ((const struct job_hydration *)parameters)->hot ? 2 : 1;
}

static bool
decode_hydration(unsigned version, struct byte_reader *r, void *parameters_out)
{
    struct job_hydration *p = parameters_out;
    *p = (struct job_hydration){.object = {read_le64(r)}};
    uint8_t keep = read_u8(r);
    p->keep = keep != 0;
    if (version == 1)
        return keep <= 1;
    p->hot = true;
    return read_u8(r) == 1 && keep == 0 && p->object.v == 0;
}

// ---- the table ----------------------------------------------------------------------------------

static const struct job_kind_entry kinds[] = {
    {.kind = JOB_CREATE_CHECKPOINT, .name = "CreateCheckpoint"},
    {JOB_VERIFY_MANIFEST, "VerifyManifest", 2, encode_verification, decode_verification, NULL,
        version_of_verification},
    {JOB_DOWNLOAD_CHECKPOINT, "DownloadCheckpoint", 1, encode_generation, decode_generation,
        encode_generation, NULL},
    {.kind = JOB_PRUNE_CHECKPOINT, .name = "PruneCheckpoint"},
    {JOB_TRUNCATE_APPEND_ONLY, "TruncateAppendOnly", 2, encode_truncation, decode_truncation,
        key_truncation, NULL},
    {.kind = JOB_MERGE_CHUNKS, .name = "MergeChunks"},
    {.kind = JOB_SWEEP_ORPHANS, .name = "SweepOrphans"},
    {.kind = JOB_DETACH_FORK, .name = "DetachFork"},
    {JOB_HYDRATE_FILES, "HydrateFiles", 2, encode_hydration, decode_hydration, key_hydration,
        version_of_hydration},
};

const struct job_kind_entry *
job_kind_find(enum job_kind kind)
{
    for (size_t i = 0; i < ARRAY_LENGTH(kinds); i++)
        if (kinds[i].kind == kind)
            return &kinds[i];
    return NULL;
}

const struct job_kind_entry *
job_kind_find_name(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(kinds); i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

void
job_set_kind(
    struct job_record *job, enum job_kind kind, const void *parameters, struct buffer *payload)
{
    const struct job_kind_entry *entry = job_kind_find(kind);
    assert(entry && (entry->payload_version > 0) == (parameters != NULL));
    BUFFER_AUTO key = {0};
    if (entry->key)
        entry->key(parameters, &key);
    assert(key.length <= JOB_KEY_BYTES_MAX);
    job->kind = kind;
    job->key_length = (uint8_t)key.length;
    if (key.length > 0)
        memcpy(job->key, key.data, key.length);
    job->payload_version =
        (uint16_t)(entry->version ? entry->version(parameters) : entry->payload_version);
    job->payload = NULL;
    job->payload_length = 0;
    if (!parameters)
        return;
    buffer_clear(payload);
    entry->encode(parameters, payload);
    job->payload = payload->data;
    job->payload_length = (uint32_t)payload->length;
}

int
job_read_parameters(const struct job_record *job, void *parameters_out)
{
    const struct job_kind_entry *entry = job_kind_find(job->kind);
    if (!entry || job->payload_version > entry->payload_version)
        return -ENOTSUP;
    if (entry->payload_version == 0)
        return job->payload_length == 0 ? 0 : -EBADMSG;
    struct byte_reader r = byte_reader_over(job->payload, job->payload_length);
    bool good = job->payload_version > 0 && entry->decode(job->payload_version, &r, parameters_out);
    return good && !r.bad && byte_reader_left(&r) == 0 ? 0 : -EBADMSG;
}
