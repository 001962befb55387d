// SPDX-License-Identifier: Apache-2.0
// What the images of a chunk cost a reader that has none of them, counted in requests to the store:
// small ones come whole with their indexes, and the indexes of a chunk are asked for at once.
#include "unit.h"

#include <string.h>

#include "blob_model.h"
#include "chunk/chunk_internal.h"
#include "chunk_world.h"

#define OBJECT       ((struct object_id){5})
#define PATIENCE_MS  60000u
#define SMALL_PAGES  16u
#define DELTAS       8u
#define IMAGES       (DELTAS + 1)
#define READERS      8u
#define LARGE_PAGES  1024u
#define LARGE_STRIDE 40u // more than a delta's small image can hold

static struct world world;
static struct storage_quota *quota;
static uint8_t content[LARGE_PAGES][PAGE_BYTES];
static struct sha256 blobs[IMAGES];
static unsigned blob_count;
static uint64_t seed;

// Lays an image with every `stride`-th page from `first` on over the content.
static void
add_image(enum blob_kind kind, uint32_t first, uint32_t end, uint32_t stride)
{
    BUFFER_AUTO bytes = {0};
    struct blob_image_info info;
    struct blob_writer *writer = blob_writer_new(kind, world_sink, &bytes);
    for (uint32_t i = first; i < end; i += stride) {
        fill_page(content[i], CONTENT_RANDOM, &seed);
        ck_assert_int_eq(blob_writer_add_data(writer, i, content[i]), 0);
    }
    ck_assert_int_eq(blob_writer_finish(writer, &info), 0);
    blob_writer_free(writer);
    blobs[blob_count++] =
        world_add_image(&world, OBJECT, 0, kind, &bytes, 0, &info, RESIDENCY_REMOTE);
}

// A small file: a base of 16 pages, and deltas of two pages each. Page 0 is in the newest one,
// and page 15 in the base alone.
static void
add_small(void)
{
    add_image(BLOB_BASE, 0, SMALL_PAGES, 1);
    for (uint32_t i = 0; i < DELTAS; i++)
        add_image(BLOB_DELTA, DELTAS - 1 - i, DELTAS + 1 - i, 1);
}

// Images that are too long to come whole: each delta has 24 pages.
static void
add_large(void)
{
    add_image(BLOB_BASE, 0, LARGE_PAGES, 1);
    for (uint32_t i = 0; i < DELTAS; i++)
        add_image(BLOB_DELTA, i, LARGE_PAGES - LARGE_STRIDE, LARGE_STRIDE);
}

static void
setup(void)
{
    seed = 3;
    blob_count = 0;
    world_init(&world, 1 << 20, PATIENCE_MS);
}

static void
teardown(void)
{
    world_destroy(&world);
    storage_quota_close(quota);
    quota = NULL;
}

static int
read_pages(uint32_t first, uint32_t count, const struct remote_call *call)
{
    CLEANUP(memory_free_auto) uint8_t *out = memory_alloc((size_t)count * PAGE_BYTES);
    int rc = chunk_reader_copy(
        world.reader, OBJECT, (struct page_no){first}, count, call, out, NULL, NULL);
    if (rc == 0 && memcmp(out, content[first], (size_t)count * PAGE_BYTES) != 0)
        abort();
    return rc;
}

static void
expect_pages(uint32_t first, uint32_t count, uint64_t gets)
{
    uint64_t before = world_gets(&world);
    ck_assert_int_eq(read_pages(first, count, NULL), 0);
    ck_assert_uint_eq(world_gets(&world), before + gets);
}

// Until the threads of the pool have got all indexes.
static void
await_indexes(void)
{
    struct chunk_layout *layout;
    ck_assert_int_eq(chunk_map_get(world.map, OBJECT, (struct chunk_index){0}, &layout), 0);
    for (size_t i = 0; i < layout->image_count; i++)
        while (!atomic_load(&layout->images[i].index))
            clock_sleep_ms(1);
    chunk_layout_put(world.map, layout);
}

static unsigned
count_kept(void)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < blob_count; i++) {
        CLEANUP(memory_free_auto) char *path = world_local_path(&world, &blobs[i], "part");
        kept += access(path, F_OK) == 0;
    }
    return kept;
}

// ---- small images -------------------------------------------------------------------------------

START_TEST(a_small_image_costs_one_request)
{
    add_small();
    expect_pages(0, SMALL_PAGES, IMAGES);
    // Indexes and frames are here now, for this reader and others.
    expect_pages(0, SMALL_PAGES, 0);
    chunk_map_invalidate_all(world.map);
    const struct remote_call local_only = {.local_only = true};
    ck_assert_int_eq(read_pages(0, SMALL_PAGES, &local_only), 0);
}
END_TEST

START_TEST(a_page_of_a_small_file_costs_no_request_more)
{
    add_small();
    expect_pages(15, 1, IMAGES);
    expect_pages(0, SMALL_PAGES, 0);
}
END_TEST

struct reading {
    struct thread thread;
    uint32_t first, count;
    const struct remote_call *call;
    int rc;
};

static void
read_in_thread(void *argument)
{
    struct reading *x = argument;
    x->rc = read_pages(x->first, x->count, x->call);
}

static void
start(struct reading *x, uint32_t first, uint32_t count, const struct remote_call *call)
{
    *x = (struct reading){.first = first, .count = count, .call = call};
    ck_assert_int_eq(thread_start(&x->thread, "reader", read_in_thread, x), 0);
}

static void
finish(struct reading *x)
{
    thread_join(&x->thread);
    ck_assert_int_eq(x->rc, 0);
}

START_TEST(readers_at_once_share_the_requests)
{
    struct reading x[READERS];
    add_small();
    gate_set(&world, true);
    for (unsigned i = 0; i < READERS; i++)
        start(&x[i], 0, SMALL_PAGES, NULL);
    gate_await_many(&world, IMAGES);
    gate_set(&world, false);
    for (unsigned i = 0; i < READERS; i++)
        finish(&x[i]);
    ck_assert_uint_eq(world_gets(&world), IMAGES);
}
END_TEST

START_TEST(a_scan_gets_small_images_whole_and_keeps_nothing)
{
    const struct remote_call scans[] = {
        {.class = REMOTE_COLD_SCAN, .no_keep = true},
        {.class = REMOTE_COLD_SCAN, .fetch = {.bypass_cache = true}},
    };
    add_small();
    for (unsigned i = 0; i < ARRAY_LENGTH(scans); i++) {
        uint64_t gets = world_gets(&world);
        chunk_map_invalidate_all(world.map);
        ck_assert_int_eq(read_pages(0, SMALL_PAGES, &scans[i]), 0);
        ck_assert_uint_eq(world_gets(&world), gets + IMAGES);
        ck_assert_uint_eq(count_kept(), 0);
    }
    // The indexes alone stay with the layout.
    uint64_t gets = world_gets(&world);
    ck_assert_int_eq(read_pages(0, SMALL_PAGES, &scans[0]), 0);
    ck_assert_uint_eq(world_gets(&world), gets + IMAGES);
    // Who looks for holes alone wants no frames.
    bool hole;
    uint64_t count;
    chunk_map_invalidate_all(world.map);
    ck_assert_int_eq(
        chunk_reader_run(world.reader, OBJECT, (struct page_no){15}, &scans[1], &hole, &count), 0);
    ck_assert(!hole);
    ck_assert_uint_eq(count_kept(), 0);
}
END_TEST

START_TEST(a_full_quota_costs_two_requests_for_an_image)
{
    uint64_t taken = 0;
    add_small();
    quota = storage_quota_open(world.directory, "db/1");
    storage_quota_set_limit(quota, QUOTA_LIMIT_MIN);
    local_store_set_quota(world.local, quota);
    while (storage_quota_reserve(quota, QUOTA_BLOBS, QUOTA_CACHE, 1u << 20) == 0)
        taken += 1u << 20;
    while (storage_quota_reserve(quota, QUOTA_BLOBS, QUOTA_CACHE, QUOTA_BLOCK) == 0)
        taken += QUOTA_BLOCK;
    ck_assert_int_eq(read_pages(0, SMALL_PAGES, NULL), 0);
    ck_assert_uint_eq(count_kept(), 0);
    // The index and the frame, as if no image came whole.
    ck_assert_uint_le(world_gets(&world), 2 * IMAGES);
    storage_quota_give_back(quota, QUOTA_BLOBS, taken);
    ck_assert_int_eq(read_pages(0, SMALL_PAGES, NULL), 0);
    ck_assert_uint_eq(count_kept(), IMAGES);
}
END_TEST

START_TEST(read_ahead_gets_small_images_whole)
{
    add_small();
    chunk_reader_ahead(world.reader, OBJECT, (struct page_no){0}, SMALL_PAGES);
    await_indexes();
    expect_pages(0, SMALL_PAGES, 0);
    ck_assert_uint_eq(world_gets(&world), IMAGES);
}
END_TEST

// ---- damage -------------------------------------------------------------------------------------

// Objects of the first image: what is in the store, and what takes its place.
static void
get_base(struct buffer *bytes)
{
    BUFFER_AUTO key = {0};
    struct blob_record blob = world_blob_record(&world, &blobs[0]);
    blob_key(WORLD_TENANT, 1, &blob, &key);
    ck_assert_int_eq(
        remote_store_get_blob(world.fault, buffer_string(&key), 0, UINT64_MAX, bytes, NULL), 0);
}

static void
put_base(const struct buffer *bytes)
{
    BUFFER_AUTO key = {0};
    struct blob_record blob = world_blob_record(&world, &blobs[0]);
    struct remote_source source = {.data = bytes->data, .length = bytes->length};
    sha256_of(bytes->data, bytes->length, &source.hash);
    blob_key(WORLD_TENANT, 1, &blob, &key);
    ck_assert_int_eq(remote_store_put_blob(
                         world.fault, buffer_string(&key), &source, REMOTE_PUT_OVERWRITE, NULL),
        0);
}

START_TEST(a_damaged_frame_fails_its_readers_alone)
{
    BUFFER_AUTO bytes = {0};
    add_small();
    get_base(&bytes);
    bytes.data[BLOB_HEADER_BYTES + 5000] ^= 1;
    put_base(&bytes);
    ck_assert_int_eq(read_pages(0, DELTAS + 1, NULL), 0); // all in deltas
    ck_assert_int_eq(read_pages(15, 1, NULL), -EIO);
    ck_assert_int_eq(read_pages(0, SMALL_PAGES, NULL), -EIO);
    bytes.data[BLOB_HEADER_BYTES + 5000] ^= 1;
    put_base(&bytes);
    ck_assert_int_eq(read_pages(0, SMALL_PAGES, NULL), 0);
}
END_TEST

START_TEST(a_damaged_index_is_eio)
{
    BUFFER_AUTO bytes = {0};
    add_small();
    get_base(&bytes);
    bytes.data[bytes.length - BLOB_FOOTER_BYTES - 5] ^= 1;
    put_base(&bytes);
    ck_assert_int_eq(read_pages(15, 1, NULL), -EIO);
    ck_assert_int_eq(read_pages(0, 1, NULL), 0); // the newest delta has it
    bytes.data[bytes.length - BLOB_FOOTER_BYTES - 5] ^= 1;
    put_base(&bytes);
    ck_assert_int_eq(read_pages(0, SMALL_PAGES, NULL), 0);
}
END_TEST

// In the middle of an answer, which is a frame.
START_TEST(damage_on_the_way_is_asked_for_again)
{
    add_small();
    for (unsigned nth = 1; nth <= IMAGES; nth++) {
        struct store_fault fault = {
            .verb = STORE_VERB_GET, .kind = STORE_FAULT_CORRUPT, .nth = nth, .times = 1};
        fault_store_add(world.fault, &fault);
        ck_assert_int_eq(read_pages(0, SMALL_PAGES, NULL), 0);
        fault_store_clear(world.fault);
        chunk_map_invalidate_all(world.map);
        for (unsigned i = 0; i < blob_count; i++)
            ck_assert_int_eq(local_store_remove(world.local, &blobs[i]), 0);
    }
}
END_TEST

// The object ends in the middle, as after a lying upload.
START_TEST(a_short_answer_is_eio)
{
    BUFFER_AUTO bytes = {0};
    add_small();
    get_base(&bytes);
    size_t whole = bytes.length;
    bytes.length = whole / 2;
    put_base(&bytes);
    ck_assert_int_eq(read_pages(15, 1, NULL), -EIO);
    ck_assert_int_eq(read_pages(0, 1, NULL), 0);
    bytes.length = whole;
    put_base(&bytes);
    ck_assert_int_eq(read_pages(0, SMALL_PAGES, NULL), 0);
}
END_TEST

// ---- the chain ----------------------------------------------------------------------------------

START_TEST(a_large_image_gives_its_index_and_a_frame)
{
    struct chunk_reader_numbers n;
    add_image(BLOB_BASE, 0, LARGE_PAGES, 1);
    expect_pages(500, 1, 2);
    chunk_reader_numbers(world.reader, &n);
    ck_assert_uint_lt(n.remote_bytes, 2 * BLOB_FRAME_STORED_MAX);
}
END_TEST

// No answer comes before all have been asked for.
static void
check_asked_at_once(uint32_t page)
{
    struct reading x;
    gate_set(&world, true);
    start(&x, page, 1, NULL);
    gate_await_many(&world, IMAGES);
    gate_set(&world, false);
    finish(&x);
}

START_TEST(indexes_of_a_chunk_are_asked_for_at_once)
{
    add_large();
    check_asked_at_once(LARGE_PAGES - 1);              // in the base
    ck_assert_uint_eq(world_gets(&world), IMAGES + 1); // and a frame
}
END_TEST

START_TEST(small_images_of_a_chunk_are_asked_for_at_once)
{
    add_small();
    check_asked_at_once(15);
    ck_assert_uint_eq(world_gets(&world), IMAGES);
}
END_TEST

// The newest image is read, and the request for the base's index waits.
static void
read_while_the_base_is_asked_for(void)
{
    add_small();
    gate_close_from(&world, 32u << 10);
    ck_assert_int_eq(read_pages(0, 1, NULL), 0);
    gate_await(&world);
}

// The reader needs the newest image alone; the base does not come.
START_TEST(a_reader_waits_for_the_images_that_it_needs)
{
    read_while_the_base_is_asked_for();
    // Another one needs it, and gives up.
    struct remote_call short_call = {.deadline_ms = clock_monotonic_ms() + 20};
    ck_assert_int_eq(read_pages(15, 1, &short_call), -EIO);
    gate_set(&world, false);
    ck_assert_int_eq(read_pages(0, SMALL_PAGES, NULL), 0);
    ck_assert_uint_eq(world_gets(&world), IMAGES);
}
END_TEST

START_TEST(the_end_does_not_wait_for_indexes)
{
    read_while_the_base_is_asked_for();
    chunk_reader_free(world.reader); // cancels it
    world.reader = NULL;
}
END_TEST

START_TEST(a_chunk_that_is_here_asks_nothing)
{
    add_large();
    ck_assert_int_eq(read_pages(0, LARGE_PAGES, NULL), 0);
    await_indexes();
    uint64_t gets = world_gets(&world);
    chunk_map_invalidate_all(world.map);
    ck_assert_int_eq(read_pages(0, LARGE_PAGES, NULL), 0);
    ck_assert_uint_eq(world_gets(&world), gets);
}
END_TEST

static bool
is_canceled(void *argument UNUSED)
{
    return true;
}

START_TEST(a_store_that_fails_fails_no_later_reader)
{
    const struct remote_call canceled = {.is_canceled = is_canceled};
    add_small();
    fault_store_set_outage(world.fault, true);
    ck_assert_int_eq(read_pages(15, 1, NULL), -EIO);
    fault_store_set_outage(world.fault, false);
    gate_set(&world, true);
    ck_assert_int_eq(read_pages(15, 1, &canceled), -EINTR);
    gate_set(&world, false);
    ck_assert_int_eq(read_pages(0, SMALL_PAGES, NULL), 0);
    struct chunk_reader_numbers n;
    chunk_reader_numbers(world.reader, &n);
    ck_assert_uint_eq(n.failed_reads, 1); // the reader's, not those of the pool
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("cold_images");
#define ADD(test) unit_add_with(s, #test, test, setup, teardown, 30)
    ADD(a_small_image_costs_one_request);
    ADD(a_page_of_a_small_file_costs_no_request_more);
    ADD(readers_at_once_share_the_requests);
    ADD(a_scan_gets_small_images_whole_and_keeps_nothing);
    ADD(a_full_quota_costs_two_requests_for_an_image);
    ADD(read_ahead_gets_small_images_whole);
    ADD(a_damaged_frame_fails_its_readers_alone);
    ADD(a_damaged_index_is_eio);
    ADD(damage_on_the_way_is_asked_for_again);
    ADD(a_short_answer_is_eio);
    ADD(a_large_image_gives_its_index_and_a_frame);
    ADD(indexes_of_a_chunk_are_asked_for_at_once);
    ADD(small_images_of_a_chunk_are_asked_for_at_once);
    ADD(a_reader_waits_for_the_images_that_it_needs);
    ADD(the_end_does_not_wait_for_indexes);
    ADD(a_chunk_that_is_here_asks_nothing);
    ADD(a_store_that_fails_fails_no_later_reader);
#undef ADD
    return unit_run(s);
}
