// SPDX-License-Identifier: Apache-2.0
// Which files need damaged blobs, by their paths; and putting blobs back.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "platform/file.h"
#include "platform/memory.h"
#include "remote/remote_blob.h"
#include "retention/local_copy.h"
#include "retention/verify_internal.h"

// A path is not followed further up.
#define DEPTH_MAX 4096u

struct name {
    struct object_id object, parent;
    char *name;
};

struct place_of_chunk {
    struct chunk_id chunk;
    struct object_id object;
};

struct need {
    struct object_id object;
    struct verify_damage *damage;
};

struct finding {
    struct verify_result *result;
    struct name *names; // in the order of objects, once all are there
    size_t name_count, name_capacity;
    struct place_of_chunk *chunks; // in the order of chunks, once all are there
    size_t chunk_count, chunk_capacity;
    struct need *needs;
    size_t need_count, need_capacity;
    bool sorted;
};

static int
compare_names(const void *a, const void *b)
{
    uint64_t x = ((const struct name *)a)->object.v;
    uint64_t y = ((const struct name *)b)->object.v;
    return (x > y) - (x < y);
}

static int
compare_chunks(const void *a, const void *b)
{
    uint64_t x = ((const struct place_of_chunk *)a)->chunk.v;
    uint64_t y = ((const struct place_of_chunk *)b)->chunk.v;
    return (x > y) - (x < y);
}

static void
grow(void **array, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return;
    *capacity = *capacity ? *capacity * 2 : 256;
    *array = memory_realloc(*array, *capacity * size);
}

static void
need(struct finding *f, struct object_id object, const struct sha256 *blob)
{
    struct verify_damage *damage = verify_find_blob(f->result, blob);
    if (!damage)
        return;
    grow((void **)&f->needs, f->need_count, &f->need_capacity, sizeof(*f->needs));
    f->needs[f->need_count++] = (struct need){object, damage};
}

static void
hear_chunk(struct finding *f, const struct chunk_entry *chunk)
{
    grow((void **)&f->chunks, f->chunk_count, &f->chunk_capacity, sizeof(*f->chunks));
    f->chunks[f->chunk_count++] = (struct place_of_chunk){chunk->id, chunk->object};
    if (chunk->base.length > 0)
        need(f, chunk->object, &chunk->base.blob);
}

// Chunks come before deltas.
static void
hear_delta(struct finding *f, const struct chunk_delta *delta)
{
    if (!f->sorted && f->chunk_count > 0)
        qsort(f->chunks, f->chunk_count, sizeof(*f->chunks), compare_chunks);
    f->sorted = true;
    const struct place_of_chunk wanted = {.chunk = delta->chunk};
    const struct place_of_chunk *found =
        f->chunk_count > 0
            ? bsearch(&wanted, f->chunks, f->chunk_count, sizeof(wanted), compare_chunks)
            : NULL;
    if (found)
        need(f, found->object, &delta->where.blob);
}

static int
hear(void *argument, const struct change *c)
{
    struct finding *f = argument;
    if (c->kind == CHANGE_PUT_DIRENT) {
        grow((void **)&f->names, f->name_count, &f->name_capacity, sizeof(*f->names));
        f->names[f->name_count++] = (struct name){c->dirent.object, c->dirent.parent,
            memory_printf("%.*s", (int)c->dirent.name_length, c->dirent.name)};
    } else if (c->kind == CHANGE_PUT_CHUNK) {
        hear_chunk(f, &c->chunk);
    } else if (c->kind == CHANGE_PUT_DELTA) {
        hear_delta(f, &c->delta);
    }
    return 0;
}

// "/a/b", or the inode's number when no name leads to it.
static char *
path_of(const struct finding *f, struct object_id object)
{
    char *path = memory_string("");
    struct object_id at = object;
    for (unsigned depth = 0; at.v != OBJECT_ROOT_DIRECTORY.v && depth < DEPTH_MAX; depth++) {
        const struct name wanted = {.object = at};
        const struct name *found = f->name_count > 0 ? bsearch(&wanted, f->names, f->name_count,
                                                           sizeof(wanted), compare_names)
                                                     : NULL;
        if (!found)
            break;
        char *longer = memory_printf("/%s%s", found->name, path);
        free(path);
        path = longer;
        at = found->parent;
    }
    if (at.v == OBJECT_ROOT_DIRECTORY.v)
        return path;
    free(path);
    return memory_printf("inode %" PRIu64, object.v);
}

static void
add_file(struct verify_damage *d, char *path)
{
    for (size_t i = 0; i < d->file_count; i++)
        if (strcmp(d->files[i], path) == 0) {
            free(path);
            return;
        }
    if (d->file_count == VERIFY_FILES_MAX) {
        d->more_files = true;
        free(path);
        return;
    }
    d->files = memory_realloc(d->files, (d->file_count + 1) * sizeof(*d->files));
    d->files[d->file_count++] = path;
}

int
verify_find_files(struct manifest *m, struct db_id db, struct verify_result *result)
{
    struct finding f = {.result = result};
    struct manifest_reader *r;
    int rc = manifest_read_begin(m, &r);
    if (rc < 0)
        return rc;
    rc = manifest_export(r, db, hear, &f);
    manifest_read_end(r);
    if (f.name_count > 0)
        qsort(f.names, f.name_count, sizeof(*f.names), compare_names);
    for (size_t i = 0; rc == 0 && i < f.need_count; i++)
        if (i == 0 || f.needs[i].object.v != f.needs[i - 1].object.v ||
            f.needs[i].damage != f.needs[i - 1].damage)
            add_file(f.needs[i].damage, path_of(&f, f.needs[i].object));
    for (size_t i = 0; i < f.name_count; i++)
        free(f.names[i].name);
    free(f.names);
    free(f.chunks);
    free(f.needs);
    return rc;
}

// ---- putting back -------------------------------------------------------------------------------

int
verify_put_back(
    const struct remote_place *place, const char *hot_cache, const struct verify_damage *damage)
{
    CLEANUP(file_close_auto) int fd = local_copy_open(hot_cache, &damage->hash, damage->bytes);
    if (fd < 0)
        return 0;
    int rc = remote_blob_put(place, damage->key, fd, damage->bytes, &damage->hash);
    return rc < 0 ? rc : 1;
}
