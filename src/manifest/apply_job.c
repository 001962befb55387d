// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>

#include "manifest/manifest_internal.h"
#include "platform/log.h"

static bool
is_unfinished(const struct job_record *job)
{
    return job->state == JOB_PENDING || job->state == JOB_IN_FLIGHT;
}

// The unfinished job of this kind and key; 0 when there is none.
static int
load_pending(struct apply *a, const struct job_record *job, uint64_t *id_out)
{
    struct schema_key key;
    struct lmdb_value value;
    *id_out = 0;
    schema_key_pending_job(&key, a->db.id, job);
    int rc = lmdb_get(a->txn, TABLE_JOB_PENDING_INDEX, key.bytes, key.length, &value);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return schema_decode_u64(value.data, value.length, id_out)
               ? 0
               : manifest_bad_entry(TABLE_JOB_PENDING_INDEX);
}

static int
set_pending(struct apply *a, const struct job_record *job, uint64_t id)
{
    struct schema_key key;
    schema_key_pending_job(&key, a->db.id, job);
    buffer_clear(&a->value);
    schema_encode_u64(id, &a->value);
    return apply_put(a, TABLE_JOB_PENDING_INDEX, &key);
}

// Takes the job off the index if it is there.
static int
clear_pending(struct apply *a, const struct job_record *job, uint64_t id)
{
    uint64_t pending;
    int rc = load_pending(a, job, &pending);
    if (rc < 0 || pending != id)
        return rc;
    struct schema_key key;
    schema_key_pending_job(&key, a->db.id, job);
    return lmdb_delete(a->txn, TABLE_JOB_PENDING_INDEX, key.bytes, key.length);
}

static int
load_job(struct apply *a, uint64_t id, struct job_record *job_out)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_number(&key, a->db.id, id);
    int rc = lmdb_get(a->txn, TABLE_JOB_QUEUE, key.bytes, key.length, &value);
    if (rc < 0)
        return rc;
    job_out->id = id;
    return schema_decode_job(value.data, value.length, job_out)
               ? 0
               : manifest_bad_entry(TABLE_JOB_QUEUE);
}

static int
assign_id(struct apply *a, const struct job_record *job, uint64_t *id_out)
{
    *id_out = job->id;
    if (job->id != 0)
        return 0;
    int rc = apply_runtime_number(a, RUNTIME_NEXT_JOB, a->db.id, 1, id_out);
    return rc < 0 ? rc : apply_put_runtime_number(a, RUNTIME_NEXT_JOB, a->db.id, *id_out + 1);
}

// Brings job_pending_index in line with the job; -EEXIST when another one is in its place.
static int
update_pending(struct apply *a, const struct job_record *job, uint64_t id)
{
    if (!is_unfinished(job))
        return clear_pending(a, job, id);
    uint64_t pending;
    int rc = load_pending(a, job, &pending);
    if (rc < 0)
        return rc;
    if (pending != 0 && pending != id)
        return -EEXIST;
    return pending == id ? 0 : set_pending(a, job, id);
}

int
apply_put_job(struct apply *a, struct job_record *job)
{
    uint64_t id;
    struct job_record old;
    int rc = assign_id(a, job, &id);
    if (rc < 0)
        return rc;
    rc = load_job(a, id, &old);
    if (rc == 0 && (old.kind != job->kind || old.key_length != job->key_length ||
                       memcmp(old.key, job->key, job->key_length) != 0))
        rc = clear_pending(a, &old, id);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    rc = update_pending(a, job, id);
    if (rc < 0)
        return rc;
    struct schema_key key;
    schema_key_number(&key, a->db.id, id);
    buffer_clear(&a->value);
    schema_encode_job(job, &a->value);
    struct job_record decoded;
    if (!schema_decode_job(a->value.data, a->value.length, &decoded)) {
        log_error("manifest.batch_refused", "db %" PRIu32 ": a job is not valid", a->db.id.v);
        return -EINVAL;
    }
    struct assigned_job_id assigned = {job, id};
    buffer_append(&a->batch->assigned, &assigned, sizeof(assigned));
    return apply_put(a, TABLE_JOB_QUEUE, &key);
}

int
apply_remove_job(struct apply *a, uint64_t job_id)
{
    struct job_record old;
    int rc = load_job(a, job_id, &old);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    rc = clear_pending(a, &old, job_id);
    if (rc < 0)
        return rc;
    struct schema_key key;
    schema_key_number(&key, a->db.id, job_id);
    return lmdb_delete(a->txn, TABLE_JOB_QUEUE, key.bytes, key.length);
}
