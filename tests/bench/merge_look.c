// SPDX-License-Identifier: Apache-2.0
// What a published volume looks like to its readers: how many images stand between a page and its
// content, and how many bytes of the store's blobs are live. For tests/bench/merge_run.
//     merge_look SOURCE ROOT [OPTION...]   ROOT: a directory for throwaway files
// Prints one JSON object. Opens the newest generation read-only, as a mount with `ro`.
#include "bench_common.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

struct look {
    struct volume *v;
    struct chunk_entry *chunks;
    size_t count;
    uint64_t present_pages; // of all chunks
    uint64_t read_pages;    // pages that an image has
    uint64_t consulted;     // images, added up over them
    uint64_t longest;       // chain
    uint64_t deltas;
    uint64_t blobs;
    uint64_t stored_bytes;
    uint64_t image_bytes;
};

static _Noreturn void
fail(const char *what, const char *why)
{
    fprintf(stderr, "merge_look: %s: %s\n", what, why);
    exit(1);
}

static void
must(int rc, const char *what)
{
    if (rc < 0)
        fail(what, strerror(-rc));
}

static int
note_chunk(void *argument, const struct chunk_entry *chunk)
{
    struct look *l = argument;
    if ((l->count & (l->count - 1)) == 0)
        l->chunks = memory_realloc(l->chunks, (l->count ? 2 * l->count : 1) * sizeof(*l->chunks));
    l->chunks[l->count++] = *chunk;
    l->present_pages += chunk->present_pages;
    l->deltas += chunk->delta_count;
    if (chunk->delta_count > l->longest)
        l->longest = chunk->delta_count;
    return 0;
}

static int
note_blob(void *argument, const struct blob_record *blob)
{
    struct look *l = argument;
    l->blobs++;
    l->stored_bytes += blob->bytes;
    l->image_bytes += blob->live_bytes;
    return 0;
}

static void
read_catalog(struct look *l)
{
    struct manifest_reader *r;
    struct sha256 first = {{0}};
    must(manifest_read_begin(l->v->manifest, &r), "manifest");
    must(manifest_read_chunks(r, l->v->db, (struct chunk_id){0}, note_chunk, l), "chunks");
    must(manifest_read_remote_blobs(r, l->v->db, &first, note_blob, l), "blobs");
    manifest_read_end(r);
}

// A reader asks the images from the newest on, and goes on below a patch.
static void
look_at_page(struct look *l, const struct blob_index *const *indexes, size_t count, uint32_t page)
{
    for (size_t i = 0; i < count; i++) {
        struct blob_page p;
        blob_index_find(indexes[i], page, &p);
        if (p.state == BLOB_PAGE_ABSENT || p.state == BLOB_PAGE_PATCH)
            continue;
        l->read_pages++;
        l->consulted += i + 1;
        return;
    }
}

static void
look_at_chunk(struct look *l, const struct chunk_entry *chunk)
{
    static const struct remote_call call = {.class = REMOTE_JOB};
    struct chunk_layout *layout;
    must(chunk_map_get(l->v->map, chunk->object, chunk->index, &layout), "layout");
    if (!layout)
        fail("layout", "the chunk is gone");
    const struct blob_index **indexes = memory_alloc((layout->image_count + 1) * sizeof(*indexes));
    for (size_t i = 0; i < layout->image_count; i++)
        must(chunk_reader_index(l->v->reader, layout, i, &call, &indexes[i]), "index");
    for (uint32_t page = 0; page < CHUNK_PAGES; page++)
        look_at_page(l, indexes, layout->image_count, page);
    free(indexes);
    chunk_layout_put(l->v->map, layout);
}

static void
print(const struct look *l)
{
    printf("{\"chunks\": %zu, \"pages\": %" PRIu64
           ", \"images_mean\": %.3f, \"images_most\": %" PRIu64 ", \"deltas\": %" PRIu64
           ", \"blobs\": %" PRIu64 ", \"stored_bytes\": %" PRIu64 ", \"image_bytes\": %" PRIu64
           ", \"live_bytes\": %" PRIu64 "}\n",
        l->count, l->read_pages, l->read_pages ? (double)l->consulted / (double)l->read_pages : 0,
        l->longest + 1, l->deltas, l->blobs, l->stored_bytes, l->image_bytes,
        l->present_pages * PAGE_BYTES);
}

int
main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: merge_look SOURCE ROOT [OPTION...]\n");
        return 2;
    }
    struct look l = {0};
    struct volume_config config;
    BUFFER_AUTO error = {0};
    log_set_level(LOG_LEVEL_ERROR);
    volume_config_init(&config);
    config.source = memory_string(argv[1]);
    free(config.root);
    config.root = memory_string(argv[2]);
    config.read_only = true;
    for (int i = 3; i < argc; i++)
        if (volume_config_set(&config, argv[i], &error) < 0)
            fail(argv[i], buffer_string(&error));
    if (volume_open(&config, NULL, &l.v, &error) < 0)
        fail(argv[1], buffer_string(&error));
    read_catalog(&l);
    for (size_t i = 0; i < l.count; i++)
        look_at_chunk(&l, &l.chunks[i]);
    print(&l);
    free(l.chunks);
    must(volume_close(l.v), "close");
    volume_config_free(&config);
    return 0;
}
