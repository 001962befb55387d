// SPDX-License-Identifier: Apache-2.0
// The PageStore against arrays of bytes: writes and discards of any alignment, eviction to the WAL,
// freezing, folding (by a simple stand-in for the checkpoint), thawing, and several threads.
#include "unit.h"

#include "chunk_world.h"
#include "page/page_store.h"

#define OBJECTS      4u
#define WINDOW_PAGES 192u // of each object, across the boundary of two chunks
#define WINDOW_FIRST (CHUNK_PAGES - WINDOW_PAGES / 2)
#define WINDOW_BYTES ((uint64_t)WINDOW_PAGES * PAGE_BYTES)
#define WINDOW_START ((uint64_t)WINDOW_FIRST * PAGE_BYTES)
#define WRITE_MAX    (20u * PAGE_BYTES)
#define PATIENCE_MS  60000u

struct object_model {
    struct object_id id;
    uint64_t size;
    uint8_t bytes[WINDOW_BYTES];
    bool exists[2]; // the chunks before and behind the boundary
    uint64_t seed;
};

struct bench {
    struct world world;
    struct lock lock;
    struct wal *wal;
    struct page_store *pages;
    struct lsn cut;
    struct object_model objects[OBJECTS];
};

static uint64_t
pick(struct object_model *o, uint64_t below)
{
    return hash_u64(++o->seed) % below;
}

static int
no_replay(void *argument, const struct wal_replayed *record)
{
    (void)argument;
    (void)record;
    return -EINVAL;
}

static struct bench *
bench_new(uint64_t memory_bytes)
{
    struct bench *b = memory_alloc_zero(sizeof(*b));
    BUFFER_AUTO error = {0};
    world_init(&b->world, 1 << 20, PATIENCE_MS);
    lock_init(&b->lock, "volume", LOCK_RANK_VOLUME);
    CLEANUP(memory_free_auto) char *directory = memory_printf("%s/wal", b->world.directory);
    ck_assert_int_eq(path_make_directories(directory, 0700), 0);
    struct wal_options wal = {.directory = directory, .volume = {{3}}, .limit_bytes = 64u << 20};
    ck_assert_int_eq(wal_open(&wal, b->cut, no_replay, NULL, &b->wal, &error), 0);
    struct page_store_options options = {.lock = &b->lock,
        .wal = b->wal,
        .map = b->world.map,
        .reader = b->world.reader,
        .memory_bytes = memory_bytes};
    b->pages = page_store_new(&options);
    for (uint64_t i = 0; i < OBJECTS; i++) {
        b->objects[i].id.v = 10 + i;
        b->objects[i].seed = i << 40;
    }
    return b;
}

static void
bench_free(struct bench *b)
{
    ck_assert_int_eq(wal_close(b->wal), 0);
    page_store_free(b->pages);
    lock_destroy(&b->lock);
    world_destroy(&b->world);
    free(b);
}

// ---- changing -----------------------------------------------------------------------------------

// Takes the lock when all pieces can be put.
static void
lock_for_pieces(
    struct bench *b, struct object_id object, const struct page_piece *pieces, size_t count)
{
    lock_take(&b->lock);
    while (!page_store_can_put_locked(b->pages, object, pieces, count)) {
        lock_release(&b->lock);
        if (page_store_prefault(b->pages, object, pieces, count) < 0)
            abort();
        lock_take(&b->lock);
    }
}

static void
write_bytes(struct bench *b, struct object_model *o, uint64_t at, size_t length)
{
    uint8_t *data = o->bytes + at;
    uint64_t offset = WINDOW_START + at;
    uint64_t mark = pick(o, UINT64_MAX);
    for (size_t i = 0; i < length; i++)
        data[i] = (uint8_t)(mark >> i % 8 * 8 ^ i / 256);
    size_t count;
    struct page_piece *pieces = page_pieces_new(offset, data, length, &count);
    uint32_t page_offset = (uint32_t)(offset % PAGE_BYTES);
    uint32_t bytes = wal_record_length(page_offset, 8, (uint32_t)length);
    uint32_t crcs[WRITE_MAX / PAGE_BYTES + 1];
    for (size_t i = 0; i < count; i++)
        crcs[i] = pieces[i].crc;
    if (wal_reserve(b->wal, bytes, clock_monotonic_ms() + PATIENCE_MS) < 0)
        abort();
    struct wal_slot slot;
    lock_for_pieces(b, o->id, pieces, count);
    wal_begin(b->wal, bytes, bytes, &slot);
    struct lsn payload = wal_payload_lsn(&slot, page_offset, 8, (uint32_t)length);
    page_store_put_locked(b->pages, o->id, pieces, count, payload, o->size);
    lock_release(&b->lock);
    wal_fill(b->wal, &slot, page_offset, "changes.", 8, data, (uint32_t)length, crcs);
    page_pieces_free(pieces, count);
    if (offset + length > o->size)
        o->size = offset + length;
}

static void
write_random(struct bench *b, struct object_model *o)
{
    uint64_t at = pick(o, WINDOW_BYTES);
    uint64_t length = 1 + pick(o, WRITE_MAX);
    switch (pick(o, 4)) {
    case 0: // whole pages
        at -= at % PAGE_BYTES;
        length = PAGE_BYTES * (1 + pick(o, 4));
        break;
    case 1:
        length = 1 + length % 300;
        break;
    case 2: // goes on at the end
        if (o->size > WINDOW_START && o->size < WINDOW_START + WINDOW_BYTES)
            at = o->size - WINDOW_START;
        length = 1 + length % (3 * PAGE_BYTES);
        break;
    default:
        break;
    }
    write_bytes(b, o, at, length < WINDOW_BYTES - at ? length : WINDOW_BYTES - at);
}

// Bytes from `at` to `end` of the window; UINT64_MAX: a truncation.
static void
discard(struct bench *b, struct object_model *o, uint64_t at, uint64_t end)
{
    uint64_t from = WINDOW_START + at;
    uint64_t to = end == UINT64_MAX ? UINT64_MAX : WINDOW_START + end;
    size_t count;
    struct page_piece *edges = page_store_edges(from, to, &count);
    lock_for_pieces(b, o->id, edges, count);
    page_store_discard_locked(b->pages, o->id, from, to, o->size);
    lock_release(&b->lock);
    page_pieces_free(edges, count);
    memset(o->bytes + at, 0, (end < WINDOW_BYTES ? end : WINDOW_BYTES) - at);
    if (to == UINT64_MAX)
        o->size = from;
}

static void
discard_random(struct bench *b, struct object_model *o)
{
    uint64_t at = pick(o, WINDOW_BYTES);
    uint64_t end = at + 1 + pick(o, pick(o, 2) ? 2 * PAGE_BYTES : 50 * PAGE_BYTES);
    if (end >= WINDOW_BYTES || pick(o, 8) == 0) {
        end = UINT64_MAX;
        if (o->size < WINDOW_START + at)
            return;
    }
    discard(b, o, at, end);
}

// ---- comparing ----------------------------------------------------------------------------------

static void
check_read(struct bench *b, struct object_model *o, uint64_t at, uint64_t length)
{
    uint8_t *out = memory_alloc(length);
    int rc = page_store_read(b->pages, o->id, WINDOW_START + at, length, out, NULL);
    if (rc != 0 || memcmp(out, o->bytes + at, length) != 0) {
        fprintf(stderr, "object %d, at %d, %d bytes: %d\n", (int)o->id.v, (int)at, (int)length, rc);
        abort();
    }
    free(out);
}

static void
check_random(struct bench *b, struct object_model *o)
{
    uint64_t at = pick(o, WINDOW_BYTES);
    uint64_t length = 1 + pick(o, pick(o, 2) ? 100 : WRITE_MAX);
    check_read(b, o, at, length < WINDOW_BYTES - at ? length : WINDOW_BYTES - at);
}

static bool
is_zero(const uint8_t *p, uint64_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

// Between an offset and the data that follows there are zeros; in a hole there are zeros.
static void
check_seeks(struct bench *b, struct object_model *o)
{
    uint64_t end = WINDOW_START + WINDOW_BYTES;
    for (uint64_t at = WINDOW_START; at < end;) {
        uint64_t data;
        uint64_t hole;
        if (page_store_seek(b->pages, o->id, at, end, true, NULL, &data) != 0 || data < at ||
            data > end)
            abort();
        if (!is_zero(o->bytes + (at - WINDOW_START), data - at))
            abort();
        if (data == end)
            break;
        if (page_store_seek(b->pages, o->id, data, end, false, NULL, &hole) != 0 || hole <= data ||
            hole > end)
            abort();
        at = hole;
    }
}

// ---- a stand-in for the checkpoint --------------------------------------------------------------

// The frozen layer's page: 0 absent, 1 patch, 2 whole.
static int
frozen_page(
    struct bench *b, struct object_id object, uint64_t page, uint8_t *data, struct page_mask *mask)
{
    struct dirty_page found;
    lock_take(&b->lock);
    enum dirty_state state =
        dirty_set_find(page_store_frozen(b->pages), object, (struct page_no){page}, &found);
    lock_release(&b->lock);
    memset(data, 0, PAGE_BYTES);
    if (state != DIRTY_PAGE)
        return state == DIRTY_HOLE ? 2 : 0;
    int result = found.mask ? 1 : 2;
    if (found.mask)
        *mask = *found.mask;
    if (found.page)
        memcpy(data, found.page->data, PAGE_BYTES);
    else if (wal_read_verified(
                 b->wal, found.wal_lsn, found.crc, data + found.wal_from, found.wal_bytes) != 0)
        abort();
    page_put(found.page);
    return result;
}

static void
fold_chunk(struct bench *b, struct object_model *o, unsigned which)
{
    BUFFER_AUTO bytes = {0};
    struct blob_image_info info;
    bool delta = o->exists[which] && pick(o, 8) > 0;
    struct blob_writer *w = blob_writer_new(delta ? BLOB_DELTA : BLOB_BASE, world_sink, &bytes);
    uint64_t first = which ? CHUNK_PAGES : WINDOW_FIRST;
    for (uint64_t page = first; page < first + WINDOW_PAGES / 2; page++) {
        uint8_t data[PAGE_BYTES];
        struct page_mask mask;
        uint32_t in_chunk = (uint32_t)(page % CHUNK_PAGES);
        int found = frozen_page(b, o->id, page, data, &mask);
        int rc = 0;
        if (!delta && found < 2) {
            struct page *below;
            rc = chunk_reader_read(
                b->world.reader, o->id, (struct page_no){page}, 1, NULL, &below, NULL, NULL);
            uint8_t patch[PAGE_BYTES];
            memcpy(patch, data, PAGE_BYTES);
            if (below)
                memcpy(data, below->data, PAGE_BYTES);
            if (found == 1)
                page_mask_copy(&mask, data, patch);
            page_put(below);
            found = 2;
        }
        if (rc == 0 && found == 2)
            rc = blob_writer_add_data(w, in_chunk, data);
        else if (rc == 0 && found == 1)
            rc = blob_writer_add_patch(w, in_chunk, data, &mask);
        if (rc != 0)
            abort();
    }
    if (blob_writer_finish(w, &info) != 0)
        abort();
    blob_writer_free(w);
    world_add_image(
        &b->world, o->id, which, delta ? BLOB_DELTA : BLOB_BASE, &bytes, 0, &info, RESIDENCY_LOCAL);
    o->exists[which] = true;
}

static void
freeze(struct bench *b)
{
    struct wal_numbers n;
    lock_take(&b->lock);
    page_store_freeze_locked(b->pages);
    wal_numbers(b->wal, &n);
    b->cut = n.append;
    lock_release(&b->lock);
}

// A fold fails, and the next one freezes anew.
static void
freeze_again(struct bench *b)
{
    ck_assert_int_eq(page_store_unfreeze(b->pages), 0);
    ck_assert(!page_store_frozen(b->pages));
    freeze(b);
}

static void
fold(struct bench *b)
{
    for (unsigned i = 0; i < OBJECTS; i++)
        for (unsigned which = 0; which < 2; which++) {
            // Models of the threads are theirs: a seed of our own.
            struct object_model mine = {.id = b->objects[i].id, .seed = b->cut.v};
            memcpy(mine.exists, b->objects[i].exists, sizeof(mine.exists));
            fold_chunk(b, &mine, which);
            b->objects[i].exists[which] = true;
        }
}

static void
thaw(struct bench *b)
{
    page_store_thaw(b->pages);
    wal_release(b->wal, b->cut);
}

// ---- the tests ----------------------------------------------------------------------------------

static void
random_step(struct bench *b, struct object_model *o)
{
    switch (pick(o, 8)) {
    case 0:
        discard_random(b, o);
        break;
    case 1:
    case 2:
    case 3:
        write_random(b, o);
        break;
    default:
        check_random(b, o);
    }
}

static void
check_everything(struct bench *b)
{
    for (unsigned i = 0; i < OBJECTS; i++) {
        check_read(b, &b->objects[i], 0, WINDOW_BYTES);
        check_seeks(b, &b->objects[i]);
    }
}

static void
run_phases(uint64_t memory_bytes, int phases, bool *evicted_out)
{
    struct bench *b = bench_new(memory_bytes);
    *evicted_out = false;
    for (int phase = 0; phase < phases; phase++) {
        for (int step = 0; step < 250; step++)
            random_step(b, &b->objects[step % OBJECTS]);
        if (wal_sync_wait(b->wal) != 0)
            abort();
        write_random(b, &b->objects[0]); // balances
        struct page_store_numbers n;
        lock_take(&b->lock);
        page_store_numbers_locked(b->pages, &n);
        lock_release(&b->lock);
        *evicted_out = *evicted_out || n.dirty_resident_bytes < n.dirty_pages * sizeof(struct page);
        ck_assert(n.dirty_resident_bytes + n.clean_bytes <= memory_bytes ||
                  n.dirty_resident_bytes > memory_bytes / 2);
        check_everything(b);
        if (phase % 3 == 0) {
            freeze(b);
            check_everything(b);
        }
        if (phase % 6 == 1) {
            freeze_again(b);
            check_everything(b);
        }
        if (phase % 3 == 1) {
            fold(b);
            check_everything(b);
            thaw(b);
            check_everything(b);
        }
    }
    bench_free(b);
}

START_TEST(bytes_are_what_the_model_has)
{
    bool evicted; // not for want of memory, but large writes are only in the log
    run_phases(64u << 20, 15, &evicted);
}
END_TEST

static uint64_t
resident_pages(struct bench *b)
{
    struct page_store_numbers n;
    lock_take(&b->lock);
    page_store_numbers_locked(b->pages, &n);
    lock_release(&b->lock);
    return n.dirty_resident_bytes / sizeof(struct page);
}

START_TEST(large_writes_stay_in_the_log)
{
    struct bench *b = bench_new(64u << 20);
    struct object_model *o = &b->objects[0];
    write_bytes(b, o, 0, 8 * PAGE_BYTES);
    ck_assert_uint_eq(resident_pages(b), 8);
    // 18 whole pages and two parts, over those and behind.
    write_bytes(b, o, 4 * PAGE_BYTES - 100, 18 * PAGE_BYTES + 200);
    ck_assert_uint_eq(resident_pages(b), 5);
    check_everything(b); // from the ring
    if (wal_sync_wait(b->wal) != 0)
        abort();
    check_everything(b); // from the segment
    write_bytes(b, o, 6 * PAGE_BYTES + 7, 100);
    check_everything(b);
    freeze(b);
    write_bytes(b, o, 7 * PAGE_BYTES + 9, 100);
    check_everything(b);
    fold(b);
    thaw(b);
    check_everything(b);
    bench_free(b);
}
END_TEST

START_TEST(a_tiny_memory_changes_nothing)
{
    bool evicted;
    run_phases(48 * sizeof(struct page), 30, &evicted);
    ck_assert(evicted);
}
END_TEST

START_TEST(writes_without_what_is_below_become_patches)
{
    struct bench *b = bench_new(1 << 20);
    struct object_model *o = &b->objects[0];
    write_bytes(b, o, 0, 10 * PAGE_BYTES);
    freeze(b);
    fold(b);
    thaw(b);
    // Nothing of it is in memory: another PageStore over the same chunks.
    page_store_free(b->pages);
    struct page_store_options options = {.lock = &b->lock,
        .wal = b->wal,
        .map = b->world.map,
        .reader = b->world.reader,
        .memory_bytes = 1 << 20};
    b->pages = page_store_new(&options);
    write_bytes(b, o, 100, 50);
    write_bytes(b, o, 120, 200);
    write_bytes(b, o, 4 * PAGE_BYTES - 5, 10);
    struct dirty_page found;
    freeze(b);
    ck_assert_int_eq(
        dirty_set_find(page_store_frozen(b->pages), o->id, (struct page_no){WINDOW_FIRST}, &found),
        DIRTY_PAGE);
    ck_assert_ptr_nonnull(found.mask);
    page_put(found.page);
    // A patch over a frozen patch over a chunk.
    write_bytes(b, o, 90, 20);
    write_bytes(b, o, 4 * PAGE_BYTES - 2, 3);
    check_everything(b);
    fold(b);
    thaw(b);
    check_everything(b);
    freeze(b);
    fold(b);
    thaw(b);
    check_everything(b);
    // Once a page is in memory, the write merges.
    write_bytes(b, o, 1000, 3);
    freeze(b);
    dirty_set_find(page_store_frozen(b->pages), o->id, (struct page_no){WINDOW_FIRST}, &found);
    ck_assert_ptr_null(found.mask);
    page_put(found.page);
    fold(b);
    thaw(b);
    check_everything(b);
    bench_free(b);
}
END_TEST

START_TEST(a_deleted_object_leaves_the_active_layer)
{
    struct bench *b = bench_new(1 << 20);
    struct object_model *o = &b->objects[1];
    write_bytes(b, o, 0, 3 * PAGE_BYTES);
    write_bytes(b, &b->objects[2], 0, 100);
    lock_take(&b->lock);
    ck_assert(!page_store_is_clean_locked(b->pages));
    ck_assert_uint_eq(page_store_dirty_pages_locked(b->pages, o->id), 3);
    page_store_drop_object_locked(b->pages, o->id);
    ck_assert_uint_eq(page_store_dirty_pages_locked(b->pages, o->id), 0);
    ck_assert(!page_store_is_full_locked(b->pages));
    lock_release(&b->lock);
    memset(o->bytes, 0, sizeof(o->bytes));
    o->size = 0;
    check_everything(b);
    bench_free(b);
}
END_TEST

struct writer {
    struct thread thread;
    struct bench *bench;
    struct object_model *object;
    int steps;
};

static void
write_and_check(void *argument)
{
    struct writer *x = argument;
    for (int i = 0; i < x->steps; i++) {
        random_step(x->bench, x->object);
        if (pick(x->object, 60) == 0 && wal_sync_wait(x->bench->wal) != 0)
            abort();
        if (i % 100 == 0)
            check_seeks(x->bench, x->object);
    }
    __atomic_store_n(&x->steps, 0, __ATOMIC_RELEASE);
}

START_TEST(threads_write_while_generations_are_made)
{
    static const uint64_t memories[] = {4u << 20, 100 * sizeof(struct page)};
    for (unsigned round = 0; round < 2; round++) {
        struct bench *b = bench_new(memories[round]);
        struct writer x[OBJECTS];
        for (unsigned i = 0; i < OBJECTS; i++) {
            x[i] = (struct writer){.bench = b, .object = &b->objects[i], .steps = 1500};
            ck_assert_int_eq(thread_start(&x[i].thread, "write", write_and_check, &x[i]), 0);
        }
        bool failed = false;
        for (bool busy = true; busy;) {
            busy = false;
            freeze(b);
            if ((failed = !failed))
                freeze_again(b);
            fold(b);
            thaw(b);
            for (unsigned i = 0; i < OBJECTS; i++)
                busy = busy || __atomic_load_n(&x[i].steps, __ATOMIC_ACQUIRE) > 0;
        }
        for (unsigned i = 0; i < OBJECTS; i++)
            thread_join(&x[i].thread);
        check_everything(b);
        bench_free(b);
    }
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("page_store");
#define ADD(test) unit_add(s, #test, test, 240)
    ADD(bytes_are_what_the_model_has);
    ADD(large_writes_stay_in_the_log);
    ADD(a_tiny_memory_changes_nothing);
    ADD(writes_without_what_is_below_become_patches);
    ADD(a_deleted_object_leaves_the_active_layer);
    ADD(threads_write_while_generations_are_made);
#undef ADD
    return unit_run(s);
}
