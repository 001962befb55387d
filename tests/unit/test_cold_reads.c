// SPDX-License-Identifier: Apache-2.0
// Reading what is only in the store, with the requests counted: what one page costs, which readers
// get pages ahead, and cold scans, which leave the caches as they are.
#include "unit.h"

#include "blob_model.h"
#include "chunk/chunk_internal.h"
#include "chunk_world.h"
#include "page/page_ahead.h"
#include "page/page_store.h"

#define OBJECT      ((struct object_id){5})
#define PATIENCE_MS 60000u
#define FILE_PAGES  8192u // half a chunk
#define FRAME_PAGES BLOB_FRAME_PAGES

// ---- whose reads go on --------------------------------------------------------------------------

static struct page_ahead table;
static struct page_range ranges[PAGE_AHEAD_RANGES_MAX];

static unsigned
note(uint64_t first, uint64_t count)
{
    unsigned n = page_ahead_note(&table, OBJECT, first, first + count, PREFETCH_DETECT, ranges);
    page_ahead_check(&table);
    return n;
}

START_TEST(forward_windows_grow_and_end_with_the_stream)
{
    uint64_t ahead = 32;
    uint64_t largest = 0;
    ck_assert_uint_eq(note(0, 32), 0);
    for (uint64_t page = 32; page < 60000; page += 32) {
        unsigned n = note(page, 32);
        ck_assert_uint_le(n, 1);
        if (n == 0)
            continue;
        ck_assert_uint_eq(ranges[0].first, ahead > page + 32 ? ahead : page + 32);
        ahead = ranges[0].first + ranges[0].count;
        largest = ranges[0].count > largest ? ranges[0].count : largest;
        ck_assert_uint_gt(ahead, page + 32);
    }
    ck_assert_uint_ge(largest, PAGE_AHEAD_MAX_PAGES / 2);
    ck_assert_uint_eq(note(1000, 32), 0);
    ck_assert_uint_eq(note(5000, 32), 0);
    ck_assert_uint_eq(note(5032, 32), 1);
    ck_assert_uint_eq(ranges[0].count, PAGE_AHEAD_MIN_PAGES);
}
END_TEST

START_TEST(random_readers_get_nothing_ahead)
{
    uint64_t seed = 1;
    unsigned fetched = 0;
    for (unsigned i = 0; i < 10000; i++)
        fetched += note(next_random(&seed) % 10000000, 1);
    ck_assert_uint_eq(fetched, 0);
}
END_TEST

START_TEST(backward_readers_get_the_pages_before)
{
    uint64_t low = 50000;
    ck_assert_uint_eq(note(50000, 8), 0);
    for (uint64_t page = 49992; page > 0; page -= 8) {
        if (note(page, 8) == 0)
            continue;
        uint64_t end = ranges[0].first + ranges[0].count;
        ck_assert_uint_eq(end, low < page ? low : page);
        low = ranges[0].first;
        ck_assert_uint_lt(low, page);
    }
    ck_assert_uint_eq(low, 0);
}
END_TEST

START_TEST(strided_readers_get_the_next_strides)
{
    uint64_t asked = 0;
    ck_assert_uint_eq(note(0, 2), 0);
    ck_assert_uint_eq(note(100, 2), 0);
    for (uint64_t page = 200; page < 10000; page += 100) {
        unsigned n = note(page, 2);
        ck_assert_uint_ge(n, 1);
        for (unsigned i = 0; i < n; i++) {
            ck_assert_uint_eq(ranges[i].count, 2);
            ck_assert_uint_eq(ranges[i].first % 100, 0);
            ck_assert_uint_gt(ranges[i].first, page);
            ck_assert_uint_gt(ranges[i].first, asked); // none twice
            asked = ranges[i].first;
        }
    }
    ck_assert_uint_eq(asked, 9900 + 100 * PAGE_AHEAD_STRIDES);
}
END_TEST

START_TEST(streams_of_one_file_do_not_end_each_other)
{
    unsigned fetched = 0;
    uint64_t seed = 7;
    for (uint64_t page = 0; page < 6400; page += 32) {
        fetched += note(page, 32);
        fetched += note(1000000 + page, 32);
        fetched += note(9000000 - page, 32); // backward
        note(100000000 + next_random(&seed) % 1000000, 1);
    }
    ck_assert_uint_ge(fetched, 12);
}
END_TEST

START_TEST(a_hint_is_followed)
{
    uint64_t seed = 3;
    for (unsigned i = 0; i < 100; i++) {
        uint64_t first = 5000 + next_random(&seed) % 1000000;
        ck_assert_uint_eq(
            page_ahead_note(&table, OBJECT, first, first + 1, PREFETCH_NONE, ranges), 0);
    }
    for (uint64_t page = 0; page < 512; page += 32)
        ck_assert_uint_eq(
            page_ahead_note(&table, OBJECT, page, page + 32, PREFETCH_NONE, ranges), 0);
    ck_assert_uint_eq(page_ahead_note(&table, OBJECT, 9000, 9001, PREFETCH_FORWARD, ranges), 1);
    ck_assert_uint_eq(ranges[0].first, 9001);
    ck_assert_uint_eq(page_ahead_note(&table, OBJECT, 70000, 70001, PREFETCH_BACKWARD, ranges), 1);
    ck_assert_uint_eq(ranges[0].first + ranges[0].count, 70000);
    ck_assert_uint_eq(page_ahead_note(&table, OBJECT, 200000, 200001, PREFETCH_BOTH, ranges), 2);
    ck_assert_uint_eq(ranges[0].first, 200001);
    ck_assert_uint_eq(ranges[1].first + ranges[1].count, 200000);
}
END_TEST

START_TEST(repeated_misses_of_one_region_bring_its_neighbourhood)
{
    struct page_range range;
    uint64_t now = 1;
    ck_assert_uint_eq(page_ahead_note_miss(&table, OBJECT, 100, 101, now, &range), 0);
    ck_assert_uint_eq(page_ahead_note_miss(&table, OBJECT, 9000, 9001, now, &range), 0);
    ck_assert_uint_eq(page_ahead_note_miss(&table, OBJECT, 5000, 5001, now, &range), 1);
    ck_assert_uint_eq(range.first, 4096);
    ck_assert_uint_eq(range.count, PAGE_AHEAD_BLOCK);
    // Misses far apart, and misses long ago, do not add up.
    for (uint64_t chunk = 10; chunk < 40; chunk++)
        ck_assert_uint_eq(page_ahead_note_miss(&table, OBJECT, chunk * CHUNK_PAGES,
                              chunk * CHUNK_PAGES + 1, now, &range),
            0);
    for (unsigned i = 0; i < 10; i++)
        ck_assert_uint_eq(
            page_ahead_note_miss(&table, OBJECT, 50 * CHUNK_PAGES + i * 100,
                50 * CHUNK_PAGES + i * 100 + 1, now += PAGE_AHEAD_MEMORY_MS + 1, &range),
            0);
}
END_TEST

// ---- with a store -------------------------------------------------------------------------------

struct file {
    struct world world;
    struct lock lock;
    struct page_store *pages;
    struct sha256 blob;
    uint8_t *content;
};

static void
add_content(struct file *f, uint64_t seed)
{
    BUFFER_AUTO bytes = {0};
    struct blob_image_info info;
    struct blob_writer *writer = blob_writer_new(BLOB_BASE, world_sink, &bytes);
    for (uint32_t i = 0; i < FILE_PAGES; i++) {
        uint8_t *page = f->content + (size_t)i * PAGE_BYTES;
        fill_page(page, CONTENT_RANDOM, &seed);
        ck_assert_int_eq(blob_writer_add_data(writer, i, page), 0);
    }
    ck_assert_int_eq(blob_writer_finish(writer, &info), 0);
    blob_writer_free(writer);
    f->blob = world_add_image(&f->world, OBJECT, 0, BLOB_BASE, &bytes, 0, &info, RESIDENCY_REMOTE);
}

static struct file *
file_new(void)
{
    struct file *f = memory_alloc_zero(sizeof(*f));
    world_init(&f->world, 1 << 20, PATIENCE_MS);
    lock_init(&f->lock, "volume", LOCK_RANK_VOLUME);
    struct page_store_options options = {
        .lock = &f->lock, .map = f->world.map, .reader = f->world.reader, .memory_bytes = 8u << 20};
    f->pages = page_store_new(&options);
    f->content = memory_alloc((size_t)FILE_PAGES * PAGE_BYTES);
    add_content(f, 99);
    return f;
}

static void
file_free(struct file *f)
{
    // Before the layouts that its threads use.
    chunk_reader_free(f->world.reader);
    f->world.reader = NULL;
    page_store_free(f->pages);
    lock_destroy(&f->lock);
    world_destroy(&f->world);
    free(f->content);
    free(f);
}

static void
read_bytes_at(struct file *f, uint64_t offset, size_t length, const struct remote_call *call)
{
    CLEANUP(memory_free_auto) uint8_t *out = memory_alloc(length);
    ck_assert_int_eq(page_store_read(f->pages, OBJECT, offset, length, out, call), 0);
    ck_assert_mem_eq(out, f->content + offset, length);
}

static void
read_page(struct file *f, uint64_t page, const struct remote_call *call)
{
    read_bytes_at(f, page * PAGE_BYTES, PAGE_BYTES, call);
}

static struct chunk_reader_numbers
numbers_of(struct file *f)
{
    struct chunk_reader_numbers n;
    chunk_reader_numbers(f->world.reader, &n);
    return n;
}

static bool
is_kept(struct file *f)
{
    CLEANUP(memory_free_auto) char *path = world_local_path(&f->world, &f->blob, "part");
    return access(path, F_OK) == 0;
}

START_TEST(a_page_costs_one_request_for_one_frame)
{
    struct file *f = file_new();
    uint64_t seed = 5;
    read_page(f, 4000, NULL); // with the index
    uint64_t gets = world_gets(&f->world);
    uint64_t bytes = numbers_of(f).remote_bytes;
    ck_assert_uint_eq(gets, 2);
    for (unsigned i = 1; i <= 20; i++) {
        uint64_t frame = i * 24 + next_random(&seed) % 7; // none twice
        read_page(f, frame * FRAME_PAGES % FILE_PAGES, NULL);
        ck_assert_uint_eq(world_gets(&f->world), gets + i);
        ck_assert_uint_le(numbers_of(f).remote_bytes, bytes + i * BLOB_FRAME_STORED_MAX);
    }
    // The neighbours in the frame are here now.
    read_page(f, 4001, NULL);
    ck_assert_uint_eq(world_gets(&f->world), gets + 20);
    file_free(f);
}
END_TEST

START_TEST(a_stream_costs_few_requests)
{
    struct file *f = file_new();
    for (uint64_t page = 0; page < FILE_PAGES; page += 32)
        read_bytes_at(f, page * PAGE_BYTES, 32 * PAGE_BYTES, NULL);
    // 256 reads; a request of the read-ahead has 512 pages, and a reader may come before one.
    ck_assert_uint_le(world_gets(&f->world), 100);
    ck_assert_uint_le(numbers_of(f).remote_bytes, (uint64_t)FILE_PAGES * PAGE_BYTES * 5 / 4);
    file_free(f);
}
END_TEST

// Whether the page can be had without the store.
static bool
is_here(struct file *f, uint64_t page)
{
    const struct remote_call local = {
        .local_only = true, .fetch = {.prefetch_hint = PREFETCH_NONE}}; // it is no reader
    uint8_t out[PAGE_BYTES];
    int rc = page_store_read(f->pages, OBJECT, page * PAGE_BYTES, PAGE_BYTES, out, &local);
    ck_assert(rc == 0 || rc == -EREMOTE);
    return rc == 0;
}

// As the cold pool repeats a read that needed the store.
static const struct remote_call again = {.again = true};

START_TEST(a_random_reader_gets_the_neighbourhood_after_some_misses)
{
    struct file *f = file_new();
    const uint64_t misses[] = {5000, 900, 7000};
    for (unsigned i = 0; i < ARRAY_LENGTH(misses); i++) {
        ck_assert(!is_here(f, misses[i]));
        read_page(f, misses[i], &again);
    }
    for (uint64_t page = 6144; page < 7168; page += FRAME_PAGES)
        while (!is_here(f, page))
            clock_sleep_ms(1);
    ck_assert(!is_here(f, 6143 - FRAME_PAGES) && !is_here(f, 7168 + FRAME_PAGES));
    ck_assert(!is_here(f, 5000 + FRAME_PAGES)); // the first misses brought one frame each
    file_free(f);
}
END_TEST

#define LARGE (512u << 10)

// A neighbourhood of two requests, [6144, 7168), is on its way and does not come.
static struct file *
file_with_stuck_neighbourhood(void)
{
    struct file *f = file_new();
    read_page(f, 5000, &again);
    read_page(f, 900, &again);
    gate_close_from(&f->world, LARGE);
    read_page(f, 7000, &again);
    gate_await_many(&f->world, 2);
    return f;
}

struct reading {
    struct file *file;
    uint64_t page;
    struct thread thread;
};

static void
read_in_thread(void *argument)
{
    const struct reading *x = argument;
    read_page(x->file, x->page, &again);
}

START_TEST(a_random_reader_does_not_wait_for_a_neighbourhood)
{
    struct file *f = file_with_stuck_neighbourhood();
    uint64_t gets = world_gets(&f->world);
    uint64_t overtakes = numbers_of(f).overtakes;
    // Each asks for its own frame; the frame's other pages cost nothing more.
    for (unsigned i = 0; i < FLIGHT_OVERTAKEN_MAX; i++)
        for (unsigned k = 0; k < FRAME_PAGES; k += 5)
            read_page(f, 6144 + i * FRAME_PAGES + k, &again);
    ck_assert_uint_eq(world_gets(&f->world), gets + FLIGHT_OVERTAKEN_MAX);
    ck_assert_uint_eq(numbers_of(f).overtakes, overtakes + FLIGHT_OVERTAKEN_MAX);
    // No more than so many: then it waits.
    struct remote_call short_call = again;
    short_call.deadline_ms = clock_monotonic_ms() + 20;
    uint8_t out[PAGE_BYTES];
    ck_assert_int_eq(
        page_store_read(f->pages, OBJECT, 6500 * PAGE_BYTES, PAGE_BYTES, out, &short_call), -EIO);
    ck_assert_uint_eq(world_gets(&f->world), gets + FLIGHT_OVERTAKEN_MAX);
    // The neighbourhood comes whole.
    gate_set(&f->world, false);
    for (uint64_t page = 6144; page < 7168; page += FRAME_PAGES)
        while (!is_here(f, page))
            clock_sleep_ms(1);
    ck_assert_uint_eq(world_gets(&f->world), gets + FLIGHT_OVERTAKEN_MAX + 2);
    file_free(f);
}
END_TEST

START_TEST(readers_that_overtake_share_a_request)
{
    struct file *f = file_with_stuck_neighbourhood();
    struct reading readers[4];
    uint64_t gets = world_gets(&f->world);
    uint64_t overtakes = numbers_of(f).overtakes;
    gate_close_from(&f->world, 0); // the small ones, too
    for (unsigned i = 0; i < ARRAY_LENGTH(readers); i++) {
        readers[i] = (struct reading){.file = f, .page = 6144 + i};
        ck_assert_int_eq(
            thread_start(&readers[i].thread, "reader", read_in_thread, &readers[i]), 0);
    }
    while (numbers_of(f).overtakes == overtakes)
        clock_sleep_ms(1);
    gate_close_from(&f->world, LARGE);
    for (unsigned i = 0; i < ARRAY_LENGTH(readers); i++)
        thread_join(&readers[i].thread);
    ck_assert_uint_eq(world_gets(&f->world), gets + 1);
    ck_assert_uint_eq(numbers_of(f).overtakes, overtakes + 1);
    gate_set(&f->world, false);
    file_free(f);
}
END_TEST

START_TEST(a_sequential_reader_waits_for_its_window)
{
    struct file *f = file_new();
    const struct remote_call first = {.local_only = true};
    struct remote_call short_call = again;
    uint8_t out[PAGE_BYTES];
    read_page(f, 0, NULL); // brings its frame
    gate_close_from(&f->world, LARGE);
    for (uint64_t page = 1; page < FRAME_PAGES; page++)
        read_page(f, page, NULL);
    gate_await(&f->world); // the window of the second read
    uint64_t gets = world_gets(&f->world);
    uint64_t next = FRAME_PAGES * (uint64_t)PAGE_BYTES;
    short_call.deadline_ms = clock_monotonic_ms() + 20;
    ck_assert_int_eq(page_store_read(f->pages, OBJECT, next, PAGE_BYTES, out, &first), -EREMOTE);
    ck_assert_int_eq(page_store_read(f->pages, OBJECT, next, PAGE_BYTES, out, &short_call), -EIO);
    ck_assert_uint_eq(world_gets(&f->world), gets);
    ck_assert_uint_eq(numbers_of(f).overtakes, 0);
    gate_set(&f->world, false);
    file_free(f);
}
END_TEST

static void
fetch_as_a_job(void *argument)
{
    const struct reading *x = argument;
    const struct remote_call call = {.class = REMOTE_JOB};
    uint64_t bytes = 0;
    ck_assert_int_eq(chunk_reader_fetch_pages(x->file->world.reader, OBJECT,
                         (struct page_no){x->page}, 256, &call, &bytes),
        0);
    ck_assert_uint_ge(bytes, 256 * PAGE_BYTES);
}

// As while the job's request waits for its turn under a limit.
START_TEST(a_program_does_not_wait_for_a_job)
{
    struct file *f = file_new();
    struct reading job = {.file = f, .page = 256};
    gate_close_from(&f->world, LARGE);
    ck_assert_int_eq(thread_start(&job.thread, "job", fetch_as_a_job, &job), 0);
    gate_await(&f->world);
    for (uint64_t page = 256; page < 512; page += FRAME_PAGES)
        read_page(f, page, NULL);
    gate_set(&f->world, false);
    thread_join(&job.thread);
    for (uint64_t page = 256; page < 512; page++)
        ck_assert(is_here(f, page));
    file_free(f);
}
END_TEST

START_TEST(a_scan_keeps_nothing_and_notes_nothing)
{
    struct file *f = file_new();
    struct page_trickle *t = page_trickle_new(&(const struct cold_scan_options){512});
    CLEANUP(memory_free_auto) uint8_t *out = memory_alloc(64 * PAGE_BYTES);
    for (uint64_t page = 0; page < FILE_PAGES; page += 16) {
        ck_assert_int_eq(page_store_read_page_trickle(
                             f->pages, t, OBJECT, page * PAGE_BYTES, 16 * PAGE_BYTES, out, NULL),
            0);
        ck_assert_mem_eq(out, f->content + page * PAGE_BYTES, 16 * PAGE_BYTES);
    }
    // Windows of up to 512 pages, each two requests of 16 frames.
    ck_assert_uint_le(world_gets(&f->world), 40);
    ck_assert_uint_le(numbers_of(f).remote_bytes, (uint64_t)FILE_PAGES * PAGE_BYTES * 21 / 20);
    ck_assert(!is_kept(f));
    struct page_store_numbers n;
    lock_take(&f->lock);
    page_store_numbers_locked(f->pages, &n);
    lock_release(&f->lock);
    ck_assert_uint_eq(n.clean_bytes, 0);
    // Odd offsets and lengths, back and forth.
    uint64_t seed = 17;
    for (unsigned i = 0; i < 200; i++) {
        uint64_t offset = next_random(&seed) % ((FILE_PAGES - 64) * PAGE_BYTES);
        size_t length = 1 + next_random(&seed) % (63 * PAGE_BYTES);
        ck_assert_int_eq(
            page_store_read_page_trickle(f->pages, t, OBJECT, offset, length, out, NULL), 0);
        ck_assert_mem_eq(out, f->content + offset, length);
    }
    ck_assert(!is_kept(f));
    page_trickle_free(t);
    file_free(f);
}
END_TEST

START_TEST(a_scan_sees_the_next_generation)
{
    struct file *f = file_new();
    struct page_trickle *t = page_trickle_new(&(const struct cold_scan_options){512});
    uint8_t out[PAGE_BYTES];
    ck_assert_int_eq(
        page_store_read_page_trickle(f->pages, t, OBJECT, 0, PAGE_BYTES, out, NULL), 0);
    ck_assert_mem_eq(out, f->content, PAGE_BYTES);
    add_content(f, 12345);
    lock_take(&f->lock);
    page_store_freeze_locked(f->pages);
    lock_release(&f->lock);
    page_store_thaw(f->pages);
    ck_assert_int_eq(
        page_store_read_page_trickle(f->pages, t, OBJECT, PAGE_BYTES, PAGE_BYTES, out, NULL), 0);
    ck_assert_mem_eq(out, f->content + PAGE_BYTES, PAGE_BYTES);
    page_trickle_free(t);
    file_free(f);
}
END_TEST

static bool
is_canceled(void *argument UNUSED)
{
    return true;
}

START_TEST(a_failed_read_fails_alone)
{
    struct file *f = file_new();
    struct page_trickle *t = page_trickle_new(&(const struct cold_scan_options){512});
    uint8_t out[PAGE_BYTES];
    gate_set(&f->world, true);
    const struct remote_call short_call = {.deadline_ms = clock_monotonic_ms() + 20};
    const struct remote_call canceled = {.is_canceled = is_canceled};
    ck_assert_int_eq(page_store_read(f->pages, OBJECT, 0, PAGE_BYTES, out, &short_call), -EIO);
    ck_assert_int_eq(
        page_store_read_page_trickle(f->pages, t, OBJECT, 0, PAGE_BYTES, out, &short_call), -EIO);
    ck_assert_int_eq(page_store_read(f->pages, OBJECT, 0, PAGE_BYTES, out, &canceled), -EINTR);
    ck_assert_int_eq(
        page_store_read_page_trickle(f->pages, t, OBJECT, 0, PAGE_BYTES, out, &canceled), -EINTR);
    gate_set(&f->world, false);
    read_page(f, 0, NULL);
    ck_assert_int_eq(
        page_store_read_page_trickle(f->pages, t, OBJECT, 0, PAGE_BYTES, out, NULL), 0);
    ck_assert_mem_eq(out, f->content, PAGE_BYTES);
    page_trickle_free(t);
    file_free(f);
}
END_TEST

START_TEST(a_pin_keeps_what_was_read)
{
    struct file *f = file_new();
    struct pin *pin = pin_begin(local_store_pins(f->world.local), "test", "it is read");
    const struct remote_call call = {.fetch = {.pin_in_cache = pin}};
    read_page(f, 0, &call);
    ck_assert(is_kept(f));
    ck_assert_int_eq(local_store_remove(f->world.local, &f->blob), -EBUSY);
    pin_end(pin);
    ck_assert_int_eq(local_store_remove(f->world.local, &f->blob), 0);
    ck_assert(!is_kept(f));
    file_free(f);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("cold_reads");
#define ADD(test) unit_add(s, #test, test, 30)
    ADD(forward_windows_grow_and_end_with_the_stream);
    ADD(random_readers_get_nothing_ahead);
    ADD(backward_readers_get_the_pages_before);
    ADD(strided_readers_get_the_next_strides);
    ADD(streams_of_one_file_do_not_end_each_other);
    ADD(a_hint_is_followed);
    ADD(repeated_misses_of_one_region_bring_its_neighbourhood);
    ADD(a_page_costs_one_request_for_one_frame);
    ADD(a_stream_costs_few_requests);
    ADD(a_random_reader_gets_the_neighbourhood_after_some_misses);
    ADD(a_random_reader_does_not_wait_for_a_neighbourhood);
    ADD(readers_that_overtake_share_a_request);
    ADD(a_sequential_reader_waits_for_its_window);
    ADD(a_program_does_not_wait_for_a_job);
    ADD(a_scan_keeps_nothing_and_notes_nothing);
    ADD(a_scan_sees_the_next_generation);
    ADD(a_failed_read_fails_alone);
    ADD(a_pin_keeps_what_was_read);
    return unit_run(s);
}
