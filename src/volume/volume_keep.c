// SPDX-License-Identifier: Apache-2.0
// Files whose images a user wants to stay in hot_cache, and the blobs that they lie in as of a
// local generation: a thread that evicts looks first whether it is the present one.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "format/record_codec.h"
#include "jobs/job_kinds.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "volume/volume_fetch.h"
#include "volume/volume_internal.h"

#define ALL_FILES 0u

// ---- the images of a file -----------------------------------------------------------------------

struct chunk_list {
    struct chunk_index *indexes;
    size_t count;
};

static int
note_chunk(void *argument, struct chunk_index index, struct chunk_id id UNUSED,
    uint32_t present_pages UNUSED)
{
    struct chunk_list *x = argument;
    x->indexes = memory_realloc(x->indexes, (x->count + 1) * sizeof(*x->indexes));
    x->indexes[x->count++] = index;
    return 0;
}

struct image_visit {
    volume_visit_image *visit;
    void *argument;
};

static int
visit_delta(void *argument, const struct chunk_delta *delta)
{
    const struct image_visit *x = argument;
    x->visit(x->argument, &delta->where);
    return 0;
}

static int
visit_chunk(struct manifest_reader *r, struct db_id db, struct object_id object,
    struct chunk_index index, const struct image_visit *x)
{
    struct chunk_entry entry;
    int rc = manifest_read_chunk(r, db, object, index, &entry);
    if (rc < 0)
        return rc;
    if (chunk_entry_has_base(&entry))
        x->visit(x->argument, &entry.base);
    return manifest_read_deltas(r, db, entry.id, visit_delta, (void *)x);
}

// From one transaction, and not by way of the chunk map, which drops a layout only after the fold
// has recorded another one.
static int
visit_images(struct volume *v, struct manifest_reader *r, struct object_id object,
    const struct image_visit *visit)
{
    struct chunk_list x = {0};
    int rc = manifest_read_object_chunks(r, v->db, object, (struct chunk_index){0}, note_chunk, &x);
    for (size_t i = 0; rc == 0 && i < x.count; i++)
        rc = visit_chunk(r, v->db, object, x.indexes[i], visit);
    free(x.indexes);
    return rc;
}

int
volume_visit_images(struct volume *v, uint64_t inode, volume_visit_image *visit, void *argument)
{
    struct manifest_reader *r;
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc < 0)
        return rc;
    rc =
        visit_images(v, r, (struct object_id){inode}, &(const struct image_visit){visit, argument});
    manifest_read_end(r);
    return rc;
}

// ---- kept files ---------------------------------------------------------------------------------

static int
compare_hashes(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct sha256));
}

static void
note_image(void *argument, const struct blob_location *where)
{
    struct volume_kept *k = argument;
    if (k->blob_count == k->blob_capacity) {
        k->blob_capacity = k->blob_capacity ? 2 * k->blob_capacity : 64;
        k->blobs = memory_realloc(k->blobs, k->blob_capacity * sizeof(*k->blobs));
    }
    k->blobs[k->blob_count++] = where->blob;
}

static void
forget_blobs(struct volume_kept *k)
{
    k->blob_count = 0;
    k->generation.v = UINT64_MAX; // none has it: look again
}

static int
refresh(struct volume *v, struct manifest_reader *r)
{
    struct volume_kept *k = &v->kept;
    struct db_record db;
    int rc = manifest_read_db(r, v->db, &db);
    if (rc < 0 || db.local.v == k->generation.v)
        return rc;
    forget_blobs(k);
    for (size_t i = 0; rc == 0 && i < k->inode_count; i++)
        rc = visit_images(
            v, r, (struct object_id){k->inodes[i]}, &(const struct image_visit){note_image, k});
    if (k->blob_count > 0)
        qsort(k->blobs, k->blob_count, sizeof(*k->blobs), compare_hashes);
    if (rc == 0)
        k->generation = db.local;
    return rc;
}

void
volume_refresh_kept_locked(struct volume *v)
{
    struct volume_kept *k = &v->kept;
    struct manifest_reader *r;
    if (k->inode_count == 0)
        return;
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc == 0) {
        rc = refresh(v, r);
        manifest_read_end(r);
    }
    if (rc < 0 && !k->unknown)
        log_warning("cache.kept_unknown",
            "cannot read which blobs the pinned files have: %s; until that works, or ckptctl evict "
            "ends the pins, nothing is evicted",
            strerror(-rc));
    k->unknown = rc < 0;
}

bool
volume_is_kept_locked(const struct volume *v, const struct sha256 *hash)
{
    const struct volume_kept *k = &v->kept;
    if (k->all || k->unknown)
        return true;
    return k->blob_count > 0 &&
           bsearch(hash, k->blobs, k->blob_count, sizeof(*k->blobs), compare_hashes);
}

static size_t
find_inode(const struct volume_kept *k, uint64_t inode)
{
    size_t i = 0;
    while (i < k->inode_count && k->inodes[i] != inode)
        i++;
    return i;
}

// A thread that evicts on demand looks at the kept files without holding `evicting` while it
// removes.
static void
wait_for_removals(struct volume *v)
{
    struct pin *pin = pin_begin(local_store_pins(v->local), "ckptctl", "its file is to stay");
    pin_everything(pin);
    pin_end(pin);
}

// The job for which the file is kept; NULL: it is not kept.
static uint64_t *
job_of_locked(struct volume_kept *k, uint64_t inode)
{
    if (inode == ALL_FILES)
        return k->all ? &k->all_job : NULL;
    size_t i = find_inode(k, inode);
    return i < k->inode_count ? &k->jobs[i] : NULL;
}

static int
keep_locked(struct volume_kept *k, uint64_t inode, uint64_t job)
{
    uint64_t *present = job_of_locked(k, inode);
    if (present) {
        // A job of the file takes over from one that has ended.
        *present = *present == 0 ? 0 : job;
        return 0;
    }
    if (inode == ALL_FILES) {
        k->all = true;
        k->all_job = job;
        return 0;
    }
    if (k->inode_count == ARRAY_LENGTH(k->inodes))
        return -ENOSPC;
    k->inodes[k->inode_count] = inode;
    k->jobs[k->inode_count++] = job;
    return 0;
}

static void
unkeep_locked(struct volume_kept *k, uint64_t inode)
{
    size_t i = find_inode(k, inode);
    if (inode == ALL_FILES) {
        k->all = false;
    } else if (i < k->inode_count) {
        k->inode_count--;
        k->inodes[i] = k->inodes[k->inode_count];
        k->jobs[i] = k->jobs[k->inode_count];
    }
    forget_blobs(k);
    k->unknown = k->unknown && k->inode_count > 0;
}

int
volume_keep(struct volume *v, uint64_t inode, uint64_t job)
{
    lock_take(&v->evicting);
    int rc = keep_locked(&v->kept, inode, job);
    forget_blobs(&v->kept);
    lock_release(&v->evicting);
    if (rc == 0)
        wait_for_removals(v);
    return rc;
}

void
volume_end_keep(struct volume *v, uint64_t inode, uint64_t job, bool stays)
{
    lock_take(&v->evicting);
    uint64_t *present = job_of_locked(&v->kept, inode);
    bool is_its = present && *present == job;
    if (is_its && stays)
        *present = 0;
    else if (is_its)
        unkeep_locked(&v->kept, inode);
    lock_release(&v->evicting);
}

void
volume_unkeep(struct volume *v, uint64_t inode)
{
    lock_take(&v->evicting);
    unkeep_locked(&v->kept, inode);
    lock_release(&v->evicting);
}

void
volume_unkeep_all(struct volume *v)
{
    struct volume_kept *k = &v->kept;
    lock_take(&v->evicting);
    k->all = k->unknown = false;
    k->inode_count = 0;
    forget_blobs(k);
    lock_release(&v->evicting);
}

static int
keep_for_job(void *argument, const struct job_record *job)
{
    struct volume *v = argument;
    struct job_hydration order;
    bool unfinished = job->state == JOB_PENDING || job->state == JOB_IN_FLIGHT;
    if (job->kind == JOB_HYDRATE_FILES && unfinished && job_read_parameters(job, &order) == 0 &&
        order.keep && keep_locked(&v->kept, order.object.v, job->id) < 0)
        log_warning("cache.kept_unknown", "too many files are pinned to pin inode %llu",
            (unsigned long long)order.object.v);
    return 0;
}

void
volume_keep_for_jobs(struct volume *v)
{
    struct manifest_reader *r;
    volume_unkeep_all(v);
    // Without the table the mount fails later, when it opens the queue.
    if (manifest_read_begin(v->manifest, &r) < 0)
        return;
    lock_take(&v->evicting);
    int ignored UNUSED = manifest_read_jobs(r, v->db, keep_for_job, v);
    lock_release(&v->evicting);
    manifest_read_end(r);
}

void
volume_free_kept(struct volume *v)
{
    free(v->kept.blobs);
    v->kept = (struct volume_kept){0};
}
