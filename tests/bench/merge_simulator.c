// SPDX-License-Identifier: Apache-2.0
// Drives the real CheckpointPlanner and the rules of upkeep over synthetic histories and prints how
// much they have written again: no files, no store, no clock, always the same numbers
// (doc/merging.md has them). Images are sets of pages; a page counts 4 KiB, uncompressed. Every
// checkpoint is published, and blobs without a live image are deleted at once. Between two
// checkpoints a round of upkeep fetches images for the next one.
//     merge_simulator [-r RATE] [-n HISTORY] [CHECKPOINTS...]
// A checkpoint changes one page of RATE (100) of the large files and the small ones. Each history,
// or the one with this name, runs for so many checkpoints on a host that has everything, and then
// for as many on one that has restored the volume and holds nothing. Without arguments it is a
// test: 50 checkpoints stay within the bounds that doc/merging.md names.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash_table.h"
#include "checkpoint/checkpoint_planner.h"
#include "checkpoint/checkpoint_upkeep.h"
#include "format/blob.h"
#include "platform/memory.h"

#define IMAGES_MAX     64u
#define PACK_BYTES_MAX (64u << 20)

struct image {
    uint64_t bits[CHUNK_PAGES / 64];
    uint64_t bytes;
    size_t pack;
    bool here;
};

struct chunk {
    uint32_t pages;
    struct image base;
    struct image *deltas[IMAGES_MAX]; // newest first
    size_t count;
    uint64_t dirty[CHUNK_PAGES / 64];
    uint32_t dirty_pages;
    bool offered; // to the next checkpoint
    bool sealed;
};

struct pack {
    uint64_t bytes;
    uint64_t live_bytes;
    bool shared; // by small images
};

struct run {
    struct chunk *chunks;
    size_t chunk_count;
    uint64_t seed;
    struct pack *packs;
    size_t pack_count;
    bool pack_open; // the newest one takes more images of this checkpoint
    bool append;    // of chunks that follow each other in one object
    bool one_chunk; // changes at a time
    uint64_t uploaded;
    uint64_t changed;
    uint64_t *uploads; // [checkpoints]
    size_t longest;
    struct upkeep_pack *poor;
    size_t poor_count;
    uint64_t fetched; // for upkeep
};

static uint64_t
pick(struct run *r, uint64_t below)
{
    return hash_u64(++r->seed) % below;
}

static uint32_t
count_bits(const uint64_t *bits)
{
    uint32_t n = 0;
    for (size_t i = 0; i < CHUNK_PAGES / 64; i++)
        n += (uint32_t)__builtin_popcountll(bits[i]);
    return n;
}

static void
dirty_page(struct run *r, size_t chunk, uint32_t page)
{
    struct chunk *c = &r->chunks[chunk];
    uint64_t bit = 1ull << (page % 64);
    c->dirty_pages += !(c->dirty[page / 64] & bit);
    c->dirty[page / 64] |= bit;
    if (page >= c->pages)
        c->pages = page + 1;
}

// ---- images -------------------------------------------------------------------------------------

static void
put_image(struct run *r, struct image *image, bool pack)
{
    image->bytes = (uint64_t)count_bits(image->bits) * PAGE_BYTES + 128;
    bool fits = pack && r->pack_open && r->packs[r->pack_count - 1].bytes < PACK_BYTES_MAX;
    if (!fits) {
        r->packs = memory_realloc(r->packs, (r->pack_count + 1) * sizeof(*r->packs));
        r->packs[r->pack_count++] = (struct pack){.shared = pack};
    }
    image->here = true;
    // A blob of its own ends the pack; that costs the simulated bucket some objects more.
    r->pack_open = pack;
    image->pack = r->pack_count - 1;
    r->packs[image->pack].bytes += image->bytes;
    r->packs[image->pack].live_bytes += image->bytes;
    r->uploaded += image->bytes;
}

static void
drop_deltas(struct run *r, struct chunk *c, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        r->packs[c->deltas[i]->pack].live_bytes -= c->deltas[i]->bytes;
        free(c->deltas[i]);
    }
    memmove(c->deltas, c->deltas + count, (c->count - count) * sizeof(c->deltas[0]));
    c->count -= count;
}

static void
make_base(struct run *r, struct chunk *c, const struct chunk_action *a)
{
    if (c->base.bytes > 0)
        r->packs[c->base.pack].live_bytes -= c->base.bytes;
    drop_deltas(r, c, c->count);
    for (uint32_t p = 0; p < c->pages; p++)
        c->base.bits[p / 64] |= 1ull << (p % 64);
    put_image(r, &c->base, a->pack);
}

static void
make_delta(struct run *r, struct chunk *c, const struct chunk_action *a)
{
    struct image *delta = memory_alloc_zero(sizeof(*delta));
    memcpy(delta->bits, c->dirty, sizeof(delta->bits));
    for (size_t i = 0; i < a->merge_count; i++)
        for (size_t k = 0; k < CHUNK_PAGES / 64; k++)
            delta->bits[k] |= c->deltas[i]->bits[k];
    drop_deltas(r, c, a->merge_count);
    if (c->count == IMAGES_MAX)
        abort();
    memmove(c->deltas + 1, c->deltas, c->count * sizeof(c->deltas[0]));
    c->deltas[0] = delta;
    c->count++;
    put_image(r, delta, a->pack);
}

// ---- upkeep -------------------------------------------------------------------------------------

static struct sha256
pack_hash(size_t pack)
{
    struct sha256 hash = {{0}};
    memcpy(hash.b, &pack, sizeof(pack));
    return hash;
}

static const struct upkeep_pack *
find_poor(const struct run *r, const struct image *image)
{
    struct sha256 hash = pack_hash(image->pack);
    return checkpoint_upkeep_find_pack(r->poor, r->poor_count, &hash);
}

static void
look_at_pack(const struct run *r, struct plan_chunk *in, const struct image *image, bool *poor)
{
    const struct upkeep_pack *pack = find_poor(r, image);
    *poor = pack != NULL;
    if (pack && (in->poor_rank == UINT32_MAX || pack->rank < in->poor_rank))
        in->poor_rank = pack->rank;
}

// `deltas`: room for IMAGES_MAX of them.
static struct plan_chunk
describe(const struct run *r, size_t i, struct plan_delta *deltas)
{
    const struct chunk *c = &r->chunks[i];
    struct plan_chunk in = {.object = {r->append ? 1 : i + 1},
        .index = {r->append ? i : 0},
        .changed = c->dirty_pages > 0,
        .upkeep = c->offered,
        .append_only = r->append && c->dirty_pages > 0,
        .pages = c->pages,
        .dirty_pages = c->dirty_pages,
        .exists = c->base.bytes > 0,
        .local = c->base.here,
        .present_pages = count_bits(c->base.bits),
        .sealed = c->sealed,
        .base_bytes = c->base.bytes,
        .base_pages = count_bits(c->base.bits),
        .poor_rank = UINT32_MAX,
        .delta_count = c->count,
        .deltas = deltas};
    for (size_t k = 0; k < c->count; k++) {
        deltas[k] = (struct plan_delta){.bytes = c->deltas[k]->bytes,
            .pages = count_bits(c->deltas[k]->bits),
            .local = c->deltas[k]->here};
        look_at_pack(r, &in, c->deltas[k], &deltas[k].poor);
        in.local = in.local && c->deltas[k]->here;
    }
    if (in.exists)
        look_at_pack(r, &in, &c->base, &in.poor_base);
    return in;
}

static int
compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

// Half of the median of the last checkpoints before `number`.
static uint64_t
typical(const struct run *r, size_t number)
{
    uint64_t last[16];
    size_t n = number < 16 ? number : 16;
    memcpy(last, r->uploads + number - n, n * sizeof(last[0]));
    qsort(last, n, sizeof(last[0]), compare_u64);
    return n > 0 ? last[n / 2] / 2 : 0;
}

static void
choose_packs(struct run *r, uint64_t budget)
{
    free(r->poor);
    r->poor = memory_alloc((r->pack_count + 1) * sizeof(*r->poor));
    r->poor_count = 0;
    uint64_t others = 0;
    for (size_t i = 0; i < r->pack_count; i++)
        if (r->packs[i].shared && r->packs[i].live_bytes > 0)
            r->poor[r->poor_count++] = (struct upkeep_pack){.hash = pack_hash(i),
                .bytes = r->packs[i].bytes,
                .live_bytes = r->packs[i].live_bytes};
        else if (r->packs[i].live_bytes > 0)
            others += r->packs[i].bytes;
    r->poor_count = checkpoint_upkeep_choose_packs(r->poor, r->poor_count, others, budget);
}

static void
fetch(struct run *r, struct image *image)
{
    r->fetched += image->here ? 0 : image->bytes;
    image->here = true;
}

// What the job does between two checkpoints. True when it found something.
static bool
look_after(struct run *r, uint64_t budget)
{
    choose_packs(r, budget);
    struct upkeep_chunk *found = memory_alloc(r->chunk_count * sizeof(*found));
    size_t count = 0;
    struct plan_delta deltas[IMAGES_MAX];
    for (size_t i = 0; i < r->chunk_count; i++) {
        struct plan_chunk in = describe(r, i, deltas);
        for (size_t k = 0; k < in.delta_count; k++)
            deltas[k].local = true;
        in.dirty_pages = 0;
        r->chunks[i].offered = false;
        if (in.exists && checkpoint_upkeep_judge(&in, &plan_policy_default, &found[count]))
            found[count++].id.v = i;
    }
    count = checkpoint_upkeep_choose(found, count, budget);
    for (size_t i = 0; i < count; i++) {
        struct chunk *c = &r->chunks[found[i].id.v];
        c->offered = true;
        for (size_t k = 0; k < found[i].images; k++)
            fetch(r, k < c->count ? c->deltas[k] : &c->base);
    }
    free(found);
    return count > 0;
}

static void
checkpoint(struct run *r, size_t number)
{
    uint64_t allowance = typical(r, number);
    bool offers = look_after(r, allowance);
    struct plan_chunk *in = memory_alloc(r->chunk_count * sizeof(*in));
    struct plan_delta *deltas = memory_alloc(r->chunk_count * IMAGES_MAX * sizeof(*deltas));
    size_t *places = memory_alloc(r->chunk_count * sizeof(*places));
    size_t count = 0;
    for (size_t i = 0; i < r->chunk_count; i++) {
        struct chunk *c = &r->chunks[i];
        if (c->dirty_pages == 0 && !c->offered)
            continue;
        places[count] = i;
        in[count++] = describe(r, i, deltas + i * IMAGES_MAX);
        r->changed += (uint64_t)c->dirty_pages * PAGE_BYTES;
    }
    struct checkpoint_plan plan;
    struct plan_policy policy = plan_policy_default;
    policy.allowance_bytes = offers ? allowance : 0;
    uint64_t before = r->uploaded;
    checkpoint_planner_plan(in, count, &policy, &plan);
    r->pack_open = false;
    for (size_t i = 0, k = 0; i < plan.count; i++, k++) {
        const struct chunk_action *a = &plan.actions[i];
        while (in[k].object.v != a->object.v || in[k].index.v != a->index.v)
            k++;
        struct chunk *c = &r->chunks[places[k]];
        if (a->kind == CHUNK_ACTION_CREATE_BASE || a->kind == CHUNK_ACTION_SEAL_AS_BASE)
            make_base(r, c, a);
        else
            make_delta(r, c, a);
        c->sealed = a->sealed;
        memset(c->dirty, 0, sizeof(c->dirty));
        c->dirty_pages = 0;
        if (c->count > r->longest)
            r->longest = c->count;
    }
    r->uploads[number] = r->uploaded - before;
    checkpoint_plan_free(&plan);
    free(places);
    free(deltas);
    free(in);
}

// ---- histories ----------------------------------------------------------------------------------

#define FILE_CHUNKS 64u // 4 GiB
#define FILE_PAGES  ((uint64_t)FILE_CHUNKS * CHUNK_PAGES)
#define SMALL_FILES 4000u
#define SMALL_PAGES 16u

static uint64_t rate = 100;

static void
write_uniform(struct run *r, size_t number)
{
    (void)number;
    for (uint64_t i = 0; i < FILE_PAGES / rate; i++) {
        uint64_t page = pick(r, FILE_PAGES);
        dirty_page(r, page / CHUNK_PAGES, page % CHUNK_PAGES);
    }
}

static void
write_hot(struct run *r, size_t number)
{
    (void)number;
    for (uint64_t i = 0; i < FILE_PAGES / rate; i++) {
        uint64_t page = pick(r, 10) ? pick(r, FILE_PAGES / 100) : pick(r, FILE_PAGES);
        dirty_page(r, page / CHUNK_PAGES, page % CHUNK_PAGES);
    }
}

static void
write_append(struct run *r, size_t number)
{
    uint64_t first = number * (FILE_PAGES / rate);
    for (uint64_t page = first; page < first + FILE_PAGES / rate; page++)
        dirty_page(r, page / CHUNK_PAGES, page % CHUNK_PAGES);
}

// A log that takes 64 checkpoints for a chunk.
static void
write_slowly(struct run *r, size_t number)
{
    uint64_t first = number * (CHUNK_PAGES / 64);
    for (uint64_t page = first; page < first + CHUNK_PAGES / 64; page++)
        dirty_page(r, page / CHUNK_PAGES, page % CHUNK_PAGES);
}

static void
write_small(struct run *r, size_t number)
{
    (void)number;
    for (uint64_t i = 0; i < SMALL_FILES * SMALL_PAGES / rate; i++)
        dirty_page(r, pick(r, SMALL_FILES), (uint32_t)pick(r, SMALL_PAGES));
}

static const struct history {
    const char *name;
    void (*write)(struct run *r, size_t number);
    uint32_t chunks;
    uint32_t pages; // of each at the start
} histories[] = {
    {"uniform", write_uniform, FILE_CHUNKS, CHUNK_PAGES},
    {"hot spot", write_hot, FILE_CHUNKS, CHUNK_PAGES},
    {"append-only", write_append, 0, 0},
    {"slow log", write_slowly, 0, 0},
    {"small files", write_small, SMALL_FILES, SMALL_PAGES},
};

// ---- what came of it ----------------------------------------------------------------------------

// Of the checkpoints from `first` on.
static bool
report(struct run *r, const char *name, size_t first, size_t checkpoints)
{
    uint64_t live = 0;
    uint64_t stored = 0;
    uint64_t consulted = 0;
    uint64_t pages = 0;
    size_t objects = 0;
    for (size_t i = 0; i < r->chunk_count; i++) {
        const struct chunk *c = &r->chunks[i];
        live += (uint64_t)c->pages * PAGE_BYTES;
        pages += c->pages;
        uint64_t seen[CHUNK_PAGES / 64] = {0};
        uint32_t before = 0;
        for (size_t k = 0; k < c->count; k++) {
            for (size_t w = 0; w < CHUNK_PAGES / 64; w++)
                seen[w] |= c->deltas[k]->bits[w];
            uint32_t now = count_bits(seen);
            consulted += (uint64_t)(now - before) * (k + 1);
            before = now;
        }
        consulted += (uint64_t)(c->pages - before) * (c->count + 1);
    }
    for (size_t i = 0; i < r->pack_count; i++) {
        stored += r->packs[i].live_bytes > 0 ? r->packs[i].bytes : 0;
        objects += r->packs[i].live_bytes > 0;
    }
    CLEANUP(memory_free_auto)
    uint64_t *uploads = memory_alloc(checkpoints * sizeof(*uploads));
    memcpy(uploads, r->uploads + first, checkpoints * sizeof(*uploads));
    qsort(uploads, checkpoints, sizeof(*uploads), compare_u64);
    uint64_t median = uploads[checkpoints / 2];
    double mean_changed = (double)r->changed / (double)checkpoints;
    printf(
        "| %-17s | %3zu | %4.2f | %4.2f | %4.2f | %4.2f | %4.1f | %2zu | %5zu | %4.2f | %4.2f |\n",
        name, checkpoints, (double)r->uploaded / (double)r->changed, (double)median / mean_changed,
        (double)uploads[checkpoints - 1] / mean_changed,
        (double)uploads[checkpoints - 1] / (double)median, (double)consulted / (double)pages,
        r->longest + 1, objects, (double)stored / (double)live,
        (double)r->fetched / (double)r->changed);
    // The goals for bytes hold for the first checkpoints of a new file, but not where one chunk
    // alone changes, and the last one not for small files that change everywhere: doc/merging.md
    // has the reasons.
    bool small = r->chunk_count == SMALL_FILES;
    bool bytes =
        (first > 0 || 2 * r->uploaded <= 5 * r->changed) && uploads[checkpoints - 1] <= 2 * median;
    return (bytes || r->one_chunk) && r->longest <= 8 && (2 * stored <= 3 * live || small);
}

static void
go_on(struct run *r, const struct history *h, size_t first, size_t checkpoints)
{
    r->uploaded = r->changed = r->fetched = r->longest = 0;
    for (size_t i = first; i < first + checkpoints; i++) {
        h->write(r, i);
        checkpoint(r, i);
    }
}

// A host that has restored the volume goes on.
static void
forget_copies(struct run *r)
{
    for (size_t i = 0; i < r->chunk_count; i++) {
        struct chunk *c = &r->chunks[i];
        c->base.here = false;
        for (size_t k = 0; k < c->count; k++)
            c->deltas[k]->here = false;
    }
}

static bool
simulate(const struct history *h, size_t checkpoints)
{
    struct run r = {.append = h->chunks == 0, .one_chunk = h->write == write_slowly};
    r.chunk_count = h->chunks ? h->chunks : 2 * checkpoints * FILE_CHUNKS / 100 + 2;
    r.chunks = memory_alloc_zero(r.chunk_count * sizeof(*r.chunks));
    r.uploads = memory_alloc_zero(2 * checkpoints * sizeof(*r.uploads));
    struct chunk_action first = {.pack = (uint64_t)h->pages * PAGE_BYTES < (4u << 20)};
    for (size_t i = 0; i < h->chunks; i++) {
        r.chunks[i].pages = h->pages;
        make_base(&r, &r.chunks[i], &first);
    }
    go_on(&r, h, 0, checkpoints);
    bool good = report(&r, h->name, 0, checkpoints);
    forget_copies(&r);
    go_on(&r, h, checkpoints, checkpoints);
    CLEANUP(memory_free_auto) char *bare = memory_printf("%s, bare", h->name);
    good = report(&r, bare, checkpoints, checkpoints) && good;
    for (size_t i = 0; i < r.chunk_count; i++)
        drop_deltas(&r, &r.chunks[i], r.chunks[i].count);
    free(r.poor);
    free(r.uploads);
    free(r.packs);
    free(r.chunks);
    return good;
}

int
main(int argc, char **argv)
{
    bool good = true;
    const char *only = NULL;
    for (int o; (o = getopt(argc, argv, "r:n:")) != -1;) {
        if (o == 'r')
            rate = strtoull(optarg, NULL, 10);
        else if (o == 'n')
            only = optarg;
        if (o == '?' || rate == 0) {
            fprintf(stderr, "usage: merge_simulator [-r RATE] [-n HISTORY] [CHECKPOINTS...]\n");
            return 2;
        }
    }
    printf("| History | Checkpoints | Mean | Median | Most | Most/median | Images, mean | Images, "
           "most "
           "| Objects | Stored/live | Fetched |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (int i = optind; i < argc || i == optind; i++) {
        size_t checkpoints = optind < argc ? (size_t)strtoul(argv[i], NULL, 10) : 50;
        for (size_t k = 0; checkpoints > 0 && k < sizeof(histories) / sizeof(histories[0]); k++)
            if (!only || strcmp(histories[k].name, only) == 0)
                good = simulate(&histories[k], checkpoints) && good;
    }
    return argc > 1 || good ? 0 : 1;
}
