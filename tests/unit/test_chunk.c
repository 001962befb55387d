// SPDX-License-Identifier: Apache-2.0
// chunk_map and chunk_reader over a real manifest, LocalStore and RemoteStore.
#include "unit.h"

#include "blob_model.h"
#include "chunk_world.h"

#define OBJECT      ((struct object_id){5})
#define PATIENCE_MS 60000u
#define IMAGES_MAX  8u

// What the chunks should hold: NULL is a page of zeros.
struct chunk_model {
    uint8_t *pages[CHUNK_PAGES];
    struct sha256 blobs[IMAGES_MAX];
    size_t blob_count;
};

static void
chunk_model_free(struct chunk_model *c)
{
    for (uint32_t i = 0; i < CHUNK_PAGES; i++)
        free(c->pages[i]);
    free(c);
}

// Lays a random image over the content and records it. Every `spread`-th page or so is in it.
static void
add_random_image(struct world *w, struct chunk_model *c, enum blob_kind kind, uint32_t spread,
    uint8_t residency, uint64_t *seed)
{
    BUFFER_AUTO bytes = {0};
    struct blob_image_info info;
    uint64_t offset = next_random(seed) % 3 == 0 ? BLOB_ALIGNMENT * (1 + next_random(seed) % 9) : 0;
    for (uint64_t i = 0; i < offset; i++)
        buffer_append_u8(&bytes, 0);
    struct blob_writer *writer = blob_writer_new(kind, world_sink, &bytes);
    for (uint32_t i = 0; i < CHUNK_PAGES; i += 1 + (uint32_t)(next_random(seed) % (2 * spread))) {
        uint32_t run = next_random(seed) % 4 ? 1 : 1 + (uint32_t)(next_random(seed) % 40);
        for (; run > 0 && i < CHUNK_PAGES; run--, i++) {
            uint8_t data[PAGE_BYTES];
            uint64_t what = next_random(seed) % 6;
            fill_page(data, next_random(seed) % 4 ? CONTENT_TEXT : CONTENT_RANDOM, seed);
            if (!c->pages[i] && (kind == BLOB_BASE || what > 0))
                c->pages[i] = memory_alloc_zero(PAGE_BYTES);
            if (kind == BLOB_DELTA && what == 0) {
                ck_assert_int_eq(blob_writer_add_zero(writer, i, 1), 0);
                free(c->pages[i]);
                c->pages[i] = NULL;
            } else if (kind == BLOB_DELTA && what < 3) {
                struct page_mask mask = {0};
                fill_mask(&mask, seed);
                ck_assert_int_eq(blob_writer_add_patch(writer, i, data, &mask), 0);
                page_mask_copy(&mask, c->pages[i], data);
            } else {
                ck_assert_int_eq(blob_writer_add_data(writer, i, data), 0);
                memcpy(c->pages[i], data, PAGE_BYTES);
            }
        }
    }
    ck_assert_int_eq(blob_writer_finish(writer, &info), 0);
    blob_writer_free(writer);
    c->blobs[c->blob_count++] =
        world_add_image(w, OBJECT, 0, kind, &bytes, offset, &info, residency);
}

static struct chunk_model *
random_content(struct world *w, unsigned deltas, uint32_t spread, uint8_t residency, uint64_t seed)
{
    struct chunk_model *c = memory_alloc_zero(sizeof(*c));
    add_random_image(w, c, BLOB_BASE, spread, residency, &seed);
    for (unsigned i = 0; i < deltas; i++)
        add_random_image(w, c, BLOB_DELTA, spread, residency, &seed);
    return c;
}

static bool
page_is(const struct chunk_model *c, uint64_t number, const struct page *page)
{
    static const uint8_t zeros[PAGE_BYTES];
    const uint8_t *expected = number < CHUNK_PAGES ? c->pages[number] : NULL;
    return memcmp(page ? page->data : zeros, expected ? expected : zeros, PAGE_BYTES) == 0;
}

static void
check_sunk(void *argument, struct page_no page, struct page *content)
{
    if (!page_is(argument, page.v, content))
        abort();
}

// The same pages as bytes. Wherever the memory begins, nothing around it is touched.
static int
copy_pages(struct world *w, struct chunk_model *c, uint64_t first, size_t count,
    const struct remote_call *call)
{
    uint8_t *bytes = memory_alloc((count + 2) * PAGE_BYTES);
    memset(bytes, 0xa5, (count + 2) * PAGE_BYTES);
    int rc = chunk_reader_copy(
        w->reader, OBJECT, (struct page_no){first}, count, call, bytes + PAGE_BYTES, check_sunk, c);
    struct page *page = page_new();
    for (size_t i = 0; rc == 0 && i < count; i++) {
        memcpy(page->data, bytes + (i + 1) * PAGE_BYTES, PAGE_BYTES);
        if (!page_is(c, first + i, page))
            abort();
    }
    page_put(page);
    for (size_t i = 0; i < PAGE_BYTES; i++)
        if (bytes[i] != 0xa5 || bytes[(count + 1) * PAGE_BYTES + i] != 0xa5)
            abort();
    free(bytes);
    return rc;
}

static int
read_pages(struct world *w, struct chunk_model *c, uint64_t first, size_t count,
    const struct remote_call *call)
{
    struct page **pages = memory_alloc(count * sizeof(*pages));
    int rc = chunk_reader_read(
        w->reader, OBJECT, (struct page_no){first}, count, call, pages, check_sunk, c);
    for (size_t i = 0; i < count; i++) {
        if (rc == 0 && !page_is(c, first + i, pages[i]))
            abort();
        ck_assert(rc == 0 || !pages[i]);
        page_put(pages[i]);
    }
    free(pages);
    return rc;
}

static void
check_randomly(struct world *w, struct chunk_model *c, int reads, uint64_t *seed)
{
    for (int i = 0; i < reads; i++) {
        struct remote_call call = {0};
        uint64_t first = next_random(seed) % CHUNK_PAGES;
        size_t count = 1 + next_random(seed) % (i % 10 ? 40 : 800);
        if (i % 4 == 0)
            chunk_reader_ahead(
                w->reader, OBJECT, (struct page_no){first + count}, next_random(seed) % 300);
        int (*get)(struct world *, struct chunk_model *, uint64_t, size_t,
            const struct remote_call *) = next_random(seed) % 2 ? read_pages : copy_pages;
        ck_assert_int_eq(get(w, c, first, count, i % 2 ? &call : NULL), 0);
    }
}

// Runs of holes hold nothing but zeros, and the runs cover the chunk.
static void
check_runs(struct world *w, const struct chunk_model *c)
{
    for (uint64_t page = 0; page < CHUNK_PAGES;) {
        bool hole;
        uint64_t count;
        ck_assert_int_eq(
            chunk_reader_run(w->reader, OBJECT, (struct page_no){page}, NULL, &hole, &count), 0);
        ck_assert(count > 0 && page + count <= CHUNK_PAGES);
        for (uint64_t i = 0; hole && i < count; i++)
            ck_assert(page_is(c, page + i, NULL));
        ck_assert(hole || c->pages[page]);
        page += count;
    }
}

START_TEST(layers_give_what_the_model_gives)
{
    static const uint8_t residencies[] = {
        RESIDENCY_LOCAL, RESIDENCY_REMOTE, RESIDENCY_LOCAL | RESIDENCY_REMOTE};
    for (uint64_t round = 0; round < 9; round++) {
        struct world w;
        uint64_t seed = 1000 * round;
        world_init(&w, round % 3 ? 64u << 20 : 1, PATIENCE_MS);
        uint8_t residency = residencies[round % 3];
        struct chunk_model *c = random_content(
            &w, (unsigned)(round % IMAGES_MAX), 20 + 100 * (uint32_t)round, residency, seed);
        check_randomly(&w, c, 150, &seed);
        check_runs(&w, c);
        ck_assert_int_eq(read_pages(&w, c, 0, CHUNK_PAGES, NULL), 0);
        uint64_t gets = world_gets(&w);
        ck_assert(residency & RESIDENCY_LOCAL ? gets == 0 : gets > 0);
        // Everything has been kept by now, and is found again by another map and reader.
        chunk_map_invalidate_all(w.map);
        check_randomly(&w, c, 50, &seed);
        ck_assert_uint_eq(world_gets(&w), gets);
        struct chunk_reader_numbers n;
        chunk_reader_numbers(w.reader, &n);
        ck_assert_uint_eq(n.failed_reads, 0);
        ck_assert_uint_eq(n.repaired_frames, 0);
        ck_assert_uint_gt(n.local_frames, 0);
        chunk_model_free(c);
        world_destroy(&w);
    }
}
END_TEST

START_TEST(no_chunk_is_a_hole)
{
    struct world w;
    struct chunk_model none = {0};
    bool hole;
    uint64_t count;
    world_init(&w, 1 << 20, PATIENCE_MS);
    ck_assert_int_eq(read_pages(&w, &none, CHUNK_PAGES - 10, 20, NULL), 0);
    ck_assert_int_eq(
        chunk_reader_run(w.reader, OBJECT, (struct page_no){CHUNK_PAGES + 9}, NULL, &hole, &count),
        0);
    ck_assert(hole);
    ck_assert_uint_ge(count, CHUNK_PAGES - 9); // nothing follows: as far as one can look
    ck_assert_uint_eq(world_gets(&w), 0);
    world_destroy(&w);
}
END_TEST

// ---- damage -------------------------------------------------------------------------------------

// Flips a byte of every 4 KiB of a file.
static void
damage_file(const char *path)
{
    BUFFER_AUTO bytes = {0};
    ck_assert_int_eq(file_read_whole(path, 1 << 28, &bytes), 0);
    for (size_t i = 100; i < bytes.length; i += 4096)
        bytes.data[i] ^= 0x10;
    int fd = open(path, O_WRONLY);
    ck_assert_int_eq(pwrite(fd, bytes.data, bytes.length, 0), (ssize_t)bytes.length);
    close(fd);
}

START_TEST(a_damaged_local_copy_is_repaired_from_the_store)
{
    struct world w;
    uint64_t seed = 4;
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = random_content(&w, 2, 300, RESIDENCY_LOCAL | RESIDENCY_REMOTE, 4);
    for (int round = 0; round < 2; round++) { // with and without indexes in memory
        for (size_t i = 0; i < c->blob_count; i++) {
            CLEANUP(memory_free_auto) char *path = world_local_path(&w, &c->blobs[i], "blob");
            BUFFER_AUTO bytes = {0};
            ck_assert_int_eq(file_read_whole(path, 1 << 28, &bytes), 0);
            damage_file(path);
            check_randomly(&w, c, 100, &seed);
            ck_assert_int_eq(read_pages(&w, c, 0, CHUNK_PAGES, NULL), 0);
            world_put_local(&w, &c->blobs[i], &bytes);
        }
        chunk_map_invalidate_all(w.map);
    }
    struct chunk_reader_numbers n;
    chunk_reader_numbers(w.reader, &n);
    ck_assert_uint_ge(n.repaired_frames, c->blob_count);
    ck_assert_uint_eq(n.failed_reads, 0);
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

START_TEST(a_damaged_only_copy_is_eio)
{
    struct world w;
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = random_content(&w, 0, 300, RESIDENCY_LOCAL, 4);
    CLEANUP(memory_free_auto) char *path = world_local_path(&w, &c->blobs[0], "blob");
    BUFFER_AUTO bytes = {0};
    ck_assert_int_eq(file_read_whole(path, 1 << 28, &bytes), 0);
    damage_file(path);
    ck_assert_int_eq(read_pages(&w, c, 0, CHUNK_PAGES, NULL), -EIO);
    ck_assert_uint_eq(world_gets(&w), 0);
    ck_assert(local_store_has(w.local, &c->blobs[0])); // perhaps somebody can still make use of it
    world_put_local(&w, &c->blobs[0], &bytes);
    ck_assert_int_eq(read_pages(&w, c, 0, CHUNK_PAGES, NULL), 0);
    // An image that went away: the caller looks again.
    ck_assert_int_eq(local_store_remove(w.local, &c->blobs[0]), 0);
    ck_assert_int_eq(read_pages(&w, c, 0, CHUNK_PAGES, NULL), -ESTALE);
    struct chunk_reader_numbers n;
    chunk_reader_numbers(w.reader, &n);
    ck_assert_uint_eq(n.failed_reads, 2);
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

static void
lose_pages(struct world *w, uint64_t page, uint32_t pages)
{
    struct change c = {.kind = CHANGE_PUT_DAMAGE, .damage = {OBJECT, {page}, pages}};
    struct manifest_batch *b = manifest_batch_new(w->db);
    manifest_batch_change(b, &c, false, (struct generation){w->generation});
    ck_assert_int_eq(manifest_submit(w->manifest, b, NULL), 0);
    chunk_map_invalidate(w->map, OBJECT, (struct chunk_index){0});
}

START_TEST(lost_pages_are_eio_and_no_holes)
{
    struct world w;
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = random_content(&w, 2, 100, RESIDENCY_LOCAL, 8);
    lose_pages(&w, 10, 3);
    lose_pages(&w, 5000, 4);
    for (uint64_t page = 8; page < 15; page++) {
        int rc = page >= 10 && page < 13 ? -EIO : 0;
        ck_assert_int_eq(read_pages(&w, c, page, 1, NULL), rc);
        ck_assert_int_eq(copy_pages(&w, c, page, 1, NULL), rc);
    }
    ck_assert_int_eq(read_pages(&w, c, 0, 20, NULL), -EIO);
    const uint64_t runs[][3] = {{11, 2, 0}, {4990, 10, 1}, {5000, 4, 0}};
    for (size_t i = 0; i < ARRAY_LENGTH(runs); i++) {
        bool hole;
        uint64_t n;
        struct page_no page = {runs[i][0]};
        ck_assert_int_eq(chunk_reader_run(w.reader, OBJECT, page, NULL, &hole, &n), 0);
        ck_assert(hole == (runs[i][2] == 1) && n == runs[i][1]);
    }
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

// The layout was made before publication, when the store had no copy.
START_TEST(a_copy_that_came_to_the_store_later_repairs_too)
{
    struct world w;
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = random_content(&w, 1, 300, RESIDENCY_LOCAL, 4);
    ck_assert_int_eq(read_pages(&w, c, 0, 100, NULL), 0);
    struct manifest_batch *b = manifest_batch_new(w.db);
    for (size_t i = 0; i < c->blob_count; i++) {
        CLEANUP(memory_free_auto) char *path = world_local_path(&w, &c->blobs[i], "blob");
        BUFFER_AUTO bytes = {0};
        struct blob_record blob = world_blob_record(&w, &c->blobs[i]);
        ck_assert_int_eq(file_read_whole(path, 1 << 28, &bytes), 0);
        world_put_remote(&w, &blob, &bytes);
        manifest_batch_blob_remote(b, &c->blobs[i]);
        damage_file(path);
    }
    struct sha256 record = {{9}};
    manifest_batch_published(b, (struct generation){w.generation}, 0, 1, &record, 100);
    ck_assert_int_eq(manifest_submit(w.manifest, b, NULL), 0);
    ck_assert_int_eq(read_pages(&w, c, 0, CHUNK_PAGES, NULL), 0);
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

START_TEST(a_damaged_object_of_the_store_is_eio)
{
    struct world w;
    uint64_t seed = 1;
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = random_content(&w, 1, 300, RESIDENCY_REMOTE, 4);
    // One transfer that goes wrong is asked for again.
    struct store_fault fault = {STORE_VERB_GET, STORE_FAULT_CORRUPT, 1, 1, 0, NULL};
    fault_store_add(w.fault, &fault);
    ck_assert_int_eq(read_pages(&w, c, 0, 10, NULL), 0);
    fault_store_clear(w.fault);
    fault.times = 0;
    fault_store_add(w.fault, &fault);
    ck_assert_int_eq(read_pages(&w, c, 8000, CHUNK_PAGES - 8000, NULL), -EIO);
    fault_store_clear(w.fault);
    // Nothing of it was kept.
    check_randomly(&w, c, 100, &seed);
    struct chunk_reader_numbers n;
    chunk_reader_numbers(w.reader, &n);
    ck_assert_uint_gt(n.failed_reads, 0);
    ck_assert_uint_eq(n.repaired_frames, 0);
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

START_TEST(damaged_partial_files_are_read_again)
{
    struct world w;
    uint64_t seed = 1;
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = random_content(&w, 1, 100, RESIDENCY_REMOTE, 4);
    check_randomly(&w, c, 100, &seed);
    for (size_t i = 0; i < c->blob_count; i++) {
        CLEANUP(memory_free_auto) char *path = world_local_path(&w, &c->blobs[i], "part");
        damage_file(path);
    }
    check_randomly(&w, c, 100, &seed);
    chunk_map_invalidate_all(w.map);
    check_randomly(&w, c, 100, &seed);
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

// ---- the store is slow or away ------------------------------------------------------------------

struct reading {
    struct thread thread;
    struct world *world;
    struct chunk_model *content;
    uint64_t first;
    size_t count;
    bool canceled;
    int result;
    uint64_t took_ms;
};

static bool
reading_is_canceled(void *argument)
{
    return __atomic_load_n((bool *)argument, __ATOMIC_RELAXED);
}

static void
do_reading(void *argument)
{
    struct reading *x = argument;
    struct remote_call call = {.is_canceled = reading_is_canceled, .argument = &x->canceled};
    uint64_t started = clock_monotonic_ms();
    x->result = read_pages(x->world, x->content, x->first, x->count, &call);
    x->took_ms = clock_monotonic_ms() - started;
}

static void
start_readings(struct reading *x, size_t n, struct world *w, struct chunk_model *c)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = (struct reading){.world = w, .content = c, .first = 40, .count = 3};
        ck_assert_int_eq(thread_start(&x[i].thread, "read", do_reading, &x[i]), 0);
    }
}

// A base of `count` pages that do not compress: each frame has its full length.
static struct chunk_model *
plain_content(struct world *w, uint32_t count, uint8_t residency)
{
    struct chunk_model *c = memory_alloc_zero(sizeof(*c));
    BUFFER_AUTO bytes = {0};
    struct blob_image_info info;
    struct blob_writer *writer = blob_writer_new(BLOB_BASE, world_sink, &bytes);
    uint64_t seed = 1;
    for (uint32_t i = 0; i < count; i++) {
        c->pages[i] = memory_alloc(PAGE_BYTES);
        fill_page(c->pages[i], CONTENT_RANDOM, &seed);
        ck_assert_int_eq(blob_writer_add_data(writer, i, c->pages[i]), 0);
    }
    ck_assert_int_eq(blob_writer_finish(writer, &info), 0);
    blob_writer_free(writer);
    c->blobs[c->blob_count++] =
        world_add_image(w, OBJECT, 0, BLOB_BASE, &bytes, 0, &info, residency);
    return c;
}

#define READERS 8

START_TEST(many_readers_cause_one_fetch)
{
    struct world w;
    struct reading x[READERS];
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = plain_content(&w, 100, RESIDENCY_REMOTE);
    gate_set(&w, true);
    start_readings(x, READERS, &w, c);
    gate_await(&w);
    gate_set(&w, false);
    for (int i = 0; i < READERS; i++) {
        thread_join(&x[i].thread);
        ck_assert_int_eq(x[i].result, 0);
    }
    ck_assert_uint_eq(world_gets(&w), 2); // the index and the frame
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

// ---- ahead of the readers -----------------------------------------------------------------------

START_TEST(a_reader_waits_for_what_is_fetched_ahead)
{
    struct world w;
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = plain_content(&w, 400, RESIDENCY_REMOTE);
    ck_assert_int_eq(copy_pages(&w, c, 0, 16, NULL), 0);
    ck_assert_uint_eq(world_gets(&w), 2); // the index and the frame
    gate_set(&w, true);
    chunk_reader_ahead(w.reader, OBJECT, (struct page_no){16}, 300);
    gate_await(&w);
    struct reading x = {.world = &w, .content = c, .first = 40, .count = 200};
    ck_assert_int_eq(thread_start(&x.thread, "read", do_reading, &x), 0);
    gate_set(&w, false);
    thread_join(&x.thread);
    ck_assert_int_eq(x.result, 0);
    ck_assert_uint_eq(world_gets(&w), 3);
    // It is kept: nobody asks the store for it any more, not even who reads it ahead once more.
    struct remote_call local_only = {.local_only = true};
    ck_assert_int_eq(copy_pages(&w, c, 0, 316, &local_only), 0);
    chunk_reader_ahead(w.reader, OBJECT, (struct page_no){16}, 384);
    ck_assert_int_eq(read_pages(&w, c, 0, 400, NULL), 0);
    struct chunk_reader_numbers n;
    chunk_reader_numbers(w.reader, &n);
    ck_assert_uint_lt(n.remote_bytes, 500u * PAGE_BYTES);
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

START_TEST(what_cannot_be_fetched_ahead_is_left_to_the_readers)
{
    struct world w;
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = plain_content(&w, 400, RESIDENCY_REMOTE);
    ck_assert_int_eq(copy_pages(&w, c, 0, 16, NULL), 0);
    // What comes damaged is found out by who reads it, and asked for again.
    struct store_fault fault = {STORE_VERB_GET, STORE_FAULT_CORRUPT, 1, 1, 0, NULL};
    fault_store_add(w.fault, &fault);
    gate_set(&w, true);
    chunk_reader_ahead(w.reader, OBJECT, (struct page_no){16}, 16);
    gate_await(&w);
    gate_set(&w, false);
    ck_assert_int_eq(copy_pages(&w, c, 16, 16, NULL), 0);
    fault_store_clear(w.fault);
    struct store_fault outage = {STORE_VERB_GET, STORE_FAULT_FAIL, 1, 1, -EAGAIN, NULL};
    fault_store_add(w.fault, &outage);
    gate_set(&w, true);
    chunk_reader_ahead(w.reader, OBJECT, (struct page_no){200}, 16);
    gate_await(&w);
    gate_set(&w, false);
    ck_assert_int_eq(copy_pages(&w, c, 192, 32, NULL), 0);
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

START_TEST(the_end_does_not_wait_for_what_is_fetched_ahead)
{
    struct world w;
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = plain_content(&w, 1600, RESIDENCY_REMOTE);
    gate_set(&w, true);
    chunk_reader_ahead(w.reader, OBJECT, (struct page_no){0}, 100000);
    gate_await(&w);
    uint64_t began = clock_monotonic_ms();
    world_destroy(&w);
    ck_assert_uint_lt(clock_monotonic_ms() - began, PATIENCE_MS / 2);
    chunk_model_free(c);
}
END_TEST

static void
count_sunk(void *argument, struct page_no page UNUSED, struct page *content UNUSED)
{
    ++*(unsigned *)argument;
}

START_TEST(whole_frames_are_not_offered_to_the_cache)
{
    struct world w;
    unsigned sunk = 0;
    uint8_t *bytes = memory_alloc(64 * PAGE_BYTES);
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = plain_content(&w, 100, RESIDENCY_LOCAL);
    ck_assert_int_eq(chunk_reader_copy(w.reader, OBJECT, (struct page_no){16}, 32, NULL, bytes,
                         count_sunk, &sunk),
        0);
    ck_assert_uint_eq(sunk, 0);
    // One whole frame between parts of two others, and the short one at the end.
    ck_assert_int_eq(chunk_reader_copy(w.reader, OBJECT, (struct page_no){15}, 18, NULL, bytes,
                         count_sunk, &sunk),
        0);
    ck_assert_uint_eq(sunk, 32);
    sunk = 0;
    ck_assert_int_eq(chunk_reader_copy(w.reader, OBJECT, (struct page_no){96}, 32, NULL, bytes,
                         count_sunk, &sunk),
        0);
    ck_assert_uint_eq(sunk, 4);
    free(bytes);
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

START_TEST(holes_of_partial_files_are_found)
{
    struct world w;
    world_init(&w, 1 << 20, PATIENCE_MS);
    struct sha256 hash = {{7}};
    uint8_t bytes[8 * PAGE_BYTES] = {1};
    const uint64_t all = 1 << 20;
    ck_assert_uint_eq(local_store_find_hole(w.local, &hash, 100, all), 100);
    ck_assert_int_eq(local_store_keep(w.local, &hash, 0, bytes, sizeof(bytes)), 0);
    ck_assert_int_eq(local_store_keep(w.local, &hash, 1 << 19, bytes, sizeof(bytes)), 0);
    ck_assert_uint_ge(local_store_find_hole(w.local, &hash, 5, all), sizeof(bytes));
    ck_assert_uint_lt(local_store_find_hole(w.local, &hash, 5, all), 1 << 19);
    ck_assert_uint_eq(local_store_find_hole(w.local, &hash, 5, sizeof(bytes)), sizeof(bytes));
    ck_assert_uint_eq(local_store_find_hole(w.local, &hash, all - 1, all), all - 1);
    BUFFER_AUTO whole = {0};
    buffer_append(&whole, bytes, sizeof(bytes));
    world_put_local(&w, &hash, &whole);
    ck_assert_uint_eq(local_store_find_hole(w.local, &hash, 0, all), all);
    world_destroy(&w);
}
END_TEST

// ---- the store does not answer ------------------------------------------------------------------

START_TEST(readers_of_a_store_that_does_not_answer_fail_together)
{
    struct world w;
    struct reading x[READERS];
    world_init(&w, 1 << 24, 300);
    struct chunk_model *c = random_content(&w, 1, 300, RESIDENCY_REMOTE, 4);
    gate_set(&w, true);
    start_readings(x, READERS, &w, c);
    for (int i = 0; i < READERS; i++) {
        thread_join(&x[i].thread);
        ck_assert_int_eq(x[i].result, -EIO);
        ck_assert_uint_ge(x[i].took_ms, 300);
        ck_assert_uint_lt(x[i].took_ms, 4 * 300); // not one after the other
    }
    gate_set(&w, false);
    ck_assert_int_eq(read_pages(&w, c, 0, 1000, NULL), 0); // no error sticks
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

START_TEST(readers_can_be_cancelled_wherever_they_wait)
{
    struct world w;
    struct reading x[READERS];
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = random_content(&w, 1, 300, RESIDENCY_REMOTE, 4);
    gate_set(&w, true);
    start_readings(x, READERS, &w, c);
    gate_await(&w);
    for (int i = 0; i < READERS; i++)
        __atomic_store_n(&x[i].canceled, true, __ATOMIC_RELAXED);
    for (int i = 0; i < READERS; i++) {
        thread_join(&x[i].thread);
        ck_assert_int_eq(x[i].result, -EINTR);
    }
    gate_set(&w, false);
    ck_assert_int_eq(read_pages(&w, c, 0, 1000, NULL), 0);
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

START_TEST(local_only_reads_never_ask_the_store)
{
    struct world w;
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = random_content(&w, 1, 300, RESIDENCY_REMOTE, 4);
    struct remote_call call = {.local_only = true};
    ck_assert_int_eq(read_pages(&w, c, 0, 500, &call), -EREMOTE);
    ck_assert_uint_eq(world_gets(&w), 0);
    ck_assert_int_eq(read_pages(&w, c, 0, 500, NULL), 0);
    ck_assert_int_eq(read_pages(&w, c, 0, 500, &call), 0);
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

START_TEST(what_is_not_to_be_kept_is_not_kept)
{
    struct world w;
    world_init(&w, 1 << 24, PATIENCE_MS);
    struct chunk_model *c = random_content(&w, 1, 300, RESIDENCY_REMOTE, 4);
    struct remote_call passing = {.no_keep = true, .class = REMOTE_COLD_SCAN};
    struct remote_call local_only = {.local_only = true};
    ck_assert_int_eq(copy_pages(&w, c, 0, 500, &passing), 0);
    uint64_t gets = world_gets(&w);
    ck_assert_int_eq(copy_pages(&w, c, 0, 500, &local_only), -EREMOTE);
    ck_assert_int_eq(copy_pages(&w, c, 0, 500, &passing), 0);
    ck_assert_uint_gt(world_gets(&w), gets);
    chunk_model_free(c);
    world_destroy(&w);
}
END_TEST

// ---- threads ------------------------------------------------------------------------------------

struct hammer {
    struct thread thread;
    struct world *world;
    struct chunk_model *content;
    uint64_t seed;
};

static void
hammer_run(void *argument)
{
    struct hammer *h = argument;
    for (int i = 0; i < 150; i++) {
        uint64_t first = next_random(&h->seed) % CHUNK_PAGES;
        uint64_t count = 1 + next_random(&h->seed) % 60;
        if (i % 5 == 0)
            chunk_reader_ahead(h->world->reader, OBJECT, (struct page_no){first + count},
                next_random(&h->seed) % 200);
        if (read_pages(h->world, h->content, first, count, NULL) < 0 ||
            copy_pages(h->world, h->content, first, count, NULL) < 0)
            abort();
        if (i % 40 == 3)
            chunk_map_invalidate(h->world->map, OBJECT, (struct chunk_index){0});
    }
}

START_TEST(threads_read_while_layouts_come_and_go)
{
    static const uint8_t residencies[] = {RESIDENCY_LOCAL, RESIDENCY_REMOTE};
    for (uint64_t round = 0; round < 4; round++) {
        struct world w;
        struct hammer h[4];
        world_init(&w, round < 2 ? 1 << 24 : 20000, PATIENCE_MS);
        struct chunk_model *c = random_content(&w, 4, 100, residencies[round % 2], round);
        for (uint64_t i = 0; i < 4; i++) {
            h[i] = (struct hammer){.world = &w, .content = c, .seed = i << 40};
            ck_assert_int_eq(thread_start(&h[i].thread, "hammer", hammer_run, &h[i]), 0);
        }
        for (int i = 0; i < 4; i++)
            thread_join(&h[i].thread);
        chunk_model_free(c);
        world_destroy(&w);
    }
}
END_TEST

// ---- LocalStore ---------------------------------------------------------------------------------

static struct sha256
hash_of_number(uint64_t n)
{
    struct sha256 hash;
    sha256_of(&n, sizeof(n), &hash);
    return hash;
}

START_TEST(local_copies_are_whole_or_partial)
{
    struct world w;
    world_init(&w, 1 << 20, PATIENCE_MS);
    struct sha256 hash = hash_of_number(1);
    uint8_t p[100];
    int fd;
    ck_assert_int_eq(local_store_read(w.local, &hash, 0, p, 10), -ENOENT);
    ck_assert_int_eq(local_store_open_blob(w.local, &hash, &fd), -ENOENT);
    ck_assert_int_eq(local_store_keep(w.local, &hash, 1000, "0123456789", 10), 0);
    ck_assert(!local_store_has(w.local, &hash));
    ck_assert_int_eq(local_store_read(w.local, &hash, 1000, p, 10), 0);
    ck_assert_mem_eq(p, "0123456789", 10);
    ck_assert_int_eq(local_store_read(w.local, &hash, 0, p, 10), 0); // a hole
    ck_assert_int_eq(local_store_read(w.local, &hash, 1005, p, 10), -ENODATA);
    BUFFER_AUTO whole = {0};
    for (unsigned i = 0; i < 3000; i++)
        buffer_append_u8(&whole, (uint8_t)i);
    world_put_local(&w, &hash, &whole);
    ck_assert(local_store_has(w.local, &hash));
    ck_assert_int_eq(local_store_read(w.local, &hash, 1000, p, 100), 0);
    ck_assert_mem_eq(p, whole.data + 1000, 100);
    // Keeping does not touch a whole copy.
    ck_assert_int_eq(local_store_keep(w.local, &hash, 0, "xxxx", 4), 0);
    ck_assert_int_eq(local_store_read(w.local, &hash, 0, p, 100), 0);
    ck_assert_mem_eq(p, whole.data, 100);
    CLEANUP(memory_free_auto) char *part = world_local_path(&w, &hash, "part");
    ck_assert_int_eq(access(part, F_OK), -1);
    ck_assert_int_eq(local_store_open_blob(w.local, &hash, &fd), 0);
    close(fd);
    ck_assert_int_eq(local_store_remove(w.local, &hash), 0);
    ck_assert_int_eq(local_store_remove(w.local, &hash), 0);
    ck_assert(!local_store_has(w.local, &hash));
    ck_assert_int_eq(local_store_read(w.local, &hash, 0, p, 10), -ENOENT);
    ck_assert_int_eq(local_store_adopt(w.local, "/nowhere/at/all", &hash), -ENOENT);
    world_destroy(&w);
}
END_TEST

static bool
is_even(void *argument, const struct sha256 *hash)
{
    for (uint64_t i = 0; i < *(uint64_t *)argument; i += 2) {
        struct sha256 even = hash_of_number(i);
        if (sha256_equal(&even, hash))
            return true;
    }
    return false;
}

START_TEST(more_blobs_than_open_files)
{
    struct world w;
    uint64_t blobs = 400;
    world_init(&w, 1 << 20, PATIENCE_MS);
    for (int round = 0; round < 2; round++)
        for (uint64_t i = 0; i < blobs; i++) {
            struct sha256 hash = hash_of_number(i);
            uint64_t back;
            if (round == 0)
                ck_assert_int_eq(local_store_keep(w.local, &hash, 8 * i, &i, sizeof(i)), 0);
            ck_assert_int_eq(local_store_read(w.local, &hash, 8 * i, &back, sizeof(back)), 0);
            ck_assert_uint_eq(back, i);
        }
    DIR *dir = opendir("/proc/self/fd");
    unsigned open_files = 0;
    while (readdir(dir))
        open_files++;
    closedir(dir);
    ck_assert_uint_lt(open_files, 128 + 40);
    for (uint64_t i = 0; i < blobs; i++) {
        struct sha256 hash = hash_of_number(i);
        BUFFER_AUTO bytes = {0};
        buffer_append_le64(&bytes, i);
        world_put_local(&w, &hash, &bytes);
    }
    ck_assert_int_eq(local_store_sweep(w.local, is_even, &blobs), (int)blobs / 2);
    for (uint64_t i = 0; i < blobs; i++) {
        struct sha256 hash = hash_of_number(i);
        ck_assert_int_eq(local_store_has(w.local, &hash), i % 2 == 0);
    }
    world_destroy(&w);
}
END_TEST

struct local_reader {
    struct thread thread;
    struct world *world;
    struct sha256 hash;
    int stop;
};

static void
read_partial(void *argument)
{
    struct local_reader *x = argument;
    while (!__atomic_load_n(&x->stop, __ATOMIC_ACQUIRE)) {
        uint64_t v;
        int rc = local_store_read(x->world->local, &x->hash, 0, &v, sizeof(v));
        if (rc == -ENOENT || rc == -ENODATA || (rc == 0 && v == 0))
            rc = local_store_keep(x->world->local, &x->hash, 8, &x->hash, sizeof(v));
        if (rc < 0)
            abort();
    }
}

// A reader may have opened the partial file just before: it must not stand for the whole one.
START_TEST(an_adopted_copy_takes_the_place_of_a_partial_one)
{
    struct world w;
    struct local_reader x[2];
    world_init(&w, 1 << 20, PATIENCE_MS);
    for (uint64_t round = 1; round < 400; round++) {
        for (int i = 0; i < 2; i++) {
            x[i] = (struct local_reader){.world = &w, .hash = hash_of_number(round)};
            ck_assert_int_eq(thread_start(&x[i].thread, "read", read_partial, &x[i]), 0);
        }
        BUFFER_AUTO bytes = {0};
        buffer_append_le64(&bytes, round);
        buffer_append_le64(&bytes, round);
        for (int i = 0; i < 3; i++) {
            world_put_local(&w, &x[0].hash, &bytes);
            uint64_t v;
            ck_assert_int_eq(local_store_read(w.local, &x[0].hash, 0, &v, sizeof(v)), 0);
            ck_assert_uint_eq(v, round);
            if (i < 2)
                ck_assert_int_eq(local_store_remove(w.local, &x[0].hash), 0);
        }
        for (int i = 0; i < 2; i++) {
            __atomic_store_n(&x[i].stop, 1, __ATOMIC_RELEASE);
            thread_join(&x[i].thread);
        }
        uint64_t v;
        ck_assert_int_eq(local_store_read(w.local, &x[0].hash, 0, &v, sizeof(v)), 0);
        ck_assert_uint_eq(v, round);
    }
    world_destroy(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("chunk");
#define ADD(test) unit_add(s, #test, test, 240)
    ADD(layers_give_what_the_model_gives);
    ADD(no_chunk_is_a_hole);
    ADD(a_damaged_local_copy_is_repaired_from_the_store);
    ADD(a_damaged_only_copy_is_eio);
    ADD(lost_pages_are_eio_and_no_holes);
    ADD(a_copy_that_came_to_the_store_later_repairs_too);
    ADD(a_damaged_object_of_the_store_is_eio);
    ADD(damaged_partial_files_are_read_again);
    ADD(many_readers_cause_one_fetch);
    ADD(a_reader_waits_for_what_is_fetched_ahead);
    ADD(what_cannot_be_fetched_ahead_is_left_to_the_readers);
    ADD(the_end_does_not_wait_for_what_is_fetched_ahead);
    ADD(whole_frames_are_not_offered_to_the_cache);
    ADD(holes_of_partial_files_are_found);
    ADD(readers_of_a_store_that_does_not_answer_fail_together);
    ADD(readers_can_be_cancelled_wherever_they_wait);
    ADD(local_only_reads_never_ask_the_store);
    ADD(what_is_not_to_be_kept_is_not_kept);
    ADD(threads_read_while_layouts_come_and_go);
    ADD(local_copies_are_whole_or_partial);
    ADD(more_blobs_than_open_files);
    ADD(an_adopted_copy_takes_the_place_of_a_partial_one);
#undef ADD
    return unit_run(s);
}
