// SPDX-License-Identifier: Apache-2.0
// Files whose images a user wants to stay in hot_cache, and the blobs that they lie in as of a
// local generation: a thread that evicts looks first whether it is the present one.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
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

static int
visit_chunk(struct volume *v, struct object_id object, struct chunk_index index,
    volume_visit_image *visit, void *argument)
{
    struct chunk_layout *layout;
    int rc = chunk_map_get(v->map, object, index, &layout);
    if (rc < 0 || !layout)
        return rc;
    for (size_t i = 0; i < layout->image_count; i++)
        visit(argument, &layout->images[i]);
    chunk_layout_put(v->map, layout);
    return 0;
}

int
volume_visit_images(struct volume *v, uint64_t inode, volume_visit_image *visit, void *argument)
{
    const struct object_id object = {inode};
    struct chunk_list x = {0};
    struct manifest_reader *r;
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_object_chunks(r, v->db, object, (struct chunk_index){0}, note_chunk, &x);
    manifest_read_end(r);
    for (size_t i = 0; rc == 0 && i < x.count; i++)
        rc = visit_chunk(v, object, x.indexes[i], visit, argument);
    free(x.indexes);
    return rc;
}

// ---- kept files ---------------------------------------------------------------------------------

static int
compare_hashes(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct sha256));
}

static void
note_image(void *argument, const struct chunk_image *image)
{
    struct volume_kept *k = argument;
    if (k->blob_count == k->blob_capacity) {
        k->blob_capacity = k->blob_capacity ? 2 * k->blob_capacity : 64;
        k->blobs = memory_realloc(k->blobs, k->blob_capacity * sizeof(*k->blobs));
    }
    k->blobs[k->blob_count++] = image->where.blob;
}

static struct generation
local_generation(struct volume *v)
{
    struct manifest_reader *r;
    struct db_record db = {0};
    if (manifest_read_begin(v->manifest, &r) < 0)
        return (struct generation){0};
    if (manifest_read_db(r, v->db, &db) < 0)
        db.local.v = 0;
    manifest_read_end(r);
    return db.local;
}

void
volume_refresh_kept(struct volume *v)
{
    struct volume_kept *k = &v->kept;
    if (k->inode_count == 0)
        return;
    struct generation now = local_generation(v);
    if (now.v == k->generation.v)
        return;
    k->blob_count = 0;
    k->generation = now;
    for (size_t i = 0; i < k->inode_count; i++)
        // What cannot be read now is kept when the next generation comes.
        (void)!volume_visit_images(v, k->inodes[i], note_image, k);
    if (k->blob_count > 0)
        qsort(k->blobs, k->blob_count, sizeof(*k->blobs), compare_hashes);
}

bool
volume_is_kept(const struct volume *v, const struct sha256 *hash)
{
    const struct volume_kept *k = &v->kept;
    if (k->all)
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

int
volume_keep(struct volume *v, uint64_t inode)
{
    struct volume_kept *k = &v->kept;
    int rc = 0;
    lock_take(&v->evicting);
    size_t i = find_inode(k, inode);
    if (inode == ALL_FILES)
        k->all = true;
    else if (i == ARRAY_LENGTH(k->inodes))
        rc = -ENOSPC;
    else if (i == k->inode_count)
        k->inodes[k->inode_count++] = inode;
    k->generation.v = UINT64_MAX; // none has it: look again
    lock_release(&v->evicting);
    return rc;
}

void
volume_unkeep(struct volume *v, uint64_t inode)
{
    struct volume_kept *k = &v->kept;
    lock_take(&v->evicting);
    size_t i = find_inode(k, inode);
    if (inode == ALL_FILES) {
        k->all = false;
        k->inode_count = 0;
    } else if (i < k->inode_count) {
        k->inodes[i] = k->inodes[--k->inode_count];
    }
    k->blob_count = 0;
    k->generation.v = UINT64_MAX;
    lock_release(&v->evicting);
}

void
volume_free_kept(struct volume *v)
{
    free(v->kept.blobs);
    v->kept = (struct volume_kept){0};
}
